//! Checks a request head before the server reads the body. The first failed check determines the response.
//!
//! [`judge_head`] is a pure function: it uses no connection, clock or counter. `hookhold doctor` calls this function
//! with a stored request and gets the same result as the server.

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};

use crate::answer::Answer;
use crate::gateway::{self, Verifier};
use crate::limits::ServerLimits;
use crate::log::escaped;
use crate::outcome::Outcome;
use crate::source::Source;

/// Parts of a request that the server knows before it reads the body.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Method of the request.
    pub method: &'a Method,
    /// Path and query, exactly as in the request target.
    pub target: &'a str,
    /// Header fields of the request.
    pub headers: &'a HeaderMap,
    /// Address of the sender; `None` if the address is unknown. Without an address, [`judge_head`] does not check
    /// `allow_from`.
    pub sender: Option<IpAddr>,
    /// Body length that the request announces, in bytes; `None` if the request announces no length (for example, a
    /// chunked body).
    pub content_length: Option<u64>,
}

/// Checks the length of the request target, the method, the sender's address, the signature header and the announced
/// body length, in this order. Returns the maximum size of the body in bytes. The error is the [`Answer`] to the request,
/// with the outcome and a hint for the operator.
pub fn judge_head(verifier: &Verifier, head: RequestHead<'_>) -> Result<usize, Answer> {
    let source = verifier.source();
    judge_route(source, head)?;
    let max_body = gateway::precheck(verifier, head.method, head.target, head.headers)?;
    match head.content_length {
        Some(length) if length > max_body as u64 => {
            let (limit, remedy) = match max_body < source.max_body {
                true => ("the limit of a request without a proof", "configure a secret in the sender's dashboard"),
                false => ("max_body of this source", "raise max_body for a genuine sender"),
            };
            let hint = format!("content-length: expected at most {max_body} ({limit}), found {length}; {remedy}");
            Err(Answer::plain(Outcome::TooLarge).with_hint(hint))
        }
        _ => Ok(max_body),
    }
}

/// Checks the length of the request target, the method and the sender's address. These checks are enough for a request whose
/// small body has arrived together with the head: the verification finds a missing or malformed signature just as early.
pub(super) fn judge_route(source: &Source, head: RequestHead<'_>) -> Result<(), Answer> {
    if head.target.len() > MAX_TARGET_BYTES {
        let answer = Answer { status: StatusCode::URI_TOO_LONG, ..Answer::plain(Outcome::BadRequest) };
        let found = head.target.len();
        let hint =
            format!("request target: expected at most {MAX_TARGET_BYTES} bytes, found {found}; shorten the URL at the sender");
        return Err(answer.with_hint(hint));
    }
    if !source.recipe.accepts_method(head.method) {
        let words: Vec<&str> = source.recipe.methods().into_iter().map(Method::as_str).collect();
        let (words, method) = (words.join(" or "), escaped(head.method.as_str()));
        let hint = format!("method: expected {words}, found {method}; configure the sender to use POST");
        return Err(gateway::method_not_allowed(source, hint));
    }
    if let Some(address) = head.sender.filter(|address| !source.allows_address(*address)) {
        let hint =
            format!("sender address: expected one in allow_from, found {address}; add it to allow_from or trusted_proxies");
        let answer = Answer::plain(Outcome::AddressNotAllowed).with_hint(hint);
        return Err(Answer { status: source.recipe.replies.rejected, ..answer });
    }
    Ok(())
}

/// Returns true if an HTTP/2 request head exceeds `max_header_size` or `max_headers`. Over HTTP/1.1, hyper enforces
/// both limits.
pub(super) fn is_too_large(head: &Parts, limits: &ServerLimits) -> bool {
    let headers = &head.headers;
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() + target;
    size > limits.max_header_size || headers.len() > limits.max_headers
}

/// Largest accepted length of a request target, in bytes. Even the URLs of providers that sign the query are far
/// shorter.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;
