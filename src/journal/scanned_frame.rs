//! Event frame that a scan of the journal's directory finds.

use super::frame::{self, FrameFacts, FrameHeader};
use super::journal_time::{CommitTimes, JournalMillis};
use super::keys::{KeyEntry, SeenKey};
use crate::clock::UnixMillis;

/// A valid event frame.
pub(super) struct ScannedFrame {
    pub(super) offset: u64,
    pub(super) header: FrameHeader,
    /// Times of the commit that contains the frame. If its commit frame is damaged, the times of another commit.
    pub(super) times: CommitTimes,
    /// Decoded fields; `None` if a later version wrote the frame.
    pub(super) facts: Option<FrameFacts>,
}

impl ScannedFrame {
    /// Returns the event's key, with the arrival time and sequence of the event; `None` if the event has no key.
    pub(super) fn key(&self) -> Option<KeyEntry> {
        let facts = self.facts.as_ref()?;
        Some((facts.key?, SeenKey { first_seen: self.times.journal, seq: self.header.seq, fingerprint: facts.fingerprint }))
    }

    /// Returns true if the next event belongs to the same delivery.
    pub(super) fn continues(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.continues)
    }

    /// Returns the number of bytes that the frame occupies, including padding.
    pub(super) fn padded_len(&self) -> u64 {
        frame::padded(self.header.len) as u64
    }
}

/// Times of an event if no commit frame of its segment is readable. The scan replaces them with the times of the journal's last
/// commit, so that neither the event nor its key expires early.
pub(super) const UNKNOWN_TIMES: CommitTimes = CommitTimes { journal: JournalMillis(u64::MAX), wall: UnixMillis(u64::MAX) };
