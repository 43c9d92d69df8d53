//! Runs the proxy of docs/upgrade.md in front of a hookhold that restarts. The proxy holds requests while no process listens.

use std::net::SocketAddr;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::ports::reserve;
use crate::process::{Line, tool, wait_until};
use crate::rig::{Rig, wait_until_ready};

/// A running HAProxy. Dropping the value kills it.
struct HaProxy(Child);

impl HaProxy {
    /// Starts HAProxy with the code block of docs/upgrade.md on `address`, in front of `upstream`.
    fn start(rig: &Rig, address: SocketAddr, upstream: SocketAddr) -> HaProxy {
        let page = include_str!("../../docs/upgrade.md");
        let block = page.split("```haproxy\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a code block");
        const ADDRESSES: [&str; 2] = [":443 ssl crt /etc/haproxy/hooks.pem alpn h2,http/1.1", "127.0.0.1:8080"];
        assert!(ADDRESSES.iter().all(|address| block.matches(address).count() == 1), "{block}");
        let config = block.replace(ADDRESSES[0], &address.to_string()).replace(ADDRESSES[1], &upstream.to_string());
        rig.home.put("haproxy.cfg", config.as_bytes());
        let mut command = tool("haproxy");
        command.arg("-db").arg("-f").arg(rig.home.journal().with_file_name("haproxy.cfg")).stdout(Stdio::null());
        let proxy = HaProxy(command.spawn().expect("tests/run unpacks HAProxy"));
        wait_until("HAProxy listens", || Line::try_open(address).is_some());
        proxy
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_queueing_proxy_hides_two_restarts_of_a_single_replica() {
    let rig = Rig::plain("server.drain_delay = \"0s\"\nserver.trusted_proxies = [\"127.0.0.1\"]\n");
    let (address, _reserved) = reserve();
    let mut process = rig.home.start();
    let _proxy = HaProxy::start(&rig, address, rig.home.hooks);
    let loads = rig.start_loads_at(address, super::RATE);
    for _ in 0..2 {
        loads.wait_for(super::RESPONSES);
        process.signal(Signal::TERM);
        assert_eq!(process.wait().code(), Some(0));
        process = rig.home.launch();
        wait_until_ready(&process);
    }
    loads.wait_for(super::RESPONSES);
    loads.finish(&rig);
}
