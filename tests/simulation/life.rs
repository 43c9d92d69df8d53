//! One life of a journal: openings that end with a close, a kill or a power cut. A seed determines every step. The actors of an
//! opening are in `actors.rs` and `senders.rs`, the faults are in `incidents.rs`, and the checks are in `checks.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use hookhold::journal::{BackgroundSteps, Environment, Journal, OpenError, Reader, WriterSteps};
use hookhold::metrics::Metrics;
use prometheus::IntCounterVec;
use prometheus::core::Collector;

use crate::clock::{SimClock, SimRandom};
use crate::counts::Counts;
use crate::disk::{SimDisk, TornPages};
use crate::events::Sample;
use crate::hazards::{Fault, Hazards};
use crate::model::{AppendEnd, Checked, Fate, Model};
use crate::trace::{Trace, TraceMode};

/// One life.
pub struct Life {
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    pub hazards: Hazards,
    pub(crate) random: Arc<SimRandom>,
    /// Metrics of all processes of the life.
    pub metrics: Arc<Metrics>,
    state: Mutex<State>,
    crew: Mutex<Crew>,
    pub(crate) results: Arc<Mutex<Vec<(usize, AppendEnd)>>>,
}

/// State of a life that all actors share. No actor holds its lock while it performs a step.
pub struct State {
    pub rng: fastrand::Rng,
    pub model: Model,
    pub trace: Trace,
    /// Number of steps that actors may still perform inside disk operations of the current turn.
    pub interleavings: u32,
    /// Number of disk operations inside which an actor performs a step now.
    pub depth: u32,
    /// First broken guarantee that an actor has found.
    pub failure: Option<String>,
    /// Keys whose event the gateway is looking up or appending, each with the number of further deliveries that wait for it.
    pub pending: BTreeMap<[u8; 16], u32>,
    /// Deliveries whose key the gateway must look up on disk.
    pub lookups: VecDeque<Sample>,
    /// Records that Kafka has received and not acknowledged, by topic: the sequences.
    pub in_flight: BTreeMap<String, VecDeque<u64>>,
    /// Time at which the current process has opened the journal, in milliseconds since the start of the life.
    pub opened_ms: u64,
    /// Number of failed steps when the process started.
    pub failed_steps_before: u64,
    /// Number of damaged ranges that the earlier processes have counted.
    pub damaged_before: u64,
    /// Batch that the writer has taken and not saved completely.
    pub batch: Option<WriterBatch>,
    /// Time at which the directory was moved, since the current process has started.
    pub moved_ms: Option<u64>,
    /// Number of faults so far that break the guarantees of the disk.
    pub incidents: u64,
}

/// State at the time when the writer took a batch.
pub struct WriterBatch {
    /// Cursors that the writer must save with this batch, because they have waited for long enough.
    pub due_cursors: Vec<(String, u64)>,
    /// Number of failed steps.
    pub failures: u64,
}

/// The actors of the running process. An actor that performs a step is absent.
#[derive(Default)]
pub struct Crew {
    pub journal: Option<Journal>,
    pub writer: Option<WriterSteps>,
    pub background: Option<BackgroundSteps>,
    pub forwarder: Option<Reader>,
}

/// Runs the life that this seed determines. Returns its counts and the lines of its trace.
pub fn run(seed: u64, hazards: impl FnOnce(&mut fastrand::Rng) -> Hazards, trace: TraceMode) -> Result<(Counts, String), String> {
    let life = Life::new(seed, hazards, trace);
    for _ in 0..life.choose(2..6) {
        life.opening()?;
    }
    life.last_openings()?;
    let recycled = life.disk.files_recycled();
    let evicted = sum(&life.metrics.journal.dedupe_evicted);
    let state = &mut *life.state();
    let mut counts = std::mem::take(&mut state.model.counts);
    counts.count("lives", 1);
    counts.count("file recycled", recycled);
    counts.count("key evicted", evicted);
    counts.count("step", state.trace.lines());
    life.disk.happened().into_iter().for_each(|(what, times)| counts.count(what, times));
    Ok((counts, state.trace.take_text()))
}

impl Life {
    fn new(seed: u64, hazards: impl FnOnce(&mut fastrand::Rng) -> Hazards, trace: TraceMode) -> Arc<Life> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let hazards = hazards(&mut rng);
        let disk = SimDisk::new(seed);
        let torn = [
            (Fault::UnreadablePages, TornPages::Unreadable),
            (Fault::TornPages, TornPages::Noise),
            (Fault::TornSectors, TornPages::Mixed),
        ];
        let torn = torn.into_iter().find(|(fault, _)| hazards.has(*fault)).map_or(TornPages::Whole, |(_, torn)| torn);
        disk.set_sectors([512, 4096][rng.usize(..2)], torn);
        if hazards.has(Fault::FailedDirectorySync) {
            disk.forget_names();
        }
        if hazards.ignores_syncs {
            disk.ignore_syncs();
        }
        let state = State {
            rng,
            model: Model::default(),
            trace: Trace::new(trace),
            interleavings: 0,
            depth: 0,
            failure: None,
            pending: BTreeMap::new(),
            lookups: VecDeque::new(),
            in_flight: BTreeMap::new(),
            opened_ms: 0,
            failed_steps_before: 0,
            damaged_before: 0,
            batch: None,
            moved_ms: None,
            incidents: 0,
        };
        let life = Arc::new(Life {
            disk,
            clock: Arc::new(SimClock::new()),
            hazards,
            random: Arc::new(SimRandom::new(seed)),
            metrics: Arc::new(Metrics::new()),
            state: Mutex::new(state),
            crew: Mutex::default(),
            results: Arc::default(),
        });
        life.trace(format_args!("seed {seed}: {:?}", life.hazards));
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
        self.dismiss();
        self.damage_something(4);
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

    /// Opens the journal three times, without faults of the disk and without kills during a step. All events must return that a
    /// fault has hidden, and the journal must accept an event.
    fn last_openings(&self) -> Checked {
        self.disk.kill();
        self.disk.clear_faults();
        self.disk.set_limit(u64::MAX);
        self.open_again("the journal does not open after the faults")?;
        self.check()?;
        self.forward_everything()?;
        self.append_one()?;
        self.close()?;
        if self.choose(0..2) == 0 {
            self.disk.cut_power();
        }
        self.open_again("the journal does not open a second time")?;
        self.check()?;
        self.close()?;
        self.damage_something(2);
        self.open_again("the journal does not open a third time")?;
        self.check()?;
        self.close()?;
        self.check_outside()
    }

    fn open_again(&self, what: &str) -> Checked {
        if self.open(false)? { Ok(()) } else { Err(what.to_owned()) }
    }

    /// Opens the journal in a new process. Returns false if a kill, a failed step or a full disk has prevented this.
    fn open(&self, interrupt: bool) -> Result<bool, String> {
        self.disk.kill();
        self.dismiss();
        let disk = self.disk.start();
        {
            let state = &mut *self.state();
            state.pending.clear();
            state.lookups.clear();
            state.in_flight.clear();
            state.moved_ms = None;
            state.batch = None;
            state.opened_ms = self.clock.elapsed_ms();
            state.failed_steps_before = self.disk.failed_steps();
            state.damaged_before = self.metrics.journal.damaged.get();
        }
        if interrupt {
            self.disk.die_after(self.choose(1..25) as u64);
            self.fail_an_opening();
        }
        let (clock, random, metrics) = (self.clock.clone(), self.random.clone(), self.metrics.clone());
        let environment = Environment { disk, clock, random, metrics };
        match Journal::open_in_steps(environment, self.hazards.options.clone()) {
            Ok((journal, writer, background)) => {
                let from = journal.topic_cursors().iter().map(|topic| topic.cursor).min().unwrap_or(0);
                let crew = &mut *self.crew();
                crew.forwarder = self.hazards.options.forwards.then(|| journal.reader(from));
                (crew.journal, crew.writer, crew.background) = (Some(journal), Some(writer), Some(background));
                Ok(true)
            }
            Err(_) if self.disk.is_dead() => Ok(self.not_opened("opening interrupted")),
            Err(OpenError::NoRoom { .. }) if self.hazards.has(Fault::FullDisk) => {
                self.disk.set_limit(u64::MAX);
                Ok(self.not_opened("opening without room"))
            }
            Err(_) if self.has_failed_steps() => Ok(self.not_opened("opening failed")),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|source| source.to_string());
                Err(format!("the journal does not open: {error}: {}", cause.unwrap_or_default()))
            }
        }
    }

    fn not_opened(&self, what: &'static str) -> bool {
        self.state().model.counts.count(what, 1);
        self.crash();
        false
    }

    fn crash(&self) {
        self.state().model.counts.count("crash", 1);
        match self.choose(0..3) {
            // After a failed sync of its directory, a file system accepts no more changes until the machine restarts.
            0 if !self.disk.has_forgotten_names() => self.disk.kill(),
            _ => self.disk.cut_power(),
        }
    }

    /// Lets the actors perform steps in a random order, until the process dies or the random number of steps is reached.
    fn live(&self) -> Checked {
        if self.choose(0..3) > 0 {
            let steps = [8, 30, 90][self.choose(0..3)];
            let steps = if self.hazards.is_long { 10 * steps } else { steps };
            self.disk.die_after(self.choose(1..steps) as u64);
        }
        let turns = if self.hazards.is_long { 40..300 } else { 4..60 };
        for _ in 0..self.choose(turns) {
            self.state().interleavings = MAX_INTERLEAVINGS;
            self.turn();
            self.state().interleavings = 0;
            self.record();
            if let Some(failure) = self.state().failure.take() {
                return Err(failure);
            }
            if self.disk.is_dead() || self.has_exited() {
                break;
            }
        }
        if self.choose(0..4) == 0 && !self.disk.is_dead() { self.close() } else { Ok(()) }
    }

    /// Returns true if the process has exited because the journal has failed.
    pub fn has_exited(&self) -> bool {
        self.crew().journal.as_ref().is_some_and(Journal::failed)
    }

    /// Returns true if a step of the current process has failed, so that the process may lack what it could not read.
    pub fn has_failed_steps(&self) -> bool {
        self.disk.failed_steps() > self.state().failed_steps_before
    }

    /// Returns true if a process of this life has counted damage.
    pub fn has_counted_damage(&self) -> bool {
        self.metrics.journal.damaged.get() > 0 || sum(&self.metrics.journal.lost_events) > 0
    }

    /// Returns true if the current process has counted a damaged range.
    pub fn has_counted_now(&self) -> bool {
        self.metrics.journal.damaged.get() > self.state().damaged_before
    }

    pub fn journal(&self) -> Result<Journal, String> {
        self.crew().journal.clone().ok_or_else(|| "the journal is not open".into())
    }

    /// Removes the actors of the process.
    pub fn dismiss(&self) {
        let dismissed = std::mem::take(&mut *self.crew());
        drop(dismissed);
    }

    /// Calls `use_model` without holding the lock of the state, because the observer of the disk needs the lock.
    pub fn with_model<T>(&self, use_model: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = std::mem::take(&mut self.state().model);
        let result = use_model(&mut model);
        self.state().model = model;
        result
    }

    /// Returns a random number in `range`.
    pub fn choose(&self, range: std::ops::Range<usize>) -> usize {
        self.state().rng.usize(range)
    }

    pub fn trace(&self, line: std::fmt::Arguments<'_>) {
        self.state().trace.line(line);
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(POISON)
    }

    pub fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().expect(POISON)
    }

    /// Appends one event, which the journal must store within a bounded number of steps.
    fn append_one(&self) -> Checked {
        let index = self.append_small()?;
        for _ in 0..MAX_STEPS {
            self.clock.advance(100);
            self.step_writer()?;
            self.step_background();
            self.record();
            let fate = self.state().model.events[index].fate;
            match fate {
                Fate::Stored(_) => return Ok(()),
                Fate::Unknown => {}
                // A segment that cannot be read pins its space until the operator has repaired the disk or removed the segment.
                Fate::Superseded if self.disk.has_unreadable_pages() => return Ok(()),
                other => return Err(format!("after the faults, the journal does not store an event: {other:?}")),
            }
        }
        Err(format!("after the faults, an event has no result after {MAX_STEPS} steps"))
    }
}

/// Adds up the values of a metric over all of its labels.
fn sum(metric: &IntCounterVec) -> u64 {
    let families = metric.collect();
    let values = families.iter().flat_map(|family| family.get_metric());
    values.map(|metric| metric.get_counter().get_value()).sum::<f64>() as u64
}

/// Maximum number of steps in which the writer must store an event or end.
pub const MAX_STEPS: u32 = 2_000;
/// Maximum number of steps that actors perform inside the disk operations of one turn.
const MAX_INTERLEAVINGS: u32 = 12;
pub const POISON: &str = "no test panics while it holds this lock";
