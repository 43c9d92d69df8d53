//! Tests of the ownership of a directory: only one process writes to a journal, and a process that no longer owns its journal
//! stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{AppendError, AppendRejected, Journal, OpenError};

use crate::events::TOPICS;
use crate::harness::*;

fn open(harness: &Harness, dir: &Path) -> Result<Journal, OpenError> {
    let disk = Arc::new(LocalDisk::create(dir).expect("a directory"));
    Journal::open(disk, harness.options.clone(), harness.clock.clone(), harness.metrics.clone())
}

/// Opens a journal with one event in a new directory.
fn journal_in(parent: &Path) -> (Harness, PathBuf, Journal) {
    let (harness, dir) = (Harness::new(), parent.join("journal"));
    let journal = open(&harness, &dir).expect("the journal opens");
    store(&journal, &sample(0, 100));
    (harness, dir, journal)
}

/// Wakes the background work, which checks the ownership, until the journal has failed.
fn wait_until_failed(journal: &Journal) {
    wait_until("the journal to fail", || {
        journal.save_cursor(TOPICS[1], 0, 0);
        journal.failed()
    });
    let end = append(journal, &sample(1, 100).event());
    let is_rejected = match end {
        Err(rejected) => rejected == AppendRejected::Failed,
        Ok(end) => matches!(end.recv(), Ok(Err(AppendError::Sync)) | Err(_)),
    };
    assert!(is_rejected, "a journal without ownership stores no event");
    journal.close();
}

#[test]
fn a_moved_directory_ends_the_journal() {
    let parent = tempfile::tempdir().expect("a directory");
    let (harness, dir, journal) = journal_in(parent.path());
    let moved = parent.path().join("moved");
    std::fs::rename(&dir, &moved).expect("the directory can be moved");
    std::fs::create_dir(&dir).expect("the directory can be created");
    wait_until_failed(&journal);
    assert_eq!(std::fs::read_dir(&dir).expect("a directory").count(), 0, "the process wrote nothing to the new directory");
    let journal = open(&harness, &moved).expect("the moved journal opens");
    assert_eq!(seqs(&journal), [0], "the event is where the directory is now");
    journal.close();
}

#[test]
fn a_record_of_another_owner_ends_the_journal() {
    let parent = tempfile::tempdir().expect("a directory");
    let (harness, dir, journal) = journal_in(parent.path());
    let other = parent.path().join("other");
    open(&harness, &other).expect("another journal opens").close();
    std::fs::rename(other.join("lock"), dir.join("lock")).expect("the file can be replaced");
    wait_until_failed(&journal);
}

#[test]
fn a_deleted_lock_file_admits_no_second_process() {
    let parent = tempfile::tempdir().expect("a directory");
    let (harness, dir, journal) = journal_in(parent.path());
    std::fs::remove_file(dir.join("lock")).expect("the file can be deleted");
    assert!(matches!(open(&harness, &dir), Err(OpenError::Locked)), "the lock belongs to the directory");
    store_many(&journal, 1..30, 2_000);
    assert!(dir.join("lock").exists(), "the next segment has created the file again");
    assert!(matches!(open(&harness, &dir), Err(OpenError::Locked)));
    journal.close();
    let journal = open(&harness, &dir).expect("the lock is free");
    assert_eq!(seqs(&journal), (0..30).collect::<Vec<_>>());
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
    journal.close();
}
