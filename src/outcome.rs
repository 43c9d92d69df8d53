//! Defines the closed set of outcomes of a delivery.

use http::StatusCode;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:literal,)*) => {
        /// The result of a delivery. Each result has a default status code, and a name in metrics and logs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome { $($(#[$doc])* $name,)* }

        impl Outcome {
            /// All outcomes, in declaration order.
            pub const ALL: &'static [Outcome] = &[$(Outcome::$name,)*];

            /// Returns the value of the log field `outcome` and of the metric label `outcome`.
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
    /// A new event that is verified and on disk.
    Stored "stored" 200,
    /// A duplicate of a stored event.
    Duplicate "duplicate" 200,
    /// The provider's endpoint challenge. hookhold sends the recipe's reply and does not store the challenge.
    Challenge "challenge" 200,
    /// A verified event whose type the source filters out. hookhold does not store the event.
    Filtered "filtered" 200,
    /// A request without a signature header.
    SignatureMissing "signature_missing" 401,
    /// A request whose signature hookhold cannot parse.
    SignatureMalformed "signature_malformed" 401,
    /// A request whose signature matches no configured secret.
    SignatureMismatch "signature_mismatch" 401,
    /// A delivery with a genuine signature and a timestamp that is too old.
    TimestampStale "timestamp_stale" 401,
    /// A delivery with a genuine signature and a timestamp that is too far in the future.
    TimestampFuture "timestamp_future" 401,
    /// A request from an address that the source does not accept.
    AddressNotAllowed "address_not_allowed" 401,
    /// A request without a client certificate, to a source that requires one.
    ClientCertificateMissing "client_certificate_missing" 401,
    /// A request with a client certificate that its source does not accept.
    ClientCertificateInvalid "client_certificate_invalid" 401,
    /// A request to a path that belongs to no source.
    UnknownSource "unknown_source" 404,
    /// A request with a method that the source does not accept.
    MethodNotAllowed "method_not_allowed" 405,
    /// A request with a body that is longer than the source allows.
    TooLarge "too_large" 413,
    /// A delivery that exceeds a limit of its sender's address or the rate limit of its source.
    RateLimited "rate_limited" 429,
    /// A request that hookhold cannot parse, or that exceeds a limit of the HTTP server.
    BadRequest "bad_request" 400,
    /// A request that did not arrive completely in time.
    TooSlow "too_slow" 408,
    /// A delivery that names a public key of its sender which the source lacks, so that hookhold cannot verify it.
    KeyUnavailable "key_unavailable" 503,
    /// A delivery with a genuine signature whose timestamp is outside the tolerance, or whose secret has expired, shortly after
    /// the wall clock has jumped. hookhold cannot tell whether its own clock is wrong.
    ClockJumped "clock_jumped" 503,
    /// An event that the journal rejects because the journal is full or the topic has reached `max_backlog`.
    JournalFull "journal_full" 503,
    /// An event that hookhold failed to write or to sync, or whose dedupe key hookhold failed to look up on disk.
    JournalFailed "journal_failed" 503,
    /// A delivery that hookhold rejects because hookhold is shutting down.
    Draining "draining" 503,
    /// A delivery that hookhold rejects because the disk is too slow, or because the requests in memory exceed `max_in_flight` or
    /// `max_requests`.
    Overloaded "overloaded" 503,
    /// A delivery whose deadline has passed. hookhold may store the event later.
    Deadline "deadline" 503,
    /// A request whose sender closed the connection before sending the last byte.
    Disconnected "disconnected" 499,
}

impl Outcome {
    /// Returns the default status code of the outcome. A recipe or the server may replace this code. The server never sends
    /// the code of `disconnected`.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.code()).expect("every code above is between 100 and 999")
    }

    /// Returns true if the default status code of the outcome is 503. hookhold, not the sender, caused such an outcome. The
    /// response has a Retry-After header, because the sender should retry.
    pub fn is_unavailable(self) -> bool {
        self.code() == 503
    }

    /// Returns the outcome with this name; `None` if this version does not know the name.
    pub fn of_word(word: &str) -> Option<Outcome> {
        Outcome::ALL.iter().copied().find(|outcome| outcome.word() == word)
    }

    /// Returns true if the response is the recipe's reply to an accepted delivery.
    pub fn is_accepted(self) -> bool {
        matches!(self, Outcome::Stored | Outcome::Duplicate | Outcome::Filtered)
    }
}
