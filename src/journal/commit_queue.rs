//! The queue between the senders and the writer, and the decision when the writer takes its next batch. There is no timer:
//! under load the batches grow by themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::POISON;
use super::completion::Completion;
use super::errors::AppendRejected;
use super::frame::FrameDraft;
use super::writer_health::WriterHealth;
use crate::clock::UnixMillis;
use crate::event_key::EventKey;

/// An event that waits for the writer.
pub(super) struct PendingAppend {
    /// Complete up to sequence and checksum.
    pub(super) draft: FrameDraft,
    pub(super) key: Option<EventKey>,
    pub(super) received_at: UnixMillis,
    pub(super) topic: Arc<str>,
    pub(super) completion: Completion,
}

impl PendingAppend {
    /// Returns the bytes that its frame will occupy.
    pub(super) fn len(&self) -> u64 {
        self.draft.padded_len() as u64
    }
}

/// Work for the writer.
pub(super) struct Batch {
    pub(super) events: VecDeque<PendingAppend>,
    /// True if the batch must contain a snapshot of the cursors.
    pub(super) save_cursors: bool,
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
    /// Time of the first cursor move that is not saved yet.
    cursors_moved: Option<Instant>,
    closing: bool,
    /// An event of this many bytes found no room; neither will larger ones.
    no_room_from: Option<u64>,
}

impl CommitQueue {
    /// Adds an event to the next batch, or rejects it.
    pub(super) fn push(&self, append: PendingAppend, health: &WriterHealth) -> Result<(), AppendRejected> {
        let mut queue = self.lock();
        // Under the lock: an event that is added after the writer has failed all others would never be completed.
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

    /// Records that cursors have moved, and wakes the writer.
    pub(super) fn save_cursors(&self) {
        self.retry_cursors();
        self.changed.notify_one();
    }

    /// Records that cursors still have to be saved.
    pub(super) fn retry_cursors(&self) {
        self.lock().cursors_moved.get_or_insert(Instant::now());
    }

    /// Rejects all later events, and wakes the writer for its last batch.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Records that an event of `len` bytes found no room: events of at least this size are rejected from now on.
    pub(super) fn set_no_room(&self, len: u64) {
        let full = &mut self.lock().no_room_from;
        *full = Some(full.unwrap_or(len).min(len));
    }

    /// Accepts events of any size again.
    pub(super) fn set_room(&self) {
        self.lock().no_room_from = None;
    }

    /// Removes all events.
    pub(super) fn drain(&self) -> Vec<PendingAppend> {
        std::mem::take(&mut self.lock().events)
    }

    /// Waits for the writer's next batch.
    pub(super) fn next_batch(&self) -> Batch {
        let mut queue = self.lock();
        loop {
            let due = queue.cursors_moved.map(|moved| moved + CURSOR_DELAY);
            // A commit of events carries the cursors at no extra cost.
            let save_cursors = due.is_some_and(|due| !queue.events.is_empty() || Instant::now() >= due);
            if !queue.events.is_empty() || queue.closing || save_cursors {
                drop(queue);
                queue = self.wait_for_senders();
                let save_cursors = save_cursors || (queue.closing && queue.events.is_empty());
                if save_cursors {
                    queue.cursors_moved = None;
                }
                queue.bytes = 0;
                let is_last = queue.closing && queue.events.is_empty();
                return Batch { events: std::mem::take(&mut queue.events).into(), save_cursors, is_last };
            }
            queue = match due {
                None => self.changed.wait(queue).expect(POISON),
                Some(due) => {
                    let rest = due.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(queue, rest).expect(POISON).0
                }
            };
        }
    }

    /// Yields the processor to runnable sender tasks before a sync, which would only take it away from them, until enough
    /// events have arrived or several yields in a row have brought none. Without such tasks the yields return at once, so this
    /// is no timer.
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

    /// Returns true if `len` more bytes may wait. An empty queue accepts an event of any size.
    fn fits(&self, len: u64) -> bool {
        self.bytes == 0 || self.bytes + len as usize <= MAX_QUEUED_BYTES
    }
}

/// Bytes that may wait for the writer; more are rejected as `overloaded`.
pub const MAX_QUEUED_BYTES: usize = 256 << 20;
/// Time that a moved cursor may wait for a commit of events to carry it.
pub const CURSOR_DELAY: Duration = Duration::from_millis(500);
/// Upper limit of yields before a batch.
const MAX_YIELDS: usize = 64;
/// Upper limit of yields in a row without a new event. One is too few: this processor may have no other task to run while
/// another processor brings the next event within a few microseconds.
const MAX_IDLE_YIELDS: usize = 4;
/// Number of events that are worth a commit: beyond it, the fixed cost of a commit hardly shows in each.
const FULL_BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_queue_accepts_events_beyond_its_limit() {
        let mut queue = QueueState::default();
        assert!(queue.fits(MAX_QUEUED_BYTES as u64 + 1), "it could never be accepted otherwise");
        queue.bytes = 1;
        assert!(queue.fits(MAX_QUEUED_BYTES as u64 - 1));
        assert!(!queue.fits(MAX_QUEUED_BYTES as u64));
    }
}
