//! Tests of damaged bytes in segments, summary files and key files.

use std::time::Duration;

use hookhold::journal::AppendError;

use crate::disk::Step;
use crate::events::Sample;
use crate::harness::*;

/// Appends events whose bodies consist of frame headers with large lengths. For every header, a naive scan would read as
/// many bytes as the header states.
#[test]
fn a_body_of_fake_frames_cannot_delay_a_start() {
    let harness = Harness::with(|options| options.limits.segment_size = 1 << 20);
    let journal = harness.open();
    store_many(&journal, 0..10, 1_000);
    const HEADERS: usize = 2_000;
    let mut body = b"crafted ".to_vec();
    for number in 0..HEADERS {
        // Each header states a frame end that is 8 bytes after the frame end that the previous header states.
        let mut header = [0; 32];
        header[..4].copy_from_slice(&(300_000_u32 - 24 * number as u32).to_le_bytes());
        (header[16], header[24]) = (20 + number as u8 % 5, 1);
        body.extend(header);
    }
    let size = body.len() as u64;
    // One of these shifts aligns the headers to the offsets at which frames may start.
    for shift in 0..8 {
        store(&journal, &Sample { body: [&vec![b' '; shift][..], &body].concat(), ..sample(10 + shift, 0) });
    }
    store_many(&journal, 18..25, 60_000);
    journal.close();
    let segment = harness.disk.names(".seg").remove(0);
    let bytes = harness.disk.bytes(&segment);
    let crafted = bytes.windows(8).enumerate().filter(|(_, window)| *window == b"crafted ").map(|(at, _)| at);
    let crafted: Vec<usize> = crafted.collect();
    assert_eq!(crafted.len(), 8);
    crafted.iter().for_each(|at| harness.disk.corrupt(&segment, *at..at + 1, |byte| !byte));
    let before = harness.disk.bytes_read();
    let journal = harness.open();
    let read = harness.disk.bytes_read() - before;
    assert!(read < 100 * size, "the start read {} times the bytes of a body", read / size);
    assert_eq!(seqs(&journal), (0..10).chain(18..25).collect::<Vec<_>>());
    journal.close();
}

#[test]
fn a_damaged_version_never_looks_like_a_later_one() {
    let harness = Harness::new();
    let journal = harness.open();
    store_many(&journal, 0..3, 100);
    journal.close();
    harness.open().close();
    let segment = harness.disk.names(".seg").remove(0);
    harness.disk.corrupt(&segment, 8..9, |_| 3);
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].bytes, 0..4096);
    let journal = harness.open();
    assert_eq!(seqs(&journal), [0, 1, 2], "a lost header costs no event");
    journal.close();
}

#[test]
fn damaged_summary_and_key_files_are_rebuilt() {
    let harness = Harness::new();
    let journal = harness.open();
    store_many(&journal, 0..60, 2_000);
    harness.disk.wait_for(|files| has_sealed(files, 4));
    journal.close();
    let (summaries, keys) = (harness.disk.names(SUMMARY_EXT), harness.disk.names(".keys"));
    assert!(summaries.len() >= 3 && keys.len() >= 3);
    harness.disk.corrupt(&summaries[0], 30..31, |byte| !byte);
    harness.disk.corrupt(&keys[1], 30..31, |byte| !byte);
    harness.disk.remove_file(&summaries[2]);
    let journal = harness.open();
    assert_eq!(seqs(&journal), (0..60).collect::<Vec<_>>());
    assert!((0..60).all(|number| lookup(&journal, &key(number)) == Some(number as u64)));
    harness.disk.wait_for(|files| files.contains(&summaries[2]));
    journal.close();
    assert_eq!(harness.metrics.journal.damaged.get(), 0, "no event is lost");
}

#[test]
fn a_damaged_page_of_keys_neither_stops_a_start_nor_hides_other_keys() {
    let harness = Harness::with_sealed_segments();
    let keys = harness.disk.names(".keys").remove(0);
    let count = harness.disk.bytes(&keys)[4096 + 4] as usize;
    assert!((1..60).contains(&count), "{count} keys in the first file");
    harness.disk.corrupt(&keys, 4096 + 500..4096 + 501, |byte| !byte);
    let journal = harness.open();
    let found = (0..60).filter(|number| lookup(&journal, &key(*number)) == Some(*number as u64)).count();
    assert_eq!(found, 60 - count);
    assert_eq!(harness.metrics.journal.damaged.get(), 1);
    assert!(journal.degraded_reason().is_some());
    assert_eq!(journal.unavailable_reason(Duration::MAX), None);
    store(&journal, &sample(60, 100));
    journal.close();
}

#[test]
fn a_missing_key_file_of_a_deleted_segment_is_counted() {
    let harness = Harness::with(|options| (options.limits.max_size, options.max_recent_keys) = (200 << 10, 0));
    let journal = harness.open();
    store_many(&journal, 0..100, 3_000);
    journal.close();
    // Every start lists the key files. Without background work, no merge replaces a listed file.
    harness.open_in_steps().close();
    let number = |file: &String, at| u64::from_le_bytes(harness.disk.bytes(file)[at..at + 8].try_into().expect("8 bytes"));
    let merged = harness.disk.names(".keys").into_iter().filter(|file| file.starts_with("merged-") && number(file, 32) > 0);
    let oldest = merged.min_by_key(|file| number(file, 56));
    harness.disk.remove_file(&oldest.expect("a merged file"));
    let journal = harness.open();
    // The removed file may have replaced several listed files.
    let counted = harness.metrics.journal.damaged.get();
    assert!(counted >= 1);
    assert!(journal.degraded_reason().is_some());
    assert_eq!(lookup(&journal, &key(0)), None, "a retry is stored again");
    assert_eq!(lookup(&journal, &key(99)), Some(99));
    store(&journal, &sample(100, 100));
    journal.close();
    harness.open().close();
    assert_eq!(harness.metrics.journal.damaged.get(), counted, "the next start lists only the files that exist");
}

#[test]
fn corruption_forgets_the_keys_of_lost_events() {
    let harness = Harness::with_sealed_segments();
    let segment = harness.disk.names(".seg").remove(0);
    let bytes = harness.disk.bytes(&segment);
    let at = bytes.windows(7).position(|window| window == b"body 3 ").expect("the segment holds the event");
    harness.disk.corrupt(&segment, at..at + 1, |byte| !byte);
    let journal = harness.open();
    assert_eq!(lookup(&journal, &key(3)), Some(3), "the event has not been read yet");
    let expected: Vec<u64> = (0..60).filter(|seq| *seq != 3).collect();
    assert_eq!(seqs(&journal), expected);
    assert_eq!(lookup(&journal, &key(3)), None, "a retry must be stored");
    assert_eq!(harness.metrics.journal.damaged.get(), 1);
    assert_eq!(harness.metrics.journal.lost_events.with_label_values(&["corruption"]).get(), 1);
    assert_eq!(seqs(&journal), expected);
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "counted once");
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!(report.damage.len(), 1);
    assert!(report.damage[0].file == segment && report.damage[0].bytes.contains(&(at as u64)));
    assert_eq!(report.events, 59);
    // The background thread merges the key file, and omits the key.
    let ordinal = segment.split('-').next().expect("the name of a segment");
    let is_first = |file: &String| file.ends_with(".keys") && file.starts_with(ordinal);
    harness.disk.wait_for(|files| !files.iter().any(is_first));
    journal.close();
    let has_key = |file: &String| harness.disk.bytes(file).windows(16).any(|window| window == key(3).0);
    assert!(!harness.disk.names(".keys").iter().any(has_key));
    assert_eq!(lookup(&harness.open(), &key(3)), None, "after a restart as well");
}

#[test]
fn an_unreadable_page_of_a_torn_commit_blocks_no_topic() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 100));
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let torn = append(&journal, &sample(1, 100).event()).expect("accepted");
    gate.wait_for(1);
    harness.disk.kill();
    gate.release();
    assert_eq!(torn.recv().expect("a result"), Err(AppendError::Sync));
    journal.close();
    let segment = harness.disk.names(".seg").pop().expect("a segment");
    let end = harness.disk.bytes(&segment).iter().rposition(|byte| *byte != 0).expect("a commit");
    harness.disk.spoil(&segment, end..end + 1);
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 0, "no sender has an answer for the torn commit");
    let next = store(&journal, &sample(1, 100));
    assert_eq!(seqs(&journal), [0, next.seq], "every event can be forwarded");
    journal.close();
}

#[test]
fn random_damage_never_panics_or_invents_an_event() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let harness = Harness::new();
        let journal = harness.open();
        store_many(&journal, 0..40, 1_500);
        journal.close();
        harness.open().close();
        let files: Vec<String> = harness.disk.names("").into_iter().filter(|name| name != "lock" && name != "meta").collect();
        assert!(files.len() > 4);
        for _ in 0..rng.usize(1..6) {
            let file = &files[rng.usize(..files.len())];
            let size = harness.disk.bytes(file).len();
            if size > 0 {
                let start = rng.usize(..size);
                let end = (start + rng.usize(1..20_000)).min(size);
                let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(256).collect();
                let small = rng.bool();
                harness.disk.corrupt(file, start..end, |byte| if small { byte & 3 } else { noise[byte as usize] });
            }
        }
        let found = harness.read_only().verify().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let journal = harness.try_open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for stored in read(&journal) {
            let number = stored.position.seq as usize;
            assert_eq!(*stored.event.body(), sample(number, 1_500).body, "seed {seed}");
        }
        assert!(found.events <= 40, "seed {seed}");
        (0..40).for_each(|number| assert!(lookup(&journal, &key(number)).is_none_or(|seq| seq == number as u64), "seed {seed}"));
        journal.close();
    }
}
