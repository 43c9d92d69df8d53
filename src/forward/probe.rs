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
use super::left_behind::Leaderless;
use super::mailbox::{Mailbox, Probed};
use super::producer::NativeProducer;
use super::topic_health::ProbeResult;

/// Address to which a probe posts its result.
pub(super) struct Post {
    pub(super) mailbox: Arc<Mailbox>,
    /// Generation of the probed producer.
    pub(super) generation: u64,
    /// Index of the topic's queue; `None` if only the connection matters.
    pub(super) queue: Option<usize>,
}

/// Starts a metadata probe of `topic`, which posts its result. Returns an error if the probe's thread cannot be started.
pub(super) fn start(native: Arc<NativeProducer>, topic: Arc<str>, post: Post) -> io::Result<()> {
    let run = move || {
        let (leaderless, result) = probe(&native, &topic);
        // Drop the handle to the native client before posting the result. If the client has been retired, this handle may be
        // the last one, and dropping the last handle takes time because it ends the client.
        drop(native);
        let Post { mailbox, generation, queue } = post;
        mailbox.post(|updates| updates.probe = Some(Probed { generation, queue, leaderless, result }));
    };
    thread::Builder::new().name("kafka-probe".into()).spawn(run).map(drop)
}

fn probe(native: &NativeProducer, topic: &str) -> (Option<Leaderless>, ProbeResult) {
    match native.client().fetch_metadata(Some(topic), PROBE_TIMEOUT) {
        Err(error) => (None, unanswered(&error)),
        Ok(metadata) => match metadata.topics().iter().find(|found| found.name() == topic) {
            Some(found) => answered(found),
            None => unwritable(BlockReason::TopicMissing, "cluster metadata: expected the topic, found no such topic".into()),
        },
    }
}

fn unwritable(reason: BlockReason, detail: String) -> (Option<Leaderless>, ProbeResult) {
    (None, ProbeResult::Unwritable(reason, detail))
}

/// Returns the probe result for a failed metadata request.
fn unanswered(error: &KafkaError) -> ProbeResult {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::BrokerTransportFailure);
    match classify(code) {
        ErrorClass::Environment(
            BlockReason::Rejected | BlockReason::BrokerAway | BlockReason::Authentication | BlockReason::Tls,
        ) => ProbeResult::Unanswered(format!(
            "metadata: expected an answer within {} s, found none ({code})",
            PROBE_TIMEOUT.as_secs()
        )),
        ErrorClass::Environment(reason) => ProbeResult::Unwritable(reason, code.to_string()),
        _ => ProbeResult::Unanswered(code.to_string()),
    }
}

/// Returns the partitions without a leader and the probe result for the metadata of a topic.
fn answered(topic: &MetadataTopic) -> (Option<Leaderless>, ProbeResult) {
    if let Some(error) = topic.error() {
        let code = RDKafkaErrorCode::from(error);
        return match classify(code) {
            ErrorClass::Environment(reason) => unwritable(reason, code.to_string()),
            _ => unwritable(BlockReason::Rejected, code.to_string()),
        };
    }
    if topic.partitions().is_empty() {
        return unwritable(BlockReason::TopicMissing, "cluster metadata: expected partitions of the topic, found none".into());
    }
    let (leaderless, led): (Vec<_>, Vec<_>) = topic.partitions().iter().partition(|p| p.leader() < 0);
    let numbers = leaderless.iter().filter_map(|p| u32::try_from(p.id()).ok());
    let leaderless = Leaderless::new(numbers.collect(), topic.partitions().len() as u32);
    if led.is_empty() {
        return unwritable(BlockReason::NoLeader, leaderless.detail());
    }
    let lacking = led.into_iter().filter(|p| p.isr().len() < p.replicas().len());
    let result = lacking.min_by_key(|p| p.isr().len()).map_or(ProbeResult::Healthy, |worst| {
        let (in_sync, all) = (worst.isr().len(), worst.replicas().len());
        let detail = format!(
            "partition {}: expected as many in-sync replicas as min.insync.replicas, found {in_sync} of {all}",
            worst.id()
        );
        ProbeResult::UnderReplicated { in_sync, detail }
    });
    (Some(leaderless), result)
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
