//! Names and headers of key files.
//!
//! ```text
//! 0        8        12   16     20      24     32      40       48       56       64        72
//! +--------+--------+----+------+-------+------+-------+--------+--------+--------+---------+---------------+-----------
//! |hookkeys|version |crc |length| blocks|id    | count | oldest | newest | first  | last    | of each block | optional…
//! +--------+--------+----+------+-------+------+-------+--------+--------+--------+---------+---------------+-----------
//!          block: first key 8 · keys 4 · filter length 4 · crc of the filter 4 · zeroes 4         zeroes up to `length`
//! ```
//!
//! `length` is the length of the header including the zeroes, a multiple of 4096. `crc` covers the version, and the header from
//! `length` on. A merge reserves the header before it knows the number of blocks, so the zeroes may take several pages.

use std::fmt;

use super::super::disk::DiskFile;
use super::super::journal_time::JournalMillis;
use super::super::payload::{OPTIONAL_HEADER_LEN, PayloadReader, PayloadWriter, u32_at};
use super::super::segment_file::{FORMAT_VERSION, header_crc};
use super::super::segment_name::{KEYS_EXT, SegmentName};
use super::block::{BLOCK_KEYS, KeyBlock};
use super::entry::{KeyEntry, SeenKey};
use super::page::PAGE_LEN;

/// Name of a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyFileName {
    /// File with the keys of one sealed segment.
    Segment(SegmentName),
    /// File with the keys of several segments, and its random id.
    Merged(u64),
}

/// Facts about the keys of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyFacts {
    /// Number of keys.
    pub(super) count: u64,
    /// First-seen time of the oldest key.
    pub(super) oldest: JournalMillis,
    /// First-seen time of the newest key.
    pub(super) newest: JournalMillis,
    /// Lowest sequence.
    pub(super) first: u64,
    /// Highest sequence.
    pub(super) last: u64,
}

/// Header of a key file.
#[derive(Clone, Default)]
pub(crate) struct KeyFileHeader {
    /// Id of the segment, or random id of a merged file.
    pub(super) id: u64,
    pub(super) facts: KeyFacts,
    pub(super) blocks: Vec<KeyBlock>,
    /// Ids of the key files that this file replaces.
    pub(super) replaced: Vec<u64>,
    /// Length of the header in bytes.
    len: u64,
}

/// Encodes the blocks of a key file one by one, and then the header.
pub(super) struct KeyFileBuilder {
    header: KeyFileHeader,
    /// Entries of the next block.
    entries: Vec<KeyEntry>,
    /// Offset of the next block.
    offset: u64,
}

impl KeyFileName {
    /// Parses the name of a key file; `None` for any other file name.
    pub(super) fn parse(file: &str) -> Option<KeyFileName> {
        let merged = || {
            let id = file.strip_prefix(MERGED_PREFIX)?.strip_suffix(KEYS_EXT)?;
            let name = KeyFileName::Merged(u64::from_str_radix(id, 16).ok()?);
            (name.to_string() == file).then_some(name)
        };
        SegmentName::parse(file, KEYS_EXT).map(KeyFileName::Segment).or_else(merged)
    }

    pub(super) fn id(self) -> u64 {
        match self {
            KeyFileName::Segment(name) => name.id,
            KeyFileName::Merged(id) => id,
        }
    }
}

impl fmt::Display for KeyFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyFileName::Segment(name) => f.write_str(&name.key_file()),
            KeyFileName::Merged(id) => write!(f, "{MERGED_PREFIX}{id:016x}{KEYS_EXT}"),
        }
    }
}

impl KeyFacts {
    fn add(&mut self, seen: &SeenKey) {
        let is_first = self.count == 0;
        self.count += 1;
        self.oldest = if is_first { seen.first_seen } else { self.oldest.min(seen.first_seen) };
        self.newest = self.newest.max(seen.first_seen);
        self.first = if is_first { seen.seq } else { self.first.min(seen.seq) };
        self.last = self.last.max(seen.seq);
    }

    /// Returns true if a key of the file may have a sequence in `range`.
    pub(super) fn overlaps(&self, range: &std::ops::Range<u64>) -> bool {
        self.count > 0 && range.start <= self.last && self.first < range.end
    }
}

impl KeyFileHeader {
    /// Reads the header of a key file. If the file has no valid header with this id, returns a description of what it has.
    pub(super) fn read(file: &dyn DiskFile, id: u64) -> Result<KeyFileHeader, String> {
        let read = |len: usize| {
            let mut bytes = vec![0; len];
            match file.read_at(&mut bytes, 0) {
                Ok(read) if read == len => Ok(bytes),
                Ok(_) => Err("a file without a whole header".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        let first = read(PAGE_LEN)?;
        let len = u32_at(&first, 16).unwrap_or(0) as usize;
        if first[..8] != *MAGIC || !len.is_multiple_of(PAGE_LEN) || !(PAGE_LEN..=MAX_HEADER_LEN).contains(&len) {
            return Err("a damaged header".to_owned());
        }
        let bytes = if len == PAGE_LEN { first } else { read(len)? };
        if bytes[12..16] != header_crc(&bytes).to_le_bytes() {
            return Err("a damaged header".to_owned());
        }
        match u32_at(&bytes, 8) {
            Some(FORMAT_VERSION) => {}
            version => return Err(format!("format {}, not format {FORMAT_VERSION}", version.unwrap_or(0))),
        }
        KeyFileHeader::decode(&bytes, id).ok_or_else(|| "a header that contradicts itself".to_owned())
    }

    fn decode(bytes: &[u8], id: u64) -> Option<KeyFileHeader> {
        let mut reader = PayloadReader { bytes, at: 20 };
        let count = reader.u32()?;
        if reader.u64()? != id {
            return None;
        }
        let mut number = || reader.u64();
        let facts = KeyFacts {
            count: number()?,
            oldest: JournalMillis(number()?),
            newest: JournalMillis(number()?),
            first: number()?,
            last: number()?,
        };
        let (mut blocks, mut offset) = (Vec::new(), bytes.len() as u64);
        for _ in 0..count {
            let (first, keys, filter_len, filter_crc) = (reader.u64()?, reader.u32()?, reader.u32()?, reader.u32()?);
            reader.take(4)?;
            let block = KeyBlock { first, offset, keys, filter_len, filter_crc, filter: None };
            if !(1..=BLOCK_KEYS as u32).contains(&keys) || filter_len > MAX_FILTER_LEN {
                return None;
            }
            offset = block.end();
            blocks.push(block);
        }
        let is_consistent = blocks.iter().map(|block| u64::from(block.keys)).sum::<u64>() == facts.count
            && blocks.is_sorted_by_key(|block| block.first);
        let replaced = reader.optional_ids(REPLACED);
        is_consistent.then_some(KeyFileHeader { id, facts, blocks, replaced, len: bytes.len() as u64 })
    }

    /// Encodes the header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = PayloadWriter(MAGIC.to_vec());
        let KeyFacts { count, oldest, newest, first, last } = self.facts;
        for number in [FORMAT_VERSION, 0, self.len as u32, self.blocks.len() as u32] {
            out.u32(number);
        }
        for number in [self.id, count, oldest.0, newest.0, first, last] {
            out.u64(number);
        }
        for block in &self.blocks {
            out.u64(block.first);
            [block.keys, block.filter_len, block.filter_crc, 0].into_iter().for_each(|number| out.u32(number));
        }
        out.optional_ids(REPLACED, &self.replaced);
        let mut bytes = out.0;
        debug_assert!(bytes.len() as u64 <= self.len, "the header is longer than its reserved pages");
        bytes.resize(self.len as usize, 0);
        let crc = header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Returns true if the file has no keys.
    pub(super) fn is_empty(&self) -> bool {
        self.facts.count == 0
    }

    /// Returns the size of the file in bytes.
    pub(super) fn file_len(&self) -> u64 {
        self.blocks.last().map_or(self.len, KeyBlock::end)
    }

    /// Returns the same header without the filters in memory.
    pub(super) fn without_filters(mut self) -> KeyFileHeader {
        self.blocks.iter_mut().for_each(|block| block.filter = None);
        self
    }
}

impl KeyFileBuilder {
    /// Starts a file of at most `max_keys` keys that replaces the files with the ids `replaced`.
    pub(super) fn new(id: u64, max_keys: u64, replaced: Vec<u64>) -> KeyFileBuilder {
        let blocks = max_keys.div_ceil(BLOCK_KEYS as u64);
        let fields = FIXED_LEN as u64 + blocks * BLOCK_FIELDS_LEN + OPTIONAL_HEADER_LEN as u64 + 8 * replaced.len() as u64;
        let len = fields.next_multiple_of(PAGE_LEN as u64);
        let header = KeyFileHeader { id, facts: KeyFacts::default(), blocks: Vec::new(), replaced, len };
        KeyFileBuilder { header, entries: Vec::new(), offset: len }
    }

    /// Adds an entry to the next block. The caller must add the entries in the order of their keys, and must encode the block
    /// once it is full.
    pub(super) fn push(&mut self, entry: KeyEntry) {
        debug_assert!(self.entries.last().is_none_or(|(last, _)| *last < entry.0), "the keys are not sorted");
        self.header.facts.add(&entry.1);
        self.entries.push(entry);
    }

    /// Returns true if the next block has room for no further entry.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() == BLOCK_KEYS
    }

    /// Encodes the next block, and returns its offset and its bytes; `None` if it has no entries.
    pub(super) fn take_block(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.entries.is_empty() {
            return None;
        }
        let (block, bytes) = KeyBlock::encode(&self.entries, self.header.id, self.offset);
        let at = self.offset;
        self.offset = block.end();
        self.header.blocks.push(block);
        self.entries.clear();
        Some((at, bytes))
    }

    /// Returns true if the next block has entries.
    pub(super) fn has_entries(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Returns the header of the complete file. The builder is empty afterwards.
    pub(super) fn finish(&mut self) -> KeyFileHeader {
        debug_assert!(self.entries.is_empty(), "the last block is not encoded");
        std::mem::take(&mut self.header)
    }
}

/// Encodes a whole key file with these sorted entries.
pub(crate) fn encode_key_file(id: u64, entries: &[KeyEntry], replaced: Vec<u64>) -> (KeyFileHeader, Vec<u8>) {
    let mut builder = KeyFileBuilder::new(id, entries.len() as u64, replaced);
    let mut bytes = vec![0; builder.offset as usize];
    for block in entries.chunks(BLOCK_KEYS) {
        block.iter().for_each(|entry| builder.push(*entry));
        bytes.extend(builder.take_block().map(|(_, bytes)| bytes).unwrap_or_default());
    }
    let header = builder.finish();
    let encoded = header.encode();
    bytes[..encoded.len()].copy_from_slice(&encoded);
    (header, bytes)
}

const MAGIC: &[u8; 8] = b"hookkeys";
const MERGED_PREFIX: &str = "merged-";
/// Length of the fields before the blocks in bytes.
const FIXED_LEN: usize = 72;
/// Length of the fields of one block in bytes.
const BLOCK_FIELDS_LEN: u64 = 24;
/// Optional field with the ids of the replaced key files.
const REPLACED: u16 = 1;
/// Maximum length of a header in bytes. hookhold never writes a longer header.
const MAX_HEADER_LEN: usize = 64 << 20;
/// Maximum length of a filter in bytes. hookhold never writes a longer filter.
const MAX_FILTER_LEN: u32 = 1 << 20;
