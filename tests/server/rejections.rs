//! Tests the server's limits. If a request exceeds a limit, the server must send the response for that limit and count the
//! rejection.

use std::time::Duration;

use hookhold::limits::ServerLimits;
use hookhold::server::MAX_TARGET_BYTES;
use tokio::time::{pause, resume};

use crate::harness::{self, BODY, Harness, MAX_BODY, chunked, expecting, logged, post, split_at_body};

#[tokio::test]
async fn early_rejections_do_not_wait_for_the_body() {
    let harness = Harness::open(ServerLimits::default());
    let signed = |code: &str| format!("POST /hooks/stripe HTTP/1.1\r\nstripe-signature: t=1,v1={code}\r\ncontent-length: 4097");
    let (readable, unreadable) = (signed(&"00".repeat(32)), signed("zz"));
    let cases = [
        ("POST /unknown HTTP/1.1\r\ncontent-length: 10", "404", "-", "unknown_source"),
        ("PUT /hooks/stripe HTTP/1.1\r\ncontent-length: 10", "405", "stripe", "method_not_allowed"),
        ("POST /hooks/stripe HTTP/1.1\r\ncontent-length: 10", "401", "stripe", "signature_missing"),
        (&readable, "413", "stripe", "too_large"),
        (&unreadable, "401", "stripe", "signature_malformed"),
    ];
    for (head, status, source, outcome) in cases {
        let answer = harness.line().await.ask(format!("{head}\r\nhost: h\r\nexpect: 100-continue\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(answer.contains("allow: POST\r\n"), outcome == "method_not_allowed", "{answer}");
        assert_eq!(harness.count(source, outcome), 1, "{source} {outcome}");
    }
}

#[tokio::test]
async fn the_outcome_does_not_depend_on_the_arrival_of_a_small_body() {
    let harness = Harness::open(ServerLimits::default());
    let (genuine_head, body) = split_at_body(&post(BODY));
    let without_signature: String =
        genuine_head.split_inclusive("\r\n").filter(|line| !line.starts_with("stripe-signature")).collect();
    let heads = [
        (without_signature, "signature_missing"),
        (genuine_head.replace("v1=", "v1=zz"), "signature_malformed"),
        (genuine_head.replace("v1=", "v0="), "signature_malformed"),
    ];
    let mut rejected = 0;
    for (head, outcome) in heads {
        let before = harness.count("stripe", outcome);
        // Without its body, a request with such a head must not wait. With its body, it arrives in one segment.
        for request in [head.clone(), format!("{head}{body}")] {
            let answer = harness.line().await.ask(request).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{head}: {answer}");
            rejected += 1;
        }
        assert_eq!(harness.count("stripe", outcome), before + 2, "{head}");
    }
    assert_eq!(harness.rejections(), rejected);
}

#[tokio::test]
async fn a_sender_receives_its_rejection_while_it_keeps_sending() {
    let harness = Harness::open(ServerLimits::default());
    let mut line = harness.line().await;
    line.send("POST /unknown HTTP/1.1\r\nhost: h\r\ncontent-length: 4000000\r\n\r\n").await;
    assert!(line.end(vec![b'x'; 4_000_000]).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_body_over_max_body_is_rejected_while_streaming() {
    let harness = Harness::open(ServerLimits::default());
    let largest = "x".repeat(MAX_BODY);
    assert!(harness.line().await.ask(post(&largest)).await.contains(" 200 "));
    assert!(harness.line().await.ask(chunked(&largest)).await.contains(" 200 "));
    let (head, _) = split_at_body(&chunked(""));
    let answer = harness.line().await.ask(format!("{head}1001\r\n{largest}x")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(harness.count("stripe", "too_large"), 1);
}

#[tokio::test]
async fn bodies_beyond_max_in_flight_are_rejected_as_overloaded() {
    let (harness, gate) = Harness::held(ServerLimits { max_in_flight: 1000, ..ServerLimits::default() });
    let answer = harness.line().await.ask(post(&"x".repeat(1001))).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 30\r\n"), "{answer}");
    let mut complete = harness.line().await;
    complete.send(post(&"x".repeat(600))).await;
    harness.until(|_| gate.has_waiting()).await;
    assert!(harness.line().await.ask(post(&"x".repeat(600))).await.contains(" 503 "), "a complete body stays");
    gate.release();
    assert!(complete.answer().await.contains(" 200 "));
    assert!(harness.line().await.ask(post(&"x".repeat(1000))).await.contains(" 200 "));
    assert_eq!(harness.count("stripe", "overloaded"), 2);
}

#[tokio::test]
async fn an_unfinished_body_makes_room_for_a_newer_one_in_the_server() {
    let harness = Harness::open(ServerLimits { max_in_flight: 1000, ..ServerLimits::default() });
    let (head, body) = split_at_body(&expecting(&post(&"x".repeat(1000))));
    let mut slow = harness.line().await;
    assert!(slow.ask(head).await.contains(" 100 "));
    slow.send(&body[..700]).await;
    while harness.count("stripe", "rate_limited") == 0 {
        assert!(harness.line().await.ask(post(&"x".repeat(600)).replacen("\r\n\r\nx", "\r\n\r\ny", 1)).await.contains(" 401 "));
    }
    assert!(slow.rest().await.starts_with("HTTP/1.1 429 "));
    assert_eq!(harness.count("stripe", "overloaded"), 0);
}

#[tokio::test]
async fn a_body_of_very_many_small_chunks_is_rejected_as_too_large() {
    let harness = Harness::open(ServerLimits::default());
    let body = "x".repeat(4000);
    let head = |body: &str| split_at_body(&chunked(body)).0;
    let tiny: String = body.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
    assert!(harness.line().await.ask(format!("{}{tiny}0\r\n\r\n", head(&body))).await.contains(" 200 "), "few are accepted");
    let (name, secret) = ("large", "whsec_only_for_tests");
    let harness = Harness::with_sources(&[(name, secret, "provider = \"stripe\"\nmax_body = \"1 MiB\"")], None);
    let tiny = "1\r\nx\r\n".repeat(1 << 20);
    let answer = harness.line().await.end(format!("{}{tiny}", head("").replace("/stripe", "/large"))).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(harness.count(name, "too_large"), 1);
    assert!(logged().contains("body: expected at most 16384 chunks"), "{}", logged());
}

#[tokio::test]
async fn max_header_size_and_max_headers_limit_request_heads() {
    for (max_header_size, max_headers) in [(32 << 10, 100), (8 << 10, 10)] {
        let harness = Harness::open(ServerLimits { max_header_size, max_headers, ..ServerLimits::default() });
        assert!(harness.line().await.ask(with_head_of(max_header_size)).await.contains(" 200 "));
        assert!(harness.line().await.ask(with_fields(max_headers)).await.contains(" 200 "));
        let too_much = [with_head_of(max_header_size + 1), with_fields(max_headers + 1)];
        for (before, request) in too_much.into_iter().enumerate() {
            let answer = harness.line().await.end(request).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
            assert_eq!(harness.count("-", "bad_request"), before as u64 + 1);
        }
    }
    let defaults = ServerLimits::default();
    assert_eq!((defaults.max_header_size, defaults.max_headers), (32 << 10, 100));
}

fn with_head_of(length: usize) -> String {
    let padding = length - (post(BODY).len() - BODY.len()) - "x: \r\n".len();
    post(BODY).replacen("\r\n", &format!("\r\nx: {}\r\n", "x".repeat(padding)), 1)
}

fn with_fields(count: usize) -> String {
    let missing = count - (post(BODY).matches("\r\n").count() - 2);
    post(BODY).replacen("\r\n", &format!("\r\n{}", "x: y\r\n".repeat(missing)), 1)
}

#[tokio::test]
async fn a_request_target_has_at_most_8_kib() {
    let harness = Harness::open(ServerLimits::default());
    let target = |length: usize| format!("/hooks/stripe?{}", "x".repeat(length - "/hooks/stripe?".len()));
    let request = |length: usize| post(BODY).replacen("/hooks/stripe", &target(length), 1);
    assert!(harness.line().await.ask(request(MAX_TARGET_BYTES)).await.contains(" 200 "));
    assert!(harness.line().await.ask(request(MAX_TARGET_BYTES + 1)).await.contains(" 414 "));
    assert_eq!(harness.count("stripe", "bad_request"), 1);
}

#[tokio::test]
async fn a_malformed_request_is_answered_and_counted() {
    let harness = Harness::open(ServerLimits::default());
    let malformed = [
        "not a request\r\n\r\n",
        "POST /hooks/stripe HTTP/9.9\r\n\r\n",
        "POST /hooks/stripe HTTP/1.1\r\nno colon\r\n\r\n",
        "POST /hooks/stripe HTTP/1.1\r\ncontent-length: ten\r\n\r\n",
        "POST /hooks/stripe HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST /hooks/stripe HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        "POST /hooks/stripe HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for (before, request) in malformed.into_iter().enumerate() {
        let answer = harness.line().await.end(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert_eq!(harness.count("-", "bad_request"), before as u64 + 1, "{request}");
    }
}

#[tokio::test]
async fn a_malformed_chunk_gets_400_for_its_source() {
    let harness = Harness::open(ServerLimits::default());
    let (head, _) = split_at_body(&chunked(""));
    for (before, body) in ["zz\r\n", "3\r\nabcd\r\n", "3;\nabc"].into_iter().enumerate() {
        let answer = harness.line().await.end(head.clone() + body).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body}: {answer}");
        assert_eq!(harness.count("stripe", "bad_request"), before as u64 + 1, "{body}");
    }
}

#[tokio::test]
async fn incomplete_heads_and_bodies_get_408_at_the_deadline() {
    let harness = Harness::open(ServerLimits { request_deadline: Duration::from_millis(30), ..ServerLimits::default() });
    for (sent, source) in [(10, "-"), (post(BODY).len() - 1, "stripe")] {
        let answer = harness.line().await.end(&post(BODY)[..sent]).await;
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert!(answer.contains("connection: close\r\n") && answer.contains("date: "), "{answer}");
        assert_eq!(harness.count(source, "too_slow"), 1);
    }
    assert_eq!(harness.rejections(), 2);
}

#[tokio::test]
async fn the_shorter_deadline_of_a_source_applies() {
    let harness = Harness::with_deadline(Duration::from_millis(30));
    let answer = harness.line().await.end(&post(BODY)[..post(BODY).len() - 1]).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(harness.count("stripe", "too_slow"), 1);
}

#[tokio::test]
async fn a_delivery_whose_sync_hangs_gets_503_at_its_deadline() {
    let (harness, gate) = Harness::held(ServerLimits::default());
    let mut line = harness.line().await;
    line.send(post(BODY)).await;
    harness.until(|_| gate.has_waiting()).await;
    // The clock of the timers stops here, and moves to the next timer whenever all tasks wait.
    pause();
    let answer = line.answer().await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(harness.count("stripe", "deadline"), 1);
    resume();
    gate.release();
    assert!(line.ask(post(BODY)).await.contains(" 200 "), "the connection stays open");
}

#[tokio::test]
async fn rejections_are_logged_with_sender_and_reason_without_secrets() {
    let harness = Harness::open(ServerLimits::default());
    for _ in 0..20 {
        let request = post("hunter2").replacen("/hooks/stripe", "/hooks/\u{202e}other?token=hunter2", 1);
        assert!(harness.line().await.ask(request).await.contains(" 404 "));
    }
    assert_eq!(harness.count("-", "unknown_source"), 20);
    let text = harness::logged();
    let rejected: Vec<&str> = text.lines().filter(|line| line.contains("rejected")).collect();
    assert!(rejected.len() >= 5, "{text}");
    assert_eq!(rejected.len() as u64 + harness.metrics.deliveries.rejected_log_suppressed.get(), 20);
    for word in ["unknown_source", "remote=127.0.0.1:", "found /hooks/\\u{202e}other"] {
        assert!(rejected.iter().all(|line| line.contains(word)), "{word}: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}
