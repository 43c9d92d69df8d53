//! Tests that the key of a lost event does not return: the journal must store a retry of the event.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hookhold::journal::{JournalMillis, KeyLimits, SeenKey, StandaloneKeys, SystemRandom};
use hookhold::metrics::Metrics;

use crate::disk::{SimDisk, Step};
use crate::harness::*;
use crate::stepped::SteppedJournal;

/// Returns a journal with at least three full segments, none of which is sealed, and the number of its events.
fn with_full_segments(harness: &Harness, length: usize) -> (SteppedJournal, usize) {
    let mut journal = harness.open_in_steps();
    let mut number = 0;
    while harness.disk.names(".seg").len() <= 3 {
        journal.store(&sample(number, length));
        number += 1;
    }
    (journal, number)
}

/// Damages the event with this number, and returns the name of its segment.
fn damage(harness: &Harness, number: usize) -> String {
    let body = format!("body {number} ").into_bytes();
    let find = |name: &String| harness.disk.bytes(name).windows(body.len()).position(|window| *window == body);
    let names = harness.disk.names(".seg").into_iter();
    let (name, at) = names.filter_map(|name| find(&name).map(|at| (name, at))).next().expect("a segment contains the event");
    harness.disk.corrupt(&name, at..at + 1, |byte| !byte);
    name
}

/// Damages the summary of a segment, so that the next startup seals the segment again.
fn damage_summary(harness: &Harness, segment: &str) {
    harness.disk.corrupt(&segment.replace(".seg", SUMMARY_EXT), 30..31, |byte| !byte);
}

/// Returns the numbers of the events whose keys the journal has forgotten.
fn forgotten(journal: &SteppedJournal, events: usize) -> Vec<usize> {
    (0..events).filter(|number| lookup(&journal.journal, &key(*number)).is_none()).collect()
}

/// The key file of a rewritten segment has the id of the segment before the rewriting. If the segment is sealed again, its new key
/// file has another id.
#[test]
fn the_key_file_of_a_rewritten_segment_that_is_sealed_again_returns_no_lost_key() {
    let harness = Harness::stopped(|options| (options.limits.segment_size, options.forwards) = (64 << 10, true));
    let (mut journal, events) = with_full_segments(&harness, 300);
    journal.run();
    journal.close();
    let segment = damage(&harness, 3);
    let old_keys = harness.disk.names(".keys").remove(0);
    assert!(harness.disk.len(&segment.replace(".seg", ".keys")).is_none(), "the segment has been rewritten");
    damage_summary(&harness, &segment);
    let mut journal = harness.open_in_steps();
    assert_eq!(seqs(&journal.journal).len(), events - 1);
    assert_eq!(forgotten(&journal, events), [3]);
    journal.run();
    assert_eq!(forgotten(&journal, events), [3]);
    assert_eq!(harness.disk.len(&old_keys), None, "the old key file is deleted");
    journal.close();
    let journal = harness.open_in_steps();
    assert_eq!(forgotten(&journal, events), [3], "after a restart");
    journal.close();
}

/// Cuts the power in every step of the sealing that is due in the journal of `prepare`, which has lost one event. The power cut may
/// lose the name of a new key file, but not the name of the new summary. The startup then finds a sealed segment with its old key file.
fn expect_no_return(prepare: impl Fn(&Harness) -> (SteppedJournal, usize)) {
    let mut cuts = 0;
    for seed in 0..32 {
        for step in 1.. {
            let harness = Harness { disk: SimDisk::new(seed), ..Harness::stopped(|_| {}) };
            let (mut journal, events) = prepare(&harness);
            let lost = forgotten(&journal, events);
            assert_eq!(lost.len(), 1, "one event is lost");
            // This commit records the lost events whose keys may still be in a key file.
            journal.store(&sample(events, 100));
            harness.disk.die_after(step);
            while !harness.disk.is_dead() && journal.step_background() {}
            let is_complete = !harness.disk.is_dead();
            harness.kill_stepped(journal);
            harness.disk.cut_power();
            let journal = harness.open_in_steps();
            assert_eq!(forgotten(&journal, events), lost, "seed {seed}, interrupted in step {step}");
            harness.kill_stepped(journal);
            if is_complete {
                break;
            }
            cuts += 1;
        }
    }
    assert!(cuts > 200, "{cuts} cuts");
}

#[test]
fn a_power_cut_while_segments_are_sealed_again_returns_no_lost_key() {
    expect_no_return(|harness| {
        let (mut journal, events) = with_full_segments(harness, 2_000);
        journal.run();
        journal.close();
        let last = (0..events).rfind(|number| is_in_sealed_segment(harness, *number)).expect("a sealed segment");
        damage(harness, last);
        harness.disk.names(SUMMARY_EXT).iter().for_each(|name| damage_summary(harness, &name.replace(SUMMARY_EXT, ".seg")));
        let mut journal = harness.open_in_steps();
        assert_eq!(seqs(&journal.journal).len(), events - 1);
        // The first segment is sealed again.
        assert!(journal.step_background());
        (journal, events)
    });
}

#[test]
fn a_power_cut_after_failures_to_seal_a_segment_returns_no_lost_key() {
    expect_no_return(|harness| {
        let (mut journal, events) = with_full_segments(harness, 2_000);
        let summary = harness.disk.names(".seg")[0].replace(".seg", SUMMARY_EXT);
        harness.disk.fail(Step::Write, &format!("{summary}.tmp"), io::ErrorKind::StorageFull, 2);
        // The key file contains the key of the event that is lost afterwards.
        assert!(journal.step_background());
        damage(harness, 3);
        assert_eq!(seqs(&journal.journal).len(), events - 1);
        for _ in 0..2 {
            while journal.step_background() {}
            harness.clock.advance(1_000);
        }
        assert_eq!(harness.disk.len(&summary), None, "the segment is not sealed yet");
        (journal, events)
    });
}

/// Returns true if the event is in a segment with a summary.
fn is_in_sealed_segment(harness: &Harness, number: usize) -> bool {
    let body = format!("body {number} ").into_bytes();
    let summaries = harness.disk.names(SUMMARY_EXT);
    let segments = summaries.iter().map(|name| name.replace(SUMMARY_EXT, ".seg"));
    segments.into_iter().any(|name| harness.disk.bytes(&name).windows(body.len()).any(|window| *window == body))
}

/// Returns the numbers of the keys 0 to 9 that the index does not find.
fn unknown(index: &StandaloneKeys) -> Vec<usize> {
    (0..10).filter(|number| index.lookup(&key(*number)).is_none()).collect()
}

/// The file of a failed merge has its name too early, and cannot be deleted. No other file replaces it.
#[test]
fn the_file_of_a_failed_merge_returns_no_lost_key() {
    let (disk, random, metrics) = (SimDisk::default(), Arc::new(SystemRandom), Metrics::new());
    let limits = KeyLimits { max_recent_keys: 0, ..KeyLimits::default() };
    let open = || StandaloneKeys::open(disk.start(), random.clone(), limits, &metrics).expect("the index opens");
    let mut index = open();
    (0..10).for_each(|number| index.add(key(number as usize), seen(number)));
    index.seal().expect("the disk has room");
    disk.fail_rename_late(".keys");
    disk.fail(Step::Remove, ".keys", io::ErrorKind::Other, 1);
    while index.step(JournalMillis(NOW)).is_ok() {}
    let failed = disk.names("").into_iter().find(|name| name.starts_with("merged-")).expect("the renamed file");
    disk.fail(Step::Remove, &failed, io::ErrorKind::Other, 1_000);
    index.forget(3..4);
    while index.step(JournalMillis(NOW)).expect("the disk has room") {}
    assert!(disk.names(".keys").len() == 2 && disk.len(&failed).is_some(), "{:?}", disk.names(""));
    let lost = index.lost_ranges();
    disk.kill();
    let index = open();
    // The journal stores exactly these ranges in its commits.
    lost.into_iter().for_each(|range| index.forget(range));
    assert_eq!(unknown(&index), [3]);
}

/// Returns the entry of a key with this sequence.
fn seen(seq: u64) -> SeenKey {
    SeenKey { first_seen: JournalMillis(NOW), seq, fingerprint: Default::default() }
}

/// An evicted key file is replaced by a file without keys, which is deleted soon after it.
#[test]
fn a_power_cut_after_an_eviction_returns_no_lost_key() {
    let mut returned = 0;
    for seed in 0..64 {
        let (disk, random, metrics) = (SimDisk::new(seed), Arc::new(SystemRandom), Metrics::new());
        let limits = KeyLimits { window: Duration::from_secs(3_600), max_bytes: u64::MAX, max_recent_keys: 0 };
        let open = |limits| StandaloneKeys::open(disk.start(), random.clone(), limits, &metrics).expect("the index opens");
        let mut index = open(limits);
        (0..10).for_each(|number| index.add(key(number as usize), seen(number)));
        index.seal().expect("the disk has room");
        while index.step(JournalMillis(NOW)).expect("the disk has room") {}
        disk.cut_power();
        let mut index = open(KeyLimits { max_bytes: 0, ..limits });
        assert!(index.lookup(&key(3)).is_some());
        index.forget(3..4);
        for _ in 0..4 {
            index.step(JournalMillis(NOW)).expect("the disk has room");
        }
        assert_eq!((index.evicted(), index.lost_ranges()), (10, vec![]), "no key file contains the key");
        disk.cut_power();
        let index = open(limits);
        returned += usize::from(index.lookup(&key(3)).is_some());
    }
    assert_eq!(returned, 0, "the key returns in {returned} of 64 power cuts");
}
