//! Tests of appends: completions, failures, and the frames that appends write.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::TryRecvError;

use hookhold::journal::{AppendError, AppendRejected};

use crate::disk::{SimDisk, Step, TornPages};
use crate::events::{Sample, TOPICS};
use crate::harness::*;

#[test]
fn an_append_completes_only_after_its_sync() {
    let harness = Harness::new();
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let first = append(&journal, &sample(0, 10).event()).expect("accepted");
    gate.wait_for(1);
    let others: Vec<AppendResult> = (1..20).map(|n| append(&journal, &sample(n, 10).event()).expect("accepted")).collect();
    assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
    assert!(others.iter().all(|end| end.try_recv() == Err(TryRecvError::Empty)));
    assert_eq!(journal.durable_watermark(), 0);
    assert!(read(&journal).is_empty(), "readers never pass the durable watermark");
    assert_eq!(harness.read_only().log_end().expect("a watermark"), 0);
    assert!(journal.operation_age().is_some());
    gate.release();
    assert_eq!(first.recv().expect("a result").expect("stored").seq, 0);
    let stored: Vec<u64> = others.iter().map(|end| end.recv().expect("a result").expect("stored").seq).collect();
    assert_eq!(stored, (1..20).collect::<Vec<_>>());
    assert_eq!(journal.durable_watermark(), 20);
    journal.close();
}

#[test]
fn a_finished_watcher_is_dropped_after_the_commit() {
    let harness = Harness::new();
    let journal = harness.open();
    let (always, once) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for (calls, continues) in [(always.clone(), true), (once.clone(), false)] {
        journal.on_commit(Box::new(move || {
            calls.fetch_add(1, Ordering::Relaxed);
            continues
        }));
    }
    store_many(&journal, 0..3, 100);
    assert_eq!((always.load(Ordering::Relaxed), once.load(Ordering::Relaxed)), (3, 1));
    assert_eq!((Arc::strong_count(&always), Arc::strong_count(&once)), (2, 1), "the captures of the finished watcher are freed");
    journal.close();
}

#[test]
fn a_failed_sync_fails_all_and_rejects_later_appends() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 10));
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let first = append(&journal, &sample(1, 10).event()).expect("accepted");
    gate.wait_for(1);
    // The segment has no room for all these events, so some events need the next segment.
    let others: Vec<AppendResult> = (2..30).map(|n| append(&journal, &sample(n, 3_000).event()).expect("accepted")).collect();
    gate.fail(io::ErrorKind::Other);
    assert_eq!(first.recv().expect("a result"), Err(AppendError::Sync));
    for end in &others {
        assert_eq!(end.recv().expect("completed, not dropped"), Err(AppendError::Sync));
    }
    assert!(journal.failed());
    assert_eq!(append(&journal, &sample(31, 10).event()).err(), Some(AppendRejected::Failed));
    assert_eq!(journal.durable_watermark(), 1);
    journal.close();
}

#[test]
fn a_failed_sync_fails_events_of_later_segments() {
    let harness = Harness::new();
    let journal = harness.open();
    let gate = harness.disk.hold(Step::Write, ".seg");
    let first = append(&journal, &sample(0, 10).event()).expect("accepted");
    gate.wait_for(1);
    // The writer takes all these events at once, and the events need several segments. The sync of the first commit with these
    // events fails.
    let others: Vec<AppendResult> = (1..60).map(|n| append(&journal, &sample(n, 3_000).event()).expect("accepted")).collect();
    let syncs = harness.disk.hold(Step::Sync, ".seg");
    gate.release();
    syncs.wait_for(1);
    let writes = harness.disk.hold(Step::Write, ".seg");
    syncs.release();
    assert!(first.recv().expect("a result").is_ok());
    writes.wait_for(1);
    harness.disk.fail(Step::Sync, ".seg", io::ErrorKind::Other, 1);
    writes.release();
    for end in &others {
        assert_eq!(end.recv().expect("completed, not dropped"), Err(AppendError::Sync));
    }
    journal.close();
}

#[test]
fn a_failed_write_continues_in_a_new_segment() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 10));
    harness.disk.fail(Step::Write, ".seg", io::ErrorKind::Other, 1);
    assert_eq!(try_store(&journal, &sample(1, 5_000)), Err(AppendError::Write));
    assert_eq!(lookup(&journal, &key(1)), None);
    assert_eq!(store(&journal, &sample(2, 10)).seq, 1, "the sequence was never used");
    assert!(!journal.failed());
    harness.kill(journal);
    harness.disk.cut_power();
    let journal = harness.open();
    let ids: Vec<_> = read(&journal).into_iter().map(|stored| stored.event.id().map(str::to_owned)).collect();
    assert_eq!(ids, [Some("id-0".to_owned()), Some("id-2".to_owned())]);
    assert_eq!(lookup(&journal, &key(1)), None, "a retry must be stored");
    journal.close();
}

/// A power cut during a write may leave any sector of this write old, new, mixed or as noise.
#[test]
fn a_torn_write_damages_no_acknowledged_event() {
    let mut torn = 0;
    for seed in 0..200 {
        let harness = Harness { disk: SimDisk::new(seed), ..Harness::stopped(|_| {}) };
        harness.disk.set_sectors(if seed % 2 == 0 { 512 } else { 4096 }, TornPages::Noise);
        let mut journal = harness.open_in_steps();
        let acknowledged: Vec<u64> = (0..1 + seed as usize % 4).map(|number| journal.store(&sample(number, 100)).seq).collect();
        drop(append(&journal.journal, &sample(9, 2_000).event()).expect("accepted"));
        // The next step of the writer is the write of the commit, and the one after it is its sync.
        harness.disk.die_after(2);
        journal.step_writer();
        assert!(harness.disk.is_dead());
        drop(journal);
        harness.disk.cut_power();
        let journal = harness.open_in_steps();
        let found = seqs(&journal.journal);
        assert!(found.starts_with(&acknowledged), "seed {seed}: {found:?} instead of {acknowledged:?}");
        assert_eq!(harness.metrics.journal.damaged.get(), 0, "seed {seed}: no acknowledged byte is damaged");
        torn += harness.disk.happened().iter().filter(|(fault, _)| fault.ends_with("page")).map(|(_, count)| count).sum::<u64>();
    }
    assert!(torn > 50, "{torn} pages");
}

#[test]
fn an_oversized_event_gets_a_segment_of_its_own() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 10));
    let large = sample(1, 300_000);
    store(&journal, &large);
    store(&journal, &sample(2, 10));
    let stored = read(&journal);
    assert_eq!(stored.iter().map(|stored| stored.position.seq).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(*stored[1].event.body(), large.body);
    assert_eq!(harness.disk.names(".seg").len(), 3, "one before the event, its own, one after it");
    harness.kill(journal);
    harness.disk.cut_power();
    assert_eq!(seqs(&harness.open()), [0, 1, 2]);
}

/// Tests the statement in `docs/journal.md` that another program can skip from commit to commit.
#[test]
fn every_commit_records_its_own_length() {
    let harness = Harness::with(|options| options.forwards = true);
    let journal = harness.open();
    store_many(&journal, 0..10, 100);
    harness.kill(journal);
    // After the next start, the journal contains a copy of the unconfirmed events, the new segment that every start creates,
    // and commits without events.
    let journal = harness.open();
    store_many(&journal, 10..20, 3_000);
    journal.save_cursor(TOPICS[0], 7, 1);
    journal.close();
    let mut commits = 0;
    for name in harness.disk.names(".seg") {
        let bytes = harness.disk.bytes(&name);
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes")) as usize;
        let frame_len = |at: usize| if at + 32 < bytes.len() { (number(at) as u32 as usize).next_multiple_of(8) } else { 0 };
        let (mut at, mut commit_end) = (4_096, 4_096);
        loop {
            if at == commit_end && frame_len(at) == 0 {
                // The rest of the page is padding.
                at = at.next_multiple_of(4_096);
                commit_end = at;
            }
            if frame_len(at) == 0 {
                break;
            }
            if bytes[at + 24] == 2 {
                assert_eq!(at, commit_end, "commit {commits} in {name}");
                commit_end = at + number(at + 40);
                commits += 1;
            }
            at += frame_len(at);
        }
        assert_eq!(at, commit_end, "the last commit in {name}");
    }
    assert!(commits > 8, "{commits} commits");
}

#[test]
fn every_field_of_an_event_survives_unchanged() {
    let harness = Harness::new();
    let journal = harness.open();
    let full = Sample {
        topic: 2,
        body: (0..=255).chain([0, 13, 10, 0xFF, 0xFE]).collect(),
        id: "an id".into(),
        key: Some([7; 16]),
        received_at: NOW + 17,
        headers: vec![
            ("x-type", b"order.paid".to_vec()),
            ("x-latin", vec![0x41, 0xE9, 0xFF, 0x80]),
            ("x-twice", b"one".to_vec()),
            ("x-twice", b"two".to_vec()),
            ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec()),
        ],
    };
    let bare = Sample { body: Vec::new(), id: String::new(), ..Sample::default() };
    let events = [full.event(), bare.event()];
    assert!(events[0].request().headers.iter().any(|(name, value)| name == "x-latin" && value == &[0x41, 0xE9, 0xFF, 0x80][..]));
    assert!(events[0].request().traceparent.is_some() && events[1].dedupe_key().is_none());
    for event in &events {
        append(&journal, event).expect("accepted").recv().expect("a result").expect("stored");
    }
    journal.close();
    let journal = harness.open();
    let stored = read(&journal);
    assert_eq!(stored.len(), 2);
    for (event, stored) in events.iter().zip(&stored) {
        assert_eq!(format!("{event:?}"), format!("{:?}", stored.event));
        assert_eq!(event.body(), stored.event.body());
    }
    journal.close();
}
