//! Deliveries that are genuine elsewhere: of another configured source, or by another provider's scheme.

use std::sync::Arc;

use hookhold::source::key::Key;
use hookhold::source::recipe::Recipe;
use hookhold::source::{PROVIDERS, Source, provider};
use hookhold::verify::Verifier;

use super::Case;
use super::cause::Cause;
use super::search::proof;

/// What speaks for another source or provider; of the proved ones the first.
pub fn claims(case: &Case) -> Vec<Cause> {
    let own = case.source.provider.as_deref();
    let elsewhere = case.others.iter().filter(|other| other.provider.is_none() || other.provider.as_deref() != own);
    if let Some(other) = elsewhere.into_iter().find(|other| proof(&Verifier::new((*other).clone()), &case.delivery).is_some()) {
        let what = format!("it is a genuine delivery for the source {}, not for {}", other.name, case.source.name);
        return vec![Cause::certain("other_provider", what, format!("at the sender, enter the URL that ends in {}", other.path))];
    }
    let foreign = PROVIDERS.iter().filter(|(name, _)| Some(*name) != own).filter_map(|(name, _)| Some((*name, provider(name)?)));
    let signed = foreign.filter(|(_, recipe)| !has_signature(&case.source.recipe, case) && has_signature(recipe, case));
    let claims: Vec<Cause> = signed.map(|(name, recipe)| claim(case, name, recipe)).collect();
    let proved = claims.iter().find(|cause| cause.is_certain()).cloned();
    proved.map_or(claims, |cause| vec![cause])
}

fn claim(case: &Case, name: &str, recipe: Recipe) -> Cause {
    let (title, source, recipe) = (recipe.title.clone(), &case.source, Arc::new(recipe));
    let headers: Vec<&str> = recipe.proof.signature.from.iter().map(|name| name.as_str()).collect();
    let what =
        format!("the headers are those of {title} ({}), and {} is another provider's source", headers.join(", "), source.name);
    let scheme = recipe.proof.scheme();
    let keys = source.secrets.iter().filter_map(|key| Key::decode(key.configured(), &recipe.proof.key_format, &scheme).ok());
    let as_that = Source { secrets: keys.collect(), recipe: recipe.clone(), ..(**source).clone() };
    let is_proved = !as_that.recipe.signs_url() || as_that.public_url.is_some();
    if is_proved && proof(&Verifier::new(as_that), &case.delivery).is_some() {
        let what = format!("{what}; a secret of {} signed it", source.name);
        return Cause::certain("other_provider", what, format!("write provider = \"{name}\" into [sources.{}]", source.name));
    }
    let its_own = case.others.iter().find(|other| other.provider.as_deref() == Some(name));
    let advice = match its_own {
        Some(other) => {
            format!("in {title}'s dashboard, enter the URL of the source {}, which ends in {}", other.name, other.path)
        }
        None => format!("give {title} a source of its own (hookhold providers {name}), and enter that source's URL there"),
    };
    Cause::likely("other_provider", what, advice)
}

fn has_signature(recipe: &Recipe, case: &Case) -> bool {
    recipe.proof.signature.from.iter().any(|name| case.delivery.headers.contains_key(name))
}
