//! Recognises a delivery that names a public key which the source lacks. hookhold cannot verify such a delivery. This is not the
//! sender's fault, so the sender must get a 503 and retry.
//!
//! Anyone can name an unknown key in a forged delivery. The check therefore computes no hash, and accepts a URL from a request
//! only if its host is one of the recipe's hosts. Callers must first reject every delivery without a well-formed signature.

use crate::outcome::Outcome;
use crate::source::recipe::{KeyFetch, KeyUrl};
use crate::verify::proof::{ProofVerifier, Request};
use crate::verify::request_view::MAX_FACT;
use crate::verify::verdict::{KeyRef, Rejection};

/// Returns the rejection of a delivery that names a public key which the source lacks. Returns `None` if the source has the key,
/// or if the delivery names no key. `token_key_id` is the key id in the header of a JSON Web Token.
pub(super) fn unknown_key(
    verifier: &ProofVerifier,
    fetch: &KeyFetch,
    request: &Request<'_>,
    token_key_id: Option<&str>,
) -> Option<Rejection> {
    let found_url = match &fetch.url {
        KeyUrl::Fixed(_) => None,
        KeyUrl::InRequest { from, .. } => request.view.text(from),
    };
    let token_key_id = token_key_id.filter(|id| !id.is_empty() && id.len() <= MAX_FACT);
    let id = token_key_id.or_else(|| request.view.text(fetch.key_id.as_ref()?)).or(found_url)?;
    if verifier.keys.iter().any(|key| request.source.keys[key.key].id.as_deref() == Some(id)) {
        return None;
    }
    let url = match &fetch.url {
        KeyUrl::Fixed(url) => Some(url.as_str()),
        KeyUrl::InRequest { hosts, .. } => found_url.filter(|url| hosts.iter().any(|host| host.matches(url))),
    };
    Some(match url {
        Some(url) => Rejection::needs_key(KeyRef { url: url.to_owned(), id: id.to_owned() }),
        None => Rejection::new(Outcome::SignatureMalformed, OTHER_HOST),
    })
}

/// Returns the rejection of a delivery that contradicts the recipe and that no key has verified. The outcomes of a wrong time
/// mean that the signature is genuine, so such a rejection gets another outcome.
pub(super) fn unproved(rejection: Rejection) -> Rejection {
    match rejection.outcome {
        Outcome::TimestampStale | Outcome::TimestampFuture => Rejection { outcome: Outcome::SignatureMismatch, ..rejection },
        _ => rejection,
    }
}

const OTHER_HOST: &str = "public key: expected an HTTPS URL with one of the hosts in fetch.hosts, found another or none; compare \
                          fetch in the recipe with the provider's documentation";
