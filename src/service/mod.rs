//! The running gateway as a library:
//!
//! 1. [`Service::open`] opens the journal, which includes recovery after a crash, and prepares sources and TLS. It neither
//!    receives nor forwards events.
//! 2. [`Service::start`] starts forwarding, and serves deliveries and admin pages until a shutdown or a failure of the journal.
//!    A shutdown stops deliveries first, then forwarding, then admin pages.
//! 3. [`Service::reload`] replaces the configuration meanwhile, as a whole or not at all.
//! 4. [`Service::stop`] closes the journal.
//!
//! Disk, clock, shutdown signal and listeners are passed in. The service depends neither on command-line arguments nor on
//! Unix signals or exit codes, and never ends the process.
//!
//! Two locks are taken in a fixed order: first the lock of the configuration, then the lock of the forwarder. A reload
//! holds the first one, and so do the start and the stop of forwarding; all three may wait for Kafka. The second one is
//! never held during a wait, because `/metrics` and `/readyz` take it.

mod forwarding;
mod reload;
mod settings;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinError, spawn_blocking};

use crate::admin;
use crate::certificate::CertificateError;
use crate::clock::Clock;
use crate::config::Config;
use crate::forward;
use crate::gateway::Gateway;
use crate::journal::disk::Disk;
use crate::journal::{Journal, OpenError};
use crate::metrics::Metrics;
use crate::server::{self, Proxies, Server, Shutdown, Tls};
use forwarding::Forwarding;

pub use settings::load_config;

/// A running gateway. Every clone is a cheap handle to the same gateway.
#[derive(Clone)]
pub struct Service(Arc<Components>);

struct Components {
    /// Configuration in force.
    config: Mutex<Config>,
    journal: Journal,
    gateway: Arc<Gateway>,
    forwarding: Forwarding,
    tls: Option<Tls>,
    shutdown: Shutdown,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// Open listeners for [`Service::start`].
pub struct Listeners {
    /// Listener for deliveries.
    pub deliveries: TcpListener,
    /// Listener for metrics, probes and the operators' API.
    pub admin: TcpListener,
}

/// Reason why [`Listeners::open`] failed.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}")]
pub struct ListenError {
    key: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Reason why [`Service::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal could not be opened.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The TLS certificate cannot be served.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Reason why a service ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The journal failed and stores nothing more; the process must exit.
    #[error(transparent)]
    Journal(#[from] JournalFailed),
    /// A task panicked, which is a bug in hookhold.
    #[error("a task panicked; report this bug")]
    Panic(#[from] JoinError),
}

/// The journal failed. The next start determines which of the last events are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal failed")]
pub struct JournalFailed;

impl Listeners {
    /// Opens the listeners of the configuration. Must be called inside a tokio runtime.
    pub fn open(config: &Config) -> Result<Listeners, ListenError> {
        let open = |key, address| server::listen(address).map_err(|source| ListenError { key, address, source });
        let deliveries = open("server.listen", config.server.listen)?;
        Ok(Listeners { deliveries, admin: open("admin.listen", config.admin.listen)? })
    }
}

impl Service {
    /// Opens the journal on `disk` and prepares everything that needs no listener. Blocks on the disk. Inside a tokio runtime,
    /// deliveries are completed by a task of that runtime; without one, by the journal's own thread.
    pub fn open(config: Config, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, shutdown: Shutdown) -> Result<Service, StartError> {
        let metrics = Arc::new(Metrics::new());
        let journal = Journal::open(disk, settings::journal_options(&config), clock.clone(), metrics.clone())?;
        let files = config.server.tls.clone();
        let tls = files.map(|files| Tls::open(files, clock.clone(), metrics.clone())).transpose();
        let tls = tls.inspect_err(|_| journal.close())?;
        let sources = config.sources.iter().cloned();
        let gateway = Arc::new(Gateway::new(sources, journal.clone(), config.dedupe.hot_keys, &metrics));
        gateway.rejections().set_limit(config.admin.limits.keep_rejected);
        let forwarding = Forwarding::new(journal.clone(), metrics.clone(), clock.clone());
        let config = Mutex::new(config);
        let service = Service(Arc::new(Components { config, journal, gateway, forwarding, tls, shutdown, clock, metrics }));
        service.set_reloaded();
        Ok(service)
    }

    /// Starts forwarding, and returns a future that serves both listeners until a shutdown is complete: every delivery is
    /// answered, and Kafka has had time for its last acknowledgements. Must be called inside a tokio runtime.
    ///
    /// The future returns early if the journal fails, after a moment in which waiting senders receive their 503. The process must
    /// then exit.
    pub fn start(&self, listeners: Listeners) -> impl Future<Output = Result<(), ServeError>> + Send + use<> {
        // The configuration is read here and not in the future: a reload that hangs on a file holds the configuration, and
        // must not delay the listeners. So a caller starts the service first and then handles SIGHUP.
        self.start_forwarding();
        let serving = self.server().serve(listeners.deliveries, self.0.shutdown.clone());
        self.clone().serve(serving, listeners.admin)
    }

    async fn serve(self, serving: impl Future<Output = ()>, admin: TcpListener) -> Result<(), ServeError> {
        let journal_failed = self.notify_of_journal_failure();
        let close_admin = Arc::new(Notify::new());
        let (queries, closed) = (Arc::new(self.clone()), close_admin.clone());
        let admin = tokio::spawn(async move { admin::serve(admin, queries, closed.notified()).await });
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            biased;
            () = journal_failed.notified() => {
                tracing::error!("the journal failed and stores no more events; stopping");
                // Serving continues for a moment, because every sender that waits for the journal still needs its 503.
                drop(tokio::time::timeout(LAST_RESPONSES, serving).await);
                return Err(JournalFailed.into());
            }
            () = &mut serving => {}
            () = self.warn_of_expiring_secrets() => {}
        }
        spawn_blocking(move || self.stop_forwarding(LAST_ACKNOWLEDGEMENTS)).await?;
        close_admin.notify_one();
        Ok(admin.await?)
    }

    /// Closes the journal: commits all accepted events and ends its threads. Stops forwarding first if it still runs.
    /// Blocks. Does not close a journal that has failed, because that could wait for a broken disk.
    pub fn stop(&self) -> Result<(), JournalFailed> {
        if !self.0.journal.failed() {
            // Without a forwarder, the lock of the configuration is not taken: a reload that reads an endless file may hold
            // it.
            if self.forwarding().is_some() {
                self.stop_forwarding(LAST_ACKNOWLEDGEMENTS);
            }
            self.0.journal.close();
        }
        if self.0.journal.failed() { Err(JournalFailed) } else { Ok(()) }
    }

    /// Starts forwarding from the cursor of each topic. Does nothing without `[kafka]`. [`Service::start`] calls this.
    pub fn start_forwarding(&self) {
        let config = self.config();
        match settings::forward_settings(&config) {
            Some(settings) => self.0.forwarding.start(settings),
            None => tracing::info!("no [kafka] section; events stay in the journal and are deleted after `retain`, oldest first"),
        }
    }

    /// Stops forwarding, and waits up to `wait` for acknowledgements. Waits for a reload in progress; a later reload does
    /// not start forwarding again. Blocks. A shutdown and [`Service::stop`] call this.
    pub fn stop_forwarding(&self, wait: Duration) {
        let _no_reload = self.config();
        self.0.forwarding.stop(wait);
    }

    /// Returns the gateway, which verifies and stores one delivery at a time.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.0.gateway
    }

    /// Returns the open journal.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Returns the metrics. Values that are computed at scrape time date from the last scrape.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Returns the TLS certificate in use; `None` if deliveries arrive over plain HTTP.
    pub fn tls(&self) -> Option<&Tls> {
        self.0.tls.as_ref()
    }

    /// Returns the state of forwarding; `None` while there is no forwarder.
    pub fn forwarding(&self) -> Option<forward::Status> {
        self.0.forwarding.status()
    }

    /// Locks the configuration: no reload starts, and forwarding neither starts nor stops, while the guard lives.
    fn config(&self) -> MutexGuard<'_, Config> {
        self.0.config.lock().expect(POISON)
    }

    fn server(&self) -> Server {
        let Components { gateway, tls, clock, metrics, .. } = &*self.0;
        let config = self.config().server.clone();
        let proxies = Proxies::new(config.trusted_proxies.clone(), config.proxy_protocol);
        Server {
            gateway: gateway.clone(),
            limits: config.limits,
            tls: tls.clone(),
            proxies,
            clock: clock.clone(),
            metrics: metrics.clone(),
        }
    }

    /// Returns a notification that fires once the journal has failed.
    fn notify_of_journal_failure(&self) -> Arc<Notify> {
        let failed = Arc::new(Notify::new());
        let (notify, journal) = (failed.clone(), self.0.journal.clone());
        self.0.journal.on_commit(Box::new(move || {
            if journal.failed() {
                notify.notify_one();
            }
            true
        }));
        // The journal may have failed before the callback was registered.
        if self.0.journal.failed() {
            failed.notify_one();
        }
        failed
    }

    /// Warns of secrets that are about to expire. Never returns.
    async fn warn_of_expiring_secrets(&self) {
        let mut interval = tokio::time::interval(SECRET_CHECK_INTERVAL);
        loop {
            interval.tick().await;
            self.0.gateway.warn_of_expiry(self.0.clock.now());
        }
    }
}

/// Time for writing the last responses, between a failed sync or a second signal and the end of the process.
pub const LAST_RESPONSES: Duration = Duration::from_secs(1);
/// Time for the last acknowledgements at a stop or a change of the Kafka client. Events that are not acknowledged by then
/// are sent again after the next start.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(3);
/// Interval between checks for secrets that are about to expire. Each secret is reported once a day.
const SECRET_CHECK_INTERVAL: Duration = Duration::from_secs(3600);
const POISON: &str = "nothing panics while it holds this lock";
