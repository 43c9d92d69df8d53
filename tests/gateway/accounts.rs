//! Tests of sources with the secrets of several accounts, which may use the same event id for different events. hookhold must
//! store both events once each, and must recognise every duplicate of both.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::time::Duration;

use hookhold::outcome::Outcome::{self, Draining, Duplicate, JournalFailed, Stored};

use crate::disk::Step;
use crate::harness::{Harness, Plan, outcomes};
use crate::shop::{A, ALL, B, C, NEXT_B, Shop, Signer, event_body, events, of};

#[tokio::test]
async fn an_id_of_two_accounts_is_two_events() {
    let shop = Shop::new();
    assert_eq!(shop.deliver(A, "1017", "order of a").await, (Stored, Some(0)));
    assert_eq!(shop.deliver(B, "1017", "order of b").await, (Stored, Some(1)));
    assert_eq!(shop.deliver(C, "1017", "order of c").await, (Stored, Some(2)));
    for (signer, text, seq) in [(A, "order of a", 0), (B, "order of b", 1), (C, "order of c", 2)] {
        assert_eq!(shop.deliver(signer, "1017", text).await, (Duplicate, Some(seq)), "a retry of {text}");
    }
    for signer in ALL {
        assert_eq!(shop.deliver(signer, "1017", "order of a").await, (Duplicate, Some(0)), "the body of a, signed by another");
    }
    assert_eq!(shop.differing("shop"), 0);
    assert_eq!(shop.stored(), events([("order of a", None), ("order of b", Some("beta")), ("order of c", Some("c"))]));
}

#[tokio::test]
async fn another_body_of_the_same_account_is_a_counted_duplicate() {
    for on_disk in [false, true] {
        let mut shop = Shop::new();
        shop.deliver(A, "1017", "order of a").await;
        shop.deliver(B, "1017", "order of b").await;
        shop = if on_disk { shop.after(Harness::with_keys_on_disk) } else { shop };
        assert_eq!(shop.deliver(A, "1017", "changed").await, (Duplicate, Some(0)));
        assert_eq!(shop.differing("shop"), 1);
        assert_eq!(shop.deliver(B, "1017", "changed").await, (Duplicate, Some(1)));
        assert_eq!(shop.deliver(NEXT_B, "1017", "changed again").await, (Duplicate, Some(1)), "a secret of the same account");
        assert_eq!(shop.differing("shop"), 3);
        assert_eq!(shop.deliver(NEXT_B, "1017", "order of b").await, (Duplicate, Some(1)));
        assert_eq!(shop.differing("shop"), 3, "the same body");
        assert_eq!(shop.stored().len(), 2, "on disk: {on_disk}");
    }
}

#[tokio::test]
async fn a_waiting_duplicate_with_another_body_is_counted() {
    let shop = Shop::new();
    let (gate, other) = shop.harness.hold_sync().await;
    let senders =
        vec![shop.send(A, "1017", "first").await, shop.send(A, "1017", "second").await, shop.send(A, "1017", "first").await];
    gate.release();
    assert_eq!(other.answer().await.outcome, Stored);
    assert_eq!(outcomes(senders).await, [Stored, Duplicate, Duplicate]);
    assert_eq!(shop.differing("shop"), 1);
}

#[tokio::test]
async fn a_source_without_a_reused_id_has_no_accounts() {
    let shop = Shop::new();
    for (signer, id) in [(A, "1"), (B, "2"), (NEXT_B, "3")] {
        assert_eq!(shop.deliver(signer, id, id).await.0, Stored);
        assert_eq!(shop.deliver(signer, id, id).await.0, Duplicate);
    }
    assert_eq!(shop.stored(), events([("1", None), ("2", None), ("3", None)]));
}

#[tokio::test]
async fn concurrent_deliveries_of_two_accounts_are_two_events() {
    let shop = Shop::new();
    let (gate, other) = shop.harness.hold_sync().await;
    let mut senders = Vec::new();
    for _ in 0..2 {
        senders.push(shop.send(A, "1017", "order of a").await);
        senders.push(shop.send(B, "1017", "order of b").await);
    }
    gate.release();
    assert_eq!(other.answer().await.outcome, Stored);
    let mut answers = Vec::new();
    for sender in senders {
        answers.push(of(sender.answer().await));
    }
    assert_eq!(answers, [(Stored, Some(1)), (Stored, Some(2)), (Duplicate, Some(1)), (Duplicate, Some(2))]);
    assert_eq!(shop.stored()[1..], events([("order of a", None), ("order of b", Some("beta"))]));
}

/// The write of the first account's event fails after the second account's event has been accepted.
#[tokio::test]
async fn a_failed_event_does_not_affect_the_other_account() {
    let shop = Shop::new();
    let gate = shop.harness.disk.hold(Step::Write, ".seg");
    let first = vec![shop.send(A, "1017", "order of a").await, shop.send(A, "1017", "order of a").await];
    gate.wait_for(1);
    let second = vec![shop.send(B, "1017", "order of b").await, shop.send(B, "1017", "order of b").await];
    gate.fail(ErrorKind::Other);
    assert_eq!(outcomes(first).await, [JournalFailed; 2]);
    assert_eq!(outcomes(second).await, [Stored, Duplicate]);
    // The key of the id is new again, but the second account's event is not.
    assert_eq!(shop.deliver(B, "1017", "order of b").await.0, Duplicate);
    assert_eq!(shop.deliver(A, "1017", "order of a").await.0, Stored);
    assert_eq!(shop.deliver(A, "1017", "order of a").await.0, Duplicate);
    assert_eq!(shop.stored(), events([("order of b", Some("beta")), ("order of a", None)]));
}

/// A reload replaces the only secret while an event that it signed is pending.
#[tokio::test]
async fn a_reload_keeps_the_accounts_of_pending_events_apart() {
    let shop = Shop::new().configured(&[A]);
    let gate = shop.harness.disk.hold(Step::Write, ".seg");
    let first = shop.send(A, "1017", "order of a").await;
    gate.wait_for(1);
    let shop = shop.configured(&[B]);
    let second = shop.send(B, "1017", "order of b").await;
    gate.fail(ErrorKind::Other);
    assert_eq!(outcomes(vec![first, second]).await, [JournalFailed, Stored]);
    assert_eq!(shop.deliver(B, "1017", "order of b").await.0, Duplicate);
    assert_eq!(shop.stored(), events([("order of b", Some("beta"))]));
}

#[tokio::test]
async fn accounts_stay_apart_after_restarts_and_crashes() {
    let restarts: [fn(Harness) -> Harness; 5] =
        [Harness::restarted, Harness::killed, Harness::after_power_cut, Harness::with_keys_on_disk, Harness::with_empty_cache];
    let mut shop = Shop::new();
    shop.deliver(A, "1017", "order of a").await;
    shop.deliver(B, "1017", "order of b").await;
    for restart in restarts {
        shop = shop.after(restart);
        for _ in 0..2 {
            assert_eq!(shop.deliver(B, "1017", "order of b").await, (Duplicate, Some(1)));
            assert_eq!(shop.deliver(A, "1017", "order of a").await, (Duplicate, Some(0)));
        }
    }
    assert_eq!(shop.deliver(C, "1017", "order of c").await, (Stored, Some(2)));
    let accounts = [("order of a", None), ("order of b", Some("beta")), ("order of c", Some("c"))];
    assert_eq!(shop.after(Harness::killed).stored(), events(accounts));
}

/// The first delivery of an account after a restart, while all keys are only in key files.
#[tokio::test]
async fn concurrent_lookups_on_disk_keep_accounts_apart() {
    for hot_keys in [0, 1000] {
        let shop = Shop::with(Plan { hot_keys, ..Plan::default() });
        shop.deliver(A, "1017", "order of a").await;
        let shop = shop.after(Harness::with_keys_on_disk);
        let gate = shop.harness.disk.hold(Step::Read, ".keys");
        let mut senders = Vec::new();
        for signer in [B, A, C, B, A, C] {
            senders.push(shop.send(signer, "1017", &format!("order of {}", signer.0)).await);
        }
        gate.release();
        assert_eq!(outcomes(senders).await, [Stored, Duplicate, Stored, Duplicate, Duplicate, Duplicate]);
        let mut stored = shop.stored();
        stored.sort();
        assert_eq!(stored, events([("order of a", None), ("order of b", Some("beta")), ("order of c", Some("c"))]));
        for signer in [A, B, C] {
            assert_eq!(shop.deliver(signer, "1017", &format!("order of {}", signer.0)).await.0, Duplicate);
        }
    }
}

/// A source with one secret, which the operator has replaced in place. The key file contains the event of the old secret.
#[tokio::test]
async fn an_event_of_a_replaced_secret_is_another_event_in_a_key_file() {
    for hot_keys in [0, 1000] {
        let shop = Shop::with(Plan { hot_keys, ..Plan::default() });
        shop.deliver(A, "1017", "order of a").await;
        let shop = shop.after_with(Harness::with_keys_on_disk, &[C]);
        let gate = shop.harness.disk.hold(Step::Read, ".keys");
        let senders = vec![shop.send(C, "1017", "order of c").await, shop.send(C, "1017", "order of c").await];
        gate.release();
        assert_eq!(outcomes(senders).await, [Stored, Duplicate]);
        assert_eq!(shop.deliver(C, "1017", "order of c").await.0, Duplicate);
        let shop = shop.after(Harness::with_keys_on_disk);
        assert_eq!(shop.deliver(C, "1017", "order of c").await.0, Duplicate);
        assert_eq!(shop.deliver(C, "1017", "order of a").await, (Duplicate, Some(0)), "the body of the first event");
        assert_eq!(shop.stored(), events([("order of a", None), ("order of c", Some("c"))]));
    }
}

#[tokio::test]
async fn an_unreadable_key_file_rejects_no_account() {
    let shop = Shop::new();
    shop.deliver(A, "1017", "order of a").await;
    let shop = shop.after(Harness::with_keys_on_disk);
    let gate = shop.harness.disk.hold(Step::Read, ".keys");
    let senders = vec![shop.send(B, "1017", "order of b").await, shop.send(B, "1017", "order of b").await];
    gate.wait_for(1);
    gate.fail(ErrorKind::Other);
    assert_eq!(outcomes(senders).await, [Stored, Duplicate]);
    assert_eq!(shop.deliver(B, "1017", "order of b").await.0, Duplicate);
}

#[tokio::test]
async fn a_drain_answers_the_duplicates_of_both_accounts() {
    let shop = Shop::new();
    shop.deliver(A, "1017", "order of a").await;
    shop.deliver(B, "1017", "order of b").await;
    shop.harness.gateway.begin_drain();
    assert_eq!(shop.deliver(C, "1017", "order of c").await.0, Draining);
    assert_eq!(shop.deliver(A, "1017", "order of a").await.0, Duplicate);
    assert_eq!(shop.deliver(B, "1017", "order of b").await.0, Duplicate);
    let shop = shop.after(Harness::restarted);
    assert_eq!(shop.deliver(C, "1017", "order of c").await.0, Stored);
}

/// The key of the id expires before the key of the second account.
#[tokio::test]
async fn each_account_has_its_own_dedupe_window() {
    let window = Duration::from_secs(20);
    for on_disk in [false, true] {
        let mut shop = Shop::with(Plan { window, ..Plan::default() });
        assert_eq!(shop.deliver(A, "1017", "order of a").await.0, Stored);
        shop.harness.advance(window / 2);
        assert_eq!(shop.deliver(B, "1017", "order of b").await.0, Stored);
        shop.harness.advance(window / 2);
        shop = if on_disk { shop.after(Harness::with_keys_on_disk) } else { shop };
        assert_eq!(shop.deliver(B, "1017", "order of b").await, (Duplicate, Some(1)), "on disk: {on_disk}");
        assert_eq!(shop.deliver(A, "1017", "order of a").await, (Stored, Some(2)), "on disk: {on_disk}");
        shop.harness.advance(window / 2);
        assert_eq!(shop.deliver(A, "1017", "order of a").await, (Duplicate, Some(2)));
        assert_eq!(shop.deliver(B, "1017", "order of b").await, (Stored, Some(3)));
    }
}

/// Corruption destroys the first account's event, so hookhold forgets the key of the id.
#[tokio::test]
async fn a_corrupt_event_does_not_affect_the_other_account() {
    for on_disk in [false, true] {
        let mut shop = Shop::new();
        shop.deliver(A, "1017", "order of a").await;
        shop.deliver(B, "1017", "order of b").await;
        shop = if on_disk { shop.after(Harness::with_keys_on_disk) } else { shop };
        let lost = |disk: &crate::disk::SimDisk| {
            disk.names(".seg").into_iter().find_map(|name| {
                let text = b"order of a";
                let at = disk.bytes(&name).windows(text.len()).position(|window| window == text)?;
                Some((name, at..at + text.len()))
            })
        };
        let (segment, bytes) = lost(&shop.harness.disk).expect("a segment contains the event");
        shop.harness.disk.corrupt(&segment, bytes, |byte| !byte);
        assert_eq!(shop.stored(), events([("order of b", Some("beta"))]));
        assert_eq!(shop.deliver(B, "1017", "order of b").await.0, Duplicate);
        assert_eq!(shop.deliver(A, "1017", "order of a").await.0, Stored);
        assert_eq!(shop.deliver(A, "1017", "order of a").await.0, Duplicate);
        assert_eq!(shop.deliver(B, "1017", "order of b").await.0, Duplicate, "on disk: {on_disk}");
    }
}

#[tokio::test]
async fn the_items_of_two_accounts_are_different_events() {
    for on_disk in [false, true] {
        let mut shop = Shop::new();
        let answer = shop.deliver_batch(A, &[("1", "1 of a"), ("2", "2 of a")]).await;
        assert_eq!(answer, (Stored, "batch: 2 items stored, 0 duplicates, 0 filtered".to_owned()));
        shop = if on_disk { shop.after(Harness::with_keys_on_disk) } else { shop };
        let of_b = [("2", "2 of b"), ("1", "1 of a"), ("3", "3 of b")];
        let answer = shop.deliver_batch(B, &of_b).await;
        assert_eq!(answer, (Stored, "batch: 2 items stored, 1 duplicates, 0 filtered".to_owned()), "on disk: {on_disk}");
        assert_eq!(shop.deliver_batch(B, &of_b).await.0, Duplicate);
        assert_eq!(shop.differing("items"), 0);
        let changed = shop.deliver_batch(B, &[("2", "2 changed"), ("3", "3 changed"), ("3", "3 of b")]).await;
        assert_eq!((changed.0, shop.differing("items")), (Duplicate, 2));
        let expected = [("1 of a", None), ("2 of a", None), ("2 of b", Some("beta")), ("3 of b", None)];
        assert_eq!(shop.stored(), events(expected));
    }
}

#[tokio::test]
async fn an_item_that_differs_within_its_batch_is_a_counted_duplicate() {
    let shop = Shop::new();
    let answer = shop.deliver_batch(A, &[("1", "first"), ("1", "second"), ("1", "first")]).await;
    assert_eq!(answer, (Stored, "batch: 1 items stored, 2 duplicates, 0 filtered".to_owned()));
    assert_eq!(shop.differing("items"), 1);
    assert_eq!(shop.stored(), events([("first", None)]));
}

#[tokio::test]
async fn concurrent_batches_of_two_accounts_store_their_own_items() {
    let shop = Shop::new();
    let (gate, other) = shop.harness.hold_sync().await;
    let mut senders = Vec::new();
    for _ in 0..2 {
        for (signer, items) in [(A, [("1", "1 of a"), ("2", "2 of a")]), (B, [("2", "2 of b"), ("1", "1 of b")])] {
            senders.push(shop.harness.send_this("items", shop.batch(signer, &items)).await);
        }
    }
    gate.release();
    assert_eq!(other.answer().await.outcome, Stored);
    assert_eq!(outcomes(senders).await, [Stored, Stored, Duplicate, Duplicate]);
    let expected = [("1 of a", None), ("2 of a", None), ("2 of b", Some("beta")), ("1 of b", Some("beta"))];
    assert_eq!(shop.stored()[1..], events(expected));
}

#[tokio::test]
async fn a_failed_batch_does_not_affect_the_other_account() {
    let shop = Shop::new();
    let gate = shop.harness.disk.hold(Step::Write, ".seg");
    let first = shop.harness.send_this("items", shop.batch(A, &[("1", "1 of a"), ("2", "2 of a")])).await;
    gate.wait_for(1);
    let second = shop.harness.send_this("items", shop.batch(B, &[("1", "1 of b"), ("3", "3 of b")])).await;
    gate.fail(ErrorKind::Other);
    assert_eq!(outcomes(vec![first, second]).await, [JournalFailed, Stored]);
    assert_eq!(shop.deliver_batch(B, &[("1", "1 of b"), ("3", "3 of b")]).await.0, Duplicate);
    assert_eq!(shop.deliver_batch(A, &[("1", "1 of a"), ("2", "2 of a")]).await.0, Stored);
    assert_eq!(shop.stored().len(), 4);
}

/// Returns the outcomes of two deliveries by `A` and two deliveries by `B`.
async fn outcomes_of(shop: &Shop, source: &'static str, text_of_a: &str, text_of_b: &str) -> [Outcome; 4] {
    let mut outcomes = [Stored; 4];
    for (at, (signer, text)) in [(A, text_of_a), (B, text_of_b), (A, text_of_a), (B, text_of_b)].into_iter().enumerate() {
        let delivery = shop.signed(source, signer, text.to_owned());
        outcomes[at] = shop.harness.deliver_this(source, delivery).await.outcome;
    }
    outcomes
}

/// If the dedupe key contains the body, the accounts of equal bodies do not matter.
#[tokio::test]
async fn equal_bodies_without_a_signed_id_are_duplicates_for_every_account() {
    for source in ["bodies", "timed", "unsigned-id"] {
        let shop = Shop::new();
        assert_eq!(outcomes_of(&shop, source, "equal", "equal").await, [Stored, Duplicate, Duplicate, Duplicate], "{source}");
        assert_eq!(outcomes_of(&shop, source, "of a", "of b").await, [Stored, Stored, Duplicate, Duplicate], "{source}");
        assert_eq!(shop.differing(source), 0);
        let mut reader = shop.harness.journal.reader(0);
        let accounts = std::iter::from_fn(|| Some(reader.next().expect("readable")?.event.account().is_some()));
        assert_eq!(accounts.collect::<Vec<_>>(), [false; 3], "{source}");
    }
}

#[tokio::test]
async fn undivided_batches_of_two_accounts_are_two_events() {
    let shop = Shop::new();
    let [of_a, of_b] = ["a", "b"].map(|text| format!("[{},{}]", event_body("1", text), event_body("2", text)));
    assert_eq!(outcomes_of(&shop, "whole", &of_a, &of_b).await, [Stored, Stored, Duplicate, Duplicate]);
    assert_eq!(outcomes_of(&shop, "whole", &of_b, &of_a).await, [Duplicate; 4]);
    assert_eq!(shop.differing("whole"), 2, "the first account sent another body twice");
}

/// Several accounts send the same ids at the same time while writes fail. Every delivery is repeated until it is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_accounts_under_faults_store_every_event_once() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let shop = Shop::new();
    let (mut rejected, mut expected) = (0, BTreeMap::new());
    for round in 0..60 {
        let sent: Vec<(Signer, String)> = (0..random.usize(4..16))
            .map(|_| (random.choice([A, B, C]).expect("not empty"), format!("{round}-{}", random.u8(..3))))
            .collect();
        if random.bool() {
            shop.harness.disk.fail(Step::Write, ".seg", ErrorKind::Other, random.u64(1..3));
        }
        let started: Vec<_> =
            sent.iter().map(|(signer, id)| shop.start(*signer, id, &format!("{id} of {}", signer.0)).spawned()).collect();
        for (answer, (signer, id)) in started.into_iter().zip(&sent) {
            let text = format!("{id} of {}", signer.0);
            let mut outcome = answer.await.expect("no panic").outcome;
            while !matches!(outcome, Stored | Duplicate) {
                assert_eq!(outcome, JournalFailed, "round {round}");
                rejected += 1;
                outcome = shop.deliver(*signer, id, &text).await.0;
            }
            expected.insert(text, 1);
        }
        shop.harness.disk.clear_faults();
    }
    let mut copies = BTreeMap::new();
    shop.stored().into_iter().for_each(|(text, _)| *copies.entry(text).or_insert(0) += 1);
    assert_eq!(copies, expected);
    assert!(rejected > 5, "only {rejected} rejections");
    assert_eq!(shop.differing("shop"), 0);
}

/// Runs random operations and compares each outcome with a model. In the model, an id has one event without an account and at
/// most one event of each account. A delivery is a duplicate of an event in the window if both have the same account, or if the
/// event has no account and both have the same body.
#[tokio::test]
async fn random_operations_agree_with_a_plain_model() {
    let first_seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let mut totals = Totals::default();
    for seed in first_seed.map_or(0..25, |seed: u64| seed..seed + 1) {
        random_operations(seed, &mut totals).await;
    }
    let Totals { stored, of_accounts, duplicates, differing } = totals;
    assert!(stored > 0 && of_accounts > 0 && duplicates > 0 && differing > 0, "{stored} {of_accounts} {duplicates} {differing}");
}

#[derive(Default)]
struct Totals {
    stored: usize,
    of_accounts: usize,
    duplicates: usize,
    differing: u64,
}

/// An event of the model.
struct ModelEvent {
    signer: &'static str,
    /// True if the journal contains the event under the key of its account.
    is_of_account: bool,
    text: String,
    first_seen: u64,
    seq: u64,
}

async fn random_operations(seed: u64, totals: &mut Totals) {
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let window = Duration::from_secs(20);
    let hot_keys = random.choice([0, 2, 1000]).expect("not empty");
    let mut shop = Shop::with(Plan { window, hot_keys, seed, ..Plan::default() });
    let mut model: HashMap<String, Vec<ModelEvent>> = HashMap::new();
    let (mut now, mut stored) = (0, Vec::new());
    for step in 0..80 {
        match random.u32(..24) {
            0 => shop = shop.after(Harness::restarted),
            1 => shop = shop.after(Harness::killed),
            2 => shop = shop.after(Harness::after_power_cut),
            3 => shop = shop.after(Harness::with_empty_cache),
            4..8 => {
                let seconds = random.u64(1..8);
                now += seconds;
                shop.harness.advance(Duration::from_secs(seconds));
            }
            _ => {
                let signer = random.choice([A, B, C]).expect("not empty");
                let (id, text) = (format!("{}", random.u32(..4)), format!("{}", random.u32(..4)));
                let known = model.entry(id.clone()).or_default();
                known.retain(|event| now < event.first_seen + window.as_secs());
                let is_first = |event: &&ModelEvent| !event.is_of_account && (event.signer == signer.0 || event.text == text);
                let is_own = |event: &&ModelEvent| event.is_of_account && event.signer == signer.0;
                // A delivery can be a duplicate of both. If the key of the id is only on disk, hookhold finds the other one first.
                let firsts: Vec<&ModelEvent> = known.iter().filter(is_first).chain(known.iter().filter(is_own)).collect();
                let before = shop.differing("shop");
                let found = shop.deliver(signer, &id, &text).await;
                let differing = shop.differing("shop") - before;
                let context = || format!("{id} {text} of {}, step {step}, seed {seed}", signer.0);
                if !firsts.is_empty() {
                    let first = firsts.iter().find(|first| found == (Duplicate, Some(first.seq)));
                    let first = first.unwrap_or_else(|| panic!("{found:?}: {}", context()));
                    assert_eq!(differing, u64::from(first.signer == signer.0 && first.text != text), "{}", context());
                    totals.duplicates += 1;
                } else {
                    let is_of_account = known.iter().any(|event| !event.is_of_account);
                    let seq = found.1.expect("a stored event has a sequence");
                    assert_eq!((found.0, differing), (Stored, 0), "{}", context());
                    known.push(ModelEvent { signer: signer.0, is_of_account, text: text.clone(), first_seen: now, seq });
                    let account = signer.1.unwrap_or(signer.0).to_owned();
                    stored.push((text, is_of_account.then_some(account)));
                    totals.of_accounts += usize::from(is_of_account);
                }
                totals.differing += differing;
            }
        }
    }
    totals.stored += stored.len();
    assert_eq!(shop.stored(), stored, "seed {seed}");
}
