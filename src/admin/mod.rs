//! Listener for operators and their tools. Serves `/metrics`, `/livez`, `/readyz`, `/api/status`, `/api/changes` and
//! `/api/rejections`, and on `/` the list of these pages. A POST request to `/api/release` gives up the events of a topic; all other pages are read-only. The
//! listener has a port of its own, separate from the listener for deliveries, and stays open until the end of a drain.
//!
//! [`AdminAccess`] decides which clients may read the pages. The admin pages query the running gateway through
//! [`AdminQueries`]. This module does not depend on any other part of the gateway.

mod access;
mod connections;
mod pages;
mod readiness;
mod status_report;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::select;
use tokio::sync::watch;
use tokio::time::sleep;

pub use access::AdminAccess;
pub use readiness::{ComponentHealth, HealthState, Readiness};
pub use status_report::{StatusJournal, StatusLoss, StatusProblem, StatusProcess, StatusReport, StatusSource, StatusTopic};

use connections::AdminConnections;
use pages::Pages;

/// Queries that the admin pages make to the running gateway.
pub trait AdminQueries: Send + Sync {
    /// Updates the metrics that hookhold computes at scrape time, such as lag, and renders every metric. Must not block.
    fn render_metrics(&self) -> String;

    /// Returns the health of each component, for `/readyz`. Must not block.
    fn readiness(&self) -> Readiness;

    /// Returns what is lost, what does not work and why, for `/api/status`. Must not block.
    fn status(&self) -> StatusReport;

    /// Compares the configuration file with the running configuration. Returns the changes as one JSON object. May block.
    fn changes(&self) -> String;

    /// Returns the stored rejections of one source (`?source=NAME`) or of all sources, newest first. Each rejection is one line
    /// with a JSON object. Returns `None` if `[admin] keep_rejected` is 0, because hookhold then stores no rejections. May
    /// block.
    fn rejections(&self, source: Option<&str>) -> Option<String>;

    /// Gives up the events of a topic below sequence `below`, and returns their number. The topic must be one to which no source
    /// forwards any more. May block.
    fn release(&self, topic: &str, below: u64) -> Result<u64, ReleaseError>;
}

/// Reason why the events of a topic cannot be given up.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A source still forwards to the topic.
    #[error(
        "topic: expected a topic to which no source forwards, found {topic}, the topic of sources.{name}; give the source another \
         topic, and send SIGHUP, before you give up events"
    )]
    StillForwarded {
        /// Name of the topic.
        topic: String,
        /// Name of the source.
        name: String,
    },
    /// The journal contains no event of the topic.
    #[error("topic: expected a topic of the journal, found {0}; see `hookhold journal stat`")]
    UnknownTopic(String),
}

/// Serves the admin pages until `stop` completes, then closes the open connections. Returns when the tasks of all
/// connections have ended.
///
/// Accepts connections only while `is_open` contains true: in a hand-over, another process accepts from the same socket.
pub async fn serve(
    listener: TcpListener,
    queries: Arc<dyn AdminQueries>,
    access: AdminAccess,
    mut is_open: watch::Receiver<bool>,
    stop: impl Future<Output = ()>,
) {
    let pages = Arc::new(Pages::new(queries, access));
    let mut connections = AdminConnections::default();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepts = *is_open.borrow_and_update();
        select! {
            biased;
            () = &mut stop => break,
            Some(()) = connections.next_ended() => {}
            Ok(()) = is_open.changed() => {}
            accepted = listener.accept(), if accepts => match accepted {
                Ok((stream, _)) => connections.open(stream, pages.clone()),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    connections.close().await;
}

/// Pause after a failed accept on the admin listener. The usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
