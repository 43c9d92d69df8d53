//! Tests of hand-overs that fail: one of the two processes ends at each step, or a third process asks.

use std::fs;

use rustix::process::Signal;

use crate::fixture::{self, frames};
use crate::load::request;
use crate::peer::Peer;
use crate::process::{Answer, Home, Line, Process, wait_until};
use crate::rig::{Rig, TOPIC, wait_until_ready};

fn delivery(home: &Home, id: &str) -> Vec<u8> {
    request(&fixture::source(home, "stripe"), id.to_owned())
}

fn deliver(home: &Home, id: &str) -> Answer {
    Line::open(home.hooks).ask(&delivery(home, id))
}

/// Opens a connection, sends the head of a delivery, waits for the 100 response, and sends the body except for its last bytes.
/// Returns the connection and these bytes.
fn begin_upload(home: &Home, id: &str) -> (Line, Vec<u8>) {
    let upload = String::from_utf8(delivery(home, id)).expect("the body is text");
    let (head, body) = upload.split_once("\r\n\r\n").expect("a head");
    let mut line = Line::open(home.hooks);
    assert_eq!(line.ask(format!("{head}\r\nexpect: 100-continue\r\n\r\n").as_bytes()).status, 100);
    let (first, rest) = body.split_at(body.len() - 10);
    line.send(first.as_bytes());
    (line, rest.as_bytes().to_vec())
}

/// Waits until the hand-over number `number` has been cancelled, and asserts that the process serves as before.
fn assert_serves_again(home: &Home, process: &Process<'_>, number: usize) {
    wait_until("the hand-over is cancelled", || home.log().matches("hand-over cancelled").count() == number);
    let mut line = Line::open(home.hooks);
    for part in ["a", "b"] {
        let answer = line.ask(&delivery(home, &format!("evt_{number}_{part}")));
        assert_eq!(answer.status, 200);
        assert!(!answer.head.contains("connection: close"), "normal service:\n{}", answer.head);
    }
    wait_until_ready(process);
    assert_eq!(process.metric("hookhold_handovers_total{result=\"cancelled\"}"), Some(number as f64));
}

#[test]
fn a_new_process_that_ends_early_changes_nothing() {
    let rig = Rig::plain("server.drain_delay = \"10m\"\n");
    let home = &rig.home;
    let process = home.start();
    drop(Peer::connect(home));
    assert_serves_again(home, &process, 1);
    drop(Peer::with_offer(home));
    assert_serves_again(home, &process, 2);
    // An idle connection holds the running process in the first phase.
    let mut idle = Line::open(home.hooks);
    assert_eq!(idle.ask(&delivery(home, "evt_idle")).status, 200);
    let mut peer = Peer::with_offer(home);
    peer.say("ready shared");
    wait_until("the first phase has begun", || home.log().contains("handing over; each connection closes"));
    let answer = deliver(home, "evt_leaving");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("\r\nconnection: close\r\n"), "{}", answer.head);
    drop(peer);
    assert_serves_again(home, &process, 3);
    drop((idle, process));
    assert_eq!(frames(home, TOPIC).len(), 8);
}

#[test]
fn a_new_process_that_ends_after_the_switch_gives_everything_back() {
    let rig = Rig::plain("server.drain_delay = \"0s\"\n");
    let home = &rig.home;
    let process = home.start();
    for number in 1..=2 {
        let (mut line, rest) = begin_upload(home, &format!("evt_upload_{number}"));
        let mut peer = Peer::with_offer(home);
        peer.say("ready shared");
        assert_eq!(peer.hear(), "switch");
        drop(peer);
        assert_serves_again(home, &process, number);
        let answer = line.ask(&rest);
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("\r\nconnection: close\r\n"), "{}", answer.head);
    }
    assert_eq!(frames(home, TOPIC).len(), 6);
    fixture::stop(process);
}

#[test]
fn a_killed_new_process_leaves_the_running_one_in_service() {
    let rig = Rig::plain("server.drain_delay = \"10m\"\n");
    let home = &rig.home;
    let process = home.start();
    let mut idle = Line::open(home.hooks);
    assert_eq!(idle.ask(&delivery(home, "evt_idle")).status, 200);
    let next = home.launch_args(&["--take-over"]);
    wait_until("the first phase has begun", || home.log().contains("handing over; each connection closes"));
    next.signal(Signal::KILL);
    assert_serves_again(home, &process, 1);
}

#[test]
fn a_killed_running_process_leaves_the_new_one_in_service() {
    for (drain_delay, step) in [("10m", "handing over; each connection closes"), ("0s", "holding them until this process")] {
        let rig = Rig::plain(&format!("server.drain_delay = \"{drain_delay}\"\n"));
        let home = &rig.home;
        let process = home.start();
        assert_eq!(deliver(home, "evt_before").status, 200);
        let (upload, _) = begin_upload(home, "evt_upload");
        let next = home.launch_args(&["--take-over"]);
        wait_until("the step is reached", || home.log().contains(step));
        process.signal(Signal::KILL);
        process.wait();
        assert_eq!(deliver(home, "evt_after").status, 200);
        wait_until_ready(&next);
        drop(upload);
        let ids: Vec<String> = frames(home, TOPIC).into_iter().map(|found| found.id).collect();
        assert_eq!(ids, ["evt_before", "evt_after"]);
    }
}

#[test]
fn an_unfinished_upload_gets_503_at_the_switch() {
    let rig = Rig::plain("server.drain_delay = \"0s\"\n");
    let home = &rig.home;
    let process = home.start();
    let (mut line, _) = begin_upload(home, "evt_upload");
    let next = home.launch_args(&["--take-over"]);
    let answer = line.answer();
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("\r\nretry-after: "), "{}", answer.head);
    assert_eq!(process.wait().code(), Some(0));
    assert_eq!(deliver(home, "evt_upload").status, 200);
    assert_eq!(frames(home, TOPIC).len(), 1);
    fixture::stop(next);
}

#[test]
fn a_third_process_is_rejected_during_a_hand_over() {
    let rig = Rig::plain("server.drain_delay = \"10m\"\n");
    let home = &rig.home;
    let process = home.start();
    let mut peer = Peer::with_offer(home);
    assert_eq!(home.launch_args(&["--take-over"]).wait().code(), Some(1));
    let named = |line: &str| line.starts_with("hookhold: hand-over: ") && line.contains("found one under way");
    assert!(home.log().lines().any(named), "{}", home.log());
    peer.say("ready shared");
    assert_eq!(peer.hear(), "switch", "the hand-over under way continues");
    drop(peer);
    drop(process);
}

#[test]
fn a_peer_of_another_version_is_rejected() {
    let rig = Rig::plain("");
    let process = rig.home.start();
    let mut peer = Peer::connect(&rig.home);
    peer.say("hello 2 4711 9.9.9");
    assert!(peer.hear().starts_with("rejected expected messages of version 1, found version 2; "));
    assert_serves_again(&rig.home, &process, 1);
}

#[test]
fn a_changed_address_gets_a_listener_of_its_own() {
    let rig = Rig::plain("");
    let home = &rig.home;
    let process = home.start();
    let text = fs::read_to_string(home.journal().with_file_name("hookhold.toml")).expect("a home has a configuration");
    let (other, _reserved) = crate::ports::reserve();
    home.put("other.toml", text.replace(&home.hooks.to_string(), &other.to_string()).as_bytes());
    let next = home.launch_args(&["--take-over", "--config", "other.toml"]);
    assert_eq!(process.wait().code(), Some(0));
    wait_until_ready(&next);
    assert_eq!(Line::open(other).ask(&delivery(home, "evt_1")).status, 200);
    assert!(Line::try_open(home.hooks).is_none(), "the earlier address is closed");
    fixture::stop(next);
}

#[test]
fn an_unreachable_kafka_does_not_delay_a_hand_over() {
    // A delivery must be answered within 2.4 s, as Slack's. The client would wait much longer for its last acknowledgements.
    let kafka = "[kafka]\nbootstrap.servers = \"127.0.0.1:9\"\n";
    let rig = Rig::plain(kafka);
    rig.respond_within("3s");
    super::hand_over_twice(&rig, super::RATE);
}
