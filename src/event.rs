//! Defines the types that every room shares: [`Delivery`] (one received request), [`Event`] (a verified delivery) and
//! [`Position`] (the identity of a stored event in the journal).
//!
//! This file does no I/O and does not depend on an HTTP server, on files or on Kafka. An [`Event`] has two constructors, one
//! for the verifier and one for the journal's decoder. `tests/fences.rs` fails if any other code calls one of these
//! constructors. hookhold therefore cannot store an unverified delivery. The gateway adds the dedupe key, and all other fields
//! are immutable.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::clock::UnixMillis;
use crate::event_key::EventKey;
use crate::fingerprint::Fingerprint;
use crate::header_field::HeaderField;

/// One received HTTP request, complete but not yet verified.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Request method.
    pub method: Method,
    /// Request target (path and query) exactly as received, never rebuilt from parsed parts.
    pub target: String,
    /// All header fields. Fields with the same name keep their order.
    pub headers: HeaderMap,
    /// Body as received, except that the server has decoded the chunked transfer coding.
    pub body: Bytes,
    /// Network address and port of the sender.
    pub remote: SocketAddr,
    /// Time when the server read the first byte of the request head.
    pub received_at: UnixMillis,
}

/// A verified delivery: the request, and the values that the source's recipe locates in the request. The parts are in a box,
/// because an event is moved several times on its way from the verifier to the journal.
#[derive(Clone, Debug)]
pub struct Event(Box<EventParts>);

/// The fields of an [`Event`]. Both constructors take this struct.
#[derive(Clone, Debug)]
pub(crate) struct EventParts {
    pub(crate) received_at: UnixMillis,
    pub(crate) occurred_at: Option<UnixMillis>,
    pub(crate) source: Arc<str>,
    pub(crate) topic: Arc<str>,
    pub(crate) id: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) type_prefix: Arc<str>,
    pub(crate) ordering_key: Option<String>,
    pub(crate) dedupe_key: Option<EventKey>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) account: Option<Arc<str>>,
    pub(crate) auth: Arc<str>,
    pub(crate) integrity: Integrity,
    /// The request, which all events of a batch share.
    pub(crate) request: Arc<EventRequest>,
    pub(crate) body: Bytes,
}

/// The HTTP request that carried an event, without the body.
#[derive(Clone, Debug)]
pub struct EventRequest {
    /// Request method.
    pub method: String,
    /// Request target as received, except that credentials are replaced ([`crate::credentials::Credentials::redact`]).
    pub target: String,
    /// Network address and port of the sender.
    pub remote: SocketAddr,
    /// Value of the W3C `traceparent` header, or `None` if the request has no such header.
    pub traceparent: Option<String>,
    /// All header fields except credentials ([`crate::credentials::Credentials::remaining_headers`]). Fields with the same name
    /// keep their order.
    pub headers: Vec<HeaderField>,
}

impl Event {
    /// Constructs an event for the verifier, which has checked the proof of the delivery.
    pub(crate) fn from_verifier(parts: EventParts) -> Event {
        Event(Box::new(parts))
    }

    /// Constructs an event for the journal's decoder, which has checked the checksum of the frame.
    pub(crate) fn from_journal(parts: EventParts) -> Event {
        Event(Box::new(parts))
    }

    /// Sets the dedupe key and the fingerprint, and returns the event.
    pub fn with_key(mut self, key: Option<EventKey>, fingerprint: Fingerprint) -> Event {
        (self.0.dedupe_key, self.0.fingerprint) = (key, fingerprint);
        self
    }

    /// Sets the account, because an event of another account at the same source has the same id. Returns the event.
    pub fn with_account(mut self, account: Arc<str>) -> Event {
        self.0.account = Some(account);
        self
    }

    /// Returns the time when the server read the first byte of the request head.
    pub fn received_at(&self) -> UnixMillis {
        self.0.received_at
    }

    /// Returns the time at which the event happened, as stated in the delivery. Returns `None` if the delivery states no valid
    /// time.
    pub fn occurred_at(&self) -> Option<UnixMillis> {
        self.0.occurred_at
    }

    /// Returns the name of the event's source in the configuration.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Returns the Kafka topic of the event's source, as configured when the delivery arrived.
    pub fn topic(&self) -> &Arc<str> {
        &self.0.topic
    }

    /// Returns the event id that the provider assigned, or `None` if the delivery contains no valid id. If the recipe lists
    /// several alternatives for the id, the verifier uses the first alternative that the delivery contains.
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// Returns the event id as [`Event::id`] does, and drops all other parts of the event.
    pub fn into_id(self) -> Option<String> {
        self.0.id
    }

    /// Returns the event type as the provider spells it, or `None` if the delivery contains no event type.
    pub fn event_type(&self) -> Option<&str> {
        self.0.event_type.as_deref()
    }

    /// Returns the text that precedes the event type in `ce_type`, such as `com.stripe.`.
    pub fn type_prefix(&self) -> &str {
        &self.0.type_prefix
    }

    /// Returns the ordering key, or `None` if the delivery contains no ordering key or the source has no locator for an
    /// ordering key.
    pub fn ordering_key(&self) -> Option<&str> {
        self.0.ordering_key.as_deref()
    }

    /// Returns the key that identifies duplicates of this event. Returns `None` for a keyless event, whose duplicates
    /// hookhold cannot recognise.
    pub fn dedupe_key(&self) -> Option<EventKey> {
        self.0.dedupe_key
    }

    /// Returns the fingerprint, which is stored with the dedupe key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// Returns the account at the source, if hookhold stored the event although an event of another account has the same id.
    pub fn account(&self) -> Option<&str> {
        self.0.account.as_deref()
    }

    /// Returns the authentication scheme and the name of the secret that signed the delivery, such as `mac-sha256:2026-11`.
    pub fn auth(&self) -> &str {
        &self.0.auth
    }

    /// Returns the extent to which the proof covers the event.
    pub fn integrity(&self) -> Integrity {
        self.0.integrity
    }

    /// Returns the request that carried the event.
    pub fn request(&self) -> &EventRequest {
        &self.0.request
    }

    /// Returns the body, byte for byte as received. The body of an event from a batch consists of the bytes of its item.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }
}

/// The extent to which a proof covers its event. The record header `hookhold-integrity` contains this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Integrity {
    /// A signature over the body, the event id and the event type.
    Full,
    /// A signature over the body. The event id, the event type or both are unsigned.
    Body,
    /// A signature over the body of a batch, of which the event is one item. The event alone is not enough to verify the
    /// signature again.
    Item,
    /// A signature that does not cover the bytes of the body, such as a signature over the decoded fields of a form.
    Partial,
    /// No signature, because the proof is a token or the source requires no proof.
    None,
}

impl Integrity {
    /// Every kind of integrity. The index of a kind in this array is its numeric code in a frame, so a new kind must be the
    /// last one.
    pub const ALL: [Integrity; 5] = [Integrity::Full, Integrity::Body, Integrity::Partial, Integrity::None, Integrity::Item];

    /// Returns the word for this kind of integrity in record headers and in the output of `hookhold providers`.
    pub fn word(self) -> &'static str {
        match self {
            Integrity::Full => "full",
            Integrity::Body => "body",
            Integrity::Item => "item",
            Integrity::Partial => "partial",
            Integrity::None => "none",
        }
    }
}

/// A random id that hookhold chooses each time it opens a journal for writing. `Display` writes the id as 16 hexadecimal
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub u64);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The identity of a stored event in the journal. The journal creates a position only after the event is on disk, and does
/// not change the position when it copies the frame of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Log id that was in use when hookhold first wrote the event.
    pub log: LogId,
    /// Sequence of the event in the journal. Sequences continue to increase after hookhold reopens the journal.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.log, self.seq)
    }
}
