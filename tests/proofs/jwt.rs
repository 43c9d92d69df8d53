//! JSON Web Tokens. jose makes the genuine tokens. The forged ones are put together here, because jose cannot make them.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::crypto::{KeyPair, hash, hmac, jwt, jwt_with_secret, key_pair};
use crate::endpoint::{EVENT, Request, Sent, base64, hex, json as body, now, run};

const SECRET: &[u8] = b"an HMAC secret of 32 bytes......";

/// LiveKit puts a token without a scheme into `Authorization`, and its claim `sha256` is the hash of the body in Base64.
#[test]
fn hs256_with_a_body_hash_arrives_in_kafka() {
    let sources = format!(
        "[sources.livekit]\nauth = \"jwt\"\nalgorithm = [\"HS256\", \"HS512\"]\ntoken = {{ from = \"header:Authorization\" }}\n\
         claims = {{ iss = \"config:api_key\" }}\nvalues = {{ api_key = \"APIkey\" }}\n\
         body_claim = {{ name = \"sha256\", algorithm = \"sha256\", encoding = \"base64\" }}\nsecrets = [\"file:secret\"]\n{EVENT}"
    );
    let claims =
        |body: &[u8]| json!({ "iss": "APIkey", "exp": now() + 60, "nbf": now() - 5, "sha256": base64(&hash("sha256", body)) });
    let token = |claims: Value, id: &str| {
        let token = jwt_with_secret(json!({ "alg": "HS256" }), claims, SECRET);
        Request::new("livekit", body(id)).with("Authorization", token)
    };
    let with = |change: fn(&mut Value), id: &str| {
        let mut all = claims(&body(id));
        change(&mut all);
        token(all, id)
    };
    let genuine = with(|_| {}, "l-1");
    let text = genuine.header("Authorization").to_owned();
    let raw = |text: &str| genuine.clone().with("Authorization", text);
    let hs512 = jwt_with_secret(json!({ "alg": "HS512" }), claims(&body("l-2")), SECRET);
    let hs384 = jwt_with_secret(json!({ "alg": "HS384" }), claims(&body("l-9")), SECRET);
    let other = jwt_with_secret(json!({ "alg": "HS256" }), claims(&body("l-9")), b"another secret of 32 bytes......");
    let at = |token: &str, id: &str| Request::new("livekit", body(id)).with("Authorization", token);
    let (signed, code) = text.rsplit_once('.').expect("three parts");
    let padded = format!("{signed}.{code}=");
    let mut sent = vec![
        genuine.clone().stored("LiveKit", "jwt:secret", "full", Some("l-1")),
        with(|claims| claims["nbf"] = json!(1), "l-1").outcome("a retry with another token", "duplicate"),
        at(&hs512, "l-2").stored("the second algorithm", "jwt:secret", "full", Some("l-2")),
        with(|claims| claims["exp"] = json!(now() - 30), "l-3").stored("a clock difference", "jwt:secret", "full", Some("l-3")),
        with(|claims| claims["exp"] = json!(now() as f64 + 0.5), "l-4").stored("a fraction", "jwt:secret", "full", Some("l-4")),
        genuine.clone().with_body(body("l-9")).outcome("another body", "signature_mismatch"),
        genuine.clone().with_body(b"".as_slice()).outcome("an empty body", "signature_mismatch"),
        at(&other, "l-9").outcome("another secret", "signature_mismatch"),
        at(&hs384, "l-9").outcome("an algorithm that the recipe lacks", "signature_malformed"),
        with(|claims| claims["exp"] = json!(now() - 61), "l-9").outcome("an expired token", "timestamp_stale"),
        with(|claims| claims["exp"] = json!(0), "l-9").outcome("a token that expired in 1970", "timestamp_stale"),
        with(|claims| claims["nbf"] = json!(now() + 70), "l-9").outcome("a token that begins later", "timestamp_future"),
        with(|claims| claims["iat"] = json!(now() + 70), "l-9").outcome("a token of the future", "timestamp_future"),
        with(|claims| claims["exp"] = json!("tomorrow"), "l-9").outcome("a time that is no number", "signature_malformed"),
        with(|claims| claims["exp"] = json!(null), "l-9").outcome("null as the time", "signature_malformed"),
        with(|claims| claims["exp"] = json!(-1), "l-9").outcome("a negative time", "signature_malformed"),
        with(|claims| claims["iss"] = json!("other"), "l-9").outcome("another issuer", "signature_mismatch"),
        with(|claims| claims["iss"] = json!(null), "l-9").outcome("null as the issuer", "signature_mismatch"),
        with(|claims| drop(claims.as_object_mut().expect("claims").remove("iss")), "l-9")
            .outcome("no issuer", "signature_mismatch"),
        with(|claims| drop(claims.as_object_mut().expect("claims").remove("sha256")), "l-9")
            .outcome("no hash", "signature_malformed"),
        with(|claims| claims["sha256"] = json!(""), "l-9").outcome("an empty hash", "signature_malformed"),
        with(|claims| claims["sha256"] = json!(["x"]), "l-9").outcome("a list as the hash", "signature_malformed"),
        with(|claims| claims["sha256"] = json!(hex(&hash("sha256", &body("l-9")))), "l-9")
            .outcome("a hash in hex", "signature_mismatch"),
        raw(&padded).outcome("a padded signature", "signature_malformed"),
        raw(signed).outcome("no signature", "signature_malformed"),
        raw(&format!("{signed}.")).outcome("an empty signature", "signature_mismatch"),
        raw(&format!("{signed}.{}", &code[..20])).outcome("a truncated signature", "signature_mismatch"),
        raw(&format!("{signed}.{}", "A".repeat(8000))).outcome("a very long signature", "signature_mismatch"),
        raw(&format!("{text}.{code}")).outcome("four parts", "signature_malformed"),
        raw(&"A".repeat(17 << 10)).outcome("a very long token", "signature_malformed"),
        raw(&format!("Bearer {text}")).outcome("a scheme that the recipe lacks", "signature_malformed"),
        raw("..").outcome("three empty parts", "signature_malformed"),
        raw("").outcome("an empty header", "signature_missing"),
        genuine.clone().without("Authorization").outcome("no token", "signature_missing"),
    ];
    sent.extend(unsigned_forms(&claims(&body("l-9")), "livekit", ""));
    run("proofs-hs256", &sources, &[("secret", std::str::from_utf8(SECRET).expect("text"))], &sent);
}

/// Google Pub/Sub signs who sends, but not the body.
#[test]
fn rs256_with_an_audience_arrives_in_kafka() {
    let (key, other) = (key_pair("rsa-2048"), key_pair("rsa-2048"));
    let sources = format!(
        "[sources.pubsub]\nauth = \"jwt\"\nalgorithm = [\"RS256\"]\n\
         token = {{ from = [\"header:Authorization\", \"query:token\"], prefix = \"Bearer \" }}\n\
         claims = {{ iss = \"https://accounts.google.com\", aud = \"https://hooks.example.com\", email_verified = \"true\" }}\n\
         public_keys = [{{ name = \"google\", from = \"file:key.pem\" }}]\n{EVENT}"
    );
    let claims = || {
        json!({
            "iss": "https://accounts.google.com", "aud": "https://hooks.example.com", "email_verified": true,
            "iat": now(), "exp": now() + 3600, "sub": "1",
        })
    };
    let with = |change: fn(&mut Value), key: &KeyPair, id: &str| {
        let mut all = claims();
        change(&mut all);
        let token = jwt(json!({ "alg": "RS256", "kid": "1", "typ": "JWT" }), all, key);
        Request::new("pubsub", body(id)).with("Authorization", format!("Bearer {token}"))
    };
    let genuine = with(|_| {}, &key, "g-1");
    let token = genuine.header("Authorization").strip_prefix("Bearer ").expect("a scheme").to_owned();
    let in_url = Request::new("pubsub", body("g-3")).to(format!("/hooks/pubsub?token=Bearer%20{token}"));
    let mut sent = vec![
        genuine.clone().stored("Pub/Sub", "jwt:google", "none", Some("g-1")),
        genuine.clone().with_body(body("g-2")).stored("the same token for another body", "jwt:google", "none", Some("g-2")),
        genuine.clone().outcome("the same delivery", "duplicate"),
        in_url.stored("the token in the URL", "jwt:google", "none", Some("g-3")),
        with(|claims| claims["aud"] = json!(["x", "https://hooks.example.com"]), &key, "g-4").stored(
            "two audiences",
            "jwt:google",
            "none",
            Some("g-4"),
        ),
        with(|_| {}, &other, "g-9").outcome("another key", "signature_mismatch"),
        with(|claims| claims["aud"] = json!("https://hooks.example.com/"), &key, "g-9")
            .outcome("another audience", "signature_mismatch"),
        with(|claims| claims["aud"] = json!([]), &key, "g-9").outcome("no audience", "signature_mismatch"),
        with(|claims| claims["aud"] = json!({ "x": 1 }), &key, "g-9").outcome("an object as the audience", "signature_mismatch"),
        with(|claims| claims["email_verified"] = json!(false), &key, "g-9").outcome("an unverified sender", "signature_mismatch"),
        with(|claims| claims["exp"] = json!(now() - 120), &key, "g-9").outcome("an expired token", "timestamp_stale"),
    ];
    // Algorithm confusion: an HMAC whose secret is the public key, which everyone knows.
    for secret in [key.pem.as_bytes(), key.pem.trim_end().as_bytes(), key.pkcs1.as_bytes(), key.spki.as_bytes()] {
        let forged = jwt_with_secret(json!({ "alg": "HS256" }), claims(), secret);
        let forged = Request::new("pubsub", body("g-9")).with("Authorization", format!("Bearer {forged}"));
        sent.push(forged.outcome("HS256 with the public key as the secret", "signature_malformed"));
        let relabelled = forge(&json!({ "alg": "RS256" }), &claims(), |content| hmac("sha256", secret, content));
        let relabelled = Request::new("pubsub", body("g-9")).with("Authorization", format!("Bearer {relabelled}"));
        sent.push(relabelled.outcome("an HMAC under the name RS256", "signature_mismatch"));
    }
    // A key that the token itself brings along.
    let embedded =
        json!({ "alg": "RS256", "jwk": serde_json::from_str::<Value>(&other.jwk).expect("JSON"), "jku": "https://x/" });
    let embedded = jwt(embedded, claims(), &other);
    let embedded = Request::new("pubsub", body("g-9")).with("Authorization", format!("Bearer {embedded}"));
    sent.push(embedded.outcome("a token with its own key", "signature_mismatch"));
    sent.extend(unsigned_forms(&claims(), "pubsub", "Bearer "));
    run("proofs-rs256", &sources, &[("key.pem", &key.pem)], &sent);
}

/// Plaid signs with ES256, limits the age by `iat`, and gives no event id.
#[test]
fn es256_with_a_maximum_age_arrives_in_kafka() {
    let (key, other) = (key_pair("p-256"), key_pair("p-256"));
    let sources = format!(
        "[sources.plaid]\nauth = \"jwt\"\nalgorithm = [\"ES256\"]\nkey_format = \"jwk\"\ntoken = {{ from = \"header:Plaid-Verification\" }}\n\
         body_claim = {{ name = \"request_body_sha256\" }}\nmax_age = \"5m\"\npublic_keys = ['{}']\nevent = {{ type = \"json:/type\" }}\n",
        key.jwk
    );
    let signed = |key: &KeyPair, id: &str, iat: Value| {
        let hash = hex(&hash("sha256", &body(id)));
        let token = jwt(json!({ "alg": "ES256" }), json!({ "iat": iat, "request_body_sha256": hash }), key);
        Request::new("plaid", body(id)).with("Plaid-Verification", token)
    };
    let genuine = signed(&key, "p-1", json!(now()));
    let text = genuine.header("Plaid-Verification");
    let mut sent = vec![
        genuine.clone().stored("Plaid", "jwt:public-key-1", "full", None),
        genuine.clone().outcome("an exact copy", "duplicate"),
        genuine
            .clone()
            .with("Plaid-Verification", other_form(text))
            .outcome("a copy with the signature's other form", "duplicate"),
        signed(&key, "p-2", json!(now() - 290)).stored("290 s ago", "jwt:public-key-1", "full", None),
        signed(&key, "p-3", json!(now() - 302)).outcome("a stale token", "timestamp_stale"),
        signed(&key, "p-3", json!(now() + 70)).outcome("a future token", "timestamp_future"),
        signed(&key, "p-3", json!(now().to_string())).outcome("a text as the time", "signature_malformed"),
        signed(&key, "p-3", json!(null)).outcome("null as the time", "signature_malformed"),
        signed(&key, "p-3", json!(1e300)).outcome("a huge time", "timestamp_future"),
        signed(&other, "p-3", json!(now())).outcome("another key", "signature_mismatch"),
        genuine.clone().with_body(body("p-3")).outcome("another body", "signature_mismatch"),
    ];
    let timeless = jwt(json!({ "alg": "ES256" }), json!({ "request_body_sha256": hex(&hash("sha256", &body("p-3"))) }), &key);
    let timeless = Request::new("plaid", body("p-3")).with("Plaid-Verification", timeless);
    sent.push(timeless.outcome("no time", "signature_malformed"));
    sent.extend(unsigned_forms(&json!({ "iat": now() }), "plaid", ""));
    run("proofs-es256", &sources, &[], &sent);
}

/// The token carries the event id, and a hash of the URL with its query.
#[test]
fn eddsa_with_a_url_hash_arrives_in_kafka() {
    let (key, other) = (key_pair("ed25519"), key_pair("ed25519"));
    let sources = "[sources.bird]\nauth = \"jwt\"\nalgorithm = [\"EdDSA\"]\ntoken = { from = \"header:Bird-Token\" }\n\
                   body_claim = { name = \"payload_hash\", algorithm = \"sha512\" }\nurl_claim = { name = \"url_hash\" }\n\
                   public_keys = [\"file:key.pem\"]\nevent = { id = \"jwt:jti\", type = \"jwt:topic\" }\n";
    let signed = |key: &KeyPair, id: &str, query: &str| {
        let target = format!("/hooks/bird{query}");
        let url = format!("https://hooks.example.com{target}");
        let claims = json!({
            "jti": id, "topic": "sms", "url_hash": hex(&hash("sha256", url.as_bytes())),
            "payload_hash": hex(&hash("sha512", &body("x"))),
        });
        Request::new("bird", body("x")).to(target).with("Bird-Token", jwt(json!({ "alg": "EdDSA" }), claims, key))
    };
    let genuine = signed(&key, "e-1", "?a=1");
    let mut sent = vec![
        genuine.clone().stored("a token with an id", "jwt:key.pem", "full", Some("e-1")),
        genuine.clone().outcome("the same delivery", "duplicate"),
        signed(&key, "e-2", "").stored("another id for the same body", "jwt:key.pem", "full", Some("e-2")),
        signed(&other, "e-3", "").outcome("another key", "signature_mismatch"),
        genuine.clone().to("/hooks/bird?a=2").outcome("another query", "signature_mismatch"),
        genuine.clone().to("/hooks/bird").outcome("no query", "signature_mismatch"),
        genuine.clone().with_body(body("y")).outcome("another body", "signature_mismatch"),
    ];
    sent.extend(unsigned_forms(&json!({ "jti": "e-3" }), "bird", ""));
    run("proofs-eddsa", sources, &[("key.pem", &key.pem)], &sent);
}

/// Returns tokens that no key has signed, with each header that could make a verifier accept them.
fn unsigned_forms(claims: &Value, source: &str, prefix: &str) -> Vec<Sent> {
    let name = ["Authorization", "Plaid-Verification", "Bird-Token"][match source {
        "plaid" => 1,
        "bird" => 2,
        _ => 0,
    }];
    let headers = [
        json!({ "alg": "none" }),
        json!({ "alg": "None" }),
        json!({ "alg": "NONE" }),
        json!({ "alg": "" }),
        json!({ "alg": null }),
        json!({ "alg": ["none"] }),
        json!({ "typ": "JWT" }),
        json!({ "alg": "hs256" }),
        json!({ "alg": "RS256 " }),
        json!("none"),
    ];
    let with = |token: String| Request::new(source, body("unsigned")).with(name, format!("{prefix}{token}"));
    let forged = headers.iter().flat_map(|header| {
        let (empty, filled) = (forge(header, claims, |_| Vec::new()), forge(header, claims, |_| vec![0; 64]));
        [empty, filled]
            .map(|token| with(token).outcome(&format!("an unsigned token with the header {header}"), "signature_malformed"))
    });
    let padded = format!("{}.{}.AAAA", URL_SAFE.encode("{\"alg\":\"none\"}"), URL_SAFE.encode(claims.to_string()));
    let no_json = format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode("{"), URL_SAFE_NO_PAD.encode("{"));
    let odd = [("a padded header", padded), ("a header that is no JSON", no_json), ("binary", "\u{e9}.\u{e9}.\u{e9}".to_owned())];
    forged.chain(odd.into_iter().map(|(what, token)| with(token).outcome(what, "signature_malformed"))).collect()
}

/// Puts a token together as RFC 7515 describes it.
fn forge(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let code = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(code))
}

/// Replaces the second number `s` of an ECDSA signature with `n - s`. Both signatures are valid for the same content.
fn other_form(token: &str) -> String {
    const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let (signed, code) = token.rsplit_once('.').expect("three parts");
    let mut code = URL_SAFE_NO_PAD.decode(code).expect("Base64");
    let order = base16ct::lower::decode_vec(N).expect("hex");
    let mut borrow = 0;
    for (digit, order) in code[32..].iter_mut().zip(order).rev() {
        let difference = i16::from(order) - i16::from(*digit) - borrow;
        borrow = i16::from(difference < 0);
        *digit = (difference + 256 * borrow) as u8;
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(code))
}
