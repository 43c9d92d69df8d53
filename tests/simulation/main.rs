//! Tests that an event survives after the journal has reported a successful append. The tests run random lives of a journal on
//! a disk that may lose all unsynced data, and compare the journal with a plain model.
//!
//! A life is a sequence of openings. In each opening, a process opens the journal and uses it until a close, a kill or a power
//! cut. A kill or a power cut can happen in any disk operation, including those of a recovery. A life has no threads: one loop
//! performs the steps of all actors in a random order, and a step may run inside a disk operation of another step. The seed
//! determines all of it, so `HOOKHOLD_SEED=n` repeats a life exactly.

mod checks;
mod clock;
#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/events.rs"]
mod events;
mod life;
mod model;
mod trace;

use std::ops::Range;
use std::sync::Mutex;

use model::LifeCounts;

/// Hazards to which a life exposes the journal.
#[derive(Clone, Copy, Default)]
struct Hazards {
    /// True if the journal deletes old segments.
    retention: bool,
    /// True if writes, syncs, creations and renames can fail, and if the disk can become full.
    faults: bool,
    /// True if the test damages bytes below the durable watermark.
    corruption: bool,
    /// True if syncs have no effect.
    ignored_syncs: bool,
    /// True if processes run long enough for the journal to recycle the files of deleted segments.
    long: bool,
}

#[test]
fn acknowledged_events_survive_power_cuts_and_kills() {
    assert_all_lives(0..1000, Hazards::default());
}

#[test]
fn acknowledged_events_survive_failing_and_full_disks() {
    assert_all_lives(1000..1400, Hazards { faults: true, ..Hazards::default() });
}

#[test]
fn acknowledged_events_survive_retention_on_failing_disks() {
    assert_all_lives(1400..1700, Hazards { retention: true, faults: true, ..Hazards::default() });
}

#[test]
fn acknowledged_events_survive_in_recycled_files() {
    assert_all_lives(2000..2300, Hazards { retention: true, long: true, ..Hazards::default() });
}

#[test]
fn corruption_loses_only_the_events_it_hits() {
    assert_all_lives(1700..2000, Hazards { corruption: true, ..Hazards::default() });
}

#[test]
fn the_model_notices_a_disk_that_ignores_syncs() {
    let hazards = Hazards { ignored_syncs: true, ..Hazards::default() };
    let noticed: Vec<_> = (0..40).filter_map(|seed| life::run(seed, hazards, false).err()).collect();
    assert!(noticed.len() > 10, "the model noticed only {} of 40 lives", noticed.len());
    assert!(noticed.iter().any(|what| what.contains("is lost")), "{noticed:?}");
}

fn assert_all_lives(seeds: Range<u64>, hazards: Hazards) {
    if let Ok(seed) = std::env::var("HOOKHOLD_SEED") {
        let seed = seed.parse().expect("HOOKHOLD_SEED is a number");
        return if seeds.contains(&seed) {
            assert_eq!(life::run(seed, hazards, false).err(), None, "seed {seed}")
        };
    }
    let next = Mutex::new(seeds);
    let counts = Mutex::new(LifeCounts::default());
    let worker = || {
        while let Some(seed) = { next.lock().expect("no panic inside").next() } {
            let (one, trace) =
                life::run(seed, hazards, seed % REPEATED == 0).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
            counts.lock().expect("no panic inside").add(&one);
            if seed % REPEATED == 0 {
                let (_, again) = life::run(seed, hazards, true).unwrap_or_else(|what| panic!("seed {seed}, repeated: {what}"));
                assert!(trace.len() > 1_000, "seed {seed} has a trace of {} bytes", trace.len());
                assert_same(seed, &trace, &again);
            }
        }
    };
    std::thread::scope(|scope| {
        let handles = [scope.spawn(worker), scope.spawn(worker)];
        for handle in handles {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let counts = counts.into_inner().expect("no panic inside");
    println!("{counts:?}");
    counts.assert_not_empty(hazards);
}

/// Fails at the first line in which two traces of one seed differ.
fn assert_same(seed: u64, first: &str, second: &str) {
    for (number, (first, second)) in first.lines().zip(second.lines()).enumerate() {
        assert_eq!(first, second, "line {number} of the trace of seed {seed} differs in two runs");
    }
    assert_eq!(first.len(), second.len(), "two traces of seed {seed} differ in their lengths");
}

/// The test runs one of this many seeds twice, and compares the traces.
const REPEATED: u64 = 50;

impl LifeCounts {
    fn assert_not_empty(&self, hazards: Hazards) {
        let lives = self.lives;
        assert!(lives >= 300, "{self:?}");
        assert!(self.acknowledged > 10 * lives && self.crashes > lives && self.interrupted_openings > lives / 10, "{self:?}");
        assert!(self.recovered > lives / 10, "{self:?}");
        assert!(hazards.retention || hazards.corruption || self.batched > lives, "{self:?}");
        assert!(!hazards.corruption || self.corrupted > lives / 5, "{self:?}");
        assert!(!hazards.retention || self.deleted > lives / 2, "{self:?}");
        assert!(!hazards.long || self.recycled > lives, "{self:?}");
        assert!(!hazards.faults || self.failed > lives / 10, "{self:?}");
    }
}
