//! Computes how many bytes each topic pins. The journal cannot delete pinned bytes. A topic pins its waiting frames: the frames
//! of its events that Kafka has not acknowledged. The journal deletes only whole segments, so a waiting frame also pins the
//! dead bytes of its segment. Dead bytes are bytes that no topic needs. All dead bytes of a segment count for every topic that
//! has a waiting frame in the segment. If dead bytes did not count, a topic with one waiting frame in each segment would pin
//! the whole journal without reaching `max_backlog`.
//!
//! A waiting frame counts only in the backlog of its own topic. If all frames of a segment are waiting frames, the segment has
//! no dead bytes. So if Kafka is down and therefore acknowledges no events, each topic pins only its own frames, and the topics
//! together can use all of `max_size`. The newest segment counts as if it had no dead bytes, because the journal never deletes
//! the newest segment.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::segment_summary::{SegmentSummary, TopicRange};

/// Bytes that one topic pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Total size of the topic's waiting frames, in bytes.
    pub(super) waiting_bytes: u64,
    /// Number of dead bytes in the segments that this topic pins. No topic needs these bytes, but the journal cannot delete
    /// them.
    pub(super) dead_bytes: u64,
}

impl Backlog {
    /// Returns the number of bytes that the topic pins: the sum of its waiting bytes and its dead bytes.
    pub(super) fn pinned_bytes(self) -> u64 {
        self.waiting_bytes + self.dead_bytes
    }
}

/// Backlogs of all topics, computed from the summaries of all segments.
pub(super) struct Backlogs {
    cursors: BTreeMap<Arc<str>, u64>,
    forwards: bool,
    backlog_end: Option<u64>,
    topics: BTreeMap<Arc<str>, Backlog>,
}

impl Backlogs {
    /// Creates an empty backlog for each topic with a cursor. If `forwards` is true, a topic without a cursor pins all its
    /// events. If `forwards` is false, a topic without a cursor pins nothing. No event at or above `backlog_end` waits for a
    /// topic.
    pub(super) fn new(cursors: BTreeMap<Arc<str>, u64>, forwards: bool, backlog_end: Option<u64>) -> Backlogs {
        let topics = cursors.keys().map(|topic| (topic.clone(), Backlog::default())).collect();
        Backlogs { cursors, forwards, backlog_end, topics }
    }

    /// Adds the bytes of one segment to the backlogs. `size` is the size of the segment's file in bytes.
    pub(super) fn add(&mut self, summary: &SegmentSummary, size: u64, is_newest: bool) {
        let default = self.forwards.then_some(0);
        let pinning = summary.topics.iter().filter_map(|range| {
            let cursor = self.cursors.get(&range.topic).copied().or(default)?;
            let waiting = waiting_range(range, cursor, self.backlog_end);
            (!waiting.is_empty()).then(|| (&range.topic, waiting_bytes(range, &waiting)))
        });
        let pinning: Vec<_> = pinning.collect();
        let waiting: u64 = pinning.iter().map(|(_, bytes)| bytes).sum();
        let all: u64 = summary.topics.iter().map(|range| range.bytes).sum();
        let dead = if is_newest || waiting == all { 0 } else { size.saturating_sub(waiting) };
        for (topic, bytes) in pinning {
            let backlog = self.topics.entry(topic.clone()).or_default();
            backlog.waiting_bytes += bytes;
            backlog.dead_bytes += dead;
        }
    }

    /// Returns the backlog of each topic.
    pub(super) fn topics(self) -> BTreeMap<Arc<str>, Backlog> {
        self.topics
    }
}

/// Returns the sequences in one segment at which events of a topic with this cursor may wait. The first and the last of them
/// belong to the topic, unless the cursor or the end of the backlog is between two events of the topic.
pub(super) fn waiting_range(range: &TopicRange, cursor: u64, backlog_end: Option<u64>) -> Range<u64> {
    range.first.max(cursor)..backlog_end.unwrap_or(u64::MAX).min(range.last + 1)
}

/// Returns the total size of a topic's frames at these sequences in one segment, in bytes. Estimates the size from the sequences
/// if they are only a part of the segment's.
pub(super) fn waiting_bytes(range: &TopicRange, sequences: &Range<u64>) -> u64 {
    let (waiting, all) = (sequences.end.saturating_sub(sequences.start), range.last + 1 - range.first);
    (u128::from(range.bytes) * u128::from(waiting) / u128::from(all)) as u64
}
