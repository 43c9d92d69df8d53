//! Adds the outcome of every request exactly once to a counter, to the duration histogram and to the log.
//!
//! hookhold looks up the metric series of a source once, at the first request for that source. hookhold logs accepted
//! deliveries at debug level, and rejections as warnings with the sender's address and a hint for the operator. One
//! sampler per source and outcome limits the number of warnings, and a metric counts the suppressed warnings.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntCounter, IntCounterVec};
use tokio::time::Instant;

use super::log_sampler::LogSampler;
use crate::answer::{Answer, AnswerWatcher, Effect, EffectKind};
use crate::metrics::{Metrics, NO_SOURCE};
use crate::outcome::Outcome;
use crate::rejections::is_explained_by_delivery;

/// Log of the outcomes of all requests, for all sources.
pub(super) struct OutcomeLog {
    /// Counters, histograms and log samplers by source name. The map contains only sources that are or were configured,
    /// so requests to unknown paths cannot make the map grow.
    sources: ArcSwap<HashMap<Arc<str>, Arc<SourceOutcomes>>>,
    metrics: Arc<Metrics>,
    watcher: Option<Arc<dyn AnswerWatcher>>,
    /// Counters, histogram and log samplers for requests that belong to no source.
    pub(super) no_source: Arc<SourceOutcomes>,
}

impl OutcomeLog {
    /// Creates a log without sources. `watcher` receives every answer.
    pub(super) fn new(metrics: Arc<Metrics>, watcher: Option<Arc<dyn AnswerWatcher>>) -> OutcomeLog {
        let no_source = Arc::new(SourceOutcomes::new(NO_SOURCE.into(), &metrics, watcher.clone()));
        OutcomeLog { sources: ArcSwap::default(), metrics, watcher, no_source }
    }

    /// Returns the counters, histogram and log samplers of a configured source.
    pub(super) fn source(&self, name: &Arc<str>) -> Arc<SourceOutcomes> {
        if let Some(outcomes) = self.sources.load().get(name) {
            return outcomes.clone();
        }
        let outcomes = Arc::new(SourceOutcomes::new(name.clone(), &self.metrics, self.watcher.clone()));
        self.sources.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.entry(name.clone()).or_insert_with(|| outcomes.clone());
            known
        });
        // If the first two requests for a source are concurrent, both use the entry that was inserted first.
        self.sources.load().get(name).cloned().unwrap_or(outcomes)
    }
}

/// Counters, histogram and log samplers of one source.
pub(super) struct SourceOutcomes {
    source: Arc<str>,
    /// Counter of each outcome, in the order of [`Outcome::ALL`].
    counters: Vec<OutcomeCounter>,
    duration: Histogram,
    received_bytes: IntCounter,
    suppressed: IntCounter,
    /// Counters of the actions that endpoint challenges asked for, and the sampler of their log lines. Any sender can send an
    /// unsigned challenge.
    effects: IntCounterVec,
    effect_sampler: LogSampler,
    watcher: Option<Arc<dyn AnswerWatcher>>,
}

struct OutcomeCounter {
    count: IntCounter,
    sampler: LogSampler,
}

impl SourceOutcomes {
    fn new(source: Arc<str>, metrics: &Metrics, watcher: Option<Arc<dyn AnswerWatcher>>) -> SourceOutcomes {
        metrics.deliveries.declare_source(&source);
        let counter = |outcome: &Outcome| OutcomeCounter {
            count: metrics.deliveries.total.with_label_values(&[&*source, outcome.word()]),
            sampler: LogSampler::new(),
        };
        SourceOutcomes {
            counters: Outcome::ALL.iter().map(counter).collect(),
            duration: metrics.deliveries.duration_seconds.with_label_values(&[&*source]),
            received_bytes: metrics.deliveries.received_bytes.with_label_values(&[&*source]),
            suppressed: metrics.deliveries.rejected_log_suppressed.clone(),
            effects: metrics.deliveries.challenge_effects.clone(),
            effect_sampler: LogSampler::new(),
            watcher,
            source,
        }
    }

    /// Returns a [`PendingOutcome`] for a request whose first byte arrived at `start`.
    pub(super) fn start(self: &Arc<SourceOutcomes>, remote: SocketAddr, start: Instant) -> PendingOutcome {
        PendingOutcome { outcomes: Some(self.clone()), remote, start }
    }

    fn record(&self, answer: &Answer, remote: SocketAddr, start: Instant, now: Instant) {
        let counter = &self.counters[answer.outcome as usize];
        counter.count.inc();
        self.duration.observe((now - start).as_secs_f64());
        if let Some(watcher) = &self.watcher {
            watcher.answered(&self.source, remote, answer);
        }
        if let Some(effect) = &answer.effect {
            self.report(effect, remote, now);
        }
        let (source, outcome, status) = (&*self.source, answer.outcome.word(), answer.status.as_u16());
        if !is_rejection(answer.outcome) {
            tracing::debug!(source, outcome, status, %remote, seq = answer.seq, hint = %answer.hint, "delivery");
        } else if let Some(suppressed) = counter.sampler.admit(now) {
            let explain = self.explain(answer.outcome);
            tracing::warn!(source, outcome, status, %remote, suppressed, hint = %answer.hint, explain, "rejected");
        } else {
            self.suppressed.inc();
        }
    }

    /// Returns the command that explains a rejection to the operator; `None` if the delivery alone does not explain it.
    fn explain(&self, outcome: Outcome) -> Option<String> {
        let is_explained = is_explained_by_delivery(outcome) && *self.source != *NO_SOURCE;
        is_explained.then(|| format!("hookhold doctor {}", self.source))
    }

    /// Counts the bytes of a request body.
    pub(super) fn count_received(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    /// Counts and logs the action that an endpoint challenge asks for.
    fn report(&self, effect: &Effect, remote: SocketAddr, now: Instant) {
        self.effects.with_label_values(&[&*self.source, effect.kind.word()]).inc();
        let Some(suppressed) = self.effect_sampler.admit(now) else { return };
        let (source, kind, verified) = (&*self.source, effect.kind.word(), effect.is_verified);
        let text = match effect.kind {
            EffectKind::LearnSecret => "",
            EffectKind::VisitUrl | EffectKind::Report => &effect.text,
        };
        let text = text.escape_debug();
        let hint = match effect.kind {
            EffectKind::LearnSecret => SECRET_OFFERED,
            EffectKind::VisitUrl => URL_TO_VISIT,
            EffectKind::Report => REPORTED,
        };
        tracing::warn!(source, effect = kind, verified, %remote, suppressed, %text, "{hint}");
    }
}

/// Request whose outcome hookhold has not yet recorded. Dropping this value records the outcome `disconnected`.
pub(super) struct PendingOutcome {
    outcomes: Option<Arc<SourceOutcomes>>,
    remote: SocketAddr,
    start: Instant,
}

impl PendingOutcome {
    pub(super) fn record(mut self, answer: &Answer, now: Instant) {
        self.finish(answer, now);
    }

    fn finish(&mut self, answer: &Answer, now: Instant) {
        if let Some(outcomes) = self.outcomes.take() {
            outcomes.record(answer, self.remote, self.start, now);
        }
    }
}

impl Drop for PendingOutcome {
    fn drop(&mut self) {
        if self.outcomes.is_some() {
            let answer = Answer::plain(Outcome::Disconnected)
                .with_hint("connection: expected to stay open until the response, found a disconnect");
            self.finish(&answer, Instant::now());
        }
    }
}

fn is_rejection(outcome: Outcome) -> bool {
    !outcome.is_accepted() && outcome != Outcome::Challenge
}

const SECRET_OFFERED: &str = "an endpoint challenge contains the secret of its sender, which hookhold does not store; add the \
                              secret to the source before the sender uses it";
const URL_TO_VISIT: &str =
    "an endpoint challenge asks to open a URL, which hookhold does not open; open the URL if you expect this challenge";
const REPORTED: &str = "an endpoint challenge contains a text for the operator";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_the_index_of_its_counter() {
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
    }

    #[test]
    fn a_dropped_request_is_recorded_as_disconnected() {
        let metrics = Arc::new(Metrics::new());
        let outcomes = OutcomeLog::new(metrics.clone(), None);
        drop(outcomes.source(&"stripe".into()).start(SocketAddr::from(([127, 0, 0, 1], 1)), Instant::now()));
        assert_eq!(metrics.deliveries.total.with_label_values(&["stripe", "disconnected"]).get(), 1);
    }
}
