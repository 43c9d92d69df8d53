//! `hookhold doctor`: explains why the gateway rejects a delivery. doctor runs the gateway's own verifier on variants of the
//! secret, the body and the URL until a variant verifies. A signature cannot match by coincidence, so a cause that this search
//! finds is `certain`. A cause that the request itself shows, such as a wrong method, is also `certain`. A cause that depends
//! on an unknown time of receipt is only `possible`. All other causes are `likely` if there is evidence for them, and otherwise
//! `possible`.

mod body_variants;
mod captured;
mod cause;
mod compression;
mod credentials;
mod explain;
mod gateway_changes;
mod json_styles;
mod key_variants;
mod other_sources;
mod query_orders;
mod recorded;
mod request;
mod schemes;
mod search;
mod timing;
mod url_variants;

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::config::{AdminConfig, JournalConfig};
use hookhold::diagnostic::Diagnostics;
use hookhold::event::Delivery;
use hookhold::outcome::Outcome;
use hookhold::rejections::RejectedDelivery;
use hookhold::source::{Providers, Source};
use hookhold::verify::{Rejection, Verdict, Verified, VerifiedBatch};
use serde_json::json;

use super::{Context, ExitStatus, UsageError, VerbResult};
use captured::CapturedDelivery;
use cause::Cause;
use recorded::RecordedRejection;
use request::RecordedRequest;

/// Explain why hookhold rejected a delivery, with a remedy for each cause.
///
/// Reads the rejected deliveries that hookhold has stored, also if it has restarted since then, and takes the newest one with
/// each cause. Or reads a recorded HTTP request. Checks each delivery as the gateway does. If the check fails, doctor tries
/// variants of the delivery until a variant verifies. A variant differs in the secret, the decoding of the secret, the body,
/// the URL, the provider's scheme or the time. doctor prints the names of secrets, never the secrets themselves. The exit code
/// is 0 if every delivery verifies, otherwise 1.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Name of the configured source that received the delivery.
    source: String,
    /// File with the recorded request: request line, headers, an empty line and the bytes of the body. doctor also accepts
    /// a file from `curl --trace`. If FILE is -, doctor reads standard input. If this option is absent, doctor reads the
    /// rejected deliveries in the journal's directory.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Time of receipt in RFC 3339, such as 2026-11-21T07:08:13Z, or in seconds since 1970 [default: now].
    #[arg(long, value_name = "TIME", value_parser = captured::parse_time, requires = "request")]
    at: Option<UnixMillis>,
    /// Maximum number of causes to explain, the one with the newest rejected delivery first.
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "request")]
    last: usize,
    /// URL of the admin listener of a running process, from which doctor fetches the rejected deliveries instead.
    #[arg(long, conflicts_with = "request")]
    url: Option<String>,
}

/// Verifies each delivery and prints the causes of each rejection.
pub(super) fn run(context: &Context, args: DoctorArgs) -> VerbResult {
    let (config, missing_secrets) = context.load_any()?;
    let names: Vec<String> = config.sources.iter().map(|source| source.name.to_string()).collect();
    let stores = (config.admin, config.journal);
    let (own, others): (Vec<_>, Vec<_>) = config.sources.into_iter().partition(|source| *source.name == *args.source);
    let source = own.into_iter().next().ok_or_else(|| super::unknown_source(&args.source, &names))?;
    if let Some(missing) = missing_secrets.filter(|_| source.lacks_secrets()) {
        return without_secrets(context, stores, &source.name, args, missing);
    }
    let deliveries = deliveries(context, stores, source, others.into(), config.providers, args)?;
    let mut out = anstream::stdout().lock();
    let mut status = ExitStatus::Done;
    for (number, captured) in deliveries.iter().enumerate() {
        let verdict = captured.judge();
        let causes = explain::causes(captured, &verdict);
        if context.json() {
            print_json(&mut out, captured, &verdict, &causes)?
        } else {
            out.write_all(if number > 0 { b"\n" } else { b"" })?;
            print(&mut out, captured, &verdict, &causes)?
        }
        if verdict.is_err() {
            status = ExitStatus::Failed;
        }
    }
    out.flush()?;
    Ok(status)
}

/// Prints the stored rejections as hookhold has recorded them, because the secrets to test them are missing.
fn without_secrets(
    context: &Context,
    (admin, journal): (AdminConfig, JournalConfig),
    source: &str,
    args: DoctorArgs,
    missing: Diagnostics,
) -> VerbResult {
    if args.request.is_some() {
        return Err(missing.into());
    }
    let mut out = anstream::stdout().lock();
    for recorded in stored(context, args.url, &admin, &journal, source, args.last)? {
        let RejectedDelivery { received_at, remote, outcome, hint, .. } = &recorded.rejected;
        let (at, outcome) = (received_at.rfc3339(), outcome.word());
        match context.json() {
            true => {
                writeln!(out, "{}", json!({ "source": source, "at": at, "remote": remote, "refused_as": outcome, "hint": hint }))?
            }
            false => writeln!(out, "{at} from {remote}\n{source}: the gateway has rejected the delivery as {outcome}: {hint}\n")?,
        }
    }
    out.flush()?;
    let note = "doctor finds the cause only with the secrets; set them in this shell, as the process of `hookhold run` has them";
    writeln!(anstream::stderr(), "{missing}\nhookhold: {note}")?;
    Ok(ExitStatus::Usage)
}

/// Returns the newest stored rejection with each cause.
fn stored(
    context: &Context,
    url: Option<String>,
    admin: &AdminConfig,
    journal: &JournalConfig,
    source: &str,
    last: usize,
) -> Result<Vec<RecordedRejection>, Box<dyn Error>> {
    let rejections = match url {
        Some(url) => recorded::from_process(context, url, source, last)?,
        None => recorded::from_files(admin, journal, source, last)?,
    };
    if rejections.is_empty() {
        writeln!(
            anstream::stderr(),
            "hookhold: SOURCE: expected stored rejections of {source}, found none; have the sender send the delivery again, or pass a \
             recorded request with --request FILE"
        )?;
    }
    Ok(rejections)
}

/// Returns the recorded request from the file that `--request` names. If `--request` is absent, returns the newest stored rejection
/// with each cause.
fn deliveries(
    context: &Context,
    (admin, journal): (AdminConfig, JournalConfig),
    source: Arc<Source>,
    others: Arc<[Arc<Source>]>,
    providers: Providers,
    args: DoctorArgs,
) -> Result<Vec<CapturedDelivery>, Box<dyn Error>> {
    let unknown_address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let captured = |request: RecordedRequest, at: Option<UnixMillis>, rejected: Option<RejectedDelivery>, alike| {
        let RecordedRequest { method, target, headers, body, declared } = request;
        let remote = rejected.as_ref().map_or(unknown_address, |rejected| rejected.remote);
        let received_at = at.unwrap_or_else(|| SystemClock.now());
        let delivery = Delivery { method, target, headers, body, remote, received_at };
        let is_time_given = at.is_some();
        let (source, others, providers) = (source.clone(), others.clone(), providers.clone());
        let certificate_rejection = rejected.as_ref().and_then(certificate_rejection);
        let rejected_as = rejected.map(|rejected| rejected.outcome.word().to_owned());
        CapturedDelivery {
            source,
            others,
            providers,
            delivery,
            declared,
            is_time_given,
            rejected_as,
            certificate_rejection,
            alike,
        }
    };
    if let Some(file) = &args.request {
        return Ok(vec![captured(recorded_request(file)?, args.at, None, 0)]);
    }
    let rejections = stored(context, args.url, &admin, &journal, &source.name, args.last)?;
    let captured = |RecordedRejection { request, rejected, alike }: RecordedRejection| {
        captured(request, Some(rejected.received_at), Some(rejected), alike)
    };
    Ok(rejections.into_iter().map(captured).collect())
}

/// Returns the outcome and the hint of a delivery that was rejected because of its client certificate.
fn certificate_rejection(rejected: &RejectedDelivery) -> Option<(Outcome, String)> {
    let by_certificate = [Outcome::ClientCertificateMissing, Outcome::ClientCertificateInvalid];
    by_certificate.contains(&rejected.outcome).then(|| (rejected.outcome, rejected.hint.clone()))
}

fn recorded_request(file: &Path) -> Result<RecordedRequest, UsageError> {
    let unreadable = |what: String| UsageError(format!("--request {}: {what}", file.display()));
    let bytes =
        read(file).map_err(|error| unreadable(format!("cannot read the file: {error}; check the path and its permissions")))?;
    if bytes.len() as u64 > MAX_FILE {
        let most = MAX_FILE >> 20;
        return Err(unreadable(format!("expected at most {most} MiB, found a larger file; record only one request")));
    }
    request::parse(&bytes).map_err(|what| unreadable(what.to_owned()))
}

/// Reads a file, or standard input if `path` is `-`. Reads at most one byte more than [`MAX_FILE`].
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let input: Box<dyn Read> = if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(std::fs::File::open(path)?) };
    input.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn print(
    out: &mut impl Write,
    captured: &CapturedDelivery,
    verdict: &Result<Verdict, Rejection>,
    causes: &[Cause],
) -> io::Result<()> {
    let name = &captured.source.name;
    if captured.rejected_as.is_some() {
        let (at, remote) = (captured.delivery.received_at.rfc3339(), captured.delivery.remote);
        let alike = match captured.alike {
            0 | 1 => String::new(),
            alike => format!(", the newest of {alike} stored rejections with this cause"),
        };
        writeln!(out, "{at} from {remote}{alike}")?;
    }
    match verdict {
        Ok(Verdict::Event(Verified { secret, .. }) | Verdict::Batch(VerifiedBatch { secret, .. })) => match secret {
            Some(secret) if captured.rejected_as.is_some() => {
                writeln!(out, "{name}: the configuration of this shell, with the secret {secret}, verifies the delivery now")?
            }
            Some(secret) => writeln!(out, "{name}: the secret {secret} verifies the delivery")?,
            None => writeln!(out, "{name}: the gateway accepts the delivery, because the recipe requires no proof")?,
        },
        Ok(Verdict::UnsignedChallenge(_)) => {
            writeln!(out, "{name}: the gateway answers this unsigned endpoint challenge, which proves nothing about the sender")?
        }
        Ok(Verdict::Challenge(_)) => {
            writeln!(out, "{name}: the delivery is a verified endpoint challenge, which the gateway answers")?
        }
        Err(rejection) => writeln!(out, "{name}: the gateway rejects the delivery as {rejection}")?,
    }
    if let (Ok(_), Some(outcome)) = (verdict, &captured.rejected_as) {
        writeln!(out, "   but the gateway rejected it as {outcome}")?;
        let what = "the running gateway has another secret or configuration than this shell, or they have changed since then";
        writeln!(out, "\n1. likely: {what}")?;
        writeln!(
            out,
            "   remedy: compare the environment of the gateway with this shell, then restart the gateway or send SIGHUP"
        )?;
    }
    for (number, cause) in (1..).zip(causes) {
        writeln!(out, "\n{number}. {}: {}", cause.certainty.word(), cause.what)?;
        writeln!(out, "   remedy: {}", cause.advice)?;
    }
    Ok(())
}

fn print_json(
    out: &mut impl Write,
    captured: &CapturedDelivery,
    verdict: &Result<Verdict, Rejection>,
    causes: &[Cause],
) -> io::Result<()> {
    let rejection = verdict.as_ref().err();
    let secret = verdict.as_ref().ok().and_then(|verdict| match verdict {
        Verdict::Event(Verified { secret, .. }) | Verdict::Batch(VerifiedBatch { secret, .. }) => secret.as_deref(),
        Verdict::Challenge(_) | Verdict::UnsignedChallenge(_) => None,
    });
    let causes: Vec<_> = causes.iter().map(Cause::json).collect();
    let line = json!({
        "source": &*captured.source.name,
        "at": captured.delivery.received_at.rfc3339(),
        "remote": captured.rejected_as.as_ref().map(|_| captured.delivery.remote),
        "refused_as": captured.rejected_as,
        "alike": captured.alike,
        "verifies": verdict.is_ok(),
        "proved": verdict.is_ok() && !matches!(verdict, Ok(Verdict::UnsignedChallenge(_))),
        "secret": secret,
        "outcome": rejection.map(|rejection| rejection.outcome.word()),
        "hint": rejection.map(|rejection| &rejection.hint),
        "causes": causes,
    });
    writeln!(out, "{line}")
}

/// Maximum size of a `--request` file, in bytes: the upper limit of `[server] max_body`, plus 1 MiB for the request head. Some
/// valid recordings exceed this maximum: the `max_body` of a source may be above that upper limit, and a `curl --trace` file is
/// several times as long as the request.
const MAX_FILE: u64 = 257 << 20;
const EXAMPLES: &str = "\
Ways to record FILE with the bytes as the sender sent them (an editor may change the bytes):
  the sender's dashboard     POST /hooks/SOURCE HTTP/1.1, then the headers, an empty line and the payload
  nc -l 9000 > FILE          while the sender, or a proxy, sends to this port
  mitmproxy                  export.file raw_request @focus FILE
  Wireshark, tcpdump         Follow > TCP Stream > Raw > Save as, between proxy and hookhold
  curl --trace FILE …        for a request that you send yourself

Examples:
  hookhold doctor stripe                               the newest rejection with each cause
  hookhold doctor stripe --request rejected.http
  hookhold doctor stripe --request rejected.http --at 2026-11-21T07:08:13Z   with the time from the log
  hookhold doctor github --request - --format json < rejected.http";
