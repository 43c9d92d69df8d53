//! Tracks the records of one topic from the topic's cursor to the newest sent record. The cursor moves only past
//! acknowledged records.
//!
//! The in-flight limit of a topic bounds memory use and the number of duplicates after a crash. After a crash, hookhold sends
//! again at most the records in flight and the records that Kafka has acknowledged since hookhold last saved the cursor. If events
//! wait for a partition without a leader, Kafka may also have acknowledged later events of other partitions, whose number has a limit.

#[cfg(test)]
mod simulated_topic;

use std::collections::VecDeque;

use super::done_ahead::DoneAhead;
use super::in_flight_limit::InFlightLimit;
use super::left_behind::{Leaderless, LeftBehind};
use super::partitioner::KeyHash;
use super::sent_record::{RecordState, SentRecord};
use crate::clock::UnixMillis;

/// Records in flight of one topic, sorted by sequence, and events that wait for a partition without a leader.
#[derive(Default)]
pub(super) struct InFlight {
    /// Records in flight to partitions that have a leader, as far as hookhold knows.
    records: VecDeque<SentRecord>,
    bytes: usize,
    unreported: usize,
    left_behind: LeftBehind,
    /// Events above the cursor that the queue must not send again. Does not contain those in `records`.
    done_ahead: DoneAhead,
}

impl InFlight {
    /// Returns true if the records in flight are below the limit. The next record may then have any size.
    pub(super) fn has_room(&self, limit: InFlightLimit) -> bool {
        self.records.len() < limit.records && self.bytes < limit.bytes
    }

    /// Returns true if the records in flight use at most half of the limit. In this case, Kafka keeps up with the topic.
    pub(super) fn is_half_empty(&self, limit: InFlightLimit) -> bool {
        self.records.len() <= limit.records / 2 && self.bytes <= limit.bytes / 2
    }

    /// Returns true if the queue must not send more records while events wait for a partition without a leader: too many later events
    /// are acknowledged, which hookhold sends again after a crash, or librdkafka holds too many records.
    pub(super) fn is_too_far_ahead(&self, limit: InFlightLimit) -> bool {
        let is_full = self.done_ahead.len() >= limit.ahead || self.left_behind.holds_more_than(limit.records, limit.bytes);
        is_full && !self.leaderless().is_empty()
    }

    /// Returns the number of events above the cursor that the queue must not send again.
    pub(super) fn done_ahead(&self) -> u64 {
        self.done_ahead.len()
    }

    /// Returns the total size of the records in flight in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the total size of the records in flight in bytes, and the sequence of the last one; `None` if no record is in
    /// flight.
    pub(super) fn extent(&self) -> Option<(usize, u64)> {
        self.records.back().map(|last| (self.bytes, last.seq))
    }

    /// Returns true if no record is in flight to a partition that has a leader.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns true if librdkafka may hold a record.
    pub(super) fn has_records(&self) -> bool {
        !self.records.is_empty() || self.left_behind.has_held()
    }

    /// Returns the number of records without a delivery report, apart from those that wait for a partition without a leader.
    pub(super) fn unreported(&self) -> usize {
        self.unreported
    }

    /// Returns the number of events that the queue has taken and Kafka has not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.records.iter().filter(|record| record.state != RecordState::Acked).count() + self.left_behind.len()
    }

    /// Adds the record of the event with sequence `seq`. Returns false if the queue must not send this record again: it was done before
    /// a rewind, or librdkafka still holds it.
    pub(super) fn insert(&mut self, seq: u64, key: KeyHash, bytes: usize, received_at: UnixMillis) -> bool {
        if self.is_sent(seq) {
            return false;
        }
        self.records.push_back(SentRecord { seq, key, bytes, received_at, state: RecordState::Unreported });
        self.bytes += bytes;
        self.unreported += 1;
        true
    }

    /// Leaves the event with sequence `seq` behind, because its partition has no leader. Does nothing if the queue must not send its
    /// record again.
    pub(super) fn leave_behind(&mut self, seq: u64, received_at: UnixMillis) {
        if !self.is_sent(seq) {
            self.left_behind.leave(seq, received_at);
        }
    }

    fn is_sent(&self, seq: u64) -> bool {
        self.done_ahead.contains(seq) || self.left_behind.holds(seq)
    }

    /// Marks the record with sequence `seq` as acknowledged, and returns its size in bytes. Returns `None` if this record is not in
    /// flight or already has a report. `next` is the sequence from which the queue reads its next event.
    pub(super) fn acknowledge(&mut self, seq: u64, next: u64) -> Option<usize> {
        let Some(held) = self.left_behind.take_held(seq) else {
            let bytes = self.report(seq, RecordState::Acked);
            self.drop_finished(next);
            return bytes;
        };
        self.finish(seq, next);
        Some(held.bytes)
    }

    /// Notes that the queue must not send the event with sequence `seq` again, because hookhold has parked it. Must follow a rewind.
    pub(super) fn pass_parked(&mut self, seq: u64) {
        self.done_ahead.insert(seq);
    }

    /// Forgets everything about the events below sequence `below`, which the queue will not send again.
    pub(super) fn forget_below(&mut self, below: u64) {
        self.done_ahead.forget_below(below);
        self.left_behind.forget_below(below);
    }

    /// Marks the record with sequence `seq` as failed. The record stays in flight until a rewind.
    pub(super) fn fail(&mut self, seq: u64) {
        match self.left_behind.take_held(seq) {
            Some(held) => self.left_behind.leave(seq, held.received_at),
            None => drop(self.report(seq, RecordState::Failed)),
        }
    }

    /// Returns true if librdkafka holds the record with sequence `seq` for a partition without a leader.
    pub(super) fn holds(&self, seq: u64) -> bool {
        self.left_behind.holds(seq)
    }

    /// Returns true if the record with sequence `seq` is the only one in flight to a partition that has a leader.
    pub(super) fn is_alone(&self, seq: u64) -> bool {
        self.records.len() == 1 && self.records[0].seq == seq
    }

    /// Clears all records and events, but remembers those that the queue must not send again, because they are done or because
    /// librdkafka holds their records for a partition without a leader. Returns the lowest unacknowledged sequence; `None` if there is
    /// none.
    pub(super) fn rewind(&mut self) -> Option<u64> {
        let cursor = self.cursor();
        for record in self.records.drain(..).filter(|record| record.state == RecordState::Acked) {
            self.done_ahead.insert(record.seq);
        }
        self.bytes = 0;
        self.unreported = 0;
        self.left_behind.rewind();
        cursor
    }

    /// Forgets which partitions have no leader, and the records that librdkafka holds for them. Must follow a rewind.
    pub(super) fn forget_leaderless(&mut self) {
        self.left_behind = LeftBehind::default();
    }

    /// Returns the partitions without a leader.
    pub(super) fn leaderless(&self) -> &Leaderless {
        self.left_behind.leaderless()
    }

    /// Replaces the partitions without a leader. Returns true if a partition may have a leader again: the queue must then rewind as soon
    /// as all records in flight have a report. `next` is the sequence from which the queue reads its next event.
    pub(super) fn set_leaderless(&mut self, leaderless: Leaderless, next: u64) -> bool {
        let mut records: Vec<_> = self.records.drain(..).chain(self.left_behind.take_all_held()).collect();
        records.sort_unstable_by_key(|record| record.seq);
        let waits = |record: &SentRecord| record.state == RecordState::Unreported && leaderless.contains(record.key);
        let (held, records): (Vec<_>, Vec<_>) = records.into_iter().partition(waits);
        self.bytes = records.iter().map(|record| record.bytes).sum();
        self.unreported = records.iter().filter(|record| record.state == RecordState::Unreported).count();
        self.records = records.into();
        let goes_back = self.left_behind.replace(leaderless, held.into_iter());
        self.drop_finished(next);
        goes_back
    }

    /// Returns the lowest unacknowledged sequence that the queue has taken; `None` if there is none.
    pub(super) fn cursor(&self) -> Option<u64> {
        self.first().map(|(seq, _)| seq)
    }

    /// Returns the sequence of the first record in flight to a partition that has a leader; `None` if there is none.
    pub(super) fn first_in_flight(&self) -> Option<u64> {
        self.records.front().map(|record| record.seq)
    }

    /// Returns the arrival time of the oldest unacknowledged event that the queue has taken; `None` if there is none.
    pub(super) fn oldest(&self) -> Option<UnixMillis> {
        self.first().map(|(_, received_at)| received_at)
    }

    fn first(&self) -> Option<(u64, UnixMillis)> {
        let in_flight = self.records.front().map(|record| (record.seq, record.received_at));
        in_flight.into_iter().chain(self.left_behind.first()).min_by_key(|(seq, _)| *seq)
    }

    /// Sets the state of a record without a report, and returns its size in bytes.
    fn report(&mut self, seq: u64, state: RecordState) -> Option<usize> {
        let index = self.records.binary_search_by_key(&seq, |record| record.seq).ok()?;
        let record = self.records.get_mut(index).filter(|record| record.state == RecordState::Unreported)?;
        record.state = state;
        self.unreported -= 1;
        Some(record.bytes)
    }

    fn drop_finished(&mut self, next: u64) {
        while let Some(first) = self.records.pop_front_if(|record| record.state == RecordState::Acked) {
            self.bytes -= first.bytes;
            self.finish(first.seq, next);
        }
    }

    /// Remembers that an event is done if the queue may read it again: the cursor has not passed it, or the queue has rewound below
    /// it.
    fn finish(&mut self, seq: u64, next: u64) {
        if seq >= next || self.cursor().is_some_and(|cursor| cursor < seq) {
            self.done_ahead.insert(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::simulated_topic::{key_of, leaderless};
    use super::*;

    /// Adds the record of an event. The partition of an event is the remainder of its sequence divided by four.
    fn insert(in_flight: &mut InFlight, seq: u64) -> bool {
        in_flight.insert(seq, key_of(seq % 4), 10, UnixMillis(seq))
    }

    fn in_flight(seqs: &[u64]) -> InFlight {
        let mut in_flight = InFlight::default();
        for seq in seqs {
            assert!(insert(&mut in_flight, *seq));
        }
        in_flight
    }

    #[test]
    fn the_cursor_passes_only_acknowledged_events() {
        let mut in_flight = in_flight(&[3, 5, 9]);
        in_flight.acknowledge(5, 10);
        assert_eq!(in_flight.cursor(), Some(3), "only 5 is acknowledged");
        in_flight.acknowledge(3, 10);
        assert_eq!(in_flight.cursor(), Some(9));
        in_flight.fail(9);
        assert_eq!((in_flight.cursor(), in_flight.unreported()), (Some(9), 0), "a failure does not move the cursor");
    }

    #[test]
    fn a_rewind_resends_only_unacknowledged_events() {
        let mut in_flight = in_flight(&[3, 5, 9]);
        in_flight.acknowledge(5, 10);
        in_flight.fail(3);
        in_flight.fail(9);
        assert_eq!(in_flight.rewind(), Some(3));
        assert!(insert(&mut in_flight, 3));
        assert!(!insert(&mut in_flight, 5), "5 was acknowledged before the rewind");
        assert!(insert(&mut in_flight, 9));
        in_flight.acknowledge(3, 10);
        assert_eq!(in_flight.cursor(), Some(9));
    }

    #[test]
    fn a_second_report_of_a_record_is_ignored() {
        let mut in_flight = in_flight(&[1, 2]);
        in_flight.fail(1);
        in_flight.fail(1);
        in_flight.acknowledge(7, 3);
        assert_eq!(in_flight.unreported(), 1);
    }

    #[test]
    fn a_single_record_of_any_size_fits_the_limit() {
        let limit = InFlightLimit::each_of(1);
        let mut in_flight = InFlight::default();
        assert!(in_flight.has_room(limit));
        in_flight.insert(0, key_of(1), 100 << 20, UnixMillis(0));
        assert!(!in_flight.has_room(limit));
        in_flight.set_leaderless(leaderless([1]), 1);
        assert!(!in_flight.is_too_far_ahead(limit), "the partition has lost its leader, and the others may continue");
        in_flight.acknowledge(0, 1);
        assert!(in_flight.has_room(limit) && in_flight.is_half_empty(limit));
    }

    #[test]
    fn events_without_a_leader_use_no_room_and_hold_the_cursor() {
        let limit = InFlightLimit { records: 3, bytes: 1000, ahead: 3 };
        let mut in_flight = in_flight(&[0, 1, 2, 5]);
        in_flight.acknowledge(5, 6);
        assert!(!in_flight.has_room(limit));
        assert!(!in_flight.set_leaderless(leaderless([1]), 6), "no partition has a leader again");
        assert_eq!((in_flight.unreported(), in_flight.unacknowledged()), (2, 3), "5 is acknowledged");
        in_flight.acknowledge(0, 6);
        in_flight.acknowledge(2, 6);
        assert!(in_flight.has_room(limit));
        in_flight.leave_behind(9, UnixMillis(9));
        assert_eq!((in_flight.cursor(), in_flight.oldest(), in_flight.unacknowledged()), (Some(1), Some(UnixMillis(1)), 2));
        assert!(!in_flight.is_too_far_ahead(limit));
        insert(&mut in_flight, 10);
        in_flight.acknowledge(10, 11);
        assert!(in_flight.is_too_far_ahead(limit), "a crash would cause too many duplicates");
        assert!(in_flight.acknowledge(1, 11).is_some(), "librdkafka has found a leader");
        assert_eq!(in_flight.cursor(), Some(9));
        in_flight.forget_below(9);
        assert_eq!((in_flight.done_ahead(), in_flight.is_too_far_ahead(limit)), (1, false));
    }

    #[test]
    fn librdkafka_holds_at_most_twice_the_limit() {
        let limit = InFlightLimit { records: 2, bytes: 1000, ahead: 100 };
        let mut in_flight = in_flight(&[1, 5]);
        in_flight.set_leaderless(leaderless([1]), 6);
        assert!(in_flight.has_room(limit) && !in_flight.is_too_far_ahead(limit));
        insert(&mut in_flight, 6);
        in_flight.set_leaderless(leaderless([1, 2]), 7);
        assert!(in_flight.has_room(limit) && in_flight.is_too_far_ahead(limit));
    }
}
