//! Verifies deliveries with the recipe of their source. The verifier checks the signature, then the timestamp, and only then
//! extracts the event's id, type, ordering key and time. An unsigned endpoint challenge is the only exception: the verifier
//! recognises it without a signature check.
//!
//! The functions of this module are pure: they perform no I/O and do not read the clock. The verifier checks signatures over
//! the bytes as received. The exception is a signature over the decoded fields of a form: the verifier decodes these fields
//! before the check. Every invalid delivery results in a [`Rejection`]. No input causes a panic. Only the decompression of a
//! verified body allocates more memory than a small multiple of the input, and it asks the caller for this memory.

use std::borrow::Cow;
use std::iter;
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::event::Delivery;
use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::recipe::Proof;
use crate::source::work_limits::WorkLimits;

mod challenge;
mod code;
mod content;
mod decompress;
mod events;
mod form;
mod hash;
mod identity;
mod items;
mod json;
#[cfg(test)]
mod json_model;
mod json_scalar;
mod multipart;
mod proof;
mod request_view;
pub mod sign;
mod signature;
mod signing_input;
mod sorted_form;
mod tolerance;
mod url_rewrite;
mod utf16;
mod verdict;
mod work;

use challenge::ChallengeRequest;
use decompress::Unlimited;
pub use decompress::{Memory, UnreadBody, decompressed};
use proof::{ProofVerifier, Proven, Request};
use request_view::{BodyFacts, RequestView, body_facts};
pub use verdict::{ChallengeReply, Identity, KeyRef, Rejection, Verdict, Verified, VerifiedBatch, VerifiedItem};
use work::Work;

/// Verifier for the deliveries of one source. Prepares the source's keys once, for all deliveries.
pub struct Verifier {
    source: Arc<Source>,
    /// The verifiers of the recipe's proofs, in the recipe's order.
    proofs: Vec<ProofVerifier>,
    /// Maximum number of times that a verification reads the whole body.
    max_passes: usize,
    /// True if the public-key checks of one delivery may take long, whatever its size.
    has_many_checks: bool,
}

impl Verifier {
    /// Creates a verifier for `source` and prepares the source's keys.
    pub fn new(source: impl Into<Arc<Source>>) -> Verifier {
        let source = source.into();
        let limits = WorkLimits::new(&source.recipe.proofs, &source.keys);
        let proofs: Vec<_> = (0..source.recipe.proofs.len()).map(|proof| ProofVerifier::new(&source, proof, limits)).collect();
        let max_passes = 1 + proofs.iter().map(|proof| proof.max_passes(&source)).sum::<usize>();
        Verifier { source, proofs, max_passes, has_many_checks: limits.has_many_checks() }
    }

    /// Returns the source whose deliveries this verifier checks.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Checks the request head before the server reads the body. Rejects a request that cannot carry a proof of the recipe, for
    /// example because the text of its signature cannot be decoded. Returns the maximum size of the body, which is smaller for
    /// a request that can only be an unsigned challenge.
    pub fn precheck(&self, method: &Method, target: &str, headers: &HeaderMap) -> Result<usize, Rejection> {
        let view = RequestView::of_head(target, headers);
        let mut closest: Option<Rejection> = None;
        for proof in &self.proofs {
            match proof.precheck(&self.source, &view) {
                Ok(()) => return Ok(self.source.max_body),
                Err(rejection) => closest = Some(closer(closest, rejection)),
            }
        }
        let rejection = closest.unwrap_or_else(no_proof);
        let may_be_challenge =
            rejection.outcome == Outcome::SignatureMissing && challenge::any_unsigned(&self.source.recipe, method);
        if may_be_challenge { Ok(self.source.max_body.min(challenge::MAX_UNSIGNED_BODY)) } else { Err(rejection) }
    }

    /// Checks only the proofs of a delivery. Ignores endpoint challenges and the event's id, type, ordering key and time.
    pub fn check_proof(&self, delivery: &Delivery) -> Result<(), Rejection> {
        self.check(delivery, |_| Ok(()))
    }

    /// Checks the proofs of a delivery in the recipe's order, and then extracts the event's id, type, ordering key and time.
    ///
    /// Rejects a delivery without a readable proof before it computes any hash. Parses the body once, after a proof holds, or
    /// before if a proof reads a value in the body. A delivery without any proof can be an unsigned challenge.
    pub fn verify(&self, delivery: &Delivery) -> Result<Verdict, Rejection> {
        self.verify_within(delivery, &Unlimited)
    }

    /// Like [`Verifier::verify`], but charges the decompressed body to `memory`. If `memory` rejects a charge, the verifier
    /// accepts the delivery without the values in its body.
    pub fn verify_within(&self, delivery: &Delivery, memory: &dyn Memory) -> Result<Verdict, Rejection> {
        let source = &*self.source;
        let rejection = match self.check(delivery, |proven| verdict(source, delivery, proven, memory)) {
            Err(rejection) if rejection.outcome == Outcome::SignatureMissing => rejection,
            result => return result,
        };
        match unsigned_challenge(source, delivery) {
            Some(reply) => Ok(Verdict::UnsignedChallenge(reply)),
            None if delivery.method == Method::POST => Err(rejection),
            None => Err(no_such_challenge(delivery)),
        }
    }

    /// Returns true if the verification may take so long that it would delay the other requests of its thread: it reads more than
    /// [`MAX_QUICK_BYTES`], the source has many public keys, or the delivery is genuine and its body may be compressed.
    pub fn is_long(&self, delivery: &Delivery) -> bool {
        let may_be_compressed = || decompress::compression(&delivery.headers, &delivery.body).is_some();
        self.has_many_checks
            || delivery.body.len().saturating_mul(self.max_passes) > MAX_QUICK_BYTES
            || (!self.source.recipe.pointers.is_empty() && may_be_compressed() && self.check_proof(delivery).is_ok())
    }

    /// Returns the result of `accept` for the first proof that holds, or the closest rejection.
    fn check<T>(&self, delivery: &Delivery, accept: impl Fn(Proven<'_>) -> Result<T, Rejection>) -> Result<T, Rejection> {
        let (source, recipe) = (&*self.source, &*self.source.recipe);
        let reads_body = recipe.proofs.iter().any(Proof::reads_body);
        let work = Work::default();
        let body = if reads_body { body_facts(&recipe.pointers, &delivery.body) } else { BodyFacts::default() };
        work.add(if reads_body { delivery.body.len() } else { 0 });
        let view = RequestView::new(delivery, &body.values);
        let request = Request { source, delivery, view, items: &body.items, work: &work };
        let mut closest: Option<Rejection> = None;
        for proof in &self.proofs {
            match proof.check(request, &accept) {
                Ok(accepted) => return Ok(accepted),
                Err(rejection) => closest = Some(closer(closest, rejection)),
            }
        }
        Err(Rejection { work: work.bytes(), ..closest.unwrap_or_else(no_proof) })
    }
}

/// Returns the rejection whose check failed later. Of two equal rejections, returns the one of the earlier proof, because a
/// recipe lists its usual proof first.
fn closer(earlier: Option<Rejection>, later: Rejection) -> Rejection {
    match earlier {
        Some(earlier) => earlier.or_closer(Some(later)),
        None => later,
    }
}

fn no_proof() -> Rejection {
    Rejection::new(Outcome::SignatureMissing, "the recipe has no proof")
}

fn no_such_challenge(delivery: &Delivery) -> Rejection {
    let hint = format!(
        "challenge: expected a {} request that meets the conditions in when, found another; compare the verify token with the \
         sender's dashboard",
        delivery.method
    );
    Rejection::new(Outcome::SignatureMissing, hint)
}

/// Returns the reply to an unsigned endpoint challenge, or `None` for any other delivery. An unsigned challenge does not
/// authenticate its sender. Call this function only for a request that carries no proof.
fn unsigned_challenge(source: &Source, delivery: &Delivery) -> Option<ChallengeReply> {
    let recipe = &source.recipe;
    if !challenge::any_unsigned(recipe, &delivery.method) || delivery.body.len() > challenge::MAX_UNSIGNED_BODY {
        return None;
    }
    let body = body_facts(&recipe.pointers, &delivery.body).values;
    challenge::reply(ChallengeRequest { source, delivery, view: RequestView::new(delivery, &body), key: None })
}

fn verdict(source: &Source, delivery: &Delivery, proven: Proven<'_>, memory: &dyn Memory) -> Result<Verdict, Rejection> {
    let recipe = &source.recipe;
    if iter::once(&proven).chain(&proven.by_item).any(|proven| challenge::signs_for_anyone(recipe, &proven.content)) {
        return Err(Rejection::new(Outcome::SignatureMismatch, SIGNED_FOR_ANYONE));
    }
    let (readable, unread) = match recipe.pointers.is_empty() || proven.reads_body {
        true => (Cow::Borrowed(&delivery.body[..]), None),
        false => decompress::readable(delivery, source.max_body, memory),
    };
    let mut body = body_facts(&recipe.pointers, &readable);
    // A range of the decompressed body is no range of the body as received.
    body.items.is_divisible &= matches!(readable, Cow::Borrowed(_));
    let unread = unread.filter(|_| body.is_empty());
    let view = proven.view.with_body(&body.values);
    match proven.key {
        None => {
            if let Some(reply) = unsigned_challenge(source, delivery) {
                return Ok(Verdict::UnsignedChallenge(reply));
            }
        }
        Some(key) => {
            if let Some(reply) = challenge::reply(ChallengeRequest { source, delivery, view, key: Some(key) }) {
                return Ok(Verdict::Challenge(reply));
            }
        }
    }
    if delivery.method != Method::POST {
        let hint = format!(
            "method: expected POST, found {}; the request meets the conditions of no challenge in the recipe",
            delivery.method
        );
        return Err(Rejection::new(Outcome::MethodNotAllowed, hint));
    }
    events::verdict(source, delivery, &proven, view, &body.items, unread)
}

const SIGNED_FOR_ANYONE: &str = "signed content: expected an event, found a text that the unsigned challenge of the recipe lets \
                                any sender have signed; if the sender sends such events, remove hmac from the challenge";
/// Maximum number of bytes that a verification may read on a request thread. Hashing this number of bytes takes about a
/// millisecond.
const MAX_QUICK_BYTES: usize = 1 << 20;
