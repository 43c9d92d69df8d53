//! Chooses the identity of a delivery: the event id, a hash of the body, a hash of the signed content, or none. The gateway
//! recognises duplicates by this identity.

use crate::source::Source;
use crate::verify::hash::sha256;
use crate::verify::proof::Proven;
use crate::verify::request_view::Located;
use crate::verify::verdict::Identity;

/// Returns the identity of a verified delivery. If the recipe locates an event id but the delivery has no id, returns
/// [`Identity::Keyless`]. Never replaces a missing id with a hash.
pub(super) fn of(source: &Source, id: Option<&Located<'_>>, proven: &Proven<'_>, body: &[u8]) -> Identity {
    let recipe = &source.recipe;
    let body_sha256 = || proven.body_sha256.unwrap_or_else(|| sha256([body].into_iter()));
    match (id, source.dedupe.body) {
        (Some(id), _) => {
            // `Term::Id` covers the text of the id but not its location. The same id in another header must therefore not
            // create a new event.
            let alternative = if id.alternative > 0 && proven.signs_id { 0 } else { id.alternative };
            let fields = id.fields().map(str::to_owned).collect();
            Identity::Id { alternative, fields, body_sha256: (!proven.coverage.id_signed).then(body_sha256) }
        }
        (None, _) if !recipe.event.id.0.is_empty() => Identity::Keyless,
        (None, Some(window)) => Identity::BodyWindow(body_sha256(), window),
        (None, None) if proven.is_timed => Identity::SignedContent(sha256(proven.content.parts())),
        (None, None) => Identity::Keyless,
    }
}
