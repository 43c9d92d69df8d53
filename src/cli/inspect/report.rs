//! Prints one event with its request, its fate and its body: as text, or as a JSON object.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookhold::journal::StoredEvent;
use hookhold::units::bytes_about;
use serde_json::json;

use super::super::body_text::{BodyText, one_line};
use super::super::replay::past_replays::PastReplay;
use super::super::tail::event_line::source_text;
use super::fate::EventFate;
use super::verification::Reverification;

/// Everything that hookhold knows about one event.
pub(super) struct EventReport<'r> {
    pub(super) stored: &'r StoredEvent,
    pub(super) fate: EventFate,
    pub(super) verification: Reverification,
    /// Replays that have sent the event, the newest last.
    pub(super) replays: Vec<PastReplay>,
}

impl EventReport<'_> {
    /// Prints the report as text. Cuts a large body.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let (event, position) = (&self.stored.event, self.stored.position);
        let request = event.request();
        let text = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), |text| one_line(text, MAX_TEXT));
        let occurred = event.occurred_at().map_or_else(|| "-".to_owned(), |at| at.rfc3339());
        let target = one_line(&request.target, MAX_TEXT);
        for (name, value) in [
            ("event", position.to_string()),
            ("source", source_text(event.source(), event.account())),
            ("type", text(event.event_type())),
            ("id", text(event.id())),
            ("ordering key", text(event.ordering_key())),
            ("received", event.received_at().rfc3339()),
            ("occurred", occurred),
            ("topic", event.topic().to_string()),
            ("auth", event.auth().to_owned()),
            ("integrity", event.integrity().word().to_owned()),
            ("kafka", self.fate.text.clone()),
            ("verifies now", self.verification.text()),
        ] {
            writeln!(out, "{name:<NAME_WIDTH$}{value}")?;
        }
        for replay in &self.replays {
            let (at, to) = (replay.at(), one_line(replay.to(), MAX_TEXT));
            writeln!(out, "{:<NAME_WIDTH$}to {to}, until {at} (replay {})", "replayed", replay.replay)?;
        }
        writeln!(out, "{:<NAME_WIDTH$}{} {target} from {}", "request", request.method, request.remote)?;
        for (name, value) in &request.headers {
            writeln!(out, "  {name}: {}", one_line(&String::from_utf8_lossy(value.as_bytes()), MAX_TEXT))?;
        }
        let body = BodyText::of(event.body());
        let size = bytes_about(event.body().len() as u64);
        writeln!(out, "{:<NAME_WIDTH$}{size}, {}\n", "body", body.form.word())?;
        body.write(out, "", "--body")
    }

    /// Prints the report as one JSON object on one line.
    pub(super) fn print_json(&self, out: &mut impl Write) -> io::Result<()> {
        let (event, position) = (&self.stored.event, self.stored.position);
        let request = event.request();
        let headers: Vec<[String; 2]> = request
            .headers
            .iter()
            .map(|(name, value)| [name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
            .collect();
        let replay = |past: &PastReplay| json!({ "replay": past.replay, "at": past.at(), "to": past.to() });
        let object = json!({
            "event": position.to_string(),
            "seq": position.seq,
            "source": event.source(),
            "account": event.account(),
            "type": event.event_type(),
            "id": event.id(),
            "ordering_key": event.ordering_key(),
            "received_at": event.received_at().rfc3339(),
            "occurred_at": event.occurred_at().map(|at| at.rfc3339()),
            "topic": &**event.topic(),
            "auth": event.auth(),
            "integrity": event.integrity().word(),
            "remote": request.remote,
            "method": request.method,
            "target": request.target,
            "traceparent": request.traceparent,
            "headers": headers,
            "kafka": self.fate.json,
            "verifies": self.verification.json(),
            "replays": self.replays.iter().map(replay).collect::<Vec<_>>(),
            "body_base64": STANDARD.encode(event.body()),
        });
        writeln!(out, "{object}")
    }
}

/// Width of the column with the names of the values.
const NAME_WIDTH: usize = 14;
/// Number of characters of a value from outside hookhold that the report shows.
const MAX_TEXT: usize = 1_000;
