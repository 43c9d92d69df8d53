//! In-memory representation of one segment of the open journal: its open file, its state and its summary.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::POISON;
use super::disk::DiskFile;
use super::journal_time::JournalMillis;
use super::segment_file::SEGMENT_HEADER_LEN;
use super::segment_name::SegmentName;
use super::segment_summary::SegmentSummary;

/// State of a segment. Every segment passes through these states in the order of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SegmentState {
    /// Segment whose key file and summary file are not on disk yet.
    Unsealed,
    /// Segment whose key file and summary file are on disk.
    Sealed,
    /// Sealed segment whose pages have been dropped from the page cache.
    Uncached,
}

/// Progress of the release of a segment, which precedes the deletion of its file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReleaseState {
    Needed,
    /// The writer has not yet recorded the release.
    Requested,
    /// A synced commit records the release, so the file may be deleted.
    Recorded,
}

/// One segment of the open journal.
pub(super) struct Segment {
    pub(super) name: SegmentName,
    /// Ids of the segments that this segment replaces, oldest first.
    pub(super) replaced: Vec<u64>,
    /// Segment file, open for reading. The file of the newest segment is also open for writing.
    pub(super) file: Arc<dyn DiskFile>,
    /// Size of the file in bytes.
    pub(super) size: AtomicU64,
    state: AtomicU8,
    release: AtomicU8,
    summary: Mutex<SegmentSummary>,
    /// The background work rewrites the segment only once its selected events take fewer bytes than this.
    rewrite_below: AtomicU64,
    /// Read points. Each read point is a sequence and the offset at which a search for this sequence can start.
    read_points: Mutex<Vec<(u64, u64)>>,
}

impl Segment {
    pub(super) fn new(
        name: SegmentName,
        file: Arc<dyn DiskFile>,
        size: u64,
        summary: SegmentSummary,
        state: SegmentState,
    ) -> Arc<Segment> {
        Segment::replacing(name, Vec::new(), file, size, summary, state)
    }

    /// Returns a segment that replaces the segments with the ids `replaced`.
    pub(super) fn replacing(
        name: SegmentName,
        replaced: Vec<u64>,
        file: Arc<dyn DiskFile>,
        size: u64,
        summary: SegmentSummary,
        state: SegmentState,
    ) -> Arc<Segment> {
        Arc::new(Segment {
            name,
            replaced,
            file,
            size: size.into(),
            state: AtomicU8::new(state as u8),
            release: AtomicU8::new(ReleaseState::Needed as u8),
            summary: Mutex::new(summary),
            rewrite_below: u64::MAX.into(),
            read_points: Mutex::default(),
        })
    }

    /// Returns true once the key file and the summary file are on disk.
    pub(super) fn is_sealed(&self) -> bool {
        self.state.load(Ordering::Acquire) >= SegmentState::Sealed as u8
    }

    /// Sets the state to `Sealed`, because the key file and the summary file are on disk.
    pub(super) fn set_sealed(&self) {
        self.state.store(SegmentState::Sealed as u8, Ordering::Release);
    }

    /// Marks the segment as requested for release. Returns false if its release was requested before.
    pub(super) fn request_release(&self) -> bool {
        let (needed, requested) = (ReleaseState::Needed as u8, ReleaseState::Requested as u8);
        self.release.compare_exchange(needed, requested, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Withdraws a requested release that the writer could not record.
    pub(super) fn cancel_release(&self) {
        let (requested, needed) = (ReleaseState::Requested as u8, ReleaseState::Needed as u8);
        let _ = self.release.compare_exchange(requested, needed, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Marks the release of the segment as recorded in a synced commit.
    pub(super) fn set_release_recorded(&self) {
        self.release.store(ReleaseState::Recorded as u8, Ordering::Release);
    }

    /// Returns true if a synced commit records the release of the segment.
    pub(super) fn is_release_recorded(&self) -> bool {
        self.release.load(Ordering::Acquire) == ReleaseState::Recorded as u8
    }

    /// Drops the segment's pages from the page cache, unless the segment is unsealed or its pages have already been dropped.
    pub(super) fn drop_from_page_cache(&self) {
        let (sealed, uncached) = (SegmentState::Sealed as u8, SegmentState::Uncached as u8);
        if self.state.compare_exchange(sealed, uncached, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.file.drop_from_page_cache();
        }
    }

    /// Returns true if the background work may try to rewrite the segment with events of this many bytes.
    pub(super) fn may_rewrite(&self, bytes: u64) -> bool {
        bytes < self.rewrite_below.load(Ordering::Relaxed)
    }

    /// Prevents a further attempt to rewrite the segment until its events take fewer than this many bytes.
    pub(super) fn rewrite_below(&self, bytes: u64) {
        self.rewrite_below.store(bytes, Ordering::Relaxed);
    }

    /// Returns the ids under which a key file may contain the keys of the segment: its own id, and those of the segments that
    /// it replaces.
    pub(super) fn key_ids(&self) -> impl Iterator<Item = u64> {
        self.replaced.iter().copied().chain([self.name.id])
    }

    /// Returns a copy of the summary.
    pub(super) fn summary(&self) -> SegmentSummary {
        self.with_summary(SegmentSummary::clone)
    }

    /// Calls `look` with the summary and returns the result.
    pub(super) fn with_summary<T>(&self, look: impl FnOnce(&SegmentSummary) -> T) -> T {
        look(&self.summary.lock().expect(POISON))
    }

    /// Adds a durable commit at `offset..end` to the summary. `first_seen` is the time of the commit, and `events` contains the
    /// topic, sequence and size in bytes of each event.
    pub(super) fn add_commit<'a>(
        &self,
        offset: u64,
        end: u64,
        first_seen: JournalMillis,
        events: impl Iterator<Item = (&'a Arc<str>, u64, u64)>,
    ) {
        let mut summary = self.summary.lock().expect(POISON);
        let mut read_points = self.read_points.lock().expect(POISON);
        if read_points.last().is_none_or(|(_, last)| offset >= last + READ_POINT_DISTANCE) {
            read_points.push((summary.next_seq, offset));
        }
        for (topic, seq, bytes) in events {
            summary.add(topic, seq, bytes, first_seen);
        }
        summary.end = end;
    }

    /// Returns the offset of a frame at or before the frame with this sequence.
    pub(super) fn read_offset(&self, seq: u64) -> u64 {
        let read_points = self.read_points.lock().expect(POISON);
        let before = read_points.partition_point(|(first, _)| *first <= seq);
        before.checked_sub(1).map_or(SEGMENT_HEADER_LEN, |index| read_points[index].1)
    }
}

/// Minimum number of bytes between two read points.
const READ_POINT_DISTANCE: u64 = 256 * 1024;
