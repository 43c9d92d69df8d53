//! recycling.

use crate::disk::Step;
use hookhold::journal::{AppendError, Journal};
use std::io;

use crate::harness::*;

#[test]
fn a_spare_file_that_cannot_be_renamed_costs_nobody_a_503() {
    let harness = Harness::with(|options| options.limits.max_size = 5 * (32 << 10));
    let journal = harness.open();
    keep_many(&journal, 0..100, 1_500);
    let recycled = harness.disk.files_recycled();
    assert!(recycled > 0);
    harness.disk.fail(Step::Rename, ".seg", io::ErrorKind::Other, 3);
    keep_many(&journal, 100..200, 1_500);
    assert!(harness.disk.files_recycled() > recycled, "the next ones are used again");
    journal.close();
}

#[test]
fn the_file_of_a_deleted_segment_becomes_the_next_one() {
    let harness = Harness::with(|options| options.limits.max_size = 5 * (32 << 10));
    let journal = harness.open();
    keep_many(&journal, 0..200, 1500);
    assert!(harness.disk.files_recycled() > 3, "{} files", harness.disk.files_recycled());
    // What is deleted while it is read may be missing, and nothing else.
    let whole = |journal: &Journal| {
        let (found, oldest) = (seqs(journal), journal.oldest_seq());
        let kept: Vec<u64> = found.into_iter().filter(|seq| *seq >= oldest).collect();
        assert_eq!(kept, (oldest..200).collect::<Vec<_>>());
    };
    whole(&journal);
    let spare = harness.disk.names(".spare");
    harness.kill(journal);
    // What an earlier life left behind the newest commit is neither read nor called damage.
    let journal = harness.open();
    whole(&journal);
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    assert!(harness.disk.names(".spare").iter().all(|name| !spare.contains(name)), "a start begins without");
    keep(&journal, &sample(200, 1500));
}

#[test]
fn who_reads_a_segment_that_is_written_over_goes_on_behind_it() {
    // Longer than what a reader reads ahead.
    let harness = Harness::with(|options| (options.limits.segment_size, options.limits.max_size) = (1 << 20, 5 << 20));
    let journal = harness.open();
    keep_many(&journal, 0..60, 30_000);
    let (mut inside, mut outside) = (journal.reader(0), harness.outside());
    assert_eq!(inside.next().expect("it can be read").map(|stored| stored.position.seq), Some(0));
    assert_eq!(outside.next().expect("it can be read").map(|stored| stored.position.seq), Some(0));
    keep_many(&journal, 60..300, 30_000);
    assert!(harness.disk.files_recycled() > 3, "{} files", harness.disk.files_recycled());
    let inside: Vec<u64> = std::iter::from_fn(|| inside.next().expect("it can be read")).map(|s| s.position.seq).collect();
    let outside: Vec<u64> = std::iter::from_fn(|| outside.next().expect("it can be read")).map(|s| s.position.seq).collect();
    for rest in [inside, outside] {
        assert_eq!(rest[rest.len() - 50..], (250..300).collect::<Vec<_>>());
    }
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    assert_eq!(harness.outside().verify().expect("it can be read").damage, []);
}

#[test]
fn a_recycled_segment_that_could_not_be_begun_hides_nothing() {
    let harness = Harness::with(|options| (options.limits.segment_size, options.limits.max_size) = (64 << 10, 5 * (64 << 10)));
    let journal = harness.open();
    keep_many(&journal, 0..200, 1500);
    let recycled = harness.disk.files_recycled();
    let gate = harness.disk.hold(Step::Rename, ".seg");
    // While the writer waits at the gate, the background thread seals nothing. All older segments must be sealed by then, so
    // that the failures below hit the writer.
    let wait_until_older_are_sealed = || {
        let older = harness.disk.names(".seg").into_iter().rev().skip(1);
        older.for_each(|name| while harness.disk.len(&name) == Some(64 << 10) {});
    };
    wait_until_older_are_sealed();
    let (mut number, mut end) = (200, hand_over(&journal, &sample(200, 8_000).event()).expect("taken"));
    while !gate.has_waiting() {
        if end.try_recv().is_ok_and(|end| end.is_ok()) {
            number += 1;
            wait_until_older_are_sealed();
            end = hand_over(&journal, &sample(number, 8_000).event()).expect("taken");
        }
    }
    // The name of a new segment is there, but not surely, and cannot be taken back: the one before it goes on.
    harness.disk.fail(Step::SyncDir, "", io::ErrorKind::Other, 1);
    harness.disk.fail(Step::Remove, ".seg", io::ErrorKind::Other, 1);
    gate.release();
    assert_eq!(end.recv().expect("told"), Err(AppendError::Write));
    let last = keep(&journal, &sample(300, 10));
    assert_eq!((harness.disk.files_recycled(), last.seq), (recycled + 1, number as u64));
    harness.kill(journal);
    let journal = harness.open();
    assert_eq!(read(&journal).last().map(|stored| stored.position), Some(last));
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
}
