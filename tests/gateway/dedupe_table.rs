//! The table of truths about one id, row by row: what becomes of its key, and of those who wait.

use std::io::ErrorKind;
use std::time::Duration;

use hookhold::event::Delivery;
use hookhold::limits::JournalLimits;
use hookhold::outcome::Outcome;
use tokio::time::Instant;

use crate::disk::{SimDisk, Step};
use crate::harness::{Harness, Plan, SEGMENT, far_away, outcomes, until};

/// Five copies of an event arrive while its key is looked up on disk: all of them wait for one end, then a sixth comes.
async fn all_are_refused(harness: &Harness, id: &str, outcome: Outcome) {
    let gate = harness.disk.hold(Step::Read, ".keys");
    let mut senders = Vec::new();
    for _ in 0..5 {
        senders.push(harness.sends_this("stripe", large(harness, id)).await);
    }
    gate.release();
    senders.push(harness.arrives("stripe", large(harness, id), far_away()));
    for sender in senders {
        let answer = sender.answer().await;
        assert_eq!((answer.outcome, answer.status.as_u16()), (outcome, 503));
    }
    assert_eq!(harness.copies(id), 0);
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Duplicate, "a kept event gets its 2xx");
}

/// A harness that knows the event `old` by its key file alone.
async fn with_an_old_event(harness: Harness) -> Harness {
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Stored);
    harness.cooled()
}

/// Sends events until one finds no room; none that is as large finds any from then on.
async fn fill(harness: &Harness) {
    for n in 0..1000 {
        match harness.asks_with("stripe", sized(harness, &format!("filler_{n}"), 8000)).await.outcome {
            Outcome::JournalFull => return assert!(n > 0),
            outcome => assert_eq!(outcome, Outcome::Stored),
        }
    }
    panic!("more was taken than the limit allows");
}

/// Larger than any filler.
fn large(harness: &Harness, id: &str) -> Delivery {
    sized(harness, id, 9000)
}

fn sized(harness: &Harness, id: &str, size: usize) -> Delivery {
    let body = format!(r#"{{"id":"{id}","type":"t","pad":"{}"}}"#, "x".repeat(size));
    harness.with_body("stripe", "", body)
}

#[tokio::test]
async fn refused_because_the_journal_is_full_the_key_is_forgotten_and_all_hear_503() {
    let harness = Harness::forwarding(JournalLimits { max_size: 8 * SEGMENT, ..JournalLimits::default() });
    let harness = with_an_old_event(harness).await;
    fill(&harness).await;
    all_are_refused(&harness, "evt_1", Outcome::JournalFull).await;
    assert_eq!(harness.asks_with("stripe", sized(&harness, "filler_0", 8000)).await.outcome, Outcome::Duplicate);
    // Kafka has acknowledged everything: the oldest segments may go, which another thread does.
    harness.journal.save_cursor("webhooks.stripe", harness.journal.durable_watermark());
    loop {
        match harness.asks_with("stripe", large(&harness, "evt_1")).await.outcome {
            Outcome::Stored => break,
            outcome => assert_eq!(outcome, Outcome::JournalFull),
        }
    }
    assert_eq!(harness.copies("evt_1"), 1);
}

#[tokio::test]
async fn refused_because_its_lane_is_at_its_limit_the_key_is_forgotten_and_all_hear_503() {
    let harness = Harness::forwarding(JournalLimits { max_backlog: SEGMENT, ..JournalLimits::default() });
    let harness = with_an_old_event(harness).await;
    fill(&harness).await;
    all_are_refused(&harness, "evt_1", Outcome::JournalFull).await;
    assert_eq!(harness.outcome("stripe-eu", "evt_1").await, Outcome::Stored, "another lane has room");
    harness.journal.save_cursor("webhooks.stripe", harness.journal.durable_watermark());
    assert_eq!(harness.asks_with("stripe", large(&harness, "evt_1")).await.outcome, Outcome::Stored);
}

#[tokio::test]
async fn refused_because_the_running_sync_is_too_old_the_key_is_forgotten_and_all_hear_503() {
    // Any running sync is older than this deadline.
    let harness = with_an_old_event(Harness::with(Plan { deadline: Duration::ZERO, ..Plan::default() })).await;
    let (gate, other) = harness.busy().await;
    all_are_refused(&harness, "evt_1", Outcome::Overloaded).await;
    assert_eq!(harness.outcome("bare", "").await, Outcome::Overloaded);
    gate.release();
    assert_eq!(other.answer().await.outcome, Outcome::Stored);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Stored);
}

#[tokio::test]
async fn refused_because_of_a_drain_the_key_is_forgotten_and_all_hear_503() {
    let harness = with_an_old_event(Harness::new()).await;
    let (gate, under_way) = harness.busy().await;
    harness.gateway.begin_drain();
    all_are_refused(&harness, "evt_1", Outcome::Draining).await;
    assert_eq!(harness.outcome("bare", "").await, Outcome::Draining);
    let repeat = harness.sends("stripe", "another").await;
    gate.release();
    assert_eq!(outcomes(vec![under_way, repeat]).await, [Outcome::Stored, Outcome::Duplicate], "so does one under way");
    let harness = harness.restarted();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Stored);
}

#[tokio::test]
async fn a_closed_journal_refuses_as_draining() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Stored);
    harness.journal.close();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Draining);
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Duplicate);
}

#[tokio::test]
async fn cancelled_before_it_was_looked_at_the_next_one_is_the_first() {
    let harness = Harness::new();
    drop(harness.arrives("stripe", harness.delivery("stripe", "evt_1"), Instant::now()));
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Stored);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

#[tokio::test]
async fn cancelled_or_timed_out_while_its_key_is_looked_up_the_next_one_gets_its_2xx() {
    let harness = with_an_old_event(Harness::new()).await;
    let gate = harness.disk.hold(Step::Read, ".keys");
    drop(harness.sends("stripe", "evt_1").await);
    let late = harness.arrives("stripe", harness.delivery("stripe", "evt_2"), Instant::now());
    assert_eq!(late.answer().await.outcome, Outcome::Deadline);
    let senders = vec![harness.sends("stripe", "evt_1").await, harness.sends("stripe", "evt_2").await];
    gate.release();
    assert_eq!(outcomes(senders).await, [Outcome::Duplicate; 2]);
    assert_eq!((harness.copies("evt_1"), harness.copies("evt_2")), (1, 1));
}

#[tokio::test]
async fn handed_over_nobody_can_cancel_it_and_the_others_wait() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Write, ".seg");
    drop(harness.sends("stripe", "evt_1").await);
    gate.wait_for(1);
    let mut next = harness.sends("stripe", "evt_1").await;
    next.must_wait().await;
    gate.release();
    assert_eq!(next.answer().await.outcome, Outcome::Duplicate);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

#[tokio::test]
async fn committed_although_503_was_sent_it_is_seen_and_counted() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let late = harness.arrives("stripe", harness.delivery("stripe", "evt_1"), Instant::now());
    assert_eq!(late.answer().await.outcome, Outcome::Deadline);
    let keyless = harness.arrives("bare", harness.delivery("bare", ""), Instant::now());
    assert_eq!(keyless.answer().await.outcome, Outcome::Deadline);
    assert_eq!(harness.stored_after_answer(), 0);
    gate.release();
    // Commits end in their order.
    assert_eq!(harness.outcome("stripe", "behind").await, Outcome::Stored);
    assert_eq!(harness.stored_after_answer(), 2);
    let retry = harness.asks("stripe", "evt_1").await;
    assert_eq!((retry.outcome, retry.seq), (Outcome::Duplicate, Some(0)));
    assert_eq!(harness.stored_ids(), ["evt_1", "", "behind"]);
}

#[tokio::test]
async fn committed_although_its_sender_left_it_is_seen_and_counted() {
    let harness = Harness::new();
    let (gate, other) = harness.busy().await;
    drop(harness.sends("stripe", "evt_1").await);
    gate.release();
    assert_eq!(other.answer().await.outcome, Outcome::Stored);
    assert_eq!(harness.outcome("stripe", "behind").await, Outcome::Stored);
    assert_eq!(harness.stored_after_answer(), 1);
    let retry = harness.asks("stripe", "evt_1").await;
    assert_eq!((retry.outcome, retry.seq), (Outcome::Duplicate, Some(1)));
    assert_eq!(harness.stored_ids(), ["another", "evt_1", "behind"]);
}

#[tokio::test]
async fn in_a_failed_write_it_is_forgotten_and_its_segment_abandoned() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "before").await, Outcome::Stored);
    let segments = harness.disk.names(".seg");
    let gate = harness.disk.hold(Step::Write, ".seg");
    let mut senders = Vec::new();
    for _ in 0..5 {
        senders.push(harness.sends("stripe", "evt_1").await);
    }
    gate.wait_for(1);
    gate.fail(ErrorKind::Other);
    for sender in senders {
        let answer = sender.answer().await;
        assert_eq!((answer.outcome, answer.status.as_u16()), (Outcome::JournalFailed, 503));
    }
    assert!(!harness.journal.failed(), "only that commit is lost");
    let retry = harness.asks("stripe", "evt_1").await;
    assert_eq!((retry.outcome, retry.seq), (Outcome::Stored, Some(1)));
    assert_eq!(harness.disk.names(".seg").len(), segments.len() + 1);
    assert_eq!(harness.stored_ids(), ["before", "evt_1"]);
    let harness = harness.killed();
    assert_eq!(harness.stored_ids(), ["before", "evt_1"]);
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Duplicate);
}

/// Whatever reached the disk, recovery and the retries agree: every event is there once.
#[tokio::test]
async fn in_a_failed_sync_recovery_decides() {
    let ids: Vec<String> = (0..20).map(|n| format!("evt_{n}")).collect();
    let (mut found, mut lost) = (0, 0);
    for seed in 0..20 {
        let harness = Harness::with(Plan { seed, ..Plan::default() });
        let (gate, senders) = harness.one_commit(&ids).await;
        gate.fail(ErrorKind::Other);
        assert_eq!(outcomes(senders).await, [Outcome::JournalFailed; 20]);
        let harness = harness.after_power_cut();
        let (here, gone) = retry_all(&harness, &ids, seed).await;
        (found, lost) = (found + here, lost + gone);
    }
    assert!(found > 0 && lost > 0, "both happened: {found} found, {lost} lost");
}

/// Sends every event again: a duplicate if recovery has found it, kept if not. How many it has found, and how many not.
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
async fn killed_before_its_sync_a_frame_that_is_found_is_seen() {
    let harness = Harness::new();
    let (_gate, sender) = harness.busy().await;
    let harness = harness.killed();
    assert_eq!(harness.stored_ids(), ["another"], "the page cache outlives the process");
    assert_eq!(harness.outcome("stripe", "another").await, Outcome::Duplicate);
    drop(sender);
    let harness = harness.after_power_cut();
    assert_eq!(harness.stored_ids(), ["another"], "from the first opening on it is on the medium");
}

#[tokio::test]
async fn killed_before_its_sync_a_frame_that_is_not_found_is_forgotten() {
    let (mut found, mut lost) = (0, 0);
    for seed in 0..20 {
        let harness = Harness::with(Plan { seed, ..Plan::default() });
        let (_gate, sender) = harness.busy().await;
        let harness = harness.after_power_cut();
        let (here, gone) = retry_all(&harness, &["another".into()], seed).await;
        (found, lost) = (found + here, lost + gone);
        drop(sender);
    }
    assert!(found > 0 && lost > 0, "both happened: {found} found, {lost} lost");
}

#[tokio::test]
async fn synced_but_dead_before_the_answer_the_retry_is_a_duplicate() {
    for seed in 0..20 {
        let harness = Harness::with(Plan { seed, ..Plan::default() });
        let dying: SimDisk = harness.disk.clone();
        harness.journal.on_commit(Box::new(move || {
            dying.cut_power();
            true
        }));
        let mut sender = harness.arrives("stripe", harness.delivery("stripe", "evt_1"), far_away());
        drop(sender.has_answer().await);
        until(|| harness.disk.is_dead());
        let harness = harness.after_power_cut();
        assert_eq!(harness.stored_ids(), ["evt_1"], "seed {seed}");
        let retry = harness.asks("stripe", "evt_1").await;
        assert_eq!((retry.outcome, retry.seq), (Outcome::Duplicate, Some(0)), "seed {seed}");
    }
}

#[tokio::test]
async fn expired_it_is_replaced_by_the_new_first_seen() {
    let window = Duration::from_secs(20);
    for cooled in [false, true] {
        let mut harness = Harness::with(Plan { window, ..Plan::default() });
        assert_eq!(harness.asks("stripe", "evt_1").await.seq, Some(0));
        harness.advance(window - Duration::from_millis(1));
        let repeat = harness.asks("stripe", "evt_1").await;
        assert_eq!((repeat.outcome, repeat.seq), (Outcome::Duplicate, Some(0)), "in the last moment of the window");
        harness = if cooled { harness.cooled() } else { harness };
        harness.advance(Duration::from_millis(1));
        let renewed = harness.asks("stripe", "evt_1").await;
        assert_eq!((renewed.outcome, renewed.seq), (Outcome::Stored, Some(1)), "a repeat does not prolong the window");
        harness.advance(window - Duration::from_millis(1));
        harness = if cooled { harness.cooled() } else { harness };
        let repeat = harness.asks("stripe", "evt_1").await;
        assert_eq!((repeat.outcome, repeat.seq), (Outcome::Duplicate, Some(1)), "the new first-seen counts");
        assert_eq!(harness.stored_ids(), ["evt_1", "evt_1"]);
    }
}

/// The segment that holds the oldest events, and where each frame with this text lies in it.
fn place_of(harness: &Harness, text: &str) -> (String, std::ops::Range<usize>) {
    let found = harness.disk.names(".seg").into_iter().find_map(|name| {
        let at = harness.disk.bytes(&name).windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((name, at..at + text.len()))
    });
    found.expect("the text is in a segment")
}

#[tokio::test]
async fn lost_to_rot_before_it_was_passed_on_it_is_forgotten_and_the_retry_is_kept() {
    for cooled in [false, true] {
        let mut harness = Harness::new();
        for id in ["evt_before", "evt_lost", "evt_after"] {
            assert_eq!(harness.outcome("stripe", id).await, Outcome::Stored);
        }
        harness = if cooled { harness.cooled() } else { harness };
        assert_eq!(harness.outcome("stripe", "evt_lost").await, Outcome::Duplicate, "and the hot cache knows it");
        let (segment, bytes) = place_of(&harness, "evt_lost");
        harness.disk.corrupt(&segment, bytes, |byte| !byte);
        assert_eq!(harness.stored_ids(), ["evt_before", "evt_after"]);
        assert_eq!(harness.metrics.journal.damaged.get(), 1);
        assert_eq!(harness.outcome("stripe", "evt_lost").await, Outcome::Stored, "cooled: {cooled}");
        assert_eq!(harness.outcome("stripe", "evt_lost").await, Outcome::Duplicate);
        for id in ["evt_before", "evt_after"] {
            assert_eq!(harness.outcome("stripe", id).await, Outcome::Duplicate);
        }
        assert_eq!(harness.stored_ids(), ["evt_before", "evt_after", "evt_lost"]);
    }
}

#[tokio::test]
async fn lost_to_rot_it_is_forgotten_also_in_its_key_file() {
    let harness = Harness::new();
    for id in ["evt_before", "evt_lost", "evt_after"] {
        assert_eq!(harness.outcome("stripe", id).await, Outcome::Stored);
    }
    let harness = harness.cooled();
    let (segment, bytes) = place_of(&harness, "evt_lost");
    let keys = segment.replace(".seg", ".keys");
    let whole = harness.disk.bytes(&keys).len();
    harness.disk.corrupt(&segment, bytes, |byte| !byte);
    assert_eq!(harness.stored_ids(), ["evt_before", "evt_after"]);
    until(|| harness.disk.bytes(&keys).len() < whole);
    // Nobody reads the damaged place again: the key file alone decides.
    let harness = harness.killed();
    assert_eq!(harness.outcome("stripe", "evt_lost").await, Outcome::Stored);
    for id in ["evt_before", "evt_after"] {
        assert_eq!(harness.outcome("stripe", id).await, Outcome::Duplicate);
    }
}
