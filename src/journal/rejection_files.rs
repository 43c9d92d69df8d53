//! The files with rejected deliveries in the journal's directory. The journal neither writes nor needs them: a thread of the
//! service appends entries to the newest file, and every process may read all files. This module does not know the content of
//! an entry.
//!
//! A file starts with [`REJECTIONS_MAGIC`]. Each entry has a length, a checksum and its bytes. Nothing is synced, so a power
//! cut may leave any part of a file unwritten, and a reader may see an entry that is not complete yet. A reader skips an entry
//! with a wrong checksum, and the rest of a file after an impossible length. It never fails because of the content of a file.

use std::io;
use std::sync::Arc;

use super::background::RESERVE_FILE;
use super::disk::{Disk, DiskFile};
use super::payload::u32_at;

/// The files with rejected deliveries in a directory.
pub struct RejectionFiles(Arc<dyn Disk>);

/// A file with rejected deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectionFile {
    /// Number in the name of the file. A newer file has a higher number.
    pub ordinal: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// Iterator over the valid entries of a file, oldest first.
pub struct RejectionEntries {
    file: Arc<dyn DiskFile>,
    end: u64,
    at: u64,
    /// Number of damaged entries, except at the end of the file: the last entry may be one that is not complete yet.
    pub damaged: u64,
    has_skipped: bool,
}

/// A file to which one thread appends entries.
pub struct RejectionAppender {
    /// Number in the name of the file.
    pub ordinal: u64,
    file: Arc<dyn DiskFile>,
    end: u64,
}

impl RejectionFiles {
    /// Creates a handle to the files in `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> RejectionFiles {
        RejectionFiles(disk)
    }

    /// Lists the files, oldest first.
    pub fn list(&self) -> io::Result<Vec<RejectionFile>> {
        let named = |(name, bytes): (String, u64)| Some(RejectionFile { ordinal: ordinal(&name)?, bytes });
        let mut files: Vec<RejectionFile> = self.0.list()?.into_iter().filter_map(named).collect();
        files.sort_by_key(|file| file.ordinal);
        Ok(files)
    }

    /// Opens a file for reading.
    pub fn entries(&self, ordinal: u64) -> io::Result<RejectionEntries> {
        let file = self.0.open(&file_name(ordinal))?;
        let end = file.size()?;
        let mut magic = [0; REJECTIONS_MAGIC.len()];
        let is_ours = file.read_at(&mut magic, 0)? == magic.len() && magic == *REJECTIONS_MAGIC;
        let at = if is_ours { magic.len() as u64 } else { end };
        Ok(RejectionEntries { file, end, at, damaged: u64::from(!is_ours && end > 0), has_skipped: false })
    }

    /// Creates an empty file, and does not preallocate its space.
    pub fn create(&self, ordinal: u64) -> io::Result<RejectionAppender> {
        let file = self.0.create(&file_name(ordinal), 0)?;
        file.write_at(REJECTIONS_MAGIC, 0).inspect_err(|_| drop(self.remove(ordinal)))?;
        Ok(RejectionAppender { ordinal, file, end: REJECTIONS_MAGIC.len() as u64 })
    }

    /// Deletes a file. Succeeds if there is no such file.
    pub fn remove(&self, ordinal: u64) -> io::Result<()> {
        match self.0.remove(&file_name(ordinal)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Returns true if the journal's reserve exists. Otherwise, the disk is nearly full, and all free space belongs to the journal.
    pub fn has_reserve(&self) -> bool {
        self.0.open(RESERVE_FILE).is_ok()
    }
}

impl Iterator for RejectionEntries {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut head = [0; HEAD_LEN];
            if self.end - self.at < head.len() as u64 || !self.read(&mut head, self.at) {
                return None;
            }
            let (len, checksum) = (u32_at(&head, 0)? as usize, u32_at(&head, 4)?);
            let start = self.at + head.len() as u64;
            if len == 0 || len > MAX_REJECTION_BYTES || len as u64 > self.end - start {
                // The end of a file that a power cut has left may consist of zeroes.
                self.damaged += u64::from(len > 0);
                self.at = self.end;
                return None;
            }
            let mut entry = vec![0; len];
            if !self.read(&mut entry, start) {
                return None;
            }
            self.at = start + len as u64;
            if crc32c::crc32c(&entry) == checksum {
                self.damaged += u64::from(std::mem::take(&mut self.has_skipped));
                return Some(entry);
            }
            self.damaged += u64::from(std::mem::replace(&mut self.has_skipped, true));
        }
    }
}

impl RejectionEntries {
    /// Reads bytes. Returns false, and skips the rest of the file, if they cannot be read.
    fn read(&mut self, buffer: &mut [u8], at: u64) -> bool {
        let is_read = self.file.read_at(buffer, at).is_ok_and(|read| read == buffer.len());
        if !is_read {
            self.damaged += 1;
            self.at = self.end;
        }
        is_read
    }
}

impl RejectionAppender {
    /// Appends an entry, and does not sync it. If this function fails, the next entry replaces what it has written.
    pub fn append(&mut self, entry: &[u8]) -> io::Result<()> {
        if entry.is_empty() || entry.len() > MAX_REJECTION_BYTES {
            let found = format!("expected an entry of at most {MAX_REJECTION_BYTES} bytes, found {}", entry.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, found));
        }
        let mut bytes = Vec::with_capacity(HEAD_LEN + entry.len());
        bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(entry).to_le_bytes());
        bytes.extend_from_slice(entry);
        self.file.write_at(&bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Returns the size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.end
    }
}

/// Returns the space that an entry takes in a file, in bytes.
pub fn rejection_space(entry: usize) -> u64 {
    (HEAD_LEN + entry) as u64
}

fn file_name(ordinal: u64) -> String {
    format!("{ordinal:010}{REJECTED_EXT}")
}

fn ordinal(name: &str) -> Option<u64> {
    let ordinal = name.strip_suffix(REJECTED_EXT)?.parse().ok()?;
    (file_name(ordinal) == name).then_some(ordinal)
}

/// Maximum size of one entry in bytes.
pub const MAX_REJECTION_BYTES: usize = 8 << 20;
const REJECTED_EXT: &str = ".rejected";
/// First bytes of a file with rejected deliveries, with the version of its format.
const REJECTIONS_MAGIC: &[u8; 8] = b"HKREJ001";
/// Length and checksum of an entry, in bytes.
const HEAD_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::LocalDisk;

    const ENTRIES: [&[u8]; 4] = [b"first", b"second", b"third", b"fourth"];

    fn write(dir: &std::path::Path) -> (RejectionFiles, Vec<u8>) {
        let files = RejectionFiles::new(Arc::new(LocalDisk::create(dir).expect("a directory")));
        let mut appender = files.create(7).expect("the disk has room");
        ENTRIES.iter().for_each(|entry| appender.append(entry).expect("the disk has room"));
        let bytes = std::fs::read(dir.join("0000000007.rejected")).expect("the file exists");
        assert_eq!(files.list().expect("a directory"), [RejectionFile { ordinal: 7, bytes: appender.bytes() }]);
        (files, bytes)
    }

    #[test]
    fn a_damaged_entry_costs_only_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, mut bytes) = write(dir.path());
        let at = bytes.windows(6).position(|bytes| bytes == b"second").expect("the entry");
        bytes[at] ^= 1;
        std::fs::write(dir.path().join("0000000007.rejected"), &bytes).expect("writable");
        let mut entries = files.entries(7).expect("the file exists");
        assert_eq!(entries.by_ref().collect::<Vec<_>>(), [ENTRIES[0], ENTRIES[2], ENTRIES[3]]);
        assert_eq!(entries.damaged, 1);
    }

    #[test]
    fn a_file_with_any_damage_is_read_without_a_panic() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, whole) = write(dir.path());
        let path = dir.path().join("0000000007.rejected");
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 0..2000 {
            let mut bytes = whole.clone();
            match round % 3 {
                0 => bytes.truncate(rng.usize(..=whole.len())),
                1 => (0..3).for_each(|_| bytes[rng.usize(..whole.len())] = rng.u8(..)),
                _ => bytes[rng.usize(..whole.len())..].fill(0),
            }
            std::fs::write(&path, &bytes).expect("writable");
            let found: Vec<Vec<u8>> = files.entries(7).expect("the file exists").collect();
            assert!(found.iter().all(|entry| ENTRIES.contains(&&entry[..])), "round {round}: {found:?}");
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).expect("writable");
        let mut entries = files.entries(7).expect("the file exists");
        assert_eq!(entries.by_ref().count(), 3);
        assert_eq!(entries.damaged, 1, "an entry that is cut off has an impossible length");
    }

    #[test]
    fn an_entry_of_an_impossible_size_is_not_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, _) = write(dir.path());
        let mut appender = files.create(8).expect("the disk has room");
        assert!(appender.append(&[]).is_err() && appender.append(&vec![1; MAX_REJECTION_BYTES + 1]).is_err());
        appender.append(&vec![1; MAX_REJECTION_BYTES]).expect("the disk has room");
        assert_eq!(files.entries(8).expect("the file exists").count(), 1);
    }

    #[test]
    fn only_files_with_our_names_are_listed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, _) = write(dir.path());
        for name in ["7.rejected", "0000000007.rejected.tmp", "x.rejected", "+000000007.rejected", "0000000009.seg"] {
            std::fs::write(dir.path().join(name), "x").expect("writable");
        }
        assert_eq!(files.list().expect("a directory").len(), 1);
        files.remove(7).and_then(|()| files.remove(7)).expect("a missing file is removed");
        assert!(files.list().expect("a directory").is_empty());
    }
}
