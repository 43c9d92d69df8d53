//! Tests what `hookhold run` tells the operator: what it runs, and what happens to the deliveries.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use process::{Home, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

const CONFIG: &str = "server.drain_delay = \"0s\"\n\
                      sources.stripe.provider = \"stripe\"\nsources.stripe.secrets = [\"file:stripe\"]\n\
                      sources.code.provider = \"github\"\nsources.code.path = \"/code\"\nsources.code.secrets = [\"file:code\"]\n";

fn home() -> Home {
    Home::new(&[("stripe", "whsec_c2VjcmV0IG51bWJlciBvbmU="), ("code", "secret number two")], CONFIG)
}

fn send(home: &Home, args: &[&str], exit_code: i32) {
    let output = home.verb(&[&["send"], args].concat());
    assert_eq!(output.status.code(), Some(exit_code), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the values of these fields in each log line with this message, as JSON.
fn logged(home: &Home, message: &str, fields: &[&str]) -> Vec<Vec<Value>> {
    let log = home.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is a JSON object"));
    let found = lines.filter(|line| line["message"] == message);
    found.map(|line| fields.iter().map(|field| line[field].clone()).collect()).collect()
}

#[test]
fn the_start_names_version_file_sources_journal_and_addresses() {
    let home = home();
    let process = home.start();
    let log = home.log();
    let (hooks, admin, journal) = (home.hooks, home.admin, home.journal());
    let file = journal.parent().expect("the journal is inside the home").join("hookhold.toml");
    for part in [
        format!("hookhold starts version=\"{}\" config={}", env!("CARGO_PKG_VERSION"), file.display()),
        format!("source=\"stripe\" url=\"http://{hooks}/hooks/stripe\" recipe=\"stripe\" topics=\"webhooks.stripe\""),
        format!("source=\"code\" url=\"http://{hooks}/code\" recipe=\"github\" topics=\"webhooks.code\""),
        format!("journal open dir={} file_system=", journal.display()),
        "events=0 size=\"64.0 MiB\" limit=\"20.0 GiB\" next_seq=0".to_owned(),
        format!("admin listener url=\"http://{admin}/\""),
        format!("listening for deliveries address={hooks} tls=false"),
        "no [kafka] section".to_owned(),
    ] {
        assert!(log.contains(&part), "{part}\n{log}");
    }
    assert!(!log.contains("c2VjcmV0") && !log.contains("secret number two"), "{log}");
    drop(process);
}

#[test]
fn the_start_names_the_kafka_servers_and_whether_they_answer() {
    let home = home();
    home.configure(&format!("{CONFIG}kafka.\"bootstrap.servers\" = \"127.0.0.1:1\"\n"));
    let _process = home.start();
    assert!(home.log().contains("Kafka: connecting servers=\"127.0.0.1:1\""), "{}", home.log());
    wait_until("the log tells that Kafka does not answer", || home.log().contains("127.0.0.1:1/bootstrap"));
}

#[test]
fn each_accepted_delivery_has_a_line_with_type_id_and_sequence() {
    let home = home();
    let process = home.launch_args(&["--log-format", "json", "--log-deliveries", "each"]);
    wait_until("hookhold is ready", || process.ready() == Some(200));
    send(&home, &["stripe", "--type", "invoice.paid"], 0);
    send(&home, &["code", "--type", "push"], 0);
    send(&home, &["stripe", "--tamper", "body"], 0);
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    let fields = ["source", "outcome", "status", "type", "seq", "topic"];
    let accepted = logged(&home, "accepted", &fields);
    let expected = [
        json!(["stripe", "stored", 200, "invoice.paid", 0, "webhooks.stripe"]),
        json!(["code", "stored", 200, "push", 1, "webhooks.code"]),
    ];
    assert_eq!(accepted.into_iter().map(Value::from).collect::<Vec<_>>(), expected);
    assert!(logged(&home, "accepted", &["id"]).iter().flatten().all(Value::is_string), "{}", home.log());
    let rejected = logged(&home, "rejected", &["source", "outcome", "explain"]);
    assert_eq!(rejected, [["stripe", "signature_mismatch", "hookhold doctor stripe"].map(Value::from)]);
    assert!(logged(&home, "deliveries since the last summary", &[]).is_empty());
}

#[test]
fn without_a_terminal_the_log_summarizes_the_deliveries_of_each_source() {
    let home = home();
    let process = home.launch_args(&["--log-format", "json"]);
    wait_until("hookhold is ready", || process.ready() == Some(200));
    send(&home, &["stripe", "--count", "5"], 0);
    send(&home, &["stripe", "--tamper", "body", "--count", "2"], 0);
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    let fields = ["source", "stored", "duplicates", "rejected"];
    let summaries = logged(&home, "deliveries since the last summary", &fields);
    let total = |field: usize| summaries.iter().map(|line| line[field].as_u64().expect("a count")).sum::<u64>();
    assert!(summaries.iter().all(|line| line[0] == "stripe"), "a source without deliveries has no line: {summaries:?}");
    assert_eq!([1, 2, 3].map(total), [5, 0, 2]);
    assert!(logged(&home, "accepted", &[]).is_empty());
}

#[test]
fn deliveries_that_arrive_too_fast_are_counted_in_place_of_lines() {
    let home = home();
    let process = home.launch_args(&["--log-format", "json", "--log-deliveries", "each"]);
    wait_until("hookhold is ready", || process.ready() == Some(200));
    const SENT: u64 = 2000;
    send(&home, &["stripe", "--count", &SENT.to_string(), "--connections", "16"], 0);
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    let lines = logged(&home, "accepted", &[]).len() as u64;
    let log = home.log();
    let omitted = log.lines().filter(|line| line.contains("further accepted deliveries have no line"));
    let omitted: u64 =
        omitted.map(|line| serde_json::from_str::<Value>(line).expect("a JSON object")["count"].as_u64().expect("a count")).sum();
    assert_eq!(lines + omitted, SENT, "{lines} lines, {omitted} omitted");
}

#[test]
fn the_log_of_accepted_deliveries_can_be_off() {
    let home = home();
    let process = home.launch_args(&["--log-format", "json", "--log-deliveries", "off"]);
    wait_until("hookhold is ready", || process.ready() == Some(200));
    send(&home, &["stripe"], 0);
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    assert!(logged(&home, "accepted", &[]).is_empty() && logged(&home, "deliveries since the last summary", &[]).is_empty());
}
