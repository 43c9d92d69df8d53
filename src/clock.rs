//! Wall-clock time in milliseconds, and the clock that a test can replace.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The same moment as RFC 3339 text in UTC with milliseconds, such as `2026-11-21T07:08:13.042Z`.
    pub fn rfc3339(self) -> String {
        let time = jiff::Timestamp::from_millisecond(self.0.min(i64::MAX as u64) as i64).unwrap_or(jiff::Timestamp::MAX);
        format!("{time:.3}")
    }

    /// Whole milliseconds from `earlier` to here; 0 when `earlier` is later.
    pub fn since(self, earlier: UnixMillis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time for `received_at`, timestamp windows and the expiry of keys. One clock is handed to everybody, so that
/// a test can stop it.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> UnixMillis;
}

/// The machine's own clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }
}
