//! Drives one HTTP/1.1 connection. hyper parses requests and writes responses. This file enforces deadlines, reacts to
//! a shutdown, and sends the responses that hyper omits, such as the response to a request head that arrives too
//! slowly.
//!
//! hyper itself rejects a malformed or overlong request head, and passes no request to this file. The source of such a request
//! is therefore unknown, so this file counts the request head under `source="-"`. This file uses the same label for a request
//! head that arrives too slowly or ends with a disconnect. A half-closed connection stays open until the server has sent the
//! response. While hookhold stores an event, it does not read the socket and does not notice a disconnect. A sender therefore
//! cannot undo a delivery after sending the last byte.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::close::{LINGER_TIMEOUT, close};
use super::connection_charge::ConnectionCharge;
use super::deadline::Progress;
use super::io::{ReadFailure, TrackedIo};
use super::peer::{Peer, RequestContext};
use super::request_slot::{RequestSlot, over_budget};
use super::request_state::Stage;
use super::response::{head_too_large, raw_response};
use super::shutdown::{Phase, next_phase};
use super::state::ServerState;
use super::{request, request_slot};
use crate::answer::Answer;
use crate::limits::ServerLimits;
use crate::outcome::Outcome;

/// Reason why a connection ended.
enum ConnectionEnd {
    /// hyper has ended the connection, with or without an error.
    Http(hyper::Result<()>),
    /// No complete request head arrived in time.
    TimedOut,
}

/// Serves one HTTP/1.1 connection until it is closed. Returns true if the connection carried a request or a rejected
/// request head.
pub(super) async fn serve<S>(stream: S, peer: Peer, state: Arc<ServerState>, mut phases: watch::Receiver<Phase>) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let charge = ConnectionCharge::new(&peer, &state);
    let context = RequestContext::new(peer, &state);
    let progress = &context.progress;
    let service = service_fn(|request: Request<Incoming>| {
        let (state, mut context, (mut head, mut body)) = (&state, context.clone(), request.into_parts());
        async move {
            context.apply_forwarded_for(state, &head.headers);
            let arrival = context.progress.head_complete();
            match RequestSlot::take(state, &context.sender, &head, arrival.at) {
                // hyper would hold the memory of the future on an idle connection.
                Some(slot) => Box::pin(request::serve(slot, &context, arrival, &mut head, &mut body)).await,
                None => Ok(request_slot::reject(state, &context, arrival, &head, &body)),
            }
        }
    });
    let stream = TrackedIo::new(stream, progress.clone(), charge, state.limits.max_header_size);
    let mut connection = http(&state.limits).serve_connection(TokioIo::new(stream), service);
    let mut timer = pin!(sleep_until(progress.deadline()));
    let (mut evicted, mut is_evicted) = (pin!(context.sender.evicted()), false);
    let end = loop {
        select! {
            biased;
            phase = next_phase(&mut phases) => enter(phase, progress),
            result = &mut connection => break ConnectionEnd::Http(result),
            // hyper notices an eviction when it reads, but it does not read while it writes a response.
            () = &mut evicted, if !is_evicted => {
                is_evicted = true;
                progress.drain(LINGER_TIMEOUT);
            }
            () = progress.expired(timer.as_mut()) => match progress.stage() {
                Stage::Body | Stage::Complete => progress.end_wait(),
                Stage::Idle | Stage::Head => break ConnectionEnd::TimedOut,
            },
        }
    };
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    let has_partial_head = progress.stage() == Stage::Head || !parts.read_buf.trim_ascii().is_empty() || stream.has_held_head();
    drop(parts.read_buf); // before the stream, which releases the charge for this buffer
    let failure = stream.read_failure();
    // hyper may have ended the connection before it has met the malformed line: it has rejected an earlier part of the head, or the
    // last response has closed the connection. A second response would then look like the response to another request.
    let has_met_line = failure.is_some() || matches!(end, ConnectionEnd::TimedOut);
    let framing_error = stream.framing_error().filter(|_| has_met_line);
    let rejected = match framing_error {
        Some(error) if !progress.left_unread() => Some(Answer::plain(Outcome::BadRequest).with_hint(error.to_string())),
        _ => rejected_head(&end, progress, has_partial_head, failure),
    };
    if let Some(answer) = &rejected {
        let now = Instant::now();
        state.outcomes.no_source.start(context.remote, progress.arrival().at).record(answer, now);
        context.sender.record(answer.outcome, 0, now);
    }
    let unanswered = rejected.filter(|answer| answer.outcome != Outcome::Disconnected);
    let had_request = progress.had_request() || unanswered.is_some();
    let unread = progress.left_unread() || unanswered.is_some();
    let hyper_responded = matches!(end, ConnectionEnd::Http(_)) && framing_error.is_none() && progress.has_written();
    let response = unanswered.filter(|_| !hyper_responded).map(|answer| raw_response(&answer, state.clock.now()));
    let linger = if *phases.borrow() >= Phase::Cut { Duration::ZERO } else { LINGER_TIMEOUT };
    close(stream.into_stream(), response, unread, linger).await;
    had_request
}

/// Applies a shutdown phase to the connection.
fn enter(phase: Phase, progress: &Progress) {
    match phase {
        Phase::Serving => {}
        Phase::Leaving => progress.close_after_response(),
        Phase::Draining => progress.drain(DRAIN_IDLE_TIMEOUT),
        Phase::Cut | Phase::Now => progress.cut(Outcome::Draining),
    }
}

fn http(limits: &ServerLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // `Progress` enforces the deadline of the request head, because hyper's own timeout would also run while the
    // connection is idle.
    http.half_close(true).header_read_timeout(None).max_header_size(limits.max_header_size);
    // Responses are small, so copying the response head and the body into one buffer costs less than a vectored write.
    http.writev(false).max_buf_size(MIN_BUFFER_BYTES.max(2 * limits.max_header_size));
    if limits.max_headers != HYPER_DEFAULT_MAX_HEADERS {
        http.max_headers(limits.max_headers);
    }
    http
}

/// Returns the [`Answer`] to a request head that is malformed, too long or incomplete; `None` if no such request head
/// arrived.
fn rejected_head(
    end: &ConnectionEnd,
    progress: &Progress,
    has_partial_head: bool,
    failure: Option<ReadFailure>,
) -> Option<Answer> {
    match end {
        ConnectionEnd::Http(_) if progress.left_unread() => None,
        ConnectionEnd::Http(Err(error)) if error.is_parse_too_large() => Some(head_too_large()),
        ConnectionEnd::Http(Err(error)) if error.is_parse() => {
            Some(Answer::plain(Outcome::BadRequest).with_hint(error.to_string()))
        }
        ConnectionEnd::Http(Err(error)) if error.is_incomplete_message() => Some(disconnected()),
        ConnectionEnd::Http(result) => match failure.filter(|_| has_partial_head) {
            Some(ReadFailure::OverBudget(outcome)) => Some(over_budget(outcome)),
            Some(ReadFailure::Evicted) => Some(Answer::rate_limited(LINGER_TIMEOUT).with_hint(HEAD_EVICTED)),
            Some(ReadFailure::Disconnected) => Some(disconnected()),
            None => (result.is_err() && progress.stage() == Stage::Head).then(disconnected),
        },
        ConnectionEnd::TimedOut if !has_partial_head => None,
        ConnectionEnd::TimedOut if progress.is_cut() => Some(Answer::plain(Outcome::Draining).with_hint(HEAD_CUT)),
        ConnectionEnd::TimedOut => Some(Answer::plain(Outcome::TooSlow).with_hint(HEAD_TOO_SLOW)),
    }
}

fn disconnected() -> Answer {
    Answer::plain(Outcome::Disconnected).with_hint("request head: expected the complete head, found a disconnect")
}

const HEAD_EVICTED: &str =
    "request head: expected the complete head before a newer connection needs the place, found a part; raise max_connections";
const HEAD_CUT: &str = "request head: expected the complete head before the drain deadline, found a part; raise drain_deadline to at least request_deadline";
const HEAD_TOO_SLOW: &str =
    "request head: expected within request_deadline at min_rate or faster, found it slower; lower min_rate for a genuine sender";

/// hyper's default limit on the number of header fields. If the server sets the limit explicitly, hyper makes one more
/// allocation per request.
const HYPER_DEFAULT_MAX_HEADERS: usize = 100;

/// Smallest size limit that the server sets for hyper's buffer of one connection, in bytes. [`TrackedIo`] charges a buffer that
/// grows.
const MIN_BUFFER_BYTES: usize = 64 * 1024;

/// Idle time after which hookhold closes a connection during a drain. hookhold avoids hyper's graceful shutdown, which
/// would close an idle connection immediately and lose a request that is already in transit.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_millis(250);
