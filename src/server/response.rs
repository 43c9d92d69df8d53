//! Converts an [`Answer`] into an HTTP response.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use super::stream_tasks::{ActiveRequest, StreamTasks};
use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::in_flight::{DetachedCharge, InFlightCharge};
use crate::outcome::Outcome;

/// Body of a response. A large body contains text of the request. Its charge ends when hyper has sent the body, because a client
/// can delay this.
pub(super) struct ResponseBody {
    bytes: Full<Bytes>,
    charge: Option<Box<ResponseCharge>>,
}

/// Charge for a large response body.
struct ResponseCharge {
    memory: Option<DetachedCharge>,
    /// Tasks of an HTTP/2 connection. h2 stores the body after hyper has passed it on.
    tasks: Option<StreamTasks>,
}

impl ResponseBody {
    fn new(bytes: Bytes) -> ResponseBody {
        ResponseBody { bytes: Full::new(bytes), charge: None }
    }

    /// Takes over the charge of the request if the body is large.
    pub(super) fn take_charge(&mut self, request: &mut InFlightCharge<'_>) {
        if self.size_hint().lower() > MAX_FREE_BODY_BYTES {
            self.charge = Some(Box::new(ResponseCharge { memory: Some(request.detach()), tasks: None }));
        }
    }

    /// Holds the charge until the HTTP/2 connection has written the body.
    pub(super) fn charge_until_sent(&mut self, request: &ActiveRequest) {
        if let Some(charge) = &mut self.charge {
            charge.tasks = Some(request.tasks());
        }
    }
}

impl Drop for ResponseCharge {
    fn drop(&mut self) {
        if let (Some(tasks), Some(memory)) = (&self.tasks, self.memory.take()) {
            tasks.hold(memory);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.bytes).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.bytes.size_hint()
    }
}

/// Builds the HTTP response that hyper sends. The response to a HEAD request has no body, but the same header fields as the
/// response to a GET request. Adds `Connection: close` if `close` is true.
///
/// A browser could render a body, and a body may contain text of the request. Such a response therefore names its media type
/// and forbids the browser to guess another one.
pub(super) fn respond(answer: Answer, is_head: bool, close: bool) -> Response<ResponseBody> {
    let retry_after = retry_after_seconds(&answer);
    let (length, is_empty) = (answer.body.len(), answer.body.is_empty());
    let mut response = Response::new(ResponseBody::new(if is_head { Bytes::new() } else { answer.body }));
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
/// Largest body that is not charged until it has been sent. The replies of most recipes are shorter.
const MAX_FREE_BODY_BYTES: u64 = 1024;
/// Media type of a body for which the recipe names none.
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
