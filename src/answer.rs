//! The answer to one delivery: what is sent and what is logged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::outcome::Outcome;

/// What the sender is told, and what is written down about it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How the delivery ended.
    pub outcome: Outcome,
    /// The status code to send.
    pub status: StatusCode,
    /// The reply's media type, when it has a body.
    pub content_type: Option<Arc<str>>,
    /// The reply's body.
    pub body: Bytes,
    /// When a sender that is `rate_limited` should come again.
    pub retry_after: Duration,
    /// For the operator's log only: why, in one line, outside text escaped; empty when the outcome says it all.
    pub hint: String,
    /// Where the event is kept; for a duplicate, the first one's sequence.
    pub seq: Option<u64>,
}

impl Answer {
    /// The outcome's own status and an empty body.
    pub fn plain(outcome: Outcome) -> Answer {
        let (status, retry_after) = (outcome.status(), Duration::ZERO);
        Answer { outcome, status, content_type: None, body: Bytes::new(), retry_after, hint: String::new(), seq: None }
    }

    /// `rate_limited`, with the time after which the sender would be heard.
    pub fn rate_limited(retry_after: Duration) -> Answer {
        Answer { retry_after, ..Answer::plain(Outcome::RateLimited) }
    }

    /// Adds the operator's hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Answer {
        self.hint = hint.into();
        self
    }
}
