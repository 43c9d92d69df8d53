//! Sends malformed requests as raw bytes. Each request must get the expected answer and exactly one outcome, and must not affect
//! later connections.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use hookhold::limits::ServerLimits;
use hookhold::outcome::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::h2::{Client, tls_connection};
use crate::h2_frames::{Frame, GOAWAY, HEADERS, RST_STREAM, opening, take_frame};
use crate::harness::{BODY, Harness, now, post, signature};
use crate::https::Pair;
use crate::malformed_requests::{MalformedFrames, MalformedRequest, StreamAnswer, http_1_requests, http_2_frames};

type Outcomes = BTreeMap<(&'static str, &'static str), u64>;

/// Returns the number of requests for each source and outcome, without genuine deliveries.
fn outcomes(harness: &Harness) -> Outcomes {
    let all = ["-", "stripe"].into_iter().flat_map(|source| Outcome::ALL.iter().map(move |outcome| (source, *outcome)));
    all.filter(|(_, outcome)| !outcome.is_accepted())
        .map(|(source, outcome)| ((source, outcome.word()), harness.count(source, outcome.word())))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn with(mut before: Outcomes, added: &[(&'static str, &'static str)]) -> Outcomes {
    added.iter().for_each(|key| *before.entry(*key).or_default() += 1);
    before
}

#[tokio::test]
async fn each_malformed_http_1_request_has_one_outcome() {
    let harness = Harness::open(ServerLimits::default());
    let requests = http_1_requests();
    assert!(requests.len() >= 55, "found only {} requests", requests.len());
    let mut wrong = Vec::new();
    for MalformedRequest { name, bytes, statuses, outcomes: expected } in requests {
        let before = outcomes(&harness);
        let mut line = harness.line().await;
        line.send(&bytes).await;
        line.half_close().await;
        let answers = line.rest().await;
        let found: Vec<u16> = answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().expect("a status")).collect();
        wrong.extend(differences(&name, &found, &statuses.to_vec()));
        wrong.extend(differences(&name, &outcomes(&harness), &with(before, expected)));
        assert!(harness.line().await.ask(post(BODY)).await.starts_with("HTTP/1.1 200 "), "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns a line if `found` differs from `expected`. A test thus reports every wrong case at once.
fn differences<T: PartialEq + Debug>(name: &str, found: &T, expected: &T) -> Option<String> {
    (found != expected).then(|| format!("{name}: expected {expected:?}, found {found:?}"))
}

#[tokio::test]
async fn a_malformed_request_after_a_delivery_does_not_affect_it() {
    let harness = Harness::open(ServerLimits::default());
    for MalformedRequest { name, bytes, statuses, outcomes: expected } in http_1_requests() {
        let before = outcomes(&harness);
        let mut line = harness.line().await;
        line.send([post(BODY).as_bytes(), &bytes].concat()).await;
        line.half_close().await;
        let answers = line.rest().await;
        assert!(answers.starts_with("HTTP/1.1 200 "), "{name}: {answers}");
        // hyper closes the connection without a response if the preface of HTTP/2 follows a request.
        let count = if name == "preface-of-http-2" { 0 } else { statuses.len() };
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1 + count, "{name}: {answers}");
        assert_eq!(outcomes(&harness), with(before, expected), "{name}");
    }
}

#[tokio::test]
async fn each_malformed_http_2_request_has_one_outcome() {
    let pair = Pair::new(365);
    let harness = Harness::secure(ServerLimits::default(), pair.files());
    let all = http_2_frames();
    assert!(all.len() >= 40, "found only {} lists of frames", all.len());
    let mut wrong = Vec::new();
    for MalformedFrames { name, bytes, answer, outcomes: expected } in all {
        let before = outcomes(&harness);
        let mut stream = tls_connection(harness.address(), &pair, "h2").await;
        stream.write_all(&[opening(), bytes].concat()).await.expect("the server reads");
        let expected = with(before, expected);
        if answer == StreamAnswer::Nothing {
            let counted = harness.until(|harness| outcomes(harness) == expected);
            let _ = timeout(Duration::from_secs(5), counted).await;
        } else {
            wrong.extend(differences(name, &first_answer(&mut stream).await, &answer));
        }
        let _ = stream.shutdown().await;
        drop(stream);
        let signed = [("stripe-signature".to_owned(), signature(now(), BODY))];
        let mut client = Client::connect(harness.address(), &pair).await;
        assert_eq!(client.ask("POST", "/hooks/stripe", &signed, BODY).await.status(), 200, "{name}");
        wrong.extend(differences(name, &outcomes(&harness), &expected));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Reads frames until one of them answers the stream 1, or ends the connection with an error.
async fn first_answer(stream: &mut TlsStream<tokio::net::TcpStream>) -> StreamAnswer {
    let mut bytes = Vec::new();
    loop {
        while let Some(frame) = take_frame(&mut bytes) {
            match &frame {
                Frame { kind: HEADERS, stream: 1, .. } => return StreamAnswer::Status(frame.status()),
                Frame { kind: RST_STREAM, stream: 1, .. } => return StreamAnswer::Reset(frame.error_code()),
                Frame { kind: GOAWAY, .. } => return StreamAnswer::GoAway(frame.error_code()),
                _ => {}
            }
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return StreamAnswer::Nothing;
        }
    }
}
