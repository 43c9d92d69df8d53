//! Tests of upgrades of the real binary: a restart under a socket that the service manager holds, and a hand-over between two
//! processes. The senders never send a delivery again, and must meet neither a failed nor a lost connection nor any answer other than
//! 2xx. Each accepted event must be in the journal once.

#[path = "common/audit.rs"]
mod audit;
#[path = "handover/deaths.rs"]
mod deaths;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/h2.rs"]
mod h2;
#[path = "handover/held.rs"]
mod held;
#[path = "common/https.rs"]
mod https;
#[path = "handover/installed.rs"]
mod installed;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/load.rs"]
mod load;
#[path = "handover/peer.rs"]
mod peer;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "handover/queueing.rs"]
mod queueing;
#[path = "handover/rig.rs"]
mod rig;
#[path = "common/sdk.rs"]
mod sdk;
#[path = "handover/socket_activation.rs"]
mod socket_activation;
#[path = "handover/steady_load.rs"]
mod steady_load;

use std::net::TcpListener;

use process::wait_until;
use rig::{Adopted, Rig, wait_until_ready};
use rustix::process::Signal;

#[test]
fn two_restarts_under_a_passed_socket_fail_no_delivery() {
    for rig in Rig::each() {
        let socket = TcpListener::bind(rig.home.hooks).expect("the port is reserved");
        let mut process = rig.home.launch_passing(&socket, "deliveries");
        wait_until_ready(&process);
        let loads = rig.start_loads(RATE);
        for _ in 0..2 {
            loads.wait_for(RESPONSES);
            process.signal(Signal::TERM);
            assert_eq!(process.wait().code(), Some(0));
            process = rig.home.launch_passing(&socket, "deliveries");
            wait_until_ready(&process);
        }
        loads.finish(&rig);
        fixture::stop(process);
    }
}

#[test]
fn two_hand_overs_in_a_row_fail_no_delivery() {
    for rig in Rig::each() {
        hand_over_twice(&rig, RATE);
    }
}

#[test]
#[ignore = "needs the release build and both cores"]
fn hand_overs_at_2000_deliveries_a_second_fail_none() {
    for rig in Rig::each() {
        hand_over_twice(&rig, 2_000);
    }
}

fn hand_over_twice(rig: &Rig, rate: u32) {
    let mut process = rig.home.start();
    let loads = rig.start_loads(rate);
    for number in 1..=2 {
        loads.wait_for(RESPONSES);
        let next = rig.home.launch_args(&["--take-over"]);
        assert_eq!(process.wait().code(), Some(0), "the earlier process exits after hand-over {number}");
        wait_until_ready(&next);
        process = next;
    }
    loads.finish(rig);
    assert_eq!(process.metric("hookhold_handovers_total{result=\"taken\"}"), Some(1.0));
    assert!(process.metric("hookhold_handover_held_seconds").is_some_and(|seconds| seconds > 0.0));
    fixture::stop(process);
}

#[test]
fn sigusr2_upgrades_to_the_program_at_the_same_path() {
    let rig = Rig::plain("");
    rig.home.install_program("gateway");
    let process = rig.home.launch_program("gateway");
    wait_until_ready(&process);
    let loads = rig.start_loads(RATE);
    let mut next = None;
    for number in 1..=2 {
        loads.wait_for(RESPONSES);
        rig.home.install_program("gateway");
        match &next {
            None => process.signal(Signal::USR2),
            Some(Adopted(pid)) => rustix::process::kill_process(*pid, Signal::USR2).expect("the process runs"),
        }
        wait_until("the hand-over is complete", || rig.home.log().matches("hand-over complete").count() == number);
        next = Some(Adopted::latest(&rig.home));
    }
    assert_eq!(process.wait().code(), Some(0));
    loads.wait_for(RESPONSES);
    loads.finish(&rig);
}

#[test]
fn an_upgrade_to_a_broken_program_changes_nothing() {
    let rig = Rig::plain("");
    rig.home.install_program("gateway");
    let process = rig.home.launch_program("gateway");
    wait_until_ready(&process);
    let loads = rig.start_loads(RATE);
    rig.home.put("broken", b"#!/bin/sh\nexit 7\n");
    let broken = rig.home.journal().with_file_name("broken");
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our file");
    std::fs::rename(broken, rig.home.journal().with_file_name("gateway")).expect("our files");
    process.signal(Signal::USR2);
    wait_until("the failure is logged", || rig.home.log().contains("upgrade: the new process has ended"));
    assert!(rig.home.log().contains("exit status: 7"), "{}", rig.home.log());
    loads.wait_for(RESPONSES);
    loads.finish(&rig);
    assert_eq!(process.ready(), Some(200));
}

/// Deliveries per second of each load.
const RATE: u32 = 200;
/// Number of responses before the next step.
const RESPONSES: u64 = 100;
