//! Converts an [`Answer`] into an HTTP response.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::outcome::Outcome;

/// Builds the HTTP response that hyper sends. The response to a HEAD request has no body, but the same header fields as the
/// response to a GET request. Adds `Connection: close` if `close` is true.
///
/// A browser could render a body, and a body may contain text of the request. Such a response therefore names its media type
/// and forbids the browser to guess another one.
pub(super) fn respond(answer: Answer, is_head: bool, close: bool) -> Response<Full<Bytes>> {
    let retry_after = retry_after_seconds(&answer);
    let (length, is_empty) = (answer.body.len(), answer.body.is_empty());
    let mut response = Response::new(Full::new(if is_head { Bytes::new() } else { answer.body }));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.extend(answer.headers);
    let media_type = answer.content_type.and_then(|text| HeaderValue::from_str(&text).ok());
    if let Some(media_type) = media_type.or_else(|| (!is_empty).then_some(PLAIN_TEXT)) {
        headers.insert(CONTENT_TYPE, media_type);
        headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    }
    if is_head {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Formats the response for a connection on which hyper has parsed no request, in the format of hyper's own responses.
/// The connection closes after this response.
pub(super) fn raw_response(answer: &Answer, now: UnixMillis) -> String {
    let status = answer.status;
    let date = jiff::Timestamp::from_millisecond(now.0 as i64).unwrap_or_default().strftime("%a, %d %b %Y %H:%M:%S GMT");
    let reason = status.canonical_reason().unwrap_or_default();
    let retry = retry_after_seconds(answer).map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    let (length, body) = (answer.body.len(), String::from_utf8_lossy(&answer.body));
    format!(
        "HTTP/1.1 {} {reason}\r\n{retry}connection: close\r\ncontent-length: {length}\r\ndate: {date}\r\n\r\n{body}",
        status.as_str()
    )
}

/// Returns the [`Answer`] to a request head that exceeds `max_header_size` or `max_headers`.
pub(super) fn head_too_large() -> Answer {
    let mut answer = Answer::plain(Outcome::BadRequest);
    answer.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    answer.with_hint(
        "request head: expected at most max_header_size bytes and max_headers fields, found more; raise the exceeded limit",
    )
}

/// Returns the value of the `Retry-After` header, in seconds; `None` if the response does not need this header.
fn retry_after_seconds(answer: &Answer) -> Option<u64> {
    match answer.outcome {
        // hookhold hides its failures from the senders of a source with `danger_shadow`.
        _ if answer.status.is_success() => None,
        Outcome::RateLimited => Some(answer.retry_after_s.into()),
        outcome => outcome.is_unavailable().then_some(RETRY_AFTER_SECONDS),
    }
}

/// `Retry-After` value of a 503 response, in seconds. A restart with the default `drain_delay` and `drain_deadline` (25
/// s together) takes less time, so the retry reaches the next process. The delay is too short to matter to any
/// provider.
const RETRY_AFTER_SECONDS: u64 = 30;
/// Media type of a body for which the recipe names none.
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
