//! Tests the server over real sockets. Each test sends raw request bytes, reads raw response bytes, and checks that every
//! request has exactly one outcome.

mod batches;
mod challenges;
mod closing;
#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/h2.rs"]
mod h2;
#[path = "../common/h2_frames.rs"]
mod h2_frames;
mod harness;
#[path = "../common/https.rs"]
mod https;
mod malformed;
#[path = "../common/malformed.rs"]
mod malformed_requests;
mod rejections;
#[path = "../common/sdk.rs"]
mod sdk;
mod secure;
mod shadow;

use hookhold::limits::ServerLimits;
use tokio::task::yield_now;

use harness::{BODY, Harness, chunked, expecting, post, split_at_body, without_date};

#[tokio::test]
async fn a_delivery_and_its_duplicate_get_the_same_bytes() {
    let harness = Harness::open(ServerLimits::default());
    let mut line = harness.line().await;
    let first = line.ask(post(BODY)).await;
    assert_eq!(without_date(&first), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(without_date(&first), without_date(&line.ask(post(BODY)).await));
    assert_eq!(harness.accepted(), 2);
    assert_eq!(harness.timed("stripe"), 2);
}

#[tokio::test]
async fn an_accepted_head_gets_100_continue_before_its_body() {
    let harness = Harness::open(ServerLimits::default());
    let mut line = harness.line().await;
    let (head, body) = split_at_body(&expecting(&post(BODY)));
    assert_eq!(line.ask(head).await, "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(line.ask(body).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn requests_may_be_split_at_any_byte() {
    let harness = Harness::open(ServerLimits::default());
    for request in [post(BODY), chunked(BODY)] {
        for at in 1..request.len() {
            let mut line = harness.line().await;
            line.send(&request[..at]).await;
            yield_now().await;
            assert!(line.ask(&request[at..]).await.starts_with("HTTP/1.1 200 "), "split at {at}");
        }
        let mut line = harness.line().await;
        for byte in request.as_bytes() {
            line.send([*byte]).await;
            yield_now().await;
        }
        assert!(line.answer().await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let harness = Harness::open(ServerLimits::default());
    let mut line = harness.line().await;
    let get = "GET /hooks/stripe HTTP/1.1\r\nhost: h\r\n\r\n";
    line.send(post(BODY) + &chunked(BODY) + get + &post(BODY)).await;
    for status in ["200", "200", "405", "200"] {
        assert_eq!(line.answer().await.split(' ').nth(1), Some(status));
    }
}
