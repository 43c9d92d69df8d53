//! The model: what the senders and Kafka know about each event, and what the journal must therefore contain.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hookhold::event::{LogId, Position};
use hookhold::journal::AppendError;

use crate::clock::START_OF_WALL_MS;
use crate::counts::Counts;
use crate::disk::Incident;
use crate::events::Sample;

/// Fate of an event in the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Event without a result. The event may or may not be stored.
    Unknown,
    /// Event that the journal reported as not stored. The frame of the event may still be on the disk.
    Failed,
    /// Event that is not stored and must never appear in the journal.
    Superseded,
    /// Event that is stored at this position.
    Stored(Position),
    /// Event that was stored at this position, and that a fault has destroyed.
    Lost(Position),
}

/// Possible damage by the faults so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exposure {
    #[default]
    None,
    /// The journal may lose the event or the key if it counts the damage.
    Counted,
    /// The journal may also lose the event in silence, because nothing on the disk shows that its sync had succeeded.
    Silent,
}

pub struct ModelEvent {
    pub sample: Sample,
    pub fate: Fate,
    /// True if the journal has reported that the event is not stored, after it had accepted the event.
    pub has_failed: bool,
    /// Index of the first event of the same delivery.
    pub delivery: usize,
    pub exposure: Exposure,
    /// Earliest time of the append, and time of the first proof that the event is stored, in milliseconds since the start of the life.
    pub appended_ms: u64,
    pub stored_ms: u64,
}

/// The events of a life, the cursors and the counts so far.
#[derive(Default)]
pub struct Model {
    pub events: Vec<ModelEvent>,
    /// Number in the body of the next new event.
    pub next_number: usize,
    /// Indexes of all attempts to append a body, by the number in the body.
    pub attempts: HashMap<usize, Vec<usize>>,
    pub keys: BTreeMap<[u8; 16], ModelKey>,
    /// Events that have failed, and that no later event has superseded yet.
    failed: Vec<usize>,
    /// Sequences of the events that Kafka has acknowledged.
    pub acknowledged: BTreeSet<u64>,
    /// Cursors by topic.
    pub cursors: BTreeMap<String, ModelCursor>,
    /// Possible damage to the cursors by the faults so far.
    pub cursor_exposure: Exposure,
    /// Possible damage to records of releases. Without its record, a deleted segment looks lost.
    pub release_exposure: Exposure,
    pub counts: Counts,
}

/// Attempts to append events with one key.
#[derive(Default)]
pub struct ModelKey {
    pub events: Vec<usize>,
    pub exposure: Exposure,
    /// True if a fault may have hit an event with this key, and a later fault the record that the event is lost.
    pub may_return: bool,
}

/// Cursor of one topic.
#[derive(Default)]
pub struct ModelCursor {
    /// Cursor that the current process has saved or found.
    pub saved: u64,
    /// Cursor that the journal had at its last startup.
    pub found: Option<u64>,
    /// Highest cursor that a synced commit must contain.
    pub committed: u64,
    /// Time in milliseconds and new cursor of each move by the current process.
    pub moves: Vec<(u64, u64)>,
}

/// Result of an append.
pub type AppendEnd = Result<Position, AppendError>;

/// Result of a check. An error describes the broken guarantee.
pub type Checked = Result<(), String>;

impl Model {
    /// Adds the events of a delivery that the journal has accepted or rejected.
    pub fn add(&mut self, samples: Vec<Sample>, fate: Fate, now_ms: u64) {
        let delivery = self.events.len();
        for sample in samples {
            let index = self.events.len();
            let number = body_number(&sample.body).expect("every body has a number");
            self.attempts.entry(number).or_default().push(index);
            if let Some(key) = sample.key {
                self.keys.entry(key).or_default().events.push(index);
            }
            let exposure = Exposure::None;
            let appended_ms = now_ms.min(sample.received_at.saturating_sub(START_OF_WALL_MS));
            self.events.push(ModelEvent { sample, fate, has_failed: false, delivery, exposure, appended_ms, stored_ms: now_ms });
        }
    }

    /// Records the result of an append. `is_dead` is true if the process was dead when the result arrived.
    pub fn record(&mut self, index: usize, result: AppendEnd, is_dead: bool, now_ms: u64) {
        match result {
            Ok(position) => {
                self.counts.count("append acknowledged", 1);
                self.set_stored(index, position, now_ms);
                // The stored event has the sequence of the earlier failed events, so it supersedes them.
                let (earlier, later) = self.failed.drain(..).partition(|failed| *failed < index);
                self.failed = later;
                let earlier: Vec<usize> = earlier;
                for failed in earlier {
                    let fate = &mut self.events[failed].fate;
                    *fate = if *fate == Fate::Failed { Fate::Superseded } else { *fate };
                }
            }
            // A real process could not report this error after its death, so the fate of the event remains unknown.
            Err(_) if is_dead => {}
            Err(AppendError::Sync) => {}
            Err(AppendError::Write | AppendError::Full) => {
                self.counts.count("append failed", 1);
                (self.events[index].fate, self.events[index].has_failed) = (Fate::Failed, true);
                self.failed.push(index);
            }
        }
    }

    /// Records that an event is stored.
    pub fn set_stored(&mut self, index: usize, position: Position, now_ms: u64) {
        let event = &mut self.events[index];
        (event.fate, event.stored_ms) = (Fate::Stored(position), now_ms);
    }

    /// Records that the gateway has answered a delivery as a duplicate of the stored event `seq`. The answer is a 2xx, so the
    /// event must be stored, or Kafka must have it. `may_return` is true if the key of a lost event may return.
    pub fn answer_duplicate(&mut self, key: [u8; 16], seq: u64, now_ms: u64, may_return: bool) -> Checked {
        let attempts = self.keys.get(&key).map(|key| key.events.clone()).unwrap_or_default();
        if attempts.iter().any(|index| self.events[*index].stored_at().is_some_and(|position| position.seq == seq)) {
            self.counts.count("delivery answered as a duplicate", 1);
            return Ok(());
        }
        let is_lost = |index: &usize| matches!(self.events[*index].fate, Fate::Lost(position) if position.seq == seq);
        let may_return = may_return || self.keys.get(&key).is_some_and(|key| key.may_return);
        if attempts.iter().any(is_lost) && (may_return || self.acknowledged.contains(&seq)) {
            return Ok(());
        }
        // A crash, or a sender that has left, has hidden the result of this append. If several attempts have no result, `check_each`
        // replaces this choice once it sees the time of arrival of the stored event.
        if let Some(index) = attempts.iter().rev().find(|index| self.events[**index].fate == Fate::Unknown) {
            self.set_stored(*index, Position { log: UNKNOWN_LOG, seq }, now_ms);
            return Ok(());
        }
        let fates: Vec<Fate> = attempts.iter().map(|index| self.events[*index].fate).collect();
        Err(format!("a delivery was answered as a duplicate of the event {seq}, which is not stored: {fates:?}"))
    }

    /// Returns the indexes of all attempts to append an event with this body.
    pub fn attempts_of(&self, body: &[u8]) -> Vec<usize> {
        let attempts = body_number(body).and_then(|number| self.attempts.get(&number));
        attempts.into_iter().flatten().copied().filter(|index| self.events[*index].sample.body == body).collect()
    }

    /// Raises the exposure of all events and keys that an incident has hit.
    pub fn expose(&mut self, incident: &Incident) {
        let is_segment = incident.file.contains(".seg");
        let overlaps = |a: &std::ops::Range<usize>, b: &std::ops::Range<usize>| a.start < b.end && b.start < a.end;
        if !is_segment {
            for (key, model) in &mut self.keys {
                if memchr::memmem::find(&incident.content, key).is_some() {
                    model.exposure = model.exposure.max(Exposure::Counted);
                }
            }
        }
        // Damage to the newest commit looks like a commit that was never synced.
        let hits_newest = overlaps(&incident.bytes, &incident.last_write);
        let exposure = if hits_newest { Exposure::Silent } else { Exposure::Counted };
        if is_segment {
            self.cursor_exposure = self.cursor_exposure.max(exposure);
            self.release_exposure = Exposure::Counted;
            for key in self.keys.values_mut() {
                key.may_return |= key.exposure > Exposure::None;
            }
        }
        let mut deliveries = BTreeSet::new();
        for at in memchr::memmem::find_iter(&incident.content, BODY_START) {
            let attempts = body_number(&incident.content[at..]).and_then(|number| self.attempts.get(&number));
            for index in attempts.into_iter().flatten() {
                let event = &mut self.events[*index];
                let frame = at.saturating_sub(MAX_HEAD)..at + event.sample.body.len() + MAX_TAIL;
                let is_newest = hits_newest && overlaps(&frame, &incident.last_write);
                if !is_newest && !overlaps(&frame, &incident.bytes) {
                    continue;
                }
                event.exposure = event.exposure.max(exposure);
                deliveries.insert(event.delivery);
                if let Some(key) = event.sample.key.and_then(|key| self.keys.get_mut(&key)) {
                    key.exposure = key.exposure.max(exposure);
                }
            }
        }
        // Recovery drops the rest of a delivery that looks torn.
        for event in self.events.iter_mut().filter(|event| hits_newest && deliveries.contains(&event.delivery)) {
            event.exposure = event.exposure.max(exposure);
            if let Some(key) = event.sample.key.and_then(|key| self.keys.get_mut(&key)) {
                key.exposure = key.exposure.max(exposure);
            }
        }
    }
}

impl ModelCursor {
    /// Returns the cursor after the last move before this time.
    pub fn moved_before(&self, ms: u64) -> Option<u64> {
        self.moves[..self.moves.partition_point(|(at, _)| *at < ms)].last().map(|(_, cursor)| *cursor)
    }
}

impl ModelEvent {
    /// Returns the position of a stored event; `None` for any other event.
    pub fn stored_at(&self) -> Option<Position> {
        if let Fate::Stored(position) = self.fate { Some(position) } else { None }
    }
}

/// Returns true if both are positions of the same event.
pub fn is_same(a: Position, b: Position) -> bool {
    a.seq == b.seq && (a.log == b.log || a.log == UNKNOWN_LOG || b.log == UNKNOWN_LOG)
}

/// Parses the event number at the start of an event's body.
pub fn body_number(body: &[u8]) -> Option<usize> {
    let text = body.strip_prefix(BODY_START)?;
    let end = text.iter().take(20).position(|byte| *byte == b'>')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// Log id of an event whose sequence is known only from its key.
pub const UNKNOWN_LOG: LogId = LogId(0);
const BODY_START: &[u8] = b"<event ";
/// Maximum number of bytes of a frame before the body, including the commit frame and the cursors before the first frame.
const MAX_HEAD: usize = 1_200;
/// Maximum number of bytes of a frame after the body.
const MAX_TAIL: usize = 128;
