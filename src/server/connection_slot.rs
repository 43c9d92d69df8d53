//! Place of one open connection in the limits on connections. If hookhold needs the place for another connection, it evicts this
//! one: reads from the connection then fails, and the connection ends in the same way as after a disconnect.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, Semaphore};

/// Place of one open connection.
pub(super) struct ConnectionSlot {
    /// Rank of the connection in the limits on connections: hookhold evicts the connection with the lowest rank first.
    rank: AtomicU64,
    /// Address in the limits on connections.
    pub(super) address: IpAddr,
    /// Permit for the connection's work in a turn of a limited address, so that many requests on one connection do not delay the
    /// requests on other connections.
    pub(super) turn: Semaphore,
    /// Number of requests on the connection that wait for hookhold, and not for their sender.
    waiting: AtomicUsize,
    /// True if the client has sent something.
    has_sent: AtomicBool,
    is_protected: AtomicBool,
    is_evicted: AtomicBool,
    /// Task of the connection, which waits for an eviction.
    reader: Mutex<Option<Waker>>,
    /// Notified for the requests of the connection that wait for an eviction.
    eviction: Notify,
}

/// Guard that counts a request as waiting for hookhold until the guard is dropped.
pub(super) struct WaitingRequest<'a>(&'a ConnectionSlot);

impl ConnectionSlot {
    pub(super) fn new(rank: u64, address: IpAddr) -> ConnectionSlot {
        ConnectionSlot {
            rank: AtomicU64::new(rank),
            address,
            turn: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            has_sent: AtomicBool::new(false),
            is_protected: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            reader: Mutex::new(None),
            eviction: Notify::new(),
        }
    }

    /// Returns the rank of the connection.
    pub(super) fn rank(&self) -> u64 {
        self.rank.load(SeqCst)
    }

    /// Gives the connection another rank. The caller must hold the lock of the table that is ordered by the ranks.
    pub(super) fn set_rank(&self, rank: u64) {
        self.rank.store(rank, SeqCst);
    }

    /// Records that the client has sent something. Takes effect on the rank with the next eviction.
    pub(super) fn note_sent(&self) {
        if !self.has_sent() {
            self.has_sent.store(true, SeqCst);
        }
    }

    pub(super) fn has_sent(&self) -> bool {
        self.has_sent.load(SeqCst)
    }

    /// Counts a request as waiting for hookhold.
    pub(super) fn wait(&self) -> WaitingRequest<'_> {
        self.waiting.fetch_add(1, SeqCst);
        WaitingRequest(self)
    }

    /// Returns true if a request on the connection waits for hookhold.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Marks the connection as one that hookhold never evicts.
    pub(super) fn protect(&self) {
        self.is_protected.store(true, SeqCst);
    }

    pub(super) fn is_protected(&self) -> bool {
        self.is_protected.load(SeqCst)
    }

    /// Makes all further reads from the connection fail.
    pub(super) fn evict(&self) {
        self.is_evicted.store(true, SeqCst);
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        reader.into_iter().for_each(Waker::wake);
        self.eviction.notify_waiters();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(SeqCst)
    }

    /// Waits until hookhold evicts the connection. Only the task of the connection may call this function.
    pub(super) async fn evicted(&self) {
        poll_fn(|cx| self.poll_evicted(cx)).await;
    }

    /// Waits until hookhold evicts the connection. Each request of the connection may call this function.
    pub(super) async fn evicted_under_request(&self) {
        let mut notified = pin!(self.eviction.notified());
        // An eviction after this call is not missed.
        notified.as_mut().enable();
        if !self.is_evicted() {
            notified.await;
        }
    }

    fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_protected() {
            return Poll::Pending;
        }
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_evicted() {
            return Poll::Ready(());
        }
        if !reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

/// TCP stream whose reads fail once hookhold has evicted the connection.
pub(super) struct EvictableStream<S> {
    stream: S,
    /// Place of the connection; `None` if hookhold never evicts it.
    slot: Option<Arc<ConnectionSlot>>,
}

impl<S> EvictableStream<S> {
    pub(super) fn new(stream: S, slot: Option<Arc<ConnectionSlot>>) -> EvictableStream<S> {
        EvictableStream { stream, slot }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for EvictableStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.slot.as_ref().is_some_and(|slot| slot.is_evicted()) {
            return Poll::Ready(Err(evicted()));
        }
        match (Pin::new(&mut self.stream).poll_read(cx, buf), &self.slot) {
            (Poll::Pending, Some(slot)) => slot.poll_evicted(cx).map(|()| Err(evicted())),
            (Poll::Ready(read), Some(slot)) => {
                slot.note_sent();
                Poll::Ready(read)
            }
            (polled, None) => polled,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for EvictableStream<S> {
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

/// Returns true if a read failed because hookhold has evicted the connection. The HTTP library passes on only the kind of an
/// error, and a socket causes no error of this kind.
pub(super) fn is_eviction(error: &io::Error) -> bool {
    error.kind() == EVICTED
}

/// Returns true if a connection ended with this error because hookhold has evicted it.
pub(super) fn ended_by_eviction(error: &hyper::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref()).is_some_and(is_eviction)
}

fn evicted() -> io::Error {
    io::Error::new(EVICTED, "connection: expected a free place, found none, so hookhold closes the oldest one; retry")
}

const EVICTED: io::ErrorKind = io::ErrorKind::ResourceBusy;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn reads_fail_after_an_eviction_and_writes_still_work() {
        let (mut client, server) = duplex(64);
        let slot = Arc::new(ConnectionSlot::new(0, IpAddr::from([192, 0, 2, 1])));
        let mut stream = EvictableStream::new(server, Some(slot.clone()));
        client.write_all(b"a").await.expect("the pipe has room");
        assert_eq!(stream.read_u8().await.expect("it is open"), b'a');
        let (read, ()) = tokio::join!(stream.read_u8(), async { slot.evict() });
        assert!(is_eviction(&read.expect_err("the connection is evicted")));
        stream.write_all(b"b").await.expect("the pipe has room");
        assert_eq!(client.read_u8().await.expect("it is open"), b'b');
        client.write_all(b"c").await.expect("the pipe has room");
        assert!(is_eviction(&stream.read_u8().await.expect_err("the connection is evicted")));
    }
}
