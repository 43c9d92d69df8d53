//! Maps one event to one Kafka record. The record's value is exactly the event's body. The headers follow the CloudEvents 1.0
//! Kafka binding (binary mode), and hookhold adds headers of its own. Does not depend on topic queues or on the running
//! producer.
//!
//! Consumers recognise a provider's duplicates by `ce_source`, `ce_type` and `ce_id`, and hookhold's duplicates by `hookhold-log` and
//! `hookhold-seq` together. Consumers sort events by `hookhold-seq`. No identifier is a hash of the body, because the bodies of
//! two genuine events can be equal.

use std::borrow::Cow;

use http::HeaderName;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::RecordOptions;
use super::partitioner::KeyHash;
use crate::clock::UnixMillis;
use crate::credentials::is_credential;
use crate::event::Event;
use crate::journal::{ParkingNote, StoredEvent};

/// Name and value of one record header.
type RecordHeader<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

/// Key and headers of a Kafka record. The envelope does not contain the record's value, which is the event's body unless the record
/// has none.
pub(super) struct Envelope<'a> {
    /// Key of the record: the event's ordering key, else the event id, else the event's position (`LOG-SEQ`). The key is never
    /// null, so that all copies of a record go to the same partition.
    key: Cow<'a, str>,
    headers: Vec<RecordHeader<'a>>,
    has_body: bool,
}

impl<'a> Envelope<'a> {
    /// Builds the envelope of an event. `instance` identifies the journal that has stored the event. Each request header that
    /// `options` list becomes a record header `http-<name>`. A header with credentials does not become a record header, even if
    /// `options` list this header.
    pub(super) fn new(stored: &'a StoredEvent, instance: &'a str, options: Option<&RecordOptions>) -> Envelope<'a> {
        let event = &stored.event;
        let id = id(stored);
        let mut headers = cloud_event(stored, id);
        headers.extend([
            text("hookhold-source", event.source()),
            text("hookhold-received-at", event.received_at().rfc3339()),
            text(LOG, stored.position.log.to_string()),
            text(SEQ, stored.position.seq.to_string()),
            text("hookhold-instance", instance),
            text("hookhold-auth", event.auth()),
            text("hookhold-integrity", event.integrity().word()),
        ]);
        let (allowed, base_url) =
            options.map_or((&[][..], None), |options| (&*options.headers, options.signed_base_url.as_ref()));
        headers.extend(base_url.map(|base| text("hookhold-url", format!("{base}{}", event.request().target))));
        let forwarded = event.request().headers.iter().filter(|(name, _)| may_forward(name, allowed));
        headers.extend(forwarded.map(|(name, value)| (format!("http-{name}").into(), value.as_bytes().into())));
        Envelope { key: key(stored), headers, has_body: true }
    }

    /// Returns the hash of the record's key.
    pub(super) fn key_hash(&self) -> KeyHash {
        KeyHash::of(self.key.as_bytes())
    }

    /// Adds headers that mark the record as one of a parked event, which hookhold sends after later events of its key.
    pub(super) fn redriven(mut self, note: &'a ParkingNote) -> Envelope<'a> {
        let headers = [text(REDRIVEN, note.parked_at.rfc3339()), text("hookhold-parked-reason", &*note.reason)];
        self.headers.extend(headers);
        self
    }

    /// Adds headers that mark the record as one of a replay: the id of the replay, and the time at which hookhold sends the record.
    pub(super) fn replayed(mut self, replay: &'a str, now: UnixMillis) -> Envelope<'a> {
        self.headers.extend([text(REPLAY, replay), text(REPLAYED_AT, now.rfc3339())]);
        self
    }

    /// Adds headers that tell why and when Kafka has rejected the event, for a copy in the dead-letter topic. `topic` has rejected it.
    pub(super) fn dead_letter(mut self, note: &'a ParkingNote, topic: &'a str) -> Envelope<'a> {
        self.headers.extend([
            text("hookhold-dlq-topic", topic),
            text("hookhold-dlq-reason", &*note.reason),
            text("hookhold-dlq-error", &*note.detail),
            text("hookhold-dlq-at", note.parked_at.rfc3339()),
        ]);
        self
    }

    /// Makes the value of the record empty, and adds headers that tell so, for an event with a body of `size` bytes.
    pub(super) fn without_body(mut self, size: usize) -> Envelope<'a> {
        self.headers.extend([text("hookhold-dlq-body", "absent"), text("hookhold-dlq-size", size.to_string())]);
        self.has_body = false;
        self
    }

    /// Returns the total size of the record's key and headers, in bytes.
    pub(super) fn size(&self) -> usize {
        self.key.len() + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    /// Builds the record that librdkafka sends to `topic`. An empty or absent body becomes an empty value and not a null value. In a
    /// compacted topic, a null value would delete all earlier records with the same key.
    pub(super) fn record(&'a self, stored: &'a StoredEvent, topic: &'a str, ticket: usize) -> BaseRecord<'a, str, [u8], usize> {
        let none = OwnedHeaders::new_with_capacity(self.headers.len());
        let headers = self.headers.iter().fold(none, |so_far, (key, value)| so_far.insert(Header { key, value: Some(&**value) }));
        let value = if self.has_body { &stored.event.body()[..] } else { &[] };
        BaseRecord::with_opaque_to(topic, ticket)
            .key(&*self.key)
            .payload(value)
            .timestamp(i64::try_from(stored.event.received_at().0).unwrap_or(i64::MAX))
            .headers(headers)
    }
}

/// Returns the key of an event's record.
pub fn key(stored: &StoredEvent) -> Cow<'_, str> {
    present(stored.event.ordering_key()).map_or_else(|| id(stored), Cow::from)
}

/// Returns the id by which consumers recognise a provider's duplicates: the event id, else the event's position.
fn id(stored: &StoredEvent) -> Cow<'_, str> {
    present(stored.event.id()).map_or_else(|| stored.position.to_string().into(), Cow::from)
}

/// Builds the record headers for the CloudEvents 1.0 attributes of an event, and copies the request's content type, content
/// coding and trace context.
fn cloud_event<'a>(stored: &'a StoredEvent, id: Cow<'a, str>) -> Vec<RecordHeader<'a>> {
    let event = &stored.event;
    let event_type = match present(event.event_type()) {
        Some(name) => format!("{}{name}", event.type_prefix()),
        None => format!("{}.unknown", event.source()),
    };
    let mut headers = vec![
        text("ce_specversion", "1.0"),
        text("ce_id", id),
        text("ce_source", source_path(event)),
        text("ce_type", event_type),
        text("ce_time", event.occurred_at().unwrap_or(event.received_at()).rfc3339()),
    ];
    if let Some((_, media_type)) = event.request().headers.iter().find(|(name, _)| *name == CONTENT_TYPE) {
        headers.push(("content-type".into(), media_type.as_bytes().into()));
    }
    let codings = event.request().headers.iter().filter(|(name, _)| *name == CONTENT_ENCODING);
    let codings = codings.map(|(_, coding)| coding.as_bytes()).collect::<Vec<_>>().join(&b", "[..]);
    if !codings.is_empty() {
        headers.push(("content-encoding".into(), codings.into()));
    }
    headers.extend(event.request().traceparent.as_deref().map(|trace| text("traceparent", trace)));
    headers
}

/// Returns the value of `ce_source`. It ends in the account if an event of another account has the same id, because consumers
/// recognise duplicates by `ce_source` and `ce_id`.
fn source_path(event: &Event) -> String {
    let source = event.source();
    match event.account() {
        Some(account) => format!("/hooks/{source}/{}", utf8_percent_encode(account, NOT_IN_PATH)),
        None => format!("/hooks/{source}"),
    }
}

fn text<'a>(name: &'a str, value: impl Into<Cow<'a, str>>) -> RecordHeader<'a> {
    let value = match value.into() {
        Cow::Borrowed(value) => Cow::Borrowed(value.as_bytes()),
        Cow::Owned(value) => Cow::Owned(value.into_bytes()),
    };
    (name.into(), value)
}

fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Returns true if hookhold may forward a request header. For a header with credentials, returns false even if `allowed`
/// lists the header.
fn may_forward(name: &HeaderName, allowed: &[HeaderName]) -> bool {
    !is_credential(name) && allowed.contains(name)
}

/// Name of the record header with the log id of the event's position.
pub const LOG: &str = "hookhold-log";
/// Name of the record header with the sequence of the event's position.
pub const SEQ: &str = "hookhold-seq";
/// Name of the record header that only the record of a parked event has. It contains the time at which hookhold has parked the event.
pub(super) const REDRIVEN: &str = "hookhold-parked-at";
/// Name of the header with the id of the replay that has sent a record or a request.
pub const REPLAY: &str = "hookhold-replay";
/// Name of the header with the time at which a replay has sent a record or a request; RFC 3339.
pub const REPLAYED_AT: &str = "hookhold-replayed-at";
/// Characters that a segment of a URI path does not contain as they are (RFC 3986, `pchar`).
const NOT_IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');
