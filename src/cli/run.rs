//! `hookhold run`: opens the journal, the listeners and Kafka, in this order; serves until a signal; closes them in the
//! opposite one.

mod reload;

use std::error::Error;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookhold::admin::{self, Health, Pages, Readiness, State};
use hookhold::certificate::Unusable;
use hookhold::clock::{Clock, SystemClock};
use hookhold::config::{Config, ServerConfig};
use hookhold::forward::{self, Forwarder};
use hookhold::gateway::Gateway;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{self, Journal, OpenError, Options};
use hookhold::log;
use hookhold::metrics::Metrics;
use hookhold::server::{self, Limits, Proxies, Server, Shutdown, Tls};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::{Context, ExitStatus, VerbResult};
use reload::Reload;

/// Receives deliveries until SIGTERM or SIGINT.
///
/// The first signal turns /readyz to 503 and, after drain_delay, closes the listener; requests under way are answered by
/// drain_deadline. A second signal ends the process at once; nothing that was answered 2xx is lost by it.
///
/// SIGHUP reads the configuration and its secrets again. A file with a mistake, or with a change that needs a restart, changes
/// nothing and is reported in the log; `hookhold check --diff` shows beforehand what would change.
#[derive(clap::Args)]
pub struct RunArgs {
    /// How log lines look on standard error: text or json.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Runs the gateway.
pub fn run(context: &Context, args: RunArgs) -> VerbResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // From here on a SIGHUP waits until everything runs; unheeded it would end the process in the middle of a recovery.
    let hangups = runtime.block_on(async { signal(SignalKind::hangup()) })?;
    let config = super::load_with_kafka(&context.file()?)?;
    let format = if args.log_format == LogFormat::Json { log::Format::Json } else { log::Format::Text };
    log::start(format, std::io::stderr().is_terminal());
    let metrics = Arc::new(Metrics::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    raise_file_limit(files_needed(&config));
    let dir = &config.journal.dir;
    let disk = LocalDisk::create(dir).map_err(|error| at(dir, error))?;
    let journal = match open_journal(disk, &config, &clock, &metrics) {
        Ok(journal) => journal,
        Err(error @ OpenError::Locked) => return Err(at(dir, error)),
        Err(error) => {
            super::explain(at(dir, error).as_ref());
            return Ok(ExitStatus::JournalFailed);
        }
    };
    let ended = runtime.block_on(House { config, metrics, clock, journal: journal.clone(), hangups }.serve());
    let already_failed = journal.failed();
    if !already_failed {
        journal.close();
    }
    // What hangs on a dying disk, or reads a file that never ends, must not hold up the end. Until here a second signal ends it.
    runtime.shutdown_timeout(FAREWELL);
    if journal.failed() {
        if !already_failed {
            tracing::error!("the journal has failed while it was being closed; ending with exit code 3");
        }
        return Ok(ExitStatus::JournalFailed);
    }
    tracing::info!("stopped");
    ended
}

fn open_journal(disk: LocalDisk, config: &Config, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> Result<Journal, OpenError> {
    let dir = &config.journal.dir;
    if let Ok((file_system, false)) = journal::file_system(dir) {
        let risk = "a 2xx may not survive a power cut: what a sync promises is known for ext4 and XFS only";
        tracing::warn!(file_system, dir = %dir.display(), "{risk}");
    }
    let options = Options {
        max_size: config.journal.max_size,
        retain: config.journal.retain,
        segment_size: config.journal.segment_size,
        max_backlog: config.journal.max_backlog,
        dedupe_window: reload::longest_window(config),
        max_key_bytes: config.dedupe.max_disk,
        forwards: config.kafka.is_some(),
    };
    Journal::open(Arc::new(disk), options, clock.clone(), metrics.clone())
}

/// What went wrong in which directory, with its cause.
#[derive(Debug, thiserror::Error)]
#[error("{place}")]
struct At {
    place: String,
    source: Box<dyn Error>,
}

fn at(place: &Path, error: impl Error + 'static) -> Box<dyn Error> {
    Box::new(At { place: place.display().to_string(), source: error.into() })
}

/// Each connection and each segment takes a descriptor.
fn files_needed(config: &Config) -> u64 {
    let segments = config.journal.max_size / config.journal.segment_size;
    config.server.max_connections + segments + FILES_BESIDES
}

/// The usual soft limit of 1024 is soon used up: takes all that the hard limit gives, and says when that is too little.
fn raise_file_limit(needed: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = current == maximum || setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        let hint = "connections beyond it wait: raise LimitNOFILE in the systemd unit, `ulimit -Hn` in a shell or --ulimit nofile \
                    of a container, or lower max_connections";
        tracing::warn!(limit, needed, hint, "the limit of open files is too low for max_connections and the journal");
    }
}

/// Everything that is open while the gateway runs.
struct House {
    config: Config,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    journal: Journal,
    hangups: Signal,
}

/// Empty without `[kafka]`, and once passing on has been stopped.
type Passing = Arc<Mutex<Option<Forwarder>>>;

impl House {
    async fn serve(self) -> VerbResult {
        let deliveries = listen("server.listen", self.config.server.listen)?;
        let operators = listen("admin.listen", self.config.admin.listen)?;
        let failure = failure_of(&self.journal);
        let passing: Passing = Arc::new(Mutex::new(self.start_passing_on()));
        let sources = self.config.sources.iter().cloned();
        let gateway = Arc::new(Gateway::new(sources, self.journal.clone(), self.config.dedupe.hot_keys, &self.metrics));
        gateway.rejections().set_limit(self.config.admin.keep_rejected as usize);
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
        heed_signals(stop.clone(), self.hangups, reload.clone())?;
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
            return Ok(ExitStatus::JournalFailed);
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
        Ok(ExitStatus::Done)
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
        Server { gateway, limits: limits(config), tls, proxies, clock, metrics }
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

fn limits(config: &ServerConfig) -> Limits {
    Limits {
        request_deadline: config.request_deadline,
        max_connections: config.max_connections as usize,
        max_connections_per_address: config.max_connections_per_address as usize,
        max_in_flight: config.max_in_flight as usize,
        max_in_flight_per_address: config.max_in_flight_per_address as usize,
        max_rejected_per_address: config.max_rejected_per_address,
        max_addresses: config.max_addresses as usize,
        min_rate: config.min_rate,
        min_rate_after: config.min_rate_after,
        drain_delay: config.drain_delay,
        drain_deadline: config.drain_deadline,
        max_header_size: config.max_header_size as usize,
        max_headers: config.max_headers as usize,
        idle_timeout: config.idle_timeout,
        handshake_timeout: config.handshake_timeout,
        max_streams: config.max_streams as usize,
    }
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

fn heed_signals(stop: Shutdown, mut hangups: Signal, reload: Arc<Reload>) -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
                _ = hangups.recv() => {
                    let reload = reload.clone();
                    tokio::task::spawn_blocking(move || reload.run());
                    continue;
                }
            };
            let again = stop.begun();
            tracing::info!(signal = name, again, "stopping; a second signal ends at once");
            stop.signal();
            if again {
                tokio::spawn(end_by_force());
            }
        }
    });
    Ok(())
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

/// A disk or a broker that hangs may hold up an orderly end; what was answered 2xx is on disk all the same.
async fn end_by_force() {
    tokio::time::sleep(FAREWELL).await;
    tracing::warn!("not everything ended in time; leaving");
    std::process::exit(ExitStatus::Failed as i32);
}

/// Between a failed sync or a second signal and the end: time for the answers to be written.
const FAREWELL: Duration = Duration::from_secs(1);
/// Files besides connections and segments: key files being read, the admin listener's connections, Kafka's, the program's own.
const FILES_BESIDES: u64 = 256;
/// How often the secrets' ends are looked at; each is spoken of once a day.
const LOOK_AT_SECRETS: Duration = Duration::from_secs(3600);
/// How long a stop, or a change of the Kafka client, waits for Kafka. What is not acknowledged by then is passed on again at the next start.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(3);
const POISON: &str = "nothing panics while it holds this lock";
