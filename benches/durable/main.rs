//! Measures how many deliveries per second hookhold stores in its durable journal. Compares this rate with the rate of bare
//! hyper, of another hookhold binary, or of a hookhold that remembers no keys. One run measures both servers. These are the forms
//! of the command:
//! ```text
//! cargo bench --bench durable                                   # hookhold / bare hyper
//! cargo bench --bench durable -- --compare OTHER --rounds 30    # hookhold / another hookhold binary
//! cargo bench --bench durable -- --remembered-keys 100000000    # hookhold with many dedupe keys / without
//! ```
//!
//! The benchmark starts the two servers as separate processes. The same senders send the same signed 2 KiB Stripe deliveries, each
//! with a unique id, to both servers over keep-alive connections. `--senders` selects HTTP/1.1, or HTTP/2 with TLS. The benchmark
//! measures one server at a time, in turns of half a second, because the speed of a shared machine changes within seconds. The
//! result of a round is the ratio of the two rates. Compare only ratios, because absolute rates depend on the machine. The senders
//! share the processor cores with the servers, so both rates include the cost of the senders. `benches/README.md` explains the
//! options and the result.

mod bare_hyper;
mod comparison;
#[path = "../common/gateway.rs"]
mod gateway;
mod h2_tls;
mod load;
mod median;
#[allow(dead_code, reason = "the benchmark keys uses all items")]
#[path = "../common/remembered_keys.rs"]
mod remembered_keys;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use comparison::{Comparison, Setting};
use gateway::Result;
use hookhold::certificate::CertificateFiles;
use load::{Client, Load};
use server::{JournalState, ServerKind};
use tempfile::TempDir;

/// Compare the delivery rate of hookhold with the rate of bare hyper or of another hookhold binary.
#[derive(Debug, Parser)]
struct BenchArgs {
    /// Another hookhold binary to compare with, instead of bare hyper.
    #[arg(long, value_name = "BINARY")]
    compare: Option<PathBuf>,
    /// Number of dedupe keys that the journal of hookhold remembers. Compares with a hookhold that remembers none. 100 million
    /// keys need about 6 GB in DIR.
    #[arg(long, value_name = "N", conflicts_with = "compare")]
    remembered_keys: Option<u64>,
    /// Number of rounds per setting [default: 5, or 30 with --compare and --remembered-keys].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Measurement time per server in each round, in seconds. The benchmark divides this time into turns of half a second.
    /// During a turn, the senders send to only one of the two servers.
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    seconds: u64,
    /// Numbers of connections to test. The benchmark runs separate rounds with each number.
    #[arg(long, value_name = "C,…", value_delimiter = ',', default_value = "64,256")]
    connections: Vec<usize>,
    /// States of the journal to test. The benchmark runs separate rounds with each state [default: recycled, or new,recycled
    /// with --compare].
    #[arg(long, value_name = "STATE,…", value_delimiter = ',')]
    journal: Vec<JournalState>,
    /// Directory for the journals, on a real disk [default: a directory in target/].
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    dir: PathBuf,
    /// HTTP client of the senders.
    #[arg(long, value_enum, default_value = "socket")]
    senders: Client,
    /// Number of concurrent streams on each connection, with --senders h2-tls.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    streams: u16,
    /// Number of sender threads.
    #[arg(long, value_name = "T", default_value_t = 1)]
    sender_threads: usize,
    /// Seed for the order of the starts and turns [default: random; the benchmark prints the seed].
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Format of the results on standard output. With json, the benchmark prints its text output on standard error.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Run only the bare hyper server. The benchmark starts its own binary with this option to get the server process.
    #[arg(long, hide = true)]
    serve_bare_hyper: bool,
    /// Certificate of the bare hyper server, which then serves HTTP/2 over TLS.
    #[arg(long, hide = true, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the bare hyper server.
    #[arg(long, hide = true, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Ignored. Cargo passes this flag to every benchmark.
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
        let files = args.tls_cert.zip(args.tls_key).map(|(cert, key)| CertificateFiles { cert, key });
        return bare_hyper::serve(files.as_ref());
    }
    let binary = PathBuf::from(gateway::hookhold().get_program());
    let key_files = args.remembered_keys.map(|keys| remember(keys, &args.dir)).transpose()?;
    let key_path = key_files.as_ref().map(|files| files.path().to_owned());
    let (reference, rounds, journals): (_, _, &[JournalState]) = match (args.compare, &key_path) {
        (Some(other), _) => {
            (ServerKind::Hookhold { binary: other, key_files: None }, 30, &[JournalState::New, JournalState::Recycled])
        }
        (None, Some(_)) => (ServerKind::Hookhold { binary: binary.clone(), key_files: None }, 30, &[JournalState::New]),
        (None, None) => (ServerKind::BareHyper, 5, &[JournalState::Recycled]),
    };
    let journals = if args.journal.is_empty() { journals } else { &args.journal };
    let mut comparison = Comparison {
        subject: ServerKind::Hookhold { binary, key_files: key_path },
        reference,
        rounds: args.rounds.unwrap_or(rounds),
        measured: Duration::from_secs(args.seconds),
        dir: args.dir,
        load: Load::new(args.senders, args.sender_threads, args.streams.into())?,
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

/// Makes the key files of `keys` keys in a new directory inside `parent`.
fn remember(keys: u64, parent: &Path) -> Result<TempDir> {
    let dir = tempfile::tempdir_in(parent)?;
    eprintln!("making the key files of {keys} keys");
    remembered_keys::make(dir.path(), keys);
    Ok(dir)
}
