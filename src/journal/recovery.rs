//! What is in the directory, and making it sure. [`assess`] only reads; [`open`] acts on it, and can be cut anywhere and run
//! again.
//!
//! The mark is the highest sequence of which some segment's name, commit or lane file says that everything below it was on disk.
//! Damage below it is rot. What is readable above it may be in the page cache only, so it is copied into a segment of its own,
//! synced and renamed before anything else happens; from then on that segment's first sequence makes the originals void.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::disk::{self, Disk, DiskFile};
use super::frame::{self, Draft, Facts, Head, Kind};
use super::keeper::write_whole;
use super::keys::{KeyFile, Keys, SeenKey};
use super::segment::{self, HEADER, Name, SPARE, Scanner, Step};
use super::segment_map::{Segment, SegmentMap};
use super::segment_summary::SegmentSummary;
use super::writer::{CURSOR_ROOM, Writer, random};
use super::{LOCK, META, OpenError, Options, RESERVE, context};
use crate::clock::UnixMillis;
use crate::event::LogId;
use crate::metrics::Metrics;

/// What lies in the directory.
pub struct Found {
    /// Segments, oldest first.
    pub segments: Vec<FoundSegment>,
    /// Segments in which nothing was ever written: they count for nothing.
    pub empty: Vec<Name>,
    /// Every event below this sequence was on disk before the last opening ended.
    pub mark: u64,
    /// Readable events above the mark, without a gap: index of the segment, and the frame.
    pub tail: Vec<(usize, FrameAt)>,
    /// The newest snapshot of the cursors. `None`: there is none, although every segment begins with one.
    pub cursors: Option<Vec<(Arc<str>, u64)>>,
}

/// One segment as it was found.
pub struct FoundSegment {
    /// Its name.
    pub name: Name,
    /// The file, open for reading.
    pub file: Arc<dyn DiskFile>,
    /// Its size in bytes.
    pub size: u64,
    /// True if it begins with its own header.
    pub has_header: bool,
    /// Everything in it from this sequence on is void.
    pub bound: u64,
    /// True if the segment behind it was the next to be created: its events then reach up to `bound`. False if others have
    /// been deleted in between.
    pub adjoins: bool,
    /// Its lane file, if it is sealed.
    pub table: Option<SegmentSummary>,
    /// Its frames, if they were read.
    pub scan: Scan,
}

/// What walking a segment's frames found.
#[derive(Default)]
pub struct Scan {
    /// Its events.
    pub events: Vec<FrameAt>,
    /// The highest mark in it.
    pub mark: u64,
    /// The last snapshot of the cursors in it.
    pub cursors: Option<Vec<(Arc<str>, u64)>>,
    /// Damaged bytes, each with the next genuine frame.
    pub damage: Vec<(Range<u64>, Head)>,
    /// The sequence up to which its commits reach.
    pub reach: u64,
}

/// A genuine event frame.
pub struct FrameAt {
    /// Where it begins.
    pub offset: u64,
    /// Its head.
    pub head: Head,
    /// Its key, arrival and lane; `None`: this version cannot read it.
    pub facts: Option<Facts>,
}

impl FoundSegment {
    /// Ranges of it that are damaged although they lie below `mark`.
    pub fn rot(&self, mark: u64) -> Vec<Range<u64>> {
        let below = mark.min(self.until());
        // A commit is written once everything in front of it has been synced; other frames may be left of a torn one.
        let is_rot = |next: &Head| next.kind == Kind::Commit || next.seq < below;
        let damage = self.scan.damage.iter().filter(|(_, next)| is_rot(next)).map(|(range, _)| range.clone());
        let mut rot: Vec<_> = damage.collect();
        let last = self.scan.events.iter().rev().find(|frame| frame.head.seq < below);
        let end = last.map_or(HEADER, |frame| frame.offset + frame::padded(frame.head.len) as u64);
        if last.map_or(self.name.first, |frame| frame.head.seq + 1) < below && rot.last().is_none_or(|range| range.end <= end) {
            rot.push(end..self.size);
        }
        if !self.has_header && last.is_some() {
            rot.insert(0, 0..HEADER);
        }
        rot
    }

    /// The sequence up to which its events should reach.
    fn until(&self) -> u64 {
        if self.adjoins || self.table.is_some() { self.bound } else { self.bound.min(self.scan.reach) }
    }

    fn table_below(&self, mark: u64) -> SegmentSummary {
        let below = mark.min(self.until());
        let mut table = SegmentSummary::empty(self.name.first);
        for frame in self.scan.events.iter().filter(|frame| frame.head.seq < below) {
            let bytes = frame::padded(frame.head.len) as u64;
            if let Some(facts) = &frame.facts {
                table.add(&facts.lane, frame.head.seq, bytes, facts.received_at);
            }
            table.end = frame.offset + bytes;
        }
        if table.next < below {
            // Its end is rotten: it must not be cut off with what is free, and nobody knows how old it is. It stays until its
            // space is needed.
            table.end = self.size;
            table.newest = UnixMillis(u64::MAX);
            table.next = below;
        }
        table
    }
}

impl Found {
    /// What a segment holds below `next`: its lane file, else what its frames say.
    pub fn table(&self, index: usize, next: u64) -> SegmentSummary {
        let found = &self.segments[index];
        if let Some(table) = &found.table {
            return table.clone();
        }
        let mut table = SegmentSummary::empty(found.name.first);
        for frame in self.frames(index).filter(|frame| frame.head.seq < next) {
            if let Some(facts) = &frame.facts {
                table.add(&facts.lane, frame.head.seq, frame::padded(frame.head.len) as u64, facts.received_at);
            }
        }
        table
    }

    /// Reads the frames of a sealed segment; those of the others have been read.
    pub fn read(&mut self, index: usize) -> io::Result<()> {
        let found = &mut self.segments[index];
        if found.table.is_some() && found.scan.events.is_empty() {
            found.scan = scan(found)?;
        }
        Ok(())
    }

    /// Drops the frames of a sealed segment, so that looking at a large journal needs the memory of one segment.
    pub fn forget(&mut self, index: usize) {
        let found = &mut self.segments[index];
        if found.table.is_some() {
            found.scan = Scan::default();
        }
    }

    /// The events of a segment, as far as its frames have been read.
    pub fn frames(&self, index: usize) -> impl Iterator<Item = &FrameAt> {
        let tail = self.tail.iter().filter(move |(segment, _)| *segment == index).map(|(_, frame)| frame);
        self.segments[index].scan.events.iter().chain(tail)
    }
}

/// Reads the directory without changing anything: headers of all segments, frames of those that are not sealed, and of the
/// newest ones until the cursors are found.
pub fn assess(disk: &dyn Disk) -> io::Result<Found> {
    let (mut segments, mut empty) = (Vec::new(), Vec::new());
    for (name, size) in segment::list(disk)? {
        let file = disk.open(&name.segment())?;
        let has_header = segment::has_header(&*file, name)?;
        let sealed = KeyFile::open(disk, name)?.is_some();
        let table = if sealed { SegmentSummary::open(disk, name)? } else { None };
        if table.is_none() && !segment::is_begun(disk, &file, name, size)? {
            empty.push(name);
            continue;
        }
        segments.push(FoundSegment {
            name,
            file,
            size,
            has_header,
            bound: u64::MAX,
            adjoins: true,
            table,
            scan: Scan::default(),
        });
    }
    let (mut bound, mut behind) = (u64::MAX, None);
    for found in segments.iter_mut().rev() {
        found.adjoins = behind.is_none_or(|behind| behind == found.name.ordinal + 1);
        behind = Some(found.name.ordinal);
        found.bound = bound.min(found.table.as_ref().map_or(u64::MAX, |table| table.next));
        bound = bound.min(found.name.first);
    }
    let mut cursors = None;
    for found in segments.iter_mut().rev() {
        if found.table.is_none() || cursors.is_none() {
            found.scan = scan(found)?;
            cursors = cursors.or_else(|| found.scan.cursors.clone());
        }
    }
    let marks = segments.iter().map(|found| {
        let table = found.table.as_ref().map_or(0, |table| table.next);
        found.name.first.max(found.scan.mark).max(table)
    });
    let mark = marks.max().unwrap_or(0);
    let tail = tail(&mut segments, mark);
    Ok(Found { segments, empty, mark, tail, cursors })
}

fn scan(found: &FoundSegment) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut next = found.name.first;
    let mut scanner = Scanner::new(found.file.clone(), found.name.id, HEADER, found.size);
    let mut damaged = None;
    loop {
        let fits =
            |head: &Head| head.seq >= next && (head.seq < found.bound || head.kind != Kind::Event && head.seq == found.bound);
        let offset = scanner.offset();
        match scanner.step(fits)? {
            Step::End(_) => return Ok(scan),
            Step::Damage(range) => damaged = Some(range),
            Step::Frame(head) => {
                scan.damage.extend(damaged.take().map(|range| (range, head)));
                match head.kind {
                    Kind::Event => {
                        next = head.seq + 1;
                        scan.reach = scan.reach.max(next);
                        scan.events.push(FrameAt { offset, head, facts: frame::facts(scanner.frame()) });
                    }
                    Kind::Commit => {
                        if let Some(commit) = frame::decode_commit(scanner.frame()) {
                            scan.mark = scan.mark.max(commit.mark);
                            scan.reach = scan.reach.max(commit.mark + u64::from(commit.count));
                        }
                    }
                    Kind::Cursors => scan.cursors = frame::decode_cursors(scanner.frame()).or(scan.cursors),
                }
            }
        }
    }
}

/// Takes the events above the mark out of the scans, as far as they go on without a gap.
fn tail(segments: &mut [FoundSegment], mark: u64) -> Vec<(usize, FrameAt)> {
    let mut tail: Vec<(usize, FrameAt)> = Vec::new();
    for (index, found) in segments.iter_mut().enumerate() {
        let above = found.scan.events.partition_point(|frame| frame.head.seq < mark);
        for frame in found.scan.events.split_off(above) {
            if frame.head.seq == mark + tail.len() as u64 {
                tail.push((index, frame));
            }
        }
    }
    tail
}

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
    let has_reserve = lay_in_reserve(disk, options.segment_size);
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

/// The hash key, drawn at the first start. A journal with segments but without it would take every repeat for new.
fn meta(disk: &dyn Disk) -> io::Result<[u8; 16]> {
    let mut bytes = [0; META_LEN];
    match disk.open(META) {
        Ok(file) => {
            let got = file.read_at(&mut bytes, 0)?;
            let genuine =
                got == META_LEN && &bytes[..8] == META_MAGIC && bytes[28..] == crc32c::crc32c(&bytes[..28]).to_le_bytes();
            if !genuine {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged; restore it from a copy of the directory"));
            }
            if bytes[8..12] != segment::FORMAT.to_le_bytes() {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "a later version of hookhold wrote it"));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !segment::list(disk)?.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "it is missing, but there are segments; restore it"));
            }
            bytes[..8].copy_from_slice(META_MAGIC);
            bytes[8..12].copy_from_slice(&segment::FORMAT.to_le_bytes());
            getrandom::fill(&mut bytes[12..28]).map_err(io::Error::other)?;
            let crc = crc32c::crc32c(&bytes[..28]);
            bytes[28..].copy_from_slice(&crc.to_le_bytes());
            write_whole(disk, META, &bytes)?;
            disk.sync_dir()?;
        }
        Err(error) => return Err(error),
    }
    Ok(bytes[12..28].try_into().expect("16 bytes"))
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

fn note<'a>(keys: &Keys, name: Name, frames: impl Iterator<Item = &'a FrameAt>) {
    keys.note(
        name,
        frames.filter_map(|frame| {
            let facts = frame.facts.as_ref()?;
            Some((facts.key?, SeenKey { first_seen: facts.received_at, seq: frame.head.seq }))
        }),
    );
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

/// Copies the tail into a segment that is complete before it has a name.
fn copy_tail(disk: &dyn Disk, found: &Found, log: LogId, ordinal: u64, keys: &Keys) -> Result<Arc<Segment>, OpenError> {
    let name = Name { ordinal, first: found.mark, id: context(random(), || "no random numbers".into())? };
    let (bytes, table) = context(lay_out_tail(found, log, name), || "the newest events could not be read".into())?;
    let write = || {
        write_whole(disk, &name.segment(), &bytes).or_else(|error| {
            if !disk::is_full(&error) {
                return Err(error);
            }
            disk.remove(RESERVE).map_err(|_| error)?;
            write_whole(disk, &name.segment(), &bytes)
        })?;
        disk.sync_dir()?;
        disk.open(&name.segment())
    };
    let file = write().map_err(|source| match disk::is_full(&source) {
        true => OpenError::NoRoom { bytes: bytes.len() as u64 },
        false => OpenError::Io { what: "the newest events could not be copied".into(), source },
    })?;
    tracing::info!(events = found.tail.len(), segment = name.segment(), "recovered events that a crash left unsure");
    note(keys, name, found.tail.iter().map(|(_, frame)| frame));
    Ok(Segment::new(name, file, bytes.len() as u64, table, false))
}

/// The bytes of the copy. It ends with a commit that carries the mark behind its last event: it is whole or not there.
fn lay_out_tail(found: &Found, log: LogId, name: Name) -> io::Result<(Vec<u8>, SegmentSummary)> {
    let next = found.mark + found.tail.len() as u64;
    let mut out = segment::header(name, log).to_vec();
    let cursors = found.cursors.as_deref().unwrap_or_default();
    let cursors = Draft::cursors(cursors.iter().map(|(lane, cursor)| (lane, *cursor)));
    let events = found.tail.iter().map(|(_, frame)| frame::padded(frame.head.len) as u64).sum::<u64>();
    let others = cursors.padded_len() as u64 + events;
    Draft::commit(found.mark, found.tail.len() as u32, others).seal_into(&mut out, log, found.mark, name.id);
    cursors.seal_into(&mut out, log, found.mark, name.id);
    let mut table = SegmentSummary::empty(found.mark);
    let mut frame = Vec::new();
    for (index, at) in &found.tail {
        frame.resize(at.head.len, 0);
        let got = found.segments[*index].file.read_at(&mut frame, at.offset)?;
        if got < frame.len() || !frame::is_genuine(&frame, found.segments[*index].name.id) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame changed between two reads"));
        }
        frame::copy_into(&frame, &mut out, &at.head, name.id);
        table.next = at.head.seq + 1;
        if let Some(facts) = &at.facts {
            table.add(&facts.lane, at.head.seq, frame::padded(at.head.len) as u64, facts.received_at);
        }
    }
    Draft::commit(next, 0, 0).seal_into(&mut out, log, next, name.id);
    table.end = out.len() as u64;
    Ok((out, table))
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
    let mut bytes = segment::header(name, log).to_vec();
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
        let (file, size) = create(options.segment_size.max(small)).or_else(or_smaller).or_else(or_reserve)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        disk.sync_dir()?;
        lock.write_at(&super::writer::published(log, next), 0)?;
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

const META_MAGIC: &[u8; 8] = b"hookmeta";
const META_LEN: usize = 32;
