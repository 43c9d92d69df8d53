//! Compares the delivery rates of two servers in rounds. Both servers run for the whole round. A round consists of turns: in
//! each turn, the senders send to one of the two servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::gateway::Result;
use crate::load::{BODY_BYTES, Load, PreparedRequest, Queue, Senders};
use crate::median::Median;
use crate::server::{Commits, JournalState, RunningServer, ServerKind};

/// The two servers to compare, and the options that apply to every setting.
pub struct Comparison {
    /// The server whose rate is the numerator of every ratio.
    pub subject: ServerKind,
    /// The server whose rate is the denominator of every ratio.
    pub reference: ServerKind,
    /// Number of rounds per setting.
    pub rounds: u32,
    /// Measurement time per server in each round.
    pub measured: Duration,
    /// Directory in which the hookhold servers create their journals.
    pub dir: PathBuf,
    /// The tokio runtime on which the senders run, and the prepared deliveries.
    pub load: Load,
    /// Random number generator that decides which server each round starts and fills first, and which server has the first turn
    /// in each pair of turns.
    pub order: Rng,
    /// True if the benchmark prints the results as JSON (`--format json`).
    pub is_json: bool,
}

/// One setting of the comparison: the number of connections and the state of the journal.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub connections: usize,
    pub journal: JournalState,
}

impl Comparison {
    /// Prints the two servers, the options and the properties of the machine.
    pub fn print_setup(&self) -> Result<()> {
        let file_system = hookhold::journal::file_system(&self.dir)?.name;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (subject, reference) = (self.subject.label(), self.reference.label());
        let (client, threads, seconds, seed) =
            (self.load.label(), self.load.threads, self.measured.as_secs(), self.order.get_seed());
        self.text(&format!("ratio = subject / reference\n  subject:   {subject}\n  reference: {reference}"));
        self.text(&format!(
            "{} rounds of {seconds} s each, order of turns from seed {seed}; {BODY_BYTES} B Stripe bodies, {client} senders on \
             {threads} thread(s), journal on {file_system}, {cores} cores",
            self.rounds
        ));
        self.json(json!({
            "subject": subject, "reference": reference, "rounds": self.rounds, "seconds": seconds, "seed": seed,
            "body_bytes": BODY_BYTES, "senders": client, "sender_threads": threads, "file_system": file_system, "cores": cores,
        }));
        Ok(())
    }

    /// Runs all rounds of one setting, prints the result of each round, and prints the median ratio.
    pub fn run(&mut self, setting: Setting) -> Result<()> {
        let Setting { connections, journal } = setting;
        self.text(&format!("\n{connections} connections, {} journal", journal.label()));
        let mut ratios = Vec::new();
        for round in 1..=self.rounds {
            ratios.push(self.round(setting, round)?);
        }
        let Median { value, interval } = Median::of(&ratios);
        let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(low, high), &ratio| (low.min(ratio), high.max(ratio)));
        let bounds = interval.as_ref().map_or("no 95 % interval from fewer than 6 rounds".to_owned(), |interval| {
            let (low, high, (first, last)) = (interval.low, interval.high, interval.ranks);
            let percent = interval.coverage * 100.0;
            format!("{percent:.1} % interval {low:.3} to {high:.3} (order statistics {first} and {last} of {})", ratios.len())
        });
        self.text(&format!("  median ratio {value:.3}, {bounds}, range {low:.3} to {high:.3}"));
        self.json(json!({
            "connections": connections, "journal": journal.label(), "rounds": ratios.len(), "median_ratio": value,
            "interval": interval.as_ref().map(|interval| [interval.low, interval.high]),
            "coverage": interval.as_ref().map(|interval| interval.coverage), "range": [low, high],
        }));
        Ok(())
    }

    /// Runs one round: starts both servers, fills their journals, measures each server in several turns, and returns the ratio
    /// of the two rates. The random order decides which server the round starts and fills first.
    fn round(&mut self, setting: Setting, round: u32) -> Result<f64> {
        let Setting { connections, journal } = setting;
        let pairs = self.measured.as_millis().div_ceil(TURN.as_millis()) as u32;
        let (seconds, per_second) = ((pairs * (SETTLE + TURN)).as_secs_f64(), self.load.max_per_second());
        let requests = self.load.requests((seconds * per_second) as usize + FILL_MARGIN + journal.fill_deliveries() as usize)?;
        let mut kinds = [&self.subject, &self.reference];
        let started_first = self.order.usize(0..2);
        kinds.rotate_left(started_first);
        let mut runs = [Run::start(kinds[0], self, setting, &requests)?, Run::start(kinds[1], self, setting, &requests)?];
        for run in &runs {
            run.fill(&self.load, setting)?;
        }
        runs.rotate_left(started_first); // the subject is now the first
        let mut order = String::new();
        for _ in 0..pairs {
            let first = self.order.usize(0..2);
            for index in [first, 1 - first] {
                runs[index].turn(&self.load, setting)?;
                order.push(['s', 'r'][index]);
            }
        }
        let [subject, reference] = [runs[0].result()?, runs[1].result()?];
        drop(runs);
        let ratio = subject.per_second / reference.per_second;
        self.text(&format!("  round {round:>2}: subject {subject}; reference {reference}; ratio {ratio:.3}"));
        self.json(json!({
            "connections": connections, "journal": journal.label(), "round": round, "order": order,
            "subject": subject.json(), "reference": reference.json(), "ratio": ratio,
        }));
        Ok(ratio)
    }

    fn text(&self, line: &str) {
        if self.is_json { eprintln!("{line}") } else { println!("{line}") }
    }

    fn json(&self, line: Value) {
        if self.is_json {
            println!("{line}");
        }
    }
}

/// A running server and its measurements in one round.
struct Run {
    server: RunningServer,
    queue: Arc<Queue>,
    answers: u64,
    elapsed: Duration,
    cpu_seconds: f64,
}

impl Run {
    fn start(kind: &ServerKind, comparison: &Comparison, setting: Setting, requests: &Arc<[PreparedRequest]>) -> Result<Run> {
        let server = RunningServer::start(kind, setting.journal, &comparison.dir, comparison.load.certificate())?;
        let queue = Arc::new(Queue::new(requests.clone(), matches!(kind, ServerKind::BareHyper)));
        Ok(Run { server, queue, answers: 0, elapsed: Duration::ZERO, cpu_seconds: 0.0 })
    }

    /// Sends deliveries until the server's journal is in the state that `setting` requires.
    fn fill(&self, load: &Load, setting: Setting) -> Result<()> {
        let target = setting.journal.fill_deliveries();
        if target == 0 || !self.server.has_journal() {
            return Ok(());
        }
        let senders = self.start_senders(load, setting)?;
        while self.queue.answers() < target && !senders.has_failed() {
            std::thread::sleep(Duration::from_millis(10));
        }
        senders.stop().map_err(|error| self.server.explain(error))
    }

    /// Sends deliveries on all connections for one turn. The measurement starts after [`SETTLE`].
    fn turn(&mut self, load: &Load, setting: Setting) -> Result<()> {
        let senders = self.start_senders(load, setting)?;
        std::thread::sleep(SETTLE);
        let (answers, began, cpu_seconds) = (self.queue.answers(), Instant::now(), self.server.cpu_seconds()?);
        std::thread::sleep(TURN);
        self.answers += self.queue.answers() - answers;
        self.elapsed += began.elapsed();
        self.cpu_seconds += self.server.cpu_seconds()? - cpu_seconds;
        senders.stop().map_err(|error| self.server.explain(error))
    }

    fn start_senders<'a>(&self, load: &'a Load, setting: Setting) -> Result<Senders<'a>> {
        load.start(self.server.address, setting.connections, &self.queue).map_err(|error| self.server.explain(error))
    }

    fn result(&self) -> Result<RunResult> {
        let count = self.answers as f64;
        Ok(RunResult {
            per_second: count / self.elapsed.as_secs_f64(),
            cpu_us: self.cpu_seconds * 1e6 / count,
            commits: self.server.commits()?,
        })
    }
}

/// Measured result of one server in one round.
struct RunResult {
    per_second: f64,
    /// Processor time of the server process per delivery, in microseconds.
    cpu_us: f64,
    commits: Option<Commits>,
}

impl RunResult {
    fn json(&self) -> Value {
        let commits = self.commits.as_ref().map(Commits::json);
        json!({ "per_second": self.per_second, "cpu_us": self.cpu_us, "commits": commits })
    }
}

impl std::fmt::Display for RunResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>7.0}/s, {:>4.1} us CPU", self.per_second, self.cpu_us)?;
        match &self.commits {
            Some(Commits { events, sync_us }) => write!(f, ", {events:.0} events per sync of {sync_us:.0} us"),
            None => Ok(()),
        }
    }
}

/// Duration of the measurement in one turn.
const TURN: Duration = Duration::from_millis(500);
/// Delay between the start of a turn and the start of its measurement. The delay gives every connection time to send its first
/// delivery.
const SETTLE: Duration = Duration::from_millis(100);
/// Number of additional deliveries to prepare. [`Run::fill`] checks its target only every 10 ms, so the senders may send more
/// deliveries than the target.
const FILL_MARGIN: usize = 10_000;
