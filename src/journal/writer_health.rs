//! Health of the writer: its ability to store new events, and the duration of the running disk operation.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

#[repr(u8)]
enum Availability {
    Available,
    /// State while the writer has no room for a new segment.
    NoRoom,
    /// State while the writer cannot create a new segment for another reason, for example on a read-only file system.
    NoSegment,
    /// Final state after a failed sync or a panic of a journal thread.
    Failed,
}

/// Health of the writer, readable without a lock.
pub(super) struct WriterHealth {
    availability: AtomicU8,
    /// Uptime at the start of the running disk operation in milliseconds, plus 1; 0 if no operation is running.
    operation_started: AtomicU64,
}

impl WriterHealth {
    pub(super) fn new() -> WriterHealth {
        WriterHealth { availability: AtomicU8::new(Availability::Available as u8), operation_started: AtomicU64::new(0) }
    }

    /// Sets the availability to `Failed`, after which the process must exit.
    pub(super) fn set_failed(&self) {
        self.availability.store(Availability::Failed as u8, Ordering::Release);
    }

    /// Returns true once the journal has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.availability.load(Ordering::Acquire) == Availability::Failed as u8
    }

    /// Changes the availability from `Available` to `NoRoom` or `NoSegment`, because the writer cannot start a segment. Returns true
    /// if the previous availability was `Available`.
    pub(super) fn set_no_segment(&self, is_full: bool) -> bool {
        self.change(Availability::Available, if is_full { Availability::NoRoom } else { Availability::NoSegment })
    }

    /// Changes the availability to `Available`, because the writer can start a segment again. Does nothing after a failure.
    pub(super) fn set_room(&self) {
        self.change(Availability::NoRoom, Availability::Available);
        self.change(Availability::NoSegment, Availability::Available);
    }

    /// Returns true while the writer cannot start a segment, for whatever reason.
    pub(super) fn has_no_segment(&self) -> bool {
        let availability = self.availability.load(Ordering::Relaxed);
        availability == Availability::NoRoom as u8 || availability == Availability::NoSegment as u8
    }

    /// Returns true while the writer cannot start a segment because there is no room.
    pub(super) fn has_no_room(&self) -> bool {
        self.availability.load(Ordering::Relaxed) == Availability::NoRoom as u8
    }

    /// Performs a disk operation of the writer that starts at `uptime`: a write, a sync, or the allocation of a segment.
    pub(super) fn perform<T>(&self, uptime: Duration, operation: impl FnOnce() -> T) -> T {
        self.operation_started.store(uptime.as_millis() as u64 + 1, Ordering::Relaxed);
        let result = operation();
        self.operation_started.store(0, Ordering::Relaxed);
        result
    }

    /// Returns the duration of the running disk operation at `uptime`; `None` if no operation is running.
    pub(super) fn operation_age(&self, uptime: Duration) -> Option<Duration> {
        let started = Duration::from_millis(self.operation_started.load(Ordering::Relaxed).checked_sub(1)?);
        Some(uptime.saturating_sub(started))
    }

    fn change(&self, from: Availability, to: Availability) -> bool {
        self.availability.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
