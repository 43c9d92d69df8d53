//! Reads the rules, checks them with promtool and against docs/runbook.md, and makes a copy with shorter times for a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::process::tool;

/// Kind of the proof that an alert fires and clears.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A test causes the fault in a running gateway.
    Real,
    /// Only the unit tests for promtool, for this reason.
    Synthetic(&'static str),
}
use Proof::{Real, Synthetic};

/// Each alert with the kind of its proof. Every alert also has unit tests for promtool.
pub const PROOFS: &[(&str, Proof)] = &[
    ("HookholdDown", Real),
    ("HookholdRestarting", Real),
    ("HookholdReloadFailed", Real),
    ("HookholdClockJumped", Real),
    ("HookholdAnswers503", Real),
    ("HookholdSourceSilent", Synthetic("compares with the last 7 days and with the same hour of days before")),
    ("HookholdSourceRejectsAll", Real),
    ("HookholdRejectionShareHigh", Real),
    ("HookholdEndpointNearSwitchOff", Real),
    ("HookholdDuplicatesDiffer", Real),
    ("HookholdBodiesUnread", Real),
    ("HookholdTlsCertificateExpiring", Real),
    ("HookholdSecretExpiring", Real),
    ("HookholdKafkaUnreachable", Real),
    ("HookholdTopicBlocked", Real),
    ("HookholdForwardingLag", Real),
    ("HookholdPartitionLeaderless", Real),
    ("HookholdForwarderStalled", Real),
    ("HookholdParkedEvents", Real),
    ("HookholdDeadLettersBlocked", Real),
    ("HookholdBacklogFilling", Real),
    ("HookholdVolumeTooSmall", Real),
    ("HookholdJournalSyncSlow", Real),
    ("HookholdJournalDamaged", Real),
    ("HookholdEventsLost", Real),
    (
        "HookholdKeyMergeBehind",
        Synthetic("needs 262,145 keys and a disk on which merges fail; tests/journal/stalled.rs has the metric"),
    ),
    ("HookholdDedupeKeysDropped", Synthetic("needs days of keys; tests/journal/retention.rs causes it and reads the metric")),
];

#[test]
fn promtool_accepts_the_rules_and_passes_their_unit_tests() {
    let tests = files("deploy/prometheus/tests");
    assert!(tests.len() >= 5, "{tests:?}");
    let unit_tests: Vec<_> = ["test".into(), "rules".into()].into_iter().chain(tests).collect();
    for args in [vec!["check".into(), "rules".into(), root().join("deploy/prometheus/hookhold.rules.yml")], unit_tests] {
        let output = tool("promtool").args(&args).output().expect("promtool starts: tests/run unpacks it");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn each_alert_has_a_proof_and_unit_tests() {
    let alerts: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let proofs: BTreeSet<String> = PROOFS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert!(alerts.len() > 20 && alerts == proofs, "alerts without a proof, or proofs without an alert");
    let tests: String = files("deploy/prometheus/tests").iter().map(|file| fs::read_to_string(file).expect("readable")).collect();
    let tested = |alert: &&String| tests.contains(&format!("alertname=\"{alert}\""));
    assert_eq!(
        alerts.iter().filter(|alert| !tested(alert)).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "no unit test names them"
    );
    let reasons = PROOFS.iter().filter_map(|(_, proof)| if let Synthetic(reason) = proof { Some(reason) } else { None });
    reasons.for_each(|reason| assert!(reason.len() > 20, "{reason}"));
}

#[test]
fn each_alert_leads_to_a_section_of_the_runbook_that_names_it() {
    let page = fs::read_to_string(root().join("docs/runbook.md")).expect("docs/ is readable");
    let sections: Vec<(String, &str)> = page
        .split("\n#")
        .skip(1)
        .map(|section| {
            let (heading, text) = section.split_once('\n').unwrap_or((section, ""));
            (anchor(heading.trim_start_matches('#').trim()), text)
        })
        .collect();
    for Alert { name, anchor, severity } in alerts() {
        let (_, text) = sections
            .iter()
            .find(|(found, _)| *found == anchor)
            .unwrap_or_else(|| panic!("docs/runbook.md has no section #{anchor} for {name}"));
        assert!(text.contains(&format!("`{name}`")), "the section #{anchor} does not name {name}");
        let row = page.lines().find(|line| line.starts_with(&format!("| [`{name}`](#{anchor}) |")));
        let row = row.unwrap_or_else(|| panic!("the table of the alerts has no row for {name} with a link to #{anchor}"));
        assert!(row.contains(&severity), "{row}: the rules say {severity}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| [`Hookhold")).count();
    assert_eq!(rows, PROOFS.len(), "the table has an alert that does not exist");
}

#[test]
fn each_metric_in_the_rules_and_the_dashboard_is_declared() {
    let declared = fs::read_to_string(root().join("src/metrics.rs")).expect("src/ is readable");
    for file in ["deploy/prometheus/hookhold.rules.yml", "deploy/grafana/hookhold.json"] {
        let text = fs::read_to_string(root().join(file)).expect("readable");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: BTreeSet<&str> = words.filter(|word| word.starts_with("hookhold_")).collect();
        assert!(names.len() > 15, "{names:?}");
        for name in names {
            let family = ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
            let is_known = [name, family].iter().any(|name| declared.contains(&format!("\"{name}\"")));
            assert!(is_known, "{file}: no such metric: {name}");
        }
    }
}

/// Returns the rules with shorter times, so that a test sees an alert within seconds: each duration and each number of minutes or
/// hours is divided by 120. A range is at least 12 s, so that it contains two heartbeats of the forwarder, which are 5 s apart. Days
/// before the end of a certificate or of a secret stay as they are.
pub fn shortened() -> String {
    let shorten = |line: &str| {
        if let Some((key, duration)) = line.split_once("for: ") {
            return format!("{key}for: {}s", seconds(duration).div_ceil(SPEED));
        }
        let mut short = String::new();
        let mut rest = line;
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, from) = rest.split_at(at);
            let digits = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
            let unit = from[digits..].chars().next().filter(|unit| "mhd".contains(*unit));
            let is_range = before.ends_with(['[', ':']);
            short += before;
            match unit {
                Some(unit) if is_range || before.ends_with("offset ") => {
                    let length = seconds(&from[..digits + unit.len_utf8()]) / SPEED;
                    short += &format!("{}s", if before.ends_with('[') { length.max(MIN_RANGE) } else { length });
                    rest = &from[digits + unit.len_utf8()..];
                }
                _ => {
                    let number = &from[..digits];
                    let is_factor = before.ends_with("* ") && ["60", "3600"].contains(&number);
                    short += &if is_factor { format!("({number} / {SPEED})") } else { number.to_owned() };
                    rest = &from[digits..];
                }
            }
        }
        short + rest
    };
    let text = fs::read_to_string(root().join("deploy/prometheus/hookhold.rules.yml")).expect("readable");
    let is_text = |line: &str| ["summary:", "description:", "runbook_url:", "#"].iter().any(|key| line.trim().starts_with(key));
    text.lines().map(|line| if is_text(line) { line.to_owned() + "\n" } else { shorten(line) + "\n" }).collect()
}

/// An alert of the rules. Two rules may have the same name with different severities.
struct Alert {
    name: String,
    anchor: String,
    severity: String,
}

fn alerts() -> Vec<Alert> {
    let text = fs::read_to_string(root().join("deploy/prometheus/hookhold.rules.yml")).expect("readable");
    let field = |rule: &str, key: &str| {
        let line = rule.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {key} in {rule}")).to_owned()
    };
    let rules = text.split("- alert: ").skip(1).map(|rule| {
        let rule = format!("alert: {rule}");
        let url = field(&rule, "runbook_url");
        let anchor = url.strip_prefix("docs/runbook.md#").unwrap_or_else(|| panic!("expected docs/runbook.md#…, found {url}"));
        ["summary", "description"]
            .iter()
            .for_each(|key| assert!(rule.contains(&format!("          {key}: ")), "no {key}: {rule}"));
        let severity = field(&rule, "severity");
        assert!(["critical", "warning"].contains(&&*severity), "{severity}");
        Alert { name: field(&rule, "alert"), anchor: anchor.to_owned(), severity }
    });
    rules.collect()
}

/// Returns the anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let words = heading.to_lowercase().replace(' ', "-");
    words.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

fn seconds(duration: &str) -> u64 {
    let (number, unit) = duration.trim().split_at(duration.trim().len() - 1);
    let unit = [("m", 60), ("h", 3600), ("d", 86400)].into_iter().find(|(name, _)| *name == unit);
    number.parse::<u64>().expect("a number") * unit.expect("minutes, hours or days").1
}

fn files(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(dir)).expect("the directory exists");
    entries.map(|entry| entry.expect("readable").path()).collect()
}

pub fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Factor by which the test shortens each time.
const SPEED: u64 = 120;
/// Shortest range in seconds.
const MIN_RANGE: u64 = 12;
