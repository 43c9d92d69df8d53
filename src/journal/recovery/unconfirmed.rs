//! Copies the unconfirmed events into a new segment. Writes and syncs the segment under a temporary name, and then renames
//! its file.

use std::io;
use std::sync::Arc;

use super::super::background::write_with_reserve;
use super::super::directory_scan::DirectoryScan;
use super::super::disk::{Disk, is_full};
use super::super::errors::{OpenError, context, in_file};
use super::super::frame::{self, CursorsFrame, FrameDraft};
use super::super::keys::KeyIndex;
use super::super::scanned_frame::{ScannedFrame, UNKNOWN_TIMES};
use super::super::segment::{Segment, SegmentState};
use super::super::segment_copy::SegmentCopy;
use super::super::segment_file::JournalIdentity;
use super::super::segment_name::SegmentName;
use super::super::segment_summary::SegmentSummary;
use crate::event::LogId;

/// Copies the unconfirmed events of a scan into the new segment `name`.
pub(super) fn copy(
    disk: &dyn Disk,
    scan: &DirectoryScan,
    log: LogId,
    name: SegmentName,
    identity: JournalIdentity,
    keys: &KeyIndex,
) -> Result<Arc<Segment>, OpenError> {
    let (bytes, summary) =
        context(encode(disk, scan, log, name, identity), || "cannot read the unconfirmed events of the journal".into())?;
    let write = || {
        write_with_reserve(disk, &name.segment_file(), &bytes, || {})?;
        disk.sync_dir()?;
        disk.open(&name.segment_file())
    };
    let file = write().map_err(|source| match is_full(&source) {
        true => OpenError::NoRoom { bytes: bytes.len() as u64 },
        false => OpenError::Io { what: "cannot copy the unconfirmed events of the journal".into(), source },
    })?;
    tracing::info!(
        events = scan.unconfirmed.len(),
        segment = name.segment_file(),
        "recovered the unconfirmed events after a crash"
    );
    keys.add(name, scan.unconfirmed.iter().filter_map(|(_, frame)| frame.key()));
    Ok(Segment::new(name, file, bytes.len() as u64, summary, SegmentState::Unsealed))
}

/// Encodes the segment with the copied events. The segment ends with a commit that records a watermark after the last event.
/// This watermark is correct, because the segment gets its final name only after all of its events are on disk.
fn encode(
    disk: &dyn Disk,
    scan: &DirectoryScan,
    log: LogId,
    name: SegmentName,
    identity: JournalIdentity,
) -> io::Result<(Vec<u8>, SegmentSummary)> {
    let mut copy = SegmentCopy::new(name, log, identity, &[]);
    let CursorsFrame { is_complete, cursors, backlog_end } = &scan.cursors;
    let mut cursors = Some(FrameDraft::cursors(cursors, *is_complete, *backlog_end));
    // Every commit keeps its times, which are the first-seen times of its keys.
    for commit in scan.unconfirmed.chunk_by(|(_, a), (_, b)| a.times == b.times) {
        copy_commit(&read_frames(disk, scan, commit)?, commit, cursors.take(), log, &mut copy);
    }
    let times = scan.unconfirmed.last().map_or(UNKNOWN_TIMES, |(_, frame)| frame.times);
    copy.add_draft(&FrameDraft::commit(scan.log_end(), 0, 0, times), log, scan.log_end());
    let summary = copy.summary();
    Ok((copy.take_bytes().1, summary))
}

/// Reads these frames from their segments again.
fn read_frames(disk: &dyn Disk, scan: &DirectoryScan, frames: &[(usize, ScannedFrame)]) -> io::Result<Vec<Vec<u8>>> {
    let mut read = Vec::new();
    for in_segment in frames.chunk_by(|(a, _), (b, _)| a == b) {
        let name = in_segment.first().map(|(index, _)| scan.segments[*index].name);
        let Some(name) = name else { continue };
        let file = in_file(disk.open(&name.segment_file()), || name.segment_file())?;
        for (_, frame) in in_segment {
            let mut bytes = vec![0; frame.header.len];
            let len = in_file(file.read_at(&mut bytes, frame.offset), || name.segment_file())?;
            if len < bytes.len() || !frame::is_valid(&bytes, name.id) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "expected the same frame in two reads, found different bytes; check the disk",
                ));
            }
            read.push(bytes);
        }
    }
    Ok(read)
}

/// Appends one commit with these frames to the copy. `bytes` contains the frames.
fn copy_commit(
    bytes: &[Vec<u8>],
    frames: &[(usize, ScannedFrame)],
    cursors: Option<FrameDraft>,
    log: LogId,
    copy: &mut SegmentCopy,
) {
    let Some((_, first)) = frames.first() else { return };
    let events = frames.iter().map(|(_, frame)| frame.padded_len()).sum::<u64>();
    let others = cursors.as_ref().map_or(0, |cursors| cursors.padded_len() as u64) + events;
    let seq = first.header.seq;
    copy.add_draft(&FrameDraft::commit(seq, frames.len() as u32, others, first.times), log, seq);
    if let Some(cursors) = cursors {
        copy.add_draft(&cursors, log, seq);
    }
    for (bytes, (_, frame)) in bytes.iter().zip(frames) {
        copy.add_event(bytes, &frame.header, frame.facts.as_ref(), frame.times.journal);
    }
}
