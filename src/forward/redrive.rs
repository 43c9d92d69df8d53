//! Sends parked events to Kafka again, one at a time, with a producer of its own. The running forwarder does not take part, so an
//! operator can send parked events again whether hookhold runs or not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::Settings;
use super::client_error::ClientError;
use super::kafka_error::{ErrorClass, classify};
use super::mailbox::{Mailbox, pack_ticket};
use super::producer::Producer;
use super::record::Envelope;
use super::settings::{CLIENT_ID, producer_config};
use super::tokens::TokenSource;
use crate::journal::ParkedEvent;

/// Producer that sends parked events again.
pub struct Redriver {
    producer: Producer,
    mailbox: Arc<Mailbox>,
    settings: Settings,
    /// Error with the most specific cause; `None` if the Kafka client has reported no error.
    client_error: Option<ClientError>,
}

/// Reason why a parked event was not sent.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// Kafka has rejected the event again, because of the event itself. Other events may be sent.
    #[error("Kafka rejects the event again: {0}")]
    Rejected(String),
    /// Kafka does not accept events for this topic at present.
    #[error("{topic}: {error}; {remedy}")]
    Blocked {
        /// Topic to which the event was sent.
        topic: String,
        /// Text of Kafka's error.
        error: String,
        /// Action that the operator can take.
        remedy: &'static str,
    },
    /// Kafka has not acknowledged the event in time. It may have arrived nevertheless.
    #[error("{topic}: expected an acknowledgement within {} s, found none{}; {}", .timeout.as_secs(), .error, .remedy)]
    Unacknowledged {
        /// Topic to which the event was sent.
        topic: String,
        /// Time for which hookhold has waited.
        timeout: Duration,
        /// Error of the Kafka client in parentheses, or an empty text.
        error: String,
        /// Action that the operator can take.
        remedy: &'static str,
    },
}

impl Redriver {
    /// Creates a Kafka client. The error says why librdkafka cannot create one. Opens no connection before the first event.
    pub fn start(settings: Settings) -> Result<Redriver, String> {
        let mailbox = Arc::<Mailbox>::default();
        let mut config = producer_config(&settings.librdkafka, settings.max_body, &format!("{CLIENT_ID}-redrive"));
        // Each event waits for the acknowledgement of the event before it, so a batch has one record.
        config.remove("queue.buffering.max.ms").set("linger.ms", "0");
        let tokens = TokenSource::from_properties(&settings.librdkafka)?;
        let producer = Producer::start(&config, tokens, &mailbox, 0)?;
        Ok(Redriver { producer, mailbox, settings, client_error: None })
    }

    /// Sends one event to `topic`, and waits for the acknowledgement.
    pub fn send(&mut self, parked: &ParkedEvent, topic: &str) -> Result<(), RedriveError> {
        let stored = &parked.stored;
        let options = self.settings.record_options(stored.event.source());
        let envelope = Envelope::new(stored, &parked.instance, options).redriven(&parked.note);
        let sent = self.producer.send(envelope.record(stored, topic, pack_ticket(0, stored.position.seq)));
        sent.map_err(|code| failure(code, topic))?;
        let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
        loop {
            let updates = self.mailbox.take();
            let errors = updates.client_errors.into_iter().map(|(code, text)| ClientError::new(code, &text));
            self.client_error = errors.chain(self.client_error.take()).max_by_key(|error| error.certainty);
            if let Some(report) = updates.reports.into_iter().next() {
                return report.result.map_err(|code| failure(code, topic));
            }
            if Instant::now() >= deadline {
                return Err(unacknowledged(topic, ACKNOWLEDGED_WITHIN, self.client_error.as_ref()));
            }
            self.mailbox.wait(Some(deadline));
        }
    }

    /// Ends the Kafka client.
    pub fn stop(self) {
        let _ = self.producer.retire().recv_timeout(END_WITHIN);
    }
}

/// Returns the reason why the event of a record that failed with `code` was not sent.
pub(super) fn failure(code: RDKafkaErrorCode, topic: &str) -> RedriveError {
    match classify(code) {
        ErrorClass::Record(_) => RedriveError::Rejected(code.to_string()),
        ErrorClass::Environment(reason) => {
            RedriveError::Blocked { topic: topic.to_owned(), error: code.to_string(), remedy: reason.remedy() }
        }
        ErrorClass::Producer | ErrorClass::Purged => {
            RedriveError::Blocked { topic: topic.to_owned(), error: code.to_string(), remedy: "repeat the command" }
        }
    }
}

/// Returns the reason why an event was not sent that Kafka has not acknowledged within `timeout`. `found` is the error of the Kafka
/// client with the most specific cause.
pub(super) fn unacknowledged(topic: &str, timeout: Duration, found: Option<&ClientError>) -> RedriveError {
    let error = found.map(|error| format!(" ({})", error.detail)).unwrap_or_default();
    let remedy = found.map_or(CHECK_KAFKA, |error| error.remedy);
    RedriveError::Unacknowledged { topic: topic.to_owned(), timeout, error, remedy }
}

const CHECK_KAFKA: &str = "check that the brokers run, and that [kafka] is correct";
/// Time for which one event waits for its acknowledgement.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);
/// Time for which the end of the Kafka client may take.
pub(super) const END_WITHIN: Duration = Duration::from_secs(5);
