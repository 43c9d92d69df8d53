//! Strings, numbers and words of a JSON text: finds the end of each, and decodes those that a recipe can read. Accepts control
//! characters and unknown escapes in strings, integers of any length, and any word, such as `NaN`.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// Returns the length in bytes of the string, number or word at the start of the text. A word is any text up to the next
/// whitespace or punctuation, such as `true`, `NaN` or `undefined`.
pub(super) fn size_of_scalar(json: &[u8]) -> Option<usize> {
    if json.first() == Some(&b'"') {
        return size_of_string(json);
    }
    let size = json.iter().position(|byte| *byte <= b' ' || PUNCTUATION.contains(byte)).unwrap_or(json.len());
    (size > 0).then_some(size)
}

/// Returns the length in bytes of the JSON string at the start of the text, including the quotation marks. Accepts control
/// characters, bytes that are not UTF-8, and unknown escapes.
pub(super) fn size_of_string(json: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Returns the text of a JSON string, integer or boolean. Returns `None` for any other value: recipes can read only these three
/// kinds of values from a body.
pub(super) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    if value.starts_with(b"\"") {
        return string(value);
    }
    // Reject numbers with an exponent or leading zeros and `-0`, so that each accepted integer has exactly one spelling.
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let is_shortest = !digits.starts_with(b"0") || value == b"0";
    let is_whole = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && is_shortest;
    let is_fact = is_whole || value == b"true" || value == b"false";
    std::str::from_utf8(value).ok().filter(|_| is_fact).map(Cow::Borrowed)
}

/// Decodes a JSON string. Returns `None` if the string has an unknown escape or is not valid Unicode.
pub(super) fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    match plain(value) {
        Some(plain) => std::str::from_utf8(plain).ok().map(Cow::Borrowed),
        None => unescaped(&value[1..value.len() - 1]).map(Cow::Owned),
    }
}

/// Returns the bytes between the quotation marks of a JSON string, or `None` if the string has escapes.
pub(super) fn plain(value: &[u8]) -> Option<&[u8]> {
    let inside = &value[1..value.len() - 1];
    memchr(b'\\', inside).is_none().then_some(inside)
}

/// Replaces the escapes in the text of a JSON string.
fn unescaped(text: &[u8]) -> Option<String> {
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = memchr(b'\\', rest) {
        let (character, size) = escape(&rest[at..])?;
        decoded.extend_from_slice(&rest[..at]);
        decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[at + size..];
    }
    decoded.extend_from_slice(rest);
    String::from_utf8(decoded).ok()
}

/// Returns the character of the escape at the start of the text, and the length of the escape in bytes. Two escapes form one
/// character if they are a surrogate pair. Returns `None` for an unknown escape.
fn escape(text: &[u8]) -> Option<(char, usize)> {
    let character = match text.get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = code_unit(text)?;
            if let Some(character) = char::from_u32(first.into()) {
                return Some((character, 6));
            }
            let pair = [first, code_unit(text.get(6..)?)?];
            return char::decode_utf16(pair).next()?.ok().map(|character| (character, 12));
        }
        other @ (b'"' | b'\\' | b'/') => char::from(*other),
        _ => return None,
    };
    Some((character, 2))
}

fn code_unit(escape: &[u8]) -> Option<u16> {
    let digits = escape.strip_prefix(b"\\u")?.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The bytes that end a word.
const PUNCTUATION: &[u8] = b",:\"{}[]";
