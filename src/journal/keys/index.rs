//! The key index: the keys in memory and the key files. Lookups compare all 128 bits of a key. If a key has several entries,
//! lookups return the newest one.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::super::POISON;
use super::super::disk::{Disk, DiskFile};
use super::super::journal_time::JournalMillis;
use super::super::random::Random;
use super::super::segment_name::SegmentName;
use super::damage::{KeyDamage, UnreadablePages};
use super::entry::{self, KeyEntry, ListedKeyFile, SeenKey};
use super::file::KeyFile;
use super::header::{KeyFacts, KeyFileHeader, KeyFileName};
use super::lost::LostSequences;
use super::memory::MemoryKeys;
use super::policy::{FileFacts, MAX_RECENT_KEYS, MergePolicy};
use super::ranges;
use super::reader::KeyReader;
use crate::event_key::EventKey;
use crate::limits::DedupeLimits;

/// Result of a lookup that does not read the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLookup {
    /// Key that is in memory, with its entry.
    Seen(SeenKey),
    /// Key that is not in memory but may be in a key file. A lookup on disk is necessary.
    MaybeOnDisk,
    /// Key that is neither in memory nor in a key file.
    New,
}

/// Sizes of the key index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeySizes {
    /// Number of keys in key files, including keys whose files are recent.
    pub keys_on_disk: u64,
    /// Total size of all key files in bytes.
    pub disk_bytes: u64,
    /// Number of key files that a fresh key asks.
    pub asked_files: usize,
    /// Size of the filters and of the headers of these files in memory, in bytes.
    pub filter_bytes: usize,
    /// Number of recent key files, whose keys are in memory.
    pub recent_files: usize,
    /// Number of keys in recent key files.
    pub recent_keys: u64,
    /// Number of keys in memory: the keys of unsealed segments and of recent key files.
    pub keys_in_memory: u64,
}

/// Limits of the key index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLimits {
    /// Dedupe window.
    pub window: Duration,
    /// Maximum size of all key files together, in bytes.
    pub max_bytes: u64,
    /// Number of keys of sealed segments that may stay in memory. A flush starts at half of this number. If the keys exceed this
    /// number, the flush takes all the time that it needs.
    pub max_recent_keys: u64,
}

/// Parts of the journal that the work on key files needs.
pub(crate) struct KeyEnvironment<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) random: &'a dyn Random,
    /// Syncs the directory. After a failure, the journal fails.
    pub(crate) sync_dir: &'a dyn Fn() -> io::Result<()>,
    pub(crate) now: JournalMillis,
    /// Returns true if the segment with this id exists.
    pub(crate) has_segment: &'a dyn Fn(u64) -> bool,
}

/// Index of the keys of stored events.
pub(crate) struct KeyIndex {
    /// Limits; an extended window replaces their window.
    pub(super) limits: KeyLimits,
    /// Dedupe window in milliseconds.
    window_ms: AtomicU64,
    pub(super) memory: MemoryKeys,
    /// Files that lookups ask, oldest first. A lookup searches the memory first: keys leave the memory only after their file is
    /// in this list.
    asked: ArcSwap<Vec<Arc<KeyFile>>>,
    /// Files whose keys are in memory, oldest first.
    recent: Mutex<Vec<Arc<RecentFile>>>,
    lost: LostSequences,
    pub(super) damage: Arc<KeyDamage>,
    names: Mutex<FileNames>,
}

/// Key file of a sealed segment whose keys are in memory, or a file without keys.
pub(super) struct RecentFile {
    pub(super) name: KeyFileName,
    /// Header without filters.
    pub(super) header: KeyFileHeader,
    pub(super) unreadable: Arc<UnreadablePages>,
    is_stale: AtomicBool,
}

/// Names of key files that matter although the files are not part of the index, or not any more.
#[derive(Default)]
pub(super) struct FileNames {
    /// Files that the background thread must delete.
    pub(super) obsolete: Vec<KeyFileName>,
    /// Files of segments that will be sealed again. They may contain keys of lost events until sealing has replaced them.
    pub(super) rebuilt: Vec<KeyFileName>,
    /// Ids in the lists of key files of the two newest segments. If such a file vanishes without a replacement, its keys are lost.
    listed: [BTreeSet<u64>; 2],
    /// Ids of the lists that the writer has asked for since then.
    pending_lists: Vec<BTreeSet<u64>>,
}

impl Default for KeyLimits {
    fn default() -> KeyLimits {
        let DedupeLimits { window, max_disk, .. } = DedupeLimits::default();
        KeyLimits { window, max_bytes: max_disk, max_recent_keys: MAX_RECENT_KEYS }
    }
}

impl KeyIndex {
    /// Creates an empty index with these limits.
    pub(crate) fn new(limits: KeyLimits, damage: Arc<KeyDamage>) -> KeyIndex {
        KeyIndex {
            limits,
            window_ms: (limits.window.as_millis() as u64).into(),
            memory: MemoryKeys::new(),
            asked: ArcSwap::default(),
            recent: Mutex::default(),
            lost: LostSequences::default(),
            damage,
            names: Mutex::default(),
        }
    }

    /// Extends the dedupe window to `window`. Ignores a shorter window.
    pub(crate) fn extend_window(&self, window: Duration) {
        self.window_ms.fetch_max(window.as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns the time before which a key must have been first seen to have left the dedupe window.
    pub(super) fn window_start(&self, now: JournalMillis) -> JournalMillis {
        now.before(Duration::from_millis(self.window_ms.load(Ordering::Relaxed)))
    }

    /// Adds keys of an unsealed segment.
    pub(crate) fn add(&self, segment: SegmentName, keys: impl Iterator<Item = KeyEntry>) {
        self.memory.add_unsealed(segment, keys);
    }

    /// Looks up a key without reading the disk. An entry in memory is always newer than an entry of the same key in a key file.
    pub(crate) fn lookup_in_memory(&self, key: &EventKey) -> MemoryLookup {
        if let Some(seen) = self.memory.find(key).filter(|seen| !self.is_lost(seen)) {
            return MemoryLookup::Seen(seen);
        }
        match self.asked.load().iter().any(|file| file.may_contain(key)) {
            true => MemoryLookup::MaybeOnDisk,
            false => MemoryLookup::New,
        }
    }

    /// Looks up a key in the key files on disk. The keys of unreadable pages are unknown.
    pub(crate) fn lookup(&self, key: &EventKey) -> Option<SeenKey> {
        let files = self.asked.load_full();
        let found = files.iter().filter_map(|file| file.find(key)).filter(|seen| !self.is_lost(seen));
        found.max_by_key(|seen| seen.seq)
    }

    /// Returns the number of keys in memory.
    pub(crate) fn in_memory(&self) -> u64 {
        self.memory.len()
    }

    /// Returns the sizes of the index.
    pub(crate) fn sizes(&self) -> KeySizes {
        let (asked, recent) = (self.asked.load_full(), self.recent());
        let recent_keys = recent.iter().map(|file| file.header.facts.count).sum();
        KeySizes {
            keys_on_disk: asked.iter().map(|file| file.facts.count).sum::<u64>() + recent_keys,
            disk_bytes: asked.iter().map(|f| f.bytes).chain(recent.iter().map(|f| f.header.file_len())).sum(),
            asked_files: asked.len(),
            filter_bytes: asked.iter().map(|file| file.memory_bytes()).sum(),
            recent_files: recent.len(),
            recent_keys,
            keys_in_memory: self.memory.len(),
        }
    }

    /// Returns true if the recent files have more keys than may stay in memory.
    pub(crate) fn has_too_many_recent_keys(&self) -> bool {
        let keys: u64 = self.recent().iter().map(|file| file.header.facts.count).sum();
        keys > self.limits.max_recent_keys
    }

    /// Returns true if keys are unknown because a key file or a page of it is damaged or missing.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damage.exists()
    }

    /// Forgets the keys of lost events, so that hookhold stores retries of these events. Every reader that skips lost events
    /// calls this function. Returns the number of sequences that were not known to be lost.
    pub(crate) fn forget(&self, sequences: Range<u64>) -> u64 {
        let added = self.lost.add(sequences.clone());
        if added > 0 {
            self.asked.load_full().iter().filter(|file| file.facts.overlaps(&sequences)).for_each(|file| file.set_stale());
            for file in self.recent().iter().filter(|file| file.header.facts.overlaps(&sequences)) {
                file.is_stale.store(true, Ordering::Relaxed);
            }
        }
        added
    }

    /// Returns true if the event of this entry is lost.
    pub(crate) fn is_lost(&self, seen: &SeenKey) -> bool {
        self.lost.contains(seen.seq)
    }

    /// Returns the number of all lost events that this process knows.
    pub(crate) fn lost_events(&self) -> u64 {
        ranges::len(&self.lost.snapshot())
    }

    /// Returns the sequences of lost events whose keys may still be in a key file.
    pub(crate) fn lost_ranges(&self) -> Vec<Range<u64>> {
        self.lost.stored()
    }

    /// Returns a number that changes with [`KeyIndex::lost_ranges`]. Read the number before the ranges.
    pub(crate) fn lost_version(&self) -> u64 {
        self.lost.version()
    }

    /// Removes lost ranges from [`KeyIndex::lost_ranges`] once no key file contains their keys. A key file that this process could
    /// not read may contain them, and the next startup may be able to read it. The next startup may also read a file that this process
    /// has yet to delete, or the key file of a segment that this process has yet to seal again.
    pub(super) fn drop_lost_ranges(&self) {
        let has_other_files = || {
            let names = self.names();
            !names.obsolete.is_empty() || !names.rebuilt.is_empty()
        };
        if self.lost.stored().is_empty() || self.damage.has_lost_files() || has_other_files() {
            return;
        }
        let (asked, recent) = (self.asked.load_full(), self.recent());
        self.lost.retain_stored(|range| {
            asked.iter().any(|file| file.is_stale() && file.facts.overlaps(range))
                || recent.iter().any(|file| file.is_stale() && file.header.facts.overlaps(range))
                || self.memory.has_unsealed(range)
        });
    }

    /// Removes the list of an unsealed segment's keys, and returns the list sorted by key, with only the newest entry of each
    /// key. Lookups still find the keys in memory.
    pub(crate) fn take_unsealed(&self, segment: SegmentName) -> Vec<KeyEntry> {
        let mut entries = self.memory.take_unsealed(segment);
        entries.retain(|(_, seen)| !self.is_lost(seen));
        entry::sort(&mut entries);
        entries
    }

    /// Undoes [`KeyIndex::take_unsealed`] after a failure to seal the segment. The key file of the segment may exist.
    pub(crate) fn restore_unsealed(&self, segment: SegmentName, entries: Vec<KeyEntry>) {
        self.memory.restore_unsealed(segment, entries);
        self.names().rebuilt.push(KeyFileName::Segment(segment));
    }

    /// Returns those of the ids `segments` under which a key file exists that sealing replaces.
    pub(crate) fn rebuilt(&self, segments: &[u64]) -> Vec<u64> {
        self.names().rebuilt.iter().map(|name| name.id()).filter(|id| segments.contains(id)).collect()
    }

    /// Adds the key file of a sealed segment. The keys stay in memory until a flush has merged the file. The background thread
    /// deletes the files that the key file replaces.
    pub(crate) fn seal(&self, segment: SegmentName, header: KeyFileHeader) {
        let name = KeyFileName::Segment(segment);
        let ids: Vec<u64> = header.replaced.iter().copied().chain([header.id]).collect();
        self.add_recent(name, header);
        let FileNames { obsolete, rebuilt, .. } = &mut *self.names();
        obsolete.extend(rebuilt.extract_if(.., |file| ids.contains(&file.id())).filter(|file| *file != name));
    }

    /// Adds a file whose keys are in memory, or a file without keys.
    pub(super) fn add_recent(&self, name: KeyFileName, header: KeyFileHeader) -> Arc<RecentFile> {
        let unreadable = Arc::new(UnreadablePages::new(name.to_string(), self.damage.clone()));
        let file = Arc::new(RecentFile { name, header: header.without_filters(), unreadable, is_stale: false.into() });
        let mut recent = self.recent.lock().expect(POISON);
        recent.retain(|other| other.name != name);
        let at = recent.partition_point(|other| other.header.facts.last <= file.header.facts.last);
        recent.insert(at, file.clone());
        // An event may have become lost while its key was being written. The lock makes sure that either this function or
        // `forget` marks the file.
        file.is_stale.store(self.has_lost_keys(&file.header.facts), Ordering::Relaxed);
        file
    }

    /// Returns true if a key file with these facts may contain keys of lost events.
    pub(super) fn has_lost_keys(&self, facts: &KeyFacts) -> bool {
        self.lost.stored().iter().any(|range| facts.overlaps(range))
    }

    /// Replaces the files with these ids with `file`. Then removes the keys of recent files among them from the memory.
    pub(super) fn replace(&self, ids: &[u64], file: Option<Arc<KeyFile>>) {
        let mut asked: Vec<Arc<KeyFile>> =
            self.asked.load_full().iter().filter(|f| !ids.contains(&f.name.id())).cloned().collect();
        if let Some(file) = file {
            let at = asked.partition_point(|other| other.facts.last <= file.facts.last);
            asked.insert(at, file);
        }
        self.asked.store(Arc::new(asked));
        let mut sequences = Vec::new();
        self.recent.lock().expect(POISON).retain(|recent| {
            let (facts, is_replaced) = (recent.header.facts, ids.contains(&recent.name.id()));
            if is_replaced && facts.count > 0 {
                ranges::insert(&mut sequences, facts.first..facts.last + 1);
            }
            !is_replaced
        });
        if !sequences.is_empty() {
            self.memory.remove(&sequences);
        }
    }

    /// Returns the files that lookups ask, oldest first.
    pub(super) fn asked(&self) -> Arc<Vec<Arc<KeyFile>>> {
        self.asked.load_full()
    }

    /// Returns the recent files, oldest first.
    pub(super) fn recent(&self) -> Vec<Arc<RecentFile>> {
        self.recent.lock().expect(POISON).clone()
    }

    /// Returns the names of the files with these ids.
    pub(super) fn names_of(&self, ids: &[u64]) -> Vec<KeyFileName> {
        let (asked, recent) = (self.asked.load_full(), self.recent());
        let names = asked.iter().map(|file| file.name).chain(recent.iter().map(|file| file.name));
        names.filter(|name| ids.contains(&name.id())).collect()
    }

    /// Returns the names of other key files that matter. The caller must not hold the lock during a disk operation.
    pub(super) fn names(&self) -> MutexGuard<'_, FileNames> {
        self.names.lock().expect(POISON)
    }

    /// Returns the lost sequences that are known now.
    pub(super) fn lost(&self) -> &LostSequences {
        &self.lost
    }

    /// Returns all key files with keys, for the list at the start of a segment.
    pub(crate) fn list(&self) -> Vec<ListedKeyFile> {
        let (asked, recent) = (self.asked.load_full(), self.recent());
        let asked = asked.iter().map(|file| ListedKeyFile { id: file.name.id(), keys: file.facts.count });
        let recent = recent.iter().map(|file| ListedKeyFile { id: file.header.id, keys: file.header.facts.count });
        let list: Vec<ListedKeyFile> = asked.chain(recent).filter(|file| file.keys > 0).collect();
        let ids: BTreeSet<u64> = list.iter().map(|file| file.id).collect();
        let pending = &mut self.names().pending_lists;
        if pending.last() != Some(&ids) {
            pending.push(ids);
        }
        list
    }

    /// Notes that the last list of [`KeyIndex::list`] is on disk, and whether a segment starts with it. If the write of a list fails,
    /// an older list stays in force.
    pub(crate) fn set_list_recorded(&self, starts_segment: bool) {
        let FileNames { listed: [newest, previous], pending_lists, .. } = &mut *self.names();
        let recorded = pending_lists.pop();
        pending_lists.clear();
        match recorded.filter(|ids| ids != newest) {
            Some(recorded) if starts_segment => *previous = std::mem::replace(newest, recorded),
            Some(recorded) => newest.extend(recorded),
            None => {}
        }
    }

    /// Returns true if a file must name this id as replaced: otherwise, the segment with this id would look unsealed, or the key
    /// file with this id would look lost.
    pub(super) fn is_needed(&self, id: u64, environment: &KeyEnvironment) -> bool {
        let FileNames { obsolete, listed, pending_lists, .. } = &*self.names();
        let is_listed = listed.iter().chain(pending_lists).any(|ids| ids.contains(&id));
        is_listed || (environment.has_segment)(id) || obsolete.iter().any(|name| name.id() == id)
    }

    /// Returns the state of the files for the decision about the next merge. `busy` contains the ids of the files that a running
    /// merge replaces.
    pub(super) fn policy(&self, now: JournalMillis, busy: &[u64], may_compact: bool) -> MergePolicy {
        let facts =
            |id, keys, bytes, newest, is_stale| FileFacts { id, keys, bytes, newest, is_stale, is_busy: busy.contains(&id) };
        let asked = self.asked.load_full();
        let asked = asked.iter().map(|f| facts(f.name.id(), f.facts.count, f.bytes, f.facts.newest, f.is_stale()));
        let recent = self.recent();
        let recent = recent.iter().map(|file| {
            let header = &file.header;
            facts(header.id, header.facts.count, header.file_len(), header.facts.newest, file.is_stale())
        });
        MergePolicy {
            asked: asked.collect(),
            recent: recent.collect(),
            now,
            window_ms: self.window_ms.load(Ordering::Relaxed),
            max_bytes: self.limits.max_bytes,
            max_recent_keys: self.limits.max_recent_keys,
            may_compact,
        }
    }
}

impl RecentFile {
    /// Returns a reader of the file's keys; `None` if the file has vanished, which is counted.
    pub(super) fn reader(&self, disk: &dyn Disk) -> io::Result<Option<KeyReader>> {
        if self.header.is_empty() {
            return Ok(None);
        }
        match disk.open(&self.name.to_string()) {
            Ok(file) => Ok(Some(self.reader_of(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.unreadable.lose_file("no file");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns a reader of the file's keys. `file` is this file, open for reading.
    pub(super) fn reader_of(&self, file: Arc<dyn DiskFile>) -> KeyReader {
        KeyReader::new(file, self.header.id, &self.header.blocks, self.unreadable.clone())
    }

    /// Returns true if the file may contain keys of lost events.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }
}
