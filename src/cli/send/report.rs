//! What `send` found out: how often each kind of delivery got which answer, and how long the answers took.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::cli::table;

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A delivery as the provider would make it.
    Genuine,
    /// The same delivery once more.
    Repeat,
    /// A delivery that must be refused, damaged as the word says.
    Tampered(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Genuine => f.write_str("genuine"),
            Kind::Repeat => f.write_str("repeat"),
            Kind::Tampered(how) => write!(f, "tampered: {how}"),
        }
    }
}

/// What came back: a status code, or none and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// An answer with this status code.
    Status(u16),
    /// No answer.
    None(&'static str),
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Status(code) => write!(f, "{code}"),
            Reply::None(why) => write!(f, "none: {why}"),
        }
    }
}

/// Counts and latencies by kind and reply. Its size does not grow with the number of deliveries.
#[derive(Default)]
pub struct Report {
    rows: BTreeMap<(Kind, Reply), Row>,
}

struct Row {
    expected: bool,
    latency_us: Histogram<u64>,
}

impl Report {
    /// Notes one reply and whether it is the right one for its kind.
    pub fn note(&mut self, kind: Kind, reply: Reply, expected: bool, took: Duration) {
        let row = self.rows.entry((kind, reply)).or_insert_with(|| Row { expected, latency_us: histogram() });
        row.latency_us.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds what another connection noted.
    pub fn add(&mut self, other: Report) {
        for (key, row) in other.rows {
            match self.rows.get_mut(&key) {
                Some(mine) => mine.latency_us.add(row.latency_us).expect("every histogram has the same bounds"),
                None => drop(self.rows.insert(key, row)),
            }
        }
    }

    /// True when every reply was the right one.
    pub fn as_expected(&self) -> bool {
        self.rows.values().all(|row| row.expected)
    }

    /// True when the gateway has answered that it was too much.
    pub fn is_limited(&self) -> bool {
        self.rows.keys().any(|(_, reply)| *reply == Reply::Status(429))
    }

    fn total(&self) -> u64 {
        self.rows.values().map(|row| row.latency_us.len()).sum()
    }

    /// Prints the table, and below it how many deliveries there were and how fast.
    pub fn print(&self, out: &mut impl Write, took: Duration) -> io::Result<()> {
        let headings = ["SENT", "STATUS", "COUNT", "P50 MS", "P90 MS", "P99 MS", "MAX MS", ""];
        let mut table = table::new(&headings, &[2, 3, 4, 5, 6]);
        for ((kind, reply), row) in &self.rows {
            let mut cells = vec![kind.to_string(), reply.to_string(), row.latency_us.len().to_string()];
            cells.extend(row.latencies_ms().iter().map(|ms| format!("{ms:.1}")));
            cells.push(if row.expected { "as it should be".to_owned() } else { "NOT as it should be".to_owned() });
            table.add_row(cells);
        }
        writeln!(out, "{}\n", table.trim_fmt())?;
        writeln!(out, "{} deliveries in {:.1} s, {:.0}/s", self.total(), took.as_secs_f64(), self.rate(took))
    }

    /// Prints one object per row, then one with the totals.
    pub fn print_json(&self, out: &mut impl Write, took: Duration) -> io::Result<()> {
        for ((kind, reply), row) in &self.rows {
            let [p50, p90, p99, max] = row.latencies_ms();
            let latency = json!({ "p50": p50, "p90": p90, "p99": p99, "max": max });
            let status = if let Reply::Status(code) = reply { json!(code) } else { json!(reply.to_string()) };
            let (sent, count, expected) = (kind.to_string(), row.latency_us.len(), row.expected);
            let line = json!({ "sent": sent, "status": status, "count": count, "expected": expected, "latency_ms": latency });
            writeln!(out, "{line}")?;
        }
        let total = json!({ "total": self.total(), "seconds": took.as_secs_f64(), "per_second": self.rate(took) });
        writeln!(out, "{total}")
    }

    fn rate(&self, took: Duration) -> f64 {
        self.total() as f64 / took.as_secs_f64().max(0.001)
    }
}

impl Row {
    fn latencies_ms(&self) -> [f64; 4] {
        let quantile = |share| self.latency_us.value_at_quantile(share) as f64 / 1000.0;
        [quantile(0.5), quantile(0.9), quantile(0.99), self.latency_us.max() as f64 / 1000.0]
    }
}

/// One microsecond to ten minutes, in steps below one percent.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 2).expect("the bounds are constant and legal")
}
