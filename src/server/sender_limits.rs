//! Enforces limits on the open connections, the body bytes in flight and the rejected deliveries of each sender
//! address.
//!
//! The limits on connections and body bytes apply to each address, so that no address can use up the server's total. If
//! hookhold rejects too many deliveries from an address, the next requests from this address get the outcome
//! `rate_limited` before hookhold hashes their bodies. Genuine deliveries never count towards the limit on rejections,
//! and an address that has sent a genuine delivery within [`KNOWN_GOOD_FOR`] is exempt from the limit. Without the
//! exemption, hookhold could also reject genuine deliveries, for two reasons: an attacker can make a provider send
//! rejected deliveries from the provider's own addresses, and all senders behind an untrusted proxy share one address.
//!
//! An ISP assigns at least a /64 to each IPv6 customer, so each /64 counts as one address. `max_connections` bounds the
//! number of addresses with open connections or requests. `max_addresses` bounds the number of remembered addresses;
//! hookhold forgets the least recently used address first. hookhold locks the table of addresses when a connection
//! opens or closes, and for each request that a trusted proxy forwards. Other requests use only atomics.

use std::collections::HashMap;
use std::hash::RandomState;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use lru::LruCache;
use prometheus::{IntCounter, IntGauge};
use tokio::time::Instant;

use super::log_sampler::LogSampler;
use crate::address::sender_address;
use crate::answer::Answer;
use crate::in_flight::InFlightBudget;
use crate::limits::ServerLimits;
use crate::metrics::Metrics;
use crate::outcome::Outcome;

/// Limits for each sender address, and the record of each address.
pub(super) struct SenderLimits {
    max_connections: usize,
    max_in_flight: usize,
    max_remembered: usize,
    max_rejected: Quota,
    /// Zero point of the times in each [`SenderRecord`].
    epoch: Instant,
    table: Mutex<SenderTable>,
    tracked: IntGauge,
    too_many_connections: RejectedConnections,
    rate_limited: RejectedConnections,
}

/// Counter, log sampler and hint for one reason why hookhold closes connections immediately.
struct RejectedConnections {
    count: IntCounter,
    sampler: LogSampler,
    hint: &'static str,
}

struct SenderTable {
    /// Addresses with open connections or requests.
    active: HashMap<IpAddr, ActiveSender>,
    /// Addresses that hookhold remembers because of earlier rejections or genuine deliveries, although they have no
    /// open connection or request.
    remembered: LruCache<IpAddr, Arc<SenderRecord>, RandomState>,
}

struct ActiveSender {
    record: Arc<SenderRecord>,
    guards: usize,
    connections: usize,
}

/// State of one sender address. All times are in milliseconds since [`SenderLimits::epoch`].
struct SenderRecord {
    address: IpAddr,
    in_flight: InFlightBudget,
    rejections: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, StateInformationMiddleware>,
    /// End of the period in which deliveries from this address get the outcome `rate_limited`.
    limited_until_ms: AtomicU64,
    /// End of the period in which the address is known good because of a genuine delivery.
    known_good_until_ms: AtomicU64,
    /// End of the period in which hookhold must remember this record.
    relevant_until_ms: AtomicU64,
    /// Outcome of the last rejected delivery from this address, as an index into [`Outcome::ALL`]. The hint of a
    /// `rate_limited` answer names this outcome.
    last_rejection: AtomicU8,
}

/// Guard that counts one open connection or request of an address until the guard is dropped.
pub(super) struct SenderGuard {
    limits: Arc<SenderLimits>,
    record: Arc<SenderRecord>,
    is_connection: bool,
}

impl SenderLimits {
    pub(super) fn new(limits: &ServerLimits, metrics: &Metrics) -> Arc<SenderLimits> {
        Arc::new(SenderLimits {
            max_connections: limits.max_connections_per_address,
            max_in_flight: limits.max_in_flight_per_address,
            max_remembered: limits.max_addresses,
            max_rejected: limits.max_rejected_per_address.quota(),
            epoch: Instant::now(),
            table: Mutex::new(SenderTable {
                active: HashMap::new(),
                remembered: LruCache::unbounded_with_hasher(RandomState::new()),
            }),
            tracked: metrics.server.addresses_tracked.clone(),
            too_many_connections: RejectedConnections::new(metrics, "per_address", TOO_MANY_CONNECTIONS),
            rate_limited: RejectedConnections::new(metrics, "limited", TOO_MANY_REJECTIONS),
        })
    }

    /// Adds one to the number of connections from this address, and returns a guard for the connection. If the address
    /// is at its connection limit, counts and logs the rejection and returns `None`.
    pub(super) fn connect(self: &Arc<SenderLimits>, from: IpAddr) -> Option<SenderGuard> {
        let guard = self.enter(from, true);
        if guard.is_none() {
            self.too_many_connections.record(sender_address(from));
        }
        guard
    }

    /// Adds a connection or request to the counts of this address, without a limit. The caller uses this function for a
    /// connection from a trusted proxy, and for a request that a trusted proxy forwards for this address.
    pub(super) fn track(self: &Arc<SenderLimits>, from: IpAddr) -> SenderGuard {
        self.enter(from, false).expect("only connections have a limit")
    }

    fn enter(self: &Arc<SenderLimits>, from: IpAddr, is_connection: bool) -> Option<SenderGuard> {
        let address = sender_address(from);
        let mut table = self.lock();
        let SenderTable { active, remembered } = &mut *table;
        let active = active.entry(address).or_insert_with(|| {
            let record = remembered.pop(&address).unwrap_or_else(|| Arc::new(SenderRecord::new(address, self)));
            ActiveSender { record, guards: 0, connections: 0 }
        });
        if is_connection && active.connections >= self.max_connections {
            return None;
        }
        active.guards += 1;
        active.connections += usize::from(is_connection);
        let record = active.record.clone();
        self.update_gauge(&table);
        Some(SenderGuard { limits: self.clone(), record, is_connection })
    }

    fn leave(&self, guard: &SenderGuard) {
        let mut table = self.lock();
        let SenderTable { active, remembered } = &mut *table;
        let Some(sender) = active.get_mut(&guard.record.address) else { return };
        sender.guards -= 1;
        sender.connections -= usize::from(guard.is_connection);
        if sender.guards > 0 {
            return;
        }
        active.remove(&guard.record.address);
        if guard.record.relevant_until_ms.load(Relaxed) > self.millis(Instant::now()) {
            remembered.push(guard.record.address, guard.record.clone());
            while remembered.len() > self.max_remembered {
                remembered.pop_lru();
            }
        }
        self.update_gauge(&table);
    }

    fn update_gauge(&self, table: &SenderTable) {
        self.tracked.set((table.active.len() + table.remembered.len()) as i64);
    }

    /// Returns the time from the epoch to `moment`, in milliseconds.
    fn millis(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.epoch).as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, SenderTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RejectedConnections {
    fn new(metrics: &Metrics, cause: &str, hint: &'static str) -> RejectedConnections {
        let count = metrics.server.connections_rejected.with_label_values(&[cause]);
        RejectedConnections { count, sampler: LogSampler::new(), hint }
    }

    fn record(&self, address: IpAddr) {
        self.count.inc();
        if let Some(suppressed) = self.sampler.admit(Instant::now()) {
            tracing::warn!(%address, suppressed, hint = self.hint, "connection rejected");
        }
    }
}

impl SenderRecord {
    fn new(address: IpAddr, limits: &SenderLimits) -> SenderRecord {
        let clock = MonotonicClock;
        SenderRecord {
            address,
            in_flight: InFlightBudget::new(limits.max_in_flight),
            rejections: RateLimiter::direct_with_clock(limits.max_rejected, clock).with_middleware(),
            limited_until_ms: AtomicU64::new(0),
            known_good_until_ms: AtomicU64::new(0),
            relevant_until_ms: AtomicU64::new(0),
            last_rejection: AtomicU8::new(0),
        }
    }
}

impl SenderGuard {
    /// Returns the in-flight budget of this address.
    pub(super) fn in_flight(&self) -> &InFlightBudget {
        &self.record.in_flight
    }

    /// Returns the `rate_limited` answer while this address is rate-limited; otherwise returns `None`.
    pub(super) fn limited(&self, now: Instant) -> Option<Answer> {
        let (now_ms, until_ms) = (self.limits.millis(now), self.record.limited_until_ms.load(Relaxed));
        if until_ms <= now_ms || self.is_known_good(now_ms) {
            return None;
        }
        let last = Outcome::ALL[self.record.last_rejection.load(Relaxed) as usize].word();
        let hint = format!("{TOO_MANY_REJECTIONS}; the last rejection was {last}");
        Some(Answer::rate_limited(Duration::from_millis(until_ms - now_ms)).with_hint(hint))
    }

    /// Returns true if the address is rate-limited. hookhold must then reject the TLS handshake. Counts and logs each
    /// rejected handshake. If hookhold limited only the requests, the TLS handshakes would cost more than the limit
    /// saves.
    pub(super) fn rejects_handshake(&self, now: Instant) -> bool {
        let limited = self.limited(now).is_some();
        if limited {
            self.limits.rate_limited.record(self.record.address);
        }
        limited
    }

    /// Updates the record of the address after a delivery with `outcome`. `work` is the number of bytes that hookhold has
    /// received or hashed, whichever is larger. Only a rejected delivery counts.
    pub(super) fn record(&self, outcome: Outcome, work: usize, now: Instant) {
        // A duplicate does not make its address known good, because an attacker can replay a recorded genuine delivery.
        if outcome == Outcome::Stored {
            self.mark_known_good(now);
        } else if counts_against_sender(outcome) {
            self.count_rejection(outcome, work, now);
        }
    }

    /// Treats an unused TLS handshake (no request followed it) as a rejection, because a TLS handshake costs more than
    /// most rejections.
    pub(super) fn count_unused_handshake(&self) {
        self.count_rejection(Outcome::Disconnected, 0, Instant::now());
    }

    fn mark_known_good(&self, now: Instant) {
        let until_ms = self.limits.millis(now + KNOWN_GOOD_FOR);
        // hookhold writes this time at most once a second, so that the connections of one address do not contend for
        // the cache line of the record.
        if self.record.known_good_until_ms.load(Relaxed) + 1000 < until_ms {
            self.record.known_good_until_ms.store(until_ms, Relaxed);
            self.record.relevant_until_ms.fetch_max(until_ms, Relaxed);
        }
    }

    fn count_rejection(&self, outcome: Outcome, work: usize, now: Instant) {
        let now_ms = self.limits.millis(now);
        if self.is_known_good(now_ms) {
            return;
        }
        self.record.last_rejection.store(outcome as u8, Relaxed);
        self.charge(work, now_ms);
        let relevant_until_ms = now_ms + self.limits.max_rejected.burst_size_replenished_in().as_millis() as u64;
        self.record.relevant_until_ms.fetch_max(relevant_until_ms, Relaxed);
    }

    /// Returns true if hookhold has recently stored a delivery from this address.
    pub(super) fn is_known_good_at(&self, now: Instant) -> bool {
        self.is_known_good(self.limits.millis(now))
    }

    fn is_known_good(&self, now_ms: u64) -> bool {
        self.record.known_good_until_ms.load(Relaxed) > now_ms
    }

    /// Charges the address with one rejection, plus one per [`BYTES_PER_REJECTION`] bytes of work. One delivery costs at most the
    /// whole allowance, so it limits the address for at most the unit of the rate.
    ///
    /// A charge beyond the rest of the allowance uses up nothing, but limits the address until the allowance suffices for the
    /// charge. Together, the deliveries of an address can therefore cost up to twice the rate.
    fn charge(&self, work: usize, now_ms: u64) {
        let burst = self.limits.max_rejected.burst_size();
        let additional = u32::try_from(work / BYTES_PER_REJECTION).unwrap_or(u32::MAX);
        let wait = match self.record.rejections.check_n(NonZeroU32::MIN.saturating_add(additional).min(burst)) {
            Ok(Ok(left)) if left.remaining_burst_capacity() > 0 => return,
            Ok(Err(too_early)) => too_early.wait_time_from(MonotonicClock.now()),
            _ => self.limits.max_rejected.replenish_interval(),
        };
        self.record.limited_until_ms.fetch_max(now_ms + wait.as_millis() as u64, Relaxed);
    }
}

impl Drop for SenderGuard {
    fn drop(&mut self) {
        self.limits.leave(self);
    }
}

/// Returns true if an outcome is the sender's fault. Lost connections, `rate_limited` and hookhold's own failures never
/// count against a sender.
fn counts_against_sender(outcome: Outcome) -> bool {
    outcome.status().is_client_error() && !matches!(outcome, Outcome::Disconnected | Outcome::RateLimited)
}

/// Time for which a genuine delivery makes its address known good. This time is longer than the usual pauses between
/// the deliveries of a small account.
const KNOWN_GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Number of bytes of work that hookhold charges like one rejection. Hashing them takes about as long as the rest of a rejection.
const BYTES_PER_REJECTION: usize = 64 * 1024;

const TOO_MANY_CONNECTIONS: &str =
    "open connections: expected at most max_connections_per_address, found more; add your own proxy to trusted_proxies";
const TOO_MANY_REJECTIONS: &str =
    "rejected deliveries from this address: expected fewer than max_rejected_per_address, found that number; remove the cause";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rate;

    fn sender_limits(limits: ServerLimits) -> Arc<SenderLimits> {
        SenderLimits::new(&limits, &Metrics::new())
    }

    #[test]
    fn an_ipv6_sender_is_limited_by_its_64() {
        let of = |text: &str| sender_address(text.parse().expect("an address")).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        let limits = sender_limits(ServerLimits { max_connections_per_address: 1, ..ServerLimits::default() });
        let connect = |text: &str| limits.connect(text.parse().expect("an address"));
        let first = connect("2001:db8::1");
        assert!(first.is_some() && connect("2001:db8::2").is_none() && connect("2001:db8:0:1::1").is_some());
        drop(first);
        assert!(connect("2001:db8::2").is_some());
    }

    #[test]
    fn only_the_senders_own_faults_count_against_it() {
        let against: Vec<&str> =
            Outcome::ALL.iter().filter(|outcome| counts_against_sender(**outcome)).map(|o| o.word()).collect();
        for outcome in ["signature_mismatch", "timestamp_stale", "unknown_source", "address_not_allowed", "too_slow"] {
            assert!(against.contains(&outcome), "{outcome}");
        }
        let neither = [
            "stored",
            "challenge",
            "key_unavailable",
            "clock_jumped",
            "overloaded",
            "journal_full",
            "deadline",
            "draining",
            "disconnected",
            "rate_limited",
        ];
        assert!(neither.iter().all(|outcome| !against.contains(outcome)), "{against:?}");
    }

    /// Returns the number of rejections with this work after which an address is limited.
    fn rejections_until_limited(rate: &str, work: usize) -> usize {
        let max_rejected_per_address = Rate::parse(rate).expect("a rate");
        let limits = sender_limits(ServerLimits { max_rejected_per_address, ..ServerLimits::default() });
        let sender = limits.connect(IpAddr::from([192, 0, 2, 1])).expect("below the limit");
        let now = Instant::now();
        let mut count = 0;
        while sender.limited(now).is_none() {
            sender.record(Outcome::SignatureMismatch, work, now);
            count += 1;
        }
        count
    }

    #[test]
    fn a_rejection_counts_once_and_once_more_for_each_64_kib() {
        for (work, count) in [(0, 100), (65_535, 100), (65_536, 50), (9 * 65_536, 10), (99 * 65_536, 1)] {
            assert_eq!(rejections_until_limited("100/h", work), count, "{work} bytes");
        }
    }

    #[test]
    fn one_rejection_limits_for_at_most_the_unit_of_the_rate() {
        assert_eq!(rejections_until_limited("100/h", usize::MAX), 1);
        let max_rejected_per_address = Rate::parse("60/h").expect("a rate");
        let limits = sender_limits(ServerLimits { max_rejected_per_address, ..ServerLimits::default() });
        let sender = limits.connect(IpAddr::from([192, 0, 2, 1])).expect("below the limit");
        let wait = |work: usize| {
            sender.record(Outcome::SignatureMismatch, work, Instant::now());
            sender.limited(Instant::now()).expect("the allowance is used up").retry_after_s
        };
        assert!((1..=60).contains(&wait(usize::MAX)), "the next rejection fits after one part of the hour");
        assert!((3_000..=3_600).contains(&wait(usize::MAX)), "a second one must wait for the whole allowance");
    }

    #[test]
    fn rejections_of_an_address_are_remembered_between_its_connections() {
        let limits = sender_limits(ServerLimits {
            max_rejected_per_address: Rate::parse("1/h").expect("a rate"),
            ..ServerLimits::default()
        });
        let connect = || limits.connect(IpAddr::from([192, 0, 2, 1])).expect("below the limit");
        connect().record(Outcome::SignatureMismatch, 0, Instant::now());
        let second = connect();
        let answer = second.limited(Instant::now()).expect("the only permitted rejection is used up");
        assert_eq!(answer.outcome, Outcome::RateLimited);
        assert!(answer.retry_after_s > 3500, "{}", answer.retry_after_s);
        second.record(Outcome::Stored, 0, Instant::now());
        assert!(second.limited(Instant::now()).is_none(), "a genuine delivery in progress ends the limit");
    }
}
