//! Body of `/api/status`: whether events are lost, what does not work, since when, why, and what the operator can do.
//! `hookhold status` reads it, and builds the same report from the journal's files while no process runs.

use serde::{Deserialize, Serialize};

/// State of a gateway and its journal, for the operator.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StatusReport {
    /// The running process; `None` if no process has the journal open.
    pub process: Option<StatusProcess>,
    /// Number of stored events that can no longer be read, although Kafka has not acknowledged them. Includes the losses before a
    /// restart while the journal remembers their keys.
    pub lost_events: u64,
    /// Causes of the losses since the start of the process.
    pub losses: Vec<StatusLoss>,
    /// Everything that does not work at present, the most serious first.
    pub problems: Vec<StatusProblem>,
    /// Sizes of the journal.
    pub journal: StatusJournal,
    /// Connection to Kafka in one word: `connected`, `connecting`, `failed`, `off` without `[kafka]`, or `unknown` while no process
    /// runs.
    pub kafka: String,
    /// Topics to which hookhold forwards events, sorted by name.
    pub topics: Vec<StatusTopic>,
    /// Configured sources, sorted by name. Empty while no process runs.
    pub sources: Vec<StatusSource>,
    /// Number of parked events.
    pub parked_events: u64,
    /// Size of the parked events in bytes.
    pub parked_bytes: u64,
    /// True if the journal's directory contains rejected deliveries, also those before a restart.
    pub has_stored_rejections: bool,
}

/// The process that has the journal open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusProcess {
    /// Version of hookhold.
    pub version: String,
    /// Path of the configuration file.
    pub config: String,
    /// Time of the start (RFC 3339).
    pub started_at: String,
    /// Time since the start in seconds.
    pub seconds: u64,
    /// True if a shutdown has begun.
    pub draining: bool,
}

/// Lost events with one cause.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusLoss {
    /// Value of the label `cause` of `hookhold_lost_events_total`.
    pub cause: String,
    /// Number of events.
    pub events: u64,
}

/// Something that does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusProblem {
    /// Affected part, such as `journal` or `topic webhooks.stripe`.
    pub what: String,
    /// Time since the problem began in seconds; `None` if it is unknown.
    pub seconds: Option<u64>,
    /// Reason, in words.
    pub why: String,
    /// Action that the operator can take; empty if `why` contains it.
    pub remedy: String,
}

/// Sizes of the journal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StatusJournal {
    /// Directory.
    pub dir: String,
    /// Number of stored events.
    pub events: u64,
    /// Size of the segments in bytes.
    pub bytes: u64,
    /// Upper limit of the size, `journal.max_size`, in bytes.
    pub max_bytes: u64,
    /// Sequence of the next event.
    pub next_seq: u64,
}

/// State of one topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusTopic {
    /// Name of the topic.
    pub topic: String,
    /// Number of events that Kafka has not acknowledged.
    pub waiting_events: u64,
    /// Size of the topic's backlog in bytes: the journal cannot delete these bytes yet.
    pub waiting_bytes: u64,
    /// Upper limit of the backlog in bytes; `None` while no process runs.
    pub limit_bytes: Option<u64>,
    /// Age of the oldest waiting event in seconds; `None` if no event waits, or if the age is unknown.
    pub oldest_seconds: Option<u64>,
    /// Time of the last acknowledgement (RFC 3339); `None` before the first one of the running process.
    pub acknowledged_at: Option<String>,
    /// `ok` if no event waits for long, else `behind`, or the reason why the topic is blocked.
    pub state: String,
}

/// Deliveries of one source since the start of the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusSource {
    /// Name of the source.
    pub source: String,
    /// Number of stored events.
    pub stored: u64,
    /// Number of duplicates.
    pub duplicates: u64,
    /// Number of rejected deliveries.
    pub rejected: u64,
    /// Time of the last verified delivery (RFC 3339); `None` before the first one.
    pub verified_at: Option<String>,
}

impl StatusReport {
    /// Returns true if no event is lost and everything works.
    pub fn is_healthy(&self) -> bool {
        self.lost_events == 0 && self.problems.is_empty()
    }
}

impl StatusProblem {
    /// Creates the problem of parked events; `None` if there are none.
    pub fn of_parked(events: u64) -> Option<StatusProblem> {
        let count = if events == 1 { "1 event".to_owned() } else { format!("{events} events") };
        let why = format!("Kafka has rejected {count} because of the event itself");
        let problem = StatusProblem {
            what: "parked events".to_owned(),
            seconds: None,
            why,
            remedy: "run `hookhold parked list`".to_owned(),
        };
        (events > 0).then_some(problem)
    }

    /// Creates a problem without a known start, whose text contains the remedy after a semicolon, as log messages do.
    pub fn from_message(what: &str, message: &str) -> StatusProblem {
        let (why, remedy) = message.rsplit_once("; ").unwrap_or((message, ""));
        StatusProblem { what: what.to_owned(), seconds: None, why: why.to_owned(), remedy: remedy.to_owned() }
    }
}
