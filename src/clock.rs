//! Wall-clock time in milliseconds, the time since the machine started, and a clock that tests can replace.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Formats the time as RFC 3339 in UTC with milliseconds, such as `2026-11-21T07:08:13.042Z`.
    pub fn rfc3339(self) -> String {
        let time = jiff::Timestamp::from_millisecond(self.0.min(i64::MAX as u64) as i64).unwrap_or(jiff::Timestamp::MAX);
        format!("{time:.3}")
    }

    /// Returns the milliseconds from `earlier` to this time, or 0 if `earlier` is after this time.
    pub fn since(self, earlier: UnixMillis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Source of the wall-clock time for `received_at`, timestamp tolerances and the expiry of secrets, and of the uptime, with which
/// the journal's clock advances. All rooms share one clock, so a test can control the time in all rooms at once.
pub trait Clock: Send + Sync {
    /// Returns the current wall-clock time.
    fn now(&self) -> UnixMillis;
    /// Returns the time since the machine started, including the time for which it was suspended. This time never jumps.
    fn uptime(&self) -> Duration;
}

/// The wall clock of the operating system.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }

    fn uptime(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }
}
