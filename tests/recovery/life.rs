//! One life of a journal: the actions on the journal, and the model that records the fate of every event.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hookhold::clock::Clock;
use hookhold::event::{Event, Position};
use hookhold::journal::{AppendError, AppendRejected, Journal, OpenError, Options};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;

use crate::disk::{SimDisk, Step};
use crate::events::{ManualClock, Sample, TOPICS};
use crate::{Hazards, LifeCounts};

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

/// State of one life: the disk, the model, and the cursors and counts so far.
pub struct Life {
    pub rng: fastrand::Rng,
    pub disk: SimDisk,
    pub clock: Arc<ManualClock>,
    pub options: Options,
    pub hazards: Hazards,
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

/// Result of a check. An error describes the broken guarantee.
pub type Checked = Result<(), String>;

/// Receiver for the results of appends, each with the index of its event.
pub type Results = Receiver<(usize, AppendEnd)>;

/// Result of an append.
type AppendEnd = Result<Position, AppendError>;

/// Runs the life that this seed determines.
pub fn run(seed: u64, hazards: Hazards) -> Result<LifeCounts, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let retention = hazards.retention;
    // With retention, the segments must be large enough and few enough for the journal to recycle them.
    let sizes = if retention { [24, 32, 40, 64] } else { [18, 20, 32, 64] };
    let segment_size = sizes[rng.usize(..4)] * 1024;
    let limits = JournalLimits {
        max_size: if retention { rng.u64(4..9) * segment_size } else { u64::MAX / 4 },
        retain: if retention && rng.bool() { Duration::from_secs(10) } else { Duration::from_secs(86_400) },
        segment_size,
        max_backlog: u64::MAX / 8,
    };
    let options =
        Options { limits, dedupe_window: Duration::from_secs(7 * 86_400), max_key_bytes: u64::MAX / 4, forwards: rng.bool() };
    let disk = SimDisk::new(seed);
    if hazards.ignored_syncs {
        disk.ignore_syncs();
    }
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let (events, saved, found, pinned_from, counts) = Default::default();
    let mut life = Life { rng, disk, clock, options, hazards, events, saved, found, pinned_from, counts };
    for _ in 0..life.rng.usize(2..6) {
        life.opening()?;
    }
    life.last_opening()?;
    life.counts.recycled = life.disk.files_recycled();
    Ok(life.counts)
}

impl Life {
    /// Opens the journal, checks its content, appends events, and ends the process. A kill or a power cut may interrupt any
    /// step.
    fn opening(&mut self) -> Checked {
        let interrupt = self.rng.u8(..3) == 0;
        let Some((journal, _)) = self.open(interrupt)? else { return Ok(()) };
        let checked = self.check(&journal);
        if !self.disk.is_dead() {
            checked?;
            self.use_journal(&journal)?;
        }
        self.end(journal);
        Ok(())
    }

    /// Opens the journal three times without disk faults and without kills during a step. If corruption is a hazard of this
    /// life, damages a segment before the third time.
    fn last_opening(&mut self) -> Checked {
        self.disk.kill();
        self.disk.set_limit(u64::MAX);
        let Some((journal, _)) = self.open(false)? else { return Err("the journal does not open".into()) };
        self.check(&journal)?;
        let results = self.append_some(&journal, 3)?;
        journal.close();
        self.record(results)?;
        if self.rng.bool() {
            self.disk.cut_power();
        }
        // This second start creates a newer segment. The newer segment proves that the older segments were completely on disk.
        let Some((journal, _)) = self.open(false)? else { return Err("the journal does not open a second time".into()) };
        journal.close();
        let damage = self.hazards.corruption.then(|| self.damage()).flatten();
        let Some((journal, metrics)) = self.open(false)? else { return Err("the journal does not open a third time".into()) };
        match damage {
            None => self.check(&journal)?,
            Some(damage) => self.check_damaged(&journal, &metrics, &damage)?,
        }
        journal.close();
        self.check_read_only()
    }

    fn open(&mut self, interrupt: bool) -> Result<Option<(Journal, Arc<Metrics>)>, String> {
        self.disk.kill();
        let process = self.disk.start();
        if interrupt {
            self.disk.die_after(self.rng.u64(1..25));
        }
        let metrics = Arc::new(Metrics::new());
        let clock: Arc<dyn Clock> = self.clock.clone();
        match Journal::open(process, self.options.clone(), clock, metrics.clone()) {
            Ok(journal) => Ok(Some((journal, metrics))),
            Err(error) if self.disk.is_dead() => {
                drop(error);
                self.counts.interrupted_openings += 1;
                self.crash();
                Ok(None)
            }
            Err(OpenError::NoRoom { .. }) if self.hazards.faults => {
                self.disk.set_limit(u64::MAX);
                self.crash();
                Ok(None)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|source| source.to_string());
                Err(format!("the journal does not open: {error}: {}", cause.unwrap_or_default()))
            }
        }
    }

    fn crash(&mut self) {
        self.counts.crashes += 1;
        match self.rng.u8(..3) {
            0 => self.disk.kill(),
            _ => self.disk.cut_power(),
        }
    }

    fn use_journal(&mut self, journal: &Journal) -> Checked {
        if self.rng.u8(..3) > 0 {
            let steps = [8, 30, 90][self.rng.usize(..3)];
            let steps = if self.hazards.long { 10 * steps } else { steps };
            self.disk.die_after(self.rng.u64(1..steps));
        }
        let mut results = Vec::new();
        let rounds = if self.hazards.long { 10..60 } else { 1..12 };
        for _ in 0..self.rng.usize(rounds) {
            if self.hazards.faults {
                self.inject_fault();
            }
            let count = [2, 4, 16][self.rng.usize(..3)];
            results.push(self.append_some(journal, count)?);
            if self.rng.bool() {
                for results in results.drain(..) {
                    self.record(results)?;
                }
            }
            if self.rng.u8(..3) == 0 {
                self.save_cursors(journal);
            }
            self.clock.advance(self.rng.u64(..5_000));
        }
        if self.rng.u8(..4) == 0 {
            journal.close();
        } else if self.rng.bool() {
            self.crash();
        }
        self.stop_writing(journal);
        for results in results {
            self.record(results)?;
        }
        Ok(())
    }

    /// Joins the journal's threads, sometimes after killing the process. No write reaches the disk afterwards.
    fn stop_writing(&mut self, journal: &Journal) {
        if !self.disk.is_dead() && self.rng.bool() {
            self.disk.kill();
        }
        journal.close();
    }

    fn end(&mut self, journal: Journal) {
        self.disk.kill();
        journal.close();
        self.crash();
    }

    fn inject_fault(&mut self) {
        let error = io::ErrorKind::Other;
        match self.rng.u8(..10) {
            0 => self.disk.fail(Step::Write, ".seg", error, 1),
            1 => self.disk.fail(Step::Sync, ".tmp", error, 1),
            2 if self.rng.bool() => self.disk.fail(Step::Sync, ".seg", error, 1),
            3 => self.disk.fail(Step::Create, ".seg", error, 1),
            4 => self.disk.fail(Step::SyncDir, "", error, 1),
            5 => self.disk.fail(Step::Rename, "", error, 1),
            6 => self.disk.set_limit(self.disk.used() + self.rng.u64(..40_000)),
            7 => self.disk.set_limit(u64::MAX),
            _ => {}
        }
    }

    /// Appends the events of up to `count` deliveries: new events, batches of new events, and retries of events that were not
    /// stored.
    fn append_some(&mut self, journal: &Journal, count: usize) -> Result<Results, String> {
        let (sender, results) = channel();
        for _ in 0..self.rng.usize(..=count) {
            let retry = self.failed_event();
            let samples = match retry.filter(|_| self.rng.bool()) {
                Some(sample) => vec![sample],
                None => self.new_delivery(),
            };
            self.append(journal, samples, &sender)?;
        }
        Ok(results)
    }

    /// Appends the events of one delivery.
    fn append(&mut self, journal: &Journal, samples: Vec<Sample>, results: &Sender<(usize, AppendEnd)>) -> Checked {
        let delivery = self.events.len();
        let (results, numbers) = (results.clone(), delivery..delivery + samples.len());
        let complete = move |end: AppendEnd| {
            for (offset, index) in (0..).zip(numbers) {
                let end = end.map(|first| Position { seq: first.seq + offset, ..first });
                results.send((index, end)).unwrap_or(());
            }
        };
        let events: Vec<Event> = samples.iter().map(Sample::event).collect();
        let fate = match journal.append_batch(&events[0], &events[1..], Box::new(complete)) {
            Ok(()) => Fate::Unknown,
            Err(AppendRejected::Full | AppendRejected::Failed | AppendRejected::Closing | AppendRejected::BatchTooLarge) => {
                Fate::Superseded
            }
            Err(other) => return Err(format!("rejected as {other}")),
        };
        self.events.extend(samples.into_iter().map(|sample| ModelEvent { sample, fate, delivery }));
        Ok(())
    }

    /// Returns the events of a new delivery: one event, or a batch with a single topic.
    fn new_delivery(&mut self) -> Vec<Sample> {
        let count = if self.rng.u8(..4) == 0 { self.rng.usize(2..6) } else { 1 };
        let mut samples: Vec<Sample> = (0..count).map(|offset| self.new_sample(self.events.len() + offset)).collect();
        let topic = samples[0].topic;
        samples.iter_mut().for_each(|sample| sample.topic = topic);
        samples
    }

    /// Returns the last event if the test may retry it: the event is not part of a batch and has a key, and the event and all
    /// retries of it have failed.
    fn failed_event(&self) -> Option<Sample> {
        let has_failed = |event: &ModelEvent| matches!(event.fate, Fate::Failed | Fate::Superseded);
        let last = self.events.last()?;
        let is_retried = |event: &ModelEvent| event.sample.key == last.sample.key && !has_failed(event);
        let is_single = last.delivery == self.events.len() - 1;
        let may_retry = is_single && has_failed(last) && last.sample.key.is_some();
        (may_retry && !self.events.iter().any(is_retried)).then(|| last.sample.clone())
    }

    fn new_sample(&mut self, number: usize) -> Sample {
        let length = match self.rng.u8(..20) {
            0..3 => self.rng.usize(2_000..9_000),
            3 => self.rng.usize(20_000..70_000),
            _ => self.rng.usize(..400),
        };
        let mut body = format!("<event {number}>").into_bytes();
        body.extend(std::iter::repeat_with(|| self.rng.u8(..)).take(length));
        let mut key = [0; 16];
        self.rng.fill(&mut key);
        Sample {
            topic: self.rng.usize(..TOPICS.len()),
            body,
            id: format!("id-{number}"),
            key: (self.rng.u8(..5) > 0).then_some(key),
            received_at: self.clock.now().0,
            headers: Vec::new(),
        }
    }

    /// Waits for the results of all appends and records the results in the model.
    fn record(&mut self, results: Results) -> Checked {
        for (index, result) in results {
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
                Err(_) if self.disk.is_dead() => {}
                Err(AppendError::Sync) => {}
                Err(AppendError::Write | AppendError::Full) => {
                    self.counts.failed += 1;
                    self.events[index].fate = Fate::Failed;
                }
            }
        }
        Ok(())
    }

    fn save_cursors(&mut self, journal: &Journal) {
        let cursors = journal.topic_cursors();
        for topic in TOPICS {
            let cursor = cursors.iter().find(|found| *found.name == *topic).map(|found| found.cursor);
            // The forwarder saves a cursor only for a topic that has events.
            if cursor.is_none() && self.options.forwards || self.rng.bool() {
                continue;
            }
            let cursor = self.rng.u64(cursor.unwrap_or(0)..=journal.durable_watermark());
            journal.save_cursor(topic, cursor);
            let highest = self.saved.entry(topic.into()).or_default();
            *highest = cursor.max(*highest);
        }
    }
}
