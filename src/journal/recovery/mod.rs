//! Opens the journal after a clean stop or a crash. If [`open`] is interrupted at any step, hookhold can run [`open`] again at
//! the next startup.
//!
//! [`open`] copies unconfirmed events into a separate segment, syncs that segment, and renames its file. After the rename, the
//! copy supersedes the original events. [`open`] then starts a new segment for new events.

mod first_segment;
mod unconfirmed;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::background::restore_reserve;
use super::directory_scan::DirectoryScan;
use super::disk::{Disk, DiskFile, TEMPORARY_EXT};
use super::errors::{OpenError, context, in_file};
use super::frame::ListedSegment;
use super::journal_clock::JournalClock;
use super::keys::{self, KeyDamage, KeyIndex};
use super::lock_file::{LOCK_FILE, OwnerRecord};
use super::meta::{META_FILE, MetaFile};
use super::options::Options;
use super::parking::is_parked_file;
use super::planted::is_planted;
use super::quarantine;
use super::random::Random;
use super::reader::DAMAGED;
use super::replays_file::REPLAYS_FILE;
use super::scanned_frame::ScannedFrame;
use super::scanned_segment::ScannedSegment;
use super::segment::{Segment, SegmentState};
use super::segment_file::JournalIdentity;
use super::segment_list::LostNewest;
use super::segment_map::SegmentMap;
use super::segment_name::{KEYS_EXT, NEW_SPARE, SEGMENT_EXT, SPARE_EXT, SUMMARY_EXT, SegmentName};
use super::senders_file::SENDERS_FILE;
use super::writer_state::WriterState;
use crate::clock::Clock;
use crate::event::LogId;
use crate::metrics::Metrics;
use first_segment::FirstSegment;

/// State of a journal after recovery.
pub(super) struct Recovered {
    /// Random log id, which recovery generates each time hookhold opens the journal.
    pub(super) log: LogId,
    /// Ids of the journal, from the meta file.
    pub(super) identity: JournalIdentity,
    /// The journal's clock, which continues after the last commit.
    pub(super) time: JournalClock,
    /// Sequence of the next event.
    pub(super) next_seq: u64,
    pub(super) segments: SegmentMap,
    pub(super) keys: KeyIndex,
    /// Damaged ranges that recovery has counted. Each entry contains the name of the segment file and the start offset of a
    /// range.
    pub(super) corruption: HashSet<(String, u64)>,
    /// Segments that the background thread must seal.
    pub(super) unsealed: Vec<Arc<Segment>>,
    pub(super) writer: WriterState,
    pub(super) reserve_exists: bool,
}

/// Locks the directory, recovers the unconfirmed events after a crash, and starts a new segment with a new log id.
pub(super) fn open(
    disk: &dyn Disk,
    clock: &Arc<dyn Clock>,
    random: &dyn Random,
    options: &Options,
    metrics: &Metrics,
) -> Result<Recovered, OpenError> {
    let lock = lock_directory(disk)?;
    let log = LogId(context(random.next_u64(), || NO_RANDOM.into())?);
    let segment_name = |ordinal, first_seq| context(SegmentName::new(ordinal, first_seq, random), || NO_RANDOM.into());
    let no_meta = || format!("{META_FILE}: cannot use the journal's meta file");
    let meta = context(MetaFile::open(disk, random), no_meta)?;
    context(delete_leftovers(disk), || "cannot delete a leftover file from the journal".into())?;
    let mut scan = context(DirectoryScan::read(disk), || "cannot read the journal".into())?;
    let newest_ids = scan.segments.iter().rev().find_map(|segment| Some(segment.header.as_ref()?.identity));
    let identity = context(meta.identity(disk, random, newest_ids, metrics), no_meta)?;
    let time = JournalClock::continue_after(scan.last_commit, &scan.wall_offsets, clock, &metrics.journal);
    let corruption = report_corruption(disk, &scan, metrics);
    for file in scan.unused.iter().map(|name| name.segment_file()) {
        context(disk.remove(&file), || format!("{file}: cannot delete the empty segment"))?;
    }
    let keys = KeyIndex::new(options.key_limits(), Arc::new(KeyDamage::new(metrics.journal.damaged.clone())));
    scan.lost.iter().for_each(|range| _ = keys.forget(range.clone()));
    report_missing(&scan, options, &keys, metrics);
    scan.lost_newest.iter().for_each(|lost| report_missing_newest(lost, &scan, options, &keys, metrics));
    let (owner, lost_newest) = (scan.owner, scan.lost_newest.map(|lost| lost.owner));

    let newest = scan.segments.last().map(|segment| segment.name).max(lost_newest.map(|owner| owner.newest));
    let mut ordinal = newest.map_or(1, |newest| newest.ordinal + 1);
    // The unreadable part of the newest segment may contain events, so their sequences must not be used again.
    let is_unreadable = scan.segments.last().is_some_and(|segment| segment.frames.is_unreadable);
    let skipped =
        owner.filter(|owner| is_unreadable && newest.map(SegmentName::place) == Some(owner.newest.place())).or(lost_newest);
    let next_seq = scan.log_end().max(skipped.map_or(0, |owner| owner.bound));
    let segments = SegmentMap::new((!options.forwards).then(|| scan.backlog_end()));
    let mut unsealed = Vec::new();
    for scanned in &scan.segments {
        let segment = adopt(disk, scanned, scan.durable_watermark, &keys)?;
        // Sealing would truncate the part of the segment that cannot be read.
        if !segment.is_sealed() && !scanned.frames.is_unreadable {
            unsealed.push(segment.clone());
        }
        segments.add(segment);
    }
    if !scan.unconfirmed.is_empty() {
        let copy = unconfirmed::copy(disk, &scan, log, segment_name(ordinal, scan.durable_watermark)?, identity, &keys)?;
        ordinal += 1;
        unsealed.push(copy.clone());
        segments.add(copy);
    }
    context(load_keys(disk, &mut scan, &keys), || "cannot sync the journal's directory".into())?;
    restore_cursors(&scan, &segments, options, metrics);
    let header = FirstSegment { name: segment_name(ordinal, next_seq)?, log, identity, times: time.times() };
    let owner = owner.unwrap_or(OwnerRecord { number: 0, log, newest: header.name, bound: next_seq });
    let writer = first_segment::start(disk, options, lock, header, &segments, &keys, owner)?;
    // The record of a release and the name of a replacement may be only in the page cache, and a power cut could lose them. By now
    // both are synced: the list in the new segment does not contain the released segments.
    for name in &scan.released {
        let removed = if is_recorded_as_lost(&scan, *name) { set_aside(disk, *name) } else { delete_released(disk, *name) };
        context(removed, || format!("{}: cannot delete the segment", name.segment_file()))?;
    }
    let reserve_exists = restore_reserve(disk, options.limits.segment_size);
    Ok(Recovered { log, identity, time, next_seq, segments, keys, corruption, unsealed, writer, reserve_exists })
}

/// Locks and syncs the directory. After a kill, the names of files may exist only in memory, and recovery relies on the names that
/// it finds.
fn lock_directory(disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, OpenError> {
    let without_lock = |error: io::Error| if is_planted("unchecked lock") { disk.open(LOCK_FILE) } else { Err(error) };
    let lock = disk.lock(LOCK_FILE).or_else(without_lock).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => OpenError::Io { what: format!("{LOCK_FILE}: cannot open the journal's lock file"), source },
    })?;
    context(disk.sync_dir(), || "cannot sync the journal's directory".into())?;
    Ok(lock)
}

/// Deletes spare files, temporary files of interrupted writes, and summary files of deleted segments. Leaves files with other
/// names, which are not ours.
fn delete_leftovers(disk: &dyn Disk) -> io::Result<()> {
    let files = disk.list()?;
    let has_segment = |name: SegmentName| files.iter().any(|(file, _)| *file == name.segment_file());
    for (file, _) in &files {
        let is_orphan = SegmentName::parse(file, SUMMARY_EXT).is_some_and(|name| !has_segment(name));
        let is_spare = file == NEW_SPARE || SegmentName::parse(file, SPARE_EXT).is_some();
        let is_temporary = file.strip_suffix(TEMPORARY_EXT).is_some_and(|file| {
            let extensions = [SEGMENT_EXT, KEYS_EXT, SUMMARY_EXT];
            [META_FILE, SENDERS_FILE, REPLAYS_FILE].contains(&file)
                || is_parked_file(file)
                || extensions.iter().any(|ext| SegmentName::parse(file, ext).is_some())
        });
        if is_temporary || is_spare || is_orphan {
            in_file(disk.remove(file), || file.clone())?;
        }
    }
    Ok(())
}

/// Deletes a segment whose release is recorded, and its summary. The key file remains.
fn delete_released(disk: &dyn Disk, name: SegmentName) -> io::Result<()> {
    disk.remove(&name.segment_file())?;
    match disk.remove(&name.summary_file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns true if the journal has recorded this segment as lost. An operator has then restored the file too late: hookhold may have
/// stored retries of its events, and the cursors have passed its place.
fn is_recorded_as_lost(scan: &DirectoryScan, name: SegmentName) -> bool {
    let exists = scan.segments.iter().any(|segment| segment.name.place() == name.place());
    !exists && scan.lost.iter().any(|range| range.contains(&name.first_seq))
}

/// Renames a segment that the journal does not read any more but must not delete.
fn set_aside(disk: &dyn Disk, name: SegmentName) -> io::Result<()> {
    let (file, aside) = (name.segment_file(), format!("{}{LOST_EXT}", name.segment_file()));
    tracing::error!(
        file,
        aside,
        "the journal has already counted the events of this segment as lost, so hookhold renames the file and does not read it; to \
         read its events, move it under its old name to an empty directory and use `hookhold tail` there"
    );
    disk.rename(&file, &aside)
}

/// Counts the events of missing segments as lost, and forgets their keys. If hookhold forwards events, the keys of events below
/// all cursors remain, because Kafka has these events.
fn report_missing(scan: &DirectoryScan, options: &Options, keys: &KeyIndex, metrics: &Metrics) {
    let lowest = lowest_cursor(scan, options);
    for ListedSegment { name, next_seq } in scan.missing.iter().filter(|_| !is_planted("gap taken for a release")) {
        let from = name.first_seq.max(lowest);
        metrics.journal.damaged.inc();
        if from < *next_seq {
            metrics.journal.lost_events.with_label_values(&[MISSING]).inc_by(keys.forget(from..*next_seq));
        }
        let (file, events) = (name.segment_file(), next_seq - name.first_seq);
        tracing::error!(
            file,
            events,
            not_forwarded = next_seq.saturating_sub(from),
            "a segment is missing, so its events are lost; {RESTORE}"
        );
    }
}

/// Counts the newest segment as lost, and forgets its keys and those of the segments before it that are missing as well. Unlike the
/// number of the events, the bound of their sequences is always known. The keys of events below all cursors remain.
fn report_missing_newest(lost: &LostNewest, scan: &DirectoryScan, options: &Options, keys: &KeyIndex, metrics: &Metrics) {
    let bound = lost.owner.bound;
    let from = lost.from.max(lowest_cursor(scan, options)).min(lost.known_end);
    metrics.journal.damaged.inc();
    let events = keys.forget(from..lost.known_end);
    metrics.journal.lost_events.with_label_values(&[MISSING]).inc_by(events);
    _ = keys.forget(lost.known_end..bound);
    let segment = lost.owner.newest.segment_file();
    tracing::error!(segment, from, events, "the newest segment is missing, so its events are lost; {RESTORE}");
}

/// Returns the sequence below which Kafka has all events; 0 if this is not known.
fn lowest_cursor(scan: &DirectoryScan, options: &Options) -> u64 {
    let knows_all = options.forwards && scan.cursors.is_complete;
    scan.cursors.cursors.iter().map(|(_, cursor)| *cursor).min().filter(|_| knows_all).unwrap_or(0)
}

fn report_corruption(disk: &dyn Disk, scan: &DirectoryScan, metrics: &Metrics) -> HashSet<(String, u64)> {
    let mut reported = HashSet::new();
    for segment in scan.segments.iter().filter(|segment| segment.summary.is_none()) {
        if segment.frames.is_unreadable {
            metrics.journal.damaged.inc();
            tracing::error!(segment = segment.name.segment_file(), "{UNREADABLE}");
            // Its bytes may be intact, so nothing shows yet that events are lost.
            continue;
        }
        for range in segment.corruption(scan.durable_watermark) {
            metrics.journal.damaged.inc();
            tracing::error!(segment = segment.name.segment_file(), from = range.start, to = range.end, "{DAMAGED}");
            quarantine::copy(disk, &segment.name.segment_file(), &range);
            reported.insert((segment.name.segment_file(), range.start));
        }
    }
    reported
}

/// Returns a scanned segment. If it is unsealed, adds its keys to the key index.
fn adopt(disk: &dyn Disk, scanned: &ScannedSegment, watermark: u64, keys: &KeyIndex) -> Result<Arc<Segment>, OpenError> {
    let (name, size) = (scanned.name, scanned.size);
    let file = context(disk.open(&name.segment_file()), || format!("{}: cannot open the segment", name.segment_file()))?;
    let replaced = scanned.header.as_ref().map_or_else(Vec::new, |header| header.replaced.clone());
    if let Some(summary) = &scanned.summary {
        return Ok(Segment::replacing(name, replaced, file, size, summary.clone(), SegmentState::Sealed));
    }
    let below = watermark.min(scanned.superseded_from);
    let durable = scanned.frames.events.iter().filter(|frame| frame.header.seq < below);
    keys.add(name, durable.filter_map(ScannedFrame::key));
    let summary = scanned.summary_below(watermark);
    Ok(Segment::replacing(name, replaced, file, size, summary, SegmentState::Unsealed))
}

/// Loads the key files. Counts those that are missing or damaged, unless sealing writes their keys again.
fn load_keys(disk: &dyn Disk, scan: &mut DirectoryScan, keys: &KeyIndex) -> io::Result<()> {
    let has_segment = |id| scan.segments.iter().flat_map(ScannedSegment::rebuilt_key_ids).any(|existing| existing == id);
    keys::report_missing(keys, &scan.keys, &scan.listed_keys, has_segment);
    for segment in &scan.segments {
        keys::report_missing_of_segment(keys, &scan.keys, &scan.listed_keys, segment.name, segment.needed_key_ids());
    }
    let unsealed = scan.segments.iter().filter(|segment| segment.summary.is_none() && !segment.frames.is_unreadable);
    let rebuilt = unsealed.flat_map(ScannedSegment::rebuilt_key_ids).collect();
    keys::load(keys, std::mem::take(&mut scan.keys), &rebuilt, disk)
}

fn restore_cursors(scan: &DirectoryScan, segments: &SegmentMap, options: &Options, metrics: &Metrics) {
    // The first startup of a journal may have been interrupted before it saved the cursors.
    let is_new = scan.log_end() == 0 && scan.segments.iter().all(|segment| !segment.frames.is_unreadable);
    if !scan.cursors.is_complete && !is_new {
        metrics.journal.damaged.inc();
        tracing::error!(
            found = scan.cursors.cursors.len(),
            "the cursors are damaged, so every topic without a cursor restarts at its oldest event; check the disk"
        );
    }
    for (topic, cursor) in &scan.cursors.cursors {
        segments.move_cursor(topic, (*cursor).min(scan.log_end()));
    }
    if options.forwards {
        for topic in segments.topic_cursors(true) {
            segments.move_cursor(&topic.name, topic.cursor);
        }
    }
}

const UNREADABLE: &str = "the segment cannot be read, so its topics wait until it can be read; check the disk";
const RESTORE: &str = "hookhold stores retries of these events; check the disk";
/// Extension of a segment file that an operator has restored after its loss was counted.
const LOST_EXT: &str = ".lost";
/// Cause of lost events in `hookhold_lost_events_total`.
const MISSING: &str = "missing_segment";
const NO_RANDOM: &str = "the operating system returned no random number";
