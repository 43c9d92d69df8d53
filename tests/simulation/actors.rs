//! The actors of an opening: the writer, the background work, the forwarder with Kafka, a reader in another process, and the
//! clock. A step of one actor may run inside a disk operation of another, as if both ran on their own threads.

use std::time::Duration;

use hookhold::journal::{Journal, ReadOnlyJournal, WriterStep};

use crate::disk::Step;
use crate::hazards::Fault;
use crate::life::{Life, MAX_STEPS, POISON, State, WriterBatch};
use crate::model::{Checked, ModelCursor};

impl Life {
    /// Lets a random actor perform a step.
    pub fn turn(&self) {
        let done = match self.choose(0..20) {
            0..4 => self.deliver_some([1, 2, 8][self.choose(0..3)]),
            4..9 => self.step_writer().map(|_| ()),
            9..12 => {
                self.step_background();
                Ok(())
            }
            12..14 => self.step_lookup(),
            14 => self.forward_some(),
            15..17 => {
                self.acknowledge_some();
                Ok(())
            }
            17 => {
                self.pass_time();
                Ok(())
            }
            18 => match self.choose(0..8) {
                0..2 => self.read_from_outside(),
                2 => self.start_second_process(),
                3 => self.check_place(),
                _ => Ok(()),
            },
            _ => {
                self.cause_fault();
                Ok(())
            }
        };
        if let Err(failure) = done {
            self.state().failure.get_or_insert(failure);
        }
    }

    /// Adds the disk operation to the trace. Sometimes lets other actors perform steps before the operation takes effect.
    pub fn observe(&self, step: Step, name: &str) {
        let mut state = self.state();
        state.trace.line(format_args!("{step:?} {name}"));
        // A lookup may read many files, so fewer of its operations are worth a step.
        let rarity = if matches!(step, Step::Read | Step::Open) { 16 } else { 4 };
        if state.interleavings == 0 || state.depth == MAX_DEPTH || state.rng.u8(..rarity) > 0 {
            return;
        }
        state.interleavings -= 1;
        state.depth += 1;
        state.model.counts.count("step inside a disk operation", 1);
        drop(state);
        self.turn();
        self.state().depth -= 1;
    }

    /// Performs a step of the writer, unless the writer performs one already, or would have to wait for the background work.
    pub fn step_writer(&self) -> Result<WriterStep, String> {
        let is_blocked = self.is_blocked();
        let Some(mut writer) = self.crew().writer.take_if(|_| !is_blocked) else { return Ok(WriterStep::Idle) };
        {
            let (start_ms, failures) = (self.clock.elapsed_ms(), self.disk.failed_steps());
            let State { model, batch, .. } = &mut *self.state();
            batch.get_or_insert_with(|| {
                let due = |cursor: &ModelCursor| cursor.moved_before((start_ms + 1).saturating_sub(MAX_CURSOR_DELAY_MS));
                let due_cursors = model.cursors.iter().filter_map(|(topic, cursor)| Some((topic.clone(), due(cursor)?)));
                WriterBatch { due_cursors: due_cursors.collect(), failures }
            });
        }
        let step = writer.step();
        self.trace(format_args!("writer {step:?}"));
        if !matches!(step, WriterStep::WaitsForTask(_)) {
            let batch = self.state().batch.take();
            self.note_batch(step, batch);
        }
        if step != WriterStep::Ended {
            self.crew().writer = Some(writer);
        }
        Ok(step)
    }

    /// Notes the cursors that the writer must have saved with a batch.
    fn note_batch(&self, step: WriterStep, batch: Option<WriterBatch>) {
        let Some(WriterBatch { due_cursors, failures }) = batch else { return };
        let has_room = self.crew().journal.as_ref().is_some_and(|journal| journal.unavailable_reason(Duration::MAX).is_none());
        if step == WriterStep::Saved && has_room && !self.disk.is_dead() && failures == self.disk.failed_steps() {
            self.commit_cursors(due_cursors);
        }
    }

    /// Records that a synced commit contains these cursors, or later ones.
    fn commit_cursors(&self, cursors: Vec<(String, u64)>) {
        let model = &mut self.state().model;
        for (topic, cursor) in cursors {
            let model = model.cursors.entry(topic).or_default();
            model.committed = model.committed.max(cursor);
        }
    }

    /// Performs a step of the background work, unless it performs one already, or would have to wait for the writer.
    pub fn step_background(&self) -> bool {
        let is_blocked = self.is_blocked();
        let Some(mut background) = self.crew().background.take_if(|_| !is_blocked) else { return false };
        let has_worked = background.step();
        self.trace(format_args!("background {has_worked}"));
        self.crew().background = Some(background);
        has_worked
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.crew().journal.as_ref().is_some_and(Journal::is_making_room)
    }

    fn pass_time(&self) {
        self.clock.advance(self.choose(0..5_000) as u64);
        if self.hazards.has(Fault::ClockJump) && self.choose(0..6) == 0 {
            let jump = [YEAR_MS, -YEAR_MS, 3_600_000, -3_600_000][self.choose(0..4)];
            self.clock.jump(jump);
            self.trace(format_args!("the wall clock jumps {jump} ms"));
            self.state().model.counts.count("clock jump", 1);
        }
    }

    /// Reads some events, as the forwarder does, and sends them to Kafka. Every event must have been appended.
    pub fn forward_some(&self) -> Checked {
        for _ in 0..self.choose(1..8) {
            if !self.forward_one()? {
                break;
            }
        }
        Ok(())
    }

    /// Reads one event and sends it to Kafka. Returns false if there is no further event.
    fn forward_one(&self) -> Result<bool, String> {
        let Some(mut reader) = self.crew().forwarder.take() else { return Ok(false) };
        let next = reader.next();
        self.crew().forwarder = Some(reader);
        match next {
            Ok(Some(stored)) => {
                let State { model, in_flight, .. } = &mut *self.state();
                if model.attempts_of(stored.event.body()).is_empty() {
                    return Err(format!("the reader returned {}, which was never appended", stored.position));
                }
                let topic = stored.event.topic().to_string();
                let (seq, cursor) = (stored.position.seq, model.cursors.get(&topic).map_or(0, |cursor| cursor.saved));
                if seq >= cursor {
                    in_flight.entry(topic).or_default().push_back(seq);
                    model.counts.count("event forwarded", 1);
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(_) if self.disk.is_dead() || self.may_hide() => Ok(false),
            Err(error) => Err(format!("{error}: {}", error.source)),
        }
    }

    /// Lets Kafka acknowledge some records, and saves the cursors of their topics, as the forwarder does.
    fn acknowledge_some(&self) {
        let Some(journal) = self.crew().journal.clone() else { return };
        let position = self.crew().forwarder.as_ref().map(|reader| reader.next_seq());
        let topics = journal.topic_cursors();
        let State { rng, model, trace, in_flight, .. } = &mut *self.state();
        // The cursor of a topic moves even if all of its events are lost.
        topics.iter().for_each(|topic| _ = in_flight.entry(topic.name.to_string()).or_default());
        for (topic, records) in in_flight {
            let count = if rng.bool() { records.len() } else { rng.usize(..=records.len()) };
            let acknowledged: Vec<u64> = records.drain(..count).collect();
            model.acknowledged.extend(&acknowledged);
            // If nothing of the topic is in flight, the cursor moves to the position of the reader.
            let last = acknowledged.last().map(|seq| seq + 1);
            let cursor = if records.is_empty() { position.max(last) } else { last };
            let known = model.cursors.entry(topic.clone()).or_default();
            let current = topics.iter().find(|current| *current.name == **topic).map_or(0, |current| current.cursor);
            let Some(cursor) = cursor.filter(|cursor| *cursor > known.saved.max(current)) else { continue };
            known.saved = cursor;
            known.moves.push((self.clock.elapsed_ms(), cursor));
            trace.line(format_args!("cursor {topic} {cursor}"));
            journal.save_cursor(topic, cursor, count as u64);
        }
    }

    /// Forwards all events, and lets Kafka acknowledge them.
    pub fn forward_everything(&self) -> Checked {
        for _ in 0..MAX_STEPS {
            if !self.forward_one()? {
                break;
            }
        }
        self.acknowledge_some();
        while self.state().in_flight.values().any(|records| !records.is_empty()) {
            self.acknowledge_some();
        }
        Ok(())
    }

    /// Reads the journal in another process, from a random position. That process must see only events that this process has
    /// stored, and no damage.
    fn read_from_outside(&self) -> Checked {
        let Some(journal) = self.crew().journal.clone() else { return Ok(()) };
        // Without the lock file, the process has no published watermark.
        let is_excused = || self.disk.is_dead() || self.may_hide() || self.disk.len("lock").is_none();
        let failed = |error: std::io::Error| if is_excused() { Ok(()) } else { Err(format!("another process: {error}")) };
        let mut outside = match ReadOnlyJournal::open(self.disk.second_process()) {
            Ok(outside) => outside,
            Err(error) => return failed(error),
        };
        self.state().model.counts.count("read from outside", 1);
        outside.seek(self.choose(0..journal.durable_watermark() as usize + 1) as u64);
        let mut last = None;
        for _ in 0..self.choose(1..30) {
            let stored = match outside.next() {
                Ok(Some(stored)) => stored,
                Ok(None) => break,
                Err(error) => return failed(error),
            };
            let position = stored.position;
            if last.is_some_and(|last| position.seq <= last) {
                return Err(format!("another process reads {position} after {last:?}"));
            }
            last = Some(position.seq);
            // After a failed write of the published watermark, the other process determines the watermark from the segments.
            if !self.disk.is_dead() && !self.has_failed_steps() && position.seq >= journal.durable_watermark() {
                return Err(format!("another process reads {position}, which is not durable yet"));
            }
            if self.state().model.attempts_of(stored.event.body()).is_empty() {
                return Err(format!("another process reads {position}, which was never appended"));
            }
        }
        if self.choose(0..3) > 0 {
            return Ok(());
        }
        match outside.verify() {
            Ok(report) if !report.damage.is_empty() && !is_excused() => {
                Err(format!("another process sees damage where there is none: {:?}", report.damage))
            }
            Ok(_) => Ok(()),
            Err(error) => failed(error),
        }
    }

    /// Closes the journal as a clean stop does.
    pub fn close(&self) -> Checked {
        let failures = self.disk.failed_steps();
        if let Some(journal) = &self.crew().journal {
            journal.close();
        }
        for _ in 0..MAX_STEPS {
            if self.crew().writer.is_none() {
                self.record();
                let is_clean = !self.disk.is_dead() && failures == self.disk.failed_steps() && self.is_healthy();
                if is_clean {
                    let cursors = self.state().model.cursors.iter().map(|(topic, c)| (topic.clone(), c.saved)).collect();
                    self.commit_cursors(cursors);
                }
                self.dismiss();
                return Ok(());
            }
            if let WriterStep::WaitsForTask(_) = self.step_writer()? {
                self.step_background();
            }
        }
        Err(format!("the writer has not ended {MAX_STEPS} steps after the journal was closed"))
    }

    fn is_healthy(&self) -> bool {
        self.crew().journal.as_ref().is_some_and(|journal| journal.unavailable_reason(Duration::MAX).is_none())
    }

    /// Records the results of appends in the model. The deliveries that wait for a key get the same result.
    pub fn record(&self) {
        let is_dead = self.disk.is_dead();
        let results = std::mem::take(&mut *self.results.lock().expect(POISON));
        let now = self.clock.elapsed_ms();
        let State { model, trace, pending, .. } = &mut *self.state();
        for (index, result) in results {
            trace.line(format_args!("result {index} {result:?}"));
            if let Some(key) = model.events[index].sample.key {
                pending.remove(&key);
            }
            model.record(index, result, is_dead, now);
        }
    }
}

/// Maximum number of disk operations inside which an actor performs a step at the same time.
const MAX_DEPTH: u32 = 2;
/// Time within which a cursor is in a synced commit, in milliseconds.
const MAX_CURSOR_DELAY_MS: u64 = 1_000;
const YEAR_MS: i64 = 365 * 86_400_000;
