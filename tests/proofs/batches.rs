//! Batches: deliveries whose items become Kafka records of their own.

use crate::crypto::{hmac, openssl_sign, shared_key_pair};
use crate::endpoint::{Event, Request, base64, hex, run, tampered};

/// Items that no JSON library would write in the same way again.
const ITEMS: [(&str, (&str, &str, &str)); 4] = [
    ("{\"id\":\"e-1\" ,\t\"type\": \"paid\",\r\n \"user\":\"u1\",\"n\":1.50e+2}", ("e-1", "paid", "u1")),
    (r#"{"user":"u\u0032","note":"café \u00e9 \/ \ud83d\ude00","type":"sent","id":"e\u002d2"}"#, ("e-2", "sent", "u2")),
    (r#"{"id":"other","id":"e-3","type":"paid","type":"sent","user":3,"a":[1,{"id":"x"},"]}],"]}"#, ("e-3", "sent", "3")),
    (r#"{ "type" : "paid" , "id" : 70000000000000000000004 , "user" : "u1" }"#, ("70000000000000000000004", "paid", "u1")),
];

fn item(at: usize) -> &'static str {
    ITEMS[at].0
}

fn event(at: usize, auth: &str) -> Event {
    Event::of_item(item(at), auth, ITEMS[at].1)
}

/// Returns a body whose member `events` contains these items, with white space around each of them.
fn body(items: &[&str]) -> String {
    format!("\u{feff}{{ \"to\": \"x\", \"events\": [\n {}\t] , \"more\": [{{\"id\":\"no\"}}]}}\r\n", items.join(" ,\r\n"))
}

#[test]
fn the_items_of_a_signed_batch_arrive_in_kafka_one_by_one() {
    let sources = "[sources.activity]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\ncontent = [\"body\"]\n\
         signature = { from = \"header:X-Signature\" }\nsplit = true\nmax_items = 5\n\
         event = { batch = \"/events\", id = \"json:/id\", type = \"json:/type\", key = \"json:/user\" }\n";
    let signed_with = |secret: &[u8], body: &str| {
        Request::new("activity", body).with("X-Signature", hex(&hmac("sha256", secret, body.as_bytes())))
    };
    let signed = |body: &str| signed_with(b"key", body);
    let auth = "mac-sha256:key";
    let genuine = signed(&body(&[item(0), item(1)]));
    let forged = |what: &str, items: &[&str]| genuine.clone().with_body(body(items)).outcome(what, "signature_mismatch");
    let keyless = Event::of_item("{\"type\":\"paid\"}", auth, ("", "", "")).without_id();
    let ndjson = format!("{}\n{}", body(&[item(0)]), body(&[item(3)]));
    let mut sent = vec![
        genuine.clone().stored_as("two items", vec![event(0, auth), event(1, auth)]),
        genuine.clone().outcome("the same delivery", "duplicate"),
        signed(&body(&[item(1), item(0)])).outcome("a signed delivery of the same items", "duplicate"),
        signed(&body(&[item(1), item(2)])).stored_as("a seen and a fresh item", vec![event(2, auth)]),
        signed(&body(&["{\"type\":\"paid\"}", item(0)])).stored_as("an item without an id", vec![keyless]),
        // Text after the body's value may hold further items, so the body is one event without the values of an item.
        signed(&ndjson).stored("two values", auth, "full", None),
        forged("a changed byte in an item", &[&item(0).replace("e-1", "e-7"), item(1)]),
        forged("other white space in an item", &[&item(0).replace('\t', " "), item(1)]),
        forged("an item in another place", &[item(1), item(0)]),
        forged("an item without its successor", &[item(0)]),
        forged("one more item", &[item(0), item(1), item(3)]),
        forged("an item twice", &[item(0), item(0)]),
        forged("no items", &[]),
        signed_with(b"x", &body(&[item(3)])).outcome("another secret", "signature_mismatch"),
    ];
    sent.extend(tampered(&signed(&body(&[item(3)])), "X-Signature", true));
    sent.push(signed(&body(&[item(3)])).stored_as("the delivery whose forms were rejected", vec![event(3, auth)]));
    run("proofs-batch", sources, &[("key", "key")], &sent);
}

/// The body is the array, and openssl signs it with a private key.
#[test]
fn the_items_of_an_array_with_a_public_key_signature_arrive_in_kafka() {
    let (key, other) = (shared_key_pair("rsa-2048"), shared_key_pair("rsa-1024"));
    let sources = "[sources.array]\nauth = \"signature\"\nalgorithm = \"rsa-pkcs1-sha256\"\nencoding = \"base64\"\n\
         public_keys = [\"file:key.pem\"]\nsignature = { from = \"header:X-Signature\" }\ncontent = [\"body\"]\nsplit = true\n\
         event = { batch = \"\", id = \"json:/id\", type = \"json:/type\", key = \"json:/user\" }\n";
    let signed_with = |key, body: &str| {
        Request::new("array", body).with("X-Signature", base64(&openssl_sign(&["-sha256"], key, body.as_bytes())))
    };
    let array = |items: &[&str]| format!(" [{}]\n\0", items.join(","));
    let genuine = signed_with(&key, &array(&[item(0), item(3), item(2)]));
    let auth = "rsa-pkcs1-sha256:key.pem";
    let forged = |items: &[&str]| genuine.clone().with_body(array(items));
    run(
        "proofs-batch-array",
        sources,
        &[("key.pem", &key.pem)],
        &[
            genuine.clone().stored_as("three items", vec![event(0, auth), event(3, auth), event(2, auth)]),
            genuine.clone().outcome("the same delivery", "duplicate"),
            forged(&[item(0), item(3), &item(2).replace("e-3", "e-4")]).outcome("a changed item", "signature_mismatch"),
            forged(&[item(3), item(0), item(2)]).outcome("an item in another place", "signature_mismatch"),
            forged(&[item(0), item(3)]).outcome("an item removed", "signature_mismatch"),
            signed_with(&other, &array(&[item(1)])).outcome("another key", "signature_mismatch"),
            genuine.without("X-Signature").outcome("no signature", "signature_missing"),
        ],
    );
}

/// Adyen signs fields of each item, and puts the signature into the item.
#[test]
fn items_with_their_own_signatures_arrive_in_kafka() {
    let fields = ["pspReference", "originalReference", "merchantAccountCode", "merchantReference"]
        .into_iter()
        .chain(["amount/value", "amount/currency", "eventCode", "success"])
        .map(|field| format!("\"optional(json:/NotificationRequestItem/{field})\""));
    let sources = format!(
        "[sources.adyen]\nauth = \"mac\"\nalgorithm = \"sha256\"\nkey_format = \"hex\"\nsecrets = [\"file:key\"]\n\
         signature = {{ from = \"json:/NotificationRequestItem/additionalData/hmacSignature\", encoding = \"base64\" }}\n\
         match = \"all-items\"\ncontent = [{}]\nsplit = true\nevent.batch = \"/notificationItems\"\n\
         event.id = [[\"json:/NotificationRequestItem/pspReference\", \"json:/NotificationRequestItem/eventCode\"]]\n\
         event.type = \"json:/NotificationRequestItem/eventCode\"\nevent.key = \"json:/NotificationRequestItem/pspReference\"\n",
        fields.collect::<Vec<_>>().join(", \":\", ")
    );
    let secret = *b"0123456789abcdef0123456789abcdef";
    let item_with = |secret: &[u8], reference: &str| {
        let signed = format!("{reference}::Acme:order\u{e9}:1130:EUR:CAPTURE:true");
        let code = base64(&hmac("sha256", secret, signed.as_bytes()));
        format!(
            "{{\"NotificationRequestItem\": {{\"additionalData\":{{\"hmacSignature\":\"{code}\", \"note\":1.0}},\
             \"amount\":{{\"currency\":\"EUR\",\"value\":1130}} ,\"eventCode\":\"CAPTURE\",\"merchantAccountCode\":\"Acme\",\
             \"merchantReference\":\"order\\u00e9\",\"pspReference\":\"{reference}\",\"success\":\"true\"}}}}"
        )
    };
    let item = |reference: &str| item_with(&secret, reference);
    let request = |items: &[String]| {
        Request::new("adyen", format!("{{\"live\":\"false\",\n\"notificationItems\":[{}]}}", items.join(" , ")))
    };
    let event = |reference: &str| {
        let facts = (&*format!("{reference}.CAPTURE"), "CAPTURE", reference);
        Event::of_item(&item(reference), "mac-sha256:key", facts).with_integrity("partial")
    };
    let changed = |from: &str, to: &str| request(&[item("p4"), item("p5").replace(from, to)]);
    let genuine = request(&[item("p1"), item("p2")]);
    let two_bodies = [&genuine.body[..], b"\n", &request(&[item("p4").replace("1130", "1131")]).body].concat();
    run(
        "proofs-batch-adyen",
        &sources,
        &[("key", &hex(&secret))],
        &[
            genuine.clone().stored_as("two items", vec![event("p1"), event("p2")]),
            genuine.clone().outcome("the same delivery", "duplicate"),
            request(&[item("p3"), item("p1")]).stored_as("a fresh and a seen item", vec![event("p3")]),
            changed("1130", "1131").outcome("another amount in one item", "signature_mismatch"),
            changed("true", "false").outcome("another result in one item", "signature_mismatch"),
            changed("hmacSignature\":\"", "hmacSignature\":\"!").outcome("an unreadable signature", "signature_malformed"),
            changed("hmacSignature", "x").outcome("an item without a signature", "signature_missing"),
            request(&[item("p4"), item("p4").replace("p4", "p5")]).outcome("the signature of another item", "signature_mismatch"),
            request(&[item_with(b"x", "p4"), item("p5")]).outcome("an item with another secret", "signature_mismatch"),
            request(&[item("p4"), "{}".to_owned()]).outcome("an empty item", "signature_missing"),
            request(&[item("p4"), "null".to_owned()]).outcome("null as an item", "signature_missing"),
            request(&[]).outcome("no items", "signature_missing"),
            Request::new("adyen", two_bodies).outcome("a forged item after the body's value", "signature_malformed"),
            Request::new("adyen", "").outcome("an empty body", "signature_missing"),
            // No rejected delivery has left a trace of its genuine items.
            request(&[item("p4"), item("p5")]).stored_as("the items of the rejected deliveries", vec![event("p4"), event("p5")]),
        ],
    );
}
