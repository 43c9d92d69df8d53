//! Measures how fast hookhold forwards a backlog after an outage of Kafka, while it accepts 5,000 further deliveries per second.
//! Compares this rate with the rate of a bare rdkafka producer that has the same settings and sends records of the same shape to as
//! many partitions. The command is `cargo bench --bench drain [-- --events 200000]`.
//!
//! The bare producer sends its records before and after the outage. The broker is started again before each of the three
//! measurements, so that it is equally warm. The producers, the broker and the senders share the cores of the machine.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "../tests/common/kafka.rs"]
mod kafka;
#[path = "../tests/common/ports.rs"]
mod ports;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use gateway::{Result, Server, free_addresses, request_bytes};
use hookhold::clock::{Clock, SystemClock};
use hookhold::config::Config;
use hookhold::source::Source;
use hookhold::verify::sign::{SampleOptions, sign};
use kafka::{Kafka, Record};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Compare the rate at which hookhold forwards a backlog with the rate of a bare rdkafka producer.
#[derive(Debug, Parser)]
struct DrainArgs {
    /// Number of events in the backlog, and number of records that the bare producer sends in each of its two measurements.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    events: u64,
    /// Number of topics. Each topic has six partitions.
    #[arg(long, value_name = "N", default_value_t = 1)]
    topics: usize,
    /// Number of deliveries per second that hookhold accepts while it forwards the backlog.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    rate: u32,
    /// Directory for the journal, on a real disk [default: a directory in target/].
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    dir: PathBuf,
    /// Ignored. Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = DrainArgs::parse();
    let mut kafka = Kafka::for_throughput();
    let topics: Vec<String> = (0..args.topics).map(|number| format!("hooks-{number}")).collect();
    let bare: Vec<String> = (0..args.topics).map(|number| format!("bare-{number}")).collect();
    kafka.create_topics(&[&topics[..], &bare[..]].concat(), PARTITIONS, 1);
    let gateway = Gateway::start(&args.dir, &kafka.bootstrap(), &topics)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    gateway.send(&runtime, "first", topics.len() as u64)?;
    gateway.wait_until_forwarded()?;
    let template = kafka.records(&topics[0]).into_iter().next().ok_or("expected a record, found none")?;
    println!("{} events of {BODY_BYTES} bytes, {} topics with {PARTITIONS} partitions each", args.events, args.topics);

    let before = send_bare(&mut kafka, &template, &bare, args.events)?;
    kafka.terminate();
    let filled = Instant::now();
    gateway.send(&runtime, "backlog", args.events)?;
    println!("hookhold accepted the backlog at {:.0}/s", args.events as f64 / filled.elapsed().as_secs_f64());
    let drained = drain(&gateway, &mut kafka, &runtime, &args)?;
    let after = send_bare(&mut kafka, &template, &bare, args.events)?;
    println!(
        "ratio {:.2} (to the first {:.2}, to the second {:.2})",
        drained * 2.0 / (before + after),
        drained / before,
        drained / after
    );
    Ok(())
}

/// Starts the broker, and forwards the backlog while hookhold accepts further deliveries. Returns the number of events of the backlog
/// per second, from the first acknowledgement to the time at which only the events of half a second wait.
fn drain(gateway: &Gateway, kafka: &mut Kafka, runtime: &Runtime, args: &DrainArgs) -> Result<f64> {
    let (stopping, accepted) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let former = gateway.sum("hookhold_forward_acked_total{")?;
    kafka.restart();
    let senders = {
        let (stopping, accepted, senders) = (stopping.clone(), accepted.clone(), gateway.senders("steady"));
        let rate = args.rate;
        runtime.spawn(async move { senders.run(None, Some(rate), stopping, accepted).await })
    };
    while gateway.sum("hookhold_forward_acked_total{")? <= former {
        std::thread::sleep(POLL);
    }
    let (begun, begun_with, cpu) = (Instant::now(), accepted.load(Ordering::Relaxed), gateway.cpu_by_thread()?);
    let acked = gateway.sum("hookhold_forward_acked_total{")? - former;
    while gateway.sum("hookhold_forward_lag_events{")? > f64::from(args.rate) / 2.0 {
        std::thread::sleep(POLL);
    }
    let time = begun.elapsed().as_secs_f64();
    let accepted = (accepted.load(Ordering::Relaxed) - begun_with) as f64 / time;
    let rate = (args.events as f64 - acked) / time;
    println!("hookhold: {rate:.0} events/s of the backlog in {time:.1} s, while it accepted {accepted:.0} deliveries/s");
    println!("  processor time by thread: {}", difference(&cpu, &gateway.cpu_by_thread()?));
    stopping.store(true, Ordering::Relaxed);
    runtime.block_on(senders)??;
    Ok(rate)
}

/// Sends `count` records with a bare producer, and returns the number of records per second.
fn send_bare(kafka: &mut Kafka, template: &Record, topics: &[String], count: u64) -> Result<f64> {
    kafka.terminate();
    kafka.restart();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap());
    for (name, value) in SETTINGS {
        config.set(*name, *value);
    }
    let producer: ThreadedProducer<Reports> = config.create_with_context(Reports::default())?;
    let bodies = Bodies::new("bare");
    let (begun, cpu) = (Instant::now(), cpu_by_thread(std::process::id())?);
    for number in 0..count {
        let (topic, body, key) = (&topics[number as usize % topics.len()], bodies.body(number), customer(number));
        let none = OwnedHeaders::new_with_capacity(template.headers.len());
        let headers =
            template.headers.iter().fold(none, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
        let mut record = BaseRecord::to(topic).key(&key).payload(&body).timestamp(template.timestamp_ms).headers(headers);
        while let Err((error, rejected)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = rejected;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(Duration::from_secs(600))?;
    let time = begun.elapsed().as_secs_f64();
    let acknowledged = producer.context().0.load(Ordering::Relaxed);
    if acknowledged != count {
        return Err(format!("expected {count} acknowledgements, found {acknowledged}").into());
    }
    println!("bare producer: {:.0} records/s in {time:.1} s", count as f64 / time);
    println!("  processor time by thread: {}", difference(&cpu, &cpu_by_thread(std::process::id())?));
    Ok(count as f64 / time)
}

/// Counts the acknowledgements of the bare producer.
#[derive(Default)]
struct Reports(AtomicU64);

impl rdkafka::ClientContext for Reports {}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, _: ()) {
        self.0.fetch_add(u64::from(delivery.is_ok()), Ordering::Relaxed);
    }
}

/// A `hookhold run` process with one source for each topic.
struct Gateway {
    server: Server,
    address: SocketAddr,
    admin: SocketAddr,
    sources: Vec<Arc<Source>>,
    _dir: tempfile::TempDir,
}

impl Gateway {
    fn start(dir: &Path, brokers: &str, topics: &[String]) -> Result<Gateway> {
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
        Ok(Gateway { server, address, admin, sources: config.sources, _dir: dir })
    }

    /// Sends `count` deliveries as fast as possible. Returns when hookhold has accepted all of them.
    fn send(&self, runtime: &Runtime, run: &str, count: u64) -> Result<()> {
        runtime.block_on(self.senders(run).run(Some(count), None, Arc::default(), Arc::default()))
    }

    fn senders(&self, run: &str) -> Senders {
        Senders { address: self.address, sources: self.sources.clone(), bodies: Bodies::new(run) }
    }

    fn wait_until_forwarded(&self) -> Result<()> {
        while self.sum("hookhold_forward_acked_total{")? < self.sources.len() as f64 {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Returns the sum of all series in `/metrics` that begin with `prefix`.
    fn sum(&self, prefix: &str) -> Result<f64> {
        let mut stream = std::net::TcpStream::connect(self.admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let values = text.lines().filter_map(|line| line.strip_prefix(prefix)?.rsplit(' ').next());
        Ok(values.map(|value| value.parse::<f64>().expect("a metric is a number")).sum())
    }

    fn cpu_by_thread(&self) -> Result<Vec<(String, f64)>> {
        cpu_by_thread(self.server.0.id())
    }
}

/// Senders that share the deliveries of one run. Each has a connection of its own.
struct Senders {
    address: SocketAddr,
    sources: Vec<Arc<Source>>,
    bodies: Bodies,
}

impl Senders {
    /// Sends `count` deliveries, or deliveries until `stopping` is true. `rate` is the number of deliveries per second; `None` sends
    /// as fast as possible. Returns an error if a response is not a complete 200.
    async fn run(self, count: Option<u64>, rate: Option<u32>, stopping: Arc<AtomicBool>, accepted: Arc<AtomicU64>) -> Result<()> {
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
struct Bodies {
    run: String,
    text: String,
}

impl Bodies {
    fn new(run: &str) -> Bodies {
        let mut random = fastrand::Rng::with_seed(7);
        let text = std::iter::repeat_with(|| random.alphanumeric()).take(TEXT_BYTES).collect();
        Bodies { run: run.to_owned(), text }
    }

    fn id(&self, number: u64) -> String {
        format!("evt_{}_{number}", self.run)
    }

    fn body(&self, number: u64) -> String {
        let (id, customer) = (self.id(number), customer(number));
        let start =
            format!(r#"{{"id":"{id}","type":"invoice.paid","created":1700000000,"data":{{"object":{{"id":"{customer}","note":""#);
        let end = r#""}}}"#;
        let length = BODY_BYTES - start.len() - end.len();
        let from = number as usize * 97 % (TEXT_BYTES - BODY_BYTES);
        format!("{start}{}{end}", &self.text[from..from + length])
    }
}

fn customer(number: u64) -> String {
    format!("cus_{}", number * 7919 % 10_007)
}

/// Returns the processor time of each thread of a process in seconds, by the thread's name.
fn cpu_by_thread(process: u32) -> Result<Vec<(String, f64)>> {
    let mut times: Vec<(String, f64)> = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let Ok(stat) = std::fs::read_to_string(thread?.path().join("stat")) else { continue };
        let (name, fields) = stat.split_once(") ").ok_or("no fields")?;
        let name = name.split_once('(').ok_or("no name")?.1;
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum::<u64>();
        match times.iter_mut().find(|(known, _)| known == name) {
            Some((_, time)) => *time += ticks as f64 / 100.0,
            None => times.push((name.to_owned(), ticks as f64 / 100.0)),
        }
    }
    Ok(times)
}

/// Returns the names of the threads that have used more than a tenth of a second, with their processor time.
fn difference(before: &[(String, f64)], after: &[(String, f64)]) -> String {
    let earlier = |name: &str| before.iter().find(|(known, _)| known == name).map_or(0.0, |(_, time)| *time);
    let mut used: Vec<(f64, &str)> = after.iter().map(|(name, time)| (time - earlier(name), &**name)).collect();
    used.sort_by(|one, other| other.0.total_cmp(&one.0));
    let used = used.iter().filter(|(time, _)| *time > 0.1).map(|(time, name)| format!("{name} {time:.1} s"));
    used.collect::<Vec<_>>().join(", ")
}

const BODY_BYTES: usize = 2048;
const TEXT_BYTES: usize = 1 << 20;
const PARTITIONS: i32 = 6;
const CONNECTIONS: usize = 64;
/// Pause between two reads of the metrics.
const POLL: Duration = Duration::from_millis(50);
/// Settings of the bare producer: the fixed settings and the defaults of hookhold's producer that concern the rate.
const SETTINGS: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("partitioner", "murmur2_random"),
    ("linger.ms", "10"),
    ("compression.type", "lz4"),
    ("queue.buffering.max.kbytes", "1048576"),
    ("queue.buffering.max.messages", "1000000"),
];
