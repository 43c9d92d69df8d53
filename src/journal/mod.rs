//! The write-ahead log, the only source of truth about events. [`Journal::append`] passes an event to the writer, which calls
//! the event's completion only after it has synced the commit that holds the event. Knows nothing of HTTP or Kafka.
//!
//! ```text
//!  append ─► queue ─► writer: one write, one fdatasync per commit ─► durable watermark ─► completion(position)
//!                       │ segment full                                 │
//!                       ▼                                              ▼
//!                     background: key file, summary, old segments     Reader: never passes the watermark
//! ```
//!
//! `docs/journal.md` describes the files and the reasons for their format. These modules handle failures:
//!
//! - `writer.rs`: A failed or short write fails the events of its commit, and the segment is abandoned.
//! - `writer.rs`: A failed sync fails all waiting events. The process must exit, because the content of the disk is unknown.
//! - `recovery/`: After a crash, readable events above the durable watermark are copied and synced before anything else happens.
//! - `reader.rs`: Corruption below the watermark costs only the damaged frames. The reader counts it and forgets their keys.

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
mod key_file;
mod key_index;
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
mod writer_health;

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::event::{Event, LogId};
use crate::event_key::EventKey;
use crate::metrics::Metrics;
use background::Background;
pub use commit_queue::{CURSOR_DELAY, MAX_QUEUED_BYTES};
use commit_queue::{CommitQueue, PendingAppend};
use completion::CommitListeners;
pub use completion::{CommitWatcher, Completion, CompletionBatch, CompletionRunner};
use disk::Disk;
pub use disk::file_system;
use errors::context;
pub use errors::{AppendError, AppendRejected, OpenError};
use frame::FrameDraft;
pub use key_file::SeenKey;
use key_index::KeyIndex;
pub use key_index::MemoryLookup;
pub use options::Options;
pub use read_only::{DamagedRange, JournalStat, ReadOnlyJournal, TopicStat, VerifyReport};
pub use reader::{ReadError, Reader, StoredEvent};
use segment_map::SegmentMap;
pub use segment_map::TopicCursor;
use writer_health::WriterHealth;

/// An open journal; cheap to clone. Dropping every handle without [`Journal::close`] is equivalent to a crash.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    disk: Arc<dyn Disk>,
    options: Options,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    log: LogId,
    hash_key: [u8; 16],
    durable_watermark: AtomicU64,
    queue: CommitQueue,
    segments: SegmentMap,
    keys: KeyIndex,
    background: Background,
    health: WriterHealth,
    listeners: CommitListeners,
    /// Segment file and start offset of each damaged range that has been counted.
    corruption: Mutex<HashSet<(String, u64)>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal in `disk` for writing: locks it, recovers the events of a crash, and starts its threads.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Journal, OpenError> {
        let recovered = recovery::open(&*disk, &options, &metrics)?;
        metrics.journal.limit_bytes.set(options.limits.max_size as i64);
        let shared = Arc::new(Shared {
            log: recovered.log,
            hash_key: recovered.hash_key,
            durable_watermark: AtomicU64::new(recovered.next_seq),
            queue: CommitQueue::default(),
            segments: recovered.segments,
            keys: recovered.keys,
            background: Background::new(recovered.unsealed, recovered.reserve_exists),
            health: WriterHealth::new(),
            listeners: CommitListeners::default(),
            corruption: Mutex::new(recovered.corruption),
            threads: Mutex::new(Vec::new()),
            disk,
            options,
            clock,
            metrics,
        });
        shared.update_sizes();
        let journal = Journal(shared);
        let own = |thread: io::Result<JoinHandle<()>>| {
            let started = context(thread, || "a thread of the journal could not be started".into());
            let thread = started.inspect_err(|_| journal.close())?;
            journal.0.threads.lock().expect(POISON).push(thread);
            Ok(())
        };
        own(writer::start(journal.0.clone(), recovered.writer))?;
        own(background::start(journal.0.clone()))?;
        Ok(journal)
    }

    /// Returns the random key with which this journal hashes event keys.
    pub fn hash_key(&self) -> [u8; 16] {
        self.0.hash_key
    }

    /// Passes an event to the writer, which calls `completion` once with the result. An accepted event cannot be cancelled. The
    /// completion of a rejected event is dropped. Never waits for the disk.
    pub fn append(&self, event: &Event, completion: Completion) -> Result<(), AppendRejected> {
        let append = PendingAppend {
            draft: FrameDraft::event(event),
            key: event.dedupe_key(),
            received_at: event.received_at(),
            topic: event.topic().clone(),
            completion,
        };
        let (shared, len, topic) = (&*self.0, append.len(), append.topic.clone());
        if !shared.segments.reserve(&topic, len, &shared.options) {
            return Err(AppendRejected::TopicFull);
        }
        shared.queue.push(append, &shared.health).inspect_err(|_| shared.segments.cancel_reserved([(&topic, len)].into_iter()))
    }

    /// Extends the dedupe window to `window`. Forgotten keys stay forgotten. A shorter window takes effect only at the next
    /// opening, so that a typing mistake in a configuration forgets no keys.
    pub fn extend_dedupe_window(&self, window: Duration) {
        self.0.keys.extend_window(window);
    }

    /// Looks a key up without reading the disk.
    pub fn lookup_in_memory(&self, key: &EventKey) -> MemoryLookup {
        self.0.keys.lookup_in_memory(key)
    }

    /// Returns the number of keys of unsealed segments.
    pub fn keys_in_memory(&self) -> u64 {
        self.0.keys.in_memory()
    }

    /// Looks a key up in the key files. Reads the disk.
    pub fn lookup(&self, key: &EventKey) -> io::Result<Option<SeenKey>> {
        self.0.keys.lookup(&*self.0.disk, key, &|| self.0.metrics.journal.damaged.inc())
    }

    /// Returns true if corruption destroyed the event of this key. A cache must then forget the key.
    pub fn is_lost(&self, seen: &SeenKey) -> bool {
        self.0.keys.is_lost(seen)
    }

    /// Returns how long the running sync has lasted; `None` if none is running.
    pub fn sync_age(&self) -> Option<Duration> {
        self.0.health.sync_age()
    }

    /// Returns the first sequence that is not on disk yet.
    pub fn durable_watermark(&self) -> u64 {
        self.0.durable_watermark.load(Ordering::Acquire)
    }

    /// Returns the oldest sequence that can still be read.
    pub fn oldest_seq(&self) -> u64 {
        self.0.segments.oldest_seq().unwrap_or_else(|| self.durable_watermark())
    }

    /// Calls `watcher` after every commit until it returns false. The watcher runs on the writer's thread and must not block.
    pub fn on_commit(&self, watcher: CommitWatcher) {
        self.0.listeners.add_watcher(watcher);
    }

    /// Passes the completions of stored events to `runner`, so that the writer can start the next commit at once. The runner
    /// wakes waiting tasks from inside their own runtime, which takes one wake-up per commit instead of one per event. Only the
    /// first call has an effect.
    pub fn set_completion_runner(&self, runner: CompletionRunner) {
        self.0.listeners.set_runner(runner);
    }

    /// Returns a reader that starts at `from`, or at the oldest event if that is newer.
    pub fn reader(&self, from: u64) -> Reader {
        Reader::new(self.0.clone(), from)
    }

    /// Returns all topics with a cursor. If events are forwarded, includes topics that have events but no cursor yet.
    pub fn topic_cursors(&self) -> Vec<TopicCursor> {
        self.0.segments.topic_cursors(self.0.options.forwards)
    }

    /// Counts a topic's durable events with sequences in `from..below`.
    pub fn count(&self, topic: &str, from: u64, below: u64) -> u64 {
        let (whole, partial) = self.0.segments.count(topic, from, below);
        whole + partial.into_iter().map(|range| self.count_frames(topic, range)).sum::<u64>()
    }

    fn count_frames(&self, topic: &str, range: Range<u64>) -> u64 {
        let mut reader = self.reader(range.start).for_topic(topic);
        let mut count = 0;
        while let Ok(Some(stored)) = reader.next()
            && stored.position.seq < range.end
        {
            count += 1;
        }
        count
    }

    /// Moves a topic's cursor. The next commit saves the cursor; without events, a commit follows after [`CURSOR_DELAY`]. Calls
    /// take effect in order.
    pub fn save_cursor(&self, topic: &str, cursor: u64) {
        self.0.segments.move_cursor(topic, cursor);
        self.0.queue.save_cursors();
        self.0.background.wake();
    }

    /// Updates the size metrics. Must be called before the metrics are rendered.
    pub fn update_metrics(&self) {
        self.0.update_sizes();
    }

    /// Returns the reason why new events cannot be stored now; `None` if they can.
    pub fn unavailable_reason(&self) -> Option<&'static str> {
        if self.failed() {
            Some("a sync has failed; the process is exiting")
        } else if self.0.health.has_no_room() {
            Some("journal.max_size or the disk is used up; check Kafka and the disk")
        } else {
            None
        }
    }

    /// Returns true once a sync has failed or a thread of the journal has panicked. The process must then exit with code 3.
    pub fn failed(&self) -> bool {
        self.0.health.has_failed()
    }

    /// Rejects further events, commits the accepted ones with the durable watermark and all cursors, and ends the threads.
    pub fn close(&self) {
        self.0.queue.close();
        let threads = std::mem::take(&mut *self.0.threads.lock().expect(POISON));
        for thread in threads {
            // The writer ends first, because it may need the background thread to make room.
            drop(thread.join());
            self.0.background.close();
        }
    }
}

impl Shared {
    /// Updates the sizes and backlogs that the metrics and [`SegmentMap::reserve`] use.
    fn update_sizes(&self) {
        let bytes = self.segments.bytes() + self.background.spare_bytes(self);
        self.metrics.journal.bytes.set(bytes as i64);
        self.metrics.journal.events.set(self.segments.events() as i64);
        for (topic, backlog) in self.segments.update_backlogs(self.options.forwards) {
            self.metrics.journal.pinned_bytes.with_label_values(&[&*topic]).set(backlog.pinned_bytes() as i64);
        }
    }
}

/// Starts a thread of the journal.
fn spawn(name: &str, shared: Arc<Shared>, run: impl FnOnce(Arc<Shared>) + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _guard = PanicGuard(shared.clone());
        run(shared);
    })
}

/// Marks the journal as failed if one of its threads panics, which is a bug in hookhold. The process then exits as after a
/// failed sync. Otherwise the senders would wait without end.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.health.set_failed();
            self.0.background.close();
            self.0.listeners.notify_watchers();
        }
    }
}

const POISON: &str = "nothing panics while it holds this lock";
