//! Formats a delivery and a result of the local program: as a line for the terminal, or as a JSON object.

use anstyle::{AnsiColor, Style};
use hookhold::clock::UnixMillis;
use hookhold::journal::StoredEvent;
use hookhold::log::escaped;
use hookhold::outcome::Outcome;
use serde_json::{Value, json};

use super::update::{AcknowledgedEvent, AnsweredRequest, ProgramResult, ProgramUpdate};

/// A delivery with its answer. The type and the id are those of the stored event, because only a verified delivery has them.
pub(super) struct DeliveryLine {
    answered: AnsweredRequest,
    event_type: Option<String>,
    id: Option<String>,
}

impl DeliveryLine {
    /// Creates a line for an answered request. `stored` is the event that the answer names.
    pub(super) fn new(answered: AnsweredRequest, stored: Option<StoredEvent>) -> DeliveryLine {
        let event = stored.map(|stored| stored.event);
        let event_type = event.as_ref().and_then(|event| event.event_type().map(escaped));
        DeliveryLine { answered, event_type, id: event.and_then(|event| event.id().map(escaped)) }
    }

    /// Returns the line, and a second line with the cause of a rejection.
    pub(super) fn text(&self, has_colour: bool) -> String {
        let AnsweredRequest { at, source, outcome, status, hint, seq, .. } = &self.answered;
        let [event_type, id] = [&self.event_type, &self.id].map(|text| text.as_deref().unwrap_or("-"));
        let ending = match (outcome, seq) {
            (Outcome::Stored, Some(seq)) => format!("stored #{seq}"),
            (Outcome::Duplicate, Some(seq)) => format!("duplicate of #{seq}"),
            _ => outcome.word().to_owned(),
        };
        let style = style(*outcome, *status);
        let (status, ending) = (painted(&status.to_string(), style, has_colour), painted(&ending, style, has_colour));
        let line = format!("{}  {status}  {source:<SOURCE$}  {event_type:<TYPE$}  {id:<ID$}  {ending}", time(*at));
        match hint.is_empty() {
            true => line,
            false => format!("{line}\n{INDENT}{}", painted(hint, Style::new().dimmed(), has_colour)),
        }
    }

    /// Returns the line as a JSON object.
    pub(super) fn json(&self) -> Value {
        let AnsweredRequest { at, source, remote, outcome, status, hint, seq } = &self.answered;
        json!({
            "kind": "delivery",
            "time": at.rfc3339(),
            "status": status,
            "source": source,
            "type": self.event_type,
            "id": self.id,
            "outcome": outcome.word(),
            "seq": seq,
            "hint": if hint.is_empty() { None } else { Some(hint) },
            "remote": remote.to_string(),
        })
    }
}

/// Returns the line about an event that Kafka has acknowledged.
pub(super) fn kafka_text(event: &AcknowledgedEvent, has_colour: bool) -> String {
    let AcknowledgedEvent { at, seq, topic, partition, offset } = event;
    let place = painted(&format!("{topic}/{partition}@{offset}"), AnsiColor::Green.on_default(), has_colour);
    format!("{}  ack  #{seq} in Kafka: {place}", time(*at))
}

/// Returns the place of an event in Kafka as a JSON object.
pub(super) fn kafka_json(event: &AcknowledgedEvent) -> Value {
    let AcknowledgedEvent { at, seq, topic, partition, offset } = event;
    json!({ "kind": "acknowledged", "time": at.rfc3339(), "seq": seq, "topic": topic, "partition": partition, "offset": offset })
}

/// Returns the line about a result of the local program at `url`.
pub(super) fn program_text(update: &ProgramUpdate, url: &str, has_colour: bool) -> String {
    let ProgramUpdate { at, seq, result, is_replay } = update;
    let verb = if *is_replay { "replayed" } else { "forwarded" };
    let (at, bad) = (time(*at), AnsiColor::Red.on_default());
    match result {
        ProgramResult::Answered(status, attempts) => {
            let style = if (200..300).contains(status) { AnsiColor::Green.on_default() } else { bad };
            let after = if *attempts > 1 { format!(" after {attempts} attempts") } else { String::new() };
            format!("{at}  {}  {verb} #{seq} to {url}{after}", painted(&status.to_string(), style, has_colour))
        }
        ProgramResult::Waiting(why) => {
            format!("{at}  {}  #{seq} waits for {url}: {why}; trying again", painted("---", bad, has_colour))
        }
        ProgramResult::Failed(why) => format!("{at}  {}  #{seq} not {verb} to {url}: {why}", painted("---", bad, has_colour)),
    }
}

/// Returns the result of the local program as a JSON object.
pub(super) fn program_json(update: &ProgramUpdate, url: &str) -> Value {
    let ProgramUpdate { at, seq, result, is_replay } = update;
    let (kind, status, attempts, reason) = match result {
        ProgramResult::Answered(status, attempts) => ("forwarded", Some(status), Some(attempts), None),
        ProgramResult::Waiting(why) => ("waiting", None, None, Some(why)),
        ProgramResult::Failed(why) => ("failed", None, None, Some(why)),
    };
    json!({
        "kind": kind,
        "time": at.rfc3339(),
        "seq": seq,
        "url": url,
        "status": status,
        "attempts": attempts,
        "reason": reason,
        "replay": is_replay,
    })
}

/// Returns the text in this style, or without a style if the output has no colours.
pub(super) fn painted(text: &str, style: Style, has_colour: bool) -> String {
    if has_colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

fn style(outcome: Outcome, status: u16) -> Style {
    let colour = match outcome {
        Outcome::Stored => AnsiColor::Green,
        _ if status < 300 => AnsiColor::Cyan,
        _ if status < 500 => AnsiColor::Red,
        _ => AnsiColor::Magenta,
    };
    colour.on_default()
}

/// Returns the time of day in UTC, with milliseconds.
fn time(at: UnixMillis) -> String {
    let text = at.rfc3339();
    text.split_once('T').map_or(text.clone(), |(_, time)| time.trim_end_matches('Z').to_owned())
}

/// Widths of the columns, for the names of the built-in recipes, their usual types, and the ids of samples.
const SOURCE: usize = 12;
const TYPE: usize = 26;
const ID: usize = 28;
/// White space below the time.
const INDENT: &str = "              ";
