//! Deletes expired segments. Also deletes old segments if the journal needs their space. Never deletes a segment with events
//! that a topic still needs. Never deletes a segment before a synced commit records its release, because a missing segment
//! without such a record counts as lost.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::planted::is_planted;
use super::super::segment::Segment;
use super::super::segment_file::SEGMENT_HEADER_LEN;
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

    /// Makes space for a new segment of `size` bytes within `max_size`: deletes the segments whose release is recorded. If this
    /// is not enough, returns the oldest segments whose release must be recorded first.
    pub(super) fn make_space(&self, shared: &Shared, size: u64) -> Space<'_> {
        let space = self.lock();
        // A segment of `segment_size` bytes uses the spare file. A larger segment cannot use the spare file, so delete the spare
        // file.
        if size > shared.options.limits.segment_size
            && let Some(spare) = shared.background.take_spare()
        {
            drop(shared.disk.remove(&spare.name));
        }
        delete_released(shared, &space);
        let max_size = shared.options.limits.max_size;
        let mut bytes = shared.segments.bytes() + size;
        if bytes <= max_size {
            return Space::Made(space);
        }
        let mut releases = Vec::new();
        for segment in deletable(shared) {
            bytes -= segment.size.load(Ordering::Relaxed);
            releases.push(segment);
            if bytes <= max_size {
                return Space::NeedsRelease(releases, space);
            }
        }
        Space::Full
    }
}

/// Result of [`Retention::make_space`].
pub(super) enum Space<'a> {
    Made(SpaceGuard<'a>),
    /// Segments whose release must be recorded before they can be deleted.
    NeedsRelease(Vec<Arc<Segment>>, SpaceGuard<'a>),
    /// The new segment would not fit even without all segments that may be deleted.
    Full,
}

/// Requests the release of all segments that are older than `retain` and contain no event that a topic still needs.
pub(super) fn release_expired(shared: &Shared) {
    let oldest = shared.time.now().before(shared.options.limits.retain);
    let expired = deletable(shared).into_iter().filter(|segment| segment.with_summary(|summary| summary.newest < oldest));
    request_release(shared, expired);
}

/// Requests the release of these segments. A later check deletes them.
pub(super) fn request_release(shared: &Shared, segments: impl Iterator<Item = Arc<Segment>>) {
    let requested: Vec<_> = segments.filter(|segment| segment.request_release()).collect();
    if !requested.is_empty() {
        shared.queue.record_releases(requested);
    }
}

/// Deletes all segments whose release is recorded.
pub(super) fn delete_released(shared: &Shared, _space: &SpaceGuard) {
    for segment in shared.segments.segments().iter().filter(|segment| segment.is_release_recorded()) {
        delete(shared, segment);
    }
}

/// Returns all segments that are sealed and that no topic needs, oldest first. Their release is not recorded yet.
pub(super) fn deletable(shared: &Shared) -> Vec<Arc<Segment>> {
    let mut segments = removable(shared);
    let is_pinned = shared.segments.pinned(shared.options.forwards);
    segments.retain(|segment| !is_pinned(segment));
    segments
}

/// Returns all segments that may be deleted or rewritten as far as the other segments are concerned, oldest first. Their release is
/// not recorded yet.
pub(super) fn removable(shared: &Shared) -> Vec<Arc<Segment>> {
    let mut segments = shared.segments.segments();
    // If the newest segment has no commit yet, only the previous segment proves which sequence is next. The previous segment
    // must therefore remain.
    let newest = segments.iter().rposition(|segment| segment.with_summary(|summary| summary.end > SEGMENT_HEADER_LEN));
    segments.truncate(newest.unwrap_or(0));
    // A segment supersedes events of older segments. A startup reads the frames of unsealed segments, so it would find these
    // events again if only the newer segment were deleted.
    if !is_planted("release before key file") {
        let sealed = segments.iter().take_while(|segment| segment.is_sealed()).count();
        segments.truncate(sealed);
    }
    segments.retain(|segment| !segment.is_release_recorded());
    segments
}

fn delete(shared: &Shared, segment: &Segment) {
    // Remove the segment from the map first, so that no further reader finds it. A reader that found the segment earlier may
    // still use the open file.
    shared.segments.remove(segment.name);
    let disk = &shared.disk;
    let deleted = spares::recycle_or_delete(shared, segment).and_then(|()| disk.remove(&segment.name.summary_file()));
    if let Err(error) = deleted.and_then(|()| shared.sync_dir()) {
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
