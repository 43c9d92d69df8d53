//! What others may know of the forwarder while it works: lag, cursors and blocks, for `/metrics` and `/readyz`. The
//! forwarder writes, everybody else reads; neither waits for the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::kafka_error::Reason;
use crate::clock::UnixMillis;
use crate::metrics::Metrics;

/// How one lane fares.
#[derive(Clone, Debug, Serialize)]
pub struct TopicSnapshot {
    /// The Kafka topic.
    pub topic: String,
    /// Everything of this lane below this sequence is acknowledged.
    pub cursor: u64,
    /// Durable events that Kafka has not acknowledged.
    pub lag_events: u64,
    /// Age in seconds of the oldest of them; 0 without any.
    pub lag_seconds: f64,
    /// Why the lane does not flow; absent while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
}

/// Why a lane does not flow.
#[derive(Clone, Debug, Serialize)]
pub struct Blocked {
    /// The reason's word, as in `hookhold_forward_blocked`.
    pub reason: &'static str,
    /// What exactly was refused or missing.
    pub detail: String,
    /// What the operator can do.
    pub remedy: &'static str,
}

/// One lane's place on the board.
#[derive(Default)]
pub(super) struct TopicStatus {
    /// Durable events from the cursor at which it started.
    pub seen: AtomicU64,
    /// Those of them that Kafka has acknowledged.
    pub acked: AtomicU64,
    /// The present cursor.
    pub cursor: AtomicU64,
    /// When the oldest unacknowledged event arrived, in milliseconds; 0: there is none, or none has been read yet.
    pub oldest: AtomicU64,
    blocked: Mutex<Option<Blocked>>,
}

impl TopicStatus {
    /// Shows why the lane is blocked, or that it is not.
    pub fn show_block(&self, block: Option<(Reason, &str)>) {
        let block =
            block.map(|(reason, detail)| Blocked { reason: reason.word(), detail: detail.into(), remedy: reason.remedy() });
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = block;
    }

    fn status(&self, topic: &Arc<str>, now: UnixMillis) -> TopicSnapshot {
        let acked = self.acked.load(Relaxed);
        let lag_events = self.seen.load(Relaxed).saturating_sub(acked);
        let oldest = self.oldest.load(Relaxed);
        let waiting = lag_events > 0 && oldest > 0;
        TopicSnapshot {
            topic: topic.to_string(),
            cursor: self.cursor.load(Relaxed),
            lag_events,
            lag_seconds: if waiting { now.since(UnixMillis(oldest)) as f64 / 1000.0 } else { 0.0 },
            blocked: self.blocked.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// All lanes, by topic.
#[derive(Default)]
pub(super) struct StatusTable(Mutex<BTreeMap<Arc<str>, Arc<TopicStatus>>>);

impl StatusTable {
    /// Gives a new lane, of which so many events wait, its place.
    pub fn add(&self, topic: &Arc<str>, waiting: u64) -> Arc<TopicStatus> {
        let face = || Arc::new(TopicStatus { seen: waiting.into(), ..TopicStatus::default() });
        self.faces().entry(topic.clone()).or_insert_with(face).clone()
    }

    /// How every lane fares at this moment.
    pub fn lanes(&self, now: UnixMillis) -> Vec<TopicSnapshot> {
        self.faces().iter().map(|(topic, face)| face.status(topic, now)).collect()
    }

    /// Writes lag into the metrics.
    pub fn measure(&self, metrics: &Metrics, now: UnixMillis) {
        for lane in self.lanes(now) {
            metrics.forward.lag_events.with_label_values(&[&lane.topic]).set(lane.lag_events as i64);
            metrics.forward.lag_seconds.with_label_values(&[&lane.topic]).set(lane.lag_seconds);
        }
    }

    fn faces(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<TopicStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
