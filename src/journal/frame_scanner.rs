//! Finds frames.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::checksum::Checksum;
use super::disk::DiskFile;
use super::frame::{self, ALIGN, HEAD, Head};

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

const CHUNK: usize = 256 * 1024;
