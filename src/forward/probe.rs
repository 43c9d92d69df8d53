//! Probes one topic: requests the topic's metadata from the cluster. Each probe runs on its own thread, because the
//! request may take seconds. The request also refreshes librdkafka's cached metadata, so that librdkafka can send to
//! the topic again. The Kafka client runs at most one probe at a time.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::Producer as _;

use super::kafka_error::{BlockReason, ErrorClass, classify};
use super::mailbox::Mailbox;
use super::producer::NativeProducer;
use super::topic_health::ProbeResult;

/// Starts a metadata probe of `topic`; `index` is the index of the topic's queue. The probe posts its result to the
/// mailbox. Returns an error if the probe's thread cannot be started.
pub(super) fn start(native: Arc<NativeProducer>, topic: Arc<str>, index: usize, mailbox: Arc<Mailbox>) -> io::Result<()> {
    let run = move || {
        let result = probe(&native, &topic);
        // Drop the handle to the native client before posting the result. If the client has been retired, this handle may be
        // the last one, and dropping the last handle takes time because it ends the client.
        drop(native);
        mailbox.post(|updates| updates.probe = Some((index, result)));
    };
    thread::Builder::new().name("kafka-probe".into()).spawn(run).map(drop)
}

fn probe(native: &NativeProducer, topic: &str) -> ProbeResult {
    match native.client().fetch_metadata(Some(topic), PROBE_TIMEOUT) {
        Err(error) => unanswered(&error),
        Ok(metadata) => match metadata.topics().iter().find(|found| found.name() == topic) {
            Some(found) => answered(found),
            None => ProbeResult::Unwritable(
                BlockReason::TopicMissing,
                "cluster metadata: expected the topic, found no such topic".into(),
            ),
        },
    }
}

/// Returns the probe result for a failed metadata request. If the error has no block reason of its own, the reason is
/// `BrokerAway`.
fn unanswered(error: &KafkaError) -> ProbeResult {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::BrokerTransportFailure);
    match classify(code) {
        ErrorClass::Environment(reason) if reason != BlockReason::Rejected => ProbeResult::Unwritable(reason, code.to_string()),
        _ => ProbeResult::Unwritable(BlockReason::BrokerAway, code.to_string()),
    }
}

/// Returns the probe result for the metadata of a topic.
fn answered(topic: &MetadataTopic) -> ProbeResult {
    if let Some(error) = topic.error() {
        let code = RDKafkaErrorCode::from(error);
        return match classify(code) {
            ErrorClass::Environment(reason) => ProbeResult::Unwritable(reason, code.to_string()),
            _ => ProbeResult::Unwritable(BlockReason::Rejected, code.to_string()),
        };
    }
    if topic.partitions().is_empty() {
        return ProbeResult::Unwritable(
            BlockReason::TopicMissing,
            "cluster metadata: expected partitions of the topic, found none".into(),
        );
    }
    if let Some(leaderless) = topic.partitions().iter().find(|p| p.leader() < 0) {
        return ProbeResult::Unwritable(
            BlockReason::NoLeader,
            format!("partition {}: expected a leader, found none", leaderless.id()),
        );
    }
    let lacking = topic.partitions().iter().filter(|p| p.isr().len() < p.replicas().len());
    lacking.min_by_key(|p| p.isr().len()).map_or(ProbeResult::Healthy, |worst| {
        let (in_sync, all) = (worst.isr().len(), worst.replicas().len());
        let detail = format!(
            "partition {}: expected as many in-sync replicas as min.insync.replicas, found {in_sync} of {all}",
            worst.id()
        );
        ProbeResult::UnderReplicated { in_sync, detail }
    })
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
