//! Moves events from the journal's readers to the producer. A queue near the log end gets its events from the shared reader. A
//! queue that is behind gets its events from its own reader. A topic never waits for a blocked topic, and waits only briefly
//! for a topic that has just reached its in-flight limit.

use std::time::Instant;

use tracing::debug;

use super::Worker;
use crate::forward::kafka_error::BlockReason;
use crate::forward::mailbox::pack_ticket;
use crate::forward::record::Envelope;
use crate::journal::StoredEvent;

impl Worker {
    /// Sends a bounded number of events, so that the loop can apply delivery reports between two calls. Returns false
    /// if no event could be sent.
    pub(super) fn feed(&mut self, now: Instant) -> bool {
        let mut moved = false;
        for _ in 0..BURST {
            let Some(stored) = self.next_shared(now) else { break };
            if !self.hand_over(stored, now) {
                break;
            }
            moved = true;
        }
        for index in 0..self.queues.len() {
            moved |= self.feed_from_own_reader(index, now);
        }
        moved
    }

    /// Reads the next event with the shared reader. Returns `None` if no event is available. A failed read blocks every topic
    /// that the shared reader feeds. The next successful read unblocks these topics.
    fn next_shared(&mut self, now: Instant) -> Option<StoredEvent> {
        let was_failing = self.log_reader.is_failing();
        match self.log_reader.next(now) {
            Ok(found) => {
                if was_failing && !self.log_reader.is_failing() {
                    self.queues.iter_mut().filter(|queue| queue.waits_for_shared()).for_each(|queue| queue.unblock(now));
                }
                found
            }
            Err(error) => {
                let error = error.to_string();
                let shared = self.queues.iter_mut().filter(|queue| !queue.has_own_reader() && queue.block_reason().is_none());
                shared.for_each(|queue| queue.block(BlockReason::Journal, &error, now));
                None
            }
        }
    }

    /// Sends an event from the shared reader. If the event's queue is full, holds the event back or lets the queue fall behind.
    /// Returns false if the event was held back.
    fn hand_over(&mut self, stored: StoredEvent, now: Instant) -> bool {
        let seq = stored.position.seq;
        let index = match self.by_topic.get(stored.event.topic()) {
            Some(index) => *index,
            None => self.add_first_seen(&stored, now),
        };
        let queue = &mut self.queues[index];
        if queue.takes_from_shared(seq) {
            let ready = self.client.is_ready();
            if ready && queue.may_send(self.limit) {
                self.send(index, &stored, now);
            } else if ready && queue.is_worth_waiting_for(now) {
                self.log_reader.hold(stored);
                return false;
            } else {
                debug!(topic = &*queue.topic, seq, "topic falls behind and gets its own reader");
                queue.fall_behind(&stored);
            }
        }
        self.queues[index].count(seq);
        true
    }

    /// Adds a queue for a topic when the shared reader finds the topic's first event. Saves the topic's cursor before
    /// the cursor of any other topic can pass this event.
    fn add_first_seen(&mut self, first: &StoredEvent, now: Instant) -> usize {
        let topic = first.event.topic();
        let seq = first.position.seq;
        self.journal.save_cursor(topic, seq, 0);
        let index = self.add_queue(topic, seq, (seq, 0), now);
        self.queues[index].join_shared();
        self.block_without_client(index, now);
        index
    }

    /// Sends events from the queue's own reader. Does nothing if the queue uses the shared reader. Returns false if no event
    /// could be sent.
    fn feed_from_own_reader(&mut self, index: usize, now: Instant) -> bool {
        let shared = self.log_reader.position();
        for sent in 0..BURST {
            let queue = &mut self.queues[index];
            if !self.client.is_ready() || !queue.has_own_reader() || !queue.may_send(self.limit) {
                return sent > 0;
            }
            match queue.read(&self.journal, shared) {
                Ok(Some(stored)) => self.send(index, &stored, now),
                Ok(None) => {
                    debug!(topic = &*queue.topic, "topic has caught up with the shared reader");
                    queue.unblock(now);
                    return true;
                }
                Err(error) => {
                    queue.recall();
                    queue.block(BlockReason::Journal, &error.to_string(), now);
                    return true;
                }
            }
        }
        true
    }

    fn send(&mut self, index: usize, stored: &StoredEvent, now: Instant) {
        let Some(producer) = self.client.producer() else { return };
        let settings = self.settings.load();
        let allowed = settings.headers.get(stored.event.source()).map_or(&[][..], Vec::as_slice);
        let envelope = Envelope::new(stored, &self.instance, allowed);
        let seq = stored.position.seq;
        if !self.queues[index].begin_send(stored, stored.event.body().len() + envelope.size(), now) {
            return;
        }
        if let Err(code) = producer.send(envelope.record(stored, &settings.destination(stored.event.topic()), pack_ticket(index, seq))) {
            self.record_failed(index, seq, code, now);
        }
    }
}

/// Maximum number of events that each reader sends before the loop applies delivery reports again.
const BURST: usize = 256;
