//! Inspects the configured Kafka cluster for `hookhold check --kafka`: asks the cluster about each topic, tests the permission to
//! write, and returns one finding for each problem. Stores no record, and does not depend on the running forwarder.

mod client;
mod commands;
mod facts;
mod findings;
mod write_test;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Settings;
use super::tokens::TokenSource;
use client::ClusterClient;
use commands::Commands;
use facts::{TopicFacts, WriteOutcome};

/// A topic to which hookhold forwards events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardTopic {
    /// Name of the topic.
    pub name: Arc<str>,
    /// Size of the largest body that a source forwards to the topic, in bytes; 0 if no source forwards to it.
    pub max_body: usize,
    /// Size of the largest request head in bytes. A record contains headers of the request.
    pub max_head: usize,
}

/// Result of an inspection.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// True if the cluster has answered.
    pub reached: bool,
    /// State of each topic, in the order of the request. Empty if the cluster has not answered.
    pub topics: Vec<InspectedTopic>,
    /// Problems, errors first.
    pub findings: Vec<Finding>,
}

/// State of one topic in the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedTopic {
    /// Name of the topic.
    pub topic: String,
    /// Number of partitions; 0 if the topic does not exist, or if the cluster does not describe it.
    pub partitions: usize,
    /// Lowest number of replicas of any partition; `None` without partitions.
    pub replicas: Option<usize>,
    /// Lowest number of in-sync replicas of any partition; `None` without partitions.
    pub in_sync: Option<usize>,
    /// Value of `min.insync.replicas`; `None` if hookhold cannot read it.
    pub min_insync_replicas: Option<usize>,
    /// Value of `max.message.bytes`; `None` if hookhold cannot read it.
    pub max_message_bytes: Option<u64>,
    /// Result of the test of the permission to write.
    pub write: WritePermission,
}

/// Result of the test of the permission to write to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WritePermission {
    /// hookhold may write to the topic.
    Allowed,
    /// The cluster denies the permission.
    Denied,
    /// The test was not possible, or its result proves nothing.
    Untested,
}

/// A problem that an inspection has found, with its remedy.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Severity of the problem.
    pub level: FindingLevel,
    /// Topic with the problem; `None` for a problem of the whole cluster.
    pub topic: Option<String>,
    /// Description of the problem.
    pub what: String,
    /// Command or action that removes the problem.
    pub remedy: String,
}

/// Severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingLevel {
    /// hookhold cannot forward events at present.
    Error,
    /// hookhold can forward events, but some events are at risk or will be parked.
    Warning,
    /// hookhold could not check something.
    Note,
}

impl Inspection {
    /// Returns the number of findings of this severity.
    pub fn count(&self, level: FindingLevel) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

impl Finding {
    fn new(level: FindingLevel, topic: Option<&str>, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { level, topic: topic.map(str::to_owned), what: what.into(), remedy: remedy.into() }
    }
}

/// Connects to the cluster and inspects `topics`. Each wait for an answer lasts at most `timeout`. The error says why librdkafka
/// cannot create a client.
pub fn inspect(settings: &Settings, topics: &[ForwardTopic], timeout: Duration) -> Result<Inspection, String> {
    let tokens = TokenSource::from_properties(&settings.librdkafka)?;
    let client = ClusterClient::start(&write_test::config(settings, timeout), tokens, timeout)?;
    let inspection = run(&client, settings, topics);
    client.end();
    Ok(inspection)
}

fn run(client: &ClusterClient, settings: &Settings, topics: &[ForwardTopic]) -> Inspection {
    let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
    let Some(mut cluster) = client.describe(&names) else {
        let finding = findings::unreachable(settings, client.timeout(), &client.errors());
        return Inspection { reached: false, topics: Vec::new(), findings: vec![finding] };
    };
    let mut found = Vec::new();
    found.extend(client.read_configs(&mut cluster.topics).err().map(|error| findings::unreadable_configs(&error)));
    write_test::run(client, &mut cluster.topics);
    let commands = Commands::new(settings, &cluster.brokers);
    found.extend(findings::of_cluster(&cluster, &client.errors(), client.timeout(), &commands));
    let of_topics = topics.iter().zip(&cluster.topics).flat_map(|(topic, facts)| findings::of_topic(topic, facts, &commands));
    found.extend(of_topics);
    found.sort_by_key(|finding| finding.level);
    let topics = cluster.topics.iter().map(|facts| inspected(facts, cluster.is_redpanda)).collect();
    Inspection { reached: true, topics, findings: found }
}

fn inspected(facts: &TopicFacts, is_redpanda: bool) -> InspectedTopic {
    let has = |outcome| facts.writes.iter().any(|write| write.outcome == outcome);
    let write = match () {
        () if has(WriteOutcome::Denied) => WritePermission::Denied,
        () if has(WriteOutcome::Stored) || (has(WriteOutcome::Allowed) && !is_redpanda) => WritePermission::Allowed,
        () => WritePermission::Untested,
    };
    InspectedTopic {
        topic: facts.name.clone(),
        partitions: facts.partitions.len(),
        replicas: facts.partitions.iter().map(|partition| partition.replicas.len()).min(),
        in_sync: facts.partitions.iter().map(|partition| partition.in_sync.len()).min(),
        min_insync_replicas: facts.min_insync_replicas,
        max_message_bytes: facts.max_message_bytes,
        write,
    }
}

#[cfg(test)]
mod tests {
    use super::facts::TestedWrite;
    use super::*;

    #[test]
    fn rejected_acks_prove_the_permission_only_where_the_broker_checks_it_first() {
        let writes = vec![TestedWrite { broker: 1, outcome: WriteOutcome::Allowed }];
        let facts = TopicFacts { writes, ..TopicFacts::default() };
        assert_eq!(inspected(&facts, false).write, WritePermission::Allowed);
        assert_eq!(inspected(&facts, true).write, WritePermission::Untested);
        let denied = TestedWrite { broker: 2, outcome: WriteOutcome::Denied };
        let facts = TopicFacts { writes: facts.writes.into_iter().chain([denied]).collect(), ..TopicFacts::default() };
        assert_eq!(inspected(&facts, false).write, WritePermission::Denied);
    }
}
