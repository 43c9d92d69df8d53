//! Parses a recorded request leniently: lines may end with LF instead of CRLF, the version may be HTTP/2 or HTTP/3, and the
//! body may be chunked.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// An HTTP request from a recording.
#[derive(Debug)]
pub(super) struct RecordedRequest {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    /// Body as the gateway reads it: without chunked framing, or cut to the length in the `Content-Length` header.
    pub(super) body: Bytes,
    /// Value of the `Content-Length` header, or `None` if the header is absent or not a number.
    pub(super) declared: Option<u64>,
}

/// Parses a file with a raw HTTP request, or the last request in a `curl --trace` file. Returns an error message if the request
/// is malformed.
pub(super) fn parse(file: &[u8]) -> Result<RecordedRequest, &'static str> {
    let raw = from_trace(file).unwrap_or_else(|| file.to_vec());
    let raw = as_http_1(&raw);
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut fields);
    let end = match head.parse(&raw) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => {
            return Err("expected an empty line after the headers, found the end of the file; add the line");
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err("expected at most 1000 headers, found more; remove headers that the sender did not sign");
        }
        Err(_) => {
            return Err("expected an HTTP request (POST /hooks/SOURCE HTTP/1.1, headers, an empty line and the body), \
                        found another format; see the ways to record a request in `hookhold doctor --help`");
        }
    };
    let mut headers = HeaderMap::new();
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| "expected HTTP headers, found a malformed name; record the request again")?;
        let value = HeaderValue::from_bytes(field.value)
            .map_err(|_| "expected HTTP headers, found a malformed value; record the request again")?;
        headers.append(name, value);
    }
    let method = Method::from_bytes(head.method.unwrap_or_default().as_bytes())
        .map_err(|_| "expected an HTTP method, found a malformed method; record the request again")?;
    let declared = content_length(&headers);
    let body = body(&headers, declared, &raw[end..]);
    Ok(RecordedRequest { method, target: head.path.unwrap_or_default().to_owned(), headers, body, declared })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn body(headers: &HeaderMap, declared: Option<u64>, rest: &[u8]) -> Bytes {
    let is_chunked = headers.get(header::TRANSFER_ENCODING).is_some_and(|value| value.as_bytes().ends_with(b"chunked"));
    if let Some(whole) = is_chunked.then(|| unchunked(rest)).flatten() {
        return whole.into();
    }
    let length = declared.map_or(rest.len(), |length| rest.len().min(usize::try_from(length).unwrap_or(usize::MAX)));
    Bytes::copy_from_slice(&rest[..length])
}

/// Decodes a chunked body. Returns `None` if the body is not in chunked format, for example because a proxy decoded the body
/// without removing the `Transfer-Encoding` header.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else { return None };
        let size = usize::try_from(size).ok()?;
        if size == 0 {
            return Some(whole);
        }
        let end = start.checked_add(size)?;
        whole.extend_from_slice(rest.get(start..end)?);
        rest = rest[end..].strip_prefix(b"\r\n")?;
    }
}

/// Replaces the version in an HTTP/2 or HTTP/3 request line with HTTP/1.1, because recorders write such requests in the
/// HTTP/1.1 format.
fn as_http_1(raw: &[u8]) -> Vec<u8> {
    let end = raw.iter().position(|byte| *byte == b'\n').unwrap_or(raw.len());
    let (line, rest) = raw.split_at(end);
    let plain = line.strip_suffix(b"\r").unwrap_or(line);
    match [&b" HTTP/2"[..], b" HTTP/2.0", b" HTTP/3"].iter().find_map(|version| plain.strip_suffix(*version)) {
        Some(start) => [start, b" HTTP/1.1\r", rest].concat(),
        None => raw.to_vec(),
    }
}

/// Extracts the last request from a `curl --trace` file (<https://curl.se/docs/manpage.html#--trace>). Returns `None` if the
/// file has another format.
fn from_trace(file: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(file).ok().filter(|text| text.contains("=> Send header, "))?;
    let (mut sent, mut is_ours) = (Vec::new(), false);
    let mut is_head = false;
    for line in text.lines() {
        if [" Send ", " Recv ", " Info"].iter().any(|word| line.contains(word)) && line.contains(['=', '<']) {
            let begins = line.contains("=> Send header, ");
            if begins && !is_head {
                sent.clear();
            }
            is_head = begins;
            is_ours = begins || line.contains("=> Send data, ");
        } else if is_ours {
            sent.extend(bytes_of(line)?);
        }
    }
    Some(sent)
}

/// Returns the bytes in a line of a `curl --trace` file, such as `0010: 48 6f 73 74 ...  Host`: an offset, at most 16 bytes in
/// hexadecimal, and the same bytes as text. Returns `None` for a line in another format.
fn bytes_of(line: &str) -> Option<Vec<u8>> {
    let (_, rest) = line.split_once(": ")?;
    let columns = rest.get(..HEX_COLUMNS).unwrap_or(rest);
    base16ct::mixed::decode_vec(columns.split_whitespace().collect::<String>()).ok()
}

/// Width of the hexadecimal columns in characters: 16 bytes, each with two digits and a space.
const HEX_COLUMNS: usize = 48;
const MAX_HEADERS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_parsed_in_every_recorded_form() {
        let trace = "== Info: Trying 127.0.0.1:1\n=> Send header, 46 bytes (0x2e)\n\
            0000: 50 4f 53 54 20 2f 78 20 48 54 54 50 2f 31 2e 31 POST /x HTTP/1.1\n\
            0010: 0d 0a 61 3a 20 62 0d 0a 0d 0a                   ..a: b....\n\
            => Send data, 3 bytes (0x3)\n0000: 7b 7d 0a                                        {}.\n\
            <= Recv header, 3 bytes (0x3)\n0000: 7b 7d 0a                                        {}.\n";
        for file in [
            "POST /x HTTP/1.1\r\na: b\r\n\r\n{}\n",
            "POST /x HTTP/1.1\na: b\n\n{}\n",
            "POST /x HTTP/2\r\na: b\r\n\r\n{}\n",
            "POST /x HTTP/1.1\r\na: b\r\ncontent-length: 3\r\n\r\n{}\n and the next one",
            "POST /x HTTP/1.1\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n1\r\n\n\r\n0\r\n\r\n",
            "POST /x HTTP/1.1\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n{}\n",
            trace,
        ] {
            let request = parse(file.as_bytes()).unwrap_or_else(|what| panic!("{what}: {file:?}"));
            assert_eq!((request.method, &*request.target), (Method::POST, "/x"), "{file:?}");
            assert_eq!(request.headers.get("a").map(HeaderValue::as_bytes), Some(&b"b"[..]), "{file:?}");
            assert_eq!(&*request.body, b"{}\n", "{file:?}");
        }
    }

    #[test]
    fn a_file_without_a_request_is_rejected() {
        for file in ["", "\n", "{}", "POST /x HTTP/1.1\r\na: b\r\n", "=> Send header, 1\nnothing", "\u{0}\u{1}", "a b c d\n\n"] {
            assert!(parse(file.as_bytes()).is_err(), "{file:?}");
        }
    }
}
