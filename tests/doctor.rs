//! Tests that `hookhold doctor` finds the cause of each kind of rejection. The providers' own SDKs sign the deliveries. The
//! tests simulate common faults, such as a proxy that changes a request, a copy-paste mistake in a secret or a wrong clock.
//! Every test runs the real binary.

#[path = "doctor/altered.rs"]
mod altered;
#[path = "doctor/batches.rs"]
mod batches;
#[path = "doctor/credentials.rs"]
mod credentials;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "doctor/schemes.rs"]
mod schemes;
#[path = "common/sdk.rs"]
mod sdk;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use base64::Engine;
use process::{Home, Line, post};
use sdk::{Sample, Sdk};
use serde_json::Value;
use sha2::{Digest, Sha256};

const NOW: u64 = 1_614_265_330;
const STRIPE: &str = "whsec_c3RyaXBlIGlzIG5vdCBiYXNlNjQ=";
const GITHUB: &str = "a secret of GitHub";
const WEBHOOKS: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TWILIO: &str = "12345";
const ANOTHER: &str = "whsec_YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlcg==";
const SECRETS: &[(&str, &str)] =
    &[("stripe-key", STRIPE), ("github-key", GITHUB), ("webhooks-key", WEBHOOKS), ("twilio-key", TWILIO), ("test-key", ANOTHER)];
const SOURCES: &str = r#"
[sources.stripe]
provider = "stripe"
secrets = ["file:stripe-key"]
[sources.github]
provider = "github"
secrets = ["file:github-key"]
[sources.standard-webhooks]
provider = "standard-webhooks"
secrets = ["file:webhooks-key"]
[sources.twilio]
provider = "twilio"
secrets = ["file:twilio-key"]
public_url = "https://hooks.example.com"
"#;
const SIGNED: &[(&str, &str)] = &[("stripe", STRIPE), ("github", GITHUB), ("standard-webhooks", WEBHOOKS)];

/// The signed headers of a delivery, and the source that receives the delivery.
struct Signed {
    headers: Vec<(String, String)>,
    source: &'static str,
}

impl Signed {
    fn new(sdk: &mut Sdk, scheme: &'static str, secret: &str, body: &str) -> Signed {
        let sample = Sample { scheme, secret, id: "msg_1", timestamp: NOW, body: body.as_bytes() };
        let signed = sdk.sign(sample);
        assert_ne!(signed.by, "openssl", "an SDK signs {scheme}");
        Signed { headers: signed.headers, source: scheme }
    }

    /// Returns a request that sends `body` and the signed headers to the source.
    fn with(&self, body: impl AsRef<[u8]>) -> Vec<u8> {
        post(&format!("/hooks/{}", self.source), &self.headers, body.as_ref())
    }
}

/// Runs `hookhold doctor` on `request` twice, first with text output and then with JSON output. Returns the exit code and the
/// JSON object of the second run. Asserts that neither output contains a secret.
fn examine(home: &Home, source: &str, request: &[u8], more: &[&str]) -> (Option<i32>, Value) {
    home.put("request", request);
    let args = ["doctor", source, "--request", "request"];
    for format in [&["--format", "text"], &["--format", "json"]] {
        let output = home.verb(&[&args[..], more, format].concat());
        let printed = String::from_utf8([output.stdout.clone(), output.stderr].concat()).expect("the output is text");
        for (_, secret) in SECRETS {
            // Twilio's secret is so short that the output may contain the same characters by chance.
            assert!(*secret == TWILIO || !printed.contains(secret), "a secret was printed: {printed}");
        }
        if format[1] == "json" {
            let line = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {printed}"));
            return (output.status.code(), line);
        }
    }
    unreachable!("the loop ends with json")
}

/// Runs `hookhold doctor` with [`NOW`] as the time of receipt, and returns the identifier of each reported cause. A question
/// mark follows the identifier of a cause that is not certain.
fn causes(home: &Home, source: &str, request: &[u8]) -> Vec<String> {
    causes_at(home, source, request, NOW)
}

fn causes_at(home: &Home, source: &str, request: &[u8], at: u64) -> Vec<String> {
    let (code, line) = examine(home, source, request, &["--at", &at.to_string()]);
    assert_eq!((code, &line["verifies"]), (Some(1), &Value::Bool(false)), "{line}");
    assert!(line["outcome"].is_string() && line["hint"].is_string(), "{line}");
    let causes = line["causes"].as_array().expect("a list");
    assert!(causes.iter().all(|cause| cause["what"].is_string() && cause["do"].is_string()), "{line}");
    let mut words: Vec<String> = Vec::new();
    for cause in causes {
        let word = cause["cause"].as_str().expect("a word");
        words.push(if cause["certainty"] == "certain" { word.to_owned() } else { format!("{word}?") });
    }
    words
}

#[test]
fn a_genuine_delivery_exits_0_and_names_the_secret() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    for (scheme, secret) in SIGNED {
        let request = Signed::new(&mut sdk, scheme, secret, "{\"id\":1}").with("{\"id\":1}");
        let (code, line) = examine(&home, scheme, &request, &["--at", "2021-02-25T15:02:10Z"]);
        assert_eq!((code, &line["verifies"], &line["outcome"]), (Some(0), &Value::Bool(true), &Value::Null), "{line}");
        assert!(line["secret"].as_str().is_some_and(|name| name.ends_with("-key")), "{line}");
        assert_eq!(line["causes"], Value::Array(Vec::new()));
        assert_eq!(line["at"], "2021-02-25T15:02:10.000Z");
    }
}

#[test]
fn another_secret_is_suspected_when_nothing_else_matches() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    for (scheme, _) in SIGNED {
        let request = Signed::new(&mut sdk, scheme, "whsec_bm9ib2R5J3M=", "{}").with("{}");
        assert_eq!(causes(&home, scheme, &request), ["other_secret?", "body_changed?"], "{scheme}");
    }
}

#[test]
fn quotes_and_whitespace_around_a_secret_are_found() {
    let mut sdk = Sdk::start();
    for (scheme, secret) in SIGNED.iter().filter(|(scheme, _)| *scheme != "standard-webhooks") {
        let request = Signed::new(&mut sdk, scheme, secret, "{}").with("{}");
        for (stored, expected) in [
            (format!("\"{secret}\""), "secret_quotes"),
            (format!("'{secret}'\n"), "secret_quotes"),
            (format!(" {secret}"), "secret_whitespace"),
            (format!("{secret}\n\n"), "secret_whitespace"),
            (format!("{secret}\t\r\n"), "secret_whitespace"),
        ] {
            let home =
                Home::new(&[("key", &stored)], &format!("[sources.{scheme}]\nprovider = {scheme:?}\nsecrets = [\"file:key\"]"));
            assert_eq!(causes(&home, scheme, &request), [expected], "{scheme}: {stored:?}");
        }
    }
    let entered = Signed::new(&mut sdk, "github", &format!("{GITHUB}\n"), "{}").with("{}");
    assert_eq!(causes(&Home::new(SECRETS, SOURCES), "github", &entered), ["secret_whitespace"]);
}

/// Wraps a base64 secret in quotes or whitespace. hookhold cannot decode the wrapped secret, so the configuration error must
/// tell the operator to remove the quotes or whitespace.
#[test]
fn an_undecodable_secret_is_reported_as_wrapped() {
    for stored in [format!("\"{WEBHOOKS}\""), format!(" {WEBHOOKS}"), format!("{WEBHOOKS}\n\n")] {
        let entry = "[sources.standard-webhooks]\nprovider = \"standard-webhooks\"\nsecrets = [\"file:key\"]";
        let output = Home::new(&[("key", &stored)], entry).verb(&["doctor", "standard-webhooks", "--request", "request"]);
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(
            printed.contains("remove the whitespace or quotes around the secret") && !printed.contains(WEBHOOKS),
            "{printed}"
        );
    }
}

#[test]
fn a_wrongly_decoded_key_is_found() {
    let mut sdk = Sdk::start();
    for (scheme, secret, wrong, right) in [
        ("stripe", STRIPE, r#"["strip-prefix:whsec_", "base64"]"#, r#"["utf8"]"#),
        ("standard-webhooks", WEBHOOKS, r#"["utf8"]"#, r#"["strip-prefix:whsec_", "base64"]"#),
        ("standard-webhooks", WEBHOOKS, r#"["strip-prefix:whsec_"]"#, r#"["strip-prefix:whsec_", "base64"]"#),
    ] {
        let entry = format!("[sources.{scheme}]\nprovider = {scheme:?}\nkey_format = {wrong}\nsecrets = [\"file:key\"]");
        let home = Home::new(&[("key", secret)], &entry);
        let request = Signed::new(&mut sdk, scheme, secret, "{}").with("{}");
        assert_eq!(causes(&home, scheme, &request), ["key_decoding"], "{scheme}: {wrong}");
        let (_, line) = examine(&home, scheme, &request, &["--at", &NOW.to_string()]);
        assert!(line["causes"][0]["do"].as_str().is_some_and(|advice| advice.contains(right)), "{line}");
        home.configure(&entry.replace(wrong, right));
        assert_eq!(
            examine(&home, scheme, &request, &["--at", &NOW.to_string()]).0,
            Some(0),
            "{scheme}: the delivery verifies after the advice"
        );
    }
}

#[test]
fn a_body_changed_on_the_way_is_found() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    const PRETTY: &str = "{\n  \"id\": \"evt_1\",\n  \"amount\": 10.00,\n  \"lines\": [\n    {},\n    2\n  ]\n}";
    const COMPACT: &str = r#"{"id":"evt_1","amount":10.00,"lines":[{},2]}"#;
    const PYTHON: &str = r#"{"id": "evt_1", "amount": 10.00, "lines": [{}, 2]}"#;
    for (scheme, secret) in SIGNED {
        for (signed, arrived, expected) in [
            (PRETTY, COMPACT.as_bytes(), "body_json"),
            (COMPACT, PRETTY.as_bytes(), "body_json"),
            (PYTHON, COMPACT.as_bytes(), "body_json"),
            (r#"{"url":"https:\/\/a.example\/caf\u00e9"}"#, "{\"url\":\"https://a.example/café\"}".as_bytes(), "body_json"),
            (r#"{"html":"\u003cb\u003e"}"#, br#"{"html": "<b>"}"#, "body_json"),
            (r#"{"a":"\u00E9"}"#, "{\"a\":\"é\"}".as_bytes(), "body_json"),
            (r#"{"a":"\u00E9\u0026\u0022\u002B\uD83D\uDE00"}"#, "{\"a\": \"é&\\\"+😀\"}".as_bytes(), "body_json"),
            ("{\"a\":\"é\"}", br#"{"a":"\u00E9"}"#, "body_json"),
            ("{}\n\n", b"{}", "body_newline"),
            ("{} ", b"{}", "body_newline"),
            ("{\n\"a\":1\n}", b"{\r\"a\":1\r}", "body_newline"),
            ("a=%2f&b=%c3%a9", b"a=%2F&b=%C3%A9", "body_form"),
            ("{}\n", b"{}", "body_newline"),
            ("{}", b"{}\n", "body_newline"),
            ("{}\n", b"{}\r\n", "body_newline"),
            ("{\n\"a\":1\n}\n", b"{\r\n\"a\":1\r\n}\r\n", "body_newline"),
            ("{\"a\":\"café\"}", b"{\"a\":\"caf\xe9\"}", "body_charset"),
            ("{\"a\":\"café\"}", "{\"a\":\"cafÃ©\"}".as_bytes(), "body_charset"),
            ("{\"a\":\"1 €\"}", b"{\"a\":\"1 \x80\"}", "body_charset"),
            ("{\"a\":\"1 €\"}", "{\"a\":\"1 â‚¬\"}".as_bytes(), "body_charset"),
            ("{\"a\":1}", b"\xef\xbb\xbf{\"a\":1}", "body_charset"),
            ("a=b+c&d=1", b"a=b%20c&d=1", "body_form"),
        ] {
            let request = Signed::new(&mut sdk, scheme, secret, signed).with(arrived);
            assert_eq!(causes(&home, scheme, &request), [expected], "{scheme}: {signed:?} arrived as {arrived:?}");
        }
        let request = Signed::new(&mut sdk, scheme, secret, r#"{"b":1,"a":2}"#).with(r#"{"a":2,"b":1}"#);
        assert_eq!(
            causes(&home, scheme, &request),
            ["other_secret?", "body_changed?"],
            "{scheme}: another order cannot be undone"
        );
    }
}

#[test]
fn a_truncated_recording_is_reported_as_incomplete() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    let mut request = Signed::new(&mut sdk, "stripe", STRIPE, "{\"id\":\"evt_1\"}").with("{\"id\":\"evt_1\"}");
    request.truncate(request.len() - 5);
    assert_eq!(causes(&home, "stripe", &request)[0], "body_incomplete?");
}

#[test]
fn two_simultaneous_causes_are_both_named() {
    let mut sdk = Sdk::start();
    let entry = "[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:key\"]";
    let home = Home::new(&[("key", &format!("\"{STRIPE}\""))], entry);
    let request = Signed::new(&mut sdk, "stripe", STRIPE, "{\"a\":1}\n").with("{\"a\":1}");
    assert_eq!(causes(&home, "stripe", &request), ["body_newline", "secret_quotes"]);
    assert_eq!(causes_at(&home, "stripe", &request, NOW + 1_000), ["body_newline", "secret_quotes", "stale"]);
}

#[test]
fn a_wrong_clock_is_distinguished_from_a_late_delivery() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    for (scheme, secret) in SIGNED.iter().filter(|(scheme, _)| *scheme != "github") {
        let request = Signed::new(&mut sdk, scheme, secret, "{}").with("{}");
        assert_eq!(causes_at(&home, scheme, &request, NOW - 301), ["clock"], "{scheme}");
        assert_eq!(causes_at(&home, scheme, &request, NOW + 301), ["stale"], "{scheme}");
        let (code, line) = examine(&home, scheme, &request, &[]);
        assert_eq!((code, &line["causes"][0]["cause"]), (Some(1), &"stale".into()), "{line}");
        assert!(line["causes"][0]["do"].as_str().is_some_and(|advice| advice.contains("--at")), "{line}");
    }
}

#[test]
fn an_expired_secret_is_named_as_cause() {
    let mut sdk = Sdk::start();
    for (scheme, secret) in SIGNED {
        let entry = format!(
            "[sources.{scheme}]\nprovider = {scheme:?}\nsecrets = [{{ name = \"old\", from = \"file:old\", not_after = 2021-02-01 }}, \"file:new\"]"
        );
        let home = Home::new(&[("old", secret), ("new", ANOTHER)], &entry);
        let request = Signed::new(&mut sdk, scheme, secret, "{}").with("{}");
        assert_eq!(causes(&home, scheme, &request), ["secret_expired"], "{scheme}");
    }
}

#[test]
fn the_secret_of_another_source_is_recognised() {
    let mut sdk = Sdk::start();
    for (scheme, _) in SIGNED {
        let test_mode = format!("[sources.test-mode]\nprovider = {scheme:?}\nsecrets = [\"file:test-key\"]\n");
        let home = Home::new(SECRETS, &(SOURCES.to_owned() + &test_mode));
        let request = Signed::new(&mut sdk, scheme, ANOTHER, "{}").with("{}");
        assert_eq!(causes(&home, scheme, &request), ["other_sources_secret"], "{scheme}");
        let (_, line) = examine(&home, scheme, &request, &["--at", &NOW.to_string()]);
        assert!(line["causes"][0]["what"].as_str().is_some_and(|what| what.contains("test-mode")), "{line}");
    }
}

#[test]
fn another_providers_scheme_is_recognised_and_proved() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    let at = |source: &str, signed: &Signed| post(&format!("/hooks/{source}"), &signed.headers, b"{}");
    for (sent_to, own_secret) in SIGNED {
        for (scheme, secret) in SIGNED.iter().filter(|(scheme, _)| scheme != sent_to) {
            let genuine_there = Signed::new(&mut sdk, scheme, secret, "{}");
            assert_eq!(causes(&home, sent_to, &at(sent_to, &genuine_there)), ["other_provider"], "{scheme} at {sent_to}");
            // The SDK of Standard Webhooks can use only a secret that it can decode from base64.
            if *scheme != "standard-webhooks" || own_secret.starts_with("whsec_") {
                let with_our_secret = Signed::new(&mut sdk, scheme, own_secret, "{}");
                let (code, line) = examine(&home, sent_to, &at(sent_to, &with_our_secret), &["--at", &NOW.to_string()]);
                let advice = line["causes"][0]["do"].as_str().expect("an advice");
                assert!(code == Some(1) && advice.contains(&format!("provider = \"{scheme}\"")), "{scheme} at {sent_to}: {line}");
            }
            let with_unknown_secret = Signed::new(&mut sdk, scheme, "whsec_bm9ib2R5J3M=", "{}");
            let found = causes(&home, sent_to, &at(sent_to, &with_unknown_secret));
            assert!(
                !found.is_empty() && found.iter().all(|cause| cause == "other_provider?"),
                "{scheme} at {sent_to}: {found:?}"
            );
        }
        let unsigned = post(&format!("/hooks/{sent_to}"), &[], b"{}");
        assert_eq!(causes(&home, sent_to, &unsigned), ["signature_absent"], "{sent_to}");
    }
}

#[test]
fn a_wrong_public_url_is_found_from_the_request() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    let body = "CallSid=CA1&CallStatus=completed&To=%2B15551112222";
    for (signed, target, more) in [
        ("http://hooks.example.com/hooks/twilio", "/hooks/twilio", None),
        ("https://hooks.example.com:8443/hooks/twilio", "/hooks/twilio", Some(("x-forwarded-host", "hooks.example.com:8443"))),
        (
            "https://calls.example.com/hooks/twilio?a=1",
            "/hooks/twilio?a=1",
            Some(("x-forwarded-host", "calls.example.com, inner")),
        ),
        ("https://hooks.example.com/hooks/twilio/", "/hooks/twilio", None),
        ("https://hooks.example.com/hooks/twilio", "/hooks/twilio?added=1", None),
        ("https://hooks.example.com/in/hooks/twilio", "/hooks/twilio", Some(("x-forwarded-prefix", "/in"))),
        ("https://hooks.example.com/voice?x=1", "/hooks/twilio", Some(("x-original-uri", "/voice?x=1"))),
    ] {
        let sample = Sample { scheme: "twilio", secret: TWILIO, id: "", timestamp: 0, body: body.as_bytes() };
        let mut headers = sdk.sign_for_url(sample, signed).headers;
        headers.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(causes(&home, "twilio", &post(target, &headers, body.as_bytes())), ["public_url"], "{signed}");
    }
    let hashed = format!("/hooks/twilio?bodySHA256={}", base16ct::lower::encode_string(&Sha256::digest("{}\n")));
    let sample = Sample { scheme: "twilio", secret: TWILIO, id: "", timestamp: 0, body: b"{}\n" };
    let headers = sdk.sign_for_url(sample, &format!("https://hooks.example.com{hashed}")).headers;
    assert_eq!(causes(&home, "twilio", &post(&hashed, &headers, b"{}")), ["body_newline"]);
    let sample = Sample { scheme: "twilio", secret: TWILIO, id: "", timestamp: 0, body: body.as_bytes() };
    let headers = sdk.sign_for_url(sample, "https://elsewhere.example.net/x").headers;
    let found = causes(&home, "twilio", &post("/hooks/twilio", &headers, body.as_bytes()));
    assert_eq!(found, ["other_secret?", "body_changed?", "public_url?"]);
}

/// Tests a wrong `public_url` with an inline recipe for Square, which signs the URL followed by the body
/// (<https://developer.squareup.com/docs/webhooks/step3validate>, docs/deploy.md).
#[test]
fn a_wrong_public_url_is_found_for_inline_schemes() {
    let square = r#"
[sources.square]
public_url = "https://hooks.example.com"
auth = "mac"
algorithm = "sha256"
encoding = "base64"
signature = { from = "header:x-square-hmacsha256-signature" }
content = ["url", "body"]
secrets = ["file:github-key"]
"#;
    let home = Home::new(SECRETS, square);
    let body = b"{\"event_id\":\"6a8f5f28\"}";
    let request = |url: &str| {
        let code = sdk::openssl_hmac("sha256", GITHUB.as_bytes(), &[url.as_bytes(), body].concat());
        let code = base64::engine::general_purpose::STANDARD.encode(code);
        post("/hooks/square", &[("x-square-hmacsha256-signature".to_owned(), code)], body)
    };
    let (code, line) = examine(&home, "square", &request("https://hooks.example.com/hooks/square"), &[]);
    assert_eq!((code, &line["verifies"]), (Some(0), &Value::Bool(true)), "{line}");
    for signed in ["http://hooks.example.com/hooks/square", "https://hooks.example.com/hooks/square/"] {
        assert_eq!(causes(&home, "square", &request(signed)), ["public_url"], "{signed}");
    }
}

#[test]
fn causes_visible_in_the_request_are_reported() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    let request = Signed::new(&mut sdk, "stripe", STRIPE, "{}").with("{}");
    let text = String::from_utf8(request).expect("text");
    let get = text.replace("POST ", "GET ");
    assert_eq!(causes(&home, "stripe", get.as_bytes()), ["method"]);
    let elsewhere = text.replace("/hooks/stripe", "/stripe").replace("v1=", "v1=0");
    assert_eq!(causes(&home, "stripe", elsewhere.as_bytes()), ["signature_unreadable", "path?"]);
    let signature = |code: &str| vec![("stripe-signature".to_owned(), code.to_owned())];
    let large = post("/hooks/stripe", &signature(&format!("t=1,v1={}", "00".repeat(32))), &vec![b' '; (5 << 20) + 1]);
    assert_eq!(causes(&home, "stripe", &large), ["too_large"]);
}

/// Sends requests to the server and runs doctor on the same requests. Doctor checks a request head with the server's own code,
/// so doctor must report the outcome that the server counts.
#[test]
fn doctor_names_the_outcome_that_the_server_counts() {
    let sources = SOURCES.replace("provider = \"stripe\"", "provider = \"stripe\"\nmax_body = \"1 KiB\"");
    let home = Home::new(SECRETS, &format!("server.drain_delay = \"0s\"\n{sources}"));
    let process = home.start();
    let body = [b' '; 5_000];
    let signature = |code: &str| [("stripe-signature".to_owned(), format!("t=1,v1={code}"))];
    let unsigned = post("/hooks/stripe", &[], &body);
    let wrong_method = String::from_utf8(unsigned.clone()).expect("text").replace("POST ", "PUT ").into_bytes();
    let rejected_by_server = |request: &[u8]| {
        let before = process.deliveries();
        assert!(Line::open(home.hooks).ask(request).status >= 400);
        let after = process.deliveries();
        let counted = after.into_iter().filter(|(series, count)| before.get(series) != Some(count));
        counted.map(|((_, outcome), _)| outcome).collect::<Vec<_>>()
    };
    for (request, outcome, cause) in [
        (unsigned, "signature_missing", "signature_absent"),
        (wrong_method, "method_not_allowed", "method"),
        (post("/hooks/stripe", &signature(&"00".repeat(32)), &body), "too_large", "too_large"),
        (post("/hooks/stripe", &signature("00"), &body), "signature_malformed", "signature_unreadable"),
    ] {
        assert_eq!(rejected_by_server(&request), [outcome]);
        let (_, line) = examine(&home, "stripe", &request, &[]);
        assert_eq!((&line["outcome"], &line["causes"][0]["cause"]), (&outcome.into(), &cause.into()), "{line}");
    }
    // A proxy may have rewritten the path after the request was recorded, so the recorded path may differ from the path that
    // hookhold received. Doctor therefore reports a wrong path only as a possible cause, and the operator names the source.
    let wrong_path = post("/hooks/strip", &[], &body);
    assert_eq!(rejected_by_server(&wrong_path), ["unknown_source"]);
    let (_, line) = examine(&home, "stripe", &wrong_path, &[]);
    let words: Vec<_> = line["causes"].as_array().expect("a list").iter().map(|cause| &cause["cause"]).collect();
    assert_eq!((&line["outcome"], &words[..]), (&"signature_missing".into(), &[&"signature_absent".into(), &"path".into()][..]));
}

#[test]
fn a_genuine_delivery_may_still_be_filtered() {
    let entry = "[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:key\"]\ntypes = [\"invoice.*\"]";
    let (home, mut sdk) = (Home::new(&[("key", STRIPE)], entry), Sdk::start());
    for (body, expected) in [("{\"type\":\"charge.failed\"}", &["filtered"][..]), ("{\"type\":\"invoice.paid\"}", &[])] {
        let request = Signed::new(&mut sdk, "stripe", STRIPE, body).with(body);
        let (code, line) = examine(&home, "stripe", &request, &["--at", &NOW.to_string()]);
        let words: Vec<_> = line["causes"].as_array().expect("a list").iter().map(|cause| &cause["cause"]).collect();
        assert!(code == Some(0) && words == expected, "{line}");
    }
}

#[test]
fn a_request_can_come_from_standard_input() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    let request = Signed::new(&mut sdk, "github", GITHUB, "{}").with("{}");
    home.put("request", &request);
    let config = home.journal().with_file_name("hookhold.toml");
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookhold"))
        .args(["doctor", "github", "--request", "-", "--config"])
        .arg(&config)
        .current_dir(config.parent().expect("a directory"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary has just been built");
    child.stdin.take().expect("stdin is piped").write_all(&request).expect("doctor reads all of it");
    let output = child.wait_with_output().expect("doctor ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "github: the secret github-key verifies the delivery\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_request_can_come_from_a_curl_trace() {
    let (home, mut sdk) = (Home::new(SECRETS, SOURCES), Sdk::start());
    let body = format!("{{\"text\":\"{}\"}}", "é: ".repeat(30_000));
    let signed = Signed::new(&mut sdk, "github", GITHUB, &body);
    let (listener, trace) = (TcpListener::bind("127.0.0.1:0").expect("a port"), home.journal().with_file_name("trace"));
    let url = format!("http://{}/hooks/github", listener.local_addr().expect("it is bound"));
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--trace-time", "--data-binary", "@-", &url, "--trace"]).arg(&trace);
    curl.args(signed.headers.iter().flat_map(|(name, value)| ["--header".to_owned(), format!("{name}: {value}")]));
    let mut curl = curl.stdin(Stdio::piped()).spawn().expect("curl starts: tests/run installs it");
    curl.stdin.take().expect("stdin is piped").write_all(body.as_bytes()).expect("curl reads all of it");
    let (mut server, _) = listener.accept().expect("curl connects");
    let mut received = Vec::new();
    while !received.ends_with(&body.as_bytes()[body.len() - 9..]) {
        let mut part = [0; 4096];
        let count = server.read(&mut part).expect("curl sends");
        received.extend_from_slice(&part[..count]);
    }
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("curl reads");
    assert!(curl.wait().expect("curl ends").success());
    let (code, line) = examine(&home, "github", &std::fs::read(&trace).expect("curl has written the trace"), &[]);
    assert_eq!((code, &line["verifies"]), (Some(0), &Value::Bool(true)), "{line}");
}

#[test]
fn wrong_usage_exits_2_and_names_the_error() {
    let home = Home::new(SECRETS, SOURCES);
    home.put("request", b"POST /hooks/stripe HTTP/1.1\r\nhost: x\r\n");
    for (args, expected) in [
        (&["doctor", "strip", "--request", "request"][..], "did you mean stripe?"),
        (&["doctor", "stripe", "--request", "absent"], "--request absent: "),
        (&["doctor", "stripe", "--request", "request"], "expected an empty line after the headers"),
        (&["doctor", "stripe", "--request", "hookhold.toml"], "expected an HTTP request"),
        (&["doctor", "stripe", "--request", "request", "--at", "yesterday"], "RFC 3339"),
        (&["doctor", "stripe", "--at", "2026-11-21T07:08:13Z"], "--request"),
        (&["doctor", "stripe", "--last", "3", "--request", "request"], "cannot be used with"),
    ] {
        let output = home.verb(args);
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {printed}");
        assert!(printed.contains(expected), "{args:?}: {printed}");
    }
}

/// Runs doctor on an unsigned challenge. hookhold answers such a challenge from any sender, so the verdict does not prove that
/// the secret, the source or the body is correct.
#[test]
fn an_unsigned_challenge_is_answered_and_proves_nothing() {
    let acme = "[sources.acme]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:Acme\" }\ncontent = [\"body\"]\n\
                secrets = [\"file:github-key\"]\nchallenge = [{ when = { \"json:/challenge\" = true }, authenticated = false }]\n";
    let home = Home::new(SECRETS, &(SOURCES.to_owned() + acme));
    let challenge = |source: &str| post(&format!("/hooks/{source}"), &[], b"{\"challenge\":\"c\"}");
    let (code, line) = examine(&home, "acme", &challenge("acme"), &[]);
    assert_eq!((code, &line["verifies"], &line["proved"]), (Some(0), &true.into(), &false.into()), "{line}");
    let printed = home.verb(&["doctor", "acme", "--request", "request"]).stdout;
    assert!(String::from_utf8_lossy(&printed).contains("unsigned endpoint challenge, which proves nothing"), "{printed:?}");
    assert_eq!(causes(&home, "stripe", &challenge("stripe")), ["signature_absent"], "it need not belong to another source");
    let genuine = Signed::new(&mut Sdk::start(), "github", GITHUB, "{}").with("{}");
    let (_, line) = examine(&home, "github", &genuine, &[]);
    assert_eq!((&line["verifies"], &line["proved"]), (&true.into(), &true.into()), "{line}");
}

#[test]
fn a_wrong_verify_token_is_named_as_the_cause() {
    let acme = "[sources.acme]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:Acme\" }\ncontent = [\"body\"]\n\
                secrets = [\"file:github-key\"]\nchallenge = [{ methods = [\"GET\"], when = { \"query:token\" = \"hush\" }, \
                authenticated = false }]\n";
    let home = Home::new(SECRETS, acme);
    let get = |token: &str| format!("GET /hooks/acme?token={token} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes();
    let (code, line) = examine(&home, "acme", &get("hush"), &[]);
    assert_eq!((code, &line["proved"]), (Some(0), &false.into()), "{line}");
    assert_eq!(causes(&home, "acme", &get("other")), ["challenge_unmet"]);
    let (_, line) = examine(&home, "acme", &get("other"), &[]);
    assert!(!line.to_string().contains("hush"), "{line}");
}

#[test]
fn a_key_that_is_not_listed_is_named_as_the_cause() {
    let acme = "[sources.acme]\nauth = \"signature\"\nalgorithm = \"ed25519\"\nkey_format = \"raw-hex\"\ncontent = [\"body\"]\n\
                signature = { from = \"header:Acme\" }\nfetch = { url = \"https://acme.example/keys\", key_id = \"header:Key-Id\" }\n\
                public_keys = [{ id = \"1\", from = \"dff7f38f2732eb12c658d84c5851a455ce3647a25d6ae3397a93a6fb117a0a42\" }]\n";
    let home = Home::new(SECRETS, acme);
    let signed_with = |id: &str| {
        let head = format!("POST /hooks/acme HTTP/1.1\r\nacme: {}\r\nkey-id: {id}\r\ncontent-length: 2\r\n\r\n", "00".repeat(64));
        [head.as_bytes(), b"{}"].concat()
    };
    let (code, line) = examine(&home, "acme", &signed_with("2"), &[]);
    assert_eq!(
        (code, &line["outcome"], &line["causes"][0]["cause"]),
        (Some(1), &"key_unavailable".into(), &"key_not_listed".into())
    );
    let what = line["causes"][0]["what"].as_str().expect("a text");
    assert!(what.contains("the key 2 from https://acme.example/keys"), "{what}");
    assert!(!causes(&home, "acme", &signed_with("1")).contains(&"key_not_listed".to_owned()), "a listed key");
}

#[test]
fn time_dependent_causes_are_certain_only_with_at() {
    let entry =
        "[sources.stripe]\nprovider = \"stripe\"\nsecrets = [{ name = \"old\", from = \"file:old\", not_after = 2021-02-01 }]";
    let (ended, whole) = (Home::new(&[("old", STRIPE)], entry), Home::new(SECRETS, SOURCES));
    let (now, mut sdk) =
        (std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs(), Sdk::start());
    let ahead = Sample { scheme: "stripe", secret: STRIPE, id: "msg_1", timestamp: now + 86_400, body: b"{}" };
    let ahead = post("/hooks/stripe", &sdk.sign(ahead).headers, b"{}");
    let late = Signed::new(&mut sdk, "stripe", STRIPE, "{}").with("{}");
    for (home, request, expected) in
        [(&whole, &late, &["stale"][..]), (&whole, &ahead, &["clock"]), (&ended, &late, &["secret_expired", "stale"])]
    {
        let (_, line) = examine(home, "stripe", request, &[]);
        let causes = line["causes"].as_array().expect("a list");
        let words: Vec<_> = causes.iter().map(|cause| &cause["cause"]).collect();
        assert_eq!(words, expected, "{line}");
        assert!(causes.iter().all(|cause| cause["certainty"] == "possible"), "{line}");
        assert!(causes.iter().all(|cause| cause["do"].as_str().is_some_and(|advice| advice.contains("--at"))), "{line}");
    }
}

/// Checks that doctor reports the cause `other_secret` as likely only if there is evidence, and otherwise as possible. A
/// request does not show which secret signed it, but whitespace around the configured secret is evidence.
#[test]
fn another_secret_is_likely_only_with_evidence() {
    let mut sdk = Sdk::start();
    for (stored, expected) in [(STRIPE.to_owned(), "possible"), (format!("{STRIPE}\n\n"), "likely")] {
        let home = Home::new(&[("key", &stored)], "[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:key\"]");
        let request = Signed::new(&mut sdk, "stripe", ANOTHER, "{}").with("{}");
        let (_, line) = examine(&home, "stripe", &request, &["--at", &NOW.to_string()]);
        let cause = &line["causes"][0];
        assert_eq!((&cause["cause"], &cause["certainty"]), (&"other_secret".into(), &expected.into()), "{line}");
    }
}

/// Runs doctor on requests with a wrong signature. The recipe has two alternatives for the signed content, and each request
/// contains all parts of only one alternative. If the signature is readable, doctor must explain the mismatch with this
/// alternative and must not report the missing part of the other alternative.
#[test]
fn a_signature_over_complete_content_is_not_reported_unreadable() {
    let entry = "[sources.acme]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsignature = { from = \"header:Acme\" }\nsecrets = [\"file:key\"]\n\
                 content_variants = [[\"body\"], [\"header:Acme-Time\", \"body\"]]";
    let home = Home::new(&[("key", "acme")], entry);
    // printf '{}\n' | openssl dgst -sha256 -hmac acme
    let code = "cdfddd90686930721dcdac7331e5cdd20319d5880f71a2e77ad7896124c48bbc";
    let signed = |code: &str| post("/hooks/acme", &[("acme".to_owned(), code.to_owned())], b"{}");
    assert_eq!(causes(&home, "acme", &signed(code)), ["body_newline"]);
    assert_eq!(causes(&home, "acme", &signed(&"00".repeat(32))), ["other_secret?", "body_changed?"]);
    assert_eq!(causes(&home, "acme", &signed("00")), ["signature_unreadable"]);
}

/// Scripts compare the identifiers of causes, so each identifier in the code must be in the table of the runbook, and the table
/// must contain no other.
#[test]
fn the_runbook_lists_every_identifier_of_a_cause() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(root.join("src/cli/doctor")).expect("the files of doctor");
    let code: String = files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text")).collect();
    let is_word = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let mut used = std::collections::BTreeSet::new();
    for begin in
        ["Cause::certain(\"", "Cause::likely(\"", "Cause::possible(\"", "&str = \"body_", "changed(\"", "    (\"", "push((\""]
    {
        for at in code.match_indices(begin).map(|(at, _)| at + begin.find('"').expect("a quote") + 1) {
            let word = code[at..].split('"').next().filter(is_word).filter(|word| begin.contains("Cause") || word.contains("_"));
            used.extend(word.map(str::to_owned));
        }
    }
    let page = std::fs::read_to_string(root.join("docs/runbook.md")).expect("the runbook");
    let table = page.split("| cause | meaning | remedy |").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a table");
    let listed: std::collections::BTreeSet<String> = table
        .lines()
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').filter(is_word).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let missing: Vec<_> = used.difference(&listed).collect();
    let unused: Vec<_> = listed.iter().filter(|word| !code.contains(&format!("\"{word}\""))).collect();
    assert!(used.len() > 25 && missing.is_empty() && unused.is_empty(), "missing {missing:?}, unused {unused:?}, used {used:?}");
}
