//! `hookhold check`: prints every error in the configuration, or a summary if the configuration is valid.

mod kafka;
mod warnings;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use hookhold::config::Config;
use hookhold::diagnostic::{Diagnostic, Diagnostics, SecretAccess};
use hookhold::forward::Inspection;
use hookhold::source::Source;
use serde_json::json;

use super::duration_range::within;
use super::{Context, ExitStatus, UsageError, VerbResult, table, volume};

/// Check the configuration without starting the gateway.
///
/// Prints all errors of the configuration in one run: file, line and key, expected value, found value, and remedy. If there is
/// no error, prints one row per source, with the URL to paste, the topic and the names of the secrets. After these rows, prints
/// the directory and the file system of the journal, the Kafka servers and the admin URL. Never prints a secret.
///
/// The option --no-secrets checks everything except the secrets, for a machine that does not have them, such as a CI runner. It reads
/// neither the secrets nor the files for TLS, and compares the configuration with no volume and no port of this machine.
///
/// The option --diff compares the configuration file with the configuration of the running process, and marks the changes that
/// need a restart. The running process itself reads the file, in its own environment, and applies nothing. The exit code is 0
/// only if a SIGHUP would succeed.
///
/// The option --kafka also connects to the Kafka cluster, and checks each topic to which a source forwards: that the topic
/// exists, that each partition has a leader and enough in-sync replicas, that hookhold may write to the topic, and that the
/// largest event fits. Each problem comes with a command or an action that removes it. The check stores no record in a topic:
/// it sends a record that Kafka rejects right after the check of the permission. The commands need Kafka's tools. If the cluster
/// requires a login, they also need a file client.properties with the credentials of an administrator. The exit code is 1 if
/// hookhold could not forward events at present. A warning does not change the exit code.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// Compare the configuration file with the configuration of the running process.
    #[arg(long)]
    diff: bool,
    /// Check everything except the secrets, which need not be set.
    #[arg(long, conflicts_with_all = ["diff", "kafka"])]
    no_secrets: bool,
    /// URL of the running process's admin listener [default: the configured [admin] listen, on this machine].
    #[arg(long, requires = "diff")]
    url: Option<String>,
    /// Connect to the Kafka cluster, and check each topic to which a source forwards.
    #[arg(long, conflicts_with = "diff")]
    kafka: bool,
    /// Longest wait for an answer from the Kafka cluster, from 1s to 10m.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = within(kafka::MIN_TIMEOUT..=kafka::MAX_TIMEOUT), requires = "kafka")]
    kafka_timeout: Duration,
}

/// Prints the report of `hookhold check`. If the configuration is invalid, returns a usage error, so that the process exits
/// with code 2. If hookhold could not forward events to Kafka at present, returns the exit status of a failure.
pub(super) fn run(context: &Context, args: CheckArgs) -> VerbResult {
    if args.diff {
        return super::diff::run(context, args.url);
    }
    let file = context.file()?;
    let mut out = anstream::stdout().lock();
    let loaded = match args.no_secrets {
        true => Config::load_with(&file, SecretAccess::None, super::KAFKA),
        false => hookhold::service::load_config(&file),
    };
    let config = match loaded {
        Ok(config) => config,
        Err(diagnostics) => return report_all(context, &file, &diagnostics, args.no_secrets, &mut out),
    };
    if args.no_secrets {
        match context.json() {
            true => summary_json(&mut out, &config, None, &[])?,
            false => {
                print_sources(&mut out, &config, "no errors")?;
                writeln!(out, "not checked: the secrets, the files for TLS, and the volume and the ports of this machine")?;
            }
        }
        out.flush()?;
        return Ok(ExitStatus::Done);
    }
    volume::check_directory(&config.journal)?;
    if let Some(error) = volume::error(&config.journal, &volume::file_system(&config.journal)?) {
        return Err(UsageError(error).into());
    }
    let settings = args.kafka.then(|| kafka::settings(&config, &file)).transpose()?;
    let inspect = || settings.as_ref().map(|settings| kafka::inspect(&config, settings, args.kafka_timeout)).transpose();
    let inspection = if context.json() {
        let inspection = inspect()?;
        summary_json(&mut out, &config, inspection.as_ref(), &warnings::all(&config)?)?;
        inspection
    } else {
        summary(&mut out, &config)?;
        out.flush()?;
        let inspection = inspect()?;
        inspection.iter().try_for_each(|inspection| kafka::print(&mut out, inspection))?;
        inspection
    };
    out.flush()?;
    Ok(inspection.as_ref().map_or(ExitStatus::Done, kafka::status))
}

/// Prints all errors, and returns the usage error with their number. Tells if only secrets are missing.
fn report_all(context: &Context, file: &Path, diagnostics: &Diagnostics, no_secrets: bool, out: &mut impl Write) -> VerbResult {
    let all = diagnostics.sorted();
    all.iter().try_for_each(|diagnostic| report(out, diagnostic, context.json()))?;
    out.flush()?;
    let plural = if all.len() == 1 { "error" } else { "errors" };
    let only_secrets = !no_secrets && Config::load_with(file, SecretAccess::Available, super::KAFKA).is_ok();
    let remedy = if only_secrets { "; all other options are valid; --no-secrets checks them without the secrets" } else { "" };
    Err(UsageError(format!("{} {plural} in {}{remedy}", all.len(), file.display())).into())
}

fn report(out: &mut impl Write, diagnostic: &Diagnostic, json: bool) -> io::Result<()> {
    if json { writeln!(out, "{}", json!(diagnostic)) } else { writeln!(out, "{diagnostic}") }
}

/// Prints the verdict on the file, then one row per source.
fn print_sources(out: &mut impl Write, config: &Config, verdict: &str) -> io::Result<()> {
    writeln!(out, "{}: {verdict}\n", config.path.display())?;
    let mut sources = table::new(&["SOURCE", "URL", "TOPIC", "SECRETS"], &[]);
    for source in &config.sources {
        sources.add_row([
            source.name.to_string(),
            url(config, source),
            source.topics.all().into_iter().map(|topic| &**topic).collect::<Vec<_>>().join(", "),
            secret_names(source).join(", "),
        ]);
    }
    writeln!(out, "{}\n", sources.trim_fmt())
}

fn summary(out: &mut impl Write, config: &Config) -> io::Result<()> {
    let warnings = warnings::all(config)?;
    let verdict = match warnings.len() {
        0 => "no errors".to_owned(),
        1 => "no errors, 1 warning (below)".to_owned(),
        count => format!("no errors, {count} warnings (below)"),
    };
    print_sources(out, config, &verdict)?;
    if let Some(dir) = config.providers.directory() {
        let names: Vec<&str> = config.providers.files().iter().map(|file| file.name.as_str()).collect();
        let names = if names.is_empty() { "no recipes".to_owned() } else { names.join(", ") };
        writeln!(out, "recipes  {names} in {}", dir.display())?;
    }
    let tls = if config.server.tls.is_some() { "HTTPS" } else { "plain HTTP" };
    writeln!(out, "listen   {} ({tls})", config.server.listen)?;
    writeln!(out, "journal  {} on {}", config.journal.dir.display(), volume::file_system(&config.journal)?.name)?;
    writeln!(out, "kafka    {}", servers(config).unwrap_or("not configured; events stay in the journal"))?;
    writeln!(out, "admin    http://{}/", config.admin.listen)?;
    warnings.iter().try_for_each(|warning| writeln!(out, "\nwarning: {warning}"))
}

fn summary_json(out: &mut impl Write, config: &Config, inspection: Option<&Inspection>, warnings: &[String]) -> io::Result<()> {
    let source = |source: &Source| {
        let (name, url) = (source.name.as_ref(), url(config, source));
        let names: Vec<&str> = source.keys.iter().map(|secret| &*secret.name).collect();
        let ends = source.keys.iter().filter_map(|secret| Some((&*secret.name, secret.not_after?.rfc3339())));
        let not_after: BTreeMap<_, _> = ends.collect();
        json!({
            "name": name,
            "url": url,
            "path": source.path,
            "topic": source.topics.all().first().map(|topic| &***topic),
            "topics": source.topics.all().into_iter().map(|topic| &**topic).collect::<Vec<_>>(),
            "secrets": names,
            "not_after": not_after,
            "danger_shadow": source.shadow,
        })
    };
    let replaced = config.providers.files().iter().filter(|file| file.is_replacement());
    let replaced: Vec<&String> = replaced.map(|file| &file.name).collect();
    let summary = json!({
        "file": config.path,
        "sources": config.sources.iter().map(|one| source(one)).collect::<Vec<_>>(),
        "journal": { "dir": config.journal.dir, "file_system": volume::file_system(&config.journal)?.name },
        "providers": config.providers.directory().map(|dir| json!({
            "dir": dir,
            "recipes": config.providers.files().iter().map(|file| &file.name).collect::<Vec<_>>(),
            "replaced": replaced,
        })),
        "kafka": inspection.map_or_else(|| json!(servers(config)), |inspection| kafka::to_json(inspection, servers(config))),
        "warnings": warnings,
    });
    writeln!(out, "{summary}")
}

/// Returns the URL that the operator pastes into the provider's dashboard. If the configuration contains no host, the URL
/// contains the placeholder `HOST`.
pub(super) fn url(config: &Config, source: &Source) -> String {
    let (listen, path) = (config.server.listen, &source.path);
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    match &source.public_url {
        Some(public) => format!("{public}{path}"),
        None if listen.ip().is_unspecified() => format!("{scheme}://HOST:{}{path}", listen.port()),
        None => format!("{scheme}://{listen}{path}"),
    }
}

/// Returns the name of each secret of a source, with the time of expiry if the secret has one.
fn secret_names(source: &Source) -> Vec<String> {
    let secrets = source.keys.iter();
    secrets
        .map(|secret| secret.not_after.map_or(secret.name.to_string(), |end| format!("{} until {}", secret.name, end.rfc3339())))
        .collect()
}

/// Returns the configured list of Kafka servers; `None` without `[kafka]`.
pub(super) fn servers(config: &Config) -> Option<&str> {
    let all = &config.kafka.as_ref()?.librdkafka;
    all.iter()
        .find(|(name, _)| name == "bootstrap.servers" || name == "metadata.broker.list")
        .map(|(_, servers)| servers.as_str())
}

const EXAMPLES: &str = "\
Examples:
  hookhold check                          report every error in the configuration file
  hookhold check --no-secrets             the same without the secrets, for example in CI
  hookhold check --diff                   show what a reload would change
  hookhold check --kafka                  also check the Kafka cluster and its topics
  hookhold check --kafka --format json    print the same as one JSON object, with kafka.findings";
