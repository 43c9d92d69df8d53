//! Secret texts that a request carries as they are.

use crate::outcome::Outcome;
use crate::source::recipe::{Locator, TokenProof};
use crate::verify::proof::{ProofVerifier, Proven, Request};
use crate::verify::request_view::RequestView;
use crate::verify::verdict::Rejection;
use subtle::ConstantTimeEq;

/// Compares the token of a delivery with every secret, in constant time.
pub(super) fn check<T>(
    verifier: &ProofVerifier,
    proof: &TokenProof,
    request: Request<'_>,
    accept: impl FnOnce(Proven<'_>) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    let token = text(&proof.from, &proof.prefix, &request.view)?;
    let received_at = request.delivery.received_at;
    let mut expired = None;
    for (_, prepared, key) in verifier.keys_at(request.source, received_at) {
        let secret = key.secret_for(verifier.proof).unwrap_or_default();
        if !bool::from(secret.ct_eq(token)) {
            continue;
        }
        if key.is_valid_at(received_at) {
            return accept(Proven::by_key(request, key, prepared.auth.clone()));
        }
        expired = expired.or(Some(key));
    }
    Err(verifier.mismatch(expired, "token"))
}

/// Returns the token of a request without its prefix. Rejects a request without a token.
pub(super) fn text<'a>(from: &'a [Locator], prefix: &str, view: &RequestView<'a>) -> Result<&'a [u8], Rejection> {
    let text = from.iter().find_map(|locator| view.find(locator)).ok_or_else(|| missing(from))?;
    let (start, token) = text.split_at_checked(prefix.len()).unwrap_or((&[], text));
    if !start.eq_ignore_ascii_case(prefix.as_bytes()) {
        let hint = format!(
            "token: expected the prefix {prefix:?}, found another text; compare the header with the provider's documentation"
        );
        return Err(Rejection::new(Outcome::SignatureMalformed, hint));
    }
    Ok(token)
}

/// Rejects a request without a token. Accepts every request if the token may be in the body.
pub(super) fn precheck(from: &[Locator], view: &RequestView<'_>) -> Result<(), Rejection> {
    let may_be_in_body = from.iter().any(|locator| matches!(locator, Locator::Body(_)));
    if may_be_in_body || from.iter().any(|locator| view.is_present(locator)) { Ok(()) } else { Err(missing(from)) }
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
