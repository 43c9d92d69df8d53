//! Bounds the open connections of the admin listener.
//!
//! The listener accepts every connection. If the maximum number of connections is open, the listener closes the connection that
//! has waited longest for its client. Connections that send nothing therefore cannot shut out a probe or a scraper.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::pages::Pages;

/// Open connections of the admin listener.
#[derive(Default)]
pub(super) struct AdminConnections {
    tasks: JoinSet<()>,
    open: Vec<AdminConnection>,
}

struct AdminConnection {
    latest: Arc<LatestUse>,
    task: AbortHandle,
}

/// Latest use of a connection. The task of the connection updates this value.
struct LatestUse(Mutex<ConnectionUse>);

#[derive(Clone, Copy)]
enum ConnectionUse {
    /// The client opened the connection at this time and has not sent a complete request head.
    Opened(Instant),
    /// The listener renders a page, for which the request head was complete at this time.
    Rendering(Instant),
    /// The listener rendered the latest page at this time.
    Rendered(Instant),
}

impl AdminConnections {
    /// Serves a new connection. Closes another connection if the maximum number of connections is open.
    pub(super) fn open(&mut self, stream: TcpStream, pages: Arc<Pages>) {
        self.open.retain(|connection| !connection.task.is_finished());
        if self.open.len() >= MAX_CONNECTIONS {
            let ranks = self.open.iter().map(|connection| connection.latest.closing_rank());
            let first = ranks.enumerate().min_by_key(|(_, rank)| *rank).map(|(index, _)| index);
            let longest_waiting = self.open.swap_remove(first.expect("MAX_CONNECTIONS is not 0"));
            longest_waiting.task.abort();
        }
        let latest = Arc::new(LatestUse(Mutex::new(ConnectionUse::Opened(Instant::now()))));
        let task = self.tasks.spawn(serve(stream, pages, latest.clone()));
        self.open.push(AdminConnection { latest, task });
    }

    /// Waits until a connection has ended. Returns `None` if no connection is open.
    pub(super) async fn next_ended(&mut self) -> Option<()> {
        self.tasks.join_next().await.map(drop)
    }

    /// Closes all connections, and returns when their tasks have ended.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Serves one connection until the client closes it, or until one of its time limits has passed.
async fn serve(stream: TcpStream, pages: Arc<Pages>, latest: Arc<LatestUse>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (pages, latest, (head, body)) = (pages.clone(), latest.clone(), request.into_parts());
        async move {
            latest.set(ConnectionUse::Rendering(Instant::now()));
            let response = pages.respond(&head, body).await;
            latest.set(ConnectionUse::Rendered(Instant::now()));
            Ok::<_, Infallible>(response)
        }
    });
    // hyper's own timeout for a request head would also run while the connection is idle.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    // A failed connection needs no log line, because the next scrape opens another connection.
    let is_open = timeout(FIRST_REQUEST_TIMEOUT, connection.as_mut()).await.is_err();
    if is_open && latest.has_requested() {
        let _ = timeout(CONNECTION_LIFETIME, connection).await;
    }
}

impl LatestUse {
    fn set(&self, next: ConnectionUse) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    fn current(&self) -> ConnectionUse {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_requested(&self) -> bool {
        !matches!(self.current(), ConnectionUse::Opened(_))
    }

    /// Returns the rank in which the listener closes connections, lowest first. A connection for which the listener renders a
    /// page ranks highest.
    fn closing_rank(&self) -> (bool, Instant) {
        match self.current() {
            ConnectionUse::Opened(at) | ConnectionUse::Rendered(at) => (false, at),
            ConnectionUse::Rendering(at) => (true, at),
        }
    }
}

/// Limit on the number of open connections to the admin listener.
const MAX_CONNECTIONS: usize = 64;

/// Time within which a new connection must send its first request head.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time after [`FIRST_REQUEST_TIMEOUT`] at which hookhold closes a connection to the admin listener, even if the connection is
/// busy. This single limit covers every other way in which a connection can hang.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);
