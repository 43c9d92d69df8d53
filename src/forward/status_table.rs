//! Publishes the state of every topic (lag, cursor, and the reason why a topic is blocked) for `/metrics` and `/readyz`. The
//! forwarder writes the state, the admin listener reads it, and neither waits for the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntGaugeVec};
use serde::Serialize;

use super::kafka_error::BlockReason;
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
    /// Reason why the topic is blocked, with its error and remedy; `None` if the topic is not blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
}

/// Published reason why a topic is blocked, with the error and the remedy.
#[derive(Clone, Debug, Serialize)]
pub struct Blocked {
    /// Word for the reason: a value of the label `reason` of `hookhold_forward_blocked`.
    pub reason: &'static str,
    /// Text of the error that made hookhold block the topic.
    pub detail: String,
    /// Action that the operator can take to unblock the topic.
    pub remedy: &'static str,
}

/// Published state of one topic. The topic's queue writes this state, and other threads read it.
pub(super) struct TopicStatus {
    topic: Arc<str>,
    /// Number of the topic's events that the cursor or an acknowledgement has passed. [`Journal::stored`] minus this number is the lag.
    /// Negative if the journal had more waiting events when it was opened.
    passed: AtomicI64,
    cursor: AtomicU64,
    /// Arrival time of the oldest unacknowledged event, Unix milliseconds; 0 if there is no such event or the time is unknown.
    oldest_ms: AtomicU64,
    blocked: Mutex<Option<Blocked>>,
    acked_total: IntCounter,
    blocked_gauges: IntGaugeVec,
}

impl TopicStatus {
    /// Creates the published state of a topic. `passed` is the number of events that [`Journal::stored`] returns, minus the number of
    /// waiting events.
    pub(super) fn new(topic: Arc<str>, passed: i64, metrics: &Metrics) -> TopicStatus {
        TopicStatus {
            passed: passed.into(),
            cursor: 0.into(),
            oldest_ms: 0.into(),
            blocked: Mutex::default(),
            acked_total: metrics.forward.acked.with_label_values(&[&*topic]),
            blocked_gauges: metrics.forward.blocked.clone(),
            topic,
        }
    }

    /// Adds one to the number of acknowledged events and so reduces the topic's lag by one event.
    pub(super) fn count_acked(&self) {
        self.acked_total.inc();
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

    /// Publishes the reason why the topic is blocked, in this status and in the metric `hookhold_forward_blocked`. `None`
    /// means that the topic is not blocked.
    pub(super) fn set_block(&self, block: Option<(BlockReason, &str)>) {
        let block =
            block.map(|(reason, detail)| Blocked { reason: reason.word(), detail: detail.into(), remedy: reason.remedy() });
        let reason = block.as_ref().map(|block| block.reason);
        let former = std::mem::replace(&mut *self.lock_blocked(), block).map(|former| former.reason);
        if former != reason {
            let gauge = |reason: &str| self.blocked_gauges.with_label_values(&[&*self.topic, reason]);
            former.iter().for_each(|reason| gauge(reason).set(0));
            reason.iter().for_each(|reason| gauge(reason).set(1));
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
            blocked: self.lock_blocked().clone(),
        }
    }

    fn lock_blocked(&self) -> MutexGuard<'_, Option<Blocked>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Published state of every topic.
#[derive(Default)]
pub(super) struct StatusTable(Mutex<BTreeMap<Arc<str>, Arc<TopicStatus>>>);

impl StatusTable {
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
        for topic in self.snapshots(journal, now) {
            metrics.forward.lag_events.with_label_values(&[&topic.topic]).set(topic.lag_events as i64);
            metrics.forward.lag_seconds.with_label_values(&[&topic.topic]).set(topic.lag_seconds);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<TopicStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
