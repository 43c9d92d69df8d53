//! The journal as another process sees it: read-only, also while `run` writes it. Behind `tail`, `journal stat` and
//! `journal verify`.
//!
//! While the lock is held the writer publishes its mark at the start of the lock file, and nothing beyond it is shown. While
//! it is not, the recorded marks count, and behind them whatever the next start would recover.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::LOCK;
use super::backlog::Backlogs;
use super::directory_scan::{Found, FrameAt, assess};
use super::disk::{Disk, DiskFile};
use super::frame::{self, Head, Kind};
use super::frame_scanner::{Scanner, Step};
use super::reader::StoredEvent;
use super::segment_file::{self, HEADER, Name};
use super::segment_summary::SegmentSummary;
use crate::event::Position;

/// A journal that is only read.
pub struct ReadOnlyJournal {
    disk: Arc<dyn Disk>,
    next: u64,
    limit: u64,
    open: Option<(Name, Scanner, Option<u64>)>,
}

/// Sizes, cursors and lag of a journal.
#[derive(Clone, Debug)]
pub struct JournalStat {
    /// True while `run` has it open.
    pub in_use: bool,
    /// Segment files.
    pub segments: u64,
    /// Bytes that they occupy.
    pub bytes: u64,
    /// Bytes of all key files.
    pub key_bytes: u64,
    /// Events that can be read.
    pub events: u64,
    /// The oldest sequence.
    pub oldest: u64,
    /// The sequence of the next event.
    pub next: u64,
    /// Every lane that has events or a cursor.
    pub topics: Vec<TopicStat>,
}

/// One lane of a [`JournalStat`].
#[derive(Clone, Debug)]
pub struct TopicStat {
    /// The topic.
    pub topic: Arc<str>,
    /// Everything below is acknowledged; `None`: nothing of this lane has ever been passed on.
    pub cursor: Option<u64>,
    /// Events that wait for Kafka.
    pub waiting: u64,
    /// Events that are kept.
    pub events: u64,
    /// Bytes that they occupy.
    pub bytes: u64,
    /// Bytes that cannot be deleted before this lane has passed them on.
    pub pinned: u64,
}

/// Bytes below the durable mark that are no frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The file in the journal's directory.
    pub file: String,
    /// The damaged bytes.
    pub bytes: Range<u64>,
}

/// What checking every frame found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Genuine events.
    pub events: u64,
    /// Segment files read.
    pub segments: u64,
    /// What is damaged.
    pub damage: Vec<DamagedRange>,
    /// Events above the durable mark, which the next start will make sure.
    pub unconfirmed: u64,
}

impl ReadOnlyJournal {
    /// Looks at the journal in `disk`, ready to read from its oldest event on.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<ReadOnlyJournal> {
        Ok(ReadOnlyJournal { disk, next: 0, limit: 0, open: None })
    }

    /// Reading goes on at `seq`, or at the oldest event if that is newer.
    pub fn seek(&mut self, seq: u64) {
        self.next = seq;
        self.open = None;
    }

    /// The sequence of the next event that will be kept, as far as it is durable now.
    pub fn log_end(&self) -> io::Result<u64> {
        match self.published()? {
            Some(mark) => Ok(mark),
            None => self.look().map(|found| found.mark + found.tail.len() as u64),
        }
    }

    /// The next event; `None`: there is none at present.
    #[allow(clippy::should_implement_trait, reason = "the end is not final, and a step can fail")]
    pub fn next(&mut self) -> io::Result<Option<StoredEvent>> {
        loop {
            if self.next >= self.limit {
                self.limit = self.log_end()?;
                if self.next >= self.limit {
                    return Ok(None);
                }
                self.catch_up()?;
            }
            let limit = self.limit;
            let Some((_, scanner, bound)) = self.settle_in()? else { return Ok(None) };
            // Frames from the limit on are not passed over: they come when the limit has moved.
            let upper = bound.unwrap_or(limit).min(limit);
            let step = scanner.step(|head: &Head| head.kind != Kind::Event || head.seq < upper)?;
            match step {
                Step::Frame(head) if head.kind == Kind::Event && head.seq >= self.next => {
                    self.next = head.seq + 1;
                    let Some((_, scanner, _)) = &self.open else { return Ok(None) };
                    if let Some(event) = frame::decode_event(scanner.frame()) {
                        return Ok(Some(StoredEvent { position: Position { log: head.log, seq: head.seq }, event }));
                    }
                }
                Step::Frame(_) | Step::Damage(_) => {}
                Step::End(_) => self.next = upper.max(self.next),
            }
        }
    }

    /// Sizes, cursors and lag. Of sealed segments only the lane files are read, but for those in which some cursor stands.
    pub fn stat(&self) -> io::Result<JournalStat> {
        let mut found = self.look()?;
        let files = self.disk.list()?;
        let key_bytes = files.iter().filter(|(name, _)| name.ends_with(".keys")).map(|(_, size)| size).sum();
        let mut stat = JournalStat {
            in_use: self.disk.is_locked(LOCK)?,
            segments: found.segments.len() as u64,
            bytes: found.segments.iter().map(|segment| segment.size).sum(),
            key_bytes,
            events: 0,
            oldest: found.segments.first().map_or(0, |segment| segment.name.first),
            next: self.published()?.unwrap_or(found.mark + found.tail.len() as u64),
            topics: Vec::new(),
        };
        for (lane, cursor) in found.cursors.iter().flatten() {
            stat.topics.push(TopicStat { cursor: Some(*cursor), ..TopicStat::empty(lane) });
        }
        let mut backlogs = Backlogs::new(found.cursors.iter().flatten().cloned().collect(), false);
        for index in 0..found.segments.len() {
            let table = found.table(index, stat.next);
            backlogs.add(&table, found.segments[index].size, index + 1 == found.segments.len());
            stat.add(&mut found, index, &table)?;
        }
        let backlogs = backlogs.lanes();
        for lane in &mut stat.topics {
            lane.pinned = backlogs.get(&lane.topic).map_or(0, |backlog| backlog.pinned());
        }
        Ok(stat)
    }

    /// Checks every frame of every segment, one segment after the other.
    pub fn verify(&self) -> io::Result<VerifyReport> {
        // Read first: the writer may be in the middle of what lies behind it.
        let published = self.published()?;
        let mut found = self.look()?;
        let mark = published.unwrap_or(found.mark);
        let mut checked = Vec::new();
        for index in 0..found.segments.len() {
            found.read(index)?;
            let events = found.frames(index).filter(|frame| frame.head.seq < mark).count() as u64;
            checked.push((found.segments[index].name, events, found.segments[index].rot(mark.min(found.mark))));
            found.forget(index);
        }
        // One that has gone since then may have been written over while it was read, so it does not count.
        let listed = segment_file::list(&*self.disk)?;
        checked.retain(|(name, ..)| listed.iter().any(|(listed, _)| listed == name));
        let mut verdict = VerifyReport { segments: checked.len() as u64, ..VerifyReport::default() };
        verdict.unconfirmed = found.tail.iter().filter(|(_, frame)| frame.head.seq >= mark).count() as u64;
        for (name, events, rot) in checked {
            verdict.events += events;
            verdict.damage.extend(rot.into_iter().map(|bytes| DamagedRange { file: name.segment(), bytes }));
        }
        Ok(verdict)
    }

    /// A segment may be deleted between being listed and being opened: then it is looked at anew.
    fn look(&self) -> io::Result<Found> {
        let mut tries = 0;
        loop {
            match assess(&*self.disk) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < RETRIES => tries += 1,
                found => return found,
            }
        }
    }

    fn published(&self) -> io::Result<Option<u64>> {
        if !self.disk.is_locked(LOCK)? {
            return Ok(None);
        }
        let file = self.disk.open(LOCK)?;
        let mut bytes = [0; 24];
        for _ in 0..RETRIES {
            let got = file.read_at(&mut bytes, 0)?;
            if got == bytes.len() && bytes[16..20] == crc32c::crc32c(&bytes[..16]).to_le_bytes() {
                return Ok(Some(u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes"))));
            }
        }
        Ok(None)
    }

    /// The newest segment has grown, or a newer one has begun behind it.
    fn catch_up(&mut self) -> io::Result<()> {
        let listed = self.listed()?;
        if let Some((name, scanner, bound)) = &mut self.open {
            scanner.refresh();
            let newer = listed.iter().filter(|segment| segment.name > *name);
            *bound = newer.map(|segment| segment.name.first).min();
        }
        Ok(())
    }

    fn settle_in(&mut self) -> io::Result<Option<&mut (Name, Scanner, Option<u64>)>> {
        let stale = self.open.as_ref().is_none_or(|(_, _, bound)| bound.is_some_and(|bound| self.next >= bound));
        if stale {
            let listed = self.listed()?;
            let index = listed.iter().rposition(|segment| segment.name.first <= self.next).unwrap_or(0);
            let bound = listed.get(index + 1).map(|segment| segment.name.first);
            let Some(Listed { name, size, file, .. }) = listed.into_iter().nth(index) else { return Ok(None) };
            self.open = Some((name, Scanner::new(file, name.id, HEADER, size), bound));
        }
        Ok(self.open.as_mut())
    }

    fn listed(&self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for (name, size) in segment_file::list(&*self.disk)? {
            match self.disk.open(&name.segment()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => {
                    let file = file?;
                    if segment_file::is_begun(&*self.disk, &file, name, size)? {
                        listed.push(Listed { name, size, file });
                    }
                }
            }
        }
        Ok(listed)
    }
}

/// A segment file that exists now.
struct Listed {
    name: Name,
    size: u64,
    file: Arc<dyn DiskFile>,
}

impl TopicStat {
    fn empty(lane: &Arc<str>) -> TopicStat {
        TopicStat { topic: lane.clone(), cursor: None, waiting: 0, events: 0, bytes: 0, pinned: 0 }
    }
}

impl JournalStat {
    /// Adds one segment with its table; where a cursor stands inside a lane's share, its frames are counted.
    fn add(&mut self, found: &mut Found, index: usize, table: &SegmentSummary) -> io::Result<()> {
        self.events += table.events();
        for range in &table.lanes {
            let at = self.topics.iter().position(|lane| lane.topic == range.lane).unwrap_or(self.topics.len());
            if at == self.topics.len() {
                self.topics.push(TopicStat::empty(&range.lane));
            }
            let lane = &mut self.topics[at];
            lane.events += range.count;
            lane.bytes += range.bytes;
            lane.waiting += match lane.cursor {
                Some(cursor) if cursor <= range.first => range.count,
                Some(cursor) if cursor <= range.last => {
                    found.read(index)?;
                    let mine = |frame: &&FrameAt| frame.facts.as_ref().is_some_and(|facts| facts.lane == range.lane);
                    let open = cursor..=range.last;
                    found.frames(index).filter(mine).filter(|frame| open.contains(&frame.head.seq)).count() as u64
                }
                _ => 0,
            };
        }
        found.forget(index);
        Ok(())
    }
}

const RETRIES: usize = 5;
