//! A journal without threads. The test performs the steps of the writer and of the background work, so that only the test
//! determines the time at which a step happens.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hookhold::event::Position;
use hookhold::journal::disk::Disk;
use hookhold::journal::{BackgroundSteps, Environment, Journal, Options, SystemRandom, WriterStep, WriterSteps};

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

    /// Opens the journal in another directory without threads.
    pub fn open_in_steps_on(&self, disk: Arc<dyn Disk>) -> SteppedJournal {
        let environment =
            Environment { disk, clock: self.clock.clone(), random: Arc::new(SystemRandom), metrics: self.metrics.clone() };
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

    /// Performs all steps that are due.
    pub fn run(&mut self) {
        while self.background.step() || self.step_writer() == WriterStep::Saved {}
    }

    /// Stores an event, and returns its position.
    pub fn store(&mut self, sample: &Sample) -> Position {
        let result = append(&self.journal, &sample.event()).expect("accepted");
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
    let mut found = Vec::new();
    let mut at = PAGE;
    while at + 32 <= bytes.len() {
        let len = number(&bytes, at, 4) as usize;
        if len == 0 {
            at = (at + 1).next_multiple_of(PAGE);
            continue;
        }
        if bytes[at + 24] == 3 {
            found.push(decode(&bytes, at..at + len));
        }
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
