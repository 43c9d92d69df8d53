//! Reads the endpoint challenges of a recipe from TOML: the conditions that identify each challenge, and the reply.

use http::StatusCode;

use super::{ACCEPTED, header_value, need, status, untagged};
use crate::source::pointers::Pointers;
use crate::source::recipe::{Challenge, Locator, ReplyPart, TextMatch};
use crate::toml_value::{Item, TomlTable};

/// Takes the endpoint challenges out of the recipe `table`. Returns `None` if any challenge is invalid. If hookhold ignored an
/// invalid challenge, it would store the provider's challenge requests as events.
pub(super) fn all(table: &mut TomlTable, pointers: &mut Pointers) -> Option<Vec<Challenge>> {
    let items = table.take_list("challenge").unwrap_or_default();
    let all: Vec<Option<Challenge>> = items.into_iter().map(|item| one(item, pointers)).collect();
    all.into_iter().collect()
}

fn one(item: Item, pointers: &mut Pointers) -> Option<Challenge> {
    let mut table = item.table()?;
    let when = need(&mut table, "when", WHEN, |table| table.take_table("when")).and_then(|when| predicate(when, pointers));
    let authenticated = table.take_bool("authenticated").unwrap_or(true);
    let mut reply = table.take_section("reply");
    let status = status(&mut reply, "status", ACCEPTED).unwrap_or(StatusCode::OK);
    let content_type = reply.take("content_type").and_then(header_value);
    let parts = reply.take_list("body").unwrap_or_default();
    let body: Vec<Option<ReplyPart>> = parts.into_iter().map(|part| reply_part(part, pointers)).collect();
    reply.finish();
    table.finish();
    Some(Challenge { when: when?, authenticated, status, content_type, body: body.into_iter().collect::<Option<_>>()? })
}

/// Parses the conditions that identify a challenge, such as `{ "json:/type" = "url_verification" }`. The keys of the table are
/// locators. The value `true` matches any non-empty text.
fn predicate(mut table: TomlTable, pointers: &mut Pointers) -> Option<Vec<(Locator, TextMatch)>> {
    let mut all = Vec::new();
    for key in table.keys() {
        let item = table.take(&key)?;
        let locator = untagged(&key, &item, pointers);
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

fn reply_part(item: Item, pointers: &mut Pointers) -> Option<ReplyPart> {
    let text = item.clone().string()?;
    if let Some(locator) = text.strip_prefix("echo(").and_then(|rest| rest.strip_suffix(')')) {
        return untagged(locator, &item, pointers).map(ReplyPart::Echo);
    }
    match text.strip_prefix("const:") {
        Some(literal) if !literal.is_empty() => Some(ReplyPart::Literal(literal.to_owned())),
        _ => item.unexpected(REPLY_PARTS),
    }
}

const WHEN: &str =
    "a table that maps each locator to a string, or to true for any string, such as { \"json:/type\" = \"url_verification\" }";
const REPLY_PARTS: &str = "echo(LOCATOR) or const:TEXT";
