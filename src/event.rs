//! The nouns that every room shares: [`Delivery`] (what arrived), [`Event`] (what was believed), [`EventKey`] (what makes
//! two deliveries the same), [`Position`] (where an event is kept) and [`Outcome`] (how a delivery ended).
//!
//! Nothing in here does I/O, and nothing knows HTTP servers, files or Kafka. An [`Event`] has two constructors: the
//! verifier's and the journal decoder's. A test reads `src/` and refuses a third caller, so nothing unverified can be kept.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::clock::UnixMillis;
use crate::event_key::EventKey;

/// One HTTP request as it arrived, complete but not yet believed.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The request method.
    pub method: Method,
    /// The request target exactly as it stood in the request line (path and query, never rebuilt).
    pub target: String,
    /// All header fields; repeated fields keep their order.
    pub headers: HeaderMap,
    /// The wire bytes of the body, after de-chunking and before anything else.
    pub body: Bytes,
    /// The peer's address.
    pub remote: SocketAddr,
    /// When the first byte of the request head was seen.
    pub received_at: UnixMillis,
}

/// A verified delivery: its bytes, and what its source's recipe found in it. Reads like [`EventParts`].
#[derive(Clone, Debug)]
pub struct Event(EventParts);

/// What an [`Event`] holds; also what its two constructors take.
#[derive(Clone, Debug)]
pub struct EventParts {
    /// When the delivery arrived.
    pub received_at: UnixMillis,
    /// The provider's own time of the event, where it gives one.
    pub occurred_at: Option<UnixMillis>,
    /// The name of the source in the configuration.
    pub source: Arc<str>,
    /// The Kafka topic, resolved at receipt.
    pub topic: Arc<str>,
    /// The provider's event id, the first of the recipe's id fields that is present.
    pub id: Option<String>,
    /// The provider's event type, as it names it.
    pub event_type: Option<String>,
    /// What stands before the event type in `ce_type`, such as `com.stripe.`.
    pub type_prefix: Arc<str>,
    /// The ordering key, where the recipe or the source names one.
    pub ordering_key: Option<String>,
    /// What makes a repeat of this event recognisable; `None`: nothing is ever a repeat of it.
    pub dedupe_key: Option<EventKey>,
    /// Scheme and name of the secret that verified it, such as `mac-sha256:2026-11`.
    pub auth: Arc<str>,
    /// How much of the event its proof covers.
    pub integrity: Integrity,
    /// The request method.
    pub method: String,
    /// The request target as it arrived.
    pub target: String,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The W3C `traceparent` of the request.
    pub traceparent: Option<String>,
    /// Request headers in order, without those that are credentials ([`is_secret`]).
    pub headers: Vec<Header>,
    /// The exact bytes that were signed.
    pub body: Bytes,
}

/// One header field: its name in lower case, its value as it came.
pub type Header = (HeaderName, HeaderValue);

/// Puts a header field together again. `None`: no request can have it.
pub fn header(name: &str, value: &[u8]) -> Option<Header> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
}

/// True for a header that holds a credential: it is neither kept nor shown nor passed on.
pub fn is_secret(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name)
}

impl Event {
    /// Only for the verifier, once a proof has been checked.
    pub(crate) fn from_verifier(parts: EventParts) -> Event {
        Event(parts)
    }

    /// The same event with the key under which a repeat of it will be recognised.
    pub fn with_key(mut self, key: Option<EventKey>) -> Event {
        self.0.dedupe_key = key;
        self
    }

    /// Only for the journal's decoder, once a checksum has been checked.
    pub(crate) fn from_journal(parts: EventParts) -> Event {
        Event(parts)
    }
}

impl Deref for Event {
    type Target = EventParts;
    fn deref(&self) -> &EventParts {
        &self.0
    }
}

/// How much of an event its proof covers (`hookhold-integrity`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// Body, id and type are signed.
    Full,
    /// The body is signed; id or type come from unsigned headers.
    Body,
    /// Only parts of the event are signed.
    Partial,
    /// Nothing of the event is signed: a token or no proof at all.
    None,
}

impl Integrity {
    /// All values, in the order of their codes in a frame.
    pub const ALL: [Integrity; 4] = [Integrity::Full, Integrity::Body, Integrity::Partial, Integrity::None];

    /// The word in recipes, headers and the journal.
    pub fn word(self) -> &'static str {
        match self {
            Integrity::Full => "full",
            Integrity::Body => "body",
            Integrity::Partial => "partial",
            Integrity::None => "none",
        }
    }
}

/// Names one opening of a journal for writing: drawn at random each time. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub u64);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where an event is kept. Exists only once the event is on disk; stays the same through every copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The opening under which the event was first written.
    pub log: LogId,
    /// The event's sequence in this journal; grows across openings.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.log, self.seq)
    }
}
