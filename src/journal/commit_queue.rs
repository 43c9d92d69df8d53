//! The queue between the tasks that append events and the writer. The queue decides when the writer takes the next batch. No
//! timer delays events: under load, the next batch consists of the events that arrive during the current sync.

use std::collections::VecDeque;
use std::iter;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::POISON;
use super::completion::Completion;
use super::cursor_schedule::CursorSchedule;
use super::errors::AppendRejected;
use super::frame::FrameDraft;
use super::segment::Segment;
use super::writer_health::WriterHealth;
use crate::clock::Clock;
use crate::event_key::EventKey;
use crate::fingerprint::Fingerprint;

/// Events of one delivery that wait for the writer. The writer stores them in one commit.
pub(super) struct PendingAppend {
    pub(super) first: PendingFrame,
    /// The other events of a batch. Empty for a delivery with one event.
    pub(super) rest: Vec<PendingFrame>,
    pub(super) topic: Arc<str>,
    pub(super) completion: Completion,
}

/// Encoded event that waits for the writer.
pub(super) struct PendingFrame {
    /// Encoded frame without its sequence, log id and checksum.
    pub(super) draft: FrameDraft,
    pub(super) key: Option<EventKey>,
    pub(super) fingerprint: Fingerprint,
}

impl PendingAppend {
    /// Returns the frames of the events, in order.
    pub(super) fn frames(&self) -> impl Iterator<Item = &PendingFrame> {
        iter::once(&self.first).chain(&self.rest)
    }

    /// Returns the number of events.
    pub(super) fn count(&self) -> u64 {
        1 + self.rest.len() as u64
    }

    /// Returns the number of bytes that the frames will occupy together.
    pub(super) fn len(&self) -> u64 {
        self.frames().map(PendingFrame::len).sum()
    }
}

impl PendingFrame {
    /// Returns the number of bytes that the frame will occupy.
    pub(super) fn len(&self) -> u64 {
        self.draft.padded_len() as u64
    }
}

/// Events and cursors that the writer takes from the queue together and saves in one or more commits.
pub(super) struct Batch {
    pub(super) events: VecDeque<PendingAppend>,
    /// True if the batch must save the moved cursors.
    pub(super) save_cursors: bool,
    /// Segments whose release the batch must record.
    pub(super) releases: Vec<Arc<Segment>>,
    /// True if the journal is closing and this is the last batch.
    pub(super) is_last: bool,
}

/// Events and cursors that wait for the writer.
#[derive(Default)]
pub(super) struct CommitQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    events: Vec<PendingAppend>,
    bytes: usize,
    cursors: CursorSchedule,
    releases: Vec<Arc<Segment>>,
    closing: bool,
    /// Size of the smallest event that did not fit into the journal. The queue rejects events of at least this size.
    no_room_from: Option<u64>,
}

impl CommitQueue {
    /// Adds an event to the next batch, or rejects the event.
    pub(super) fn push(&self, append: PendingAppend, health: &WriterHealth) -> Result<(), AppendRejected> {
        let mut queue = self.lock();
        // Check the writer's health while holding the lock. Otherwise, this function could add an event after the writer has
        // reported an error for all queued events, and no thread would call the completion of the added event.
        queue.check(append.len(), health.has_failed())?;
        queue.bytes += append.len() as usize;
        queue.events.push(append);
        let is_first = queue.events.len() == 1;
        drop(queue);
        if is_first {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Makes the writer save the cursors, because a cursor has moved at `uptime` after this number of acknowledgements.
    pub(super) fn cursor_moved(&self, acknowledged: u64, uptime: Duration) {
        let is_earlier = self.lock().cursors.cursor_moved(acknowledged, uptime);
        // The writer need not wake up for a save that is due later than the time for which it already waits.
        if is_earlier {
            self.changed.notify_one();
        }
    }

    /// Makes the writer record the release of these segments. Wakes the writer.
    pub(super) fn record_releases(&self, segments: Vec<Arc<Segment>>) {
        self.lock().releases.extend(segments);
        self.changed.notify_one();
    }

    /// Rejects all later events, and wakes the writer for its last batch.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Rejects all events of at least `len` bytes until the next call of [`CommitQueue::set_room`].
    pub(super) fn set_no_room(&self, len: u64) {
        let full = &mut self.lock().no_room_from;
        *full = Some(full.unwrap_or(len).min(len));
    }

    /// Accepts events of any size again.
    pub(super) fn set_room(&self) {
        self.lock().no_room_from = None;
    }

    /// Removes and returns all queued events.
    pub(super) fn drain(&self) -> Vec<PendingAppend> {
        std::mem::take(&mut self.lock().events)
    }

    /// Returns the writer's next batch. First waits until an event is queued, the moved cursors must be saved, or the queue is
    /// closed.
    pub(super) fn next_batch(&self, clock: &dyn Clock) -> Batch {
        let mut queue = self.lock();
        while !queue.has_batch(clock.uptime()) {
            queue = match queue.cursors.due() {
                None => self.changed.wait(queue).expect(POISON),
                Some(due) => {
                    let rest = due.saturating_sub(clock.uptime());
                    self.changed.wait_timeout(queue, rest).expect(POISON).0
                }
            };
        }
        drop(queue);
        self.wait_for_senders().take_batch(clock.uptime())
    }

    /// Returns the writer's next batch at `uptime`, without waiting; `None` if no batch is due.
    pub(super) fn try_next_batch(&self, uptime: Duration) -> Option<Batch> {
        let mut queue = self.lock();
        queue.has_batch(uptime).then(|| queue.take_batch(uptime))
    }

    /// Lets runnable tasks add their events to the batch: yields the processor until the batch is full or several consecutive
    /// yields have brought no new event. An immediate sync would take the processor away from these tasks. If there are no such
    /// tasks, every yield returns at once, so this function does not delay the batch as a timer would.
    fn wait_for_senders(&self) -> MutexGuard<'_, QueueState> {
        let (mut queue, mut idle_yields) = (self.lock(), 0);
        for _ in 0..MAX_YIELDS {
            let before = queue.events.len();
            if before >= FULL_BATCH || idle_yields == MAX_IDLE_YIELDS {
                break;
            }
            drop(queue);
            std::thread::yield_now();
            queue = self.lock();
            idle_yields = if queue.events.len() == before { idle_yields + 1 } else { 0 };
        }
        queue
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().expect(POISON)
    }
}

impl QueueState {
    fn check(&self, len: u64, has_failed: bool) -> Result<(), AppendRejected> {
        if has_failed {
            Err(AppendRejected::Failed)
        } else if self.closing {
            Err(AppendRejected::Closing)
        } else if self.no_room_from.is_some_and(|from| len >= from) {
            Err(AppendRejected::Full)
        } else if self.fits(len) {
            Ok(())
        } else {
            Err(AppendRejected::Overloaded)
        }
    }

    /// Returns true if the writer must take a batch at `uptime`.
    fn has_batch(&self, uptime: Duration) -> bool {
        !self.events.is_empty() || !self.releases.is_empty() || self.closing || self.cursors.is_due(false, uptime)
    }

    /// Removes and returns everything that the writer must save at `uptime`.
    fn take_batch(&mut self, uptime: Duration) -> Batch {
        let is_last = self.closing && self.events.is_empty();
        let save_cursors = is_last || self.cursors.is_due(!self.events.is_empty(), uptime);
        if save_cursors {
            self.cursors.start_save(uptime);
        }
        self.bytes = 0;
        let releases = std::mem::take(&mut self.releases);
        // Under load, the next batch is about as large as this one.
        let next = Vec::with_capacity(self.events.len().min(FULL_BATCH));
        Batch { events: std::mem::replace(&mut self.events, next).into(), save_cursors, releases, is_last }
    }

    /// Returns true if the queue has room for `len` more bytes. An empty queue accepts an event of any size.
    fn fits(&self, len: u64) -> bool {
        self.bytes == 0 || self.bytes + len as usize <= MAX_QUEUED_BYTES
    }
}

/// Maximum total size of the queued events in bytes. If the total would exceed this limit, the queue rejects the new event as
/// `overloaded`. An empty queue accepts an event of any size.
pub const MAX_QUEUED_BYTES: usize = 256 << 20;
/// Maximum number of times that the writer yields the processor before it takes a batch.
const MAX_YIELDS: usize = 64;
/// Maximum number of consecutive yields without a new event. One yield is not enough: even if the writer's processor has no
/// other task, a task on another processor may add an event within a few microseconds.
const MAX_IDLE_YIELDS: usize = 4;
/// Number of waiting events at which the writer stops yielding and takes the batch. A larger batch would hardly reduce the
/// commit cost per event.
const FULL_BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_queue_accepts_events_beyond_its_limit() {
        let mut queue = QueueState::default();
        assert!(queue.fits(MAX_QUEUED_BYTES as u64 + 1), "an empty queue accepts an event above the limit");
        queue.bytes = 1;
        assert!(queue.fits(MAX_QUEUED_BYTES as u64 - 1));
        assert!(!queue.fits(MAX_QUEUED_BYTES as u64));
    }
}
