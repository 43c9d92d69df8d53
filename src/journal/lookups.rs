//! Lookups in the key index of an open journal.

use std::time::Duration;

use super::Journal;
use super::keys::{KeySizes, MemoryLookup, SeenKey};
use crate::event_key::EventKey;

impl Journal {
    /// Extends the dedupe window to `window`. Does not restore keys that have already expired. A shorter window takes effect
    /// only when hookhold opens the journal again. A typing mistake in a reloaded configuration therefore cannot make keys
    /// expire early.
    pub fn extend_dedupe_window(&self, window: Duration) {
        self.0.keys.extend_window(window);
    }

    /// Looks up a key without reading the disk.
    pub fn lookup_in_memory(&self, key: &EventKey) -> MemoryLookup {
        self.0.keys.lookup_in_memory(key)
    }

    /// Returns the number of keys in memory: the keys of unsealed segments and of the newest sealed segments.
    pub fn keys_in_memory(&self) -> u64 {
        self.0.keys.in_memory()
    }

    /// Looks up a key in the key files on disk. Returns `None` if no key file contains the key, or if damage has destroyed the key.
    pub fn lookup(&self, key: &EventKey) -> Option<SeenKey> {
        self.0.keys.lookup(key)
    }

    /// Returns the sizes of the key index.
    pub fn key_sizes(&self) -> KeySizes {
        self.0.keys.sizes()
    }

    /// Returns true if corruption destroyed the event of this key. Caches must then remove the key, so that the journal can
    /// store a retry of the event.
    pub fn is_lost(&self, seen: &SeenKey) -> bool {
        self.0.keys.is_lost(seen)
    }

    /// Returns the reason why the journal works with a limitation; `None` if it works without one.
    pub fn degraded_reason(&self) -> Option<&'static str> {
        let is_damaged = self.0.keys.is_damaged();
        is_damaged.then_some(
            "key files: expected valid files, found damaged or missing ones, so hookhold may store duplicates; see the log and \
             check the disk",
        )
    }

    /// Returns the number of lost events: those that were stored, but can no longer be read, although Kafka has not acknowledged them.
    /// Includes earlier processes while the journal remembers the keys of the lost events.
    pub fn lost_events(&self) -> u64 {
        self.0.keys.lost_events()
    }
}
