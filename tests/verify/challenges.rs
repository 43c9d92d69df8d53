//! Endpoint challenges: which deliveries are answered as one, with what, and which are not.

use bytes::Bytes;
use hookhold::event::Delivery;
use hookhold::outcome::Outcome;
use hookhold::source::Source;
use hookhold::source::recipe::Reply;
use hookhold::verify::{Verdict, Verifier, precheck};
use http::{HeaderMap, StatusCode};

use crate::support::*;

const CHECK: &[u8] =
    br#"{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
const UNSIGNED: &str = r#"
event = { id = "json:/id" }
challenge = [
  { when = { "json:/challenge" = true, "header:Acme-Check" = "1" }, authenticated = false, reply = { status = 202, content_type = "application/json", body = ["const:{\"challenge\":\"", "echo(json:/challenge)", "const:\"}"] } },
  { when = { "form:hello" = "hookhold" }, reply = { body = ["echo(form-json:data/0/nonce)", "const:."] } },
]
"#;

fn reply(source: &Source, delivery: &Delivery) -> Option<Reply> {
    match Verifier::new(source.clone()).verify(delivery) {
        Ok(Verdict::Challenge(reply)) => Some(reply),
        _ => None,
    }
}

fn said(media_type: &str, body: &'static str) -> Option<Reply> {
    Some(Reply { status: StatusCode::OK, content_type: Some(media_type.into()), body: Bytes::from_static(body.as_bytes()) })
}

#[test]
fn a_signed_check_of_the_endpoint_is_answered_with_its_challenge() {
    let slack = provider("slack");
    let challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
    assert_eq!(reply(&slack, &sample_of(&slack, Some(CHECK), None)), said("text/plain", challenge));
    let certificate = reply(&slack, &sample_of(&slack, Some(b"token=x&ssl_check=1"), None));
    assert_eq!(certificate, Some(Reply { content_type: None, ..said("", "").expect("a reply") }));
}

#[test]
fn a_signed_check_that_is_forged_damaged_or_old_is_refused_like_any_delivery() {
    use hookhold::verify::sign::Tamper;
    let slack = provider("slack");
    let ways = [Tamper::Body, Tamper::Secret, Tamper::Missing, Tamper::Stale, Tamper::Future];
    for tamper in ways {
        assert_eq!(refusal(&slack, &sample_of(&slack, Some(CHECK), Some(tamper))), Some(tamper.expected()));
    }
    assert_eq!(precheck(&slack, &HeaderMap::new()).map_err(|refusal| refusal.outcome), Err(Outcome::SignatureMissing));
}

#[test]
fn what_is_no_check_is_an_event() {
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
fn a_check_that_nobody_signs_is_answered_and_everything_else_still_needs_its_signature() {
    let source = inline(&format!("{INLINE}{UNSIGNED}"));
    assert_eq!(precheck(&source, &HeaderMap::new()), Ok(()), "only the body can say");
    let check = delivery(r#"{"challenge":"c-1"}"#, &[("acme-check", "1")]);
    let answer = said("application/json", r#"{"challenge":"c-1"}"#).map(|reply| Reply { status: StatusCode::ACCEPTED, ..reply });
    assert_eq!(reply(&source, &check), answer);
    for (body, headers) in [
        (r#"{"challenge":"c-1"}"#, vec![]),
        (r#"{"challenge":"c-1"}"#, vec![("acme-check", "2")]),
        (r#"{"id":"1"}"#, vec![("acme-check", "1")]),
        ("hello=hookhold&data=[{\"nonce\":\"n\"}]", vec![]),
    ] {
        assert_eq!(refusal(&source, &delivery(body, &headers)), Some(Outcome::SignatureMissing), "{body} {headers:?}");
    }
    let signed = sample_of(&source, Some(b"hello=hookhold&data=[{\"nonce\":\"%6E%2B\"}]"), None);
    assert_eq!(reply(&source, &signed), Some(Reply { content_type: None, ..said("", "n+.").expect("a reply") }));
    assert_eq!(verify(&source, &sample(&source, None)).expect("genuine").event.id(), Some("id-1"));
}

#[test]
fn an_operator_may_do_without_a_check() {
    let source = source("slack", "s", "challenge = []");
    assert_eq!(verify(&source, &sample_of(&source, Some(CHECK), None)).expect("genuine").event.body(), CHECK);
}
