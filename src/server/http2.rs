//! Drives one HTTP/2 connection, which may carry many concurrent requests. Sends GOAWAY when the connection reaches its
//! idle timeout or when a drain starts, and closes the connection afterwards. Each request has its own task, deadline
//! and outcome.
//!
//! hyper drops the future of a request if the client resets the stream or disconnects. This drop must not undo a
//! complete delivery, so the server handles each request in a task that hyper does not own.
//!
//! `max_streams` limits the concurrent requests on each connection, and `max_requests` those on all connections.
//! `max_header_size` and `max_headers` limit each request head. As with HTTP/1.1, hookhold charges heads and bodies to the in-flight
//! budgets. It charges a request before it starts a task for it, and answers a request beyond a limit at once. The server closes a
//! connection whose own memory exceeds a budget ([`super::h2_io`]). If a client opens and immediately resets too many streams,
//! hyper closes the connection.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::body;
use super::close::LINGER_TIMEOUT;
use super::connection_charge::OverBudget;
use super::connection_slot::ended_by_eviction;
use super::early_goaway::{EarlyGoaway, GoawayIo};
use super::h2_heads::RequestHeads;
use super::h2_io::HeadCountingIo;
use super::idle::ConnectionGrowth;
use super::peer::{Peer, RequestContext};
use super::request::{self, SenderDisconnected};
use super::request_slot::{self, RequestSlot};
use super::response::ResponseBody;
use super::shutdown::{Phase, next_phase};
use super::state::ServerState;
use super::stream_tasks::{AbortOnDrop, ActiveRequest, ConnectionPhase, StreamTasks};
use crate::answer::Answer;
use crate::in_flight::DetachedCharge;
use crate::limits::ServerLimits;
use crate::outcome::Outcome;

/// Serves one HTTP/2 connection until it is closed and all its requests have ended. Returns true if the connection
/// carried a request or if the client violated the protocol.
pub(super) async fn serve<S>(stream: S, peer: Peer, state: Arc<ServerState>, phases: watch::Receiver<Phase>) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let owner = AbortOnDrop(StreamTasks::new(&state.limits));
    let rejections = HeadRejections { peer, state, heads: Arc::default(), start: Instant::now() };
    let end = drive(stream, &rejections, &owner.0, phases).await;
    let had_request = owner.0.had_request() || rejections.heads.has_arrived();
    let was_rejected = rejections.record_end(end);
    owner.0.all_ended().await;
    had_request || was_rejected
}

/// Records the outcomes of the request heads that hyper rejects by itself. Their source is unknown.
struct HeadRejections {
    peer: Peer,
    state: Arc<ServerState>,
    heads: Arc<RequestHeads>,
    start: Instant,
}

/// Reason why a connection ended.
enum StreamsEnd {
    /// hyper has ended the connection, with or without an error.
    Http(hyper::Result<()>),
    /// The memory of the connection exceeds an in-flight budget. The value is the outcome of the heads without a request.
    OverBudget(Outcome),
    /// The server has sent GOAWAY because of the idle timeout or a drain, and no request has followed.
    Left,
    /// hookhold has evicted the connection while it did not read.
    Evicted,
}

/// Reason why the driver of a connection stops waiting.
enum DriveEvent {
    /// hyper or hookhold has ended the connection.
    End(StreamsEnd),
    /// The shutdown has reached this phase.
    Phase(Phase),
    /// The server must announce to the client that the connection ends, because of a drain.
    Announce,
    /// The server must close the connection because of a drain.
    Drain,
    /// The connection has reached its idle timeout.
    Idle,
    /// The memory of the connection has grown.
    Growth,
}

impl HeadRejections {
    fn record(&self, outcome: Outcome, count: u64, hint: &str) {
        for _ in 0..count {
            let (answer, now) = (Answer::plain(outcome).with_hint(hint), Instant::now());
            self.state.outcomes.no_source.start(self.peer.remote, self.start).record(&answer, now);
            self.peer.sender.record(answer.outcome, 0, now);
        }
    }

    /// Records the heads that have newly been rejected on the open connection. A server that has sent GOAWAY ignores new heads.
    fn record_new(&self, phase: ConnectionPhase) {
        match phase {
            ConnectionPhase::Open => self.record(Outcome::BadRequest, self.heads.newly_rejected(), HEAD_REJECTED),
            ConnectionPhase::Leaving => self.record(Outcome::Draining, self.heads.newly_rejected(), HEAD_AFTER_GOAWAY),
        }
    }

    /// Records the heads that have not been served when the connection has ended, and a violation of the protocol that belongs to
    /// no head. Returns true if there was such a violation.
    fn record_end(&self, end: StreamsEnd) -> bool {
        let (unserved, partial) = (self.heads.unserved(), u64::from(self.heads.has_partial()));
        match end {
            StreamsEnd::Http(Ok(())) => {
                self.record(Outcome::BadRequest, unserved, HEAD_REJECTED);
                self.record(Outcome::Disconnected, partial, HEAD_INCOMPLETE);
            }
            StreamsEnd::Http(Err(error)) if ended_by_eviction(&error) => {
                self.record(Outcome::RateLimited, unserved + partial, HEAD_EVICTED);
            }
            StreamsEnd::Http(Err(error)) if is_io(&error) => match OverBudget::cause_of(&error) {
                Some(OverBudget(outcome)) => self.record(outcome, unserved + partial, NO_MEMORY),
                None => self.record(Outcome::Disconnected, unserved + partial, HEAD_INCOMPLETE),
            },
            StreamsEnd::Http(Err(error)) if is_goaway_of_client(&error) => {
                self.record(Outcome::Disconnected, unserved + partial, HEAD_INCOMPLETE);
            }
            StreamsEnd::Http(Err(error)) => {
                self.record(Outcome::BadRequest, unserved.max(1), &format!("HTTP/2: {}", cause(&error)));
                return true;
            }
            StreamsEnd::OverBudget(outcome) => self.record(outcome, unserved + partial, NO_MEMORY),
            StreamsEnd::Evicted => self.record(Outcome::RateLimited, unserved + partial, HEAD_EVICTED),
            StreamsEnd::Left => {
                self.record(Outcome::Draining, unserved, HEAD_AFTER_GOAWAY);
                self.record(Outcome::TooSlow, partial, HEAD_TOO_SLOW);
            }
        }
        false
    }
}

async fn drive<S>(stream: S, rejections: &HeadRejections, tasks: &StreamTasks, mut phases: watch::Receiver<Phase>) -> StreamsEnd
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let HeadRejections { peer, state, heads, .. } = rejections;
    let service = service_fn({
        let (state, tasks, phases, peer, heads) = (state.clone(), tasks.clone(), phases.clone(), peer.clone(), heads.clone());
        move |request| {
            heads.request_served();
            respond(&tasks, &state, peer.clone(), phases.clone(), request)
        }
    });
    let early = EarlyGoaway::default();
    let (stream, max_head) = (GoawayIo::new(stream, early.clone()), max_header_list_bytes(&state.limits));
    let stream = HeadCountingIo::new(stream, heads.clone(), peer, state, max_head);
    let connection = http(&state.limits, tasks.clone()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let (mut phase, mut growth) = (ConnectionPhase::Open, ConnectionGrowth::Usual);
    let (mut latest, mut announced) = (Phase::Serving, None::<Instant>);
    loop {
        let is_open = announced.is_none() && phase == ConnectionPhase::Open;
        let polled = poll_fn(|cx| {
            let (unsent, ended) = (tasks.take_unsent(), tasks.ended() + heads.rejected());
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(DriveEvent::End(StreamsEnd::Http(result)));
            }
            rejections.record_new(phase);
            if let Some(outcome) = heads.over_budget() {
                // Writes a GOAWAY and the responses of this connection, if the client reads.
                connection.as_mut().graceful_shutdown();
                let _ = connection.as_mut().poll(cx);
                return Poll::Ready(DriveEvent::End(StreamsEnd::OverBudget(outcome)));
            }
            end_poll(cx, heads, tasks, unsent, ended);
            // A client that has just connected must be able to send one request, or else it would connect again and again.
            if is_open && (latest > Phase::Leaving || (latest == Phase::Leaving && tasks.had_request())) {
                return Poll::Ready(DriveEvent::Announce);
            }
            if growth != heads.growth() { Poll::Ready(DriveEvent::Growth) } else { Poll::Pending }
        });
        let event = select! {
            biased;
            now = next_phase(&mut phases) => DriveEvent::Phase(now),
            event = polled => event,
            // h2 does not read while the client does not, so that no read fails.
            () = peer.sender.evicted() => DriveEvent::End(StreamsEnd::Evicted),
            () = tasks.idle(|now| peer.is_trusted(now)) => DriveEvent::Idle,
            () = end_of_grace(announced), if phase == ConnectionPhase::Open => DriveEvent::Drain,
        };
        match (phase, event) {
            (_, DriveEvent::End(end)) => return end,
            (_, DriveEvent::Phase(now)) if now < Phase::Cut => latest = now,
            (_, DriveEvent::Growth) => {
                growth = ConnectionGrowth::Grown;
                tasks.connection_grown();
            }
            (_, DriveEvent::Announce) => {
                announced = Some(Instant::now());
                early.announce();
            }
            (ConnectionPhase::Open, DriveEvent::Phase(_) | DriveEvent::Drain | DriveEvent::Idle) => {
                phase = ConnectionPhase::Leaving;
                tasks.goaway_sent();
                connection.as_mut().graceful_shutdown();
            }
            (ConnectionPhase::Leaving, DriveEvent::Phase(_) | DriveEvent::Drain) => {}
            (ConnectionPhase::Leaving, DriveEvent::Idle) => return StreamsEnd::Left,
        }
    }
}

/// Updates the charges for responses and the count of ended streams after a poll of the connection.
fn end_poll(cx: &Context<'_>, heads: &RequestHeads, tasks: &StreamTasks, unsent: Vec<DetachedCharge>, ended: u64) {
    if heads.is_write_blocked() {
        unsent.into_iter().for_each(|charge| tasks.hold(charge));
    } else {
        heads.finish(ended);
    }
    if heads.end_pause() {
        cx.waker().wake_by_ref();
    }
}

/// Waits until the client has had time to read the announcement, and to send the requests that it had queued.
async fn end_of_grace(announced: Option<Instant>) {
    match announced {
        Some(announced) => sleep_until(announced + GOAWAY_GRACE).await,
        None => std::future::pending().await,
    }
}

fn http(limits: &ServerLimits, tasks: StreamTasks) -> http2::Builder<StreamTasks> {
    let mut http = http2::Builder::new(tasks);
    http.timer(TokioTimer::new());
    http.max_concurrent_streams(limits.max_streams as u32);
    http.initial_stream_window_size(FLOW_CONTROL_BYTES).initial_connection_window_size(FLOW_CONTROL_BYTES);
    http.max_header_list_size(max_header_list_bytes(limits).try_into().unwrap_or(u32::MAX));
    http.max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    http
}

/// Returns hyper's limit on the size of a header list, in bytes as HTTP/2 counts them. hyper answers a request head
/// above this limit with 431. Every request head within `max_header_size` and `max_headers` is also within this limit. The limit
/// is not larger, because h2 decodes a head before hookhold can charge it.
fn max_header_list_bytes(limits: &ServerLimits) -> usize {
    limits.max_header_size + FIELD_OVERHEAD_BYTES * (limits.max_headers + PSEUDO_FIELDS) + PSEUDO_FIELD_BYTES
}

/// Starts a task that serves one request, and returns a future for the response. Dropping this future does not end the
/// task. If no slot is free, starts no task.
fn respond(
    tasks: &StreamTasks,
    state: &Arc<ServerState>,
    peer: Peer,
    phases: watch::Receiver<Phase>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, SenderDisconnected>> + use<> {
    let active = ActiveRequest::new(tasks.clone());
    let (head, body) = request.into_parts();
    let mut context = RequestContext::new(peer, state);
    context.apply_forwarded_for(state, &head.headers);
    let arrival = context.progress.head_complete();
    let reply = match RequestSlot::take(state, &context.sender, &head, arrival.at) {
        Some(slot) => StreamReply::Later(start(tasks, active, slot, context, phases, head, body)),
        None => StreamReply::Now(Box::new(request_slot::reject(state, &context, arrival, &head, &body))),
    };
    async {
        match reply {
            StreamReply::Now(response) => Ok(*response),
            StreamReply::Later(response) => response.await.unwrap_or(Err(SenderDisconnected)),
        }
    }
}

/// Response to a request.
enum StreamReply {
    Now(Box<Response<ResponseBody>>),
    /// Response of the task that serves the request.
    Later(oneshot::Receiver<Result<Response<ResponseBody>, SenderDisconnected>>),
}

/// Starts the task of a request, and returns the receiver of the response.
fn start(
    tasks: &StreamTasks,
    active: ActiveRequest,
    slot: RequestSlot,
    context: RequestContext,
    phases: watch::Receiver<Phase>,
    head: Parts,
    mut body: Incoming,
) -> oneshot::Receiver<Result<Response<ResponseBody>, SenderDisconnected>> {
    let (sender, response) = oneshot::channel();
    tasks.spawn(async move {
        let mut result = serve_in_time(slot, &context, phases, head, &mut body).await;
        if let Ok(response) = &mut result {
            response.body_mut().charge_until_sent(&active);
        }
        let unread = (!body.is_end_stream()).then(|| active.tasks());
        drop(active);
        let _ = sender.send(result);
        // Read the rest of the body, because dropping an unfinished body resets the HTTP/2 stream. A client that is
        // still sending would treat the reset as the response. The task for the rest is smaller than this task.
        if let Some(tasks) = unread
            && !body::has_ended(&mut body).await
        {
            tasks.spawn(async move { _ = timeout(LINGER_TIMEOUT, body::discard(&mut body)).await });
        }
    });
    response
}

/// Serves one request, and ends it early at its deadline or at the drain deadline.
async fn serve_in_time(
    slot: RequestSlot,
    context: &RequestContext,
    mut phases: watch::Receiver<Phase>,
    mut head: Parts,
    body: &mut Incoming,
) -> Result<Response<ResponseBody>, SenderDisconnected> {
    let progress = &context.progress;
    let mut timer = std::pin::pin!(sleep_until(progress.deadline()));
    let mut response = std::pin::pin!(request::serve(slot, context, progress.arrival(), &mut head, body));
    phases.mark_changed();
    loop {
        select! {
            biased;
            _ = phases.changed() => if *phases.borrow_and_update() >= Phase::Cut {
                progress.cut(Outcome::Draining);
            },
            result = &mut response => return result,
            () = progress.expired(timer.as_mut()) => progress.end_wait(),
        }
    }
}

/// Returns true if the connection failed with an I/O error, and false if the client violated the protocol.
fn is_io(error: &hyper::Error) -> bool {
    error.source().is_some_and(|cause| cause.is::<io::Error>())
}

/// Returns true if the client has ended the connection with an error code of its own, which is no violation of the protocol.
fn is_goaway_of_client(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|error| error.is_go_away() && error.is_remote())
}

fn cause(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| crate::log::escaped(&cause.to_string()))
}

const HEAD_REJECTED: &str = "request head: expected well-formed HTTP/2 fields within max_header_size, max_headers and max_streams, \
                             found another head; correct the sender, or raise the exceeded limit";
const HEAD_AFTER_GOAWAY: &str =
    "request head: expected none after GOAWAY, found one; the sender should retry on a new connection";
const HEAD_EVICTED: &str =
    "request head: expected the complete head before a newer connection needs the place, found none; raise max_connections";
const HEAD_INCOMPLETE: &str = "request head: expected the complete head, found a disconnect";
const NO_MEMORY: &str = "connection: expected to fit into max_in_flight and max_in_flight_per_address, found no room for its frames \
                         and streams; raise the exceeded limit";
const HEAD_TOO_SLOW: &str = "request head: expected the complete head before the idle timeout, found a part of it";

/// Flow-control window of a stream and of a connection: the maximum number of bytes that the client may send before the
/// server reads them.
const FLOW_CONTROL_BYTES: u32 = 1 << 20;

/// Bytes that HTTP/2 adds to the size of each header field (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;

/// Number of pseudo-header fields in a request: `:method`, `:scheme`, `:authority` and `:path`.
const PSEUDO_FIELDS: usize = 4;

/// Room for the names and values of the pseudo-header fields. `max_header_size` counts only the value of `:path`.
const PSEUDO_FIELD_BYTES: usize = 1024;

/// Time between the announcement that a connection ends, and the GOAWAY after which h2 ignores new requests.
const GOAWAY_GRACE: Duration = Duration::from_millis(250);

/// Limit on the number of streams that a client resets before hyper has accepted them. hyper closes a connection that
/// exceeds this limit (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
