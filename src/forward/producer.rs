//! Runs one librdkafka producer and the thread that polls the producer. Posts each delivery report to the mailbox, together
//! with the ticket of the record. Does not handle failures: the supervisor replaces a failed producer.
//!
//! The poll thread ends the native client of a retired producer. The forwarder therefore neither waits for this end nor needs a
//! new thread for it, and keeps running even if librdkafka ends slowly or the process has reached its thread limit.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tracing::debug;

use super::client_error::{CauseCertainty, ClientError, FAILED_CONNECTION};
use super::mailbox::{DeliveryReport, Mailbox};
use super::settings::setup_failure;
use super::tokens::TokenSource;

/// Callbacks that librdkafka calls on the poll thread.
pub(super) struct ProducerCallbacks {
    mailbox: Arc<Mailbox>,
    generation: u64,
    /// Gets the tokens of the login; `None` if hookhold logs in without tokens.
    tokens: Option<TokenSource>,
}

/// librdkafka's native producer with hookhold's callbacks.
pub(super) type NativeProducer = BaseProducer<ProducerCallbacks>;

/// A running producer. rdkafka's `FutureProducer` is not suitable: it sleeps when its queue is full, and it reorders records.
pub(super) struct Producer {
    native: Arc<NativeProducer>,
    retired: Arc<AtomicBool>,
    /// Receives a message when the poll thread has dropped the native client.
    ended: mpsc::Receiver<()>,
}

impl Producer {
    /// Creates the native client and starts the thread that polls the client. librdkafka connects in the background. Returns an
    /// error text if the client cannot be created or the thread cannot be started.
    pub(super) fn start(
        config: &ClientConfig,
        tokens: Option<TokenSource>,
        mailbox: &Arc<Mailbox>,
        generation: u64,
    ) -> Result<Producer, String> {
        let callbacks = ProducerCallbacks { mailbox: mailbox.clone(), generation, tokens };
        let native: Arc<NativeProducer> = Arc::new(config.create_with_context(callbacks).map_err(setup_failure)?);
        let retired = Arc::new(AtomicBool::new(false));
        let (done, ended) = mpsc::channel();
        let work = {
            let (native, retired) = (native.clone(), retired.clone());
            move || {
                poll(&native, &retired);
                drop(native);
                let _ = done.send(());
            }
        };
        let thread = thread::Builder::new().name(format!("kafka-poll-{generation}"));
        thread
            .spawn(work)
            .map_err(|error| format!("cannot start the poll thread: {error}; raise the thread limit (TasksMax in systemd)"))?;
        Ok(Producer { native, retired, ended })
    }

    /// Hands a record to librdkafka. Never blocks the calling thread.
    pub(super) fn send(&self, record: BaseRecord<'_, str, [u8], usize>) -> Result<(), RDKafkaErrorCode> {
        self.native.send(record).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
    }

    /// Returns the cause of the producer's fatal error; `None` if the producer has had no fatal error.
    pub(super) fn fatal_cause(&self) -> Option<RDKafkaErrorCode> {
        self.native.client().fatal_error().map(|(code, _)| code)
    }

    /// Returns a handle to the native client, for metadata probes.
    pub(super) fn native(&self) -> Arc<NativeProducer> {
        self.native.clone()
    }

    /// Purges the records in flight and ends the native client. The poll thread performs both steps, because librdkafka
    /// waits for its own broker threads while it ends a client. The returned receiver gets a message when the client
    /// has ended.
    pub(super) fn retire(self) -> mpsc::Receiver<()> {
        drop(self.native);
        self.retired.store(true, Ordering::Release);
        self.ended
    }
}

/// Polls the native client until the producer is retired. The client calls hookhold's callbacks during a poll. Reports a panic
/// in a callback as a fatal error. Otherwise the delivery reports would stop without an error in the log.
fn poll(native: &NativeProducer, retired: &AtomicBool) {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        while !retired.load(Ordering::Acquire) {
            native.poll(POLL_SLICE);
        }
    }));
    if polled.is_err() {
        native.context().report_fatal("the poll thread panicked; report this bug");
        // Hold this thread's handle until the producer has been retired, so that the forwarder's thread does not drop the last
        // handle. Dropping the last handle blocks.
        while !retired.load(Ordering::Acquire) {
            thread::sleep(POLL_SLICE);
        }
    }
}

impl ProducerCallbacks {
    fn report_fatal(&self, reason: &str) {
        self.mailbox.post(|updates| updates.fatal = Some((self.generation, reason.to_owned())));
    }
}

impl ProducerContext for ProducerCallbacks {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, ticket: usize) {
        let result = match delivery {
            Ok(record) => {
                self.mailbox.watch(ticket, record.topic(), record.partition(), record.offset());
                Ok(())
            }
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        let generation = self.generation;
        self.mailbox.post(|updates| updates.reports.push(DeliveryReport { generation, ticket, result }));
    }
}

impl ClientContext for ProducerCallbacks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Gets a token for the login. librdkafka asks for one when the client starts and before a token expires, and reports a failure
    /// as an error of the client. The poll thread waits for the token, so delivery reports wait with it.
    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.tokens.as_ref().ok_or("no token endpoint is configured")?.fetch()
    }

    /// Writes librdkafka's messages to the log at debug level only, because librdkafka repeats them at each attempt to connect.
    /// hookhold itself logs the important changes, for example when it blocks a topic. librdkafka says only in its log, and not
    /// as an error, why a broker has closed a connection: for example because the port expects TLS.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", "{facility}: {message}");
        let code = RDKafkaErrorCode::BrokerTransportFailure;
        if facility == FAILED_CONNECTION && ClientError::new(code, message).certainty > CauseCertainty::Unknown {
            self.mailbox.post(|updates| updates.client_errors.push((code, message.to_owned())));
        }
    }

    /// Passes an error that concerns the whole Kafka client to the mailbox. rdkafka calls this function twice per error, so
    /// every match arm must be safe to run twice.
    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", "{error}: {reason}");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.report_fatal(reason),
            Some(RDKafkaErrorCode::AllBrokersDown) => self.mailbox.post(|updates| updates.brokers_down = true),
            Some(code) => self.mailbox.post(|updates| updates.client_errors.push((code, reason.to_owned()))),
            None => {}
        }
    }
}

/// Timeout of one poll. The poll thread therefore notices within this time that the producer has been retired.
const POLL_SLICE: Duration = Duration::from_millis(100);
