//! The write-ahead log, the only source of truth about events. [`Journal::append`] passes an event to the writer. The writer
//! syncs the commit that contains the event, and only then reports the event as stored. This module does not depend on HTTP or
//! Kafka.
//!
//! ```text
//!  append ─► queue ─► writer: one write, one fdatasync per commit ─► durable watermark ─► completion(position)
//!                       │ segment full                                 │
//!                       ▼                                              ▼
//!                     background: key file, summary, old segments     Reader: never passes the watermark
//! ```
//!
//! `docs/journal.md` describes the files and explains their format. These modules handle failures:
//! - `writer.rs`: If a write fails or is short, the writer reports an error for the events of the commit and abandons the
//!   segment.
//! - `writer.rs`: If a sync fails, the writer reports an error for all waiting events. The process must exit, because the
//!   content of the disk is unknown.
//! - `recovery/`: After a crash, recovery copies and syncs the readable events at and above the durable watermark before the
//!   journal accepts new events.
//! - `reader.rs`: Corruption below the watermark affects only the corrupted frames. The reader counts the corruption and
//!   forgets the keys of the lost events.

mod background;
mod backlog;
mod checksum;
mod commit_queue;
mod completion;
mod control_frames;
mod cursor_schedule;
mod directory_scan;
pub mod disk;
mod errors;
mod event_fields;
mod event_standing;
mod file_system;
mod foreign_segments;
mod frame;
mod frame_scanner;
mod journal_clock;
mod journal_time;
mod keys;
mod lock_file;
mod lookups;
mod meta;
mod new_identity;
mod next_segment;
mod options;
mod ownership;
mod parking;
mod payload;
mod planted;
mod quarantine;
mod random;
mod read_only;
mod reader;
mod recovery;
mod rejection_files;
mod replaced_segments;
mod replays_file;
mod scanned_cursors;
mod scanned_frame;
mod scanned_segment;
mod segment;
mod segment_copy;
mod segment_file;
mod segment_list;
mod segment_map;
mod segment_name;
mod segment_summary;
mod segment_times;
mod senders_file;
mod steps;
mod topic_counts;
mod unfinished_list;
mod unforwarded;
mod wall_offsets;
mod writer;
mod writer_health;
mod writer_state;

use std::collections::HashSet;
use std::io;
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::event::{Event, LogId};
use crate::limits::JournalLimits;
use crate::metrics::Metrics;
use background::Background;
pub use backlog::MAX_PINNED_SEGMENTS;
pub use commit_queue::MAX_QUEUED_BYTES;
use commit_queue::{CommitQueue, PendingAppend, PendingFrame};
use completion::CommitListeners;
pub use completion::{CommitWatcher, Completion, CompletionBatch, CompletionRunner};
pub use cursor_schedule::{CURSOR_DELAY, CURSOR_INTERVAL, MANY_ACKNOWLEDGEMENTS};
use disk::{Disk, DiskFile};
use errors::context;
pub use errors::{AppendError, AppendRejected, OpenError};
pub use event_fields::EventFields;
pub use event_standing::EventStanding;
pub use file_system::{FileSystem, FileSystemKind, file_system};
use frame::FrameDraft;
use frame::PAGE;
pub use journal_clock::DISAGREEMENT;
use journal_clock::JournalClock;
pub use journal_time::JournalMillis;
use keys::KeyIndex;
pub use keys::{KeyLimits, KeySizes, MAX_ASKED_FILES, MAX_RECENT_KEYS, MemoryLookup, SeenKey, StandaloneKeys};
pub use meta::check_format;
pub use new_identity::RenewedIdentity;
pub use options::Options;
pub use parking::{MAX_PARKED_EVENTS, ParkError, ParkedEvent, ParkedEvents, ParkedFile, ParkingNote};
use planted::is_planted;
pub use random::{Random, SystemRandom};
pub use read_only::{DamagedRange, JournalStat, ReadOnlyJournal, TopicStat, VerifyReport};
pub use reader::{ReadError, ReadStep, Reader, StoredEvent, Topics};
pub use rejection_files::{
    MAX_REJECTION_BYTES, RejectionAppender, RejectionEntries, RejectionFile, RejectionFiles, rejection_space,
};
pub use replays_file::{read_replays, write_replays};
use segment_file::JournalIdentity;
use segment_map::SegmentMap;
pub use segment_map::TopicCursor;
pub use senders_file::read_senders;
pub use steps::{BackgroundSteps, WriterSteps};
pub use unforwarded::UnforwardedEvents;
use writer::CommitWriter;
pub use writer::WriterStep;
use writer_health::WriterHealth;

/// Handle of an open journal; cheap to clone. Dropping all handles without calling [`Journal::close`] has the same effect as a
/// crash.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

/// The parts of the environment that a journal uses.
pub struct Environment {
    /// Directory of the journal.
    pub disk: Arc<dyn Disk>,
    /// Clock for the expiry of events and keys, and for the delays of the writer and of the background work.
    pub clock: Arc<dyn Clock>,
    /// Source of ids and of the hash key.
    pub random: Arc<dyn Random>,
    /// Metrics that the journal updates.
    pub metrics: Arc<Metrics>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    options: Options,
    metrics: Arc<Metrics>,
    log: LogId,
    identity: JournalIdentity,
    time: JournalClock,
    durable_watermark: AtomicU64,
    queue: CommitQueue,
    segments: SegmentMap,
    keys: KeyIndex,
    background: Background,
    health: WriterHealth,
    listeners: CommitListeners,
    /// Damaged ranges that the journal has already counted. Each entry contains the name of the segment file and the start
    /// offset of a range.
    corruption: Mutex<HashSet<(String, u64)>>,
    resources: Mutex<OpenResources>,
}

/// Resources that the journal holds until it is closed, even if the writer has ended after a failure.
struct OpenResources {
    threads: Vec<JoinHandle<()>>,
    /// The lock file with which this process has locked the directory. The lock ends when this file is dropped.
    lock: Option<Arc<dyn DiskFile>>,
}

impl Journal {
    /// Opens the journal in `disk` for writing. Locks the directory, recovers the unconfirmed events after a crash, and starts
    /// the journal's threads.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Journal, OpenError> {
        let environment = Environment { disk, clock, random: Arc::new(SystemRandom), metrics };
        let (journal, WriterSteps(writer), _) = Journal::open_in_steps(environment, options)?;
        let own = |thread: io::Result<JoinHandle<()>>| {
            let started = context(thread, || "cannot start a journal thread".into());
            let thread = started.inspect_err(|_| journal.close())?;
            journal.0.resources.lock().expect(POISON).threads.push(thread);
            Ok(())
        };
        own(writer::start(journal.0.clone(), writer))?;
        own(background::start(journal.0.clone()))?;
        Ok(journal)
    }

    /// Opens the journal as [`Journal::open`] does, but starts no threads. The caller must perform the steps of the writer and
    /// of the background work, so that a simulation decides about their order.
    pub fn open_in_steps(
        environment: Environment,
        mut options: Options,
    ) -> Result<(Journal, WriterSteps, BackgroundSteps), OpenError> {
        let Environment { disk, clock, random, metrics } = environment;
        options.limits.segment_size = options.limits.segment_size.next_multiple_of(PAGE);
        let recovered = recovery::open(&*disk, &clock, &*random, &options, &metrics)?;
        metrics.journal.limit_bytes.set(options.limits.max_size as i64);
        metrics.journal.unmerged_keys_limit.set(options.max_recent_keys as i64);
        let shared = Arc::new(Shared {
            log: recovered.log,
            identity: recovered.identity,
            time: recovered.time,
            durable_watermark: AtomicU64::new(recovered.next_seq),
            queue: CommitQueue::default(),
            segments: recovered.segments,
            keys: recovered.keys,
            background: Background::new(recovered.unsealed, recovered.reserve_exists, random.clone()),
            health: WriterHealth::new(),
            listeners: CommitListeners::default(),
            corruption: Mutex::new(recovered.corruption),
            resources: Mutex::new(OpenResources { threads: Vec::new(), lock: Some(recovered.writer.lock.clone()) }),
            disk,
            options,
            metrics,
        });
        shared.update_sizes();
        shared.count_parked();
        let writer = WriterSteps(CommitWriter::new(shared.clone(), recovered.writer, random));
        Ok((Journal(shared.clone()), writer, BackgroundSteps(shared)))
    }

    /// Returns the journal's hash key: the random key of the hash function that computes dedupe keys.
    pub fn hash_key(&self) -> [u8; 16] {
        self.0.identity.hash_key
    }

    /// Returns the journal's id as text: 16 hexadecimal digits. It stays the same over restarts, and tells this instance of hookhold
    /// apart from others.
    pub fn id(&self) -> String {
        id_text(self.0.identity.journal)
    }

    /// Passes an event to the writer, which calls `completion` once with the result. An accepted event cannot be cancelled. If
    /// the journal rejects the event, this function drops `completion` without calling it. Never waits for the disk.
    pub fn append(&self, event: &Event, completion: Completion) -> Result<(), AppendRejected> {
        self.append_batch(event, &[], completion)
    }

    /// Passes the events of one delivery to the writer, which stores all of them in one commit or none of them, even after a
    /// crash. All events must have the same topic. The result is the position of `first`, and the events in `rest` have the
    /// sequences that follow. Otherwise the same as [`Journal::append`].
    pub fn append_batch(&self, first: &Event, rest: &[Event], completion: Completion) -> Result<(), AppendRejected> {
        debug_assert!(rest.iter().all(|event| event.topic() == first.topic()), "the events of a delivery have one topic");
        self.check_batch_size(first, rest)?;
        let frame = |event: &Event, continues: bool| PendingFrame {
            draft: FrameDraft::event(event, continues),
            key: event.dedupe_key(),
            fingerprint: event.fingerprint(),
        };
        let append = PendingAppend {
            first: frame(first, !rest.is_empty()),
            rest: (1..).zip(rest).map(|(number, event)| frame(event, number < rest.len())).collect(),
            topic: first.topic().clone(),
            completion,
        };
        let (shared, len, topic) = (&*self.0, append.len(), append.topic.clone());
        if !shared.segments.reserve(&topic, len, &shared.options) {
            return Err(AppendRejected::TopicFull);
        }
        shared.queue.push(append, &shared.health).inspect_err(|_| shared.segments.cancel_reserved([(&topic, len)].into_iter()))
    }

    /// Rejects a batch that would be too large even for an empty journal. The limits of the configuration ensure that a single
    /// event always fits. The frames of a batch repeat the request head, so they may be much larger than its body.
    fn check_batch_size(&self, first: &Event, rest: &[Event]) -> Result<(), AppendRejected> {
        if rest.is_empty() {
            return Ok(());
        }
        let Options { limits: JournalLimits { max_size, segment_size, max_backlog, .. }, forwards, .. } = self.0.options;
        let room = max_size.saturating_sub(segment_size).min(if forwards { max_backlog } else { u64::MAX });
        let len: usize = iter::once(first).chain(rest).map(frame::event_frame_len).sum();
        if len as u64 <= room.min(MAX_QUEUED_BYTES as u64) { Ok(()) } else { Err(AppendRejected::BatchTooLarge) }
    }

    /// Returns true while a thread deletes segments or starts a segment. Another step that does one of both would wait.
    pub fn is_making_room(&self) -> bool {
        self.0.background.is_locked()
    }

    /// Returns the duration of the writer's running disk operation so far; `None` if no operation is running. An operation is a
    /// write, a sync, or the allocation of a segment.
    pub fn operation_age(&self) -> Option<Duration> {
        self.operation_age_at(self.now())
    }

    /// Returns the duration of the writer's running disk operation at `now`; `None` if no operation is running. `now` is a recent
    /// time of [`Journal::now`].
    pub fn operation_age_at(&self, now: JournalMillis) -> Option<Duration> {
        self.0.health.operation_age(self.0.time.uptime_at(now))
    }

    /// Returns the first sequence that is not durable yet.
    pub fn durable_watermark(&self) -> u64 {
        self.0.durable_watermark.load(Ordering::Acquire)
    }

    /// Returns the oldest sequence that can still be read.
    pub fn oldest_seq(&self) -> u64 {
        self.0.segments.oldest_seq().unwrap_or_else(|| self.durable_watermark())
    }

    /// Registers `watcher`. The writer's thread calls `watcher` after every commit until `watcher` returns false, so `watcher`
    /// must not block.
    pub fn on_commit(&self, watcher: CommitWatcher) {
        self.0.listeners.add_watcher(watcher);
    }

    /// Sets the runner for the completions of stored events. The writer then passes the completions to the runner and can start
    /// the next commit at once. If the runner uses the same async runtime as the tasks that wait for the completions, each
    /// commit wakes this runtime only once, instead of once per event. Only the first call has an effect.
    pub fn set_completion_runner(&self, runner: CompletionRunner) {
        self.0.listeners.set_runner(runner);
    }

    /// Returns a reader that starts at sequence `from`, or at the oldest event if `from` is lower.
    pub fn reader(&self, from: u64) -> Reader {
        Reader::new(self.0.clone(), from)
    }

    /// Moves a topic's cursor after Kafka has acknowledged this number of events. The next commit saves all moved cursors, but at
    /// most one commit per [`CURSOR_INTERVAL`] does. Without events, the writer makes a commit for the cursors:
    /// [`CURSOR_INTERVAL`] after [`MANY_ACKNOWLEDGEMENTS`], or [`CURSOR_DELAY`] after the first move. Calls take effect in the
    /// order in which they are made. Never waits for the disk.
    pub fn save_cursor(&self, topic: &str, cursor: u64, acknowledged: u64) {
        let cursor = if is_planted("cursor before acknowledgement") { cursor + 1 } else { cursor };
        let has_left_segment = self.0.segments.move_cursor(topic, cursor);
        self.0.queue.cursor_moved(acknowledged, self.0.time.clock().uptime());
        if has_left_segment || self.0.health.has_no_segment() {
            self.0.background.wake();
        }
    }

    /// Updates the metrics of the journal's sizes and backlogs. Call this function before each rendering of the metrics.
    pub fn update_metrics(&self) {
        self.0.update_sizes();
    }

    /// Returns the reason why the journal cannot store new events now; `None` if the journal can store them. A disk operation of
    /// the writer that has been running for `patience` or longer is such a reason.
    pub fn unavailable_reason(&self, patience: Duration) -> Option<&'static str> {
        if self.failed() {
            Some("a sync or a thread of the journal has failed, so the process exits; check the log")
        } else if self.operation_age().is_some_and(|age| age >= patience) {
            Some(
                "a write, sync or allocation of the journal has been running for longer than a delivery may wait; check the disk",
            )
        } else if self.0.health.has_no_room() {
            Some(
                "expected free space for a new segment of the journal, found none; see hookhold_forward_blocked for blocked \
                 topics, free some disk space or raise journal.max_size",
            )
        } else if self.0.health.has_no_segment() {
            Some("expected a new segment of the journal, found an error when creating its file; see the log, and check the disk")
        } else {
            None
        }
    }

    /// Returns true once a sync has failed or a journal thread has panicked. The process must then exit with code 3.
    pub fn failed(&self) -> bool {
        self.0.health.has_failed()
    }

    /// Closes the journal. Rejects further events, commits all accepted events, saves the durable watermark and all cursors,
    /// and ends the threads.
    pub fn close(&self) {
        self.0.queue.close();
        let threads = std::mem::take(&mut self.0.resources.lock().expect(POISON).threads);
        for thread in threads {
            // The background thread must outlive the writer, because the writer may need the background thread to make room.
            drop(thread.join());
            self.0.background.close();
        }
        self.0.resources.lock().expect(POISON).lock = None;
    }
}

impl Shared {
    /// Makes all earlier creations, renames and deletions of files durable. After a failure, only recovery can determine which
    /// names are durable. The journal then fails, so that the process exits.
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir().inspect_err(|error| {
            tracing::error!(%error, "a sync of the journal's directory failed, so the process exits; check the disk");
            self.health.set_failed();
            self.listeners.notify_watchers();
        })?;
        // The sync of another thread may have failed since this thread has changed a name. The failed sync may have lost the change,
        // and this sync then succeeds without it.
        match self.health.has_failed() {
            true => Err(io::Error::other("expected no earlier failed sync, found one; check the disk")),
            false => Ok(()),
        }
    }

    /// Computes the journal's sizes and backlogs, which the metrics and [`SegmentMap::reserve`] use.
    fn update_sizes(&self) {
        let bytes = self.segments.bytes() + self.background.spare_bytes(self);
        self.metrics.journal.bytes.set(bytes as i64);
        self.metrics.journal.events.set(self.segments.events() as i64);
        let (backlogs, shares) = self.segments.update_backlogs(&self.options);
        for (topic, backlog) in backlogs {
            self.metrics.journal.pinned_bytes.with_label_values(&[&*topic]).set(backlog.waiting_bytes as i64);
            self.metrics.journal.backlog_limit.with_label_values(&[&*topic]).set(shares.limit() as i64);
            self.metrics.journal.backlog_used.with_label_values(&[&*topic]).set(shares.used(&backlog));
        }
    }
}

/// Returns the id of a journal as text: 16 hexadecimal digits.
pub fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

/// Starts a journal thread that calls `run`. If the thread panics, marks the journal as failed.
fn spawn(name: &str, shared: Arc<Shared>, run: impl FnOnce(Arc<Shared>) + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _guard = PanicGuard(shared.clone());
        run(shared);
    })
}

/// Guard that marks the journal as failed if a journal thread panics. Such a panic is a bug in hookhold. The process then exits
/// as it does after a failed sync. Without this guard, the senders would wait indefinitely.
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

const POISON: &str = "no code panics while it holds this lock";
