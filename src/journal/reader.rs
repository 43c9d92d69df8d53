//! Reads events in order and never beyond the durable watermark. Corruption below the watermark affects only the corrupted
//! frames. The reader counts the corruption and continues after it. The reader also forgets the keys of the lost events, so the
//! journal can store retries of these events.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::frame::{self, FrameHeader, FrameKind};
use super::frame_scanner::{FrameScanner, ScanStep};
use super::segment::Segment;
use super::segment_summary::SegmentSummary;
use super::{POISON, Shared, quarantine};
use crate::event::{Event, Position};

/// Event that was read from the journal.
#[derive(Debug)]
pub struct StoredEvent {
    /// Position at which the event was first written.
    pub position: Position,
    /// Decoded event.
    pub event: Event,
}

/// Error: the reader could not read a segment. The reader's position stays the same, so the next call retries the read.
#[derive(Debug, thiserror::Error)]
#[error("{file}: cannot read the segment")]
pub struct ReadError {
    /// Name of the segment file.
    pub file: String,
    /// Cause of the failed read.
    #[source]
    pub source: io::Error,
}

/// Reader of an open journal. A reader starts at a given sequence.
pub struct Reader {
    shared: Arc<Shared>,
    next_seq: u64,
    /// Topics whose events the reader returns; `None` for the events of all topics.
    topics: Option<Topics>,
    segment: Option<ReadSegment>,
}

/// Topics whose events a [`Reader`] returns.
pub type Topics = Arc<HashSet<Arc<str>>>;

/// Result of [`Reader::step`].
#[derive(Debug)]
pub enum ReadStep {
    /// The next event.
    Event(StoredEvent),
    /// The reader has passed a frame or a segment without an event to return.
    Passed,
    /// No further event is durable yet.
    End,
}

/// Segment that a [`Reader`] reads.
struct ReadSegment {
    segment: Arc<Segment>,
    /// Sequence at and above which a newer segment supersedes the events of this segment; `None` while this segment is the
    /// newest.
    superseded_from: Option<u64>,
    scanner: FrameScanner,
    /// Sequence after the last event of the reader's topics in the segment; `None` while the segment is the newest, or if the
    /// reader returns the events of all topics.
    wanted_end: Option<u64>,
    /// Sequences of events that the segment no longer contains, because no topic needed them. In order.
    omitted: Vec<Range<u64>>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: u64) -> Reader {
        Reader { shared, next_seq: from, topics: None, segment: None }
    }

    /// Restricts the reader to one topic. The reader then skips every older segment that contains no event of this topic.
    pub fn for_topic(mut self, topic: &str) -> Reader {
        self.set_topics(Arc::new(HashSet::from([topic.into()])));
        self
    }

    /// Restricts the reader to these topics from now on, see [`Reader::for_topic`].
    pub fn set_topics(&mut self, topics: Topics) {
        if let Some(current) = &mut self.segment {
            current.wanted_end = current.superseded_from.map(|_| wanted_end(&current.segment, &topics));
        }
        self.topics = Some(topics);
    }

    /// Returns the sequence at which the next search starts. Each event before this sequence has been returned, belongs to
    /// another topic, no longer exists, or precedes the sequence at which the reader started.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Returns the next event; `None` if no further event is durable yet.
    #[allow(clippy::should_implement_trait, reason = "more events may follow after `None`, and a read can fail")]
    pub fn next(&mut self) -> Result<Option<StoredEvent>, ReadError> {
        loop {
            match self.step()? {
                ReadStep::Event(stored) => return Ok(Some(stored)),
                ReadStep::Passed => {}
                ReadStep::End => return Ok(None),
            }
        }
    }

    /// Reads one frame, or skips one segment. A caller that must not read for long calls this function instead of [`Reader::next`].
    pub fn step(&mut self) -> Result<ReadStep, ReadError> {
        let watermark = self.shared.durable_watermark.load(Ordering::Acquire);
        if self.next_seq >= watermark || !self.open_segment() {
            return Ok(ReadStep::End);
        }
        Ok(self.read_frame(watermark)?.map_or(ReadStep::Passed, ReadStep::Event))
    }

    /// Opens the segment that contains the next event. Returns false if the journal has no segment.
    fn open_segment(&mut self) -> bool {
        // Until a newer segment exists, this segment may still grow.
        let is_exhausted = self.segment.as_ref().is_none_or(|current| match current.superseded_from {
            Some(end) => self.next_seq >= end,
            None => self.next_seq >= current.segment.with_summary(|summary| summary.next_seq),
        });
        if !is_exhausted {
            return true;
        }
        let Some((segment, superseded_from)) = self.shared.segments.locate(self.next_seq) else { return false };
        self.next_seq = self.next_seq.max(segment.name.first_seq);
        match &mut self.segment {
            Some(current) if current.segment.name == segment.name => {
                current.superseded_from = superseded_from;
                current.wanted_end = None;
            }
            current => {
                let (offset, end) = (segment.read_offset(self.next_seq), segment.with_summary(|summary| summary.end));
                let scanner = FrameScanner::new(segment.file.clone(), segment.name.id, offset, end);
                *current = Some(ReadSegment { segment, superseded_from, scanner, wanted_end: None, omitted: Vec::new() });
            }
        }
        if let (Some(topics), Some(current)) = (&self.topics, &mut self.segment) {
            current.wanted_end = current.superseded_from.map(|_| wanted_end(&current.segment, topics));
        }
        true
    }

    fn read_frame(&mut self, watermark: u64) -> Result<Option<StoredEvent>, ReadError> {
        let Some(current) = &mut self.segment else { return Ok(None) };
        let (end, limit) = current
            .segment
            .with_summary(|summary| (summary.end, summary.next_seq.min(current.superseded_from.unwrap_or(watermark))));
        let lacks_topics = current.wanted_end.is_some_and(|end| self.next_seq >= end);
        if self.next_seq >= limit || lacks_topics {
            // This segment has no further durable event, or no further event of these topics.
            self.next_seq = self.next_seq.max(current.superseded_from.unwrap_or(limit.min(watermark)));
            return Ok(None);
        }
        current.scanner.set_limit(end);
        let next_seq = self.next_seq;
        // Accept earlier events, because the scanner would otherwise report them as damage. The match below skips these events.
        let step = current.scanner.step(|header| header.kind != FrameKind::Event || header.seq < limit);
        let file = || current.segment.name.segment_file();
        match step.map_err(|source| ReadError { file: file(), source })? {
            ScanStep::Frame(header) if header.kind == FrameKind::Event && header.seq >= next_seq => self.decode(header),
            ScanStep::Frame(header) => {
                if header.kind == FrameKind::Omitted {
                    current.omitted.extend(frame::decode_ranges(current.scanner.frame()).unwrap_or_default());
                    current.omitted.retain(|range| range.end > next_seq);
                }
                Ok(None)
            }
            // The segment was deleted during the read. Its file may already belong to another segment.
            _ if !self.shared.segments.contains(current.segment.name) => {
                self.segment = None;
                Ok(None)
            }
            ScanStep::Damage(range) => {
                self.shared.report_corruption(&file(), range.start, range.end);
                Ok(None)
            }
            ScanStep::End(at) => {
                // If every byte up to the end is valid, the missing events were in a range that has already been reported.
                if at < end {
                    self.shared.report_corruption(&file(), at, end);
                }
                self.skip_lost(limit);
                Ok(None)
            }
        }
    }

    fn decode(&mut self, header: FrameHeader) -> Result<Option<StoredEvent>, ReadError> {
        self.skip_lost(header.seq);
        let Some(current) = self.segment.take() else { return Ok(None) };
        if let Some(topics) = &self.topics
            && frame::event_topic(current.scanner.frame()).is_some_and(|topic| !topics.contains(topic))
        {
            self.next_seq = header.seq + 1;
            self.segment = Some(current);
            return Ok(None);
        }
        // The reader must not skip a valid event that a later version wrote, so its position stays before that event.
        let event = frame::decode_event(current.scanner.frame()).ok_or_else(|| ReadError {
            file: current.segment.name.segment_file(),
            source: io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "event {}: expected the format of this version, found the format of a later version; run that version",
                    header.seq
                ),
            ),
        })?;
        self.next_seq = header.seq + 1;
        self.segment = Some(current);
        Ok(Some(StoredEvent { position: Position { log: header.log, seq: header.seq }, event }))
    }

    /// Skips the omitted and lost events below `seq`, and forgets the keys of the lost ones. Forgets these keys even if hookhold
    /// has forwarded the events, because storing an event twice is better than dropping the retry of a lost event.
    fn skip_lost(&mut self, seq: u64) {
        let omitted = self.segment.as_ref().map_or(&[][..], |current| &current.omitted);
        let omitted = &omitted[omitted.partition_point(|range| range.end <= self.next_seq)..];
        let (mut lost, mut from) = (Vec::new(), self.next_seq);
        for range in omitted.iter().take_while(|range| range.start < seq).chain([&(seq..seq)]) {
            lost.extend((from < range.start).then_some(from..range.start));
            from = from.max(range.end);
        }
        self.next_seq = self.next_seq.max(seq);
        if !lost.is_empty() {
            lost.into_iter().for_each(|range| self.shared.report_lost(range));
            self.shared.background.wake();
        }
    }
}

/// Returns the sequence after the last event of these topics in a segment; 0 if the segment has no such event.
fn wanted_end(segment: &Segment, topics: &Topics) -> u64 {
    let wanted = |summary: &SegmentSummary| {
        let ranges = summary.topics.iter().filter(|range| topics.contains(&range.topic));
        ranges.map(|range| range.last + 1).max().unwrap_or(0)
    };
    segment.with_summary(wanted)
}

impl Shared {
    /// Forgets the keys of lost events, and counts the events that Kafka has not acknowledged.
    fn report_lost(&self, sequences: Range<u64>) {
        let lowest = if self.options.forwards { self.segments.lowest_cursor() } else { 0 };
        let forwarded = sequences.start..lowest.clamp(sequences.start, sequences.end);
        let lost = forwarded.end..sequences.end;
        self.keys.forget(forwarded);
        self.metrics.journal.lost_events.with_label_values(&["corruption"]).inc_by(self.keys.forget(lost));
    }

    /// Reports a damaged range in the metric and in the log, but only once, even if several readers find the same range.
    fn report_corruption(&self, segment: &str, from: u64, to: u64) {
        if !self.corruption.lock().expect(POISON).insert((segment.to_owned(), from)) {
            return;
        }
        self.metrics.journal.damaged.inc();
        quarantine::copy(&*self.disk, segment, &(from..to));
        tracing::error!(segment, from, to, "{DAMAGED}");
    }
}

/// Log message for a damaged range below the durable watermark.
pub(super) const DAMAGED: &str =
    "the journal is damaged and events are lost, but hookhold will store retries of these events; check the disk";
