//! One JSON value in the spellings of common writers: other white space, other escapes; the same members in the same order
//! and the same digits. So what one writer made of another's text can be undone.

use std::borrow::Cow;
use std::iter;

use serde::de::IgnoredAny;

/// Every spelling of `body`, with the words for it; none when it is not JSON.
pub fn spellings(body: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let json = std::str::from_utf8(body).ok().filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let styles = SPACINGS.iter().flat_map(|spacing| LETTERS.iter().map(move |letters| (spacing, letters)));
    json.into_iter().flat_map(move |text| styles.clone().filter_map(move |(spacing, letters)| spelled(text, spacing, letters)))
}

fn spelled(text: &str, spacing: &Spacing, (words, letters): &(&str, Letters)) -> Option<(String, Vec<u8>)> {
    Some((format!("{}{words}", spacing.words), spaced(text, spacing, *letters)?.into_bytes()))
}

struct Spacing {
    words: &'static str,
    comma: &'static str,
    colon: &'static str,
    indent: Option<&'static str>,
}

type Letters = fn(&str) -> Cow<'_, str>;

/// `None` when it would grow without measure: the deeper a value is nested, the longer are its lines.
fn spaced(text: &str, spacing: &Spacing, letters: Letters) -> Option<String> {
    let (mut out, mut depth, mut is_empty) = (String::with_capacity(text.len()), 0_usize, false);
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = spacing.indent {
            out.push('\n');
            out.extend(iter::repeat_n(indent, depth));
        }
    };
    let most = text.len().saturating_mul(MAX_GROWTH) + (1 << 10);
    for token in tokens(text) {
        if out.len().saturating_add(depth * INDENT) > most {
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
            _ if token.starts_with('"') => out.push_str(&letters(token)),
            _ => out.push_str(token),
        }
        depth += usize::from(is_empty);
    }
    Some(out)
}

/// The tokens of a text that is JSON.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    iter::from_fn(move || {
        rest = rest.trim_start_matches(WHITE);
        let end = match rest.as_bytes().first()? {
            b'"' => end_of_string(rest),
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            _ => rest.find(|letter| WHITE.contains(&letter) || ",]}".contains(letter)).unwrap_or(rest.len()),
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

fn as_it_is(token: &str) -> Cow<'_, str> {
    token.into()
}

/// No escape that JSON does not ask for.
fn bare(token: &str) -> Cow<'_, str> {
    let text = serde_json::from_str::<String>(token).and_then(|text| serde_json::to_string(&text));
    text.map_or(Cow::Borrowed(token), Cow::Owned)
}

fn ascii(token: &str) -> Cow<'_, str> {
    escaping(&bare(token), |letter| !letter.is_ascii()).into()
}

fn php(token: &str) -> Cow<'_, str> {
    ascii(token).replace('/', "\\/").into()
}

fn slashes(token: &str) -> Cow<'_, str> {
    bare(token).replace('/', "\\/").into()
}

fn html(token: &str) -> Cow<'_, str> {
    escaping(&bare(token), |letter| "<>&\u{2028}\u{2029}".contains(letter)).into()
}

/// `\u` escapes for some letters, in lower case; two of them beyond U+FFFF.
fn escaping(text: &str, is_escaped: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match is_escaped(letter) {
            true => letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
            false => out.push(letter),
        }
    }
    out
}

/// The longest indent of one level.
const INDENT: usize = 4;
/// Ordinary JSON grows to some times its length when it is indented.
const MAX_GROWTH: usize = 16;
const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];
const SPACINGS: &[Spacing] = &[
    Spacing { words: "without white space", comma: ",", colon: ":", indent: None },
    Spacing { words: "indented by 2", comma: ",", colon: ": ", indent: Some("  ") },
    Spacing { words: "with blanks behind commas and colons", comma: ", ", colon: ": ", indent: None },
    Spacing { words: "indented by 4", comma: ",", colon: ": ", indent: Some("    ") },
    Spacing { words: "indented by tabs", comma: ",", colon: ": ", indent: Some("\t") },
];
const LETTERS: &[(&str, Letters)] = &[
    ("", as_it_is),
    (", letters not escaped", bare),
    (", letters beyond ASCII escaped", ascii),
    (", slashes escaped", slashes),
    (", slashes and letters beyond ASCII escaped", php),
    (", < > & escaped", html),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_is_the_one_that_its_writers_make() {
        let body = "{ \"a\":[1.50,{},[] ,\"x\\\"/\\u00e9<\\\\\"],\r\n\"b\" : null }\n";
        let found: Vec<String> =
            spellings(body.as_bytes()).map(|(_, bytes)| String::from_utf8(bytes).expect("JSON is UTF-8")).collect();
        for expected in [
            r#"{"a":[1.50,{},[],"x\"/\u00e9<\\"],"b":null}"#,
            r#"{"a":[1.50,{},[],"x\"/é<\\"],"b":null}"#,
            r#"{"a":[1.50,{},[],"x\"\/\u00e9<\\"],"b":null}"#,
            r#"{"a":[1.50,{},[],"x\"/é\u003c\\"],"b":null}"#,
            r#"{"a": [1.50, {}, [], "x\"/\u00e9<\\"], "b": null}"#,
            "{\n  \"a\": [\n    1.50,\n    {},\n    [],\n    \"x\\\"/é<\\\\\"\n  ],\n  \"b\": null\n}",
        ] {
            assert!(found.iter().any(|text| text == expected), "{expected} in {found:?}");
        }
        assert_eq!(spellings(b"{").count() + spellings(b"\xff").count() + spellings(b"a=b").count(), 0);
    }

    #[test]
    fn what_is_nested_without_measure_is_not_indented() {
        let deep = "[".repeat(50_000) + &"]".repeat(50_000);
        let lengths: Vec<usize> = spellings(deep.as_bytes()).map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lengths, vec![deep.len(); 2 * LETTERS.len()], "only without indents");
    }
}
