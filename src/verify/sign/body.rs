//! Writes the body of a sample.

use bytes::Bytes;

use crate::source::pointers::{FormField, Node, Pointers};
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
/// and a form otherwise. If there are no values, the body is `{}`.
pub(super) fn written(pointers: &Pointers, values: &[Option<SlotValue>]) -> String {
    let form = || Some(written_form(&pointers.form, values)).filter(|form| !form.is_empty());
    written_json(&pointers.root, values).or_else(form).unwrap_or_else(|| "{}".to_owned())
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

pub(super) fn damaged(body: &[u8]) -> Bytes {
    let mut body = body.to_vec();
    match body.last_mut() {
        Some(last) => *last ^= 1,
        None => body.push(b'!'),
    }
    body.into()
}

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
