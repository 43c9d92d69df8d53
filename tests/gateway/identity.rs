//! Tests of event identity, which distinguishes duplicates of a stored event from new events.

use std::time::Duration;

use hookhold::outcome::Outcome::{Duplicate, Stored};

use crate::harness::{Harness, Plan};

#[tokio::test]
async fn stored_and_duplicate_answer_the_same_bytes() {
    let harness = Harness::new();
    for source in ["stripe", "github"] {
        let first = harness.deliver(source, "evt_1").await;
        let duplicate = harness.deliver(source, "evt_1").await;
        assert_eq!((first.outcome, duplicate.outcome), (Stored, Duplicate));
        assert_eq!(
            (first.status, &first.content_type, &first.body),
            (duplicate.status, &duplicate.content_type, &duplicate.body)
        );
        assert_eq!(first.seq, duplicate.seq, "a duplicate has the sequence of the first event");
    }
    let answer = harness.deliver("stripe", "evt_1").await;
    assert_eq!(
        (answer.status.as_u16(), answer.content_type.as_deref(), &answer.body[..]),
        (202, Some("text/plain"), &b"thanks"[..])
    );
    let harness = harness.with_keys_on_disk();
    let from_disk = harness.deliver("stripe", "evt_1").await;
    assert_eq!(
        (from_disk.outcome, from_disk.status, from_disk.content_type, from_disk.body),
        (Duplicate, answer.status, answer.content_type, answer.body)
    );
}

#[tokio::test]
async fn the_same_id_from_two_sources_is_two_events() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Stored);
    assert_eq!(harness.outcome("stripe-eu", "evt_1").await, Stored);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Duplicate);
    assert_eq!(harness.outcome("stripe-eu", "evt_1").await, Duplicate);
    assert_eq!(harness.stored_ids(), ["evt_1", "evt_1"]);
}

#[tokio::test]
async fn a_keyless_event_sent_twice_is_stored_twice() {
    let harness = Harness::new();
    for _ in 0..2 {
        assert_eq!(harness.outcome("bare", "").await, Stored);
    }
    assert_eq!(harness.stored_ids(), ["", ""]);
    assert_eq!(harness.keyless("bare"), 2);
}

#[tokio::test]
async fn concurrent_copies_of_a_keyless_event_are_two_events() {
    let harness = Harness::new();
    let (gate, other) = harness.hold_sync().await;
    let (first, second) = (harness.send("bare", "").await, harness.send("bare", "").await);
    gate.release();
    assert_eq!(other.answer().await.outcome, Stored);
    let (first, second) = (first.answer().await, second.answer().await);
    assert_eq!((first.outcome, first.seq), (Stored, Some(1)));
    assert_eq!((second.outcome, second.seq), (Stored, Some(2)));
}

#[tokio::test]
async fn an_event_without_its_id_is_stored_keyless() {
    let harness = Harness::new();
    let mut delivery = harness.delivery("github", "");
    delivery.headers.remove("x-github-delivery");
    for _ in 0..2 {
        assert_eq!(harness.deliver_this("github", delivery.clone()).await.outcome, Stored);
    }
    assert_eq!(harness.stored_ids(), ["", ""]);
    assert_eq!(harness.keyless("github"), 2);
    assert_eq!(harness.outcome("github", "uuid-1").await, Stored);
    assert_eq!(harness.keyless("github"), 2, "an event with an id is not counted");
}

#[tokio::test]
async fn a_signed_time_replaces_a_missing_id() {
    let harness = Harness::new();
    let delivery = harness.with_body("stripe", "", r#"{"object":"event","type":"charge.succeeded"}"#);
    assert_eq!(harness.deliver_this("stripe", delivery.clone()).await.outcome, Stored);
    for _ in 0..3 {
        assert_eq!(harness.deliver_this("stripe", delivery.clone()).await.outcome, Duplicate, "an exact replay");
    }
    harness.advance(Duration::from_secs(1));
    let signed_later = harness.with_body("stripe", "", r#"{"object":"event","type":"charge.succeeded"}"#);
    assert_eq!(harness.deliver_this("stripe", signed_later).await.outcome, Stored);
    assert_eq!((harness.stored_ids().len(), harness.keyless("stripe")), (2, 0));
}

#[tokio::test]
async fn with_a_signed_time_only_exact_replays_are_duplicates() {
    let harness = Harness::new();
    let delivery = harness.delivery("timed", "");
    assert_eq!(harness.deliver_this("timed", delivery.clone()).await.outcome, Stored);
    assert_eq!(harness.deliver_this("timed", delivery.clone()).await.outcome, Duplicate);
    harness.advance(Duration::from_secs(1));
    let signed_later = harness.delivery("timed", "");
    assert_eq!(signed_later.body, delivery.body);
    assert_eq!(harness.deliver_this("timed", signed_later).await.outcome, Stored);
    assert_eq!(harness.deliver_this("timed", delivery).await.outcome, Duplicate);
    assert_eq!(harness.stored_ids().len(), 2);
    assert_eq!(harness.keyless("timed"), 0);
}

#[tokio::test]
async fn two_bodies_sharing_an_unsigned_id_are_two_events() {
    let harness = Harness::new();
    let (one, two) = (r#"{"action":"opened","n":1}"#, r#"{"action":"opened","n":2}"#);
    for (body, outcome) in [(one, Stored), (two, Stored), (one, Duplicate), (two, Duplicate)] {
        assert_eq!(harness.deliver_this("github", harness.with_body("github", "uuid-1", body)).await.outcome, outcome);
    }
    assert_eq!(harness.deliver_this("github", harness.with_body("github", "uuid-2", one)).await.outcome, Stored);
    assert_eq!(harness.stored_ids(), ["uuid-1", "uuid-1", "uuid-2"]);
}

#[tokio::test]
async fn the_same_id_with_another_type_is_another_event() {
    let harness = Harness::new();
    for kind in ["charge.succeeded", "charge.failed"] {
        let body = format!(r#"{{"id":"evt_1","type":"{kind}"}}"#);
        assert_eq!(harness.deliver_this("stripe", harness.with_body("stripe", "", body)).await.outcome, Stored);
    }
}

#[tokio::test]
async fn dedupe_body_makes_equal_bodies_duplicates_for_a_time() {
    let harness = Harness::new();
    let ask = async |body: &'static str| harness.deliver_this("opted", harness.with_body("opted", "", body)).await.outcome;
    assert_eq!((ask("a").await, ask("b").await, ask("a").await), (Stored, Stored, Duplicate));
    harness.advance(Duration::from_secs(600) - Duration::from_millis(1));
    assert_eq!(ask("a").await, Duplicate);
    harness.advance(Duration::from_millis(1));
    assert_eq!(
        (ask("a").await, ask("a").await),
        (Stored, Duplicate),
        "ten minutes after the first copy, the body is a new event"
    );
    assert_eq!(harness.keyless("opted"), 0);
}

#[tokio::test]
async fn duplicates_are_recognised_without_the_hot_cache() {
    let harness = Harness::with(Plan { hot_keys: 0, ..Plan::default() });
    let ids: Vec<String> = (0..200).map(|n| format!("evt_{n}")).collect();
    for id in &ids {
        assert_eq!(harness.outcome("stripe", id).await, Stored);
    }
    // The first round finds the keys in memory. The second round finds them in a key file that is large enough to have a
    // filter.
    let mut harness = harness.with_empty_cache();
    for round in 0..2 {
        for id in &ids {
            assert_eq!(harness.outcome("stripe", id).await, Duplicate, "{id}, round {round}");
        }
        harness = harness.with_keys_on_disk();
    }
    assert_eq!(harness.stored_ids(), ids);
}

#[tokio::test]
async fn an_unreadable_key_file_rejects_no_delivery() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Stored);
    let harness = harness.with_keys_on_disk();
    harness.disk.fail(crate::disk::Step::Read, ".keys", std::io::ErrorKind::Other, 1);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Stored, "the key is unknown");
    assert_eq!(harness.outcome("stripe", "evt_1").await, Duplicate);
    assert_eq!(harness.metrics.journal.damaged.get(), 1);
    assert_eq!(harness.stored_ids(), ["evt_1", "evt_1"]);
}

/// The button "Send test webhook" of Stripe's dashboard sends the same id each time.
#[tokio::test]
async fn a_placeholder_of_a_test_event_is_no_id() {
    let harness = Harness::new();
    for id in ["evt_00000000000000", "charge.expired_00000000000000"] {
        let test_event = harness.delivery("stripe", id);
        assert_eq!(harness.deliver_this("stripe", test_event.clone()).await.outcome, Stored);
        assert_eq!(harness.deliver_this("stripe", test_event).await.outcome, Duplicate, "an exact replay");
        harness.advance(Duration::from_secs(1));
        assert_eq!(harness.outcome("stripe", id).await, Stored, "the next test event");
    }
    assert_eq!(harness.stored_ids(), [""; 4]);
    assert_eq!(harness.outcome("stripe", "evt_00000000000001").await, Stored);
    harness.advance(Duration::from_secs(1));
    assert_eq!(harness.outcome("stripe", "evt_00000000000001").await, Duplicate);
    assert_eq!(harness.keyless("stripe"), 0);
}
