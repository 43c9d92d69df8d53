//! Searches for the smallest set of changes after which a delivery verifies.

use std::sync::Arc;

use hookhold::event::Delivery;
use hookhold::source::Source;
use hookhold::verify::{Rejection, Verdict, Verifier};

use super::captured::CapturedDelivery;
use super::cause::Cause;
use super::{body_variants, compression, key_variants, timing, url_variants};

/// The result of verifying one variant of a delivery.
pub(super) enum ProofAttempt {
    /// The verifier rejects the delivery for a reason other than its timestamp, or the delivery is an unsigned endpoint
    /// challenge.
    Unproved,
    /// The signature matches, and the timestamp is within the tolerance.
    Proved,
    /// The signature matches, but the timestamp is outside the tolerance.
    ProvedAtAnotherTime(Rejection),
}

impl ProofAttempt {
    /// Verifies `delivery`. Returns `Unproved` for an unsigned endpoint challenge, because a challenge without a signature
    /// proves no cause.
    pub(super) fn of(verifier: &Verifier, delivery: &Delivery) -> ProofAttempt {
        match verifier.verify(delivery) {
            Ok(Verdict::UnsignedChallenge(_)) => ProofAttempt::Unproved,
            Ok(_) => ProofAttempt::Proved,
            Err(rejection) if timing::is_about_time(&rejection) => ProofAttempt::ProvedAtAnotherTime(rejection),
            Err(_) => ProofAttempt::Unproved,
        }
    }

    /// Returns true if the signature matches.
    pub(super) fn is_proved(&self) -> bool {
        !matches!(self, ProofAttempt::Unproved)
    }
}

/// A variant of the source and of the request target, with the changes that produced this variant.
struct Candidate {
    verifier: Verifier,
    target: String,
    causes: Vec<Cause>,
}

/// Returns one change after which the delivery verifies, or two changes if a single change is not enough. Returns an empty list
/// if the search finds no such changes.
pub(super) fn fewest_changes(captured: &CapturedDelivery) -> Vec<Cause> {
    let body = &captured.delivery.body;
    let (candidates, mut fewest) = (candidates(captured), Vec::new());
    let mut allowed = if body.len() > MAX_PAIRED { 1 } else { 2 };
    let changed = body_variants::all(body).chain(compression::undone(captured));
    let changed = changed.map(|(bytes, cause)| (bytes.into(), Some(cause)));
    for (body, cause) in [(body.clone(), None)].into_iter().chain(changed) {
        let mut delivery = Delivery { body, ..captured.delivery.clone() };
        for candidate in &candidates {
            let causes: Vec<Cause> = cause.iter().chain(&candidate.causes).cloned().collect();
            if causes.is_empty() || causes.len() > allowed {
                continue;
            }
            delivery.target.clone_from(&candidate.target);
            let late = match ProofAttempt::of(&candidate.verifier, &delivery) {
                ProofAttempt::Unproved => continue,
                ProofAttempt::Proved => None,
                ProofAttempt::ProvedAtAnotherTime(rejection) => Some(timing::late_or_early(captured, &rejection)),
            };
            allowed = causes.len() - 1;
            fewest = causes.into_iter().chain(late).collect();
        }
        if allowed == 0 {
            break;
        }
    }
    fewest
}

fn candidates(captured: &CapturedDelivery) -> Vec<Candidate> {
    let verifier = Verifier::new(captured.source.clone());
    let mut all = vec![Candidate { verifier, target: captured.delivery.target.clone(), causes: Vec::new() }];
    for (signed, cause) in url_variants::all(captured) {
        let source = Source { public_url: Some(signed.public_url), ..Arc::unwrap_or_clone(captured.source.clone()) };
        all.push(Candidate { verifier: Verifier::new(source), target: signed.target, causes: vec![cause] });
    }
    for (key, cause) in key_variants::all(captured) {
        for at in 0..all.len() {
            let Candidate { verifier, target, causes } = &all[at];
            if causes.iter().all(|cause| cause.word == "public_url") {
                let source = Source { keys: vec![key.clone()], ..Source::clone(verifier.source()) };
                let causes = causes.iter().chain([&cause]).cloned().collect();
                all.push(Candidate { verifier: Verifier::new(source), target: target.clone(), causes });
            }
        }
    }
    all
}

/// Maximum body size, in bytes, for which the search tries two changes at once. For a larger body, the search would take
/// minutes.
const MAX_PAIRED: usize = 1 << 20;
