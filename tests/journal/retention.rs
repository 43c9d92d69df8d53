//! retention.

use crate::disk::Step;
use crate::events::{Sample, TOPICS};
use std::time::Duration;

use crate::harness::*;

#[test]
fn what_is_older_than_retain_is_deleted_and_keys_leave_with_their_window() {
    let harness = Harness::with(|options| {
        options.limits.retain = Duration::from_secs(10);
        options.dedupe_window = Duration::from_secs(100);
    });
    let journal = harness.open();
    keep_many(&journal, 0..30, 3_000);
    harness.disk.wait_for(|files| sealed(files, 2));
    harness.clock.advance(11_000);
    journal.save_cursor(TOPICS[1], 0);
    let is = |ending: &'static str, wanted: usize| {
        move |files: &[String]| files.iter().filter(|name| name.ends_with(ending)).count() <= wanted
    };
    harness.disk.wait_for(is(".lanes", 0));
    assert!(journal.oldest_seq() > 0);
    assert_eq!(ask(&journal, &key(0)), Some(0), "its key stays");
    harness.clock.advance(100_000);
    journal.save_cursor(TOPICS[1], 0);
    harness.disk.wait_for(is(".keys", 0));
    while ask(&journal, &key(0)).is_some() {
        std::thread::yield_now();
    }
    journal.close();
    assert_eq!(harness.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).get(), 0, "nothing went early");
}

#[test]
fn key_files_beyond_their_limit_go_early_and_are_counted() {
    let harness = Harness::with(|options| {
        options.limits.max_size = 200 << 10;
        options.max_key_bytes = 1_000;
    });
    let journal = harness.open();
    keep_many(&journal, 0..300, 3_000);
    journal.close();
    let kept: usize = harness.disk.names(".keys").iter().map(|name| harness.disk.bytes(name).len()).sum();
    assert!(kept < 3_000, "{kept} bytes of keys");
    assert!(harness.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).get() > 100);
    assert_eq!(ask(&harness.open(), &key(299)), Some(299), "the newest are still known");
}

#[test]
fn the_newest_segment_with_a_commit_is_never_released() {
    let harness = Harness::with(|options| options.limits.retain = Duration::ZERO);
    let journal = harness.open();
    keep_many(&journal, 0..3, 100);
    // The next segment exists, but nothing of it reaches the disk; everything older is over its time.
    harness.clock.advance(60_000);
    let gate = harness.disk.hold(Step::Write, ".seg");
    let end = hand_over(&journal, &sample(3, 100_000).event()).expect("taken");
    gate.wait_for(1);
    harness.disk.wait_for(|files| sealed(files, 1));
    journal.save_cursor(TOPICS[1], 0);
    harness.disk.kill();
    drop(gate);
    journal.close();
    assert!(end.recv().expect("told").is_err());
    harness.disk.cut_power();
    let journal = harness.open();
    assert_eq!(journal.durable_watermark(), 3, "the sequence goes on");
    journal.close();
}

#[test]
fn a_segment_is_not_deleted_before_its_end_is_cut_off() {
    let harness = Harness::with(|options| options.limits.max_size = 4 * (32 << 10));
    let journal = harness.open();
    let first = harness.disk.names(".seg").remove(0);
    let gate = harness.disk.hold(Step::Truncate, ".seg");
    let ends: Vec<End> = (0..100).map(|n| hand_over(&journal, &sample(n, 3_000).event()).expect("taken")).collect();
    gate.wait_for(1);
    come_to_rest(&journal);
    assert!(harness.disk.names(".seg").contains(&first), "its file may not become another segment yet");
    gate.release();
    for end in ends {
        end.recv().expect("told").expect("kept");
    }
    journal.close();
}

/// Writer and keeper both delete segments, at any moment.
#[test]
fn while_one_thread_lays_a_file_aside_the_other_takes_no_segment() {
    let harness =
        Harness::with(|options| (options.limits.max_size, options.limits.retain) = (8 * (32 << 10), Duration::from_secs(10)));
    let journal = harness.open();
    keep_many(&journal, 0..30, 3_000);
    harness.disk.wait_for(|files| sealed(files, 3));
    // The keeper deletes what is too old, and is stopped in the middle of it; then the writer needs room.
    let gate = harness.disk.hold(Step::Rename, ".spare");
    harness.clock.advance(11_000);
    journal.save_cursor(TOPICS[1], 0);
    gate.wait_for(1);
    let oldest = journal.oldest_seq();
    let ends: Vec<End> = (30..200).map(|n| hand_over(&journal, &sample(n, 3_000).event()).expect("taken")).collect();
    come_to_rest(&journal);
    assert_eq!(journal.oldest_seq(), oldest, "one deletes at a time");
    gate.release();
    for end in ends {
        end.recv().expect("told").expect("kept");
    }
    journal.close();
    assert!(harness.disk.names(".spare").len() <= 1, "{:?}", harness.disk.names(".spare"));
    let segments = harness.disk.names(".seg").into_iter().chain(harness.disk.names(".spare"));
    let bytes: usize = segments.map(|name| harness.disk.bytes(&name).len()).sum();
    assert!(bytes as u64 <= harness.options.limits.max_size, "{bytes} bytes");
}

#[test]
fn an_id_is_seen_although_its_payload_has_been_deleted() {
    let harness = Harness::with(|options| options.limits.max_size = 200 << 10);
    let journal = harness.open();
    keep_many(&journal, 0..200, 3_000);
    let oldest = journal.oldest_seq();
    assert!(oldest > 100, "old segments are deleted: {oldest}");
    assert!(read(&journal)[0].position.seq >= oldest);
    assert!((0..200).all(|number| ask(&journal, &key(number)) == Some(number as u64)), "before a restart");
    harness.kill(journal);
    harness.disk.cut_power();
    let journal = harness.open();
    assert!((0..200).all(|number| ask(&journal, &key(number)) == Some(number as u64)), "after it");
    assert_eq!(ask(&journal, &key(1_000)), None);
    journal.close();
}

#[test]
fn the_key_file_of_a_segment_without_keys_is_written_once_and_goes_with_it() {
    let harness = Harness::with(|options| options.limits.retain = Duration::from_secs(10));
    let journal = harness.open();
    let renamed = harness.disk.hold(Step::Rename, ".keys");
    let mut numbers = 0..;
    while harness.disk.names(".seg").len() < 2 {
        keep(&journal, &Sample { key: None, ..sample(numbers.next().expect("there are many"), 2_000) });
    }
    renamed.wait_for(1);
    // A second time would wait here for ever, and the keeper with it.
    let _again = harness.disk.hold(Step::Create, ".keys.tmp");
    renamed.release();
    harness.disk.wait_for(|files| sealed(files, 1));
    harness.clock.advance(11_000);
    journal.save_cursor(TOPICS[1], 0);
    harness.disk.wait_for(|files| !files.iter().any(|file| file.ends_with(".lanes") || file.ends_with(".keys")));
    journal.close();
}
