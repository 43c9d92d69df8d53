//! `hookhold journal`: looks at the journal from outside, also while `run` writes it. Neither verb writes anything.

use std::io::{self, Write};

use hookhold::journal::{JournalStat, VerifyReport};
use hookhold::units::bytes_about;
use serde_json::json;

use super::{Context, ExitStatus, VerbResult, table};

/// Look at the journal: sizes, cursors and lag, or every frame.
#[derive(clap::Args)]
pub(super) struct JournalArgs {
    #[command(subcommand)]
    verb: JournalVerb,
}

#[derive(clap::Subcommand)]
enum JournalVerb {
    /// Show sizes, cursors, and what waits for Kafka.
    Stat,
    /// Check every frame; exit code 1 when something is damaged.
    Verify,
}

/// Prints what was found.
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
            if report.damage.is_empty() { ExitStatus::Done } else { ExitStatus::Failed }
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
    let mut lanes = table::new(&["TOPIC", "EVENTS", "BYTES", "CURSOR", "WAITING", "PINNED"], &[1, 2, 3, 4, 5]);
    for lane in &stat.topics {
        let [cursor, waiting, pinned] = match lane.cursor {
            Some(cursor) => [cursor.to_string(), lane.waiting.to_string(), bytes_about(lane.pinned)],
            None => [(); 3].map(|()| "-".to_owned()),
        };
        lanes.add_row([lane.topic.to_string(), lane.events.to_string(), bytes_about(lane.bytes), cursor, waiting, pinned]);
    }
    writeln!(out, "\n{}", lanes.trim_fmt())
}

fn stat_json(out: &mut impl Write, stat: &JournalStat) -> io::Result<()> {
    let lane = |lane: &hookhold::journal::TopicStat| {
        json!({
            "topic": lane.topic.as_ref(),
            "cursor": lane.cursor,
            "waiting": lane.waiting,
            "events": lane.events,
            "bytes": lane.bytes,
            "pinned": lane.pinned,
        })
    };
    let whole = json!({
        "in_use": stat.in_use,
        "segments": stat.segments,
        "bytes": stat.bytes,
        "key_bytes": stat.key_bytes,
        "events": stat.events,
        "oldest": stat.oldest,
        "next": stat.next,
        "lanes": stat.topics.iter().map(lane).collect::<Vec<_>>(),
    });
    writeln!(out, "{whole}")
}

fn report_text(out: &mut impl Write, report: &VerifyReport) -> io::Result<()> {
    for damage in &report.damage {
        let (from, to) = (damage.bytes.start, damage.bytes.end);
        writeln!(out, "damaged: {}, bytes {from} to {to} ({})", damage.file, bytes_about(to - from))?;
    }
    if report.unconfirmed > 0 {
        let count = report.unconfirmed;
        writeln!(out, "{count} events after the durable mark: readable now, made sure by the next start of hookhold run")?;
    }
    let found = match report.damage.len() {
        0 => "no damage".to_owned(),
        count => format!("{count} damaged ranges: the events in them are lost, everything else can be read"),
    };
    writeln!(out, "{} events in {} segments, {found}", report.events, report.segments)
}

fn report_json(out: &mut impl Write, report: &VerifyReport) -> io::Result<()> {
    let damage = report.damage.iter().map(|damage| {
        let (from, to) = (damage.bytes.start, damage.bytes.end);
        json!({ "file": damage.file, "from": from, "to": to })
    });
    let (events, segments, unsure) = (report.events, report.segments, report.unconfirmed);
    let damage: Vec<_> = damage.collect();
    writeln!(out, "{}", json!({ "events": events, "segments": segments, "unsure": unsure, "damage": damage }))
}
