//! Tests of opening and closing the journal: clean stops, kills, the lock, the meta file and file modes.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;

use hookhold::event::Position;
use hookhold::journal::disk::{Disk, LocalDisk};
use hookhold::journal::{AppendError, Journal, OpenError, Random, SystemRandom};

use crate::disk::{PATIENCE, Step};
use crate::events::TOPICS;
use crate::harness::*;

#[test]
fn a_new_identity_changes_neither_events_nor_keys() {
    let harness = Harness::with_sealed_segments();
    let journal = harness.open();
    let (hash_key, events) = (journal.hash_key(), seqs(&journal));
    journal.close();
    let before = harness.read_only().stat().expect("the journal can be read");
    let environment = harness.environment(harness.disk.start(), Arc::new(SystemRandom));
    let renewed = Journal::renew_identity(environment, harness.options.clone()).expect("the journal opens");
    let after = harness.read_only().stat().expect("the journal can be read");
    assert_eq!((before.id, after.id), (Some(renewed.previous), Some(renewed.id)));
    assert_ne!(renewed.previous, renewed.id);
    assert_eq!(after.segments, before.segments + 2, "each opening starts a segment, and none is deleted");
    let journal = harness.open();
    assert_eq!((journal.hash_key(), seqs(&journal)), (hash_key, events));
    assert!((0..60).all(|number| lookup(&journal, &key(number)) == Some(number as u64)));
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    journal.close();
}

#[test]
fn a_clean_stop_leaves_nothing_to_copy() {
    let harness = Harness::new();
    let journal = harness.open();
    store_many(&journal, 0..5, 100);
    journal.save_cursor(TOPICS[0], 3, 1);
    journal.close();
    harness.disk.cut_power();
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!((report.events, report.unconfirmed), (5, 0), "the last commit records the durable watermark");
    let before = harness.disk.names(".seg").len();
    let journal = harness.open();
    assert_eq!(harness.disk.names(".seg").len(), before + 1, "only the segment of this opening is new");
    assert_eq!(journal.topic_cursors().iter().map(|topic| topic.cursor).collect::<Vec<_>>(), [3]);
    assert_eq!(seqs(&journal), [0, 1, 2, 3, 4]);
    journal.close();
}

#[test]
fn a_stop_after_a_failed_write_records_the_watermark() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 100));
    harness.disk.fail(Step::Write, ".seg", io::ErrorKind::Other, 1);
    assert_eq!(try_store(&journal, &sample(1, 100)), Err(AppendError::Write));
    journal.save_cursor(TOPICS[0], 1, 1);
    journal.close();
    harness.disk.cut_power();
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!((report.events, report.unconfirmed), (1, 0));
    assert_eq!(harness.open().topic_cursors()[0].cursor, 1);
}

#[test]
fn a_kill_preserves_the_positions_of_all_events() {
    let harness = Harness::new();
    let journal = harness.open();
    let positions = store_many(&journal, 0..5, 100);
    harness.kill(journal);
    let report = harness.read_only().verify().expect("the journal can be read");
    assert_eq!((report.events, report.unconfirmed), (5, 0), "the published watermark survives the kill");
    let journal = harness.open();
    let found: Vec<Position> = read(&journal).iter().map(|stored| stored.position).collect();
    assert_eq!(found, positions);
    let next = store(&journal, &sample(5, 10));
    assert_eq!(next.seq, 5);
    assert_ne!(next.log, positions[0].log, "every opening draws a new log id");
    journal.close();
}

#[test]
fn a_second_opening_is_rejected_until_the_first_closes() {
    let harness = Harness::new();
    let journal = harness.open();
    let second =
        || Journal::open(harness.disk.second_process(), harness.options.clone(), harness.clock.clone(), harness.metrics.clone());
    assert!(matches!(second(), Err(OpenError::Locked)));
    journal.close();
    second().expect("the lock is free").close();
}

#[test]
fn a_second_opening_of_a_directory_is_rejected() {
    let dir = tempfile::tempdir().expect("a directory");
    let harness = Harness::new();
    let disk = || Arc::new(LocalDisk::create(dir.path()).expect("a disk"));
    let open = || Journal::open(disk(), harness.options.clone(), harness.clock.clone(), harness.metrics.clone());
    let journal = open().expect("the journal opens");
    assert!(disk().is_locked().expect("the lock can be tested"));
    assert!(matches!(open(), Err(OpenError::Locked)));
    journal.close();
    assert!(!disk().is_locked().expect("the lock can be tested"));
    open().expect("the lock is free").close();
}

#[test]
fn a_missing_or_damaged_meta_file_is_rebuilt() {
    let harness = Harness::new();
    let journal = harness.open();
    let hash_key = journal.hash_key();
    store(&journal, &sample(0, 100));
    journal.close();
    let meta = harness.disk.bytes("meta");
    let expect_rebuilt = |damaged: u64| {
        let opened = harness.try_open();
        assert!(opened.is_ok(), "the meta file prevents the start: {:?}", opened.err());
        let journal = opened.expect("it is open");
        assert_eq!((journal.hash_key(), seqs(&journal)), (hash_key, vec![0]));
        assert_eq!(lookup(&journal, &key(0)), Some(0));
        journal.close();
        assert_eq!(harness.disk.bytes("meta"), meta);
        assert_eq!(harness.metrics.journal.damaged.get(), damaged);
    };
    harness.disk.corrupt("meta", 20..21, |byte| !byte);
    expect_rebuilt(1);
    harness.disk.remove_file("meta");
    expect_rebuilt(2);
    harness.disk.fail(Step::Read, "meta", io::ErrorKind::Other, 1);
    expect_rebuilt(3);
}

#[test]
fn a_journal_of_a_later_format_is_rejected() {
    let harness = Harness::new();
    harness.open().close();
    let mut later = harness.disk.bytes("meta");
    later[8] = 3;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&later[..12]), &later[16..]);
    later[12..16].copy_from_slice(&crc.to_le_bytes());
    harness.disk.put_file("meta", &later);
    let Err(error) = harness.try_open() else { panic!("the journal opened") };
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.contains("expected format 2, found format 3") && cause.contains("later version"), "{error}: {cause}");
    assert_eq!(harness.disk.bytes("meta"), later, "the file is unchanged");
}

#[test]
fn files_with_foreign_names_are_never_deleted() {
    let harness = Harness::new();
    let foreign = ["notes.tmp", "mail.spare", "a-1-2.keys", "0000000001-0-x.seg.tmp"];
    foreign.iter().for_each(|name| harness.disk.put_file(name, b"not ours"));
    let ours = ["next.spare", "0000000001-0-00000000000000ff.spare", "0000000001-0-00000000000000ff.keys.tmp"];
    ours.iter().for_each(|name| harness.disk.put_file(name, b"ours"));
    harness.open().close();
    assert!(foreign.iter().all(|name| harness.disk.len(name).is_some()), "{:?}", harness.disk.names(""));
    assert!(ours.iter().all(|name| harness.disk.len(name).is_none()), "{:?}", harness.disk.names(""));
}

/// An operator may copy a segment under another name, or copy segments of another journal into the directory.
#[test]
fn a_foreign_segment_costs_no_event_and_is_never_deleted() {
    let same_places = Harness::with_sealed_segments();
    let other_places = Harness::new();
    let journal = other_places.open();
    store_many(&journal, 0..60, 1_700);
    journal.close();
    let all = |harness: &Harness| {
        harness.disk.names(".seg").into_iter().map(|name| (name.clone(), harness.disk.bytes(&name))).collect::<Vec<_>>()
    };
    for case in 0..7 {
        let harness = Harness::with_sealed_segments();
        let first = harness.disk.names(".seg").remove(0);
        let (_, id) = first.rsplit_once('-').expect("a segment name");
        let foreign = match case {
            0 => vec![(format!("0000000099-0-{id}"), harness.disk.bytes(&first))],
            1 => vec![(format!("0000000002-5-{id}"), harness.disk.bytes(&first))],
            2 => all(&same_places),
            3 => all(&other_places),
            4 => vec![("18446744073709551615-0-00000000000000aa.seg".into(), vec![7; 9_000])],
            5 => vec![("4294967295-18446744073709551615-00000000000000aa.seg".into(), vec![7; 9_000])],
            _ => vec![("0000000002-18446744073709551615-00000000000000aa.seg".into(), vec![7; 9_000])],
        };
        foreign.iter().for_each(|(name, bytes)| harness.disk.put_file(name, bytes));
        for opening in 0..3 {
            let what = format!("case {case}, opening {opening}");
            let journal = harness.open();
            assert_eq!(seqs(&journal), (0..60 + opening).collect::<Vec<_>>(), "{what}");
            assert!((0..60).all(|number| lookup(&journal, &key(number)) == Some(number as u64)), "{what}");
            assert_eq!(store(&journal, &sample(60 + opening as usize, 100)).seq, 60 + opening, "{what}");
            journal.close();
            let mut outside = harness.read_only();
            let read = std::iter::from_fn(|| outside.next().expect("readable")).count() as u64;
            assert!(matches!(case, 2 | 3) || read == 61 + opening, "{what}: another process reads {read} events");
            assert!(foreign.iter().all(|(name, bytes)| harness.disk.bytes(name) == *bytes), "{what}: a file has changed");
        }
        assert_eq!(harness.metrics.journal.damaged.get(), 0, "case {case}: no event is lost");
    }
}

/// The ids of another journal would give this journal another hash key, so that it would store duplicates.
#[test]
fn a_damaged_meta_file_never_gets_the_ids_of_a_foreign_segment() {
    let other = Harness::new();
    // The segments of the other journal look newer.
    (0..30).for_each(|_| other.open().close());
    let journal = other.open();
    store_many(&journal, 0..3, 100);
    let foreign_key = journal.hash_key();
    journal.close();
    let foreign = other.disk.names(".seg").pop().expect("a segment");
    for damage in ["damaged", "missing"] {
        let harness = Harness::with_sealed_segments();
        let meta = harness.disk.bytes("meta");
        assert!(harness.disk.names(".seg").pop().expect("a segment") < foreign);
        harness.disk.put_file(&foreign, &other.disk.bytes(&foreign));
        match damage {
            "damaged" => harness.disk.corrupt("meta", 20..21, |byte| !byte),
            _ => harness.disk.remove_file("meta"),
        }
        let journal = harness.open();
        assert_ne!(journal.hash_key(), foreign_key, "{damage}");
        assert_eq!(harness.disk.bytes("meta"), meta, "{damage}");
        assert!((0..60).all(|number| lookup(&journal, &key(number)) == Some(number as u64)), "{damage}");
        journal.close();
    }
}

/// Random numbers in ascending order.
struct Ascending(AtomicU64);

impl Random for Ascending {
    fn next_u64(&self) -> io::Result<u64> {
        Ok(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// The startup draws new ids, and dies before it has synced its first segment. The next startup must not take this segment for one of
/// another journal and use its place again: the one after it could not tell the two segments apart.
#[test]
fn a_segment_of_an_interrupted_startup_with_new_ids_is_ours() {
    let harness = Harness::stopped(|_| {});
    let random = Arc::new(Ascending(AtomicU64::new(1)));
    let open = || harness.open_in_steps_with(harness.environment(harness.disk.start(), random.clone()));
    open().close();
    harness.disk.corrupt("meta", 20..21, |byte| !byte);
    harness.disk.fail(Step::Read, ".seg", io::ErrorKind::Other, 1);
    let interrupted = harness.environment(harness.disk.start(), random.clone());
    let (disk, died) = (harness.disk.clone(), harness.disk.names(".seg"));
    harness.disk.observe(move |step, name| {
        if step == Step::Sync && name.ends_with(".seg") && !died.contains(&name.to_owned()) {
            disk.kill();
        }
    });
    assert!(Journal::open_in_steps(interrupted, harness.options.clone()).is_err());
    harness.disk.observe(|_, _| {});
    assert_eq!(harness.disk.names(".seg").len(), 2);
    let mut journal = open();
    let stored = journal.store(&sample(0, 100));
    harness.kill_stepped(journal);
    for _ in 0..2 {
        let journal = open();
        assert_eq!(seqs(&journal.journal), [stored.seq]);
        harness.kill_stepped(journal);
    }
}

#[test]
fn a_journal_of_format_1_is_rejected_and_both_formats_are_named() {
    let mut meta = [b"hookmeta", &1u32.to_le_bytes()[..], &[7; 16]].concat();
    meta.extend(crc32c::crc32c(&meta).to_le_bytes());
    let harness = Harness::new();
    harness.disk.put_file("meta", &meta);
    let Err(error) = harness.try_open() else { panic!("the journal opened") };
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(error.to_string().contains("meta") && cause.contains("expected format 2, found format 1"), "{error}: {cause}");
    assert_eq!(harness.disk.bytes("meta"), meta, "the file is unchanged");
}

#[test]
fn a_file_that_cannot_be_read_does_not_prevent_the_start() {
    let harness = Harness::with_sealed_segments();
    for ending in [".keys", SUMMARY_EXT, "meta", "lock", "reserve"] {
        harness.disk.fail(Step::Read, ending, io::ErrorKind::Other, 1_000);
        let opened = harness.try_open();
        assert!(opened.is_ok(), "{ending} prevents the start: {:?}", opened.err());
        let journal = opened.expect("it is open");
        assert_eq!(seqs(&journal), (0..60).collect::<Vec<_>>(), "{ending}");
        assert!((0..60).all(|number| lookup(&journal, &key(number)) == Some(number as u64)), "{ending}");
        harness.disk.clear_faults();
        journal.close();
    }
}

/// Replaces a file by something else, as an interrupted restore may. The opening of a named pipe would wait until another process
/// writes to it.
#[test]
fn a_file_that_is_no_regular_file_neither_delays_nor_prevents_a_start() {
    for kind in ["pipe", "directory", "link"] {
        for ending in ["meta", ".keys", SUMMARY_EXT, "reserve"] {
            let dir = tempfile::tempdir().expect("a directory");
            let harness = Harness::new();
            let open = || {
                let disk = Arc::new(LocalDisk::create(dir.path()).expect("a disk"));
                let (options, clock, metrics) = (harness.options.clone(), harness.clock.clone(), harness.metrics.clone());
                let (sender, opened) = channel();
                std::thread::spawn(move || sender.send(Journal::open(disk, options, clock, metrics)));
                let opened = opened.recv_timeout(PATIENCE);
                opened.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for a start, {ending} is a {kind}"))
            };
            let journal = open().expect("the journal opens");
            store_many(&journal, 0..60, 2_000);
            let paths = || std::fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").path());
            let find = || paths().filter(|path| path.to_str().is_some_and(|path| path.ends_with(ending))).min();
            wait_until("a file of this kind", || find().is_some());
            journal.close();
            let path = find().expect("a file of this kind");
            std::fs::remove_file(&path).expect("the file can be deleted");
            match kind {
                "pipe" => assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo can be run").success()),
                "directory" => std::fs::create_dir(&path).expect("a directory can be created"),
                _ => std::os::unix::fs::symlink("/dev/zero", &path).expect("a link can be created"),
            }
            let journal = open().unwrap_or_else(|error| panic!("{ending} is a {kind}: {error}"));
            assert_eq!(seqs(&journal), (0..60).collect::<Vec<_>>(), "{ending} is a {kind}");
            assert!((0..60).all(|number| lookup(&journal, &key(number)) == Some(number as u64)), "{ending} is a {kind}");
            journal.close();
        }
    }
}

#[test]
fn a_segment_that_cannot_be_read_keeps_its_bytes_and_its_sequences() {
    let harness = Harness::new();
    let journal = harness.open();
    let stored = store_many(&journal, 0..3, 100);
    harness.kill(journal);
    let segment = harness.disk.names(".seg").remove(0);
    let bytes = harness.disk.bytes(&segment);
    harness.disk.fail(Step::Read, &segment, io::ErrorKind::Other, 1_000_000);
    let journal = harness.open();
    assert_eq!(harness.metrics.journal.damaged.get(), 2, "the segment, and the cursors that only this segment contains");
    let next = store(&journal, &sample(3, 100));
    assert!(next.seq > stored[2].seq, "{next} may have the sequence of an event that cannot be read");
    harness.kill(journal);
    harness.disk.clear_faults();
    assert!(harness.disk.bytes(&segment) == bytes, "the unreadable file has changed");
    let journal = harness.open();
    assert_eq!(seqs(&journal), [0, 1, 2, next.seq], "the events can be read again");
    journal.close();
}

#[test]
fn only_the_owner_can_access_directory_and_files() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("a/journal");
    let harness = Harness::new();
    let disk = Arc::new(LocalDisk::create(&dir).expect("a disk"));
    let journal =
        Journal::open(disk, harness.options.clone(), harness.clock.clone(), harness.metrics.clone()).expect("the journal opens");
    store_many(&journal, 0..60, 2_000);
    journal.close();
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = std::fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    assert!(files.len() > 6, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
}
