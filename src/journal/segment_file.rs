//! Names and headers of segment files, and the list of existing segments. Reads frames only to determine whether a segment
//! contains any frames.
//!
//! ```text
//! 0        8        12   16      20  24          32      40              48        56          64       80
//! +--------+--------+----+-------+---+-----------+-------+---------------+---------+-----------+--------+-----------
//! |hookhold|version |crc |length | 0 | segment id| log id| first sequence| ordinal | journal id|hash key| optional…
//! +--------+--------+----+-------+---+-----------+-------+---------------+---------+-----------+--------+-----------
//! ```
//!
//! The only optional field contains the ids of the segments that this segment replaces.
//!
//! The header occupies the first page of a segment file, and the first commit follows in the second page. Both are one write, so
//! one sync makes both durable. Every commit starts with a page, so a later write never changes a page with an acknowledged
//! event. The background
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
use super::frame::PAGE;
use super::frame_scanner::{FrameScanner, ScanStep};
use super::payload::{PayloadReader, PayloadWriter, u32_at, u64_at};
use super::segment_name::{SEGMENT_EXT, SegmentName};
use crate::event::LogId;

/// Ids that stay the same for the whole life of a journal. The meta file contains them, and every segment header repeats them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JournalIdentity {
    /// Random id of the journal.
    pub(super) journal: u64,
    /// Random key of the hash function that computes dedupe keys.
    pub(super) hash_key: [u8; 16],
}

/// Header of a segment, as far as a startup needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: JournalIdentity,
    /// Place of the segment; see [`SegmentName::place`].
    pub(super) place: (u64, u64),
    /// Ids of the segments that this segment replaces, oldest first.
    pub(super) replaced: Vec<u64>,
}

/// Encodes the header of a segment, which occupies one page. `replaced` contains the ids of the segments that this segment
/// replaces, oldest first.
pub(super) fn encode_header(name: SegmentName, log: LogId, identity: JournalIdentity, replaced: &[u64]) -> Vec<u8> {
    let mut out = vec![0; HEADER_FIELDS_LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    for (at, number) in [(24, name.id), (32, log.0), (40, name.first_seq), (48, name.ordinal), (56, identity.journal)] {
        out[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    out[64..80].copy_from_slice(&identity.hash_key);
    let mut out = PayloadWriter(out);
    out.optional_ids(REPLACED, replaced);
    let mut out = out.0;
    let length = out.len() as u32;
    out[16..20].copy_from_slice(&length.to_le_bytes());
    let crc = header_crc(&out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out.resize(SEGMENT_HEADER_LEN as usize, 0);
    out
}

/// Reads the header of a segment; `None` if the file does not start with the header of this segment. Fails if the header has
/// another format.
pub(super) fn read_header(file: &dyn DiskFile, name: SegmentName) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = [0; SEGMENT_HEADER_LEN as usize];
    let read = file.read_at(&mut bytes, 0)?;
    if read >= FORMAT_1_HEADER_LEN && bytes[..8] == *MAGIC && bytes[8..12] == 1u32.to_le_bytes() {
        // The checksum of format 1 covers the first 64 bytes except its own 4 bytes.
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..FORMAT_1_HEADER_LEN]);
        return if bytes[12..16] == crc.to_le_bytes() { Err(other_format(1)) } else { Ok(None) };
    }
    let length = u32_at(&bytes, 16).unwrap_or(0) as usize;
    if read < bytes.len() || bytes[..8] != *MAGIC || !(HEADER_FIELDS_LEN..=bytes.len()).contains(&length) {
        return Ok(None);
    }
    let header = &bytes[..length];
    if header[12..16] != header_crc(header).to_le_bytes() || u64_at(header, 24) != Some(name.id) {
        return Ok(None);
    }
    match u32_at(header, 8) {
        Some(FORMAT_VERSION) => {}
        other => return Err(other_format(other.unwrap_or(0))),
    }
    let hash_key = header[64..80].try_into().expect("16 bytes");
    let replaced = PayloadReader { bytes: header, at: HEADER_FIELDS_LEN }.optional_ids(REPLACED);
    let numbers = u64_at(header, 48).zip(u64_at(header, 40)).zip(u64_at(header, 56));
    Ok(numbers.map(|(place, journal)| SegmentHeader { identity: JournalIdentity { journal, hash_key }, place, replaced }))
}

/// Returns true if the header shows that the file has another place than its name states, so an operator has copied or renamed it.
/// Such a file must not supersede any event.
pub(super) fn is_misplaced(file: &dyn DiskFile, name: SegmentName) -> bool {
    let header = read_header(file, name);
    header.is_ok_and(|header| header.is_some_and(|header| header.place != name.place()))
}

/// Returns the error for a file of another format.
pub(super) fn other_format(found: u32) -> io::Error {
    let remedy = match found < FORMAT_VERSION {
        true => "let the version that wrote this file forward its events, then start with an empty directory",
        false => "run the later version that wrote this file",
    };
    io::Error::new(io::ErrorKind::Unsupported, format!("expected format {FORMAT_VERSION}, found format {found}; {remedy}"))
}

/// Returns true if the segment has been written at least once. In a segment that has never been written, the first page
/// contains only zeroes, and the other pages contain zeroes or frames of an earlier segment that used the same file. If
/// corruption has zeroed the first page, the summary file or a frame of this segment in another page proves that the segment
/// has been written. A segment that cannot be read counts as written, because it may contain events.
pub(super) fn is_started(disk: &dyn Disk, file: &Arc<dyn DiskFile>, name: SegmentName, size: u64) -> bool {
    let mut page = [0; PAGE as usize];
    let Ok(read) = file.read_at(&mut page, 0) else { return true };
    if page[..read].iter().any(|byte| *byte != 0) || disk.open(&name.summary_file()).is_ok() {
        return true;
    }
    let step = FrameScanner::new(file.clone(), name.id, SEGMENT_HEADER_LEN, size).step(|_| true);
    !matches!(step, Ok(ScanStep::End(_)))
}

/// Lists the segments of a directory, oldest first, with their sizes in bytes.
pub(super) fn list(disk: &dyn Disk) -> io::Result<Vec<(SegmentName, u64)>> {
    let names = disk.list()?.into_iter().filter_map(|(file, size)| Some((SegmentName::parse(&file, SEGMENT_EXT)?, size)));
    let mut segments: Vec<_> = names.collect();
    segments.sort();
    Ok(segments)
}

/// Returns the checksum of a header that starts with a magic number (8 bytes), a version (4 bytes) and the checksum. The checksum
/// covers the version, because a damaged version could otherwise look like a later version and make the startup fail.
pub(super) fn header_crc(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..])
}

/// Returns the number of bytes that are reserved for commits without events at the end of each segment. The writer can
/// therefore still save cursors and record releases when no event fits.
pub(super) fn control_room(segment_size: u64) -> u64 {
    let pages = |share: u64, most: u64| (segment_size / PAGE / share).clamp(1, most);
    (pages(16, CURSOR_PAGES) + pages(64, RELEASE_PAGES)) * PAGE
}

/// Format version of all files in the journal's directory.
pub(super) const FORMAT_VERSION: u32 = 2;
/// Length of a segment header in bytes, including the padding of its page.
pub(super) const SEGMENT_HEADER_LEN: u64 = PAGE;
/// Maximum number of pages that a segment reserves for commits with only cursors.
const CURSOR_PAGES: u64 = 64;
/// Maximum number of pages that a segment reserves for commits that record releases.
const RELEASE_PAGES: u64 = 16;
/// Length in bytes of the fields of a segment header that always exist.
const HEADER_FIELDS_LEN: usize = 80;
/// Tag of the optional field with the ids of the replaced segments.
const REPLACED: u16 = 1;
/// Length in bytes of a segment header in format 1.
const FORMAT_1_HEADER_LEN: usize = 64;
const MAGIC: &[u8; 8] = b"hookhold";
