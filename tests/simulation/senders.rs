//! The senders, and a small model of the gateway: a delivery waits if its key is pending, is a duplicate if its key is in memory
//! or in a key file, and is appended otherwise.

use hookhold::clock::Clock;
use hookhold::event::{Event, Position};
use hookhold::event_key::EventKey;
use hookhold::journal::{AppendRejected, Journal, MemoryLookup, SeenKey};

use crate::events::Sample;
use crate::hazards::Fault;
use crate::life::{Life, POISON, State};
use crate::model::{AppendEnd, Checked, Fate};

impl Life {
    /// Sends up to `count` deliveries: new events, batches of new events, and retries of earlier events.
    pub fn deliver_some(&self, count: usize) -> Checked {
        for _ in 0..self.choose(0..count + 1) {
            // Two attempts to append an event have different times of arrival.
            self.clock.advance(1);
            let samples = {
                let State { rng, model, .. } = &mut *self.state();
                let now = self.clock.now().0;
                match model.events.len() {
                    known if known > 0 && rng.u8(..4) == 0 => {
                        let sample = model.events[recent(rng, known)].sample.clone();
                        vec![Sample { received_at: now, ..sample }]
                    }
                    _ => new_delivery(rng, &mut model.next_number, now),
                }
            };
            self.deliver(samples)?;
        }
        Ok(())
    }

    /// Appends a small event that no other delivery repeats. Returns its index in the model.
    pub fn append_small(&self) -> Result<usize, String> {
        let (index, sample) = {
            let State { rng, model, .. } = &mut *self.state();
            let mut sample = new_sample(rng, &mut model.next_number, self.clock.now().0);
            sample.body.truncate(100);
            (model.events.len(), sample)
        };
        self.append(vec![sample])?;
        Ok(index)
    }

    /// Handles one delivery as the gateway does.
    fn deliver(&self, samples: Vec<Sample>) -> Checked {
        let Some(journal) = self.crew().journal.clone() else { return Ok(()) };
        let Some(key) = samples[0].key.filter(|_| samples.len() == 1) else { return self.append(samples) };
        {
            let State { pending, model, .. } = &mut *self.state();
            if let Some(waiting) = pending.get_mut(&key) {
                *waiting += 1;
                model.counts.count("delivery waited for a pending key", 1);
                return Ok(());
            }
        }
        match journal.lookup_in_memory(&EventKey(key)) {
            MemoryLookup::Seen(seen) if !self.is_expired(&journal, &seen) => self.answer_duplicate(key, &seen),
            MemoryLookup::MaybeOnDisk => {
                let state = &mut *self.state();
                state.pending.insert(key, 0);
                state.lookups.extend(samples);
                Ok(())
            }
            _ => self.append(samples),
        }
    }

    /// Looks up one key on disk, and appends the event if no key file contains the key.
    pub fn step_lookup(&self) -> Checked {
        let Some(journal) = self.crew().journal.clone() else { return Ok(()) };
        let Some(sample) = self.state().lookups.pop_front() else { return Ok(()) };
        let key = sample.key.unwrap_or_default();
        if self.choose(0..8) == 0 {
            // The sender leaves before the event is handed over. The next delivery of the event takes over.
            let waiting = self.state().pending.remove(&key).unwrap_or(0);
            self.state().model.counts.count("sender left", 1);
            return if waiting > 0 { self.deliver(vec![sample]) } else { Ok(()) };
        }
        let found = journal.lookup(&EventKey(key));
        self.trace(format_args!("lookup {found:?}"));
        match found {
            Some(seen) if !self.is_expired(&journal, &seen) => {
                self.state().pending.remove(&key);
                self.answer_duplicate(key, &seen)
            }
            _ => self.append(vec![sample]),
        }
    }

    fn answer_duplicate(&self, key: [u8; 16], seen: &SeenKey) -> Checked {
        if self.disk.is_dead() {
            return Ok(());
        }
        self.trace(format_args!("duplicate of {}", seen.seq));
        let (now, window) = (self.clock.elapsed_ms(), self.hazards.options.dedupe_window.as_millis() as u64);
        let State { model, opened_ms, .. } = &mut *self.state();
        model.answer_duplicate(key, seen.seq, now, self.hazards.has(Fault::MisdirectedWrite))?;
        let events = model.keys.get(&key).into_iter().flat_map(|key| &key.events).map(|index| &model.events[*index]);
        let stored_ms =
            events.filter(|event| event.stored_at().is_some_and(|at| at.seq == seen.seq)).map(|event| event.stored_ms);
        // Since the later of both times, the journal's clock has advanced at least as far as the clock of the machine.
        let age = stored_ms.max().map_or(0, |stored| now - stored.max(*opened_ms));
        if age > window {
            return Err(format!("the key of the event {} is {age} ms old and still counts, the window is {window} ms", seen.seq));
        }
        Ok(())
    }

    /// Returns true if a key has left the dedupe window.
    fn is_expired(&self, journal: &Journal, seen: &SeenKey) -> bool {
        let is_expired = seen.first_seen <= journal.now().before(self.hazards.options.dedupe_window);
        if is_expired {
            self.state().model.counts.count("expired key replaced", 1);
        }
        is_expired
    }

    /// Appends the events of one delivery.
    pub fn append(&self, samples: Vec<Sample>) -> Checked {
        let Some(journal) = self.crew().journal.clone() else { return Ok(()) };
        let first = self.state().model.events.len();
        let (results, numbers) = (self.results.clone(), first..first + samples.len());
        let complete = move |end: AppendEnd| {
            for (offset, index) in (0..).zip(numbers) {
                let end = end.map(|first| Position { seq: first.seq + offset, ..first });
                results.lock().expect(POISON).push((index, end));
            }
        };
        let events: Vec<Event> = samples.iter().map(Sample::event).collect();
        let appended = journal.append_batch(&events[0], &events[1..], Box::new(complete));
        let state = &mut *self.state();
        state.trace.line(format_args!("append {first} {appended:?}"));
        let fate = match appended {
            Ok(()) => Fate::Unknown,
            Err(AppendRejected::TopicFull) => {
                state.model.counts.count("backlog full", 1);
                Fate::Superseded
            }
            Err(AppendRejected::Overloaded) => return Err("the queue is never full".into()),
            Err(_) => Fate::Superseded,
        };
        for key in samples.iter().filter_map(|sample| sample.key) {
            match fate {
                Fate::Unknown => drop(state.pending.entry(key).or_insert(0)),
                _ => drop(state.pending.remove(&key)),
            }
        }
        if fate != Fate::Unknown {
            state.model.counts.count("append rejected", 1);
        }
        state.model.add(samples, fate, self.clock.elapsed_ms());
        Ok(())
    }
}

/// Returns the index of a recent event more often than that of an old event.
fn recent(rng: &mut fastrand::Rng, known: usize) -> usize {
    let back = if rng.bool() { rng.usize(..known.min(6)) } else { rng.usize(..known) };
    known - 1 - back
}

/// Returns the events of a new delivery: one event, or a batch with a single topic.
fn new_delivery(rng: &mut fastrand::Rng, next_number: &mut usize, now: u64) -> Vec<Sample> {
    let count = if rng.u8(..4) == 0 { rng.usize(2..6) } else { 1 };
    let mut samples: Vec<Sample> = (0..count).map(|_| new_sample(rng, next_number, now)).collect();
    let topic = samples[0].topic;
    samples.iter_mut().for_each(|sample| sample.topic = topic);
    samples
}

fn new_sample(rng: &mut fastrand::Rng, next_number: &mut usize, now: u64) -> Sample {
    let number = *next_number;
    *next_number += 1;
    let length = match rng.u8(..20) {
        0..3 => rng.usize(2_000..9_000),
        3 => rng.usize(20_000..70_000),
        _ => rng.usize(..400),
    };
    let mut body = format!("<event {number}>").into_bytes();
    let start = body.len();
    body.resize(start + length, 0);
    rng.fill(&mut body[start..]);
    let mut key = [0; 16];
    rng.fill(&mut key);
    Sample {
        topic: rng.usize(..USED_TOPICS),
        body,
        id: format!("id-{number}"),
        key: (rng.u8(..5) > 0).then_some(key),
        received_at: now,
        headers: Vec::new(),
    }
}
/// Number of topics of which a life stores events.
const USED_TOPICS: usize = 3;
