//! A gateway for the tests of hand-overs, and the loads on it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture;
use crate::https::Pair;
use crate::process::{Home, Process, wait_until};
use crate::steady_load::{SteadyLoad, SteadyOrder, Transport};

/// A home, and the transports of the loads on it.
pub struct Rig {
    pub home: Home,
    transports: Vec<(&'static str, Transport)>,
}

/// The running loads of a rig.
pub struct Loads(Vec<(&'static str, SteadyLoad)>);

impl Rig {
    /// Returns a rig without TLS. `config` contains further configuration: dotted keys, then sections.
    pub fn plain(config: &str) -> Rig {
        let home = Home::new(&[("secret", SECRET)], &with_keys("", config));
        Rig { home, transports: vec![("new", Transport::New), ("persistent", Transport::Persistent)] }
    }

    /// Sets `limits.respond_within` of the source `stripe`, for processes that start later.
    pub fn respond_within(&self, limit: &str) {
        let path = self.home.journal().with_file_name("hookhold.toml");
        let text = std::fs::read_to_string(&path).expect("a home has a configuration");
        std::fs::write(path, format!("{text}limits.respond_within = {limit:?}\n")).expect("target/ can be written to");
    }

    /// Returns a rig with TLS and HTTP/2.
    pub fn tls() -> Rig {
        let pair = Arc::new(Pair::new(30));
        let home = Home::new(&[("secret", SECRET)], &with_keys(&pair.config(), ""));
        Rig { home, transports: vec![("h2", Transport::Http2(pair))] }
    }

    /// Returns both kinds of rig.
    pub fn each() -> [Rig; 2] {
        [Rig::plain(""), Rig::tls()]
    }

    /// Starts one load for each transport.
    pub fn start_loads(&self, rate: u32) -> Loads {
        self.start_loads_at(self.home.hooks, rate)
    }

    /// Starts one load for each transport on this address.
    pub fn start_loads_at(&self, address: SocketAddr, rate: u32) -> Loads {
        let order = |name: &str, transport: &Transport| SteadyOrder {
            address,
            source: fixture::source(&self.home, "stripe"),
            rate,
            // Each of 100 senders pauses for 0.5 s at 200/s, longer than the drain leaves an idle connection open.
            senders: if matches!(transport, Transport::Persistent) { 100 } else { 20 },
            transport: transport.clone(),
            name: name.to_owned(),
        };
        Loads(self.transports.iter().map(|(name, transport)| (*name, SteadyLoad::start(order(name, transport)))).collect())
    }
}

impl Loads {
    /// Waits until each load has got `count` further responses.
    pub fn wait_for(&self, count: u64) {
        self.0.iter().for_each(|(_, load)| load.wait_for(count));
    }

    /// Ends the loads. Panics if a sender has met anything but a 2xx, or if the journal does not contain exactly the accepted events,
    /// each once.
    pub fn finish(self, rig: &Rig) {
        let mut accepted = BTreeSet::new();
        for (name, load) in self.0 {
            let result = load.stop();
            println!("{name}: {:?}", result.statuses);
            result.assert_no_sender_noticed(name);
            accepted.extend(result.accepted);
        }
        let stored: Vec<String> = fixture::frames(&rig.home, TOPIC).into_iter().map(|found| found.id).collect();
        assert_eq!(stored.len(), stored.iter().collect::<BTreeSet<_>>().len(), "each event is stored once");
        assert_eq!(stored.into_iter().collect::<BTreeSet<_>>(), accepted);
    }
}

/// A process that hookhold has started. Dropping the value kills it.
pub struct Adopted(pub Pid);

impl Adopted {
    /// Returns the process that the log of `home` names last as a new one.
    pub fn latest(home: &Home) -> Adopted {
        let log = home.log();
        let line =
            log.lines().rev().find(|line| line.contains("upgrade: started the new process")).expect("an upgrade in the log");
        let pid = line.split("process=").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|pid| pid.parse().ok());
        Adopted(Pid::from_raw(pid.expect("a process id")).expect("a process id is not 0"))
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Waits until `/readyz` returns 200.
pub fn wait_until_ready(process: &Process<'_>) {
    wait_until("hookhold is ready", || process.ready() == Some(200));
}

fn with_keys(keys: &str, config: &str) -> String {
    let delay = if config.contains("drain_delay") { "" } else { "server.drain_delay = \"1s\"\n" };
    format!("{delay}{keys}{config}\n[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:secret\"]\ntopic = {TOPIC:?}\n")
}

const SECRET: &str = "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0";
pub const TOPIC: &str = "webhooks";
