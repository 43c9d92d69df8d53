//! Decompresses a body (gzip, Brotli or Zstandard), so that the verifier can read the event's id, type, ordering key and time.
//! hookhold stores and forwards the body as received. The verifier decompresses only after the proof holds, and only one layer.
//!
//! The output has three limits: the source's `max_body`, the memory that the caller has, and the windows of the formats (8 MiB
//! for Zstandard, 16 MiB for Brotli). The verifier reads no values from a body beyond a limit. Brotli's window also counts
//! towards the memory that the caller has, because a body of a few bytes can ask for the largest window.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, Read};

use brotli_decompressor::{Allocator, BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::event::Delivery;

/// The format of a compressed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Brotli,
    Zstd,
}

/// The reason why hookhold could not read a compressed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadBody {
    /// The decompressed body is longer than the source's `max_body`.
    TooLarge,
    /// The decompressed body does not fit in the memory for request bodies.
    NoMemory,
    /// The body is damaged, has several layers of compression, needs a larger window, or has a format that hookhold does not
    /// know.
    Malformed,
}

impl UnreadBody {
    /// Every reason, in the order of its index in metrics.
    pub const ALL: [UnreadBody; 3] = [UnreadBody::TooLarge, UnreadBody::NoMemory, UnreadBody::Malformed];

    /// Returns the value of the metric label `reason`.
    pub fn word(self) -> &'static str {
        match self {
            UnreadBody::TooLarge => "too_large",
            UnreadBody::NoMemory => "no_memory",
            UnreadBody::Malformed => "malformed",
        }
    }
}

/// The memory for decompressed bodies. The caller of the verifier charges it to its own limits.
pub trait Memory {
    /// Charges `bytes` and returns true, or returns false if a limit forbids the allocation.
    fn charge(&self, bytes: usize) -> bool;
}

/// Memory whose only limit is the source's `max_body`.
pub(super) struct Unlimited;

impl Memory for Unlimited {
    fn charge(&self, _bytes: usize) -> bool {
        true
    }
}

/// Returns the bytes in which the verifier looks for values: the decompressed body, or the body itself if it is not compressed
/// or cannot be decompressed. In the latter case, also returns the reason.
pub(super) fn readable<'d>(delivery: &'d Delivery, limit: usize, memory: &dyn Memory) -> (Cow<'d, [u8]>, Option<UnreadBody>) {
    let (headers, body) = (&delivery.headers, &delivery.body[..]);
    let is_declared = declared(headers).is_some();
    let Some(compression) = compression(headers, body) else {
        return (body.into(), is_declared.then_some(UnreadBody::Malformed));
    };
    match decompress(compression, body, limit, memory) {
        Ok(bytes) => {
            let has_layers = by_magic(&bytes).is_some();
            (bytes.into(), has_layers.then_some(UnreadBody::Malformed))
        }
        Err(_) if compression == Compression::Brotli && !is_declared => (body.into(), None),
        Err(reason) => (body.into(), Some(reason)),
    }
}

/// Returns the decompressed body of a delivery, so that `hookhold doctor` can verify it. Returns `None` if the body is not
/// compressed, or if the decompressed body is longer than `limit`. Also decompresses the coding `deflate`, which is zlib
/// (RFC 1950) or, from some senders, raw deflate (RFC 1951).
pub fn decompressed(delivery: &Delivery, limit: usize) -> Option<Vec<u8>> {
    let body = &delivery.body[..];
    if declared(&delivery.headers).is_some_and(|coding| coding.eq_ignore_ascii_case("deflate")) {
        return whole(ZlibDecoder::new(body), limit).or_else(|| whole(DeflateDecoder::new(body), limit));
    }
    match readable(delivery, limit, &Unlimited) {
        (Cow::Owned(bytes), _) => Some(bytes),
        (Cow::Borrowed(_), _) => None,
    }
}

fn whole(decoder: impl Read, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = decoder.take(limit as u64 + 1).read_to_end(&mut bytes).ok()?;
    (size <= limit).then_some(bytes)
}

/// Returns the likely compression of a body, or `None` for a plain body.
///
/// The first bytes show that a body is gzip or Zstandard. A body is likely Brotli if the header says so, or if it begins with
/// bytes that no text contains: no provider signs the header, and a replay without it must not become a second event.
pub(super) fn compression(headers: &HeaderMap, body: &[u8]) -> Option<Compression> {
    let may_be_brotli = || declared(headers).is_some_and(|coding| coding.eq_ignore_ascii_case("br")) || is_binary(body);
    by_magic(body).or_else(|| may_be_brotli().then_some(Compression::Brotli))
}

fn by_magic(body: &[u8]) -> Option<Compression> {
    match body {
        _ if body.starts_with(GZIP_MAGIC) => Some(Compression::Gzip),
        _ if body.starts_with(ZSTD_MAGIC) => Some(Compression::Zstd),
        _ => None,
    }
}

/// Returns the outermost coding of the header `Content-Encoding`, or `None` if the header names no compression.
fn declared(headers: &HeaderMap) -> Option<&str> {
    let last = headers.get_all(CONTENT_ENCODING).iter().next_back()?;
    let coding = last.to_str().unwrap_or("unknown").rsplit(',').next()?.trim();
    Some(coding).filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
}

/// Returns true if the body begins with bytes that no text contains.
fn is_binary(body: &[u8]) -> bool {
    let start = &body[..body.len().min(BINARY_PREFIX)];
    let is_control = |byte: u8| byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r');
    let is_cut = |error: std::str::Utf8Error| error.error_len().is_none();
    // The fold looks at many bytes at once, which a search for the first control character does not.
    let has_control = start.iter().fold(false, |found, byte| found | is_control(*byte));
    has_control || !std::str::from_utf8(start).map_or_else(is_cut, |_| true)
}

/// Decompresses a body. The output is at most `limit` bytes long.
fn decompress(compression: Compression, body: &[u8], limit: usize, memory: &dyn Memory) -> Result<Vec<u8>, UnreadBody> {
    let mut output = Output { bytes: Vec::new(), chunk: vec![0; CHUNK], limit, memory };
    match compression {
        Compression::Gzip => members(body, GZIP_MAGIC, |member| {
            let mut decoder = GzDecoder::new(member);
            output.read_all(&mut decoder)?;
            Ok(decoder.into_inner())
        })?,
        Compression::Zstd => members(body, ZSTD_MAGIC, |frame| {
            let mut decoder = ZstdDecoder::with_buffer(frame).map_err(malformed)?.single_frame();
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(malformed)?;
            output.read_all(&mut decoder)?;
            Ok(decoder.finish())
        })?,
        Compression::Brotli => brotli(body, &mut output)?,
    }
    Ok(output.bytes)
}

/// Reads the members of a body one after another. Ignores bytes after the last member that do not begin another one. Rejects a
/// body of more than [`MAX_MEMBERS`] members, because each of them costs a decoder.
fn members<'b>(
    mut body: &'b [u8],
    magic: &[u8],
    mut read: impl FnMut(&'b [u8]) -> Result<&'b [u8], UnreadBody>,
) -> Result<(), UnreadBody> {
    for _ in 0..MAX_MEMBERS {
        body = read(body)?;
        if !body.starts_with(magic) {
            return Ok(());
        }
    }
    Err(UnreadBody::Malformed)
}

/// Reads a Brotli stream. Rejects the extension for large windows, whose memory has no limit.
fn brotli(body: &[u8], output: &mut Output<'_>) -> Result<(), UnreadBody> {
    let is_over_limit = Cell::new(false);
    let window = WindowAlloc { memory: output.memory, is_over_limit: &is_over_limit };
    let mut state = BrotliState::new_strict(window, StandardAlloc::default(), StandardAlloc::default());
    let (mut unread, mut at, mut total) = (body.len(), 0, 0);
    loop {
        let (mut room, mut filled) = (output.chunk.len(), 0);
        let chunk = &mut output.chunk;
        let result = BrotliDecompressStream(&mut unread, &mut at, body, &mut room, &mut filled, chunk, &mut total, &mut state);
        output.append(filled)?;
        match result {
            BrotliResult::ResultSuccess => return Ok(()),
            BrotliResult::NeedsMoreOutput => {}
            _ if is_over_limit.get() => return Err(UnreadBody::NoMemory),
            BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => return Err(UnreadBody::Malformed),
        }
    }
}

/// Allocator for the window of a Brotli decoder. Charges each window, even if it replaces a smaller one.
struct WindowAlloc<'m> {
    memory: &'m dyn Memory,
    /// Set to true if the memory rejects a charge.
    is_over_limit: &'m Cell<bool>,
}

impl Allocator<u8> for WindowAlloc<'_> {
    type AllocatedMemory = <StandardAlloc as Allocator<u8>>::AllocatedMemory;

    fn alloc_cell(&mut self, size: usize) -> Self::AllocatedMemory {
        if size > SMALL_WINDOW && !self.memory.charge(size) {
            self.is_over_limit.set(true);
            // The decoder ends with an error if its window is too small.
            return Self::AllocatedMemory::default();
        }
        StandardAlloc::default().alloc_cell(size)
    }

    fn free_cell(&mut self, _cell: Self::AllocatedMemory) {}
}

/// The decompressed bytes, and the limits that they must respect.
struct Output<'m> {
    bytes: Vec<u8>,
    /// The output of one step, which [`Output::append`] adds to `bytes`.
    chunk: Vec<u8>,
    limit: usize,
    memory: &'m dyn Memory,
}

impl Output<'_> {
    fn read_all(&mut self, reader: &mut impl Read) -> Result<(), UnreadBody> {
        loop {
            match reader.read(&mut self.chunk).map_err(malformed)? {
                0 => return Ok(()),
                count => self.append(count)?,
            }
        }
    }

    /// Appends the first `count` bytes of the chunk. Asks for memory before each allocation, and doubles the allocation so that
    /// copies are rare.
    fn append(&mut self, count: usize) -> Result<(), UnreadBody> {
        let (length, capacity) = (self.bytes.len() + count, self.bytes.capacity());
        if length > self.limit {
            return Err(UnreadBody::TooLarge);
        }
        if length > capacity {
            let enlarged = (2 * capacity).clamp(length, self.limit);
            if !self.memory.charge(enlarged - capacity) {
                return Err(UnreadBody::NoMemory);
            }
            self.bytes.reserve_exact(enlarged - self.bytes.len());
        }
        self.bytes.extend_from_slice(&self.chunk[..count]);
        Ok(())
    }
}

fn malformed(_: io::Error) -> UnreadBody {
    UnreadBody::Malformed
}

/// The first bytes of a gzip member (RFC 1952) that uses Deflate, the only method.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 0x08];
/// The first bytes of a Zstandard frame (RFC 8878).
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Binary logarithm of the largest Zstandard window that hookhold accepts: 8 MiB, which RFC 8878 recommends.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Maximum number of gzip members or Zstandard frames in a body. Programs that compress in blocks write blocks of 64 KiB.
const MAX_MEMBERS: usize = 1_000;
/// Number of bytes that one step of the decompression writes.
const CHUNK: usize = 16 << 10;
/// Size in bytes up to which the memory of a decoder is not charged: the window of gzip.
const SMALL_WINDOW: usize = 32 << 10;
/// Number of bytes at the start of a body that show whether the body is text.
const BINARY_PREFIX: usize = 64;
