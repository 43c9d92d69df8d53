//! ServerLimits against strangers, on the real binary: none of them takes what belongs to the genuine senders. Senders have
//! addresses of their own on the loopback network.

#[path = "common/attack.rs"]
mod attack;
#[path = "common/audit.rs"]
mod audit;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/load.rs"]
mod load;
#[path = "common/process.rs"]
mod process;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attack::Attack;
use bytes::Bytes;
use hookhold::clock::{Clock, SystemClock};
use hookhold::source::Source;
use hookhold::verify::sign::{SampleOptions, Tamper, sign};
use load::{Ledger, Load, Order};
use process::{Answer, Home, Line, Process, post, wait_until};

const PROVIDER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const FORGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const HOARDER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

#[test]
fn genuine_deliveries_get_their_2xx_while_others_trickle_hoard_and_forge_at_full_speed() {
    attack::raise_file_limit();
    let home = home("max_in_flight = \"64 MiB\"\nmax_in_flight_per_address = \"32 MiB\"", "");
    let process = home.start();
    let attack = Attack::new(home.hooks);
    attack.trickle(STRANGER, 1_000, &genuine(&home, "trickle"));
    attack.hoard(HOARDER, 64, &signed(&home, body(2 << 20), None), 1 << 20);
    attack.forge(FORGER, 64, &forged(&home, 2_000));
    wait_until("a thousand and more have connected", || attack.opened() >= 1_000 + 64 + 64);
    let order = Order { connections: 32, repeat_percent: 0, ..fixture::order(&home, "stripe") };
    let load = Load::start(order, Ledger::new("genuine"));
    load.wait_until_accepted(3_000);
    let counted = |source: &str, outcome: &str| process.metric(&deliveries(source, outcome)).expect("declared from the start");
    wait_until("every trickle has been cut", || counted("-", "too_slow") >= 1_000.0);
    wait_until("the forger has been looked at, and then not", || attack.forgers_heard().keys().eq([&401, &429]));
    load.stop().assert_nobody_noticed();
    drop(attack);
    assert!(home.log().contains("bodies in flight from this address fill max_in_flight_per_address"), "hoarding was tried");
    let peak = peak_memory(&process);
    assert!(peak < (64 << 20) + 100_000_000, "{peak} bytes resident");
}

#[test]
fn an_address_has_max_connections_per_address() {
    let home = home("max_connections_per_address = 2", "");
    let process = home.start();
    let mut open: Vec<Line> = (0..2).map(|_| line(&home, PROVIDER)).collect();
    for line in &mut open {
        assert_eq!(line.ask(&genuine(&home, "a")).status, 200);
    }
    assert_eq!(line(&home, PROVIDER).rest(), b"");
    assert_eq!(process.metric("hookhold_connections_rejected_total{cause=\"per_address\"}"), Some(1.0));
    assert!(
        home.log().contains("address=127.0.0.1 suppressed=0 hint=\"its address has max_connections_per_address open\""),
        "{}",
        home.log()
    );
    assert_eq!(line(&home, STRANGER).ask(&genuine(&home, "a")).status, 200);
    open.pop();
    let last = String::from_utf8(genuine(&home, "a")).expect("text").replacen("host:", "connection: close\r\nhost:", 1);
    wait_until("a place is free again", || {
        let mut line = line(&home, PROVIDER);
        line.send(last.as_bytes());
        line.rest().starts_with(b"HTTP/1.1 200 ")
    });
}

#[test]
fn an_address_has_max_in_flight_per_address_and_its_largest_body_goes_on() {
    let home = home("max_in_flight_per_address = \"1 MiB\"\nrequest_deadline = \"10m\"", "");
    let process = home.start();
    let (large, small) = (body(2 << 20), body(1 << 10));
    let request = signed(&home, large.clone(), None);
    assert_eq!(line(&home, PROVIDER).ask(&request).status, 200, "a single body may exceed it");
    let mut slow = line(&home, PROVIDER);
    let (begin, rest) = request.split_at(request.len() - 100);
    slow.send(begin);
    let mut refused = None;
    wait_until("the slow body fills its address's share", || {
        let answer = line(&home, PROVIDER).ask(&signed(&home, small.clone(), None));
        refused = (answer.status != 200).then_some(answer);
        refused.is_some()
    });
    told_to_come_again(&refused.expect("waited for"));
    assert_eq!(line(&home, STRANGER).ask(&signed(&home, small, None)).status, 200);
    assert_eq!(slow.ask(rest).status, 200);
    assert_eq!(process.metric(&deliveries("stripe", "rate_limited")), Some(1.0));
}

#[test]
fn a_request_below_min_rate_is_cut_long_before_its_deadline() {
    let home = home("min_rate_after = \"100ms\"\nrequest_deadline = \"10m\"", "");
    let process = home.start();
    let request = genuine(&home, "a");
    for (sent, source) in [(10, "-"), (request.len() - 1, "stripe")] {
        let mut line = line(&home, PROVIDER);
        line.send(&request[..sent]);
        assert_eq!(line.answer().status, 408);
        assert_eq!(process.metric(&deliveries(source, "too_slow")), Some(1.0));
    }
}

#[test]
fn a_new_connection_has_no_more_time_for_its_first_byte_than_a_request() {
    let home = home("request_deadline = \"100ms\"\nidle_timeout = \"1h\"", "");
    let process = home.start();
    assert_eq!(line(&home, PROVIDER).rest(), b"");
    assert!(process.deliveries().values().all(|count| *count == 0));
}

#[test]
fn a_source_has_max_rate_and_only_genuine_deliveries_use_it_up() {
    let home = home("", "max_rate = \"2/h\"");
    let process = home.start();
    let mut line = line(&home, PROVIDER);
    for _ in 0..5 {
        assert_eq!(line.ask(&forged(&home, 100)).status, 401);
    }
    let mut statuses = ["a", "b", "b"].map(|id| line.ask(&genuine(&home, id)));
    assert_eq!(statuses.each_ref().map(|answer| answer.status), [200, 200, 429]);
    let seconds = told_to_come_again(&statuses[2]);
    assert!((1..=1800).contains(&seconds), "{seconds}");
    statuses[0] = self::line(&home, STRANGER).ask(&genuine(&home, "c"));
    assert_eq!(statuses[0].status, 429, "whatever its address");
    assert_eq!(process.metric(&deliveries("stripe", "rate_limited")), Some(2.0));
    assert_eq!(process.metric(&deliveries("stripe", "stored")), Some(2.0));
}

#[test]
fn an_address_has_max_refused_per_address_and_is_then_not_looked_at() {
    let home = home("max_rejected_per_address = \"3/h\"", "");
    let process = home.start();
    let mut line = line(&home, STRANGER);
    assert_eq!([(); 3].map(|()| line.ask(&forged(&home, 100)).status), [401; 3]);
    let began = Instant::now();
    for request in [forged(&home, 100), genuine(&home, "a")] {
        let seconds = told_to_come_again(&line.ask(&request));
        assert!((1..=1200).contains(&seconds), "{seconds}");
    }
    assert!(began.elapsed() >= Duration::from_millis(200), "each of them is made to wait");
    let answer = line.ask(&signed(&home, body(1 << 20), None));
    assert!(answer.status == 429 && answer.head.contains("connection: close\r\n"), "a large body is not even read: {answer:?}");
    assert_eq!(process.metric(&deliveries("stripe", "signature_mismatch")), Some(3.0));
    assert_eq!(process.metric(&deliveries("stripe", "rate_limited")), Some(3.0));
    assert!(home.log().contains("the last rejection was signature_mismatch"), "{}", home.log());
    assert_eq!(self::line(&home, PROVIDER).ask(&genuine(&home, "a")).status, 200);
}

#[test]
fn an_address_beyond_its_refusals_is_put_off_whatever_it_asks_for() {
    let home = home("max_rejected_per_address = \"2/h\"", "");
    let process = home.start();
    let mut line = line(&home, STRANGER);
    let nobodys = b"POST /wp-login.php HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}";
    for _ in 0..2 {
        assert_eq!(self::line(&home, STRANGER).ask(nobodys).status, 404);
    }
    let began = Instant::now();
    for _ in 0..2 {
        told_to_come_again(&line.ask(nobodys));
    }
    assert!(began.elapsed() >= Duration::from_millis(200), "each of them is made to wait");
    assert_eq!(process.metric(&deliveries("-", "unknown_source")), Some(2.0));
    assert_eq!(process.metric(&deliveries("-", "rate_limited")), Some(2.0));
    assert_eq!(self::line(&home, PROVIDER).ask(nobodys).status, 404);
}

#[test]
fn a_large_refused_body_weighs_more() {
    let home = home("max_rejected_per_address = \"20/h\"", "");
    let _process = home.start();
    let mut line = line(&home, STRANGER);
    assert_eq!([(); 3].map(|()| line.ask(&forged(&home, 640 * 1024)).status), [401, 401, 429]);
}

#[test]
fn an_address_that_has_delivered_is_never_limited_for_what_others_send_from_it() {
    let home = home("max_rejected_per_address = \"3/h\"", "");
    let process = home.start();
    assert_eq!(line(&home, PROVIDER).ask(&genuine(&home, "a")).status, 200);
    let mut line = line(&home, PROVIDER);
    assert_eq!([(); 10].map(|()| line.ask(&forged(&home, 100)).status), [401; 10]);
    assert_eq!(line.ask(&genuine(&home, "b")).status, 200);
    assert_eq!(process.metric(&deliveries("stripe", "rate_limited")), Some(0.0));
}

#[test]
fn no_more_than_max_addresses_are_remembered_and_only_those_that_matter() {
    let home = home("max_addresses = 5\nmax_rejected_per_address = \"1/h\"", "");
    let process = home.start();
    let tracked = || process.metric("hookhold_addresses_tracked");
    for last in 1..=20 {
        let silent = line(&home, Ipv4Addr::new(127, 0, 1, last));
        wait_until("the connection is known", || tracked() == Some(1.0));
        drop(silent);
        wait_until("who did nothing is forgotten", || tracked() == Some(0.0));
    }
    for last in 1..=20 {
        assert_eq!(line(&home, Ipv4Addr::new(127, 0, 2, last)).ask(&forged(&home, 100)).status, 401);
        wait_until("its connection is closed", || tracked() == Some(f64::from(last.min(5))));
    }
    assert_eq!(line(&home, Ipv4Addr::new(127, 0, 2, 20)).ask(&forged(&home, 100)).status, 429, "the latest are remembered");
    assert_eq!(line(&home, Ipv4Addr::new(127, 0, 2, 1)).ask(&forged(&home, 100)).status, 401, "the oldest are not");
}

#[test]
fn a_source_takes_deliveries_only_from_where_its_list_says() {
    let home = home("", "allow_from = [\"127.0.0.2\", \"127.0.3.0/24\"]");
    let process = home.start();
    for from in [STRANGER, Ipv4Addr::new(127, 0, 3, 99)] {
        assert_eq!(line(&home, from).ask(&genuine(&home, "a")).status, 200);
    }
    for from in [PROVIDER, FORGER, Ipv4Addr::new(127, 0, 4, 1)] {
        let answer = line(&home, from).ask(&genuine(&home, "b"));
        assert!(answer.status == 401 && answer.head.contains("connection: close\r\n"), "before its body is read: {answer:?}");
    }
    assert_eq!(process.metric(&deliveries("stripe", "address_not_allowed")), Some(3.0));
}

/// A home with the source `stripe`, with more lines for `[server]` and for the source.
fn home(server: &str, source: &str) -> Home {
    let server: String = server.lines().map(|line| format!("server.{line}\n")).collect();
    let config = fixture::config(&[("stripe", "webhooks.stripe")], None);
    Home::new(&[("secret", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0")], &format!("{server}{config}{source}\n"))
}

fn deliveries(source: &str, outcome: &str) -> String {
    format!("hookhold_deliveries_total{{outcome=\"{outcome}\",source=\"{source}\"}}")
}

fn told_to_come_again(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 429);
    let after = answer.head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    after.expect("it says when").parse().expect("a number of seconds")
}

fn line(home: &Home, from: Ipv4Addr) -> Line {
    Line::open_from(from, home.hooks)
}

fn genuine(home: &Home, id: &str) -> Vec<u8> {
    load::request(&source(home), id.to_owned())
}

fn forged(home: &Home, size: usize) -> Vec<u8> {
    signed(home, body(size), Some(Tamper::Secret))
}

fn signed(home: &Home, body: Bytes, tamper: Option<Tamper>) -> Vec<u8> {
    let options = SampleOptions { id: String::new(), event_type: None, key: None, now: SystemClock.now(), tamper };
    let sample = sign(&source(home), Some(body), &options);
    let text = |value: &http::HeaderValue| value.to_str().expect("signed headers are text").to_owned();
    let headers: Vec<_> = sample.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    post(&sample.target, &headers, &sample.body)
}

fn source(home: &Home) -> Arc<Source> {
    fixture::source(home, "stripe")
}

/// A Stripe event of at least so many bytes, with an id of its own.
fn body(size: usize) -> Bytes {
    format!(r#"{{"id":"evt_{}","type":"invoice.paid","note":"{}"}}"#, fastrand::u64(..), "x".repeat(size)).into()
}

/// The most memory that the process has had resident, in bytes: `VmHWM` in proc(5).
fn peak_memory(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}
