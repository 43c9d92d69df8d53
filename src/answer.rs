//! The answer to one delivery: the response to its sender, and the details for the operator's log.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::outcome::Outcome;

/// The answer to one delivery, as plain data. Only `server` converts an answer into an HTTP response and a log line.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Outcome of the delivery, shown as the label `outcome` in metrics and as the field `outcome` in log lines.
    pub outcome: Outcome,
    /// Status code of the response.
    pub status: StatusCode,
    /// Media type of the response body. `None` for plain text, or if the body is empty.
    pub content_type: Option<Arc<str>>,
    /// Further header fields of the response.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// Body of the response.
    pub body: Bytes,
    /// Minimum time before the sender may retry a `rate_limited` delivery, in seconds; zero for every other outcome.
    pub retry_after_s: u32,
    /// Reason for the outcome in one line, for the operator's log only; empty if the outcome needs no explanation. Text from
    /// outside hookhold is always escaped.
    pub hint: String,
    /// Sequence of the stored event; for a duplicate, the sequence of the original event.
    pub seq: Option<u64>,
    /// Action that an endpoint challenge asks for; `None` for every other request.
    pub effect: Option<Box<Effect>>,
}

impl Answer {
    /// Returns an answer with the outcome's default status and an empty body.
    pub fn plain(outcome: Outcome) -> Answer {
        Answer {
            outcome,
            status: outcome.status(),
            content_type: None,
            headers: Box::default(),
            body: Bytes::new(),
            retry_after_s: 0,
            hint: String::new(),
            seq: None,
            effect: None,
        }
    }

    /// Returns an answer with the outcome `rate_limited`. The sender may retry after `retry_after`, which is rounded up to at
    /// least one second.
    pub fn rate_limited(retry_after: Duration) -> Answer {
        let seconds = retry_after.as_millis().div_ceil(1000).max(1);
        Answer { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX), ..Answer::plain(Outcome::RateLimited) }
    }

    /// Sets the hint for the operator's log and returns the answer.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Answer {
        self.hint = hint.into();
        self
    }
}

/// Receives every answer of the server, for a caller that shows deliveries while they happen (`hookhold dev`).
pub trait AnswerWatcher: Send + Sync {
    /// Receives the answer to a request from `remote` before the server sends the response. `source` is
    /// [`NO_SOURCE`](crate::metrics::NO_SOURCE) if the request belongs to no source. The server waits for this function, so it must
    /// not block.
    fn answered(&self, source: &str, remote: SocketAddr, answer: &Answer);
}

/// Action that an endpoint challenge asks for, as plain data. hookhold counts and logs the action for the operator. It fetches
/// no URL and stores no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Effect {
    /// Kind of the action.
    pub kind: EffectKind,
    /// Secret, URL or text of the request, not escaped. Empty for a report without a text.
    pub text: String,
    /// True if the challenge carried a proof. Without a proof, any sender may have chosen the text.
    pub is_verified: bool,
}

/// Kind of action that an endpoint challenge asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectKind {
    /// Store the secret with which the sender will sign its deliveries.
    LearnSecret,
    /// Open a URL, to confirm a subscription.
    VisitUrl,
    /// Show a text to the operator.
    Report,
}

impl EffectKind {
    /// Every kind of action and its name, in recipes, in metrics and in log lines.
    pub const WORDS: &[(&str, EffectKind)] =
        &[("learn-secret", EffectKind::LearnSecret), ("visit-url", EffectKind::VisitUrl), ("report", EffectKind::Report)];

    /// Returns the name of the action.
    pub fn word(self) -> &'static str {
        EffectKind::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.kind == EffectKind::LearnSecret { "masked" } else { &self.text };
        write!(f, "Effect({}, {text:?})", self.kind.word())
    }
}
