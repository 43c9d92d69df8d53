//! Wraps the stream of an HTTP/2 connection for hyper, and bounds the memory that h2 takes before hookhold can charge a request.
//!
//! A few bytes on the wire can become a large table of header fields, and each new stream and each DATA frame needs memory in h2.
//! h2 reads all bytes that have arrived before hyper passes the first request on. The wrapper therefore gives h2 the bytes of one
//! request head at a time, and few bytes before the tasks of the requests run. It also charges the memory that the connection
//! itself takes: a large frame, a list of fields that spans several frames, and streams that are open at the same time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_charge::{ConnectionCharge, OverBudget, poll_read_at_most};
use super::h2_heads::{H2FrameScanner, ReadState, RequestHeads};
use super::peer::Peer;
use super::state::ServerState;

/// TLS stream that counts the request heads which hyper reads from it.
pub(super) struct HeadCountingIo<S> {
    stream: S,
    heads: Arc<RequestHeads>,
    frames: H2FrameScanner,
    charge: ConnectionCharge,
    /// Bytes that have arrived after the head that h2 receives at present.
    withheld: Bytes,
    /// Number of bytes that h2 has received since other tasks last ran.
    turn_bytes: usize,
    size: ConnectionSize,
}

/// Memory of a connection in h2, in bytes or as a number of streams. h2 does not shrink its buffer and its tables.
struct ConnectionSize {
    largest_buffer: usize,
    most_streams: usize,
    /// Memory of the largest list of fields that spans several frames.
    split_fields: usize,
}

impl ConnectionSize {
    /// Returns the memory that exceeds the memory of a usual connection.
    fn growth(&self, frames: &H2FrameScanner) -> usize {
        let buffer = self.largest_buffer.saturating_sub(FREE_BUFFER_BYTES);
        let streams = self.most_streams.saturating_sub(FREE_STREAMS) * STREAM_BYTES;
        let fields = if frames.has_split_fields() { self.split_fields } else { 0 };
        buffer + streams + fields + frames.unread().saturating_sub(FREE_UNREAD_BYTES)
    }
}

impl<S> HeadCountingIo<S> {
    /// `max_header_list_bytes` is the size of the largest list of fields that h2 accepts.
    pub(super) fn new(
        stream: S,
        heads: Arc<RequestHeads>,
        peer: &Peer,
        state: &Arc<ServerState>,
        max_header_list_bytes: usize,
    ) -> HeadCountingIo<S> {
        HeadCountingIo {
            stream,
            heads,
            frames: H2FrameScanner::new(),
            charge: ConnectionCharge::new(peer, state),
            withheld: Bytes::new(),
            turn_bytes: 0,
            size: ConnectionSize {
                largest_buffer: 0,
                most_streams: 0,
                split_fields: max_header_list_bytes * DECODED_BYTES_PER_BYTE,
            },
        }
    }

    /// Returns the reason why h2 receives no more bytes now, or `None` if it may receive some.
    fn pause(&self) -> Option<ReadState> {
        if self.heads.pending() > 0 || self.turn_bytes >= MAX_TURN_BYTES || self.heads.over_budget().is_some() {
            Some(ReadState::Paused)
        } else {
            self.heads.is_write_blocked().then_some(ReadState::WriteBlocked)
        }
    }

    /// Lets other tasks run before h2 receives more bytes.
    fn end_turn(&mut self, state: ReadState) {
        self.heads.set_read_state(state);
        if self.heads.pending() == 0 {
            self.turn_bytes = 0;
            self.frames.forget_unread();
        }
    }

    /// Scans the bytes that h2 is about to receive, and charges the memory that they need. Returns the number of bytes that h2
    /// may receive.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        self.size.largest_buffer = self.size.largest_buffer.max(self.frames.incomplete_bytes() + bytes.len());
        let count = self.frames.scan(bytes, &self.heads);
        self.size.most_streams = self.size.most_streams.max(self.heads.open() as usize);
        self.turn_bytes += count;
        if let Err(OverBudget(outcome)) = self.charge.resize(self.size.growth(&self.frames)) {
            self.heads.set_over_budget(outcome);
        }
        if self.charge.is_charged() {
            self.heads.set_grown();
        }
        count
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadCountingIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(state) = this.pause() {
            this.end_turn(state);
            return Poll::Pending;
        }
        let limit = MAX_TURN_BYTES - this.turn_bytes;
        if !this.withheld.is_empty() {
            this.heads.set_read_state(ReadState::Handling);
            let bytes = this.withheld.slice(..this.withheld.len().min(limit).min(buf.remaining()));
            let count = this.scan(&bytes);
            buf.put_slice(&bytes[..count]);
            this.withheld.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = poll_read_at_most(&mut this.stream, cx, buf, limit);
        match polled {
            Poll::Pending => this.end_turn(ReadState::Waiting),
            Poll::Ready(_) => this.heads.set_read_state(ReadState::Handling),
        }
        let received = &buf.filled()[before..];
        let count = this.scan(received);
        if count < received.len() {
            this.withheld = Bytes::copy_from_slice(&received[count..]);
            buf.set_filled(before + count);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadCountingIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.heads.set_write_blocked(polled.is_pending());
        polled
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.heads.set_write_blocked(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.heads.set_write_blocked(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Number of bytes that h2 may receive before other tasks run. h2 stores the DATA frames among them until the tasks of their
/// requests run.
const MAX_TURN_BYTES: usize = 8 * 1024;

/// Size of h2's read buffer up to which a connection is not charged. This is its initial size.
const FREE_BUFFER_BYTES: usize = 8 * 1024;

/// Number of concurrent streams up to which a connection is not charged.
const FREE_STREAMS: usize = 8;

/// Memory of one concurrent stream in h2: its state, its queues, and a response that the peer has not read.
const STREAM_BYTES: usize = 4 * 1024;

/// Memory of unread DATA frames up to which a connection is not charged. The bytes of one turn need more only if the frames are
/// smaller than 256 bytes.
const FREE_UNREAD_BYTES: usize = 20 * 1024;

/// Memory of a decoded list of fields for each byte of its size. HTTP/2 counts a field with at least 33 bytes, and the table of
/// fields doubles its size when it grows.
const DECODED_BYTES_PER_BYTE: usize = 5;
