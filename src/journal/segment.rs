//! One segment of the open journal.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::disk::DiskFile;
use super::segment_file::Name;
use super::segment_summary::SegmentSummary;
use crate::clock::UnixMillis;

/// One segment of the open journal.
pub struct Segment {
    /// Its name.
    pub name: Name,
    /// The file, open for reading, and for writing while it is the newest.
    pub file: Arc<dyn DiskFile>,
    /// Bytes that it occupies.
    pub size: AtomicU64,
    /// True once its key file and lane file are on disk.
    pub sealed: AtomicBool,
    /// True once its cached pages have been let go.
    pub let_go: AtomicBool,
    table: Mutex<SegmentSummary>,
    /// Sequences and the offsets at which readers may begin to look for them; grows with the segment.
    steps: Mutex<Vec<(u64, u64)>>,
}

impl Segment {
    /// A segment as it was found, or as it begins.
    pub fn new(name: Name, file: Arc<dyn DiskFile>, size: u64, table: SegmentSummary, sealed: bool) -> Arc<Segment> {
        Arc::new(Segment {
            name,
            file,
            size: size.into(),
            sealed: sealed.into(),
            let_go: false.into(),
            table: Mutex::new(table),
            steps: Mutex::default(),
        })
    }

    /// A copy of its table.
    pub fn table(&self) -> SegmentSummary {
        self.table.lock().expect(POISON).clone()
    }

    /// Looks at its table.
    pub fn with<T>(&self, look: impl FnOnce(&SegmentSummary) -> T) -> T {
        look(&self.table.lock().expect(POISON))
    }

    /// Adds a durable commit that began at `offset` and ended at `end`: lane, sequence, bytes and arrival of each event.
    pub fn grow<'a>(&self, offset: u64, end: u64, events: impl Iterator<Item = (&'a Arc<str>, u64, u64, UnixMillis)>) {
        let mut table = self.table.lock().expect(POISON);
        let mut steps = self.steps.lock().expect(POISON);
        if steps.last().is_none_or(|(_, last)| offset >= last + STEP) {
            steps.push((table.next, offset));
        }
        for (lane, seq, bytes, received_at) in events {
            table.add(lane, seq, bytes, received_at);
        }
        table.end = end;
    }

    /// An offset at or before the frame with this sequence, where a frame begins.
    pub fn seek(&self, seq: u64) -> u64 {
        let steps = self.steps.lock().expect(POISON);
        let before = steps.partition_point(|(first, _)| *first <= seq);
        before.checked_sub(1).map_or(super::segment_file::HEADER, |index| steps[index].1)
    }
}

/// Bytes between two places at which a reader may begin.
const STEP: u64 = 256 * 1024;
const POISON: &str = "nothing panics while it holds this lock";
