//! Tests that an event survives after the journal has reported a successful append. The tests run random lives of a journal on
//! a disk that loses unsynced data and fails in many ways, and compare the journal with a plain model.
//!
//! A life is a sequence of openings. In each opening, a process opens the journal and uses it until a close, a kill or a power
//! cut. A kill or a power cut can happen in any disk operation, including those of a recovery. A life has no threads: one loop
//! performs the steps of all actors in a random order, and a step may run inside a disk operation of another step. Each seed
//! draws its own mixture of faults and limits; `hazards.rs` lists the faults, and what each fault may cost.
//!
//! A seed determines everything, so a seed repeats a life exactly. Each run takes new seeds, prints their range, and runs some
//! lives twice to compare their traces. A life that breaks a guarantee prints its seed:
//!
//! ```text
//! HOOKHOLD_SEED=1234 cargo test --test simulation           repeats one life
//! HOOKHOLD_SEEDS=1000..3000 cargo test --test simulation    repeats a range of lives
//! HOOKHOLD_ALL=1 cargo test --test simulation               prints every broken guarantee instead of the first one
//! HOOKHOLD_FAULTS='failed syncs,lost syncs' cargo test …    causes only faults with these names in `hazards.rs`
//! ```

mod actors;
mod checks;
mod clock;
mod counts;
#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/events.rs"]
mod events;
mod hazards;
mod incidents;
mod life;
mod model;
mod senders;
mod trace;

use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use counts::Counts;
use hazards::{Fault, Hazards};
use trace::TraceMode;

#[test]
fn no_life_loses_an_acknowledged_event_in_silence() {
    let enabled = hazards::enabled();
    if let Ok(seed) = std::env::var("HOOKHOLD_SEED") {
        let seed = seed.parse().expect("HOOKHOLD_SEED is a number");
        tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_ansi(false).init();
        let (counts, _) = run(seed, &enabled, TraceMode::Print).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        return say(&counts.to_string());
    }
    let seeds = seeds();
    let start = Instant::now();
    say(&format!("simulation: seeds {seeds:?}"));
    let counts = run_all(seeds.clone(), enabled);
    let seconds = start.elapsed().as_secs_f64();
    say(&format!(
        "simulation: seeds {seeds:?} in {seconds:.0} s, {:.0} a second\n{counts}",
        counts.get("lives") as f64 / seconds
    ));
    if counts.get("lives") >= MIN_LIVES {
        counts.assert_not_empty();
    }
}

#[test]
fn the_model_notices_a_disk_that_ignores_syncs() {
    let draw = |rng: &mut fastrand::Rng| Hazards { ignores_syncs: true, ..Hazards::draw(rng, &[]) };
    let noticed: Vec<_> = (0..60).filter_map(|seed| life::run(seed, draw, TraceMode::Discard).err()).collect();
    assert!(noticed.len() > 10, "the model noticed only {} of 60 lives", noticed.len());
    assert!(noticed.iter().any(|what| what.contains("is lost")), "{noticed:?}");
}

fn run(seed: u64, enabled: &[Fault], trace: TraceMode) -> Result<(Counts, String), String> {
    life::run(seed, |rng| Hazards::draw(rng, enabled), trace)
}

/// Runs all lives of a range. Fails with the first broken guarantee, or with the seed of a life that does not end.
fn run_all(seeds: Range<u64>, enabled: Vec<Fault>) -> Counts {
    let next = Arc::new(AtomicU64::new(seeds.start));
    let counts = Arc::new(Mutex::new(Counts::default()));
    let (ended, ends) = mpsc::channel::<Result<(), String>>();
    let workers = std::thread::available_parallelism().map_or(2, |count| count.get());
    let running: Arc<Vec<AtomicU64>> = Arc::new((0..workers).map(|_| AtomicU64::new(0)).collect());
    for worker in 0..workers {
        let (next, counts, running, enabled) = (next.clone(), counts.clone(), running.clone(), enabled.clone());
        let (ended, end) = (ended.clone(), seeds.end);
        std::thread::spawn(move || {
            let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end);
            while let Some(seed) = take() {
                running[worker].store(seed, Ordering::Relaxed);
                let result = std::panic::catch_unwind(|| run_twice(seed, &enabled));
                let result = result.unwrap_or_else(|_| Err("a panic".into())).map_err(|what| broken(seed, &what));
                let result = result.map(|one| counts.lock().expect("no panic inside").add(&one));
                if ended.send(result).is_err() {
                    return;
                }
            }
        });
    }
    drop(ended);
    let shows_all = std::env::var_os("HOOKHOLD_ALL").is_some();
    let mut broken = 0;
    loop {
        match ends.recv_timeout(MAX_LIFE) {
            Ok(Ok(())) => {}
            Ok(Err(what)) if shows_all => {
                say(&what);
                broken += 1;
            }
            Ok(Err(what)) => panic!("{what}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no life has ended for {MAX_LIFE:?}; running seeds: {running:?}"),
        }
    }
    assert!(broken == 0, "{broken} lives broke a guarantee");
    std::mem::take(&mut *counts.lock().expect("no panic inside"))
}

/// Runs a life. Runs some lives twice, and compares the traces.
fn run_twice(seed: u64, enabled: &[Fault]) -> Result<Counts, String> {
    let is_repeated = seed.is_multiple_of(REPEATED);
    let mode = if is_repeated { TraceMode::Keep } else { TraceMode::Discard };
    let (counts, trace) = run(seed, enabled, mode)?;
    if is_repeated {
        let (_, again) = run(seed, enabled, mode)?;
        for (number, (first, second)) in trace.lines().zip(again.lines()).enumerate() {
            if first != second {
                return Err(format!("line {number} of the trace differs in two runs: {first} / {second}"));
            }
        }
        if trace.len() < 200 || trace.len() != again.len() {
            return Err(format!("two runs have traces of {} and {} bytes", trace.len(), again.len()));
        }
    }
    Ok(counts)
}

/// Returns the seeds of this run: those of the environment variable `HOOKHOLD_SEEDS`, or seeds that no earlier run has used.
fn seeds() -> Range<u64> {
    let Ok(range) = std::env::var("HOOKHOLD_SEEDS") else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let from = now.as_secs() * 100_000;
        return from..from + LIVES;
    };
    let (from, to) = range.split_once("..").expect("HOOKHOLD_SEEDS has the form FROM..TO");
    from.parse().expect("FROM is a number")..to.parse().expect("TO is a number")
}

/// Returns the message about a life that broke a guarantee, with the command that repeats the life.
fn broken(seed: u64, what: &str) -> String {
    format!("seed {seed}: {what}\n  repeat this life: HOOKHOLD_SEED={seed} cargo test --locked --test simulation no_life")
}

/// Writes to the terminal even if the test harness captures the output of the test.
fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Number of lives of a run without `HOOKHOLD_SEEDS`.
const LIVES: u64 = 20_000;
/// Number of lives from which the counts must not be empty.
const MIN_LIVES: u64 = 2_000;
/// The test runs one of this many seeds twice, and compares the traces.
const REPEATED: u64 = 50;
/// Time after which a life counts as hanging.
const MAX_LIFE: Duration = Duration::from_secs(120);
