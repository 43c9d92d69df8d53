//! Tests the value, key, timestamp and headers of the Kafka records that hookhold writes for different kinds of bodies.
//! hookhold must not write a record for a duplicate.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::kafka::{self, Record};
use crate::process::{Answer, Line};
use crate::scheme::{
    ACME, Facts, GITHUB, Provider, SHOPIFY, SHOPIFY_EVENTS, SLACK, STANDARD_WEBHOOKS, STRIPE, SVIX, Scheme, Signed, now,
};

/// A delivery and the expected contents of its Kafka record.
struct Sent {
    what: &'static str,
    delivery: Signed,
    facts: Facts,
    id: String,
    /// Range that must contain the timestamp of the record, in Unix milliseconds.
    received: RangeInclusive<i64>,
    /// Names and values of the record headers that hookhold copies from the request.
    copied: Vec<(&'static str, &'static str)>,
}

#[test]
fn stripe_arrives_in_kafka_byte_exact_and_once() {
    arrives(&STRIPE, "stripe 23.1.0");
}

#[test]
fn github_arrives_in_kafka_byte_exact_and_once() {
    arrives(&GITHUB, "@octokit/webhooks-methods 6.0.0");
}

#[test]
fn slack_arrives_in_kafka_byte_exact_and_once() {
    arrives(&SLACK, "@slack/bolt 5.1.0");
}

#[test]
fn standard_webhooks_arrives_in_kafka_byte_exact_and_once() {
    arrives(&STANDARD_WEBHOOKS, "standardwebhooks 1.1.1");
}

#[test]
fn svix_arrives_in_kafka_byte_exact_and_once() {
    arrives(&SVIX, "svix 2.5.0");
}

/// Sends Shopify deliveries that all have the same `X-Shopify-Event-Id`. Shopify sends such deliveries if a single action of a
/// merchant causes several deliveries. hookhold must write a record for each delivery.
#[test]
fn shopify_arrives_in_kafka_byte_exact_and_once() {
    arrives(&SHOPIFY, "@shopify/shopify-api 13.1.0");
}

#[test]
fn shopify_events_arrive_in_kafka_byte_exact_and_once() {
    arrives(&SHOPIFY_EVENTS, "@shopify/shopify-api 13.1.0");
}

#[test]
fn acme_arrives_in_kafka_byte_exact_and_once() {
    arrives(&ACME, "openssl");
}

#[test]
fn a_20_mib_body_arrives_byte_exact_and_once() {
    let kafka = kafka::shared();
    kafka.create_topic("twenty-mib", 1, &[("max.message.bytes", "22020096")]);
    let home = GITHUB.home(kafka, "twenty-mib", "");
    let process = home.start();
    let mut random = fastrand::Rng::with_seed(20);
    let frame = GITHUB.body("", b"").len();
    let note: Vec<u8> = std::iter::repeat_with(|| random.alphanumeric() as u8).take((20 << 20) - frame).collect();
    let mut provider = Provider::new(&GITHUB);
    let large = provider.sign("large", now(), GITHUB.body("", &note));
    assert_eq!((large.body.len(), &*large.by), (20 << 20, "@octokit/webhooks-methods 6.0.0"));
    let marker = provider.sign("marker", now(), GITHUB.body("", b"marker"));

    let mut line = Line::open(home.hooks);
    let first = line.ask(&large.request(&GITHUB));
    assert_eq!(first.status, 200);
    assert_eq!(line.ask(&large.request(&GITHUB)), first);
    assert_eq!(line.ask(&marker.request(&GITHUB)), first);
    let records = kafka.wait_for_records("twenty-mib", 2);
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref()).collect();
    assert!(values == [Some(&*large.body), Some(&*marker.body)], "the two bodies and nothing else, byte for byte");
    assert_eq!(process.metric("hookhold_deliveries_total{outcome=\"duplicate\",source=\"github\"}"), Some(1.0));
    let received = (2 * large.body.len() + marker.body.len()) as f64;
    assert_eq!(process.metric("hookhold_received_bytes_total{source=\"github\"}"), Some(received));
}

/// Sends one delivery per kind of body and then a final delivery, and checks every record in the topic. If a delivery has an id
/// from the provider, this function sends the delivery three times, the third time with a new signature.
fn arrives(scheme: &'static Scheme, sdk: &str) {
    let (kafka, topic) = (kafka::shared(), format!("arrives-{}", scheme.name));
    kafka.create_topic(&topic, 1, &[]);
    let home = scheme.home(kafka, &topic, "");
    let process = home.start();
    let (mut provider, mut line) = (Provider::new(scheme), Line::open(home.hooks));

    let mut all: Vec<Sent> = Vec::new();
    for (number, body) in bodies(scheme).into_iter().enumerate() {
        let id = format!("msg_{number}");
        let (sent, answer) = send(scheme, &mut provider, &mut line, &id, body);
        assert_eq!((answer.status, &*answer.body), (scheme.reply.0, scheme.reply.1.as_bytes()), "{}", sent.what);
        if sent.facts.has_id {
            assert_eq!(line.ask(&sent.delivery.request(scheme)), answer, "{}: sent again unchanged", sent.what);
            let later = provider.sign(&id, now() - 60, sent.delivery.body.clone());
            assert_eq!(line.ask(&later.request(scheme)), answer, "{}: signed again", sent.what);
        }
        all.push(sent);
    }
    let (marker, _) = send(scheme, &mut provider, &mut line, "marker", ("marker", JSON, scheme.body("marker", b""), true));
    all.push(marker);
    let signed_by: BTreeSet<&str> = all.iter().map(|sent| &*sent.delivery.by).collect();
    assert_eq!(signed_by, BTreeSet::from([sdk, "openssl"]), "the SDK signs text, openssl signs the rest");

    let records = kafka.wait_for_records(&topic, all.len());
    let log = records[0].header("hookhold-log");
    assert!(log.len() == 16 && log.bytes().all(|digit| digit.is_ascii_hexdigit()), "{log}");
    for (seq, (record, sent)) in records.iter().zip(&all).enumerate() {
        assert_record(record, scheme, sent, log, seq);
    }
    assert_eq!(records.len(), all.len(), "a duplicate made a record");
    let stored = process.metric(&format!("hookhold_deliveries_total{{outcome=\"stored\",source=\"{}\"}}", scheme.name));
    assert_eq!(stored, Some(all.len() as f64));
}

/// A test body: its name, its media type, its bytes, and a flag that is true if the bytes are JSON in the provider's format.
type Body = (&'static str, &'static str, Vec<u8>, bool);

fn bodies(scheme: &Scheme) -> Vec<Body> {
    let json = |number: usize, note: &[u8]| scheme.body(&format!("msg_{number}"), note);
    let crlf = |body: Vec<u8>| String::from_utf8(body).expect("the template is text").replace(',', ",\r\n\t") + "\r\n\r\n";
    vec![
        ("plain JSON", JSON, json(0, b"paid"), true),
        ("escapes", "application/json; charset=utf-8", json(1, br"caf\u00e9 \u00E9 \/ \u0000 \ud83e\ude9d"), true),
        ("CRLF line ends", JSON, crlf(json(2, "é \u{feff} \u{2028}".as_bytes())).into_bytes(), true),
        ("bytes that are not UTF-8", JSON, json(3, b"caf\xe9 \xff\xfe\x80 \xc3"), true),
        ("a form", "application/x-www-form-urlencoded", b"payload=%7B%22a%22%3A1%7D&x=+".to_vec(), false),
        ("an empty body", "", Vec::new(), false),
        ("every byte", "application/octet-stream", (0..=255).collect(), false),
    ]
}

fn send(scheme: &Scheme, provider: &mut Provider, line: &mut Line, id: &str, body: Body) -> (Sent, Answer) {
    let (what, media_type, body, is_json) = body;
    let mut delivery = provider.sign(id, now(), body).with("Authorization", "Bearer x").with("Cookie", "a=b");
    let mut copied = Vec::new();
    if !media_type.is_empty() {
        delivery = delivery.with("Content-Type", media_type).with("traceparent", TRACE).with("X-Request-Id", "r-1");
        copied = vec![("content-type", media_type), ("traceparent", TRACE), ("http-x-request-id", "r-1")];
    }
    let before = now_ms();
    let answer = line.ask(&delivery.request(scheme));
    let received = before..=now_ms();
    let facts = if is_json { scheme.json_facts } else { scheme.other_facts };
    (Sent { what, delivery, facts, id: id.to_owned(), received, copied }, answer)
}

fn assert_record(record: &Record, scheme: &Scheme, sent: &Sent, log: &str, seq: usize) {
    let Sent { what, delivery, facts, id, received, copied } = sent;
    let (name, position) = (scheme.name, format!("{log}-{seq}"));
    let id = if facts.has_id { id } else { &position };
    assert_eq!(record.value.as_ref(), Some(&delivery.body), "{what}: value");
    assert_eq!(record.key.as_deref(), Some(facts.key.unwrap_or(id).as_bytes()), "{what}: key");
    assert!(received.contains(&record.timestamp_ms), "{what}: {} is not within {received:?}", record.timestamp_ms);
    let (received_at, path, seq) = (rfc3339(record.timestamp_ms), scheme.path(), seq.to_string());
    let mut expected = [
        copied,
        &[
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", &path),
            ("ce_type", facts.ce_type),
            ("ce_time", facts.ce_time.unwrap_or(&received_at)),
            ("hookhold-source", name),
            ("hookhold-received-at", &received_at),
            ("hookhold-log", log),
            ("hookhold-seq", &seq),
            ("hookhold-instance", record.header("hookhold-instance")),
            ("hookhold-auth", "mac-sha256:2026-11"),
            ("hookhold-integrity", scheme.integrity),
        ][..],
    ]
    .concat();
    expected.sort();
    let mut found: Vec<(&str, &str)> = record.headers.iter().map(|(name, _)| (&**name, record.header(name))).collect();
    found.sort();
    assert_eq!(found, expected, "{what}: headers");
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).expect("a valid time").strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

const JSON: &str = "application/json";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
