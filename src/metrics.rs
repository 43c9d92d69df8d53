//! Declares every metric of hookhold once, with its name, labels and help text. The metrics of a room form one struct.
//!
//! Every label value is a name from the configuration or belongs to a closed set. No request can add a label value. For
//! example, all requests to unknown paths share the label `source="-"`.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

use crate::build_info;
use crate::outcome::Outcome;

/// Value of the label `source` for requests to a path that belongs to no source.
pub const NO_SOURCE: &str = "-";

/// All metrics of a process. The rooms share the metrics behind an `Arc`.
pub struct Metrics {
    registry: Registry,
    /// Metrics of deliveries, from request to response. The gateway and the outcome log update these metrics.
    pub deliveries: DeliveryMetrics,
    /// Metrics of the journal and of its key index.
    pub journal: JournalMetrics,
    /// Metrics of the forwarder.
    pub forward: ForwardMetrics,
    /// Metrics of the listener for deliveries.
    pub server: ServerMetrics,
    /// Metrics of the rejected deliveries on disk.
    pub rejections: RejectionMetrics,
    /// Metrics of configuration reloads: the result of the last reload, and the time of the last successful load.
    pub config: ConfigMetrics,
    /// Metrics of hand-overs between two processes.
    pub handovers: HandoverMetrics,
}

/// Declares the metrics of one room. A field's doc comment is the help text of its metric.
macro_rules! metrics {
    (
        $(#[$room_doc:meta])*
        $room:ident {
            $($(#[doc = $help:literal])+ $field:ident: $type:ty = $declare:ident($name:literal $(, $with:expr)*);)*
        }
    ) => {
        $(#[$room_doc])*
        pub struct $room { $($(#[doc = $help])+ pub $field: $type,)* }

        impl $room {
            fn register(registry: &Registry) -> $room {
                $room { $($field: $declare(registry, $name, concat!($($help),+).trim_start() $(, $with)*),)* }
            }
        }
    };
}

metrics! {
    /// Metrics of deliveries, from request to response. The gateway and the outcome log update these metrics.
    DeliveryMetrics {
        /// Deliveries by source and outcome.
        total: IntCounterVec = counters("hookhold_deliveries_total", &["source", "outcome"]);
        /// Seconds from the first byte of a delivery to its response.
        duration_seconds: HistogramVec = histograms("hookhold_delivery_duration_seconds", LATENCY_BUCKETS, &["source"]);
        /// Bytes of request bodies that hookhold has received, by source, whatever their outcome.
        received_bytes: IntCounterVec = counters("hookhold_received_bytes_total", &["source"]);
        /// Verified deliveries by source and by the secret that verified them.
        verified: IntCounterVec = counters("hookhold_verified_total", &["source", "secret"]);
        /// Unix time of the last verified delivery of a source.
        last_verified: GaugeVec = float_gauges("hookhold_last_verified_timestamp_seconds", &["source"]);
        /// Unix time at which a secret expires; absent for a secret without not_after.
        secret_expiry: GaugeVec = float_gauges("hookhold_secret_expiry_timestamp_seconds", &["source", "secret"]);
        /// Correctly signed deliveries that hookhold answered with 2xx, divided by all correctly signed deliveries. Covers the
        /// provider's measuring period; NaN if the period has no correctly signed delivery.
        success_rate: GaugeVec = float_gauges("hookhold_success_rate", &["source"]);
        /// Success rate at or below which the provider disables the endpoint; absent if the provider documents no such rate.
        success_rate_threshold: GaugeVec = float_gauges("hookhold_success_rate_threshold", &["source"]);
        /// Events stored after hookhold had answered with 503 (deadline) or the sender had disconnected.
        stored_after_answer: IntCounter = counter("hookhold_stored_after_answer_total");
        /// Events stored without a dedupe key. hookhold cannot recognise their duplicates.
        keyless: IntCounterVec = counters("hookhold_keyless_total", &["source"]);
        /// Duplicates that the same account sent with another body than the stored event. hookhold stores only the first body.
        duplicate_differs: IntCounterVec = counters("hookhold_duplicate_differs_total", &["source"]);
        /// Endpoint challenges that asked for an action, which hookhold reported to the operator and did not perform.
        challenge_effects: IntCounterVec = counters("hookhold_challenge_effects_total", &["source", "effect"]);
        /// Verified deliveries whose compressed body hookhold could not read, by reason. hookhold stores these events without the
        /// id, type and ordering key in the body.
        unread_bodies: IntCounterVec = counters("hookhold_unread_bodies_total", &["source", "reason"]);
        /// Items of batches that hookhold has split into events, by source and outcome.
        batch_items: IntCounterVec = counters("hookhold_batch_items_total", &["source", "outcome"]);
        /// Rejected deliveries that log sampling omitted from the log.
        rejected_log_suppressed: IntCounter = counter("hookhold_rejected_log_suppressed_total");
    }
}

metrics! {
    /// Metrics of the journal and of its key index.
    JournalMetrics {
        /// Duration of one journal sync (fdatasync) in seconds.
        sync_seconds: Histogram = histogram("hookhold_journal_sync_seconds", SYNC_BUCKETS);
        /// Events per journal commit.
        batch_events: Histogram = histogram("hookhold_journal_batch_events", BATCH_BUCKETS);
        /// Bytes occupied by the journal's segments.
        bytes: IntGauge = gauge("hookhold_journal_bytes");
        /// Upper limit of hookhold_journal_bytes (journal.max_size).
        limit_bytes: IntGauge = gauge("hookhold_journal_limit_bytes");
        /// Events in the journal.
        events: IntGauge = gauge("hookhold_journal_events");
        /// Journal bytes that hookhold cannot release until Kafka has acknowledged a topic's waiting events.
        pinned_bytes: IntGaugeVec = gauges("hookhold_journal_pinned_bytes", &["topic"]);
        /// Upper limit of a topic's backlog: journal.max_backlog, or less if other topics are behind.
        backlog_limit: IntGaugeVec = gauges("hookhold_forward_backlog_limit_bytes", &["topic"]);
        /// Share of its limit that a topic's backlog has used. At 1, hookhold answers deliveries for the topic with 503.
        backlog_used: GaugeVec = float_gauges("hookhold_forward_backlog_used_ratio", &["topic"]);
        /// Bytes that hookhold may still write to the volume of the journal; absent if the volume does not tell.
        volume_free: IntGaugeVec = gauges("hookhold_journal_volume_free_bytes", &[]);
        /// Space of the parked events.
        parked_bytes: IntGauge = gauge("hookhold_parked_bytes");
        /// Number of parked events.
        parked_events: IntGauge = gauge("hookhold_parked_events");
        /// Corrupted ranges found below the journal's durable watermark.
        damaged: IntCounter = counter("hookhold_journal_damaged_total");
        /// Events lost before Kafka acknowledged them, by cause. Without `[kafka]`, all lost events.
        lost_events: IntCounterVec = counters("hookhold_lost_events_total", &["cause"]);
        /// Jumps of the wall clock by more than five minutes.
        clock_jumps: IntCounter = counter("hookhold_clock_jumps_total");
        /// Dedupe keys in memory: keys of unsealed segments and keys in the hot cache.
        dedupe_hot_keys: IntGauge = gauge("hookhold_dedupe_hot_keys");
        /// Dedupe keys of sealed segments that stay in memory until a merge of key files has written them.
        unmerged_keys: IntGauge = gauge("hookhold_dedupe_unmerged_keys");
        /// Number of hookhold_dedupe_unmerged_keys above which the merges run without pauses.
        unmerged_keys_limit: IntGauge = gauge("hookhold_dedupe_unmerged_keys_limit");
        /// Key files that a new key must look up on disk. Merges keep this number at 12 or less.
        key_files: IntGauge = gauge("hookhold_dedupe_key_files");
        /// Dedupe keys dropped before the end of their dedupe window, by cause.
        dedupe_evicted: IntCounterVec = counters("hookhold_dedupe_evicted_total", &["cause"]);
    }
}

metrics! {
    /// Metrics of the forwarder.
    ForwardMetrics {
        /// Events acknowledged by Kafka.
        acked: IntCounterVec = counters("hookhold_forward_acked_total", &["topic"]);
        /// Bytes of the records that Kafka has acknowledged: bodies, keys and headers, before compression.
        forwarded_bytes: IntCounterVec = counters("hookhold_forwarded_bytes_total", &["topic"]);
        /// Unix time of the last acknowledgement; absent before the first one.
        last_ack: GaugeVec = float_gauges("hookhold_kafka_last_ack_timestamp_seconds", &["topic"]);
        /// Durable events that Kafka has not acknowledged.
        lag_events: IntGaugeVec = gauges("hookhold_forward_lag_events", &["topic"]);
        /// Age in seconds of the oldest event that Kafka has not acknowledged; 0 if Kafka has acknowledged all events.
        lag_seconds: GaugeVec = float_gauges("hookhold_forward_lag_seconds", &["topic"]);
        /// 1 while a topic is blocked, by reason.
        blocked: IntGaugeVec = gauges("hookhold_forward_blocked", &["topic", "reason"]);
        /// Unix time at which a topic was blocked; absent if it is not blocked.
        blocked_since: GaugeVec = float_gauges("hookhold_forward_blocked_since_seconds", &["topic", "reason"]);
        /// Partitions without a leader, whose events wait although hookhold forwards the topic's other events.
        leaderless_partitions: IntGaugeVec = gauges("hookhold_forward_leaderless_partitions", &["topic"]);
        /// Events that hookhold has parked, because Kafka rejects the event itself, by reason.
        parked: IntCounterVec = counters("hookhold_parked_total", &["topic", "reason"]);
        /// Copies of parked events that the dead-letter topic has acknowledged, by the topic of the event. The body is absent if the
        /// dead-letter topic rejects it.
        dead_letters: IntCounterVec = counters("hookhold_dead_letters_total", &["topic", "body"]);
        /// 1 while copies of parked events do not reach the dead-letter topic, by reason.
        dead_letter_blocked: IntGaugeVec = gauges("hookhold_dead_letter_blocked", &["topic", "reason"]);
        /// 1 if the Kafka cluster has answered the last request, otherwise 0; absent if nothing is forwarded.
        connected: IntGaugeVec = gauges("hookhold_kafka_connected", &[]);
        /// 1 while the Kafka cluster cannot be reached, by reason.
        connection_failed: IntGaugeVec = gauges("hookhold_kafka_connection_failed", &["reason"]);
        /// Unix time at which the forwarder last looked for work; absent if nothing is forwarded.
        heartbeat: GaugeVec = float_gauges("hookhold_forward_heartbeat_timestamp_seconds", &[]);
        /// Kafka producers replaced, by reason.
        producer_rebuilds: IntCounterVec = counters("hookhold_producer_rebuilds_total", &["reason"]);
    }
}

metrics! {
    /// Metrics of the listener for deliveries.
    ServerMetrics {
        /// Connections closed because of a limit on open connections, by cause: each makes room for a newer one.
        connections_rejected: IntCounterVec = counters("hookhold_connections_rejected_total", &["cause"]);
        /// Sender addresses that have an open connection, recent rejections or a recent genuine delivery.
        addresses_tracked: IntGauge = gauge("hookhold_addresses_tracked");
        /// Sender addresses that exceeded `max_rejected_per_address`, each counted once until its limit ends.
        addresses_limited: IntCounter = counter("hookhold_addresses_limited_total");
        /// Unix time at which the served TLS certificate expires; absent if TLS is off.
        certificate_expiry: IntGaugeVec = gauges("hookhold_tls_certificate_expiry_timestamp_seconds", &[]);
    }
}

metrics! {
    /// Metrics of the rejected deliveries on disk.
    RejectionMetrics {
        /// Rejected deliveries that hookhold has written to disk, where `hookhold rejections` and `hookhold doctor` read them.
        stored: IntCounter = counter("hookhold_rejections_stored_total");
        /// Rejected deliveries that hookhold has not written to disk, by reason: sampled, queue_full or write_failed.
        dropped: IntCounterVec = counters("hookhold_rejections_dropped_total", &["reason"]);
        /// Bytes of the files with rejected deliveries.
        bytes: IntGauge = gauge("hookhold_rejections_bytes");
    }
}

metrics! {
    /// Metrics of configuration reloads: the result of the last reload, and the time of the last successful load.
    ConfigMetrics {
        /// 1 after startup or a successful configuration reload, 0 after a rejected reload.
        last_reload_successful: IntGauge = gauge("hookhold_config_last_reload_successful");
        /// Unix time of startup or of the last successful configuration reload.
        last_reload_success: Gauge = float_gauge("hookhold_config_last_reload_success_timestamp_seconds");
    }
}

metrics! {
    /// Metrics of hand-overs between two processes.
    HandoverMetrics {
        /// Hand-overs by result: taken (this process has taken over from another one) or cancelled (this process has continued).
        total: IntCounterVec = counters("hookhold_handovers_total", &["result"]);
        /// Seconds for which this process held deliveries until it had the journal; 0 if it has not taken over from another process.
        held_seconds: Gauge = float_gauge("hookhold_handover_held_seconds");
    }
}

impl Metrics {
    /// Declares and registers all metrics, including `hookhold_build_info` and `process_*`.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let metrics = Metrics {
            deliveries: DeliveryMetrics::register(&registry),
            journal: JournalMetrics::register(&registry),
            forward: ForwardMetrics::register(&registry),
            server: ServerMetrics::register(&registry),
            rejections: RejectionMetrics::register(&registry),
            config: ConfigMetrics::register(&registry),
            handovers: HandoverMetrics::register(&registry),
            registry,
        };
        metrics.journal.dedupe_evicted.with_label_values(&["max_disk"]);
        for cause in ["corruption", "missing_segment"] {
            metrics.journal.lost_events.with_label_values(&[cause]);
        }
        for cause in ["per_address", "max_connections"] {
            metrics.server.connections_rejected.with_label_values(&[cause]);
        }
        for reason in ["sampled", "queue_full", "write_failed"] {
            metrics.rejections.dropped.with_label_values(&[reason]);
        }
        for result in ["taken", "cancelled"] {
            metrics.handovers.total.with_label_values(&[result]);
        }
        let build = Opts::new("hookhold_build_info", "Always 1, labelled with the version and the commit of this build.")
            .const_label("version", build_info::VERSION)
            .const_label("commit", build_info::COMMIT);
        register(&metrics.registry, Gauge::with_opts(build)).set(1.0);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        metrics.registry.register(Box::new(process)).expect("no other collector declares process metrics");
        metrics
    }

    /// Returns all metrics in the Prometheus text exposition format, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("names and labels above are valid")
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl DeliveryMetrics {
    /// Creates the outcome and duration series of a source, each with the value 0. Without this value, `rate()` would miss the
    /// first increment.
    pub fn declare_source(&self, source: &str) {
        for outcome in Outcome::ALL {
            self.total.with_label_values(&[source, outcome.word()]);
        }
        self.duration_seconds.with_label_values(&[source]);
    }
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

fn float_gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::new(name, help))
}

fn float_gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(registry, GaugeVec::new(Opts::new(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

fn histograms(registry: &Registry, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    register(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names above are valid");
    registry.register(Box::new(metric.clone())).expect("names above are declared once");
    metric
}

/// Upper bounds of the latency buckets in seconds. The lowest bound is less than the duration of one sync on a fast disk,
/// and the highest bound is the default request deadline (8 s).
const LATENCY_BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 8.0];
const SYNC_BUCKETS: &[f64] = &[0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
