//! `hookhold doctor`: why a delivery is refused, and what would have been believed. It has no verifier of its own: it asks
//! the real one, about variants of secret, body and URL, until one is proved. A proof cannot be a coincidence, so what is
//! found that way is certain; the rest is evidence and says so.

mod bodies;
mod cause;
mod causes;
mod kept;
mod keys;
mod others;
mod request;
mod respelled;
mod search;
mod urls;

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::event::Delivery;
use hookhold::log::escaped;
use hookhold::outcome::Outcome;
use hookhold::source::Source;
use hookhold::verify::{Rejection, Verdict, Verifier, unsigned_challenge};
use http::Method;
use serde_json::json;

use super::{Context, ExitStatus, UsageError, VerbResult};
use cause::Cause;
use request::Request;

/// Say why a delivery is refused, and what to do about it.
///
/// Reads a recorded HTTP request, or asks the running process for the latest that it refused, and judges them as the gateway
/// would. When one is refused, doctor looks for what would have been believed: another secret or another reading of it, the
/// body before somebody changed it, another URL, another provider's scheme, another time. Secrets are named, never printed.
/// Exit code 0 when every delivery verifies, 1 when one is refused.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// The source in the configuration that the delivery was sent to.
    source: String,
    /// The recorded request: request line, headers, an empty line, the body's bytes. A file of `curl --trace` will do, and - is
    /// standard input. Without it the running process is asked, which keeps refused deliveries when [admin] keep_rejected is set.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// When it arrived, such as 2026-11-21T07:08:13Z or seconds since 1970 [default: now].
    #[arg(long, value_name = "TIME", value_parser = time, requires = "request")]
    at: Option<UnixMillis>,
    /// How many of the refused deliveries, the newest first.
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "request")]
    last: usize,
    /// The admin listener to ask [default: [admin] listen of the configuration, on this machine].
    #[arg(long, conflicts_with = "request")]
    url: Option<String>,
}

/// What is to be explained.
struct Case {
    source: Arc<Source>,
    /// Every other configured source.
    others: Arc<[Arc<Source>]>,
    delivery: Delivery,
    /// The body's length by the request's head.
    declared: Option<u64>,
    is_time_given: bool,
    /// The outcome that it had when the running process kept it. Then its address is known, too.
    refused_as: Option<String>,
}

type Diagnosis = Result<Verdict, Rejection>;

/// Judges, explains and prints.
pub fn run(context: &Context, args: DoctorArgs) -> VerbResult {
    let config = context.load()?;
    let names: Vec<String> = config.sources.iter().map(|source| source.name.to_string()).collect();
    let (own, others): (Vec<_>, Vec<_>) = config.sources.into_iter().partition(|source| *source.name == *args.source);
    let source = own.into_iter().next().ok_or_else(|| super::unknown_source(&args.source, &names))?;
    let cases = cases(context, source, others.into(), args)?;
    let mut out = anstream::stdout().lock();
    let mut end = ExitStatus::Done;
    for (number, case) in cases.iter().enumerate() {
        let verdict = judge(case);
        let causes = causes::of(case, &verdict);
        if context.json() {
            print_json(&mut out, case, &verdict, &causes)?
        } else {
            out.write_all(if number > 0 { b"\n" } else { b"" })?;
            print(&mut out, case, &verdict, &causes)?
        }
        if verdict.is_err() {
            end = ExitStatus::Failed;
        }
    }
    out.flush()?;
    Ok(end)
}

/// The recorded request, or the latest ones that the running process refused.
fn cases(
    context: &Context,
    source: Arc<Source>,
    others: Arc<[Arc<Source>]>,
    args: DoctorArgs,
) -> Result<Vec<Case>, Box<dyn Error>> {
    let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let case = |request: Request, remote, at: Option<UnixMillis>, refused_as| {
        let Request { method, target, headers, body, declared } = request;
        let received_at = at.unwrap_or_else(|| SystemClock.now());
        let delivery = Delivery { method, target, headers, body, remote, received_at };
        Case { source: source.clone(), others: others.clone(), delivery, declared, is_time_given: at.is_some(), refused_as }
    };
    if let Some(file) = &args.request {
        return Ok(vec![case(recorded(file)?, nobody, args.at, None)]);
    }
    let kept = kept::newest(context, args.url, &source.name, args.last)?;
    if kept.is_empty() {
        writeln!(anstream::stderr(), "hookhold: no refused delivery of {} is kept at present", source.name)?;
    }
    Ok(kept.into_iter().map(|kept| case(kept.request, kept.remote, Some(kept.received_at), Some(kept.refused_as))).collect())
}

fn recorded(file: &Path) -> Result<Request, UsageError> {
    let unread = |what: String| UsageError(format!("--request {}: {what}", file.display()));
    let bytes = read(file).map_err(|error| unread(error.to_string()))?;
    request::parse(&bytes).map_err(|what| unread(what.to_owned()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let input: Box<dyn Read> = if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(std::fs::File::open(path)?) };
    input.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// RFC 3339, or seconds since 1970.
fn time(text: &str) -> Result<UnixMillis, String> {
    let seconds = text.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1000));
    let written = || text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_millisecond()).ok());
    let millis = seconds.or_else(written).ok_or("neither RFC 3339, such as 2026-11-21T07:08:13Z, nor seconds since 1970")?;
    Ok(UnixMillis(millis))
}

/// What the gateway would say, as far as the request itself decides.
fn judge(case: &Case) -> Diagnosis {
    let Case { source, delivery, .. } = case;
    let refuse = |outcome, hint| Err(Rejection { outcome, hint });
    if delivery.method != Method::POST {
        let hint = format!("{} where only POST is taken", escaped(delivery.method.as_str()));
        return refuse(Outcome::MethodNotAllowed, hint);
    }
    if case.refused_as.is_some() && !source.allows_address(delivery.remote.ip()) {
        let hint = format!("{} is not in allow_from of this source", delivery.remote.ip());
        return refuse(Outcome::AddressNotAllowed, hint);
    }
    let size = (delivery.body.len() as u64).max(case.declared.unwrap_or(0));
    if size > source.max_body as u64 {
        let hint = format!("the body has {size} bytes, max_body of this source is {}", source.max_body);
        return refuse(Outcome::TooLarge, hint);
    }
    Verifier::new(source.clone()).verify(delivery)
}

/// True of a check of the endpoint that is answered to whoever sends it.
fn is_unsigned(case: &Case) -> bool {
    unsigned_challenge(&case.source, &case.delivery).is_some()
}

fn print(out: &mut impl Write, case: &Case, verdict: &Diagnosis, causes: &[Cause]) -> io::Result<()> {
    let name = &case.source.name;
    if case.refused_as.is_some() {
        writeln!(out, "{} from {}", case.delivery.received_at.rfc3339(), case.delivery.remote)?;
    }
    match verdict {
        Ok(Verdict::Event(verified)) => writeln!(out, "{name}: verifies with the secret {}", verified.secret)?,
        Ok(Verdict::Challenge(_)) if is_unsigned(case) => {
            writeln!(out, "{name}: answered as a check of the endpoint that nobody signs; nothing is proved about it")?
        }
        Ok(Verdict::Challenge(_)) => writeln!(out, "{name}: verifies; it is a check of the endpoint, which hookhold answers")?,
        Err(refusal) => writeln!(out, "{name}: refused, {refusal}")?,
    }
    if let (Ok(_), Some(outcome)) = (verdict, &case.refused_as) {
        writeln!(out, "   it was refused as {outcome}: secrets or configuration have changed since")?;
    }
    for (number, cause) in (1..).zip(causes) {
        writeln!(out, "\n{number}. {}: {}", cause.certainty.word(), cause.what)?;
        writeln!(out, "   do: {}", cause.advice)?;
    }
    Ok(())
}

fn print_json(out: &mut impl Write, case: &Case, verdict: &Diagnosis, causes: &[Cause]) -> io::Result<()> {
    let refusal = verdict.as_ref().err();
    let secret = verdict.as_ref().ok().and_then(|believed| match believed {
        Verdict::Event(verified) => Some(&*verified.secret),
        Verdict::Challenge(_) => None,
    });
    let causes: Vec<_> = causes.iter().map(Cause::json).collect();
    let line = json!({
        "source": &*case.source.name,
        "at": case.delivery.received_at.rfc3339(),
        "remote": case.refused_as.as_ref().map(|_| case.delivery.remote),
        "refused_as": case.refused_as,
        "verifies": verdict.is_ok(),
        "proved": verdict.is_ok() && !is_unsigned(case),
        "secret": secret,
        "outcome": refusal.map(|refusal| refusal.outcome.word()),
        "hint": refusal.map(|refusal| &refusal.hint),
        "causes": causes,
    });
    writeln!(out, "{line}")
}

/// The largest `[server] max_body`, and room for the head. A source may take larger bodies, and the hexadecimal of `curl --trace`
/// is some times as long as its body: whoever records those has to do with less.
const MAX_FILE: u64 = 257 << 20;
const EXAMPLES: &str = "\
How to get FILE (the bytes must be the ones on the wire; an editor that saves them may change them):
  the sender's dashboard     headers and payload of the delivery, below POST /hooks/SOURCE HTTP/1.1
  nc -l 9000 > FILE          while the sender, or a proxy, is pointed there
  mitmproxy                  export.file raw_request @focus FILE
  Wireshark, tcpdump         Follow > TCP Stream > Raw > Save as, between proxy and hookhold
  curl --trace FILE …        of a request that you repeat yourself

Examples:
  hookhold doctor stripe                               the latest refused deliveries, with [admin] keep_rejected
  hookhold doctor stripe --request refused.http
  hookhold doctor stripe --request refused.http --at 2026-11-21T07:08:13Z   the time in the log
  hookhold doctor github --request - --format json < refused.http";
