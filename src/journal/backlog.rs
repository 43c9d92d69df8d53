//! Computes the backlog of each topic, and the share of the journal that a backlog may use. A topic's backlog consists of its
//! waiting frames: the frames of its events that Kafka has not acknowledged.
//!
//! If the journal needs space, it deletes the frames that no topic needs, and copies the waiting frames of the same segment. So a
//! topic pins only its own waiting frames, and a blocked topic takes no space from another topic, as long as all backlogs
//! together leave some space. All backlogs together may therefore use three quarters of `max_size`, and the topics that are
//! behind share this space equally.
//!
//! A rewritten segment has a header and lists, and stays open. So a topic with few events in each of many segments would use up the
//! space for files, although its own bytes would never reach a limit. For its share, each segment with waiting frames of a topic
//! therefore counts [`SEGMENT_OVERHEAD`] bytes, and the waiting frames of all topics in one segment together count as at least
//! [`min_pinned`] bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::segment_summary::{SegmentSummary, TopicRange};
use crate::limits::JournalLimits;

/// Backlog of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Total size of the waiting frames in bytes.
    pub(super) waiting_bytes: u64,
    /// Number of bytes that count in addition, because the topic has waiting frames in several segments.
    pub(super) overhead_bytes: u64,
}

/// The events that wait for a topic: those at and above its cursor, and below the end of the backlog.
pub(super) struct WaitingEvents {
    pub(super) cursors: BTreeMap<Arc<str>, u64>,
    /// True if all events of a topic without a cursor wait. False if none of them waits.
    pub(super) forwards: bool,
    /// Sequence from which on no event waits for a topic; `None` if the journal forwards events.
    pub(super) backlog_end: Option<u64>,
}

impl WaitingEvents {
    /// Returns the sequences in one segment at which events of the topic may wait. The range is empty if no event waits.
    pub(super) fn sequences(&self, range: &TopicRange) -> Range<u64> {
        let cursor = self.cursors.get(&range.topic).copied().or(self.forwards.then_some(0));
        cursor.map_or(0..0, |cursor| waiting_range(range, cursor, self.backlog_end))
    }

    /// Returns true if an event of `topic` with this sequence waits.
    pub(super) fn contains(&self, topic: &str, seq: u64) -> bool {
        let waits = |cursor: &u64| seq >= *cursor && self.backlog_end.is_none_or(|end| seq < end);
        self.cursors.get(topic).map_or(self.forwards, waits)
    }

    /// Returns the total size of the waiting frames in one segment, in bytes.
    pub(super) fn bytes(&self, summary: &SegmentSummary) -> u64 {
        summary.topics.iter().map(|range| waiting_bytes(range, &self.sequences(range))).sum()
    }
}

/// Backlogs of all topics, computed from the summaries of all segments.
pub(super) struct Backlogs {
    waiting: WaitingEvents,
    /// Number of bytes as which the waiting frames in one segment count at least.
    min_pinned: u64,
    topics: BTreeMap<Arc<str>, Backlog>,
}

impl Backlogs {
    /// Creates an empty backlog for each topic with a cursor. The waiting frames in one segment count as at least `min_pinned` bytes.
    pub(super) fn new(waiting: WaitingEvents, min_pinned: u64) -> Backlogs {
        let topics = waiting.cursors.keys().map(|topic| (topic.clone(), Backlog::default())).collect();
        Backlogs { waiting, min_pinned, topics }
    }

    /// Adds the waiting frames of one segment. The newest segment exists anyway, so its frames count as they are.
    pub(super) fn add(&mut self, summary: &SegmentSummary, is_newest: bool) {
        let sequences = summary.topics.iter().map(|range| (range, self.waiting.sequences(range)));
        let waiting: Vec<_> = sequences.filter(|(_, sequences)| !sequences.is_empty()).collect();
        // All of these topics pin the same file.
        let min_pinned = self.min_pinned / (waiting.len() as u64).max(1);
        for (range, sequences) in waiting {
            let backlog = self.topics.entry(range.topic.clone()).or_default();
            let waiting = waiting_bytes(range, &sequences);
            backlog.waiting_bytes += waiting;
            let overhead = min_pinned.saturating_sub(waiting).max(SEGMENT_OVERHEAD);
            backlog.overhead_bytes += if is_newest { 0 } else { overhead };
        }
    }

    /// Returns the backlog of each topic.
    pub(super) fn topics(self) -> BTreeMap<Arc<str>, Backlog> {
        self.topics
    }
}

/// The space that backlogs may use, as of the last count of all backlogs.
#[derive(Clone, Copy, Debug)]
pub(super) struct BacklogShares {
    /// Maximum number of waiting bytes of one topic.
    max_backlog: u64,
    /// Maximum backlog of one topic in bytes.
    share: u64,
    /// Backlog in bytes from which a topic is behind.
    behind_from: u64,
    /// Number of bytes that all backlogs together may use.
    all: u64,
    /// Number of bytes that all backlogs together may still grow.
    left: u64,
}

impl Default for BacklogShares {
    fn default() -> BacklogShares {
        BacklogShares { max_backlog: u64::MAX, share: u64::MAX, behind_from: u64::MAX, all: u64::MAX, left: u64::MAX }
    }
}

impl BacklogShares {
    /// Computes the shares of these backlogs.
    pub(super) fn new(backlogs: impl Iterator<Item = u64>, limits: &JournalLimits) -> BacklogShares {
        let (all, behind_from) = (all_backlogs(limits), limits.max_size / BEHIND_PART);
        let (mut used, mut behind) = (0, 0);
        for backlog in backlogs {
            used += backlog;
            behind += u64::from(backlog >= behind_from);
        }
        let (share, left) = (all / behind.max(1), all.saturating_sub(used));
        BacklogShares { max_backlog: limits.max_backlog, share, behind_from, all, left }
    }

    /// Returns the part of its limit that a topic has used: the largest part of the limits that [`BacklogShares::has_room`] checks.
    pub(super) fn used(&self, backlog: &Backlog) -> f64 {
        let part = |bytes: u64, limit: u64| bytes as f64 / limit.max(1) as f64;
        let bytes = backlog.waiting_bytes.saturating_add(backlog.overhead_bytes);
        let of_all = if bytes < self.behind_from { 0.0 } else { part(self.all - self.left, self.all) };
        part(backlog.waiting_bytes, self.max_backlog).max(part(bytes, self.share)).max(of_all)
    }

    /// Returns true if a topic may have `waiting` waiting bytes, of which `added` are new. `overhead` bytes count in addition, but
    /// not for `max_backlog`.
    pub(super) fn has_room(&self, waiting: u64, overhead: u64, added: u64) -> bool {
        let backlog = waiting.saturating_add(overhead);
        let is_within_share = backlog <= self.share && (backlog < self.behind_from || added <= self.left);
        // Whatever its share is, a topic without a backlog may store an event.
        waiting <= self.max_backlog && (is_within_share || backlog == added)
    }

    /// Returns the maximum backlog of one topic in bytes.
    pub(super) fn limit(&self) -> u64 {
        self.share.min(self.max_backlog)
    }

    /// Notes that the backlogs have grown by `added` bytes.
    pub(super) fn grow(&mut self, added: u64) {
        self.left = self.left.saturating_sub(added);
    }
}

/// Returns the number of bytes that all backlogs together may use: three quarters of `max_size`, but the space for three segments
/// must remain, in which the journal writes and rewrites.
pub(super) fn all_backlogs(limits: &JournalLimits) -> u64 {
    let most = limits.max_size - limits.max_size / 4;
    most.min(limits.max_size.saturating_sub(3 * limits.segment_size)).max(limits.segment_size)
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

/// Returns the number of bytes as which the waiting frames in one segment count at least.
pub(super) fn min_pinned(limits: &JournalLimits) -> u64 {
    limits.max_size / MAX_PINNED_SEGMENTS
}

/// Maximum number of segments that backlogs can pin. Each of them is an open file.
pub const MAX_PINNED_SEGMENTS: u64 = 1_024;
/// Usual size of a rewritten segment without its events in bytes, rounded up.
const SEGMENT_OVERHEAD: u64 = 8 << 10;
/// A topic is behind if its backlog takes at least this part of `max_size`.
const BEHIND_PART: u64 = 64;
