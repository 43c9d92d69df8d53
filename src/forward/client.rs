//! Starts the Kafka producer, replaces the producer after a permanent failure or a long stall, and ends the producer. Does not
//! depend on topic queues: after a replacement, the worker rewinds the queues.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use tracing::{error, info};

use super::backoff::Backoff;
use super::connection::{Connection, ConnectionStatus};
use super::kafka_error::{
    BlockReason, REBUILD_REASONS, REBUILT_RECONFIGURED, REBUILT_STUCK, REBUILT_UNAUTHORIZED, rebuild_reason,
};
use super::mailbox::Mailbox;
use super::probe;
use super::producer::Producer;
use super::settings::{CLIENT_ID, producer_config};
use super::tokens::TokenSource;
use super::topic_health::STUCK_AFTER;
use crate::metrics::Metrics;

/// Kafka client that runs at most one producer and at most one metadata probe.
pub(super) struct KafkaClient {
    config: ClientConfig,
    /// Token endpoint of the login; an error text if it is invalid, which the check of the configuration excludes.
    tokens: Result<Option<TokenSource>, String>,
    /// Name by which the brokers know the client, unless the operator has set another one.
    id: String,
    mailbox: Arc<Mailbox>,
    metrics: Arc<Metrics>,
    state: ClientState,
    /// Generation of the running producer, or of the next producer if none runs. Delivery reports with a lower
    /// generation are outdated.
    generation: u64,
    backoff: Backoff,
    connection: Connection,
    /// True while a metadata probe runs. A probe may still run after its producer has been retired.
    probing: bool,
}

enum ClientState {
    /// No producer runs.
    Waiting {
        /// Start time of the next producer.
        start_at: Instant,
        /// Error of the last attempt to start a producer; `None` if the last attempt did not fail. While there is such an
        /// error, every topic is blocked.
        setup_error: Option<String>,
    },
    Running {
        producer: Producer,
        started_at: Instant,
        /// True if Kafka has acknowledged at least one record of this producer.
        proven: bool,
        replacement: Option<Replacement>,
    },
}

/// A scheduled replacement of the producer.
pub(super) struct Replacement {
    /// Value of the label `reason` of `hookhold_producer_rebuilds_total`.
    pub(super) reason: &'static str,
    detail: String,
    /// Deadline for the replacement. The worker replaces the producer earlier if no topic makes progress.
    pub(super) by: Instant,
}

/// A completed replacement of the producer.
pub(super) struct Replaced {
    pub(super) detail: String,
    /// Reason for blocking the topics that had records in flight; `None` if only the settings have changed, or if Kafka had
    /// acknowledged a record of the replaced producer. If Kafka had acknowledged no record, the next producer may fail in the same
    /// way, so the worker blocks the topics.
    pub(super) block: Option<BlockReason>,
}

impl KafkaClient {
    /// Creates a client for event bodies of up to `max_body` bytes. `instance` tells the brokers this instance of hookhold apart
    /// from others. The start of the first producer is due immediately.
    pub(super) fn new(
        instance: &str,
        librdkafka: &[(String, String)],
        max_body: usize,
        mailbox: Arc<Mailbox>,
        status: Arc<ConnectionStatus>,
        metrics: Arc<Metrics>,
        now: Instant,
    ) -> KafkaClient {
        for reason in REBUILD_REASONS {
            metrics.forward.producer_rebuilds.with_label_values(&[reason]);
        }
        let id = format!("{CLIENT_ID}-{instance}");
        KafkaClient {
            config: producer_config(librdkafka, max_body, &id),
            tokens: TokenSource::from_properties(librdkafka),
            id,
            mailbox,
            connection: Connection::new(librdkafka, status, metrics.clone(), now),
            metrics,
            state: ClientState::Waiting { start_at: now, setup_error: None },
            generation: 0,
            backoff: Backoff::new(REBUILD_AFTER.0, REBUILD_AFTER.1),
            probing: false,
        }
    }

    /// Returns the running producer; `None` if no producer runs.
    pub(super) fn producer(&self) -> Option<&Producer> {
        match &self.state {
            ClientState::Running { producer, .. } => Some(producer),
            ClientState::Waiting { .. } => None,
        }
    }

    /// Returns true if the worker may send records: a producer runs, and no replacement is scheduled.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, ClientState::Running { replacement: None, .. })
    }

    /// Returns true if `generation` is the generation of the current producer.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        generation == self.generation
    }

    /// Notes that Kafka has acknowledged a record of the running producer.
    pub(super) fn acknowledged(&mut self, now: Instant) {
        self.connection.answered(now);
        if let ClientState::Running { proven, .. } = &mut self.state {
            *proven = true;
        }
    }

    /// Returns the state of the connection to the cluster.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns the state of the connection to the cluster, so that the caller can report what the cluster has done.
    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Returns the reason and the detail for blocking a topic while no broker answers. `otherwise` is the detail if the client has
    /// reported no error since the last answer.
    pub(super) fn unreachable_reason(&self, otherwise: &str) -> (BlockReason, String) {
        let error = self.connection.error(otherwise);
        (error.reason, error.detail)
    }

    /// Returns true if a new metadata probe can start: a producer runs, and no other probe runs.
    pub(super) fn can_probe(&self) -> bool {
        !self.probing && self.producer().is_some()
    }

    /// Starts a metadata probe of `topic`. `queue` is the index of the topic's queue; `None` if only the connection matters. Returns
    /// an error if the probe's thread cannot be started.
    pub(super) fn probe(&mut self, topic: &Arc<str>, queue: Option<usize>) -> io::Result<()> {
        let ClientState::Running { producer, .. } = &self.state else { return Ok(()) };
        let post = probe::Post { mailbox: self.mailbox.clone(), generation: self.generation, queue };
        probe::start(producer.native(), topic.clone(), post)?;
        self.probing = true;
        Ok(())
    }

    /// Allows the next probe to start, because the running probe has ended.
    pub(super) fn probe_finished(&mut self) {
        self.probing = false;
    }

    /// Schedules the immediate replacement of a producer that has failed permanently.
    pub(super) fn producer_failed(&mut self, detail: String, now: Instant) {
        let ClientState::Running { producer, replacement, .. } = &mut self.state else { return };
        let cause = producer.fatal_cause().unwrap_or(RDKafkaErrorCode::Fail);
        *replacement = Some(Replacement { reason: rebuild_reason(cause), detail, by: now });
    }

    /// Schedules the replacement of a producer that makes no progress. Does nothing if a replacement is already
    /// scheduled.
    pub(super) fn producer_stuck(&mut self, detail: String, now: Instant) {
        let ClientState::Running { replacement, .. } = &mut self.state else { return };
        let by = now + LET_OTHERS_FINISH;
        replacement.get_or_insert_with(|| Replacement { reason: REBUILT_STUCK, detail, by });
    }

    /// Makes each later producer use other settings. Schedules the replacement of the running producer: it gets some time to finish
    /// its records in flight.
    pub(super) fn reconfigure(&mut self, librdkafka: &[(String, String)], max_body: usize, now: Instant) {
        self.config = producer_config(librdkafka, max_body, &self.id);
        self.tokens = TokenSource::from_properties(librdkafka);
        self.connection.settings_changed(librdkafka, now);
        self.backoff.reset();
        match &mut self.state {
            ClientState::Waiting { start_at, .. } => *start_at = now,
            ClientState::Running { replacement, .. } => {
                let (detail, by) = ("the settings have changed".to_owned(), now + LAST_ACKNOWLEDGEMENTS);
                *replacement = Some(Replacement { reason: REBUILT_RECONFIGURED, detail, by });
            }
        }
    }

    /// Returns the scheduled replacement; `None` if no replacement is scheduled.
    pub(super) fn replacement(&self) -> Option<&Replacement> {
        match &self.state {
            ClientState::Running { replacement, .. } => replacement.as_ref(),
            ClientState::Waiting { .. } => None,
        }
    }

    /// Performs the scheduled replacement: retires the producer, and schedules the next producer to start after a pause.
    /// Returns `None` if no replacement is scheduled.
    pub(super) fn replace(&mut self, now: Instant) -> Option<Replaced> {
        let ClientState::Running { started_at, proven, replacement, .. } = &mut self.state else { return None };
        let Replacement { reason, detail, .. } = replacement.take()?;
        let (started_at, proven) = (*started_at, *proven);
        self.metrics.forward.producer_rebuilds.with_label_values(&[reason]).inc();
        if now > started_at + STUCK_AFTER {
            self.backoff.reset();
        }
        let is_failure = reason != REBUILT_RECONFIGURED;
        let pause = if is_failure { self.backoff.next_pause() } else { Duration::ZERO };
        if is_failure {
            error!(
                reason,
                error = detail,
                next_in = ?pause,
                "the Kafka producer failed; hookhold replaces the producer and sends unacknowledged events again"
            );
        } else {
            info!("the Kafka producer starts again with the new settings");
        }
        let waiting = ClientState::Waiting { start_at: now + pause, setup_error: None };
        if let ClientState::Running { producer, .. } = std::mem::replace(&mut self.state, waiting) {
            producer.retire();
        }
        self.generation += 1;
        let unproven = if reason == REBUILT_UNAUTHORIZED { BlockReason::NotAuthorized } else { BlockReason::Rejected };
        Some(Replaced { detail, block: (is_failure && !proven).then_some(unproven) })
    }

    /// Returns the time at which to start the next producer; `None` while a producer runs.
    pub(super) fn start_due(&self) -> Option<Instant> {
        match self.state {
            ClientState::Waiting { start_at, .. } => Some(start_at),
            ClientState::Running { .. } => None,
        }
    }

    /// Starts a producer. If the start fails, [`KafkaClient::setup_error`] returns the error, and the next attempt is
    /// due after a pause.
    pub(super) fn start(&mut self, now: Instant) {
        let start = |tokens| Producer::start(&self.config, tokens, &self.mailbox, self.generation);
        self.state = match self.tokens.clone().and_then(start) {
            Ok(producer) => {
                self.connection.ask_now(now);
                ClientState::Running { producer, started_at: now, proven: false, replacement: None }
            }
            Err(setup_error) => {
                self.connection.setup_failed(&setup_error, now);
                let pause = self.backoff.next_pause();
                error!(
                    error = setup_error,
                    retry_in = ?pause,
                    "cannot set up the Kafka client; events wait in the journal; run `hookhold check`"
                );
                ClientState::Waiting { start_at: now + pause, setup_error: Some(setup_error) }
            }
        };
    }

    /// Returns the error of the last attempt to start a producer; `None` if the last attempt did not fail.
    pub(super) fn setup_error(&self) -> Option<&str> {
        match &self.state {
            ClientState::Waiting { setup_error, .. } => setup_error.as_deref(),
            ClientState::Running { .. } => None,
        }
    }

    /// Ends the client and waits for its producer to end. The timeout is the time until `by`, but at least [`RETIRE_WITHIN`].
    pub(super) fn stop(self, by: Instant) {
        self.connection.withdraw();
        let ClientState::Running { producer, .. } = self.state else { return };
        let timeout = by.saturating_duration_since(Instant::now()).max(RETIRE_WITHIN);
        if producer.retire().recv_timeout(timeout).is_err() {
            error!("the Kafka client did not end within {timeout:?}; hookhold abandons the client");
        }
    }
}

/// Shortest and longest pause between a producer's failure and the start of the next producer, without jitter.
const REBUILD_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Longest delay of the replacement of a stuck producer. During the delay, topics that still make progress can finish their
/// records in flight.
const LET_OTHERS_FINISH: Duration = Duration::from_secs(30);
/// Time that a producer gets for its records in flight after its settings have changed.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(3);
/// Minimum timeout of [`KafkaClient::stop`].
const RETIRE_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the brokers' logs and quotas would not tell the instances apart.
    #[test]
    fn the_client_id_names_the_instance() {
        let client = |instance: &str, properties: &[(String, String)]| {
            KafkaClient::new(instance, properties, 0, Arc::default(), Arc::default(), Arc::default(), Instant::now())
        };
        let id = |client: &KafkaClient| client.config.get("client.id").map(str::to_owned);
        let mut first = client("5bd1", &[]);
        assert_eq!(id(&first).as_deref(), Some("hookhold-5bd1"));
        first.reconfigure(&[("linger.ms".to_owned(), "1".to_owned())], 0, Instant::now());
        assert_eq!(id(&first).as_deref(), Some("hookhold-5bd1"), "a reload keeps the name");
        assert_eq!(id(&client("5bd1", &[("client.id".to_owned(), "own".to_owned())])).as_deref(), Some("own"));
    }
}
