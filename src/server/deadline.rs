//! What hyper does not tell: when the first byte of a request came, whether anything was answered, and which wait is over.
//!
//! [`Wire`](super::io::Wire) is the socket as hyper sees it. It notes every arrival in a [`Progress`], which the request and the
//! connection's driver share. All three live in one task, so its lock is never contended. One timer per connection serves every wait
//! (request head, body, idle time): it is only ever moved to an earlier moment, and when it fires too early it is set
//! again. So a busy connection touches the timer wheel once in a deadline, not once in a request.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::clock::{Clock, UnixMillis};
use crate::limits::ServerLimits;
use crate::outcome::Outcome;

/// The step that the current request of a connection has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No byte of the next request has arrived.
    Idle,
    /// A part of the request head has arrived.
    Head,
    /// The head is complete, the body is not.
    Body,
    /// The request is complete and waits for its response.
    Complete,
}

/// Decides whether the connection serves another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// It does.
    No,
    /// The next response is the last one.
    AfterResponse,
    /// The current request must not wait for the rest of its bytes; the outcome says why.
    Cut(Outcome),
}

/// How the request before the current one was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Previous {
    /// There was none.
    None,
    /// Completely.
    Read,
    /// Its response was given before all of its bytes had arrived.
    Unread,
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
    min_rate: u64,
    min_rate_after: Duration,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    closing: Closing,
    previous: Previous,
    arrival: Arrival,
    /// When the present wait is over, however much comes.
    due: Instant,
    /// Bytes of the present request that have come.
    came: u64,
    /// Bytes have been written since the present request began.
    wrote: bool,
}

impl Progress {
    /// Who has just connected has the time of a request, not that of an idle connection, to begin its first one.
    pub(super) fn new(clock: Arc<dyn Clock>, limits: &ServerLimits) -> Arc<Progress> {
        let ServerLimits { request_deadline, idle_timeout: idle, min_rate, min_rate_after, .. } = *limits;
        let arrival = Arrival { at: Instant::now(), wall: clock.now() };
        let state = State {
            stage: Stage::Idle,
            closing: Closing::No,
            previous: Previous::None,
            arrival,
            due: arrival.at + idle.min(request_deadline),
            came: 0,
            wrote: false,
        };
        Arc::new(Progress { clock, request_deadline, idle, min_rate, min_rate_after, state: Mutex::new(state) })
    }

    /// A request is complete up to the end of its head; a pipelined one begins only now.
    pub(super) fn take_up(&self) -> Arrival {
        let mut state = self.lock();
        if state.stage == Stage::Idle {
            self.begin(&mut state);
        }
        state.stage = Stage::Body;
        state.arrival
    }

    /// The rest of the request must come within `deadline` of its first byte.
    pub(super) fn limit(&self, deadline: Duration) {
        let mut state = self.lock();
        state.due = state.arrival.at + deadline;
    }

    /// A part of the body has come, and it is not the last.
    pub(super) fn body_came(&self, count: usize) {
        self.lock().came += count as u64;
    }

    /// The request is complete: from here the gateway keeps the deadline.
    pub(super) fn complete(&self) {
        let mut state = self.lock();
        state.stage = Stage::Complete;
        state.due = state.arrival.at + self.request_deadline + self.idle;
    }

    /// The request is over, and was read to its end unless [`Progress::unread`] says otherwise from now on. True when its answer
    /// must be the last one.
    pub(super) fn answered(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.previous = if state.stage == Stage::Complete { Previous::Read } else { Previous::Unread };
        state.stage = Stage::Idle;
        state.due = now + self.idle;
        state.closing != Closing::No || state.previous == Previous::Unread
    }

    /// From here on an answer closes the connection, and so does `quiet` of silence.
    pub(super) fn leave(&self, quiet: Duration) {
        let mut state = self.lock();
        if state.closing == Closing::No {
            state.closing = Closing::AfterResponse;
        }
        if state.stage == Stage::Idle {
            state.due = Instant::now() + quiet;
        }
    }

    /// Tells the request under way not to wait for its rest. Without one, the present wait is over.
    pub(super) fn cut(&self, why: Outcome) {
        let mut state = self.lock();
        if state.cut().is_none() {
            state.closing = Closing::Cut(why);
        }
        state.due = Instant::now() + if state.is_serving() { self.idle } else { Duration::ZERO };
    }

    pub(super) fn is_cut(&self) -> bool {
        self.lock().cut().is_some()
    }

    /// Waits for `work` until the request is cut; the error says why it was. Nobody is woken for a cut: the connection that
    /// polls this request makes it.
    pub(super) async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.lock().cut().map_or(Poll::Pending, |why| Poll::Ready(Err(why))),
        })
        .await
    }

    pub(super) fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// There has been a request on this connection.
    pub(super) fn asked(&self) -> bool {
        let state = self.lock();
        state.is_serving() || state.previous != Previous::None
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
        self.lock().previous == Previous::Unread
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

    /// When the present wait is over, unless more comes. What has come buys time at `min_rate`.
    pub(super) fn due(&self) -> Instant {
        let state = self.lock();
        let reads = matches!(state.stage, Stage::Head | Stage::Body);
        if !reads || state.cut().is_some() {
            return state.due;
        }
        let bought = Duration::from_micros(state.came.saturating_mul(1_000_000) / self.min_rate);
        state.due.min(state.arrival.at + self.min_rate_after + bought)
    }

    pub(super) fn has_written(&self) {
        self.lock().wrote = true;
    }

    pub(super) fn bytes_came(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.stage == Stage::Idle && !is_nothing(bytes) {
            self.begin(&mut state);
        }
        if state.stage == Stage::Head {
            state.came += bytes.len() as u64;
        }
    }

    fn begin(&self, state: &mut State) {
        state.stage = Stage::Head;
        state.arrival = Arrival { at: Instant::now(), wall: self.clock.now() };
        // What begins after a cut has no time left, but is told so.
        state.due = state.arrival.at + if state.cut().is_none() { self.request_deadline } else { Duration::ZERO };
        state.came = 0;
        state.wrote = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Body | Stage::Complete)
    }

    fn cut(&self) -> Option<Outcome> {
        match self.closing {
            Closing::Cut(why) => Some(why),
            Closing::No | Closing::AfterResponse => None,
        }
    }
}

/// True for line ends before a request, which mean nothing (RFC 9112, section 2.2): some senders put one after a body.
fn is_nothing(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_request_that_crosses_the_drain_on_the_wire_gets_its_full_time() {
        let (limits, quiet) = (ServerLimits::default(), Duration::from_millis(250));
        let progress = Progress::new(Arc::new(SystemClock), &limits);
        progress.leave(quiet);
        assert!(progress.due() <= Instant::now() + quiet);
        progress.bytes_came(&[b'P'; 1 << 20]);
        assert_eq!((progress.stage(), progress.due()), (Stage::Head, progress.arrival().at + limits.request_deadline));
        progress.take_up();
        progress.complete();
        assert!(progress.answered(Instant::now()), "and its answer is the last one");
    }

    #[test]
    fn a_head_that_begins_after_the_cut_is_over_at_once() {
        let progress = Progress::new(Arc::new(SystemClock), &ServerLimits::default());
        progress.cut(Outcome::Draining);
        progress.bytes_came(&[b'P'; 10]);
        assert_eq!((progress.stage(), progress.due()), (Stage::Head, progress.arrival().at));
    }

    #[test]
    fn line_ends_between_two_requests_begin_none() {
        let progress = Progress::new(Arc::new(SystemClock), &ServerLimits::default());
        let due = progress.due();
        progress.bytes_came(b"\r\n\r\n");
        assert_eq!((progress.stage(), progress.due()), (Stage::Idle, due));
        progress.bytes_came(b"\r\nPOST");
        assert_eq!(progress.stage(), Stage::Head);
    }

    #[test]
    fn the_deadline_counts_from_the_first_byte() {
        let progress = Progress::new(Arc::new(SystemClock), &ServerLimits::default());
        progress.bytes_came(&[b'P'; 1 << 20]);
        let first = progress.arrival().at;
        progress.bytes_came(b"P");
        assert_eq!(progress.take_up().at, first);
        progress.limit(Duration::from_secs(3));
        assert_eq!(progress.due(), first + Duration::from_secs(3));
    }

    #[test]
    fn what_comes_buys_time_at_min_rate_until_the_request_is_complete() {
        let limits = ServerLimits { min_rate: 1000, min_rate_after: Duration::from_secs(2), ..ServerLimits::default() };
        let progress = Progress::new(Arc::new(SystemClock), &limits);
        let left = || progress.due() - progress.arrival().at;
        assert_eq!(left(), limits.request_deadline, "a new connection has not the time of an idle one");
        progress.bytes_came(b"P");
        assert_eq!(left(), Duration::from_millis(2001));
        progress.take_up();
        progress.body_came(2999);
        assert_eq!(left(), Duration::from_secs(5));
        progress.body_came(1_000_000);
        assert_eq!(left(), limits.request_deadline);
        progress.answered(Instant::now());
        progress.bytes_came(b"P");
        assert_eq!(left(), Duration::from_millis(2001), "each request by itself");
        progress.take_up();
        progress.complete();
        assert!(left() > limits.request_deadline, "a complete request waits for us");
    }
}
