//! The meta file, which contains the format version and the hash key: the random key of the hash function that computes dedupe
//! keys. hookhold generates the hash key at the first startup.

use std::io;

use super::super::disk::{Disk, write_atomically};
use super::super::random::Random;
use super::super::segment_file::{self, FORMAT_VERSION};

/// Reads the hash key, or generates a hash key for a new journal. Fails if there are segments but no meta file, because a new
/// hash key would prevent hookhold from recognising duplicates of the stored events.
pub(super) fn hash_key(disk: &dyn Disk, random: &dyn Random) -> io::Result<[u8; 16]> {
    let bytes = match disk.open(META_FILE) {
        Ok(file) => {
            let mut bytes = [0; META_LEN];
            let read = file.read_at(&mut bytes, 0)?;
            check(&bytes, read)?;
            bytes
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(disk, random)?,
        Err(error) => return Err(error),
    };
    Ok(bytes[12..28].try_into().expect("16 bytes"))
}

fn check(bytes: &[u8; META_LEN], read: usize) -> io::Result<()> {
    let is_valid = read == META_LEN && &bytes[..8] == MAGIC && bytes[28..] == crc32c::crc32c(&bytes[..28]).to_le_bytes();
    if !is_valid {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "expected a valid file, found a damaged file; restore it from a backup of the journal",
        ));
    }
    if bytes[8..12] != FORMAT_VERSION.to_le_bytes() {
        let found = u32::from_le_bytes(bytes[8..12].try_into().expect("4 bytes"));
        let what = format!("expected format {FORMAT_VERSION}, found format {found}; run the later version that wrote this file");
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(())
}

fn create(disk: &dyn Disk, random: &dyn Random) -> io::Result<[u8; META_LEN]> {
    if !segment_file::list(disk)?.is_empty() {
        let what = "expected a file because segments exist, found the file missing; restore it from a backup of the journal";
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    let mut bytes = [0; META_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&random.next_u64()?.to_le_bytes());
    bytes[20..28].copy_from_slice(&random.next_u64()?.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    write_atomically(disk, META_FILE, &bytes)?;
    disk.sync_dir()?;
    Ok(bytes)
}

pub(super) const META_FILE: &str = "meta";
const MAGIC: &[u8; 8] = b"hookmeta";
const META_LEN: usize = 32;
