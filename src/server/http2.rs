//! HTTP/2: one connection, many requests at a time. Each request is a delivery with a task, a deadline and an ending of its
//! own; this file owns those tasks, closes what is idle, and says GOAWAY when the server leaves.
//!
//! hyper drops the work on a request when its client resets the stream or hangs up. A delivery that is complete must not be
//! undone by that, so the work is done in a task that hyper does not hold. ServerLimits: `max_streams` requests at a time,
//! `max_header_size` and `max_headers` for each; the bodies are counted as they arrive, as over HTTP/1.1. Streams that are
//! opened and reset at once are bounded by hyper, which then ends the connection.

use std::error::Error;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::close::LINGER;
use super::peer::{Caller, Peer};
use super::request::{self, Gone};
use super::shutdown::Phase;
use super::state::ServerState;
use super::stream_tasks::{Open, Owner, Tasks};
use crate::answer::Answer;
use crate::limits::ServerLimits;
use crate::outcome::Outcome;

/// Serves one connection until it is closed and every request on it has ended. True when there was one, or its refusal.
pub(super) async fn serve<S>(stream: S, peer: Peer, desk: Arc<ServerState>, phases: watch::Receiver<Phase>) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let began = Instant::now();
    let owner = Owner(Tasks::new(&desk.limits));
    let result = drive(stream, peer.clone(), &desk, &owner.0, phases).await;
    let mut asked = owner.0.asked();
    if let Err(error) = result
        && !is_io(&error)
    {
        let answer = Answer::plain(Outcome::BadRequest).with_hint(format!("HTTP/2: {}", cause(&error)));
        let now = Instant::now();
        desk.tallies.stray.open(peer.remote, began).close(&answer, now);
        peer.visit.note(answer.outcome, 0, now);
        asked = true;
    }
    owner.0.ended().await;
    asked
}

async fn drive<S>(
    stream: S,
    peer: Peer,
    desk: &Arc<ServerState>,
    tasks: &Tasks,
    mut phases: watch::Receiver<Phase>,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn({
        let (desk, tasks, phases) = (desk.clone(), tasks.clone(), phases.clone());
        move |request| answer(&tasks, desk.clone(), peer.clone(), phases.clone(), request)
    });
    let connection = http(&desk.limits, tasks.clone()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut leaving = false;
    loop {
        let leave = select! {
            biased;
            _ = phases.changed() => *phases.borrow_and_update() >= Phase::Draining,
            result = connection.as_mut() => return result,
            () = tasks.idle() => {
                if leaving {
                    return Ok(());
                }
                true
            }
        };
        if leave && !leaving {
            leaving = true;
            tasks.leave();
            connection.as_mut().graceful_shutdown();
        }
    }
}

fn http(limits: &ServerLimits, tasks: Tasks) -> http2::Builder<Tasks> {
    let mut http = http2::Builder::new(tasks);
    http.timer(TokioTimer::new());
    http.max_concurrent_streams(limits.max_streams as u32);
    http.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    http.max_header_list_size(header_list(limits).try_into().unwrap_or(u32::MAX));
    http.max_pending_accept_reset_streams(RESETS);
    http
}

/// Bytes of a head as HTTP/2 counts them. Whatever is within our limits is within this; what is up to twice as large is answered
/// and counted by us. Beyond that the library answers 431 by itself, and nobody hears of it.
fn header_list(limits: &ServerLimits) -> usize {
    2 * limits.max_header_size + PER_FIELD * (limits.max_headers + PSEUDO_FIELDS)
}

fn answer(
    tasks: &Tasks,
    desk: Arc<ServerState>,
    peer: Peer,
    phases: watch::Receiver<Phase>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Full<Bytes>>, Gone>> + use<> {
    let (tell, told) = oneshot::channel();
    let open = Open::new(tasks.clone());
    let (head, mut body) = request.into_parts();
    tasks.spawn(async move {
        let answer = in_time(desk, peer, phases, head, &mut body).await;
        drop(open);
        let _ = tell.send(answer);
        // Dropping what is still coming would reset the stream, and clients that are sending take that for the answer.
        let _ = timeout(LINGER, async { while let Some(Ok(_)) = body.frame().await {} }).await;
    });
    async { told.await.unwrap_or(Err(Gone)) }
}

/// Answers one request by its deadline, and by that of a drain.
async fn in_time(
    desk: Arc<ServerState>,
    peer: Peer,
    mut phases: watch::Receiver<Phase>,
    head: Parts,
    body: &mut Incoming,
) -> Result<Response<Full<Bytes>>, Gone> {
    let caller = Caller::new(peer, &desk);
    let progress = caller.progress.clone();
    let mut timer = std::pin::pin!(sleep_until(progress.due()));
    let mut answer = std::pin::pin!(request::answer(desk.clone(), caller, head, body));
    phases.mark_changed();
    loop {
        select! {
            biased;
            _ = phases.changed() => if *phases.borrow_and_update() >= Phase::Cut {
                progress.cut(Outcome::Draining);
            },
            answered = &mut answer => return answered,
            () = progress.overdue(timer.as_mut()) => progress.cut(Outcome::TooSlow),
        }
    }
}

/// True when the connection broke, which says nothing about what was sent.
fn is_io(error: &hyper::Error) -> bool {
    error.source().is_some_and(|cause| cause.is::<io::Error>())
}

fn cause(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| crate::log::escaped(&cause.to_string()))
}

/// Bytes that a client may send before hyper has handed them on; they are handed on as they come.
const WINDOW: u32 = 1 << 20;

/// What HTTP/2 adds to the size of each field (RFC 9113, section 6.5.2).
const PER_FIELD: usize = 32;

/// `:method`, `:scheme`, `:authority` and `:path`.
const PSEUDO_FIELDS: usize = 4;

/// Streams that were reset and not yet forgotten, before a connection is ended for it (CVE-2023-44487).
const RESETS: usize = 20;
