//! The scheme language as data: what a recipe says, compiled once. The verifier interprets it; nothing in here touches a
//! delivery. The vocabulary is the part of the language that today's recipes use.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode};

use crate::answer::Answer;
use crate::event::Integrity;
use crate::source::pointers::Pointers;

/// How one provider proves and describes its deliveries.
#[derive(Debug)]
pub struct Recipe {
    /// The provider's name as people write it; empty for an inline recipe without one.
    pub title: String,
    /// The hash under the message authentication code.
    pub algorithm: Algorithm,
    /// How the code is written in the signature.
    pub encoding: Encoding,
    /// Where the signatures stand.
    pub signature: Signature,
    /// How the configured text becomes the key's bytes.
    pub key_format: KeyFormat,
    /// What is signed, in order; alternatives of which any may have been, at least one.
    pub contents: Vec<Vec<Term>>,
    /// True when the fields of a form are signed in place of the body's bytes.
    pub signs_form: bool,
    /// True when content, time or facts depend on tags beside the signature, so that groups of signatures differ.
    pub reads_tags: bool,
    /// Where a signed URL holds the body's hash; `None` for schemes that sign the body itself.
    pub body_sha256: Option<BodyHash>,
    /// When it was signed; `None` when the scheme signs no time.
    pub timestamp: Option<Timestamp>,
    /// Where the event's own facts are.
    pub event: Facts,
    /// All places in the body that `event` and `challenges` point to, for one pass over it.
    pub pointers: Pointers,
    /// How much of an event the proof covers; computed from `contents` and `event`, never declared.
    pub integrity: Integrity,
    /// True when no id can come from outside the signed bytes.
    pub id_signed: bool,
    /// The provider's checks of the endpoint, answered before admission and never kept; the first that fits counts.
    pub challenges: Vec<Challenge>,
    /// The answer to an accepted delivery.
    pub ok: Reply,
    /// The status of a refused one.
    pub bad: StatusCode,
    /// The provider gives up waiting after this time.
    pub respond_within: Option<Duration>,
    /// The provider stops sending an event again after this time. Zero: it never sends again by itself.
    pub gives_up_after: Option<Duration>,
    /// When the provider stops sending to an endpoint that fails too often; `None` where it does not say.
    pub switches_off_at: Option<SwitchOff>,
    /// The largest body the provider sends, in bytes.
    pub max_body: Option<u64>,
    /// What an operator needs to connect it.
    pub setup: Setup,
}

impl Recipe {
    /// True when the URL is part of what is signed.
    pub fn signs_url(&self) -> bool {
        self.contents.iter().flatten().any(|term| matches!(term, Term::Url | Term::UrlOtherPort))
    }

    /// True when the text of the id is a part of what is signed, wherever it stands.
    pub fn signs_id(&self) -> bool {
        self.contents.iter().any(|content| content.contains(&Term::Id))
    }

    /// What stands before the secret's name in `hookhold-auth`.
    pub fn scheme(&self) -> String {
        format!("mac-{}", self.algorithm.word())
    }
}

/// The hash under a message authentication code.
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
    /// Every algorithm with its word in recipes.
    pub const WORDS: &[(&str, Algorithm)] =
        &[("sha1", Algorithm::Sha1), ("sha256", Algorithm::Sha256), ("sha384", Algorithm::Sha384), ("sha512", Algorithm::Sha512)];

    /// The word in recipes and in `hookhold-auth`.
    pub fn word(self) -> &'static str {
        Algorithm::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }

    /// The length of the code in bytes.
    pub fn size(self) -> usize {
        match self {
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
            Algorithm::Sha512 => 64,
        }
    }
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal digits of either case.
    Hex,
    /// The standard alphabet with padding.
    Base64,
    /// The URL-safe alphabet, padded or not.
    Base64Url,
}

impl Encoding {
    /// Every encoding with its word in recipes.
    pub const WORDS: &[(&str, Encoding)] =
        &[("hex", Encoding::Hex), ("base64", Encoding::Base64), ("base64url", Encoding::Base64Url)];

    /// The word in recipes.
    pub fn word(self) -> &'static str {
        Encoding::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }
}

/// Where signatures stand and how they are taken apart.
#[derive(Debug)]
pub struct Signature {
    /// Header names; the first one that the request has counts, with all its repeats.
    pub from: Vec<HeaderName>,
    /// Separates groups; tags belong to the signatures of their own group.
    pub groups: Option<String>,
    /// Separates items inside a group.
    pub items: Option<String>,
    /// Separates an item's tag from its value.
    pub pair: Option<String>,
    /// The tags whose values are signatures; all others are only kept for [`Locator::Tag`].
    pub take: Vec<String>,
    /// Stands before every signature and is taken off; a value without it is no signature.
    pub prefix: String,
    /// Whether white space around items, tags and values is dropped.
    pub trim: bool,
}

/// The steps from the configured text to the key.
#[derive(Debug, Default)]
pub struct KeyFormat {
    /// Taken off where they stand at the front, one after the other.
    pub strip: Vec<String>,
    /// How the rest is decoded; `None`: its own bytes.
    pub encoding: Option<Encoding>,
}

/// One part of the signed content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// Fixed text.
    Literal(String),
    /// The body's wire bytes.
    Body,
    /// The text of the timestamp exactly as received.
    Timestamp,
    /// The text of the event id exactly as received.
    Id,
    /// The value of a header.
    Header(HeaderName),
    /// The value of a tag in the signature header.
    Tag(String),
    /// The public URL as configured, and the request target as it arrived.
    Url,
    /// The same with the scheme's own port where none is configured, and without the port where one is.
    UrlOtherPort,
    /// The names and values of a form, decoded, sorted by name and then by value, equal pairs once, with nothing between
    /// them. Nothing at all where [`Recipe::body_sha256`] proves the body.
    FormSorted,
}

/// The hash of a body inside the signed URL. Where it is present it must be the body's. It proves no more than a form's fields
/// do: those follow the URL in what is signed, so some forms could be shown as a URL with such a parameter and another body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyHash {
    /// The query parameter that holds it.
    pub query: String,
    /// How it is written.
    pub encoding: Encoding,
}

/// Where one fact of a delivery is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locator {
    /// The first value of a header.
    Header(HeaderName),
    /// A tag of the signature's group.
    Tag(String),
    /// The first query parameter of a name, its value as it arrived, not decoded.
    Query(String),
    /// Always the same text, to name what the recipe knows.
    Const(String),
    /// A slot of [`Recipe::pointers`]: a text, number or truth value inside a JSON body or a form.
    Body(usize),
}

/// Alternatives in order: the first whose every field is present counts.
#[derive(Debug, Default)]
pub struct Choice(pub Vec<Vec<Locator>>);

/// Where the event's own facts are.
#[derive(Debug, Default)]
pub struct Facts {
    /// What stays the same through the provider's retries.
    pub id: Choice,
    /// The event's type; the fields of an alternative are joined with a dot.
    pub kind: Choice,
    /// What stands before the type in `ce_type`.
    pub type_prefix: Arc<str>,
    /// The ordering key.
    pub key: Choice,
    /// The event's own time; the first alternative that can be read counts.
    pub time: Vec<(Locator, Unit)>,
}

/// When a delivery was signed, and how far from now that may be.
#[derive(Debug)]
pub struct Timestamp {
    /// Where its text is; the first that is present counts.
    pub from: Choice,
    /// How its text is read.
    pub unit: Unit,
    /// The oldest that is accepted.
    pub past: Duration,
    /// The farthest ahead that is accepted.
    pub future: Duration,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds since 1970, decimal digits only.
    Seconds,
    /// Milliseconds since 1970, decimal digits only.
    Millis,
    /// RFC 3339, such as `2026-11-21T07:08:13Z`.
    Rfc3339,
}

impl Unit {
    /// Every unit with its word in recipes.
    pub const WORDS: &[(&str, Unit)] = &[("s", Unit::Seconds), ("ms", Unit::Millis), ("rfc3339", Unit::Rfc3339)];
}

/// What an accepted delivery is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 299.
    pub status: StatusCode,
    /// The body's media type.
    pub content_type: Option<Arc<str>>,
    /// Usually empty.
    pub body: Bytes,
}

impl Reply {
    /// The same ending with this reply.
    pub fn over(self, answer: Answer) -> Answer {
        Answer { status: self.status, content_type: self.content_type, body: self.body, ..answer }
    }
}

/// A check of the endpoint by its provider. A delivery that fits but lacks what the reply echoes is a delivery like any
/// other.
#[derive(Debug)]
pub struct Challenge {
    /// What it is known by, all of it: a place, and the text there; `None`: any.
    pub when: Vec<(Locator, Option<String>)>,
    /// Whether the provider signs it. One that it signs is answered only once it is proved.
    pub authenticated: bool,
    /// 200 to 299.
    pub status: StatusCode,
    /// The reply's media type.
    pub content_type: Option<Arc<str>>,
    /// The reply's body, in order.
    pub body: Vec<Part>,
}

/// One part of the reply to a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Fixed text.
    Literal(String),
    /// What stands at a place of the delivery, as it is.
    Echo(Locator),
}

/// When a provider switches an endpoint off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchOff {
    /// 0 to 99: at this percentage of deliveries answered 2xx, or below it.
    pub percent: u8,
    /// The time over which it counts them.
    pub within: Duration,
}

/// What an operator needs to connect a provider; empty texts for an inline recipe.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Where in the provider's dashboard the URL is pasted.
    pub url: String,
    /// Where the secret is found.
    pub secret: String,
    /// An event type of this provider, for samples.
    pub sample_type: String,
    /// Pages and code that the recipe's facts come from.
    pub facts: Vec<String>,
}
