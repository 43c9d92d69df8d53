//! Encodes a new segment from frames of other segments. The new segment is dense: it has no padding between its commits.
//! Recovery copies the unconfirmed events in this way, and the background thread rewrites sealed segments. This module does not
//! write the file.

use std::mem;

use super::frame::{self, FrameDraft, FrameFacts, FrameHeader};
use super::journal_time::JournalMillis;
use super::segment_file::{JournalIdentity, encode_header};
use super::segment_name::SegmentName;
use super::segment_summary::SegmentSummary;
use crate::event::LogId;

/// A segment that is being encoded.
pub(super) struct SegmentCopy {
    name: SegmentName,
    /// Encoded bytes that the caller has not taken yet.
    bytes: Vec<u8>,
    /// Offset of these bytes in the file.
    offset: u64,
    summary: SegmentSummary,
}

impl SegmentCopy {
    /// Starts the segment `name` with its header. `replaced` contains the ids of the segments that it replaces, oldest first.
    pub(super) fn new(name: SegmentName, log: LogId, identity: JournalIdentity, replaced: &[u64]) -> SegmentCopy {
        let bytes = encode_header(name, log, identity, replaced);
        SegmentCopy { name, bytes, offset: 0, summary: SegmentSummary::empty(name.first_seq) }
    }

    /// Appends a new frame.
    pub(super) fn add_draft(&mut self, draft: &FrameDraft, log: LogId, seq: u64) {
        draft.write_into(&mut self.bytes, log, seq, self.name.id);
    }

    /// Appends a copy of a valid frame that contains no event.
    pub(super) fn add_control(&mut self, frame: &[u8], header: &FrameHeader) {
        frame::copy_into(frame, &mut self.bytes, header, self.name.id);
    }

    /// Appends a copy of a valid event frame. `facts` are its decoded fields, or `None` if a later version wrote the frame.
    /// `first_seen` is the time of its commit.
    pub(super) fn add_event(
        &mut self,
        frame: &[u8],
        header: &FrameHeader,
        facts: Option<&FrameFacts>,
        first_seen: JournalMillis,
    ) {
        frame::copy_into(frame, &mut self.bytes, header, self.name.id);
        self.summary.next_seq = header.seq + 1;
        if let Some(facts) = facts {
            self.summary.add(&facts.topic, header.seq, frame::padded(frame.len()) as u64, first_seen);
        }
    }

    /// Returns the number of bytes that [`SegmentCopy::take_bytes`] would return.
    pub(super) fn pending(&self) -> usize {
        self.bytes.len()
    }

    /// Removes and returns the bytes that the caller has not taken yet, with their offset in the file.
    pub(super) fn take_bytes(&mut self) -> (u64, Vec<u8>) {
        let (offset, bytes) = (self.offset, mem::take(&mut self.bytes));
        self.offset += bytes.len() as u64;
        (offset, bytes)
    }

    /// Returns the summary of the segment so far.
    pub(super) fn summary(&self) -> SegmentSummary {
        SegmentSummary { end: self.offset + self.bytes.len() as u64, ..self.summary.clone() }
    }
}
