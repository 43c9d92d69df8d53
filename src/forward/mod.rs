//! Forwards every durable event to its Kafka topic. A topic's cursor passes an event only after a broker has acknowledged the
//! event's record. Senders are not affected even if Kafka is unreachable for days.
//!
//! Each topic has a separate queue with a cursor and an in-flight limit. A problem of one topic blocks only this topic: if a
//! topic is missing, for example, hookhold continues to forward the other topics. An event that Kafka rejects because of the event
//! itself is parked, so that its topic continues, and a copy goes to the dead-letter topic if there is one. The events of a partition
//! without a leader wait, while the topic's other partitions continue. The journal is the only buffer; librdkafka holds only the
//! records in flight: at most 128 MiB of bodies, keys and headers, one record of each topic, and one copy of a parked event. It holds as
//! much again for partitions that have lost their leader, and needs up to as much memory again for its own structures, mostly for the
//! headers. This module does not depend on HTTP or on the journal's file format.
//!
//! hookhold forwards each event at least once. After a crash, hookhold sends again at most the records in flight (10,000
//! records and 16 MiB per topic) and the records that Kafka has acknowledged since hookhold last saved the cursor. While the cursor
//! waits for a partition without a leader, Kafka may acknowledge up to 1,000,000 later records of a topic. All copies
//! of a record have the same `hookhold-log` and `hookhold-seq`. The journal saves a moved cursor within 50 ms after 100
//! acknowledgements, and within one second after a single acknowledgement.

mod backoff;
mod block_log;
mod client;
mod client_end;
mod client_error;
mod connection;
mod dead_letters;
mod done_ahead;
mod find_record;
mod flow;
mod in_flight;
mod in_flight_limit;
mod inspection;
mod kafka_error;
mod left_behind;
mod log_reader;
mod mailbox;
mod pace;
mod partitioner;
mod probe;
mod probe_schedule;
mod producer;
mod readers;
mod record;
mod redrive;
mod replay;
mod sent_record;
mod settings;
mod status_table;
mod tokens;
mod topic_health;
mod topic_queue;
mod worker;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderName;
use serde::Serialize;

pub use connection::{ConnectionFailure, ConnectionSnapshot};
pub use dead_letters::DeadLetterProblem;
pub use find_record::{FoundRecord, RecordSearch, RecordSearchError, find_record};
pub use inspection::{Finding, FindingLevel, ForwardTopic, InspectedTopic, Inspection, WritePermission, inspect};
pub use mailbox::AckWatcher;
pub use partitioner::partition;
pub use record::{LOG, REPLAY, REPLAYED_AT, SEQ, key as record_key};
pub use redrive::{RedriveError, Redriver};
pub use replay::{MAX_UNACKNOWLEDGED, ReplayProgress, Replayer};
pub use settings::{check_setting, check_settings};
pub use status_table::{Blocked, TopicSnapshot};

use crate::clock::Clock;
use crate::journal::Journal;
use crate::metrics::Metrics;
use mailbox::Mailbox;
use status_table::StatusTable;
use worker::Worker;

/// Settings of the forwarder. `Settings` does not implement `Debug`, because the settings may contain passwords.
#[derive(Clone, Default)]
pub struct Settings {
    /// Names and values of the operator's librdkafka properties. The values contain the secrets and not references to
    /// secrets. [`check_setting`] has accepted each property.
    pub librdkafka: Vec<(String, String)>,
    /// Hash of the contents of the files that librdkafka reads. The forwarder replaces its producer if the hash changes.
    pub files: u64,
    /// Maps topics of the journal to the topics to which hookhold forwards their events instead.
    pub reroute: HashMap<Arc<str>, Arc<str>>,
    /// Topic for copies of the parked events; `None` if there is none.
    pub dead_letter: Option<Arc<str>>,
    /// Maps the name of each source to the contents of its records that the configuration decides.
    pub sources: HashMap<Arc<str>, RecordOptions>,
    /// Size of the largest body that any source accepts, in bytes.
    pub max_body: usize,
    /// Topics of the sources. hookhold asks the cluster for the metadata of one of them to learn whether it can be reached.
    pub topics: Vec<Arc<str>>,
}

/// Contents of a source's records that the configuration decides.
#[derive(Clone, Default)]
pub struct RecordOptions {
    /// Names of the request headers that hookhold forwards as `http-<name>`.
    pub headers: Vec<HeaderName>,
    /// Base of the URL that the provider signs, without user name, password and trailing slash; `None` if it signs no URL. The record
    /// header `hookhold-url` contains this base and the request target.
    pub signed_base_url: Option<String>,
}

/// State of the forwarder, as reported by `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// False only if the forwarder's thread has panicked, which is a bug.
    pub running: bool,
    /// State of the connection to the Kafka cluster.
    pub connection: ConnectionSnapshot,
    /// State of every topic that has a queue, sorted by topic name.
    pub topics: Vec<TopicSnapshot>,
    /// Reason why copies of parked events do not reach the dead-letter topic; `None` if there is no such problem.
    pub dead_letters: Option<DeadLetterProblem>,
}

impl Settings {
    /// Returns true if a Kafka producer that was created for these settings also works for the settings `other`. The records that a
    /// producer has in flight to a topic whose route has changed must not reach that topic later. Another dead-letter topic needs
    /// another producer, because a copy in flight to the former one may never be acknowledged.
    fn producer_serves(&self, other: &Settings) -> bool {
        let fits = settings::largest_body(self.max_body) >= settings::largest_body(other.max_body);
        let has_same_routes = self.reroute == other.reroute && self.dead_letter == other.dead_letter;
        fits && self.librdkafka == other.librdkafka && self.files == other.files && has_same_routes
    }

    /// Returns the options for the records of a source; `None` if the source is no longer configured.
    fn record_options(&self, source: &str) -> Option<&RecordOptions> {
        self.sources.get(source)
    }

    /// Returns the topic to which hookhold forwards the events of a topic of the journal.
    pub fn destination(&self, topic: &Arc<str>) -> Arc<str> {
        self.reroute.get(topic).unwrap_or(topic).clone()
    }
}

/// Handle of the running forwarder. If the handle is dropped without [`Forwarder::stop`], the forwarder's thread runs
/// until the process ends.
pub struct Forwarder {
    journal: Journal,
    mailbox: Arc<Mailbox>,
    status_table: Arc<StatusTable>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    settings: Arc<ArcSwap<Settings>>,
    thread: thread::JoinHandle<()>,
}

/// Function that the forwarder's thread calls if it panics, which is a bug. Nothing is forwarded any more until the process
/// restarts.
pub type PanicHandler = Box<dyn FnOnce() + Send>;

/// Starts a forwarder, which resumes each topic at the topic's cursor. Kafka need not be reachable. `watcher` receives the place of each
/// event in Kafka. Fails if the process cannot
/// start a thread.
pub fn start(
    journal: Journal,
    settings: Settings,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    on_panic: PanicHandler,
    watcher: Option<Arc<dyn AckWatcher>>,
) -> io::Result<Forwarder> {
    let (mailbox, status_table) = (Arc::new(Mailbox::new(watcher)), Arc::<StatusTable>::default());
    let weak = Arc::downgrade(&mailbox);
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    let work = {
        let (journal, settings, metrics, clock) = (journal.clone(), settings.clone(), metrics.clone(), clock.clone());
        let (mailbox, status_table) = (mailbox.clone(), status_table.clone());
        move || {
            let _reporter = PanicReporter(Some(on_panic));
            Worker::new(journal, settings, metrics, clock, mailbox, status_table).run();
        }
    };
    journal.on_commit(Box::new(move || weak.upgrade().map(|mailbox| mailbox.wake()).is_some()));
    let thread = thread::Builder::new().name("forward".into()).spawn(work)?;
    Ok(Forwarder { journal, mailbox, status_table, metrics, clock, settings, thread })
}

/// Calls the handler if the thread panics while it holds this value.
struct PanicReporter(Option<PanicHandler>);

impl Drop for PanicReporter {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(handler) = self.0.take()
        {
            handler();
        }
    }
}

impl Forwarder {
    /// Returns the current state of the forwarder and of every topic.
    pub fn status(&self) -> Status {
        Status {
            running: !self.thread.is_finished(),
            connection: self.status_table.connection().snapshot(),
            topics: self.status_table.snapshots(&self.journal, self.clock.now()),
            dead_letters: self.status_table.dead_letters().snapshot(),
        }
    }

    /// Updates the metrics `hookhold_forward_lag_*`. Must be called before the metrics are rendered.
    pub fn measure(&self) {
        self.status_table.measure(&self.metrics, &self.journal, self.clock.now());
    }

    /// Applies new settings to all later records. If the new settings need another Kafka producer, the forwarder replaces the
    /// producer after a short wait for acknowledgements.
    pub fn reconfigure(&self, settings: Settings) {
        let former = self.settings.load_full();
        let is_served = former.producer_serves(&settings);
        // A producer that stays the same still has the body size for which it was created.
        let max_body = if is_served { former.max_body } else { settings.max_body };
        self.settings.store(Arc::new(Settings { max_body, ..settings }));
        if !is_served {
            self.mailbox.post(|updates| updates.client_settings_changed = true);
        }
    }

    /// Gives up the events of a topic below sequence `below`: moves the topic's cursor past them. They stay in the journal like
    /// acknowledged events. A record of such an event that is already in flight may still reach Kafka.
    pub fn release(&self, topic: Arc<str>, below: u64) {
        self.mailbox.post(|updates| updates.releases.push((topic, below)));
    }

    /// Stops reading events, and waits up to `within` for acknowledgements. Does not wait for a topic if the reason for its
    /// block prevents acknowledgements. Then hands the cursors to the journal and ends the Kafka client. A later
    /// [`Journal::close`] makes the cursors durable.
    pub fn stop(self, within: Duration) {
        self.mailbox.post(|updates| updates.stop_by = Some(Instant::now() + within));
        if self.thread.join().is_err() {
            tracing::error!("the forwarder panicked; the next start resumes at the last saved cursors; report this bug");
        }
    }
}
