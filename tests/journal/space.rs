//! space.

use crate::disk::Step;
use crate::events::TOPICS;
use hookhold::journal::{AppendError, AppendRejected, OpenError};

use crate::harness::*;

#[test]
fn a_full_disk_refuses_until_there_is_space_again() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.disk.set_limit(harness.disk.used());
    let mut kept = 0;
    let refused = loop {
        match hand_over(&journal, &sample(kept, 5_000).event()).map(|end| end.recv().expect("told")) {
            Ok(Ok(_)) => kept += 1,
            end => break end,
        }
    };
    assert_eq!(refused, Ok(Err(AppendError::Full)));
    assert!(kept > 3, "the allocated segment could be used: {kept}");
    assert!(!journal.failed());
    harness.disk.set_limit(u64::MAX);
    // A moved cursor makes the keeper look round at once; it also does so every second.
    let end = loop {
        journal.save_cursor(TOPICS[1], 0);
        match hand_over(&journal, &sample(kept, 5_000).event()) {
            Err(refused) => assert_eq!(refused, AppendRejected::Full),
            Ok(end) => match end.recv().expect("told") {
                Err(error) => assert_eq!(error, AppendError::Full),
                Ok(position) => break position,
            },
        }
    };
    assert_eq!(end.seq, kept as u64);
    assert_eq!(seqs(&journal), (0..=kept as u64).collect::<Vec<_>>());
    journal.close();
}

/// `/readyz` is 503 while nothing can be kept; a balancer then sends nothing that could show the contrary.
#[test]
fn trouble_ends_without_traffic_once_there_is_room() {
    for full_disk in [false, true] {
        let harness = Harness::with(|options| (options.forwards, options.limits.max_size) = (true, 200 << 10));
        let journal = harness.open();
        if full_disk {
            harness.disk.set_limit(harness.disk.used());
        }
        let refused = (0..100).find_map(|n| try_hand_over(&journal, &sample(n, 5_000)).err());
        assert_eq!(refused, Some(AppendRejected::Full));
        assert!(journal.unavailable_reason().is_some());
        harness.disk.set_limit(u64::MAX);
        if !full_disk {
            journal.save_cursor(TOPICS[0], journal.durable_watermark());
        }
        while journal.unavailable_reason().is_some() {
            // The keeper looks round at once; it also does so every second.
            journal.save_cursor(TOPICS[1], 0);
            std::thread::yield_now();
        }
        keep(&journal, &sample(200, 5_000));
        journal.close();
    }
}

#[test]
fn an_event_too_large_for_what_is_left_does_not_stop_smaller_ones() {
    let harness = Harness::with(|options| (options.forwards, options.limits.max_size) = (true, 200 << 10));
    let journal = harness.open();
    keep(&journal, &sample(0, 100));
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let under_way = hand_over(&journal, &sample(1, 100).event()).expect("taken");
    gate.wait_for(1);
    // Both are taken for the same commit.
    let [large, small] =
        [(2, 300_000), (3, 100)].map(|(n, length)| hand_over(&journal, &sample(n, length).event()).expect("taken"));
    gate.release();
    assert!(under_way.recv().expect("told").is_ok());
    assert_eq!(large.recv().expect("told"), Err(AppendError::Full));
    assert_eq!(small.recv().expect("told").expect("kept").seq, 2);
    assert_eq!(journal.unavailable_reason(), None, "usual events can be kept");
    keep(&journal, &sample(4, 100));
    journal.close();
}

#[test]
fn a_missing_reserve_is_laid_in_as_soon_as_there_is_room() {
    let harness = Harness::new();
    harness.disk.set_limit(80 << 10);
    let journal = harness.open();
    assert!(harness.disk.names("reserve").is_empty(), "the first segment left no room for it");
    harness.disk.set_limit(u64::MAX);
    journal.save_cursor(TOPICS[1], 0);
    harness.disk.wait_for(|files| files.iter().any(|file| file == "reserve"));
    journal.close();
}

#[test]
fn a_tail_that_does_not_fit_uses_the_reserve_and_without_one_ends_the_start() {
    let harness = Harness::new();
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let ends: Vec<End> = (0..4).map(|n| hand_over(&journal, &sample(n, 5_000).event()).expect("taken")).collect();
    gate.wait_for(1);
    drop(gate);
    for end in ends {
        assert!(end.recv().expect("told").is_ok());
    }
    harness.kill(journal);
    let unsure = harness.outside().verify().expect("it can be read").unconfirmed;
    assert!(unsure > 0);
    harness.disk.set_limit(harness.disk.used());

    // The copy finds no room, takes the reserve's, and then there is none for the segment of this opening.
    let needed = match harness.try_open() {
        Err(OpenError::NoRoom { bytes }) => bytes,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    };
    assert!(needed > 0);
    assert!(harness.disk.names("reserve").is_empty(), "it was used");
    assert_eq!(harness.outside().verify().expect("it can be read").unconfirmed, 0, "the copy is done");

    // A small segment will do, though not a whole one.
    harness.disk.set_limit(harness.disk.used() + 80_000);
    let journal = harness.open();
    assert_eq!(seqs(&journal), [0, 1, 2, 3]);
    journal.close();
}

#[test]
fn key_files_are_written_from_the_reserve_when_the_disk_is_full() {
    let harness = Harness::new();
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Create, ".keys.tmp");
    let mut number = 0;
    while harness.disk.names(".seg").len() < 2 {
        keep(&journal, &sample(number, 2_000));
        number += 1;
    }
    gate.wait_for(1);
    harness.disk.set_limit(harness.disk.used());
    assert_eq!(harness.disk.names("reserve").len(), 1);
    gate.release();
    harness.disk.wait_for(|files| sealed(files, 1));
    journal.close();
    let journal = harness.open();
    assert!((0..number).all(|number| ask(&journal, &key(number)) == Some(number as u64)));
    journal.close();
}
