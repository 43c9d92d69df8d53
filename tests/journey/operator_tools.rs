//! Tests that operators' common tools, such as promtool, work with hookhold.

use std::io::Write;
use std::process::Stdio;

use crate::kafka;
use crate::process::{Line, tool, wait_until};
use crate::scheme::{Provider, STRIPE, now};

#[test]
fn promtool_accepts_the_metrics_of_a_busy_gateway() {
    let kafka = kafka::shared();
    kafka.create_topic("seen", 1, &[]);
    let home = STRIPE.home(kafka, "seen", "");
    let process = home.start();
    let (mut provider, mut line) = (Provider::new(&STRIPE), Line::open(home.hooks));
    assert_eq!(line.ask(&provider.sign("evt_1", now(), STRIPE.body("evt_1", b"")).request(&STRIPE)).status, 200);
    assert_eq!(line.ask(&provider.sign("evt_1", now(), Vec::new()).request(&STRIPE)).status, 200);
    wait_until("Kafka has both", || process.metric("hookhold_forward_acked_total{topic=\"seen\"}") == Some(2.0));
    wait_until("nothing is pinned", || process.metric("hookhold_journal_pinned_bytes{topic=\"seen\"}") == Some(0.0));

    let metrics = process.metrics();
    for (series, value) in [
        ("hookhold_verified_total{secret=\"2026-11\",source=\"stripe\"}", 2.0),
        ("hookhold_keyless_total{source=\"stripe\"}", 0.0),
        ("hookhold_delivery_duration_seconds_count{source=\"stripe\"}", 2.0),
        ("hookhold_stored_after_answer_total", 0.0),
        ("hookhold_journal_batch_events_sum", 2.0),
        ("hookhold_journal_events", 2.0),
        ("hookhold_journal_limit_bytes", 20.0 * f64::from(1 << 30)),
        ("hookhold_journal_damaged_total", 0.0),
        ("hookhold_forward_lag_events{topic=\"seen\"}", 0.0),
        ("hookhold_forward_lag_seconds{topic=\"seen\"}", 0.0),
        ("hookhold_rejected_log_suppressed_total", 0.0),
        (concat!("hookhold_build_info{commit=\"unknown\",version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(process.metric(series), Some(value), "{series} in\n{metrics}");
    }
    let families = ["hookhold_last_verified_timestamp_seconds", "hookhold_journal_sync_seconds", "hookhold_journal_bytes"];
    for family in families.into_iter().chain(["hookhold_dedupe_hot_keys", "process_resident_memory_bytes"]) {
        assert!(metrics.contains(&format!("\n# TYPE {family} ")), "{family} in\n{metrics}");
    }

    let mut promtool = tool("promtool");
    let piped = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("promtool starts: tests/run unpacks it");
    child.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("promtool reads all of it");
    let output = child.wait_with_output().expect("promtool ends");
    assert!(output.status.success() && output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
}
