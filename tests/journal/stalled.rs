//! Tests of disk operations that hang, and of failed syncs of the directory.

use std::io;
use std::time::Duration;

use hookhold::journal::{AppendError, AppendRejected};

use crate::disk::Step;
use crate::harness::*;

#[test]
fn every_hanging_operation_of_the_writer_makes_the_journal_unavailable() {
    // The event is larger than a segment, so the writer allocates another segment for it.
    for (step, ending, size) in [
        (Step::Write, ".seg", 10),
        (Step::Sync, ".seg", 10),
        (Step::Create, ".seg", 100_000),
        (Step::SyncDir, "", 100_000),
        (Step::Sync, "lock", 100_000),
    ] {
        let harness = Harness::new();
        let journal = harness.open();
        store(&journal, &sample(0, 10));
        assert_eq!(journal.unavailable_reason(Duration::from_secs(8)), None);
        let gate = harness.disk.hold(step, ending);
        let end = append(&journal, &sample(1, size).event()).expect("accepted");
        gate.wait_for(1);
        assert_eq!(journal.unavailable_reason(Duration::from_secs(8)), None, "{step:?} {ending}: the operation has just begun");
        harness.clock.advance(8_000);
        let reason = journal.unavailable_reason(Duration::from_secs(8));
        assert!(reason.is_some_and(|reason| reason.contains("check the disk")), "{step:?} {ending}: {reason:?}");
        gate.release();
        assert!(end.recv().expect("a result").is_ok(), "{step:?} {ending}");
        assert_eq!(journal.unavailable_reason(Duration::from_secs(8)), None, "{step:?} {ending}: the operation has ended");
        journal.close();
    }
}

#[test]
fn a_failed_sync_of_the_directory_is_never_retried() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 10));
    harness.disk.fail(Step::SyncDir, "", io::ErrorKind::Other, 1);
    let end = append(&journal, &sample(1, 100_000).event()).expect("accepted").recv();
    assert_eq!(end.expect("a result"), Err(AppendError::Sync), "the name of the new segment may not be durable");
    assert!(journal.failed());
    assert_eq!(append(&journal, &sample(2, 10).event()).err(), Some(AppendRejected::Failed));
    journal.close();
    let journal = harness.open();
    assert_eq!(seqs(&journal), [0]);
    journal.close();
}

#[test]
fn a_failed_sync_of_the_owner_record_ends_the_journal() {
    let harness = Harness::new();
    let journal = harness.open();
    store(&journal, &sample(0, 10));
    harness.disk.fail(Step::Sync, "lock", io::ErrorKind::Other, 1);
    let end = append(&journal, &sample(1, 100_000).event()).expect("accepted").recv();
    assert_eq!(end.expect("a result"), Err(AppendError::Sync));
    assert!(journal.failed());
    journal.close();
}
