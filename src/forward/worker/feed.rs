//! Moves events from the journal's readers to the producer. The reader at the log end feeds the topics that keep up. The topics
//! that are behind share passes over the older events. A topic never waits for a blocked topic, and waits only briefly for a topic
//! that has just reached its in-flight limit.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::Worker;
use crate::forward::in_flight_limit::ALL_BYTES;
use crate::forward::kafka_error::BlockReason;
use crate::forward::mailbox::pack_ticket;
use crate::forward::readers::ReaderId;
use crate::forward::record::Envelope;
use crate::journal::{ReadStep, StoredEvent};

impl Worker {
    /// Sends a bounded number of events, so that the loop can apply delivery reports between two calls. Returns false
    /// if no event could be sent.
    pub(super) fn feed(&mut self, now: Instant) -> bool {
        self.in_flight.bytes = self.queues.iter().map(|queue| queue.in_flight.bytes()).sum();
        self.assign_readers(now);
        let mut moved = false;
        for id in self.readers.ids() {
            moved |= self.read(id, now);
        }
        for ended in self.readers.end_passes() {
            self.finish_pass(ended, now);
        }
        moved
    }

    /// Gives a reader to each topic that may send but has no reader. Starts a new pass if necessary.
    fn assign_readers(&mut self, now: Instant) {
        if !self.client.is_ready() {
            self.readers.gather(0, now);
            return;
        }
        let (mut waiting, mut caught_up) = (Vec::new(), Vec::new());
        for index in 0..self.queues.len() {
            if !self.queues[index].needs_reader(self.in_flight.each) {
                continue;
            }
            match self.readers.joinable(self.queues[index].next_seq()) {
                Some(ReaderId::Live) => caught_up.push(index),
                Some(pass) => self.queues[index].join_pass(pass),
                None => waiting.push(index),
            }
        }
        self.join_live(&caught_up, now);
        if self.readers.gather(waiting.len(), now)
            && let Some(from) = waiting.iter().map(|index| self.queues[*index].next_seq()).min()
        {
            let pass = self.readers.start_pass(from);
            debug!(topics = waiting.len(), from, "topics that are behind share a pass over older events");
            for index in waiting {
                // A topic that is far ahead of the others gets another pass.
                if self.readers.joinable(self.queues[index].next_seq()) == Some(pass) {
                    self.queues[index].join_pass(pass);
                }
            }
        }
    }

    /// Reads events with one reader and sends them. Returns true if the loop should continue at once.
    fn read(&mut self, id: ReaderId, now: Instant) -> bool {
        if id != ReaderId::Live {
            let members = self.queues.iter().filter(|queue| queue.is_fed_by(id)).map(|queue| queue.topic.clone());
            let members = Arc::new(members.collect::<HashSet<_>>());
            self.readers.set_topics(id, members);
        }
        let turn_ends = Instant::now() + TURN;
        for frame in 0..BURST {
            if frame % CHECK_TIME_EVERY == 0 && Instant::now() >= turn_ends {
                return true;
            }
            match self.step(id, now) {
                ReadStep::Event(stored) => {
                    if !self.hand_over(id, stored, now) {
                        return frame > 0;
                    }
                }
                ReadStep::Passed => {}
                ReadStep::End => return frame > 0,
            }
        }
        true
    }

    /// Reads one frame. A failed read blocks every topic that the reader feeds. The next successful read unblocks these topics.
    fn step(&mut self, id: ReaderId, now: Instant) -> ReadStep {
        let end = self.readers.live().position();
        let Some(reader) = self.readers.get(id) else { return ReadStep::End };
        if id != ReaderId::Live && reader.position() >= end {
            return ReadStep::End;
        }
        let (was_failing, before) = (reader.is_failing(), reader.position());
        let read = reader.step(now);
        let (is_failing, has_moved) = (reader.is_failing(), reader.position() > before);
        match read {
            Ok(step) => {
                match step {
                    ReadStep::Passed if has_moved && id == ReaderId::Live => self.has_skipped = true,
                    ReadStep::End if id == ReaderId::Live && std::mem::take(&mut self.has_skipped) => self.pass_lost(),
                    _ => {}
                }
                if was_failing && !is_failing {
                    self.queues.iter_mut().filter(|queue| queue.waits_for(id)).for_each(|queue| queue.unblock(now));
                }
                step
            }
            Err(error) => {
                let error = error.to_string();
                let fed = self.queues.iter_mut().filter(|queue| queue.is_fed_by(id) && queue.block_reason().is_none());
                fed.for_each(|queue| queue.block(BlockReason::Journal, &error, now));
                ReadStep::End
            }
        }
    }

    /// Sends an event that a reader has read. If the event's queue is full, holds the event back or lets the queue fall behind.
    /// Returns false if the event was held back.
    fn hand_over(&mut self, id: ReaderId, stored: StoredEvent, now: Instant) -> bool {
        let seq = stored.position.seq;
        let index = match self.by_topic.get(stored.event.topic()) {
            Some(index) => *index,
            None => self.add_first_seen(&stored, now),
        };
        let has_room = self.in_flight.bytes < ALL_BYTES || self.queues[index].in_flight.is_empty();
        let queue = &mut self.queues[index];
        if queue.takes_from(id, seq) {
            let ready = self.client.is_ready();
            if ready && queue.leaves_behind(&stored) {
                queue.leave_behind(&stored);
            } else if ready && has_room && queue.may_send(self.in_flight.each) {
                self.send(index, &stored, now);
            } else if ready && (!has_room || queue.is_worth_waiting_for(now)) && queue.block_reason().is_none() {
                if let Some(reader) = self.readers.get(id) {
                    reader.hold(stored);
                }
                return false;
            } else {
                debug!(topic = &*queue.topic, seq, "topic falls behind");
                queue.fall_behind(&stored);
            }
        }
        true
    }

    /// Adds a queue for a topic when the reader at the log end finds the topic's first event. Saves the topic's cursor before
    /// the cursor of any other topic can pass this event.
    fn add_first_seen(&mut self, first: &StoredEvent, now: Instant) -> usize {
        let topic = first.event.topic();
        let seq = first.position.seq;
        self.journal.save_cursor(topic, seq, 0);
        // None of the topic's events has been passed.
        let index = self.add_queue(topic, seq, 0, now);
        self.queues[index].join_live(seq);
        self.block_without_client(index, now);
        index
    }

    /// Makes topics continue with the reader at the log end, which they have reached.
    fn join_live(&mut self, indices: &[usize], now: Instant) {
        self.follow_live(indices);
        for index in indices {
            debug!(topic = &*self.queues[*index].topic, "topic has caught up");
            self.queues[*index].unblock(now);
        }
    }

    /// Notes that the reader at the log end has skipped sequences, whose events corruption may have destroyed.
    fn pass_lost(&mut self) {
        let live = (0..self.queues.len()).filter(|index| self.queues[*index].is_fed_by(ReaderId::Live));
        self.follow_live(&live.collect::<Vec<_>>());
    }

    /// Makes the reader at the log end feed these queues. Kafka will never acknowledge events that corruption has destroyed, so counts
    /// the remaining events: the destroyed ones must no longer count as lag. Counts the events of all queues together, because each
    /// count reads a part of the journal.
    fn follow_live(&mut self, indices: &[usize]) {
        let position = self.readers.live().position();
        let topics: Vec<Arc<str>> = indices.iter().map(|index| self.queues[*index].topic.clone()).collect();
        let stored: Vec<(u64, u64)> = topics.iter().map(|topic| self.journal.stored(topic)).collect();
        let unread = topics.into_iter().zip(&stored).map(|(topic, (_, watermark))| (topic, position..*watermark));
        let unread = self.journal.count_each(&unread.collect::<Vec<_>>());
        for ((index, (stored, _)), unread) in indices.iter().zip(stored).zip(unread) {
            self.queues[*index].join_live(position);
            self.queues[*index].correct_lag(unread, stored);
        }
    }

    /// Makes the topics of a pass that has ended continue with the reader at the log end. A blocked topic continues there later.
    fn finish_pass(&mut self, pass: ReaderId, now: Instant) {
        let position = self.readers.live().position();
        let mut caught_up = Vec::new();
        for (index, queue) in self.queues.iter_mut().enumerate().filter(|(_, queue)| queue.is_fed_by(pass)) {
            match queue.block_reason() {
                None => caught_up.push(index),
                Some(_) => queue.leave_reader(position),
            }
        }
        self.join_live(&caught_up, now);
    }

    fn send(&mut self, index: usize, stored: &StoredEvent, now: Instant) {
        let Some(producer) = self.client.producer() else { return };
        let settings = self.settings.load();
        let envelope = Envelope::new(stored, &self.instance, settings.record_options(stored.event.source()));
        let seq = stored.position.seq;
        let bytes = stored.event.body().len() + envelope.size();
        if !self.queues[index].begin_send(stored, envelope.key_hash(), bytes, now) {
            return;
        }
        self.in_flight.bytes += bytes;
        let topic = settings.destination(stored.event.topic());
        if let Err(code) = producer.send(envelope.record(stored, &topic, pack_ticket(index, seq))) {
            self.record_failed(index, seq, code, now);
        }
    }
}

/// Maximum number of frames that each reader reads before the loop applies delivery reports again.
const BURST: usize = 1024;
/// Longest time for which one reader reads before the loop applies delivery reports again.
const TURN: Duration = Duration::from_millis(5);
/// Number of frames between two looks at the clock.
const CHECK_TIME_EVERY: usize = 16;
