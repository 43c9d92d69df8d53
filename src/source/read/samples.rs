//! Reads the sample deliveries of a recipe, and checks that hookhold can set the event type in each of them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::need;
use crate::source::pointers::Pointers;
use crate::source::recipe::{EventLocators, FieldText, Locator, RecipeSample, SampleBody, SampleJson, SampleValues};
use crate::toml_value::{Item, TomlTable};

/// Reads the list `samples`. If `checks_types` is true, reports each sample whose body lacks the place of the event type. A source
/// may read the type from another place than its recipe, so the samples of the recipe are not checked for such a source.
pub(super) fn all(items: Vec<Item>, event: &EventLocators, pointers: &Pointers, checks_types: bool) -> Vec<RecipeSample> {
    let mut samples: Vec<RecipeSample> = Vec::new();
    for item in items {
        let location = item.location.clone();
        let Some(sample) = item.table().and_then(|table| sample(table, event, pointers, checks_types)) else { continue };
        if samples.iter().any(|other| other.event_type == sample.event_type) {
            let found = "the type of an earlier sample; change the type or remove one of the two";
            location.below("type").expected("a type that no other sample has", found);
            continue;
        }
        samples.push(sample);
    }
    samples
}

fn sample(mut table: TomlTable, event: &EventLocators, pointers: &Pointers, checks_type: bool) -> Option<RecipeSample> {
    let event_type = need(&mut table, "type", TYPE, |table| table.take("type"));
    let event_type = event_type.and_then(|item| item.parse(TYPE, |text| (!text.is_empty()).then(|| text.to_owned())));
    let body_location = table.location_of("body");
    let body = need(&mut table, "body", BODY, |table| table.take("body")).and_then(|item| body(item, pointers));
    let mut headers_table = table.take_section("headers");
    let headers = headers(&mut headers_table);
    headers_table.finish();
    table.finish();
    let (event_type, headers, body) = (event_type?, headers?, body?);
    let values = SampleValues::find(&body, pointers);
    let sample = RecipeSample { event_type, headers, body, values };
    if checks_type && !event.kind.0.is_empty() && !has_place_of_type(&sample, event) {
        let found = "a body without it; add the field that event.type reads, or correct the type";
        body_location.expected("a body with the event type", found);
        return None;
    }
    Some(sample)
}

fn headers(table: &mut TomlTable) -> Option<HeaderMap> {
    let names = table.keys();
    let header = |name: String| {
        let item = table.take(&name)?;
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            return item.expected("the name of a header such as X-Topic", "another text; correct the name");
        };
        let value = item.parse("the value of a header, in visible ASCII characters", |text| HeaderValue::from_str(text).ok())?;
        Some((header, value))
    };
    let headers: Vec<Option<_>> = names.into_iter().map(header).collect();
    headers.into_iter().collect()
}

fn body(item: Item, pointers: &Pointers) -> Option<SampleBody> {
    if item.is_table() {
        return form(item.table()?, pointers).map(SampleBody::Form);
    }
    let text = item.clone().string_as(BODY)?;
    match SampleJson::parse(&text) {
        Ok(SampleJson::Text(_) | SampleJson::Literal(_)) => item.expected(BODY, "another JSON value"),
        Ok(json) if has_several_items(&json, pointers) => {
            item.expected("an array with one item at event.batch", "several items; remove all items except one")
        }
        Ok(json) => Some(SampleBody::Json(json)),
        Err(error) => item.expected(BODY, not_json(&error)),
    }
}

fn form(mut table: TomlTable, pointers: &Pointers) -> Option<Vec<(String, FieldText)>> {
    let names = table.keys();
    let field = |name: String| {
        let item = table.take(&name)?;
        let text = item.clone().string()?;
        let known = pointers.form.iter().find(|field| field.name == name);
        if known.is_none_or(|known| known.root.is_empty()) {
            return Some((name, FieldText::Plain(text)));
        }
        match SampleJson::parse(&text) {
            Ok(json) => Some((name, FieldText::Json(json))),
            Err(error) => item.expected("a JSON text, because the recipe reads values inside it", not_json(&error)),
        }
    };
    let fields: Vec<Option<_>> = names.into_iter().map(field).collect();
    table.finish();
    fields.into_iter().collect()
}

/// Describes the position of a mistake in a JSON text, without the text.
fn not_json(error: &serde_json::Error) -> String {
    format!("text that is not JSON at its line {}, column {}; correct it", error.line(), error.column())
}

/// Returns true if the body contains several items of a batch. hookhold gives a sample one id, and each item needs its own.
fn has_several_items(json: &SampleJson, pointers: &Pointers) -> bool {
    fn any(json: &SampleJson, node: &crate::source::pointers::Node) -> bool {
        match json {
            SampleJson::Array(items) if node.each.is_some() => items.len() > 1,
            SampleJson::Object(members) => {
                members.iter().any(|(name, value)| node.find(name.as_bytes()).is_some_and(|at| any(value, &node.children[at].1)))
            }
            _ => false,
        }
    }
    any(json, &pointers.root)
}

/// Returns true if an alternative of `event.type` fits the type, and the body has a value at each of its locations. hookhold sets
/// headers and other parts itself.
fn has_place_of_type(sample: &RecipeSample, event: &EventLocators) -> bool {
    let is_present = |locator: &Locator| match locator {
        Locator::Body(slot) => sample.values.body[*slot].is_some(),
        Locator::Item(slot) => sample.values.item[*slot].is_some(),
        _ => true,
    };
    let fits = |fields: &Vec<Locator>| crate::source::recipe::fits(fields, &sample.event_type) && fields.iter().all(is_present);
    event.kind.0.iter().any(fits)
}

const TYPE: &str = "an event type such as \"order.paid\"";
const BODY: &str = "a JSON object or array as a string, or a table with the fields of a form";
