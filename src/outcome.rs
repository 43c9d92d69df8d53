//! The closed set of ways in which a delivery ends.

use http::StatusCode;

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
    pub fn is_unavailable(self) -> bool {
        self.code() == 503
    }

    /// True when the answer is the recipe's ok reply.
    pub fn is_accepted(self) -> bool {
        matches!(self, Outcome::Stored | Outcome::Duplicate | Outcome::Filtered)
    }
}
