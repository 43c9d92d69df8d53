//! A key file that lookups ask. The header and the filters are in memory, the keys stay on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::disk::DiskFile;
use super::block::KeyBlock;
use super::damage::{KeyDamage, UnreadablePages};
use super::entry::{SeenKey, interpolate, prefix};
use super::header::{KeyFacts, KeyFileHeader, KeyFileName};
use super::page::{KeyPage, PAGE_LEN, PageSearch};
use crate::event_key::EventKey;

/// A key file that lookups ask.
pub(super) struct KeyFile {
    pub(super) name: KeyFileName,
    pub(super) facts: KeyFacts,
    pub(super) blocks: Vec<KeyBlock>,
    /// Ids of the key files that this file replaces.
    pub(super) replaced: Vec<u64>,
    /// Size of the file in bytes.
    pub(super) bytes: u64,
    /// The file, open for reading. A lookup may still use the file after the background thread has deleted it.
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) unreadable: Arc<UnreadablePages>,
    /// Prefixes of the first keys of all blocks.
    firsts: Vec<u64>,
    is_stale: AtomicBool,
}

impl KeyFile {
    /// Creates a key file whose filters are in memory already.
    pub(super) fn new(name: KeyFileName, header: KeyFileHeader, file: Arc<dyn DiskFile>, unreadable: UnreadablePages) -> KeyFile {
        let bytes = header.file_len();
        let KeyFileHeader { facts, blocks, replaced, .. } = header;
        let firsts = blocks.iter().map(|block| block.first).collect();
        let (unreadable, is_stale) = (Arc::new(unreadable), AtomicBool::new(false));
        KeyFile { name, facts, blocks, replaced, bytes, file, unreadable, firsts, is_stale }
    }

    /// Reads the filters of a key file. A damaged filter is counted, and makes the file stale.
    pub(super) fn load(
        name: KeyFileName,
        mut header: KeyFileHeader,
        file: Arc<dyn DiskFile>,
        damage: &Arc<KeyDamage>,
    ) -> KeyFile {
        let (id, mut is_stale) = (header.id, false);
        for block in header.blocks.iter_mut().filter(|block| block.filter_len > 0) {
            let mut bytes = vec![0; block.filter_len as usize];
            let read = file.read_at(&mut bytes, block.filter_offset()).unwrap_or(0);
            if !block.read_filter(&bytes[..read], id) {
                damage.lose_filter(&name.to_string(), block.filter_offset());
                is_stale = true;
            }
        }
        let loaded = KeyFile::new(name, header, file, UnreadablePages::new(name.to_string(), damage.clone()));
        loaded.is_stale.store(is_stale, Ordering::Relaxed);
        loaded
    }

    /// Returns true if the background thread should rewrite the file, because it contains keys of lost events or a damaged
    /// filter.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    /// Marks the file as stale.
    pub(super) fn set_stale(&self) {
        self.is_stale.store(true, Ordering::Relaxed);
    }

    /// Returns false if the filters show that the file does not contain the key.
    pub(super) fn may_contain(&self, key: &EventKey) -> bool {
        self.blocks_with(prefix(key)).any(|(_, block)| block.may_contain(key))
    }

    /// Searches the file for a key. Counts each unreadable page once, and treats its keys as unknown.
    pub(super) fn find(&self, key: &EventKey) -> Option<SeenKey> {
        let blocks = self.blocks_with(prefix(key)).filter(|(_, block)| block.may_contain(key));
        blocks.filter_map(|(at, block)| self.find_in(at, block, key)).next()
    }

    /// Returns the size of all filters in memory, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let blocks = size_of_val(&*self.blocks) + size_of_val(&*self.firsts);
        size_of::<KeyFile>() + blocks + self.blocks.iter().map(KeyBlock::filter_bytes).sum::<usize>()
    }

    /// Returns the blocks that may contain a key with this prefix, and their indices. This is one block, unless a block starts
    /// with a key of the same prefix.
    fn blocks_with(&self, prefix: u64) -> impl Iterator<Item = (usize, &KeyBlock)> {
        let last = self.last_block(prefix);
        let first = last.map(|last| (0..=last).rev().find(|at| self.firsts[*at] < prefix).unwrap_or(0));
        let range = first.zip(last).map_or(0..0, |(first, last)| first..last + 1);
        range.map(|at| (at, &self.blocks[at]))
    }

    /// Returns the index of the last block whose first prefix is at most `prefix`. The keys are hashes, so the block is usually
    /// the interpolated one or a neighbour of it.
    fn last_block(&self, prefix: u64) -> Option<usize> {
        let guess = interpolate(prefix, 0, u64::MAX, self.firsts.len());
        let near = guess.saturating_sub(1)..(guess + 2).min(self.firsts.len());
        let is_last = |at: &usize| self.firsts[*at] <= prefix && self.firsts.get(*at + 1).is_none_or(|next| *next > prefix);
        let found = near.rev().find(is_last);
        found.or_else(|| self.firsts.partition_point(|first| *first <= prefix).checked_sub(1))
    }

    fn find_in(&self, index: usize, block: &KeyBlock, key: &EventKey) -> Option<SeenKey> {
        let prefix = prefix(key);
        let (mut low, mut high) = (0, block.pages());
        let (mut from, mut to) = (block.first, self.firsts.get(index + 1).copied().unwrap_or(u64::MAX));
        let mut bytes = [0; PAGE_LEN];
        for attempt in 0.. {
            if low >= high {
                break;
            }
            // Keys that are no hashes could make the interpolation slow.
            let guess =
                low + if attempt < MAX_INTERPOLATIONS { interpolate(prefix, from, to, high - low) } else { (high - low) / 2 };
            let mut pages = (guess..high).map(|at| (at, self.search_page(block, at, key, &mut bytes)));
            let Some((at, Some((search, prefixes)))) = pages.find(|(_, found)| found.is_some()) else {
                high = guess;
                continue;
            };
            match search {
                PageSearch::Here(found) => return found,
                // The unreadable pages between the guess and this page may contain the key. It is unknown then.
                PageSearch::Before => (high, to) = (guess, prefixes.0),
                PageSearch::After => (low, from) = (at + 1, prefixes.1),
            }
        }
        None
    }

    /// Reads one page and searches it. Also returns the prefixes of the page's first and last key. Returns `None` if the page
    /// cannot be read.
    fn search_page(
        &self,
        block: &KeyBlock,
        page: usize,
        key: &EventKey,
        bytes: &mut [u8; PAGE_LEN],
    ) -> Option<(PageSearch, (u64, u64))> {
        let offset = block.offset + (page * PAGE_LEN) as u64;
        let read = self.file.read_at(bytes, offset);
        let page = read.as_ref().ok().and_then(|read| KeyPage::parse(&bytes[..*read], self.name.id(), offset));
        if page.is_none() {
            self.unreadable.add(offset, read.as_ref().err());
        }
        page.map(|page| (page.search(key), page.prefixes()))
    }
}

/// Number of attempts after which a search halves the pages instead of interpolating.
const MAX_INTERPOLATIONS: usize = 4;
