//! `hookhold tail`: prints stored events. Works while `run` writes to the journal, and prints only events that are on disk.

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookhold::journal::{ReadOnlyJournal, StoredEvent};
use hookhold::log::escaped;
use hookhold::units::bytes_about;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::{Context, ExitStatus, VerbResult};

/// Show the events in the journal, oldest first.
///
/// Works while the gateway runs, and shows only events that are on disk. The option --format json prints one object per event,
/// with the fields seq, source, account, id, type, key, received_at, content_type, topic and body_base64.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TailArgs {
    /// Wait for further events until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Sequence number of the first event to show. If that event no longer exists, tail starts with the oldest event.
    #[arg(long, value_name = "SEQ", conflicts_with = "last")]
    from: Option<u64>,
    /// Show the N latest events [default: 10].
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// Show only events of this source.
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
}

/// Prints the selected events. If `--follow` is set, waits for new events and prints them.
pub(super) fn run(context: &Context, args: TailArgs) -> VerbResult {
    let mut journal = context.journal()?;
    let is_selected = |stored: &StoredEvent| args.source.as_ref().is_none_or(|source| *source == *stored.event.source());
    let start = match args.from {
        Some(seq) => seq,
        None => seq_before_end(&mut journal, args.last.unwrap_or(DEFAULT_LAST), &is_selected)?,
    };
    journal.seek(start);
    let mut may_warn = true;
    let mut out = BufWriter::new(anstream::stdout().lock());
    loop {
        match journal.next()? {
            Some(stored) if is_selected(&stored) => {
                may_warn = false;
                print_event(&mut out, &stored, context.json())?;
            }
            Some(_) => {}
            None => {
                out.flush()?;
                if std::mem::take(&mut may_warn) {
                    warn_of_unknown_source(context, args.source.as_deref())?;
                }
                if !args.follow {
                    return Ok(ExitStatus::Done);
                }
                std::thread::sleep(POLL);
            }
        }
    }
}

/// Warns if the configuration does not contain the source `source`, because a misspelt name looks like a source without events.
/// If tail has printed an event, it does not call this function. A source that the operator has removed from the configuration
/// therefore causes no warning while tail finds events of this source.
fn warn_of_unknown_source(context: &Context, source: Option<&str>) -> io::Result<()> {
    let (Some(source), Ok(config)) = (source, context.load()) else { return Ok(()) };
    let names: Vec<String> = config.sources.iter().map(|source| source.name.to_string()).collect();
    if names.iter().any(|name| name == source) {
        return Ok(());
    }
    writeln!(anstream::stderr(), "hookhold: no events found; {}", super::unknown_source(source, &names))
}

/// Returns the sequence number of the oldest of the `count` latest selected events. The search begins `count` sequence
/// numbers before the log end, and doubles this distance until it finds enough events. In a long journal, the search therefore
/// usually reads only the end.
fn seq_before_end(journal: &mut ReadOnlyJournal, count: u64, is_selected: &impl Fn(&StoredEvent) -> bool) -> io::Result<u64> {
    let end = journal.log_end()?;
    let mut span = count;
    loop {
        let from = end.saturating_sub(span);
        let mut last = VecDeque::new();
        let mut first_seen = None;
        journal.seek(from);
        while let Some(stored) = journal.next()?.filter(|stored| stored.position.seq < end) {
            first_seen.get_or_insert(stored.position.seq);
            if is_selected(&stored) {
                last.push_back(stored.position.seq);
            }
            if last.len() as u64 > count {
                last.pop_front();
            }
        }
        let is_all = from == 0 || first_seen.is_none_or(|seq| seq > from);
        if is_all || last.len() as u64 >= count {
            return Ok(last.pop_front().unwrap_or(end));
        }
        span = span.saturating_mul(2);
    }
}

#[derive(Serialize)]
struct EventJson<'a> {
    seq: u64,
    source: &'a str,
    /// `null` unless an event of another account has the same id.
    account: Option<&'a str>,
    id: Option<&'a str>,
    r#type: Option<&'a str>,
    key: &'a str,
    received_at: String,
    content_type: Option<&'a str>,
    topic: &'a str,
    body_base64: String,
}

fn print_event(out: &mut impl Write, stored: &StoredEvent, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, &event_json(stored, &stored.position.to_string()))?;
        return writeln!(out);
    }
    let (seq, event) = (stored.position.seq, &stored.event);
    let [event_type, id] = [event.event_type(), event.id()].map(|text| escaped(text.unwrap_or("-")));
    let (at, size) = (event.received_at().rfc3339(), bytes_about(event.body().len() as u64));
    let source = match event.account() {
        Some(account) => format!("{}/{}", event.source(), escaped(account)),
        None => event.source().to_owned(),
    };
    writeln!(out, "{seq:>8}  {at}  {source:<16}  {event_type:<28}  {id}  {size}")
}

/// Returns the event as an object for `--format json`. The field `key` is the key of the Kafka record: the ordering key if
/// there is one, otherwise the event id if there is one, otherwise the position of the event.
fn event_json<'a>(stored: &'a StoredEvent, position: &'a str) -> EventJson<'a> {
    let event = &stored.event;
    let [key, id] = [event.ordering_key(), event.id()].map(|text| text.filter(|text| !text.is_empty()));
    let content_type = event.request().headers.iter().find(|(name, _)| *name == CONTENT_TYPE);
    EventJson {
        seq: stored.position.seq,
        source: event.source(),
        account: event.account(),
        id: event.id(),
        r#type: event.event_type(),
        key: key.or(id).unwrap_or(position),
        received_at: event.received_at().rfc3339(),
        content_type: content_type.and_then(|(_, value)| std::str::from_utf8(value.as_bytes()).ok()),
        topic: event.topic(),
        body_base64: STANDARD.encode(event.body()),
    }
}

const DEFAULT_LAST: u64 = 10;
/// Time between two reads of the journal with `--follow`.
const POLL: Duration = Duration::from_millis(100);
const EXAMPLES: &str = "\
Examples:
  hookhold tail --last 100 --source stripe
  hookhold tail --follow
  hookhold tail --from 0 --format json | jq -r 'select(.id == \"evt_1\") | .body_base64' | base64 -d";
