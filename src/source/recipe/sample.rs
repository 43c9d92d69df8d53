//! The sample deliveries of a recipe: for each of the provider's common event types, a body and headers as the provider sends
//! them, with invented values. This module parses bodies, but does not sign or send samples.

use std::fmt;

use http::HeaderMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Recipe;
use crate::source::pointers::{Node, Pointers};

/// A sample of one event type.
#[derive(Clone, Debug)]
pub struct RecipeSample {
    /// The event type, one of the provider's own types.
    pub event_type: String,
    /// The request headers, except those that contain the proof.
    pub(crate) headers: HeaderMap,
    pub(crate) body: SampleBody,
    /// The values of the body at the recipe's locations.
    pub(crate) values: SampleValues,
}

/// The body of a sample.
#[derive(Clone, Debug)]
pub(crate) enum SampleBody {
    Json(SampleJson),
    /// The decoded names of the form fields and their values.
    Form(Vec<(String, FieldText)>),
}

/// The value of a form field in the body of a sample.
#[derive(Clone, Debug)]
pub(crate) enum FieldText {
    Plain(String),
    /// A JSON text, if the recipe reads values from inside the field.
    Json(SampleJson),
}

/// A JSON value of a sample. Keeps the order of the members, unlike `serde_json::Value`, because providers do not sort them.
#[derive(Clone, Debug)]
pub(crate) enum SampleJson {
    Object(Vec<(String, SampleJson)>),
    Array(Vec<SampleJson>),
    Text(String),
    /// A number, `true`, `false` or `null`, as JSON text.
    Literal(String),
}

/// The value at one location of a sample's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotValue {
    pub(crate) text: String,
    /// True if the sample contains the value as a JSON number or boolean, without quotation marks.
    pub(crate) is_literal: bool,
}

/// The values that the body of a sample must contain, one entry for each location, or `None` for a location without a value.
#[derive(Clone, Debug, Default)]
pub(crate) struct SampleValues {
    /// The values in the body.
    pub(crate) body: Vec<Option<SlotValue>>,
    /// The values in the only item of a batch.
    pub(crate) item: Vec<Option<SlotValue>>,
}

impl Recipe {
    /// Returns the sample of the event type `event_type`. If there is none, or if `event_type` is `None`, returns the sample of
    /// the type `setup.sample_type`, or else the first sample. Returns `None` if the recipe has no samples.
    pub fn sample(&self, event_type: Option<&str>) -> Option<&RecipeSample> {
        let of = |wanted: &str| self.samples.iter().find(|sample| sample.event_type == wanted);
        event_type.and_then(of).or_else(|| of(&self.setup.sample_type)).or(self.samples.first())
    }

    /// Returns the event types of the samples, the default type first. If the recipe has no samples, returns only the default
    /// type.
    pub fn sample_types(&self) -> Vec<&str> {
        let default = self.setup.sample_type.as_str();
        let others = self.samples.iter().map(|sample| sample.event_type.as_str()).filter(|other| *other != default);
        std::iter::once(default).chain(others).collect()
    }
}

impl SampleBody {
    /// Returns true if the body is a form.
    pub(crate) fn is_form(&self) -> bool {
        matches!(self, SampleBody::Form(_))
    }

    /// Returns true if the body can contain a value at the location with the index `slot`.
    pub(crate) fn has_place(&self, pointers: &Pointers, slot: usize) -> bool {
        match self {
            SampleBody::Json(_) => pointers.root.contains(slot),
            SampleBody::Form(_) => pointers.form.iter().any(|field| field.slot == Some(slot) || field.root.contains(slot)),
        }
    }
}

impl SampleValues {
    /// Creates a list without values for a recipe with these locations.
    pub(crate) fn new(pointers: &Pointers) -> SampleValues {
        SampleValues { body: vec![None; pointers.slots], item: vec![None; pointers.item_slots.unwrap_or(0)] }
    }

    /// Finds the values of a body at the recipe's locations.
    pub(crate) fn find(body: &SampleBody, pointers: &Pointers) -> SampleValues {
        let mut values = SampleValues::new(pointers);
        match body {
            SampleBody::Json(json) => collect(json, &pointers.root, &mut values.body, &mut values.item),
            SampleBody::Form(fields) => {
                for (name, value) in fields {
                    let Some(known) = pointers.form.iter().find(|field| field.name == *name) else { continue };
                    match (value, known.slot) {
                        (FieldText::Json(json), _) => collect(json, &known.root, &mut values.body, &mut []),
                        (FieldText::Plain(text), Some(slot)) => {
                            values.body[slot] = Some(SlotValue { text: text.clone(), is_literal: false });
                        }
                        (FieldText::Plain(_), None) => {}
                    }
                }
            }
        }
        values
    }
}

fn collect(json: &SampleJson, node: &Node, body: &mut [Option<SlotValue>], item: &mut [Option<SlotValue>]) {
    if let Some(each) = &node.each {
        let only = if let SampleJson::Array(items) = json { items.first() } else { Some(json) };
        only.into_iter().for_each(|only| collect(only, &each.root, item, &mut []));
    }
    if let Some(slot) = node.slot {
        body[slot] = json.value();
    }
    match json {
        SampleJson::Object(members) => {
            for (name, value) in members {
                if let Some(at) = node.find(name.as_bytes()) {
                    collect(value, &node.children[at].1, body, item);
                }
            }
        }
        SampleJson::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                if let Some(at) = node.find_index(index) {
                    collect(value, &node.children[at].1, body, item);
                }
            }
        }
        SampleJson::Text(_) | SampleJson::Literal(_) => {}
    }
}

impl SampleJson {
    /// Parses a JSON text. An error contains the line and the column.
    pub(crate) fn parse(text: &str) -> serde_json::Result<SampleJson> {
        serde_json::from_str(text)
    }

    /// Returns the JSON text without white space.
    pub(crate) fn written(&self) -> String {
        let list = |items: Vec<String>| items.join(",");
        match self {
            SampleJson::Object(members) => {
                let member = |(name, value): &(String, SampleJson)| format!("{}:{}", quoted(name), value.written());
                format!("{{{}}}", list(members.iter().map(member).collect()))
            }
            SampleJson::Array(items) => format!("[{}]", list(items.iter().map(SampleJson::written).collect())),
            SampleJson::Text(text) => quoted(text),
            SampleJson::Literal(text) => text.clone(),
        }
    }

    /// Returns the value that the verifier would find here; `None` for an object, an array or `null`.
    fn value(&self) -> Option<SlotValue> {
        match self {
            SampleJson::Text(text) => Some(SlotValue { text: text.clone(), is_literal: false }),
            SampleJson::Literal(text) if text != NULL => Some(SlotValue { text: text.clone(), is_literal: true }),
            _ => None,
        }
    }
}

/// Returns `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("any text can be written as JSON")
}

impl<'de> Deserialize<'de> for SampleJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SampleJson, D::Error> {
        deserializer.deserialize_any(SampleJsonVisitor)
    }
}

struct SampleJsonVisitor;

impl<'de> Visitor<'de> for SampleJsonVisitor {
    type Value = SampleJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<SampleJson, E> {
        Ok(SampleJson::Literal(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<SampleJson, E> {
        Ok(SampleJson::Literal(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<SampleJson, E> {
        Ok(SampleJson::Literal(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<SampleJson, E> {
        Ok(SampleJson::Literal(serde_json::Number::from_f64(value).map_or(NULL.to_owned(), |number| number.to_string())))
    }

    fn visit_unit<E>(self) -> Result<SampleJson, E> {
        Ok(SampleJson::Literal(NULL.to_owned()))
    }

    fn visit_str<E>(self, text: &str) -> Result<SampleJson, E> {
        Ok(SampleJson::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<SampleJson, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(SampleJson::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SampleJson, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(SampleJson::Object(members))
    }
}

/// The JSON text of `null`.
pub(crate) const NULL: &str = "null";
