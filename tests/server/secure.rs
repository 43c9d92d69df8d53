//! Tests the server with TLS: clients that disconnect from an HTTP/2 connection, and a certificate renewal during a
//! reload.

use hookhold::limits::ServerLimits;
use hookhold::units::Rate;
use tokio::runtime::Runtime;
use tokio::spawn;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, pause};

use crate::disk::Step;
use crate::h2::Client;
use crate::harness::{BODY, Harness, now, signature};
use crate::https::{Pair, served_fingerprint};

#[tokio::test]
async fn an_http_2_disconnect_loses_no_complete_delivery() {
    let pair = Pair::new(365);
    let harness = Harness::secure(ServerLimits::default(), pair.files());
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let (sender, address) = (Runtime::new().expect("a runtime can be built"), harness.address());
    let open = sender.spawn(async move {
        let mut client = Client::connect(address, &pair).await;
        let signed = [("stripe-signature".to_owned(), signature(now(), BODY))];
        let mut partial = client.post("/hooks/stripe", &signed, BODY.len()).await;
        partial.send(&BODY[1..]).await;
        let mut whole = client.post("/hooks/stripe", &signed, BODY.len()).await;
        whole.send(BODY).await;
        (client, partial, whole)
    });
    harness.until(|_| gate.has_waiting()).await;
    let open = open.await.expect("no panic");
    sender.shutdown_background();
    drop(open);
    // Once the metrics count the partial request as `disconnected`, the server has processed the disconnect.
    harness.until(|harness| harness.count("stripe", "disconnected") > 0).await;
    gate.release();
    harness.until(|harness| harness.accepted() + harness.rejections() == 2).await;
    assert_eq!((harness.count("stripe", "stored"), harness.stored()), (1, 1));
}

#[tokio::test]
async fn an_http_2_delivery_whose_sync_hangs_gets_503_at_its_deadline() {
    let pair = Pair::new(365);
    let harness = Harness::secure(ServerLimits::default(), pair.files());
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let mut client = Client::connect(harness.address(), &pair).await;
    let signed = [("stripe-signature".to_owned(), signature(now(), BODY))];
    let asked = spawn(async move { client.ask("POST", "/hooks/stripe", &signed, BODY).await.status() });
    harness.until(|_| gate.has_waiting()).await;
    // The clock of the timers stops here, and moves to the next timer whenever all tasks wait.
    pause();
    let start = Instant::now();
    assert_eq!(asked.await.expect("no panic"), 503);
    assert!(start.elapsed() <= ServerLimits::default().request_deadline, "{:?}", start.elapsed());
    assert_eq!(harness.count("stripe", "deadline"), 1);
    gate.release();
}

#[tokio::test]
async fn a_reload_does_not_undo_a_concurrent_certificate_renewal() {
    let (pair, next) = (Pair::new(365), Pair::new(365));
    // To read the fingerprint, the test makes a handshake without a request. The server counts each such handshake as a
    // rejection.
    let limits = ServerLimits { max_rejected_per_address: Rate::parse("1000000/s").expect("a rate"), ..ServerLimits::default() };
    let harness = Harness::secure(limits, pair.files());
    let until_served = async |expected: String| {
        let address = harness.address();
        while spawn_blocking(move || served_fingerprint(address)).await.expect("no panic") != expected {}
    };
    let old = pair.files().read().expect("a usable certificate");
    pair.replace_with(&next.cert(), &next.key());
    until_served(next.fingerprint()).await;
    harness.service.tls().expect("TLS is on").replace(pair.files(), old);
    until_served(next.fingerprint()).await;
}
