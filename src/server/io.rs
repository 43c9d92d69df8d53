//! Wraps the socket of an HTTP/1.1 connection for hyper. Records reads and writes of the socket in a [`Progress`], and ends the
//! connection with an error before hyper reads a malformed request that hyper would accept.
//!
//! Also bounds the memory of a connection. hyper enlarges its buffer as soon as a part of a request head has arrived, so the wrapper
//! stores an incomplete head in a smaller buffer, and charges a head that would not fit into hyper's initial buffer. It reads small
//! pieces, because hyper's buffer stays as large as its largest read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_charge::{ConnectionCharge, OverBudget, poll_read_at_most};
use super::connection_slot::is_eviction;
use super::deadline::Progress;
use super::h1_scanner::{FramingError, RequestScanner};
use crate::outcome::Outcome;

/// TCP or TLS stream that records its reads and writes in a [`Progress`].
pub(super) struct TrackedIo<S> {
    stream: S,
    progress: Arc<Progress>,
    scanner: RequestScanner,
    head: HeldHead,
    charge: ConnectionCharge,
    /// Error of the next read, because the connection continues with a malformed request.
    failed: Option<FramingError>,
    failure: Option<ReadFailure>,
}

/// Reason why a read failed. hyper reports no error if it has received no part of a request head.
#[derive(Clone, Copy)]
pub(super) enum ReadFailure {
    Disconnected,
    /// hookhold has evicted the connection.
    Evicted,
    /// The memory of the connection exceeds an in-flight budget. The value is the outcome of the request that is arriving.
    OverBudget(Outcome),
}

impl ReadFailure {
    pub(super) fn of(error: &io::Error) -> ReadFailure {
        match OverBudget::cause_of(error) {
            Some(OverBudget(outcome)) => ReadFailure::OverBudget(outcome),
            None if is_eviction(error) => ReadFailure::Evicted,
            None => ReadFailure::Disconnected,
        }
    }
}

/// Bytes that hyper has not received, because a request head among them is incomplete.
struct HeldHead {
    bytes: Vec<u8>,
    /// Number of bytes that hyper may receive.
    ready: usize,
    mode: HoldMode,
    max_header_size: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HoldMode {
    /// Holds an incomplete head.
    Hold,
    /// Passes the rest of a head on, because hyper rejects the head.
    PassOn,
}

impl<S> TrackedIo<S> {
    pub(super) fn new(stream: S, progress: Arc<Progress>, charge: ConnectionCharge, max_header_size: usize) -> TrackedIo<S> {
        let head = HeldHead { bytes: Vec::new(), ready: 0, mode: HoldMode::Hold, max_header_size };
        TrackedIo { stream, progress, scanner: RequestScanner::new(), head, charge, failed: None, failure: None }
    }

    /// Returns true if a part of a request head has arrived that hyper has not received.
    pub(super) fn has_held_head(&self) -> bool {
        !self.head.bytes.trim_ascii().is_empty()
    }

    /// Returns the malformed line with which this stream has ended the connection.
    pub(super) fn framing_error(&self) -> Option<FramingError> {
        self.failed
    }

    /// Returns the reason why a read has failed.
    pub(super) fn read_failure(&self) -> Option<ReadFailure> {
        self.failure
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Returns the maximum number of bytes of the next read. Only a large body of a trusted peer is read in large pieces.
    fn read_limit(&self) -> usize {
        let is_large = self.scanner.missing_data() >= LARGE_READ_BYTES as u64 && self.charge.is_trusted();
        if is_large { LARGE_READ_BYTES } else { BUFFER_BYTES }
    }

    /// Charges a buffer that holds `bytes` bytes, if it is larger than usual. hyper's buffers do not shrink again, so the
    /// connection closes after the next response.
    fn charge_buffer(&mut self, bytes: usize) -> Result<(), OverBudget> {
        if bytes <= FREE_BYTES || bytes <= self.charge.size() {
            return Ok(());
        }
        self.charge.resize(bytes)?;
        if self.charge.is_charged() {
            self.progress.close_after_response();
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = self.poll_read_head(cx, buf);
        if let Poll::Ready(Err(error)) = &polled {
            self.failure = Some(ReadFailure::of(error));
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> TrackedIo<S> {
    /// Reads the next bytes that hyper may receive.
    fn poll_read_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (this, before) = (self, buf.filled().len());
        loop {
            if this.head.ready > 0 {
                this.head.pass_on(buf);
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = this.failed {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            let limit = this.read_limit();
            ready!(poll_read_at_most(&mut this.stream, cx, buf, limit))?;
            let received = &buf.filled()[before..];
            this.progress.bytes_received(received);
            let is_end = received.is_empty();
            let (count, incomplete) = match this.scanner.scan(received) {
                Ok(()) if is_end => (0, 0),
                Ok(()) => (received.len(), this.scanner.head_bytes()),
                Err((count, error)) => {
                    this.failed = Some(error);
                    (count, 0)
                }
            };
            this.charge_buffer(incomplete)?;
            let passed_on = this.head.hold(&received[..count], incomplete);
            buf.set_filled(before + passed_on);
            if passed_on > 0 || (is_end && this.head.ready == 0) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl HeldHead {
    /// Holds the last `incomplete` bytes, which belong to an incomplete head, and all bytes that follow other held bytes. Returns
    /// the number of bytes at the start of `received` that hyper may receive at once.
    fn hold(&mut self, received: &[u8], incomplete: usize) -> usize {
        if incomplete == 0 {
            self.mode = HoldMode::Hold;
        }
        if self.bytes.is_empty() && (incomplete == 0 || self.mode == HoldMode::PassOn) {
            return received.len();
        }
        let passed_on = if self.bytes.is_empty() { received.len() - incomplete } else { 0 };
        let is_first_part = incomplete <= received.len();
        self.bytes.extend_from_slice(&received[passed_on..]);
        self.ready = self.bytes.len() - incomplete;
        let head = &self.bytes[self.ready..];
        if head.len() >= self.max_header_size || (is_first_part && is_malformed(head)) {
            self.mode = HoldMode::PassOn;
            self.ready = self.bytes.len();
        }
        passed_on
    }

    /// Gives hyper the bytes that it may receive.
    fn pass_on(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.ready.min(buf.remaining());
        buf.put_slice(&self.bytes[..count]);
        self.ready -= count;
        self.bytes.drain(..count);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

/// Returns true if hyper rejects the first part of a head. hyper checks the other parts only when the head is complete.
fn is_malformed(head: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; MAX_CHECKED_FIELDS];
    httparse::Request::new(&mut fields).parse(head).is_err()
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.progress.note_write();
        self.charge_buffer(bytes.len())?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.progress.note_write();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Leaves the socket open, because the connection's driver closes the socket after the driver has recorded the
    /// outcome.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Number of header fields that the first part of a head may have. A head whose first part has more fields is not held.
const MAX_CHECKED_FIELDS: usize = 100;

/// Size up to which an incomplete request head or a response is not charged. Nearly all are smaller.
const FREE_BYTES: usize = 4 * 1024;

/// Maximum number of bytes of a usual read. This is the initial size of hyper's two buffers.
const BUFFER_BYTES: usize = 8 * 1024;
/// Maximum number of bytes of a read while at least as many bytes of a body are missing.
const LARGE_READ_BYTES: usize = 64 * 1024;
