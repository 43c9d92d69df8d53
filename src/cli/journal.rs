//! `hookhold journal`: inspects the journal without changing it, even while `run` writes to it.

use std::io::{self, Write};

use hookhold::journal::{JournalStat, TopicStat, VerifyReport};
use hookhold::units::bytes_about;
use serde_json::json;

use super::{Context, ExitStatus, VerbResult, table};

/// Show the journal's sizes and cursors, or verify every frame.
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
}

/// Prints the statistics of the journal, or the result of verifying every frame.
pub(super) fn run(context: &Context, args: JournalArgs) -> VerbResult {
    let journal = context.journal()?;
    let mut out = anstream::stdout().lock();
    let end = match args.verb {
        JournalVerb::Stat => {
            let stat = journal.stat()?;
            if context.json() {
                stat_json(&mut out, &stat)?
            } else {
                stat_text(&mut out, &stat)?
            }
            ExitStatus::Done
        }
        JournalVerb::Verify => {
            let report = journal.verify()?;
            if context.json() {
                report_json(&mut out, &report)?
            } else {
                report_text(&mut out, &report)?
            }
            if report.damage.is_empty() && report.missing.is_empty() { ExitStatus::Done } else { ExitStatus::Failed }
        }
    };
    out.flush()?;
    Ok(end)
}

fn stat_text(out: &mut impl Write, stat: &JournalStat) -> io::Result<()> {
    let state = if stat.in_use { "in use" } else { "not in use" };
    writeln!(out, "state     {state}")?;
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
            "events": topic.events,
            "bytes": topic.bytes,
            "pinned": topic.pinned,
        })
    };
    let object = json!({
        "in_use": stat.in_use,
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
        writeln!(out, "missing: {file}; its events are lost, and `hookhold run` counts them at its next start")?;
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
        0 => "no damage".to_owned(),
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
