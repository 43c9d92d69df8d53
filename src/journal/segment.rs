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
use std::ops::Range;
use std::sync::Arc;

use super::checksum::Checksum;
use super::disk::{Disk, DiskFile};
use super::frame::{self, ALIGN, HEAD, Head};
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

/// What [`Scanner::step`] met.
#[derive(Debug)]
pub enum Step {
    /// A genuine frame; its bytes are [`Scanner::frame`].
    Frame(Head),
    /// Bytes that are no frame, with a genuine frame behind them (which comes next).
    Damage(Range<u64>),
    /// No further genuine frame from this offset on.
    End(u64),
}

/// Walks the genuine frames of one segment in order.
pub struct Scanner {
    file: Arc<dyn DiskFile>,
    segment: u64,
    size: u64,
    at: u64,
    frame: Range<usize>,
    buffer: Vec<u8>,
    buffer_at: u64,
    /// Checksums behind damage.
    sums: Option<Checksum>,
}

impl Scanner {
    /// Starts at `at` (the first frame: [`HEADER`]) of the segment with this id and looks no further than `limit`.
    pub fn new(file: Arc<dyn DiskFile>, segment: u64, at: u64, limit: u64) -> Scanner {
        Scanner { file, segment, size: limit, at, frame: 0..0, buffer: Vec::new(), buffer_at: 0, sums: None }
    }

    /// The segment has grown: genuine frames may now reach up to `limit`.
    pub fn grow(&mut self, limit: u64) {
        self.size = limit;
    }

    /// Forgets what has been read ahead: at the end of a file that another process writes, it may be out of date.
    pub fn refresh(&mut self) {
        self.buffer.clear();
        self.sums = None;
    }

    /// The offset at which the next step begins.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The bytes of the frame that the last step found.
    pub fn frame(&self) -> &[u8] {
        &self.buffer[self.frame.clone()]
    }

    /// The next frame for which `fits` holds; other bytes count as damage if such a frame follows, else as the end.
    pub fn step(&mut self, fits: impl Fn(&Head) -> bool) -> io::Result<Step> {
        let start = self.at;
        let mut at = start;
        while at + HEAD as u64 <= self.size {
            let is_likely = at == start || self.is_likely(at, &fits)?;
            match if is_likely { self.frame_at(at, &fits)? } else { None } {
                Some(_) if at > start => {
                    self.at = at;
                    return Ok(Step::Damage(start..at));
                }
                Some(head) => {
                    self.at = at + frame::padded(head.len) as u64;
                    return Ok(Step::Frame(head));
                }
                None => at = self.next_candidate(at)?,
            }
        }
        Ok(Step::End(start))
    }

    fn frame_at(&mut self, at: u64, fits: &impl Fn(&Head) -> bool) -> io::Result<Option<Head>> {
        self.fill(at, HEAD)?;
        let Some(head) = frame::peek(self.window(at, HEAD), self.size - at).filter(fits) else { return Ok(None) };
        self.fill(at, head.len)?;
        let start = (at - self.buffer_at) as usize;
        self.frame = start..(start + head.len).min(self.buffer.len());
        Ok(frame::is_genuine(self.frame(), self.segment).then_some(head))
    }

    /// Checks what may be a frame without reading all that it claims to be: behind damage there may be very many.
    fn is_likely(&mut self, at: u64, fits: &impl Fn(&Head) -> bool) -> io::Result<bool> {
        self.fill(at, HEAD)?;
        let Some(head) = frame::peek(self.window(at, HEAD), self.size - at).filter(fits) else { return Ok(false) };
        if !self.sums.as_ref().is_some_and(|sums| sums.reach(at)) {
            self.sums = Some(Checksum::new(self.file.clone(), at));
        }
        let Some(sums) = &mut self.sums else { return Ok(true) };
        let Some(sum) = sums.of(at + 24, at + head.len as u64)? else { return Ok(false) };
        Ok(frame::is_genuine_by(self.window(at, HEAD), sum, self.segment))
    }

    /// Makes `len` bytes from `at` on available, as far as the file has them.
    fn fill(&mut self, at: u64, len: usize) -> io::Result<()> {
        let end = (at + len as u64).min(self.size);
        if at >= self.buffer_at && end <= self.buffer_at + self.buffer.len() as u64 {
            return Ok(());
        }
        self.buffer.resize((len.max(CHUNK) as u64).min(self.size.saturating_sub(at)) as usize, 0);
        // Until the read has succeeded the buffer holds nothing: the next look reads again.
        let mut buffer = std::mem::take(&mut self.buffer);
        let got = self.file.read_at(&mut buffer, at)?;
        buffer.truncate(got);
        (self.buffer, self.buffer_at) = (buffer, at);
        Ok(())
    }

    fn window(&self, at: u64, len: usize) -> &[u8] {
        let start = ((at - self.buffer_at) as usize).min(self.buffer.len());
        &self.buffer[start..(start + len).min(self.buffer.len())]
    }

    /// The next aligned offset at which a frame may begin: zeroes are passed over without a second look.
    fn next_candidate(&mut self, at: u64) -> io::Result<u64> {
        let mut at = at + ALIGN as u64;
        while at + HEAD as u64 <= self.size {
            self.fill(at, HEAD)?;
            let rest = self.window(at, usize::MAX - at as usize);
            if rest.is_empty() {
                // The file is shorter than it was said to be.
                return Ok(self.size);
            }
            match rest.chunks_exact(ALIGN).position(|word| word[..4] != [0; 4]) {
                Some(words) => return Ok(at + (words * ALIGN) as u64),
                None => at += (rest.len() / ALIGN * ALIGN).max(ALIGN) as u64,
            }
        }
        Ok(self.size)
    }
}

const MAGIC: &[u8; 8] = b"hookhold";
const CHUNK: usize = 256 * 1024;
