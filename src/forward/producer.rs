//! One librdkafka producer and the thread that polls it. Reports go to the inbox by ticket; nothing in here decides what a
//! failure means. A producer is replaced rather than repaired. Its end never holds the forwarder up, and takes no thread of its
//! own: under a limit on tasks there may be none, and the forwarder has to outlive that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tracing::debug;

use super::mailbox::{Mailbox, Report};
use super::settings::obstacle;

/// What librdkafka calls back; runs on the poll thread.
pub(super) struct Callbacks {
    inbox: Arc<Mailbox>,
    generation: u64,
}

/// The native client with our callbacks.
pub(super) type Client = BaseProducer<Callbacks>;

/// A running producer. `FutureProducer` is not used: it sleeps when its queue is full, and reorders.
pub(super) struct Producer {
    client: Arc<Client>,
    ending: Arc<AtomicBool>,
    /// Hears when the poll thread has let the client go.
    over: mpsc::Receiver<()>,
}

impl Producer {
    /// Creates the client and starts polling it; connects in the background. Otherwise says what is in the way.
    pub fn start(config: &ClientConfig, inbox: &Arc<Mailbox>, generation: u64) -> Result<Producer, String> {
        let callbacks = Callbacks { inbox: inbox.clone(), generation };
        let client: Arc<Client> = Arc::new(config.create_with_context(callbacks).map_err(obstacle)?);
        let ending = Arc::new(AtomicBool::new(false));
        let (done, over) = mpsc::channel();
        let work = {
            let (client, ending) = (client.clone(), ending.clone());
            move || {
                poll(&client, &ending);
                drop(client);
                let _ = done.send(());
            }
        };
        let thread = thread::Builder::new().name(format!("kafka-poll-{generation}"));
        thread.spawn(work).map_err(|error| format!("no thread for it can be started: {error}"))?;
        Ok(Producer { client, ending, over })
    }

    /// Hands a record over; never blocks.
    pub fn send(&self, record: BaseRecord<'_, str, [u8], usize>) -> Result<(), RDKafkaErrorCode> {
        self.client.send(record).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
    }

    /// The error behind a fatal one.
    pub fn cause_of_death(&self) -> Option<RDKafkaErrorCode> {
        self.client.client().fatal_error().map(|(code, _)| code)
    }

    /// The native client, for probes.
    pub fn client(&self) -> Arc<Client> {
        self.client.clone()
    }

    /// Takes back everything in flight and ends the client, on the poll thread because librdkafka joins its broker threads
    /// there. The receiver hears when it is over.
    pub fn retire(self) -> mpsc::Receiver<()> {
        drop(self.client);
        self.ending.store(true, Ordering::Release);
        self.over
    }
}

/// Serves callbacks until the producer is retired. A panic in here would otherwise stop all acknowledgements in silence, so
/// it counts as the producer's death.
fn poll(client: &Client, ending: &AtomicBool) {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        while !ending.load(Ordering::Acquire) {
            client.poll(POLL_SLICE);
        }
    }));
    if polled.is_err() {
        client.context().die("its poll thread panicked");
        // The client has to end here and not on the forwarder's thread.
        while !ending.load(Ordering::Acquire) {
            thread::sleep(POLL_SLICE);
        }
    }
}

impl Callbacks {
    fn die(&self, why: &str) {
        self.inbox.leave(|news| news.fatal = Some((self.generation, why.to_owned())));
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, ticket: usize) {
        let result = match delivery {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        let generation = self.generation;
        self.inbox.leave(|news| news.reports.push(Report { generation, ticket, result }));
    }
}

impl ClientContext for Callbacks {
    /// librdkafka repeats itself at each attempt to connect; what matters of it has a line of our own.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", "{facility}: {message}");
    }

    /// Statistics go nowhere yet; this spares their parsing if the operator asks for them.
    fn stats_raw(&self, _: &[u8]) {}

    /// rdkafka calls this twice per event; all of it may happen twice.
    fn error(&self, error: KafkaError, why: &str) {
        debug!(target: "librdkafka", "{error}: {why}");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.die(why),
            Some(RDKafkaErrorCode::AllBrokersDown) => self.inbox.leave(|news| news.brokers_down = true),
            Some(code) => self.inbox.leave(|news| news.client_error = Some((code, why.to_owned()))),
            None => {}
        }
    }
}

/// How long the end of a producer may wait for its poll thread.
const POLL_SLICE: Duration = Duration::from_millis(100);
