//! Chooses the identity of a delivery: the event id, a hash of the body, a hash of the signed content, or none. The gateway
//! recognises duplicates by this identity.

use crate::event::Integrity;
use crate::source::Source;
use crate::verify::hash::sha256;
use crate::verify::proof::Proven;
use crate::verify::request_view::Located;
use crate::verify::verdict::Identity;

/// Returns the identity of a verified delivery. Without an event id, an exact replay of signed content with a time is a
/// duplicate, and so is an equal body if the operator sets `dedupe.body`. Otherwise returns [`Identity::Keyless`], because two
/// genuine events can have equal bodies.
///
/// If the recipe names an id, `dedupe.body` is only the last resort for a delivery whose id is absent or unreadable. If the
/// recipe names no id, the operator has chosen `dedupe.body` for every delivery, so it takes precedence.
pub(super) fn of(source: &Source, id: Option<&Located<'_>>, proven: &Proven<'_>, body: &[u8]) -> Identity {
    let body_sha256 = || proven.body_sha256.unwrap_or_else(|| sha256([body].into_iter()));
    if let Some(id) = id {
        // `Term::Id` covers the text of the id but not its location. The same id in another header must therefore not
        // create a new event.
        let alternative = if id.alternative > 0 && proven.signs_id { 0 } else { id.alternative };
        let fields = id.fields().map(str::to_owned).collect();
        return Identity::Id { alternative, fields, body_sha256: (!proven.coverage.id_signed).then(body_sha256) };
    }
    let names_id = !source.recipe.event.id.0.is_empty();
    match source.dedupe.body {
        Some(window) if !(names_id && proven.is_timed) => Identity::BodyWindow(body_sha256(), window),
        _ if proven.is_timed => Identity::SignedContent(signed_content(proven, body_sha256)),
        _ => Identity::Keyless,
    }
}

/// Returns the hash of the signed content. If the content does not cover the body, the hash also covers the body, so that two
/// events of the same second remain two events.
fn signed_content(proven: &Proven<'_>, body_sha256: impl Fn() -> [u8; 32]) -> [u8; 32] {
    match proven.coverage.integrity {
        Integrity::Full | Integrity::Body | Integrity::Item => sha256(proven.content.parts()),
        Integrity::Partial | Integrity::None => sha256(proven.content.parts().chain([&body_sha256()[..]])),
    }
}
