//! Several proofs in one recipe, slots, numbered headers, and groups of signatures.

use crate::crypto::{hmac, key_pair, sign};
use crate::endpoint::{EVENT, Request, base64, hex, json, now, run, tampered};

/// The three ways of a sender: an Ed25519 signature, an HMAC, and a token.
#[test]
fn any_proof_of_a_recipe_may_hold() {
    let (key, other) = (key_pair("ed25519"), key_pair("ed25519"));
    let sources = format!(
        "[sources.any]\npublic_keys = [\"file:key.pem\"]\nsecrets = [\"file:secret\"]\ncontent = [\"body\"]\n{EVENT}\n\
         [[sources.any.proof]]\nauth = \"signature\"\nalgorithm = \"ed25519\"\nsignature = {{ from = \"header:X-Ed\" }}\n\
         [[sources.any.proof]]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsignature = {{ from = \"header:X-Mac\" }}\n\
         [[sources.any.proof]]\nauth = \"token\"\ntoken = {{ from = \"header:X-Token\" }}\n"
    );
    let plain = |id: &str| Request::new("any", json(id));
    let with_ed = |request: Request, key| {
        let code = hex(&sign("ed25519", key, &request.body));
        request.with("X-Ed", code)
    };
    let with_mac = |request: Request, secret: &[u8]| {
        let code = hex(&hmac("sha256", secret, &request.body));
        request.with("X-Mac", code)
    };
    run(
        "proofs-several",
        &sources,
        &[("key.pem", &key.pem), ("secret", "s3cret")],
        &[
            with_ed(plain("a-1"), &key).stored("the first proof", "ed25519:key.pem", "full", Some("a-1")),
            with_mac(plain("a-2"), b"s3cret").stored("the second proof", "mac-sha256:secret", "full", Some("a-2")),
            plain("a-3").with("X-Token", "s3cret").stored("the third proof", "token:secret", "none", Some("a-3")),
            with_mac(with_ed(plain("a-4"), &key), b"s3cret").stored("two proofs", "ed25519:key.pem", "full", Some("a-4")),
            with_mac(with_ed(plain("a-5"), &other), b"s3cret").stored(
                "a wrong and a genuine proof",
                "mac-sha256:secret",
                "full",
                Some("a-5"),
            ),
            with_mac(plain("a-6"), b"s3cret").with("X-Ed", "!").stored(
                "an unreadable and a genuine proof",
                "mac-sha256:secret",
                "full",
                Some("a-6"),
            ),
            with_mac(plain("a-2"), b"s3cret").outcome("the same delivery", "duplicate"),
            plain("a-7").outcome("no proof", "signature_missing"),
            plain("a-7").with("X-Ed", "!").with("X-Mac", "!").outcome("two unreadable proofs", "signature_malformed"),
            with_mac(with_ed(plain("a-7"), &other), b"x").outcome("two wrong proofs", "signature_mismatch"),
            with_ed(plain("a-7"), &other).with("X-Token", "").outcome("a wrong proof and an empty token", "signature_mismatch"),
            // The public key is no secret, so it must not serve as one.
            with_mac(plain("a-7"), key.pem.trim_end().as_bytes()).outcome("the public key as the secret", "signature_mismatch"),
            plain("a-7").with("X-Token", key.raw.clone()).outcome("the public key as the token", "signature_mismatch"),
        ],
    );
}

/// Box signs with a primary and with a secondary key, each in its own header.
#[test]
fn a_slot_accepts_only_its_own_key() {
    let sources = format!(
        "[sources.box]\nauth = \"mac\"\nalgorithm = \"sha256\"\nencoding = \"base64\"\nmatch = \"slots\"\n\
         signature = {{ from = [\"header:Box-Signature-Primary\", \"header:Box-Signature-Secondary\"] }}\n\
         content = [\"body\", \"timestamp\"]\nsecrets = [\"file:primary\", \"file:secondary\"]\n\
         timestamp = {{ from = \"header:Box-Delivery-Timestamp\", unit = \"rfc3339\", past = \"10m\", future = \"0s\" }}\n{EVENT}"
    );
    let (first, second) = (&b"the primary key"[..], &b"the secondary key"[..]);
    let signed = |primary: Option<&[u8]>, secondary: Option<&[u8]>, id: &str, at: u64| {
        let time = jiff::Timestamp::from_second(at as i64).expect("a time").to_string();
        let body = json(id);
        let code = |key| base64(&hmac("sha256", key, &[&body, time.as_bytes()].concat()));
        let request = Request::new("box", body.clone()).with("Box-Delivery-Timestamp", time.clone());
        let request = primary.map_or(request.clone(), |key| request.with("Box-Signature-Primary", code(key)));
        secondary.map_or(request.clone(), |key| request.with("Box-Signature-Secondary", code(key)))
    };
    let genuine = signed(Some(first), Some(second), "x-1", now());
    let mut sent = vec![
        genuine.clone().stored("both", "mac-sha256:primary", "full", Some("x-1")),
        genuine.clone().outcome("the same delivery", "duplicate"),
        signed(Some(first), None, "x-2", now()).stored("the first key", "mac-sha256:primary", "full", Some("x-2")),
        signed(None, Some(second), "x-3", now()).stored("the second key", "mac-sha256:secondary", "full", Some("x-3")),
        signed(Some(b"x"), Some(second), "x-4", now()).stored("a rotated key", "mac-sha256:secondary", "full", Some("x-4")),
        signed(Some(second), Some(first), "x-5", now()).outcome("the keys in exchanged slots", "signature_mismatch"),
        signed(Some(second), None, "x-5", now()).outcome("the second key in the first slot", "signature_mismatch"),
        signed(None, Some(first), "x-5", now()).outcome("the first key in the second slot", "signature_mismatch"),
        signed(Some(first), None, "x-5", now() - 601).outcome("a stale time", "timestamp_stale"),
        signed(Some(first), None, "x-5", now() + 60).outcome("a future time", "timestamp_future"),
        signed(None, None, "x-5", now()).outcome("no signature", "signature_missing"),
    ];
    sent.extend(tampered(&signed(Some(first), None, "x-6", now()), "Box-Signature-Primary", true));
    run("proofs-slots", &sources, &[("primary", "the primary key"), ("secondary", "the secondary key")], &sent);
}

/// DocuSign numbers its headers, one for each key of the account.
#[test]
fn a_numbered_header_of_any_number_may_match() {
    let sources = format!(
        "[sources.docusign]\nauth = \"mac\"\nalgorithm = \"sha256\"\nencoding = \"base64\"\ncontent = [\"body\"]\n\
         signature = {{ from = \"header:X-DocuSign-Signature-*\" }}\nsecrets = [\"file:key\"]\n{EVENT}"
    );
    let code = |secret: &[u8], id: &str| base64(&hmac("sha256", secret, &json(id)));
    let with = |headers: &[(&str, String)], id: &str| {
        headers.iter().fold(Request::new("docusign", json(id)), |request, (name, value)| request.also_with(name, value.clone()))
    };
    let many: Vec<(String, String)> = (1..=60)
        .map(|number| (format!("X-DocuSign-Signature-{number}"), code(if number == 60 { b"key" } else { b"x" }, "n-3")))
        .collect();
    let many: Vec<(&str, String)> = many.iter().map(|(name, value)| (&**name, value.clone())).collect();
    run(
        "proofs-numbered",
        &sources,
        &[("key", "key")],
        &[
            with(&[("X-DocuSign-Signature-1", code(b"key", "n-1"))], "n-1").stored("one", "mac-sha256:key", "full", Some("n-1")),
            with(&[("X-DocuSign-Signature-1", code(b"x", "n-2")), ("x-docusign-signature-12", code(b"key", "n-2"))], "n-2")
                .stored("the second of two", "mac-sha256:key", "full", Some("n-2")),
            with(&many, "n-3").stored("the last of 60", "mac-sha256:key", "full", Some("n-3")),
            with(&[("X-DocuSign-Signature-1", code(b"x", "n-4"))], "n-4").outcome("another key", "signature_mismatch"),
            with(&[("X-DocuSign-Signature-", code(b"key", "n-4"))], "n-4").outcome("no number", "signature_missing"),
            with(&[("X-DocuSign-Signature-1a", code(b"key", "n-4"))], "n-4").outcome("no plain number", "signature_missing"),
            with(&[("X-DocuSign-Signature", code(b"key", "n-4"))], "n-4").outcome("another header", "signature_missing"),
            with(&[("X-DocuSign-Signature-1", "!".into())], "n-4").outcome("an unreadable signature", "signature_malformed"),
        ],
    );
}
