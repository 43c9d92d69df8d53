//! Sends malformed requests through nginx, Caddy and HAProxy. hookhold must count exactly the requests that the proxy forwards, and
//! no response may reach another request.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::h2::tls_connection;
use super::h2_frames::{GOAWAY, HEADERS, RST_STREAM, opening, take_frame};
use super::https::{HOST, Pair};
use super::malformed_requests::{http_1_requests, http_2_frames};
use super::process::{Process, TIMEOUT};
use super::relay::RecordingRelay;
use super::{ProxyProcess, home};

/// Sources for the malformed requests, and for requests whose response body is the value of `c` in the query.
const SOURCES: &str = r#"
[sources.stripe]
provider = "stripe"
secrets = ["file:github"]
[sources.echo]
provider = "stripe"
secrets = ["file:github"]
challenge = [{ methods = ["GET"], when = { "query:c" = true }, authenticated = false, reply = { status = 200, body = ["echo(query:c)"] } }]
"#;

/// A proxy with its certificate, and the relay between the proxy and hookhold.
struct ProxiedHookhold<'a> {
    proxy: ProxyProcess,
    pair: &'a Pair,
    relay: RecordingRelay,
    process: Process<'a>,
}

impl ProxiedHookhold<'_> {
    async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        tls_connection(self.proxy.address, self.pair, protocol).await
    }

    /// Sends a well-formed request and asserts that the response belongs to this request.
    async fn assert_own_response(&self, text: &str) {
        let mut stream = self.connect("http/1.1").await;
        let request = format!("GET /hooks/echo?c={text} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the proxy reads");
        let mut response = Vec::new();
        let ended = timeout(TIMEOUT, stream.read_to_end(&mut response)).await;
        let response = String::from_utf8_lossy(&response);
        // The chunked encoding of a proxy may surround the body.
        let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(ended.is_ok() && response.starts_with("HTTP/1.1 200 ") && body.contains(text), "{text}: {response}");
    }

    /// Asserts that hookhold has counted one outcome for each request that the proxy has forwarded.
    fn assert_each_forwarded_request_is_counted(&self, case: &str) {
        let forwarded = || self.relay.connections().iter().map(|connection| requests(&connection.sent)).sum::<u64>();
        let counted = || self.process.deliveries().values().sum::<u64>();
        let start = Instant::now();
        while forwarded() != counted() && start.elapsed() < TIMEOUT {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        assert_eq!(counted(), forwarded(), "{case}");
    }
}

/// Sends every malformed request through the proxy `name`, whose configuration is a snippet of `docs/deploy.md`. `section` is the
/// index of the matching section `[server]`.
fn send_malformed_requests(name: &str, section: usize) {
    let (home, pair) = (home(section, SOURCES), Pair::new(30));
    let process = home.start();
    let relay = RecordingRelay::to(home.hooks);
    let proxied = ProxiedHookhold { proxy: ProxyProcess::start(name, name, relay.address, &pair), pair: &pair, relay, process };
    let (http_1, http_2) = (http_1_requests(), http_2_frames());
    assert!(http_1.len() + http_2.len() >= 60);
    Runtime::new().expect("a runtime can be built").block_on(async {
        for request in http_1 {
            let mut stream = proxied.connect("http/1.1").await;
            let _ = stream.write_all(&request.bytes).await;
            if !request.statuses.is_empty() {
                let _ = timeout(ANSWER_TIMEOUT, stream.read(&mut [0; 1024])).await;
            }
            drop(stream);
            proxied.assert_own_response(&request.name).await;
            proxied.assert_each_forwarded_request_is_counted(&request.name);
        }
        for frames in http_2 {
            let mut stream = proxied.connect("h2").await;
            let _ = stream.write_all(&[opening(), frames.bytes].concat()).await;
            let _ = timeout(ANSWER_TIMEOUT, read_answer(&mut stream)).await;
            drop(stream);
            proxied.assert_own_response(frames.name).await;
            proxied.assert_each_forwarded_request_is_counted(frames.name);
        }
    });
}

/// Reads frames until one of them answers a stream or ends the connection.
async fn read_answer(stream: &mut TlsStream<TcpStream>) {
    let mut bytes = Vec::new();
    while matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
        while let Some(frame) = take_frame(&mut bytes) {
            if [HEADERS, RST_STREAM, GOAWAY].contains(&frame.kind) {
                return;
            }
        }
    }
}

/// Returns the number of request heads in the bytes that a proxy has sent on one connection.
fn requests(mut bytes: &[u8]) -> u64 {
    if bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        bytes = &bytes[16 + rest..];
    }
    let mut count = 0;
    while !bytes.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 200];
        let mut head = httparse::Request::new(&mut fields);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            // hookhold closes the connection after a malformed head, and before it has read an oversized one completely.
            Ok(httparse::Status::Partial) | Err(_) => return count + 1,
        };
        count += 1;
        let field = |name: &str| head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
        let body = &bytes[length..];
        let end = match (field("transfer-encoding"), field("content-length")) {
            (Some(_), _) => chunked_length(body),
            (None, Some(text)) => std::str::from_utf8(text).expect("digits").parse().expect("a number"),
            (None, None) => 0,
        };
        bytes = body.get(end..).unwrap_or_default();
    }
    count
}

/// Returns the length of a chunked body with its trailers, or the length of all bytes if the body is incomplete.
fn chunked_length(body: &[u8]) -> usize {
    let mut at = 0;
    while let Some(Ok(httparse::Status::Complete((start, size)))) = body.get(at..).map(httparse::parse_chunk_size) {
        at += start;
        if size == 0 {
            let trailers = body[at..].split_inclusive(|byte| *byte == b'\n');
            return at
                + trailers
                    .scan(false, |ended, line| (!std::mem::replace(ended, line == b"\r\n")).then_some(line.len()))
                    .sum::<usize>();
        }
        at += usize::try_from(size).expect("a short chunk") + 2;
    }
    body.len()
}

#[test]
fn nginx_and_hookhold_count_the_same_malformed_requests() {
    send_malformed_requests("nginx", 1);
}

#[test]
fn caddy_and_hookhold_count_the_same_malformed_requests() {
    send_malformed_requests("caddy", 1);
}

#[test]
fn haproxy_and_hookhold_count_the_same_malformed_requests() {
    send_malformed_requests("haproxy", 2);
}

/// Time for which a test waits for the answer of the proxy. A proxy may wait for the rest of a malformed request, and no assertion
/// depends on the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
