//! The report of `send`: counts and latencies of the responses, by kind of delivery.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use hookhold::log::escaped;
use serde_json::json;

use super::SendPlan;
use super::stored::StoredSummary;
use crate::cli::table;

/// The stored events of the deliveries, or the reason why they are not known.
pub(super) type StoredResult = Result<StoredSummary, String>;

/// Kind of a delivery in the report of `hookhold send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DeliveryKind {
    /// A delivery as the provider would send it.
    Genuine,
    /// An earlier delivery, sent again (`--repeat-percent`).
    Duplicate,
    /// A delivery that the gateway must reject. The string is the value of `--tamper`.
    Tampered(&'static str),
}

impl fmt::Display for DeliveryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeliveryKind::Genuine => f.write_str("genuine"),
            DeliveryKind::Duplicate => f.write_str("repeat"),
            DeliveryKind::Tampered(how) => write!(f, "tampered: {how}"),
        }
    }
}

/// Response to a delivery, or the reason for a missing response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SendResponse {
    /// A response with this status code.
    Status(u16),
    /// No response. The string names the reason.
    Missing(&'static str),
}

impl fmt::Display for SendResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendResponse::Status(code) => write!(f, "{code}"),
            SendResponse::Missing(why) => write!(f, "none: {why}"),
        }
    }
}

impl SendResponse {
    fn is_accepted(&self) -> bool {
        matches!(self, SendResponse::Status(200..=299))
    }
}

/// Number of responses and their latencies, by delivery kind and response. The size of a report does not grow with the
/// number of deliveries.
#[derive(Default)]
pub(super) struct SendReport {
    rows: BTreeMap<(DeliveryKind, SendResponse), ReportRow>,
}

struct ReportRow {
    expected: bool,
    latency_us: Histogram<u64>,
}

impl SendReport {
    /// Adds one response with the latency `elapsed` to the report. `expected` is true if the response is as expected for
    /// `kind`.
    pub(super) fn record(&mut self, kind: DeliveryKind, response: SendResponse, expected: bool, elapsed: Duration) {
        let row = self.rows.entry((kind, response)).or_insert_with(|| ReportRow { expected, latency_us: histogram() });
        row.latency_us.saturating_record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds the counts and latencies from the report of another connection.
    pub(super) fn add(&mut self, other: SendReport) {
        for (key, row) in other.rows {
            match self.rows.get_mut(&key) {
                Some(mine) => mine.latency_us.add(row.latency_us).expect("every histogram has the same bounds"),
                None => drop(self.rows.insert(key, row)),
            }
        }
    }

    /// Returns true if every response was as expected.
    pub(super) fn as_expected(&self) -> bool {
        self.rows.values().all(|row| row.expected)
    }

    /// Returns true if a response had status 429.
    pub(super) fn is_limited(&self) -> bool {
        self.rows.keys().any(|(_, response)| *response == SendResponse::Status(429))
    }

    fn total(&self) -> u64 {
        self.rows.values().map(|row| row.latency_us.len()).sum()
    }

    /// Returns the statuses of genuine deliveries that were not as expected.
    pub(super) fn unexpected_of_genuine(&self) -> Vec<u16> {
        let unexpected = self.rows.iter().filter(|((kind, _), row)| *kind == DeliveryKind::Genuine && !row.expected);
        let status = |response: &SendResponse| if let SendResponse::Status(code) = response { Some(*code) } else { None };
        unexpected.filter_map(|((_, response), _)| status(response)).collect()
    }

    /// Returns the number of deliveries that got a 2xx.
    pub(super) fn accepted(&self) -> u64 {
        self.rows.iter().filter(|((_, response), _)| response.is_accepted()).map(|(_, row)| row.latency_us.len()).sum()
    }

    /// Prints the table of responses, then the number of deliveries, their destination and their rate, and the stored events.
    /// `stored` is `None` if the gateway's journal is not on this machine.
    pub(super) fn print(
        &self,
        out: &mut impl Write,
        elapsed: Duration,
        plan: &SendPlan,
        stored: Option<&StoredResult>,
    ) -> io::Result<()> {
        let headings = ["SENT", "STATUS", "COUNT", "P50 MS", "P90 MS", "P99 MS", "MAX MS", ""];
        let mut table = table::new(&headings, &[2, 3, 4, 5, 6]);
        for ((kind, response), row) in &self.rows {
            let mut cells = vec![kind.to_string(), response.to_string(), row.latency_us.len().to_string()];
            cells.extend(row.latencies_ms().iter().map(|ms| format!("{ms:.1}")));
            let is_known =
                *kind == DeliveryKind::Genuine && stored.is_some_and(|stored| stored.as_ref().is_ok_and(|s| s.is_known()));
            cells.push(match row.expected {
                true if is_known && response.is_accepted() => "duplicate, as expected".to_owned(),
                true => "as expected".to_owned(),
                false => "NOT as expected".to_owned(),
            });
            table.add_row(cells);
        }
        writeln!(out, "{}\n", table.trim_fmt())?;
        let (total, kind) = (self.total(), plan.event_type());
        let deliveries = if total == 1 { "1 delivery".to_owned() } else { format!("{total} deliveries") };
        let kind = kind.map_or(String::new(), |kind| format!(" of type {}", escaped(kind)));
        let rate = match total {
            0 | 1 => String::new(),
            _ => format!(" in {:.1} s, {:.0}/s", elapsed.as_secs_f64(), self.rate(elapsed)),
        };
        writeln!(out, "{deliveries}{kind} to {} (source {}){rate}", plan.shown_url(), plan.source.name)?;
        if stored.is_some() && self.rows.keys().any(|(_, response)| *response == SendResponse::Status(401)) {
            writeln!(out, "rejected: `hookhold doctor {}` explains why", plan.source.name)?;
        }
        match stored {
            Some(Ok(stored)) => writeln!(out, "{}", stored.line(self.accepted(), plan.is_filtered())),
            Some(Err(reason)) if self.accepted() > 0 => writeln!(out, "stored: not known: {reason}"),
            _ => Ok(()),
        }
    }

    /// Prints one JSON object per row, then one JSON object with the totals.
    pub(super) fn print_json(
        &self,
        out: &mut impl Write,
        elapsed: Duration,
        plan: &SendPlan,
        stored: Option<&StoredResult>,
    ) -> io::Result<()> {
        for ((kind, response), row) in &self.rows {
            let [p50, p90, p99, max] = row.latencies_ms();
            let latency = json!({ "p50": p50, "p90": p90, "p99": p99, "max": max });
            let status = if let SendResponse::Status(code) = response { json!(code) } else { json!(response.to_string()) };
            let (sent, count, expected) = (kind.to_string(), row.latency_us.len(), row.expected);
            let line = json!({ "sent": sent, "status": status, "count": count, "expected": expected, "latency_ms": latency });
            writeln!(out, "{line}")?;
        }
        let stored = stored.and_then(|stored| stored.as_ref().ok()).map(|stored| stored.json(self.accepted()));
        let total = json!({
            "total": self.total(),
            "seconds": elapsed.as_secs_f64(),
            "per_second": self.rate(elapsed),
            "url": plan.shown_url(),
            "source": &*plan.source.name,
            "type": plan.event_type(),
            "stored": stored,
        });
        writeln!(out, "{total}")
    }

    fn rate(&self, elapsed: Duration) -> f64 {
        self.total() as f64 / elapsed.as_secs_f64().max(0.001)
    }
}

impl ReportRow {
    fn latencies_ms(&self) -> [f64; 4] {
        let quantile = |q| self.latency_us.value_at_quantile(q) as f64 / 1000.0;
        [quantile(0.5), quantile(0.9), quantile(0.99), self.latency_us.max() as f64 / 1000.0]
    }
}

/// Returns an empty histogram for latencies from one microsecond to ten minutes. The recorded values have two significant
/// digits, so their error is below one percent.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 2).expect("the bounds are valid constants")
}
