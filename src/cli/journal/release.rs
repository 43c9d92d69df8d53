//! `hookhold journal release`: gives up the events that wait for a topic to which hookhold does not forward any more.

use std::error::Error;
use std::io::{self, Write};

use hookhold::config::{JournalConfig, KafkaConfig};
use hookhold::journal::{ReadOnlyJournal, TopicStat};
use hookhold::units::bytes_about;
use hookhold::{log, service};
use serde_json::{Value, json};

use super::super::ask::RunningProcess;
use super::super::confirm::confirm;
use super::super::{Context, ExitStatus, UsageError, VerbResult, stderr_has_colour, unknown_name};
use super::{disk_for_changes, report_open_error};

/// Give up the events that wait for a topic to which hookhold does not forward any more.
///
/// Waiting events pin their segments of the journal until Kafka acknowledges them. If you have removed [kafka] or renamed a
/// topic, that may never happen. This command shows the waiting events and asks for confirmation. The events then never reach
/// Kafka, and hookhold can delete them like forwarded events. It still recognises their duplicates. If hookhold runs, this command
/// asks it through the admin listener.
#[derive(clap::Args)]
pub(super) struct ReleaseArgs {
    /// Name of the topic, as `hookhold journal stat` shows it.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Give up the events without asking.
    #[arg(long)]
    yes: bool,
    /// Only show the events.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

/// The waiting events of a topic.
struct Waiting {
    topic: String,
    events: u64,
    bytes: u64,
    first: Option<SeenAt>,
    last: Option<SeenAt>,
}

/// Sequence of an event, and its arrival time.
struct SeenAt {
    seq: u64,
    received_at: String,
}

/// Shows the waiting events of the topic. After a confirmation, gives them up.
pub(super) fn run(context: &Context, args: &ReleaseArgs, out: &mut impl Write) -> VerbResult {
    let file = context.file()?;
    let config = JournalConfig::load(&file)?;
    let topics = KafkaConfig::load_topics(&file)?;
    if let Some(source) = topics.as_ref().and_then(|topics| topics.get(&args.topic)) {
        return Err(still_forwarded(&args.topic, source).into());
    }
    let disk = disk_for_changes(&config)?;
    let mut journal = ReadOnlyJournal::open(disk.clone())?;
    let stat = journal.stat()?;
    let waiting = Waiting::of(&args.topic, &stat.topics, &mut journal)?;
    if args.dry_run || waiting.events == 0 {
        waiting.print(context, out, false)?;
        return Ok(ExitStatus::Done);
    }
    if !args.yes && !is_confirmed(&waiting)? {
        return Ok(ExitStatus::Failed);
    }
    let below = waiting.last.as_ref().map_or(0, |last| last.seq + 1);
    if stat.in_use {
        RunningProcess::find(context, None)?.change("/api/release", &json!({ "topic": args.topic, "below": below }))?;
        waiting.print(context, out, true)?;
        return Ok(ExitStatus::Done);
    }
    log::start(log::Format::Text, stderr_has_colour());
    match service::give_up_events(&config, topics.is_some(), disk, &args.topic, below) {
        Ok(_) => {
            waiting.print(context, out, true)?;
            Ok(ExitStatus::Done)
        }
        Err(error) => Ok(report_open_error(&config, &error)),
    }
}

fn still_forwarded(topic: &str, source: &str) -> UsageError {
    UsageError(format!(
        "TOPIC: expected a topic to which no source forwards, found {topic}, the topic of sources.{source}; remove [kafka], or \
         give the source another topic, before you give up events"
    ))
}

/// Shows the waiting events on the terminal, and returns true if the operator confirms. Fails if there is no terminal.
fn is_confirmed(waiting: &Waiting) -> Result<bool, Box<dyn Error>> {
    let without_terminal =
        "--yes: expected a confirmation, found no terminal; add --yes to give up the events, or --dry-run to see them";
    let question = "Give up these events? They will never reach Kafka.";
    let is_confirmed = confirm(without_terminal, |mut terminal| waiting.print_text(&mut terminal), question)?;
    if !is_confirmed {
        writeln!(anstream::stderr(), "nothing is released")?;
    }
    Ok(is_confirmed)
}

impl Waiting {
    /// Finds the waiting events of `topic`. Fails if the journal does not know the topic.
    fn of(topic: &str, topics: &[TopicStat], journal: &mut ReadOnlyJournal) -> Result<Waiting, Box<dyn Error>> {
        let Some(stat) = topics.iter().find(|stat| &*stat.topic == topic) else {
            let names: Vec<String> = topics.iter().map(|stat| stat.topic.to_string()).collect();
            return Err(unknown_name("TOPIC: expected a topic of the journal", topic, &names).into());
        };
        let mut seen_at = |seq: u64| -> io::Result<SeenAt> {
            journal.seek(seq);
            let found = journal.next()?.filter(|stored| stored.position.seq == seq);
            let received_at = found.map_or_else(|| "unknown".to_owned(), |stored| stored.event.received_at().rfc3339());
            Ok(SeenAt { seq, received_at })
        };
        let (first, last) = stat.waiting_range.unzip();
        Ok(Waiting {
            topic: topic.to_owned(),
            events: stat.waiting,
            bytes: stat.waiting_bytes,
            first: first.map(&mut seen_at).transpose()?,
            last: last.map(&mut seen_at).transpose()?,
        })
    }

    fn print(&self, context: &Context, out: &mut impl Write, is_released: bool) -> io::Result<()> {
        if context.json() {
            return writeln!(out, "{}", self.json(is_released));
        }
        self.print_text(out)?;
        if is_released {
            writeln!(out, "released; `hookhold run` deletes the events after journal.retain, or when it needs their space")?;
        }
        Ok(())
    }

    fn print_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "topic     {}", self.topic)?;
        writeln!(out, "events    {}, {}", self.events, bytes_about(self.bytes))?;
        for (name, event) in [("first", &self.first), ("last", &self.last)] {
            if let Some(SeenAt { seq, received_at }) = event {
                writeln!(out, "{name:<8}  {seq}, received at {received_at}")?;
            }
        }
        Ok(())
    }

    fn json(&self, is_released: bool) -> Value {
        let seq = |event: &Option<SeenAt>| event.as_ref().map(|event| event.seq);
        let received_at = |event: &Option<SeenAt>| event.as_ref().map(|event| event.received_at.clone());
        json!({
            "topic": self.topic,
            "events": self.events,
            "bytes": self.bytes,
            "first_seq": seq(&self.first),
            "first_received_at": received_at(&self.first),
            "last_seq": seq(&self.last),
            "last_received_at": received_at(&self.last),
            "released": is_released,
        })
    }
}
