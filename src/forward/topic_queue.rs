//! Queues the events of one topic for Kafka, in order. Near the log end, a reader that all queues share feeds the
//! queue. A queue that falls behind opens its own reader, so that it does not delay other topics.
//!
//! The queue tracks the next event, the records in flight, the block and the cursor. It does not depend on the Kafka
//! client: the worker sends records, and interprets failures and probe results.

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

/// The queue of one topic.
pub(super) struct TopicQueue {
    pub(super) topic: Arc<str>,
    status: Arc<TopicStatus>,
    flow: Flow,
    feed: Feed,
    pub(super) in_flight: InFlight,
    /// Next sequence to read. Every earlier event of the topic is in flight or finished.
    next: u64,
    /// Sequence below which `status` has counted every durable event of the topic.
    counted: u64,
    saved: SavedCursor,
    /// Last sequence to send alone. Sending records one at a time identifies the record that Kafka rejects.
    alone_until: Option<u64>,
    /// Time at which the shared reader first found the queue full.
    full_since: Option<Instant>,
    /// Time of the last acknowledgement, or of the first send after nothing was in flight.
    progress_at: Instant,
    /// Probe results since `progress_at`.
    pub(super) health: TopicHealth,
    probes: ProbeSchedule,
}

/// Reader that feeds a queue.
enum Feed {
    /// The shared reader.
    Shared,
    /// The queue's own reader.
    Own {
        /// The reader; `None` until the queue may send.
        reader: Option<Box<Reader>>,
        /// Arrival time of the first event that is not in flight; `None` while unknown.
        oldest: Option<UnixMillis>,
    },
}

/// Cursor that was last handed to the journal.
struct SavedCursor {
    seq: u64,
    /// True after an acknowledgement and after the switch to the shared reader. The cursor must then be saved even if
    /// it has moved only slightly.
    is_outdated: bool,
}

impl TopicQueue {
    /// Creates a queue that starts at `cursor`. `status` has already counted the events below `counted`. The queue uses
    /// its own reader until that reader reaches the position of the shared reader.
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

/// Reads events from the shared reader or from the queue's own reader.
impl TopicQueue {
    /// True if the queue takes the event with this sequence from the shared reader.
    pub(super) fn takes_from_shared(&self, seq: u64) -> bool {
        matches!(self.feed, Feed::Shared) && seq >= self.next
    }

    /// True if the queue has its own reader.
    pub(super) fn has_own_reader(&self) -> bool {
        matches!(self.feed, Feed::Own { .. })
    }

    /// Counts an event. Does nothing if the event has already been counted.
    pub(super) fn count(&mut self, seq: u64) {
        if seq >= self.counted {
            self.counted = seq + 1;
            self.status.count_seen();
        }
    }

    /// Leaves the shared reader, and continues at this event with the queue's own reader.
    pub(super) fn fall_behind(&mut self, stored: &StoredEvent) {
        self.feed = Feed::Own { reader: None, oldest: Some(stored.event.received_at()) };
        self.next = stored.position.seq;
    }

    /// Switches to the shared reader.
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
            // Kafka will never acknowledge events that corruption has destroyed, so they must no longer count as lag.
            self.status.correct_lag(self.in_flight.unacknowledged() as u64);
        }
        self.join_shared();
        // No acknowledgement moves the cursor past destroyed events, so the next save must include the cursor.
        self.saved.is_outdated = true;
        Ok(None)
    }

    /// Reads the arrival time of the first unsent event, so that the lag in seconds is known before the queue may send.
    pub(super) fn find_oldest(&mut self, journal: &Journal) {
        if let Feed::Own { oldest: oldest @ None, .. } = &mut self.feed {
            let first = journal.reader(self.next).for_topic(&self.topic).next();
            *oldest = first.ok().flatten().map(|stored| stored.event.received_at());
        }
    }
}

/// Registers sent records, and applies delivery reports.
impl TopicQueue {
    /// True if the next record may be sent.
    pub(super) fn may_send(&self, limit: InFlightLimit) -> bool {
        match self.flow {
            Flow::Flowing if !self.is_one_at_a_time() => self.in_flight.has_room(limit),
            Flow::Flowing | Flow::Trial(_) => self.in_flight.is_empty(),
            Flow::Recalling(_) | Flow::Blocked(_) => false,
        }
    }

    /// True while each record must be acknowledged before the next one is sent.
    fn is_one_at_a_time(&self) -> bool {
        self.alone_until.is_some_and(|last| self.in_flight.cursor().unwrap_or(self.next) <= last)
    }

    /// True if the shared reader should wait for room in this full queue: the queue flows, and has been full for less
    /// than [`WAIT_FOR_ROOM`].
    pub(super) fn is_worth_waiting_for(&mut self, now: Instant) -> bool {
        let flows = matches!(self.flow, Flow::Flowing) && !self.is_one_at_a_time();
        flows && now < *self.full_since.get_or_insert(now) + WAIT_FOR_ROOM
    }

    /// Returns the end of the shared reader's wait for room; `None` if the queue is not full.
    pub(super) fn wait_ends(&self) -> Option<Instant> {
        self.full_since.map(|since| since + WAIT_FOR_ROOM)
    }

    /// Registers an event before it is sent. Returns false if Kafka acknowledged the event before a rewind. The event
    /// must then not be sent again.
    pub(super) fn begin_send(&mut self, stored: &StoredEvent, bytes: usize, now: Instant) -> bool {
        let seq = stored.position.seq;
        self.next = seq + 1;
        if self.flow.block().is_some() {
            self.send_alone_until(seq);
        }
        if self.in_flight.unreported() == 0 {
            self.progress_at = now;
            self.probes.postpone(now);
        }
        self.in_flight.insert(seq, bytes, stored.event.received_at())
    }

    /// Applies an acknowledgement. Also ends the block, except during a recall and while the queue waits for the
    /// journal.
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

    /// Applies a failure and begins a recall. Returns true if the record was sent alone and is therefore the cause.
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

    /// Begins a recall: sends nothing until librdkafka has reported every record in flight.
    pub(super) fn recall(&mut self) {
        self.flow.begin_recall();
        if matches!(self.flow, Flow::Trial(_)) {
            self.rewind();
        }
    }

    /// Rewinds the queue if a recall is complete.
    pub(super) fn rewind_if_recalled(&mut self) {
        if self.flow.is_recalling() && self.in_flight.unreported() == 0 {
            self.rewind();
        }
    }

    /// Moves back to the cursor, so that all unacknowledged events are read and sent again.
    pub(super) fn rewind(&mut self) {
        self.flow.end_recall();
        self.full_since = None;
        self.feed = Feed::Own { reader: None, oldest: self.oldest() };
        self.next = self.in_flight.rewind().unwrap_or(self.next);
    }
}

/// Blocks and unblocks the topic, and schedules its probes.
impl TopicQueue {
    /// Returns the reason for the block; `None` if the topic is not blocked.
    pub(super) fn block_reason(&self) -> Option<BlockReason> {
        self.flow.block().map(|block| block.reason)
    }

    /// True if the queue is blocked because the shared reader fails. The next successful read ends the block.
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

    /// Ends the block, if there is one.
    pub(super) fn unblock(&mut self, now: Instant) {
        let Some(block) = self.flow.clear_block() else { return };
        self.probes.unblocked(now);
        self.status.set_block(None);
        let seconds = (now - block.since).as_secs();
        info!(topic = &*self.topic, reason = block.reason.word(), seconds, "topic is no longer blocked");
    }

    /// Clears the published block at a stop. The metrics outlive a forwarder, and the next forwarder detects blocks
    /// itself.
    pub(super) fn withdraw_block(&self) {
        self.status.set_block(None);
    }

    /// Allows the queue to send one record. The acknowledgement of this record ends the block.
    pub(super) fn begin_trial(&mut self) {
        self.flow.begin_trial();
    }

    /// True if a probe result is useful: records are in flight, or the topic has a block that Kafka can end.
    pub(super) fn needs_probe(&self) -> bool {
        self.in_flight.unreported() > 0 || (self.flow.block().is_some() && !self.waits_for_shared())
    }

    /// Returns the time of the next probe.
    pub(super) fn probe_due(&self) -> Instant {
        self.probes.due()
    }

    /// Schedules another attempt to start a probe, and returns the pause before this attempt.
    pub(super) fn retry_probe(&mut self, now: Instant) -> Duration {
        self.probes.back_off(self.flow.block().is_some(), now)
    }

    /// Schedules the next probe after a probe has finished.
    pub(super) fn schedule_next_probe(&mut self, now: Instant) {
        match self.flow.block() {
            Some(_) => drop(self.probes.back_off(true, now)),
            None => self.probes.restart(now),
        }
    }

    /// True if the topic is not blocked and has made progress within [`STALLED_AFTER`].
    pub(super) fn makes_progress(&self, now: Instant) -> bool {
        self.flow.block().is_none() && now < self.progress_at + STALLED_AFTER
    }

    /// Returns the length of the current stall; see [`TopicHealth::stalled_for`].
    pub(super) fn stalled_for(&self, now: Instant) -> Duration {
        self.health.stalled_for(self.progress_at, now)
    }

    /// True if no record is in flight, or if Kafka has acknowledged no record for [`QUIET_AFTER`].
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.in_flight.unreported() == 0 || now > self.progress_at + QUIET_AFTER
    }

    /// True if records are in flight and no block prevents their acknowledgement.
    pub(super) fn expects_acks(&self) -> bool {
        self.in_flight.unreported() > 0 && (self.flow.block().is_none() || self.waits_for_shared())
    }
}

/// Decides when to save the cursor, and publishes the status.
impl TopicQueue {
    /// Returns the cursor if it should be saved: after an acknowledgement, or when the saved cursor of an idle topic is far
    /// behind. `shared` is the position of the shared reader.
    pub(super) fn cursor_to_save(&self, shared: u64) -> Option<u64> {
        let cursor = self.cursor(shared);
        let step = if self.saved.is_outdated { 0 } else { IDLE_CURSOR_STEP };
        (cursor > self.saved.seq + step).then_some(cursor)
    }

    /// Records that this cursor was handed to the journal.
    pub(super) fn cursor_saved(&mut self, cursor: u64) {
        self.saved = SavedCursor { seq: cursor, is_outdated: false };
    }

    /// Causes the next save to include the cursor even if it has moved only slightly, for example at a stop.
    pub(super) fn force_save(&mut self) {
        self.saved.is_outdated = true;
    }

    /// Publishes the cursor and the arrival time of the oldest event.
    pub(super) fn publish(&self, shared: u64) {
        self.status.publish(self.cursor(shared), self.oldest());
    }

    /// Returns the lowest sequence of the topic that Kafka has not acknowledged.
    fn cursor(&self, shared: u64) -> u64 {
        let idle = if self.has_own_reader() { self.next } else { self.next.max(shared) };
        self.in_flight.cursor().unwrap_or(idle)
    }

    /// Returns the arrival time of the oldest unacknowledged event; `None` while unknown.
    fn oldest(&self) -> Option<UnixMillis> {
        let unread = match self.feed {
            Feed::Own { oldest, .. } => oldest,
            Feed::Shared => None,
        };
        self.in_flight.oldest().or(unread)
    }
}

/// Longest wait of the shared reader for room in a queue that flows. After this time, the queue uses its own reader.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(200);
/// Time without an acknowledgement after which a topic no longer delays the replacement of a producer.
const QUIET_AFTER: Duration = Duration::from_secs(2);
/// Number of sequences by which an idle topic's cursor must move before it is saved. The next start then skips these
/// sequences.
const IDLE_CURSOR_STEP: u64 = 100_000;
