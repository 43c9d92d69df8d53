//! The segments of the open journal, oldest first, and the cursor and backlog of each topic. All state is in memory, and no
//! function performs I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock};

use super::POISON;
use super::backlog::{Backlog, BacklogShares, Backlogs, WaitingEvents, min_pinned, waiting_bytes, waiting_range};
use super::frame::ListedSegment;
use super::options::Options;
use super::segment::Segment;
use super::segment_name::SegmentName;
use super::segment_summary::{SegmentSummary, TopicRange};

/// Cursor of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCursor {
    /// Name of the topic.
    pub name: Arc<str>,
    /// Sequence below which Kafka has acknowledged every event of the topic.
    pub cursor: u64,
}

/// All segments and topics of the open journal.
pub(super) struct SegmentMap {
    segments: RwLock<BTreeMap<SegmentName, Arc<Segment>>>,
    topics: Mutex<TopicStates>,
    /// Sequence from which on no event waits for a topic; `None` if the journal forwards events.
    backlog_end: Option<u64>,
}

/// States of all topics with a cursor or with events.
#[derive(Default)]
struct TopicStates {
    by_name: BTreeMap<Arc<str>, TopicState>,
    /// Topics whose cursor has moved since a durable commit last contained it.
    moved: BTreeSet<Arc<str>>,
    shares: BacklogShares,
}

struct TopicState {
    cursor: Option<u64>,
    /// Cursor in the newest durable commit with a cursor of the topic.
    saved: Option<u64>,
    /// First sequence of the segment after the one that contains the cursor; `None` while the cursor is in the newest segment.
    next_start: Option<u64>,
    /// Upper bound for the number of bytes in the topic's durable frames at and above the cursor. [`u64::MAX`] before the first
    /// count. Every move of the cursor would make another count necessary, so this number stays too high until
    /// [`SegmentMap::reserve`] needs the exact number.
    waiting_bytes: u64,
    /// True if `waiting_bytes` may be too high.
    is_outdated: bool,
    /// Value of [`Backlog::overhead_bytes`] that the last call of [`SegmentMap::update_backlogs`] computed for the topic.
    overhead_bytes: u64,
    /// Number of bytes in the topic's frames that wait for the writer.
    queued_bytes: u64,
    /// Number of the topic's events that have become durable since the journal was opened.
    stored: u64,
}

impl Default for TopicState {
    fn default() -> TopicState {
        TopicState {
            cursor: None,
            saved: None,
            next_start: None,
            waiting_bytes: u64::MAX,
            is_outdated: true,
            overhead_bytes: 0,
            queued_bytes: 0,
            stored: 0,
        }
    }
}

impl TopicStates {
    /// Returns the state of a topic. Creates the state if the topic is new.
    fn entry(&mut self, topic: &str) -> &mut TopicState {
        if !self.by_name.contains_key(topic) {
            self.by_name.insert(topic.into(), TopicState::default());
        }
        self.by_name.get_mut(topic).expect("the topic was inserted above")
    }
}

impl TopicState {
    /// Returns true if the topic may have `bytes` more bytes in the queue.
    fn has_room(&self, bytes: u64, shares: &BacklogShares) -> bool {
        shares.has_room(self.waiting_bytes.saturating_add(self.queued_bytes + bytes), self.overhead_bytes, bytes)
    }

    /// Counts the waiting bytes again.
    fn count_waiting(&mut self, topic: &str, segments: &SegmentMap) {
        let cursor = self.cursor.unwrap_or(0);
        let waiting = |summary: &SegmentSummary| {
            let range = summary.topic(topic);
            range.map_or(0, |range| waiting_bytes(range, &waiting_range(range, cursor, segments.backlog_end)))
        };
        self.waiting_bytes = segments.segments().iter().map(|segment| segment.with_summary(waiting)).sum();
        self.is_outdated = false;
        if self.waiting_bytes == 0 {
            self.overhead_bytes = 0;
        }
    }
}

impl SegmentMap {
    /// Creates an empty map. No event at or above `backlog_end` waits for a topic; `None` if the journal forwards events.
    pub(super) fn new(backlog_end: Option<u64>) -> SegmentMap {
        SegmentMap { segments: RwLock::default(), topics: Mutex::default(), backlog_end }
    }

    /// Returns the sequence from which on no event waits for a topic; `None` if the journal forwards events.
    pub(super) fn backlog_end(&self) -> Option<u64> {
        self.backlog_end
    }

    /// Adds a segment to the map.
    pub(super) fn add(&self, segment: Arc<Segment>) {
        self.segments.write().expect(POISON).insert(segment.name, segment);
    }

    /// Replaces the segment `old` by a segment with the same place.
    pub(super) fn replace(&self, old: SegmentName, new: Arc<Segment>) {
        let mut segments = self.segments.write().expect(POISON);
        segments.remove(&old);
        segments.insert(new.name, new);
    }

    /// Removes a segment from the map.
    pub(super) fn remove(&self, name: SegmentName) {
        self.segments.write().expect(POISON).remove(&name);
    }

    /// Returns true if the map contains this segment.
    pub(super) fn contains(&self, name: SegmentName) -> bool {
        self.segments.read().expect(POISON).contains_key(&name)
    }

    /// Returns all segments, oldest first.
    pub(super) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().expect(POISON).values().cloned().collect()
    }

    /// Returns the list of all segments whose release is not recorded, except for `released` and for segments from `newest` on.
    pub(super) fn list(&self, newest: SegmentName, released: &[Arc<Segment>]) -> Vec<ListedSegment> {
        let is_released =
            |segment: &Segment| segment.is_release_recorded() || released.iter().any(|released| released.name == segment.name);
        let older = self.segments().into_iter().filter(|segment| segment.name < newest && !is_released(segment));
        older.map(|segment| ListedSegment { name: segment.name, next_seq: segment.with_summary(|s| s.next_seq) }).collect()
    }

    /// Returns the newest segment that starts at or below `seq`. If there is no such segment, returns the oldest segment. Also
    /// returns the sequence at and above which a newer segment supersedes the events of the returned segment.
    pub(super) fn locate(&self, seq: u64) -> Option<(Arc<Segment>, Option<u64>)> {
        let segments = self.segments();
        let index = segments.iter().rposition(|segment| segment.name.first_seq <= seq).unwrap_or(0);
        let superseded_from = segments.iter().skip(index + 1).map(|segment| segment.name.first_seq).min();
        Some((segments.get(index)?.clone(), superseded_from))
    }

    /// Returns the first sequence of the oldest segment.
    pub(super) fn oldest_seq(&self) -> Option<u64> {
        self.segments.read().expect(POISON).values().map(|segment| segment.name.first_seq).next()
    }

    /// Returns the total size of all segments in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.read().expect(POISON).values().map(|segment| segment.size.load(Ordering::Relaxed)).sum()
    }

    /// Returns the number of events in all segments.
    pub(super) fn events(&self) -> u64 {
        self.segments.read().expect(POISON).values().map(|segment| segment.with_summary(SegmentSummary::events)).sum()
    }

    /// Returns all topics with a cursor. If `forwards` is true, also returns each topic that has events but no cursor. The
    /// cursor of such a topic is the sequence of its oldest event.
    pub(super) fn topic_cursors(&self, forwards: bool) -> Vec<TopicCursor> {
        let mut cursors = self.cursors();
        if forwards {
            for segment in self.segments() {
                for range in segment.summary().topics {
                    cursors.entry(range.topic).or_insert(range.first);
                }
            }
        }
        cursors.into_iter().map(|(name, cursor)| TopicCursor { name, cursor }).collect()
    }

    /// Returns the lowest cursor; 0 if there is no cursor.
    pub(super) fn lowest_cursor(&self) -> u64 {
        self.cursors().into_values().min().unwrap_or(0)
    }

    /// Returns all existing cursors by topic.
    pub(super) fn cursors(&self) -> BTreeMap<Arc<str>, u64> {
        let topics = self.topics.lock().expect(POISON);
        topics.by_name.iter().filter_map(|(name, state)| Some((name.clone(), state.cursor?))).collect()
    }

    /// Returns the cursors that have moved since a durable commit last contained them.
    pub(super) fn moved_cursors(&self) -> Vec<(Arc<str>, u64)> {
        let topics = self.topics.lock().expect(POISON);
        topics.moved.iter().filter_map(|name| Some((name.clone(), topics.by_name.get(name)?.cursor?))).collect()
    }

    /// Returns true if [`SegmentMap::moved_cursors`] would return a cursor.
    pub(super) fn has_moved_cursors(&self) -> bool {
        !self.topics.lock().expect(POISON).moved.is_empty()
    }

    /// Records that a durable commit contains these cursors. A cursor that has moved since then remains unsaved.
    pub(super) fn set_saved(&self, cursors: &[(Arc<str>, u64)]) {
        let topics = &mut *self.topics.lock().expect(POISON);
        for (name, saved) in cursors {
            let state = topics.entry(name);
            state.saved = Some(*saved);
            // The cursor may have moved during the commit, even to the value that an older commit contains.
            if state.cursor == state.saved {
                topics.moved.remove(name);
            } else {
                topics.moved.insert(name.clone());
            }
        }
    }

    /// Sets a topic's cursor. Returns true if the cursor has left a segment, so that the journal may be able to delete the
    /// segment. The cost does not depend on the number of segments, unless the cursor leaves a segment.
    pub(super) fn move_cursor(&self, topic: &str, cursor: u64) -> bool {
        let topics = &mut *self.topics.lock().expect(POISON);
        let state = topics.entry(topic);
        let previous = state.cursor.replace(cursor);
        state.is_outdated = true;
        if previous.is_none_or(|previous| cursor < previous) {
            state.waiting_bytes = u64::MAX;
        }
        let is_saved = state.cursor == state.saved;
        if is_saved {
            topics.moved.remove(topic);
        } else if let Some((name, _)) = topics.by_name.get_key_value(topic) {
            topics.moved.insert(name.clone());
        }
        let Some(previous) = previous.filter(|previous| *previous <= cursor) else {
            topics.entry(topic).next_start = self.next_start(cursor);
            return true;
        };
        let state = topics.entry(topic);
        let next_start = state.next_start.or_else(|| self.next_start(previous));
        let has_left = next_start.is_some_and(|start| start <= cursor);
        state.next_start = if has_left { self.next_start(cursor) } else { next_start };
        has_left
    }

    /// Returns the lowest first sequence above `cursor`; `None` if no segment starts there.
    fn next_start(&self, cursor: u64) -> Option<u64> {
        let segments = self.segments.read().expect(POISON);
        segments.keys().rev().map(|name| name.first_seq).take_while(|first| *first > cursor).last()
    }

    /// Sets a topic's cursor to `first` if the topic has no cursor yet. Returns true if no durable commit contains a cursor of
    /// the topic.
    pub(super) fn start_cursor(&self, topic: &Arc<str>, first: u64) -> bool {
        let topics = &mut *self.topics.lock().expect(POISON);
        let state = topics.entry(topic);
        let (is_new, is_unsaved) = (state.cursor.is_none(), state.saved.is_none());
        state.cursor.get_or_insert(first);
        if is_new {
            topics.moved.insert(topic.clone());
        }
        is_unsaved
    }

    /// Reserves bytes for an event that waits for the writer. Returns false if the topic would exceed `max_backlog` or its share. If
    /// hookhold does not forward events, a new event does not become part of a backlog, so there is no limit.
    pub(super) fn reserve(&self, topic: &Arc<str>, bytes: u64, options: &Options) -> bool {
        let topics = &mut *self.topics.lock().expect(POISON);
        let mut shares = topics.shares;
        let state = topics.entry(topic);
        if options.forwards {
            let mut has_room = state.has_room(bytes, &shares);
            if !has_room && state.is_outdated {
                state.count_waiting(topic, self);
                has_room = state.has_room(bytes, &shares);
            }
            if !has_room {
                return false;
            }
            shares.grow(bytes);
        }
        state.queued_bytes += bytes;
        topics.shares = shares;
        true
    }

    /// Converts reserved bytes to bytes that wait for Kafka. The writer calls this function once the frames are durable. Each entry
    /// contains the topic, bytes and number of events of one delivery. `publish` raises the durable watermark. It runs under the lock,
    /// so that [`SegmentMap::stored`] never sees only one of both changes.
    pub(super) fn commit_reserved<'a>(&self, reserved: impl Iterator<Item = (&'a Arc<str>, u64, u64)>, publish: impl FnOnce()) {
        let mut topics = self.topics.lock().expect(POISON);
        for (topic, bytes, count) in reserved {
            if let Some(state) = topics.by_name.get_mut(topic) {
                state.stored += count;
                state.queued_bytes = state.queued_bytes.saturating_sub(bytes);
                state.waiting_bytes = state.waiting_bytes.saturating_add(bytes);
                // If another thread has counted these bytes in the segment's summary already, they count twice.
                state.is_outdated = true;
            }
        }
        publish();
    }

    /// Returns the number of a topic's events that have become durable since the journal was opened, and the durable watermark, which
    /// `watermark` reads.
    pub(super) fn stored(&self, topic: &str, watermark: impl FnOnce() -> u64) -> (u64, u64) {
        let topics = self.topics.lock().expect(POISON);
        (topics.by_name.get(topic).map_or(0, |state| state.stored), watermark())
    }

    /// Cancels the reservations of frames that were not written.
    pub(super) fn cancel_reserved<'a>(&self, reserved: impl Iterator<Item = (&'a Arc<str>, u64)>) {
        let mut topics = self.topics.lock().expect(POISON);
        for (topic, bytes) in reserved {
            if let Some(state) = topics.by_name.get_mut(topic) {
                state.queued_bytes = state.queued_bytes.saturating_sub(bytes);
            }
        }
    }

    /// Computes the backlog of each topic, and the shares of the topics that are behind. [`SegmentMap::reserve`] uses these shares until
    /// the next call of this function.
    pub(super) fn update_backlogs(&self, options: &Options) -> (BTreeMap<Arc<str>, Backlog>, BacklogShares) {
        let min_pinned = min_pinned(&options.limits);
        let mut backlogs = Backlogs::new(self.waiting(options.forwards), min_pinned);
        let segments = self.segments();
        for segment in &segments {
            let is_newest = segment.name == segments[segments.len() - 1].name;
            segment.with_summary(|summary| backlogs.add(summary, is_newest));
        }
        let backlogs = backlogs.topics();
        let topics = &mut *self.topics.lock().expect(POISON);
        let mut all = Vec::new();
        for (topic, state) in &mut topics.by_name {
            let backlog = backlogs.get(topic).copied().unwrap_or_default();
            state.overhead_bytes = backlog.overhead_bytes;
            all.push(backlog.waiting_bytes + backlog.overhead_bytes + state.queued_bytes);
        }
        topics.shares = BacklogShares::new(all.into_iter(), &options.limits);
        (backlogs, topics.shares)
    }

    /// Returns the events that wait for their topic now. If `forwards` is true, all events of a topic without a cursor wait.
    pub(super) fn waiting(&self, forwards: bool) -> WaitingEvents {
        WaitingEvents { cursors: self.cursors(), forwards, backlog_end: self.backlog_end }
    }

    /// Returns a predicate that is true for segments with events that wait for their topic, as [`SegmentMap::waiting`] does. The
    /// predicate uses a copy of the current cursors.
    pub(super) fn pinned(&self, forwards: bool) -> impl Fn(&Segment) -> bool + use<> {
        let waiting = self.waiting(forwards);
        move |segment| {
            let pins = |range: &TopicRange| !waiting.sequences(range).is_empty();
            segment.with_summary(|summary| summary.topics.iter().any(pins))
        }
    }

    /// Returns the number of a topic's events with sequences in `from..below`, computed only from the summaries. If a segment
    /// contains events of the topic both inside and outside this range, the number excludes this segment. Instead, the returned
    /// list contains the range of sequences in which the caller must count the topic's frames.
    pub(super) fn count(&self, topic: &str, from: u64, below: u64) -> (u64, Vec<Range<u64>>) {
        let mut whole = 0;
        let mut partial = Vec::new();
        for range in self.segments().iter().filter_map(|segment| segment.with_summary(|s| s.topic(topic).cloned())) {
            if range.first >= from && range.last < below {
                whole += range.count;
            } else if range.last >= from && range.first < below {
                partial.push(range.first.max(from)..below.min(range.last + 1));
            }
        }
        (whole, partial)
    }
}
