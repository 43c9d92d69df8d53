//! The keys in memory: the keys of unsealed segments, and the keys of the newest sealed segments. The keys are in shards, so that
//! lookups and the writer rarely wait for each other.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::super::POISON;
use super::super::segment_name::SegmentName;
use super::entry::{KeyEntry, SeenKey};
use super::ranges;
use crate::event_key::{EventKey, PassThroughHasher};

/// Keys in memory. If a key has several entries, the newest entry counts.
pub(super) struct MemoryKeys {
    shards: Vec<Shard>,
    /// Entries of each unsealed segment in the order of their sequences.
    unsealed: Mutex<BTreeMap<SegmentName, Vec<KeyEntry>>>,
    /// Number of keys of the last sealed segment. The next one has about as many, so its list need not grow.
    usual_len: AtomicUsize,
}

/// A part of the keys, in a cache line of its own, because different processors often lock neighbouring shards at the same time.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<ShardKeys>);

/// The keys of a shard. The table contains positions in the list instead of entries, so that it is small enough for the
/// processor's cache. Nearly every lookup and insertion is that of a new key, and uses only the table and the end of the list.
#[derive(Default)]
struct ShardKeys {
    table: HashTable<u32>,
    entries: Vec<KeyEntry>,
}

impl ShardKeys {
    fn find(&self, key: &EventKey) -> Option<SeenKey> {
        let at = self.table.find(hash(key), |at| self.entries[*at as usize].0 == *key)?;
        Some(self.entries[*at as usize].1)
    }

    /// Adds an entry, unless the key has a newer one.
    fn insert(&mut self, (key, seen): KeyEntry) {
        let ShardKeys { table, entries } = self;
        let found = table.entry(hash(&key), |at| entries[*at as usize].0 == key, |at| hash(&entries[*at as usize].0));
        match found {
            Entry::Occupied(found) => {
                let newest = &mut entries[*found.get() as usize].1;
                if newest.seq < seen.seq {
                    *newest = seen;
                }
            }
            Entry::Vacant(vacant) => {
                vacant.insert(entries.len() as u32);
                entries.push((key, seen));
            }
        }
    }

    /// Removes all entries whose sequences are in one of the sorted ranges.
    fn remove(&mut self, sequences: &[Range<u64>]) {
        let ShardKeys { table, entries } = self;
        entries.retain(|(_, seen)| !ranges::contain(sequences, seen.seq));
        entries.shrink_to(2 * entries.len());
        table.clear();
        table.shrink_to(2 * entries.len(), |_| 0);
        for (at, (key, _)) in (0..).zip(&*entries) {
            table.insert_unique(hash(key), at, |at| hash(&entries[*at as usize].0));
        }
    }
}

fn hash(key: &EventKey) -> u64 {
    BuildHasherDefault::<PassThroughHasher>::default().hash_one(key)
}

impl MemoryKeys {
    pub(super) fn new() -> MemoryKeys {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        MemoryKeys { shards, unsealed: Mutex::default(), usual_len: AtomicUsize::new(0) }
    }

    /// Returns the newest entry of a key.
    pub(super) fn find(&self, key: &EventKey) -> Option<SeenKey> {
        self.shard(key).find(key)
    }

    /// Adds an entry, unless the key has a newer one.
    pub(super) fn insert(&self, entry: KeyEntry) {
        self.shard(&entry.0).insert(entry);
    }

    /// Adds entries of an unsealed segment.
    pub(super) fn add_unsealed(&self, segment: SegmentName, entries: impl Iterator<Item = KeyEntry>) {
        let mut unsealed = self.unsealed.lock().expect(POISON);
        let list = unsealed.entry(segment).or_insert_with(|| Vec::with_capacity(self.usual_len.load(Relaxed)));
        for entry in entries {
            self.insert(entry);
            list.push(entry);
        }
    }

    /// Removes and returns the list of the entries of an unsealed segment. Lookups still find these entries.
    pub(super) fn take_unsealed(&self, segment: SegmentName) -> Vec<KeyEntry> {
        let entries = self.unsealed.lock().expect(POISON).remove(&segment).unwrap_or_default();
        self.usual_len.store(entries.len(), Relaxed);
        entries
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
        for Shard(shard) in &self.shards {
            shard.lock().expect(POISON).remove(sequences);
        }
    }

    /// Returns the number of keys.
    pub(super) fn len(&self) -> u64 {
        self.shards.iter().map(|Shard(shard)| shard.lock().expect(POISON).entries.len() as u64).sum()
    }

    fn shard(&self, key: &EventKey) -> MutexGuard<'_, ShardKeys> {
        self.shards[key.0[1] as usize % SHARDS].0.lock().expect(POISON)
    }
}

/// Number of shards. With more shards, the ends of their lists would no longer fit into the processor's cache.
const SHARDS: usize = 32;
