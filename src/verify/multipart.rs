//! Reads the text fields of a `multipart/form-data` body (RFC 7578). The boundary comes from the first line of the body and not
//! from the content type, because no provider signs the content type.

use std::borrow::Cow;
use std::iter;

use httparse::{EMPTY_HEADER, Status, parse_headers};
use memchr::{memchr, memmem};

/// The name and the value of one field.
pub(super) type MultipartField<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Returns the fields of a multipart body in their order, or `None` if the body is not multipart. Omits parts with a file name,
/// parts without a name, and a last part whose end is missing. Reads at most [`MAX_PARTS`] parts.
pub(super) fn fields(body: &[u8]) -> Option<impl Iterator<Item = MultipartField<'_>>> {
    let body = body.strip_prefix(b"\r\n").unwrap_or(body);
    let end_of_line = memchr(b'\n', &body[..body.len().min(MAX_DELIMITER + 2)])?;
    let delimiter = body[..end_of_line].trim_ascii_end();
    if !delimiter.starts_with(b"--") || delimiter.len() == 2 || !delimiter.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let needle = [b"\n", delimiter].concat();
    let mut rest = Some(&body[end_of_line + 1..]);
    let parts = iter::from_fn(move || {
        let (part, after) = split(rest?, &needle)?;
        rest = after;
        Some(part)
    });
    Some(parts.take(MAX_PARTS).filter_map(field))
}

/// Splits the text at the next delimiter. Returns the part in front of the delimiter, and the text after the delimiter's line or
/// `None` after the last delimiter.
fn split<'a>(text: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    memmem::find_iter(text, needle).find_map(|at| {
        let part = text[..at].strip_suffix(b"\r").unwrap_or(&text[..at]);
        let after = &text[at + needle.len()..];
        if after.starts_with(b"--") {
            return Some((part, None));
        }
        // A line that only begins like the delimiter belongs to the part.
        let end_of_line = memchr(b'\n', after)?;
        after[..end_of_line].trim_ascii().is_empty().then_some((part, Some(&after[end_of_line + 1..])))
    })
}

fn field(part: &[u8]) -> Option<MultipartField<'_>> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let Ok(Status::Complete((size, headers))) = parse_headers(part, &mut headers) else { return None };
    let disposition = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-disposition"))?.value;
    let name = field_name(disposition)?;
    Some((text(name), text(&part[size..])))
}

/// Returns bytes as text. Text that is not UTF-8 becomes one U+FFFD, which every reader of fields treats as absent.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).unwrap_or("\u{fffd}").into()
}

/// Returns the parameter `name` of a Content-Disposition header. Returns `None` for a file and for a part of another kind.
fn field_name(disposition: &[u8]) -> Option<&[u8]> {
    let end_of_kind = memchr(b';', disposition)?;
    if !disposition[..end_of_kind].trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return None;
    }
    let (mut rest, mut found) = (&disposition[end_of_kind..], None);
    while let Some(parameter) = rest.trim_ascii_start().strip_prefix(b";") {
        let (name, value) = parameter.split_at(memchr(b'=', parameter)?);
        let (value, after) = parameter_value(value[1..].trim_ascii_start())?;
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"filename") || name.eq_ignore_ascii_case(b"filename*") {
            return None;
        }
        if name.eq_ignore_ascii_case(b"name") {
            found = found.or(Some(value));
        }
        rest = after;
    }
    found
}

/// Splits the text after a quoted or plain parameter value. Removes the quotation marks, but leaves escapes in the value as they
/// are, because senders disagree about their form.
fn parameter_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = memchr(b';', text).unwrap_or(text.len());
        return Some((text[..end].trim_ascii(), &text[end..]));
    };
    let end = memchr::memchr_iter(b'"', quoted).find(|end| *end == 0 || quoted[end - 1] != b'\\')?;
    Some((&quoted[..end], &quoted[end + 1..]))
}

/// Maximum number of parts that hookhold reads in a body.
const MAX_PARTS: usize = 1_000;
/// Maximum number of headers of one part. A part with more headers is no field.
const MAX_HEADERS: usize = 16;
/// Maximum length in bytes of a delimiter: two hyphens and a boundary of 70 characters (RFC 2046).
const MAX_DELIMITER: usize = 72;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Option<Vec<(String, String)>> {
        fields(body).map(|fields| fields.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    fn part(headers: &str, value: &str) -> String {
        format!("{headers}\r\n\r\n{value}\r\n--b")
    }

    #[test]
    fn the_boundary_is_the_first_line_of_the_body() {
        let one = part("Content-Disposition: form-data; name=\"a\"", "1");
        for (body, expected) in [
            (format!("--b\r\n{one}--\r\n"), pairs(&[("a", "1")])),
            (format!("\r\n--b\r\n{one}--"), pairs(&[("a", "1")])),
            (format!("--b \t\r\n{one} \r\n{}--", one.replace("\"a\"", "\"c\"")), pairs(&[("a", "1"), ("c", "1")])),
            (format!("--b\r\n{one}--").replace("\r\n", "\n"), pairs(&[("a", "1")])),
            (format!("--b\r\n{one}"), pairs(&[])),
            ("--b--\r\n".to_owned(), pairs(&[])),
            ("--b\r\n".to_owned(), pairs(&[])),
            ("--b".to_owned(), None),
            ("--\r\n".to_owned(), None),
            ("--\u{e9}\r\n".to_owned(), None),
            (format!("preamble\r\n--b\r\n{one}--"), None),
            (format!("--{}\r\n", "x".repeat(70)), pairs(&[])),
            (format!("--{}\r\n", "x".repeat(80)), None),
            (String::new(), None),
        ] {
            assert_eq!(read(body.as_bytes()), expected, "{body:?}");
        }
    }

    #[test]
    fn only_named_parts_without_a_file_are_fields() {
        let name = "form-data; name=\"a\"";
        let cases = [
            (format!("Content-Disposition: {name}\r\nContent-Type: application/json"), Some("a")),
            (format!("content-disposition:{name}"), Some("a")),
            ("Content-Disposition: FORM-DATA; NAME=a".to_owned(), Some("a")),
            ("Content-Disposition: form-data; x=\";\"; name = \"a;b\"".to_owned(), Some("a;b")),
            ("Content-Disposition: form-data; name=\"a\\\"b\"".to_owned(), Some("a\\\"b")),
            ("Content-Disposition: form-data; name=\"\u{e9}\"".to_owned(), Some("\u{e9}")),
            (format!("Content-Disposition: {name}; filename=\"a.txt\""), None),
            (format!("Content-Disposition: {name}; filename*=UTF-8''a"), None),
            ("Content-Disposition: attachment; name=\"a\"".to_owned(), None),
            ("Content-Disposition: form-data".to_owned(), None),
            ("Content-Disposition: form-data; name=\"a".to_owned(), None),
            ("Content-Disposition: form-data; name".to_owned(), None),
            ("Content-Type: text/plain".to_owned(), None),
            ("not a header".to_owned(), None),
            (format!("Content-Disposition: {name}{}", "\r\nX: y".repeat(16)), None),
        ];
        for (headers, expected) in cases {
            let body = format!("--b\r\n{}--", part(&headers, "1"));
            assert_eq!(read(body.as_bytes()), pairs(expected.map(|name| (name, "1")).as_slice()), "{body:?}");
        }
    }

    #[test]
    fn a_value_ends_only_at_a_whole_delimiter() {
        let head = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n";
        for value in ["", "\r\n", "x--b\r\n", "x\r\n--bc\r\ny", "x\r\n", "x\r\n--b-", "\0\u{feff}"] {
            let body = format!("{head}{value}\r\n--b--\r\nepilogue");
            assert_eq!(read(body.as_bytes()), pairs(&[("a", value)]), "{body:?}");
        }
    }

    #[test]
    fn parts_beyond_the_limit_are_not_read() {
        let one = part("Content-Disposition: form-data; name=\"a\"", "1") + "\r\n";
        let body = format!("--b\r\n{}--", one.repeat(MAX_PARTS + 1));
        assert_eq!(read(body.as_bytes()).map(|fields| fields.len()), Some(MAX_PARTS));
    }

    /// Changes, removes and inserts bytes in a valid body. The reader must not panic, and must find no more fields than parts.
    #[test]
    fn damaged_bodies_do_no_harm() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let one = part("Content-Disposition: form-data; name=\"a\"", "1") + "\r\n";
        let mut found = 0;
        for _ in 0..20_000 {
            let mut body = format!("--b\r\n{}--", one.repeat(3)).into_bytes();
            for _ in 0..random.usize(..4) {
                let at = random.usize(..body.len().max(1));
                match random.u8(..3) {
                    0 if at < body.len() => drop(body.remove(at)),
                    1 => body.insert(at, random.choice(b"-b\r\n\";=:\\\xff".iter().copied()).expect("some")),
                    _ => body.truncate(at + 1),
                }
            }
            let count = read(&body).map_or(0, |fields| fields.len());
            assert!(count <= 4, "{}", body.escape_ascii());
            found += count;
        }
        assert!(found > 10_000, "only {found} fields");
    }
}
