//! A model of the JSON pass for tests. Decides with serde_json, not with the pass, which bodies the pass accepts.

use serde::de::IgnoredAny;
use serde_json::Deserializer;

/// Decides with serde_json whether the pass accepts a text. First rewrites the text as JSON: replaces each string and each
/// word, and omits control characters, byte order marks and the comma after the last member or element.
pub(super) fn is_lenient_json(text: &[u8]) -> bool {
    // The place of each token in the JSON, and its first byte in the text.
    let (mut json, mut tokens, mut rest) = (Vec::new(), Vec::new(), text);
    while let [first, after @ ..] = rest {
        let (token, size): (&[u8], usize) = match first {
            0..=b' ' => (b"", 1),
            b'"' => match end_of_string(after) {
                Some(end) => (b"\"\"", end + 2),
                None => break,
            },
            0xef if rest.starts_with(BYTE_ORDER_MARK) => (b"", 3),
            b',' | b':' | b'{' | b'}' | b'[' | b']' => (&rest[..1], 1),
            _ => (b"0", rest.iter().position(|byte| *byte <= b' ' || b",:\"{}[]".contains(byte)).unwrap_or(rest.len())),
        };
        if matches!(token, b"}" | b"]") && json.ends_with(b", ") && !json.ends_with(b"[ , ") && !json.ends_with(b"{ , ") {
            json.truncate(json.len() - 2);
        }
        if !token.is_empty() {
            tokens.push((json.len(), *first));
            json.extend([token, b" "].concat());
        }
        rest = &rest[size..];
    }
    let mut values = Deserializer::from_slice(&json).into_iter::<IgnoredAny>();
    let is_value = json.starts_with(b"{") || json.starts_with(b"[");
    let is_accepted = is_value && matches!(values.next(), Some(Ok(_)));
    let next = tokens.iter().find(|(at, _)| *at >= values.byte_offset()).map(|(_, first)| *first);
    is_accepted && !matches!(next, Some(b'=' | b'&'))
}

fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    text.iter().position(|byte| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    })
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
