//! Tests of backlogs: the bytes that a topic pins, and the limit at which the journal rejects the topic's events.

use hookhold::journal::{AppendError, AppendRejected};

use crate::events::{Sample, TOPICS};
use crate::harness::*;

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
    let other = Sample { topic: 1, ..sample(100, 1_000) };
    store(&journal, &other);
    journal.save_cursor(TOPICS[0], journal.durable_watermark(), 1);
    store(&journal, &sample(101, 1_000));
    journal.close();
}

#[test]
fn a_topic_pins_its_events_until_acknowledged() {
    let harness = Harness::with(|options| {
        options.limits.max_size = 200 << 10;
        options.forwards = true;
    });
    let journal = harness.open();
    let mut number = 0;
    let full = loop {
        match append(&journal, &sample(number, 3_000).event()).map(|end| end.recv().expect("a result")) {
            Ok(Ok(_)) => number += 1,
            other => break other,
        }
    };
    assert_eq!(full, Ok(Err(AppendError::Full)));
    assert_eq!(journal.oldest_seq(), 0, "nothing was deleted");
    assert_eq!(journal.count(TOPICS[0], 0, u64::MAX), number as u64);
    journal.save_cursor(TOPICS[0], journal.durable_watermark(), 1);
    wait_until("room for an event", || append(&journal, &sample(number, 3_000).event()).is_ok());
    store(&journal, &sample(number + 1, 3_000));
    assert!(journal.oldest_seq() > 0, "acknowledged events make room");
    journal.close();
}

/// Stores a few events of a blocked topic among many events of a topic that is not blocked.
#[test]
fn a_small_blocked_topic_cannot_pin_the_whole_journal() {
    let segment = 32 << 10;
    let harness = Harness::with(|options| {
        options.limits.max_size = 12 * segment;
        options.limits.max_backlog = 6 * segment;
        options.forwards = true;
    });
    let journal = harness.open();
    let mut rejected = 0;
    for number in 0..500 {
        // About 90 of every 10,000 bytes belong to the blocked topic, so the bytes of the topic alone would never reach a
        // limit.
        if number % 3 == 0 {
            match append(&journal, &Sample { topic: 1, ..sample(1_000 + number, 90) }.event()) {
                Ok(end) => drop(end.recv().expect("a result").expect("stored")),
                Err(error) => {
                    assert_eq!(error, AppendRejected::TopicFull);
                    rejected += 1;
                }
            }
        }
        let forwarded = store(&journal, &sample(number, 3_000));
        journal.save_cursor(TOPICS[0], forwarded.seq + 1, 1);
    }
    assert!(rejected > 100, "{rejected} events of the blocked topic were rejected");
    journal.update_metrics();
    let pinned = |topic: &str| harness.metrics.journal.pinned_bytes.with_label_values(&[topic]).get() as u64;
    assert!((3 * segment..=6 * segment).contains(&pinned(TOPICS[1])), "{} bytes, within max_backlog", pinned(TOPICS[1]));
    assert!(pinned(TOPICS[0]) < segment, "{} bytes", pinned(TOPICS[0]));
    // Once the cursor of the blocked topic has moved, the journal accepts events of the topic again.
    journal.save_cursor(TOPICS[1], journal.durable_watermark(), 1);
    wait_until("room for an event", || append(&journal, &Sample { topic: 1, ..sample(2_000, 90) }.event()).is_ok());
    journal.close();
}

#[test]
fn blocked_topics_are_charged_only_their_own_bytes() {
    let segment = 128 << 10;
    let harness = Harness::with(|options| {
        options.limits.segment_size = segment;
        options.limits.max_size = 12 * segment;
        options.limits.max_backlog = 6 * segment;
        options.forwards = true;
    });
    let journal = harness.open();
    let store = |number: usize| store_or_reject(&journal, &Sample { topic: number % 2, ..sample(number, 3_500) });
    // Each of the two topics pins half of the bytes, so the topics together can use all of max_size before the journal rejects
    // an event.
    let (number, rejected) = (0..).find_map(|number| Some((number, store(number).err()?))).expect("the journal fills up");
    assert_eq!(rejected, AppendRejected::Full);
    assert!(number as u64 * 3_500 > 8 * segment, "{number} events");
    journal.close();
}
