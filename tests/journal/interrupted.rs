//! Tests of startups that a kill or a power cut interrupts.

use std::sync::Arc;

use hookhold::journal::{Journal, SystemRandom};
use hookhold::metrics::Metrics;

use crate::disk::SimDisk;
use crate::harness::*;

/// Opens the journal in a process that dies in this step. Returns false if the process has opened the journal before.
fn interrupt(harness: &Harness, step: u64) -> bool {
    let disk = harness.disk.start();
    harness.disk.die_after(step);
    // A dead process cannot read its files, so its metrics show damage.
    let environment =
        hookhold::journal::Environment { metrics: Arc::new(Metrics::new()), ..harness.environment(disk, Arc::new(SystemRandom)) };
    let opened = Journal::open_in_steps(environment, harness.options.clone());
    let is_interrupted = harness.disk.is_dead();
    drop(opened);
    harness.disk.kill();
    is_interrupted
}

/// The first startup copies the unconfirmed event and dies before it has synced the name of the copy. The second one relies on this
/// name. The power cut after that may lose each name on its own.
#[test]
fn two_interrupted_startups_lose_no_event_and_count_no_damage() {
    let mut interrupted = 0;
    let steps = || (1..STEPS).flat_map(|first| (1..STEPS).map(move |second| (first, second)));
    for (seed, (first, second)) in (0..SEEDS).flat_map(|seed| steps().map(move |steps| (seed, steps))) {
        let harness = Harness { disk: SimDisk::new(seed), ..Harness::stopped(|_| {}) };
        let mut journal = harness.open_in_steps();
        (0..3).for_each(|number| _ = journal.store(&sample(number, 100)));
        // The process dies in the sync of the next commit.
        harness.disk.die_after(2);
        let torn = append(&journal.journal, &sample(3, 100).event()).expect("accepted");
        journal.step_writer();
        assert!(torn.try_recv().is_ok_and(|end| end.is_err()));
        harness.kill_stepped(journal);
        interrupted += usize::from(interrupt(&harness, first) && interrupt(&harness, second));
        harness.disk.cut_power();
        let journal = harness.open_in_steps();
        let what = format!("interrupted in the steps {first} and {second}, seed {seed}");
        assert_eq!(harness.metrics.journal.damaged.get(), 0, "{what}");
        assert!(matches!(*seqs(&journal.journal), [0, 1, 2] | [0, 1, 2, 3]), "{what}: {:?}", seqs(&journal.journal));
    }
    assert!(interrupted > 1_000, "{interrupted} lives with two interrupted startups");
}

/// Number of the step in which the last startup is interrupted, plus one.
const STEPS: u64 = 16;
/// The seed determines what the power cut loses.
const SEEDS: u64 = 32;
