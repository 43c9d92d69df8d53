//! Counts the request heads that arrive on an HTTP/2 connection, so that a request which hyper rejects by itself has an outcome.
//!
//! hyper and h2 reject a malformed or oversized head without passing it to hookhold. They send a reset or a 431, but these
//! frames do not tell whether hookhold has counted the stream: a stream that hookhold serves can also end with a reset. The
//! difference between the heads that have arrived and the requests that hookhold serves is exact. h2 asks for more bytes only
//! when it has handled all complete frames, so the difference is final whenever a read has to wait for the client.
//!
//! This file knows only the header of a frame (RFC 9113, section 4.1), and not its contents.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Counts of the request heads on one connection. The connection's task updates and reads them.
#[derive(Default)]
pub(super) struct RequestHeads {
    /// Number of complete heads that h2 has received.
    arrived: AtomicU64,
    /// Number of requests that hyper has passed to hookhold.
    served: AtomicU64,
    /// Number of heads for which hookhold has recorded an outcome although hyper did not pass them to hookhold.
    counted: AtomicU64,
    /// True if a part of a head has arrived.
    has_partial: AtomicBool,
    /// True if h2 has handled all complete frames and waits for the client.
    is_waiting: AtomicBool,
}

impl RequestHeads {
    /// Counts a request that hyper passes to hookhold.
    pub(super) fn request_served(&self) {
        self.served.fetch_add(1, Relaxed);
    }

    /// Returns the number of new heads that hyper has rejected. Returns 0 while h2 may still have to handle a head.
    pub(super) fn newly_rejected(&self) -> u64 {
        if self.is_waiting.load(Relaxed) { self.unserved() } else { 0 }
    }

    /// Returns the number of new heads that hyper has not passed to hookhold. Must be final: the connection has ended, or h2
    /// waits for the client.
    pub(super) fn unserved(&self) -> u64 {
        let known = self.served.load(Relaxed) + self.counted.load(Relaxed);
        let unserved = self.arrived.load(Relaxed).saturating_sub(known);
        self.counted.fetch_add(unserved, Relaxed);
        unserved
    }

    /// Returns true if a complete head has arrived.
    pub(super) fn has_arrived(&self) -> bool {
        self.arrived.load(Relaxed) > 0
    }

    /// Returns true if the connection has ended within a head.
    pub(super) fn has_partial(&self) -> bool {
        self.has_partial.load(Relaxed)
    }
}

/// TLS stream that counts the request heads which hyper reads from it.
pub(super) struct HeadCountingIo<S> {
    stream: S,
    heads: Arc<RequestHeads>,
    frames: H2FrameScanner,
}

impl<S> HeadCountingIo<S> {
    pub(super) fn new(stream: S, heads: Arc<RequestHeads>) -> HeadCountingIo<S> {
        HeadCountingIo { stream, heads, frames: H2FrameScanner::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadCountingIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heads.is_waiting.store(polled.is_pending(), Relaxed);
        let HeadCountingIo { heads, frames, .. } = &mut *self;
        frames.scan(&buf.filled()[before..], heads);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadCountingIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Scanner of the client's bytes, from the connection preface on.
struct H2FrameScanner {
    part: FramePart,
    /// Frame header of which a part has arrived.
    header: [u8; FRAME_HEADER_BYTES],
    /// Highest stream on which a request head has arrived. A later HEADERS frame on this or a lower stream contains trailers.
    last_stream: u32,
}

/// Part of the connection to which the next byte belongs.
#[derive(Clone, Copy)]
enum FramePart {
    /// Connection preface, with the number of bytes that are missing.
    Preface { missing: usize },
    /// Header of a frame, with the number of bytes that have arrived.
    Header { arrived: usize },
    /// Payload of a frame, with the number of bytes that are missing. `ends_head` is true if the payload completes a request
    /// head.
    Payload { missing: usize, ends_head: bool },
}

impl H2FrameScanner {
    fn new() -> H2FrameScanner {
        H2FrameScanner { part: FramePart::Preface { missing: PREFACE_BYTES }, header: [0; FRAME_HEADER_BYTES], last_stream: 0 }
    }

    fn scan(&mut self, mut bytes: &[u8], heads: &RequestHeads) {
        loop {
            match &mut self.part {
                FramePart::Preface { missing } | FramePart::Payload { missing, .. } => {
                    let skipped = (*missing).min(bytes.len());
                    *missing -= skipped;
                    bytes = &bytes[skipped..];
                    if *missing > 0 {
                        return;
                    }
                    if let FramePart::Payload { ends_head: true, .. } = self.part {
                        heads.has_partial.store(false, Relaxed);
                        heads.arrived.fetch_add(1, Relaxed);
                    }
                    self.part = FramePart::Header { arrived: 0 };
                }
                FramePart::Header { arrived } => {
                    let count = (FRAME_HEADER_BYTES - *arrived).min(bytes.len());
                    self.header[*arrived..][..count].copy_from_slice(&bytes[..count]);
                    *arrived += count;
                    bytes = &bytes[count..];
                    if *arrived < FRAME_HEADER_BYTES {
                        return;
                    }
                    self.part = self.start_payload(heads);
                }
            }
        }
    }

    /// Returns the payload that follows the complete frame header.
    fn start_payload(&mut self, heads: &RequestHeads) -> FramePart {
        let [high, middle, low, kind, flags, stream @ ..] = self.header;
        let stream = u32::from_be_bytes(stream) & STREAM_BITS;
        let is_first = kind == HEADERS && stream > self.last_stream;
        if is_first {
            self.last_stream = stream;
            heads.has_partial.store(true, Relaxed);
        }
        let is_head = is_first || (kind == CONTINUATION && heads.has_partial());
        FramePart::Payload {
            missing: u32::from_be_bytes([0, high, middle, low]) as usize,
            ends_head: is_head && flags & END_HEADERS != 0,
        }
    }
}

/// Length of the connection preface in bytes (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
/// Bits of a frame header's last four bytes that contain the stream. The remaining bit is reserved.
const STREAM_BITS: u32 = u32::MAX >> 1;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), &vec![HEADERS; payload]].concat()
    }

    #[test]
    fn each_head_counts_once_it_is_complete() {
        let frames = [
            (vec![0; PREFACE_BYTES], 0, false),
            (frame(4, 0, 0, 30), 0, false),
            (frame(HEADERS, END_HEADERS, 1, 300), 1, false),
            (frame(0, 0, 1, 20), 1, false),
            (frame(HEADERS, 0, 3, 0), 1, true),
            (frame(CONTINUATION, 0, 3, 7), 1, true),
            (frame(CONTINUATION, END_HEADERS, 3, 0), 2, false),
            (frame(HEADERS, END_HEADERS | 1, 1, 9), 2, false), // trailers
            (frame(HEADERS, 1, 3, 9), 2, false),
            (frame(CONTINUATION, END_HEADERS, 3, 9), 2, false),
            (frame(HEADERS, END_HEADERS | 0x20, 1 << 30, 9), 3, false),
        ];
        for size in 1..100 {
            let (mut scanner, heads) = (H2FrameScanner::new(), RequestHeads::default());
            for (bytes, arrived, has_partial) in &frames {
                let (last, first) = bytes.split_last().expect("no frame is empty");
                first.chunks(size).for_each(|piece| scanner.scan(piece, &heads));
                assert!(heads.arrived.load(Relaxed) <= *arrived, "a frame counts only with its last byte");
                scanner.scan(&[*last], &heads);
                assert_eq!((heads.arrived.load(Relaxed), heads.has_partial()), (*arrived, *has_partial), "pieces of {size}");
            }
        }
    }

    #[test]
    fn heads_are_rejected_only_when_h2_waits() {
        let heads = RequestHeads::default();
        heads.arrived.store(3, Relaxed);
        heads.request_served();
        assert_eq!(heads.newly_rejected(), 0);
        heads.is_waiting.store(true, Relaxed);
        assert_eq!((heads.newly_rejected(), heads.newly_rejected(), heads.unserved()), (2, 0, 0));
    }
}
