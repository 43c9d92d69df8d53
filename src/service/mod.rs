//! The running gateway: opens the listeners and Kafka over an open journal, in this order; serves until a stop; closes them
//! in the opposite one.

mod reload;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::admin::{self, Health, Pages, Readiness, State};
use crate::certificate::Unusable;
use crate::clock::Clock;
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::forward::{self, Forwarder};
use crate::gateway::Gateway;
use crate::journal::disk::LocalDisk;
use crate::journal::{self, Journal, OpenError, Options};
use crate::metrics::Metrics;
use crate::server::{self, Proxies, Server, Shutdown, Tls};

pub use reload::Reload;

/// Reads a configuration that makes a Kafka client: properties that are right one by one can be wrong together.
pub fn load_with_kafka(path: &Path) -> Result<Config, Diagnostics> {
    let config = Config::load(path, forward::check_setting)?;
    let Some(kafka) = &config.kafka else { return Ok(config) };
    let Some(obstacle) = forward::check_settings(&kafka.librdkafka) else { return Ok(config) };
    let (file, what) = (path.display().to_string(), format!("no Kafka client can be set up with these settings: {obstacle}"));
    let mistakes = Diagnostics::default();
    mistakes.add(Diagnostic { file, line: kafka.line, key: "kafka".to_owned(), what });
    Err(mistakes)
}

/// Opens the journal of this configuration.
pub fn open_journal(
    disk: LocalDisk,
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<Journal, OpenError> {
    let dir = &config.journal.dir;
    if let Ok((file_system, false)) = journal::file_system(dir) {
        let risk = "a 2xx may not survive a power cut: what a sync promises is known for ext4 and XFS only";
        tracing::warn!(file_system, dir = %dir.display(), "{risk}");
    }
    let options = Options {
        limits: config.journal.limits,
        dedupe_window: reload::longest_window(config),
        max_key_bytes: config.dedupe.max_disk,
        forwards: config.kafka.is_some(),
    };
    Journal::open(Arc::new(disk), options, clock.clone(), metrics.clone())
}

/// Everything that is open while the gateway runs.
pub struct House {
    /// What is in force at the start.
    pub config: Config,
    /// Shown at `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Open.
    pub journal: Journal,
}

/// Empty without `[kafka]`, and once passing on has been stopped.
type Passing = Arc<Mutex<Option<Forwarder>>>;

impl House {
    /// Serves until a stop; true when the journal has failed.
    pub async fn serve(
        self,
        heed_signals: impl FnOnce(Shutdown, Arc<Reload>) -> std::io::Result<()>,
    ) -> Result<bool, Box<dyn Error>> {
        let deliveries = listen("server.listen", self.config.server.listen)?;
        let operators = listen("admin.listen", self.config.admin.listen)?;
        let failure = failure_of(&self.journal);
        let passing: Passing = Arc::new(Mutex::new(self.start_passing_on()));
        let sources = self.config.sources.iter().cloned();
        let gateway = Arc::new(Gateway::new(sources, self.journal.clone(), self.config.dedupe.hot_keys as u64, &self.metrics));
        gateway.rejections().set_limit(self.config.admin.limits.keep_rejected);
        let tls = self.tls()?;
        let reload = self.reload(&gateway, &passing, &tls);
        let stop = Shutdown::new();
        let over = Arc::new(Notify::new());
        let pages = self.pages(&gateway, &passing, &reload, &stop);
        let admin = tokio::spawn({
            let over = over.clone();
            async move { admin::serve(operators, pages, over.notified()).await }
        });
        let server = self.server(gateway.clone(), tls);
        watch_secrets(gateway, self.clock.clone());
        heed_signals(stop.clone(), reload.clone())?;
        let mut serving = std::pin::pin!(server.serve(deliveries, stop));
        let failed = tokio::select! {
            biased;
            () = failure.notified() => true,
            () = &mut serving => false,
        };
        if failed {
            tracing::error!("the journal has failed: no event can be kept; ending with exit code 3");
            // Served on: everybody who waits still has to hear 503.
            drop(tokio::time::timeout(FAREWELL, serving).await);
            return Ok(true);
        }
        tokio::task::spawn_blocking(move || {
            let _last = reload.hold();
            // Others ask meanwhile how it fares: the lock is not held.
            let forwarder = passing.lock().expect(POISON).take();
            if let Some(forwarder) = forwarder {
                tracing::info!("waiting for acknowledgements");
                forwarder.stop(LAST_ACKNOWLEDGEMENTS);
            }
        })
        .await?;
        over.notify_one();
        admin.await?;
        Ok(false)
    }

    fn reload(&self, gateway: &Arc<Gateway>, passing: &Passing, tls: &Option<Tls>) -> Arc<Reload> {
        let (gateway, passing, journal) = (gateway.clone(), passing.clone(), self.journal.clone());
        Arc::new(Reload::new(
            self.config.clone(),
            gateway,
            journal,
            passing,
            self.metrics.clone(),
            self.clock.clone(),
            tls.clone(),
        ))
    }

    fn tls(&self) -> Result<Option<Tls>, Unusable> {
        let files = self.config.server.tls.clone();
        files.map(|files| Tls::open(files, self.clock.clone(), self.metrics.clone())).transpose()
    }

    fn server(&self, gateway: Arc<Gateway>, tls: Option<Tls>) -> Server {
        let (config, clock, metrics) = (&self.config.server, self.clock.clone(), self.metrics.clone());
        let proxies = Proxies::new(config.trusted_proxies.clone(), config.proxy_protocol);
        Server { gateway, limits: config.limits, tls, proxies, clock, metrics }
    }

    fn start_passing_on(&self) -> Option<Forwarder> {
        let Some(settings) = reload::forward_settings(&self.config) else {
            tracing::info!("no [kafka] section: events stay in the journal, the oldest are deleted when their time is over");
            return None;
        };
        Some(forward::start(self.journal.clone(), settings, self.metrics.clone(), self.clock.clone()))
    }

    fn pages(&self, gateway: &Arc<Gateway>, passing: &Passing, reload: &Arc<Reload>, stop: &Shutdown) -> Pages {
        let (metrics, gateway, measured, journal) =
            (self.metrics.clone(), gateway.clone(), passing.clone(), self.journal.clone());
        let (clock, kept_by) = (self.clock.clone(), gateway.clone());
        let refresh = move || {
            journal.update_metrics();
            gateway.measure(clock.now());
            metrics.journal.dedupe_hot_keys.set(gateway.hot_keys() as i64);
            measured.lock().expect(POISON).iter().for_each(Forwarder::measure);
        };
        let (journal, passing, stop) = (self.journal.clone(), passing.clone(), stop.clone());
        let readiness = move || Readiness {
            draining: stop.begun(),
            journal: Health::or(State::Failed, journal.unavailable_reason().map(str::to_owned).into_iter().collect()),
            kafka: passing.lock().expect(POISON).as_ref().map_or_else(Health::off, health),
        };
        let reload = reload.clone();
        let changes = move || reload.outlook();
        let refusals = move |source: Option<&str>| kept_by.rejections().to_json(source);
        let metrics = self.metrics.clone();
        let (refresh, readiness) = (Box::new(refresh), Box::new(readiness));
        Pages { metrics, refresh, readiness, changes: Box::new(changes), refusals: Box::new(refusals) }
    }
}

/// Kafka's troubles degrade, they never make unready: the journal holds the events meanwhile.
fn health(forwarder: &Forwarder) -> Health {
    let status = forwarder.status();
    if !status.running {
        return Health::or(State::Failed, vec!["the forwarder has died; restart hookhold and report this bug".to_owned()]);
    }
    let blocked = status.lanes.iter().filter_map(|lane| {
        let blocked = lane.blocked.as_ref()?;
        Some(format!("{}: {}: {}", lane.topic, blocked.reason, blocked.detail))
    });
    Health::or(State::Degraded, blocked.collect())
}

fn listen(key: &str, address: SocketAddr) -> Result<TcpListener, Box<dyn Error>> {
    server::listen(address).map_err(|error| format!("{key}: cannot listen on {address}: {error}").into())
}

/// Rings once the journal can keep nothing more.
fn failure_of(journal: &Journal) -> Arc<Notify> {
    let failure = Arc::new(Notify::new());
    let (bell, watched) = (failure.clone(), journal.clone());
    journal.on_commit(Box::new(move || {
        if watched.failed() {
            bell.notify_one();
        }
        true
    }));
    failure
}

/// Says in time which secrets are about to expire.
fn watch_secrets(gateway: Arc<Gateway>, clock: Arc<dyn Clock>) {
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(LOOK_AT_SECRETS);
        loop {
            looks.tick().await;
            gateway.warn_of_expiry(clock.now());
        }
    });
}

/// Between a failed sync or a second signal and the end: time for the answers to be written.
pub const FAREWELL: Duration = Duration::from_secs(1);
/// How often the secrets' ends are looked at; each is spoken of once a day.
const LOOK_AT_SECRETS: Duration = Duration::from_secs(3600);
/// How long a stop, or a change of the Kafka client, waits for Kafka. What is not acknowledged by then is passed on again at the next start.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(3);
const POISON: &str = "nothing panics while it holds this lock";
