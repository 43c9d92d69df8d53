//! Sends the selected events one after the other, and records how far the replay has come.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hookhold::forward::RedriveError;
use indicatif::ProgressBar;
use tokio::runtime::Runtime;

use super::outlet::{ReplayOutlet, SETTLED_WITHIN, SettledEvents};
use super::pace::ReplayPace;
use super::progress_file::{self, ReplayState};
use super::report::ReplayReport;
use super::selected_events::SelectedEvents;
use super::stop_signal::StopSignal;

/// One run of a replay: it begins with the start or a resumption, and ends with the last event or an interruption.
pub(super) struct ReplayRun<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) stop: StopSignal,
    pub(super) outlet: ReplayOutlet,
    pub(super) pace: Option<ReplayPace>,
    /// Path of the progress file; `None` if the operator has named none.
    pub(super) file: Option<PathBuf>,
    pub(super) state: ReplayState,
    pub(super) bar: ProgressBar,
    pub(super) report: ReplayReport,
    /// Sequence below which every selected event has been sent.
    pub(super) unsent_from: u64,
    /// Number of events that were settled since the last write of the progress file, and the time of this write.
    pub(super) saved: (u64, Instant),
}

impl ReplayRun<'_> {
    /// Sends the events, and waits until they are settled. After the request to stop, waits only a short time. Then writes the
    /// progress file. The error says why the replay cannot continue.
    pub(super) fn run(&mut self, events: &mut SelectedEvents<'_>) -> Result<(), Box<dyn Error>> {
        self.save()?;
        let result = match self.send_all(events) {
            Ok(()) => self.settle_all(),
            // The Kafka client does not make progress, so its records in flight are not worth a wait.
            Err(error) if error.is::<RedriveError>() => Err(error),
            Err(error) => self.settle_all().and(Err(error)),
        };
        self.bar.finish_and_clear();
        let saved = self.save();
        result.and(saved)
    }

    fn send_all(&mut self, events: &mut SelectedEvents<'_>) -> Result<(), Box<dyn Error>> {
        while let Some(stored) = events.next()? {
            let seq = stored.position.seq;
            self.unsent_from = seq;
            while let Some(until) = self.not_before() {
                if self.stop.requested().is_some() {
                    return Ok(());
                }
                self.advance(until)?;
            }
            if self.stop.requested().is_some() {
                return Ok(());
            }
            let settled = self.outlet.send(stored, self.runtime, &mut self.stop)?;
            if settled.is_unsent {
                return Ok(());
            }
            self.unsent_from = seq + 1;
            self.settle(settled)?;
            self.advance(Instant::now())?;
        }
        self.unsent_from = self.state.end;
        Ok(())
    }

    /// Returns the time until which to wait before another attempt to send an event; `None` if one may be sent now, which then counts
    /// for the rate.
    fn not_before(&self) -> Option<Instant> {
        let next_look = Instant::now() + SLICE;
        if !self.outlet.has_room() {
            return Some(next_look);
        }
        self.pace.as_ref()?.next().map(|at| at.min(next_look))
    }

    /// Waits until all sent events are settled.
    fn settle_all(&mut self) -> Result<(), Box<dyn Error>> {
        let mut deadline = None;
        while self.outlet.first_unsettled().is_some() {
            let now = Instant::now();
            if self.stop.requested().is_some() && *deadline.get_or_insert(now + SETTLED_WITHIN) <= now {
                break;
            }
            self.advance(now + SLICE)?;
        }
        Ok(())
    }

    fn advance(&mut self, until: Instant) -> Result<(), Box<dyn Error>> {
        let settled = self.outlet.advance(until, self.runtime, &mut self.stop)?;
        self.settle(settled)
    }

    /// Counts settled events, and writes the progress file if it is time to.
    fn settle(&mut self, settled: SettledEvents) -> Result<(), Box<dyn Error>> {
        let SettledEvents { sent, rejected, skipped, .. } = settled;
        let count = sent + rejected.len() as u64 + u64::from(skipped.is_some());
        self.report.sent += sent;
        self.report.rejected += rejected.len() as u64;
        self.report.skipped += u64::from(skipped.is_some());
        for (position, error) in rejected {
            self.note(&format!("{position}: Kafka rejects the event: {error}"))?;
        }
        if let Some((_, what)) = skipped {
            self.note(&format!("{what}; skipped"))?;
        }
        self.bar.inc(count);
        self.saved.0 += count;
        if self.saved.0 >= SAVED_EVENTS || (self.saved.0 > 0 && self.saved.1.elapsed() >= SAVED_EVERY) {
            self.save()?;
        }
        Ok(())
    }

    fn note(&self, line: &str) -> std::io::Result<()> {
        self.bar.suspend(|| writeln!(anstream::stderr(), "{line}"))
    }

    fn save(&mut self) -> Result<(), Box<dyn Error>> {
        self.state.next = self.outlet.first_unsettled().unwrap_or(self.unsent_from);
        self.saved = (0, Instant::now());
        Ok(self.file.as_ref().map_or(Ok(()), |file| progress_file::write(file, &self.state))?)
    }
}

/// Longest wait before the replay looks for the request to stop.
const SLICE: Duration = Duration::from_millis(100);
/// Number of settled events, and the time, after which the progress file is written.
pub(super) const SAVED_EVENTS: u64 = 1_000;
const SAVED_EVERY: Duration = Duration::from_secs(1);
