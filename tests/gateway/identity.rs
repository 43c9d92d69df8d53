//! What is the same event, and what is not.

use std::time::Duration;

use hookhold::outcome::Outcome::{Duplicate, Stored};

use crate::harness::{Harness, Plan};

#[tokio::test]
async fn kept_and_duplicate_answer_the_same_bytes() {
    let harness = Harness::new();
    for source in ["stripe", "github"] {
        let first = harness.asks(source, "evt_1").await;
        let hot = harness.asks(source, "evt_1").await;
        assert_eq!((first.outcome, hot.outcome), (Stored, Duplicate));
        assert_eq!((first.status, &first.content_type, &first.body), (hot.status, &hot.content_type, &hot.body));
        assert_eq!(first.seq, hot.seq, "a duplicate names the first one's sequence");
    }
    let answer = harness.asks("stripe", "evt_1").await;
    assert_eq!(
        (answer.status.as_u16(), answer.content_type.as_deref(), &answer.body[..]),
        (202, Some("text/plain"), &b"thanks"[..])
    );
    let harness = harness.cooled();
    let cold = harness.asks("stripe", "evt_1").await;
    assert_eq!(
        (cold.outcome, cold.status, cold.content_type, cold.body),
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
async fn sent_twice_without_id_or_signed_time_it_is_two_events() {
    let harness = Harness::new();
    for _ in 0..2 {
        assert_eq!(harness.outcome("bare", "").await, Stored);
    }
    assert_eq!(harness.stored_ids(), ["", ""]);
    assert_eq!(harness.keyless("bare"), 2);
}

#[tokio::test]
async fn two_copies_without_id_or_signed_time_under_way_are_two_events() {
    let harness = Harness::new();
    let (gate, other) = harness.busy().await;
    let (first, second) = (harness.sends("bare", "").await, harness.sends("bare", "").await);
    gate.release();
    assert_eq!(other.answer().await.outcome, Stored);
    let (first, second) = (first.answer().await, second.answer().await);
    assert_eq!((first.outcome, first.seq), (Stored, Some(1)));
    assert_eq!((second.outcome, second.seq), (Stored, Some(2)));
}

#[tokio::test]
async fn without_the_id_that_its_recipe_names_it_is_kept_and_never_a_repeat() {
    let harness = Harness::new();
    let body = r#"{"object":"event","type":"charge.succeeded"}"#;
    for _ in 0..2 {
        assert_eq!(harness.asks_with("stripe", harness.with_body("stripe", "", body)).await.outcome, Stored);
    }
    assert_eq!(harness.stored_ids(), ["", ""]);
    assert_eq!(harness.keyless("stripe"), 2);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Stored);
    assert_eq!(harness.keyless("stripe"), 2, "one with an id is not counted");
}

#[tokio::test]
async fn a_signed_time_makes_only_an_exact_replay_a_repeat() {
    let harness = Harness::new();
    let delivery = harness.delivery("timed", "");
    assert_eq!(harness.asks_with("timed", delivery.clone()).await.outcome, Stored);
    assert_eq!(harness.asks_with("timed", delivery.clone()).await.outcome, Duplicate);
    harness.advance(Duration::from_secs(1));
    let signed_anew = harness.delivery("timed", "");
    assert_eq!(signed_anew.body, delivery.body);
    assert_eq!(harness.asks_with("timed", signed_anew).await.outcome, Stored);
    assert_eq!(harness.asks_with("timed", delivery).await.outcome, Duplicate);
    assert_eq!(harness.stored_ids().len(), 2);
    assert_eq!(harness.keyless("timed"), 0);
}

#[tokio::test]
async fn two_bodies_with_the_same_unsigned_id_are_two_events() {
    let harness = Harness::new();
    let (one, two) = (r#"{"action":"opened","n":1}"#, r#"{"action":"opened","n":2}"#);
    for (body, outcome) in [(one, Stored), (two, Stored), (one, Duplicate), (two, Duplicate)] {
        assert_eq!(harness.asks_with("github", harness.with_body("github", "uuid-1", body)).await.outcome, outcome);
    }
    assert_eq!(harness.asks_with("github", harness.with_body("github", "uuid-2", one)).await.outcome, Stored);
    assert_eq!(harness.stored_ids(), ["uuid-1", "uuid-1", "uuid-2"]);
}

#[tokio::test]
async fn the_same_id_with_another_type_is_another_event() {
    let harness = Harness::new();
    for kind in ["charge.succeeded", "charge.failed"] {
        let body = format!(r#"{{"id":"evt_1","type":"{kind}"}}"#);
        assert_eq!(harness.asks_with("stripe", harness.with_body("stripe", "", body)).await.outcome, Stored);
    }
}

#[tokio::test]
async fn the_operator_may_call_byte_equal_bodies_repeats_for_a_time() {
    let harness = Harness::new();
    let ask = async |body: &'static str| harness.asks_with("opted", harness.with_body("opted", "", body)).await.outcome;
    assert_eq!((ask("a").await, ask("b").await, ask("a").await), (Stored, Stored, Duplicate));
    harness.advance(Duration::from_secs(600) - Duration::from_millis(1));
    assert_eq!(ask("a").await, Duplicate);
    harness.advance(Duration::from_millis(1));
    assert_eq!((ask("a").await, ask("a").await), (Stored, Duplicate), "ten minutes after the first copy");
    assert_eq!(harness.keyless("opted"), 0);
}

#[tokio::test]
async fn the_hot_cache_may_start_cold_and_may_forget_everything() {
    let harness = Harness::with(Plan { hot_keys: 0, ..Plan::default() });
    let ids: Vec<String> = (0..200).map(|n| format!("evt_{n}")).collect();
    for id in &ids {
        assert_eq!(harness.outcome("stripe", id).await, Stored);
    }
    // From the keys in memory, then from a key file that is large enough to have a filter.
    let mut harness = harness.with_a_cold_cache();
    for round in 0..2 {
        for id in &ids {
            assert_eq!(harness.outcome("stripe", id).await, Duplicate, "{id}, round {round}");
        }
        harness = harness.cooled();
    }
    assert_eq!(harness.stored_ids(), ids);
}

#[tokio::test]
async fn a_key_file_that_cannot_be_read_refuses_and_does_not_guess() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Stored);
    let harness = harness.cooled();
    harness.disk.fail(crate::disk::Step::Read, ".keys", std::io::ErrorKind::Other, 1);
    let answer = harness.asks("stripe", "evt_1").await;
    assert_eq!(answer.status.as_u16(), 503);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Duplicate, "the next one asks again");
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}
