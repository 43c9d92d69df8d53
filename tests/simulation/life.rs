//! One life of a journal: a loop that performs steps of the writer, of the background work, of the senders and of a reader, and
//! that kills the process or cuts the power. A seed determines every step. A step of one actor may run inside a disk operation
//! of another, as if both ran on their own threads.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use hookhold::clock::Clock;
use hookhold::event::{Event, Position};
use hookhold::journal::{
    AppendRejected, BackgroundSteps, Environment, Journal, MAX_RECENT_KEYS, OpenError, Options, Reader, WriterStep, WriterSteps,
};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;

use crate::Hazards;
use crate::clock::{SimClock, SimRandom};
use crate::disk::{SimDisk, Step};
use crate::events::{Sample, TOPICS};
use crate::model::{AppendEnd, Fate, LifeCounts, Model};
use crate::trace::Trace;

/// One life.
pub struct Life {
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    pub options: Options,
    pub hazards: Hazards,
    random: Arc<SimRandom>,
    state: Mutex<State>,
    crew: Mutex<Crew>,
    results: Arc<Mutex<Vec<(usize, AppendEnd)>>>,
}

/// State of a life that all actors share. No actor holds its lock while it performs a step.
struct State {
    rng: fastrand::Rng,
    model: Model,
    trace: Trace,
    /// True if an actor may perform a step inside a disk operation of another.
    may_interleave: bool,
    /// Number of disk operations inside which an actor performs a step now.
    depth: u32,
    /// First broken guarantee that an actor has found.
    failure: Option<String>,
}

/// The actors of the running process. An actor that performs a step is absent.
#[derive(Default)]
struct Crew {
    journal: Option<Journal>,
    metrics: Arc<Metrics>,
    writer: Option<WriterSteps>,
    background: Option<BackgroundSteps>,
    reader: Option<Reader>,
}

/// Result of a check. An error describes the broken guarantee.
pub type Checked = Result<(), String>;

/// Runs the life that this seed determines. Returns its counts and, if `record` is true, the text of its trace.
pub fn run(seed: u64, hazards: Hazards, record: bool) -> Result<(LifeCounts, String), String> {
    let life = Life::new(seed, hazards, record);
    for _ in 0..life.choose(2..6) {
        life.opening()?;
    }
    life.last_opening()?;
    let mut state = life.state();
    state.model.counts.recycled = life.disk.files_recycled();
    state.model.counts.steps = state.trace.lines();
    Ok((std::mem::take(&mut state.model.counts), state.trace.take_text()))
}

impl Life {
    fn new(seed: u64, hazards: Hazards, record: bool) -> Arc<Life> {
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
        let options = Options {
            limits,
            dedupe_window: Duration::from_secs(7 * 86_400),
            max_key_bytes: u64::MAX / 4,
            forwards: rng.bool(),
            max_recent_keys: [0, 10, MAX_RECENT_KEYS][rng.usize(..3)],
        };
        let disk = SimDisk::new(seed);
        if hazards.ignored_syncs {
            disk.ignore_syncs();
        }
        let trace = if record { Trace::recording() } else { Trace::default() };
        let state = State { rng, model: Model::default(), trace, may_interleave: false, depth: 0, failure: None };
        let life = Arc::new(Life {
            disk,
            clock: Arc::new(SimClock::new()),
            options,
            hazards,
            random: Arc::new(SimRandom::new(seed)),
            state: Mutex::new(state),
            crew: Mutex::default(),
            results: Arc::default(),
        });
        let observer: Weak<Life> = Arc::downgrade(&life);
        life.disk.observe(move |step, name| {
            if let Some(life) = observer.upgrade() {
                life.observe(step, name);
            }
        });
        life
    }

    /// Opens the journal, checks its content, lets all actors perform steps, and ends the process. A kill or a power cut may
    /// interrupt any disk operation.
    fn opening(&self) -> Checked {
        let interrupt = self.choose(0..3) == 0;
        if !self.open(interrupt)? {
            return Ok(());
        }
        let checked = self.check();
        if !self.disk.is_dead() {
            checked?;
            self.live()?;
        }
        self.disk.kill();
        self.dismiss();
        self.crash();
        Ok(())
    }

    /// Opens the journal three times without disk faults and without kills during a step. If corruption is a hazard of this
    /// life, damages a segment before the third time.
    fn last_opening(&self) -> Checked {
        self.disk.kill();
        self.disk.set_limit(u64::MAX);
        self.open_again("the journal does not open")?;
        self.check()?;
        self.append_some(3)?;
        self.close()?;
        if self.choose(0..2) == 0 {
            self.disk.cut_power();
        }
        // This second start creates a newer segment. The newer segment proves that the older segments were completely on disk.
        self.open_again("the journal does not open a second time")?;
        self.close()?;
        let damage = if self.hazards.corruption { self.with_model(|model, rng| model.damage(self, rng)) } else { None };
        self.open_again("the journal does not open a third time")?;
        match damage {
            None => self.check()?,
            Some(damage) => {
                let (journal, metrics) = self.journal()?;
                self.with_model(|model, _| model.check_damaged(self, &journal, &metrics, &damage))?;
            }
        }
        self.close()?;
        self.with_model(|model, _| model.check_read_only(self))
    }

    fn open_again(&self, what: &str) -> Checked {
        if self.open(false)? { Ok(()) } else { Err(what.to_owned()) }
    }

    /// Opens the journal in a new process. Returns false if a kill or a full disk has prevented this.
    fn open(&self, interrupt: bool) -> Result<bool, String> {
        self.disk.kill();
        self.dismiss();
        let disk = self.disk.start();
        if interrupt {
            self.disk.die_after(self.choose(1..25) as u64);
        }
        let metrics = Arc::new(Metrics::new());
        let environment = Environment { disk, clock: self.clock.clone(), random: self.random.clone(), metrics: metrics.clone() };
        match Journal::open_in_steps(environment, self.options.clone()) {
            Ok((journal, writer, background)) => {
                let reader = Some(journal.reader(0));
                *self.crew() =
                    Crew { journal: Some(journal), metrics, writer: Some(writer), background: Some(background), reader };
                Ok(true)
            }
            Err(error) if self.disk.is_dead() => {
                drop(error);
                self.with_model(|model, _| model.counts.interrupted_openings += 1);
                self.crash();
                Ok(false)
            }
            Err(OpenError::NoRoom { .. }) if self.hazards.faults => {
                self.disk.set_limit(u64::MAX);
                self.crash();
                Ok(false)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|source| source.to_string());
                Err(format!("the journal does not open: {error}: {}", cause.unwrap_or_default()))
            }
        }
    }

    fn crash(&self) {
        self.with_model(|model, _| model.counts.crashes += 1);
        match self.choose(0..3) {
            0 => self.disk.kill(),
            _ => self.disk.cut_power(),
        }
    }

    /// Lets the actors perform steps in a random order, until the process dies or the random number of steps is reached.
    fn live(&self) -> Checked {
        if self.choose(0..3) > 0 {
            let steps = [8, 30, 90][self.choose(0..3)];
            let steps = if self.hazards.long { 10 * steps } else { steps };
            self.disk.die_after(self.choose(1..steps) as u64);
        }
        let turns = if self.hazards.long { 40..300 } else { 4..60 };
        self.state().may_interleave = true;
        for _ in 0..self.choose(turns) {
            self.turn();
            self.record();
            if let Some(failure) = self.state().failure.take() {
                return Err(failure);
            }
        }
        self.state().may_interleave = false;
        if self.choose(0..4) == 0 && !self.disk.is_dead() { self.close() } else { Ok(()) }
    }

    /// Lets a random actor perform a step.
    fn turn(&self) {
        let done = match self.choose(0..16) {
            0..4 => self.append_some([1, 2, 8][self.choose(0..3)]),
            4..9 => self.step_writer().map(|_| ()),
            9..12 => {
                self.step_background();
                Ok(())
            }
            12 => self.read_some(),
            13 => {
                self.save_cursors();
                Ok(())
            }
            14 => {
                self.clock.advance(self.choose(0..5_000) as u64);
                Ok(())
            }
            _ => {
                if self.hazards.faults {
                    self.inject_fault();
                }
                Ok(())
            }
        };
        if let Err(failure) = done {
            self.state().failure.get_or_insert(failure);
        }
    }

    /// Adds the disk operation to the trace. Sometimes lets other actors perform steps before the operation takes effect.
    fn observe(&self, step: Step, name: &str) {
        let mut state = self.state();
        state.trace.line(format_args!("{step:?} {name}"));
        if !state.may_interleave || state.depth == MAX_DEPTH || state.rng.u8(..4) > 0 {
            return;
        }
        state.depth += 1;
        state.model.counts.interleaved += 1;
        drop(state);
        self.turn();
        self.state().depth -= 1;
    }

    /// Performs a step of the writer, unless the writer performs one already, or would have to wait for the background work.
    fn step_writer(&self) -> Result<WriterStep, String> {
        let is_blocked = self.is_blocked();
        let Some(mut writer) = self.crew().writer.take_if(|_| !is_blocked) else { return Ok(WriterStep::Idle) };
        let step = writer.step();
        self.state().trace.line(format_args!("writer {step:?}"));
        if step != WriterStep::Ended {
            self.crew().writer = Some(writer);
        }
        Ok(step)
    }

    /// Performs a step of the background work, unless it performs one already, or would have to wait for the writer.
    fn step_background(&self) -> bool {
        let is_blocked = self.is_blocked();
        let Some(mut background) = self.crew().background.take_if(|_| !is_blocked) else { return false };
        let has_worked = background.step();
        self.state().trace.line(format_args!("background {has_worked}"));
        self.crew().background = Some(background);
        has_worked
    }

    fn is_blocked(&self) -> bool {
        self.crew().journal.as_ref().is_some_and(Journal::is_making_room)
    }

    /// Reads some events, as the forwarder does. Every event must have been appended.
    fn read_some(&self) -> Checked {
        let Some(mut reader) = self.crew().reader.take() else { return Ok(()) };
        for _ in 0..self.choose(1..6) {
            match reader.next() {
                Ok(Some(stored)) => {
                    let body = stored.event.body();
                    let is_known = self.state().model.events.iter().any(|event| event.sample.body == **body);
                    if !is_known {
                        return Err(format!("the reader returned {}, which was never appended", stored.position));
                    }
                }
                Ok(None) => break,
                Err(_) if self.disk.is_dead() || self.hazards.faults => break,
                Err(error) => return Err(format!("{error}: {}", error.source)),
            }
        }
        self.crew().reader = Some(reader);
        Ok(())
    }

    /// Closes the journal as a clean stop does.
    fn close(&self) -> Checked {
        if let Some(journal) = &self.crew().journal {
            journal.close();
        }
        for _ in 0..MAX_CLOSING_STEPS {
            if self.crew().writer.is_none() {
                self.record();
                self.dismiss();
                return Ok(());
            }
            if let WriterStep::WaitsForSealing(_) = self.step_writer()? {
                self.step_background();
            }
        }
        Err(format!("the writer has not ended {MAX_CLOSING_STEPS} steps after the journal was closed"))
    }

    fn inject_fault(&self) {
        let error = io::ErrorKind::Other;
        match self.choose(0..10) {
            0 => self.disk.fail(Step::Write, ".seg", error, 1),
            1 => self.disk.fail(Step::Sync, ".tmp", error, 1),
            2 if self.choose(0..2) == 0 => self.disk.fail(Step::Sync, ".seg", error, 1),
            3 => self.disk.fail(Step::Create, ".seg", error, 1),
            4 => self.disk.fail(Step::SyncDir, "", error, 1),
            5 => self.disk.fail(Step::Rename, "", error, 1),
            6 => self.disk.set_limit(self.disk.used() + self.choose(0..40_000) as u64),
            7 => self.disk.set_limit(u64::MAX),
            _ => {}
        }
    }

    /// Appends the events of up to `count` deliveries: new events, batches of new events, and retries of events that were not
    /// stored.
    fn append_some(&self, count: usize) -> Checked {
        for _ in 0..self.choose(0..count + 1) {
            let samples = {
                let State { rng, model, .. } = &mut *self.state();
                match model.failed_event().filter(|_| rng.bool()) {
                    Some(sample) => vec![sample],
                    None => new_delivery(rng, model.events.len(), self.clock.now().0),
                }
            };
            self.append(samples)?;
        }
        Ok(())
    }

    /// Appends the events of one delivery.
    fn append(&self, samples: Vec<Sample>) -> Checked {
        let Some(journal) = self.crew().journal.clone() else { return Ok(()) };
        let first = self.state().model.events.len();
        let (results, numbers) = (self.results.clone(), first..first + samples.len());
        let complete = move |end: AppendEnd| {
            for (offset, index) in (0..).zip(numbers) {
                let end = end.map(|first| Position { seq: first.seq + offset, ..first });
                results.lock().expect(POISON).push((index, end));
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
        let state = &mut *self.state();
        state.trace.line(format_args!("append {first} {fate:?}"));
        state.model.add(samples, fate);
        Ok(())
    }

    /// Records the results of appends in the model.
    fn record(&self) {
        let is_dead = self.disk.is_dead();
        let results = std::mem::take(&mut *self.results.lock().expect(POISON));
        let State { model, trace, .. } = &mut *self.state();
        for (index, result) in results {
            trace.line(format_args!("result {index} {result:?}"));
            model.record(index, result, is_dead);
        }
    }

    fn save_cursors(&self) {
        let Some(journal) = self.crew().journal.clone() else { return };
        let cursors = journal.topic_cursors();
        let State { rng, model, trace, .. } = &mut *self.state();
        for topic in TOPICS {
            let cursor = cursors.iter().find(|found| *found.name == *topic).map(|found| found.cursor);
            // The forwarder saves a cursor only for a topic that has events.
            if cursor.is_none() && self.options.forwards || rng.bool() {
                continue;
            }
            let cursor = rng.u64(cursor.unwrap_or(0)..=journal.durable_watermark());
            trace.line(format_args!("cursor {topic} {cursor}"));
            journal.save_cursor(topic, cursor, 1);
            let highest = model.saved.entry(topic.into()).or_default();
            *highest = cursor.max(*highest);
        }
    }

    /// Compares the journal with the model.
    fn check(&self) -> Checked {
        let (journal, _) = self.journal()?;
        self.with_model(|model, _| model.check(self, &journal))
    }

    fn journal(&self) -> Result<(Journal, Arc<Metrics>), String> {
        let crew = self.crew();
        let journal = crew.journal.clone().ok_or("the journal is not open")?;
        Ok((journal, crew.metrics.clone()))
    }

    /// Removes the actors of the process.
    fn dismiss(&self) {
        let crew = std::mem::take(&mut *self.crew());
        drop(crew);
    }

    /// Calls `use_model` without holding the lock of the state, because the observer of the disk needs the lock.
    fn with_model<T>(&self, use_model: impl FnOnce(&mut Model, &mut fastrand::Rng) -> T) -> T {
        let (mut model, mut rng) = {
            let state = &mut *self.state();
            (std::mem::take(&mut state.model), state.rng.clone())
        };
        let result = use_model(&mut model, &mut rng);
        let state = &mut *self.state();
        (state.model, state.rng) = (model, rng);
        result
    }

    /// Returns a random number in `range`.
    fn choose(&self, range: std::ops::Range<usize>) -> usize {
        self.state().rng.usize(range)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(POISON)
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().expect(POISON)
    }
}

/// Returns the events of a new delivery: one event, or a batch with a single topic.
fn new_delivery(rng: &mut fastrand::Rng, number: usize, now: u64) -> Vec<Sample> {
    let count = if rng.u8(..4) == 0 { rng.usize(2..6) } else { 1 };
    let mut samples: Vec<Sample> = (0..count).map(|offset| new_sample(rng, number + offset, now)).collect();
    let topic = samples[0].topic;
    samples.iter_mut().for_each(|sample| sample.topic = topic);
    samples
}

fn new_sample(rng: &mut fastrand::Rng, number: usize, now: u64) -> Sample {
    let length = match rng.u8(..20) {
        0..3 => rng.usize(2_000..9_000),
        3 => rng.usize(20_000..70_000),
        _ => rng.usize(..400),
    };
    let mut body = format!("<event {number}>").into_bytes();
    let start = body.len();
    body.resize(start + length, 0);
    rng.fill(&mut body[start..]);
    let mut key = [0; 16];
    rng.fill(&mut key);
    Sample {
        topic: rng.usize(..TOPICS.len()),
        body,
        id: format!("id-{number}"),
        key: (rng.u8(..5) > 0).then_some(key),
        received_at: now,
        headers: Vec::new(),
    }
}

/// Maximum number of disk operations inside which an actor performs a step at the same time.
const MAX_DEPTH: u32 = 2;
/// Maximum number of steps in which the writer must end after the journal was closed.
const MAX_CLOSING_STEPS: u32 = 1_000;
const POISON: &str = "no test panics while it holds this lock";
