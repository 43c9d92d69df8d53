//! Tests the shutdown of the real binary: the effect of SIGTERM on deliveries in progress, on new deliveries and on deliveries
//! that never complete. Further tests in this file check the exit code and the message of a failed startup.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/sdk.rs"]
mod sdk;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use process::{Answer, Home, Line, post, wait_until};
use rustix::process::Signal;
use sdk::{Sample, Sdk};

/// Creates a `Home` whose request time limits are so long that only `drain_deadline` ends an incomplete request. `server`
/// contains additional options for `[server]`.
fn home(server: &str) -> Home {
    let source = "[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:stripe\"]\nlimits.respond_within = \"5m\"\n";
    let server = server.lines().map(|line| format!("server.{line}\n")).collect::<String>();
    let generous = "server.request_deadline = \"10m\"\nserver.min_rate_after = \"10m\"\n";
    Home::new(&[("stripe", SECRET)], &format!("{generous}{server}{source}"))
}

/// Returns the request head and the body of a Stripe delivery.
fn delivery(sdk: &mut Sdk, id: &str) -> (Vec<u8>, Vec<u8>) {
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let body = format!("{{\"id\":\"{id}\",\"type\":\"invoice.paid\"}}").into_bytes();
    let mut headers = sdk.sign(Sample { scheme: "stripe", secret: SECRET, id, timestamp, body: &body }).headers;
    headers.push(("expect".into(), "100-continue".into()));
    let mut head = post("/hooks/stripe", &headers, &body);
    head.truncate(head.len() - body.len());
    (head, body)
}

/// Opens a connection, sends the request head of a delivery, waits for the 100 response and sends `part`, the first part of
/// the body.
fn begin(home: &Home, head: &[u8], part: &[u8]) -> Line {
    let mut line = Line::open(home.hooks);
    assert_eq!(line.ask(head).status, 100);
    line.send(part);
    line
}

fn deliver(line: &mut Line, (head, body): (Vec<u8>, Vec<u8>)) -> Answer {
    assert_eq!(line.ask(&head).status, 100);
    line.ask(&body)
}

fn stored_ids(home: &Home) -> Vec<String> {
    let tail = home.verb(&["tail", "--from", "0", "--format", "json"]);
    assert_eq!(tail.status.code(), Some(0), "{tail:?}");
    let events = String::from_utf8(tail.stdout).expect("JSON is text");
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].as_str().map(str::to_owned);
    events.lines().map(|line| id(line).expect("every event here has an id")).collect()
}

fn listens(home: &Home) -> bool {
    Line::try_open(home.hooks).is_some()
}

#[test]
fn sigterm_answers_100_deliveries_in_progress_and_exits_0() {
    let home = home("drain_delay = \"0s\"\ndrain_deadline = \"1h\"");
    let process = home.start();
    let mut sdk = Sdk::start();
    let ids: Vec<String> = (0..100).map(|number| format!("evt_{number}")).collect();
    let deliveries: Vec<_> = ids.iter().map(|id| delivery(&mut sdk, id)).collect();
    let mut under_way: Vec<(Line, &[u8])> = Vec::new();
    for (head, body) in &deliveries {
        let (first, rest) = body.split_at(body.len() / 2);
        under_way.push((begin(&home, head, first), rest));
    }

    process.signal(Signal::TERM);
    wait_until("the listener is closed", || !listens(&home));
    assert_eq!(process.ready(), Some(503));
    for (line, rest) in &mut under_way {
        let answer = line.ask(rest);
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("\r\nconnection: close\r\n"), "{}", answer.head);
        assert_eq!(line.rest(), b"", "the connection is closed afterwards");
    }
    assert_eq!(process.wait().code(), Some(0));
    let stored = stored_ids(&home);
    assert_eq!(stored.len(), 100);
    assert_eq!(stored.into_iter().collect::<BTreeSet<_>>(), ids.into_iter().collect());
}

#[test]
fn an_incomplete_body_gets_503_at_the_drain_deadline() {
    let home = home("drain_delay = \"0s\"\ndrain_deadline = \"1s\"");
    let process = home.start();
    let (head, body) = delivery(&mut Sdk::start(), "evt_1");
    let mut half_a_body = begin(&home, &head, &body[..10]);
    let mut half_a_head = Line::open(home.hooks);
    half_a_head.send(&head[..10]);

    process.signal(Signal::TERM);
    for line in [&mut half_a_body, &mut half_a_head] {
        let answer = line.answer();
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("\r\nretry-after: 30\r\n"), "{}", answer.head);
        assert!(answer.head.contains("\r\nconnection: close\r\n"), "{}", answer.head);
    }
    assert_eq!(process.wait().code(), Some(0));
    for source in ["stripe", "-"] {
        let named = |line: &&str| line.contains("outcome=\"draining\"") && line.contains(&format!("source={source:?}"));
        assert_eq!(home.log().lines().filter(named).count(), 1, "the log has one line for the outcome:\n{}", home.log());
    }
    assert_eq!(stored_ids(&home), [""; 0]);
}

#[test]
fn deliveries_during_drain_delay_are_stored_on_any_connection() {
    let home = home("drain_delay = \"10m\"\ndrain_deadline = \"1h\"");
    let process = home.start();
    let mut sdk = Sdk::start();
    let mut idle = Line::open(home.hooks);
    let mut used = Line::open(home.hooks);
    assert_eq!(deliver(&mut used, delivery(&mut sdk, "evt_before")).status, 200);
    let (head, body) = delivery(&mut sdk, "evt_across");
    let mut across = begin(&home, &head, &body[..10]);

    process.signal(Signal::TERM);
    wait_until("the shutdown has begun", || process.ready() == Some(503));
    let mut new = Line::open(home.hooks);
    for (line, id) in [(&mut used, "evt_used"), (&mut idle, "evt_idle"), (&mut new, "evt_new")] {
        let answer = deliver(line, delivery(&mut sdk, id));
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("\r\nconnection: close\r\n"), "few idle connections are left:\n{}", answer.head);
    }
    assert_eq!(deliver(&mut Line::open(home.hooks), delivery(&mut sdk, "evt_new_again")).status, 200);
    assert_eq!(across.ask(&body[10..]).status, 200);
    assert_eq!(process.ready(), Some(503));
    assert_eq!(process.metric("hookhold_deliveries_total{outcome=\"stored\",source=\"stripe\"}"), Some(6.0));
    drop(process);
    assert_eq!(stored_ids(&home), ["evt_before", "evt_used", "evt_idle", "evt_new", "evt_new_again", "evt_across"]);
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)] {
        let (home, mut sdk) = (home("drain_delay = \"10m\"\ndrain_deadline = \"1h\""), Sdk::start());
        let process = home.start();
        let (head, body) = delivery(&mut sdk, "evt_never_complete");
        let mut line = begin(&home, &head, &body[..10]);
        assert_eq!(deliver(&mut Line::open(home.hooks), delivery(&mut sdk, "evt_stored")).status, 200);
        process.signal(first);
        wait_until("the shutdown has begun", || process.ready() == Some(503));
        process.signal(second);
        assert_eq!(process.wait().code(), Some(0));
        let response = String::from_utf8_lossy(&line.rest()).into_owned();
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 503 "), "{response}");
        assert_eq!(stored_ids(&home), ["evt_stored"], "a delivery that was answered 2xx stays stored");
    }
}

#[test]
fn a_failed_start_names_the_port_in_use() {
    for option in ["server.listen", "admin.listen"] {
        let home = home("drain_delay = \"0s\"");
        let address = if option == "server.listen" { home.hooks } else { home.admin };
        let _taken = TcpListener::bind(address).expect("reserved for us");
        assert_eq!(home.launch().wait().code(), Some(1));
        let log = home.log();
        let wanted = format!("hookhold: {option}: expected an available address, found {address} unavailable; ");
        assert!(log.lines().any(|line| line.starts_with(&wanted) && line.contains("in use")), "{log}");
    }
}

#[test]
fn a_failed_start_names_the_journal_in_use() {
    let home = home("drain_delay = \"0s\"");
    let process = home.start();
    let before = home.log();
    assert_eq!(home.launch().wait().code(), Some(1));
    let log = home.log();
    let said = &log[before.len()..];
    let named = |line: &str| line.starts_with("hookhold: ") && line.contains(&*home.journal().to_string_lossy());
    assert!(said.lines().any(|line| named(line) && line.contains("another")), "{said}");
    assert_eq!(process.ready(), Some(200), "the first process is not affected");
}

#[test]
fn a_low_open_file_limit_is_logged_at_start() {
    for (connections, lines) in [(2_000, 1), (10, 0)] {
        let home = home(&format!("drain_delay = \"0s\"\nmax_connections = {connections}"));
        let process = home.launch_with(&["sh", "-c", "ulimit -n 2000 && exec \"$0\" \"$@\""]);
        wait_until("the listener is open", || listens(&home));
        let said = home.log().lines().filter(|line| line.contains("limit=2000 ") && line.contains("LimitNOFILE")).count();
        assert_eq!(said, lines, "{}", home.log());
        drop(process);
    }
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
