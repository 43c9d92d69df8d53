//! The check that MACs, digests and public-key signatures share. It reads the signatures of a request, builds each alternative
//! of the signed content, and asks each key whether it made one of the signatures.

use crate::outcome::Outcome;
use crate::source::recipe::{SignatureLocator, SignedContent, Term};
use crate::verify::code::Code;
use crate::verify::content::Content;
use crate::verify::items::Items;
use crate::verify::proof::{ProofKey, ProofVerifier, Proven, Request, fetch};
use crate::verify::request_view::RequestView;
use crate::verify::signature::{self, SignatureLimits, Signatures};
use crate::verify::signing_input::SigningInput;
use crate::verify::tolerance;
use crate::verify::verdict::Rejection;

/// Checks every signature of a delivery against every alternative content and every key. Rejects a delivery without a readable
/// signature before it computes any hash. Hashes the content at most once for each combination of signature group, alternative
/// content and key.
pub(super) fn check<T>(
    verifier: &ProofVerifier,
    signed: &SignedContent,
    request: Request<'_>,
    made_one_of: impl Fn(&ProofKey, &Content<'_>, &mut dyn Iterator<Item = &Code>) -> bool,
    accept: impl FnOnce(Proven<'_>) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    if signed.by_item {
        return check_items(verifier, signed, request, &made_one_of, accept);
    }
    let signatures = signature::read(signed, &request.view, verifier.limits)?;
    check_key(verifier, signed, &request, &signatures)?;
    let input = SigningInput::new(request.source, signed, request.delivery, request.work);
    accept(check_groups(verifier, signed, request, &input, &signatures, &made_one_of)?)
}

/// Checks the signature of every item of a batch. Rejects the delivery at the first item without a genuine signature, so a
/// forged delivery costs no more than one check of one item. A batch without items carries no signature. Rejects a body that
/// may contain further items, because this function would not check them.
fn check_items<T>(
    verifier: &ProofVerifier,
    signed: &SignedContent,
    request: Request<'_>,
    made_one_of: &impl Fn(&ProofKey, &Content<'_>, &mut dyn Iterator<Item = &Code>) -> bool,
    accept: impl FnOnce(Proven<'_>) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    let Items { list, is_followed, is_repeated, .. } = request.items;
    if !list.is_empty() && (*is_followed || *is_repeated) {
        return Err(Rejection::new(Outcome::SignatureMalformed, SEVERAL_ARRAYS));
    }
    let of_items = list.iter().map(|item| Request { view: request.view.with_item(item), ..request });
    let of_items: Vec<Request<'_>> = of_items.collect();
    let mut signatures = Vec::new();
    for (at, item) in of_items.iter().enumerate() {
        signatures.push(signature::read(signed, &item.view, verifier.limits).map_err(in_item(at))?);
    }
    if let (Some(item), Some(first)) = (of_items.first(), signatures.first()) {
        check_key(verifier, signed, item, first)?;
    }
    let input = SigningInput::new(request.source, signed, request.delivery, request.work);
    let mut proofs = Vec::with_capacity(of_items.len());
    for (at, (item, signatures)) in of_items.iter().zip(&signatures).enumerate() {
        proofs.push(check_groups(verifier, signed, *item, &input, signatures, made_one_of).map_err(in_item(at))?);
    }
    match Proven::by_items(request, proofs) {
        Some(proven) => accept(proven),
        None => Err(signature::missing(signed)),
    }
}

/// Returns a function that names the item with this index in a rejection, so that the operator finds it among many.
fn in_item(at: usize) -> impl Fn(Rejection) -> Rejection {
    move |rejection| Rejection { hint: format!("item {}: {}", at + 1, rejection.hint), ..rejection }
}

/// Rejects a delivery that names a public key which the source lacks. Before that, checks the time of the delivery.
fn check_key(
    verifier: &ProofVerifier,
    signed: &SignedContent,
    request: &Request<'_>,
    signatures: &Signatures<'_>,
) -> Result<(), Rejection> {
    let Some(fetch) = request.source.recipe.proofs[verifier.proof].fetch() else { return Ok(()) };
    let Some(rejection) = fetch::unknown_key(verifier, fetch, request, None) else { return Ok(()) };
    if let Some(rule) = &signed.timestamp {
        let time = |group| tolerance::check(rule, &request.view.with_tags(&signatures.tags, group), request.delivery.received_at);
        let times: Result<Vec<()>, Rejection> = (0..signatures.groups).map(time).collect();
        times.map_err(fetch::unproved)?;
    }
    Err(rejection)
}

fn check_groups<'p>(
    verifier: &'p ProofVerifier,
    signed: &'p SignedContent,
    request: Request<'p>,
    input: &SigningInput<'p>,
    signatures: &'p Signatures<'p>,
    made_one_of: &impl Fn(&ProofKey, &Content<'_>, &mut dyn Iterator<Item = &Code>) -> bool,
) -> Result<Proven<'p>, Rejection> {
    let mut closest: Option<Rejection> = None;
    for group in 0..signatures.groups {
        let view = request.view.with_tags(&signatures.tags, group);
        match check_group(verifier, signed, request, input, signatures, (group, view), made_one_of) {
            Ok(proven) => return Ok(proven),
            Err(rejection) => closest = Some(rejection.or_closer(closest)),
        }
    }
    Err(closest.unwrap_or_else(|| signature::unreadable(signed)))
}

fn check_group<'p>(
    verifier: &'p ProofVerifier,
    signed: &'p SignedContent,
    request: Request<'p>,
    input: &SigningInput<'p>,
    signatures: &'p Signatures<'p>,
    (group, view): (usize, RequestView<'p>),
    made_one_of: &impl Fn(&ProofKey, &Content<'_>, &mut dyn Iterator<Item = &Code>) -> bool,
) -> Result<Proven<'p>, Rejection> {
    let received_at = request.delivery.received_at;
    let (mut absent, mut expired, mut is_complete) = (None, None, false);
    for terms in input.contents() {
        let contains_secret = terms.contains(&Term::Secret);
        let mut content = None;
        for (slot, prepared, key) in verifier.keys_at(request.source, received_at) {
            if content.is_none() || contains_secret {
                let secret = key.secret_for(verifier.proof).unwrap_or_default();
                match input.content(terms, &view, secret) {
                    Ok(built) => content = Some(built),
                    Err(rejection) => {
                        absent = Some(rejection);
                        break;
                    }
                }
            }
            let Some(covered) = content.as_ref() else { break };
            is_complete = true;
            let slot = signed.in_slots.then_some(slot);
            if !made_one_of(prepared, covered, &mut signatures.of(group, slot)) {
                continue;
            }
            if !key.is_valid_at(received_at) {
                expired = expired.or(Some(key));
                continue;
            }
            let body_sha256 = input.body_hash()?;
            let is_timed = match &signed.timestamp {
                Some(rule) => tolerance::check(rule, &view, received_at).map(|()| true)?,
                None => false,
            };
            return Ok(Proven {
                key: Some(key),
                auth: prepared.auth.clone(),
                coverage: signed.coverage,
                is_timed,
                signs_id: signed.signs_id(),
                reads_body: signed.reads_body,
                content: content.unwrap_or_default(),
                body_sha256,
                view,
                by_item: Vec::new(),
            });
        }
    }
    Err(absent.filter(|_| !is_complete).unwrap_or_else(|| verifier.mismatch(request.source, expired, "signature")))
}

/// Rejects a request without a readable signature. Accepts every request if the signature may be in the body or in an item of
/// the body.
pub(super) fn precheck(signed: &SignedContent, view: &RequestView<'_>, limits: SignatureLimits) -> Result<(), Rejection> {
    let is_inside = |from: &SignatureLocator| matches!(from, SignatureLocator::Other(locator) if locator.is_in_body());
    if signed.signature.from.iter().any(is_inside) { Ok(()) } else { signature::read(signed, view, limits).map(|_| ()) }
}

const SEVERAL_ARRAYS: &str =
    "signature: expected all items in one array, found a second array or a value after the array; ask the sender for one array";
