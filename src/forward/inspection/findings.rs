//! Draws conclusions from the answers of the cluster: one finding for each problem, with the command or the action that removes it.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;

use super::super::Settings;
use super::super::client_error::{ClientError, own_certificate};
use super::super::kafka_error::{BlockReason, ErrorClass, classify};
use super::commands::{Commands, servers};
use super::facts::{Cluster, MAX_MESSAGE_BYTES, MIN_INSYNC_REPLICAS, PartitionFacts, TopicFacts, WriteOutcome};
use super::write_test::KEY;
use super::{Finding, FindingLevel, ForwardTopic};
use crate::units::{bytes_text, duration_text};

/// Returns the finding for a cluster that has not answered. The cause is the client's latest error about the login or TLS. Without
/// such an error, the cause is the latest error, because the other servers of the list may just not run.
pub(super) fn unreachable(settings: &Settings, timeout: Duration, errors: &[ClientError]) -> Finding {
    // The last of the errors with the most certain cause.
    let cause = errors.iter().max_by_key(|error| error.certainty).cloned();
    let cause = cause.map(|error| error.with_expiry(own_certificate(&settings.librdkafka).as_deref()));
    let remedy = cause.as_ref().map_or_else(|| BlockReason::BrokerAway.remedy(), |error| error.remedy);
    let (servers, within) = (servers(settings), duration_text(timeout));
    let error = cause.map_or(String::new(), |error| format!("; the last error is: {}", error.detail));
    let what = format!("expected an answer from {servers} within {within}, found none{error}");
    Finding::new(FindingLevel::Error, None, what, remedy)
}

/// Returns the finding for a cluster that has not answered the request for the configurations.
pub(super) fn unreadable_configs(error: &str) -> Finding {
    let what =
        format!("expected the configuration of the topics, found an error: {error}; hookhold has not checked {PROPERTIES}");
    Finding::new(FindingLevel::Note, None, what, "repeat the command")
}

/// Returns the findings that concern the whole cluster.
pub(super) fn of_cluster(cluster: &Cluster, errors: &[ClientError], timeout: Duration, commands: &Commands) -> Vec<Finding> {
    let writes = || cluster.topics.iter().flat_map(|facts| &facts.writes);
    let silent = writes().filter(|write| write.outcome == WriteOutcome::Unanswered).map(|write| write.broker);
    let unreachable = silent.collect::<BTreeSet<i32>>().into_iter().map(|id| {
        let broker = cluster.brokers.iter().find(|broker| broker.id == id);
        let address = broker.map_or("an unknown address", |broker| &*broker.address);
        let error = errors.iter().rev().find(|error| error.detail.starts_with(&format!("{address}/")));
        let error = error.map_or(String::new(), |error| format!("; the last error is: {}", error.detail));
        let within = duration_text(timeout);
        let what = format!("expected an answer from broker {id} at {address} within {within}, found none{error}");
        let remedy = format!(
            "make {address} reachable from this machine; if the address is wrong, correct advertised.listeners of broker {id}"
        );
        Finding::new(FindingLevel::Error, None, what, remedy)
    });
    let mut findings: Vec<Finding> = unreachable.collect();
    if cluster.is_redpanda && writes().any(|write| write.outcome == WriteOutcome::Allowed) {
        let what = "hookhold has not tested the permission to write, because Redpanda checks the permission after acks";
        findings.push(Finding::new(FindingLevel::Note, None, what, commands.permissions()));
    }
    findings
}

/// Returns the findings about one topic.
pub(super) fn of_topic(topic: &ForwardTopic, facts: &TopicFacts, commands: &Commands) -> Vec<Finding> {
    if !facts.exists() {
        return vec![undescribed(facts, commands)];
    }
    let found = [
        without_leader(facts),
        out_of_sync(facts, commands),
        few_copies(facts, commands),
        narrow(topic, facts, commands),
        hidden_config(facts, commands),
    ];
    found.into_iter().flatten().chain(unwritable(facts, commands)).collect()
}

fn undescribed(facts: &TopicFacts, commands: &Commands) -> Finding {
    let name = Some(&*facts.name);
    match facts.error.map(|code| (code, reason(code))) {
        None | Some((_, Some(BlockReason::TopicMissing))) => {
            let what = "expected the topic, found no topic of this name; hookhold never creates topics";
            Finding::new(FindingLevel::Error, name, what, commands.create(&facts.name))
        }
        Some((_, Some(BlockReason::NotAuthorized))) => not_authorized(facts, commands),
        Some((code, reason)) => {
            let remedy = reason.unwrap_or(BlockReason::Rejected).remedy();
            Finding::new(FindingLevel::Error, name, format!("expected the topic, found the error {code}"), remedy)
        }
    }
}

fn not_authorized(facts: &TopicFacts, commands: &Commands) -> Finding {
    let what = "expected the permission to write to the topic, found that the cluster denies it";
    Finding::new(FindingLevel::Error, Some(&facts.name), what, commands.allow("Write", &facts.name))
}

fn without_leader(facts: &TopicFacts) -> Option<Finding> {
    let leaderless: Vec<&PartitionFacts> = facts.partitions.iter().filter(|partition| partition.leader.is_none()).collect();
    let first = leaderless.first()?;
    let what = format!("partition {}: expected a leader, found none{}", first.id, and_others(leaderless.len()));
    let remedy = format!("start one of the brokers that have a replica of the partition: {}", list(&first.replicas));
    Some(Finding::new(FindingLevel::Error, Some(&facts.name), what, remedy))
}

/// Returns the finding about partitions with missing replicas. A broker acknowledges a record if the partition has
/// `min.insync.replicas` in-sync replicas, or all of its replicas if it has fewer.
fn out_of_sync(facts: &TopicFacts, commands: &Commands) -> Option<Finding> {
    let led = facts.partitions.iter().filter(|partition| partition.leader.is_some());
    let lacking: Vec<&PartitionFacts> = led.filter(|partition| partition.in_sync.len() < partition.replicas.len()).collect();
    let worst = lacking.iter().min_by_key(|partition| partition.in_sync.len())?;
    let (id, in_sync, all) = (worst.id, worst.in_sync.len(), worst.replicas.len());
    let missing: Vec<i32> = worst.replicas.iter().filter(|broker| !worst.in_sync.contains(broker)).copied().collect();
    let (missing, others) = (list(&missing), and_others(lacking.len()));
    let name = Some(&*facts.name);
    match facts.min_insync_replicas.filter(|least| in_sync < *least.min(&all)) {
        Some(least) => {
            let least = least.min(all);
            let what = format!(
                "partition {id}: expected at least {least} in-sync replicas ({MIN_INSYNC_REPLICAS}), found {in_sync} of {all}{others}"
            );
            let lower = commands.set(&facts.name, MIN_INSYNC_REPLICAS, in_sync.max(1));
            let remedy = format!("start the brokers of the missing replicas: {missing}; or accept fewer copies: {lower}");
            Some(Finding::new(FindingLevel::Error, name, what, remedy))
        }
        None => {
            let what = format!("partition {id}: expected {all} in-sync replicas, found {in_sync}{others}");
            Some(Finding::new(FindingLevel::Warning, name, what, format!("start the brokers of the missing replicas: {missing}")))
        }
    }
}

/// Returns the finding about a topic that may lose an acknowledged record with a single broker.
fn few_copies(facts: &TopicFacts, commands: &Commands) -> Option<Finding> {
    let replicas = facts.partitions.iter().map(|partition| partition.replicas.len()).min()?;
    let name = Some(&*facts.name);
    if replicas < 2 {
        let what = "expected at least 2 replicas of each partition, found 1, so the loss of one broker loses forwarded events";
        let remedy = commands.replicate(&facts.name, &facts.partitions);
        let remedy = remedy.unwrap_or_else(|| "add brokers to the cluster, then run this check again".to_owned());
        return Some(Finding::new(FindingLevel::Warning, name, what, remedy));
    }
    facts.min_insync_replicas.filter(|least| *least < 2).map(|least| {
        let what = format!(
            "{MIN_INSYNC_REPLICAS}: expected at least 2, found {least}, so Kafka may acknowledge an event of which only one broker \
             has a copy"
        );
        Finding::new(FindingLevel::Warning, name, what, commands.set(&facts.name, MIN_INSYNC_REPLICAS, 2))
    })
}

/// Returns the finding about a topic that is too narrow for the largest event.
fn narrow(topic: &ForwardTopic, facts: &TopicFacts, commands: &Commands) -> Option<Finding> {
    let largest = (topic.max_body + topic.max_head + MAX_OWN_HEADERS) as u64;
    let limit = facts.max_message_bytes.filter(|limit| topic.max_body > 0 && *limit < largest)?;
    let (body, headers) = (bytes_text(topic.max_body as u64), bytes_text((topic.max_head + MAX_OWN_HEADERS) as u64));
    let what = format!(
        "{MAX_MESSAGE_BYTES}: expected at least {largest} (max_body {body}, and {headers} for headers), found {limit}; hookhold parks \
         an event whose record is larger than that after compression"
    );
    let remedy = commands.set(&facts.name, MAX_MESSAGE_BYTES, largest);
    Some(Finding::new(FindingLevel::Warning, Some(&facts.name), what, remedy))
}

fn hidden_config(facts: &TopicFacts, commands: &Commands) -> Option<Finding> {
    let what =
        format!("expected the permission to read the topic's configuration, found none; hookhold has not checked {PROPERTIES}");
    let remedy = || commands.allow("DescribeConfigs", &facts.name);
    facts.is_config_hidden.then(|| Finding::new(FindingLevel::Note, Some(&facts.name), what, remedy()))
}

/// Returns the findings from the test of the permission to write, each kind once. A finding about the whole cluster describes a
/// broker that does not answer.
fn unwritable(facts: &TopicFacts, commands: &Commands) -> Vec<Finding> {
    let mut outcomes: Vec<WriteOutcome> = Vec::new();
    for write in &facts.writes {
        if !outcomes.contains(&write.outcome) {
            outcomes.push(write.outcome);
        }
    }
    let finding = |outcome| match outcome {
        WriteOutcome::Allowed | WriteOutcome::Unanswered => None,
        WriteOutcome::Denied => Some(not_authorized(facts, commands)),
        WriteOutcome::Stored => {
            let what = format!("expected the cluster to reject the record of this check, found it stored with the key {KEY}");
            let remedy = format!("let the topic's consumers ignore the key {KEY}, and do not use --kafka with this cluster");
            Some(Finding::new(FindingLevel::Warning, Some(&facts.name), what, remedy))
        }
        WriteOutcome::Rejected(code) => {
            let remedy = reason(code).unwrap_or(BlockReason::Rejected).remedy();
            let what = format!("expected the cluster to accept records, found the error {code}");
            Some(Finding::new(FindingLevel::Error, Some(&facts.name), what, remedy))
        }
    };
    outcomes.into_iter().filter_map(finding).collect()
}

fn reason(code: RDKafkaErrorCode) -> Option<BlockReason> {
    match classify(code) {
        ErrorClass::Environment(reason) => Some(reason),
        ErrorClass::Producer | ErrorClass::Purged | ErrorClass::Record(_) => None,
    }
}

/// Returns the end of a sentence about the first of `count` partitions.
fn and_others(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        2 => ", as in 1 other partition".to_owned(),
        more => format!(", as in {} other partitions", more - 1),
    }
}

fn list(brokers: &[i32]) -> String {
    brokers.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}

/// Properties of a topic that an inspection reads.
const PROPERTIES: &str = "min.insync.replicas and max.message.bytes";
/// Size in bytes of the largest key and headers that hookhold itself adds to a record. The key, the id, the type and the account
/// have at most 512 bytes each, and the account is percent-encoded.
const MAX_OWN_HEADERS: usize = 8 << 10;
