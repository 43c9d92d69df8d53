//! The meta file, which contains the format version, the journal's id and the hash key: the random key of the hash function that
//! computes dedupe keys. hookhold generates both at the first startup.
//!
//! ```text
//! 0        8        12   16      20  24         32       48
//! +--------+--------+----+-------+---+----------+--------+-----------
//! |hookmeta|version |crc |length | 0 |journal id|hash key| optional…
//! +--------+--------+----+-------+---+----------+--------+-----------
//! ```

use std::io;

use super::super::disk::{Disk, write_atomically};
use super::super::random::Random;
use super::super::payload::{u32_at, u64_at};
use super::super::segment_file::{self, FORMAT_VERSION, JournalIdentity, PAGE, header_crc, other_format};

/// Reads the journal's ids, or generates them for a new journal. Fails if there are segments but no meta file, because a new
/// hash key would prevent hookhold from recognising duplicates of the stored events.
pub(super) fn identity(disk: &dyn Disk, random: &dyn Random) -> io::Result<JournalIdentity> {
    match disk.open(META_FILE) {
        Ok(file) => {
            let mut bytes = vec![0; PAGE as usize];
            let read = file.read_at(&mut bytes, 0)?;
            decode(&bytes[..read])
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(disk, random),
        Err(error) => Err(error),
    }
}

fn decode(bytes: &[u8]) -> io::Result<JournalIdentity> {
    let damaged = || {
        let what = "expected a valid file, found a damaged file; restore it from a backup of the journal";
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    // In format 1, the file ends with the checksum of its first 28 bytes.
    if bytes.len() == 32 && bytes[..8] == *MAGIC && bytes[28..] == crc32c::crc32c(&bytes[..28]).to_le_bytes() {
        return Err(other_format(u32_at(bytes, 8).unwrap_or(0)));
    }
    let length = u32_at(bytes, 16).ok_or_else(damaged)? as usize;
    let fields = bytes.get(..length).filter(|fields| fields.len() >= META_LEN).ok_or_else(damaged)?;
    if fields[..8] != *MAGIC || fields[12..16] != header_crc(fields).to_le_bytes() {
        return Err(damaged());
    }
    if fields[8..12] != FORMAT_VERSION.to_le_bytes() {
        return Err(other_format(u32_at(fields, 8).unwrap_or(0)));
    }
    let journal = u64_at(fields, 24).ok_or_else(damaged)?;
    Ok(JournalIdentity { journal, hash_key: fields[32..48].try_into().expect("16 bytes") })
}

fn create(disk: &dyn Disk, random: &dyn Random) -> io::Result<JournalIdentity> {
    if !segment_file::list(disk)?.is_empty() {
        let what = "expected a file because segments exist, found the file missing; restore it from a backup of the journal";
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    let mut bytes = [0; META_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..20].copy_from_slice(&(META_LEN as u32).to_le_bytes());
    for at in [24, 32, 40] {
        bytes[at..at + 8].copy_from_slice(&random.next_u64()?.to_le_bytes());
    }
    let crc = header_crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    write_atomically(disk, META_FILE, &bytes)?;
    disk.sync_dir()?;
    decode(&bytes)
}

pub(super) const META_FILE: &str = "meta";
const MAGIC: &[u8; 8] = b"hookmeta";
const META_LEN: usize = 48;
