//! Behind TLS: who leaves when over HTTP/2, and which certificate is served after a reload.

use hookhold::limits::ServerLimits;
use hookhold::units::Rate;
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;

use crate::disk::Step;
use crate::h2::Client;
use crate::harness::{BODY, Harness, now, signature};
use crate::https::{Pair, served};

#[tokio::test]
async fn an_http_2_sender_that_hangs_up_while_its_event_is_being_written_has_delivered() {
    let pair = Pair::new(365);
    let harness = Harness::secure(ServerLimits::default(), pair.files());
    let gate = harness.disk.hold(Step::Sync, ".seg");
    let (sender, address) = (Runtime::new().expect("a runtime can be built"), harness.address());
    let under_way = sender.spawn(async move {
        let mut client = Client::connect(address, &pair).await;
        let signed = [("stripe-signature".to_owned(), signature(now(), BODY))];
        let mut half = client.ask("/hooks/stripe", &signed, BODY.len()).await;
        half.send(&BODY[1..]).await;
        let mut whole = client.ask("/hooks/stripe", &signed, BODY.len()).await;
        whole.send(BODY).await;
        (client, half, whole)
    });
    harness.until(|_| gate.has_waiting()).await;
    let under_way = under_way.await.expect("no panic");
    sender.shutdown_background();
    drop(under_way);
    // The other request tells that the server has noticed.
    harness.until(|harness| harness.count("stripe", "disconnected") > 0).await;
    gate.release();
    harness.until(|harness| harness.accepted() + harness.rejections() == 2).await;
    assert_eq!((harness.count("stripe", "stored"), harness.kept()), (1, 1));
}

#[tokio::test]
async fn a_reload_that_read_its_certificate_before_the_renewal_does_not_undo_it() {
    let (pair, next) = (Pair::new(365), Pair::new(365));
    // Each look at the certificate is a handshake without a request.
    let limits = ServerLimits { max_rejected_per_address: Rate::parse("1000000/s").expect("a rate"), ..ServerLimits::default() };
    let harness = Harness::secure(limits, pair.files());
    let until_served = async |wanted: String| {
        let address = harness.address();
        while spawn_blocking(move || served(address)).await.expect("no panic") != wanted {}
    };
    let former = pair.files().read().expect("it can be served");
    pair.become_like(&next.cert(), &next.key());
    until_served(next.fingerprint()).await;
    harness.service.tls().expect("it speaks TLS").replace(pair.files(), former);
    until_served(next.fingerprint()).await;
}
