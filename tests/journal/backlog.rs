//! Tests of backlogs: the limit at which the journal rejects a topic's events, and the space that blocked topics leave to others.

use hookhold::journal::AppendRejected;
use hookhold::journal::disk::LocalDisk;

use crate::events::{Sample, TOPICS};
use crate::harness::*;
use crate::stepped::SteppedJournal;

#[test]
fn a_full_backlog_rejects_only_its_own_topic() {
    let harness = Harness::with(|options| {
        options.forwards = true;
        options.limits.max_backlog = 10_000;
    });
    let journal = harness.open();
    let rejected = (0..20).find_map(|n| match append(&journal, &sample(n, 1_000).event()) {
        Ok(end) => end.recv().expect("a result").map(|_| None).expect("stored"),
        Err(rejected) => Some((n, rejected)),
    });
    let (accepted, rejected) = rejected.expect("the backlog fills up");
    assert_eq!(rejected, AppendRejected::TopicFull);
    assert!((5..10).contains(&accepted), "{accepted} events of a little more than 1,000 bytes fit into 10,000");
    journal.update_metrics();
    let used = harness.metrics.journal.backlog_used.with_label_values(&[TOPICS[0]]).get();
    assert!((0.85..=1.0).contains(&used), "{used}");
    let other = Sample { topic: 1, ..sample(100, 1_000) };
    store(&journal, &other);
    journal.save_cursor(TOPICS[0], journal.durable_watermark(), 1);
    store(&journal, &sample(101, 1_000));
    journal.close();
}

#[test]
fn a_topic_pins_its_events_until_acknowledged() {
    let harness = Harness::with(|options| (options.limits.max_size, options.forwards) = (200 << 10, true));
    let journal = harness.open();
    let full = |number: usize| store_or_reject(&journal, &sample(number, 3_000)).err().map(|error| (number, error));
    let (number, error) = (0..).find_map(full).expect("the journal fills up");
    assert_eq!(error, AppendRejected::TopicFull);
    assert_eq!(journal.oldest_seq(), 0, "nothing was deleted");
    assert_eq!(journal.count(TOPICS[0], 0, u64::MAX), number as u64);
    store(&journal, &Sample { topic: 1, ..sample(1_000, 3_000) });
    journal.save_cursor(TOPICS[0], journal.durable_watermark(), 1);
    for number in number..number + 100 {
        let mut end = None;
        wait_until("room for an event", || {
            end = append(&journal, &sample(number, 3_000).event()).ok();
            end.is_some()
        });
        let position = end.expect("accepted").recv().expect("a result").expect("stored");
        journal.save_cursor(TOPICS[0], position.seq + 1, 1);
    }
    assert!((1..=number as u64).contains(&journal.oldest_seq()), "acknowledged events make room: {}", journal.oldest_seq());
    let mut blocked = journal.reader(0).for_topic(TOPICS[1]);
    assert_eq!(blocked.next().expect("readable").map(|stored| stored.position.seq), Some(number as u64));
    journal.close();
}

/// Performs all steps of the journal after each delivery, and acknowledges the events of the topics that are not blocked.
struct Load {
    journal: SteppedJournal,
    number: usize,
    rejected: [usize; 4],
}

impl Load {
    fn new(harness: &Harness) -> Load {
        Load { journal: harness.open_in_steps(), number: 0, rejected: [0; 4] }
    }

    /// Appends an event of a topic. Returns false if the journal has rejected it because of the backlog of the topic.
    fn append(&mut self, topic: usize, length: usize, is_blocked: bool) -> bool {
        self.number += 1;
        let accepted = append(&self.journal.journal, &Sample { topic, ..sample(self.number, length) }.event());
        let result = match accepted {
            Err(AppendRejected::TopicFull) => {
                self.rejected[topic] += 1;
                return false;
            }
            accepted => accepted.expect("accepted, or rejected because of its own backlog"),
        };
        self.journal.step_writer();
        let position = result.try_recv().expect("the writer has ended").expect("stored");
        if !is_blocked {
            self.journal.journal.save_cursor(TOPICS[topic], position.seq + 1, 1);
        }
        true
    }

    fn pinned(&self, harness: &Harness) -> [u64; 4] {
        pinned(&self.journal, harness)
    }
}

/// Returns a harness whose journal has room for this number of segments.
fn with_segments(segments: u64) -> Harness {
    Harness::stopped(|options| {
        options.limits.segment_size = SEGMENT;
        options.limits.max_size = segments * SEGMENT;
        options.limits.max_backlog = segments * SEGMENT;
        options.forwards = true;
    })
}

/// Stores a few events of a blocked topic among many events of a topic that is not blocked.
#[test]
fn a_small_blocked_topic_cannot_pin_the_whole_journal() {
    let harness = with_segments(12);
    let mut load = Load::new(&harness);
    for number in 0..12_000 {
        if number % 10 == 0 {
            load.append(1, 90, true);
        }
        assert!(load.append(0, 3_000, false), "event {number} of a topic that is not blocked");
        harness.clock.advance(10);
        load.journal.run();
    }
    assert!(load.rejected[1] > 0, "the blocked topic reaches the number of segments that it may pin");
    let metrics = &harness.metrics.journal;
    let [used, limit, pinned] = [
        metrics.backlog_used.with_label_values(&[TOPICS[1]]).get(),
        metrics.backlog_limit.with_label_values(&[TOPICS[1]]).get() as f64,
        metrics.pinned_bytes.with_label_values(&[TOPICS[1]]).get() as f64,
    ];
    assert!((0.95..1.05).contains(&used), "the metric shows why hookhold rejects events: {used}");
    assert!(pinned / limit < 0.5, "the bytes of the events do not show this: {pinned} of {limit}");
    // Each of these segments counts 8 KiB and the bytes of the topic.
    let files = harness.disk.names(".seg").len() as u64;
    assert!((100..9 * SEGMENT / (8 << 10)).contains(&files), "{files} files");
    // Once the cursor of the blocked topic has moved, the journal accepts events of the topic again.
    load.journal.journal.save_cursor(TOPICS[1], load.journal.journal.durable_watermark(), 1);
    load.journal.run();
    assert!(load.append(1, 90, true));
    load.journal.close();
}

/// Two topics are blocked with the default of `max_backlog`, which is half of `max_size`.
#[test]
fn two_blocked_topics_leave_space_to_a_third_one() {
    let harness = with_segments(12);
    let mut load = Load::new(&harness);
    for round in 0..4_000 {
        for topic in [0, 1] {
            load.append(topic, 1_000, true);
        }
        assert!(load.append(2, 1_000, false), "round {round}");
        harness.clock.advance(1);
        load.journal.run();
    }
    let pinned = load.pinned(&harness);
    let share = 9 * SEGMENT / 2;
    assert!(load.rejected[0] > 1_000 && load.rejected[1] > 1_000 && load.rejected[2] == 0, "{:?}", load.rejected);
    let limit = harness.metrics.journal.backlog_limit.with_label_values(&[TOPICS[0]]).get();
    assert_eq!(limit as u64, share, "the metric shows the share");
    assert!(pinned[..2].iter().all(|pinned| (share / 2..=share).contains(pinned)), "{pinned:?} of {share}");
    let bytes: usize = harness.disk.names(".seg").iter().map(|name| harness.disk.len(name).expect("a file")).sum();
    assert!(bytes as u64 <= 12 * SEGMENT, "{bytes} bytes");
    harness.kill_stepped(load.journal);
    harness.disk.cut_power();

    // Every event of the blocked topics is still there, in order, and nothing counts as lost.
    let journal = harness.open_in_steps();
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    for (topic, rejected) in [(0, load.rejected[0]), (1, load.rejected[1])] {
        let mut reader = journal.journal.reader(0).for_topic(TOPICS[topic]);
        let read = std::iter::from_fn(|| reader.next().expect("readable")).count();
        assert_eq!(read, 4_000 - rejected, "all accepted events of the topic {}", TOPICS[topic]);
    }
    let lost: u64 = ["corruption", "missing_segment"]
        .map(|cause| harness.metrics.journal.lost_events.with_label_values(&[cause]).get())
        .iter()
        .sum();
    assert_eq!((lost, harness.metrics.journal.damaged.get()), (0, 0), "an omitted event is not lost");
    let report = harness.read_only().verify().expect("the journal can be read");
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
    journal.close();
}

/// An hour in which three of four topics are blocked, and each of the four gets the same number of events a second.
struct BlockedHour {
    max_size: u64,
    segment_size: u64,
    events_a_second: usize,
}

impl BlockedHour {
    fn run(&self, harness: &Harness, mut journal: SteppedJournal) {
        let events = [0, 1, 2, 3].map(|topic| Sample { topic, key: None, ..sample(topic, 2_000) }.event());
        let (mut rejected, mut most) = ([0; 4], [0; 4]);
        for second in 0..3_600 {
            for batch in 0..self.events_a_second.div_ceil(BATCH) {
                let count = BATCH.min(self.events_a_second - batch * BATCH);
                let mut last = None;
                for (topic, event) in std::iter::repeat_n(events.iter().enumerate(), count).flatten() {
                    match append(&journal.journal, event) {
                        Ok(end) if topic == 3 => last = Some(end),
                        Ok(_) => {}
                        Err(AppendRejected::TopicFull) if topic < 3 => rejected[topic] += 1,
                        Err(error) => panic!("second {second}: an event of {} was rejected: {error}", TOPICS[topic]),
                    }
                }
                journal.step_writer();
                let end = last.expect("an event of the fourth topic").try_recv().expect("the writer has ended").expect("stored");
                journal.journal.save_cursor(TOPICS[3], end.seq + 1, count as u64);
                journal.run();
            }
            harness.clock.advance(1_000);
            let now = pinned(&journal, harness);
            most = std::array::from_fn(|topic| now[topic].max(most[topic]));
        }
        let share = self.max_size / 4;
        println!("of {} bytes for each blocked topic, at most {most:?} were pinned; rejected events: {rejected:?}", share);
        assert!(most[..3].iter().all(|most| (share / 10 * 8..=share).contains(most)), "{most:?} of {share}");
        assert!(rejected[..3].iter().all(|rejected| *rejected > 0) && rejected[3] == 0, "{rejected:?}");
        let bytes = harness.metrics.journal.bytes.get() as u64;
        assert!(bytes <= self.max_size, "{bytes} bytes");
        journal.close();
    }

    fn harness(&self) -> Harness {
        Harness::stopped(|options| {
            options.limits.segment_size = self.segment_size;
            options.limits.max_size = self.max_size;
            options.limits.max_backlog = self.max_size / 2;
            options.forwards = true;
        })
    }
}

/// An hour with the default limits and 1,000 events a second for each topic, divided by 320.
#[test]
fn three_blocked_topics_stay_within_their_shares_and_a_fourth_is_untouched() {
    // As with the default limits, a segment contains fewer bytes of each topic than a pinned segment counts at least.
    let hour = BlockedHour { max_size: 64 << 20, segment_size: (64 << 20) / 320, events_a_second: 3 };
    let harness = hour.harness();
    hour.run(&harness, harness.open_in_steps());
}

/// The same on a real disk with the default limits. Writes about 60 GB; run it in the release build.
#[test]
#[ignore = "writes 60 GB to the directory for temporary files"]
fn three_blocked_topics_at_full_size() {
    let hour = BlockedHour { max_size: 20 << 30, segment_size: 64 << 20, events_a_second: 1_000 };
    let harness = hour.harness();
    let dir = tempfile::tempdir().expect("a directory");
    let disk = LocalDisk::create(dir.path()).expect("a disk");
    hour.run(&harness, harness.open_in_steps_on(std::sync::Arc::new(disk)));
}

/// Returns the pinned bytes of each topic.
fn pinned(journal: &SteppedJournal, harness: &Harness) -> [u64; 4] {
    journal.journal.update_metrics();
    TOPICS.map(|topic| harness.metrics.journal.pinned_bytes.with_label_values(&[topic]).get() as u64)
}

const SEGMENT: u64 = 256 << 10;
/// Number of events of each topic in one commit.
const BATCH: usize = 16;
