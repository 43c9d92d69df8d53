//! One segment file: its name, its header, and finding frames in it although parts of it may be damaged.
//!
//! ```text
//! 0         8        12   16          24      32              64
//! +---------+--------+----+-----------+-------+---------------+--------+--------+---
//! |magic    |version |crc | segment id| log id| first sequence| commit | event  | …  zeroes up to the allocated size
//! +---------+--------+----+-----------+-------+---------------+--------+--------+---
//! ```
//!
//! A header is written together with the first commit, so one sync makes both safe. A file that is needed no more may be written
//! over as another segment: its first page is zeroed before it gets the new name, and its old frames carry the old id. The file name is `ORDINAL-FIRST-ID.seg`:
//! first sequence and id stand in the name too, so that a lost header neither hides frames nor revives what is void. The name
//! counts once anything has been written into the file: a segment that could not be begun leaves an empty file at most, and the
//! one before it goes on.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::frame_scanner::{Scanner, Step};
use crate::event::LogId;

/// Bytes before the first frame.
pub const HEADER: u64 = 64;
/// Commits are written up to the end of their last page of so many bytes: what an earlier life of the file left there need not be
/// read first.
pub const PAGE: u64 = 4096;
/// The ending of a spare file.
pub const SPARE: &str = ".spare";
/// The version of everything that lies in the directory.
pub const FORMAT: u32 = 1;

/// A segment's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Its place in the order of creation.
    pub ordinal: u64,
    /// Everything below this sequence was on disk before; from here on, older segments are void.
    pub first: u64,
    /// Drawn at random.
    pub id: u64,
}

impl Name {
    /// The file that holds the frames.
    pub fn segment(self) -> String {
        self.with(".seg")
    }

    /// The file that held the frames, waiting to become another segment.
    pub fn spare(self) -> String {
        self.with(SPARE)
    }

    /// The file that remembers its keys.
    pub fn keys(self) -> String {
        self.with(".keys")
    }

    /// The file that tells which lanes have frames in it.
    pub fn lanes(self) -> String {
        self.with(".lanes")
    }

    /// Reads the name of a file with this ending; `None` for any other file.
    pub fn parse(file: &str, ending: &str) -> Option<Name> {
        let mut parts = file.strip_suffix(ending)?.splitn(3, '-');
        let (ordinal, first) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let name = Name { ordinal, first, id: u64::from_str_radix(parts.next()?, 16).ok()? };
        (name.with(ending) == file).then_some(name)
    }

    fn with(self, ending: &str) -> String {
        format!("{:010}-{}-{:016x}{ending}", self.ordinal, self.first, self.id)
    }
}

/// The header's bytes of a segment that this opening creates.
pub fn header(name: Name, log: LogId) -> [u8; HEADER as usize] {
    let mut out = [0; HEADER as usize];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[16..24].copy_from_slice(&name.id.to_le_bytes());
    out[24..32].copy_from_slice(&log.0.to_le_bytes());
    out[32..40].copy_from_slice(&name.first.to_le_bytes());
    let crc = checksum(&out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// True if the segment begins with its own header. Fails where a later version wrote it.
pub fn has_header(file: &dyn DiskFile, name: Name) -> io::Result<bool> {
    let mut bytes = [0; HEADER as usize];
    if file.read_at(&mut bytes, 0)? < bytes.len() || &bytes[..8] != MAGIC {
        return Ok(false);
    }
    let is_ours = bytes[12..16] == checksum(&bytes).to_le_bytes() && bytes[16..24] == name.id.to_le_bytes();
    if is_ours && bytes[8..12] != FORMAT.to_le_bytes() {
        let version = u32::from_le_bytes(bytes[8..12].try_into().expect("4 bytes"));
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("written by a later version (format {version})")));
    }
    Ok(is_ours)
}

/// True if anything was ever written to the segment: the first page of a new one is all zero, and what lies behind it is zero
/// too or the rest of another life of the file. What rot has zeroed is known by its lane file or by a later frame.
pub fn is_begun(disk: &dyn Disk, file: &Arc<dyn DiskFile>, name: Name, size: u64) -> io::Result<bool> {
    let mut page = [0; PAGE as usize];
    let got = file.read_at(&mut page, 0)?;
    if page[..got].iter().any(|byte| *byte != 0) || disk.open(&name.lanes()).is_ok() {
        return Ok(true);
    }
    let step = Scanner::new(file.clone(), name.id, HEADER, size).step(|_| true)?;
    Ok(!matches!(step, Step::End(_)))
}

/// Covers the version too: a damaged one must not look like a later one, which would end the start.
fn checksum(header: &[u8; HEADER as usize]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..])
}

/// Lists the segments of a directory, oldest first, with their sizes in bytes.
pub fn list(disk: &dyn Disk) -> io::Result<Vec<(Name, u64)>> {
    let mut found: Vec<_> =
        disk.list()?.into_iter().filter_map(|(file, size)| Some((Name::parse(&file, ".seg")?, size))).collect();
    found.sort();
    Ok(found)
}

const MAGIC: &[u8; 8] = b"hookhold";

/// A random number from the operating system.
pub fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

/// Bytes at the end of each segment that only cursors may use, so that they can be saved when events find no room.
pub const CURSOR_ROOM: u64 = 16 * 1024;
