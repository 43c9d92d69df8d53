//! Tests the pages of the admin listener over real sockets, before and during a shutdown.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc as blocking};

use hookhold::admin::{self, AdminQueries, ComponentHealth, HealthState, Readiness};
use hookhold::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

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
}

#[tokio::test]
async fn pages_are_rendered_on_request_until_the_shutdown() {
    let gateway = Arc::<Gateway>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound above");
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(admin::serve(listener, gateway.clone(), async { drop(stopped.await) }));
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
    tokio::spawn(admin::serve(listener, Arc::new(gateway), pending()));
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

async fn ask(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the listener is open");
    let request = format!("{line} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writable");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("readable");
    response
}
