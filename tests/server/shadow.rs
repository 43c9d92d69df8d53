//! A source in shadow: its sender hears ok whatever happens, and nobody who reads metrics or log is deceived.

use std::time::Duration;

use hookhold::limits::ServerLimits;
use tokio::time::sleep;

use crate::harness::{self, BODY, Harness, MAX_BODY, chunked, now, post, post_as_of, split_at_body, without_date};

const THANKS: &str = "HTTP/1.1 202 Accepted\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nthanks";

#[tokio::test]
async fn in_shadow_everybody_hears_ok_and_the_true_outcomes_are_counted() {
    let harness = Harness::shadowed(ServerLimits::default());
    let genuine = post(BODY);
    let (chunked_head, _) = split_at_body(&chunked(""));
    let cases = [
        (genuine.clone(), "stored"),
        (genuine.clone(), "duplicate"),
        (genuine.replacen("charge.succeeded", "charge.refunded!", 1), "signature_mismatch"),
        (post_as_of(now() - 400, BODY), "timestamp_stale"),
        (post_as_of(now() + 4000, BODY), "timestamp_future"),
        (genuine.replacen("v1=", "v9=", 1), "signature_malformed"),
        (genuine.replacen("stripe-signature", "x", 1), "signature_missing"),
        (genuine.replacen("POST", "GET", 1), "method_not_allowed"),
        (post(&"x".repeat(MAX_BODY + 1)), "too_large"),
        (chunked_head + "zz\r\n", "bad_request"),
    ];
    for (request, outcome) in &cases {
        let before = harness.count("stripe", outcome);
        assert_eq!(heard(&harness, request).await, THANKS, "{outcome}: {request}");
        assert_eq!(harness.count("stripe", outcome), before + 1, "{request}");
    }
    assert_eq!((harness.accepted(), harness.rejections()), (2, cases.len() as u64 - 2));
    assert_eq!(harness.kept(), 1);
    let stray = harness.line().await.ask(genuine.replacen("/hooks/stripe", "/hooks/other", 1)).await;
    assert!(stray.starts_with("HTTP/1.1 404 "), "only its own path is in shadow: {stray}");
    let log = harness::logged();
    let refused = |line: &&str| line.contains("outcome=\"signature_missing\" status=202");
    assert_eq!(log.lines().filter(refused).count(), 1, "the log has the true outcome and what was sent: {log}");
}

#[tokio::test]
async fn in_shadow_neither_our_own_trouble_nor_a_slow_sender_is_seen() {
    let harness = Harness::shadowed(ServerLimits { max_in_flight: 10, ..ServerLimits::default() });
    assert_eq!(heard(&harness, &post(BODY)).await, THANKS, "no Retry-After either");
    assert_eq!((harness.count("stripe", "overloaded"), harness.kept()), (1, 0));
    let harness = Harness::shadowed(ServerLimits { request_deadline: Duration::from_millis(30), ..ServerLimits::default() });
    assert_eq!(heard(&harness, &post(BODY)[..post(BODY).len() - 1]).await, THANKS);
    assert_eq!((harness.count("stripe", "too_slow"), harness.kept()), (1, 0));
}

#[tokio::test]
async fn in_shadow_a_check_of_the_endpoint_gets_its_own_reply() {
    let harness = Harness::shadowed(ServerLimits::default());
    let check = post(r#"{"type":"check","challenge":"c-1"}"#);
    assert_eq!(heard(&harness, &check).await, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nc-1");
    assert_eq!((harness.count("stripe", "challenge"), harness.kept()), (1, 0));
}

#[tokio::test]
async fn a_shadow_is_warned_of_at_the_start_and_once_a_minute() {
    let harness = Harness::shadowed(ServerLimits::default());
    for _ in 0..10 {
        assert!(harness.line().await.ask(post(BODY)).await.contains(" 202 "));
    }
    let warnings = || harness::logged().matches("danger_shadow is on").count();
    assert_eq!(warnings(), 1, "not once per delivery: {}", harness::logged());
    tokio::time::pause();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(warnings(), 3, "{}", harness::logged());
    assert!(harness::logged().contains("sources=stripe"), "{}", harness::logged());
}

#[tokio::test]
async fn without_a_shadow_nothing_is_warned_of() {
    let harness = Harness::open(ServerLimits::default());
    assert!(harness.line().await.ask(post(BODY)).await.contains(" 200 "));
    assert!(!harness::logged().contains("danger_shadow"));
}

/// The answer to one request on a connection of its own, whether or not that goes on.
async fn heard(harness: &Harness, request: &str) -> String {
    without_date(&harness.line().await.ask(request).await).replace("connection: close\r\n", "")
}
