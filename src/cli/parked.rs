//! `hookhold parked`: lists the events that Kafka has rejected because of the event itself, shows them, sends them to Kafka again,
//! or drops them. Works while `run` runs.

mod redrive;

use std::error::Error;
use std::io::{self, Write};

use hookhold::config::JournalConfig;
use hookhold::journal::{ParkedEvent, ParkedEvents, ParkedFile};
use hookhold::log::escaped;
use hookhold::units::bytes_about;
use serde_json::json;

use super::confirm::confirm;
use super::{Context, ExitStatus, UsageError, VerbResult, journal_disk, table, unknown_name};

/// Show, send again or drop the events that Kafka has rejected.
///
/// If Kafka rejects an event because of the event itself, for example because the record is too large for its topic, hookhold parks
/// the event: it stores the event in a file of its own, and continues with the topic's next event. A parked event stays on disk
/// until you send it to Kafka again or drop it, or until the dead-letter topic has it. These commands work while hookhold runs.
#[derive(clap::Args)]
pub(super) struct ParkedArgs {
    #[command(subcommand)]
    verb: ParkedVerb,
}

#[derive(clap::Subcommand)]
enum ParkedVerb {
    /// List the parked events, oldest first.
    List,
    /// Show one parked event with its request headers and its body.
    Show {
        /// The event, as `hookhold parked list` shows it.
        #[arg(value_name = "EVENT")]
        event: String,
        /// Print only the body, byte for byte.
        #[arg(long)]
        body: bool,
    },
    Redrive(redrive::RedriveArgs),
    /// Drop parked events for good. They never reach Kafka, and hookhold still recognises their duplicates.
    Drop {
        /// The events, as `hookhold parked list` shows them.
        #[arg(value_name = "EVENT", required_unless_present = "all", conflicts_with = "all")]
        events: Vec<String>,
        /// Drop all parked events.
        #[arg(long)]
        all: bool,
        /// Drop the events without asking.
        #[arg(long)]
        yes: bool,
    },
}

/// Lists, shows, sends or drops parked events.
pub(super) fn run(context: &Context, args: ParkedArgs) -> VerbResult {
    let config = JournalConfig::load(&context.file()?)?;
    let parked = ParkedEvents::new(journal_disk(&config)?);
    let mut out = anstream::stdout().lock();
    let status = match args.verb {
        ParkedVerb::List => list(context, &parked, &mut out)?,
        ParkedVerb::Show { event, body } => show(context, &parked, &event, body, &mut out)?,
        ParkedVerb::Redrive(args) => redrive::run(context, &parked, &args, &mut out)?,
        ParkedVerb::Drop { events, yes, .. } => drop_events(context, &parked, &select(&parked, &events)?, yes, &mut out)?,
    };
    out.flush()?;
    Ok(status)
}

fn list(context: &Context, parked: &ParkedEvents, out: &mut impl Write) -> VerbResult {
    let headings = ["EVENT", "PARKED", "REASON", "TOPIC", "TYPE", "ID", "SIZE"];
    let (mut rows, mut bytes, files) = (table::new(&headings, &[6]), 0, parked.list()?);
    for file in &files {
        let Some(found) = parked.read(file.position)? else { continue };
        if context.json() {
            writeln!(out, "{}", to_json(&found))?;
            continue;
        }
        let event = &found.stored.event;
        bytes += file.bytes;
        let [event_type, id] = [event.event_type(), event.id()].map(|text| escaped(text.unwrap_or("-")));
        let (at, reason) = (found.note.parked_at.rfc3339(), found.note.reason.clone());
        let size = bytes_about(event.body().len() as u64);
        rows.add_row([file.position.to_string(), at, reason, event.topic().to_string(), event_type, id, size]);
    }
    match (context.json(), files.len()) {
        (true, _) => {}
        (false, 0) => writeln!(out, "no parked events")?,
        (false, count) => writeln!(out, "{}\n\n{} take {}", rows.trim_fmt(), counted(count), bytes_about(bytes))?,
    }
    Ok(ExitStatus::Done)
}

fn show(context: &Context, parked: &ParkedEvents, event: &str, only_body: bool, out: &mut impl Write) -> VerbResult {
    let file = find(&parked.list()?, event)?;
    let Some(found) = parked.read(file.position)? else { return Err(gone(event).into()) };
    let (stored, note) = (&found.stored.event, &found.note);
    if only_body {
        // `out` removes escape sequences unless it is a terminal, which would change the bytes.
        let mut exact = io::stdout().lock();
        exact.write_all(stored.body())?;
        exact.flush()?;
        return Ok(ExitStatus::Done);
    }
    if context.json() {
        writeln!(out, "{}", to_json(&found))?;
        return Ok(ExitStatus::Done);
    }
    let text = |text: Option<&str>| escaped(text.unwrap_or("-"));
    writeln!(out, "event     {}", found.stored.position)?;
    writeln!(out, "topic     {}", stored.topic())?;
    writeln!(out, "source    {}", stored.source())?;
    writeln!(out, "type      {}", text(stored.event_type()))?;
    writeln!(out, "id        {}", text(stored.id()))?;
    writeln!(out, "received  {}", stored.received_at().rfc3339())?;
    writeln!(out, "parked    {}, {}: {}", note.parked_at.rfc3339(), note.reason, escaped(&note.detail))?;
    if found.has_notice {
        writeln!(out, "notice    sent to the dead-letter topic, without the body")?;
    }
    writeln!(out, "body      {}", bytes_about(stored.body().len() as u64))?;
    for (name, value) in &stored.request().headers {
        writeln!(out, "  {name}: {}", escaped(&String::from_utf8_lossy(value.as_bytes())))?;
    }
    writeln!(out, "\n{}", escaped(&String::from_utf8_lossy(stored.body())))?;
    Ok(ExitStatus::Done)
}

fn drop_events(context: &Context, parked: &ParkedEvents, files: &[ParkedFile], yes: bool, out: &mut impl Write) -> VerbResult {
    if !yes && !files.is_empty() && !is_confirmed(files.len())? {
        return Ok(ExitStatus::Failed);
    }
    let mut dropped = 0;
    for file in files {
        dropped += usize::from(parked.remove(file.position)?);
    }
    match context.json() {
        true => writeln!(out, "{}", json!({ "dropped": dropped }))?,
        false => writeln!(out, "dropped {}", counted(dropped))?,
    }
    Ok(ExitStatus::Done)
}

fn is_confirmed(count: usize) -> Result<bool, Box<dyn Error>> {
    let without_terminal = "--yes: expected a confirmation, found no terminal; add --yes to drop the events";
    confirm(without_terminal, |_| Ok(()), &format!("Drop {}? They will never reach Kafka.", counted(count)))
}

/// Returns the files of the events with these names, or of all parked events if there are no names.
fn select(parked: &ParkedEvents, names: &[String]) -> Result<Vec<ParkedFile>, Box<dyn Error>> {
    let files = parked.list()?;
    if names.is_empty() {
        return Ok(files);
    }
    Ok(names.iter().map(|name| find(&files, name)).collect::<Result<_, _>>()?)
}

/// Finds the event with this name. A sequence alone is a name unless several events have it.
fn find(files: &[ParkedFile], name: &str) -> Result<ParkedFile, UsageError> {
    let position = |file: &ParkedFile| file.position.to_string();
    let by_seq: Vec<&ParkedFile> = files.iter().filter(|file| file.position.seq.to_string() == name).collect();
    let found = files.iter().find(|file| position(file) == name);
    match (found, &by_seq[..]) {
        (Some(file), _) => Ok(file.clone()),
        (None, [file]) => Ok((*file).clone()),
        (None, _) => {
            let names: Vec<String> = files.iter().take(MAX_NAMES).map(position).collect();
            Err(unknown_name("EVENT: expected a parked event", name, &names))
        }
    }
}

fn gone(event: &str) -> String {
    format!("{event}: expected a parked event, found none; another command has sent or dropped it")
}

fn counted(count: usize) -> String {
    if count == 1 { "1 parked event".to_owned() } else { format!("{count} parked events") }
}

fn to_json(parked: &ParkedEvent) -> serde_json::Value {
    let (event, note) = (&parked.stored.event, &parked.note);
    json!({
        "event": parked.stored.position.to_string(),
        "seq": parked.stored.position.seq,
        "topic": &**event.topic(),
        "source": event.source(),
        "type": event.event_type(),
        "id": event.id(),
        "received_at": event.received_at().rfc3339(),
        "parked_at": note.parked_at.rfc3339(),
        "reason": note.reason,
        "detail": note.detail,
        "notice": parked.has_notice,
        "bytes": event.body().len(),
    })
}

/// Number of events that a message about an unknown event lists.
const MAX_NAMES: usize = 10;
