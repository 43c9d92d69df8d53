//! Tests of docs/recipes.md. Each example of the page must compile as a recipe file and as the section of a source, and the
//! examples together must use every parameter, term, locator, key step, algorithm and part of the recipe language.
//!
//! An example is a `toml` block, or the code in the column "example" of a table. A block with a section of the configuration is
//! a configuration. Any other example is added to the base recipe of its kind of proof.

use std::collections::BTreeSet;
use std::path::Path;

use hookhold::answer::EffectKind;
use hookhold::config::Config;
use hookhold::source::RecipeFile;
use hookhold::source::recipe::{Algorithm, Encoding, JwtAlgorithm, Proof, PublicKeyAlgorithm, PublicKeyFormat, TimeUnit};

const PAGE: &str = include_str!("../../docs/recipes.md");

/// Returns the smallest recipe of a kind of proof. The signature has tags, so that an example can read them.
fn base(auth: &str) -> toml::Table {
    let signed = "signature = { from = \"header:X-Signature\", items = \",\", pair = \"=\", take = [\"v1\"] }\n";
    let parameters = match auth {
        "mac" => format!("algorithm = \"sha256\"\ncontent = [\"body\"]\nevent.id = \"json:/id\"\n{signed}"),
        "digest" => format!("algorithm = \"sha256\"\ncontent = [\"secret\", \"body\"]\n{signed}"),
        "signature" => format!("algorithm = \"ed25519\"\ncontent = [\"body\"]\n{signed}"),
        "jwt" => "algorithm = \"HS256\"\ntoken = { from = \"header:X-Token\" }\n".to_owned(),
        "token" => "token = { from = \"header:X-Token\" }\n".to_owned(),
        "basic" | "none" => String::new(),
        other => panic!("unknown auth {other:?}"),
    };
    toml::from_str(&format!("auth = {auth:?}\n{parameters}")).expect("the base recipes are TOML")
}

/// Returns the example on top of the base recipe of its kind of proof. An example with `[[proof]]` is complete.
fn recipe(example: &str) -> toml::Table {
    let own: toml::Table = toml::from_str(example).unwrap_or_else(|error| panic!("{error}: {example}"));
    let auth = own.get("auth").and_then(toml::Value::as_str).unwrap_or("mac").to_owned();
    let mut whole = if own.contains_key("proof") { toml::Table::new() } else { base(&auth) };
    if own.contains_key("content_variants") {
        whole.remove("content");
    }
    whole.extend(own);
    whole
}

/// Returns the `toml` blocks of the page, except complete configurations.
fn blocks() -> (Vec<String>, Vec<String>) {
    let blocks = PAGE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned());
    blocks.partition(|block| !block.contains("\n[sources.") && !block.starts_with("[sources."))
}

/// Returns the code in the last column of each table whose last column is called "example".
fn table_examples() -> Vec<String> {
    let mut examples = Vec::new();
    let mut has_examples = false;
    for line in PAGE.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split(" | ").collect();
        if !line.starts_with('|') {
            has_examples = false;
        } else if cells.last().is_some_and(|cell| cell.trim() == "example") {
            has_examples = true;
        } else if has_examples && !line.starts_with("|---") {
            let cell = cells.last().expect("a row has cells").trim();
            let spans: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
            assert!(!spans.is_empty(), "a row without an example: {line}");
            examples.push(spans.join("\n"));
        }
    }
    examples
}

fn examples() -> Vec<String> {
    let mut examples = blocks().0;
    examples.extend(table_examples());
    assert!(examples.len() > 80, "found only {} examples", examples.len());
    examples
}

#[test]
fn each_example_is_a_valid_recipe_file() {
    for example in examples() {
        let text = recipe(&example).to_string();
        let (_, found) = RecipeFile::check("example".into(), "example.toml".into(), text);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{example}\n{}", found.join("\n"));
    }
}

/// Compiles each example as an inline recipe and through a recipe file. Skips recipes with public keys, because the page
/// contains no key for most algorithms.
#[test]
fn each_example_is_a_valid_source() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let secret = directory.path().join("secret");
    let recipes = directory.path().join("recipes");
    std::fs::create_dir(&recipes).expect("a temporary directory");
    let mut compiled = 0;
    for example in examples() {
        let recipe = recipe(&example);
        let (file, auth) = (recipe.to_string(), recipe.get("auth").and_then(toml::Value::as_str).unwrap_or_default());
        std::fs::write(&secret, if auth == "basic" { "user:password" } else { "0123456789abcdef0123456789abcdef" })
            .expect("a file");
        std::fs::write(recipes.join("example.toml"), &file).expect("a file");
        if uses_public_keys(&recipes) {
            continue;
        }
        let options = format!("providers.dir = {recipes:?}\nserver.public_url = \"https://hooks.example.com\"\n");
        let values = ["endpoint", "audience", "tenant", "verify_token", "site"].map(|name| format!("{name} = \"text\""));
        let secrets = if auth == "none" { String::new() } else { format!("secrets = [\"file:{}\"]\n", secret.display()) };
        let more = format!("{secrets}values = {{ {} }}\n", values.join(", "));
        let mut inline: toml::Table = toml::from_str(&format!("[sources.example]\n{more}")).expect("TOML");
        inline["sources"]["example"].as_table_mut().expect("a table").extend(recipe);
        for config in [inline.to_string(), format!("[sources.example]\nprovider = \"example\"\n{more}")] {
            let parsed = Config::parse("hookhold.toml", &format!("{options}{config}"), |_, _| None);
            assert!(parsed.is_ok(), "{example}\n{}", parsed.expect_err("checked"));
            compiled += 1;
        }
    }
    assert!(compiled > 150, "compiled only {compiled} sources");
}

/// Returns true if a proof of the recipe `example` in this directory uses public keys.
fn uses_public_keys(recipes: &Path) -> bool {
    let (providers, _) = hookhold::config::read_providers(recipes).expect("the directory exists");
    let recipe = providers.recipe("example").expect("another test checks that each example is valid");
    recipe.proofs.iter().any(Proof::uses_public_keys)
}

#[test]
fn each_configuration_of_the_page_is_valid() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (recipes, configurations) = blocks();
    let acme = recipes.iter().find(|block| block.contains("title = \"Acme\"")).expect("the page has a first example");
    std::fs::write(directory.path().join("acme.toml"), acme).expect("a temporary directory");
    for secret in ["acme", "mine", "verify"] {
        std::fs::write(directory.path().join(secret), "whsec_0123456789").expect("a temporary directory");
    }
    assert!(configurations.len() >= 2, "found only {} configurations", configurations.len());
    for text in configurations {
        let text = text.replace("/etc/hookhold/providers", &directory.path().display().to_string());
        let text = text.replace("/run/secrets/", &format!("{}/", directory.path().display()));
        Config::parse("hookhold.toml", &text, |_, _| None).unwrap_or_else(|diagnostics| panic!("{diagnostics}\n{text}"));
    }
}

/// Returns the dotted paths of all keys in the examples, without indexes: `challenge.reply.body`.
fn paths(value: &toml::Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            found.insert(path.clone());
            paths(value, &path, found);
        }),
        toml::Value::Array(items) => items.iter().for_each(|item| paths(item, path, found)),
        _ => {}
    }
}

/// Returns the keys that a recipe file knows in a section. `example` is a recipe with an unknown key in this section.
fn known(example: &str) -> Vec<String> {
    let text = recipe(example).to_string();
    let (_, found) = RecipeFile::check("example".into(), "example.toml".into(), text.clone());
    let unknown = found.iter().find(|one| one.key.ends_with("no_such_option")).unwrap_or_else(|| panic!("{found:?}\n{text}"));
    assert!(!unknown.known.is_empty(), "{example} has keys");
    unknown.known.clone()
}

#[test]
fn the_page_shows_every_parameter() {
    let mut used = BTreeSet::new();
    examples().iter().for_each(|example| paths(&toml::Value::Table(recipe(example)), "", &mut used));
    let jwt = "auth = \"jwt\"\n";
    for (section, example) in [
        ("", "no_such_option = 1"),
        ("", "auth = \"signature\"\nno_such_option = 1"),
        ("", &format!("{jwt}no_such_option = 1")),
        ("", "auth = \"token\"\nno_such_option = 1"),
        ("signature.", "signature = { from = \"header:X\", no_such_option = 1 }"),
        ("timestamp.", "timestamp = { from = \"header:X\", no_such_option = 1 }"),
        ("body_sha256.", "body_sha256 = { from = \"query:X\", no_such_option = 1 }"),
        ("token.", &format!("{jwt}token = {{ from = \"header:X\", no_such_option = 1 }}")),
        ("body_claim.", &format!("{jwt}body_claim = {{ name = \"x\", no_such_option = 1 }}")),
        ("url_claim.", &format!("{jwt}url_claim = {{ name = \"x\", no_such_option = 1 }}")),
        ("fetch.", "auth = \"signature\"\nfetch = { url = \"https://a.example/\", key_id = \"header:X\", no_such_option = 1 }"),
        ("event.", "event = { no_such_option = 1 }"),
        ("event.time.", "event = { time = [{ from = \"json:/t\", unit = \"s\", no_such_option = 1 }] }"),
        ("reply.", "reply = { no_such_option = 1 }"),
        ("reply.ok.", "reply = { ok = { no_such_option = 1 } }"),
        ("limits.", "limits = { no_such_option = 1 }"),
        ("limits.switches_off_at.", "limits = { switches_off_at = { percent = 1, within = \"1h\", no_such_option = 1 } }"),
        ("setup.", "setup = { no_such_option = 1 }"),
        ("challenge.", "challenge = [{ methods = [\"GET\"], no_such_option = 1 }]"),
        ("challenge.reply.", "challenge = [{ methods = [\"GET\"], reply = { no_such_option = 1 } }]"),
        ("samples.", "samples = [{ no_such_option = 1 }]"),
    ] {
        let parameters = known(example);
        for key in parameters.iter().filter(|key| !(section.is_empty() && NOT_IN_A_FILE.contains(&key.as_str()))) {
            assert!(used.contains(&format!("{section}{key}")), "no example of docs/recipes.md sets {section}{key}");
        }
    }
}

/// Options that only a source may set. docs/recipes.md shows `key` and `values` in the section of a source.
const NOT_IN_A_FILE: &[&str] = &[
    "topics",
    "provider",
    "path",
    "public_url",
    "topic",
    "secrets",
    "client_ca",
    "client_subject",
    "max_rate",
    "types",
    "danger_shadow",
    "dedupe",
    "key",
    "values",
];

#[test]
fn the_page_shows_every_word_of_the_language() {
    fn words<T>(pairs: &[(&str, T)]) -> Vec<String> {
        pairs.iter().map(|(word, _)| format!("\"{word}\"")).collect()
    }
    let examples = examples().join("\n");
    let mut expected: Vec<String> = [
        words(Algorithm::WORDS),
        words(Encoding::WORDS),
        words(PublicKeyAlgorithm::WORDS),
        words(PublicKeyFormat::WORDS),
        words(JwtAlgorithm::WORDS),
        words(TimeUnit::WORDS),
        EffectKind::WORDS.iter().map(|(word, _)| format!("\"{word}")).collect(),
    ]
    .concat();
    for (file, before) in [("content", "Term::"), ("proof", "Kind::"), ("proof", "KeyStep::")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/source/read/{file}.rs"));
        let text = std::fs::read_to_string(path).expect("src/ is readable");
        let pairs = text.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split_once("\", "));
        let found: Vec<_> = pairs.filter(|(_, rest)| rest.starts_with(before)).map(|(word, _)| format!("\"{word}\"")).collect();
        expected.extend(found);
    }
    let parts = ["const:", "config:", "header:", "tag:", "query:", "json:/", "form:", "form-json:", "jwt:", "\"basic:user\""];
    let calls = ["body-hash(", "listed-headers(", "form-sorted(", "optional(", "echo(", "percent-decode(", "hmac(", "json("];
    let steps = ["\"strip-prefix:", "\"utf8\"", "\"form-sorted\"", ", repeated)", "\"slots\"", "-*\"", "\"HEAD\"", "\"OPTIONS\""];
    expected.extend([&parts[..], &calls, &steps].concat().iter().map(|word| (*word).to_owned()));
    assert!(expected.len() > 60, "{expected:?}");
    let missing: Vec<&String> = expected.iter().filter(|word| !examples.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "no example of docs/recipes.md uses {missing:?}");
}
