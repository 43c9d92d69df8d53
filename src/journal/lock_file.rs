//! Content of the lock file. While a process has the journal open for writing, the writer publishes the durable watermark in the
//! first page of this file, and other processes read the watermark there. The next startup uses the watermark as evidence: the
//! events below it were on disk, even if nothing else shows this any more.
//!
//! The next two pages contain the record of the owner, in turns, so that an interrupted write leaves the previous record. The
//! record names the newest segment. If this segment is missing at startup, its sequences must not be used again.
//!
//! ```text
//! 0        8    12      16     24     32      40   48            56              64
//! +--------+----+-------+------+------+-------+----+-------------+---------------+-----------
//! |hookownr|crc |length |number|log id|ordinal| id |first of them|sequence bound | optional…
//! +--------+----+-------+------+------+-------+----+-------------+---------------+-----------
//! ```

use std::io;

use super::disk::{Disk, DiskFile, read_patiently};
use super::frame::PAGE;
use super::payload::{u32_at, u64_at};
use super::segment_name::SegmentName;
use crate::event::LogId;

/// Name of the lock file.
pub(super) const LOCK_FILE: &str = "lock";

/// Length of the lock file in bytes.
pub(super) const LOCK_FILE_LEN: u64 = 3 * PAGE;

/// Number of bytes that the writer publishes at the start of the lock file.
pub(super) const PUBLISHED_LEN: usize = 24;

/// Encodes the published bytes: the log id, the durable watermark and a checksum of both.
pub(super) fn encode_watermark(log: LogId, watermark: u64) -> [u8; PUBLISHED_LEN] {
    let mut out = [0; PUBLISHED_LEN];
    out[..8].copy_from_slice(&log.0.to_le_bytes());
    out[8..16].copy_from_slice(&watermark.to_le_bytes());
    let crc = crc32c::crc32c(&out[..16]);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Durable watermark that a process has published after a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublishedWatermark {
    /// Log id of the opening.
    pub(super) log: LogId,
    pub(super) watermark: u64,
}

impl PublishedWatermark {
    /// Reads the published watermark; `None` if the checksum does not match, for example because the writer is updating the
    /// bytes.
    pub(super) fn read(lock: &dyn DiskFile) -> io::Result<Option<PublishedWatermark>> {
        let mut bytes = [0; PUBLISHED_LEN];
        let read = read_patiently(lock, &mut bytes, 0)?;
        let is_valid = read == bytes.len() && bytes[16..20] == crc32c::crc32c(&bytes[..16]).to_le_bytes();
        let published = u64_at(&bytes, 0).zip(u64_at(&bytes, 8)).filter(|_| is_valid);
        Ok(published.map(|(log, watermark)| PublishedWatermark { log: LogId(log), watermark }))
    }
}

/// Record of the process that has the journal open for writing, and of its newest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnerRecord {
    /// Number of the record. Each record has the next higher number.
    pub(super) number: u64,
    /// Log id of the opening.
    pub(super) log: LogId,
    /// The newest segment that has a synced commit.
    pub(super) newest: SegmentName,
    /// Sequence that no event of this segment reaches.
    pub(super) bound: u64,
}

impl OwnerRecord {
    /// Returns the record that follows this one, for a new segment of `size` bytes.
    pub(super) fn next(&self, log: LogId, newest: SegmentName, size: u64) -> OwnerRecord {
        OwnerRecord { number: self.number + 1, log, newest, bound: newest.first_seq + size / MIN_EVENT_LEN }
    }

    /// Writes and syncs the record.
    pub(super) fn write(&self, lock: &dyn DiskFile) -> io::Result<()> {
        let mut page = vec![0; PAGE as usize];
        page[..8].copy_from_slice(MAGIC);
        page[12..16].copy_from_slice(&(RECORD_LEN as u32).to_le_bytes());
        let SegmentName { ordinal, first_seq, id } = self.newest;
        let numbers = [self.number, self.log.0, ordinal, id, first_seq, self.bound];
        for (at, number) in (16..).step_by(8).zip(numbers) {
            page[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&page[12..RECORD_LEN]);
        page[8..12].copy_from_slice(&crc.to_le_bytes());
        lock.write_at(&page, PAGE * (1 + self.number % 2))?;
        lock.sync()
    }

    /// Reads the newest valid record; `None` if there is no valid record.
    pub(super) fn read(lock: &dyn DiskFile) -> Option<OwnerRecord> {
        [PAGE, 2 * PAGE].into_iter().filter_map(|offset| OwnerRecord::read_at(lock, offset)).max_by_key(|record| record.number)
    }

    /// An unreadable page counts as damaged, because each page only adds to what the segments prove.
    fn read_at(lock: &dyn DiskFile, offset: u64) -> Option<OwnerRecord> {
        let mut page = vec![0; PAGE as usize];
        // The next opening overwrites a record that this opening cannot read.
        let read = read_patiently(lock, &mut page, offset).ok()?;
        let fields = page[..read].get(..u32_at(&page, 12)? as usize).filter(|fields| fields.len() >= RECORD_LEN)?;
        let is_valid = fields[..8] == *MAGIC && fields[8..12] == crc32c::crc32c(&fields[12..]).to_le_bytes();
        let newest = SegmentName { ordinal: u64_at(fields, 32)?, id: u64_at(fields, 40)?, first_seq: u64_at(fields, 48)? };
        let (number, log, bound) = (u64_at(fields, 16)?, LogId(u64_at(fields, 24)?), u64_at(fields, 56)?);
        is_valid.then_some(OwnerRecord { number, log, newest, bound })
    }
}

/// Facts in the lock file.
#[derive(Default)]
pub(super) struct LockEvidence {
    pub(super) owner: Option<OwnerRecord>,
    /// Durable watermark that the same opening has published.
    pub(super) watermark: Option<u64>,
}

impl LockEvidence {
    /// Reads the lock file. A damaged file proves less, and never makes this function fail.
    pub(super) fn read(disk: &dyn Disk) -> LockEvidence {
        let Ok(lock) = disk.open(LOCK_FILE) else { return LockEvidence::default() };
        let owner = OwnerRecord::read(&*lock);
        let published = PublishedWatermark::read(&*lock).ok().flatten();
        let published = published.filter(|published| owner.is_some_and(|owner| owner.log == published.log));
        LockEvidence { owner, watermark: published.map(|published| published.watermark) }
    }
}

const MAGIC: &[u8; 8] = b"hookownr";
/// Length in bytes of the fields that always exist.
const RECORD_LEN: usize = 64;
/// Length in bytes that every event frame exceeds.
const MIN_EVENT_LEN: u64 = 64;
