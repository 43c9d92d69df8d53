//! Formats a status report for people: losses and problems first, then sizes, topics and sources.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use hookhold::admin::{StatusJournal, StatusProblem, StatusReport, StatusSource};
use hookhold::log::escaped;
use hookhold::units::{bytes_about, seconds_about};

use super::super::table;

/// Prints the report. `out` removes the colours if it is no terminal.
pub(super) fn print(out: &mut impl Write, report: &StatusReport) -> io::Result<()> {
    match &report.process {
        Some(process) => {
            let state = if process.draining { "stopping after" } else { "running for" };
            let since = seconds_about(process.seconds);
            writeln!(out, "hookhold {}, {state} {since}, {}\n", escaped(&process.version), process.config)?;
        }
        None => writeln!(out, "hookhold is not running\n")?,
    }
    print_losses(out, report)?;
    print_problems(out, &report.problems)?;
    let StatusJournal { dir, events, bytes, max_bytes, .. } = &report.journal;
    let room = format!("{} of {}", bytes_about(*bytes), bytes_about(*max_bytes));
    writeln!(out, "stored    {}; the files, with space prepared for more, take {room} in {dir}", counted(*events, "event"))?;
    writeln!(out, "parked    {}, {}", counted(report.parked_events, "event"), bytes_about(report.parked_bytes))?;
    print_rejected(out, report)?;
    writeln!(out, "Kafka     {}", kafka_text(&report.kafka))?;
    if !report.topics.is_empty() {
        print_topics(out, report)?;
    }
    if !report.sources.is_empty() {
        print_sources(out, &report.sources)?;
    }
    Ok(())
}

fn print_losses(out: &mut impl Write, report: &StatusReport) -> io::Result<()> {
    if report.lost_events == 0 {
        return writeln!(out, "lost      {GOOD}nothing{GOOD:#}");
    }
    let counts: Vec<String> = report.losses.iter().map(|loss| format!("{} by {}", loss.events, loss.cause)).collect();
    let causes = if counts.is_empty() { "before the last start".to_owned() } else { counts.join(", ") };
    writeln!(out, "lost      {BAD}{}{BAD:#} ({causes})", counted(report.lost_events, "event"))?;
    writeln!(out, "{INDENT}→ run `hookhold journal verify`, and ask the providers to send these events again")
}

fn print_problems(out: &mut impl Write, problems: &[StatusProblem]) -> io::Result<()> {
    if problems.is_empty() {
        return writeln!(out, "stuck     {GOOD}nothing{GOOD:#}");
    }
    for (index, StatusProblem { what, seconds, why, remedy }) in problems.iter().enumerate() {
        let label = if index == 0 { "stuck     " } else { INDENT };
        let since = seconds.map(|seconds| format!(" for {}", seconds_about(seconds))).unwrap_or_default();
        writeln!(out, "{label}{BAD}{}{BAD:#}{since}: {}", escaped(what), escaped_lines(why))?;
        if !remedy.is_empty() {
            writeln!(out, "{INDENT}→ {}", escaped_lines(remedy))?;
        }
    }
    Ok(())
}

/// Prints the number of rejected deliveries since the start, and the command that lists the stored ones. Without a process, the number
/// is not known.
fn print_rejected(out: &mut impl Write, report: &StatusReport) -> io::Result<()> {
    const LIST: &str = "`hookhold rejections` lists";
    let rejected = report.sources.iter().map(|source| source.rejected).sum();
    match (&report.process, report.has_stored_rejections) {
        (None, false) => Ok(()),
        (None, true) => writeln!(out, "rejected  {LIST} the stored ones with their causes"),
        (Some(_), stored) => {
            let list = match rejected {
                0 if stored => format!("; {LIST} earlier ones with their causes"),
                0 => String::new(),
                _ => format!("; {LIST} them with their causes"),
            };
            writeln!(out, "rejected  {} since the start{list}", counted(rejected, "delivery"))
        }
    }
}

fn print_topics(out: &mut impl Write, report: &StatusReport) -> io::Result<()> {
    let never = if report.process.is_some() { "not since the start" } else { "-" };
    let mut rows = table::new(&["TOPIC", "WAITING", "BYTES", "OLDEST", "ACKNOWLEDGED", "STATE"], &[1, 2, 3]);
    for topic in &report.topics {
        rows.add_row([
            topic.topic.clone(),
            topic.waiting_events.to_string(),
            bytes_about(topic.waiting_bytes),
            topic.oldest_seconds.map_or_else(dash, seconds_about),
            topic.acknowledged_at.clone().unwrap_or_else(|| never.to_owned()),
            topic.state.clone(),
        ]);
    }
    writeln!(out, "\n{}", rows.trim_fmt())
}

fn print_sources(out: &mut impl Write, sources: &[StatusSource]) -> io::Result<()> {
    let mut rows = table::new(&["SOURCE", "STORED", "DUPLICATES", "REJECTED", "LAST VERIFIED"], &[1, 2, 3]);
    for StatusSource { source, stored, duplicates, rejected, verified_at } in sources {
        let counts = [stored, duplicates, rejected].map(u64::to_string);
        let [stored, duplicates, rejected] = counts;
        rows.add_row([source.clone(), stored, duplicates, rejected, verified_at.clone().unwrap_or_else(dash)]);
    }
    writeln!(out, "\nDeliveries since the start:\n{}", rows.trim_fmt())
}

/// Returns a number with its noun, such as `1 event` or `2 deliveries`.
fn counted(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {noun}s"),
    }
}

fn kafka_text(state: &str) -> &str {
    match state {
        "off" => "not configured; events stay in the journal",
        "unknown" => "unknown, because hookhold is not running",
        state => state,
    }
}

/// Escapes each word of a text that may contain a message from outside hookhold. Such a message has one line.
fn escaped_lines(text: &str) -> String {
    text.chars().flat_map(|letter| if letter.is_control() { letter.escape_debug().collect() } else { vec![letter] }).collect()
}

fn dash() -> String {
    "-".to_owned()
}

const INDENT: &str = "          ";
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
