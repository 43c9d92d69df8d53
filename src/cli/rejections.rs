//! `hookhold rejections`: lists the rejected deliveries in the journal's directory, grouped by their cause. Works while `run` runs,
//! and while it does not.

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;

use clap::builder::PossibleValuesParser;
use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::config::{AdminConfig, JournalConfig};
use hookhold::limits::AdminLimits;
use hookhold::log::escaped;
use hookhold::outcome::Outcome;
use hookhold::rejections::{RejectedDelivery, RejectionCause, is_explained_by_delivery};
use hookhold::service::read_rejections;
use hookhold::units::bytes_about;
use serde_json::json;

use super::body_text::BodyText;
use super::time_bound::{parse_end, parse_start};
use super::{Context, ExitStatus, VerbResult, journal_disk, table};

/// List the deliveries that hookhold has rejected, grouped by their cause.
///
/// hookhold stores samples of the deliveries that it rejects, for as long as [admin] keep_rejected_for says. This command reads
/// their files, so it works whether hookhold runs or not. `hookhold doctor SOURCE` explains the newest delivery with each cause.
/// The metric hookhold_deliveries_total counts all rejected deliveries.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RejectionsArgs {
    /// Start of the period: today, yesterday, an age such as 2h, a day, or a time in RFC 3339. Days are days in UTC.
    #[arg(long, value_name = "TIME", value_parser = parse_start)]
    since: Option<UnixMillis>,
    /// End of the period, in the same forms. A day is included.
    #[arg(long, value_name = "TIME", value_parser = parse_end)]
    until: Option<UnixMillis>,
    /// Name of the source.
    #[arg(long)]
    source: Option<String>,
    /// Outcome, as in the log.
    #[arg(long, value_parser = PossibleValuesParser::new(explained_outcomes()))]
    outcome: Option<String>,
    /// Show only the rejection with this id, as --each prints it, with its request. With the id of an event, shows the rejections whose
    /// stored request contains this text; several of them as a list.
    #[arg(long)]
    id: Option<String>,
    /// List single rejections, oldest first, instead of groups.
    #[arg(long, conflicts_with = "id")]
    each: bool,
}

/// Rejections with the same cause.
struct RejectionGroupSummary {
    count: u64,
    sampled_out: u64,
    first: UnixMillis,
    newest: RejectedDelivery,
}

/// Reads the stored rejections, and prints the selected ones.
pub(super) fn run(context: &Context, args: RejectionsArgs) -> VerbResult {
    let file = context.file()?;
    let (limits, journal) = (AdminConfig::load_limits(&file)?, JournalConfig::load(&file)?);
    let (mut groups, mut each) = (HashMap::<RejectionCause, RejectionGroupSummary>::new(), Vec::new());
    read_stored(&limits, &journal, |rejected| match args.select(&rejected) {
        false => {}
        true if args.each || args.id.is_some() => each.push(rejected),
        true => add(&mut groups, rejected),
    })?;
    each.sort_by_key(|rejected| (rejected.received_at, rejected.id));
    let mut out = anstream::stdout().lock();
    match &args.id {
        Some(id) => show_or_list(context, id, &each, &mut out)?,
        None if args.each => list(context, &each, &mut out)?,
        None => summarize(context, groups, &mut out)?,
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// Calls `each` with every rejected delivery that is stored and not expired. Warns about damaged ones.
pub(super) fn read_stored(
    limits: &AdminLimits,
    journal: &JournalConfig,
    mut each: impl FnMut(RejectedDelivery),
) -> Result<(), Box<dyn Error>> {
    if limits.keep_rejected == 0 {
        let off = "admin.keep_rejected: expected more than \"0 B\", found \"0 B\"; set keep_rejected and send SIGHUP";
        return Err(off.into());
    }
    let age = limits.keep_rejected_for.as_millis() as u64;
    let not_before = UnixMillis(SystemClock.now().0.saturating_sub(age));
    let damaged = read_rejections(journal_disk(journal)?, |rejected| {
        if rejected.received_at >= not_before {
            each(rejected);
        }
    })?;
    if damaged > 0 {
        let dir = journal.dir.display();
        writeln!(anstream::stderr(), "hookhold: skipped {damaged} damaged entries in the rejection files of {dir}")?;
    }
    Ok(())
}

impl RejectionsArgs {
    fn select(&self, rejected: &RejectedDelivery) -> bool {
        let is_named = |name: &Option<String>, found: &str| name.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(found));
        self.since.is_none_or(|since| rejected.received_at >= since)
            && self.until.is_none_or(|until| rejected.received_at <= until)
            && self.source.as_ref().is_none_or(|source| *source == *rejected.source)
            && is_named(&self.outcome, rejected.outcome.word())
            && self.id.as_ref().is_none_or(|id| rejected.id_text().eq_ignore_ascii_case(id) || contains(rejected, id))
    }
}

fn add(groups: &mut HashMap<RejectionCause, RejectionGroupSummary>, rejected: RejectedDelivery) {
    let summary = groups.entry(rejected.cause()).or_insert_with(|| RejectionGroupSummary {
        count: 0,
        sampled_out: 0,
        first: rejected.received_at,
        newest: rejected.clone(),
    });
    summary.count += 1;
    summary.sampled_out = summary.sampled_out.saturating_add(rejected.sampled_out);
    summary.first = summary.first.min(rejected.received_at);
    if rejected.received_at > summary.newest.received_at {
        summary.newest = rejected;
    }
}

/// Prints the groups, the one with the newest rejection first.
fn summarize(
    context: &Context,
    groups: HashMap<RejectionCause, RejectionGroupSummary>,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let mut groups: Vec<RejectionGroupSummary> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse((group.newest.received_at, group.newest.id)));
    if groups.is_empty() && !context.json() {
        writeln!(out, "no stored rejections")?;
    }
    for (number, RejectionGroupSummary { count, sampled_out, first, newest }) in groups.iter().enumerate() {
        let (source, outcome, hint, last) = (&*newest.source, newest.outcome.word(), &newest.hint, newest.received_at.rfc3339());
        if context.json() {
            let newest = json!({ "id": newest.id_text(), "remote": newest.remote, "received_at": last });
            let object = json!({
                "source": source, "outcome": outcome, "hint": hint, "count": count, "sampled_out": sampled_out,
                "first": first.rfc3339(), "last": last, "newest": newest, "explain": format!("hookhold doctor {source}"),
            });
            writeln!(out, "{object}")?;
            continue;
        }
        let separator = if number > 0 { "\n" } else { "" };
        let more = if *sampled_out > 0 { format!(", {sampled_out} more without a record") } else { String::new() };
        writeln!(out, "{separator}{source}  {outcome}  {count} recorded{more}")?;
        writeln!(out, "   from {} to {last}", first.rfc3339())?;
        writeln!(out, "   {hint}")?;
        writeln!(out, "   newest: {} from {}", newest.id_text(), newest.remote)?;
        writeln!(out, "   explain: hookhold doctor {source}")?;
    }
    Ok(())
}

fn list(context: &Context, each: &[RejectedDelivery], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    if context.json() {
        return Ok(each.iter().try_for_each(|rejected| writeln!(out, "{}", rejected.json()))?);
    }
    if each.is_empty() {
        return Ok(writeln!(out, "no stored rejections")?);
    }
    let mut rows = table::new(&["ID", "RECEIVED", "SOURCE", "OUTCOME", "REMOTE", "SIZE", "HINT"], &[5]);
    for rejected in each {
        rows.add_row([
            rejected.id_text(),
            rejected.received_at.rfc3339(),
            rejected.source.to_string(),
            rejected.outcome.word().to_owned(),
            rejected.remote.to_string(),
            bytes_about(rejected.request.len() as u64),
            rejected.hint.clone(),
        ]);
    }
    Ok(writeln!(out, "{}", rows.trim_fmt())?)
}

/// Prints the rejection whose own id is `id`, or else those whose requests contain `id`.
fn show_or_list(context: &Context, id: &str, found: &[RejectedDelivery], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let own = found.iter().find(|rejected| rejected.id_text().eq_ignore_ascii_case(id));
    match (own, found) {
        (Some(rejected), _) | (None, [rejected]) => show(context, rejected, out),
        (None, []) => {
            let what = "expected the id of a stored rejection, or an id that occurs in its request";
            Err(format!("--id: {what}, found none with {}; see --each", escaped(id)).into())
        }
        (None, several) => list(context, several, out),
    }
}

/// Returns true if the stored request contains the text `id`.
fn contains(rejected: &RejectedDelivery, id: &str) -> bool {
    !id.is_empty() && memchr::memmem::find(&rejected.request, id.as_bytes()).is_some()
}

fn show(context: &Context, rejected: &RejectedDelivery, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    if context.json() {
        return Ok(writeln!(out, "{}", rejected.json())?);
    }
    writeln!(out, "id        {}", rejected.id_text())?;
    writeln!(out, "received  {}", rejected.received_at.rfc3339())?;
    writeln!(out, "source    {}", rejected.source)?;
    writeln!(out, "outcome   {}", rejected.outcome.word())?;
    writeln!(out, "hint      {}", rejected.hint)?;
    writeln!(out, "remote    {}", rejected.remote)?;
    let end = memchr::memmem::find(&rejected.request, HEAD_END).unwrap_or(rejected.request.len());
    let (head, rest) = rejected.request.split_at(end);
    for line in String::from_utf8_lossy(head).lines() {
        writeln!(out, "  {}", line.escape_debug())?;
    }
    let body = BodyText::of(rest.get(HEAD_END.len()..).unwrap_or_default());
    writeln!(out)?;
    Ok(body.write(out, "", "`--format json`, in request_base64,")?)
}

fn explained_outcomes() -> Vec<&'static str> {
    Outcome::ALL.iter().filter(|outcome| is_explained_by_delivery(**outcome)).map(|outcome| outcome.word()).collect()
}

/// End of the head of a recorded request.
const HEAD_END: &[u8] = b"\r\n\r\n";
const EXAMPLES: &str = "\
Examples:
  hookhold rejections --since yesterday
  hookhold rejections --source stripe --outcome signature_mismatch --since 2h --each
  hookhold rejections --id ID --format json | jq -r .request_base64 | base64 -d > rejected.http";
