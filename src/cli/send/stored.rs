//! Counts the events that `send` has sent and that the journal of this machine has stored. Reads the journal while the gateway
//! writes to it. The gateway publishes its watermark before it answers with 2xx, so the count needs no wait.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use hookhold::config::JournalConfig;
use hookhold::journal::{ReadOnlyJournal, StoredEvent};
use hookhold::log::escaped;
use serde_json::{Value, json};

use crate::cli::journal_disk;

/// The journal of this machine, at its log end before the first delivery.
pub(super) struct StoredWatch {
    journal: ReadOnlyJournal,
    /// Sequence at the log end before the first delivery.
    end: u64,
    /// Path of the journal's directory, for messages.
    dir: String,
}

/// The events of one `send` in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredSummary {
    /// Number of events.
    pub(super) events: u64,
    /// Sequences of the first and the last event; `None` if there are no events.
    range: Option<(u64, u64)>,
    topics: BTreeSet<Arc<str>>,
    /// Id of the last event; `None` if it has none.
    id: Option<String>,
    /// Sequence of an event that was stored before, if none is new.
    earlier: Option<u64>,
    /// Path of the journal's directory, for messages.
    dir: String,
}

/// Number of earlier events among which [`StoredWatch::count`] looks for a duplicate's original.
const MAX_EARLIER: u64 = 100_000;

impl StoredWatch {
    /// Opens the journal and finds its log end. Returns `None` if there is no journal yet, and the reason if hookhold cannot read
    /// the journal.
    pub(super) fn open(config: &JournalConfig) -> Option<Result<StoredWatch, String>> {
        let disk = match journal_disk(config) {
            Err(error) if error.error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(Err(error.to_string())),
            Ok(disk) => disk,
        };
        let at_end = ReadOnlyJournal::open(disk).and_then(|mut journal| {
            let end = journal.log_end()?;
            journal.seek(end);
            Ok((journal, end))
        });
        let dir = config.dir.display().to_string();
        Some(at_end.map(|(journal, end)| StoredWatch { journal, end, dir }).map_err(|error| error.to_string()))
    }

    /// Counts the events since the log end for which `is_own` returns true. If there is none, and the gateway has accepted a delivery
    /// (`is_accepted`), finds the last one of the earlier events.
    pub(super) fn count(mut self, is_accepted: bool, is_own: impl Fn(&StoredEvent) -> bool) -> io::Result<StoredSummary> {
        let mut summary = StoredSummary { dir: self.dir, ..StoredSummary::default() };
        while let Some(stored) = self.journal.next()? {
            if is_own(&stored) {
                let seq = stored.position.seq;
                summary.events += 1;
                summary.range = Some((summary.range.map_or(seq, |(first, _)| first), seq));
                summary.topics.insert(stored.event.topic().clone());
                summary.id = stored.event.id().map(escaped);
            }
        }
        if summary.events == 0 && is_accepted {
            self.journal.seek(self.end.saturating_sub(MAX_EARLIER));
            while let Some(stored) = self.journal.next()?.filter(|stored| stored.position.seq < self.end) {
                summary.earlier = is_own(&stored).then_some(stored.position.seq).or(summary.earlier);
            }
        }
        Ok(summary)
    }
}

impl StoredSummary {
    /// Returns true if the gateway has stored the events already before.
    pub(super) fn is_known(&self) -> bool {
        self.events == 0 && self.earlier.is_some()
    }

    /// Returns the line of the report. `accepted` is the number of accepted deliveries, and `is_filtered` is true if the source
    /// does not store their type.
    pub(super) fn line(&self, accepted: u64, is_filtered: bool) -> String {
        let again = match accepted.saturating_sub(self.events) {
            _ if self.events == 0 => String::new(),
            0 => String::new(),
            1 => "; 1 duplicate was not stored again".to_owned(),
            more => format!("; {more} duplicates were not stored again"),
        };
        if self.events > 0 {
            return format!("stored: {self}{again}");
        }
        match accepted {
            0 => "stored: no events".to_owned(),
            _ if is_filtered => "stored: no events; `types` of the source does not include this type".to_owned(),
            _ => match self.earlier {
                Some(seq) => format!("stored: no new event; the gateway has it already as #{seq}, so this was a duplicate"),
                None => format!("stored: no new event; the gateway has it already, or uses another journal than {}", self.dir),
            },
        }
    }

    /// Returns the value of the field `stored` of the report in JSON.
    pub(super) fn json(&self, accepted: u64) -> Value {
        let duplicates = if self.events == 0 { 0 } else { accepted.saturating_sub(self.events) };
        let (first, last) = self.range.unzip();
        json!({ "events": self.events, "first": first, "last": last, "topics": self.topics(), "duplicates": duplicates })
    }

    fn topics(&self) -> Vec<&str> {
        self.topics.iter().map(|topic| &**topic).collect()
    }
}

impl fmt::Display for StoredSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, last)) = self.range else { return f.write_str("no events") };
        let events = if self.events == 1 { "event" } else { "events" };
        write!(f, "{} {events}, ", self.events)?;
        match last - first {
            0 => match &self.id {
                Some(id) => write!(f, "#{first} ({id})")?,
                None => write!(f, "#{first}")?,
            },
            span if span + 1 == self.events => write!(f, "#{first} to #{last}")?,
            _ => write!(f, "between #{first} and #{last}")?,
        }
        let topics = self.topics();
        write!(f, ", {} {}", if topics.len() == 1 { "topic" } else { "topics" }, topics.join(", "))
    }
}
