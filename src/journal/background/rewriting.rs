//! Rewrites sealed segments: copies the frames of a segment into a new file without the padding between its commits, and
//! replaces the segment by this file. Every commit starts with a page, so under little load, each small event occupies a whole
//! page until its segment is rewritten.
//!
//! ```text
//!  write ORDINAL-FIRST-NEW.seg.tmp, sync ─► write ORDINAL-FIRST-NEW.topics, sync ─► rename the segment ─► sync the directory
//!     ─► replace the segment in the map ─► delete ORDINAL-FIRST-OLD.seg and ORDINAL-FIRST-OLD.topics
//! ```
//!
//! A failure before the rename changes nothing. If both segments exist at a startup, the new one counts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::Shared;
use super::super::disk::{Disk, DiskFile, TEMPORARY_EXT, write_atomically};
use super::super::frame::{self, FrameHeader, FrameKind};
use super::super::frame_scanner::{FrameScanner, ScanStep};
use super::super::journal_time::JournalMillis;
use super::super::segment::{Segment, SegmentState};
use super::super::segment_copy::SegmentCopy;
use super::super::segment_file::SEGMENT_HEADER_LEN;
use super::super::segment_name::SegmentName;
use super::super::segment_summary::SegmentSummary;

/// Rewrites a sealed segment if more than a third of it is padding. If a step fails, logs the error and leaves the segment as it
/// is.
pub(super) fn rewrite_if_padded(shared: &Shared, segment: &Arc<Segment>) {
    if !is_padded(segment) {
        return;
    }
    if let Err(error) = rewrite(shared, segment) {
        let file = segment.name.segment_file();
        tracing::warn!(segment = file, %error, "cannot rewrite a segment without its padding, so it stays as it is");
    }
}

/// Returns true if the events take less than two thirds of the segment. The few frames without events count as padding.
fn is_padded(segment: &Segment) -> bool {
    let events: u64 = segment.with_summary(|summary| summary.topics.iter().map(|range| range.bytes).sum());
    let all = segment.size.load(Ordering::Relaxed).saturating_sub(SEGMENT_HEADER_LEN);
    events > 0 && 3 * events < 2 * all
}

/// Writes the new segment and replaces the old one. Leaves the old segment if it is damaged, or if its release has been requested
/// meanwhile.
fn rewrite(shared: &Shared, old: &Arc<Segment>) -> io::Result<()> {
    let name = old.name.replacement(&*shared.background.random)?;
    let temporary = format!("{}{TEMPORARY_EXT}", name.segment_file());
    let written = write(shared, old, name, &temporary).and_then(|summary| match summary {
        Some(summary) => replace(shared, old, name, &temporary, summary),
        None => Ok(false),
    });
    if !matches!(written, Ok(true)) {
        // After a failed rename, the file may have the old or the new name.
        for file in [temporary, name.segment_file(), name.summary_file()] {
            drop(shared.disk.remove(&file));
        }
    }
    written.map(drop)
}

/// Writes and syncs the new segment under a temporary name, and its summary. Returns `None` if the old segment is damaged, or if
/// the background work must stop.
fn write(shared: &Shared, old: &Segment, name: SegmentName, temporary: &str) -> io::Result<Option<SegmentSummary>> {
    let file = shared.disk.create(temporary, 0)?;
    let replaced: Vec<u64> = old.key_ids().collect();
    let mut copy = SegmentCopy::new(name, shared.log, shared.identity, &replaced);
    if !copy_frames(shared, old, &mut copy, &*file)? {
        return Ok(None);
    }
    let (before, mut summary) = (old.summary(), copy.summary());
    summary.newest = before.newest;
    if summary.topics != before.topics || summary.next_seq != before.next_seq {
        return Ok(None);
    }
    write_pending(&mut copy, &*file)?;
    write_atomically(&*shared.disk, &name.summary_file(), &summary.encode(name))?;
    Ok(Some(summary))
}

/// Copies all frames of `old`. Returns false if `old` is damaged, or if the background work must stop.
fn copy_frames(shared: &Shared, old: &Segment, copy: &mut SegmentCopy, file: &dyn DiskFile) -> io::Result<bool> {
    let (end, next_seq) = old.with_summary(|summary| (summary.end, summary.next_seq));
    let mut scanner = FrameScanner::new(old.file.clone(), old.name.id, SEGMENT_HEADER_LEN, end);
    let mut first_seen = JournalMillis(0);
    loop {
        match scanner.step(|header| header.kind != FrameKind::Event || header.seq < next_seq)? {
            ScanStep::Frame(header) => first_seen = copy_frame(scanner.frame(), header, copy, first_seen),
            ScanStep::Damage(_) => return Ok(false),
            ScanStep::End(at) => return Ok(at == end),
        }
        if copy.pending() >= CHUNK {
            if shared.background.is_stopping() {
                return Ok(false);
            }
            write_pending(copy, file)?;
        }
    }
}

/// Copies one frame. `first_seen` is the time of its commit. Returns the time of the commit of the next frame.
fn copy_frame(bytes: &[u8], header: FrameHeader, copy: &mut SegmentCopy, first_seen: JournalMillis) -> JournalMillis {
    if header.kind == FrameKind::Event {
        copy.add_event(bytes, &header, frame::decode_facts(bytes).as_ref(), first_seen);
        return first_seen;
    }
    copy.add_control(bytes, &header);
    let commit = if header.kind == FrameKind::Commit { frame::decode_commit(bytes) } else { None };
    commit.map_or(first_seen, |commit| commit.times.journal)
}

/// Writes and syncs the encoded bytes. Small syncs do not delay the writer's sync as one large sync would.
fn write_pending(copy: &mut SegmentCopy, file: &dyn DiskFile) -> io::Result<()> {
    let (offset, bytes) = copy.take_bytes();
    file.write_at(&bytes, offset)?;
    file.sync()
}

/// Renames the new segment, replaces the old segment and deletes its files. Returns false if the release of the old segment has
/// been requested.
fn replace(shared: &Shared, old: &Arc<Segment>, name: SegmentName, temporary: &str, summary: SegmentSummary) -> io::Result<bool> {
    let disk = &shared.disk;
    // No other thread may choose the old segment for a release, or delete it.
    let _space = shared.background.retention.lock();
    if !shared.segments.contains(old.name) || !old.request_release() {
        return Ok(false);
    }
    let rename = || {
        disk.rename(temporary, &name.segment_file())?;
        let file = disk.open(&name.segment_file())?;
        shared.sync_dir()?;
        io::Result::Ok(file)
    };
    let file = rename().inspect_err(|_| old.cancel_release())?;
    let size = summary.end;
    shared
        .segments
        .replace(old.name, Segment::replacing(name, old.key_ids().collect(), file, size, summary, SegmentState::Sealed));
    delete_files(&**disk, old.name);
    Ok(true)
}

/// Deletes the files of a replaced segment. Never recycles them, because a reader may still read the segment. If this fails, the
/// next startup deletes the files.
fn delete_files(disk: &dyn Disk, name: SegmentName) {
    for file in [name.segment_file(), name.summary_file()] {
        if let Err(error) = disk.remove(&file) {
            tracing::warn!(file, %error, "cannot delete a replaced file; the next start of hookhold deletes it");
        }
    }
}

/// Number of bytes after which a write and a sync are due.
const CHUNK: usize = 1 << 20;
