//! Limits the rate of a replay.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Limits the number of events per second. After a pause, a burst of at most a tenth of a second may follow.
pub(super) struct ReplayPace {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl ReplayPace {
    /// Creates a limit of `rate` events per second; `None` if governor cannot represent this rate.
    pub(super) fn new(rate: f64) -> Option<ReplayPace> {
        let burst = NonZeroU32::new((rate / 10.0) as u32).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::try_from_secs_f64(1.0 / rate).ok()?)?.allow_burst(burst);
        let clock = DefaultClock::default();
        Some(ReplayPace { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock })
    }

    /// Counts the next event if it may be sent now. Otherwise returns the time at which it may be sent.
    pub(super) fn next(&self) -> Option<Instant> {
        self.limiter.check().err().map(|not_yet| Instant::now() + not_yet.wait_time_from(self.clock.now()))
    }
}
