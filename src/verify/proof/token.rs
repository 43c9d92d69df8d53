//! Checks tokens: secret texts that a request contains as they are.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use subtle::ConstantTimeEq;

use crate::outcome::Outcome;
use crate::source::recipe::{Locator, TokenProof};
use crate::verify::proof::{ProofVerifier, Proven, Request};
use crate::verify::request_view::RequestView;
use crate::verify::verdict::Rejection;

/// Compares every token of a delivery with every secret, in constant time.
pub(super) fn check<T>(
    verifier: &ProofVerifier,
    proof: &TokenProof,
    request: Request<'_>,
    accept: impl FnOnce(Proven<'_>) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    let tokens = texts(&proof.from, &proof.prefix, &request.view)?;
    let received_at = request.delivery.received_at;
    let mut expired = None;
    for (_, prepared, key) in verifier.keys_at(request.source, received_at) {
        let secret = key.secret_for(verifier.proof).unwrap_or_default();
        if !tokens.iter().any(|token| bool::from(secret.ct_eq(token))) {
            continue;
        }
        if key.is_valid_at(received_at) {
            return accept(Proven::by_key(request, key, prepared.auth.clone()));
        }
        expired = expired.or(Some(key));
    }
    Err(verifier.mismatch(request.source, expired, "token"))
}

/// Returns the tokens of a request without their prefix, at least one. Uses every value of a repeated header. Returns a query
/// parameter as written and decoded, because a sender may encode the characters of a token that have a meaning in a URL.
/// Rejects a request without a token, with more than [`MAX_TOKENS`] tokens, or with tokens that all lack the prefix.
pub(super) fn texts<'a>(from: &'a [Locator], prefix: &str, view: &RequestView<'a>) -> Result<Vec<Cow<'a, [u8]>>, Rejection> {
    let mut present: Vec<Cow<'_, [u8]>> = Vec::new();
    for locator in from {
        match locator {
            Locator::Header(name) => present.extend(view.headers(name).iter().map(|value| Cow::Borrowed(value.as_bytes()))),
            Locator::Query(_) => {
                let text = view.find(locator).into_iter();
                present.extend(text.flat_map(|text| [Cow::Borrowed(text), percent_decode(text).into()]));
            }
            _ => present.extend(view.find(locator).map(Cow::Borrowed)),
        }
    }
    present.retain(|text| !text.is_empty());
    if present.is_empty() {
        return Err(missing(from));
    }
    if present.len() > MAX_TOKENS {
        let hint = format!(
            "token: expected at most {MAX_TOKENS} tokens, found {}; compare the request with the provider's documentation",
            present.len()
        );
        return Err(Rejection::new(Outcome::SignatureMalformed, hint));
    }
    let tokens: Vec<_> = present.into_iter().filter_map(|text| without_prefix(text, prefix)).collect();
    if tokens.is_empty() {
        let hint = format!(
            "token: expected a token with the prefix {prefix:?}, found another text; compare it with the provider's documentation"
        );
        return Err(Rejection::new(Outcome::SignatureMalformed, hint));
    }
    Ok(tokens)
}

/// Rejects a request without a token. Accepts every request if the token may be in the body.
pub(super) fn precheck(proof: &TokenProof, view: &RequestView<'_>) -> Result<(), Rejection> {
    if may_be_in_body(&proof.from) { Ok(()) } else { texts(&proof.from, &proof.prefix, view).map(|_| ()) }
}

/// Returns true if one of the locators refers to the body.
pub(super) fn may_be_in_body(from: &[Locator]) -> bool {
    from.iter().any(|locator| matches!(locator, Locator::Body(_)))
}

/// Returns the text after the prefix, or `None` if the prefix is absent or no text follows it. Upper and lower case of the
/// prefix are equivalent, because the scheme in the header `Authorization` may have either.
fn without_prefix<'a>(text: Cow<'a, [u8]>, prefix: &str) -> Option<Cow<'a, [u8]>> {
    let (start, token) = text.split_at_checked(prefix.len())?;
    if token.is_empty() || !start.eq_ignore_ascii_case(prefix.as_bytes()) {
        return None;
    }
    Some(match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[prefix.len()..]),
        Cow::Owned(text) => Cow::Owned(text[prefix.len()..].to_vec()),
    })
}

fn missing(from: &[Locator]) -> Rejection {
    let name = |locator: &Locator| match locator {
        Locator::Header(name) => format!("header {name}"),
        Locator::Query(name) => format!("query parameter {name}"),
        _ => "token in the body".to_owned(),
    };
    let names: Vec<String> = from.iter().map(name).collect();
    let names = names.join(" or ");
    let hint = format!("token: expected the {names}, found none; configure a secret in the sender's dashboard");
    Rejection::new(Outcome::SignatureMissing, hint)
}

/// Maximum number of texts in a request that may be tokens. hookhold compares each with each key. A query parameter counts twice.
const MAX_TOKENS: usize = 16;
