//! Tests of tail, verify and stat, which read a journal from another process.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{Journal, ReadOnlyJournal};

use crate::disk::Step;
use crate::events::{Sample, TOPICS};
use crate::harness::*;

#[test]
fn a_tail_follows_while_another_process_writes() {
    let dir = tempfile::tempdir().expect("a directory");
    let harness = Harness::new();
    let disk = Arc::new(LocalDisk::create(dir.path()).expect("a disk"));
    let journal =
        Journal::open(disk, harness.options.clone(), harness.clock.clone(), harness.metrics.clone()).expect("the journal opens");
    let writer = std::thread::spawn({
        let journal = journal.clone();
        move || store_many(&journal, 0..300, 1_000).len()
    });
    let mut tail =
        ReadOnlyJournal::open(Arc::new(LocalDisk::existing(dir.path()).expect("a disk"))).expect("reading needs no lock");
    let mut seen = Vec::new();
    wait_until("300 events", || {
        seen.extend(tail.next().expect("the journal can be read").map(|stored| stored.position.seq));
        assert!(tail.log_end().expect("a watermark") <= journal.durable_watermark() + 1);
        seen.len() == 300
    });
    assert_eq!(writer.join().expect("the writer does not panic"), 300);
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
    let report = ReadOnlyJournal::open(Arc::new(LocalDisk::existing(dir.path()).expect("a disk")))
        .and_then(|journal| journal.verify())
        .expect("the journal can be read");
    assert_eq!((report.events, report.damage.len()), (300, 0));
    journal.close();
}

/// A follower polls ten times a second. While no process has the journal open, each poll reads only the lock file.
#[test]
fn a_follower_of_a_stopped_journal_reads_no_segment() {
    let harness = Harness::with_sealed_segments();
    let mut tail = harness.read_only();
    let mut read = || -> Vec<u64> {
        let events = std::iter::from_fn(|| tail.next().expect("the journal can be read"));
        events.map(|stored| stored.position.seq).collect()
    };
    assert_eq!(read(), (0..60).collect::<Vec<_>>());
    let opened = Arc::new(Mutex::new(BTreeSet::new()));
    let files = opened.clone();
    harness.disk.observe(move |step, name| {
        if step == Step::Open || step == Step::Read {
            files.lock().expect("no panic").insert(name.to_owned());
        }
    });
    let before = harness.disk.bytes_read();
    for _ in 0..100 {
        assert!(read().is_empty());
    }
    assert_eq!(*opened.lock().expect("no panic"), BTreeSet::from(["lock".to_owned()]));
    assert!(harness.disk.bytes_read() - before <= 100 * 3 * 4096, "{} bytes", harness.disk.bytes_read() - before);

    // The follower notices a process that has opened the journal, even if that process has stopped or crashed since.
    let mut journal = harness.open_in_steps_on(harness.disk.second_process());
    journal.store(&sample(60, 100));
    journal.close();
    assert_eq!(read(), [60]);
    let mut journal = harness.open_in_steps_on(harness.disk.second_process());
    journal.store(&sample(61, 100));
    drop(journal);
    assert_eq!(read(), [61]);
}

#[test]
fn a_tail_without_a_published_watermark_returns_no_unsynced_event() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 100));
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let end = append(&journal, &sample(1, 100).event()).expect("accepted");
    gate.wait_for(1);
    // A failed write of the watermark leaves an invalid checksum.
    harness.disk.corrupt("lock", 16..20, |byte| !byte);
    let mut tail = harness.read_only();
    let mut read = || -> Vec<u64> {
        let events = std::iter::from_fn(|| tail.next().expect("the journal can be read"));
        events.map(|stored| stored.position.seq).collect()
    };
    assert_eq!(read(), [0], "the event 1 is written and not synced");
    gate.release();
    assert!(end.recv().expect("a result").is_ok());
    assert_eq!(read(), [1]);
    journal.close();
}

#[test]
fn verify_reports_no_damage_while_another_process_writes() {
    let harness = Harness::new();
    let journal = harness.open();
    let writer = std::thread::spawn({
        let journal = journal.clone();
        move || store_many(&journal, 0..300, 1_000).len()
    });
    let mut checks = 0;
    wait_until("the writer", || {
        let report = harness.read_only().verify().expect("the journal can be read");
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        checks += 1;
        writer.is_finished() && checks >= 3
    });
    assert_eq!(writer.join().expect("the writer does not panic"), 300);
    journal.close();
}

#[test]
fn stat_reports_sizes_cursors_and_waiting_events() {
    let harness = Harness::with(|options| options.forwards = true);
    let journal = harness.open();
    store_many(&journal, 0..10, 100);
    journal.save_cursor(TOPICS[0], 4, 1);
    journal.close();
    let stat = harness.read_only().stat().expect("the journal can be read");
    assert_eq!((stat.events, stat.oldest, stat.next, stat.in_use), (10, 0, 10, false));
    let topic = &stat.topics[0];
    assert_eq!((&*topic.topic, topic.cursor, topic.waiting, topic.events), (TOPICS[0], Some(4), 6, 10));
}

#[test]
fn stat_from_summary_files_equals_a_count_of_frames() {
    let harness = Harness::with(|options| (options.forwards, options.limits.segment_size) = (true, 128 << 10));
    let journal = harness.open();
    for number in 0..300 {
        store(&journal, &Sample { topic: number % 2, ..sample(number, 3_000) });
    }
    // One cursor points into the middle of a segment.
    journal.save_cursor(TOPICS[0], 151, 1);
    journal.save_cursor(TOPICS[1], 300, 1);
    harness.disk.wait_for(|files| has_sealed(files, files.iter().filter(|name| name.ends_with(".seg")).count() - 1));
    journal.close();
    journal.update_metrics();
    let pinned = TOPICS.map(|topic| harness.metrics.journal.pinned_bytes.with_label_values(&[topic]).get() as u64);
    assert!((74 * 3_000..90 * 3_000).contains(&pinned[0]), "{} bytes, only its own events", pinned[0]);
    let (before, journal_bytes) =
        (harness.disk.bytes_read(), harness.read_only().verify().map(|_| harness.disk.used()).expect("the journal can be read"));
    let (verified, stat) = (harness.disk.bytes_read(), harness.read_only().stat().expect("the journal can be read"));
    assert!(verified - before > 300 * 3_000, "verify reads everything");
    assert!(harness.disk.bytes_read() - verified < journal_bytes / 5, "stat reads only a small part");
    let topic = |name: &str| stat.topics.iter().find(|topic| &*topic.topic == name).expect("stat lists the topic");
    let (orders, invoices) = (topic(TOPICS[0]), topic(TOPICS[1]));
    assert_eq!((orders.events, orders.waiting, invoices.events, invoices.waiting), (150, 74, 150, 0));
    assert_eq!([orders.pinned, invoices.pinned], pinned[..2], "stat and metric agree");
    assert_eq!((stat.events, stat.next), (300, 300));
}
