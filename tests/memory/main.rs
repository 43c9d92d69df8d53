//! Runs the real binary with a small `max_in_flight`, and measures its peak memory during many attacks. Each attack has a process of
//! its own. An attack lasts until the server accepts nothing more and its peak memory does not grow, but not longer than
//! [`ATTACK_TIME`].

mod attacks;
#[path = "../common/h2.rs"]
mod h2;
#[path = "../common/h2_frames.rs"]
mod h2_frames;
#[path = "../common/https.rs"]
mod https;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/sdk.rs"]
mod sdk;
mod sender;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use https::{Delivery, Pair, SECRET};
use process::{Home, Process, wait_until};
use sender::{Attack, Clients, Transport};
use tokio_rustls::rustls::ClientConfig;

/// Peak memory that no attack may exceed, in bytes: `max_in_flight` and 100 MB. Each connection above 1,000 may use 10 KB more.
const MAX_PEAK_BYTES: usize = (8 << 20) + 100_000_000;
const FREE_CONNECTIONS: usize = 1_000;
const BYTES_PER_CONNECTION: usize = 10_000;

const CONFIG: &str = r#"
server.max_in_flight = "8 MiB"
server.max_connections = 14000
server.drain_delay = "0s"
journal.segment_size = "8 MiB"
[sources.github]
provider = "github"
secrets = ["file:github"]
max_body = "5 MiB"
[sources.stripe]
provider = "stripe"
secrets = ["file:stripe"]
[sources.echo]
auth = "mac"
algorithm = "sha256"
signature = { from = "header:x-signature" }
content = ["body"]
secrets = ["file:github"]
challenge = [{ when = { "json:/type" = "check" }, authenticated = false, reply = { body = ["echo(json:/challenge)"] } }]
"#;

#[test]
fn peak_memory_stays_bounded_in_every_attack() {
    raise_file_limit();
    let pair = Pair::new(365);
    let client = Arc::new(h2::client_config(&pair));
    let only = std::env::var("HOOKHOLD_ATTACK").unwrap_or_default();
    let (mut table, mut exceeded) = (String::new(), Vec::new());
    for attack in attacks::all().into_iter().filter(|attack| attack.name.contains(&only)) {
        let start = Instant::now();
        let (peak, sent) = peak_memory_during(&attack, &pair, &client);
        let limit = MAX_PEAK_BYTES + attack.connections.saturating_sub(FREE_CONNECTIONS) * BYTES_PER_CONNECTION;
        let row = format!(
            "{:<44} {:>6} connections, {:>8.1} MB sent, peak {:>6.1} MB of {:>6.1} MB, {:>4.1} s",
            attack.name,
            attack.connections,
            megabytes(sent),
            megabytes(peak),
            megabytes(limit),
            start.elapsed().as_secs_f64(),
        );
        println!("{row}");
        table += &format!("{row}\n");
        if peak > limit {
            exceeded.push(attack.name);
        }
    }
    assert!(!table.is_empty(), "no attack has this name");
    assert!(exceeded.is_empty(), "{exceeded:?} exceeded the limit\n{table}");
}

/// Runs one attack, and returns the peak memory of the server and the number of bytes that the clients have sent. Asserts that the
/// server still accepts a delivery after the attack.
fn peak_memory_during(attack: &Attack, pair: &Pair, client: &Arc<ClientConfig>) -> (usize, usize) {
    let has_tls = attack.transport != Transport::Tcp;
    let tls = if has_tls { pair.config() } else { String::new() };
    let home = Home::new(
        &[("github", SECRET), ("stripe", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0")],
        &format!("{}{tls}{CONFIG}", attack.server),
    );
    let process = home.start();
    let clients = Clients::start(attack, home.hooks, client);
    wait_until("all clients have connected", || clients.open() == attack.connections);
    let (mut last, mut since, start) = ((0, 0, 0), Instant::now(), Instant::now());
    wait_until("the attack has no further effect", || {
        let now = (peak_memory(&process), clients.work().0, clients.work().1);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        let is_finished = now.1 == attack.connections && since.elapsed() > FINISHED_FOR;
        is_finished || since.elapsed() > STABLE_FOR || start.elapsed() > ATTACK_TIME
    });
    let sent = clients.work().1;
    drop(clients);
    let trust = has_tls.then_some(pair);
    wait_until("a delivery is accepted", || {
        Delivery::new(attack.name).send(home.hooks, trust, &["--http1.1"]).starts_with("200 ")
    });
    (peak_memory(&process), sent)
}

/// Returns the peak resident memory of the process in bytes (`VmHWM` in proc(5)).
fn peak_memory(process: &Process) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM is in /proc");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// Raises the soft open-file limit to the hard limit, because the default soft limit is too low for 10,000 connections.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the soft limit may be raised to the hard limit");
    assert!(maximum.is_none_or(|most| most > 11_000), "the hard limit of open files is too low: {maximum:?}");
}

/// Maximum duration of an attack after all clients have connected.
const ATTACK_TIME: Duration = Duration::from_secs(4);
/// Time after which an attack counts as over if nothing has changed.
const STABLE_FOR: Duration = Duration::from_secs(1);
/// The same time if all clients have finished.
const FINISHED_FOR: Duration = Duration::from_millis(500);
