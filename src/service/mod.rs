//! Runs the gateway as a library, with four functions:
//! 1. [`Service::open`] opens the journal, including the recovery after a crash, and prepares sources and TLS. This
//!    function neither receives nor forwards events.
//! 2. [`Service::start`] starts forwarding, and serves deliveries and admin pages until a shutdown or a failure of the
//!    journal. A shutdown stops deliveries first, then forwarding, then admin pages.
//! 3. [`Service::reload`] replaces the configuration of a running service, either completely or not at all.
//! 4. [`Service::stop`] closes the journal.
//!
//! A caller of [`Service`] passes in the disk, the clock, the shutdown signal and the listeners. The service does not depend on
//! command-line arguments, Unix signals or exit codes, and never ends the process.
//!
//! The service takes its two locks in a fixed order: first the configuration lock, then the forwarder lock. The functions that
//! reload the configuration, start forwarding or stop forwarding hold the configuration lock. A function that holds the
//! configuration lock may wait for Kafka. No function waits while it holds the forwarder lock, because `/metrics` and `/readyz`
//! take the forwarder lock.

mod delivery_log;
mod forwarding;
mod handover;
mod kafka_files;
mod listeners;
mod maintenance;
mod preparation;
mod rejection_writer;
mod reload;
mod senders_file;
mod server_parts;
mod settings;
mod status;
mod status_report;
mod stored_rejections;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, spawn_blocking};

use crate::admin::{self, AdminAccess, StatusProcess};
use crate::answer::AnswerWatcher;
use crate::build_info;
use crate::certificate::CertificateError;
use crate::clock::{Clock, UnixMillis};
use crate::config::Config;
use crate::forward::{self, AckWatcher};
use crate::gateway::Gateway;
use crate::journal::disk::Disk;
use crate::journal::{Journal, OpenError};
use crate::metrics::Metrics;
use crate::server::{Server, Shutdown, Tls};
use delivery_log::DeliveryLogger;
use forwarding::Forwarding;
use handover::{AdminGate, Predecessor, WaitingSuccessor};
use rejection_writer::RejectionWriter;
use server_parts::ServerParts;

pub use delivery_log::DeliveryLog;
pub use handover::{HandoverError, HandoverOffer, HeldListeners};
pub use listeners::{ListenError, Listeners, OpenSockets, fits};
pub use maintenance::{give_up_events, renew_journal_identity};
pub use preparation::Preparation;
pub use settings::{forward_settings, forward_topics, load_config};
pub use stored_rejections::{has_rejections, read_rejections};

/// Running gateway. A clone is cheap and refers to the same gateway.
#[derive(Clone)]
pub struct Service(Arc<Components>);

struct Components {
    /// Configuration that the gateway currently uses.
    config: Mutex<Config>,
    facts: ProcessFacts,
    journal: Journal,
    gateway: Arc<Gateway>,
    /// Directory of the journal, from which the admin API reads the rejected deliveries.
    disk: Arc<dyn Disk>,
    rejections: RejectionWriter,
    forwarding: Forwarding,
    server_parts: ServerParts,
    admin_access: AdminAccess,
    shutdown: Shutdown,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Receiver of the places of acknowledged events, for a caller that shows them.
    acknowledgements: OnceLock<Arc<dyn AckWatcher>>,
    delivery_logger: OnceLock<DeliveryLogger>,
    /// Process that takes over, and waits until this one has closed the journal.
    successor: Mutex<Option<WaitingSuccessor>>,
}

/// Facts that do not change while the process runs.
struct ProcessFacts {
    started: UnixMillis,
    config_file: String,
    journal_dir: String,
    /// Time after which a running disk operation of the journal makes the gateway not ready.
    patience: Duration,
}

impl ProcessFacts {
    fn new(config: &Config, started: UnixMillis) -> ProcessFacts {
        let text = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        ProcessFacts {
            started,
            config_file: text(&config.path),
            journal_dir: text(&config.journal.dir),
            patience: config.server.limits.request_deadline,
        }
    }

    /// Returns the description of this process for `/api/status`.
    fn process(&self, now: UnixMillis, draining: bool) -> StatusProcess {
        StatusProcess {
            version: build_info::VERSION.to_owned(),
            config: self.config_file.clone(),
            started_at: self.started.rfc3339(),
            seconds: now.since(self.started) / 1000,
            draining,
        }
    }
}

/// Reason why [`Service::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Opening the journal failed.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// hookhold cannot use the TLS certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The process cannot start a thread.
    #[error(
        "threads: expected another thread, found none; raise the limit on threads (TasksMax in systemd, --pids-limit of a container)"
    )]
    Thread(#[source] io::Error),
}

/// Reason why a service ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The journal failed and stores no more events, so the process must exit.
    #[error(transparent)]
    Journal(#[from] JournalFailed),
    /// A task panicked, which is a bug in hookhold.
    #[error("a task panicked; report this bug")]
    Panic(#[from] JoinError),
    /// The forwarder panicked, which is a bug in hookhold. Every event that Kafka has not acknowledged is in the journal.
    #[error("the forwarder panicked; no event is lost, and the next start continues; report this bug")]
    Forwarder,
}

/// Error that reports a failure of the journal. At the next start, hookhold reads the journal to determine which of the
/// last events are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal failed; see the log for the cause")]
pub struct JournalFailed;

impl Service {
    /// Opens the journal on `disk`, and prepares every component that needs no listener: [`Preparation::open`] of a new
    /// [`Preparation`].
    pub fn open(config: Config, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, shutdown: Shutdown) -> Result<Service, StartError> {
        Preparation::new(config, disk, clock, shutdown)?.open()
    }

    /// Opens the journal, and prepares the components that need it.
    fn of(preparation: &Preparation) -> Result<Service, StartError> {
        let Preparation { config, disk, clock, shutdown, metrics, server_parts, admin_access, started } = preparation;
        let journal = Journal::open(disk.clone(), settings::journal_options(config), clock.clone(), metrics.clone())?;
        let sources = config.sources.iter().cloned();
        let gateway = Arc::new(Gateway::new(sources, journal.clone(), config.dedupe.hot_keys, metrics));
        gateway.rejections().set_limits(config.admin.limits);
        let rejections = gateway.rejections().queue().clone();
        let rejections = RejectionWriter::start(rejections, disk.clone(), clock.clone(), metrics.clone());
        let rejections = rejections.inspect_err(|_| journal.close()).map_err(StartError::Thread)?;
        let forwarding = Forwarding::new(journal.clone(), metrics.clone(), clock.clone());
        settings::log_replaced_recipes(config);
        settings::log_doubtful_secrets(config);
        server_parts.senders.set_journal(journal.clone());
        let components = Components {
            facts: ProcessFacts::new(config, *started),
            config: Mutex::new(config.clone()),
            journal,
            gateway,
            disk: disk.clone(),
            rejections,
            forwarding,
            server_parts: server_parts.clone(),
            admin_access: admin_access.clone(),
            shutdown: shutdown.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            acknowledgements: OnceLock::new(),
            delivery_logger: OnceLock::new(),
            successor: Mutex::new(None),
        };
        let service = Service(Arc::new(components));
        service.set_reloaded();
        Ok(service)
    }

    /// Sets the receiver of every answer of the listener for deliveries. Has an effect only before [`Service::start`], and only once.
    pub fn watch_answers(&self, watcher: Arc<dyn AnswerWatcher>) {
        let _ = self.0.server_parts.answers.0.set(watcher);
    }

    /// Sets the receiver of the place of each event that Kafka has acknowledged. Has an effect only before [`Service::start`], and only
    /// once.
    pub fn watch_acknowledgements(&self, watcher: Arc<dyn AckWatcher>) {
        let _ = self.0.acknowledgements.set(watcher);
    }

    /// Starts to log accepted deliveries. Has an effect only before [`Service::start`], and only once. [`DeliveryLog::Each`] uses the
    /// receiver of [`Service::watch_answers`]. Fails if the process cannot start a thread.
    pub fn log_deliveries(&self, log: DeliveryLog) -> Result<(), StartError> {
        let logger = DeliveryLogger::start(log, self.journal()).map_err(StartError::Thread)?;
        if let DeliveryLogger::Each(lines) = &logger {
            self.watch_answers(lines.clone());
        }
        let _ = self.0.delivery_logger.set(logger);
        Ok(())
    }

    /// Starts forwarding, and returns a future that serves both listeners until a shutdown is complete. By then, hookhold has
    /// answered every delivery and has waited a limited time for Kafka's last acknowledgements. If the journal fails, the server
    /// continues for up to [`LAST_RESPONSES`], so that each sender that waits for the journal receives a 503. The future then
    /// returns an error, and the process must exit. It does the same if the forwarder panics. Fails if the process cannot start the
    /// forwarder's thread. Must be called inside a tokio runtime.
    pub fn start(&self, listeners: Listeners) -> Result<impl Future<Output = Result<(), ServeError>> + Send + use<>, StartError> {
        // This function locks the configuration before it returns the future. A reload holds the same lock while it reads
        // files, and a read that hangs would delay the listeners. The caller must therefore call this function before the
        // caller handles SIGHUP.
        self.start_forwarding()?;
        let Listeners { deliveries, admin } = listeners;
        let deliveries = Arc::new(deliveries);
        let predecessor = Predecessor::new(self.clone(), Arc::downgrade(&deliveries), &admin);
        let serving = self.server().serve(deliveries, self.0.shutdown.clone());
        let has_kafka = self.config().kafka.is_some();
        Ok(self.clone().serve(serving, admin, predecessor, has_kafka))
    }

    /// Like [`Service::start`], for listeners that already accept: completes the deliveries that they hold.
    pub fn start_held(
        &self,
        held: HeldListeners,
    ) -> Result<impl Future<Output = Result<(), ServeError>> + Send + use<>, StartError> {
        self.start_forwarding()?;
        self.0.server_parts.gateway.set(self.gateway().clone());
        let time = held.end_hold();
        self.metrics().handovers.total.with_label_values(&["taken"]).inc();
        self.metrics().handovers.held_seconds.set(time.as_secs_f64());
        tracing::info!(held_ms = time.as_millis(), "hand-over complete; this process has the journal");
        let HeldListeners { serving, deliveries, admin, .. } = held;
        let predecessor = Predecessor::new(self.clone(), deliveries, &admin);
        let serving =
            async move { serving.await.unwrap_or_else(|error| tracing::error!(%error, "the server panicked; report this bug")) };
        let has_kafka = self.config().kafka.is_some();
        Ok(self.clone().serve(serving, admin, predecessor, has_kafka))
    }

    async fn serve(
        self,
        serving: impl Future<Output = ()>,
        admin: TcpListener,
        predecessor: Option<(Predecessor, AdminGate)>,
        has_kafka: bool,
    ) -> Result<(), ServeError> {
        let (predecessor, admin_gate) = predecessor.unzip();
        let admin_gate = admin_gate.unwrap_or_else(|| watch::channel(true).1);
        let journal_failed = self.notify_of_journal_failure();
        let close_admin = Arc::new(Notify::new());
        let (queries, closed, access) = (Arc::new(self.clone()), close_admin.clone(), self.0.admin_access.clone());
        let admin = tokio::spawn(async move { admin::serve(admin, queries, access, admin_gate, closed.notified()).await });
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            biased;
            () = journal_failed.notified() => {
                tracing::error!("the journal failed and stores no more events; hookhold stops");
                // The server continues for a moment, because every sender that waits for the journal still needs its
                // 503.
                drop(tokio::time::timeout(LAST_RESPONSES, serving).await);
                return Err(JournalFailed.into());
            }
            () = self.0.forwarding.panicked() => {
                tracing::error!("the forwarder panicked, so hookhold forwards nothing more and stops; report this bug");
                drop(tokio::time::timeout(LAST_RESPONSES, serving).await);
                return Err(ServeError::Forwarder);
            }
            () = &mut serving => {}
            () = self.warn_of_expiring_secrets() => {}
            () = self.watch_kafka_files(), if has_kafka => {}
            () = self.summarize_deliveries() => {}
            () = offer(predecessor.as_ref()) => {}
        }
        self.0.delivery_logger.get().iter().for_each(|logger| logger.stop(self.metrics()));
        spawn_blocking(move || self.stop_forwarding(LAST_ACKNOWLEDGEMENTS)).await?;
        close_admin.notify_one();
        Ok(admin.await?)
    }

    /// Closes the journal: commits all accepted events and ends the journal's threads. If forwarding still runs, stops
    /// forwarding first. Does not close a failed journal, because closing could wait for a broken disk. Blocks.
    pub fn stop(&self) -> Result<(), JournalFailed> {
        if !self.0.journal.failed() {
            // If no forwarder runs, `stop` does not take the configuration lock, because a reload that reads an endless
            // file may hold this lock.
            if self.forwarding().is_some() {
                self.stop_forwarding(LAST_ACKNOWLEDGEMENTS);
            }
            self.0.rejections.stop();
            self.0.journal.close();
        }
        if self.0.journal.failed() { Err(JournalFailed) } else { Ok(()) }
    }

    /// Returns the id of the process that takes over after the hand-over by [`Service::start`]; `None` if the service ends without
    /// a hand-over.
    pub fn successor(&self) -> Option<u32> {
        self.0.successor.lock().expect(POISON).as_ref().map(|successor| successor.pid)
    }

    /// Tells the process that takes over that [`Service::stop`] has closed the journal. Does nothing without such a process. Fails if
    /// the process has ended.
    pub fn release(&self) -> io::Result<()> {
        let successor = self.0.successor.lock().expect(POISON).take();
        successor.map_or(Ok(()), WaitingSuccessor::release)
    }

    /// Starts the forwarder, which resumes each topic at the topic's cursor. Does nothing if `[kafka]` is not configured. Fails if
    /// the process cannot start a thread. [`Service::start`] calls this function.
    pub fn start_forwarding(&self) -> Result<(), StartError> {
        let config = self.config();
        match settings::forward_settings(&config) {
            Some(settings) => {
                self.0.forwarding.start(settings, self.0.acknowledgements.get().cloned()).map_err(StartError::Thread)
            }
            None => {
                tracing::info!(
                    "no [kafka] section; hookhold only stores events, and deletes the oldest events after journal.retain"
                );
                self.0.forwarding.unforwarded().iter().for_each(|waiting| tracing::warn!("{}", forwarding::unforwarded(waiting)));
                Ok(())
            }
        }
    }

    /// Stops forwarding. Waits first for a reload in progress, then up to `wait` for acknowledgements from Kafka. A
    /// later reload does not start forwarding again. Blocks. [`Service::stop`] calls this function, and so does the
    /// future of [`Service::start`] during a shutdown.
    pub fn stop_forwarding(&self, wait: Duration) {
        let _no_reload = self.config();
        self.0.forwarding.stop(wait);
    }

    /// Returns the gateway, which verifies and stores deliveries.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.0.gateway
    }

    /// Returns the open journal.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Returns the metrics. A metric that hookhold computes at scrape time has its value from the last scrape.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Returns the TLS state of the listener for deliveries; `None` if deliveries arrive over plain HTTP.
    pub fn tls(&self) -> Option<&Tls> {
        self.0.server_parts.tls.as_ref()
    }

    /// Returns the state of the forwarder; `None` if no forwarder runs.
    pub fn forwarding(&self) -> Option<forward::Status> {
        self.0.forwarding.status()
    }

    /// Locks the configuration and returns the guard. While the guard exists, no reload starts, and forwarding neither
    /// starts nor stops.
    fn config(&self) -> MutexGuard<'_, Config> {
        self.0.config.lock().expect(POISON)
    }

    fn server(&self) -> Server {
        self.0.server_parts.gateway.set(self.gateway().clone());
        self.0.server_parts.server(&self.config(), self.0.clock.clone(), self.0.metrics.clone())
    }

    /// Returns a [`Notify`] that fires when the journal has failed.
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

    /// Logs summaries of the deliveries, if the operator has asked for them. Never returns.
    async fn summarize_deliveries(&self) {
        match self.0.delivery_logger.get() {
            Some(logger) => logger.summarize(self.metrics()).await,
            None => std::future::pending().await,
        }
    }

    /// Warns in the log about secrets that expire soon or have expired. Never returns.
    async fn warn_of_expiring_secrets(&self) {
        let mut interval = tokio::time::interval(SECRET_CHECK_INTERVAL);
        loop {
            interval.tick().await;
            self.0.gateway.warn_of_expiry(self.0.clock.now());
        }
    }
}

/// Offers a hand-over to other processes. Never returns.
async fn offer(predecessor: Option<&Predecessor>) {
    match predecessor {
        Some(predecessor) => predecessor.offer().await,
        None => std::future::pending().await,
    }
}

/// Time limit for the last responses after a failed sync or a second shutdown signal. The process then ends.
pub const LAST_RESPONSES: Duration = Duration::from_secs(1);
/// Time limit for the last acknowledgements when hookhold stops or replaces the Kafka client. The next client sends
/// unacknowledged events again.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(3);
/// Interval between checks for secrets that expire soon or have expired. hookhold warns about each secret at most once a day.
const SECRET_CHECK_INTERVAL: Duration = Duration::from_secs(3600);
const POISON: &str = "no code panics while it holds this lock";
