//! Closes a socket so that the peer sees its answer.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Closes the socket. While the peer may still be sending, it is read and forgotten for a moment: closing a socket that
/// holds unread bytes resets the connection, and the peer would never see its answer.
pub(super) async fn close<S>(mut stream: S, words: Option<String>, unread: bool, linger: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(words) = words {
        let _ = timeout(linger, stream.write_all(words.as_bytes())).await;
    }
    let _ = timeout(linger, stream.shutdown()).await; // over TLS it has something to say, too
    if unread {
        let mut sink = vec![0; SINK];
        let _ = timeout(linger, async { while matches!(stream.read(&mut sink).await, Ok(read) if read > 0) {} }).await;
    }
}

/// How long a sender may go on sending into the void before its connection is cut.
pub(super) const LINGER: Duration = Duration::from_secs(2);

const SINK: usize = 16 * 1024;
