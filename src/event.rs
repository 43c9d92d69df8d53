//! The nouns that every room shares: [`Delivery`] (what arrived), [`Event`] (what was believed), [`EventKey`] (what makes
//! two deliveries the same), [`Position`] (where an event is kept) and [`Outcome`] (how a delivery ended).
//!
//! Nothing in here does I/O, and nothing knows HTTP servers, files or Kafka. An [`Event`] has two constructors: the
//! verifier's and the journal decoder's. A test reads `src/` and refuses a third caller, so nothing unverified can be kept.

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The same moment as RFC 3339 text in UTC with milliseconds, such as `2026-11-21T07:08:13.042Z`.
    pub fn rfc3339(self) -> String {
        let time = jiff::Timestamp::from_millisecond(self.0.min(i64::MAX as u64) as i64).unwrap_or(jiff::Timestamp::MAX);
        format!("{time:.3}")
    }

    /// Whole milliseconds from `earlier` to here; 0 when `earlier` is later.
    pub fn since(self, earlier: UnixMillis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time for `received_at`, timestamp windows and the expiry of keys. One clock is handed to everybody, so that
/// a test can stop it.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> UnixMillis;
}

/// The machine's own clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }
}

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

/// Who counts as one sender: an IPv4 address, or the /64 that a single IPv6 customer has at least.
pub fn sender(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
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

/// A keyed 128-bit hash of what identifies an event. Its hash key lives in the journal's meta file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey(pub [u8; 16]);

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventKey({})", base16ct::lower::encode_string(&self.0))
    }
}

/// Event keys are keyed hashes already, so eight of their bytes are as good as any hash of them. Safe only because the hash
/// is keyed: a sender may choose its ids.
#[derive(Default)]
pub struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk::<8>() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    fn write_usize(&mut self, _length_prefix: usize) {}
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

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:literal,)*) => {
        /// Every way in which a delivery can end. Status code, metric label and log word come from here alone.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome { $($(#[$doc])* $name,)* }

        impl Outcome {
            /// Every outcome.
            pub const ALL: &'static [Outcome] = &[$(Outcome::$name,)*];

            /// The log field and metric label `outcome`.
            pub fn word(self) -> &'static str {
                match self { $(Outcome::$name => $word,)* }
            }

            fn code(self) -> u16 {
                match self { $(Outcome::$name => $status,)* }
            }
        }
    };
}

outcomes! {
    /// Verified, on disk, new.
    Stored "stored" 200,
    /// A repeat of an event that is kept.
    Duplicate "duplicate" 200,
    /// An endpoint check of the provider, answered as its recipe says; never an event.
    Challenge "challenge" 200,
    /// Verified, but of a type that its source does not want; not kept.
    Filtered "filtered" 200,
    /// The header that carries the signature is absent.
    SignatureMissing "signature_missing" 401,
    /// The signature could not be read.
    SignatureMalformed "signature_malformed" 401,
    /// No configured secret makes this signature.
    SignatureMismatch "signature_mismatch" 401,
    /// Genuine, but signed too long ago.
    TimestampStale "timestamp_stale" 401,
    /// Genuine, but signed too far in the future.
    TimestampFuture "timestamp_future" 401,
    /// The source takes nothing from this address.
    AddressNotAllowed "address_not_allowed" 401,
    /// No source has this path.
    UnknownSource "unknown_source" 404,
    /// The source does not take this method.
    MethodNotAllowed "method_not_allowed" 405,
    /// The body is longer than the source allows.
    TooLarge "too_large" 413,
    /// More than this address or this source may send.
    RateLimited "rate_limited" 429,
    /// Not a request that this server can read.
    BadRequest "bad_request" 400,
    /// The rest of the request did not arrive in time.
    TooSlow "too_slow" 408,
    /// A key that verification needs could not be had.
    KeyUnavailable "key_unavailable" 503,
    /// The journal, or this topic's share of it, is used up.
    JournalFull "journal_full" 503,
    /// The disk refused the event.
    JournalFailed "journal_failed" 503,
    /// The process is about to end.
    Draining "draining" 503,
    /// More work is under way than can be finished in time.
    Overloaded "overloaded" 503,
    /// The answer's deadline is over; whether the event is kept is not said.
    Deadline "deadline" 503,
    /// The sender left before its last byte.
    Disconnected "disconnected" 499,
}

impl Outcome {
    /// The status code unless a recipe or the HTTP layer says otherwise. `disconnected` is never sent.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.code()).expect("every code above lies between 100 and 999")
    }

    /// True when the sender is told to come again (503, with Retry-After).
    pub fn is_our_trouble(self) -> bool {
        self.code() == 503
    }

    /// True when the answer is the recipe's ok reply.
    pub fn is_accepted(self) -> bool {
        matches!(self, Outcome::Stored | Outcome::Duplicate | Outcome::Filtered)
    }
}

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
