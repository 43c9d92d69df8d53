//! A key index without a journal, for tests and benchmarks: it seals and merges keys as the journal does, but it needs no event
//! for each key.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::super::disk::{Disk, write_atomically};
use super::super::journal_time::JournalMillis;
use super::super::random::Random;
use super::super::segment_name::SegmentName;
use super::damage::KeyDamage;
use super::directory::KeyDirectory;
use super::entry::{KeyEntry, SeenKey};
use super::header::encode_key_file;
use super::index::{KeyEnvironment, KeyIndex, KeyLimits, KeySizes, MemoryLookup};
use super::merging::KeyMerging;
use super::{retention, startup};
use crate::event_key::EventKey;
use crate::metrics::Metrics;

/// A key index without a journal. The caller performs its steps. The index belongs to no segments that exist.
pub struct StandaloneKeys {
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    index: KeyIndex,
    merging: KeyMerging,
    /// The segment that receives the next keys.
    segment: SegmentName,
    evicted: u64,
}

impl StandaloneKeys {
    /// Opens the key files in `disk`. Deletes temporary files, as the journal does at a startup.
    pub fn open(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        limits: KeyLimits,
        metrics: &Metrics,
    ) -> io::Result<StandaloneKeys> {
        for (file, _) in disk.list()?.iter().filter(|(file, _)| file.ends_with(super::super::disk::TEMPORARY_EXT)) {
            disk.remove(file)?;
        }
        let index = KeyIndex::new(limits, Arc::new(KeyDamage::new(metrics.journal.damaged.clone())));
        startup::load(&index, KeyDirectory::read(&*disk)?, &HashSet::new(), &*disk)?;
        let segment = SegmentName::new(1, 0, &*random)?;
        Ok(StandaloneKeys { disk, random, index, merging: KeyMerging::default(), segment, evicted: 0 })
    }

    /// Adds a key to the unsealed segment.
    pub fn add(&self, key: EventKey, seen: SeenKey) {
        self.index.add(self.segment, [(key, seen)].into_iter());
    }

    /// Seals the segment: writes its key file, and starts another segment.
    pub fn seal(&mut self) -> io::Result<()> {
        let entries: Vec<KeyEntry> = self.index.take_unsealed(self.segment);
        let (header, bytes) = encode_key_file(self.segment.id, &entries, Vec::new());
        let written = write_atomically(&*self.disk, &self.segment.key_file(), &bytes).and_then(|()| self.disk.sync_dir());
        if let Err(error) = written {
            self.index.restore_unsealed(self.segment, entries);
            return Err(error);
        }
        self.index.seal(self.segment, header);
        self.segment = SegmentName::new(self.segment.ordinal + 1, 0, &*self.random)?;
        Ok(())
    }

    /// Deletes old key files, and performs one step of the merges. Returns false if no merge is running and none is due.
    pub fn step(&mut self, now: JournalMillis) -> io::Result<bool> {
        let has_segment = |_| false;
        let (disk, sync_dir) = (&*self.disk, || self.disk.sync_dir());
        let environment = KeyEnvironment { disk, random: &*self.random, sync_dir: &sync_dir, now, has_segment: &has_segment };
        let evicted = &mut self.evicted;
        let deleted = retention::delete_old(&self.index, &self.merging.busy(), &environment, |file| *evicted += file.keys);
        deleted.and_then(|()| self.merging.step(&self.index, &environment))
    }

    /// Looks up a key in memory and in the filters.
    pub fn lookup_in_memory(&self, key: &EventKey) -> MemoryLookup {
        self.index.lookup_in_memory(key)
    }

    /// Looks up a key in memory, and in the key files if their filters match.
    pub fn lookup(&self, key: &EventKey) -> Option<SeenKey> {
        match self.index.lookup_in_memory(key) {
            MemoryLookup::Seen(seen) => Some(seen),
            MemoryLookup::New => None,
            MemoryLookup::MaybeOnDisk => self.index.lookup(key),
        }
    }

    /// Forgets the keys of lost events.
    pub fn forget(&self, sequences: std::ops::Range<u64>) {
        _ = self.index.forget(sequences);
    }

    /// Returns the sequences of lost events whose keys may still be in a key file.
    pub fn lost_ranges(&self) -> Vec<std::ops::Range<u64>> {
        self.index.lost_ranges()
    }

    /// Returns the sizes of the index.
    pub fn sizes(&self) -> KeySizes {
        self.index.sizes()
    }

    /// Returns the number of keys that were deleted early because all key files exceeded their limit.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Returns true if keys are unknown because a key file or a page of it is damaged.
    pub fn is_damaged(&self) -> bool {
        self.index.is_damaged()
    }
}
