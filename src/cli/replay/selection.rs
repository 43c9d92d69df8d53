//! Selects the events of a replay. A selection can be written to the progress file, and as arguments of the command that resumes the
//! replay.

use hookhold::clock::UnixMillis;
use hookhold::journal::StoredEvent;
use hookhold::source::TypeFilter;
use serde::{Deserialize, Serialize};

use super::super::UsageError;
use super::super::time_bound::{parse_end, parse_start};

/// Options that select events. An event must fulfil all of them. An option that occurs several times selects the events that one of its
/// values selects.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplaySelection {
    /// Send only events of this source.
    #[arg(long, value_name = "SOURCE")]
    pub(super) source: Option<String>,
    /// Send only events of this type, or of all types that begin with the characters before a final *. Can occur several times.
    #[arg(long = "type", value_name = "TYPE", value_parser = check_type)]
    types: Vec<String>,
    /// Send only the event with this event id. Can occur several times.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Send only events whose Kafka record has this key.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Send only events that hookhold has stored for this Kafka topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Start of the period in which the events were received: today, yesterday, an age such as 2h, a day, or a time in RFC 3339. Days
    /// are days in UTC.
    #[arg(long, value_name = "TIME", value_parser = start)]
    since: Option<NamedTime>,
    /// End of the period, in the same forms. A day is included.
    #[arg(long, value_name = "TIME", value_parser = end)]
    until: Option<NamedTime>,
    /// Send only events with these sequence numbers: A..B (both included), A.., ..B or A. `hookhold tail` shows the sequence numbers.
    #[arg(long, value_name = "A..B", value_parser = parse_seqs)]
    seq: Option<SeqRange>,
    /// Send all stored events.
    #[arg(long, conflicts_with_all = ["source", "types", "ids", "key", "topic", "since", "until", "seq"])]
    all: bool,
}

/// A time as the operator has written it. Two times are equal if their texts are, because `2h` is another time at each start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedTime {
    text: String,
    /// Time in Unix milliseconds.
    at: u64,
}

/// First and last sequence of a range; `None` for the newest event at the start of the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeqRange {
    first: u64,
    last: Option<u64>,
}

/// A selection whose type patterns are compiled.
pub(super) struct CompiledSelection {
    selection: ReplaySelection,
    types: Vec<TypeFilter>,
}

impl PartialEq for NamedTime {
    fn eq(&self, other: &NamedTime) -> bool {
        self.text == other.text
    }
}

impl Eq for NamedTime {}

impl ReplaySelection {
    /// Returns an error if no option selects events, so that an incomplete command does not send the whole journal.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        let has_texts = self.source.is_some() || !self.types.is_empty() || !self.ids.is_empty();
        let has_places = self.key.is_some() || self.topic.is_some() || self.seq.is_some();
        let has_period = self.since.is_some() || self.until.is_some();
        if has_texts || has_places || has_period || self.all { Ok(()) } else { Err(UsageError(NOTHING_SELECTED.to_owned())) }
    }

    /// Compiles the selection; `None` if a type pattern is invalid, which is possible only in a changed progress file.
    pub(super) fn compile(&self) -> Option<CompiledSelection> {
        let types = self.types.iter().map(|pattern| TypeFilter::of_pattern(pattern)).collect::<Option<_>>()?;
        Some(CompiledSelection { selection: self.clone(), types })
    }

    /// Returns true if the selection names event ids.
    pub(super) fn names_ids(&self) -> bool {
        !self.ids.is_empty()
    }

    /// Returns the first sequence that the selection names; `None` if it names none.
    pub(super) fn first_seq(&self) -> Option<u64> {
        self.seq.map(|seqs| seqs.first)
    }

    /// Returns the start of the period.
    pub(super) fn since(&self) -> Option<UnixMillis> {
        self.since.as_ref().map(|since| UnixMillis(since.at))
    }

    /// Returns the end of the range of sequences. `log_end` is the log end at the start of the replay.
    pub(super) fn end_seq(&self, log_end: u64) -> u64 {
        let last = self.seq.and_then(|seqs| seqs.last);
        last.map_or(log_end, |last| last.saturating_add(1).min(log_end))
    }

    /// Returns the arguments that select the same events as this selection, as far as their sequences are at least `from` and below
    /// `end`. Times are absolute.
    pub(super) fn rest(&self, from: u64, end: u64) -> Vec<String> {
        let seqs = Some(format!("{from}..{}", end.saturating_sub(1)));
        self.arguments(|time| UnixMillis(time.at).rfc3339(), seqs)
    }

    /// Returns the arguments as the operator has given them.
    pub(super) fn given(&self) -> Vec<String> {
        let last = |last: Option<u64>| last.map_or_else(String::new, |last| last.to_string());
        let seqs = self.seq.map(|seqs| format!("{}..{}", seqs.first, last(seqs.last)));
        let mut arguments = self.arguments(|time| time.text.clone(), seqs);
        arguments.extend(self.all.then(|| "--all".to_owned()));
        arguments
    }

    fn arguments(&self, time: impl Fn(&NamedTime) -> String, seqs: Option<String>) -> Vec<String> {
        let many = |name: &'static str, values: &[String]| values.iter().map(|value| (name, value.clone())).collect::<Vec<_>>();
        let one = |name: &'static str, value: Option<String>| value.map(|value| (name, value));
        let times = [one("--since", self.since.as_ref().map(&time)), one("--until", self.until.as_ref().map(&time))];
        let options = [one("--source", self.source.clone()), one("--key", self.key.clone()), one("--topic", self.topic.clone())];
        let single = options.into_iter().chain(times).chain([one("--seq", seqs)]).flatten();
        let all = many("--type", &self.types).into_iter().chain(many("--id", &self.ids)).chain(single);
        all.flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

impl CompiledSelection {
    /// Returns true if the selection contains an event of its range of sequences.
    pub(super) fn accepts(&self, stored: &StoredEvent) -> bool {
        let (wanted, event) = (&self.selection, &stored.event);
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let (received_at, event_type) = (event.received_at().0, event.event_type());
        let is_type = |filter: &TypeFilter| event_type.is_some_and(|found| filter.accepts(Some(found)));
        is(&wanted.source, event.source())
            && is(&wanted.topic, event.topic())
            && (self.types.is_empty() || self.types.iter().any(is_type))
            && (wanted.ids.is_empty() || event.id().is_some_and(|id| wanted.ids.iter().any(|wanted| wanted == id)))
            && wanted.since.as_ref().is_none_or(|since| received_at >= since.at)
            && wanted.until.as_ref().is_none_or(|until| received_at <= until.at)
            && wanted.key.as_ref().is_none_or(|wanted| *wanted == *hookhold::forward::record_key(stored))
    }
}

fn check_type(text: &str) -> Result<String, String> {
    let found = TypeFilter::of_pattern(text).map(|_| text.to_owned());
    found.ok_or_else(|| format!("expected an event type such as invoice.paid, invoice.* or *, found {text:?}"))
}

fn start(text: &str) -> Result<NamedTime, String> {
    parse_start(text).map(|at| NamedTime { text: text.to_owned(), at: at.0 })
}

fn end(text: &str) -> Result<NamedTime, String> {
    parse_end(text).map(|at| NamedTime { text: text.to_owned(), at: at.0 })
}

fn parse_seqs(text: &str) -> Result<SeqRange, String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let bound = |text: &str, otherwise| if text.is_empty() { Some(otherwise) } else { text.parse().ok().map(Some) };
    let range = match (bound(first, Some(0)).flatten(), bound(last, None)) {
        (Some(first), Some(last)) if !text.is_empty() && text != ".." => Some(SeqRange { first, last }),
        _ => None,
    };
    let range = range.filter(|range| range.last.is_none_or(|last| last >= range.first));
    range.ok_or_else(|| format!("expected sequence numbers such as 100..199, 100.., ..199 or 100, found {text:?}"))
}

const NOTHING_SELECTED: &str = "replay: expected a selection of events, found none; select events with --source, --type, --id, \
                                --key, --topic, --since, --until or --seq, or all stored events with --all; --dry-run counts them";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_sequences_include_both_ends() {
        let parsed = |text: &str| parse_seqs(text).ok().map(|range| (range.first, range.last));
        assert_eq!(parsed("5..9"), Some((5, Some(9))));
        assert_eq!(parsed("5.."), Some((5, None)));
        assert_eq!(parsed("..9"), Some((0, Some(9))));
        assert_eq!(parsed("7"), Some((7, Some(7))));
        for text in ["", "..", "9..5", "a..b", "1...2", "-1..2", "1..2..3"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
