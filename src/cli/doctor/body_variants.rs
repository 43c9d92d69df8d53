//! Undoes changes to a request body. A proxy or a serverless function may have changed the body in transit, or an editor may
//! have changed it in the recording.

use super::cause::Cause;
use super::{gateway_changes, json_styles};

/// A function that undoes one kind of change to a body. It returns `None` if the body cannot be the result of such a change.
type Undo = fn(&[u8]) -> Option<Vec<u8>>;

/// Yields the bodies that the sender may have signed, most likely first. With a signed body, yields the change that turned the
/// signed body into `body`.
pub(super) fn all(body: &[u8]) -> impl Iterator<Item = (Vec<u8>, Cause)> + '_ {
    let undone = CHANGES.iter().filter_map(|(word, what, undo)| Some((undo(body)?, changed(word, what))));
    let rewritten = json_styles::all(body).flat_map(|(style, bytes)| {
        let with_newline = [&bytes[..], b"\n"].concat();
        let what = format!("the JSON was parsed and serialized again; the sender signed JSON {style}");
        let what_newline = format!("{what}, with a line break at the end");
        [(bytes, changed("body_json", &what)), (with_newline, changed("body_json", &what_newline))]
    });
    let unwrapped = gateway_changes::all(body).into_iter().map(|(word, what, bytes)| (bytes, gateway_changed(word, &what)));
    undone.chain(unwrapped).chain(rewritten).filter(move |(bytes, _)| bytes != body)
}

fn changed(word: &'static str, what: &str) -> Cause {
    Cause::certain(word, format!("the body changed in transit or during recording: {what}"), FORWARD_UNCHANGED)
}

fn gateway_changed(word: &'static str, what: &str) -> Cause {
    Cause::certain(word, format!("the body changed in transit or during recording: {what}"), PASS_THROUGH)
}

fn with_suffix(body: &[u8], suffix: &[u8]) -> Option<Vec<u8>> {
    Some([body, suffix].concat())
}

fn without_last_newline(body: &[u8]) -> Option<Vec<u8>> {
    body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n")).map(<[u8]>::to_vec)
}

fn trimmed(body: &[u8]) -> Option<Vec<u8>> {
    Some(body.trim_ascii().to_vec())
}

/// Replaces every occurrence of `from` in a body with `to`. Returns `None` if the body is not UTF-8.
fn replaced(body: &[u8], from: &str, to: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    Some(text.replace(from, to).into_bytes())
}

fn with_crlf(body: &[u8]) -> Option<Vec<u8>> {
    replaced(&replaced(body, "\r\n", "\n")?, "\n", "\r\n")
}

/// Changes the case of the hexadecimal digits in all percent escapes. Returns `None` for a body without such an escape.
fn escapes(body: &[u8], case: fn(&u8) -> u8) -> Option<Vec<u8>> {
    let mut changed = body.to_vec();
    let starts: Vec<usize> = memchr::memchr_iter(b'%', body).filter(|at| at + 2 < body.len()).collect();
    for at in &starts {
        let digits = &mut changed[at + 1..at + 3];
        if digits.iter().all(u8::is_ascii_hexdigit) {
            digits.iter_mut().for_each(|digit| *digit = case(digit));
        }
    }
    (!starts.is_empty()).then_some(changed)
}

fn with_bom(body: &[u8]) -> Option<Vec<u8>> {
    Some([BYTE_ORDER_MARK, body].concat())
}

fn without_bom(body: &[u8]) -> Option<Vec<u8>> {
    body.strip_prefix(BYTE_ORDER_MARK).map(<[u8]>::to_vec)
}

/// Converts a body from ISO 8859-1 to UTF-8. Each byte is the code point of its character, because Unicode begins with the 256
/// characters of ISO 8859-1.
fn as_utf8(body: &[u8]) -> Option<Vec<u8>> {
    Some(body.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes())
}

fn as_latin_1(body: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(body).ok()?.chars().map(|character| u8::try_from(character).ok()).collect()
}

fn windows_as_utf8(body: &[u8]) -> Option<Vec<u8>> {
    let character = |byte: &u8| match byte {
        0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
        _ => char::from(*byte),
    };
    Some(body.iter().map(character).collect::<String>().into_bytes())
}

fn as_windows(body: &[u8]) -> Option<Vec<u8>> {
    let byte = |character: char| match (0x80..).zip(WINDOWS_1252).find(|(_, own)| *own == character) {
        Some((byte, _)) => Some(byte),
        None => u8::try_from(character).ok(),
    };
    std::str::from_utf8(body).ok()?.chars().map(byte).collect()
}

const CHANGES: &[(&str, &str, Undo)] = &[
    ("body_newline", "a line break was removed from the end", |body| with_suffix(body, b"\n")),
    ("body_newline", "a line break was added to the end", without_last_newline),
    ("body_newline", "a line break was removed from the end", |body| with_suffix(body, b"\r\n")),
    ("body_newline", "whitespace was added around the body", trimmed),
    ("body_newline", "several line breaks were removed from the end", |body| with_suffix(body, b"\n\n")),
    ("body_newline", "several line breaks were removed from the end", |body| with_suffix(body, b"\r\n\r\n")),
    ("body_newline", "a space was removed from the end", |body| with_suffix(body, b" ")),
    ("body_newline", "a line break was removed from the start", |body| Some([b"\n", body].concat())),
    ("body_newline", "a NUL was removed from the end", |body| with_suffix(body, b"\0")),
    ("body_newline", "a NUL was added to the end", |body| body.strip_suffix(b"\0").map(<[u8]>::to_vec)),
    ("body_newline", "the line breaks were changed from LF to CR", |body| replaced(body, "\r", "\n")),
    ("body_newline", "the line breaks were changed from CR to LF", |body| replaced(body, "\n", "\r")),
    ("body_newline", "the line breaks were changed from LF to CRLF", |body| replaced(body, "\r\n", "\n")),
    ("body_newline", "the line breaks were changed from CRLF to LF", with_crlf),
    ("body_charset", "a byte order mark was added", without_bom),
    ("body_charset", "the byte order mark was removed", with_bom),
    ("body_charset", "the text was converted from UTF-8 to ISO 8859-1", as_utf8),
    ("body_charset", "the text was read as ISO 8859-1 and converted to UTF-8", as_latin_1),
    ("body_charset", "the text was converted from UTF-8 to Windows-1252", windows_as_utf8),
    ("body_charset", "the text was read as Windows-1252 and converted to UTF-8", as_windows),
    ("body_form", "the form was decoded and encoded again, with + for spaces", |body| replaced(body, "+", "%20")),
    ("body_form", "the form was decoded and encoded again, with %20 for spaces", |body| replaced(body, "%20", "+")),
    ("body_form", "the form was decoded and encoded again, with upper-case escapes", |body| {
        escapes(body, u8::to_ascii_lowercase)
    }),
    ("body_form", "the form was decoded and encoded again, with lower-case escapes", |body| {
        escapes(body, u8::to_ascii_uppercase)
    }),
];
/// Unicode characters for the bytes 0x80 to 0x9F of Windows-1252 (<https://encoding.spec.whatwg.org/index-windows-1252.txt>).
/// All other bytes stand for the same characters as in ISO 8859-1.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’', '“', '”',
    '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const FORWARD_UNCHANGED: &str = "make every hop forward the body byte for byte: find the proxy, function or middleware that \
     parses or rewrites the body in front of hookhold, and remove this hop from the path";

const PASS_THROUGH: &str = "configure the API gateway or serverless function in front of hookhold to pass the body through as it \
     is, without payload mapping, binary conversion or form parsing; or remove it from the path";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_body_change_is_undone() {
        for (now, before) in [
            ("a", "a\n"),
            ("a", "a\r\n"),
            ("a\n", "a"),
            (" a \n\n", "a"),
            ("a\r\nb", "a\nb"),
            ("a\nb\n", "a\r\nb\r\n"),
            ("\u{feff}a", "a"),
            ("a", "\u{feff}a"),
            ("Ã©", "é"),
            ("a+b", "a%20b"),
            ("a%20b", "a+b"),
            ("a=%2F%c3", "a=%2f%c3"),
            ("a=%2f%c3%", "a=%2F%C3%"),
            ("a", "a\n\n"),
            ("a", "a "),
            ("a", "\na"),
            ("a\0", "a"),
            ("a\rb", "a\nb"),
            ("{\n  \"a\": 1\n}", "{\"a\":1}"),
            ("{\"a\":1}", "{\n  \"a\": 1\n}\n"),
        ] {
            let found = all(now.as_bytes()).any(|(bytes, _)| bytes == before.as_bytes());
            assert!(found, "no variant of {now:?} is {before:?}");
            assert!(all(now.as_bytes()).all(|(bytes, _)| bytes != now.as_bytes()), "a variant of {now:?} is unchanged");
        }
        for (now, before) in [(&b"caf\xe9"[..], "café"), (b"\x93\x80\x94", "“€”"), ("â‚¬".as_bytes(), "€")] {
            assert!(all(now).any(|(bytes, _)| bytes == before.as_bytes()), "no variant of {now:?} is {before}");
        }
    }
}
