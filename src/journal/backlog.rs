//! What each lane keeps from being deleted: its own frames that wait, and what lies with them. A segment is deleted as a whole,
//! so one waiting frame holds back everything in it that is passed on already. That dead weight counts for every lane that holds
//! the segment: a topic with an event in each segment would else pin the whole journal with a backlog of next to nothing.
//!
//! What others wait for is theirs, and a segment of which nothing is passed on yet has no dead weight: an outage of everything
//! is bounded by `max_size` alone. Nor has the newest, which nobody could delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::segment_summary::{SegmentSummary, TopicRange};

/// What one lane holds back, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Its frames at and above its cursor.
    pub waiting: u64,
    /// What nobody waits for, in segments that it holds.
    pub idle: u64,
}

impl Backlog {
    /// What would be free if the lane were empty.
    pub fn pinned(self) -> u64 {
        self.waiting + self.idle
    }
}

/// Adds up the backlogs of all lanes, segment by segment.
pub struct Backlogs {
    cursors: BTreeMap<Arc<str>, u64>,
    all: bool,
    lanes: BTreeMap<Arc<str>, Backlog>,
}

impl Backlogs {
    /// Nothing yet, for lanes with these cursors; with `all`, lanes without one have passed nothing.
    pub fn new(cursors: BTreeMap<Arc<str>, u64>, all: bool) -> Backlogs {
        let lanes = cursors.keys().map(|lane| (lane.clone(), Backlog::default())).collect();
        Backlogs { cursors, all, lanes }
    }

    /// Adds one segment that occupies `size` bytes.
    pub fn add(&mut self, table: &SegmentSummary, size: u64, is_newest: bool) {
        let default = self.all.then_some(0);
        let holders = table.lanes.iter().filter_map(|range| {
            let cursor = self.cursors.get(&range.lane).copied().or(default)?;
            (cursor <= range.last).then_some((&range.lane, waiting(range, cursor)))
        });
        let holders: Vec<_> = holders.collect();
        let wanted: u64 = holders.iter().map(|(_, bytes)| bytes).sum();
        let all: u64 = table.lanes.iter().map(|range| range.bytes).sum();
        let idle = if is_newest || wanted == all { 0 } else { size.saturating_sub(wanted) };
        for (lane, bytes) in holders {
            let backlog = self.lanes.entry(lane.clone()).or_default();
            backlog.waiting += bytes;
            backlog.idle += idle;
        }
    }

    /// Every lane's backlog.
    pub fn lanes(self) -> BTreeMap<Arc<str>, Backlog> {
        self.lanes
    }
}

/// Bytes of a lane's share at and above the cursor; inside a segment in proportion to the sequences.
pub fn waiting(range: &TopicRange, cursor: u64) -> u64 {
    let (left, all) = ((range.last + 1).saturating_sub(cursor.max(range.first)), range.last + 1 - range.first);
    (u128::from(range.bytes) * u128::from(left) / u128::from(all)) as u64
}
