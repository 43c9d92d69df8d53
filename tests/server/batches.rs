//! Sends batches over HTTP/1.1 and over HTTP/2, and checks each response, each outcome and the bytes of each stored event.
//! openssl computes every HMAC.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::challenges::hmac;
use crate::h2::Client;
use crate::harness::Harness;
use crate::https::Pair;

const SECRET: &str = "0123456789abcdef-secret";
const HEX_SECRET: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

/// One signature for all items.
const SIGNED: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:X-Signature" }
content = ["body"]
event = { batch = "/events", id = "json:/id", type = "json:/kind" }
split = true
max_items = 4
max_body = "64 KiB"
"#;
/// Each item carries its own signature, as in Adyen's payment webhooks.
const SIGNED_ITEMS: &str = r#"
auth = "mac"
algorithm = "sha256"
key_format = "hex"
signature = { from = "json:/item/signature", encoding = "base64" }
match = "all-items"
content = ["json:/item/ref", ":", "optional(json:/item/note)", ":", "json:/item/event"]
split = true
max_body = "64 KiB"
[event]
batch = "/items"
id = [["json:/item/ref", "json:/item/event"]]
type = "json:/item/event"
"#;

/// A delivery, its outcome, and the bodies of the events that it adds to the journal.
struct Sent {
    what: &'static str,
    source: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    outcome: &'static str,
    status: u16,
    stored: Vec<Vec<u8>>,
}

/// Returns a delivery of the source `signed` with a genuine signature. The status of every outcome except 2xx is 401.
fn signed(what: &'static str, body: impl AsRef<[u8]>, outcome: &'static str, stored: &[&str]) -> Sent {
    let body = body.as_ref().to_vec();
    let code = base16ct::lower::encode_string(&hmac("sha256", SECRET.as_bytes(), &body));
    Sent { headers: vec![("x-signature".into(), code)], ..by_item(what, body, outcome, stored) }.of("signed")
}

/// Returns a delivery of the source `by-item`, which has no signature outside its items.
fn by_item(what: &'static str, body: impl AsRef<[u8]>, outcome: &'static str, stored: &[&str]) -> Sent {
    let status = if ["stored", "duplicate", "filtered"].contains(&outcome) { 200 } else { 401 };
    let stored = stored.iter().map(|body| body.as_bytes().to_vec()).collect();
    Sent { what, source: "by-item", headers: Vec::new(), body: body.as_ref().to_vec(), outcome, status, stored }
}

impl Sent {
    fn of(self, source: &'static str) -> Sent {
        Sent { source, ..self }
    }

    fn with(mut self, name: &str, value: &str) -> Sent {
        self.headers.push((name.into(), value.into()));
        self
    }

    async fn over_http1(&self, harness: &Harness) -> u16 {
        let fields: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("POST /hooks/{} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n", self.source);
        let head = format!("{head}content-length: {}\r\n{fields}\r\n", self.body.len());
        let text = harness.line().await.end([head.as_bytes(), &self.body].concat()).await;
        text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{}: {text}", self.what))
    }
}

/// Returns the bodies of all stored events.
fn bodies(harness: &Harness) -> Vec<Vec<u8>> {
    let mut reader = harness.journal.reader(0);
    std::iter::from_fn(|| reader.next().expect("the journal is readable")).map(|stored| stored.event.body().to_vec()).collect()
}

/// Sends all deliveries over HTTP/1.1 to one gateway, and over HTTP/2 to another.
async fn run(all: &[Sent]) {
    let pair = Pair::new(30);
    let sources = [("signed", SECRET, SIGNED), ("by-item", HEX_SECRET, SIGNED_ITEMS)];
    let (plain, secure) = (Harness::with_sources(&sources, None), Harness::with_sources(&sources, Some(pair.files())));
    let mut client = Client::connect(secure.address(), &pair).await;
    let mut expected = Vec::new();
    for sent in all {
        let counts = || [&plain, &secure].map(|harness| harness.count(sent.source, sent.outcome));
        let before = counts();
        let http2 = client.ask("POST", &format!("/hooks/{}", sent.source), &sent.headers, &sent.body).await;
        assert_eq!([sent.over_http1(&plain).await, http2.status().as_u16()], [sent.status; 2], "{}", sent.what);
        assert_eq!(counts(), before.map(|count| count + 1), "{}: expected {}", sent.what, sent.outcome);
        expected.extend(sent.stored.clone());
    }
    assert!(!expected.is_empty(), "a test needs genuine deliveries");
    assert_eq!([bodies(&plain), bodies(&secure)], [expected.clone(), expected]);
}

#[tokio::test]
async fn a_split_delivery_is_stored_item_by_item_over_both_protocols() {
    let first = r#"{"id":"1" , "kind":"a","x":"caf\u00e9 é"}"#;
    let (second, third) = (r#"{ "kind":"b","id":2,"id":"2"}"#, "{\"id\":\"3\",\"n\":1.50e2}");
    let batch = |items: &[&str]| format!("{{\"to\":\"x\",\"events\":[ {} ]}}\r\n", items.join(" ,\n"));
    let two = batch(&[first, second]);
    let mut forged = signed("one changed byte in an item", &two, "signature_mismatch", &[]);
    *forged.body.iter_mut().rfind(|byte| **byte == b'b').expect("an item") = b'c';
    let mut unsigned = signed("no signature", &two, "signature_missing", &[]);
    unsigned.headers.clear();
    let too_many = Sent { status: 413, ..signed("more than max_items", batch(&["{}"; 5]), "too_large", &[]) };
    run(&[
        signed("two items", &two, "stored", &[first, second]),
        signed("the same delivery", &two, "duplicate", &[]),
        signed("a seen and a fresh item", batch(&[second, third]), "stored", &[third]),
        signed("only seen items", batch(&[third, first]), "duplicate", &[]),
        signed("no items", batch(&[]), "filtered", &[]),
        signed("scalars", batch(&["7", "\"x\"", "null"]), "stored", &["7", "\"x\"", "null"]),
        forged,
        unsigned,
        too_many,
    ])
    .await;
}

#[tokio::test]
async fn a_compressed_batch_stays_one_event_over_both_protocols() {
    let gzip = |plain: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain.as_bytes()).expect("memory");
        encoder.finish().expect("memory")
    };
    let (one, two) = (r#"{"events":[{"id":"1","kind":"a"}]}"#, r#"{"events":[{"id":"1","kind":"a"},{"id":"2","kind":"a"}]}"#);
    let whole = |what, plain: &str, outcome| {
        let body = gzip(plain);
        let sent = signed(what, &body, outcome, &[]).with("content-encoding", "gzip");
        Sent { stored: if outcome == "stored" { vec![body] } else { Vec::new() }, ..sent }
    };
    run(&[
        whole("two items", two, "stored"),
        whole("the same ids in another text", &two.replace("},{", "}, {"), "duplicate"),
        whole("other items after the array", &[two, "\n", one].concat(), "stored"),
        whole("one item", one, "stored"),
        signed("the same item in a plain body", one, "duplicate", &[]),
        whole("no items", r#"{"events":[]}"#, "stored"),
    ])
    .await;
}

/// A request without a signature in its head must not be rejected before its body is read.
#[tokio::test]
async fn items_with_their_own_signatures_are_accepted_over_both_protocols() {
    let item = |reference: &str, note: &str, signed: &str| {
        let code = STANDARD.encode(hmac("sha256", &base16ct::mixed::decode_vec(HEX_SECRET).expect("hex"), signed));
        format!(r#"{{"item":{{"ref":"{reference}","note":"{note}","event":"paid","signature":"{code}"}}}}"#)
    };
    let (a, b, c) = (item("a", "", "a::paid"), item("b", "n", "b:n:paid"), item("c", "", "c::paid"));
    let batch = |items: &[&str]| format!(r#"{{"live":"true","items":[{}]}}"#, items.join(","));
    let forged = c.replace("paid", "lost");
    let second = batch(&[&a]) + "\n" + &batch(&[&forged]);
    run(&[
        by_item("two items", batch(&[&a, &b]), "stored", &[&a, &b]),
        by_item("the same delivery", batch(&[&a, &b]), "duplicate", &[]),
        by_item("a forged item after a fresh one", batch(&[&c, &forged]), "signature_mismatch", &[]),
        by_item("a forged item before a fresh one", batch(&[&forged, &c]), "signature_mismatch", &[]),
        by_item("an item without a signature", batch(&[&c, &c.replace("signature", "other")]), "signature_missing", &[]),
        by_item(
            "an unreadable signature",
            batch(&[&c.replace("\"signature\":\"", "\"signature\":\"!")]),
            "signature_malformed",
            &[],
        ),
        by_item("another array after the first", second, "signature_malformed", &[]),
        by_item("no items", batch(&[]), "signature_missing", &[]),
        by_item("an empty body", "", "signature_missing", &[]),
        by_item("a seen and a fresh item", batch(&[&b, &c]), "stored", &[&c]),
        by_item("a single item outside an array", batch(&[&a]).replace(['[', ']'], ""), "duplicate", &[]),
    ])
    .await;
}
