//! The fixture of these tests.

use crate::disk::SimDisk;
use crate::events::{ManualClock, Sample};
use hookhold::event::{Event, Position};
use hookhold::event_key::EventKey;
use hookhold::journal::{AppendError, AppendRejected, Journal, MemoryLookup, OpenError, Options, ReadOnlyJournal, StoredEvent};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

pub const NOW: u64 = 1_700_000_000_000;

pub type End = Receiver<Result<Position, AppendError>>;

/// A medium, a clock and options: what stays when a journal is opened again.
pub struct Harness {
    pub disk: SimDisk,
    pub clock: Arc<ManualClock>,
    pub metrics: Arc<Metrics>,
    pub options: Options,
}

impl Harness {
    pub fn new() -> Harness {
        let limits = JournalLimits { segment_size: 32 << 10, ..JournalLimits::default() };
        let options = Options { limits, ..Options::default() };
        Harness { disk: SimDisk::default(), clock: Arc::new(ManualClock::at(NOW)), metrics: Arc::default(), options }
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Harness {
        let mut harness = Harness::new();
        change(&mut harness.options);
        harness
    }

    pub fn open(&self) -> Journal {
        self.try_open().expect("it opens")
    }

    pub fn try_open(&self) -> Result<Journal, OpenError> {
        Journal::open(self.disk.start(), self.options.clone(), self.clock.clone(), self.metrics.clone())
    }

    /// The process ends without a word; its threads are collected.
    pub fn kill(&self, journal: Journal) {
        self.disk.kill();
        journal.close();
    }

    pub fn outside(&self) -> ReadOnlyJournal {
        let process = if self.disk.is_dead() { self.disk.start() } else { self.disk.second_process() };
        ReadOnlyJournal::open(process).expect("it can be looked at")
    }
}

pub fn sample(number: usize, length: usize) -> Sample {
    let mut body = format!("body {number} ").into_bytes();
    body.resize(body.len().max(length), b'.');
    Sample { topic: 0, body, id: format!("id-{number}"), key: Some(key(number).0), received_at: NOW, headers: Vec::new() }
}

pub fn key(number: usize) -> EventKey {
    let mut key = [0xA5; 16];
    key[..8].copy_from_slice(&(number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    EventKey(key)
}

/// Hands an event over and returns where its end will arrive.
pub fn hand_over(journal: &Journal, event: &Event) -> Result<End, AppendRejected> {
    let (sender, end) = channel();
    journal.append(event, Box::new(move |result| sender.send(result).unwrap_or(())))?;
    Ok(end)
}

pub fn try_keep(journal: &Journal, sample: &Sample) -> Result<Position, AppendError> {
    hand_over(journal, &sample.event()).expect("it is taken").recv().expect("its end is told")
}

/// The end of an event that may be refused at the door or at the writer.
pub fn try_hand_over(journal: &Journal, sample: &Sample) -> Result<Position, AppendRejected> {
    match hand_over(journal, &sample.event())?.recv().expect("its end is told") {
        Err(AppendError::Full) => Err(AppendRejected::Full),
        end => Ok(end.expect("it is kept")),
    }
}

pub fn keep(journal: &Journal, sample: &Sample) -> Position {
    try_keep(journal, sample).expect("it is kept")
}

pub fn keep_many(journal: &Journal, numbers: std::ops::Range<usize>, length: usize) -> Vec<Position> {
    numbers.map(|number| keep(journal, &sample(number, length))).collect()
}

/// Lets the writer go as far as it can; what it must not do would have happened by then.
pub fn come_to_rest(journal: &Journal) {
    let mut before = None;
    while before != Some(journal.durable_watermark()) {
        before = Some(journal.durable_watermark());
        (0..20_000).for_each(|_| std::thread::yield_now());
    }
}

pub fn read(journal: &Journal) -> Vec<StoredEvent> {
    let mut reader = journal.reader(0);
    std::iter::from_fn(|| reader.next().expect("it can be read")).collect()
}

pub fn seqs(journal: &Journal) -> Vec<u64> {
    read(journal).iter().map(|stored| stored.position.seq).collect()
}

pub fn ask(journal: &Journal, key: &EventKey) -> Option<u64> {
    match journal.lookup_in_memory(key) {
        MemoryLookup::Seen(seen) => Some(seen.seq),
        MemoryLookup::New => None,
        MemoryLookup::MaybeOnDisk => journal.lookup(key).expect("the key files can be read").map(|seen| seen.seq),
    }
}

/// A harness whose journal holds events 0 to 59 in several segments, two of them sealed, and is closed.
pub fn filled() -> Harness {
    let harness = Harness::new();
    let journal = harness.open();
    keep_many(&journal, 0..60, 2_000);
    harness.disk.wait_for(|files| sealed(files, 2));
    journal.close();
    harness
}

pub fn sealed(files: &[String], count: usize) -> bool {
    files.iter().filter(|name| name.ends_with(".lanes")).count() >= count
}
