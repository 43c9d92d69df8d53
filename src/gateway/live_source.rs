//! Holds the runtime state of a source: verifier, counters, rate limiter, and warnings about expiring secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::DefaultDirectRateLimiter;
use governor::clock::Clock;
use prometheus::{Gauge, IntCounter};

use super::differing::DifferingDuplicates;
use super::fingerprint::Accounts;
use super::success_rate::SuccessRate;
use crate::clock::UnixMillis;
use crate::journal::JournalMillis;
use crate::metrics::DeliveryMetrics;
use crate::outcome::Outcome;
use crate::source::{Key, Source};
use crate::verify::{UnreadBody, Verifier};

/// Source with its verifier, its counters and its rate limiter.
pub struct LiveSource {
    /// Source, compiled from the configuration.
    pub source: Arc<Source>,
    /// The verifier of the source's deliveries.
    pub verifier: Verifier,
    /// Counter and warnings of each secret, in the order of the source's secrets.
    secrets: Vec<SecretUse>,
    last_verified: Gauge,
    pub(super) accounts: Accounts,
    pub(super) differing: DifferingDuplicates,
    pub(super) keyless: IntCounter,
    /// Counters of verified deliveries whose compressed body the verifier could not read, in the order of [`UnreadBody::ALL`].
    unread: [IntCounter; UnreadBody::ALL.len()],
    pub(super) batch_items: BatchItemCounters,
    /// Rate limiter that counts only verified deliveries, so that forged deliveries cannot use up the source's rate. `None`
    /// if the source sets no `max_rate`.
    rate_limiter: Option<Arc<DefaultDirectRateLimiter>>,
    pub(super) success_rate: Arc<SuccessRate>,
    success_rate_gauge: Gauge,
}

/// Counters of the items of split batches.
pub(super) struct BatchItemCounters {
    pub(super) stored: IntCounter,
    pub(super) duplicate: IntCounter,
    pub(super) filtered: IntCounter,
}

impl BatchItemCounters {
    fn new(source: &str, metrics: &DeliveryMetrics) -> BatchItemCounters {
        let counter = |outcome: Outcome| metrics.batch_items.with_label_values(&[source, outcome.word()]);
        BatchItemCounters {
            stored: counter(Outcome::Stored),
            duplicate: counter(Outcome::Duplicate),
            filtered: counter(Outcome::Filtered),
        }
    }
}

/// State of one secret: its counter of verified deliveries and its daily warnings.
struct SecretUse {
    verified: IntCounter,
    /// True if another secret of the source expires later or never. Senders should then use the other secret.
    is_outlived: bool,
    use_warning: Arc<DailyWarning>,
    expiry_warning: Arc<DailyWarning>,
}

/// Deletes the metrics of `previous` that the reload made obsolete. `current` is the new source with the same name, or
/// `None` if the reload removed the source.
pub(super) fn delete_series(previous: &LiveSource, current: Option<&Arc<LiveSource>>, metrics: &DeliveryMetrics) {
    let name = &*previous.source.name;
    let expires = |secret: &Key| current.is_some_and(|live| live.expiry_of(&secret.name).is_some());
    for secret in previous.source.keys.iter().filter(|secret| secret.not_after.is_some() && !expires(secret)) {
        drop(metrics.secret_expiry.remove_label_values(&[name, &*secret.name]));
    }
    if current.is_none() {
        drop(metrics.last_verified.remove_label_values(&[name]));
        drop(metrics.success_rate.remove_label_values(&[name]));
        drop(metrics.success_rate_threshold.remove_label_values(&[name]));
    }
}

impl LiveSource {
    /// Creates the state of a source. `previous` is the source with the same name before a reload.
    pub(super) fn new(
        source: Arc<Source>,
        previous: Option<&LiveSource>,
        hash_key: &[u8; 16],
        metrics: &DeliveryMetrics,
    ) -> LiveSource {
        let name = &*source.name;
        metrics.declare_source(name);
        for effect in source.recipe.challenges.iter().filter_map(|challenge| challenge.effect.as_ref()) {
            metrics.challenge_effects.with_label_values(&[name, effect.kind.word()]);
        }
        match source.recipe.limits.switches_off_at {
            Some(limit) => metrics.success_rate_threshold.with_label_values(&[name]).set(f64::from(limit.percent) / 100.0),
            None => drop(metrics.success_rate_threshold.remove_label_values(&[name])),
        }
        LiveSource {
            secrets: source.keys.iter().map(|secret| SecretUse::new(&source, secret, previous, metrics)).collect(),
            last_verified: metrics.last_verified.with_label_values(&[name]),
            accounts: Accounts::of(hash_key, &source, previous.map(|previous| &previous.accounts)),
            differing: DifferingDuplicates::new(&source.name, metrics),
            keyless: metrics.keyless.with_label_values(&[name]),
            unread: UnreadBody::ALL.map(|reason| metrics.unread_bodies.with_label_values(&[name, reason.word()])),
            batch_items: BatchItemCounters::new(name, metrics),
            rate_limiter: LiveSource::rate_limiter(&source, previous),
            success_rate: LiveSource::success_rate(&source, previous),
            success_rate_gauge: metrics.success_rate.with_label_values(&[name]),
            verifier: Verifier::new(source.clone()),
            source,
        }
    }

    /// Returns the rate limiter of a source, or `None` if the source sets no `max_rate`. Reuses the previous limiter if the
    /// rate is unchanged, so that a reload does not refill the limiter.
    fn rate_limiter(source: &Source, previous: Option<&LiveSource>) -> Option<Arc<DefaultDirectRateLimiter>> {
        let new = || source.max_rate.map(|rate| Arc::new(DefaultDirectRateLimiter::direct(rate.quota())));
        let unchanged = previous.filter(|previous| previous.source.max_rate == source.max_rate);
        unchanged.map_or_else(new, |previous| previous.rate_limiter.clone())
    }

    /// Returns the counts for the success rate of a source. Reuses the previous counts if the period is unchanged, so that
    /// a reload does not reset the counts.
    fn success_rate(source: &Source, previous: Option<&LiveSource>) -> Arc<SuccessRate> {
        let period = |source: &Source| source.recipe.limits.switches_off_at.map_or(DEFAULT_PERIOD, |limit| limit.within);
        let unchanged = previous.filter(|previous| period(&previous.source) == period(source));
        unchanged.map_or_else(|| SuccessRate::over(period(source)), |previous| previous.success_rate.clone())
    }

    /// Sets the metric `hookhold_success_rate` of this source to the rate at `now`.
    pub(super) fn update_metrics(&self, now: JournalMillis) {
        self.success_rate_gauge.set(self.success_rate.at(now));
    }

    /// Counts one verified delivery against `max_rate`. If the delivery exceeds the rate, returns the time that the sender must
    /// wait before a retry; otherwise returns `None`.
    pub(super) fn wait_for_rate(&self) -> Option<Duration> {
        let limiter = self.rate_limiter.as_ref()?;
        limiter.check().err().map(|not_until| not_until.wait_time_from(limiter.clock().now()))
    }

    /// Counts a delivery that hookhold verified with the secret named `secret`. At most once a day, logs a warning if another
    /// secret of the source expires later or never.
    pub(super) fn count_verified(&self, secret: Option<&str>, now: UnixMillis) {
        self.last_verified.set(now.0 as f64 / 1000.0);
        let Some(secret) = secret else { return };
        let Some((key, secret_use)) = self.secrets().find(|(key, _)| *key.name == *secret) else { return };
        secret_use.verified.inc();
        if let Some(end) = key.not_after.filter(|_| secret_use.is_outlived && secret_use.use_warning.is_due(now)) {
            let (source, not_after) = (&*self.source.name, end.rfc3339());
            tracing::warn!(
                source,
                secret,
                not_after,
                "an old secret is still in use; enter the new secret in the sender's dashboard"
            );
        }
    }

    /// Counts a verified delivery whose compressed body the verifier could not read.
    pub(super) fn count_unread(&self, unread: Option<UnreadBody>) {
        let counters = UnreadBody::ALL.iter().zip(&self.unread);
        counters.filter(|(reason, _)| Some(**reason) == unread).for_each(|(_, counter)| counter.inc());
    }

    /// Logs a warning about each secret that expires soon or has expired, at most once a day per secret.
    pub(super) fn warn_of_expiry(&self, now: UnixMillis) {
        for (key, secret_use) in self.secrets() {
            let is_due = |end: &UnixMillis| end.since(now) <= WARNING_MS && secret_use.expiry_warning.is_due(now);
            let Some(end) = key.not_after.filter(is_due) else { continue };
            let (source, secret, not_after) = (&*self.source.name, &*key.name, end.rfc3339());
            if !key.is_valid_at(now) {
                tracing::warn!(source, secret, not_after, "the secret has expired and no longer verifies deliveries; remove it");
            } else if secret_use.is_outlived {
                tracing::warn!(source, secret, not_after, "the secret expires soon; switch the sender to the new secret");
            } else {
                tracing::warn!(
                    source,
                    secret,
                    not_after,
                    "the secret expires soon, and no other secret is valid for longer; add a new secret"
                );
            }
        }
    }

    fn secrets(&self) -> impl Iterator<Item = (&Key, &SecretUse)> {
        self.source.keys.iter().zip(&self.secrets)
    }

    /// Returns true if a secret of the source expires.
    pub(super) fn has_expiring_secret(&self) -> bool {
        self.source.keys.iter().any(|key| key.not_after.is_some())
    }

    fn expiry_of(&self, secret: &str) -> Option<UnixMillis> {
        self.source.keys.iter().find(|key| *key.name == *secret)?.not_after
    }
}

impl SecretUse {
    fn new(source: &Source, key: &Key, previous: Option<&LiveSource>, metrics: &DeliveryMetrics) -> SecretUse {
        let labels = [&*source.name, &*key.name];
        if let Some(end) = key.not_after {
            metrics.secret_expiry.with_label_values(&labels).set(end.0 as f64 / 1000.0);
        }
        let is_same = |old: &Key| old.name == key.name && old.not_after == key.not_after;
        let same = previous.and_then(|previous| previous.secrets().find(|(old, _)| is_same(old)));
        let warnings = |(_, same): (_, &SecretUse)| (same.use_warning.clone(), same.expiry_warning.clone());
        let (use_warning, expiry_warning) = same.map(warnings).unwrap_or_default();
        SecretUse {
            verified: metrics.verified.with_label_values(&labels),
            is_outlived: source.keys.iter().any(|other| key.is_outlived_by(other)),
            use_warning,
            expiry_warning,
        }
    }
}

/// Time of the last warning, Unix milliseconds; 0 before the first warning. Limits a warning to once a day.
#[derive(Default)]
struct DailyWarning(AtomicU64);

impl DailyWarning {
    fn is_due(&self, now: UnixMillis) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        // If the last warning is in the future, the wall clock was wrong at that time.
        let is_due = last == 0 || now.0.abs_diff(last) >= DAY_MS;
        is_due && self.0.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Period over which hookhold measures the success rate of a source if the recipe sets no period.
const DEFAULT_PERIOD: Duration = Duration::from_secs(60 * 60);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Time from the first warning to the expiry of a secret, in milliseconds. The time is two weeks, because another team may
/// have to replace the secret.
const WARNING_MS: u64 = 14 * DAY_MS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daily_warning_is_due_once_a_day() {
        let (warning, start) = (DailyWarning::default(), 1_700_000_000_000);
        let due = [0, 1, DAY_MS - 1, DAY_MS, DAY_MS + 1, 2 * DAY_MS].map(|later| warning.is_due(UnixMillis(start + later)));
        assert_eq!(due, [true, false, false, true, false, true]);
    }

    #[test]
    fn a_daily_warning_survives_a_clock_that_was_ahead() {
        let (warning, start) = (DailyWarning::default(), 1_700_000_000_000);
        let due = [365 * DAY_MS, 3_000, DAY_MS, DAY_MS + 3_000].map(|later| warning.is_due(UnixMillis(start + later)));
        assert_eq!(due, [true, true, false, true], "a warning in the future does not silence the present");
    }
}
