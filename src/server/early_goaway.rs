//! Announces the end of an HTTP/2 connection before h2 does, so that no request is lost.
//!
//! A client sends no new request after it has read a GOAWAY, but it may have queued some requests before. h2 ends a connection with a
//! GOAWAY and a PING, and ignores each request that arrives after the answer to the PING. A client that answers the PING before it
//! sends its queue would lose these requests. The server therefore first writes a GOAWAY of its own, of which h2 knows nothing: h2
//! serves every request that follows. The end by h2 comes only when the client has had time to send its queue.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Request to announce the end of a connection. A clone refers to the same connection.
#[derive(Clone, Default)]
pub(super) struct EarlyGoaway(Arc<AtomicBool>);

impl EarlyGoaway {
    /// Makes the connection write a GOAWAY the next time that h2 writes or flushes.
    pub(super) fn announce(&self) {
        self.0.store(true, Relaxed);
    }
}

/// Stream that writes the announced GOAWAY between two frames of h2.
pub(super) struct GoawayIo<S> {
    stream: S,
    early: EarlyGoaway,
    /// Rest of the GOAWAY that is not written yet.
    unwritten: &'static [u8],
    position: FramePosition,
}

/// Position of the next byte that h2 writes.
#[derive(Default)]
struct FramePosition {
    /// Bytes of an incomplete frame header.
    header: Vec<u8>,
    /// Number of bytes of the payload that are not written yet.
    payload: usize,
}

impl FramePosition {
    fn is_between_frames(&self) -> bool {
        self.header.is_empty() && self.payload == 0
    }

    fn advance(&mut self, mut written: &[u8]) {
        while !written.is_empty() {
            if self.payload > 0 {
                let count = self.payload.min(written.len());
                self.payload -= count;
                written = &written[count..];
                continue;
            }
            let count = (HEADER_BYTES - self.header.len()).min(written.len());
            self.header.extend_from_slice(&written[..count]);
            written = &written[count..];
            if let [high, middle, low, ..] = self.header[..]
                && self.header.len() == HEADER_BYTES
            {
                self.payload = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.header.clear();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> GoawayIo<S> {
    pub(super) fn new(stream: S, early: EarlyGoaway) -> GoawayIo<S> {
        GoawayIo { stream, early, unwritten: &[], position: FramePosition::default() }
    }

    /// Writes the GOAWAY if it is announced and no frame of h2 is incomplete.
    fn poll_announce(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.position.is_between_frames() && self.early.0.swap(false, Relaxed) {
            self.unwritten = GOAWAY;
        }
        while !self.unwritten.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, self.unwritten))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten = &self.unwritten[written..];
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GoawayIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GoawayIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_announce(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.position.advance(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_announce(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        let mut rest = written;
        for slice in slices {
            let count = rest.min(slice.len());
            self.position.advance(&slice[..count]);
            rest -= count;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_announce(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const HEADER_BYTES: usize = 9;
/// A GOAWAY frame (RFC 9113, section 6.8) that excludes no request: length 8, type 7, no flags, stream 0, highest stream, no error.
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn the_announcement_never_splits_a_frame() {
        let frame = |payload: usize| [vec![0, 0, payload as u8, 0, 0, 0, 0, 0, 1], vec![7; payload]].concat();
        let frames = [frame(0), frame(5), frame(200)].concat();
        for announced_after in 0..=frames.len() {
            let ((mut client, server), early) = (duplex(1024), EarlyGoaway::default());
            let mut stream = GoawayIo::new(server, early.clone());
            for (count, byte) in frames.iter().enumerate() {
                if count == announced_after {
                    early.announce();
                }
                stream.write_all(&[*byte]).await.expect("the client is open");
            }
            if announced_after == frames.len() {
                early.announce();
            }
            stream.flush().await.expect("the client is open");
            drop(stream);
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.expect("the server has closed");
            let ends = [0, 9, 23, 232];
            let at = ends.into_iter().find(|end| *end >= announced_after).expect("the last frame ends last");
            assert_eq!(received, [&frames[..at], GOAWAY, &frames[at..]].concat(), "announced after {announced_after} bytes");
        }
    }
}
