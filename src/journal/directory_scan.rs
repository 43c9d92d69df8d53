//! What is in the directory.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::frame::{self, Facts, Head, Kind};
use super::frame_scanner::{Scanner, Step};
use super::keys::KeyFile;
use super::segment_file::{self, HEADER, Name};
use super::segment_summary::SegmentSummary;
use crate::clock::UnixMillis;

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

    pub fn table_below(&self, mark: u64) -> SegmentSummary {
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
    for (name, size) in segment_file::list(disk)? {
        let file = disk.open(&name.segment())?;
        let has_header = segment_file::has_header(&*file, name)?;
        let sealed = KeyFile::open(disk, name)?.is_some();
        let table = if sealed { SegmentSummary::open(disk, name)? } else { None };
        if table.is_none() && !segment_file::is_begun(disk, &file, name, size)? {
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
