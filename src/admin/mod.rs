//! The second listener, for the operator and the operator's tools: `/metrics`, `/livez`, `/readyz`, `/api/changes`,
//! `/api/rejections`. Reading only; it is never opened on the port of the deliveries, and it goes on answering until the very end of a drain.
//!
//! What the pages say is asked for when they are requested: this room knows [`Metrics`] and four closures, nothing else.

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

pub use readiness::{Health, Readiness, State};

use crate::metrics::Metrics;

/// What the pages are made from.
pub struct Pages {
    /// Shown at `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Called before each rendering, for values that are computed when scraped, such as lag. Must not block.
    pub refresh: Box<dyn Fn() + Send + Sync>,
    /// Asked at each `/readyz`. Must not block.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    /// Asked at each `/api/changes`: one JSON object that says what a reload of the configuration would change. May block.
    pub changes: Box<dyn Fn() -> String + Send + Sync>,
    /// Asked at each `/api/rejections`, with the source that `?source=NAME` names: a line of JSON for each refused delivery that
    /// is kept, the newest first. `None`: none are kept. May block.
    pub refusals: Rejections,
}

/// Makes the lines for one source, or for all.
pub type Rejections = Box<dyn Fn(Option<&str>) -> Option<String> + Send + Sync>;

/// The pages, and a place for the one who makes a page that may block: whoever asks and leaves again and again must not use up
/// the threads for such work.
struct Desk {
    pages: Pages,
    changes: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

/// Serves the pages until `stop`; open connections are then cut, and all tasks have ended on return.
pub async fn serve(listener: TcpListener, pages: Pages, stop: impl Future<Output = ()>) {
    let desk = Arc::new(Desk { pages, changes: Arc::new(Semaphore::new(1)), refusals: Arc::new(Semaphore::new(1)) });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async { (places.clone().acquire_owned().await, listener.accept().await) };
        select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (place, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let served = timeout(CONNECTION_LIFETIME, converse(stream, desk.clone()));
                    connections.spawn(async move { (served.await, drop(place)).1 });
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    connections.shutdown().await;
}

async fn converse(stream: TcpStream, desk: Arc<Desk>) {
    let service = service_fn(|request: Request<Incoming>| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(page(&desk, request.method(), request.uri()).await) }
    });
    // How an operator's connection ends is nobody's business: the next scrape opens another.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn page(desk: &Arc<Desk>, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
    let Desk { pages, changes, refusals } = &**desk;
    match uri.path() {
        path if PATHS.contains(&path) && method != Method::GET && method != Method::HEAD => {
            let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".into());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
        "/metrics" => {
            (pages.refresh)();
            respond(StatusCode::OK, EXPOSITION, pages.metrics.render())
        }
        "/livez" => respond(StatusCode::OK, TEXT, "alive\n".into()),
        "/readyz" => {
            let readiness = (pages.readiness)();
            let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            respond(status, JSON, readiness.to_json())
        }
        "/api/changes" => {
            let desk = desk.clone();
            blocking(changes, move || respond(StatusCode::OK, JSON, (desk.pages.changes)())).await
        }
        "/api/rejections" => {
            let (desk, source) = (desk.clone(), parameter(uri, "source"));
            blocking(refusals, move || match (desk.pages.refusals)(source.as_deref()) {
                Some(refusals) => respond(StatusCode::OK, JSON_LINES, refusals),
                None => {
                    respond(StatusCode::NOT_FOUND, TEXT, "refused deliveries are not kept: set [admin] keep_rejected\n".into())
                }
            })
            .await
        }
        _ => respond(StatusCode::NOT_FOUND, TEXT, format!("pages: {}\n", PATHS.join(" "))),
    }
}

/// Makes a page where it may block. Its place is taken until it is made, also when nobody waits for it any more.
async fn blocking<F>(place: &Arc<Semaphore>, make: F) -> Response<Full<Bytes>>
where
    F: FnOnce() -> Response<Full<Bytes>> + Send + 'static,
{
    let Ok(place) = place.clone().try_acquire_owned() else {
        return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "this page is being made for somebody else: ask again\n".into());
    };
    let bug = |_| respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "a bug in hookhold: see its log\n".into());
    tokio::task::spawn_blocking(move || (make(), drop(place)).0).await.unwrap_or_else(bug)
}

fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.find(|(have, _)| have == name).map(|(_, value)| value.into_owned())
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

/// Connections to the admin listener at one time; more wait.
const MAX_CONNECTIONS: usize = 64;

/// After this a connection is cut, idle, slow or busy: one limit for everything that can hang on it.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);

/// Pause after a failed accept, nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
