//! Every request ends here exactly once: counted, timed, and written down.
//!
//! The metric children of a source are looked up at its first request, then never again. Accepted deliveries are logged
//! at debug level. Rejections are warnings, sampled per source and outcome, with the sender's address and a hint for the
//! operator; so a flood of them costs neither the disk nor the reader. What is kept out of the log is counted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntCounter};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::metrics::{Metrics, NO_SOURCE};
use crate::outcome::Outcome;

/// The tallies of every source, and of what belongs to none.
pub(super) struct Tallies {
    /// Grows with the sources that a reload adds; their names come from the configuration.
    sources: ArcSwap<HashMap<Arc<str>, Arc<Tally>>>,
    metrics: Arc<Metrics>,
    /// What belongs to no source.
    pub(super) stray: Arc<Tally>,
}

impl Tallies {
    pub(super) fn new(metrics: Arc<Metrics>) -> Tallies {
        let stray = Arc::new(Tally::new(NO_SOURCE.into(), &metrics));
        Tallies { sources: ArcSwap::default(), metrics, stray }
    }

    /// The tally of a configured source.
    pub(super) fn of(&self, source: &Arc<str>) -> Arc<Tally> {
        if let Some(tally) = self.sources.load().get(source) {
            return tally.clone();
        }
        let tally = Arc::new(Tally::new(source.clone(), &self.metrics));
        self.sources.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.entry(source.clone()).or_insert_with(|| tally.clone());
            known
        });
        // Two first requests at the same moment share the one that came first.
        self.sources.load().get(source).cloned().unwrap_or(tally)
    }
}

/// Counters, histogram and log samplers of one source.
pub(super) struct Tally {
    source: Arc<str>,
    endings: Vec<Ending>,
    duration: Histogram,
    suppressed: IntCounter,
}

struct Ending {
    count: IntCounter,
    sampler: Sampler,
}

impl Tally {
    fn new(source: Arc<str>, metrics: &Metrics) -> Tally {
        metrics.deliveries.declare_source(&source);
        let ending = |outcome: &Outcome| Ending {
            count: metrics.deliveries.total.with_label_values(&[&*source, outcome.word()]),
            sampler: Sampler::new(),
        };
        Tally {
            endings: Outcome::ALL.iter().map(ending).collect(),
            duration: metrics.deliveries.duration_seconds.with_label_values(&[&*source]),
            suppressed: metrics.deliveries.rejected_log_suppressed.clone(),
            source,
        }
    }

    /// Opens the record of one request that began at `began`.
    pub(super) fn open(self: &Arc<Tally>, remote: SocketAddr, began: Instant) -> Record {
        Record { tally: Some(self.clone()), remote, began }
    }

    fn note(&self, answer: &Answer, remote: SocketAddr, began: Instant, now: Instant) {
        let ending = &self.endings[answer.outcome as usize];
        ending.count.inc();
        self.duration.observe((now - began).as_secs_f64());
        let (source, outcome, status) = (&*self.source, answer.outcome.word(), answer.status.as_u16());
        if !is_refusal(answer.outcome) {
            tracing::debug!(source, outcome, status, %remote, seq = answer.seq, hint = %answer.hint, "delivery");
        } else if let Some(suppressed) = ending.sampler.admit(now) {
            tracing::warn!(source, outcome, status, %remote, suppressed, hint = %answer.hint, "refused");
        } else {
            self.suppressed.inc();
        }
    }
}

/// A request whose ending has not been written down yet. Dropping it says that its sender had left.
pub(super) struct Record {
    tally: Option<Arc<Tally>>,
    remote: SocketAddr,
    began: Instant,
}

impl Record {
    /// Writes the ending down.
    pub(super) fn close(mut self, answer: &Answer, now: Instant) {
        self.end(answer, now);
    }

    fn end(&mut self, answer: &Answer, now: Instant) {
        if let Some(tally) = self.tally.take() {
            tally.note(answer, self.remote, self.began, now);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.tally.is_some() {
            let answer = Answer::plain(Outcome::Disconnected).with_hint("the connection ended before the answer");
            self.end(&answer, Instant::now());
        }
    }
}

fn is_refusal(outcome: Outcome) -> bool {
    !outcome.is_accepted() && outcome != Outcome::Challenge
}

/// Lets [`BURST`] lines through at once and then one per [`PACE`].
pub(super) struct Sampler(Mutex<Bucket>);

struct Bucket {
    /// When the bucket would be full again if nothing more came.
    full_at: Option<Instant>,
    suppressed: u64,
}

impl Sampler {
    pub(super) fn new() -> Sampler {
        Sampler(Mutex::new(Bucket { full_at: None, suppressed: 0 }))
    }

    /// Says whether a line may be written now, and how many were suppressed before it.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = bucket.full_at.map_or(now, |at| at.max(now)) + PACE;
        if full_at > now + BURST * PACE {
            bucket.suppressed += 1;
            return None;
        }
        bucket.full_at = Some(full_at);
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

const BURST: u32 = 5;
const PACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_index_their_own_counter() {
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
    }

    #[test]
    fn a_flood_of_refusals_logs_five_lines_and_then_one_a_second() {
        let (sampler, start) = (Sampler::new(), Instant::now());
        let lines = |at: Instant| (0..100).filter_map(|_| sampler.admit(at)).collect::<Vec<_>>();
        assert_eq!(lines(start), [0; 5]);
        assert_eq!(lines(start + PACE), [95]);
        assert_eq!(lines(start + 60 * PACE), [99, 0, 0, 0, 0]);
    }

    #[test]
    fn a_request_that_is_dropped_ends_as_disconnected() {
        let metrics = Arc::new(Metrics::new());
        let tallies = Tallies::new(metrics.clone());
        drop(tallies.of(&"stripe".into()).open(SocketAddr::from(([127, 0, 0, 1], 1)), Instant::now()));
        assert_eq!(metrics.deliveries.total.with_label_values(&["stripe", "disconnected"]).get(), 1);
    }
}
