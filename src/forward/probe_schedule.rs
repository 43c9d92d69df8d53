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

    /// Postpones the next probe to [`STALLED_AFTER`] from now. Does nothing if the next probe is already due at a later
    /// time.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.due = self.due.max(now + STALLED_AFTER);
    }

    /// Schedules the next probe after a pause, and returns the length of the pause. The pause grows with each call. If
    /// the topic has been unblocked for longer than [`RESET_AFTER`], the next pause is the first pause again.
    pub(super) fn back_off(&mut self, is_blocked: bool, now: Instant) -> Duration {
        if !is_blocked && now > self.unblocked_at + RESET_AFTER {
            self.backoff.reset();
        }
        let pause = self.backoff.next_pause();
        self.due = now + pause;
        pause
    }

    /// Records the time at which the topic's block ended, and schedules the next probe [`STALLED_AFTER`] later.
    pub(super) fn unblocked(&mut self, now: Instant) {
        self.unblocked_at = now;
        self.restart(now);
    }
}

/// Time without an acknowledgement after which hookhold probes a topic.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(10);
/// First and longest pause, before jitter, between two probes of a blocked topic.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Time without a block after which the next pause between probes is the first pause again.
const RESET_AFTER: Duration = Duration::from_secs(60);
