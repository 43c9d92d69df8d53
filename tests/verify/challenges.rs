//! Tests of endpoint challenges: the replies, the signatures, and deliveries that only resemble a challenge.

use bytes::Bytes;
use hookhold::event::Delivery;
use hookhold::outcome::Outcome;
use hookhold::source::Source;
use hookhold::source::recipe::Reply;
use hookhold::verify::{Verdict, Verifier};
use http::{HeaderMap, Method, StatusCode};

use crate::support::*;

const SLACK_CHALLENGE: &[u8] =
    br#"{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
const CHALLENGES: &str = r#"
event = { id = "json:/id" }
challenge = [
  { when = { "json:/challenge" = true, "header:Acme-Check" = "1" }, authenticated = false, reply = { status = 202, content_type = "application/json", body = ["const:{\"challenge\":\"", "echo(json:/challenge)", "const:\"}"] } },
  { when = { "form:hello" = "hookhold" }, reply = { body = ["echo(form-json:data/0/nonce)", "const:."] } },
]
"#;

fn reply(source: &Source, delivery: &Delivery) -> Option<Reply> {
    match Verifier::new(source.clone()).verify(delivery) {
        Ok(Verdict::Challenge(reply) | Verdict::UnsignedChallenge(reply)) => Some(reply),
        _ => None,
    }
}

fn text_reply(media_type: &str, body: &'static str) -> Option<Reply> {
    Some(Reply { status: StatusCode::OK, content_type: Some(media_type.into()), body: Bytes::from_static(body.as_bytes()) })
}

#[test]
fn a_signed_challenge_is_answered_with_its_text() {
    let slack = provider("slack");
    let challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
    assert_eq!(reply(&slack, &sample_of(&slack, Some(SLACK_CHALLENGE), None)), text_reply("text/plain", challenge));
    let certificate_reply = reply(&slack, &sample_of(&slack, Some(b"token=x&ssl_check=1"), None));
    assert_eq!(certificate_reply, Some(Reply { content_type: None, ..text_reply("", "").expect("a reply") }));
}

#[test]
fn a_forged_or_stale_signed_challenge_is_rejected() {
    use hookhold::verify::sign::Tamper;
    let slack = provider("slack");
    let ways = [Tamper::Body, Tamper::Secret, Tamper::Missing, Tamper::Stale, Tamper::Future];
    for tamper in ways {
        assert_eq!(rejection(&slack, &sample_of(&slack, Some(SLACK_CHALLENGE), Some(tamper))), Some(tamper.expected()));
    }
}

/// Checks Slack's request that tests the certificate of a URL. Slack sends it without a signature
/// (<https://github.com/slackapi/bolt-js/issues/1397>), so every sender can. No form that it contains may become an event.
#[test]
fn an_unsigned_certificate_check_is_answered_and_never_an_event() {
    let slack = provider("slack");
    let empty = Some(Reply { content_type: None, ..text_reply("", "").expect("a reply") });
    assert_eq!(precheck(&slack, Method::POST, &HeaderMap::new()), Ok(16 << 10));
    for body in ["ssl_check=1&token=xxx", "token=xxx&ssl_check=1", "ssl_check=1&command=%2Fpay&trigger_id=1&payload=%7B%7D"] {
        assert_eq!(reply(&slack, &delivery(body, &[])), empty, "{body}");
        let mut signed = sample_of(&slack, Some(body.as_bytes()), None);
        assert_eq!(reply(&slack, &signed), empty, "{body}, signed");
        set(&mut signed, "x-slack-signature", &format!("v0={}", "00".repeat(32)));
        assert_eq!(rejection(&slack, &signed), Some(Outcome::SignatureMismatch), "{body}, forged");
        set(&mut signed, "x-slack-signature", "v0=zz");
        assert_eq!(rejection(&slack, &signed), Some(Outcome::SignatureMalformed), "{body}, unreadable");
    }
    for body in
        ["ssl_check=0", "ssl_check=", "ssl_check", "ssl_check=1x", "SSL_CHECK=1", "{\"ssl_check\":\"1\"}", "x=ssl_check%3D1", ""]
    {
        assert_eq!(rejection(&slack, &delivery(body, &[])), Some(Outcome::SignatureMissing), "{body}");
    }
    let long = format!("ssl_check=1&a={}", "x".repeat(16 << 10));
    assert_eq!(rejection(&slack, &delivery(long, &[])), Some(Outcome::SignatureMissing));
    assert_eq!(precheck(&slack, Method::GET, &HeaderMap::new()).map_err(|found| found.outcome), Err(Outcome::SignatureMissing));
}

#[test]
fn a_mere_lookalike_of_a_challenge_is_an_event() {
    let slack = provider("slack");
    let long = format!(r#"{{"type":"url_verification","challenge":"{}"}}"#, "x".repeat(513));
    let others: [&[u8]; 7] = [
        b"command=%2Fx&text=ssl_check%3D1&ssl_check=0",
        br#"{"type":"event_callback","event_id":"Ev1","challenge":"x"}"#,
        br#"{"type":"URL_VERIFICATION","challenge":"x"}"#,
        br#"{"event":{"type":"url_verification"},"challenge":"x"}"#,
        b"type=url_verification&challenge=x",
        br#"{"type":"url_verification"}"#,
        long.as_bytes(),
    ];
    for body in others {
        assert_eq!(verify(&slack, &sample_of(&slack, Some(body), None)).expect("genuine").event.body(), body);
    }
}

#[test]
fn only_the_unsigned_challenge_is_answered_without_a_signature() {
    let source = inline(&format!("{INLINE}{CHALLENGES}"));
    let body = precheck(&source, Method::POST, &HeaderMap::new());
    assert_eq!(body, Ok(16 << 10), "only the body identifies the challenge");
    let challenge = delivery(r#"{"challenge":"c-1"}"#, &[("acme-check", "1")]);
    let answer =
        text_reply("application/json", r#"{"challenge":"c-1"}"#).map(|reply| Reply { status: StatusCode::ACCEPTED, ..reply });
    assert_eq!(reply(&source, &challenge), answer);
    for (body, headers) in [
        (r#"{"challenge":"c-1"}"#, vec![]),
        (r#"{"challenge":"c-1"}"#, vec![("acme-check", "2")]),
        (r#"{"id":"1"}"#, vec![("acme-check", "1")]),
        ("hello=hookhold&data=[{\"nonce\":\"n\"}]", vec![]),
    ] {
        assert_eq!(rejection(&source, &delivery(body, &headers)), Some(Outcome::SignatureMissing), "{body} {headers:?}");
    }
    let signed = sample_of(&source, Some(b"hello=hookhold&data=[{\"nonce\":\"%6E%2B\"}]"), None);
    assert_eq!(reply(&source, &signed), Some(Reply { content_type: None, ..text_reply("", "n+.").expect("a reply") }));
    assert_eq!(verify(&source, &sample(&source, None)).expect("genuine").event.id(), Some("id-1"));
}

#[test]
fn an_operator_can_remove_a_challenge_from_a_recipe() {
    let source = source("slack", "s", "challenge = []");
    assert_eq!(verify(&source, &sample_of(&source, Some(SLACK_CHALLENGE), None)).expect("genuine").event.body(), SLACK_CHALLENGE);
}
