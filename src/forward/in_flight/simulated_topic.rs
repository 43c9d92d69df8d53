//! Tests the records in flight with a simulated topic: its partitions lose and regain their leaders, and reject records.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::InFlight;
use crate::clock::UnixMillis;
use crate::forward::left_behind::Leaderless;
use crate::forward::partitioner::KeyHash;

/// Partitions lose and regain their leaders, records fail, and reports come in any order between partitions. Each event must reach
/// its partition once and in order, and the cursor must never pass an event that has not reached it.
#[test]
fn whatever_happens_each_event_arrives_once_and_in_order() {
    for seed in 0..3000 {
        let mut topic = SimulatedTopic::new(seed);
        for _ in 0..300 {
            topic.step();
        }
        topic.finish();
    }
}

/// A queue that sends the events 0 to 99 to four partitions, and the partitions.
struct SimulatedTopic {
    random: fastrand::Rng,
    seed: u64,
    in_flight: InFlight,
    next: u64,
    is_recalling: bool,
    /// Records that librdkafka has for each partition.
    sent: [VecDeque<u64>; 4],
    /// Records that each partition has stored.
    stored: [Vec<u64>; 4],
    lacks_leader: [bool; 4],
}

impl SimulatedTopic {
    fn new(seed: u64) -> SimulatedTopic {
        let (sent, stored) = Default::default();
        let random = fastrand::Rng::with_seed(seed);
        let (in_flight, next, is_recalling) = Default::default();
        SimulatedTopic { random, seed, in_flight, next, is_recalling, sent, stored, lacks_leader: [false; 4] }
    }

    fn step(&mut self) {
        let partition = self.random.usize(..4);
        match self.random.u8(..20) {
            0 => self.lacks_leader[partition] ^= true,
            1 => self.probe(),
            // A whole batch fails, which is all that librdkafka has for the partition.
            2 if !self.lacks_leader[partition] => {
                for seq in std::mem::take(&mut self.sent[partition]) {
                    self.in_flight.fail(seq);
                    self.is_recalling = true;
                }
            }
            3..12 => self.deliver(partition),
            _ => self.send(),
        }
        self.settle();
    }

    fn settle(&mut self) {
        if self.is_recalling && self.in_flight.unreported() == 0 {
            self.is_recalling = false;
            self.next = self.in_flight.rewind().map_or(self.next, |cursor| cursor.min(self.next));
        }
        let cursor = self.in_flight.cursor().map_or(self.next, |cursor| cursor.min(self.next));
        self.in_flight.forget_below(cursor);
        let missing = (0..cursor).find(|seq| !self.stored[(seq % 4) as usize].contains(seq));
        assert_eq!(missing, None, "seed {}: the cursor is at {cursor}", self.seed);
    }

    fn probe(&mut self) {
        let found = leaderless((0..4).filter(|partition| self.lacks_leader[*partition as usize]));
        if found != *self.in_flight.leaderless() {
            self.is_recalling |= self.in_flight.set_leaderless(found, self.next);
        }
    }

    fn send(&mut self) {
        let (seq, key) = (self.next, key_of(self.next % 4));
        if self.is_recalling || seq == 100 {
            return;
        }
        self.next += 1;
        if self.in_flight.leaderless().contains(key) {
            self.in_flight.leave_behind(seq, UnixMillis(seq));
        } else if self.in_flight.insert(seq, key, 10, UnixMillis(seq)) {
            self.sent[(seq % 4) as usize].push_back(seq);
        }
    }

    fn deliver(&mut self, partition: usize) {
        if self.lacks_leader[partition] {
            return;
        }
        if let Some(seq) = self.sent[partition].pop_front() {
            self.stored[partition].push(seq);
            assert!(self.in_flight.acknowledge(seq, self.next).is_some(), "seed {}: event {seq}", self.seed);
        }
    }

    /// Gives all partitions a leader, and lets the queue send the rest.
    fn finish(&mut self) {
        self.lacks_leader = [false; 4];
        for _ in 0..100_000 {
            self.probe();
            let partition = self.random.usize(..4);
            self.deliver(partition);
            self.send();
            self.settle();
            if self.stored.iter().map(Vec::len).sum::<usize>() == 100 {
                break;
            }
        }
        for (partition, stored) in self.stored.iter().enumerate() {
            let expected: Vec<u64> = (partition as u64..100).step_by(4).collect();
            assert_eq!(*stored, expected, "seed {}: partition {partition}", self.seed);
        }
    }
}

/// Returns the hash of a key whose partition is `partition` if the topic has four partitions.
pub(super) fn key_of(partition: u64) -> KeyHash {
    let four = NonZeroU32::new(4).expect("not zero");
    let mut keys = (0..1000_u32).map(|key| KeyHash::of(&key.to_le_bytes()));
    keys.find(|key| u64::from(key.partition(four)) == partition).expect("each partition has keys")
}

pub(super) fn leaderless(partitions: impl IntoIterator<Item = u32>) -> Leaderless {
    Leaderless::new(partitions.into_iter().collect(), 4)
}
