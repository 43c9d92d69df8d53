//! The command line of hookhold, with one file per verb. A verb returns an exit status or one error. This file handles the
//! arguments that all verbs share, and prints the error of a verb on one line, followed by its causes. This file implements no
//! verb.

mod ask;
mod body_text;
mod check;
mod completions;
mod confirm;
mod dev;
mod diff;
mod doctor;
mod duration_range;
mod event_post;
mod init;
mod inspect;
mod journal;
mod parked;
mod providers;
mod rejections;
mod replay;
mod run;
mod send;
mod send_rate;
mod status;
mod table;
mod tail;
mod time_bound;
mod unknown_verb;
mod unstored_credentials;
mod volume;

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};
use hookhold::build_info;
use hookhold::config::{self, Config, JournalConfig, KafkaCheck};
use hookhold::diagnostic::{Diagnostic, Diagnostics, SecretAccess, did_you_mean};
use hookhold::journal::ReadOnlyJournal;
use hookhold::journal::disk::LocalDisk;
use hookhold::source::Providers;

/// Result of a verb: the exit status, or the error that stopped the verb.
type VerbResult = Result<ExitStatus, Box<dyn Error>>;

/// Receive webhooks, verify them, store them on disk, and forward them to Kafka.
///
/// hookhold verifies each delivery and syncs its event to disk before answering with 2xx. hookhold also answers a duplicate
/// with 2xx, because the event of a duplicate is already on disk. Kafka may be down for days without any effect on senders.
#[derive(Parser)]
#[command(version, long_version = build_info::REPORT, max_term_width = 100, after_help = AFTER)]
struct Cli {
    /// Configuration file, or - for standard input [default: the file that HOOKHOLD_CONFIG names, else ./hookhold.toml if it exists,
    /// else /etc/hookhold/hookhold.toml].
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Format of the results: text, or json with one object per line.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    format: OutputFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Dev(dev::DevArgs),
    Init(init::InitArgs),
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Send(send::SendArgs),
    Status(status::StatusArgs),
    Tail(tail::TailArgs),
    Inspect(inspect::InspectArgs),
    Doctor(doctor::DoctorArgs),
    Rejections(rejections::RejectionsArgs),
    Replay(replay::ReplayArgs),
    Journal(journal::JournalArgs),
    Parked(parked::ParkedArgs),
    Providers(providers::ProvidersArgs),
    Completions(completions::CompletionsArgs),
}

/// Format in which a verb prints its results.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

/// Arguments that all verbs share.
struct Context {
    config: Option<PathBuf>,
    format: OutputFormat,
}

/// Exit status of the process. The discriminant is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExitStatus {
    /// The command succeeded.
    Done,
    /// The command failed, or a check found a problem.
    Failed,
    /// The configuration or the command line is invalid.
    Usage,
    /// The journal failed. The operator must check the disk.
    JournalFailed,
    /// Ctrl-C has stopped the command: 128 and the number of SIGINT.
    Interrupted = 130,
    /// SIGTERM has stopped the command: 128 and the number of SIGTERM.
    Terminated = 143,
}

/// An error on the command line or in the configuration. The process exits with code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// The error for a journal directory that hookhold cannot read.
#[derive(Debug, thiserror::Error)]
#[error("journal.dir: cannot read {}: {error}; {}", dir.display(), self.remedy())]
struct NoJournal {
    dir: PathBuf,
    error: std::io::Error,
}

impl NoJournal {
    fn remedy(&self) -> &'static str {
        match self.error.kind() {
            ErrorKind::PermissionDenied => "run this command as the user of hookhold, for example with `sudo -u`",
            _ => "check the path, or create the journal with `hookhold run`",
        }
    }
}

/// Parses the command line, runs the named verb and returns the exit code. If the command line is invalid, ends the process
/// with code 2.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| unknown_verb::explain(error).exit());
    let named = std::env::var_os(CONFIG_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    let context = Context { config: cli.config.or(named), format: cli.format };
    let result = match cli.verb {
        Verb::Dev(args) => dev::run(&context, args),
        Verb::Init(args) => init::run(&context, args),
        Verb::Run(args) => run::run(&context, args),
        Verb::Check(args) => check::run(&context, args),
        Verb::Providers(args) => providers::run(&context, args),
        Verb::Send(args) => send::run(&context, args),
        Verb::Status(args) => status::run(&context, args),
        Verb::Tail(args) => tail::run(&context, args),
        Verb::Inspect(args) => inspect::run(&context, args),
        Verb::Doctor(args) => doctor::run(&context, args),
        Verb::Rejections(args) => rejections::run(&context, args),
        Verb::Replay(args) => replay::run(&context, args),
        Verb::Journal(args) => journal::run(&context, args),
        Verb::Parked(args) => parked::run(&context, args),
        Verb::Completions(args) => completions::run(args),
    };
    let status = result.unwrap_or_else(|error| report(error.as_ref()));
    ExitCode::from(status as u8)
}

/// Prints an error to standard error and returns the exit status for this error. For a broken pipe, prints nothing and returns
/// success, because the program that reads the output has closed the pipe.
fn report(error: &(dyn Error + 'static)) -> ExitStatus {
    let chain: Vec<&(dyn Error + 'static)> = std::iter::successors(Some(error), |&error| error.source()).collect();
    if chain.iter().any(|error| is_broken_pipe(*error)) {
        return ExitStatus::Done;
    }
    let name = if error.is::<Diagnostics>() { "" } else { "hookhold: " };
    let _ = writeln!(anstream::stderr(), "{name}{}", causes(error));
    if error.is::<UsageError>() || error.is::<Diagnostics>() { ExitStatus::Usage } else { ExitStatus::Failed }
}

/// Returns the messages of an error and of its causes, joined on one line.
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
    /// Reads and checks the configuration file.
    fn load(&self) -> Result<Config, Box<dyn Error>> {
        Ok(Config::load(&self.file()?, KAFKA)?)
    }

    /// Reads and checks the configuration file as [`Context::load`] does. If the file has no error except for secrets that this
    /// process cannot read, returns the configuration without these secrets, and the errors.
    fn load_any(&self) -> Result<(Config, Option<Diagnostics>), Box<dyn Error>> {
        let file = self.file()?;
        Config::load(&file, KAFKA).map(|config| (config, None)).or_else(|errors| {
            let config = Config::load_with(&file, SecretAccess::Available, KAFKA).map_err(|_| errors.clone())?;
            Ok((config, Some(errors)))
        })
    }

    /// Returns the built-in recipes and the recipes in the directory `dir`, and the mistakes in the recipe files. If `dir` is
    /// `None`, reads the directory that the configuration file names, if there is such a file. If the configuration file or the
    /// directory is unreadable, returns the built-in recipes with this mistake.
    fn providers(&self, dir: Option<&Path>) -> Result<(Providers, Vec<Diagnostic>), Box<dyn Error>> {
        match (dir, Config::find(self.config.clone())) {
            (Some(dir), _) => Ok(config::read_providers(dir).map_err(|what| UsageError(format!("--providers-dir: {what}")))?),
            (None, Some(file)) if file.exists() => {
                Ok(config::load_providers(&file).unwrap_or_else(|diagnostics| (Providers::default(), diagnostics.sorted())))
            }
            (None, _) => Ok((Providers::default(), Vec::new())),
        }
    }

    /// Opens the journal read-only. Another process may be writing to the journal.
    fn journal(&self) -> Result<ReadOnlyJournal, Box<dyn Error>> {
        let config = JournalConfig::load(&self.file()?)?;
        Ok(ReadOnlyJournal::open(journal_disk(&config)?)?)
    }

    /// Finds the configuration file: the file that `--config` names, otherwise the first default file that exists.
    fn file(&self) -> Result<PathBuf, UsageError> {
        let missing = "--config: expected ./hookhold.toml or /etc/hookhold/hookhold.toml, found neither; \
                       name a file with --config, or create a file with `hookhold init`";
        Config::find(self.config.clone()).ok_or_else(|| UsageError(missing.to_owned()))
    }

    fn json(&self) -> bool {
        self.format == OutputFormat::Json
    }
}

/// Returns true if standard error may have colours: it is a terminal, and `NO_COLOR` is unset or empty (<https://no-color.org>).
fn stderr_has_colour() -> bool {
    anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}

/// Opens the existing directory of the journal.
fn journal_disk(config: &JournalConfig) -> Result<Arc<LocalDisk>, NoJournal> {
    let opened = LocalDisk::existing(&config.dir);
    opened.map(Arc::new).map_err(|error| NoJournal { dir: config.dir.clone(), error })
}

/// Returns the error for a source name that the configuration does not contain. The message lists the names of the configured
/// sources.
fn unknown_source(name: &str, names: &[String]) -> UsageError {
    unknown_name("SOURCE: expected a configured source", name, names)
}

/// Returns the error for an argument that is none of the known names. The message starts with `expected`, and lists these names.
fn unknown_name(expected: &str, name: &str, names: &[String]) -> UsageError {
    let (known, hint) = (names.join(", "), did_you_mean(name, names));
    UsageError(format!("{expected} ({known}), found {}{hint}", name.escape_debug()))
}

/// Returns the error for the mistakes in recipe files.
fn invalid_recipes(in_files: Vec<Diagnostic>) -> Diagnostics {
    let diagnostics = Diagnostics::default();
    in_files.into_iter().for_each(|diagnostic| diagnostics.add(diagnostic));
    diagnostics
}

/// Function that checks one librdkafka property. The command line passes this function to `config`, because `config` does not
/// depend on librdkafka.
const KAFKA: KafkaCheck = hookhold::forward::check_setting;

/// Environment variable with the path of the configuration file.
const CONFIG_VARIABLE: &str = "HOOKHOLD_CONFIG";

const AFTER: &str = "\
Examples:
  hookhold dev stripe                 receive on this machine at once, without a configuration
  hookhold init stripe github         write a configuration and show how to connect both
  hookhold providers stripe           show how to connect Stripe
  hookhold check                      report every error in ./hookhold.toml at once
  hookhold run                        receive, store and forward until SIGTERM
  hookhold send stripe --count 100    send 100 genuine deliveries to the running gateway
  hookhold tail --follow              print events as they are stored
  hookhold inspect evt_1              show one event, and where it is in Kafka
  hookhold rejections                 list the rejected deliveries, grouped by their cause
  hookhold doctor stripe              explain why recent deliveries were rejected
  hookhold status                     show what is lost or stuck, since when, why, and what to do
  hookhold parked list                list the events that Kafka has rejected

Exit codes:
  0  success
  1  the command failed
  2  the command line or the configuration is invalid
  3  the journal failed; check the disk before the next start
  130, 143  Ctrl-C or SIGTERM has stopped send or replay before its end";
