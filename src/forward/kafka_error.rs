//! Classifies librdkafka's error codes. Defines the reasons for a block, their words in logs, metrics and `/readyz`, and
//! the operator's remedy for each.
//!
//! An error of the environment blocks only the topic that it concerns. A rejected record blocks its topic only after it has
//! failed when sent alone. A fatal error of the idempotent producer affects every topic.

use rdkafka::types::RDKafkaErrorCode as Code;

/// Reason for a topic's block; the metric label and log field `reason`. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockReason {
    /// No broker answers.
    BrokerAway,
    /// The brokers reject our credentials, or TLS cannot be set up.
    Authentication,
    /// The topic does not exist.
    TopicMissing,
    /// Our principal may not write to the topic.
    NotAuthorized,
    /// A partition has no leader.
    NoLeader,
    /// A partition has fewer replicas in sync than the topic requires.
    BelowMinIsr,
    /// The record at the cursor is too large or invalid for this topic.
    Record,
    /// librdkafka's queue is smaller than the in-flight limit.
    QueueFull,
    /// Kafka rejects records for another reason; the log line has the error of librdkafka.
    Rejected,
    /// No record is acknowledged although the cluster reports the topic as healthy.
    Stalled,
    /// The journal cannot be read at the next event of the topic.
    Journal,
}

impl BlockReason {
    /// Returns the word in metrics and logs.
    pub(super) fn word(self) -> &'static str {
        match self {
            BlockReason::BrokerAway => "broker_away",
            BlockReason::Authentication => "authentication",
            BlockReason::TopicMissing => "topic_missing",
            BlockReason::NotAuthorized => "not_authorized",
            BlockReason::NoLeader => "no_leader",
            BlockReason::BelowMinIsr => "below_min_isr",
            BlockReason::Record => "record",
            BlockReason::QueueFull => "queue_full",
            BlockReason::Rejected => "refused",
            BlockReason::Stalled => "stalled",
            BlockReason::Journal => "journal",
        }
    }

    /// Returns the operator's remedy. Forwarding resumes by itself once the cause is removed.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            BlockReason::BrokerAway => "check that the brokers run and that this machine reaches bootstrap.servers",
            BlockReason::Authentication => "check the security.protocol, sasl.* and ssl.* settings of [kafka]",
            BlockReason::TopicMissing => "create the topic; hookhold never creates one",
            BlockReason::NotAuthorized => {
                "allow this principal to write to the topic (and IdempotentWrite on clusters before 3.0)"
            }
            BlockReason::NoLeader => "restart a broker that has a replica of the partition",
            BlockReason::BelowMinIsr => "restart the brokers of the missing replicas, or lower min.insync.replicas",
            BlockReason::Record => "see the error; raise max.message.bytes of the topic or relax its validation",
            BlockReason::QueueFull => "raise queue.buffering.max.kbytes and queue.buffering.max.messages, or remove them",
            BlockReason::Rejected => "see the error and the brokers' logs",
            BlockReason::Stalled => "see the brokers' logs; hookhold replaces the producer if the stall lasts",
            BlockReason::Journal => "see the error and check the disk; no event is skipped",
        }
    }
}

/// Cause of a failed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// The producer, which cannot be used any more.
    Producer,
    /// A purge by hookhold itself, so nothing is wrong.
    Purged,
    /// The record, or another record of its batch. Sending each record alone identifies it.
    Record,
    /// The topic, the cluster or the client.
    Environment(BlockReason),
}

/// Classifies one error code.
pub(super) fn classify(code: Code) -> ErrorClass {
    match code {
        Code::Fatal => ErrorClass::Producer,
        Code::PurgeQueue | Code::PurgeInflight => ErrorClass::Purged,
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation => ErrorClass::Record,
        other => ErrorClass::Environment(environment_reason(other)),
    }
}

fn environment_reason(code: Code) -> BlockReason {
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
            BlockReason::TopicMissing
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => BlockReason::NotAuthorized,
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => BlockReason::BelowMinIsr,
        Code::LeaderNotAvailable | Code::NotLeaderForPartition => BlockReason::NoLeader,
        Code::QueueFull => BlockReason::QueueFull,
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::MessageTimedOut => BlockReason::BrokerAway,
        Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => BlockReason::Authentication,
        _ => BlockReason::Rejected,
    }
}

/// Returns the label of `hookhold_producer_rebuilds_total` for the cause of a fatal error.
pub(super) fn rebuild_reason(code: Code) -> &'static str {
    match code {
        Code::OutOfOrderSequenceNumber | Code::UnknownProducerId | Code::Inconsistent => "sequence",
        Code::ClusterAuthorizationFailed => REBUILT_UNAUTHORIZED,
        _ => "fatal",
    }
}

/// Every label of `hookhold_producer_rebuilds_total`.
pub(super) const REBUILD_REASONS: [&str; 4] = ["sequence", REBUILT_UNAUTHORIZED, "fatal", REBUILT_STUCK];
/// Label for a principal without IdempotentWrite.
pub(super) const REBUILT_UNAUTHORIZED: &str = "not_authorized";
/// Label for a healthy topic without acknowledgements.
pub(super) const REBUILT_STUCK: &str = "stuck";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_errors_never_count_as_record_errors() {
        let environment =
            [Code::AllBrokersDown, Code::UnknownTopic, Code::TopicAuthorizationFailed, Code::NotEnoughReplicas, Code::Unknown];
        assert!(environment.into_iter().all(|code| matches!(classify(code), ErrorClass::Environment(_))));
        assert_eq!(classify(Code::MessageSizeTooLarge), ErrorClass::Record);
        assert_eq!(classify(Code::PurgeInflight), ErrorClass::Purged);
        assert_eq!(classify(Code::UnknownTopicOrPartition), ErrorClass::Environment(BlockReason::TopicMissing));
    }
}
