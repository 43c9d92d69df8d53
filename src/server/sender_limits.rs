//! Who sends, told apart by address: what each one holds open, and how many of its deliveries were refused of late.
//!
//! Nobody is limited for sending much. Connections and body bytes are shared out, so that no address can take them all; and
//! an address whose deliveries are refused again and again hears `rate_limited` before its next body is hashed. One from
//! which a genuine delivery came lately is spared that: whoever can make a provider send something sends from the
//! provider's addresses, and behind a proxy that is not trusted everybody has the same one.
//!
//! A single IPv6 customer has a /64 at least, so that is one address here. What is open is bounded by what is open at all,
//! what is remembered beyond by `max_addresses`, the least recent forgotten first. The table is locked when a connection
//! comes and goes; a request touches atomics only.

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

use super::body::Budget;
use super::outcome_log::Sampler;
use crate::address::sender;
use crate::answer::Answer;
use crate::limits::ServerLimits;
use crate::metrics::Metrics;
use crate::outcome::Outcome;

/// All addresses that are known at present.
pub(super) struct SenderLimits {
    max_connections: usize,
    max_in_flight: usize,
    max_remembered: usize,
    refusals: Quota,
    /// Moments in a [`Record`] are milliseconds from here.
    opened: Instant,
    table: Mutex<SenderTable>,
    tracked: IntGauge,
    too_many: TurnedAway,
    limited: TurnedAway,
}

/// Connections that are closed as soon as they have come, for one cause.
struct TurnedAway {
    count: IntCounter,
    sampler: Sampler,
    hint: &'static str,
}

struct SenderTable {
    /// Those that have something open.
    present: HashMap<IpAddr, Present>,
    /// Those that have nothing open, but a past that matters.
    remembered: LruCache<IpAddr, Arc<Record>, RandomState>,
}

struct Present {
    record: Arc<Record>,
    visits: usize,
    connections: usize,
}

/// One address.
struct Record {
    address: IpAddr,
    in_flight: Budget,
    refusals: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, StateInformationMiddleware>,
    /// Its deliveries are not looked at before this.
    limited_until: AtomicU64,
    /// It counts as a genuine sender's until this.
    known_until: AtomicU64,
    /// Nothing about it matters any more after this.
    matters_until: AtomicU64,
    /// Its last refusal, for the log.
    last_refusal: AtomicU8,
}

/// An address for as long as it has something open.
pub(super) struct SenderGuard {
    strangers: Arc<SenderLimits>,
    record: Arc<Record>,
    connects: bool,
}

impl SenderLimits {
    pub(super) fn new(limits: &ServerLimits, metrics: &Metrics) -> Arc<SenderLimits> {
        Arc::new(SenderLimits {
            max_connections: limits.max_connections_per_address,
            max_in_flight: limits.max_in_flight_per_address,
            max_remembered: limits.max_addresses,
            refusals: limits.max_rejected_per_address.quota(),
            opened: Instant::now(),
            table: Mutex::new(SenderTable {
                present: HashMap::new(),
                remembered: LruCache::unbounded_with_hasher(RandomState::new()),
            }),
            tracked: metrics.server.addresses_tracked.clone(),
            too_many: TurnedAway::new(metrics, "per_address", "its address has max_connections_per_address open"),
            limited: TurnedAway::new(metrics, "limited", "its address has used up max_rejected_per_address"),
        })
    }

    /// Counts one more connection of this address. `None` when it has as many as it may have: that is counted and logged.
    pub(super) fn connect(self: &Arc<SenderLimits>, from: IpAddr) -> Option<SenderGuard> {
        let visit = self.enter(from, true);
        if visit.is_none() {
            self.too_many.note(sender(from));
        }
        visit
    }

    /// Counts something else of this address that is open, such as a request that a proxy brings.
    pub(super) fn visit(self: &Arc<SenderLimits>, from: IpAddr) -> SenderGuard {
        self.enter(from, false).expect("only connections can be too many")
    }

    fn enter(self: &Arc<SenderLimits>, from: IpAddr, connects: bool) -> Option<SenderGuard> {
        let address = sender(from);
        let mut table = self.lock();
        let SenderTable { present, remembered } = &mut *table;
        let present = present.entry(address).or_insert_with(|| {
            let record = remembered.pop(&address).unwrap_or_else(|| Arc::new(Record::new(address, self)));
            Present { record, visits: 0, connections: 0 }
        });
        if connects && present.connections >= self.max_connections {
            return None;
        }
        present.visits += 1;
        present.connections += usize::from(connects);
        let record = present.record.clone();
        self.count(&table);
        Some(SenderGuard { strangers: self.clone(), record, connects })
    }

    fn leave(&self, visit: &SenderGuard) {
        let mut table = self.lock();
        let SenderTable { present, remembered } = &mut *table;
        let Some(here) = present.get_mut(&visit.record.address) else { return };
        here.visits -= 1;
        here.connections -= usize::from(visit.connects);
        if here.visits > 0 {
            return;
        }
        present.remove(&visit.record.address);
        if visit.record.matters_until.load(Relaxed) > self.millis(Instant::now()) {
            remembered.push(visit.record.address, visit.record.clone());
            while remembered.len() > self.max_remembered {
                remembered.pop_lru();
            }
        }
        self.count(&table);
    }

    fn count(&self, table: &SenderTable) {
        self.tracked.set((table.present.len() + table.remembered.len()) as i64);
    }

    fn millis(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.opened).as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, SenderTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TurnedAway {
    fn new(metrics: &Metrics, cause: &str, hint: &'static str) -> TurnedAway {
        TurnedAway { count: metrics.server.connections_rejected.with_label_values(&[cause]), sampler: Sampler::new(), hint }
    }

    fn note(&self, address: IpAddr) {
        self.count.inc();
        if let Some(suppressed) = self.sampler.admit(Instant::now()) {
            tracing::warn!(%address, suppressed, hint = self.hint, "connection closed as soon as it came");
        }
    }
}

impl Record {
    fn new(address: IpAddr, strangers: &SenderLimits) -> Record {
        let clock = MonotonicClock;
        Record {
            address,
            in_flight: Budget::new(strangers.max_in_flight),
            refusals: RateLimiter::direct_with_clock(strangers.refusals, clock).with_middleware(),
            limited_until: AtomicU64::new(0),
            known_until: AtomicU64::new(0),
            matters_until: AtomicU64::new(0),
            last_refusal: AtomicU8::new(0),
        }
    }
}

impl SenderGuard {
    /// The body bytes that this address has in flight.
    pub(super) fn in_flight(&self) -> &Budget {
        &self.record.in_flight
    }

    /// Why nothing from this address is looked at at this moment; `None` when everything is.
    pub(super) fn limited(&self, now: Instant) -> Option<Answer> {
        let (now, until) = (self.strangers.millis(now), self.record.limited_until.load(Relaxed));
        if until <= now || self.is_known(now) {
            return None;
        }
        let last = Outcome::ALL[self.record.last_refusal.load(Relaxed) as usize].word();
        let hint = format!("its address has used up max_rejected_per_address; the last refusal was {last}");
        Some(Answer::rate_limited(Duration::from_millis(until - now)).with_hint(hint))
    }

    /// True when not even a TLS handshake is worth while: it costs more than what is saved behind it. Counted and logged.
    pub(super) fn is_turned_away(&self, now: Instant) -> bool {
        let limited = self.limited(now).is_some();
        if limited {
            self.strangers.limited.note(self.record.address);
        }
        limited
    }

    /// Takes note of how a delivery of `size` body bytes ended.
    pub(super) fn note(&self, outcome: Outcome, size: usize, now: Instant) {
        // Not a repeat: whoever has overheard a genuine delivery can send it again.
        if outcome == Outcome::Stored {
            self.vouch(now);
        } else if speaks_against(outcome) {
            self.count_against(outcome, size, now);
        }
    }

    /// Takes note of a TLS handshake without a request after it: it cost more than most refusals do.
    pub(super) fn came_for_nothing(&self) {
        self.count_against(Outcome::Disconnected, 0, Instant::now());
    }

    fn vouch(&self, now: Instant) {
        let until = self.strangers.millis(now + KNOWN_FOR);
        // Once a second is enough, and leaves the memory that an address's connections share alone.
        if self.record.known_until.load(Relaxed) + 1000 < until {
            self.record.known_until.store(until, Relaxed);
            self.record.matters_until.fetch_max(until, Relaxed);
        }
    }

    fn count_against(&self, outcome: Outcome, size: usize, now: Instant) {
        let now = self.strangers.millis(now);
        if self.is_known(now) {
            return;
        }
        self.record.last_refusal.store(outcome as u8, Relaxed);
        self.charge(size, now);
        let forgiven = now + self.strangers.refusals.burst_size_replenished_in().as_millis() as u64;
        self.record.matters_until.fetch_max(forgiven, Relaxed);
    }

    fn is_known(&self, now: u64) -> bool {
        self.record.known_until.load(Relaxed) > now
    }

    /// A refusal counts once, and once more for each [`UNIT`] of the body that had to be looked through.
    fn charge(&self, size: usize, now: u64) {
        let burst = self.strangers.refusals.burst_size();
        let cells = NonZeroU32::MIN.saturating_add(u32::try_from(size / UNIT).unwrap_or(u32::MAX)).min(burst);
        let wait = match self.record.refusals.check_n(cells) {
            Ok(Ok(left)) if left.remaining_burst_capacity() > 0 => return,
            Ok(Err(too_early)) => too_early.wait_time_from(MonotonicClock.now()),
            _ => self.strangers.refusals.replenish_interval(),
        };
        self.record.limited_until.fetch_max(now + wait.as_millis() as u64, Relaxed);
    }
}

impl Drop for SenderGuard {
    fn drop(&mut self) {
        self.strangers.leave(self);
    }
}

/// The sender's own fault, and not for having gone away. What our trouble is speaks against nobody.
fn speaks_against(outcome: Outcome) -> bool {
    outcome.status().is_client_error() && !matches!(outcome, Outcome::Disconnected | Outcome::RateLimited)
}

/// How long a genuine delivery speaks for its address. Longer than the pauses between the deliveries of a small account.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of a refused body that weigh as much as the refusal itself.
const UNIT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rate;

    fn strangers(limits: ServerLimits) -> Arc<SenderLimits> {
        SenderLimits::new(&limits, &Metrics::new())
    }

    #[test]
    fn an_ipv6_sender_is_its_64_and_a_mapped_ipv4_sender_is_itself() {
        let of = |text: &str| sender(text.parse().expect("an address")).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        let strangers = strangers(ServerLimits { max_connections_per_address: 1, ..ServerLimits::default() });
        let connect = |text: &str| strangers.connect(text.parse().expect("an address"));
        let first = connect("2001:db8::1");
        assert!(first.is_some() && connect("2001:db8::2").is_none() && connect("2001:db8:0:1::1").is_some());
        drop(first);
        assert!(connect("2001:db8::2").is_some());
    }

    #[test]
    fn our_own_trouble_and_a_lost_connection_speak_against_nobody() {
        let against: Vec<&str> = Outcome::ALL.iter().filter(|outcome| speaks_against(**outcome)).map(|o| o.word()).collect();
        for outcome in ["signature_mismatch", "timestamp_stale", "unknown_source", "address_not_allowed", "too_slow"] {
            assert!(against.contains(&outcome), "{outcome}");
        }
        let neither =
            ["stored", "challenge", "overloaded", "journal_full", "deadline", "draining", "disconnected", "rate_limited"];
        assert!(neither.iter().all(|outcome| !against.contains(outcome)), "{against:?}");
    }

    #[test]
    fn what_an_address_did_is_remembered_when_it_comes_again() {
        let strangers =
            strangers(ServerLimits { max_rejected_per_address: Rate::parse("1/h").expect("a rate"), ..ServerLimits::default() });
        let connect = || strangers.connect(IpAddr::from([192, 0, 2, 1])).expect("there is a place");
        connect().note(Outcome::SignatureMismatch, 0, Instant::now());
        let again = connect();
        let answer = again.limited(Instant::now()).expect("its only refusal is used up");
        assert_eq!(answer.outcome, Outcome::RateLimited);
        assert!(answer.retry_after > Duration::from_secs(3500), "{:?}", answer.retry_after);
        again.note(Outcome::Stored, 0, Instant::now());
        assert!(again.limited(Instant::now()).is_none(), "a genuine delivery, under way meanwhile, frees it");
    }
}
