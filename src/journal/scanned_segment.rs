//! One segment of a scan: its header, its summary and its valid frames, and which of its bytes are damaged.

use std::io;
use std::ops::Range;

use super::disk::Disk;
use super::frame::{self, FrameHeader, FrameKind, ListedSegment};
use super::frame_scanner::{FrameScanner, ScanStep};
use super::journal_time::{CommitTimes, JournalMillis};
use super::keys::ListedKeyFile;
use super::scanned_cursors::ScannedCursors;
use super::scanned_frame::{ScannedFrame, UNKNOWN_TIMES};
use super::segment_file::{SEGMENT_HEADER_LEN, SegmentHeader};
use super::segment_name::SegmentName;
use super::segment_summary::SegmentSummary;
use super::unfinished_list::UnfinishedList;
use super::wall_offsets::WallOffsets;
use crate::clock::UnixMillis;

/// One segment of a scan.
pub(super) struct ScannedSegment {
    pub(super) name: SegmentName,
    /// Size of the file in bytes.
    pub(super) size: u64,
    /// Header of this segment; `None` if it is damaged.
    pub(super) header: Option<SegmentHeader>,
    /// Sequence at and above which a newer segment supersedes the events of this segment.
    pub(super) superseded_from: u64,
    /// True if no segment between this segment and the next listed segment has been deleted. In that case, this segment must
    /// contain every durable event between its first sequence and `superseded_from`.
    pub(super) is_followed: bool,
    /// Content of the summary file; `None` if the segment is not sealed.
    pub(super) summary: Option<SegmentSummary>,
    /// Frames of the segment; empty until the scan has read the file of the segment.
    pub(super) frames: SegmentFrames,
}

/// Frames of one segment.
#[derive(Default)]
pub(super) struct SegmentFrames {
    pub(super) events: Vec<ScannedFrame>,
    /// Highest durable watermark that a commit frame of the segment records.
    pub(super) watermark: u64,
    pub(super) cursors: ScannedCursors,
    /// Damaged ranges, each with the header of the next valid frame.
    pub(super) damage: Vec<(Range<u64>, FrameHeader)>,
    /// Sequence after the last event that an event frame contains or a commit frame announces.
    pub(super) announced_end: u64,
    /// Times of the last commit frame.
    pub(super) times: Option<CommitTimes>,
    /// Offsets of the wall clock at the commit frames.
    pub(super) wall_offsets: WallOffsets,
    /// List of the older segments at the start of the segment; `None` if it is damaged.
    pub(super) listed: Option<Vec<ListedSegment>>,
    /// Segments whose release the segment records.
    pub(super) released: Vec<SegmentName>,
    /// List of the key files at the start of the segment; `None` if it is damaged.
    pub(super) key_files: Option<Vec<ListedKeyFile>>,
    /// Last readable list of lost sequences.
    pub(super) lost: Option<Vec<Range<u64>>>,
    /// Events that the segment no longer contains, because no topic needed them: the sequence after the last of them, and the
    /// offset after the last frame that names them.
    omitted: Option<(u64, u64)>,
    /// Offset of the first page that could not be read.
    pub(super) first_unreadable: Option<u64>,
    /// Offset of the last commit frame.
    pub(super) last_commit: u64,
    /// True if a page that could not be read may contain durable events. Any other such page belongs to a torn commit.
    pub(super) is_unreadable: bool,
}

impl ScannedSegment {
    /// Returns the sequence after the last event of the segment that the scan knows.
    pub(super) fn end(&self) -> u64 {
        let read = self.frames.events.last().map_or(0, |frame| frame.header.seq + 1);
        let sealed = self.summary.as_ref().map_or(0, |summary| summary.next_seq);
        read.max(sealed).max(self.name.first_seq)
    }

    /// Returns the ids under which a key file may contain the keys of the segment: its own id, and those of the segments that it
    /// replaces.
    pub(super) fn key_ids(&self) -> impl Iterator<Item = u64> {
        self.header.iter().flat_map(|header| header.replaced.iter().copied()).chain([self.name.id])
    }

    /// Returns the ids of which a key file must have one, because only that file contains the keys of omitted events.
    pub(super) fn needed_key_ids(&self) -> &[u64] {
        self.header.as_ref().filter(|_| self.frames.omitted.is_some()).map_or(&[], |header| &header.replaced)
    }

    /// Returns the ids of key files that sealing replaces if the segment is not sealed. The key file of a replaced segment may
    /// contain keys of events that the segment no longer contains.
    pub(super) fn rebuilt_key_ids(&self) -> impl Iterator<Item = u64> {
        let is_whole = self.frames.omitted.is_none();
        self.key_ids().filter(move |id| is_whole || *id == self.name.id)
    }

    /// Returns the corrupted ranges of the segment: the damage below `watermark`, including a damaged segment header.
    pub(super) fn corruption(&self, watermark: u64) -> Vec<Range<u64>> {
        let below = watermark.min(self.expected_end());
        // The writer starts a commit only after it has synced all earlier bytes, so damage before a commit frame is corruption.
        // Damage before an event frame or a cursors frame may be part of a torn commit.
        let is_corruption = |next: &FrameHeader| next.kind == FrameKind::Commit || next.seq < below;
        let damage = self.frames.damage.iter().filter(|(_, next)| is_corruption(next)).map(|(range, _)| range.clone());
        let mut corruption: Vec<_> = damage.collect();
        let last = self.last_below(below);
        let end = last.map_or(SEGMENT_HEADER_LEN, |frame| frame.offset + frame.padded_len());
        if self.lacks_events(below) && corruption.last().is_none_or(|range| range.end <= end) {
            corruption.push(end.min(self.size)..self.size);
        }
        if self.header.is_none() && last.is_some() {
            corruption.insert(0, 0..SEGMENT_HEADER_LEN);
        }
        corruption
    }

    /// Returns the summary of the segment's events below `watermark`.
    pub(super) fn summary_below(&self, watermark: u64) -> SegmentSummary {
        let below = watermark.min(self.expected_end());
        let mut summary = SegmentSummary::empty(self.name.first_seq);
        for frame in self.frames.events.iter().filter(|frame| frame.header.seq < below) {
            if let Some(facts) = &frame.facts {
                summary.add(&facts.topic, frame.header.seq, frame.padded_len(), frame.times.journal);
            }
            summary.end = frame.offset + frame.padded_len();
        }
        summary.next_seq = summary.next_seq.max(self.frames.omitted_seq());
        summary.end = summary.end.max(self.frames.omitted.map_or(0, |(_, end)| end));
        if self.frames.is_unreadable || summary.next_seq < below {
            // The end of the segment is corrupted. Set `end` to the size of the file, so that sealing does not truncate the
            // corrupted bytes as unused space. The age of the lost events is unknown, so set `newest` to the maximum. The
            // journal then deletes the segment only to free space.
            summary.end = self.size;
            summary.newest = JournalMillis(u64::MAX);
            summary.next_seq = summary.next_seq.max(below);
        }
        summary
    }

    /// Returns true if a page that could not be read may contain events below `watermark`. The writer starts a commit only after it
    /// has synced all earlier bytes, so a page before a commit frame is durable.
    pub(super) fn needs_unreadable_page(&self, watermark: u64) -> bool {
        let below = watermark.min(self.expected_end());
        self.frames.first_unreadable.is_some_and(|page| page < self.frames.last_commit || self.lacks_events(below))
    }

    /// Returns the last readable event below `below`.
    fn last_below(&self, below: u64) -> Option<&ScannedFrame> {
        self.frames.events.iter().rev().find(|frame| frame.header.seq < below)
    }

    /// Returns true if the segment contains neither an event nor an omission up to `below`.
    fn lacks_events(&self, below: u64) -> bool {
        let next_seq = self.last_below(below).map_or(self.name.first_seq, |frame| frame.header.seq + 1);
        next_seq.max(self.frames.omitted_seq()) < below
    }

    /// Returns the times of the last commit whose times are known. A summary records only the time of the journal's clock.
    pub(super) fn last_commit(&self) -> Option<CommitTimes> {
        let sealed = self.summary.as_ref().map(|summary| summary.newest).filter(|newest| newest.0 < u64::MAX);
        self.frames.times.or(sealed.map(|journal| CommitTimes { journal, wall: UnixMillis(u64::MAX) }))
    }

    /// Returns the sequence of the last event that the segment must contain, plus one.
    fn expected_end(&self) -> u64 {
        match self.is_followed || self.summary.is_some() {
            true => self.superseded_from,
            false => self.superseded_from.min(self.frames.announced_end),
        }
    }
}

impl SegmentFrames {
    pub(super) fn read(disk: &dyn Disk, segment: &ScannedSegment) -> io::Result<SegmentFrames> {
        let mut frames = SegmentFrames::default();
        let mut next_seq = segment.name.first_seq;
        let file = disk.open(&segment.name.segment_file())?;
        let scanner = FrameScanner::new(file, segment.name.id, SEGMENT_HEADER_LEN, segment.size);
        let mut scanner = scanner.skip_unreadable();
        let (mut damaged, mut list) = (None, UnfinishedList::default());
        loop {
            let is_current = |header: &FrameHeader| match header.kind {
                FrameKind::Event => header.seq < segment.superseded_from,
                _ => header.seq <= segment.superseded_from,
            };
            match scanner.step(|header| header.seq >= next_seq && is_current(header))? {
                ScanStep::End(_) => {
                    frames.complete_times();
                    frames.first_unreadable = scanner.first_unreadable();
                    return Ok(frames);
                }
                ScanStep::Damage(range) => damaged = Some(range),
                ScanStep::Frame(header) => {
                    frames.damage.extend(damaged.take().map(|range| (range, header)));
                    frames.listed = list.add(&header, scanner.frame_offset(), scanner.frame()).or(frames.listed.take());
                    frames.add(header, scanner.frame_offset(), scanner.frame());
                    if header.kind == FrameKind::Event {
                        next_seq = header.seq + 1;
                    }
                }
            }
        }
    }

    fn add(&mut self, header: FrameHeader, offset: u64, bytes: &[u8]) {
        match header.kind {
            FrameKind::Event => {
                self.announced_end = self.announced_end.max(header.seq + 1);
                let times = self.times.unwrap_or(UNKNOWN_TIMES);
                self.events.push(ScannedFrame { offset, header, times, facts: frame::decode_facts(bytes) });
            }
            FrameKind::Commit => {
                self.last_commit = offset;
                if let Some(commit) = frame::decode_commit(bytes) {
                    // Recovery copies events with unknown times if it has found no readable commit.
                    if commit.times != UNKNOWN_TIMES {
                        self.times = Some(commit.times);
                        self.wall_offsets.observe(commit.times);
                    }
                    self.watermark = self.watermark.max(commit.watermark);
                    self.announced_end = self.announced_end.max(commit.watermark + u64::from(commit.count));
                }
            }
            FrameKind::Cursors => frame::decode_cursors(bytes).into_iter().for_each(|frame| self.cursors.add_newer(frame)),
            FrameKind::Release => self.released.extend(frame::decode_release(bytes).unwrap_or_default()),
            FrameKind::KeyFiles => self.key_files = frame::decode_key_files(bytes).or(self.key_files.take()),
            FrameKind::Lost => self.lost = frame::decode_ranges(bytes).or(self.lost.take()),
            FrameKind::Omitted => {
                let last = frame::decode_ranges(bytes).and_then(|ranges| ranges.last().map(|range| range.end));
                let end = offset + frame::padded(header.len) as u64;
                self.omitted = Some((last.unwrap_or(0).max(self.omitted_seq()), end));
            }
            // `UnfinishedList` reads the list of the older segments.
            FrameKind::Segments | FrameKind::Later => {}
        }
    }

    /// Returns the sequence after the last omitted event; 0 if there is none.
    fn omitted_seq(&self) -> u64 {
        self.omitted.map_or(0, |(next_seq, _)| next_seq)
    }

    /// Gives the events before the first readable commit frame the times of this commit.
    fn complete_times(&mut self) {
        let first = self.events.iter().map(|frame| frame.times).find(|times| *times != UNKNOWN_TIMES).or(self.times);
        for frame in self.events.iter_mut().take_while(|frame| frame.times == UNKNOWN_TIMES) {
            frame.times = first.unwrap_or(UNKNOWN_TIMES);
        }
    }
}
