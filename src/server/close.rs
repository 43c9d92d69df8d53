//! Closes a socket so that the peer receives its last response.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Writes `response` and closes the socket. If `unread` bytes may still arrive, reads and discards them for up to `linger`,
/// because closing a socket that holds unread bytes resets the connection, and the peer loses the response.
pub(super) async fn close<S>(mut stream: S, response: Option<String>, unread: bool, linger: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(response) = response {
        let _ = timeout(linger, stream.write_all(response.as_bytes())).await;
    }
    let _ = timeout(linger, stream.shutdown()).await; // TLS writes a close_notify alert
    if unread {
        let mut buffer = vec![0; DISCARD_BUFFER_BYTES];
        let _ = timeout(linger, async { while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {} }).await;
    }
}

/// Time limit for discarding bytes that the peer still sends.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

const DISCARD_BUFFER_BYTES: usize = 16 * 1024;
