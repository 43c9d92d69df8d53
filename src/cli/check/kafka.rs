//! `hookhold check --kafka`: prints the state of the Kafka cluster and of each topic, and the problems with their remedies.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use hookhold::config::Config;
use hookhold::forward::{self, FindingLevel, Inspection, Settings};
use hookhold::service::{forward_settings, forward_topics};
use hookhold::units::{bytes_about, duration_text};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::super::{ExitStatus, UsageError, table};

/// Returns the settings of the Kafka client, or a usage error if the configuration has no `[kafka]` section.
pub(super) fn settings(config: &Config, file: &Path) -> Result<Settings, UsageError> {
    forward_settings(config).ok_or_else(|| {
        let file = file.display();
        UsageError(format!(
            "--kafka: expected a [kafka] section in {file}, found none; add bootstrap.servers to it, or omit --kafka"
        ))
    })
}

/// Inspects the cluster. Shows on a terminal that the work is under way.
pub(super) fn inspect(config: &Config, settings: &Settings, timeout: Duration) -> Result<Inspection, Box<dyn Error>> {
    let spinner = ProgressBar::new_spinner();
    spinner.set_message(format!("waiting for Kafka (at most {} for each answer)", duration_text(timeout)));
    spinner.enable_steady_tick(TICK);
    let inspected = forward::inspect(settings, &forward_topics(config, settings), timeout);
    spinner.finish_and_clear();
    Ok(inspected.map_err(|error| format!("cannot set up the Kafka client: {error}"))?)
}

/// Prints one row per topic, then the findings with their remedies, and then their numbers.
pub(super) fn print(out: &mut impl Write, inspection: &Inspection) -> io::Result<()> {
    if !inspection.topics.is_empty() {
        let headings = ["TOPIC", "PARTITIONS", "REPLICAS", "IN SYNC", "MIN IN SYNC", "MAX MESSAGE", "WRITE"];
        let mut rows = table::new(&headings, &[1, 2, 3, 4, 5]);
        for topic in &inspection.topics {
            let [replicas, in_sync, least] = [topic.replicas, topic.in_sync, topic.min_insync_replicas].map(or_dash);
            let largest = or_dash(topic.max_message_bytes.map(bytes_about));
            let (partitions, write) = (topic.partitions.to_string(), word(topic.write));
            rows.add_row([topic.topic.clone(), partitions, replicas, in_sync, least, largest, write]);
        }
        writeln!(out, "\n{}", rows.trim_fmt())?;
    }
    for finding in &inspection.findings {
        let topic = finding.topic.as_deref().unwrap_or("kafka");
        writeln!(out, "\n{}: {topic}: {}\n  {}", word(finding.level), finding.what, finding.remedy)?;
    }
    let [errors, warnings] = [FindingLevel::Error, FindingLevel::Warning].map(|level| inspection.count(level));
    writeln!(out, "\nkafka: {}, {}", counted(errors, "error"), counted(warnings, "warning"))
}

/// Returns the inspection as JSON, with the configured list of brokers.
pub(super) fn to_json(inspection: &Inspection, servers: Option<&str>) -> Value {
    let mut object = json!(inspection);
    object["servers"] = json!(servers);
    object
}

/// Returns the exit status for an inspection.
pub(super) fn status(inspection: &Inspection) -> ExitStatus {
    if inspection.count(FindingLevel::Error) == 0 { ExitStatus::Done } else { ExitStatus::Failed }
}

/// Returns the word by which JSON output also names a level or a permission.
fn word(value: impl serde::Serialize) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        more => format!("{more} {noun}s"),
    }
}

/// Interval at which the spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// Shortest and longest `--kafka-timeout`.
pub(super) const MIN_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(600);
