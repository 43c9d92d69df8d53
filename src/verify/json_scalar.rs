//! Strings, numbers and literals of a JSON text: finds the end of each, and decodes those that a recipe can read. Accepts control
//! characters in strings, integers of any length, and the numbers `NaN` and `Infinity`.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// Returns the length in bytes of the string, number or literal at the start of the text.
pub(super) fn size_of_scalar(json: &[u8]) -> Option<usize> {
    match json.first()? {
        b'"' => size_of_string(json),
        _ => match LITERALS.iter().find(|literal| json.starts_with(literal)) {
            Some(literal) => Some(literal.len()),
            None => size_of_number(json),
        },
    }
}

/// Returns the length in bytes of the JSON string at the start of the text, including the quotation marks. Accepts control
/// characters and bytes that are not UTF-8.
pub(super) fn size_of_string(json: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at + 1);
        }
        at += match json.get(at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' if json.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
    }
}

fn size_of_number(json: &[u8]) -> Option<usize> {
    let digits = |from: usize| json.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let at_least_one = |from: usize| Some(digits(from)).filter(|count| *count > 0);
    let mut size = usize::from(json.first() == Some(&b'-'));
    size += if json.get(size) == Some(&b'0') { 1 } else { at_least_one(size)? };
    if json.get(size) == Some(&b'.') {
        size += 1 + at_least_one(size + 1)?;
    }
    if matches!(json.get(size), Some(b'e' | b'E')) {
        size += 1 + usize::from(matches!(json.get(size + 1), Some(b'+' | b'-')));
        size += at_least_one(size)?;
    }
    Some(size)
}

/// Returns the text of a JSON string, integer or boolean. Returns `None` for any other value: recipes can read only these three
/// kinds of values from a body.
pub(super) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    if value.starts_with(b"\"") {
        return string(value);
    }
    // Reject numbers with an exponent and `-0`, so that each accepted integer has exactly one spelling.
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let is_whole = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && value != b"-0";
    let is_fact = is_whole || value == b"true" || value == b"false";
    std::str::from_utf8(value).ok().filter(|_| is_fact).map(Cow::Borrowed)
}

/// Decodes a JSON string. Returns `None` if the decoded string is not valid Unicode.
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
/// character if they are a surrogate pair.
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
        other => char::from(*other),
    };
    Some((character, 2))
}

fn code_unit(escape: &[u8]) -> Option<u16> {
    let digits = escape.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The literals of JSON, and those that Python's library adds.
const LITERALS: [&[u8]; 6] = [b"true", b"false", b"null", b"NaN", b"Infinity", b"-Infinity"];
