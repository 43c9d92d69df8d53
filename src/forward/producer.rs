//! Runs one librdkafka producer and the thread that polls it. Posts delivery reports to the mailbox, each with the
//! ticket of its record. The supervisor handles failures: it replaces a failed producer and never repairs it.
//!
//! Ending a producer does not block the forwarder and does not start a thread. At its limit on tasks, the process
//! cannot start threads, and the forwarder must keep running.

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

use super::mailbox::{DeliveryReport, Mailbox};
use super::settings::setup_failure;

/// Callbacks from librdkafka. They run on the poll thread.
pub(super) struct ProducerCallbacks {
    mailbox: Arc<Mailbox>,
    generation: u64,
}

/// Native client with hookhold's callbacks.
pub(super) type NativeProducer = BaseProducer<ProducerCallbacks>;

/// A running producer. `FutureProducer` is not used, because it sleeps when its queue is full and reorders records.
pub(super) struct Producer {
    native: Arc<NativeProducer>,
    retired: Arc<AtomicBool>,
    /// Receives a message when the poll thread has dropped the native client.
    ended: mpsc::Receiver<()>,
}

impl Producer {
    /// Creates the native client and starts polling it. librdkafka connects in the background.
    pub(super) fn start(config: &ClientConfig, mailbox: &Arc<Mailbox>, generation: u64) -> Result<Producer, String> {
        let callbacks = ProducerCallbacks { mailbox: mailbox.clone(), generation };
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
        thread.spawn(work).map_err(|error| format!("cannot start the poll thread: {error}"))?;
        Ok(Producer { native, retired, ended })
    }

    /// Hands a record to librdkafka; never blocks.
    pub(super) fn send(&self, record: BaseRecord<'_, str, [u8], usize>) -> Result<(), RDKafkaErrorCode> {
        self.native.send(record).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
    }

    /// Returns the cause of a fatal error; `None` if there was no fatal error.
    pub(super) fn fatal_cause(&self) -> Option<RDKafkaErrorCode> {
        self.native.client().fatal_error().map(|(code, _)| code)
    }

    /// Returns the native client, for probes.
    pub(super) fn native(&self) -> Arc<NativeProducer> {
        self.native.clone()
    }

    /// Ends the native client and purges its records in flight. The poll thread performs both steps, because librdkafka
    /// waits for its broker threads meanwhile. The returned receiver gets a message when the client has ended.
    pub(super) fn retire(self) -> mpsc::Receiver<()> {
        drop(self.native);
        self.retired.store(true, Ordering::Release);
        self.ended
    }
}

/// Serves callbacks until the producer is retired. Reports a panic as a fatal error, because the panic would otherwise
/// end all acknowledgements silently.
fn poll(native: &NativeProducer, retired: &AtomicBool) {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        while !retired.load(Ordering::Acquire) {
            native.poll(POLL_SLICE);
        }
    }));
    if polled.is_err() {
        native.context().report_fatal("the poll thread panicked; report this bug");
        // The native client must be dropped on this thread, not on the forwarder's.
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
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        let generation = self.generation;
        self.mailbox.post(|updates| updates.reports.push(DeliveryReport { generation, ticket, result }));
    }
}

impl ClientContext for ProducerCallbacks {
    /// Logs at debug level only, because librdkafka repeats its lines at each attempt to connect. hookhold logs the
    /// important changes itself.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", "{facility}: {message}");
    }

    /// Discards statistics without parsing them, because hookhold does not use them. librdkafka reports statistics only
    /// if the operator enables them.
    fn stats_raw(&self, _: &[u8]) {}

    /// Posts client-wide errors. rdkafka calls this function twice per error, so every arm must be safe to run twice.
    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", "{error}: {reason}");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.report_fatal(reason),
            Some(RDKafkaErrorCode::AllBrokersDown) => self.mailbox.post(|updates| updates.brokers_down = true),
            Some(code) => self.mailbox.post(|updates| updates.client_error = Some((code, reason.to_owned()))),
            None => {}
        }
    }
}

/// Longest time until the poll thread notices that the producer is retired.
const POLL_SLICE: Duration = Duration::from_millis(100);
