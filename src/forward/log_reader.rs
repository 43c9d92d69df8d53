//! Reads the journal in order for several topic queues. Holds back an event while the event's queue is full, and pauses after a
//! failed read. Never skips an event of these queues.

use std::time::{Duration, Instant};

use tracing::error;

use super::backoff::Backoff;
use crate::journal::{Journal, ReadError, ReadStep, Reader, StoredEvent, Topics};

/// Journal reader that several topic queues share.
pub(super) struct LogReader {
    journal: Journal,
    reader: Reader,
    /// Topics whose events the reader returns; `None` for the events of all topics.
    topics: Option<Topics>,
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
        let backoff = Backoff::new(REREAD_AFTER.0, REREAD_AFTER.1);
        LogReader { journal, reader, topics: None, held: None, retry_at: None, backoff }
    }

    /// Restricts the reader to these topics from now on.
    pub(super) fn set_topics(&mut self, topics: Topics) {
        self.reader.set_topics(topics.clone());
        self.topics = Some(topics);
    }

    /// Returns the held event if there is one, else reads one frame of the journal. Reads nothing during the pause after a failed
    /// read.
    pub(super) fn step(&mut self, now: Instant) -> Result<ReadStep, ReadError> {
        if let Some(held) = self.held.take() {
            return Ok(ReadStep::Event(held));
        }
        if self.retry_at.is_some_and(|at| now < at) {
            return Ok(ReadStep::End);
        }
        let read = self.reader.step();
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
                if let Some(topics) = &self.topics {
                    self.reader.set_topics(topics.clone());
                }
                self.retry_at = Some(now + pause);
            }
        }
        read
    }

    /// Holds back an event whose queue is full. The next call of [`LogReader::step`] returns this event again.
    pub(super) fn hold(&mut self, stored: StoredEvent) {
        self.held = Some(stored);
    }

    /// Returns the held event; `None` if no event is held back.
    pub(super) fn held(&self) -> Option<&StoredEvent> {
        self.held.as_ref()
    }

    /// Returns the sequence at which [`LogReader::step`] continues.
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
