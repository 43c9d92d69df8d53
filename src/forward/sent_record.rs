//! A record that a topic queue has sent, without its content.

use super::partitioner::KeyHash;
use crate::clock::UnixMillis;

/// Record that a topic queue has sent, without its content.
pub(super) struct SentRecord {
    pub(super) seq: u64,
    pub(super) key: KeyHash,
    pub(super) bytes: usize,
    pub(super) received_at: UnixMillis,
    pub(super) state: RecordState,
}

/// State of a record after it has been sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordState {
    /// librdkafka has not reported the result yet.
    Unreported,
    /// Kafka has acknowledged the record.
    Acked,
    /// Kafka or librdkafka has rejected the record.
    Failed,
}
