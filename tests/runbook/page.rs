//! Reads docs/runbook.md: its commands, its examples of the configuration, and the reasons in its tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Shows the leaders and the in-sync replicas of a topic.
pub const DESCRIBE: &str = "kafka-topics.sh --bootstrap-server BROKER --describe --topic TOPIC";
/// Creates a topic.
pub const CREATE: &str = "kafka-topics.sh --bootstrap-server BROKER --create --topic TOPIC --partitions 3";
/// Permits hookhold to write to a topic.
pub const GRANT: &str =
    "kafka-acls.sh --bootstrap-server BROKER --add --allow-principal User:NAME --operation Write --topic TOPIC";
/// Makes one in-sync replica of a topic sufficient.
pub const LOWER_MIN_ISR: &str = "kafka-configs.sh --bootstrap-server BROKER --alter --entity-type topics --entity-name TOPIC \
                                 --add-config min.insync.replicas=1";
/// Makes a topic accept larger records.
pub const RAISE_LIMIT: &str = "kafka-configs.sh --bootstrap-server BROKER --alter --entity-type topics --entity-name TOPIC \
                               --add-config max.message.bytes=BYTES";

/// Returns every command of the page: each line of a block `sh`, and each piece of code in the text that names a program.
pub fn commands() -> BTreeSet<String> {
    let blocks = blocks("sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    let lines = lines.map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()).filter(|line| !line.is_empty());
    let page = page();
    let prose: String = page.split("```").step_by(2).collect();
    let pieces = prose.split('`').skip(1).step_by(2).map(|piece| piece.split_whitespace().collect::<Vec<_>>().join(" "));
    let is_command =
        |piece: &String| piece.split(' ').next().is_some_and(|first| first.ends_with(".sh") || PROGRAMS.contains(&first));
    lines.chain(pieces.filter(is_command)).collect()
}

/// Returns the text of each block in this language, without its indentation.
pub fn blocks(language: &str) -> Vec<String> {
    let (mut blocks, mut open): (Vec<String>, Option<(usize, bool)>) = (Vec::new(), None);
    for line in page().lines() {
        match (open, line.trim_start().strip_prefix("```")) {
            (None, Some(word)) => {
                open = Some((line.len() - line.trim_start().len(), word == language));
                blocks.extend((word == language).then(String::new));
            }
            (Some(_), Some(_)) => open = None,
            (Some((indent, true)), None) => {
                let block = blocks.last_mut().expect("the block has begun");
                *block += line.get(indent..).unwrap_or_default();
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

/// Returns the block in this language that contains `part`.
pub fn block(language: &str, part: &str) -> String {
    let found: Vec<String> = blocks(language).into_iter().filter(|block| block.contains(part)).collect();
    let [block] = &found[..] else { panic!("expected one block with {part}, found {found:?}") };
    block.clone()
}

/// Returns the text below a heading of the page, up to the next heading.
pub fn section(heading: &str) -> String {
    let page = page();
    let found = page.split("\n## ").find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'));
    found.unwrap_or_else(|| panic!("the page has no section {heading}")).to_owned()
}

/// Returns the reasons in the first column of the table in a section. Asserts that each has a remedy.
pub fn reasons(heading: &str) -> BTreeSet<String> {
    let section = section(heading);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let reasons = rows.map(|row| {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let ["", reason, meaning, remedy, ""] = columns[..] else { panic!("expected three columns: {row}") };
        assert!(!meaning.is_empty() && !remedy.is_empty(), "{row}");
        reason.trim_matches('`').to_owned()
    });
    reasons.collect()
}

/// Replaces each word in capitals, such as TOPIC, by its value.
pub fn fill(command: &str, values: &[(&str, &str)]) -> String {
    let filled = values.iter().fold(command.to_owned(), |text, (word, value)| text.replace(word, value));
    let words = filled.split(|c: char| !c.is_ascii_uppercase()).filter(|word| word.len() > 2);
    let left: Vec<&str> = words.filter(|word| command.contains(word) && !SIGNALS.contains(word)).collect();
    assert!(left.is_empty(), "{filled}: no value for {left:?}");
    filled
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).expect("docs/ is readable")
}

/// Programs whose names begin a command.
const PROGRAMS: &[&str] = &["hookhold", "kill", "ulimit", "dmesg", "timedatectl", "chronyc", "systemctl", "openssl", "curl"];
/// Words in capitals that no value replaces.
const SIGNALS: &[&str] = &["HUP"];
