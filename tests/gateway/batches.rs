//! Tests of batches that the gateway splits. The fresh items of a delivery are stored in one commit or none of them is, and no
//! dedupe key is remembered without its event.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use hookhold::answer::Answer;
use hookhold::event::Delivery;
use hookhold::limits::JournalLimits;
use hookhold::outcome::Outcome::{
    self, Deadline, Draining, Duplicate, Filtered, JournalFailed, JournalFull, Overloaded, RateLimited, Stored, TooLarge,
};
use tokio::time::Instant;

use crate::disk::Step;
use crate::harness::{Harness, Plan, SEGMENT, Sender, far_away, outcomes};

/// Returns a delivery with one item for each id.
fn batch(harness: &Harness, ids: &[&str]) -> Delivery {
    padded(harness, ids, 0)
}

/// Returns a delivery whose items each have `size` additional bytes.
fn padded(harness: &Harness, ids: &[&str], size: usize) -> Delivery {
    let pad = "x".repeat(size);
    let items: Vec<String> = ids.iter().map(|id| format!(r#"{{"id":"{id}","type":"t","pad":"{pad}"}}"#)).collect();
    harness.with_body("batch", "", format!("[{}]", items.join(",")))
}

async fn deliver(harness: &Harness, ids: &[&str]) -> Answer {
    harness.deliver_this("batch", batch(harness, ids)).await
}

async fn send(harness: &Harness, ids: &[&str]) -> Sender {
    harness.send_this("batch", batch(harness, ids)).await
}

async fn deliver_body(harness: &Harness, source: &str, body: &'static str) -> Answer {
    harness.deliver_this(source, harness.with_body(source, "", body)).await
}

/// Returns the number of items that the source has counted with this outcome.
fn counted(harness: &Harness, source: &str, outcome: Outcome) -> u64 {
    harness.metrics.deliveries.batch_items.with_label_values(&[source, outcome.word()]).get()
}

fn commits(harness: &Harness) -> u64 {
    harness.metrics.journal.batch_events.get_sample_count()
}

#[tokio::test]
async fn fresh_items_share_a_commit_and_seen_ones_are_dropped() {
    let harness = Harness::new();
    let first = deliver(&harness, &["a", "b"]).await;
    assert_eq!((first.outcome, first.seq, commits(&harness)), (Stored, Some(0), 1));
    assert_eq!(first.hint, "batch: 2 items stored, 0 duplicates, 0 filtered");
    let second = deliver(&harness, &["b", "c", "a", "d"]).await;
    assert_eq!((second.outcome, second.seq, commits(&harness)), (Stored, Some(2), 2));
    assert_eq!(second.hint, "batch: 2 items stored, 2 duplicates, 0 filtered");
    let seen = deliver(&harness, &["d", "a"]).await;
    assert_eq!((seen.outcome, seen.seq, commits(&harness)), (Duplicate, Some(3), 2));
    assert_eq!(seen.hint, "batch: 0 items stored, 2 duplicates, 0 filtered");
    for answer in [&first, &second, &seen] {
        assert_eq!(
            (answer.status.as_u16(), answer.content_type.as_deref(), &answer.body[..]),
            (202, Some("text/plain"), &b"thanks"[..])
        );
    }
    assert_eq!(harness.stored_ids(), ["a", "b", "c", "d"]);
    assert_eq!((counted(&harness, "batch", Stored), counted(&harness, "batch", Duplicate)), (4, 4));
    // The keys are now only in key files, and one lookup must serve all items.
    let harness = harness.with_keys_on_disk();
    assert_eq!(deliver(&harness, &["a", "e", "d"]).await.outcome, Stored);
    let seen = deliver(&harness, &["b", "c"]).await;
    assert_eq!((seen.outcome, seen.seq), (Duplicate, Some(1)));
    assert_eq!(harness.stored_ids(), ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn an_item_is_the_same_event_outside_its_batch() {
    let harness = Harness::new();
    assert_eq!(deliver(&harness, &["a", "b"]).await.outcome, Stored);
    assert_eq!(deliver_body(&harness, "batch", r#"{"id":"a","type":"t"}"#).await.outcome, Duplicate);
    assert_eq!(deliver_body(&harness, "batch", r#"{"id":"c","type":"t"}"#).await.outcome, Stored);
    assert_eq!(deliver(&harness, &["c"]).await.outcome, Duplicate);
    assert_eq!(deliver_body(&harness, "batch", r#"[{"id":"a","type":"u"}]"#).await.outcome, Stored, "another type");
    assert_eq!(harness.stored_ids(), ["a", "b", "c", "a"]);
}

/// Delivers a batch with a stored item, which the gateway must reject with `outcome` and 503. Afterwards, no fresh item may be
/// stored or remembered.
async fn assert_nothing_stored(harness: &Harness, delivery: Delivery, outcome: Outcome) {
    let before = harness.stored_ids();
    let answer = harness.deliver_this("batch", delivery.clone()).await;
    assert_eq!((answer.outcome, answer.status.as_u16(), answer.seq), (outcome, 503, None), "{}", answer.hint);
    assert_eq!(harness.stored_ids(), before);
    let again = harness.deliver_this("batch", delivery).await;
    assert_ne!(again.outcome, Duplicate, "a key was remembered without its event");
}

#[tokio::test]
async fn a_failed_write_stores_and_remembers_no_item() {
    let harness = Harness::new();
    assert_eq!(deliver(&harness, &["a"]).await.outcome, Stored);
    harness.disk.fail(Step::Write, ".seg", ErrorKind::Other, 1);
    let failed = deliver(&harness, &["a", "b", "c"]).await;
    assert_eq!((failed.outcome, failed.status.as_u16()), (JournalFailed, 503));
    assert_eq!(harness.stored_ids(), ["a"]);
    assert_eq!(counted(&harness, "batch", Stored), 1, "a failed append counts no item");
    let retry = deliver(&harness, &["a", "b", "c"]).await;
    assert_eq!((retry.outcome, &*retry.hint), (Stored, "batch: 2 items stored, 1 duplicates, 0 filtered"));
    assert_eq!(harness.after_power_cut().stored_ids(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_failed_sync_stores_all_items_or_none() {
    for seed in 0..20 {
        let harness = Harness::with(Plan { seed, ..Plan::default() });
        let (gate, other) = harness.hold_sync().await;
        let waiting = send(&harness, &["a", "b", "c"]).await;
        gate.fail(ErrorKind::Other);
        assert_eq!(outcomes(vec![other, waiting]).await, [JournalFailed; 2]);
        let harness = harness.after_power_cut();
        let stored = harness.stored_ids();
        let of_batch = stored.iter().filter(|id| *id != "another").count();
        assert!([0, 3].contains(&of_batch), "seed {seed}: {stored:?}");
        let expected = if of_batch == 0 { Stored } else { Duplicate };
        assert_eq!(deliver(&harness, &["a", "b", "c"]).await.outcome, expected, "seed {seed}");
    }
}

#[tokio::test]
async fn a_drain_stores_no_item_and_answers_seen_ones() {
    let harness = Harness::new();
    assert_eq!(deliver(&harness, &["a", "b"]).await.outcome, Stored);
    harness.gateway.begin_drain();
    assert_nothing_stored(&harness, batch(&harness, &["b", "c", "d"]), Draining).await;
    assert_eq!(deliver(&harness, &["b", "a"]).await.outcome, Duplicate);
    assert_eq!(deliver(&harness, &[]).await.outcome, Filtered);
    let harness = harness.restarted();
    assert_eq!(deliver(&harness, &["b", "c", "d"]).await.outcome, Stored);
    assert_eq!(harness.stored_ids(), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_hanging_sync_rejects_a_whole_batch() {
    let harness = Harness::with(Plan { deadline: Duration::ZERO, ..Plan::default() });
    assert_eq!(deliver(&harness, &["a"]).await.outcome, Stored);
    let (gate, other) = harness.hold_sync().await;
    assert_nothing_stored(&harness, batch(&harness, &["a", "b"]), Overloaded).await;
    gate.release();
    assert_eq!(other.answer().await.outcome, Stored);
    assert_eq!(deliver(&harness, &["a", "b"]).await.outcome, Stored);
    assert_eq!(harness.stored_ids(), ["a", "another", "b"]);
}

/// A journal with room for a part of the batch must store no part of it.
#[tokio::test]
async fn a_full_journal_stores_and_remembers_no_item() {
    for limits in [
        JournalLimits { max_size: 8 * SEGMENT, ..JournalLimits::default() },
        JournalLimits { max_backlog: 6 * SEGMENT, ..JournalLimits::default() },
    ] {
        let harness = Harness::forwarding(limits);
        assert_eq!(deliver(&harness, &["a"]).await.outcome, Stored);
        let mut fillers = 0;
        while harness.deliver_this("batch", padded(&harness, &[&format!("filler_{fillers}")], 8_000)).await.outcome == Stored {
            fillers += 1;
        }
        assert!(fillers > 10, "only {fillers}");
        let items = || padded(&harness, &["a", "b", "c", "d"], 9_000);
        assert_nothing_stored(&harness, items(), JournalFull).await;
        assert_eq!(deliver(&harness, &["a", "filler_0"]).await.outcome, Duplicate);
        harness.journal.save_cursor("webhooks.batch", harness.journal.durable_watermark(), 1);
        loop {
            match harness.deliver_this("batch", items()).await.outcome {
                Stored => break,
                outcome => assert_eq!(outcome, JournalFull),
            }
        }
        assert_eq!(["b", "c", "d"].map(|id| harness.copies(id)), [1, 1, 1]);
    }
}

#[tokio::test]
async fn an_unreadable_key_file_rejects_no_batch() {
    let harness = Harness::new();
    assert_eq!(deliver(&harness, &["a", "b"]).await.outcome, Stored);
    let harness = harness.with_keys_on_disk();
    harness.disk.fail(Step::Read, ".keys", ErrorKind::Other, 1);
    let delivered = deliver(&harness, &["a", "c", "b", "d"]).await;
    assert_eq!((delivered.outcome, &*delivered.hint), (Stored, "batch: 3 items stored, 1 duplicates, 0 filtered"));
    assert_eq!(harness.stored_ids(), ["a", "b", "a", "c", "d"], "the key of one item was unknown");
    assert_eq!(harness.metrics.journal.damaged.get(), 1);
}

#[tokio::test]
async fn concurrent_overlapping_batches_store_each_item_once() {
    let harness = Harness::new();
    let (gate, other) = harness.hold_sync().await;
    let mut senders = vec![send(&harness, &["a", "b"]).await, send(&harness, &["c", "b"]).await];
    senders.push(send(&harness, &["b", "c", "a"]).await);
    let single = harness.with_body("batch", "", r#"{"id":"c","type":"t"}"#);
    senders.push(harness.send_this("batch", single).await);
    for sender in &mut senders {
        sender.assert_waiting().await;
    }
    gate.release();
    assert_eq!(other.answer().await.outcome, Stored);
    assert_eq!(outcomes(senders).await, [Stored, Stored, Duplicate, Duplicate]);
    assert_eq!(harness.stored_ids(), ["another", "a", "b", "c"]);
}

/// The second delivery waits for an item of the first one, whose append fails. It must not answer with 2xx.
#[tokio::test]
async fn a_batch_is_rejected_if_a_common_item_is_not_stored() {
    let harness = Harness::new();
    let (gate, other) = harness.hold_sync().await;
    let (first, second) = (send(&harness, &["a", "b"]).await, send(&harness, &["b"]).await);
    // The write of the second commit contains only the first batch.
    harness.disk.fail(Step::Write, ".seg", ErrorKind::Other, 1);
    gate.release();
    assert_eq!(outcomes(vec![other, first, second]).await, [Stored, JournalFailed, JournalFailed]);
    assert_eq!(deliver(&harness, &["b", "a"]).await.outcome, Stored);
    assert_eq!(harness.stored_ids(), ["another", "b", "a"]);
}

/// Sends random overlapping batches at the same time while writes fail, and repeats every delivery until it is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_batches_under_faults_store_every_item_once() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let harness = Harness::new();
    let (mut rejected, mut expected) = (0, BTreeMap::new());
    for round in 0..60 {
        let batches: Vec<Vec<String>> = (0..random.usize(2..8))
            .map(|_| (0..random.usize(1..6)).map(|_| format!("{round}-{}", random.u8(..8))).collect())
            .collect();
        if random.bool() {
            harness.disk.fail(Step::Write, ".seg", ErrorKind::Other, random.u64(1..3));
        }
        let deliveries = batches.iter().map(|ids| {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            harness.start("batch", batch(&harness, &ids), far_away()).spawned()
        });
        let answers: Vec<_> = deliveries.collect();
        for (answer, ids) in answers.into_iter().zip(&batches) {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let mut outcome = answer.await.expect("no panic").outcome;
            while !matches!(outcome, Stored | Duplicate) {
                assert_eq!(outcome, JournalFailed, "round {round}");
                rejected += 1;
                outcome = deliver(&harness, &ids).await.outcome;
            }
            expected.extend(ids.iter().map(|id| ((*id).to_owned(), 1)));
        }
        harness.disk.clear_faults();
    }
    let mut copies = BTreeMap::new();
    harness.stored_ids().into_iter().for_each(|id| *copies.entry(id).or_insert(0) += 1);
    assert_eq!(copies, expected);
    assert!(rejected > 5, "only {rejected} rejections");
    assert_eq!(counted(&harness, "batch", Stored), copies.len() as u64);
}

#[tokio::test]
async fn a_batch_beyond_a_limit_is_too_large_and_leaves_no_trace() {
    let harness = Harness::forwarding(JournalLimits { max_size: 8 * SEGMENT, ..JournalLimits::default() });
    let ids: Vec<String> = (0..601).map(|n| format!("{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let too_many = deliver(&harness, &ids).await;
    assert_eq!((too_many.outcome, too_many.status.as_u16()), (TooLarge, 413));
    assert!(too_many.hint.contains("at most 600 items (max_items"), "{}", too_many.hint);
    // 600 items are allowed, but the frames of these items are larger than the journal.
    let too_long = harness.deliver_this("batch", padded(&harness, &ids[..600], 2_000)).await;
    assert_eq!((too_long.outcome, too_long.status.as_u16()), (TooLarge, 413));
    assert!(too_long.hint.contains("raise max_size and max_backlog"), "{}", too_long.hint);
    assert_eq!(harness.stored_ids(), Vec::<String>::new());
    let fits = deliver(&harness, &ids[..600]).await;
    assert_eq!((fits.outcome, fits.seq, commits(&harness)), (Stored, Some(0), 1));
    assert_eq!(harness.stored_ids(), ids[..600]);
}

/// The default of `max_items` is 10,000. The frames are larger than a segment of the usual size.
#[tokio::test]
async fn ten_thousand_items_are_stored_in_one_commit() {
    let harness = Harness::new();
    let items: Vec<String> = (0..10_000).map(|n| format!(r#"{{"id":"{n}","type":"invoice.paid"}}"#)).collect();
    let deliver = async |harness: &Harness, items: &[String]| {
        let body = format!("[{}]", items.join(","));
        harness.deliver_this("picky-batch", harness.with_body("picky-batch", "", body)).await
    };
    assert_eq!((deliver(&harness, &items).await.outcome, commits(&harness)), (Stored, 1));
    assert_eq!(deliver(&harness, &items).await.outcome, Duplicate);
    assert!(harness.stored_ids().iter().eq(&(0..10_000).map(|n| n.to_string()).collect::<Vec<_>>()));
    let harness = harness.with_keys_on_disk();
    let (more, again) = (r#"{"id":"more","type":"invoice.paid"}"#.to_owned(), items[1..].to_vec());
    let answer = deliver(&harness, &[again, vec![more]].concat()).await;
    assert_eq!((answer.outcome, &*answer.hint), (Stored, "batch: 1 items stored, 9999 duplicates, 0 filtered"));
}

#[tokio::test]
async fn an_empty_batch_is_filtered() {
    let harness = Harness::new();
    let answer = deliver(&harness, &[]).await;
    assert_eq!((answer.outcome, answer.status.as_u16(), &answer.body[..]), (Filtered, 202, &b"thanks"[..]));
    assert!(answer.hint.contains("found an empty array"), "{}", answer.hint);
    assert_eq!(deliver_body(&harness, "batch", "\u{feff} [\r\n] \0").await.outcome, Filtered);
    assert_eq!(harness.stored_ids(), Vec::<String>::new());
    assert_eq!(deliver_body(&harness, "whole-batch", "[]").await.outcome, Stored, "without split, the body is the event");
}

#[tokio::test]
async fn items_without_an_id_are_stored_keyless() {
    let harness = Harness::new();
    const ITEMS: &str = r#"[{"type":"t"},{"id":"a"},{"type":"t"},7,"text",null,[{"id":"x"}]]"#;
    let first = deliver_body(&harness, "batch", ITEMS).await;
    assert_eq!((first.outcome, &*first.hint), (Stored, "batch: 7 items stored, 0 duplicates, 0 filtered"));
    let second = deliver_body(&harness, "batch", ITEMS).await;
    assert_eq!((second.outcome, &*second.hint), (Stored, "batch: 6 items stored, 1 duplicates, 0 filtered"));
    assert_eq!((harness.keyless("batch"), harness.copies("a"), harness.copies("")), (12, 1, 12));
}

/// The signed time distinguishes two deliveries, and the index distinguishes two equal items of one delivery.
#[tokio::test]
async fn a_signed_time_identifies_items_without_an_id() {
    let harness = Harness::new();
    let delivery = harness.with_body("timed-batch", "", r#"[{"n":1},{"n":1},{"id":"a"}]"#);
    for (outcome, stored) in [(Stored, 3), (Duplicate, 3)] {
        assert_eq!(harness.deliver_this("timed-batch", delivery.clone()).await.outcome, outcome);
        assert_eq!((harness.stored_ids().len(), harness.keyless("timed-batch")), (stored, 0));
    }
    harness.advance(Duration::from_secs(1));
    let later = harness.with_body("timed-batch", "", delivery.body);
    let answer = harness.deliver_this("timed-batch", later).await;
    assert_eq!((answer.outcome, &*answer.hint), (Stored, "batch: 2 items stored, 1 duplicates, 0 filtered"));
}

#[tokio::test]
async fn an_id_that_occurs_twice_in_a_batch_is_stored_once() {
    let harness = Harness::new();
    harness.disk.fail(Step::Write, ".seg", ErrorKind::Other, 1);
    assert_eq!(deliver(&harness, &["a", "b", "a"]).await.outcome, JournalFailed);
    let answer = deliver(&harness, &["a", "b", "a"]).await;
    assert_eq!((answer.outcome, answer.seq), (Stored, Some(0)));
    assert_eq!(answer.hint, "batch: 2 items stored, 1 duplicates, 0 filtered");
    assert_eq!(deliver(&harness, &["b", "b"]).await.outcome, Duplicate);
    let harness = harness.with_keys_on_disk();
    assert_eq!(deliver(&harness, &["c", "a", "c", "a"]).await.outcome, Stored);
    assert_eq!(harness.stored_ids(), ["a", "b", "c"]);
}

#[tokio::test]
async fn types_filter_each_item() {
    let harness = Harness::new();
    const MIXED: &str = r#"[{"id":"a","type":"invoice.paid"},{"id":"b","type":"charge.paid"},{"id":"c"},
                            {"id":"d","type":"invoice.sent"}]"#;
    let mixed = deliver_body(&harness, "picky-batch", MIXED).await;
    assert_eq!((mixed.outcome, &*mixed.hint), (Stored, "batch: 3 items stored, 0 duplicates, 1 filtered"));
    let again = deliver_body(&harness, "picky-batch", MIXED).await;
    assert_eq!((again.outcome, &*again.hint), (Duplicate, "batch: 0 items stored, 3 duplicates, 1 filtered"));
    let unwanted = deliver_body(&harness, "picky-batch", r#"[{"id":"e","type":"charge.paid"},{"type":"charge.failed"}]"#).await;
    assert_eq!((unwanted.outcome, unwanted.seq), (Filtered, None));
    assert!(unwanted.hint.contains("found charge.paid"), "{}", unwanted.hint);
    assert_eq!(harness.stored_ids(), ["a", "c", "d"]);
    let counts = [Stored, Duplicate, Filtered].map(|outcome| counted(&harness, "picky-batch", outcome));
    assert_eq!(counts, [3, 3, 4]);
    assert_eq!(harness.success_rate("picky-batch"), 1.0);
}

#[tokio::test]
async fn a_batch_counts_once_against_max_rate() {
    let harness = Harness::new();
    assert_eq!(deliver_body(&harness, "rare-batch", r#"[{"id":"a"},{"id":"b"},{"id":"c"}]"#).await.outcome, Stored);
    for _ in 0..2 {
        assert_eq!(deliver_body(&harness, "rare-batch", r#"[{"id":"d"},{"id":"e"}]"#).await.outcome, RateLimited);
    }
    assert_eq!(harness.stored_ids(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_batch_is_stored_although_its_sender_disconnects() {
    let harness = Harness::new();
    let gate = harness.disk.hold(Step::Sync, ".seg");
    drop(send(&harness, &["a", "b"]).await);
    let late = harness.start("batch", batch(&harness, &["b", "c"]), Instant::now()).answer().await;
    assert_eq!((late.outcome, late.status.as_u16()), (Deadline, 503));
    let waiting = send(&harness, &["a", "c"]).await;
    gate.release();
    assert_eq!(waiting.answer().await.outcome, Duplicate, "other deliveries have stored all items");
    assert_eq!(harness.stored_ids(), ["a", "b", "c"]);
    assert_eq!((harness.stored_after_answer(), harness.keyless("batch")), (1, 0), "no delivery waited for b any longer");
    // The same during a lookup in the key files.
    let harness = harness.with_keys_on_disk();
    let lookup = harness.disk.hold(Step::Read, ".keys");
    drop(send(&harness, &["a", "d", "e"]).await);
    lookup.wait_for(1);
    lookup.release();
    while harness.stored_after_answer() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(deliver(&harness, &["d", "e"]).await.outcome, Duplicate);
    assert_eq!(harness.stored_ids(), ["a", "b", "c", "d", "e"]);
}

/// NDJSON and concatenated JSON may hold several arrays. The ids of the first array must not identify such a body.
#[tokio::test]
async fn a_second_array_makes_another_event() {
    const BODIES: [&str; 4] = [
        "[{\"id\":\"a\",\"type\":\"t\"}]\n[{\"id\":\"b\",\"type\":\"invoice.paid\"}]",
        "[{\"id\":\"a\",\"type\":\"t\"}]\n[{\"id\":\"c\",\"type\":\"invoice.paid\"}]",
        "[{\"id\":\"a\",\"type\":\"t\"}] {\"id\":\"b\"}",
        "{\"id\":\"a\",\"type\":\"t\"}\n{\"id\":\"c\",\"type\":\"invoice.paid\"}",
    ];
    for source in ["batch", "whole-batch", "picky-batch"] {
        let harness = Harness::new();
        for body in BODIES {
            assert_eq!(deliver_body(&harness, source, body).await.outcome, Stored, "{source}: {body}");
        }
        assert_eq!(harness.stored_ids(), [""; 4], "{source}: a consumer must not take the events for one");
        assert_eq!(harness.keyless(source), 4);
        let single = deliver_body(&harness, source, "[{\"id\":\"a\",\"type\":\"invoice.paid\"}] }\0").await;
        assert_eq!((single.outcome, harness.copies("a")), (Stored, 1), "{source}: no item can follow");
    }
}
