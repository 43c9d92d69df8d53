//! Checks the proofs of a recipe. Each kind of proof has its own file. This file prepares the keys of a source for one proof
//! and calls the check of the proof's kind. No check depends on the name of a provider.

use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::event::Delivery;
use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::key::{DecodedKey, Key};
use crate::source::recipe::{Coverage, Proof, Term};
use crate::source::work_limits::WorkLimits;
use crate::verify::content::Content;
use crate::verify::items::Items;
use crate::verify::request_view::RequestView;
use crate::verify::signature::{MAX_CODES, SignatureLimits};
use crate::verify::verdict::Rejection;
use crate::verify::work::Work;

mod basic;
mod digest;
mod fetch;
pub(super) mod jwt;
pub(super) mod mac;
mod public_key;
mod signed;
mod token;

use mac::MacKey;

/// One proof of a recipe, with the keys that a source has for this proof.
pub(super) struct ProofVerifier {
    /// Index of the proof in the recipe.
    proof: usize,
    keys: Vec<ProofKey>,
    limits: SignatureLimits,
}

/// One key, prepared for one proof.
struct ProofKey {
    /// Index of the key in the source.
    key: usize,
    /// The scheme of the proof and the name of the key, such as `mac-sha256:2026-11`.
    auth: Arc<str>,
    /// The prepared HMAC key. `None` for all other kinds of proof, which use the decoded key of the source.
    mac: Option<MacKey>,
}

/// The delivery whose proofs the verifier checks.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) source: &'a Source,
    pub(super) delivery: &'a Delivery,
    /// The request without tags and claims. Contains the values in the body only if a proof of the recipe reads them.
    pub(super) view: RequestView<'a>,
    /// The items of the batch. Empty unless a proof of the recipe reads the body.
    pub(super) items: &'a Items<'a>,
    /// The work so far.
    pub(super) work: &'a Work,
}

/// A proof that holds, with the key that made the proof and the bytes that the proof covers.
pub(super) struct Proven<'p> {
    /// The key, or `None` if the source accepts deliveries without a proof.
    pub(super) key: Option<&'p Key>,
    /// The scheme of the proof and the name of the key, for the record header `hookhold-auth`.
    pub(super) auth: Arc<str>,
    pub(super) coverage: Coverage,
    /// True if the covered bytes contain a time, so that only an exact replay has the same bytes.
    pub(super) is_timed: bool,
    /// True if the covered bytes contain the text of the event id.
    pub(super) signs_id: bool,
    /// True if the check read a value in the body as received. The event's values must then come from the same text, because a
    /// body can be a genuine form or JSON text and at the same time a compressed body with other values.
    pub(super) reads_body: bool,
    pub(super) content: Content<'p>,
    /// SHA-256 hash of the body, or `None` if the check did not compute this hash.
    pub(super) body_sha256: Option<[u8; 32]>,
    /// The request as the proof reads it: with the tags of the matching signature group, or with the claims of the token.
    pub(super) view: RequestView<'p>,
    /// The proof of each item if every item carries its own signature. Otherwise empty.
    pub(super) by_item: Vec<Proven<'p>>,
}

impl ProofVerifier {
    /// Prepares the keys of `source` for the proof with the index `proof`. `limits` apply to each request to the source.
    pub(super) fn new(source: &Source, proof: usize, limits: WorkLimits) -> ProofVerifier {
        let scheme = source.recipe.proofs[proof].scheme();
        let prepared = source.keys.iter().enumerate().filter_map(|(index, key)| {
            let mac = match (&source.recipe.proofs[proof], key.for_proof(proof)?) {
                (Proof::Mac(mac), DecodedKey::Secret(bytes)) => Some(MacKey::new(mac.algorithm, bytes)),
                _ => None,
            };
            Some(ProofKey { key: index, auth: format!("{scheme}:{}", key.name).into(), mac })
        });
        let is_public = source.recipe.proofs[proof].uses_public_keys();
        let signatures = if is_public { limits.max_public_key_signatures() } else { MAX_CODES };
        let limits = SignatureLimits { groups: limits.max_groups(), signatures };
        ProofVerifier { proof, keys: prepared.collect(), limits }
    }

    /// Returns the maximum number of times that the check reads the whole body.
    pub(super) fn max_passes(&self, source: &Source) -> usize {
        match source.recipe.proofs[self.proof].signed() {
            Some(signed) => {
                let groups = if signed.reads_tags { self.limits.groups } else { 1 };
                groups * signed.contents.iter().map(|terms| passes(terms)).sum::<usize>() * self.keys.len()
            }
            // A token may contain the hash of the body.
            None => 1,
        }
    }

    /// Checks the proof of a delivery. If the proof holds, returns the result of `accept`.
    pub(super) fn check<T>(
        &self,
        request: Request<'_>,
        accept: impl FnOnce(Proven<'_>) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        match &request.source.recipe.proofs[self.proof] {
            Proof::Mac(mac) => signed::check(
                self,
                &mac.signed,
                request,
                |key, content, codes| {
                    request.work.add(content.size());
                    key.mac.as_ref().is_some_and(|mac| mac.signed(content, codes))
                },
                accept,
            ),
            Proof::Digest(proof) => signed::check(
                self,
                &proof.signed,
                request,
                |_, content, codes| {
                    request.work.add(content.size());
                    digest::signed(proof.algorithm, content, codes)
                },
                accept,
            ),
            Proof::PublicKey(public) => signed::check(
                self,
                &public.signed,
                request,
                |key, content, codes| match request.source.keys[key.key].for_proof(self.proof) {
                    Some(DecodedKey::Public(key)) => public_key::signed(key, content, codes, request.work),
                    _ => false,
                },
                accept,
            ),
            Proof::Jwt(proof) => jwt::check(self, proof, request, accept),
            Proof::Token(proof) => token::check(self, proof, request, accept),
            Proof::Basic => basic::check(self, request, accept),
            Proof::None => accept(Proven::without_key(request)),
        }
    }

    /// Checks the request head for the proof, before the server reads the body. Rejects a request that cannot contain the proof,
    /// and returns `Ok` if the body may contain it.
    pub(super) fn precheck(&self, source: &Source, view: &RequestView<'_>) -> Result<(), Rejection> {
        match &source.recipe.proofs[self.proof] {
            Proof::Mac(mac) => signed::precheck(&mac.signed, view, self.limits),
            Proof::Digest(digest) => signed::precheck(&digest.signed, view, self.limits),
            Proof::PublicKey(public) => signed::precheck(&public.signed, view, self.limits),
            Proof::Jwt(proof) => jwt::precheck(proof, view),
            Proof::Token(proof) => token::precheck(proof, view),
            Proof::Basic => basic::precheck(view),
            Proof::None => Ok(()),
        }
    }

    /// Returns the keys that are valid at `now`, then the expired keys, each with its slot: the index of the key among the keys of
    /// this proof. An expired key does not authenticate a sender, but a match explains the rejection to the operator.
    fn keys_at<'a>(&'a self, source: &'a Source, now: UnixMillis) -> impl Iterator<Item = (usize, &'a ProofKey, &'a Key)> {
        let all = || self.keys.iter().enumerate().map(|(slot, key)| (slot, key, &source.keys[key.key]));
        all().filter(move |(.., key)| key.is_valid_at(now)).chain(all().filter(move |(.., key)| !key.is_valid_at(now)))
    }

    /// Returns the rejection for a proof that no valid key made. If an expired key made the proof, the hint names that key.
    /// `what` is the word for the proof, such as `signature`.
    fn mismatch(&self, source: &Source, expired: Option<&Key>, what: &str) -> Rejection {
        let is_public = source.recipe.proofs[self.proof].uses_public_keys();
        let hint = match (expired.and_then(|key| Some((&key.name, key.not_after?.rfc3339()))), is_public) {
            (Some((name, end)), false) => format!(
                "{what}: expected a valid secret, found the secret {name}, which expired at {end}; switch the sender to a valid secret"
            ),
            (Some((name, end)), true) => format!(
                "{what}: expected a valid public key, found the public key {name}, which expired at {end}; add the sender's new key \
                 to public_keys"
            ),
            (None, false) => format!(
                "{what}: expected one made with a configured secret (secrets checked: {}), found another; compare the secrets with \
                 the sender's dashboard",
                self.keys.len()
            ),
            (None, true) => format!(
                "{what}: expected one made with the private key of a configured public key (public keys checked: {}), found another; \
                 compare the public keys with the sender's dashboard",
                self.keys.len()
            ),
        };
        Rejection::new(Outcome::SignatureMismatch, hint)
    }
}

/// Returns the maximum number of times that one content reads the whole body. All values from inside the body together are at
/// most as long as the body.
fn passes(terms: &[Term]) -> usize {
    let whole = terms.iter().filter(|term| term.is_of_body() && !term.reads_body()).count();
    (whole + usize::from(terms.iter().any(Term::reads_body))).max(1)
}

impl<'p> Proven<'p> {
    fn without_key(request: Request<'p>) -> Proven<'p> {
        Proven {
            key: None,
            auth: "none".into(),
            coverage: Coverage::NOTHING,
            is_timed: false,
            signs_id: false,
            reads_body: false,
            content: Content::default(),
            body_sha256: None,
            view: request.view,
            by_item: Vec::new(),
        }
    }

    /// Returns a proof that consists of the proofs of all items of a batch, or `None` if there are no items.
    fn by_items(request: Request<'p>, by_item: Vec<Proven<'p>>) -> Option<Proven<'p>> {
        let Proven { key, auth, coverage, is_timed, .. } = by_item.first()?;
        let (auth, whole) = (auth.clone(), Proven::without_key(request));
        Some(Proven { key: *key, auth, coverage: *coverage, is_timed: *is_timed, reads_body: true, by_item, ..whole })
    }

    /// Returns true if every item of the batch carries its own signature.
    pub(super) fn is_by_item(&self) -> bool {
        !self.by_item.is_empty()
    }

    /// Returns the proof of one item, or `None` if one proof covers all items.
    pub(super) fn of_item(&self, index: usize) -> Option<&Proven<'p>> {
        self.by_item.get(index)
    }

    /// Returns a proof that covers no part of the event.
    fn by_key(request: Request<'p>, key: &'p Key, auth: Arc<str>) -> Proven<'p> {
        Proven { key: Some(key), auth, ..Proven::without_key(request) }
    }
}
