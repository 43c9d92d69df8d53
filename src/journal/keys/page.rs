//! Pages of a key file. A page has its own checksum, so damage costs at most the keys of one page.
//!
//! ```text
//! 0    4    8                                                        4096
//! +----+----+-----------------------------------------------+--------+
//! |crc |keys| keys of 42 bytes, sorted                      | zeroes |
//! +----+----+-----------------------------------------------+--------+
//! key: key 16 · fingerprint 12 · first seen 6 · sequence 8
//! crc covers bytes 4..4096, then the id of the file and the offset of the page
//! ```

use std::cmp::Ordering;

use super::super::frame::PAGE;
use super::super::journal_time::JournalMillis;
use super::super::payload::u32_at;
use super::entry::{KeyEntry, SeenKey, prefix};
use crate::event_key::EventKey;
use crate::fingerprint::Fingerprint;

/// A valid page of a key file. A page contains at least one key.
pub(super) struct KeyPage<'a> {
    keys: &'a [u8],
}

/// Result of the search for a key in a page.
pub(super) enum PageSearch {
    /// The key is smaller than all keys of the page.
    Before,
    /// The key is in the page, or in no page.
    Here(Option<SeenKey>),
    /// The key is larger than all keys of the page.
    After,
}

/// Appends a page with these sorted entries to `out`. `offset` is the offset of the page in the file with this id.
pub(super) fn append_page(out: &mut Vec<u8>, entries: &[KeyEntry], id: u64, offset: u64) {
    debug_assert!((1..=KEYS_PER_PAGE).contains(&entries.len()), "a page with {} keys", entries.len());
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (key, seen) in entries {
        out.extend_from_slice(&key.0);
        out.extend_from_slice(&seen.fingerprint.secret);
        out.extend_from_slice(&seen.fingerprint.body);
        out.extend_from_slice(&seen.first_seen.0.min(LATEST).to_le_bytes()[..6]);
        out.extend_from_slice(&seen.seq.to_le_bytes());
    }
    out.resize(start + PAGE_LEN, 0);
    let crc = page_crc(&out[start..], id, offset);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

impl<'a> KeyPage<'a> {
    /// Returns the page at `offset` of the file with this id; `None` if the page is damaged.
    pub(super) fn parse(bytes: &'a [u8], id: u64, offset: u64) -> Option<KeyPage<'a>> {
        let count = u32_at(bytes, 4)? as usize;
        let is_valid = bytes.len() == PAGE_LEN
            && (1..=KEYS_PER_PAGE).contains(&count)
            && bytes[..4] == page_crc(bytes, id, offset).to_le_bytes();
        is_valid.then(|| KeyPage { keys: &bytes[PAGE_HEADER_LEN..PAGE_HEADER_LEN + count * KEY_LEN] })
    }

    /// Searches the page for a key.
    pub(super) fn search(&self, key: &EventKey) -> PageSearch {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return PageSearch::Here(Some(self.entry(middle).1)),
                Ordering::Greater => high = middle,
            }
        }
        match low {
            0 => PageSearch::Before,
            _ if low == self.len() => PageSearch::After,
            _ => PageSearch::Here(None),
        }
    }

    /// Returns the prefixes of the first and of the last key.
    pub(super) fn prefixes(&self) -> (u64, u64) {
        (prefix(&self.key(0)), prefix(&self.key(self.len() - 1)))
    }

    /// Returns all entries in the order of their keys.
    pub(super) fn entries(&self) -> impl Iterator<Item = KeyEntry> {
        (0..self.len()).map(|index| self.entry(index))
    }

    fn len(&self) -> usize {
        self.keys.len() / KEY_LEN
    }

    fn key(&self, index: usize) -> EventKey {
        EventKey(self.field(index, 0))
    }

    fn entry(&self, index: usize) -> KeyEntry {
        let fingerprint = Fingerprint { secret: self.field(index, 16), body: self.field(index, 22) };
        let [a, b, c, d, e, f] = self.field(index, 28);
        let first_seen = JournalMillis(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
        let seq = u64::from_le_bytes(self.field(index, 34));
        (self.key(index), SeenKey { first_seen, seq, fingerprint })
    }

    fn field<const LEN: usize>(&self, index: usize, at: usize) -> [u8; LEN] {
        let start = index * KEY_LEN + at;
        self.keys[start..start + LEN].try_into().expect("the slice has this length")
    }
}

/// The checksum covers the offset, so a page that the disk has written to a wrong place is not valid there.
fn page_crc(page: &[u8], id: u64, offset: u64) -> u32 {
    let crc = crc32c::crc32c(&page[4..]);
    let crc = crc32c::crc32c_append(crc, &id.to_le_bytes());
    crc32c::crc32c_append(crc, &offset.to_le_bytes())
}

/// Length of a page in bytes.
pub(super) const PAGE_LEN: usize = PAGE as usize;
/// Maximum number of keys in a page.
pub(super) const KEYS_PER_PAGE: usize = (PAGE_LEN - PAGE_HEADER_LEN) / KEY_LEN;
const PAGE_HEADER_LEN: usize = 8;
const KEY_LEN: usize = 42;
/// Latest time that fits into a key.
const LATEST: u64 = (1 << 48) - 1;
