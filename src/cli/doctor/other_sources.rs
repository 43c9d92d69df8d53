//! Finds another configured source, or another provider, to which a delivery may belong.

use std::sync::Arc;

use hookhold::source::Source;
use hookhold::source::key::Key;
use hookhold::source::recipe::Recipe;
use hookhold::verify::Verifier;

use super::captured::CapturedDelivery;
use super::cause::Cause;
use super::search::ProofAttempt;

/// Returns a cause for each other source or provider to which the delivery may belong. If a matching signature proves one of
/// these causes, returns only that cause.
pub(super) fn causes(captured: &CapturedDelivery) -> Vec<Cause> {
    let own = captured.source.provider.as_deref();
    let is_genuine = |other: &&Arc<Source>| ProofAttempt::of(&Verifier::new((*other).clone()), &captured.delivery).is_proved();
    let mut others = captured.others.iter().filter(|other| other.provider.is_none() || other.provider.as_deref() != own);
    if let Some(other) = others.find(is_genuine) {
        let what = format!("the delivery is genuine for the source {}, not for {}", other.name, captured.source.name);
        let advice = format!("enter the URL that ends in {} at the sender", other.path);
        return vec![Cause::certain("other_provider", what, advice)];
    }
    let has_own_signature = has_signature(&captured.source.recipe, captured);
    let names = captured.providers.names().into_iter().filter(|name| Some(*name) != own);
    let foreign = names.filter_map(|name| Some((name, captured.providers.recipe(name)?)));
    let signed = foreign.filter(|(_, recipe)| !has_own_signature && has_signature(recipe, captured));
    let causes: Vec<Cause> = signed.map(|(name, recipe)| other_provider(captured, name, recipe)).collect();
    let proved = causes.iter().find(|cause| cause.is_certain()).cloned();
    proved.map_or(causes, |cause| vec![cause])
}

fn other_provider(captured: &CapturedDelivery, name: &str, recipe: Recipe) -> Cause {
    let (title, source, recipe) = (recipe.title.clone(), &captured.source, Arc::new(recipe));
    let headers = recipe.proof_headers();
    let what = format!(
        "the request has the headers of {title} ({}), but the source {} is not configured for {title}",
        headers.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "),
        source.name
    );
    let keys = source.keys.iter().filter_map(|key| Key::decode(key.configured(), key.is_public, &recipe.proofs).ok());
    let as_that = Source { keys: keys.collect(), recipe: recipe.clone(), ..(**source).clone() };
    let can_verify = !as_that.recipe.signs_url() || as_that.public_url.is_some();
    if can_verify && ProofAttempt::of(&Verifier::new(as_that), &captured.delivery).is_proved() {
        let what = format!("{what}; the sender signed with a secret of the source {}", source.name);
        return Cause::certain("other_provider", what, format!("set provider = \"{name}\" in [sources.{}]", source.name));
    }
    let its_own = captured.others.iter().find(|other| other.provider.as_deref() == Some(name));
    let advice = match its_own {
        Some(other) => {
            format!("enter the URL of the source {}, which ends in {}, in {title}'s dashboard", other.name, other.path)
        }
        None => format!("add a source for {title}; run `hookhold providers {name}` to see where to enter its URL"),
    };
    Cause::likely("other_provider", what, advice)
}

fn has_signature(recipe: &Recipe, captured: &CapturedDelivery) -> bool {
    recipe.proof_headers().iter().any(|name| captured.delivery.headers.contains_key(name))
}
