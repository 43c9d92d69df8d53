//! Sends the endpoint challenges of many providers to inline recipes, over HTTP/1.1 and over HTTP/2, and checks the complete
//! replies. openssl computes every HMAC, so that no code under test decides what is right.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::h2::Client;
use crate::harness::{self, Harness, now};
use crate::https::Pair;

/// Secret of every source in this file.
const SECRET: &str = "0123456789abcdef-secret";

const META: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Hub-Signature-256", prefix = "sha256=" }
content = ["body"]
values = { verify_token = "my token+1" }
[[challenge]]
methods = ["GET"]
when = { "query:hub.mode" = "subscribe", "query:hub.verify_token" = "config:verify_token" }
authenticated = false
reply = { body = ["echo(query:hub.challenge)"] }
"#;
const X: &str = r#"
auth = "mac"
algorithm = "sha256"
encoding = "base64"
signature = { from = "header:x-twitter-webhooks-signature", prefix = "sha256=" }
content = ["body"]
[[challenge]]
methods = ["GET"]
when = { "query:crc_token" = true }
authenticated = false
reply = { content_type = "application/json", body = ["const:{\"response_token\":\"sha256=", "hmac(sha256, percent-decode(query:crc_token), base64)", "const:\"}"] }
"#;
const ZOOM: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:x-zm-signature", prefix = "v0=" }
timestamp = { from = "header:x-zm-request-timestamp", unit = "s" }
content = ["const:v0:", "timestamp", ":", "body"]
[[challenge]]
when = { "json:/event" = "endpoint.url_validation" }
reply = { content_type = "application/json", body = ["const:{\"plainToken\":", "json(echo(json:/payload/plainToken))", "const:,\"encryptedToken\":", "json(hmac(sha256, json:/payload/plainToken, hex))", "const:}"] }
"#;
const LINKEDIN: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-LI-Signature" }
content = ["const:hmacsha256=", "body"]
[[challenge]]
methods = ["GET"]
when = { "query:challengeCode" = true }
authenticated = false
reply = { content_type = "application/json", body = ["const:{\"challengeCode\":", "json(percent-decode(query:challengeCode))", "const:,\"challengeResponse\":", "json(hmac(sha256, percent-decode(query:challengeCode), hex))", "const:}"] }
"#;
/// Dropbox and Nylas sign and check the endpoint in the same way.
const DROPBOX: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Dropbox-Signature" }
content = ["body"]
[[challenge]]
methods = ["GET"]
when = { "query:challenge" = true }
authenticated = false
reply = { content_type = "text/plain", body = ["percent-decode(query:challenge)"] }
"#;
const CLOUDEVENTS: &str = r#"
auth = "token"
token = { from = ["header:Authorization"], prefix = "Bearer " }
[[challenge]]
methods = ["OPTIONS"]
when = { "header:WebHook-Request-Origin" = true }
authenticated = false
[challenge.reply.headers]
WebHook-Allowed-Origin = "echo(header:WebHook-Request-Origin)"
WebHook-Allowed-Rate = "const:*"
Allow = ["const:POST", "const:, OPTIONS"]
"#;
const OKTA: &str = r#"
auth = "token"
token = { from = "header:Authorization" }
[[challenge]]
methods = ["GET"]
when = { "header:X-Okta-Verification-Challenge" = true }
authenticated = false
reply = { content_type = "application/json", body = ["const:{\"verification\":", "json(echo(header:X-Okta-Verification-Challenge))", "const:}"] }
"#;
const GRAPH: &str = r#"
auth = "token"
token = { from = "json:/value/0/clientState" }
[[challenge]]
when = { "query:validationToken" = true }
authenticated = false
reply = { content_type = "text/plain", body = ["percent-decode(query:validationToken)"] }
"#;
const TRELLO: &str = r#"
auth = "mac"
algorithm = "sha1"
encoding = "base64"
signature = { from = "header:X-Trello-Webhook" }
content = ["body"]
challenge = [{ methods = ["HEAD"], authenticated = false }]
"#;
/// Mailchimp checks the endpoint with GET and HEAD requests without any parameter.
const MAILCHIMP: &str = r#"
auth = "token"
token = { from = "query:secret" }
challenge = [{ methods = ["GET", "HEAD"], authenticated = false, reply = { body = "const:ready" } }]
"#;
const TWITCH: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:Twitch-Eventsub-Message-Signature", prefix = "sha256=" }
content = ["header:Twitch-Eventsub-Message-Id", "body"]
challenge = [{ when = { "header:Twitch-Eventsub-Message-Type" = "webhook_callback_verification" }, reply = { content_type = "text/plain", body = ["echo(json:/challenge)"] } }]
"#;
const BRAINTREE: &str = r#"
auth = "mac"
algorithm = "sha1"
key_format = ["utf8", "sha1"]
signature = { from = "form:bt_signature", items = "&", pair = "|", take = ["public-key"] }
content = ["form:bt_payload"]
values = { public_key = "public-key" }
challenge = [{ methods = ["GET"], when = { "query:bt_challenge" = true }, authenticated = false, reply = { body = ["config:public_key", "const:|", "hmac(sha1, query:bt_challenge, hex)"] } }]
"#;
const ASANA: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Hook-Signature" }
content = ["body"]
challenge = [{ when = { "header:X-Hook-Secret" = true }, authenticated = false, effect = "learn-secret(header:X-Hook-Secret)", reply = { headers = { X-Hook-Secret = "echo(header:X-Hook-Secret)" } } }]
"#;
/// A sender that confirms a subscription by a URL, as Amazon SNS does, and reports the end of a subscription.
const TOPIC: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Topic-Signature" }
content = ["body"]
challenge = [
  { when = { "json:/Type" = "SubscriptionConfirmation" }, effect = "visit-url(json:/SubscribeURL)" },
  { when = { "json:/Type" = "UnsubscribeConfirmation" }, authenticated = false, effect = "report(json:/Message)" },
  { when = { "json:/Type" = "Check" }, authenticated = false, effect = "report" },
]
"#;
const SOURCES: &[(&str, &str, &str)] = &[
    ("meta", SECRET, META),
    ("x", SECRET, X),
    ("zoom", SECRET, ZOOM),
    ("linkedin", SECRET, LINKEDIN),
    ("dropbox", SECRET, DROPBOX),
    ("cloudevents", SECRET, CLOUDEVENTS),
    ("okta", SECRET, OKTA),
    ("graph", SECRET, GRAPH),
    ("trello", SECRET, TRELLO),
    ("mailchimp", SECRET, MAILCHIMP),
    ("twitch", SECRET, TWITCH),
    ("slack", SECRET, "provider = \"slack\""),
    ("braintree", SECRET, BRAINTREE),
    ("asana", SECRET, ASANA),
    ("topic", SECRET, TOPIC),
];

/// One request, and the response that its sender must receive.
struct Exchange {
    name: &'static str,
    method: &'static str,
    /// The path and query after `/hooks/`. The first part is the name of the source.
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    outcome: &'static str,
    status: u16,
    /// Header fields that the response must have.
    replied: Vec<(&'static str, String)>,
    reply: String,
}

impl Exchange {
    fn new(name: &'static str, method: &'static str, target: impl Into<String>) -> Exchange {
        let (outcome, status) = ("challenge", 200);
        let (headers, replied) = (Vec::new(), Vec::new());
        Exchange {
            name,
            method,
            target: target.into(),
            headers,
            body: String::new(),
            outcome,
            status,
            replied,
            reply: String::new(),
        }
    }

    fn with(mut self, header: &str, value: impl Into<String>) -> Exchange {
        self.headers.push((header.to_ascii_lowercase(), value.into()));
        self
    }

    fn body(self, body: impl Into<String>) -> Exchange {
        Exchange { body: body.into(), ..self }
    }

    fn replies(self, media_type: &str, reply: impl Into<String>) -> Exchange {
        let fields = [("content-type", media_type.to_owned()), ("x-content-type-options", "nosniff".to_owned())];
        Exchange { replied: [self.replied, fields.into()].concat(), reply: reply.into(), ..self }
    }

    fn field(mut self, name: &'static str, value: impl Into<String>) -> Exchange {
        self.replied.push((name, value.into()));
        self
    }

    fn ends_as(self, outcome: &'static str, status: u16) -> Exchange {
        Exchange { outcome, status, ..self }
    }

    fn source(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Sends the request over HTTP/1.1 on a new connection.
    async fn over_http1(&self, harness: &Harness) -> Response<Bytes> {
        let fields: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (method, target, length) = (self.method, &self.target, self.body.len());
        let head = format!("{method} /hooks/{target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n");
        let text = harness.line().await.end(format!("{head}{fields}\r\n{}", self.body)).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{}: {text}", self.name));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let fields = lines.map(|line| line.split_once(": ").expect("a field"));
        let response = fields.fold(Response::builder().status(status), |response, (name, value)| response.header(name, value));
        response.body(Bytes::copy_from_slice(body.as_bytes())).expect("a response")
    }

    fn check(&self, response: &Response<Bytes>, protocol: &str) {
        let what = format!("{} over {protocol}: {response:?}", self.name);
        assert_eq!(response.status().as_u16(), self.status, "{what}");
        assert_eq!(String::from_utf8_lossy(response.body()), self.reply, "{what}");
        for (name, value) in &self.replied {
            let all: Vec<_> = response.headers().get_all(*name).iter().collect();
            assert_eq!(all, [value.as_str()], "{name}: {what}");
        }
        assert_eq!(response.headers().contains_key("x-content-type-options"), has_media_type(response.headers()), "{what}");
        if self.method != "HEAD" {
            let length = response.headers().get("content-length").map(|value| value.to_str().expect("a number").to_owned());
            assert!(length.is_none_or(|length| length == response.body().len().to_string()), "{what}");
        }
    }
}

fn has_media_type(headers: &HeaderMap) -> bool {
    headers.contains_key("content-type")
}

/// Sends every request over HTTP/1.1 and over HTTP/2, and checks each response, each outcome and the number of stored events.
async fn run(exchanges: &[Exchange], stored: u64) {
    let pair = Pair::new(30);
    let (plain, secure) = (Harness::with_sources(SOURCES, None), Harness::with_sources(SOURCES, Some(pair.files())));
    let mut client = Client::connect(secure.address(), &pair).await;
    for exchange in exchanges {
        let outcomes = |harness: &Harness| harness.count(exchange.source(), exchange.outcome);
        let before = (outcomes(&plain), outcomes(&secure));
        exchange.check(&exchange.over_http1(&plain).await, "HTTP/1.1");
        let path = format!("/hooks/{}", exchange.target);
        let response = client.ask(exchange.method, &path, &exchange.headers, &exchange.body).await;
        exchange.check(&response, "HTTP/2");
        assert_eq!((outcomes(&plain), outcomes(&secure)), (before.0 + 1, before.1 + 1), "{}", exchange.name);
    }
    assert_eq!((plain.stored(), secure.stored()), (stored, stored));
}

/// Computes an HMAC with openssl.
pub fn hmac(algorithm: &str, key: &[u8], content: impl AsRef<[u8]>) -> Vec<u8> {
    let key = format!("hexkey:{}", base16ct::lower::encode_string(key));
    let args = ["dgst", "-binary", &format!("-{algorithm}"), "-mac", "hmac", "-macopt", &key];
    let mut openssl =
        Command::new("openssl").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("openssl is installed");
    openssl.stdin.take().expect("piped").write_all(content.as_ref()).expect("openssl reads");
    let output = openssl.wait_with_output().expect("openssl ends");
    assert!(output.status.success() && output.stdout.len() >= 20, "{output:?}");
    output.stdout
}

fn hex(content: &str) -> String {
    base16ct::lower::encode_string(&hmac("sha256", SECRET.as_bytes(), content))
}

fn base64(content: &str) -> String {
    STANDARD.encode(hmac("sha256", SECRET.as_bytes(), content))
}

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

fn meta(token: &str) -> Exchange {
    let target = format!("meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={token}");
    Exchange::new("Meta", "GET", target)
}

fn zoom(body: &str) -> Exchange {
    let time = now();
    let signature = format!("v0={}", hex(&format!("v0:{time}:{body}")));
    Exchange::new("Zoom", "POST", "zoom")
        .with("x-zm-signature", signature)
        .with("x-zm-request-timestamp", time.to_string())
        .body(body)
}

fn twitch(body: &str) -> Exchange {
    Exchange::new("Twitch", "POST", "twitch")
        .with("Twitch-Eventsub-Message-Id", "m-1")
        .with("Twitch-Eventsub-Message-Signature", format!("sha256={}", hex(&format!("m-1{body}"))))
        .with("Twitch-Eventsub-Message-Type", "webhook_callback_verification")
        .body(body)
}

fn slack(body: &str) -> Exchange {
    let time = now();
    Exchange::new("Slack", "POST", "slack")
        .with("X-Slack-Signature", format!("v0={}", hex(&format!("v0:{time}:{body}"))))
        .with("X-Slack-Request-Timestamp", time.to_string())
        .body(body)
}

#[tokio::test]
async fn the_challenges_of_twelve_providers_get_their_replies() {
    let braintree_key = base16ct::lower::decode_vec(SECRET_SHA1).expect("hexadecimal");
    let braintree = base16ct::lower::encode_string(&hmac("sha1", &braintree_key, "20f9f8ed05f77439fe955c977e4c8a53"));
    let graph = "graph?validationToken=Validation%3A+Testing+client+Request-Id%3a+a%2Bb%20%C3%A9";
    let uuid = "890e4665-4dfe-4ab1-b689-ed553bceeed0";
    let linkedin = format!("{{\"challengeCode\":\"{uuid}\",\"challengeResponse\":\"{}\"}}", hex(uuid));
    let crc = "MDA1NWM4YzItZjQ5Mi00ZDRk==";
    let zoom_reply =
        format!("{{\"plainToken\":\"qgg8vlvZRS6UYooatFL8Aw\",\"encryptedToken\":\"{}\"}}", hex("qgg8vlvZRS6UYooatFL8Aw"));
    let exchanges = [
        meta("my+token%2B1").replies(PLAIN, "1158201444"),
        meta("my%20token%2b1").replies(PLAIN, "1158201444"),
        Exchange::new("X", "GET", format!("x?crc_token={crc}&nonce=n"))
            .replies(JSON, format!("{{\"response_token\":\"sha256={}\"}}", base64(crc))),
        Exchange::new("X, encoded", "GET", format!("x?crc_token={}", crc.replace('=', "%3D")))
            .replies(JSON, format!("{{\"response_token\":\"sha256={}\"}}", base64(crc))),
        zoom(r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#)
            .replies(JSON, zoom_reply),
        Exchange::new("LinkedIn", "GET", format!("linkedin?challengeCode={uuid}")).replies(JSON, linkedin),
        Exchange::new("Dropbox", "GET", "dropbox?challenge=dyAHLO-x_1").replies("text/plain", "dyAHLO-x_1"),
        Exchange::new("CloudEvents", "OPTIONS", "cloudevents")
            .with("WebHook-Request-Origin", "eventemitter.example.com")
            .with("WebHook-Request-Rate", "120")
            .field("webhook-allowed-origin", "eventemitter.example.com")
            .field("webhook-allowed-rate", "*")
            .field("allow", "POST, OPTIONS"),
        Exchange::new("Okta", "GET", "okta")
            .with("X-Okta-Verification-Challenge", "a\"b\\c")
            .replies(JSON, r#"{"verification":"a\"b\\c"}"#),
        Exchange::new("Microsoft Graph", "POST", graph)
            .with("content-type", "text/plain; charset=utf-8")
            .replies("text/plain", "Validation: Testing client Request-Id: a+b é"),
        Exchange::new("Trello", "HEAD", "trello").field("content-length", "0"),
        Exchange::new("Mailchimp", "GET", "mailchimp").replies(PLAIN, "ready").field("content-length", "5"),
        Exchange::new("Mailchimp by HEAD", "HEAD", "mailchimp").replies(PLAIN, "").field("content-length", "5"),
        Exchange::new("Mailchimp with its secret", "GET", format!("mailchimp?secret={SECRET}")).replies(PLAIN, "ready"),
        twitch(r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo"}"#).replies("text/plain", "pogchamp-kappa-360noscope-vohiyo"),
        slack(r#"{"type":"url_verification","challenge":"3eZbrw1a"}"#).replies("text/plain", "3eZbrw1a"),
        Exchange::new("Braintree", "GET", "braintree?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53")
            .replies(PLAIN, format!("public-key|{braintree}")),
        Exchange::new("Asana", "POST", "asana")
            .with("X-Hook-Secret", "b537207f20cbfa02357cf448134da559")
            .field("x-hook-secret", "b537207f20cbfa02357cf448134da559"),
    ];
    run(&exchanges, 0).await;
}

#[tokio::test]
async fn a_request_that_misses_a_condition_is_no_challenge() {
    let signed = r#"{"challenge":"c","validationToken":"t"}"#;
    let signature = || format!("sha256={}", hex(signed));
    let exchanges = [
        meta("other").ends_as("signature_missing", 401),
        meta("my+token").ends_as("signature_missing", 401),
        Exchange::new("Meta without parameters", "GET", "meta").ends_as("signature_missing", 401),
        Exchange::new(
            "Meta without a text to echo",
            "GET",
            "meta?hub.mode=subscribe&hub.verify_token=my+token%2B1&hub.challenge=",
        )
        .ends_as("signature_missing", 401),
        Exchange::new("Meta by HEAD", "HEAD", "meta").ends_as("method_not_allowed", 405).field("allow", "POST, GET"),
        Exchange::new("Meta by POST", "POST", "meta?hub.mode=subscribe&hub.challenge=1&hub.verify_token=my+token%2B1")
            .body("{}")
            .ends_as("signature_missing", 401),
        Exchange::new("Trello by GET", "GET", "trello").ends_as("method_not_allowed", 405).field("allow", "POST, HEAD"),
        Exchange::new("Slack by GET", "GET", "slack").ends_as("method_not_allowed", 405).field("allow", "POST"),
        Exchange::new("Slack by OPTIONS", "OPTIONS", "slack").ends_as("method_not_allowed", 405).field("allow", "POST"),
        Exchange::new("CloudEvents without an origin", "OPTIONS", "cloudevents").ends_as("signature_missing", 401),
        Exchange::new("CloudEvents by PUT", "PUT", "cloudevents")
            .ends_as("method_not_allowed", 405)
            .field("allow", "POST, OPTIONS"),
        Exchange::new("a signed body with the fields of a challenge", "POST", "meta?hub.mode=subscribe")
            .with("X-Hub-Signature-256", signature())
            .body(signed)
            .ends_as("stored", 200),
        Exchange::new("a proved POST with the fields of an unsigned challenge", "POST", "graph?validationToken=t")
            .body(format!(r#"{{"value":[{{"clientState":"{SECRET}"}}]}}"#))
            .ends_as("stored", 200),
        Exchange::new("a signed GET that matches no challenge", "GET", "meta")
            .with("X-Hub-Signature-256", format!("sha256={}", hex("")))
            .ends_as("method_not_allowed", 405)
            .field("allow", "POST, GET"),
        Exchange::new("a GET with the token of its source", "OPTIONS", "cloudevents")
            .with("WebHook-Request-Origin", "o")
            .with("Authorization", format!("Bearer {SECRET}"))
            .field("webhook-allowed-origin", "o"),
    ];
    run(&exchanges, 2).await;
}

#[tokio::test]
async fn attacks_with_a_challenge_get_no_reply() {
    let long = |length: usize| "c".repeat(length);
    let check = r#"{"type":"url_verification","challenge":"c"}"#;
    let forged = |mut exchange: Exchange| {
        let (_, signature) = exchange.headers.iter_mut().find(|(name, _)| name.ends_with("signature")).expect("a signature");
        let last = signature.pop();
        signature.push(if last == Some('0') { '1' } else { '0' });
        exchange
    };
    let event = r#"{"event":"follow"}"#;
    let code = "hmacsha256=abc";
    let exchanges = [
        Exchange::new("an echo of 512 bytes", "GET", format!("dropbox?challenge={}", long(512))).replies("text/plain", long(512)),
        Exchange::new("an echo of 513 bytes", "GET", format!("dropbox?challenge={}", long(513)))
            .ends_as("signature_missing", 401),
        Exchange::new("an echo of 7 KiB", "GET", format!("dropbox?challenge={}", long(7 << 10)))
            .ends_as("signature_missing", 401),
        Exchange::new("an echo of no UTF-8", "GET", "dropbox?challenge=%ff").ends_as("signature_missing", 401),
        Exchange::new("an echo of markup", "GET", "dropbox?challenge=%3Cscript%3E%00").replies("text/plain", "<script>\0"),
        Exchange::new("an empty echo", "GET", "dropbox?challenge=").ends_as("signature_missing", 401),
        Exchange::new("the second of two parameters", "GET", "dropbox?challenge=a&challenge=b").replies("text/plain", "a"),
        Exchange::new("a header that is no ASCII", "OPTIONS", "cloudevents")
            .with("WebHook-Request-Origin", "\u{e9}")
            .ends_as("signature_missing", 401),
        Exchange::new("an empty signature with a challenge", "GET", "dropbox?challenge=c")
            .with("X-Dropbox-Signature", "")
            .ends_as("signature_malformed", 401),
        Exchange::new("a malformed signature with a challenge", "GET", "dropbox?challenge=c")
            .with("X-Dropbox-Signature", "zz")
            .ends_as("signature_malformed", 401),
        Exchange::new("a forged signature with a challenge", "GET", "dropbox?challenge=c")
            .with("X-Dropbox-Signature", "00".repeat(32))
            .ends_as("signature_mismatch", 401),
        Exchange::new("a wrong token with a challenge", "OPTIONS", "cloudevents")
            .with("WebHook-Request-Origin", "o")
            .with("Authorization", "Bearer wrong")
            .ends_as("signature_mismatch", 401),
        Exchange::new("a forged signature in the body", "POST", "graph?validationToken=t")
            .body(r#"{"value":[{"clientState":"wrong"}]}"#)
            .ends_as("signature_mismatch", 401),
        forged(slack(check)).ends_as("signature_mismatch", 401),
        forged(twitch(r#"{"challenge":"c"}"#)).ends_as("signature_mismatch", 401),
        forged(zoom(r#"{"event":"endpoint.url_validation","payload":{"plainToken":"t"}}"#)).ends_as("signature_mismatch", 401),
        Exchange::new("an unsigned Slack challenge", "POST", "slack").body(check).ends_as("signature_missing", 401),
        Exchange::new("an unsigned challenge of 17 KiB", "POST", "graph?validationToken=t")
            .body(" ".repeat(17 << 10))
            .ends_as("signature_missing", 401),
        Exchange::new("an unsigned body of 17 KiB", "POST", "asana")
            .with("X-Hook-Secret", "s")
            .body(" ".repeat(17 << 10))
            .ends_as("too_large", 413),
        Exchange::new("an event to be signed as a token", "GET", "x?crc_token=%7B%22event%22%3A%22follow%22%7D")
            .ends_as("signature_missing", 401),
        Exchange::new("a token of 129 bytes to be signed", "GET", format!("x?crc_token={}", long(129)))
            .ends_as("signature_missing", 401),
        Exchange::new("a token that was signed as a challenge", "POST", "x")
            .with("x-twitter-webhooks-signature", format!("sha256={}", base64("abc")))
            .body("abc")
            .ends_as("signature_mismatch", 401),
        Exchange::new("a token with the prefix of the signed content", "POST", "linkedin")
            .with("X-LI-Signature", hex(code))
            .body("abc")
            .ends_as("signature_mismatch", 401),
        Exchange::new("a genuine event", "POST", "x")
            .with("x-twitter-webhooks-signature", format!("sha256={}", base64(event)))
            .body(event)
            .ends_as("stored", 200),
    ];
    run(&exchanges, 1).await;
}

/// Sends texts with line breaks to a recipe that copies a decoded text into a header field.
#[tokio::test]
async fn no_text_of_a_request_begins_a_header_field() {
    let copy = r#"reply = { headers = { X-Copy = ["const:<", "percent-decode(query:challenge)", "const:>"] }, "#;
    let entry = DROPBOX.replace("reply = { ", copy);
    let harness = Harness::with_sources(&[("dropbox", SECRET, &entry)], None);
    let ask = async |text: &str| Exchange::new("copy", "GET", format!("dropbox?challenge={text}")).over_http1(&harness).await;
    let copied = ask("a%20b").await;
    assert_eq!((copied.status().as_u16(), copied.headers()["x-copy"].as_bytes()), (200, &b"<a b>"[..]));
    for text in ["a%0d%0aset-cookie:%20x", "a%0aset-cookie:%20x", "a%0d", "%00", "%7f", "%1b[31m", "%C3%A9", "%E2%80%A8"] {
        let response = ask(text).await;
        assert_eq!((response.status().as_u16(), response.headers().get("x-copy")), (401, None), "{text}: {response:?}");
        assert_eq!(response.headers().get("set-cookie"), None, "{text}");
    }
}

#[tokio::test]
async fn quotes_and_control_characters_stay_valid_json() {
    let harness = Harness::with_sources(SOURCES, None);
    let hostile = "\",\"encryptedToken\":\"\\\u{1}\n\u{2028}é";
    let body = serde_json::json!({ "event": "endpoint.url_validation", "payload": { "plainToken": hostile } }).to_string();
    let response = zoom(&body).over_http1(&harness).await;
    let reply: serde_json::Value =
        serde_json::from_slice(response.body()).unwrap_or_else(|error| panic!("{error}: {response:?}"));
    assert_eq!(reply, serde_json::json!({ "plainToken": hostile, "encryptedToken": hex(hostile) }));
}

#[tokio::test]
async fn the_actions_of_challenges_are_counted_and_logged_but_not_performed() {
    let harness = Harness::with_sources(SOURCES, None);
    let url = "https://sns.example.com/?Action=ConfirmSubscription&Token=".to_owned() + &"2336412f37".repeat(40);
    let signed = |body: String| Exchange::new("topic", "POST", "topic").with("X-Topic-Signature", hex(&body)).body(body);
    let confirmation =
        |url: &str| signed(serde_json::json!({ "Type": "SubscriptionConfirmation", "SubscribeURL": url }).to_string());
    let count =
        |source: &str, effect: &str| harness.metrics.deliveries.challenge_effects.with_label_values(&[source, effect]).get();
    assert!(harness.metrics.render().contains("hookhold_challenge_effects_total{effect=\"visit-url\",source=\"topic\"} 0"));
    confirmation(&url).check(&confirmation(&url).over_http1(&harness).await, "HTTP/1.1");
    assert_eq!((count("topic", "visit-url"), harness.stored()), (1, 0));
    let log = harness::logged();
    assert!(log.contains(&url) && log.contains("verified=true") && log.contains("does not open"), "{log}");

    let elsewhere = confirmation("javascript:alert(1)").over_http1(&harness).await;
    assert_eq!((elsewhere.status().as_u16(), count("topic", "visit-url"), harness.stored()), (200, 1, 1), "it is an event");

    let report = |text: &str| {
        let body = serde_json::json!({ "Type": "UnsubscribeConfirmation", "Message": text }).to_string();
        Exchange::new("report", "POST", "topic").body(body)
    };
    assert_eq!(report("gone\nWARN forged\u{1b}").over_http1(&harness).await.status().as_u16(), 200);
    let bare = Exchange::new("bare", "POST", "topic").body(r#"{"Type":"Check"}"#).over_http1(&harness).await;
    assert_eq!((bare.status().as_u16(), count("topic", "report")), (200, 2));
    let log = harness::logged();
    assert!(log.contains(r"gone\nWARN forged\u{1b}") && !log.contains("\nWARN forged"), "{log}");
    assert!(log.contains("verified=false"), "{log}");
    assert_eq!(report(&"x".repeat(2049)).over_http1(&harness).await.status().as_u16(), 401);

    let secret = Exchange::new("secret", "POST", "asana").with("X-Hook-Secret", "hunter2");
    assert_eq!(secret.over_http1(&harness).await.status().as_u16(), 200);
    assert_eq!(count("asana", "learn-secret"), 1);
    let log = harness::logged();
    assert!(log.contains("which hookhold does not store") && !log.contains("hunter2"), "{log}");
    let signed = Exchange::new("signed with it", "POST", "asana")
        .with("X-Hook-Signature", base16ct::lower::encode_string(&hmac("sha256", b"hunter2", "{}")));
    assert_eq!(signed.body("{}").over_http1(&harness).await.status().as_u16(), 401, "hookhold learns no secret silently");

    for _ in 0..20 {
        report("flood").over_http1(&harness).await;
    }
    assert_eq!(count("topic", "report"), 22);
    assert!(harness::logged().matches("flood").count() < 10, "a flood of challenges does not flood the log");
}

/// SHA-1 hash of [`SECRET`], the key of Braintree's HMAC.
const SECRET_SHA1: &str = "4d507e2a13386e91c07670bfcea2853a7977bc22";
