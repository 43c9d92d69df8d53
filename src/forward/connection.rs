//! State of the connection to the Kafka cluster, which hookhold knows without traffic: it asks the cluster for metadata when the
//! client starts, and whenever the cluster has not answered for a while.
//!
//! librdkafka reports that all brokers are down even if a broker has only closed an idle connection. So only a request without an
//! answer shows that the cluster cannot be reached. The client's errors since the last answer then show why.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use serde::Serialize;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::client_error::{CauseCertainty, ClientError, own_certificate};
use super::kafka_error::BlockReason;
use crate::metrics::Metrics;

/// State of the connection to the Kafka cluster, as reported by `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionSnapshot {
    /// True if the cluster has answered the last request.
    pub connected: bool,
    /// Reason why the cluster cannot be reached; `None` while it can be reached, and before the first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<ConnectionFailure>,
    /// Time since the connection has been in this state, in seconds.
    pub seconds: u64,
}

/// Reason why the Kafka cluster cannot be reached.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionFailure {
    /// Word for the reason: a value of the label `reason` of `hookhold_kafka_connection_failed`.
    pub reason: &'static str,
    /// Text of the Kafka client's error.
    pub detail: String,
    /// Action that the operator can take.
    pub remedy: &'static str,
}

/// State of the connection that other threads read.
#[derive(Default)]
pub(super) struct ConnectionStatus(Mutex<Option<(ConnectionState, Instant)>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum ConnectionState {
    /// The cluster has not answered yet.
    Connecting,
    /// The cluster has answered the last request.
    Connected,
    /// The cluster has not answered the last request, or no client can be created.
    Failed(ClientError),
}

/// State of the connection, with the schedule of the requests for metadata.
pub(super) struct Connection {
    state: ConnectionState,
    /// Time at which the state began. A change of the reason does not begin another state.
    since: Instant,
    /// File with hookhold's own certificate; `None` if hookhold has none.
    certificate: Option<PathBuf>,
    /// Error of the client since the last answer with the most certain cause, and its time; `None` if there is no such error.
    last_error: Option<(ClientError, Instant)>,
    ask_at: Instant,
    pauses: Backoff,
    remind_at: Instant,
    status: Arc<ConnectionStatus>,
    metrics: Arc<Metrics>,
}

impl Connection {
    /// Creates the state of a client that has not connected yet. The first request for metadata is due at once.
    pub(super) fn new(
        librdkafka: &[(String, String)],
        status: Arc<ConnectionStatus>,
        metrics: Arc<Metrics>,
        now: Instant,
    ) -> Connection {
        let connection = Connection {
            state: ConnectionState::Connecting,
            since: now,
            certificate: own_certificate(librdkafka),
            last_error: None,
            ask_at: now,
            pauses: Backoff::new(ASK_AGAIN_AFTER.0, ASK_AGAIN_AFTER.1),
            remind_at: now,
            status,
            metrics,
        };
        connection.publish();
        connection
    }

    /// Notes that the cluster has answered a request.
    pub(super) fn answered(&mut self, now: Instant) {
        self.last_error = None;
        self.ask_at = now + ASK_AFTER;
        if self.state != ConnectionState::Connected {
            if let ConnectionState::Failed(error) = &self.state {
                let (reason, seconds) = (error.reason.word(), (now - self.since).as_secs());
                info!(reason, seconds, "the Kafka cluster can be reached again");
            } else {
                info!("connected to the Kafka cluster");
            }
            self.pauses.reset();
            (self.state, self.since) = (ConnectionState::Connected, now);
            self.publish();
        }
    }

    /// Notes an error that the Kafka client has reported. An error whose cause is less certain replaces another one only after
    /// [`CERTAIN_FOR`].
    pub(super) fn note_error(&mut self, code: RDKafkaErrorCode, text: &str, now: Instant) {
        let error = ClientError::new(code, text);
        let is_less_certain = |(last, at): &(ClientError, Instant)| error.certainty < last.certainty && now < *at + CERTAIN_FOR;
        if !self.last_error.as_ref().is_some_and(is_less_certain) {
            self.last_error = Some((error.with_expiry(self.certificate.as_deref()), now));
        }
    }

    /// Notes that the cluster has not answered a request. `otherwise` describes the failure if the client has reported no error.
    pub(super) fn unanswered(&mut self, otherwise: &str, now: Instant) {
        self.postpone(now);
        self.fail(self.error(otherwise), now);
    }

    /// Notes that no client can be created, for example because a file is missing.
    pub(super) fn setup_failed(&mut self, error: &str, now: Instant) {
        let detail = format!("cannot set up the Kafka client: {error}");
        let remedy = "run `hookhold check`, and correct [kafka]";
        self.enter_failed(ClientError { reason: BlockReason::Rejected, detail, remedy, certainty: CauseCertainty::Certain }, now);
    }

    /// Returns the error that explains why the cluster does not answer. `otherwise` describes the failure if the client has
    /// reported no error.
    pub(super) fn error(&self, otherwise: &str) -> ClientError {
        let reason = BlockReason::BrokerAway;
        let unknown =
            || ClientError { reason, detail: otherwise.to_owned(), remedy: reason.remedy(), certainty: CauseCertainty::Unknown };
        self.last_error.as_ref().map_or_else(unknown, |(error, _)| error.clone())
    }

    /// Makes the next request due at once, because the client starts or has lost its last connection.
    pub(super) fn ask_now(&mut self, now: Instant) {
        self.ask_at = now;
    }

    /// Postpones the next request, because no request can be sent now. Returns the length of the pause.
    pub(super) fn postpone(&mut self, now: Instant) -> Duration {
        let pause = self.pauses.next_pause();
        self.ask_at = now + pause;
        pause
    }

    /// Forgets the earlier errors, because the settings have changed.
    pub(super) fn settings_changed(&mut self, librdkafka: &[(String, String)], now: Instant) {
        self.certificate = own_certificate(librdkafka);
        self.last_error = None;
        self.pauses.reset();
        self.ask_at = now;
    }

    /// Returns the time at which the next request for metadata is due.
    pub(super) fn ask_at(&self) -> Instant {
        self.ask_at
    }

    fn fail(&mut self, error: ClientError, now: Instant) {
        let (was_failed, former) = match &self.state {
            ConnectionState::Failed(former) => (true, Some(former.reason)),
            _ => (false, None),
        };
        let is_new_reason = former != Some(error.reason);
        if is_new_reason || now >= self.remind_at {
            let seconds = if was_failed { (now - self.since).as_secs() } else { 0 };
            let (reason, remedy) = (error.reason.word(), error.remedy);
            warn!(reason, error = error.detail, seconds, "cannot reach the Kafka cluster; events wait in the journal; {remedy}");
            self.remind_at = now + REMIND_AFTER;
        }
        self.enter_failed(error, now);
    }

    fn enter_failed(&mut self, error: ClientError, now: Instant) {
        if !matches!(self.state, ConnectionState::Failed(_)) {
            self.since = now;
        }
        self.state = ConnectionState::Failed(error);
        self.publish();
    }

    /// Publishes the connection as not connected when the forwarder stops. The metrics outlive the forwarder.
    pub(super) fn withdraw(&self) {
        self.metrics.forward.connected.with_label_values::<&str>(&[]).set(0);
        for reason in CONNECTION_REASONS {
            self.metrics.forward.connection_failed.with_label_values(&[reason.word()]).set(0);
        }
    }

    /// Publishes the state for `/readyz` and in the metrics.
    fn publish(&self) {
        let forward = &self.metrics.forward;
        forward.connected.with_label_values::<&str>(&[]).set((self.state == ConnectionState::Connected).into());
        let reason = match &self.state {
            ConnectionState::Failed(error) => Some(error.reason),
            ConnectionState::Connecting | ConnectionState::Connected => None,
        };
        for possible in CONNECTION_REASONS {
            forward.connection_failed.with_label_values(&[possible.word()]).set((reason == Some(possible)).into());
        }
        *self.status.lock() = Some((self.state.clone(), self.since));
    }
}

impl ConnectionStatus {
    /// Returns the current state of the connection.
    pub(super) fn snapshot(&self) -> ConnectionSnapshot {
        let published = self.lock().clone();
        let (state, seconds) =
            published.map_or((ConnectionState::Connecting, 0), |(state, since)| (state, since.elapsed().as_secs()));
        let failure = match &state {
            ConnectionState::Failed(error) => {
                Some(ConnectionFailure { reason: error.reason.word(), detail: error.detail.clone(), remedy: error.remedy })
            }
            ConnectionState::Connecting | ConnectionState::Connected => None,
        };
        ConnectionSnapshot { connected: state == ConnectionState::Connected, failure, seconds }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(ConnectionState, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reasons why the cluster cannot be reached.
const CONNECTION_REASONS: [BlockReason; 4] =
    [BlockReason::BrokerAway, BlockReason::Tls, BlockReason::Authentication, BlockReason::Rejected];
/// Time without an answer after which hookhold asks a cluster for metadata.
const ASK_AFTER: Duration = Duration::from_secs(30);
/// Shortest and longest pause after a request without an answer, without jitter.
const ASK_AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Time after which the log repeats why the cluster cannot be reached.
const REMIND_AFTER: Duration = Duration::from_secs(600);
/// Time for which an error with a certain cause, such as a wrong password, outweighs an error with a less certain one. librdkafka
/// repeats an error that has not changed only every 30 seconds.
const CERTAIN_FOR: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_with_the_most_certain_cause_explains_why_the_cluster_does_not_answer() {
        let (metrics, status, now) = (Arc::new(Metrics::new()), Arc::<ConnectionStatus>::default(), Instant::now());
        let mut connection = Connection::new(&[], status.clone(), metrics, now);
        let failure = || status.snapshot().failure.map(|failure| failure.reason);
        assert_eq!((status.snapshot().connected, failure()), (false, None));
        connection.note_error(RDKafkaErrorCode::Authentication, "SASL authentication error: wrong password", now);
        connection.note_error(RDKafkaErrorCode::BrokerTransportFailure, "Connection timed out", now);
        assert_eq!(failure(), None, "an error alone does not show that the cluster cannot be reached");
        connection.unanswered("no answer", now);
        assert_eq!(failure(), Some("authentication"));
        let later = now + CERTAIN_FOR;
        connection.note_error(RDKafkaErrorCode::BrokerTransportFailure, "Connection timed out", later);
        connection.unanswered("no answer", later);
        assert_eq!(failure(), Some("broker_away"));
        connection.answered(later);
        assert_eq!((status.snapshot().connected, failure()), (true, None));
        connection.unanswered("no answer", later);
        assert_eq!(status.snapshot().failure.map(|failure| failure.detail).as_deref(), Some("no answer"));
    }
}
