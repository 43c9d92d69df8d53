//! Delays the answers to the requests of an address that sends too many requests without a genuine delivery.
//!
//! A rejection or an unsigned challenge costs little, but a client that sends many of them would occupy the processor. Each such
//! request costs a fixed amount and an amount for its work. If an address exceeds the rate, its answers come later, so a
//! client that waits for each answer sends fewer requests. A genuine delivery is never delayed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Time until which the requests of an address have used up its rate, in microseconds.
#[derive(Default)]
pub(super) struct PaceClock(AtomicU64);

impl PaceClock {
    /// Adds `count` requests to the used part of the rate, and returns the delay of the answer. `now_us` is the current time in
    /// microseconds.
    pub(super) fn charge(&self, count: u64, now_us: u64) -> Duration {
        let charged = |used_until_us: u64| {
            let cost_us = count.saturating_mul(REQUEST_INTERVAL_US);
            used_until_us.max(now_us).saturating_add(cost_us).min(now_us + MAX_USED_US)
        };
        let update = self.0.fetch_update(Relaxed, Relaxed, |used_until_us| Some(charged(used_until_us)));
        let used_until_us = update.map_or(0, charged);
        Duration::from_micros(used_until_us.saturating_sub(now_us + BURST_US)).min(MAX_DELAY)
    }

    /// Returns true if the address exceeds the rate.
    pub(super) fn is_exceeded(&self, now_us: u64) -> bool {
        self.0.load(Relaxed) > now_us + BURST_US
    }
}

/// Time that one request uses up, in microseconds: 50 requests per second.
const REQUEST_INTERVAL_US: u64 = 20_000;

/// Requests that an address may send at once without a delay, as a time: 200 requests.
const BURST_US: u64 = 200 * REQUEST_INTERVAL_US;

/// Maximum time for which the requests of an address use up its rate. Even after very expensive requests, an address returns to
/// its rate within this time.
const MAX_USED_US: u64 = BURST_US + 10_000_000;

/// Maximum delay of an answer. Shorter than the time that any provider waits for the answer to a challenge.
const MAX_DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_beyond_the_rate_wait_for_their_turn() {
        let (clock, start) = (PaceClock::default(), 1_000_000_000);
        assert!((0..200).all(|_| clock.charge(1, start).is_zero()), "a burst is not delayed");
        let delays = [(); 3].map(|()| clock.charge(1, start).as_millis());
        assert_eq!(delays, [20, 40, 60], "the delays of simultaneous requests add up");
        assert!(clock.is_exceeded(start) && !clock.is_exceeded(start + 60_000));
        assert_eq!(clock.charge(1_000_000, start), MAX_DELAY);
        assert_eq!(clock.charge(1, start + 9_900_000), Duration::from_millis(120));
        assert!(clock.charge(1, start + MAX_USED_US + 10_000_000).is_zero());
    }
}
