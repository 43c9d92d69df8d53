//! Serves one request from its head to its response, and rejects an unacceptable request as early as possible.
//!
//! The server checks the path, the method, the signature header and the announced length before it reads the body. A
//! rejection at this point is immediate, and the client receives no `100 Continue`: hyper sends `100 Continue` only
//! when the server first polls the body. After the last byte has arrived, there is no suspension point and no check for
//! a disconnect until [`Gateway::receive`](crate::gateway::Gateway::receive) has passed the event to the journal.
//! Therefore hookhold completes a delivery even if its sender disconnects after the last byte.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Response, Uri, Version};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, sleep};

use super::body::{self, BodyBuffer};
use super::deadline::Arrival;
use super::head::{self, PresentedCertificate, RequestHead, judge_head, judge_route};
use super::peer::RequestContext;
use super::response::{head_too_large, respond};
use super::state::ServerState;
use crate::answer::Answer;
use crate::event::Delivery;
use crate::gateway::LiveSource;
use crate::in_flight::InFlightCharge;
use crate::log::escaped;
use crate::outcome::Outcome;
use crate::source::Source;

/// Error for a request whose sender disconnected before sending the last byte. hookhold sends no response to this
/// request.
#[derive(Debug)]
pub(super) struct SenderDisconnected;

impl fmt::Display for SenderDisconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("request: expected the complete body, found a disconnect")
    }
}

impl std::error::Error for SenderDisconnected {}

/// Serves one request and returns its response. Records the outcome of the request once, before hyper sends the
/// response.
pub(super) async fn serve(
    state: Arc<ServerState>,
    mut context: RequestContext,
    head: Parts,
    body: &mut Incoming,
) -> Result<Response<Full<Bytes>>, SenderDisconnected> {
    let arrival = context.progress.head_complete();
    if context.is_trusted_proxy {
        context.apply_forwarded_for(&state, &head.headers);
    }
    let (version, is_head) = (head.version, head.method == Method::HEAD);
    let live = state.live_source(&head);
    let outcomes =
        live.as_ref().map_or_else(|_| state.outcomes.no_source.clone(), |live| state.outcomes.source(&live.source.name));
    let pending = outcomes.start(context.remote, arrival.at);
    let mut charge = InFlightCharge::new(&state.in_flight, context.sender.in_flight());
    // A connection on which a malformed head arrived closes after the response, because its next bytes may be a part of the same
    // request. The server reads no further byte of this request, so its progress never becomes complete.
    let is_malformed = live.as_ref().is_err_and(|rejected| rejected.outcome == Outcome::BadRequest);
    if body.is_end_stream() && !is_malformed {
        context.progress.request_complete();
    }
    let unread = if is_malformed { None } else { Some(&mut *body) };
    let limited = state.reject_limited_sender(&context, arrival, unread, &mut charge).await;
    let answer = match (live, limited) {
        (Err(rejected), limited) => limited.unwrap_or(rejected),
        (Ok(live), Some(limited)) => live.source.apply_shadow(limited),
        (Ok(live), None) => live.source.apply_shadow(state.receive(&live, &context, arrival, head, body, &mut charge).await),
    };
    let now = Instant::now();
    pending.record(&answer, now);
    context.sender.record(answer.outcome, charge.work(), now);
    let close = context.progress.response_ready(now, context.is_trusted(now));
    match answer.outcome {
        Outcome::Disconnected => Err(SenderDisconnected),
        _ => Ok(respond(answer, is_head, version < Version::HTTP_2 && close)),
    }
}

impl ServerState {
    /// Returns the source whose path matches the request. The error is the [`Answer`] to a request whose path matches
    /// no source, whose head is malformed, or whose HTTP/2 head is too large.
    fn live_source(&self, head: &Parts) -> Result<Arc<LiveSource>, Answer> {
        head::check_form(head)?;
        if head.version == Version::HTTP_2 && head::is_too_large(head, &self.limits) {
            return Err(head_too_large());
        }
        self.gateway.live_source(head.uri.path()).ok_or_else(|| unknown_source(&head.uri))
    }

    /// Returns the `rate_limited` answer after a short delay if the sender's address is rate-limited; otherwise returns
    /// `None` immediately. `body` is `None` if the server must not read the body.
    async fn reject_limited_sender(
        &self,
        context: &RequestContext,
        arrival: Arrival,
        body: Option<&mut Incoming>,
        charge: &mut InFlightCharge<'_>,
    ) -> Option<Answer> {
        let limited = context.sender.limited(arrival.at)?;
        if let Some(body) = body {
            self.discard_small_body(body, context, charge).await;
        }
        let _ = context.progress.unless_cut(sleep(RATE_LIMITED_DELAY)).await;
        Some(limited)
    }

    async fn receive(
        &self,
        live: &Arc<LiveSource>,
        context: &RequestContext,
        arrival: Arrival,
        head: Parts,
        body: &mut Incoming,
        charge: &mut InFlightCharge<'_>,
    ) -> Answer {
        let source = &live.source;
        let max_small = MAX_SMALL_BODY_BYTES.min(source.max_body);
        let is_small = body.size_hint().exact().is_some_and(|size| size <= max_small as u64);
        let arrived = match is_small {
            true => body::read_arrived(body, max_small, charge, &context.progress).await,
            false => Ok(BodyBuffer::Empty),
        };
        let judged = match is_small && body::is_complete(body) {
            true => judge_route(source, request_head(&head, context, arrival, body)).map(|()| source.max_body),
            false => judge_head(&live.verifier, request_head(&head, context, arrival, body)),
        };
        let max_body = match judged {
            Ok(max_body) => max_body,
            Err(rejected) => return self.reject_unread(source, head, context, arrival, rejected),
        };
        let deadline = source.deadline.min(self.limits.request_deadline);
        context.progress.set_deadline(deadline);
        let read = match arrived {
            Ok(arrived) => body::read(body, arrived, max_body, charge, &context.progress).await,
            Err(outcome) => Err(outcome),
        };
        let body = match read {
            Ok(body) => body,
            Err(Outcome::RateLimited) => {
                return Answer::rate_limited(IN_FLIGHT_RETRY_AFTER).with_hint(ADDRESS_IN_FLIGHT_USED);
            }
            Err(outcome) => {
                let rejected = Answer::plain(outcome).with_hint(unread_body_hint(outcome, max_body, source));
                return self.reject_unread(source, head, context, arrival, rejected);
            }
        };
        context.progress.request_complete();
        let delivery = delivery(head, body, context, arrival);
        let (sender, size) = (context.sender.clone(), charge.received());
        let unanswered = move |outcome, work: usize| sender.record(outcome, size.max(work), Instant::now());
        // The future is large, so pin it here instead of moving it into `unless_cut`.
        let received = pin!(self.gateway.receive(live, delivery, charge, arrival.at + deadline, unanswered));
        context.progress.unless_cut(received).await.unwrap_or_else(cut_while_storing)
    }

    /// Stores a rejected request, so that `hookhold doctor` can explain the rejection. Omits the body, because the
    /// server did not read the body completely. Returns `rejected` unchanged.
    fn reject_unread(
        &self,
        source: &Source,
        head: Parts,
        context: &RequestContext,
        arrival: Arrival,
        rejected: Answer,
    ) -> Answer {
        let rejections = self.gateway.rejections();
        if rejections.limit() > 0 {
            let delivery = delivery(head, Bytes::new(), context, arrival);
            rejections.store(&source.name, &source.recipe.credentials, &delivery, &rejected);
        }
        rejected
    }

    /// Reads and discards a small body, so that the connection can stay open. Closing the connection would cost more,
    /// because the sender would have to repeat the handshake.
    async fn discard_small_body(&self, body: &mut Incoming, context: &RequestContext, charge: &mut InFlightCharge<'_>) {
        let is_small = body.size_hint().upper().is_some_and(|size| size <= MAX_DISCARDED_BODY_BYTES as u64);
        if is_small && body::read(body, BodyBuffer::Empty, MAX_DISCARDED_BODY_BYTES, charge, &context.progress).await.is_ok() {
            context.progress.request_complete();
        }
    }
}

fn request_head<'a>(head: &'a Parts, context: &'a RequestContext, arrival: Arrival, body: &Incoming) -> RequestHead<'a> {
    let certificate = context.certificate.as_deref();
    RequestHead {
        certificate: certificate.map_or(PresentedCertificate::None, |known| PresentedCertificate::Some(known, arrival.wall)),
        method: &head.method,
        target: head.uri.path_and_query().map_or("", PathAndQuery::as_str),
        headers: &head.headers,
        sender: Some(context.remote.ip()),
        content_length: body.size_hint().exact(),
    }
}

fn delivery(head: Parts, body: Bytes, context: &RequestContext, arrival: Arrival) -> Delivery {
    Delivery {
        target: target(&head),
        method: head.method,
        headers: head.headers,
        body,
        remote: context.remote,
        received_at: arrival.wall,
    }
}

fn unknown_source(uri: &Uri) -> Answer {
    Answer::plain(Outcome::UnknownSource)
        .with_hint(format!("path: expected the path of a source, found {}; correct the URL at the sender", escaped(uri.path())))
}

fn unread_body_hint(outcome: Outcome, max_body: usize, source: &Source) -> String {
    match outcome {
        Outcome::TooLarge if max_body < source.max_body => format!(
            "body: expected at most {max_body} bytes in a request without a proof, found more; configure a secret in the sender's \
             dashboard"
        ),
        Outcome::TooLarge => format!(
            "body: expected at most {max_body} bytes (max_body of this source), found more; raise max_body for a genuine sender"
        ),
        Outcome::Overloaded => "bodies in flight: expected at most max_in_flight, found more; raise max_in_flight".to_owned(),
        Outcome::TooSlow => BODY_TOO_SLOW.to_owned(),
        Outcome::Draining => BODY_CUT.to_owned(),
        Outcome::BadRequest => BODY_MALFORMED.to_owned(),
        _ => SenderDisconnected.to_string(),
    }
}

/// Returns the [`Answer`] to a request that ended with `outcome` while the journal was storing the event. The journal
/// may still store the event.
fn cut_while_storing(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Draining => Answer::plain(Outcome::Draining).with_hint(EVENT_CUT),
        _ => Answer::plain(Outcome::Deadline),
    }
}

/// Returns the request target exactly as in the HTTP/1.1 request line or in HTTP/2's `:path`.
fn target(head: &Parts) -> String {
    match head.uri.path_and_query() {
        Some(target) if head.uri.authority().is_none() || head.version == Version::HTTP_2 => target.as_str().to_owned(),
        _ => head.uri.to_string(),
    }
}

/// `Retry-After` value for a sender whose address has used up its in-flight budget. Nearly all request bodies arrive
/// completely within this time.
const IN_FLIGHT_RETRY_AFTER: Duration = Duration::from_secs(5);
const ADDRESS_IN_FLIGHT_USED: &str =
    "bodies in flight: expected at most max_in_flight_per_address, found more; raise the limit for a genuine sender";

const BODY_TOO_SLOW: &str =
    "body: expected within the source's deadline at min_rate or faster, found a slower body; lower min_rate for a genuine sender";
const BODY_MALFORMED: &str =
    "body: expected valid chunks, or the length in content-length, found another framing; correct the framing at the sender";
const BODY_CUT: &str =
    "body: expected the complete body before the drain deadline, found a part; raise drain_deadline to at least request_deadline";
const EVENT_CUT: &str =
    "event: expected a sync before the drain deadline, found none; raise drain_deadline to at least request_deadline";

/// Delay before a `rate_limited` response. A sender that waits for each response can therefore send at most ten
/// requests per second on each connection, so enough CPU time remains for other senders.
const RATE_LIMITED_DELAY: Duration = Duration::from_millis(100);

const MAX_DISCARDED_BODY_BYTES: usize = 16 * 1024;

/// Maximum size of a body whose signature header the server does not check before the verification if the body has arrived
/// together with the head. The check would parse the header twice. At most the maximum size of an unsigned challenge, so the
/// outcome does not depend on the time at which the body arrives.
const MAX_SMALL_BODY_BYTES: usize = 16 * 1024;
