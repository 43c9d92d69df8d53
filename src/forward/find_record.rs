//! Finds the record of one event in a Kafka topic, for `hookhold inspect`. Reads the topic from the time at which the event was
//! received, because this is the timestamp of its record. Stores nothing in Kafka: the consumer reads assigned partitions and commits
//! no offset. Does not depend on the running forwarder.

use std::error::Error;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::Settings;
use super::client_end::end_in_background;
use super::client_error::{CauseCertainty, ClientError, FAILED_CONNECTION, own_certificate};
use super::kafka_error::BlockReason;
use super::partitioner;
use super::record::{self, REDRIVEN, REPLAY};
use super::settings::{CLIENT_ID, consumer_config, setup_failure};
use super::tokens::TokenSource;
use crate::journal::StoredEvent;
use crate::units::duration_text;

/// A record of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    /// Number of the partition.
    pub partition: i32,
    /// Offset of the record in the partition.
    pub offset: i64,
    /// True if the event was parked, and an operator has sent it to Kafka again.
    pub is_redriven: bool,
}

/// Result of a search for the record of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordSearch {
    /// The first record that the search has found.
    Found(FoundRecord),
    /// The search has read all records of the topic from the time of receipt on, and none of them is a record of the event.
    Absent {
        /// Number of the records that the search has read.
        records: u64,
        /// True if the topic no longer contains all records from that time.
        is_truncated: bool,
    },
    /// The time has passed before the search has read all these records.
    TimedOut {
        /// Number of the records that the search has read.
        records: u64,
    },
}

/// Reason why a search was not possible.
#[derive(Debug, thiserror::Error)]
pub enum RecordSearchError {
    /// librdkafka cannot create a client.
    #[error("cannot set up the Kafka client: {0}")]
    Setup(String),
    /// No broker has answered in time.
    #[error("expected an answer from Kafka within {}, found none{error}; {remedy}", duration_text(*.timeout))]
    Unreachable {
        /// Time for which hookhold has waited.
        timeout: Duration,
        /// Last error of the Kafka client, or an empty text.
        error: String,
        /// Action that the operator can take.
        remedy: &'static str,
    },
    /// The cluster has no such topic.
    #[error("expected the topic {0} in Kafka, found no topic of this name; create the topic, or correct its name")]
    TopicMissing(String),
    /// The cluster does not permit hookhold to read the topic.
    #[error(
        "expected the permission to read the topic {0}, found none; grant hookhold's principal Read and Describe on the topic"
    )]
    NotPermitted(String),
    /// The cluster answers with another error.
    #[error("cannot read the topic {topic}: {error}; see the brokers' logs")]
    Rejected {
        /// Name of the topic.
        topic: String,
        /// Text of Kafka's error.
        error: String,
    },
}

/// Searches `topic` for the record of an event, for at most `timeout`. Reads the partition of the record's key first.
pub fn find_record(
    settings: &Settings,
    stored: &StoredEvent,
    topic: &str,
    timeout: Duration,
) -> Result<RecordSearch, RecordSearchError> {
    let client = LookupClient::start(settings, topic, timeout)?;
    let found = client.find(settings, stored);
    client.end();
    found
}

/// Consumer of one topic that looks up records.
struct LookupClient {
    consumer: BaseConsumer<LookupCallbacks>,
    topic: String,
    timeout: Duration,
    deadline: Instant,
}

/// Collects the errors of the client.
struct LookupCallbacks {
    /// Gets the tokens of the login; `None` if hookhold logs in without tokens.
    tokens: Option<TokenSource>,
    /// Error with the most certain cause; of several such errors, the last one.
    error: Mutex<Option<ClientError>>,
}

/// Reading position in the partitions of a topic.
struct PartitionsToRead {
    /// Number of each partition with unread records, and the offset of its next record.
    unread: Vec<(i32, i64)>,
    /// Number of records that were read.
    records: u64,
}

/// Values of the record headers that identify an event.
struct EventHeaders {
    log: String,
    seq: u64,
}

/// Relation of a record to the event that a search looks for.
enum RecordRelation {
    Same {
        is_redriven: bool,
    },
    /// A later event that the same opening of the journal has stored. The records of a partition have the order of the journal.
    Later,
    Other,
}

impl LookupClient {
    fn start(settings: &Settings, topic: &str, timeout: Duration) -> Result<LookupClient, RecordSearchError> {
        let tokens = TokenSource::from_properties(&settings.librdkafka).map_err(RecordSearchError::Setup)?;
        let config = consumer_config(&settings.librdkafka, &format!("{CLIENT_ID}-inspect"));
        let callbacks = LookupCallbacks { tokens, error: Mutex::default() };
        let consumer = config.create_with_context(callbacks);
        let consumer = consumer.map_err(|error| RecordSearchError::Setup(setup_failure(error)))?;
        Ok(LookupClient { consumer, topic: topic.to_owned(), timeout, deadline: Instant::now() + timeout })
    }

    fn find(&self, settings: &Settings, stored: &StoredEvent) -> Result<RecordSearch, RecordSearchError> {
        let of_event = EventHeaders { log: stored.position.log.to_string(), seq: stored.position.seq };
        let partitions = self.partitions(settings)?;
        let (starts, is_truncated) = self.starts(settings, &partitions, stored.event.received_at().0)?;
        let likely = NonZeroU32::new(partitions.len() as u32)
            .map(|count| partitioner::partition(record::key(stored).as_bytes(), count) as i32);
        let (first, others): (Vec<_>, Vec<_>) = starts.into_iter().partition(|(partition, _)| Some(*partition) == likely);
        let mut reading = PartitionsToRead { unread: first, records: 0 };
        // The number of partitions may have changed since, and a parked event is sent after later events.
        for is_first_pass in [true, false] {
            if !is_first_pass {
                reading.unread.extend(&others);
            }
            if let Some(found) = self.read(&mut reading, &of_event, is_first_pass)? {
                return Ok(RecordSearch::Found(found));
            }
            if Instant::now() >= self.deadline {
                return Ok(RecordSearch::TimedOut { records: reading.records });
            }
        }
        Ok(RecordSearch::Absent { records: reading.records, is_truncated })
    }

    /// Returns the numbers of the topic's partitions. Polls the client while it waits, because the client gets a token for its login
    /// only during a poll.
    fn partitions(&self, settings: &Settings) -> Result<Vec<i32>, RecordSearchError> {
        loop {
            self.consumer.poll(Duration::ZERO);
            match self.consumer.fetch_metadata(Some(&self.topic), self.left().clamp(SHORTEST_WAIT, REQUEST_SLICE)) {
                Err(_) if self.left().is_zero() => return Err(self.unreachable(settings)),
                Err(_) => drop(self.consumer.poll(SHORTEST_WAIT)),
                Ok(metadata) => {
                    let found = metadata.topics().iter().find(|found| found.name() == self.topic);
                    let Some(found) = found else { return Err(RecordSearchError::TopicMissing(self.topic.clone())) };
                    match found.error().map(RDKafkaErrorCode::from) {
                        // The cluster elects a leader of a partition, or has not yet told all brokers about the topic.
                        Some(RDKafkaErrorCode::LeaderNotAvailable) if !self.left().is_zero() => thread::sleep(SHORTEST_WAIT),
                        Some(code) => return Err(self.rejected(code)),
                        None => return Ok(found.partitions().iter().map(|partition| partition.id()).collect()),
                    }
                }
            }
        }
    }

    /// Returns the offset of the first record of each partition that may belong to an event received at this time, and true if a
    /// partition begins there, so that earlier records may be deleted. Omits a partition without such a record.
    fn starts(
        &self,
        settings: &Settings,
        partitions: &[i32],
        received_at_ms: u64,
    ) -> Result<(Vec<(i32, i64)>, bool), RecordSearchError> {
        let from = i64::try_from(received_at_ms.saturating_sub(CLOCK_DIFFERENCE_MS)).unwrap_or(i64::MAX);
        let mut wanted = TopicPartitionList::new();
        for partition in partitions {
            let added = wanted.add_partition_offset(&self.topic, *partition, Offset::Offset(from));
            added.map_err(|error| self.rejected_with(&error))?;
        }
        let found = loop {
            match self.consumer.offsets_for_times(wanted.clone(), self.left().clamp(SHORTEST_WAIT, REQUEST_SLICE)) {
                Ok(found) => break found,
                Err(error) if is_permanent(&error) => return Err(self.rejected_with(&error)),
                Err(_) if self.left().is_zero() => return Err(self.unreachable(settings)),
                Err(_) => drop(self.consumer.poll(SHORTEST_WAIT)),
            }
        };
        let (mut starts, mut is_truncated) = (Vec::new(), false);
        for element in found.elements() {
            element.error().map_err(|error| self.rejected_with(&error))?;
            let Offset::Offset(offset) = element.offset() else { continue };
            starts.push((element.partition(), offset));
            let low = self.consumer.fetch_watermarks(&self.topic, element.partition(), self.left().max(SHORTEST_WAIT));
            is_truncated |= low.is_ok_and(|(low, _)| low > 0 && low >= offset);
        }
        Ok((starts, is_truncated))
    }

    /// Reads the partitions to their ends, or to the deadline. Returns the record of the event if it is among them. In the first
    /// pass, also stops after a later event of the same opening of the journal.
    fn read(
        &self,
        reading: &mut PartitionsToRead,
        of_event: &EventHeaders,
        is_first_pass: bool,
    ) -> Result<Option<FoundRecord>, RecordSearchError> {
        let mut assignment = TopicPartitionList::new();
        for (partition, offset) in &reading.unread {
            let added = assignment.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset));
            added.map_err(|error| self.rejected_with(&error))?;
        }
        self.consumer.assign(&assignment).map_err(|error| self.rejected_with(&error))?;
        while !reading.unread.is_empty() && !self.left().is_zero() {
            match self.consumer.poll(self.left().min(POLL_SLICE)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(at))) => reading.unread.retain(|(partition, _)| *partition != at),
                Some(Err(error)) if is_permanent(&error) => return Err(self.rejected_with(&error)),
                // The client tries again.
                Some(Err(_)) => {}
                Some(Ok(message)) => {
                    reading.passed(message.partition(), message.offset());
                    match of_event.relation(&message) {
                        RecordRelation::Same { is_redriven } => {
                            let (partition, offset) = (message.partition(), message.offset());
                            return Ok(Some(FoundRecord { partition, offset, is_redriven }));
                        }
                        RecordRelation::Later if is_first_pass => return Ok(None),
                        RecordRelation::Later | RecordRelation::Other => {}
                    }
                }
            }
        }
        Ok(None)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn unreachable(&self, settings: &Settings) -> RecordSearchError {
        self.consumer.poll(SHORTEST_WAIT);
        let cause = self.consumer.context().last_error();
        let cause = cause.map(|error| error.with_expiry(own_certificate(&settings.librdkafka).as_deref()));
        let remedy = cause.as_ref().map_or_else(|| BlockReason::BrokerAway.remedy(), |error| error.remedy);
        let error = cause.map_or(String::new(), |error| format!(" ({})", error.detail));
        RecordSearchError::Unreachable { timeout: self.timeout, error, remedy }
    }

    fn rejected_with(&self, error: &KafkaError) -> RecordSearchError {
        match error.rdkafka_error_code() {
            Some(code) => self.rejected(code),
            None => RecordSearchError::Rejected { topic: self.topic.clone(), error: error.to_string() },
        }
    }

    fn rejected(&self, code: RDKafkaErrorCode) -> RecordSearchError {
        let topic = self.topic.clone();
        match code {
            RDKafkaErrorCode::TopicAuthorizationFailed => RecordSearchError::NotPermitted(topic),
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => RecordSearchError::TopicMissing(topic),
            code => RecordSearchError::Rejected { topic, error: code.to_string() },
        }
    }

    /// Ends the client.
    fn end(self) {
        end_in_background(self);
    }
}

impl PartitionsToRead {
    /// Moves the reading position of a partition behind the record at `offset`.
    fn passed(&mut self, partition: i32, offset: i64) {
        self.records += 1;
        if let Some((_, next)) = self.unread.iter_mut().find(|(unread, _)| *unread == partition) {
            *next = offset + 1;
        }
    }
}

impl EventHeaders {
    fn relation(&self, message: &BorrowedMessage<'_>) -> RecordRelation {
        let (mut is_same_log, mut seq, mut is_redriven) = (false, None, false);
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            match header.key {
                record::LOG => is_same_log = header.value == Some(self.log.as_bytes()),
                record::SEQ => seq = header.value.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok()),
                REDRIVEN => is_redriven = true,
                // A replay sends further copies, at any time and after later events.
                REPLAY => return RecordRelation::Other,
                _ => {}
            }
        }
        match seq.filter(|_| is_same_log) {
            Some(seq) if seq == self.seq => RecordRelation::Same { is_redriven },
            Some(seq) if seq > self.seq && !is_redriven => RecordRelation::Later,
            _ => RecordRelation::Other,
        }
    }
}

/// Returns true if another attempt would end with the same error. The rights to use a consumer group do not matter, because the
/// consumer joins none.
fn is_permanent(error: &KafkaError) -> bool {
    let permanent = [
        RDKafkaErrorCode::TopicAuthorizationFailed,
        RDKafkaErrorCode::UnknownTopicOrPartition,
        RDKafkaErrorCode::UnknownTopic,
        RDKafkaErrorCode::UnsupportedForMessageFormat,
        RDKafkaErrorCode::Fatal,
    ];
    error.rdkafka_error_code().is_some_and(|code| permanent.contains(&code))
}

impl ClientContext for LookupCallbacks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Gets a token for the login.
    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.tokens.as_ref().ok_or("no token endpoint is configured")?.fetch()
    }

    /// Stores why a broker has closed a connection, which librdkafka says only in its log.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == FAILED_CONNECTION {
            self.store(ClientError::new(RDKafkaErrorCode::BrokerTransportFailure, message));
        }
    }

    /// Stores an error of the client. `AllBrokersDown` follows the error of the last broker, and names no cause.
    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code().filter(|code| *code != RDKafkaErrorCode::AllBrokersDown) else { return };
        self.store(ClientError::new(code, &reason.replace(char::is_control, " ")));
    }
}

impl ConsumerContext for LookupCallbacks {}

impl LookupCallbacks {
    fn store(&self, error: ClientError) {
        // A panic never leaves the error half changed.
        let mut stored = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let certainty = |error: &ClientError| error.certainty;
        if stored.as_ref().map_or(CauseCertainty::Unknown, certainty) <= error.certainty {
            *stored = Some(error);
        }
    }

    fn last_error(&self) -> Option<ClientError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Possible difference between the clocks of a broker and of this machine, in milliseconds. It matters if the topic stores the time of
/// the append instead of the timestamp in the record.
const CLOCK_DIFFERENCE_MS: u64 = 2_000;
/// Longest wait for one answer before the client is polled again.
const REQUEST_SLICE: Duration = Duration::from_secs(2);
/// Shortest wait for an answer.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
/// Time for which one poll of the client waits for records.
const POLL_SLICE: Duration = Duration::from_millis(200);
