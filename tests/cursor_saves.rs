//! Tests how many duplicates `kill -9` under load causes in a real Kafka topic. hookhold sends a record again if the journal does
//! not contain its acknowledgement. So a kill repeats the records in flight, and those that Kafka acknowledged since the journal
//! last saved the cursors, which the journal does every 50 ms.
//!
//! The bound does not depend on the speed of the machine. The test takes the times of all saves and commits from the journal, and
//! the time of each record from the broker. The number of records in flight is measured at every save: these are the records that
//! the broker had appended before the save, and that the save did not contain.

#[path = "common/audit.rs"]
mod audit;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/load.rs"]
mod load;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::fs;

use hookhold::clock::{Clock, SystemClock};
use kafka::{Kafka, Record};
use load::{Ledger, Load, Order};
use process::Home;

#[test]
fn a_kill_under_load_repeats_only_the_last_fifty_milliseconds() {
    let kafka = Kafka::start();
    // One partition, so that the order of the records is the order of the events, and the broker's times.
    kafka.create_topic(TOPIC, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let home = fixture::home(&[("stripe", TOPIC)], Some(&kafka.bootstrap()));
    let mut random = fastrand::Rng::with_seed(fixture::seed());
    let mut ledger = Ledger::new(&format!("{:08x}", random.u32(..)));
    let (mut kills, mut sent) = (Vec::new(), 0);
    while kills.len() < KILLS {
        let started = SystemClock.now().0;
        let process = home.start();
        let order = Order { duplicate_percent: 0, rate: None, seed: random.u64(..), ..fixture::order(&home, "stripe") };
        assert_eq!(order.connections, 64);
        let load = Load::start(order, ledger);
        // Long enough for several saves after the first acknowledgement, also on a fast machine.
        load.wait_until_accepted(random.u64(30_000..50_000));
        drop(process);
        ledger = load.stop();
        let records = settled(&kafka);
        let kill = Kill::measure(&Life::read(&home, started), &records[sent..]);
        sent = records.len();
        println!("kill {}: {kill:?}", kills.len() + 1);
        kills.push(kill);
    }
    let process = home.start();
    fixture::wait_until_forwarded(&process, TOPIC);
    fixture::stop(process);

    let records = kafka.records(TOPIC);
    let events = fixture::frames(&home, TOPIC).len();
    let expected: usize = kills.iter().map(|kill| kill.repeated).sum();
    println!("{} records of {events} events in Kafka, so {} duplicates in {KILLS} kills", records.len(), records.len() - events);
    assert_eq!(records.len() - events, expected, "each record above the saved cursor is sent once more");
    assert!(expected > 0, "the kills hit records in flight");
    for kill in &kills {
        assert!(kill.saves >= 2, "the load lasts for several saves: {kill:?}");
        assert!(kill.commits_without_save <= 1, "the first batch that the writer takes after 50 ms saves the cursors: {kill:?}");
        assert!(kill.repeated <= kill.in_flight + kill.acknowledged.max(100), "{kill:?}");
    }
}

/// Number of records that one kill repeats, and the bound for this number.
#[derive(Debug)]
#[allow(dead_code, reason = "the test prints the fields that it does not compare")]
struct Kill {
    /// Number of records in Kafka above the saved cursor. The next process sends them again.
    repeated: usize,
    /// Largest number of records that the broker had appended at the time of a save, and that the save did not contain.
    in_flight: usize,
    /// Largest number of records that the broker appended within the longest time between two saves: 50 ms, and two commits. The
    /// commit after these 50 ms saves the cursors, and the kill may hit this commit.
    acknowledged: usize,
    /// Longest time from the start of a commit to the start of the next, in milliseconds.
    longest_commit_ms: u64,
    /// Median number of commits between two saves that started 50 ms or more after the first of them. The writer may have taken
    /// the batch of one such commit earlier. Between some saves, Kafka may have acknowledged nothing for a longer time.
    commits_without_save: usize,
    saves: usize,
    /// Number of records of this process in Kafka.
    records: usize,
}

impl Kill {
    fn measure(life: &Life, records: &[Record]) -> Kill {
        let last = life.saves.last().expect("a process saves its cursors when it starts");
        let above = |cursor: u64| records.iter().filter(move |record| record.seq() >= cursor);
        let at = |record: &Record| record.timestamp_ms as u64;
        let in_flight = life.saves.iter().map(|save| above(save.cursor).filter(|record| at(record) <= save.at_ms).count());
        let longest_commit_ms = life.commits_ms.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
        let late_commits = life.saves.windows(2).map(|pair| {
            let late = pair[0].at_ms + 51..pair[1].at_ms;
            life.commits_ms.iter().filter(|at_ms| late.contains(at_ms)).count()
        });
        let interval_ms = 50 + 2 * longest_commit_ms;
        let times: Vec<u64> = records.iter().map(at).collect();
        assert!(times.is_sorted(), "the broker's times grow");
        let within =
            |from: &u64| times.partition_point(|time| *time < from + interval_ms) - times.partition_point(|time| time < from);
        Kill {
            repeated: above(last.cursor).count(),
            in_flight: in_flight.max().unwrap_or(0),
            acknowledged: times.iter().map(within).max().unwrap_or(0),
            longest_commit_ms,
            commits_without_save: median(late_commits),
            saves: life.saves.len(),
            records: records.len(),
        }
    }
}

fn median(numbers: impl Iterator<Item = usize>) -> usize {
    let mut sorted: Vec<usize> = numbers.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// The commits of one process.
#[derive(Default)]
struct Life {
    /// Start of each commit, Unix milliseconds.
    commits_ms: Vec<u64>,
    /// Commits that contain the cursor of the topic.
    saves: Vec<Save>,
}

struct Save {
    at_ms: u64,
    cursor: u64,
}

impl Life {
    /// Reads the commits since `started` from the segment files.
    fn read(home: &Home, started: u64) -> Life {
        let mut files: Vec<_> = fs::read_dir(home.journal())
            .expect("the journal exists")
            .map(|entry| entry.expect("the journal can be listed").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        files.sort();
        let mut life = Life::default();
        for file in files {
            life.add_segment(&fs::read(file).expect("a segment can be read"), started);
        }
        life
    }

    fn add_segment(&mut self, bytes: &[u8], started: u64) {
        let number =
            |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let (mut at, mut at_ms) = (PAGE, 0);
        while at + 32 <= bytes.len() {
            let len = number(at, 4) as usize;
            match (len, bytes[at + 24]) {
                (0, _) => {
                    at = (at + 1).next_multiple_of(PAGE);
                    continue;
                }
                (_, COMMIT) => {
                    at_ms = number(at + 64, 8);
                    self.commits_ms.extend((at_ms >= started).then_some(at_ms));
                }
                (_, CURSORS) if at_ms >= started => {
                    let cursors = decode_cursors(&bytes[at + 32..at + len]);
                    self.saves.extend(cursors.get(TOPIC).map(|cursor| Save { at_ms, cursor: *cursor }));
                }
                _ => {}
            }
            at += len.next_multiple_of(8);
        }
    }
}

fn decode_cursors(payload: &[u8]) -> BTreeMap<String, u64> {
    let number =
        |at: usize, len: usize| payload[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let mut cursors = BTreeMap::new();
    let mut at = 4;
    for _ in 0..number(0, 4) {
        let len = number(at, 4) as usize;
        let topic = String::from_utf8(payload[at + 4..at + 4 + len].to_vec()).expect("a topic is text");
        cursors.insert(topic, number(at + 4 + len, 8));
        at += 4 + len + 8;
    }
    cursors
}

/// Returns the records of the topic once the broker has processed everything that the killed process had sent.
fn settled(kafka: &Kafka) -> Vec<Record> {
    let mut records = Vec::new();
    process::wait_until("the broker has appended all records", || {
        let before = records.len();
        records = kafka.records(TOPIC);
        before > 0 && records.len() == before
    });
    records
}

const TOPIC: &str = "webhooks.stripe";
const KILLS: usize = 10;
const PAGE: usize = 4096;
/// Kind of a commit frame and of a cursors frame.
const COMMIT: u8 = 2;
const CURSORS: u8 = 3;
