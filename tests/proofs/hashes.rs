//! Message authentication codes and plain hashes.

use crate::crypto::{hash, hmac};
use crate::endpoint::{EVENT, Request, base64, hex, json, now, run, tampered};

#[test]
fn an_hmac_of_each_hash_arrives_in_kafka() {
    let mut sources = String::new();
    let mut sent = Vec::new();
    for (number, name) in ["sha1", "sha256", "sha384", "sha512"].into_iter().enumerate() {
        let encoding = if number % 2 == 0 { "hex" } else { "base64" };
        sources += &format!(
            "[sources.{name}]\nauth = \"mac\"\nalgorithm = \"{name}\"\nencoding = \"{encoding}\"\ncontent = [\"body\"]\n\
             signature = {{ from = \"header:X-Acme\" }}\nsecrets = [\"file:old\", \"file:new\"]\n{EVENT}"
        );
        let encode = if number % 2 == 0 { hex } else { base64 };
        let signed = |secret: &[u8], id: &str| {
            let body = json(id);
            let code = encode(&hmac(name, secret, &body));
            Request::new(name, body).with("X-Acme", code)
        };
        let genuine = signed(b"the new secret", "mac");
        let repeated = signed(b"the old secret", "mac-repeated");
        let good = repeated.header("X-Acme").to_owned();
        let wrong = encode(&hmac(name, b"another secret", &repeated.body));
        sent.extend([
            genuine.clone().stored(name, &format!("mac-{name}:new"), "full", Some("mac")),
            genuine.clone().outcome("the same delivery", "duplicate"),
            signed(b"the old secret", "mac-old").stored("the old secret", &format!("mac-{name}:old"), "full", Some("mac-old")),
            repeated.with("X-Acme", wrong).also_with("X-Acme", good).stored(
                "the second of two headers is genuine",
                &format!("mac-{name}:old"),
                "full",
                Some("mac-repeated"),
            ),
            signed(b"another secret", "mac").outcome("another secret", "signature_mismatch"),
            signed(b"", "mac").outcome("an empty secret", "signature_mismatch"),
        ]);
        sent.extend(tampered(&genuine, "X-Acme", true));
    }
    run("proofs-mac", &sources, &[("old", "the old secret"), ("new", "the new secret")], &sent);
}

/// HubSpot's first version hashes the secret and the body, and Cloudinary hashes body, time and secret.
#[test]
fn a_digest_with_the_secret_inside_arrives_in_kafka() {
    let sources = format!(
        "[sources.hubspot]\nauth = \"digest\"\nalgorithm = \"sha256\"\ncontent = [\"secret\", \"body\"]\n\
         signature = {{ from = \"header:X-HubSpot-Signature\" }}\nsecrets = [\"file:first\", \"file:second\"]\n{EVENT}\n\
         [sources.cloudinary]\nauth = \"digest\"\nalgorithm = \"sha1\"\ncontent = [\"body\", \"timestamp\", \"secret\"]\n\
         signature = {{ from = \"header:X-Cld-Signature\" }}\nsecrets = [\"file:first\", \"file:second\"]\n\
         timestamp = {{ from = \"header:X-Cld-Timestamp\", unit = \"s\", past = \"2h\", future = \"5m\" }}\n\
         event = {{ type = \"json:/type\" }}\n"
    );
    let hubspot = |secret: &str, id: &str| {
        let body = json(id);
        let code = hash("sha256", &[secret.as_bytes(), &body].concat());
        Request::new("hubspot", body).with("X-HubSpot-Signature", hex(&code))
    };
    let cloudinary = |secret: &str, at: u64| {
        let (body, at) = (json("x"), at.to_string());
        let code = hash("sha1", &[&body[..], at.as_bytes(), secret.as_bytes()].concat());
        Request::new("cloudinary", body).with("X-Cld-Signature", hex(&code)).with("X-Cld-Timestamp", at)
    };
    let unkeyed = hash("sha256", &json("h-3"));
    let mut sent = vec![
        hubspot("one", "h-1").stored("HubSpot", "digest-sha256:first", "full", Some("h-1")),
        hubspot("two", "h-2").stored("the second secret", "digest-sha256:second", "full", Some("h-2")),
        hubspot("two", "h-2").outcome("the same delivery", "duplicate"),
        hubspot("three", "h-3").outcome("another secret", "signature_mismatch"),
        hubspot("", "h-3").outcome("no secret in the hash", "signature_mismatch"),
        Request::new("hubspot", json("h-3"))
            .with("X-HubSpot-Signature", hex(&unkeyed))
            .outcome("a plain hash", "signature_mismatch"),
    ];
    let genuine = cloudinary("one", now() - 7_000);
    sent.extend([
        genuine.clone().stored("Cloudinary", "digest-sha1:first", "full", None),
        genuine.clone().outcome("an exact copy", "duplicate"),
        cloudinary("two", now() + 200).stored("a clock that is ahead", "digest-sha1:second", "full", None),
        cloudinary("one", now() - 7_300).outcome("a stale time", "timestamp_stale"),
        cloudinary("one", now() + 400).outcome("a future time", "timestamp_future"),
        cloudinary("three", now() - 7_300).outcome("a stale time and another secret", "signature_mismatch"),
        genuine.clone().with("X-Cld-Timestamp", now().to_string()).outcome("another time", "signature_mismatch"),
        genuine.clone().without("X-Cld-Timestamp").outcome("no time", "signature_malformed"),
        genuine.clone().with("X-Cld-Timestamp", "").outcome("an empty time", "signature_malformed"),
    ]);
    sent.extend(tampered(&hubspot("one", "h-4"), "X-HubSpot-Signature", true));
    sent.extend(tampered(&genuine, "X-Cld-Signature", true));
    run("proofs-digest", &sources, &[("first", "one"), ("second", "two")], &sent);
}
