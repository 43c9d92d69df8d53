//! Runs each command of the page as written. The tables of this file list every command: a command that the page adds or changes
//! fails a test until a table has it. The commands that change Kafka are the remedies in `remedies.rs`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Output, Stdio};

use hookhold::clock::UnixMillis;
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{self, stop};
use crate::kafka;
use crate::load::{request, request_at};
use crate::page::{self, CREATE, DESCRIBE, GRANT, LOWER_MIN_ISR, RAISE_LIMIT, fill};
use crate::process::{Home, Line, wait_until};

/// A command of the page, with the way in which a test runs it.
type Step = (&'static str, Run);

/// Way in which a test runs a command.
#[derive(Clone, Copy)]
enum Run {
    /// The command ends with this code, and its output contains this text.
    Ends(i32, &'static str),
    /// The command asks on the terminal, gets the answer `y`, and ends with code 0. Its output contains this text.
    Asks(&'static str),
    /// The command prints this number of lines, and continues.
    Follows(usize),
    /// The command is a gateway that becomes ready and stops at SIGTERM.
    Serves,
    /// The page names the program or the verb without its arguments. Its help exists.
    Named,
}

/// Commands about parked events. Kafka rejects two events.
const PARKED: &[Step] = &[
    ("hookhold check --kafka", Run::Ends(0, "commands-narrow")),
    ("hookhold check --kafka --kafka-timeout 1m", Run::Ends(0, "commands-narrow")),
    ("hookhold check --kafka --format json", Run::Ends(0, "\"findings\"")),
    ("hookhold parked", Run::Named),
    ("hookhold parked show", Run::Named),
    ("hookhold parked list", Run::Ends(0, "too_large")),
    ("hookhold parked show EVENT", Run::Ends(0, "stripe-signature")),
    ("hookhold parked redrive", Run::Ends(1, "sent 0 parked events, 2 rejected again")),
    ("hookhold parked redrive EVENT --to TOPIC", Run::Ends(0, "sent 1 parked event, 0 rejected again")),
    ("hookhold parked drop EVENT", Run::Asks("dropped 1 parked event")),
];

/// Commands about a topic that no source has any more. Two events wait.
const RELEASE: &[Step] = &[
    ("hookhold journal release", Run::Named),
    ("hookhold journal release webhooks.stripe --dry-run", Run::Ends(0, "events    2, ")),
    ("hookhold journal release webhooks.stripe", Run::Asks("released")),
];

/// Commands that read the journal, the configuration or the rejected deliveries of a running gateway.
const RUNNING: &[Step] = &[
    ("hookhold run", Run::Named),
    ("hookhold status", Run::Ends(0, "stuck     nothing")),
    ("hookhold status --watch", Run::Follows(5)),
    ("hookhold inspect ID", Run::Named),
    ("hookhold replay", Run::Named),
    ("hookhold check", Run::Ends(0, "no errors")),
    ("hookhold check --diff", Run::Ends(0, "server.max_body")),
    ("kill -HUP PID", Run::Ends(0, "")),
    ("hookhold rejections --since yesterday", Run::Ends(0, "signature_mismatch")),
    ("hookhold rejections --each", Run::Ends(0, "signature_mismatch")),
    ("hookhold doctor", Run::Named),
    ("hookhold doctor --help", Run::Ends(0, "tcpdump")),
    ("hookhold doctor stripe", Run::Ends(1, "signature_mismatch")),
    ("hookhold doctor stripe --request rejected.http --at 2026-11-21T07:08:13Z", Run::Ends(0, "verifies")),
    ("hookhold tail", Run::Named),
    ("hookhold tail --last 20", Run::Ends(0, "invoice.paid")),
    ("hookhold tail --follow --source stripe --format json", Run::Follows(10)),
    ("hookhold journal stat", Run::Ends(0, "events    12, ")),
    ("hookhold journal verify", Run::Ends(0, "no damage")),
    ("ulimit -n", Run::Ends(0, "")),
];

/// Commands for a stopped journal.
const STOPPED: &[Step] = &[
    ("hookhold journal new-identity", Run::Ends(0, "id        ")),
    ("hookhold run --log-format json", Run::Serves),
    ("hookhold run --log-deliveries each", Run::Serves),
];

/// Commands that a remedy in `remedies.rs` runs. The compiler reports a constant that no remedy uses.
const REMEDIES: &[&str] = &[DESCRIBE, CREATE, GRANT, LOWER_MIN_ISR, RAISE_LIMIT];

/// Commands that a test cannot run, each with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("dmesg", "needs the permission to read the kernel's log"),
    ("timedatectl timesync-status", "needs systemd"),
    ("chronyc tracking", "needs a running chrony"),
    ("kill -9", "names a signal, which tests/replay.rs sends to a replay"),
    (
        "hookhold replay --source stripe --since yesterday --until yesterday --to webhooks.stripe.retry --dry-run",
        "needs events of yesterday; tests/replay.rs selects by time",
    ),
    (
        "hookhold replay --source stripe --since yesterday --until yesterday --to webhooks.stripe.retry --rate 500/s --progress retry.json",
        "needs events of yesterday; tests/replay.rs selects by time",
    ),
];

#[test]
fn a_table_has_each_command_of_the_page() {
    let run = [PARKED, RELEASE, RUNNING, STOPPED].concat();
    let listed = run.iter().map(|(command, _)| *command).chain(REMEDIES.iter().copied());
    let listed: BTreeSet<String> = listed.chain(NOT_RUN.iter().map(|(command, _)| *command)).map(str::to_owned).collect();
    let page = page::commands();
    let (unknown, gone): (Vec<_>, Vec<_>) = (page.difference(&listed).collect(), listed.difference(&page).collect());
    assert!(unknown.is_empty(), "no test runs these commands of the page: {unknown:?}");
    assert!(gone.is_empty(), "the page does not have these commands: {gone:?}");
}

#[test]
fn the_commands_about_parked_events_work() {
    let kafka = kafka::shared();
    kafka.create_topic("commands-narrow", 1, &[("max.message.bytes", "500")]);
    kafka.create_topic("commands-wide", 1, &[]);
    let home = fixture::home(&[("stripe", "commands-narrow")], Some(&kafka.bootstrap()));
    let process = home.start();
    deliver(&home, "stripe", 2);
    wait_until("both events are parked", || process.metric("hookhold_parked_events") == Some(2.0));
    let first = || {
        let listed = home.verb(&["parked", "list", "--format", "json"]);
        let line = text(&listed).lines().next().map(str::to_owned).unwrap_or_default();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        event["event"].as_str().unwrap_or_default().to_owned()
    };
    for step in PARKED {
        run(&home, step, &[("EVENT", &first()), ("TOPIC", "commands-wide")]);
    }
    assert_eq!(kafka.records("commands-wide").len(), 1);
    stop(process);
}

#[test]
fn the_commands_that_release_a_topic_work() {
    let sources = [("stripe", "webhooks.stripe")];
    let home = fixture::home(&sources, Some("localhost:1"));
    let process = home.start();
    deliver(&home, "stripe", 2);
    stop(process);
    home.configure(&fixture::config(&sources, None));
    let process = home.start();
    RELEASE.iter().for_each(|step| run(&home, step, &[]));
    assert!(home.log().contains("gave up the waiting events"), "{}", home.log());
    stop(process);
}

#[test]
fn the_commands_for_a_gateway_work() {
    let config = fixture::config(&[("stripe", "webhooks.stripe")], None);
    let home = Home::new(&[("secret", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0")], &config);
    let process = home.start();
    deliver(&home, "stripe", 12);
    let stripe = fixture::source(&home, "stripe");
    let mut altered = request(&stripe, "evt_altered".to_owned());
    *altered.last_mut().expect("a request has a body") = b' ';
    assert_eq!(Line::open(home.hooks).ask(&altered).status, 401);
    home.put("rejected.http", &request_at(&stripe, "evt_recorded".to_owned(), RECORDED_AT));
    home.configure(&format!("server.max_body = \"2 MiB\"\n{config}"));
    RUNNING.iter().for_each(|step| run(&home, step, &[("PID", &process.id().to_string())]));
    wait_until("the configuration is reloaded", || home.log().contains("configuration reloaded"));
    stop(process);
    STOPPED.iter().for_each(|step| run(&home, step, &[]));
}

#[test]
fn the_examples_of_the_configuration_are_valid() {
    let home = fixture::home(&[("stripe", "webhooks.stripe")], None);
    let base = "journal.dir = \"journal\"\n";
    let source = |options: &str| format!("[sources.stripe]\nprovider = \"stripe\"\n{options}");
    let plain = source("secrets = [\"file:secret\"]\n");
    let examples = page::blocks("toml");
    assert_eq!(examples.len(), 4, "{examples:?}");
    for example in examples {
        // The directory /run/secrets does not exist here.
        let example = example.replace("file:/run/secrets/", "file:");
        let config = match example.split_whitespace().next() {
            Some("[admin]") => format!("{base}{example}{plain}"),
            Some("[kafka.reroute]" | "[kafka.dead_letter]") => {
                format!("{base}[kafka]\nbootstrap.servers = \"localhost:1\"\n{example}{plain}")
            }
            Some("secrets") => format!("{base}{}", source(&example)),
            other => panic!("an example that this test does not know: {other:?}"),
        };
        for file in example.split("file:").skip(1).filter_map(|rest| rest.split('"').next()) {
            home.put(file, b"whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0");
        }
        home.put("page.toml", config.as_bytes());
        let checked = home.verb(&["check", "--config", "page.toml"]);
        assert_eq!(checked.status.code(), Some(0), "{example}: {}", text(&checked));
    }
}

/// Runs a command of the page, and asserts that it ends as its table says.
fn run(home: &Home, (command, how): &Step, values: &[(&str, &str)]) {
    let filled = fill(command, values);
    println!("{filled}");
    let ended = |output: Output, code: i32, part: &str| {
        let text = text(&output);
        assert!(output.status.code() == Some(code) && text.contains(part), "{filled}: {}: {text}", output.status);
    };
    match *how {
        Run::Ends(code, part) => ended(home.shell(&filled).output().expect("bash can be run"), code, part),
        Run::Named => ended(home.shell(&format!("{filled} --help")).output().expect("bash can be run"), 0, "Usage: "),
        Run::Asks(part) => {
            // The program `script` of util-linux runs a command on a terminal.
            let mut shell = home.shell(&format!("script --quiet --return --command {filled:?} /dev/null"));
            let mut child =
                shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash can be run");
            child.stdin.take().expect("piped").write_all(b"y\n").expect("the command reads");
            ended(child.wait_with_output().expect("the command ends"), 0, part);
        }
        Run::Follows(lines) => {
            let mut child = home.shell(&format!("exec {filled}")).stdout(Stdio::piped()).spawn().expect("bash can be run");
            let printed = BufReader::new(child.stdout.take().expect("piped")).lines().take(lines).count();
            assert!(printed == lines && child.try_wait().expect("our child").is_none(), "{filled}: {printed} lines");
            child.kill().expect("the command runs");
            child.wait().expect("our child");
        }
        Run::Serves => {
            let child = home.shell(&format!("exec {filled}")).stderr(Stdio::piped()).spawn().expect("bash can be run");
            wait_until("hookhold is ready", || Line::try_open(home.admin).is_some() && fixture::page(home, "/readyz").0 == 200);
            kill_process(Pid::from_child(&child), Signal::TERM).expect("a child can be signalled until it is waited for");
            let output = child.wait_with_output().expect("our child");
            let lines = text(&output);
            let is_json = |line: &str| line.starts_with('{') || !filled.contains("json");
            assert!(lines.lines().count() > 1 && lines.lines().all(is_json), "{filled}: {lines}");
            ended(output, 0, "");
        }
    }
}

/// Sends deliveries to a source, and asserts that hookhold accepts them.
fn deliver(home: &Home, source: &str, count: usize) {
    let source = fixture::source(home, source);
    for number in 0..count {
        assert_eq!(Line::open(home.hooks).ask(&request(&source, format!("evt_{number}"))).status, 200);
    }
}

/// Returns the output of a command, with its errors.
fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).expect("the output is text")
}

/// Time of receipt in the page's example of `hookhold doctor`.
const RECORDED_AT: UnixMillis = UnixMillis(1_795_244_893_000);
