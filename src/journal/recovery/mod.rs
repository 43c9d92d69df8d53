//! What is in the directory, and making it sure. [`assess`] only reads; [`open`] acts on it, and can be cut anywhere and run
//! again.
//!
//! The mark is the highest sequence of which some segment's name, commit or lane file says that everything below it was on disk.
//! Damage below it is rot. What is readable above it may be in the page cache only, so it is copied into a segment of its own,
//! synced and renamed before anything else happens; from then on that segment's first sequence makes the originals void.

mod meta;
mod tail_copy;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::directory_scan::{Found, FoundSegment, FrameAt, assess};
use super::disk::{self, Disk, DiskFile};
use super::errors::context;
use super::frame::Draft;
use super::keys::{KeyFile, Keys, SeenKey};
use super::lock_file::published;
use super::segment::Segment;
use super::segment_file::{self, CURSOR_ROOM, Name, SPARE, random};
use super::segment_map::SegmentMap;
use super::segment_summary::SegmentSummary;
use super::writer::Writer;
use super::{LOCK, META, OpenError, Options, RESERVE};
use crate::event::LogId;
use crate::metrics::Metrics;
use meta::meta;
use tail_copy::copy_tail;

/// What an opened journal begins with.
pub struct Opened {
    /// The random id of this opening.
    pub log: LogId,
    /// From the meta file.
    pub hash_key: [u8; 16],
    /// The sequence of the next event.
    pub next: u64,
    /// Segments and lanes.
    pub catalog: SegmentMap,
    /// Seen keys.
    pub keys: Keys,
    /// Damage that has been counted: segment file and offset.
    pub rot: HashSet<(String, u64)>,
    /// Segments that the keeper shall seal.
    pub unsealed: Vec<Arc<Segment>>,
    /// The writer's beginning.
    pub writer: Writer,
    /// The reserve is there.
    pub has_reserve: bool,
}

/// Locks the directory, recovers what a crash left, and begins a new segment under a new log id.
pub fn open(disk: &dyn Disk, options: &Options, metrics: &Metrics) -> Result<Opened, OpenError> {
    let lock = disk.lock(LOCK).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => OpenError::Io { what: "the journal's lock file could not be opened".into(), source },
    })?;
    let log = LogId(context(random(), || "no random numbers".into())?);
    context(remove_leftovers(disk), || "leftovers of an earlier start could not be deleted".into())?;
    let hash_key = context(meta(disk), || format!("{META}: the journal's meta file could not be used"))?;
    let found = context(assess(disk), || "the journal could not be read".into())?;
    let rot = report_rot(&found, metrics);
    for name in &found.empty {
        context(disk.remove(&name.segment()), || format!("{}: the empty segment could not be deleted", name.segment()))?;
    }

    let mut ordinal = found.segments.last().map_or(1, |last| last.name.ordinal + 1);
    let next = found.mark + found.tail.len() as u64;
    let catalog = SegmentMap::default();
    let keys = Keys::default();
    let mut unsealed = Vec::new();
    for segment in &found.segments {
        let entry = adopt(disk, segment, found.mark, &keys)?;
        if !entry.sealed.load(std::sync::atomic::Ordering::Relaxed) {
            unsealed.push(entry.clone());
        }
        catalog.add(entry);
    }
    if !found.tail.is_empty() {
        let copied = copy_tail(disk, &found, log, ordinal, &keys)?;
        ordinal += 1;
        unsealed.push(copied.clone());
        catalog.add(copied);
    }
    orphaned_keys(disk, &found, &keys, metrics)
        .map_err(|source| OpenError::Io { what: "a key file could not be read or deleted".into(), source })?;
    if found.cursors.is_none() && !found.segments.is_empty() {
        metrics.journal.damaged.inc();
        tracing::error!("all cursors are lost to damage: every topic starts again at its oldest event");
    }
    for (lane, cursor) in found.cursors.iter().flatten() {
        catalog.move_cursor(lane, (*cursor).min(next));
    }
    if options.forwards {
        for lane in catalog.lanes(true) {
            catalog.move_cursor(&lane.name, lane.cursor);
        }
    }
    let writer = begin(disk, options, lock, log, next, ordinal, &catalog)?;
    let has_reserve = lay_in_reserve(disk, options.limits.segment_size);
    Ok(Opened { log, hash_key, next, catalog, keys, unsealed, rot, writer, has_reserve })
}

/// Temporary files of a cut write, spare files, and lane files of segments that have been deleted.
fn remove_leftovers(disk: &dyn Disk) -> io::Result<()> {
    let files = disk.list()?;
    let has_segment = |lanes: Name| files.iter().any(|(file, _)| *file == lanes.segment());
    for (file, _) in &files {
        let is_orphan = Name::parse(file, ".lanes").is_some_and(|name| !has_segment(name));
        if file.ends_with(".tmp") || file.ends_with(SPARE) || is_orphan {
            disk.remove(file)?;
        }
    }
    Ok(())
}

fn report_rot(found: &Found, metrics: &Metrics) -> HashSet<(String, u64)> {
    let mut known = HashSet::new();
    for segment in found.segments.iter().filter(|segment| segment.table.is_none()) {
        for range in segment.rot(found.mark) {
            metrics.journal.damaged.inc();
            tracing::error!(
                segment = segment.name.segment(),
                from = range.start,
                to = range.end,
                "damaged bytes in the journal below its durable mark: the events in them are lost, their keys are forgotten",
            );
            known.insert((segment.name.segment(), range.start));
        }
    }
    known
}

fn adopt(disk: &dyn Disk, found: &FoundSegment, mark: u64, keys: &Keys) -> Result<Arc<Segment>, OpenError> {
    let (name, file) = (found.name, found.file.clone());
    if let Some(table) = &found.table {
        let file_of_keys = context(KeyFile::open(disk, name), || format!("{} could not be read", name.keys()))?;
        keys.seal(name, file_of_keys);
        return Ok(Segment::new(name, file, found.size, table.clone(), true));
    }
    let below = mark.min(found.bound);
    note(keys, name, found.scan.events.iter().filter(|frame| frame.head.seq < below));
    Ok(Segment::new(name, file, found.size, found.table_below(mark), false))
}

/// Key files whose segment is gone still count, as long as there are keys in them.
fn orphaned_keys(disk: &dyn Disk, found: &Found, keys: &Keys, metrics: &Metrics) -> io::Result<()> {
    for (file, _) in disk.list()? {
        if let Some(name) = Name::parse(&file, ".keys")
            && !found.segments.iter().any(|segment| segment.name == name)
        {
            let file = KeyFile::open(disk, name)?;
            if file.as_ref().is_some_and(|file| !file.has_keys()) {
                disk.remove(&name.keys())?;
            }
            if file.is_none() {
                metrics.journal.damaged.inc();
                tracing::error!(file = name.keys(), "a damaged key file: repeats of its events can no longer be recognised");
            }
            keys.seal(name, file);
        }
    }
    Ok(())
}

/// Begins the segment of this opening: once it is synced, everything above the mark in older ones is void. On a full disk a
/// small one must do, if need be in place of the reserve: Kafka's acknowledgements can then free space.
fn begin(
    disk: &dyn Disk,
    options: &Options,
    lock: Arc<dyn DiskFile>,
    log: LogId,
    next: u64,
    ordinal: u64,
    catalog: &SegmentMap,
) -> Result<Writer, OpenError> {
    let name = Name { ordinal, first: next, id: context(random(), || "no random numbers".into())? };
    let mut bytes = segment_file::header(name, log).to_vec();
    let cursors = catalog.cursors();
    let cursors = Draft::cursors(cursors.iter().map(|(lane, at)| (lane, *at)));
    Draft::commit(next, 0, cursors.padded_len() as u64).seal_into(&mut bytes, log, next, name.id);
    cursors.seal_into(&mut bytes, log, next, name.id);
    let at = bytes.len() as u64;
    let small = at + 4 * CURSOR_ROOM;
    let create = |size| disk.create(&name.segment(), size).map(|file| (file, size));
    let or_smaller = |error: io::Error| if disk::is_full(&error) { create(small) } else { Err(error) };
    let or_reserve = |error: io::Error| match disk::is_full(&error) && disk.remove(RESERVE).is_ok() {
        true => create(small),
        false => Err(error),
    };
    let start = || {
        let (file, size) = create(options.limits.segment_size.max(small)).or_else(or_smaller).or_else(or_reserve)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        disk.sync_dir()?;
        lock.write_at(&published(log, next), 0)?;
        Ok((file, size))
    };
    let (file, size) = start().map_err(|source| match disk::is_full(&source) {
        true => OpenError::NoRoom { bytes: small },
        false => OpenError::Io { what: "no segment could be begun".into(), source },
    })?;
    let mut table = SegmentSummary::empty(next);
    table.end = at;
    let active = Segment::new(name, file, size, table, false);
    catalog.add(active.clone());
    Ok(Writer { active, at, next, lock, ordinal: ordinal + 1 })
}

/// After a power cut the reserve's name may be there without its space. True: it is there now.
fn lay_in_reserve(disk: &dyn Disk, size: u64) -> bool {
    if disk.list().is_ok_and(|files| files.iter().any(|(name, bytes)| name == RESERVE && *bytes >= size)) {
        return true;
    }
    drop(disk.remove(RESERVE));
    disk.create(RESERVE, size).inspect_err(|error| tracing::warn!(%error, "no room for the reserve")).is_ok()
}

fn note<'a>(keys: &Keys, name: Name, frames: impl Iterator<Item = &'a FrameAt>) {
    keys.note(
        name,
        frames.filter_map(|frame| {
            let facts = frame.facts.as_ref()?;
            Some((facts.key?, SeenKey { first_seen: facts.received_at, seq: frame.head.seq }))
        }),
    );
}
