//! Life.

use crate::disk::{SimDisk, Step};
use crate::events::{ManualClock, Sample, TOPICS};
use hookhold::clock::Clock;
use hookhold::event::Position;
use hookhold::journal::{AppendError, AppendRejected, Journal, OpenError, Options};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::*;

/// What the model knows about an event that was handed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Its end was not told: it may be kept or not.
    Open,
    /// Told to be not kept; it may still lie on the disk.
    Failed,
    /// Not kept, and it must never appear.
    Void,
    /// Kept for ever, here.
    Kept(Position),
    /// Lost to rot.
    Rotten,
}

pub struct Handed {
    pub sample: Sample,
    pub fate: Fate,
}

/// One life: the medium, the model, and what was seen on the way.
pub struct Life {
    pub rng: fastrand::Rng,
    pub disk: SimDisk,
    pub clock: Arc<ManualClock>,
    pub options: Options,
    pub trouble: Trouble,
    pub events: Vec<Handed>,
    /// The highest cursor that was ever saved, by lane; and the one that was found at the last start.
    pub saved: HashMap<String, u64>,
    pub found: HashMap<String, u64>,
    /// What came after a lane was first found is not deleted before its cursor passes, by lane.
    pub pinned_from: HashMap<String, u64>,
    pub counts: LifeCounts,
}

pub type Checked = Result<(), String>;

pub type Ends = Receiver<(usize, Result<Position, AppendError>)>;

pub fn live(seed: u64, trouble: Trouble) -> Result<LifeCounts, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let retention = trouble.retention;
    // With retention: segments that hold enough to be written over, and few enough that they are.
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
    if trouble.lies {
        disk.ignore_syncs();
    }
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let (events, saved, found, pinned_from, counts) = Default::default();
    let mut life = Life { rng, disk, clock, options, trouble, events, saved, found, pinned_from, counts };
    for _ in 0..life.rng.usize(2..6) {
        life.opening()?;
    }
    life.last_opening()?;
    life.counts.recycled = life.disk.files_recycled();
    Ok(life.counts)
}

impl Life {
    /// Opens, checks, uses and ends the journal; each part may be cut.
    pub fn opening(&mut self) -> Checked {
        let cut_early = self.rng.u8(..3) == 0;
        let Some((journal, _)) = self.open(cut_early)? else { return Ok(()) };
        let checked = self.check(&journal);
        if !self.disk.is_dead() {
            checked?;
            self.use_it(&journal)?;
        }
        self.end(journal);
        Ok(())
    }

    /// Opens twice without any trouble, and damages the disk in between.
    pub fn last_opening(&mut self) -> Checked {
        self.disk.kill();
        self.disk.set_limit(u64::MAX);
        let Some((journal, _)) = self.open(false)? else { return Err("it does not open".into()) };
        self.check(&journal)?;
        let ends = self.append(&journal, 3)?;
        journal.close();
        self.settle(ends)?;
        if self.rng.bool() {
            self.disk.cut_power();
        }
        // Once more, so that a newer segment says how far the older ones were on disk.
        let Some((journal, _)) = self.open(false)? else { return Err("it does not open again".into()) };
        journal.close();
        let damage = self.trouble.rot.then(|| self.damage()).flatten();
        let Some((journal, metrics)) = self.open(false)? else { return Err("it does not open a third time".into()) };
        match damage {
            None => self.check(&journal)?,
            Some(damage) => self.check_damaged(&journal, &metrics, &damage)?,
        }
        journal.close();
        self.check_from_outside()
    }

    pub fn open(&mut self, cut: bool) -> Result<Option<(Journal, Arc<Metrics>)>, String> {
        self.disk.kill();
        let process = self.disk.start();
        if cut {
            self.disk.die_after(self.rng.u64(1..25));
        }
        let metrics = Arc::new(Metrics::new());
        let clock: Arc<dyn Clock> = self.clock.clone();
        match Journal::open(process, self.options.clone(), clock, metrics.clone()) {
            Ok(journal) => Ok(Some((journal, metrics))),
            Err(error) if self.disk.is_dead() => {
                drop(error);
                self.counts.cut_openings += 1;
                self.crash();
                Ok(None)
            }
            Err(OpenError::NoRoom { .. }) if self.trouble.faults => {
                self.disk.set_limit(u64::MAX);
                self.crash();
                Ok(None)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|source| source.to_string());
                Err(format!("it does not open: {error}: {}", cause.unwrap_or_default()))
            }
        }
    }

    pub fn crash(&mut self) {
        self.counts.cuts += 1;
        match self.rng.u8(..3) {
            0 => self.disk.kill(),
            _ => self.disk.cut_power(),
        }
    }

    pub fn use_it(&mut self, journal: &Journal) -> Checked {
        if self.rng.u8(..3) > 0 {
            let steps = [8, 30, 90][self.rng.usize(..3)];
            let steps = if self.trouble.long { 10 * steps } else { steps };
            self.disk.die_after(self.rng.u64(1..steps));
        }
        let mut ends = Vec::new();
        let rounds = if self.trouble.long { 10..60 } else { 1..12 };
        for _ in 0..self.rng.usize(rounds) {
            if self.trouble.faults {
                self.make_trouble();
            }
            let count = [2, 4, 16][self.rng.usize(..3)];
            ends.push(self.append(journal, count)?);
            if self.rng.bool() {
                for ends in ends.drain(..) {
                    self.settle(ends)?;
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
        for ends in ends {
            self.settle(ends)?;
        }
        Ok(())
    }

    /// Nothing reaches the disk any more; then the threads can be collected.
    pub fn stop_writing(&mut self, journal: &Journal) {
        if !self.disk.is_dead() && self.rng.bool() {
            self.disk.kill();
        }
        journal.close();
    }

    pub fn end(&mut self, journal: Journal) {
        self.disk.kill();
        journal.close();
        self.crash();
    }

    pub fn make_trouble(&mut self) {
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

    /// Hands over some events: new ones, and those again whose senders were told 503.
    pub fn append(&mut self, journal: &Journal, count: usize) -> Result<Ends, String> {
        let (sender, ends) = channel();
        for _ in 0..self.rng.usize(..=count) {
            let again = self.failed_for_good();
            let sample = again.filter(|_| self.rng.bool()).unwrap_or_else(|| self.new_sample());
            self.hand_over(journal, sample, &sender)?;
        }
        Ok(ends)
    }

    pub fn hand_over(
        &mut self,
        journal: &Journal,
        sample: Sample,
        ends: &Sender<(usize, Result<Position, AppendError>)>,
    ) -> Checked {
        let index = self.events.len();
        let ends = ends.clone();
        let told = journal.append(&sample.event(), Box::new(move |end| ends.send((index, end)).unwrap_or(())));
        match told {
            Ok(()) => self.events.push(Handed { sample, fate: Fate::Open }),
            Err(AppendRejected::Full | AppendRejected::Failed | AppendRejected::Closing) => {
                self.events.push(Handed { sample, fate: Fate::Void });
            }
            Err(other) => return Err(format!("refused as {other}")),
        }
        Ok(())
    }

    /// An event that is certainly not kept, and that has not been sent again.
    pub fn failed_for_good(&self) -> Option<Sample> {
        let last = self.events.last()?;
        let open = |handed: &Handed| handed.sample.key == last.sample.key && !matches!(handed.fate, Fate::Failed | Fate::Void);
        let failed = matches!(last.fate, Fate::Failed | Fate::Void) && last.sample.key.is_some();
        (failed && !self.events.iter().any(open)).then(|| last.sample.clone())
    }

    pub fn new_sample(&mut self) -> Sample {
        let number = self.events.len();
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

    /// Waits for the ends of all that was handed over, and believes them.
    pub fn settle(&mut self, ends: Ends) -> Checked {
        for (index, end) in ends {
            match end {
                Ok(position) => {
                    self.counts.acknowledged += 1;
                    self.events[index].fate = Fate::Kept(position);
                    // Its sequence was free: what failed before has lost it.
                    for handed in &mut self.events[..index] {
                        if handed.fate == Fate::Failed {
                            handed.fate = Fate::Void;
                        }
                    }
                }
                // A dead process tells nobody.
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

    pub fn save_cursors(&mut self, journal: &Journal) {
        let lanes = journal.topic_cursors();
        for lane in TOPICS {
            let at = lanes.iter().find(|found| *found.name == *lane).map(|found| found.cursor);
            // Who passes events on moves only the cursor of a lane that has some.
            if at.is_none() && self.options.forwards || self.rng.bool() {
                continue;
            }
            let cursor = self.rng.u64(at.unwrap_or(0)..=journal.durable_watermark());
            journal.save_cursor(lane, cursor);
            let highest = self.saved.entry(lane.into()).or_default();
            *highest = cursor.max(*highest);
        }
    }
}
