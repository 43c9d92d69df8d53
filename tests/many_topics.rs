//! Tests of an outage of Kafka that affects many topics at once. While the topics catch up, hookhold must read the backlog only once
//! and stay within its memory, and its log must name the outage and not each topic.

#[path = "common/audit.rs"]
mod audit;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/load.rs"]
mod load;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::fs;

use hdrhistogram::Histogram;
use kafka::Kafka;
use load::{Ledger, Load, Order};
use process::{Home, Process, wait_until};

/// Forty topics are blocked for the same reason within a second. The journal, `/readyz` and the metrics name each of them, but the log
/// has a line of its own only for the first ones.
#[test]
fn trouble_of_many_topics_is_logged_as_a_summary() {
    let sources = sources(40);
    let home = fixture::home(&sources, Some("127.0.0.1:1"));
    let process = home.start();
    let order = Order { rate: None, duplicate_percent: 0, sources: fixture::sources(&home), ..fixture::order(&home, "source-0") };
    let ledger = Load::send_new(order, Ledger::new("waiting"), 40);
    ledger.assert_no_sender_noticed();
    wait_until("each topic is blocked", || sum(&process, "hookhold_forward_blocked{") == 40.0);
    wait_until("the log has a summary", || home.log().contains(SUMMARY));
    let details = fixture::kafka_health(&home)["details"].as_array().expect("a list").len();
    assert_eq!(details, 41, "/readyz names each topic, and the client");
    fixture::stop(process);

    let log = home.log();
    let summaries: Vec<&str> = log.lines().filter(|line| line.contains(SUMMARY)).collect();
    let summarised = summaries.iter().map(|line| line.split("topics=").nth(1).expect("a number").split(' ').next());
    let summarised: usize = summarised.map(|count| count.expect("a number").parse::<usize>().expect("a number")).sum();
    assert_eq!((log.matches(LINE).count(), summarised), (10, 30), "{log}");
    assert!(summaries[0].contains("reason=\"broker_away\"") && summaries[0].contains("start the brokers"), "{}", summaries[0]);
}

/// The backlog is larger than the records that hookhold may have in flight, so that every topic falls behind.
#[test]
#[ignore = "takes 3 minutes; tests/run --long runs this test"]
fn five_hundred_topics_catch_up_within_their_bounds() {
    let (mut kafka, sources) = (Kafka::start(), sources(TOPICS));
    let topics: Vec<String> = sources.iter().map(|(_, topic)| topic.clone()).collect();
    kafka.create_topics(&topics, 1, 1);
    let home = fixture::home(&sources, Some(&kafka.bootstrap()));
    let process = home.start();
    let order =
        Order { rate: Some(RATE), duplicate_percent: 0, sources: fixture::sources(&home), ..fixture::order(&home, "source-0") };
    let load = Load::start(order.clone(), Ledger::new("steady"));
    wait_until("each topic has a record", || series(&process, "hookhold_forward_acked_total{").len() == TOPICS);
    load.wait_until_sent(load.sent() + u64::from(5 * RATE));
    load.take_latencies();
    load.wait_until_sent(load.sent() + u64::from(20 * RATE));
    let (quiet, base) = (load.take_latencies(), peak_memory(&process));

    kafka.kill();
    let before = forwarder_reads(&process);
    let burst = Load::start(Order { rate: None, ..order }, Ledger::new("burst"));
    burst.wait_until_accepted(BACKLOG);
    let burst = burst.stop();
    wait_until("the log has a summary", || home.log().contains(SUMMARY));
    load.wait_until_sent(load.sent() + u64::from(RATE));
    let (waiting, stored) = sizes(&home);
    let during = forwarder_reads(&process) - before;
    kafka.restart();
    load.take_latencies();
    let returned = forwarder_reads(&process);
    let mut seconds = 0;
    while sum(&process, "hookhold_forward_lag_events{") > f64::from(RATE) {
        seconds += 1;
        load.wait_until_sent(load.sent() + u64::from(RATE));
        assert!(seconds < 300, "the topics do not catch up");
    }
    let (read, catching_up, peak) = (forwarder_reads(&process) - returned, load.take_latencies(), peak_memory(&process));
    let ledger = load.stop();
    topics.iter().for_each(|topic| fixture::wait_until_forwarded(&process, topic));
    let later = sizes(&home).1 - stored;
    fixture::stop(process);

    let (backlog, added) = (waiting + later, peak - base);
    println!("backlog {} MiB; read {} MiB before and {} MiB after Kafka's return", mib(backlog), mib(during), mib(read));
    println!("memory: {} MiB before the outage, {} MiB more at its peak", mib(base), mib(added));
    println!(
        "p99 of acceptance: {} before, {} while {TOPICS} topics catch up within {seconds} s",
        p99(&quiet),
        p99(&catching_up)
    );
    burst.assert_no_sender_noticed();
    ledger.assert_no_sender_noticed();
    assert!(read * 10 <= backlog * 12, "read {read} bytes for a backlog of {backlog} bytes");
    assert!(added <= MEMORY, "{added} bytes");
    let log = home.log();
    let lines = log.lines().filter(|line| line.contains("blocked")).count();
    assert!(lines < 100, "{lines} lines");
}

/// Returns the names of sources and of their topics.
fn sources(count: usize) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("source-{number}"), format!("topic-{number}"))).collect()
}

/// Returns the values of all series in `/metrics` that begin with `prefix`.
fn series(process: &Process, prefix: &str) -> Vec<f64> {
    let text = process.metrics();
    let values = text.lines().filter_map(|line| line.strip_prefix(prefix)?.rsplit(' ').next());
    values.map(|value| value.parse().expect("a metric is a number")).collect()
}

fn sum(process: &Process, prefix: &str) -> f64 {
    series(process, prefix).iter().sum()
}

/// Returns the number of bytes that the thread of the forwarder has read (`rchar` in proc(5)). It reads only the journal. Reads from
/// sockets do not count.
fn forwarder_reads(process: &Process) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", process.id())).expect("the process runs");
    let threads = threads.map(|thread| thread.expect("the process runs").path());
    let is_forwarder = |name: String| name.trim() == "forward";
    let thread = threads.into_iter().find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(is_forwarder));
    let io = fs::read_to_string(thread.expect("the forwarder runs").join("io")).expect("the process is our child");
    number_after(&io, "rchar:")
}

/// Returns the largest size of the process's memory so far in bytes (`VmHWM` in proc(5)).
fn peak_memory(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("the process runs");
    number_after(&status, "VmHWM:") * 1024
}

fn number_after(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Returns the total size in bytes of the waiting events and of all events in the journal.
fn sizes(home: &Home) -> (u64, u64) {
    let topics = fixture::journal(home).stat().expect("the journal can be read").topics;
    (topics.iter().map(|topic| topic.waiting_bytes).sum(), topics.iter().map(|topic| topic.bytes).sum())
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn p99(latencies: &Histogram<u64>) -> String {
    assert!(!latencies.is_empty(), "there is no latency");
    format!("{:.2} ms of {}", latencies.value_at_quantile(0.99) as f64 / 1000.0, latencies.len())
}

const TOPICS: usize = 500;
/// Number of deliveries per second while the test measures the latency.
const RATE: u32 = 2_000;
/// Number of further deliveries during the outage. hookhold has at most 128 MiB in flight.
const BACKLOG: u64 = 200_000;
/// Bound of the memory for records: 128 MiB and one record of each topic, and as much again for librdkafka's own structures.
const MEMORY: u64 = 2 * ((128 << 20) + TOPICS as u64 * 4096);
const LINE: &str = "topic is blocked; its events wait in the journal";
const SUMMARY: &str = "more topics are blocked; their events wait in the journal";
