//! Names and headers of segment files, and the list of existing segments. Reads frames only to determine whether a segment
//! contains any frames.
//!
//! ```text
//! 0         8        12   16          24      32              64
//! +---------+--------+----+-----------+-------+---------------+--------+--------+---
//! |magic    |version |crc | segment id| log id| first sequence| commit | event  | …  zeroes up to the allocated size
//! +---------+--------+----+-----------+-------+---------------+--------+--------+---
//! ```
//!
//! A segment file starts with a header and the first commit. Both are one write, so one sync makes both durable. The background
//! thread may recycle the file of a deleted segment. Before the file becomes a new segment, the background thread zeroes the
//! first page. The old frames in the other pages are invalid in the new segment, because the checksum of each old frame covers
//! the id of the old segment.
//!
//! The name of a segment file is `ORDINAL-FIRST-ID.seg`. The name repeats the first sequence and the id, so a reader can read
//! the frames and skip superseded frames even if the header is damaged. A new segment supersedes events of older segments only
//! after the first write to the file of the new segment. If the writer fails to start a segment, the writer leaves at most an
//! unused file and continues to use the previous segment.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::frame_scanner::{FrameScanner, ScanStep};
use super::random::Random;
use crate::event::LogId;

/// Name of a segment. The segment's files have this name and different extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentName {
    /// Position of the segment in the order in which the journal created its segments.
    pub(super) ordinal: u64,
    /// First sequence of the segment. All earlier events were durable before the segment started. The segment supersedes all
    /// events of older segments at and above this sequence.
    pub(super) first_seq: u64,
    /// Random id of the segment.
    pub(super) id: u64,
}

impl SegmentName {
    /// Returns a name with a random id.
    pub(super) fn new(ordinal: u64, first_seq: u64, random: &dyn Random) -> io::Result<SegmentName> {
        Ok(SegmentName { ordinal, first_seq, id: random.next_u64()? })
    }

    /// Returns the name of the file that contains the frames.
    pub(super) fn segment_file(self) -> String {
        self.with_ext(SEGMENT_EXT)
    }

    /// Returns the name of the spare file: the file of this segment after the journal has deleted the segment.
    pub(super) fn spare_file(self) -> String {
        self.with_ext(SPARE_EXT)
    }

    /// Returns the name of the file that contains the keys.
    pub(super) fn key_file(self) -> String {
        self.with_ext(KEYS_EXT)
    }

    /// Returns the name of the file that contains the segment summary.
    pub(super) fn summary_file(self) -> String {
        self.with_ext(SUMMARY_EXT)
    }

    /// Parses a file name that consists of a segment name and the extension `ext`; `None` for any other file name.
    pub(super) fn parse(file: &str, ext: &str) -> Option<SegmentName> {
        let mut parts = file.strip_suffix(ext)?.splitn(3, '-');
        let (ordinal, first_seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let name = SegmentName { ordinal, first_seq, id: u64::from_str_radix(parts.next()?, 16).ok()? };
        (name.with_ext(ext) == file).then_some(name)
    }

    fn with_ext(self, ext: &str) -> String {
        format!("{:010}-{}-{:016x}{ext}", self.ordinal, self.first_seq, self.id)
    }
}

/// Encodes the header of a segment.
pub(super) fn encode_header(name: SegmentName, log: LogId) -> [u8; SEGMENT_HEADER_LEN as usize] {
    let mut out = [0; SEGMENT_HEADER_LEN as usize];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&name.id.to_le_bytes());
    out[24..32].copy_from_slice(&log.0.to_le_bytes());
    out[32..40].copy_from_slice(&name.first_seq.to_le_bytes());
    let crc = header_crc(&out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Returns true if the file starts with the header of this segment. Fails if a later version wrote the header.
pub(super) fn has_header(file: &dyn DiskFile, name: SegmentName) -> io::Result<bool> {
    let mut bytes = [0; SEGMENT_HEADER_LEN as usize];
    if file.read_at(&mut bytes, 0)? < bytes.len() || &bytes[..8] != MAGIC {
        return Ok(false);
    }
    let is_ours = bytes[12..16] == header_crc(&bytes).to_le_bytes() && bytes[16..24] == name.id.to_le_bytes();
    if is_ours && bytes[8..12] != FORMAT_VERSION.to_le_bytes() {
        let found = u32::from_le_bytes(bytes[8..12].try_into().expect("4 bytes"));
        let what = format!("expected format {FORMAT_VERSION}, found format {found}; run the later version that wrote this file");
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(is_ours)
}

/// Returns true if the segment has been written at least once. In a segment that has never been written, the first page
/// contains only zeroes, and the other pages contain zeroes or frames of an earlier segment that used the same file. If
/// corruption has zeroed the first page, the summary file or a frame of this segment in another page proves that the segment
/// has been written.
pub(super) fn is_started(disk: &dyn Disk, file: &Arc<dyn DiskFile>, name: SegmentName, size: u64) -> io::Result<bool> {
    let mut page = [0; PAGE as usize];
    let read = file.read_at(&mut page, 0)?;
    if page[..read].iter().any(|byte| *byte != 0) || disk.open(&name.summary_file()).is_ok() {
        return Ok(true);
    }
    let step = FrameScanner::new(file.clone(), name.id, SEGMENT_HEADER_LEN, size).step(|_| true)?;
    Ok(!matches!(step, ScanStep::End(_)))
}

/// Lists the segments of a directory, oldest first, with their sizes in bytes.
pub(super) fn list(disk: &dyn Disk) -> io::Result<Vec<(SegmentName, u64)>> {
    let names = disk.list()?.into_iter().filter_map(|(file, size)| Some((SegmentName::parse(&file, SEGMENT_EXT)?, size)));
    let mut segments: Vec<_> = names.collect();
    segments.sort();
    Ok(segments)
}

/// Returns the checksum of a segment header. The checksum covers the version field, because a damaged version field could
/// otherwise look like the field of a later version and make the startup fail.
fn header_crc(header: &[u8; SEGMENT_HEADER_LEN as usize]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..])
}

/// Format version of all files in the journal's directory.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Length of a segment header in bytes.
pub(super) const SEGMENT_HEADER_LEN: u64 = 64;
/// Size of a page in bytes. The writer pads a commit to the end of its last page, so that the kernel does not have to read the
/// old content of this page in a recycled file.
pub(super) const PAGE: u64 = 4096;
/// Number of bytes that are reserved for cursors at the end of each segment. The writer can therefore still save cursors when
/// no event fits.
pub(super) const CURSOR_ROOM: u64 = 16 * 1024;
pub(super) const SEGMENT_EXT: &str = ".seg";
pub(super) const SPARE_EXT: &str = ".spare";
pub(super) const KEYS_EXT: &str = ".keys";
pub(super) const SUMMARY_EXT: &str = ".lanes";
const MAGIC: &[u8; 8] = b"hookhold";
