//! Tests of batches: the journal stores all events of a delivery in one commit or none of them.

use std::io;
use std::sync::mpsc::channel;

use hookhold::event::{Event, Position};
use hookhold::journal::{AppendError, AppendRejected, Journal};

use crate::disk::Step;
use crate::harness::*;

#[test]
fn a_batch_has_consecutive_sequences_in_one_commit() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 10));
    let commits = harness.metrics.journal.batch_events.get_sample_count();
    let first = append_batch(&journal, 1..6, 100).expect("accepted").recv().expect("a result").expect("stored");
    assert_eq!(first.seq, 1);
    assert_eq!(harness.metrics.journal.batch_events.get_sample_count(), commits + 1);
    assert_eq!(store(&journal, &sample(6, 10)).seq, 6);
    assert_eq!(ids(&journal), (0..7).collect::<Vec<_>>());
    for number in 0..7 {
        assert_eq!(lookup(&journal, &key(number)), Some(number as u64));
    }
    assert_eq!(journal.count("orders", 0, 7), 7);
    journal.close();
    assert_eq!(ids(&harness.open()), (0..7).collect::<Vec<_>>());
}

#[test]
fn a_batch_never_crosses_two_segments() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 10_000));
    // The batch does not fit into the rest of the first segment, and not into a segment of the usual size.
    let first = append_batch(&journal, 1..21, 4_000).expect("accepted").recv().expect("a result").expect("stored");
    assert_eq!(first.seq, 1);
    let holds = |name: &String, number: usize| {
        let body = sample(number, 4_000).body;
        harness.disk.bytes(name).windows(body.len()).any(|window| window == body)
    };
    let segments = harness.disk.names(".seg");
    let home = segments.iter().find(|name| holds(name, 1)).expect("a segment contains the first item");
    assert!((1..21).all(|number| holds(home, number)), "the batch is in one segment");
    harness.kill(journal);
    harness.disk.cut_power();
    assert_eq!(ids(&harness.open()), (0..21).collect::<Vec<_>>());
}

#[test]
fn a_failed_write_stores_no_event_of_a_batch() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.disk.fail(Step::Write, ".seg", io::ErrorKind::Other, 1);
    assert_eq!(append_batch(&journal, 0..5, 3_000).expect("accepted").recv().expect("a result"), Err(AppendError::Write));
    assert!((0..5).all(|number| lookup(&journal, &key(number)).is_none()));
    assert_eq!(append_batch(&journal, 0..5, 3_000).expect("accepted").recv().expect("a result").map(|first| first.seq), Ok(0));
    harness.kill(journal);
    assert_eq!(ids(&harness.open()), [0, 1, 2, 3, 4]);
}

/// Damages one frame of an unsynced commit at a time, as a lost page does. The commit contains a single event and a batch.
#[test]
fn recovery_restores_an_unsynced_batch_completely_or_not() {
    for damaged in 0..6 {
        let harness = Harness::new();
        let journal = harness.open();
        let gate = harness.disk.hold(Step::Sync, ".seg");
        let before = append(&journal, &sample(9, 10).event()).expect("accepted");
        gate.wait_for(1);
        let single = append(&journal, &sample(0, 600).event()).expect("accepted");
        let batch = append_batch(&journal, 1..5, 600).expect("accepted");
        let next = harness.disk.hold(Step::Write, ".seg");
        gate.release();
        next.wait_for(1);
        let unsynced = harness.disk.hold(Step::Sync, ".seg");
        next.release();
        unsynced.wait_for(1);
        assert!(before.recv().expect("a result").is_ok());
        harness.disk.kill();
        unsynced.release();
        journal.close();
        assert!(single.recv().is_ok_and(|end| end.is_err()) && batch.recv().is_ok_and(|end| end.is_err()));
        if damaged < 5 {
            damage_frame_of(&harness, damaged);
        }
        let expected: &[usize] = match damaged {
            0 => &[9],
            1..5 => &[9, 0],
            _ => &[9, 0, 1, 2, 3, 4],
        };
        let journal = harness.open();
        assert_eq!(ids(&journal), expected, "with damage in the frame of event {damaged}");
        for number in 0..5 {
            assert_eq!(lookup(&journal, &key(number)).is_some(), expected.contains(&number), "event {number}");
        }
        append_batch(&journal, 11..13, 10).expect("accepted").recv().expect("a result").expect("stored");
        journal.close();
        assert_eq!(ids(&harness.open()), [expected, &[11, 12]].concat(), "the sequences of the lost events are free");
    }
}

#[test]
fn a_batch_that_can_never_fit_is_rejected() {
    let most = 256 << 10;
    let harness = Harness::with(|options| {
        options.limits.segment_size = 64 << 10;
        options.limits.max_size = most + (64 << 10);
        options.limits.max_backlog = most;
    });
    let journal = harness.open();
    assert_eq!(append_batch(&journal, 0..60, 4_096).err(), Some(AppendRejected::BatchTooLarge));
    assert!(append_batch(&journal, 0..30, 4_096).expect("accepted").recv().expect("a result").is_ok());
    assert_eq!(ids(&journal), (0..30).collect::<Vec<_>>(), "nothing of the rejected batch is stored");
    journal.close();
}

fn damage_frame_of(harness: &Harness, number: usize) {
    let body = sample(number, 600).body;
    let name = &harness.disk.names(".seg")[0];
    let at = harness.disk.bytes(name).windows(body.len()).position(|window| window == body).expect("the commit was written");
    harness.disk.corrupt(name, at..at + body.len(), |_| 0);
}

fn append_batch(journal: &Journal, numbers: std::ops::Range<usize>, length: usize) -> Result<AppendResult, AppendRejected> {
    let events: Vec<Event> = numbers.map(|number| sample(number, length).event()).collect();
    let (sender, result) = channel::<Result<Position, AppendError>>();
    journal.append_batch(&events[0], &events[1..], Box::new(move |end| sender.send(end).unwrap_or(())))?;
    Ok(AppendResult(result))
}

/// Returns the numbers of all stored events, in the order of their sequences.
fn ids(journal: &Journal) -> Vec<usize> {
    let number = |id: &str| id.strip_prefix("id-").and_then(|number| number.parse().ok());
    read(journal).iter().map(|stored| stored.event.id().and_then(number).expect("a sample")).collect()
}
