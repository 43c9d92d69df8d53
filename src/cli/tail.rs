//! `hookhold tail`: prints stored events. Works while `run` writes to the journal, and prints only events that are on disk.

mod event_filter;
pub(super) mod event_line;

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use hookhold::clock::{Clock, SystemClock};
use hookhold::journal::{ReadOnlyJournal, StoredEvent};

use super::body_text::BodyText;
use super::{Context, ExitStatus, VerbResult};
use event_filter::EventFilter;
use event_line::{EventJson, EventLine, terminal_width};

/// Show the events in the journal, oldest first.
///
/// Works while the gateway runs, and shows only events that are on disk. Without options, tail shows the 10 latest events. With an
/// option that selects events, such as --since or --type, it shows all events that all these options select; --last limits their
/// number. With --follow and without a period, it starts with the 10 latest of them. On a terminal, tail shortens the columns to the
/// width of the terminal. The option --format json prints one object per event, with the fields seq, source, account, id, type, key,
/// received_at, content_type, topic and body_base64. `hookhold inspect` shows everything about one event.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TailArgs {
    /// Wait for further events until Ctrl-C, or until the time of --until.
    #[arg(long, short)]
    follow: bool,
    /// Sequence number of the first event to show. If that event no longer exists, tail starts with the oldest event.
    #[arg(long, value_name = "SEQ", conflicts_with = "last")]
    from: Option<u64>,
    /// Show the N latest events [default: 10, or all that the options select].
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    #[command(flatten)]
    filter: EventFilter,
    /// Print the body of each event below its line. JSON is printed with line breaks, and a large body is cut.
    #[arg(long)]
    body: bool,
}

impl TailArgs {
    /// Returns the number of the latest events to show; `None` to show all.
    fn count(&self) -> Option<u64> {
        let shows_all = self.from.is_some() || self.filter.has_period() || (self.filter.has_properties() && !self.follow);
        self.last.or((!shows_all).then_some(DEFAULT_LAST))
    }
}

/// Prints the selected events. If `--follow` is set, waits for new events and prints them.
pub(super) fn run(context: &Context, args: TailArgs) -> VerbResult {
    let mut journal = context.journal()?;
    let until = args.filter.until;
    let mut sequences = VecDeque::from(journal.sequences_received(args.filter.since, until)?);
    let from = match args.count() {
        Some(count) => seq_before_end(&mut journal, count, sequences.front().map_or(0, |range| range.start), &args.filter)?,
        None => args.from.unwrap_or(0),
    };
    journal.seek(from.max(sequences.front().map_or(0, |range| range.start)));
    let mut may_warn = true;
    let mut out = BufWriter::new(anstream::stdout().lock());
    loop {
        // An event that arrives during the read may still belong to the period.
        let is_over = until.is_some_and(|until| SystemClock.now() > until);
        let below = sequences.front().map_or(u64::MAX, |range| range.end);
        match journal.next_where(below, |fields| args.filter.accepts(fields))? {
            Some(stored) => {
                may_warn = false;
                print_event(&mut out, &stored, context.json(), args.body)?;
            }
            None if sequences.len() > 1 => {
                // The segments up to the next range contain no event of the period.
                sequences.pop_front();
                journal.seek(from.max(sequences[0].start));
            }
            None => {
                out.flush()?;
                if std::mem::take(&mut may_warn) {
                    warn_of_unknown_source(context, args.filter.source.as_deref())?;
                }
                if !args.follow || is_over {
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
pub(super) fn warn_of_unknown_source(context: &Context, source: Option<&str>) -> io::Result<()> {
    let (Some(source), Ok(config)) = (source, context.load()) else { return Ok(()) };
    let names: Vec<String> = config.sources.iter().map(|source| source.name.to_string()).collect();
    if names.iter().any(|name| name == source) {
        return Ok(());
    }
    writeln!(anstream::stderr(), "hookhold: no events found; {}", super::unknown_source(source, &names))
}

/// Returns the sequence number of the oldest of the `count` latest selected events. No event before sequence `start` is selected. The
/// search begins `count` sequence numbers before the log end, and doubles this distance until it finds enough events. In a long
/// journal, the search therefore usually reads only the end.
fn seq_before_end(journal: &mut ReadOnlyJournal, count: u64, start: u64, filter: &EventFilter) -> io::Result<u64> {
    let end = journal.log_end()?;
    let mut span = count;
    loop {
        let from = end.saturating_sub(span).max(start);
        let mut last = VecDeque::new();
        let mut first_seen = None;
        journal.seek(from);
        // A damaged event must not count, so each event is read.
        while let Some(stored) = journal.next_where(end, |fields| {
            first_seen.get_or_insert(fields.position.seq);
            filter.accepts(fields)
        })? {
            last.push_back(stored.position.seq);
            if last.len() as u64 > count {
                last.pop_front();
            }
        }
        let is_all = from <= start || first_seen.is_none_or(|seq| seq > from);
        if is_all || last.len() as u64 >= count {
            return Ok(last.pop_front().unwrap_or(end));
        }
        span = span.saturating_mul(2);
    }
}

fn print_event(out: &mut impl Write, stored: &StoredEvent, json: bool, with_body: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, &EventJson::new(stored, &stored.position.to_string()))?;
        return writeln!(out);
    }
    EventLine::of(stored).write(out, terminal_width())?;
    if with_body {
        let remedy = format!("`hookhold inspect {} --body`", stored.position.seq);
        BodyText::of(stored.event.body()).write(out, BODY_INDENT, &remedy)?;
    }
    Ok(())
}

const DEFAULT_LAST: u64 = 10;
/// Spaces before each line of a body.
const BODY_INDENT: &str = "    ";
/// Time between two reads of the journal with `--follow`.
const POLL: Duration = Duration::from_millis(100);
const EXAMPLES: &str = "\
Examples:
  hookhold tail --last 100 --source stripe
  hookhold tail --since 2h --type 'invoice.*' --body
  hookhold tail --since 2026-11-21 --until 2026-11-22 --topic webhooks.stripe
  hookhold tail --follow
  hookhold tail --id evt_1 --format json | jq -r .body_base64 | base64 -d";
