//! The answer to one delivery: the response to its sender, and the details for the operator's log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::outcome::Outcome;

/// The answer to one delivery, as plain data. Only `server` turns an answer into an HTTP response and a log line.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The result of the delivery.
    pub outcome: Outcome,
    /// The status code of the response.
    pub status: StatusCode,
    /// The media type of the body.
    pub content_type: Option<Arc<str>>,
    /// The body of the response.
    pub body: Bytes,
    /// Time after which a sender that is `rate_limited` may retry.
    pub retry_after: Duration,
    /// The reason in one line, with outside text escaped. Only for the operator's log. Empty if the outcome needs no
    /// explanation.
    pub hint: String,
    /// The sequence of the stored event. A duplicate has the sequence of the first delivery's event.
    pub seq: Option<u64>,
}

impl Answer {
    /// Returns an answer with the outcome's status and an empty body.
    pub fn plain(outcome: Outcome) -> Answer {
        let (status, retry_after) = (outcome.status(), Duration::ZERO);
        Answer { outcome, status, content_type: None, body: Bytes::new(), retry_after, hint: String::new(), seq: None }
    }

    /// Returns the answer `rate_limited` for a sender that may retry after this time.
    pub fn rate_limited(retry_after: Duration) -> Answer {
        Answer { retry_after, ..Answer::plain(Outcome::RateLimited) }
    }

    /// Sets the hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Answer {
        self.hint = hint.into();
        self
    }
}
