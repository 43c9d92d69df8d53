//! The results of verification.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::outcome::Outcome;
use crate::source::recipe::Reply;

/// The result for an accepted delivery.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every verdict is an event, and it is moved once")]
pub enum Verdict {
    /// An event of the provider.
    Event(Verified),
    /// An endpoint challenge, which is answered with this reply and never stored.
    Challenge(Reply),
}

/// A verified event.
#[derive(Debug)]
pub struct Verified {
    /// The event, still without its dedupe key.
    pub event: Event,
    /// The identity by which duplicates of the event are recognised.
    pub identity: Identity,
    /// The name of the secret that signed it.
    pub secret: Arc<str>,
}

/// The data by which two deliveries of a source are recognised as the same event. The dedupe key is a hash of the source, the
/// event type and this identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The provider's id.
    Id {
        /// The index of the recipe's alternative that was found. It distinguishes order 17 from invoice 17.
        alternative: usize,
        /// The fields of that alternative, in order.
        fields: Vec<String>,
        /// SHA-256 of the body if the id is outside the signed bytes. Without this hash, an old signed body could be
        /// replayed with the id of a new event, and the new event would then count as a duplicate.
        body_sha256: Option<[u8; 32]>,
    },
    /// SHA-256 of the signed content. It includes a time, so only an exact replay is a duplicate.
    SignedContent([u8; 32]),
    /// SHA-256 of the body, and the window in which byte-equal bodies are duplicates. Used only if the operator sets it.
    BodyWindow([u8; 32], Duration),
    /// No delivery is ever a duplicate of this one.
    Keyless,
}

/// The reason for a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// One of the signature and timestamp outcomes.
    pub outcome: Outcome,
    /// The explanation for the operator's log. Contains nothing from the request.
    pub hint: String,
}

impl Rejection {
    pub(super) fn new(outcome: Outcome, hint: impl Into<String>) -> Rejection {
        Rejection { outcome, hint: hint.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.outcome.word(), self.hint)
    }
}
