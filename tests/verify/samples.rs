//! Tests of the samples in recipes: the gateway must find in each of them what it finds in a delivery of the provider, and a
//! error in an operator's own sample must be reported.

use std::collections::BTreeSet;

use hookhold::clock::UnixMillis;
use hookhold::source::recipe::RecipeSample;
use hookhold::source::{PROVIDERS, RecipeFile, Source};
use hookhold::verify::sign::{SampleOptions, SampleSeries, Tamper, sign};
use hookhold::verify::{Rejection, Verified};

use crate::support::*;

fn options(id: &str, event_type: Option<&str>) -> SampleOptions {
    let (id, event_type) = (id.to_owned(), event_type.map(str::to_owned));
    SampleOptions { id, event_type, key: None, now: UnixMillis(NOW * 1000), tamper: None }
}

fn signed(source: &Source, options: &SampleOptions) -> Result<Verified, Rejection> {
    let sample = sign(source, None, options).expect("the source has a secret");
    verify(source, &hookhold::event::Delivery { headers: sample.headers, target: sample.target, ..delivery(sample.body, &[]) })
}

/// Returns each built-in recipe that has samples, with its samples.
fn built_in() -> Vec<(&'static str, Source, Vec<RecipeSample>)> {
    let all: Vec<_> = PROVIDERS
        .iter()
        .map(|(name, _)| {
            let source = provider(name);
            let samples = source.recipe.samples.clone();
            (*name, source, samples)
        })
        .collect();
    assert!(all.len() >= 8 && all.iter().all(|(_, _, samples)| samples.len() >= 3), "each provider has samples of common types");
    all
}

#[test]
fn every_sample_has_the_id_type_and_key_of_its_recipe() {
    for (name, source, samples) in built_in() {
        for (number, RecipeSample { event_type, .. }) in samples.iter().enumerate() {
            let series = SampleSeries::new(&source, Some(event_type), 0xfeed_0001);
            let id = series.id(number as u64);
            let verified = signed(&source, &options(&id, Some(event_type)));
            let event = verified.unwrap_or_else(|rejection| panic!("{name} {event_type}: {rejection}")).event;
            assert_eq!((event.id(), event.event_type()), (Some(&*id), Some(&**event_type)), "{name}");
            assert!(series.contains(event.id(), event.body(), 1 + number as u64), "{name} {event_type}: {id}");
            let has_key = !source.recipe.event.key.0.is_empty();
            assert_eq!(event.ordering_key().map(str::to_owned), series.key(0), "{name} {event_type}");
            assert_eq!(event.ordering_key().is_some(), has_key, "{name} {event_type}: the record key is no fallback");
            let has_time = event.occurred_at().is_none_or(|time| time.0 / 1000 == NOW);
            assert!(has_time, "{name} {event_type}: {:?}", event.occurred_at());
        }
        assert!(samples.iter().any(|sample| sample.event_type == source.recipe.setup.sample_type), "{name}: the default type");
    }
}

#[test]
fn the_ids_of_samples_look_like_those_of_the_provider() {
    let expected = [
        ("github", "push", 36, ""),
        ("shopify", "orders/create", 36, ""),
        ("shopify-events", "Product.update", 36, ""),
        ("slack", "message", 13, "Ev"),
        ("slack", "/orders", 60, "7"),
        ("standard-webhooks", "user.created", 31, "msg_"),
        ("stripe", "invoice.paid", 28, "evt_"),
        ("svix", "user.created", 31, "msg_"),
        ("twilio", "message.received", 36, ""),
    ];
    for (name, event_type, length, prefix) in expected {
        let source = provider(name);
        let series = SampleSeries::new(&source, Some(event_type), 7);
        let id = series.id(3);
        assert_eq!(id.len(), length, "{name}: {id}");
        assert!(id.starts_with(prefix), "{name}: {id}");
    }
}

#[test]
fn a_load_has_distinct_ids_and_a_bounded_number_of_keys() {
    for (name, source, samples) in built_in() {
        for RecipeSample { event_type, .. } in &samples {
            let series = SampleSeries::new(&source, Some(event_type), 42);
            let ids: BTreeSet<String> = (0..1000).map(|number| series.id(number)).collect();
            assert_eq!(ids.len(), 1000, "{name} {event_type}");
            let keys: BTreeSet<String> = (0..1000).filter_map(|number| series.key(number)).collect();
            let expected = if source.recipe.event.key.0.is_empty() { 0 } else { SampleSeries::KEYS as usize };
            assert_eq!(keys.len(), expected, "{name} {event_type}");
            let last = keys.last().cloned();
            let verified = signed(&source, &SampleOptions { key: last.clone(), ..options("id-1", Some(event_type)) });
            assert_eq!(verified.expect(name).event.ordering_key().map(str::to_owned), last, "{name} {event_type}");
        }
    }
}

#[test]
fn a_run_recognises_only_its_own_ids() {
    for name in ["stripe", "github", "slack", "twilio"] {
        let source = provider(name);
        let (own, other) = (SampleSeries::new(&source, None, 1), SampleSeries::new(&source, None, 2));
        let is_own = |id: &str| own.contains(Some(id), b"", 10);
        assert!(is_own(&own.id(0)) && is_own(&own.id(9)), "{name}");
        assert!(!is_own(&own.id(10)) && !is_own(&other.id(0)) && !is_own("evt_1") && !is_own(""), "{name}");
    }
    let source = inline(INLINE);
    let series = SampleSeries::new(&source, None, 5);
    let sample = sign(&source, None, &options(&series.id(3), None)).expect("the source has a secret");
    assert!(series.contains(None, &sample.body, 4), "a recipe without an id has the id in the body");
    assert!(!series.contains(None, b"{}", 4));
}

#[test]
fn an_unknown_type_uses_the_default_sample() {
    let cases = [
        ("stripe", "invoice.voided"),
        ("github", "pull_request.closed"),
        ("github", "star"),
        ("shopify", "orders/paid"),
        ("slack", "team_join"),
        ("twilio", "message.undelivered"),
        ("svix", "user.banned"),
    ];
    for (name, event_type) in cases {
        let source = provider(name);
        let event = signed(&source, &options("id-1", Some(event_type))).expect(name).event;
        assert_eq!((event.event_type(), event.id()), (Some(event_type), Some("id-1")), "{name}");
        assert!(event.body().len() > 100, "{name}: the body is that of a sample");
    }
}

#[test]
fn a_tampered_sample_of_every_type_is_rejected() {
    for (name, source, samples) in built_in() {
        for RecipeSample { event_type, .. } in &samples {
            for (word, tamper) in Tamper::WORDS.iter().filter(|(_, tamper)| tamper.applies_to(&source.recipe)) {
                if *tamper != Tamper::Unknown {
                    let sample = SampleOptions { tamper: Some(*tamper), ..options("id-1", Some(event_type)) };
                    let outcome = signed(&source, &sample).err().map(|rejection| rejection.outcome);
                    assert_eq!(outcome, Some(tamper.expected()), "{name} {event_type}: {word}");
                }
            }
        }
    }
}

#[test]
fn no_two_samples_are_equal_and_none_contains_a_secret() {
    for (name, source, samples) in built_in() {
        let bodies: BTreeSet<Vec<u8>> = samples
            .iter()
            .map(|sample| {
                let sample = sign(&source, None, &options("id-1", Some(&sample.event_type))).expect("the source has a secret");
                sample.body.to_vec()
            })
            .collect();
        assert_eq!(bodies.len(), samples.len(), "{name}");
        for body in bodies {
            let text = String::from_utf8(body).expect("samples are text");
            assert!((150..3 << 10).contains(&text.len()), "{name}: {} bytes: {text}", text.len());
            assert_no_secret(name, &text);
        }
    }
}

/// Fails if a text contains the prefix of a credential, or a member that is named like a credential and has a value.
fn assert_no_secret(name: &str, text: &str) {
    const PREFIXES: &[&str] = &[
        "whsec_",
        "sk_live",
        "sk_test",
        "rk_",
        "xox",
        "ghp_",
        "gho_",
        "github_pat_",
        "shpss_",
        "shpat_",
        "AKIA",
        "BEGIN ",
        "eyJ",
    ];
    for prefix in PREFIXES {
        assert!(!text.contains(prefix), "{name}: {prefix} in {text}");
    }
    for word in ["token", "secret", "password"] {
        for (at, _) in text.match_indices(word) {
            let value = text[at + word.len()..].trim_start_matches(['"', ':', '=', ' ']).trim_start_matches("%22%3A%22");
            let is_invented = ["null", "example"].iter().any(|invented| value.starts_with(invented));
            assert!(is_invented, "{name}: {word} with a value in {text}");
        }
    }
}

/// The recipe of a sender whose id, type and key are in the body, in a batch, or in a form.
const ACME: &str = r#"auth = "mac"
algorithm = "sha256"
signature = { from = "header:Acme-Signature" }
content = ["body"]
event = { id = "json:/id", type = ["json:/kind", "form:kind", "form-json:data/kind"], key = "json:/customer" }
"#;

#[test]
fn an_error_in_a_sample_names_its_line() {
    let body = "a JSON object or array as a string, or a table with the fields of a form";
    let cases = [
        ("body = '{}'", "7: samples[0].type: expected an event type such as \"order.paid\", found nothing"),
        ("type = \"a\"", &*format!("7: samples[0].body: expected {body}, found nothing")),
        ("type = \"\"\nbody = '{}'", "8: samples[0].type: expected an event type such as \"order.paid\", found"),
        ("type = \"a\"\nbody = '{\"kind\": }'", "9: samples[0].body: expected a JSON object or array"),
        ("type = \"a\"\nbody = '3'", &*format!("9: samples[0].body: expected {body}, found another JSON value")),
        ("type = \"a\"\nbody = 3", &*format!("9: samples[0].body: expected {body}, found an integer")),
        ("type = \"a\"\nbody = '{\"id\":1}'", "9: samples[0].body: expected a body with the event type, found"),
        ("type = \"a\"\nbody = { id = \"1\" }", "9: samples[0].body: expected a body with the event type, found"),
        ("type = \"a\"\nbody = { data = \"text\" }", "9: samples[0].body.data: expected a JSON text"),
        ("type = \"a\"\nbody = { kind = 1 }", "9: samples[0].body.kind: expected a string, found an integer"),
        ("type = \"a\"\nbody = '{\"kind\":\"a\"}'\nheaders = { \"a b\" = \"c\" }", "10: samples[0].headers"),
        ("type = \"a\"\nbody = '{\"kind\":\"a\"}'\nheaders = { A = \"b\\nc\" }", "10: samples[0].headers.A: expected"),
        ("type = \"a\"\nbody = '{\"kind\":\"a\"}'\nheader = 1", "10: samples[0].header: expected a known key"),
    ];
    for (sample, expected) in cases {
        let found = diagnostics(&format!("{ACME}\n[[samples]]\n{sample}\n"));
        // The line of a missing key is that of its table, which TOML reports with the first key or with the heading.
        let without_line = expected.split_once(": ").expect("a line").1;
        assert!(found.len() == 1 && found[0].contains(without_line), "{sample}\nexpected {expected}\nfound {found:?}");
        assert!(found[0].starts_with("acme.toml:"), "{found:?}");
    }
    let twice = format!("{ACME}\n[[samples]]\ntype = \"a\"\nbody = '{{\"kind\":\"a\"}}'\n")
        + "[[samples]]\ntype = \"a\"\nbody = '{\"kind\":\"b\"}'\n";
    let found = diagnostics(&twice);
    assert!(found.len() == 1 && found[0].contains("expected a type that no other sample has"), "{found:?}");
    let batch =
        ACME.replace("event = { ", "event = { batch = \"/items\", ").replace(", \"form:kind\", \"form-json:data/kind\"", "");
    let found = diagnostics(&format!("{batch}\n[[samples]]\ntype = \"a\"\nbody = '{{\"items\":[{{\"kind\":\"a\"}},{{}}]}}'\n"));
    assert!(found.len() == 1 && found[0].contains("expected an array with one item at event.batch"), "{found:?}");
}

fn diagnostics(recipe: &str) -> Vec<String> {
    let (_, found) = RecipeFile::check("acme".into(), "acme.toml".into(), recipe.to_owned());
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_sample_keeps_its_order_and_its_kinds() {
    let body = r#"{ "z": [1, 2.5, null, {"b": true}], "id": 7001, "kind": "a", "customer": 8041, "y": "\u00e9" }"#;
    let source = inline(&format!("{ACME}\n[[samples]]\ntype = \"a\"\nbody = '{body}'\n"));
    let sample = sign(&source, None, &SampleOptions { key: Some("8042".into()), ..options("7002", Some("a")) });
    let sent = String::from_utf8(sample.expect("the source has a secret").body.to_vec()).expect("JSON is text");
    assert_eq!(sent, r#"{"z":[1,2.5,null,{"b":true}],"id":7002,"kind":"a","customer":8042,"y":"é"}"#);
}

#[test]
fn a_signature_in_a_sample_is_not_sent() {
    let headers = "headers = { Acme-Signature = \"00\", Acme-Topic = \"a\" }";
    let source = inline(&format!("{ACME}\n[[samples]]\ntype = \"a\"\nbody = '{{\"kind\":\"a\"}}'\n{headers}\n"));
    let missing = SampleOptions { tamper: Some(Tamper::Missing), ..options("id-1", None) };
    let outcome = signed(&source, &missing).err().map(|rejection| rejection.outcome);
    assert_eq!(outcome, Some(Tamper::Missing.expected()));
    assert!(signed(&source, &options("id-1", None)).is_ok());
}

#[test]
fn samples_of_batches_and_of_changed_sources_verify() {
    let batch =
        ACME.replace("event = { ", "event = { batch = \"/items\", ").replace(", \"form:kind\", \"form-json:data/kind\"", "");
    let body = r#"{"sent":3,"items":[{"id":"i-1","kind":"a","customer":"c-17","more":[]}]}"#;
    let source = inline(&format!("split = true\n{batch}\n[[samples]]\ntype = \"a\"\nbody = '{body}'\n"));
    let sample = sign(&source, None, &SampleOptions { key: Some("c-18".into()), ..options("i-2", None) });
    let sample = sample.expect("the source has a secret");
    let headers = sample.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect::<Vec<_>>();
    let batch = verify_batch(&source, &delivery(sample.body.clone(), &headers));
    let event = &batch.items[0].event;
    assert_eq!((event.id(), event.ordering_key(), batch.items.len()), (Some("i-2"), Some("c-18"), 1));
    assert_eq!(&event.body()[..], br#"{"id":"i-2","kind":"a","customer":"c-18","more":[]}"#);

    // A source may read the type from a place that the samples of its recipe lack.
    let changed = source_of_stripe("event.type = \"json:/kind\"\nevent.key = \"json:/account/id\"");
    let event = signed(&changed, &options("id-1", None)).expect("genuine").event;
    assert_eq!((event.event_type(), event.ordering_key()), (Some("invoice.paid"), None));
}

fn source_of_stripe(more: &str) -> Source {
    source("stripe", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", more)
}
