//! Tests that doctor names an older or another signature scheme, and a key of the wrong kind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::process::{Home, post};
use crate::sdk::{Sdk, openssl_hmac};
use crate::{GITHUB, SECRETS, SIGNED, SOURCES, STRIPE, Signed, causes, examine};

const BODY: &[u8] = b"{\"id\":1}";
/// An inline recipe with the header names of Meta, whose older scheme has the same names as GitHub's.
const META: &str = "[sources.meta]\nauth = \"mac\"\nalgorithm = \"sha256\"\ncontent = [\"body\"]\nsecrets = [\"file:github-key\"]\n\
                    signature = { from = \"header:X-Hub-Signature-256\", prefix = \"sha256=\" }\n";

fn hex(digest: &str, key: &str, content: &[u8]) -> String {
    base16ct::lower::encode_string(&openssl_hmac(digest, key.as_bytes(), content))
}

fn header(name: &str, value: String) -> Vec<(String, String)> {
    vec![(name.to_owned(), value)]
}

#[test]
fn a_sender_that_signs_only_with_sha_1_is_found() {
    let home = Home::new(SECRETS, &(SOURCES.to_owned() + META));
    for source in ["github", "meta"] {
        let path = format!("/hooks/{source}");
        let older = |key: &str| header("X-Hub-Signature", format!("sha1={}", hex("sha1", key, BODY)));
        assert_eq!(causes(&home, source, &post(&path, &older(GITHUB), BODY)), ["other_algorithm"], "{source}");
        let (_, line) = examine(&home, source, &post(&path, &older(GITHUB), BODY), &[]);
        let cause = &line["causes"][0];
        for text in ["sha1 in the header x-hub-signature", "sha256 in x-hub-signature-256"] {
            assert!(cause["what"].as_str().is_some_and(|what| what.contains(text)), "{line}");
        }
        assert!(cause["do"].as_str().is_some_and(|advice| advice.contains("algorithm = \"sha1\"")), "{line}");
        let unknown_key = post(&path, &older("another"), BODY);
        assert_eq!(causes(&home, source, &unknown_key), ["other_algorithm?"], "{source}: the key is not known");
        let head_only = post(&path, &older(GITHUB), b"");
        assert_eq!(causes(&home, source, &head_only), ["other_algorithm?"], "{source}: only the head was stored");
        let same_header = header("X-Hub-Signature-256", format!("sha256={}", hex("sha1", GITHUB, BODY)));
        assert_eq!(causes(&home, source, &post(&path, &same_header, BODY)), ["other_algorithm"], "{source}");
        let base64 = format!("sha256={}", STANDARD.encode(openssl_hmac("sha256", GITHUB.as_bytes(), BODY)));
        let base64 = post(&path, &header("X-Hub-Signature-256", base64), BODY);
        assert_eq!(causes(&home, source, &base64), ["signature_format"], "{source}");
        let bare = post(&path, &header("X-Hub-Signature-256", hex("sha256", GITHUB, BODY)), BODY);
        assert_eq!(causes(&home, source, &bare), ["signature_format"], "{source}: without its prefix");
        let moved = post(&path, &header("X-Forwarded-Signature", format!("sha256={}", hex("sha256", GITHUB, BODY))), BODY);
        assert_eq!(causes(&home, source, &moved), ["signature_format"], "{source}: in another header");
    }
    let stripe = format!("t=1614265330,v1={}", hex("sha1", STRIPE, &[b"1614265330.", BODY].concat()));
    let stripe = post("/hooks/stripe", &header("stripe-signature", stripe), BODY);
    assert_eq!(causes(&home, "stripe", &stripe), ["other_algorithm"], "a signature with tags");
}

/// A configured public key for one RSA algorithm, and a sender that signs with another one.
#[test]
fn a_public_key_for_another_algorithm_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    let openssl = |args: &[&str]| {
        let output = std::process::Command::new("openssl").args(args).output().expect("openssl starts: tests/run installs it");
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &at("key")]);
    openssl(&["pkey", "-in", &at("key"), "-pubout", "-out", &at("public")]);
    std::fs::write(at("body"), BODY).expect("a file");
    openssl(&[
        "dgst",
        "-sha256",
        "-sign",
        &at("key"),
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:digest",
        "-out",
        &at("pss"),
        &at("body"),
    ]);
    openssl(&["dgst", "-sha512", "-sign", &at("key"), "-out", &at("sha512"), &at("body")]);
    let public = std::fs::read_to_string(at("public")).expect("a key");
    for (algorithm, signed, other) in
        [("rsa-pkcs1-sha256", "pss", "rsa-pss-sha256"), ("rsa-pss-sha256", "sha512", "rsa-pkcs1-sha512")]
    {
        let entry = format!(
            "[sources.acme]\nauth = \"signature\"\nalgorithm = {algorithm:?}\nencoding = \"base64\"\ncontent = [\"body\"]\n\
             signature = {{ from = \"header:Acme\" }}\npublic_keys = [\"file:public\"]\n"
        );
        let home = Home::new(&[("public", &public)], &entry);
        let request = post("/hooks/acme", &header("Acme", STANDARD.encode(std::fs::read(at(signed)).expect("a code"))), BODY);
        assert_eq!(causes(&home, "acme", &request), ["other_algorithm"], "{algorithm}");
        let (_, line) = examine(&home, "acme", &request, &[]);
        assert!(line["causes"][0]["what"].as_str().is_some_and(|what| what.contains(other)), "{line}");
        let expired = entry.replace("[\"file:public\"]", "[{ from = \"file:public\", name = \"old\", not_after = 2021-01-01 }]");
        let home = Home::new(&[("public", &public)], &expired.replace(algorithm, other));
        assert_eq!(causes(&home, "acme", &request), ["secret_expired"], "{algorithm}");
    }
}

#[test]
fn a_key_of_the_wrong_kind_is_named() {
    let mut sdk = Sdk::start();
    for (scheme, secret) in SIGNED.iter().filter(|(scheme, _)| *scheme != "standard-webhooks") {
        let request = Signed::new(&mut sdk, scheme, secret, "{}").with("{}");
        for (stored, kind) in [
            ("sk_live_51HqLyjWDarjtT1zdp7dc", "an API key"),
            ("pk_test_51HqLyjWDarjtT1zdp7dc", "a publishable key"),
            ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "an access token"),
            ("AC0123456789abcdef0123456789abcdef", "an identifier"),
            ("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n", "a public key"),
            ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", "a public key"),
        ] {
            let entry = format!("[sources.{scheme}]\nprovider = {scheme:?}\nsecrets = [\"file:key\"]");
            let home = Home::new(&[("key", stored)], &entry);
            assert_eq!(causes(&home, scheme, &request)[0], "key_kind", "{scheme}: {kind}");
            let (_, line) = examine(&home, scheme, &request, &[]);
            assert!(line["causes"][0]["what"].as_str().is_some_and(|what| what.contains(kind)), "{line}");
            assert!(!line.to_string().contains(&stored[..20]), "the key is printed: {line}");
        }
    }
    // The secret of these providers is Base64, so the configuration already rejects another kind of key.
    for provider in ["standard-webhooks", "svix"] {
        let entry = format!("[sources.{provider}]\nprovider = {provider:?}\nsecrets = [\"file:key\"]");
        for (stored, kind) in [("whpk_1SiA4o9hyqTCpIqC5V9HUakiiae", "a public key"), ("sk_live_51HqLyjWDarjtT1", "an API key")] {
            let output = Home::new(&[("key", stored)], &entry).verb(&["check"]);
            let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(printed.contains(&format!("which is {kind} instead of a signing secret")), "{printed}");
            assert!(!printed.contains(&stored[..20]), "the key is printed: {printed}");
        }
    }
}

/// The libraries of Standard Webhooks ignore unused bits at the end of a secret. Doctor tries the same decoding.
#[test]
fn unused_bits_of_a_secret_do_not_hide_the_cause() {
    let mut sdk = Sdk::start();
    for provider in ["standard-webhooks", "svix"] {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLR==";
        let request = Signed::new(&mut sdk, provider, secret, "{}").with("{}");
        let entry = |more: &str| format!("[sources.{provider}]\nprovider = {provider:?}\nsecrets = [\"file:key\"]\n{more}");
        let home = Home::new(&[("key", secret)], &entry("key_format = [\"utf8\"]"));
        assert_eq!(causes(&home, provider, &request), ["key_decoding"], "{provider}");
        home.configure(&entry(""));
        assert_eq!(examine(&home, provider, &request, &["--at", "1614265330"]).0, Some(0), "{provider}");
    }
}
