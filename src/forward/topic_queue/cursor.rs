//! Decides when the worker saves the cursor of a topic queue, and publishes the cursor.

use super::{Feed, SavedCursor, TopicQueue};
use crate::clock::UnixMillis;

impl TopicQueue {
    /// Returns the topic's cursor if it should be saved, else `None`. A save is due after an acknowledgement, and when an idle
    /// topic's cursor is more than [`IDLE_CURSOR_STEP`] ahead of the saved cursor. `live` is the position of the
    /// reader at the log end.
    pub(in crate::forward) fn cursor_to_save(&self, live: u64) -> Option<u64> {
        let cursor = self.cursor(live);
        let step = if self.saved.is_outdated { 0 } else { IDLE_CURSOR_STEP };
        (cursor > self.saved.seq + step).then_some(cursor)
    }

    /// Sets the saved cursor to `cursor`, which the worker hands to the journal. Returns the number of acknowledgements since the
    /// worker handed the previous cursor to the journal.
    pub(in crate::forward) fn start_save(&mut self, cursor: u64) -> u64 {
        std::mem::replace(&mut self.saved, SavedCursor { seq: cursor, acknowledged: 0, is_outdated: false }).acknowledged
    }

    /// Makes the next save include the cursor, however little the cursor has moved. The worker calls this function during a
    /// stop.
    pub(in crate::forward) fn force_save(&mut self) {
        self.saved.is_outdated = true;
    }

    /// Publishes the topic's cursor and the arrival time of the topic's oldest unacknowledged event. Forgets the events below the
    /// cursor.
    pub(in crate::forward) fn publish(&mut self, live: u64) {
        let cursor = self.cursor(live);
        self.in_flight.forget_below(cursor);
        self.status.publish(cursor, self.oldest());
    }

    /// Returns the topic's cursor: the sequence below which Kafka has acknowledged every event of the topic.
    fn cursor(&self, live: u64) -> u64 {
        let idle = if let Feed::Live = self.feed { self.next.max(live) } else { self.next };
        self.in_flight.cursor().map_or(idle, |cursor| cursor.min(idle))
    }

    /// Returns the arrival time of the topic's oldest unacknowledged event; `None` if there is no such event or the time is
    /// unknown.
    pub(super) fn oldest(&self) -> Option<UnixMillis> {
        let unread = match self.feed {
            Feed::Behind { oldest, .. } => oldest,
            Feed::Live => None,
        };
        self.in_flight.oldest().or(unread)
    }
}

/// Distance, in sequences, that an idle topic's cursor must advance before hookhold saves the cursor. After a restart, hookhold
/// reads from the saved cursor and not from the topic's last acknowledged event.
const IDLE_CURSOR_STEP: u64 = 100_000;
