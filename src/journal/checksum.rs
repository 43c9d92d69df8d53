//! Computes the CRC-32C of arbitrary ranges of a file. Reads each block of the file at most once to compute the checksum of the
//! block. In addition, reads at most two incomplete blocks for each range.
//!
//! The checksums of the blocks prevent a damaged file from delaying a startup for hours. After damage, the next frame may start
//! at any aligned offset. A crafted body can consist entirely of fake frame headers that each announce a frame of several
//! megabytes. If the scanner had to read a whole frame for each header, a startup after a crash would take hours. If the
//! scanner stopped after a fixed number of fake headers, it would lose the valid frames after them.
//!
//! [`Checksum`] computes the checksum of a range from two other checksums: the checksum of all bytes before the start of the
//! range, and the checksum of all bytes before the end of the range. This computation is possible because CRC-32C is linear. To
//! make the computation fast, [`Checksum`] stores the checksum of all bytes before the end of each block.

use std::io;
use std::sync::Arc;

use super::disk::DiskFile;

/// Checksums of one file: for each block, the checksum of all bytes from a fixed offset to the end of the block.
pub(super) struct Checksum {
    file: Arc<dyn DiskFile>,
    from: u64,
    /// Checksums of the bytes from `from` to the end of each block read so far. The first entry is the checksum of an empty
    /// range.
    blocks: Vec<u32>,
}

impl Checksum {
    /// Creates checksums that start at offset `from`. Does not read the file yet.
    pub(super) fn new(file: Arc<dyn DiskFile>, from: u64) -> Checksum {
        Checksum { file, from, blocks: vec![0] }
    }

    /// Returns true if `offset` is in the blocks read so far or in the next block. For any other offset, a new [`Checksum`]
    /// that starts at `offset` is cheaper: it need not read the bytes before `offset`.
    pub(super) fn reaches(&self, offset: u64) -> bool {
        (self.from..=self.from + self.blocks.len() as u64 * BLOCK).contains(&offset)
    }

    /// Returns the checksum of the bytes `start..end`; `None` if the file ends before `end`.
    pub(super) fn of(&mut self, start: u64, end: u64) -> io::Result<Option<u32>> {
        let (Some(before), Some(whole)) = (self.up_to(start)?, self.up_to(end)?) else { return Ok(None) };
        // The part of `whole` that comes from the bytes before the range.
        let shifted = crc32c::crc32c_combine(before, 0, (end - start) as usize);
        Ok(Some(whole ^ shifted))
    }

    fn up_to(&mut self, end: u64) -> io::Result<Option<u32>> {
        let mut buffer = Vec::new();
        let block = (end - self.from) / BLOCK;
        while (self.blocks.len() as u64) <= block {
            let offset = self.from + (self.blocks.len() as u64 - 1) * BLOCK;
            buffer.resize(CHUNK, 0);
            let read = self.file.read_at(&mut buffer, offset)?;
            if read < BLOCK as usize {
                return Ok(None);
            }
            for bytes in buffer[..read].chunks_exact(BLOCK as usize) {
                self.blocks.push(crc32c::crc32c_append(self.blocks[self.blocks.len() - 1], bytes));
            }
        }
        let mut rest = [0; BLOCK as usize];
        let rest = &mut rest[..((end - self.from) % BLOCK) as usize];
        let read = self.file.read_at(rest, self.from + block * BLOCK)?;
        Ok((read == rest.len()).then(|| crc32c::crc32c_append(self.blocks[block as usize], rest)))
    }
}

const BLOCK: u64 = 1024;
const CHUNK: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::{Disk, LocalDisk};

    #[test]
    fn a_range_checksum_equals_the_checksum_of_its_bytes() {
        let mut rng = fastrand::Rng::with_seed(7);
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(600_000).collect();
        let dir = tempfile::tempdir().expect("a directory");
        let disk = LocalDisk::create(dir.path()).expect("a disk");
        let file = disk.create("file", 0).expect("the disk has room");
        file.write_at(&bytes, 0).expect("the disk has room");
        let mut checksum = Checksum::new(file, 64);
        for _ in 0..500 {
            let start = rng.usize(64..bytes.len());
            let end = rng.usize(start..=bytes.len());
            let found = checksum.of(start as u64, end as u64).expect("the file can be read");
            assert_eq!(found, Some(crc32c::crc32c(&bytes[start..end])), "{start}..{end}");
        }
        assert_eq!(checksum.of(64, 600_001).expect("the file can be read"), None);
        assert_eq!(checksum.of(64, 700_000).expect("the file can be read"), None);
    }
}
