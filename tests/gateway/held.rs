//! While the disk's sync is held nobody hears 2xx; 50 copies of one event become one frame, whoever of them leaves.

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
        senders.push(harness.sends("stripe", "evt_1").await);
    }
    senders
}

#[tokio::test]
async fn no_event_of_a_commit_is_answered_before_its_sync_returns() {
    let harness = Harness::new();
    let (gate, mut senders) = harness.one_commit(&ids()).await;
    for sender in &mut senders {
        sender.must_wait().await;
    }
    assert_eq!(harness.journal.durable_watermark(), 1, "only the event of the commit before");
    gate.release();
    assert_eq!(outcomes(senders).await, [Outcome::Stored; IDS]);
    assert_eq!(harness.stored_ids()[1..], ids());
    assert_eq!(harness.metrics.journal.batch_events.get_sample_count(), 2, "they did share one commit");
}

#[tokio::test]
async fn a_handshake_waits_for_no_disk_is_answered_as_often_as_it_comes_and_is_not_kept() {
    let harness = Harness::new();
    let (gate, other) = harness.busy().await;
    let check = harness.with_body("slack", "", &br#"{"type":"url_verification","challenge":"c-1"}"#[..]);
    for draining in [false, false, true] {
        if draining {
            harness.gateway.begin_drain();
        }
        let answer = harness.asks_with("slack", check.clone()).await;
        assert_eq!((answer.outcome, answer.status.as_u16(), &answer.body[..]), (Outcome::Challenge, 200, &b"c-1"[..]));
        assert_eq!((answer.seq, answer.hint.as_str()), (None, ""));
    }
    gate.release();
    assert_eq!(other.answer().await.outcome, Outcome::Stored);
    assert_eq!((harness.stored_ids(), harness.gateway.hot_keys()), (vec!["another".to_owned()], 1));
}

#[tokio::test]
async fn a_failed_sync_answers_503_to_all_and_ends_the_journal() {
    let harness = Harness::new();
    let (gate, senders) = harness.one_commit(&ids()).await;
    let behind = harness.sends("stripe", "behind").await;
    let again = harness.sends("stripe", "evt_1").await;
    gate.fail(ErrorKind::Other);
    assert_eq!(outcomes(senders).await, [Outcome::JournalFailed; IDS]);
    for waiting in [behind, again] {
        let answer = waiting.answer().await;
        assert_eq!((answer.outcome, answer.status.as_u16()), (Outcome::JournalFailed, 503));
    }
    assert!(harness.journal.failed());
    assert_eq!(harness.outcome("stripe", "later").await, Outcome::JournalFailed);
    assert_eq!(harness.outcome("stripe", "another").await, Outcome::Duplicate, "what was kept before stays kept");
    assert_eq!(harness.stored_ids(), ["another"]);
}

#[tokio::test]
async fn fifty_copies_under_way_are_one_frame_and_fifty_2xx() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let mut senders = fifty_copies(&harness).await;
    gate.wait_for(1);
    for sender in &mut senders {
        sender.must_wait().await;
    }
    gate.release();
    let mut outcomes = outcomes(senders).await;
    assert_eq!(outcomes.remove(0), Outcome::Stored);
    assert_eq!(outcomes, [Outcome::Duplicate; COPIES - 1]);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

/// Something happens to the first senders while the sync is held; fifty others then hear 2xx about one frame.
async fn fifty_copies_are_kept_once_after(first: impl AsyncFnOnce(&Harness)) {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    first(&harness).await;
    let senders = fifty_copies(&harness).await;
    gate.wait_for(1);
    gate.release();
    assert_eq!(outcomes(senders).await, [Outcome::Duplicate; COPIES]);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

async fn senders_hang_up(harness: &Harness, count: usize) {
    for _ in 0..count {
        drop(harness.sends("stripe", "evt_1").await);
    }
}

async fn a_deadline_is_over(harness: &Harness) {
    let late = harness.arrives("stripe", harness.delivery("stripe", "evt_1"), Instant::now());
    let answer = late.answer().await;
    assert_eq!((answer.outcome, answer.status.as_u16()), (Outcome::Deadline, 503));
}

#[tokio::test]
async fn fifty_copies_are_kept_once_although_the_first_sender_hangs_up() {
    fifty_copies_are_kept_once_after(async |harness| senders_hang_up(harness, 1).await).await;
}

#[tokio::test]
async fn fifty_copies_are_kept_once_although_the_first_deadline_is_over() {
    fifty_copies_are_kept_once_after(a_deadline_is_over).await;
}

#[tokio::test]
async fn fifty_copies_are_kept_once_after_300_senders_in_a_row_hung_up() {
    fifty_copies_are_kept_once_after(async |harness| senders_hang_up(harness, 300).await).await;
}

#[tokio::test]
async fn an_event_is_kept_once_when_all_300_senders_hang_up() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    senders_hang_up(&harness, 300).await;
    gate.release();
    assert_eq!(harness.outcome("stripe", "evt_1").await, Outcome::Duplicate);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}

/// The key of an event kept long ago is looked up on disk first: all of this holds there too.
#[tokio::test]
async fn fifty_copies_are_kept_once_although_300_hang_up_while_the_key_files_are_asked() {
    let harness = Harness::new();
    assert_eq!(harness.outcome("stripe", "old").await, Outcome::Stored);
    let harness = harness.cooled();
    let (asked, synced) = (harness.disk.hold(Step::Read, ".keys"), harness.disk.hold(Step::Sync, ".seg"));
    senders_hang_up(&harness, 300).await;
    a_deadline_is_over(&harness).await;
    let mut senders = fifty_copies(&harness).await;
    asked.wait_for(1);
    asked.release();
    synced.wait_for(1);
    for sender in &mut senders {
        sender.must_wait().await;
    }
    synced.release();
    assert_eq!(outcomes(senders).await, [Outcome::Duplicate; COPIES]);
    assert_eq!(harness.stored_ids(), ["old", "evt_1"]);
}

#[tokio::test]
async fn each_of_the_waiting_has_its_own_deadline() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let first = harness.sends("stripe", "evt_1").await;
    let second = harness.arrives("stripe", harness.delivery("stripe", "evt_1"), Instant::now());
    assert_eq!(second.answer().await.outcome, Outcome::Deadline);
    let third = harness.sends("stripe", "evt_1").await;
    gate.release();
    assert_eq!(outcomes(vec![first, third]).await, [Outcome::Stored, Outcome::Duplicate]);
    assert_eq!(harness.stored_ids(), ["evt_1"]);
}
