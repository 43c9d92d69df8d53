//! Tests of deliveries after a jump of the wall clock. hookhold must not reject a genuine delivery with a 401 because of its own
//! clock, and must not treat a new event as a duplicate.

use std::time::Duration;

use hookhold::clock::Clock;
use hookhold::event::Delivery;
use hookhold::outcome::Outcome::{ClockJumped, Duplicate, SignatureMismatch, Stored, TimestampFuture, TimestampStale};

use crate::harness::{Harness, Plan};
use crate::reload;

const HOUR_MS: i64 = 60 * 60 * 1000;
const MINUTE: Duration = Duration::from_secs(60);

/// Sends a delivery that was signed at another time. Its time of arrival is the current time of the wall clock.
async fn arrive(harness: &Harness, delivery: &Delivery) -> (hookhold::outcome::Outcome, u16) {
    let answer = harness.deliver_this("stripe", Delivery { received_at: harness.clock.now(), ..delivery.clone() }).await;
    (answer.outcome, answer.status.as_u16())
}

#[tokio::test]
async fn a_genuine_delivery_gets_503_while_the_clocks_disagree() {
    for (jump, later) in [(HOUR_MS, TimestampStale), (-HOUR_MS, TimestampFuture)] {
        let harness = Harness::new();
        let genuine = harness.delivery("stripe", "evt_1");
        let forged = Delivery { body: "{}".into(), ..genuine.clone() };
        harness.clock.jump(jump);
        assert_eq!(arrive(&harness, &genuine).await, (ClockJumped, 503));
        assert_eq!(arrive(&harness, &forged).await, (SignatureMismatch, 401), "a jump does not excuse a forgery");
        assert_eq!(harness.metrics.journal.clock_jumps.get(), 1);
        assert_eq!(harness.success_rate("stripe"), 0.0, "the provider counts a 503 as a failure");
        assert_eq!(harness.outcome("stripe", "evt_2").await, Stored, "hookhold accepts a delivery within the tolerance");
        harness.advance(10 * MINUTE);
        assert_eq!(arrive(&harness, &genuine).await, (later, 401));
    }
}

#[tokio::test]
async fn a_genuine_delivery_is_stored_after_the_clock_is_corrected() {
    let harness = Harness::new();
    let genuine = harness.delivery("stripe", "evt_1");
    harness.clock.jump(HOUR_MS);
    assert_eq!(arrive(&harness, &genuine).await, (ClockJumped, 503));
    harness.clock.jump(-HOUR_MS);
    assert_eq!(arrive(&harness, &genuine).await, (Stored, 202), "the provider's retry");
    assert_eq!(harness.metrics.journal.clock_jumps.get(), 2);
}

#[tokio::test]
async fn a_late_delivery_gets_401_if_the_clock_has_not_jumped() {
    let harness = Harness::new();
    let genuine = harness.delivery("stripe", "evt_1");
    harness.advance(60 * MINUTE);
    assert_eq!(arrive(&harness, &genuine).await, (TimestampStale, 401));
    assert_eq!(harness.metrics.journal.clock_jumps.get(), 0);
}

#[tokio::test]
async fn a_clock_that_went_back_during_a_restart_gets_503() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Stored);
    let genuine = harness.delivery("stripe", "evt_2");
    harness.clock.jump(-HOUR_MS);
    let harness = harness.killed();
    assert_eq!(arrive(&harness, &genuine).await, (ClockJumped, 503));
    assert_eq!(harness.metrics.journal.clock_jumps.get(), 1);
    harness.advance(10 * MINUTE);
    assert_eq!(arrive(&harness, &genuine).await, (TimestampFuture, 401));
}

#[tokio::test]
async fn a_secret_that_a_jump_has_expired_rejects_no_delivery_with_401() {
    let harness = Harness::new();
    let expires = ", not_after = 2023-11-15"; // The clock starts on the day before, at 22:13:20.
    harness.gateway.replace_sources([reload::compile(&[("old", expires)])], &harness.metrics);
    let (live, genuine) = reload::signed(&harness, "evt_1");
    let forged = Delivery { body: "{}".into(), ..genuine.clone() };
    harness.clock.jump(365 * 24 * HOUR_MS);
    let arrive = async |delivery: &Delivery| {
        let delivery = Delivery { received_at: harness.clock.now(), ..delivery.clone() };
        reload::deliver_to(&harness, &live, delivery).await.0
    };
    assert_eq!((arrive(&genuine).await, arrive(&forged).await), (ClockJumped, SignatureMismatch));
    harness.clock.jump(-365 * 24 * HOUR_MS);
    assert_eq!((arrive(&genuine).await, arrive(&forged).await), (Stored, SignatureMismatch));
}

#[tokio::test]
async fn a_clock_that_goes_back_swallows_no_equal_body() {
    let harness = Harness::with(Plan { window: Duration::from_secs(1), ..Plan::default() });
    let outcome = async || harness.deliver_this("opted", harness.with_body("opted", "", "body")).await.outcome;
    assert_eq!((outcome().await, outcome().await), (Stored, Duplicate));
    harness.clock.jump(-24 * HOUR_MS);
    assert_eq!(outcome().await, Duplicate);
    harness.advance(Duration::from_secs(1));
    assert_eq!((outcome().await, outcome().await), (Stored, Duplicate), "the window is a second, not a day");
}

#[tokio::test]
async fn equal_bodies_are_two_events_if_either_clock_says_so() {
    let harness = Harness::new();
    let outcome = async |body: &'static str| harness.deliver_this("opted", harness.with_body("opted", "", body)).await.outcome;
    assert_eq!((outcome("a").await, outcome("a").await), (Stored, Duplicate));
    harness.advance(Duration::from_secs(1));
    harness.clock.jump(HOUR_MS);
    assert_eq!(outcome("b").await, Stored);
    assert_eq!((outcome("a").await, outcome("b").await), (Stored, Duplicate), "the wall clock says that an hour has passed");
    assert_eq!(harness.outcome("stripe", "evt_1").await, Stored);
    harness.clock.jump(365 * 24 * HOUR_MS);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Duplicate, "an id is unique, so only the journal's clock counts");
}

#[tokio::test]
async fn a_jump_of_the_clock_does_not_erase_the_success_rate() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Stored);
    harness.clock.jump(365 * 24 * HOUR_MS);
    assert_eq!(harness.success_rate("stripe"), 1.0);
    harness.clock.jump(-365 * 24 * HOUR_MS);
    assert_eq!(harness.success_rate("stripe"), 1.0);
}
