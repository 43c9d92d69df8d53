//! Endpoint challenges: the requests by which a provider checks an endpoint, and the replies that the provider expects.

use std::sync::Arc;

use http::{HeaderName, Method, StatusCode};

use super::{Algorithm, Encoding, Locator};
use crate::answer::EffectKind;

/// An endpoint challenge: a request that a provider sends to check an endpoint. If a request meets the conditions but lacks a
/// text that the reply needs, the verifier treats the request as an ordinary delivery.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// The methods of the challenge, POST by default.
    pub methods: Vec<Method>,
    /// The conditions that identify the challenge. A request must meet all conditions. Never empty if the methods include POST.
    pub when: Vec<(Locator, TextMatch)>,
    /// True if the provider signs the challenge. hookhold replies to a signed challenge only after it has verified the
    /// signature.
    pub authenticated: bool,
    /// The reply to the challenge.
    pub reply: ReplyTemplate,
    /// The action that the challenge asks for, or `None` if the reply is all that the provider expects.
    pub effect: Option<EffectRule>,
}

impl Challenge {
    /// Returns the locators of texts that may be secrets: those that the challenge compares with a text of the source, those that
    /// it compares with a fixed text under a name such as `verify_token`, and the secret that a sender proposes.
    pub fn secrets(&self) -> impl Iterator<Item = &Locator> {
        let is_secret = |(from, wanted): &&(Locator, TextMatch)| match wanted {
            TextMatch::Configured(_) => true,
            TextMatch::Exactly(_) => is_named_like_a_secret(from),
            TextMatch::Any => false,
        };
        let compared = self.when.iter().filter(is_secret).map(|(from, _)| from);
        let proposed = self.effect.iter().filter(|effect| effect.kind == EffectKind::LearnSecret);
        compared.chain(proposed.filter_map(|effect| effect.from.as_ref()))
    }

    /// Returns true if the reply to an unsigned challenge contains an HMAC with the source's secret.
    pub fn signs_for_anyone(&self) -> bool {
        !self.authenticated && self.reply.parts().any(|part| matches!(part.inner(), ReplyPart::Hmac { .. }))
    }
}

/// Returns true for a header or query parameter whose name says that it contains a secret.
fn is_named_like_a_secret(locator: &Locator) -> bool {
    let name = match locator {
        Locator::Header(name) => name.as_str(),
        Locator::Query(name) => name,
        _ => return false,
    };
    let name = name.to_ascii_lowercase();
    ["token", "secret", "password"].iter().any(|word| name.contains(word))
}

/// The text that an endpoint challenge must have at a locator. A query parameter is decoded before the comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// Any non-empty text.
    Any,
    /// Exactly this text, which the recipe defines.
    Exactly(String),
    /// Exactly this text, which the source sets in `values`. Such a text may be a secret, such as Meta's verify token.
    Configured(String),
}

/// The reply to an endpoint challenge, with the parts that hookhold copies or computes from the request.
#[derive(Clone, Debug)]
pub struct ReplyTemplate {
    /// The status of the reply, 200 to 299.
    pub status: StatusCode,
    /// The media type of the reply's body, or `None` for plain text.
    pub content_type: Option<Arc<str>>,
    /// The header fields of the reply. hookhold joins the parts of a value.
    pub headers: Vec<(HeaderName, Vec<ReplyPart>)>,
    /// The parts of the reply's body, in the order in which hookhold joins them.
    pub body: Vec<ReplyPart>,
}

impl ReplyTemplate {
    fn parts(&self) -> impl Iterator<Item = &ReplyPart> {
        self.headers.iter().flat_map(|(_, parts)| parts).chain(&self.body)
    }
}

/// One part of a text in the reply to an endpoint challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyPart {
    /// A fixed text from the recipe or from the source.
    Literal(String),
    /// A text of the request.
    Echo(RequestText),
    /// The HMAC of a text of the request. The key is the secret that verified the challenge. For an unsigned challenge, the key
    /// is the first valid secret of the source.
    Hmac {
        /// The hash function of the HMAC.
        algorithm: Algorithm,
        /// The text that hookhold signs.
        text: RequestText,
        /// The encoding of the HMAC in the reply.
        encoding: Encoding,
    },
    /// Another part as a JSON string, with its quotation marks.
    Json(Box<ReplyPart>),
}

impl ReplyPart {
    /// Returns the part inside [`ReplyPart::Json`], or the part itself.
    fn inner(&self) -> &ReplyPart {
        if let ReplyPart::Json(part) = self { part } else { self }
    }
}

/// A text of the request that a reply contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestText {
    /// The location of the text.
    pub from: Locator,
    /// True if hookhold decodes the text as in a query: `%XX` to a byte, and `+` to a space.
    pub is_percent_encoded: bool,
}

/// The action that a challenge asks for. hookhold reports the action to the operator and does not perform it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectRule {
    /// The kind of the action.
    pub kind: EffectKind,
    /// The location of the secret, URL or text. `None` only for a report without a text.
    pub from: Option<Locator>,
}
