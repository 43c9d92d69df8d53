//! Tests that hookhold reads a secret through a reference, decodes the secret with the configured steps and never prints
//! the secret.

use hookhold::clock::UnixMillis;
use hookhold::outcome::Outcome;

use crate::support::*;

#[test]
fn each_recipe_decodes_a_secret_in_its_own_way() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (stripe, standard) = (source("stripe", secret, ""), source("standard-webhooks", secret, ""));
    assert_eq!(rejection(&source("stripe", &secret[6..], ""), &sample(&stripe, None)), Some(Outcome::SignatureMismatch));
    assert_eq!(rejection(&source("standard-webhooks", &secret[6..], ""), &sample(&standard, None)), None);
}

/// Standard Webhooks secrets are Base64. Some senders set bits of the last character that stand for no byte, and the libraries
/// ignore these bits. The vectors in `tests/vectors/standard-webhooks.toml` come from the library.
#[test]
fn unused_bits_at_the_end_of_a_secret_are_ignored() {
    for provider in ["standard-webhooks", "svix"] {
        let clean = source(provider, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLQ==", "");
        for end in ["Q==", "R==", "f==", "Q", "R", "f"] {
            let other = source(provider, &format!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaL{end}"), "");
            assert_eq!(rejection(&other, &sample(&clean, None)), None, "{provider}: {end}");
        }
        let another = source(provider, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLg==", "");
        assert_eq!(rejection(&another, &sample(&clean, None)), Some(Outcome::SignatureMismatch), "{provider}");
    }
}

#[test]
fn a_key_can_be_configured_as_plain_text() {
    let plain = source("standard-webhooks", "any text", "key_format = [\"utf8\"]");
    assert_eq!(rejection(&plain, &sample(&plain, None)), None);
}

#[test]
fn an_unusable_secret_is_reported_without_showing_it() {
    for (entry, secret, what) in [
        ("provider = \"svix\"", "whsec_", "empty after decoding"),
        ("provider = \"svix\"", "whsec_not*base64", "cannot be decoded"),
        ("provider = \"stripe\"", "", "is empty"),
    ] {
        let diagnostics = compile(entry, &[("mine", secret)]).expect_err(what).to_string();
        assert!(diagnostics.contains(what) && diagnostics.contains("secrets[0]"), "{diagnostics}");
        assert!(!diagnostics.contains("not*base64"), "{diagnostics}");
    }
}

#[test]
fn two_secrets_need_two_names() {
    let secret = |name: &str, from| format!("{{ name = {name:?}, from = \"env:{from}\" }}");
    let entry = |second| format!("provider = \"stripe\"\nsecrets = [{}, {}]", secret("a", "PATH"), secret(second, "HOME"));
    let source = |second| compile_alone(&entry(second));
    assert_eq!(source("b").expect("two names").keys.len(), 2);
    let diagnostics = source("a").expect_err("one name").to_string();
    assert!(
        diagnostics.contains("secrets[1]: expected secrets with distinct names, found two secrets named a; "),
        "{diagnostics}"
    );
}

#[test]
fn the_debug_output_of_a_source_shows_no_secret() {
    let source = source("stripe", "whsec_hush", "");
    let printed = format!("{source:?}");
    assert!(printed.contains("Key(secret, masked)") && !printed.contains("hush"), "{printed}");
    assert!(!printed.contains(&format!("{:?}", b"whsec_hush".to_vec())), "{printed}");
}

#[test]
fn a_secret_expires_at_its_not_after() {
    let ends = [
        ("2027-01-01", 1_798_848_000_000),
        ("2027-01-01T18:00:00Z", 1_798_826_400_000),
        ("2027-01-01 18:00:00.5+02:00", 1_798_819_200_500),
        ("1969-12-31", 0),
    ];
    for (text, end) in ends {
        let entry = format!("provider = \"stripe\"\nsecrets = [{{ from = \"env:PATH\", not_after = {text} }}]");
        let source = compile_alone(&entry).unwrap_or_else(|diagnostics| panic!("{text}: {diagnostics}"));
        assert_eq!(source.keys[0].not_after, Some(UnixMillis(end)), "{text}");
    }
    for text in ["2027-01-01T18:00:00", "18:00:00", "9999-12-31", "2027", "true", "\"2027-01-01\""] {
        let entry = format!("provider = \"stripe\"\nsecrets = [{{ from = \"env:PATH\", not_after = {text} }}]");
        let diagnostics = compile_alone(&entry).expect_err(text).to_string();
        assert!(
            diagnostics.contains("secrets[0].not_after: ") && diagnostics.contains("a date such as"),
            "{text}: {diagnostics}"
        );
    }
}

#[test]
fn samples_are_signed_with_a_valid_secret() {
    let entry = |end| format!("provider = \"stripe\"\nsecrets = [{{ from = \"env:PATH\", not_after = {end} }}, \"env:HOME\"]");
    for (end, name) in [("2020-01-01", "HOME"), ("2099-01-01", "PATH")] {
        let source = compile_alone(&entry(end)).expect("two secrets");
        let verified = verify(&source, &sample(&source, None)).expect("signed with a valid secret");
        assert_eq!(verified.secret.as_deref(), Some(name));
    }
}
