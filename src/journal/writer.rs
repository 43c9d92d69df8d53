//! The one thread that writes. It takes whatever arrived during the last sync, writes it as one commit, syncs once, moves the
//! mark and tells everybody. There is no timer: under load the batches grow by themselves.
//!
//! A failed write or a full disk fails that commit's events and abandons the segment. A failed sync is never tried again:
//! everything that waits fails, nothing more is taken, and the process must end, because only recovery can tell what is kept.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use super::background::Spare;
use super::commit_queue::{Pending, Queue};
use super::disk::{DiskFile, is_full};
use super::frame::{COMMIT_LEN, Draft, padded};
use super::keys::SeenKey;
use super::lock_file::published;
use super::segment::Segment;
use super::segment_file::{self, CURSOR_ROOM, HEADER, Name, PAGE, random};
use super::segment_summary::SegmentSummary;
use super::{Alarm, AppendError, CURSOR_DELAY, POISON, Shared};
use crate::event::Position;

/// What the writer begins with.
pub struct Writer {
    /// The newest segment.
    pub active: Arc<Segment>,
    /// Where its next commit goes.
    pub at: u64,
    /// The sequence of the next event.
    pub next: u64,
    /// The lock file, at whose start the mark is published.
    pub lock: Arc<dyn DiskFile>,
    /// The ordinal of the next segment.
    pub ordinal: u64,
}

/// Starts the writer's thread.
pub fn start(shared: Arc<Shared>, writer: Writer) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let _alarm = Alarm(shared.clone());
        Running { shared, writer, buffer: Vec::new(), abandoned: false, complained: false }.run();
    };
    std::thread::Builder::new().name("journal-writer".into()).spawn(run)
}

struct Running {
    shared: Arc<Shared>,
    writer: Writer,
    buffer: Vec<u8>,
    abandoned: bool,
    /// It has been said that no segment can be begun.
    complained: bool,
}

/// What the queue gave.
struct Work {
    events: VecDeque<Pending>,
    save_cursors: bool,
    closing: bool,
}

/// The process cannot go on: a sync failed.
struct Fatal;

impl Running {
    fn run(mut self) {
        loop {
            let work = self.take();
            if self.commit_all(work.events, work.save_cursors || work.closing).is_err() {
                return self.fail_everything();
            }
            if work.closing {
                let end = self.writer.at;
                return drop(self.shared.disk.truncate(&self.writer.active.name.segment(), end));
            }
        }
    }

    fn take(&self) -> Work {
        let mut queue = self.shared.queue.lock().expect(POISON);
        loop {
            let due = queue.cursors_moved.map(|moved| moved + CURSOR_DELAY);
            // A commit that is written anyway carries them for nothing.
            let save_cursors = due.is_some_and(|due| !queue.events.is_empty() || Instant::now() >= due);
            if !queue.events.is_empty() || queue.closing || save_cursors {
                drop(queue);
                queue = self.let_others_in();
                let save_cursors = save_cursors || (queue.closing && queue.events.is_empty());
                if save_cursors {
                    queue.cursors_moved = None;
                }
                queue.bytes = 0;
                let closing = queue.closing && queue.events.is_empty();
                return Work { events: std::mem::take(&mut queue.events).into(), save_cursors, closing };
            }
            queue = match due {
                None => self.shared.queue_changed.wait(queue).expect(POISON),
                Some(due) => {
                    let rest = due.saturating_duration_since(Instant::now());
                    self.shared.queue_changed.wait_timeout(queue, rest).expect(POISON).0
                }
            };
        }
    }

    /// While senders' tasks are runnable and bring more events, a sync would only take the processor from them: lets them run
    /// first, until enough have come or several turns in a row have brought nothing. When nobody else is there the turns are over
    /// at once, so it is no timer.
    fn let_others_in(&self) -> MutexGuard<'_, Queue> {
        let (mut queue, mut in_vain) = (self.shared.queue.lock().expect(POISON), 0);
        for _ in 0..MAX_TURNS {
            let before = queue.events.len();
            if before >= ENOUGH || in_vain == MAX_IN_VAIN {
                break;
            }
            drop(queue);
            std::thread::yield_now();
            queue = self.shared.queue.lock().expect(POISON);
            in_vain = if queue.events.len() == before { in_vain + 1 } else { 0 };
        }
        queue
    }

    /// Commits everything, in as many commits as segments are needed.
    fn commit_all(&mut self, mut events: VecDeque<Pending>, mut save_cursors: bool) -> Result<(), Fatal> {
        let mut may_begin_for_cursors = true;
        loop {
            let cursors = self.cursors_frame(save_cursors, &events);
            let overhead = padded(COMMIT_LEN) as u64 + cursors.as_ref().map_or(0, |draft| draft.padded_len() as u64);
            let room = self.room().saturating_sub(overhead);
            let fits = fitting(&events, room.saturating_sub(CURSOR_ROOM));
            if fits > 0 || (events.is_empty() && save_cursors && room > 0) {
                if let Err(fatal) = self.commit(events.drain(..fits).collect(), cursors) {
                    self.refuse(events.into(), AppendError::Sync, 0);
                    return Err(fatal);
                }
                // A failed write has saved nothing.
                save_cursors &= self.abandoned;
            }
            let need = match events.front() {
                Some(first) => first.len(),
                None if save_cursors && std::mem::take(&mut may_begin_for_cursors) => 0,
                None => break,
            };
            if let Err(error) = self.next_segment(need) {
                // Smaller ones may still fit into what is left.
                let (smaller, refused): (Vec<_>, Vec<_>) =
                    events.into_iter().partition(|e: &Pending| error == AppendError::Full && e.len() < need);
                self.refuse(refused, error, need);
                events = VecDeque::from(smaller);
            }
        }
        if save_cursors {
            self.shared.queue.lock().expect(POISON).cursors_changed(Instant::now());
        }
        Ok(())
    }

    /// Bytes left in the active segment.
    fn room(&self) -> u64 {
        let size = self.writer.active.size.load(Ordering::Relaxed);
        if self.abandoned { 0 } else { size.saturating_sub(self.writer.at) }
    }

    /// The snapshot that this commit carries: when one is due, when the segment begins, when a lane begins.
    fn cursors_frame(&self, due: bool, events: &VecDeque<Pending>) -> Option<Draft> {
        let mut due = due || self.writer.at == HEADER;
        if self.shared.options.forwards {
            for event in events {
                // Not the event's own sequence: should this commit fail, a later event of the lane gets a lower one.
                due |= self.shared.catalog.begin_lane(&event.lane, self.writer.next);
            }
        }
        due.then(|| self.snapshot())
    }

    fn snapshot(&self) -> Draft {
        Draft::cursors(self.shared.catalog.cursors().iter().map(|(lane, cursor)| (lane, *cursor)))
    }

    /// Writes and syncs one commit. After a failed write nothing of it is kept and the segment is abandoned.
    fn commit(&mut self, batch: Vec<Pending>, cursors: Option<Draft>) -> Result<(), Fatal> {
        let (offset, end) = self.lay_out(&batch, cursors);
        let Writer { active, at, next, .. } = &mut self.writer;
        if let Err(error) = active.file.write_at(&self.buffer, offset) {
            tracing::error!(file = active.name.segment(), %error, "a write to the journal failed; its segment is abandoned");
            self.abandoned = true;
            self.refuse(batch, AppendError::Write, 0);
            return Ok(());
        }
        let began = Instant::now();
        self.shared.sync_began.store(self.shared.born.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
        let synced = active.file.sync();
        self.shared.sync_began.store(0, Ordering::Relaxed);
        if let Err(error) = synced {
            tracing::error!(file = active.name.segment(), %error, "a sync of the journal failed; the process ends");
            self.shared.failed.store(true, Ordering::Release);
            self.refuse(batch, AppendError::Sync, 0);
            return Err(Fatal);
        }
        self.shared.metrics.journal.sync_seconds.observe(began.elapsed().as_secs_f64());
        self.shared.metrics.journal.batch_events.observe(batch.len() as f64);
        let first = *next;
        *at = end;
        *next += batch.len() as u64;
        self.publish(batch, first, offset);
        self.buffer.clear();
        self.buffer.shrink_to(USUAL_COMMIT);
        Ok(())
    }

    /// Fills the buffer with one commit and the rest of its last page, and says where the commit begins and ends.
    fn lay_out(&mut self, batch: &[Pending], cursors: Option<Draft>) -> (u64, u64) {
        let Running { shared, writer, buffer, .. } = self;
        let id = writer.active.name.id;
        buffer.clear();
        let mut offset = writer.at;
        if offset == HEADER {
            buffer.extend_from_slice(&segment_file::header(writer.active.name, shared.log));
            offset = 0;
        }
        let others = batch.iter().map(Pending::len).sum::<u64>() + cursors.as_ref().map_or(0, |c| c.padded_len() as u64);
        Draft::commit(writer.next, batch.len() as u32, others).seal_into(buffer, shared.log, writer.next, id);
        if let Some(cursors) = cursors {
            cursors.seal_into(buffer, shared.log, writer.next, id);
        }
        for (seq, event) in (writer.next..).zip(batch) {
            event.draft.seal_into(buffer, shared.log, seq, id);
        }
        let end = offset + buffer.len() as u64;
        let page_end = end.next_multiple_of(PAGE).min(writer.active.size.load(Ordering::Relaxed));
        buffer.resize(buffer.len() + page_end.saturating_sub(end) as usize, 0);
        (offset, end)
    }

    /// Makes a synced commit visible: table, keys, mark, then everybody who waits.
    fn publish(&mut self, batch: Vec<Pending>, first: u64, offset: u64) {
        let Writer { active, at, next, lock, .. } = &self.writer;
        let events = || (first..).zip(&batch);
        active.grow(offset.max(HEADER), *at, events().map(|(seq, e)| (&e.lane, seq, e.len(), e.received_at)));
        let seen = |(seq, e): (u64, &Pending)| Some((e.key?, SeenKey { first_seen: e.received_at, seq }));
        self.shared.keys.note(active.name, events().filter_map(seen));
        self.shared.catalog.settle(batch.iter().map(|event| (&event.lane, event.len())), true);
        self.shared.mark.store(*next, Ordering::Release);
        // Only other processes read this; they fall back to the recorded marks when it is missing.
        drop(lock.write_at(&published(self.shared.log, *next), 0));
        self.shared.notify_watchers();
        let log = self.shared.log;
        self.shared.tell(Box::new(move || {
            for (seq, event) in (first..).zip(batch) {
                (event.done)(Ok(Position { log, seq }));
            }
        }));
    }

    /// Leaves the active segment to the keeper and begins a new one with room for an event of `len` bytes.
    fn next_segment(&mut self, len: u64) -> Result<(), AppendError> {
        let overhead = HEADER + (padded(COMMIT_LEN) + self.snapshot().padded_len()) as u64 + CURSOR_ROOM;
        let size = self.shared.options.limits.segment_size.max(overhead + len);
        let shared = self.shared.clone();
        let room = shared.keeper.make_room(&shared, size);
        let created = match room {
            Some(_) => self.create(size),
            None => Err(io::Error::new(io::ErrorKind::StorageFull, "max_size is used up")),
        };
        let (name, file) = created.map_err(|error| self.complain(&error, size))?;
        let segment = Segment::new(name, file, size, SegmentSummary::empty(self.writer.next), false);
        shared.catalog.add(segment.clone());
        drop(room);
        let full = std::mem::replace(&mut self.writer.active, segment);
        self.writer.at = HEADER;
        (self.abandoned, self.complained) = (false, false);
        shared.no_room.store(false, Ordering::Relaxed);
        shared.keeper.seal(full);
        shared.count_sizes();
        Ok(())
    }

    /// Says once that no segment can be begun. One event that is too large for what is left does not stop the others.
    fn complain(&mut self, error: &io::Error, size: u64) -> AppendError {
        let is_usual = size == self.shared.options.limits.segment_size;
        let is_new = !std::mem::replace(&mut self.complained, true);
        if (is_usual && !self.shared.no_room.swap(true, Ordering::Relaxed)) || is_new {
            tracing::warn!(%error, size, "a new segment of the journal could not be begun");
        }
        if is_full(error) { AppendError::Full } else { AppendError::Write }
    }

    fn create(&mut self, size: u64) -> io::Result<(Name, Arc<dyn DiskFile>)> {
        let name = Name { ordinal: self.writer.ordinal, first: self.writer.next, id: random()? };
        let disk = &self.shared.disk;
        let spare = if size == self.shared.options.limits.segment_size { self.shared.keeper.take_spare() } else { None };
        let renamed = spare.and_then(|Spare { name: spare, file }| {
            let renamed = disk.rename(&spare, &name.segment()).inspect_err(|_| drop(disk.remove(&spare)));
            renamed.ok().map(|()| file)
        });
        let file = renamed.map_or_else(|| disk.create(&name.segment(), size), Ok)?;
        disk.sync_dir().inspect_err(|_| drop(disk.remove(&name.segment())))?;
        self.writer.ordinal += 1;
        Ok((name, file))
    }

    fn refuse(&self, events: Vec<Pending>, error: AppendError, need: u64) {
        if error == AppendError::Full && !events.is_empty() {
            let full = &mut self.shared.queue.lock().expect(POISON).full;
            *full = Some(full.unwrap_or(need).min(need));
        }
        self.shared.catalog.settle(events.iter().map(|event| (&event.lane, event.len())), false);
        for event in events {
            (event.done)(Err(error));
        }
    }

    fn fail_everything(&self) {
        let events = std::mem::take(&mut self.shared.queue.lock().expect(POISON).events);
        self.refuse(events, AppendError::Sync, 0);
        self.shared.notify_watchers();
    }
}

/// How many of the first events fit into `room` bytes.
fn fitting(events: &VecDeque<Pending>, room: u64) -> usize {
    let mut left = room;
    events.iter().take_while(|event| left.checked_sub(event.len()).inspect(|rest| left = *rest).is_some()).count()
}

/// How often the writer lets others run before a commit, at most.
const MAX_TURNS: usize = 64;
/// And at most so often in a row when nothing comes of it: one processor may have nobody else to run while another brings the
/// next event in a few microseconds.
const MAX_IN_VAIN: usize = 4;
/// Events that are worth a commit: with more of them its fixed cost hardly shows in each.
const ENOUGH: usize = 64;
/// What the commit buffer keeps of its memory after a larger commit.
const USUAL_COMMIT: usize = 1 << 20;
