//! Tests of signed URLs: with credentials, rewritten by another library, and signed with one of two algorithms.

use hookhold::event::Delivery;
use hookhold::outcome::Outcome;

use crate::support::*;

/// A rewritten URL is the same for several queries. A signature over such a URL must not be valid for a query without the
/// parameter that contains the hash of the body, because the body would then not be covered.
#[test]
fn a_rewritten_query_cannot_hide_the_hash_of_the_body() {
    let source = provider("twilio");
    let genuine = sample_of(&source, Some(b"{\"a\":1}"), None);
    assert_eq!(rejection(&source, &genuine), None);
    assert!(genuine.target.contains("?bodySHA256="), "{}", genuine.target);
    let hash = &genuine.target[genuine.target.find('=').expect("a parameter") + 1..];
    for query in ["body%53HA256=HASH", "%62odySHA256=HASH", "&bodySHA256=HASH", "bodySHA256=%HASH", "bodySHA256=HASH&", "'=1"] {
        for body in ["", "&", "{\"a\":1}"] {
            let target = format!("/hooks/shop?{}", query.replace("%HASH", "%61").replace("HASH", hash));
            let delivery = Delivery { target, body: body.into(), ..genuine.clone() };
            let keeps_hash = query.contains("bodySHA256=HASH");
            let expected = if keeps_hash && body.len() > 1 { None } else { Some(Outcome::SignatureMismatch) };
            assert_eq!(rejection(&source, &delivery), expected, "{query} with {body:?}");
        }
    }
}

/// A rewritten URL is the same for several queries, so a value of the query is not signed byte for byte.
#[test]
fn a_value_of_a_rewritten_query_is_no_signed_id() {
    let recipe = |term: &str| format!("{URL_RECIPE}content = [\"{term}\", \"body\"]");
    for (term, id_signed) in [("url", true), ("url-other-port", true), ("url-normalized", false), ("url-legacy-query", false)] {
        assert_eq!(inline(&recipe(term)).recipe.coverage().id_signed, id_signed, "{term}");
    }
}

#[test]
fn samples_of_every_url_term_verify() {
    for term in ["url", "url-other-port", "url-no-query", "url-normalized", "url-normalized-other-port", "url-legacy-query"] {
        let source = inline(&format!("{URL_RECIPE}content = [\"{term}\", \"body\"]"));
        let genuine = sample(&source, None);
        assert_eq!(rejection(&source, &genuine), None, "{term}");
        let elsewhere = Delivery { target: genuine.target.replace("shop", "shoe"), ..genuine };
        assert_eq!(rejection(&source, &elsewhere), Some(Outcome::SignatureMismatch), "{term}");
    }
}

#[test]
fn credentials_in_the_public_url_are_signed_and_never_shown() {
    let entry = "provider = \"twilio\"\npublic_url = \"https://user:hush@hooks.example.com/\"";
    let source = compile(entry, &[("secret", "12345")]).expect("credentials are allowed");
    let url = source.public_url.as_ref().expect("a URL");
    assert_eq!(url.as_written(), "https://user:hush@hooks.example.com");
    assert_eq!(url.to_string(), "https://user:***@hooks.example.com");
    assert!(!format!("{source:?}").contains("hush"), "{source:?}");
    let without = compile(&entry.replace("user:hush@", ""), &[("secret", "12345")]).expect("a URL");
    assert_eq!(rejection(&without, &sample(&source, None)), Some(Outcome::SignatureMismatch));
    for wrong in [
        "https://user:hush@",
        "https://user:hush@/in",
        "ftp://user:hush@a.example",
        "https://user:hush@a.example?b",
        "user:hush@a.example",
    ] {
        let diagnostics = compile(&entry.replace("https://user:hush@hooks.example.com/", wrong), &[("secret", "12345")]);
        let diagnostics = diagnostics.expect_err(wrong).to_string();
        assert!(diagnostics.contains("public_url: expected a URL such as ") && !diagnostics.contains("hush"), "{diagnostics}");
    }
}

const URL_RECIPE: &str = r#"
auth = "mac"
algorithm = "sha256"
signature = { from = "header:Acme-Signature" }
event = { id = "query:id" }
"#;
