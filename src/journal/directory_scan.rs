//! Reads the content of a journal's directory. Never changes a file.
//!
//! The scan determines the durable watermark: the highest sequence for which a file name, a commit, a summary file or the lock
//! file proves that all earlier events were on disk. Damage below the watermark is corruption. Readable events at and above the
//! watermark are unconfirmed, because these events may exist only in the page cache.

use std::io;
use std::ops::Range;

use super::disk::Disk;
use super::errors::{if_readable, in_file};
use super::foreign_segments;
use super::frame::{CursorsFrame, ListedSegment};
use super::journal_time::CommitTimes;
use super::keys::{KeyDirectory, ListedKeyFile};
use super::lock_file::{LockEvidence, OwnerRecord};
use super::replaced_segments;
use super::scanned_cursors::ScannedCursors;
use super::scanned_frame::{ScannedFrame, UNKNOWN_TIMES};
use super::scanned_segment::{ScannedSegment, SegmentFrames};
use super::segment_file;
use super::segment_list::{LostNewest, compare_with_list, find_superseded};
use super::segment_name::SegmentName;
use super::segment_summary::SegmentSummary;
use super::wall_offsets::WallOffsets;

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
    /// Record of the last opening; `None` if the lock file has no valid record.
    pub(super) owner: Option<OwnerRecord>,
    /// The loss of the segment that this record names; `None` if the segment exists.
    pub(super) lost_newest: Option<LostNewest>,
    /// Sequences of lost events whose keys are forgotten.
    pub(super) lost: Vec<Range<u64>>,
    /// Key files.
    pub(super) keys: KeyDirectory,
    /// Key files that existed at the start of the newest segment.
    pub(super) listed_keys: Vec<ListedKeyFile>,
}

impl DirectoryScan {
    /// Reads the headers of all segments and the frames of unsealed segments. Also reads the frames of sealed segments, newest
    /// first, until the scan has found a snapshot of the cursors. Opens one file at a time, because a journal may have more files
    /// than a process may open.
    pub(super) fn read(disk: &dyn Disk) -> io::Result<DirectoryScan> {
        // Read the lock file before the segments, because another process may be writing to them.
        let evidence = LockEvidence::read(disk);
        let keys = KeyDirectory::read(disk)?;
        let (mut segments, unused) = scan_segments(disk, &keys)?;
        foreign_segments::remove(disk, &mut segments, evidence.owner)?;
        let replaced = replaced_segments::find(segments.iter().map(|segment| (segment.name, segment.header.as_ref())));
        segments.retain(|segment| !replaced.contains(&segment.name));
        find_superseded(&mut segments, None);
        let read = |segment: &ScannedSegment| in_file(SegmentFrames::read(disk, segment), || segment.name.segment_file());
        let mut lost_newest = LostNewest::find(&evidence, &segments, |segment| Ok(read(segment)?.listed.is_some()))?;
        find_superseded(&mut segments, lost_newest.map(|lost| lost.owner.newest));
        let (mut cursors, mut lost, mut listed_keys, mut is_listed) = (ScannedCursors::default(), None, None, false);
        for segment in segments.iter_mut().rev() {
            if segment.summary.is_none() || !cursors.is_complete || !is_listed {
                segment.frames = read(segment)?;
                cursors.add_older(&segment.frames.cursors);
                lost = lost.or_else(|| segment.frames.lost.clone());
                listed_keys = listed_keys.or_else(|| segment.frames.key_files.clone());
                is_listed |= segment.frames.listed.is_some();
            }
        }
        let (mut released, missing) = compare_with_list(&mut segments);
        released.extend(replaced);
        lost_newest.iter_mut().for_each(|lost| lost.start_after(&segments));
        let watermarks = segments.iter().map(|segment| {
            let sealed = segment.summary.as_ref().map_or(0, |summary| summary.next_seq);
            segment.name.first_seq.max(segment.frames.watermark).max(sealed)
        });
        let proven = evidence.watermark.filter(|_| lost_newest.is_none()).or(lost_newest.map(|lost| lost.owner.newest.first_seq));
        let durable_watermark = watermarks.chain(proven).max().unwrap_or(0);
        for segment in &mut segments {
            segment.frames.is_unreadable = segment.needs_unreadable_page(durable_watermark);
        }
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
            owner: evidence.owner,
            lost_newest,
            lost: lost.unwrap_or_default(),
            keys,
            listed_keys: listed_keys.unwrap_or_default(),
        })
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
        if segment.summary.is_none() && !segment_file::is_started(disk, &file, name, size) {
            unused.push(name);
            continue;
        }
        segments.push(segment);
    }
    Ok((segments, unused))
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
