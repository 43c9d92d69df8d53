//! damage.

use crate::disk::Step;
use crate::events::Sample;
use hookhold::event_key::EventKey;
use std::io;

use crate::harness::*;

/// A body full of heads that claim to be long; each would have to be read as far as it claims.
#[test]
fn a_body_made_to_look_like_frames_costs_a_start_little_and_hides_nothing() {
    let harness = Harness::with(|options| options.limits.segment_size = 1 << 20);
    let journal = harness.open();
    keep_many(&journal, 0..10, 1_000);
    const HEADS: usize = 2_000;
    let mut body = b"crafted ".to_vec();
    for number in 0..HEADS {
        // Each ends a little further than the one before it.
        let mut head = [0; 32];
        head[..4].copy_from_slice(&(300_000_u32 - 24 * number as u32).to_le_bytes());
        (head[16], head[24]) = (20 + number as u8 % 5, 1);
        body.extend(head);
    }
    let size = body.len() as u64;
    // Wherever it lies, some of its heads lie where frames may begin.
    for shift in 0..8 {
        keep(&journal, &Sample { body: [&vec![b' '; shift][..], &body].concat(), ..sample(10 + shift, 0) });
    }
    keep_many(&journal, 18..25, 60_000);
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
    assert!(read < 100 * size, "{} times the body", read / size);
    assert_eq!(seqs(&journal), (0..10).chain(18..25).collect::<Vec<_>>());
    journal.close();
}

#[test]
fn damage_in_a_version_is_damage_and_not_a_later_version() {
    let harness = Harness::new();
    let journal = harness.open();
    keep_many(&journal, 0..3, 100);
    journal.close();
    harness.open().close();
    let segment = harness.disk.names(".seg").remove(0);
    harness.disk.corrupt(&segment, 8..9, |_| 2);
    let verdict = harness.outside().verify().expect("it can be read");
    assert_eq!(verdict.damage.len(), 1);
    assert_eq!(verdict.damage[0].bytes, 0..64);
    let journal = harness.open();
    assert_eq!(seqs(&journal), [0, 1, 2], "a header costs no event");
    journal.close();
}

#[test]
fn damaged_lane_and_key_files_are_written_again_from_their_segment() {
    let harness = Harness::new();
    let journal = harness.open();
    keep_many(&journal, 0..60, 2_000);
    harness.disk.wait_for(|files| sealed(files, 4));
    journal.close();
    let (lanes, keys) = (harness.disk.names(".lanes"), harness.disk.names(".keys"));
    assert!(lanes.len() >= 3 && keys.len() >= 3);
    harness.disk.corrupt(&lanes[0], 30..31, |byte| !byte);
    harness.disk.corrupt(&keys[1], 30..31, |byte| !byte);
    harness.disk.remove_file(&lanes[2]);
    let journal = harness.open();
    assert_eq!(seqs(&journal), (0..60).collect::<Vec<_>>());
    assert!((0..60).all(|number| ask(&journal, &key(number)) == Some(number as u64)));
    harness.disk.wait_for(|files| files.contains(&lanes[2]));
    journal.close();
    assert_eq!(harness.metrics.journal.damaged.get(), 0, "no event is lost");
}

#[test]
fn a_damaged_entry_of_a_key_file_hides_no_other() {
    let harness = filled();
    let keys = harness.disk.names(".keys").remove(0);
    let entries = (harness.disk.bytes(&keys).len() - 48) / 36;
    assert!(entries > 5);
    harness.disk.corrupt(&keys, 48 + 36 * (entries / 2)..49 + 36 * (entries / 2), |byte| !byte);
    let journal = harness.open();
    let known = (0..60).filter(|number| ask(&journal, &key(*number)) == Some(*number as u64)).count();
    assert_eq!(known, 59);
    let again = (0..60).filter(|number| ask(&journal, &key(*number)).is_some()).count();
    assert_eq!(again, 59);
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "counted once, not at each look");
    journal.close();
}

#[test]
fn a_key_file_that_is_written_anew_is_not_called_damaged_by_who_asks_it_meanwhile() {
    let harness = filled();
    let segment = harness.disk.names(".seg").remove(0);
    let at = harness.disk.bytes(&segment).windows(7).position(|window| window == b"body 3 ").expect("the event is there");
    let journal = harness.open();
    harness.disk.corrupt(&segment, at..at + 1, |byte| !byte);
    let whole = harness.disk.bytes(&segment.replace(".seg", ".keys")).len();
    // The new file is there, but the journal does not go by it yet.
    harness.disk.fail(Step::SyncDir, "", io::ErrorKind::Other, 1_000);
    assert_eq!(read(&journal).len(), 59);
    while harness.disk.bytes(&segment.replace(".seg", ".keys")).len() == whole {
        std::thread::yield_now();
    }
    for number in 0..60 {
        assert_eq!(ask(&journal, &key(number)), (number != 3).then_some(number as u64));
    }
    assert_eq!(ask(&journal, &EventKey([0xFF; 16])), None, "the last entry is asked for it");
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "the rot, and nothing else");
    journal.close();
}

#[test]
fn rot_in_a_sealed_segment_forgets_the_keys_of_what_is_lost() {
    let harness = filled();
    let segment = harness.disk.names(".seg").remove(0);
    let bytes = harness.disk.bytes(&segment);
    let at = bytes.windows(7).position(|window| window == b"body 3 ").expect("the event is there");
    harness.disk.corrupt(&segment, at..at + 1, |byte| !byte);
    let journal = harness.open();
    assert_eq!(ask(&journal, &key(3)), Some(3), "nobody has looked yet");
    let expected: Vec<u64> = (0..60).filter(|seq| *seq != 3).collect();
    assert_eq!(seqs(&journal), expected);
    assert_eq!(ask(&journal, &key(3)), None, "its retry must be kept");
    assert_eq!(harness.metrics.journal.damaged.get(), 1);
    assert_eq!(seqs(&journal), expected);
    assert_eq!(harness.metrics.journal.damaged.get(), 1, "counted once");
    let verdict = harness.outside().verify().expect("it can be read");
    assert_eq!(verdict.damage.len(), 1);
    assert!(verdict.damage[0].file == segment && verdict.damage[0].bytes.contains(&(at as u64)));
    assert_eq!(verdict.events, 59);
    // The key file itself is written anew behind the scenes.
    let name = segment.replace(".seg", ".keys");
    while harness.disk.bytes(&name).windows(16).any(|window| window == key(3).0) {
        std::thread::yield_now();
    }
    journal.close();
    assert_eq!(ask(&harness.open(), &key(3)), None, "also after a restart");
}

#[test]
fn random_bytes_in_any_file_never_panic_and_never_look_like_events() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let harness = Harness::new();
        let journal = harness.open();
        keep_many(&journal, 0..40, 1_500);
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
        let found = harness.outside().verify().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let journal = harness.try_open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for stored in read(&journal) {
            let number = stored.position.seq as usize;
            assert_eq!(*stored.event.body(), sample(number, 1_500).body, "seed {seed}");
        }
        assert!(found.events <= 40, "seed {seed}");
        (0..40).for_each(|number| assert!(ask(&journal, &key(number)).is_none_or(|seq| seq == number as u64), "seed {seed}"));
        journal.close();
    }
}
