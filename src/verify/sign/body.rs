//! Writes the body of a sample.

use bytes::Bytes;

use crate::event::Integrity;
use crate::source::pointers::{FormField, Node};
use crate::source::recipe::{FieldText, NULL, Proof, Recipe, SampleBody, SampleJson, SampleValues, SlotValue, quoted};
use crate::verify::json;

/// Returns the body of a sample: the recipe's own body with `values` at the recipe's locations, or a small body that contains
/// only `values`. The small body is JSON if the recipe reads one of the values with a JSON pointer, and a form otherwise. If there
/// are no values, it is `{}`. If the recipe has no event id, adds a member with the id, so that two samples of the same second
/// differ.
pub(super) fn written(recipe: &Recipe, body: Option<&SampleBody>, values: &SampleValues, id: &str) -> String {
    let pointers = &recipe.pointers;
    let form = match body {
        Some(SampleBody::Form(fields)) => written_form(fields, &pointers.form, values),
        Some(SampleBody::Json(_)) => String::new(),
        None => written_form(&[], &pointers.form, values),
    };
    let json = match body {
        Some(SampleBody::Json(json)) => written_json(Some(json), &pointers.root, values),
        Some(SampleBody::Form(_)) => None,
        None => written_json(None, &pointers.root, values),
    };
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

/// Returns the form: `fields` with `values` in place of their own values, then the values that `fields` lacks.
fn written_form(fields: &[(String, FieldText)], known: &[FormField], values: &SampleValues) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    let value = |slot: Option<usize>| slot.and_then(|slot| values.body[slot].as_ref()).map(|value| value.text.clone());
    for (name, own) in fields {
        let place = known.iter().find(|field| field.name == *name);
        let text = match (own, place) {
            (FieldText::Json(json), Some(place)) => written_json(Some(json), &place.root, values),
            (FieldText::Json(json), None) => Some(json.written()),
            (FieldText::Plain(_), Some(FormField { slot: Some(slot), .. })) => value(Some(*slot)),
            (FieldText::Plain(text), _) => Some(text.clone()),
        };
        if let Some(text) = text {
            form.append_pair(name, &text);
        }
    }
    for FormField { name, slot, root } in known.iter().filter(|field| !fields.iter().any(|(name, _)| *name == field.name)) {
        if let Some(text) = written_json(None, root, values).or_else(|| value(*slot)) {
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

/// Returns the JSON for one node in the tree of the recipe's JSON pointers: the node's own value if it has one, otherwise `own`,
/// the JSON of the recipe's sample at this place, with the values of the child nodes. Without `own`, returns an object that
/// contains the values of the child nodes, or `None` if there are none. The array of a batch has one item.
fn written_json(own: Option<&SampleJson>, node: &Node, values: &SampleValues) -> Option<String> {
    let Some(each) = &node.each else {
        return written_node(own, node, &values.body, |own, below| written_json(own, below, values));
    };
    let item = |own: Option<&SampleJson>| written_item(own, &each.root, &values.item).unwrap_or_else(|| "{}".to_owned());
    match own {
        Some(SampleJson::Array(items)) => Some(format!("[{}]", item(items.first()))),
        // The verifier takes any other value as the only item.
        Some(single) => Some(item(Some(single))),
        None => Some(format!("[{}]", item(None))),
    }
}

/// Returns the JSON for one node in the tree of JSON pointers into an item, as [`written_json`] does.
fn written_item(own: Option<&SampleJson>, node: &Node, values: &[Option<SlotValue>]) -> Option<String> {
    written_node(own, node, values, |own, below| written_item(own, below, values))
}

/// Returns the JSON for a node that is not the array of a batch. `inside` returns the JSON of a child node.
fn written_node(
    own: Option<&SampleJson>,
    node: &Node,
    values: &[Option<SlotValue>],
    inside: impl Fn(Option<&SampleJson>, &Node) -> Option<String>,
) -> Option<String> {
    if let Some(value) = node.slot.and_then(|slot| values[slot].as_ref()) {
        return Some(if value.is_literal { value.text.clone() } else { quoted(&value.text) });
    }
    let child = |own: &SampleJson, at: Option<usize>| match at {
        Some(at) => inside(Some(own), &node.children[at].1),
        None => Some(own.written()),
    };
    let no_members: &[(String, SampleJson)] = &[];
    let members = match own {
        Some(SampleJson::Array(items)) => {
            let element = |(index, own)| child(own, node.find_index(index)).unwrap_or_else(|| NULL.to_owned());
            let elements: Vec<String> = items.iter().enumerate().map(element).collect();
            return Some(format!("[{}]", elements.join(",")));
        }
        // A value at a location of the recipe is among `values`, unless it has been removed.
        Some(SampleJson::Text(_)) if node.slot.is_some() => return None,
        Some(SampleJson::Literal(text)) if node.slot.is_some() && text != NULL => return None,
        Some(SampleJson::Text(_) | SampleJson::Literal(_)) => return own.map(SampleJson::written),
        Some(SampleJson::Object(members)) => members,
        None => no_members,
    };
    let member = |name: &str, json: String| format!("{}:{json}", quoted(name));
    let present = members.iter().filter_map(|(name, own)| Some(member(name, child(own, node.find(name.as_bytes()))?)));
    let is_missing = |name: &str| !members.iter().any(|(own, _)| own == name);
    let missing = node.children.iter().filter(|(name, _)| is_missing(name));
    let added = missing.filter_map(|(name, below)| Some(member(name, inside(None, below)?)));
    let all: Vec<String> = present.chain(added).collect();
    (own.is_some() || !all.is_empty()).then(|| format!("{{{}}}", all.join(",")))
}

/// Changes the first value of the item. A changed byte could damage the structure of the body, which contains the signature.
pub(super) fn damage_item(values: &mut SampleValues) {
    if let Some(value) = values.item.iter_mut().flatten().next() {
        value.text.push('~');
        value.is_literal = false;
    }
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
