//! Sends 500 genuine deliveries per second and measures their latency before and during an attack. In the attack, 1,000
//! connections each send one byte per second, and 64 connections send forged deliveries at full speed. Latency is the time from
//! a delivery's scheduled send time to its 2xx. The genuine senders, the slow connections and the senders of forged deliveries
//! use different IP addresses. All senders and the gateway share the machine, so the result also depends on the kernel's
//! scheduling. The command is `cargo bench --bench abuse [-- --seconds 10] [--dir DIRECTORY]`.

#[path = "../tests/common/attack.rs"]
mod attack;
#[path = "common/gateway.rs"]
mod gateway;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attack::Attack;
use bytes::Bytes;
use gateway::{Result, Server, free_addresses, request_bytes};
use hdrhistogram::Histogram;
use hookhold::clock::{Clock, SystemClock};
use hookhold::config::Config;
use hookhold::source::Source;
use hookhold::verify::sign::{SampleOptions, Tamper, sign};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned();
    let time = Duration::from_secs(given("--seconds").map_or(Ok(10), |text| text.parse())?);
    let dir = given("--dir").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    attack::raise_file_limit();
    let gateway = Gateway::start(&dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(send(&gateway, "warm-up", Duration::from_secs(2)))?;
    let quiet = runtime.block_on(send(&gateway, "quiet", time))?;
    report("quiet", &quiet);
    let attack = gateway.attack();
    std::thread::sleep(Duration::from_secs(3)); // until the gateway has closed the first slow connections
    let attacked = runtime.block_on(send(&gateway, "attacked", time))?;
    report("under attack", &attacked);
    let ratio = p99(&attacked) / p99(&quiet);
    println!(
        "p99 under attack is {ratio:.1} times the quiet p99; peak memory {} MB with max_in_flight = 256 MiB",
        gateway.peak_memory()?
    );
    println!("forged deliveries by status: {:?}; the attackers opened {} connections", attack.forger_statuses(), attack.opened());
    Ok(())
}

fn report(name: &str, latencies: &Histogram<u64>) {
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    let (count, max) = (latencies.len(), latencies.max() as f64 / 1000.0);
    println!(
        "{name:>12}: {count} x 2xx, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {max:.2} ms",
        at(0.5),
        at(0.99),
        at(0.999)
    );
}

fn p99(latencies: &Histogram<u64>) -> f64 {
    latencies.value_at_quantile(0.99) as f64
}

/// A `hookhold run` process whose configuration has one source.
struct Gateway {
    server: Server,
    address: SocketAddr,
    source: Arc<Source>,
    _dir: tempfile::TempDir,
}

impl Gateway {
    fn start(dir: &Path) -> Result<Gateway> {
        let dir = tempfile::tempdir_in(dir)?;
        let ([address, admin], secret) = (free_addresses()?, dir.path().join("secret"));
        std::fs::write(&secret, "whsec_benchmark")?;
        let text = format!(
            "server.listen = \"{address}\"\nadmin.listen = \"{admin}\"\njournal.dir = {:?}\n\
             [sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:{}\"]\n",
            dir.path().join("journal"),
            secret.display()
        );
        let (file, log) = (dir.path().join("hookhold.toml"), std::fs::File::create(dir.path().join("log"))?);
        std::fs::write(&file, &text)?;
        let config = Config::parse("hookhold.toml", &text, |_, _| None).map_err(|diagnostics| diagnostics.to_string())?;
        let source = config.sources.into_iter().next().ok_or("a source is configured")?;
        let server = Server::start(gateway::hookhold().args(["run", "--config"]).arg(&file).stderr(log), address)?;
        Ok(Gateway { server, address, source, _dir: dir })
    }

    fn attack(&self) -> Attack {
        let attack = Attack::new(self.address);
        attack.trickle(Ipv4Addr::new(127, 0, 0, 2), 1_000, &self.request("evt_trickle", 2_000, None));
        attack.forge(Ipv4Addr::new(127, 0, 0, 3), 64, &self.request("evt_forged", 2_000, Some(Tamper::Secret)));
        attack
    }

    /// Returns a complete HTTP request with a Stripe-like body of about `size` bytes and a signature with the current
    /// timestamp. `tamper` selects the kind of forgery; `None` means a genuine request.
    fn request(&self, id: &str, size: usize, tamper: Option<Tamper>) -> Bytes {
        let body = format!("{{\"id\":\"{id}\",\"type\":\"invoice.paid\",\"lines\":\"{}\"}}", "x".repeat(size));
        let options = SampleOptions { id: id.to_owned(), event_type: None, key: None, now: SystemClock.now(), tamper };
        request_bytes(&sign(&self.source, Some(body.into()), &options).expect("the source has a secret")).into()
    }

    /// Returns the peak resident memory of the gateway in MB (`VmHWM` in proc(5)).
    fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024 / 1_000_000)
    }
}

/// Sends deliveries at [`RATE`] over [`CONNECTIONS`] connections for `time`. Returns a histogram of the delivery latencies in
/// microseconds, or an error if a response is not a complete 200.
async fn send(gateway: &Gateway, run: &str, time: Duration) -> Result<Histogram<u64>> {
    let count = RATE * time.as_secs() as u32;
    let run = format!("{run}_{:x}", fastrand::u64(..));
    let requests: Arc<Vec<Bytes>> =
        Arc::new((0..count).map(|n| gateway.request(&format!("evt_{run}_{n}"), 2_000, None)).collect());
    let start = Instant::now() + Duration::from_millis(100);
    let mut senders = tokio::task::JoinSet::new();
    for first in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(gateway.address).await?;
        stream.set_nodelay(true)?;
        let requests = requests.clone();
        senders.spawn(async move {
            let (mut latencies, mut answer) = (Vec::new(), [0; 1024]);
            for turn in (first..count).step_by(CONNECTIONS as usize) {
                let due = start + Duration::from_secs(turn.into()) / RATE;
                sleep_until(due).await;
                stream.write_all(&requests[turn as usize]).await?;
                let read = stream.read(&mut answer).await?;
                if !answer[..read].starts_with(b"HTTP/1.1 200") || !answer[..read].ends_with(b"\r\n\r\n") {
                    return Err(format!("expected a complete 200, found {:?}", String::from_utf8_lossy(&answer[..read])).into());
                }
                latencies.push(due.elapsed());
            }
            Result::Ok(latencies)
        });
    }
    let mut latencies = Histogram::new(3)?;
    while let Some(sent) = senders.join_next().await {
        for latency in sent?? {
            latencies.record(latency.as_micros() as u64)?;
        }
    }
    Ok(latencies)
}

/// Number of genuine deliveries per second.
const RATE: u32 = 500;
/// Number of connections of the genuine senders.
const CONNECTIONS: u32 = 32;
