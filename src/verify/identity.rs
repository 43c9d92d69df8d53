//! What makes a repeat recognisable, from the most to the least that a provider gives.

use crate::source::Source;
use crate::verify::mac::sha256;
use crate::verify::request_view::Located;
use crate::verify::{Identity, Proof};

/// The identity of a believed delivery. A recipe that names an id does not fall back when this delivery lacks it: then
/// nothing is a repeat.
pub fn of(source: &Source, id: Option<&Located<'_>>, proof: &Proof<'_>, body: &[u8]) -> Identity {
    let recipe = &source.recipe;
    let body_sha256 = || proof.body_sha256.unwrap_or_else(|| sha256(&[body]));
    match (id, source.dedupe_body) {
        (Some(fact), _) => {
            // Where its text is signed as such, its place is not: whoever moves it to another header makes no new event.
            let alternative = if fact.alternative > 0 && recipe.signs_id() { 0 } else { fact.alternative };
            let fields = fact.fields().map(str::to_owned).collect();
            Identity::Id { alternative, fields, body_sha256: (!recipe.id_signed).then(body_sha256) }
        }
        (None, _) if !recipe.event.id.0.is_empty() => Identity::Keyless,
        (None, Some(window)) => Identity::BodyWindow(body_sha256(), window),
        (None, None) if recipe.timestamp.is_some() => Identity::SignedContent(sha256(&proof.content)),
        (None, None) => Identity::Keyless,
    }
}
