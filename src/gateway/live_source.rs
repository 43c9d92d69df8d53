//! A source as deliveries find it: what it believes, its counters, and its secrets that are on their way out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::DefaultDirectRateLimiter;
use governor::clock::Clock;
use prometheus::{Gauge, IntCounter};

use super::success_rate::SuccessRate;
use crate::clock::UnixMillis;
use crate::metrics::DeliveryMetrics;
use crate::source::{Key, Source};
use crate::verify::Verifier;

/// A source with its counters and its rate limiter.
pub struct LiveSource {
    /// The compiled source.
    pub source: Arc<Source>,
    pub(super) verifier: Verifier,
    /// In the order of the source's secrets.
    secrets: Vec<Usage>,
    last_verified: Gauge,
    pub(super) keyless: IntCounter,
    /// Spent by genuine deliveries only: nobody else can use up a source's rate.
    rate: Option<Arc<DefaultDirectRateLimiter>>,
    pub(super) success: Arc<SuccessRate>,
    success_rate: Gauge,
}

/// How one secret fares.
struct Usage {
    verified: IntCounter,
    /// Another one stays valid for longer, so this one should not be needed any more.
    is_outlived: bool,
    /// Said that it is still in use.
    told_of_use: Arc<Daily>,
    /// Said that its end is near.
    told_of_end: Arc<Daily>,
}

/// An entrance for each source, by path. What the `former` ones have said is not said again; series of secrets that are gone
/// lose their expiry, those of sources that are gone their success share.
pub(super) fn all(
    sources: impl IntoIterator<Item = impl Into<Arc<Source>>>,
    former: &HashMap<String, Arc<LiveSource>>,
    metrics: &DeliveryMetrics,
) -> HashMap<String, Arc<LiveSource>> {
    let named: HashMap<&str, &LiveSource> = former.values().map(|entrance| (&*entrance.source.name, &**entrance)).collect();
    let entrance = |source: Arc<Source>| {
        let former = named.get(&*source.name).copied();
        (source.path.clone(), Arc::new(LiveSource::new(source, former, metrics)))
    };
    let entrances: HashMap<_, _> = sources.into_iter().map(|source| entrance(source.into())).collect();
    let gone = |source: &str, key: &Key| {
        let stays = |entrance: &Arc<LiveSource>| *entrance.source.name == *source && entrance.expiry_of(&key.name).is_some();
        !entrances.values().any(stays)
    };
    for (source, key) in
        former.values().flat_map(|entrance| entrance.source.secrets.iter().map(|key| (&entrance.source.name, key)))
    {
        if key.not_after.is_some() && gone(source, key) {
            drop(metrics.secret_expiry.remove_label_values(&[&**source, &*key.name]));
        }
    }
    for former in former.values().filter(|former| !entrances.values().any(|entrance| entrance.source.name == former.source.name))
    {
        drop(metrics.success_rate.remove_label_values(&[&*former.source.name]));
        drop(metrics.success_rate_threshold.remove_label_values(&[&*former.source.name]));
    }
    entrances
}

impl LiveSource {
    fn new(source: Arc<Source>, former: Option<&LiveSource>, metrics: &DeliveryMetrics) -> LiveSource {
        metrics.declare_source(&source.name);
        match source.recipe.limits.switches_off_at {
            Some(limit) => {
                metrics.success_rate_threshold.with_label_values(&[&*source.name]).set(f64::from(limit.percent) / 100.0)
            }
            None => drop(metrics.success_rate_threshold.remove_label_values(&[&*source.name])),
        }
        LiveSource {
            secrets: source.secrets.iter().map(|key| Usage::new(&source, key, former, metrics)).collect(),
            last_verified: metrics.last_verified.with_label_values(&[&*source.name]),
            keyless: metrics.keyless.with_label_values(&[&*source.name]),
            rate: LiveSource::rate(&source, former),
            success: LiveSource::success(&source, former),
            success_rate: metrics.success_rate.with_label_values(&[&*source.name]),
            verifier: Verifier::new(source.clone()),
            source,
        }
    }

    /// What is left of a rate that stays the same is not given anew.
    fn rate(source: &Source, former: Option<&LiveSource>) -> Option<Arc<DefaultDirectRateLimiter>> {
        let new = || source.max_rate.map(|rate| Arc::new(DefaultDirectRateLimiter::direct(rate.quota())));
        former.filter(|former| former.source.max_rate == source.max_rate).map_or_else(new, |former| former.rate.clone())
    }

    /// A window that stays the same is not begun anew.
    fn success(source: &Source, former: Option<&LiveSource>) -> Arc<SuccessRate> {
        let window = |source: &Source| source.recipe.limits.switches_off_at.map_or(HOUR, |limit| limit.within);
        let same = former.filter(|former| window(&former.source) == window(source));
        same.map_or_else(|| SuccessRate::over(window(source)), |former| former.success.clone())
    }

    /// Brings the gauge of the success share up to date.
    pub(super) fn measure(&self, now: UnixMillis) {
        self.success_rate.set(self.success.at(now));
    }

    /// The time after which one more genuine delivery would be taken; `None`: now.
    pub(super) fn too_many(&self) -> Option<Duration> {
        let limiter = self.rate.as_ref()?;
        limiter.check().err().map(|too_early| too_early.wait_time_from(limiter.clock().now()))
    }

    /// Counts a delivery that this secret has verified. Says so, at most once a day, when another should be in use.
    pub(super) fn count(&self, secret: &str, now: UnixMillis) {
        self.last_verified.set(now.0 as f64 / 1000.0);
        let Some((key, usage)) = self.secrets().find(|(key, _)| *key.name == *secret) else { return };
        usage.verified.inc();
        if let Some(end) = key.not_after.filter(|_| usage.is_outlived && usage.told_of_use.is_due(now)) {
            let (source, not_after) = (&*self.source.name, end.rfc3339());
            tracing::warn!(source, secret, not_after, "an old secret is still in use: has the sender been given the new one?");
        }
    }

    /// Warns of each secret whose end is near or over, at most once a day.
    pub(super) fn warn_of_expiry(&self, now: UnixMillis) {
        for (key, usage) in self.secrets() {
            let Some(end) = key.not_after.filter(|end| end.since(now) <= NEAR_MS && usage.told_of_end.is_due(now)) else {
                continue;
            };
            let (source, secret, not_after) = (&*self.source.name, &*key.name, end.rfc3339());
            if !key.is_valid_at(now) {
                tracing::warn!(source, secret, not_after, "the secret has expired and verifies nothing: take it out");
            } else if usage.is_outlived {
                tracing::warn!(source, secret, not_after, "the secret expires soon; the sender must use the new one by then");
            } else {
                tracing::warn!(source, secret, not_after, "the secret expires soon, and no other is valid for longer");
            }
        }
    }

    fn secrets(&self) -> impl Iterator<Item = (&Key, &Usage)> {
        self.source.secrets.iter().zip(&self.secrets)
    }

    fn expiry_of(&self, secret: &str) -> Option<UnixMillis> {
        self.source.secrets.iter().find(|key| *key.name == *secret)?.not_after
    }
}

impl Usage {
    fn new(source: &Source, key: &Key, former: Option<&LiveSource>, metrics: &DeliveryMetrics) -> Usage {
        let labels = [&*source.name, &*key.name];
        if let Some(end) = key.not_after {
            metrics.secret_expiry.with_label_values(&labels).set(end.0 as f64 / 1000.0);
        }
        let same =
            former.and_then(|former| former.secrets().find(|(old, _)| old.name == key.name && old.not_after == key.not_after));
        let (told_of_use, told_of_end) =
            same.map(|(_, usage)| (usage.told_of_use.clone(), usage.told_of_end.clone())).unwrap_or_default();
        Usage {
            verified: metrics.verified.with_label_values(&labels),
            is_outlived: source.secrets.iter().any(|other| key.is_outlived_by(other)),
            told_of_use,
            told_of_end,
        }
    }
}

/// True once a day.
#[derive(Default)]
struct Daily(AtomicU64);

impl Daily {
    fn is_due(&self, now: UnixMillis) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || now.since(UnixMillis(last)) >= DAY_MS;
        due && self.0.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The window of the success share where the recipe names none.
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Warnings begin two weeks before a secret expires: time for a change that somebody else has to make.
const NEAR_MS: u64 = 14 * DAY_MS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_said_again_a_day_later_and_not_before() {
        let (daily, start) = (Daily::default(), 1_700_000_000_000);
        let said = [0, 1, DAY_MS - 1, DAY_MS, DAY_MS + 1, 2 * DAY_MS].map(|later| daily.is_due(UnixMillis(start + later)));
        assert_eq!(said, [true, false, false, true, false, true]);
    }
}
