//! Serves one request from its head to its response, and rejects an unacceptable request as early as possible.
//!
//! The server checks the path, the method, the signature header and the announced length before it reads the body. A
//! rejection at this point is immediate, and the client receives no `100 Continue`: hyper sends `100 Continue` only
//! when the server first polls the body. After the last byte has arrived, there is no check for a disconnect until
//! [`Gateway::receive`](crate::gateway::Gateway::receive) has passed the event to the journal, and no suspension point except the
//! wait for the turn of a limited address. Therefore hookhold completes a delivery even if its sender disconnects after the last
//! byte.

use std::fmt;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, Uri, Version};
use hyper::body::{Body, Incoming};
use tokio::select;
use tokio::time::{Instant, sleep, timeout_at};

use super::body::{self, BodyReader};
use super::deadline::Arrival;
use super::head::{self, PresentedCertificate, RequestHead, judge_head, judge_route};
use super::peer::RequestContext;
use super::request_cost::{REQUEST_BYTES, max_requests};
use super::request_slot::RequestSlot;
use super::response::{ResponseBody, head_too_large, respond};
use super::state::ServerState;
use crate::answer::Answer;
use crate::event::Delivery;
use crate::gateway::{Gateway, LiveSource};
use crate::in_flight::InFlightCharge;
use crate::limits::ServerLimits;
use crate::log::escaped;
use crate::outcome::Outcome;
use crate::sender_standing::{DeliveryTerms, SenderStanding};
use crate::source::Source;
use crate::work_turns::WorkKind;

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
/// response. Takes the fields out of `head`.
///
/// The future is boxed for each request, and moving a future copies all its bytes, so it must stay small: the caller owns the large
/// arguments, and the futures of rare cases are boxed.
pub(super) async fn serve(
    mut slot: RequestSlot,
    context: &RequestContext,
    arrival: Arrival,
    head: &mut Parts,
    body: &mut Incoming,
) -> Result<Response<ResponseBody>, SenderDisconnected> {
    let (slot_bytes, state) = (slot.hand_over(), slot.state());
    let (version, is_head) = (head.version, head.method == Method::HEAD);
    let live = match state.gateway.get() {
        Some(gateway) => state.live_source(gateway, head),
        None => Box::pin(state.wait_for_gateway(context, arrival, head)).await,
    };
    let outcomes =
        live.as_ref().map_or_else(|_| state.outcomes.no_source.clone(), |live| state.outcomes.source(&live.source.name));
    let pending = outcomes.start(context.remote, arrival.at);
    let mut charge = InFlightCharge::new(slot.budget(), context.sender.in_flight(arrival.at));
    let charged = charge
        .add_request(slot_bytes)
        .or_else(|_| state.unfinished_bodies.make_room_in_address(context.sender.address(), charge.address()));
    // A connection on which a malformed head arrived closes after the response, because its next bytes may be a part of the same
    // request. The server reads no further byte of this request, so its progress never becomes complete.
    let is_malformed = live.as_ref().is_err_and(|rejected| rejected.outcome == Outcome::BadRequest);
    if body.is_end_stream() && !is_malformed {
        context.progress.request_complete(state.limits.request_deadline);
    }
    let answer = match (live, charged) {
        (Err(rejected), _) => rejected,
        (Ok(live), Err(_)) => live.source.apply_shadow(Answer::rate_limited(RETRY_AFTER).with_hint(TOO_MANY_FROM_ADDRESS)),
        (Ok(live), Ok(())) => {
            live.source.apply_shadow(state.receive(&live, context, arrival, head, &mut *body, &mut charge).await)
        }
    };
    let (mut now, work) = (Instant::now(), charge.work());
    outcomes.count_received(charge.received());
    pending.record(&answer, now);
    context.sender.record(answer.outcome, work, now);
    let delay = context.sender.pace(answer.outcome, work, now);
    if !delay.is_zero() {
        drop(take_fields(head));
        charge.shrink(REQUEST_BYTES);
        let unread = (version == Version::HTTP_2 && !is_malformed).then_some(body);
        Box::pin(state.delay_answer(context, delay, unread)).await;
        now = Instant::now();
    }
    let close = context.progress.response_ready(now, context.is_trusted(now));
    match answer.outcome {
        Outcome::Disconnected => Err(SenderDisconnected),
        _ => {
            let mut response = respond(answer, is_head, version < Version::HTTP_2 && close);
            response.body_mut().take_charge(&mut charge);
            Ok(response)
        }
    }
}

impl ServerState {
    /// Returns the source whose path matches the request. The error is the [`Answer`] to a request whose path matches
    /// no source, whose head is malformed, or whose HTTP/2 head is too large.
    pub(super) fn live_source(&self, gateway: &Gateway, head: &Parts) -> Result<Arc<LiveSource>, Answer> {
        head::check_form(head)?;
        if head.version == Version::HTTP_2 && head::is_too_large(head, &self.limits) {
            return Err(head_too_large());
        }
        gateway.live_source(head.uri.path()).ok_or_else(|| unknown_source(&head.uri))
    }

    /// Holds a request until this process has the journal, and then returns its source. The error is the answer to a request that
    /// was not held any longer, because its deadline has passed. Meanwhile, the server reads no body, so `min_rate` does not apply.
    async fn wait_for_gateway(
        &self,
        context: &RequestContext,
        arrival: Arrival,
        head: &Parts,
    ) -> Result<Arc<LiveSource>, Answer> {
        let deadline = self.gateway.expected_deadline(head.uri.path(), self.limits.request_deadline);
        let held = context.progress.hold(deadline);
        let waited = context.progress.unless_cut(timeout_at(arrival.at + deadline, self.gateway.wait())).await;
        context.progress.end_hold(held);
        match waited {
            Ok(Ok(gateway)) => self.live_source(gateway, head),
            Ok(Err(_)) => Err(Answer::plain(Outcome::Deadline).with_hint(NO_JOURNAL)),
            Err(outcome) => Err(Answer::plain(outcome).with_hint(NO_JOURNAL)),
        }
    }

    /// Waits before the answer to a request without a genuine delivery if its address sends too many of them. If too many answers
    /// are waiting, or if hookhold evicts the connection, does not wait. `unread` is the rest of the body that h2 would store up to the flow-control window.
    async fn delay_answer(&self, context: &RequestContext, delay: Duration, unread: Option<&mut Incoming>) {
        let Ok(_permit) = self.delayed_answers.try_acquire() else { return };
        let delay = context.progress.unless_cut(async {
            select! {
                () = sleep(delay) => {}
                () = context.sender.evicted_under_request() => {}
            }
        });
        let _ = match unread {
            Some(body) => body::discard_during(body, delay).await,
            None => delay.await,
        };
    }

    async fn receive(
        &self,
        live: &Arc<LiveSource>,
        context: &RequestContext,
        arrival: Arrival,
        head: &mut Parts,
        body: &mut Incoming,
        charge: &mut InFlightCharge<'_>,
    ) -> Answer {
        let (source, address) = (&live.source, context.sender.address());
        let max_small = MAX_SMALL_BODY_BYTES.min(source.max_body);
        let is_small = body.size_hint().exact().is_some_and(|size| size <= max_small as u64);
        let mut reader = BodyReader::new(body, charge, &context.progress, &self.unfinished_bodies, address);
        let arrived = if is_small { reader.read_arrived(max_small).await } else { Ok(()) };
        let judged = match is_small && body::is_complete(reader.body) {
            true => judge_route(source, request_head(head, context, arrival, reader.body)).map(|()| source.max_body),
            false => judge_head(&live.verifier, request_head(head, context, arrival, reader.body)),
        };
        let max_body = match judged {
            Ok(max_body) => max_body,
            Err(rejected) => return self.reject_unread(source, head, context, arrival, rejected),
        };
        let deadline = source.deadline.min(self.limits.request_deadline);
        let read = match arrived {
            Ok(()) if body::is_complete(reader.body) => Ok(reader.take()),
            Ok(()) => {
                context.progress.set_deadline(deadline);
                Box::pin(reader.read(max_body)).await
            }
            Err(outcome) => Err(outcome),
        };
        let body = match read {
            Ok(body) => body,
            Err(Outcome::RateLimited) => return Answer::rate_limited(RETRY_AFTER).with_hint(context.sender.eviction_hint()),
            Err(Outcome::TooLarge) if reader.has_too_many_pieces() => {
                let rejected = Answer::plain(Outcome::TooLarge).with_hint(TOO_MANY_PIECES);
                return self.reject_unread(source, head, context, arrival, rejected);
            }
            Err(outcome) => {
                let rejected = Answer::plain(outcome).with_hint(unread_body_hint(outcome, max_body, source));
                return self.reject_unread(source, head, context, arrival, rejected);
            }
        };
        context.progress.request_complete(deadline);
        // If the sender's address is limited, the delivery waits for a turn.
        let _waiting = context.sender.wait();
        let deadline = arrival.at + deadline;
        let standing = match self.standing(context, body.len(), arrival.at) {
            Some(standing) => Ok(standing),
            None => Box::pin(self.wait_for_turn(context, body.len(), charge, deadline)).await,
        };
        let terms = match standing {
            Ok(standing) => DeliveryTerms { standing, deadline },
            Err(answer) => return answer,
        };
        let (sender, size) = (context.sender.clone(), charge.received());
        let unanswered = move |outcome, work: usize| sender.record(outcome, size.max(work), Instant::now());
        let delivery = delivery(head, body, context, arrival);
        // Pin the future here instead of moving it into `unless_cut`.
        let Some(gateway) = self.gateway.get() else { return Answer::plain(Outcome::Overloaded).with_hint(NO_JOURNAL) };
        let received = pin!(gateway.receive(live, delivery, terms, charge, unanswered));
        context.progress.unless_cut(received).await.unwrap_or_else(cut_while_storing)
    }

    /// Returns the standing of the sender of a request that started at `arrival`. `None` if its address is limited, so that the
    /// verification of a body of `bytes` bytes must wait for a turn.
    fn standing(&self, context: &RequestContext, bytes: usize, arrival: Instant) -> Option<SenderStanding> {
        let sender = &context.sender;
        if sender.is_known_good(arrival) {
            return Some(SenderStanding::KnownGood);
        }
        (!sender.needs_turn(WorkKind::of_body(bytes), arrival)).then_some(SenderStanding::Unknown)
    }

    /// Waits for a turn to verify a body of `bytes` bytes, and returns the standing of the sender. The error is the answer to a
    /// delivery that gets no turn in time. Meanwhile, the delivery may have to make room for another one.
    async fn wait_for_turn(
        &self,
        context: &RequestContext,
        bytes: usize,
        charge: &mut InFlightCharge<'_>,
        deadline: Instant,
    ) -> Result<SenderStanding, Answer> {
        let (sender, kind) = (&context.sender, WorkKind::of_body(bytes));
        let guard = self.unfinished_bodies.add(sender.address(), charge);
        let turn = select! {
            biased;
            turn = context.progress.unless_cut(timeout_at(deadline, sender.turn(kind))) => turn,
            () = guard.evicted() => Err(Outcome::RateLimited),
            () = sender.evicted_under_request() => Err(Outcome::RateLimited),
        };
        match turn {
            Ok(Ok(Ok(turn))) => Ok(turn.map_or(SenderStanding::Unknown, SenderStanding::Limited)),
            Err(Outcome::RateLimited) => {
                charge.release();
                Err(Answer::rate_limited(RETRY_AFTER).with_hint(sender.eviction_hint()))
            }
            Ok(_) => {
                let hint = format!("{NO_TURN}; the last rejection was {}", sender.last_rejection().word());
                Err(Answer::rate_limited(RETRY_AFTER).with_hint(hint))
            }
            Err(outcome) => Err(Answer::plain(outcome).with_hint(TURN_CUT)),
        }
    }

    /// Stores a rejected request, so that `hookhold doctor` can explain the rejection. Omits the body, because the
    /// server did not read the body completely. Returns `rejected` unchanged.
    fn reject_unread(
        &self,
        source: &Source,
        head: &mut Parts,
        context: &RequestContext,
        arrival: Arrival,
        rejected: Answer,
    ) -> Answer {
        if let Some(rejections) = self.gateway.get().map(|gateway| gateway.rejections()).filter(|rejections| rejections.is_on()) {
            let delivery = delivery(head, Bytes::new(), context, arrival);
            rejections.store(&source.name, &source.recipe.credentials, &delivery, &rejected);
        }
        rejected
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

/// Takes the fields of a request head out of `head`, and returns them as a delivery with this body.
fn delivery(head: &mut Parts, body: Bytes, context: &RequestContext, arrival: Arrival) -> Delivery {
    let target = target(head);
    let (method, headers) = take_fields(head);
    Delivery { target, method, headers, body, remote: context.remote, received_at: arrival.wall }
}

/// Takes everything out of a request head that may occupy much memory.
fn take_fields(head: &mut Parts) -> (Method, HeaderMap) {
    head.uri = Uri::default();
    (mem::take(&mut head.method), mem::take(&mut head.headers))
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

/// `Retry-After` value for a sender whose address has used up its in-flight budget or its turns. Nearly all request bodies arrive
/// completely within this time.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const TOO_MANY_FROM_ADDRESS: &str = "requests under way: expected at most three eighths of max_requests and of max_in_flight from an \
                                     unknown address, found more; raise both limits for a genuine sender";
const NO_TURN: &str = "rejected deliveries from this address: expected fewer than max_rejected_per_address, found that number, and \
                       no turn for the next verification before its deadline; remove the cause";
const TURN_CUT: &str = "turn of a limited address: expected before the drain deadline, found none; the sender should retry";

const NO_JOURNAL: &str = "hand-over: expected the journal from the previous process before the deadline, found it still open there; see \
                          the log of that process";

const BODY_TOO_SLOW: &str =
    "body: expected within the source's deadline at min_rate or faster, found a slower body; lower min_rate for a genuine sender";
const TOO_MANY_PIECES: &str = "body: expected at most 16384 chunks and one more for each 128 B, found more; send larger chunks";
const BODY_MALFORMED: &str =
    "body: expected valid chunks, or the length in content-length, found another framing; correct the framing at the sender";
const BODY_CUT: &str =
    "body: expected the complete body before the drain deadline, found a part; raise drain_deadline to at least request_deadline";
const EVENT_CUT: &str =
    "event: expected a sync before the drain deadline, found none; raise drain_deadline to at least request_deadline";

/// Returns the maximum number of answers that are delayed at the same time. Their requests stay under way, so they may use up only a
/// part of the limits on requests.
pub(super) fn max_delayed_answers(limits: &ServerLimits) -> usize {
    MAX_DELAYED_ANSWERS.min(max_requests(limits) / DELAYED_PART)
}

const MAX_DELAYED_ANSWERS: usize = 4_096;

/// Divisor of the number of requests that fit into the limits, for the maximum number of delayed answers.
const DELAYED_PART: usize = 4;

/// Maximum size of a body whose signature header the server does not check before the verification if the body has arrived
/// together with the head. The check would parse the header twice. At most the maximum size of an unsigned challenge, so the
/// outcome does not depend on the time at which the body arrives.
const MAX_SMALL_BODY_BYTES: usize = 16 * 1024;
