//! `hookhold.toml`: every mistake is found at once, each with its place, and no secret is printed; the file that documents
//! all options says what the code does.

#[path = "common/https.rs"]
mod https;
#[path = "common/sdk.rs"]
mod sdk;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use hookhold::config::{AdminConfig, Config, JournalConfig, ServerConfig};
use hookhold::diagnostic::Diagnostics;
use hookhold::forward::check_setting;
use hookhold::limits::{AdminLimits, DedupeLimits, JournalLimits, LimitText, ServerLimits};

const REFERENCE: &str = include_str!("../config/hookhold.toml");

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse("hookhold.toml", text, check_setting)
}

fn broken_configurations() -> Vec<PathBuf> {
    let files: Vec<PathBuf> = std::fs::read_dir("tests/configs").unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 8, "the broken configurations are there");
    files
}

/// What the `#!` marks of a broken configuration announce: line, and how the message begins.
fn announced(text: &str) -> Vec<(usize, String)> {
    let mark = |(at, line): (usize, &str)| Some((at + 1, line.split_once("#! ")?.1.to_owned()));
    let all: Vec<_> = text.lines().enumerate().filter_map(mark).collect();
    assert!(!all.is_empty(), "something is wrong in every broken configuration");
    all
}

/// True for the forms of a message: expected and found, an unknown key with a remedy, a fixed property, a failed read.
fn is_in_form(what: &str) -> bool {
    let has_found = what.split_once("expected ").is_some_and(|(_, rest)| rest.contains(", found "));
    let is_unknown = what.starts_with("unknown key; ") || what.starts_with("unknown property; ");
    let is_fixed = what.starts_with("cannot be set: hookhold ") && what.ends_with("; remove this line");
    let is_unreadable = what.contains("cannot read ") || what.contains("cannot be read: ") || what.starts_with("not TOML: ");
    has_found || is_unknown || is_fixed || is_unreadable || what.contains("; expected ")
}

#[test]
fn every_mistake_is_found_where_it_stands_and_nothing_else() {
    for path in broken_configurations() {
        let text = std::fs::read_to_string(&path).unwrap();
        let mistakes = parse(&text).expect_err("it is broken").sorted();
        let wanted = announced(&text);
        let report = || mistakes.iter().map(|mistake| format!("{mistake}\n")).collect::<String>();
        assert_eq!(mistakes.len(), wanted.len(), "{}:\n{}", path.display(), report());
        for (mistake, (line, begin)) in mistakes.iter().zip(&wanted) {
            let whole = mistake.to_string();
            let expected = format!("hookhold.toml:{line}: {begin}");
            assert!(whole.starts_with(&expected), "{}: wanted\n{expected}\nin\n{}", path.display(), report());
            assert!(is_in_form(&mistake.what), "{whole}");
        }
        assert!(!report().contains("SECRET"), "a secret was printed: {}", report());
    }
}

#[test]
fn ten_mistakes_get_ten_messages_in_one_check() {
    let file = "tests/configs/ten-mistakes.toml";
    let wanted = announced(&std::fs::read_to_string(file).unwrap());
    assert_eq!(wanted.len(), 10);
    let check = Command::new(env!("CARGO_BIN_EXE_hookhold")).args(["check", "--config", file]).output().unwrap();
    let (out, err) = (String::from_utf8(check.stdout).unwrap(), String::from_utf8(check.stderr).unwrap());
    assert_eq!(check.status.code(), Some(2), "{err}");
    assert_eq!(out.lines().count(), 10, "{out}");
    for (message, (line, begin)) in out.lines().zip(&wanted) {
        assert!(message.starts_with(&format!("{file}:{line}: {begin}")), "{message}");
        let what = message.splitn(3, ": ").nth(2).expect("file, key and mistake");
        assert!(is_in_form(what), "{message}");
    }
    assert!(!out.contains("SECRET") && !err.contains("SECRET"), "a secret was printed: {out}{err}");
    assert_eq!(err, format!("hookhold: 10 mistakes in {file}\n"));
}

/// Some of librdkafka's properties are -1 for "none".
#[test]
fn negative_numbers_reach_librdkafka_and_no_option_of_ours() {
    let sources = "[sources.s]\nprovider = \"stripe\"\nsecrets = \"file:Cargo.toml\"\n";
    let kafka = "[kafka]\nbootstrap.servers = \"localhost:1\"\n\"topic.metadata.refresh.interval.ms\" = -1\nbatch.size = 0x10\n";
    let config = parse(&format!("{kafka}{sources}")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let properties = config.kafka.expect("it is there").librdkafka;
    for (name, value) in [("topic.metadata.refresh.interval.ms", "-1"), ("batch.size", "16")] {
        assert!(properties.contains(&(name.to_owned(), value.to_owned())), "{properties:?}");
    }
    let mistakes = parse(&format!("[server]\nmax_streams = -1\n{sources}")).expect_err("negative").to_string();
    assert!(
        mistakes.starts_with("hookhold.toml:2: server.max_streams: expected an integer from 1 to 10000, found -1"),
        "{mistakes}"
    );
}

/// The reference with every option un-commented and its secrets pointed at a file that exists.
fn reference_in_full() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(option) if option.starts_with(|first: char| first.is_ascii_lowercase() || "[\"{".contains(first)) => {
            option.to_owned()
        }
        _ => line.to_owned(),
    };
    let text: Vec<String> = REFERENCE.lines().map(uncomment).collect();
    assert!(text.len() > 50, "the reference is there");
    let references = point(&text.join("\n"), "\"env:", "\"file:Cargo.toml\"");
    point(&references, "\"file:", "\"file:Cargo.toml\"")
}

/// Replaces every quoted text that begins with `begin`.
fn point(text: &str, begin: &str, with: &str) -> String {
    let mut parts = text.split(begin);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |done, part| done + with + part.split_once('"').map_or("", |(_, rest)| rest))
}

#[test]
fn the_reference_states_the_defaults() {
    let pair = https::Pair::new(30);
    let [cert, key] = [("fullchain.pem", pair.cert()), ("privkey.pem", pair.key())];
    let place =
        |text: String, (name, file): (&str, PathBuf)| text.replace(&format!("/etc/hookhold/tls/{name}"), &file.to_string_lossy());
    let text = place(place(reference_in_full(), cert), key);
    let config = parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let ServerConfig { public_url, tls, trusted_proxies, .. } = config.server.clone();
    assert!(public_url.is_some() && tls.is_some() && !trusted_proxies.is_empty(), "examples without a default");
    assert_eq!(config.server, ServerConfig { public_url, tls, trusted_proxies, ..ServerConfig::default() });
    assert_eq!(config.admin, AdminConfig::default());
    assert_eq!(config.journal, JournalConfig::default());
    assert_eq!(config.dedupe, DedupeLimits::default());
    assert!(config.kafka.is_some());
    assert!(!config.sources.is_empty());
}

#[test]
fn the_reference_as_shipped_lacks_nothing_but_a_source() {
    let mistakes = parse(REFERENCE).expect_err("a source is needed").sorted();
    let keys: Vec<&str> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
    assert_eq!(keys, ["sources"]);
}

#[test]
fn the_reference_names_every_option() {
    let text = reference_in_full();
    let reference: toml::Table = toml::from_str(&text).unwrap();
    for section in ["server", "admin", "journal", "dedupe", "sources.NAME", "sources.NAME.dedupe"] {
        let known = options(section);
        let named = named(&reference, section);
        let missing: Vec<&String> = known.difference(&named).collect();
        assert!(missing.is_empty(), "[{section}] of config/hookhold.toml lacks {missing:?}");
    }
}

#[test]
fn the_reference_states_the_range_of_every_limit() {
    let sections = [
        ("server", ServerLimits::list()),
        ("admin", AdminLimits::list()),
        ("journal", JournalLimits::list()),
        ("dedupe", DedupeLimits::list()),
    ];
    for (section, limits) in sections {
        assert!(!limits.is_empty(), "[{section}] has limits");
        for LimitText { key, default, range } in limits {
            let text = explanation(section, key, &default);
            assert!(text.contains(&range), "[{section}] {key}: {range} is missing from: {text}");
        }
    }
}

/// Returns the comment that explains `key = default` in `section` of the reference.
fn explanation(section: &str, key: &str, default: &str) -> String {
    let mut lines = REFERENCE.lines().skip_while(|line| !line.starts_with(&format!("[{section}]")));
    let option = format!("{key} = {default} ");
    let first = lines.find(|line| line.trim_start_matches('#').starts_with(&option));
    let first = first.unwrap_or_else(|| panic!("the reference has {option}in [{section}]"));
    let rest = lines.take_while(|line| line.starts_with(' '));
    std::iter::once(first).chain(rest).collect()
}

/// The keys in `section` of the reference, where NAME stands for every source. That none is unknown to the code has been
/// shown by reading it without a mistake.
fn named(reference: &toml::Table, section: &str) -> BTreeSet<String> {
    let below = |tables: Vec<toml::Table>, part: &str| {
        let inner = |(key, value): (&String, &toml::Value)| (key == part || part == "NAME").then(|| value.as_table().cloned())?;
        tables.iter().flat_map(|table| table.iter().filter_map(inner).collect::<Vec<_>>()).collect()
    };
    let tables = section.split('.').fold(vec![reference.clone()], below);
    assert!(!tables.is_empty(), "the reference has [{section}]");
    tables.iter().flat_map(|table| table.keys().cloned()).collect()
}

/// Returns the keys that the code reads in `section`: an unknown key is reported with all of them.
fn options(section: &str) -> BTreeSet<String> {
    let mistakes = parse(&format!("[{section}]\nno_such_option = 1\n")).expect_err("an unknown key").sorted();
    let unknown = mistakes.iter().find(|mistake| mistake.key.ends_with(".no_such_option")).expect("it is reported");
    assert!(!unknown.known.is_empty(), "[{section}] has keys");
    unknown.known.iter().cloned().collect()
}

#[test]
fn a_reload_takes_over_what_the_reference_says_and_names_what_needs_a_restart() {
    let with = |line: &str| parse(&format!("{line}\n[sources.s]\nprovider = \"stripe\"\nsecrets = [\"file:Cargo.toml\"]\n"));
    let running = with("").expect("a configuration");
    let reference: toml::Table = toml::from_str(&reference_in_full()).unwrap();
    let stated = named_options(&reference, &["server", "admin", "journal", "dedupe"]);
    assert!(stated.len() > 15, "{stated:?}");
    // Their examples are not what runs without them; tests/tls.rs reloads certificates.
    let examples = ["server.tls_cert", "server.tls_key", "server.trusted_proxies"];
    for (key, value) in stated.iter().filter(|(key, _)| !examples.contains(&key.as_str())) {
        // The default in another spelling, or for what has none, a value.
        let same = running.changes(&with(&format!("{key} = {value}")).expect("the reference is right"));
        assert_eq!(same.iter().map(|change| &*change.key).collect::<Vec<_>>(), [key]);
        assert!(!same[0].needs_restart, "{key} = {value} is what runs");
    }
    let other = [
        ("server.listen", "\"127.0.0.1:1\"", true),
        ("server.max_connections", "7", true),
        ("server.request_deadline", "\"7s\"", true),
        ("server.public_url", "\"https://example.com\"", false),
        ("server.max_body", "\"7 KiB\"", false),
        ("server.trusted_proxies", "[\"10.0.0.0/8\"]", true),
        ("server.max_streams", "7", true),
        ("admin.listen", "\"127.0.0.1:1\"", true),
        ("journal.dir", "\"elsewhere\"", true),
        ("journal.max_size", "\"7 GiB\"", true),
        ("dedupe.hot_keys", "7000", true),
        ("dedupe.window", "\"7s\"", false),
        ("kafka.\"bootstrap.servers\"", "\"localhost:1\"", true),
        ("sources.other", "{ provider = \"stripe\", secrets = \"file:Cargo.toml\" }", false),
    ];
    for (key, value, needs_restart) in other {
        let next = with(&format!("{key} = {value}")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        for (one, two) in [(&running, &next), (&next, &running)] {
            let changes = one.changes(two);
            assert!(!changes.is_empty() && changes.iter().all(|change| change.needs_restart == needs_restart), "{changes:?}");
        }
    }
    assert_eq!(running.changes(&running), []);
}

#[test]
fn another_password_behind_the_same_reference_is_a_change() {
    let password = tempfile::NamedTempFile::new().expect("a temporary file");
    let config = |text: &str| {
        std::fs::write(password.path(), text).expect("a temporary file");
        let kafka =
            format!("[kafka]\nbootstrap.servers = \"localhost:1\"\nsasl.password = \"file:{}\"\n", password.path().display());
        parse(&format!("{kafka}[sources.s]\nprovider = \"stripe\"\nsecrets = \"file:Cargo.toml\"\n")).expect("a configuration")
    };
    let changes = config("hush").changes(&config("hush hush"));
    let said: Vec<String> = changes.iter().map(|change| format!("{}: {}", change.key, change.change)).collect();
    assert_eq!(said, ["kafka.sasl.password: the secret behind it is another one"]);
    assert!(!changes[0].needs_restart);
}

/// Every option that the reference states in these sections, as `section.key` and TOML.
fn named_options(reference: &toml::Table, sections: &[&str]) -> Vec<(String, String)> {
    let options = |section: &&str| {
        let table = reference[*section].as_table().expect("a section").clone();
        table.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value.to_string())).collect::<Vec<_>>()
    };
    sections.iter().flat_map(options).collect()
}

#[test]
fn a_configuration_that_is_not_there_is_a_mistake_and_not_a_panic() {
    let missing = Config::load(Path::new("tests/configs/no-such-file.toml"), check_setting).expect_err("it is missing");
    assert!(missing.to_string().starts_with("tests/configs/no-such-file.toml:1: cannot read the file: "), "{missing}");
}

/// Swaps, doubles and cuts pieces of the reference, so that values of every kind stand where others belong.
#[test]
fn no_text_makes_it_panic() {
    let reference = reference_in_full();
    let lines: Vec<&str> = reference.lines().collect();
    let values: Vec<&str> = lines.iter().filter_map(|line| line.split_once(" = ")).map(|(_, value)| value).collect();
    assert!(values.len() > 30, "there are values to swap");
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut text = String::new();
        for line in &lines {
            let (key, _) = line.split_once(" = ").unwrap_or((line, ""));
            match random.u8(0..20) {
                0 => text += &format!("{key} = {}", values[random.usize(..values.len())]),
                1 => text += &format!("{line}\n{line}"),
                2 => text.extend(line.chars().filter(|_| random.u8(0..8) > 0)),
                3 => {
                    text += &format!(
                        "{key} = {}",
                        ["-1", "1e400", "\"\"", "{}", "[]", "[[]]", "'''\n'''", "\"9e9 d\""][random.usize(..8)]
                    )
                }
                _ => text += line,
            }
            text.push('\n');
        }
        let outcome = std::panic::catch_unwind(|| parse(&text).is_ok());
        assert!(outcome.is_ok(), "seed {seed} made this panic:\n{text}");
    }
}

#[test]
fn deep_nesting_is_a_mistake_and_not_a_crash() {
    for deep in ["[".repeat(50_000), "{a=".repeat(50_000)] {
        assert!(parse(&format!("a = {deep}")).is_err());
    }
    assert!(parse(&format!("{}a = 1", "a.".repeat(50_000))).is_err());
    assert!(parse(&format!("[{}a]\nb = 1", "a.".repeat(50_000))).is_err());
}
