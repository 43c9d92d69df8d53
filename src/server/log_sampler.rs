//! Restricts the rate of one kind of log line, so that a flood of rejections neither fills the disk nor hides other
//! lines.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Token bucket that admits a burst of [`BURST_LINES`] log lines, then one line per [`LINE_INTERVAL`].
pub(super) struct LogSampler(Mutex<LogBucket>);

struct LogBucket {
    /// Time at which the token bucket is full again; `None` before the first log line.
    full_at: Option<Instant>,
    suppressed: u64,
}

impl LogSampler {
    pub(super) fn new() -> LogSampler {
        LogSampler(Mutex::new(LogBucket { full_at: None, suppressed: 0 }))
    }

    /// Admits one log line if the rate permits, and returns the number of lines suppressed since the last admitted
    /// line. Returns `None` if the caller must suppress the line.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = bucket.full_at.map_or(now, |at| at.max(now)) + LINE_INTERVAL;
        if full_at > now + BURST_LINES * LINE_INTERVAL {
            bucket.suppressed += 1;
            return None;
        }
        bucket.full_at = Some(full_at);
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

const BURST_LINES: u32 = 5;
const LINE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_logs_five_lines_then_one_a_second() {
        let (sampler, start) = (LogSampler::new(), Instant::now());
        let lines = |at: Instant| (0..100).filter_map(|_| sampler.admit(at)).collect::<Vec<_>>();
        assert_eq!(lines(start), [0; 5]);
        assert_eq!(lines(start + LINE_INTERVAL), [95]);
        assert_eq!(lines(start + 60 * LINE_INTERVAL), [99, 0, 0, 0, 0]);
    }
}
