//! Malformed requests as raw bytes: HTTP/1.1 requests and HTTP/2 frames, with the answer and the outcomes that hookhold must give.

#![allow(dead_code, reason = "each test file uses a part of this")]

use crate::h2_frames::{ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PRIORITY_FLAG, RST_STREAM, SETTINGS};
use crate::h2_frames::{frame, literal};

/// Host name in every request.
pub const HOST: &str = "hooks.example.com";

/// A malformed HTTP/1.1 request.
pub struct MalformedRequest {
    /// Name of the case, which is also the value of `case` in the query of the request.
    pub name: String,
    pub bytes: Vec<u8>,
    /// Status of each response. hookhold then closes the connection.
    pub statuses: &'static [u16],
    /// Source and outcome of each request.
    pub outcomes: &'static [(&'static str, &'static str)],
}

const BAD: &[(&str, &str)] = &[("-", "bad_request")];
const BAD_BODY: &[(&str, &str)] = &[("stripe", "bad_request")];

/// Returns each malformed HTTP/1.1 request. The path of every request belongs to the source `stripe`.
pub fn http_1_requests() -> Vec<MalformedRequest> {
    let mut requests = Vec::new();
    let mut add = |name: &str, text: &str, statuses, outcomes| {
        let text = text.replace("TARGET", &format!("/hooks/stripe?case={name}")).replace("HOST", HOST);
        requests.push(MalformedRequest { name: name.to_owned(), bytes: text.into_bytes(), statuses, outcomes });
    };
    // A head, given as the lines after the request line, and what follows it.
    let bad_heads = [
        ("bare-lf-in-a-field", "Host: HOST\nContent-Length: 0\r\n\r\n"),
        ("bare-lf-at-the-end", "Host: HOST\r\nContent-Length: 0\r\n\n"),
        ("bare-lf-before-a-smuggled-field", "Host: HOST\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("no-host", "Content-Length: 0\r\n\r\n"),
        ("two-equal-hosts", "Host: HOST\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n"),
        ("two-hosts", "Host: HOST\r\nContent-Length: 0\r\nHost: evil.example\r\n\r\n"),
        ("host-with-a-space", "Host: HOST evil.example\r\nContent-Length: 0\r\n\r\n"),
        ("host-with-a-user", "Host: HOST@evil.example\r\nContent-Length: 0\r\n\r\n"),
        ("host-with-a-path", "Host: HOST/evil\r\nContent-Length: 0\r\n\r\n"),
        ("length-then-chunked", "Host: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("chunked-then-length", "Host: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        (
            "chunked-length-chunked",
            "Host: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "smuggled-behind-chunked",
            "Host: HOST\r\nContent-Length: 64\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hooks/stripe?inner HTTP/1.1\r\nHost: HOST\r\n\r\n",
        ),
        ("chunked-twice", "Host: HOST\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ("chunked-in-two-fields", "Host: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("gzip-only", "Host: HOST\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
        ("chunked-then-gzip", "Host: HOST\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ("xchunked", "Host: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("identity", "Host: HOST\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        ("vertical-tab-before-chunked", "Host: HOST\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        ("two-lengths", "Host: HOST\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"),
        ("length-list", "Host: HOST\r\nContent-Length: 5, 6\r\n\r\nhello"),
        ("equal-length-list", "Host: HOST\r\nContent-Length: 5, 5\r\n\r\nhello"),
        ("length-with-a-plus", "Host: HOST\r\nContent-Length: +5\r\n\r\nhello"),
        ("negative-length", "Host: HOST\r\nContent-Length: -1\r\n\r\n"),
        ("hexadecimal-length", "Host: HOST\r\nContent-Length: 0x5\r\n\r\nhello"),
        ("length-without-digits", "Host: HOST\r\nContent-Length:\r\n\r\n"),
        ("length-of-20-digits", "Host: HOST\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        ("space-before-the-colon", "Host: HOST\r\nContent-Length : 5\r\n\r\nhello"),
        ("space-before-the-colon-of-chunked", "Host: HOST\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("folded-field", "Host: HOST\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        ("folded-chunked", "Host: HOST\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        ("space-before-the-first-field", " Host: HOST\r\nContent-Length: 0\r\n\r\n"),
        ("field-without-a-colon", "Host: HOST\r\nContent-Length\r\n\r\n"),
        ("space-in-a-field-name", "Host: HOST\r\nX Y: z\r\nContent-Length: 0\r\n\r\n"),
        ("nul-in-a-value", "Host: HOST\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
        ("bare-cr-in-a-value", "Host: HOST\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n"),
    ];
    for (name, head) in bad_heads {
        add(name, &format!("POST TARGET HTTP/1.1\r\n{head}"), &[400], BAD);
    }
    for (name, head) in [
        ("gzip-then-chunked", "Host: HOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (
            "gzip-then-chunked-in-two-fields",
            "Host: HOST\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ] {
        add(name, &format!("POST TARGET HTTP/1.1\r\n{head}"), &[501], BAD);
    }
    let (spaces, zeros) = (" ".repeat(256), "0".repeat(256));
    for (name, field) in [
        ("chunked-behind-many-spaces", format!("Transfer-Encoding:{spaces}chunked\r\n\r\n0\r\n\r\n")),
        ("length-behind-many-zeros", format!("Content-Length: {zeros}5\r\n\r\nhello")),
    ] {
        add(name, &format!("POST TARGET HTTP/1.1\r\nHost: HOST\r\n{field}"), &[400], BAD);
    }
    for (name, text) in [
        ("bare-lf-in-each-line", "POST TARGET HTTP/1.1\nHost: HOST\nContent-Length: 0\n\n"),
        ("bare-lf-after-the-request-line", "POST TARGET HTTP/1.1\nHost: HOST\r\nContent-Length: 0\r\n\r\n"),
        ("chunked-in-http-1-0", "POST TARGET HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("http-2-0", "POST TARGET HTTP/2.0\r\nHost: HOST\r\n\r\n"),
        ("http-0-9", "GET TARGET\r\n"),
        ("preface-of-http-2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("parenthesis-in-the-method", "P(ST TARGET HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        ("space-in-the-target", "POST TARGET more HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        ("text-without-a-request", "hello\r\nhello\r\n\r\n"),
    ] {
        add(name, text, &[400], BAD);
    }
    let many = "X: y\r\n".repeat(101);
    add("too-many-fields", &format!("POST TARGET HTTP/1.1\r\nHost: HOST\r\n{many}\r\n"), &[431], BAD);
    let long = "y".repeat(40_000);
    add("head-too-large", &format!("POST TARGET HTTP/1.1\r\nHost: HOST\r\nX: {long}\r\n\r\n"), &[431], BAD);
    let target = "y".repeat(9_000);
    add(
        "target-too-long",
        &format!("POST TARGET&{target} HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n"),
        &[414],
        BAD_BODY,
    );
    let signature = format!("Stripe-Signature: t=1,v1={}\r\n", "0".repeat(64));
    for (name, body) in [
        ("chunk-size-with-0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("negative-chunk-size", "-1\r\nhello\r\n0\r\n\r\n"),
        ("chunk-size-of-17-digits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("chunk-size-behind-many-zeros", &format!("{zeros}5\r\nhello\r\n0\r\n\r\n")),
        ("chunk-longer-than-its-size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("bare-lf-in-an-extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("bare-lf-after-a-chunk-size", "5\nhello\r\n0\r\n\r\n"),
        ("bare-lf-in-a-trailer", "5\r\nhello\r\n0\r\nX: y\n\r\n"),
    ] {
        let text = format!("POST TARGET HTTP/1.1\r\nHost: HOST\r\n{signature}Transfer-Encoding: chunked\r\n\r\n{body}");
        add(name, &text, &[400], BAD_BODY);
    }
    let signed = format!("POST TARGET HTTP/1.1\r\nHost: HOST\r\n{signature}");
    let left = &[("stripe", "disconnected")];
    add("body-shorter-than-its-length", &format!("{signed}Content-Length: 6\r\n\r\nhello"), &[], left);
    add("chunks-without-an-end", &format!("{signed}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), &[], left);
    add("head-without-an-end", "POST TARGET HTTP/1.1\r\nHost: HOST\r\n", &[], &[("-", "disconnected")]);
    add(
        "body-longer-than-its-length",
        "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello, hello\r\n\r\n",
        &[401, 400],
        &[("stripe", "signature_missing"), ("-", "bad_request")],
    );
    requests
}

/// Malformed frames of an HTTP/2 connection. The test sends the preface, a SETTINGS frame and then these frames.
pub struct MalformedFrames {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub answer: StreamAnswer,
    /// Source and outcome of each request.
    pub outcomes: &'static [(&'static str, &'static str)],
}

/// First frame with which the server must answer the stream 1 or the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamAnswer {
    /// HEADERS with this status.
    Status(u16),
    /// RST_STREAM with this error code.
    Reset(u32),
    /// GOAWAY with this error code.
    GoAway(u32),
    /// No answer. The client has reset the stream or closes the connection.
    Nothing,
}

/// Error codes (RFC 9113, section 7).
pub const PROTOCOL_ERROR: u32 = 1;
pub const FRAME_SIZE_ERROR: u32 = 6;

/// Returns each list of malformed frames. The path of every request belongs to the source `stripe`.
pub fn http_2_frames() -> Vec<MalformedFrames> {
    let reset = StreamAnswer::Reset(PROTOCOL_ERROR);
    let go_away = StreamAnswer::GoAway(PROTOCOL_ERROR);
    let mut all = Vec::new();
    let mut add = |name, bytes: Vec<u8>, answer, outcomes| all.push(MalformedFrames { name, bytes, answer, outcomes });
    let post = fields(&[(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "/hooks/stripe")]);
    let signed = [&post[..], &literal("stripe-signature", &format!("t=1,v1={}", "0".repeat(64)))].concat();
    let head = |block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
    let open = |block: &[u8]| frame(HEADERS, END_HEADERS, 1, block);
    let with = |name: &str, value: &str| head(&[&post[..], &literal(name, value)].concat());
    for (name, field, value) in [
        ("connection", "connection", "close"),
        ("keep-alive", "keep-alive", "timeout=5"),
        ("proxy-connection", "proxy-connection", "keep-alive"),
        ("transfer-encoding", "transfer-encoding", "chunked"),
        ("upgrade", "upgrade", "h2c"),
        ("te-gzip", "te", "gzip"),
        ("upper-case-name", "X-Upper", "y"),
        ("lf-in-a-value", "x", "a\nb"),
        ("empty-name", "", "y"),
        ("second-path", ":path", "/hooks/stripe"),
        ("path-after-a-field", ":path", "/"),
        ("unknown-pseudo-field", ":unknown", "y"),
        ("status-in-a-request", ":status", "200"),
        ("length-that-is-no-number", "content-length", "+5"),
        ("length-without-a-body", "content-length", "5"),
    ] {
        let bytes = match name {
            "path-after-a-field" => {
                let block = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), ("x", "y"), (field, value)];
                head(&fields(&block))
            }
            _ => with(field, value),
        };
        // h2 cannot decode these names and values, and then ends the connection instead of the stream.
        let is_undecodable = ["upper-case-name", "lf-in-a-value", "empty-name", "unknown-pseudo-field"].contains(&name);
        add(name, bytes, if is_undecodable { go_away } else { reset }, BAD);
    }
    for (name, block) in [
        ("no-path", &[(":method", "POST"), (":scheme", "https"), (":authority", HOST)][..]),
        ("empty-path", &[(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "")]),
        ("no-method", &[(":scheme", "https"), (":authority", HOST), (":path", "/hooks/stripe")]),
        ("no-scheme", &[(":method", "POST"), (":authority", HOST), (":path", "/hooks/stripe")]),
        ("no-pseudo-fields", &[("x", "y")]),
        ("malformed-authority", &[(":method", "POST"), (":scheme", "https"), (":authority", "a b"), (":path", "/hooks/stripe")]),
    ] {
        add(name, head(&fields(block)), reset, BAD);
    }
    let bad_request = StreamAnswer::Status(400);
    let absolute =
        [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "https://evil.example/hooks/stripe")];
    add("absolute-path", head(&fields(&absolute)), reset, BAD);
    add("two-hosts", head(&[&post[..], &literal("host", HOST), &literal("host", HOST)].concat()), bad_request, BAD);
    add("host-other-than-authority", with("host", "evil.example"), bad_request, BAD);
    let no_authority = [(":method", "POST"), (":scheme", "https"), (":path", "/hooks/stripe")];
    add("no-authority", head(&fields(&no_authority)), bad_request, BAD);
    let many: Vec<u8> = (0..101).flat_map(|_| literal("x", "y")).collect();
    add("too-many-fields", head(&[&post[..], &many].concat()), StreamAnswer::Status(431), BAD);
    let large: Vec<u8> = (0..90).flat_map(|_| literal("x", &"y".repeat(1000))).collect();
    let block = [&post[..], &large].concat();
    let mut pieces = block.chunks(16_000);
    let mut oversized = frame(HEADERS, END_STREAM, 1, pieces.next().expect("a block"));
    let pieces: Vec<&[u8]> = pieces.collect();
    for (index, piece) in pieces.iter().enumerate() {
        let flags = if index + 1 == pieces.len() { END_HEADERS } else { 0 };
        oversized.extend(frame(CONTINUATION, flags, 1, piece));
    }
    add("oversized-header-list", oversized, StreamAnswer::Status(431), BAD);
    let sized = [&signed[..], &literal("content-length", "5")].concat();
    add("body-longer-than-its-length", [open(&sized), frame(DATA, END_STREAM, 1, b"hello!")].concat(), reset, BAD_BODY);
    add("body-shorter-than-its-length", [open(&sized), frame(DATA, END_STREAM, 1, b"hell")].concat(), reset, BAD_BODY);
    let two = [&sized[..], &literal("content-length", "6")].concat();
    add("two-lengths", open(&two), reset, BAD);
    let cancel = frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    add("head-and-reset", [open(&signed), cancel.clone()].concat(), StreamAnswer::Nothing, &[("stripe", "disconnected")]);
    add("malformed-head-and-reset", [with("connection", "close"), cancel].concat(), StreamAnswer::Nothing, BAD);
    add("data-after-the-end", [head(&signed), frame(DATA, END_STREAM, 1, b"x")].concat(), go_away, BAD);
    add("malformed-compression", head(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), go_away, BAD);
    add("even-stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &post), go_away, BAD);
    add("head-on-stream-0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &post), go_away, BAD);
    add("data-on-an-idle-stream", frame(DATA, END_STREAM, 1, b"x"), go_away, BAD);
    add("continuation-without-a-head", frame(CONTINUATION, END_HEADERS, 1, &post), go_away, BAD);
    add("frame-within-a-head", [frame(HEADERS, 0, 1, &post), frame(SETTINGS, ACK, 0, b"")].concat(), go_away, BAD);
    add("frame-too-large", frame(HEADERS, END_HEADERS, 1, &[0; 20_000]), StreamAnswer::GoAway(FRAME_SIZE_ERROR), BAD);
    add("settings-of-5-bytes", frame(SETTINGS, 0, 0, &[0; 5]), go_away, BAD);
    let itself = [&1_u32.to_be_bytes()[..], &[16], &post].concat();
    let depends = frame(HEADERS, END_HEADERS | END_STREAM | PRIORITY_FLAG, 1, &itself);
    add("stream-that-depends-on-itself", depends, reset, BAD);
    let connect = [(":method", "CONNECT"), (":authority", HOST), ("content-length", "5")];
    add("connect-with-a-body", open(&fields(&connect)), StreamAnswer::Nothing, BAD);
    all
}

fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    list.iter().flat_map(|(name, value)| literal(name, value)).collect()
}
