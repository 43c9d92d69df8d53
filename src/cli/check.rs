//! `hookhold check`: every mistake of a configuration at once, or a summary of what it says.

use std::io::{self, Write};

use hookhold::config::Config;
use hookhold::journal;
use hookhold::mistake::Mistake;
use hookhold::source::Source;
use serde_json::json;

use super::{Context, End, Ending, Usage, table};

/// Report every mistake in the configuration, without starting anything.
///
/// Each mistake comes with file, line, key and what is allowed. Without mistakes: the sources with the URL to paste, their
/// topics and the names of their secrets, and the file system of the journal. Secrets themselves are never printed.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the report; exit code 2 when there is a mistake.
pub fn run(context: &Context, _: Args) -> Ending {
    let file = context.file()?;
    let mut out = anstream::stdout().lock();
    match super::load_with_kafka(&file) {
        Ok(config) if context.json() => summary_json(&mut out, &config)?,
        Ok(config) => summary(&mut out, &config)?,
        Err(mistakes) => {
            let all = mistakes.sorted();
            all.iter().try_for_each(|mistake| report(&mut out, mistake, context.json()))?;
            out.flush()?;
            let plural = if all.len() == 1 { "mistake" } else { "mistakes" };
            return Err(Usage(format!("{} {plural} in {}", all.len(), file.display())).into());
        }
    }
    out.flush()?;
    Ok(End::Done)
}

fn report(out: &mut impl Write, mistake: &Mistake, json: bool) -> io::Result<()> {
    if !json {
        return writeln!(out, "{mistake}");
    }
    let Mistake { file, line, key, what } = mistake;
    writeln!(out, "{}", json!({ "file": file, "line": line, "key": key, "mistake": what }))
}

fn summary(out: &mut impl Write, config: &Config) -> io::Result<()> {
    writeln!(out, "{}: no mistakes\n", config.path.display())?;
    let mut sources = table::new(&["SOURCE", "URL", "TOPIC", "SECRETS"], &[]);
    for source in &config.sources {
        sources.add_row([source.name.to_string(), url(config, source), source.topic.to_string(), secrets(source).join(", ")]);
    }
    writeln!(out, "{}\n", sources.trim_fmt())?;
    writeln!(out, "journal  {} on {}", config.journal.dir.display(), file_system(config)?.0)?;
    writeln!(out, "kafka    {}", servers(config).unwrap_or("not configured: events stay in the journal"))?;
    writeln!(out, "admin    http://{}/", config.admin.listen)?;
    match warning(config)? {
        Some(warning) => writeln!(out, "\nwarning: {warning}"),
        None => Ok(()),
    }
}

fn summary_json(out: &mut impl Write, config: &Config) -> io::Result<()> {
    let source = |source: &Source| {
        let (name, url) = (source.name.as_ref(), url(config, source));
        json!({ "name": name, "url": url, "path": source.path, "topic": source.topic.as_ref(), "secrets": secrets(source) })
    };
    let summary = json!({
        "file": config.path,
        "sources": config.sources.iter().map(source).collect::<Vec<_>>(),
        "journal": { "dir": config.journal.dir, "file_system": file_system(config)?.0 },
        "kafka": servers(config),
        "warning": warning(config)?,
    });
    writeln!(out, "{summary}")
}

/// What to paste into a dashboard, as far as the configuration knows it.
fn url(config: &Config, source: &Source) -> String {
    let (listen, path) = (config.server.listen, &source.path);
    match &source.public_url {
        Some(public) => format!("{}{path}", public.as_written()),
        None if listen.ip().is_unspecified() => format!("http://HOST:{}{path}", listen.port()),
        None => format!("http://{listen}{path}"),
    }
}

fn secrets(source: &Source) -> Vec<&str> {
    source.secrets.iter().map(|secret| secret.name.as_ref()).collect()
}

fn servers(config: &Config) -> Option<&str> {
    let all = &config.kafka.as_ref()?.librdkafka;
    all.iter()
        .find(|(name, _)| name == "bootstrap.servers" || name == "metadata.broker.list")
        .map(|(_, servers)| servers.as_str())
}

/// The journal's file system by name, and whether its promises are known to hold.
fn file_system(config: &Config) -> io::Result<(String, bool)> {
    let whole = std::path::absolute(&config.journal.dir)?;
    journal::file_system(whole.ancestors().find(|dir| dir.exists()).unwrap_or(&whole))
}

fn warning(config: &Config) -> io::Result<Option<String>> {
    let (name, trusted) = file_system(config)?;
    let text = || format!("{name}: a 2xx means on disk only where sync is honest; that is known of ext4 and XFS");
    Ok((!trusted).then(text))
}
