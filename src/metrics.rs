//! Every metric of hookhold, declared once with help text and unit. A label value comes from the configuration or from a
//! closed set, never from the network: an unknown path counts under `source="-"`.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

use crate::outcome::Outcome;

/// The source label of what belongs to no configured source.
pub const NO_SOURCE: &str = "-";

/// All metrics; cheap to share behind an `Arc`.
pub struct Metrics {
    registry: Registry,
    /// Deliveries by source and outcome.
    pub deliveries: IntCounterVec,
    /// Seconds from the first byte of a request to its answer, by source.
    pub delivery_duration: HistogramVec,
    /// Verified deliveries by source and secret name.
    pub verified: IntCounterVec,
    /// Unix time in seconds after which a secret verifies nothing, by source and secret name; only for those that expire.
    pub secret_expiry: GaugeVec,
    /// 1 when the last reload of the configuration, or the start, succeeded; 0 when it was refused.
    pub config_reloaded: IntGauge,
    /// Unix time in seconds of the last one that succeeded.
    pub config_reloaded_at: Gauge,
    /// Unix time in seconds of the last verified delivery, by source.
    pub last_verified: GaugeVec,
    /// Share of signed deliveries answered 2xx within the provider's window, by source; not a number without any.
    pub success_rate: GaugeVec,
    /// The share at which the provider switches the endpoint off, by source; absent where it is not documented.
    pub success_rate_threshold: GaugeVec,
    /// Events kept although their sender had been answered `deadline` or had left.
    pub stored_after_answer: IntCounter,
    /// Events kept that nothing can ever be a repeat of, by source.
    pub keyless: IntCounterVec,
    /// Seconds that one sync of the journal took.
    pub journal_sync: Histogram,
    /// Events in one commit.
    pub journal_batch: Histogram,
    /// Bytes that the journal's segments occupy.
    pub journal_bytes: IntGauge,
    /// Bytes that they may occupy (`max_size`).
    pub journal_limit: IntGauge,
    /// Events that the journal holds.
    pub journal_events: IntGauge,
    /// Bytes that a lane keeps from being deleted, by topic.
    pub journal_pinned: IntGaugeVec,
    /// Frames or ranges found damaged below the durable mark.
    pub journal_damaged: IntCounter,
    /// Seen keys that are answered from memory: those of unsealed segments, and the hot cache.
    pub dedupe_hot_keys: IntGauge,
    /// Keys forgotten before their window ended, by cause.
    pub dedupe_evicted: IntCounterVec,
    /// Events that Kafka acknowledged, by topic.
    pub forward_acked: IntCounterVec,
    /// Durable events of a lane that Kafka has not acknowledged, by topic.
    pub forward_lag_events: IntGaugeVec,
    /// Age in seconds of the oldest of them, by topic; 0 without any.
    pub forward_lag_seconds: GaugeVec,
    /// 1 while a lane is blocked, by topic and reason.
    pub forward_blocked: IntGaugeVec,
    /// Kafka producers replaced, by reason.
    pub producer_rebuilds: IntCounterVec,
    /// Connections closed as soon as they came, by cause.
    pub connections_rejected: IntCounterVec,
    /// Addresses that have something open, or that are remembered for what they sent.
    pub addresses_tracked: IntGauge,
    /// Unix time in seconds at which the served TLS certificate expires; absent without TLS.
    pub certificate_expiry: IntGaugeVec,
    /// Rejections not logged because of sampling.
    pub rejected_log_suppressed: IntCounter,
}

impl Metrics {
    /// Declares and registers everything, with `hookhold_build_info` and `process_*`.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Metrics {
            deliveries: counters(r, "hookhold_deliveries_total", "Deliveries by source and outcome.", &["source", "outcome"]),
            delivery_duration: register(
                r,
                HistogramVec::new(
                    HistogramOpts::new(
                        "hookhold_delivery_duration_seconds",
                        "Seconds from the first byte of a delivery to its answer.",
                    )
                    .buckets(LATENCY_BUCKETS.to_vec()),
                    &["source"],
                ),
            ),
            verified: counters(
                r,
                "hookhold_verified_total",
                "Verified deliveries by source and the secret that verified them.",
                &["source", "secret"],
            ),
            secret_expiry: register(
                r,
                GaugeVec::new(
                    Opts::new(
                        "hookhold_secret_expiry_timestamp_seconds",
                        "Unix time from which a secret verifies nothing any more.",
                    ),
                    &["source", "secret"],
                ),
            ),
            config_reloaded: gauge(
                r,
                "hookhold_config_last_reload_successful",
                "1 when the last reload of the configuration succeeded, 0 when it was refused.",
            ),
            config_reloaded_at: register(
                r,
                Gauge::new(
                    "hookhold_config_last_reload_success_timestamp_seconds",
                    "Unix time of the last reload of the configuration, or of the start.",
                ),
            ),
            last_verified: register(
                r,
                GaugeVec::new(
                    Opts::new("hookhold_last_verified_timestamp_seconds", "Unix time of the last verified delivery."),
                    &["source"],
                ),
            ),
            success_rate: register(
                r,
                GaugeVec::new(
                    Opts::new("hookhold_success_rate", "Share of signed deliveries answered 2xx in the provider's window."),
                    &["source"],
                ),
            ),
            success_rate_threshold: register(
                r,
                GaugeVec::new(
                    Opts::new("hookhold_success_rate_threshold", "Share at which the provider switches the endpoint off."),
                    &["source"],
                ),
            ),
            stored_after_answer: counter(
                r,
                "hookhold_stored_after_answer_total",
                "Events kept although their sender had been answered deadline or had left.",
            ),
            keyless: counters(
                r,
                "hookhold_keyless_total",
                "Events kept that nothing can ever be recognised as a repeat of.",
                &["source"],
            ),
            journal_sync: histogram(
                r,
                "hookhold_journal_sync_seconds",
                "Seconds that one sync of the journal took.",
                SYNC_BUCKETS,
            ),
            journal_batch: histogram(r, "hookhold_journal_batch_events", "Events in one commit.", BATCH_BUCKETS),
            journal_bytes: gauge(r, "hookhold_journal_bytes", "Bytes that the journal's segments occupy."),
            journal_limit: gauge(r, "hookhold_journal_limit_bytes", "Bytes that the journal's segments may occupy."),
            journal_events: gauge(r, "hookhold_journal_events", "Events that the journal holds."),
            journal_pinned: gauges(r, "hookhold_journal_pinned_bytes", "Bytes that a lane keeps from being deleted.", &["topic"]),
            journal_damaged: counter(
                r,
                "hookhold_journal_damaged_total",
                "Damaged ranges found below the journal's durable mark.",
            ),
            dedupe_hot_keys: gauge(r, "hookhold_dedupe_hot_keys", "Seen keys that are answered from memory."),
            dedupe_evicted: counters(r, "hookhold_dedupe_evicted_total", "Keys forgotten before their window ended.", &["cause"]),
            forward_acked: counters(r, "hookhold_forward_acked_total", "Events that Kafka acknowledged.", &["topic"]),
            forward_lag_events: gauges(
                r,
                "hookhold_forward_lag_events",
                "Durable events that Kafka has not acknowledged.",
                &["topic"],
            ),
            forward_lag_seconds: register(
                r,
                GaugeVec::new(
                    Opts::new("hookhold_forward_lag_seconds", "Age of the oldest event that Kafka has not acknowledged."),
                    &["topic"],
                ),
            ),
            forward_blocked: gauges(r, "hookhold_forward_blocked", "1 while a lane is blocked, by reason.", &["topic", "reason"]),
            producer_rebuilds: counters(
                r,
                "hookhold_producer_rebuilds_total",
                "Kafka producers replaced, by reason.",
                &["reason"],
            ),
            connections_rejected: counters(
                r,
                "hookhold_connections_rejected_total",
                "Connections closed as soon as they came, by cause.",
                &["cause"],
            ),
            addresses_tracked: gauge(
                r,
                "hookhold_addresses_tracked",
                "Addresses that have something open, or are remembered for what they sent.",
            ),
            certificate_expiry: gauges(
                r,
                "hookhold_tls_certificate_expiry_timestamp_seconds",
                "Unix time at which the served TLS certificate expires.",
                &[],
            ),
            rejected_log_suppressed: counter(
                r,
                "hookhold_rejected_log_suppressed_total",
                "Rejections that sampling kept out of the log.",
            ),
            registry: registry.clone(),
        };
        let build = Opts::new("hookhold_build_info", "1, labelled with the version of this build.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(r, Gauge::with_opts(build)).set(1.0);
        metrics.dedupe_evicted.with_label_values(&["max_disk"]);
        for cause in ["per_address", "limited"] {
            metrics.connections_rejected.with_label_values(&[cause]);
        }
        r.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect("declared once");
        metrics
    }

    /// Makes every label value of a source appear with 0, so that a rate over a first event is right.
    pub fn declare_source(&self, source: &str) {
        for outcome in Outcome::ALL {
            self.deliveries.with_label_values(&[source, outcome.word()]);
        }
        self.delivery_duration.with_label_values(&[source]);
    }

    /// The text exposition format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("names and labels above are valid")
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names above are valid");
    registry.register(Box::new(metric.clone())).expect("names above are declared once");
    metric
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

/// From well below one sync of a fast disk to beyond the default deadline.
const LATENCY_BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 8.0];
const SYNC_BUCKETS: &[f64] = &[0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
