//! One lane: the events of one topic on their way, in order. Near the head of the journal it is fed by the reader that all
//! lanes share; when it falls behind it reads by itself, so that it delays nobody. Knows what it may do next, not when.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use prometheus::IntCounter;

use super::in_flight::{Share, Window};
use super::kafka_error::Reason;
use super::status_table::TopicStatus;
use super::topic_health::Health;
use crate::clock::UnixMillis;
use crate::journal::{Journal, ReadError, Reader, StoredEvent};

/// The state of one topic's events.
pub(super) struct TopicQueue {
    /// The Kafka topic, as stored in the frames.
    pub topic: Arc<str>,
    /// What is on its way.
    pub window: Window,
    /// Why nothing new is sent at present.
    pub block: Option<Block>,
    /// Something failed: nothing new is sent until the rest has been reported, then the lane rewinds.
    pub recalling: bool,
    /// Up to this sequence records are sent one at a time, to learn which of them Kafka refuses.
    pub alone_until: Option<u64>,
    /// When to ask the cluster about this topic, if the lane is blocked or has records in flight by then.
    pub look_at: Instant,
    /// When an acknowledgement last came, or when the first record left after a quiet time.
    pub progress_at: Instant,
    /// What looks at its topic have found since then.
    pub health: Health,
    /// What others see of this lane.
    pub face: Arc<TopicStatus>,
    /// Counts acknowledgements.
    pub acked_total: IntCounter,
    /// An acknowledgement has come since the cursor was last saved, or the lane is back at the head.
    pub moved: bool,
    feed: Feed,
    /// Every event of this lane below this sequence is in the window or finished.
    next: u64,
    /// Every durable event of this lane below this sequence is counted in its face.
    counted: u64,
    saved: u64,
    full_since: Option<Instant>,
    /// When the first event that has not been taken up yet arrived.
    behind_since: Option<UnixMillis>,
    patience: ExponentialBackoff,
    freed_at: Instant,
}

/// Why and since when a lane is blocked.
pub(super) struct Block {
    pub reason: Reason,
    pub since: Instant,
    /// One record is let through; its acknowledgement frees the lane.
    pub trial: bool,
}

enum Feed {
    /// The shared reader hands its events over.
    Head,
    /// It reads by itself; the reader is opened when it may send.
    Own(Option<Box<Reader>>),
}

impl TopicQueue {
    /// A lane whose cursor is `next` and whose face has counted its events below `counted`; it reads by itself until it meets
    /// the head.
    pub fn new(
        topic: Arc<str>,
        next: u64,
        counted: u64,
        face: Arc<TopicStatus>,
        acked_total: IntCounter,
        now: Instant,
    ) -> TopicQueue {
        TopicQueue {
            topic,
            window: Window::default(),
            block: None,
            recalling: false,
            alone_until: None,
            look_at: now,
            progress_at: now,
            health: Health::default(),
            face,
            acked_total,
            moved: false,
            feed: Feed::Own(None),
            next,
            counted,
            saved: next,
            full_since: None,
            behind_since: None,
            patience: backoff(RETRY_AFTER),
            freed_at: now,
        }
    }

    /// True when the shared reader must hand over this event.
    pub fn takes_from_head(&self, seq: u64) -> bool {
        matches!(self.feed, Feed::Head) && seq >= self.next
    }

    /// Counts an event that was read, here or at the head, once.
    pub fn count(&mut self, seq: u64) {
        if seq >= self.counted {
            self.counted = seq + 1;
            self.face.seen.fetch_add(1, Relaxed);
        }
    }

    /// True when it reads by itself.
    pub fn reads_by_itself(&self) -> bool {
        matches!(self.feed, Feed::Own(_))
    }

    /// True when it is blocked because the shared reader cannot read on, and will be freed with it.
    pub fn waits_for_head(&self) -> bool {
        !self.reads_by_itself() && self.block.as_ref().is_some_and(|block| block.reason == Reason::Journal)
    }

    /// True when Kafka can say something about its topic that matters.
    pub fn is_worth_a_look(&self) -> bool {
        self.window.in_flight() > 0 || (self.block.is_some() && !self.waits_for_head())
    }

    /// True when the next record may be sent.
    pub fn may_send(&self, share: Share) -> bool {
        let open = !self.recalling && self.block.as_ref().is_none_or(|block| block.trial);
        let alone = self.block.is_some() || self.is_one_at_a_time();
        open && if alone { self.window.is_empty() } else { self.window.has_room(share) }
    }

    /// True while it is worth waiting for this full lane before leaving it behind: it flows, and has not been full for long.
    pub fn is_worth_waiting_for(&mut self, now: Instant) -> bool {
        let flows = !self.recalling && self.block.is_none() && !self.is_one_at_a_time();
        flows && now < *self.full_since.get_or_insert(now) + WAIT_FOR_ROOM
    }

    /// When that wait is over.
    pub fn wait_ends(&self) -> Option<Instant> {
        self.full_since.map(|since| since + WAIT_FOR_ROOM)
    }

    /// Notes that this event is being sent; false when Kafka has it already.
    pub fn take_up(&mut self, stored: &StoredEvent, bytes: usize, now: Instant) -> bool {
        self.next = stored.position.seq + 1;
        if self.block.is_some() {
            self.alone_until = self.alone_until.max(Some(stored.position.seq));
        }
        if self.window.in_flight() == 0 {
            self.progress_at = now;
            self.look_at = self.look_at.max(now + STALLED_AFTER);
        }
        self.window.take_up(stored.position.seq, bytes, stored.event.received_at())
    }

    /// Notes an acknowledgement.
    pub fn acked(&mut self, seq: u64, share: Share, now: Instant) {
        self.window.acked(seq);
        self.moved = true;
        self.progress_at = now;
        self.health = Health::default();
        self.acked_total.inc();
        self.face.acked.fetch_add(1, Relaxed);
        if self.block.is_none() {
            self.look_at = now + STALLED_AFTER;
        }
        if self.window.is_half_empty(share) {
            self.full_since = None;
        }
    }

    /// Leaves the head at this event.
    pub fn fall_behind(&mut self, stored: &StoredEvent) {
        self.feed = Feed::Own(None);
        self.next = stored.position.seq;
        self.behind_since = Some(stored.event.received_at());
    }

    /// Reads its own next event; `None`: there is none below the durable mark, and it is back at the head.
    pub fn read(&mut self, journal: &Journal, head: u64) -> Result<Option<StoredEvent>, ReadError> {
        let Feed::Own(reader) = &mut self.feed else { return Ok(None) };
        if self.next < head {
            let mark = journal.durable_watermark();
            let reader = reader.get_or_insert_with(|| Box::new(journal.reader(self.next).for_topic(&self.topic)));
            if let Some(stored) = reader.next()? {
                self.behind_since = Some(stored.event.received_at());
                self.count(stored.position.seq);
                return Ok(Some(stored));
            }
            self.next = mark.max(reader.next_seq());
            // What rot took from this lane was counted and is never acknowledged.
            self.face.seen.store(self.face.acked.load(Relaxed) + self.window.unfinished() as u64, Relaxed);
        }
        self.join_head();
        // And only the cursor can pass it.
        self.moved = true;
        Ok(None)
    }

    /// Learns how old its oldest event is before it may read.
    pub fn look_behind(&mut self, journal: &Journal) {
        if self.reads_by_itself() && self.behind_since.is_none() {
            let first = journal.reader(self.next).for_topic(&self.topic).next();
            self.behind_since = first.ok().flatten().map(|stored| stored.event.received_at());
        }
    }

    /// Is fed by the shared reader from now on.
    pub fn join_head(&mut self) {
        self.feed = Feed::Head;
        self.behind_since = None;
    }

    /// Takes back everything that is not acknowledged, to be read and sent again.
    pub fn rewind(&mut self) {
        self.recalling = false;
        self.full_since = None;
        self.feed = Feed::Own(None);
        self.behind_since = self.window.oldest().or(self.behind_since);
        self.next = self.window.rewind().unwrap_or(self.next);
    }

    /// Lets one record through; more if it is acknowledged.
    pub fn try_one(&mut self) {
        if let Some(block) = &mut self.block {
            block.trial = true;
        }
    }

    /// The lowest sequence of this lane that Kafka has not acknowledged; `head` is where the shared reader stands.
    pub fn cursor(&self, head: u64) -> u64 {
        let idle = if self.reads_by_itself() { self.next } else { self.next.max(head) };
        self.window.cursor().unwrap_or(idle)
    }

    /// The cursor, if it is worth saving: after an acknowledgement, or when an idle lane's saved one has become old.
    pub fn cursor_to_save(&self, head: u64) -> Option<u64> {
        let cursor = self.cursor(head);
        let worth_it = if self.moved { cursor > self.saved } else { cursor > self.saved + IDLE_CURSOR_STEP };
        worth_it.then_some(cursor)
    }

    /// Notes that the cursor has been handed to the journal.
    pub fn saved(&mut self, cursor: u64) {
        self.saved = cursor;
        self.moved = false;
    }

    /// Shows cursor and age to others.
    pub fn publish(&self, head: u64) {
        let oldest = self.window.oldest().or(self.behind_since);
        self.face.cursor.store(self.cursor(head), Relaxed);
        self.face.oldest.store(oldest.map_or(0, |at| at.0), Relaxed);
    }

    /// The next pause of a blocked lane; short again once it has flowed for a while.
    pub fn next_pause(&mut self, now: Instant) -> Duration {
        if self.block.is_none() && now > self.freed_at + FORGIVEN_AFTER {
            self.patience = backoff(RETRY_AFTER);
        }
        self.patience.next().unwrap_or(RETRY_AFTER.1)
    }

    /// Ends the block; says how long it lasted.
    pub fn free(&mut self, now: Instant) -> Option<(Reason, Duration)> {
        let block = self.block.take()?;
        self.freed_at = now;
        self.look_at = now + STALLED_AFTER;
        Some((block.reason, now - block.since))
    }

    /// True while each record has to be acknowledged before the next one is sent.
    pub fn is_one_at_a_time(&self) -> bool {
        self.alone_until.is_some_and(|last| self.window.cursor().unwrap_or(self.next) <= last)
    }
}

/// Exponential pauses with jitter, without end.
pub(super) fn backoff((least, most): (Duration, Duration)) -> ExponentialBackoff {
    let pauses = ExponentialBuilder::default().with_min_delay(least).with_max_delay(most).without_max_times();
    pauses.with_jitter().with_jitter_seed(fastrand::u64(..)).build()
}

/// How long nothing may be acknowledged before the cluster is asked why.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(10);
/// First and longest pause (before jitter) between two looks at a blocked lane's topic.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// After flowing this long, a lane's pauses begin short again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// How long the shared reader waits for room in a lane that flows; then the lane reads by itself.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(200);
/// An idle lane's cursor is saved when it could skip this many sequences at the next start.
const IDLE_CURSOR_STEP: u64 = 100_000;
