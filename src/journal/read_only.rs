//! Reads a journal without opening it for writing, even while `hookhold run` writes to it. The commands `tail`, `inspect`,
//! `journal stat` and `journal verify` use this module.
//!
//! While `hookhold run` has the journal open, the writer publishes the durable watermark at the start of the lock file. This
//! module then returns only events below that watermark. At other times, this module determines the watermark from the
//! segments. It then also returns the unconfirmed events, which hookhold would recover at the next startup.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::backlog::{Backlogs, WaitingEvents, waiting_range};
use super::directory_scan::DirectoryScan;
use super::disk::Disk;
use super::event_fields::{self, EventFields};
use super::event_standing::{self, EventStanding};
use super::frame::{self, CursorsFrame, FrameHeader, FrameKind};
use super::frame_scanner::{FrameScanner, ScanStep};
use super::lock_file::{LOCK_FILE, OwnerRecord, PublishedWatermark};
use super::reader::StoredEvent;
use super::scanned_frame::ScannedFrame;
use super::segment_file::{self, SEGMENT_HEADER_LEN};
use super::segment_name::{KEYS_EXT, SegmentName};
use super::segment_summary::{SegmentSummary, TopicRange};
use super::segment_times;
use crate::clock::UnixMillis;
use crate::event::Position;

/// Journal that is open for reading only.
pub struct ReadOnlyJournal {
    disk: Arc<dyn Disk>,
    next_seq: u64,
    /// Result of the last call of the method `log_end`, or 0 before the first call.
    log_end: u64,
    /// Log end of the journal while no process has it open, and the record of its last owner. Another process writes another
    /// record before it stores an event, so the log end needs no further scan while the record stays the same.
    stopped: Option<(OwnerRecord, u64)>,
    segment: Option<ScannedFile>,
}

/// Segment file that a [`ReadOnlyJournal`] reads.
struct ScannedFile {
    name: SegmentName,
    scanner: FrameScanner,
    /// Sequence at and above which a newer segment supersedes the events of this segment; `None` while this segment is the
    /// newest.
    superseded_from: Option<u64>,
}

/// Sizes, cursors and lag of a journal.
#[derive(Clone, Debug)]
pub struct JournalStat {
    /// Id of the journal; `None` if no segment has a readable header.
    pub id: Option<u64>,
    /// True while `hookhold run` has the journal open.
    pub in_use: bool,
    /// Number of segment files.
    pub segments: u64,
    /// Total size of all segment files in bytes.
    pub bytes: u64,
    /// Total size of all key files in bytes.
    pub key_bytes: u64,
    /// Number of readable events.
    pub events: u64,
    /// First sequence of the oldest segment.
    pub oldest: u64,
    /// Sequence of the next event.
    pub next: u64,
    /// Number of lost events, as [`VerifyReport::lost`] counts them.
    pub lost: u64,
    /// All topics with events or a cursor.
    pub topics: Vec<TopicStat>,
}

/// One topic of a [`JournalStat`].
#[derive(Clone, Debug)]
pub struct TopicStat {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Sequence below which Kafka has acknowledged every event of the topic; `None` if the topic has no cursor.
    pub cursor: Option<u64>,
    /// Number of events that wait for an acknowledgement.
    pub waiting: u64,
    /// Total size of these events in bytes.
    pub waiting_bytes: u64,
    /// Sequences of the first and the last of these events; `None` if no event waits.
    pub waiting_range: Option<(u64, u64)>,
    /// Number of stored events.
    pub events: u64,
    /// Total size of the stored events in bytes.
    pub bytes: u64,
    /// Number of bytes that hookhold cannot delete until Kafka has acknowledged the topic's events.
    pub pinned: u64,
}

/// Damaged range of a segment file: bytes below the durable watermark that are not part of a valid frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// Name of the file in the journal's directory.
    pub file: String,
    /// Offsets of the damaged bytes in the file.
    pub bytes: Range<u64>,
}

/// Result of [`ReadOnlyJournal::verify`].
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Number of valid events.
    pub events: u64,
    /// Number of checked segment files.
    pub segments: u64,
    /// All damaged ranges.
    pub damage: Vec<DamagedRange>,
    /// Names of the segment files that are missing although the journal has not deleted them.
    pub missing: Vec<String>,
    /// Number of sequences of events that were lost earlier, and whose keys hookhold has forgotten.
    pub lost: u64,
    /// Number of unconfirmed events: readable events at and above the durable watermark. hookhold copies and syncs these events
    /// at the next startup.
    pub unconfirmed: u64,
}

impl ReadOnlyJournal {
    /// Opens the journal in `disk` for reading, starting at the oldest event.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<ReadOnlyJournal> {
        Ok(ReadOnlyJournal { disk, next_seq: 0, log_end: 0, stopped: None, segment: None })
    }

    /// Moves the reading position to sequence `seq`, or to the oldest event if `seq` is lower.
    pub fn seek(&mut self, seq: u64) {
        self.next_seq = seq;
        self.segment = None;
    }

    /// Returns the sequence after the last event that can be read now.
    pub fn log_end(&mut self) -> io::Result<u64> {
        if let Some(watermark) = self.published_watermark()? {
            return Ok(watermark);
        }
        // Read the record before the segments. If a process opens the journal meanwhile, the next call finds another record.
        let (owner, is_locked) = (self.owner(), self.disk.is_locked()?);
        match self.stopped {
            Some((known, log_end)) if Some(known) == owner => return Ok(log_end),
            _ => {}
        }
        let log_end = self.readable_end(&self.scan()?)?;
        self.stopped = owner.filter(|_| !is_locked).map(|owner| (owner, log_end));
        Ok(log_end)
    }

    /// Returns the next event; `None` if no further event can be read now.
    #[allow(clippy::should_implement_trait, reason = "more events may follow after `None`, and a read can fail")]
    pub fn next(&mut self) -> io::Result<Option<StoredEvent>> {
        self.next_where(u64::MAX, |_| true)
    }

    /// Returns the next event below sequence `below` that `selects` accepts; `None` if no further one can be read now. Calls
    /// `selects` once for each event, which may be damaged: this function returns only intact events. Reads the segments in large
    /// parts, and decodes only the event that it returns.
    pub fn next_where(
        &mut self,
        below: u64,
        mut selects: impl FnMut(&EventFields<'_>) -> bool,
    ) -> io::Result<Option<StoredEvent>> {
        while self.next_seq < below {
            if self.next_seq >= self.log_end {
                self.log_end = self.log_end()?;
                if self.next_seq >= self.log_end {
                    return Ok(None);
                }
                self.refresh_segment()?;
            }
            let (log_end, next_seq) = (self.log_end, self.next_seq);
            let Some(current) = self.open_segment()? else { return Ok(None) };
            // Do not skip frames at or above the log end, because a later call must return them.
            let limit = current.superseded_from.unwrap_or(log_end).min(log_end);
            let mut is_selected = false;
            let accepts = |header: &FrameHeader| header.kind != FrameKind::Event || header.seq < limit;
            let step = current.scanner.step_skimming(accepts, |header, frame| {
                let is_searched = header.kind == FrameKind::Event && (next_seq..below).contains(&header.seq);
                let fields = if is_searched { event_fields::read(header, frame) } else { None };
                fields.is_some_and(|fields| {
                    is_selected = selects(&fields);
                    !is_selected
                })
            })?;
            match step {
                ScanStep::Frame(header) if header.kind == FrameKind::Event && header.seq >= below => {
                    // The scanner has passed the event, which a later call must return.
                    self.seek(below);
                }
                ScanStep::Frame(header) if header.kind == FrameKind::Event && header.seq >= next_seq => {
                    self.next_seq = header.seq + 1;
                    if is_selected
                        && let Some(current) = &self.segment
                        && let Some(event) = frame::decode_event(current.scanner.frame())
                    {
                        let position = Position { log: header.log, seq: header.seq };
                        return Ok(Some(StoredEvent { position, event }));
                    }
                }
                ScanStep::Frame(_) | ScanStep::Damage(_) => {}
                ScanStep::End(_) => self.next_seq = limit.max(self.next_seq),
            }
        }
        Ok(None)
    }

    /// Returns the sequences of the segments that may contain events received in this period, in order. The last range has no end,
    /// because the newest segment may still grow. Reads only the start of each segment.
    pub fn sequences_received(&self, since: Option<UnixMillis>, until: Option<UnixMillis>) -> io::Result<Vec<Range<u64>>> {
        segment_times::sequences(&*self.disk, since, until)
    }

    /// Returns the state of the forwarding of an event with this sequence to `topic`. `forwards` is true if hookhold forwards events.
    pub fn standing(&self, topic: &str, seq: u64, forwards: bool) -> io::Result<EventStanding> {
        let limit = self.published_watermark()?.unwrap_or(u64::MAX);
        event_standing::find(&*self.disk, &mut self.scan()?, limit, (topic, seq), forwards)
    }

    /// Returns the journal's sizes, cursors and lag. For a sealed segment, reads only the summary file, unless a cursor points
    /// into the segment.
    pub fn stat(&self) -> io::Result<JournalStat> {
        let mut scan = self.scan()?;
        let key_bytes = self.disk.list()?.iter().filter(|(name, _)| name.ends_with(KEYS_EXT)).map(|(_, size)| size).sum();
        let mut stat = JournalStat {
            id: scan.segments.iter().rev().find_map(|segment| segment.header.as_ref()).map(|header| header.identity.journal),
            in_use: self.disk.is_locked()?,
            segments: scan.segments.len() as u64,
            bytes: scan.segments.iter().map(|segment| segment.size).sum(),
            key_bytes,
            events: 0,
            oldest: scan.segments.first().map_or(0, |segment| segment.name.first_seq),
            next: self.published_watermark()?.map_or_else(|| self.readable_end(&scan), Ok)?,
            lost: scan.lost.iter().map(|range| range.end - range.start).sum(),
            topics: Vec::new(),
        };
        for (topic, cursor) in &scan.cursors.cursors {
            stat.topics.push(TopicStat { cursor: Some(*cursor), ..TopicStat::empty(topic) });
        }
        let CursorsFrame { cursors, backlog_end, .. } = &scan.cursors;
        let waiting = WaitingEvents { cursors: cursors.iter().cloned().collect(), forwards: false, backlog_end: *backlog_end };
        let mut backlogs = Backlogs::new(waiting, 0);
        for index in 0..scan.segments.len() {
            let summary = scan.summary(index, stat.next);
            backlogs.add(&summary, false);
            stat.add(&*self.disk, &mut scan, index, &summary)?;
        }
        let backlogs = backlogs.topics();
        for topic in &mut stat.topics {
            topic.pinned = backlogs.get(&topic.topic).map_or(0, |backlog| backlog.waiting_bytes);
        }
        Ok(stat)
    }

    /// Checks every frame of every segment, one segment at a time.
    pub fn verify(&self) -> io::Result<VerifyReport> {
        // Read the watermark before the segments. Otherwise, a commit that the writer completes during the scan could look
        // damaged.
        let published = self.published_watermark()?;
        let mut scan = self.scan()?;
        let watermark = published.unwrap_or(scan.durable_watermark);
        let mut checked = Vec::new();
        for index in 0..scan.segments.len() {
            if !scan.read_frames(&*self.disk, index)? {
                continue;
            }
            let events = scan.frames(index).filter(|frame| frame.header.seq < watermark).count() as u64;
            let segment = &scan.segments[index];
            checked.push((segment.name, events, segment.corruption(watermark.min(scan.durable_watermark))));
            scan.drop_frames(index);
        }
        // Ignore each segment that no longer exists, because the writer may have overwritten its file during the check. The file
        // of a replaced segment is never overwritten.
        let existing = segment_file::list(&*self.disk)?;
        checked.retain(|(name, ..)| existing.iter().any(|(existing, _)| existing.place() == name.place()));
        let mut report = VerifyReport { segments: checked.len() as u64, ..VerifyReport::default() };
        report.lost = scan.lost.iter().map(|range| range.end - range.start).sum();
        report.missing = scan.missing.iter().map(|missing| missing.name.segment_file()).collect();
        report.missing.extend(scan.lost_newest.map(|lost| lost.owner.newest.segment_file()));
        report.unconfirmed = scan.unconfirmed.iter().filter(|(_, frame)| frame.header.seq >= watermark).count() as u64;
        for (name, events, corruption) in checked {
            report.events += events;
            report.damage.extend(corruption.into_iter().map(|bytes| DamagedRange { file: name.segment_file(), bytes }));
        }
        Ok(report)
    }

    /// Scans the directory. Repeats the scan if hookhold deletes a listed segment before the scan opens the file of this segment,
    /// or if a segment is missing: hookhold may have replaced it while the scan was listing the files.
    fn scan(&self) -> io::Result<DirectoryScan> {
        let mut tries = 0;
        loop {
            match DirectoryScan::read(&*self.disk) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < MAX_SCANS => tries += 1,
                Ok(scan) if !scan.missing.is_empty() && tries == 0 => tries += 1,
                scan => return scan,
            }
        }
    }

    fn owner(&self) -> Option<OwnerRecord> {
        self.disk.open(LOCK_FILE).ok().and_then(|lock| OwnerRecord::read(&*lock))
    }

    /// Returns the sequence after the last event that may be read, if no watermark is published. While another process has the
    /// journal open, the unconfirmed events may belong to a commit that it has not synced.
    fn readable_end(&self, scan: &DirectoryScan) -> io::Result<u64> {
        Ok(if self.disk.is_locked()? { scan.durable_watermark } else { scan.log_end() })
    }

    /// Returns the durable watermark that the process with the journal publishes; `None` if no process has the journal open, or
    /// if the lock file is damaged or missing.
    fn published_watermark(&self) -> io::Result<Option<u64>> {
        if !self.disk.is_locked()? {
            return Ok(None);
        }
        let file = match self.disk.open(LOCK_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        for _ in 0..RETRIES {
            if let Some(published) = PublishedWatermark::read(&*file)? {
                return Ok(Some(published.watermark));
            }
        }
        Ok(None)
    }

    /// Prepares the current segment for further reads after the writer has extended the segment or started a newer segment.
    fn refresh_segment(&mut self) -> io::Result<()> {
        let Some(name) = self.segment.as_ref().map(|current| current.name) else { return Ok(()) };
        let newer = self.choose_segment(|segments| self.first_after(name, segments))?;
        if let Some(current) = &mut self.segment {
            current.scanner.refresh();
            current.superseded_from = newer;
        }
        Ok(())
    }

    fn open_segment(&mut self) -> io::Result<Option<&mut ScannedFile>> {
        let is_exhausted =
            self.segment.as_ref().is_none_or(|current| current.superseded_from.is_some_and(|end| self.next_seq >= end));
        if is_exhausted {
            let opened = self.choose_segment(|segments| {
                let (below, above) = segments.split_at(segments.partition_point(|(name, _)| name.first_seq <= self.next_seq));
                let Some(mut opened) = self.first_started(below.iter().rev().chain(above))? else { return Ok(None) };
                opened.superseded_from = self.first_after(opened.name, segments)?;
                Ok(Some(opened))
            })?;
            self.segment = Some(match opened {
                Some(opened) => opened,
                None => return Ok(None),
            });
        }
        Ok(self.segment.as_mut())
    }

    /// Calls `choose` with the names and sizes of all segments, oldest first. Lists them again if hookhold deletes or replaces a
    /// segment before `choose` opens its file.
    fn choose_segment<T>(&self, choose: impl Fn(&[(SegmentName, u64)]) -> io::Result<T>) -> io::Result<T> {
        let mut tries = 0;
        loop {
            match choose(&segment_file::list(&*self.disk)?) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < MAX_SCANS => tries += 1,
                chosen => return chosen,
            }
        }
    }

    /// Returns the first sequence of the segment that follows `name`; `None` if no segment that has been written follows.
    fn first_after(&self, name: SegmentName, segments: &[(SegmentName, u64)]) -> io::Result<Option<u64>> {
        let newer = segments.iter().filter(|(newer, _)| newer.place() > name.place());
        Ok(self.first_started(newer)?.map(|newer| newer.name.first_seq))
    }

    /// Opens the first of these segments that has been written. Opens one file at a time, because a journal may have more files
    /// than a process may open.
    fn first_started<'a>(&self, segments: impl Iterator<Item = &'a (SegmentName, u64)>) -> io::Result<Option<ScannedFile>> {
        for (name, size) in segments {
            let file = self.disk.open(&name.segment_file())?;
            if segment_file::is_started(&*self.disk, &file, *name, *size) && !segment_file::is_misplaced(&*file, *name) {
                let scanner = FrameScanner::new(file, name.id, SEGMENT_HEADER_LEN, *size).skip_unreadable();
                return Ok(Some(ScannedFile { name: *name, scanner, superseded_from: None }));
            }
        }
        Ok(None)
    }
}

impl TopicStat {
    fn empty(topic: &Arc<str>) -> TopicStat {
        TopicStat {
            topic: topic.clone(),
            cursor: None,
            waiting: 0,
            waiting_bytes: 0,
            waiting_range: None,
            events: 0,
            bytes: 0,
            pinned: 0,
        }
    }

    /// Adds the topic's events in one segment to the counts of this topic.
    fn add(&mut self, disk: &dyn Disk, scan: &mut DirectoryScan, index: usize, range: &TopicRange) -> io::Result<()> {
        self.events += range.count;
        self.bytes += range.bytes;
        let waiting = self.cursor.map_or(0..0, |cursor| waiting_range(range, cursor, scan.cursors.backlog_end));
        if waiting == (range.first..range.last + 1) {
            self.add_waiting(range.count, range.bytes, (range.first, range.last));
        } else if !waiting.is_empty() && scan.read_frames(disk, index)? {
            let is_waiting = |frame: &&ScannedFrame| {
                let is_mine = frame.facts.as_ref().is_some_and(|facts| facts.topic == range.topic);
                is_mine && waiting.contains(&frame.header.seq)
            };
            for frame in scan.frames(index).filter(is_waiting) {
                self.add_waiting(1, frame.padded_len(), (frame.header.seq, frame.header.seq));
            }
        }
        Ok(())
    }

    fn add_waiting(&mut self, events: u64, bytes: u64, (first, last): (u64, u64)) {
        self.waiting += events;
        self.waiting_bytes += bytes;
        self.waiting_range = Some((self.waiting_range.map_or(first, |(first, _)| first), last));
    }
}

impl JournalStat {
    /// Adds one segment to the totals. If a topic's cursor points into the segment, reads the frames to count the topic's
    /// events at and above the cursor.
    fn add(&mut self, disk: &dyn Disk, scan: &mut DirectoryScan, index: usize, summary: &SegmentSummary) -> io::Result<()> {
        self.events += summary.events();
        for range in &summary.topics {
            let at = self.topics.iter().position(|topic| topic.topic == range.topic).unwrap_or(self.topics.len());
            if at == self.topics.len() {
                self.topics.push(TopicStat::empty(&range.topic));
            }
            self.topics[at].add(disk, scan, index, range)?;
        }
        scan.drop_frames(index);
        Ok(())
    }
}

/// Maximum number of scans of the directory while hookhold deletes files.
const MAX_SCANS: usize = 50;
const RETRIES: usize = 5;
