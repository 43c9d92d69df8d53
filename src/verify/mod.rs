//! Believe: interprets a source's recipe over a delivery. Signature first, time second, and only then a look into the body,
//! but where a provider does not sign its check of the endpoint. Pure functions over wire bytes: no I/O, no clock of its own,
//! no decoding of what was signed, but for forms that are signed by their decoded fields.
//!
//! What a sender can do wrong ends in a [`Rejection`]; nothing that arrives can panic or allocate beyond its own size.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::event::{Delivery, Event, EventParts, Header, is_secret};
use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::key::Key;
use crate::source::recipe::Reply;

mod challenge;
mod form;
mod identity;
mod json;
mod mac;
mod request_view;
pub mod sign;
mod signature;
mod signing_input;
mod sorted;
mod tolerance;

use request_view::{Located, RequestView};
use signing_input::SigningInput;

/// What a delivery turns out to be.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly always the large one, and moved once")]
pub enum Verdict {
    /// An event of the provider.
    Event(Verified),
    /// The provider's check of this endpoint: to be answered, never to be kept.
    Challenge(Reply),
}

/// A believed delivery.
#[derive(Debug)]
pub struct Verified {
    /// The event, still without its dedupe key.
    pub event: Event,
    /// What makes a repeat of it recognisable.
    pub identity: Identity,
    /// The name of the secret that fits.
    pub secret: Arc<str>,
}

/// What makes two deliveries of a source the same event. The dedupe key hashes it together with source and event type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The provider's id.
    Id {
        /// Which of the recipe's alternatives it was: order 17 and invoice 17 are two events.
        alternative: usize,
        /// The fields of that alternative, in order.
        fields: Vec<String>,
        /// SHA-256 of the body, when the id is outside the signed bytes: a signed body cannot take over another's id.
        body_sha256: Option<[u8; 32]>,
    },
    /// SHA-256 of the signed content, which holds a time: only an exact replay is a repeat.
    SignedContent([u8; 32]),
    /// SHA-256 of the body: byte-equal bodies within the time are repeats, because the operator says so.
    BodyWindow([u8; 32], Duration),
    /// Nothing is ever a repeat of it.
    Keyless,
}

/// Why a delivery is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The ending: one of the signature and timestamp outcomes.
    pub outcome: Outcome,
    /// For the operator's log: what was looked for. Holds nothing that arrived.
    pub hint: String,
}

impl Rejection {
    fn new(outcome: Outcome, hint: impl Into<String>) -> Rejection {
        Rejection { outcome, hint: hint.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.outcome.word(), self.hint)
    }
}

/// What can be said before the body is read: `signature_missing`, or nothing yet. Where challenges come without a
/// signature, only the body can say.
pub fn precheck(source: &Source, headers: &HeaderMap) -> Result<(), Rejection> {
    if challenge::any_unsigned(&source.recipe) {
        return Ok(());
    }
    signature::header(&source.recipe, headers).map(|_| ())
}

/// Checks every signature of a delivery against every secret of its source, then the time, then finds the event's facts.
/// Without a readable signature it costs nothing; else one hash over the content per group of signatures, alternative content
/// and secret, before that the sorting of a form that is signed by its fields, and once it is proved, one pass over the body.
/// Where the recipe knows challenges without a signature, one more pass comes before everything.
pub fn verify(source: &Source, delivery: &Delivery) -> Result<Verdict, Rejection> {
    let recipe = &source.recipe;
    if let Some(reply) = unsigned_challenge(source, delivery) {
        return Ok(Verdict::Challenge(reply));
    }
    let signatures = signature::read(recipe, &delivery.headers)?;
    if signatures.is_empty() {
        return Err(signature::unreadable(recipe));
    }
    let ground = SigningInput::new(source, &delivery.target, &delivery.body)?;
    let mut refusals = Vec::new();
    for group in 0..signatures.groups {
        let site = RequestView::new(&delivery.target, &delivery.headers, &signatures.tags, group);
        match check(source, delivery, &ground, &site, signatures.of(group)) {
            Ok(proof) => return Ok(believe(source, delivery, site, proof)),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Err(refusals.into_iter().max_by_key(|refusal| how_close(refusal.outcome)).unwrap_or_else(|| signature::unreadable(recipe)))
}

/// The reply to a check of the endpoint that its provider does not sign, if the delivery is one: nothing is proved about it.
pub fn unsigned_challenge(source: &Source, delivery: &Delivery) -> Option<Reply> {
    let recipe = &source.recipe;
    if !challenge::any_unsigned(recipe) {
        return None;
    }
    let site = RequestView::new(&delivery.target, &delivery.headers, &[], 0).with_body(&recipe.pointers, &delivery.body);
    challenge::reply(recipe, false, &site)
}

/// What shows that a delivery is genuine.
struct Proof<'a> {
    key: &'a Key,
    content: Vec<&'a [u8]>,
    /// SHA-256 of the body, where it had to be computed.
    body_sha256: Option<[u8; 32]>,
}

fn check<'a>(
    source: &'a Source,
    delivery: &Delivery,
    ground: &'a SigningInput<'a>,
    site: &RequestView<'a>,
    codes: impl Iterator<Item = mac::Code> + Clone,
) -> Result<Proof<'a>, Rejection> {
    let recipe = &source.recipe;
    if codes.clone().next().is_none() {
        return Err(signature::unreadable(recipe));
    }
    let (mut absent, mut expired, mut is_complete) = (None, None, false);
    for terms in &recipe.contents {
        let content = match ground.parts(terms, site) {
            Ok(content) => content,
            Err(refusal) => {
                absent = Some(refusal);
                continue;
            }
        };
        is_complete = true;
        let fits = |key: &&Key| mac::fits(key, recipe.algorithm, &content, codes.clone());
        let is_valid = |key: &&Key| key.is_valid_at(delivery.received_at);
        if let Some(key) = source.secrets.iter().filter(is_valid).find(fits) {
            let body_sha256 = ground.body_hash()?;
            tolerance::check(recipe, site, delivery.received_at)?;
            return Ok(Proof { key, content, body_sha256 });
        }
        expired = expired.or_else(|| source.secrets.iter().filter(|key| !is_valid(key)).find(fits));
    }
    Err(absent.filter(|_| !is_complete).unwrap_or_else(|| mismatch(source, expired)))
}

/// Of several refusals the sender's best attempt is the one to tell the operator.
fn how_close(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::TimestampStale | Outcome::TimestampFuture => 2,
        Outcome::SignatureMismatch => 1,
        _ => 0,
    }
}

/// A fitting secret whose time is over proves nothing any more, but the operator hears of it.
fn mismatch(source: &Source, expired: Option<&Key>) -> Rejection {
    let hint = match expired.and_then(|key| Some((&key.name, key.not_after?))) {
        Some((name, end)) => format!("signed with the secret {name}, which expired at {}", end.rfc3339()),
        None => format!("none of the {} configured secrets makes this signature", source.secrets.len()),
    };
    Rejection::new(Outcome::SignatureMismatch, hint)
}

fn believe(source: &Source, delivery: &Delivery, site: RequestView<'_>, proof: Proof<'_>) -> Verdict {
    let recipe = &source.recipe;
    let site = site.with_body(&recipe.pointers, &delivery.body);
    if let Some(reply) = challenge::reply(recipe, true, &site) {
        return Verdict::Challenge(reply);
    }
    let id = site.fact(&recipe.event.id);
    let event = Event::from_verifier(EventParts {
        received_at: delivery.received_at,
        occurred_at: tolerance::occurred_at(recipe, &site),
        source: source.name.clone(),
        topic: source.topic.clone(),
        id: id.as_ref().map(Located::joined),
        event_type: site.fact(&recipe.event.kind).map(|fact| fact.joined()),
        type_prefix: recipe.event.type_prefix.clone(),
        ordering_key: site.fact(&recipe.event.key).map(|fact| fact.joined()),
        dedupe_key: None,
        auth: proof.key.auth.clone(),
        integrity: recipe.integrity,
        method: delivery.method.to_string(),
        target: delivery.target.clone(),
        remote: delivery.remote,
        traceparent: site.header_text(&TRACEPARENT),
        headers: kept_headers(&delivery.headers),
        body: delivery.body.clone(),
    });
    let identity = identity::of(source, id.as_ref(), &proof, &delivery.body);
    Verdict::Event(Verified { event, identity, secret: proof.key.name.clone() })
}

fn kept_headers(headers: &HeaderMap) -> Vec<Header> {
    let mut kept = Vec::with_capacity(headers.len());
    kept.extend(headers.iter().filter(|(name, _)| !is_secret(name)).map(|(name, value)| (name.clone(), value.clone())));
    kept
}

const TRACEPARENT: http::HeaderName = http::HeaderName::from_static("traceparent");
