//! Renders the admin pages.

use std::sync::Arc;

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::access::{AccessLevel, AdminAccess};
use super::{AdminQueries, ReleaseError};
use crate::log::escaped;

/// State that the admin pages share. Each page that may block has a single permit. Otherwise, a client that repeatedly requests
/// such a page and disconnects could occupy all of Tokio's blocking threads.
pub(super) struct Pages {
    queries: Arc<dyn AdminQueries>,
    access: AdminAccess,
    changes: Arc<Semaphore>,
    rejections: Arc<Semaphore>,
    release: Arc<Semaphore>,
}

/// A page of the admin listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AdminPage {
    List,
    Metrics,
    Livez,
    Readyz,
    Status,
    Changes,
    Rejections,
    Release,
}

/// Body of a request that gives up the events of a topic.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseRequest {
    topic: String,
    /// Sequence below which the events are given up.
    below: u64,
}

/// Each page with its path and with the line that describes it on the page `/`.
const PAGES: &[(&str, AdminPage, &str)] = &[
    ("/", AdminPage::List, "this list"),
    ("/metrics", AdminPage::Metrics, "metrics in the text format of Prometheus"),
    ("/livez", AdminPage::Livez, "200 while the process runs"),
    ("/readyz", AdminPage::Readyz, "200 while hookhold can store deliveries, otherwise 503"),
    ("/api/status", AdminPage::Status, "what is lost, what does not work, since when and why, as `hookhold status` shows it"),
    ("/api/changes", AdminPage::Changes, "changes that a reload of the configuration would apply"),
    ("/api/rejections", AdminPage::Rejections, "latest rejected deliveries; ?source=NAME selects a source"),
    ("/api/release", AdminPage::Release, "POST {\"topic\": NAME, \"below\": SEQ} gives up the waiting events of a topic"),
];

impl Pages {
    pub(super) fn new(queries: Arc<dyn AdminQueries>, access: AdminAccess) -> Pages {
        let [changes, rejections, release] = [(); 3].map(|()| Arc::new(Semaphore::new(1)));
        Pages { queries, access, changes, rejections, release }
    }

    /// Returns the response to a request. Checks `Host`, the token, the path and the method, in this order. Both probes also
    /// answer a request without the token, but then show only the status.
    pub(super) async fn respond(&self, head: &Parts, body: Incoming) -> Response<Full<Bytes>> {
        if let Err(text) = self.access.check_host(head) {
            return respond(StatusCode::MISDIRECTED_REQUEST, TEXT, text);
        }
        let page = PAGES.iter().find(|(path, ..)| *path == head.uri.path()).map(|(_, page, _)| *page);
        let level = self.access.level(&head.headers);
        if let (AccessLevel::Status(text), true) = (level, !matches!(page, Some(AdminPage::Livez | AdminPage::Readyz))) {
            let mut response = respond(StatusCode::UNAUTHORIZED, TEXT, text.into());
            response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
            return response;
        }
        let Some(page) = page else { return unknown_path(head.uri.path()) };
        let (methods, allowed): (&[Method], _) = match page {
            AdminPage::Release => (&[Method::POST], "POST"),
            _ => (&[Method::GET, Method::HEAD], "GET, HEAD"),
        };
        if !methods.contains(&head.method) {
            let text = format!("method: expected {allowed}, found {}\n", head.method);
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        self.render(page, level, head, body).await
    }

    /// Gives up the events of a topic. A form on a web page can send a POST request to this listener, but not with a body in JSON.
    async fn release(&self, head: &Parts, body: Incoming) -> Response<Full<Bytes>> {
        if let Err(text) = check_change(head) {
            return respond(StatusCode::FORBIDDEN, TEXT, text);
        }
        let parsed = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
            Ok(body) => serde_json::from_slice::<ReleaseRequest>(&body.to_bytes()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let ReleaseRequest { topic, below } = match parsed {
            Ok(request) => request,
            Err(error) => {
                let text = format!("body: expected {{\"topic\": NAME, \"below\": SEQ}}, found another body: {error}\n");
                return respond(StatusCode::BAD_REQUEST, TEXT, text);
            }
        };
        let queries = self.queries.clone();
        blocking(&self.release, move || match queries.release(&topic, below) {
            Ok(events) => respond(StatusCode::OK, JSON, json!({ "topic": topic, "events": events }).to_string() + "\n"),
            Err(error @ ReleaseError::StillForwarded { .. }) => respond(StatusCode::CONFLICT, TEXT, format!("{error}\n")),
            Err(error @ ReleaseError::UnknownTopic(_)) => respond(StatusCode::NOT_FOUND, TEXT, format!("{error}\n")),
        })
        .await
    }

    async fn render(&self, page: AdminPage, level: AccessLevel, head: &Parts, body: Incoming) -> Response<Full<Bytes>> {
        match page {
            AdminPage::List => respond(StatusCode::OK, TEXT, list()),
            AdminPage::Metrics => respond(StatusCode::OK, EXPOSITION, self.queries.render_metrics()),
            AdminPage::Livez => respond(StatusCode::OK, TEXT, "alive\n".into()),
            AdminPage::Readyz => {
                let readiness = self.queries.readiness();
                let is_ready = readiness.is_ready();
                let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let text = match level {
                    AccessLevel::Full => readiness.to_json(),
                    AccessLevel::Status(_) => format!("{{\"ready\":{is_ready}}}\n"),
                };
                respond(status, JSON, text)
            }
            AdminPage::Status => {
                let report = serde_json::to_string(&self.queries.status()).expect("strings and numbers can be written as JSON");
                respond(StatusCode::OK, JSON, report + "\n")
            }
            AdminPage::Release => self.release(head, body).await,
            AdminPage::Changes => {
                let queries = self.queries.clone();
                blocking(&self.changes, move || respond(StatusCode::OK, JSON, queries.changes())).await
            }
            AdminPage::Rejections => {
                let (queries, source) = (self.queries.clone(), parameter(&head.uri, "source"));
                blocking(&self.rejections, move || match queries.rejections(source.as_deref()) {
                    Some(rejections) => respond(StatusCode::OK, JSON_LINES, rejections),
                    None => respond(StatusCode::NOT_FOUND, TEXT, NO_REJECTIONS.into()),
                })
                .await
            }
        }
    }
}

/// Returns an error text if the listener must reject a request that changes something: it is not in JSON, or a page of another
/// origin has sent it.
fn check_change(head: &Parts) -> Result<(), String> {
    let field = |name: HeaderName| head.headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let media_type = field(CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(JSON) {
        return Err(format!("content-type: expected {JSON}, found {}\n", escaped(media_type)));
    }
    let own = field(HOST).unwrap_or_default();
    match field(ORIGIN).filter(|origin| origin.split_once("://").is_none_or(|(_, host)| host != own)) {
        Some(origin) => Err(format!("origin: expected the origin of this listener or none, found {}\n", escaped(origin))),
        None => Ok(()),
    }
}

fn list() -> String {
    PAGES.iter().map(|(path, _, purpose)| format!("{path:<16}  {purpose}\n")).collect()
}

fn unknown_path(found: &str) -> Response<Full<Bytes>> {
    let paths: Vec<&str> = PAGES.iter().map(|(path, ..)| *path).collect();
    respond(StatusCode::NOT_FOUND, TEXT, format!("path: expected one of {}, found {found}\n", paths.join(", ")))
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

/// Builds a response. A page may contain text of a delivery, so no client may store the page or guess another media type.
fn respond(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let fields: [(HeaderName, &str); 3] =
        [(CONTENT_TYPE, media_type), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    response.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

/// Maximum size of a request body in bytes.
const MAX_REQUEST_BYTES: usize = 4096;
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"hookhold\"");
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const JSON_LINES: &str = "application/jsonl";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const NO_REJECTIONS: &str = "admin.keep_rejected: expected more than \"0 B\", found \"0 B\"; set keep_rejected and send SIGHUP\n";
