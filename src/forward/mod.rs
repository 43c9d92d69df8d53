//! Passing on: every durable event goes to its Kafka topic, and only the broker's acknowledgement moves a cursor. Kafka may
//! be away for days; whoever sends deliveries does not notice.
//!
//! Each topic is a lane with its own cursor, window and troubles: a missing topic stops nobody else. The journal is the only
//! buffer; librdkafka holds what is in flight. Nothing in here knows HTTP or how the journal keeps its files.
//!
//! What Kafka gets is at-least-once: after a crash, at most what was in a lane's window (10,000 records, 16 MiB) and what was
//! acknowledged since its cursor was last saved (a second) comes again, under the same `hookhold-log` and `hookhold-seq`.

mod in_flight;
mod kafka_error;
mod mailbox;
mod probe;
mod producer;
mod record;
mod settings;
mod status_table;
mod topic_health;
mod topic_queue;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderName;
use serde::Serialize;

pub use settings::{check_setting, check_settings};
pub use status_table::{Blocked, TopicSnapshot};

use crate::clock::Clock;
use crate::journal::Journal;
use crate::metrics::Metrics;
use mailbox::Mailbox;
use status_table::StatusTable;
use worker::Worker;

/// What the forwarder is told by the configuration. Not printable: there may be passwords in it.
#[derive(Clone, Default)]
pub struct Settings {
    /// The operator's librdkafka properties, secrets resolved; [`check_setting`] has nothing against any of them.
    pub librdkafka: Vec<(String, String)>,
    /// Per source, the request headers that travel as `http-<name>`.
    pub headers: HashMap<Arc<str>, Vec<HeaderName>>,
    /// The largest body in bytes that any source accepts.
    pub max_body: usize,
}

/// How the forwarder fares, for `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// False only if its thread has died, which is a bug.
    pub running: bool,
    /// Every lane that exists, by topic.
    pub lanes: Vec<TopicSnapshot>,
}

impl Settings {
    /// True when a client made for these settings also serves `other`.
    fn client_serves(&self, other: &Settings) -> bool {
        self.librdkafka == other.librdkafka && settings::carries(self.max_body) >= settings::carries(other.max_body)
    }
}

/// The running forwarder. Dropping it without [`Forwarder::stop`] leaves its thread to the end of the process.
pub struct Forwarder {
    inbox: Arc<Mailbox>,
    board: Arc<StatusTable>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    settings: Arc<ArcSwap<Settings>>,
    thread: thread::JoinHandle<()>,
}

/// Starts passing on from every lane's cursor. Kafka need not be there.
pub fn start(journal: Journal, settings: Settings, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Forwarder {
    let (inbox, board) = (Arc::<Mailbox>::default(), Arc::<StatusTable>::default());
    let bell = Arc::downgrade(&inbox);
    journal.on_commit(Box::new(move || bell.upgrade().map(|inbox| inbox.leave(|_| {})).is_some()));
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    let work = {
        let (settings, metrics, inbox, board) = (settings.clone(), metrics.clone(), inbox.clone(), board.clone());
        move || Worker::new(journal, settings, metrics, inbox, board).run()
    };
    let thread = thread::Builder::new().name("forward".into()).spawn(work).expect("a thread can be started");
    Forwarder { inbox, board, metrics, clock, settings, thread }
}

impl Forwarder {
    /// How every lane fares at this moment.
    pub fn status(&self) -> Status {
        Status { running: !self.thread.is_finished(), lanes: self.board.lanes(self.clock.now()) }
    }

    /// Brings `hookhold_forward_lag_*` up to date; to be called before metrics are rendered.
    pub fn measure(&self) {
        self.board.measure(&self.metrics, self.clock.now());
    }

    /// Goes on with other settings, from the next record on. Gives them back where they take another client: then this
    /// forwarder must be stopped and one started with them.
    pub fn reconfigure(&self, settings: Settings) -> Result<(), Settings> {
        if !self.settings.load().client_serves(&settings) {
            return Err(settings);
        }
        // The client stays as it is, and so does what it can carry.
        let max_body = self.settings.load().max_body;
        self.settings.store(Arc::new(Settings { max_body, ..settings }));
        Ok(())
    }

    /// Reads nothing more, waits up to `within` for acknowledgements on lanes that flow, hands the cursors to the journal (a
    /// later [`Journal::close`] makes them durable) and lets the Kafka client go.
    pub fn stop(self, within: Duration) {
        self.inbox.leave(|news| news.stop = Some(Instant::now() + within));
        if self.thread.join().is_err() {
            tracing::error!("the forwarder had died; its cursors are as last saved");
        }
    }
}
