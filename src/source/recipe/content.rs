//! The parts of a request that a recipe reads: signatures, the terms of the signed content, locators and times.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::source::PlaceholderIds;

/// The hash function of an HMAC or of a plain hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
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

/// The location and the syntax of the signatures in a request.
#[derive(Clone, Debug)]
pub struct SignatureFormat {
    /// The locators of the signatures. The verifier reads all values at the first locator that the request contains. With
    /// [`SignedContent::in_slots`](super::SignedContent::in_slots), the verifier reads every locator.
    pub from: Vec<SignatureLocator>,
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

/// The location of signatures in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureLocator {
    /// All values of the header with this name.
    Header(HeaderName),
    /// All values of the headers whose names begin with this lower-case prefix and end in a number, such as
    /// `x-docusign-signature-1`.
    NumberedHeaders(String),
    /// The value at a locator in the query or in the body.
    Other(Locator),
}

impl SignatureLocator {
    /// Returns the name of the header, or a description of another location.
    pub fn name(&self) -> String {
        match self {
            SignatureLocator::Header(name) => name.to_string(),
            SignatureLocator::NumberedHeaders(prefix) => format!("{prefix}*"),
            SignatureLocator::Other(Locator::Query(name)) => format!("query parameter {name}"),
            SignatureLocator::Other(_) => "signature in the body".to_owned(),
        }
    }
}

/// The steps that decode a configured secret into the bytes of a key.
#[derive(Clone, Debug, Default)]
pub struct KeyFormat {
    /// The prefixes that hookhold removes from a secret, in the listed order. hookhold skips a prefix if the secret does not
    /// start with it.
    pub strip: Vec<String>,
    /// The encoding of the part of a secret that follows the prefixes, or `None` if this part is the key itself.
    pub encoding: Option<Encoding>,
    /// The hash function that is applied to the decoded bytes, or `None` if the decoded bytes are the key.
    pub hash: Option<Algorithm>,
}

/// One term of the signed content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// A fixed text from the recipe.
    Literal(String),
    /// The bytes of the request body as received.
    Body,
    /// The hash of the request body, as text in an encoding.
    BodyHash(Algorithm, Encoding),
    /// The CRC-32 checksum of the request body as an unsigned decimal number (PayPal).
    BodyCrc32,
    /// The text of the signed timestamp as received.
    Timestamp,
    /// The text of the event id as received.
    Id,
    /// The value of a request header.
    Header(HeaderName),
    /// The value of a tag in the signature header.
    Tag(String),
    /// The value at a locator in the query or in the body. A request without the value does not match the content.
    Located(Locator),
    /// The value at a locator, or an empty text if the request lacks the value.
    Optional(Locator),
    /// The values of the request headers that a list in the request names. The list has spaces or commas between the names.
    ListedHeaders {
        /// The locator of the list, such as a tag of the signature header (Hook0) or a header (Contentful).
        names: Locator,
        /// The separator between two headers.
        separator: String,
        /// The separator between the lower-case name of a header and its value, or `None` if only the values are signed.
        pair: Option<String>,
    },
    /// The bytes of the configured secret.
    Secret,
    /// The request method in upper case.
    Method,
    /// The path and query of the request target as received.
    PathAndQuery,
    /// The configured public URL, followed by the request target as received.
    Url,
    /// The same as [`Term::Url`], except for the port. If the configured URL has a port, this term omits the port. Otherwise,
    /// this term adds the scheme's default port.
    UrlOtherPort,
    /// Like [`Term::Url`], but without the query.
    UrlNoQuery,
    /// Like [`Term::Url`] or [`Term::UrlOtherPort`], but written by another URL library.
    UrlRewritten {
        /// The library that writes the URL.
        style: UrlStyle,
        /// True if the port is added or omitted, as in [`Term::UrlOtherPort`].
        other_port: bool,
    },
    /// The decoded names and values of a form, sorted by name and then by value. Empty if the signed URL contains the body's
    /// hash ([`SignedContent::body_hash`](super::SignedContent::body_hash)).
    FormSorted(FormJoin),
}

/// The way in which a library writes a URL that it has parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlStyle {
    /// The parser of the WHATWG URL standard. It percent-encodes special characters and does not change the order of the query.
    Normalized,
    /// The same, followed by Node's legacy module `querystring`, which parses the query and writes it again. It puts fields with
    /// the same name together, puts fields whose name is a whole number first, and writes `=` in every field.
    LegacyQuery,
}

/// The way in which [`Term::FormSorted`] joins the fields of a form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormJoin {
    /// The separator between two fields.
    pub fields: String,
    /// The separator between the name and the value of a field.
    pub pair: String,
    /// True if the text contains a repeated field as often as the form does, instead of once.
    pub keeps_repeated: bool,
}

impl Term {
    /// Returns true if the term contains the request's URL with its query, unchanged or rewritten.
    pub fn is_url(&self) -> bool {
        self.is_exact_url() || matches!(self, Term::UrlRewritten { .. })
    }

    /// Returns true if the term contains the request's URL with its query, byte for byte. A rewritten URL is the same for
    /// several queries.
    pub fn is_exact_url(&self) -> bool {
        matches!(self, Term::Url | Term::UrlOtherPort)
    }

    /// Returns true if the term contains the query of the request's URL.
    pub fn is_of_query(&self) -> bool {
        self.is_url() || *self == Term::PathAndQuery
    }

    /// Returns true if hookhold needs the source's public URL for the term.
    pub fn needs_public_url(&self) -> bool {
        self.is_url() || *self == Term::UrlNoQuery
    }

    /// Returns true if the term depends on the body.
    pub fn is_of_body(&self) -> bool {
        matches!(self, Term::Body | Term::BodyHash(..) | Term::BodyCrc32 | Term::FormSorted(_)) || self.reads_body()
    }

    /// Returns true if the term reads a value from inside the body, so that the verifier must parse the body first.
    pub fn reads_body(&self) -> bool {
        match self {
            Term::Located(locator) | Term::Optional(locator) | Term::ListedHeaders { names: locator, .. } => locator.is_in_body(),
            _ => false,
        }
    }
}

/// The query parameter of a signed URL whose value is the body's hash. If a request has this parameter, its body must have this
/// hash. A recipe with this parameter has the integrity [`Partial`](crate::event::Integrity::Partial), as for a signed form,
/// because an attacker could forge the parameter. In the signed content, the text of a form directly follows the URL, and the
/// verifier accepts the parameter at any position in the query. The attacker could therefore take a signed form whose text
/// looks like this parameter, append the text to the URL, and send the request with a different body.
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
    /// A fixed text from the recipe, or from the source's `values`.
    Const(String),
    /// A claim of the JSON Web Token that proved the delivery, as text.
    Claim(String),
    /// The user name in the header `Authorization`. The password is a secret, and no locator reads it.
    BasicUser,
    /// The index of a location in the body, as assigned by the recipe's pointers. The value at the location is a string,
    /// integer or boolean in a JSON body, or the value of a form field.
    Body(usize),
    /// The index of a location inside an item of a batch, as assigned by the recipe's pointers.
    Item(usize),
}

impl Locator {
    /// Returns true if the value is inside the body, so that the verifier must parse the body.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Locator::Body(_) | Locator::Item(_))
    }
}

/// Alternative locations of a value such as the event id, in order of preference. The verifier uses the first alternative whose
/// fields are all present.
#[derive(Clone, Debug, Default)]
pub struct Choice(pub Vec<Vec<Locator>>);

/// Returns true if `text`, split at [`JOINT`], has a part for each of the fields, and each part for a `const:` locator is the
/// locator's text.
pub(crate) fn fits(fields: &[Locator], text: &str) -> bool {
    let agrees = |(locator, part): (&Locator, &str)| !matches!(locator, Locator::Const(text) if text != part);
    text.splitn(fields.len(), JOINT).count() == fields.len() && fields.iter().zip(text.splitn(fields.len(), JOINT)).all(agrees)
}

/// Separator between the fields of an event id, event type or ordering key.
pub(crate) const JOINT: &str = ".";

/// The locators of an event's id, type, ordering key and time.
#[derive(Clone, Debug, Default)]
pub struct EventLocators {
    /// The locators of the event id, which does not change when the provider retries.
    pub id: Choice,
    /// The texts that are no id although they are at the place of the id.
    pub placeholder_ids: PlaceholderIds,
    /// The locators of the event type. The verifier joins the fields of an alternative with a dot.
    pub kind: Choice,
    /// The prefix that hookhold adds to the event type in `ce_type`.
    pub type_prefix: Arc<str>,
    /// The locators of the ordering key.
    pub key: Choice,
    /// The locators of the event's time. The verifier uses the first locator whose text is a valid time.
    pub time: Vec<(Locator, TimeUnit)>,
    /// The array of a batch, or `None` if a delivery carries one event. The other locators then refer to an item of the array.
    pub batch: Option<EventArray>,
}

/// An array in the body of a delivery that carries several events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventArray {
    /// True if each item becomes an event of its own. Otherwise, the body stays one event.
    pub split: bool,
    /// The maximum number of items in one delivery.
    pub max_items: usize,
}

impl EventArray {
    /// The maximum number of items in one delivery, for a source that sets no `max_items`.
    pub const DEFAULT_MAX_ITEMS: usize = 10_000;
}

/// The location, format and tolerance of a signed timestamp.
#[derive(Clone, Debug)]
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
