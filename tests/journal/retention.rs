//! Tests of the retention of segments and keys.

use std::time::Duration;

use crate::disk::Step;
use crate::events::{Sample, TOPICS};
use crate::harness::*;

/// Only the background thread waits for the disk while it seals a segment. Admissions look up and add keys meanwhile.
#[test]
fn sealing_a_segment_delays_no_admission() {
    let harness = Harness::new();
    let journal = harness.open();
    let sealing = harness.disk.hold(Step::Sync, ".keys.tmp");
    let mut number = 0;
    wait_until("the background thread to seal a segment", || {
        store(&journal, &sample(number, 2_000));
        number += 1;
        sealing.has_waiting()
    });
    let sealed = number;
    store_many(&journal, sealed..sealed + 30, 2_000);
    for number in 0..sealed + 30 {
        assert_eq!(lookup(&journal, &key(number)), Some(number as u64));
    }
    assert_eq!(lookup(&journal, &key(sealed + 30)), None);
    assert!(harness.disk.names(SUMMARY_EXT).is_empty(), "the segment is not sealed yet");
    sealing.release();
    harness.disk.wait_for(|files| has_sealed(files, 2));
    journal.close();
}

#[test]
fn segments_expire_after_retain_and_keys_after_their_window() {
    let harness = Harness::with(|options| {
        options.limits.retain = Duration::from_secs(10);
        options.dedupe_window = Duration::from_secs(100);
    });
    let journal = harness.open();
    store_many(&journal, 0..30, 3_000);
    harness.disk.wait_for(|files| has_sealed(files, 2));
    harness.clock.advance(11_000);
    journal.save_cursor(TOPICS[1], 0, 0);
    let none = |extension: &'static str| move |files: &[String]| !files.iter().any(|name| name.ends_with(extension));
    harness.disk.wait_for(none(SUMMARY_EXT));
    assert!(journal.oldest_seq() > 0);
    assert_eq!(lookup(&journal, &key(0)), Some(0), "the key outlives its event");
    harness.clock.advance(100_000);
    journal.save_cursor(TOPICS[1], 0, 0);
    // Only files without keys remain, which replace the files that the newest segment lists.
    let has_keys = |file: &String| harness.disk.len(file).is_some_and(|len| len > 4096);
    wait_until("expired key files", || !harness.disk.names(".keys").iter().any(has_keys));
    wait_until("an expired key", || lookup(&journal, &key(0)).is_none());
    journal.close();
    assert_eq!(harness.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).get(), 0, "no key was evicted early");
}

#[test]
fn a_segment_stays_until_the_name_of_its_key_file_is_synced() {
    let harness = Harness::with(|options| options.limits.retain = Duration::ZERO);
    let journal = harness.open();
    let first = harness.disk.names(".seg").remove(0);
    let renamed = harness.disk.hold(Step::Rename, ".keys");
    let mut numbers = 0..;
    while harness.disk.names(".seg").len() < 2 {
        store(&journal, &sample(numbers.next().expect("the range is endless"), 2_000));
    }
    renamed.wait_for(1);
    // The first segment has expired, and only its key file prevents its release.
    harness.clock.advance(60_000);
    let synced = harness.disk.hold(Step::SyncDir, "");
    renamed.release();
    synced.wait_for(1);
    wait_until_idle(&journal);
    assert!(harness.disk.names(".seg").contains(&first), "a power cut would lose the name of the key file");
    synced.release();
    harness.disk.wait_for(|files| !files.contains(&first));
    assert_eq!(lookup(&journal, &key(0)), Some(0));
    journal.close();
}

#[test]
fn key_files_beyond_their_limit_are_evicted_and_counted() {
    let harness = Harness::with(|options| {
        options.limits.max_size = 200 << 10;
        options.max_key_bytes = 20_000;
    });
    let journal = harness.open();
    store_many(&journal, 0..300, 3_000);
    journal.close();
    let bytes: usize = harness.disk.names(".keys").iter().map(|name| harness.disk.bytes(name).len()).sum();
    assert!(bytes < 40_000, "{bytes} bytes of keys");
    assert!(harness.metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]).get() > 100);
    assert_eq!(lookup(&harness.open(), &key(299)), Some(299), "the newest keys are still known");
}

#[test]
fn the_newest_segment_with_a_commit_is_never_deleted() {
    let harness = Harness::with(|options| options.limits.retain = Duration::ZERO);
    let journal = harness.open();
    store_many(&journal, 0..3, 100);
    // The next segment exists, but no write to it reaches the disk. All older segments have expired.
    harness.clock.advance(60_000);
    let gate = harness.disk.hold(Step::Write, ".seg");
    let end = append(&journal, &sample(3, 100_000).event()).expect("accepted");
    gate.wait_for(1);
    harness.disk.wait_for(|files| has_sealed(files, 1));
    journal.save_cursor(TOPICS[1], 0, 0);
    harness.disk.kill();
    drop(gate);
    journal.close();
    assert!(end.recv().expect("a result").is_err());
    harness.disk.cut_power();
    let journal = harness.open();
    assert_eq!(journal.durable_watermark(), 3, "the sequence continues");
    journal.close();
}

#[test]
fn a_segment_is_truncated_before_it_is_deleted() {
    let harness = Harness::with(|options| options.limits.max_size = 4 * (32 << 10));
    let journal = harness.open();
    let first = harness.disk.names(".seg").remove(0);
    let gate = harness.disk.hold(Step::Truncate, ".seg");
    let ends: Vec<AppendResult> = (0..100).map(|n| append(&journal, &sample(n, 3_000).event()).expect("accepted")).collect();
    gate.wait_for(1);
    wait_until_idle(&journal);
    assert!(harness.disk.names(".seg").contains(&first), "the file may not become another segment yet");
    gate.release();
    for end in ends {
        end.recv().expect("a result").expect("stored");
    }
    journal.close();
}

/// Fills the journal while the background thread deletes segments. The writer then needs room, but must not delete segments
/// until the background thread has finished.
#[test]
fn only_one_thread_at_a_time_deletes_segments() {
    let harness =
        Harness::with(|options| (options.limits.max_size, options.limits.retain) = (8 * (32 << 10), Duration::from_secs(10)));
    let journal = harness.open();
    store_many(&journal, 0..30, 3_000);
    harness.disk.wait_for(|files| has_sealed(files, 3));
    // The gate stops the background thread while the thread deletes expired segments. The writer then needs room.
    let gate = harness.disk.hold(Step::Rename, ".spare");
    harness.clock.advance(11_000);
    journal.save_cursor(TOPICS[1], 0, 0);
    gate.wait_for(1);
    let oldest = journal.oldest_seq();
    let ends: Vec<AppendResult> = (30..200).map(|n| append(&journal, &sample(n, 3_000).event()).expect("accepted")).collect();
    wait_until_idle(&journal);
    assert_eq!(journal.oldest_seq(), oldest, "only one thread deletes at a time");
    gate.release();
    for end in ends {
        end.recv().expect("a result").expect("stored");
    }
    journal.close();
    assert!(harness.disk.names(".spare").len() <= 1, "{:?}", harness.disk.names(".spare"));
    let segments = harness.disk.names(".seg").into_iter().chain(harness.disk.names(".spare"));
    let bytes: usize = segments.map(|name| harness.disk.bytes(&name).len()).sum();
    assert!(bytes as u64 <= harness.options.limits.max_size, "{bytes} bytes");
}

#[test]
fn a_key_outlives_its_deleted_event() {
    let harness = Harness::with(|options| options.limits.max_size = 200 << 10);
    let journal = harness.open();
    store_many(&journal, 0..200, 3_000);
    let oldest = journal.oldest_seq();
    assert!(oldest > 100, "old segments are deleted: {oldest}");
    assert!(read(&journal)[0].position.seq >= oldest);
    assert!((0..200).all(|number| lookup(&journal, &key(number)) == Some(number as u64)), "before a restart");
    harness.kill(journal);
    harness.disk.cut_power();
    let journal = harness.open();
    assert!((0..200).all(|number| lookup(&journal, &key(number)) == Some(number as u64)), "after it");
    assert_eq!(lookup(&journal, &key(1_000)), None);
    journal.close();
}

#[test]
fn an_empty_key_file_is_deleted_with_its_segment() {
    let harness = Harness::with(|options| options.limits.retain = Duration::from_secs(10));
    let journal = harness.open();
    let renamed = harness.disk.hold(Step::Rename, ".keys");
    let mut numbers = 0..;
    while harness.disk.names(".seg").len() < 2 {
        store(&journal, &Sample { key: None, ..sample(numbers.next().expect("the range is endless"), 2_000) });
    }
    renamed.wait_for(1);
    // A second write of the key file would wait at this gate and stop the background thread.
    let _again = harness.disk.hold(Step::Create, ".keys.tmp");
    renamed.release();
    harness.disk.wait_for(|files| has_sealed(files, 1));
    harness.clock.advance(11_000);
    journal.save_cursor(TOPICS[1], 0, 0);
    harness.disk.wait_for(|files| !files.iter().any(|file| file.ends_with(SUMMARY_EXT) || file.ends_with(".keys")));
    journal.close();
}
