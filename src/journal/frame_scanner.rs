//! Finds the valid frames of one segment, in order, even if parts of the file are damaged. Does not decode the frames.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::checksum::Checksum;
use super::disk::{DiskFile, read_patiently};
use super::frame::{self, FRAME_ALIGN, FRAME_HEADER_LEN, FrameHeader, FrameKind, PAGE};

/// Result of [`FrameScanner::step`].
#[derive(Debug)]
pub(super) enum ScanStep {
    /// Header of a valid frame. [`FrameScanner::frame`] returns the bytes of the frame.
    Frame(FrameHeader),
    /// Range of bytes that are not part of a valid frame. The next step returns the valid frame after this range.
    Damage(Range<u64>),
    /// Offset after which there is no further valid frame.
    End(u64),
}

/// Scanner that finds the valid frames of one segment in order.
pub(super) struct FrameScanner {
    file: Arc<dyn DiskFile>,
    segment: u64,
    limit: u64,
    at: u64,
    /// Offset of the frame that the last step found.
    frame_at: u64,
    frame: Range<usize>,
    buffer: Vec<u8>,
    buffer_at: u64,
    /// Checksums of the file; `None` until the scanner finds damage.
    checksum: Option<Checksum>,
    /// True if the scanner treats pages that cannot be read as damage. False if a failed read ends the scan.
    skips_unreadable: bool,
    /// Offset of the first page that could not be read.
    first_unreadable: Option<u64>,
}

impl FrameScanner {
    /// Creates a scanner for the segment with the id `segment`. The scanner starts at offset `at` and does not read beyond
    /// `limit`.
    pub(super) fn new(file: Arc<dyn DiskFile>, segment: u64, at: u64, limit: u64) -> FrameScanner {
        FrameScanner {
            file,
            segment,
            limit,
            at,
            frame_at: at,
            frame: 0..0,
            buffer: Vec::new(),
            buffer_at: 0,
            checksum: None,
            skips_unreadable: false,
            first_unreadable: None,
        }
    }

    /// Makes the scanner treat pages that cannot be read as damage.
    pub(super) fn skip_unreadable(mut self) -> FrameScanner {
        self.skips_unreadable = true;
        self
    }

    /// Returns the offset of the first page that the scanner has skipped because it cannot be read.
    pub(super) fn first_unreadable(&self) -> Option<u64> {
        self.first_unreadable
    }

    /// Raises the limit after the segment has grown.
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Discards the buffered bytes and checksums, which are outdated if another process has written to the file.
    pub(super) fn refresh(&mut self) {
        self.buffer.clear();
        self.checksum = None;
    }

    /// Returns the offset of the frame that the last step found.
    pub(super) fn frame_offset(&self) -> u64 {
        self.frame_at
    }

    /// Returns the bytes of the frame that the last step found.
    pub(super) fn frame(&self) -> &[u8] {
        &self.buffer[self.frame.clone()]
    }

    /// Finds the next valid frame for which `accepts` returns true. Reports any bytes before this frame as damage, except for the
    /// zeroes between the end of a commit and the next page. If there is no such frame, reports the end of the segment.
    pub(super) fn step(&mut self, accepts: impl Fn(&FrameHeader) -> bool) -> io::Result<ScanStep> {
        self.step_skimming(accepts, |_, _| false)
    }

    /// Like [`FrameScanner::step`], but does not compute the checksum of a frame that `skips` returns true for, if the next event
    /// follows it. Without a checksum, a damaged frame may look valid, but its length is right. Calls `skips` at most once, with a
    /// frame that may be damaged. [`FrameScanner::frame`] must not be called after the step has skipped a frame.
    pub(super) fn step_skimming(
        &mut self,
        accepts: impl Fn(&FrameHeader) -> bool,
        skips: impl FnOnce(&FrameHeader, &[u8]) -> bool,
    ) -> io::Result<ScanStep> {
        let start = self.at;
        let mut at = start;
        if let Some(header) = self.skipped_frame(start, &accepts, skips)? {
            return Ok(self.found(start, header));
        }
        while at + FRAME_HEADER_LEN as u64 <= self.limit {
            let is_likely = at == start || self.is_likely(at, &accepts)?;
            match if is_likely { self.frame_at(at, &accepts)? } else { None } {
                Some(_) if at > start => {
                    self.at = at;
                    return Ok(ScanStep::Damage(start..at));
                }
                Some(header) => return Ok(self.found(at, header)),
                None if at == start => {
                    if let Some((at, header)) = self.commit_after_padding(start, &accepts)? {
                        return Ok(self.found(at, header));
                    }
                    at = self.next_candidate(at)?;
                }
                None => at = self.next_candidate(at)?,
            }
        }
        Ok(ScanStep::End(start))
    }

    /// Returns the next commit frame if only the padding of a page precedes it.
    fn commit_after_padding(
        &mut self,
        start: u64,
        accepts: &impl Fn(&FrameHeader) -> bool,
    ) -> io::Result<Option<(u64, FrameHeader)>> {
        let page = start.next_multiple_of(PAGE);
        let len = (page - start) as usize;
        if len == 0 || page + FRAME_HEADER_LEN as u64 > self.limit {
            return Ok(None);
        }
        self.fill(start, len)?;
        let padding = self.buffered(start, len);
        if padding.len() < len || padding.iter().any(|byte| *byte != 0) {
            return Ok(None);
        }
        let header = self.frame_at(page, accepts)?.filter(|header| header.kind == FrameKind::Commit);
        Ok(header.map(|header| (page, header)))
    }

    /// Returns the header of the event frame at `at` if `skips` returns true for it and the next event follows it.
    fn skipped_frame(
        &mut self,
        at: u64,
        accepts: &impl Fn(&FrameHeader) -> bool,
        skips: impl FnOnce(&FrameHeader, &[u8]) -> bool,
    ) -> io::Result<Option<FrameHeader>> {
        if at + FRAME_HEADER_LEN as u64 > self.limit {
            return Ok(None);
        }
        let Some(header) = self.header_at(at, accepts)? else { return Ok(None) };
        self.fill(at, header.len)?;
        let next = at + frame::padded(header.len) as u64;
        if !skips(&header, self.buffered(at, header.len)) || next + FRAME_HEADER_LEN as u64 > self.limit {
            return Ok(None);
        }
        let is_next = |next: &FrameHeader| next.kind == FrameKind::Event && next.seq == header.seq + 1;
        Ok(self.header_at(next, accepts)?.filter(is_next).map(|_| header))
    }

    fn found(&mut self, at: u64, header: FrameHeader) -> ScanStep {
        self.frame_at = at;
        self.at = at + frame::padded(header.len) as u64;
        ScanStep::Frame(header)
    }

    fn frame_at(&mut self, at: u64, accepts: &impl Fn(&FrameHeader) -> bool) -> io::Result<Option<FrameHeader>> {
        let Some(header) = self.header_at(at, accepts)? else { return Ok(None) };
        self.fill(at, header.len)?;
        let start = (at - self.buffer_at) as usize;
        self.frame = start..(start + header.len).min(self.buffer.len());
        Ok(frame::is_valid(self.frame(), self.segment).then_some(header))
    }

    /// Returns true if the checksum of the candidate frame at `at` is valid. Computes this checksum from the checksums of the
    /// blocks instead of reading the whole frame, because a damaged segment may contain a very large number of candidates.
    fn is_likely(&mut self, at: u64, accepts: &impl Fn(&FrameHeader) -> bool) -> io::Result<bool> {
        let Some(header) = self.header_at(at, accepts)? else { return Ok(false) };
        if !self.checksum.as_ref().is_some_and(|checksum| checksum.reaches(at)) {
            self.checksum = Some(Checksum::new(self.file.clone(), at));
        }
        let Some(checksum) = &mut self.checksum else { return Ok(true) };
        let payload_crc = match checksum.of(at + 24, at + header.len as u64) {
            Err(_) if self.skips_unreadable => return Ok(true),
            payload_crc => payload_crc?,
        };
        let Some(payload_crc) = payload_crc else { return Ok(false) };
        Ok(frame::matches_checksum(self.buffered(at, FRAME_HEADER_LEN), payload_crc, self.segment))
    }

    fn header_at(&mut self, at: u64, accepts: &impl Fn(&FrameHeader) -> bool) -> io::Result<Option<FrameHeader>> {
        self.fill(at, FRAME_HEADER_LEN)?;
        Ok(frame::parse_header(self.buffered(at, FRAME_HEADER_LEN), self.limit - at).filter(accepts))
    }

    /// Reads `len` bytes at offset `at` into the buffer, or fewer bytes at the end of the file.
    fn fill(&mut self, at: u64, len: usize) -> io::Result<()> {
        let end = (at + len as u64).min(self.limit);
        if at >= self.buffer_at && end <= self.buffer_at + self.buffer.len() as u64 {
            return Ok(());
        }
        self.buffer.resize((len.max(CHUNK) as u64).min(self.limit.saturating_sub(at)) as usize, 0);
        // Leave the buffer empty during the read, so that the next call reads again if this read fails.
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = match self.file.read_at(&mut buffer, at) {
            Err(_) if self.skips_unreadable => self.read_pages(&mut buffer, at),
            Err(_) if len < buffer.len() => {
                // A page that cannot be read may be the rest of a torn commit, which the caller does not need.
                buffer.truncate(len);
                self.file.read_at(&mut buffer, at)?
            }
            read => read?,
        };
        buffer.truncate(read);
        (self.buffer, self.buffer_at) = (buffer, at);
        Ok(())
    }

    /// Reads the file page by page, and replaces each page that cannot be read by zeroes. Returns the number of bytes.
    fn read_pages(&mut self, buffer: &mut [u8], at: u64) -> usize {
        let mut done = 0;
        while done < buffer.len() {
            let from = at + done as u64;
            let end = ((from + 1).next_multiple_of(PAGE) - at).min(buffer.len() as u64) as usize;
            let page = &mut buffer[done..end];
            // The caller may never read the page again.
            match read_patiently(&*self.file, page, from) {
                Ok(read) if read < page.len() => return done + read,
                Ok(_) => {}
                Err(_) => {
                    page.fill(0);
                    self.first_unreadable = Some(self.first_unreadable.map_or(from, |first| first.min(from)));
                }
            }
            done = end;
        }
        done
    }

    fn buffered(&self, at: u64, len: usize) -> &[u8] {
        let start = ((at - self.buffer_at) as usize).min(self.buffer.len());
        &self.buffer[start..(start + len).min(self.buffer.len())]
    }

    /// Returns the next aligned offset at which a frame may start. Skips runs of zeroes.
    fn next_candidate(&mut self, at: u64) -> io::Result<u64> {
        let mut at = at + FRAME_ALIGN as u64;
        while at + FRAME_HEADER_LEN as u64 <= self.limit {
            self.fill(at, FRAME_HEADER_LEN)?;
            let rest = self.buffered(at, usize::MAX - at as usize);
            if rest.is_empty() {
                // The file ends before `limit`.
                return Ok(self.limit);
            }
            match rest.chunks_exact(FRAME_ALIGN).position(|word| word[..4] != [0; 4]) {
                Some(words) => return Ok(at + (words * FRAME_ALIGN) as u64),
                None => at += (rest.len() / FRAME_ALIGN * FRAME_ALIGN).max(FRAME_ALIGN) as u64,
            }
        }
        Ok(self.limit)
    }
}

const CHUNK: usize = 256 * 1024;
