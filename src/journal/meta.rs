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

use super::disk::{Disk, write_atomically};
use super::frame::PAGE;
use super::payload::{u32_at, u64_at};
use super::random::Random;
use super::segment_file::{self, FORMAT_VERSION, JournalIdentity, header_crc, other_format};
use crate::metrics::Metrics;

/// Content of the meta file at a startup.
pub(super) enum MetaFile {
    Valid(JournalIdentity),
    /// File that is damaged, or missing although there are segments. The error describes it.
    Unusable(io::Error),
}

impl MetaFile {
    /// Reads the meta file, or generates the ids of a new journal and writes the file. Fails if the file has another format.
    pub(super) fn open(disk: &dyn Disk, random: &dyn Random) -> io::Result<MetaFile> {
        match read(disk) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(error),
            Err(error) if error.kind() == io::ErrorKind::NotFound && segment_file::list(disk)?.is_empty() => {
                write(disk, generate(random)?).map(MetaFile::Valid)
            }
            Err(error) => Ok(MetaFile::Unusable(error)),
            Ok(identity) => Ok(MetaFile::Valid(identity)),
        }
    }

    /// Returns the journal's ids. Writes an unusable file again, with the ids of the newest segment of this journal, or with new ids
    /// if `newest` is `None`. Only a scan knows which segments are a part of this journal.
    pub(super) fn identity(
        self,
        disk: &dyn Disk,
        random: &dyn Random,
        newest: Option<JournalIdentity>,
        metrics: &Metrics,
    ) -> io::Result<JournalIdentity> {
        let damage = match self {
            MetaFile::Valid(identity) => return Ok(identity),
            MetaFile::Unusable(damage) => damage,
        };
        metrics.journal.damaged.inc();
        match newest {
            Some(_) => tracing::error!(file = META_FILE, %damage, "{REBUILT}"),
            None => tracing::error!(file = META_FILE, %damage, "{NEW_IDS}"),
        }
        let identity = newest.map_or_else(|| generate(random), Ok)?;
        // The next segment header contains the ids, so the next startup can try again.
        if let Err(error) = write(disk, identity) {
            tracing::error!(file = META_FILE, %error, "cannot write the file; hookhold tries again at the next startup");
        }
        Ok(identity)
    }
}

/// Writes the meta file with another id of the journal and with the same hash key.
pub(super) fn renew_identity(disk: &dyn Disk, random: &dyn Random, previous: JournalIdentity) -> io::Result<JournalIdentity> {
    write(disk, JournalIdentity { journal: random.next_u64()?, ..previous })
}

/// Returns the hash key in the meta file; `None` if the file cannot be used.
pub(super) fn hash_key(disk: &dyn Disk) -> Option<[u8; 16]> {
    read(disk).ok().map(|identity| identity.hash_key)
}

/// Fails if the journal in the directory `disk` has a format that this version cannot read. Another process may have it open.
pub fn check_format(disk: &dyn Disk) -> io::Result<()> {
    match read(disk) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

fn read(disk: &dyn Disk) -> io::Result<JournalIdentity> {
    let mut bytes = vec![0; PAGE as usize];
    let read = disk.open(META_FILE)?.read_at(&mut bytes, 0)?;
    decode(&bytes[..read])
}

fn decode(bytes: &[u8]) -> io::Result<JournalIdentity> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "expected a valid file, found a damaged file");
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

fn generate(random: &dyn Random) -> io::Result<JournalIdentity> {
    let mut hash_key = [0; 16];
    hash_key[..8].copy_from_slice(&random.next_u64()?.to_le_bytes());
    hash_key[8..].copy_from_slice(&random.next_u64()?.to_le_bytes());
    Ok(JournalIdentity { journal: random.next_u64()?, hash_key })
}

fn write(disk: &dyn Disk, identity: JournalIdentity) -> io::Result<JournalIdentity> {
    let mut bytes = [0; META_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..20].copy_from_slice(&(META_LEN as u32).to_le_bytes());
    bytes[24..32].copy_from_slice(&identity.journal.to_le_bytes());
    bytes[32..].copy_from_slice(&identity.hash_key);
    let crc = header_crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    write_atomically(disk, META_FILE, &bytes)?;
    disk.sync_dir()?;
    Ok(identity)
}

pub(super) const META_FILE: &str = "meta";
const MAGIC: &[u8; 8] = b"hookmeta";
const META_LEN: usize = 48;
const REBUILT: &str = "the file cannot be used, so hookhold writes it again from the header of a segment; check the disk";
const NEW_IDS: &str = "neither the file nor the header of a segment can be used, so hookhold draws new ids and stores duplicates of \
                       earlier events; check the disk";
