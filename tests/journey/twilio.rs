//! Tests of deliveries that Twilio's own SDK signs. Twilio signs the URL of the request. If the body is a form, the signature
//! also covers the form fields. If the body is not a form, the query of the signed URL contains a hash of the body. The `Host`
//! header of every test request differs from the host of the public URL.

use sha2::{Digest, Sha256};

use crate::counters::{moved_by, one};
use crate::kafka::{self, Kafka};
use crate::process::{Answer, Home, Line, post};
use crate::sdk::{Sample, Sdk};

/// A delivery and the expected contents of its Kafka record.
struct Example {
    what: &'static str,
    source: &'static str,
    /// Scheme, host, port and path prefix of the signed URL. The port may differ from the port in the configuration.
    signed: &'static str,
    query: &'static str,
    media_type: &'static str,
    body: &'static str,
    /// Expected `ce_id`, `ce_type`, key and `hookhold-integrity` of the record for a delivery without an idempotency
    /// token.
    facts: [Option<&'static str>; 4],
}

const STATUS: &str = "AccountSid=AC1&MessageSid=SM1&MessageStatus=delivered&SmsSid=SM1&SmsStatus=delivered&To=%2B15551112222";
const EXAMPLES: &[Example] = &[
    Example {
        what: "a form",
        source: "twilio",
        signed: PUBLIC,
        query: "",
        media_type: FORM,
        body: STATUS,
        facts: [Some("SM1.delivered"), Some("com.twilio.message.delivered"), Some("SM1"), Some("partial")],
    },
    Example {
        what: "repeated names, empty values, spaces, escapes and characters of every kind",
        source: "twilio",
        signed: PUBLIC,
        query: "?a=b%20c&d=%C3%A9&'e(f)=~*&g",
        media_type: FORM,
        body: "SmsStatus=received&MessageSid=SM2&MediaUrl=b&MediaUrl=a&MediaUrl=b&MediaUrl=&MediaUrl=&Body=caf%C3%A9+%2B1%25+%e2%9c%93\
               &Empty=&Bare&b=1&B=2&a+b=3&%F0%9F%98%80=4&%EF%BD%B1=5&%C3%A9=%F0%9F%98%80%EF%BF%BD&&z=%=",
        facts: [Some("SM2.received"), Some("com.twilio.message.received"), Some("SM2"), Some("partial")],
    },
    Example {
        what: "a URL signed with a port that is not configured",
        source: "twilio",
        signed: "https://twilio.example.com:443/in",
        query: "?x=1",
        media_type: FORM,
        body: "CallSid=CA1&CallStatus=completed&SequenceNumber=2",
        facts: [Some("CA1.completed.2"), Some("com.twilio.call.completed"), Some("CA1"), Some("partial")],
    },
    Example {
        what: "a URL signed with the port that is configured",
        source: "odd",
        signed: "https://twilio.example.com:8443",
        query: "",
        media_type: FORM,
        body: "CallSid=CA2&CallStatus=ringing",
        facts: [None, Some("com.twilio.call.ringing"), Some("CA2"), Some("partial")],
    },
    Example {
        what: "a URL signed without the port that is configured",
        source: "odd",
        signed: "https://twilio.example.com",
        query: "",
        media_type: FORM,
        body: "CallSid=CA2&CallStatus=in-progress&Digits=1",
        facts: [None, Some("com.twilio.call.in-progress"), Some("CA2"), Some("partial")],
    },
    Example {
        what: "JSON",
        source: "twilio",
        signed: PUBLIC,
        query: "?x=1&bodySHA256=HASH",
        media_type: "application/json",
        body: "[{\"specversion\":\"1.0\",\"id\":\"EZ1\",\"data\":{\"caf\\u00e9\":\"é\"}}]\r\n",
        facts: [None, Some("twilio.unknown"), None, Some("partial")],
    },
    Example {
        what: "JSON to a URL signed with the other port",
        source: "odd",
        signed: "https://twilio.example.com",
        query: "?bodySHA256=HASH",
        media_type: "application/json",
        body: "{}",
        facts: [None, Some("odd.unknown"), None, Some("partial")],
    },
    Example {
        what: "an empty form",
        source: "twilio",
        signed: PUBLIC,
        query: "",
        media_type: FORM,
        body: "",
        facts: [None, Some("twilio.unknown"), None, Some("partial")],
    },
];

impl Example {
    fn target(&self) -> String {
        format!(
            "/hooks/{}{}",
            self.source,
            self.query.replace("HASH", &base16ct::lower::encode_string(&Sha256::digest(self.body)))
        )
    }

    /// Returns the HTTP request that Twilio sends. `token` is the idempotency token, which may be empty.
    fn request(&self, sdk: &mut Sdk, secret: &str, token: &str) -> Vec<u8> {
        let (target, body) = (self.target(), self.body.as_bytes());
        let sample = Sample { scheme: "twilio", secret, id: token, timestamp: 0, body };
        let signed = sdk.sign_for_url(sample, &format!("{}{target}", self.signed));
        assert_eq!(signed.by, "twilio 6.3.1");
        let media_type = ("Content-Type".to_owned(), self.media_type.to_owned());
        post(&target, &[signed.headers, vec![media_type]].concat(), body)
    }
}

#[test]
fn twilio_arrives_in_kafka_byte_exact_and_once() {
    let kafka = kafka::shared();
    kafka.create_topic("arrives-twilio", 1, &[]);
    let home = home(kafka, "arrives-twilio");
    let process = home.start();
    let (mut sdk, mut line) = (Sdk::start(), Line::open(home.hooks));
    for example in EXAMPLES {
        let request = example.request(&mut sdk, TOKEN, "");
        let answer = line.ask(&request);
        assert_empty_twiml(example.what, &answer);
        if example.facts[0].is_some() {
            assert_eq!(line.ask(&request), answer, "{}: sent again", example.what);
        }
        let request = example.request(&mut sdk, TOKEN, &format!("{}, once more", example.what));
        assert_eq!(line.ask(&request), answer, "{}: another token makes another event", example.what);
        assert_eq!(line.ask(&request), answer, "{}: sent again with its token", example.what);
    }
    let records = kafka.wait_for_records("arrives-twilio", 2 * EXAMPLES.len());
    for (example, pair) in EXAMPLES.iter().zip(records.chunks(2)) {
        let token = format!("{}, once more", example.what);
        for (record, id) in pair.iter().zip([example.facts[0], Some(&*token)]) {
            let position = format!("{}-{}", record.header("hookhold-log"), record.header("hookhold-seq"));
            let [_, kind, key, integrity] = example.facts;
            let id = id.unwrap_or(&position);
            assert_eq!(record.value.as_deref(), Some(example.body.as_bytes()), "{}", example.what);
            assert_eq!(record.key.as_deref(), Some(key.unwrap_or(id).as_bytes()), "{}", example.what);
            let base = if example.source == "odd" { "https://twilio.example.com:8443" } else { PUBLIC };
            assert_eq!(record.header("hookhold-url"), format!("{base}{}", example.target()), "{}", example.what);
            let found = ["ce_id", "ce_type", "hookhold-integrity", "hookhold-auth"].map(|name| record.header(name));
            assert_eq!(
                Some(found),
                kind.zip(integrity).map(|(kind, integrity)| [id, kind, integrity, "mac-sha1:2026-11"]),
                "{}",
                example.what
            );
        }
    }
    let stored: u64 =
        process.deliveries().into_iter().filter(|((_, outcome), _)| outcome == "stored").map(|(_, count)| count).sum();
    assert_eq!(stored, 2 * EXAMPLES.len() as u64, "a duplicate made a record");
}

#[test]
fn each_twilio_delivery_moves_its_own_counter() {
    let kafka = kafka::shared();
    kafka.create_topic("counted-twilio", 1, &[]);
    let home = home(kafka, "counted-twilio");
    let process = home.start();
    let mut sdk = Sdk::start();
    let [form, json] = ["a form", "JSON"].map(|what| EXAMPLES.iter().find(|example| example.what == what).expect("an example"));
    let [form_request, json_request] = [form, json].map(|example| example.request(&mut sdk, TOKEN, "token"));
    let replaced = |request: &[u8], from: &str, to: &str| {
        let text = String::from_utf8(request.to_vec()).expect("text");
        assert!(text.contains(from), "{from} is not in {text}");
        text.replacen(from, to, 1).into_bytes()
    };
    let hash = base16ct::lower::encode_string(&Sha256::digest(json.body));
    let other_hash = base16ct::lower::encode_string(&Sha256::digest(""));
    let emptied =
        replaced(&replaced(&json_request, json.body, ""), &format!("content-length: {}", json.body.len()), "content-length: 0");
    let deliveries = [
        ("a form", form_request.clone(), 200, "stored"),
        ("the same again", form_request.clone(), 200, "duplicate"),
        ("JSON", json_request.clone(), 200, "stored"),
        ("the same again", json_request.clone(), 200, "duplicate"),
        ("a form with another value", replaced(&form_request, "=SM1&", "=SM2&"), 401, "signature_mismatch"),
        ("a form with another field", replaced(&form_request, "AccountSid=AC1", "AccountSid&a=1"), 401, "signature_mismatch"),
        ("JSON with another body", replaced(&json_request, "EZ1", "EZ2"), 401, "signature_mismatch"),
        ("JSON with an empty body", emptied.clone(), 401, "signature_mismatch"),
        ("the same, with the hash of an empty body", replaced(&emptied, &hash, &other_hash), 401, "signature_mismatch"),
        ("JSON without the hash", replaced(&json_request, &format!("&bodySHA256={hash}"), ""), 401, "signature_mismatch"),
        ("another query", replaced(&json_request, "x=1", "x=2"), 401, "signature_mismatch"),
        ("an added query", replaced(&form_request, "/hooks/twilio ", "/hooks/twilio?a=b "), 401, "signature_mismatch"),
        ("the URL of another source", replaced(&form_request, "/hooks/twilio ", "/hooks/odd "), 401, "signature_mismatch"),
        ("signed with the wrong secret", form.request(&mut sdk, "54321", "token"), 401, "signature_mismatch"),
        ("without its signature", replaced(&form_request, "X-Twilio-Signature", "X-Nothing"), 401, "signature_missing"),
        (
            "with an unreadable signature",
            replaced(&form_request, "X-Twilio-Signature: ", "X-Twilio-Signature: ab"),
            401,
            "signature_malformed",
        ),
    ];
    for (what, request, status, outcome) in &deliveries {
        let (moved, answer) = moved_by(&home, &process, request);
        let source = if *what == "the URL of another source" { "odd" } else { "twilio" };
        assert_eq!((answer.status, moved), (*status, one(source, outcome)), "{what}");
    }
    let records = kafka.wait_for_records("counted-twilio", 2);
    let values: Vec<_> = records.into_iter().filter_map(|record| record.value).collect();
    assert_eq!(values, [form.body.as_bytes(), json.body.as_bytes()], "only stored deliveries are forwarded");
}

#[test]
fn twilio_samples_verify_unless_they_are_damaged() {
    let kafka = kafka::shared();
    kafka.create_topic("sent-twilio", 1, &[]);
    let home = home(kafka, "sent-twilio");
    let _process = home.start();
    home.put("body.json", b"{\"a\":1}");
    for args in [
        &["--count", "3", "--repeat-percent", "50"][..],
        &["--body", "body.json"],
        &["--tamper", "body"],
        &["--tamper", "secret"],
    ] {
        for source in ["twilio", "odd"] {
            let sent = home.verb(&[&["send", source], args].concat());
            assert!(sent.status.success(), "{args:?}: {sent:?}");
        }
    }
    let shown = home.verb(&["providers", "twilio"]);
    let text = String::from_utf8(shown.stdout).expect("text");
    for line in ["https://twilio.example.com/in/hooks/twilio", "public_url = \"https://twilio.example.com/in\"", "Auth Token"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// One URL receives deliveries that Twilio signs with SHA-1 under the auth token, and with SHA-256 under a shared key if a
/// Webhook Rule applies. The URL in the console contains a user name and a password, and Twilio signs it with both.
#[test]
fn twilio_signs_with_a_token_or_a_shared_key_on_one_url() {
    const HUSH: &str = "hush+hush";
    let kafka = kafka::shared();
    kafka.create_topic("shared-twilio", 1, &[]);
    let base = format!("https://user:{HUSH}@twilio.example.com/in");
    let home = Home::new(
        &[("token", TOKEN), ("shared", "a shared key")],
        &format!(
            "server.drain_delay = \"0s\"\nserver.public_url = \"{base}\"\nadmin.keep_rejected = \"1 MiB\"\n\
             [kafka]\nbootstrap.servers = \"{}\"\n[sources.twilio]\nprovider = \"twilio\"\ntopic = \"shared-twilio\"\n\
             secrets = [{{ name = \"token\", from = \"file:token\" }}, {{ name = \"shared\", from = \"file:shared\" }}]\n",
            kafka.bootstrap()
        ),
    );
    let process = home.start();
    let (mut sdk, mut line) = (Sdk::start(), Line::open(home.hooks));
    let mut number = 0;
    let mut ask = |scheme: &'static str, secret: &str, url: &str, target: &str| {
        number += 1;
        let body = format!("MessageSid=SM{number}&MessageStatus=sent");
        let sample = Sample { scheme, secret, id: "", timestamp: 0, body: body.as_bytes() };
        let signed = sdk.sign_for_url(sample, url);
        assert_eq!(signed.by, "twilio 6.3.1");
        let media_type = ("Content-Type".to_owned(), FORM.to_owned());
        (line.ask(&post(target, &[signed.headers, vec![media_type]].concat(), body.as_bytes())).status, body)
    };
    let (as_called, rewritten) = ("/hooks/twilio?n=O'Hara+x&b=1", "/hooks/twilio?n=O%27Hara+x&b=1");
    let mut stored = Vec::new();
    for (scheme, secret, signed, auth) in [
        ("twilio", TOKEN, format!("{base}{as_called}"), "mac-sha1:token"),
        ("twilio-sha256", "a shared key", format!("{base}{as_called}"), "mac-sha256:shared"),
        ("twilio", TOKEN, format!("{base}{rewritten}"), "mac-sha1:token"),
        ("twilio-sha256", "a shared key", format!("{}{rewritten}", base.replace(".com", ".com:443")), "mac-sha256:shared"),
    ] {
        let (status, body) = ask(scheme, secret, &signed, as_called);
        assert_eq!(status, 200, "{scheme}: {signed}");
        stored.push((body, auth));
    }
    for (scheme, secret, signed) in [
        ("twilio-sha256", "another key", format!("{base}{as_called}")),
        ("twilio", "another token", format!("{base}{as_called}")),
        ("twilio-sha256", "a shared key", format!("{PUBLIC}{as_called}")),
        ("twilio", TOKEN, format!("{base}/hooks/twilio?b=1&n=O'Hara+x")),
    ] {
        assert_eq!(ask(scheme, secret, &signed, as_called).0, 401, "{scheme}: {signed}");
    }
    let records = kafka.wait_for_records("shared-twilio", stored.len());
    for (record, (body, auth)) in records.iter().zip(&stored) {
        assert_eq!((record.value.as_deref(), record.header("hookhold-auth")), (Some(body.as_bytes()), *auth));
        assert!(!format!("{record:?}").contains(HUSH), "{record:?}");
    }
    for args in [
        &["check"][..],
        &["check", "--format", "json"],
        &["providers", "twilio"],
        &["doctor", "twilio"],
        &["doctor", "twilio", "--format", "json"],
        &["rejections"],
        &["status"],
        &["send", "twilio"],
        &["send", "twilio", "--tamper", "secret"],
    ] {
        let output = home.verb(args);
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!printed.contains(HUSH) && !printed.is_empty(), "{args:?}: {printed}");
    }
    assert!(home.verb(&["check"]).status.success());
    assert!(!process.metrics().contains(HUSH) && !home.log().contains(HUSH), "the password is in the metrics or the log");
}

fn home(kafka: &Kafka, topic: &str) -> Home {
    let source = |name: &str, more: &str| {
        let secrets = "secrets = [{ name = \"2026-11\", from = \"file:secret\" }]";
        format!("[sources.{name}]\nprovider = \"twilio\"\n{secrets}\ntopic = \"{topic}\"\n{more}\n")
    };
    let server = format!("server.drain_delay = \"0s\"\nserver.public_url = \"{PUBLIC}\"\n");
    let kafka = format!("[kafka]\nbootstrap.servers = \"{}\"\n", kafka.bootstrap());
    let odd = source("odd", "public_url = \"https://twilio.example.com:8443\"");
    Home::new(&[("secret", TOKEN)], &[server, kafka, source("twilio", ""), odd].concat())
}

/// Asserts that the response is an empty TwiML document. If the response contained other text, Twilio would send this text to
/// the author of the incoming message.
fn assert_empty_twiml(what: &str, answer: &Answer) {
    assert_eq!((answer.status, &*answer.body), (200, &b"<Response></Response>"[..]), "{what}");
    assert!(answer.head.contains("content-type: text/xml\r\n"), "{what}: {}", answer.head);
}

const TOKEN: &str = "12345";
const PUBLIC: &str = "https://twilio.example.com/in";
const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";
