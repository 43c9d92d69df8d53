//! Writes the body of a sample.

use bytes::Bytes;

use crate::event::Integrity;
use crate::source::pointers::{FormField, Node};
use crate::source::recipe::{Proof, Recipe};
use crate::verify::json;

/// The value at one location of a sample's body.
#[derive(Clone)]
pub(super) struct SlotValue {
    pub(super) text: String,
    /// True if the sample contains the value as a JSON number, without quotation marks.
    pub(super) is_number: bool,
}

/// Returns a sample body that contains `values`. The body is JSON if the recipe reads one of the values with a JSON pointer,
/// and a form otherwise. If there are no values, the body is `{}`. If the recipe has no event id, adds a member with the id, so
/// that two samples of the same second differ.
pub(super) fn written(recipe: &Recipe, values: &[Option<SlotValue>], id: &str) -> String {
    let pointers = &recipe.pointers;
    let form = written_form(&pointers.form, values);
    let json = written_json(&pointers.root, values);
    let needs_id = recipe.event.id.0.is_empty() && !id.is_empty();
    match json {
        None if !form.is_empty() && needs_id => {
            format!("{form}&{}", form_urlencoded::Serializer::new(String::new()).append_pair(MEMBER, id).finish())
        }
        None if !form.is_empty() => form,
        json => {
            let json = json.unwrap_or_else(|| "{}".to_owned());
            match json.strip_prefix('{').filter(|_| needs_id) {
                Some("}") => format!("{{{}:{}}}", quoted(MEMBER), quoted(id)),
                Some(rest) => format!("{{{}:{},{rest}", quoted(MEMBER), quoted(id)),
                None => json,
            }
        }
    }
}

fn written_form(fields: &[FormField], values: &[Option<SlotValue>]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for FormField { name, slot, root } in fields {
        let plain = || slot.and_then(|slot| values[slot].as_ref()).map(|value| value.text.clone());
        if let Some(text) = written_json(root, values).or_else(plain) {
            form.append_pair(name, &text);
        }
    }
    form.finish()
}

/// Returns the media type that the provider would send with `body`.
pub(super) fn media_type(recipe: &Recipe, proof: &Proof, body: &[u8]) -> &'static str {
    let is_json = json::locate(&Node::default(), 0, body).is_some();
    let signs_form = proof.signed().is_some_and(|signed| signed.signs_form);
    let knows_forms = signs_form || !recipe.pointers.form.is_empty();
    if is_json || !knows_forms { "application/json" } else { FORM }
}

/// Returns the JSON for one node in the tree of the recipe's JSON pointers: the node's own value if it has one, otherwise an
/// object that contains the values of its child nodes.
fn written_json(node: &Node, values: &[Option<SlotValue>]) -> Option<String> {
    let json = |value: &SlotValue| if value.is_number { value.text.clone() } else { quoted(&value.text) };
    let value = node.slot.and_then(|slot| values[slot].as_ref()).map(json);
    let member = |(name, below): &(String, Node)| Some(format!("{}:{}", quoted(name), written_json(below, values)?));
    let object = || node.children.iter().filter_map(member).collect::<Vec<_>>().join(",");
    value.or_else(|| Some(object()).filter(|members| !members.is_empty()).map(|members| format!("{{{members}}}")))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("any text can be written as JSON")
}

/// Returns a body in which the last byte is changed, or every byte if the proof covers only some values of the body.
pub(super) fn damaged(body: &[u8], integrity: Integrity) -> Bytes {
    let mut body = body.to_vec();
    let first = if integrity == Integrity::Partial { 0 } else { body.len().saturating_sub(1) };
    body[first..].iter_mut().for_each(|byte| *byte ^= 1);
    if body.is_empty() {
        body.push(b'!');
    }
    body.into()
}

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
/// Name of the member that tells samples without an event id apart.
const MEMBER: &str = "sample";
