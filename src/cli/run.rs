//! `hookhold run`: runs a [`Service`], and handles the arguments, the log, the open-file limit, the signals and the exit code.

mod file_limit;
mod passed_sockets;
mod service_manager;
mod signals;
mod start;
mod start_lines;
mod upgrade;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use hookhold::clock::SystemClock;
use hookhold::journal::OpenError;
use hookhold::log;
use hookhold::server::Shutdown;
use hookhold::service::{self, DeliveryLog, LAST_RESPONSES, Preparation, StartError};

use signals::EarlySignals;
use upgrade::UpgradeCommand;

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
/// SIGUSR2 upgrades hookhold: it starts the program that now stands at the path of this one, with the same arguments and
/// --take-over. If the new process fails, this one continues. No connection fails and no delivery is lost.
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
    /// Take over the listening sockets and the journal of the running process, which then ends. Start normally if there is none.
    #[arg(long)]
    take_over: bool,
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
    let (sockets, upgrade) = (passed_sockets::take()?, UpgradeCommand::of_this_process(context.config.as_deref()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Catches these signals before recovery starts. Otherwise, one of them during recovery would end the process. See `signals`.
    let early = runtime.block_on(async { EarlySignals::catch() })?;
    let config = service::load_config(&context.file()?)?;
    let format = if args.log_format == LogFormat::Json { log::Format::Json } else { log::Format::Text };
    let is_terminal = io::stderr().is_terminal();
    log::start(format, super::stderr_has_colour());
    start_lines::log_config(&config);
    passed_sockets::log(&sockets);
    file_limit::raise(&config);
    let shutdown = Shutdown::new();
    let in_journal = |error: &(dyn Error + 'static)| format!("{}: {}", config.journal.dir.display(), super::causes(error));
    if let Some(error) = volume::error(&config.journal, &volume::file_system(&config.journal)?) {
        return Err(UsageError(error).into());
    }
    let disk = Arc::new(volume::open(&config.journal).map_err(|error| in_journal(&error))?);
    let preparation = {
        let _entered = runtime.enter();
        Preparation::new(config.clone(), disk.clone(), Arc::new(SystemClock), shutdown.clone())?
    };
    let (service, listeners) = match start::open(&runtime, &preparation, (&config, &disk), sockets, args.take_over) {
        Ok(opened) => opened,
        Err(error) => match error.downcast::<StartError>().map(|error| *error) {
            Ok(StartError::Journal(error @ OpenError::Locked)) => return Err(in_journal(&error).into()),
            Ok(StartError::Journal(error)) => {
                super::report(&*Box::<dyn Error>::from(in_journal(&error)));
                return Ok(ExitStatus::JournalFailed);
            }
            Ok(error) => return Err(error.into()),
            Err(error) => return Err(error),
        },
    };
    start_lines::log_journal(&config, &service);
    service.log_deliveries(args.log_deliveries.unwrap_or(LoggedDeliveries::by_default(is_terminal)).into())?;
    let served = runtime.block_on(start::serve(&service, &config, listeners, || {
        signals::handle(service.clone(), shutdown, early, upgrade)?;
        service_manager::ready();
        Ok(())
    }));
    let successor = service.successor();
    successor.into_iter().for_each(service_manager::succeeded_by);
    let stopped = service.stop();
    let released = service.release();
    // Work that hangs on a broken disk or reads an endless file must not delay the exit. The shutdown of the runtime ends the
    // task that handles signals, so a second signal no longer ends the process. The shutdown therefore has a timeout.
    runtime.shutdown_timeout(LAST_RESPONSES);
    if let Err(error) = stopped {
        tracing::error!("{error}; exiting with code 3; check the disk");
        return Ok(ExitStatus::JournalFailed);
    }
    released.map_err(|error| {
        format!("hand-over: expected a process that takes over, found that it has ended ({error}); start hookhold")
    })?;
    tracing::info!(successor, "stopped");
    served.map(|()| ExitStatus::Done)
}
