//! Follows the requests on an HTTP/1.1 connection, and finds two kinds of malformed requests that hyper accepts.
//!
//! hyper ends a line of a request head at a bare LF, and uses `Transfer-Encoding` if a head contains `Content-Length` as well.
//! A proxy in front of hookhold may read such a request in another way, and then takes the rest of one request for the next one
//! (request smuggling). hookhold therefore rejects both.
//!
//! The scanner reads the bytes that hyper will read, so it must find the same ends of heads and bodies. Every request whose end
//! the scanner cannot find is one that hyper rejects, and the scanner then reads no further.

use memchr::memchr;

/// Scanner of the bytes that arrive on one connection.
pub struct RequestScanner {
    part: RequestPart,
    line: PartialLine,
    framing: BodyFraming,
    /// Number of bytes since the start of the current request line, if the head is incomplete.
    head_bytes: usize,
}

/// A malformed request that hyper accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A line ends with LF instead of CR LF.
    #[error("request: expected lines that end with CR LF, found a bare LF; correct the sender or the proxy")]
    BareLineFeed,
    /// A head with both `Content-Length` and `Transfer-Encoding`.
    #[error("request head: expected Content-Length or Transfer-Encoding, found both; correct the sender or the proxy")]
    TwoLengths,
    /// A field that determines the length of a body, or the size of a chunk, longer than [`MAX_LINE_START`].
    #[error(
        "request: expected Content-Length, Transfer-Encoding and chunk sizes of at most {MAX_LINE_START} bytes, found a longer one; \
         correct the sender or the proxy"
    )]
    LongFraming,
}

/// Part of a request to which the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestPart {
    RequestLine,
    HeaderField,
    /// Body, with the number of bytes that are missing.
    Body(u64),
    ChunkSize,
    /// Data of a chunk and its line end, with the number of bytes that are missing.
    ChunkData(u64),
    Trailer,
    /// Rest of a connection on which hyper rejects a request.
    Rejected,
}

/// Header fields that determine the end of a body.
#[derive(Clone, Copy, Default)]
struct BodyFraming {
    has_content_length: bool,
    content_length: Option<u64>,
    has_transfer_encoding: bool,
    is_chunked: bool,
}

/// Beginning of a line whose end has not arrived.
#[derive(Default)]
struct PartialLine {
    /// The first bytes of the line, at most [`MAX_LINE_START`].
    start: Vec<u8>,
    /// True if the line is longer than `start`.
    is_cut: bool,
    /// The latest byte of the line; `None` if no byte has arrived.
    latest: Option<u8>,
}

impl RequestScanner {
    /// Creates a scanner for a new connection.
    pub fn new() -> RequestScanner {
        let (line, framing) = (PartialLine::default(), BodyFraming::default());
        RequestScanner { part: RequestPart::RequestLine, line, framing, head_bytes: 0 }
    }

    /// Returns the number of bytes of an incomplete request head that have arrived, or 0 outside of a request head.
    pub(super) fn head_bytes(&self) -> usize {
        if matches!(self.part, RequestPart::RequestLine | RequestPart::HeaderField) { self.head_bytes } else { 0 }
    }

    /// Returns the number of bytes that are missing in the current body or chunk, or 0 outside of a body.
    pub(super) fn missing_data(&self) -> u64 {
        match self.part {
            RequestPart::Body(missing) | RequestPart::ChunkData(missing) => missing,
            _ => 0,
        }
    }

    /// Returns true from the end of a request line to the end of this request.
    pub fn is_in_request(&self) -> bool {
        self.part != RequestPart::RequestLine
    }

    /// Reads the next bytes of the connection. The error contains the number of bytes that precede the malformed line. hyper may
    /// read these bytes, but no later ones.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<(), (usize, FramingError)> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.part {
                RequestPart::Rejected => return Ok(()),
                RequestPart::Body(missing) | RequestPart::ChunkData(missing) => {
                    let count = usize::try_from(*missing).unwrap_or(usize::MAX).min(rest.len());
                    *missing -= count as u64;
                    at += count;
                    self.part = self.part.after_data();
                }
                _ => match memchr(b'\n', rest) {
                    None => {
                        self.line.add(rest);
                        self.head_bytes += rest.len();
                        return Ok(());
                    }
                    Some(end) => {
                        if !self.is_other_field(&rest[..end]) {
                            self.end_line(&rest[..end]).map_err(|error| (at, error))?;
                        }
                        at += end + 1;
                        self.head_bytes = if self.part == RequestPart::HeaderField { self.head_bytes + end + 1 } else { 0 };
                    }
                },
            }
        }
        Ok(())
    }

    /// Returns true for a complete line of a head that cannot contain a field of [`BodyFraming`]. Most lines are such lines, and
    /// need no further work.
    fn is_other_field(&self, line: &[u8]) -> bool {
        let is_other = matches!(line, [first, .., b'\r'] if !matches!(first.to_ascii_lowercase(), b'c' | b't'));
        is_other && self.part == RequestPart::HeaderField && self.line.latest.is_none()
    }

    /// Handles the end of a line. `rest` contains the bytes of the line that the scanner has not read, without LF.
    fn end_line(&mut self, rest: &[u8]) -> Result<(), FramingError> {
        let line = std::mem::take(&mut self.line);
        let has_cr = rest.last().or(line.latest.as_ref()) == Some(&b'\r');
        let missing = (MAX_LINE_START - line.start.len()).min(rest.len());
        let is_cut = line.is_cut || missing < rest.len();
        let joined;
        let start = match line.latest {
            None => &rest[..missing],
            Some(_) => {
                joined = [&line.start, &rest[..missing]].concat();
                &joined
            }
        };
        let start = start.strip_suffix(b"\r").unwrap_or(start);
        // Some senders add a line end after a body, and hyper ignores it.
        let is_between_requests = self.part == RequestPart::RequestLine && start.is_empty();
        if !has_cr && !is_between_requests {
            return Err(FramingError::BareLineFeed);
        }
        self.part = match (self.part, start.is_empty()) {
            (RequestPart::RequestLine, false) => {
                self.framing = BodyFraming::default();
                RequestPart::HeaderField
            }
            (RequestPart::HeaderField, true) => self.framing.body()?,
            (RequestPart::HeaderField, false) => {
                self.framing.add(start, is_cut)?;
                RequestPart::HeaderField
            }
            (RequestPart::ChunkSize, _) if is_cut && start.iter().all(u8::is_ascii_hexdigit) => {
                return Err(FramingError::LongFraming);
            }
            (RequestPart::ChunkSize, _) => match chunk_size(start) {
                Some(0) => RequestPart::Trailer,
                Some(size) => RequestPart::ChunkData(size.saturating_add(LINE_END_BYTES)),
                None => RequestPart::Rejected,
            },
            (RequestPart::Trailer, true) => RequestPart::RequestLine,
            (part, _) => part,
        };
        Ok(())
    }
}

impl Default for RequestScanner {
    fn default() -> RequestScanner {
        RequestScanner::new()
    }
}

impl RequestPart {
    /// Returns the next part if the data of this part is complete.
    fn after_data(self) -> RequestPart {
        match self {
            RequestPart::Body(0) => RequestPart::RequestLine,
            RequestPart::ChunkData(0) => RequestPart::ChunkSize,
            part => part,
        }
    }
}

impl BodyFraming {
    /// Adds a header field. `is_cut` is true if the field is longer than `field`.
    fn add(&mut self, field: &[u8], is_cut: bool) -> Result<(), FramingError> {
        let Some(colon) = memchr(b':', field) else { return Ok(()) };
        let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.has_content_length = true;
            self.content_length = number(value, 10);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.has_transfer_encoding = true;
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            self.is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        } else {
            return Ok(());
        }
        if is_cut { Err(FramingError::LongFraming) } else { Ok(()) }
    }

    /// Returns the part of the request that follows the head.
    fn body(self) -> Result<RequestPart, FramingError> {
        match self {
            BodyFraming { has_content_length: true, has_transfer_encoding: true, .. } => Err(FramingError::TwoLengths),
            BodyFraming { has_transfer_encoding: true, is_chunked: true, .. } => Ok(RequestPart::ChunkSize),
            BodyFraming { has_transfer_encoding: true, .. } => Ok(RequestPart::Rejected),
            BodyFraming { content_length: Some(length), .. } => Ok(RequestPart::Body(length).after_data()),
            BodyFraming { has_content_length: true, .. } => Ok(RequestPart::Rejected),
            BodyFraming { .. } => Ok(RequestPart::RequestLine),
        }
    }
}

impl PartialLine {
    fn add(&mut self, part: &[u8]) {
        let missing = (MAX_LINE_START - self.start.len()).min(part.len());
        self.start.extend_from_slice(&part[..missing]);
        self.is_cut |= missing < part.len();
        self.latest = part.last().copied().or(self.latest);
    }
}

/// Returns the size at the start of a chunk, or `None` if there is none. Ignores chunk extensions, as hyper does.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    number(&line[..digits], 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_alphanumeric()))?;
    u64::from_str_radix(text, radix).ok()
}

const LINE_END_BYTES: u64 = 2;

/// Number of bytes of a line that the scanner stores, with the CR. A genuine field or chunk size that the scanner reads is shorter.
const MAX_LINE_START: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans the text in pieces of each size, and returns the error, which must not depend on the size.
    fn scan(text: &str) -> Result<(), (usize, FramingError)> {
        let whole = RequestScanner::new().scan(text.as_bytes());
        for size in 1..text.len() {
            let (mut scanner, mut at) = (RequestScanner::new(), 0);
            let mut pieces = text.as_bytes().chunks(size);
            let result = pieces.try_for_each(|piece| {
                let result = scanner.scan(piece).map_err(|(offset, error)| (at + offset, error));
                at += piece.len();
                result
            });
            assert_eq!(result.map_err(|(_, error)| error), whole.map_err(|(_, error)| error), "{text:?} in pieces of {size}");
            assert!(result.err().map(|(offset, _)| offset) >= whole.err().map(|(offset, _)| offset), "{text:?}");
        }
        whole
    }

    #[test]
    fn well_formed_requests_follow_one_another_without_errors() {
        let requests = [
            "GET / HTTP/1.1\r\nhost: h\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\n\n",
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3\r\n\n\n\n\r\nA ;x=y\r\n0123\n56789\r\n0\r\nx: y\r\n\r\n",
            "\r\n",
            "\n",
        ];
        for one in requests {
            for other in requests {
                assert_eq!(scan(&format!("{one}{other}GET / HTTP/1.1\r\n")), Ok(()));
            }
        }
    }

    #[test]
    fn a_bare_lf_is_found_in_each_part() {
        let (head, body) = ("POST / HTTP/1.1\r\n", "transfer-encoding: chunked\r\n\r\n");
        for (before, line) in [
            ("", "POST / HTTP/1.1\n"),
            (head, "host: h\n"),
            (&format!("{head}host: h\r\n"), "\n"),
            (&format!("{head}{body}"), "0\n"),
            (&format!("{head}{body}1\r\na\r\n0\r\n"), "x: y\n"),
            (&format!("{head}{body}1\r\na\r\n0\r\n"), "\n"),
            (&format!("{head}content-length: 2\r\n\r\n\n\n"), "GET / HTTP/1.1\n"),
            (&format!("{head}x: {}\r\n", "a".repeat(2 * MAX_LINE_START)), "x: y\n"),
            (head, &format!("x: {}\n", "a".repeat(2 * MAX_LINE_START))),
        ] {
            assert_eq!(scan(&format!("{before}{line}rest")), Err((before.len(), FramingError::BareLineFeed)), "{before}{line}");
        }
    }

    #[test]
    fn two_lengths_are_found_in_both_orders() {
        let (length, encoding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
        for fields in
            [format!("{length}{encoding}"), format!("{encoding}{length}"), format!("{length}x: y\r\n{encoding}{length}")]
        {
            let before = format!("POST / HTTP/1.1\r\n{fields}");
            assert_eq!(scan(&format!("{before}\r\n0\r\n\r\n")), Err((before.len(), FramingError::TwoLengths)), "{fields}");
        }
    }

    #[test]
    fn framing_that_the_scanner_cannot_read_completely_is_an_error() {
        let head = "POST / HTTP/1.1\r\n";
        let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
        let (spaces, zeros) = (" ".repeat(MAX_LINE_START), "0".repeat(MAX_LINE_START));
        for (before, line) in [
            (head, format!("Transfer-Encoding:{spaces}chunked")),
            (head, format!("content-length:{spaces}5")),
            (head, format!("content-length: {zeros}5")),
            (&chunked, format!("{zeros}5")),
        ] {
            let found = scan(&format!("{before}{line}\r\nrest"));
            assert_eq!(found, Err((before.len(), FramingError::LongFraming)), "{before}{line}");
        }
        for text in [format!("{head}x:{spaces}5\r\n\r\n"), format!("{chunked}5;{zeros}\r\nhello\r\n0;{zeros}\r\n\r\n")] {
            assert_eq!(scan(&text), Ok(()), "{text}");
        }
    }

    #[test]
    fn only_the_bytes_of_an_incomplete_head_count() {
        let (request, long) = ("POST / HTTP/1.1\r\nhost: h\r\n", format!("x: {}", "a".repeat(2 * MAX_LINE_START)));
        for (text, expected) in [
            ("", 0),
            ("\r\n", 0),
            ("PO", 2),
            (request, request.len()),
            (&format!("{request}{long}"), request.len() + long.len()),
            (&format!("{request}\r\n"), 0),
            (&format!("{request}\r\nPO"), 2),
            (&format!("{request}content-length: 3\r\n\r\n12"), 0),
            (&format!("{request}content-length: 3\r\n\r\n123POST"), 4),
            (&format!("{request}transfer-encoding: chunked\r\n\r\n{}", "1".repeat(9)), 0),
            (&format!("{request}transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y"), 0),
            (&format!("{request}transfer-encoding: chunked\r\n\r\n0\r\n\r\nP"), 1),
        ] {
            for size in 1..=text.len().max(1) {
                let mut scanner = RequestScanner::new();
                text.as_bytes().chunks(size).for_each(|piece| scanner.scan(piece).expect("well-formed"));
                assert_eq!(scanner.head_bytes(), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_missing_bytes_of_a_body_or_chunk_are_known() {
        let head = "POST / HTTP/1.1\r\nhost: h\r\n";
        for (rest, missing) in [
            ("", 0),
            ("content-length: 300\r\n\r\n", 300),
            ("content-length: 300\r\n\r\nabc", 297),
            ("transfer-encoding: chunked\r\n\r\n", 0),
            ("transfer-encoding: chunked\r\n\r\n12c\r\nabc", 299),
        ] {
            let mut scanner = RequestScanner::new();
            assert_eq!((scanner.scan(format!("{head}{rest}").as_bytes()), scanner.missing_data()), (Ok(()), missing), "{rest}");
        }
    }

    #[test]
    fn the_scanner_stops_where_hyper_rejects_a_request() {
        for fields in
            ["content-length: 5, 5", "content-length: -1", "transfer-encoding: gzip", "transfer-encoding: chunked, gzip"]
        {
            assert_eq!(scan(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\na\n")), Ok(()), "{fields}");
        }
        assert_eq!(scan("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nx\r\na\n"), Ok(()));
    }
}
