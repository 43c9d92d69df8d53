//! Tests that an event survives after the journal has reported a successful append. The tests run random lives of a journal on
//! a disk that may lose all unsynced data, and compare the journal with a plain model.
//!
//! A life is a sequence of openings. In each opening, a process opens the journal and uses it until a close, a kill or a power
//! cut. A kill or a power cut can happen in any step, including the steps of a recovery. `HOOKHOLD_SEED=n` repeats one life.
//! The seed determines the actions but not the interleaving of the threads, so a seed that failed once may need several runs to
//! fail again.

mod checks;
#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/events.rs"]
mod events;
mod life;

use std::ops::Range;
use std::sync::Mutex;

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
    let noticed: Vec<_> = (0..40).filter_map(|seed| life::run(seed, hazards).err()).collect();
    assert!(noticed.len() > 10, "the model noticed only {} of 40 lives", noticed.len());
    assert!(noticed.iter().any(|what| what.contains("is lost")), "{noticed:?}");
}

fn assert_all_lives(seeds: Range<u64>, hazards: Hazards) {
    if let Ok(seed) = std::env::var("HOOKHOLD_SEED") {
        let seed = seed.parse().expect("HOOKHOLD_SEED is a number");
        return if seeds.contains(&seed) {
            assert_eq!(life::run(seed, hazards).err(), None, "seed {seed}")
        };
    }
    let next = Mutex::new(seeds);
    let counts = Mutex::new(LifeCounts::default());
    let worker = || {
        while let Some(seed) = { next.lock().expect("no panic inside").next() } {
            match life::run(seed, hazards) {
                Ok(one) => counts.lock().expect("no panic inside").add(one),
                Err(what) => panic!("seed {seed}: {what}"),
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

/// Counts from one life or from all lives of one test, such as successful appends and crashes. The test fails if a total is too
/// low.
#[derive(Debug, Default)]
struct LifeCounts {
    lives: u64,
    acknowledged: u64,
    recovered: u64,
    interrupted_openings: u64,
    crashes: u64,
    corrupted: u64,
    deleted: u64,
    recycled: u64,
    failed: u64,
    batched: u64,
}

impl LifeCounts {
    fn add(&mut self, other: LifeCounts) {
        self.lives += 1;
        self.acknowledged += other.acknowledged;
        self.recovered += other.recovered;
        self.interrupted_openings += other.interrupted_openings;
        self.crashes += other.crashes;
        self.corrupted += other.corrupted;
        self.deleted += other.deleted;
        self.recycled += other.recycled;
        self.failed += other.failed;
        self.batched += other.batched;
    }

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
