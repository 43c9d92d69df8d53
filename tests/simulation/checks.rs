//! Compares a journal with the model.

use std::collections::BTreeMap;
use std::ops::Range;

use hookhold::event::Position;
use hookhold::event_key::EventKey;
use hookhold::journal::{Journal, MemoryLookup, ReadOnlyJournal, StoredEvent};

use crate::events::TOPICS;
use crate::hazards::{Fault, LONG, NO_LIMIT};
use crate::life::Life;
use crate::model::{Checked, Exposure, Fate, Model, ModelEvent, UNKNOWN_LOG, is_same};

macro_rules! ensure {
    ($condition:expr, $($what:tt)*) => {
        if !$condition {
            return Err(format!($($what)*));
        }
    };
}

/// A check of the open journal.
struct Check<'a> {
    life: &'a Life,
    journal: &'a Journal,
    /// Sequences that this process cannot read.
    hidden: Vec<Range<u64>>,
    /// True if a step of this process has failed and the journal has counted damage. The process may then lack events and keys
    /// that still exist.
    hides: bool,
    /// True if the journal may have forgotten keys because they had no room.
    may_evict: bool,
    now_ms: u64,
}

impl Life {
    /// Compares the journal with the model.
    pub fn check(&self) -> Checked {
        let journal = self.journal()?;
        self.note_incidents();
        let (read, hidden) = self.read_all(&journal)?;
        let check = Check {
            life: self,
            journal: &journal,
            hidden,
            hides: self.hazards.may_hide() && self.has_failed_steps() && self.has_counted_damage(),
            // A process may die before it counts the keys that it has just deleted.
            may_evict: self.hazards.options.max_key_bytes < NO_LIMIT,
            now_ms: self.clock.elapsed_ms(),
        };
        let checked = self.with_model(|model| model.check(&check, &read));
        if self.disk.is_dead() { Ok(()) } else { checked.and_then(|()| self.check_false_alarm()) }
    }

    /// Reads all events. If a part of a segment cannot be read, continues with the next segment, and also returns the sequences
    /// that the segment hides.
    fn read_all(&self, journal: &Journal) -> Result<(Vec<StoredEvent>, Vec<Range<u64>>), String> {
        let (mut read, mut hidden, mut reader) = (Vec::new(), Vec::new(), journal.reader(0));
        loop {
            match reader.next() {
                Ok(Some(stored)) => read.push(stored),
                Ok(None) => return Ok((read, hidden)),
                // The journal keeps what it cannot read, and the next process may be able to read it.
                Err(_) if self.may_hide() => {
                    let firsts = self.disk.names(".seg").into_iter().filter_map(|name| name.split('-').nth(1)?.parse().ok());
                    let next = firsts.filter(|first| *first > reader.next_seq()).min();
                    hidden.push(reader.next_seq()..next.unwrap_or(u64::MAX));
                    let Some(next) = next else { return Ok((read, hidden)) };
                    reader = journal.reader(next);
                }
                Err(error) => return Err(format!("{error}: {}", error.source)),
            }
        }
    }

    /// Checks that another process reads the same events, and finds no damage unless there is some.
    pub fn check_outside(&self) -> Checked {
        if self.state().incidents > 0 {
            return Ok(());
        }
        let open = || ReadOnlyJournal::open(self.disk.second_process());
        let mut journal = open().map_err(|error| error.to_string())?;
        let mut read = Vec::new();
        while let Some(stored) = journal.next().map_err(|error| format!("tail: {error}"))? {
            read.push(stored.position);
        }
        let report = open().and_then(|journal| journal.verify()).map_err(|error| format!("verify: {error}"))?;
        let mut stored: Vec<Position> = self.state().model.events.iter().filter_map(ModelEvent::stored_at).collect();
        stored.sort_by_key(|position| position.seq);
        if !self.hazards.retention {
            let count = stored.len();
            let is_whole = read.len() == count && read.iter().zip(&stored).all(|(a, b)| is_same(*a, *b));
            ensure!(is_whole, "another process reads {} events, {count} are stored", read.len());
            ensure!(report.events == count as u64, "verify counts {} events, {count} are stored", report.events);
        }
        ensure!(report.damage.is_empty(), "verify shows damage where there is none: {:?}", report.damage);
        ensure!(report.unconfirmed == 0, "{} events are unconfirmed after a close", report.unconfirmed);
        Ok(())
    }

    /// Checks that the current process has counted no damage if there was none.
    pub fn check_false_alarm(&self) -> Checked {
        let is_excused = self.disk.is_dead() || self.state().incidents > 0 || self.has_missed_reads();
        ensure!(is_excused || !self.has_counted_now(), "the journal has counted damage where there is none");
        Ok(())
    }

    /// Returns true if a failed read may have cost keys: a merge of key files omits what it cannot read, and counts it.
    fn has_missed_reads(&self) -> bool {
        self.disk.failed_steps() > 0 && self.hazards.may_hide()
    }
}

impl Model {
    /// Compares the readable events with the model, and updates the model: an event with the fate `Unknown` or `Failed` becomes
    /// either stored or superseded.
    fn check(&mut self, check: &Check, read: &[StoredEvent]) -> Checked {
        self.check_each(check, read)?;
        let positions: BTreeMap<u64, Position> = read.iter().map(|stored| (stored.position.seq, stored.position)).collect();
        self.find_stored_and_unread(check, &positions);
        let oldest = check.journal.oldest_seq();
        let retain_ms = check.life.hazards.options.limits.retain.as_millis() as u64;
        let (mut gone, mut lost) = (0, 0);
        for (index, event) in self.events.iter_mut().enumerate() {
            match event.fate {
                Fate::Stored(position) if check.is_hidden(position.seq) => {}
                Fate::Stored(position) if positions.get(&position.seq).is_some_and(|found| is_same(*found, position)) => {}
                Fate::Stored(position) => {
                    let is_pinned = check.life.hazards.options.forwards && !self.acknowledged.contains(&position.seq);
                    // If hookhold forwards events, a pinned segment may be older than a deleted one.
                    // The age of a damaged segment is unknown, so the segments after it expire before it. A startup adds the
                    // progress of the wall clock to the journal's clock.
                    let is_old = check.now_ms - event.stored_ms >= retain_ms || check.life.hazards.has(Fault::ClockJump);
                    let has_expired = is_old && retain_ms < LONG_MS && check.life.state().incidents > 0;
                    // Without the record of its release, a deleted segment may return, and be older than other deleted ones.
                    let lacks_record = self.release_exposure == Exposure::Counted && check.has_counted();
                    let may_be_deleted =
                        position.seq < oldest || check.life.hazards.options.forwards || has_expired || lacks_record;
                    if check.life.hazards.retention && may_be_deleted && !is_pinned {
                        gone += 1;
                    } else if !check.hides {
                        let topic = TOPICS[event.sample.topic];
                        let what = format!("event {index} ({topic}) at {position} is lost; oldest {oldest}, {} read", read.len());
                        match event.exposure {
                            Exposure::None => return Err(what),
                            Exposure::Counted => ensure!(check.has_counted(), "{what}, and the journal has counted nothing"),
                            Exposure::Silent => {}
                        }
                        event.fate = Fate::Lost(position);
                        lost += 1;
                    }
                }
                // The journal may have recovered the event.
                Fate::Failed if !check.hidden.is_empty() => event.fate = Fate::Unknown,
                Fate::Unknown | Fate::Failed if !check.hides && check.hidden.is_empty() => event.fate = Fate::Superseded,
                _ => {}
            }
        }
        self.counts.count("event deleted", gone);
        self.counts.count("event lost and counted", lost);
        self.check_batches(check)?;
        self.check_keys(check)?;
        self.check_cursors(check)
    }

    /// Checks that each event in `read` was appended, is unchanged, occurs only once and is not superseded.
    fn check_each(&mut self, check: &Check, read: &[StoredEvent]) -> Checked {
        ensure!(read.is_sorted_by(|a, b| a.position.seq < b.position.seq), "sequences do not grow");
        for stored in read {
            let position = stored.position;
            let attempts = self.attempts_of(stored.event.body());
            ensure!(!attempts.is_empty(), "{position} was never appended");
            let arrived = stored.event.received_at().0;
            // The model has chosen one of several attempts if it knows only the sequence of an event, from its key. Every attempt has its
            // own time of arrival, which shows whether the choice was right.
            let is_chosen = |at: Position| at.seq == position.seq && at.log == UNKNOWN_LOG;
            let is_wrong = |index: &usize| {
                let event = &self.events[*index];
                event.stored_at().is_some_and(is_chosen) && event.sample.received_at != arrived
            };
            // A misdirected write may leave an event at a place where only some scans find it.
            let is_here = |index: &usize| match self.events[*index].fate {
                Fate::Stored(at) | Fate::Lost(at) => is_same(at, position) && !is_wrong(index),
                _ => false,
            };
            let is_open = |index: &usize| matches!(self.events[*index].fate, Fate::Unknown | Fate::Failed);
            // A lost event no longer supersedes the failed events that had the same sequence. It may have become lost since the last
            // check: two faults may hit the only copy of a commit and the record of the owner, so that nothing shows the loss.
            let is_lost = |event: &ModelEvent| match event.fate {
                Fate::Lost(at) => at.seq == position.seq,
                Fate::Stored(at) => at.seq == position.seq && check.may_be_lost(event),
                _ => false,
            };
            let may_return = |index: &usize| self.events[*index].has_failed && self.events.iter().any(is_lost);
            let is_mine =
                |index: &usize| self.events[*index].sample.received_at == arrived && (is_open(index) || may_return(index));
            let found = attempts.iter().copied().find(is_here).or_else(|| attempts.iter().rev().copied().find(is_mine));
            let Some(index) = found else {
                let fates: Vec<Fate> = attempts.iter().map(|index| self.events[*index].fate).collect();
                return Err(format!("{position} contains an event that is superseded or stored elsewhere: {fates:?}"));
            };
            let wrong: Vec<usize> = attempts.iter().copied().filter(is_wrong).collect();
            let was_open = is_open(&index);
            if self.events[index].fate == Fate::Superseded {
                for event in self.events.iter_mut().filter(|event| is_lost(event)) {
                    event.fate = event.stored_at().map_or(event.fate, Fate::Lost);
                }
            }
            if was_open {
                self.counts.count("event recovered", 1);
            }
            // The attempt that was chosen instead has no result.
            wrong.into_iter().for_each(|index| self.events[index].fate = Fate::Unknown);
            if self.events[index].stored_at().is_none_or(|at| at.log == UNKNOWN_LOG) {
                self.set_stored(index, position, check.now_ms);
            }
            let sample = &self.events[index].sample;
            let is_same = stored.event.id() == Some(&*sample.id)
                && **stored.event.topic() == *TOPICS[sample.topic]
                && stored.event.dedupe_key() == sample.key.map(EventKey)
                && stored.event.received_at().0 == sample.received_at;
            ensure!(is_same, "event {index} has changed: {:?}", stored.event);
        }
        Ok(())
    }

    /// Marks an event with the fate `Unknown` or `Failed` as stored if the journal contains the key of the event, but not the
    /// event. The journal has then recovered the event, and has immediately deleted it or cannot read it.
    fn find_stored_and_unread(&mut self, check: &Check, positions: &BTreeMap<u64, Position>) {
        let may_delete = check.life.hazards.retention;
        let last = if may_delete || !check.hidden.is_empty() { self.events.len() } else { 0 };
        for index in (0..last).rev() {
            let event = &self.events[index];
            let (Fate::Unknown | Fate::Failed, Some(key)) = (event.fate, event.sample.key) else { continue };
            // If the journal has stored another attempt, the key belongs to that attempt.
            if self.keys[&key].events.iter().any(|other| self.events[*other].stored_at().is_some()) {
                continue;
            }
            // The key of a lost event may be found until the process has read the damage.
            let is_lost = |other: &usize, seq| matches!(self.events[*other].fate, Fate::Lost(at) if at.seq == seq);
            let is_unread = |seq: &u64| {
                let has_lost = self.keys[&key].events.iter().any(|other| is_lost(other, *seq));
                !positions.contains_key(seq) && !has_lost && (may_delete || check.is_hidden(*seq))
            };
            if let Some(seq) = self.lookup(check, &key).filter(is_unread) {
                self.set_stored(index, Position { log: UNKNOWN_LOG, seq }, check.now_ms);
            }
        }
    }

    /// Checks that all events of a delivery have the same fate.
    fn check_batches(&mut self, check: &Check) -> Checked {
        // The model cannot determine the fate of a keyless event that the journal has already deleted.
        if check.life.hazards.retention || check.hides || !check.hidden.is_empty() {
            return Ok(());
        }
        let mut stored = 0;
        for (index, event) in self.events.iter().enumerate().filter(|(index, event)| *index > event.delivery) {
            let first = &self.events[event.delivery];
            if event.exposure.max(first.exposure) > Exposure::None {
                continue;
            }
            let was_stored = |fate: Fate| matches!(fate, Fate::Stored(_) | Fate::Lost(_));
            let (delivery, first) = (event.delivery, first.fate);
            let is_same = was_stored(first) == was_stored(event.fate);
            ensure!(is_same, "event {index} of the delivery {delivery} is {:?}, the first is {first:?}", event.fate);
            stored += u64::from(was_stored(first));
        }
        self.counts.count("batched event stored", stored);
        Ok(())
    }

    /// Checks that the journal remembers the key of each stored event, and no other key.
    fn check_keys(&self, check: &Check) -> Checked {
        for (key, model) in &self.keys {
            let attempts = || model.events.iter().map(|index| &self.events[*index]);
            let stored: Vec<u64> = attempts().filter_map(ModelEvent::stored_at).map(|position| position.seq).collect();
            let has_expired = |event: &ModelEvent| check.has_expired(event);
            // The lookup counts damage of a key file.
            let seen = self.lookup(check, key);
            let may_be_forgotten = check.may_evict
                || check.hides
                || (check.life.has_missed_reads() && check.has_counted())
                || (check.life.hazards.forgets_keys && attempts().any(has_expired))
                || (self.release_exposure == Exposure::Counted && check.life.hazards.retention && check.has_counted())
                || model.exposure == Exposure::Silent
                || (model.exposure == Exposure::Counted && check.has_counted());
            ensure!(stored.len() <= 1 || may_be_forgotten, "an event is stored twice, at {stored:?}");
            let newest = stored.iter().max().copied();
            if seen == newest || (may_be_forgotten && (seen.is_none() || seen.is_some_and(|seen| stored.contains(&seen)))) {
                continue;
            }
            let fates: Vec<Fate> = attempts().map(|event| event.fate).collect();
            let is_forwarded = |seq: u64| self.acknowledged.contains(&seq);
            let is_lost = |seq| fates.iter().any(|fate| matches!(fate, Fate::Lost(position) if position.seq == seq));
            let may_return = model.may_return || check.life.hazards.has(Fault::MisdirectedWrite);
            let may_be_found = seen.is_some_and(|seq| is_lost(seq) && (is_forwarded(seq) || may_return));
            ensure!(may_be_found || check.hides, "a key is found at {seen:?}, expected {newest:?} ({fates:?})");
        }
        Ok(())
    }

    fn lookup(&self, check: &Check, key: &[u8; 16]) -> Option<u64> {
        match check.journal.lookup_in_memory(&EventKey(*key)) {
            MemoryLookup::Seen(seen) => Some(seen.seq),
            MemoryLookup::New => None,
            MemoryLookup::MaybeOnDisk => check.journal.lookup(&EventKey(*key)).map(|seen| seen.seq),
        }
    }

    /// Checks that no cursor has moved back, that each cursor has passed only acknowledged events, and that no saved cursor is
    /// lost.
    fn check_cursors(&mut self, check: &Check) -> Checked {
        let may_fall_back = match self.cursor_exposure {
            Exposure::Silent => true,
            Exposure::Counted => check.has_counted(),
            Exposure::None => check.hides,
        };
        let cursors = check.journal.topic_cursors();
        for topic in &cursors {
            let (name, cursor) = (&*topic.name, topic.cursor);
            if check.life.hazards.options.forwards {
                // The forwarder skips an event that a fault has destroyed.
                let is_skipped = |event: &&ModelEvent| {
                    let seq = event.stored_at().map_or(u64::MAX, |position| position.seq);
                    TOPICS[event.sample.topic] == name && seq < cursor && !self.acknowledged.contains(&seq)
                };
                let skipped = self.events.iter().filter(|event| event.exposure == Exposure::None).find(is_skipped);
                let skipped = skipped.and_then(ModelEvent::stored_at);
                ensure!(skipped.is_none(), "{name} is at {cursor}, after {skipped:?}, which Kafka has not acknowledged");
            }
            ensure!(cursor <= check.journal.durable_watermark(), "{name} is beyond the durable watermark");
            let before = self.cursors.get(name).map_or(0, |model| model.found.unwrap_or(0).max(model.committed));
            ensure!(cursor >= before || may_fall_back, "{name} fell back from {before} to {cursor}");
            let model = self.cursors.entry(name.to_owned()).or_default();
            (model.found, model.saved) = (Some(cursor), cursor);
            model.moves.clear();
        }
        for (topic, cursor) in &mut self.cursors {
            if cursors.iter().all(|found| *found.name != **topic) {
                ensure!(cursor.found.is_none() || may_fall_back, "the cursor {:?} of {topic} is lost", cursor.found);
                // The process does not know the topic, so it forwards the topic's events from the oldest one.
                cursor.saved = 0;
                cursor.moves.clear();
            }
        }
        Ok(())
    }
}

/// Retention time that no life reaches, in milliseconds.
const LONG_MS: u64 = LONG.as_millis() as u64;

impl Check<'_> {
    fn is_hidden(&self, seq: u64) -> bool {
        self.hidden.iter().any(|range| range.contains(&seq))
    }

    /// Returns true if the journal may lose this event because of the faults so far.
    fn may_be_lost(&self, event: &ModelEvent) -> bool {
        event.exposure == Exposure::Silent || (event.exposure == Exposure::Counted && self.has_counted())
    }

    /// Returns true if a process of this life has counted damage.
    fn has_counted(&self) -> bool {
        (self.life.may_hide() || self.life.has_missed_reads()) && self.life.has_counted_damage()
    }

    /// Returns true if the key of this event may have left the dedupe window.
    fn has_expired(&self, event: &ModelEvent) -> bool {
        let window = self.life.hazards.options.dedupe_window.as_millis() as u64;
        self.now_ms - event.appended_ms >= window
    }
}
