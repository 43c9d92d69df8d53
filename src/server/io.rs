//! Wraps the socket of an HTTP/1.1 connection for hyper. Records reads and writes of the socket in a [`Progress`], and ends the
//! connection with an error before hyper reads a malformed request that hyper would accept.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::deadline::Progress;
use super::h1_scanner::{FramingError, RequestScanner};

/// TCP or TLS stream that records its reads and writes in a [`Progress`].
pub(super) struct TrackedIo<S> {
    stream: S,
    progress: Arc<Progress>,
    scanner: RequestScanner,
    /// Error of the next read, because the connection continues with a malformed request.
    failed: Option<FramingError>,
}

impl<S> TrackedIo<S> {
    pub(super) fn new(stream: S, progress: Arc<Progress>) -> TrackedIo<S> {
        TrackedIo { stream, progress, scanner: RequestScanner::new(), failed: None }
    }

    /// Returns the error with which this stream has ended the connection.
    pub(super) fn framing_error(&self) -> Option<FramingError> {
        self.failed
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.failed.is_none() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            let received = &buf.filled()[before..];
            self.progress.bytes_received(received);
            if let Err((count, error)) = self.scanner.scan(received) {
                self.failed = Some(error);
                buf.set_filled(before + count);
            }
        }
        match self.failed {
            Some(error) if buf.filled().len() == before => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.progress.note_write();
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
