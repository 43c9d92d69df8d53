//! `hookhold journal`: inspects the journal without changing it, even while `run` writes to it. `release` gives up events, in a
//! running process or in a stopped journal. `new-identity` needs a stopped journal.

mod new_identity;
mod release;

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;

use hookhold::config::JournalConfig;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{JournalStat, OpenError, TopicStat, VerifyReport, id_text};
use hookhold::units::bytes_about;
use serde_json::json;

use super::{Context, ExitStatus, UsageError, VerbResult, causes, journal_disk, report, table, volume};

/// Show the journal's sizes and cursors, verify every frame, or change a stopped journal.
#[derive(clap::Args)]
pub(super) struct JournalArgs {
    #[command(subcommand)]
    verb: JournalVerb,
}

#[derive(clap::Subcommand)]
enum JournalVerb {
    /// Show sizes, cursors, and the number of events that wait for Kafka.
    Stat,
    /// Verify every frame. The exit code is 1 if a frame is damaged or a segment is missing.
    Verify,
    Release(release::ReleaseArgs),
    NewIdentity(new_identity::NewIdentityArgs),
}

/// Prints the statistics of the journal, or the result of verifying every frame, or changes a stopped journal.
pub(super) fn run(context: &Context, args: JournalArgs) -> VerbResult {
    let mut out = anstream::stdout().lock();
    let end = match args.verb {
        JournalVerb::Stat => {
            let stat = context.journal()?.stat()?;
            if context.json() {
                stat_json(&mut out, &stat)?
            } else {
                stat_text(&mut out, &stat)?
            }
            ExitStatus::Done
        }
        JournalVerb::Verify => {
            let report = context.journal()?.verify()?;
            if context.json() {
                report_json(&mut out, &report)?
            } else {
                report_text(&mut out, &report)?
            }
            if report.damage.is_empty() && report.missing.is_empty() { ExitStatus::Done } else { ExitStatus::Failed }
        }
        JournalVerb::Release(args) => release::run(context, &args, &mut out)?,
        JournalVerb::NewIdentity(args) => new_identity::run(context, &args, &mut out)?,
    };
    out.flush()?;
    Ok(end)
}

/// Opens the directory of the journal for a verb that changes the journal.
fn disk_for_changes(config: &JournalConfig) -> Result<Arc<LocalDisk>, Box<dyn Error>> {
    match volume::error(config, &volume::file_system(config)?) {
        Some(error) => Err(UsageError(error).into()),
        None => Ok(journal_disk(config)?),
    }
}

/// Prints the error of an opening for writing, and returns the exit status.
fn report_open_error(config: &JournalConfig, error: &OpenError) -> ExitStatus {
    let advice = if matches!(error, OpenError::Locked) { ", repeat this command, and start hookhold again" } else { "" };
    let what = format!("{}: {}{advice}", config.dir.display(), causes(error));
    report(&*Box::<dyn Error>::from(what));
    if matches!(error, OpenError::Locked) { ExitStatus::Failed } else { ExitStatus::JournalFailed }
}

fn stat_text(out: &mut impl Write, stat: &JournalStat) -> io::Result<()> {
    let state = if stat.in_use { "in use" } else { "not in use" };
    writeln!(out, "state     {state}")?;
    writeln!(out, "id        {}", stat.id.map_or_else(|| "unknown".to_owned(), id_text))?;
    writeln!(out, "segments  {}, {}; key files {}", stat.segments, bytes_about(stat.bytes), bytes_about(stat.key_bytes))?;
    writeln!(out, "events    {}, oldest {}, next {}", stat.events, stat.oldest, stat.next)?;
    if stat.topics.is_empty() {
        return Ok(());
    }
    let mut topics = table::new(&["TOPIC", "EVENTS", "BYTES", "CURSOR", "WAITING", "PINNED"], &[1, 2, 3, 4, 5]);
    for topic in &stat.topics {
        let [cursor, waiting, pinned] = match topic.cursor {
            Some(cursor) => [cursor.to_string(), topic.waiting.to_string(), bytes_about(topic.pinned)],
            None => [(); 3].map(|()| "-".to_owned()),
        };
        topics.add_row([topic.topic.to_string(), topic.events.to_string(), bytes_about(topic.bytes), cursor, waiting, pinned]);
    }
    writeln!(out, "\n{}", topics.trim_fmt())
}

fn stat_json(out: &mut impl Write, stat: &JournalStat) -> io::Result<()> {
    let topic = |topic: &TopicStat| {
        json!({
            "topic": topic.topic.as_ref(),
            "cursor": topic.cursor,
            "waiting": topic.waiting,
            "waiting_bytes": topic.waiting_bytes,
            "events": topic.events,
            "bytes": topic.bytes,
            "pinned": topic.pinned,
        })
    };
    let object = json!({
        "in_use": stat.in_use,
        "id": stat.id.map(id_text),
        "segments": stat.segments,
        "bytes": stat.bytes,
        "key_bytes": stat.key_bytes,
        "events": stat.events,
        "oldest": stat.oldest,
        "next": stat.next,
        "lanes": stat.topics.iter().map(topic).collect::<Vec<_>>(),
    });
    writeln!(out, "{object}")
}

fn report_text(out: &mut impl Write, report: &VerifyReport) -> io::Result<()> {
    for damage in &report.damage {
        let (from, to) = (damage.bytes.start, damage.bytes.end);
        writeln!(out, "damaged: {}, bytes {from} to {to} ({})", damage.file, bytes_about(to - from))?;
    }
    for file in &report.missing {
        writeln!(out, "missing: {file}; restore it now, or `hookhold run` counts its events as lost at its next start")?;
    }
    if report.lost > 0 {
        writeln!(out, "{} sequences of lost events are recorded; hookhold stores retries of these events", report.lost)?;
    }
    if report.unconfirmed > 0 {
        let count = report.unconfirmed;
        writeln!(
            out,
            "{count} unconfirmed events are at or above the durable watermark; `hookhold run` syncs them at its next start"
        )?;
    }
    let found = match report.damage.len() {
        0 if report.missing.is_empty() => "no damage".to_owned(),
        0 => "no damage in the files that exist".to_owned(),
        count => format!("{count} damaged ranges; the events in these ranges are lost, and all other events are readable"),
    };
    writeln!(out, "{} events in {} segments, {found}", report.events, report.segments)
}

fn report_json(out: &mut impl Write, report: &VerifyReport) -> io::Result<()> {
    let damage = report.damage.iter().map(|damage| {
        let (from, to) = (damage.bytes.start, damage.bytes.end);
        json!({ "file": damage.file, "from": from, "to": to })
    });
    let object = json!({
        "events": report.events,
        "segments": report.segments,
        "unsure": report.unconfirmed,
        "damage": damage.collect::<Vec<_>>(),
        "missing": report.missing,
        "lost": report.lost,
    });
    writeln!(out, "{object}")
}
