//! The share of a source's deliveries that is answered 2xx, over a sliding window: what its provider judges the endpoint by.
//!
//! Only deliveries that a configured secret signed count, also those that are stale. Strangers cannot make them, at most send
//! again one that they have seen, so forged ones cannot hide how the provider's own fare. For the same reason what is refused
//! before its proof is known does not count: a wrong secret shows as `signature_mismatch` while nothing verifies any more.
//!
//! The window is cut into [`SLOTS`] slots, and the oldest leaves as a whole; so memory does not grow with the deliveries.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::outcome::Outcome;

/// Successes and failures of one source. Empty after a start.
pub(super) struct SuccessRate {
    slot_ms: u64,
    slots: Mutex<[Slot; SLOTS]>,
}

/// What came in one part of the window.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Counted from 1970 in lengths of a slot.
    number: u64,
    succeeded: u64,
    failed: u64,
}

/// One proven delivery on its way to its answer. Dropped without one it has failed: its sender waits no longer.
pub(super) struct Attempt {
    share: Arc<SuccessRate>,
    at: UnixMillis,
    succeeded: bool,
}

impl SuccessRate {
    pub(super) fn over(window: Duration) -> Arc<SuccessRate> {
        let slot_ms = (window.as_millis() as u64 / SLOTS as u64).max(1);
        Arc::new(SuccessRate { slot_ms, slots: Mutex::new([Slot::default(); SLOTS]) })
    }

    /// A delivery has been refused. Signed too long ago or ahead, it is the provider's all the same.
    pub(super) fn refused(&self, at: UnixMillis, outcome: Outcome) {
        if matches!(outcome, Outcome::TimestampStale | Outcome::TimestampFuture) {
            self.note(at, false);
        }
    }

    /// A proven delivery has arrived at `at`.
    pub(super) fn attempt(self: &Arc<SuccessRate>, at: UnixMillis) -> Attempt {
        Attempt { share: self.clone(), at, succeeded: false }
    }

    /// From 0 to 1; not a number when nothing came within the window.
    pub(super) fn at(&self, now: UnixMillis) -> f64 {
        let newest = now.0 / self.slot_ms;
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let within = slots.iter().filter(|slot| newest.checked_sub(slot.number).is_some_and(|age| age < SLOTS as u64));
        let (succeeded, failed) = within.fold((0, 0), |(good, bad), slot| (good + slot.succeeded, bad + slot.failed));
        succeeded as f64 / (succeeded + failed) as f64
    }

    fn note(&self, at: UnixMillis, succeeded: bool) {
        let number = at.0 / self.slot_ms;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut slots[(number % SLOTS as u64) as usize];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.succeeded += u64::from(succeeded);
        slot.failed += u64::from(!succeeded);
    }
}

impl Attempt {
    /// The answer that the sender gets.
    pub(super) fn end(mut self, answer: &Answer) {
        self.succeeded = answer.status.is_success();
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.share.note(self.at, self.succeeded);
    }
}

/// Parts of a window. The window is right to one of them.
const SLOTS: usize = 60;
