//! Chooses the identity of a delivery: the event id, a hash of the body, a hash of the signed content, or none. The gateway
//! recognises duplicates by this identity.

use std::cell::OnceCell;

use crate::event::Integrity;
use crate::source::Source;
use crate::verify::hash::sha256;
use crate::verify::proof::Proven;
use crate::verify::request_view::Located;
use crate::verify::verdict::Identity;

/// The place of an item among the items that one proof covers together.
#[derive(Clone, Copy)]
pub(super) struct ItemPlace<'c> {
    /// The index of the item.
    pub(super) index: usize,
    /// The SHA-256 hash of the signed content, which is the same for all items. Computed for the first item that needs it, because
    /// one hash for each item would cost the number of items times the size of the body.
    pub(super) content_sha256: &'c OnceCell<[u8; 32]>,
}

/// Returns the identity of a verified delivery. Without an event id, an exact replay of signed content with a time is a
/// duplicate, and so is an equal body if the operator sets `dedupe.body`. Otherwise returns [`Identity::Keyless`], because two
/// genuine events can have equal bodies.
///
/// If the recipe names an id, `dedupe.body` applies only to a delivery whose id is absent or unreadable and whose proof contains
/// no time. If the recipe names no id, the operator has chosen `dedupe.body` for every delivery, so it takes precedence.
///
/// `body` is the body of the event. `place` is not `None` if the event is one of several items that the proof covers together.
pub(super) fn of(
    source: &Source,
    id: Option<&Located<'_>>,
    proven: &Proven<'_>,
    body: &[u8],
    place: Option<ItemPlace<'_>>,
) -> Identity {
    let body_sha256 = || body_sha256(proven, body, place);
    if let Some(id) = id {
        let alternative = alternative(id, proven);
        let fields = id.fields().map(str::to_owned).collect();
        return Identity::Id { alternative, fields, body_sha256: (!proven.coverage.id_signed).then(body_sha256) };
    }
    let names_id = !source.recipe.event.id.0.is_empty();
    match source.dedupe.body {
        Some(window) if !(names_id && proven.is_timed) => Identity::BodyWindow(body_sha256(), window),
        _ if proven.is_timed => Identity::SignedContent(match place {
            None => signed_content(proven, body_sha256),
            Some(place) => signed_content_of_item(proven, body_sha256, place),
        }),
        _ => Identity::Keyless,
    }
}

/// Returns the identity of a batch that stays one event: the event ids and types of its items. The event itself has no type if
/// the types of its items differ, and the same id with another type is another event.
pub(super) fn of_batch(items: &[(&Located<'_>, Option<&str>)], proven: &Proven<'_>, body: &[u8]) -> Identity {
    let of_item = |(id, event_type): &(&Located<'_>, Option<&str>)| {
        let fields: Vec<String> = id.fields().map(str::to_owned).collect();
        let kind = format!("{} {}", alternative(id, proven), fields.len());
        [vec![kind, event_type.unwrap_or_default().to_owned()], fields].concat()
    };
    let body_sha256 = (!proven.coverage.id_signed).then(|| body_sha256(proven, body, None));
    Identity::Ids { fields: items.iter().flat_map(of_item).collect(), body_sha256 }
}

/// Returns the alternative of an id that is part of the identity. `Term::Id` covers the text of the id but not its location. The
/// same id in another header must therefore not create a new event.
fn alternative(id: &Located<'_>, proven: &Proven<'_>) -> usize {
    if proven.signs_id { 0 } else { id.alternative }
}

fn body_sha256(proven: &Proven<'_>, body: &[u8], place: Option<ItemPlace<'_>>) -> [u8; 32] {
    let of_body = proven.body_sha256.filter(|_| place.is_none());
    of_body.unwrap_or_else(|| sha256([body].into_iter()))
}

/// Returns the hash of the signed content. If the content does not cover the body, the hash also covers the body, so that two
/// events of the same second remain two events.
fn signed_content(proven: &Proven<'_>, body_sha256: impl Fn() -> [u8; 32]) -> [u8; 32] {
    match covers_body(proven) {
        true => sha256(proven.content.parts()),
        false => sha256(proven.content.parts().chain([&body_sha256()[..]])),
    }
}

/// Returns the hash of the signed content for one of several items. The hash contains the index of the item, because items may
/// be equal.
fn signed_content_of_item(proven: &Proven<'_>, item_sha256: impl Fn() -> [u8; 32], place: ItemPlace<'_>) -> [u8; 32] {
    let content = place.content_sha256.get_or_init(|| sha256(proven.content.parts()));
    let index = (place.index as u64).to_le_bytes();
    match covers_body(proven) {
        true => sha256([&content[..], &index].into_iter()),
        false => sha256([&content[..], &item_sha256(), &index].into_iter()),
    }
}

fn covers_body(proven: &Proven<'_>) -> bool {
    matches!(proven.coverage.integrity, Integrity::Full | Integrity::Body | Integrity::Item)
}
