//! Tests of the signed deliveries in `tests/vectors`. A provider, a provider's library or openssl signed each delivery.
//! hookhold's own code signed none of them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookhold::clock::UnixMillis;
use hookhold::source::{PROVIDERS, Source};
use hookhold::verify::Verified;
use serde::Deserialize;

use crate::support::{compile, delivery, verify};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    vector: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    case: String,
    source: String,
    recipe: Option<String>,
    secret: String,
    target: Option<String>,
    received_at: u64,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    body_base64: Option<String>,
    id: Option<String>,
    r#type: Option<String>,
    key: Option<String>,
    occurred_at_ms: Option<u64>,
    integrity: Option<String>,
    rejected: Option<String>,
}

#[test]
fn every_vector_has_its_expected_outcome() {
    let files = files();
    let mut checked = 0;
    for (name, file) in &files {
        for vector in &file.vector {
            check(name, vector);
            checked += 1;
        }
    }
    assert!(checked >= 20, "only {checked} vectors were found");
}

#[test]
fn every_recipe_has_genuine_and_rejected_vectors() {
    let files = files();
    assert!(!PROVIDERS.is_empty());
    for (name, _) in PROVIDERS {
        let vectors = &files.get(*name).unwrap_or_else(|| panic!("tests/vectors/{name}.toml is missing")).vector;
        assert!(vectors.iter().any(|vector| vector.rejected.is_none()), "{name}: no genuine vector");
        assert!(vectors.iter().any(|vector| vector.rejected.is_some()), "{name}: no rejected vector");
    }
}

fn files() -> BTreeMap<String, File> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("a directory entry").path();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let file = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.file_stem().expect("a name").to_string_lossy().into_owned(), file)
    };
    std::fs::read_dir(directory).expect("the directory of vectors").map(read).collect()
}

fn source_of(file: &str, vector: &Vector) -> Source {
    let provider = || format!("provider = {file:?}");
    let entry = vector.recipe.clone().unwrap_or_else(provider);
    compile(&entry, &[("secret", &vector.secret)]).unwrap_or_else(|diagnostics| panic!("{file}: {}: {diagnostics}", vector.case))
}

fn check(file: &str, vector: &Vector) {
    let case = format!("{file}: {} ({})", vector.case, vector.source);
    let source = source_of(file, vector);
    let headers: Vec<(&str, &str)> = vector.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let encoded = vector.body_base64.as_ref().map(|text| STANDARD.decode(text).expect("base64"));
    let mut delivery = delivery(encoded.unwrap_or_else(|| vector.body.clone().into_bytes()), &headers);
    delivery.target = vector.target.clone().unwrap_or(delivery.target);
    delivery.received_at = UnixMillis(vector.received_at * 1000);
    match (verify(&source, &delivery), &vector.rejected) {
        (Ok(verified), None) => assert_facts(&case, vector, &verified, &delivery.body),
        (Err(rejection), Some(word)) => assert_eq!(rejection.outcome.word(), word, "{case}: {rejection}"),
        (Ok(_), Some(word)) => panic!("{case}: verified instead of {word}"),
        (Err(rejection), None) => panic!("{case}: {rejection}"),
    }
}

fn assert_facts(case: &str, vector: &Vector, verified: &Verified, body: &[u8]) {
    let event = &verified.event;
    assert_eq!(event.id(), vector.id.as_deref(), "{case}");
    assert_eq!(event.event_type(), vector.r#type.as_deref(), "{case}");
    assert_eq!(event.ordering_key(), vector.key.as_deref(), "{case}");
    assert_eq!(event.occurred_at(), vector.occurred_at_ms.map(UnixMillis), "{case}");
    assert_eq!(Some(event.integrity().word()), vector.integrity.as_deref(), "{case}");
    assert_eq!(event.body(), body, "{case}");
}
