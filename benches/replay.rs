//! Measures how many deliveries per second hookhold accepts and forwards while `hookhold replay` sends stored events to Kafka, compared
//! with the rate without a replay, and the rate of the replay. The command is `cargo bench --bench replay [-- --events 100000]`.
//!
//! A round measures both rates, one directly after the other, for the same time; every second round begins with the rate without a
//! replay. The senders, the gateway, the replay and the broker share the cores of the machine.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "../tests/common/kafka.rs"]
mod kafka;
#[path = "common/kafka_gateway.rs"]
mod kafka_gateway;
#[path = "../tests/common/ports.rs"]
mod ports;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use gateway::Result;
use kafka::Kafka;
use kafka_gateway::{BODY_BYTES, Gateway, POLL};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Compare the rate at which hookhold accepts deliveries during a replay with the rate without a replay.
#[derive(Debug, Parser)]
struct ReplayBenchArgs {
    /// Number of events that each replay sends.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    events: u64,
    /// Number of rounds.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Number of deliveries that the senders send per second; 0 for as many as possible.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    offered: u32,
    /// Maximum rate of the replay, such as 5000/s [default: no limit].
    #[arg(long, value_name = "R/s")]
    rate: Option<String>,
    /// Directory for the journal, on a real disk [default: a directory in target/].
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    dir: PathBuf,
    /// Ignored. Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = ReplayBenchArgs::parse();
    let kafka = Kafka::for_throughput();
    kafka.create_topics(&[LIVE, REPLAYED].map(str::to_owned), PARTITIONS, 1);
    let gateway = Gateway::start(&args.dir, &kafka.bootstrap(), &[LIVE.to_owned()])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    gateway.send(&runtime, "stored", args.events)?;
    wait_until_forwarded(&gateway)?;
    println!("{} events of {BODY_BYTES} bytes in each replay, {} rounds", args.events, args.rounds);
    // The first replay only shows how long each measurement takes without a replay in its round.
    let (mut lasting, mut ratios, mut rates) = (replay(&gateway, &args)?.1, Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let mut alone = 0.0;
        if round % 2 == 0 {
            alone = accepted_alone(&gateway, &runtime, &format!("alone-{round}"), lasting, args.offered)?;
        }
        let senders = RunningSenders::start(&gateway, &runtime, &format!("during-{round}"), args.offered)?;
        let (before, begun) = (senders.accepted(), Instant::now());
        let (rate, _) = replay(&gateway, &args)?;
        lasting = begun.elapsed();
        let during = (senders.accepted() - before) as f64 / lasting.as_secs_f64();
        senders.stop(&runtime)?;
        if round % 2 == 1 {
            alone = accepted_alone(&gateway, &runtime, &format!("alone-{round}"), lasting, args.offered)?;
        }
        wait_until_forwarded(&gateway)?;
        println!(
            "round {}: {alone:.0}/s alone, {during:.0}/s during a replay of {rate:.0}/s, ratio {:.3}",
            round + 1,
            during / alone
        );
        ratios.push(during / alone);
        rates.push(rate);
    }
    println!("median ratio {:.3}, median rate of the replay {:.0} events/s", median(&mut ratios), median(&mut rates));
    Ok(())
}

/// Senders that send deliveries until they are stopped.
struct RunningSenders {
    stopping: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl RunningSenders {
    /// Starts the senders with this number of deliveries per second, or as many as possible if it is 0. Waits for their first
    /// responses.
    fn start(gateway: &Gateway, runtime: &Runtime, run: &str, offered: u32) -> Result<RunningSenders> {
        let (stopping, accepted) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (senders, ended, counted) = (gateway.senders(run), stopping.clone(), accepted.clone());
        let task = runtime.spawn(async move { senders.run(None, Some(offered).filter(|rate| *rate > 0), ended, counted).await });
        let senders = RunningSenders { stopping, accepted, task };
        while senders.accepted() < WARM_UP {
            if senders.task.is_finished() {
                senders.stop(runtime)?;
                return Err("the senders have ended".into());
            }
            std::thread::sleep(POLL);
        }
        Ok(senders)
    }

    fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    fn stop(self, runtime: &Runtime) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        runtime.block_on(self.task)?
    }
}

/// Returns the number of deliveries per second that hookhold accepts without a replay, measured for this time.
fn accepted_alone(gateway: &Gateway, runtime: &Runtime, run: &str, lasting: Duration, offered: u32) -> Result<f64> {
    let senders = RunningSenders::start(gateway, runtime, run, offered)?;
    let (before, begun) = (senders.accepted(), Instant::now());
    std::thread::sleep(lasting);
    let rate = (senders.accepted() - before) as f64 / begun.elapsed().as_secs_f64();
    senders.stop(runtime)?;
    wait_until_forwarded(gateway)?;
    Ok(rate)
}

/// Replays the stored events. Returns their number per second, as the replay reports it, and the time of the whole command.
fn replay(gateway: &Gateway, args: &ReplayBenchArgs) -> Result<(f64, Duration)> {
    let (begun, last) = (Instant::now(), args.events - 1);
    let mut command = gateway::hookhold();
    command.args(["replay", "--format", "json", "--yes", "--to", REPLAYED, "--seq", &format!("0..{last}"), "--config"]);
    command.arg(gateway.dir().join("hookhold.toml")).args(args.rate.iter().flat_map(|rate| ["--rate", rate]));
    let output = command.stderr(Stdio::inherit()).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    if report["sent"] != args.events {
        return Err(format!("expected {} sent events, found {report}", args.events).into());
    }
    let seconds = report["duration_ms"].as_f64().ok_or("expected a duration")? / 1000.0;
    Ok((args.events as f64 / seconds, begun.elapsed()))
}

fn wait_until_forwarded(gateway: &Gateway) -> Result<()> {
    while gateway.sum("hookhold_forward_lag_events{")? > 0.0 {
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const LIVE: &str = "live";
const REPLAYED: &str = "replayed";
const PARTITIONS: i32 = 6;
/// Number of accepted deliveries after which a measurement begins.
const WARM_UP: u64 = 500;
