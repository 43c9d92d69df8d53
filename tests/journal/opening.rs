//! opening.

use crate::disk::Step;
use crate::events::TOPICS;
use hookhold::event::Position;
use hookhold::journal::disk::{Disk, LocalDisk};
use hookhold::journal::{AppendError, Journal, OpenError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::harness::*;

#[test]
fn a_clean_stop_needs_no_copy() {
    let harness = Harness::new();
    let journal = harness.open();
    keep_many(&journal, 0..5, 100);
    journal.save_cursor(TOPICS[0], 3);
    journal.close();
    harness.disk.cut_power();
    let verdict = harness.outside().verify().expect("it can be read");
    assert_eq!((verdict.events, verdict.unconfirmed), (5, 0), "the last commit holds the mark");
    let before = harness.disk.names(".seg").len();
    let journal = harness.open();
    assert_eq!(harness.disk.names(".seg").len(), before + 1, "only the segment of this opening is new");
    assert_eq!(journal.topic_cursors().iter().map(|lane| lane.cursor).collect::<Vec<_>>(), [3]);
    assert_eq!(seqs(&journal), [0, 1, 2, 3, 4]);
    journal.close();
}

#[test]
fn a_stop_behind_a_full_or_abandoned_segment_still_holds_the_mark() {
    let harness = Harness::new();
    let journal = harness.open();
    keep(&journal, &sample(0, 100));
    harness.disk.fail(Step::Write, ".seg", io::ErrorKind::Other, 1);
    assert_eq!(try_keep(&journal, &sample(1, 100)), Err(AppendError::Write));
    journal.save_cursor(TOPICS[0], 1);
    journal.close();
    harness.disk.cut_power();
    let verdict = harness.outside().verify().expect("it can be read");
    assert_eq!((verdict.events, verdict.unconfirmed), (1, 0));
    assert_eq!(harness.open().topic_cursors()[0].cursor, 1);
}

#[test]
fn after_a_kill_the_last_commit_is_copied_under_its_first_position() {
    let harness = Harness::new();
    let journal = harness.open();
    let positions = keep_many(&journal, 0..5, 100);
    harness.kill(journal);
    assert_eq!(harness.outside().verify().expect("it can be read").unconfirmed, 1, "the last of five commits");
    let journal = harness.open();
    let found: Vec<Position> = read(&journal).iter().map(|stored| stored.position).collect();
    assert_eq!(found, positions);
    let next = keep(&journal, &sample(5, 10));
    assert_eq!(next.seq, 5);
    assert_ne!(next.log, positions[0].log, "every opening draws a new log id");
    journal.close();
}

#[test]
fn a_second_opening_is_refused_while_the_first_lives() {
    let harness = Harness::new();
    let journal = harness.open();
    let second =
        || Journal::open(harness.disk.second_process(), harness.options.clone(), harness.clock.clone(), harness.metrics.clone());
    assert!(matches!(second(), Err(OpenError::Locked)));
    journal.close();
    second().expect("the lock is free").close();
}

#[test]
fn a_second_opening_of_a_real_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let harness = Harness::new();
    let disk = || Arc::new(LocalDisk::create(dir.path()).expect("a disk"));
    let open = || Journal::open(disk(), harness.options.clone(), harness.clock.clone(), harness.metrics.clone());
    let journal = open().expect("it opens");
    assert!(disk().is_locked("lock").expect("an answer"));
    assert!(matches!(open(), Err(OpenError::Locked)));
    journal.close();
    assert!(!disk().is_locked("lock").expect("an answer"));
    open().expect("the lock is free").close();
}

#[test]
fn the_meta_file_missing_damaged_or_later_says_so() {
    let text = |harness: &Harness| match harness.try_open() {
        Err(error) => format!("{error}: {}", std::error::Error::source(&error).expect("a cause")),
        Ok(_) => panic!("it opened"),
    };
    let harness = Harness::new();
    harness.open().close();
    let meta = harness.disk.bytes("meta");

    harness.disk.corrupt("meta", 20..21, |byte| !byte);
    assert!(text(&harness).contains("meta") && text(&harness).contains("damaged"), "{}", text(&harness));

    harness.disk.remove_file("meta");
    assert!(text(&harness).contains("missing"), "{}", text(&harness));

    let mut later = meta.clone();
    later[8] = 2;
    let crc = crc32c::crc32c(&later[..28]);
    later[28..].copy_from_slice(&crc.to_le_bytes());
    harness.disk.put_file("meta", &later);
    assert!(text(&harness).contains("later version"), "{}", text(&harness));

    harness.disk.remove_file("meta");
    harness.disk.put_file("meta", &meta);
    harness.open().close();
}

#[test]
fn directory_and_files_are_the_owners_alone() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("a/journal");
    let harness = Harness::new();
    let disk = Arc::new(LocalDisk::create(&dir).expect("a disk"));
    let journal = Journal::open(disk, harness.options.clone(), harness.clock.clone(), harness.metrics.clone()).expect("it opens");
    keep_many(&journal, 0..60, 2_000);
    journal.close();
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = std::fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    assert!(files.len() > 6, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
}
