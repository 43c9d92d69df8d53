//! Creates sample deliveries, signed with a source's own recipe and secret. A sample is either genuine or invalid in one chosen
//! way. The same code builds the signed content of a sample and of a delivery, so a mistake in this code does not make a sample
//! fail. A sample therefore tests the recipe and the secret, but not this code. The published vectors in `tests/vectors` test
//! the code.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::clock::UnixMillis;
use crate::event::Delivery;
use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::recipe::{Proof, Recipe};

mod body;
mod draft;
mod evidence;
mod series;
mod shape;

use body::{damage_item, damaged, written};
use draft::SampleDraft;
use evidence::Signer;
pub use series::SampleSeries;

/// A sample delivery: a signed request like those that the provider sends.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The request method, always POST.
    pub method: Method,
    /// The request target: the source's path, with the query parameters that the recipe reads.
    pub target: String,
    /// The request headers: every header that the recipe reads, and a content type.
    pub headers: HeaderMap,
    /// The request body.
    pub body: Bytes,
}

impl Sample {
    /// Returns the delivery that the gateway receives from the address `remote` at `received_at`.
    pub fn into_delivery(self, remote: SocketAddr, received_at: UnixMillis) -> Delivery {
        let Sample { method, target, headers, body } = self;
        Delivery { method, target, headers, body, remote, received_at }
    }
}

/// The event id, event type, ordering key, signing time and tampering of a sample.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// The event id of the sample. Ignored if the recipe has no event id.
    pub id: String,
    /// The event type of the sample, or `None` for the recipe's sample type.
    pub event_type: Option<String>,
    /// The ordering key of the sample, or `None` for the ordering key of the recipe's own sample, if there is one. Ignored if the
    /// recipe has no ordering key.
    pub key: Option<String>,
    /// The signing time of the sample.
    pub now: UnixMillis,
    /// The way in which the sample is invalid, or `None` for a genuine sample.
    pub tamper: Option<Tamper>,
}

/// One way to make a sample delivery invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// A body that is changed after signing.
    Body,
    /// A signature made with a secret that the source does not have.
    Secret,
    /// A missing signature header.
    Missing,
    /// A signing time that is older than the tolerance allows.
    Stale,
    /// A signing time that is further in the future than the tolerance allows.
    Future,
    /// A request path that belongs to no source.
    Unknown,
}

impl Tamper {
    /// Every kind of tampering, and its name on the command line.
    pub const WORDS: &[(&str, Tamper)] = &[
        ("body", Tamper::Body),
        ("secret", Tamper::Secret),
        ("missing", Tamper::Missing),
        ("stale", Tamper::Stale),
        ("future", Tamper::Future),
        ("unknown", Tamper::Unknown),
    ];

    /// Returns the outcome that the gateway must report for a sample with this tampering.
    pub fn expected(self) -> Outcome {
        match self {
            Tamper::Body | Tamper::Secret => Outcome::SignatureMismatch,
            Tamper::Missing => Outcome::SignatureMissing,
            Tamper::Stale => Outcome::TimestampStale,
            Tamper::Future => Outcome::TimestampFuture,
            Tamper::Unknown => Outcome::UnknownSource,
        }
    }

    /// Returns true if samples of the recipe can be invalid in this way. A token, for example, accepts any body, and a sample can
    /// be stale only if its proof contains a time.
    pub fn applies_to(self, recipe: &Recipe) -> bool {
        let Some(proof) = recipe.proofs.iter().find(|proof| !proof.uses_public_keys()) else { return false };
        match self {
            Tamper::Unknown => true,
            Tamper::Secret | Tamper::Missing => proof.needs_key(),
            Tamper::Body => proof.covers_a_part_of_the_body(),
            Tamper::Stale | Tamper::Future => proof.timestamp().is_some() || matches!(proof, Proof::Jwt(_)),
        }
    }
}

/// Returns a sample delivery for `source`, signed with the source's first secret that is valid at `options.now`. Uses the first
/// proof of the recipe for which the source has a secret. Returns `None` if there is no such proof, because only the provider
/// has the private key that belongs to a public key. If `body` is `None`, the body is that of the recipe's sample for the event
/// type, or of its default sample, with the event id, type, time and ordering key at the recipe's locations. If the recipe has no
/// samples, the body is a small JSON object or form that contains only these values.
pub fn sign(source: &Source, body: Option<Bytes>, options: &SampleOptions) -> Option<Sample> {
    let recipe = &source.recipe;
    let (proof, signer) = signer(source, options)?;
    let is_own_body = body.is_none();
    let own = recipe.sample(options.event_type.as_deref()).filter(|_| is_own_body);
    let mut draft = SampleDraft::new(recipe, own, source.path.clone());
    draft.describe(recipe, proof, options);
    let own_body = own.map(|own| &own.body);
    let mut body = body.unwrap_or_else(|| written(recipe, own_body, &draft.values, &options.id).into());
    draft.announce(recipe, proof, &body);
    let evidence = draft.evidence(source, proof, &signer, &body, options);
    if let Some((place, text)) = evidence.filter(|_| options.tamper != Some(Tamper::Missing)) {
        draft.put_evidence(place, text);
        // The proof does not cover the body that contains it.
        if is_own_body && proof.reads_evidence_in_body() {
            let damages_item = options.tamper == Some(Tamper::Body) && proof.signed().is_some_and(|signed| signed.by_item);
            if damages_item {
                damage_item(&mut draft.values);
            }
            body = written(recipe, own_body, &draft.values, &options.id).into();
        }
    }
    let SampleDraft { headers, mut target, .. } = draft;
    if options.tamper == Some(Tamper::Body) && !proof.signed().is_some_and(|signed| signed.by_item) {
        body = damaged(&body, proof.coverage().integrity);
    }
    if options.tamper == Some(Tamper::Unknown) {
        target.insert_str(source.path.len(), "-unknown");
    }
    Some(Sample { method: Method::POST, target, headers, body })
}

/// Returns true if [`sign`] can sign samples for `source`.
pub fn can_sign(source: &Source, now: UnixMillis) -> bool {
    proof_and_secret(source, now).is_some()
}

/// Returns true if [`sign`] can sign samples for a source with this recipe and with a secret for each of its proofs.
pub fn can_sign_with(recipe: &Recipe) -> bool {
    recipe.proofs.iter().any(|proof| !proof.uses_public_keys())
}

/// Returns true if samples of the source contain their signature or token in the body, so that [`sign`] cannot sign another
/// body.
pub fn signs_only_own_body(source: &Source, now: UnixMillis) -> bool {
    proof_and_secret(source, now).is_some_and(|(proof, _)| proof.reads_evidence_in_body())
}

/// Returns the first proof for which the source has a secret, and the secret. The secret is empty if the source requires no
/// proof.
fn proof_and_secret(source: &Source, now: UnixMillis) -> Option<(&Proof, Signer)> {
    source.recipe.proofs.iter().enumerate().find_map(|(index, proof)| {
        if !proof.needs_key() {
            return Some((proof, Signer { secret: Vec::new(), slot: 0 }));
        }
        let key = source.key_at(index, now)?;
        let slot = source.keys.iter().filter(|key| key.secret_for(index).is_some()).position(|other| other.name == key.name);
        Some((proof, Signer { secret: key.secret_for(index)?.to_vec(), slot: slot.unwrap_or_default() }))
    })
}

fn signer<'s>(source: &'s Source, options: &SampleOptions) -> Option<(&'s Proof, Signer)> {
    let (proof, mut signer) = proof_and_secret(source, options.now)?;
    let another = match proof {
        Proof::Basic => &b"not:the secret"[..],
        _ => b"not the secret",
    };
    if options.tamper == Some(Tamper::Secret) {
        signer.secret = another.to_vec();
    }
    Some((proof, signer))
}
