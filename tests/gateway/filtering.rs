//! Tests of deliveries that a source filters out by type, and of the success rate that a provider observes.

use std::time::Duration;

use bytes::Bytes;
use hookhold::clock::Clock;
use hookhold::event::Delivery;
use hookhold::outcome::Outcome::{self, Deadline, Draining, Duplicate, Filtered, SignatureMismatch, Stored, TimestampStale};
use tokio::time::Instant;

use crate::disk::Step;
use crate::harness::{self, Harness, Plan};

#[tokio::test]
async fn an_unlisted_type_is_answered_ok_and_not_stored() {
    let harness = Harness::new();
    let stored = harness.deliver_this("picky", of_type(&harness, "evt_1", "invoice.paid")).await;
    assert_eq!((stored.outcome, stored.seq), (Stored, Some(0)));
    for _ in 0..2 {
        let filtered = harness.deliver_this("picky", of_type(&harness, "evt_2", "customer.created")).await;
        assert_eq!((filtered.outcome, filtered.seq), (Filtered, None), "{}", filtered.hint);
        assert_eq!(
            (filtered.status, filtered.content_type, filtered.body),
            (stored.status, stored.content_type.clone(), stored.body.clone())
        );
        assert!(filtered.hint.contains("customer.created"), "the hint names the type: {}", filtered.hint);
    }
    assert_eq!(harness.deliver_this("picky", of_type(&harness, "evt_3", "charge.failed")).await.outcome, Stored);
    assert_eq!(harness.deliver_this("picky", of_type(&harness, "evt_1", "invoice.paid")).await.outcome, Duplicate);
    assert_eq!(harness.stored_ids(), ["evt_1", "evt_3"]);
    assert_eq!(
        harness.metrics.deliveries.verified.with_label_values(&["picky", "secret"]).get(),
        5,
        "filtered deliveries count as verified"
    );
}

#[tokio::test]
async fn only_a_genuine_delivery_is_filtered() {
    let harness = Harness::new();
    let genuine = of_type(&harness, "evt_1", "customer.created");
    let forged = Delivery { body: Bytes::from_static(br#"{"id":"evt_1","type":"customer.deleted"}"#), ..genuine.clone() };
    assert_eq!(harness.deliver_this("picky", forged).await.outcome, SignatureMismatch);
    assert_eq!(stale(&harness, genuine).await, TimestampStale);
}

#[tokio::test]
async fn a_delivery_without_a_readable_type_is_stored() {
    let harness = Harness::new();
    for body in ["", "no JSON", r#"{"id":"evt_1"}"#, r#"{"id":"evt_2","type":null}"#] {
        assert_eq!(harness.deliver_this("picky", harness.with_body("picky", "", body)).await.outcome, Stored, "{body}");
    }
    assert_eq!(harness.stored_ids(), ["", "", "evt_1", "evt_2"]);
}

#[tokio::test]
async fn a_filtered_delivery_needs_no_disk() {
    let harness = Harness::new();
    harness.gateway.begin_drain();
    assert_eq!(harness.deliver_this("picky", of_type(&harness, "evt_1", "invoice.paid")).await.outcome, Draining);
    assert_eq!(harness.deliver_this("picky", of_type(&harness, "evt_2", "customer.created")).await.outcome, Filtered);
}

#[tokio::test]
async fn the_success_rate_ignores_forged_deliveries() {
    let harness = Harness::new();
    assert!(harness.success_rate("picky").is_nan(), "no delivery yet");
    for id in ["evt_1", "evt_1"] {
        harness.deliver_this("picky", of_type(&harness, id, "invoice.paid")).await;
    }
    harness.deliver_this("picky", of_type(&harness, "evt_2", "customer.created")).await;
    assert_eq!(harness.success_rate("picky"), 1.0, "stored, duplicate and filtered");

    let genuine = of_type(&harness, "evt_3", "invoice.paid");
    for _ in 0..1000 {
        let forged = Delivery { body: Bytes::from_static(b"{}"), ..genuine.clone() };
        assert_eq!(harness.deliver_this("picky", forged).await.outcome, SignatureMismatch);
    }
    assert_eq!(harness.success_rate("picky"), 1.0, "forged deliveries do not count");

    assert_eq!(stale(&harness, genuine).await, TimestampStale);
    assert_eq!(harness.success_rate("picky"), 3.0 / 4.0);
    harness.gateway.begin_drain();
    assert_eq!(harness.deliver_this("picky", of_type(&harness, "evt_4", "invoice.paid")).await.outcome, Draining);
    assert_eq!(harness.success_rate("picky"), 3.0 / 5.0);
    assert!(harness.success_rate("stripe").is_nan(), "each source has its own rate");
}

#[tokio::test]
async fn late_and_abandoned_answers_count_as_failures() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let late = harness.start("picky", of_type(&harness, "evt_1", "invoice.paid"), Instant::now()).answer().await;
    assert_eq!(late.outcome, Deadline);
    assert_eq!(harness.success_rate("picky"), 0.0);
    let waiting = harness.send_this("picky", of_type(&harness, "evt_2", "invoice.paid")).await;
    let disconnecting = harness.send_this("picky", of_type(&harness, "evt_3", "invoice.paid")).await;
    drop(disconnecting);
    gate.release();
    assert_eq!(waiting.answer().await.outcome, Stored);
    assert_eq!(harness.success_rate("picky"), 1.0 / 3.0);
}

#[tokio::test]
async fn the_success_rate_slides_over_the_providers_period() {
    let harness = Harness::new();
    assert_eq!(harness.metrics.deliveries.success_rate_threshold.with_label_values(&["picky"]).get(), 0.05);
    let minute = Duration::from_secs(60);
    assert_eq!(stale(&harness, of_type(&harness, "evt", "invoice.paid")).await, TimestampStale);
    harness.advance(20 * minute);
    assert_eq!(harness.success_rate("picky"), 0.0);
    assert_eq!(harness.deliver_this("picky", of_type(&harness, "evt_1", "invoice.paid")).await.outcome, Stored);
    assert_eq!(harness.success_rate("picky"), 0.5);
    harness.advance(16 * minute);
    assert_eq!(harness.success_rate("picky"), 1.0, "the failure was 31 minutes ago");
    harness.advance(15 * minute);
    assert!(harness.success_rate("picky").is_nan(), "no delivery for 30 minutes");
    assert_eq!(stale(&harness, of_type(&harness, "evt", "invoice.paid")).await, TimestampStale);
    assert_eq!(harness.success_rate("picky"), 0.0, "a reused slot starts at zero");

    assert_eq!(harness.outcome("stripe", "evt_1").await, Stored);
    harness.advance(59 * minute);
    assert_eq!(harness.success_rate("stripe"), 1.0, "the default period is an hour");
    harness.advance(minute);
    assert!(harness.success_rate("stripe").is_nan());
}

#[tokio::test]
async fn a_reload_keeps_the_success_rate_of_its_sources() {
    let harness = Harness::new();
    assert_eq!(stale(&harness, of_type(&harness, "evt_1", "invoice.paid")).await, TimestampStale);
    let shown = |name: &str| harness.metrics.render().contains(&format!("hookhold_success_rate{name}{{source=\"picky\"}}"));
    harness.gateway.replace_sources(harness::sources(&Plan::default()), &harness.metrics);
    assert_eq!(harness.success_rate("picky"), 0.0);
    assert!(shown("") && shown("_threshold"));
    let others = harness::sources(&Plan::default()).into_iter().filter(|source| &*source.name != "picky");
    harness.gateway.replace_sources(others, &harness.metrics);
    assert!(!shown("") && !shown("_threshold"));
}

fn of_type(harness: &Harness, id: &str, event_type: &str) -> Delivery {
    harness.with_body("picky", id, format!(r#"{{"id":"{id}","object":"event","type":"{event_type}"}}"#))
}

/// Sends a delivery 301 seconds after its timestamp, one second later than the recipe allows. Returns the outcome.
async fn stale(harness: &Harness, delivery: Delivery) -> Outcome {
    harness.advance(Duration::from_secs(301));
    harness.deliver_this("picky", Delivery { received_at: harness.clock.now(), ..delivery }).await.outcome
}
