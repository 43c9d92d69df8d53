//! Tests of sockets that the service manager passes, and of what hookhold tells it.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::process::{Home, Line, wait_until};
use crate::rig::{Rig, wait_until_ready};

#[test]
fn a_passed_socket_is_used_under_its_name() {
    let rig = Rig::plain("");
    for (names, is_admin) in [("", false), ("hookhold.socket", false), ("deliveries", false), ("admin", true)] {
        let address = if is_admin { rig.home.admin } else { rig.home.hooks };
        let socket = TcpListener::bind(address).expect("the port is reserved");
        let process = rig.home.launch_passing(&socket, names);
        wait_until_ready(&process);
        let name = if is_admin { "admin" } else { "deliveries" };
        let line = format!("the service manager has passed this listening socket socket=\"{name}\" address={address}");
        assert!(rig.home.log().contains(&line), "{}", rig.home.log());
        assert_eq!(Line::open(rig.home.hooks).ask(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").status, 404);
        crate::fixture::stop(process);
    }
}

#[test]
fn a_passed_socket_with_an_unknown_name_fails_the_start() {
    let rig = Rig::plain("");
    let socket = TcpListener::bind(rig.home.hooks).expect("the port is reserved");
    assert_eq!(rig.home.launch_passing(&socket, "hooks").wait().code(), Some(2));
    let named =
        |line: &str| line.starts_with("hookhold: LISTEN_FDNAMES: expected deliveries or admin") && line.contains("\"hooks\"");
    assert!(rig.home.log().lines().any(named), "{}", rig.home.log());
}

#[test]
fn a_passed_socket_on_another_address_fails_the_start() {
    let rig = Rig::plain("");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let passed: SocketAddr = socket.local_addr().expect("an open socket");
    assert_eq!(rig.home.launch_passing(&socket, "deliveries").wait().code(), Some(1));
    let wanted =
        format!("hookhold: server.listen: expected {passed}, the address of the passed socket, found {}", rig.home.hooks);
    assert!(rig.home.log().lines().any(|line| line.starts_with(&wanted)), "{}", rig.home.log());
}

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let mut rig = Rig::plain("");
    let manager = Manager::new(&mut rig.home);
    let process = rig.home.start();
    let pid = process.id();
    manager.expect(&[&format!("MAINPID={pid}"), "READY=1"]);
    assert!(process.reload());
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC="]);
    manager.expect(&[&format!("MAINPID={pid}"), "READY=1"]);
    process.signal(Signal::TERM);
    manager.expect(&["STOPPING=1"]);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn the_service_manager_hears_which_process_takes_over() {
    let mut rig = Rig::plain("");
    let manager = Manager::new(&mut rig.home);
    let process = rig.home.start();
    manager.expect(&["READY=1"]);
    let next = rig.home.launch_args(&["--take-over"]);
    let name = format!("MAINPID={}", next.id());
    manager.expect(&[&name]);
    manager.expect(&[&name, "READY=1"]);
    assert_eq!(process.wait().code(), Some(0));
    wait_until("the new process is ready", || next.ready() == Some(200));
}

/// Receives what hookhold tells the service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn new(home: &mut Home) -> Manager {
        let path = home.journal().with_file_name("notify");
        let socket = UnixDatagram::bind(&path).expect("a short path");
        socket.set_read_timeout(Some(crate::process::TIMEOUT)).expect("a socket has this option");
        home.set("NOTIFY_SOCKET", &path.to_string_lossy());
        Manager(socket)
    }

    /// Receives one message, and asserts that its lines begin with these texts.
    fn expect(&self, parts: &[&str]) {
        let mut bytes = [0; 1024];
        let length = self.0.recv(&mut bytes).expect("a message arrives");
        let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
        for part in parts {
            assert!(message.lines().any(|line| line.starts_with(part)), "{part} is not in {message:?}");
        }
    }
}
