//! Compares the durable path of hookhold with bare hyper, or with another hookhold binary, within one run.
//!
//!     cargo bench --bench durable                                   # hookhold / bare hyper
//!     cargo bench --bench durable -- --compare OTHER --rounds 30    # hookhold / another hookhold binary
//!
//! Both servers are separate processes that receive the same signed 2 KiB Stripe deliveries, each with its own id, from the
//! same senders over keep-alive connections. They take turns of half a second, because a shared machine changes speed within
//! seconds. A round's ratio divides the two rates of that round; absolute rates only describe the machine.
//!
//! The senders share the cores with the server, so their cost is part of both rates. `benches/README.md` explains the options
//! and how to read the result.

mod comparison;
#[path = "../common/gateway.rs"]
mod gateway;
mod load;
mod median;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use comparison::{Comparison, Setting};
use gateway::Result;
use load::{Client, Load};
use server::{JournalState, ServerKind};

/// Compare the durable path of hookhold with bare hyper, or with another hookhold binary.
#[derive(Debug, Parser)]
struct BenchArgs {
    /// Another hookhold binary to compare with, instead of bare hyper.
    #[arg(long, value_name = "BINARY")]
    compare: Option<PathBuf>,
    /// Rounds per setting [default: 5; with --compare 30].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Measured seconds of each server in a round, in turns of half a second.
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    seconds: u64,
    /// Numbers of connections to measure with.
    #[arg(long, value_name = "C,…", value_delimiter = ',', default_value = "64,256")]
    connections: Vec<usize>,
    /// States of the journal to measure with [default: recycled; with --compare new,recycled].
    #[arg(long, value_name = "STATE,…", value_delimiter = ',')]
    journal: Vec<JournalState>,
    /// The directory that holds the journals, on a real disk [default: below target/].
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    dir: PathBuf,
    /// HTTP client of the senders.
    #[arg(long, value_enum, default_value = "socket")]
    senders: Client,
    /// Number of threads that send.
    #[arg(long, value_name = "T", default_value_t = 1)]
    sender_threads: usize,
    /// Seed for the order of the turns [default: random, printed].
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Format of the results on standard output; with json, the text goes to standard error.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Run the bare hyper server. The benchmark starts itself with this option.
    #[arg(long, hide = true)]
    serve_bare_hyper: bool,
    /// Passed by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn main() -> Result<()> {
    let args = BenchArgs::parse();
    if args.serve_bare_hyper {
        return server::serve_bare_hyper();
    }
    let (rounds, journals): (_, &[JournalState]) = match args.compare {
        None => (5, &[JournalState::Recycled]),
        Some(_) => (30, &[JournalState::New, JournalState::Recycled]),
    };
    let journals = if args.journal.is_empty() { journals } else { &args.journal };
    let mut comparison = Comparison {
        subject: ServerKind::Hookhold(gateway::hookhold().get_program().into()),
        reference: args.compare.map_or(ServerKind::BareHyper, ServerKind::Hookhold),
        rounds: args.rounds.unwrap_or(rounds),
        measured: Duration::from_secs(args.seconds),
        dir: args.dir,
        load: Load::new(args.senders, args.sender_threads)?,
        order: fastrand::Rng::with_seed(args.seed.unwrap_or_else(|| fastrand::u64(..))),
        is_json: args.format == Format::Json,
    };
    comparison.print_setup()?;
    for &connections in &args.connections {
        for &journal in journals {
            comparison.run(Setting { connections, journal })?;
        }
    }
    Ok(())
}
