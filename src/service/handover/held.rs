//! Listeners of a process that has taken them over but does not have the journal yet. The server holds deliveries, each to its own
//! deadline. The admin pages show that the process waits for the journal.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::preparation::Preparation;
use super::super::{Listeners, ProcessFacts};
use crate::admin::{
    self, AdminQueries, ComponentHealth, HealthState, Readiness, ReleaseError, StatusJournal, StatusProblem, StatusReport,
};
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::server::Shutdown;

/// Listeners that already accept. [`Service::start_held`](super::super::Service::start_held) completes the held deliveries.
pub struct HeldListeners {
    pub(in super::super) serving: JoinHandle<()>,
    /// Listener for deliveries, which the server owns.
    pub(in super::super) deliveries: Weak<TcpListener>,
    /// Listener for the admin pages of the service, on the same socket as the held pages.
    pub(in super::super) admin: TcpListener,
    held_pages: JoinHandle<()>,
    stop_pages: Arc<Notify>,
    since: Instant,
}

impl HeldListeners {
    /// Starts to accept on `listeners`. Must be called inside a tokio runtime.
    pub fn start(preparation: &Preparation, listeners: Listeners) -> io::Result<HeldListeners> {
        let Preparation { config, clock, shutdown, metrics, server_parts, admin_access, .. } = preparation;
        let since = Instant::now();
        let listener = Arc::new(listeners.deliveries);
        let deliveries = Arc::downgrade(&listener);
        let server = server_parts.server(config, clock.clone(), metrics.clone());
        let serving = tokio::spawn(server.serve(listener, shutdown.clone()));
        let pages = HeldPages {
            facts: ProcessFacts::new(config, preparation.started),
            patience: smallest_deadline(config),
            clock: clock.clone(),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
            since,
        };
        let admin = listeners.admin;
        let admin_copy = copy(&admin)?;
        let stop_pages = Arc::new(Notify::new());
        let (access, stop) = (admin_access.clone(), stop_pages.clone());
        let held_pages = tokio::spawn(async move {
            admin::serve(admin_copy, Arc::new(pages), access, watch::channel(true).1, stop.notified()).await;
        });
        Ok(HeldListeners { serving, deliveries, admin, held_pages, stop_pages, since })
    }

    /// Ends the pages that show the wait, and returns the time for which the listeners held deliveries.
    pub(in super::super) fn end_hold(&self) -> Duration {
        self.stop_pages.notify_one();
        self.since.elapsed()
    }

    /// Closes the listeners, because this process cannot open the journal.
    pub async fn abandon(self) {
        self.serving.abort();
        self.stop_pages.notify_one();
        let _ = self.held_pages.await;
    }
}

fn copy(listener: &TcpListener) -> io::Result<TcpListener> {
    TcpListener::from_std(std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?))
}

/// Returns the shortest time within which a delivery of any source must be answered.
fn smallest_deadline(config: &Config) -> Duration {
    let max = config.server.limits.request_deadline;
    config.sources.iter().map(|source| source.deadline.min(max)).min().unwrap_or(max)
}

/// Admin pages of a process that waits for the journal.
struct HeldPages {
    facts: ProcessFacts,
    /// Time after which a held delivery may have got a 503, so that the process is not ready.
    patience: Duration,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    since: Instant,
}

impl AdminQueries for HeldPages {
    fn render_metrics(&self) -> String {
        self.metrics.render()
    }

    fn readiness(&self) -> Readiness {
        let state = if self.since.elapsed() < self.patience { HealthState::Degraded } else { HealthState::Failed };
        let journal = ComponentHealth::or(state, vec![WAITS.to_owned()]);
        Readiness { draining: self.shutdown.begun(), journal, kafka: ComponentHealth::off() }
    }

    fn status(&self) -> StatusReport {
        let problem = StatusProblem {
            what: "journal".to_owned(),
            seconds: Some(self.since.elapsed().as_secs()),
            why: WAITS.to_owned(),
            remedy: String::new(),
        };
        StatusReport {
            process: Some(self.facts.process(self.clock.now(), self.shutdown.begun())),
            problems: vec![problem],
            journal: StatusJournal { dir: self.facts.journal_dir.clone(), ..StatusJournal::default() },
            kafka: "connecting".to_owned(),
            ..StatusReport::default()
        }
    }

    fn changes(&self) -> String {
        serde_json::json!({ "file": self.facts.config_file, "changes": [], "mistakes": [] }).to_string() + "\n"
    }

    fn rejections(&self, _source: Option<&str>) -> Option<String> {
        Some(String::new())
    }

    fn release(&self, topic: &str, _below: u64) -> Result<u64, ReleaseError> {
        Err(ReleaseError::UnknownTopic(topic.to_owned()))
    }
}

const WAITS: &str = "hand-over: waits until the previous process has closed the journal";
