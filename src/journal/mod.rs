//! Keeps events: the only truth. [`Journal::append`] hands an event to the writer, and its end is told only after the
//! commit that holds it has been synced. The journal knows neither HTTP nor Kafka.
//!
//! ```text
//!  append ─► queue ─► writer: one write, one fdatasync per commit ─► mark ─► done(position)
//!                       │ segment full                                 │
//!                       ▼                                              ▼
//!                     keeper: key file, lane file, old segments     Reader: never passes the mark
//! ```
//!
//! The files and why they look as they do: `docs/journal.md`. What may go wrong, and where it is handled:
//!
//! - a failed or short write: the commit's events fail, the segment is abandoned ([`writer`]);
//! - a failed sync: everything waiting fails and the process must end, because nobody knows what is on disk ([`writer`]);
//! - a crash: what is readable above the mark is copied and synced before anything else happens ([`recovery`]);
//! - rot below the mark: costs the damaged frames only, is counted, and their keys are forgotten ([`reader`]).

mod background;
mod backlog;
mod checksum;
mod commit_queue;
mod completion;
mod directory_scan;
pub mod disk;
mod errors;
mod frame;
mod frame_scanner;
mod keys;
mod lock_file;
mod options;
mod payload;
mod read_only;
mod reader;
mod recovery;
mod segment;
mod segment_file;
mod segment_map;
mod segment_summary;
mod writer;

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::event::{Event, LogId};
use crate::event_key::EventKey;
use crate::metrics::Metrics;
use background as keeper;
use commit_queue::{Pending, Queue};
pub use completion::{CommitWatcher, Completion, CompletionBatch, CompletionRunner};
use disk::Disk;
pub use disk::file_system;
use errors::context;
pub use errors::{AppendError, AppendRejected, OpenError};
use frame::Draft;
use keys::Keys;
pub use keys::{MemoryLookup, SeenKey};
pub use options::Options;
pub use read_only::{DamagedRange, JournalStat, ReadOnlyJournal, TopicStat, VerifyReport};
pub use reader::{ReadError, Reader, StoredEvent};
use segment_map::SegmentMap;

/// An open journal; cheap to clone. Dropping every handle without [`Journal::close`] is what a crash looks like.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

/// One topic's place in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCursor {
    /// The topic.
    pub name: Arc<str>,
    /// Every event of this lane below this sequence is acknowledged.
    pub cursor: u64,
}

struct Shared {
    disk: Arc<dyn Disk>,
    options: Options,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    log: LogId,
    hash_key: [u8; 16],
    /// The first sequence that is not durable.
    mark: AtomicU64,
    queue: Mutex<Queue>,
    queue_changed: Condvar,
    catalog: SegmentMap,
    keys: Keys,
    keeper: keeper::Inbox,
    /// Milliseconds for which keys are remembered.
    window: AtomicU64,
    born: Instant,
    /// Milliseconds after `born` at which the running sync began, plus 1; 0: none is running.
    sync_began: AtomicU64,
    failed: AtomicBool,
    /// The last attempt to begin a segment found no room.
    no_room: AtomicBool,
    watchers: Mutex<Vec<CommitWatcher>>,
    /// Damage that has been counted: segment file and offset.
    known_rot: Mutex<HashSet<(String, u64)>>,
    teller: OnceLock<CompletionRunner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal in `disk` for writing: locks it, recovers what a crash left, and starts its threads.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Journal, OpenError> {
        let opened = recovery::open(&*disk, &options, &metrics)?;
        metrics.journal.limit_bytes.set(options.limits.max_size as i64);
        let shared = Arc::new(Shared {
            log: opened.log,
            hash_key: opened.hash_key,
            mark: AtomicU64::new(opened.next),
            queue: Mutex::new(Queue::default()),
            queue_changed: Condvar::new(),
            catalog: opened.catalog,
            keys: opened.keys,
            keeper: keeper::Inbox::new(opened.unsealed, opened.has_reserve),
            window: AtomicU64::new(options.dedupe_window.as_millis() as u64),
            born: Instant::now(),
            sync_began: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            no_room: AtomicBool::new(false),
            watchers: Mutex::new(Vec::new()),
            known_rot: Mutex::new(opened.rot),
            teller: OnceLock::new(),
            threads: Mutex::new(Vec::new()),
            disk,
            options,
            clock,
            metrics,
        });
        shared.count_sizes();
        let journal = Journal(shared);
        let keep = |thread: io::Result<JoinHandle<()>>| {
            let thread = context(thread, || "the machine gives no thread".into()).inspect_err(|_| journal.close())?;
            journal.0.threads.lock().expect(POISON).push(thread);
            Ok(())
        };
        keep(writer::start(journal.0.clone(), opened.writer))?;
        keep(keeper::start(journal.0.clone()))?;
        Ok(journal)
    }

    /// The random key of this journal's event keys.
    pub fn hash_key(&self) -> [u8; 16] {
        self.0.hash_key
    }

    /// Hands an event to the writer; from then on nobody can cancel it, and `done` is called once with its end. Never waits
    /// for the disk. When it is refused, `done` is dropped.
    pub fn append(&self, event: &Event, done: Completion) -> Result<(), AppendRejected> {
        let pending = Pending {
            draft: Draft::event(event),
            key: event.dedupe_key(),
            received_at: event.received_at(),
            lane: event.topic().clone(),
            done,
        };
        self.0.enqueue(pending)
    }

    /// Remembers keys for at least this long from now on. What has been forgotten stays forgotten; a shorter window than that
    /// in force counts from the next opening, so that a slip in a configuration forgets nothing.
    pub fn extend_dedupe_window(&self, window: Duration) {
        self.0.window.fetch_max(window.as_millis() as u64, Ordering::Relaxed);
    }

    /// What is known about a key without asking the disk.
    pub fn lookup_in_memory(&self, key: &EventKey) -> MemoryLookup {
        self.0.keys.lookup_in_memory(key)
    }

    /// Keys of unsealed segments.
    pub fn keys_in_memory(&self) -> u64 {
        self.0.keys.in_memory()
    }

    /// Asks the key files about a key. Reads the disk.
    pub fn lookup(&self, key: &EventKey) -> io::Result<Option<SeenKey>> {
        self.0.keys.lookup(&*self.0.disk, key, &|| self.0.metrics.journal.damaged.inc())
    }

    /// True when rot has taken the event of this key, so that whoever remembers it must forget it.
    pub fn is_lost(&self, seen: &SeenKey) -> bool {
        self.0.keys.is_lost(seen)
    }

    /// How long the running sync has lasted; `None` while none is running.
    pub fn sync_age(&self) -> Option<Duration> {
        let began = Duration::from_millis(self.0.sync_began.load(Ordering::Relaxed).checked_sub(1)?);
        Some(self.0.born.elapsed().saturating_sub(began))
    }

    /// The durable mark: the first sequence that is not on disk yet.
    pub fn durable_watermark(&self) -> u64 {
        self.0.mark.load(Ordering::Acquire)
    }

    /// The oldest sequence that can still be read.
    pub fn oldest_seq(&self) -> u64 {
        self.0.catalog.oldest().unwrap_or_else(|| self.durable_watermark())
    }

    /// Calls `watcher` after every commit, on the writer's thread, for as long as it returns true: it must not block.
    pub fn on_commit(&self, watcher: CommitWatcher) {
        self.0.watchers.lock().expect(POISON).push(watcher);
    }

    /// Has the good ends of appends told by `teller`, so that the writer can go on with the next commit, and so that whoever
    /// waits is woken from inside its own runtime: one wake-up for a commit instead of one for each event. Once only.
    pub fn set_completion_runner(&self, teller: CompletionRunner) {
        drop(self.0.teller.set(teller));
    }

    /// Reads events from `from` on (or from the oldest, if that is newer), never past the durable mark.
    pub fn reader(&self, from: u64) -> Reader {
        Reader::inside(self.0.clone(), from)
    }

    /// Every lane that has a cursor; when events are passed on, every lane that has events too.
    pub fn topic_cursors(&self) -> Vec<TopicCursor> {
        self.0.catalog.lanes(self.0.options.forwards)
    }

    /// Durable events of a lane with sequences in `from..below`.
    pub fn count(&self, lane: &str, from: u64, below: u64) -> u64 {
        let (whole, parts) = self.0.catalog.parts(lane, from, below);
        whole + parts.into_iter().map(|part| self.count_frames(lane, part)).sum::<u64>()
    }

    fn count_frames(&self, lane: &str, part: Range<u64>) -> u64 {
        let mut reader = self.reader(part.start).for_topic(lane);
        let mut count = 0;
        while let Ok(Some(stored)) = reader.next()
            && stored.position.seq < part.end
        {
            count += 1;
        }
        count
    }

    /// Moves a lane's cursor. Written with the next commit, at the latest [`CURSOR_DELAY`] from now; calls are applied in
    /// their order.
    pub fn save_cursor(&self, lane: &str, cursor: u64) {
        self.0.catalog.move_cursor(lane, cursor);
        self.0.queue.lock().expect(POISON).cursors_changed(Instant::now());
        self.0.queue_changed.notify_one();
        self.0.keeper.wake();
    }

    /// Brings the size metrics up to date; to be called before they are rendered.
    pub fn update_metrics(&self) {
        self.0.count_sizes();
    }

    /// Why no new event can be kept at present, if that is so.
    pub fn unavailable_reason(&self) -> Option<&'static str> {
        let no_room = || self.0.no_room.load(Ordering::Relaxed).then_some("no room for new events: max_size or the disk");
        self.failed().then_some("a sync has failed; the process is ending").or_else(no_room)
    }

    /// True once a sync has failed: the process must end with exit code 3.
    pub fn failed(&self) -> bool {
        self.0.failed.load(Ordering::Acquire)
    }

    /// Refuses further events, commits what has been taken with the mark and all cursors, and ends the threads.
    pub fn close(&self) {
        self.0.queue.lock().expect(POISON).close();
        self.0.queue_changed.notify_all();
        let threads = std::mem::take(&mut *self.0.threads.lock().expect(POISON));
        for thread in threads {
            // The writer first: it may need the keeper to make room.
            drop(thread.join());
            self.0.keeper.close();
        }
    }
}

/// A thread of ours that panics, which is our bug, must not leave senders waiting for ever: the process ends as after a
/// failed sync.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Release);
            self.0.keeper.close();
            self.0.notify_watchers();
        }
    }
}

impl Shared {
    fn tell(&self, telling: CompletionBatch) {
        let told = match self.teller.get() {
            Some(teller) => teller(telling),
            None => Err(telling),
        };
        if let Err(telling) = told {
            telling();
        }
    }

    fn notify_watchers(&self) {
        self.watchers.lock().expect(POISON).retain(|watcher| watcher());
    }

    /// Brings sizes and backlogs up to date: for the metrics, and for [`SegmentMap::reserve`], which goes by what a lane pins.
    fn count_sizes(&self) {
        let bytes = self.catalog.bytes() + self.keeper.spare_bytes(self);
        self.metrics.journal.bytes.set(bytes as i64);
        self.metrics.journal.events.set(self.catalog.events() as i64);
        for (lane, backlog) in self.catalog.weigh(self.options.forwards) {
            self.metrics.journal.pinned_bytes.with_label_values(&[&*lane]).set(backlog.pinned() as i64);
        }
    }
}

const POISON: &str = "nothing panics while it holds this lock";
/// Bytes that may wait for the writer; more are refused as `overloaded`.
pub const MAX_QUEUED: usize = 256 << 20;
/// How long a moved cursor may wait for a commit of events to ride on.
pub const CURSOR_DELAY: Duration = Duration::from_millis(500);
const META: &str = "meta";
const LOCK: &str = "lock";
const RESERVE: &str = "reserve";
