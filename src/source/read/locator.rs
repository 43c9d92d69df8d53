//! Parses locators: the places of a request at which a recipe finds a value.

use std::collections::BTreeMap;

use http::HeaderName;

use crate::source::pointers::Pointers;
use crate::source::recipe::{Choice, EventArray, Locator};
use crate::toml_value::{Item, TomlTable};

/// Parses the locators of one recipe, and collects the places in the body that they refer to.
#[derive(Default)]
pub(super) struct LocatorParser {
    /// The places in the body that the recipe reads.
    pub(super) pointers: Pointers,
    /// The names of the texts that the recipe reads from `values` and that `values` does not contain.
    pub(super) missing: Vec<String>,
    /// The places inside an item of a batch that the recipe reads.
    items: Pointers,
    /// The pointer to the array of a batch, or `None` if a delivery carries one event.
    pub(super) batch: Option<String>,
    /// True while the recipe's JSON pointers are relative to an item of a batch.
    pub(super) in_item: bool,
    /// The texts that the operator has set in `values`, by name.
    values: BTreeMap<String, String>,
}

impl LocatorParser {
    /// Takes the option `values` out of the source's table. A value is a text, or a reference to a text that may be a secret.
    pub(super) fn take(table: &mut TomlTable) -> LocatorParser {
        let mut section = table.take_section("values");
        let names = section.keys();
        let values = names.into_iter().filter_map(|name| Some((name.clone(), configured_text(section.take(&name)?)?))).collect();
        LocatorParser { values, ..LocatorParser::default() }
    }

    /// Returns all places in the body that the recipe reads.
    pub(super) fn finish(mut self, batch: Option<EventArray>) -> Pointers {
        if let (Some(pointer), Some(batch)) = (&self.batch, batch) {
            self.pointers.set_batch(pointer, self.items, batch.max_items);
        }
        self.pointers
    }

    /// Parses a list of alternative locators: a string, an array of strings, or an array that contains arrays of strings. An
    /// inner array combines several fields into one value.
    pub(super) fn choice(&mut self, item: Item) -> Choice {
        let mut fields = |item: Item| -> Vec<Locator> { item.list().into_iter().filter_map(|one| self.item(one)).collect() };
        Choice(item.list().into_iter().map(&mut fields).filter(|fields| !fields.is_empty()).collect())
    }

    /// Parses one locator.
    pub(super) fn item(&mut self, item: Item) -> Option<Locator> {
        let text = item.clone().string()?;
        self.text(&text, &item)
    }

    /// Parses the locator `text`. If `text` is not a valid locator, reports the mistake at the location of `item` and returns
    /// `None`.
    pub(super) fn text(&mut self, text: &str, item: &Item) -> Option<Locator> {
        let (in_body, in_item): (fn(_) -> _, fn(_) -> _) = (Locator::Body, Locator::Item);
        let (json, of_json) = if self.in_item { (&mut self.items, in_item) } else { (&mut self.pointers, in_body) };
        let body = |slot: Option<usize>, expected: &str| slot.map(Locator::Body).or_else(|| item.unexpected(expected));
        match text.split_once(':') {
            Some(("header", _)) => header(text).map(Locator::Header).or_else(|| item.unexpected(LOCATORS)),
            Some(("tag", tag)) if !tag.is_empty() => Some(Locator::Tag(tag.to_owned())),
            Some(("query", name)) if !name.is_empty() => Some(Locator::Query(name.to_owned())),
            Some(("const", text)) if !text.is_empty() => Some(Locator::Const(text.to_owned())),
            Some(("config", name)) if !name.is_empty() => Some(self.value(name)),
            Some(("jwt", claim)) if !claim.is_empty() => Some(Locator::Claim(claim.to_owned())),
            Some(("basic", "user")) => Some(Locator::BasicUser),
            Some(("json", pointer)) => json.slot(pointer).map(of_json).or_else(|| item.unexpected(JSON)),
            Some(("form" | "form-json", _)) if self.in_item => {
                item.expected("json:/POINTER inside the item of a batch", "a field of a form, which has no items")
            }
            Some(("form", name)) => body(self.pointers.field_slot(name), "a form field such as form:id"),
            Some(("form-json", location)) => body(self.pointers.field_json_slot(location), FORM_JSON),
            _ => item.unexpected(LOCATORS),
        }
    }

    /// Returns the text `values.NAME`. If the text is missing, records its name. A recipe file on its own has no `values`.
    fn value(&mut self, name: &str) -> Locator {
        let text = self.values.get(name).cloned();
        if text.is_none() && !self.missing.iter().any(|missing| missing == name) {
            self.missing.push(name.to_owned());
        }
        Locator::Const(text.unwrap_or_default())
    }
}

/// Reads one of the `values`. A reader that does not read secrets may lack the text behind a reference.
fn configured_text(item: Item) -> Option<String> {
    match item.clone().string() {
        Some(text) if text.is_empty() => item.expected("a text", "an empty string"),
        None if item.location.may_lack_secrets() => Some(String::new()),
        text => text,
    }
}

/// Parses a locator of the form `header:NAME`.
pub(super) fn header(text: &str) -> Option<HeaderName> {
    text.strip_prefix("header:").and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok())
}

pub(super) const LOCATORS: &str = "header:NAME, json:/POINTER, form:NAME, form-json:NAME/POINTER, tag:NAME, query:NAME, \
                                   jwt:CLAIM, basic:user, config:NAME or const:TEXT";
const JSON: &str = "a JSON pointer of at most 16 steps such as json:/data/id";
const FORM_JSON: &str = "a form field and a JSON pointer such as form-json:payload/data/id";
