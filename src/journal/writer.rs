//! The writer, the only thread that writes events. The writer takes the events that arrived during the last sync, writes them
//! as one commit and syncs once. The writer then moves the durable watermark and reports these events as stored.
//!
//! If a write fails, the writer reports an error for the events of the commit and abandons the segment. The writer never
//! retries a failed sync. Instead, the writer reports an error for all waiting events, and the journal rejects further events.
//! The process must then exit, because only recovery can determine which events are stored.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::background::Room;
use super::commit_queue::{Batch, PendingAppend, PendingFrame};
use super::control_frames::{ControlFrames, first_control_len};
use super::disk::is_full;
use super::errors::AppendError;
use super::frame::{COMMIT_LEN, FrameDraft, PAGE, padded};
use super::journal_time::{CommitTimes, JournalMillis};
use super::keys::SeenKey;
use super::lock_file::encode_watermark;
use super::next_segment;
use super::planted::is_planted;
use super::random::Random;
use super::segment::{Segment, SegmentState};
use super::segment_file::{SEGMENT_HEADER_LEN, control_room, encode_header};
use super::segment_summary::SegmentSummary;
use super::writer_state::WriterState;
use super::{Shared, ownership, spawn};
use crate::event::Position;

/// Starts the writer's thread.
pub(super) fn start(shared: Arc<Shared>, writer: CommitWriter) -> io::Result<JoinHandle<()>> {
    spawn("journal-writer", shared, move |_| writer.run())
}

/// The writer. Its thread calls [`CommitWriter::run`]; a simulation calls [`CommitWriter::step`] instead.
pub(super) struct CommitWriter {
    shared: Arc<Shared>,
    state: WriterState,
    random: Arc<dyn Random>,
    buffer: Vec<u8>,
    active: ActiveSegment,
    /// True if the writer has logged that it cannot start a segment, and has not started a segment since.
    no_segment_logged: bool,
    /// The batch that the writer has taken from the queue and not saved completely.
    batch: Option<Batch>,
    /// Version of the lost ranges that the active segment records.
    lost_version: u64,
}

/// Result of one step of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterStep {
    /// The queue has no batch that is due.
    Idle,
    /// The writer has saved a batch.
    Saved,
    /// The writer needs space for a segment, and must wait until the background work has finished a task. The number counts the
    /// tasks that the work has finished so far.
    WaitsForTask(usize),
    /// The writer has saved the last batch, or a sync has failed. The writer makes no further step.
    Ended,
}

/// Reason why the writer did not start a segment.
enum NotStarted {
    WaitsForTask(usize),
    SyncFailed,
    Failed(AppendError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ActiveSegment {
    Usable,
    /// Segment to which a write has failed.
    Abandoned,
}

/// Error: a sync has failed, so the process must exit.
struct SyncFailed;

impl CommitWriter {
    /// Creates a writer that continues at `state`, and that takes the ids of its segments from `random`.
    pub(super) fn new(shared: Arc<Shared>, state: WriterState, random: Arc<dyn Random>) -> CommitWriter {
        let (buffer, active) = (Vec::new(), ActiveSegment::Usable);
        let lost_version = shared.keys.lost_version();
        CommitWriter { shared, state, random, buffer, active, no_segment_logged: false, batch: None, lost_version }
    }

    fn run(mut self) {
        loop {
            let batch = self.shared.queue.next_batch(self.shared.time.clock());
            self.batch = Some(batch);
            loop {
                match self.save() {
                    WriterStep::WaitsForTask(finished) => self.shared.background.wait_for_task(finished),
                    WriterStep::Ended => return,
                    WriterStep::Saved | WriterStep::Idle => break,
                }
            }
        }
    }

    /// Saves the next batch if one is due, without waiting.
    pub(super) fn step(&mut self) -> WriterStep {
        if self.batch.is_none() {
            self.batch = self.shared.queue.try_next_batch(self.shared.time.clock().uptime());
        }
        self.save()
    }

    /// Saves the batch that the writer has taken.
    fn save(&mut self) -> WriterStep {
        let Some(mut batch) = self.batch.take() else { return WriterStep::Idle };
        if self.shared.health.has_failed() {
            self.fail(batch.events.into(), AppendError::Sync);
            self.fail_queued();
            return WriterStep::Ended;
        }
        match self.commit_all(&mut batch) {
            Err(SyncFailed) => {
                self.fail_queued();
                WriterStep::Ended
            }
            Ok(Some(finished)) => {
                self.batch = Some(batch);
                WriterStep::WaitsForTask(finished)
            }
            Ok(None) if batch.is_last => {
                let end = self.state.offset;
                drop(self.shared.disk.truncate(&self.state.active.name.segment_file(), end));
                WriterStep::Ended
            }
            Ok(None) => WriterStep::Saved,
        }
    }

    /// Writes and syncs the events of a batch. If these events do not fit into the active segment, starts further segments and
    /// makes one commit in each segment. If the writer must wait for a task of the background work, leaves the other events in the
    /// batch, and returns the number of tasks that the work has finished so far.
    fn commit_all(&mut self, batch: &mut Batch) -> Result<Option<usize>, SyncFailed> {
        let Batch { events, save_cursors, releases, is_last } = batch;
        let mut may_start_segment_for_control = true;
        // The last commit records a watermark after the last event, so that the next startup need not copy this event.
        let mut is_end_due = *is_last;
        loop {
            let control = ControlFrames::next(&self.shared, &self.state, self.lost_version, *save_cursors, releases, events);
            let overhead = padded(COMMIT_LEN) as u64 + control.len();
            let room = self.room().saturating_sub(overhead);
            let fits = fitting(events, room.saturating_sub(self.control_room()));
            let is_control_due = is_end_due || !control.cursors.is_empty() || !releases.is_empty();
            if fits > 0 || (events.is_empty() && is_control_due && room > 0) {
                if let Err(failed) = self.commit(events.drain(..fits).collect(), control) {
                    self.fail(events.drain(..).collect(), AppendError::Sync);
                    return Err(failed);
                }
                // If the write failed, the cursors and releases are still unsaved.
                if self.active == ActiveSegment::Usable {
                    (*save_cursors, is_end_due) = (false, false);
                    releases.clear();
                }
            }
            *save_cursors &= self.shared.segments.has_moved_cursors();
            let is_control_due = is_end_due || *save_cursors || !releases.is_empty();
            let needed = match events.front() {
                Some(first) => first.len(),
                None if is_control_due && std::mem::take(&mut may_start_segment_for_control) => 0,
                None => break,
            };
            match self.start_segment(needed, releases) {
                Ok(()) => {}
                Err(NotStarted::SyncFailed) => {
                    self.fail(events.drain(..).collect(), AppendError::Sync);
                    return Err(SyncFailed);
                }
                Err(NotStarted::WaitsForTask(finished)) => return Ok(Some(finished)),
                Err(NotStarted::Failed(error)) => {
                    // Smaller events may still fit into the remaining space.
                    let (smaller, failed): (Vec<_>, Vec<_>) =
                        events.drain(..).partition(|event| error == AppendError::Full && event.len() < needed);
                    if error == AppendError::Full && !failed.is_empty() {
                        self.shared.queue.set_no_room(needed);
                    }
                    self.fail(failed, error);
                    *events = VecDeque::from(smaller);
                }
            }
        }
        if *save_cursors {
            self.shared.queue.cursor_moved(0, self.shared.time.clock().uptime());
        }
        if !releases.is_empty() {
            // The background work requests these releases again at its next check.
            releases.drain(..).for_each(|segment| segment.cancel_release());
        }
        Ok(None)
    }

    fn control_room(&self) -> u64 {
        control_room(self.shared.options.limits.segment_size)
    }

    /// Returns the number of bytes left in the active segment.
    fn room(&self) -> u64 {
        match self.active {
            ActiveSegment::Usable => self.state.active.size.load(Ordering::Relaxed).saturating_sub(self.state.offset),
            ActiveSegment::Abandoned => 0,
        }
    }

    /// Writes and syncs one commit. If the write fails, reports an error for all events of the commit and abandons the segment.
    fn commit(&mut self, batch: Vec<PendingAppend>, control: ControlFrames) -> Result<(), SyncFailed> {
        let times = self.shared.time.times();
        let (offset, end) = self.encode_commit(&batch, &control, times);
        if is_planted("key before event") {
            let frames = (self.state.next_seq..).zip(batch.iter().flat_map(PendingAppend::frames));
            let seen = |seq, fingerprint| SeenKey { first_seen: times.journal, seq, fingerprint };
            let keys = frames.filter_map(|(seq, frame)| Some((frame.key?, seen(seq, frame.fingerprint))));
            self.shared.keys.add(self.state.active.name, keys);
        }
        let WriterState { active, lock, owner, .. } = &mut self.state;
        let started = self.shared.time.clock().uptime();
        let written = self.shared.health.perform(started, || active.file.write_at(&self.buffer, offset));
        if let Err(error) = written {
            let file = active.name.segment_file();
            tracing::error!(file, %error, "a write to the journal failed, so the writer abandons the segment; check the disk");
            if is_planted("append behind a torn tail") {
                self.state.offset = end.next_multiple_of(PAGE);
            } else {
                self.active = ActiveSegment::Abandoned;
            }
            self.fail(batch, AppendError::Write);
            return Ok(());
        }
        let started = self.shared.time.clock().uptime();
        if is_planted("answer before sync") && offset > 0 {
            let (first, count) = (self.state.next_seq, count(&batch));
            (self.state.offset, self.state.next_seq) = (end.next_multiple_of(PAGE), first + count);
            self.publish(batch, first, offset..end, times.journal);
            return self.state.active.file.sync().map_err(|_| SyncFailed);
        }
        let synced = self.shared.health.perform(started, || {
            active
                .file
                .sync()
                .or_else(|error| if is_planted("trusted second sync") { active.file.sync() } else { Err(error) })?;
            if offset == 0 {
                *owner = owner.next(self.shared.log, active.name, active.size.load(Ordering::Relaxed));
                owner.write(&**lock)?;
            }
            io::Result::Ok(())
        });
        if let Err(error) = synced {
            let file = active.name.segment_file();
            tracing::error!(file, %error, "a sync of the journal failed, so the process exits; check the disk");
            self.shared.health.set_failed();
            self.fail(batch, AppendError::Sync);
            return Err(SyncFailed);
        }
        let duration = self.shared.time.clock().uptime().saturating_sub(started);
        self.shared.metrics.journal.sync_seconds.observe(duration.as_secs_f64());
        let (first, count) = (self.state.next_seq, count(&batch));
        self.shared.metrics.journal.batch_events.observe(count as f64);
        self.state.offset = if is_planted("commit on a shared page") { end } else { end.next_multiple_of(PAGE) };
        self.state.next_seq += count;
        self.lost_version = control.lost_version.unwrap_or(self.lost_version);
        self.shared.segments.set_saved(&control.cursors);
        if offset == 0 || !control.releases.is_empty() {
            self.shared.keys.set_list_recorded(offset == 0);
        }
        for segment in &control.releases {
            segment.set_release_recorded();
        }
        if !control.releases.is_empty() {
            self.shared.background.wake();
        }
        self.publish(batch, first, offset..end, times.journal);
        self.buffer.clear();
        self.buffer.shrink_to(USUAL_COMMIT_BYTES);
        Ok(())
    }

    /// Encodes one commit into the buffer and pads the commit to the end of its last page. Returns the offset of the buffer and
    /// the end of the last frame.
    fn encode_commit(&mut self, batch: &[PendingAppend], control: &ControlFrames, times: CommitTimes) -> (u64, u64) {
        let CommitWriter { shared, state, buffer, .. } = self;
        let id = state.active.name.id;
        buffer.clear();
        let mut offset = state.offset;
        if offset == SEGMENT_HEADER_LEN {
            buffer.extend_from_slice(&encode_header(state.active.name, shared.log, shared.identity, &[]));
            if is_planted("forgotten page zero") {
                buffer.fill(0);
            }
            offset = 0;
        }
        let others = batch.iter().map(PendingAppend::len).sum::<u64>() + control.len();
        let commit = FrameDraft::commit(state.next_seq, count(batch) as u32, others, times);
        commit.write_into(buffer, shared.log, state.next_seq, id);
        for draft in &control.drafts {
            draft.write_into(buffer, shared.log, state.next_seq, id);
        }
        for (seq, frame) in (state.next_seq..).zip(batch.iter().flat_map(PendingAppend::frames)) {
            frame.draft.write_into(buffer, shared.log, seq, id);
        }
        let end = offset + buffer.len() as u64;
        buffer.resize(buffer.len().next_multiple_of(PAGE as usize), 0);
        (offset, end)
    }

    /// Makes a synced commit visible to readers and reports its events as stored. Updates the summary, the keys and the
    /// watermark before calling the watchers and the completions.
    fn publish(&mut self, batch: Vec<PendingAppend>, first: u64, commit: Range<u64>, first_seen: JournalMillis) {
        let WriterState { active, next_seq, lock, .. } = &self.state;
        let frames = || batch.iter().flat_map(|append| append.frames().map(move |frame| (append, frame)));
        let events = || (first..).zip(frames());
        let added = events().map(|(seq, (append, frame))| (&append.topic, seq, frame.len()));
        active.add_commit(commit.start.max(SEGMENT_HEADER_LEN), commit.end, first_seen, added);
        let seen = |(seq, (_, frame)): (u64, (&PendingAppend, &PendingFrame))| {
            Some((frame.key?, SeenKey { first_seen, seq, fingerprint: frame.fingerprint }))
        };
        self.shared.keys.add(active.name, events().filter_map(seen));
        let deliveries = batch.iter().map(|event| (&event.topic, event.len(), event.count()));
        let watermark = || self.shared.durable_watermark.store(*next_seq, Ordering::Release);
        self.shared.segments.commit_reserved(deliveries, watermark);
        // Only other processes read the published watermark. If this write fails, those processes read an older watermark, or
        // determine the watermark from the segments.
        drop(lock.write_at(&encode_watermark(self.shared.log, *next_seq), 0));
        self.shared.listeners.notify_watchers();
        let log = self.shared.log;
        self.shared.listeners.complete(Box::new(move || {
            let mut seq = first;
            for append in batch {
                let count = append.count();
                (append.completion)(Ok(Position { log, seq }));
                seq += count;
            }
        }));
    }

    /// Starts a segment with room for an event of `len` bytes, and queues the previous segment for sealing. Adds the segments
    /// to `releases` whose release the first commit of the new segment must record.
    fn start_segment(&mut self, len: u64, releases: &mut Vec<Arc<Segment>>) -> Result<(), NotStarted> {
        let shared = self.shared.clone();
        if !ownership::check(&shared) {
            return Err(NotStarted::SyncFailed);
        }
        let first_commit = padded(COMMIT_LEN) as u64 + first_control_len(&self.shared);
        let needed = (SEGMENT_HEADER_LEN + first_commit + len).next_multiple_of(PAGE) + self.control_room();
        let size = shared.options.limits.segment_size.max(needed);
        let room = loop {
            match shared.background.make_room(&shared, size) {
                Room::NeedsRelease(segments, _space) => {
                    let control = ControlFrames::release(&shared, self.lost_version, segments);
                    if self.room() < padded(COMMIT_LEN) as u64 + control.len() {
                        // The active segment has no room for a record, so the next segment records the releases. Until its
                        // first commit is synced, the journal may exceed `max_size` by one segment.
                        releases.extend(control.releases.into_iter().inspect(|segment| _ = segment.request_release()));
                        break Room::Made { _space };
                    }
                    self.commit(Vec::new(), control).map_err(|SyncFailed| NotStarted::SyncFailed)?;
                    releases.retain(|segment| !segment.is_release_recorded());
                }
                room => break room,
            }
        };
        let created = match room {
            Room::Made { .. } => {
                let started = shared.time.clock().uptime();
                let created =
                    shared.health.perform(started, || next_segment::create(&shared, &mut self.state, &*self.random, size));
                if shared.health.has_failed() {
                    return Err(NotStarted::SyncFailed);
                }
                created
            }
            Room::WaitsForTask(finished) => return Err(NotStarted::WaitsForTask(finished)),
            Room::Full | Room::NeedsRelease(..) => {
                Err(io::Error::new(io::ErrorKind::StorageFull, "expected free space within journal.max_size, found none"))
            }
        };
        let (name, file) = created.map_err(|error| NotStarted::Failed(self.log_no_segment(&error, size)))?;
        let summary = SegmentSummary::empty(self.state.next_seq);
        let segment = Segment::new(name, file, size, summary, SegmentState::Unsealed);
        shared.segments.add(segment.clone());
        drop(room);
        let full = std::mem::replace(&mut self.state.active, segment);
        self.state.offset = SEGMENT_HEADER_LEN;
        (self.active, self.no_segment_logged) = (ActiveSegment::Usable, false);
        shared.health.set_room();
        shared.background.seal(full);
        shared.update_sizes();
        Ok(())
    }

    /// Writes one log line when the writer cannot start a segment. Marks the journal as unavailable, unless `size` is larger
    /// than `segment_size`: if only a large event does not fit, smaller events may still fit.
    fn log_no_segment(&mut self, error: &io::Error, size: u64) -> AppendError {
        let is_usual = size == self.shared.options.limits.segment_size;
        let is_new = !std::mem::replace(&mut self.no_segment_logged, true);
        if (is_usual && self.shared.health.set_no_segment(is_full(error))) || is_new {
            tracing::warn!(%error, size, "{}", if is_full(error) { NO_ROOM } else { NO_SEGMENT });
        }
        if is_full(error) { AppendError::Full } else { AppendError::Write }
    }

    fn fail(&self, events: Vec<PendingAppend>, error: AppendError) {
        self.shared.segments.cancel_reserved(events.iter().map(|event| (&event.topic, event.len())));
        for event in events {
            (event.completion)(Err(error));
        }
    }

    fn fail_queued(&self) {
        self.fail(self.shared.queue.drain(), AppendError::Sync);
        self.shared.listeners.notify_watchers();
    }
}

/// Returns the number of events in a commit.
fn count(batch: &[PendingAppend]) -> u64 {
    batch.iter().map(PendingAppend::count).sum()
}

/// Returns the number of appends at the front of the queue that fit into `room` bytes.
fn fitting(events: &VecDeque<PendingAppend>, room: u64) -> usize {
    let mut left = room;
    events.iter().take_while(|event| left.checked_sub(event.len()).inspect(|rest| left = *rest).is_some()).count()
}

const NO_ROOM: &str = "cannot start a new segment of the journal; see hookhold_forward_blocked for blocked topics, free some disk space \
                       or raise journal.max_size";
const NO_SEGMENT: &str = "cannot create the file of a new segment of the journal, so hookhold rejects new events and tries again; \
                          check the disk, and whether its file system is read-only";
/// Capacity in bytes to which the writer shrinks its buffer after a larger commit.
const USUAL_COMMIT_BYTES: usize = 1 << 20;
