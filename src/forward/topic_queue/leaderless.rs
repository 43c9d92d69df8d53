//! Lets a topic continue while some of its partitions have no leader. The queue leaves the events of these partitions behind, and goes
//! back for them when the partitions have a leader again.

use std::time::Instant;

use tracing::{debug, info, warn};

use super::TopicQueue;
use crate::forward::flow::Flow;
use crate::forward::in_flight_limit::InFlightLimit;
use crate::forward::kafka_error::BlockReason;
use crate::forward::left_behind::Leaderless;
use crate::forward::partitioner::KeyHash;
use crate::forward::record;
use crate::journal::StoredEvent;

impl TopicQueue {
    /// Returns true if the queue leaves this event behind: the queue may send records, but the event's partition has no leader.
    pub(in crate::forward) fn leaves_behind(&self, stored: &StoredEvent) -> bool {
        let leaderless = self.in_flight.leaderless();
        let continues = matches!(self.flow, Flow::Flowing | Flow::Trial(_));
        continues && !leaderless.is_empty() && leaderless.contains(KeyHash::of(record::key(stored).as_bytes()))
    }

    /// Leaves an event behind in the journal.
    pub(in crate::forward) fn leave_behind(&mut self, stored: &StoredEvent) {
        self.take(stored);
        self.in_flight.leave_behind(stored.position.seq, stored.event.received_at());
    }

    /// Replaces the partitions without a leader, which a metadata probe has found. If a partition may have a leader again, begins a
    /// recall: the queue then reads the events again that it has left behind.
    pub(in crate::forward) fn set_leaderless(&mut self, leaderless: Leaderless, limit: InFlightLimit, now: Instant) {
        let former = self.in_flight.leaderless();
        if *former == leaderless {
            return;
        }
        let topic = &*self.topic;
        if leaderless.is_empty() {
            info!(topic, "every partition has a leader again; hookhold sends the events that have waited for them");
        } else {
            let (error, remedy) = (leaderless.detail(), BlockReason::NoLeader.remedy());
            warn!(
                topic,
                error, "events of these partitions wait in the journal, and hookhold sends the topic's other events; {remedy}"
            );
        }
        if former.is_empty() && self.flow.block().is_none() {
            self.probes.back_off(false, now);
        }
        self.status.set_leaderless(Some(&leaderless).filter(|leaderless| !leaderless.is_empty()), now);
        if self.in_flight.set_leaderless(leaderless, self.next) {
            self.flow.begin_return();
        }
        self.rewind_if_recalled();
        let is_explained = matches!(self.block_reason(), Some(BlockReason::NoLeader | BlockReason::Stalled));
        if !self.block_if_too_far_ahead(limit, now) && is_explained {
            self.unblock(now);
        }
    }

    /// Blocks the topic if the queue must not get further ahead of the events that wait for a partition without a leader. Returns true
    /// if so.
    pub(in crate::forward) fn block_if_too_far_ahead(&mut self, limit: InFlightLimit, now: Instant) -> bool {
        if !self.in_flight.is_too_far_ahead(limit) {
            return false;
        }
        // The cursor may have moved since the queue last forgot the events below it.
        self.in_flight.forget_below(self.in_flight.cursor().unwrap_or(self.next).min(self.next));
        if !self.in_flight.is_too_far_ahead(limit) {
            return false;
        }
        let (partitions, ahead) = (self.in_flight.leaderless().detail(), self.in_flight.done_ahead());
        self.block(
            BlockReason::NoLeader,
            &format!("{partitions}; {ahead} later events have reached Kafka, the most allowed"),
            now,
        );
        true
    }

    /// Moves the queue back to its cursor for another producer, which holds no record of the topic and may send to another topic.
    pub(in crate::forward) fn start_over(&mut self, now: Instant) {
        debug!(topic = &*self.topic, "the topic starts over with another producer");
        self.rewind();
        self.in_flight.forget_leaderless();
        self.status.set_leaderless(None, now);
    }
}
