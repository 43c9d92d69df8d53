//! Checks.

use crate::events::TOPICS;
use hookhold::event::{LogId, Position};
use hookhold::event_key::EventKey;
use hookhold::journal::{Journal, MemoryLookup, ReadOnlyJournal, StoredEvent};
use hookhold::metrics::Metrics;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::life::*;

macro_rules! ensure {
    ($condition:expr, $($what:tt)*) => {
        if !$condition {
            return Err(format!($($what)*));
        }
    };
}

impl Life {
    /// Compares what can be read with the model. What is found although its end was open is kept from now on.
    pub fn check(&mut self, journal: &Journal) -> Checked {
        let read = read_all(journal)?;
        let oldest = journal.oldest_seq();
        self.check_each(&read)?;
        let positions: BTreeMap<u64, Position> = read.iter().map(|stored| (stored.position.seq, stored.position)).collect();
        self.find_kept_and_deleted(journal, &positions)?;
        let mut gone = 0;
        for (index, handed) in self.events.iter_mut().enumerate() {
            match handed.fate {
                Fate::Kept(position) if positions.get(&position.seq) == Some(&position) => {}
                Fate::Kept(position) => {
                    let lane = TOPICS[handed.sample.topic];
                    // A lane without a cursor on disk pins nothing, unless events are passed on.
                    let since = if self.options.forwards { Some(&0) } else { self.pinned_from.get(lane) };
                    let cursor = self.found.get(lane).max(self.saved.get(lane)).copied().unwrap_or(0);
                    let pinned = since.is_some_and(|since| position.seq >= cursor.max(*since));
                    let deleted = self.trouble.retention
                        && !pinned
                        && (position.seq < oldest || self.options.forwards || !self.saved.is_empty());
                    ensure!(deleted, "event {index} ({lane}) at {position} is lost; oldest {oldest}, {} read", read.len());
                    gone += 1;
                }
                Fate::Open | Fate::Failed => handed.fate = Fate::Void,
                Fate::Void | Fate::Rotten => {}
            }
        }
        self.counts.deleted += gone;
        self.check_keys(journal)?;
        self.check_cursors(journal)
    }

    /// An event whose end was open may have been recovered and deleted at once: its key tells.
    pub fn find_kept_and_deleted(&mut self, journal: &Journal, positions: &BTreeMap<u64, Position>) -> Checked {
        let last = if self.trouble.retention { self.events.len() } else { 0 };
        for index in (0..last).rev() {
            let Handed { sample, fate: Fate::Open | Fate::Failed } = &self.events[index] else { continue };
            let Some(key) = sample.key else { continue };
            // Sent again, and that one is kept.
            if self.events.iter().any(|other| other.sample.key == sample.key && matches!(other.fate, Fate::Kept(_))) {
                continue;
            }
            if let Some(seq) = self.ask(journal, &EventKey(key))?.filter(|seq| !positions.contains_key(seq)) {
                self.events[index].fate = Fate::Kept(Position { log: LogId(0), seq });
            }
        }
        Ok(())
    }

    /// Everything that was read is an event that was handed over, unchanged, once, and not void.
    pub fn check_each(&mut self, read: &[StoredEvent]) -> Checked {
        ensure!(read.is_sorted_by(|a, b| a.position.seq < b.position.seq), "sequences do not grow");
        for stored in read {
            let index = number(stored.event.body()).ok_or_else(|| format!("{} is not an event of ours", stored.position))?;
            let candidates = self.events.iter().enumerate().filter(|(_, handed)| handed.sample.body == *stored.event.body());
            let fates: Vec<(usize, Fate)> = candidates.map(|(at, handed)| (at, handed.fate)).collect();
            ensure!(!fates.is_empty(), "event {index} at {} has another body", stored.position);
            let kept = fates.iter().find(|(_, fate)| matches!(fate, Fate::Kept(_)));
            let at = match kept {
                Some((at, Fate::Kept(position))) => {
                    ensure!(*position == stored.position, "event {at} is kept at {position} and again at {}", stored.position);
                    *at
                }
                _ => {
                    let open = fates.iter().rev().find(|(_, fate)| matches!(fate, Fate::Open | Fate::Failed));
                    let (at, _) =
                        open.ok_or_else(|| format!("void event {index} came back at {}: {fates:?}", stored.position))?;
                    self.counts.recovered += 1;
                    self.events[*at].fate = Fate::Kept(stored.position);
                    *at
                }
            };
            let sample = &self.events[at].sample;
            let same = stored.event.id() == Some(&*sample.id)
                && **stored.event.topic() == *TOPICS[sample.topic]
                && stored.event.dedupe_key() == sample.key.map(EventKey)
                && stored.event.received_at().0 == sample.received_at;
            ensure!(same, "event {at} has changed: {:?}", stored.event);
        }
        Ok(())
    }

    pub fn check_keys(&self, journal: &Journal) -> Checked {
        for (index, handed) in self.events.iter().enumerate() {
            let Some(key) = handed.sample.key.map(EventKey) else { continue };
            let kept = self.events.iter().filter(|other| other.sample.key == handed.sample.key);
            let kept: Vec<u64> =
                kept.filter_map(|other| if let Fate::Kept(at) = other.fate { Some(at.seq) } else { None }).collect();
            ensure!(kept.len() <= 1, "event {index} is kept at {kept:?}");
            let seen = self.ask(journal, &key)?;
            ensure!(seen == kept.first().copied(), "the key of event {index} is {seen:?}, not {kept:?} ({:?})", handed.fate);
        }
        Ok(())
    }

    pub fn ask(&self, journal: &Journal, key: &EventKey) -> Result<Option<u64>, String> {
        match journal.lookup_in_memory(key) {
            MemoryLookup::Seen(seen) => Ok(Some(seen.seq)),
            MemoryLookup::New => Ok(None),
            MemoryLookup::MaybeOnDisk => match journal.lookup(key) {
                Ok(seen) => Ok(seen.map(|seen| seen.seq)),
                Err(error) => Err(format!("lookup: {error}")),
            },
        }
    }

    pub fn check_cursors(&mut self, journal: &Journal) -> Checked {
        for lane in journal.topic_cursors() {
            let first = self.found.get(&*lane.name).copied();
            let saved = self.saved.get(&*lane.name).copied().unwrap_or(0);
            let skipped = self.kept_in(&lane.name).find(|seq| (saved..lane.cursor).contains(seq));
            ensure!(skipped.is_none(), "{} is at {}, behind {skipped:?}, although saved was {saved}", lane.name, lane.cursor);
            ensure!(first.is_none_or(|first| lane.cursor >= first), "{} fell back from {first:?} to {}", lane.name, lane.cursor);
            ensure!(lane.cursor <= journal.durable_watermark(), "{} is beyond the mark", lane.name);
            self.found.insert(lane.name.to_string(), lane.cursor);
            self.pinned_from.entry(lane.name.to_string()).or_insert_with(|| journal.durable_watermark());
        }
        for (lane, cursor) in &self.found {
            ensure!(journal.topic_cursors().iter().any(|found| *found.name == **lane), "the cursor {cursor} of {lane} is lost");
        }
        Ok(())
    }

    pub fn kept_in(&self, lane: &str) -> impl Iterator<Item = u64> {
        let mine = self.events.iter().filter(move |handed| TOPICS[handed.sample.topic] == lane);
        mine.filter_map(|handed| if let Fate::Kept(at) = handed.fate { Some(at.seq) } else { None })
    }

    /// Changes some bytes of an older segment. What and where; `None`: there is none to change.
    pub fn damage(&mut self) -> Option<Damage> {
        let segments = self.disk.names(".seg");
        let older: Vec<&String> = segments[..segments.len() - 1].iter().filter(|name| self.disk.bytes(name).len() > 64).collect();
        let name = older.get(self.rng.usize(..older.len().max(1)))?.to_string();
        let before = self.disk.bytes(&name);
        let start = self.rng.usize(..before.len());
        let length = [1, 8, 64, 600, 5_000][self.rng.usize(..5)];
        let bytes = start..(start + length).min(before.len());
        match self.rng.bool() {
            true => self.disk.corrupt(&name, bytes.clone(), |_| 0),
            false => self.disk.corrupt(&name, bytes.clone(), |byte| byte ^ 0x5A),
        }
        Some(Damage { name, bytes, before })
    }

    /// Lost is what was hit, and its key; everything else is there.
    pub fn check_damaged(&mut self, journal: &Journal, metrics: &Metrics, damage: &Damage) -> Checked {
        let verdict = ReadOnlyJournal::open(self.disk.second_process())
            .and_then(|outside| outside.verify())
            .map_err(|error| error.to_string())?;
        let read = read_all(journal)?;
        self.check_each(&read)?;
        let mut lost = 0;
        for (index, handed) in self.events.iter_mut().enumerate() {
            let Fate::Kept(position) = handed.fate else { continue };
            if !read.iter().any(|stored| stored.position == position) {
                ensure!(damage.hits(&handed.sample.body), "event {index} at {position} is lost, but {damage} did not hit it");
                handed.fate = Fate::Rotten;
                lost += 1;
            }
        }
        self.counts.rotten += lost;
        let counted = metrics.journal.damaged.get();
        ensure!(lost == 0 || counted > 0, "{lost} events are lost to {damage}, none is counted");
        ensure!(counted <= 2, "one damage is counted as {counted}");
        let shown = verdict.damage.iter().any(|found| found.file == damage.name && found.bytes.end as usize > damage.bytes.start);
        ensure!(lost == 0 || shown, "{lost} events are lost to {damage}, but verify shows {:?}", verdict.damage);
        self.check_keys(journal)?;
        self.check_cursors(journal)
    }

    /// Another process sees the same, and nothing damaged.
    pub fn check_from_outside(&mut self) -> Checked {
        let open = || ReadOnlyJournal::open(self.disk.second_process());
        let mut outside = open().map_err(|error| error.to_string())?;
        let mut seen = Vec::new();
        while let Some(stored) = outside.next().map_err(|error| error.to_string())? {
            seen.push(stored.position);
        }
        let verdict = open().and_then(|outside| outside.verify()).map_err(|error| error.to_string())?;
        let kept = self.events.iter().filter_map(|handed| if let Fate::Kept(at) = handed.fate { Some(at) } else { None });
        let mut kept: Vec<Position> = kept.collect();
        kept.sort_by_key(|at| at.seq);
        if !self.trouble.retention {
            ensure!(seen == kept, "from outside {} events are seen, {} are kept", seen.len(), kept.len());
            ensure!(verdict.events == kept.len() as u64, "verify counts {} events, {} are kept", verdict.events, kept.len());
        }
        ensure!(self.trouble.rot || verdict.damage.is_empty(), "verify shows damage: {:?}", verdict.damage);
        ensure!(verdict.unconfirmed == 0, "{} events are unsure after a close", verdict.unconfirmed);
        Ok(())
    }
}

/// Bytes that were changed, and the file as it was before.
pub struct Damage {
    pub name: String,
    pub bytes: Range<usize>,
    pub before: Vec<u8>,
}

impl Damage {
    /// True if a frame that ends with this body lies where the damage is. What stands before a body is at most 600 bytes.
    pub fn hits(&self, body: &[u8]) -> bool {
        let found = self.before.windows(body.len()).position(|window| window == body);
        found.is_some_and(|at| at < self.bytes.end + 600 && at + body.len() > self.bytes.start)
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the damage at {:?} of {}", self.bytes, self.name)
    }
}

pub fn read_all(journal: &Journal) -> Result<Vec<StoredEvent>, String> {
    let mut reader = journal.reader(0);
    let mut read = Vec::new();
    while let Some(stored) = reader.next().map_err(|error| format!("{error}: {}", error.source))? {
        read.push(stored);
    }
    Ok(read)
}

/// The number at the start of a body.
pub fn number(body: &[u8]) -> Option<usize> {
    let text = body.strip_prefix(b"<event ")?;
    let end = text.iter().position(|byte| *byte == b'>')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}
