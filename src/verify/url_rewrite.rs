//! Writes a request target as other URL libraries write it after parsing. Some senders sign the URL in such a form, although
//! they call it in another form. The forms are those that Twilio's library for Node.js tries
//! (<https://github.com/twilio/twilio-node/blob/main/src/webhooks/webhooks.ts>).

use std::borrow::Cow;
use std::collections::HashMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::source::recipe::UrlStyle;
use crate::source::url::{PATH, QUERY};

/// Returns the request target in the style `style`.
pub(super) fn rewritten(target: &str, style: UrlStyle) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let path = utf8_percent_encode(path, PATH).to_string().replace('\\', "/");
    let Some(query) = query.strip_prefix('?') else { return path };
    let normalized = utf8_percent_encode(query, QUERY).to_string();
    match style {
        UrlStyle::LegacyQuery if !normalized.is_empty() => format!("{path}?{}", legacy_query(&normalized)),
        _ => format!("{path}?{normalized}"),
    }
}

/// Parses a query and writes it again, as Node's module `querystring` does (<https://nodejs.org/api/querystring.html>). The
/// module stores the fields in a JavaScript object. The object lists names that are array indices first, in ascending order,
/// and all other names in the order of their first field.
fn legacy_query(query: &str) -> String {
    let mut ranks: HashMap<Cow<'_, str>, u64> = HashMap::new();
    let mut fields = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()).take(MAX_FIELDS) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), decoded(value));
        let text = format!("{}={}", encoded(&name), encoded(&value));
        let first_seen = AFTER_INDICES + ranks.len() as u64;
        let rank = *ranks.entry(name).or_insert_with_key(|name| array_index(name).map_or(first_seen, u64::from));
        fields.push((rank, text));
    }
    // The sort is stable, so the values of one name stay in their order.
    fields.sort_by_key(|(rank, _)| *rank);
    fields.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("&")
}

/// Decodes `+` and escapes. Replaces invalid UTF-8 with U+FFFD, as JavaScript does.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

/// Returns the number that `name` writes, if it is an array index of JavaScript: a decimal number below 2³² − 1 without leading
/// zeros.
fn array_index(name: &str) -> Option<u32> {
    let index: u32 = name.parse().ok().filter(|index| *index < u32::MAX)?;
    (index.to_string() == name).then_some(index)
}

/// The characters that JavaScript's `encodeURIComponent` escapes.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Rank of the first name that is no array index.
const AFTER_INDICES: u64 = 1 << 32;
/// Maximum number of fields of a query. Node's module ignores all later fields.
const MAX_FIELDS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_rewritten_like_node_does() {
        TABLE.iter().for_each(|(target, normalized, legacy)| {
            assert_eq!(rewritten(target, UrlStyle::Normalized), *normalized, "{target}");
            assert_eq!(rewritten(target, UrlStyle::LegacyQuery), *legacy, "{target}");
        });
    }

    #[test]
    fn fields_beyond_the_limit_are_ignored() {
        let query: Vec<String> = (0..2 * MAX_FIELDS).map(|number| format!("a{number}")).collect();
        let target = rewritten(&format!("/?{}", query.join("&")), UrlStyle::LegacyQuery);
        assert_eq!(target.matches('&').count(), MAX_FIELDS - 1);
    }

    /// Targets, each with the path and query of `new URL(…).toString()`, and the same with
    /// `querystring.stringify(querystring.parse(…))` applied to the query. Node 20 wrote them.
    const TABLE: &[(&str, &str, &str)] = &[
        ("/in", "/in", "/in"),
        ("/in?", "/in?", "/in?"),
        ("/in?a=b", "/in?a=b", "/in?a=b"),
        (
            "/in?name=William+O'hara&note=Couldn%27t+find",
            "/in?name=William+O%27hara&note=Couldn%27t+find",
            "/in?name=William%20O'hara&note=Couldn't%20find",
        ),
        ("/in?b=1&a=2&b=3", "/in?b=1&a=2&b=3", "/in?b=1&b=3&a=2"),
        (
            "/in?10=a&b=c&2=d&02=e&4294967295=f&4294967294=g&-1=h",
            "/in?10=a&b=c&2=d&02=e&4294967295=f&4294967294=g&-1=h",
            "/in?2=d&10=a&4294967294=g&b=c&02=e&4294967295=f&-1=h",
        ),
        ("/in?a&b=&&=c&=", "/in?a&b=&&=c&=", "/in?a=&b=&=c&="),
        (
            "/in?a=%zz&b=%e9&c=%c3%a9%&d=%F0%9F%98",
            "/in?a=%zz&b=%e9&c=%c3%a9%&d=%F0%9F%98",
            "/in?a=%25zz&b=%EF%BF%BD&c=%C3%A9%25&d=%EF%BF%BD",
        ),
        ("/in?a=é&é=b", "/in?a=%C3%A9&%C3%A9=b", "/in?a=%C3%A9&%C3%A9=b"),
        (
            "/a{b}`c'é?x={y}|^`\"\\&z=a/b?c:d@e,f;g",
            "/a%7Bb%7D%60c'%C3%A9?x={y}|^`%22\\&z=a/b?c:d@e,f;g",
            "/a%7Bb%7D%60c'%C3%A9?x=%7By%7D%7C%5E%60%22%5C&z=a%2Fb%3Fc%3Ad%40e%2Cf%3Bg",
        ),
        (
            "/in?__proto__=1&a=%5B%5d&b[]=1&b[]=2",
            "/in?__proto__=1&a=%5B%5d&b[]=1&b[]=2",
            "/in?__proto__=1&a=%5B%5D&b%5B%5D=1&b%5B%5D=2",
        ),
        ("/in?a=b=c&d=%26%3D%2B%20+", "/in?a=b=c&d=%26%3D%2B%20+", "/in?a=b%3Dc&d=%26%3D%2B%20%20"),
        ("/in?%61=1&a=2", "/in?%61=1&a=2", "/in?a=1&a=2"),
        ("/a%20b?c=%20", "/a%20b?c=%20", "/a%20b?c=%20"),
        ("/in?x=!*()~'-._", "/in?x=!*()~%27-._", "/in?x=!*()~'-._"),
    ];
}
