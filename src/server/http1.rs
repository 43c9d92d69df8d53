//! One connection: hyper speaks HTTP, this file keeps the time, follows the stop, and answers where hyper would be silent.
//!
//! What hyper refuses by itself (a head that it cannot read or that is too long) never becomes a request, so it is counted
//! here, under `source="-"`. So are a head that does not come in time, and a sender that leaves in the middle of it.
//! Half-closed connections stay open for their answer, and while a request is being kept the socket is not read at all:
//! nothing that a sender does after its last byte can stop the receipt.

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

use super::close::{LINGER, close};
use super::deadline::{Progress, Stage};
use super::io::Wire;
use super::peer::{Caller, Peer};
use super::request;
use super::response::{bare, head_too_large};
use super::shutdown::Phase;
use super::state::ServerState;
use crate::answer::Answer;
use crate::limits::ServerLimits;
use crate::outcome::Outcome;

/// How driving a connection ended.
enum End {
    /// hyper is done with it.
    Http(hyper::Result<()>),
    /// No request came, or its head was not complete in time.
    Late,
}

/// Serves one connection until it is closed. True when there was a request, or the refusal of one.
pub(super) async fn serve<S>(stream: S, peer: Peer, desk: Arc<ServerState>, mut phases: watch::Receiver<Phase>) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let caller = Caller::new(peer, &desk);
    let progress = &caller.progress;
    let service = service_fn(|request: Request<Incoming>| {
        let (desk, caller, (head, mut body)) = (desk.clone(), caller.clone(), request.into_parts());
        async move { request::answer(desk, caller, head, &mut body).await }
    });
    let mut connection = http(&desk.limits).serve_connection(TokioIo::new(Wire::new(stream, progress.clone())), service);
    let mut timer = pin!(sleep_until(progress.due()));
    let end = loop {
        select! {
            biased;
            _ = phases.changed() => match *phases.borrow_and_update() {
                Phase::Serving | Phase::Leaving => {}
                Phase::Draining => progress.leave(QUIET),
                Phase::Cut | Phase::Now => progress.cut(Outcome::Draining),
            },
            result = &mut connection => break End::Http(result),
            () = progress.overdue(timer.as_mut()) => match progress.stage() {
                Stage::Body | Stage::Complete => progress.cut(Outcome::TooSlow),
                Stage::Idle | Stage::Head => break End::Late,
            },
        }
    };
    let parts = connection.into_parts();
    let half_a_head = progress.stage() == Stage::Head || !parts.read_buf.trim_ascii().is_empty();
    let stray = stray(&end, progress, half_a_head);
    if let Some(answer) = &stray {
        let now = Instant::now();
        desk.tallies.stray.open(caller.remote, progress.arrival().at).close(answer, now);
        caller.visit.note(answer.outcome, 0, now);
    }
    let unheard = stray.filter(|answer| answer.outcome != Outcome::Disconnected);
    let asked = progress.asked() || unheard.is_some();
    let unread = progress.unread() || unheard.is_some();
    let hyper_spoke = matches!(end, End::Http(_)) && progress.wrote();
    let words = unheard.filter(|_| !hyper_spoke).map(|answer| bare(&answer, desk.clock.now()));
    let linger = if *phases.borrow() >= Phase::Cut { Duration::ZERO } else { LINGER };
    close(parts.io.into_inner().into_stream(), words, unread, linger).await;
    asked
}

fn http(limits: &ServerLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // The head's deadline is ours (`Progress`): hyper's also runs while a connection is idle.
    http.half_close(true).header_read_timeout(None).max_header_size(limits.max_header_size);
    // An answer is so small that copying its two parts together costs less than a vectored write.
    http.writev(false).max_buf_size(BUFFER_LIMIT.max(2 * limits.max_header_size));
    if limits.max_headers != HYPERS_MAX_HEADERS {
        http.max_headers(limits.max_headers); // costs an allocation per request, the default does not
    }
    http
}

/// How a request ended that never became one; `None` when there was none.
fn stray(end: &End, progress: &Progress, half_a_head: bool) -> Option<Answer> {
    match end {
        End::Http(Ok(())) => None,
        End::Http(Err(error)) if error.is_parse_too_large() => Some(head_too_large()),
        End::Http(Err(error)) if error.is_parse() => Some(Answer::plain(Outcome::BadRequest).with_hint(error.to_string())),
        End::Http(Err(_)) if progress.unread() => None,
        End::Http(Err(error)) if progress.stage() == Stage::Head || error.is_incomplete_message() => {
            Some(Answer::plain(Outcome::Disconnected).with_hint("the sender left within the request head"))
        }
        End::Http(Err(_)) => None,
        End::Late if !half_a_head => None,
        End::Late if progress.is_cut() => {
            Some(Answer::plain(Outcome::Draining).with_hint("the request head was not complete at the drain deadline"))
        }
        End::Late => Some(
            Answer::plain(Outcome::TooSlow)
                .with_hint("the request head was not complete in time, or came more slowly than min_rate"),
        ),
    }
}

/// What hyper takes without being asked, on the stack.
const HYPERS_MAX_HEADERS: usize = 100;

/// Bytes that hyper holds for one connection beyond what the in-flight budget counts.
const BUFFER_LIMIT: usize = 64 * 1024;

/// How long a connection must have been silent to be closed as idle in a drain. hyper's own graceful shutdown closes it at
/// once, also when a request is already on its way; the sender would find it lost.
const QUIET: Duration = Duration::from_millis(250);
