//! Runs the real binary and tests its limits on unknown senders. An attack must not affect genuine senders at other addresses.
//! Each sender connects from its own loopback address.

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
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;

use attack::Attack;
use bytes::Bytes;
use hookhold::clock::{Clock, SystemClock};
use hookhold::source::Source;
use hookhold::verify::sign::{SampleOptions, Tamper, sign};
use load::{Ledger, Load, Order};
use process::{Answer, Home, Line, Process, post, wait_until};
use rustix::process::Signal;

const PROVIDER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const FORGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const HOARDER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
/// Counter of the addresses that hookhold has limited.
const LIMITED: &str = "hookhold_addresses_limited_total";

#[test]
fn genuine_deliveries_get_2xx_during_a_full_speed_attack() {
    attack::raise_file_limit();
    let home = home("max_in_flight = \"64 MiB\"\nmax_in_flight_per_address = \"32 MiB\"", "");
    let process = home.start();
    let attack = Attack::new(home.hooks);
    attack.trickle(OTHER, 1_000, &genuine(&home, "trickle"));
    attack.hoard(HOARDER, 64, &signed(&home, body(2 << 20), None), 1 << 20);
    attack.forge(FORGER, 64, &forged(&home, 2_000));
    wait_until("all attackers have connected", || attack.opened() >= 1_000 + 64 + 64);
    let order = Order { connections: 32, duplicate_percent: 0, ..fixture::order(&home, "stripe") };
    let load = Load::start(order, Ledger::new("genuine"));
    load.wait_until_accepted(3_000);
    let counted = |source: &str, outcome: &str| {
        process.metric(&deliveries(source, outcome)).expect("every outcome has a counter from the start")
    };
    wait_until("every trickling connection has been cut", || counted("-", "too_slow") >= 1_000.0);
    wait_until("the forger is limited", || process.metric(LIMITED).is_some_and(|count| count > 0.0));
    load.stop().assert_no_sender_noticed();
    assert!(attack.forger_statuses().keys().eq([&401]), "its deliveries are still verified");
    drop(attack);
    assert!(
        home.log().contains("bodies in flight: expected at most max_in_flight_per_address"),
        "the hoarding clients filled their budget"
    );
    let peak = peak_memory(&process);
    println!("peak memory: {peak} bytes");
    assert!(peak < (64 << 20) + 100_000_000, "{peak} bytes resident");
}

#[test]
fn a_silent_connection_and_then_the_oldest_one_of_an_address_makes_room_for_a_newer_one() {
    let home = home("max_connections_per_address = 2\nrequest_deadline = \"10m\"", "");
    let process = home.start();
    let request = genuine(&home, "a");
    let text = String::from_utf8(request.clone()).expect("text").replacen("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n", 1);
    let rejected = || process.metric("hookhold_connections_rejected_total{cause=\"per_address\"}");
    let (mut dripping, mut silent) = (line(&home, PROVIDER), line(&home, PROVIDER));
    let begun = &text.as_bytes()[..text.len() - 100];
    assert_eq!(dripping.ask(begun).status, 100);
    let mut newer = line(&home, PROVIDER);
    assert_eq!(newer.ask(begun).status, 100, "the silent connection makes room");
    assert!(silent.rest().is_empty());
    assert_eq!(rejected(), Some(1.0));
    let mut genuine = line(&home, PROVIDER);
    assert_eq!(genuine.ask(&request).status, 200, "a new connection is never turned away");
    retry_after(&dripping.answer());
    assert_eq!(rejected(), Some(2.0));
    assert_eq!(process.metric(&deliveries("stripe", "rate_limited")), Some(1.0), "the incomplete request has an outcome");
    assert!(home.log().contains("address=127.0.0.1 suppressed=0 hint=\"open connections: expected at most"), "{}", home.log());
    let mut others: Vec<Line> = (0..3).map(|_| line(&home, PROVIDER)).collect();
    for line in others.iter_mut().chain([&mut genuine]) {
        assert_eq!(line.ask(&request).status, 200, "the address is known good, so it has no limit");
    }
}

#[test]
fn connections_of_many_addresses_make_room_for_another_address() {
    let home = home("max_connections = 8\nmax_connections_per_address = 4", "");
    let process = home.start();
    let attacker = |last: u8| (0..20).map(|_| line(&home, Ipv4Addr::new(127, 0, 1, last))).collect::<Vec<_>>();
    let attackers: Vec<Line> = (1..=3).flat_map(attacker).collect();
    for number in 0..10 {
        assert_eq!(line(&home, PROVIDER).ask(&genuine(&home, &number.to_string())).status, 200);
    }
    drop(attackers);
    let rejected = |cause| process.metric(&format!("hookhold_connections_rejected_total{{cause=\"{cause}\"}}"));
    assert!(rejected("per_address") > Some(0.0) && rejected("max_connections") > Some(0.0));
}

#[test]
fn an_unfinished_body_makes_room_for_a_newer_one() {
    let limits = "max_in_flight_per_address = \"1 MiB\"\nrequest_deadline = \"10m\"\nmax_rejected_per_address = \"1000000/s\"";
    let home = home(limits, "");
    let process = home.start();
    let large = forged(&home, 2 << 20);
    assert_eq!(line(&home, FORGER).ask(&large).status, 401, "a single body may exceed the limit");
    let text = String::from_utf8(large.clone()).expect("text").replacen("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n", 1);
    let (head, body) = text.split_at(text.find("\r\n\r\n").expect("a head") + 4);
    let mut slow = line(&home, FORGER);
    assert_eq!(slow.ask(head.as_bytes()).status, 100, "from now on, its body is older than the others");
    slow.send(&body.as_bytes()[..body.len() - 100]);
    let slow = thread::spawn(move || slow.answer());
    wait_until("the slow body has made room", || {
        assert_eq!(line(&home, FORGER).ask(&large).status, 401);
        slow.is_finished()
    });
    retry_after(&slow.join().expect("no panic"));
    assert_eq!(process.metric(&deliveries("stripe", "rate_limited")), Some(1.0));
}

/// An address may have six of the sixteen requests under way. Each forged delivery costs much work, so the next ones of the limited
/// address wait for seconds.
#[test]
fn a_delivery_that_waits_for_a_turn_makes_room_for_a_genuine_one() {
    let home = with_three_secrets("server.max_requests = 16\nserver.max_rejected_per_address = \"1/h\"");
    let process = home.start();
    let forged = forged_groups(&body((5 << 20) - 100), 8);
    for _ in 0..2 {
        assert_eq!(line(&home, FORGER).ask(&forged).status, 401);
    }
    assert_eq!(process.metric(LIMITED), Some(1.0));
    let mut waiting: Vec<Line> = (0..6).map(|_| line(&home, FORGER)).collect();
    waiting.iter_mut().for_each(|line| line.send(&forged));
    wait_until("hookhold has read every request", || unread_bytes(home.hooks.port()) == 0);
    assert_eq!(line(&home, FORGER).ask(&genuine(&home, "a")).status, 200);
    wait_until("one of them has made room", || process.metric(&deliveries("stripe", "rate_limited")) == Some(1.0));
}

#[test]
fn a_small_body_needs_no_room_in_the_budget_of_its_address() {
    let home = home("max_in_flight_per_address = \"1 MiB\"\nrequest_deadline = \"10m\"", "");
    let process = home.start();
    let large = forged(&home, 2 << 20);
    let mut slow = line(&home, FORGER);
    let (start, rest) = large.split_at(large.len() - 100);
    slow.send(start);
    for number in 0..20 {
        assert_eq!(line(&home, FORGER).ask(&forged(&home, 1 << 10)).status, 401, "delivery {number}");
    }
    assert_eq!(line(&home, FORGER).ask(&genuine(&home, "a")).status, 200);
    assert_eq!(slow.ask(rest).status, 401);
    assert_eq!(process.metric(&deliveries("stripe", "rate_limited")), Some(0.0));
}

#[test]
fn a_request_below_min_rate_ends_before_its_deadline() {
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
fn a_silent_new_connection_closes_after_request_deadline() {
    let home = home("request_deadline = \"100ms\"\nidle_timeout = \"1h\"", "");
    let process = home.start();
    assert_eq!(line(&home, PROVIDER).rest(), b"");
    assert!(process.deliveries().values().all(|count| *count == 0));
}

#[test]
fn only_genuine_deliveries_count_towards_max_rate() {
    let home = home("", "max_rate = \"2/h\"");
    let process = home.start();
    let mut line = line(&home, PROVIDER);
    for _ in 0..5 {
        assert_eq!(line.ask(&forged(&home, 100)).status, 401);
    }
    let mut statuses = ["a", "b", "b"].map(|id| line.ask(&genuine(&home, id)));
    assert_eq!(statuses.each_ref().map(|answer| answer.status), [200, 200, 429]);
    let seconds = retry_after(&statuses[2]);
    assert!((1..=1800).contains(&seconds), "{seconds}");
    statuses[0] = self::line(&home, OTHER).ask(&genuine(&home, "c"));
    assert_eq!(statuses[0].status, 429, "the limit applies to every address");
    assert_eq!(process.metric(&deliveries("stripe", "rate_limited")), Some(2.0));
    assert_eq!(process.metric(&deliveries("stripe", "stored")), Some(2.0));
}

/// GitHub sends no delivery again, so a limit must not reject a genuine one.
#[test]
fn a_genuine_delivery_passes_and_ends_the_limit_of_its_address() {
    let home = home("max_rejected_per_address = \"3/h\"", "");
    let process = home.start();
    for (from, size) in [(OTHER, 1 << 10), (FORGER, 3 << 20)] {
        let mut line = line(&home, from);
        assert_eq!([(); 4].map(|()| line.ask(&forged(&home, 100)).status), [401; 4], "also beyond the limit");
        assert_eq!(line.ask(&signed(&home, body(size), None)).status, 200);
        assert_eq!([(); 10].map(|()| line.ask(&forged(&home, 100)).status), [401; 10]);
    }
    assert_eq!(process.metric(LIMITED), Some(2.0), "each address was limited once, before its genuine delivery");
    assert!(home.log().contains("address limited address=127.0.0.2 last_rejection=\"signature_mismatch\""), "{}", home.log());
    assert_eq!(process.metric(&deliveries("stripe", "rate_limited")), Some(0.0));
}

#[test]
fn unknown_paths_and_methods_never_limit_an_address() {
    let home = home("max_rejected_per_address = \"1/h\"", "");
    let process = home.start();
    let mut line = line(&home, OTHER);
    for (method, path, status) in [("GET", "/wp-login.php", 404), ("POST", "/", 404), ("PUT", "/hooks/stripe", 405)] {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
        assert_eq!([(); 20].map(|()| line.ask(request.as_bytes()).status), [status; 20]);
    }
    assert_eq!(process.metric(LIMITED), Some(0.0));
    assert_eq!(line.ask(&genuine(&home, "a")).status, 200);
}

#[test]
fn rejections_never_limit_an_address_in_allow_from() {
    let home = home("max_rejected_per_address = \"1/h\"", "allow_from = [\"127.0.0.2\"]");
    let process = home.start();
    let mut line = line(&home, OTHER);
    assert_eq!([(); 10].map(|()| line.ask(&forged(&home, 100)).status), [401; 10]);
    assert_eq!(process.metric(LIMITED), Some(0.0));
}

#[test]
fn a_large_rejected_body_counts_more_than_once() {
    let home = home("max_rejected_per_address = \"20/h\"", "");
    let process = home.start();
    let mut line = line(&home, OTHER);
    for limited in [0.0, 1.0, 1.0] {
        assert_eq!(line.ask(&forged(&home, 640 * 1024)).status, 401);
        assert_eq!(process.metric(LIMITED), Some(limited));
    }
}

/// One request with eight signature groups makes hookhold hash its body once for each group and secret: 24 times here, which is
/// 120 MiB. It counts like 1,921 rejections, once and once more for each 64 KiB.
#[test]
fn a_rejection_counts_by_the_bytes_that_it_made_hookhold_hash() {
    let home = with_three_secrets("server.max_rejected_per_address = \"2000/h\"");
    let process = home.start();
    let body = body((5 << 20) - 100);
    let until_limited = |from, groups| {
        let (before, mut count) = (process.metric(LIMITED), 0);
        while process.metric(LIMITED) == before {
            assert_eq!(line(&home, from).ask(&forged_groups(&body, groups)).status, 401);
            count += 1;
        }
        count
    };
    // One request of 1,921 fits into the allowance of 2,000, and the second one exceeds it.
    assert_eq!(until_limited(FORGER, 8), 2);
    // With one group, a request counts like 241 rejections, and eight of them fit.
    assert_eq!(until_limited(OTHER, 1), 9);
    for _ in 0..50 {
        assert_eq!(line(&home, HOARDER).ask(&forged_groups(&body, 9)).status, 401, "rejected before the body is read");
    }
    assert_eq!(process.metric(&deliveries("stripe", "signature_malformed")), Some(50.0));
    assert_eq!(process.metric(LIMITED), Some(2.0));
    assert_eq!(line(&home, PROVIDER).ask(&genuine(&home, "a")).status, 200);
}

#[test]
fn known_good_addresses_survive_a_restart() {
    let home = home("max_rejected_per_address = \"1/h\"", "");
    let process = home.start();
    assert_eq!(line(&home, OTHER).ask(&genuine(&home, "a")).status, 200);
    let file = home.journal().join("senders");
    wait_until("the address is saved", || file.exists());
    process.signal(Signal::KILL);
    process.wait();
    let limited_after_rejections = |from: Ipv4Addr| {
        let process = home.start();
        let mut line = line(&home, from);
        assert_eq!([(); 5].map(|()| line.ask(&forged(&home, 100)).status), [401; 5]);
        process.metric(LIMITED)
    };
    assert_eq!((limited_after_rejections(OTHER), limited_after_rejections(FORGER)), (Some(0.0), Some(1.0)));
    std::fs::write(&file, b"hookgood damaged").expect("the journal's directory can be written to");
    assert_eq!(limited_after_rejections(OTHER), Some(1.0));
    assert!(home.log().contains("found a damaged one"), "{}", home.log());
    std::fs::remove_file(&file).expect("the file exists");
    assert_eq!(limited_after_rejections(OTHER), Some(1.0));
}

#[test]
fn only_rejected_addresses_are_tracked_up_to_max_addresses() {
    let home = home("max_addresses = 5\nmax_rejected_per_address = \"1/h\"", "");
    let process = home.start();
    let tracked = || process.metric("hookhold_addresses_tracked");
    for last in 1..=20 {
        let silent = line(&home, Ipv4Addr::new(127, 0, 1, last));
        wait_until("the connection is counted", || tracked() == Some(1.0));
        drop(silent);
        wait_until("an address without a rejection is no longer tracked", || tracked() == Some(0.0));
    }
    for last in 1..=20 {
        assert_eq!(line(&home, Ipv4Addr::new(127, 0, 2, last)).ask(&forged(&home, 100)).status, 401);
        wait_until("the address is tracked and its connection is closed", || tracked() == Some(f64::from(last.min(5))));
    }
    let limited_again = |last| {
        let before = process.metric(LIMITED);
        assert_eq!(line(&home, Ipv4Addr::new(127, 0, 2, last)).ask(&forged(&home, 100)).status, 401);
        process.metric(LIMITED) > before
    };
    assert!(!limited_again(20), "the newest addresses are tracked");
    assert!(limited_again(1), "the oldest addresses are not tracked");
}

#[test]
fn a_source_accepts_deliveries_only_from_allow_from() {
    let home = home("", "allow_from = [\"127.0.0.2\", \"127.0.3.0/24\"]");
    let process = home.start();
    for from in [OTHER, Ipv4Addr::new(127, 0, 3, 99)] {
        assert_eq!(line(&home, from).ask(&genuine(&home, "a")).status, 200);
    }
    for from in [PROVIDER, FORGER, Ipv4Addr::new(127, 0, 4, 1)] {
        let answer = line(&home, from).ask(&genuine(&home, "b"));
        assert!(
            answer.status == 401 && answer.head.contains("connection: close\r\n"),
            "rejected before its body is read: {answer:?}"
        );
    }
    assert_eq!(process.metric(&deliveries("stripe", "address_not_allowed")), Some(3.0));
}

/// Creates a `Home` whose configuration has the source `stripe`. `server` contains additional options for `[server]`, and
/// `source` contains additional options for the source.
fn home(server: &str, source: &str) -> Home {
    let server: String = server.lines().map(|line| format!("server.{line}\n")).collect();
    let config = fixture::config(&[("stripe", "webhooks.stripe")], None);
    Home::new(&[("secret", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0")], &format!("{server}{config}{source}\n"))
}

/// Creates a `Home` whose source `stripe` has three secrets. `server` contains options such as `server.max_requests`.
fn with_three_secrets(server: &str) -> Home {
    let config = fixture::config(&[("stripe", "webhooks.stripe")], None);
    let config = config.replace("[\"file:secret\"]", "[\"file:secret\", \"file:second\", \"file:third\"]");
    let secrets = [("secret", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0"), ("second", "whsec_c2Vjb25k"), ("third", "whsec_dGhpcmQ")];
    Home::new(&secrets, &format!("{server}\n{config}"))
}

/// Returns a delivery with this number of wrong signature groups. hookhold hashes the body once for each group and secret.
fn forged_groups(body: &[u8], groups: usize) -> Vec<u8> {
    let header = (0..groups).map(|group| ("Stripe-Signature".to_owned(), format!("t={group},v1={}", "0".repeat(64))));
    post("/hooks/stripe", &header.collect::<Vec<_>>(), body)
}

/// Returns the number of bytes that wait in the sockets of the connections to this port (`/proc/net/tcp` in proc(5)).
fn unread_bytes(port: u16) -> u64 {
    let port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp can be read");
    let connections = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_port = connections.filter(|fields| fields[1].ends_with(&port) || fields[2].ends_with(&port));
    let queues = of_port.flat_map(|fields| fields[4].split(':').map(str::to_owned).collect::<Vec<_>>());
    queues.map(|bytes| u64::from_str_radix(&bytes, 16).expect("a queue has a hexadecimal length")).sum()
}

fn deliveries(source: &str, outcome: &str) -> String {
    format!("hookhold_deliveries_total{{outcome=\"{outcome}\",source=\"{source}\"}}")
}

/// Asserts that the response has the status 429, and returns the value of `Retry-After` in seconds.
fn retry_after(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 429);
    let after = answer.head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    after.expect("a Retry-After header").parse().expect("a number of seconds")
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
    let sample = sign(&source(home), Some(body), &options).expect("the source has a secret");
    let text = |value: &http::HeaderValue| value.to_str().expect("signed headers are text").to_owned();
    let headers: Vec<_> = sample.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    post(&sample.target, &headers, &sample.body)
}

fn source(home: &Home) -> Arc<Source> {
    fixture::source(home, "stripe")
}

/// Returns the body of a Stripe event that has a random id. The body is at least `size` bytes long.
fn body(size: usize) -> Bytes {
    format!(r#"{{"id":"evt_{}","type":"invoice.paid","note":"{}"}}"#, fastrand::u64(..), "x".repeat(size)).into()
}

/// Returns the peak resident memory of the process in bytes (`VmHWM` in proc(5)).
fn peak_memory(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM is in /proc");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}
