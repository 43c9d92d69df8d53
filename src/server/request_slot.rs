//! Bounds the requests under way over all connections.
//!
//! A request takes a slot before the server starts any work for it. The slot charges the head and a fixed cost to the in-flight
//! budget, because a sender needs only a few bytes to make hookhold decode a large HTTP/2 head and start two tasks. A request
//! without a slot is answered at once with 503 and Retry-After, and the server does not read its body.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, Version};
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::deadline::Arrival;
use super::peer::RequestContext;
use super::request_cost::REQUEST_BYTES;
use super::response::{ResponseBody, respond};
use super::sender_limits::SenderGuard;
use super::state::ServerState;
use crate::answer::Answer;
use crate::in_flight::InFlightBudget;
use crate::outcome::Outcome;

/// Slot of one request under way. Dropping the slot releases it.
pub(super) struct RequestSlot {
    state: Arc<ServerState>,
    /// True if the slot is charged to the whole budget of the server, and false if it is charged to the part for unknown senders.
    is_known_good: bool,
    /// Number of bytes that the slot has charged to the server's budget; 0 if the slot has handed them over.
    bytes: usize,
}

impl RequestSlot {
    /// Takes a slot for the request of this sender with this head, which started at `arrival`. If `max_requests` requests are under
    /// way, or if the request exceeds the in-flight budget, the oldest unfinished bodies make room. Returns `None` if they do not
    /// suffice. A quarter of both limits is reserved for known-good addresses.
    pub(super) fn take(state: &Arc<ServerState>, sender: &SenderGuard, head: &Parts, arrival: Instant) -> Option<RequestSlot> {
        let bytes = REQUEST_BYTES + head_bytes(head);
        let is_known_good = sender.is_known_good(arrival);
        let budget = state.server_budget(is_known_good);
        if !budget.start_request(bytes) {
            budget.start_request_beyond(bytes);
            if state.unfinished_bodies.make_room_for_request(sender.address(), bytes, budget).is_err() {
                budget.end_request(bytes);
                return None;
            }
        }
        Some(RequestSlot { state: state.clone(), is_known_good, bytes })
    }

    /// Returns the bytes of the slot. From now on, the caller must release the request and the bytes in
    /// [`RequestSlot::budget`].
    pub(super) fn hand_over(&mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }

    /// Returns the budget to which the slot is charged: of the server, or its part for unknown senders.
    pub(super) fn budget(&self) -> &InFlightBudget {
        self.state.server_budget(self.is_known_good)
    }

    pub(super) fn state(&self) -> &Arc<ServerState> {
        &self.state
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget().end_request(self.bytes);
        }
    }
}

/// Answers a request for which no slot is free, and records its outcome. Does not read the body.
pub(super) fn reject(
    state: &ServerState,
    context: &RequestContext,
    arrival: Arrival,
    head: &Parts,
    body: &Incoming,
) -> Response<ResponseBody> {
    let rejected = Answer::plain(Outcome::Overloaded).with_hint(NO_SLOT);
    let (outcomes, answer) = match state.gateway.get().map(|gateway| state.live_source(gateway, head)) {
        None => (state.outcomes.no_source.clone(), rejected),
        Some(Ok(live)) => (state.outcomes.source(&live.source.name), live.source.apply_shadow(rejected)),
        Some(Err(rejected)) => (state.outcomes.no_source.clone(), rejected),
    };
    // A connection with a malformed head closes, because the end of the request is uncertain.
    if body.is_end_stream() && answer.outcome != Outcome::BadRequest {
        context.progress.request_complete(state.limits.request_deadline);
    }
    let now = Instant::now();
    outcomes.start(context.remote, arrival.at).record(&answer, now);
    context.sender.record(answer.outcome, 0, now);
    let close = context.progress.response_ready(now, context.is_trusted(now));
    respond(answer, head.method == Method::HEAD, head.version < Version::HTTP_2 && close)
}

/// Returns the [`Answer`] to a request that ended with `outcome` because it exceeds an in-flight budget.
pub(super) fn over_budget(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::RateLimited => Answer::rate_limited(ADDRESS_RETRY_AFTER).with_hint(ADDRESS_BUDGET_USED),
        _ => Answer::plain(outcome).with_hint(SERVER_BUDGET_USED),
    }
}

/// Returns the memory of a decoded request head: the text, and the table of the header fields.
fn head_bytes(head: &Parts) -> usize {
    let text: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    text + target + head.headers.capacity().max(head.headers.len()) * FIELD_BYTES
}

/// Memory of one header field in a table of header fields, without its text.
const FIELD_BYTES: usize = 112;

/// `Retry-After` value for a sender whose address has used up its in-flight budget. Nearly all requests end within this time.
const ADDRESS_RETRY_AFTER: Duration = Duration::from_secs(5);

const NO_SLOT: &str = "requests under way: expected at most max_requests, and at most max_in_flight for their heads and bodies, \
                       found more; raise the exceeded limit";
const ADDRESS_BUDGET_USED: &str =
    "bodies in flight: expected at most max_in_flight_per_address, found more; raise the limit for a genuine sender";
const SERVER_BUDGET_USED: &str = "bodies in flight: expected at most max_in_flight, found more; raise max_in_flight";

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn the_cost_of_a_head_grows_with_its_fields_and_its_text() {
        let cost = |fields: usize, length: usize| {
            let mut request = Request::post("/hooks/stripe");
            for field in 0..fields {
                request = request.header(format!("x-{field:03}"), "v".repeat(length));
            }
            head_bytes(&request.body(()).expect("valid fields").into_parts().0)
        };
        assert!(cost(100, 0) >= 100 * FIELD_BYTES);
        assert_eq!(cost(100, 50) - cost(100, 0), 5_000);
        assert!(cost(1, 0) < 16 * FIELD_BYTES);
    }
}
