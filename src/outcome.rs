//! The closed set of results of a delivery.

use http::StatusCode;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:literal,)*) => {
        /// The result of a delivery. Defines the status code, the metric label and the log word in one place.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome { $($(#[$doc])* $name,)* }

        impl Outcome {
            /// All outcomes.
            pub const ALL: &'static [Outcome] = &[$(Outcome::$name,)*];

            /// Returns the value of the log field and metric label `outcome`.
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
    /// The event is new, verified and on disk.
    Stored "stored" 200,
    /// The delivery is a duplicate of a stored event.
    Duplicate "duplicate" 200,
    /// The delivery is the provider's endpoint challenge. The recipe defines its answer. Never stored.
    Challenge "challenge" 200,
    /// The event is verified, but its source filters out this type. Not stored.
    Filtered "filtered" 200,
    /// The request has no signature header.
    SignatureMissing "signature_missing" 401,
    /// The signature cannot be parsed.
    SignatureMalformed "signature_malformed" 401,
    /// No configured secret produces this signature.
    SignatureMismatch "signature_mismatch" 401,
    /// The signature is genuine, but its timestamp is too old.
    TimestampStale "timestamp_stale" 401,
    /// The signature is genuine, but its timestamp is too far in the future.
    TimestampFuture "timestamp_future" 401,
    /// The source does not accept deliveries from this address.
    AddressNotAllowed "address_not_allowed" 401,
    /// No source has this path.
    UnknownSource "unknown_source" 404,
    /// The source does not accept this method.
    MethodNotAllowed "method_not_allowed" 405,
    /// The body is longer than the source allows.
    TooLarge "too_large" 413,
    /// The sender's address or the source is over its rate limit.
    RateLimited "rate_limited" 429,
    /// The request cannot be parsed, or exceeds a limit of HTTP.
    BadRequest "bad_request" 400,
    /// The rest of the request did not arrive in time.
    TooSlow "too_slow" 408,
    /// A public key that verification needs could not be fetched.
    KeyUnavailable "key_unavailable" 503,
    /// The journal, or this topic's share of it, is full.
    JournalFull "journal_full" 503,
    /// Writing or syncing the event failed.
    JournalFailed "journal_failed" 503,
    /// The gateway is shutting down.
    Draining "draining" 503,
    /// More requests are being processed than can finish in time.
    Overloaded "overloaded" 503,
    /// The deadline of the delivery has passed. Its event may be stored later.
    Deadline "deadline" 503,
    /// The sender closed the connection before the last byte of the request.
    Disconnected "disconnected" 499,
}

impl Outcome {
    /// Returns the default status code, which a recipe or the HTTP layer may replace. The code of `disconnected` is never sent.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.code()).expect("every code above is between 100 and 999")
    }

    /// Returns true for an outcome that the gateway causes (503). The sender should retry and gets a Retry-After.
    pub fn is_unavailable(self) -> bool {
        self.code() == 503
    }

    /// Returns true if the response is the recipe's reply to an accepted delivery.
    pub fn is_accepted(self) -> bool {
        matches!(self, Outcome::Stored | Outcome::Duplicate | Outcome::Filtered)
    }
}
