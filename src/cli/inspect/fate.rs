//! Finds out where a stored event is: in a Kafka topic, among the events that wait for a topic, or among the parked events.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hookhold::config::{Config, KafkaConfig};
use hookhold::forward::{FoundRecord, RecordSearch, RecordSearchError, Settings, find_record};
use hookhold::journal::{EventStanding, ParkedEvent, StoredEvent};
use hookhold::service::forward_settings;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::super::body_text::one_line;
use super::lookup::EventStores;

/// Fate of an event: a text for the operator, and an object for `--format json`.
pub(super) struct EventFate {
    pub(super) text: String,
    pub(super) json: Value,
}

/// Inputs for the fate of an event.
pub(super) struct FateQuery<'q> {
    /// The configuration, or the reason why it cannot be read.
    pub(super) config: &'q Result<Config, String>,
    /// Path of the configuration file.
    pub(super) file: &'q Path,
    pub(super) stores: &'q EventStores,
    /// Longest time to search Kafka for the record.
    pub(super) timeout: Duration,
}

impl FateQuery<'_> {
    /// Finds the fate of an event.
    pub(super) fn fate_of(&self, stored: &StoredEvent) -> Result<EventFate, Box<dyn Error>> {
        if let Some(parked) = self.stores.parked(stored.position)? {
            return Ok(parked_fate(stored, &parked));
        }
        match self.config {
            Ok(config) => match forward_settings(config) {
                Some(settings) => self.in_kafka(stored, config, &settings),
                None => self.without_kafka(stored),
            },
            Err(error) => match KafkaConfig::load_topics(self.file) {
                Ok(None) => self.without_kafka(stored),
                _ => {
                    let standing = self.standing(stored, true)?;
                    let why = format!("Kafka was not asked, because the configuration cannot be read: {error}");
                    Ok(by_cursor(stored, &standing, "unknown", &why, json!({})))
                }
            },
        }
    }

    fn standing(&self, stored: &StoredEvent, forwards: bool) -> Result<EventStanding, Box<dyn Error>> {
        Ok(self.stores.journal.standing(stored.event.topic(), stored.position.seq, forwards)?)
    }

    fn without_kafka(&self, stored: &StoredEvent) -> Result<EventFate, Box<dyn Error>> {
        let (standing, topic) = (self.standing(stored, false)?, stored.event.topic());
        let text = match standing.waits {
            false => "there is no [kafka] section, so the journal is the destination".to_owned(),
            true => format!(
                "waiting for the topic {topic}, but there is no [kafka] section; add [kafka] again, or give the events up with \
                 `hookhold journal release {topic}`"
            ),
        };
        Ok(EventFate { text, json: json!({ "state": "no_kafka", "topic": &**topic, "waits": standing.waits }) })
    }

    fn in_kafka(&self, stored: &StoredEvent, config: &Config, settings: &Settings) -> Result<EventFate, Box<dyn Error>> {
        let own = stored.event.topic();
        let topic = settings.destination(own);
        let standing = self.standing(stored, true)?;
        let search = self.search(settings, stored, &topic);
        let mut details = json!({ "topic": &*topic });
        if let Ok(RecordSearch::Found(record)) = search {
            let from = if topic == *own { String::new() } else { format!(" (the configuration reroutes {own})") };
            return Ok(found(&record, "found", &topic, &from));
        }
        if let Some(letters) = self.dead_letter(settings, stored, &topic, &search)
            && let Ok(RecordSearch::Found(record)) = self.search(settings, stored, &letters)
        {
            let note = ", the dead-letter topic, because Kafka has rejected the record in its own topic";
            return Ok(found(&record, "dead_letter", &letters, note));
        }
        let (state, mut why) = match &search {
            Err(error) => {
                details["error"] = json!(error.to_string());
                ("unknown", error.to_string())
            }
            Ok(RecordSearch::TimedOut { records }) => {
                details["searched"] = json!(records);
                let why = format!("the search has read {records} records without finding it; raise --timeout to read further");
                ("unknown", why)
            }
            Ok(RecordSearch::Absent { records, is_truncated }) => {
                details["searched"] = json!(records);
                ("absent", absent(&topic, *records, *is_truncated))
            }
            Ok(RecordSearch::Found(_)) => ("found", String::new()),
        };
        let is_configured = config.sources.iter().any(|source| source.topics.include(own)) || topic != *own;
        if !is_configured {
            details["configured"] = json!(false);
            why = format!("no source forwards to this topic any more; {why}");
        }
        Ok(by_cursor(stored, &standing, state, &why, details))
    }

    /// Returns the dead-letter topic if it may contain a copy of the event.
    fn dead_letter(
        &self,
        settings: &Settings,
        stored: &StoredEvent,
        topic: &Arc<str>,
        search: &Result<RecordSearch, RecordSearchError>,
    ) -> Option<Arc<str>> {
        let is_reached = !matches!(search, Err(RecordSearchError::Unreachable { .. } | RecordSearchError::Setup(_)));
        let letters = settings.dead_letter.clone().filter(|letters| is_reached && letters != topic);
        letters.filter(|letters| *letters != *stored.event.topic())
    }

    /// Searches a topic. Shows on a terminal that the search is under way.
    fn search(&self, settings: &Settings, stored: &StoredEvent, topic: &Arc<str>) -> Result<RecordSearch, RecordSearchError> {
        let spinner = ProgressBar::new_spinner();
        spinner.set_message(format!("searching the topic {topic} for the record"));
        spinner.enable_steady_tick(TICK);
        let found = find_record(settings, stored, topic, self.timeout);
        spinner.finish_and_clear();
        found
    }
}

fn parked_fate(stored: &StoredEvent, parked: &ParkedEvent) -> EventFate {
    let (note, position) = (&parked.note, stored.position);
    let (at, reason, detail) = (note.parked_at.rfc3339(), &note.reason, one_line(&note.detail, MAX_DETAIL));
    let notice = if parked.has_notice { "; the dead-letter topic has a notice of it, without the body" } else { "" };
    let text = format!(
        "parked at {at}, because Kafka has rejected the record: {reason}: {detail}{notice}; see `hookhold parked show {position}`"
    );
    let json = json!({
        "state": "parked", "topic": &**stored.event.topic(), "parked_at": at, "reason": reason, "detail": note.detail,
        "notice": parked.has_notice,
    });
    EventFate { text, json }
}

fn found(record: &FoundRecord, state: &str, topic: &str, note: &str) -> EventFate {
    let FoundRecord { partition, offset, is_redriven } = *record;
    let redriven = if is_redriven { ", sent again after it was parked" } else { "" };
    EventFate {
        text: format!("{topic}/{partition}@{offset}{redriven}{note}"),
        json: json!({ "state": state, "topic": topic, "partition": partition, "offset": offset, "redriven": is_redriven }),
    }
}

/// Returns the fate of an event that was not found in Kafka, as its topic's cursor shows it. `state` is the word for an event that the
/// cursor has passed, `why` is the result of the search, and `details` are further fields of the object.
fn by_cursor(stored: &StoredEvent, standing: &EventStanding, state: &str, why: &str, mut details: Value) -> EventFate {
    let topic = stored.event.topic();
    let (state, text) = match standing {
        EventStanding { waits: true, before, .. } => {
            let before = match before {
                0 => "no event of the topic waits before it".to_owned(),
                1 => "1 event of the topic waits before it".to_owned(),
                before => format!("{before} events of the topic wait before it"),
            };
            ("waiting", format!("waiting for the topic {topic}, {before}; {why}"))
        }
        EventStanding { cursor: Some(_), .. } => {
            let acknowledged = format!("acknowledged: the cursor of the topic {topic} is past it");
            (if state == "unknown" { "acknowledged" } else { state }, format!("{acknowledged}; {why}"))
        }
        EventStanding { cursor: None, .. } => {
            ("not_forwarded", format!("not forwarded: the journal has no cursor of the topic {topic}; {why}"))
        }
    };
    details["state"] = json!(state);
    details["topic"] = json!(details.get("topic").and_then(Value::as_str).unwrap_or(topic));
    details["cursor"] = json!(standing.cursor);
    details["waiting_before"] = json!(standing.waits.then_some(standing.before));
    EventFate { text, json: details }
}

fn absent(topic: &str, records: u64, is_truncated: bool) -> String {
    let deleted = match is_truncated {
        true => "the topic no longer contains all records from that time, because its retention has deleted them",
        false => "the topic may have been created again or compacted",
    };
    format!("{topic} has {records} records from its time of receipt on, and none of them is the event's; {deleted}")
}

/// Interval at which the spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// Number of characters of Kafka's error text that the fate of a parked event shows.
const MAX_DETAIL: usize = 300;
