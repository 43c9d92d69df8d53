//! Computes the bytes that each topic pins. The journal cannot delete pinned bytes. A topic pins its own waiting frames. A
//! waiting frame also pins all acknowledged bytes of its segment, because the journal deletes only whole segments. These dead
//! bytes are charged to every topic that pins the segment. Otherwise, a topic with one event in each segment could pin the
//! whole journal with a tiny backlog.
//!
//! Bytes still needed by another topic are charged only to that topic. A segment without acknowledged bytes has no dead bytes,
//! so only `max_size` limits the journal while no topic is forwarded. The newest segment never has dead bytes, because the
//! journal cannot delete it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::segment_summary::{SegmentSummary, TopicRange};

/// Bytes that one topic pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Total size of the topic's frames at and above its cursor, in bytes.
    pub(super) waiting_bytes: u64,
    /// Number of bytes that no topic needs, in the segments that this topic pins.
    pub(super) dead_bytes: u64,
}

impl Backlog {
    /// Returns the number of bytes that the topic pins: the sum of its waiting bytes and its dead bytes.
    pub(super) fn pinned_bytes(self) -> u64 {
        self.waiting_bytes + self.dead_bytes
    }
}

/// Computes the backlogs of all topics from the summaries of all segments.
pub(super) struct Backlogs {
    cursors: BTreeMap<Arc<str>, u64>,
    forwards: bool,
    topics: BTreeMap<Arc<str>, Backlog>,
}

impl Backlogs {
    /// Creates an empty backlog for each topic with a cursor. If events are forwarded, all events of a topic without a cursor
    /// count as unacknowledged.
    pub(super) fn new(cursors: BTreeMap<Arc<str>, u64>, forwards: bool) -> Backlogs {
        let topics = cursors.keys().map(|topic| (topic.clone(), Backlog::default())).collect();
        Backlogs { cursors, forwards, topics }
    }

    /// Adds the bytes of one segment, whose file has `size` bytes, to the backlogs.
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

/// Returns the size in bytes of a topic's events at and above its cursor, in one segment. If the cursor points into the middle
/// of the segment, estimates the size from the sequences.
pub(super) fn waiting_bytes(range: &TopicRange, cursor: u64) -> u64 {
    let (left, all) = ((range.last + 1).saturating_sub(cursor.max(range.first)), range.last + 1 - range.first);
    (u128::from(range.bytes) * u128::from(left) / u128::from(all)) as u64
}
