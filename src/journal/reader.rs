//! Reads events in order, never past the durable mark. Damage below the mark costs the frames that it hit: it is counted, the
//! keys of what is lost are forgotten (so that a retry is kept), and reading goes on behind it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::frame::{self, Head, Kind};
use super::frame_scanner::{Scanner, Step};
use super::segment::Segment;
use super::{POISON, Shared};
use crate::event::{Event, Position};

/// An event as it was kept.
#[derive(Debug)]
pub struct StoredEvent {
    /// Where it was first written.
    pub position: Position,
    /// The event.
    pub event: Event,
}

/// A segment could not be read. The reader stays where it was; the next call tries again.
#[derive(Debug, thiserror::Error)]
#[error("{file} could not be read")]
pub struct ReadError {
    /// The segment's file name.
    pub file: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A place in the open journal that moves forward.
pub struct Reader {
    shared: Arc<Shared>,
    next: u64,
    lane: Option<Arc<str>>,
    open: Option<Open>,
}

struct Open {
    segment: Arc<Segment>,
    bound: Option<u64>,
    scanner: Scanner,
}

impl Reader {
    pub(super) fn inside(shared: Arc<Shared>, from: u64) -> Reader {
        Reader { shared, next: from, lane: None, open: None }
    }

    /// Passes over the events of other lanes, and over segments that hold none of this one.
    pub fn for_topic(mut self, lane: &str) -> Reader {
        self.lane = Some(lane.into());
        self
    }

    /// Every event below this sequence has been returned, or is not this lane's, or is gone.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// The next event; `None`: there is none below the mark at present.
    #[allow(clippy::should_implement_trait, reason = "the end is not final, and a step can fail")]
    pub fn next(&mut self) -> Result<Option<StoredEvent>, ReadError> {
        loop {
            let mark = self.shared.mark.load(Ordering::Acquire);
            if self.next >= mark || !self.settle_in() {
                return Ok(None);
            }
            if let Some(stored) = self.step(mark)? {
                return Ok(Some(stored));
            }
        }
    }

    /// Opens the segment that holds the next event. False: there is no segment at all.
    fn settle_in(&mut self) -> bool {
        // A segment's bound is known only once there is a newer one.
        let stale = self.open.as_ref().is_none_or(|open| match open.bound {
            Some(bound) => self.next >= bound,
            None => self.next >= open.segment.with(|table| table.next),
        });
        if !stale {
            return true;
        }
        let Some((segment, bound)) = self.shared.catalog.holding(self.next) else { return false };
        self.next = self.next.max(segment.name.first);
        match &mut self.open {
            Some(open) if open.segment.name == segment.name => open.bound = bound,
            open => {
                let scanner =
                    Scanner::new(segment.file.clone(), segment.name.id, segment.seek(self.next), segment.with(|t| t.end));
                *open = Some(Open { segment, bound, scanner });
            }
        }
        true
    }

    fn step(&mut self, mark: u64) -> Result<Option<StoredEvent>, ReadError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let (end, upper) = open.segment.with(|table| (table.end, table.next.min(open.bound.unwrap_or(mark))));
        let foreign = self
            .lane
            .as_ref()
            .is_some_and(|lane| open.segment.with(|table| table.lane(lane).is_none_or(|range| range.last < self.next)));
        if self.next >= upper || foreign {
            // Nothing here, or nothing of this lane up to what is durable now.
            self.next = self.next.max(open.bound.unwrap_or(upper.min(mark)));
            return Ok(None);
        }
        open.scanner.grow(end);
        let next = self.next;
        let fits = |head: &Head| head.kind != Kind::Event || (head.seq >= next && head.seq < upper);
        let skips = |head: &Head| head.kind == Kind::Event && head.seq < next;
        let step = open.scanner.step(|head| fits(head) || skips(head));
        let file = || open.segment.name.segment();
        match step.map_err(|source| ReadError { file: file(), source })? {
            Step::Frame(head) if head.kind == Kind::Event && head.seq >= next => self.found(head),
            Step::Frame(_) => Ok(None),
            // Deleted while it was read: its file may be in another life already.
            _ if !self.shared.catalog.has(open.segment.name) => {
                self.open = None;
                Ok(None)
            }
            Step::Damage(range) => {
                self.shared.report_rot(&file(), range.start, range.end);
                Ok(None)
            }
            Step::End(at) => {
                self.shared.report_rot(&file(), at, end);
                self.lost(upper);
                Ok(None)
            }
        }
    }

    fn found(&mut self, head: Head) -> Result<Option<StoredEvent>, ReadError> {
        self.lost(head.seq);
        let Some(open) = self.open.take() else { return Ok(None) };
        // A genuine event of a later version must not be passed over: the reader stays before it.
        let event = frame::decode_event(open.scanner.frame()).ok_or_else(|| ReadError {
            file: open.segment.name.segment(),
            source: io::Error::new(io::ErrorKind::InvalidData, format!("event {} is of a later version", head.seq)),
        })?;
        self.next = head.seq + 1;
        self.open = Some(open);
        let mine = self.lane.as_ref().is_none_or(|lane| lane == event.topic());
        Ok(mine.then_some(StoredEvent { position: Position { log: head.log, seq: head.seq }, event }))
    }

    /// Everything from the next event up to `seq` is gone. Its keys are forgotten, also where it had been passed on already:
    /// a repeat that is kept twice is better than a retry that is not kept.
    fn lost(&mut self, seq: u64) {
        if seq > self.next {
            self.shared.keys.forget(self.next..seq);
            self.shared.keeper.wake();
            self.next = seq;
        }
    }
}

impl Shared {
    /// Several readers may meet the same damage; it counts once.
    fn report_rot(&self, segment: &str, from: u64, to: u64) {
        if !self.known_rot.lock().expect(POISON).insert((segment.to_owned(), from)) {
            return;
        }
        self.metrics.journal.damaged.inc();
        tracing::error!(segment, from, to, "damaged bytes in the journal: the events in them are lost, their keys are forgotten");
    }
}
