//! Tests of a process that has the listening sockets but not yet the journal. The test plays the earlier process.

use crate::fixture::{self, frames, page};
use crate::load::request;
use crate::peer::{FakePredecessor, Peer};
use crate::process::{Home, Line, Process, wait_until};
use crate::rig::{Rig, TOPIC, wait_until_ready};

const PATIENT: &str = "server.request_deadline = \"10m\"\nserver.min_rate_after = \"100ms\"\nserver.min_rate = \"1 MiB\"\n";
/// A source whose deliveries must be answered within 0.8 s. The others have four minutes.
const HASTY: &str = "[sources.hasty]\nprovider = \"stripe\"\nsecrets = [\"file:secret\"]\nlimits.respond_within = \"1s\"\n";

/// Returns a rig whose journal exists, with `limits.respond_within` of five minutes.
fn rig(sources: &str) -> Rig {
    let rig = Rig::plain(&format!("{PATIENT}{sources}"));
    rig.respond_within("5m");
    fixture::stop(rig.home.start());
    rig
}

/// Starts a process that takes over, up to the moment at which it accepts.
fn held<'a>(home: &'a Home, predecessor: &FakePredecessor) -> (Process<'a>, Peer) {
    let process = home.launch_args(&["--take-over"]);
    let mut peer = predecessor.offer();
    peer.say("switch");
    (process, peer)
}

fn delivery(home: &Home, source: &str, id: &str) -> Vec<u8> {
    request(&fixture::source(home, source), id.to_owned())
}

#[test]
fn held_deliveries_are_stored_when_the_journal_is_released() {
    let rig = rig("");
    let home = &rig.home;
    let predecessor = FakePredecessor::new(home);
    let (process, mut peer) = held(home, &predecessor);
    let mut lines: Vec<Line> = (0..5).map(|_| Line::open(home.hooks)).collect();
    for (number, line) in lines.iter_mut().enumerate() {
        line.send(&delivery(home, "stripe", &format!("evt_{number}")));
    }
    wait_until("the process accepts", || process.ready() == Some(200));
    assert_eq!(page(home, "/livez").0, 200);
    let (_, readiness) = page(home, "/readyz");
    assert!(readiness.contains("hand-over: waits until the previous process has closed the journal"), "{readiness}");
    let (_, status) = page(home, "/api/status");
    assert!(status.contains("hand-over: waits"), "{status}");
    predecessor.release(&mut peer);
    for line in &mut lines {
        assert_eq!(line.answer().status, 200);
    }
    wait_until_ready(&process);
    assert_eq!(process.metric("hookhold_handovers_total{result=\"taken\"}"), Some(1.0));
    assert_eq!(frames(home, TOPIC).len(), 5);
    fixture::stop(process);
}

#[test]
fn a_held_delivery_gets_503_at_its_deadline() {
    let rig = rig(HASTY);
    let home = &rig.home;
    let predecessor = FakePredecessor::new(home);
    let (process, mut peer) = held(home, &predecessor);
    let mut patient = Line::open(home.hooks);
    let upload = delivery(home, "stripe", "evt_patient");
    // `min_rate` does not apply to an upload that the server does not read.
    patient.send(&upload[..upload.len() - 10]);
    let answer = Line::open(home.hooks).ask(&delivery(home, "hasty", "evt_hasty"));
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("\r\nretry-after: "), "{}", answer.head);
    assert!(home.log().contains("outcome=\"deadline\""), "{}", home.log());
    wait_until("the process is not ready", || process.ready() == Some(503));
    assert_eq!(page(home, "/livez").0, 200);
    patient.send(&upload[upload.len() - 10..]);
    predecessor.release(&mut peer);
    assert_eq!(patient.answer().status, 200);
    wait_until_ready(&process);
    assert_eq!(Line::open(home.hooks).ask(&delivery(home, "hasty", "evt_hasty")).status, 200);
    fixture::stop(process);
    assert_eq!(frames(home, TOPIC).len(), 1, "the delivery with a 503 was not stored");
}

#[test]
fn the_journal_is_opened_as_soon_as_the_earlier_process_has_ended() {
    let rig = rig("");
    let home = &rig.home;
    for (number, switches) in [false, true].into_iter().enumerate() {
        let predecessor = FakePredecessor::new(home);
        let process = home.launch_args(&["--take-over"]);
        let mut peer = predecessor.offer();
        if switches {
            peer.say("switch");
            wait_until("the process accepts", || process.ready() == Some(200));
        }
        drop((peer, predecessor));
        assert_eq!(Line::open(home.hooks).ask(&delivery(home, "stripe", &format!("evt_{number}"))).status, 200);
        wait_until_ready(&process);
        fixture::stop(process);
    }
    assert_eq!(frames(home, TOPIC).len(), 2);
}

#[test]
fn a_rejected_take_over_ends_with_the_reason() {
    let rig = rig("");
    let predecessor = FakePredecessor::new(&rig.home);
    let process = rig.home.launch_args(&["--take-over"]);
    let mut peer = predecessor.offer();
    peer.say("rejected because of a test");
    assert_eq!(process.wait().code(), Some(1));
    let named = |line: &str| line.starts_with("hookhold: hand-over: ") && line.ends_with("found a rejection: because of a test");
    assert!(rig.home.log().lines().any(named), "{}", rig.home.log());
}

#[test]
fn take_over_without_a_running_process_starts_normally() {
    let rig = rig("");
    let process = rig.home.launch_args(&["--take-over"]);
    wait_until_ready(&process);
    assert_eq!(Line::open(rig.home.hooks).ask(&delivery(&rig.home, "stripe", "evt_1")).status, 200);
    assert_eq!(process.metric("hookhold_handovers_total{result=\"taken\"}"), Some(0.0));
    fixture::stop(process);
}
