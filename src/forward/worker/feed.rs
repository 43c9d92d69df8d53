//! How events reach the producer: from the shared reader near the head of the journal, and from a lane's own reader behind
//! it. No lane waits for another, except for a moment for one that flows and is only just full.

use std::time::Instant;

use tracing::{debug, error};

use crate::forward::kafka_error::Reason;
use crate::forward::mailbox::ticket;
use crate::forward::record::Envelope;
use crate::forward::topic_queue::backoff;
use crate::forward::worker::{REREAD_AFTER, Worker};
use crate::journal::StoredEvent;

impl Worker {
    /// Sends what may be sent, a bounded amount, so that reports are taken in between. False: there is nothing to do.
    pub(super) fn feed(&mut self, now: Instant) -> bool {
        let mut moved = false;
        for _ in 0..BURST {
            let Some(stored) = self.next_at_head(now) else { break };
            if !self.hand_over(stored, now) {
                break;
            }
            moved = true;
        }
        for index in 0..self.lanes.len() {
            moved |= self.feed_by_itself(index, now);
        }
        moved
    }

    fn next_at_head(&mut self, now: Instant) -> Option<StoredEvent> {
        if self.held.is_some() || self.head_due.is_some_and(|due| now < due) {
            return self.held.take();
        }
        match self.head.next() {
            Ok(found) => {
                if self.head_due.take().is_some() {
                    self.head_reads_again(now);
                }
                found
            }
            Err(error) => {
                let pause = self.head_pauses.next().expect("the pauses have no end");
                error!(%error, at = self.head.next_seq(), retry_in = ?pause, "the journal cannot be read here; nothing is skipped");
                self.head = self.journal.reader(self.head.next_seq());
                self.head_due = Some(now + pause);
                self.block_at_head(&error.to_string(), now);
                None
            }
        }
    }

    /// Whoever is fed from here waits until it can be read.
    fn block_at_head(&mut self, error: &str, now: Instant) {
        for index in 0..self.lanes.len() {
            if !self.lanes[index].reads_by_itself() && self.lanes[index].block.is_none() {
                self.block(index, Reason::Journal, error.to_owned(), now);
            }
        }
    }

    fn head_reads_again(&mut self, now: Instant) {
        self.head_pauses = backoff(REREAD_AFTER);
        for index in 0..self.lanes.len() {
            if self.lanes[index].waits_for_head() {
                self.free(index, now);
            }
        }
    }

    /// Gives an event to its lane, or leaves the lane behind. False: it waits for room.
    fn hand_over(&mut self, stored: StoredEvent, now: Instant) -> bool {
        let seq = stored.position.seq;
        let index = match self.by_topic.get(stored.event.topic()) {
            Some(index) => *index,
            None => self.open_lane(&stored, now),
        };
        let ready = self.is_ready();
        let lane = &mut self.lanes[index];
        if lane.takes_from_head(seq) {
            if ready && lane.may_send(self.share) {
                self.send(index, &stored, now);
            } else if ready && lane.is_worth_waiting_for(now) {
                self.held = Some(stored);
                return false;
            } else {
                debug!(topic = &*lane.topic, seq, "lane falls behind and reads by itself");
                lane.fall_behind(&stored);
            }
        }
        self.lanes[index].count(seq);
        true
    }

    /// A topic's first event. Its cursor is saved before any other lane's cursor can pass it.
    fn open_lane(&mut self, first: &StoredEvent, now: Instant) -> usize {
        let topic = first.event.topic();
        self.journal.save_cursor(topic, first.position.seq);
        let index = self.add_lane(topic, first.position.seq, (first.position.seq, 0), now);
        self.lanes[index].join_head();
        self.block_without_client(index, now);
        index
    }

    fn feed_by_itself(&mut self, index: usize, now: Instant) -> bool {
        let head = self.head_position();
        for sent in 0..BURST {
            let ready = self.is_ready();
            let lane = &mut self.lanes[index];
            if !ready || !lane.reads_by_itself() || !lane.may_send(self.share) {
                return sent > 0;
            }
            match lane.read(&self.journal, head) {
                Ok(Some(stored)) => {
                    self.send(index, &stored, now);
                }
                Ok(None) => {
                    debug!(topic = &*lane.topic, "lane is back at the head");
                    self.free(index, now);
                    return true;
                }
                Err(error) => {
                    lane.recalling = true;
                    self.block(index, Reason::Journal, error.to_string(), now);
                    return true;
                }
            }
        }
        true
    }

    fn send(&mut self, index: usize, stored: &StoredEvent, now: Instant) {
        let Some(producer) = &self.producer else { return };
        let settings = self.settings.load();
        let allowed = settings.headers.get(stored.event.source()).map_or(&[][..], Vec::as_slice);
        let envelope = Envelope::new(stored, allowed);
        let seq = stored.position.seq;
        if !self.lanes[index].take_up(stored, stored.event.body().len() + envelope.size(), now) {
            return;
        }
        if let Err(code) = producer.send(envelope.record(stored, ticket(index, seq))) {
            self.failed(index, seq, code, now);
        }
    }

    fn is_ready(&self) -> bool {
        self.producer.is_some() && self.replacement.is_none()
    }
}

/// Events per reader and round.
const BURST: usize = 256;
