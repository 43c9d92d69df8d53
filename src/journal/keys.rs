//! Which keys have been seen: those of unsealed segments in memory, those of sealed ones in one key file per segment with a
//! small filter in memory. A key file outlives its segment, until its newest key leaves the window.
//!
//! ```text
//! .keys   0       8    12   16         24     32        40      48
//!         +-------+----+----+----------+------+---------+-------+--------+---------+
//!         |magic  | crc| 0  |segment id|count | newest  |filter | entries| filter  |
//!         +-------+----+----+----------+------+---------+-------+--------+---------+
//!         entry: key 16 · first seen 8 · sequence 8 · crc 4, sorted by key    filter: crc 4 · descriptor 20 · fingerprints
//! ```
//!
//! Only an equal 128-bit key is a repeat. Of two entries the newer counts. A damaged entry is passed over and counted: the
//! price is a repeat that is kept twice, never an event that is lost.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use xorf::{BinaryFuse16, Descriptor, Filter};

use super::disk::{Disk, DiskFile};
use super::segment_file::Name;
use crate::clock::UnixMillis;
use crate::event_key::{EventKey, PassThroughHasher};

/// When a key was first seen, and with which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey {
    /// The arrival of the event that is kept.
    pub first_seen: UnixMillis,
    /// Its sequence.
    pub seq: u64,
}

/// Keys with what is known of them.
pub type Remembered = Vec<(EventKey, SeenKey)>;

/// What memory alone can say about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLookup {
    /// It is the key of this event.
    Seen(SeenKey),
    /// A key file may hold it: [`Keys::lookup`] tells.
    MaybeOnDisk,
    /// It has not been seen.
    New,
}

/// All remembered keys.
#[derive(Default)]
pub struct Keys {
    unsealed: Mutex<Unsealed>,
    files: RwLock<Vec<Arc<KeyFile>>>,
    /// Sequences of events that rot has taken: their keys count no more, wherever they are found.
    lost: RwLock<Vec<Range<u64>>>,
    /// True while some of them have not been looked for in the key files.
    to_look_for: AtomicBool,
}

#[derive(Default)]
struct Unsealed {
    newest: HashMap<EventKey, SeenKey, BuildHasherDefault<PassThroughHasher>>,
    by_segment: HashMap<Name, Remembered>,
}

impl Keys {
    /// Notes keys of an unsealed segment.
    pub fn note(&self, segment: Name, keys: impl Iterator<Item = (EventKey, SeenKey)>) {
        let mut unsealed = self.unsealed.lock().expect(POISON);
        let Unsealed { newest, by_segment } = &mut *unsealed;
        let list = by_segment.entry(segment).or_default();
        for (key, seen) in keys {
            newest.insert(key, seen);
            list.push((key, seen));
        }
    }

    /// What is known without asking the disk. A file that may hold a newer entry cannot exist for an unsealed key.
    pub fn lookup_in_memory(&self, key: &EventKey) -> MemoryLookup {
        if let Some(seen) = self.unsealed.lock().expect(POISON).newest.get(key).copied().filter(|seen| !self.is_lost(seen)) {
            return MemoryLookup::Seen(seen);
        }
        match self.files.read().expect(POISON).iter().any(|file| file.may_hold(key)) {
            true => MemoryLookup::MaybeOnDisk,
            false => MemoryLookup::New,
        }
    }

    /// Keys of unsealed segments.
    pub fn in_memory(&self) -> u64 {
        self.unsealed.lock().expect(POISON).newest.len() as u64
    }

    /// Asks the key files. Reads the disk.
    pub fn lookup(&self, disk: &dyn Disk, key: &EventKey, damaged: &dyn Fn()) -> io::Result<Option<SeenKey>> {
        let candidates: Vec<_> = self.files.read().expect(POISON).iter().filter(|f| f.may_hold(key)).cloned().collect();
        let mut newest: Option<SeenKey> = None;
        for file in candidates {
            let found = file.find(disk, key, damaged)?;
            newest = newest.into_iter().chain(found).filter(|seen| !self.is_lost(seen)).max_by_key(|seen| seen.seq);
        }
        Ok(newest)
    }

    /// Forgets the keys of events that rot has taken: their retries must be kept. Every reader that passes the damage tells.
    pub fn forget(&self, sequences: Range<u64>) {
        let mut lost = self.lost.write().expect(POISON);
        if lost.iter().any(|known| known.start <= sequences.start && sequences.end <= known.end) {
            return;
        }
        lost.push(sequences);
        self.to_look_for.store(true, Ordering::Release);
    }

    /// Names the key files that still hold keys of lost events, with what should be left in them.
    pub fn to_rewrite(&self, disk: &dyn Disk) -> io::Result<Vec<(Name, Remembered)>> {
        if !self.to_look_for.swap(false, Ordering::AcqRel) {
            return Ok(Vec::new());
        }
        let files = self.files.read().expect(POISON).clone();
        let mut rewrite = Vec::new();
        for file in files {
            let all = file.entries(disk)?;
            let keep: Vec<_> = all.iter().filter(|(_, seen)| !self.is_lost(seen)).copied().collect();
            if keep.len() < all.len() {
                rewrite.push((file.name, keep));
            }
        }
        Ok(rewrite)
    }

    /// Key files could not be written anew: the next call of [`Keys::to_rewrite`] names them again.
    pub fn look_again(&self) {
        self.to_look_for.store(true, Ordering::Release);
    }

    /// True while a segment's key file is asked.
    pub fn has_file(&self, name: Name) -> bool {
        self.files.read().expect(POISON).iter().any(|file| file.name == name)
    }

    /// A key file has been written anew.
    pub fn replace(&self, name: Name, file: Option<KeyFile>) {
        let mut files = self.files.write().expect(POISON);
        files.retain(|file| file.name != name);
        files.extend(file.filter(KeyFile::has_keys).map(Arc::new));
    }

    /// True when rot has taken the event of this entry.
    pub fn is_lost(&self, seen: &SeenKey) -> bool {
        self.lost.read().expect(POISON).iter().any(|range| range.contains(&seen.seq))
    }

    /// The keys of a segment that is about to be sealed: sorted, without older entries of the same key.
    pub fn of_segment(&self, segment: Name) -> Remembered {
        let mut keys = self.unsealed.lock().expect(POISON).by_segment.get(&segment).cloned().unwrap_or_default();
        keys.retain(|(_, seen)| !self.is_lost(seen));
        keys.sort_by_key(|(key, seen)| (*key, std::cmp::Reverse(seen.seq)));
        keys.dedup_by_key(|(key, _)| *key);
        keys
    }

    /// From now on the key file speaks for the segment; its keys leave memory. One without keys need not be asked.
    pub fn seal(&self, segment: Name, file: Option<KeyFile>) {
        self.files.write().expect(POISON).extend(file.filter(KeyFile::has_keys).map(Arc::new));
        let mut unsealed = self.unsealed.lock().expect(POISON);
        for (key, seen) in unsealed.by_segment.remove(&segment).unwrap_or_default() {
            if unsealed.newest.get(&key).is_some_and(|newest| newest.seq == seen.seq) {
                unsealed.newest.remove(&key);
            }
        }
    }

    /// Takes away the files whose newest key is older than `expired`, then the oldest beyond `max_bytes`. Returns their
    /// names, the second kind with the number of keys that went early.
    pub fn retire(&self, expired: UnixMillis, max_bytes: u64) -> (Vec<Name>, Vec<(Name, u64)>) {
        let mut files = self.files.write().expect(POISON);
        files.sort_by_key(|file| file.name);
        let (old, keep): (Vec<_>, Vec<_>) = files.drain(..).partition(|file| file.newest < expired);
        let mut bytes: u64 = keep.iter().map(|file| file.bytes).sum();
        let mut early = Vec::new();
        for file in keep {
            if bytes > max_bytes {
                bytes -= file.bytes;
                early.push((file.name, file.count));
            } else {
                files.push(file);
            }
        }
        (old.iter().map(|file| file.name).collect(), early)
    }
}

/// One sealed segment's keys: the entries stay on disk, the filter is in memory.
pub struct KeyFile {
    name: Name,
    count: u64,
    newest: UnixMillis,
    bytes: u64,
    filter: Option<BinaryFuse16>,
    /// True once damage in it has been told.
    damaged: AtomicBool,
}

impl KeyFile {
    /// The bytes of a key file; `keys` sorted and free of repeats.
    pub fn encode(name: Name, keys: &[(EventKey, SeenKey)]) -> Vec<u8> {
        let newest = keys.iter().map(|(_, seen)| seen.first_seen.0).max().unwrap_or(0);
        let mut out = vec![0; HEADER];
        for (key, seen) in keys {
            let start = out.len();
            out.extend_from_slice(&key.0);
            out.extend_from_slice(&seen.first_seen.0.to_le_bytes());
            out.extend_from_slice(&seen.seq.to_le_bytes());
            out.extend_from_slice(&crc32c::crc32c(&out[start..]).to_le_bytes());
        }
        let filter = encode_filter(keys);
        out[..8].copy_from_slice(MAGIC);
        out[16..24].copy_from_slice(&name.id.to_le_bytes());
        out[24..32].copy_from_slice(&(keys.len() as u64).to_le_bytes());
        out[32..40].copy_from_slice(&newest.to_le_bytes());
        out[40..48].copy_from_slice(&(filter.len() as u64).to_le_bytes());
        let crc = crc32c::crc32c(&out[16..HEADER]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&filter);
        out
    }

    /// Opens the key file of a segment, reading its header and filter only. `None`: absent, or its header is damaged. A
    /// damaged filter is left out: every look-up then asks the entries.
    pub fn open(disk: &dyn Disk, name: Name) -> io::Result<Option<KeyFile>> {
        let file = match disk.open(&name.keys()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        KeyFile::read(&*file, name)
    }

    fn read(file: &dyn DiskFile, name: Name) -> io::Result<Option<KeyFile>> {
        let mut head = [0; HEADER];
        if file.read_at(&mut head, 0)? < HEADER || &head[..8] != MAGIC {
            return Ok(None);
        }
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let (count, filter_len, bytes) = (number(24), number(40), file.size()?);
        let whole = count.checked_mul(ENTRY as u64).and_then(|n| n.checked_add(HEADER as u64)?.checked_add(filter_len));
        if head[8..12] != crc32c::crc32c(&head[16..]).to_le_bytes() || number(16) != name.id || whole != Some(bytes) {
            return Ok(None);
        }
        let mut filter = vec![0; filter_len as usize];
        file.read_at(&mut filter, bytes - filter_len)?;
        let (newest, filter) = (UnixMillis(number(32)), decode_filter(&filter));
        Ok(Some(KeyFile { name, count, newest, bytes, filter, damaged: false.into() }))
    }

    /// True if there is a key in it.
    pub fn has_keys(&self) -> bool {
        self.count > 0
    }

    fn may_hold(&self, key: &EventKey) -> bool {
        self.has_keys() && self.filter.as_ref().is_none_or(|filter| filter.contains(&short(key)))
    }

    /// Opens the file for each look-up: there are many key files, and few are ever asked.
    fn find(&self, disk: &dyn Disk, key: &EventKey, damaged: &dyn Fn()) -> io::Result<Option<SeenKey>> {
        let Some(file) = self.reopen(disk)? else { return Ok(None) };
        // Shorter: it has been written anew, without the keys of lost events, and this one is about to be replaced.
        let count = match file.size()? == self.bytes {
            true => self.count,
            false => KeyFile::read(&*file, self.name)?.map_or(0, |anew| anew.count),
        };
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            match entry(&*file, middle)? {
                Some((found, seen)) if found == *key => return Ok(Some(seen)),
                Some((found, _)) if found < *key => low = middle + 1,
                Some(_) => high = middle,
                None => {
                    if !self.damaged.swap(true, Ordering::Relaxed) {
                        damaged();
                        tracing::error!(file = self.name.keys(), "a damaged key file: repeats of some events are not recognised");
                    }
                    return find_slowly(&*file, count, key);
                }
            }
        }
        Ok(None)
    }

    fn entries(&self, disk: &dyn Disk) -> io::Result<Remembered> {
        let Some(file) = self.reopen(disk)? else { return Ok(Remembered::new()) };
        (0..self.count).filter_map(|index| entry(&*file, index).transpose()).collect()
    }

    /// `None`: it has left the window meanwhile.
    fn reopen(&self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn DiskFile>>> {
        match disk.open(&self.name.keys()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.map(Some),
        }
    }
}

/// Looks at every entry that can still be read.
fn find_slowly(file: &dyn DiskFile, count: u64, key: &EventKey) -> io::Result<Option<SeenKey>> {
    for index in 0..count {
        if let Some((found, seen)) = entry(file, index)?
            && found == *key
        {
            return Ok(Some(seen));
        }
    }
    Ok(None)
}

/// One entry. `None`: it is damaged, or lies in a sector that cannot be read.
fn entry(file: &dyn DiskFile, index: u64) -> io::Result<Option<(EventKey, SeenKey)>> {
    let mut entry = [0; ENTRY];
    let got = match file.read_at(&mut entry, HEADER as u64 + index * ENTRY as u64) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => 0,
        got => got?,
    };
    if got < ENTRY || entry[32..] != crc32c::crc32c(&entry[..32]).to_le_bytes() {
        return Ok(None);
    }
    let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
    let key = EventKey(entry[..16].try_into().expect("16 bytes"));
    Ok(Some((key, SeenKey { first_seen: UnixMillis(number(16)), seq: number(24) })))
}

fn short(key: &EventKey) -> u64 {
    u64::from_le_bytes(key.0[..8].try_into().expect("8 of 16 bytes"))
}

/// Few keys, or a filter that cannot be built (two keys that share 8 bytes): none, which means "ask the entries".
fn encode_filter(keys: &[(EventKey, SeenKey)]) -> Vec<u8> {
    let shorts: Vec<u64> = keys.iter().map(|(key, _)| short(key)).collect();
    let worth_it = shorts.len() >= FILTER_FROM && shorts.is_sorted_by(|a, b| a != b);
    let Some(filter) = worth_it.then(|| BinaryFuse16::try_from(&shorts).ok()).flatten() else { return Vec::new() };
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

const POISON: &str = "nothing panics while it holds this lock";
const MAGIC: &[u8; 8] = b"hookkeys";
const HEADER: usize = 48;
const ENTRY: usize = 36;
/// With fewer keys than this the search is as quick as a filter.
const FILTER_FROM: usize = 64;
