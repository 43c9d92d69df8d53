//! The types that every room shares: [`Delivery`] (one received request), [`Event`] (a verified delivery) and [`Position`]
//! (the place of a stored event in the journal).
//!
//! This file does no I/O and does not depend on HTTP servers, files or Kafka. An [`Event`] has two constructors, one for the
//! verifier and one for the journal's decoder. `tests/fences.rs` rejects a third caller, so an unverified delivery cannot be
//! stored. The gateway adds the dedupe key; no other field can be changed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::clock::UnixMillis;
use crate::event_key::EventKey;
use crate::header_field::HeaderField;

/// One received HTTP request, complete but not yet verified.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The request method.
    pub method: Method,
    /// The request target exactly as received: path and query, never rebuilt.
    pub target: String,
    /// All header fields. Repeated fields keep their order.
    pub headers: HeaderMap,
    /// The body as received, after chunked decoding and before any other decoding.
    pub body: Bytes,
    /// The sender's address.
    pub remote: SocketAddr,
    /// Time at which the first byte of the request head was read.
    pub received_at: UnixMillis,
}

/// A verified delivery: its bytes, and the fields that its source's recipe located in them.
#[derive(Clone, Debug)]
pub struct Event(EventParts);

/// The input of the two constructors of an [`Event`].
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
    pub(crate) auth: Arc<str>,
    pub(crate) integrity: Integrity,
    pub(crate) request: EventRequest,
    pub(crate) body: Bytes,
}

/// The request that carried an event, without its body.
#[derive(Clone, Debug)]
pub struct EventRequest {
    /// The request method.
    pub method: String,
    /// The request target exactly as received.
    pub target: String,
    /// The sender's address.
    pub remote: SocketAddr,
    /// The W3C `traceparent` header.
    pub traceparent: Option<String>,
    /// The header fields in order, without credentials ([`crate::header_field::is_credential`]).
    pub headers: Vec<HeaderField>,
}

impl Event {
    /// Constructs an event from a delivery whose proof has been checked. Only for the verifier.
    pub(crate) fn from_verifier(parts: EventParts) -> Event {
        Event(parts)
    }

    /// Constructs an event from a frame whose checksum has been checked. Only for the journal's decoder.
    pub(crate) fn from_journal(parts: EventParts) -> Event {
        Event(parts)
    }

    /// Returns the event with this dedupe key.
    pub fn with_key(mut self, key: Option<EventKey>) -> Event {
        self.0.dedupe_key = key;
        self
    }

    /// Returns the time at which the delivery arrived.
    pub fn received_at(&self) -> UnixMillis {
        self.0.received_at
    }

    /// Returns the provider's own time of the event, if the delivery contains one.
    pub fn occurred_at(&self) -> Option<UnixMillis> {
        self.0.occurred_at
    }

    /// Returns the name of the source in the configuration.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Returns the Kafka topic, which was resolved on receipt.
    pub fn topic(&self) -> &Arc<str> {
        &self.0.topic
    }

    /// Returns the provider's event id: the first of the recipe's id fields that is present.
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// Returns the provider's event type, in the provider's spelling.
    pub fn event_type(&self) -> Option<&str> {
        self.0.event_type.as_deref()
    }

    /// Returns the prefix of the event type in `ce_type`, such as `com.stripe.`.
    pub fn type_prefix(&self) -> &str {
        &self.0.type_prefix
    }

    /// Returns the ordering key, if the recipe or the source names one.
    pub fn ordering_key(&self) -> Option<&str> {
        self.0.ordering_key.as_deref()
    }

    /// Returns the key that identifies duplicates of this event, or `None` for a keyless event, which has no duplicates.
    pub fn dedupe_key(&self) -> Option<EventKey> {
        self.0.dedupe_key
    }

    /// Returns scheme and name of the secret that verified the delivery, such as `mac-sha256:2026-11`.
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

    /// Returns the body, byte for byte as received.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }
}

/// The extent to which a proof covers its event (`hookhold-integrity`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// Body, id and type are signed.
    Full,
    /// The body is signed. The id or the type comes from unsigned headers.
    Body,
    /// Only parts of the event are signed.
    Partial,
    /// No part is signed: the proof is a token, or the source has no proof.
    None,
}

impl Integrity {
    /// All values, in the order of their codes in a frame.
    pub const ALL: [Integrity; 4] = [Integrity::Full, Integrity::Body, Integrity::Partial, Integrity::None];

    /// Returns the word used in recipes, record headers and the journal.
    pub fn word(self) -> &'static str {
        match self {
            Integrity::Full => "full",
            Integrity::Body => "body",
            Integrity::Partial => "partial",
            Integrity::None => "none",
        }
    }
}

/// Identifies one opening of a journal for writing. Random, displayed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub u64);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The place of an event in the journal. Exists only once the event is on disk, and stays the same when
/// frames are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The opening that first wrote the event.
    pub log: LogId,
    /// The event's sequence in this journal. Grows across openings.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.log, self.seq)
    }
}
