//! `hookhold doctor`: why a delivery is refused, and what would have been believed. It has no verifier of its own: it asks
//! the real one, about variants of secret, body and URL, until one is proved. A proof cannot be a coincidence, so what is
//! found that way is certain; the rest is evidence and says so.

mod bodies;
mod causes;
mod keys;
mod others;
mod request;
mod respelled;
mod search;
mod urls;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookhold::event::{Clock, Delivery, Outcome, SystemClock, UnixMillis};
use hookhold::log::escaped;
use hookhold::source::Source;
use hookhold::verify::{Believed, Refusal, verify};
use http::Method;
use serde_json::json;

use super::{Context, End, Ending, Usage};
use causes::Cause;

/// Say why a delivery is refused, and what to do about it.
///
/// Reads a recorded HTTP request and judges it as the gateway would. When it is refused, doctor looks for what would have
/// been believed: another secret or another reading of it, the body before somebody changed it, another URL, another
/// provider's scheme, another time. Secrets are named, never printed. Exit code 0 when the delivery verifies, 1 when it is
/// refused.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The source in the configuration that the delivery was sent to.
    source: String,
    /// The recorded request: request line, headers, an empty line, the body's bytes. A file of `curl --trace` will do, and - is
    /// standard input.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// When it arrived, such as 2026-11-21T07:08:13Z or seconds since 1970 [default: now].
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<UnixMillis>,
}

/// What is to be explained.
struct Case {
    source: Arc<Source>,
    /// Every other configured source.
    others: Vec<Arc<Source>>,
    delivery: Delivery,
    /// The body's length by the request's head.
    declared: Option<u64>,
    is_time_given: bool,
}

type Verdict = Result<Believed, Refusal>;

/// Judges, explains and prints.
pub fn run(context: &Context, args: Args) -> Ending {
    let config = context.load()?;
    let names: Vec<String> = config.sources.iter().map(|source| source.name.to_string()).collect();
    let (own, others): (Vec<_>, Vec<_>) = config.sources.into_iter().partition(|source| *source.name == *args.source);
    let source = own.into_iter().next().ok_or_else(|| super::unknown_source(&args.source, &names))?;
    let case = case(source, others, &args)?;
    let verdict = judge(&case.source, &case.delivery);
    let causes = causes::of(&case, &verdict);
    let mut out = anstream::stdout().lock();
    if context.json() {
        print_json(&mut out, &case, &verdict, &causes)?
    } else {
        print(&mut out, &case, &verdict, &causes)?
    }
    out.flush()?;
    Ok(if verdict.is_ok() { End::Done } else { End::Failed })
}

fn case(source: Arc<Source>, others: Vec<Arc<Source>>, args: &Args) -> Result<Case, Usage> {
    let unread = |what: String| Usage(format!("--request {}: {what}", args.request.display()));
    let bytes = read(&args.request).map_err(|error| unread(error.to_string()))?;
    let request = request::parse(&bytes).map_err(|what| unread(what.to_owned()))?;
    let delivery = Delivery {
        method: request.method,
        target: request.target,
        headers: request.headers,
        body: request.body,
        remote: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        received_at: args.at.unwrap_or_else(|| SystemClock.now()),
    };
    Ok(Case { source, others, delivery, declared: request.declared, is_time_given: args.at.is_some() })
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
fn judge(source: &Source, delivery: &Delivery) -> Verdict {
    let refuse = |outcome, hint| Err(Refusal { outcome, hint });
    if delivery.method != Method::POST {
        let hint = format!("{} where only POST is taken", escaped(delivery.method.as_str()));
        return refuse(Outcome::MethodNotAllowed, hint);
    }
    if delivery.body.len() > source.max_body {
        let hint = format!("the body has {} bytes, max_body of this source is {}", delivery.body.len(), source.max_body);
        return refuse(Outcome::TooLarge, hint);
    }
    verify(source, delivery)
}

fn print(out: &mut impl Write, case: &Case, verdict: &Verdict, causes: &[Cause]) -> io::Result<()> {
    let name = &case.source.name;
    match verdict {
        Ok(Believed::Event(verified)) => writeln!(out, "{name}: verifies with the secret {}", verified.secret)?,
        Ok(Believed::Handshake(_)) => writeln!(out, "{name}: verifies; it is a check of the endpoint, which hookhold answers")?,
        Err(refusal) => writeln!(out, "{name}: refused, {refusal}")?,
    }
    for (number, cause) in (1..).zip(causes) {
        writeln!(out, "\n{number}. {}: {}", cause.certainty.word(), cause.what)?;
        writeln!(out, "   do: {}", cause.advice)?;
    }
    Ok(())
}

fn print_json(out: &mut impl Write, case: &Case, verdict: &Verdict, causes: &[Cause]) -> io::Result<()> {
    let refusal = verdict.as_ref().err();
    let secret = verdict.as_ref().ok().and_then(|believed| match believed {
        Believed::Event(verified) => Some(&*verified.secret),
        Believed::Handshake(_) => None,
    });
    let causes: Vec<_> = causes.iter().map(Cause::json).collect();
    let line = json!({
        "source": &*case.source.name,
        "at": case.delivery.received_at.rfc3339(),
        "verifies": verdict.is_ok(),
        "secret": secret,
        "outcome": refusal.map(|refusal| refusal.outcome.word()),
        "hint": refusal.map(|refusal| &refusal.hint),
        "causes": causes,
    });
    writeln!(out, "{line}")
}

/// The largest `max_body`, and room for the head; the hexadecimal of `curl --trace` takes more for a body of some MiB.
const MAX_FILE: u64 = 257 << 20;
const EXAMPLES: &str = "\
How to get FILE (the bytes must be the ones on the wire; an editor that saves them may change them):
  the sender's dashboard     headers and payload of the delivery, below POST /hooks/SOURCE HTTP/1.1
  nc -l 9000 > FILE          while the sender, or a proxy, is pointed there
  mitmproxy                  export.file raw_request @focus FILE
  Wireshark, tcpdump         Follow > TCP Stream > Raw > Save as, between proxy and hookhold
  curl --trace FILE …        of a request that you repeat yourself

Examples:
  hookhold doctor stripe --request refused.http
  hookhold doctor stripe --request refused.http --at 2026-11-21T07:08:13Z   the time in the log
  hookhold doctor github --request - --format json < refused.http";
