//! Recognises a stored request that lacks the token or the credentials of its sender, because hookhold stores neither.

use hookhold::credentials::PLACEHOLDER;
use hookhold::outcome::Outcome;
use hookhold::source::Source;
use hookhold::source::recipe::Proof;
use hookhold::verify::Rejection;

/// Returns true if the verifier may have rejected a stored request with this target only because hookhold does not store the token or
/// the credentials that a proof of the source needs.
pub(super) fn may_explain(source: &Source, target: &str, rejection: &Rejection) -> bool {
    let needs_credentials = |proof: &Proof| matches!(proof, Proof::Jwt(_) | Proof::Token(_) | Proof::Basic);
    let is_missing = rejection.outcome == Outcome::SignatureMissing || has_placeholder(target);
    is_missing && source.recipe.proofs.iter().any(needs_credentials)
}

/// Returns true if hookhold has replaced a credential in the query of a request target.
pub(super) fn has_placeholder(target: &str) -> bool {
    target.contains(&format!("={PLACEHOLDER}"))
}
