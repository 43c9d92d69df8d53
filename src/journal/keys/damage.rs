//! Counts and logs damage of key files. Every damaged page, filter and file is counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use prometheus::IntCounter;

use super::super::POISON;
use super::super::planted::is_planted;

/// Damage of all key files of an open journal.
pub(crate) struct KeyDamage {
    counter: IntCounter,
    /// Number of files whose keys are unknown because the file is missing or its header is damaged.
    lost_files: AtomicU64,
    /// Number of pages that lookups and merges could not read, in the files that exist now.
    unreadable_pages: AtomicU64,
}

/// The pages of one key file that could not be read.
pub(super) struct UnreadablePages {
    file: String,
    offsets: Mutex<BTreeSet<u64>>,
    /// Numbers of attempts to merge pages that could not be read.
    attempts: Mutex<BTreeMap<u64, u32>>,
    damage: Arc<KeyDamage>,
}

impl KeyDamage {
    /// Creates a record without damage. `counter` counts the damage that the record will contain.
    pub(crate) fn new(counter: IntCounter) -> KeyDamage {
        KeyDamage { counter, lost_files: AtomicU64::new(0), unreadable_pages: AtomicU64::new(0) }
    }

    /// Returns true if keys are unknown because a file or a page is damaged or missing.
    pub(crate) fn exists(&self) -> bool {
        self.has_lost_files() || self.unreadable_pages.load(Ordering::Relaxed) > 0
    }

    /// Returns true if the keys of a file are unknown because the file is missing or its header is damaged.
    pub(super) fn has_lost_files(&self) -> bool {
        self.lost_files.load(Ordering::Relaxed) > 0
    }

    /// Records that the keys of a file are unknown. `found` describes the file.
    pub(super) fn lose_file(&self, file: &str, found: &str) {
        self.counter.inc();
        self.lost_files.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            file,
            "expected a valid key file, found {found}, so hookhold will store duplicates of events whose keys were in this file; \
             check the disk"
        );
    }

    /// Records that a filter is damaged. The keys of the file are still known.
    pub(super) fn lose_filter(&self, file: &str, offset: u64) {
        self.counter.inc();
        tracing::error!(
            file,
            offset,
            "expected a valid filter in a key file, found a damaged one, so lookups search the file until hookhold has \
             rewritten it; check the disk"
        );
    }
}

impl UnreadablePages {
    /// Creates an empty list for the file with this name.
    pub(super) fn new(file: String, damage: Arc<KeyDamage>) -> UnreadablePages {
        UnreadablePages { file, offsets: Mutex::default(), attempts: Mutex::default(), damage }
    }

    /// Records that the file has no readable keys.
    pub(super) fn lose_file(&self, found: &str) {
        self.damage.lose_file(&self.file, found);
    }

    /// Returns true if a merge should continue without a page that it cannot read: after [`MAX_ATTEMPTS`] attempts, because an
    /// I/O error may be temporary.
    pub(super) fn is_given_up(&self, offset: u64) -> bool {
        let mut attempts = self.attempts.lock().expect(POISON);
        let attempts = attempts.entry(offset).or_default();
        *attempts += 1;
        *attempts > MAX_ATTEMPTS
    }

    /// Records a page that is damaged, or that cannot be read because of `error`. Only the first call for a page has an effect.
    pub(super) fn add(&self, offset: u64, error: Option<&io::Error>) {
        let mut offsets = self.offsets.lock().expect(POISON);
        if !offsets.insert(offset) || is_planted("lost key block taken for none") {
            return;
        }
        self.damage.counter.inc();
        self.damage.unreadable_pages.fetch_add(1, Ordering::Relaxed);
        if offsets.len() <= MAX_LOGGED {
            let (file, found) = (&self.file, error.map_or("a damaged one".into(), io::Error::to_string));
            tracing::error!(
                file,
                offset,
                "expected a readable page in a key file, found {found}, so hookhold may store duplicates of the events whose \
                 keys are in this page; check the disk"
            );
        }
    }
}

impl Drop for UnreadablePages {
    fn drop(&mut self) {
        let pages = self.offsets.get_mut().map_or(0, |offsets| offsets.len());
        self.damage.unreadable_pages.fetch_sub(pages as u64, Ordering::Relaxed);
    }
}

/// Number of attempts to merge a page that cannot be read. The attempts take at least a minute.
const MAX_ATTEMPTS: u32 = 12;
/// Maximum number of log lines about unreadable pages of one file.
const MAX_LOGGED: usize = 16;
