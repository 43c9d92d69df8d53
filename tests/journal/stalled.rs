//! Tests of disk operations that hang, and of failed syncs of the directory.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookhold::journal::{AppendError, AppendRejected, Journal, SystemRandom};

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

/// A failed sync of the directory may lose the new names. The next sync then succeeds without them.
#[test]
fn a_sync_of_the_directory_after_a_failed_one_proves_nothing() {
    let harness = Harness::stopped(|options| options.max_recent_keys = 0);
    harness.disk.forget_names();
    let environment = harness.environment(harness.disk.start(), Arc::new(SystemRandom));
    let (journal, mut writer, mut background) =
        Journal::open_in_steps(environment, harness.options.clone()).expect("the journal opens");
    for number in 0..40 {
        append(&journal, &sample(number, 2_000).event()).expect("accepted").try_recv().unwrap_err();
        writer.step();
    }
    // While the merge of the key files syncs the name of the new file, the writer syncs the name of a new segment.
    let (disk, writer, appending) = (harness.disk.clone(), Mutex::new(Some(writer)), journal.clone());
    let before = Arc::new(Mutex::new(Vec::new()));
    let key_files = before.clone();
    harness.disk.observe(move |step, _| {
        let names = disk.names(".keys");
        let is_merged = step == Step::SyncDir && names.iter().any(|name| name.starts_with("merged-"));
        // The steps of the writer call this function again.
        let writer = writer.lock().expect("no panic inside").take_if(|_| is_merged);
        if let Some(mut writer) = writer {
            *key_files.lock().expect("no panic inside") = names;
            disk.fail(Step::SyncDir, "", io::ErrorKind::Other, 1);
            append(&appending, &sample(40, 100_000).event()).expect("accepted").try_recv().unwrap_err();
            writer.step();
        }
    });
    while background.step() {}
    harness.disk.observe(|_, _| {});
    assert!(journal.failed());
    let before = std::mem::take(&mut *before.lock().expect("no panic inside"));
    let sealed: Vec<_> = before.iter().filter(|name| !name.starts_with("merged-")).collect();
    assert!(!sealed.is_empty() && sealed.len() < before.len(), "{before:?}");
    assert!(
        sealed.iter().all(|name| harness.disk.len(name).is_some()),
        "the merge has deleted a file that it may have to read again"
    );
    harness.disk.cut_power();
    let journal = harness.open();
    assert!((0..40).all(|number| lookup(&journal, &key(number)) == Some(number as u64)));
    assert_eq!(harness.metrics.journal.damaged.get(), 0);
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

#[test]
fn the_metrics_show_keys_that_wait_for_a_merge() {
    let harness = Harness::stopped(|options| options.max_recent_keys = 16);
    let mut journal = harness.open_in_steps();
    let metrics = &harness.metrics.journal;
    for number in 0..200 {
        journal.store(&sample(number, 2_000));
    }
    let mut most = 0;
    while journal.step_background() {
        most = most.max(metrics.unmerged_keys.get());
    }
    assert!(most > metrics.unmerged_keys_limit.get(), "{most} keys, the limit is {}", metrics.unmerged_keys_limit.get());
    harness.clock.advance(10_000);
    while journal.step_background() {}
    assert!(metrics.unmerged_keys.get() <= 16 && metrics.key_files.get() > 0, "{}", metrics.unmerged_keys.get());
    journal.close();
}
