//! Schedules the metadata probes of one topic. A probe is due [`STALLED_AFTER`] after the topic's last progress. While
//! the topic is blocked, probes are due at growing intervals.

use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// Time of a topic's next probe. The worker skips the probe if the topic is not blocked and has no records in flight.
pub(super) struct ProbeSchedule {
    due: Instant,
    backoff: Backoff,
    unblocked_at: Instant,
}

impl ProbeSchedule {
    pub(super) fn new(now: Instant) -> ProbeSchedule {
        ProbeSchedule { due: now, backoff: Backoff::new(RETRY_AFTER.0, RETRY_AFTER.1), unblocked_at: now }
    }

    /// Returns the time at which the topic's next probe is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Schedules the next probe [`STALLED_AFTER`] from now.
    pub(super) fn restart(&mut self, now: Instant) {
        self.due = now + STALLED_AFTER;
    }

    /// Schedules the next probe at once, and makes the pauses start again at the first pause.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.backoff.reset();
        self.due = now;
    }

    /// Postpones the next probe to [`STALLED_AFTER`] from now. Does nothing if the next probe is scheduled for a later time.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.due = self.due.max(now + STALLED_AFTER);
    }

    /// Schedules the next probe for the end of a pause, and returns the length of the pause. The pause grows with each call. If
    /// the topic is not blocked and was unblocked more than [`RESET_AFTER`] ago, the pauses start again at the first pause.
    pub(super) fn back_off(&mut self, is_blocked: bool, now: Instant) -> Duration {
        if !is_blocked && now > self.unblocked_at + RESET_AFTER {
            self.backoff.reset();
        }
        let pause = self.backoff.next_pause();
        self.due = now + pause;
        pause
    }

    /// Sets the time at which the topic was last unblocked to `now`, and schedules the next probe [`STALLED_AFTER`] from now.
    pub(super) fn unblocked(&mut self, now: Instant) {
        self.unblocked_at = now;
        self.restart(now);
    }
}

/// Time that hookhold waits for an acknowledgement before it probes the topic.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(10);
/// Shortest and longest pause between two probes of a blocked topic, without jitter.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Time for which a topic must stay unblocked before the pauses between probes start again at the first pause.
const RESET_AFTER: Duration = Duration::from_secs(60);
