//! The admin listener over real sockets: its pages, and what they say about a stop.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use hookhold::admin::{self, Health, Pages, Readiness, State};
use hookhold::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

#[tokio::test]
async fn pages_are_computed_when_asked_for_and_end_with_the_stop() {
    let metrics = Arc::new(Metrics::new());
    let draining = Arc::new(AtomicBool::new(false));
    let (scraped, drains) = (metrics.clone(), draining.clone());
    let pages = Pages {
        metrics: metrics.clone(),
        refresh: Box::new(move || scraped.forward.lag_events.with_label_values(&["webhooks.stripe"]).inc()),
        readiness: Box::new(move || Readiness {
            draining: drains.load(SeqCst),
            journal: Health::ok(),
            kafka: Health::or(State::Degraded, vec!["no broker answers".into()]),
        }),
        changes: Box::new(|| "{\"changes\":[]}\n".into()),
        refusals: Box::new(|source| source.map(|name| format!("{{\"source\":\"{name}\"}}\n"))),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound above");
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(admin::serve(listener, pages, async { drop(stopped.await) }));
    let ask = |line: &'static str| async move { ask(address, line).await };

    for count in 1..3 {
        let page = ask("GET /metrics").await;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("text/plain; version=0.0.4"), "{page}");
        assert!(page.contains(&format!("\nhookhold_forward_lag_events{{topic=\"webhooks.stripe\"}} {count}\n")), "{page}");
    }
    assert!(ask("GET /livez").await.starts_with("HTTP/1.1 200 "));
    let ready = ask("GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.contains("no broker answers"), "{ready}");
    draining.store(true, SeqCst);
    assert!(ask("GET /readyz").await.starts_with("HTTP/1.1 503 "));
    assert!(ask("GET /livez").await.starts_with("HTTP/1.1 200 "));
    let changes = ask("GET /api/changes").await;
    assert!(changes.starts_with("HTTP/1.1 200 ") && changes.ends_with("{\"changes\":[]}\n"), "{changes}");
    let refusals = ask("GET /api/rejections?source=shop").await;
    assert!(refusals.starts_with("HTTP/1.1 200 ") && refusals.ends_with("{\"source\":\"shop\"}\n"), "{refusals}");
    let off = ask("GET /api/rejections").await;
    assert!(off.starts_with("HTTP/1.1 404 ") && off.contains("keep_rejected"), "{off}");
    let head = ask("HEAD /metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let refused = ask("POST /metrics").await;
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD\r\n"), "{refused}");
    assert!(ask("GET /hooks/stripe").await.starts_with("HTTP/1.1 404 "));

    let mut idle = TcpStream::connect(address).await.expect("the listener is open");
    stop.send(()).expect("the server waits for it");
    served.await.expect("the admin listener does not panic");
    let mut rest = Vec::new();
    let closed = idle.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{closed:?}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_page_that_blocks_is_made_by_one_at_a_time_whoever_leaves() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (go_on, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let pages = Pages {
        metrics: Arc::default(),
        refresh: Box::new(|| {}),
        readiness: Box::new(|| Readiness { draining: false, journal: Health::ok(), kafka: Health::off() }),
        changes: Box::new(move || {
            begun.send(()).expect("we listen");
            gate.lock().expect("nobody panics").recv().expect("we send");
            "{}\n".into()
        }),
        refusals: Box::new(|_| Some("{}\n".into())),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound above");
    tokio::spawn(admin::serve(listener, pages, pending()));
    let leaves = tokio::spawn(ask(address, "GET /api/changes"));
    begins.recv().await.expect("it is being made");
    leaves.abort();
    let busy = ask(address, "GET /api/changes").await;
    assert!(busy.starts_with("HTTP/1.1 503 ") && busy.ends_with("ask again\n"), "{busy}");
    assert!(ask(address, "GET /api/rejections").await.starts_with("HTTP/1.1 200 "), "another page is another matter");
    (0..2).for_each(|_| go_on.send(()).expect("it waits"));
    while !ask(address, "GET /api/changes").await.starts_with("HTTP/1.1 200 ") {}
}

async fn ask(address: std::net::SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the listener is open");
    let request = format!("{line} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writable");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("readable");
    answer
}
