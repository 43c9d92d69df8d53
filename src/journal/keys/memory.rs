//! The keys in memory: the keys of unsealed segments, and the keys of the newest sealed segments. The keys are in shards, so that
//! lookups and the writer rarely wait for each other.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use super::super::POISON;
use super::super::segment_name::SegmentName;
use super::entry::{KeyEntry, SeenKey};
use super::ranges;
use crate::event_key::{EventKey, PassThroughHasher};

/// Keys in memory. If a key has several entries, the newest entry counts.
pub(super) struct MemoryKeys {
    shards: Vec<Mutex<Shard>>,
    /// Entries of each unsealed segment in the order of their sequences.
    unsealed: Mutex<BTreeMap<SegmentName, Vec<KeyEntry>>>,
}

type Shard = HashMap<EventKey, SeenKey, BuildHasherDefault<PassThroughHasher>>;

impl MemoryKeys {
    pub(super) fn new() -> MemoryKeys {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        MemoryKeys { shards, unsealed: Mutex::default() }
    }

    /// Returns the newest entry of a key.
    pub(super) fn find(&self, key: &EventKey) -> Option<SeenKey> {
        self.shard(key).get(key).copied()
    }

    /// Adds an entry, unless the key has a newer one.
    pub(super) fn insert(&self, (key, seen): KeyEntry) {
        let mut shard = self.shard(&key);
        let newest = shard.entry(key).or_insert(seen);
        if newest.seq < seen.seq {
            *newest = seen;
        }
    }

    /// Adds entries of an unsealed segment.
    pub(super) fn add_unsealed(&self, segment: SegmentName, entries: impl Iterator<Item = KeyEntry>) {
        let mut unsealed = self.unsealed.lock().expect(POISON);
        let list = unsealed.entry(segment).or_default();
        for entry in entries {
            self.insert(entry);
            list.push(entry);
        }
    }

    /// Removes and returns the list of the entries of an unsealed segment. Lookups still find these entries.
    pub(super) fn take_unsealed(&self, segment: SegmentName) -> Vec<KeyEntry> {
        self.unsealed.lock().expect(POISON).remove(&segment).unwrap_or_default()
    }

    /// Undoes [`MemoryKeys::take_unsealed`].
    pub(super) fn restore_unsealed(&self, segment: SegmentName, entries: Vec<KeyEntry>) {
        self.unsealed.lock().expect(POISON).insert(segment, entries);
    }

    /// Returns true if an unsealed segment has an entry with a sequence in `range`.
    pub(super) fn has_unsealed(&self, range: &Range<u64>) -> bool {
        let unsealed = self.unsealed.lock().expect(POISON);
        unsealed.values().flatten().any(|(_, seen)| range.contains(&seen.seq))
    }

    /// Removes all entries whose sequences are in one of the sorted ranges.
    pub(super) fn remove(&self, sequences: &[Range<u64>]) {
        for shard in &self.shards {
            let mut shard = shard.lock().expect(POISON);
            shard.retain(|_, seen| !ranges::contain(sequences, seen.seq));
            let len = shard.len();
            shard.shrink_to(2 * len);
        }
    }

    /// Returns the number of keys.
    pub(super) fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().expect(POISON).len() as u64).sum()
    }

    fn shard(&self, key: &EventKey) -> MutexGuard<'_, Shard> {
        self.shards[key.0[1] as usize % SHARDS].lock().expect(POISON)
    }
}

const SHARDS: usize = 256;
