//! Looks for the fewest changes with which the delivery is proved.

use std::sync::Arc;

use hookhold::event::Delivery;
use hookhold::outcome::Outcome;
use hookhold::source::Source;
use hookhold::verify::{Rejection, Verifier, unsigned_challenge};

use super::cause::Cause;
use super::causes;
use super::{Case, bodies, keys, urls};

/// The source with other keys and another URL, and what is wrong then.
struct VerifyingVariant {
    verifier: Verifier,
    target: String,
    causes: Vec<Cause>,
}

/// What would have been believed with one change, else with two; empty when nothing was found.
pub fn changes(case: &Case) -> Vec<Cause> {
    let Some((mut causes, late)) = fewest(case) else { return Vec::new() };
    causes.extend(late.map(|refusal| causes::clock(case, &refusal)));
    causes
}

/// The changes, and the refusal that is left after them.
fn fewest(case: &Case) -> Option<(Vec<Cause>, Option<Rejection>)> {
    let body = &case.delivery.body;
    let (believers, mut best) = (believers(case), None);
    let mut allowed = if body.len() > MAX_PAIRED { 1 } else { 2 };
    let changed = bodies::variants(body).map(|(bytes, cause)| (bytes.into(), Some(cause)));
    for (body, cause) in [(body.clone(), None)].into_iter().chain(changed) {
        let mut delivery = Delivery { body, ..case.delivery.clone() };
        for believer in &believers {
            let causes: Vec<Cause> = cause.iter().chain(&believer.causes).cloned().collect();
            if causes.is_empty() || causes.len() > allowed {
                continue;
            }
            delivery.target.clone_from(&believer.target);
            if let Some(late) = proof(&believer.verifier, &delivery) {
                allowed = causes.len() - 1;
                best = Some((causes, late));
            }
        }
        if allowed == 0 {
            break;
        }
    }
    best
}

/// What would have to be said of a delivery that is genuine: nothing, or that its time is wrong. `None`: it is not, or like a
/// check of the endpoint that nobody signs, nothing shows it.
pub fn proof(verifier: &Verifier, delivery: &Delivery) -> Option<Option<Rejection>> {
    match verifier.verify(delivery) {
        Ok(_) => unsigned_challenge(verifier.source(), delivery).is_none().then_some(None),
        Err(refusal) => is_late(&refusal).then_some(Some(refusal)),
    }
}

/// True of refusals of genuine deliveries.
pub fn is_late(refusal: &Rejection) -> bool {
    matches!(refusal.outcome, Outcome::TimestampStale | Outcome::TimestampFuture)
}

fn believers(case: &Case) -> Vec<VerifyingVariant> {
    let own = VerifyingVariant {
        verifier: Verifier::new(case.source.clone()),
        target: case.delivery.target.clone(),
        causes: Vec::new(),
    };
    let mut all = vec![own];
    for (called, cause) in urls::variants(case) {
        let source = Source { public_url: Some(called.public_url), ..Arc::unwrap_or_clone(case.source.clone()) };
        all.push(VerifyingVariant { verifier: Verifier::new(source), target: called.target, causes: vec![cause] });
    }
    for (key, cause) in keys::variants(case) {
        for at in 0..all.len() {
            let VerifyingVariant { verifier, target, causes } = &all[at];
            if causes.iter().all(|cause| cause.word == "public_url") {
                let source = Source { secrets: vec![key.clone()], ..Source::clone(verifier.source()) };
                let causes = causes.iter().chain([&cause]).cloned().collect();
                all.push(VerifyingVariant { verifier: Verifier::new(source), target: target.clone(), causes });
            }
        }
    }
    all
}

/// Bodies above this are tried with one change at a time: two would take minutes.
const MAX_PAIRED: usize = 1 << 20;
