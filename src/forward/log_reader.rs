//! Reads the journal near the log end for all topic queues. Holds back an event while the event's queue is full, and
//! pauses after a failed read. Never skips an event.

use std::time::{Duration, Instant};

use tracing::error;

use super::backoff::Backoff;
use crate::journal::{Journal, ReadError, Reader, StoredEvent};

/// Journal reader that all topic queues share near the log end.
pub(super) struct LogReader {
    journal: Journal,
    reader: Reader,
    /// Event that the reader holds back because the event's queue is full.
    held: Option<StoredEvent>,
    /// Time of the next read attempt after a failed read; `None` if the last read succeeded.
    retry_at: Option<Instant>,
    backoff: Backoff,
}

impl LogReader {
    /// Creates a reader for `journal` with the start sequence `from`.
    pub(super) fn new(journal: Journal, from: u64) -> LogReader {
        let reader = journal.reader(from);
        LogReader { journal, reader, held: None, retry_at: None, backoff: Backoff::new(REREAD_AFTER.0, REREAD_AFTER.1) }
    }

    /// Returns the held event if there is one, else the next durable event. Returns `None` during the pause after a
    /// failed read, or if the journal has no further durable event.
    pub(super) fn next(&mut self, now: Instant) -> Result<Option<StoredEvent>, ReadError> {
        if self.held.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return Ok(self.held.take());
        }
        let read = self.reader.next();
        match &read {
            Ok(_) => {
                if self.retry_at.take().is_some() {
                    self.backoff.reset();
                }
            }
            Err(error) => {
                let (pause, at) = (self.backoff.next_pause(), self.reader.next_seq());
                error!(
                    %error,
                    at,
                    retry_in = ?pause,
                    "cannot read the journal at this position; hookhold retries and skips no event; check the disk with `dmesg`"
                );
                self.reader = self.journal.reader(at);
                self.retry_at = Some(now + pause);
            }
        }
        read
    }

    /// Holds back an event whose queue is full. The next call of [`LogReader::next`] returns this event again.
    pub(super) fn hold(&mut self, stored: StoredEvent) {
        self.held = Some(stored);
    }

    /// Returns the held event; `None` if no event is held back.
    pub(super) fn held(&self) -> Option<&StoredEvent> {
        self.held.as_ref()
    }

    /// Returns the sequence at which [`LogReader::next`] continues.
    pub(super) fn position(&self) -> u64 {
        self.held.as_ref().map_or_else(|| self.reader.next_seq(), |stored| stored.position.seq)
    }

    /// Returns the time of the next read attempt after a failed read; `None` if the last read succeeded.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Returns true if the last read of the journal failed.
    pub(super) fn is_failing(&self) -> bool {
        self.retry_at.is_some()
    }
}

/// Shortest and longest pause after a failed read of the journal, without jitter.
const REREAD_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
