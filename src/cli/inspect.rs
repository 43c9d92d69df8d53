//! `hookhold inspect`: shows one event and its fate. Works while `run` writes to the journal, and changes neither the journal nor
//! Kafka.

mod fate;
mod lookup;
mod report;
mod verification;

use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use hookhold::config::{Config, JournalConfig};
use hookhold::diagnostic::{Diagnostics, SecretAccess};
use hookhold::journal::{ParkedEvents, ReadOnlyJournal, StoredEvent};
use serde_json::json;

use super::body_text::one_line;
use super::duration_range::within;
use super::replay::past_replays;
use super::tail::event_line::{EventLine, terminal_width};
use super::tail::warn_of_unknown_source;
use super::{Context, ExitStatus, KAFKA, VerbResult, causes, journal_disk};
use fate::FateQuery;
use lookup::{EventPlace, EventStores, FoundEvents, SearchedEvents};
use report::EventReport;
use verification::Reverification;

/// Show one event: its request, its body, where it is in Kafka, and whether it verifies with today's secrets.
///
/// A number is a sequence number, as `hookhold tail` shows it, and LOG-SEQ is a position, as the record headers hookhold-log and
/// hookhold-seq state it. Any other text, and a number or position that no event has, is an event id. If several events have the id,
/// inspect lists them. The exit code is 1 if there is no such event. The request headers lack credentials, which hookhold does not
/// store. If there is a section [kafka], inspect searches the topic for the event's record, from the time of receipt on, and commits no
/// offset. inspect works whether hookhold runs or not.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InspectArgs {
    /// Sequence number, position or event id of the event.
    #[arg(value_name = "SEQ|ID")]
    event: String,
    /// Take the argument as an event id, even if it looks like a sequence number or a position.
    #[arg(long)]
    id: bool,
    /// Show only an event of this source.
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Print only the body, byte for byte.
    #[arg(long)]
    body: bool,
    /// Longest time to search a Kafka topic for the record, from 1s to 10m.
    #[arg(long, value_name = "TIME", value_parser = within(MIN_TIMEOUT..=MAX_TIMEOUT), default_value = DEFAULT_TIMEOUT)]
    timeout: Duration,
}

/// Finds the event and prints it, or lists the events with the same id.
pub(super) fn run(context: &Context, args: InspectArgs) -> VerbResult {
    let file = context.file()?;
    let disk = journal_disk(&JournalConfig::load(&file)?)?;
    let mut stores = EventStores { journal: ReadOnlyJournal::open(disk.clone())?, parked: ParkedEvents::new(disk.clone()) };
    let found = find(&mut stores, &args)?;
    match &found.events[..] {
        [] => {
            warn_of_unknown_source(context, args.source.as_deref())?;
            Err(not_found(&args, &found.searched).into())
        }
        [stored] if args.body => {
            // The output of the other verbs passes through a filter for colours, which could change the bytes.
            let mut out = io::stdout().lock();
            out.write_all(stored.event.body())?;
            out.flush()?;
            Ok(ExitStatus::Done)
        }
        [stored] => {
            // A shell often lacks the secrets of the sources, which only the verification needs.
            let config = Config::load(&file, KAFKA).or_else(|diagnostics| {
                let available = Config::load_with(&file, SecretAccess::Available, KAFKA);
                available.map_err(|_| first_diagnostic(&diagnostics))
            });
            let query = FateQuery { config: &config, file: &file, stores: &stores, timeout: args.timeout };
            let verification = Reverification::of(&stored.event, &config);
            let report = EventReport {
                stored,
                fate: query.fate_of(stored)?,
                verification,
                replays: past_replays::of_event(&*disk, stored)?,
            };
            let mut out = BufWriter::new(anstream::stdout().lock());
            if context.json() {
                report.print_json(&mut out)?
            } else {
                report.print(&mut out)?
            }
            out.flush()?;
            Ok(ExitStatus::Done)
        }
        several if args.body => {
            let what = format!("expected one event, found {}", several.len() as u64 + found.more);
            Err(format!("--body: {what}; {PICK}").into())
        }
        several => {
            list(context, several, found.more)?;
            Ok(ExitStatus::Done)
        }
    }
}

fn find(stores: &mut EventStores, args: &InspectArgs) -> io::Result<FoundEvents> {
    let source = args.source.as_deref();
    if let Some(place) = EventPlace::parse(&args.event).filter(|_| !args.id)
        && let Some(stored) = stores.at(place, source)?
    {
        return Ok(FoundEvents { events: vec![stored], more: 0, searched: SearchedEvents::default() });
    }
    stores.with_id(&args.event, source)
}

/// Lists events with the same id, one on each line.
fn list(context: &Context, events: &[StoredEvent], more: u64) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(anstream::stdout().lock());
    for stored in events {
        if context.json() {
            let event = &stored.event;
            let object = json!({
                "event": stored.position.to_string(), "seq": stored.position.seq, "source": event.source(),
                "account": event.account(), "type": event.event_type(), "id": event.id(),
                "received_at": event.received_at().rfc3339(), "topic": &**event.topic(), "bytes": event.body().len(),
            });
            writeln!(out, "{object}")?;
        } else {
            EventLine::of(stored).write(&mut out, terminal_width())?;
        }
    }
    out.flush()?;
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok(writeln!(anstream::stderr(), "hookhold: {}{more} events have this id; {PICK}", events.len())?)
}

fn not_found(args: &InspectArgs, searched: &SearchedEvents) -> String {
    let id = one_line(&args.event, MAX_ID);
    let by = if !args.id && EventPlace::parse(&args.event).is_some() { "sequence or id" } else { "id" };
    let of = args.source.as_ref().map_or(String::new(), |source| format!(" of {source}"));
    let period = match searched.received {
        Some((earliest, latest)) => format!(", received from {} to {}", earliest.rfc3339(), latest.rfc3339()),
        None => String::new(),
    };
    let events = if searched.count == 1 { "1 event".to_owned() } else { format!("{} events", searched.count) };
    format!(
        "{id}: expected a stored event{of} with this {by}, found none among {events}{period}; `hookhold rejections --each` lists the \
         rejected deliveries, and `hookhold rejections --id` shows one; hookhold stores no event of a type that `types` excludes, and \
         deletes old events ([journal] retain), but still recognises their duplicates within [dedupe] window"
    )
}

/// Returns the first mistake in a configuration, and the number of the others.
fn first_diagnostic(diagnostics: &Diagnostics) -> String {
    let text = causes(diagnostics);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default().trim().to_owned();
    match lines.count() {
        0 => first,
        _ => format!("{first} (and more; run `hookhold check`)"),
    }
}

const PICK: &str = "name one by its sequence number, or add --source";
const DEFAULT_TIMEOUT: &str = "10s";
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// Number of characters of the argument that an error message shows.
const MAX_ID: usize = 120;
const EXAMPLES: &str = "\
Examples:
  hookhold inspect 17
  hookhold inspect evt_1NG8Du2eZvKYlo2C --source stripe
  hookhold inspect 0123456789abcdef-17 --body > body.json
  hookhold inspect 17 --format json | jq .kafka";
