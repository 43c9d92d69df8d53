//! Starts a `hookhold run` process that forwards to Kafka, and sends deliveries to it, for the benchmarks `drain` and `replay`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hookhold::clock::{Clock, SystemClock};
use hookhold::config::Config;
use hookhold::source::Source;
use hookhold::verify::sign::{SampleOptions, sign};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::gateway::{self, Result, Server, free_addresses, request_bytes};

/// A `hookhold run` process with one source for each topic.
pub struct Gateway {
    server: Server,
    address: SocketAddr,
    admin: SocketAddr,
    sources: Vec<Arc<Source>>,
    dir: tempfile::TempDir,
}

impl Gateway {
    pub fn start(dir: &Path, brokers: &str, topics: &[String]) -> Result<Gateway> {
        let dir = tempfile::tempdir_in(dir)?;
        let ([address, admin], secret) = (free_addresses()?, dir.path().join("secret"));
        std::fs::write(&secret, "whsec_benchmark")?;
        let mut text = format!(
            "[server]\nlisten = \"{address}\"\n[admin]\nlisten = \"{admin}\"\n[journal]\ndir = {:?}\n\
             [kafka]\nbootstrap.servers = {brokers:?}\n",
            dir.path().join("journal")
        );
        for topic in topics {
            let secrets = format!("[\"file:{}\"]", secret.display());
            text += &format!("[sources.{topic}]\nprovider = \"stripe\"\nsecrets = {secrets}\ntopic = {topic:?}\n");
        }
        let (file, log) = (dir.path().join("hookhold.toml"), std::fs::File::create(dir.path().join("log"))?);
        std::fs::write(&file, &text)?;
        let config = Config::parse("hookhold.toml", &text, |_, _| None).map_err(|diagnostics| diagnostics.to_string())?;
        let server = Server::start(gateway::hookhold().args(["run", "--config"]).arg(&file).stderr(log), address)?;
        Ok(Gateway { server, address, admin, sources: config.sources, dir })
    }

    /// Sends `count` deliveries as fast as possible. Returns when hookhold has accepted all of them.
    pub fn send(&self, runtime: &Runtime, run: &str, count: u64) -> Result<()> {
        runtime.block_on(self.senders(run).run(Some(count), None, Arc::default(), Arc::default()))
    }

    pub fn senders(&self, run: &str) -> Senders {
        Senders { address: self.address, sources: self.sources.clone(), bodies: Bodies::new(run) }
    }

    /// Waits until Kafka has acknowledged an event of each topic.
    #[allow(dead_code, reason = "one of two users")]
    pub fn wait_until_forwarded(&self) -> Result<()> {
        while self.sum("hookhold_forward_acked_total{")? < self.sources.len() as f64 {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Returns the sum of all series in `/metrics` that begin with `prefix`.
    pub fn sum(&self, prefix: &str) -> Result<f64> {
        let mut stream = std::net::TcpStream::connect(self.admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let values = text.lines().filter_map(|line| line.strip_prefix(prefix)?.rsplit(' ').next());
        Ok(values.map(|value| value.parse::<f64>().expect("a metric is a number")).sum())
    }

    /// Returns the directory with the file `hookhold.toml`.
    #[allow(dead_code, reason = "one of two users")]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the id of the process.
    #[allow(dead_code, reason = "one of two users")]
    pub fn id(&self) -> u32 {
        self.server.0.id()
    }
}

/// Senders that share the deliveries of one run. Each has a connection of its own.
pub struct Senders {
    address: SocketAddr,
    sources: Vec<Arc<Source>>,
    bodies: Bodies,
}

impl Senders {
    /// Sends `count` deliveries, or deliveries until `stopping` is true. `rate` is the number of deliveries per second; `None` sends
    /// as fast as possible. Returns an error if a response is not a complete 200.
    pub async fn run(
        self,
        count: Option<u64>,
        rate: Option<u32>,
        stopping: Arc<AtomicBool>,
        accepted: Arc<AtomicU64>,
    ) -> Result<()> {
        let (senders, turns, begun) = (Arc::new(self), Arc::<AtomicU64>::default(), Instant::now());
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (senders, turns, stopping, accepted) = (senders.clone(), turns.clone(), stopping.clone(), accepted.clone());
            tasks.spawn(async move {
                let mut stream = TcpStream::connect(senders.address).await?;
                stream.set_nodelay(true)?;
                let mut answer = [0; 1024];
                loop {
                    let number = turns.fetch_add(1, Ordering::Relaxed);
                    if count.is_some_and(|count| number >= count) || stopping.load(Ordering::Relaxed) {
                        return Result::Ok(());
                    }
                    if let Some(rate) = rate {
                        sleep_until(begun + Duration::from_secs(number) / rate).await;
                    }
                    stream.write_all(&senders.request(number)).await?;
                    let read = stream.read(&mut answer).await?;
                    if !answer[..read].starts_with(b"HTTP/1.1 200") || !answer[..read].ends_with(b"\r\n\r\n") {
                        return Err(
                            format!("expected a complete 200, found {:?}", String::from_utf8_lossy(&answer[..read])).into()
                        );
                    }
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while let Some(sent) = tasks.join_next().await {
            sent??;
        }
        Ok(())
    }

    fn request(&self, number: u64) -> Vec<u8> {
        let body = self.bodies.body(number);
        let options =
            SampleOptions { id: self.bodies.id(number), event_type: None, key: None, now: SystemClock.now(), tamper: None };
        let source = &self.sources[number as usize % self.sources.len()];
        request_bytes(&sign(source, Some(body.into()), &options).expect("the source has a secret"))
    }
}

/// Bodies of Stripe deliveries. Their text is random, so that the compression has work to do.
pub struct Bodies {
    run: String,
    text: String,
}

impl Bodies {
    pub fn new(run: &str) -> Bodies {
        let mut random = fastrand::Rng::with_seed(7);
        let text = std::iter::repeat_with(|| random.alphanumeric()).take(TEXT_BYTES).collect();
        Bodies { run: run.to_owned(), text }
    }

    pub fn id(&self, number: u64) -> String {
        format!("evt_{}_{number}", self.run)
    }

    pub fn body(&self, number: u64) -> String {
        let (id, customer) = (self.id(number), customer(number));
        let start =
            format!(r#"{{"id":"{id}","type":"invoice.paid","created":1700000000,"data":{{"object":{{"id":"{customer}","note":""#);
        let end = r#""}}}"#;
        let length = BODY_BYTES - start.len() - end.len();
        let from = number as usize * 97 % (TEXT_BYTES - BODY_BYTES);
        format!("{start}{}{end}", &self.text[from..from + length])
    }
}

/// Returns the key of a delivery.
pub fn customer(number: u64) -> String {
    format!("cus_{}", number * 7919 % 10_007)
}

/// Size of the body of each delivery, in bytes.
pub const BODY_BYTES: usize = 2048;
const TEXT_BYTES: usize = 1 << 20;
const CONNECTIONS: usize = 64;
/// Pause between two reads of the metrics.
pub const POLL: Duration = Duration::from_millis(50);
