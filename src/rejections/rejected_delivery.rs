//! One rejected delivery, and its form on disk: a line of JSON with the facts, followed by the bytes of the request.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::UnixMillis;
use crate::credentials::Credentials;
use crate::event::Delivery;
use crate::outcome::Outcome;

/// One rejected delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedDelivery {
    /// Number of the rejection, which no other rejection has. Contains the time of receipt, so a later rejection has a higher id.
    pub id: u64,
    /// Name of the source to which the delivery was sent.
    pub source: Arc<str>,
    /// Outcome of the delivery, as in `hookhold_deliveries_total`.
    pub outcome: Outcome,
    /// Reason for the rejection, as in the log line.
    pub hint: String,
    /// Address of the sender, as in the log line.
    pub remote: SocketAddr,
    /// Time at which the server read the first byte of the request.
    pub received_at: UnixMillis,
    /// Number of rejections with the same source and outcome that hookhold has sampled out since the previous stored one.
    pub sampled_out: u64,
    /// The request as HTTP/1.1: request line, header fields, an empty line, and the body without chunked encoding. The body is
    /// absent if the server did not read the body, if the body is too large to store, or if the body contains a credential. Even
    /// then, the field `content-length` contains the length of the body. Exception: the field is 0 if the sender announced no
    /// length and the server did not read the whole body.
    pub request: Vec<u8>,
}

/// Cause of a rejection: rejections with the same cause differ only in numbers, such as the age of a timestamp.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RejectionCause {
    /// Name of the source.
    pub source: Arc<str>,
    /// Name of the outcome.
    pub outcome: &'static str,
    /// The hint with `#` in place of each number.
    pub hint: String,
}

/// First line of a rejected delivery on disk.
#[derive(Serialize, Deserialize)]
struct RejectionHead {
    id: u64,
    source: String,
    outcome: String,
    hint: String,
    remote: SocketAddr,
    received_at: u64,
    #[serde(default)]
    sampled_out: u64,
}

impl RejectedDelivery {
    /// Returns the form on disk.
    pub fn encode(&self) -> Vec<u8> {
        let head = RejectionHead {
            id: self.id,
            source: self.source.to_string(),
            outcome: self.outcome.word().to_owned(),
            hint: self.hint.clone(),
            remote: self.remote,
            received_at: self.received_at.0,
            sampled_out: self.sampled_out,
        };
        let mut bytes = serde_json::to_vec(&head).expect("texts and numbers are valid JSON");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.request);
        bytes
    }

    /// Parses the form on disk. Returns `None` for other bytes, and for an outcome that this version does not know.
    pub fn decode(bytes: &[u8]) -> Option<RejectedDelivery> {
        let end = memchr::memchr(b'\n', bytes)?;
        let head: RejectionHead = serde_json::from_slice(&bytes[..end]).ok()?;
        let outcome = Outcome::of_word(&head.outcome)?;
        Some(RejectedDelivery {
            id: head.id,
            source: head.source.into(),
            outcome,
            hint: head.hint,
            remote: head.remote,
            received_at: UnixMillis(head.received_at),
            sampled_out: head.sampled_out,
            request: bytes[end + 1..].to_vec(),
        })
    }

    /// Returns the id as text: 16 hexadecimal digits.
    pub fn id_text(&self) -> String {
        format!("{:016x}", self.id)
    }

    /// Returns the cause, by which the verbs group rejections.
    pub fn cause(&self) -> RejectionCause {
        RejectionCause { source: self.source.clone(), outcome: self.outcome.word(), hint: without_numbers(&self.hint) }
    }

    /// Returns the rejection as a JSON object, for the admin API and for `--format json`.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "id": self.id_text(),
            "source": &*self.source,
            "outcome": self.outcome.word(),
            "hint": self.hint,
            "remote": self.remote,
            "received_at": self.received_at.rfc3339(),
            "sampled_out": self.sampled_out,
            "request_base64": STANDARD.encode(&self.request),
        })
    }
}

/// Replaces each run of digits with `#`.
fn without_numbers(hint: &str) -> String {
    let mut text = String::with_capacity(hint.len());
    for letter in hint.chars() {
        match letter.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(letter),
        }
    }
    text
}

/// Returns a request without its credentials, with this body.
pub(super) fn request(credentials: &Credentials, delivery: &Delivery, body: &[u8]) -> Vec<u8> {
    let Delivery { method, target, headers, .. } = delivery;
    let mut request = format!("{method} {} HTTP/1.1\r\n", credentials.redact(target)).into_bytes();
    let mut field = |name: &str, value: &[u8]| request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    let stored = credentials.remaining_headers(headers, target);
    for (name, value) in stored.iter().filter(|(name, _)| *name != TRANSFER_ENCODING) {
        field(name.as_str(), value.as_bytes());
    }
    if !headers.contains_key(CONTENT_LENGTH) {
        field(CONTENT_LENGTH.as_str(), delivery.body.len().to_string().as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected() -> RejectedDelivery {
        RejectedDelivery {
            id: 7,
            source: "shop".into(),
            outcome: Outcome::TimestampStale,
            hint: "timestamp: expected at most 300 s,\nfound 612 s".to_owned(),
            remote: ([192, 0, 2, 1], 1000).into(),
            received_at: UnixMillis(1_700_000_000_000),
            sampled_out: 3,
            request: b"POST / HTTP/1.1\r\n\r\n\xff\n".to_vec(),
        }
    }

    #[test]
    fn a_rejection_is_read_as_it_was_written() {
        assert_eq!(RejectedDelivery::decode(&rejected().encode()), Some(rejected()));
    }

    #[test]
    fn other_bytes_are_no_rejection() {
        let whole = rejected().encode();
        let head = whole.iter().position(|byte| *byte == b'\n').expect("a line");
        for bytes in [&b""[..], b"\n", b"{}\n", b"\xff\n", &whole[..head], &whole[1..]] {
            assert_eq!(RejectedDelivery::decode(bytes), None, "{bytes:?}");
        }
        let unknown = String::from_utf8_lossy(&whole).replace("timestamp_stale", "of_another_version").into_bytes();
        assert_eq!(RejectedDelivery::decode(&unknown), None);
    }

    #[test]
    fn hints_that_differ_only_in_numbers_are_one_cause() {
        let other = RejectedDelivery { hint: "timestamp: expected at most 300 s,\nfound 9 s".to_owned(), ..rejected() };
        assert_eq!(rejected().cause(), other.cause());
        let cause = RejectedDelivery { hint: "another".to_owned(), ..rejected() }.cause();
        assert_ne!(rejected().cause(), cause);
    }
}
