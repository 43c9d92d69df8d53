//! The events of one topic on their way to Kafka, in order. Near the log end the queue is fed by the reader that all queues
//! share; when it falls behind it opens a reader of its own, so that it delays no other topic.
//!
//! The queue knows what it may do next and what that means for its cursor. The supervisor decides when to probe, block or
//! replace; only the worker talks to Kafka.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::flow::Flow;
use super::in_flight::{InFlight, InFlightLimit};
use super::kafka_error::BlockReason;
use super::probe_schedule::{ProbeSchedule, STALLED_AFTER};
use super::status_table::TopicStatus;
use super::topic_health::TopicHealth;
use crate::clock::UnixMillis;
use crate::journal::{Journal, ReadError, Reader, StoredEvent};

/// One topic's queue.
pub(super) struct TopicQueue {
    pub(super) topic: Arc<str>,
    status: Arc<TopicStatus>,
    flow: Flow,
    feed: Feed,
    pub(super) in_flight: InFlight,
    /// Every event of this topic below this sequence is in flight or finished.
    next: u64,
    /// Every durable event of this topic below this sequence is counted in `status`.
    counted: u64,
    saved: SavedCursor,
    /// Records up to this sequence are sent one at a time, to find the one that Kafka rejects.
    alone_until: Option<u64>,
    /// Time since which the shared reader has waited for room.
    full_since: Option<Instant>,
    /// Time of the last acknowledgement, or of the first record sent after a quiet time.
    progress_at: Instant,
    /// Probe results since then.
    pub(super) health: TopicHealth,
    probes: ProbeSchedule,
}

/// The source of a queue's events.
enum Feed {
    /// The shared reader.
    Shared,
    /// A reader of its own.
    Own {
        /// Opened when the queue may send.
        reader: Option<Box<Reader>>,
        /// Arrival of the first event that is not in flight, once known.
        oldest: Option<UnixMillis>,
    },
}

/// The cursor that was last handed to the journal.
struct SavedCursor {
    seq: u64,
    /// True if the cursor is worth saving however little it moved: after an acknowledgement, or when the queue is back at the
    /// shared reader.
    is_outdated: bool,
}

impl TopicQueue {
    /// A queue whose cursor is `cursor` and whose status has counted the events below `counted`. It has a reader of its own
    /// until it meets the shared one.
    pub(super) fn new(topic: Arc<str>, cursor: u64, counted: u64, status: Arc<TopicStatus>, now: Instant) -> TopicQueue {
        TopicQueue {
            topic,
            status,
            flow: Flow::default(),
            feed: Feed::Own { reader: None, oldest: None },
            in_flight: InFlight::default(),
            next: cursor,
            counted,
            saved: SavedCursor { seq: cursor, is_outdated: false },
            alone_until: None,
            full_since: None,
            progress_at: now,
            health: TopicHealth::default(),
            probes: ProbeSchedule::new(now),
        }
    }
}

/// Feeding: which events the queue reads, and from where.
impl TopicQueue {
    /// True if the shared reader must hand over this event.
    pub(super) fn takes_from_shared(&self, seq: u64) -> bool {
        matches!(self.feed, Feed::Shared) && seq >= self.next
    }

    /// True if the queue has a reader of its own.
    pub(super) fn reads_by_itself(&self) -> bool {
        matches!(self.feed, Feed::Own { .. })
    }

    /// Counts an event that was read, by whichever reader, once.
    pub(super) fn count(&mut self, seq: u64) {
        if seq >= self.counted {
            self.counted = seq + 1;
            self.status.count_seen();
        }
    }

    /// Leaves the shared reader at this event.
    pub(super) fn fall_behind(&mut self, stored: &StoredEvent) {
        self.feed = Feed::Own { reader: None, oldest: Some(stored.event.received_at()) };
        self.next = stored.position.seq;
    }

    /// Is fed by the shared reader from now on.
    pub(super) fn join_shared(&mut self) {
        self.feed = Feed::Shared;
    }

    /// Reads the next event with the queue's own reader. `None` if there is none below the durable watermark; the queue has
    /// then joined the shared reader, which stands at `shared`.
    pub(super) fn read(&mut self, journal: &Journal, shared: u64) -> Result<Option<StoredEvent>, ReadError> {
        let Feed::Own { reader, oldest } = &mut self.feed else { return Ok(None) };
        if self.next < shared {
            let watermark = journal.durable_watermark();
            let reader = reader.get_or_insert_with(|| Box::new(journal.reader(self.next).for_topic(&self.topic)));
            if let Some(stored) = reader.next()? {
                *oldest = Some(stored.event.received_at());
                self.count(stored.position.seq);
                return Ok(Some(stored));
            }
            self.next = watermark.max(reader.next_seq());
            // Events lost to corruption were counted and are never acknowledged.
            self.status.correct_lag(self.in_flight.unacknowledged() as u64);
        }
        self.join_shared();
        // And only the cursor can pass them.
        self.saved.is_outdated = true;
        Ok(None)
    }

    /// Finds out how old the first event is before the queue may send, for the lag in seconds.
    pub(super) fn find_oldest(&mut self, journal: &Journal) {
        if let Feed::Own { oldest: oldest @ None, .. } = &mut self.feed {
            let first = journal.reader(self.next).for_topic(&self.topic).next();
            *oldest = first.ok().flatten().map(|stored| stored.event.received_at());
        }
    }
}

/// Sending: what may be in flight, and what a report means.
impl TopicQueue {
    /// True if the next record may be sent.
    pub(super) fn may_send(&self, limit: InFlightLimit) -> bool {
        match self.flow {
            Flow::Flowing if !self.is_one_at_a_time() => self.in_flight.has_room(limit),
            Flow::Flowing | Flow::Trial(_) => self.in_flight.is_empty(),
            Flow::Recalling(_) | Flow::Blocked(_) => false,
        }
    }

    /// True while each record has to be acknowledged before the next one is sent.
    pub(super) fn is_one_at_a_time(&self) -> bool {
        self.alone_until.is_some_and(|last| self.in_flight.cursor().unwrap_or(self.next) <= last)
    }

    /// True while the shared reader should wait for this full queue: it flows, and has not been full for long.
    pub(super) fn is_worth_waiting_for(&mut self, now: Instant) -> bool {
        let flows = matches!(self.flow, Flow::Flowing) && !self.is_one_at_a_time();
        flows && now < *self.full_since.get_or_insert(now) + WAIT_FOR_ROOM
    }

    /// Returns the time at which that wait ends.
    pub(super) fn wait_ends(&self) -> Option<Instant> {
        self.full_since.map(|since| since + WAIT_FOR_ROOM)
    }

    /// Notes that this event is being sent. False if Kafka has it already.
    pub(super) fn begin_send(&mut self, stored: &StoredEvent, bytes: usize, now: Instant) -> bool {
        let seq = stored.position.seq;
        self.next = seq + 1;
        if self.flow.block().is_some() {
            self.alone_until = self.alone_until.max(Some(seq));
        }
        if self.in_flight.unreported() == 0 {
            self.progress_at = now;
            self.probes.postpone(now);
        }
        self.in_flight.insert(seq, bytes, stored.event.received_at())
    }

    /// Notes an acknowledgement. It ends a block, unless the queue recalls its records or waits for the journal.
    pub(super) fn acknowledge(&mut self, seq: u64, limit: InFlightLimit, now: Instant) {
        self.in_flight.acknowledge(seq);
        self.saved.is_outdated = true;
        self.progress_at = now;
        self.health = TopicHealth::default();
        self.status.count_acked();
        if self.flow.block().is_none() {
            self.probes.restart(now);
        }
        if self.in_flight.is_half_empty(limit) {
            self.full_since = None;
        }
        if !self.flow.is_recalling() && !self.waits_for_shared() {
            self.unblock(now);
        }
    }

    /// Notes a failed record and begins a recall. True if the record was alone in flight, so that no other record can be at
    /// fault.
    pub(super) fn fail(&mut self, seq: u64) -> bool {
        let alone = self.is_one_at_a_time() && !self.flow.is_recalling();
        self.in_flight.fail(seq);
        self.recall();
        alone
    }

    /// Sends records up to this sequence one at a time.
    pub(super) fn send_alone_until(&mut self, seq: u64) {
        self.alone_until = self.alone_until.max(Some(seq));
    }

    /// Sends nothing more until everything in flight is reported.
    pub(super) fn recall(&mut self) {
        self.flow.begin_recall();
        if matches!(self.flow, Flow::Trial(_)) {
            self.rewind();
        }
    }

    /// Rewinds if a recall is complete.
    pub(super) fn rewind_if_recalled(&mut self) {
        if self.flow.is_recalling() && self.in_flight.unreported() == 0 {
            self.rewind();
        }
    }

    /// Takes back everything that is not acknowledged, to be read and sent again.
    pub(super) fn rewind(&mut self) {
        self.flow.end_recall();
        self.full_since = None;
        let unread = match self.feed {
            Feed::Own { oldest, .. } => oldest,
            Feed::Shared => None,
        };
        self.feed = Feed::Own { reader: None, oldest: self.in_flight.oldest().or(unread) };
        self.next = self.in_flight.rewind().unwrap_or(self.next);
    }
}

/// Blocks and probes.
impl TopicQueue {
    /// Returns the reason for the block, if there is one.
    pub(super) fn block_reason(&self) -> Option<BlockReason> {
        self.flow.block().map(|block| block.reason)
    }

    /// True if the queue is blocked because the shared reader cannot read on; it is unblocked together with it.
    pub(super) fn waits_for_shared(&self) -> bool {
        !self.reads_by_itself() && self.block_reason() == Some(BlockReason::Journal)
    }

    /// Blocks the queue, or changes the reason of its block. Each block has one log line when it begins and one when it ends.
    pub(super) fn block(&mut self, reason: BlockReason, detail: &str, now: Instant) {
        self.status.set_block(Some((reason, detail)));
        if self.flow.block().is_none() {
            self.probes.back_off(false, now);
        }
        if self.flow.set_block(reason, now) != Some(reason) {
            let (topic, remedy) = (&*self.topic, reason.remedy());
            warn!(topic, reason = reason.word(), error = detail, "topic is blocked, its events wait in the journal: {remedy}");
        }
    }

    /// Ends the block, if there is one.
    pub(super) fn unblock(&mut self, now: Instant) {
        let Some(block) = self.flow.clear_block() else { return };
        self.probes.unblocked(now);
        self.status.set_block(None);
        let seconds = (now - block.since).as_secs();
        info!(topic = &*self.topic, reason = block.reason.word(), seconds, "topic is no longer blocked");
    }

    /// Removes the block from status and metrics, which outlive a forwarder that is replaced; the next one finds out for
    /// itself what is wrong.
    pub(super) fn withdraw_block(&self) {
        self.status.set_block(None);
    }

    /// Lets one record through; more if it is acknowledged.
    pub(super) fn begin_trial(&mut self) {
        self.flow.begin_trial();
    }

    /// True if an answer of the cluster about the topic would matter.
    pub(super) fn needs_probe(&self) -> bool {
        self.in_flight.unreported() > 0 || (self.flow.block().is_some() && !self.waits_for_shared())
    }

    /// Returns the time of the next probe.
    pub(super) fn probe_due(&self) -> Instant {
        self.probes.due()
    }

    /// Schedules the probe after one that could not be started; returns the pause.
    pub(super) fn retry_probe(&mut self, now: Instant) -> Duration {
        self.probes.back_off(self.flow.block().is_some(), now)
    }

    /// Schedules the probe after one that has finished.
    pub(super) fn schedule_next_probe(&mut self, now: Instant) {
        match self.flow.block() {
            Some(_) => drop(self.probes.back_off(true, now)),
            None => self.probes.restart(now),
        }
    }

    /// True if the topic needs no judgement: it flows and has had an acknowledgement a moment ago.
    pub(super) fn makes_progress(&self, now: Instant) -> bool {
        self.flow.block().is_none() && now < self.progress_at + STALLED_AFTER
    }

    /// Returns how long probes have agreed without an acknowledgement.
    pub(super) fn stalled_for(&self, now: Instant) -> Duration {
        self.health.stalled_for(self.progress_at, now)
    }

    /// True if nothing is in flight or nothing was acknowledged for a moment.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.in_flight.unreported() == 0 || now > self.progress_at + QUIET_AFTER
    }

    /// True if acknowledgements are still likely to come.
    pub(super) fn expects_acks(&self) -> bool {
        self.in_flight.unreported() > 0 && (self.flow.block().is_none() || self.waits_for_shared())
    }
}

/// The cursor.
impl TopicQueue {
    /// Returns the cursor if it is worth saving: after an acknowledgement, or when an idle topic's saved one has become old.
    /// `shared` is the position of the shared reader.
    pub(super) fn cursor_to_save(&self, shared: u64) -> Option<u64> {
        let cursor = self.cursor(shared);
        let step = if self.saved.is_outdated { 0 } else { IDLE_CURSOR_STEP };
        (cursor > self.saved.seq + step).then_some(cursor)
    }

    /// Notes that the cursor has been handed to the journal.
    pub(super) fn saved(&mut self, cursor: u64) {
        self.saved = SavedCursor { seq: cursor, is_outdated: false };
    }

    /// Makes the cursor worth saving however little it moved, as an idle topic's is at a stop.
    pub(super) fn save_always(&mut self) {
        self.saved.is_outdated = true;
    }

    /// Publishes cursor and age.
    pub(super) fn publish(&self, shared: u64) {
        let unread = match self.feed {
            Feed::Own { oldest, .. } => oldest,
            Feed::Shared => None,
        };
        self.status.publish(self.cursor(shared), self.in_flight.oldest().or(unread));
    }

    /// Returns the lowest sequence of this topic that Kafka has not acknowledged.
    fn cursor(&self, shared: u64) -> u64 {
        let idle = if self.reads_by_itself() { self.next } else { self.next.max(shared) };
        self.in_flight.cursor().unwrap_or(idle)
    }
}

/// How long the shared reader waits for room in a queue that flows; then the queue reads by itself.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(200);
/// Without an acknowledgement for this long, a topic does not flow.
const QUIET_AFTER: Duration = Duration::from_secs(2);
/// An idle topic's cursor is saved when it could skip this many sequences at the next start.
const IDLE_CURSOR_STEP: u64 = 100_000;
