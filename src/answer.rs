//! The answer to one delivery: the response to its sender, and the details for the operator's log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::outcome::Outcome;

/// The answer to one delivery, as plain data. Only `server` converts an answer into an HTTP response and a log line.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Outcome of the delivery, shown as the label `outcome` in metrics and as the field `outcome` in log lines.
    pub outcome: Outcome,
    /// Status code of the response.
    pub status: StatusCode,
    /// Media type of the response body, or `None` if the response has no `content-type` header.
    pub content_type: Option<Arc<str>>,
    /// Body of the response.
    pub body: Bytes,
    /// Minimum time before the sender may retry a `rate_limited` delivery; zero for every other outcome.
    pub retry_after: Duration,
    /// Reason for the outcome in one line, for the operator's log only; empty if the outcome needs no explanation. Text from
    /// outside hookhold is always escaped.
    pub hint: String,
    /// Sequence of the stored event; for a duplicate, the sequence of the original event.
    pub seq: Option<u64>,
}

impl Answer {
    /// Returns an answer with the outcome's default status and an empty body.
    pub fn plain(outcome: Outcome) -> Answer {
        let (status, retry_after) = (outcome.status(), Duration::ZERO);
        Answer { outcome, status, content_type: None, body: Bytes::new(), retry_after, hint: String::new(), seq: None }
    }

    /// Returns an answer with the outcome `rate_limited`. The sender may retry after `retry_after`.
    pub fn rate_limited(retry_after: Duration) -> Answer {
        Answer { retry_after, ..Answer::plain(Outcome::RateLimited) }
    }

    /// Sets the hint for the operator's log and returns the answer.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Answer {
        self.hint = hint.into();
        self
    }
}
