//! Tests of recycling, which turns files of deleted segments into new segments.

use std::io;

use hookhold::event::Position;
use hookhold::journal::{AppendError, Journal};

use crate::disk::{SimDisk, Step};
use crate::harness::*;
use crate::stepped::SteppedJournal;

#[test]
fn a_spare_that_cannot_be_renamed_rejects_no_event() {
    let harness = Harness::with(|options| options.limits.max_size = 5 * (32 << 10));
    let journal = harness.open();
    store_many(&journal, 0..100, 1_500);
    let recycled = harness.disk.files_recycled();
    assert!(recycled > 0);
    harness.disk.fail(Step::Rename, ".seg", io::ErrorKind::Other, 3);
    store_many(&journal, 100..200, 1_500);
    assert!(harness.disk.files_recycled() > recycled, "later spare files become segments again");
    journal.close();
}

#[test]
fn a_deleted_segments_file_becomes_the_next_segment() {
    let harness = Harness::with(|options| options.limits.max_size = 5 * (32 << 10));
    let journal = harness.open();
    store_many(&journal, 0..200, 1500);
    assert!(harness.disk.files_recycled() > 3, "{} files", harness.disk.files_recycled());
    // Only events that the journal deletes during the read may be missing.
    let whole = |journal: &Journal| {
        let (found, oldest) = (seqs(journal), journal.oldest_seq());
        let current: Vec<u64> = found.into_iter().filter(|seq| *seq >= oldest).collect();
        assert_eq!(current, (oldest..200).collect::<Vec<_>>());
    };
    whole(&journal);
    let spare = harness.disk.names(".spare");
    harness.kill(journal);
    // A recycled file contains old frames after the newest commit. The journal must neither read these frames nor report them
    // as damage.
    let journal = harness.open();
    whole(&journal);
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    assert!(harness.disk.names(".spare").iter().all(|name| !spare.contains(name)), "a start deletes the spare file");
    store(&journal, &sample(200, 1500));
}

#[test]
fn a_reader_skips_a_recycled_segment() {
    // Each segment is larger than the range that a reader reads ahead.
    let harness = Harness::with(|options| (options.limits.segment_size, options.limits.max_size) = (1 << 20, 5 << 20));
    let journal = harness.open();
    store_many(&journal, 0..60, 30_000);
    let (mut reader, mut read_only) = (journal.reader(0), harness.read_only());
    assert_eq!(reader.next().expect("the journal can be read").map(|stored| stored.position.seq), Some(0));
    assert_eq!(read_only.next().expect("the journal can be read").map(|stored| stored.position.seq), Some(0));
    store_many(&journal, 60..300, 30_000);
    assert!(harness.disk.files_recycled() > 3, "{} files", harness.disk.files_recycled());
    let read: Vec<u64> = std::iter::from_fn(|| reader.next().expect("the journal can be read")).map(|s| s.position.seq).collect();
    let read_only: Vec<u64> =
        std::iter::from_fn(|| read_only.next().expect("the journal can be read")).map(|s| s.position.seq).collect();
    for rest in [read, read_only] {
        assert_eq!(rest[rest.len() - 50..], (250..300).collect::<Vec<_>>());
    }
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    assert_eq!(harness.read_only().verify().expect("the journal can be read").damage, []);
}

#[test]
fn a_recycled_segment_that_fails_to_start_hides_nothing() {
    let harness = Harness::with(|options| (options.limits.segment_size, options.limits.max_size) = (64 << 10, 5 * (64 << 10)));
    let journal = harness.open();
    // Every event fills its page, so the background thread does not rewrite a segment, and the gate holds only the writer.
    store_many(&journal, 0..200, 3_300);
    let recycled = harness.disk.files_recycled();
    let gate = harness.disk.hold(Step::Rename, ".seg");
    // The failures below must hit the writer and not the background thread, so the background thread must seal all older
    // segments before the failures occur. While the writer waits at the gate, the background thread seals no segment. The test
    // therefore waits for the seals before each append.
    let wait_until_older_are_sealed = || {
        let older = harness.disk.names(".seg").into_iter().rev().skip(1);
        older.for_each(|name| wait_until("a sealed segment", || harness.disk.len(&name) != Some(64 << 10)));
    };
    wait_until_older_are_sealed();
    let (mut number, mut end) = (200, append(&journal, &sample(200, 7_400).event()).expect("accepted"));
    wait_until("a step at the gate", || {
        if end.try_recv().is_ok_and(|end| end.is_ok()) {
            number += 1;
            wait_until_older_are_sealed();
            end = append(&journal, &sample(number, 7_400).event()).expect("accepted");
        }
        gate.has_waiting()
    });
    // The sync of the directory fails, so the name of the new segment is possibly not durable.
    harness.disk.fail(Step::SyncDir, "", io::ErrorKind::Other, 1);
    gate.release();
    assert_eq!(end.recv().expect("a result"), Err(AppendError::Sync));
    assert!(journal.failed());
    assert_eq!(harness.disk.files_recycled(), recycled + 1);
    harness.kill(journal);
    let journal = harness.open();
    let last = read(&journal).last().map(|stored| stored.position.seq);
    assert_eq!(last, Some(number as u64 - 1), "the segment without a commit supersedes no event");
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
}

/// Returns a journal with a spare file of a deleted segment, and the number of its events.
fn with_spare(harness: &Harness) -> (SteppedJournal, usize) {
    let (mut journal, mut number) = (harness.open_in_steps(), 0);
    while harness.disk.names(".spare").iter().all(|name| !name.contains('-')) {
        journal.store(&sample(number, 3_300));
        journal.run();
        number += 1;
    }
    (journal, number)
}

fn small() -> Harness {
    Harness::stopped(|options| (options.limits.segment_size, options.limits.max_size) = (64 << 10, 5 * (64 << 10)))
}

/// Appends events until the writer starts another segment. Returns the result of the last append.
fn start_segment(harness: &Harness, journal: &mut SteppedJournal, number: usize) -> Result<Position, AppendError> {
    let segments = harness.disk.names(".seg");
    loop {
        let end = append(&journal.journal, &sample(number, 20_000).event()).expect("accepted");
        journal.step_writer();
        let end = end.try_recv().expect("a result");
        if end.is_err() || harness.disk.names(".seg") != segments {
            return end;
        }
    }
}

/// A failed rename may have taken effect. If the writer cannot start a segment, it continues in the previous one, and the renamed
/// file must supersede nothing, even if a page of this file cannot be read.
#[test]
fn a_rename_of_a_spare_that_fails_too_late_hides_no_event() {
    for seed in 0..64 {
        let harness = Harness { disk: SimDisk::new(seed), ..small() };
        let (mut journal, number) = with_spare(&harness);
        let spare = harness.disk.names(".spare").remove(0);
        harness.disk.spoil(&spare, 8_192..8_193);
        harness.disk.fail_rename_late(".seg");
        harness.disk.fail(Step::Create, ".seg", io::ErrorKind::Other, 1);
        assert_eq!(start_segment(&harness, &mut journal, number), Err(AppendError::Write));
        assert_eq!(harness.disk.len(&spare), None, "the rename has taken effect");
        let last = journal.store(&sample(number, 100));
        harness.kill_stepped(journal);
        if seed > 0 {
            // The power cut may lose the deletion of the file and not its rename.
            harness.disk.cut_power();
        }
        let journal = harness.open_in_steps();
        assert_eq!(seqs(&journal.journal).last(), Some(&last.seq), "seed {seed}: the renamed file supersedes no event");
        assert_eq!(harness.metrics.journal.damaged.get(), 0, "seed {seed}");
    }
}

#[test]
fn a_spare_that_can_be_neither_renamed_nor_deleted_ends_the_journal() {
    let harness = small();
    let (mut journal, number) = with_spare(&harness);
    harness.disk.fail_rename_late(".seg");
    harness.disk.fail(Step::Remove, ".seg", io::ErrorKind::Other, 1);
    assert_eq!(start_segment(&harness, &mut journal, number), Err(AppendError::Sync));
    assert!(journal.journal.failed());
}

/// Undoes the first commit of a segment, as a disk does that has ignored its sync and loses its power.
#[test]
fn a_recycled_segment_whose_first_commit_is_lost_is_counted() {
    let harness = small();
    let (mut journal, number) = with_spare(&harness);
    let (spare, lock) = (harness.disk.bytes(&harness.disk.names(".spare")[0]), harness.disk.bytes("lock"));
    let recycled = harness.disk.files_recycled();
    let lost = start_segment(&harness, &mut journal, number).expect("stored");
    assert_eq!(harness.disk.files_recycled(), recycled + 1);
    harness.kill_stepped(journal);
    let newest = harness.disk.names(".seg").pop().expect("a segment");
    for (file, before, len) in [(newest.as_str(), spare, 64 << 10), ("lock", lock, 4_096)] {
        let mut before = before.into_iter();
        let before = std::cell::RefCell::new(&mut before);
        harness.disk.corrupt(file, 0..len, |_| before.borrow_mut().next().unwrap_or(0));
    }
    let mut journal = harness.open_in_steps();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the record of the owner shows the loss");
    let next = journal.store(&sample(number, 100));
    assert!(next.seq > lost.seq, "{next} after {lost}");
}
