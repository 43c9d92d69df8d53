//! Verifies deliveries with the recipe of their source. The verifier checks the signature, then the timestamp, and only then
//! extracts the event's id, type, ordering key and time. An unsigned endpoint challenge is the only exception: the verifier
//! recognises it without a signature check.
//!
//! The functions of this module are pure: they perform no I/O and do not read the clock. The verifier checks signatures over
//! the bytes as received. The exception is a signature over the decoded fields of a form: the verifier decodes these fields
//! before the check. Every invalid delivery results in a [`Rejection`]. No input causes a panic or an allocation larger than
//! the input.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::event::{Delivery, Event, EventParts, EventRequest};
use crate::header_field::{HeaderField, is_credential};
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
mod sorted_form;
mod tolerance;
mod verdict;

use mac::MacKey;
use request_view::{Located, RequestView};
use signing_input::SigningInput;
pub use verdict::{Identity, Rejection, Verdict, Verified};

/// Verifier for the deliveries of one source. Prepares the source's keys once, for all deliveries.
pub struct Verifier {
    source: Arc<Source>,
    /// The prepared keys of the source's secrets, in the order of the secrets.
    mac_keys: Vec<MacKey>,
}

impl Verifier {
    /// Creates a verifier for `source` and prepares the source's keys.
    pub fn new(source: impl Into<Arc<Source>>) -> Verifier {
        let source = source.into();
        let algorithm = source.recipe.proof.algorithm;
        let mac_keys = source.secrets.iter().map(|key| MacKey::new(algorithm, key.bytes())).collect();
        Verifier { source, mac_keys }
    }

    /// Returns the source whose deliveries this verifier checks.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Checks every signature of a delivery against every secret, then checks the timestamp, and finally extracts the event's
    /// id, type, ordering key and time. If a delivery has no readable signature, rejects the delivery before computing any
    /// hash. Otherwise, hashes the content at most once for each combination of signature group, alternative of the signed
    /// content, and secret. Parses the body once, after a signature has matched. Sorts the fields of a signed form before the
    /// signature check. If the recipe has an unsigned challenge, also parses every body before the signature check.
    pub fn verify(&self, delivery: &Delivery) -> Result<Verdict, Rejection> {
        let (source, recipe) = (&*self.source, &*self.source.recipe);
        if let Some(reply) = unsigned_challenge(source, delivery) {
            return Ok(Verdict::Challenge(reply));
        }
        let signatures = signature::read(&recipe.proof, &delivery.headers)?;
        if signatures.is_empty() {
            return Err(signature::unreadable(&recipe.proof));
        }
        let input = SigningInput::new(source, &delivery.target, &delivery.body)?;
        let mut rejections = Vec::new();
        for group in 0..signatures.groups {
            let request = RequestView::new(&delivery.target, &delivery.headers, &signatures.tags, group);
            match self.check(delivery, &input, &request, signatures.of(group)) {
                Ok(signed) => return Ok(verdict(source, delivery, request, signed)),
                Err(rejection) => rejections.push(rejection),
            }
        }
        let closest = rejections.into_iter().max_by_key(|rejection| closeness(rejection.outcome));
        Err(closest.unwrap_or_else(|| signature::unreadable(&recipe.proof)))
    }

    /// Checks the signatures of one group against every alternative of the signed content and every secret.
    fn check<'a>(
        &'a self,
        delivery: &Delivery,
        input: &'a SigningInput<'a>,
        request: &RequestView<'a>,
        macs: impl Iterator<Item = mac::Mac> + Clone,
    ) -> Result<Signed<'a>, Rejection> {
        let recipe = &self.source.recipe;
        if macs.clone().next().is_none() {
            return Err(signature::unreadable(&recipe.proof));
        }
        let (mut absent, mut expired, mut is_complete) = (None, None, false);
        for terms in &recipe.proof.contents {
            let content = match input.parts(terms, request) {
                Ok(content) => content,
                Err(rejection) => {
                    absent = Some(rejection);
                    continue;
                }
            };
            is_complete = true;
            if let Some(key) = self.signer(&content, &macs, |key| key.is_valid_at(delivery.received_at)) {
                let body_sha256 = input.body_hash()?;
                tolerance::check(recipe, request, delivery.received_at)?;
                return Ok(Signed { key, content, body_sha256 });
            }
            expired = expired.or_else(|| self.signer(&content, &macs, |key| !key.is_valid_at(delivery.received_at)));
        }
        Err(absent.filter(|_| !is_complete).unwrap_or_else(|| self.mismatch(expired)))
    }

    /// Returns the first key that satisfies `is_eligible` and produces one of `macs` for `content`, or `None` if no key does
    /// both.
    fn signer(
        &self,
        content: &[&[u8]],
        macs: &(impl Iterator<Item = mac::Mac> + Clone),
        is_eligible: impl Fn(&Key) -> bool,
    ) -> Option<&Key> {
        let mut keys = self.source.secrets.iter().zip(&self.mac_keys).filter(|(key, _)| is_eligible(key));
        keys.find(|(_, mac_key)| mac_key.makes_one_of(macs.clone(), content)).map(|(key, _)| key)
    }

    /// Returns the rejection for a signature that no valid secret produces. If an expired secret produces the signature, the
    /// hint names that secret. Such a match does not authenticate the sender but explains the rejection to the operator.
    fn mismatch(&self, expired: Option<&Key>) -> Rejection {
        let hint = match expired.and_then(|key| Some((&key.name, key.not_after?))) {
            Some((name, end)) => format!(
                "signature: expected a valid secret, found the secret {name}, which expired at {}; switch the sender to a valid \
                 secret",
                end.rfc3339()
            ),
            None => format!(
                "signature: expected one made with a configured secret (secrets checked: {}), found another; compare the secrets \
                 with the sender's dashboard",
                self.source.secrets.len()
            ),
        };
        Rejection::new(Outcome::SignatureMismatch, hint)
    }
}

/// Rejects a request without a signature header, so that the server does not read the request body. Accepts every request if
/// the recipe has an unsigned challenge, because the verifier may need the body to recognise such a challenge.
pub fn precheck(source: &Source, headers: &HeaderMap) -> Result<(), Rejection> {
    if challenge::any_unsigned(&source.recipe) {
        return Ok(());
    }
    signature::header(&source.recipe.proof, headers).map(|_| ())
}

/// Returns the reply to an unsigned endpoint challenge, or `None` for any other delivery. An unsigned challenge does not
/// authenticate its sender.
pub fn unsigned_challenge(source: &Source, delivery: &Delivery) -> Option<Reply> {
    let recipe = &source.recipe;
    if !challenge::any_unsigned(recipe) {
        return None;
    }
    let request = RequestView::new(&delivery.target, &delivery.headers, &[], 0).with_body(&recipe.pointers, &delivery.body);
    challenge::reply(recipe, false, &request)
}

/// The result of a successful signature check: the key, and the content that was signed with this key.
struct Signed<'a> {
    key: &'a Key,
    content: Vec<&'a [u8]>,
    /// SHA-256 hash of the body if the URL contains a body hash, otherwise `None`.
    body_sha256: Option<[u8; 32]>,
}

/// Returns the rank of a rejection: the later the failed check, the higher the rank. If a delivery has several signature
/// groups, the verifier reports the rejection with the highest rank. The group that passed the most checks explains the most to
/// the operator.
fn closeness(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::TimestampStale | Outcome::TimestampFuture => 2,
        Outcome::SignatureMismatch => 1,
        _ => 0,
    }
}

fn verdict(source: &Source, delivery: &Delivery, request: RequestView<'_>, signed: Signed<'_>) -> Verdict {
    let recipe = &source.recipe;
    let request = request.with_body(&recipe.pointers, &delivery.body);
    if let Some(reply) = challenge::reply(recipe, true, &request) {
        return Verdict::Challenge(reply);
    }
    let id = request.locate(&recipe.event.id);
    let event = Event::from_verifier(EventParts {
        received_at: delivery.received_at,
        occurred_at: tolerance::occurred_at(recipe, &request),
        source: source.name.clone(),
        topic: source.topic.clone(),
        id: id.as_ref().map(Located::joined),
        event_type: request.locate(&recipe.event.kind).map(|located| located.joined()),
        type_prefix: recipe.event.type_prefix.clone(),
        ordering_key: request.locate(&recipe.event.key).map(|located| located.joined()),
        dedupe_key: None,
        auth: signed.key.auth.clone(),
        integrity: recipe.coverage.integrity,
        request: EventRequest {
            method: delivery.method.to_string(),
            target: delivery.target.clone(),
            remote: delivery.remote,
            traceparent: request.header_text(&TRACEPARENT),
            headers: without_credentials(&delivery.headers),
        },
        body: delivery.body.clone(),
    });
    let identity = identity::of(source, id.as_ref(), &signed, &delivery.body);
    Verdict::Event(Verified { event, identity, secret: signed.key.name.clone() })
}

fn without_credentials(headers: &HeaderMap) -> Vec<HeaderField> {
    let mut stored = Vec::with_capacity(headers.len());
    stored.extend(headers.iter().filter(|(name, _)| !is_credential(name)).map(|(name, value)| (name.clone(), value.clone())));
    stored
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
