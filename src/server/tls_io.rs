//! Charges the ciphertext that a TLS connection stores: the messages of an unfinished handshake, and the part of a record that has
//! arrived. rustls stores up to 64 KiB of them, before the server knows anything about the sender.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::server::TlsStream;

use super::connection_charge::{ConnectionCharge, UsedConnection};
use super::peer::Peer;
use super::state::ServerState;

/// TLS connection after its handshake. The state of a TLS connection is large, and each future that owns it would have room for
/// several copies, so it is in a box.
pub(super) struct TlsIo<S>(Box<TlsStream<CiphertextIo<S>>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsIo<S> {
    pub(super) fn new(mut stream: TlsStream<CiphertextIo<S>>) -> TlsIo<S> {
        let ciphertext = stream.get_mut().0;
        ciphertext.forget_read();
        let _ = ciphertext.charge_memory(); // cannot fail, because the messages of the handshake are no longer stored
        TlsIo(Box::new(stream))
    }

    /// Returns the TLS session, with the results of the handshake.
    pub(super) fn session(&self) -> &ServerConnection {
        self.0.get_ref().1
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.0).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.0.get_mut().0.plaintext_read()?;
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

/// Socket of a TLS connection.
pub(super) struct CiphertextIo<S> {
    stream: S,
    charge: ConnectionCharge,
    state: Arc<ServerState>,
    /// `None` before the first plaintext.
    used: Option<UsedConnection>,
    records: RecordScanner,
    /// Number of bytes that have arrived since the last plaintext.
    unread: usize,
}

impl<S> CiphertextIo<S> {
    pub(super) fn new(stream: S, peer: &Peer, state: &Arc<ServerState>) -> CiphertextIo<S> {
        let charge = ConnectionCharge::new(peer, state);
        CiphertextIo { stream, charge, state: state.clone(), used: None, records: RecordScanner::new(), unread: 0 }
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Records that rustls has passed on the contents of all complete records, or that the handshake is complete.
    fn forget_read(&mut self) {
        self.unread = self.records.incomplete_bytes();
    }

    /// Records that rustls has passed on the contents of all complete records.
    fn plaintext_read(&mut self) -> io::Result<()> {
        self.used.get_or_insert_with(|| UsedConnection::new(&self.state));
        self.forget_read();
        self.charge_memory()
    }

    fn charge_memory(&mut self) -> io::Result<()> {
        let used = self.used.as_ref().map_or(0, UsedConnection::bytes);
        Ok(self.charge.resize(used + self.unread.saturating_sub(FREE_BYTES))?)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CiphertextIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (this, before) = (&mut *self, buf.filled().len());
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let received = &buf.filled()[before..];
        this.records.scan(received);
        this.unread += received.len();
        Poll::Ready(this.charge_memory())
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CiphertextIo<S> {
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

/// Scanner of the headers of TLS records (RFC 8446, section 5.1).
struct RecordScanner {
    header: [u8; RECORD_HEADER_BYTES],
    part: RecordPart,
}

/// Part of a record to which the next byte belongs.
#[derive(Clone, Copy)]
enum RecordPart {
    /// Header, with the number of bytes that have arrived.
    Header { arrived: usize },
    /// Fragment, with its length and the number of bytes that are missing.
    Fragment { length: usize, missing: usize },
}

impl RecordScanner {
    fn new() -> RecordScanner {
        RecordScanner { header: [0; RECORD_HEADER_BYTES], part: RecordPart::Header { arrived: 0 } }
    }

    fn scan(&mut self, mut bytes: &[u8]) {
        loop {
            self.part = match self.part {
                RecordPart::Fragment { missing: 0, .. } => RecordPart::Header { arrived: 0 },
                _ if bytes.is_empty() => return,
                RecordPart::Fragment { length, missing } => {
                    let count = missing.min(bytes.len());
                    bytes = &bytes[count..];
                    RecordPart::Fragment { length, missing: missing - count }
                }
                RecordPart::Header { arrived } => {
                    let count = (RECORD_HEADER_BYTES - arrived).min(bytes.len());
                    self.header[arrived..][..count].copy_from_slice(&bytes[..count]);
                    bytes = &bytes[count..];
                    let [.., high, low] = self.header;
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    match arrived + count {
                        RECORD_HEADER_BYTES => RecordPart::Fragment { length, missing: length },
                        arrived => RecordPart::Header { arrived },
                    }
                }
            };
        }
    }

    /// Returns the number of bytes of an incomplete record that have arrived.
    fn incomplete_bytes(&self) -> usize {
        match self.part {
            RecordPart::Header { arrived } => arrived,
            RecordPart::Fragment { length, missing } => RECORD_HEADER_BYTES + length - missing,
        }
    }
}

const RECORD_HEADER_BYTES: usize = 5;

/// Number of stored bytes up to which a connection is not charged. This is the size of rustls's read buffer.
const FREE_BYTES: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_an_incomplete_record_are_known() {
        let record = |length: u16| [&[23, 3, 3][..], &length.to_be_bytes(), &vec![22; usize::from(length)]].concat();
        let bytes = [record(0), record(300), record(1), record(16_384)].concat();
        let ends = [5, 310, 316, 16_705];
        for size in [1, 2, 3, 5, 7, 100, 4_096, bytes.len()] {
            let (mut scanner, mut at) = (RecordScanner::new(), 0);
            for piece in bytes.chunks(size) {
                scanner.scan(piece);
                at += piece.len();
                let start = ends.iter().rev().find(|end| **end <= at).copied().unwrap_or(0);
                assert_eq!(scanner.incomplete_bytes(), at - start, "after {at} bytes in pieces of {size}");
            }
        }
    }
}
