//! The queue between the request threads and the thread that writes rejected deliveries to disk. A push never waits: at the limit,
//! the queue drops the new entry.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::rejected_delivery::RejectedDelivery;
use crate::limits::AdminLimits;

/// Bounded queue of rejected deliveries, with the limits that apply to them.
#[derive(Default)]
pub struct RejectionQueue {
    state: Mutex<RejectionQueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct RejectionQueueState {
    limits: AdminLimits,
    waiting: VecDeque<RejectedDelivery>,
    bytes: usize,
    /// True if the writer has not yet seen the current limits.
    has_new_limits: bool,
    is_closed: bool,
    /// Number of all entries that the queue has accepted.
    pushed: u64,
    /// Number of all entries with which the writer has finished.
    finished: u64,
}

/// Work for the thread that writes rejected deliveries.
#[derive(Debug)]
pub enum RejectionWork {
    /// A rejected delivery to write.
    Store(RejectedDelivery),
    /// The limits may have changed, or files may have expired.
    Tidy,
}

impl RejectionQueue {
    /// Returns the current limits.
    pub fn limits(&self) -> AdminLimits {
        self.lock().limits
    }

    /// Replaces the limits. If they store no rejections, drops the waiting entries.
    pub(super) fn set_limits(&self, limits: AdminLimits) {
        let mut state = self.lock();
        state.has_new_limits = state.has_new_limits || state.limits != limits;
        state.limits = limits;
        if limits.keep_rejected == 0 {
            state.finished += state.waiting.len() as u64;
            state.bytes = 0;
            state.waiting.clear();
        }
        self.changed.notify_all();
    }

    /// Adds an entry, and returns true. Returns false if the queue is full.
    pub(super) fn push(&self, rejected: RejectedDelivery) -> bool {
        let mut state = self.lock();
        let bytes = state.bytes + rejected.request.len();
        if state.is_closed || state.waiting.len() >= MAX_QUEUED || bytes > MAX_QUEUED_REQUEST_BYTES {
            return false;
        }
        state.bytes = bytes;
        state.pushed += 1;
        state.waiting.push_back(rejected);
        self.changed.notify_all();
        true
    }

    /// Waits for work of the writer, and returns it after `interval` at the latest. Returns `None` once the queue is closed and
    /// empty. The writer must call [`RejectionQueue::finish`] after each entry.
    pub fn next(&self, interval: Duration) -> Option<RejectionWork> {
        let end = Instant::now() + interval;
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.has_new_limits) {
                return Some(RejectionWork::Tidy);
            }
            if let Some(rejected) = state.waiting.pop_front() {
                state.bytes -= rejected.request.len();
                return Some(RejectionWork::Store(rejected));
            }
            let left = end.saturating_duration_since(Instant::now());
            match (state.is_closed, left.is_zero()) {
                (true, _) => return None,
                (false, true) => return Some(RejectionWork::Tidy),
                (false, false) => state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            }
        }
    }

    /// Notes that the writer has finished with an entry.
    pub fn finish(&self) {
        self.lock().finished += 1;
        self.changed.notify_all();
    }

    /// Waits until the writer has finished with all entries that were pushed before this call, but at most for `most`.
    pub fn flush(&self, most: Duration) {
        let end = Instant::now() + most;
        let mut state = self.lock();
        let target = state.pushed;
        while state.finished < target {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Closes the queue: it accepts no further entries, and [`RejectionQueue::next`] returns `None` after the last one.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, RejectionQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maximum number of rejected deliveries that wait for the writer.
pub const MAX_QUEUED: usize = 256;
/// Maximum size of the requests that wait for the writer, in bytes.
pub const MAX_QUEUED_REQUEST_BYTES: usize = 8 << 20;
