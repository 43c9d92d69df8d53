//! Finds an event by its sequence, its position or its event id: in the journal, and among the parked events, which outlive the
//! journal's events.

use std::io;

use hookhold::clock::UnixMillis;
use hookhold::event::{LogId, Position};
use hookhold::journal::{EventFields, ParkedEvent, ParkedEvents, ReadOnlyJournal, StoredEvent};
use indicatif::{ProgressBar, ProgressStyle};

/// The stores in which an event can be.
pub(super) struct EventStores {
    pub(super) journal: ReadOnlyJournal,
    pub(super) parked: ParkedEvents,
}

/// Events that a search has found.
pub(super) struct FoundEvents {
    /// The first events, by their sequences. At most [`MAX_FOUND`].
    pub(super) events: Vec<StoredEvent>,
    /// Number of the further events.
    pub(super) more: u64,
    /// Events that the search has read.
    pub(super) searched: SearchedEvents,
}

/// Number and times of receipt of the events that a search has read.
#[derive(Default)]
pub(super) struct SearchedEvents {
    pub(super) count: u64,
    /// Earliest and latest time of receipt; `None` if the search has read no event.
    pub(super) received: Option<(UnixMillis, UnixMillis)>,
}

/// Sequence of an event, or its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventPlace {
    /// `None` for a sequence.
    log: Option<LogId>,
    seq: u64,
}

impl EventPlace {
    /// Parses a sequence such as `17`, or a position such as `0123456789abcdef-17`.
    pub(super) fn parse(text: &str) -> Option<EventPlace> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
        match text.split_once('-') {
            None => Some(EventPlace { log: None, seq: number(text)? }),
            Some((log, seq)) if log.len() == LOG_DIGITS && log.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Some(EventPlace { log: Some(LogId(u64::from_str_radix(log, 16).ok()?)), seq: number(seq)? })
            }
            Some(_) => None,
        }
    }

    fn is_of(self, position: Position) -> bool {
        position.seq == self.seq && self.log.is_none_or(|log| log == position.log)
    }
}

impl EventStores {
    /// Returns the event at this place, or `None` if there is none. If `source` names a source, returns only an event of that source.
    /// Reads one segment.
    pub(super) fn at(&mut self, place: EventPlace, source: Option<&str>) -> io::Result<Option<StoredEvent>> {
        self.journal.seek(place.seq);
        let is_wanted = |fields: &EventFields<'_>| place.is_of(fields.position) && is_of_source(source, fields.source);
        if let Some(stored) = self.journal.next_where(place.seq.saturating_add(1), is_wanted)? {
            return Ok(Some(stored));
        }
        for file in self.parked.list()?.into_iter().filter(|file| place.is_of(file.position)) {
            if let Some(parked) =
                self.parked.read(file.position)?.filter(|parked| is_of_source(source, parked.stored.event.source()))
            {
                return Ok(Some(parked.stored));
            }
        }
        Ok(None)
    }

    /// Returns the events with this event id. If `source` names a source, returns only events of that source. Reads the whole
    /// journal once. Shows the progress on a terminal.
    pub(super) fn with_id(&mut self, id: &str, source: Option<&str>) -> io::Result<FoundEvents> {
        let mut found = FoundEvents { events: Vec::new(), more: 0, searched: SearchedEvents::default() };
        let bar = ProgressBar::new(self.journal.log_end()?);
        bar.set_style(ProgressStyle::with_template(BAR).expect("a valid template"));
        self.journal.seek(0);
        loop {
            let FoundEvents { events, more, searched } = &mut found;
            let has_room = events.len() < MAX_FOUND;
            let next = self.journal.next_where(u64::MAX, |fields| {
                searched.add(fields.received_at);
                if searched.count.is_multiple_of(EVENTS_PER_UPDATE) {
                    bar.set_position(fields.position.seq);
                }
                let is_wanted = fields.id == Some(id) && is_of_source(source, fields.source);
                *more += u64::from(is_wanted && !has_room);
                is_wanted && has_room
            })?;
            match next {
                Some(stored) => events.push(stored),
                None => break,
            }
        }
        bar.finish_and_clear();
        self.add_parked(id, source, &mut found)?;
        found.events.sort_by_key(|stored| stored.position.seq);
        Ok(found)
    }

    /// Returns the parked event at this position, with the reason why it is parked.
    pub(super) fn parked(&self, position: Position) -> io::Result<Option<ParkedEvent>> {
        self.parked.read(position)
    }

    /// Adds the parked events that the journal has deleted.
    fn add_parked(&self, id: &str, source: Option<&str>, found: &mut FoundEvents) -> io::Result<()> {
        for file in self.parked.list()? {
            if found.events.iter().any(|stored| stored.position == file.position) {
                continue;
            }
            let Some(ParkedEvent { stored, .. }) = self.parked.read(file.position)? else { continue };
            if stored.event.id() != Some(id) || !is_of_source(source, stored.event.source()) {
                continue;
            }
            match found.events.len() < MAX_FOUND {
                true => found.events.push(stored),
                false => found.more += 1,
            }
        }
        Ok(())
    }
}

impl SearchedEvents {
    fn add(&mut self, received_at: UnixMillis) {
        self.count += 1;
        let (earliest, latest) = self.received.unwrap_or((received_at, received_at));
        self.received = Some((earliest.min(received_at), latest.max(received_at)));
    }
}

fn is_of_source(wanted: Option<&str>, found: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

/// Number of events that a search returns.
const MAX_FOUND: usize = 20;
/// Number of events after which the search updates its progress bar.
const EVENTS_PER_UPDATE: u64 = 4_096;
/// Number of hexadecimal digits of a log id.
const LOG_DIGITS: usize = 16;
const BAR: &str = "searching {bar:40} {percent} %, {eta} left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_sequence_or_a_position() {
        let place = |log, seq| Some(EventPlace { log, seq });
        assert_eq!(EventPlace::parse("17"), place(None, 17));
        assert_eq!(EventPlace::parse("00000000000000fF-017"), place(Some(LogId(255)), 17));
        for id in ["", "-", "+17", "1 7", "evt_17", "17-17", "00000000000000ff-", "0x00000000000000-1", "99999999999999999999"] {
            assert_eq!(EventPlace::parse(id), None, "{id}");
        }
    }
}
