//! One request, from its head to its answer, in the order in which it can be refused.
//!
//! Path, method, signature header and announced length are judged before the body is read, so such a refusal waits for
//! nothing and never invites a body with `100 Continue` (hyper sends that when the body is first asked for). From the last
//! byte to the hand-over inside [`Gateway::receive`] nothing here waits, and a hang-up is not even looked for: a sender that
//! leaves after its last byte has delivered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Response, StatusCode, Uri, Version};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, sleep};

use super::Limits;
use super::body::{self, Budget, Charge};
use super::head::{RequestHead, judge_head};
use super::http2;
use super::outcome_log::Tallies;
use super::proxies::Proxies;
use super::sender_limits::{SenderGuard, SenderLimits};
use super::tls::Tls;
use super::wire::{Arrival, Progress};
use crate::answer::Answer;
use crate::clock::Clock;
use crate::event::Delivery;
use crate::gateway::{Gateway, LiveSource};
use crate::log::escaped;
use crate::outcome::Outcome;
use crate::source::Source;

/// What every request needs.
pub(super) struct ServerState {
    pub gateway: Arc<Gateway>,
    pub limits: Limits,
    pub clock: Arc<dyn Clock>,
    pub tallies: Tallies,
    pub budget: Budget,
    pub strangers: Arc<SenderLimits>,
    pub tls: Option<Tls>,
    pub proxies: Proxies,
}

/// The other end of a connection, or for whom it speaks.
#[derive(Clone)]
pub(super) struct Peer {
    pub remote: SocketAddr,
    pub visit: Arc<SenderGuard>,
    /// Its forwarding headers are believed.
    trusted: bool,
}

impl Peer {
    /// `None` when the address has as many connections as it may have. A trusted proxy may have any number: it brings those
    /// of everybody.
    pub(super) fn connect(remote: SocketAddr, desk: &ServerState) -> Option<Peer> {
        let (trusted, address) = (desk.proxies.trust(remote.ip()), remote.ip());
        let visit = if trusted { desk.strangers.visit(address) } else { desk.strangers.connect(address)? };
        Some(Peer { remote, visit: Arc::new(visit), trusted })
    }

    /// True when its connection is not worth a TLS handshake at this moment.
    pub(super) fn is_turned_away(&self) -> bool {
        !self.trusted && self.visit.is_turned_away(Instant::now())
    }

    /// Its TLS handshake was for nothing. A proxy's are not its own fault.
    pub(super) fn came_for_nothing(&self) {
        if !self.trusted {
            self.visit.came_for_nothing();
        }
    }
}

/// Where a request came from and how far it has come.
#[derive(Clone)]
pub(super) struct Caller {
    /// The address that counts: it is logged, kept and limited.
    pub remote: SocketAddr,
    pub visit: Arc<SenderGuard>,
    pub progress: Arc<Progress>,
    trusted: bool,
}

impl Caller {
    pub(super) fn new(peer: Peer, desk: &ServerState) -> Caller {
        let Peer { remote, visit, trusted } = peer;
        Caller { remote, visit, progress: Progress::new(desk.clock.clone(), &desk.limits), trusted }
    }

    /// Becomes the one for whom a trusted proxy has sent this request.
    fn look_behind(&mut self, desk: &ServerState, headers: &HeaderMap) {
        let client = desk.proxies.client(self.remote, headers);
        if client != self.remote {
            self.remote = client;
            self.visit = Arc::new(desk.strangers.visit(client.ip()));
        }
    }
}

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
    let source = desk.source(&head);
    let tally = source.as_ref().map_or_else(|_| desk.tallies.stray.clone(), |source| desk.tallies.of(&source.name));
    let record = tally.open(caller.remote, arrival.at);
    let mut charge = Charge::new(&desk.budget, caller.visit.in_flight());
    if body.is_end_stream() {
        caller.progress.complete();
    }
    let limited = desk.put_off(&caller, arrival, body, &mut charge).await;
    let answer = match (source, limited) {
        (Err(refused), limited) => limited.unwrap_or(refused),
        (Ok(source), Some(limited)) => source.told(limited),
        (Ok(source), None) => source.told(desk.serve(&source, &caller, arrival, head, body, &mut charge).await),
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
    fn source(&self, head: &Parts) -> Result<Arc<LiveSource>, Answer> {
        if head.version == Version::HTTP_2 && http2::is_too_large(head, &self.limits) {
            return Err(head_too_large());
        }
        self.gateway.source(head.uri.path()).ok_or_else(|| unknown_source(&head.uri))
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
        source: &LiveSource,
        caller: &Caller,
        arrival: Arrival,
        head: Parts,
        body: &mut Incoming,
        charge: &mut Charge<'_>,
    ) -> Answer {
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
        let received = self.gateway.receive(source, delivery(head, body, caller, arrival), arrival.at + deadline);
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

/// The answer to a head beyond `max_header_size` or `max_headers`.
pub(super) fn head_too_large() -> Answer {
    let mut answer = Answer::plain(Outcome::BadRequest);
    answer.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    answer.with_hint("the request head is longer than max_header_size, or has more than max_headers fields")
}

pub(super) fn respond(answer: Answer, close: bool) -> Response<Full<Bytes>> {
    let come_again = come_again_after(&answer);
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if let Some(media_type) = answer.content_type.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(CONTENT_TYPE, media_type);
    }
    if let Some(seconds) = come_again {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whole seconds after which the sender should come again; `None` when it need not.
pub(super) fn come_again_after(answer: &Answer) -> Option<u64> {
    match answer.outcome {
        // A source in shadow says nothing of its troubles.
        _ if answer.status.is_success() => None,
        Outcome::RateLimited => Some(answer.retry_after.as_millis().div_ceil(1000).max(1) as u64),
        outcome => outcome.is_our_trouble().then_some(RETRY_AFTER_SECONDS),
    }
}

/// When a sender should come again after a 503. Longer than a restart takes with the default `drain_delay` and
/// `drain_deadline` (25 s together), so that the retry meets the next process; short enough not to matter to any provider.
const RETRY_AFTER_SECONDS: u64 = 30;

/// When a sender should come again whose address has its share of bodies under way: nearly all of them end within this.
const SHARE_PAUSE: Duration = Duration::from_secs(5);
const SHARE_USED: &str = "the bodies under way from this address fill max_in_flight_per_address";

/// Before a sender that is not looked at hears so: who sends as fast as it is answered gets ten answers a second and
/// connection, and the processor is the others'.
const LIMITED_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a body that is read only to be forgotten.
const FORGOTTEN: usize = 16 * 1024;
