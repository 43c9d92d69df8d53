//! Limits the records in flight of one topic.

/// In-flight limit of one topic: the total limit divided by the number of topics, but at least a minimum and at most a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlightLimit {
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// Maximum number of events above the cursor that may be acknowledged while events wait for a partition without a leader, apart
    /// from the records in flight.
    pub(super) ahead: u64,
}

impl InFlightLimit {
    /// Returns the in-flight limit of each topic if hookhold forwards to `topics` topics.
    pub(super) fn each_of(topics: usize) -> InFlightLimit {
        let part = |all: usize, (least, most): (usize, usize)| (all / topics.max(1)).clamp(least, most);
        let ahead = part(ALL_AHEAD, TOPIC_AHEAD) as u64;
        InFlightLimit { records: part(ALL_RECORDS, TOPIC_RECORDS), bytes: part(ALL_BYTES, TOPIC_BYTES), ahead }
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
/// Total number of acknowledged events that hookhold remembers while earlier events wait for a partition without a leader. The topics
/// divide it like the in-flight limits. One event takes at most two bytes in most cases.
const ALL_AHEAD: usize = 8_000_000;
/// Lowest and highest number of these events of one topic. hookhold sends them again after a crash.
const TOPIC_AHEAD: (usize, usize) = (10_000, 1_000_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_topics_share_the_memory_for_records() {
        assert_eq!(InFlightLimit::each_of(1), InFlightLimit::each_of(8));
        assert!(InFlightLimit::each_of(100).bytes < InFlightLimit::each_of(8).bytes);
        let lowest = InFlightLimit { records: TOPIC_RECORDS.0, bytes: TOPIC_BYTES.0, ahead: TOPIC_AHEAD.0 as u64 };
        assert_eq!(InFlightLimit::each_of(100_000), lowest);
    }
}
