//! Sends the events of one topic to Kafka, in order. Near the log end, one reader feeds all topic queues. A queue that falls
//! behind opens its own reader, so that the queue does not delay other topics.
//!
//! A topic queue tracks the topic's cursor, next event and records in flight, and whether the topic is blocked. The queue does
//! not depend on the Kafka client: the worker sends the records, and interprets failures and probe results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::flow::Flow;
use super::in_flight::{InFlight, InFlightLimit};
use super::kafka_error::BlockReason;
use super::pace::Pace;
use super::probe_schedule::{ProbeSchedule, STALLED_AFTER};
use super::status_table::TopicStatus;
use super::topic_health::TopicHealth;
use crate::clock::UnixMillis;
use crate::journal::{Journal, ReadError, Reader, StoredEvent};

/// Queue of one topic's events between the journal and Kafka.
pub(super) struct TopicQueue {
    pub(super) topic: Arc<str>,
    status: Arc<TopicStatus>,
    flow: Flow,
    feed: Feed,
    pub(super) in_flight: InFlight,
    /// Sequence from which the queue reads its next event. Every earlier event of the topic is in flight or acknowledged.
    next: u64,
    /// Sequence below which `status` has counted every durable event of the topic.
    counted: u64,
    saved: SavedCursor,
    pace: Pace,
    /// Time at which the shared reader first found the queue full; `None` if the shared reader has not found the queue full
    /// since the queue last rewound or fell to half of the in-flight limit.
    full_since: Option<Instant>,
    /// Later one of two times: the last acknowledgement, and the last send while no other record was in flight.
    progress_at: Instant,
    /// Summary of the topic's probe results since the last acknowledgement.
    pub(super) health: TopicHealth,
    probes: ProbeSchedule,
}

/// Reader from which a topic queue gets its events.
enum Feed {
    /// The reader that all topic queues share near the log end.
    Shared,
    /// A reader that only this queue uses.
    Own {
        /// The queue's own journal reader; `None` until the first read.
        reader: Option<Box<Reader>>,
        /// Arrival time of the queue's first unsent event; `None` while the time is unknown.
        oldest: Option<UnixMillis>,
    },
}

/// Cursor that the worker last handed to the journal.
struct SavedCursor {
    seq: u64,
    /// Number of acknowledgements since then.
    acknowledged: u64,
    /// True if the next save must include the topic's cursor, however little the cursor has moved. Set by an acknowledgement,
    /// by the switch to the shared reader, and by a stop.
    is_outdated: bool,
}

impl TopicQueue {
    /// Creates a queue for `topic` with the start sequence `cursor`. `status` has already counted the events below `counted`.
    /// The queue uses its own reader until that reader reaches the position of the shared reader.
    pub(super) fn new(topic: Arc<str>, cursor: u64, counted: u64, status: Arc<TopicStatus>, now: Instant) -> TopicQueue {
        TopicQueue {
            topic,
            status,
            flow: Flow::default(),
            feed: Feed::Own { reader: None, oldest: None },
            in_flight: InFlight::default(),
            next: cursor,
            counted,
            saved: SavedCursor { seq: cursor, acknowledged: 0, is_outdated: false },
            pace: Pace::default(),
            full_since: None,
            progress_at: now,
            health: TopicHealth::default(),
            probes: ProbeSchedule::new(now),
        }
    }
}

/// Reads events from the shared reader or from the queue's own reader.
impl TopicQueue {
    /// Returns true if the queue takes the event with sequence `seq` from the shared reader.
    pub(super) fn takes_from_shared(&self, seq: u64) -> bool {
        matches!(self.feed, Feed::Shared) && seq >= self.next
    }

    /// Returns true if the queue uses its own reader instead of the shared reader.
    pub(super) fn has_own_reader(&self) -> bool {
        matches!(self.feed, Feed::Own { .. })
    }

    /// Adds the durable event with sequence `seq` to the topic's lag. Does nothing if the queue has already counted this event.
    pub(super) fn count(&mut self, seq: u64) {
        if seq >= self.counted {
            self.counted = seq + 1;
            self.status.count_seen();
        }
    }

    /// Detaches the queue from the shared reader. The queue continues at the event `stored` with its own reader.
    pub(super) fn fall_behind(&mut self, stored: &StoredEvent) {
        self.feed = Feed::Own { reader: None, oldest: Some(stored.event.received_at()) };
        self.next = stored.position.seq;
    }

    /// Switches the queue from its own reader to the shared reader.
    pub(super) fn join_shared(&mut self) {
        self.feed = Feed::Shared;
    }

    /// Reads the next event with the queue's own reader. Switches to the shared reader and returns `None` if the queue
    /// has reached `shared` (the position of the shared reader) or has no further durable event.
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
            // Kafka will never acknowledge events that corruption has destroyed, so these events must no longer count
            // as lag.
            self.status.correct_lag(self.in_flight.unacknowledged() as u64);
        }
        self.join_shared();
        // No acknowledgement moves the cursor past destroyed events, so the next save must include the cursor.
        self.saved.is_outdated = true;
        Ok(None)
    }

    /// Reads the arrival time of the queue's first unsent event. A queue that cannot send yet needs this time to report its lag
    /// in seconds.
    pub(super) fn find_oldest(&mut self, journal: &Journal) {
        if let Feed::Own { oldest: oldest @ None, .. } = &mut self.feed {
            let first = journal.reader(self.next).for_topic(&self.topic).next();
            *oldest = first.ok().flatten().map(|stored| stored.event.received_at());
        }
    }
}

/// Registers records that the worker sends, and applies delivery reports.
impl TopicQueue {
    /// Returns true if the queue may send its next record.
    pub(super) fn may_send(&self, limit: InFlightLimit) -> bool {
        match self.flow {
            Flow::Flowing if !self.is_one_at_a_time() => self.in_flight.has_room(self.pace.limit(limit)),
            Flow::Flowing | Flow::Trial(_) => self.in_flight.is_empty(),
            Flow::Recalling(_) | Flow::Blocked(_) => false,
        }
    }

    /// Returns true while the queue must wait for the acknowledgement of each record before it sends the next record.
    fn is_one_at_a_time(&self) -> bool {
        self.pace.is_one_at_a_time(self.in_flight.cursor().unwrap_or(self.next))
    }

    /// Returns true if the shared reader should wait for room in this full queue: the queue is in the state `Flowing`, does not
    /// send records one at a time, and has been full for less than [`WAIT_FOR_ROOM`].
    pub(super) fn is_worth_waiting_for(&mut self, now: Instant) -> bool {
        let flows = matches!(self.flow, Flow::Flowing) && !self.is_one_at_a_time();
        flows && now < *self.full_since.get_or_insert(now) + WAIT_FOR_ROOM
    }

    /// Returns the time at which the shared reader stops waiting for room in the queue; `None` if the shared reader has not
    /// found the queue full.
    pub(super) fn wait_ends(&self) -> Option<Instant> {
        self.full_since.map(|since| since + WAIT_FOR_ROOM)
    }

    /// Registers an event before the worker sends the event. Returns false if Kafka acknowledged the event before a rewind. The
    /// worker must not send such an event again.
    pub(super) fn begin_send(&mut self, stored: &StoredEvent, bytes: usize, now: Instant) -> bool {
        let seq = stored.position.seq;
        self.next = seq + 1;
        if self.flow.block().is_some() {
            self.pace.send_alone_until(seq);
        }
        if self.in_flight.unreported() == 0 {
            self.progress_at = now;
            self.probes.postpone(now);
        }
        self.in_flight.insert(seq, bytes, stored.event.received_at())
    }

    /// Applies the acknowledgement of the record with sequence `seq`. Also unblocks the topic, except during a recall and while
    /// the queue waits for the shared reader.
    pub(super) fn acknowledge(&mut self, seq: u64, limit: InFlightLimit, now: Instant) {
        if !self.in_flight.acknowledge(seq) {
            return; // an operator has released the event
        }
        self.saved.acknowledged += 1;
        self.saved.is_outdated = true;
        self.progress_at = now;
        self.health = TopicHealth::default();
        self.status.count_acked();
        if self.flow.block().is_none() {
            self.probes.restart(now);
        }
        if self.in_flight.is_half_empty(self.pace.limit(limit)) {
            self.full_since = None;
        }
        if let Some(bytes) = self.pace.acknowledged(self.in_flight.cursor().unwrap_or(self.next), now) {
            let topic = &*self.topic;
            warn!(topic, bytes, "the topic rejects larger batches, so hookhold sends smaller ones; raise its max.message.bytes to at least batch.size");
        }
        if !self.flow.is_recalling() && !self.waits_for_shared() {
            self.unblock(now);
        }
    }

    /// Applies the failure of the record with sequence `seq`, and begins a recall. Returns true if no other record was in flight. In
    /// this case, no other record can be the cause.
    pub(super) fn fail(&mut self, seq: u64) -> bool {
        let alone = self.in_flight.len() == 1 && !self.flow.is_recalling();
        self.in_flight.fail(seq);
        self.recall();
        alone
    }

    /// Causes the queue to send records up to sequence `seq` one at a time.
    pub(super) fn send_alone_until(&mut self, seq: u64) {
        self.pace.send_alone_until(seq);
    }

    /// Causes the queue to have fewer bytes in flight, because a batch was too large. Must precede [`TopicQueue::fail`]. Does nothing
    /// if another record of the same batches has already failed.
    pub(super) fn send_smaller_batches(&mut self, now: Instant) {
        if let Some((bytes, last)) = self.in_flight.extent().filter(|_| !self.flow.is_recalling()) {
            self.pace.halve(bytes, last, now);
        }
    }

    /// Moves the cursor past the event with sequence `seq`, which hookhold has parked. Must follow [`TopicQueue::fail`], when no record
    /// is in flight. Unblocks the topic, because Kafka has answered.
    pub(super) fn pass_parked(&mut self, seq: u64, now: Instant) {
        self.rewind();
        self.next = self.next.max(seq + 1);
        self.pace.blame_record();
        self.saved.acknowledged += 1;
        self.saved.is_outdated = true;
        self.progress_at = now;
        self.health = TopicHealth::default();
        self.status.count_parked();
        self.unblock(now);
    }

    /// Gives up the events below sequence `below`, and unblocks the topic. Ignores later delivery reports about them.
    pub(super) fn release(&mut self, below: u64, journal: &Journal, now: Instant) {
        self.rewind();
        self.in_flight.forget_below(below);
        self.next = self.next.max(below);
        self.saved.is_outdated = true;
        self.status.correct_lag(journal.count(&self.topic, self.next, self.counted));
        self.unblock(now);
    }

    /// Begins a recall: the queue sends nothing until librdkafka has reported the result of every record in flight.
    pub(super) fn recall(&mut self) {
        self.flow.begin_recall();
        if matches!(self.flow, Flow::Trial(_)) {
            self.rewind();
        }
    }

    /// Rewinds the queue if a recall is in progress and librdkafka has reported the result of every record in flight.
    pub(super) fn rewind_if_recalled(&mut self) {
        if self.flow.is_recalling() && self.in_flight.unreported() == 0 {
            self.rewind();
        }
    }

    /// Moves the queue back to its cursor, so that the queue reads and sends all unacknowledged events again.
    pub(super) fn rewind(&mut self) {
        self.flow.end_recall();
        self.full_since = None;
        self.feed = Feed::Own { reader: None, oldest: self.oldest() };
        self.next = self.in_flight.rewind().unwrap_or(self.next);
    }
}

/// Blocks and unblocks the topic, and schedules the topic's probes.
impl TopicQueue {
    /// Returns the reason why the topic is blocked; `None` if the topic is not blocked.
    pub(super) fn block_reason(&self) -> Option<BlockReason> {
        self.flow.block().map(|block| block.reason)
    }

    /// Returns true if the queue is blocked because the shared reader cannot read the journal. The shared reader's next
    /// successful read unblocks the queue.
    pub(super) fn waits_for_shared(&self) -> bool {
        !self.has_own_reader() && self.block_reason() == Some(BlockReason::Journal)
    }

    /// Blocks the topic or changes the reason for its block. Logs each new reason once.
    pub(super) fn block(&mut self, reason: BlockReason, detail: &str, now: Instant) {
        self.status.set_block(Some((reason, detail)));
        if self.flow.block().is_none() {
            self.probes.back_off(false, now);
        }
        if self.flow.set_block(reason, now) != Some(reason) {
            let (topic, remedy) = (&*self.topic, reason.remedy());
            warn!(topic, reason = reason.word(), error = detail, "topic is blocked; its events wait in the journal; {remedy}");
        }
    }

    /// Unblocks the topic and logs this change. Does nothing if the topic is not blocked.
    pub(super) fn unblock(&mut self, now: Instant) {
        let Some(block) = self.flow.clear_block() else { return };
        self.probes.unblocked(now);
        self.status.set_block(None);
        let seconds = (now - block.since).as_secs();
        info!(topic = &*self.topic, reason = block.reason.word(), seconds, "topic is no longer blocked");
    }

    /// Publishes the topic as not blocked when the forwarder stops. The metrics outlive the forwarder, and the next forwarder
    /// itself detects whether the topic is blocked.
    pub(super) fn withdraw_block(&self) {
        self.status.set_block(None);
    }

    /// Allows a blocked queue to send one record. The acknowledgement of this record unblocks the queue.
    pub(super) fn begin_trial(&mut self) {
        self.flow.begin_trial();
    }

    /// Returns true if the topic needs metadata probes: records are in flight, or the topic is blocked and does not wait for
    /// the shared reader.
    pub(super) fn needs_probe(&self) -> bool {
        self.in_flight.unreported() > 0 || (self.flow.block().is_some() && !self.waits_for_shared())
    }

    /// Returns the time at which the topic's next probe is due.
    pub(super) fn probe_due(&self) -> Instant {
        self.probes.due()
    }

    /// Schedules a probe of a blocked topic at once, because the cause of the block may have ended.
    pub(super) fn hurry_probe(&mut self, now: Instant) {
        if self.flow.block().is_some() {
            self.probes.hurry(now);
        }
    }

    /// Schedules another attempt to start a probe, and returns the length of the pause before this attempt.
    pub(super) fn retry_probe(&mut self, now: Instant) -> Duration {
        self.probes.back_off(self.flow.block().is_some(), now)
    }

    /// Schedules the next probe. Must be called when a probe has finished.
    pub(super) fn schedule_next_probe(&mut self, now: Instant) {
        match self.flow.block() {
            Some(_) => drop(self.probes.back_off(true, now)),
            None => self.probes.restart(now),
        }
    }

    /// Returns true if the topic is not blocked and has made progress within [`STALLED_AFTER`].
    pub(super) fn makes_progress(&self, now: Instant) -> bool {
        self.flow.block().is_none() && now < self.progress_at + STALLED_AFTER
    }

    /// Returns the length of the topic's current stall; see [`TopicHealth::stalled_for`].
    pub(super) fn stalled_for(&self, now: Instant) -> Duration {
        self.health.stalled_for(self.progress_at, now)
    }

    /// Returns true if no record is in flight, or if Kafka has acknowledged no record for [`QUIET_AFTER`].
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.in_flight.unreported() == 0 || now > self.progress_at + QUIET_AFTER
    }

    /// Returns true if the queue has records in flight that Kafka may still acknowledge: the topic is not blocked, or is
    /// blocked only because the shared reader cannot read the journal.
    pub(super) fn expects_acks(&self) -> bool {
        self.in_flight.unreported() > 0 && (self.flow.block().is_none() || self.waits_for_shared())
    }
}

/// Decides when to save the cursor, and publishes the status.
impl TopicQueue {
    /// Returns the topic's cursor if it should be saved, else `None`. A save is due after an acknowledgement, and when an idle
    /// topic's cursor is more than [`IDLE_CURSOR_STEP`] ahead of the saved cursor. `shared` is the position of the shared
    /// reader.
    pub(super) fn cursor_to_save(&self, shared: u64) -> Option<u64> {
        let cursor = self.cursor(shared);
        let step = if self.saved.is_outdated { 0 } else { IDLE_CURSOR_STEP };
        (cursor > self.saved.seq + step).then_some(cursor)
    }

    /// Sets the saved cursor to `cursor`, which the worker hands to the journal. Returns the number of acknowledgements since the
    /// worker handed the previous cursor to the journal.
    pub(super) fn start_save(&mut self, cursor: u64) -> u64 {
        std::mem::replace(&mut self.saved, SavedCursor { seq: cursor, acknowledged: 0, is_outdated: false }).acknowledged
    }

    /// Makes the next save include the cursor, however little the cursor has moved. The worker calls this function during a
    /// stop.
    pub(super) fn force_save(&mut self) {
        self.saved.is_outdated = true;
    }

    /// Publishes the topic's cursor and the arrival time of the topic's oldest unacknowledged event.
    pub(super) fn publish(&self, shared: u64) {
        self.status.publish(self.cursor(shared), self.oldest());
    }

    /// Returns the topic's cursor: the sequence below which Kafka has acknowledged every event of the topic.
    fn cursor(&self, shared: u64) -> u64 {
        let idle = if self.has_own_reader() { self.next } else { self.next.max(shared) };
        self.in_flight.cursor().unwrap_or(idle)
    }

    /// Returns the arrival time of the topic's oldest unacknowledged event; `None` if there is no such event or the time is
    /// unknown.
    fn oldest(&self) -> Option<UnixMillis> {
        let unread = match self.feed {
            Feed::Own { oldest, .. } => oldest,
            Feed::Shared => None,
        };
        self.in_flight.oldest().or(unread)
    }
}

/// Longest time that the shared reader waits for room in a full queue. After this time, the queue uses its own reader.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(200);
/// Longest time for which a topic without acknowledgements delays the replacement of the producer.
const QUIET_AFTER: Duration = Duration::from_secs(2);
/// Distance, in sequences, that an idle topic's cursor must advance before hookhold saves the cursor. After a restart, hookhold
/// reads from the saved cursor and not from the topic's last acknowledged event.
const IDLE_CURSOR_STEP: u64 = 100_000;
