//! Checksums of any stretch of a file, for the price of reading the file once. Behind damage every aligned offset may begin a
//! frame, and a body can be made of nothing but heads that claim to be megabytes long: to check each by reading all that it
//! claims would make a start after a crash last for hours. To give up after so many would lose the genuine frames behind them.
//!
//! CRC-32C is linear: the sum of a stretch follows from the sums up to its two ends, of which one is kept for each block.

use std::io;
use std::sync::Arc;

use super::disk::DiskFile;

/// Checksum of one file from some offset on.
pub struct Checksum {
    file: Arc<dyn DiskFile>,
    from: u64,
    /// The sum from `from` up to the end of each block that has been read; the first is that of nothing.
    blocks: Vec<u32>,
}

impl Checksum {
    /// Nothing has been read yet.
    pub fn new(file: Arc<dyn DiskFile>, from: u64) -> Checksum {
        Checksum { file, from, blocks: vec![0] }
    }

    /// True if a stretch may begin here without reading what lies far in front of it.
    pub fn reach(&self, at: u64) -> bool {
        (self.from..=self.from + self.blocks.len() as u64 * BLOCK).contains(&at)
    }

    /// The checksum of the bytes `start..end`. `None`: the file ends before.
    pub fn of(&mut self, start: u64, end: u64) -> io::Result<Option<u32>> {
        let (Some(before), Some(whole)) = (self.up_to(start)?, self.up_to(end)?) else { return Ok(None) };
        // What is in front of the stretch, followed by as many zeroes as the stretch is long.
        let shifted = crc32c::crc32c_combine(before, 0, (end - start) as usize);
        Ok(Some(whole ^ shifted))
    }

    fn up_to(&mut self, end: u64) -> io::Result<Option<u32>> {
        let mut buffer = Vec::new();
        let block = (end - self.from) / BLOCK;
        while (self.blocks.len() as u64) <= block {
            let at = self.from + (self.blocks.len() as u64 - 1) * BLOCK;
            buffer.resize(CHUNK, 0);
            let got = self.file.read_at(&mut buffer, at)?;
            if got < BLOCK as usize {
                return Ok(None);
            }
            for bytes in buffer[..got].chunks_exact(BLOCK as usize) {
                self.blocks.push(crc32c::crc32c_append(self.blocks[self.blocks.len() - 1], bytes));
            }
        }
        let mut rest = [0; BLOCK as usize];
        let rest = &mut rest[..((end - self.from) % BLOCK) as usize];
        let got = self.file.read_at(rest, self.from + block * BLOCK)?;
        Ok((got == rest.len()).then(|| crc32c::crc32c_append(self.blocks[block as usize], rest)))
    }
}

const BLOCK: u64 = 1024;
const CHUNK: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::{Disk, LocalDisk};

    #[test]
    fn the_sum_of_any_stretch_is_that_of_its_bytes() {
        let mut rng = fastrand::Rng::with_seed(7);
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(600_000).collect();
        let dir = tempfile::tempdir().expect("a directory");
        let disk = LocalDisk::create(dir.path()).expect("a disk");
        let file = disk.create("file", 0).expect("there is room");
        file.write_at(&bytes, 0).expect("there is room");
        let mut sums = Checksum::new(file, 64);
        for _ in 0..500 {
            let start = rng.usize(64..bytes.len());
            let end = rng.usize(start..=bytes.len());
            let sum = sums.of(start as u64, end as u64).expect("it can be read");
            assert_eq!(sum, Some(crc32c::crc32c(&bytes[start..end])), "{start}..{end}");
        }
        assert_eq!(sums.of(64, 600_001).expect("it can be read"), None);
        assert_eq!(sums.of(64, 700_000).expect("it can be read"), None);
    }
}
