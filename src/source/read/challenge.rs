//! Reads the endpoint challenges of a recipe from TOML: the conditions that identify each challenge, and the reply.

use http::{Method, StatusCode};

use super::locator::LocatorParser;
use super::{ACCEPTED, header_value, need, status};
use crate::source::recipe::{Challenge, Locator, ReplyPart, TextMatch};
use crate::toml_value::{Item, TomlTable};

/// Takes the endpoint challenges out of the recipe `table`. Returns `None` if any challenge is invalid. If hookhold ignored an
/// invalid challenge, it would store the provider's challenge requests as events.
pub(super) fn all(table: &mut TomlTable, locators: &mut LocatorParser) -> Option<Vec<Challenge>> {
    let items = table.take_list("challenge").unwrap_or_default();
    let all: Vec<Option<Challenge>> = items.into_iter().map(|item| one(item, locators)).collect();
    all.into_iter().collect()
}

fn one(item: Item, locators: &mut LocatorParser) -> Option<Challenge> {
    let mut table = item.table()?;
    let when = need(&mut table, "when", WHEN, |table| table.take_table("when")).and_then(|when| predicate(when, locators));
    let methods = methods(&mut table);
    let authenticated = table.take_bool("authenticated").unwrap_or(true);
    let mut reply = table.take_section("reply");
    let status = status(&mut reply, "status", ACCEPTED).unwrap_or(StatusCode::OK);
    let content_type = reply.take("content_type").and_then(header_value);
    let parts = reply.take_list("body").unwrap_or_default();
    let body: Vec<Option<ReplyPart>> = parts.into_iter().map(|part| reply_part(part, locators)).collect();
    reply.finish();
    table.finish();
    Some(Challenge {
        methods: methods?,
        when: when?,
        authenticated,
        status,
        content_type,
        body: body.into_iter().collect::<Option<_>>()?,
    })
}

/// Takes the methods of a challenge. A challenge has the method POST if it names none.
fn methods(table: &mut TomlTable) -> Option<Vec<Method>> {
    let Some(items) = table.take_list("methods") else { return Some(vec![Method::POST]) };
    if items.is_empty() {
        table.expected("methods", "at least one method", "an empty array");
        return None;
    }
    items.into_iter().map(|item| item.one_of(METHODS)?.parse().ok()).collect()
}

/// Parses the conditions that identify a challenge, such as `{ "json:/type" = "url_verification" }`. The keys of the table are
/// locators. The value `true` matches any non-empty text.
fn predicate(mut table: TomlTable, locators: &mut LocatorParser) -> Option<Vec<(Locator, TextMatch)>> {
    let mut all = Vec::new();
    for key in table.keys() {
        let item = table.take(&key)?;
        let locator = untagged(&key, &item, locators);
        let wanted = match item.as_str() {
            Some("") => item.expected(WHEN, "an empty string, which never matches"),
            Some(text) => Some(TextMatch::Exactly(text.to_owned())),
            None => match item.clone().boolean() {
                Some(true) => Some(TextMatch::Any),
                Some(false) => item.expected(WHEN, "false, which never matches"),
                None => None,
            },
        };
        all.push(locator.zip(wanted));
    }
    if all.is_empty() {
        table.location.expected(WHEN, "an empty table, which matches every delivery");
        return None;
    }
    all.into_iter().collect()
}

/// Parses a locator of an endpoint challenge. Rejects a locator that reads the proof, because a challenge may be unsigned, and
/// an unsigned request has no tags and no token.
fn untagged(text: &str, item: &Item, locators: &mut LocatorParser) -> Option<Locator> {
    match locators.text(text, item)? {
        Locator::Tag(_) | Locator::Claim(_) => {
            item.expected(UNTAGGED, "a part of the proof; use another locator, because a challenge may be unsigned")
        }
        locator => Some(locator),
    }
}

fn reply_part(item: Item, locators: &mut LocatorParser) -> Option<ReplyPart> {
    let text = item.clone().string()?;
    if let Some(locator) = text.strip_prefix("echo(").and_then(|rest| rest.strip_suffix(')')) {
        return untagged(locator, &item, locators).map(ReplyPart::Echo);
    }
    match text.strip_prefix("const:") {
        Some(literal) if !literal.is_empty() => Some(ReplyPart::Literal(literal.to_owned())),
        _ => item.unexpected(REPLY_PARTS),
    }
}

const METHODS: &[(&str, &str)] = &[("GET", "GET"), ("HEAD", "HEAD"), ("OPTIONS", "OPTIONS"), ("POST", "POST")];
const WHEN: &str =
    "a table that maps each locator to a string, or to true for any string, such as { \"json:/type\" = \"url_verification\" }";
const UNTAGGED: &str = "header:NAME, json:/POINTER, form:NAME, form-json:NAME/POINTER or query:NAME";
const REPLY_PARTS: &str = "echo(LOCATOR) or const:TEXT";
