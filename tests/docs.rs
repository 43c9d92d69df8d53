//! Tests that README.md and docs/ agree with the code. Relative links must lead to files, and the code must declare every
//! metric that a page names. README.md must list every outcome that has a response, and the runbook may quote only alarm names
//! and messages that exist in the code.

#[path = "docs/recipes.rs"]
mod recipes;

use std::fs;
use std::path::{Path, PathBuf};

use hookhold::outcome::Outcome;

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut links = 0;
    for (path, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let file = path.parent().expect("a file is in a directory").join(target.split('#').next().unwrap_or_default());
            assert!(file.exists(), "{}: no such file: {target}", path.display());
            links += 1;
        }
    }
    assert!(links >= 10, "found only {links} links");
}

/// Checks that each command of the table in durability.md runs exactly one test.
#[test]
fn every_command_of_the_table_of_faults_runs_one_test() {
    let page = fs::read_to_string(root().join("docs/durability.md")).expect("durability.md is readable");
    let mut commands = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains("`cargo test")) {
        for command in row.split('`').filter(|part| part.starts_with("cargo test")) {
            let words: Vec<&str> = command.split(' ').collect();
            let ["cargo", "test", kind, target, "--", "--exact", test] = words[..] else {
                panic!("expected cargo test KIND TARGET -- --exact TEST, found {command}")
            };
            let (file, name) = file_of_test(kind, target, test);
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{command}: {}: {error}", file.display()));
            let found = text.matches(&format!("fn {name}(")).count();
            assert_eq!(found, 1, "{command}: functions with this name in {}", file.display());
            let before = text.split(&format!("fn {name}(")).next().unwrap_or_default();
            let attributes = before.rsplit("\n\n").next().unwrap_or_default();
            assert!(attributes.contains("#[test]") || attributes.contains("#[tokio::test"), "{command}: {name} is no test");
            commands += 1;
        }
    }
    assert!(commands >= 40, "found only {commands} commands");
}

/// Returns the file that contains a test, and the name of its function.
fn file_of_test(kind: &str, target: &str, test: &str) -> (PathBuf, String) {
    let (modules, name) = test.rsplit_once("::").unwrap_or(("", test));
    let file = match (kind, modules) {
        ("--bin", modules) => format!("src/{}.rs", modules.trim_end_matches("::tests").replace("::", "/")),
        ("--test", "") if root().join(format!("tests/{target}.rs")).exists() => format!("tests/{target}.rs"),
        ("--test", "") => format!("tests/{target}/main.rs"),
        ("--test", module) => format!("tests/{target}/{module}.rs"),
        _ => panic!("expected --test or --bin, found {kind}"),
    };
    (root().join(file), name.to_owned())
}

#[test]
fn every_metric_in_the_docs_is_declared() {
    let declared = fs::read_to_string(root().join("src/metrics.rs")).expect("metrics.rs is readable");
    let mut named = 0;
    for (path, text) in pages() {
        // In CHANGELOG.md, the row of a renamed metric begins with the old name. The code no longer declares this name, so the
        // test skips it.
        let current: String = text
            .lines()
            .map(|line| line.strip_prefix("| metric | ").map_or(line, after_column))
            .flat_map(|line| [line, "\n"])
            .collect();
        for name in words(&current).filter(|word| word.starts_with("hookhold_")) {
            let family = name.trim_end_matches("_bucket");
            assert!(declared.contains(&format!("\"{family}\"")), "{}: no such metric: {name}", path.display());
            named += 1;
        }
    }
    assert!(named >= 10, "found only {named} metrics");
}

#[test]
fn the_readme_lists_every_outcome_with_its_status() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md is readable");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| ")).collect();
    let answered = Outcome::ALL.iter().filter(|outcome| !NOT_IN_THE_TABLE.contains(outcome));
    for outcome in answered {
        let row = rows.iter().find(|row| row.contains(&format!("`{}`", outcome.word())));
        let row = row.unwrap_or_else(|| panic!("README.md does not list `{}`", outcome.word()));
        let status = if outcome.status().is_success() { "2xx".to_owned() } else { outcome.status().as_str().to_owned() };
        let first = row.split('|').nth(1).unwrap_or_default();
        assert!(first.contains(&status), "README.md: {} is {status}, not {first}", outcome.word());
    }
}

/// Checks that each quotation in the runbook is an alarm name or a hookhold message. Compares only the part of the quotation
/// before the first "…".
#[test]
fn every_message_quoted_in_the_runbook_exists() {
    let page = fs::read_to_string(root().join("docs/runbook.md")).expect("docs/ is readable");
    let messages = sources(&root().join("src")).replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let prose = page.split("```").step_by(2).collect::<String>();
    let mut quoted = 0;
    for line in prose.lines() {
        // Code spans that contain quotation marks, such as option values, are not quotations.
        let spans = line.split('`').enumerate().filter(|(index, span)| index % 2 == 0 || !span.contains('"'));
        let text: String = spans.map(|(_, span)| span).collect();
        for quotation in text.split('"').skip(1).step_by(2) {
            let start = quotation.split('…').next().unwrap_or_default().trim();
            let is_alarm = prose.lines().any(|row| row.starts_with(&format!("| {start} |")));
            assert!(is_alarm || messages.contains(start), "docs/runbook.md quotes {start:?}, which src/ does not contain");
            quoted += 1;
        }
    }
    assert!(quoted >= 6, "found only {quoted} quotations");
}

/// Outcomes that README.md does not list. `disconnected` has no response, because the sender has closed the connection.
const NOT_IN_THE_TABLE: &[Outcome] = &[Outcome::Disconnected];

fn after_column(row: &str) -> &str {
    row.split_once('|').map_or("", |(_, after)| after)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

fn pages() -> Vec<(PathBuf, String)> {
    let listed = fs::read_dir(root().join("docs")).expect("docs/ is readable");
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("docs/ is readable").path()).collect();
    paths.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(paths.len() >= 6, "found only {} pages", paths.len());
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("pages are UTF-8"))).collect()
}

/// Returns the concatenated contents of all files in `dir` and its subdirectories.
fn sources(dir: &Path) -> String {
    let entries = fs::read_dir(dir).expect("src/ is readable").map(|entry| entry.expect("src/ is readable").path());
    let texts = entries.map(|path| match path.is_dir() {
        true => sources(&path),
        false => fs::read_to_string(&path).expect("src/ is readable"),
    });
    texts.collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
