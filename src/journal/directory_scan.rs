//! Finds out what a journal's directory contains, without changing anything.
//!
//! The durable watermark is the highest sequence of which some segment's name, commit or summary file proves that everything
//! below it was on disk. Damage below it is corruption. Readable events above it are unconfirmed: they may be in the page cache
//! only.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::frame::{self, FrameFacts, FrameHeader, FrameKind};
use super::frame_scanner::{FrameScanner, ScanStep};
use super::key_file::{KeyFile, SeenKey};
use super::segment_file::{self, SEGMENT_HEADER_LEN, SegmentName};
use super::segment_summary::SegmentSummary;
use crate::clock::UnixMillis;
use crate::event_key::EventKey;

/// Content of a journal's directory.
pub(super) struct DirectoryScan {
    /// Oldest first.
    pub(super) segments: Vec<ScannedSegment>,
    /// Segments to which nothing was ever written.
    pub(super) unused: Vec<SegmentName>,
    pub(super) durable_watermark: u64,
    /// Unconfirmed events, without a gap: index of the segment, and the frame.
    pub(super) unconfirmed: Vec<(usize, ScannedFrame)>,
    /// The newest snapshot of the cursors. `None` if all are lost: every segment starts with one.
    pub(super) cursors: Option<Vec<(Arc<str>, u64)>>,
}

/// One segment of a [`DirectoryScan`].
pub(super) struct ScannedSegment {
    pub(super) name: SegmentName,
    /// Open for reading.
    pub(super) file: Arc<dyn DiskFile>,
    /// Size of the file in bytes.
    pub(super) size: u64,
    /// True if the file starts with its header.
    pub(super) has_header: bool,
    /// From this sequence on, newer segments supersede it.
    pub(super) superseded_from: u64,
    /// True if the segment after it was the next to be created, so its events reach up to `superseded_from`. False if
    /// segments in between have been deleted.
    pub(super) is_followed: bool,
    /// Its summary file, if it is sealed.
    pub(super) summary: Option<SegmentSummary>,
    /// Its frames, as far as they have been read.
    pub(super) frames: SegmentFrames,
}

/// Frames of one segment.
#[derive(Default)]
pub(super) struct SegmentFrames {
    pub(super) events: Vec<ScannedFrame>,
    /// The highest durable watermark that a commit records.
    watermark: u64,
    /// The last snapshot of the cursors.
    cursors: Option<Vec<(Arc<str>, u64)>>,
    /// Damaged bytes, each with the next valid frame.
    damage: Vec<(Range<u64>, FrameHeader)>,
    /// Sequence after the last event that the commits announce.
    announced_end: u64,
}

/// A valid event frame.
pub(super) struct ScannedFrame {
    pub(super) offset: u64,
    pub(super) header: FrameHeader,
    /// `None` if a later version wrote the frame.
    pub(super) facts: Option<FrameFacts>,
}

impl DirectoryScan {
    /// Reads the headers of all segments, the frames of unsealed ones, and those of the newest ones until the cursors are found.
    pub(super) fn read(disk: &dyn Disk) -> io::Result<DirectoryScan> {
        let (mut segments, unused) = open_segments(disk)?;
        find_superseded(&mut segments);
        let mut cursors = None;
        for segment in segments.iter_mut().rev() {
            if segment.summary.is_none() || cursors.is_none() {
                segment.frames = SegmentFrames::read(segment)?;
                cursors = cursors.or_else(|| segment.frames.cursors.clone());
            }
        }
        let watermarks = segments.iter().map(|segment| {
            let sealed = segment.summary.as_ref().map_or(0, |summary| summary.next_seq);
            segment.name.first_seq.max(segment.frames.watermark).max(sealed)
        });
        let durable_watermark = watermarks.max().unwrap_or(0);
        let unconfirmed = take_unconfirmed(&mut segments, durable_watermark);
        Ok(DirectoryScan { segments, unused, durable_watermark, unconfirmed, cursors })
    }

    /// Returns the sequence after the last readable event.
    pub(super) fn log_end(&self) -> u64 {
        self.durable_watermark + self.unconfirmed.len() as u64
    }

    /// Returns a segment's summary of the events below `limit`: from its summary file, or else from its frames.
    pub(super) fn summary(&self, index: usize, limit: u64) -> SegmentSummary {
        let segment = &self.segments[index];
        if let Some(summary) = &segment.summary {
            return summary.clone();
        }
        let mut summary = SegmentSummary::empty(segment.name.first_seq);
        for frame in self.frames(index).filter(|frame| frame.header.seq < limit) {
            if let Some(facts) = &frame.facts {
                summary.add(&facts.topic, frame.header.seq, frame.padded_len(), facts.received_at);
            }
        }
        summary
    }

    /// Reads the frames of a sealed segment. The frames of all others have been read.
    pub(super) fn read_frames(&mut self, index: usize) -> io::Result<()> {
        let segment = &mut self.segments[index];
        if segment.summary.is_some() && segment.frames.events.is_empty() {
            segment.frames = SegmentFrames::read(segment)?;
        }
        Ok(())
    }

    /// Drops the frames of a sealed segment, so that a scan of a large journal needs the memory of one segment.
    pub(super) fn drop_frames(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        if segment.summary.is_some() {
            segment.frames = SegmentFrames::default();
        }
    }

    /// Returns the events of a segment, as far as its frames have been read.
    pub(super) fn frames(&self, index: usize) -> impl Iterator<Item = &ScannedFrame> {
        let unconfirmed = self.unconfirmed.iter().filter(move |(segment, _)| *segment == index).map(|(_, frame)| frame);
        self.segments[index].frames.events.iter().chain(unconfirmed)
    }
}

impl ScannedSegment {
    /// Returns its damaged ranges below `watermark`.
    pub(super) fn corruption(&self, watermark: u64) -> Vec<Range<u64>> {
        let below = watermark.min(self.expected_end());
        // A commit is written once everything before it has been synced. Other frames may remain of a torn commit.
        let is_corruption = |next: &FrameHeader| next.kind == FrameKind::Commit || next.seq < below;
        let damage = self.frames.damage.iter().filter(|(_, next)| is_corruption(next)).map(|(range, _)| range.clone());
        let mut corruption: Vec<_> = damage.collect();
        let last = self.frames.events.iter().rev().find(|frame| frame.header.seq < below);
        let end = last.map_or(SEGMENT_HEADER_LEN, |frame| frame.offset + frame.padded_len());
        let next_seq = last.map_or(self.name.first_seq, |frame| frame.header.seq + 1);
        if next_seq < below && corruption.last().is_none_or(|range| range.end <= end) {
            corruption.push(end..self.size);
        }
        if !self.has_header && last.is_some() {
            corruption.insert(0, 0..SEGMENT_HEADER_LEN);
        }
        corruption
    }

    /// Returns the summary of its events below `watermark`.
    pub(super) fn summary_below(&self, watermark: u64) -> SegmentSummary {
        let below = watermark.min(self.expected_end());
        let mut summary = SegmentSummary::empty(self.name.first_seq);
        for frame in self.frames.events.iter().filter(|frame| frame.header.seq < below) {
            if let Some(facts) = &frame.facts {
                summary.add(&facts.topic, frame.header.seq, frame.padded_len(), facts.received_at);
            }
            summary.end = frame.offset + frame.padded_len();
        }
        if summary.next_seq < below {
            // Its end is corrupted. It must not be truncated as unused space, and its age is unknown: it stays until its space
            // is needed.
            summary.end = self.size;
            summary.newest = UnixMillis(u64::MAX);
            summary.next_seq = below;
        }
        summary
    }

    /// Returns the sequence up to which its events should reach.
    fn expected_end(&self) -> u64 {
        match self.is_followed || self.summary.is_some() {
            true => self.superseded_from,
            false => self.superseded_from.min(self.frames.announced_end),
        }
    }
}

impl SegmentFrames {
    fn read(segment: &ScannedSegment) -> io::Result<SegmentFrames> {
        let mut frames = SegmentFrames::default();
        let mut next_seq = segment.name.first_seq;
        let mut scanner = FrameScanner::new(segment.file.clone(), segment.name.id, SEGMENT_HEADER_LEN, segment.size);
        let mut damaged = None;
        loop {
            let is_current = |header: &FrameHeader| match header.kind {
                FrameKind::Event => header.seq < segment.superseded_from,
                FrameKind::Commit | FrameKind::Cursors => header.seq <= segment.superseded_from,
            };
            let offset = scanner.offset();
            match scanner.step(|header| header.seq >= next_seq && is_current(header))? {
                ScanStep::End(_) => return Ok(frames),
                ScanStep::Damage(range) => damaged = Some(range),
                ScanStep::Frame(header) => {
                    frames.damage.extend(damaged.take().map(|range| (range, header)));
                    frames.add(header, offset, scanner.frame());
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
                self.events.push(ScannedFrame { offset, header, facts: frame::decode_facts(bytes) });
            }
            FrameKind::Commit => {
                if let Some(commit) = frame::decode_commit(bytes) {
                    self.watermark = self.watermark.max(commit.watermark);
                    self.announced_end = self.announced_end.max(commit.watermark + u64::from(commit.count));
                }
            }
            FrameKind::Cursors => self.cursors = frame::decode_cursors(bytes).or(self.cursors.take()),
        }
    }
}

impl ScannedFrame {
    /// Returns the key of the event, if it has one.
    pub(super) fn key(&self) -> Option<(EventKey, SeenKey)> {
        let facts = self.facts.as_ref()?;
        Some((facts.key?, SeenKey { first_seen: facts.received_at, seq: self.header.seq }))
    }

    /// Returns the bytes that the frame occupies.
    pub(super) fn padded_len(&self) -> u64 {
        frame::padded(self.header.len) as u64
    }
}

/// Opens all segments; those to which nothing was ever written are returned by name only.
fn open_segments(disk: &dyn Disk) -> io::Result<(Vec<ScannedSegment>, Vec<SegmentName>)> {
    let (mut segments, mut unused) = (Vec::new(), Vec::new());
    for (name, size) in segment_file::list(disk)? {
        let file = disk.open(&name.segment_file())?;
        let has_header = segment_file::has_header(&*file, name)?;
        let has_keys = KeyFile::open(disk, name)?.is_some();
        let summary = if has_keys { SegmentSummary::open(disk, name)? } else { None };
        if summary.is_none() && !segment_file::is_started(disk, &file, name, size)? {
            unused.push(name);
            continue;
        }
        let (superseded_from, is_followed, frames) = (u64::MAX, true, SegmentFrames::default());
        segments.push(ScannedSegment { name, file, size, has_header, superseded_from, is_followed, summary, frames });
    }
    Ok((segments, unused))
}

fn find_superseded(segments: &mut [ScannedSegment]) {
    let (mut superseded_from, mut follower) = (u64::MAX, None);
    for segment in segments.iter_mut().rev() {
        segment.is_followed = follower.is_none_or(|ordinal| ordinal == segment.name.ordinal + 1);
        follower = Some(segment.name.ordinal);
        let sealed_end = segment.summary.as_ref().map_or(u64::MAX, |summary| summary.next_seq);
        segment.superseded_from = superseded_from.min(sealed_end);
        superseded_from = superseded_from.min(segment.name.first_seq);
    }
}

/// Moves the events above the watermark out of the segments, up to the first gap.
fn take_unconfirmed(segments: &mut [ScannedSegment], watermark: u64) -> Vec<(usize, ScannedFrame)> {
    let mut unconfirmed: Vec<(usize, ScannedFrame)> = Vec::new();
    for (index, segment) in segments.iter_mut().enumerate() {
        let above = segment.frames.events.partition_point(|frame| frame.header.seq < watermark);
        for frame in segment.frames.events.split_off(above) {
            if frame.header.seq == watermark + unconfirmed.len() as u64 {
                unconfirmed.push((index, frame));
            }
        }
    }
    unconfirmed
}
