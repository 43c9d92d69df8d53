//! Tests how the server closes connections. The cases are senders that disconnect before or after the last byte of a request,
//! idle connections, and connections that are open when a shutdown begins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hookhold::clock::SystemClock;
use hookhold::limits::ServerLimits;
use hookhold::server::{ConnectionServer, KnownSendersFile, Phase, Proxies, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::time::{Instant, pause, resume};

use crate::harness::{BODY, Harness, Line, chunked, expecting, post, split_at_body};

#[tokio::test]
async fn a_connection_without_requests_closes_and_is_not_counted() {
    let harness = Harness::open(short_idle_timeouts());
    assert_eq!(harness.line().await.rest().await, "");
    assert!(harness.line().await.end(post(BODY)).await.contains(" 200 "));
    assert_eq!(harness.rejections(), 0);
}

fn short_idle_timeouts() -> ServerLimits {
    let short = Duration::from_millis(100);
    ServerLimits { idle_timeout: short, trusted_idle_timeout: short, ..ServerLimits::default() }
}

#[tokio::test]
async fn an_address_with_genuine_deliveries_holds_idle_connections_longer() {
    let harness = Harness::open(ServerLimits::default());
    let start = Instant::now();
    let (mut unknown, mut unused) = (harness.line().await, harness.line().await);
    let get = "GET /hooks/stripe HTTP/1.1\r\nhost: h\r\n\r\n";
    assert!(unknown.ask(get).await.contains(" 405 "));
    // The clock of the timers stops here, and moves to the next timer whenever all tasks wait.
    pause();
    assert_eq!(unused.rest().await, "");
    assert!((8..75).contains(&start.elapsed().as_secs()), "a new connection must start its first request");
    assert_eq!(unknown.rest().await, "");
    assert!((75..620).contains(&start.elapsed().as_secs()));
    resume();
    let start = Instant::now();
    let mut genuine = harness.line().await;
    assert!(genuine.ask(post(BODY)).await.contains(" 200 "));
    let (mut unused, mut later) = (harness.line().await, harness.line().await);
    assert!(later.ask(get).await.contains(" 405 "));
    pause();
    for line in [&mut genuine, &mut unused, &mut later] {
        assert_eq!(line.rest().await, "");
        assert!(start.elapsed().as_secs() >= 620, "longer than the connection pools of common proxies");
    }
}

/// The response does not fit into the buffers, so hyper waits for the client and does not read.
#[tokio::test]
async fn an_evicted_connection_closes_although_its_client_does_not_read() {
    let harness = Harness::open(ServerLimits::default());
    let server = Server {
        gateway: harness.gateway.clone().into(),
        limits: ServerLimits { max_connections_per_address: 1, ..ServerLimits::default() },
        tls: None,
        proxies: Proxies::default(),
        known_senders: Arc::new(NoFile),
        clock: Arc::new(SystemClock),
        metrics: harness.metrics.clone(),
        watcher: None,
    };
    let server = ConnectionServer::new(server, harness.shutdown.clone());
    let remote = SocketAddr::from(([192, 0, 2, 1], 1));
    let ((mut client, stream), (newer, newer_stream)) = (duplex(16), duplex(16));
    pause();
    let start = Instant::now();
    tokio::join!(server.serve_http_1(stream, remote), async {
        client.write_all(b"GET /hooks/stripe HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("the server reads");
        assert_eq!(client.read_u8().await.expect("the response has begun"), b'H');
        drop(newer);
        server.serve_http_1(newer_stream, remote).await;
    });
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
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

#[tokio::test]
async fn trailing_line_ends_do_not_count_as_a_request() {
    let harness = Harness::open(short_idle_timeouts());
    let (mut idle, mut closed) = (harness.line().await, harness.line().await);
    for line in [&mut idle, &mut closed] {
        assert!(line.ask(post(BODY)).await.contains(" 200 "));
        line.send("\r\n").await;
    }
    closed.half_close().await;
    assert_eq!((closed.rest().await, idle.rest().await), (String::new(), String::new()));
    assert_eq!(harness.rejections(), 0);
}

#[tokio::test]
async fn an_incomplete_request_is_counted_as_disconnected_and_unanswered() {
    let harness = Harness::open(ServerLimits::default());
    let (whole, pieces) = (post(BODY), chunked(BODY));
    let cases = [(&whole[..10], "-", 1), (&whole[..whole.len() - 1], "stripe", 1), (&pieces[..pieces.len() - 1], "stripe", 2)];
    for (sent, source, count) in cases {
        let mut line = harness.line().await;
        line.send(sent).await;
        line.half_close().await;
        assert_eq!(line.rest().await, "");
        assert_eq!(harness.count(source, "disconnected"), count);
    }
    let mut silent = harness.line().await;
    silent.half_close().await;
    assert_eq!(silent.rest().await, "");
    assert_eq!(harness.rejections(), 3);
}

#[tokio::test]
async fn a_sender_may_disconnect_after_its_last_byte() {
    let harness = Harness::open(ServerLimits::default());
    let mut half_closed = harness.line().await;
    half_closed.send(post(BODY)).await;
    half_closed.half_close().await;
    assert!(half_closed.rest().await.starts_with("HTTP/1.1 200 "));
    let mut reset = harness.line().await;
    reset.send(post(BODY)).await;
    reset.stream.set_zero_linger().expect("a socket has this option");
    drop(reset);
    harness.until(|harness| harness.accepted() + harness.rejections() == 2).await;
    assert_eq!(harness.rejections(), 0);
}

#[tokio::test]
async fn connections_beyond_max_connections_wait_for_a_free_slot() {
    let harness = Harness::open(ServerLimits { max_connections: 1, ..ServerLimits::default() });
    let mut first = harness.line().await;
    assert!(first.ask(post(BODY)).await.contains(" 200 "));
    let mut second = harness.line().await;
    second.send(post(BODY)).await;
    assert!(first.ask(post(BODY)).await.contains(" 200 "));
    assert_eq!(harness.accepted(), 2);
    drop(first);
    assert!(second.answer().await.contains(" 200 "));
}

#[tokio::test]
async fn a_drain_answers_open_requests_and_closes_idle_connections() {
    let harness = Harness::open(ServerLimits { drain_delay: Duration::ZERO, ..ServerLimits::default() });
    let (head, body) = split_at_body(&expecting(&post(BODY)));
    let mut lines = Vec::new();
    for _ in 0..100 {
        let mut line = harness.line().await;
        assert!(line.ask(&head).await.contains(" 100 "));
        lines.push(line);
    }
    let mut idle = harness.line().await;
    assert!(idle.ask(post(BODY)).await.contains(" 200 "));
    harness.shutdown.signal();
    assert_eq!(idle.rest().await, "");
    assert!(TcpStream::connect(harness.address()).await.is_err(), "the listener closes before idle connections do");
    for mut line in lines {
        let answer = line.end(&body).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    }
    assert_eq!(harness.accepted(), 101);
    harness.ended().await;
}

#[tokio::test]
async fn drain_delay_serves_each_connection_once_more() {
    let harness = Harness::open(ServerLimits { drain_delay: Duration::from_secs(3600), ..ServerLimits::default() });
    let mut old = harness.line().await;
    assert!(old.ask(post(BODY)).await.contains(" 200 "));
    harness.shutdown.signal();
    assert!(harness.shutdown.begun());
    for mut line in [old, harness.line().await] {
        let answer = line.end(post(BODY)).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    }
    harness.shutdown.signal();
    harness.ended().await;
}

#[tokio::test]
async fn incomplete_requests_get_503_at_the_drain_deadline() {
    let limits =
        ServerLimits { drain_delay: Duration::ZERO, drain_deadline: Duration::from_millis(50), ..ServerLimits::default() };
    let harness = Harness::open(limits);
    let mut lines = Vec::new();
    for (sent, source) in [(10, "-"), (post(BODY).len() - 1, "stripe")] {
        let mut line = harness.line().await;
        assert!(line.ask(post(BODY) + &post(BODY)[..sent]).await.contains(" 200 "));
        lines.push((line, source));
    }
    harness.shutdown.signal();
    for (mut line, source) in lines {
        let answer = line.rest().await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 30\r\n"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(harness.count(source, "draining"), 1);
    }
    harness.ended().await;
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once() {
    let harness = Harness::open(ServerLimits { drain_delay: Duration::from_secs(3600), ..ServerLimits::default() });
    let mut line = harness.line().await;
    assert!(line.ask(post(BODY)).await.contains(" 200 "));
    harness.shutdown.signal();
    harness.shutdown.signal();
    harness.ended().await;
    assert_eq!(line.rest().await, "");
}

#[tokio::test]
async fn a_drain_waits_for_events_that_are_being_written() {
    let (harness, gate) = Harness::held(ServerLimits { drain_delay: Duration::ZERO, ..ServerLimits::default() });
    let mut lines = open_requests(&harness, 100).await;
    harness.shutdown.signal();
    harness.shutdown.reached(Phase::Draining).await;
    assert_eq!(harness.accepted(), 0);
    gate.release();
    for line in &mut lines {
        let answer = line.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    }
    assert_eq!((harness.accepted(), harness.count("stripe", "stored")), (100, 1));
    harness.ended().await;
}

#[tokio::test]
async fn a_request_cut_at_drain_deadline_is_still_stored() {
    let limits =
        ServerLimits { drain_delay: Duration::ZERO, drain_deadline: Duration::from_millis(50), ..ServerLimits::default() };
    let (harness, gate) = Harness::held(limits);
    let mut lines = open_requests(&harness, 1).await;
    harness.shutdown.signal();
    let answer = lines[0].rest().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 30\r\n"), "{answer}");
    assert_eq!(harness.count("stripe", "draining"), 1);
    gate.release();
    // The gateway completes the append on a task of this runtime. That task must run before the journal is closed.
    harness.until(|harness| harness.metrics.deliveries.stored_after_answer.get() == 1).await;
    harness.ended().await;
}

#[tokio::test]
async fn a_disconnect_during_the_write_loses_no_event() {
    let (harness, gate) = Harness::held(ServerLimits::default());
    for line in open_requests(&harness, 3).await {
        line.stream.set_zero_linger().expect("a socket has this option");
    }
    gate.release();
    harness.until(|harness| harness.accepted() == 3).await;
    assert_eq!((harness.count("stripe", "stored"), harness.rejections()), (1, 0));
}

/// Opens `count` connections and sends a complete request on each connection, without waiting for the responses. Sends each
/// request body only after the server has read the request head.
async fn open_requests(harness: &Harness, count: usize) -> Vec<Line> {
    let (head, body) = split_at_body(&expecting(&post(BODY)));
    let mut lines = Vec::new();
    for _ in 0..count {
        let mut line = harness.line().await;
        assert!(line.ask(&head).await.contains(" 100 "));
        line.send(&body).await;
        lines.push(line);
    }
    lines
}
