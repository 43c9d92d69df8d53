//! The command line: one file per verb. A verb returns how the process ends; what it could not do comes back as one
//! error, printed here on one line with its causes.

mod ask;
mod check;
mod diff;
mod doctor;
mod init;
mod journal;
mod providers;
mod run;
mod send;
mod table;
mod tail;

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};
use hookhold::config::{Config, JournalConfig, KafkaCheck};
use hookhold::diagnostic::{Diagnostics, nearest};
use hookhold::journal::ReadOnlyJournal;
use hookhold::journal::disk::LocalDisk;

/// What a verb returns: how the process ends, or the reason why it could not do its work.
type VerbResult = Result<ExitStatus, Box<dyn Error>>;

/// Receives webhooks, verifies them, keeps them on disk, and passes them on to Kafka.
///
/// A delivery is answered 2xx only when it is verified and on disk. Repeats are answered 2xx and dropped. Kafka may be away
/// for days: senders do not notice.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = AFTER)]
struct Cli {
    /// The configuration [default: hookhold.toml here, else /etc/hookhold/hookhold.toml].
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How results are printed: text for people, json with one object per line.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    format: OutputFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Init(init::InitArgs),
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Send(send::SendArgs),
    Tail(tail::TailArgs),
    Doctor(doctor::DoctorArgs),
    Journal(journal::JournalArgs),
    Providers(providers::ProvidersArgs),
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

/// What every verb gets to know.
struct Context {
    config: Option<PathBuf>,
    format: OutputFormat,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExitStatus {
    /// The work is done.
    Done,
    /// The work failed.
    Failed,
    /// The configuration or the command line is wrong.
    Usage,
    /// The journal failed.
    JournalFailed,
}

/// The command line asks for something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Nothing can be looked at.
#[derive(Debug, thiserror::Error)]
#[error("no journal in {}; the first start of hookhold run makes it", dir.display())]
struct NoJournal {
    dir: PathBuf,
    source: std::io::Error,
}

/// Reads the command line, runs its verb and returns the exit code. Wrong usage ends the process with exit code 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context { config: cli.config, format: cli.format };
    let ending = match cli.verb {
        Verb::Init(args) => init::run(&context, args),
        Verb::Run(args) => run::run(&context, args),
        Verb::Check(args) => check::run(&context, args),
        Verb::Providers(args) => providers::run(&context, args),
        Verb::Send(args) => send::run(&context, args),
        Verb::Tail(args) => tail::run(&context, args),
        Verb::Doctor(args) => doctor::run(&context, args),
        Verb::Journal(args) => journal::run(&context, args),
    };
    let end = ending.unwrap_or_else(|error| explain(error.as_ref()));
    ExitCode::from(end as u8)
}

/// Prints the error, unless it only says that nobody reads our output any more.
fn explain(error: &(dyn Error + 'static)) -> ExitStatus {
    let chain: Vec<&(dyn Error + 'static)> = std::iter::successors(Some(error), |&error| error.source()).collect();
    if chain.iter().any(|error| is_broken_pipe(*error)) {
        return ExitStatus::Done;
    }
    let name = if error.is::<Diagnostics>() { "" } else { "hookhold: " };
    let _ = writeln!(anstream::stderr(), "{name}{}", causes(error));
    if error.is::<UsageError>() || error.is::<Diagnostics>() { ExitStatus::Usage } else { ExitStatus::Failed }
}

/// An error and what caused it, on one line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    let mut causes: Vec<String> = chain.map(|error| error.to_string()).collect();
    causes.dedup();
    causes.join(": ")
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let json = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    io.or(json) == Some(ErrorKind::BrokenPipe)
}

impl Context {
    /// The configuration that the command line or the usual places name.
    fn load(&self) -> Result<Config, Box<dyn Error>> {
        Ok(Config::load(&self.file()?, KAFKA)?)
    }

    /// The journal that the configuration names, to be looked at from outside.
    fn journal(&self) -> Result<ReadOnlyJournal, Box<dyn Error>> {
        let dir = JournalConfig::load(&self.file()?)?.dir;
        let disk = LocalDisk::existing(&dir).map_err(|source| NoJournal { dir, source })?;
        Ok(ReadOnlyJournal::open(Arc::new(disk))?)
    }

    fn file(&self) -> Result<PathBuf, UsageError> {
        let missing = "no configuration: neither ./hookhold.toml nor /etc/hookhold/hookhold.toml exists; name one with --config";
        Config::find(self.config.clone()).ok_or_else(|| UsageError(missing.to_owned()))
    }

    fn json(&self) -> bool {
        self.format == OutputFormat::Json
    }
}

/// The command line names a source that is not there.
fn unknown_source(name: &str, names: &[String]) -> UsageError {
    let hint = nearest(name, names).map_or(String::new(), |near| format!(", did you mean {near}?"));
    UsageError(format!("no source is called {}{hint}; configured: {}", name.escape_debug(), names.join(", ")))
}

/// Judges one librdkafka property.
const KAFKA: KafkaCheck = hookhold::forward::check_setting;

const AFTER: &str = "\
Examples:
  hookhold init stripe github         a configuration for both, and what to paste where
  hookhold providers stripe           what to paste where in Stripe's dashboard
  hookhold check                      every mistake of ./hookhold.toml at once
  hookhold run                        receive, keep, pass on, until SIGTERM
  hookhold send stripe --count 100    100 genuine deliveries to the running gateway
  hookhold tail --follow              what is being kept, as it arrives
  hookhold doctor stripe              why its latest deliveries were refused, and what would be believed

Exit codes:
  0  done
  1  the work failed
  2  the command line or the configuration is wrong
  3  the journal failed: the disk can no longer be trusted, look at it before the next start";
