//! What a body may have been before somebody between sender and hookhold changed it.

use super::cause::Cause;
use super::respelled::spellings;

/// Undoes one kind of change; `None` where it cannot have happened.
type Undo = fn(&[u8]) -> Option<Vec<u8>>;

/// Every body that this one may have been, with what then happened to it; the most likely first, one at a time.
pub fn variants(body: &[u8]) -> impl Iterator<Item = (Vec<u8>, Cause)> + '_ {
    let undone = UNDONE.iter().filter_map(|(word, what, undo)| Some((undo(body)?, changed(word, what))));
    let respelled = spellings(body).flat_map(|(style, bytes)| {
        let broken = [&bytes[..], b"\n"].concat();
        let what = format!("its JSON was read and written anew; the sender had signed it {style}");
        let again = format!("{what}, with a line break at the end");
        [(bytes, changed("body_json", &what)), (broken, changed("body_json", &again))]
    });
    undone.chain(respelled).filter(move |(bytes, _)| bytes != body)
}

fn changed(word: &'static str, what: &str) -> Cause {
    Cause::certain(word, format!("the body was changed on the way, or when it was recorded: {what}"), HANDS_OFF)
}

fn with_end(body: &[u8], end: &[u8]) -> Option<Vec<u8>> {
    Some([body, end].concat())
}

fn without_last_break(body: &[u8]) -> Option<Vec<u8>> {
    body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n")).map(<[u8]>::to_vec)
}

fn trimmed(body: &[u8]) -> Option<Vec<u8>> {
    Some(body.trim_ascii().to_vec())
}

/// Replaces each `from`.
fn replaced(body: &[u8], from: &str, to: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    Some(text.replace(from, to).into_bytes())
}

fn with_crlf(body: &[u8]) -> Option<Vec<u8>> {
    replaced(&replaced(body, "\r\n", "\n")?, "\n", "\r\n")
}

fn with_mark(body: &[u8]) -> Option<Vec<u8>> {
    Some([BYTE_ORDER_MARK, body].concat())
}

fn without_mark(body: &[u8]) -> Option<Vec<u8>> {
    body.strip_prefix(BYTE_ORDER_MARK).map(<[u8]>::to_vec)
}

/// The letters of ISO 8859-1 are the first of Unicode.
fn as_utf8(body: &[u8]) -> Option<Vec<u8>> {
    Some(body.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes())
}

fn as_latin_1(body: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(body).ok()?.chars().map(|letter| u8::try_from(letter).ok()).collect()
}

fn windows_as_utf8(body: &[u8]) -> Option<Vec<u8>> {
    let letter = |byte: &u8| match byte {
        0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
        _ => char::from(*byte),
    };
    Some(body.iter().map(letter).collect::<String>().into_bytes())
}

fn as_windows(body: &[u8]) -> Option<Vec<u8>> {
    let byte = |letter: char| match (0x80..).zip(WINDOWS_1252).find(|(_, own)| *own == letter) {
        Some((byte, _)) => Some(byte),
        None => u8::try_from(letter).ok(),
    };
    std::str::from_utf8(body).ok()?.chars().map(byte).collect()
}

const UNDONE: &[(&str, &str, Undo)] = &[
    ("body_newline", "a line break at its end was removed", |body| with_end(body, b"\n")),
    ("body_newline", "a line break at its end was added", without_last_break),
    ("body_newline", "a line break at its end was removed", |body| with_end(body, b"\r\n")),
    ("body_newline", "white space at its ends was added", trimmed),
    ("body_newline", "its line breaks were changed from LF to CRLF", |body| replaced(body, "\r\n", "\n")),
    ("body_newline", "its line breaks were changed from CRLF to LF", with_crlf),
    ("body_charset", "a byte order mark was added", without_mark),
    ("body_charset", "its byte order mark was removed", with_mark),
    ("body_charset", "its letters were converted from UTF-8 to ISO 8859-1", as_utf8),
    ("body_charset", "its letters were taken for ISO 8859-1 and converted to UTF-8", as_latin_1),
    ("body_charset", "its letters were converted from UTF-8 to Windows-1252", windows_as_utf8),
    ("body_charset", "its letters were taken for Windows-1252 and converted to UTF-8", as_windows),
    ("body_form", "its form was encoded anew, with + for blanks", |body| replaced(body, "+", "%20")),
    ("body_form", "its form was encoded anew, with %20 for blanks", |body| replaced(body, "%20", "+")),
];
/// The letters from 0x80 to 0x9F (<https://encoding.spec.whatwg.org/index-windows-1252.txt>); all others are as in ISO 8859-1.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’', '“', '”',
    '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const HANDS_OFF: &str = "have the body handed on byte for byte: find the proxy, function or middleware in front of hookhold that parses \
     or rewrites it, and take it out of this path";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_body_can_be_undone() {
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
            ("{\n  \"a\": 1\n}", "{\"a\":1}"),
            ("{\"a\":1}", "{\n  \"a\": 1\n}\n"),
        ] {
            let found = variants(now.as_bytes()).any(|(bytes, _)| bytes == before.as_bytes());
            assert!(found, "{now:?} was {before:?}");
            assert!(variants(now.as_bytes()).all(|(bytes, _)| bytes != now.as_bytes()), "{now:?} was changed");
        }
        for (now, before) in [(&b"caf\xe9"[..], "café"), (b"\x93\x80\x94", "“€”"), ("â‚¬".as_bytes(), "€")] {
            assert!(variants(now).any(|(bytes, _)| bytes == before.as_bytes()), "{now:?} was {before}");
        }
    }
}
