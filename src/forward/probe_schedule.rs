//! Schedules the metadata probes of one topic: a while after the last progress, and with growing pauses while the topic is
//! blocked.

use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// The time of a topic's next probe. The probe takes place only if the topic is blocked or has records in flight by then.
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

    /// Schedules the next probe for when the topic has stalled.
    pub(super) fn restart(&mut self, now: Instant) {
        self.due = now + STALLED_AFTER;
    }

    /// The same, unless it is scheduled for later.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.due = self.due.max(now + STALLED_AFTER);
    }

    /// Schedules the next probe after a pause, which it returns. Pauses grow until the topic has flowed for a while.
    pub(super) fn back_off(&mut self, is_blocked: bool, now: Instant) -> Duration {
        if !is_blocked && now > self.unblocked_at + FORGIVEN_AFTER {
            self.backoff.reset();
        }
        let pause = self.backoff.next_pause();
        self.due = now + pause;
        pause
    }

    /// Notes the end of a block.
    pub(super) fn unblocked(&mut self, now: Instant) {
        self.unblocked_at = now;
        self.restart(now);
    }
}

/// Time without an acknowledgement after which the cluster is probed for the reason.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(10);
/// First and longest pause (before jitter) between two probes of a blocked topic.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// After flowing this long, a topic's pauses begin short again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
