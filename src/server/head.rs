//! Judges a request by its head, in the order in which the server rejects requests before it reads their bodies.
//!
//! [`judge_head`] is a pure function of the source and the request: no connection, no clock, no counter. `hookhold doctor`
//! calls it with a recorded request, so its result is the server's.

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};

use crate::answer::Answer;
use crate::gateway;
use crate::limits::ServerLimits;
use crate::log::escaped;
use crate::outcome::Outcome;
use crate::source::Source;

/// The parts of a request that are known before its body is read.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The request method.
    pub method: &'a Method,
    /// Path and query, as they stand in the request target.
    pub target: &'a str,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// The sender's address; `None` if it is unknown, which skips the check against `allow_from`.
    pub sender: Option<IpAddr>,
    /// The length of the body in bytes; `None` if the head does not announce it (a chunked body).
    pub content_length: Option<u64>,
}

/// Checks, in this order: target length, method, address, signature header, announced length. The error is the answer to
/// the request, with its outcome and a hint for the operator.
pub fn judge_head(source: &Source, head: RequestHead<'_>) -> Result<(), Answer> {
    if head.target.len() > MAX_TARGET_BYTES {
        let answer = Answer { status: StatusCode::URI_TOO_LONG, ..Answer::plain(Outcome::BadRequest) };
        return Err(answer.with_hint(format!("the request target is longer than {MAX_TARGET_BYTES} bytes")));
    }
    if head.method != Method::POST {
        let hint = format!("the method is {}; only POST is accepted", escaped(head.method.as_str()));
        return Err(Answer::plain(Outcome::MethodNotAllowed).with_hint(hint));
    }
    if head.sender.is_some_and(|address| !source.allows_address(address)) {
        let hint = "the address is not in allow_from of this source";
        let answer = Answer::plain(Outcome::AddressNotAllowed).with_hint(hint);
        return Err(Answer { status: source.recipe.replies.rejected, ..answer });
    }
    gateway::precheck(source, head.headers)?;
    match head.content_length {
        Some(length) if length > source.max_body as u64 => {
            let hint = format!("content-length is {length}, max_body of this source is {}", source.max_body);
            Err(Answer::plain(Outcome::TooLarge).with_hint(hint))
        }
        _ => Ok(()),
    }
}

/// Returns true for an HTTP/2 head beyond `max_header_size` or `max_headers`; over HTTP/1.1 hyper enforces them.
pub(super) fn is_too_large(head: &Parts, limits: &ServerLimits) -> bool {
    let headers = &head.headers;
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() + target;
    size > limits.max_header_size || headers.len() > limits.max_headers
}

/// Length limit of a request target. The URLs of providers that sign their query are far shorter; no delivery needs more.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;
