//! What is acknowledged survives: random lives of a journal on a disk that loses whatever was not synced, with a plain model
//! to disagree with.
//!
//! A life is a row of openings; each ends by a close, a kill or a power cut, at any step, also in the middle of a recovery.
//! `HOOKHOLD_SEED=n` runs one life again. The seed decides what happens, the threads decide how it interleaves: a seed that
//! failed once may need several runs.

mod checks;
#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/events.rs"]
mod events;
mod life;

use std::ops::Range;
use std::sync::Mutex;

use life::live;

/// What a life may contain.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// Old segments are deleted.
    retention: bool,
    /// Writes, syncs and creations fail; the disk becomes full.
    faults: bool,
    /// Bytes below the mark change.
    rot: bool,
    /// Every sync lies.
    lies: bool,
    /// Openings are long, so that files of deleted segments are written over.
    long: bool,
}

#[test]
fn what_is_acknowledged_survives_power_cuts_and_kills() {
    assert_all_lives(0..1000, Trouble::default());
}

#[test]
fn what_is_acknowledged_survives_failing_disks() {
    assert_all_lives(1000..1400, Trouble { faults: true, ..Trouble::default() });
}

#[test]
fn what_is_acknowledged_survives_beside_retention() {
    assert_all_lives(1400..1700, Trouble { retention: true, faults: true, ..Trouble::default() });
}

#[test]
fn what_is_acknowledged_survives_in_files_that_are_written_over() {
    assert_all_lives(2000..2300, Trouble { retention: true, long: true, ..Trouble::default() });
}

#[test]
fn rot_costs_only_what_it_hits() {
    assert_all_lives(1700..2000, Trouble { rot: true, ..Trouble::default() });
}

#[test]
fn a_mistaken_early_answer_is_found() {
    let lies = Trouble { lies: true, ..Trouble::default() };
    let found: Vec<_> = (0..40).filter_map(|seed| live(seed, lies).err()).collect();
    assert!(found.len() > 10, "only {} of 40 lives were found to be lies", found.len());
    assert!(found.iter().any(|what| what.contains("is lost")), "{found:?}");
}

fn assert_all_lives(seeds: Range<u64>, trouble: Trouble) {
    if let Ok(seed) = std::env::var("HOOKHOLD_SEED") {
        let seed = seed.parse().expect("HOOKHOLD_SEED is a number");
        return if seeds.contains(&seed) {
            assert_eq!(live(seed, trouble).err(), None, "seed {seed}")
        };
    }
    let next = Mutex::new(seeds);
    let counts = Mutex::new(LifeCounts::default());
    let worker = || {
        while let Some(seed) = { next.lock().expect("no panic inside").next() } {
            match live(seed, trouble) {
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
    counts.assert_not_empty(trouble);
}

/// What happened, so that an empty test is noticed.
#[derive(Debug, Default)]
struct LifeCounts {
    lives: u64,
    acknowledged: u64,
    recovered: u64,
    cut_openings: u64,
    cuts: u64,
    rotten: u64,
    deleted: u64,
    recycled: u64,
    failed: u64,
}

impl LifeCounts {
    fn add(&mut self, other: LifeCounts) {
        self.lives += 1;
        self.acknowledged += other.acknowledged;
        self.recovered += other.recovered;
        self.cut_openings += other.cut_openings;
        self.cuts += other.cuts;
        self.rotten += other.rotten;
        self.deleted += other.deleted;
        self.recycled += other.recycled;
        self.failed += other.failed;
    }

    fn assert_not_empty(&self, trouble: Trouble) {
        let lives = self.lives;
        assert!(lives >= 300, "{self:?}");
        assert!(self.acknowledged > 10 * lives && self.cuts > lives && self.cut_openings > lives / 10, "{self:?}");
        assert!(self.recovered > lives / 10, "{self:?}");
        assert!(!trouble.rot || self.rotten > lives / 5, "{self:?}");
        assert!(!trouble.retention || self.deleted > lives / 2, "{self:?}");
        assert!(!trouble.long || self.recycled > lives, "{self:?}");
        assert!(!trouble.faults || self.failed > lives / 10, "{self:?}");
    }
}
