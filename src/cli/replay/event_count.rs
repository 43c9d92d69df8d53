//! Counts the selected events of a replay: for `--dry-run`, for the question before the start, and for the progress bar.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;

use hookhold::clock::UnixMillis;
use hookhold::log::escaped;
use hookhold::units::bytes_about;
use serde_json::{Value, json};

use super::super::table;
use super::selected_events::SelectedEvents;

/// Numbers of the selected events.
#[derive(Default)]
pub(super) struct EventCount {
    /// Number of events.
    pub(super) events: u64,
    /// Total size of their bodies in bytes.
    pub(super) bytes: u64,
    /// Sequences from the first event to the last one.
    pub(super) seqs: Range<u64>,
    /// Sequences that can no longer be read.
    pub(super) missing: Vec<Range<u64>>,
    /// First and last time of receipt.
    received: Option<(UnixMillis, UnixMillis)>,
    rows: BTreeMap<EventKind, (u64, u64)>,
}

/// Source, type and topic of events.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct EventKind {
    source: String,
    event_type: String,
    topic: String,
}

impl EventCount {
    /// Reads and counts all events of `selected`.
    pub(super) fn of(mut selected: SelectedEvents<'_>) -> io::Result<EventCount> {
        let mut count = EventCount::default();
        while let Some(stored) = selected.next()? {
            let (event, seq, size) = (&stored.event, stored.position.seq, stored.event.body().len() as u64);
            let at = event.received_at();
            count.seqs = if count.events == 0 { seq } else { count.seqs.start }..seq + 1;
            count.events += 1;
            count.bytes += size;
            count.received = Some(count.received.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
            let event_type = event.event_type().unwrap_or("-").to_owned();
            let mut kind = EventKind { source: event.source().to_owned(), event_type, topic: event.topic().to_string() };
            if count.rows.len() >= MAX_KINDS && !count.rows.contains_key(&kind) {
                kind = EventKind { source: OTHERS.to_owned(), event_type: OTHERS.to_owned(), topic: OTHERS.to_owned() };
            }
            let row = count.rows.entry(kind).or_default();
            *row = (row.0 + 1, row.1 + size);
        }
        count.missing = selected.into_missing();
        Ok(count)
    }

    /// Prints one row for each source, type and topic, and the totals. `to` names the destination.
    pub(super) fn print(&self, out: &mut dyn Write, to: &str) -> io::Result<()> {
        if self.events > 0 {
            let mut rows = table::new(&["SOURCE", "TYPE", "STORED FOR TOPIC", "EVENTS", "SIZE"], &[3, 4]);
            for (kind, (events, bytes)) in &self.rows {
                let names = [&kind.source, &kind.event_type, &kind.topic].map(|name| escaped(name));
                let [source, event_type, topic] = names;
                rows.add_row([source, event_type, topic, events.to_string(), bytes_about(*bytes)]);
            }
            writeln!(out, "{}\n", rows.trim_fmt())?;
        }
        write!(out, "{} to {to}", self.size())?;
        if let Some((first, last)) = self.received {
            write!(out, ", received from {} to {}", first.rfc3339(), last.rfc3339())?;
        }
        writeln!(out)
    }

    /// Returns the number of events and the size of their bodies as text.
    pub(super) fn size(&self) -> String {
        let noun = if self.events == 1 { "event" } else { "events" };
        format!("{} {noun} ({})", self.events, bytes_about(self.bytes))
    }

    /// Returns the numbers as an object for `--format json`.
    pub(super) fn to_json(&self, to: &str) -> Value {
        let row = |(kind, (events, bytes)): (&EventKind, &(u64, u64))| json!({ "source": kind.source, "type": kind.event_type, "topic": kind.topic, "events": events, "bytes": bytes });
        json!({
            "dry_run": true,
            "matched": self.events,
            "bytes": self.bytes,
            "to": to,
            "first_seq": (self.events > 0).then_some(self.seqs.start),
            "last_seq": (self.events > 0).then(|| self.seqs.end - 1),
            "first_received_at": self.received.map(|(first, _)| first.rfc3339()),
            "last_received_at": self.received.map(|(_, last)| last.rfc3339()),
            "gaps": super::report::gaps_json(&self.missing),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

/// Maximum number of rows. Further sources, types and topics share one row.
const MAX_KINDS: usize = 1_000;
const OTHERS: &str = "(others)";
