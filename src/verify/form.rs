//! Searches a form for the fields that a recipe reads. The body of the form is `application/x-www-form-urlencoded`
//! (<https://url.spec.whatwg.org/#urlencoded-parsing>) or `multipart/form-data`.

use std::borrow::Cow;

use crate::source::pointers::Pointers;
use crate::verify::{json, multipart};

/// Finds the recipe's form fields in a form. Returns one entry for each of the recipe's body locations, as [`json::locate`]
/// does. Uses the first of several fields with the same name. Treats a value that is not UTF-8 as absent, because decoding
/// replaces invalid bytes with U+FFFD and could make two ids equal.
pub(super) fn locate<'a>(pointers: &Pointers, body: &'a [u8]) -> Vec<Option<Cow<'a, str>>> {
    match multipart::fields(body) {
        _ if pointers.form.is_empty() => vec![None; pointers.slots],
        Some(fields) => among(pointers, fields),
        None => among(pointers, form_urlencoded::parse(body)),
    }
}

fn among<'a>(pointers: &Pointers, fields: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Vec<Option<Cow<'a, str>>> {
    let mut slots = vec![None; pointers.slots];
    let mut wanted: Vec<_> = pointers.form.iter().collect();
    for (name, value) in fields {
        let Some(at) = wanted.iter().position(|field| field.name == name) else { continue };
        let field = wanted.swap_remove(at);
        if !field.root.children.is_empty() {
            let inside = json::locate(&field.root, pointers.slots, value.as_bytes()).unwrap_or_default();
            for (slot, found) in slots.iter_mut().zip(inside).filter(|(_, found)| found.is_some()) {
                *slot = found.map(|text| Cow::Owned(text.into_owned()));
            }
        }
        if let Some(slot) = field.slot {
            slots[slot] = Some(value);
        }
        if wanted.is_empty() {
            break;
        }
    }
    let is_utf8 = |text: &Cow<'_, str>| !text.contains(char::REPLACEMENT_CHARACTER);
    slots.into_iter().map(|found| found.filter(is_utf8)).collect()
}
