//! Compares a journal with the model.

use std::collections::BTreeMap;
use std::ops::Range;

use hookhold::event::{LogId, Position};
use hookhold::event_key::EventKey;
use hookhold::journal::{Journal, MemoryLookup, ReadOnlyJournal, StoredEvent};
use hookhold::metrics::Metrics;

use crate::events::TOPICS;
use crate::life::{Checked, Life};
use crate::model::{Fate, Model, ModelEvent};

macro_rules! ensure {
    ($condition:expr, $($what:tt)*) => {
        if !$condition {
            return Err(format!($($what)*));
        }
    };
}

impl Model {
    /// Compares the readable events with the model, and updates the model: an event with the fate `Unknown` or `Failed` becomes
    /// either stored or superseded.
    pub fn check(&mut self, life: &Life, journal: &Journal) -> Checked {
        let read = read_all(journal)?;
        let oldest = journal.oldest_seq();
        self.check_each(&read)?;
        let positions: BTreeMap<u64, Position> = read.iter().map(|stored| (stored.position.seq, stored.position)).collect();
        self.find_stored_and_deleted(life, journal, &positions)?;
        let mut gone = 0;
        for (index, event) in self.events.iter_mut().enumerate() {
            match event.fate {
                Fate::Stored(position) if positions.get(&position.seq) == Some(&position) => {}
                Fate::Stored(position) => {
                    let topic = TOPICS[event.sample.topic];
                    // If the journal does not forward events, a topic without a cursor on disk pins nothing.
                    let pinned_from = if life.options.forwards { Some(&0) } else { self.pinned_from.get(topic) };
                    let cursor = self.found.get(topic).max(self.saved.get(topic)).copied().unwrap_or(0);
                    let is_pinned = pinned_from.is_some_and(|from| position.seq >= cursor.max(*from));
                    let may_be_deleted = life.hazards.retention
                        && !is_pinned
                        && (position.seq < oldest || life.options.forwards || !self.saved.is_empty());
                    let read = read.len();
                    ensure!(may_be_deleted, "event {index} ({topic}) at {position} is lost; oldest {oldest}, {read} read");
                    gone += 1;
                }
                Fate::Unknown | Fate::Failed => event.fate = Fate::Superseded,
                Fate::Superseded | Fate::Corrupted => {}
            }
        }
        self.counts.deleted += gone;
        self.check_batches(life)?;
        self.check_keys(journal)?;
        self.check_cursors(journal)
    }

    /// Checks that all events of a delivery have the same fate.
    fn check_batches(&mut self, life: &Life) -> Checked {
        // The model cannot determine the fate of a keyless event that the journal has already deleted.
        if life.hazards.retention || life.hazards.corruption {
            return Ok(());
        }
        for (index, event) in self.events.iter().enumerate().filter(|(index, event)| *index > event.delivery) {
            let first = self.events[event.delivery].fate;
            let is_same = matches!(first, Fate::Stored(_)) == matches!(event.fate, Fate::Stored(_));
            ensure!(is_same, "event {index} of the delivery {} is {:?}, the first is {first:?}", event.delivery, event.fate);
            self.counts.batched += 1;
        }
        Ok(())
    }

    /// Marks an event with the fate `Unknown` or `Failed` as stored if the journal contains the key of the event, but not the
    /// event. The journal has then recovered the event and immediately deleted it.
    fn find_stored_and_deleted(&mut self, life: &Life, journal: &Journal, positions: &BTreeMap<u64, Position>) -> Checked {
        let last = if life.hazards.retention { self.events.len() } else { 0 };
        for index in (0..last).rev() {
            let ModelEvent { sample, fate: Fate::Unknown | Fate::Failed, .. } = &self.events[index] else { continue };
            let Some(key) = sample.key else { continue };
            // If the journal has stored a retry of this event, the key belongs to the retry.
            if self.events.iter().any(|other| other.sample.key == sample.key && matches!(other.fate, Fate::Stored(_))) {
                continue;
            }
            if let Some(seq) = self.lookup(journal, &EventKey(key))?.filter(|seq| !positions.contains_key(seq)) {
                self.events[index].fate = Fate::Stored(Position { log: LogId(0), seq });
            }
        }
        Ok(())
    }

    /// Checks that each event in `read` was appended, is unchanged, occurs only once and is not superseded.
    fn check_each(&mut self, read: &[StoredEvent]) -> Checked {
        ensure!(read.is_sorted_by(|a, b| a.position.seq < b.position.seq), "sequences do not grow");
        for stored in read {
            let (body, position) = (stored.event.body(), stored.position);
            let index = number(body).ok_or_else(|| format!("{position} was never appended"))?;
            let candidates = self.events.iter().enumerate().filter(|(_, event)| event.sample.body == **body);
            let fates: Vec<(usize, Fate)> = candidates.map(|(at, event)| (at, event.fate)).collect();
            ensure!(!fates.is_empty(), "event {index} at {position} has another body");
            let known = fates.iter().find(|(_, fate)| matches!(fate, Fate::Stored(_)));
            let at = match known {
                Some((at, Fate::Stored(known))) => {
                    ensure!(*known == position, "event {at} is stored at {known} and again at {position}");
                    *at
                }
                _ => {
                    let open = fates.iter().rev().find(|(_, fate)| matches!(fate, Fate::Unknown | Fate::Failed));
                    let (at, _) = open.ok_or_else(|| format!("superseded event {index} reappeared at {position}: {fates:?}"))?;
                    self.counts.recovered += 1;
                    self.events[*at].fate = Fate::Stored(position);
                    *at
                }
            };
            let sample = &self.events[at].sample;
            let is_same = stored.event.id() == Some(&*sample.id)
                && **stored.event.topic() == *TOPICS[sample.topic]
                && stored.event.dedupe_key() == sample.key.map(EventKey)
                && stored.event.received_at().0 == sample.received_at;
            ensure!(is_same, "event {at} has changed: {:?}", stored.event);
        }
        Ok(())
    }

    fn check_keys(&self, journal: &Journal) -> Checked {
        for (index, event) in self.events.iter().enumerate() {
            let Some(key) = event.sample.key.map(EventKey) else { continue };
            let same_key = self.events.iter().filter(|other| other.sample.key == event.sample.key);
            let stored: Vec<u64> = same_key.filter_map(ModelEvent::stored_at).map(|position| position.seq).collect();
            ensure!(stored.len() <= 1, "event {index} is stored at {stored:?}");
            let seen = self.lookup(journal, &key)?;
            let expected = stored.first().copied();
            ensure!(seen == expected, "the key of event {index} is found at {seen:?}, expected {expected:?} ({:?})", event.fate);
        }
        Ok(())
    }

    fn lookup(&self, journal: &Journal, key: &EventKey) -> Result<Option<u64>, String> {
        match journal.lookup_in_memory(key) {
            MemoryLookup::Seen(seen) => Ok(Some(seen.seq)),
            MemoryLookup::New => Ok(None),
            MemoryLookup::MaybeOnDisk => Ok(journal.lookup(key).map(|seen| seen.seq)),
        }
    }

    fn check_cursors(&mut self, journal: &Journal) -> Checked {
        for topic in journal.topic_cursors() {
            let (name, cursor) = (&*topic.name, topic.cursor);
            let before = self.found.get(name).copied();
            let saved = self.saved.get(name).copied().unwrap_or(0);
            let skipped = self.stored_in(name).find(|seq| (saved..cursor).contains(seq));
            ensure!(skipped.is_none(), "{name} is at {cursor}, after {skipped:?}, although {saved} was saved");
            ensure!(before.is_none_or(|before| cursor >= before), "{name} fell back from {before:?} to {cursor}");
            ensure!(cursor <= journal.durable_watermark(), "{name} is beyond the durable watermark");
            self.found.insert(name.to_owned(), cursor);
            self.pinned_from.entry(name.to_owned()).or_insert_with(|| journal.durable_watermark());
        }
        for (topic, cursor) in &self.found {
            ensure!(journal.topic_cursors().iter().any(|found| *found.name == **topic), "the cursor {cursor} of {topic} is lost");
        }
        Ok(())
    }

    /// Corrupts some bytes of a segment other than the newest, and returns the damage. Returns `None` if only the newest
    /// segment has frames.
    pub fn damage(&self, life: &Life, rng: &mut fastrand::Rng) -> Option<Damage> {
        let segments = life.disk.names(".seg");
        let older: Vec<&String> = segments[..segments.len() - 1].iter().filter(|name| life.disk.bytes(name).len() > 64).collect();
        let name = older.get(rng.usize(..older.len().max(1)))?.to_string();
        let before = life.disk.bytes(&name);
        let start = rng.usize(..before.len());
        let length = [1, 8, 64, 600, 5_000][rng.usize(..5)];
        let bytes = start..(start + length).min(before.len());
        match rng.bool() {
            true => life.disk.corrupt(&name, bytes.clone(), |_| 0),
            false => life.disk.corrupt(&name, bytes.clone(), |byte| byte ^ 0x5A),
        }
        Some(Damage { name, bytes, before })
    }

    /// Checks that only damaged events are lost, that the keys of the lost events are lost with them, and that the metric and
    /// `verify` show the damage.
    pub fn check_damaged(&mut self, life: &Life, journal: &Journal, metrics: &Metrics, damage: &Damage) -> Checked {
        let report = ReadOnlyJournal::open(life.disk.second_process())
            .and_then(|journal| journal.verify())
            .map_err(|error| error.to_string())?;
        let read = read_all(journal)?;
        self.check_each(&read)?;
        let mut lost = 0;
        for (index, event) in self.events.iter_mut().enumerate() {
            let Fate::Stored(position) = event.fate else { continue };
            if !read.iter().any(|stored| stored.position == position) {
                ensure!(damage.hits(&event.sample.body), "event {index} at {position} is lost, but {damage} did not hit it");
                event.fate = Fate::Corrupted;
                lost += 1;
            }
        }
        self.counts.corrupted += lost;
        let counted = metrics.journal.damaged.get();
        ensure!(lost == 0 || counted > 0, "{lost} events are lost to {damage}, none is counted");
        ensure!(counted <= 2, "one damaged range is counted {counted} times");
        let is_shown =
            report.damage.iter().any(|found| found.file == damage.name && found.bytes.end as usize > damage.bytes.start);
        ensure!(lost == 0 || is_shown, "{lost} events are lost to {damage}, but verify shows {:?}", report.damage);
        self.check_keys(journal)?;
        self.check_cursors(journal)
    }

    /// Checks that another process reads the same events and finds no damage.
    pub fn check_read_only(&mut self, life: &Life) -> Checked {
        let open = || ReadOnlyJournal::open(life.disk.second_process());
        let mut journal = open().map_err(|error| error.to_string())?;
        let mut read = Vec::new();
        while let Some(stored) = journal.next().map_err(|error| error.to_string())? {
            read.push(stored.position);
        }
        let report = open().and_then(|journal| journal.verify()).map_err(|error| error.to_string())?;
        let mut stored: Vec<Position> = self.events.iter().filter_map(ModelEvent::stored_at).collect();
        stored.sort_by_key(|position| position.seq);
        if !life.hazards.retention {
            let count = stored.len();
            ensure!(read == stored, "another process reads {} events, {count} are stored", read.len());
            ensure!(report.events == count as u64, "verify counts {} events, {count} are stored", report.events);
        }
        ensure!(life.hazards.corruption || report.damage.is_empty(), "verify shows damage: {:?}", report.damage);
        ensure!(report.unconfirmed == 0, "{} events are unconfirmed after a close", report.unconfirmed);
        Ok(())
    }
}

/// Damaged range of a file, and the content of the file before the damage.
pub struct Damage {
    pub name: String,
    pub bytes: Range<usize>,
    pub before: Vec<u8>,
}

impl Damage {
    /// Returns true if the damage overlaps a frame that ends with this body. A frame contains at most 600 bytes before the
    /// body.
    fn hits(&self, body: &[u8]) -> bool {
        let found = self.before.windows(body.len()).position(|window| window == body);
        found.is_some_and(|at| at < self.bytes.end + 600 && at + body.len() > self.bytes.start)
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the damage at {:?} of {}", self.bytes, self.name)
    }
}

fn read_all(journal: &Journal) -> Result<Vec<StoredEvent>, String> {
    let mut reader = journal.reader(0);
    let mut read = Vec::new();
    while let Some(stored) = reader.next().map_err(|error| format!("{error}: {}", error.source))? {
        read.push(stored);
    }
    Ok(read)
}

/// Parses the event number at the start of an event's body.
fn number(body: &[u8]) -> Option<usize> {
    let text = body.strip_prefix(b"<event ")?;
    let end = text.iter().position(|byte| *byte == b'>')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}
