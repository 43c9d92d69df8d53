//! Schedules the metadata probes of one topic: some time after its last progress, and at growing intervals while it is blocked.

use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// Time of a topic's next probe. The probe is skipped if the topic is not blocked and has nothing in flight by then.
pub(super) struct ProbeSchedule {
    due: Instant,
    backoff: Backoff,
    unblocked_at: Instant,
}

impl ProbeSchedule {
    pub(super) fn new(now: Instant) -> ProbeSchedule {
        ProbeSchedule { due: now, backoff: Backoff::new(RETRY_AFTER.0, RETRY_AFTER.1), unblocked_at: now }
    }

    /// Returns the time of the next probe.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Schedules the next probe at the end of [`STALLED_AFTER`].
    pub(super) fn restart(&mut self, now: Instant) {
        self.due = now + STALLED_AFTER;
    }

    /// Does the same, unless the next probe is scheduled for a later time.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.due = self.due.max(now + STALLED_AFTER);
    }

    /// Schedules the next probe after a pause and returns the pause. Pauses grow from call to call; they start short again for a
    /// topic that has not been blocked for [`FORGIVEN_AFTER`].
    pub(super) fn back_off(&mut self, is_blocked: bool, now: Instant) -> Duration {
        if !is_blocked && now > self.unblocked_at + FORGIVEN_AFTER {
            self.backoff.reset();
        }
        let pause = self.backoff.next_pause();
        self.due = now + pause;
        pause
    }

    /// Records the end of a block.
    pub(super) fn unblocked(&mut self, now: Instant) {
        self.unblocked_at = now;
        self.restart(now);
    }
}

/// A topic without an acknowledgement for this long is probed.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(10);
/// First and longest pause (before jitter) between two probes of a blocked topic.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The pauses of a topic that has not been blocked for this long start short again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
