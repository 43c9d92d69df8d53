//! Tests the permission to write to a topic without storing a record.
//!
//! The test sends a record with `acks` = 2, a value that the Kafka protocol does not define. A broker first checks the permission
//! to write to the topic, and answers TOPIC_AUTHORIZATION_FAILED if it is missing. Only then it reads `acks`, and answers
//! INVALID_REQUIRED_ACKS before it opens the partition's log. Neither answer leaves a record in the topic. librdkafka sends any
//! value from -1 to 1000, and retries neither error. A transaction that hookhold aborts would also test the permission, but leaves a
//! marker in the topic, and needs further permissions.
//!
//! An idempotent producer must use `acks` = all, so this test does not cover the permission `IdempotentWrite`, which Kafka requires
//! before version 3.0. Redpanda checks `acks` before the permission, so its answer proves nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseRecord;

use super::super::Settings;
use super::super::kafka_error::{BlockReason, ErrorClass, classify};
use super::super::settings::{CLIENT_ID, producer_config};
use super::client::ClusterClient;
use super::facts::{TestedWrite, TopicFacts, WriteOutcome};

/// Builds the settings of a client whose records no broker stores. Brokers, TLS and login are as for forwarding.
pub(super) fn config(settings: &Settings, timeout: Duration) -> ClientConfig {
    let mut config = producer_config(&settings.librdkafka, settings.max_body, &format!("{CLIENT_ID}-check"));
    config.remove("queue.buffering.max.ms").set("linger.ms", "0");
    config.set("enable.idempotence", "false").set("acks", INVALID_ACKS).set("retries", "0");
    config.set("message.timeout.ms", timeout.as_millis().to_string());
    config
}

/// Sends one record to each topic at each broker that leads a partition of the topic, and adds the results to the topics.
pub(super) fn run(client: &ClusterClient, topics: &mut [TopicFacts]) {
    let mut sent = Vec::new();
    for (index, facts) in topics.iter().enumerate().filter(|(_, facts)| facts.exists()) {
        let led = facts.partitions.iter().filter_map(|partition| Some((partition.leader?, partition.id)));
        for (broker, partition) in led.collect::<BTreeMap<_, _>>() {
            let record = BaseRecord::with_opaque_to(&facts.name, sent.len()).partition(partition).key(KEY).payload(PAYLOAD);
            let sending = client.producer().send(record);
            let rejected = |error: KafkaError| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            let outcome = sending.err().map(|(error, _)| WriteOutcome::Rejected(rejected(error)));
            sent.push((index, broker, outcome));
        }
    }
    let waiting = sent.iter().filter(|(_, _, outcome)| outcome.is_none()).count();
    for (record, result) in client.reports(waiting, Instant::now() + client.timeout() + REPORTED_WITHIN) {
        sent[record].2 = Some(outcome(result));
    }
    for (index, broker, outcome) in sent {
        topics[index].writes.push(TestedWrite { broker, outcome: outcome.unwrap_or(WriteOutcome::Unanswered) });
    }
}

fn outcome(result: Result<(), RDKafkaErrorCode>) -> WriteOutcome {
    match result {
        Ok(()) => WriteOutcome::Stored,
        Err(RDKafkaErrorCode::InvalidRequiredAcks) => WriteOutcome::Allowed,
        Err(code) => match classify(code) {
            ErrorClass::Environment(BlockReason::NotAuthorized) => WriteOutcome::Denied,
            ErrorClass::Environment(BlockReason::BrokerAway) => WriteOutcome::Unanswered,
            _ => WriteOutcome::Rejected(code),
        },
    }
}

/// Value of `acks` that the Kafka protocol does not define: it defines -1, 0 and 1.
const INVALID_ACKS: &str = "2";
/// Key of the record, which names its origin in case that a broker stores it nevertheless.
pub(super) const KEY: &str = "hookhold-check";
const PAYLOAD: &str = "test of the permission to write; ignore this record";
/// Time after which librdkafka has reported an expired record.
const REPORTED_WITHIN: Duration = Duration::from_secs(3);
