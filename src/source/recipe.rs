//! Data types of the recipe language. hookhold compiles each recipe into these types once, and the verifier interprets them.
//! This module reads no deliveries. The language has only the features that the compiled-in recipes need.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode};

use crate::answer::Answer;
use crate::event::Integrity;
use crate::source::pointers::Pointers;

/// A provider's recipe: the signature scheme, the locations of event facts, the endpoint challenges, the replies and the
/// limits.
#[derive(Debug)]
pub struct Recipe {
    /// The provider's display name. Empty for an inline recipe without a title.
    pub title: String,
    /// The proof of origin that every delivery carries.
    pub proof: MacProof,
    /// The location and tolerance of the signing time, or `None` if the provider signs no time.
    pub timestamp: Option<Timestamp>,
    /// The part of an event that the proof covers. hookhold computes the coverage from the recipe's other parts. A recipe
    /// cannot declare its own coverage.
    pub coverage: Coverage,
    /// The locators of an event's id, type, ordering key and time.
    pub event: EventLocators,
    /// All locations in the body that `event` and `challenges` point to, merged for one pass over the body.
    pub(crate) pointers: Pointers,
    /// The provider's endpoint challenges. hookhold replies to a delivery that matches a challenge before deduplication, and
    /// never stores it. The first match is used.
    pub challenges: Vec<Challenge>,
    /// The answers to accepted and rejected deliveries.
    pub replies: Replies,
    /// The limits and retry behaviour that the provider documents.
    pub limits: ProviderLimits,
    /// Instructions for the operator who connects the provider.
    pub setup: Setup,
}

impl Recipe {
    /// True if the URL is part of the signed content.
    pub fn signs_url(&self) -> bool {
        self.proof.signs_url()
    }
}

/// A message authentication code over parts of the request.
#[derive(Debug)]
pub struct MacProof {
    /// The hash function under the HMAC.
    pub algorithm: Algorithm,
    /// The encoding of the MAC in a signature.
    pub encoding: Encoding,
    /// The location and syntax of the signatures.
    pub signature: SignatureFormat,
    /// The steps that decode the configured text to the key's bytes.
    pub key_format: KeyFormat,
    /// The alternatives of the signed content, at least one. Each alternative is an ordered list of terms, and a signature may
    /// cover any alternative.
    pub contents: Vec<Vec<Term>>,
    /// True if the fields of a form are signed instead of the body's bytes.
    pub signs_form: bool,
    /// True if the content, the time or a fact depends on tags next to the signature. In that case the verifier checks each
    /// group of signatures separately.
    pub reads_tags: bool,
    /// The location of the body's hash in a signed URL, or `None` for schemes that sign the body itself.
    pub body_sha256: Option<BodyHash>,
}

impl MacProof {
    /// True if the URL is part of the signed content.
    pub fn signs_url(&self) -> bool {
        self.contents.iter().flatten().any(|term| matches!(term, Term::Url | Term::UrlOtherPort))
    }

    /// True if the text of the event id is part of the signed content, regardless of the header that contains the text.
    pub fn signs_id(&self) -> bool {
        self.contents.iter().any(|content| content.contains(&Term::Id))
    }

    /// Returns the part before the secret's name in `hookhold-auth`, such as `mac-sha256`.
    pub fn scheme(&self) -> String {
        format!("mac-{}", self.algorithm.word())
    }
}

/// The part of an event that a proof covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The value of `hookhold-integrity`.
    pub integrity: Integrity,
    /// True if every event id is read from the signed bytes.
    pub id_signed: bool,
}

/// The answers to accepted and rejected deliveries.
#[derive(Debug)]
pub struct Replies {
    /// The reply to an accepted delivery.
    pub accepted: Reply,
    /// The status for a rejected delivery.
    pub rejected: StatusCode,
}

/// The limits and retry behaviour that a provider documents. A field is `None` if the provider does not document it.
#[derive(Debug)]
pub struct ProviderLimits {
    /// The time for which the provider waits for an answer.
    pub respond_within: Option<Duration>,
    /// The time over which the provider retries an event, or zero if the provider never retries automatically.
    pub gives_up_after: Option<Duration>,
    /// The success rate at which the provider disables an endpoint.
    pub switches_off_at: Option<SwitchOff>,
    /// The size of the largest body that the provider sends, in bytes.
    pub max_body: Option<u64>,
}

/// The hash function under an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA1, 20 bytes.
    Sha1,
    /// HMAC-SHA256, 32 bytes.
    Sha256,
    /// HMAC-SHA384, 48 bytes.
    Sha384,
    /// HMAC-SHA512, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// Every algorithm with its word in the recipe language.
    pub const WORDS: &[(&str, Algorithm)] =
        &[("sha1", Algorithm::Sha1), ("sha256", Algorithm::Sha256), ("sha384", Algorithm::Sha384), ("sha512", Algorithm::Sha512)];

    /// Returns the algorithm's word in the recipe language and in `hookhold-auth`.
    pub fn word(self) -> &'static str {
        Algorithm::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }

    /// Returns the length of the MAC in bytes.
    pub fn size(self) -> usize {
        match self {
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
            Algorithm::Sha512 => 64,
        }
    }
}

/// A text encoding of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal digits of either case.
    Hex,
    /// The standard Base64 alphabet, with padding.
    Base64,
    /// The URL-safe Base64 alphabet, with or without padding.
    Base64Url,
}

impl Encoding {
    /// Every encoding with its word in the recipe language.
    pub const WORDS: &[(&str, Encoding)] =
        &[("hex", Encoding::Hex), ("base64", Encoding::Base64), ("base64url", Encoding::Base64Url)];

    /// Returns the encoding's word in the recipe language.
    pub fn word(self) -> &'static str {
        Encoding::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }
}

/// The location of the signatures in a request, and the syntax of their header.
#[derive(Debug)]
pub struct SignatureFormat {
    /// The header names. The verifier reads all values of the first of these headers that the request has.
    pub from: Vec<HeaderName>,
    /// The separator between groups. A tag belongs to the signatures of its own group.
    pub groups: Option<String>,
    /// The separator between the items of a group.
    pub items: Option<String>,
    /// The separator between the tag and the value of an item.
    pub pair: Option<String>,
    /// The tags whose values are signatures. All other tags are available to [`Locator::Tag`].
    pub take: Vec<String>,
    /// The text in front of every signature. A value without this prefix is not a signature.
    pub prefix: String,
    /// True if the verifier removes whitespace around items, tags and values.
    pub trim: bool,
}

/// The steps that decode the configured text to the key's bytes.
#[derive(Debug, Default)]
pub struct KeyFormat {
    /// The prefixes to remove from the text if present, in this order.
    pub strip: Vec<String>,
    /// The encoding of the text without its prefixes, or `None` if the bytes of that text are the key.
    pub encoding: Option<Encoding>,
}

/// One part of the signed content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// Fixed text.
    Literal(String),
    /// The body's bytes as received.
    Body,
    /// The text of the timestamp as received.
    Timestamp,
    /// The text of the event id as received.
    Id,
    /// The value of a header.
    Header(HeaderName),
    /// The value of a tag in the signature header.
    Tag(String),
    /// The public URL as configured, followed by the request target as received.
    Url,
    /// Like [`Term::Url`], but with the scheme's default port if the configured URL has no port, and without its port
    /// otherwise.
    UrlOtherPort,
    /// The decoded names and values of a form, sorted by name and then by value, without separators and without repeated pairs.
    /// Empty if [`MacProof::body_sha256`] proves the body.
    FormSorted,
}

/// The hash of a body inside the signed URL. If the request has the query parameter, the body must match the hash. The hash
/// proves no more than signed form fields do: the fields directly follow the URL in the signed content, so an attacker could
/// replay some forms as a URL with this parameter and another body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyHash {
    /// The query parameter that contains the hash.
    pub query: String,
    /// The encoding of the hash.
    pub encoding: Encoding,
}

/// The location of one fact in a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locator {
    /// The first value of a header.
    Header(HeaderName),
    /// A tag of the signature's group.
    Tag(String),
    /// The undecoded value of the first query parameter with this name.
    Query(String),
    /// A fixed text from the recipe itself.
    Const(String),
    /// A slot of the recipe's pointers: a string, number or boolean inside a JSON body or a form.
    Body(usize),
}

/// The alternatives of a fact, in order. The verifier uses the first alternative whose fields are all present.
#[derive(Debug, Default)]
pub struct Choice(pub Vec<Vec<Locator>>);

/// The locators of the facts about an event.
#[derive(Debug, Default)]
pub struct EventLocators {
    /// The event id, which does not change when the provider retries.
    pub id: Choice,
    /// The event type. The fields of an alternative are joined with a dot.
    pub kind: Choice,
    /// The prefix of the event type in `ce_type`.
    pub type_prefix: Arc<str>,
    /// The ordering key.
    pub key: Choice,
    /// The locators of the event's time. The verifier uses the first locator whose text is a valid time.
    pub time: Vec<(Locator, TimeUnit)>,
}

/// The location of the signing time, and its tolerance around the current time.
#[derive(Debug)]
pub struct Timestamp {
    /// The locators of the text. The verifier uses the first alternative that is present.
    pub from: Choice,
    /// The format of the text.
    pub unit: TimeUnit,
    /// The maximum age of the signing time.
    pub past: Duration,
    /// The maximum distance of the signing time into the future.
    pub future: Duration,
}

/// A text format for times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since 1970, decimal digits only.
    Seconds,
    /// Milliseconds since 1970, decimal digits only.
    Millis,
    /// RFC 3339, such as `2026-11-21T07:08:13Z`.
    Rfc3339,
}

impl TimeUnit {
    /// Every unit with its word in the recipe language.
    pub const WORDS: &[(&str, TimeUnit)] = &[("s", TimeUnit::Seconds), ("ms", TimeUnit::Millis), ("rfc3339", TimeUnit::Rfc3339)];
}

/// The reply to an accepted delivery or an endpoint challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, 200 to 299.
    pub status: StatusCode,
    /// The body's media type.
    pub content_type: Option<Arc<str>>,
    /// The body, usually empty.
    pub body: Bytes,
}

impl Reply {
    /// Replaces the status, content type and body of an answer. Leaves the answer's outcome and hint unchanged.
    pub fn over(self, answer: Answer) -> Answer {
        Answer { status: self.status, content_type: self.content_type, body: self.body, ..answer }
    }
}

/// An endpoint challenge, which a provider sends to check an endpoint. A delivery that matches but lacks a text that the reply
/// must echo is an ordinary delivery.
#[derive(Debug)]
pub struct Challenge {
    /// The texts that identify the challenge. A delivery must match all of these texts.
    pub when: Vec<(Locator, TextMatch)>,
    /// True if the provider signs the challenge. hookhold replies to a signed challenge only after it has verified the
    /// signature.
    pub authenticated: bool,
    /// The status of the reply, 200 to 299.
    pub status: StatusCode,
    /// The reply's media type.
    pub content_type: Option<Arc<str>>,
    /// The parts of the reply's body, in order.
    pub body: Vec<ReplyPart>,
}

/// The text that a challenge must have at a locator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// Any text except the empty text.
    Any,
    /// Exactly this text.
    Exactly(String),
}

/// One part of the reply to a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyPart {
    /// Fixed text.
    Literal(String),
    /// The text at a locator, unchanged.
    Echo(Locator),
}

/// The success rate at which a provider disables an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchOff {
    /// The percentage of deliveries with a 2xx, 0 to 99. The provider disables the endpoint at or below this percentage.
    pub percent: u8,
    /// The time over which the provider measures the percentage.
    pub within: Duration,
}

/// Instructions for the operator who connects a provider. The texts are empty for an inline recipe without `setup`.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The page of the provider's dashboard on which the operator enters the URL.
    pub url: String,
    /// The page or text that shows the secret.
    pub secret: String,
    /// An event type of this provider, for samples.
    pub sample_type: String,
    /// The pages and source files on which the recipe is based.
    pub facts: Vec<String>,
}
