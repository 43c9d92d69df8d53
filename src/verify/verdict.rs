//! The possible results of verifying a delivery.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Effect;
use crate::event::Event;
use crate::log::escaped;
use crate::outcome::Outcome;
use crate::source::recipe::Reply;
use crate::verify::decompress::UnreadBody;

/// The result of verifying an accepted delivery: an event or an endpoint challenge.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every verdict is an event, and each verdict is moved only once")]
pub enum Verdict {
    /// A verified event of the provider.
    Event(Verified),
    /// The verified events of a batch that the source splits.
    Batch(VerifiedBatch),
    /// An endpoint challenge without a proof. The gateway never stores a challenge.
    UnsignedChallenge(ChallengeReply),
    /// A verified endpoint challenge. The gateway never stores a challenge.
    Challenge(ChallengeReply),
}

/// The reply to an endpoint challenge, and the action that the challenge asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct ChallengeReply {
    /// The reply to send.
    pub reply: Reply,
    /// The action for the operator, or `None` if the reply is all that the provider expects. hookhold does not perform it.
    pub effect: Option<Effect>,
}

/// A verified event, with its identity and the name of the secret that signed the delivery.
#[derive(Debug)]
pub struct Verified {
    /// The event, without its dedupe key. The gateway sets the key.
    pub event: Event,
    /// The identity by which the gateway recognises duplicates of the event.
    pub identity: Identity,
    /// The name of the secret or public key that verified the delivery, or `None` if the source requires no proof.
    pub secret: Option<Arc<str>>,
    /// The reason why the verifier could not read the compressed body, or `None` if it has read the body. An unread body has no
    /// id, type, ordering key and time.
    pub unread: Option<UnreadBody>,
}

/// The verified events of a batch, with the name of the secret that signed the delivery.
#[derive(Debug)]
pub struct VerifiedBatch {
    /// The events, in the order of the items. Empty if the array is empty.
    pub items: Vec<VerifiedItem>,
    /// The name of the secret or public key that verified the delivery, or `None` if the source requires no proof.
    pub secret: Option<Arc<str>>,
}

/// One verified event of a batch, with its identity.
#[derive(Debug)]
pub struct VerifiedItem {
    /// The event, without its dedupe key. The gateway sets the key.
    pub event: Event,
    /// The identity by which the gateway recognises duplicates of the event.
    pub identity: Identity,
    /// The name of the secret or public key that verified the item, or `None` if the source requires no proof.
    pub secret: Option<Arc<str>>,
}

/// The data that identifies an event among all events of a source. The dedupe key is a hash of the source, the event type and
/// this identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The event id that the provider assigned.
    Id {
        /// The alternative with which the verifier found the id, as an index into the recipe's list of alternatives. The index
        /// distinguishes an order with the id 17 from an invoice with the id 17. If the signed content contains the id, the
        /// index is always 0, so a replay with the same id in another header does not become a new event.
        alternative: usize,
        /// The fields of the event id, in the recipe's order.
        fields: Vec<String>,
        /// SHA-256 hash of the body if the signature does not cover the id, otherwise `None`. The hash prevents an attack:
        /// without the hash, an attacker could replay an old signed body with the id of a new event, and hookhold would then
        /// drop the new event as a duplicate.
        body_sha256: Option<[u8; 32]>,
    },
    /// The event ids and types of all items of a batch that stays one event.
    Ids {
        /// For each item, a text with the alternative and the number of fields of its id, then its type, then the fields. The
        /// type is empty if the item has none.
        fields: Vec<String>,
        /// SHA-256 hash of the body if the signature does not cover the ids, otherwise `None`, as in [`Identity::Id`].
        body_sha256: Option<[u8; 32]>,
    },
    /// SHA-256 hash of the signed content, and of the body if the content does not cover the body. The content includes the
    /// signed timestamp, so only an exact replay is a duplicate. Used for a delivery without an event id.
    SignedContent([u8; 32]),
    /// SHA-256 hash of the body, and the window within which hookhold treats identical bodies as duplicates. Used only if the
    /// operator sets `dedupe.body` and the delivery has no event id.
    BodyWindow([u8; 32], Duration),
    /// No identity. hookhold never treats another delivery as a duplicate of this delivery.
    Keyless,
}

/// A rejected delivery: the outcome, a hint for the operator, and the work that the delivery caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The outcome, which names the check that the delivery failed.
    pub outcome: Outcome,
    /// The explanation for the operator's log. Text of the request in the explanation is escaped.
    pub hint: String,
    /// The work that the delivery caused before the rejection, in hashed bytes. 0 if a check of the request head failed.
    pub work: usize,
    /// The public key without which the verifier cannot check the delivery. `Some` only if the outcome is `key_unavailable`.
    pub needs_key: Option<Box<KeyRef>>,
}

impl Rejection {
    /// Creates a rejection that a public key would not change, of a delivery that caused no work.
    pub fn new(outcome: Outcome, hint: impl Into<String>) -> Rejection {
        Rejection { outcome, hint: hint.into(), work: 0, needs_key: None }
    }

    /// Creates the rejection of a delivery that names a public key which the source lacks.
    pub(super) fn needs_key(key: KeyRef) -> Rejection {
        let hint = format!(
            "public key: expected the key {} from {} in public_keys, found none with this id; add the key to public_keys",
            escaped(&key.id),
            escaped(&key.url)
        );
        Rejection { needs_key: Some(key.into()), ..Rejection::new(Outcome::KeyUnavailable, hint) }
    }

    /// Returns `other` if its check failed later than the check of this rejection, otherwise this rejection. The verifier
    /// reports the attempt that passed the most checks, because this attempt explains the most to the operator.
    pub(super) fn or_closer(self, other: Option<Rejection>) -> Rejection {
        other.filter(|other| rank(other.outcome) > rank(self.outcome)).unwrap_or(self)
    }
}

/// A public key that a sender publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// The HTTPS URL of the key or of the key set. Its host is one that the recipe allows.
    pub url: String,
    /// The id by which the delivery names the key. If the URL identifies the key, the id is the URL.
    pub id: String,
}

/// Returns the rank of a rejection by the check that failed. A later check has a higher rank.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        // The missing key may be the one that made the signature.
        Outcome::KeyUnavailable => 4,
        Outcome::TimestampStale | Outcome::TimestampFuture => 3,
        Outcome::SignatureMismatch => 2,
        Outcome::SignatureMalformed => 1,
        _ => 0,
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.outcome.word(), self.hint)
    }
}
