//! Signatures and times inside the body.

use crate::crypto::hmac;
use crate::endpoint::{Request, hex, json, now, run, tampered};

/// Mailgun puts time, token and signature into the body, and the signature covers only the first two.
#[test]
fn a_signature_inside_the_body_arrives_in_kafka() {
    let sources = "[sources.mailgun]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\n\
         signature = { from = [\"json:/signature/signature\", \"form:signature\"] }\n\
         content_variants = [[\"timestamp\", \"json:/signature/token\"], [\"timestamp\", \"form:token\"]]\n\
         timestamp = { from = [\"json:/signature/timestamp\", \"form:timestamp\"], unit = \"s\", past = \"8h\", future = \"5m\" }\n\
         event = { id = \"json:/event-data/id\", type = \"json:/event-data/event\" }\n";
    let signature = |secret: &[u8], at: u64| hex(&hmac("sha256", secret, format!("{at}tok").as_bytes()));
    let signed = |at: u64, id: &str, code: &str| {
        let body = format!(
            "{{\"signature\": {{\"timestamp\": \"{at}\", \"token\": \"tok\", \"signature\": \"{code}\"}}, \
             \"event-data\": {{\"id\": \"{id}\", \"event\": \"opened\"}}}}"
        );
        Request::new("mailgun", body)
    };
    let at = now() - 60;
    let code = signature(b"key", at);
    let raw = |body: &str| Request::new("mailgun", body);
    run(
        "proofs-mailgun",
        sources,
        &[("key", "key")],
        &[
            signed(at, "m-1", &code).stored("Mailgun", "mac-sha256:key", "partial", Some("m-1")),
            signed(at, "m-1", &code).outcome("the same delivery", "duplicate"),
            signed(at, "m-2", &code).stored("the same signature for another event", "mac-sha256:key", "partial", Some("m-2")),
            raw(&format!("timestamp={at}&token=tok&signature={code}&subject=x")).stored(
                "a form of a route",
                "mac-sha256:key",
                "partial",
                None,
            ),
            signed(at + 1, "m-3", &code).outcome("another time", "signature_mismatch"),
            signed(at, "m-3", &signature(b"x", at)).outcome("another key", "signature_mismatch"),
            signed(at - 29_000, "m-3", &signature(b"key", at - 29_000)).outcome("a stale time", "timestamp_stale"),
            signed(at + 420, "m-3", &signature(b"key", at + 420)).outcome("a future time", "timestamp_future"),
            signed(at, "m-3", "").outcome("an empty signature", "signature_missing"),
            signed(at, "m-3", "zz").outcome("an unreadable signature", "signature_malformed"),
            signed(at, "m-3", &code[2..]).outcome("a truncated signature", "signature_malformed"),
            signed(at, "m-3", &"0".repeat(5000)).outcome("a very long signature", "signature_malformed"),
            raw(&format!("{{\"signature\": {{\"timestamp\": \"{at}\", \"signature\": \"{code}\"}}}}"))
                .outcome("no token", "signature_malformed"),
            raw("{\"signature\": {\"signature\": {}}}").outcome("an object as the signature", "signature_missing"),
            raw("{\"signature\": []}").outcome("a list", "signature_missing"),
            raw("{\"signature\": {").outcome("a truncated body", "signature_missing"),
            raw("").outcome("an empty body", "signature_missing"),
            raw("\u{0}\u{1}").outcome("binary", "signature_missing"),
            raw("{}").with("signature", code).outcome("the signature in a header", "signature_missing"),
        ],
    );
}

/// Linear signs the body, which contains the time in milliseconds.
#[test]
fn a_time_inside_the_signed_body_arrives_in_kafka() {
    let sources = "[sources.linear]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\ncontent = [\"body\"]\n\
         signature = { from = \"header:Linear-Signature\" }\n\
         timestamp = { from = \"json:/webhookTimestamp\", unit = \"ms\", past = \"1m\", future = \"1m\" }\n\
         event = { id = \"header:Linear-Delivery\", type = \"header:Linear-Event\" }\n";
    let signed = |body: String, id: &str| {
        let code = hex(&hmac("sha256", b"key", body.as_bytes()));
        Request::new("linear", body).with("Linear-Signature", code).with("Linear-Delivery", id).with("Linear-Event", "Issue")
    };
    let at = |seconds: u64| format!("{{\"action\": \"create\", \"webhookTimestamp\": {}}}", seconds * 1000);
    let genuine = signed(at(now()), "n-1");
    let mut sent = vec![
        genuine.clone().stored("Linear", "mac-sha256:key", "body", Some("n-1")),
        genuine.clone().outcome("the same delivery", "duplicate"),
        genuine.clone().with("Linear-Delivery", "n-2").stored("another unsigned id", "mac-sha256:key", "body", Some("n-2")),
        signed(at(now() - 62), "n-3").outcome("a stale time", "timestamp_stale"),
        signed(at(now() + 70), "n-3").outcome("a future time", "timestamp_future"),
        signed(at(now()).replace("webhookTimestamp", "x"), "n-3").outcome("no time", "signature_malformed"),
        signed(format!("{{\"webhookTimestamp\": \"{}\"}}", now() * 1000), "n-4").stored(
            "the time as a text",
            "mac-sha256:key",
            "body",
            Some("n-4"),
        ),
        signed("{\"webhookTimestamp\": 1.7e12}".to_owned(), "n-3").outcome("a fraction", "signature_malformed"),
        signed("{\"webhookTimestamp\": -1}".to_owned(), "n-3").outcome("a negative time", "signature_malformed"),
        signed("{\"webhookTimestamp\": 99999999999999999999}".to_owned(), "n-3").outcome("a huge time", "signature_malformed"),
        signed("no JSON".to_owned(), "n-3").outcome("no JSON", "signature_malformed"),
    ];
    sent.extend(tampered(&signed(at(now()), "n-5").with_body(json("x")), "Linear-Signature", true));
    run("proofs-linear", sources, &[("key", "key")], &sent);
}

/// Dropbox Sign posts JSON in a multipart field, and signs the time and the type of the event.
#[test]
fn a_signature_inside_a_multipart_field_arrives_in_kafka() {
    let sources = "[sources.sign]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsecrets = [\"file:key\"]\n\
         signature = { from = \"form-json:json/event/event_hash\" }\n\
         content = [\"form-json:json/event/event_time\", \"form-json:json/event/event_type\"]\n\
         timestamp = { from = \"form-json:json/event/event_time\", past = \"1h\" }\n\
         event = { id = \"form-json:json/request/id\", type = \"form-json:json/event/event_type\" }\n\
         reply = { ok = { status = 200, body = \"Hello API Event Received\" } }\n";
    let code = |secret: &[u8], at: u64| hex(&hmac("sha256", secret, format!("{at}sent").as_bytes()));
    let event = |at: u64, code: &str, id: &str| {
        format!(
            "{{\"event\": {{\"event_time\": \"{at}\", \"event_type\": \"sent\", \"event_hash\": \"{code}\"}}, \"request\": {{\"id\": \"{id}\"}}}}"
        )
    };
    let with = |disposition: &str, value: &str| {
        let part = format!("--x-1\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n");
        let other = "--x-1\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\n\u{e9}\r\n";
        Request::new("sign", format!("{other}{part}--x-1--\r\n")).with("Content-Type", "multipart/form-data; boundary=x-1")
    };
    let signed = |at: u64, id: &str| with("name=\"json\"", &event(at, &code(b"key", at), id));
    let at = now() - 60;
    let genuine = signed(at, "q-1");
    let text = String::from_utf8(genuine.body.clone()).expect("text");
    run(
        "proofs-multipart",
        sources,
        &[("key", "key")],
        &[
            genuine.clone().stored("Dropbox Sign", "mac-sha256:key", "partial", Some("q-1")),
            genuine.clone().outcome("the same delivery", "duplicate"),
            genuine.clone().without("Content-Type").outcome("no content type", "duplicate"),
            signed(at, "q-2").stored("another request in the same second", "mac-sha256:key", "partial", Some("q-2")),
            signed(now() - 3_602, "q-3").outcome("a stale time", "timestamp_stale"),
            signed(now() + 320, "q-3").outcome("a future time", "timestamp_future"),
            with("name=\"json\"", &event(at, &code(b"x", at), "q-3")).outcome("another key", "signature_mismatch"),
            with("name=\"json\"", &event(at + 1, &code(b"key", at), "q-3")).outcome("another time", "signature_mismatch"),
            with("name=\"json\"", &event(at, "", "q-3")).outcome("an empty signature", "signature_missing"),
            with("name=\"json\"", &event(at, "zz", "q-3")).outcome("an unreadable signature", "signature_malformed"),
            with("name=\"json\"", &event(at, &"0".repeat(5000), "q-3")).outcome("a very long signature", "signature_malformed"),
            with("name=\"JSON\"", &event(at, &code(b"key", at), "q-3")).outcome("another field", "signature_missing"),
            with("name=\"json\"; filename=\"a\"", &event(at, &code(b"key", at), "q-3")).outcome("a file", "signature_missing"),
            genuine.clone().with_body(text.replace("--x-1--\r\n", "")).outcome("no end", "signature_missing"),
            genuine.clone().with_body(&text.as_bytes()[..text.len() / 2]).outcome("a truncated body", "signature_missing"),
            genuine.clone().with_body(b"".as_slice()).outcome("an empty body", "signature_missing"),
        ],
    );
}
