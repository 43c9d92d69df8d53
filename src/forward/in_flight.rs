//! Tracks the records of one topic from the topic's cursor to the newest sent record. The cursor moves only past
//! acknowledged records.
//!
//! The in-flight limit of a topic bounds memory use and the number of duplicates after a crash. After a crash, hookhold sends
//! again at most the records in flight and the records that Kafka has acknowledged since hookhold last saved the cursor.

use std::collections::{BTreeSet, VecDeque};

use crate::clock::UnixMillis;

/// Records in flight of one topic, sorted by sequence.
#[derive(Default)]
pub(super) struct InFlight {
    records: VecDeque<InFlightRecord>,
    bytes: usize,
    unreported: usize,
    /// Sequences of the records above the cursor that Kafka acknowledged before a rewind. The queue must not send these records
    /// again.
    acked_ahead: BTreeSet<u64>,
}

struct InFlightRecord {
    seq: u64,
    bytes: usize,
    received_at: UnixMillis,
    state: RecordState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RecordState {
    Unreported,
    Acked,
    Failed,
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

    /// Returns the total size of the records in flight in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of records in flight, including those with a delivery report after the first unacknowledged record.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns the total size of the records in flight in bytes, and the sequence of the last one; `None` if no record is in
    /// flight.
    pub(super) fn extent(&self) -> Option<(usize, u64)> {
        self.records.back().map(|last| (self.bytes, last.seq))
    }

    /// Returns true if no record is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the number of records without a delivery report.
    pub(super) fn unreported(&self) -> usize {
        self.unreported
    }

    /// Returns the number of unacknowledged records.
    pub(super) fn unacknowledged(&self) -> usize {
        self.records.iter().filter(|record| record.state != RecordState::Acked).count()
    }

    /// Adds the record of the event with sequence `seq`. Returns false if Kafka acknowledged this record before a rewind. The
    /// queue must not send such a record again.
    pub(super) fn insert(&mut self, seq: u64, bytes: usize, received_at: UnixMillis) -> bool {
        let acked = self.acked_ahead.remove(&seq);
        let state = if acked { RecordState::Acked } else { RecordState::Unreported };
        self.records.push_back(InFlightRecord { seq, bytes, received_at, state });
        self.bytes += bytes;
        self.unreported += usize::from(!acked);
        self.drop_finished();
        !acked
    }

    /// Marks the record with sequence `seq` as acknowledged, and returns its size in bytes. Returns `None` if this record is not in
    /// flight or already has a report.
    pub(super) fn acknowledge(&mut self, seq: u64) -> Option<usize> {
        let bytes = self.report(seq, RecordState::Acked);
        self.drop_finished();
        bytes
    }

    /// Forgets the acknowledgements of events below sequence `below`, which the queue will not send again.
    pub(super) fn forget_below(&mut self, below: u64) {
        self.acked_ahead = self.acked_ahead.split_off(&below);
    }

    /// Marks the record with sequence `seq` as failed. The record stays in flight until a rewind.
    pub(super) fn fail(&mut self, seq: u64) {
        self.report(seq, RecordState::Failed);
    }

    /// Clears all records and remembers the sequences of the acknowledged records, so that the queue sends only the other
    /// records again. Returns the lowest unacknowledged sequence; `None` if no record was in flight.
    pub(super) fn rewind(&mut self) -> Option<u64> {
        let cursor = self.cursor();
        let acked = self.records.iter().filter(|record| record.state == RecordState::Acked);
        self.acked_ahead.extend(acked.map(|record| record.seq));
        self.records.clear();
        self.bytes = 0;
        self.unreported = 0;
        cursor
    }

    /// Returns the lowest unacknowledged sequence; `None` if no record is in flight.
    pub(super) fn cursor(&self) -> Option<u64> {
        self.records.front().map(|record| record.seq)
    }

    /// Returns the arrival time of the oldest unacknowledged event in flight; `None` if no record is in flight.
    pub(super) fn oldest(&self) -> Option<UnixMillis> {
        self.records.front().map(|record| record.received_at)
    }

    /// Sets the state of a record without a report, and returns its size in bytes.
    fn report(&mut self, seq: u64, state: RecordState) -> Option<usize> {
        let index = self.records.binary_search_by_key(&seq, |record| record.seq).ok()?;
        let record = self.records.get_mut(index).filter(|record| record.state == RecordState::Unreported)?;
        record.state = state;
        self.unreported -= 1;
        Some(record.bytes)
    }

    fn drop_finished(&mut self) {
        while let Some(first) = self.records.front().filter(|record| record.state == RecordState::Acked) {
            self.bytes -= first.bytes;
            self.records.pop_front();
        }
    }
}

/// In-flight limit of one topic: the total limit divided by the number of topics, but at least a minimum and at most a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlightLimit {
    records: usize,
    pub(super) bytes: usize,
}

impl InFlightLimit {
    /// Returns the in-flight limit of each topic if hookhold forwards to `topics` topics.
    pub(super) fn each_of(topics: usize) -> InFlightLimit {
        let part = |all: usize, (least, most): (usize, usize)| (all / topics.max(1)).clamp(least, most);
        InFlightLimit { records: part(ALL_RECORDS, TOPIC_RECORDS), bytes: part(ALL_BYTES, TOPIC_BYTES) }
    }

    /// Returns this limit with at most `bytes` bytes.
    pub(super) fn at_most(self, bytes: usize) -> InFlightLimit {
        InFlightLimit { bytes: self.bytes.min(bytes), ..self }
    }
}

/// Total number of records that hookhold divides among the in-flight limits of the topics. With many topics, the sum of the
/// limits may exceed this total, because no limit is below the minimum in [`TOPIC_RECORDS`].
const ALL_RECORDS: usize = 80_000;
/// Total number of bytes (bodies, keys and headers) that hookhold divides among the in-flight limits of the topics. With many
/// topics, the sum of their limits may exceed this total, because no limit is below the minimum in [`TOPIC_BYTES`]. The records in
/// flight of all topics together exceed it only by one record of each topic.
pub(super) const ALL_BYTES: usize = 128 << 20;
/// Lowest and highest in-flight limit of one topic, in records.
const TOPIC_RECORDS: (usize, usize) = (20, 10_000);
/// Lowest and highest in-flight limit of one topic, in bytes. hookhold sends a record of any size while the records in flight
/// are below this limit, so the total size may exceed the limit by up to one record.
const TOPIC_BYTES: (usize, usize) = (64 << 10, 16 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight(seqs: &[u64]) -> InFlight {
        let mut in_flight = InFlight::default();
        for seq in seqs {
            assert!(in_flight.insert(*seq, 10, UnixMillis(*seq)));
        }
        in_flight
    }

    #[test]
    fn the_cursor_passes_only_acknowledged_events() {
        let mut in_flight = in_flight(&[3, 5, 9]);
        in_flight.acknowledge(5);
        assert_eq!(in_flight.cursor(), Some(3), "only 5 is acknowledged");
        in_flight.acknowledge(3);
        assert_eq!(in_flight.cursor(), Some(9));
        in_flight.fail(9);
        assert_eq!((in_flight.cursor(), in_flight.unreported()), (Some(9), 0), "a failure does not move the cursor");
    }

    #[test]
    fn a_rewind_resends_only_unacknowledged_events() {
        let mut in_flight = in_flight(&[3, 5, 9]);
        in_flight.acknowledge(5);
        in_flight.fail(3);
        in_flight.fail(9);
        assert_eq!(in_flight.rewind(), Some(3));
        assert!(in_flight.insert(3, 10, UnixMillis(3)));
        assert!(!in_flight.insert(5, 10, UnixMillis(5)), "5 was acknowledged before the rewind");
        assert!(in_flight.insert(9, 10, UnixMillis(9)));
        in_flight.acknowledge(3);
        assert_eq!(in_flight.cursor(), Some(9));
    }

    #[test]
    fn a_second_report_of_a_record_is_ignored() {
        let mut in_flight = in_flight(&[1, 2]);
        in_flight.fail(1);
        in_flight.fail(1);
        in_flight.acknowledge(7);
        assert_eq!(in_flight.unreported(), 1);
    }

    #[test]
    fn a_single_record_of_any_size_fits_the_limit() {
        let limit = InFlightLimit::each_of(1);
        let mut in_flight = InFlight::default();
        assert!(in_flight.has_room(limit));
        in_flight.insert(0, 100 << 20, UnixMillis(0));
        assert!(!in_flight.has_room(limit));
        in_flight.acknowledge(0);
        assert!(in_flight.has_room(limit) && in_flight.is_half_empty(limit));
    }

    #[test]
    fn many_topics_share_the_memory_for_records() {
        assert_eq!(InFlightLimit::each_of(1), InFlightLimit::each_of(8));
        assert!(InFlightLimit::each_of(100).bytes < InFlightLimit::each_of(8).bytes);
        assert_eq!(InFlightLimit::each_of(100_000), InFlightLimit { records: TOPIC_RECORDS.0, bytes: TOPIC_BYTES.0 });
    }
}
