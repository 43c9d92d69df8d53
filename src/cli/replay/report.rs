//! The result of a replay, as text and as JSON.

use std::io::{self, Write};
use std::ops::Range;
use std::time::Duration;

use serde_json::{Value, json};

/// Result of a replay.
pub(super) struct ReplayReport {
    /// Id of the replay.
    pub(super) replay: String,
    /// Number of selected events that this run was to send.
    pub(super) matched: u64,
    /// Number of events that the destination has accepted.
    pub(super) sent: u64,
    /// Number of events that Kafka rejects because of the event itself.
    pub(super) rejected: u64,
    /// Number of events that the URL has not accepted.
    pub(super) skipped: u64,
    /// Sequences that can no longer be read.
    pub(super) missing: Vec<Range<u64>>,
    /// Sequence below which every selected event is sent, rejected or skipped.
    pub(super) next: u64,
    /// Command that sends the rest; `None` if nothing is left.
    pub(super) resume: Option<String>,
    /// Reason for which the replay has stopped, unless it is complete or a signal has stopped it.
    pub(super) error: Option<String>,
    /// Duration of the run.
    pub(super) elapsed: Duration,
}

impl ReplayReport {
    /// Creates the report of a run that is to send `matched` events.
    pub(super) fn new(replay: String, matched: u64) -> ReplayReport {
        ReplayReport {
            replay,
            matched,
            sent: 0,
            rejected: 0,
            skipped: 0,
            missing: Vec::new(),
            next: 0,
            resume: None,
            error: None,
            elapsed: Duration::ZERO,
        }
    }

    /// Returns true if the destination has accepted every event, and no sequence is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.rejected == 0 && self.skipped == 0 && self.missing.is_empty()
    }

    /// Prints the result as one line.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.sent as f64 / seconds.max(0.001);
        let ReplayReport { sent, matched, rejected, skipped, .. } = self;
        writeln!(out, "sent {sent} of {matched} events in {seconds:.1} s ({rate:.0}/s), {rejected} rejected, {skipped} skipped")
    }

    /// Prints the result as a JSON object.
    pub(super) fn print_json(&self, out: &mut impl Write) -> io::Result<()> {
        let object = json!({
            "replay": self.replay,
            "matched": self.matched,
            "sent": self.sent,
            "rejected": self.rejected,
            "skipped": self.skipped,
            "gaps": gaps_json(&self.missing),
            "next_seq": self.next,
            "complete": self.resume.is_none(),
            "resume": self.resume,
            "error": self.error,
            "duration_ms": self.elapsed.as_millis() as u64,
        });
        writeln!(out, "{object}")
    }
}

/// Returns ranges of sequences as JSON: the first and the last sequence of each range.
pub(super) fn gaps_json(missing: &[Range<u64>]) -> Value {
    missing.iter().map(|gap| json!({ "first_seq": gap.start, "last_seq": gap.end - 1 })).collect()
}

/// Prints a line on standard error for each range of sequences that can no longer be read, up to a maximum number.
pub(super) fn print_gaps(missing: &[Range<u64>]) -> io::Result<()> {
    let mut err = anstream::stderr();
    for gap in missing.iter().take(MAX_GAPS) {
        let (first, last) = (gap.start, gap.end - 1);
        writeln!(
            err,
            "hookhold: the sequences {first} to {last} cannot be sent: hookhold has deleted their events, or they are damaged"
        )?;
    }
    if let Some(more) = missing.len().checked_sub(MAX_GAPS).filter(|more| *more > 0) {
        writeln!(err, "hookhold: {more} further ranges of sequences cannot be sent")?;
    }
    Ok(())
}

/// Number of ranges that the text output lists.
const MAX_GAPS: usize = 20;
