//! Reads the content of a journal's directory. Never changes a file.
//!
//! The scan determines the durable watermark: the highest sequence for which a file name, a commit or a summary file proves
//! that all earlier events were on disk. Damage below the watermark is corruption. Readable events at and above the watermark
//! are unconfirmed, because these events may exist only in the page cache.

use std::io;
use std::ops::Range;

use super::disk::Disk;
use super::errors::{if_readable, in_file};
use super::frame::{self, CursorsFrame, FrameHeader, FrameKind, ListedSegment};
use super::frame_scanner::{FrameScanner, ScanStep};
use super::journal_time::{CommitTimes, JournalMillis};
use super::keys::{KeyDirectory, ListedKeyFile};
use super::replaced_segments;
use super::scanned_cursors::ScannedCursors;
use super::scanned_frame::{ScannedFrame, UNKNOWN_TIMES};
use super::segment_file::{self, SEGMENT_HEADER_LEN, SegmentHeader};
use super::segment_name::SegmentName;
use super::segment_summary::SegmentSummary;
use super::wall_offsets::WallOffsets;
use crate::clock::UnixMillis;

/// Content of a journal's directory.
pub(super) struct DirectoryScan {
    /// Segments that have been written at least once, oldest first.
    pub(super) segments: Vec<ScannedSegment>,
    /// Names of segments that have never been written.
    pub(super) unused: Vec<SegmentName>,
    pub(super) durable_watermark: u64,
    /// Unconfirmed events up to the first gap in the sequences. Each entry contains the frame and the index of its segment.
    pub(super) unconfirmed: Vec<(usize, ScannedFrame)>,
    /// Newest cursor of each topic. Incomplete if there is no segment, or if the first commits of all segments are damaged.
    pub(super) cursors: CursorsFrame,
    /// Times of the last commit that the scan has read; `None` if there is no readable commit.
    pub(super) last_commit: Option<CommitTimes>,
    /// Offsets of the wall clock at the commits that the scan has read.
    pub(super) wall_offsets: WallOffsets,
    /// Segments that still exist although their release is recorded, or although another segment replaces them.
    /// [`DirectoryScan::segments`] does not contain them.
    pub(super) released: Vec<SegmentName>,
    /// Segments that contain events and whose release is not recorded, but which are missing.
    pub(super) missing: Vec<ListedSegment>,
    /// Sequences of lost events whose keys are forgotten.
    pub(super) lost: Vec<Range<u64>>,
    /// Key files.
    pub(super) keys: KeyDirectory,
    /// Key files that existed at the start of the newest segment.
    pub(super) listed_keys: Vec<ListedKeyFile>,
}

/// One segment of a [`DirectoryScan`].
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
    /// Frames of the segment; empty until [`DirectoryScan`] has read the file of the segment.
    pub(super) frames: SegmentFrames,
}

/// Frames of one segment.
#[derive(Default)]
pub(super) struct SegmentFrames {
    pub(super) events: Vec<ScannedFrame>,
    /// Highest durable watermark that a commit frame of the segment records.
    watermark: u64,
    cursors: ScannedCursors,
    /// Damaged ranges, each with the header of the next valid frame.
    damage: Vec<(Range<u64>, FrameHeader)>,
    /// Sequence after the last event that an event frame contains or a commit frame announces.
    announced_end: u64,
    /// Times of the last commit frame.
    times: Option<CommitTimes>,
    /// Offsets of the wall clock at the commit frames.
    wall_offsets: WallOffsets,
    /// List of the older segments at the start of the segment; `None` if it is damaged.
    listed: Option<Vec<ListedSegment>>,
    /// Segments whose release the segment records.
    released: Vec<SegmentName>,
    /// List of the key files at the start of the segment; `None` if it is damaged.
    key_files: Option<Vec<ListedKeyFile>>,
    /// Last readable list of lost sequences.
    lost: Option<Vec<Range<u64>>>,
    /// Sequences of events that the segment no longer contains, because no topic needed them.
    omitted: Vec<Range<u64>>,
    /// Offset after the last frame with such sequences.
    omitted_end: u64,
    /// True if some pages of the segment could not be read.
    pub(super) is_unreadable: bool,
}

impl DirectoryScan {
    /// Reads the headers of all segments and the frames of unsealed segments. Also reads the frames of sealed segments, newest
    /// first, until the scan has found a snapshot of the cursors. Opens one file at a time, because a journal may have more files
    /// than a process may open.
    pub(super) fn read(disk: &dyn Disk) -> io::Result<DirectoryScan> {
        let keys = KeyDirectory::read(disk)?;
        let (mut segments, unused) = scan_segments(disk, &keys)?;
        let replaced = replaced_segments::find(segments.iter().map(|segment| (segment.name, segment.header.as_ref())));
        segments.retain(|segment| !replaced.contains(&segment.name));
        find_superseded(&mut segments);
        let (mut cursors, mut lost, mut listed_keys, mut is_listed) = (ScannedCursors::default(), None, None, false);
        for segment in segments.iter_mut().rev() {
            if segment.summary.is_none() || !cursors.is_complete || !is_listed {
                segment.frames = in_file(SegmentFrames::read(disk, segment), || segment.name.segment_file())?;
                cursors.add_older(&segment.frames.cursors);
                lost = lost.or_else(|| segment.frames.lost.clone());
                listed_keys = listed_keys.or_else(|| segment.frames.key_files.clone());
                is_listed |= segment.frames.listed.is_some();
            }
        }
        let (mut released, missing) = compare_with_list(&mut segments, &unused);
        released.extend(replaced);
        let watermarks = segments.iter().map(|segment| {
            let sealed = segment.summary.as_ref().map_or(0, |summary| summary.next_seq);
            segment.name.first_seq.max(segment.frames.watermark).max(sealed)
        });
        let durable_watermark = watermarks.max().unwrap_or(0);
        let last_commit = segments.iter().filter_map(|segment| segment.last_commit()).max_by_key(|times| times.journal);
        for frame in segments.iter_mut().flat_map(|segment| &mut segment.frames.events) {
            if frame.times == UNKNOWN_TIMES {
                frame.times = last_commit.unwrap_or(UNKNOWN_TIMES);
            }
        }
        let unconfirmed = take_unconfirmed(&mut segments, durable_watermark);
        let mut wall_offsets = WallOffsets::default();
        segments.iter().for_each(|segment| wall_offsets.extend(&segment.frames.wall_offsets));
        Ok(DirectoryScan {
            segments,
            unused,
            durable_watermark,
            unconfirmed,
            cursors: cursors.into(),
            last_commit,
            wall_offsets,
            released,
            missing,
            lost: lost.unwrap_or_default(),
            keys,
            listed_keys: listed_keys.unwrap_or_default(),
        })
    }

    /// Returns true if `newest`, the newest segment of the last opening, is missing.
    pub(super) fn is_newest_missing(&self, newest: SegmentName) -> bool {
        let exists = self.segments.iter().any(|segment| segment.name.place() >= newest.place());
        !exists && !self.unused.contains(&newest)
    }

    /// Returns the sequence after the last readable event.
    pub(super) fn log_end(&self) -> u64 {
        self.durable_watermark + self.unconfirmed.len() as u64
    }

    /// Returns the sequence from which on no event waits for a topic if the journal does not forward events.
    pub(super) fn backlog_end(&self) -> u64 {
        self.cursors.backlog_end.unwrap_or(self.log_end())
    }

    /// Returns the summary of a segment. For a sealed segment, returns the content of the summary file. For an unsealed
    /// segment, computes the summary from the events below `limit`.
    pub(super) fn summary(&self, index: usize, limit: u64) -> SegmentSummary {
        let segment = &self.segments[index];
        if let Some(summary) = &segment.summary {
            return summary.clone();
        }
        let mut summary = SegmentSummary::empty(segment.name.first_seq);
        for frame in self.frames(index).filter(|frame| frame.header.seq < limit) {
            if let Some(facts) = &frame.facts {
                summary.add(&facts.topic, frame.header.seq, frame.padded_len(), frame.times.journal);
            }
        }
        summary
    }

    /// Reads the frames of a sealed segment. [`DirectoryScan::read`] has already read the frames of unsealed segments. If hookhold
    /// has replaced the segment since then, reads its replacement. Returns false if hookhold has deleted the segment.
    pub(super) fn read_frames(&mut self, disk: &dyn Disk, index: usize) -> io::Result<bool> {
        let segment = &mut self.segments[index];
        if segment.summary.is_none() || !segment.frames.events.is_empty() {
            return Ok(true);
        }
        let mut frames = SegmentFrames::read(disk, segment);
        if frames.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let is_replacement = |name: SegmentName| name != segment.name && name.place() == segment.name.place();
            let Some(replacement) = segment_file::list(disk)?.into_iter().find(|(name, _)| is_replacement(*name)) else {
                return Ok(false);
            };
            (segment.name, segment.size) = replacement;
            frames = SegmentFrames::read(disk, segment);
        }
        segment.frames = in_file(frames, || segment.name.segment_file())?;
        Ok(true)
    }

    /// Drops the frames of a sealed segment, so that a scan of a large journal needs memory for the frames of only one sealed
    /// segment at a time.
    pub(super) fn drop_frames(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        if segment.summary.is_some() {
            segment.frames = SegmentFrames::default();
        }
    }

    /// Returns the valid event frames that the scan has read from one segment.
    pub(super) fn frames(&self, index: usize) -> impl Iterator<Item = &ScannedFrame> {
        let unconfirmed = self.unconfirmed.iter().filter(move |(segment, _)| *segment == index).map(|(_, frame)| frame);
        self.segments[index].frames.events.iter().chain(unconfirmed)
    }
}

impl ScannedSegment {
    /// Returns the ids under which a key file may contain the keys of the segment: its own id, and those of the segments that it
    /// replaces.
    fn key_ids(&self) -> impl Iterator<Item = u64> {
        self.header.iter().flat_map(|header| header.replaced.iter().copied()).chain([self.name.id])
    }

    /// Returns the ids of key files that sealing replaces if the segment is not sealed. The key file of a replaced segment may
    /// contain keys of events that the segment no longer contains.
    pub(super) fn rebuilt_key_ids(&self) -> impl Iterator<Item = u64> {
        let is_whole = self.frames.omitted.is_empty();
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
        let last = self.frames.events.iter().rev().find(|frame| frame.header.seq < below);
        let end = last.map_or(SEGMENT_HEADER_LEN, |frame| frame.offset + frame.padded_len());
        let next_seq = last.map_or(self.name.first_seq, |frame| frame.header.seq + 1).max(self.frames.omitted_seq());
        if next_seq < below && corruption.last().is_none_or(|range| range.end <= end) {
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
        summary.end = summary.end.max(self.frames.omitted_end);
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

    /// Returns the times of the last commit whose times are known. A summary records only the time of the journal's clock.
    fn last_commit(&self) -> Option<CommitTimes> {
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
    fn read(disk: &dyn Disk, segment: &ScannedSegment) -> io::Result<SegmentFrames> {
        let mut frames = SegmentFrames::default();
        let mut next_seq = segment.name.first_seq;
        let file = disk.open(&segment.name.segment_file())?;
        let scanner = FrameScanner::new(file, segment.name.id, SEGMENT_HEADER_LEN, segment.size);
        let mut scanner = scanner.skip_unreadable();
        let mut damaged = None;
        loop {
            let is_current = |header: &FrameHeader| match header.kind {
                FrameKind::Event => header.seq < segment.superseded_from,
                _ => header.seq <= segment.superseded_from,
            };
            match scanner.step(|header| header.seq >= next_seq && is_current(header))? {
                ScanStep::End(_) => {
                    frames.complete_times();
                    frames.is_unreadable = scanner.has_skipped();
                    return Ok(frames);
                }
                ScanStep::Damage(range) => damaged = Some(range),
                ScanStep::Frame(header) => {
                    frames.damage.extend(damaged.take().map(|range| (range, header)));
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
            FrameKind::Segments => self.listed = frame::decode_segments(bytes).or(self.listed.take()),
            FrameKind::Release => self.released.extend(frame::decode_release(bytes).unwrap_or_default()),
            FrameKind::KeyFiles => self.key_files = frame::decode_key_files(bytes).or(self.key_files.take()),
            FrameKind::Lost => self.lost = frame::decode_ranges(bytes).or(self.lost.take()),
            FrameKind::Omitted => {
                self.omitted.extend(frame::decode_ranges(bytes).unwrap_or_default());
                self.omitted_end = offset + frame::padded(header.len) as u64;
            }
            FrameKind::Later => {}
        }
    }

    /// Returns the sequence after the last omitted event; 0 if there is none.
    fn omitted_seq(&self) -> u64 {
        self.omitted.last().map_or(0, |range| range.end)
    }

    /// Gives the events before the first readable commit frame the times of this commit.
    fn complete_times(&mut self) {
        let first = self.events.iter().map(|frame| frame.times).find(|times| *times != UNKNOWN_TIMES).or(self.times);
        for frame in self.events.iter_mut().take_while(|frame| frame.times == UNKNOWN_TIMES) {
            frame.times = first.unwrap_or(UNKNOWN_TIMES);
        }
    }
}

/// Reads the headers and the summaries of all segments. For segments that have never been written, returns only the names.
fn scan_segments(disk: &dyn Disk, keys: &KeyDirectory) -> io::Result<(Vec<ScannedSegment>, Vec<SegmentName>)> {
    let (mut segments, mut unused) = (Vec::new(), Vec::new());
    for (name, size) in segment_file::list(disk)? {
        let in_segment = || name.segment_file();
        let file = in_file(disk.open(&name.segment_file()), in_segment)?;
        let header = if_readable(segment_file::read_header(&*file, name), in_segment)?;
        let (superseded_from, is_followed, frames) = (u64::MAX, true, SegmentFrames::default());
        let mut segment = ScannedSegment { name, size, header, superseded_from, is_followed, summary: None, frames };
        if segment.key_ids().any(|id| keys.has_keys_of(id)) {
            segment.summary = if_readable(SegmentSummary::open(disk, name), || name.summary_file())?;
        }
        // A segment that cannot be read may contain events.
        if segment.summary.is_none() && !segment_file::is_started(disk, &file, name, size).unwrap_or(true) {
            unused.push(name);
            continue;
        }
        segments.push(segment);
    }
    Ok((segments, unused))
}

/// Compares the segments with the newest readable list. Removes each segment whose release is recorded, and returns the names of
/// these segments. Also returns the listed segments that are missing although their release is not recorded.
fn compare_with_list(segments: &mut Vec<ScannedSegment>, unused: &[SegmentName]) -> (Vec<SegmentName>, Vec<ListedSegment>) {
    let Some(at) = segments.iter().rposition(|segment| segment.frames.listed.is_some()) else { return Default::default() };
    let newest = segments[at].name.place();
    let listed = segments[at].frames.listed.clone().unwrap_or_default();
    // A list or a record may name the segment that an existing segment replaces, so only the places count.
    let recorded: Vec<_> = segments[at..].iter().flat_map(|segment| &segment.frames.released).map(|name| name.place()).collect();
    let is_recorded = |name: SegmentName| recorded.contains(&name.place());
    let is_listed = |name: SegmentName| listed.iter().any(|listed| listed.name.place() == name.place());
    let is_expected = |name: SegmentName| (name.place() >= newest || is_listed(name)) && !is_recorded(name);
    let released = segments.iter().map(|segment| segment.name).filter(|name| !is_expected(*name)).collect();
    let names = || segments.iter().map(|segment| segment.name).chain(unused.iter().copied());
    let exists = |name: SegmentName| names().any(|existing| existing.place() == name.place());
    let is_missing =
        |listed: &&ListedSegment| listed.next_seq > listed.name.first_seq && !is_recorded(listed.name) && !exists(listed.name);
    let missing = listed.iter().filter(is_missing).copied().collect();
    segments.retain(|segment| is_expected(segment.name));
    (released, missing)
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

/// Removes the events at and above the watermark from the segments, and returns these events up to the first gap in the
/// sequences. If the gap divides the events of one delivery, returns none of them, so that a batch is stored completely or not
/// at all.
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
    // The writer had not synced the commit with this part of a delivery, so the sender has no answer yet.
    while unconfirmed.last().is_some_and(|(_, frame)| frame.continues()) {
        unconfirmed.pop();
    }
    unconfirmed
}
