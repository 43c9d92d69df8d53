//! Stores the newest rejected deliveries as received, so `hookhold doctor` can explain them without a recording of the
//! traffic. The store is opt-in (`[admin] keep_rejected`) and exists only in memory, so all entries are lost when the
//! process ends.
//!
//! Unknown senders cause most entries, so the store limits the share of each sender. A group consists of all entries with
//! the same source and outcome. The store contains at most [`MAX_PER_SENDER`] entries per address, source and outcome,
//! [`MAX_PER_GROUP`] entries per group, and [`RejectionStore::limit`] bytes in total. At the byte limit, the store drops
//! the oldest entry of the largest group, so a flood in one group does not evict the entries of other groups. Like the
//! journal, the store omits the credentials in headers and in the request target.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use serde_json::json;

use crate::address::sender_address;
use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::credentials::Credentials;
use crate::event::Delivery;
use crate::outcome::Outcome;

/// One rejected delivery.
#[derive(Clone, Debug)]
pub struct RejectedDelivery {
    /// Number of the rejection, counted from 1 since the process started. The newest entry has the highest number.
    pub number: u64,
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
    /// The request as HTTP/1.1: request line, header fields, an empty line, and the body without chunked encoding. The body is
    /// absent if the server did not read the body, or if the body is larger than `limit / BODY_DIVISOR`. Even then, the field
    /// `content-length` contains the length of the body. Exception: the field is 0 if the sender announced no length and the
    /// server did not read the whole body.
    pub request: Vec<u8>,
}

/// Store of the newest rejected deliveries, with limits on the entries per sender, the entries per group and the total size.
#[derive(Default)]
pub struct RejectionStore {
    limit: AtomicUsize,
    groups: Mutex<RejectionGroups>,
}

/// All groups of rejected deliveries, by source and outcome.
#[derive(Default)]
struct RejectionGroups {
    by_outcome: BTreeMap<(Arc<str>, &'static str), RejectionGroup>,
    bytes: usize,
    /// Number of entries that the store has received since the process started, including dropped entries.
    count: u64,
}

/// Rejected deliveries with the same source and outcome, oldest first.
#[derive(Default)]
struct RejectionGroup {
    deliveries: VecDeque<RejectedDelivery>,
    bytes: usize,
}

impl RejectionStore {
    /// Sets the limit of the store in bytes. A limit of 0 empties and disables the store.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
        self.lock().shrink(limit);
    }

    /// Returns the limit of the store in bytes, or 0 if the store is disabled.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Stores a rejected delivery and the reason for its rejection, but only if the delivery and the configuration alone
    /// explain the outcome. Omits the `credentials` of the source.
    pub fn store(&self, source: &Arc<str>, credentials: &Credentials, delivery: &Delivery, answer: &Answer) {
        let limit = self.limit();
        if limit == 0 || !is_explained_by_delivery(answer.outcome) {
            return;
        }
        let body = if delivery.body.len() <= limit / BODY_DIVISOR { &delivery.body[..] } else { &[] };
        let rejected = RejectedDelivery {
            number: 0,
            source: source.clone(),
            outcome: answer.outcome,
            hint: answer.hint.clone(),
            remote: delivery.remote,
            received_at: delivery.received_at,
            request: request(credentials, delivery, body),
        };
        self.lock().add(rejected, limit);
    }

    /// Returns the entries of `source`, newest first, or the entries of all sources if `source` is `None`.
    pub fn newest(&self, source: Option<&str>) -> Vec<RejectedDelivery> {
        let groups = self.lock();
        let matching = groups.by_outcome.iter().filter(|((name, _), _)| source.is_none_or(|source| *source == **name));
        let mut all: Vec<RejectedDelivery> = matching.flat_map(|(_, group)| group.deliveries.iter().cloned()).collect();
        all.sort_by_key(|rejected| std::cmp::Reverse(rejected.number));
        all
    }

    /// Returns the entries of [`RejectionStore::newest`] as JSON, one entry per line. Returns `None` if the store is disabled.
    pub fn to_json(&self, source: Option<&str>) -> Option<String> {
        (self.limit() > 0).then(|| self.newest(source).iter().map(|rejected| format!("{}\n", rejected.json())).collect())
    }

    fn lock(&self) -> MutexGuard<'_, RejectionGroups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RejectionGroups {
    fn add(&mut self, rejected: RejectedDelivery, limit: usize) {
        self.count += 1;
        let rejected = RejectedDelivery { number: self.count, ..rejected };
        let group = self.by_outcome.entry((rejected.source.clone(), rejected.outcome.word())).or_default();
        let freed = group.surplus(sender_address(rejected.remote.ip())).and_then(|at| group.remove(at)).unwrap_or_default();
        let added = rejected.size();
        group.bytes += added;
        group.deliveries.push_back(rejected);
        self.bytes = self.bytes + added - freed;
        self.shrink(limit);
    }

    fn shrink(&mut self, limit: usize) {
        while self.bytes > limit {
            let Some(largest) = self.by_outcome.values_mut().max_by_key(|group| group.bytes) else { return };
            self.bytes -= largest.remove(0).unwrap_or(largest.bytes);
        }
        self.by_outcome.retain(|_, group| !group.deliveries.is_empty());
    }
}

impl RejectionGroup {
    /// Returns the index of the entry to drop before the store adds an entry of `sender`, or `None` if the group has space
    /// for the new entry.
    fn surplus(&self, sender: IpAddr) -> Option<usize> {
        let is_own = |at: &usize| sender_address(self.deliveries[*at].remote.ip()) == sender;
        let own: Vec<usize> = (0..self.deliveries.len()).filter(is_own).collect();
        let of_sender = own.first().copied().filter(|_| own.len() >= MAX_PER_SENDER);
        of_sender.or_else(|| (self.deliveries.len() >= MAX_PER_GROUP).then_some(0))
    }

    /// Removes the entry at this index and returns its size in bytes, or `None` if the group has no such entry.
    fn remove(&mut self, at: usize) -> Option<usize> {
        let size = self.deliveries.remove(at)?.size();
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

/// Returns true if the delivery and the configuration alone explain the outcome.
fn is_explained_by_delivery(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::SignatureMissing
            | Outcome::SignatureMalformed
            | Outcome::SignatureMismatch
            | Outcome::TimestampStale
            | Outcome::TimestampFuture
            | Outcome::AddressNotAllowed
            | Outcome::ClientCertificateMissing
            | Outcome::ClientCertificateInvalid
            | Outcome::MethodNotAllowed
            | Outcome::TooLarge
            | Outcome::KeyUnavailable
    )
}

fn request(credentials: &Credentials, delivery: &Delivery, body: &[u8]) -> Vec<u8> {
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

/// Maximum number of stored entries with the same sender address, source and outcome.
pub const MAX_PER_SENDER: usize = 4;
/// Maximum number of stored entries with the same source and outcome.
pub const MAX_PER_GROUP: usize = 64;
/// Share of the store's limit that one body may use, as a divisor: a stored body has at most `limit / BODY_DIVISOR` bytes.
pub const BODY_DIVISOR: usize = 4;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

    const LIMIT: usize = 64 << 10;

    fn open(limit: usize) -> RejectionStore {
        let store = RejectionStore::default();
        store.set_limit(limit);
        store
    }

    /// Stores a rejected delivery. The tests identify the delivery by its arrival time `at`.
    fn reject(store: &RejectionStore, source: &str, outcome: Outcome, from: [u8; 4], at: u64, size: usize) {
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
        store.store(&source.into(), &Credentials::default(), &delivery, &Answer::plain(outcome));
    }

    fn times(store: &RejectionStore, source: &str) -> Vec<u64> {
        store.newest(Some(source)).iter().map(|rejected| rejected.received_at.0).collect()
    }

    #[test]
    fn each_sender_and_each_group_has_its_own_limit() {
        let store = open(LIMIT);
        reject(&store, "shop", Outcome::SignatureMismatch, [1, 1, 1, 1], 0, 9);
        (1..100).for_each(|at| reject(&store, "shop", Outcome::SignatureMismatch, [2, 2, 2, 2], at, 9));
        assert_eq!(times(&store, "shop"), [99, 98, 97, 96, 0]);
        (0..100).for_each(|at| reject(&store, "shop", Outcome::SignatureMismatch, [3, 3, 3, at], 100 + u64::from(at), 9));
        assert_eq!(times(&store, "shop"), (136..200).rev().collect::<Vec<_>>());
        reject(&store, "shop", Outcome::TimestampStale, [3, 3, 3, 3], 200, 9);
        assert_eq!(times(&store, "shop").len(), MAX_PER_GROUP + 1);
    }

    #[test]
    fn a_flood_in_one_group_leaves_the_others_alone() {
        let store = open(LIMIT);
        reject(&store, "quiet", Outcome::TimestampStale, [1, 1, 1, 1], 1, 2000);
        (0..64).for_each(|at| reject(&store, "loud", Outcome::SignatureMismatch, [2, 2, 2, at], 2, LIMIT / BODY_DIVISOR));
        let held: usize = store.newest(None).iter().map(|rejected| rejected.request.len()).sum();
        assert!((LIMIT / 2..=LIMIT).contains(&held), "{held} of {LIMIT}");
        assert_eq!(times(&store, "quiet"), [1]);
        assert!(times(&store, "loud").len() >= 2);
        store.set_limit(LIMIT / 16);
        assert_eq!((times(&store, "quiet").len(), times(&store, "loud").len()), (1, 0), "the larger group shrinks first");
        store.set_limit(0);
        reject(&store, "quiet", Outcome::TimestampStale, [1, 1, 1, 1], 3, 9);
        assert!(store.newest(None).is_empty() && store.to_json(None).is_none());
    }

    #[test]
    fn a_stored_request_omits_credentials_and_large_bodies() {
        let store = open(LIMIT);
        reject(&store, "shop", Outcome::SignatureMismatch, [1, 1, 1, 1], 1, 3);
        reject(&store, "shop", Outcome::SignatureMismatch, [1, 1, 1, 1], 2, LIMIT / BODY_DIVISOR + 1);
        let requests: Vec<Vec<u8>> = store.newest(None).into_iter().map(|rejected| rejected.request).collect();
        let expected = [("16385", ""), ("3", "xxx")].map(|(length, body)| {
            format!("POST /hooks/x HTTP/1.1\r\nx-signature: c\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
        });
        assert_eq!(requests, expected);
    }

    #[test]
    fn only_rejections_that_the_delivery_explains_are_stored() {
        let store = open(LIMIT);
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            reject(&store, "shop", *outcome, [1, 1, 1, 1], at as u64, 3);
        }
        let stored: Vec<&str> = store.newest(None).iter().rev().map(|rejected| rejected.outcome.word()).collect();
        let expected = [
            "signature_missing",
            "signature_malformed",
            "signature_mismatch",
            "timestamp_stale",
            "timestamp_future",
            "address_not_allowed",
            "client_certificate_missing",
            "client_certificate_invalid",
            "method_not_allowed",
            "too_large",
            "key_unavailable",
        ];
        assert_eq!(stored, expected);
    }
}
