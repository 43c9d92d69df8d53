//! Plain hashes over content that contains the secret. The content differs between the secrets, so the check builds it for each
//! secret.

use crate::source::recipe::DigestProof;
use crate::verify::hash::hash;
use crate::verify::proof::{ProofVerifier, Proven, Request};
use crate::verify::signature;
use crate::verify::signing_input::SigningInput;
use crate::verify::tolerance;
use crate::verify::verdict::Rejection;

/// Checks every digest of a delivery against every alternative content and every secret.
pub(super) fn check<T>(
    verifier: &ProofVerifier,
    proof: &DigestProof,
    request: Request<'_>,
    accept: impl FnOnce(Proven<'_>) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    let (signed, received_at) = (&proof.signed, request.delivery.received_at);
    let signatures = signature::read(signed, &request.view)?;
    let input = SigningInput::new(request.source, signed, request.delivery);
    let (mut closest, mut expired): (Option<Rejection>, _) = (None, None);
    for group in 0..signatures.groups {
        let view = request.view.with_tags(&signatures.tags, group);
        for terms in &signed.contents {
            for (slot, prepared, key) in verifier.keys_at(request.source, received_at) {
                let secret = key.secret_for(verifier.proof).unwrap_or_default();
                let content = match input.content(terms, &view, secret) {
                    Ok(content) => content,
                    Err(rejection) => {
                        closest = Some(rejection.or_closer(closest));
                        break;
                    }
                };
                let own = hash(proof.algorithm, content.parts());
                if !signatures.of(group, signed.in_slots.then_some(slot)).any(|code| code.equals(own.bytes())) {
                    continue;
                }
                if !key.is_valid_at(received_at) {
                    expired = expired.or(Some(key));
                    continue;
                }
                if let Some(rule) = &signed.timestamp {
                    tolerance::check(rule, &view, received_at)?;
                }
                return accept(Proven {
                    coverage: signed.coverage,
                    is_timed: signed.timestamp.is_some(),
                    signs_id: signed.signs_id(),
                    content,
                    body_sha256: input.body_hash()?,
                    view,
                    ..Proven::by_key(request, key, prepared.auth.clone())
                });
            }
        }
    }
    Err(verifier.mismatch(expired, "signature").or_closer(closest))
}
