//! Builds the events of a verified delivery: one event, or one event for each item of a batch that the source splits. The body
//! of an item's event consists of the bytes of the item as received.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;

use crate::clock::UnixMillis;
use crate::event::{Delivery, Event, EventParts, EventRequest, Integrity};
use crate::fingerprint::Fingerprint;
use crate::outcome::Outcome;
use crate::source::Source;
use crate::source::recipe::{EventArray, EventLocators};
use crate::verify::decompress::UnreadBody;
use crate::verify::identity::{self, ItemPlace};
use crate::verify::items::{BatchItem, BatchShape, Items};
use crate::verify::proof::Proven;
use crate::verify::request_view::{Located, RequestView};
use crate::verify::tolerance;
use crate::verify::verdict::{Identity, Rejection, Verdict, Verified, VerifiedBatch, VerifiedItem};

/// Returns the verdict on a verified delivery that is not an endpoint challenge. `view` contains the values in the body, and
/// `items` are the items of its batch. `unread` is the reason why a compressed body could not be read. Rejects a batch with more
/// items than the source allows.
pub(super) fn verdict(
    source: &Source,
    delivery: &Delivery,
    proven: &Proven<'_>,
    view: RequestView<'_>,
    items: &Items<'_>,
    unread: Option<UnreadBody>,
) -> Result<Verdict, Rejection> {
    let secret = proven.key.map(|key| key.name.clone());
    let builder = EventBuilder { source, delivery, view, request: Arc::new(request(source, delivery, &view)) };
    match source.recipe.event.batch {
        Some(batch) if items.is_over_limit && (batch.split || proven.is_by_item()) => Err(too_many(batch)),
        Some(batch) if batch.split && items.shape == BatchShape::Array && items.is_divisible => {
            Ok(Verdict::Batch(VerifiedBatch { items: builder.split(proven, items), secret }))
        }
        _ => {
            let (event, identity) = builder.whole(proven, items);
            Ok(Verdict::Event(Verified { event, identity, secret, unread }))
        }
    }
}

/// The parts that all events of a delivery share.
struct EventBuilder<'e> {
    source: &'e Source,
    delivery: &'e Delivery,
    view: RequestView<'e>,
    request: Arc<EventRequest>,
}

/// The values of an event that the recipe locates in the delivery.
struct EventFacts<'v> {
    id: Option<Located<'v>>,
    event_type: Option<String>,
    ordering_key: Option<String>,
    occurred_at: Option<UnixMillis>,
}

impl<'e> EventBuilder<'e> {
    /// Returns the event of each item.
    fn split(&self, proven: &Proven<'_>, items: &'e Items<'e>) -> Vec<VerifiedItem> {
        let content_sha256 = &OnceCell::new();
        let of_item = |(index, item): (usize, &'e BatchItem<'e>)| {
            let body = self.delivery.body.slice(item.range.clone());
            let facts = self.facts(self.view.with_item(item));
            // If one proof covers all items, only the index distinguishes two items without an id.
            let place = ItemPlace { index, content_sha256 };
            let (proven, place) = proven.of_item(index).map_or((proven, Some(place)), |own| (own, None));
            let identity = identity::of(self.source, facts.id.as_ref(), proven, &body, place);
            let integrity = match proven.coverage.integrity {
                Integrity::Full | Integrity::Body | Integrity::Item => Integrity::Item,
                weaker @ (Integrity::Partial | Integrity::None) => weaker,
            };
            let secret = proven.key.map(|key| key.name.clone());
            VerifiedItem { event: self.event(proven, integrity, facts, body), identity, secret }
        };
        items.list.iter().enumerate().map(of_item).collect()
    }

    /// Returns one event for the whole delivery. The event of an undivided batch has the values that all items share, and its
    /// identity consists of the ids of all items. If the body may contain further items, their values are unknown, so the event
    /// has no values of items.
    fn whole(&self, proven: &Proven<'_>, items: &'e Items<'e>) -> (Event, Identity) {
        let (body, integrity) = (&self.delivery.body, proven.coverage.integrity);
        if items.list.is_empty() || items.is_over_limit || items.is_followed {
            let facts = self.facts(self.view);
            let identity = identity::of(self.source, facts.id.as_ref(), proven, body, None);
            return (self.event(proven, integrity, facts, body.clone()), identity);
        }
        let of_items: Vec<EventFacts<'_>> = items.list.iter().map(|item| self.facts(self.view.with_item(item))).collect();
        let ids: Option<Vec<_>> = of_items.iter().map(EventFacts::id_and_type).collect();
        let identity = match ids.as_deref() {
            Some(ids @ [_, _, ..]) => identity::of_batch(ids, proven, body),
            ids => identity::of(self.source, ids.and_then(|ids| ids.first().map(|(id, _)| *id)), proven, body, None),
        };
        let facts = of_items.into_iter().reduce(EventFacts::shared).unwrap_or_else(|| self.facts(self.view));
        (self.event(proven, integrity, facts, body.clone()), identity)
    }

    fn facts(&self, view: RequestView<'e>) -> EventFacts<'e> {
        let recipe = &self.source.recipe;
        EventFacts {
            id: self.id(view),
            event_type: view.locate(&recipe.event.kind).map(|located| located.joined()),
            ordering_key: view.locate(&recipe.event.key).map(|located| located.joined()),
            occurred_at: tolerance::occurred_at(recipe, &view),
        }
    }

    /// Returns the event id; `None` if it is absent or a placeholder. Does not try another alternative after a placeholder,
    /// because the signature may cover only the first alternative that is present.
    fn id(&self, view: RequestView<'e>) -> Option<Located<'e>> {
        let EventLocators { id, placeholder_ids, .. } = &self.source.recipe.event;
        view.locate(id).filter(|id| placeholder_ids.is_empty() || !placeholder_ids.contains(&id.text()))
    }

    fn event(&self, proven: &Proven<'_>, integrity: Integrity, facts: EventFacts<'_>, body: Bytes) -> Event {
        let EventFacts { id, event_type, ordering_key, occurred_at } = facts;
        Event::from_verifier(EventParts {
            received_at: self.delivery.received_at,
            occurred_at,
            source: self.source.name.clone(),
            topic: self.source.topics.of(event_type.as_deref()).clone(),
            id: id.as_ref().map(Located::joined),
            event_type,
            type_prefix: self.source.recipe.event.type_prefix.clone(),
            ordering_key,
            dedupe_key: None,
            fingerprint: Fingerprint::default(),
            account: None,
            auth: proven.auth.clone(),
            integrity,
            request: self.request.clone(),
            body,
        })
    }
}

impl<'v> EventFacts<'v> {
    fn id_and_type(&self) -> Option<(&Located<'v>, Option<&str>)> {
        self.id.as_ref().map(|id| (id, self.event_type.as_deref()))
    }

    /// Returns the values that two items of a batch share.
    fn shared(mut self, other: EventFacts<'_>) -> EventFacts<'v> {
        let is_same = |id: &Located<'_>| other.id.as_ref().is_some_and(|other| other.joined() == id.joined());
        self.id = self.id.filter(is_same);
        self.event_type = self.event_type.filter(|own| other.event_type.as_ref() == Some(own));
        self.ordering_key = self.ordering_key.filter(|own| other.ordering_key.as_ref() == Some(own));
        self.occurred_at = self.occurred_at.filter(|own| other.occurred_at == Some(*own));
        self
    }
}

fn request(source: &Source, delivery: &Delivery, view: &RequestView<'_>) -> EventRequest {
    let credentials = &source.recipe.credentials;
    EventRequest {
        method: delivery.method.to_string(),
        target: credentials.redact(&delivery.target).into_owned(),
        remote: delivery.remote,
        traceparent: view.header_text(&TRACEPARENT),
        headers: credentials.remaining_headers(&delivery.headers, &delivery.target),
    }
}

fn too_many(batch: EventArray) -> Rejection {
    let most = batch.max_items;
    let hint = format!("batch: expected at most {most} items (max_items of this source), found more; raise max_items");
    Rejection::new(Outcome::TooLarge, hint)
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
