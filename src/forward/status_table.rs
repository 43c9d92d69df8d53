//! Publishes the state of every topic (lag, cursor, and the reason why a topic is blocked) for `/metrics` and `/readyz`. The
//! forwarder writes the state, the admin listener reads it, and neither waits for the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::{GaugeVec, IntCounter, IntGauge, IntGaugeVec};
use serde::Serialize;

use super::connection::ConnectionStatus;
use super::dead_letters::DeadLetterStatus;
use super::kafka_error::BlockReason;
use super::left_behind::Leaderless;
use crate::clock::UnixMillis;
use crate::journal::Journal;
use crate::metrics::Metrics;

/// Snapshot of one topic's state, for `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct TopicSnapshot {
    /// Name of the Kafka topic.
    pub topic: String,
    /// The topic's cursor: the sequence below which Kafka has acknowledged every event of the topic.
    pub cursor: u64,
    /// Number of the topic's durable events that Kafka has not acknowledged.
    pub lag_events: u64,
    /// Age in seconds of the topic's oldest unacknowledged event; 0 if there is no such event or its arrival time is unknown.
    pub lag_seconds: f64,
    /// Time of the last acknowledgement by the running forwarder; `None` before the first one.
    #[serde(skip)]
    pub last_ack: Option<UnixMillis>,
    /// Reason why the topic is blocked, with its error and remedy; `None` if the topic is not blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
    /// Partitions that have no leader, and whose events wait, although hookhold forwards the topic's other events; `None` if there is no
    /// such partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaderless: Option<Blocked>,
}

/// Published reason why a topic or some of its partitions are blocked, with the error and the remedy.
#[derive(Clone, Debug, Serialize)]
pub struct Blocked {
    /// Word for the reason: a value of the label `reason` of `hookhold_forward_blocked`.
    pub reason: &'static str,
    /// Text of the error.
    pub detail: String,
    /// Action that the operator can take.
    pub remedy: &'static str,
    /// Time since the block began, in seconds.
    pub seconds: u64,
}

/// Published state of one topic. The topic's queue writes this state, and other threads read it.
pub(super) struct TopicStatus {
    topic: Arc<str>,
    /// Number of the topic's events that the cursor or an acknowledgement has passed. [`Journal::stored`] minus this number is the
    /// lag. Negative if the journal had more waiting events when it was opened.
    passed: AtomicI64,
    cursor: AtomicU64,
    /// Arrival time of the oldest unacknowledged event, Unix milliseconds; 0 if there is no such event or the time is unknown.
    oldest_ms: AtomicU64,
    blocked: Mutex<Option<PublishedBlock>>,
    leaderless: Mutex<Option<PublishedBlock>>,
    /// Time of the last acknowledgement, Unix milliseconds; 0 before the first one.
    last_ack_ms: AtomicU64,
    acked_total: IntCounter,
    acked_bytes: IntCounter,
    gauges: TopicGauges,
}

/// Gauges of all topics that change with a block.
struct TopicGauges {
    blocked: IntGaugeVec,
    blocked_since: GaugeVec,
    leaderless: IntGauge,
}

/// Block of a topic, with the time at which the block began.
#[derive(Clone)]
struct PublishedBlock {
    reason: BlockReason,
    detail: String,
    since: Instant,
}

impl PublishedBlock {
    fn snapshot(self) -> Blocked {
        let (reason, remedy) = (self.reason.word(), self.reason.remedy());
        Blocked { reason, detail: self.detail, remedy, seconds: self.since.elapsed().as_secs() }
    }
}

impl TopicStatus {
    /// Creates the published state of a topic. `passed` is the number of events that [`Journal::stored`] returns, minus the number
    /// of waiting events.
    pub(super) fn new(topic: Arc<str>, passed: i64, metrics: &Metrics) -> TopicStatus {
        TopicStatus {
            passed: passed.into(),
            cursor: 0.into(),
            oldest_ms: 0.into(),
            blocked: Mutex::default(),
            leaderless: Mutex::default(),
            last_ack_ms: 0.into(),
            acked_total: metrics.forward.acked.with_label_values(&[&*topic]),
            acked_bytes: metrics.forward.forwarded_bytes.with_label_values(&[&*topic]),
            gauges: TopicGauges {
                blocked: metrics.forward.blocked.clone(),
                blocked_since: metrics.forward.blocked_since.clone(),
                leaderless: metrics.forward.leaderless_partitions.with_label_values(&[&*topic]),
            },
            topic,
        }
    }

    /// Counts the acknowledgement of a record of `bytes` bytes at this time, and so reduces the topic's lag by one event.
    pub(super) fn count_acked(&self, bytes: usize, at: UnixMillis) {
        self.acked_total.inc();
        self.acked_bytes.inc_by(bytes as u64);
        self.last_ack_ms.store(at.0, Relaxed);
        self.passed.fetch_add(1, Relaxed);
    }

    /// Reduces the topic's lag by one event, because hookhold has parked the event.
    pub(super) fn count_parked(&self) {
        self.passed.fetch_add(1, Relaxed);
    }

    /// Sets the topic's lag to `events`, as of the moment at which [`Journal::stored`] has returned `stored`.
    pub(super) fn set_lag(&self, events: u64, stored: u64) {
        self.passed.store(stored as i64 - events as i64, Relaxed);
    }

    /// Publishes the cursor and the arrival time of the oldest unacknowledged event.
    pub(super) fn publish(&self, cursor: u64, oldest: Option<UnixMillis>) {
        self.cursor.store(cursor, Relaxed);
        self.oldest_ms.store(oldest.map_or(0, |at| at.0), Relaxed);
    }

    /// Publishes the reason why the topic is blocked, in this status and in the metrics `hookhold_forward_blocked*`. `None` means
    /// that the topic is not blocked.
    pub(super) fn set_block(&self, block: Option<(BlockReason, &str)>, now: Instant) {
        let mut blocked = self.lock_blocked();
        let former = blocked.take();
        let since = former.as_ref().map_or(now, |former| former.since);
        *blocked = block.map(|(reason, detail)| PublishedBlock { reason, detail: detail.into(), since });
        let (former, reason) = (former.map(|former| former.reason), block.map(|(reason, _)| reason));
        if former != reason {
            let gauge = |reason: BlockReason| self.gauges.blocked.with_label_values(&[&*self.topic, reason.word()]);
            former.iter().for_each(|reason| {
                gauge(*reason).set(0);
                // The series may not exist yet, because a scrape creates it.
                let _ = self.gauges.blocked_since.remove_label_values(&[&*self.topic, reason.word()]);
            });
            reason.iter().for_each(|reason| gauge(*reason).set(1));
        }
    }

    /// Publishes the partitions without a leader, while the topic's other events are sent, in this status and in the metric
    /// `hookhold_forward_leaderless_partitions`. `None` means that there is no such partition.
    pub(super) fn set_leaderless(&self, leaderless: Option<&Leaderless>, now: Instant) {
        let mut published = self.leaderless.lock().unwrap_or_else(PoisonError::into_inner);
        let since = published.as_ref().map_or(now, |former| former.since);
        let block =
            |leaderless: &Leaderless| PublishedBlock { reason: BlockReason::NoLeader, detail: leaderless.detail(), since };
        *published = leaderless.map(block);
        self.gauges.leaderless.set(leaderless.map_or(0, Leaderless::len) as i64);
    }

    /// Sets the metric `hookhold_forward_blocked_since_seconds` if the topic is blocked. Holds the lock meanwhile, so that the end
    /// of the block cannot come first.
    fn measure_block(&self, now: UnixMillis) {
        if let Some(block) = &*self.lock_blocked() {
            let since = now.0 as f64 / 1000.0 - block.since.elapsed().as_secs_f64();
            self.gauges.blocked_since.with_label_values(&[&*self.topic, block.reason.word()]).set(since);
        }
    }

    fn snapshot(&self, journal: &Journal, now: UnixMillis) -> TopicSnapshot {
        let passed = self.passed.load(Relaxed);
        let lag_events = (journal.stored(&self.topic).0 as i64 - passed).max(0) as u64;
        let oldest = self.oldest_ms.load(Relaxed);
        let waiting = lag_events > 0 && oldest > 0;
        TopicSnapshot {
            topic: self.topic.to_string(),
            cursor: self.cursor.load(Relaxed),
            lag_events,
            lag_seconds: if waiting { now.since(UnixMillis(oldest)) as f64 / 1000.0 } else { 0.0 },
            last_ack: Some(UnixMillis(self.last_ack_ms.load(Relaxed))).filter(|at| at.0 > 0),
            blocked: self.lock_blocked().clone().map(PublishedBlock::snapshot),
            leaderless: self.leaderless.lock().unwrap_or_else(PoisonError::into_inner).clone().map(PublishedBlock::snapshot),
        }
    }

    fn lock_blocked(&self) -> MutexGuard<'_, Option<PublishedBlock>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Published state of every topic, of the dead-letter topic, and of the connection to the cluster.
#[derive(Default)]
pub(super) struct StatusTable {
    topics: Mutex<BTreeMap<Arc<str>, Arc<TopicStatus>>>,
    connection: Arc<ConnectionStatus>,
    dead_letters: Arc<DeadLetterStatus>,
}

impl StatusTable {
    /// Returns the published state of the connection.
    pub(super) fn connection(&self) -> Arc<ConnectionStatus> {
        self.connection.clone()
    }

    /// Returns the published state of the dead-letter topic.
    pub(super) fn dead_letters(&self) -> Arc<DeadLetterStatus> {
        self.dead_letters.clone()
    }

    /// Adds the published state of a topic to the table.
    pub(super) fn add(&self, topic: &Arc<str>, status: Arc<TopicStatus>) {
        self.lock().insert(topic.clone(), status);
    }

    /// Returns the current state of every topic.
    pub(super) fn snapshots(&self, journal: &Journal, now: UnixMillis) -> Vec<TopicSnapshot> {
        self.lock().values().map(|status| status.snapshot(journal, now)).collect()
    }

    /// Sets the lag metrics of every topic.
    pub(super) fn measure(&self, metrics: &Metrics, journal: &Journal, now: UnixMillis) {
        self.lock().values().for_each(|status| status.measure_block(now));
        for topic in self.snapshots(journal, now) {
            metrics.forward.lag_events.with_label_values(&[&topic.topic]).set(topic.lag_events as i64);
            metrics.forward.lag_seconds.with_label_values(&[&topic.topic]).set(topic.lag_seconds);
            if let Some(at) = topic.last_ack {
                metrics.forward.last_ack.with_label_values(&[&topic.topic]).set(at.0 as f64 / 1000.0);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<TopicStatus>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
