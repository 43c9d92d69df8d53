//! Measures the success rate of a source over a sliding period: the share of the source's deliveries that hookhold answered
//! with 2xx. Some providers disable an endpoint when this rate is too low.
//!
//! The success rate covers only deliveries with a genuine signature, including deliveries with a stale or future timestamp. An
//! unknown sender can replay such a delivery, and the replay counts, but the sender cannot forge the signature of a new
//! delivery. The rate ignores all other deliveries, so forged deliveries do not distort the rate. With a wrong secret, no
//! signature matches, so the rate does not fall. Operators can recognise a wrong secret by `signature_mismatch` outcomes and by
//! the absence of verified deliveries.
//!
//! [`SuccessRate`] divides the period into [`SLOTS`] slots with two counts each. The oldest slot expires as a whole. The memory
//! for the counts therefore does not grow with the number of deliveries. The slots follow the journal's clock, so a jump of the
//! wall clock does not erase the counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::answer::Answer;
use crate::journal::JournalMillis;
use crate::outcome::Outcome;

/// Counts of the successful and the failed deliveries of one source in the current period. Both counts start at 0.
pub(super) struct SuccessRate {
    slot_ms: u64,
    slots: Mutex<[TimeSlot; SLOTS]>,
}

/// Counts of the successful and the failed deliveries in one slot of the period.
#[derive(Clone, Copy, Default)]
struct TimeSlot {
    /// Number of the slot: the time of the journal's clock divided by the length of a slot, both in milliseconds.
    number: u64,
    succeeded: u64,
    failed: u64,
}

/// Guard that counts one verified delivery when the guard is dropped. The delivery counts as successful if `finish` recorded a
/// 2xx answer, and otherwise as failed. If the sender disconnects, hookhold drops the guard without calling `finish`, so the
/// delivery counts as failed.
pub(super) struct SuccessGuard {
    rate: Arc<SuccessRate>,
    at: JournalMillis,
    succeeded: bool,
}

impl SuccessRate {
    pub(super) fn over(period: Duration) -> Arc<SuccessRate> {
        let slot_ms = (period.as_millis() as u64 / SLOTS as u64).max(1);
        Arc::new(SuccessRate { slot_ms, slots: Mutex::new([TimeSlot::default(); SLOTS]) })
    }

    /// Counts a rejected delivery as failed if its signature was genuine. Among the rejected deliveries, only those with a stale or
    /// future timestamp, those after a jump of the clock and those with too many items have a genuine signature.
    pub(super) fn count_rejection(&self, at: JournalMillis, outcome: Outcome) {
        if matches!(outcome, Outcome::TimestampStale | Outcome::TimestampFuture | Outcome::ClockJumped | Outcome::TooLarge) {
            self.count(at, false);
        }
    }

    /// Returns a guard that counts a verified delivery. `at` is the arrival time of the delivery.
    pub(super) fn start(self: &Arc<SuccessRate>, at: JournalMillis) -> SuccessGuard {
        SuccessGuard { rate: self.clone(), at, succeeded: false }
    }

    /// Returns the success rate in the period that ends at `now`: a number from 0 to 1, or NaN if the period contains no
    /// delivery.
    pub(super) fn at(&self, now: JournalMillis) -> f64 {
        let newest = now.0 / self.slot_ms;
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let current = slots.iter().filter(|slot| newest.checked_sub(slot.number).is_some_and(|age| age < SLOTS as u64));
        let (succeeded, failed) = current.fold((0, 0), |(good, bad), slot| (good + slot.succeeded, bad + slot.failed));
        succeeded as f64 / (succeeded + failed) as f64
    }

    fn count(&self, at: JournalMillis, succeeded: bool) {
        let number = at.0 / self.slot_ms;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut slots[(number % SLOTS as u64) as usize];
        if slot.number != number {
            *slot = TimeSlot { number, ..TimeSlot::default() };
        }
        slot.succeeded += u64::from(succeeded);
        slot.failed += u64::from(!succeeded);
    }
}

impl SuccessGuard {
    /// Counts the delivery as successful if the answer has a 2xx status, and otherwise as failed.
    pub(super) fn finish(mut self, answer: &Answer) {
        self.succeeded = answer.status.is_success();
    }
}

impl Drop for SuccessGuard {
    fn drop(&mut self) {
        self.rate.count(self.at, self.succeeded);
    }
}

/// Number of slots in a period. The start of the period is accurate to the length of one slot.
const SLOTS: usize = 60;
