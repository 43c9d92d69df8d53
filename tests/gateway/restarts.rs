//! Tests that the gateway recognises duplicates for exactly the dedupe window, even after restarts and after the journal has
//! deleted the event.

use std::collections::HashMap;
use std::time::Duration;

use hookhold::limits::JournalLimits;
use hookhold::outcome::Outcome;

use crate::harness::{Harness, Plan, SEGMENT, until};

#[tokio::test]
async fn a_restart_every_second_does_not_prolong_the_window() {
    let window = Duration::from_secs(20);
    let mut harness = Harness::with(Plan { window, ..Plan::default() });
    let mut stored_at = Vec::new();
    for second in 0..60 {
        match harness.outcome("stripe", "evt_1").await {
            Outcome::Stored => stored_at.push(second),
            outcome => assert_eq!(outcome, Outcome::Duplicate, "second {second}"),
        }
        harness.advance(Duration::from_secs(1));
        harness = match second % 3 {
            0 => harness.restarted(),
            1 => harness.killed(),
            _ => harness.after_power_cut(),
        };
    }
    assert_eq!(stored_at, [0, 20, 40]);
    assert_eq!(harness.stored_ids(), ["evt_1"; 3]);
}

#[tokio::test]
async fn an_id_stays_known_after_its_payload_is_deleted() {
    for hot_keys in [0, 1000] {
        let journal = JournalLimits { max_size: 4 * SEGMENT, segment_size: SEGMENT, ..JournalLimits::default() };
        let mut harness = Harness::with(Plan { journal, hot_keys, ..Plan::default() });
        assert_eq!(harness.outcome("stripe", "evt_first").await, Outcome::Stored);
        for n in 0..100 {
            let body = format!(r#"{{"id":"filler_{n}","type":"t","pad":"{}"}}"#, "x".repeat(8000));
            assert_eq!(harness.deliver_this("stripe", harness.with_body("stripe", "", body)).await.outcome, Outcome::Stored);
        }
        assert!(harness.journal.oldest_seq() > 0);
        assert_eq!(harness.copies("evt_first"), 0, "its payload is deleted");
        for _ in 0..2 {
            let duplicate = harness.deliver("stripe", "evt_first").await;
            assert_eq!((duplicate.outcome, duplicate.seq), (Outcome::Duplicate, Some(0)));
            harness = harness.restarted();
        }
        harness = harness.after_power_cut();
        assert_eq!(harness.outcome("stripe", "evt_first").await, Outcome::Duplicate);
    }
}

#[tokio::test]
async fn an_expired_key_is_deleted_from_its_key_file() {
    let window = Duration::from_secs(20);
    let harness = Harness::with(Plan { window, ..Plan::default() });
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Stored);
    let harness = harness.with_keys_on_disk();
    let has_keys = |file: &String| harness.disk.len(file).is_some_and(|len| len > 4096);
    let keys = harness.disk.names(".keys").into_iter().find(has_keys).expect("a file with keys");
    harness.advance(window * 2);
    let harness = harness.restarted();
    until(|| harness.disk.len(&keys).is_none());
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Stored);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Duplicate);
}

/// Runs random operations and compares each outcome with a model of deduplication. In the model, a delivery is a duplicate if
/// the gateway stored an event with the same id within the last `window`. Restarts, crashes and power cuts do not change this
/// rule.
#[tokio::test]
async fn random_operations_agree_with_a_plain_model() {
    let first_seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in first_seed.map_or(0..60, |seed: u64| seed..seed + 1) {
        let (stored, duplicates) = random_operations(seed).await;
        assert!(stored > 0 && duplicates > 0, "seed {seed}");
    }
}

async fn random_operations(seed: u64) -> (usize, usize) {
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let window = Duration::from_secs(20);
    let hot_keys = random.choice([0, 2, 1000]).expect("not empty");
    let mut harness = Harness::with(Plan { window, hot_keys, seed, ..Plan::default() });
    let mut first_seen: HashMap<String, u64> = HashMap::new();
    let (mut now, mut stored, mut duplicates) = (0, Vec::new(), 0);
    for step in 0..80 {
        match random.u32(..20) {
            0 => harness = harness.restarted(),
            1 => harness = harness.killed(),
            2 => harness = harness.after_power_cut(),
            3 => harness = harness.with_empty_cache(),
            4..8 => {
                let seconds = random.u64(1..8);
                now += seconds;
                harness.advance(Duration::from_secs(seconds));
            }
            _ => {
                let id = format!("evt_{}", random.u32(..8));
                let outcome = harness.outcome("stripe", &id).await;
                if first_seen.get(&id).is_some_and(|first| now < first + window.as_secs()) {
                    assert_eq!(outcome, Outcome::Duplicate, "{id}, step {step}, seed {seed}");
                    duplicates += 1;
                } else {
                    assert_eq!(outcome, Outcome::Stored, "{id}, step {step}, seed {seed}");
                    first_seen.insert(id.clone(), now);
                    stored.push(id);
                }
            }
        }
    }
    assert_eq!(harness.stored_ids(), stored, "seed {seed}");
    (stored.len(), duplicates)
}
