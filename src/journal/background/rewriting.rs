//! Rewrites sealed segments: copies the frames of a segment into a new file, and replaces the segment by this file. There are two
//! reasons to do so:
//! - Every commit starts with a page, so under little load, each small event occupies a whole page. Sealing rewrites a segment that
//!   is mostly padding.
//! - A blocked topic needs only its own events of a segment. If the journal needs space, the new file omits all events that no
//!   topic needs.
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
use super::super::backlog::WaitingEvents;
use super::super::disk::{Disk, DiskFile, TEMPORARY_EXT, delete_after_rename, write_atomically};
use super::super::segment::{Segment, SegmentState};
use super::super::segment_copy::{FrameCopier, SegmentCopy};
use super::super::segment_file::SEGMENT_HEADER_LEN;
use super::super::segment_name::SegmentName;
use super::super::segment_summary::SegmentSummary;
use super::retention;

/// Decides which events a new segment contains.
enum Selection {
    /// All events.
    All,
    /// The events that wait for their topic.
    Waiting(WaitingEvents),
}

impl Selection {
    fn waiting(shared: &Shared) -> Selection {
        Selection::Waiting(shared.segments.waiting(shared.options.forwards))
    }

    fn contains(&self, topic: &str, seq: u64) -> bool {
        match self {
            Selection::All => true,
            Selection::Waiting(waiting) => waiting.contains(topic, seq),
        }
    }

    /// Returns the number of bytes in the selected frames of a segment.
    fn bytes(&self, summary: &SegmentSummary) -> u64 {
        match self {
            Selection::All => summary.topics.iter().map(|range| range.bytes).sum(),
            Selection::Waiting(waiting) => waiting.bytes(summary),
        }
    }
}

/// Rewrites a sealed segment if more than a third of it is padding.
pub(super) fn rewrite_if_padded(shared: &Shared, segment: &Arc<Segment>) {
    let events = segment.with_summary(|summary| Selection::All.bytes(summary));
    // The few frames without events count as padding.
    if events > 0 && 3 * events < 2 * frames_len(segment) {
        rewrite(shared, segment, &Selection::All);
    }
}

/// Rewrites a segment without the events that no topic needs, if the journal soon needs space and cannot delete a segment.
/// Returns true if it has rewritten one, so that a further segment may be due.
pub(super) fn make_space(shared: &Shared) -> bool {
    let limits = shared.options.limits;
    let needed = shared.segments.bytes() + AHEAD * limits.segment_size;
    if needed <= limits.max_size || shared.health.has_failed() {
        return false;
    }
    let deletable: u64 = retention::deletable(shared).iter().map(|segment| segment.size.load(Ordering::Relaxed)).sum();
    if needed.saturating_sub(deletable) <= limits.max_size {
        return false;
    }
    let selection = Selection::waiting(shared);
    candidate(shared, &selection).is_some_and(|segment| rewrite(shared, &segment, &selection))
}

/// Returns true if [`make_space`] may free space for a segment of `size` bytes.
pub(super) fn can_make_space(shared: &Shared, size: u64) -> bool {
    size <= AHEAD * shared.options.limits.segment_size && candidate(shared, &Selection::waiting(shared)).is_some()
}

/// Returns the segment that would shrink most; `None` if no segment would shrink by [`MIN_GAIN`].
fn candidate(shared: &Shared, selection: &Selection) -> Option<Arc<Segment>> {
    let gain = |segment: &Arc<Segment>| {
        let selected = segment.with_summary(|summary| selection.bytes(summary));
        let gain = frames_len(segment).saturating_sub(selected);
        let is_worth_it = gain >= segment.size.load(Ordering::Relaxed) / MIN_GAIN && segment.may_rewrite(selected);
        (is_worth_it && selected > 0 && segment.replaced.len() < MAX_REWRITES).then_some(gain)
    };
    let gains = retention::removable(shared).into_iter().filter_map(|segment| Some((gain(&segment)?, segment)));
    gains.max_by_key(|(gain, _)| *gain).map(|(_, segment)| segment)
}

/// Returns the size of a segment without its header.
fn frames_len(segment: &Segment) -> u64 {
    segment.size.load(Ordering::Relaxed).saturating_sub(SEGMENT_HEADER_LEN)
}

/// Rewrites a sealed segment with the selected events. Returns false if the segment stays as it is: because a step has failed, because
/// the segment is damaged or would hardly shrink, or because its release has been requested meanwhile.
fn rewrite(shared: &Shared, old: &Arc<Segment>, selection: &Selection) -> bool {
    let selected = old.with_summary(|summary| selection.bytes(summary));
    let is_rewritten = try_rewrite(shared, old, selection).unwrap_or_else(|error| {
        let file = old.name.segment_file();
        tracing::warn!(segment = file, %error, "cannot rewrite a segment to free space, so it stays as it is; check the disk");
        false
    });
    if !is_rewritten {
        // Without this, the next check would try it again.
        old.rewrite_below(selected.saturating_sub(old.size.load(Ordering::Relaxed) / MIN_GAIN));
    }
    is_rewritten
}

fn try_rewrite(shared: &Shared, old: &Arc<Segment>, selection: &Selection) -> io::Result<bool> {
    let name = old.name.replacement(&*shared.background.random)?;
    let temporary = format!("{}{TEMPORARY_EXT}", name.segment_file());
    let written = write(shared, old, name, &temporary, selection).and_then(|summary| match summary {
        Some(summary) => replace(shared, old, name, &temporary, summary),
        None => Ok(false),
    });
    if !matches!(written, Ok(true)) {
        drop(delete_after_rename(&*shared.disk, &temporary, &name.segment_file()));
        drop(shared.disk.remove(&name.summary_file()));
    }
    written
}

/// Writes and syncs the new segment under a temporary name, and its summary. Returns `None` if the old segment is damaged or would
/// hardly shrink, or if the background work must stop.
fn write(
    shared: &Shared,
    old: &Segment,
    name: SegmentName,
    temporary: &str,
    selection: &Selection,
) -> io::Result<Option<SegmentSummary>> {
    let file = shared.disk.create(temporary, 0)?;
    let replaced: Vec<u64> = old.key_ids().collect();
    let before = old.summary();
    let copy = SegmentCopy::new(name, shared.log, shared.identity, &replaced);
    let mut copier = FrameCopier::new(old.file.clone(), old.name.id, &before, copy);
    let newer = shared.segments.segments().into_iter().filter(|segment| segment.name > old.name);
    if matches!(selection, Selection::Waiting(_)) && newer.count() >= NEWER_LISTS {
        copier.omit_lists();
    }
    while copier.step(|topic, seq| selection.contains(topic, seq))? {
        if copier.copy().pending() >= CHUNK {
            if shared.background.is_stopping() {
                return Ok(None);
            }
            write_pending(copier.copy(), &*file)?;
        }
    }
    let Some(mut copy) = copier.finish() else { return Ok(None) };
    let summary = SegmentSummary { newest: before.newest, next_seq: before.next_seq, ..copy.summary() };
    let size = old.size.load(Ordering::Relaxed);
    if summary.end + size / MIN_GAIN > size {
        return Ok(None);
    }
    write_pending(&mut copy, &*file)?;
    write_atomically(&*shared.disk, &name.summary_file(), &summary.encode(name))?;
    Ok(Some(summary))
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
    let (size, replaced) = (summary.end, old.key_ids().collect());
    shared.segments.replace(old.name, Segment::replacing(name, replaced, file, size, summary, SegmentState::Sealed));
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
/// Number of segments for which the background work provides space in advance.
const AHEAD: u64 = 2;
/// A rewritten segment must shrink by at least this part of its size.
const MIN_GAIN: u64 = 16;
/// Number of newer segments from which a rewritten segment does not need its lists.
const NEWER_LISTS: usize = 4;
/// Maximum number of times that a segment may be rewritten. Each time, its header names a further id.
pub(super) const MAX_REWRITES: usize = 256;
