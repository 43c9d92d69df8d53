//! Queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::completion::Completion;
use super::errors::AppendRejected;
use super::frame::Draft;
use super::{MAX_QUEUED, POISON, Shared};
use crate::clock::UnixMillis;
use crate::event_key::EventKey;

/// An event on its way to the writer.
pub struct Pending {
    /// Its frame, but for sequence and checksum.
    pub draft: Draft,
    /// Its key.
    pub key: Option<EventKey>,
    /// Its arrival.
    pub received_at: UnixMillis,
    /// Its topic.
    pub lane: Arc<str>,
    /// Who waits for it.
    pub done: Completion,
}

impl Pending {
    pub fn len(&self) -> u64 {
        self.draft.padded_len() as u64
    }
}

/// What waits for the writer.
#[derive(Default)]
pub struct Queue {
    pub events: Vec<Pending>,
    pub bytes: usize,
    pub cursors_moved: Option<Instant>,
    pub closing: bool,
    /// An event of this many bytes found no room: nor will larger ones.
    pub full: Option<u64>,
}

impl Queue {
    /// Notes that a snapshot of the cursors is due.
    pub fn cursors_changed(&mut self, now: Instant) {
        self.cursors_moved.get_or_insert(now);
    }

    /// Nothing more is taken.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// True if so many bytes more may wait; alone, an event of any size may.
    fn takes(&self, len: u64) -> bool {
        self.bytes == 0 || self.bytes + len as usize <= MAX_QUEUED
    }

    /// There may be room again.
    pub fn has_room(&mut self) {
        self.full = None;
    }
}

impl Shared {
    /// Takes an event for the next commit, or says why not.
    pub fn enqueue(&self, pending: Pending) -> Result<(), AppendRejected> {
        let len = pending.len();
        if !self.catalog.reserve(&pending.lane, len, &self.options) {
            return Err(AppendRejected::TopicFull);
        }
        let lane = pending.lane.clone();
        let mut queue = self.queue.lock().expect(POISON);
        let refused = match () {
            () if self.failed.load(Ordering::Acquire) => Some(AppendRejected::Failed),
            () if queue.closing => Some(AppendRejected::Closing),
            () if queue.full.is_some_and(|full| len >= full) => Some(AppendRejected::Full),
            () if !queue.takes(len) => Some(AppendRejected::Overloaded),
            () => None,
        };
        if let Some(refused) = refused {
            drop(queue);
            self.catalog.settle([(&lane, len)].into_iter(), false);
            return Err(refused);
        }
        queue.bytes += len as usize;
        queue.events.push(pending);
        let first = queue.events.len() == 1;
        drop(queue);
        if first {
            self.queue_changed.notify_one();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_queue_takes_an_event_of_any_size_and_a_busy_one_only_up_to_its_limit() {
        let mut queue = Queue::default();
        assert!(queue.takes(MAX_QUEUED as u64 + 1), "it would be refused for ever");
        queue.bytes = 1;
        assert!(queue.takes(MAX_QUEUED as u64 - 1));
        assert!(!queue.takes(MAX_QUEUED as u64));
    }
}
