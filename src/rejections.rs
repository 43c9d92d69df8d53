//! The latest refused deliveries, as they came, so that `hookhold doctor` can explain them without anybody having recorded
//! anything. Opt-in (`[admin] keep_rejected`), in memory only, gone with the process.
//!
//! Nobody has proved who sent what is in here, so nobody may fill it: [`MOST_OF_A_SENDER`] of each address, source and
//! outcome, [`MOST_OF_A_KIND`] of each source and outcome, [`Rejections::limit`] bytes in all. Whoever is beyond the bytes
//! loses its oldest where most bytes are, so a flood of one kind leaves the other kinds alone. Authorization, Cookie and
//! what a recipe uses as a token are left out, as they are in the journal.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use serde_json::json;

use crate::address::sender;
use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::event::Delivery;
use crate::header_field::is_credential;
use crate::outcome::Outcome;

/// One refused delivery.
#[derive(Clone, Debug)]
pub struct RejectedDelivery {
    /// Counts them, from 1 since the start: the newest has the largest.
    pub number: u64,
    /// The name of the source that refused it.
    pub source: Arc<str>,
    /// Why, as it was counted.
    pub outcome: Outcome,
    /// Why, as it was logged.
    pub hint: String,
    /// Whose address was logged.
    pub remote: SocketAddr,
    /// When its first byte came.
    pub received_at: UnixMillis,
    /// The request as HTTP/1.1: request line, header fields, an empty line, the body out of its chunks. Without the body
    /// where that was never read, or was too large to be kept here; `content-length` says what there was.
    pub request: Vec<u8>,
}

/// Keeps refused deliveries within its limits.
#[derive(Default)]
pub struct Rejections {
    limit: AtomicUsize,
    kept: Mutex<StoredRejection>,
}

/// By source and outcome, the oldest first.
#[derive(Default)]
struct StoredRejection {
    kinds: BTreeMap<(Arc<str>, &'static str), Kind>,
    bytes: usize,
    /// How many have come so far.
    count: u64,
}

#[derive(Default)]
struct Kind {
    refused: VecDeque<RejectedDelivery>,
    bytes: usize,
}

impl Rejections {
    /// Keeps up to `limit` bytes from now on; 0: nothing, and forgets what there is.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
        self.lock().shrink(limit);
    }

    /// Bytes that are kept at most; 0: refused deliveries are not kept.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Keeps a delivery that ended with `answer`, when that is a refusal which the delivery itself explains.
    pub fn keep(&self, source: &Arc<str>, delivery: &Delivery, answer: &Answer) {
        let limit = self.limit();
        if limit == 0 || !is_explained_by_delivery(answer.outcome) {
            return;
        }
        let body = if delivery.body.len() <= limit / LARGEST_SHARE { &delivery.body[..] } else { &[] };
        let refused = RejectedDelivery {
            number: 0,
            source: source.clone(),
            outcome: answer.outcome,
            hint: answer.hint.clone(),
            remote: delivery.remote,
            received_at: delivery.received_at,
            request: request(delivery, body),
        };
        self.lock().add(refused, limit);
    }

    /// Those of one source, or of all; the newest first.
    pub fn newest(&self, source: Option<&str>) -> Vec<RejectedDelivery> {
        let kept = self.lock();
        let wanted = kept.kinds.iter().filter(|((name, _), _)| source.is_none_or(|source| *source == **name));
        let mut all: Vec<RejectedDelivery> = wanted.flat_map(|(_, kind)| kind.refused.iter().cloned()).collect();
        all.sort_by_key(|refused| std::cmp::Reverse(refused.number));
        all
    }

    /// The same, each as a line of JSON. `None`: refused deliveries are not kept.
    pub fn to_json(&self, source: Option<&str>) -> Option<String> {
        (self.limit() > 0).then(|| self.newest(source).iter().map(|refused| format!("{}\n", refused.json())).collect())
    }

    fn lock(&self) -> MutexGuard<'_, StoredRejection> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredRejection {
    fn add(&mut self, refused: RejectedDelivery, limit: usize) {
        self.count += 1;
        let refused = RejectedDelivery { number: self.count, ..refused };
        let kind = self.kinds.entry((refused.source.clone(), refused.outcome.word())).or_default();
        let gone = kind.surplus(sender(refused.remote.ip())).and_then(|at| kind.remove(at)).unwrap_or_default();
        let came = refused.size();
        kind.bytes += came;
        kind.refused.push_back(refused);
        self.bytes = self.bytes + came - gone;
        self.shrink(limit);
    }

    fn shrink(&mut self, limit: usize) {
        while self.bytes > limit {
            let Some(largest) = self.kinds.values_mut().max_by_key(|kind| kind.bytes) else { return };
            self.bytes -= largest.remove(0).unwrap_or(largest.bytes);
        }
        self.kinds.retain(|_, kind| !kind.refused.is_empty());
    }
}

impl Kind {
    /// Which one has to go before one more of `from` can come.
    fn surplus(&self, from: IpAddr) -> Option<usize> {
        let own: Vec<usize> = (0..self.refused.len()).filter(|at| sender(self.refused[*at].remote.ip()) == from).collect();
        let of_sender = own.first().copied().filter(|_| own.len() >= MOST_OF_A_SENDER);
        of_sender.or_else(|| (self.refused.len() >= MOST_OF_A_KIND).then_some(0))
    }

    /// The bytes that this gives back.
    fn remove(&mut self, at: usize) -> Option<usize> {
        let size = self.refused.remove(at)?.size();
        self.bytes -= size;
        Some(size)
    }
}

impl RejectedDelivery {
    fn json(&self) -> serde_json::Value {
        json!({
            "source": &*self.source,
            "outcome": self.outcome.word(),
            "hint": self.hint,
            "remote": self.remote,
            "received_at": self.received_at.rfc3339(),
            "request_base64": STANDARD.encode(&self.request),
        })
    }

    fn size(&self) -> usize {
        size_of::<RejectedDelivery>() + self.hint.len() + self.request.len()
    }
}

/// Nothing but the delivery, and the configuration, has to be known to say why.
fn is_explained_by_delivery(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::SignatureMissing
            | Outcome::SignatureMalformed
            | Outcome::SignatureMismatch
            | Outcome::TimestampStale
            | Outcome::TimestampFuture
            | Outcome::AddressNotAllowed
            | Outcome::MethodNotAllowed
            | Outcome::TooLarge
    )
}

fn request(delivery: &Delivery, body: &[u8]) -> Vec<u8> {
    let Delivery { method, target, headers, .. } = delivery;
    let mut request = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    let mut field = |name: &str, value: &[u8]| request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    for (name, value) in headers.iter().filter(|(name, _)| **name != TRANSFER_ENCODING && !is_credential(name)) {
        field(name.as_str(), value.as_bytes());
    }
    if !headers.contains_key(CONTENT_LENGTH) {
        field(CONTENT_LENGTH.as_str(), delivery.body.len().to_string().as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// Of one address, source and outcome.
pub const MOST_OF_A_SENDER: usize = 4;
/// Of one source and outcome.
pub const MOST_OF_A_KIND: usize = 64;
/// A body may take one part in so many of the limit; a larger one is left out.
pub const LARGEST_SHARE: usize = 4;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

    const LIMIT: usize = 64 << 10;

    fn open(limit: usize) -> Rejections {
        let refusals = Rejections::default();
        refusals.set_limit(limit);
        refusals
    }

    /// One refused delivery, told apart by its time.
    fn refuse(refusals: &Rejections, source: &str, outcome: Outcome, from: [u8; 4], at: u64, size: usize) {
        let delivery = Delivery {
            method: Method::POST,
            target: "/hooks/x".into(),
            headers: HeaderMap::from_iter(
                [("authorization", "a"), ("cookie", "b"), ("x-signature", "c")]
                    .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))),
            ),
            body: Bytes::from(vec![b'x'; size]),
            remote: (from, 1000 + at as u16).into(),
            received_at: UnixMillis(at),
        };
        refusals.keep(&source.into(), &delivery, &Answer::plain(outcome));
    }

    fn times(refusals: &Rejections, source: &str) -> Vec<u64> {
        refusals.newest(Some(source)).iter().map(|refused| refused.received_at.0).collect()
    }

    #[test]
    fn a_sender_replaces_its_own_and_a_crowd_the_oldest_of_its_kind() {
        let refusals = open(LIMIT);
        refuse(&refusals, "shop", Outcome::SignatureMismatch, [1, 1, 1, 1], 0, 9);
        (1..100).for_each(|at| refuse(&refusals, "shop", Outcome::SignatureMismatch, [2, 2, 2, 2], at, 9));
        assert_eq!(times(&refusals, "shop"), [99, 98, 97, 96, 0]);
        (0..100).for_each(|at| refuse(&refusals, "shop", Outcome::SignatureMismatch, [3, 3, 3, at], 100 + u64::from(at), 9));
        assert_eq!(times(&refusals, "shop"), (136..200).rev().collect::<Vec<_>>());
        refuse(&refusals, "shop", Outcome::TimestampStale, [3, 3, 3, 3], 200, 9);
        assert_eq!(times(&refusals, "shop").len(), MOST_OF_A_KIND + 1);
    }

    #[test]
    fn a_flood_of_one_kind_stays_within_the_bytes_and_leaves_the_others() {
        let refusals = open(LIMIT);
        refuse(&refusals, "quiet", Outcome::TimestampStale, [1, 1, 1, 1], 1, 2000);
        (0..64).for_each(|at| refuse(&refusals, "loud", Outcome::SignatureMismatch, [2, 2, 2, at], 2, LIMIT / LARGEST_SHARE));
        let held: usize = refusals.newest(None).iter().map(|refused| refused.request.len()).sum();
        assert!((LIMIT / 2..=LIMIT).contains(&held), "{held} of {LIMIT}");
        assert_eq!(times(&refusals, "quiet"), [1]);
        assert!(times(&refusals, "loud").len() >= 2);
        refusals.set_limit(LIMIT / 16);
        assert_eq!((times(&refusals, "quiet").len(), times(&refusals, "loud").len()), (1, 0), "the larger kind goes first");
        refusals.set_limit(0);
        refuse(&refusals, "quiet", Outcome::TimestampStale, [1, 1, 1, 1], 3, 9);
        assert!(refusals.newest(None).is_empty() && refusals.to_json(None).is_none());
    }

    #[test]
    fn what_is_kept_is_the_request_without_credentials_and_without_a_body_that_is_too_large() {
        let refusals = open(LIMIT);
        refuse(&refusals, "shop", Outcome::SignatureMismatch, [1, 1, 1, 1], 1, 3);
        refuse(&refusals, "shop", Outcome::SignatureMismatch, [1, 1, 1, 1], 2, LIMIT / LARGEST_SHARE + 1);
        let requests: Vec<Vec<u8>> = refusals.newest(None).into_iter().map(|refused| refused.request).collect();
        let expected = [("16385", ""), ("3", "xxx")].map(|(length, body)| {
            format!("POST /hooks/x HTTP/1.1\r\nx-signature: c\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
        });
        assert_eq!(requests, expected);
    }

    #[test]
    fn only_what_the_delivery_explains_is_kept() {
        let refusals = open(LIMIT);
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            refuse(&refusals, "shop", *outcome, [1, 1, 1, 1], at as u64, 3);
        }
        let kept: Vec<&str> = refusals.newest(None).iter().rev().map(|refused| refused.outcome.word()).collect();
        let expected = [
            "signature_missing",
            "signature_malformed",
            "signature_mismatch",
            "timestamp_stale",
            "timestamp_future",
            "address_not_allowed",
            "method_not_allowed",
            "too_large",
        ];
        assert_eq!(kept, expected);
    }
}
