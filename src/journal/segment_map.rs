//! What the open journal has on disk, in memory: its segments in order with their tables, and every lane with its cursor
//! and backlog. No I/O happens here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock};

use super::backlog::{Backlog, Backlogs, waiting};
use super::segment::Segment;
use super::segment_file::Name;
use super::segment_summary::{SegmentSummary, TopicRange};
use super::{Options, TopicCursor};
use crate::limits::JournalLimits;

/// All segments and lanes.
#[derive(Default)]
pub struct SegmentMap {
    segments: RwLock<BTreeMap<Name, Arc<Segment>>>,
    lanes: Mutex<BTreeMap<Arc<str>, TopicState>>,
}

#[derive(Clone, Default)]
struct TopicState {
    cursor: Option<u64>,
    /// Bytes of its frames at and above the cursor that are on disk.
    kept: u64,
    /// What it pins besides, as of the last [`SegmentMap::weigh`].
    idle: u64,
    /// Bytes of its frames that wait for the writer.
    queued: u64,
}

impl SegmentMap {
    /// Adds a segment.
    pub fn add(&self, segment: Arc<Segment>) {
        self.segments.write().expect(POISON).insert(segment.name, segment);
    }

    /// Takes a segment out.
    pub fn remove(&self, name: Name) {
        self.segments.write().expect(POISON).remove(&name);
    }

    /// True while a segment has not been taken out.
    pub fn has(&self, name: Name) -> bool {
        self.segments.read().expect(POISON).contains_key(&name)
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().expect(POISON).values().cloned().collect()
    }

    /// The segment in which a sequence lies, or the next newer one that still exists, with the sequence at which the segment
    /// behind it takes over.
    pub fn holding(&self, seq: u64) -> Option<(Arc<Segment>, Option<u64>)> {
        let segments = self.segments();
        let index = segments.iter().rposition(|segment| segment.name.first <= seq).unwrap_or(0);
        let bound = segments.iter().skip(index + 1).map(|segment| segment.name.first).min();
        Some((segments.get(index)?.clone(), bound))
    }

    /// The oldest sequence of any segment.
    pub fn oldest(&self) -> Option<u64> {
        self.segments.read().expect(POISON).values().map(|s| s.name.first).next()
    }

    /// Bytes that all segments occupy.
    pub fn bytes(&self) -> u64 {
        self.segments.read().expect(POISON).values().map(|s| s.size.load(Ordering::Relaxed)).sum()
    }

    /// Events in all segments.
    pub fn events(&self) -> u64 {
        self.segments.read().expect(POISON).values().map(|s| s.with(SegmentSummary::events)).sum()
    }

    /// Every lane that has a cursor; with `all` also those that only have events, which begin at their oldest.
    pub fn lanes(&self, all: bool) -> Vec<TopicCursor> {
        let mut cursors = self.cursors();
        if all {
            for segment in self.segments() {
                for range in segment.table().lanes {
                    cursors.entry(range.lane).or_insert(range.first);
                }
            }
        }
        cursors.into_iter().map(|(name, cursor)| TopicCursor { name, cursor }).collect()
    }

    /// All cursors.
    pub fn cursors(&self) -> BTreeMap<Arc<str>, u64> {
        let lanes = self.lanes.lock().expect(POISON);
        lanes.iter().filter_map(|(name, lane)| Some((name.clone(), lane.cursor?))).collect()
    }

    /// Sets a lane's cursor and counts its own frames anew.
    pub fn move_cursor(&self, lane: &str, cursor: u64) {
        let kept =
            self.segments().iter().map(|s| s.with(|table| table.lane(lane).map_or(0, |range| waiting(range, cursor)))).sum();
        let mut lanes = self.lanes.lock().expect(POISON);
        let state = lanes.entry(lane.into()).or_default();
        state.cursor = Some(cursor);
        state.kept = kept;
        if kept == 0 {
            state.idle = 0;
        }
    }

    /// Gives a lane its first cursor, if it has none. True if it had none.
    pub fn begin_lane(&self, lane: &Arc<str>, first: u64) -> bool {
        let mut lanes = self.lanes.lock().expect(POISON);
        let state = lanes.entry(lane.clone()).or_default();
        let new = state.cursor.is_none();
        state.cursor.get_or_insert(first);
        new
    }

    /// Counts bytes as waiting for the writer, unless the lane then holds back more than `max_backlog`: in frames of its own, or
    /// in whole segments, among them the one that these bytes would go to. Lanes that hold nothing back have no limit.
    pub fn reserve(&self, lane: &Arc<str>, bytes: u64, options: &Options) -> bool {
        let mut lanes = self.lanes.lock().expect(POISON);
        let state = match lanes.get_mut(lane) {
            Some(state) => state,
            None => lanes.entry(lane.clone()).or_default(),
        };
        let JournalLimits { max_backlog, segment_size, .. } = options.limits;
        let own = state.kept + state.queued + bytes;
        // Every lane holds the last two segments for a moment, whenever one is begun.
        let is_wide = state.idle > 0 && own + state.idle + segment_size > max_backlog.max(2 * segment_size);
        if (options.forwards || state.cursor.is_some()) && (own > max_backlog || is_wide) {
            return false;
        }
        state.queued += bytes;
        true
    }

    /// Ends reservations: the bytes are on disk (`kept`), or were not written.
    pub fn settle<'a>(&self, reserved: impl Iterator<Item = (&'a Arc<str>, u64)>, kept: bool) {
        let mut lanes = self.lanes.lock().expect(POISON);
        for (lane, bytes) in reserved {
            if let Some(state) = lanes.get_mut(lane) {
                state.queued = state.queued.saturating_sub(bytes);
                state.kept += if kept { bytes } else { 0 };
            }
        }
    }

    /// What each lane keeps from being deleted. From now on [`SegmentMap::reserve`] goes by it.
    pub fn weigh(&self, all: bool) -> BTreeMap<Arc<str>, Backlog> {
        let mut backlogs = Backlogs::new(self.cursors(), all);
        let segments = self.segments();
        for segment in &segments {
            let (size, is_newest) = (segment.size.load(Ordering::Relaxed), segment.name == segments[segments.len() - 1].name);
            segment.with(|table| backlogs.add(table, size, is_newest));
        }
        let backlogs = backlogs.lanes();
        for (lane, state) in self.lanes.lock().expect(POISON).iter_mut() {
            state.idle = backlogs.get(lane).map_or(0, |backlog| backlog.idle);
        }
        backlogs
    }

    /// Tells whether some lane has not passed all its events in a segment, as of now; with `all`, a lane without a cursor has
    /// passed none.
    pub fn needs(&self, all: bool) -> impl Fn(&Segment) -> bool + use<> {
        let cursors = self.cursors();
        move |segment| {
            let needs = |range: &TopicRange| cursors.get(&range.lane).map_or(all, |cursor| *cursor <= range.last);
            segment.with(|table| table.lanes.iter().any(needs))
        }
    }

    /// How many events a lane has in `from..below` in segments that lie wholly inside, and the ranges where one must look.
    pub fn parts(&self, lane: &str, from: u64, below: u64) -> (u64, Vec<Range<u64>>) {
        let mut whole = 0;
        let mut parts = Vec::new();
        for range in self.segments().iter().filter_map(|s| s.with(|table| table.lane(lane).cloned())) {
            if range.first >= from && range.last < below {
                whole += range.count;
            } else if range.last >= from && range.first < below {
                parts.push(range.first.max(from)..below.min(range.last + 1));
            }
        }
        (whole, parts)
    }
}

const POISON: &str = "nothing panics while it holds this lock";
