//! Selects the events that `hookhold tail` shows.

use hookhold::clock::UnixMillis;
use hookhold::journal::EventFields;
use hookhold::source::TypeFilter;

use super::super::time_bound::{parse_end, parse_start};

/// Options that select events. An event must fulfil all of them.
#[derive(clap::Args)]
pub(super) struct EventFilter {
    /// Show only events of this source.
    #[arg(long, value_name = "SOURCE")]
    pub(super) source: Option<String>,
    /// Show only events of this type, or of all types that begin with the characters before a final *.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    event_type: Option<TypeFilter>,
    /// Show only events with this event id.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Show only events for this Kafka topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Start of the period in which the events were received: today, yesterday, an age such as 2h, a day, or a time in RFC 3339. Days
    /// are days in UTC.
    #[arg(long, value_name = "TIME", value_parser = parse_start)]
    pub(super) since: Option<UnixMillis>,
    /// End of the period, in the same forms. A day is included. Also ends --follow.
    #[arg(long, value_name = "TIME", value_parser = parse_end)]
    pub(super) until: Option<UnixMillis>,
}

impl EventFilter {
    /// Returns true if the options select the event.
    pub(super) fn accepts(&self, fields: &EventFields<'_>) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        is(&self.id, fields.id)
            && is(&self.source, Some(fields.source))
            && is(&self.topic, Some(fields.topic))
            && self.since.is_none_or(|since| fields.received_at >= since)
            && self.until.is_none_or(|until| fields.received_at <= until)
            && self.event_type.as_ref().is_none_or(|filter| fields.event_type.is_some_and(|found| filter.accepts(Some(found))))
    }

    /// Returns true if an option selects events by their time.
    pub(super) fn has_period(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    /// Returns true if an option selects events by something else than their time.
    pub(super) fn has_properties(&self) -> bool {
        self.source.is_some() || self.event_type.is_some() || self.id.is_some() || self.topic.is_some()
    }
}

fn parse_type(text: &str) -> Result<TypeFilter, String> {
    TypeFilter::of_pattern(text)
        .ok_or_else(|| format!("expected an event type such as invoice.paid, invoice.* or *, found {text:?}"))
}
