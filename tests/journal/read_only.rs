//! read_only.

use crate::events::{Sample, TOPICS};
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{Journal, ReadOnlyJournal};
use std::sync::Arc;

use crate::harness::*;

#[test]
fn a_tail_follows_while_another_process_writes() {
    let dir = tempfile::tempdir().expect("a directory");
    let harness = Harness::new();
    let disk = Arc::new(LocalDisk::create(dir.path()).expect("a disk"));
    let journal = Journal::open(disk, harness.options.clone(), harness.clock.clone(), harness.metrics.clone()).expect("it opens");
    let writer = std::thread::spawn({
        let journal = journal.clone();
        move || keep_many(&journal, 0..300, 1_000).len()
    });
    let mut tail = ReadOnlyJournal::open(Arc::new(LocalDisk::existing(dir.path()).expect("a disk"))).expect("no lock is needed");
    let mut seen = Vec::new();
    while seen.len() < 300 {
        match tail.next().expect("it can be read") {
            Some(stored) => seen.push(stored.position.seq),
            None => std::thread::yield_now(),
        }
        assert!(tail.log_end().expect("a mark") <= journal.durable_watermark() + 1);
    }
    assert_eq!(writer.join().expect("it ends"), 300);
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
    let verdict = ReadOnlyJournal::open(Arc::new(LocalDisk::existing(dir.path()).expect("a disk")))
        .and_then(|outside| outside.verify())
        .expect("it can be read");
    assert_eq!((verdict.events, verdict.damage.len()), (300, 0));
    journal.close();
}

#[test]
fn verify_finds_nothing_wrong_while_another_process_writes() {
    let harness = Harness::new();
    let journal = harness.open();
    let writer = std::thread::spawn({
        let journal = journal.clone();
        move || keep_many(&journal, 0..300, 1_000).len()
    });
    let mut looks = 0;
    while !writer.is_finished() || looks < 3 {
        let verdict = harness.outside().verify().expect("it can be read");
        assert!(verdict.damage.is_empty(), "{:?}", verdict.damage);
        looks += 1;
    }
    assert_eq!(writer.join().expect("it ends"), 300);
    journal.close();
}

#[test]
fn stat_tells_sizes_cursors_and_what_waits() {
    let harness = Harness::with(|options| options.forwards = true);
    let journal = harness.open();
    keep_many(&journal, 0..10, 100);
    journal.save_cursor(TOPICS[0], 4);
    journal.close();
    let stat = harness.outside().stat().expect("it can be read");
    assert_eq!((stat.events, stat.oldest, stat.next, stat.in_use), (10, 0, 10, false));
    let lane = &stat.topics[0];
    assert_eq!((&*lane.topic, lane.cursor, lane.waiting, lane.events), (TOPICS[0], Some(4), 6, 10));
}

#[test]
fn stat_reads_lane_files_and_tells_what_a_frame_by_frame_count_would() {
    let harness = Harness::with(|options| options.forwards = true);
    let journal = harness.open();
    for number in 0..300 {
        keep(&journal, &Sample { topic: number % 2, ..sample(number, 3_000) });
    }
    // One cursor stands in the middle of a segment.
    journal.save_cursor(TOPICS[0], 151);
    journal.save_cursor(TOPICS[1], 300);
    harness.disk.wait_for(|files| sealed(files, files.iter().filter(|name| name.ends_with(".seg")).count() - 1));
    journal.close();
    journal.update_metrics();
    let pinned = TOPICS.map(|topic| harness.metrics.journal.pinned_bytes.with_label_values(&[topic]).get() as u64);
    assert!(pinned[0] > 150 * 3_000, "its own, and what the other topic has passed in between");
    let (before, journal_bytes) =
        (harness.disk.bytes_read(), harness.outside().verify().map(|_| harness.disk.used()).expect("it can be read"));
    let (verified, stat) = (harness.disk.bytes_read(), harness.outside().stat().expect("it can be read"));
    assert!(verified - before > 300 * 3_000, "verify reads everything");
    assert!(harness.disk.bytes_read() - verified < journal_bytes / 5, "stat does not");
    let lane = |topic: &str| stat.topics.iter().find(|lane| &*lane.topic == topic).expect("it is listed");
    let (orders, invoices) = (lane(TOPICS[0]), lane(TOPICS[1]));
    assert_eq!((orders.events, orders.waiting, invoices.events, invoices.waiting), (150, 74, 150, 0));
    assert_eq!([orders.pinned, invoices.pinned], pinned[..2], "the same as the metric");
    assert_eq!((stat.events, stat.next), (300, 300));
}
