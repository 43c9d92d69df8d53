//! The model: what the senders know about each event, and what the journal must therefore contain.

use std::collections::HashMap;

use hookhold::event::Position;
use hookhold::journal::AppendError;

use crate::events::{Sample, TOPICS};

/// Fate of an event in the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Event without a result. The event may or may not be stored.
    Unknown,
    /// Event that the journal reported as not stored. The frame of the event may still be on the disk.
    Failed,
    /// Event that is not stored and must never appear in the journal.
    Superseded,
    /// Event that is stored at this position.
    Stored(Position),
    /// Event that was lost to corruption.
    Corrupted,
}

pub struct ModelEvent {
    pub sample: Sample,
    pub fate: Fate,
    /// Index of the first event of the same delivery.
    pub delivery: usize,
}

/// The events of a life, the cursors and the counts so far.
#[derive(Default)]
pub struct Model {
    pub events: Vec<ModelEvent>,
    /// Highest cursor that was ever saved, by topic.
    pub saved: HashMap<String, u64>,
    /// Cursor that the journal had at its last startup, by topic.
    pub found: HashMap<String, u64>,
    /// Durable watermark at the first startup that found a cursor of the topic, by topic. The journal must not delete an event
    /// at or after this position until the cursor has passed the event.
    pub pinned_from: HashMap<String, u64>,
    pub counts: LifeCounts,
}

/// Result of an append.
pub type AppendEnd = Result<Position, AppendError>;

/// Counts from one life or from all lives of one test, such as successful appends and crashes. The test fails if a total is too
/// low.
#[derive(Debug, Default)]
pub struct LifeCounts {
    pub lives: u64,
    pub steps: u64,
    pub acknowledged: u64,
    pub recovered: u64,
    pub interrupted_openings: u64,
    pub crashes: u64,
    pub corrupted: u64,
    pub deleted: u64,
    pub recycled: u64,
    pub failed: u64,
    pub batched: u64,
    pub interleaved: u64,
}

impl Model {
    /// Adds the events of a delivery that the journal has accepted or rejected.
    pub fn add(&mut self, samples: Vec<Sample>, fate: Fate) {
        let delivery = self.events.len();
        self.events.extend(samples.into_iter().map(|sample| ModelEvent { sample, fate, delivery }));
    }

    /// Records the result of an append. `is_dead` is true if the process was dead when the result arrived.
    pub fn record(&mut self, index: usize, result: AppendEnd, is_dead: bool) {
        match result {
            Ok(position) => {
                self.counts.acknowledged += 1;
                self.events[index].fate = Fate::Stored(position);
                // The stored event has the sequence of the earlier failed events, so it supersedes them.
                for event in &mut self.events[..index] {
                    if event.fate == Fate::Failed {
                        event.fate = Fate::Superseded;
                    }
                }
            }
            // A real process could not report this error after its death, so the fate of the event remains unknown.
            Err(_) if is_dead => {}
            Err(AppendError::Sync) => {}
            Err(AppendError::Write | AppendError::Full) => {
                self.counts.failed += 1;
                self.events[index].fate = Fate::Failed;
            }
        }
    }

    /// Returns the last event if a sender may retry it: the event is not part of a batch and has a key, and the event and all
    /// retries of it have failed.
    pub fn failed_event(&self) -> Option<Sample> {
        let has_failed = |event: &ModelEvent| matches!(event.fate, Fate::Failed | Fate::Superseded);
        let last = self.events.last()?;
        let is_retried = |event: &ModelEvent| event.sample.key == last.sample.key && !has_failed(event);
        let is_single = last.delivery == self.events.len() - 1;
        let may_retry = is_single && has_failed(last) && last.sample.key.is_some();
        (may_retry && !self.events.iter().any(is_retried)).then(|| last.sample.clone())
    }

    /// Returns the sequences of a topic's stored events.
    pub fn stored_in(&self, topic: &str) -> impl Iterator<Item = u64> {
        let of_topic = self.events.iter().filter(move |event| TOPICS[event.sample.topic] == topic);
        of_topic.filter_map(ModelEvent::stored_at).map(|position| position.seq)
    }
}

impl ModelEvent {
    /// Returns the position of a stored event; `None` for any other event.
    pub fn stored_at(&self) -> Option<Position> {
        if let Fate::Stored(position) = self.fate { Some(position) } else { None }
    }
}

impl LifeCounts {
    pub fn add(&mut self, other: &LifeCounts) {
        self.lives += 1;
        self.steps += other.steps;
        self.acknowledged += other.acknowledged;
        self.recovered += other.recovered;
        self.interrupted_openings += other.interrupted_openings;
        self.crashes += other.crashes;
        self.corrupted += other.corrupted;
        self.deleted += other.deleted;
        self.recycled += other.recycled;
        self.failed += other.failed;
        self.batched += other.batched;
        self.interleaved += other.interleaved;
    }
}
