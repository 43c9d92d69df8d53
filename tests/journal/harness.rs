//! Fixture of the journal tests: a simulated disk, a clock that only the test advances, and helpers that append and read
//! events.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, TryRecvError, channel};
use std::time::Instant;

use hookhold::event::{Event, Position};
use hookhold::event_key::EventKey;
use hookhold::journal::{AppendError, AppendRejected, Journal, MemoryLookup, OpenError, Options, ReadOnlyJournal, StoredEvent};
use hookhold::limits::JournalLimits;
use hookhold::metrics::Metrics;

use crate::disk::{PATIENCE, SimDisk};
use crate::events::{ManualClock, Sample};

pub const NOW: u64 = 1_700_000_000_000;
/// Extension of the summary file of a segment.
pub const SUMMARY_EXT: &str = ".topics";

/// Receiver for the result of one append.
pub struct AppendResult(pub Receiver<Result<Position, AppendError>>);

impl AppendResult {
    /// Waits for the result. Returns an error if the journal has dropped the completion.
    #[track_caller]
    pub fn recv(&self) -> Result<Result<Position, AppendError>, RecvError> {
        match self.0.recv_timeout(PATIENCE) {
            Ok(end) => Ok(end),
            Err(RecvTimeoutError::Disconnected) => Err(RecvError),
            Err(RecvTimeoutError::Timeout) => panic!("waited {PATIENCE:?} for the result of an append"),
        }
    }

    pub fn try_recv(&self) -> Result<Result<Position, AppendError>, TryRecvError> {
        self.0.try_recv()
    }
}

/// Disk, clock, metrics and options that a test uses each time it opens the journal.
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

    /// Returns a harness with a closed journal. The journal contains events 0 to 59 in several segments, and at least two
    /// segments are sealed.
    pub fn with_sealed_segments() -> Harness {
        let harness = Harness::new();
        let journal = harness.open();
        store_many(&journal, 0..60, 2_000);
        harness.disk.wait_for(|files| has_sealed(files, 2));
        journal.close();
        harness
    }

    pub fn open(&self) -> Journal {
        self.try_open().expect("the journal opens")
    }

    pub fn try_open(&self) -> Result<Journal, OpenError> {
        Journal::open(self.disk.start(), self.options.clone(), self.clock.clone(), self.metrics.clone())
    }

    /// Kills the process of the journal and joins the journal's threads.
    pub fn kill(&self, journal: Journal) {
        self.disk.kill();
        journal.close();
    }

    /// Opens the journal for reading in a second process, or in a new process if the first process is dead.
    pub fn read_only(&self) -> ReadOnlyJournal {
        let process = if self.disk.is_dead() { self.disk.start() } else { self.disk.second_process() };
        ReadOnlyJournal::open(process).expect("the journal opens for reading")
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

/// Appends an event. Returns a receiver for the result, without waiting for the commit.
pub fn append(journal: &Journal, event: &Event) -> Result<AppendResult, AppendRejected> {
    let (sender, result) = channel();
    journal.append(event, Box::new(move |end| sender.send(end).unwrap_or(())))?;
    Ok(AppendResult(result))
}

/// Appends an event and waits for its result.
pub fn try_store(journal: &Journal, sample: &Sample) -> Result<Position, AppendError> {
    append(journal, &sample.event()).expect("accepted").recv().expect("a result")
}

/// Appends an event and waits for its result. If the journal is full, returns [`AppendRejected::Full`], regardless of whether
/// the append or the writer detects the full journal.
pub fn store_or_reject(journal: &Journal, sample: &Sample) -> Result<Position, AppendRejected> {
    match append(journal, &sample.event())?.recv().expect("a result") {
        Err(AppendError::Full) => Err(AppendRejected::Full),
        end => Ok(end.expect("stored")),
    }
}

pub fn store(journal: &Journal, sample: &Sample) -> Position {
    try_store(journal, sample).expect("stored")
}

pub fn store_many(journal: &Journal, numbers: std::ops::Range<usize>, length: usize) -> Vec<Position> {
    numbers.map(|number| store(journal, &sample(number, length))).collect()
}

/// Waits until the durable watermark stops moving. By then, the journal's threads have had time to do anything that the test
/// forbids.
#[track_caller]
pub fn wait_until_idle(journal: &Journal) {
    let mut before = None;
    wait_until("the durable watermark to stop", || {
        (0..20_000).for_each(|_| std::thread::yield_now());
        before.replace(journal.durable_watermark()) == Some(journal.durable_watermark())
    });
}

/// Waits until `condition` returns true. Fails after [`PATIENCE`], with `what` in the message.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::yield_now();
    }
}

pub fn read(journal: &Journal) -> Vec<StoredEvent> {
    let mut reader = journal.reader(0);
    std::iter::from_fn(|| reader.next().expect("the journal can be read")).collect()
}

pub fn seqs(journal: &Journal) -> Vec<u64> {
    read(journal).iter().map(|stored| stored.position.seq).collect()
}

/// Returns the sequence of the event with this key, or `None` if the journal has no such key.
pub fn lookup(journal: &Journal, key: &EventKey) -> Option<u64> {
    match journal.lookup_in_memory(key) {
        MemoryLookup::Seen(seen) => Some(seen.seq),
        MemoryLookup::New => None,
        MemoryLookup::MaybeOnDisk => journal.lookup(key).map(|seen| seen.seq),
    }
}

/// Returns true if at least `count` segments are sealed.
pub fn has_sealed(files: &[String], count: usize) -> bool {
    files.iter().filter(|name| name.ends_with(SUMMARY_EXT)).count() >= count
}
