//! Writes the body of a sample.

use bytes::Bytes;

use crate::event::Integrity;
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

/// The values that the body of a sample must contain, one entry for each location, or `None` for a location without a value.
#[derive(Default)]
pub(super) struct SampleValues {
    /// The values in the body.
    pub(super) body: Vec<Option<SlotValue>>,
    /// The values in the only item of a batch.
    pub(super) item: Vec<Option<SlotValue>>,
}

impl SampleValues {
    /// Creates a list without values for a recipe with these locations.
    pub(super) fn new(pointers: &Pointers) -> SampleValues {
        SampleValues { body: vec![None; pointers.slots], item: vec![None; pointers.item_slots.unwrap_or(0)] }
    }

    /// Changes the first value of the item. A changed byte could damage the structure of the body, which contains the signature.
    pub(super) fn damage_item(&mut self) {
        self.item.iter_mut().flatten().take(1).for_each(|value| value.text.push('~'));
    }
}

/// Returns a sample body that contains `values`. The body is JSON if the recipe reads one of the values with a JSON pointer,
/// and a form otherwise. If there are no values, the body is `{}`. If the recipe has no event id, adds a member with the id, so
/// that two samples of the same second differ.
pub(super) fn written(recipe: &Recipe, values: &SampleValues, id: &str) -> String {
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

fn written_form(fields: &[FormField], values: &SampleValues) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for FormField { name, slot, root } in fields {
        let plain = || slot.and_then(|slot| values.body[slot].as_ref()).map(|value| value.text.clone());
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
/// object that contains the values of its child nodes. The array of a batch has one item.
fn written_json(node: &Node, values: &SampleValues) -> Option<String> {
    match &node.each {
        Some(each) => Some(format!("[{}]", written_item(&each.root, &values.item).unwrap_or_else(|| "{}".to_owned()))),
        None => written_node(node, &values.body, |below| written_json(below, values)),
    }
}

/// Returns the JSON for one node in the tree of JSON pointers into an item, as [`written_json`] does.
fn written_item(node: &Node, values: &[Option<SlotValue>]) -> Option<String> {
    written_node(node, values, |below| written_item(below, values))
}

fn written_node(node: &Node, values: &[Option<SlotValue>], inside: impl Fn(&Node) -> Option<String>) -> Option<String> {
    let json = |value: &SlotValue| if value.is_number { value.text.clone() } else { quoted(&value.text) };
    let value = node.slot.and_then(|slot| values[slot].as_ref()).map(json);
    let member = |(name, below): &(String, Node)| Some(format!("{}:{}", quoted(name), inside(below)?));
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
