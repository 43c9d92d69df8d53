//! Listener for operators and their tools. Serves `/metrics`, `/livez`, `/readyz`, `/api/changes` and `/api/rejections`. All
//! pages are read-only. The listener has a port of its own, separate from the listener for deliveries, and stays open until the
//! end of a drain.
//!
//! The admin pages query the running gateway through [`AdminQueries`]. This module does not depend on any other part of the
//! gateway.

mod readiness;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use readiness::{ComponentHealth, HealthState, Readiness};

/// Queries that the admin pages make to the running gateway.
pub trait AdminQueries: Send + Sync {
    /// Updates the metrics that hookhold computes at scrape time, such as lag, and renders every metric. Must not block.
    fn render_metrics(&self) -> String;

    /// Returns the health of each component, for `/readyz`. Must not block.
    fn readiness(&self) -> Readiness;

    /// Compares the configuration file with the running configuration. Returns the changes as one JSON object. May block.
    fn changes(&self) -> String;

    /// Returns the stored rejections of one source (`?source=NAME`) or of all sources, newest first. Each rejection is one line
    /// with a JSON object. Returns `None` if `[admin] keep_rejected` is 0, because hookhold then stores no rejections. May
    /// block.
    fn rejections(&self, source: Option<&str>) -> Option<String>;
}

/// State that the admin pages share. Each page that may block has a single permit. Otherwise, a client that repeatedly requests
/// such a page and disconnects could occupy all of Tokio's blocking threads.
struct Pages {
    queries: Arc<dyn AdminQueries>,
    changes: Arc<Semaphore>,
    rejections: Arc<Semaphore>,
}

/// Serves the admin pages until `stop` completes, then closes the open connections. Returns when the tasks of all
/// connections have ended.
pub async fn serve(listener: TcpListener, queries: Arc<dyn AdminQueries>, stop: impl Future<Output = ()>) {
    let [changes, rejections] = [(); 2].map(|()| Arc::new(Semaphore::new(1)));
    let pages = Arc::new(Pages { queries, changes, rejections });
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async { (permits.clone().acquire_owned().await, listener.accept().await) };
        select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let served = timeout(CONNECTION_LIFETIME, serve_connection(stream, pages.clone()));
                    connections.spawn(async move { (served.await, drop(permit)).1 });
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    connections.shutdown().await;
}

async fn serve_connection(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(|request: Request<Incoming>| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(page(&pages, request.method(), request.uri()).await) }
    });
    // A failed connection needs no log line, because the next scrape opens another connection.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn page(pages: &Pages, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
    match uri.path() {
        path if PATHS.contains(&path) && method != Method::GET && method != Method::HEAD => {
            let mut response =
                respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("method: expected GET or HEAD, found {method}\n"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        "/metrics" => respond(StatusCode::OK, EXPOSITION, pages.queries.render_metrics()),
        "/livez" => respond(StatusCode::OK, TEXT, "alive\n".into()),
        "/readyz" => {
            let readiness = pages.queries.readiness();
            let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            respond(status, JSON, readiness.to_json())
        }
        "/api/changes" => {
            let queries = pages.queries.clone();
            blocking(&pages.changes, move || respond(StatusCode::OK, JSON, queries.changes())).await
        }
        "/api/rejections" => {
            let (queries, source) = (pages.queries.clone(), parameter(uri, "source"));
            blocking(&pages.rejections, move || match queries.rejections(source.as_deref()) {
                Some(rejections) => respond(StatusCode::OK, JSON_LINES, rejections),
                None => respond(StatusCode::NOT_FOUND, TEXT, NO_REJECTIONS.into()),
            })
            .await
        }
        path => respond(StatusCode::NOT_FOUND, TEXT, format!("path: expected one of {}, found {path}\n", PATHS.join(", "))),
    }
}

/// Renders an admin page on one of Tokio's blocking threads. Holds the page's permit until the page is rendered, even if the
/// client disconnects earlier. Responds with 503 if another request holds the permit.
async fn blocking<F>(permit: &Arc<Semaphore>, render: F) -> Response<Full<Bytes>>
where
    F: FnOnce() -> Response<Full<Bytes>> + Send + 'static,
{
    let Ok(permit) = permit.clone().try_acquire_owned() else {
        let busy = "page: expected no other request in progress, found one; try again\n";
        return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, busy.into());
    };
    let panicked = |_| respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "internal error; see hookhold's log\n".into());
    tokio::task::spawn_blocking(move || (render(), drop(permit)).0).await.unwrap_or_else(panicked)
}

fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn respond(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const PATHS: &[&str] = &["/metrics", "/livez", "/readyz", "/api/changes", "/api/rejections"];
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const JSON_LINES: &str = "application/jsonl";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const NO_REJECTIONS: &str = "admin.keep_rejected: expected more than \"0 B\", found \"0 B\"; set keep_rejected and send SIGHUP\n";

/// Limit on the number of open connections to the admin listener. Further connections wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// Age at which hookhold closes a connection to the admin listener, even if the connection is busy. This single limit
/// covers every way in which a connection can hang.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);

/// Pause after a failed accept on the admin listener. The usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
