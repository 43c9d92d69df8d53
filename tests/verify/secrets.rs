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
fn an_account_is_a_short_text_without_slash_and_white_space() {
    let account = |text: &str| {
        let account = toml::Value::from(text);
        let entry = format!("provider = \"stripe\"\nsecrets = [{{ name = \"mine\", from = \"env:PATH\", account = {account} }}]");
        compile_alone(&entry).map(|source| source.keys[0].account().to_string())
    };
    let longest = "x".repeat(64);
    for valid in ["a", "acct_1017", "a?b#c%d", "~!@", &longest] {
        assert_eq!(account(valid).ok().as_deref(), Some(valid));
    }
    for invalid in ["", "a/b", "/", "a b", " a", "a\t", "a\n", "\u{e9}", "\u{7f}", &format!("{longest}x")] {
        let diagnostics = account(invalid).expect_err(invalid).to_string();
        assert!(diagnostics.contains("secrets[0].account: expected an account of 1 to 64 visible ASCII"), "{diagnostics}");
    }
    let source = compile_alone("provider = \"stripe\"\nsecrets = [{ name = \"mine\", from = \"env:PATH\" }]").expect("valid");
    assert_eq!(&**source.keys[0].account(), "mine", "the default is the name of the secret");
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

/// The keys of Braintree and ConnectWise are hashes of the configured secret.
#[test]
fn a_key_can_be_the_hash_of_the_secret() {
    let recipe = |steps: &str| format!("{INLINE}key_format = {steps}\n");
    for (hash, steps) in [("sha1", "[\"sha1\"]"), ("sha256", "[\"strip-prefix:key_\", \"utf8\", \"sha256\"]")] {
        let source = compile(&recipe(steps), &[("secret", "acme")]).expect("a secret");
        let code = crate::crypto::hmac("sha256", &crate::crypto::hash(hash, b"acme"), b"{}");
        let genuine = delivery("{}", &[("acme-signature", &base16ct::lower::encode_string(&code))]);
        assert_eq!(rejection(&source, &genuine), None, "{hash}");
        let unhashed = crate::crypto::hmac("sha256", b"acme", b"{}");
        let forged = delivery("{}", &[("acme-signature", &base16ct::lower::encode_string(&unhashed))]);
        assert_eq!(rejection(&source, &forged), Some(Outcome::SignatureMismatch), "{hash}");
    }
    let hashed = compile(&recipe("[\"hex\", \"sha256\"]"), &[("secret", "61636D65")]).expect("a secret");
    let code = crate::crypto::hmac("sha256", &crate::crypto::hash("sha256", b"acme"), b"{}");
    assert_eq!(rejection(&hashed, &delivery("{}", &[("acme-signature", &base16ct::lower::encode_string(&code))])), None);
}

/// The hash of an empty secret is a key that everyone knows.
#[test]
fn a_secret_that_is_empty_before_its_hash_is_rejected() {
    for steps in ["[\"strip-prefix:key_\", \"sha256\"]", "[\"strip-prefix:key_\", \"base64\", \"sha1\"]"] {
        let diagnostics =
            compile(&format!("{INLINE}key_format = {steps}\n"), &[("secret", "key_")]).expect_err(steps).to_string();
        assert!(diagnostics.contains("secret, which is empty after decoding"), "{steps}: {diagnostics}");
    }
}

#[test]
fn key_format_steps_have_one_order() {
    for (steps, step) in [
        ("[\"sha256\", \"hex\"]", "hex"),
        ("[\"hex\", \"base64\"]", "base64"),
        ("[\"sha1\", \"sha256\"]", "sha256"),
        ("[\"utf8\", \"strip-prefix:x\"]", "strip-prefix:x"),
        ("[\"hex\", \"hex\"]", "hex"),
    ] {
        let diagnostics = compile(&format!("{INLINE}key_format = {steps}\n"), &[("secret", "61")]).expect_err(steps).to_string();
        assert!(diagnostics.contains(&format!("found {step} after another step; remove or move it")), "{steps}: {diagnostics}");
    }
    for steps in ["[\"strip-prefix:\"]", "[\"sha512\"]", "[\"\"]"] {
        let diagnostics = compile(&format!("{INLINE}key_format = {steps}\n"), &[("secret", "61")]).expect_err(steps).to_string();
        assert!(diagnostics.contains("found an unknown step"), "{steps}: {diagnostics}");
    }
}

#[test]
fn basic_credentials_have_a_user_or_a_password() {
    let recipe = "auth = \"basic\"\n";
    for text in ["user:password", "user:", ":password", "us er:pass:word"] {
        assert!(compile(recipe, &[("secret", text)]).is_ok(), "{text}");
    }
    for text in [":", "user", "secret-without-colon"] {
        let diagnostics = compile(recipe, &[("secret", text)]).expect_err(text).to_string();
        assert!(diagnostics.contains("secret, which is not a user name and a password"), "{diagnostics}");
        assert!(!diagnostics.contains("without-colon"), "{diagnostics}");
    }
}

#[test]
fn the_hint_of_an_expired_token_calls_it_a_token() {
    let recipe = "auth = \"token\"\ntoken = { from = \"header:X-Token\" }\n";
    let entry = format!("secrets = [{{ name = \"old\", from = \"env:PATH\", not_after = 2020-01-01 }}]\n{recipe}");
    let token = std::env::var("PATH").expect("every environment has this variable");
    let source = compile_alone(&entry).expect("a source");
    let rejected = verify(&source, &delivery("{}", &[("x-token", &token)])).expect_err("expired");
    let hint = "token: expected a valid secret, found the secret old, which expired at 2020-01-02T00:00:00";
    assert!(rejected.hint.starts_with(hint), "{rejected}");
}

#[test]
fn slots_have_at_most_one_key_for_each_locator() {
    let recipe = "auth = \"mac\"\nalgorithm = \"sha256\"\nmatch = \"slots\"\ncontent = [\"body\"]\n\
                  signature = { from = [\"header:Acme-First\", \"header:Acme-Second\"] }\n";
    assert_eq!(compile(recipe, &[("a", "1"), ("b", "2")]).expect("two secrets").keys.len(), 2);
    let diagnostics = compile(recipe, &[("a", "1"), ("b", "2"), ("c", "3")]).expect_err("three").to_string();
    assert!(
        diagnostics.contains("secrets: expected at most 2 keys, one for each locator of signature.from, found 3"),
        "{diagnostics}"
    );
}
