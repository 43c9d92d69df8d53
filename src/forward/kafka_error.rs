//! Classifies librdkafka's error codes, and defines the reasons for a block: their words in logs, metrics and `/readyz`, and what
//! the operator can do about each one.
//!
//! An error of the environment blocks the topic that it concerns. A record that is itself the cause blocks its topic once sending
//! it alone has proven that. Only a fatal error of the idempotent producer concerns every topic.

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
    /// A partition has fewer replicas in sync than the topic demands.
    BelowMinIsr,
    /// The record at the cursor is too large or invalid for this topic.
    Record,
    /// The client's own queue is smaller than what may be in flight.
    QueueFull,
    /// Kafka rejects records for another reason; the log line has librdkafka's name for it.
    Rejected,
    /// Nothing is acknowledged although the cluster looks healthy.
    Stalled,
    /// The journal cannot be read at the next event.
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

    /// Returns the operator's remedy. Forwarding resumes by itself afterwards.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            BlockReason::BrokerAway => "check that the brokers run and that bootstrap.servers is reachable from here",
            BlockReason::Authentication => "check the security.protocol, sasl.* and ssl.* settings of [kafka]",
            BlockReason::TopicMissing => "create the topic; hookhold never does",
            BlockReason::NotAuthorized => {
                "allow this principal to write to the topic (and IdempotentWrite on clusters before 3.0)"
            }
            BlockReason::NoLeader => "bring a replica of the partition back",
            BlockReason::BelowMinIsr => "bring the missing replicas back, or lower min.insync.replicas",
            BlockReason::Record => "raise the topic's max.message.bytes or relax what it accepts; see the error",
            BlockReason::QueueFull => "raise queue.buffering.max.kbytes and queue.buffering.max.messages, or remove them",
            BlockReason::Rejected => "see the error and the brokers' logs",
            BlockReason::Stalled => "see the brokers' logs; the producer is replaced if this lasts",
            BlockReason::Journal => "see the error; nothing is skipped",
        }
    }
}

/// Scope of a failed record's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// The producer, which can no longer be used.
    Producer,
    /// None: hookhold purged the record itself.
    Purged,
    /// The record, or another one of the same batch. Sending each alone shows which.
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

/// Returns the label of `hookhold_producer_rebuilds_total` for a fatal error.
pub(super) fn rebuild_reason(code: Code) -> &'static str {
    match code {
        Code::OutOfOrderSequenceNumber | Code::UnknownProducerId | Code::Inconsistent => "sequence",
        Code::ClusterAuthorizationFailed => REBUILT_UNAUTHORIZED,
        _ => "fatal",
    }
}

/// Every label of `hookhold_producer_rebuilds_total`.
pub(super) const REBUILD_REASONS: [&str; 4] = ["sequence", REBUILT_UNAUTHORIZED, "fatal", REBUILT_STUCK];
/// Our principal lacks IdempotentWrite.
pub(super) const REBUILT_UNAUTHORIZED: &str = "not_authorized";
/// Nothing was acknowledged for a topic that was healthy.
pub(super) const REBUILT_STUCK: &str = "stuck";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_records_own_codes_blame_the_record() {
        let environment =
            [Code::AllBrokersDown, Code::UnknownTopic, Code::TopicAuthorizationFailed, Code::NotEnoughReplicas, Code::Unknown];
        assert!(environment.into_iter().all(|code| matches!(classify(code), ErrorClass::Environment(_))));
        assert_eq!(classify(Code::MessageSizeTooLarge), ErrorClass::Record);
        assert_eq!(classify(Code::PurgeInflight), ErrorClass::Purged);
        assert_eq!(classify(Code::UnknownTopicOrPartition), ErrorClass::Environment(BlockReason::TopicMissing));
    }
}
