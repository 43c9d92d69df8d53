//! Asks the cluster about one topic, on a thread of its own because the client may take seconds to answer. At most one
//! probe runs at a time. The question also refreshes what librdkafka remembers of the topic, so that it sends again.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::Producer as _;

use super::kafka_error::{FaultScope, Reason, verdict};
use super::mailbox::Mailbox;
use super::producer::Client;

/// What the cluster says about a topic.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    /// Every partition has a leader and all its replicas.
    Healthy,
    /// It can be written to unless it demands the replicas that are missing: how many the worst partition has in sync, and
    /// which one that is.
    UnderReplicated(usize, String),
    /// It cannot be written to.
    Trouble(Reason, String),
}

/// Asks about a lane's topic; the finding comes to the inbox. Fails when there is no thread to be had.
pub(super) fn ask(client: Arc<Client>, topic: Arc<str>, lane: usize, inbox: Arc<Mailbox>) -> io::Result<()> {
    let probe = move || {
        let finding = look(&client, &topic);
        // Before the finding is told: this may be the last owner of a retired client, and its end takes a moment.
        drop(client);
        inbox.leave(|news| news.found = Some((lane, finding)));
    };
    thread::Builder::new().name("kafka-probe".into()).spawn(probe).map(drop)
}

fn look(client: &Client, topic: &str) -> Finding {
    match client.client().fetch_metadata(Some(topic), PROBE_TIMEOUT) {
        Err(error) => away(&error),
        Ok(metadata) => match metadata.topics().iter().find(|found| found.name() == topic) {
            Some(found) => judge(found),
            None => Finding::Trouble(Reason::TopicMissing, "the cluster does not list it".into()),
        },
    }
}

/// No answer at all: whatever the code, the broker is what is missing.
fn away(error: &KafkaError) -> Finding {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::BrokerTransportFailure);
    match verdict(code) {
        FaultScope::Environment(reason) if reason != Reason::Refused => Finding::Trouble(reason, code.to_string()),
        _ => Finding::Trouble(Reason::BrokerAway, code.to_string()),
    }
}

fn judge(topic: &MetadataTopic) -> Finding {
    if let Some(error) = topic.error() {
        let code = RDKafkaErrorCode::from(error);
        return match verdict(code) {
            FaultScope::Environment(reason) => Finding::Trouble(reason, code.to_string()),
            _ => Finding::Trouble(Reason::Refused, code.to_string()),
        };
    }
    if topic.partitions().is_empty() {
        return Finding::Trouble(Reason::TopicMissing, "it has no partitions".into());
    }
    if let Some(headless) = topic.partitions().iter().find(|p| p.leader() < 0) {
        return Finding::Trouble(Reason::NoLeader, format!("partition {} has none", headless.id()));
    }
    let lacking = topic.partitions().iter().filter(|p| p.isr().len() < p.replicas().len());
    lacking.min_by_key(|p| p.isr().len()).map_or(Finding::Healthy, |worst| {
        let (in_sync, all) = (worst.isr().len(), worst.replicas().len());
        Finding::UnderReplicated(in_sync, format!("partition {}: {in_sync} of {all} replicas in sync", worst.id()))
    })
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
