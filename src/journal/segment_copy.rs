//! Encodes a new segment from frames of other segments. The new segment is dense: it has no padding between its commits.
//! Recovery copies the unconfirmed events in this way, and the background thread rewrites sealed segments. This module does not
//! write the file.

use std::io;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use super::disk::DiskFile;
use super::frame::{self, CommitFrame, FrameDraft, FrameFacts, FrameHeader, FrameKind};
use super::frame_scanner::{FrameScanner, ScanStep};
use super::journal_time::JournalMillis;
use super::keys::ranges;
use super::segment_file::{JournalIdentity, SEGMENT_HEADER_LEN, encode_header};
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

    /// Appends a copy of a valid event frame. `facts` are its decoded fields, or `None` if a later version wrote the frame.
    /// `first_seen` is the time of its commit.
    pub(super) fn add_event(
        &mut self,
        frame: &[u8],
        header: &FrameHeader,
        facts: Option<&FrameFacts>,
        first_seen: JournalMillis,
    ) {
        self.add_frame(frame, header);
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

    fn add_frame(&mut self, frame: &[u8], header: &FrameHeader) {
        frame::copy_into(frame, &mut self.bytes, header, self.name.id);
    }
}

/// Copies the frames of a sealed segment, except for events that no topic needs. Combines commits that follow each other within
/// [`MAX_COMMIT_MS`], so that many small commits take little space. The times of a combined commit are those of its first part.
pub(super) struct FrameCopier {
    scanner: FrameScanner,
    copy: SegmentCopy,
    /// Summary of the sealed segment.
    before: SegmentSummary,
    /// The commit that is being combined; `None` before the first commit.
    commit: Option<CombinedCommit>,
    /// Sequences of omitted events that the copy does not name yet, sorted.
    omitted: Vec<Range<u64>>,
    /// Number of events that were copied or omitted.
    events: u64,
    /// Sequence after the last of these events.
    next_seq: u64,
    /// True if the copy omits the lists at the start of the segment and all cursors.
    omits_lists: bool,
    /// True if the sealed segment is damaged.
    is_damaged: bool,
}

/// Frames of one or more commits.
struct CombinedCommit {
    header: FrameHeader,
    first: CommitFrame,
    /// Frames of the commits, one after the other, without padding.
    bytes: Vec<u8>,
    frames: Vec<FrameHeader>,
}

impl FrameCopier {
    /// Creates a copier for the file of the sealed segment with the id `segment` and the summary `before`.
    pub(super) fn new(file: Arc<dyn DiskFile>, segment: u64, before: &SegmentSummary, copy: SegmentCopy) -> FrameCopier {
        let scanner = FrameScanner::new(file, segment, SEGMENT_HEADER_LEN, before.end);
        let (commit, omitted, before) = (None, Vec::new(), before.clone());
        FrameCopier { scanner, copy, before, commit, omitted, events: 0, next_seq: 0, omits_lists: false, is_damaged: false }
    }

    /// Makes the copy omit the lists at the start of the segment and all cursors. If the newest list is damaged, a startup uses the
    /// list of an older segment, so the newest segments need their lists.
    pub(super) fn omit_lists(&mut self) {
        self.omits_lists = true;
    }

    /// Copies one frame. Omits an event if `is_needed` returns false for its topic and sequence. Returns false at the end of the
    /// segment, or if the segment is damaged.
    pub(super) fn step(&mut self, is_needed: impl Fn(&str, u64) -> bool) -> io::Result<bool> {
        let next_seq = self.before.next_seq;
        let header = match self.scanner.step(|header| header.kind != FrameKind::Event || header.seq < next_seq)? {
            ScanStep::Frame(header) => header,
            ScanStep::Damage(_) => return Ok(self.end(true)),
            ScanStep::End(at) => return Ok(self.end(at != self.before.end)),
        };
        let bytes = self.scanner.frame();
        match header.kind {
            FrameKind::Commit => match frame::decode_commit(bytes) {
                Some(commit) => self.start_commit(header, commit),
                None => return Ok(self.end(true)),
            },
            FrameKind::Omitted => {
                let earlier = frame::decode_ranges(bytes).unwrap_or_default();
                let valid = earlier.into_iter().filter(|range| !range.is_empty());
                valid.for_each(|range| ranges::insert(&mut self.omitted, range));
            }
            // A misdirected write has moved a commit.
            FrameKind::Event if header.seq < self.next_seq => return Ok(self.end(true)),
            FrameKind::Event => {
                let facts = frame::decode_facts(bytes);
                self.next_seq = header.seq + 1;
                self.events += u64::from(facts.is_some());
                match facts.is_none_or(|facts| is_needed(&facts.topic, header.seq)) {
                    true => self.add(header),
                    false => ranges::insert(&mut self.omitted, header.seq..header.seq + 1),
                }
            }
            FrameKind::Segments | FrameKind::KeyFiles | FrameKind::Lost | FrameKind::Cursors if self.omits_lists => {}
            _ => self.add(header),
        }
        Ok(!self.is_damaged)
    }

    /// Returns the copy so far.
    pub(super) fn copy(&mut self) -> &mut SegmentCopy {
        &mut self.copy
    }

    /// Completes the copy. Returns `None` if the sealed segment is damaged.
    pub(super) fn finish(mut self) -> Option<SegmentCopy> {
        self.end_commit();
        if !self.omitted.is_empty() {
            let Some(CombinedCommit { header, first, .. }) = &mut self.commit else { return None };
            (header.seq, first.watermark) = (self.before.next_seq, self.before.next_seq);
            self.write_commit();
        }
        (!self.is_damaged && self.events == self.before.events()).then_some(self.copy)
    }

    fn end(&mut self, is_damaged: bool) -> bool {
        self.is_damaged |= is_damaged;
        false
    }

    fn start_commit(&mut self, header: FrameHeader, commit: CommitFrame) {
        let belongs = |combined: &CombinedCommit| {
            let age = commit.times.journal.0.saturating_sub(combined.first.times.journal.0);
            age <= MAX_COMMIT_MS && combined.bytes.len() < MAX_COMMIT_BYTES
        };
        if !self.commit.as_ref().is_some_and(|combined| !combined.frames.is_empty() && belongs(combined)) {
            self.end_commit();
            self.commit = Some(CombinedCommit { header, first: commit, bytes: Vec::new(), frames: Vec::new() });
        }
    }

    fn add(&mut self, header: FrameHeader) {
        match &mut self.commit {
            Some(commit) => {
                commit.bytes.extend_from_slice(self.scanner.frame());
                commit.frames.push(header);
            }
            // A segment starts with a commit frame.
            None => self.is_damaged = true,
        }
    }

    /// Appends the combined commit to the copy, unless it has no frames.
    fn end_commit(&mut self) {
        if self.commit.as_ref().is_some_and(|commit| !commit.frames.is_empty()) {
            self.write_commit();
        }
    }

    fn write_commit(&mut self) {
        let Some(CombinedCommit { header, first, bytes, frames }) = &mut self.commit else { return };
        let omitted = mem::take(&mut self.omitted);
        let omitted = (!omitted.is_empty()).then(|| FrameDraft::ranges(FrameKind::Omitted, &omitted));
        let count = frames.iter().filter(|frame| frame.kind == FrameKind::Event).count();
        let others: usize = frames.iter().map(|frame| frame::padded(frame.len)).sum();
        let others = others + omitted.as_ref().map_or(0, FrameDraft::padded_len);
        let commit = FrameDraft::commit(first.watermark, count as u32, others as u64, first.times);
        for draft in [Some(commit), omitted].into_iter().flatten() {
            self.copy.add_draft(&draft, header.log, header.seq);
        }
        let mut at = 0;
        for frame in mem::take(frames) {
            let bytes = &bytes[at..at + frame.len];
            match frame.kind {
                FrameKind::Event => self.copy.add_event(bytes, &frame, frame::decode_facts(bytes).as_ref(), first.times.journal),
                _ => self.copy.add_frame(bytes, &frame),
            }
            at += frame.len;
        }
        bytes.clear();
    }
}

/// Maximum time between the first and the last part of a combined commit, in milliseconds.
const MAX_COMMIT_MS: u64 = 1_000;
/// Number of bytes from which a combined commit gets no further part.
const MAX_COMMIT_BYTES: usize = 256 << 10;
