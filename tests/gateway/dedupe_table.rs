//! Tests of the dedupe table: the state of a key after each outcome of its delivery, and the answers to waiting duplicates.

use std::io::ErrorKind;
use std::time::Duration;

use hookhold::event::Delivery;
use hookhold::limits::JournalLimits;
use hookhold::outcome::Outcome;
use tokio::time::Instant;

use crate::disk::{SimDisk, Step};
use crate::harness::{Harness, Plan, SEGMENT, far_away, outcomes, until};

/// Sends five copies of an event while the gateway looks up the event's key on disk, and a sixth copy after the lookup. Asserts
/// that the gateway rejects all copies with `outcome` and stores none of them.
async fn assert_all_rejected(harness: &Harness, id: &str, outcome: Outcome) {
    let gate = harness.disk.hold(Step::Read, ".keys");
    let mut senders = Vec::new();
    for _ in 0..5 {
        senders.push(harness.send_this("stripe", large(harness, id)).await);
    }
    gate.release();
    senders.push(harness.start("stripe", large(harness, id), far_away()));
    for sender in senders {
        let answer = sender.answer().await;
        assert_eq!((answer.outcome, answer.status.as_u16()), (outcome, 503));
    }
    assert_eq!(harness.copies(id), 0);
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Duplicate, "a stored event gets its 2xx");
}

/// Stores the event `old` and restarts the harness, so that only a key file contains the key of this event.
async fn with_old_event(harness: Harness) -> Harness {
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Stored);
    harness.with_keys_on_disk()
}

/// Sends events of equal size until the journal is full. The journal then rejects every event that has at least this size.
async fn fill(harness: &Harness) {
    for n in 0..1000 {
        match harness.deliver_this("stripe", sized(harness, &format!("filler_{n}"), 8000)).await.outcome {
            Outcome::JournalFull => return assert!(n > 0),
            outcome => assert_eq!(outcome, Outcome::Stored),
        }
    }
    panic!("the journal accepted more than its limit");
}

/// Returns a delivery that is larger than the events that [`fill`] sends.
fn large(harness: &Harness, id: &str) -> Delivery {
    sized(harness, id, 9000)
}

fn sized(harness: &Harness, id: &str, size: usize) -> Delivery {
    let body = format!(r#"{{"id":"{id}","type":"t","pad":"{}"}}"#, "x".repeat(size));
    harness.with_body("stripe", "", body)
}

#[tokio::test]
async fn a_full_journal_forgets_the_key_and_answers_503() {
    let harness = Harness::forwarding(JournalLimits { max_size: 8 * SEGMENT, ..JournalLimits::default() });
    let harness = with_old_event(harness).await;
    fill(&harness).await;
    assert_all_rejected(&harness, "evt_1", Outcome::JournalFull).await;
    assert_eq!(harness.deliver_this("stripe", sized(&harness, "filler_0", 8000)).await.outcome, Outcome::Duplicate);
    // Simulates that Kafka has acknowledged every event. The background thread then deletes the oldest segments.
    harness.journal.save_cursor("webhooks.stripe", harness.journal.durable_watermark(), 1);
    loop {
        match harness.deliver_this("stripe", large(&harness, "evt_1")).await.outcome {
            Outcome::Stored => break,
            outcome => assert_eq!(outcome, Outcome::JournalFull),
        }
    }
    assert_eq!(harness.copies("evt_1"), 1);
}

#[tokio::test]
async fn a_full_topic_forgets_the_key_and_answers_503() {
    let harness = Harness::forwarding(JournalLimits { max_backlog: SEGMENT, ..JournalLimits::default() });
    let harness = with_old_event(harness).await;
    fill(&harness).await;
    assert_all_rejected(&harness, "evt_1", Outcome::JournalFull).await;
    assert_eq!(harness.outcome("stripe-eu", "evt_1").await, Outcome::Stored, "another topic has room");
    harness.journal.save_cursor("webhooks.stripe", harness.journal.durable_watermark(), 1);
    assert_eq!(harness.deliver_this("stripe", large(&harness, "evt_1")).await.outcome, Outcome::Stored);
}

#[tokio::test]
async fn a_hanging_sync_forgets_the_key_and_answers_503() {
    // With a deadline of zero, the gateway rejects every new event while a sync is running.
    let harness = with_old_event(Harness::with(Plan { deadline: Duration::ZERO, ..Plan::default() })).await;
    let (gate, other) = harness.hold_sync().await;
    assert_all_rejected(&harness, "evt_1", Outcome::Overloaded).await;
    assert_eq!(harness.outcome("bare", "").await, Outcome::Overloaded);
    gate.release();
    assert_eq!(other.answer().await.outcome, Outcome::Stored);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Stored);
}

#[tokio::test]
async fn a_drain_forgets_the_key_and_answers_503() {
    let harness = with_old_event(Harness::new()).await;
    let (gate, pending) = harness.hold_sync().await;
    harness.gateway.begin_drain();
    assert_all_rejected(&harness, "evt_1", Outcome::Draining).await;
    assert_eq!(harness.outcome("bare", "").await, Outcome::Draining);
    let duplicate = harness.send("stripe", "another").await;
    gate.release();
    assert_eq!(outcomes(vec![pending, duplicate]).await, [Outcome::Stored, Outcome::Duplicate], "a pending event gets its 2xx");
    let harness = harness.restarted();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Stored);
}

#[tokio::test]
async fn a_closed_journal_rejects_new_events_as_draining() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Stored);
    harness.journal.close();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Draining);
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Duplicate);
}

#[tokio::test]
async fn a_delivery_cancelled_before_its_start_leaves_no_key() {
    let harness = Harness::new();
    drop(harness.start("stripe", harness.delivery("stripe", "evt_1"), Instant::now()));
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Stored);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

#[tokio::test]
async fn a_delivery_cancelled_during_its_lookup_is_still_stored() {
    let harness = with_old_event(Harness::new()).await;
    let gate = harness.disk.hold(Step::Read, ".keys");
    drop(harness.send("stripe", "evt_1").await);
    let late = harness.start("stripe", harness.delivery("stripe", "evt_2"), Instant::now());
    assert_eq!(late.answer().await.outcome, Outcome::Deadline);
    let senders = vec![harness.send("stripe", "evt_1").await, harness.send("stripe", "evt_2").await];
    gate.release();
    assert_eq!(outcomes(senders).await, [Outcome::Duplicate; 2]);
    assert_eq!((harness.copies("evt_1"), harness.copies("evt_2")), (1, 1));
}

#[tokio::test]
async fn an_event_handed_over_cannot_be_cancelled() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Write, ".seg");
    drop(harness.send("stripe", "evt_1").await);
    gate.wait_for(1);
    let mut next = harness.send("stripe", "evt_1").await;
    next.assert_waiting().await;
    gate.release();
    assert_eq!(next.answer().await.outcome, Outcome::Duplicate);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

#[tokio::test]
async fn an_event_stored_after_503_is_seen_and_counted() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let late = harness.start("stripe", harness.delivery("stripe", "evt_1"), Instant::now());
    assert_eq!(late.answer().await.outcome, Outcome::Deadline);
    let keyless = harness.start("bare", harness.delivery("bare", ""), Instant::now());
    assert_eq!(keyless.answer().await.outcome, Outcome::Deadline);
    assert_eq!(harness.stored_after_answer(), 0);
    gate.release();
    // Commits complete in order, so the journal has stored both late events when it has stored `behind`.
    assert_eq!(harness.outcome("stripe", "behind").await, Outcome::Stored);
    assert_eq!(harness.stored_after_answer(), 2);
    let retry = harness.deliver("stripe", "evt_1").await;
    assert_eq!((retry.outcome, retry.seq), (Outcome::Duplicate, Some(0)));
    assert_eq!(harness.stored_ids(), ["evt_1", "", "behind"]);
}

#[tokio::test]
async fn an_event_stored_after_disconnect_is_seen_and_counted() {
    let harness = Harness::new();
    let (gate, other) = harness.hold_sync().await;
    drop(harness.send("stripe", "evt_1").await);
    gate.release();
    assert_eq!(other.answer().await.outcome, Outcome::Stored);
    assert_eq!(harness.outcome("stripe", "behind").await, Outcome::Stored);
    assert_eq!(harness.stored_after_answer(), 1);
    let retry = harness.deliver("stripe", "evt_1").await;
    assert_eq!((retry.outcome, retry.seq), (Outcome::Duplicate, Some(1)));
    assert_eq!(harness.stored_ids(), ["another", "evt_1", "behind"]);
}

#[tokio::test]
async fn a_failed_write_forgets_keys_and_abandons_the_segment() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "before").await, Outcome::Stored);
    let segments = harness.disk.names(".seg");
    let gate = harness.disk.hold(Step::Write, ".seg");
    let mut senders = Vec::new();
    for _ in 0..5 {
        senders.push(harness.send("stripe", "evt_1").await);
    }
    gate.wait_for(1);
    gate.fail(ErrorKind::Other);
    for sender in senders {
        let answer = sender.answer().await;
        assert_eq!((answer.outcome, answer.status.as_u16()), (Outcome::JournalFailed, 503));
    }
    assert!(!harness.journal.failed(), "only that commit is lost");
    let retry = harness.deliver("stripe", "evt_1").await;
    assert_eq!((retry.outcome, retry.seq), (Outcome::Stored, Some(1)));
    // While the background thread rewrites the abandoned segment, this segment has two files.
    harness.disk.wait_for(|files| files.iter().filter(|file| file.ends_with(".seg")).count() == segments.len() + 1);
    assert_eq!(harness.stored_ids(), ["before", "evt_1"]);
    let harness = harness.killed();
    assert_eq!(harness.stored_ids(), ["before", "evt_1"]);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Duplicate);
}

/// Retries every event of a commit whose sync failed. Recovery determines which events of the commit reached the disk. The
/// gateway must answer a retry of such an event as a duplicate and must store every other event, so that the journal contains
/// each event once.
#[tokio::test]
async fn after_a_failed_sync_recovery_decides_about_keys() {
    let ids: Vec<String> = (0..20).map(|n| format!("evt_{n}")).collect();
    let (mut found, mut lost) = (0, 0);
    for seed in 0..20 {
        let harness = Harness::with(Plan { seed, ..Plan::default() });
        let (gate, senders) = harness.hold_commit(&ids).await;
        gate.fail(ErrorKind::Other);
        assert_eq!(outcomes(senders).await, [Outcome::JournalFailed; 20]);
        let harness = harness.after_power_cut();
        let (now_found, now_lost) = retry_all(&harness, &ids, seed).await;
        (found, lost) = (found + now_found, lost + now_lost);
    }
    assert!(found > 0 && lost > 0, "expected found and lost events: {found} found, {lost} lost");
}

/// Retries every event. If recovery found an event, the gateway must answer the retry as a duplicate; otherwise the gateway
/// must store the event. Returns the number of duplicates and the number of events that the gateway stored.
async fn retry_all(harness: &Harness, ids: &[String], seed: u64) -> (usize, usize) {
    let before = harness.stored_ids();
    for id in ids {
        let expected = if before.contains(id) { Outcome::Duplicate } else { Outcome::Stored };
        assert_eq!(harness.outcome("stripe", id).await, expected, "{id}, seed {seed}");
        assert_eq!(harness.copies(id), 1, "{id}, seed {seed}");
    }
    let found = ids.iter().filter(|id| before.contains(id)).count();
    (found, ids.len() - found)
}

#[tokio::test]
async fn a_frame_recovered_after_a_kill_is_seen() {
    let harness = Harness::new();
    let (_gate, sender) = harness.hold_sync().await;
    let harness = harness.killed();
    assert_eq!(harness.stored_ids(), ["another"], "the page cache outlives the process");
    assert_eq!(harness.outcome("stripe", "another").await, Outcome::Duplicate);
    drop(sender);
    let harness = harness.after_power_cut();
    assert_eq!(harness.stored_ids(), ["another"], "recovery synced the frame");
}

#[tokio::test]
async fn a_frame_lost_in_a_power_cut_is_forgotten() {
    let (mut found, mut lost) = (0, 0);
    for seed in 0..20 {
        let harness = Harness::with(Plan { seed, ..Plan::default() });
        let (_gate, sender) = harness.hold_sync().await;
        let harness = harness.after_power_cut();
        let (now_found, now_lost) = retry_all(&harness, &["another".into()], seed).await;
        (found, lost) = (found + now_found, lost + now_lost);
        drop(sender);
    }
    assert!(found > 0 && lost > 0, "expected found and lost events: {found} found, {lost} lost");
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_is_a_duplicate() {
    for seed in 0..20 {
        let harness = Harness::with(Plan { seed, ..Plan::default() });
        let disk: SimDisk = harness.disk.clone();
        harness.journal.on_commit(Box::new(move || {
            disk.cut_power();
            true
        }));
        let mut sender = harness.start("stripe", harness.delivery("stripe", "evt_1"), far_away());
        drop(sender.poll_once().await);
        until(|| harness.disk.is_dead());
        let harness = harness.after_power_cut();
        assert_eq!(harness.stored_ids(), ["evt_1"], "seed {seed}");
        let retry = harness.deliver("stripe", "evt_1").await;
        assert_eq!((retry.outcome, retry.seq), (Outcome::Duplicate, Some(0)), "seed {seed}");
    }
}

#[tokio::test]
async fn an_expired_key_is_replaced_by_the_new_one() {
    let window = Duration::from_secs(20);
    for on_disk in [false, true] {
        let mut harness = Harness::with(Plan { window, ..Plan::default() });
        assert_eq!(harness.deliver("stripe", "evt_1").await.seq, Some(0));
        harness.advance(window - Duration::from_millis(1));
        let duplicate = harness.deliver("stripe", "evt_1").await;
        assert_eq!((duplicate.outcome, duplicate.seq), (Outcome::Duplicate, Some(0)), "in the last millisecond of the window");
        harness = if on_disk { harness.with_keys_on_disk() } else { harness };
        harness.advance(Duration::from_millis(1));
        let renewed = harness.deliver("stripe", "evt_1").await;
        assert_eq!((renewed.outcome, renewed.seq), (Outcome::Stored, Some(1)), "a duplicate does not prolong the window");
        harness.advance(window - Duration::from_millis(1));
        harness = if on_disk { harness.with_keys_on_disk() } else { harness };
        let duplicate = harness.deliver("stripe", "evt_1").await;
        assert_eq!((duplicate.outcome, duplicate.seq), (Outcome::Duplicate, Some(1)), "the new first-seen time counts");
        assert_eq!(harness.stored_ids(), ["evt_1", "evt_1"]);
    }
}

/// Returns the name of the oldest segment that contains `text`, and the byte range of `text` in the segment.
fn locate(harness: &Harness, text: &str) -> (String, std::ops::Range<usize>) {
    let found = harness.disk.names(".seg").into_iter().find_map(|name| {
        let at = harness.disk.bytes(&name).windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((name, at..at + text.len()))
    });
    found.expect("the text is in a segment")
}

#[tokio::test]
async fn a_retry_of_a_corrupt_event_is_stored() {
    for on_disk in [false, true] {
        let mut harness = Harness::new();
        for id in ["evt_before", "evt_lost", "evt_after"] {
            assert_eq!(harness.outcome("stripe", id).await, Outcome::Stored);
        }
        harness = if on_disk { harness.with_keys_on_disk() } else { harness };
        assert_eq!(harness.outcome("stripe", "evt_lost").await, Outcome::Duplicate, "the hot cache holds it now");
        let (segment, bytes) = locate(&harness, "evt_lost");
        harness.disk.corrupt(&segment, bytes, |byte| !byte);
        assert_eq!(harness.stored_ids(), ["evt_before", "evt_after"]);
        assert_eq!(harness.metrics.journal.damaged.get(), 1);
        assert_eq!(harness.outcome("stripe", "evt_lost").await, Outcome::Stored, "on disk: {on_disk}");
        assert_eq!(harness.outcome("stripe", "evt_lost").await, Outcome::Duplicate);
        for id in ["evt_before", "evt_after"] {
            assert_eq!(harness.outcome("stripe", id).await, Outcome::Duplicate);
        }
        assert_eq!(harness.stored_ids(), ["evt_before", "evt_after", "evt_lost"]);
    }
}

#[tokio::test]
async fn a_corrupt_event_is_forgotten_in_its_key_file() {
    let harness = Harness::new();
    for id in ["evt_before", "evt_lost", "evt_after"] {
        assert_eq!(harness.outcome("stripe", id).await, Outcome::Stored);
    }
    let harness = harness.with_keys_on_disk();
    let (segment, bytes) = locate(&harness, "evt_lost");
    let files = harness.disk.names(".keys");
    harness.disk.corrupt(&segment, bytes, |byte| !byte);
    assert_eq!(harness.stored_ids(), ["evt_before", "evt_after"]);
    // A merge rewrites the key file without the key of the lost event.
    until(|| files.iter().all(|file| harness.disk.len(file).is_none()));
    // After the restart, hookhold does not read the damaged frame again, so only the key file determines the outcome.
    let harness = harness.killed();
    assert_eq!(harness.outcome("stripe", "evt_lost").await, Outcome::Stored);
    for id in ["evt_before", "evt_after"] {
        assert_eq!(harness.outcome("stripe", id).await, Outcome::Duplicate);
    }
}
