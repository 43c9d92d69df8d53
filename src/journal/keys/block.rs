//! Blocks of a key file. A block has up to [`BLOCK_KEYS`] keys and a filter of these keys, which is in memory while lookups ask
//! the file. The filter tells with one error in 65,000 whether a key is in the block.
//!
//! ```text
//! +--------+--------+---+--------+------------+-----------+-------------------+--------+
//! | page   | page   | … | page   | seed 8     | lengths 12| fingerprints 2 …  | zeroes |
//! +--------+--------+---+--------+------------+-----------+-------------------+--------+
//!                                └───────────────── filter ──────────────────┘
//! ```
//!
//! A filter that is damaged, or that cannot be built, is absent: lookups then search the pages of the block.

use xorf::{BinaryFuse16, Descriptor, Filter};

use super::super::payload::{u32_at, u64_at};
use super::entry::{KeyEntry, prefix};
use super::page::{KEYS_PER_PAGE, PAGE_LEN, append_page};
use crate::event_key::EventKey;

/// One block of a key file.
#[derive(Clone)]
pub(super) struct KeyBlock {
    /// Prefix of the first key.
    pub(super) first: u64,
    /// Offset of the first page.
    pub(super) offset: u64,
    /// Number of keys.
    pub(super) keys: u32,
    /// Length of the filter on disk in bytes; 0 if the block was written without a filter.
    pub(super) filter_len: u32,
    /// Checksum of the filter on disk.
    pub(super) filter_crc: u32,
    /// Filter in memory; `None` if a lookup must search the pages.
    pub(super) filter: Option<BinaryFuse16>,
}

impl KeyBlock {
    /// Encodes a block with these sorted entries at `offset` of the file with this id. Returns the block and its bytes.
    pub(super) fn encode(entries: &[KeyEntry], id: u64, offset: u64) -> (KeyBlock, Vec<u8>) {
        debug_assert!((1..=BLOCK_KEYS).contains(&entries.len()), "a block with {} keys", entries.len());
        let mut bytes = Vec::with_capacity(entries.len().div_ceil(KEYS_PER_PAGE) * PAGE_LEN + 4 * entries.len());
        for page in entries.chunks(KEYS_PER_PAGE) {
            let at = offset + bytes.len() as u64;
            append_page(&mut bytes, page, id, at);
        }
        let start = bytes.len();
        let filter = build_filter(entries.iter().map(|(key, _)| short_key(key)).collect());
        if let Some(filter) = &filter {
            append_filter(&mut bytes, filter);
        }
        let block = KeyBlock {
            first: entries.first().map_or(0, |(key, _)| prefix(key)),
            offset,
            keys: entries.len() as u32,
            filter_len: (bytes.len() - start) as u32,
            filter_crc: filter_crc(&bytes[start..], id),
            filter,
        };
        bytes.resize(bytes.len().next_multiple_of(PAGE_LEN), 0);
        (block, bytes)
    }

    /// Returns the number of pages.
    pub(super) fn pages(&self) -> usize {
        (self.keys as usize).div_ceil(KEYS_PER_PAGE)
    }

    /// Returns the offset of the filter.
    pub(super) fn filter_offset(&self) -> u64 {
        self.offset + (self.pages() * PAGE_LEN) as u64
    }

    /// Returns the offset after the last byte of the block.
    pub(super) fn end(&self) -> u64 {
        self.filter_offset() + u64::from(self.filter_len).next_multiple_of(PAGE_LEN as u64)
    }

    /// Sets the filter to the one in `bytes`. Returns false if the bytes are damaged.
    pub(super) fn read_filter(&mut self, bytes: &[u8], id: u64) -> bool {
        let is_valid = bytes.len() == self.filter_len as usize && filter_crc(bytes, id) == self.filter_crc;
        self.filter = if is_valid { decode_filter(bytes) } else { None };
        self.filter.is_some()
    }

    /// Returns false if the filter shows that the block does not contain the key.
    pub(super) fn may_contain(&self, key: &EventKey) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.contains(&short_key(key)))
    }

    /// Returns the size of the filter in memory, in bytes.
    pub(super) fn filter_bytes(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| size_of_val(&*filter.fingerprints))
    }
}

/// The part of a key that a filter contains.
fn short_key(key: &EventKey) -> u64 {
    prefix(key)
}

fn build_filter(mut keys: Vec<u64>) -> Option<BinaryFuse16> {
    // The construction needs distinct keys.
    keys.dedup();
    BinaryFuse16::try_from(keys).ok()
}

fn append_filter(out: &mut Vec<u8>, filter: &BinaryFuse16) {
    let Descriptor { seed, segment_length, segment_length_mask, segment_count_length } = &filter.descriptor;
    out.extend_from_slice(&seed.to_le_bytes());
    for length in [segment_length, segment_length_mask, segment_count_length] {
        out.extend_from_slice(&length.to_le_bytes());
    }
    filter.fingerprints.iter().for_each(|print| out.extend_from_slice(&print.to_le_bytes()));
}

/// Decodes a filter; `None` if its lengths contradict each other, because a lookup would read outside the fingerprints.
fn decode_filter(bytes: &[u8]) -> Option<BinaryFuse16> {
    let descriptor = Descriptor {
        seed: u64_at(bytes, 0)?,
        segment_length: u32_at(bytes, 8)?,
        segment_length_mask: u32_at(bytes, 12)?,
        segment_count_length: u32_at(bytes, 16)?,
    };
    let prints = bytes.get(FILTER_HEADER_LEN..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let fingerprints: Box<[u16]> = prints.collect();
    let Descriptor { segment_length: length, segment_length_mask: mask, segment_count_length: count, .. } = descriptor;
    let is_consistent = length.is_power_of_two()
        && mask == length - 1
        && count > 0
        && count.is_multiple_of(length)
        && fingerprints.len() as u64 == u64::from(count) + 2 * u64::from(length);
    is_consistent.then_some(BinaryFuse16 { descriptor, fingerprints })
}

fn filter_crc(bytes: &[u8], id: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(bytes), &id.to_le_bytes())
}

/// Maximum number of keys in a block.
pub(super) const BLOCK_KEYS: usize = 65_536;
const FILTER_HEADER_LEN: usize = 20;
