//! Public-key signatures.

use crate::crypto::{certificate, key_pair, openssl_sign, sign};
use crate::endpoint::{EVENT, Request, base64, hex, json, now, run, tampered};

fn raw_hex(base64: &str) -> String {
    use base64::Engine as _;
    hex(&base64::engine::general_purpose::STANDARD.decode(base64).expect("Base64"))
}

#[test]
fn ed25519_of_discord_arrives_in_kafka() {
    let (key, rotated, other) = (key_pair("ed25519"), key_pair("ed25519"), key_pair("ed25519"));
    let sources = format!(
        "[sources.discord]\nauth = \"signature\"\nalgorithm = \"ed25519\"\nkey_format = \"raw-hex\"\n\
         signature = {{ from = \"header:X-Signature-Ed25519\" }}\ncontent = [\"timestamp\", \"body\"]\n\
         timestamp = {{ from = \"header:X-Signature-Timestamp\", unit = \"s\", past = \"5m\", future = \"5m\" }}\n\
         public_keys = [\"{}\", \"file:rotated\"]\n{EVENT}",
        raw_hex(&key.raw)
    );
    let signed = |key, id: &str, at: u64| {
        let (body, at) = (json(id), at.to_string());
        let code = sign("ed25519", key, &[at.as_bytes(), &body].concat());
        Request::new("discord", body).with("X-Signature-Ed25519", hex(&code)).with("X-Signature-Timestamp", at)
    };
    let genuine = signed(&key, "d-1", now());
    let mut sent = vec![
        genuine.clone().stored("Discord", "ed25519:public-key-1", "full", Some("d-1")),
        signed(&key, "d-1", now() - 60).outcome("a retry", "duplicate"),
        signed(&rotated, "d-2", now()).stored("the second key", "ed25519:rotated", "full", Some("d-2")),
        signed(&other, "d-3", now()).outcome("another key", "signature_mismatch"),
        signed(&key, "d-3", now() - 302).outcome("a stale time", "timestamp_stale"),
        signed(&key, "d-3", now() + 320).outcome("a future time", "timestamp_future"),
        genuine.clone().with("X-Signature-Timestamp", (now() - 1).to_string()).outcome("another time", "signature_mismatch"),
        genuine.clone().without("X-Signature-Timestamp").outcome("no time", "signature_malformed"),
        genuine.clone().with("X-Signature-Ed25519", "0".repeat(128)).outcome("a signature of zeros", "signature_mismatch"),
    ];
    sent.extend(tampered(&genuine, "X-Signature-Ed25519", true));
    run("proofs-ed25519", &sources, &[("rotated", &raw_hex(&rotated.raw))], &sent);
}

#[test]
fn ecdsa_of_sendgrid_arrives_in_kafka() {
    let (key, other) = (key_pair("p-256"), key_pair("p-256"));
    let sources = format!(
        "[sources.sendgrid]\nauth = \"signature\"\nalgorithm = \"ecdsa-p256-sha256-der\"\nkey_format = \"spki-base64\"\n\
         encoding = \"base64\"\nsignature = {{ from = \"header:X-Twilio-Email-Event-Webhook-Signature\" }}\n\
         content = [\"header:X-Twilio-Email-Event-Webhook-Timestamp\", \"body\"]\npublic_keys = [\"{}\"]\n{EVENT}\n\
         [sources.fixed]\nauth = \"signature\"\nalgorithm = \"ecdsa-p256-sha256-fixed\"\nkey_format = \"jwk\"\n\
         signature = {{ from = \"header:X-Fixed\", encoding = \"base64url\" }}\ncontent = [\"body\"]\n\
         public_keys = ['{}']\n{EVENT}",
        key.spki, key.jwk
    );
    const SIGNATURE: &str = "X-Twilio-Email-Event-Webhook-Signature";
    let signed = |key, id: &str| {
        let body = json(id);
        let code = sign("ecdsa-p256-sha256-der", key, &[b"1700000000", &body[..]].concat());
        Request::new("sendgrid", body).with(SIGNATURE, base64(&code)).with("X-Twilio-Email-Event-Webhook-Timestamp", "1700000000")
    };
    let fixed = |key, id: &str| {
        let body = json(id);
        let code = base64(&sign("ecdsa-p256-sha256-fixed", key, &body)).replace('+', "-").replace('/', "_");
        Request::new("fixed", body).with("X-Fixed", code)
    };
    let genuine = signed(&key, "s-1");
    let mut sent = vec![
        genuine.clone().stored("SendGrid", "ecdsa-p256-sha256-der:public-key-1", "full", Some("s-1")),
        signed(&key, "s-1").outcome("a retry with another signature", "duplicate"),
        signed(&other, "s-2").outcome("another key", "signature_mismatch"),
        genuine.clone().without("X-Twilio-Email-Event-Webhook-Timestamp").outcome("no time", "signature_malformed"),
        genuine
            .clone()
            .with("X-Twilio-Email-Event-Webhook-Timestamp", "1700000001")
            .outcome("another time", "signature_mismatch"),
        // An empty DER sequence, one with zeros, and one with huge integers.
        genuine.clone().with(SIGNATURE, "MAA=").outcome("an empty sequence", "signature_mismatch"),
        genuine.clone().with(SIGNATURE, "MAYCAQACAQA=").outcome("zeros", "signature_mismatch"),
        genuine
            .clone()
            .with(SIGNATURE, base64(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]))
            .outcome("a false length", "signature_mismatch"),
        fixed(&key, "f-1").stored("two integers", "ecdsa-p256-sha256-fixed:public-key-1", "full", Some("f-1")),
        fixed(&other, "f-2").outcome("another key", "signature_mismatch"),
        fixed(&key, "f-2").with("X-Fixed", base64(&[0; 64]).replace('=', "")).outcome("zeros", "signature_mismatch"),
        fixed(&key, "f-2")
            .with("X-Fixed", signed(&key, "f-2").header(SIGNATURE))
            .outcome("a DER sequence", "signature_malformed"),
    ];
    sent.extend(tampered(&genuine, SIGNATURE, false));
    sent.extend(tampered(&fixed(&key, "f-3"), "X-Fixed", true));
    run("proofs-ecdsa", &sources, &[], &sent);
}

/// Signs with the `openssl` command. Travis CI signs the decoded form field `payload` with SHA-1.
#[test]
fn rsa_pkcs1_with_sha1_and_sha256_arrives_in_kafka() {
    let (key, other) = (key_pair("rsa-2048"), key_pair("rsa-2048"));
    let sources = format!(
        "[sources.travis]\nauth = \"signature\"\nalgorithm = \"rsa-pkcs1-sha1\"\nencoding = \"base64\"\n\
         signature = {{ from = \"header:Signature\" }}\ncontent = [\"form:payload\"]\npublic_keys = [\"file:key.pem\"]\n\
         event = {{ id = \"form-json:payload/id\" }}\n\
         [sources.highlevel]\nauth = \"signature\"\nalgorithm = \"rsa-pkcs1-sha256\"\nencoding = \"base64\"\n\
         signature = {{ from = \"header:X-Wh-Signature\" }}\ncontent = [\"body\"]\npublic_keys = [\"file:key.pem\"]\n{EVENT}"
    );
    let travis = |key, payload: &str, more: &str| {
        let encoded: String = form_urlencoded::byte_serialize(payload.as_bytes()).collect();
        let code = openssl_sign(&["-sha1"], key, payload.as_bytes());
        Request::new("travis", format!("payload={encoded}{more}")).with("Signature", base64(&code))
    };
    let highlevel = |key, id: &str, hash| {
        let body = json(id);
        let code = openssl_sign(&[hash], key, &body);
        Request::new("highlevel", body).with("X-Wh-Signature", base64(&code))
    };
    let payload = "{\"id\": 7, \"note\": \"+ & = \u{e9}\"}";
    let genuine = travis(&key, payload, "");
    let other_payload = travis(&key, "{\"id\": 8}", "").body;
    let body = genuine.body.clone();
    let mut sent = vec![
        genuine.clone().stored("Travis CI", "rsa-pkcs1-sha1:key.pem", "partial", Some("7")),
        genuine.clone().outcome("the same delivery", "duplicate"),
        travis(&other, payload, "").outcome("another key", "signature_mismatch"),
        genuine.clone().with_body(other_payload).outcome("another payload", "signature_mismatch"),
        genuine.clone().with_body([b"payload=x&", &body[..]].concat()).outcome("another field before it", "signature_mismatch"),
        genuine.clone().with_body(b"other=1".as_slice()).outcome("no payload", "signature_malformed"),
        genuine.clone().with_body(b"".as_slice()).outcome("an empty body", "signature_malformed"),
        highlevel(&key, "r-1", "-sha256").stored("SHA-256", "rsa-pkcs1-sha256:key.pem", "full", Some("r-1")),
        highlevel(&key, "r-2", "-sha1").outcome("SHA-1 instead of SHA-256", "signature_mismatch"),
        highlevel(&other, "r-2", "-sha256").outcome("another key", "signature_mismatch"),
        highlevel(&key, "r-2", "-sha256").with("X-Wh-Signature", base64(&[0; 256])).outcome("zeros", "signature_mismatch"),
        highlevel(&key, "r-2", "-sha256").with("X-Wh-Signature", base64(&[0xff; 256])).outcome("ones", "signature_mismatch"),
    ];
    sent.extend(tampered(&highlevel(&key, "r-3", "-sha256"), "X-Wh-Signature", false));
    run("proofs-rsa", &sources, &[("key.pem", &key.pem)], &sent);
}

#[test]
fn rsa_pss_arrives_in_kafka() {
    let (key, other) = (key_pair("rsa-2048"), key_pair("rsa-2048"));
    let source = |bits: &str| {
        format!(
            "[sources.pss{bits}]\nauth = \"signature\"\nalgorithm = \"rsa-pss-sha{bits}\"\nencoding = \"base64\"\n\
             signature = {{ from = \"header:X-Pss\" }}\ncontent = [\"body\"]\npublic_keys = [\"file:key.pem\"]\n{EVENT}"
        )
    };
    let mut sent = Vec::new();
    for (bits, name) in [("256", "pss256"), ("512", "pss512")] {
        let options = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
        let signed = |key, id: &str, hash: &str, options: &[&str]| {
            let body = json(id);
            let code = openssl_sign(&[&[hash], options].concat(), key, &body);
            Request::new(name, body).with("X-Pss", base64(&code))
        };
        let own = format!("-sha{bits}");
        let genuine = signed(&key, "p-1", &own, &options);
        sent.extend([
            genuine.clone().stored("RSA-PSS", &format!("rsa-pss-sha{bits}:key.pem"), "full", Some("p-1")),
            signed(&key, "p-1", &own, &options).outcome("a retry with another signature", "duplicate"),
            signed(&key, "p-3", &own, &options[..2]).stored(
                "the longest salt",
                &format!("rsa-pss-sha{bits}:key.pem"),
                "full",
                Some("p-3"),
            ),
            signed(&key, "p-2", &own, &[options[0], options[1], "-sigopt", "rsa_pss_saltlen:20"])
                .outcome("another salt length", "signature_mismatch"),
            signed(&other, "p-2", &own, &options[..2]).outcome("the longest salt of another key", "signature_mismatch"),
            signed(&other, "p-2", &own, &options).outcome("another key", "signature_mismatch"),
            signed(&key, "p-2", &own, &[]).outcome("PKCS#1 instead of PSS", "signature_mismatch"),
            signed(&key, "p-2", "-sha384", &options).outcome("another hash", "signature_mismatch"),
        ]);
        sent.extend(tampered(&genuine, "X-Pss", false));
    }
    run("proofs-pss", &(source("256") + &source("512")), &[("key.pem", &key.pkcs1)], &sent);
}

/// PayPal signs a CRC-32 of the body, and the key is a certificate. The webhook id is not part of the request.
#[test]
fn a_checksum_of_paypal_with_a_certificate_arrives_in_kafka() {
    let (key, other) = (key_pair("rsa-2048"), key_pair("rsa-2048"));
    let sources = "[sources.paypal]\nauth = \"signature\"\nalgorithm = \"rsa-pkcs1-sha256\"\nencoding = \"base64\"\n\
         signature = { from = \"header:PayPal-Transmission-Sig\" }\n\
         content = [\"header:PayPal-Transmission-Id\", \"|\", \"header:PayPal-Transmission-Time\", \"|\", \"config:webhook_id\", \
         \"|\", \"body-crc32-decimal\"]\npublic_keys = [\"file:paypal.pem\"]\nvalues = { webhook_id = \"WH-1\" }\n\
         event = { id = \"json:/id\", type = \"json:/type\" }\n";
    let signed = |key, id: &str, webhook: &str| {
        let body = json(id);
        let content = format!("t-1|2026-11-28T00:00:00Z|{webhook}|{}", crc32(&body));
        let code = sign("rsa-pkcs1-sha256", key, content.as_bytes());
        Request::new("paypal", body)
            .with("PayPal-Transmission-Id", "t-1")
            .with("PayPal-Transmission-Time", "2026-11-28T00:00:00Z")
            .with("PayPal-Transmission-Sig", base64(&code))
    };
    let genuine = signed(&key, "pp-1", "WH-1");
    let mut sent = vec![
        genuine.clone().stored("PayPal", "rsa-pkcs1-sha256:paypal.pem", "partial", Some("pp-1")),
        genuine.clone().outcome("the same delivery", "duplicate"),
        signed(&key, "pp-2", "WH-2").outcome("the webhook id of another endpoint", "signature_mismatch"),
        signed(&other, "pp-2", "WH-1").outcome("another certificate", "signature_mismatch"),
        genuine.clone().without("PayPal-Transmission-Id").outcome("no transmission id", "signature_malformed"),
        genuine.clone().with("PayPal-Transmission-Time", "2026-11-28T00:00:01Z").outcome("another time", "signature_mismatch"),
    ];
    sent.extend(tampered(&genuine, "PayPal-Transmission-Sig", false));
    run("proofs-paypal", sources, &[("paypal.pem", &certificate(&key, 30))], &sent);
}

/// Computes a CRC-32 bit by bit, as ISO 3309 describes it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
