//! Golden files: a small journal of format 2 in `tests/golden/format-2`. Every later version must open it, and this version must
//! write the same bytes. If a change of the format is intended and older versions can still read it, write the files again:
//!
//! ```sh
//! HOOKHOLD_GOLDEN=write cargo test --test journal golden
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hookhold::event::Event;
use hookhold::event_key::EventKey;
use hookhold::fingerprint::Fingerprint;
use hookhold::journal::{Random, StoredEvent, UnforwardedEvents};

use crate::events::{ManualClock, Sample, TOPICS};
use crate::harness::*;
use crate::stepped::{SteppedJournal, frame_kinds};

/// Random numbers that do not depend on a library.
struct Sequence(AtomicU64);

impl Random for Sequence {
    fn next_u64(&self) -> io::Result<u64> {
        Ok(self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

fn harness() -> Harness {
    Harness::stopped(|options| {
        options.limits.retain = RETAIN;
        options.max_recent_keys = 16;
        options.forwards = true;
    })
}

fn open(harness: &Harness, random: &Arc<Sequence>) -> SteppedJournal {
    harness.open_in_steps_with(harness.environment(harness.disk.start(), random.clone()))
}

/// Writes the journal of the golden files. Its first events are older than `retain`, and their segments are deleted. Then
/// `[kafka]` is removed.
fn write(harness: &mut Harness) {
    let random = Arc::new(Sequence(AtomicU64::new(1)));
    let mut journal = open(harness, &random);
    for number in 0..24 {
        journal.store(&sample_of(number));
        harness.clock.advance(100);
    }
    for (topic, cursor) in [(0, 24), (1, 24)] {
        journal.journal.save_cursor(TOPICS[topic], cursor, 12);
    }
    harness.clock.advance(RETAIN.as_millis() as u64);
    for number in 24..34 {
        journal.store(&sample_of(number));
        harness.clock.advance(100);
        journal.run();
    }
    journal.journal.save_cursor(TOPICS[0], FORWARDED, 1);
    journal.store_batch(&sample_of(34).event(), &[sample_of(36).event()]);
    harness.clock.advance(5_000);
    journal.run();
    journal.close();

    harness.options.forwards = false;
    let mut journal = open(harness, &random);
    journal.store_batch(&with_account(&sample_of(38)), &[]);
    harness.clock.advance(5_000);
    journal.run();
    journal.store(&Sample { key: None, ..sample_of(40) });
    journal.close();
}

/// Even numbers belong to the first topic, odd numbers to the second.
fn sample_of(number: usize) -> Sample {
    Sample { topic: number % 2, headers: vec![("x-golden", b"a header".to_vec())], ..sample(number, 400) }
}

fn with_account(sample: &Sample) -> Event {
    let fingerprint = Fingerprint { secret: *b"secret", body: *b"a body" };
    sample.event().with_key(sample.key.map(EventKey), fingerprint).with_account("second".into())
}

#[test]
fn this_version_writes_the_golden_files_byte_for_byte() {
    let mut harness = harness();
    write(&mut harness);
    let written: BTreeMap<String, Vec<u8>> = harness
        .disk
        .names("")
        .into_iter()
        .filter(|name| name != RESERVE)
        .map(|name| (name.clone(), harness.disk.bytes(&name)))
        .collect();
    if std::env::var_os("HOOKHOLD_GOLDEN").is_some_and(|what| what == "write") {
        let _ = std::fs::remove_dir_all(dir());
        std::fs::create_dir_all(dir()).expect("tests/ can be written to");
        for (name, bytes) in &written {
            std::fs::write(dir().join(name), bytes).expect("tests/ can be written to");
        }
    }
    let golden = golden_files();
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&golden));
    for (name, bytes) in &written {
        let differs = bytes.iter().zip(&golden[name]).position(|(a, b)| a != b);
        assert_eq!((bytes.len(), differs), (golden[name].len(), None), "{name}: length and first different byte");
    }
    let kinds = [".seg", ".topics", ".keys", "meta", "lock"].map(|end| golden.keys().filter(|name| name.ends_with(end)).count());
    assert!(kinds[0] > kinds[1] && kinds[1] >= 2 && kinds[2] >= 2 && kinds[3..] == [1, 1], "{:?}", names(&golden));
    assert!(golden.keys().any(|name| name.starts_with("merged-")), "{:?}", names(&golden));
    let segments = golden.iter().filter(|(name, _)| name.ends_with(".seg"));
    let frames: BTreeSet<u8> = segments.flat_map(|(_, bytes)| frame_kinds(bytes)).collect();
    assert_eq!(frames, (1..=7).collect(), "event, commit, cursors, segments, release, key files, lost");
    assert!(golden.values().map(Vec::len).sum::<usize>() < 100 << 10, "the files are small");
}

#[test]
fn the_golden_files_contain_the_expected_events_keys_and_cursors() {
    let mut harness = harness();
    harness.options.forwards = false;
    for (name, bytes) in golden_files() {
        harness.disk.put_file(&name, &bytes);
    }
    harness.clock = Arc::new(ManualClock::stopped_at(NOW + 2 * RETAIN.as_millis() as u64));
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!((report.damage, report.missing, report.unconfirmed), (vec![], vec![], 0));
    let journal = harness.open_in_steps();
    let expected = |stored: &StoredEvent| {
        let number = number_of(stored);
        let sample = match number {
            40 => Sample { key: None, ..sample_of(40) },
            _ => sample_of(number),
        };
        let event = if number == 38 { with_account(&sample) } else { sample.event() };
        assert_eq!(format!("{:?}", stored.event), format!("{event:?}"));
    };
    let events = read(&journal.journal);
    events.iter().for_each(expected);
    let numbers: Vec<usize> = events.iter().map(number_of).collect();
    let newest = [(24..35).collect::<Vec<_>>(), vec![36, 38, 40]].concat();
    assert!(numbers.len() < 20 && numbers.ends_with(&newest), "{numbers:?}");
    // Sequences are consecutive, although the numbers of the last events are not.
    assert_eq!(events.iter().map(|stored| stored.position.seq).max(), Some(37));
    for number in (0..35).chain([36, 38]) {
        let seq = number as u64 - [35, 37].iter().filter(|gap| **gap < number).count() as u64;
        assert_eq!(lookup(&journal.journal, &key(number)), Some(seq), "key {number}");
    }
    assert_eq!(lookup(&journal.journal, &key(40)), None, "the event has no key");
    let cursors: Vec<_> =
        journal.journal.topic_cursors().into_iter().map(|topic| (topic.name.to_string(), topic.cursor)).collect();
    assert_eq!(cursors, [(TOPICS[1].to_owned(), 24), (TOPICS[0].to_owned(), FORWARDED)]);
    let waiting = journal.journal.unforwarded();
    let waiting: Vec<(&str, u64)> = waiting.iter().map(|UnforwardedEvents { topic, events, .. }| (&**topic, *events)).collect();
    assert_eq!(waiting, [(TOPICS[1], 5), (TOPICS[0], 4)]);
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    journal.close();
}

fn number_of(stored: &StoredEvent) -> usize {
    let id = stored.event.id().and_then(|id| id.strip_prefix("id-")).expect("every event has an id");
    id.parse().expect("the id contains a number")
}

fn golden_files() -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir()).expect("the golden files are part of the repository");
    let paths = files.map(|entry| entry.expect("the directory can be listed").path());
    let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).expect("our names are text").to_owned();
    paths.map(|path| (name(&path), std::fs::read(&path).expect("the file can be read"))).collect()
}

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-2")
}

const RETAIN: std::time::Duration = std::time::Duration::from_secs(3600);
/// Cursor of the first topic when `[kafka]` is removed.
const FORWARDED: u64 = 30;
/// Preallocated space without content, which is not part of the golden files.
const RESERVE: &str = "reserve";
