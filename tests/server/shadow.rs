//! Tests a source in shadow mode. Every response of this source must have a success status, but the metrics and the log must
//! show the true outcome of each delivery.

use std::time::Duration;

use hookhold::limits::ServerLimits;
use tokio::time::sleep;

use crate::harness::{self, BODY, Harness, MAX_BODY, chunked, now, post, post_as_of, split_at_body, without_date};

const THANKS: &str =
    "HTTP/1.1 202 Accepted\r\ncontent-type: text/plain\r\nx-content-type-options: nosniff\r\ncontent-length: 6\r\n\r\nthanks";

#[tokio::test]
async fn shadow_answers_ok_and_records_the_true_outcome() {
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
        assert_eq!(response_to(&harness, request).await, THANKS, "{outcome}: {request}");
        assert_eq!(harness.count("stripe", outcome), before + 1, "{request}");
    }
    assert_eq!((harness.accepted(), harness.rejections()), (2, cases.len() as u64 - 2));
    assert_eq!(harness.stored(), 1);
    let unknown = harness.line().await.ask(genuine.replacen("/hooks/stripe", "/hooks/other", 1)).await;
    assert!(unknown.starts_with("HTTP/1.1 404 "), "a path without a source is not in shadow: {unknown}");
    let log = harness::logged();
    let rejected = |line: &&str| line.contains("outcome=\"signature_missing\" status=202");
    assert_eq!(log.lines().filter(rejected).count(), 1, "the log has the true outcome and the status that was sent: {log}");
}

#[tokio::test]
async fn shadow_hides_overload_and_slow_requests_from_senders() {
    let harness = Harness::shadowed(ServerLimits { max_in_flight: 10, ..ServerLimits::default() });
    assert_eq!(response_to(&harness, &post(BODY)).await, THANKS, "the response has no Retry-After");
    assert_eq!((harness.count("stripe", "overloaded"), harness.stored()), (1, 0));
    let harness = Harness::shadowed(ServerLimits { request_deadline: Duration::from_millis(30), ..ServerLimits::default() });
    assert_eq!(response_to(&harness, &post(BODY)[..post(BODY).len() - 1]).await, THANKS);
    assert_eq!((harness.count("stripe", "too_slow"), harness.stored()), (1, 0));
}

#[tokio::test]
async fn in_shadow_an_endpoint_challenge_gets_its_own_reply() {
    let harness = Harness::shadowed(ServerLimits::default());
    let challenge = post(r#"{"type":"check","challenge":"c-1"}"#);
    let reply = response_to(&harness, &challenge).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nc-1"), "{reply}");
    assert_eq!((harness.count("stripe", "challenge"), harness.stored()), (1, 0));
}

#[tokio::test]
async fn shadow_is_logged_at_the_start_and_every_minute() {
    let harness = Harness::shadowed(ServerLimits::default());
    for _ in 0..10 {
        assert!(harness.line().await.ask(post(BODY)).await.contains(" 202 "));
    }
    let warnings = || harness::logged().matches("danger_shadow is on").count();
    assert_eq!(warnings(), 1, "the warning is logged once, not per delivery: {}", harness::logged());
    tokio::time::pause();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(warnings(), 3, "{}", harness::logged());
    assert!(harness::logged().contains("sources=stripe"), "{}", harness::logged());
}

#[tokio::test]
async fn without_shadow_no_warning_is_logged() {
    let harness = Harness::open(ServerLimits::default());
    assert!(harness.line().await.ask(post(BODY)).await.contains(" 200 "));
    assert!(!harness::logged().contains("danger_shadow"));
}

/// Sends one request on a new connection. Returns the response without the header fields `Date` and `Connection: close`.
async fn response_to(harness: &Harness, request: &str) -> String {
    without_date(&harness.line().await.ask(request).await).replace("connection: close\r\n", "")
}
