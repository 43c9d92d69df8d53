//! Closes a socket so that the peer still receives the last response.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Writes `response`, shuts down the stream and closes the socket. If `unread` is true, reads and discards the peer's
/// remaining bytes for up to `linger` before closing the socket. Without this step, the kernel would reset the
/// connection because of the unread bytes, and the peer would lose the response.
pub(super) async fn close<S>(mut stream: S, response: Option<String>, unread: bool, linger: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(response) = response {
        let _ = timeout(linger, stream.write_all(response.as_bytes())).await;
    }
    let _ = timeout(linger, stream.shutdown()).await; // over TLS, sends a close_notify alert
    if unread {
        let mut buffer = vec![0; DISCARD_BUFFER_BYTES];
        let _ = timeout(linger, async { while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {} }).await;
    }
}

/// Time limit for each step of closing a socket: writing the response, shutting down the stream, and discarding the
/// peer's remaining bytes.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Size of the buffer for discarded bytes. Small, because an attacker can make the server close many connections at once.
const DISCARD_BUFFER_BYTES: usize = 2 * 1024;
