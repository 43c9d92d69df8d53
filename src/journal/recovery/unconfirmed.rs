//! Copies the unconfirmed events into a new segment. Writes and syncs the segment under a temporary name, and then renames
//! its file.

use std::io;
use std::sync::Arc;

use super::super::background::write_with_reserve;
use super::super::directory_scan::DirectoryScan;
use super::super::disk::{Disk, is_full};
use super::super::errors::{OpenError, context, in_file};
use super::super::frame::{self, FrameDraft};
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
        context(encode(scan, log, name, identity), || "cannot read the unconfirmed events of the journal".into())?;
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
    scan: &DirectoryScan,
    log: LogId,
    name: SegmentName,
    identity: JournalIdentity,
) -> io::Result<(Vec<u8>, SegmentSummary)> {
    let mut copy = SegmentCopy::new(name, log, identity, &[]);
    let mut cursors = Some(FrameDraft::cursors(&scan.cursors.cursors, scan.cursors.is_complete));
    // Every commit keeps its times, which are the first-seen times of its keys.
    for commit in scan.unconfirmed.chunk_by(|(_, a), (_, b)| a.times == b.times) {
        copy_commit(scan, commit, cursors.take(), log, &mut copy)?;
    }
    let times = scan.unconfirmed.last().map_or(UNKNOWN_TIMES, |(_, frame)| frame.times);
    copy.add_draft(&FrameDraft::commit(scan.log_end(), 0, 0, times), log, scan.log_end());
    let summary = copy.summary();
    Ok((copy.take_bytes().1, summary))
}

/// Appends one commit with these frames to the copy.
fn copy_commit(
    scan: &DirectoryScan,
    frames: &[(usize, ScannedFrame)],
    cursors: Option<FrameDraft>,
    log: LogId,
    copy: &mut SegmentCopy,
) -> io::Result<()> {
    let Some((_, first)) = frames.first() else { return Ok(()) };
    let events = frames.iter().map(|(_, frame)| frame.padded_len()).sum::<u64>();
    let others = cursors.as_ref().map_or(0, |cursors| cursors.padded_len() as u64) + events;
    let seq = first.header.seq;
    copy.add_draft(&FrameDraft::commit(seq, frames.len() as u32, others, first.times), log, seq);
    if let Some(cursors) = cursors {
        copy.add_draft(&cursors, log, seq);
    }
    let mut bytes = Vec::new();
    for (index, frame) in frames {
        let segment = &scan.segments[*index];
        bytes.resize(frame.header.len, 0);
        let read = in_file(segment.file.read_at(&mut bytes, frame.offset), || segment.name.segment_file())?;
        if read < bytes.len() || !frame::is_valid(&bytes, segment.name.id) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "expected the same frame in two reads, found different bytes; check the disk",
            ));
        }
        copy.add_event(&bytes, &frame.header, frame.facts.as_ref(), frame.times.journal);
    }
    Ok(())
}
