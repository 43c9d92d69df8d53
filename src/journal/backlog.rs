//! Computes the bytes that each topic pins, so that they cannot be deleted: its own waiting frames, and the acknowledged bytes
//! in the same segments. A segment is deleted as a whole, so one waiting frame pins all acknowledged bytes of its segment. These
//! dead bytes count for every topic that pins the segment. Otherwise a topic with one event in each segment could pin the whole
//! journal with a tiny backlog.
//!
//! Bytes that another topic waits for count for that topic only. A segment without acknowledged bytes has no dead bytes, so only
//! `max_size` limits the journal while no topic is forwarded. The newest segment has no dead bytes, because it is never deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::segment_summary::{SegmentSummary, TopicRange};

/// Bytes that one topic pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Frames of the topic at and above its cursor.
    pub(super) waiting_bytes: u64,
    /// Bytes that no topic waits for, in segments that this topic pins.
    pub(super) dead_bytes: u64,
}

impl Backlog {
    /// Returns the bytes that an empty backlog would free.
    pub(super) fn pinned_bytes(self) -> u64 {
        self.waiting_bytes + self.dead_bytes
    }
}

/// Adds up the backlogs of all topics, segment by segment.
pub(super) struct Backlogs {
    cursors: BTreeMap<Arc<str>, u64>,
    forwards: bool,
    topics: BTreeMap<Arc<str>, Backlog>,
}

impl Backlogs {
    /// Creates empty backlogs. If events are forwarded, a topic without a cursor has acknowledged nothing.
    pub(super) fn new(cursors: BTreeMap<Arc<str>, u64>, forwards: bool) -> Backlogs {
        let topics = cursors.keys().map(|topic| (topic.clone(), Backlog::default())).collect();
        Backlogs { cursors, forwards, topics }
    }

    /// Adds one segment that occupies `size` bytes.
    pub(super) fn add(&mut self, summary: &SegmentSummary, size: u64, is_newest: bool) {
        let default = self.forwards.then_some(0);
        let pinning = summary.topics.iter().filter_map(|range| {
            let cursor = self.cursors.get(&range.topic).copied().or(default)?;
            (cursor <= range.last).then_some((&range.topic, waiting_bytes(range, cursor)))
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

/// Returns the bytes of a range at and above the cursor. For a cursor inside the range, estimates them from the sequences.
pub(super) fn waiting_bytes(range: &TopicRange, cursor: u64) -> u64 {
    let (left, all) = ((range.last + 1).saturating_sub(cursor.max(range.first)), range.last + 1 - range.first);
    (u128::from(range.bytes) * u128::from(left) / u128::from(all)) as u64
}
