//! Tests of missing segments: a segment without a recorded release is lost, and its loss is counted.

use std::io;
use std::time::Duration;

use hookhold::journal::AppendError;

use crate::disk::Step;
use crate::events::TOPICS;
use crate::harness::*;
use crate::stepped::SteppedJournal;

/// Returns the sequences in the file name of a segment: its first, and the first of the next segment.
fn sequences(harness: &Harness, index: usize) -> std::ops::Range<u64> {
    let first = |name: &String| name.split('-').nth(1).expect("a segment name").parse().expect("a sequence");
    let names = harness.disk.names(".seg");
    first(&names[index])..first(&names[index + 1])
}

fn remove_segment(harness: &Harness, index: usize) {
    let name = harness.disk.names(".seg").remove(index);
    harness.disk.remove_file(&name);
    if harness.disk.len(&name.replace(".seg", SUMMARY_EXT)).is_some() {
        harness.disk.remove_file(&name.replace(".seg", SUMMARY_EXT));
    }
}

/// Returns the number of events that the metric counts as lost with a segment.
fn lost_events(harness: &Harness) -> u64 {
    harness.metrics.journal.lost_events.with_label_values(&["missing_segment"]).get()
}

#[test]
fn a_missing_segment_is_counted_and_its_keys_are_forgotten() {
    let harness = Harness::with_sealed_segments();
    let lost = sequences(&harness, 1);
    assert!(lost.end - lost.start > 1);
    let name = harness.disk.names(".seg").remove(1);
    remove_segment(&harness, 1);
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!((report.missing, report.lost), (vec![name], 0));
    let journal = harness.open();
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!((report.missing, report.lost), (Vec::new(), lost.end - lost.start), "the loss stays visible");
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "one missing segment");
    assert_eq!(lost_events(&harness), lost.end - lost.start);
    assert_eq!(seqs(&journal), (0..60).filter(|seq| !lost.contains(seq)).collect::<Vec<_>>());
    let expect_keys = |journal: &hookhold::journal::Journal| {
        for number in 0..60 {
            let expected = (!lost.contains(&number)).then_some(number);
            assert_eq!(lookup(journal, &key(number as usize)), expected, "the retry of a lost event must be stored");
        }
    };
    expect_keys(&journal);
    journal.close();
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "counted once");
    expect_keys(&journal);
    journal.close();
}

#[test]
fn a_segment_that_is_restored_after_its_loss_was_counted_is_never_deleted() {
    let harness = Harness::with_sealed_segments();
    let lost = sequences(&harness, 1);
    let name = harness.disk.names(".seg").remove(1);
    let bytes = harness.disk.bytes(&name);
    remove_segment(&harness, 1);
    harness.open_in_steps().close();
    harness.disk.put_file(&name, &bytes);
    for _ in 0..2 {
        let journal = harness.open();
        assert_eq!(seqs(&journal), (0..60).filter(|seq| !lost.contains(seq)).collect::<Vec<_>>());
        journal.close();
        let aside = format!("{name}.lost");
        assert!(harness.disk.len(&aside).is_some(), "the file has been deleted");
        assert!(harness.disk.bytes(&aside) == bytes, "an operator can still read the events");
    }
    assert_eq!(lost_events(&harness), lost.end - lost.start, "counted once");
}

#[test]
fn the_keys_of_a_missing_segment_stay_if_kafka_has_its_events() {
    let harness = Harness::with(|options| options.forwards = true);
    let journal = harness.open();
    store_many(&journal, 0..60, 2_000);
    harness.disk.wait_for(|files| has_sealed(files, 4));
    let lost = sequences(&harness, 1);
    journal.save_cursor(TOPICS[0], lost.start + 1, 1);
    journal.close();
    remove_segment(&harness, 1);
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 1);
    assert_eq!(lookup(&journal, &key(lost.start as usize)), Some(lost.start), "Kafka has acknowledged this event");
    for seq in lost.start + 1..lost.end {
        assert_eq!(lookup(&journal, &key(seq as usize)), None, "Kafka has not acknowledged the event {seq}");
    }
    journal.close();
}

#[test]
fn the_sequences_of_a_missing_newest_segment_are_never_used_again() {
    let harness = Harness::new();
    let journal = harness.open();
    let stored = store_many(&journal, 0..3, 100);
    harness.kill(journal);
    let newest = harness.disk.names(".seg").len() - 1;
    let name = harness.disk.names(".seg").remove(newest);
    remove_segment(&harness, newest);
    assert_eq!(harness.read_only().verify().expect("the journal can be read").missing, [name]);
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the missing segment is counted");
    assert_eq!(lost_events(&harness), 3, "the published watermark proves how many events it had");
    let next = store(&journal, &sample(0, 100));
    assert!(next.seq > stored[2].seq, "{next} after {}", stored[2]);
    journal.close();
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "counted once");
    assert_eq!(seqs(&journal), [next.seq]);
    journal.close();
}

/// Only the newest segment lists the segment before it, so no file names a segment that vanishes together with the newest one. Its
/// key file still contains the keys of its events.
#[test]
fn segments_that_vanish_with_the_newest_one_are_counted_and_their_keys_forgotten() {
    for missing in [2, 3, usize::MAX] {
        let harness = Harness::new();
        let journal = harness.open();
        store_many(&journal, 0..60, 2_000);
        let segments = harness.disk.names(".seg").len();
        harness.disk.wait_for(|files| has_sealed(files, segments - 1));
        harness.kill(journal);
        let left = segments.saturating_sub(missing);
        let from = if left == 0 { 0 } else { sequences(&harness, left - 1).end };
        assert!(from < sequences(&harness, segments - 2).end, "an older segment vanishes as well");
        (left..segments).rev().for_each(|index| remove_segment(&harness, index));
        let journal = harness.open();
        let what = format!("{left} of {segments} segments are left");
        assert_eq!(lost_events(&harness), 60 - from, "{what}");
        assert_eq!(seqs(&journal), (0..from).collect::<Vec<_>>(), "{what}");
        for seq in 0..60 {
            let expected = (seq < from).then_some(seq);
            assert_eq!(lookup(&journal, &key(seq as usize)), expected, "{what}: the retry of a lost event must be stored");
        }
        assert!(store(&journal, &sample(60, 100)).seq >= 60, "{what}");
        journal.close();
        let journal = harness.open();
        assert_eq!(lost_events(&harness), 60 - from, "{what}: counted once");
        assert!((from..60).all(|seq| lookup(&journal, &key(seq as usize)).is_none()), "{what}: after a restart");
        journal.close();
    }
}

#[test]
fn a_torn_newer_segment_does_not_hide_a_missing_newest_segment() {
    let harness = Harness::stopped(|_| {});
    let mut journal = harness.open_in_steps();
    (0..3).for_each(|number| _ = journal.store(&sample(number, 100)));
    let reject = |journal: &mut SteppedJournal, number: usize| {
        let end = append(&journal.journal, &sample(number, 100).event()).expect("accepted");
        journal.step_writer();
        assert_eq!(end.try_recv().expect("a result"), Err(AppendError::Write));
    };
    harness.disk.fail(Step::Write, ".seg", io::ErrorKind::Other, 1);
    reject(&mut journal, 3);
    let lost = journal.store(&sample(4, 100));
    harness.disk.fail(Step::Write, ".seg", io::ErrorKind::Other, 1);
    reject(&mut journal, 5);
    // The process dies in the sync of the first commit of the third segment.
    harness.disk.die_after(4);
    append(&journal.journal, &sample(6, 100).event()).expect("accepted").try_recv().unwrap_err();
    journal.step_writer();
    harness.kill_stepped(journal);
    let names = harness.disk.names(".seg");
    assert_eq!((names.len(), lost.seq), (3, 3), "{names:?}");
    remove_segment(&harness, 1);
    harness.disk.corrupt(&names[2], 4096..8192, |_| 0);
    assert!(harness.disk.bytes(&names[2]).iter().any(|byte| *byte != 0), "the header of the third segment is written");
    assert_eq!(harness.read_only().verify().expect("the journal can be read").missing, [names[1].clone()]);
    let mut journal = harness.open_in_steps();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the missing segment is counted");
    assert_eq!(seqs(&journal.journal), [0, 1, 2]);
    assert_eq!(lookup(&journal.journal, &key(4)), None, "the retry of the lost event must be stored");
    let next = journal.store(&sample(4, 100));
    assert!(next.seq > lost.seq, "{next} after {lost}");
    journal.close();
    let journal = harness.open_in_steps();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "counted once");
    assert_eq!(lookup(&journal.journal, &key(4)), Some(next.seq));
    journal.close();
}

#[test]
fn a_temporary_read_error_of_the_lock_file_does_not_hide_a_missing_newest_segment() {
    let harness = Harness::new();
    let journal = harness.open();
    let mut stored = 0;
    while harness.disk.names(".seg").len() < 2 {
        store(&journal, &sample(stored, 2_000));
        stored += 1;
    }
    harness.kill(journal);
    remove_segment(&harness, 1);
    // The first read is that of the newest record. The other page of the file contains the record of the first segment.
    harness.disk.fail_medium(Step::Read, "lock");
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the missing segment is counted");
    let next = store(&journal, &sample(stored, 100));
    assert!(next.seq > stored as u64, "{next} after {stored} events");
    journal.close();
}

#[test]
fn a_startup_finishes_a_recorded_release() {
    let harness = Harness::with_sealed_segments();
    let mut harness = harness;
    harness.options.limits.max_size = 4 * harness.options.limits.segment_size;
    let before = harness.disk.names(".seg");
    // The journal records releases to make room, but cannot delete the files.
    harness.disk.fail(Step::Remove, ".seg", io::ErrorKind::Other, 1_000);
    harness.disk.fail(Step::Rename, ".spare", io::ErrorKind::Other, 1_000);
    let journal = harness.open();
    store_many(&journal, 60..70, 2_000);
    harness.kill(journal);
    assert!(before.iter().all(|name| harness.disk.len(name).is_some()), "nothing has been deleted");
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 0, "a released segment is not lost");
    assert!(harness.disk.len(&before[0]).is_none(), "the startup has deleted the released segment");
    assert!(!seqs(&journal).contains(&0));
    assert_eq!(lookup(&journal, &key(0)), Some(0), "the key outlives the event");
    journal.close();
}

#[test]
fn a_list_without_its_lost_sequences_does_not_hide_a_missing_segment() {
    let harness = Harness::with_sealed_segments();
    let lost = sequences(&harness, 1);
    remove_segment(&harness, 1);
    let journal = harness.open();
    harness.kill(journal);
    // A power cut during this startup may tear its first commit: the list without the segment survives, and the last frame of the
    // commit does not, which contains the lost sequences.
    let newest = harness.disk.names(".seg").pop().expect("a segment");
    let end = 1 + harness.disk.bytes(&newest).iter().rposition(|byte| *byte != 0).expect("a commit");
    harness.disk.corrupt(&newest, end - 16..end, |_| 0);
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 2, "counted again");
    for seq in lost.clone() {
        assert_eq!(lookup(&journal, &key(seq as usize)), None, "the retry of the lost event {seq} must be stored");
    }
    assert_eq!(seqs(&journal), (0..60).filter(|seq| !lost.contains(seq)).collect::<Vec<_>>());
    journal.close();
}

#[test]
fn a_missing_key_file_is_counted_although_its_segment_was_deleted_before_the_next_segment_started() {
    let harness = Harness::stopped(|options| options.limits.retain = Duration::from_secs(10));
    let mut journal = harness.open_in_steps();
    for number in 0..40 {
        journal.store(&sample(number, 2_000));
    }
    assert!(harness.disk.names(".keys").is_empty(), "no segment has been sealed, so no list contains a key file");
    let newest = harness.disk.names(".seg").pop();
    harness.clock.advance(20_000);
    journal.run();
    assert_eq!(harness.disk.names(".seg"), Vec::from_iter(newest), "every older segment has been deleted");
    journal.close();
    let file = harness.disk.names(".keys").remove(0);
    harness.disk.remove_file(&file);
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the missing keys are counted");
    journal.close();
}
