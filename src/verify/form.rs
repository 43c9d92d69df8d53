//! Searches a form body for the form fields that a recipe reads. The format of the body is `application/x-www-form-urlencoded`
//! (<https://url.spec.whatwg.org/#urlencoded-parsing>).

use std::borrow::Cow;

use crate::source::pointers::Pointers;
use crate::verify::json;

/// Finds the recipe's form fields in a form body. Returns one entry for each of the recipe's body locations, as
/// [`json::locate`] does. Decodes `+` to a space and `%XX` to a byte. Uses the first of several fields with the same name.
/// Treats a value that is not UTF-8 as absent, because decoding replaces invalid bytes with U+FFFD and could make two ids
/// equal.
pub(super) fn locate<'a>(pointers: &Pointers, body: &'a [u8]) -> Vec<Option<Cow<'a, str>>> {
    let mut slots = vec![None; pointers.slots];
    if pointers.form.is_empty() {
        return slots;
    }
    let mut wanted: Vec<_> = pointers.form.iter().collect();
    for (name, value) in form_urlencoded::parse(body) {
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
