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
#[path = "common/kafka_gateway.rs"]
mod kafka_gateway;
#[path = "../tests/common/ports.rs"]
mod ports;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use gateway::Result;
use kafka::{Kafka, Record};
use kafka_gateway::{BODY_BYTES, Bodies, Gateway, POLL, customer};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};
use tokio::runtime::Runtime;
use tokio::time::Instant;

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
    let (begun, begun_with, cpu) = (Instant::now(), accepted.load(Ordering::Relaxed), cpu_by_thread(gateway.id())?);
    let acked = gateway.sum("hookhold_forward_acked_total{")? - former;
    while gateway.sum("hookhold_forward_lag_events{")? > f64::from(args.rate) / 2.0 {
        std::thread::sleep(POLL);
    }
    let time = begun.elapsed().as_secs_f64();
    let accepted = (accepted.load(Ordering::Relaxed) - begun_with) as f64 / time;
    let rate = (args.events as f64 - acked) / time;
    println!("hookhold: {rate:.0} events/s of the backlog in {time:.1} s, while it accepted {accepted:.0} deliveries/s");
    println!("  processor time by thread: {}", difference(&cpu, &cpu_by_thread(gateway.id())?));
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

const PARTITIONS: i32 = 6;
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
