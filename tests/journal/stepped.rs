//! A journal without threads. The test performs the steps of the writer and of the background work, so that only the test
//! determines the time at which a step happens.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::channel;

use hookhold::event::{Event, Position};
use hookhold::journal::disk::Disk;
use hookhold::journal::{BackgroundSteps, Environment, Journal, Options, Random, SystemRandom, WriterStep, WriterSteps};

use crate::events::{ManualClock, Sample};
use crate::harness::*;

/// An open journal without threads.
pub struct SteppedJournal {
    pub journal: Journal,
    writer: WriterSteps,
    background: BackgroundSteps,
}

impl Harness {
    /// Returns a harness with a clock that only the test advances.
    pub fn stopped(change: impl FnOnce(&mut Options)) -> Harness {
        Harness { clock: Arc::new(ManualClock::stopped_at(NOW)), ..Harness::with(change) }
    }

    /// Opens the journal without threads.
    pub fn open_in_steps(&self) -> SteppedJournal {
        self.open_in_steps_on(self.disk.start())
    }

    /// Opens the journal without threads, as the process that uses `disk`.
    pub fn open_in_steps_on(&self, disk: Arc<dyn Disk>) -> SteppedJournal {
        self.open_in_steps_with(self.environment(disk, Arc::new(SystemRandom)))
    }

    /// Returns the environment of a process that uses `disk`.
    pub fn environment(&self, disk: Arc<dyn Disk>, random: Arc<dyn Random>) -> Environment {
        Environment { disk, random, clock: self.clock.clone(), metrics: self.metrics.clone() }
    }

    /// Opens the journal without threads in this environment.
    pub fn open_in_steps_with(&self, environment: Environment) -> SteppedJournal {
        let (journal, writer, background) = Journal::open_in_steps(environment, self.options.clone()).expect("the journal opens");
        SteppedJournal { journal, writer, background }
    }

    /// Kills the process of a journal without threads.
    pub fn kill_stepped(&self, journal: SteppedJournal) {
        self.disk.kill();
        drop(journal);
    }
}

impl SteppedJournal {
    /// Performs the writer's next step. Performs background work if the writer waits for it.
    pub fn step_writer(&mut self) -> WriterStep {
        loop {
            match self.writer.step() {
                WriterStep::WaitsForTask(_) => assert!(self.background.step(), "the writer waits for work that is not due"),
                step => return step,
            }
        }
    }

    /// Performs the next step of the background work. Returns false if none is due.
    pub fn step_background(&mut self) -> bool {
        self.background.step()
    }

    /// Performs all steps that are due.
    pub fn run(&mut self) {
        while self.background.step() || self.step_writer() == WriterStep::Saved {}
    }

    /// Stores an event, and returns its position.
    pub fn store(&mut self, sample: &Sample) -> Position {
        self.store_batch(&sample.event(), &[])
    }

    /// Stores the events of one delivery, and returns the position of the first one.
    pub fn store_batch(&mut self, first: &Event, rest: &[Event]) -> Position {
        let (sender, result) = channel();
        self.journal.append_batch(first, rest, Box::new(move |end| sender.send(end).unwrap_or(()))).expect("accepted");
        let result = AppendResult(result);
        assert_eq!(self.step_writer(), WriterStep::Saved);
        result.try_recv().expect("the writer has stored the event").expect("stored")
    }

    /// Closes the journal and performs its last steps.
    pub fn close(mut self) {
        self.journal.close();
        while self.step_writer() != WriterStep::Ended {}
    }
}

/// A cursors frame in a segment file.
#[derive(Debug, PartialEq, Eq)]
pub struct FoundCursors {
    /// Offsets of the frame in the file.
    pub bytes: Range<usize>,
    /// True if the frame contains the cursors of all topics.
    pub is_complete: bool,
    pub cursors: BTreeMap<String, u64>,
}

/// Returns the cursors frames in a segment file, in order.
pub fn cursors_frames(harness: &Harness, name: &str) -> Vec<FoundCursors> {
    let bytes = harness.disk.bytes(name);
    frames(&bytes).into_iter().filter(|frame| bytes[frame.start + 24] == 3).map(|frame| decode(&bytes, frame)).collect()
}

/// Returns the kinds of the frames in a segment file, in order.
pub fn frame_kinds(bytes: &[u8]) -> Vec<u8> {
    frames(bytes).iter().map(|frame| bytes[frame.start + 24]).collect()
}

/// Returns the offsets of the frames in an undamaged segment file.
fn frames(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = PAGE;
    while at + 32 <= bytes.len() {
        let len = number(bytes, at, 4) as usize;
        if len == 0 {
            at = (at + 1).next_multiple_of(PAGE);
            continue;
        }
        found.push(at..at + len);
        at += len.next_multiple_of(8);
    }
    found
}

fn decode(file: &[u8], bytes: Range<usize>) -> FoundCursors {
    let mut cursors = BTreeMap::new();
    let mut at = bytes.start + 36;
    for _ in 0..number(file, bytes.start + 32, 4) {
        let len = number(file, at, 4) as usize;
        let topic = String::from_utf8(file[at + 4..at + 4 + len].to_vec()).expect("a topic is text");
        cursors.insert(topic, number(file, at + 4 + len, 8));
        at += len + 12;
    }
    FoundCursors { is_complete: file[bytes.start + 25] & 1 != 0, cursors, bytes }
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

const PAGE: usize = 4096;
