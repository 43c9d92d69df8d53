//! Data types of a compiled recipe. hookhold compiles each recipe once, and the verifier interprets the compiled recipe. This
//! module does not read deliveries. The recipe language has only the features that the built-in recipes need.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode};

use crate::answer::Answer;
use crate::event::Integrity;
use crate::source::pointers::Pointers;

/// The compiled recipe of a provider. A recipe defines the signature scheme, the locations of an event's id, type, ordering key
/// and time, the endpoint challenges, the replies and the limits.
#[derive(Debug)]
pub struct Recipe {
    /// The provider's display name. Empty if an inline recipe sets no title.
    pub title: String,
    /// The signature scheme of the provider's deliveries.
    pub proof: MacProof,
    /// The location and tolerance of the signed timestamp, or `None` if the provider signs no timestamp.
    pub timestamp: Option<Timestamp>,
    /// The parts of an event that the signature covers. hookhold computes the coverage from the other parameters. A recipe
    /// cannot declare its own coverage.
    pub coverage: Coverage,
    /// The locators of an event's id, type, ordering key and time.
    pub event: EventLocators,
    /// All body locations that the recipe reads, merged so that one pass over a body finds all values.
    pub(crate) pointers: Pointers,
    /// The provider's endpoint challenges. If a delivery matches several challenges, hookhold uses the first one. hookhold
    /// replies to a challenge before deduplication and never stores the challenge.
    pub challenges: Vec<Challenge>,
    /// The responses to accepted and rejected deliveries.
    pub replies: Replies,
    /// The limits and retry behaviour that the provider documents.
    pub limits: ProviderLimits,
    /// Instructions for the operator who connects the provider.
    pub setup: Setup,
}

impl Recipe {
    /// Returns true if the signed content contains the URL.
    pub fn signs_url(&self) -> bool {
        self.proof.signs_url()
    }
}

/// A signature scheme that uses a message authentication code (MAC) over parts of the request.
#[derive(Debug)]
pub struct MacProof {
    /// The hash function of the HMAC.
    pub algorithm: Algorithm,
    /// The encoding of the MAC in the signature header.
    pub encoding: Encoding,
    /// The header that contains the signatures, and its syntax.
    pub signature: SignatureFormat,
    /// The steps that decode a configured secret into the bytes of the key.
    pub key_format: KeyFormat,
    /// At least one alternative for the signed content. Each alternative is an ordered list of terms. The sender signs one of
    /// the alternatives.
    pub contents: Vec<Vec<Term>>,
    /// True if the signature covers the decoded fields of a form instead of the body's bytes.
    pub signs_form: bool,
    /// True if the signed content, the timestamp or an event locator reads a tag of the signature header. In that case, the
    /// verifier checks each group of signatures separately.
    pub reads_tags: bool,
    /// The query parameter of a signed URL whose value is the body's hash, or `None` if the provider signs the body itself.
    pub body_sha256: Option<BodyHash>,
}

impl MacProof {
    /// Returns true if the signed content contains the URL.
    pub fn signs_url(&self) -> bool {
        self.contents.iter().flatten().any(|term| matches!(term, Term::Url | Term::UrlOtherPort))
    }

    /// Returns true if the signed content contains the text of the event id ([`Term::Id`]). A signature over this term does not
    /// cover the name of the header or tag that contains the id.
    pub fn signs_id(&self) -> bool {
        self.contents.iter().any(|content| content.contains(&Term::Id))
    }

    /// Returns the scheme's name, such as `mac-sha256`. In the record header `hookhold-auth`, this name precedes the name of
    /// the secret.
    pub fn scheme(&self) -> String {
        format!("mac-{}", self.algorithm.word())
    }
}

/// The parts of an event that a signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The value of the record header `hookhold-integrity`.
    pub integrity: Integrity,
    /// True if the verifier reads every event id from signed bytes.
    pub id_signed: bool,
}

/// The responses to accepted and rejected deliveries.
#[derive(Debug)]
pub struct Replies {
    /// The reply to an accepted delivery.
    pub accepted: Reply,
    /// The status of the response to a rejected delivery.
    pub rejected: StatusCode,
}

/// The limits and retry behaviour that a provider documents. A field is `None` if the provider does not document the value.
#[derive(Debug)]
pub struct ProviderLimits {
    /// The time for which the provider waits for a response.
    pub respond_within: Option<Duration>,
    /// The time over which the provider retries an event. Zero if the provider never retries automatically.
    pub gives_up_after: Option<Duration>,
    /// The success rate at or below which the provider disables an endpoint.
    pub switches_off_at: Option<SwitchOff>,
    /// The size of the largest body that the provider sends, in bytes.
    pub max_body: Option<u64>,
}

/// The hash function of an HMAC.
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
    /// Every algorithm, and its name in the recipe language.
    pub const WORDS: &[(&str, Algorithm)] =
        &[("sha1", Algorithm::Sha1), ("sha256", Algorithm::Sha256), ("sha384", Algorithm::Sha384), ("sha512", Algorithm::Sha512)];

    /// Returns the algorithm's name, as used in the recipe language and in the record header `hookhold-auth`.
    pub fn word(self) -> &'static str {
        Algorithm::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }

    /// Returns the length of the algorithm's MACs in bytes.
    pub fn size(self) -> usize {
        match self {
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
            Algorithm::Sha512 => 64,
        }
    }
}

/// A text encoding of a signature, a hash or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal digits, upper or lower case.
    Hex,
    /// The standard Base64 alphabet, with padding.
    Base64,
    /// The URL-safe Base64 alphabet, with or without padding.
    Base64Url,
}

impl Encoding {
    /// Every encoding, and its name in the recipe language.
    pub const WORDS: &[(&str, Encoding)] =
        &[("hex", Encoding::Hex), ("base64", Encoding::Base64), ("base64url", Encoding::Base64Url)];

    /// Returns the encoding's name in the recipe language.
    pub fn word(self) -> &'static str {
        Encoding::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }
}

/// The names and the syntax of the headers that contain signatures.
#[derive(Debug)]
pub struct SignatureFormat {
    /// The names of the signature headers. The verifier reads all values of the first listed header that the request contains.
    pub from: Vec<HeaderName>,
    /// The separator between groups of signatures. A tag applies to the signatures of its own group.
    pub groups: Option<String>,
    /// The separator between the items of a group of signatures.
    pub items: Option<String>,
    /// The separator between an item's tag and its value.
    pub pair: Option<String>,
    /// The names of the tags whose values are signatures. [`Locator::Tag`] can read all other tags.
    pub take: Vec<String>,
    /// The prefix of every signature, such as `sha256=`. The verifier ignores a value without this prefix.
    pub prefix: String,
    /// True if the verifier removes whitespace around the items, tags and values of a signature header.
    pub trim: bool,
}

/// The steps that decode a configured secret into the bytes of a key.
#[derive(Debug, Default)]
pub struct KeyFormat {
    /// The prefixes that hookhold removes from a secret, in the listed order. hookhold skips a prefix if the secret does not
    /// start with it.
    pub strip: Vec<String>,
    /// The encoding of the part of a secret that follows the prefixes, or `None` if this part is the key itself.
    pub encoding: Option<Encoding>,
}

/// One term of the signed content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// A fixed text from the recipe.
    Literal(String),
    /// The bytes of the request body as received.
    Body,
    /// The text of the signed timestamp as received.
    Timestamp,
    /// The text of the event id as received.
    Id,
    /// The value of a request header.
    Header(HeaderName),
    /// The value of a tag in the signature header.
    Tag(String),
    /// The configured public URL, followed by the request target as received.
    Url,
    /// The URL of [`Term::Url`], except for the port. If the configured URL has a port, this term omits the port. Otherwise,
    /// this term adds the scheme's default port.
    UrlOtherPort,
    /// The decoded names and values of a form, sorted by name and then by value, without separators and without repeated pairs.
    /// Empty if the signed URL contains the body's hash ([`MacProof::body_sha256`]).
    FormSorted,
}

/// The query parameter of a signed URL whose value is the body's hash. If a request has this parameter, its body must have this
/// hash. A recipe with this parameter has the integrity [`Integrity::Partial`], as for a signed form, because an attacker could
/// forge the parameter. In the signed content, the text of a form directly follows the URL, and the verifier accepts the
/// parameter at any position in the query. The attacker could therefore take a signed form whose text looks like this
/// parameter, append the text to the URL, and send the request with a different body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyHash {
    /// The name of the query parameter that contains the hash.
    pub query: String,
    /// The encoding of the hash in the query parameter.
    pub encoding: Encoding,
}

/// The location of a value in a delivery, such as a header or a JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locator {
    /// The first value of the request header with this name.
    Header(HeaderName),
    /// The value of the tag with this name in the signature header. The verifier uses the tag in the signature's group. If this
    /// group has no such tag, the verifier uses the first tag with this name in the header.
    Tag(String),
    /// The undecoded value of the first query parameter with this name.
    Query(String),
    /// A fixed text from the recipe.
    Const(String),
    /// The index of a location in the body, as assigned by the recipe's pointers. The value at the location is a string,
    /// integer or boolean in a JSON body, or the value of a form field.
    Body(usize),
}

/// Alternative locations of a value such as the event id, in order of preference. The verifier uses the first alternative whose
/// fields are all present.
#[derive(Debug, Default)]
pub struct Choice(pub Vec<Vec<Locator>>);

/// The locators of an event's id, type, ordering key and time.
#[derive(Debug, Default)]
pub struct EventLocators {
    /// The locators of the event id, which does not change when the provider retries.
    pub id: Choice,
    /// The locators of the event type. The verifier joins the fields of an alternative with a dot.
    pub kind: Choice,
    /// The prefix that hookhold adds to the event type in `ce_type`.
    pub type_prefix: Arc<str>,
    /// The locators of the ordering key.
    pub key: Choice,
    /// The locators of the event's time. The verifier uses the first locator whose text is a valid time.
    pub time: Vec<(Locator, TimeUnit)>,
}

/// The location, format and tolerance of a signed timestamp.
#[derive(Debug)]
pub struct Timestamp {
    /// The locators of the timestamp. The verifier uses the first alternative that is present.
    pub from: Choice,
    /// The text format of the timestamp.
    pub unit: TimeUnit,
    /// The maximum age of the timestamp.
    pub past: Duration,
    /// The maximum time by which the timestamp may be in the future.
    pub future: Duration,
}

/// A text format for timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since 1970, written in decimal digits.
    Seconds,
    /// Milliseconds since 1970, written in decimal digits.
    Millis,
    /// RFC 3339 date and time, such as `2026-11-21T07:08:13Z`.
    Rfc3339,
}

impl TimeUnit {
    /// Every time format, and its name in the recipe language.
    pub const WORDS: &[(&str, TimeUnit)] = &[("s", TimeUnit::Seconds), ("ms", TimeUnit::Millis), ("rfc3339", TimeUnit::Rfc3339)];
}

/// The response to an accepted delivery or an endpoint challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status of the response, 200 to 299.
    pub status: StatusCode,
    /// The media type of the response body, or `None` to send no content type.
    pub content_type: Option<Arc<str>>,
    /// The response body, usually empty.
    pub body: Bytes,
}

impl Reply {
    /// Replaces the status, content type and body of `answer` with those of this reply. Does not change the other fields of
    /// `answer`.
    pub fn over(self, answer: Answer) -> Answer {
        Answer { status: self.status, content_type: self.content_type, body: self.body, ..answer }
    }
}

/// An endpoint challenge: a request that a provider sends to check an endpoint. If a delivery meets the conditions but lacks a
/// text that the reply must echo, the verifier treats the delivery as an ordinary delivery.
#[derive(Debug)]
pub struct Challenge {
    /// The conditions that identify the challenge. A delivery must meet all conditions.
    pub when: Vec<(Locator, TextMatch)>,
    /// True if the provider signs the challenge. hookhold replies to a signed challenge only after it has verified the
    /// signature.
    pub authenticated: bool,
    /// The status of the reply to the challenge, 200 to 299.
    pub status: StatusCode,
    /// The media type of the reply's body, or `None` to send no content type.
    pub content_type: Option<Arc<str>>,
    /// The parts of the reply's body, in the order in which hookhold joins them.
    pub body: Vec<ReplyPart>,
}

/// The text that an endpoint challenge must have at a locator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// Any non-empty text.
    Any,
    /// Exactly this text, which the recipe defines.
    Exactly(String),
}

/// One part of the response body for an endpoint challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyPart {
    /// A fixed text from the recipe.
    Literal(String),
    /// The text at a locator of the challenge, copied unchanged.
    Echo(Locator),
}

/// The success rate at or below which a provider disables an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchOff {
    /// The percentage of deliveries that receive a 2xx response, 0 to 99. The provider disables the endpoint at or below this
    /// percentage.
    pub percent: u8,
    /// The period over which the provider measures the percentage.
    pub within: Duration,
}

/// Instructions for the operator who connects a provider. If an inline recipe has no `setup`, `sample_type` is `sample.created`
/// and all other fields are empty.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The page of the provider's dashboard where the operator enters the URL.
    pub url: String,
    /// The dashboard page or other place where the operator finds the secret.
    pub secret: String,
    /// The event type of sample deliveries, one of the provider's own types.
    pub sample_type: String,
    /// The documentation pages and source files that the recipe is based on.
    pub facts: Vec<String>,
}
