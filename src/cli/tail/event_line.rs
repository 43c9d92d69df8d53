//! Formats a stored event as one line of text, or as a JSON object. On a terminal, the line is not longer than the terminal is wide.

use std::io::{self, Write};

use anstyle::Style;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookhold::journal::StoredEvent;
use hookhold::log::escaped;
use hookhold::units::bytes_about;
use http::header::CONTENT_TYPE;
use rustix::termios::{isatty, tcgetwinsize};
use serde::Serialize;

/// A stored event for `--format json`.
#[derive(Serialize)]
pub(in crate::cli) struct EventJson<'a> {
    pub(in crate::cli) seq: u64,
    pub(in crate::cli) source: &'a str,
    /// `null` unless an event of another account has the same id.
    pub(in crate::cli) account: Option<&'a str>,
    pub(in crate::cli) id: Option<&'a str>,
    pub(in crate::cli) r#type: Option<&'a str>,
    /// Key of the Kafka record: the ordering key if there is one, otherwise the event id if there is one, otherwise the position of
    /// the event.
    key: &'a str,
    received_at: String,
    content_type: Option<&'a str>,
    topic: &'a str,
    body_base64: String,
}

impl<'a> EventJson<'a> {
    /// Returns the object for an event with this position.
    pub(in crate::cli) fn new(stored: &'a StoredEvent, position: &'a str) -> EventJson<'a> {
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
}

/// The columns of a line, as plain text.
pub(in crate::cli) struct EventLine {
    seq: String,
    at: String,
    source: String,
    event_type: String,
    id: String,
    size: String,
}

impl EventLine {
    /// Returns the line of an event.
    pub(in crate::cli) fn of(stored: &StoredEvent) -> EventLine {
        let event = &stored.event;
        let [event_type, id] = [event.event_type(), event.id()].map(|text| escaped(text.unwrap_or("-")));
        EventLine {
            seq: format!("{:>8}", stored.position.seq),
            at: event.received_at().rfc3339(),
            source: source_text(event.source(), event.account()),
            event_type,
            id,
            size: bytes_about(event.body().len() as u64),
        }
    }

    /// Writes the line. `width` is the width of the terminal in columns; `None` without a terminal, where no column is cut.
    pub(in crate::cli) fn write(mut self, out: &mut impl Write, width: Option<usize>) -> io::Result<()> {
        let mut widths = (SOURCE_WIDTH, TYPE_WIDTH);
        if let Some(width) = width.filter(|width| self.columns(widths) > *width) {
            widths = self.shorten(width);
        }
        self.source = padded(&self.source, widths.0);
        self.event_type = padded(&self.event_type, widths.1);
        let plain = format!("{}  {}  {}  {}  {}  {}", self.seq, self.at, self.source, self.event_type, self.id, self.size);
        if let Some(width) = width.filter(|width| columns(&plain) > *width) {
            // The terminal is too narrow for the columns.
            return writeln!(out, "{}", cut(&plain, width));
        }
        let (dim, bold) = (Style::new().dimmed(), Style::new().bold());
        let EventLine { seq, at, source, event_type, id, size } = self;
        writeln!(out, "{seq}  {dim}{at}{dim:#}  {source}  {bold}{event_type}{bold:#}  {id}  {dim}{size}{dim:#}")
    }

    /// Returns the width of the line if source and type have at least these widths.
    fn columns(&self, (source, event_type): (usize, usize)) -> usize {
        let others = [&self.seq, &self.at, &self.id, &self.size].map(|text| columns(text)).into_iter().sum::<usize>();
        others + SEPARATORS + columns(&self.source).max(source) + columns(&self.event_type).max(event_type)
    }

    /// Makes the line at most `width` columns wide: shortens the time, then type and source, and then the id. Returns the widths of
    /// source and type, which are the same for all events with an id of the same length.
    fn shorten(&mut self, width: usize) -> (usize, usize) {
        self.at = self.at.get(5..19).unwrap_or(&self.at).replace('T', " ");
        let others = [&self.seq, &self.at, &self.size].map(|text| columns(text)).into_iter().sum::<usize>();
        let room = width.saturating_sub(others + SEPARATORS);
        self.id = cut(&self.id, room.saturating_sub(LEAST_SOURCE_WIDTH + LEAST_TYPE_WIDTH));
        let room = room.saturating_sub(columns(&self.id));
        // The type says more than the source.
        let most = (room / 3).clamp(LEAST_SOURCE_WIDTH, SOURCE_WIDTH).min(room.saturating_sub(LEAST_TYPE_WIDTH));
        let source = columns(&self.source).max(LEAST_SOURCE_WIDTH).min(most);
        let event_type = TYPE_WIDTH.max(columns(&self.event_type)).min(room - source);
        self.source = cut(&self.source, source);
        self.event_type = cut(&self.event_type, event_type);
        (source, event_type)
    }
}

/// Returns the name of a source, and the account if an event of another account has the same id.
pub(in crate::cli) fn source_text(source: &str, account: Option<&str>) -> String {
    match account {
        Some(account) => format!("{source}/{}", escaped(account)),
        None => source.to_owned(),
    }
}

/// Returns the width of the terminal in columns; `None` if standard output is no terminal, or a terminal without a known width.
pub(in crate::cli) fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    let size = if isatty(&stdout) { tcgetwinsize(&stdout).ok() } else { None };
    size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// Cuts a text to at most `width` columns. A cut text ends in `…`.
fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |letter: &char| {
        let letter_width = column_width(*letter);
        let fits = letter_width <= left;
        left = left.saturating_sub(letter_width);
        fits
    };
    let mut shown: String = text.chars().take_while(fits).collect();
    if width > 0 {
        shown.push(CUT);
    }
    shown
}

/// Appends spaces to a text until it is `width` columns wide.
fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

fn columns(text: &str) -> usize {
    text.chars().map(column_width).sum()
}

/// Returns the largest number of columns that a character can take on a terminal. Letters of some scripts take two.
fn column_width(letter: char) -> usize {
    if letter.is_ascii() || letter == CUT { 1 } else { 2 }
}

/// Character at the end of a cut text.
const CUT: char = '…';
/// Width of the spaces between the columns.
const SEPARATORS: usize = 5 * 2;
/// Usual widths of the columns source and type.
const SOURCE_WIDTH: usize = 16;
const TYPE_WIDTH: usize = 28;
/// Widths below which the columns source and type are not shortened while the id can be.
const LEAST_SOURCE_WIDTH: usize = 6;
const LEAST_TYPE_WIDTH: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(source: &str, event_type: &str, id: &str) -> EventLine {
        let [source, event_type, id, size] = [source, event_type, id, "1023.9 KiB"].map(str::to_owned);
        EventLine { seq: "       1".to_owned(), at: "2026-11-21T07:08:13.042Z".to_owned(), source, event_type, id, size }
    }

    fn text(line: EventLine, width: Option<usize>) -> String {
        let mut out = Vec::new();
        line.write(&mut out, width).expect("a Vec accepts every write");
        anstream::adapter::strip_str(&String::from_utf8(out).expect("text")).to_string()
    }

    #[test]
    fn no_line_is_wider_than_its_terminal() {
        for width in 1..200 {
            for id in ["e", "evt_1d3fb64e9e2a9dc6_0", &"x".repeat(120), &"会議".repeat(60)] {
                for (source, event_type) in [("s", "t"), ("stripe/acct", &*"customer.".repeat(9))] {
                    let shown = text(line(source, event_type, id), Some(width));
                    assert!(columns(shown.trim_end_matches('\n')) <= width, "{width}: {shown}");
                }
            }
        }
    }

    #[test]
    fn ids_are_shortened_last() {
        let shown = text(line("shopify-orders", "customer.subscription.updated", "evt_1d3fb64e9e2a9d"), Some(80));
        assert_eq!(shown, "       1  11-21 07:08:13  shopi…  customer.subs…  evt_1d3fb64e9e2a9d  1023.9 KiB\n".to_owned());
        let long = text(line("stripe", "invoice.paid", "evt_1d3fb64e9e2a9dc6_0123456789"), Some(80));
        assert!(long.contains("  stripe  invoice.p…  evt_1d3fb64e9e2a9dc6_…  "), "{long}");
    }

    #[test]
    fn a_line_without_a_terminal_is_complete() {
        let (event_type, id) = ("t".repeat(60), "i".repeat(100));
        let shown = text(line("a-source-with-a-long-name", &event_type, &id), None);
        assert!(
            shown.contains(&format!("  2026-11-21T07:08:13.042Z  a-source-with-a-long-name  {event_type}  {id}  ")),
            "{shown}"
        );
    }
}
