//! What hyper does not tell: when the first byte of a request came, whether anything was answered, and which wait is over.
//!
//! [`Wire`] is the socket as hyper sees it. It notes every arrival in a [`Progress`], which the request and the connection's
//! driver share. All three live in one task, so its lock is never contended. One timer per connection serves every wait
//! (request head, body, idle time): it is only ever moved to an earlier moment, and when it fires too early it is set
//! again. So a busy connection touches the timer wheel once in a deadline, not once in a request.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::event::{Clock, Outcome, UnixMillis};

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Between two requests.
    Idle,
    /// Some bytes of a request head have come.
    Head,
    /// A request is being served.
    Serving,
}

/// When a request's first byte was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// For deadlines and durations.
    pub at: Instant,
    /// The same moment on the wall clock.
    pub wall: UnixMillis,
}

/// How far the current request of one connection has come.
pub(super) struct Progress {
    clock: Arc<dyn Clock>,
    request_deadline: Duration,
    idle: Duration,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    arrival: Arrival,
    /// When the present wait is over.
    due: Instant,
    /// Why the request must not wait for its rest any longer.
    cut: Option<Outcome>,
    /// Bytes have been written since the present request began.
    wrote: bool,
    /// The present request has been read to its end.
    complete: bool,
    /// An answer was given before its request had been read to the end.
    unread: bool,
    /// The next answer is the last one.
    leaving: bool,
}

impl Progress {
    pub(super) fn new(clock: Arc<dyn Clock>, request_deadline: Duration, idle: Duration) -> Arc<Progress> {
        let arrival = Arrival { at: Instant::now(), wall: clock.now() };
        let due = arrival.at + idle;
        let state =
            State { stage: Stage::Idle, arrival, due, cut: None, wrote: false, complete: false, unread: false, leaving: false };
        Arc::new(Progress { clock, request_deadline, idle, state: Mutex::new(state) })
    }

    /// A request is complete up to the end of its head; a pipelined one begins only now.
    pub(super) fn take_up(&self) -> Arrival {
        let mut state = self.lock();
        if state.stage == Stage::Idle {
            self.begin(&mut state);
        }
        state.stage = Stage::Serving;
        state.arrival
    }

    /// The rest of the request must come within `deadline` of its first byte.
    pub(super) fn limit(&self, deadline: Duration) {
        let mut state = self.lock();
        state.due = state.arrival.at + deadline;
    }

    /// The request is complete: from here the gateway keeps the deadline.
    pub(super) fn complete(&self) {
        let mut state = self.lock();
        state.complete = true;
        state.due = state.arrival.at + self.request_deadline + self.idle;
    }

    /// The request is over, and was read to its end unless [`Progress::unread`] says otherwise from now on.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        state.stage = Stage::Idle;
        state.unread = !state.complete;
        state.due = Instant::now() + self.idle;
    }

    /// From here on an answer closes the connection, and so does `quiet` of silence.
    pub(super) fn leave(&self, quiet: Duration) {
        let mut state = self.lock();
        state.leaving = true;
        if state.stage == Stage::Idle {
            state.due = Instant::now() + quiet;
        }
    }

    /// True when the present answer must be the last one.
    pub(super) fn closes(&self) -> bool {
        let state = self.lock();
        state.leaving || state.unread
    }

    /// Tells the request under way not to wait for its rest. Without one, the present wait is over.
    pub(super) fn cut(&self, why: Outcome) {
        let mut state = self.lock();
        state.leaving = true;
        state.cut.get_or_insert(why);
        state.due = Instant::now() + if state.stage == Stage::Serving { self.idle } else { Duration::ZERO };
    }

    pub(super) fn is_cut(&self) -> bool {
        self.lock().cut.is_some()
    }

    /// Waits for `work` until the request is cut; the error says why it was. Nobody is woken for a cut: the connection that
    /// polls this request makes it.
    pub(super) async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.lock().cut.map_or(Poll::Pending, |why| Poll::Ready(Err(why))),
        })
        .await
    }

    pub(super) fn stage(&self) -> Stage {
        self.lock().stage
    }

    pub(super) fn arrival(&self) -> Arrival {
        self.lock().arrival
    }

    /// Something has been written since the present request began.
    pub(super) fn wrote(&self) -> bool {
        self.lock().wrote
    }

    /// The peer may still be sending what nobody will read.
    pub(super) fn unread(&self) -> bool {
        self.lock().unread
    }

    /// Ready when the present wait is over. Polled after the connection, so that it sees what has just arrived.
    pub(super) async fn overdue(&self, mut timer: Pin<&mut Sleep>) {
        poll_fn(|cx| {
            loop {
                let due = self.due();
                if timer.deadline() > due {
                    timer.as_mut().reset(due);
                }
                ready!(timer.as_mut().poll(cx));
                if timer.deadline() >= due {
                    return Poll::Ready(());
                }
                timer.as_mut().reset(due);
            }
        })
        .await;
    }

    fn due(&self) -> Instant {
        self.lock().due
    }

    fn bytes_came(&self) {
        let mut state = self.lock();
        if state.stage == Stage::Idle {
            self.begin(&mut state);
        }
    }

    fn begin(&self, state: &mut State) {
        state.stage = Stage::Head;
        state.arrival = Arrival { at: Instant::now(), wall: self.clock.now() };
        state.due = state.arrival.at + self.request_deadline;
        state.wrote = false;
        state.complete = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that notes what passes through it.
pub(super) struct Wire {
    stream: TcpStream,
    progress: Arc<Progress>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, progress: Arc<Progress>) -> Wire {
        Wire { stream, progress }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.progress.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.progress.lock().wrote = true;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.progress.lock().wrote = true;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Does nothing: the connection's driver closes the socket itself, once it has counted how the connection ended.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SystemClock;

    #[test]
    fn a_request_that_crosses_the_drain_on_the_wire_gets_its_full_time() {
        let (deadline, quiet) = (Duration::from_secs(8), Duration::from_millis(250));
        let progress = Progress::new(Arc::new(SystemClock), deadline, Duration::from_secs(75));
        progress.leave(quiet);
        assert!(progress.due() <= Instant::now() + quiet);
        progress.bytes_came();
        assert_eq!((progress.stage(), progress.due()), (Stage::Head, progress.arrival().at + deadline));
        assert!(progress.closes());
    }

    #[test]
    fn the_deadline_counts_from_the_first_byte() {
        let progress = Progress::new(Arc::new(SystemClock), Duration::from_secs(8), Duration::from_secs(75));
        progress.bytes_came();
        let first = progress.arrival().at;
        progress.bytes_came();
        assert_eq!(progress.take_up().at, first);
        progress.limit(Duration::from_secs(3));
        assert_eq!(progress.due(), first + Duration::from_secs(3));
    }
}
