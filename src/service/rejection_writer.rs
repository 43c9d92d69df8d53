//! The thread that writes rejected deliveries to files in the journal's directory. It only takes entries from a bounded queue, so a
//! slow or full disk delays no answer: the queue then drops further entries. It syncs nothing, and writes nothing while the
//! journal's reserve is missing, because all free space then belongs to the journal.
//!
//! The store is [`FILES`] files of equal size, of which the oldest makes room for a new one. Without a further rule, a flood of one
//! source would soon delete the rejections of all other sources. The new file therefore starts with copies of the newest entries of
//! each group that would otherwise have fewer than [`STORED_PER_GROUP`]. A group consists of all entries with the same source and
//! outcome. After a restart, the first new file also replaces a newest file that is not half full, so that many restarts do not
//! produce many files.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{Clock, UnixMillis};
use crate::journal::disk::Disk;
use crate::journal::{RejectionAppender, RejectionFiles, rejection_space};
use crate::limits::AdminLimits;
use crate::metrics::Metrics;
use crate::rejections::{RejectedDelivery, RejectionQueue, RejectionWork};

/// Handle of the thread. Dropping the handle closes the queue, so the thread ends after its last entry.
pub(super) struct RejectionWriter {
    queue: Arc<RejectionQueue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State of the thread.
struct RejectionLog {
    files: RejectionFiles,
    queue: Arc<RejectionQueue>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// All files, oldest first; `None` until the thread needs them, so that it does not delay the start.
    known: Option<Vec<KnownRejections>>,
    /// The newest file, if this process has created it. It is also the last entry of `known`.
    current: Option<RejectionAppender>,
    /// Uptime before which the thread tries no further write after a failure.
    paused_until: Duration,
}

/// A file of the store, and what the thread must know to decide about its deletion.
struct KnownRejections {
    ordinal: u64,
    bytes: u64,
    /// Time at which this process has started the file.
    started: UnixMillis,
    /// Time of the newest rejection in the file.
    newest: UnixMillis,
    groups: BTreeMap<RejectionGroup, u32>,
}

/// Source and outcome of a rejection.
type RejectionGroup = (Arc<str>, &'static str);

impl RejectionWriter {
    /// Starts the thread, which writes the entries of `queue` to `disk`.
    pub(super) fn start(
        queue: Arc<RejectionQueue>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> io::Result<RejectionWriter> {
        let files = RejectionFiles::new(disk);
        let log = RejectionLog {
            files,
            queue: queue.clone(),
            clock,
            metrics,
            known: None,
            current: None,
            paused_until: Duration::ZERO,
        };
        let thread = std::thread::Builder::new().name("rejections".into()).spawn(move || log.run())?;
        Ok(RejectionWriter { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Writes the waiting entries and ends the thread. Blocks on disk I/O.
    pub(super) fn stop(&self) {
        self.queue.close();
        let thread = self.thread.lock().expect(super::POISON).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that stores rejected deliveries panicked; report this bug");
        }
    }
}

impl Drop for RejectionWriter {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl RejectionLog {
    fn run(mut self) {
        while let Some(work) = self.queue.next(TIDY_INTERVAL) {
            match work {
                RejectionWork::Store(rejected) => {
                    self.store(&rejected);
                    self.measure();
                    self.queue.finish();
                }
                RejectionWork::Tidy => {
                    self.tidy();
                    self.measure();
                }
            }
        }
    }

    fn measure(&self) {
        let bytes = self.known.as_ref().map_or(0, |known| total(known));
        self.metrics.rejections.bytes.set(bytes as i64);
    }

    fn store(&mut self, rejected: &RejectedDelivery) {
        let (limits, now) = (self.queue.limits(), self.clock.uptime());
        let written = match limits.keep_rejected {
            0 => return,
            _ if now < self.paused_until => Err(None),
            _ if !self.files.has_reserve() => Err(Some(io::Error::from(io::ErrorKind::StorageFull))),
            _ => self.append(rejected, limits).map_err(Some),
        };
        match written {
            Ok(()) => self.metrics.rejections.stored.inc(),
            Err(error) => {
                self.metrics.rejections.dropped.with_label_values(&["write_failed"]).inc();
                // A delivery that is too large says nothing about the disk.
                let is_too_large = |error: &io::Error| error.kind() == io::ErrorKind::FileTooLarge;
                if let Some(error) = error {
                    let pause = if is_too_large(&error) { Duration::ZERO } else { PAUSE_AFTER_FAILURE };
                    self.paused_until = now + pause;
                    tracing::warn!(%error, "cannot store a rejected delivery, so `hookhold doctor` cannot explain it");
                }
            }
        }
    }

    fn append(&mut self, rejected: &RejectedDelivery, limits: AdminLimits) -> io::Result<()> {
        let (entry, now) = (rejected.encode(), self.clock.now());
        let (file_size, space) = (limits.keep_rejected / FILES, rejection_space(entry.len()));
        if space > file_size {
            let found =
                format!("expected a rejection of at most {file_size} bytes (admin.keep_rejected / {FILES}), found {space}");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, found));
        }
        let is_full = |file: &KnownRejections| {
            file.bytes + space > file_size || now.since(file.started) > limits.keep_rejected_for.as_millis() as u64 / FILES
        };
        let last = self.known.as_ref().and_then(|known| known.last());
        if self.current.is_none() || last.is_none_or(is_full) {
            // After a failure, only a new listing shows which files exist.
            self.start_file(limits, now).inspect_err(|_| (self.current, self.known) = (None, None))?;
        }
        self.write(&entry, rejected)
    }

    /// Appends an entry to the newest file.
    fn write(&mut self, entry: &[u8], rejected: &RejectedDelivery) -> io::Result<()> {
        let (Some(current), Some(known)) = (&mut self.current, self.known.as_mut().and_then(|known| known.last_mut())) else {
            return Err(io::Error::other("expected a file with rejected deliveries, found none"));
        };
        current.append(entry)?;
        known.add(rejected);
        known.bytes = current.bytes();
        Ok(())
    }

    /// Starts a new file with the entries that must outlive the files that it replaces, and then deletes these files.
    fn start_file(&mut self, limits: AdminLimits, now: UnixMillis) -> io::Result<()> {
        let (is_first, file_size) = (self.current.is_none(), limits.keep_rejected / FILES);
        let mut known = self.load(now)?;
        let ordinal = known.last().map_or(1, |file| file.ordinal.saturating_add(1));
        self.make_room(&mut known, limits.keep_rejected - file_size)?;
        let absorbed = known.pop_if(|file| is_first && file.bytes < file_size / 2);
        let mut replaced = Vec::new();
        // Three file sizes stay free: for the copies and one more entry in the new file, and for the replaced files, which
        // exist until the copies are written.
        while total(&known) > limits.keep_rejected - 3 * file_size {
            replaced.push(known.remove(0));
        }
        let not_before = UnixMillis(now.0.saturating_sub(limits.keep_rejected_for.as_millis() as u64));
        let mut copied = self.newest_of_rare_groups(&replaced, known.iter().chain(&absorbed), file_size / 2, not_before);
        copied.extend(absorbed.iter().flat_map(|file| self.read(file.ordinal, not_before)));
        let appender = self.files.create(ordinal)?;
        let bytes = appender.bytes();
        known.push(KnownRejections { ordinal, bytes, started: now, newest: UnixMillis(0), groups: BTreeMap::new() });
        (self.current, self.known) = (Some(appender), Some(known));
        for (entry, rejected) in &copied {
            self.write(entry, rejected)?;
        }
        for file in replaced.iter().chain(&absorbed) {
            self.files.remove(file.ordinal)?;
        }
        Ok(())
    }

    /// Deletes the oldest files if there is no room for another one. This happens only after failed deletions, or if the limit has
    /// become lower.
    fn make_room(&self, known: &mut Vec<KnownRejections>, limit: u64) -> io::Result<()> {
        while known.len() >= MAX_FILES || total(known) > limit {
            self.files.remove(known.remove(0).ordinal)?;
        }
        Ok(())
    }

    /// Returns the newest entries of `files` whose groups have too few entries in the files that `remain`.
    fn newest_of_rare_groups<'a>(
        &self,
        files: &[KnownRejections],
        remain: impl Iterator<Item = &'a KnownRejections>,
        room: u64,
        not_before: UnixMillis,
    ) -> Vec<(Vec<u8>, RejectedDelivery)> {
        let mut counts: BTreeMap<RejectionGroup, u32> = BTreeMap::new();
        for (group, count) in remain.flat_map(|file| &file.groups) {
            *counts.entry(group.clone()).or_default() += count;
        }
        let (mut left, mut newest) = (room, Vec::new());
        for file in files.iter().rev() {
            for (entry, rejected) in self.read(file.ordinal, not_before).into_iter().rev() {
                let (count, space) = (counts.entry(group(&rejected)).or_default(), rejection_space(entry.len()));
                if *count < STORED_PER_GROUP && space <= left {
                    *count += 1;
                    left -= space;
                    newest.push((entry, rejected));
                }
            }
        }
        newest.reverse();
        newest
    }

    /// Returns the entries of a file that are not expired. A file that cannot be read has none.
    fn read(&self, ordinal: u64, not_before: UnixMillis) -> Vec<(Vec<u8>, RejectedDelivery)> {
        let entries = self.files.entries(ordinal).into_iter().flatten();
        let decoded = entries.filter_map(|entry| RejectedDelivery::decode(&entry).map(|rejected| (entry, rejected)));
        decoded.filter(|(_, rejected)| rejected.received_at >= not_before).collect()
    }

    /// Takes the list of all files. Reads the files if this is the first call.
    fn load(&mut self, now: UnixMillis) -> io::Result<Vec<KnownRejections>> {
        if let Some(known) = self.known.take() {
            return Ok(known);
        }
        let known = self.files.list()?.into_iter().map(|file| {
            let (ordinal, bytes) = (file.ordinal, file.bytes);
            let mut known = KnownRejections { ordinal, bytes, started: now, newest: UnixMillis(0), groups: BTreeMap::new() };
            self.read(ordinal, UnixMillis(0)).iter().for_each(|(_, rejected)| known.add(rejected));
            // The disk may have failed to read the file only this once.
            known.newest = if known.groups.is_empty() { now } else { known.newest };
            known
        });
        Ok(known.collect())
    }

    /// Deletes the files that have expired, and the oldest files if they are too large for the current limits.
    fn tidy(&mut self) {
        let (limits, now) = (self.queue.limits(), self.clock.now());
        let age = limits.keep_rejected_for.as_millis() as u64;
        let mut known = match self.load(now) {
            Ok(known) => known,
            Err(error) => return tracing::warn!(%error, "cannot list the files with rejected deliveries"),
        };
        let mut excess = total(&known).saturating_sub(limits.keep_rejected);
        known.retain(|file| {
            let is_expired = limits.keep_rejected == 0 || now.since(file.newest) > age || excess > 0;
            if !is_expired {
                return true;
            }
            excess = excess.saturating_sub(file.bytes);
            self.files
                .remove(file.ordinal)
                .inspect_err(|error| tracing::warn!(%error, "cannot delete rejected deliveries"))
                .is_err()
        });
        // The file of this process may be among the deleted ones.
        self.current = self.current.take().filter(|current| known.iter().any(|file| file.ordinal == current.ordinal));
        self.known = Some(known);
    }
}

impl KnownRejections {
    fn add(&mut self, rejected: &RejectedDelivery) {
        self.newest = self.newest.max(rejected.received_at);
        *self.groups.entry(group(rejected)).or_default() += 1;
    }
}

fn total(files: &[KnownRejections]) -> u64 {
    files.iter().fold(0, |total, file| total.saturating_add(file.bytes))
}

fn group(rejected: &RejectedDelivery) -> RejectionGroup {
    (rejected.source.clone(), rejected.outcome.word())
}

/// Number of files in a full store.
const FILES: u64 = 8;
/// Maximum number of files. Only failed deletions leave that many.
const MAX_FILES: usize = 64;
/// Number of the newest entries of each group that outlive the deletion of their file.
const STORED_PER_GROUP: u32 = 4;
/// Interval between two checks for expired files.
const TIDY_INTERVAL: Duration = Duration::from_secs(3600);
/// Time after a failed write during which the thread drops further entries, so that it does not repeat the failure for each of
/// them.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);
