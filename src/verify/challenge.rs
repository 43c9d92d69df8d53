//! Recognises endpoint challenges and builds the replies that the recipe defines. Returns the action that a challenge asks for
//! as data.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq;

use crate::answer::{Effect, EffectKind};
use crate::event::Delivery;
use crate::source::recipe::{Challenge, EffectRule, Locator, Proof, Recipe, Reply, ReplyPart, RequestText, TextMatch};
use crate::source::{Key, Source};
use crate::verify::content::{Content, Part};
use crate::verify::proof::mac::MacKey;
use crate::verify::request_view::RequestView;
use crate::verify::signing_input::encode;
use crate::verify::verdict::ChallengeReply;

/// A request that may be an endpoint challenge.
#[derive(Clone, Copy)]
pub(super) struct ChallengeRequest<'a> {
    pub(super) source: &'a Source,
    pub(super) delivery: &'a Delivery,
    /// The request with the values in its body.
    pub(super) view: RequestView<'a>,
    /// The key that proved the request, or `None` for a request without a proof.
    pub(super) key: Option<&'a Key>,
}

/// Returns the reply to an endpoint challenge, or `None` if the request is not a challenge.
///
/// A request without a proof matches only an unsigned challenge. A POST request with a proof matches only a signed challenge,
/// because a signed body with the same fields is an event. A request with another method is never an event, so with a proof it
/// matches both kinds.
pub(super) fn reply(request: ChallengeRequest<'_>) -> Option<ChallengeReply> {
    let ChallengeRequest { source, delivery, key, .. } = request;
    let (is_proved, is_post) = (key.is_some(), delivery.method == Method::POST);
    let is_considered = |challenge: &&Challenge| {
        let of_this_kind = if is_proved { challenge.authenticated || !is_post } else { !challenge.authenticated };
        of_this_kind && challenge.methods.contains(&delivery.method)
    };
    source.recipe.challenges.iter().filter(is_considered).find_map(|challenge| request.answer(challenge))
}

/// Returns true if the recipe has at least one unsigned endpoint challenge with this method.
pub(super) fn any_unsigned(recipe: &Recipe, method: &Method) -> bool {
    recipe.challenges.iter().any(|challenge| !challenge.authenticated && challenge.methods.contains(method))
}

/// Returns true if an unsigned challenge makes hookhold compute the HMAC of `content` for every sender. A signature over such
/// content proves nothing about the sender.
pub(super) fn signs_for_anyone(recipe: &Recipe, content: &Content<'_>) -> bool {
    recipe.challenges.iter().any(Challenge::signs_for_anyone) && is_token(content.parts())
}

/// Returns true if the text consists of 1 to [`MAX_TOKEN`] letters, digits and the punctuation of Base64 and of unreserved
/// characters in URLs (RFC 6750, b64token).
fn is_token<'p>(parts: impl Iterator<Item = &'p [u8]>) -> bool {
    let mut length = 0;
    for byte in parts.flatten() {
        length += 1;
        if length > MAX_TOKEN || !(byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte)) {
            return false;
        }
    }
    length > 0
}

/// Decodes a text of a query: `%XX` to a byte, and `+` to a space. Returns `None` if the decoded bytes are not UTF-8.
fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().ok();
    }
    let spaced = text.replace('+', " ");
    Some(Cow::Owned(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned()))
}

impl<'a> ChallengeRequest<'a> {
    fn answer(self, challenge: &'a Challenge) -> Option<ChallengeReply> {
        if !challenge.when.iter().all(|(locator, wanted)| self.matches(locator, wanted)) {
            return None;
        }
        let template = &challenge.reply;
        let header = |(name, parts): &'a (HeaderName, Vec<ReplyPart>)| {
            // A control character, such as a line break, makes the value invalid.
            let value = self.joined(parts).filter(|value| value.is_ascii())?;
            Some((name.clone(), HeaderValue::from_str(&value).ok()?))
        };
        let headers = template.headers.iter().map(header).collect::<Option<_>>()?;
        let body = Bytes::from(self.joined(&template.body)?);
        let effect = match &challenge.effect {
            Some(rule) => Some(self.effect(rule)?),
            None => None,
        };
        let reply = Reply { status: template.status, content_type: template.content_type.clone(), headers, body };
        Some(ChallengeReply { reply, effect })
    }

    /// Compares in constant time, because the text of a condition may be a secret, such as Meta's verify token.
    fn matches(self, locator: &'a Locator, wanted: &TextMatch) -> bool {
        let Some(found) = self.view.text(locator) else { return false };
        let found = if matches!(locator, Locator::Query(_)) { percent_decoded(found) } else { Some(Cow::Borrowed(found)) };
        match (found, wanted) {
            (found, TextMatch::Any) => found.is_some(),
            (found, TextMatch::Exactly(text) | TextMatch::Configured(text)) => {
                found.is_some_and(|found| found.as_bytes().ct_eq(text.as_bytes()).into())
            }
        }
    }

    fn joined(self, parts: &'a [ReplyPart]) -> Option<String> {
        parts.iter().map(|part| self.part(part)).collect()
    }

    fn part(self, part: &'a ReplyPart) -> Option<Cow<'a, str>> {
        match part {
            ReplyPart::Literal(text) => Some(Cow::Borrowed(text)),
            ReplyPart::Echo(text) => self.text(text),
            ReplyPart::Hmac { algorithm, text, encoding } => {
                let text = self.text(text)?;
                let text = text.as_bytes();
                if self.key.is_none() && !is_token([text].into_iter()) {
                    return None;
                }
                let mut content = Content::with_capacity(1);
                content.push(Part::Slice(text));
                Some(Cow::Owned(encode(*encoding, MacKey::new(*algorithm, self.secret()?).mac(&content).bytes())))
            }
            ReplyPart::Json(part) => serde_json::to_string(&*self.part(part)?).ok().map(Cow::Owned),
        }
    }

    fn text(self, text: &'a RequestText) -> Option<Cow<'a, str>> {
        let found = self.view.text(&text.from)?;
        if text.is_percent_encoded { percent_decoded(found) } else { Some(Cow::Borrowed(found)) }
    }

    /// Returns the secret that proved the request. For a request without a proof, returns the first valid secret of the source.
    fn secret(self) -> Option<&'a [u8]> {
        let uses_secrets = |proof: &Proof| proof.needs_key() && !proof.uses_public_keys();
        let proof = self.source.recipe.proofs.iter().position(uses_secrets)?;
        let valid = self.source.keys.iter().filter(|key| key.is_valid_at(self.delivery.received_at));
        self.key.into_iter().chain(valid).find_map(|key| key.secret_for(proof))
    }

    /// Returns the action that the challenge asks for, or `None` if the request lacks its text. A URL must begin with
    /// `https://`, so that the operator's log shows no other links.
    fn effect(self, rule: &'a EffectRule) -> Option<Effect> {
        let text = match &rule.from {
            Some(locator) => std::str::from_utf8(self.view.find(locator)?).ok().filter(|text| text.len() <= MAX_EFFECT_TEXT)?,
            None => "",
        };
        let is_fit = rule.kind != EffectKind::VisitUrl || text.starts_with("https://");
        is_fit.then(|| Effect { kind: rule.kind, text: text.to_owned(), is_verified: self.key.is_some() })
    }
}

/// Maximum size of the body of an unsigned challenge, in bytes. The sender of such a request is unknown, and hookhold must parse
/// the body.
pub(super) const MAX_UNSIGNED_BODY: usize = 16 << 10;
/// Maximum length in bytes of a text whose HMAC hookhold computes for a sender without a proof. Providers send 20 to 64
/// characters. No genuine delivery is as short and consists only of these characters, so such an HMAC is not the signature of
/// an event.
const MAX_TOKEN: usize = 128;
/// Maximum length in bytes of the text of an effect. A confirmation URL of Amazon SNS has 400 to 800 bytes.
const MAX_EFFECT_TEXT: usize = 2048;
