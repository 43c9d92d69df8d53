//! Tracks the current request of one connection: the arrival, the deadline, and whether the connection closes after the
//! response.
//!
//! hyper does not report the first byte of a request, and it does not report its writes to the socket.
//! [`TrackedIo`](super::io::TrackedIo) records both in a [`Progress`], which the request and the connection's driver
//! share. `TrackedIo`, the request and the driver run in one task, so they never contend for the lock of the
//! `Progress`.
//!
//! One timer per connection measures every wait: for a request head, for a body, and between requests. If a deadline
//! moves earlier, hookhold resets the timer immediately. If a deadline moves later, hookhold resets the timer only
//! after the timer has fired. hookhold therefore does not reset the timer of a busy connection for each request.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::close::LINGER_TIMEOUT;
use super::idle::IdleTimeouts;
use super::request_state::{AnswerWait, Arriving, RequestState, Stage};
use crate::clock::{Clock, UnixMillis};
use crate::limits::ServerLimits;
use crate::outcome::Outcome;

/// Decision about when to close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// The connection stays open.
    No,
    /// The connection closes after its next response.
    AfterResponse,
    /// The current request ends with this outcome as soon as the request has to wait for bytes or for the journal.
    Cut(Outcome),
}

/// State of the previous request on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Previous {
    /// There is no previous request.
    None,
    /// The server read the previous request completely.
    Read,
    /// The response to the previous request was ready before the last byte of that request arrived.
    Unread,
}

/// Bytes that the server has written since the current request started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Nothing,
    Some,
}

/// Arrival time of a request's first byte, on two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Time on the monotonic clock, for deadlines and durations.
    pub(super) at: Instant,
    /// Time on the wall clock, for timestamps.
    pub(super) wall: UnixMillis,
}

/// Progress of the current request on one connection.
pub(super) struct Progress {
    clock: Arc<dyn Clock>,
    request_deadline: Duration,
    idle: IdleTimeouts,
    min_rate: u64,
    min_rate_after: Duration,
    state: Mutex<ProgressState>,
}

struct ProgressState {
    request: RequestState,
    closing: Closing,
    previous: Previous,
    written: Written,
    /// Arrival of the current request, or of the previous one while the connection is idle.
    arrival: Arrival,
}

impl Progress {
    /// Creates the progress of a new connection. `is_trusted` is true if the connection may stay open without a request for
    /// `trusted_idle_timeout`.
    pub(super) fn new(clock: Arc<dyn Clock>, limits: &ServerLimits, is_trusted: bool) -> Arc<Progress> {
        let idle = IdleTimeouts::new(limits);
        let ServerLimits { request_deadline, min_rate, min_rate_after, .. } = *limits;
        let arrival = Arrival { at: Instant::now(), wall: clock.now() };
        let state = ProgressState {
            request: RequestState::Idle { until: arrival.at + idle.before_first_request(is_trusted) },
            closing: Closing::No,
            previous: Previous::None,
            written: Written::Nothing,
            arrival,
        };
        Arc::new(Progress { clock, request_deadline, idle, min_rate, min_rate_after, state: Mutex::new(state) })
    }

    /// Sets the stage of the request to `Body`, because the request head is complete. Returns the arrival time of the
    /// request. A pipelined request starts at this moment, because its bytes arrived together with the previous
    /// request.
    pub(super) fn head_complete(&self) -> Arrival {
        let mut state = self.lock();
        let request = state.request;
        let arriving = match request {
            RequestState::Idle { .. } | RequestState::Complete { .. } => self.start_request(&mut state),
            RequestState::Head(arriving) | RequestState::Body(arriving) => arriving,
        };
        state.request = RequestState::Body(arriving);
        state.arrival
    }

    /// Sets the time within which the complete request must arrive, counted from its first byte.
    pub(super) fn set_deadline(&self, deadline: Duration) {
        let mut state = self.lock();
        *state.request.until_mut() = state.arrival.at + deadline;
    }

    /// Adds `count` to the number of received body bytes. The caller must not report the last piece of a body, because
    /// that piece completes the request.
    pub(super) fn body_received(&self, count: usize) {
        if let RequestState::Body(arriving) = &mut self.lock().request {
            arriving.received += count as u64;
        }
    }

    /// Sets the stage of the request to `Complete`. From this moment, the gateway enforces the request's deadline, which ends
    /// `deadline` after its first byte.
    pub(super) fn request_complete(&self, deadline: Duration) {
        let mut state = self.lock();
        state.request = RequestState::Complete { until: state.arrival.at + deadline, wait: AnswerWait::UntilDeadline };
    }

    /// Starts a hold, in which the server reads no body, so that `min_rate` does not apply. The request must be answered `deadline`
    /// after its first byte.
    pub(super) fn hold(&self, deadline: Duration) -> RequestState {
        let mut state = self.lock();
        let held = state.request;
        state.request = RequestState::Complete { until: state.arrival.at + deadline, wait: AnswerWait::UntilDeadline };
        held
    }

    /// Ends the hold. `held` is the result of [`Progress::hold`]. The time of the hold counts as if the sender had sent enough.
    pub(super) fn end_hold(&self, held: RequestState) {
        let mut state = self.lock();
        let earned = (state.arrival.at.elapsed().as_millis() as u64).saturating_mul(self.min_rate) / 1000;
        state.request = match held {
            RequestState::Body(arriving) => RequestState::Body(Arriving { received: arriving.received + earned, ..arriving }),
            other => other,
        };
    }

    /// Reacts to the end of the wait for the body or for the answer. At the deadline of a complete request, the caller must poll the
    /// request, so that the gateway answers. If the gateway does not answer even then, or if the body is incomplete, the request
    /// ends with the outcome `too_slow`.
    pub(super) fn end_wait(&self) {
        let mut state = self.lock();
        match &mut state.request {
            RequestState::Complete { until, wait: wait @ AnswerWait::UntilDeadline } => {
                *wait = AnswerWait::Late;
                *until += self.idle.between_requests(false);
            }
            _ => {
                drop(state);
                self.cut(Outcome::TooSlow);
            }
        }
    }

    /// Ends the current request, because the response to the request is ready. Returns true if the connection must
    /// close after this response. `is_trusted` is true if the connection may then stay open without a request for
    /// `trusted_idle_timeout`.
    pub(super) fn response_ready(&self, now: Instant, is_trusted: bool) -> bool {
        let mut state = self.lock();
        state.previous = match state.request {
            RequestState::Complete { .. } => Previous::Read,
            RequestState::Idle { .. } | RequestState::Head(_) | RequestState::Body(_) => Previous::Unread,
        };
        let closes = state.closing != Closing::No || state.previous == Previous::Unread;
        // A client that does not read the last response keeps the connection for only this time.
        let left = if closes { LINGER_TIMEOUT } else { self.idle.between_requests(is_trusted) };
        state.request = RequestState::Idle { until: now + left };
        closes
    }

    /// Makes the connection close after its next response, or after `idle_timeout` without a request.
    pub(super) fn drain(&self, idle_timeout: Duration) {
        let mut state = self.lock();
        state.close_after_response();
        if let RequestState::Idle { until } = &mut state.request {
            *until = Instant::now() + idle_timeout;
        }
    }

    /// Makes the connection close after its next response.
    pub(super) fn close_after_response(&self) {
        self.lock().close_after_response();
    }

    /// Ends the current request with `outcome` as soon as the request has to wait for bytes or for the journal. If no
    /// complete request head has arrived, the wait for the head ends immediately.
    pub(super) fn cut(&self, outcome: Outcome) {
        let mut state = self.lock();
        if state.cut().is_none() {
            state.closing = Closing::Cut(outcome);
        }
        let left = if state.is_serving() { self.idle.between_requests(false) } else { Duration::ZERO };
        *state.request.until_mut() = Instant::now() + left;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.lock().cut().is_some()
    }

    /// Waits for `work` and returns its result. If `cut` ends the request before `work` completes, the error is the
    /// outcome that the caller of `cut` passed. `cut` has no need to wake this future: the task that calls `cut` also
    /// polls this future.
    pub(super) async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.lock().cut().map_or(Poll::Pending, |outcome| Poll::Ready(Err(outcome))),
        })
        .await
    }

    pub(super) fn stage(&self) -> Stage {
        self.lock().request.stage()
    }

    /// Returns true if the connection has carried a complete request head.
    pub(super) fn had_request(&self) -> bool {
        let state = self.lock();
        state.is_serving() || state.previous != Previous::None
    }

    pub(super) fn arrival(&self) -> Arrival {
        self.lock().arrival
    }

    /// Returns true if the server has written bytes since the current request started.
    pub(super) fn has_written(&self) -> bool {
        self.lock().written == Written::Some
    }

    /// Returns true if the peer may still be sending a request although the response to this request is ready.
    pub(super) fn left_unread(&self) -> bool {
        self.lock().previous == Previous::Unread
    }

    /// Waits until the current deadline. The caller must poll the connection first, so that newly received bytes extend
    /// the deadline.
    pub(super) async fn expired(&self, mut timer: Pin<&mut Sleep>) {
        poll_fn(|cx| {
            loop {
                let deadline = self.deadline();
                if timer.deadline() > deadline {
                    timer.as_mut().reset(deadline);
                }
                ready!(timer.as_mut().poll(cx));
                if timer.deadline() >= deadline {
                    return Poll::Ready(());
                }
                timer.as_mut().reset(deadline);
            }
        })
        .await;
    }

    /// Returns the time at which the current wait ends. While a request is arriving, each byte extends the wait by `1 /
    /// min_rate` seconds, but not beyond the deadline of the request.
    pub(super) fn deadline(&self) -> Instant {
        let state = self.lock();
        match state.request {
            RequestState::Idle { until } | RequestState::Complete { until, .. } => until,
            RequestState::Head(Arriving { until, .. }) | RequestState::Body(Arriving { until, .. }) if state.cut().is_some() => {
                until
            }
            RequestState::Head(Arriving { until, received }) | RequestState::Body(Arriving { until, received }) => {
                let earned = Duration::from_micros(received.saturating_mul(1_000_000) / self.min_rate);
                until.min(state.arrival.at + self.min_rate_after + earned)
            }
        }
    }

    pub(super) fn note_write(&self) {
        self.lock().written = Written::Some;
    }

    pub(super) fn bytes_received(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let request = state.request;
        let mut arriving = match request {
            RequestState::Idle { .. } if !is_line_ends(bytes) => self.start_request(&mut state),
            RequestState::Head(arriving) => arriving,
            RequestState::Idle { .. } | RequestState::Body(_) | RequestState::Complete { .. } => return,
        };
        arriving.received += bytes.len() as u64;
        state.request = RequestState::Head(arriving);
    }

    /// Records the arrival of a request, and returns the start of its `RequestState::Head`.
    fn start_request(&self, state: &mut ProgressState) -> Arriving {
        state.arrival = Arrival { at: Instant::now(), wall: self.clock.now() };
        state.written = Written::Nothing;
        // A request that starts after a call of `cut` expires immediately but still receives a response.
        let deadline = if state.cut().is_none() { self.request_deadline } else { Duration::ZERO };
        Arriving { until: state.arrival.at + deadline, received: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProgressState {
    fn is_serving(&self) -> bool {
        matches!(self.request, RequestState::Body(_) | RequestState::Complete { .. })
    }

    fn close_after_response(&mut self) {
        if self.closing == Closing::No {
            self.closing = Closing::AfterResponse;
        }
    }

    fn cut(&self) -> Option<Outcome> {
        match self.closing {
            Closing::Cut(outcome) => Some(outcome),
            Closing::No | Closing::AfterResponse => None,
        }
    }
}

/// Returns true if `bytes` contains only line ends (CR and LF). Servers ignore line ends before a request (RFC 9112,
/// section 2.2), and some senders add a line end after a body.
fn is_line_ends(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_request_before_the_drain_gets_its_full_time() {
        let (limits, drain_idle) = (ServerLimits::default(), Duration::from_millis(250));
        let progress = Progress::new(Arc::new(SystemClock), &limits, false);
        progress.drain(drain_idle);
        assert!(progress.deadline() <= Instant::now() + drain_idle);
        progress.bytes_received(&[b'P'; 1 << 20]);
        assert_eq!((progress.stage(), progress.deadline()), (Stage::Head, progress.arrival().at + limits.request_deadline));
        progress.head_complete();
        progress.request_complete(limits.request_deadline);
        assert!(progress.response_ready(Instant::now(), false), "the connection closes after this response");
    }

    #[test]
    fn a_head_after_the_cut_expires_at_once() {
        let progress = Progress::new(Arc::new(SystemClock), &ServerLimits::default(), false);
        progress.cut(Outcome::Draining);
        progress.bytes_received(&[b'P'; 10]);
        assert_eq!((progress.stage(), progress.deadline()), (Stage::Head, progress.arrival().at));
    }

    #[test]
    fn line_ends_between_two_requests_start_no_request() {
        let progress = Progress::new(Arc::new(SystemClock), &ServerLimits::default(), false);
        let deadline = progress.deadline();
        progress.bytes_received(b"\r\n\r\n");
        assert_eq!((progress.stage(), progress.deadline()), (Stage::Idle, deadline));
        progress.bytes_received(b"\r\nPOST");
        assert_eq!(progress.stage(), Stage::Head);
    }

    #[test]
    fn idle_connections_of_trusted_peers_outlive_the_pools_of_proxies() {
        let limits = ServerLimits::default();
        for (is_trusted, first, next) in [(true, 620, 620), (false, 8, 75)] {
            let start = Instant::now();
            let progress = Progress::new(Arc::new(SystemClock), &limits, is_trusted);
            assert_eq!((progress.deadline() - progress.arrival().at).as_secs(), first);
            progress.bytes_received(b"P");
            progress.head_complete();
            progress.request_complete(limits.request_deadline);
            progress.response_ready(start, is_trusted);
            assert_eq!((progress.deadline() - start).as_secs(), next);
        }
    }

    #[test]
    fn the_deadline_counts_from_the_first_byte() {
        let progress = Progress::new(Arc::new(SystemClock), &ServerLimits::default(), false);
        progress.bytes_received(&[b'P'; 1 << 20]);
        let first = progress.arrival().at;
        progress.bytes_received(b"P");
        assert_eq!(progress.head_complete().at, first);
        progress.set_deadline(Duration::from_secs(3));
        assert_eq!(progress.deadline(), first + Duration::from_secs(3));
    }

    #[test]
    fn received_bytes_extend_the_wait_of_an_incomplete_request() {
        let limits = ServerLimits { min_rate: 1000, min_rate_after: Duration::from_secs(2), ..ServerLimits::default() };
        let progress = Progress::new(Arc::new(SystemClock), &limits, false);
        let left = || progress.deadline() - progress.arrival().at;
        assert_eq!(left(), limits.request_deadline, "the shorter of the two limits applies to a new connection");
        progress.bytes_received(b"P");
        assert_eq!(left(), Duration::from_millis(2001));
        progress.head_complete();
        progress.body_received(2999);
        assert_eq!(left(), Duration::from_secs(5));
        progress.body_received(1_000_000);
        assert_eq!(left(), limits.request_deadline);
        progress.response_ready(Instant::now(), false);
        progress.bytes_received(b"P");
        assert_eq!(left(), Duration::from_millis(2001), "each request counts its own bytes");
        progress.head_complete();
        progress.request_complete(Duration::from_secs(3));
        assert_eq!(left(), Duration::from_secs(3));
        progress.end_wait();
        assert!(left() > limits.request_deadline && !progress.is_cut(), "the gateway answers");
        progress.end_wait();
        assert!(progress.is_cut(), "the gateway did not answer");
    }
}
