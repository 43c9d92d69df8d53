//! Deletes expired segments. Also deletes old segments if the journal needs their space. Never deletes a segment with events
//! that a topic still needs.

use std::sync::{Mutex, MutexGuard};

use super::super::segment::Segment;
use super::super::segment_file::SEGMENT_HEADER_LEN;
use super::super::segment_summary::SegmentSummary;
use super::super::{POISON, Shared};
use super::spares;

/// Lock that a thread holds while it deletes segments or starts a segment. Without this lock, two threads could choose the same
/// segment or count the same free space.
#[derive(Default)]
pub(super) struct Retention(Mutex<()>);

/// Guard that reserves space within `max_size` for one more segment until the guard is dropped.
pub(crate) type SpaceGuard<'a> = MutexGuard<'a, ()>;

impl Retention {
    /// Returns true while a thread holds the lock.
    pub(super) fn is_locked(&self) -> bool {
        self.0.try_lock().is_err()
    }

    pub(super) fn lock(&self) -> SpaceGuard<'_> {
        self.0.lock().expect(POISON)
    }

    /// Deletes old segments until a new segment of `size` bytes fits into `max_size`, and returns a guard that reserves this
    /// space. Returns `None` if the new segment does not fit and the journal cannot delete a further segment.
    pub(super) fn make_space(&self, shared: &Shared, size: u64) -> Option<SpaceGuard<'_>> {
        let space = self.lock();
        loop {
            // A segment of `segment_size` bytes uses the spare file. A larger segment cannot use the spare file, so delete the
            // spare file.
            if size > shared.options.limits.segment_size
                && let Some(spare) = shared.background.take_spare()
            {
                drop(shared.disk.remove(&spare.name));
            }
            if shared.segments.bytes() + size <= shared.options.limits.max_size {
                return Some(space);
            }
            if !delete_oldest(shared, &space, |_| true) {
                return None;
            }
        }
    }
}

/// Deletes all segments that are older than `retain` and contain no event that a topic still needs.
pub(super) fn delete_expired(shared: &Shared) {
    let oldest = shared.time.now().before(shared.options.limits.retain);
    while delete_oldest(shared, &shared.background.retention.lock(), |summary| summary.newest < oldest) {}
}

/// Deletes the oldest segment that is sealed, that no topic needs and that `may_delete` accepts. Returns false if there is no
/// such segment.
pub(super) fn delete_oldest(shared: &Shared, _space: &SpaceGuard, may_delete: impl Fn(&SegmentSummary) -> bool) -> bool {
    let mut segments = shared.segments.segments();
    // If the newest segment has no commit yet, only the previous segment proves which sequence is next. The previous segment
    // must therefore remain.
    let newest = segments.iter().rposition(|segment| segment.with_summary(|summary| summary.end > SEGMENT_HEADER_LEN));
    segments.truncate(newest.unwrap_or(0));
    // At the next startup, hookhold reads the frames of unsealed segments. If the segment after an unsealed segment were
    // missing, the events of the missing segment would look lost.
    let sealed = segments.iter().take_while(|segment| segment.is_sealed()).count();
    segments.truncate(sealed);
    let is_pinned = shared.segments.pinned(shared.options.forwards);
    let Some(segment) = segments.into_iter().find(|s| s.with_summary(&may_delete) && !is_pinned(s)) else { return false };
    delete(shared, &segment);
    true
}

fn delete(shared: &Shared, segment: &Segment) {
    // Remove the segment from the map first, so that no further reader finds it. A reader that found the segment earlier may
    // still use the open file.
    shared.segments.remove(segment.name);
    let disk = &shared.disk;
    let deleted = spares::recycle_or_delete(shared, segment).and_then(|()| disk.remove(&segment.name.summary_file()));
    if !shared.keys.has_file(segment.name) {
        // The key file has no entries, because the segment had no keys or the journal has already deleted them.
        drop(disk.remove(&segment.name.key_file()));
    }
    if let Err(error) = deleted.and_then(|()| disk.sync_dir()) {
        let file = segment.name.segment_file();
        tracing::warn!(segment = file, %error, "cannot delete an old segment; run `dmesg` to find the cause");
    }
}

/// Drops the pages of sealed segments from the page cache, except for segments that a topic pins. No reader will need the
/// dropped pages soon. The writer's next pages can then use memory that the kernel has just freed, and the kernel need not
/// evict other pages.
pub(super) fn drop_from_page_cache(shared: &Shared) {
    let is_pinned = shared.segments.pinned(shared.options.forwards);
    for segment in shared.segments.segments() {
        if segment.is_sealed() && !is_pinned(&segment) {
            segment.drop_from_page_cache();
        }
    }
}
