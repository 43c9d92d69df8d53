//! Tests of deliveries whose verification takes long and therefore runs on another thread: compressed and very large bodies.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hookhold::event::Delivery;
use hookhold::in_flight::{InFlightBudget, InFlightCharge};
use hookhold::outcome::Outcome::*;
use hookhold::verify::UnreadBody;
use http::HeaderValue;
use tokio::time::Instant;

use crate::harness::*;

fn body(id: &str, size: usize) -> String {
    format!(r#"{{"id":"{id}","type":"charge.succeeded","x":"{}"}}"#, "x".repeat(size))
}

/// Returns a delivery to the source `stripe` with a body of a little more than `size` bytes.
fn plain(harness: &Harness, id: &str, size: usize) -> Delivery {
    harness.with_body("stripe", "", body(id, size))
}

/// Like [`plain`], but compresses the body.
fn compressed(harness: &Harness, id: &str, size: usize) -> Delivery {
    let body = body(id, size);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body.as_bytes()).expect("memory");
    let mut delivery = harness.with_body("stripe", "", encoder.finish().expect("memory"));
    delivery.headers.insert("content-encoding", HeaderValue::from_static("gzip"));
    delivery
}

fn unread(harness: &Harness, reason: UnreadBody) -> u64 {
    harness.metrics.deliveries.unread_bodies.with_label_values(&["stripe", reason.word()]).get()
}

#[tokio::test]
async fn long_deliveries_are_stored_once() {
    let harness = Harness::new();
    for (id, delivery) in [("evt_1", compressed(&harness, "evt_1", 10)), ("evt_2", plain(&harness, "evt_2", 4 << 20))] {
        assert!(harness.source("stripe").verifier.is_long(&delivery), "{id}");
        assert_eq!(harness.deliver_this("stripe", delivery.clone()).await.outcome, Stored, "{id}");
        assert_eq!(harness.deliver_this("stripe", delivery).await.outcome, Duplicate, "{id}");
        let small = plain(&harness, id, 0);
        assert!(!harness.source("stripe").verifier.is_long(&small));
        assert_eq!(harness.deliver_this("stripe", small).await.outcome, Duplicate, "{id}: the same id, but not long");
    }
    assert_eq!(harness.stored_ids(), ["evt_1", "evt_2"]);
}

#[tokio::test]
async fn a_long_forgery_is_rejected() {
    let harness = Harness::new();
    let forged = Delivery { body: compressed(&harness, "evt_1", 11).body, ..compressed(&harness, "evt_1", 10) };
    assert_eq!(harness.deliver_this("stripe", forged).await.outcome, SignatureMismatch);
    assert_eq!(harness.stored_ids().len(), 0);
}

/// The sender disconnects after its last byte, while another thread verifies the delivery.
#[tokio::test]
async fn a_disconnect_does_not_cancel_a_long_delivery() {
    let harness = Harness::new();
    for delivery in [compressed(&harness, "evt_1", 10), plain(&harness, "evt_2", 4 << 20)] {
        let (first_poll, mut sender) = (harness.stored_ids().len(), harness.start("stripe", delivery, far_away()));
        sender.poll_once().await;
        drop(sender);
        while harness.stored_ids().len() == first_poll {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(harness.stored_ids(), ["evt_1", "evt_2"]);
    assert_eq!(harness.deliver_this("stripe", plain(&harness, "evt_1", 0)).await.outcome, Duplicate);
}

#[tokio::test]
async fn a_long_delivery_keeps_its_deadline() {
    let harness = Harness::new();
    let (gate, other) = harness.hold_sync().await;
    let deadline = Instant::now() + Duration::from_millis(20);
    let answer = harness.start("stripe", compressed(&harness, "evt_late", 10), deadline).answer().await;
    assert_eq!(answer.outcome, Deadline);
    gate.release();
    assert_eq!(other.answer().await.outcome, Stored);
    let retry = harness.deliver_this("stripe", plain(&harness, "evt_late", 0)).await.outcome;
    assert_eq!(retry, Duplicate, "it is stored nevertheless");
}

#[tokio::test]
async fn an_unread_body_is_stored_and_counted() {
    let harness = Harness::new();
    let max_body = harness.source("stripe").source.max_body;
    let too_large = compressed(&harness, "evt_1", max_body);
    assert_eq!(harness.deliver_this("stripe", too_large.clone()).await.outcome, Stored);
    assert_eq!(harness.deliver_this("stripe", too_large).await.outcome, Duplicate, "an exact replay");
    assert_eq!((harness.stored_ids(), harness.keyless("stripe")), (vec![String::new()], 0));
    assert_eq!((unread(&harness, UnreadBody::TooLarge), unread(&harness, UnreadBody::NoMemory)), (2, 0));

    let delivery = compressed(&harness, "evt_2", 1 << 20);
    let size = delivery.body.len() + (1 << 20);
    let [small, address, large] = [size, usize::MAX, usize::MAX].map(InFlightBudget::new);
    for (server, ids) in [(&small, &["", ""][..]), (&large, &["", "", "evt_2"])] {
        let mut charge = InFlightCharge::new(server, &address);
        charge.add(delivery.body.len()).expect("the body fits");
        let source = harness.source("stripe");
        let answer = harness.gateway.receive(&source, delivery.clone(), terms(far_away()), &mut charge, |_, _| ()).await;
        assert_eq!(answer.outcome, Stored, "without its id, the first copy is another event");
        assert_eq!(
            (harness.stored_ids(), unread(&harness, UnreadBody::NoMemory)),
            (ids.iter().map(|id| id.to_string()).collect(), 1)
        );
    }
    assert_eq!(InFlightCharge::new(&small, &address).add(size), Ok(()), "all memory is free again");
}

/// A forger that disconnects after its last byte, or whose deadline passes, must not escape the charge for its work.
#[tokio::test]
async fn the_work_of_an_unanswered_rejection_is_reported() {
    let harness = Harness::new();
    let genuine = plain(&harness, "evt_1", 4 << 20);
    let forged = Delivery { body: plain(&harness, "evt_2", 4 << 20).body, ..genuine.clone() };
    let (sender, mut reports) = tokio::sync::mpsc::unbounded_channel();
    for (what, delivery, deadline) in
        [("disconnected", &forged, far_away()), ("deadline", &forged, Instant::now()), ("genuine", &genuine, far_away())]
    {
        let (source, sender) = (harness.source("stripe"), sender.clone());
        let [server, address] = [usize::MAX; 2].map(InFlightBudget::new);
        let mut charge = InFlightCharge::new(&server, &address);
        let unanswered = move |outcome, work| sender.send((what, outcome, work)).expect("the test waits");
        let mut received = Box::pin(harness.gateway.receive(&source, delivery.clone(), terms(deadline), &mut charge, unanswered));
        std::future::poll_fn(|context| {
            let _ = received.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    drop(sender);
    let work = "1700000000.".len() + forged.body.len();
    let mut all = vec![reports.recv().await, reports.recv().await];
    all.sort_by_key(|report| report.map(|(what, ..)| what));
    let report = |what| Some((what, SignatureMismatch, work));
    assert_eq!(all, [report("deadline"), report("disconnected")]);
    assert_eq!(reports.recv().await, None, "a genuine delivery never counts");
}
