//! Sends genuine deliveries from an address that attackers share, and from another address while hundreds of addresses attack. Every
//! genuine delivery must get a 2xx. Each delivery opens its own connection, as GitHub does. The tests print the rate of the attack
//! and the latencies, and check only the statuses.

#[path = "common/attack.rs"]
mod attack;
#[path = "flood/attackers.rs"]
mod attackers;
#[path = "common/h2.rs"]
mod h2;
#[path = "common/https.rs"]
mod https;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/sdk.rs"]
mod sdk;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attackers::{Attackers, Flood, read_answer};
use h2::{Client, tls_connection};
use https::{Delivery, Pair, SECRET, SOURCE};
use process::{Home, post, wait_until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// Protocol of the deliveries and of the attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 without TLS.
    Plain,
    /// HTTP/1.1 with TLS.
    Tls,
    /// HTTP/2 with TLS.
    H2,
}

/// Attackers at the address of the genuine sender.
const ALL_AT_ONE: Attackers =
    Attackers { scanners: 32, forgers: 32, large_forgers: 2, dripping: 300, hoarders: 64, openers: 2, handshakers: 16 };
/// Attackers at each of 300 addresses.
const ONE_OF_EACH: Attackers =
    Attackers { scanners: 1, forgers: 1, large_forgers: 0, dripping: 1, hoarders: 1, openers: 1, handshakers: 1 };

#[test]
fn genuine_deliveries_pass_among_attackers_over_http_1() {
    genuine_deliveries_pass(Protocol::Plain);
}

#[test]
fn genuine_deliveries_pass_among_attackers_over_tls() {
    genuine_deliveries_pass(Protocol::Tls);
}

#[test]
fn genuine_deliveries_pass_among_attackers_over_http_2() {
    genuine_deliveries_pass(Protocol::H2);
}

fn genuine_deliveries_pass(protocol: Protocol) {
    let _one_at_a_time = TESTS.lock().unwrap_or_else(PoisonError::into_inner);
    attack::raise_file_limit();
    let pair = Arc::new(Pair::new(365));
    let deliveries: Arc<Vec<Delivery>> = Arc::new((0..PER_RUN).map(|n| Delivery::new(&n.to_string())).collect());
    let fields: Vec<_> = deliveries.iter().map(Delivery::headers).collect();
    let genuine = Genuine { protocol, pair: pair.clone(), deliveries, fields: Arc::new(fields) };
    let home = || {
        let tls = if protocol == Protocol::Plain { String::new() } else { pair.config() };
        Home::new(&[("github", SECRET)], &format!("{tls}{SOURCE}"))
    };
    let alone = home();
    let process = alone.start();
    let quiet = genuine.send(alone.hooks);
    drop(process);
    println!("{protocol:?}, alone: p99 {quiet:?}");
    // Three cold starts, because a genuine delivery makes its address known good.
    for start in 0..3 {
        let home = home();
        let process = home.start();
        let flood = genuine.flood(home.hooks, [(Ipv4Addr::LOCALHOST, ALL_AT_ONE)]);
        wait_until("the address is limited", || process.metric("hookhold_addresses_limited_total") >= Some(1.0));
        let latency = genuine.send(home.hooks);
        println!("{protocol:?}, attacked from the same address, start {start}: p99 {latency:?}; {}", flood.rate());
    }
    let home = home();
    let _process = home.start();
    let flood = genuine
        .flood(home.hooks, (0..300).map(|n| (Ipv4Addr::new(127, 0, 1 + (n / 200) as u8, 1 + (n % 200) as u8), ONE_OF_EACH)));
    wait_until("the attackers are busy", || flood.answers() >= 1_000);
    let latency = genuine.send(home.hooks);
    println!("{protocol:?}, attacked from 300 addresses: p99 {latency:?}; {}", flood.rate());
}

/// Genuine deliveries and the way in which they are sent.
struct Genuine {
    protocol: Protocol,
    pair: Arc<Pair>,
    deliveries: Arc<Vec<Delivery>>,
    /// Header fields of each delivery, including the signature.
    fields: Arc<Vec<Vec<(String, String)>>>,
}

impl Genuine {
    /// Starts attackers at these addresses. Their forged deliveries have the header fields of a genuine one.
    fn flood(&self, target: SocketAddr, from: impl IntoIterator<Item = (Ipv4Addr, Attackers)>) -> Flood {
        Flood::start(target, self.protocol, h2::client_config(&self.pair), self.fields[0].clone(), from)
    }

    /// Sends all deliveries at [`RATE`]. Asserts that each gets a 200. Returns the 99th percentile of the latencies.
    fn send(&self, address: SocketAddr) -> Duration {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (latencies, statuses): (Vec<_>, Vec<_>) = runtime.expect("a runtime can be built").block_on(async {
            let (start, mut sent) = (Instant::now(), Vec::new());
            for index in 0..self.deliveries.len() {
                let due = start + Duration::from_secs(1) * index as u32 / RATE;
                sleep_until(due).await;
                let (protocol, pair) = (self.protocol, self.pair.clone());
                let (deliveries, fields) = (self.deliveries.clone(), self.fields.clone());
                sent.push(tokio::spawn(async move {
                    let status = deliver(protocol, address, &pair, &deliveries[index], &fields[index]);
                    let status = tokio::time::timeout(process::TIMEOUT, status).await.expect("an answer in time");
                    (due.elapsed(), status)
                }));
            }
            let mut results = Vec::new();
            for delivery in sent {
                results.push(delivery.await.expect("every genuine delivery is answered"));
            }
            results.into_iter().unzip()
        });
        assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == 200), "{statuses:?}");
        let mut latencies: Vec<Duration> = latencies;
        latencies.sort_unstable();
        latencies[latencies.len() * 99 / 100]
    }
}

/// Sends a delivery on a new connection, and returns the status of the answer.
async fn deliver(protocol: Protocol, address: SocketAddr, pair: &Pair, delivery: &Delivery, fields: &[(String, String)]) -> u16 {
    let request = post("/hooks/github", fields, delivery.body.as_bytes());
    match protocol {
        Protocol::Plain => {
            let mut stream = TcpStream::connect(address).await.expect("the server listens");
            stream.write_all(&request).await.expect("the connection is open");
            read_answer(&mut stream).await.expect("an answer")
        }
        Protocol::Tls => {
            let mut stream = tls_connection(address, pair, "http/1.1").await;
            stream.write_all(&request).await.expect("the connection is open");
            read_answer(&mut stream).await.expect("an answer")
        }
        Protocol::H2 => {
            let mut client = Client::connect(address, pair).await;
            client.ask("POST", "/hooks/github", fields, &delivery.body).await.status().as_u16()
        }
    }
}

/// Deliveries per second.
const RATE: u32 = 20;
/// Number of deliveries of one run.
const PER_RUN: u32 = 40;

/// Lock that makes the tests run one after another, because each uses the whole machine.
static TESTS: Mutex<()> = Mutex::new(());
