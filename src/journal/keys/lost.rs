//! The sequences of lost events. Their keys are forgotten, so that hookhold can store retries of these events.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::super::POISON;
use super::ranges;

/// Sequences of lost events.
#[derive(Default)]
pub(super) struct LostSequences {
    /// All ranges that this process knows. No range is ever removed, because a cache outside the journal may contain a key of a
    /// lost event.
    known: ArcSwap<Vec<Range<u64>>>,
    /// Ranges whose keys may still be in a key file.
    stored: Mutex<Vec<Range<u64>>>,
    /// Number of changes of `stored`.
    version: AtomicU64,
}

impl LostSequences {
    /// Adds a range. Returns the number of its sequences that were not known before.
    pub(super) fn add(&self, sequences: Range<u64>) -> u64 {
        // No other function changes `known`, so the lock serializes its changes.
        let mut stored = self.stored.lock().expect(POISON);
        let known = self.known.load();
        if sequences.is_empty() || ranges::cover(&known, &sequences) {
            return 0;
        }
        let mut more = Vec::clone(&known);
        ranges::insert(&mut more, sequences.clone());
        let added = ranges::len(&more) - ranges::len(&known);
        self.known.store(Arc::new(more));
        ranges::insert(&mut stored, sequences);
        self.version.fetch_add(1, Ordering::Release);
        added
    }

    /// Returns true if the event with this sequence is lost.
    pub(super) fn contains(&self, seq: u64) -> bool {
        ranges::contain(&self.known.load(), seq)
    }

    /// Returns the ranges whose keys may still be in a key file.
    pub(super) fn stored(&self) -> Vec<Range<u64>> {
        self.stored.lock().expect(POISON).clone()
    }

    /// Removes the ranges whose keys are in no key file any more.
    pub(super) fn retain_stored(&self, is_stored: impl Fn(&Range<u64>) -> bool) {
        let mut stored = self.stored.lock().expect(POISON);
        let before = stored.len();
        stored.retain(is_stored);
        if stored.len() < before {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Returns the number of changes of [`LostSequences::stored`].
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Returns all ranges that are known now.
    pub(super) fn snapshot(&self) -> Arc<Vec<Range<u64>>> {
        self.known.load_full()
    }

    /// Returns true if a range has been added since `snapshot`.
    pub(super) fn has_changed_since(&self, snapshot: &Arc<Vec<Range<u64>>>) -> bool {
        !Arc::ptr_eq(snapshot, &self.known.load_full())
    }
}
