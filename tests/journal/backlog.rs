//! backlog.

use crate::events::{Sample, TOPICS};
use hookhold::journal::{AppendError, AppendRejected};

use crate::harness::*;

#[test]
fn a_lane_at_its_backlog_refuses_only_its_own_events() {
    let harness = Harness::with(|options| {
        options.forwards = true;
        options.limits.max_backlog = 10_000;
    });
    let journal = harness.open();
    let refused = (0..20).find_map(|n| match hand_over(&journal, &sample(n, 1_000).event()) {
        Ok(end) => end.recv().expect("told").map(|_| None).expect("kept"),
        Err(refused) => Some((n, refused)),
    });
    let (taken, refused) = refused.expect("it is refused at last");
    assert_eq!(refused, AppendRejected::TopicFull);
    assert!((5..10).contains(&taken), "{taken} events of 1,000 bytes and a little more fit into 10,000");
    let other = Sample { topic: 1, ..sample(100, 1_000) };
    keep(&journal, &other);
    journal.save_cursor(TOPICS[0], journal.durable_watermark());
    keep(&journal, &sample(101, 1_000));
    journal.close();
}

#[test]
fn a_lane_with_a_cursor_pins_its_events() {
    let harness = Harness::with(|options| {
        options.limits.max_size = 200 << 10;
        options.forwards = true;
    });
    let journal = harness.open();
    let mut number = 0;
    let full = loop {
        match hand_over(&journal, &sample(number, 3_000).event()).map(|end| end.recv().expect("told")) {
            Ok(Ok(_)) => number += 1,
            other => break other,
        }
    };
    assert_eq!(full, Ok(Err(AppendError::Full)));
    assert_eq!(journal.oldest_seq(), 0, "nothing was deleted");
    assert_eq!(journal.count(TOPICS[0], 0, u64::MAX), number as u64);
    journal.save_cursor(TOPICS[0], journal.durable_watermark());
    while hand_over(&journal, &sample(number, 3_000).event()).is_err() {
        std::thread::yield_now();
    }
    keep(&journal, &sample(number + 1, 3_000));
    assert!(journal.oldest_seq() > 0, "what is acknowledged makes room");
    journal.close();
}

/// One topic with a trickle that never flows, among others that do.
#[test]
fn a_blocked_trickle_is_refused_alone_and_the_others_flow_on() {
    let segment = 32 << 10;
    let harness = Harness::with(|options| {
        options.limits.max_size = 12 * segment;
        options.limits.max_backlog = 6 * segment;
        options.forwards = true;
    });
    let journal = harness.open();
    let mut refused = 0;
    for number in 0..500 {
        // Some 90 bytes in 10,000: its own bytes would never reach any limit.
        if number % 3 == 0 {
            match hand_over(&journal, &Sample { topic: 1, ..sample(1_000 + number, 90) }.event()) {
                Ok(end) => drop(end.recv().expect("told").expect("kept")),
                Err(error) => {
                    assert_eq!(error, AppendRejected::TopicFull);
                    refused += 1;
                }
            }
        }
        let flowing = keep(&journal, &sample(number, 3_000));
        journal.save_cursor(TOPICS[0], flowing.seq + 1);
    }
    assert!(refused > 100, "{refused} of the blocked topic were refused");
    journal.update_metrics();
    let pinned = |topic: &str| harness.metrics.journal.pinned_bytes.with_label_values(&[topic]).get() as u64;
    assert!((3 * segment..=6 * segment).contains(&pinned(TOPICS[1])), "{} bytes, within max_backlog", pinned(TOPICS[1]));
    assert!(pinned(TOPICS[0]) < segment, "{} bytes", pinned(TOPICS[0]));
    // Once it flows, everything is as before.
    journal.save_cursor(TOPICS[1], journal.durable_watermark());
    while hand_over(&journal, &Sample { topic: 1, ..sample(2_000, 90) }.event()).is_err() {
        std::thread::yield_now();
    }
    journal.close();
}

#[test]
fn while_nothing_flows_a_topic_is_charged_with_its_own_bytes_only() {
    let segment = 32 << 10;
    let harness = Harness::with(|options| {
        options.limits.max_size = 12 * segment;
        options.limits.max_backlog = 6 * segment;
        options.forwards = true;
    });
    let journal = harness.open();
    let keep = |number: usize| try_hand_over(&journal, &Sample { topic: number % 2, ..sample(number, 3_000) });
    // Half of the bytes are each topic's: all of max_size can be used before anybody is refused.
    let (number, refused) = (0..).find_map(|number| Some((number, keep(number).err()?))).expect("it is full at last");
    assert_eq!(refused, AppendRejected::Full);
    assert!(number as u64 * 3_000 > 8 * segment, "{number} events");
    journal.close();
}
