//! Tests of deliveries that arrive while the test holds a sync of the journal. The gateway must not answer with 2xx before the
//! sync returns. The gateway must store fifty copies of an event as one frame, even if senders disconnect.

use std::io::ErrorKind;

use hookhold::outcome::Outcome;
use tokio::time::Instant;

use crate::disk::Step;
use crate::harness::{Harness, Sender, outcomes};

const IDS: usize = 20;
const COPIES: usize = 50;

fn ids() -> Vec<String> {
    (0..IDS).map(|n| format!("evt_{n}")).collect()
}

async fn fifty_copies(harness: &Harness) -> Vec<Sender> {
    let mut senders = Vec::new();
    for _ in 0..COPIES {
        senders.push(harness.send("stripe", "evt_1").await);
    }
    senders
}

#[tokio::test]
async fn no_event_is_answered_before_its_sync_returns() {
    let harness = Harness::new();
    let (gate, mut senders) = harness.hold_commit(&ids()).await;
    for sender in &mut senders {
        sender.assert_waiting().await;
    }
    assert_eq!(harness.journal.durable_watermark(), 1, "only the event of the previous commit");
    gate.release();
    assert_eq!(outcomes(senders).await, [Outcome::Stored; IDS]);
    assert_eq!(harness.stored_ids()[1..], ids());
    assert_eq!(harness.metrics.journal.batch_events.get_sample_count(), 2, "the events shared one commit");
}

#[tokio::test]
async fn a_challenge_is_answered_without_the_disk_each_time() {
    let harness = Harness::new();
    let (gate, other) = harness.hold_sync().await;
    let challenge = harness.with_body("slack", "", &br#"{"type":"url_verification","challenge":"c-1"}"#[..]);
    for draining in [false, false, true] {
        if draining {
            harness.gateway.begin_drain();
        }
        let answer = harness.deliver_this("slack", challenge.clone()).await;
        assert_eq!((answer.outcome, answer.status.as_u16(), &answer.body[..]), (Outcome::Challenge, 200, &b"c-1"[..]));
        assert_eq!((answer.seq, answer.hint.as_str()), (None, ""));
    }
    gate.release();
    assert_eq!(other.answer().await.outcome, Outcome::Stored);
    assert_eq!((harness.stored_ids(), harness.gateway.hot_keys()), (vec!["another".to_owned()], 1));
}

#[tokio::test]
async fn a_failed_sync_answers_503_and_fails_the_journal() {
    let harness = Harness::new();
    let (gate, senders) = harness.hold_commit(&ids()).await;
    let later = harness.send("stripe", "later").await;
    let duplicate = harness.send("stripe", "evt_1").await;
    gate.fail(ErrorKind::Other);
    assert_eq!(outcomes(senders).await, [Outcome::JournalFailed; IDS]);
    for waiting in [later, duplicate] {
        let answer = waiting.answer().await;
        assert_eq!((answer.outcome, answer.status.as_u16()), (Outcome::JournalFailed, 503));
    }
    assert!(harness.journal.failed());
    assert_eq!(harness.outcome("stripe", "after").await, Outcome::JournalFailed);
    assert_eq!(harness.outcome("stripe", "another").await, Outcome::Duplicate, "an event stored before stays stored");
    assert_eq!(harness.stored_ids(), ["another"]);
}

#[tokio::test]
async fn fifty_concurrent_copies_are_one_frame_and_fifty_2xx() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let mut senders = fifty_copies(&harness).await;
    gate.wait_for(1);
    for sender in &mut senders {
        sender.assert_waiting().await;
    }
    gate.release();
    let mut outcomes = outcomes(senders).await;
    assert_eq!(outcomes.remove(0), Outcome::Stored);
    assert_eq!(outcomes, [Outcome::Duplicate; COPIES - 1]);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

/// Holds the sync and runs `first`, which sends an event. Then sends fifty copies of this event and releases the sync. Asserts
/// that all copies are duplicates and that the journal contains one frame.
async fn assert_stored_once_after(first: impl AsyncFnOnce(&Harness)) {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    first(&harness).await;
    let senders = fifty_copies(&harness).await;
    gate.wait_for(1);
    gate.release();
    assert_eq!(outcomes(senders).await, [Outcome::Duplicate; COPIES]);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

async fn senders_disconnect(harness: &Harness, count: usize) {
    for _ in 0..count {
        drop(harness.send("stripe", "evt_1").await);
    }
}

async fn sender_times_out(harness: &Harness) {
    let late = harness.start("stripe", harness.delivery("stripe", "evt_1"), Instant::now());
    let answer = late.answer().await;
    assert_eq!((answer.outcome, answer.status.as_u16()), (Outcome::Deadline, 503));
}

#[tokio::test]
async fn copies_are_stored_once_although_the_first_disconnects() {
    assert_stored_once_after(async |harness| senders_disconnect(harness, 1).await).await;
}

#[tokio::test]
async fn copies_are_stored_once_although_the_first_times_out() {
    assert_stored_once_after(sender_times_out).await;
}

#[tokio::test]
async fn copies_are_stored_once_after_300_disconnects() {
    assert_stored_once_after(async |harness| senders_disconnect(harness, 300).await).await;
}

#[tokio::test]
async fn an_event_is_stored_once_although_all_disconnect() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    senders_disconnect(&harness, 300).await;
    gate.release();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Duplicate);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

/// Sends copies of an event whose key is not in memory. The first senders disconnect or time out while the gateway looks up the
/// key in the key files.
#[tokio::test]
async fn copies_are_stored_once_during_a_lookup_on_disk() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Stored);
    let harness = harness.with_keys_on_disk();
    let (lookup, sync) = (harness.disk.hold(Step::Read, ".keys"), harness.disk.hold(Step::Sync, ".seg"));
    senders_disconnect(&harness, 300).await;
    sender_times_out(&harness).await;
    let mut senders = fifty_copies(&harness).await;
    lookup.wait_for(1);
    lookup.release();
    sync.wait_for(1);
    for sender in &mut senders {
        sender.assert_waiting().await;
    }
    sync.release();
    assert_eq!(outcomes(senders).await, [Outcome::Duplicate; COPIES]);
    assert_eq!(harness.stored_ids(), ["old", "evt_1"]);
}

#[tokio::test]
async fn each_waiting_duplicate_has_its_own_deadline() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let first = harness.send("stripe", "evt_1").await;
    let second = harness.start("stripe", harness.delivery("stripe", "evt_1"), Instant::now());
    assert_eq!(second.answer().await.outcome, Outcome::Deadline);
    let third = harness.send("stripe", "evt_1").await;
    gate.release();
    assert_eq!(outcomes(vec![first, third]).await, [Outcome::Stored, Outcome::Duplicate]);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}
