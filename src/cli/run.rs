//! `hookhold run`: opens the journal, the listeners and Kafka, in this order; serves until a signal; closes them in the
//! opposite one.

use std::error::Error;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use hookhold::clock::{Clock, SystemClock};
use hookhold::config::Config;
use hookhold::journal::OpenError;
use hookhold::journal::disk::LocalDisk;
use hookhold::log;
use hookhold::metrics::Metrics;
use hookhold::server::Shutdown;
use hookhold::service::{self, FAREWELL, House, Reload};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Context, ExitStatus, VerbResult};

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
    let config = service::load_with_kafka(&context.file()?)?;
    let format = if args.log_format == LogFormat::Json { log::Format::Json } else { log::Format::Text };
    log::start(format, std::io::stderr().is_terminal());
    let metrics = Arc::new(Metrics::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    raise_file_limit(files_needed(&config));
    let dir = &config.journal.dir;
    let disk = LocalDisk::create(dir).map_err(|error| at(dir, error))?;
    let journal = match service::open_journal(disk, &config, &clock, &metrics) {
        Ok(journal) => journal,
        Err(error @ OpenError::Locked) => return Err(at(dir, error)),
        Err(error) => {
            super::explain(at(dir, error).as_ref());
            return Ok(ExitStatus::JournalFailed);
        }
    };
    let house = House { config, metrics, clock, journal: journal.clone() };
    let ended = runtime.block_on(house.serve(|stop, reload| heed_signals(stop, hangups, reload)));
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
    ended?;
    Ok(ExitStatus::Done)
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
    let segments = config.journal.limits.max_size / config.journal.limits.segment_size;
    config.server.limits.max_connections as u64 + segments + FILES_BESIDES
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

/// A disk or a broker that hangs may hold up an orderly end; what was answered 2xx is on disk all the same.
async fn end_by_force() {
    tokio::time::sleep(FAREWELL).await;
    tracing::warn!("not everything ended in time; leaving");
    std::process::exit(ExitStatus::Failed as i32);
}

/// Files besides connections and segments: key files being read, the admin listener's connections, Kafka's, the program's own.
const FILES_BESIDES: u64 = 256;
