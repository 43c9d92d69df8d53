//! What of one lane has been handed to Kafka and is not finished: the events from the cursor to the newest one sent. Only an
//! acknowledgement moves the cursor, and only over events that are all acknowledged.
//!
//! The window bounds memory, and with it the repeats after a crash: at most what is in the window, plus what was
//! acknowledged since the cursor was last saved.

use std::collections::{BTreeSet, VecDeque};

use crate::clock::UnixMillis;

/// The unfinished events of one lane, in the order of their sequences.
#[derive(Default)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    bytes: usize,
    in_flight: usize,
    /// Acknowledged before a rewind and above the cursor: not to be sent again.
    done_ahead: BTreeSet<u64>,
}

struct Entry {
    seq: u64,
    bytes: usize,
    received_at: UnixMillis,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Acked,
    Failed,
}

impl Window {
    /// True while another event may be sent; a single one always may, whatever its size.
    pub fn has_room(&self, share: Share) -> bool {
        self.entries.len() < share.records && self.bytes < share.bytes
    }

    /// True once the window has emptied by half: the lane keeps up.
    pub fn is_half_empty(&self, share: Share) -> bool {
        self.entries.len() <= share.records / 2 && self.bytes <= share.bytes / 2
    }

    /// True when nothing lies between the cursor and the newest event read.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Records that librdkafka still owes a report for.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Events that have not been acknowledged.
    pub fn unfinished(&self) -> usize {
        self.entries.iter().filter(|entry| entry.state != State::Acked).count()
    }

    /// Takes an event up; false when Kafka has it already, so that it must not be sent again.
    pub fn take_up(&mut self, seq: u64, bytes: usize, received_at: UnixMillis) -> bool {
        let done = self.done_ahead.remove(&seq);
        let state = if done { State::Acked } else { State::InFlight };
        self.entries.push_back(Entry { seq, bytes, received_at, state });
        self.bytes += bytes;
        self.in_flight += usize::from(!done);
        self.drop_finished();
        !done
    }

    /// Notes an acknowledgement.
    pub fn acked(&mut self, seq: u64) {
        self.settle(seq, State::Acked);
        self.drop_finished();
    }

    /// Notes a failure; the event stays unfinished.
    pub fn failed(&mut self, seq: u64) {
        self.settle(seq, State::Failed);
    }

    /// Forgets what was sent without success, so that it is read and sent again; what was acknowledged stays so. Returns the
    /// sequence to read from, `None` if there was nothing.
    pub fn rewind(&mut self) -> Option<u64> {
        let cursor = self.cursor();
        let acked = self.entries.iter().filter(|entry| entry.state == State::Acked);
        self.done_ahead.extend(acked.map(|entry| entry.seq));
        self.entries.clear();
        self.bytes = 0;
        self.in_flight = 0;
        cursor
    }

    /// The lowest unfinished sequence.
    pub fn cursor(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.seq)
    }

    /// When the oldest unfinished event arrived.
    pub fn oldest(&self) -> Option<UnixMillis> {
        self.entries.front().map(|entry| entry.received_at)
    }

    fn settle(&mut self, seq: u64, state: State) {
        let Ok(index) = self.entries.binary_search_by_key(&seq, |entry| entry.seq) else { return };
        let entry = &mut self.entries[index];
        if entry.state == State::InFlight {
            entry.state = state;
            self.in_flight -= 1;
        }
    }

    fn drop_finished(&mut self) {
        while let Some(first) = self.entries.front().filter(|entry| entry.state == State::Acked) {
            self.bytes -= first.bytes;
            self.entries.pop_front();
        }
    }
}

/// How much of the whole one lane's window may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    records: usize,
    bytes: usize,
}

impl Share {
    /// The share of each of `lanes` lanes.
    pub fn of(lanes: usize) -> Share {
        let share = |all: usize, least: usize, most: usize| (all / lanes.max(1)).clamp(least, most);
        Share { records: share(ALL_RECORDS, LANE_RECORDS.0, LANE_RECORDS.1), bytes: share(ALL_BYTES, LANE_BYTES.0, LANE_BYTES.1) }
    }
}

/// Records that all windows may hold together, unless there are very many lanes.
const ALL_RECORDS: usize = 80_000;
/// Bytes (bodies, keys and headers) that all windows may hold together, unless there are very many lanes.
const ALL_BYTES: usize = 128 << 20;
/// The least and the most records of one lane.
const LANE_RECORDS: (usize, usize) = (200, 10_000);
/// The least and the most bytes of one lane; a single larger record is let through alone.
const LANE_BYTES: (usize, usize) = (1 << 20, 16 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    fn window(seqs: &[u64]) -> Window {
        let mut window = Window::default();
        for seq in seqs {
            assert!(window.take_up(*seq, 10, UnixMillis(*seq)));
        }
        window
    }

    #[test]
    fn cursor_moves_only_over_what_is_all_acknowledged() {
        let mut window = window(&[3, 5, 9]);
        window.acked(5);
        assert_eq!(window.cursor(), Some(3), "5 is acknowledged, 3 is not");
        window.acked(3);
        assert_eq!(window.cursor(), Some(9));
        window.failed(9);
        assert_eq!((window.cursor(), window.in_flight()), (Some(9), 0), "a failure does not move it");
    }

    #[test]
    fn rewind_sends_again_only_what_was_not_acknowledged() {
        let mut window = window(&[3, 5, 9]);
        window.acked(5);
        window.failed(3);
        window.failed(9);
        assert_eq!(window.rewind(), Some(3));
        assert!(window.take_up(3, 10, UnixMillis(3)));
        assert!(!window.take_up(5, 10, UnixMillis(5)), "Kafka has 5");
        assert!(window.take_up(9, 10, UnixMillis(9)));
        window.acked(3);
        assert_eq!(window.cursor(), Some(9));
    }

    #[test]
    fn a_report_counts_once() {
        let mut window = window(&[1, 2]);
        window.failed(1);
        window.failed(1);
        window.acked(7);
        assert_eq!(window.in_flight(), 1);
    }

    #[test]
    fn a_full_window_refuses_and_a_single_record_of_any_size_fits() {
        let share = Share::of(1);
        let mut window = Window::default();
        assert!(window.has_room(share));
        window.take_up(0, 100 << 20, UnixMillis(0));
        assert!(!window.has_room(share));
        window.acked(0);
        assert!(window.has_room(share) && window.is_half_empty(share));
    }

    #[test]
    fn lanes_share_the_memory() {
        assert_eq!(Share::of(1), Share::of(8));
        assert!(Share::of(100).bytes < Share::of(8).bytes);
        assert_eq!(Share::of(100_000), Share { records: LANE_RECORDS.0, bytes: LANE_BYTES.0 });
    }
}
