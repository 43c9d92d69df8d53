//! What is valid but not wanted, and the share of deliveries that a provider sees succeed.

use std::time::Duration;

use bytes::Bytes;
use hookhold::clock::Clock;
use hookhold::event::Delivery;
use hookhold::outcome::Outcome::{self, Deadline, Draining, Duplicate, Filtered, SignatureMismatch, Stored, TimestampStale};
use tokio::time::Instant;

use crate::disk::Step;
use crate::house::{self, House, Plan};

#[tokio::test]
async fn an_unwanted_type_is_answered_ok_and_forgotten() {
    let house = House::new();
    let kept = house.asks_with("picky", of_type(&house, "evt_1", "invoice.paid")).await;
    assert_eq!((kept.outcome, kept.seq), (Stored, Some(0)));
    for _ in 0..2 {
        let filtered = house.asks_with("picky", of_type(&house, "evt_2", "customer.created")).await;
        assert_eq!((filtered.outcome, filtered.seq), (Filtered, None), "{}", filtered.hint);
        assert_eq!(
            (filtered.status, filtered.content_type, filtered.body),
            (kept.status, kept.content_type.clone(), kept.body.clone())
        );
        assert!(filtered.hint.contains("customer.created"), "the operator is told why: {}", filtered.hint);
    }
    assert_eq!(house.asks_with("picky", of_type(&house, "evt_3", "charge.failed")).await.outcome, Stored);
    assert_eq!(house.asks_with("picky", of_type(&house, "evt_1", "invoice.paid")).await.outcome, Duplicate);
    assert_eq!(house.kept(), ["evt_1", "evt_3"]);
    assert_eq!(house.metrics.verified.with_label_values(&["picky", "secret"]).get(), 5, "unwanted ones are verified, too");
}

#[tokio::test]
async fn only_a_genuine_delivery_is_filtered() {
    let house = House::new();
    let genuine = of_type(&house, "evt_1", "customer.created");
    let forged = Delivery { body: Bytes::from_static(br#"{"id":"evt_1","type":"customer.deleted"}"#), ..genuine.clone() };
    assert_eq!(house.asks_with("picky", forged).await.outcome, SignatureMismatch);
    assert_eq!(stale(&house, genuine).await, TimestampStale);
}

#[tokio::test]
async fn a_delivery_whose_type_cannot_be_told_is_kept() {
    let house = House::new();
    for body in ["", "no JSON", r#"{"id":"evt_1"}"#, r#"{"id":"evt_2","type":null}"#] {
        assert_eq!(house.asks_with("picky", house.with_body("picky", "", body)).await.outcome, Stored, "{body}");
    }
    assert_eq!(house.kept(), ["", "", "evt_1", "evt_2"]);
}

#[tokio::test]
async fn what_is_not_kept_needs_no_disk() {
    let house = House::new();
    house.gateway.begin_drain();
    assert_eq!(house.asks_with("picky", of_type(&house, "evt_1", "invoice.paid")).await.outcome, Draining);
    assert_eq!(house.asks_with("picky", of_type(&house, "evt_2", "customer.created")).await.outcome, Filtered);
}

#[tokio::test]
async fn the_success_share_counts_what_a_secret_signed_and_no_forgery() {
    let house = House::new();
    assert!(house.success_rate("picky").is_nan(), "nothing came");
    for id in ["evt_1", "evt_1"] {
        house.asks_with("picky", of_type(&house, id, "invoice.paid")).await;
    }
    house.asks_with("picky", of_type(&house, "evt_2", "customer.created")).await;
    assert_eq!(house.success_rate("picky"), 1.0, "kept, duplicate and filtered");

    let genuine = of_type(&house, "evt_3", "invoice.paid");
    for _ in 0..1000 {
        let forged = Delivery { body: Bytes::from_static(b"{}"), ..genuine.clone() };
        assert_eq!(house.asks_with("picky", forged).await.outcome, SignatureMismatch);
    }
    assert_eq!(house.success_rate("picky"), 1.0, "forged ones are not the provider's");

    assert_eq!(stale(&house, genuine).await, TimestampStale);
    assert_eq!(house.success_rate("picky"), 3.0 / 4.0);
    house.gateway.begin_drain();
    assert_eq!(house.asks_with("picky", of_type(&house, "evt_4", "invoice.paid")).await.outcome, Draining);
    assert_eq!(house.success_rate("picky"), 3.0 / 5.0);
    assert!(house.success_rate("stripe").is_nan(), "each source has its own");
}

#[tokio::test]
async fn an_answer_that_comes_too_late_or_is_not_waited_for_is_no_success() {
    let house = House::new();
    let gate = house.disk.hold(Step::Sync, ".seg");
    let late = house.arrives("picky", of_type(&house, "evt_1", "invoice.paid"), Instant::now()).answer().await;
    assert_eq!(late.outcome, Deadline);
    assert_eq!(house.success_rate("picky"), 0.0);
    let waiting = house.sends_this("picky", of_type(&house, "evt_2", "invoice.paid")).await;
    let hangs_up = house.sends_this("picky", of_type(&house, "evt_3", "invoice.paid")).await;
    drop(hangs_up);
    gate.release();
    assert_eq!(waiting.answer().await.outcome, Stored);
    assert_eq!(house.success_rate("picky"), 1.0 / 3.0);
}

#[tokio::test]
async fn the_success_share_slides_with_the_providers_window() {
    let house = House::new();
    assert_eq!(house.metrics.success_rate_threshold.with_label_values(&["picky"]).get(), 0.05);
    let minute = Duration::from_secs(60);
    assert_eq!(stale(&house, of_type(&house, "evt", "invoice.paid")).await, TimestampStale);
    house.passes(20 * minute);
    assert_eq!(house.success_rate("picky"), 0.0);
    assert_eq!(house.asks_with("picky", of_type(&house, "evt_1", "invoice.paid")).await.outcome, Stored);
    assert_eq!(house.success_rate("picky"), 0.5);
    house.passes(16 * minute);
    assert_eq!(house.success_rate("picky"), 1.0, "the failure was 31 minutes ago");
    house.passes(15 * minute);
    assert!(house.success_rate("picky").is_nan(), "nothing came for 30 minutes");
    assert_eq!(stale(&house, of_type(&house, "evt", "invoice.paid")).await, TimestampStale);
    assert_eq!(house.success_rate("picky"), 0.0, "a slot that is used again begins at nothing");

    assert_eq!(house.outcome("stripe", "evt_1").await, Stored);
    house.passes(59 * minute);
    assert_eq!(house.success_rate("stripe"), 1.0, "an hour where the recipe names no window");
    house.passes(minute);
    assert!(house.success_rate("stripe").is_nan());
}

#[tokio::test]
async fn a_reload_goes_on_with_the_window_and_ends_the_series_of_a_source_that_is_gone() {
    let house = House::new();
    assert_eq!(stale(&house, of_type(&house, "evt_1", "invoice.paid")).await, TimestampStale);
    let shown = |name: &str| house.metrics.render().contains(&format!("hookhold_success_rate{name}{{source=\"picky\"}}"));
    house.gateway.replace_sources(house::sources(&Plan::default()), &house.metrics);
    assert_eq!(house.success_rate("picky"), 0.0);
    assert!(shown("") && shown("_threshold"));
    let others = house::sources(&Plan::default()).into_iter().filter(|source| &*source.name != "picky");
    house.gateway.replace_sources(others, &house.metrics);
    assert!(!shown("") && !shown("_threshold"));
}

fn of_type(house: &House, id: &str, event_type: &str) -> Delivery {
    house.with_body("picky", id, format!(r#"{{"id":"{id}","object":"event","type":"{event_type}"}}"#))
}

/// How this delivery ends when it comes five minutes late.
async fn stale(house: &House, delivery: Delivery) -> Outcome {
    house.passes(Duration::from_secs(301));
    house.asks_with("picky", Delivery { received_at: house.clock.now(), ..delivery }).await.outcome
}
