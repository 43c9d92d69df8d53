//! Tests of configured public keys: each text format, and each error that an operator can make with a key. A message about a
//! wrong key must never contain the key.

use hookhold::event::Delivery;
use hookhold::outcome::Outcome;
use hookhold::source::Source;
use hookhold::toml_value::Diagnostics;
use hookhold::verify::KeyRef;
use http::HeaderValue;

use crate::crypto::{KeyPair, certificate, jwt, key_pair, shared_key_pair, sign};
use crate::support::*;

/// Every public-key algorithm, with the kind of its keys.
const ALGORITHMS: &[(&str, &str)] = &[
    ("ed25519", "ed25519"),
    ("ecdsa-p256-sha256-der", "p-256"),
    ("ecdsa-p256-sha256-fixed", "p-256"),
    ("rsa-pkcs1-sha1", "rsa-1024"),
    ("rsa-pkcs1-sha1", "rsa-2048"),
    ("rsa-pkcs1-sha256", "rsa-2048"),
    ("rsa-pkcs1-sha512", "rsa-2048"),
    ("rsa-pss-sha256", "rsa-2048"),
    ("rsa-pss-sha512", "rsa-2048"),
];
const KINDS: &[&str] = &["rsa-1024", "rsa-2048", "p-256", "p-384", "secp256k1", "ed25519", "x25519"];

fn recipe(algorithm: &str, format: &str) -> String {
    format!(
        "auth = \"signature\"\nalgorithm = \"{algorithm}\"\nkey_format = \"{format}\"\n\
         signature = {{ from = \"header:Acme-Signature\" }}\ncontent = [\"body\"]\n"
    )
}

fn with_keys(entry: &str, texts: &[&str]) -> Result<Source, Diagnostics> {
    let quoted: Vec<String> = texts.iter().map(|text| serde_json::to_string(text).expect("a string")).collect();
    compile_alone(&format!("public_keys = [{}]\n{entry}", quoted.join(", ")))
}

fn source_of(entry: &str, text: &str) -> Source {
    with_keys(entry, &[text]).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn diagnostic_of(entry: &str, text: &str) -> String {
    let diagnostics = with_keys(entry, &[text]).expect_err("a diagnostic").to_string();
    assert_eq!(diagnostics.lines().count(), 1, "{diagnostics}");
    assert!(diagnostics.contains("public_keys[0]: expected a public key for the recipe's algorithm"), "{diagnostics}");
    diagnostics
}

fn signed(code: &[u8]) -> Delivery {
    delivery("{\"n\":1}", &[("acme-signature", &base16ct::lower::encode_string(code))])
}

fn hex(base64: &str) -> String {
    use base64::Engine as _;
    base16ct::upper::encode_string(&base64::engine::general_purpose::STANDARD.decode(base64).expect("Base64"))
}

/// Returns the public key in every format that the recipe language has for it.
fn formats(key: &KeyPair) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("pem", key.pem.clone()),
        ("pem", format!("\u{feff}\r\n{}\r\n\n", key.pem.replace('\n', "\r\n"))),
        ("spki-base64", key.spki.clone()),
        ("spki-base64", key.spki.trim_end_matches('=').to_owned()),
        ("raw-base64", key.raw.clone()),
        ("raw-hex", hex(&key.raw)),
        ("raw-hex", hex(&key.raw).to_lowercase()),
        ("jwk", key.jwk.clone()),
        ("jwk", key.jwk.replacen('{', "{\"kid\": \"1\", \"use\": \"sig\", \"x5t\": \"x\", ", 1)),
    ];
    all.extend((!key.pkcs1.is_empty()).then(|| ("pem", key.pkcs1.clone())));
    all
}

#[test]
fn every_algorithm_verifies_with_every_key_format() {
    for (algorithm, kind) in ALGORITHMS {
        let (key, other) = (shared_key_pair(kind), key_pair(kind));
        let genuine = signed(&sign(algorithm, &key, b"{\"n\":1}"));
        let forged = signed(&sign(algorithm, &other, b"{\"n\":1}"));
        let mut all = formats(&key);
        all.push(("pem", certificate(&key, 1)));
        assert!(all.len() >= 10);
        for (format, text) in all {
            let source = source_of(&recipe(algorithm, format), &text);
            let verified = verify(&source, &genuine).unwrap_or_else(|error| panic!("{algorithm} {kind} {format}: {error}"));
            assert_eq!(verified.event.auth(), format!("{algorithm}:public-key-1"));
            assert_eq!(rejection(&source, &forged), Some(Outcome::SignatureMismatch), "{algorithm} {format}");
        }
    }
}

#[test]
fn a_key_of_another_kind_is_rejected_by_check() {
    for (algorithm, kind) in ALGORITHMS {
        for other in KINDS {
            let fits = ALGORITHMS.iter().any(|one| one == &(*algorithm, *other));
            let key = shared_key_pair(other);
            for (format, text) in formats(&key) {
                // The bare key of X25519 consists of 32 bytes, as does the key of Ed25519. No check can tell them apart.
                let is_ambiguous = (*algorithm, *other) == ("ed25519", "x25519") && format.starts_with("raw");
                let result = with_keys(&recipe(algorithm, format), &[&text]);
                assert_eq!(result.is_ok(), fits || is_ambiguous, "{algorithm} ({kind}) with {other} as {format}");
            }
        }
    }
    let small = diagnostic_of(&recipe("rsa-pkcs1-sha256", "pem"), &shared_key_pair("rsa-1024").pem);
    assert!(small.contains("which has 1024 bits; rsa-pkcs1-sha256 needs 2048 to 8192 bits"), "{small}");
}

#[test]
fn a_private_key_is_reported_and_never_printed() {
    for (algorithm, kind) in ALGORITHMS {
        let key = shared_key_pair(kind);
        let body: String = key.private.lines().filter(|line| !line.starts_with("-----")).collect();
        let all = [
            ("pem", key.private.clone()),
            ("pem", format!("{}{}", key.pem, key.private)),
            ("pem", key.private.replace("PRIVATE KEY", "RSA PRIVATE KEY")),
            ("spki-base64", key.private.clone()),
            ("spki-base64", body.clone()),
            ("raw-base64", body.clone()),
            ("raw-hex", hex(&body)),
            ("jwk", key.private_jwk.clone()),
            ("jwk", "{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}".to_owned()),
        ];
        for (format, text) in all {
            let diagnostics = diagnostic_of(&recipe(algorithm, format), &text);
            assert!(diagnostics.contains("public-key-1, which contains a private or symmetric key; write only"), "{diagnostics}");
            let shows = |part: &str| diagnostics.contains(part);
            assert!(!shows(&body[..16]) && !shows("c2VjcmV0") && !shows("BEGIN PRIVATE"), "{diagnostics}");
        }
        // A key whose kind the reader cannot recognise is not printed either.
        let odd = diagnostic_of(&recipe(algorithm, "raw-hex"), &hex(&body)[..62]);
        assert!(!odd.contains(&hex(&body)[..16]), "{odd}");
    }
}

#[test]
fn a_text_that_is_no_single_key_names_the_remedy() {
    let (rsa, ed) = (shared_key_pair("rsa-2048"), shared_key_pair("ed25519"));
    let truncated = rsa.pem.replace("-----END PUBLIC KEY-----", "");
    let garbage = rsa.pem.replacen("MI", "!!", 1);
    let empty = "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n";
    let request = rsa.pem.replace("PUBLIC KEY", "CERTIFICATE REQUEST");
    let not_a_certificate = rsa.pem.replace("PUBLIC KEY", "CERTIFICATE");
    let cases: &[(&str, &str, &str, &str)] = &[
        ("rsa-pkcs1-sha256", "pem", &format!("{}{}", rsa.pem, rsa.pem), "several PEM documents; write each key to its own file"),
        ("rsa-pkcs1-sha256", "pem", &format!("{}{}", certificate(&rsa, 1), rsa.pem), "several PEM documents"),
        ("rsa-pkcs1-sha256", "pem", &format!("{}{truncated}", rsa.pem), "several PEM documents"),
        ("rsa-pkcs1-sha256", "pem", &truncated, "not a PEM document"),
        ("rsa-pkcs1-sha256", "pem", &garbage, "not a PEM document"),
        ("rsa-pkcs1-sha256", "pem", "keys/provider.pem", "refer to a file with \"file:PATH\""),
        ("rsa-pkcs1-sha256", "pem", empty, "not a key for rsa-pkcs1-sha256"),
        ("rsa-pkcs1-sha256", "pem", &request, "another kind of PEM document"),
        ("rsa-pkcs1-sha256", "pem", &not_a_certificate, "not a valid certificate"),
        ("ed25519", "raw-hex", &ed.pem, "a PEM document; set key_format = \"pem\""),
        ("ed25519", "raw-hex", "zz", "not hexadecimal"),
        ("ed25519", "raw-hex", &hex(&ed.raw)[1..], "not hexadecimal"),
        ("ed25519", "raw-hex", &hex(&ed.raw)[2..], "not a key for ed25519"),
        ("ed25519", "raw-hex", &format!("{}00", hex(&ed.raw)), "not a key for ed25519"),
        ("ed25519", "raw-hex", &"00".repeat(32), "a placeholder"),
        ("ed25519", "raw-hex", &format!("01{}", "00".repeat(31)), "a placeholder"),
        ("ed25519", "raw-hex", &"ab".repeat(32), "a placeholder"),
        ("ed25519", "raw-base64", "*", "not Base64"),
        ("ed25519", "jwk", "{\"keys\": []}", "a set of JSON Web Keys"),
        ("ed25519", "jwk", "{", "not a JSON Web Key"),
        ("ed25519", "jwk", "[]", "not a JSON Web Key"),
        ("ed25519", "jwk", "{\"kty\":\"OKP\"}", "a JSON Web Key of another kind"),
        ("ed25519", "jwk", "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"*\"}", "not a JSON Web Key"),
        ("ed25519", "jwk", "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"\"}", "not a key for ed25519"),
        ("ecdsa-p256-sha256-der", "raw-hex", &format!("04{}", "11".repeat(64)), "not a key for ecdsa-p256-sha256-der"),
    ];
    for (algorithm, format, text, what) in cases {
        let diagnostics = diagnostic_of(&recipe(algorithm, format), text);
        assert!(diagnostics.contains(what), "{what}: {diagnostics}");
    }
    // A modulus without an exponent above 1, and a key of no bits.
    let weak = rsa.jwk.replace("\"e\":\"AQAB\"", "\"e\":\"AQ\"");
    assert_ne!(weak, rsa.jwk);
    for jwk in [&weak, "{\"kty\":\"RSA\",\"n\":\"\",\"e\":\"AQAB\"}", "{\"kty\":\"RSA\",\"n\":\"AA\",\"e\":\"AQAB\"}"] {
        diagnostic_of(&recipe("rsa-pkcs1-sha256", "jwk"), jwk);
    }
}

#[test]
fn a_key_is_read_from_a_file_or_a_variable() {
    let key = shared_key_pair("ed25519");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("provider.pem");
    std::fs::write(&file, &key.pem).expect("a temporary file");
    let reference = format!("file:{}", file.display());
    let genuine = signed(&sign("ed25519", &key, b"{\"n\":1}"));
    let verified = verify(&source_of(&recipe("ed25519", "pem"), &reference), &genuine).expect("genuine");
    assert_eq!(verified.secret.as_deref(), Some("provider.pem"));
    let missing = with_keys(&recipe("ed25519", "pem"), &["file:/nonexistent/key.pem"]).expect_err("no file").to_string();
    assert!(missing.contains("cannot read /nonexistent/key.pem"), "{missing}");
    let binary = directory.path().join("key.der");
    std::fs::write(&binary, [0x30, 0xff, 0xfe]).expect("a temporary file");
    let diagnostics = diagnostic_of(&recipe("ed25519", "pem"), &format!("file:{}", binary.display()));
    assert!(diagnostics.contains("which is not text"), "{diagnostics}");
}

#[test]
fn an_expired_public_key_explains_the_rejection() {
    let (old, new) = (key_pair("ed25519"), key_pair("ed25519"));
    let entry = |end: &str| {
        format!(
            "public_keys = [{{ name = \"old\", from = {:?}, not_after = {end} }}, {{ name = \"new\", from = {:?} }}]\n{}",
            old.pem,
            new.pem,
            recipe("ed25519", "pem")
        )
    };
    let with_old = signed(&sign("ed25519", &old, b"{\"n\":1}"));
    let with_new = signed(&sign("ed25519", &new, b"{\"n\":1}"));
    let source = compile_alone(&entry("2099-01-01")).expect("two keys");
    assert_eq!(verify(&source, &with_old).expect("valid").event.auth(), "ed25519:old");
    let source = compile_alone(&entry("2020-01-01")).expect("two keys");
    assert_eq!(verify(&source, &with_new).expect("valid").event.auth(), "ed25519:new");
    let rejected = verify(&source, &with_old).expect_err("expired");
    assert_eq!(rejected.outcome, Outcome::SignatureMismatch);
    assert!(rejected.hint.contains("found the public key old, which expired at 2020-01-02T00:00:00"), "{rejected}");
}

#[test]
fn a_jwt_key_is_checked_by_the_configuration() {
    let entry = |algorithm: &str, format: &str| {
        format!(
            "auth = \"jwt\"\nalgorithm = [\"{algorithm}\"]\nkey_format = \"{format}\"\ntoken = {{ from = \"header:Acme-Token\" }}\n"
        )
    };
    let algorithms =
        [("RS256", "rsa-2048"), ("RS512", "rsa-2048"), ("PS256", "rsa-2048"), ("ES256", "p-256"), ("EdDSA", "ed25519")];
    for (algorithm, kind) in algorithms {
        let key = shared_key_pair(kind);
        let token = jwt(serde_json::json!({ "alg": algorithm }), serde_json::json!({ "sub": "x" }), &key);
        let genuine = delivery("{}", &[("acme-token", &token)]);
        for (format, text) in formats(&key) {
            let verified = verify(&source_of(&entry(algorithm, format), &text), &genuine);
            assert_eq!(verified.unwrap_or_else(|error| panic!("{algorithm} {format}: {error}")).event.auth(), "jwt:public-key-1");
        }
        for other in KINDS.iter().filter(|other| **other != kind) {
            diagnostic_of(&entry(algorithm, "pem"), &shared_key_pair(other).pem);
        }
        diagnostic_of(&entry(algorithm, "pem"), &key.private);
    }
}

#[test]
fn each_kind_of_proof_asks_for_its_kind_of_key() {
    let key = shared_key_pair("ed25519");
    let public = recipe("ed25519", "pem");
    for (entry, what) in [
        (public.clone(), "public_keys: expected an array of \"env:NAME\" or \"file:PATH\", found nothing"),
        (format!("secrets = [\"env:PATH\"]\n{public}"), "no proof of the recipe uses; remove it or use public_keys"),
        (format!("public_keys = [{:?}]\n{INLINE}", key.pem), "no proof of the recipe uses; remove it or use secrets"),
        (
            format!("public_keys = [{:?}, {:?}]\n{public}", key.pem, key.pem)
                .replace("public_keys = [", "public_keys = [\"x\", "),
            "not a PEM document",
        ),
    ] {
        let diagnostics = compile_alone(&entry).expect_err(what).to_string();
        assert!(diagnostics.contains(what), "{what}: {diagnostics}");
    }
}

#[test]
fn a_delivery_with_an_unknown_key_names_the_key() {
    let key = key_pair("ed25519");
    let fetch = "fetch = { url = \"header:Key-Url\", hosts = [\"keys.example.com\"], key_id = \"header:Key-Id\" }\n";
    let entry = recipe("ed25519", "raw-base64") + fetch;
    let keys = format!("public_keys = [{{ name = \"a\", id = \"k1\", from = {:?} }}]\n", key.raw);
    let source = compile_alone(&(keys + &entry)).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let signed = signed(&sign("ed25519", &key, b"{\"n\":1}"));
    let with = |id: &'static str, url: &'static str| {
        let mut delivery = Delivery { ..signed.clone() };
        delivery.headers.insert("key-id", HeaderValue::from_static(id));
        delivery.headers.insert("key-url", HeaderValue::from_static(url));
        verify(&source, &delivery)
    };
    assert!(with("k1", "https://keys.example.com/1").is_ok());
    let rejection = with("k\t2", "https://keys.example.com/2").expect_err("an unknown key");
    let expected = KeyRef { url: "https://keys.example.com/2".into(), id: "k\t2".into() };
    assert_eq!((rejection.outcome, rejection.needs_key.as_deref()), (Outcome::KeyUnavailable, Some(&expected)));
    assert_eq!(
        rejection.hint,
        "public key: expected the key k\\t2 from https://keys.example.com/2 in public_keys, found none with this id; add the key to \
         public_keys"
    );
    assert_eq!(with("k2", "https://keys.example.org/2").expect_err("another host").outcome, Outcome::SignatureMalformed);
}

/// A proof whose key is missing cannot be told from a forged one, so that another proof decides only if it holds.
#[test]
fn an_unknown_key_of_one_proof_outweighs_a_wrong_signature_of_another() {
    let entry = "encoding = \"hex\"\ncontent = [\"body\"]\nsignature = { from = \"header:Acme-Signature\" }\n\
                 [[proof]]\nauth = \"mac\"\nalgorithm = \"sha512\"\n[[proof]]\nauth = \"signature\"\nalgorithm = \"ed25519\"\n\
                 fetch = { url = \"https://keys.example.com\", key_id = \"header:Key-Id\" }\n";
    let source = compile(entry, &[("secret", "hush")]).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let outcome = |headers: &[(&str, &str)]| verify(&source, &delivery("{}", headers)).expect_err("a forgery").outcome;
    let code = "00".repeat(64);
    assert_eq!(outcome(&[("acme-signature", &code)]), Outcome::SignatureMismatch);
    assert_eq!(outcome(&[("acme-signature", &code), ("key-id", "k1")]), Outcome::KeyUnavailable);
}

#[test]
fn each_error_in_the_place_of_published_keys_is_reported() {
    let key = key_pair("ed25519");
    let jwt = "auth = \"jwt\"\nalgorithm = [\"EdDSA\"]\nkey_format = \"raw-base64\"\ntoken = { from = \"header:X\" }\n";
    let own = recipe("ed25519", "raw-base64");
    const URL: &str =
        "expected a URL such as \"https://example.com/keys\", or a locator such as header:NAME or json:/POINTER, found ";
    const HOSTS: &str =
        "expected an array of hosts such as [\"*.example.com\"], each with two labels at its end that are not *, found ";
    for (entry, fetch, expected) in [
        (&*own, "{}", format!("fetch.url: {URL}nothing")),
        (&own, "7", "fetch: expected a table, found an integer".to_owned()),
        (&own, "{ url = 7 }", format!("fetch.url: {URL}an integer")),
        (&own, "{ url = \"http://a.example/\", key_id = \"header:K\" }", format!("fetch.url: {URL}an invalid string")),
        (&own, "{ url = \"https://u:p@a.example/\", key_id = \"header:K\" }", format!("fetch.url: {URL}an invalid string")),
        (&own, "{ url = \"const:x\", hosts = [\"a.example\"] }", format!("fetch.url: {URL}an invalid string")),
        (
            &own,
            "{ url = \"https://a.example/\" }",
            "fetch.key_id: expected a locator such as header:NAME, found nothing, so that a delivery would not name its key; add key_id \
             or remove fetch"
                .to_owned(),
        ),
        (
            &own,
            "{ url = \"header:U\" }",
            format!("fetch.hosts: {HOSTS}nothing; list the hosts, because anyone can choose the url of a forged delivery"),
        ),
        (&own, "{ url = \"header:U\", hosts = [\"*.com\"] }", format!("fetch.hosts[0]: {HOSTS}an invalid string")),
        (
            &own,
            "{ url = \"https://a.example/\", hosts = [\"a.example\"], key_id = \"header:K\" }",
            "fetch.hosts: expected no hosts for a fixed url, found a list; remove hosts".to_owned(),
        ),
        (jwt, "{ url = \"https://a.example/\", key_id = \"header:K\" }", "fetch.key_id: expected hosts or url, found an unknown key; rename or remove the key".to_owned()),
    ] {
        let keys = format!("public_keys = [{{ id = \"k\", name = \"k\", from = {:?} }}]\n", key.raw);
        let found = compile_alone(&format!("{keys}{entry}fetch = {fetch}\n")).expect_err(fetch).to_string();
        assert!(found.lines().count() == 1 && found.ends_with(&expected), "{fetch}:\n{found}\n{expected}");
    }
    let fetch = "fetch = { url = \"https://a.example/keys\" }\n";
    let without_keys = compile_alone(&format!("{jwt}{fetch}")).expect_err("no key").to_string();
    assert!(
        without_keys.ends_with(
            "public_keys: expected an array of \"env:NAME\" or \"file:PATH\", found nothing; hookhold does not fetch the sender's keys, \
             so download them from the place that fetch.url names and list them here"
        ),
        "{without_keys}"
    );
    let without_id = with_keys(&format!("{jwt}{fetch}"), &[&key.raw]).expect_err("no id").to_string();
    assert!(
        without_id.ends_with(
            "public_keys[0]: expected a public key with the id by which a delivery names it, found public-key-1 without an id; write \
             { id = \"…\", from = \"…\" }"
        ),
        "{without_id}"
    );
}
