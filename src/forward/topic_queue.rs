//! Sends the events of one topic to Kafka, in order. One of the readers in [`super::readers`] feeds the queue.
//!
//! A topic queue tracks the topic's cursor, next event and records in flight, and whether the topic is blocked. The queue does
//! not depend on the Kafka client: the worker sends the records, and interprets failures and probe results. The module `leaderless`
//! leaves events behind whose partition has no leader.

mod cursor;
mod leaderless;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::block_log::BlockLog;
use super::flow::Flow;
use super::in_flight::InFlight;
use super::in_flight_limit::InFlightLimit;
use super::kafka_error::BlockReason;
use super::pace::Pace;
use super::partitioner::KeyHash;
use super::probe_schedule::{ProbeSchedule, STALLED_AFTER};
use super::readers::ReaderId;
use super::status_table::TopicStatus;
use super::topic_health::TopicHealth;
use crate::clock::UnixMillis;
use crate::journal::{Journal, StoredEvent};

/// Queue of one topic's events between the journal and Kafka.
pub(super) struct TopicQueue {
    pub(super) topic: Arc<str>,
    status: Arc<TopicStatus>,
    block_log: Arc<BlockLog>,
    flow: Flow,
    feed: Feed,
    pub(super) in_flight: InFlight,
    /// Sequence from which the queue reads its next event. Every earlier event of the topic is in flight, acknowledged or left behind.
    next: u64,
    saved: SavedCursor,
    pace: Pace,
    /// Time at which a reader found the queue full. The queue sends nothing until it has fallen to half of the in-flight limit or has
    /// rewound; then `None`.
    full_since: Option<Instant>,
    /// Later one of two times: the last acknowledgement, and the last send while no other record was in flight.
    progress_at: Instant,
    /// Summary of the topic's probe results since the last acknowledgement.
    pub(super) health: TopicHealth,
    probes: ProbeSchedule,
}

/// Reader from which a topic queue gets its events.
enum Feed {
    /// The reader at the log end.
    Live,
    /// The queue is behind the reader at the log end.
    Behind {
        /// Pass over older events that feeds the queue; `None` while the queue has no reader.
        pass: Option<ReaderId>,
        /// Arrival time of the queue's first unsent event, or of an earlier one; `None` while the time is unknown.
        oldest: Option<UnixMillis>,
    },
}

/// Cursor that the worker last handed to the journal.
struct SavedCursor {
    seq: u64,
    /// Number of acknowledgements since then.
    acknowledged: u64,
    /// True if the next save must include the topic's cursor, however little the cursor has moved. Set by an acknowledgement,
    /// by the switch to the reader at the log end, and by a stop.
    is_outdated: bool,
}

impl TopicQueue {
    /// Creates a queue for `topic` with the start sequence `cursor`. The queue has no reader yet.
    pub(super) fn new(topic: Arc<str>, cursor: u64, status: Arc<TopicStatus>, log: Arc<BlockLog>, now: Instant) -> TopicQueue {
        TopicQueue {
            topic,
            status,
            block_log: log,
            flow: Flow::default(),
            feed: Feed::Behind { pass: None, oldest: None },
            in_flight: InFlight::default(),
            next: cursor,
            saved: SavedCursor { seq: cursor, acknowledged: 0, is_outdated: false },
            pace: Pace::default(),
            full_since: None,
            progress_at: now,
            health: TopicHealth::default(),
            probes: ProbeSchedule::new(now),
        }
    }
}

/// Gets events from the readers.
impl TopicQueue {
    /// Returns the sequence at which the queue continues.
    pub(super) fn next_seq(&self) -> u64 {
        self.next
    }

    /// Returns true if this reader feeds the queue.
    pub(super) fn is_fed_by(&self, reader: ReaderId) -> bool {
        match self.feed {
            Feed::Live => reader == ReaderId::Live,
            Feed::Behind { pass, .. } => pass == Some(reader),
        }
    }

    /// Returns true if the queue takes the event with sequence `seq` from this reader.
    pub(super) fn takes_from(&self, reader: ReaderId, seq: u64) -> bool {
        self.is_fed_by(reader) && seq >= self.next
    }

    /// Returns true if no reader feeds the queue although it may send.
    pub(super) fn needs_reader(&self, limit: InFlightLimit) -> bool {
        matches!(self.feed, Feed::Behind { pass: None, .. }) && self.may_send(limit)
    }

    /// Makes a pass feed the queue.
    pub(super) fn join_pass(&mut self, reader: ReaderId) {
        self.feed = Feed::Behind { pass: Some(reader), oldest: self.oldest() };
    }

    /// Makes the reader at the log end feed the queue. The reader is at `position`, and the queue has taken all earlier events.
    pub(super) fn join_live(&mut self, position: u64) {
        self.feed = Feed::Live;
        self.next = self.next.max(position);
        // No acknowledgement moves the cursor past destroyed events, so the next save must include the cursor.
        self.saved.is_outdated = true;
    }

    /// Leaves the queue without a reader. The queue has taken all events before `position`.
    pub(super) fn leave_reader(&mut self, position: u64) {
        self.feed = Feed::Behind { pass: None, oldest: self.oldest() };
        self.next = self.next.max(position);
    }

    /// Leaves the queue without a reader. The queue continues at the event `stored` later.
    pub(super) fn fall_behind(&mut self, stored: &StoredEvent) {
        self.feed = Feed::Behind { pass: None, oldest: Some(stored.event.received_at()) };
        self.next = stored.position.seq;
    }

    /// Sets the topic's lag to the unacknowledged events that the queue has taken, and its `unread` events. `stored` is the number of
    /// events that the journal had stored at that moment.
    pub(super) fn correct_lag(&self, unread: u64, stored: u64) {
        self.status.set_lag(unread + self.in_flight.unacknowledged() as u64, stored);
    }

    /// Reads the arrival time of the queue's first unsent event. A queue that cannot send yet needs this time to report its lag
    /// in seconds.
    pub(super) fn find_oldest(&mut self, journal: &Journal) {
        if let Feed::Behind { oldest: oldest @ None, .. } = &mut self.feed {
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
            Flow::Flowing => {
                let limit = self.pace.limit(limit);
                self.in_flight.has_room(limit) && (self.full_since.is_none() || self.in_flight.is_half_empty(limit))
            }
            Flow::Trial(_) => self.in_flight.is_empty(),
            Flow::Recalling(_) | Flow::Blocked(_) => false,
        }
    }

    /// Returns true if the reader should wait for room in this full queue: the queue is in the state `Flowing`, and has not been
    /// full for too long.
    pub(super) fn is_worth_waiting_for(&mut self, now: Instant) -> bool {
        matches!(self.flow, Flow::Flowing) && now < *self.full_since.get_or_insert(now) + self.longest_wait()
    }

    /// Returns the time at which the reader stops waiting for room in the queue; `None` if the reader has not
    /// found the queue full.
    pub(super) fn wait_ends(&self) -> Option<Instant> {
        self.full_since.map(|since| since + self.longest_wait())
    }

    fn longest_wait(&self) -> Duration {
        if let Feed::Live = self.feed { LIVE_WAIT } else { PASS_WAIT }
    }

    /// Registers an event before the worker sends the event. Returns false if the worker must not send the event again, see
    /// [`InFlight::insert`].
    pub(super) fn begin_send(&mut self, stored: &StoredEvent, key: KeyHash, bytes: usize, now: Instant) -> bool {
        if self.in_flight.unreported() == 0 {
            self.progress_at = now;
            if self.in_flight.leaderless().is_empty() {
                self.probes.postpone(now);
            }
        }
        self.full_since = None;
        self.take(stored);
        self.in_flight.insert(stored.position.seq, key, bytes, stored.event.received_at())
    }

    /// Makes the queue continue behind an event.
    fn take(&mut self, stored: &StoredEvent) {
        self.next = stored.position.seq + 1;
        if let Feed::Behind { oldest, .. } = &mut self.feed {
            *oldest = Some(stored.event.received_at());
        }
    }

    /// Applies the acknowledgement of the record with sequence `seq`, which has arrived `at` this time. Also unblocks the topic,
    /// except during a recall and while the queue waits for its reader.
    pub(super) fn acknowledge(&mut self, seq: u64, limit: InFlightLimit, at: UnixMillis, now: Instant) {
        let (cursor, had_leader) = (self.in_flight.cursor(), !self.in_flight.holds(seq));
        // An operator may have released the event.
        let Some(bytes) = self.in_flight.acknowledge(seq, self.next) else { return };
        self.saved.acknowledged += 1;
        self.saved.is_outdated = true;
        self.progress_at = now;
        self.health = TopicHealth::default();
        self.status.count_acked(bytes, at);
        if !had_leader {
            self.probes.hurry(now);
        } else if self.flow.block().is_none() && self.in_flight.leaderless().is_empty() && self.in_flight.cursor() != cursor {
            self.probes.restart(now);
        }
        if self.in_flight.is_half_empty(self.pace.limit(limit)) {
            self.full_since = None;
        }
        if let Some(bytes) = self.pace.acknowledged(self.in_flight.first_in_flight().unwrap_or(self.next), now) {
            let topic = &*self.topic;
            warn!(topic, bytes, "{SMALLER_BATCHES}");
        }
        if !self.block_if_too_far_ahead(limit, now) && !self.flow.is_recalling() && !self.waits_for_reader() {
            self.unblock(now);
        }
    }

    /// Applies the failure of the record with sequence `seq`, and begins a recall. Returns true if no other record was in flight, apart
    /// from those that wait for a partition without a leader. In this case, no other record can be the cause.
    pub(super) fn fail(&mut self, seq: u64) -> bool {
        let alone = self.in_flight.is_alone(seq) && !self.flow.is_recalling();
        self.in_flight.fail(seq);
        self.recall();
        alone
    }

    /// Causes the queue to have fewer bytes in flight, because Kafka has rejected a batch. Must precede [`TopicQueue::fail`]. Does
    /// nothing if another record of the same batches has already failed.
    pub(super) fn send_smaller_batches(&mut self, now: Instant) {
        if let Some((bytes, last)) = self.in_flight.extent().filter(|_| !self.flow.is_recalling()) {
            self.pace.halve(bytes, last, now);
        }
    }

    /// Makes the queue continue behind the event with sequence `seq`, which hookhold has parked. Must follow [`TopicQueue::fail`], when
    /// no other record is in flight. The record had `bytes` bytes. Unblocks the topic, because Kafka has answered.
    pub(super) fn pass_parked(&mut self, seq: u64, bytes: usize, now: Instant) {
        self.rewind();
        match self.next == seq {
            true => self.next = seq + 1,
            // An earlier event waits for a partition without a leader.
            false => self.in_flight.pass_parked(seq),
        }
        self.pace.blame_record(bytes);
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
        let (stored, watermark) = journal.stored(&self.topic);
        // After the rewind, the queue has taken no event.
        let waiting = journal.count(&self.topic, self.next, watermark).saturating_sub(self.in_flight.done_ahead());
        self.status.set_lag(waiting, stored);
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

    /// Moves the queue back to its cursor, so that the queue reads and sends all unacknowledged events again. Does not send those again
    /// that librdkafka holds for a partition without a leader.
    pub(super) fn rewind(&mut self) {
        self.flow.end_recall();
        self.full_since = None;
        self.feed = Feed::Behind { pass: None, oldest: self.oldest() };
        self.next = self.in_flight.rewind().map_or(self.next, |cursor| cursor.min(self.next));
    }
}

/// Blocks and unblocks the topic, and schedules the topic's probes.
impl TopicQueue {
    /// Returns the reason why the topic is blocked; `None` if the topic is not blocked.
    pub(super) fn block_reason(&self) -> Option<BlockReason> {
        self.flow.block().map(|block| block.reason)
    }

    /// Returns true if the topic is blocked because the whole cluster does not answer.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.block_reason(), Some(BlockReason::BrokerAway | BlockReason::Tls | BlockReason::Authentication))
    }

    /// Returns true if the queue is blocked because this reader cannot read the journal. The reader's next successful read unblocks
    /// the queue.
    pub(super) fn waits_for(&self, reader: ReaderId) -> bool {
        self.is_fed_by(reader) && self.waits_for_reader()
    }

    /// Returns true if the queue is blocked because its reader cannot read the journal.
    fn waits_for_reader(&self) -> bool {
        let has_reader = !matches!(self.feed, Feed::Behind { pass: None, .. });
        has_reader && self.block_reason() == Some(BlockReason::Journal)
    }

    /// Blocks the topic or changes the reason for its block. Logs each new reason once; see [`BlockLog`].
    pub(super) fn block(&mut self, reason: BlockReason, detail: &str, now: Instant) {
        self.status.set_block(Some((reason, detail)), now);
        if self.flow.block().is_none() {
            self.probes.back_off(false, now);
        }
        if self.flow.set_block(reason, now) != Some(reason) {
            self.block_log.blocked(&self.topic, reason, detail, now);
        }
    }

    /// Unblocks the topic and logs this change. Does nothing if the topic is not blocked.
    pub(super) fn unblock(&mut self, now: Instant) {
        let Some(block) = self.flow.clear_block() else { return };
        self.probes.unblocked(now);
        self.status.set_block(None, now);
        self.block_log.unblocked(&self.topic, block.reason, block.since, now);
    }

    /// Publishes the topic as not blocked, and its partitions as having leaders, when the forwarder stops. The metrics outlive the
    /// forwarder, and the next forwarder itself detects whether the topic is blocked.
    pub(super) fn withdraw_block(&self) {
        self.status.set_block(None, Instant::now());
        self.status.set_leaderless(None, Instant::now());
    }

    /// Allows a blocked queue to send one record. The acknowledgement of this record unblocks the queue.
    pub(super) fn begin_trial(&mut self) {
        self.flow.begin_trial();
    }

    /// Returns true if the topic needs metadata probes: probes judge it, or a partition has no leader.
    pub(super) fn needs_probe(&self) -> bool {
        self.is_judged_by_probes() || !self.in_flight.leaderless().is_empty()
    }

    /// Returns true if a probe may block or unblock the topic: records are in flight, or the topic is blocked and does not wait for the
    /// reader.
    pub(super) fn is_judged_by_probes(&self) -> bool {
        self.in_flight.unreported() > 0 || (self.flow.block().is_some() && !self.waits_for_reader())
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
        match self.flow.block().is_some() || !self.in_flight.leaderless().is_empty() {
            true => drop(self.probes.back_off(true, now)),
            false => self.probes.restart(now),
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
    /// blocked only because the reader cannot read the journal.
    pub(super) fn expects_acks(&self) -> bool {
        self.in_flight.unreported() > 0 && (self.flow.block().is_none() || self.waits_for_reader())
    }
}

const SMALLER_BATCHES: &str = "the topic rejects larger batches, so hookhold sends smaller ones; raise its max.message.bytes to at \
                               least batch.size";
/// Longest time that the reader at the log end waits for room in a full queue. After this time, the queue falls behind.
const LIVE_WAIT: Duration = Duration::from_millis(200);
/// The same for a pass. A topic that leaves a pass needs another one, which reads the same part of the journal again.
const PASS_WAIT: Duration = Duration::from_secs(5);
/// Longest time for which a topic without acknowledgements delays the replacement of the producer.
const QUIET_AFTER: Duration = Duration::from_secs(2);
