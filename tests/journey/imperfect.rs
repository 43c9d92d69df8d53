//! Tests of genuine deliveries whose bodies are not plain JSON: almost JSON, compressed, multipart, or without the event id. Each
//! record in Kafka must contain the signed bytes and the id, type and key of the event, and a retry must not become a record.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::counters::{moved_by, one};
use crate::kafka;
use crate::process::{Home, Line, tool};
use crate::scheme::{ACME, Facts, Provider, SLACK, Signed, now};
use crate::sdk::openssl_hmac;

/// Name of a body, the value of `Content-Encoding`, and the body.
type Body = (&'static str, &'static str, Vec<u8>);

#[test]
fn imperfect_bodies_arrive_once_under_their_id() {
    let (kafka, topic) = (kafka::shared(), "imperfect-bodies");
    kafka.create_topic(topic, 1, &[]);
    let home = ACME.home(kafka, topic, "types = [\"order.*\"]");
    let process = home.start();
    let (mut provider, mut line) = (Provider::new(&ACME), Line::open(home.hooks));
    let Facts { ce_type, key, .. } = ACME.json_facts;
    let key = key.expect("the JSON body has a key").as_bytes();

    let mut sent: Vec<(Body, Signed)> = Vec::new();
    for (number, make) in BODIES.iter().enumerate() {
        let (what, coding, body) = make(&format!("evt_{number}"));
        let sign = |provider: &mut Provider, at| {
            let signed = provider.sign("", at, body.clone());
            if coding.is_empty() { signed } else { signed.with("Content-Encoding", coding) }
        };
        let delivery = sign(&mut provider, now());
        let answer = line.ask(&delivery.request(&ACME));
        assert_eq!(answer.status, ACME.reply.0, "{what}");
        assert_eq!(line.ask(&delivery.request(&ACME)), answer, "{what}: sent again unchanged");
        assert_eq!(line.ask(&sign(&mut provider, now() - 60).request(&ACME)), answer, "{what}: signed again");
        sent.push(((what, coding, body), delivery));
    }
    let records = kafka.wait_for_records(topic, sent.len());
    assert_eq!(records.len(), sent.len(), "a retry made a record");
    for (number, (record, ((what, coding, _), delivery))) in records.iter().zip(&sent).enumerate() {
        assert_eq!(record.value.as_ref(), Some(&delivery.body), "{what}: value");
        assert_eq!((record.header("ce_id"), record.header("ce_type")), (&*format!("evt_{number}"), ce_type), "{what}");
        assert_eq!(record.key.as_deref(), Some(key), "{what}: key");
        let codings: Vec<&str> = record
            .headers
            .iter()
            .filter(|(name, _)| name == "content-encoding")
            .map(|_| record.header("content-encoding"))
            .collect();
        assert_eq!(codings, if coding.is_empty() { vec![] } else { vec![*coding] }, "{what}");
    }
    for (outcome, count) in [("stored", sent.len()), ("duplicate", 2 * sent.len()), ("filtered", 0)] {
        let series = format!("hookhold_deliveries_total{{outcome={outcome:?},source=\"acme\"}}");
        assert_eq!(process.metric(&series), Some(count as f64), "{outcome}");
    }
    assert_eq!(process.metric("hookhold_keyless_total{source=\"acme\"}"), Some(0.0));
}

#[test]
fn ids_beyond_64_bits_are_different_events() {
    let (kafka, topic) = (kafka::shared(), "imperfect-numbers");
    kafka.create_topic(topic, 1, &[]);
    let home = ACME.home(kafka, topic, "");
    let process = home.start();
    let mut provider = Provider::new(&ACME);
    let ids = ["1180591620717411303424", "1180591620717411303425", "-1180591620717411303424"];
    for (id, outcome) in ids.iter().map(|id| (id, "stored")).chain(ids.iter().map(|id| (id, "duplicate"))) {
        let body = format!(r#"{{"id":{id},"kind":"order.paid","customer":{id}}}"#);
        let delivery = provider.sign("", now() - u64::from(outcome == "duplicate"), body.into_bytes());
        assert_eq!(moved_by(&home, &process, &delivery.request(&ACME)).0, one("acme", outcome), "{id}");
    }
    let records = kafka.wait_for_records(topic, ids.len());
    let found: Vec<_> = records.iter().map(|record| (record.header("ce_id"), record.key.as_deref())).collect();
    assert_eq!(found, ids.map(|id| (id, Some(id.as_bytes()))));
}

/// Slack sends some interactions without a `trigger_id`. The signature covers a time, so an exact replay is a duplicate.
#[test]
fn a_slack_interaction_without_its_id_is_stored_once() {
    let (kafka, topic) = (kafka::shared(), "imperfect-slack");
    kafka.create_topic(topic, 1, &[]);
    let home = SLACK.home(kafka, topic, "");
    let process = home.start();
    let mut slack = Provider::new(&SLACK);
    let mut sign = |at| slack.sign("", at, INTERACTION.to_vec());
    let (interaction, another) = (sign(now() - 1), sign(now()));
    assert_eq!(interaction.by, "@slack/bolt 5.1.0");
    for (delivery, outcome) in [
        (&interaction, "stored"),
        (&interaction, "duplicate"),
        (&interaction, "duplicate"),
        (&another, "stored"),
        (&another, "duplicate"),
    ] {
        assert_eq!(moved_by(&home, &process, &delivery.request(&SLACK)).0, one("slack", outcome));
    }
    let records = kafka.wait_for_records(topic, 2);
    for record in &records {
        assert_eq!(record.value.as_deref(), Some(INTERACTION));
        assert_eq!((record.key.as_deref(), record.header("ce_type")), (Some(&b"C1"[..]), "com.slack.block_suggestion"));
        assert_eq!(record.header("ce_id"), format!("{}-{}", record.header("hookhold-log"), record.header("hookhold-seq")));
    }
    assert_eq!(process.metric("hookhold_keyless_total{source=\"slack\"}"), Some(0.0));
}

/// A sender without a signed time. Two equal deliveries without an id are two events, unless the operator sets `dedupe.body`.
#[test]
fn without_id_and_time_only_dedupe_body_drops_a_copy() {
    let (kafka, topic) = (kafka::shared(), "imperfect-keyless");
    kafka.create_topic(topic, 1, &[]);
    let source = |name: &str, more: &str| format!("[sources.{name}]\n{UNTIMED}\ntopic = \"{topic}\"\n{more}\n");
    let kafka_section = format!("server.drain_delay = \"0s\"\n[kafka]\nbootstrap.servers = \"{}\"\n", kafka.bootstrap());
    let config = kafka_section + &source("plain", "") + &source("opted", "dedupe.body = \"10m\"");
    let home = Home::new(&[("secret", KEY)], &config);
    let process = home.start();
    let body = br#"{"kind":"ping"}"#;
    let signature = base16ct::lower::encode_string(&openssl_hmac("sha256", KEY.as_bytes(), body));
    let headers = [("X-Signature".to_owned(), signature)];
    for (name, outcome) in [("plain", "stored"), ("plain", "stored"), ("opted", "stored"), ("opted", "duplicate")] {
        let request = crate::process::post(&format!("/hooks/{name}"), &headers, body);
        assert_eq!(moved_by(&home, &process, &request).0, one(name, outcome), "{name}");
    }
    assert_eq!(kafka.wait_for_records(topic, 3).len(), 3);
    let keyless = ["plain", "opted"].map(|name| process.metric(&format!("hookhold_keyless_total{{source={name:?}}}")));
    assert_eq!(keyless, [Some(2.0), Some(0.0)]);
}

/// curl sends a form with a JSON field and a file, as Dropbox Sign does. The signature is inside the JSON. The second attempt has
/// another boundary.
#[test]
fn a_multipart_form_arrives_once_under_its_id() {
    let (kafka, topic) = (kafka::shared(), "imperfect-multipart");
    kafka.create_topic(topic, 1, &[]);
    let config = format!(
        "server.drain_delay = \"0s\"\n[kafka]\nbootstrap.servers = \"{}\"\n[sources.sign]\n{IN_A_PART}\ntopic = \"{topic}\"\n",
        kafka.bootstrap()
    );
    let home = Home::new(&[("secret", KEY)], &config);
    let process = home.start();
    let time = now().to_string();
    let event_hash = base16ct::lower::encode_string(&openssl_hmac("sha256", KEY.as_bytes(), format!("{time}signed").as_bytes()));
    let json = |kind: &str| {
        format!(
            r#"{{"event":{{"event_time":"{time}","event_type":"{kind}","event_hash":"{event_hash}"}},"request":{{"id":"r-7"}}}}"#
        )
    };
    let send = |kind: &str| {
        let url = format!("http://{}/hooks/sign", home.hooks);
        let part = format!("json={}", json(kind));
        let mut curl = Command::new("curl");
        let form = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-F", "file=@Cargo.toml", "--form-string", &part, &url];
        let output = curl.args(form).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("curl is installed");
        String::from_utf8(output.stdout).expect("a status")
    };
    assert_eq!(["signed", "signed", "declined"].map(send), ["200", "200", "401"]);
    let deliveries = process.deliveries();
    let count = |outcome: &str| deliveries[&("sign".to_owned(), outcome.to_owned())];
    assert_eq!((count("stored"), count("duplicate"), count("signature_mismatch")), (1, 1, 1));
    let record = &kafka.wait_for_records(topic, 1)[0];
    assert_eq!(
        (record.header("ce_id"), record.header("ce_type"), record.key.as_deref()),
        (&*format!("{time}.signed"), "signed", Some(&b"r-7"[..]))
    );
    assert!(record.header("content-type").starts_with("multipart/form-data; boundary="));
    let value = String::from_utf8_lossy(record.value.as_deref().expect("a value"));
    assert!(value.contains(&json("signed")) && value.contains("name = \"hookhold\""), "{value}");
}

const BODIES: &[fn(&str) -> Body] = &[
    |id| ("a control character", "", ACME.body(id, b"a\x01\n\tb")),
    |id| ("NaN", "", replaced(id, b"NaN")),
    |id| ("Infinity", "", replaced(id, b"[Infinity,-Infinity]")),
    |id| ("other words and numbers", "", replaced(id, b"[nan,-NaN,undefined,007,.5]")),
    |id| ("an unknown escape", "", replaced(id, br#""it\'s \x41""#)),
    |id| ("a comma after the last element", "", replaced(id, b"[1,]")),
    |id| ("a control character between values", "", replaced(id, b"\x01null\x0b")),
    |id| ("a leading NUL", "", [b"\0", &ACME.body(id, b"")[..]].concat()),
    |id| ("a number of 70 bits", "", replaced(id, b"1180591620717411303424")),
    |id| ("a second line", "", [&ACME.body(id, b"")[..], b"\n", &ACME.body("other", b""), b"\n"].concat()),
    |id| ("a trailing NUL", "", [&ACME.body(id, b"")[..], b"\0"].concat()),
    |id| ("trailing bytes", "", [&ACME.body(id, b"")[..], b"\r\n\x1a\xff"].concat()),
    |id| ("a byte order mark", "", [b"\xef\xbb\xbf", &ACME.body(id, b"")[..]].concat()),
    |id| ("UTF-16LE with its mark", "", utf16(id, "\u{feff}", u16::to_le_bytes)),
    |id| ("UTF-16BE with its mark", "", utf16(id, "\u{feff}", u16::to_be_bytes)),
    |id| ("UTF-16LE", "", utf16(id, "", u16::to_le_bytes)),
    |id| ("UTF-16BE", "", utf16(id, "", u16::to_be_bytes)),
    |id| ("gzip", "gzip", node("gzipSync", &ACME.body(id, b"gzip"))),
    |id| ("gzip without its header", "", node("gzipSync", &ACME.body(id, b"gzip"))),
    |id| ("Brotli", "br", node("brotliCompressSync", &ACME.body(id, b"br"))),
    |id| ("Brotli without its header", "", node("brotliCompressSync", &ACME.body(id, b"br"))),
    |id| ("a large Brotli body", "br", node("brotliCompressSync", &ACME.body(id, &random_text(300_000)))),
    |id| ("Zstandard", "zstd", zstd::encode_all(&ACME.body(id, b"zstd")[..], 3).expect("memory")),
    |id| ("gzip of UTF-16", "gzip", node("gzipSync", &utf16(id, "\u{feff}", u16::to_le_bytes))),
    |id| ("2 MiB", "", ACME.body(id, &vec![b'x'; 2 << 20])),
];

/// Returns the JSON body of [`ACME`] with a value that is not a string as its note.
fn replaced(id: &str, note: &[u8]) -> Vec<u8> {
    let body = ACME.body(id, b"NOTE");
    let at = body.windows(6).position(|six| six == b"\"NOTE\"").expect("the body contains the note");
    [&body[..at], note, &body[at + 6..]].concat()
}

fn utf16(id: &str, mark: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let text = String::from_utf8(ACME.body(id, "caf\u{e9} \u{1f600}".as_bytes())).expect("the body is text");
    (mark.to_owned() + &text).encode_utf16().flat_map(bytes).collect()
}

fn random_text(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(11);
    std::iter::repeat_with(|| random.alphanumeric() as u8).take(size).collect()
}

/// Compresses bytes with a function of Node's library.
fn node(function: &str, bytes: &[u8]) -> Vec<u8> {
    let script = format!("process.stdout.write(require('zlib').{function}(require('fs').readFileSync(0)))");
    let mut node = tool("node");
    let mut child = node.args(["-e", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node is installed");
    child.stdin.take().expect("piped").write_all(bytes).expect("node reads all bytes");
    let output = child.wait_with_output().expect("node ends");
    assert!(output.status.success() && !output.stdout.is_empty());
    output.stdout
}

const KEY: &str = "a secret for two sources";
/// A sender that signs only the body.
const UNTIMED: &str = r#"auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Signature", encoding = "hex" }
content = ["body"]
event = { id = "json:/id" }
secrets = ["file:secret"]"#;
/// A sender whose signature is in a part of a multipart body.
const IN_A_PART: &str = r#"auth = "mac"
algorithm = "sha256"
encoding = "hex"
signature = { from = "form-json:json/event/event_hash" }
content = ["form-json:json/event/event_time", "form-json:json/event/event_type"]
event = { id = [["form-json:json/event/event_time", "form-json:json/event/event_type"]], type = "form-json:json/event/event_type", key = "form-json:json/request/id" }
secrets = ["file:secret"]"#;
const INTERACTION: &[u8] = b"payload=%7B%22type%22%3A%22block_suggestion%22%2C%22team%22%3A%7B%22id%22%3A%22T1%22%7D%2C%22channel%22%3A%7B%22id%22%3A%22C1%22%7D%7D";
