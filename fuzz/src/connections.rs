//! Fuzz targets of whole connections. Each target runs hookhold's server on an in-memory stream, and checks that every request has
//! exactly one outcome. The runtime has a paused clock, so a timeout passes as soon as the server waits for nothing else.
//!
//! No source of these targets stores an event, because a commit takes real time: the deliveries are either filtered or not signed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hookhold::clock::SystemClock;
use hookhold::gateway::Gateway;
use hookhold::journal::{Journal, Options};
use hookhold::limits::{AdminLimits, JournalLimits, ServerLimits};
use hookhold::metrics::Metrics;
use hookhold::outcome::Outcome;
use hookhold::rejections::RejectionWork;
use hookhold::server::{ConnectionServer, FramingError, KnownSendersFile, Proxies, RequestScanner, Server, Shutdown};
use hookhold::source::Source;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::runtime::Runtime;
use tokio::task::yield_now;

use crate::disk::SimDisk;
use crate::targets::compile_as;

/// Sends the bytes to hookhold's HTTP/1.1 server. The first byte chooses the size of the pieces, and whether the client then closes
/// the connection or waits. Checks that hyper and the scanner find the same requests, that each request has one outcome and one
/// response, and that the gateway receives the bodies that hyper has decoded.
pub fn http1(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let (scanned, stop) = scan(bytes);
    let readable = stop.map_or(bytes, |(end, _)| &bytes[..end]);
    let expected = serve_with_hyper(readable, stop.map(|(_, error)| error));
    let found = expected.ends();
    assert!(scanned.starts_with(&found), "hyper finds requests that end at {found:?}, the scanner at {scanned:?}");
    assert!(
        !expected.has_reached_end || found == scanned,
        "hyper finds requests that end at {found:?}, the scanner at {scanned:?}"
    );

    let gateway = TestGateway::new();
    let output = gateway.serve(first, bytes, Protocol::Http1);
    let outcomes = gateway.outcomes();
    let responses = responses(&output, &expected);
    let disconnected = outcomes.get("disconnected").copied().unwrap_or_default();
    let total: u64 = outcomes.values().sum();
    let answered = responses.len() as u64;
    // hyper sends no response if the preface of HTTP/2 follows a request.
    let unanswered = total.checked_sub(answered + disconnected);
    let unanswered = unanswered.unwrap_or_else(|| panic!("more responses than outcomes: {outcomes:?} {responses:?}"));
    let has_preface = bytes.windows(PREFACE.len()).any(|window| window == PREFACE);
    assert!(unanswered == 0 || (unanswered == 1 && has_preface), "{outcomes:?} {responses:?}");
    assert!(disconnected <= 1, "{outcomes:?}");
    // hyper reports no error if the first line of a head is malformed, because it has then received no part of this head.
    let has_malformed_head = expected.rejects_head || (stop.is_some() && !expected.ends_in_body);
    let begun = expected.requests.len() as u64 + u64::from(has_malformed_head);
    // Whether hyper rejects a CR without LF before a head depends on the pieces in which it reads.
    let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let most = begun + u64::from(bytes[found.last().copied().unwrap_or_default()..].iter().all(is_line_end));
    match responses.iter().position(|response| response.closes) {
        Some(at) => assert!(at as u64 + 1 == total && total <= most, "{outcomes:?} {responses:?}, of {begun} requests"),
        None => assert_eq!(total, begun, "{outcomes:?} {responses:?}"),
    }
    if unanswered == 0 {
        compare_statuses(&responses, &outcomes);
    }
    let mut bodies = expected.requests.iter().filter_map(|request| request.body.as_ref());
    for received in gateway.rejected_bodies() {
        assert!(bodies.any(|body| **body == received), "the gateway has received a body that hyper has not decoded");
    }
}

/// Sends the bytes to hookhold's HTTP/2 server, after the opening of a connection. The first byte chooses the size of the pieces,
/// whether the client then closes the connection or waits, and whether the bytes are frames or descriptions of frames. Checks that
/// each request head has one outcome.
pub fn http2_heads(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let frames = if first & DESCRIBED != 0 { described_frames(rest) } else { rest.to_vec() };
    let opening = if first & UNOPENED != 0 { Vec::new() } else { [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat() };
    let bytes = [opening, frames].concat();
    let gateway = TestGateway::new();
    let output = gateway.serve(first, &bytes, Protocol::Http2);
    let outcomes = gateway.outcomes();
    let total: u64 = outcomes.values().sum();
    let sent = heads(&bytes);
    let count = sent.complete.len() as u64;
    let answer = answers(&output);
    let is_open = bytes.starts_with(PREFACE) && !answer.has_failed;
    match is_open {
        // The server closes the connection after the responses, and reads no further heads.
        true if sent.before_goaway.is_some_and(|before| before < sent.complete.len() || sent.is_partial) => {
            let least = sent.before_goaway.unwrap_or_default() as u64;
            assert!((least..=count + u64::from(sent.is_partial)).contains(&total), "{outcomes:?} {sent:?}");
        }
        true => assert_eq!(total, count + u64::from(sent.is_partial), "{outcomes:?} {sent:?}"),
        // The server may have stopped before it has read the last heads.
        // A violation of the protocol that belongs to no complete head has an outcome of its own.
        false => {
            let is_violation = answer.has_failed && sent.before_goaway.is_none();
            assert!(total <= count + 1 && (total >= 1 || !is_violation), "{outcomes:?} {sent:?}");
        }
    }
    let disconnected = outcomes.get("disconnected").copied().unwrap_or_default();
    assert!(answer.streams.len() as u64 + disconnected <= total, "{outcomes:?} {answer:?}");
    assert!(answer.streams.iter().all(|stream| sent.complete.contains(stream)), "{answer:?} {sent:?}");
}

/// A gateway with a server, and the metrics that count its outcomes.
struct TestGateway {
    runtime: Runtime,
    server: ConnectionServer,
    gateway: Arc<Gateway>,
    shared: &'static SharedJournal,
    before: BTreeMap<&'static str, u64>,
}

/// The parts of the gateway that all inputs share, because they take long to create.
struct SharedJournal {
    journal: Journal,
    sources: Vec<Arc<Source>>,
    metrics: Arc<Metrics>,
}

enum Protocol {
    Http1,
    Http2,
}

/// Absent file of known-good addresses.
struct NoFile;

impl KnownSendersFile for NoFile {
    fn read(&self, _: usize) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn write(&self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl TestGateway {
    fn new() -> TestGateway {
        static SHARED: OnceLock<SharedJournal> = OnceLock::new();
        let shared = SHARED.get_or_init(SharedJournal::open);
        let sources = shared.sources.iter().cloned();
        let gateway = Arc::new(Gateway::new(sources, shared.journal.clone(), 1000, &shared.metrics));
        gateway.rejections().set_limits(AdminLimits { keep_rejected: REJECTION_BYTES, ..AdminLimits::default() });
        let server = Server {
            gateway: gateway.clone().into(),
            limits: limits(),
            tls: None,
            proxies: Proxies::default(),
            known_senders: Arc::new(NoFile),
            clock: Arc::new(SystemClock),
            metrics: shared.metrics.clone(),
            watcher: None,
        };
        let (runtime, before) = (runtime(), shared.outcomes());
        let server = runtime.block_on(async { ConnectionServer::new(server, Shutdown::new()) });
        TestGateway { runtime, server, gateway, shared, before }
    }

    /// Sends the bytes over one connection, and returns what the server has sent.
    fn serve(&self, first: u8, bytes: &[u8], protocol: Protocol) -> Vec<u8> {
        self.runtime.block_on(async {
            let (client, stream) = duplex(STREAM_BYTES);
            let served = async {
                match protocol {
                    Protocol::Http1 => self.server.serve_http_1(stream, CLIENT).await,
                    Protocol::Http2 => self.server.serve_http_2(stream, CLIENT).await,
                }
            };
            tokio::join!(send(client, first, bytes), served).0
        })
    }

    /// Returns the outcomes since the start of this input, each with its count.
    fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let mut outcomes = self.shared.outcomes();
        for (outcome, count) in &mut outcomes {
            *count -= self.before[outcome];
        }
        outcomes.retain(|_, count| *count > 0);
        outcomes
    }

    /// Returns the bodies of the deliveries with a wrong signature that the gateway has sampled, the oldest first.
    fn rejected_bodies(&self) -> Vec<Vec<u8>> {
        let queue = self.gateway.rejections().queue();
        let (mut bodies, mut has_seen_limits) = (Vec::new(), false);
        loop {
            match queue.next(Duration::ZERO) {
                Some(RejectionWork::Store(rejected)) if rejected.outcome == Outcome::SignatureMismatch => {
                    let end = find(&rejected.request, b"\r\n\r\n").expect("a request has a head");
                    bodies.push(rejected.request[end + 4..].to_vec());
                }
                Some(RejectionWork::Store(_)) => {}
                // The first one announces the limits, and the second one says that the queue is empty.
                Some(RejectionWork::Tidy) if !has_seen_limits => has_seen_limits = true,
                Some(RejectionWork::Tidy) | None => return bodies,
            }
        }
    }
}

impl SharedJournal {
    fn open() -> SharedJournal {
        let metrics = Arc::new(Metrics::new());
        let disk = SimDisk::default().start();
        let limits = JournalLimits { max_size: 64 << 20, segment_size: 1 << 20, ..JournalLimits::default() };
        let options = Options { limits, ..Options::default() };
        let journal = Journal::open(disk, options, Arc::new(SystemClock), metrics.clone());
        let journal = journal.unwrap_or_else(|error| panic!("{error}"));
        let sources = SOURCES.iter().map(|(name, entry)| compile_as(name, entry)).collect();
        SharedJournal { journal, sources, metrics }
    }

    fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let count = |outcome: &Outcome| {
            let names = SOURCES.iter().map(|(name, _)| *name).chain(["-"]);
            names.map(|name| self.metrics.deliveries.total.with_label_values(&[name, outcome.word()]).get()).sum()
        };
        Outcome::ALL.iter().map(|outcome| (outcome.word(), count(outcome))).collect()
    }
}

/// Sends the bytes in pieces, and returns the server's bytes.
async fn send(client: DuplexStream, first: u8, bytes: &[u8]) -> Vec<u8> {
    let (mut from_server, mut to_server) = tokio::io::split(client);
    let size = PIECES[usize::from(first) % PIECES.len()];
    let sent = async {
        for piece in bytes.chunks(size) {
            // The server may have closed the connection.
            if to_server.write_all(piece).await.is_err() {
                break;
            }
            yield_now().await;
        }
        if first & WAITS == 0 {
            let _ = to_server.shutdown().await;
        }
        to_server
    };
    let received = async {
        let mut output = Vec::new();
        from_server.read_to_end(&mut output).await.expect("an in-memory stream is readable");
        output
    };
    tokio::join!(sent, received).1
}

/// Returns the end of each request that the scanner finds, and the first byte that hyper must not read, with the reason.
fn scan(bytes: &[u8]) -> (Vec<usize>, Option<(usize, FramingError)>) {
    let stop = RequestScanner::new().scan(bytes).err();
    let (mut scanner, mut ends) = (RequestScanner::new(), Vec::new());
    for (at, byte) in bytes.iter().enumerate() {
        let was_in_request = scanner.is_in_request();
        if let Err((_, error)) = scanner.scan(&[*byte]) {
            let (line, expected) = stop.expect("the pieces do not change the result");
            assert!(error == expected && line <= at, "the scanner finds another error in single bytes");
            return (ends, stop);
        }
        if was_in_request && !scanner.is_in_request() {
            ends.push(at + 1);
        }
    }
    assert!(stop.is_none(), "the scanner misses an error in single bytes");
    (ends, None)
}

/// The requests that hyper finds on a connection.
struct HyperRun {
    requests: Vec<HyperRequest>,
    /// True if hyper rejects a head after these requests, or if the connection ends within a head.
    rejects_head: bool,
    /// True if the connection ends within a body, or if hyper rejects a body.
    ends_in_body: bool,
    /// True if hyper has read all bytes and has rejected none of them.
    has_reached_end: bool,
}

struct HyperRequest {
    method: Method,
    /// The body; `None` if the body is incomplete or malformed.
    body: Option<Bytes>,
    /// Position of the first byte after the body.
    end: usize,
}

/// Serves the connection with hyper alone, which reads one byte at a time and then reaches the end of the connection or `stop`.
fn serve_with_hyper(bytes: &[u8], stop: Option<FramingError>) -> HyperRun {
    let requests = Rc::new(RefCell::new(Vec::new()));
    let position = Rc::new(RefCell::new(0));
    let io = SingleBytes { bytes: bytes.to_vec(), position: position.clone(), stop };
    let (limits, found, at) = (limits(), requests.clone(), position.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (found, at) = (found.clone(), at.clone());
        async move {
            let method = request.method().clone();
            let index = found.borrow().len();
            found.borrow_mut().push(HyperRequest { method, body: None, end: 0 });
            let body = request.into_body().collect().await?.to_bytes();
            let request = &mut found.borrow_mut()[index];
            (request.body, request.end) = (Some(body), *at.borrow());
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok::<_, hyper::Error>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.half_close(true).header_read_timeout(None).max_header_size(limits.max_header_size).max_headers(limits.max_headers);
    let result = runtime().block_on(http.serve_connection(TokioIo::new(io), service));
    let requests = std::mem::take(&mut *requests.borrow_mut());
    let in_body = requests.last().is_some_and(|request: &HyperRequest| request.body.is_none());
    let is_rejected = in_body || result.as_ref().is_err_and(hyper::Error::is_parse);
    let has_reached_end = *position.borrow() == bytes.len() && !is_rejected;
    HyperRun { requests, rejects_head: result.is_err() && !in_body, ends_in_body: in_body, has_reached_end }
}

impl HyperRun {
    /// Returns the position after each complete request.
    fn ends(&self) -> Vec<usize> {
        self.requests.iter().filter(|request| request.body.is_some()).map(|request| request.end).collect()
    }
}

/// One response of HTTP/1.1.
#[derive(Debug)]
struct Http1Response {
    status: u16,
    closes: bool,
}

/// Reads the final responses. The method of a request determines whether its response has a body.
fn responses(mut output: &[u8], expected: &HyperRun) -> Vec<Http1Response> {
    let mut answers = Vec::new();
    while !output.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(size)) = head.parse(output) else { panic!("the server sends a malformed response") };
        let status = head.code.expect("a complete head has a status");
        let value = |name: &str| head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
        let length = value("content-length").map_or(0, |text| str::from_utf8(text).expect("ASCII").parse().expect("a number"));
        let is_head = expected.requests.get(answers.len()).is_some_and(|request| request.method == Method::HEAD);
        // Without `keep-alive`, a response of HTTP/1.0 is the last one.
        let connection = value("connection").unwrap_or_default();
        let closes = connection == b"close" || (head.version == Some(0) && connection != b"keep-alive");
        output = &output[size + if is_head { 0 } else { length }..];
        if status != 100 {
            answers.push(Http1Response { status, closes });
        }
    }
    answers
}

/// Checks that the statuses of the responses are the statuses of the outcomes.
fn compare_statuses(responses: &[Http1Response], outcomes: &BTreeMap<&'static str, u64>) {
    let mut expected: BTreeMap<u16, u64> = BTreeMap::new();
    for outcome in Outcome::ALL.iter().filter(|outcome| **outcome != Outcome::Disconnected) {
        if let Some(count) = outcomes.get(outcome.word()) {
            *expected.entry(outcome.status().as_u16()).or_default() += count;
        }
    }
    let mut found: BTreeMap<u16, u64> = BTreeMap::new();
    for response in responses {
        let status = if matches!(response.status, 414 | 431 | 501) { 400 } else { response.status };
        *found.entry(status).or_default() += 1;
    }
    assert_eq!(found, expected);
}

/// Stream that contains the bytes and returns them one at a time.
struct SingleBytes {
    bytes: Vec<u8>,
    position: Rc<RefCell<usize>>,
    stop: Option<FramingError>,
}

impl AsyncRead for SingleBytes {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut position = self.position.borrow_mut();
        match (self.bytes.get(*position), self.stop) {
            (Some(byte), _) => {
                buffer.put_slice(&[*byte]);
                *position += 1;
            }
            (None, Some(error)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
            (None, None) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SingleBytes {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Request heads that the client has sent.
#[derive(Debug, Default)]
struct SentHeads {
    /// Streams of the complete heads.
    complete: Vec<u32>,
    /// True if the bytes end within a head.
    is_partial: bool,
    /// Number of complete heads before the client has announced with GOAWAY that it leaves; `None` if it has not.
    before_goaway: Option<usize>,
}

/// Finds the request heads in the client's bytes (RFC 9113, sections 4.1, 6.2 and 6.10).
fn heads(bytes: &[u8]) -> SentHeads {
    let mut sent = SentHeads::default();
    let (mut highest, mut open) = (0, None);
    let mut rest = bytes.get(PREFACE.len()..).unwrap_or_default();
    while let Some(frame) = next_frame(&mut rest) {
        match frame.kind {
            HEADERS if frame.stream.is_multiple_of(2) => open = Some(frame.stream),
            HEADERS if frame.stream > highest => (highest, open) = (frame.stream, Some(frame.stream)),
            HEADERS => continue,
            GOAWAY => {
                sent.before_goaway.get_or_insert(sent.complete.len());
                continue;
            }
            CONTINUATION => {}
            _ => continue,
        }
        if frame.flags & END_HEADERS != 0 && frame.payload.is_some() {
            sent.complete.extend(open.take());
        }
    }
    sent.is_partial = open.is_some();
    sent
}

/// Frames with which the server has answered.
#[derive(Debug, Default)]
struct Http2Answer {
    /// Streams with a response.
    streams: BTreeSet<u32>,
    /// True if the server has ended the connection with an error.
    has_failed: bool,
}

fn answers(mut output: &[u8]) -> Http2Answer {
    let mut answer = Http2Answer::default();
    while let Some(frame) = next_frame(&mut output) {
        let payload = frame.payload.expect("the server sends complete frames");
        match frame.kind {
            HEADERS => drop(answer.streams.insert(frame.stream)),
            GOAWAY => answer.has_failed |= payload[4..8] != [0; 4],
            _ => {}
        }
    }
    answer
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    /// `None` if the payload is incomplete.
    payload: Option<&'a [u8]>,
}

/// Removes the first frame from `bytes`. Returns `None` if no complete frame header is left.
fn next_frame<'a>(bytes: &mut &'a [u8]) -> Option<Frame<'a>> {
    let (header, rest) = bytes.split_at_checked(9)?;
    let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    let payload = rest.get(..length);
    *bytes = rest.get(length..).unwrap_or_default();
    let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
    Some(Frame { kind: header[3], flags: header[4], stream, payload })
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Builds frames from descriptions: the length of the payload, the kind, the flags and the stream in one byte each, and then the
/// payload. Most changes of such an input still lead to complete frames.
fn described_frames(mut rest: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let Some((&[length, kind, flags, stream], after)) = rest.split_first_chunk::<4>() {
        let (payload, after) = after.split_at(usize::from(length).min(after.len()));
        frames.extend(frame(kind, flags, stream.into(), payload));
        rest = after;
    }
    frames
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

/// Returns limits that a short input can exceed.
fn limits() -> ServerLimits {
    ServerLimits { max_header_size: 8 << 10, max_headers: 16, max_streams: 8, ..ServerLimits::default() }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

/// Sources whose deliveries the gateway never stores, each with its options.
const SOURCES: &[(&str, &str)] = &[
    (
        "filtered",
        r#"
            auth = "none"
            allow_from = ["192.0.2.0/24"]
            event = { id = "json:/id", type = "const:other" }
            types = ["wanted"]
        "#,
    ),
    (
        "small",
        r#"
            auth = "none"
            allow_from = ["192.0.2.0/24"]
            max_body = "16 B"
            event = { type = "const:other" }
            types = ["wanted"]
        "#,
    ),
    (
        "signed",
        r#"
            auth = "mac"
            algorithm = "sha256"
            signature = { from = "header:X-Sig" }
            content = ["body"]
            secrets = ["env:PATH"]
            values = { verify_token = "a" }
            [[challenge]]
            authenticated = false
            methods = ["GET", "HEAD"]
            when = { "query:verify" = "config:verify_token" }
            reply = { body = ["percent-decode(query:text)"] }
        "#,
    ),
];
/// Address of the client.
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 443);
/// Sizes of the pieces in which the client sends. The first byte of the input chooses one.
const PIECES: [usize; 8] = [usize::MAX, 1, 2, 3, 7, 16, 64, 500];
/// Bit of the first byte: the client waits at the end. Without this bit, the client closes its side of the connection.
const WAITS: u8 = 0x08;
/// Bit of the first byte: the input contains descriptions of frames.
const DESCRIBED: u8 = 0x10;
/// Bit of the first byte: the input contains the preface and the first SETTINGS frame.
const UNOPENED: u8 = 0x20;
/// Number of bytes that an in-memory stream holds in each direction.
const STREAM_BYTES: usize = 64 << 10;
/// Size of the store of rejected deliveries. One body may take a sixteenth of it, which is enough for every body of an input.
const REJECTION_BYTES: u64 = 64 << 20;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
