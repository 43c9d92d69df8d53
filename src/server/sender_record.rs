//! Remembers the behaviour of one sender address. All times are in milliseconds since the start of the server.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::pace::PaceClock;
use crate::in_flight::InFlightBudget;
use crate::outcome::Outcome;

/// State of one sender address.
pub(super) struct SenderRecord {
    pub(super) address: IpAddr,
    pub(super) in_flight: InFlightBudget,
    /// The same bytes as in `in_flight`, without a limit, for the time in which the address is known good.
    pub(super) unlimited_in_flight: InFlightBudget,
    pub(super) pace: PaceClock,
    rejections: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, StateInformationMiddleware>,
    max_rejected: Quota,
    /// End of the period in which the address is limited.
    limited_until_ms: AtomicU64,
    /// End of the period in which the address is known good because of a genuine delivery.
    known_good_until_ms: AtomicU64,
    /// The end that the file of known-good addresses contains.
    saved_until_ms: AtomicU64,
    /// End of the period in which hookhold must remember this record.
    relevant_until_ms: AtomicU64,
    /// Outcome of the last rejected delivery from this address, as an index into [`Outcome::ALL`].
    last_rejection: AtomicU8,
}

impl SenderRecord {
    pub(super) fn new(address: IpAddr, in_flight: InFlightBudget, max_rejected: Quota) -> SenderRecord {
        SenderRecord {
            address,
            unlimited_in_flight: in_flight.without_limit(),
            in_flight,
            pace: PaceClock::default(),
            rejections: RateLimiter::direct_with_clock(max_rejected, MonotonicClock).with_middleware(),
            max_rejected,
            limited_until_ms: AtomicU64::new(0),
            known_good_until_ms: AtomicU64::new(0),
            saved_until_ms: AtomicU64::new(0),
            relevant_until_ms: AtomicU64::new(0),
            last_rejection: AtomicU8::new(0),
        }
    }

    pub(super) fn is_limited(&self, now_ms: u64) -> bool {
        self.limited_until_ms.load(Relaxed) > now_ms
    }

    pub(super) fn is_known_good(&self, now_ms: u64) -> bool {
        self.known_good_until_ms.load(Relaxed) > now_ms
    }

    pub(super) fn known_good_until_ms(&self) -> u64 {
        self.known_good_until_ms.load(Relaxed)
    }

    pub(super) fn is_relevant(&self, now_ms: u64) -> bool {
        self.relevant_until_ms.load(Relaxed) > now_ms
    }

    pub(super) fn last_rejection(&self) -> Outcome {
        Outcome::ALL[self.last_rejection.load(Relaxed) as usize]
    }

    /// Makes the address known good until `until_ms`. Returns true if the file of known-good addresses does not contain this, or
    /// contains a much earlier time.
    pub(super) fn set_known_good(&self, until_ms: u64) -> bool {
        // hookhold writes this time at most once a second, so that the connections of one address do not contend for the
        // cache line of the record.
        if self.known_good_until_ms.load(Relaxed) + 1000 < until_ms {
            self.known_good_until_ms.store(until_ms, Relaxed);
            self.relevant_until_ms.fetch_max(until_ms, Relaxed);
        }
        self.saved_until_ms.load(Relaxed) + MAX_UNSAVED_MS < until_ms
    }

    /// Notes that the file of known-good addresses contains the end `until_ms`.
    pub(super) fn set_saved(&self, until_ms: u64) {
        self.saved_until_ms.store(until_ms, Relaxed);
    }

    /// Counts a rejection, once and once more for each [`BYTES_PER_REJECTION`] bytes of work. Returns true if the address is
    /// limited from now on. One delivery costs at most the whole allowance, so it limits the address for at most the unit of the
    /// rate.
    ///
    /// A charge beyond the rest of the allowance uses up nothing, but limits the address until the allowance suffices for the
    /// charge. Together, the deliveries of an address can therefore cost up to twice the rate.
    pub(super) fn count_rejection(&self, outcome: Outcome, work: usize, now_ms: u64) -> bool {
        self.last_rejection.store(outcome as u8, Relaxed);
        let relevant_until_ms = now_ms + self.max_rejected.burst_size_replenished_in().as_millis() as u64;
        self.relevant_until_ms.fetch_max(relevant_until_ms, Relaxed);
        let Some(wait) = self.wait_after(work_units(work)) else { return false };
        let until_ms = now_ms + wait.as_millis() as u64;
        self.limited_until_ms.fetch_max(until_ms, Relaxed) <= now_ms && until_ms > now_ms
    }

    /// Charges `count` rejections. Returns the time for which the address is limited; `None` if the allowance suffices.
    fn wait_after(&self, count: u32) -> Option<Duration> {
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN).min(self.max_rejected.burst_size());
        match self.rejections.check_n(count) {
            Ok(Ok(left)) if left.remaining_burst_capacity() > 0 => None,
            Ok(Err(too_early)) => Some(too_early.wait_time_from(MonotonicClock.now())),
            _ => Some(self.max_rejected.replenish_interval()),
        }
    }
}

/// Returns the number of units of a request that has caused `work` bytes of work.
pub(super) fn work_units(work: usize) -> u32 {
    u32::try_from(work / BYTES_PER_REJECTION).unwrap_or(u32::MAX).saturating_add(1)
}

/// Number of bytes of work that hookhold charges like one rejection. Hashing them takes about as long as the rest of a rejection.
const BYTES_PER_REJECTION: usize = 64 * 1024;

/// Maximum difference between the end of the known-good period and the end that the file contains, in milliseconds: one hour.
const MAX_UNSAVED_MS: u64 = 60 * 60 * 1000;
