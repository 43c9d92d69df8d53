//! Tests that comments, documentation, help texts, messages and identifiers contain no retired word and no phrase on the
//! stop list.
//!
//! The tests read each text file of the repository as one sequence of words, so they find a phrase even if a line break divides
//! the phrase. The tests also split identifiers into words, so they find `lane` in `rewind_lane` and in `LaneState`.

use std::fs;
use std::path::{Path, PathBuf};

/// The stop list: phrases that no text file may contain. A comma counts as a word.
const PHRASES: &[&str] = &[
    "as a rule",
    "come again",
    "comes again",
    "for ever",
    "in vain",
    "so many",
    "of late",
    "goes on with",
    "but for",
    "to its end",
    "also when",
    ", too",
    "is told",
    "are told",
    "is borne",
];

/// Retired words that neither text nor identifiers may contain, each with its replacement.
const RETIRED: &[(&str, &str)] = &[
    ("anew", "again"),
    ("beside", "next to, with"),
    ("besides", "also, in addition to"),
    ("everybody", "the component or actor"),
    ("nobody", "the component or actor"),
    ("slip", "mistake, typo"),
    ("somebody", "the component or actor"),
    ("whoever", "the component or actor"),
    ("lane", "topic, topic queue"),
    ("lanes", "topics, topic queues"),
    ("kept", "stored"),
    ("keeper", "background"),
    ("refuse", "reject"),
    ("refuses", "rejects"),
    ("refused", "rejected"),
    ("refusing", "rejecting"),
    ("refusal", "rejection"),
    ("refusals", "rejections"),
    ("believe", "verify, trust"),
    ("believes", "verifies, trusts"),
    ("believed", "verified, trusted"),
    ("believer", "verifier"),
    ("desk", "server state"),
    ("stranger", "unknown sender"),
    ("strangers", "unknown senders"),
    ("tally", "outcome log"),
    ("tallies", "outcome log"),
    ("greeting", "connection setup"),
    ("entrance", "live source"),
    ("entrances", "live sources"),
    ("teller", "completion runner"),
    ("rot", "corruption"),
    ("rotted", "corrupted"),
    ("rotten", "corrupted"),
    ("unsure", "unconfirmed"),
    ("inbox", "mailbox"),
];

/// Retired words that identifiers may not contain, each with its replacement. Comments and documentation may contain these
/// words.
const RETIRED_NAMES: &[(&str, &str)] = &[
    ("believing", "verifying"),
    ("bell", "notify"),
    ("board", "status table"),
    ("catalog", "segment map"),
    ("desks", "server state"),
    ("face", "topic status"),
    ("house", "harness"),
    ("houses", "harnesses"),
    ("mistake", "diagnostic"),
    ("mistakes", "diagnostics"),
    ("news", "updates"),
    ("scene", "harness"),
    ("scenes", "harnesses"),
    ("signers", "sdk signatures"),
    ("sums", "checksum"),
    ("tell", "complete, report"),
    ("telling", "completion"),
    ("tells", "completes, reports"),
    ("told", "completed, reported"),
    ("truths", "dedupe table"),
];

/// Question words. A doc comment must not begin with one of these words, because a doc comment must state what the item does or
/// is.
const QUESTIONS: &[&str] = &["What", "Who", "Whose", "How", "Since when", "Whether"];

/// Names that contain a retired word but must not change, such as metric label values and JSON keys. An explanation follows
/// each name. The tests do not read the explanations.
const PUBLISHED: &[(&str, &str)] = &[
    ("\"refused\"", "a value of the metric label `reason`"),
    ("\\\"refused\\\"", "the same value in a string literal"),
    ("| `refused` |", "the same value in the runbook"),
    ("refused_as", "a key of `doctor --format json`"),
    ("\"lanes\"", "a key of `journal stat --format json`"),
    ("\"unsure\"", "a key of `journal verify --format json`"),
    ("mistake = &*", "a field of the log line of a failed reload"),
    ("It's a Secret to Everybody", "the secret of GitHub's and Bitbucket's published examples"),
    ("SHA256SUMS", "the usual name of a file with checksums"),
    ("too long or incomplete", "here the word belongs to `long`"),
    ("| `kept` | `stored` |", "the changelog's list of renamed names, as are the next ones"),
    ("| `keep_refused` |", "an earlier option"),
    ("| `max_refused_per_address` |", "an earlier option"),
    ("| `/api/refusals` |", "an earlier path"),
    ("| `hookhold_kept_after_answer_total` |", "an earlier metric"),
    ("| `hookhold_connections_refused_total` |", "an earlier metric"),
    ("| `hookhold_refused_log_suppressed_total` |", "an earlier metric"),
];

/// Files and directories that the tests skip: build output, code and text from other projects, inputs and output of the fuzzer,
/// and this file.
const NOT_OURS: &[&str] = &[
    "target",
    "node_modules",
    ".git",
    "Cargo.lock",
    "LICENSE",
    "LICENSES",
    "package-lock.json",
    "language.rs",
    "corpus",
    "found",
    "artifacts",
    "coverage",
];

#[test]
fn no_text_uses_a_retired_word() {
    let files = texts();
    assert!(files.len() > 150, "found only {} files", files.len());
    let mut found = Vec::new();
    for (path, text) in &files {
        found.extend(findings(path, text).into_iter().map(|(line, what)| format!("{path}:{line}: {what}")));
    }
    assert!(found.is_empty(), "{}\n{} findings", found.join("\n"), found.len());
}

#[test]
fn each_published_name_is_still_in_use() {
    let files = texts();
    for (name, _) in PUBLISHED {
        assert!(files.iter().any(|(_, text)| text.contains(name)), "no file contains {name}: remove it from the list");
    }
}

#[test]
fn a_planted_sentence_is_found_in_every_file_type() {
    let planted = [
        ("src/a.rs", "/// Who connects is served, as a\n/// rule.\nfn f() {}", vec!["Who", "as a rule"]),
        ("src/a.rs", "fn rewind_lane(x: LaneState) {} // fine", vec!["lane", "lane"]),
        ("src/a.rs", "fn f() { let house = 1; say(\"the event was kept\") }", vec!["house", "kept"]),
        ("docs/a.md", "Nobody reads it.\nIt is kept, too.", vec!["nobody", "kept", ", too"]),
        ("config/a.toml", "# events are laid in anew", vec!["anew"]),
        ("deploy/a", "# a slip of the hand", vec!["slip"]),
    ];
    for (path, text, expected) in planted {
        let found = findings(path, text);
        let mut words: Vec<&str> = found.iter().map(|(_, what)| what.split('`').nth(1).unwrap_or_default()).collect();
        words.sort_unstable();
        let mut expected = expected;
        expected.sort_unstable();
        assert_eq!(words, expected, "{path}: {text}");
    }
    let fine =
        "/// Returns the tool, too-long names excluded: `Connection refused` is TCP's word.\nfn watch(connection: Stop) {}";
    assert_eq!(findings("src/a.rs", fine), []);
}

/// Returns each forbidden word or phrase in a file, with its line number and a message.
fn findings(path: &str, text: &str) -> Vec<(usize, String)> {
    let text = PUBLISHED.iter().fold(text.to_owned(), |text, (name, _)| text.replace(name, ""));
    let lines: Vec<&str> = text.lines().collect();
    let words: Vec<(usize, &str)> =
        lines.iter().enumerate().flat_map(|(index, line)| words(line).map(move |word| (index + 1, word))).collect();
    let mut found = Vec::new();
    for (at, (line, _)) in words.iter().enumerate() {
        for phrase in PHRASES {
            let here = self::words(phrase)
                .enumerate()
                .all(|(offset, wanted)| words.get(at + offset).is_some_and(|(_, word)| word.eq_ignore_ascii_case(wanted)));
            found.extend(here.then(|| (*line, format!("`{phrase}`"))));
        }
    }
    for (at, (line, word)) in words.iter().enumerate() {
        let is_refused_by_tcp =
            at > 0 && words[at - 1].1.to_lowercase().trim_end_matches('s') == "connection" && *word == "refused";
        let parts = identifier_parts(word);
        let is_name = || parts.len() > 1 || (path.ends_with(".rs") && is_code(lines[line - 1], word));
        for part in parts.iter().filter(|_| !is_refused_by_tcp) {
            let retired = RETIRED.iter().find(|(old, _)| old == part);
            let retired = retired.or_else(|| RETIRED_NAMES.iter().find(|(old, _)| old == part && is_name()));
            found.extend(retired.map(|(old, new)| (*line, format!("`{old}`, use: {new}"))));
        }
    }
    if path.ends_with(".rs") {
        questions(&lines, &mut found);
    }
    found.sort();
    found
}

/// Finds each doc paragraph that begins with a question word, and each comment that contains the word `Who`. Adds a message for
/// each to `found`.
fn questions(lines: &[&str], found: &mut Vec<(usize, String)>) {
    let mut in_doc = false;
    for (index, line) in lines.iter().enumerate() {
        let line = line.trim_start();
        let doc = line.strip_prefix("///").map(str::trim);
        let question = QUESTIONS.iter().find(|question| doc.is_some_and(|doc| doc.starts_with(&format!("{question} "))));
        let who = line.starts_with("//") && words(line).any(|word| word == "Who");
        match question {
            Some(question) if !in_doc => found.push((index + 1, format!("`{question}` begins a doc line"))),
            _ if who => found.push((index + 1, "`Who` as the subject of a comment".to_owned())),
            _ => {}
        }
        in_doc = doc.is_some_and(|doc| !doc.is_empty());
    }
}

/// Returns true if a line of a Rust file contains `word` outside comments and strings.
fn is_code(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split('"').step_by(2).any(|part| words(part).any(|other| other == word))
}

/// Splits an identifier into lower-case words: both `lane_state` and `LaneState` become `lane` and `state`.
fn identifier_parts(word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before = '_';
    for letter in word.chars() {
        if letter == '_' || (letter.is_uppercase() && !before.is_uppercase()) {
            parts.push(String::new());
        }
        if letter != '_' {
            parts.last_mut().expect("never empty").extend(letter.to_lowercase());
        }
        before = letter;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Returns the words of a line of text. A comma counts as a word.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !is_word(c) && c != ',');
        let length = rest.find(|c: char| !is_word(c) && c != '-').unwrap_or(rest.len()).max(1);
        let word = rest.get(..length)?;
        rest = &rest[length..];
        Some(word)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the path and the content of every text file of the repository. Paths are relative to the root of the repository.
fn texts() -> Vec<(String, String)> {
    let mut dirs = vec![root().to_owned()];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("the repository can be listed") {
            let path: PathBuf = entry.expect("the repository can be listed").path();
            if path.file_name().is_some_and(|name| NOT_OURS.iter().any(|other| name == *other)) {
                continue;
            }
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
                files.push((name, text));
            }
        }
    }
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
