//! A secret with which the sender probably does not sign is named before the first delivery is lost.

use hookhold::secret::Secret;
use hookhold::source::{Key, provider};

use crate::support::{compile, source};

/// Returns the reason to doubt a secret of a built-in recipe; `None` if there is none.
fn doubt(provider: &str, secret: &str) -> Option<String> {
    let more = if provider == "twilio" { "public_url = \"https://hooks.example.com\"" } else { "" };
    source(provider, secret, more).doubtful_secrets().into_iter().next().map(|(name, reason)| {
        assert_eq!(name, "secret");
        assert!(!reason.contains("0123"), "the reason shows the secret: {reason}");
        reason
    })
}

#[test]
fn a_copy_with_other_bytes_is_named() {
    let digits = "0123456789abcdef0123456789abcdef";
    for (secret, what) in [
        (format!(" {digits}"), "space or a line break"),
        // The file of a secret may end with one line break, which does not count.
        (format!("{digits}\n\n"), "space or a line break"),
        (format!("{digits}\t"), "space or a line break"),
        (format!("\"{digits}\""), "quotation marks"),
        (format!("'{digits}'"), "quotation marks"),
        (format!("{digits}\n{digits}"), "control character"),
    ] {
        for provider in ["github", "slack", "twilio"] {
            let found = doubt(provider, &secret);
            assert!(found.as_ref().is_some_and(|reason| reason.contains(what)), "{provider} {secret:?}: {found:?}");
        }
    }
    assert_eq!(doubt("github", &format!("{digits}\n")), None);
    assert_eq!(doubt("github", "a pass phrase with spaces, \"quotes\" and ü"), None);
}

#[test]
fn a_placeholder_and_a_text_of_another_kind_are_named() {
    for placeholder in ["whsec_...", "whsec_…", "changeme", "Your-Signing-Secret", "<secret>", "{{ secret }}", "xxxxxxxx", "..."]
    {
        assert!(doubt("stripe", placeholder).is_some_and(|reason| reason.contains("placeholder")), "{placeholder}");
    }
    let key = doubt("stripe", "sk_live_51H0123456789").expect("an API key");
    assert!(key.starts_with("is an API key; copy the signing secret from") && key.contains("Reveal (whsec_…)"), "{key}");
    let short = doubt("slack", "0123456789abcdef").expect("half a secret");
    assert!(short.contains("32 hexadecimal digits"), "{short}");
    let foreign = doubt("stripe", "0123456789abcdef0123456789abcdef").expect("the secret of another sender");
    assert!(foreign.contains("begins with whsec_"), "{foreign}");
    for (provider, genuine) in [
        ("stripe", "whsec_0123456789abcdefghijklmnopqrstuv"),
        ("slack", "0123456789abcdef0123456789abcdef"),
        ("shopify", "shpss_0123456789abcdef0123456789abcdef"),
        ("twilio", "0123456789abcdef0123456789abcdef"),
        ("github", "correct horse battery staple"),
    ] {
        assert_eq!(doubt(provider, genuine), None, "{provider}");
    }
}

/// A recipe can say that the sender signs with its API keys, and an operator's own recipe may describe such a sender.
#[test]
fn a_sender_that_signs_with_its_api_key_is_trusted() {
    let own = "auth = \"mac\"\nalgorithm = \"sha256\"\ncontent = [\"body\"]\nsignature = { from = \"header:X-Sig\" }\nevent.id = \"json:/id\"\n";
    let doubts = |entry: &str| compile(entry, &[("secret", "sk_live_51H0123456789")]).expect("a source").doubtful_secrets().len();
    assert_eq!(doubts(own), 0);
    assert_eq!(doubts("provider = \"stripe\""), 1);
    assert_eq!(doubts("provider = \"stripe\"\nsetup = { secret_form = \"starts-with:sk_\" }"), 0);
    assert_eq!(doubts(&format!("{own}setup = {{ secret_form = [\"hex:32\", \"starts-with:whsec_\"] }}")), 1);
    assert!(compile(&format!("{own}setup = {{ secret_form = \"hex:0\" }}"), &[("secret", "x")]).is_err());
}

#[test]
fn text_that_an_editor_has_encoded_is_an_error() {
    let github = provider("github").expect("a built-in recipe");
    let little: Vec<u8> = "whsec_0123".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = "whsec_0123".encode_utf16().flat_map(u16::to_be_bytes).collect();
    let marked = [&[0xff, 0xfe][..], &little].concat();
    for (text, what) in
        [(little, "UTF-16"), (big, "UTF-16"), (marked, "UTF-16"), ("\u{feff}whsec_0123".into(), "byte order mark")]
    {
        let error =
            Key::decode(&Secret::new("secret", text), false, &github.proofs).expect_err("no sender signs with these bytes");
        assert!(error.contains(what) && error.contains("UTF-8") && !error.contains("0123"), "{error}");
    }
}
