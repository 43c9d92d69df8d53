//! Tests the pages of the admin listener over real sockets, before and during a shutdown.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc as blocking};
use std::time::Duration;

use hookhold::admin::{
    self, AdminAccess, AdminQueries, ComponentHealth, HealthState, Readiness, ReleaseError, StatusJournal, StatusProblem,
    StatusReport,
};
use hookhold::metrics::Metrics;
use hookhold::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, advance, timeout};

/// A fake gateway for the admin listener. A test can change whether the fake gateway is ready, and can pause a request.
#[derive(Default)]
struct Gateway {
    metrics: Metrics,
    draining: AtomicBool,
    /// Channels that let a test pause a request for `/api/changes`. The first channel reports to the test that rendering has
    /// begun. Rendering then waits until the test sends a message on the second channel.
    changes_gate: Option<(mpsc::UnboundedSender<()>, Mutex<blocking::Receiver<()>>)>,
}

impl AdminQueries for Gateway {
    fn render_metrics(&self) -> String {
        self.metrics.forward.lag_events.with_label_values(&["webhooks.stripe"]).inc();
        self.metrics.render()
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            draining: self.draining.load(SeqCst),
            journal: ComponentHealth::ok(),
            kafka: ComponentHealth::or(HealthState::Degraded, vec!["no broker answers".into()]),
        }
    }

    fn status(&self) -> StatusReport {
        StatusReport {
            problems: vec![StatusProblem::from_message("journal", "the disk is full; free some disk space")],
            journal: StatusJournal { dir: "/var/lib/hookhold".into(), events: 1, bytes: 2, max_bytes: 3, next_seq: 4 },
            kafka: "off".into(),
            ..StatusReport::default()
        }
    }

    fn changes(&self) -> String {
        if let Some((begun, gate)) = &self.changes_gate {
            begun.send(()).expect("the test receives");
            gate.lock().expect("nothing panics while it holds this lock").recv().expect("the test sends");
        }
        "{\"changes\":[]}\n".into()
    }

    fn rejections(&self, source: Option<&str>) -> Option<String> {
        source.map(|name| format!("{{\"source\":\"{name}\"}}\n"))
    }

    fn release(&self, topic: &str, below: u64) -> Result<u64, ReleaseError> {
        match topic {
            "old" => Ok(below),
            "used" => Err(ReleaseError::StillForwarded { topic: topic.to_owned(), name: "stripe".to_owned() }),
            _ => Err(ReleaseError::UnknownTopic(topic.to_owned())),
        }
    }
}

#[tokio::test]
async fn pages_are_rendered_on_request_until_the_shutdown() {
    let gateway = Arc::<Gateway>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound above");
    let (stop, stopped) = oneshot::channel::<()>();
    let served =
        tokio::spawn(admin::serve(listener, gateway.clone(), open(), watch::channel(true).1, async { drop(stopped.await) }));
    let ask = |line: &'static str| async move { ask(address, line).await };

    for count in 1..3 {
        let page = ask("GET /metrics").await;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("text/plain; version=0.0.4"), "{page}");
        assert!(page.contains(&format!("\nhookhold_forward_lag_events{{topic=\"webhooks.stripe\"}} {count}\n")), "{page}");
    }
    assert!(ask("GET /livez").await.starts_with("HTTP/1.1 200 "));
    let ready = ask("GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.contains("no broker answers"), "{ready}");
    gateway.draining.store(true, SeqCst);
    assert!(ask("GET /readyz").await.starts_with("HTTP/1.1 503 "));
    assert!(ask("GET /livez").await.starts_with("HTTP/1.1 200 "));
    let status = ask("GET /api/status").await;
    assert!(status.starts_with("HTTP/1.1 200 ") && status.contains("\"remedy\":\"free some disk space\""), "{status}");
    let changes = ask("GET /api/changes").await;
    assert!(changes.starts_with("HTTP/1.1 200 ") && changes.ends_with("{\"changes\":[]}\n"), "{changes}");
    let rejections = ask("GET /api/rejections?source=shop").await;
    assert!(rejections.starts_with("HTTP/1.1 200 ") && rejections.ends_with("{\"source\":\"shop\"}\n"), "{rejections}");
    let off = ask("GET /api/rejections").await;
    assert!(off.starts_with("HTTP/1.1 404 ") && off.contains("keep_rejected"), "{off}");
    let head = ask("HEAD /metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let post = ask("POST /metrics").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD\r\n"), "{post}");
    assert!(ask("GET /hooks/stripe").await.starts_with("HTTP/1.1 404 "));
    let list = ask("GET /").await;
    assert!(list.starts_with("HTTP/1.1 200 ") && list.contains("\n/metrics ") && list.contains("\n/readyz "), "{list}");

    let mut idle = TcpStream::connect(address).await.expect("the listener is open");
    stop.send(()).expect("the server waits for the signal");
    served.await.expect("the admin listener does not panic");
    let mut rest = Vec::new();
    let closed = idle.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{closed:?}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_blocking_page_is_rendered_once_at_a_time() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (release, gate) = blocking::channel::<()>();
    let gateway = Gateway { changes_gate: Some((begun, Mutex::new(gate))), ..Gateway::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound above");
    tokio::spawn(admin::serve(listener, Arc::new(gateway), open(), watch::channel(true).1, pending()));
    let hangs_up = tokio::spawn(ask(address, "GET /api/changes"));
    begins.recv().await.expect("the page is being rendered");
    hangs_up.abort();
    let busy = ask(address, "GET /api/changes").await;
    assert!(busy.starts_with("HTTP/1.1 503 ") && busy.ends_with("try again\n"), "{busy}");
    let other = ask(address, "GET /api/rejections?source=shop").await;
    assert!(other.starts_with("HTTP/1.1 200 "), "another page has a permit of its own: {other}");
    (0..2).for_each(|_| release.send(()).expect("the page waits"));
    while !ask(address, "GET /api/changes").await.starts_with("HTTP/1.1 200 ") {}
}

#[tokio::test]
async fn a_dns_name_that_is_not_configured_reads_no_page() {
    let address = serve(AdminAccess::new(vec!["hookhold.internal".into()], None)).await;
    for path in ["/", "/metrics", "/livez", "/readyz", "/api/status", "/api/changes", "/api/rejections", "/none"] {
        let rebound = ask_as(address, &format!("GET {path}"), "host: evil.example:9464\r\n").await;
        assert!(rebound.starts_with("HTTP/1.1 421 ") && rebound.contains("admin.hosts, found evil.example:9464;"), "{rebound}");
        assert!(ask_as(address, &format!("GET {path}"), "").await.starts_with("HTTP/1.1 421 "), "a request without Host");
    }
    for host in ["127.0.0.1:9464", "[::1]:9464", "localhost:9464", "hookhold.internal:9464"] {
        let page = ask_as(address, "GET /metrics", &format!("host: {host}\r\n")).await;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("x-content-type-options: nosniff\r\n"), "{host}: {page}");
    }
}

#[tokio::test]
async fn without_the_token_only_the_probes_answer_with_their_status() {
    let address = serve(with_token()).await;
    let host = "host: 10.0.0.7:9464\r\n";
    let ready = ask_as(address, "GET /readyz", host).await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("\r\n\r\n{\"ready\":true}\n"), "{ready}");
    let alive = ask_as(address, "GET /livez", host).await;
    assert!(alive.starts_with("HTTP/1.1 200 ") && alive.ends_with("\r\n\r\nalive\n"), "{alive}");
    let wrong = format!("{host}authorization: Bearer {}x\r\n", &TOKEN[1..]);
    for path in ["/", "/metrics", "/api/status", "/api/changes", "/api/rejections", "/none"] {
        for fields in [host, &wrong] {
            let rejected = ask_as(address, &format!("GET {path}"), fields).await;
            assert!(rejected.starts_with("HTTP/1.1 401 ") && rejected.contains("www-authenticate: Bearer "), "{rejected}");
            assert!(!rejected.contains(&TOKEN[1..]), "the response does not repeat a token");
        }
    }
    let right = format!("{host}authorization: Bearer {TOKEN}\r\n");
    for (path, status) in
        [("/", 200), ("/metrics", 200), ("/api/status", 200), ("/api/changes", 200), ("/api/rejections", 404), ("/none", 404)]
    {
        let page = ask_as(address, &format!("GET {path}"), &right).await;
        assert!(page.starts_with(&format!("HTTP/1.1 {status} ")), "{page}");
    }
    assert!(ask_as(address, "GET /readyz", &right).await.contains("no broker answers"));
}

/// A web page can send a form to this listener, but neither JSON nor a request without its own origin.
#[tokio::test]
async fn only_a_client_of_the_operator_gives_up_events() {
    let address = serve(with_token()).await;
    let token = &*format!("host: localhost\r\nauthorization: Bearer {TOKEN}\r\n");
    let json = "content-type: application/json\r\n";
    let post = |fields: String, body: &'static str| async move {
        let fields = format!("{fields}content-length: {}\r\n", body.len());
        let answer = ask_with(address, "POST /api/release", &fields, body).await;
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let good = r#"{"topic": "old", "below": 7}"#;
    assert_eq!(post(format!("{token}{json}"), good).await, "200");
    assert_eq!(post(format!("{token}{json}origin: http://localhost\r\n"), good).await, "200");
    assert_eq!(post(format!("host: localhost\r\n{json}"), good).await, "401");
    assert_eq!(post(token.to_owned(), good).await, "403");
    assert_eq!(post(format!("{token}content-type: text/plain\r\n"), good).await, "403");
    assert_eq!(post(format!("{token}{json}origin: https://evil.example\r\n"), good).await, "403");
    assert_eq!(post(format!("{token}{json}"), r#"{"topic": "used", "below": 7}"#).await, "409");
    assert_eq!(post(format!("{token}{json}"), r#"{"topic": "unknown", "below": 7}"#).await, "404");
    for bad in ["", "{}", r#"{"topic": "old", "below": -1}"#, r#"{"topic": "old", "below": 7, "all": true}"#] {
        assert_eq!(post(format!("{token}{json}"), bad).await, "400", "{bad}");
    }
    let read = ask_as(address, "GET /api/release", token).await;
    assert!(read.starts_with("HTTP/1.1 405 ") && read.contains("allow: POST"), "{read}");
}

#[tokio::test(start_paused = true)]
async fn connections_that_send_nothing_do_not_stop_the_probes() {
    let start = Instant::now();
    let address = serve(with_token()).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.expect("the listener is open"));
    }
    let probe = timeout(TIMEOUT, ask(address, "GET /livez")).await;
    assert!(probe.is_ok_and(|page| page.starts_with("HTTP/1.1 200 ")), "the silent connections shut the probe out");
    let mut rest = Vec::new();
    let closed = timeout(TIMEOUT, silent[0].read_to_end(&mut rest)).await;
    assert!(closed.is_ok() && rest.is_empty(), "the listener closes the connection that has waited longest");
    assert!(start.elapsed() < Duration::from_secs(10), "it does so before the time limit of the first request");
}

#[tokio::test(start_paused = true)]
async fn only_a_connection_without_a_request_closes_early() {
    let address = serve(open()).await;
    let mut scraper = TcpStream::connect(address).await.expect("the listener is open");
    let mut ask_again = async || {
        scraper.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("writable");
        let mut page = vec![0; 1024];
        let count = scraper.read(&mut page).await.expect("readable");
        assert!(page[..count].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&page[..count]));
    };
    ask_again().await;
    let mut silent = TcpStream::connect(address).await.expect("the listener is open");
    silent.write_all(b"GET /metrics HTTP/1.1\r\n").await.expect("writable");
    let start = Instant::now();
    assert_eq!(silent.read(&mut [0]).await.expect("readable"), 0, "the listener closes the connection");
    assert_eq!(start.elapsed().as_secs(), 10);
    advance(Duration::from_secs(60)).await;
    ask_again().await;
}

/// Serves a fake gateway on a free port, and returns the address.
async fn serve(access: AdminAccess) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound above");
    tokio::spawn(admin::serve(listener, Arc::<Gateway>::default(), access, watch::channel(true).1, pending()));
    address
}

fn open() -> AdminAccess {
    AdminAccess::new(Vec::new(), None)
}

fn with_token() -> AdminAccess {
    AdminAccess::new(Vec::new(), Some(Secret::new("admin", TOKEN)))
}

async fn ask(address: SocketAddr, line: &str) -> String {
    ask_as(address, line, "host: localhost\r\n").await
}

async fn ask_as(address: SocketAddr, line: &str, fields: &str) -> String {
    ask_with(address, line, fields, "").await
}

async fn ask_with(address: SocketAddr, line: &str, fields: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the listener is open");
    let request = format!("{line} HTTP/1.1\r\n{fields}connection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("writable");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("readable");
    response
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Maximum duration of a wait. The limit exists only to end a stuck test.
const TIMEOUT: Duration = Duration::from_secs(60);
