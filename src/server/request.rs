//! One request, from its head to its answer, in the order in which it can be refused.
//!
//! Path, method, signature header and announced length are judged before the body is read, so such a refusal waits for
//! nothing and never invites a body with `100 Continue` (hyper sends that when the body is first asked for). From the last
//! byte to the hand-over inside [`Gateway::receive`] nothing here waits, and a hang-up is not even looked for: a sender that
//! leaves after its last byte has delivered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Response, Uri, Version};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, sleep};

use super::body::{self, Charge};
use super::deadline::Arrival;
use super::head::{self, RequestHead, judge_head};
use super::peer::Caller;
use super::response::{head_too_large, respond};
use super::state::ServerState;
use crate::answer::Answer;
use crate::event::Delivery;
use crate::gateway::LiveSource;
use crate::log::escaped;
use crate::outcome::Outcome;
use crate::source::Source;

/// The sender left before its last byte: there is nobody to answer.
#[derive(Debug)]
pub(super) struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sender left before its last byte")
    }
}

impl std::error::Error for Gone {}

/// Serves one request; it is counted once, before its answer can be seen.
pub(super) async fn answer(
    desk: Arc<ServerState>,
    mut caller: Caller,
    head: Parts,
    body: &mut Incoming,
) -> Result<Response<Full<Bytes>>, Gone> {
    let arrival = caller.progress.take_up();
    if caller.trusted {
        caller.look_behind(&desk, &head.headers);
    }
    let version = head.version;
    let live = desk.live_source(&head);
    let tally = live.as_ref().map_or_else(|_| desk.tallies.stray.clone(), |live| desk.tallies.of(&live.source.name));
    let record = tally.open(caller.remote, arrival.at);
    let mut charge = Charge::new(&desk.budget, caller.visit.in_flight());
    if body.is_end_stream() {
        caller.progress.complete();
    }
    let limited = desk.put_off(&caller, arrival, body, &mut charge).await;
    let answer = match (live, limited) {
        (Err(refused), limited) => limited.unwrap_or(refused),
        (Ok(live), Some(limited)) => live.source.apply_shadow(limited),
        (Ok(live), None) => live.source.apply_shadow(desk.serve(&live, &caller, arrival, head, body, &mut charge).await),
    };
    let now = Instant::now();
    record.close(&answer, now);
    caller.visit.note(answer.outcome, charge.bytes(), now);
    let closes = caller.progress.answered(now);
    match answer.outcome {
        Outcome::Disconnected => Err(Gone),
        _ => Ok(respond(answer, version < Version::HTTP_2 && closes)),
    }
}

impl ServerState {
    /// Whose delivery it is; the error is the answer to what is nobody's.
    fn live_source(&self, head: &Parts) -> Result<Arc<LiveSource>, Answer> {
        if head.version == Version::HTTP_2 && head::is_too_large(head, &self.limits) {
            return Err(head_too_large());
        }
        self.gateway.live_source(head.uri.path()).ok_or_else(|| unknown_source(&head.uri))
    }

    /// The answer to an address that is not looked at, whatever it asks for.
    async fn put_off(&self, caller: &Caller, arrival: Arrival, body: &mut Incoming, charge: &mut Charge<'_>) -> Option<Answer> {
        let limited = caller.visit.limited(arrival.at)?;
        self.forget(body, caller, charge).await;
        let _ = caller.progress.unless_cut(sleep(LIMITED_PAUSE)).await;
        Some(limited)
    }

    async fn serve(
        &self,
        live: &LiveSource,
        caller: &Caller,
        arrival: Arrival,
        head: Parts,
        body: &mut Incoming,
        charge: &mut Charge<'_>,
    ) -> Answer {
        let source = &live.source;
        if let Err(refused) = judge_head(source, request_head(&head, caller, body)) {
            return self.without_body(source, head, caller, arrival, refused);
        }
        let deadline = source.deadline.min(self.limits.request_deadline);
        caller.progress.limit(deadline);
        let body = match body::read(body, source.max_body, charge, &caller.progress).await {
            Ok(body) => body,
            Err(Outcome::RateLimited) => return Answer::rate_limited(SHARE_PAUSE).with_hint(SHARE_USED),
            Err(outcome) => {
                let refused = Answer::plain(outcome).with_hint(why_not_read(outcome, source));
                return self.without_body(source, head, caller, arrival, refused);
            }
        };
        caller.progress.complete();
        let received = self.gateway.receive(live, delivery(head, body, caller, arrival), arrival.at + deadline);
        caller.progress.unless_cut(received).await.unwrap_or_else(not_waited_for)
    }

    /// Refuses a request of whose body nobody knows anything.
    fn without_body(&self, source: &Source, head: Parts, caller: &Caller, arrival: Arrival, refused: Answer) -> Answer {
        let rejections = self.gateway.rejections();
        if rejections.limit() > 0 {
            rejections.keep(&source.name, &delivery(head, Bytes::new(), caller, arrival), &refused);
        }
        refused
    }

    /// Reads a small body that nobody will look at: closing the connection instead would invite another handshake, which
    /// costs more.
    async fn forget(&self, body: &mut Incoming, caller: &Caller, charge: &mut Charge<'_>) {
        let small = body.size_hint().upper().is_some_and(|size| size <= FORGOTTEN as u64);
        if small && body::read(body, FORGOTTEN, charge, &caller.progress).await.is_ok() {
            caller.progress.complete();
        }
    }
}

fn request_head<'a>(head: &'a Parts, caller: &Caller, body: &Incoming) -> RequestHead<'a> {
    RequestHead {
        method: &head.method,
        target: head.uri.path_and_query().map_or("", PathAndQuery::as_str),
        headers: &head.headers,
        sender: Some(caller.remote.ip()),
        content_length: body.size_hint().exact(),
    }
}

fn delivery(head: Parts, body: Bytes, caller: &Caller, arrival: Arrival) -> Delivery {
    Delivery {
        target: target(&head),
        method: head.method,
        headers: head.headers,
        body,
        remote: caller.remote,
        received_at: arrival.wall,
    }
}

fn unknown_source(uri: &Uri) -> Answer {
    Answer::plain(Outcome::UnknownSource).with_hint(format!("no source has the path {}", escaped(uri.path())))
}

fn why_not_read(outcome: Outcome, source: &Source) -> String {
    match outcome {
        Outcome::TooLarge => format!("the body is longer than max_body of this source, {} bytes", source.max_body),
        Outcome::Overloaded => "the bodies under way fill max_in_flight".to_owned(),
        Outcome::TooSlow => "the body was not complete in time, or came more slowly than min_rate".to_owned(),
        Outcome::Draining => "the body was not complete at the drain deadline".to_owned(),
        Outcome::BadRequest => "the chunked body is malformed".to_owned(),
        _ => Gone.to_string(),
    }
}

/// The answer to a request that was cut while its event was being kept. It may be kept all the same.
fn not_waited_for(why: Outcome) -> Answer {
    match why {
        Outcome::Draining => Answer::plain(Outcome::Draining).with_hint("not yet kept at the drain deadline"),
        _ => Answer::plain(Outcome::Deadline),
    }
}

/// The target as it stood in the request line, or in HTTP/2's `:path`.
fn target(head: &Parts) -> String {
    match head.uri.path_and_query() {
        Some(target) if head.uri.authority().is_none() || head.version == Version::HTTP_2 => target.as_str().to_owned(),
        _ => head.uri.to_string(),
    }
}

/// When a sender should come again whose address has its share of bodies under way: nearly all of them end within this.
const SHARE_PAUSE: Duration = Duration::from_secs(5);
const SHARE_USED: &str = "the bodies under way from this address fill max_in_flight_per_address";

/// Before a sender that is not looked at hears so: who sends as fast as it is answered gets ten answers a second and
/// connection, and the processor is the others'.
const LIMITED_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a body that is read only to be forgotten.
const FORGOTTEN: usize = 16 * 1024;
