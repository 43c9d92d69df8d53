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
        Ok(Verdict::Challenge(challenge) | Verdict::UnsignedChallenge(challenge)) => Some(challenge.reply),
        _ => None,
    }
}

fn text_reply(media_type: &str, body: &'static str) -> Option<Reply> {
    Some(Reply {
        status: StatusCode::OK,
        content_type: Some(media_type.into()),
        headers: Box::default(),
        body: Bytes::from_static(body.as_bytes()),
    })
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
fn an_unsigned_challenge_has_at_most_16_kib_and_no_proof() {
    for in_body in [false, true] {
        let from = if in_body { "json:/signature" } else { "header:Acme-Signature" };
        let recipe = INLINE.replace("header:Acme-Signature", from).replace("\"body\"", "\"json:/challenge\"");
        let source = inline(&format!(
            "{recipe}challenge = [{{ when = {{ \"json:/challenge\" = true }}, authenticated = false, reply = {{ body = [\"echo(json:/challenge)\"] }} }}]"
        ));
        let padded = |size: usize| format!("{:<size$}", r#"{"challenge":"c-1"}"#);
        assert_eq!(body(reply(&source, &delivery(padded(16 << 10), &[]))).as_deref(), Some("c-1"), "{from}");
        assert_eq!(rejection(&source, &delivery(padded((16 << 10) + 1), &[])), Some(Outcome::SignatureMissing), "{from}");
        for (text, outcome) in [("zz", Outcome::SignatureMalformed), (&"00".repeat(32), Outcome::SignatureMismatch)] {
            let with_proof = match in_body {
                true => delivery(format!(r#"{{"challenge":"c-1","signature":"{text}"}}"#), &[]),
                false => delivery(r#"{"challenge":"c-1"}"#, &[("acme-signature", text)]),
            };
            assert_eq!(rejection(&source, &with_proof), Some(outcome), "{from} {text}");
        }
    }
}

#[test]
fn an_operator_can_remove_a_challenge_from_a_recipe() {
    let source = source("slack", "s", "challenge = []");
    assert_eq!(verify(&source, &sample_of(&source, Some(SLACK_CHALLENGE), None)).expect("genuine").event.body(), SLACK_CHALLENGE);
}

const SIGNING: &str = r#"
challenge = [
  { methods = ["GET"], when = { "query:token" = true }, authenticated = false, reply = { body = ["hmac(sha256, query:token, hex)"] } },
  { when = { "json:/token" = true }, reply = { body = ["hmac(sha256, json:/token, hex)"] } },
]
"#;

fn get(target: &str) -> Delivery {
    Delivery { method: Method::GET, target: target.into(), ..delivery("", &[]) }
}

fn body(reply: Option<Reply>) -> Option<String> {
    reply.map(|reply| String::from_utf8(reply.body.into()).expect("UTF-8"))
}

/// During a rotation, an unsigned challenge is signed with the first secret that has not expired, and a signed challenge with
/// the secret of its own signature.
#[test]
fn a_reply_is_signed_with_a_valid_secret() {
    // Computed with `printf c-1 | openssl dgst -sha256 -hmac SECRET`.
    const BY_OLD: &str = "579124ef9c256b73d64663306d0e37bc2623089f1e3f76d615031c930bdea7a0";
    const BY_NEW: &str = "8b8d99e0dc5dc9e6e36897b781c58c724f9e540b51192cb990614a5655b0f8ea";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, name).expect("a file");
        format!("from = \"file:{}\"", path.display())
    };
    let source = |end: &str| {
        let secrets = format!("secrets = [{{ {}, not_after = {end} }}, {{ {} }}]", file("old"), file("new"));
        compile_alone(&format!("{secrets}{INLINE}{SIGNING}")).expect("a source")
    };
    let unsigned = get("/hooks/shop?token=c-1");
    assert_eq!(body(reply(&source("2030-01-01"), &unsigned)).as_deref(), Some(BY_OLD));
    assert_eq!(body(reply(&source("2020-01-01"), &unsigned)).as_deref(), Some(BY_NEW));
    for (secret, expected) in [("old", BY_OLD), ("new", BY_NEW)] {
        let signer = compile(&format!("{INLINE}{SIGNING}"), &[("secret", secret)]).expect("a source");
        let signed = sample_of(&signer, Some(br#"{"token":"c-1"}"#), None);
        assert_eq!(body(reply(&source("2030-01-01"), &signed)).as_deref(), Some(expected), "{secret}");
    }
    let both_expired = format!("secrets = [{{ {}, not_after = 2020-01-01 }}]{INLINE}{SIGNING}", file("old"));
    assert_eq!(reply(&compile_alone(&both_expired).expect("a source"), &unsigned), None, "an expired secret signs nothing");
}

/// An unsigned challenge that signs a text of the request must not help to forge an event.
#[test]
fn no_signature_from_a_challenge_proves_an_event() {
    let source = inline(&format!("{INLINE}{SIGNING}"));
    for token in ["c-1", "1", "true", "a=b", &"x".repeat(128)] {
        let signature = body(reply(&source, &get(&format!("/hooks/shop?token={token}")))).expect("an HMAC");
        let forged = delivery(token.to_owned(), &[("acme-signature", &signature)]);
        assert_eq!(rejection(&source, &forged), Some(Outcome::SignatureMismatch), "{token}");
    }
    for token in ["{}", "%7B%7D", "a%20b", "[1]", "\"a\"", &"x".repeat(129)] {
        assert_eq!(reply(&source, &get(&format!("/hooks/shop?token={token}"))), None, "{token}");
    }
    for genuine in ["{}", "", &"x".repeat(129)] {
        assert!(verify(&source, &sample_of(&source, Some(genuine.as_bytes()), None)).is_ok(), "{genuine}");
    }
}

#[test]
fn a_source_without_a_proof_answers_every_challenge_as_unsigned() {
    let source = compile_alone(
        "auth = \"none\"\nallow_from = [\"192.0.2.0/24\"]\nchallenge = [{ when = { \"json:/challenge\" = true } }]",
    )
    .expect("a source");
    let verdict = |body: String| Verifier::new(source.clone()).verify(&delivery(body, &[])).expect("every delivery is accepted");
    assert!(matches!(verdict(r#"{"challenge":"c"}"#.into()), Verdict::UnsignedChallenge(_)));
    assert!(matches!(verdict(format!(r#"{{"challenge":"c","padding":"{}"}}"#, " ".repeat(16 << 10))), Verdict::Event(_)));
    assert!(matches!(verdict("{}".into()), Verdict::Event(_)));
}

#[test]
fn hmac_is_rejected_where_it_would_sign_tokens_or_has_no_key() {
    let get = |authenticated| {
        format!(
            "challenge = [{{ methods = [\"GET\"], authenticated = {authenticated}, reply = {{ body = \"hmac(sha256, query:a, hex)\" }} }}]"
        )
    };
    let jwt = "auth = \"jwt\"\nalgorithm = \"HS256\"\ntoken = { from = \"header:Authorization\" }\n";
    let long = [("secret", "0123456789abcdef0123456789abcdef")];
    let found = compile(&format!("{jwt}{}", get(false)), &long).expect_err("anyone could have a token signed").to_string();
    assert!(found.contains("reply.body: expected no hmac with the secrets of JSON Web Tokens, found an unsigned "), "{found}");
    assert!(compile(&format!("{jwt}{}", get(true)), &long).is_ok());
    let found = compile_alone(&format!("auth = \"none\"\n{}", get(false))).expect_err("no key").to_string();
    assert!(found.contains("expected hmac only in a recipe whose proof uses secrets, found a recipe without secrets"), "{found}");
}

/// A verify token is a secret that the source may read from a file. hookhold neither stores nor shows it.
#[test]
fn a_verify_token_from_a_file_is_a_credential() {
    let token = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(token.path(), "hush hush\n").expect("a temporary file");
    let recipe = |value: &str| {
        format!(
            "{INLINE}values = {{ token = {value:?} }}\nchallenge = [{{ methods = [\"GET\"], when = {{ \"query:mode\" = \"on\", \
             \"query:token\" = \"config:token\" }}, authenticated = false, effect = \"learn-secret(header:X-Hook-Secret)\" }}]"
        )
    };
    let source = inline(&recipe(&format!("file:{}", token.path().display())));
    let mut challenge = get("/hooks/shop?mode=on&token=hush+hush");
    set(&mut challenge, "x-hook-secret", "another");
    assert!(reply(&source, &challenge).is_some());
    let credentials = &source.recipe.credentials;
    assert_eq!(credentials.redact(&challenge.target), "/hooks/shop?mode=on&token=REDACTED");
    assert!(credentials.include_header(&http::HeaderName::from_static("x-hook-secret")));
    for (value, what) in [("", "values.token: expected a text, found an empty string"), ("env:NO_SUCH_TOKEN", "NO_SUCH_TOKEN")] {
        let found = compile(&recipe(value), &[("secret", "x")]).expect_err(what).to_string();
        assert!(found.contains(what), "{found}");
    }
}
