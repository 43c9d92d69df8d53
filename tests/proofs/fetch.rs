//! Senders that publish their public keys. A delivery names its key. hookhold does not fetch keys, so a delivery with a key that
//! the source lacks gets a 503, and never a 401. A forged delivery must pass every check that needs no key to get the 503.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::crypto::{KeyPair, jwt, jwt_with_secret, key_pair, sign};
use crate::endpoint::{EVENT, Request, base64, hex, json as body, now, run};

/// A JSON Web Token names its key in its header (`kid`).
#[test]
fn a_token_with_an_unknown_key_id_gets_a_503() {
    let (first, second, other) = (key_pair("p-256"), key_pair("p-256"), key_pair("p-256"));
    let mut with_kid: Value = serde_json::from_str(&first.jwk).expect("a JSON Web Key");
    with_kid["kid"] = json!("k1");
    let sources = format!(
        "[sources.tokens]\nauth = \"jwt\"\nalgorithm = [\"ES256\"]\nkey_format = \"jwk\"\n\
         token = {{ from = \"header:X-Token\" }}\nclaims = {{ iss = \"acme\" }}\nmax_age = \"5m\"\n\
         fetch = {{ url = \"https://acme.example/keys\" }}\n\
         public_keys = ['{with_kid}', {{ name = \"second\", id = \"k2\", from = \"file:second\" }}]\n{EVENT}"
    );
    let claims = |change: fn(&mut Value)| {
        let mut all = json!({ "iss": "acme", "iat": now(), "exp": now() + 60 });
        change(&mut all);
        all
    };
    let at = |token: &str, id: &str| Request::new("tokens", body(id)).with("X-Token", token);
    let signed = |header: Value, change: fn(&mut Value), key: &KeyPair, id: &str| at(&jwt(header, claims(change), key), id);
    let named = |kid: &str, key: &KeyPair, id: &str| signed(json!({ "alg": "ES256", "kid": kid }), |_| {}, key, id);
    let unknown = |change: fn(&mut Value)| signed(json!({ "alg": "ES256", "kid": "k9" }), change, &other, "t-9");
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let forged = |claims: &str, code: &[u8]| {
        at(&format!("{}.{}.{}", part("{\"alg\":\"ES256\",\"kid\":\"k9\"}"), part(claims), URL_SAFE_NO_PAD.encode(code)), "t-9")
    };
    let genuine = claims(|_| {}).to_string();
    let hs256 = jwt_with_secret(json!({ "alg": "HS256", "kid": "k9" }), claims(|_| {}), &[7; 64]);
    let sent = [
        named("k1", &first, "t-1").stored("the id in the JSON Web Key", "jwt:public-key-1", "none", Some("t-1")),
        named("k2", &second, "t-2").stored("the configured id", "jwt:second", "none", Some("t-2")),
        signed(json!({ "alg": "ES256" }), |_| {}, &second, "t-3").stored("no id", "jwt:second", "none", Some("t-3")),
        named("k1", &other, "t-9").outcome("another key under a known id", "signature_mismatch"),
        signed(json!({ "alg": "ES256" }), |_| {}, &other, "t-9").outcome("another key without an id", "signature_mismatch"),
        signed(json!({ "alg": "ES256", "kid": "" }), |_| {}, &other, "t-9").outcome("an empty id", "signature_mismatch"),
        named(&"k".repeat(600), &other, "t-9").outcome("a very long id", "signature_mismatch"),
        unknown(|_| {}).outcome("an unknown id", "key_unavailable"),
        named("k9\n", &other, "t-9").outcome("an unknown id with a line break", "key_unavailable"),
        forged(&genuine, &[1; 64]).outcome("a forgery that only the key can reveal", "key_unavailable"),
        unknown(|claims| claims["iss"] = json!("other")).outcome("another issuer", "signature_mismatch"),
        unknown(|claims| claims["exp"] = json!(now() - 90)).outcome("an expired token", "signature_mismatch"),
        unknown(|claims| claims["iat"] = json!(now() - 400)).outcome("an old token", "signature_mismatch"),
        unknown(|claims| claims["nbf"] = json!(now() + 400)).outcome("a token of the future", "signature_mismatch"),
        unknown(|claims| claims["exp"] = json!("x")).outcome("an unreadable time", "signature_malformed"),
        forged("{", &[1; 64]).outcome("claims that are no JSON", "signature_malformed"),
        forged(&genuine, &[1; 63]).outcome("a signature that is too short", "signature_malformed"),
        forged(&genuine, &[]).outcome("no signature", "signature_malformed"),
        at(&hs256, "t-9").outcome("an algorithm that the recipe lacks", "signature_malformed"),
        named("k1", &first, "t-4").stored("a delivery after the others", "jwt:public-key-1", "none", Some("t-4")),
    ];
    run("proofs-fetch-jwt", &sources, &[("second", &second.jwk)], &sent);
}

/// PayPal and Amazon SNS name the URL of a certificate. Other senders name a key id in a header.
#[test]
fn a_signature_with_an_unknown_key_gets_a_503() {
    let (key, other) = (key_pair("p-256"), key_pair("p-256"));
    let recipe = "auth = \"signature\"\nalgorithm = \"ecdsa-p256-sha256-der\"\nencoding = \"base64\"\n\
                  signature = { from = \"header:X-Sig\" }\ncontent = [\"timestamp\", \"body\"]\n\
                  timestamp = { from = \"header:X-Time\" }\n";
    let source = |name: &str, fetch: &str, id: &str| {
        format!(
            "[sources.{name}]\n{recipe}fetch = {{ {fetch} }}\n\
             public_keys = [{{ name = \"known\", id = \"{id}\", from = \"file:key.pem\" }}]\n{EVENT}"
        )
    };
    const KNOWN: &str = "https://api.paypal.com/certs/CERT-1";
    let sources = source("paypal", "url = \"header:X-Cert-Url\", hosts = [\"*.paypal.com\", \"*.paypal.example\"]", KNOWN)
        + &source(
            "sns",
            "url = \"json:/SigningCertURL\", hosts = [\"sns.*.amazonaws.com\"]",
            "https://sns.eu-west-1.amazonaws.com/1.pem",
        )
        + &source("github", "url = \"https://api.github.com/meta/public_keys\", key_id = \"header:X-Key-Id\"", "90a4");
    let signed = |source: &str, key: &KeyPair, body: Vec<u8>, at: u64| {
        let at = at.to_string();
        let code = sign("ecdsa-p256-sha256-der", key, &[at.as_bytes(), &body].concat());
        Request::new(source, body).with("X-Sig", base64(&code)).with("X-Time", at)
    };
    let paypal = |key, url: &str, id: &str| signed("paypal", key, body(id), now()).with("X-Cert-Url", url);
    let sns = |key, url: &str, id: &str| {
        let text = json!({ "id": id, "type": "Notification", "SigningCertURL": url }).to_string();
        signed("sns", key, text.into_bytes(), now())
    };
    let github = |key, id: &str| signed("github", key, body(id), now());
    let unknown = |url: &str| paypal(&other, url, "p-9");
    let mut sent = vec![
        paypal(&key, KNOWN, "p-1").stored("the URL of a listed key", "ecdsa-p256-sha256-der:known", "full", Some("p-1")),
        signed("paypal", &key, body("p-2"), now()).stored("no URL", "ecdsa-p256-sha256-der:known", "full", Some("p-2")),
        paypal(&other, KNOWN, "p-9").outcome("another key under a known URL", "signature_mismatch"),
        signed("paypal", &other, body("p-9"), now()).outcome("another key without a URL", "signature_mismatch"),
        unknown("https://api.paypal.com/certs/CERT-2").outcome("an unknown URL", "key_unavailable"),
        unknown("https://a.b.paypal.example/x").outcome("an unknown URL of the second host", "key_unavailable"),
        unknown("https://evil.example/api.paypal.com").outcome("another host", "signature_malformed"),
        unknown("http://api.paypal.com/certs/CERT-2").outcome("no HTTPS", "signature_malformed"),
        unknown("https://api.paypal.com@evil.example/").outcome("a user", "signature_malformed"),
        unknown("https://evil.example\\.paypal.com/").outcome("a backslash", "signature_malformed"),
        unknown("CERT-2").outcome("no URL but a text", "signature_malformed"),
        unknown("https://api.paypal.com/2").without("X-Sig").outcome("no signature", "signature_missing"),
        unknown("https://api.paypal.com/2").with("X-Sig", "!").outcome("an unreadable signature", "signature_malformed"),
        unknown("https://api.paypal.com/2").without("X-Time").outcome("no time", "signature_malformed"),
        unknown("https://api.paypal.com/2").with("X-Time", "1").outcome("a stale time", "signature_mismatch"),
        unknown("https://api.paypal.com/2").with("X-Time", "99999999999").outcome("a future time", "signature_mismatch"),
    ];
    const LISTED: &str = "https://sns.eu-west-1.amazonaws.com/1.pem";
    sent.extend([
        sns(&key, LISTED, "s-1").stored("a URL in the body", "ecdsa-p256-sha256-der:known", "full", Some("s-1")),
        sns(&other, LISTED, "s-9").outcome("another key", "signature_mismatch"),
        sns(&other, "https://sns.eu-west-1.amazonaws.com/2.pem", "s-9").outcome("an unknown URL", "key_unavailable"),
        sns(&other, "https://sns.a.b.amazonaws.com/2.pem", "s-9").outcome("another host", "signature_malformed"),
        github(&key, "g-1").with("X-Key-Id", "90a4").stored("a key id", "ecdsa-p256-sha256-der:known", "full", Some("g-1")),
        github(&key, "g-2").stored("no key id", "ecdsa-p256-sha256-der:known", "full", Some("g-2")),
        github(&other, "g-9").with("X-Key-Id", "90a4").outcome("another key", "signature_mismatch"),
        github(&other, "g-9").outcome("another key without an id", "signature_mismatch"),
        github(&other, "g-9").with("X-Key-Id", hex(b"new")).outcome("an unknown key id", "key_unavailable"),
    ]);
    run("proofs-fetch-signature", &sources, &[("key.pem", &key.pem)], &sent);
}
