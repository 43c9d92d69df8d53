//! The forwarder's thread: one loop that takes the news, looks after what is stuck, feeds every lane that may send, saves
//! cursors, and sleeps when nothing is left to do. Reading is in `feed`, everything that can go wrong in `watch`.

mod feed;
mod supervisor;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use backon::ExponentialBackoff;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use tracing::{error, info};

use super::Settings;
use super::in_flight::Share;
use super::kafka_error::REBUILDS;
use super::mailbox::{MAX_LANES, Mailbox, Report, lane_and_seq};
use super::producer::Producer;
use super::settings::producer_config;
use super::status_table::StatusTable;
use super::topic_queue::{TopicQueue, backoff};
use crate::journal::{Journal, Reader, StoredEvent};
use crate::metrics::Metrics;
use supervisor::Replacement;

/// Everything that the thread owns.
pub(super) struct Worker {
    pub(super) journal: Journal,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) inbox: Arc<Mailbox>,
    pub(super) board: Arc<StatusTable>,
    pub(super) config: ClientConfig,

    /// `None` before the first one, and while a replacement waits for its turn.
    pub(super) producer: Option<Producer>,
    /// Counts producers; reports of earlier ones are too late.
    pub(super) generation: u64,
    pub(super) producer_due: Instant,
    pub(super) producer_pauses: ExponentialBackoff,
    pub(super) producer_born: Instant,
    /// Why the last attempt to set up a client failed; every lane is blocked by it.
    pub(super) obstacle: Option<String>,
    /// Something was acknowledged since the producer was born.
    pub(super) proven: bool,
    pub(super) replacement: Option<Replacement>,
    pub(super) client_error: Option<(RDKafkaErrorCode, String)>,
    pub(super) probing: bool,

    pub(super) lanes: Vec<TopicQueue>,
    pub(super) by_topic: HashMap<Arc<str>, usize>,
    pub(super) share: Share,
    /// The shared reader.
    pub(super) head: Reader,
    /// Read at the head, waiting for room in its lane.
    pub(super) held: Option<StoredEvent>,
    pub(super) head_due: Option<Instant>,
    pub(super) head_pauses: ExponentialBackoff,
    save_due: Instant,
}

impl Worker {
    /// Takes up every lane at its cursor. The shared reader begins at the highest one, or at the oldest event when there is
    /// none: a lane's first cursor is saved before the reader passes its first event, so nothing without a cursor lies below.
    pub fn new(
        journal: Journal,
        settings: Arc<ArcSwap<Settings>>,
        metrics: Arc<Metrics>,
        inbox: Arc<Mailbox>,
        board: Arc<StatusTable>,
    ) -> Worker {
        let initial = settings.load_full();
        let now = Instant::now();
        // Asked first: the lanes of all that lies below it are known then.
        let mark = journal.durable_watermark();
        let cursors = journal.topic_cursors();
        let head_began = cursors.iter().map(|lane| lane.cursor).max().unwrap_or_else(|| journal.oldest_seq());
        let mut worker = Worker {
            config: producer_config(&initial.librdkafka, initial.max_body),
            head: journal.reader(head_began),
            journal,
            settings,
            metrics,
            inbox,
            board,
            producer: None,
            generation: 0,
            producer_due: now,
            producer_pauses: backoff(REBUILD_AFTER),
            producer_born: now,
            obstacle: None,
            proven: false,
            replacement: None,
            client_error: None,
            probing: false,
            lanes: Vec::new(),
            by_topic: HashMap::new(),
            share: Share::of(1),
            held: None,
            head_due: None,
            head_pauses: backoff(REREAD_AFTER),
            save_due: now,
        };
        for reason in REBUILDS {
            worker.metrics.forward.producer_rebuilds.with_label_values(&[reason]);
        }
        for lane in cursors {
            let waiting = worker.journal.count(&lane.name, lane.cursor, mark);
            worker.add_lane(&lane.name, lane.cursor, (mark, waiting), now);
        }
        worker
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        loop {
            let news = self.inbox.take();
            let now = Instant::now();
            if let Some(by) = news.stop {
                self.take_reports(news.reports, now);
                return self.wind_down(by);
            }
            self.take_news(news, now);
            self.look_after(now);
            let moved = self.feed(now);
            self.save_cursors(now);
            if !moved {
                self.inbox.wait(self.next_moment());
            }
        }
    }

    /// Where the shared reader stands: the sequence of the next event that it hands over.
    pub(super) fn head_position(&self) -> u64 {
        self.held.as_ref().map_or_else(|| self.head.next_seq(), |stored| stored.position.seq)
    }

    /// Adds a lane whose events below `cursor` are finished; from there on so many lie below `counted`.
    pub(super) fn add_lane(&mut self, topic: &Arc<str>, cursor: u64, (counted, waiting): (u64, u64), now: Instant) -> usize {
        let index = self.lanes.len();
        assert!(index < MAX_LANES, "topics come from the configuration, which holds fewer");
        let acked_total = self.metrics.forward.acked.with_label_values(&[&**topic]);
        let face = self.board.add(topic, waiting);
        self.lanes.push(TopicQueue::new(topic.clone(), cursor, counted, face, acked_total, now));
        self.by_topic.insert(topic.clone(), index);
        self.share = Share::of(self.lanes.len());
        index
    }

    /// Applies delivery reports.
    pub(super) fn take_reports(&mut self, reports: Vec<Report>, now: Instant) {
        for report in reports {
            if report.generation != self.generation {
                continue;
            }
            let (index, seq) = lane_and_seq(report.ticket);
            match report.result {
                Err(code) => self.failed(index, seq, code, now),
                Ok(()) => {
                    self.proven = true;
                    self.client_error = None;
                    let lane = &mut self.lanes[index];
                    lane.acked(seq, self.share, now);
                    if !lane.recalling && !lane.waits_for_head() {
                        self.free(index, now);
                    }
                }
            }
        }
    }

    /// Hands moved cursors to the journal, at most once per [`SAVE_EVERY`].
    fn save_cursors(&mut self, now: Instant) {
        let head = self.head_position();
        let due = now >= self.save_due;
        for lane in &mut self.lanes {
            lane.publish(head);
            if let Some(cursor) = lane.cursor_to_save(head).filter(|_| due) {
                self.journal.save_cursor(&lane.topic, cursor);
                lane.saved(cursor);
                self.save_due = now + SAVE_EVERY;
            }
        }
    }

    /// When there is something to do even without news; `None`: nothing until somebody rings.
    fn next_moment(&self) -> Option<Instant> {
        let head = self.head_position();
        let save = self.lanes.iter().any(|lane| lane.cursor_to_save(head).is_some()).then_some(self.save_due);
        let producer = self.producer.is_none().then_some(self.producer_due);
        let held = self.held.as_ref().and_then(|stored| self.lanes[self.by_topic[stored.event.topic()]].wait_ends());
        let replacement = self.replacement.as_ref().map(|replacement| replacement.by);
        [save, producer, held, replacement, self.head_due, self.next_look()].into_iter().flatten().min()
    }

    /// Reads nothing more, waits for what is in flight on lanes that flow, saves every cursor, and lets the producer go.
    fn wind_down(mut self, by: Instant) {
        loop {
            let news = self.inbox.take();
            let now = Instant::now();
            let dead = news.fatal.is_some();
            self.take_reports(news.reports, now);
            if news.brokers_down {
                self.brokers_down(now);
            }
            let flows = |lane: &TopicQueue| lane.block.is_none() || lane.waits_for_head();
            let hopeful = |lane: &TopicQueue| lane.window.in_flight() > 0 && flows(lane);
            if dead || now >= by || !self.lanes.iter().any(hopeful) {
                break;
            }
            self.inbox.wait(Some(by));
        }
        self.forget_blocks();
        self.moved_all();
        self.save_due = Instant::now();
        self.save_cursors(self.save_due);
        let left: usize = self.lanes.iter().map(|lane| lane.window.in_flight()).sum();
        info!(unacknowledged = left, "forwarding has stopped; what is not acknowledged is sent again at the next start");
        if let Some(producer) = self.producer.take() {
            let patience = by.saturating_duration_since(Instant::now()).max(RETIRE_WITHIN);
            if producer.retire().recv_timeout(patience).is_err() {
                error!("the Kafka client did not end in time; it is left behind");
            }
        }
    }

    /// An idle lane's cursor is worth saving at a stop.
    fn moved_all(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.moved = true);
    }
}

/// Cursors are saved this often at most; the journal writes them with its next commit, within a second of their move.
const SAVE_EVERY: Duration = Duration::from_millis(500);
/// First and longest pause (before jitter) between two producers.
pub(super) const REBUILD_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// First and longest pause (before jitter) after the journal could not be read.
pub(super) const REREAD_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The Kafka client gets at least this long to end.
const RETIRE_WITHIN: Duration = Duration::from_secs(1);
