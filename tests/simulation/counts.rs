//! Counts of what happened in a life. A range of lives that misses a kind of event or fault proves nothing, so the test fails.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name, from one life or from all lives of a range.
#[derive(Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// Counts something that has happened `times` times.
    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    pub fn add(&mut self, other: &Counts) {
        other.0.iter().for_each(|(what, times)| self.count(what, *times));
    }

    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Fails if the lives of a range were too quiet to prove anything.
    pub fn assert_not_empty(&self) {
        let lives = self.get("lives");
        for what in FREQUENT {
            let times = self.get(what);
            assert!(times >= lives / 100, "{what}: {times} in {lives} lives\n{self}");
        }
        for what in RARE {
            let times = self.get(what);
            assert!(times >= lives / 2_000, "{what}: {times} in {lives} lives\n{self}");
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "  {times:>12}  {what}"))
    }
}

/// Events that happen at least in every hundredth life on average.
const FREQUENT: &[&str] = &[
    "append acknowledged",
    "append failed",
    "append rejected",
    "batched event stored",
    "crash",
    "delivery answered as a duplicate",
    "delivery waited for a pending key",
    "event deleted",
    "event forwarded",
    "event recovered",
    "file recycled",
    "lost name",
    "lost page",
    "opening interrupted",
    "read from outside",
    "segment rewritten",
    "sender left",
    "step inside a disk operation",
    "torn page",
];
/// Events that happen at least in every two thousandth life on average.
const RARE: &[&str] = &["expired key replaced", "failed creation", "failed sync", "failed write", "full disk", "key evicted"];
