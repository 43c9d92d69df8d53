//! Index of the keys of stored events. The keys of unsealed segments are in memory. The keys of each sealed segment are in a
//! [`KeyFile`]. The key file of a deleted segment remains until the newest key in the file has left the dedupe window.
//!
//! Lookups in the index compare all 128 bits of a key. If the index contains two entries of a key, lookups return the newer
//! entry.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use super::POISON;
use super::disk::Disk;
use super::journal_time::JournalMillis;
use super::key_file::{KeyEntries, KeyFile, SeenKey};
use super::segment_name::SegmentName;
use crate::event_key::{EventKey, PassThroughHasher};

/// Result of a lookup that does not read the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLookup {
    /// Key that is in memory, with the arrival time and sequence of its stored event.
    Seen(SeenKey),
    /// Key that is not in memory but may be in a key file. A lookup on disk is necessary.
    MaybeOnDisk,
    /// Key that is neither in memory nor in a key file.
    New,
}

/// Index of the keys of stored events.
pub(super) struct KeyIndex {
    /// Dedupe window in milliseconds.
    window_ms: AtomicU64,
    unsealed: Mutex<UnsealedKeys>,
    files: RwLock<Vec<Arc<KeyFile>>>,
    /// Sequences of events lost to corruption. Lookups ignore entries with these sequences, both in memory and in key files.
    lost: RwLock<Vec<Range<u64>>>,
    /// True while key files may still contain keys of lost events.
    has_stale_files: AtomicBool,
}

#[derive(Default)]
struct UnsealedKeys {
    newest: HashMap<EventKey, SeenKey, BuildHasherDefault<PassThroughHasher>>,
    by_segment: HashMap<SegmentName, KeyEntries>,
}

impl KeyIndex {
    /// Creates an empty index with this dedupe window.
    pub(super) fn new(window: Duration) -> KeyIndex {
        KeyIndex {
            window_ms: (window.as_millis() as u64).into(),
            unsealed: Mutex::default(),
            files: RwLock::default(),
            lost: RwLock::default(),
            has_stale_files: false.into(),
        }
    }

    /// Extends the dedupe window to `window`. Ignores a shorter window.
    pub(super) fn extend_window(&self, window: Duration) {
        self.window_ms.fetch_max(window.as_millis() as u64, Ordering::Relaxed);
    }

    /// Adds keys of an unsealed segment.
    pub(super) fn add(&self, segment: SegmentName, keys: impl Iterator<Item = (EventKey, SeenKey)>) {
        let mut unsealed = self.unsealed.lock().expect(POISON);
        let UnsealedKeys { newest, by_segment } = &mut *unsealed;
        let entries = by_segment.entry(segment).or_default();
        for (key, seen) in keys {
            newest.insert(key, seen);
            entries.push((key, seen));
        }
    }

    /// Looks up a key without reading the disk. An entry in memory is always newer than an entry of the same key in a key file.
    pub(super) fn lookup_in_memory(&self, key: &EventKey) -> MemoryLookup {
        if let Some(seen) = self.unsealed.lock().expect(POISON).newest.get(key).copied().filter(|seen| !self.is_lost(seen)) {
            return MemoryLookup::Seen(seen);
        }
        match self.files.read().expect(POISON).iter().any(|file| file.may_contain(key)) {
            true => MemoryLookup::MaybeOnDisk,
            false => MemoryLookup::New,
        }
    }

    /// Returns the number of keys in unsealed segments.
    pub(super) fn in_memory(&self) -> u64 {
        self.unsealed.lock().expect(POISON).newest.len() as u64
    }

    /// Looks up a key in the key files on disk. Calls `damaged` once for each damaged file.
    pub(super) fn lookup(&self, disk: &dyn Disk, key: &EventKey, damaged: &dyn Fn()) -> io::Result<Option<SeenKey>> {
        let candidates: Vec<_> = self.files.read().expect(POISON).iter().filter(|f| f.may_contain(key)).cloned().collect();
        let mut newest: Option<SeenKey> = None;
        for file in candidates {
            let found = file.find(disk, key, damaged)?;
            newest = newest.into_iter().chain(found).filter(|seen| !self.is_lost(seen)).max_by_key(|seen| seen.seq);
        }
        Ok(newest)
    }

    /// Forgets the keys of events lost to corruption, so that hookhold stores retries of these events. Every reader that skips
    /// lost events calls this function.
    pub(super) fn forget(&self, sequences: Range<u64>) {
        let mut lost = self.lost.write().expect(POISON);
        if lost.iter().any(|known| known.start <= sequences.start && sequences.end <= known.end) {
            return;
        }
        lost.push(sequences);
        self.has_stale_files.store(true, Ordering::Release);
    }

    /// Returns the ranges of sequences whose keys are forgotten, in no particular order.
    pub(super) fn lost_ranges(&self) -> Vec<Range<u64>> {
        self.lost.read().expect(POISON).clone()
    }

    /// Returns true if corruption destroyed the event of this entry.
    pub(super) fn is_lost(&self, seen: &SeenKey) -> bool {
        self.lost.read().expect(POISON).iter().any(|range| range.contains(&seen.seq))
    }

    /// Returns the key files that still contain keys of lost events, each with the entries that must remain.
    pub(super) fn stale_files(&self, disk: &dyn Disk) -> io::Result<Vec<(SegmentName, KeyEntries)>> {
        if !self.has_stale_files.swap(false, Ordering::AcqRel) {
            return Ok(Vec::new());
        }
        let files = self.files.read().expect(POISON).clone();
        let mut stale = Vec::new();
        for file in files {
            let all = file.entries(disk)?;
            let left: Vec<_> = all.iter().filter(|(_, seen)| !self.is_lost(seen)).copied().collect();
            if left.len() < all.len() {
                stale.push((file.name, left));
            }
        }
        Ok(stale)
    }

    /// Makes the next call of [`KeyIndex::stale_files`] return the same files again. The background thread calls this function
    /// after a failed rewrite.
    pub(super) fn retry_stale_files(&self) {
        self.has_stale_files.store(true, Ordering::Release);
    }

    /// Returns true if lookups search the key file of this segment.
    pub(super) fn has_file(&self, name: SegmentName) -> bool {
        self.files.read().expect(POISON).iter().any(|file| file.name == name)
    }

    /// Replaces the key file of a segment with a rewritten file.
    pub(super) fn replace_file(&self, name: SegmentName, file: Option<KeyFile>) {
        let mut files = self.files.write().expect(POISON);
        files.retain(|file| file.name != name);
        files.extend(file.filter(KeyFile::has_keys).map(Arc::new));
    }

    /// Returns the sorted keys of a segment that is about to be sealed, with only the newest entry of each key.
    pub(super) fn unsealed_entries(&self, segment: SegmentName) -> KeyEntries {
        let mut entries = self.unsealed.lock().expect(POISON).by_segment.get(&segment).cloned().unwrap_or_default();
        entries.retain(|(_, seen)| !self.is_lost(seen));
        entries.sort_by_key(|(key, seen)| (*key, std::cmp::Reverse(seen.seq)));
        entries.dedup_by_key(|(key, _)| *key);
        entries
    }

    /// Replaces a segment's keys in memory with the key file of the segment. Does not add a file without keys, because no
    /// lookup needs such a file.
    pub(super) fn seal(&self, segment: SegmentName, file: Option<KeyFile>) {
        self.files.write().expect(POISON).extend(file.filter(KeyFile::has_keys).map(Arc::new));
        let mut unsealed = self.unsealed.lock().expect(POISON);
        for (key, seen) in unsealed.by_segment.remove(&segment).unwrap_or_default() {
            if unsealed.newest.get(&key).is_some_and(|newest| newest.seq == seen.seq) {
                unsealed.newest.remove(&key);
            }
        }
    }

    /// Removes expired key files from the index: files whose newest key has left the dedupe window. Then evicts the oldest key
    /// files until all remaining files together fit into `max_bytes`. Returns the names of the expired files, and the name and
    /// the number of keys of each evicted file. The caller deletes the files.
    pub(super) fn remove_expired(&self, now: JournalMillis, max_bytes: u64) -> (Vec<SegmentName>, Vec<(SegmentName, u64)>) {
        let oldest = JournalMillis(now.0.saturating_sub(self.window_ms.load(Ordering::Relaxed)));
        let mut files = self.files.write().expect(POISON);
        files.sort_by_key(|file| file.name);
        let (expired, current): (Vec<_>, Vec<_>) = files.drain(..).partition(|file| file.newest < oldest);
        let mut bytes: u64 = current.iter().map(|file| file.bytes).sum();
        let mut evicted = Vec::new();
        for file in current {
            if bytes > max_bytes {
                bytes -= file.bytes;
                evicted.push((file.name, file.count));
            } else {
                files.push(file);
            }
        }
        (expired.iter().map(|file| file.name).collect(), evicted)
    }
}
