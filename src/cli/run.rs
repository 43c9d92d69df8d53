//! `hookhold run`: runs a [`Service`], and handles the arguments, the log, the open-file limit, the signals and the exit code.

mod signals;
mod start_lines;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use hookhold::clock::SystemClock;
use hookhold::config::Config;
use hookhold::journal::{MAX_PINNED_SEGMENTS, OpenError};
use hookhold::log;
use hookhold::server::Shutdown;
use hookhold::service::{self, DeliveryLog, LAST_RESPONSES, Listeners, ServeError, Service, StartError};
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, ExitStatus, UsageError, VerbResult, volume};

/// Run the gateway until SIGTERM or SIGINT.
///
/// After the first SIGTERM or SIGINT, /readyz responds with 503. hookhold closes the listener after drain_delay, and answers
/// open requests within drain_deadline. A second SIGTERM or SIGINT ends the process at once. Even then, every delivery that
/// hookhold answered with 2xx is on disk.
///
/// SIGHUP reloads the configuration and its secrets. If the file is invalid, or if a change in the file needs a restart,
/// hookhold applies nothing and logs the reason. `hookhold check --diff` shows the changes beforehand.
///
/// The log is on standard error. The environment variable HOOKHOLD_LOG sets its level, such as debug or warn. A rejected delivery
/// always has a line, although hookhold limits the number of such lines per second.
#[derive(clap::Args)]
pub struct RunArgs {
    /// Format of log lines on standard error: text or json.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Accepted deliveries in the log: each (a line with type, id and sequence), summary (a line per source and minute) or off
    /// [default: each if standard error is a terminal, else summary].
    #[arg(long, value_enum, value_name = "WHICH", hide_possible_values = true)]
    log_deliveries: Option<LoggedDeliveries>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LoggedDeliveries {
    Each,
    Summary,
    Off,
}

impl LoggedDeliveries {
    /// Returns the deliveries that the log contains if the operator has not chosen.
    fn by_default(is_terminal: bool) -> LoggedDeliveries {
        if is_terminal { LoggedDeliveries::Each } else { LoggedDeliveries::Summary }
    }
}

impl From<LoggedDeliveries> for DeliveryLog {
    fn from(logged: LoggedDeliveries) -> DeliveryLog {
        match logged {
            LoggedDeliveries::Each => DeliveryLog::Each,
            LoggedDeliveries::Summary => DeliveryLog::Summary,
            LoggedDeliveries::Off => DeliveryLog::Off,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Runs the gateway and returns the exit status of the process.
pub fn run(context: &Context, args: RunArgs) -> VerbResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Catches SIGHUP before recovery starts. Otherwise, a SIGHUP during recovery would end the process. See `signals`.
    let hangups = runtime.block_on(async { signal(SignalKind::hangup()) })?;
    let config = service::load_config(&context.file()?)?;
    let format = if args.log_format == LogFormat::Json { log::Format::Json } else { log::Format::Text };
    let is_terminal = io::stderr().is_terminal();
    log::start(format, super::stderr_has_colour());
    start_lines::log_config(&config);
    raise_file_limit(files_needed(&config));
    let shutdown = Shutdown::new();
    let in_journal = |error: &(dyn Error + 'static)| format!("{}: {}", config.journal.dir.display(), super::causes(error));
    if let Some(error) = volume::error(&config.journal, &volume::file_system(&config.journal)?) {
        return Err(UsageError(error).into());
    }
    let disk = volume::open(&config.journal).map_err(|error| in_journal(&error))?;
    let opened = {
        let _runtime = runtime.enter();
        Service::open(config.clone(), Arc::new(disk), Arc::new(SystemClock), shutdown.clone())
    };
    let service = match opened {
        Ok(service) => service,
        Err(StartError::Journal(error @ OpenError::Locked)) => return Err(in_journal(&error).into()),
        Err(StartError::Journal(error)) => {
            super::report(&*Box::<dyn Error>::from(in_journal(&error)));
            return Ok(ExitStatus::JournalFailed);
        }
        Err(error) => return Err(error.into()),
    };
    start_lines::log_journal(&config, &service);
    service.log_deliveries(args.log_deliveries.unwrap_or(LoggedDeliveries::by_default(is_terminal)).into())?;
    let served: Result<(), Box<dyn Error>> = runtime.block_on(async {
        let listeners = Listeners::open(&config)?;
        let serving = service.start(listeners)?;
        signals::handle(service.clone(), shutdown, hangups)?;
        match serving.await {
            // `Service::stop`, below, returns the journal's error again.
            Err(ServeError::Journal(_)) => Ok(()),
            served => Ok(served?),
        }
    });
    let stopped = service.stop();
    // Work that hangs on a broken disk or reads an endless file must not delay the exit. The shutdown of the runtime ends the
    // task that handles signals, so a second signal no longer ends the process. The shutdown therefore has a timeout.
    runtime.shutdown_timeout(LAST_RESPONSES);
    if let Err(error) = stopped {
        tracing::error!("{error}; exiting with code 3; check the disk");
        return Ok(ExitStatus::JournalFailed);
    }
    tracing::info!("stopped");
    served.map(|()| ExitStatus::Done)
}

/// Returns the number of file descriptors that connections, segments and other files need.
fn files_needed(config: &Config) -> u64 {
    let segments = config.journal.limits.max_size / config.journal.limits.segment_size;
    config.server.limits.max_connections as u64 + segments + MAX_PINNED_SEGMENTS + OTHER_FILES
}

/// Raises the soft open-file limit to the hard limit, and warns if the hard limit is too low. The usual soft limit of 1024 is
/// below the default of `max_connections`.
fn raise_file_limit(needed: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = current == maximum || setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        let hint = "raise LimitNOFILE in the systemd unit, `ulimit -Hn` in a shell or --ulimit nofile of a container, or lower \
                    max_connections; until then, connections above the limit wait";
        tracing::warn!(limit, needed, hint, "open-file limit: expected at least {needed}, found {limit}");
    }
}

/// Number of file descriptors for key files, for connections of the admin listener and of the Kafka client, and for the
/// program's own files.
const OTHER_FILES: u64 = 256;
