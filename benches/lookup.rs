//! Measures how long an operator waits for `hookhold tail --id`, `hookhold inspect` and `hookhold rejections` on a large journal. Compares
//! each command with a plain sequential read of the files that it needs, in the same run.
//!
//! Command: `cargo bench --bench lookup [-- --events 1000000] [--rounds 5] [--dir DIR]`. A million events need about 2.5 GB in DIR, which is
//! `target/bench-lookup` by default. The environment variable HOOKHOLD_BIN names another hookhold binary.
//!
//! The journal's own writer writes the events, whose bodies have 2 KiB. The files stay in the page cache, so both sides are warm. A
//! command also pays for the start of its process, which the last line shows.

#[path = "common/gateway.rs"]
#[allow(dead_code, reason = "this benchmark starts no server")]
mod gateway;

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use gateway::Result;
use hookhold::clock::{Clock, SystemClock};
use hookhold::config::Config;
use hookhold::event::Event;
use hookhold::event_key::EventKey;
use hookhold::fingerprint::Fingerprint;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{Environment, Journal, Options, RejectionFiles, SystemRandom, WriterStep};
use hookhold::metrics::Metrics;
use hookhold::outcome::Outcome;
use hookhold::rejections::RejectedDelivery;
use hookhold::source::Source;
use hookhold::verify::sign::{SampleOptions, sign};
use hookhold::verify::{Verdict, Verifier};

/// Compare the lookups of an operator with a plain read of the same files.
#[derive(Debug, Parser)]
struct LookupArgs {
    /// Number of events in the journal.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    events: u64,
    /// Number of times that each command runs.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Directory for the journal, on a real disk [default: target/bench-lookup].
    #[arg(long, value_name = "DIR", default_value = "target/bench-lookup", hide_default_value = true)]
    dir: PathBuf,
    /// Ignored. Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A command, the files that it needs, and a text that its output contains.
struct Lookup {
    args: Vec<String>,
    files: Vec<PathBuf>,
    expected: String,
}

fn main() -> Result<()> {
    let args = LookupArgs::parse();
    fs::create_dir_all(&args.dir)?;
    let dir = tempfile::tempdir_in(&args.dir)?;
    let source = configure(dir.path())?;
    let journal = dir.path().join("journal");
    let begun = Instant::now();
    fill(&journal, &source, args.events)?;
    reject(&journal)?;
    let (segments, rejected) = (files(&journal, "seg")?, files(&journal, "rejected")?);
    let [stored, in_store] = [&segments, &rejected].map(|files| size(files));
    println!(
        "{} events of {BODY_BYTES} bytes in {} segments ({stored} MiB), and {in_store} MiB of rejected deliveries",
        args.events,
        segments.len()
    );
    println!("filled in {:.1} s", begun.elapsed().as_secs_f64());

    let (middle, seq) = (id(args.events / 2), args.events / 2);
    let lookup = |words: &[&str], files: Vec<PathBuf>, expected: &str| Lookup {
        args: words.iter().map(|word| (*word).to_owned()).collect(),
        files,
        expected: expected.to_owned(),
    };
    for lookup in [
        lookup(&["tail", "--id", &middle], segments.clone(), &middle),
        lookup(&["inspect", &middle], segments.clone(), &middle),
        lookup(&["inspect", &seq.to_string()], vec![segment_of(&segments, seq)?], &middle),
        lookup(&["rejections"], rejected, "signature_mismatch"),
    ] {
        measure(dir.path(), &lookup, args.rounds)?;
    }
    for (name, alone) in [
        ("status", lookup(&["status"], Vec::new(), "hookhold is not running")),
        ("start of a process", lookup(&["--version"], Vec::new(), "hookhold")),
    ] {
        let times = (0..args.rounds).map(|_| run(dir.path(), &alone)).collect::<Result<Vec<_>>>()?;
        println!("{name}: median {:.1} ms", median(&times).as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Writes the configuration, and returns its source.
fn configure(dir: &Path) -> Result<Arc<Source>> {
    let dir = dir.canonicalize()?;
    fs::write(dir.join("secret"), "whsec_benchmark")?;
    let (journal, secret) = (dir.join("journal"), dir.join("secret"));
    let text = format!(
        "[journal]\ndir = {journal:?}\n[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:{}\"]\n",
        secret.display()
    );
    fs::write(dir.join("hookhold.toml"), &text)?;
    let config = Config::parse("hookhold.toml", &text, |_, _| None).map_err(|diagnostics| diagnostics.to_string())?;
    Ok(config.sources[0].clone())
}

/// Writes the events with the journal's own writer, several in each commit. Seals the segments as the journal's background thread does.
fn fill(dir: &Path, source: &Arc<Source>, events: u64) -> Result<()> {
    let environment = Environment {
        disk: Arc::new(LocalDisk::create(dir)?),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        metrics: Arc::new(Metrics::new()),
    };
    let (journal, mut writer, mut background) = Journal::open_in_steps(environment, Options::default())?;
    let verifier = Verifier::new(source.clone());
    for number in 0..events {
        let appended = journal.append(&event(source, &verifier, number), Box::new(|result| assert!(result.is_ok())));
        appended.map_err(|error| error.to_string())?;
        if number % EVENTS_PER_COMMIT == EVENTS_PER_COMMIT - 1 {
            while writer.step() != WriterStep::Idle || background.step() {}
        }
    }
    journal.close();
    while writer.step() != WriterStep::Ended {}
    while background.step() {}
    Ok(())
}

fn event(source: &Source, verifier: &Verifier, number: u64) -> Event {
    let id = id(number);
    let start = format!(r#"{{"id":"{id}","type":"invoice.paid","created":1700000000,"data":{{"note":""#);
    let body = format!("{start}{}\"}}}}", "x".repeat(BODY_BYTES - start.len() - 3));
    let now = SystemClock.now();
    let options = SampleOptions { id, event_type: None, key: None, now, tamper: None };
    let sample = sign(source, Some(body.into()), &options).expect("the source has a secret");
    let delivery = sample.into_delivery(SocketAddr::from(([192, 0, 2, 1], 4000)), now);
    let Ok(Verdict::Event(verified)) = verifier.verify(&delivery) else { panic!("the sample is genuine") };
    let key = u128::from(number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    verified.event.with_key(Some(EventKey(key.to_le_bytes())), Fingerprint::default())
}

/// Fills the store of rejected deliveries to its default size.
fn reject(dir: &Path) -> Result<()> {
    let files = RejectionFiles::new(Arc::new(LocalDisk::existing(dir)?));
    let now = SystemClock.now();
    let mut number = 0;
    for ordinal in 0..REJECTION_FILES {
        let mut file = files.create(ordinal)?;
        let mut written = 0;
        while written < REJECTED_BYTES / REJECTION_FILES {
            number += 1;
            let rejected = RejectedDelivery {
                id: number,
                source: "stripe".into(),
                outcome: Outcome::SignatureMismatch,
                hint: format!("signature: expected one made with a configured secret, found attempt {number}"),
                remote: SocketAddr::from(([192, 0, 2, 1], 4000)),
                received_at: now,
                sampled_out: 0,
                request: format!("POST /hooks/stripe HTTP/1.1\r\ncontent-length: {BODY_BYTES}\r\n\r\n{}", "x".repeat(BODY_BYTES))
                    .into(),
            };
            let entry = rejected.encode();
            file.append(&entry)?;
            written += entry.len() as u64;
        }
    }
    Ok(())
}

/// Runs a command and the plain read in turns, and prints the times and the ratios.
fn measure(dir: &Path, lookup: &Lookup, rounds: usize) -> Result<()> {
    read(&lookup.files)?;
    let (mut reads, mut runs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (plain, command) = (read(&lookup.files)?, run(dir, lookup)?);
        ratios.push(command.as_secs_f64() / plain.as_secs_f64());
        reads.push(plain);
        runs.push(command);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "{}: median {:.1} ms, plain read of {} MiB {:.1} ms; ratio {:.2} ({:.2} to {:.2})",
        lookup.args.join(" "),
        median(&runs).as_secs_f64() * 1e3,
        size(&lookup.files),
        median(&reads).as_secs_f64() * 1e3,
        ratios[rounds / 2],
        ratios[0],
        ratios[rounds - 1]
    );
    Ok(())
}

/// Reads the files one after the other, and returns the time.
fn read(files: &[PathBuf]) -> Result<Duration> {
    let begun = Instant::now();
    let mut buffer = vec![0; READ_BYTES];
    for file in files {
        let mut file = File::open(file)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(begun.elapsed())
}

/// Runs a command, and returns its time.
fn run(dir: &Path, lookup: &Lookup) -> Result<Duration> {
    let mut command = std::env::var_os("HOOKHOLD_BIN").map_or_else(gateway::hookhold, Command::new);
    command.args(&lookup.args).current_dir(dir).stdin(Stdio::null()).env_remove("HOOKHOLD_CONFIG");
    let begun = Instant::now();
    let output = command.output()?;
    let time = begun.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    // `status` exits with 1, because no process has the journal open.
    if !text.contains(&lookup.expected) {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{:?}: expected {}, found {text}{said}", lookup.args, lookup.expected).into());
    }
    Ok(time)
}

/// Returns the files of a directory with this extension, by name.
fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let mut files: Vec<PathBuf> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    Ok(files)
}

/// Returns the segment with this sequence. The name of a segment is `ORDINAL-FIRST-ID.seg`.
fn segment_of(segments: &[PathBuf], seq: u64) -> Result<PathBuf> {
    let first = |path: &PathBuf| path.file_name()?.to_str()?.split('-').nth(1)?.parse::<u64>().ok();
    let found = segments.iter().rev().find(|path| first(path).is_some_and(|first| first <= seq));
    Ok(found.ok_or("expected a segment, found none")?.clone())
}

/// Returns the total size of files in MiB.
fn size(files: &[PathBuf]) -> u64 {
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum::<u64>() >> 20
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

fn id(number: u64) -> String {
    format!("evt_lookup_{number}_end")
}

const BODY_BYTES: usize = 2 << 10;
const EVENTS_PER_COMMIT: u64 = 500;
const READ_BYTES: usize = 1 << 20;
/// Default of `[admin] keep_rejected`.
const REJECTED_BYTES: u64 = 64 << 20;
/// Number of files of the store.
const REJECTION_FILES: u64 = 8;
