//! Converts a JSON text in UTF-16 to UTF-8, so that the verifier finds the same values in both encodings.

/// Returns the UTF-8 form of a JSON text in UTF-16, without its byte order mark. Returns `None` if the body is not UTF-16. The
/// UTF-16 of a JSON text without a byte order mark has a zero byte next to each of its first two characters. In UTF-8, a zero byte
/// is at most a stray control character.
///
/// Half a surrogate pair becomes three bytes that are not valid UTF-8. Only the string that contains these bytes is then
/// unreadable, and it never equals another string. Ignores an odd byte at the end.
pub(super) fn to_utf8(body: &[u8]) -> Option<Vec<u8>> {
    let (is_little_endian, text) = match body {
        [0xff, 0xfe, text @ ..] => (true, text),
        [0xfe, 0xff, text @ ..] => (false, text),
        [first, 0, _, 0, ..] if STARTS.contains(first) => (true, body),
        [0, first, 0, _, ..] if STARTS.contains(first) => (false, body),
        _ => return None,
    };
    let unit = if is_little_endian { u16::from_le_bytes } else { u16::from_be_bytes };
    let units = text.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let mut utf8 = Vec::with_capacity(text.len() / 2);
    for character in char::decode_utf16(units) {
        match character {
            Ok(character) => utf8.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(half) => {
                let [high, low] = half.unpaired_surrogate().to_be_bytes();
                utf8.extend_from_slice(&[0xe0 | high >> 4, 0x80 | (high & 0xf) << 2 | low >> 6, 0x80 | low & 0x3f]);
            }
        }
    }
    Some(utf8)
}

/// The first characters of a JSON object or array, or of the whitespace in front of it.
const STARTS: &[u8] = b"{[ \t\r\n";
