//! The error table: what librdkafka's codes mean for a lane, in words for logs, metrics and `/readyz`, each with what the
//! operator can do. Trouble of the environment blocks the lane it concerns; so does a record's own fault, once it is proven
//! by sending that record alone; only the idempotent producer's fatal errors concern everybody.

use rdkafka::types::RDKafkaErrorCode as Code;

/// Why a lane does not flow: the metric label and log field `reason`. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// No broker answers.
    BrokerAway,
    /// The brokers refuse our credentials, or TLS cannot be set up.
    Authentication,
    /// The topic does not exist.
    TopicMissing,
    /// We may not write to the topic.
    NotAuthorized,
    /// A partition has no leader.
    NoLeader,
    /// A partition has fewer replicas in sync than the topic demands.
    BelowMinIsr,
    /// The first record in line is too large or invalid for this topic.
    Record,
    /// The client's own queue is smaller than our window.
    QueueFull,
    /// Kafka refuses for a reason that has no word here; the log line has its name.
    Refused,
    /// Nothing is acknowledged although the cluster looks well.
    Stalled,
    /// The journal cannot be read at this place.
    Journal,
}

impl Reason {
    /// The word in metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Reason::BrokerAway => "broker_away",
            Reason::Authentication => "authentication",
            Reason::TopicMissing => "topic_missing",
            Reason::NotAuthorized => "not_authorized",
            Reason::NoLeader => "no_leader",
            Reason::BelowMinIsr => "below_min_isr",
            Reason::Record => "record",
            Reason::QueueFull => "queue_full",
            Reason::Refused => "refused",
            Reason::Stalled => "stalled",
            Reason::Journal => "journal",
        }
    }

    /// What the operator can do about it; the lane goes on by itself afterwards.
    pub fn remedy(self) -> &'static str {
        match self {
            Reason::BrokerAway => "check that the brokers run and that bootstrap.servers is reachable from here",
            Reason::Authentication => "check the security.protocol, sasl.* and ssl.* settings of [kafka]",
            Reason::TopicMissing => "create the topic; hookhold never does",
            Reason::NotAuthorized => "allow this principal to write to the topic (and IdempotentWrite on clusters before 3.0)",
            Reason::NoLeader => "bring a replica of the partition back",
            Reason::BelowMinIsr => "bring the missing replicas back, or lower min.insync.replicas",
            Reason::Record => "raise the topic's max.message.bytes or relax what it accepts; see the error",
            Reason::QueueFull => "raise queue.buffering.max.kbytes and queue.buffering.max.messages, or leave them out",
            Reason::Refused => "see the error and the brokers' logs",
            Reason::Stalled => "see the brokers' logs; the producer is replaced if this lasts",
            Reason::Journal => "see the error; nothing is skipped",
        }
    }
}

/// What to do about one failed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultScope {
    /// The producer is finished.
    Fatal,
    /// We took it back ourselves.
    Recalled,
    /// Perhaps its own fault, perhaps that of a record in the same batch: to be sent alone before it is believed.
    RecordAtFault,
    /// Not its own fault.
    Environment(Reason),
}

/// The row of the table for one code.
pub(super) fn verdict(code: Code) -> FaultScope {
    use FaultScope::*;
    match code {
        Code::Fatal => Fatal,
        Code::PurgeQueue | Code::PurgeInflight => Recalled,
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation => RecordAtFault,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
            Environment(Reason::TopicMissing)
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Environment(Reason::NotAuthorized),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => Environment(Reason::BelowMinIsr),
        Code::LeaderNotAvailable | Code::NotLeaderForPartition => Environment(Reason::NoLeader),
        Code::QueueFull => Environment(Reason::QueueFull),
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::MessageTimedOut => {
            Environment(Reason::BrokerAway)
        }
        Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => Environment(Reason::Authentication),
        _ => Environment(Reason::Refused),
    }
}

/// Every label of `hookhold_producer_rebuilds_total`.
pub(super) const REBUILDS: [&str; 4] = ["sequence", "not_authorized", "fatal", STUCK];
/// A lane did not move although its topic was well.
pub(super) const STUCK: &str = "stuck";

/// The label for a fatal error.
pub(super) fn rebuild_reason(code: Code) -> &'static str {
    match code {
        Code::OutOfOrderSequenceNumber | Code::UnknownProducerId | Code::Inconsistent => "sequence",
        Code::ClusterAuthorizationFailed => "not_authorized",
        _ => "fatal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_records_own_codes_blame_the_record() {
        let away =
            [Code::AllBrokersDown, Code::UnknownTopic, Code::TopicAuthorizationFailed, Code::NotEnoughReplicas, Code::Unknown];
        assert!(away.into_iter().all(|code| matches!(verdict(code), FaultScope::Environment(_))));
        assert_eq!(verdict(Code::MessageSizeTooLarge), FaultScope::RecordAtFault);
        assert_eq!(verdict(Code::PurgeInflight), FaultScope::Recalled);
        assert_eq!(verdict(Code::UnknownTopicOrPartition), FaultScope::Environment(Reason::TopicMissing));
    }
}
