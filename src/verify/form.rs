//! Bodies that are forms (`application/x-www-form-urlencoded`, <https://url.spec.whatwg.org/#urlencoded-parsing>).

use std::borrow::Cow;

use crate::source::pointers::Pointers;
use crate::verify::json;

/// The fields of a form in the order in which they arrived, decoded: `+` is a blank, `%XX` a byte, and what is not UTF-8
/// then becomes U+FFFD. Nothing is held but the field that is looked at.
pub fn fields(body: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(body)
}

/// One entry per slot, as in [`json::locate`]; those of the form. Of fields with the same name the first counts. A text with
/// U+FFFD counts as absent: two ids that are not UTF-8 must not become one.
pub fn locate<'a>(pointers: &Pointers, body: &'a [u8]) -> Vec<Option<Cow<'a, str>>> {
    let mut slots = vec![None; pointers.slots];
    let mut wanted: Vec<_> = pointers.form.iter().collect();
    for (name, value) in fields(body) {
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
    let whole = |text: &Cow<'_, str>| !text.contains(char::REPLACEMENT_CHARACTER);
    slots.into_iter().map(|found| found.filter(whole)).collect()
}
