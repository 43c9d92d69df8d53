//! Tests that the page has a meaning and a remedy for each reason in the code, and no other reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::page;

#[test]
fn every_reason_for_a_block_has_a_remedy_in_the_page() {
    let words: BTreeSet<String> = block_words().into_values().collect();
    assert!(words.len() >= 13, "{words:?}");
    assert_eq!(page::reasons("A topic is blocked"), words);
}

#[test]
fn every_reason_for_a_failed_connection_has_a_remedy_in_the_page() {
    let words = block_words();
    let code =
        ["client_error", "connection"].map(|file| source(file).split("#[cfg(test)]").next().unwrap_or_default().to_owned());
    let code = code.concat();
    let variants =
        code.split("BlockReason::").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default());
    let reasons: BTreeSet<String> = variants.map(|variant| words[variant].clone()).collect();
    assert!(reasons.contains("tls"), "{reasons:?}");
    assert_eq!(page::reasons("The Kafka cluster cannot be reached"), reasons);
}

#[test]
fn every_reason_for_parking_is_in_the_page() {
    let code = source("kafka_error");
    let constants = ["TOO_LARGE", "INVALID"].map(|name| {
        let (_, rest) = code.split_once(&format!("const {name}: &str = \"")).unwrap_or_else(|| panic!("no constant {name}"));
        rest.split('"').next().unwrap_or_default().to_owned()
    });
    let used = code.split("ErrorClass::Record(").skip(1).filter_map(|rest| rest.split(')').next());
    let unknown: Vec<&str> = used.filter(|name| !["TOO_LARGE", "INVALID", "&'static str", "_"].contains(name)).collect();
    assert!(unknown.is_empty(), "reasons that this test does not know: {unknown:?}");
    let section = page::section("Parked events");
    for word in constants {
        assert!(section.contains(&format!("`{word}`")), "the page does not explain {word}");
    }
}

/// Returns the word of each variant of `BlockReason`.
fn block_words() -> BTreeMap<String, String> {
    let code = source("kafka_error");
    let arms = code.lines().filter_map(|line| {
        let (variant, word) = line.trim().strip_prefix("BlockReason::")?.split_once(" => \"")?;
        Some((variant.to_owned(), word.strip_suffix("\",")?.to_owned()))
    });
    // A remedy has spaces, and a word has none.
    let words: BTreeMap<String, String> = arms.filter(|(_, word)| !word.contains(' ')).collect();
    let (_, variants) = code.split_once("enum BlockReason {\n").expect("the code has the reasons");
    let variants = variants.split('}').next().unwrap_or_default().lines().map(str::trim);
    let variants: BTreeSet<&str> =
        variants.filter(|line| !line.starts_with("//")).filter_map(|line| line.strip_suffix(',')).collect();
    assert_eq!(words.keys().map(|variant| &**variant).collect::<BTreeSet<_>>(), variants, "each reason has one word");
    words
}

fn source(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/forward/{name}.rs"))).expect("src/ is readable")
}
