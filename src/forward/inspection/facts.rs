//! Facts about a cluster and its topics, as the cluster reports them.

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

/// Answers of the cluster.
pub(super) struct Cluster {
    /// Brokers that are members of the cluster at present.
    pub(super) brokers: Vec<ClusterBroker>,
    /// Topics in the order of the request.
    pub(super) topics: Vec<TopicFacts>,
    /// True if the brokers are Redpanda.
    pub(super) is_redpanda: bool,
}

/// A broker, as the cluster advertises it.
pub(super) struct ClusterBroker {
    /// Node id of the broker.
    pub(super) id: i32,
    /// Advertised address, `HOST:PORT`.
    pub(super) address: String,
}

/// Facts about one topic.
#[derive(Default)]
pub(super) struct TopicFacts {
    /// Name of the topic.
    pub(super) name: String,
    /// Error of the metadata request; `None` if the cluster describes the topic.
    pub(super) error: Option<RDKafkaErrorCode>,
    /// Partitions of the topic, sorted by number.
    pub(super) partitions: Vec<PartitionFacts>,
    /// Value of `min.insync.replicas`; `None` if hookhold cannot read it.
    pub(super) min_insync_replicas: Option<usize>,
    /// Value of `max.message.bytes`; `None` if hookhold cannot read it.
    pub(super) max_message_bytes: Option<u64>,
    /// True if the cluster has answered the request for the configuration without one of these values.
    pub(super) is_config_hidden: bool,
    /// Results of the test of the permission to write, one for each broker that leads a partition.
    pub(super) writes: Vec<TestedWrite>,
}

/// Facts about one partition.
pub(super) struct PartitionFacts {
    /// Number of the partition.
    pub(super) id: i32,
    /// Node id of the leader; `None` without a leader.
    pub(super) leader: Option<i32>,
    /// Node ids of the brokers that have a replica.
    pub(super) replicas: Vec<i32>,
    /// Node ids of the brokers whose replica is in sync.
    pub(super) in_sync: Vec<i32>,
}

/// Result of the test at one broker.
pub(super) struct TestedWrite {
    /// Node id of the broker.
    pub(super) broker: i32,
    /// Result of the test.
    pub(super) outcome: WriteOutcome,
}

/// Result of sending a record with invalid `acks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// The broker has rejected only `acks`, so hookhold may write to the topic.
    Allowed,
    /// The broker denies the permission to write.
    Denied,
    /// The broker has stored the record, which Kafka never does.
    Stored,
    /// The broker has not answered in time.
    Unanswered,
    /// The broker rejects the record for another reason.
    Rejected(RDKafkaErrorCode),
}

impl TopicFacts {
    /// Returns the facts about a topic that the cluster does not list.
    pub(super) fn missing(name: &str) -> TopicFacts {
        TopicFacts { name: name.to_owned(), error: Some(RDKafkaErrorCode::UnknownTopicOrPartition), ..TopicFacts::default() }
    }

    /// Converts the metadata of a topic.
    pub(super) fn of(topic: &MetadataTopic) -> TopicFacts {
        let partitions = topic.partitions().iter().map(|partition| PartitionFacts {
            id: partition.id(),
            leader: Some(partition.leader()).filter(|leader| *leader >= 0),
            replicas: partition.replicas().to_vec(),
            in_sync: partition.isr().to_vec(),
        });
        let mut partitions: Vec<PartitionFacts> = partitions.collect();
        partitions.sort_by_key(|partition| partition.id);
        TopicFacts {
            name: topic.name().to_owned(),
            error: topic.error().map(RDKafkaErrorCode::from),
            partitions,
            ..TopicFacts::default()
        }
    }

    /// Returns true if the cluster describes the topic.
    pub(super) fn exists(&self) -> bool {
        self.error.is_none() && !self.partitions.is_empty()
    }
}

/// Name of the topic's property that sets the number of in-sync replicas that an acknowledgement needs.
pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Name of the topic's property that limits the size of a record batch.
pub(super) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
