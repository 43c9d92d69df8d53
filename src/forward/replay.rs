//! Sends stored events to Kafka again, in order, with a producer of its own. Several records are in flight at a time. The running
//! forwarder does not take part, and no cursor moves. Knows neither the selection of the events nor the place where a replay resumes.
//!
//! If the brokers reject a batch, the rejected records are sent again in smaller groups, until Kafka rejects one record alone. Only then
//! is the event at fault. No other record is in flight during this search.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::Settings;
use super::backoff::Backoff;
use super::client_error::ClientError;
use super::kafka_error::{BlockReason, ErrorClass, classify};
use super::mailbox::{DeliveryReport, Mailbox, pack_ticket, unpack_ticket};
use super::producer::Producer;
use super::record::Envelope;
use super::redrive::{END_WITHIN, RedriveError, failure, unacknowledged};
use super::settings::{CLIENT_ID, producer_config};
use super::tokens::TokenSource;
use crate::clock::{Clock, SystemClock};
use crate::event::Position;
use crate::journal::StoredEvent;

/// Producer that sends stored events again.
pub struct Replayer {
    producer: Producer,
    mailbox: Arc<Mailbox>,
    settings: Settings,
    /// Id of the journal that has stored the events.
    instance: String,
    /// Id of the replay.
    replay: String,
    /// Time without an acknowledgement after which the replay stops.
    timeout: Duration,
    unsettled: UnsettledRecords,
    /// Search for the record at fault; `None` unless a record has failed.
    search: Option<FaultSearch>,
    results: ReplayProgress,
    /// Error that ends the replay.
    error: Option<RedriveError>,
    last_progress: Instant,
    pauses: Backoff,
    /// Time before which failed records are not sent again.
    paused_until: Instant,
    /// Error with the most specific cause since the last acknowledgement; `None` if the Kafka client has reported no error.
    client_error: Option<ClientError>,
}

/// Records that are in flight or have failed.
#[derive(Default)]
struct UnsettledRecords {
    /// Events that Kafka has not acknowledged, in ascending order of their sequences, and the acknowledged ones between them.
    records: VecDeque<ReplayRecord>,
    /// Total size of the bodies in `records`, in bytes.
    bytes: usize,
    /// Number of records with the state [`SendState::Sent`].
    sent: usize,
    /// Number of records with the state [`SendState::Failed`].
    failed: usize,
}

struct ReplayRecord {
    stored: StoredEvent,
    topic: Arc<str>,
    state: SendState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SendState {
    /// librdkafka has the record.
    Sent,
    /// The record has failed, and must be sent again.
    Failed,
    /// Kafka has acknowledged the record, or has rejected it because of the event itself.
    Done,
}

/// Search for the record at fault after a batch has failed. The failed records are sent again in groups.
struct FaultSearch {
    /// Maximum number of records in the next group.
    group: usize,
    /// True if the brokers have rejected records of the present group.
    is_rejected: bool,
    /// Sequence of the only record of the present group; `None` if the group has several records.
    alone: Option<u64>,
}

/// Results of a call of [`Replayer::advance`].
#[derive(Default)]
pub struct ReplayProgress {
    /// Number of records that Kafka has acknowledged.
    pub acknowledged: u64,
    /// Events whose records Kafka rejects because of the event itself, each with Kafka's error.
    pub rejected: Vec<(Position, String)>,
}

impl Replayer {
    /// Creates a Kafka client for events of the journal with the id `instance`. `replay` is the id of the replay, and `timeout` is the
    /// time without an acknowledgement after which the replay stops. The error says why librdkafka cannot create a client. Opens no
    /// connection before the first event.
    pub fn start(settings: Settings, instance: String, replay: String, timeout: Duration) -> Result<Replayer, String> {
        let mailbox = Arc::<Mailbox>::default();
        let config = producer_config(&settings.librdkafka, settings.max_body, &format!("{CLIENT_ID}-replay"));
        let tokens = TokenSource::from_properties(&settings.librdkafka)?;
        let producer = Producer::start(&config, tokens, &mailbox, 0)?;
        let now = Instant::now();
        Ok(Replayer {
            producer,
            mailbox,
            settings,
            instance,
            replay,
            timeout,
            unsettled: UnsettledRecords::default(),
            search: None,
            results: ReplayProgress::default(),
            error: None,
            last_progress: now,
            pauses: Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE),
            paused_until: now,
            client_error: None,
        })
    }

    /// Returns true if another event may be sent now.
    pub fn has_room(&self) -> bool {
        self.unsettled.records.len() < MAX_UNACKNOWLEDGED
            && self.unsettled.bytes < MAX_UNACKNOWLEDGED_BYTES
            && self.search.is_none()
    }

    /// Sends an event to `topic`. The events must arrive here in the order of their sequences.
    pub fn send(&mut self, stored: StoredEvent, topic: Arc<str>) {
        if self.unsettled.records.is_empty() {
            self.last_progress = Instant::now();
        }
        self.unsettled.bytes += stored.event.body().len();
        self.unsettled.records.push_back(ReplayRecord { stored, topic, state: SendState::Failed });
        self.unsettled.failed += 1;
        self.hand_over(self.unsettled.records.len() - 1);
    }

    /// Returns the sequence of the first event that is neither acknowledged nor rejected; `None` if there is no such event.
    pub fn first_unacknowledged(&self) -> Option<u64> {
        self.unsettled.records.front().map(|record| record.stored.position.seq)
    }

    /// Waits until Kafka answers, but not beyond `until`. Sends failed records again. Fails if the operator must remove the cause, or if
    /// Kafka has acknowledged nothing for the timeout.
    pub fn advance(&mut self, until: Instant) -> Result<ReplayProgress, RedriveError> {
        let is_paused = self.unsettled.sent == 0 && self.unsettled.failed > 0;
        self.mailbox.wait(Some(if is_paused { until.min(self.paused_until) } else { until }));
        let updates = self.mailbox.take();
        let errors = updates.client_errors.into_iter().map(|(code, text)| ClientError::new(code, &text));
        self.client_error = errors.chain(self.client_error.take()).max_by_key(|error| error.certainty);
        updates.reports.iter().for_each(|report| self.settle(report));
        while self.unsettled.records.front().is_some_and(|record| record.state == SendState::Done) {
            let done = self.unsettled.records.pop_front();
            self.unsettled.bytes -= done.map_or(0, |record| record.stored.event.body().len());
        }
        if self.unsettled.sent == 0 {
            self.send_failed();
        }
        if let (Some((_, error)), Some(record)) = (updates.fatal, self.unsettled.records.front()) {
            let topic = record.topic.to_string();
            self.error.get_or_insert(RedriveError::Blocked { topic, error, remedy: "repeat the command" });
        }
        let is_stalled = self.last_progress.elapsed() >= self.timeout;
        if let Some(record) = self.unsettled.records.front().filter(|_| is_stalled) {
            let error = unacknowledged(&record.topic, self.timeout, self.client_error.as_ref());
            self.error.get_or_insert(error);
        }
        match self.error.take() {
            // The results of this call come first, so that the caller counts them.
            Some(error) if self.results.is_empty() => Err(error),
            error => {
                self.error = error;
                Ok(std::mem::take(&mut self.results))
            }
        }
    }

    /// Ends the Kafka client. Records in flight may still reach Kafka.
    pub fn stop(self) {
        let _ = self.producer.retire().recv_timeout(END_WITHIN);
    }

    /// Sends the next group of failed records. Ends the search if no record has failed.
    fn send_failed(&mut self) {
        if self.unsettled.failed == 0 {
            self.search = None;
            return;
        }
        if Instant::now() < self.paused_until {
            return;
        }
        let group = match &self.search {
            Some(search) if search.is_rejected => search.group / 2,
            Some(search) if search.group > 0 => search.group.saturating_mul(2),
            _ => self.unsettled.failed / 2,
        };
        let failed = self.unsettled.records.iter().enumerate().filter(|(_, record)| record.state == SendState::Failed);
        let next: Vec<usize> = failed.map(|(index, _)| index).take(group.max(1)).collect();
        let alone = (next.len() == 1).then(|| self.unsettled.records[next[0]].stored.position.seq);
        self.search = Some(FaultSearch { group: next.len(), is_rejected: false, alone });
        next.into_iter().for_each(|index| self.hand_over(index));
    }

    /// Hands a failed record to librdkafka.
    fn hand_over(&mut self, index: usize) {
        let ReplayRecord { stored, topic, state } = &mut self.unsettled.records[index];
        let options = self.settings.record_options(stored.event.source());
        let envelope = Envelope::new(stored, &self.instance, options).replayed(&self.replay, SystemClock.now());
        match self.producer.send(envelope.record(stored, topic, pack_ticket(0, stored.position.seq))) {
            Ok(()) => {
                *state = SendState::Sent;
                self.unsettled.failed -= 1;
                self.unsettled.sent += 1;
            }
            // librdkafka rejects this record before it builds a batch.
            Err(code) if matches!(classify(code), ErrorClass::Record(_)) => {
                *state = SendState::Done;
                self.unsettled.failed -= 1;
                self.results.rejected.push((stored.position, code.to_string()));
            }
            Err(code) => {
                let topic = topic.clone();
                self.fail(code, &topic);
            }
        }
    }

    /// Processes the report on one record.
    fn settle(&mut self, report: &DeliveryReport) {
        let (_, seq) = unpack_ticket(report.ticket);
        let index = self.unsettled.records.partition_point(|record| record.stored.position.seq < seq);
        let found = self.unsettled.records.get_mut(index).filter(|record| record.stored.position.seq == seq);
        let Some(record) = found.filter(|record| record.state == SendState::Sent) else { return };
        let (position, topic) = (record.stored.position, record.topic.clone());
        self.unsettled.sent -= 1;
        record.state = SendState::Done;
        let is_alone = self.search.as_ref().is_some_and(|search| search.alone == Some(seq));
        match report.result {
            Ok(()) => {
                self.results.acknowledged += 1;
                self.client_error = None;
                self.pauses.reset();
            }
            Err(code) => match classify(code) {
                ErrorClass::Record(_) if is_alone => self.results.rejected.push((position, code.to_string())),
                class => {
                    record.state = SendState::Failed;
                    self.unsettled.failed += 1;
                    if !matches!(class, ErrorClass::Record(_)) {
                        return self.fail(code, &topic);
                    }
                    let none = FaultSearch { group: 0, is_rejected: false, alone: None };
                    let search = self.search.get_or_insert(none);
                    search.is_rejected = search.group > 0;
                }
            },
        }
        self.last_progress = Instant::now();
    }

    /// Reacts to an error that is not the fault of one record: sends the record again after a pause, or ends the replay if only an
    /// operator can remove the cause.
    fn fail(&mut self, code: RDKafkaErrorCode, topic: &str) {
        let may_pass = match classify(code) {
            ErrorClass::Environment(reason) => !NEEDS_AN_OPERATOR.contains(&reason),
            ErrorClass::Record(_) | ErrorClass::Producer | ErrorClass::Purged => false,
        };
        if !may_pass {
            self.error.get_or_insert(failure(code, topic));
        }
        self.search.get_or_insert(FaultSearch { group: 0, is_rejected: false, alone: None });
        let now = Instant::now();
        if now >= self.paused_until {
            self.paused_until = now + self.pauses.next_pause();
        }
    }
}

impl ReplayProgress {
    fn is_empty(&self) -> bool {
        self.acknowledged == 0 && self.rejected.is_empty()
    }
}

/// Errors of the cluster that remain until an operator acts.
const NEEDS_AN_OPERATOR: &[BlockReason] =
    &[BlockReason::TopicMissing, BlockReason::NotAuthorized, BlockReason::Authentication, BlockReason::Tls];
/// Maximum number of events that a replay has sent to Kafka and that Kafka has not acknowledged in order.
pub const MAX_UNACKNOWLEDGED: usize = 1_000;
/// Total size of the bodies of these events, in bytes. The last one may exceed it.
const MAX_UNACKNOWLEDGED_BYTES: usize = 16 << 20;
/// Shortest and longest pause before a record is sent again that has failed because of the cluster, without jitter.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
