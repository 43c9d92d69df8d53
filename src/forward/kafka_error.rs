//! Classifies librdkafka's error codes. Defines the reasons for blocking a topic. Each reason has a word for logs,
//! metrics and `/readyz`, and a remedy for the operator.
//!
//! The class of an error code determines which topics hookhold blocks. An error of the topic, the cluster or the Kafka client
//! blocks only the topic of the failed record. A record that Kafka also rejects alone is parked. A fatal error of the idempotent
//! producer affects every topic.

use rdkafka::types::RDKafkaErrorCode as Code;

/// Reason for blocking a topic. Metrics, logs and `/readyz` show the word for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockReason {
    /// No broker answers.
    BrokerAway,
    /// The brokers reject hookhold's credentials, or hookhold cannot get a token.
    Authentication,
    /// TLS cannot be set up between hookhold and the brokers.
    Tls,
    /// The topic does not exist.
    TopicMissing,
    /// hookhold's principal has no permission to write to the topic.
    NotAuthorized,
    /// A partition has no leader.
    NoLeader,
    /// A partition has fewer in-sync replicas than the topic requires.
    BelowMinIsr,
    /// The cluster limits the rate at which hookhold may write, or forbids to write at present.
    Throttled,
    /// The record at the cursor is too large or invalid for this topic, and hookhold cannot park its event.
    Record,
    /// librdkafka's queue is full, because the queue's limit is smaller than the sum of hookhold's in-flight limits.
    QueueFull,
    /// Kafka rejects records for a reason that no other variant describes, or hookhold cannot set up the Kafka client. The log
    /// line contains the error.
    Rejected,
    /// Kafka acknowledges no record although the cluster reports the topic as healthy.
    Stalled,
    /// hookhold cannot read the topic's next event from the journal.
    Journal,
}

impl BlockReason {
    /// Returns the word for this reason: the value of the label `reason` of `hookhold_forward_blocked` and of the log field
    /// `reason`.
    pub(super) fn word(self) -> &'static str {
        match self {
            BlockReason::BrokerAway => "broker_away",
            BlockReason::Authentication => "authentication",
            BlockReason::Tls => "tls",
            BlockReason::TopicMissing => "topic_missing",
            BlockReason::NotAuthorized => "not_authorized",
            BlockReason::NoLeader => "no_leader",
            BlockReason::BelowMinIsr => "below_min_isr",
            BlockReason::Throttled => "throttled",
            BlockReason::Record => "record",
            BlockReason::QueueFull => "queue_full",
            BlockReason::Rejected => "refused",
            BlockReason::Stalled => "stalled",
            BlockReason::Journal => "journal",
        }
    }

    /// Returns the remedy for the operator. Forwarding resumes automatically after the operator has removed the cause.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            BlockReason::BrokerAway => {
                "start the brokers; if they are running, correct bootstrap.servers in [kafka] or repair the network"
            }
            BlockReason::Authentication => "correct security.protocol or sasl.* in [kafka]",
            BlockReason::Tls => "correct security.protocol or ssl.* in [kafka], or renew the certificate",
            BlockReason::TopicMissing => "create the topic; hookhold never creates topics",
            BlockReason::NotAuthorized => {
                "grant hookhold's principal Write on the topic; before Kafka 3.0, also IdempotentWrite on the cluster"
            }
            BlockReason::NoLeader => "restart a broker that has a replica of the partition",
            BlockReason::BelowMinIsr => "restart the brokers of the missing replicas, or lower min.insync.replicas",
            BlockReason::Throttled => "raise the cluster's quota or throughput, or wait; hookhold retries",
            BlockReason::Record => {
                "make room for parked events (`hookhold parked`); or change the topic so that it accepts the record: raise \
                 max.message.bytes, or relax its validation"
            }
            BlockReason::QueueFull => {
                "raise queue.buffering.max.kbytes and queue.buffering.max.messages in [kafka], or remove them"
            }
            BlockReason::Rejected => "see the error and the brokers' logs",
            BlockReason::Stalled => "see the brokers' logs; hookhold replaces the producer if the stall lasts",
            BlockReason::Journal => "see the error and check the disk with `dmesg`; hookhold retries and skips no event",
        }
    }
}

/// Class of a librdkafka error code. The class determines how hookhold reacts if a record fails with this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// A fatal error of the producer. hookhold must replace the producer.
    Producer,
    /// hookhold itself purged the record from librdkafka's queues. This error requires no reaction.
    Purged,
    /// Kafka rejected the failed record, another record of the same batch, or the size of the batch. hookhold then sends smaller
    /// batches to find the cause. Contains the word for the reason, which is [`TOO_LARGE`] or [`INVALID`].
    Record(&'static str),
    /// An error of the topic, the cluster or the Kafka client.
    Environment(BlockReason),
}

/// Returns the class of a librdkafka error code.
pub(super) fn classify(code: Code) -> ErrorClass {
    match code {
        Code::Fatal => ErrorClass::Producer,
        Code::PurgeQueue | Code::PurgeInflight => ErrorClass::Purged,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => ErrorClass::Record(TOO_LARGE),
        Code::InvalidRecord | Code::InvalidDifferentRecord | Code::InvalidTimestamp => ErrorClass::Record(INVALID),
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
        // Azure Event Hubs reports a throttled client as a violation of a policy.
        Code::PolicyViolation | Code::ThrottlingQuotaExceeded => BlockReason::Throttled,
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::MessageTimedOut => BlockReason::BrokerAway,
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism | Code::IllegalSASLState => {
            BlockReason::Authentication
        }
        Code::SSL => BlockReason::Tls,
        _ => BlockReason::Rejected,
    }
}

/// Returns the value of the label `reason` of `hookhold_producer_rebuilds_total` for the cause of a fatal error.
pub(super) fn rebuild_reason(code: Code) -> &'static str {
    match code {
        Code::OutOfOrderSequenceNumber | Code::UnknownProducerId | Code::Inconsistent => "sequence",
        Code::ClusterAuthorizationFailed => REBUILT_UNAUTHORIZED,
        _ => "fatal",
    }
}

/// All values of the label `reason` of `hookhold_producer_rebuilds_total`.
pub(super) const REBUILD_REASONS: [&str; 5] = ["sequence", REBUILT_UNAUTHORIZED, "fatal", REBUILT_STUCK, REBUILT_RECONFIGURED];
/// Label value for a producer whose principal lacks the permission IdempotentWrite.
pub(super) const REBUILT_UNAUTHORIZED: &str = "not_authorized";
/// Label value for a producer whose settings have changed.
pub(super) const REBUILT_RECONFIGURED: &str = "settings";
/// Label value for a producer that receives no acknowledgements although the topic seems healthy.
pub(super) const REBUILT_STUCK: &str = "stuck";

/// Value of the label `reason` of `hookhold_parked_total` for a record that is too large for its topic.
pub(super) const TOO_LARGE: &str = "too_large";
/// Value of the label `reason` of `hookhold_parked_total` for a record that Kafka rejects for another reason.
pub(super) const INVALID: &str = "invalid";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_errors_never_count_as_record_errors() {
        let environment =
            [Code::AllBrokersDown, Code::UnknownTopic, Code::TopicAuthorizationFailed, Code::NotEnoughReplicas, Code::Unknown];
        assert!(environment.into_iter().all(|code| matches!(classify(code), ErrorClass::Environment(_))));
        for too_large in [Code::MessageSizeTooLarge, Code::MessageBatchTooLarge, Code::InvalidMessageSize] {
            assert_eq!(classify(too_large), ErrorClass::Record(TOO_LARGE));
        }
        assert_eq!(classify(Code::PolicyViolation), ErrorClass::Environment(BlockReason::Throttled));
        assert_eq!(classify(Code::PurgeInflight), ErrorClass::Purged);
        assert_eq!(classify(Code::UnknownTopicOrPartition), ErrorClass::Environment(BlockReason::TopicMissing));
    }
}
