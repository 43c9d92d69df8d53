//! The list of attacks, as bytes of HTTP/1.1, TLS and HTTP/2.

use bytes::Bytes;

use crate::h2_frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, frame, literal, opening};
use crate::sender::{Attack, Step, Transport};

const PING: u8 = 6;
const INDEXED: u8 = 0x80;
/// Indices of `:method: POST` and `:scheme: https` in the static table.
const METHOD_AND_SCHEME: [u8; 2] = [INDEXED | 3, INDEXED | 7];
const SIGNATURE: &str = "x-hub-signature-256";
/// Index of the first of the fields that [`first_head`] adds to the dynamic table.
const FIRST_DYNAMIC: u8 = 62;

/// Returns all attacks.
pub fn all() -> Vec<Attack> {
    [over_http_1(), over_tls(), over_http_2_heads(), over_http_2_streams()].into_iter().flatten().collect()
}

fn over_http_1() -> Vec<Attack> {
    let attack = |name, connections, script| Attack { name, transport: Transport::Tcp, connections, server: "", script };
    let long_field = format!("x: {}\r\n", "a".repeat(28_000));
    let fields: String = (0..1_000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let post = |fields: &str| format!("POST /hooks/github HTTP/1.1\r\nhost: h\r\n{SIGNATURE}: {}\r\n{fields}\r\n", signature());
    let chunked = post("transfer-encoding: chunked\r\n");
    let unknown = "GET /unknown HTTP/1.1\r\nhost: h\r\n\r\n";
    vec![
        attack("idle connections", 10_000, vec![Step::Read]),
        attack("idle connections after a request", 10_000, vec![send(unknown), Step::Read]),
        attack(
            "idle connections after a large head",
            2_500,
            vec![send(unknown.replace("\r\n\r\n", &format!("\r\n{long_field}\r\n"))), Step::Read],
        ),
        attack("incomplete heads of 28 KB", 2_500, vec![send(format!("POST / HTTP/1.1\r\n{long_field}")), Step::Read]),
        attack("heads with 1,000 fields", 5_000, vec![send(post(&fields)), Step::Read]),
        attack("dripping heads", 5_000, vec![send("POST / HTTP/1.1\r\nx: "), drip(vec![b'a'; 500])]),
        attack(
            "dripping bodies",
            2_500,
            vec![send([post("content-length: 1000000\r\n").into_bytes(), vec![b'a'; 60_000]].concat()), drip(vec![b'a'; 500])],
        ),
        attack(
            "dripping chunks of one byte",
            1_000,
            vec![send(format!("{chunked}{}", "1\r\na\r\n".repeat(10_000))), drip("1\r\na\r\n".repeat(100))],
        ),
        attack(
            "dripping trailers",
            1_000,
            vec![send(format!("{chunked}1\r\na\r\n0\r\nx: {}", "a".repeat(28_000))), drip(vec![b'a'; 500])],
        ),
        attack("pipelined garbage", 2_500, vec![send(unknown), Step::Repeat(16, vec![b'a'; 8_192].into())]),
        attack(
            "pipelined requests, responses not read",
            1_000,
            vec![Step::NarrowWindow, Step::Repeat(200, unknown.repeat(100).into())],
        ),
    ]
}

fn over_tls() -> Vec<Attack> {
    let hello = |length: usize| {
        let record = |fragment: &[u8]| [&[22, 3, 1][..], &(fragment.len() as u16).to_be_bytes(), fragment].concat();
        let message = [&[1, 0, 0xff, 0xf0][..], &vec![0; length]].concat();
        message.chunks(16_384).map(record).collect::<Vec<_>>().concat()
    };
    let attack = |name, transport, connections, script| Attack { name, transport, connections, server: "", script };
    let partial_record = [&[23, 3, 3, 0x40, 0][..], &[0; 16_000]].concat();
    vec![
        attack("TLS handshakes without a request", Transport::Tls("h2"), 2_000, vec![Step::Read]),
        attack("incomplete TLS handshakes", Transport::TcpToTls, 2_500, vec![send(hello(60_000)), Step::Read]),
        attack("incomplete TLS records", Transport::Tls("http/1.1"), 1_500, vec![raw(partial_record), Step::Read]),
    ]
}

fn over_http_2_heads() -> Vec<Attack> {
    let attack = |name, connections, script| Attack { name, transport: Transport::Tls("h2"), connections, server: "", script };
    let streams = |count: u32, flags: u8| -> Vec<u8> {
        (1..count).flat_map(|n| frame(HEADERS, END_HEADERS | flags, 2 * n + 1, &indexed_head(100))).collect()
    };
    let burst = |path: &str, flags| [opening(), first_head(path, flags), streams(100, flags)].concat();
    let split = [frame(HEADERS, 0, 3, &indexed_head(900)), frame(CONTINUATION, 0, 3, &[])].concat();
    let oversized: Vec<u8> = (1..100).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &indexed_head(3_000))).collect();
    vec![
        attack("indexed heads, 100 connections", 100, vec![send(burst("/hooks/github", 0)), Step::Read]),
        attack("indexed heads, 1,000 connections", 1_000, vec![send(burst("/hooks/github", 0)), Step::Read]),
        attack("indexed heads to an unknown path", 1_000, vec![send(burst("/unknown", END_STREAM)), Step::Read]),
        attack(
            "heads of 1,000 fields in several frames",
            1_000,
            vec![send([opening(), first_head("/hooks/github", 0), split.clone()].concat()), Step::Read],
        ),
        attack(
            "CONTINUATION frames without an end",
            200,
            vec![
                send([opening(), first_head("/hooks/github", 0), split].concat()),
                Step::Repeat(100, frame(CONTINUATION, 0, 3, &indexed_head(900)).into()),
                Step::Read,
            ],
        ),
        attack(
            "heads above the size limit",
            200,
            vec![send([opening(), first_head("/hooks/github", 0), oversized].concat()), Step::Read],
        ),
        attack(
            "dripping heads over HTTP/2",
            1_500,
            vec![send([opening(), frame(HEADERS, END_HEADERS, 1, &[0; 16_384])[..16_000].to_vec()].concat()), drip(vec![0; 1])],
        ),
    ]
}

fn over_http_2_streams() -> Vec<Attack> {
    let attack = |name, connections, script| Attack { name, transport: Transport::Tls("h2"), connections, server: "", script };
    let start = |path| [opening(), first_head(path, 0)].concat();
    let others = |frames: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> { (1..100).flat_map(|n| frames(2 * n + 1)).collect() };
    let open = |stream| frame(HEADERS, END_HEADERS, stream, &indexed_head(1));
    let reset = |stream| [open(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat();
    let pairs: Vec<Step> = (1..2_000).map(|n| send(reset(2 * n + 1))).collect();
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let challenge = format!("{{\"type\":\"check\",\"challenge\":\"{}\"}}", "a".repeat(15_000));
    let ask = |stream| {
        let body = frame(DATA, END_STREAM, stream, challenge.as_bytes());
        [frame(HEADERS, END_HEADERS, stream, &indexed_head(1)), body].concat()
    };
    let asks = || vec![send([start("/hooks/echo"), no_window.clone()].concat()), send(others(&ask))];
    let small = |stream| frame(DATA, 0, stream, b"a").repeat(100);
    let trailers = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &indexed_head(900)[4..]);
    vec![
        attack("rapid reset", 200, [vec![send(start("/hooks/github")), Step::Read], pairs.clone()].concat()),
        attack(
            "rapid reset in one piece",
            200,
            vec![send([start("/hooks/github"), (1..2_000).flat_map(|n| reset(2 * n + 1)).collect()].concat()), Step::Read],
        ),
        attack("responses without a window", 200, [asks(), vec![Step::Read]].concat()),
        attack(
            "responses not read",
            200,
            [vec![Step::NarrowWindow], vec![send(start("/hooks/echo")), send(others(&ask))]].concat(),
        ),
        attack(
            "dripping bodies over HTTP/2",
            500,
            vec![send([start("/hooks/github"), others(&open)].concat()), drip(others(&|stream| frame(DATA, 0, stream, b"a")))],
        ),
        attack(
            "DATA frames of one byte",
            500,
            vec![send([start("/hooks/github"), others(&open)].concat()), Step::Repeat(10, others(&small).into()), Step::Read],
        ),
        attack(
            "large bodies without a read response",
            500,
            vec![
                send([start("/hooks/github"), others(&open)].concat()),
                send(others(&|stream| frame(DATA, 0, stream, &[b'a'; 10_000]))),
            ],
        ),
        attack(
            "large trailers",
            500,
            vec![send([start("/hooks/github"), others(&open)].concat()), send(others(&trailers)), Step::Read],
        ),
        Attack {
            server: "server.max_rejected_per_address = \"1/h\"\n",
            ..attack(
                "bodies of limited senders over HTTP/2",
                500,
                vec![
                    send(start("/unknown")),
                    send(others(&|stream| [open(stream), frame(DATA, 0, stream, &[b'a'; 10_000])].concat())),
                    Step::Read,
                ],
            )
        },
        attack(
            "PING and SETTINGS floods",
            100,
            vec![
                send(opening()),
                Step::Repeat(
                    200,
                    [frame(PING, 0, 0, &[0; 8]).repeat(100), frame(SETTINGS, 0, 0, &[]).repeat(100)].concat().into(),
                ),
            ],
        ),
    ]
}

/// Returns the head of the first stream. It adds its fields to the dynamic table, so that each later head needs one byte for each
/// field.
fn first_head(path: &str, flags: u8) -> Vec<u8> {
    let add = |field: &[u8]| -> Vec<u8> { [&[0x40], &field[1..]].concat() };
    let request = [add(&literal(":path", path)), add(&literal(":authority", "h"))].concat();
    let fields = [request, add(&literal(SIGNATURE, &signature())), add(&literal("x", ""))].concat();
    frame(HEADERS, END_HEADERS | flags, 1, &[&METHOD_AND_SCHEME, &fields[..]].concat())
}

/// Returns the fields of a later head: those of the first head, and its last field many times.
fn indexed_head(fields: usize) -> Vec<u8> {
    let [field, signature, authority, path] = [0, 1, 2, 3].map(|n| INDEXED | (FIRST_DYNAMIC + n));
    [&METHOD_AND_SCHEME, &[path, authority, signature][..], &vec![field; fields]].concat()
}

/// Returns a signature that hookhold can disprove only when it has read the body.
fn signature() -> String {
    format!("sha256={}", "0".repeat(64))
}

fn send(bytes: impl Into<Bytes>) -> Step {
    Step::Send(bytes.into())
}

fn raw(bytes: impl Into<Bytes>) -> Step {
    Step::SendRaw(bytes.into())
}

fn drip(bytes: impl Into<Bytes>) -> Step {
    Step::Drip(bytes.into())
}
