//! `hookhold status`: shows on one screen whether events are lost, what does not work, since when, why, and what to do. Asks the
//! running process, and reads the journal's files if no process runs.

mod screen;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crossterm::cursor::MoveTo;
use crossterm::queue;
use crossterm::terminal::{Clear, ClearType};
use hookhold::admin::{StatusJournal, StatusProblem, StatusReport, StatusTopic};
use hookhold::config::{JournalConfig, KafkaConfig};
use hookhold::journal::disk::{Disk, LocalDisk};
use hookhold::journal::{JournalStat, ParkedEvents, ReadOnlyJournal, TopicStat};
use hookhold::service::has_rejections;

use super::ask::RunningProcess;
use super::duration_range::within;
use super::{Context, ExitStatus, VerbResult, journal_disk};

/// Show whether events are lost, what does not work, since when, why, and what to do.
///
/// Asks the running process for its state. If no process has the journal open, reads the journal's files. The numbers of
/// deliveries count from the start of the process.
///
/// The exit code is 0 if no event is lost and everything works, and 1 if a loss or a problem is shown.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    /// Show the status again and again until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
    /// Time between two looks with --watch, from 100ms to 1h.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = within(MIN_INTERVAL..=MAX_INTERVAL), requires = "watch")]
    interval: Duration,
    /// Wait until the running process answers, but at most this long, from 100ms to 1h.
    #[arg(long, value_name = "TIME", value_parser = within(MIN_INTERVAL..=MAX_INTERVAL), conflicts_with = "watch")]
    wait: Option<Duration>,
    /// Only ask whether the running process is ready for deliveries, as /readyz answers it: exit code 0 if it is, else 1. Needs no
    /// token. For health checks of containers.
    #[arg(long, conflicts_with_all = ["watch", "wait"])]
    ready: bool,
    /// URL of the running process's admin listener [default: the configured [admin] listen, on this machine].
    #[arg(long)]
    url: Option<String>,
}

/// Prints the status, with `--watch` until the operator ends the command.
pub(super) fn run(context: &Context, args: StatusArgs) -> VerbResult {
    let mut out = anstream::stdout().lock();
    if args.ready {
        return ready(context, args.url, &mut out);
    }
    let is_screen = std::io::stdout().is_terminal() && !context.json();
    let end = args.wait.map(|wait| Instant::now() + wait);
    let is_down = |report: &Result<StatusReport, _>| report.as_ref().map_or(true, |report| report.process.is_none());
    while end.is_some_and(|end| Instant::now() < end) && is_down(&report(context, args.url.clone())) {
        sleep(WAIT_PAUSE);
    }
    loop {
        let report = report(context, args.url.clone());
        if args.watch && is_screen {
            queue!(out, Clear(ClearType::All), MoveTo(0, 0))?;
        }
        match &report {
            Ok(report) if context.json() => writeln!(out, "{}", serde_json::to_string(report)?)?,
            Ok(report) => screen::print(&mut out, report)?,
            // The next look may succeed, for example after a restart.
            Err(error) if args.watch && is_screen => writeln!(out, "{}", super::causes(error.as_ref()))?,
            Err(error) if args.watch => writeln!(anstream::stderr(), "hookhold: {}", super::causes(error.as_ref()))?,
            Err(_) => {}
        }
        out.flush()?;
        if !args.watch {
            return report.map(|report| if report.is_healthy() { ExitStatus::Done } else { ExitStatus::Failed });
        }
        if !is_screen && !context.json() {
            writeln!(out)?;
        }
        sleep(args.interval);
    }
}

/// Asks `/readyz` of the running process. If the process is not ready, returns an error with the reason.
fn ready(context: &Context, url: Option<String>, out: &mut impl Write) -> VerbResult {
    RunningProcess::find(context, url)?.page("/readyz")?;
    writeln!(out, "{}", if context.json() { r#"{"ready":true}"# } else { "ready" })?;
    Ok(ExitStatus::Done)
}

/// Asks the running process, or reads the files of the journal if no process has it open.
fn report(context: &Context, url: Option<String>) -> Result<StatusReport, Box<dyn Error>> {
    if url.is_none() {
        let config = JournalConfig::load(&context.file()?)?;
        if let Some(disk) = journal_disk(&config).ok().filter(|disk| !disk.is_locked().unwrap_or(true)) {
            let stat = ReadOnlyJournal::open(disk.clone())?.stat()?;
            let topics = KafkaConfig::load_topics(&context.file()?).ok().flatten();
            return stopped(&config, &stat, disk, topics.is_some());
        }
    }
    let process = RunningProcess::find(context, url)?;
    process.parse(&process.page("/api/status")?)
}

/// Builds the report about a journal that no process has open.
fn stopped(
    config: &JournalConfig,
    stat: &JournalStat,
    disk: Arc<LocalDisk>,
    has_kafka: bool,
) -> Result<StatusReport, Box<dyn Error>> {
    let files = ParkedEvents::new(disk.clone()).list()?;
    let not_running = StatusProblem {
        what: "hookhold".to_owned(),
        seconds: None,
        why: "no process has the journal open, so hookhold receives and forwards nothing".to_owned(),
        remedy: "start `hookhold run`".to_owned(),
    };
    let topics = stat.topics.iter().filter(|topic| topic.cursor.is_some());
    Ok(StatusReport {
        lost_events: stat.lost,
        problems: [not_running].into_iter().chain(StatusProblem::of_parked(files.len() as u64)).collect(),
        journal: StatusJournal {
            dir: std::path::absolute(&config.dir)?.display().to_string(),
            events: stat.events,
            bytes: stat.bytes,
            max_bytes: config.limits.max_size,
            next_seq: stat.next,
        },
        kafka: if has_kafka { "unknown" } else { "off" }.to_owned(),
        topics: topics.map(stopped_topic).collect(),
        parked_events: files.len() as u64,
        parked_bytes: files.iter().map(|file| file.bytes).sum(),
        has_stored_rejections: has_rejections(disk),
        ..StatusReport::default()
    })
}

fn stopped_topic(topic: &TopicStat) -> StatusTopic {
    StatusTopic {
        topic: topic.topic.to_string(),
        waiting_events: topic.waiting,
        waiting_bytes: topic.pinned,
        limit_bytes: None,
        oldest_seconds: None,
        acknowledged_at: None,
        state: if topic.waiting == 0 { "ok" } else { "waiting" }.to_owned(),
    }
}

/// Pause between two looks with `--wait`.
const WAIT_PAUSE: Duration = Duration::from_millis(100);
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
const EXAMPLES: &str = "\
Examples:
  hookhold status                  one look
  hookhold status --wait 30s       wait until a starting gateway answers
  hookhold status --watch          the same, every two seconds
  hookhold status --format json    one JSON object, as /api/status of the admin listener returns it";
