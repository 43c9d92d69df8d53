//! Rewrites a JSON body in the styles of common serializers. One of the results may be the body that the sender signed. The
//! styles differ only in whitespace and escape sequences: members stay in the same order, and numbers have the same digits.

use std::borrow::Cow;
use std::iter;

use serde::de::IgnoredAny;

/// Yields `body` in the style of each common serializer, with a description of the style. Yields nothing if `body` is not JSON.
pub(super) fn all(body: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let json = std::str::from_utf8(body).ok().filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let styles = SPACINGS.iter().flat_map(|spacing| ESCAPINGS.iter().map(move |escaping| (spacing, escaping)));
    json.into_iter().flat_map(move |text| styles.clone().filter_map(move |(spacing, escaping)| styled(text, spacing, escaping)))
}

fn styled(text: &str, spacing: &Spacing, (words, escaping): &(&str, Escaping)) -> Option<(String, Vec<u8>)> {
    Some((format!("{}{words}", spacing.words), written(text, spacing, *escaping)?.into_bytes()))
}

struct Spacing {
    words: &'static str,
    comma: &'static str,
    colon: &'static str,
    indent: Option<&'static str>,
}

type Escaping = fn(&str) -> Cow<'_, str>;

/// Rewrites a JSON text in one style. Returns `None` if the result would be longer than 1 KiB plus [`MAX_GROWTH`] times the
/// length of the input. Without this limit, a deeply nested input could use too much memory, because the indentation of a line
/// grows with the nesting depth.
fn written(text: &str, spacing: &Spacing, escaping: Escaping) -> Option<String> {
    let (mut out, mut depth, mut is_empty) = (String::with_capacity(text.len()), 0_usize, false);
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = spacing.indent {
            out.push('\n');
            out.extend(iter::repeat_n(indent, depth));
        }
    };
    let limit = text.len().saturating_mul(MAX_GROWTH) + (1 << 10);
    for token in tokens(text) {
        if out.len().saturating_add(depth * INDENT) > limit {
            return None;
        }
        let closes = matches!(token, "}" | "]");
        if closes {
            depth -= 1;
        }
        if closes != is_empty {
            line(&mut out, depth);
        }
        is_empty = matches!(token, "{" | "[");
        match token {
            "," => {
                out.push_str(spacing.comma);
                line(&mut out, depth);
            }
            ":" => out.push_str(spacing.colon),
            _ if token.starts_with('"') => out.push_str(&escaping(token)),
            _ => out.push_str(token),
        }
        depth += usize::from(is_empty);
    }
    Some(out)
}

/// Yields the tokens of a JSON text without the whitespace between them.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    iter::from_fn(move || {
        rest = rest.trim_start_matches(WHITESPACE);
        let end = match rest.as_bytes().first()? {
            b'"' => end_of_string(rest),
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            _ => rest.find(|character| WHITESPACE.contains(&character) || ",]}".contains(character)).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(end);
        rest = after;
        Some(token)
    })
}

fn end_of_string(text: &str) -> usize {
    let mut is_escaped = false;
    let ends = |byte: u8| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    };
    text.bytes().skip(1).position(ends).map_or(text.len(), |at| at + 2)
}

fn unchanged(token: &str) -> Cow<'_, str> {
    token.into()
}

/// Rewrites a JSON string with only the escape sequences that JSON requires.
fn minimal(token: &str) -> Cow<'_, str> {
    let text = serde_json::from_str::<String>(token).and_then(|text| serde_json::to_string(&text));
    text.map_or(Cow::Borrowed(token), Cow::Owned)
}

fn ascii(token: &str) -> Cow<'_, str> {
    escape(&minimal(token), |character| !character.is_ascii()).into()
}

/// Rewrites a JSON string as Jackson does for ASCII: with upper-case hexadecimal digits.
fn upper_ascii(token: &str) -> Cow<'_, str> {
    escape_upper(&minimal(token), |character| !character.is_ascii()).into()
}

/// Rewrites a JSON string as the default encoder of .NET does.
fn dotnet(token: &str) -> Cow<'_, str> {
    const BACKSLASH: &str = "\\\\";
    // Splits at escaped backslashes, so that a quotation mark after one is not taken for an escaped quotation mark.
    let minimal = minimal(token);
    let parts: Vec<String> = minimal.split(BACKSLASH).map(|part| part.replace("\\\"", "\\u0022")).collect();
    let quoted = parts.join(BACKSLASH);
    let is_escaped = |character: char| !character.is_ascii() || "&'+<>`\u{7f}".contains(character);
    escape_upper(&quoted, is_escaped).into()
}

fn php(token: &str) -> Cow<'_, str> {
    ascii(token).replace('/', "\\/").into()
}

fn slashes(token: &str) -> Cow<'_, str> {
    minimal(token).replace('/', "\\/").into()
}

fn html(token: &str) -> Cow<'_, str> {
    escape(&minimal(token), |character| "<>&\u{2028}\u{2029}".contains(character)).into()
}

/// Replaces a character with a `\u` escape sequence in lower-case hexadecimal if `is_escaped` returns true for the character. A
/// character above U+FFFF becomes a surrogate pair.
fn escape(text: &str, is_escaped: fn(char) -> bool) -> String {
    escape_as(text, is_escaped, |unit| format!("\\u{unit:04x}"))
}

/// Like [`escape`], but in upper-case hexadecimal.
fn escape_upper(text: &str, is_escaped: fn(char) -> bool) -> String {
    escape_as(text, is_escaped, |unit| format!("\\u{unit:04X}"))
}

fn escape_as(text: &str, is_escaped: fn(char) -> bool, written: fn(u16) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match is_escaped(character) {
            true => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&written(*unit))),
            false => out.push(character),
        }
    }
    out
}

/// Largest indentation per nesting level, in characters.
const INDENT: usize = 4;
/// Maximum ratio of the length of the rewritten JSON to the length of the original JSON. The ratio stays below
/// this maximum for ordinary JSON, because indentation makes ordinary JSON only several times as long.
const MAX_GROWTH: usize = 16;
const WHITESPACE: [char; 4] = [' ', '\t', '\r', '\n'];
const SPACINGS: &[Spacing] = &[
    Spacing { words: "without whitespace", comma: ",", colon: ":", indent: None },
    Spacing { words: "indented by 2 spaces", comma: ",", colon: ": ", indent: Some("  ") },
    Spacing { words: "with spaces after commas and colons", comma: ", ", colon: ": ", indent: None },
    Spacing { words: "indented by 4 spaces", comma: ",", colon: ": ", indent: Some("    ") },
    Spacing { words: "indented with tabs", comma: ",", colon: ": ", indent: Some("\t") },
];
const ESCAPINGS: &[(&str, Escaping)] = &[
    ("", unchanged),
    (", with only the required escapes", minimal),
    (", with non-ASCII characters escaped", ascii),
    (", with non-ASCII characters escaped in upper case", upper_ascii),
    (", with the characters escaped that .NET escapes", dotnet),
    (", with slashes escaped", slashes),
    (", with slashes and non-ASCII characters escaped", php),
    (", with < > & escaped", html),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_style_is_written_as_its_serializers_do() {
        let body = "{ \"a\":[1.50,{},[] ,\"x\\\"/\\u00e9<\\\\\"],\r\n\"b\" : null }\n";
        let found: Vec<String> =
            all(body.as_bytes()).map(|(_, bytes)| String::from_utf8(bytes).expect("JSON is UTF-8")).collect();
        for expected in [
            r#"{"a":[1.50,{},[],"x\"/\u00e9<\\"],"b":null}"#,
            r#"{"a":[1.50,{},[],"x\"/é<\\"],"b":null}"#,
            r#"{"a":[1.50,{},[],"x\"\/\u00e9<\\"],"b":null}"#,
            r#"{"a":[1.50,{},[],"x\"/é\u003c\\"],"b":null}"#,
            r#"{"a":[1.50,{},[],"x\"/\u00E9<\\"],"b":null}"#,
            r#"{"a":[1.50,{},[],"x\u0022/\u00E9\u003C\\"],"b":null}"#,
            r#"{"a": [1.50, {}, [], "x\"/\u00e9<\\"], "b": null}"#,
            "{\n  \"a\": [\n    1.50,\n    {},\n    [],\n    \"x\\\"/é<\\\\\"\n  ],\n  \"b\": null\n}",
        ] {
            assert!(found.iter().any(|text| text == expected), "{expected} in {found:?}");
        }
        assert_eq!(all(b"{").count() + all(b"\xff").count() + all(b"a=b").count(), 0);
    }

    #[test]
    fn deeply_nested_json_is_not_indented() {
        let deep = "[".repeat(50_000) + &"]".repeat(50_000);
        let lengths: Vec<usize> = all(deep.as_bytes()).map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lengths, vec![deep.len(); 2 * ESCAPINGS.len()], "only the styles without indentation");
    }
}
