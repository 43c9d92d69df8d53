//! The medium and the page cache of the simulated disk: the files, their names, and what a power cut leaves of both. Knows no
//! processes and no steps.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Possible states after a power cut of a page that was written and not synced. Each variant includes the variants before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TornPages {
    /// The old or the new page.
    #[default]
    Whole,
    /// A page of old sectors, new sectors, and sectors that start with new bytes and end with old bytes.
    Mixed,
    /// A page with a sector of noise or zeroes.
    Noise,
    /// A page that cannot be read until it is written completely.
    Unreadable,
}

/// Sector size of the medium and the state of unsynced pages after a power cut.
#[derive(Clone, Copy, Debug)]
pub struct Sectors {
    pub bytes: usize,
    pub torn: TornPages,
}

/// Content of one file, in the page cache and on the medium. Both are equal, except in the pages of `dirty` and `dropped`.
#[derive(Default)]
pub struct Inode {
    /// Current name; `None` if the file has been removed.
    name: Option<Arc<str>>,
    cache: Vec<u8>,
    durable: Vec<u8>,
    /// Pages that were written since the last sync.
    dirty: BTreeSet<usize>,
    /// Pages that the page cache treats as clean, although a failed sync has not written them to the medium.
    dropped: BTreeSet<usize>,
    /// Pages that cannot be read.
    unreadable: BTreeSet<usize>,
    /// Range of the writes since the last sync, and range of the writes that this sync covered.
    written: Range<usize>,
    last_synced: Range<usize>,
}

/// Names of the files.
#[derive(Default)]
pub struct Names {
    current: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// Changes since the last sync of the directory, oldest first.
    unsynced: Vec<NameChange>,
    /// True if a failed sync has lost changes.
    has_forgotten: bool,
}

/// One atomic change to the directory: removes the entry `removed` if it exists, and may add an entry.
struct NameChange {
    removed: String,
    added: Option<(String, usize)>,
}

/// Numbers of pages and names by their state after a power cut or a failed sync.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    pub pages: u64,
    pub mixed: u64,
    pub noise: u64,
    pub unreadable: u64,
    pub names: u64,
}

impl Inode {
    /// Creates a file of zeroes, of which nothing is on the medium yet.
    pub fn preallocated(size: usize) -> Inode {
        Inode { cache: vec![0; size], ..Inode::default() }
    }

    /// Creates a synced file.
    pub fn synced(bytes: &[u8]) -> Inode {
        Inode { cache: bytes.to_vec(), durable: bytes.to_vec(), ..Inode::default() }
    }

    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.cache
    }

    /// Returns the range of the writes that the last sync covered, and of all later writes.
    pub fn last_write(&self) -> Range<usize> {
        union(&self.last_synced, &self.written)
    }

    /// Returns the range that contains all unsynced pages.
    pub fn unsynced(&self) -> Range<usize> {
        let (first, last) = (self.dirty.first().copied().unwrap_or(0), self.dirty.last().map_or(0, |page| page + 1));
        first * PAGE..(last * PAGE).min(self.cache.len())
    }

    pub fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
        }
        self.cache[offset..end].copy_from_slice(bytes);
        for page in pages(&(offset..end)) {
            self.dirty.insert(page);
            self.dropped.remove(&page);
            self.unreadable.remove(&page);
        }
        self.written = union(&self.written, &(offset..end));
    }

    /// Returns true if a read of these bytes fails.
    pub fn is_unreadable(&self, bytes: &Range<usize>) -> bool {
        !self.unreadable.is_empty() && pages(bytes).any(|page| self.unreadable.contains(&page))
    }

    pub fn has_unreadable_pages(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Returns true if a write of these bytes fails: it covers only a part of an unreadable page, which the kernel must
    /// therefore read first.
    pub fn is_unwritable(&self, bytes: &Range<usize>) -> bool {
        let covers = |page: usize| bytes.start <= page * PAGE && (page + 1) * PAGE <= bytes.end;
        !self.unreadable.is_empty() && pages(bytes).any(|page| self.unreadable.contains(&page) && !covers(page))
    }

    pub fn set_len(&mut self, len: usize) {
        // The medium still contains the bytes after the new end, until the next sync.
        self.dirty.extend(pages(&(len..self.cache.len())));
        self.cache.resize(len, 0);
    }

    pub fn sync(&mut self) {
        if !self.written.is_empty() {
            self.last_synced = std::mem::take(&mut self.written);
        }
        for page in std::mem::take(&mut self.dirty) {
            self.persist(page);
        }
        self.durable.resize(self.cache.len(), 0);
    }

    /// Writes some unsynced pages to the medium. If `forgets` is true, the page cache then treats all other pages as clean.
    pub fn sync_partially(&mut self, forgets: bool, rng: &mut fastrand::Rng) {
        for page in std::mem::take(&mut self.dirty) {
            match (rng.bool(), forgets) {
                (true, _) => self.persist(page),
                (false, true) => drop(self.dropped.insert(page)),
                (false, false) => drop(self.dirty.insert(page)),
            }
        }
    }

    /// Changes the bytes on the medium and in the page cache.
    pub fn corrupt(&mut self, bytes: Range<usize>, mut change: impl FnMut(u8) -> u8) {
        for at in bytes {
            self.cache[at] = change(self.cache[at]);
            if at < self.durable.len() {
                self.durable[at] = self.cache[at];
            }
        }
    }

    /// Cuts the file off, on the medium and in the page cache.
    pub fn cut_off(&mut self, len: usize) {
        self.cache.truncate(len);
        self.durable.truncate(len);
    }

    /// Makes the pages of these bytes unreadable.
    pub fn spoil(&mut self, bytes: &Range<usize>) {
        self.unreadable.extend(pages(bytes));
    }

    /// Loses the page cache. Each unsynced page survives with this `chance`, or becomes an old or a torn page.
    fn cut_power(&mut self, chance: f64, sectors: Sectors, rng: &mut fastrand::Rng, losses: &mut Losses) {
        if self.durable.len() != self.cache.len() && rng.bool() {
            // The new size survives, with zeroes wherever no page was written.
            self.durable.resize(self.cache.len(), 0);
        }
        let dirty = std::mem::take(&mut self.dirty);
        for page in &dirty {
            if rng.f64() < chance {
                self.persist(*page);
            } else if sectors.torn > TornPages::Whole && rng.bool() {
                self.tear(*page, sectors, rng, losses);
            } else {
                losses.pages += 1;
            }
        }
        self.cache.resize(self.durable.len(), 0);
        for page in dirty.into_iter().chain(std::mem::take(&mut self.dropped)) {
            let bytes = page_bytes(page, self.durable.len());
            self.cache[bytes.clone()].copy_from_slice(&self.durable[bytes]);
        }
    }

    /// Writes a part of an unsynced page to the medium.
    fn tear(&mut self, page: usize, sectors: Sectors, rng: &mut fastrand::Rng, losses: &mut Losses) {
        let bytes = page_bytes(page, self.cache.len());
        if bytes.is_empty() {
            return;
        }
        if self.durable.len() < bytes.end {
            self.durable.resize(bytes.end, 0);
        }
        losses.mixed += 1;
        let worst = rng.usize(..=sectors.torn as usize);
        let starts: Vec<usize> = bytes.clone().step_by(sectors.bytes).collect();
        let damaged = rng.usize(..starts.len());
        for (index, start) in starts.into_iter().enumerate() {
            let sector = start..(start + sectors.bytes).min(bytes.end);
            let new = match rng.u8(..4) {
                0 => 0,
                1 => rng.usize(..=sector.len()),
                _ => sector.len(),
            };
            self.durable[start..start + new].copy_from_slice(&self.cache[start..start + new]);
            if worst == TornPages::Noise as usize && index == damaged {
                losses.noise += 1;
                let target = &mut self.durable[sector];
                if rng.bool() { rng.fill(target) } else { target.fill(0) }
            }
        }
        if worst == TornPages::Unreadable as usize {
            losses.unreadable += 1;
            self.unreadable.insert(page);
        }
    }

    /// Writes one page to the medium.
    fn persist(&mut self, page: usize) {
        let bytes = page_bytes(page, self.cache.len());
        if self.durable.len() < bytes.end {
            self.durable.resize(bytes.end, 0);
        }
        self.durable[bytes.clone()].copy_from_slice(&self.cache[bytes]);
    }
}

impl Names {
    pub fn get(&self, name: &str) -> Option<usize> {
        self.current.get(name).copied()
    }

    /// Returns all names with their files, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, usize)> {
        self.current.iter().map(|(name, index)| (name, *index))
    }

    /// Removes the name `removed` if it exists, and adds a name if `added` is one.
    pub fn change(&mut self, removed: &str, added: Option<(String, usize)>, files: &mut [Inode]) {
        let change = NameChange { removed: removed.into(), added };
        let replaced = change.added.as_ref().and_then(|(name, _)| self.current.get(name));
        for index in self.current.get(removed).into_iter().chain(replaced) {
            files[*index].name = None;
        }
        if let Some((name, index)) = &change.added {
            files[*index].name = Some(name.as_str().into());
        }
        change.apply(&mut self.current);
        self.unsynced.push(change);
    }

    pub fn sync(&mut self) {
        self.unsynced.drain(..).for_each(|change| change.apply(&mut self.durable));
    }

    /// Makes some changes durable. The directory in memory keeps the other changes, but no later sync makes them durable.
    pub fn sync_partially(&mut self, rng: &mut fastrand::Rng, losses: &mut Losses) {
        for change in self.unsynced.drain(..) {
            if rng.bool() {
                change.apply(&mut self.durable);
            } else {
                self.has_forgotten = true;
                losses.names += 1;
            }
        }
    }

    pub fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        names.remove(&self.removed);
        names.extend(self.added.clone());
    }
}

/// Adds a synced file.
pub fn put(files: &mut Vec<Inode>, names: &mut Names, name: &str, bytes: &[u8]) {
    if let Some(replaced) = names.current.get(name) {
        files[*replaced].name = None;
    }
    let index = files.len();
    files.push(Inode { name: Some(name.into()), ..Inode::synced(bytes) });
    for names in [&mut names.current, &mut names.durable] {
        names.insert(name.into(), index);
    }
}

/// Removes a file, also from the medium. Returns false if there is no such file.
pub fn vanish(files: &mut [Inode], names: &mut Names, name: &str) -> bool {
    let Some(index) = names.current.remove(name) else { return false };
    files[index].name = None;
    names.durable.retain(|_, file| *file != index);
    names.unsynced.retain(|change| change.added.as_ref().is_none_or(|(_, file)| *file != index));
    true
}

/// Loses the page cache. Each unsynced page and each unsynced change of a name survives or is lost independently.
pub fn cut_power(files: &mut [Inode], names: &mut Names, sectors: Sectors, rng: &mut fastrand::Rng) -> Losses {
    let mut losses = Losses::default();
    let chance = [0.0, 0.1, 0.5, 0.9, 1.0][rng.usize(..5)];
    for file in &mut *files {
        file.cut_power(chance, sectors, rng, &mut losses);
        file.name = None;
    }
    for change in names.unsynced.drain(..) {
        if rng.f64() < chance { change.apply(&mut names.durable) } else { losses.names += 1 }
    }
    names.current.clone_from(&names.durable);
    names.has_forgotten = false;
    for (name, index) in &names.current {
        files[*index].name = Some(name.as_str().into());
    }
    // No process has these files open, and no name can return.
    files.iter_mut().filter(|file| file.name.is_none()).for_each(|file| *file = Inode::default());
    losses
}

/// Returns the smallest range that contains both ranges.
fn union(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

fn pages(bytes: &Range<usize>) -> Range<usize> {
    if bytes.is_empty() { 0..0 } else { bytes.start / PAGE..bytes.end.div_ceil(PAGE) }
}

/// Returns the bytes of all pages that contain one of these bytes.
pub fn whole_pages(bytes: &Range<usize>) -> Range<usize> {
    let pages = pages(bytes);
    pages.start * PAGE..pages.end * PAGE
}

/// Returns the bytes of a page in a file of `len` bytes.
fn page_bytes(page: usize, len: usize) -> Range<usize> {
    (page * PAGE).min(len)..((page + 1) * PAGE).min(len)
}

/// Size of a page in bytes.
pub const PAGE: usize = 4096;
