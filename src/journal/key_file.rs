//! Key file of one sealed segment. The file contains the keys of the segment's events. The keys stay on disk. Only a small
//! filter of the keys is in memory.
//!
//! ```text
//! .keys   0       8    12   16         24     32        40      48
//!         +-------+----+----+----------+------+---------+-------+--------+---------+
//!         |magic  | crc| 0  |segment id|count | newest  |filter | entries| filter  |
//!         +-------+----+----+----------+------+---------+-------+--------+---------+
//!         entry: key 16 · first seen 8 · sequence 8 · fingerprint 12 · crc 4, sorted by key   filter: crc 4 · descriptor 20 · fingerprints
//! ```
//!
//! Lookups in a key file skip damaged entries and count the damage. As a result, the journal may store a duplicate, but loses
//! no event.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use xorf::{BinaryFuse16, Descriptor, Filter};

use super::disk::{Disk, DiskFile};
use super::journal_time::JournalMillis;
use super::segment_name::SegmentName;
use crate::event_key::EventKey;
use crate::fingerprint::Fingerprint;

/// Entry of a remembered key: time, position and fingerprint of the stored event that has the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey {
    /// Time of the commit that stored the event.
    pub first_seen: JournalMillis,
    /// Sequence of the stored event.
    pub seq: u64,
    /// Fingerprint of the stored event.
    pub fingerprint: Fingerprint,
}

/// Keys, each with the arrival time and sequence of the stored event that has this key.
pub(super) type KeyEntries = Vec<(EventKey, SeenKey)>;

/// Key file of a sealed segment.
pub(super) struct KeyFile {
    pub(super) name: SegmentName,
    /// Number of keys.
    pub(super) count: u64,
    /// Latest arrival time of an event whose key is in this file.
    pub(super) newest: JournalMillis,
    /// Size of the file in bytes.
    pub(super) bytes: u64,
    filter: Option<BinaryFuse16>,
    /// True once a lookup has reported damage in the file.
    damage_reported: AtomicBool,
}

impl KeyFile {
    /// Encodes a key file. `entries` must be sorted by key and contain each key only once.
    pub(super) fn encode(name: SegmentName, entries: &[(EventKey, SeenKey)]) -> Vec<u8> {
        let newest = entries.iter().map(|(_, seen)| seen.first_seen.0).max().unwrap_or(0);
        let mut out = vec![0; HEADER_LEN];
        for (key, seen) in entries {
            let start = out.len();
            out.extend_from_slice(&key.0);
            out.extend_from_slice(&seen.first_seen.0.to_le_bytes());
            out.extend_from_slice(&seen.seq.to_le_bytes());
            out.extend_from_slice(&seen.fingerprint.secret);
            out.extend_from_slice(&seen.fingerprint.body);
            out.extend_from_slice(&crc32c::crc32c(&out[start..]).to_le_bytes());
        }
        let filter = encode_filter(entries);
        out[..8].copy_from_slice(MAGIC);
        out[16..24].copy_from_slice(&name.id.to_le_bytes());
        out[24..32].copy_from_slice(&(entries.len() as u64).to_le_bytes());
        out[32..40].copy_from_slice(&newest.to_le_bytes());
        out[40..48].copy_from_slice(&(filter.len() as u64).to_le_bytes());
        let crc = crc32c::crc32c(&out[16..HEADER_LEN]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&filter);
        out
    }

    /// Opens the key file of a segment. Reads only the header and the filter. Returns `None` if the file is missing or its
    /// header is damaged. If only the filter is damaged, every lookup searches the entries.
    pub(super) fn open(disk: &dyn Disk, name: SegmentName) -> io::Result<Option<KeyFile>> {
        let file = match disk.open(&name.key_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        KeyFile::read(&*file, name)
    }

    fn read(file: &dyn DiskFile, name: SegmentName) -> io::Result<Option<KeyFile>> {
        let mut header = [0; HEADER_LEN];
        if file.read_at(&mut header, 0)? < HEADER_LEN || &header[..8] != MAGIC {
            return Ok(None);
        }
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let (count, filter_len, bytes) = (number(24), number(40), file.size()?);
        let expected = count.checked_mul(ENTRY_LEN as u64);
        let expected = expected.and_then(|entries| entries.checked_add(HEADER_LEN as u64)?.checked_add(filter_len));
        if header[8..12] != crc32c::crc32c(&header[16..]).to_le_bytes() || number(16) != name.id || expected != Some(bytes) {
            return Ok(None);
        }
        let mut filter = vec![0; filter_len as usize];
        file.read_at(&mut filter, bytes - filter_len)?;
        let (newest, filter) = (JournalMillis(number(32)), decode_filter(&filter));
        Ok(Some(KeyFile { name, count, newest, bytes, filter, damage_reported: false.into() }))
    }

    /// Returns true if the file contains at least one key.
    pub(super) fn has_keys(&self) -> bool {
        self.count > 0
    }

    /// Returns true if the filter matches the key, or if the file has keys but no filter. If the result is false, the file does
    /// not contain the key.
    pub(super) fn may_contain(&self, key: &EventKey) -> bool {
        self.has_keys() && self.filter.as_ref().is_none_or(|filter| filter.contains(&short_key(key)))
    }

    /// Searches the entries for a key. Opens the file for each lookup, because there are many key files and most of them are
    /// never searched.
    pub(super) fn find(&self, disk: &dyn Disk, key: &EventKey, damaged: &dyn Fn()) -> io::Result<Option<SeenKey>> {
        let Some(file) = self.reopen(disk)? else { return Ok(None) };
        // If the size has changed, the background thread has rewritten the file without the keys of lost events and will soon
        // replace this [`KeyFile`].
        let count = match file.size()? == self.bytes {
            true => self.count,
            false => KeyFile::read(&*file, self.name)?.map_or(0, |rewritten| rewritten.count),
        };
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            match read_entry(&*file, middle)? {
                Some((found, seen)) if found == *key => return Ok(Some(seen)),
                Some((found, _)) if found < *key => low = middle + 1,
                Some(_) => high = middle,
                None => {
                    if !self.damage_reported.swap(true, Ordering::Relaxed) {
                        damaged();
                        let file = self.name.key_file();
                        tracing::error!(file, "a key file is damaged, so hookhold may store duplicates; check the disk");
                    }
                    return find_linearly(&*file, count, key);
                }
            }
        }
        Ok(None)
    }

    /// Reads all valid entries of the file.
    pub(super) fn entries(&self, disk: &dyn Disk) -> io::Result<KeyEntries> {
        let Some(file) = self.reopen(disk)? else { return Ok(KeyEntries::new()) };
        (0..self.count).filter_map(|index| read_entry(&*file, index).transpose()).collect()
    }

    /// Opens the file for reading. Returns `None` if the background thread has deleted the file, for example because its keys
    /// have expired.
    fn reopen(&self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn DiskFile>>> {
        match disk.open(&self.name.key_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.map(Some),
        }
    }
}

/// Searches all readable entries one by one.
fn find_linearly(file: &dyn DiskFile, count: u64, key: &EventKey) -> io::Result<Option<SeenKey>> {
    for index in 0..count {
        if let Some((found, seen)) = read_entry(file, index)?
            && found == *key
        {
            return Ok(Some(seen));
        }
    }
    Ok(None)
}

/// Reads one entry; `None` if the entry is damaged or in an unreadable sector.
fn read_entry(file: &dyn DiskFile, index: u64) -> io::Result<Option<(EventKey, SeenKey)>> {
    let mut entry = [0; ENTRY_LEN];
    let read = match file.read_at(&mut entry, HEADER_LEN as u64 + index * ENTRY_LEN as u64) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => 0,
        read => read?,
    };
    if read < ENTRY_LEN || entry[44..] != crc32c::crc32c(&entry[..44]).to_le_bytes() {
        return Ok(None);
    }
    let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
    let key = EventKey(entry[..16].try_into().expect("16 bytes"));
    let half = |at: usize| entry[at..at + 6].try_into().expect("6 bytes");
    let fingerprint = Fingerprint { secret: half(32), body: half(38) };
    Ok(Some((key, SeenKey { first_seen: JournalMillis(number(16)), seq: number(24), fingerprint })))
}

fn short_key(key: &EventKey) -> u64 {
    u64::from_le_bytes(key.0[..8].try_into().expect("8 of 16 bytes"))
}

/// Encodes the filter for the keys of `entries`. Returns an empty result if there are fewer than [`FILTER_FROM`] keys. Also
/// returns an empty result if two keys share their first 8 bytes, because a filter cannot contain both keys. Without a filter,
/// lookups search the entries.
fn encode_filter(entries: &[(EventKey, SeenKey)]) -> Vec<u8> {
    let keys: Vec<u64> = entries.iter().map(|(key, _)| short_key(key)).collect();
    let is_useful = keys.len() >= FILTER_FROM && keys.is_sorted_by(|a, b| a != b);
    let Some(filter) = is_useful.then(|| BinaryFuse16::try_from(&keys).ok()).flatten() else { return Vec::new() };
    let mut out = vec![0; 4];
    out.extend_from_slice(&filter.descriptor.seed.to_le_bytes());
    out.extend_from_slice(&filter.descriptor.segment_length.to_le_bytes());
    out.extend_from_slice(&filter.descriptor.segment_length_mask.to_le_bytes());
    out.extend_from_slice(&filter.descriptor.segment_count_length.to_le_bytes());
    filter.fingerprints.iter().for_each(|print| out.extend_from_slice(&print.to_le_bytes()));
    let crc = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode_filter(bytes: &[u8]) -> Option<BinaryFuse16> {
    if bytes.len() < 24 || bytes[..4] != crc32c::crc32c(&bytes[4..]).to_le_bytes() {
        return None;
    }
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let descriptor = Descriptor {
        seed: u64::from_le_bytes(bytes[4..12].try_into().expect("8 bytes")),
        segment_length: number(12),
        segment_length_mask: number(16),
        segment_count_length: number(20),
    };
    let prints = bytes[24..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    Some(BinaryFuse16 { descriptor, fingerprints: prints.collect() })
}

const MAGIC: &[u8; 8] = b"hookkeys";
const HEADER_LEN: usize = 48;
const ENTRY_LEN: usize = 48;
/// Minimum number of keys for a filter. If there are fewer keys, a search of the entries is just as fast.
const FILTER_FROM: usize = 64;
