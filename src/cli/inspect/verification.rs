//! Verifies a stored event again, with the recipe and the secrets of today's configuration, as of its time of receipt. An event lacks
//! the tokens and credentials of its request, and an item of a batch lacks the other items.

use std::sync::Arc;

use hookhold::config::Config;
use hookhold::event::{Delivery, Event, Integrity};
use hookhold::source::Source;
use hookhold::verify::{Rejection, Verdict, Verified, VerifiedBatch, Verifier};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::super::unstored_credentials;

/// Result of verifying a stored event again.
pub(super) enum Reverification {
    /// The event verifies. Contains the name of the secret, or `None` if the source requires no proof.
    Verified(Option<Arc<str>>),
    /// The gateway would reject the delivery.
    Rejected(Rejection),
    /// The event cannot be verified again, for this reason.
    Impossible(String),
}

impl Reverification {
    /// Verifies an event. `config` is the configuration, or the reason why it cannot be read.
    pub(super) fn of(event: &Event, config: &Result<Config, String>) -> Reverification {
        let config = match config {
            Ok(config) => config,
            Err(error) => return Reverification::Impossible(format!("the configuration cannot be read: {error}")),
        };
        let Some(source) = config.sources.iter().find(|source| *source.name == *event.source()) else {
            return Reverification::Impossible(format!("the configuration has no source {}", event.source()));
        };
        if event.integrity() == Integrity::Item {
            let why = "the event is one item of a batch, and its proof covers the whole batch, which is not stored";
            return Reverification::Impossible(why.to_owned());
        }
        match delivery(event) {
            Some(delivery) => match (verify(source, &delivery), absent_secret(source)) {
                (Reverification::Rejected(_), Some(name)) => {
                    Reverification::Impossible(format!("this shell cannot read the secret {name}"))
                }
                (verified, _) => verified,
            },
            None => Reverification::Impossible("the stored request has no valid method".to_owned()),
        }
    }

    /// Returns the result as text.
    pub(super) fn text(&self) -> String {
        match self {
            Reverification::Verified(Some(secret)) => format!("yes, with {secret}"),
            Reverification::Verified(None) => "yes, the source requires no proof".to_owned(),
            Reverification::Rejected(rejection) => format!("no: {rejection}"),
            Reverification::Impossible(why) => format!("cannot be verified again: {why}"),
        }
    }

    /// Returns the result as a JSON object. The field `now` is `null` if the event cannot be verified again.
    pub(super) fn json(&self) -> Value {
        match self {
            Reverification::Verified(secret) => json!({ "now": true, "secret": secret.as_deref() }),
            Reverification::Rejected(rejection) => {
                json!({ "now": false, "outcome": rejection.outcome.word(), "hint": rejection.hint })
            }
            Reverification::Impossible(why) => json!({ "now": null, "why": why }),
        }
    }
}

/// Returns the name of a secret that this process cannot read.
fn absent_secret(source: &Source) -> Option<&str> {
    let mut absent = source.keys.iter().map(|key| key.configured()).filter(|secret| secret.bytes.is_empty());
    absent.next().map(|secret| &*secret.name)
}

/// Returns the delivery of an event, as far as hookhold has stored it; `None` if the stored method is invalid.
fn delivery(event: &Event) -> Option<Delivery> {
    let request = event.request();
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for (name, value) in &request.headers {
        headers.append(name.clone(), value.clone());
    }
    Some(Delivery {
        method: Method::from_bytes(request.method.as_bytes()).ok()?,
        target: request.target.clone(),
        headers,
        body: event.body().clone(),
        remote: request.remote,
        received_at: event.received_at(),
    })
}

fn verify(source: &Arc<Source>, delivery: &Delivery) -> Reverification {
    match Verifier::new(source.clone()).verify(delivery) {
        Ok(Verdict::Event(Verified { secret, .. }) | Verdict::Batch(VerifiedBatch { secret, .. })) => {
            Reverification::Verified(secret)
        }
        Ok(Verdict::Challenge(_) | Verdict::UnsignedChallenge(_)) => {
            Reverification::Impossible("the recipe now takes the delivery for an endpoint challenge".to_owned())
        }
        Err(rejection) if unstored_credentials::may_explain(source, &delivery.target, &rejection) => {
            Reverification::Impossible("the token is not stored".to_owned())
        }
        Err(rejection) => Reverification::Rejected(rejection),
    }
}
