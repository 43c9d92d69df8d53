//! One request, from its head to its answer, in the order in which it can be refused.
//!
//! Path, method, signature header and announced length are judged before the body is read, so such a refusal waits for
//! nothing and never invites a body with `100 Continue` (hyper sends that when the body is first asked for). From the last
//! byte to the hand-over inside [`Gateway::receive`] nothing here waits, and a hang-up is not even looked for: a sender that
//! leaves after its last byte has delivered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::{Body, Incoming};

use super::Limits;
use super::body::{self, Budget, Charge};
use super::tally::Tallies;
use super::wire::{Arrival, Progress};
use crate::event::{Answer, Clock, Delivery, Outcome};
use crate::gateway::{Entrance, Gateway};
use crate::log::escaped;
use crate::source::Source;

/// What every request needs.
pub(super) struct Desk {
    pub gateway: Arc<Gateway>,
    pub limits: Limits,
    pub clock: Arc<dyn Clock>,
    pub tallies: Tallies,
    pub budget: Arc<Budget>,
}

/// Where a request came from and how far it has come.
#[derive(Clone)]
pub(super) struct Caller {
    pub remote: SocketAddr,
    pub progress: Arc<Progress>,
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
pub(super) async fn answer(desk: Arc<Desk>, caller: Caller, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Gone> {
    let arrival = caller.progress.take_up();
    let (head, mut body) = request.into_parts();
    let source = desk.gateway.source(head.uri.path());
    let tally = source.as_ref().map_or_else(|| desk.tallies.stray.clone(), |source| desk.tallies.of(&source.name));
    let record = tally.open(caller.remote, arrival.at);
    let mut charge = desk.budget.charge();
    if body.is_end_stream() {
        caller.progress.complete();
    }
    let answer = match source {
        None => unknown_source(&head.uri),
        Some(source) => desk.serve(&source, &caller, arrival, head, &mut body, &mut charge).await,
    };
    record.close(&answer);
    caller.progress.answered();
    match answer.outcome {
        Outcome::Disconnected => Err(Gone),
        _ => Ok(respond(answer, caller.progress.closes())),
    }
}

impl Desk {
    async fn serve(
        &self,
        source: &Entrance,
        caller: &Caller,
        arrival: Arrival,
        head: Parts,
        body: &mut Incoming,
        charge: &mut Charge,
    ) -> Answer {
        if let Err(refused) = self.judge_head(source, &head, body) {
            return refused;
        }
        let deadline = source.deadline.min(self.limits.request_deadline);
        caller.progress.limit(deadline);
        let body = match body::read(body, source.max_body, charge, &caller.progress).await {
            Ok(body) => body,
            Err(outcome) => return Answer::plain(outcome).because(why_not_read(outcome, source)),
        };
        caller.progress.complete();
        let delivery = Delivery {
            method: head.method,
            target: target(&head.uri),
            headers: head.headers,
            body,
            remote: caller.remote,
            received_at: arrival.wall,
        };
        let received = self.gateway.receive(source, delivery, arrival.at + deadline);
        caller.progress.unless_cut(received).await.unwrap_or_else(not_waited_for)
    }

    /// Everything that can be refused without reading the body.
    fn judge_head(&self, source: &Source, head: &Parts, body: &Incoming) -> Result<(), Answer> {
        if target_length(&head.uri) > TARGET_LIMIT {
            let mut answer = Answer::plain(Outcome::BadRequest);
            answer.status = StatusCode::URI_TOO_LONG;
            return Err(answer.because(format!("the request target is longer than {TARGET_LIMIT} bytes")));
        }
        if head.method != Method::POST {
            let hint = format!("{} where only POST is taken", escaped(head.method.as_str()));
            return Err(Answer::plain(Outcome::MethodNotAllowed).because(hint));
        }
        self.gateway.precheck(source, &head.headers)?;
        match body.size_hint().exact() {
            Some(length) if length > source.max_body as u64 => {
                let hint = format!("content-length is {length}, max_body of this source is {}", source.max_body);
                Err(Answer::plain(Outcome::TooLarge).because(hint))
            }
            _ => Ok(()),
        }
    }
}

fn unknown_source(uri: &Uri) -> Answer {
    Answer::plain(Outcome::UnknownSource).because(format!("no source has the path {}", escaped(uri.path())))
}

fn why_not_read(outcome: Outcome, source: &Source) -> String {
    match outcome {
        Outcome::TooLarge => format!("the body is longer than max_body of this source, {} bytes", source.max_body),
        Outcome::Overloaded => "the bodies under way fill max_in_flight".to_owned(),
        Outcome::TooSlow => "the body was not complete in time".to_owned(),
        Outcome::Draining => "the body was not complete at the drain deadline".to_owned(),
        Outcome::BadRequest => "the chunked body is malformed".to_owned(),
        _ => Gone.to_string(),
    }
}

/// The answer to a request that was cut while its event was being kept. It may be kept all the same.
fn not_waited_for(why: Outcome) -> Answer {
    match why {
        Outcome::Draining => Answer::plain(Outcome::Draining).because("not yet kept at the drain deadline"),
        _ => Answer::plain(Outcome::Deadline),
    }
}

/// The target as it stood in the request line.
fn target(uri: &Uri) -> String {
    match uri.path_and_query() {
        Some(target) if uri.authority().is_none() => target.as_str().to_owned(),
        _ => uri.to_string(),
    }
}

fn target_length(uri: &Uri) -> usize {
    uri.path_and_query().map_or(0, |target| target.as_str().len())
}

fn respond(answer: Answer, close: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if let Some(media_type) = answer.content_type.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(CONTENT_TYPE, media_type);
    }
    if answer.outcome.is_our_trouble() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    if answer.outcome == Outcome::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// When a sender should come again after a 503. Longer than a restart takes with the default `drain_delay` and
/// `drain_deadline` (25 s together), so that the retry meets the next process; short enough not to matter to any provider.
pub(super) const RETRY_AFTER_SECONDS: &str = "30";

/// Bytes of a request target. Providers that sign their query stay far below; what is longer is no delivery.
pub const TARGET_LIMIT: usize = 8 * 1024;
