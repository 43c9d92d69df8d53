//! Events of one topic that wait because their partition has no leader, while the events of the topic's other partitions are sent.
//!
//! librdkafka holds the records that it already has for such a partition, and sends them when the partition has a leader again. The
//! queue sends no further record to the partition: it leaves the partition's later events behind in the journal. The topic's cursor
//! stays at the first of all these events. When the partition has a leader again, the queue goes back to the cursor, and sends the
//! events that it has left behind, in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::partitioner::KeyHash;
use super::sent_record::SentRecord;
use crate::clock::UnixMillis;

/// Partitions of one topic that have no leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leaderless {
    /// Numbers of the partitions.
    partitions: BTreeSet<u32>,
    /// Number of all partitions of the topic; `None` if each of them has a leader.
    all: Option<NonZeroU32>,
}

impl Leaderless {
    /// Creates the set of these partitions of a topic that has `all` partitions.
    pub(super) fn new(partitions: BTreeSet<u32>, all: u32) -> Leaderless {
        let all = NonZeroU32::new(all).filter(|_| !partitions.is_empty());
        Leaderless { partitions, all }
    }

    /// Returns true if each partition has a leader.
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Returns the number of partitions without a leader.
    pub(super) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Returns true if the partition of this key has no leader.
    pub(super) fn contains(&self, key: KeyHash) -> bool {
        self.all.is_some_and(|all| self.partitions.contains(&key.partition(all)))
    }

    /// Returns true if each key whose partition is in `former` also has its partition in this set.
    fn extends(&self, former: &Leaderless) -> bool {
        former.is_empty() || (self.all == former.all && self.partitions.is_superset(&former.partitions))
    }

    /// Describes the partitions for the operator.
    pub(super) fn detail(&self) -> String {
        let named: Vec<String> = self.partitions.iter().take(MAX_NAMED).map(u32::to_string).collect();
        let more = match self.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let word = if self.len() == 1 { "partition" } else { "partitions" };
        format!("{word} {}{more}: expected a leader, found none", named.join(", "))
    }
}

/// Events of one topic that wait because their partition has no leader.
#[derive(Default)]
pub(super) struct LeftBehind {
    leaderless: Leaderless,
    /// Records without a delivery report, which librdkafka holds for these partitions.
    held: BTreeMap<u64, SentRecord>,
    held_bytes: usize,
    /// Sequence and arrival time of the first event that the queue has left behind since it last rewound.
    first: Option<(u64, UnixMillis)>,
    /// Number of events that the queue has left behind since it last rewound.
    events: usize,
}

impl LeftBehind {
    /// Returns the partitions without a leader.
    pub(super) fn leaderless(&self) -> &Leaderless {
        &self.leaderless
    }

    /// Replaces the partitions without a leader, and the records that librdkafka holds for them. Returns true if the queue must go
    /// back, because a partition may have a leader again.
    pub(super) fn replace(&mut self, leaderless: Leaderless, held: impl Iterator<Item = SentRecord>) -> bool {
        self.held = held.map(|record| (record.seq, record)).collect();
        self.held_bytes = self.held.values().map(|record| record.bytes).sum();
        let goes_back = !leaderless.extends(&self.leaderless);
        self.leaderless = leaderless;
        goes_back
    }

    /// Removes and returns all records that librdkafka holds.
    pub(super) fn take_all_held(&mut self) -> impl Iterator<Item = SentRecord> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held).into_values()
    }

    /// Removes and returns the record with sequence `seq`, which has got a delivery report; `None` if librdkafka does not hold it.
    pub(super) fn take_held(&mut self, seq: u64) -> Option<SentRecord> {
        let record = self.held.remove(&seq)?;
        self.held_bytes -= record.bytes;
        Some(record)
    }

    /// Returns true if librdkafka holds the record with sequence `seq`.
    pub(super) fn holds(&self, seq: u64) -> bool {
        self.held.contains_key(&seq)
    }

    /// Returns true if librdkafka holds more records than a topic may have in flight: several partitions have lost their leader one
    /// after the other. The record that exceeds the limit may have any size.
    pub(super) fn holds_more_than(&self, records: usize, bytes: usize) -> bool {
        let before_last = self.held_bytes - self.held.last_key_value().map_or(0, |(_, last)| last.bytes);
        self.held.len() > records || before_last >= bytes
    }

    /// Leaves an event behind.
    pub(super) fn leave(&mut self, seq: u64, received_at: UnixMillis) {
        self.events += 1;
        if self.first.is_none_or(|(first, _)| seq < first) {
            self.first = Some((seq, received_at));
        }
    }

    /// Forgets which events the queue has left behind, because it reads them again.
    pub(super) fn rewind(&mut self) {
        self.first = None;
        self.events = 0;
    }

    /// Forgets the held records below sequence `below`.
    pub(super) fn forget_below(&mut self, below: u64) {
        if self.held.first_key_value().is_some_and(|(first, _)| *first < below) {
            self.held = self.held.split_off(&below);
            self.held_bytes = self.held.values().map(|record| record.bytes).sum();
        }
    }

    /// Returns sequence and arrival time of the first event that waits; `None` if none waits.
    pub(super) fn first(&self) -> Option<(u64, UnixMillis)> {
        let held = self.held.values().next().map(|record| (record.seq, record.received_at));
        held.into_iter().chain(self.first).min_by_key(|(seq, _)| *seq)
    }

    /// Returns the number of events that wait.
    pub(super) fn len(&self) -> usize {
        self.held.len() + self.events
    }

    /// Returns true if librdkafka holds records.
    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }
}

/// Maximum number of partitions that a detail for the operator names.
const MAX_NAMED: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn leaderless(partitions: &[u32], all: u32) -> Leaderless {
        Leaderless::new(partitions.iter().copied().collect(), all)
    }

    #[test]
    fn only_the_keys_of_the_named_partitions_lack_a_leader() {
        let (some, all) = (leaderless(&[1, 3], 5), NonZeroU32::new(5).expect("not zero"));
        for key in 0..1000_u32 {
            let key = KeyHash::of(&key.to_le_bytes());
            assert_eq!(some.contains(key), [1, 3].contains(&key.partition(all)));
            assert!(!leaderless(&[], 5).contains(key));
        }
    }

    #[test]
    fn a_set_extends_another_only_if_no_key_gets_a_leader() {
        let former = leaderless(&[1], 3);
        assert!(leaderless(&[1], 3).extends(&former) && leaderless(&[0, 1], 3).extends(&former));
        assert!(!leaderless(&[0], 3).extends(&former) && !leaderless(&[], 3).extends(&former));
        assert!(!leaderless(&[1], 4).extends(&former), "the keys have other partitions now");
        assert!(leaderless(&[2], 3).extends(&Leaderless::default()));
        assert_eq!(leaderless(&[], 3), Leaderless::default());
    }

    #[test]
    fn the_detail_names_at_most_ten_partitions() {
        assert_eq!(leaderless(&[4], 6).detail(), "partition 4: expected a leader, found none");
        let many: Vec<u32> = (0..12).collect();
        let named = "partitions 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more: expected a leader, found none";
        assert_eq!(leaderless(&many, 100).detail(), named);
    }
}
