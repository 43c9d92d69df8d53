//! Tests of the configuration file `hookhold.toml`. hookhold must report every mistake exactly once, with the line of the
//! mistake, and must not print a secret. The reference file `config/hookhold.toml` must agree with the code.

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
use hookhold::source::recipe::EventArray;

const REFERENCE: &str = include_str!("../config/hookhold.toml");

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse("hookhold.toml", text, check_setting)
}

fn broken_configurations() -> Vec<PathBuf> {
    let files: Vec<PathBuf> = std::fs::read_dir("tests/configs").unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 20, "found only {} broken configurations", files.len());
    files
}

/// Returns the expected diagnostics of a broken configuration, each as a line number and the beginning of the message. Each
/// `#!` comment in `text` specifies one diagnostic, which must name the line of the comment.
fn expected_messages(text: &str) -> Vec<(usize, String)> {
    let message = |(at, line): (usize, &str)| Some((at + 1, line.split_once("#! ")?.1.to_owned()));
    let all: Vec<_> = text.lines().enumerate().filter_map(message).collect();
    assert!(!all.is_empty(), "every broken configuration has a mistake");
    all
}

/// Returns true if the text of a diagnostic has one of the allowed forms. The text must contain an expected value, the reason
/// why a property cannot be set, or the reason why a file cannot be read or parsed.
fn is_in_form(what: &str) -> bool {
    let has_found = what.split_once("expected ").is_some_and(|(_, rest)| rest.contains(", found "));
    let is_fixed = what.starts_with("cannot be set: hookhold ") && what.ends_with("; remove this line");
    let is_unreadable = what.contains("cannot read ") || what.starts_with("not TOML: ");
    has_found || is_fixed || is_unreadable || what.contains("; expected ")
}

#[test]
fn each_broken_line_has_exactly_one_diagnostic() {
    for path in broken_configurations() {
        let text = std::fs::read_to_string(&path).unwrap();
        let diagnostics = parse(&text).expect_err("the configuration is broken").sorted();
        let expected = expected_messages(&text);
        let report = || diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect::<String>();
        assert_eq!(diagnostics.len(), expected.len(), "{}:\n{}", path.display(), report());
        for (diagnostic, (line, start)) in diagnostics.iter().zip(&expected) {
            let message = diagnostic.to_string();
            let start = format!("hookhold.toml:{line}: {start}");
            assert!(message.starts_with(&start), "{}: expected\n{start}\nin\n{}", path.display(), report());
            assert!(is_in_form(&diagnostic.what), "{message}");
        }
        assert!(!report().contains("SECRET"), "a secret was printed: {}", report());
    }
}

#[test]
fn a_login_with_which_kafka_never_lets_hookhold_in_is_reported() {
    let diagnostics = |properties: &str| {
        let kafka = format!("[kafka]\nbootstrap.servers = \"kafka:9092\"\n{properties}\n");
        let text = format!("{kafka}[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:Cargo.toml\"]\n");
        parse(&text).err().map(|diagnostics| diagnostics.to_string()).unwrap_or_default()
    };
    let user = "sasl.username = \"hookhold\"\nsasl.password = \"file:Cargo.toml\"";
    let works = [
        "security.protocol = \"ssl\"\nssl.ca.location = \"Cargo.toml\"".to_owned(),
        format!("security.protocol = \"SASL_SSL\"\nsasl.mechanism = \"PLAIN\"\n{user}"),
        format!("security.protocol = \"sasl_plaintext\"\nsasl.mechanisms = \"SCRAM-SHA-256\"\n{user}"),
        "security.protocol = \"sasl_ssl\"\nsasl.mechanism = \"OAUTHBEARER\"\nsasl.oauthbearer.method = \"OIDC\"\n\
         sasl.oauthbearer.token.endpoint.url = \"https://id.example.com/token\""
            .to_owned(),
    ];
    for properties in works {
        assert_eq!(diagnostics(&properties), "", "{properties}");
    }
    let fails = [
        (
            user,
            "hookhold.toml:1: kafka.security.protocol: expected sasl_ssl or sasl_plaintext, because sasl.username is set, found nothing",
        ),
        (
            "ssl.ca.location = \"Cargo.toml\"",
            "kafka.security.protocol: expected ssl or sasl_ssl, because ssl.ca.location is set, found nothing",
        ),
        (
            "security.protocol = \"sasl_plaintext\"\nsasl.mechanism = \"PLAIN\"\nssl.key.location = \"Cargo.toml\"",
            "hookhold.toml:3: kafka.security.protocol: expected ssl or sasl_ssl, because ssl.key.location is set, found sasl_plaintext",
        ),
        (
            "security.protocol = \"sasl_ssl\"",
            "kafka.sasl.mechanism: expected PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, found nothing",
        ),
        (
            "security.protocol = \"sasl_ssl\"\nsasl.mechanisms = \"GSSAPI\"",
            "hookhold.toml:4: kafka.sasl.mechanisms: expected PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, found GSSAPI; hookhold is",
        ),
        (
            "security.protocol = \"sasl_ssl\"\nsasl.mechanism = \"AWS_MSK_IAM\"",
            "found AWS_MSK_IAM, which librdkafka does not support; use",
        ),
        (
            "security.protocol = \"sasl_ssl\"\nsasl.mechanism = \"OAUTHBEARER\"",
            "kafka.sasl.oauthbearer.method: expected oidc, because sasl.mechanism is OAUTHBEARER, found nothing; hookhold can only get its",
        ),
    ];
    for (properties, message) in fails {
        let found = diagnostics(properties);
        assert!(
            found.contains(message) && found.trim_end().lines().count() == 1,
            "{properties}: expected {message}, found {found}"
        );
    }
}

#[test]
fn topics_by_event_type_are_checked() {
    let diagnostics = |options: &str| {
        let text = format!("[sources.a]\nsecrets = [\"file:Cargo.toml\"]\n{options}\n");
        parse(&text).err().map(|diagnostics| diagnostics.to_string()).unwrap_or_default()
    };
    let stripe = "provider = \"stripe\"\ntopics =";
    assert_eq!(diagnostics(&format!("{stripe} {{ \"invoice.paid\" = \"a\", \"invoice.*\" = \"b\", \"*\" = \"c\" }}")), "");
    let batch = "provider = \"stripe\"\nsplit = true\nevent.batch = \"/data\"\ntopics = { \"a\" = \"b\" }";
    let fails = [
        (format!("{stripe} {{ \"a*b\" = \"c\" }}"), "hookhold.toml:4: sources.a.topics.a*b: expected an event type such as"),
        (format!("{stripe} {{ \"a\" = \"b c\" }}"), "sources.a.topics.a: expected a topic name of 1 to 249"),
        (
            format!("{stripe} {{ \"invoice.*\" = \"a\", \"invoice.paid\" = \"b\" }}"),
            "sources.a.topics.invoice.paid: expected a type that no earlier entry matches, found invoice.* above it; move this entry up",
        ),
        (format!("{stripe} \"all\""), "sources.a.topics: expected "),
        (batch.to_owned(), "sources.a.topics: expected a source without split = true, found both"),
    ];
    for (options, message) in fails {
        let found = diagnostics(&options);
        assert!(found.contains(message), "{options}: expected {message}, found {found}");
    }
}

#[test]
fn check_prints_one_diagnostic_per_broken_line() {
    let file = "tests/configs/ten-mistakes.toml";
    let expected = expected_messages(&std::fs::read_to_string(file).unwrap());
    assert_eq!(expected.len(), 10);
    let check = Command::new(env!("CARGO_BIN_EXE_hookhold")).args(["check", "--config", file]).output().unwrap();
    let (out, err) = (String::from_utf8(check.stdout).unwrap(), String::from_utf8(check.stderr).unwrap());
    assert_eq!(check.status.code(), Some(2), "{err}");
    assert_eq!(out.lines().count(), 10, "{out}");
    for (message, (line, start)) in out.lines().zip(&expected) {
        assert!(message.starts_with(&format!("{file}:{line}: {start}")), "{message}");
        let what = message.splitn(3, ": ").nth(2).expect("file, key and message");
        assert!(is_in_form(what), "{message}");
    }
    assert!(!out.contains("SECRET") && !err.contains("SECRET"), "a secret was printed: {out}{err}");
    assert_eq!(err, format!("hookhold: 10 errors in {file}\n"));
}

/// Removes one letter from each key of the reference file, one key at a time. Each misspelt key must cause exactly one
/// diagnostic, which must suggest the correct key.
#[test]
fn a_misspelt_key_anywhere_causes_one_message() {
    let (_pair, reference) = full_reference();
    let lines: Vec<&str> = reference.lines().collect();
    let mut misspelt = 0;
    for (at, line) in lines.iter().enumerate() {
        let Some(wrong) = misspell_key(line) else { continue };
        let text = [&lines[..at], &[wrong.as_str()], &lines[at + 1..]].concat().join("\n");
        let diagnostics = parse(&text).expect_err(&wrong).sorted();
        let is_one = diagnostics.len() == 1 && diagnostics[0].line == at + 1 && diagnostics[0].what.contains("; did you mean ");
        assert!(is_one, "{wrong}: {diagnostics:#?}");
        misspelt += 1;
    }
    assert!(misspelt > 70, "found only {misspelt} keys");
}

/// Returns the line `key = value` with the second-to-last letter of the key removed. Returns `None` if the line has no key, or
/// if the key ends with `.id`: a misspelt `id` is a single letter, which is too short for a suggestion.
fn misspell_key(line: &str) -> Option<String> {
    let (key, value) = line.split_once(" = ").filter(|(key, _)| key.starts_with(|first: char| first.is_ascii_lowercase()))?;
    let at = key.len().checked_sub(2).filter(|_| !key.ends_with(".id"))?;
    Some(format!("{}{} = {value}", &key[..at], &key[at + 1..]))
}

/// Sets a librdkafka property and then an option of hookhold to -1. Only the option must cause an error, because some
/// librdkafka properties accept -1 with the meaning "none".
#[test]
fn only_librdkafka_properties_accept_negative_integers() {
    let sources = "[sources.s]\nprovider = \"stripe\"\nsecrets = \"file:Cargo.toml\"\n";
    let kafka = "[kafka]\nbootstrap.servers = \"localhost:1\"\n\"topic.metadata.refresh.interval.ms\" = -1\nbatch.size = 0x10\n";
    let config = parse(&format!("{kafka}{sources}")).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let properties = config.kafka.expect("[kafka] is set").librdkafka;
    for (name, value) in [("topic.metadata.refresh.interval.ms", "-1"), ("batch.size", "16")] {
        assert!(properties.contains(&(name.to_owned(), value.to_owned())), "{properties:?}");
    }
    let diagnostics = parse(&format!("[server]\nmax_streams = -1\n{sources}")).expect_err("negative").to_string();
    assert_eq!(diagnostics, "hookhold.toml:2: server.max_streams: expected an integer from 1 to 10000, found -1");
}

/// Returns the reference file after removing the `#` from every commented-out option and example. Every reference to a secret
/// names an existing file, and the directory of recipes exists.
fn uncommented_reference() -> String {
    let text: Vec<&str> = REFERENCE.lines().map(|line| option_of(line).unwrap_or(line)).collect();
    assert!(text.len() > 200, "found only {} lines", text.len());
    let references = point(&text.join("\n"), "\"env:", "\"file:Cargo.toml\"");
    let files = point(&references, "\"file:", "\"file:Cargo.toml\"").replace("/etc/hookhold/providers", "config/providers");
    // Cargo.toml is no valid token, because a token has no spaces and no line ends.
    files.replace("token = \"file:Cargo.toml\"", "token = \"file:tests/admin-token\"")
}

/// Returns the option in a commented-out line. Returns `None` for a comment and for a line without `#`. A comment begins with
/// `#` and one space. An option begins with `#` and no space, and each further line of the option begins with `#` and two
/// spaces.
fn option_of(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|option| option.starts_with("  ") || option.starts_with(|first| first != ' ' && first != '#'))
}

/// Returns a certificate pair and the text of [`uncommented_reference`]. The TLS options in the text name the files of the
/// pair. Dropping the pair deletes these files.
fn full_reference() -> (https::Pair, String) {
    let pair = https::Pair::new(30);
    let replace =
        |text: String, name: &str, file: PathBuf| text.replace(&format!("/etc/hookhold/tls/{name}"), &file.to_string_lossy());
    let text = replace(uncommented_reference(), "fullchain.pem", pair.cert());
    let text = replace(text, "sender-ca.pem", pair.cert());
    let text = replace(text, "privkey.pem", pair.key());
    (pair, text)
}

/// Returns `text` after replacing every quoted string that begins with `start`. `with` is the replacement, including both
/// quotation marks. `start` includes the opening quotation mark.
fn point(text: &str, start: &str, with: &str) -> String {
    let mut parts = text.split(start);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |done, part| done + with + part.split_once('"').map_or("", |(_, rest)| rest))
}

#[test]
fn the_reference_file_parses_to_the_defaults() {
    let (_pair, text) = full_reference();
    let config = parse(&text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let ServerConfig { public_url, tls, trusted_proxies, .. } = config.server.clone();
    assert!(public_url.is_some() && tls.is_some() && !trusted_proxies.is_empty(), "the options without a default are set");
    assert_eq!(config.server, ServerConfig { public_url, tls, trusted_proxies, ..ServerConfig::default() });
    let AdminConfig { hosts, token, .. } = config.admin.clone();
    assert!(!hosts.is_empty() && token.is_some(), "the options without a default are set");
    assert_eq!(config.admin, AdminConfig { hosts, token, ..AdminConfig::default() });
    assert_eq!(config.journal, JournalConfig::default());
    assert_eq!(config.dedupe, DedupeLimits::default());
    assert!(config.kafka.is_some());
    assert_eq!(config.sources.len(), 5, "five examples");
    let activity = config.sources.iter().find(|source| *source.name == *"activity").expect("an example with a batch");
    let max_items = activity.recipe.event.batch.map(|batch| batch.max_items);
    assert_eq!(max_items, Some(EventArray::DEFAULT_MAX_ITEMS));
}

#[test]
fn the_shipped_reference_file_lacks_only_a_source() {
    let diagnostics = parse(REFERENCE).expect_err("a source is required").sorted();
    let keys: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.key.as_str()).collect();
    assert_eq!(keys, ["sources"]);
}

#[test]
fn the_reference_file_names_every_option() {
    let reference: toml::Table = toml::from_str(&uncommented_reference()).unwrap();
    let sections =
        ["server", "admin", "journal", "dedupe", "providers", "sources.NAME", "sources.NAME.dedupe", "sources.NAME.signature"];
    let recipe =
        ["timestamp", "body_sha256", "event", "reply", "reply.ok", "limits", "limits.switches_off_at", "setup", "samples"];
    let recipe = recipe.into_iter().chain(["challenge", "challenge.reply"]);
    let sections = sections.map(str::to_owned).into_iter().chain(recipe.map(|part| format!("sources.NAME.{part}")));
    for section in sections {
        let (known, named) = (options(&section), named(&reference, &section));
        let missing: Vec<&String> = known.difference(&named).collect();
        // A recipe contains only one of `content` and `content_variants`, so the file may lack the other key.
        let missing: Vec<_> = missing.into_iter().filter(|key| *key != "content_variants").collect();
        assert!(missing.is_empty(), "[{section}] of config/hookhold.toml lacks {missing:?}");
    }
}

#[test]
fn the_reference_file_states_the_range_of_every_limit() {
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
            assert!(text.contains(&format!("# Range: {range}.")), "[{section}] {key}: expected {range}, found {text}");
        }
    }
}

/// Returns the paragraph with the line `key = default` of `section` in the reference file. The paragraph includes the comment
/// above the line.
fn explanation(section: &str, key: &str, default: &str) -> String {
    let (_, text) = REFERENCE.split_once(&format!("[{section}]\n")).expect("the reference file has the section");
    let option = format!("{key} = {default}");
    let paragraph = text
        .split("\n\n")
        .find(|paragraph| paragraph.trim_start_matches('#').lines().any(|line| line.trim_start_matches('#') == option));
    paragraph.unwrap_or_else(|| panic!("[{section}] lacks {option}")).to_owned()
}

#[test]
fn the_reference_file_explains_each_option_above_it() {
    let (options, _) = REFERENCE.split_once("\n# ---- Example").expect("examples have their own headings");
    let mut explained = 0;
    for paragraph in options.trim_end().split("\n\n") {
        let lines: Vec<&str> = paragraph.lines().collect();
        let (last, comment) = lines.split_last().expect("no paragraph is empty");
        assert!(comment.iter().all(|line| *line == "#" || line.starts_with("# ")), "one option per paragraph: {paragraph}");
        let is_option = option_of(last).unwrap_or(last).contains(" = ");
        assert!(!is_option || !comment.is_empty(), "an option without an explanation: {paragraph}");
        explained += usize::from(is_option);
    }
    assert!(explained > 30, "found only {explained} options");
    let long: Vec<&str> = REFERENCE.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(long.is_empty(), "over 100 columns: {long:#?}");
}

/// Returns the keys in `section` of the reference file. `NAME` in `section` stands for the name of any source. Another test
/// checks that the file parses without a mistake, so hookhold knows each of these keys.
fn named(reference: &toml::Table, section: &str) -> BTreeSet<String> {
    let below = |tables: Vec<toml::Table>, part: &str| {
        let inner = |(key, value): (&String, &toml::Value)| -> Vec<toml::Table> {
            let is_part = key == part || part == "NAME";
            let items = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            items.into_iter().filter(|_| is_part).filter_map(|item| item.as_table().cloned()).collect()
        };
        tables.iter().flat_map(|table| table.iter().flat_map(inner).collect::<Vec<_>>()).collect()
    };
    let tables = section.split('.').fold(vec![reference.clone()], below);
    assert!(!tables.is_empty(), "the reference file has [{section}]");
    tables.iter().flat_map(|table| table.keys().cloned()).collect()
}

/// Returns the keys that hookhold accepts in `section`. Reads these keys from the diagnostic for an unknown key, because this
/// diagnostic contains a list of all accepted keys.
fn options(section: &str) -> BTreeSet<String> {
    let diagnostics = parse(&format!("[{section}]\nno_such_option = 1\n")).expect_err("an unknown key").sorted();
    let unknown = diagnostics.iter().find(|diagnostic| diagnostic.key.ends_with(".no_such_option")).expect("it is reported");
    assert!(!unknown.known.is_empty(), "[{section}] has keys");
    unknown.known.iter().cloned().collect()
}

#[test]
fn only_documented_changes_apply_without_a_restart() {
    let with = |line: &str| parse(&format!("{line}\n[sources.s]\nprovider = \"stripe\"\nsecrets = [\"file:Cargo.toml\"]\n"));
    let running = with("").expect("a configuration");
    let reference: toml::Table = toml::from_str(&uncommented_reference()).unwrap();
    let stated = named_options(&reference, &["server", "admin", "journal", "dedupe"]);
    assert!(stated.len() > 15, "{stated:?}");
    // In the reference file, the values of these options are examples that would change the listener. tests/tls.rs covers the
    // reload of certificates.
    let examples = ["server.tls_cert", "server.tls_key", "server.trusted_proxies"];
    for (key, value) in stated.iter().filter(|(key, _)| !examples.contains(&key.as_str())) {
        // `value` is the default of the option, or an example if the option has no default.
        let same = running.changes(&with(&format!("{key} = {value}")).expect("a valid option"));
        assert_eq!(same.iter().map(|change| &*change.key).collect::<Vec<_>>(), [key]);
        assert!(!same[0].needs_restart, "{key} = {value} changes nothing");
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
        ("admin.hosts", "[\"other.internal\"]", false),
        ("admin.token", "\"file:tests/admin-token\"", false),
        ("journal.dir", "\"elsewhere\"", true),
        ("journal.max_size", "\"7 GiB\"", true),
        ("dedupe.hot_keys", "7000", true),
        ("dedupe.window", "\"7s\"", false),
        ("kafka.\"bootstrap.servers\"", "\"localhost:1\"", true),
        ("providers.dir", "\"config/providers\"", false),
        ("sources.other", "{ provider = \"stripe\", secrets = \"file:Cargo.toml\" }", false),
    ];
    for (key, value, needs_restart) in other {
        let next = with(&format!("{key} = {value}")).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        for (one, two) in [(&running, &next), (&next, &running)] {
            let changes = one.changes(two);
            assert!(!changes.is_empty() && changes.iter().all(|change| change.needs_restart == needs_restart), "{changes:?}");
        }
    }
    assert_eq!(running.changes(&running), []);
}

#[test]
fn a_changed_password_file_is_reported_as_a_change() {
    let password = tempfile::NamedTempFile::new().expect("a temporary file");
    let config = |text: &str| {
        std::fs::write(password.path(), text).expect("a temporary file");
        let login = "security.protocol = \"sasl_ssl\"\nsasl.mechanism = \"PLAIN\"\nsasl.username = \"hookhold\"\n";
        let kafka = format!(
            "[kafka]\nbootstrap.servers = \"localhost:1\"\n{login}sasl.password = \"file:{}\"\n",
            password.path().display()
        );
        parse(&format!("{kafka}[sources.s]\nprovider = \"stripe\"\nsecrets = \"file:Cargo.toml\"\n")).expect("a configuration")
    };
    let changes = config("hush").changes(&config("hush hush"));
    let listed: Vec<String> = changes.iter().map(|change| format!("{}: {}", change.key, change.change)).collect();
    assert_eq!(listed, ["kafka.sasl.password: the secret has changed"]);
    assert!(!changes[0].needs_restart);
}

#[test]
fn a_changed_admin_token_is_reported_without_its_text() {
    let token = tempfile::NamedTempFile::new().expect("a temporary file");
    let config = |text: &str| {
        std::fs::write(token.path(), text).expect("a temporary file");
        let admin = format!("admin.token = \"file:{}\"\n", token.path().display());
        parse(&format!("{admin}[sources.s]\nprovider = \"stripe\"\nsecrets = \"file:Cargo.toml\"\n")).expect("a configuration")
    };
    let changes = config("0123456789abcdef").changes(&config("fedcba9876543210"));
    let listed: Vec<String> = changes.iter().map(|change| format!("{}: {}", change.key, change.change)).collect();
    assert_eq!(listed, ["admin.token: the secret has changed"]);
    assert!(!changes[0].needs_restart);
}

/// Returns the name `section.key` and the TOML value of every option that the reference file has in `sections`.
fn named_options(reference: &toml::Table, sections: &[&str]) -> Vec<(String, String)> {
    let options = |section: &&str| {
        let table = reference[*section].as_table().expect("a section").clone();
        table.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value.to_string())).collect::<Vec<_>>()
    };
    sections.iter().flat_map(options).collect()
}

#[test]
fn a_missing_configuration_file_is_reported_with_its_path() {
    let missing = Config::load(Path::new("tests/configs/no-such-file.toml"), check_setting).expect_err("the file is missing");
    assert!(missing.to_string().starts_with("tests/configs/no-such-file.toml:1: cannot read the file: "), "{missing}");
}

/// Parses random mutations of the reference file. A mutation gives an option the value of another option or an extreme value,
/// duplicates a line, or removes random characters from a line.
#[test]
fn no_mutation_of_the_reference_file_panics() {
    let reference = uncommented_reference();
    let lines: Vec<&str> = reference.lines().collect();
    let values: Vec<&str> = lines.iter().filter_map(|line| line.split_once(" = ")).map(|(_, value)| value).collect();
    assert!(values.len() > 30, "found only {} values to swap", values.len());
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
        assert!(outcome.is_ok(), "seed {seed} panics:\n{text}");
    }
}

#[test]
fn deeply_nested_toml_is_rejected_without_a_crash() {
    for deep in ["[".repeat(50_000), "{a=".repeat(50_000)] {
        assert!(parse(&format!("a = {deep}")).is_err());
    }
    assert!(parse(&format!("{}a = 1", "a.".repeat(50_000))).is_err());
    assert!(parse(&format!("[{}a]\nb = 1", "a.".repeat(50_000))).is_err());
}
