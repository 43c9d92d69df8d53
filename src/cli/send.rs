//! `hookhold send`: signs genuine, duplicate or tampered deliveries with the source's own secret and sends them, as a test or
//! as a load generator. Memory use does not grow with `--count`, because each connection remembers only a few deliveries to
//! send again.

mod connections;
mod report;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use hookhold::clock::{Clock, SystemClock};
use hookhold::config::Config;
use hookhold::source::Source;
use hookhold::verify::sign::{Tamper, can_sign, signs_only_own_body};
use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Context, ExitStatus, UsageError, VerbResult};
use connections::send_all;

/// Send test deliveries to a running gateway, and report the responses.
///
/// Gives each new delivery an id of its own, and signs the delivery in the provider's format with the first valid secret of the
/// source. The report counts the responses to each kind of delivery and shows their latency. The exit code is 1 if a response
/// is not as expected.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SendArgs {
    /// Name of the source to test. Its recipe and its secret determine the signatures.
    source: String,
    /// URL to send to [default: the source's path at the configured [server] listen, on this machine].
    #[arg(long)]
    url: Option<String>,
    /// Event type of the sample.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// File to send as the body, instead of a sample.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Number of deliveries to send.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Maximum number of deliveries per second, such as 500 or 500/s [default: no limit].
    #[arg(long, value_name = "R/s", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Number of connections that send in parallel.
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Percentage of deliveries that repeat an earlier delivery.
    #[arg(long, value_name = "P", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    repeat_percent: u8,
    /// Way to tamper with every delivery: body, secret, missing (no signature), stale, future, or unknown (no such source).
    #[arg(long, value_name = "HOW", value_parser = parse_tamper, conflicts_with = "repeat_percent")]
    tamper: Option<Tamper>,
}

/// State that all connections of one `hookhold send` share.
struct SendPlan {
    source: Arc<Source>,
    url: String,
    client: reqwest::Client,
    body: Option<Bytes>,
    /// Random part of every id. Distinguishes the ids of different runs.
    run: u64,
    args: SendArgs,
    next_number: AtomicU64,
    started: Instant,
    /// True after Ctrl-C: all connections must stop sending.
    stop: watch::Sender<bool>,
    progress: ProgressBar,
}

/// Sends all deliveries and prints the report. The exit status is `Failed` if a response was not as expected.
pub(super) fn run(context: &Context, args: SendArgs) -> VerbResult {
    let plan = Arc::new(plan(context.load()?, args)?);
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(send_all(plan.clone()))?;
    let elapsed = plan.started.elapsed();
    plan.progress.finish_and_clear();
    let mut out = anstream::stdout().lock();
    if context.json() {
        report.print_json(&mut out, elapsed)?
    } else {
        report.print(&mut out, elapsed)?
    }
    out.flush()?;
    if !context.json() && report.is_limited() {
        writeln!(anstream::stderr(), "{LIMITED}")?;
    }
    Ok(if report.as_expected() { ExitStatus::Done } else { ExitStatus::Failed })
}

fn plan(config: Config, args: SendArgs) -> Result<SendPlan, Box<dyn Error>> {
    let names: Vec<String> = config.sources.iter().map(|source| source.name.to_string()).collect();
    let (listen, tls) = (config.server.listen, config.server.tls.is_some());
    let found = config.sources.into_iter().find(|source| *source.name == *args.source);
    let source = found.ok_or_else(|| super::unknown_source(&args.source, &names))?;
    if !can_sign(&source, SystemClock.now()) {
        let remedy = "send a delivery from the provider's dashboard";
        let found = format!("{}, which accepts only signatures with the provider's private key; {remedy}", source.name);
        return Err(UsageError(format!("SOURCE: expected a source with a secret, found {found}")).into());
    }
    if let Some(tamper) = args.tamper.filter(|tamper| !tamper.applies_to(&source.recipe)) {
        let (word, name) = (tamper_word(tamper), &source.name);
        let expected = match tamper {
            Tamper::Stale | Tamper::Future => "with signed timestamps",
            Tamper::Body => "whose proof covers the body",
            Tamper::Secret | Tamper::Missing | Tamper::Unknown => "with a proof that samples can have",
        };
        let others = Tamper::WORDS.iter().filter(|(_, one)| one.applies_to(&source.recipe)).map(|(word, _)| *word);
        let remedy = format!("use --tamper {}", others.collect::<Vec<_>>().join(" or "));
        let what = format!("--tamper {word}: expected a source {expected}, found {name}; {remedy}");
        return Err(UsageError(what).into());
    }
    if args.body.is_some() && signs_only_own_body(&source, SystemClock.now()) {
        let found = format!("{}, whose signature is inside the body; leave out --body", source.name);
        return Err(UsageError(format!("--body: expected a source whose signature is outside the body, found {found}")).into());
    }
    let url = url(args.url.as_deref(), listen, tls, &source.path, args.tamper == Some(Tamper::Unknown))?;
    let client = reqwest::Client::builder().http1_only().no_proxy().redirect(reqwest::redirect::Policy::none());
    // If --url is absent, the client connects to the listener's address on this machine. The client then accepts any
    // certificate, because no certificate contains that address.
    let client = client.danger_accept_invalid_certs(args.url.is_none());
    let body = args.body.as_ref().map(|path| read(path)).transpose()?;
    Ok(SendPlan {
        source,
        url,
        client: client.timeout(RESPONSE_TIMEOUT).build()?,
        body,
        run: fastrand::u64(..),
        next_number: AtomicU64::new(0),
        started: Instant::now(),
        stop: watch::Sender::new(false),
        progress: ProgressBar::with_draw_target(Some(args.count), target(args.count)),
        args,
    })
}

fn read(path: &Path) -> Result<Bytes, UsageError> {
    std::fs::read(path).map(Bytes::from).map_err(|error| {
        UsageError(format!("--body: cannot read {}: {error}; check the path and its permissions", path.display()))
    })
}

/// Returns the draw target of the progress bar: standard error for 100 deliveries or more, otherwise hidden. indicatif draws
/// the bar only if standard error is a terminal.
fn target(count: u64) -> ProgressDrawTarget {
    if count < 100 { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

/// Returns the URL to which `hookhold send` sends its deliveries: `given` if the operator passes a URL, otherwise the
/// listener's URL on this machine. If the URL has no path, adds the path of the source. If `is_unknown_path` is true, appends
/// `-unknown` to the path.
fn url(given: Option<&str>, listen: SocketAddr, tls: bool, path: &str, is_unknown_path: bool) -> Result<String, UsageError> {
    let host = if listen.ip().is_unspecified() { format!("127.0.0.1:{}", listen.port()) } else { listen.to_string() };
    let given = given.map_or_else(|| format!("{}://{host}", if tls { "https" } else { "http" }), str::to_owned);
    let mut url = given
        .parse::<reqwest::Url>()
        .map_err(|error| UsageError(format!("--url: expected a URL such as http://127.0.0.1:8080, found {given:?} ({error})")))?;
    // "localhost:8080" parses as a URL with the scheme localhost.
    if !["http", "https"].contains(&url.scheme()) {
        return Err(UsageError(format!("--url: expected http:// or https://, found {given:?}; did you mean http://{given}?")));
    }
    let path = if url.path() == "/" { path.to_owned() } else { url.path().to_owned() };
    url.set_path(&if is_unknown_path { format!("{path}-unknown") } else { path });
    Ok(url.into())
}

fn tamper_word(tamper: Tamper) -> &'static str {
    Tamper::WORDS.iter().find(|(_, one)| *one == tamper).map_or("", |(word, _)| word)
}

fn parse_tamper(text: &str) -> Result<Tamper, String> {
    let words: Vec<&str> = Tamper::WORDS.iter().map(|(word, _)| *word).collect();
    let found = Tamper::WORDS.iter().find(|(word, _)| *word == text).map(|(_, tamper)| *tamper);
    found.ok_or_else(|| format!("expected one of {}, found {text:?}", words.join(", ")))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().ok();
    let number = number.filter(|rate| (0.001..=1e9).contains(rate));
    number.ok_or_else(|| format!("expected a number of deliveries per second from 0.001 to 1e9, such as 500/s, found {text:?}"))
}

/// Maximum time to wait for a response, longer than every default deadline of the gateway.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
const LIMITED: &str = "hookhold: --rate: expected a rate within the gateway's limits, found 429 (rate_limited); lower --rate, \
                       or raise the exceeded limit: max_rejected_per_address or max_in_flight_per_address for this address, or \
                       max_rate for the source";
const EXAMPLES: &str = "\
Examples:
  hookhold send stripe
  hookhold send github --type push --body push.json
  hookhold send stripe --count 10000 --connections 64 --repeat-percent 10
  hookhold send stripe --tamper body";
