//! Samples rejected deliveries for the operator, who reads them with `hookhold rejections` and `hookhold doctor`, even after a
//! restart. A thread of the service writes them to files in the journal's directory. This module neither reads nor writes files.
//!
//! Unknown senders cause most rejections, so [`RejectionStore::store`] does a bounded amount of work: it samples the rejections of
//! each address, source and outcome, copies only sampled requests, and never waits for the disk. If the writer cannot keep up, the
//! queue drops further entries and `hookhold_rejections_dropped_total` counts them. Like the journal, the store omits the
//! credentials in headers and in the request target. It also omits a body that contains a credential.

mod queue;
mod rejected_delivery;
mod sampler;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::IntCounterVec;

pub use queue::{MAX_QUEUED, MAX_QUEUED_REQUEST_BYTES, RejectionQueue, RejectionWork};
pub use rejected_delivery::{RejectedDelivery, RejectionCause};
pub use sampler::{GROUP_INTERVAL, MAX_PER_GROUP, MAX_PER_SENDER, SENDER_INTERVAL};

use crate::address::sender_address;
use crate::answer::Answer;
use crate::credentials::Credentials;
use crate::event::Delivery;
use crate::limits::AdminLimits;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use rejected_delivery::request;
use sampler::RejectionSampler;

/// Samples rejected deliveries, and queues them for the thread that writes them to disk.
pub struct RejectionStore {
    queue: Arc<RejectionQueue>,
    sampler: Mutex<RejectionSampler>,
    /// Counter in the lowest bits of each id.
    count: AtomicU64,
    /// The limits of the queue, which each rejection reads without a lock: size of the store, and size of a stored body.
    size: AtomicU64,
    max_body: AtomicU64,
    start: Instant,
    dropped: IntCounterVec,
}

impl RejectionStore {
    /// Creates a store that stores nothing until [`RejectionStore::set_limits`] sets its limits.
    pub fn new(metrics: &Metrics) -> RejectionStore {
        let store = RejectionStore {
            queue: Arc::default(),
            sampler: Mutex::default(),
            count: AtomicU64::new(0),
            size: AtomicU64::new(0),
            max_body: AtomicU64::new(0),
            start: Instant::now(),
            dropped: metrics.rejections.dropped.clone(),
        };
        store.set_limits(AdminLimits { keep_rejected: 0, ..AdminLimits::default() });
        store
    }

    /// Sets the limits of the store. If `keep_rejected` is 0, the store stores nothing, and the writer deletes its files.
    pub fn set_limits(&self, limits: AdminLimits) {
        self.size.store(limits.keep_rejected, Relaxed);
        self.max_body.store((limits.keep_rejected_bodies as u64).min(limits.keep_rejected / BODY_DIVISOR), Relaxed);
        self.queue.set_limits(limits);
    }

    /// Returns true if the store stores rejections.
    pub fn is_on(&self) -> bool {
        self.size.load(Relaxed) > 0
    }

    /// Returns the queue from which a thread writes the entries to disk.
    pub fn queue(&self) -> &Arc<RejectionQueue> {
        &self.queue
    }

    /// Queues a rejected delivery with the reason for its rejection, but only if the delivery and the configuration alone
    /// explain the outcome, and if the sampler admits it. Omits the `credentials` of the source. Never waits for the disk.
    pub fn store(&self, source: &Arc<str>, credentials: &Credentials, delivery: &Delivery, answer: &Answer) {
        if !self.is_on() || !is_explained_by_delivery(answer.outcome) {
            return;
        }
        let sender = sender_address(delivery.remote.ip());
        let mut sampler = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = sampler.admit(source, answer.outcome.word(), sender, self.start.elapsed());
        drop(sampler);
        let Some(sampled_out) = admitted else { return self.dropped.with_label_values(&["sampled"]).inc() };
        let is_stored = !credentials.are_in_body() && delivery.body.len() as u64 <= self.max_body.load(Relaxed);
        let rejected = RejectedDelivery {
            id: self.id(delivery),
            source: source.clone(),
            outcome: answer.outcome,
            hint: answer.hint.clone(),
            remote: delivery.remote,
            received_at: delivery.received_at,
            sampled_out,
            request: request(credentials, delivery, if is_stored { &delivery.body[..] } else { &[] }),
        };
        if !self.queue.push(rejected) {
            self.dropped.with_label_values(&["queue_full"]).inc();
        }
    }

    fn id(&self, delivery: &Delivery) -> u64 {
        let count = self.count.fetch_add(1, Relaxed) & ((1 << COUNTER_BITS) - 1);
        (delivery.received_at.0 << COUNTER_BITS) | count
    }
}

/// Returns true if the delivery and the configuration alone explain the outcome, so that `hookhold doctor` can explain it.
pub fn is_explained_by_delivery(outcome: Outcome) -> bool {
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

/// Share of the store's size that one body may use, as a divisor: a stored body has at most `keep_rejected / BODY_DIVISOR` bytes.
pub const BODY_DIVISOR: u64 = 16;
/// Number of the lowest bits of an id that contain a counter. The other bits contain the time of receipt.
const COUNTER_BITS: u32 = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::*;
    use crate::clock::UnixMillis;

    const SIZE: u64 = 1 << 20;

    fn open(keep_rejected: u64) -> RejectionStore {
        let store = RejectionStore::new(&Metrics::new());
        store.set_limits(AdminLimits { keep_rejected, ..AdminLimits::default() });
        store
    }

    /// Stores a rejected delivery. The tests identify the delivery by its arrival time `at`.
    fn reject(store: &RejectionStore, credentials: &Credentials, outcome: Outcome, at: u64, size: usize) {
        let fields = [("authorization", "a"), ("cookie", "b"), ("x-signature", "c")];
        let fields = fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let delivery = Delivery {
            method: Method::POST,
            target: "/hooks/x".into(),
            headers: HeaderMap::from_iter(fields),
            body: Bytes::from(vec![b'x'; size]),
            remote: ([192, 0, 2, at as u8], 1000).into(),
            received_at: UnixMillis(at),
        };
        store.store(&"shop".into(), credentials, &delivery, &Answer::plain(outcome));
    }

    /// Takes all entries out of the queue.
    fn queued(store: &RejectionStore) -> Vec<RejectedDelivery> {
        store.queue().close();
        let entries = std::iter::from_fn(|| store.queue().next(Duration::ZERO));
        entries.filter_map(|work| if let RejectionWork::Store(rejected) = work { Some(rejected) } else { None }).collect()
    }

    #[test]
    fn a_stored_request_omits_credentials_and_large_bodies() {
        let (store, plain) = (open(SIZE), Credentials::default());
        reject(&store, &plain, Outcome::SignatureMismatch, 1, 3);
        reject(&store, &plain, Outcome::SignatureMismatch, 2, (SIZE / BODY_DIVISOR) as usize + 1);
        reject(&store, &Credentials::new(Vec::new(), &[]).with_body(), Outcome::SignatureMismatch, 3, 3);
        let requests: Vec<Vec<u8>> = queued(&store).into_iter().map(|rejected| rejected.request).collect();
        let expected = [("3", "xxx"), ("65537", ""), ("3", "")].map(|(length, body)| {
            format!("POST /hooks/x HTTP/1.1\r\nx-signature: c\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
        });
        assert_eq!(requests, expected);
    }

    #[test]
    fn only_rejections_that_the_delivery_explains_are_stored() {
        let store = open(SIZE);
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            reject(&store, &Credentials::default(), *outcome, at as u64, 3);
        }
        let stored: Vec<&str> = queued(&store).iter().map(|rejected| rejected.outcome.word()).collect();
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

    #[test]
    fn the_queue_is_bounded_and_drops_what_does_not_fit() {
        let store = open(1 << 30);
        let outcomes: Vec<Outcome> = Outcome::ALL.iter().copied().filter(|outcome| is_explained_by_delivery(*outcome)).collect();
        let large = 256 << 10;
        for (at, outcome) in outcomes.iter().cycle().take(outcomes.len() * MAX_PER_GROUP as usize).enumerate() {
            reject(&store, &Credentials::default(), *outcome, at as u64, large);
        }
        let dropped = store.dropped.with_label_values(&["queue_full"]).get();
        let stored = queued(&store);
        let bytes: usize = stored.iter().map(|rejected| rejected.request.len()).sum();
        assert!(bytes <= MAX_QUEUED_REQUEST_BYTES && bytes > MAX_QUEUED_REQUEST_BYTES - 2 * large, "{bytes}");
        assert!(dropped > 0 && stored.len() <= MAX_QUEUED, "{dropped}");
        reject(&store, &Credentials::default(), Outcome::TooLarge, 0, 3);
        assert!(queued(&store).is_empty(), "a closed queue accepts nothing");
    }

    #[test]
    fn a_store_that_is_off_stores_nothing() {
        let store = open(SIZE);
        reject(&store, &Credentials::default(), Outcome::SignatureMismatch, 1, 3);
        store.set_limits(AdminLimits { keep_rejected: 0, ..AdminLimits::default() });
        reject(&store, &Credentials::default(), Outcome::SignatureMismatch, 2, 3);
        assert!(queued(&store).is_empty() && !store.is_on());
    }
}
