//! Tests of full disks, full journals, and the reserve.

use std::io;
use std::time::Duration;

use hookhold::journal::{AppendError, AppendRejected, OpenError};

use crate::disk::Step;
use crate::events::TOPICS;
use crate::harness::*;

#[test]
fn a_full_disk_rejects_events_until_space_returns() {
    let harness = Harness::with(|options| options.limits.segment_size = 64 << 10);
    let journal = harness.open();
    harness.disk.set_limit(harness.disk.used());
    let mut stored = 0;
    let rejected = loop {
        match append(&journal, &sample(stored, 5_000).event()).map(|end| end.recv().expect("a result")) {
            Ok(Ok(_)) => stored += 1,
            end => break end,
        }
    };
    assert_eq!(rejected, Ok(Err(AppendError::Full)));
    assert!(stored > 3, "{stored} events were stored in the preallocated segment");
    assert!(!journal.failed());
    harness.disk.set_limit(u64::MAX);
    // `save_cursor` wakes the background thread at once. Otherwise, the thread checks for space every second.
    let end = loop {
        journal.save_cursor(TOPICS[1], 0, 0);
        match append(&journal, &sample(stored, 5_000).event()) {
            Err(rejected) => assert_eq!(rejected, AppendRejected::Full),
            Ok(end) => match end.recv().expect("a result") {
                Err(error) => assert_eq!(error, AppendError::Full),
                Ok(position) => break position,
            },
        }
    };
    assert_eq!(end.seq, stored as u64);
    assert_eq!(seqs(&journal), (0..=stored as u64).collect::<Vec<_>>());
    journal.close();
}

/// Frees space while no event arrives. An unavailable journal makes `/readyz` return 503, so a load balancer sends no
/// deliveries, and no append makes the writer try again. The background thread must therefore detect the free space.
#[test]
fn availability_returns_without_traffic_once_space_is_free() {
    let harness = Harness::with(|options| (options.forwards, options.limits.max_size) = (true, 2 << 20));
    let journal = harness.open();
    harness.disk.set_limit(harness.disk.used());
    let rejected = (0..100).find_map(|n| store_or_reject(&journal, &sample(n, 5_000)).err());
    assert_eq!(rejected, Some(AppendRejected::Full));
    assert!(journal.unavailable_reason(Duration::MAX).is_some());
    harness.disk.set_limit(u64::MAX);
    wait_until("an available journal", || {
        // `save_cursor` wakes the background thread at once. Otherwise, the thread checks for space every second.
        journal.save_cursor(TOPICS[1], 0, 0);
        journal.unavailable_reason(Duration::MAX).is_none()
    });
    store(&journal, &sample(200, 5_000));
    journal.close();
}

/// A message about missing space would lead the operator to a wrong place.
#[test]
fn a_read_only_file_system_is_not_called_a_full_disk() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.disk.fail(Step::Create, ".seg", io::ErrorKind::ReadOnlyFilesystem, 1_000);
    harness.disk.fail(Step::Create, ".spare", io::ErrorKind::ReadOnlyFilesystem, 1_000);
    let error = (0..100).find_map(|number| try_store(&journal, &sample(number, 5_000)).err());
    assert_eq!(error, Some(AppendError::Write));
    let reason = journal.unavailable_reason(Duration::MAX).expect("a reason");
    assert!(reason.contains("check the disk") && !reason.contains("space"), "{reason}");
    harness.disk.clear_faults();
    wait_until("an available journal", || {
        journal.save_cursor(TOPICS[1], 0, 0);
        journal.unavailable_reason(Duration::MAX).is_none()
    });
    store(&journal, &sample(200, 5_000));
    journal.close();
}

#[test]
fn an_event_too_large_does_not_stop_smaller_ones() {
    let harness = Harness::with(|options| options.limits.max_size = 200 << 10);
    let journal = harness.open();
    store(&journal, &sample(0, 100));
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let in_flight = append(&journal, &sample(1, 100).event()).expect("accepted");
    gate.wait_for(1);
    // The writer takes both events for the same commit.
    let [large, small] =
        [(2, 300_000), (3, 100)].map(|(n, length)| append(&journal, &sample(n, length).event()).expect("accepted"));
    gate.release();
    assert!(in_flight.recv().expect("a result").is_ok());
    assert_eq!(large.recv().expect("a result"), Err(AppendError::Full));
    assert_eq!(small.recv().expect("a result").expect("stored").seq, 2);
    assert_eq!(journal.unavailable_reason(Duration::MAX), None, "events of the usual size can be stored");
    store(&journal, &sample(4, 100));
    journal.close();
}

#[test]
fn a_missing_reserve_is_preallocated_once_space_is_free() {
    let harness = Harness::new();
    harness.disk.set_limit(48 << 10);
    let journal = harness.open();
    assert!(harness.disk.names("reserve").is_empty(), "the first segment left no room for the reserve");
    harness.disk.set_limit(u64::MAX);
    journal.save_cursor(TOPICS[1], 0, 0);
    harness.disk.wait_for(|files| files.iter().any(|file| file == "reserve"));
    journal.close();
}

/// Returns a harness with a killed journal whose last seven events, 35 KB, are unconfirmed.
fn with_unconfirmed_events() -> Harness {
    let harness = Harness::with(|options| options.limits.segment_size = 64 << 10);
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let append = |number| append(&journal, &sample(number, 5_000).event()).expect("accepted");
    let first = append(0);
    gate.wait_for(1);
    // The next commit contains all of these events.
    let others: Vec<AppendResult> = (1..8).map(append).collect();
    drop(gate);
    for end in std::iter::once(first).chain(others) {
        assert!(end.recv().expect("a result").is_ok());
    }
    harness.kill(journal);
    // Without the published watermark, only the next commit would show that these events are on disk.
    harness.disk.corrupt("lock", 0..24, |_| 0);
    let unconfirmed = harness.read_only().verify().expect("the journal can be read").unconfirmed;
    assert_eq!(unconfirmed, 7);
    harness
}

#[test]
fn recovery_uses_the_reserve_on_a_full_disk() {
    let harness = with_unconfirmed_events();
    harness.disk.set_limit(harness.disk.used() - 12_288);

    // The copy of the unconfirmed events uses the space of the reserve. The disk then has no room for the new segment that
    // every start creates.
    let needed = match harness.try_open() {
        Err(OpenError::NoRoom { bytes }) => bytes,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the journal opened"),
    };
    assert!(needed > 0);
    assert!(harness.disk.names("reserve").is_empty(), "the reserve was used");
    assert_eq!(harness.read_only().verify().expect("the journal can be read").unconfirmed, 0, "the copy is done");

    // The disk has room for the new segment, but not for the new segment and the reserve.
    harness.disk.set_limit(harness.disk.used() + 80_000);
    let journal = harness.open();
    assert_eq!(seqs(&journal), (0..8).collect::<Vec<_>>());
    journal.close();
}

#[test]
fn a_startup_without_room_for_its_copy_changes_nothing() {
    let harness = with_unconfirmed_events();
    // An earlier version or a smaller `segment_size` may leave a reserve that is too small for the copy.
    harness.disk.put_file("reserve", &[0; 16 << 10]);
    harness.disk.set_limit(harness.disk.used());
    let files = || harness.disk.names("").into_iter().map(|name| (harness.disk.bytes(&name), name)).collect::<Vec<_>>();
    let before = files();
    for attempt in 1..=2 {
        let Err(OpenError::NoRoom { bytes }) = harness.try_open() else { panic!("the disk has no room for the copy") };
        assert!(bytes > 16 << 10, "{bytes} bytes");
        assert!(files() == before, "attempt {attempt} leaves {:?}", harness.disk.names(""));
    }
    harness.disk.set_limit(u64::MAX);
    let journal = harness.open();
    assert_eq!(seqs(&journal), (0..8).collect::<Vec<_>>());
    journal.close();
}

#[test]
fn key_files_use_the_reserve_on_a_full_disk() {
    let harness = Harness::new();
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Create, ".keys.tmp");
    let mut number = 0;
    while harness.disk.names(".seg").len() < 2 {
        store(&journal, &sample(number, 2_000));
        number += 1;
    }
    gate.wait_for(1);
    harness.disk.set_limit(harness.disk.used());
    assert_eq!(harness.disk.names("reserve").len(), 1);
    gate.release();
    harness.disk.wait_for(|files| has_sealed(files, 1));
    journal.close();
    let journal = harness.open();
    assert!((0..number).all(|number| lookup(&journal, &key(number)) == Some(number as u64)));
    journal.close();
}
