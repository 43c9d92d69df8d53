//! `hookhold replay`: sends stored events of the journal again, to Kafka or to a URL. Reads the journal while `run` writes to it, with a
//! Kafka client of its own, and moves no cursor.

mod command_line;
mod event_count;
mod outlet;
mod pace;
pub(super) mod past_replays;
mod progress_file;
mod replay_run;
mod report;
mod selected_events;
mod selection;
mod stop_signal;
mod target;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::config::JournalConfig;
use hookhold::journal::{JournalStat, Random, ReadOnlyJournal, SystemRandom, id_text};
use hookhold::units::duration_text;
use indicatif::{ProgressBar, ProgressStyle};

use super::confirm::confirm;
use super::duration_range::within;
use super::send_rate::parse_rate;
use super::tail::warn_of_unknown_source;
use super::{Context, ExitStatus, UsageError, VerbResult, journal_disk};
use command_line::shell_words;
use event_count::EventCount;
use pace::ReplayPace;
use past_replays::PastReplay;
use progress_file::ReplayState;
use replay_run::ReplayRun;
use report::{ReplayReport, print_gaps};
use selected_events::{SelectedEvents, joined};
use selection::{CompiledSelection, ReplaySelection};
use stop_signal::StopSignal;
use target::ReplayTarget;

/// Send stored events again, to Kafka or to a URL.
///
/// Sends the selected events of the journal in the order of their sequence numbers, so the order of each key stays the same. The
/// records have the same key, value, timestamp and headers as in the first forwarding, and two more headers: hookhold-replay, the id of
/// the replay, and hookhold-replayed-at. Works while the gateway runs or not, and moves no cursor. Runs with a lower priority than the
/// gateway. Events that hookhold stores after the start of the replay are not part of it. hookhold can send only events that the
/// journal still contains ([journal] retain).
///
/// After Ctrl-C or SIGTERM, replay waits for the acknowledgements in flight, and prints the command that sends the rest. With
/// --progress, a replay can resume even after kill -9: the same command continues where the file says. After kill -9, at most 2,000
/// events arrive twice: at most 1,000 in flight, and those since the last write of the file, after at most 1,000 acknowledgements.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    selection: ReplaySelection,
    /// Topic or URL to which to send the events [default: the topic of each event, or the one that replaces it in kafka.reroute]. A URL
    /// receives a request for each event, with the original body and headers, and hookhold-replay, hookhold-replayed-at, hookhold-log
    /// and hookhold-seq.
    #[arg(long, value_name = "TOPIC|URL")]
    to: Option<String>,
    /// Count the selected events, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Send the events without asking. A URL on this machine needs no confirmation.
    #[arg(long)]
    yes: bool,
    /// Maximum number of events per second, such as 500 or 500/s [default: no limit].
    #[arg(long, value_name = "R/s", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Time without an acknowledgement, or for all attempts to post one event, after which replay stops.
    #[arg(long, value_name = "TIME", default_value = DEFAULT_TIMEOUT, value_parser = within(MIN_TIMEOUT..=MAX_TIMEOUT))]
    timeout: Duration,
    /// Skip events that the URL does not accept, instead of stopping.
    #[arg(long)]
    skip_failed: bool,
    /// File in which to record the progress. If it exists, replay resumes where it says; the selection and --to must be the same.
    #[arg(long, value_name = "FILE", conflicts_with = "replay_id")]
    progress: Option<PathBuf>,
    /// Id of the interrupted replay that this one continues. The command that replay prints contains it.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    replay_id: Option<String>,
}

/// Priority of the process (`nice`): below that of the gateway, which must not wait for a replay on the same machine.
const PRIORITY: i32 = 10;

/// Sends the selected events, and prints the numbers. The exit status is `Failed` if an event was rejected, skipped or missing.
pub(super) fn run(context: &Context, args: ReplayArgs) -> VerbResult {
    args.selection.check()?;
    // The threads that start later inherit the priority. Without the right to lower it, the replay runs as it is.
    let _ = rustix::process::setpriority_process(None, PRIORITY);
    let (target, config) = ReplayTarget::find(context, args.to.as_deref())?;
    if args.skip_failed && !target.is_url() {
        let found = format!("--to {}; leave out --skip-failed", target.name());
        return Err(UsageError(format!("--skip-failed: expected a URL in --to, found {found}")).into());
    }
    let mut journal = ReadOnlyJournal::open(journal_disk(&config)?)?;
    let stat = journal.stat()?;
    let id = stat.id.map(id_text).ok_or("the journal: expected events, found no readable segment")?;
    let found = match &args.progress {
        Some(file) => progress_file::read(file, &id, args.to.as_deref(), &args.selection)?,
        None => None,
    };
    let is_resumed = found.is_some();
    let state = found.map_or_else(|| new_state(&args, &stat, &id), Ok)?;
    let selection = state.selection.compile().ok_or("the type patterns are valid, as checked at the start")?;
    let count = count(&mut journal, &selection, &state)?;
    note_what_is_gone(&mut journal, &state, &stat)?;
    if count.events == 0 && args.selection.names_ids() && !is_resumed {
        return Err(
            "--id: expected a stored event with this id, found none; `hookhold rejections` lists the rejected ones".into()
        );
    }
    let mut out = anstream::stdout().lock();
    if args.dry_run {
        target.check(args.timeout, true)?;
        match context.json() {
            true => writeln!(out, "{}", count.to_json(&target.name()))?,
            false => {
                count.print(&mut out, &target.name())?;
                writeln!(out, "dry run: nothing was sent")?;
            }
        }
        out.flush()?;
        print_gaps(&count.missing)?;
        warn_of_nothing_found(context, &args, &mut journal, &count)?;
        return Ok(ExitStatus::Done);
    }
    if let (true, Some(file)) = (state.next >= state.end && is_resumed, &args.progress) {
        let (replay, file) = (&state.replay, file.display());
        writeln!(anstream::stderr(), "replay {replay}: complete already; delete {file} to send the events again")?;
        if !context.json() {
            return Ok(ExitStatus::Done);
        }
    }
    target.check(args.timeout, false)?;
    let asks = count.events > 0 && !args.yes && !is_resumed && !target.is_on_this_machine();
    if asks && !confirm(WITHOUT_TERMINAL, |out| count.print(out, &target.name()), "Send these events?")? {
        return Ok(ExitStatus::Failed);
    }
    warn_of_nothing_found(context, &args, &mut journal, &count)?;
    send(context, &args, target, (&mut journal, &selection), state, count, &mut out)
}

/// Says what the journal contains if no event is selected, because the source may be misspelt, or the period another one than meant.
fn warn_of_nothing_found(
    context: &Context,
    args: &ReplayArgs,
    journal: &mut ReadOnlyJournal,
    count: &EventCount,
) -> io::Result<()> {
    if count.events > 0 {
        return Ok(());
    }
    journal.seek(0);
    if let Some(oldest) = journal.next()? {
        let (received_at, seq) = (oldest.event.received_at().rfc3339(), oldest.position.seq);
        writeln!(
            anstream::stderr(),
            "hookhold: no events found; the oldest event in the journal is #{seq}, received {received_at}"
        )?;
    }
    warn_of_unknown_source(context, args.selection.source.as_deref())
}

/// Creates the state of a new replay. The replay ends at the present log end, so a replay into a topic of the gateway does not send
/// events that arrive meanwhile.
fn new_state(args: &ReplayArgs, stat: &JournalStat, journal: &str) -> Result<ReplayState, io::Error> {
    let replay = match &args.replay_id {
        Some(id) => id.clone(),
        None => format!("{:016x}", SystemRandom.next_u64()?),
    };
    let end = args.selection.end_seq(stat.next);
    let next = args.selection.first_seq().unwrap_or(stat.oldest).min(end);
    Ok(ReplayState::new(replay, journal.to_owned(), args.to.clone(), args.selection.clone(), next, end))
}

/// Counts the events that are left to send. Shows on a terminal that the work is under way.
fn count(journal: &mut ReadOnlyJournal, selection: &CompiledSelection, state: &ReplayState) -> io::Result<EventCount> {
    let spinner = ProgressBar::new_spinner().with_message("counting the selected events");
    spinner.enable_steady_tick(TICK);
    let count = EventCount::of(SelectedEvents::new(journal, selection, state.next..state.end));
    spinner.finish_and_clear();
    count
}

/// Says on standard error if the period begins before the oldest stored event.
fn note_what_is_gone(journal: &mut ReadOnlyJournal, state: &ReplayState, stat: &JournalStat) -> io::Result<()> {
    let (Some(since), None, true) = (state.selection.since(), state.selection.first_seq(), stat.oldest > 0) else {
        return Ok(());
    };
    journal.seek(stat.oldest);
    let oldest = journal.next()?.map_or(UnixMillis(0), |stored| stored.event.received_at());
    if oldest > since {
        let at = oldest.rfc3339();
        writeln!(
            anstream::stderr(),
            "hookhold: the oldest stored event was received at {at}; hookhold has deleted earlier ones"
        )?;
    }
    Ok(())
}

fn send(
    context: &Context,
    args: &ReplayArgs,
    target: ReplayTarget,
    (journal, selection): (&mut ReadOnlyJournal, &CompiledSelection),
    state: ReplayState,
    count: EventCount,
    out: &mut impl Write,
) -> VerbResult {
    let (begun, name, first) = (Instant::now(), target.name(), state.next);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let stop = StopSignal::listen(&runtime)?;
    let outlet = target.open(state.journal(), &state.replay, args.timeout, args.skip_failed)?;
    writeln!(anstream::stderr(), "replay {}: {} to {name}", state.replay, count.size())?;
    let style = ProgressStyle::with_template(BAR).expect("a valid template");
    let report = ReplayReport::new(state.replay.clone(), count.events);
    // The first reading has found where the selected events begin and end.
    let seqs = if count.events == 0 { state.end..state.end } else { count.seqs.clone() };
    let mut run = ReplayRun {
        runtime: &runtime,
        stop,
        outlet,
        pace: args.rate.and_then(ReplayPace::new),
        file: args.progress.clone(),
        unsent_from: state.next,
        state,
        bar: ProgressBar::new(count.events).with_style(style),
        report,
        saved: (0, begun),
    };
    let mut events = SelectedEvents::new(journal, selection, seqs);
    let result = run.run(&mut events);
    run.report.elapsed = begun.elapsed();
    let ReplayRun { outlet, stop, state, mut report, .. } = run;
    outlet.stop();
    if report.sent > 0 {
        let replay = PastReplay::new(&state.replay, SystemClock.now(), args.to.as_deref(), &args.selection, first, state.next);
        note(context, replay)?;
    }
    report.missing = joined([count.missing, events.into_missing()].concat());
    report.resume = (state.next < state.end).then(|| resume_command(context, args, &state));
    report.next = state.next;
    report.error = result.as_ref().err().map(|error| super::causes(error.as_ref()));
    match context.json() {
        true => report.print_json(out)?,
        false => report.print(out)?,
    }
    out.flush()?;
    print_gaps(&report.missing)?;
    match (result, &report.resume, stop.requested()) {
        (Err(error), Some(resume), _) => Err(format!("{}; resume with: {resume}", super::causes(error.as_ref())).into()),
        (Err(error), None, _) => Err(error),
        (Ok(()), Some(resume), Some(status)) => {
            writeln!(anstream::stderr(), "replay {}: stopped; resume with: {resume}", report.replay)?;
            Ok(status)
        }
        (Ok(()), ..) => Ok(if report.is_whole() { ExitStatus::Done } else { ExitStatus::Failed }),
    }
}

/// Notes the replay for `hookhold inspect`. A failure only costs the note, because the events are sent.
fn note(context: &Context, replay: PastReplay) -> Result<(), Box<dyn Error>> {
    let disk = journal_disk(&JournalConfig::load(&context.file()?)?)?;
    if let Err(error) = past_replays::note(&*disk, replay) {
        let dir = "the journal's directory";
        writeln!(anstream::stderr(), "hookhold: cannot note the replay in {dir}, so `inspect` will not show it: {error}")?;
    }
    Ok(())
}

/// Returns the command that sends the rest of the events.
fn resume_command(context: &Context, args: &ReplayArgs, state: &ReplayState) -> String {
    let mut words: Vec<String> = ["hookhold", "replay"].map(str::to_owned).into();
    let mut add = |name: &str, value: Option<String>| words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    add("--config", context.config.as_ref().map(|file| file.display().to_string()));
    add("--format", context.json().then(|| "json".to_owned()));
    add("--to", args.to.clone());
    add("--rate", args.rate.map(|rate| format!("{rate}/s")));
    add("--timeout", Some(duration_text(args.timeout)).filter(|timeout| timeout != DEFAULT_TIMEOUT));
    add("--progress", args.progress.as_ref().map(|file| file.display().to_string()));
    add("--replay-id", args.progress.is_none().then(|| state.replay.clone()));
    words.extend(args.skip_failed.then(|| "--skip-failed".to_owned()));
    words.extend(args.progress.is_none().then(|| "--yes".to_owned()));
    words.extend(match &args.progress {
        Some(_) => state.selection.given(),
        None => state.selection.rest(state.next, state.end),
    });
    shell_words(&words)
}

fn parse_id(text: &str) -> Result<String, String> {
    let is_digit = |letter: u8| letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter);
    let is_id = text.len() == 16 && text.bytes().all(is_digit);
    if is_id { Ok(text.to_owned()) } else { Err("expected the 16 hexadecimal digits of a replay".to_owned()) }
}

const DEFAULT_TIMEOUT: &str = "1m";
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Interval at which the spinner turns.
const TICK: Duration = Duration::from_millis(100);
const BAR: &str = "{bar:40} {pos}/{len} events, {per_sec}, {eta} left";
const WITHOUT_TERMINAL: &str = "--yes: expected a confirmation, found no terminal; add --yes to send the events, or --dry-run to \
                                count them";
const EXAMPLES: &str = "\
Examples:
  hookhold replay --source stripe --since yesterday --until yesterday --to webhooks.stripe.retry \\
    --dry-run
  hookhold replay --source stripe --since yesterday --until yesterday --to webhooks.stripe.retry \\
    --progress retry.json
  hookhold replay --id evt_1 --to http://localhost:3000/hook
  hookhold replay --topic webhooks.stripe --seq 120000..129999 --rate 500/s

Exit codes in addition to those of the other commands:
  1    an event was rejected, skipped or missing, or replay has stopped because of an error
  130  Ctrl-C has stopped replay
  143  SIGTERM has stopped replay";
