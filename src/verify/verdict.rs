//! The results of verification.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::outcome::Outcome;
use crate::source::recipe::Reply;

/// The result for an accepted delivery.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every verdict is an event, and each verdict is moved only once")]
pub enum Verdict {
    /// A verified event of the provider.
    Event(Verified),
    /// The reply to an endpoint challenge. The gateway never stores a challenge.
    Challenge(Reply),
}

/// A verified event, with its identity and the name of the secret that signed it.
#[derive(Debug)]
pub struct Verified {
    /// The event, without its dedupe key. The gateway adds the key.
    pub event: Event,
    /// The identity by which the gateway recognises duplicates of the event.
    pub identity: Identity,
    /// The name of the secret that signed the delivery.
    pub secret: Arc<str>,
}

/// The data that identifies an event among the deliveries of a source. The dedupe key is a hash of the source, the event type
/// and this identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The provider's event id.
    Id {
        /// The index of the recipe's alternative that was found. The index distinguishes order 17 from invoice 17.
        alternative: usize,
        /// The fields of that alternative, in order.
        fields: Vec<String>,
        /// SHA-256 hash of the body if the id is outside the signed bytes, otherwise `None`. The hash prevents an attack in
        /// which a replay of an old signed body with the id of a new event makes the new event a duplicate.
        body_sha256: Option<[u8; 32]>,
    },
    /// SHA-256 hash of the signed content. The content includes the signing time, so only an exact replay is a duplicate.
    SignedContent([u8; 32]),
    /// SHA-256 hash of the body, and the window in which identical bodies are duplicates. Used only if the operator sets
    /// `dedupe.body`.
    BodyWindow([u8; 32], Duration),
    /// No identity. hookhold never treats another delivery as a duplicate of this delivery.
    Keyless,
}

/// The reason for a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// One of the signature and timestamp outcomes.
    pub outcome: Outcome,
    /// The explanation for the operator's log. The text contains nothing from the request.
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
