//! `hookhold send`: signs genuine, duplicate or tampered deliveries with the source's own secret and sends them, as a test or
//! as a load generator. Memory use does not grow with `--count`, because each connection remembers only a few deliveries to
//! send again.

mod connections;
mod hints;
mod report;
mod stored;

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
use hookhold::journal::StoredEvent;
use hookhold::source::Source;
use hookhold::verify::sign::{SampleSeries, Tamper, can_sign, signs_only_own_body};
use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::sync::watch;
use tokio::time::Instant;

use super::send_rate::parse_rate;
use super::{Context, ExitStatus, UsageError, VerbResult};
use connections::{StopReason, send_all};
use hints::{ReceivedSigns, hints};
use stored::{StoredSummary, StoredWatch};

/// Send test deliveries to a running gateway, and report the responses.
///
/// Sends a sample of one of the provider's event types, each with an id of its own, or the file of --body as it is. Signs the delivery
/// with the first valid secret of the source. The report counts the responses to each kind of delivery, shows their latency and, if the
/// gateway's journal is on this machine, the stored events. The exit code is 1 if a response is not as expected.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SendArgs {
    /// Name of the source to test. Its recipe and its secret determine the signatures.
    source: String,
    /// URL to send to [default: the source's path at the configured [server] listen, on this machine].
    #[arg(long)]
    url: Option<String>,
    /// Event type of the sample. A type without a sample of its own is set in the default sample.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// List the event types of the provider's samples, the default first, and send nothing.
    #[arg(long)]
    list_types: bool,
    /// File to send as the body, instead of a sample.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Number of deliveries to send.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_count)]
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
    /// The ids and ordering keys of the deliveries.
    series: SampleSeries,
    args: SendArgs,
    next_number: AtomicU64,
    started: Instant,
    /// The reason why all connections must stop sending.
    stop: watch::Sender<Option<StopReason>>,
    progress: ProgressBar,
    signs: ReceivedSigns,
}

/// Sends all deliveries and prints the report. The exit status is `Failed` if a response was not as expected.
pub(super) fn run(context: &Context, args: SendArgs) -> VerbResult {
    let (config, missing_secrets) = context.load_any()?;
    let journal = config.journal.clone();
    let is_here = is_this_machine(args.url.as_deref(), config.server.listen);
    let source = source(config.sources.clone(), &args.source)?;
    // The secrets of other sources may be missing.
    if let Some(missing) = missing_secrets.filter(|_| source.lacks_secrets() && !args.list_types) {
        return Err(missing.into());
    }
    if args.list_types {
        return list_types(context, &source);
    }
    let plan = Arc::new(plan(&config, source, args)?);
    let watch = if is_here { StoredWatch::open(&journal) } else { None };
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(send_all(plan.clone()))?;
    let elapsed = plan.started.elapsed();
    plan.progress.finish_and_clear();
    let stopped = plan.stop.borrow().clone();
    let no_gateway = match &stopped {
        Some(StopReason::NoConnection(error)) => Some(error.clone()),
        _ => None,
    };
    let stored = watch.filter(|_| no_gateway.is_none()).map(|watch| count(&plan, report.accepted() > 0, watch?));
    let mut out = anstream::stdout().lock();
    if context.json() {
        report.print_json(&mut out, elapsed, &plan, stored.as_ref())?
    } else if no_gateway.is_none() {
        report.print(&mut out, elapsed, &plan, stored.as_ref())?
    }
    out.flush()?;
    if let Some(error) = no_gateway {
        return Err(error.into());
    }
    if !context.json() {
        hints(&plan, &report).iter().try_for_each(|hint| writeln!(anstream::stderr(), "hookhold: {hint}"))?;
    }
    if matches!(stopped, Some(StopReason::Interrupt)) {
        return Ok(ExitStatus::Interrupted);
    }
    Ok(if report.as_expected() { ExitStatus::Done } else { ExitStatus::Failed })
}

/// Counts the stored events of the plan. Returns the reason if the journal cannot be read, or if the events are not recognisable.
fn count(plan: &SendPlan, is_accepted: bool, watch: StoredWatch) -> Result<StoredSummary, String> {
    let is_split = plan.source.recipe.event.batch.is_some_and(|batch| batch.split);
    if plan.body.is_some() && is_split {
        return Err("the events of --body have ids of their own".to_owned());
    }
    let is_own = |stored: &StoredEvent| {
        let event = &stored.event;
        let is_sent = || plan.body.as_ref().is_some_and(|body| event.body()[..] == body[..]);
        event.source() == &*plan.source.name && (is_sent() || plan.series.contains(event.id(), event.body(), plan.args.count))
    };
    watch.count(is_accepted, is_own).map_err(|error| error.to_string())
}

/// Prints the event types of the source's samples, the default type first.
fn list_types(context: &Context, source: &Source) -> VerbResult {
    let mut out = anstream::stdout().lock();
    for event_type in source.recipe.sample_types() {
        if context.json() {
            let is_default = event_type == source.recipe.setup.sample_type;
            writeln!(out, "{}", serde_json::json!({ "type": event_type, "default": is_default }))?;
        } else {
            writeln!(out, "{event_type}")?;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

fn source(sources: Vec<Arc<Source>>, name: &str) -> Result<Arc<Source>, Box<dyn Error>> {
    let names: Vec<String> = sources.iter().map(|source| source.name.to_string()).collect();
    let found = sources.into_iter().find(|source| *source.name == *name);
    Ok(found.ok_or_else(|| super::unknown_source(name, &names))?)
}

fn plan(config: &Config, source: Arc<Source>, args: SendArgs) -> Result<SendPlan, Box<dyn Error>> {
    let (listen, tls) = (config.server.listen, config.server.tls.is_some());
    check_signs(&source, &args)?;
    let url = url(args.url.as_deref(), listen, tls, &source.path, args.tamper == Some(Tamper::Unknown))?;
    let client = reqwest::Client::builder().http1_only().no_proxy().redirect(reqwest::redirect::Policy::none());
    // If --url is absent, the client connects to the listener's address on this machine. The client then accepts any
    // certificate, because no certificate contains that address.
    let client = client.danger_accept_invalid_certs(args.url.is_none());
    let body = args.body.as_ref().map(|path| read(path)).transpose()?;
    Ok(SendPlan {
        series: SampleSeries::new(&source, args.event_type.as_deref(), fastrand::u64(..)),
        source,
        url,
        client: client.timeout(RESPONSE_TIMEOUT).build()?,
        body,
        next_number: AtomicU64::new(0),
        started: Instant::now(),
        stop: watch::Sender::new(None),
        progress: ProgressBar::with_draw_target(Some(args.count), target(args.count)),
        signs: ReceivedSigns::default(),
        args,
    })
}

/// Checks that `hookhold send` can sign the deliveries of the source, and make them invalid in the chosen way.
fn check_signs(source: &Source, args: &SendArgs) -> Result<(), UsageError> {
    if !can_sign(source, SystemClock.now()) {
        let remedy = "send a delivery from the provider's dashboard";
        let found = format!("{}, which accepts only signatures with the provider's private key; {remedy}", source.name);
        return Err(UsageError(format!("SOURCE: expected a source with a secret, found {found}")));
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
        return Err(UsageError(format!("--tamper {word}: expected a source {expected}, found {name}; {remedy}")));
    }
    if args.body.is_some() && signs_only_own_body(source, SystemClock.now()) {
        let found = format!("{}, whose signature is inside the body; leave out --body", source.name);
        return Err(UsageError(format!("--body: expected a source whose signature is outside the body, found {found}")));
    }
    Ok(())
}

/// Returns true if `url` names the configured listener of this machine.
fn is_this_machine(url: Option<&str>, listen: SocketAddr) -> bool {
    let Some(url) = url.map(str::parse::<reqwest::Url>) else { return true };
    let Ok(url) = url else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>().ok();
    let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback() || address == listen.ip());
    is_here && url.port_or_known_default() == Some(listen.port())
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

fn parse_count(text: &str) -> Result<u64, String> {
    let number = text.parse::<u64>().ok().filter(|count| *count >= 1);
    number.ok_or_else(|| format!("expected a number of deliveries of at least 1, found {text:?}"))
}

/// Maximum time to wait for a response, longer than every default deadline of the gateway.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
const EXAMPLES: &str = "\
Examples:
  hookhold send stripe
  hookhold send github --type push
  hookhold send github --list-types
  hookhold send github --type push --body push.json
  hookhold send stripe --count 10000 --connections 64 --repeat-percent 10
  hookhold send stripe --tamper body";
