//! Tests that `hookhold status` tells whether events are lost, what is stuck, since when, why, and what to do.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::Output;

use process::{Home, Process, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const SOURCE: &str =
    "server.drain_delay = \"0s\"\nsources.stripe.provider = \"stripe\"\nsources.stripe.secrets = [\"file:one\"]\n";
const KAFKA_AWAY: &str = "kafka.\"bootstrap.servers\" = \"127.0.0.1:1\"\n";

fn home(more: &str) -> Home {
    Home::new(&[("one", "whsec_c2VjcmV0IG51bWJlciBvbmU="), ("two", "whsec_YW5vdGhlciBzZWNyZXQ=")], &format!("{SOURCE}{more}"))
}

fn status(home: &Home) -> (Option<i32>, String) {
    let output = home.verb(&["status"]);
    (output.status.code(), text(&output))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn report(home: &Home) -> Value {
    let output = home.verb(&["status", "--format", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

fn send(home: &Home, args: &[&str]) {
    let output = home.verb(&[&["send", "stripe"], args].concat());
    assert!(output.status.success(), "{}", text(&output));
}

fn stop(process: Process<'_>) {
    process.signal(Signal::TERM);
    assert!(process.wait().success());
}

#[test]
fn a_healthy_gateway_has_lost_nothing_and_nothing_is_stuck() {
    let home = home("");
    let _process = home.start();
    send(&home, &["--count", "3"]);
    let (code, text) = status(&home);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "lost      nothing",
        "stuck     nothing",
        "stored    3 events; the files, with space prepared for more, take ",
        "Kafka     not configured",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let row = text.lines().find(|line| line.starts_with("stripe")).expect("a row for the source");
    assert_eq!(row.split_whitespace().take(4).collect::<Vec<_>>(), ["stripe", "3", "0", "0"]);
}

#[test]
fn a_health_check_fails_only_when_deliveries_cannot_be_stored() {
    let config = format!("{}{KAFKA_AWAY}admin.token = \"env:TOKEN\"\n", SOURCE.replace("\"0s\"", "\"1m\""));
    let mut home = Home::new(&[("one", "whsec_c2VjcmV0IG51bWJlciBvbmU=")], &config);
    home.set("TOKEN", "0123456789abcdef");
    let ready = |home: &Home| {
        let output = home.verb(&["status", "--ready"]);
        (output.status.code(), text(&output))
    };
    let (code, message) = ready(&home);
    assert_eq!(code, Some(1), "before the start: {message}");
    let process = home.start();
    send(&home, &["--count", "1"]);
    wait_until("Kafka is a problem", || status(&home).0 == Some(1));
    assert_eq!(ready(&home), (Some(0), "ready\n".to_owned()));
    process.signal(Signal::TERM);
    wait_until("the process drains", || ready(&home).0 == Some(1));
    assert!(ready(&home).1.contains("expected status 200, found 503"), "{}", ready(&home).1);
}

#[test]
fn a_topic_that_kafka_does_not_take_is_named_with_reason_and_remedy() {
    let home = home(KAFKA_AWAY);
    let _process = home.start();
    send(&home, &["--count", "2"]);
    let mut last = Value::Null;
    wait_until("the status names the trouble", || {
        last = report(&home);
        last["problems"].as_array().is_some_and(|problems| problems.iter().any(|problem| problem["what"] == "Kafka"))
    });
    let problem = last["problems"].as_array().into_iter().flatten().find(|problem| problem["what"] == "Kafka");
    let problem = problem.expect("just seen");
    let field = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    assert!(field("why").contains("127.0.0.1:1") && !field("remedy").is_empty() && problem["seconds"].is_u64(), "{problem}");
    assert_eq!((last["kafka"].as_str(), last["topics"][0]["waiting_events"].as_u64()), (Some("failed"), Some(2)), "{last}");
    let (code, text) = status(&home);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("stuck     Kafka for ") && text.contains("→ ") && text.contains("webhooks.stripe        2"), "{text}");
}

#[test]
fn a_source_whose_signatures_never_match_is_named_with_the_command_that_explains_it() {
    let home = home("");
    let process = home.start();
    home.configure(&SOURCE.replace("file:one", "file:two"));
    let output = home.verb(&["send", "stripe"]);
    assert_eq!(output.status.code(), Some(1), "the running gateway has another secret: {}", text(&output));
    let (code, text) = status(&home);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("source stripe: no delivery verified since the start, 1 rejected"), "{text}");
    assert!(text.contains("→ run `hookhold doctor stripe`"), "{text}");
    assert!(text.contains("rejected  1 delivery since the start; `hookhold rejections` lists them with their causes"), "{text}");
    stop(process);
    assert!(status(&home).1.contains("rejected  `hookhold rejections` lists the stored ones with their causes"));
    let _process = home.start();
    assert!(status(&home).1.contains("rejected  0 deliveries since the start; `hookhold rejections` lists earlier ones"));
}

#[test]
fn without_a_process_the_status_comes_from_the_files() {
    let home = home(KAFKA_AWAY);
    let process = home.start();
    send(&home, &["--count", "4"]);
    stop(process);
    let (code, text) = status(&home);
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "hookhold is not running",
        "lost      nothing",
        "no process has the journal open",
        "stored    4 events; the files, with space prepared for more, take ",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(report(&home)["topics"][0]["waiting_events"], 4);
    assert_eq!(report(&home)["process"], Value::Null);
}

#[test]
fn lost_events_are_shown_also_after_a_restart() {
    let home = home(KAFKA_AWAY);
    let process = home.start();
    send(&home, &["--count", "20"]);
    stop(process);
    damage_the_newest_segment(&home);
    let process = home.start();
    wait_until("the loss is shown", || report(&home)["lost_events"].as_u64().is_some_and(|lost| lost > 0));
    let (code, text) = status(&home);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("by corruption)") && text.contains("hookhold journal verify"), "{text}");
    let lost = report(&home)["lost_events"].clone();
    stop(process);
    assert_eq!(report(&home)["lost_events"], lost, "the files name the loss");
    let _process = home.start();
    wait_until("the next process knows the loss", || report(&home)["lost_events"] == lost);
}

/// Overwrites bytes in the middle of the events of the newest segment with events.
fn damage_the_newest_segment(home: &Home) {
    let entries = std::fs::read_dir(home.journal()).expect("the journal exists");
    let segments =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.extension().is_some_and(|end| end == "seg"));
    let newest = segments.filter(|path| path.metadata().is_ok_and(|file| file.len() > 40 << 10)).max();
    let newest = newest.expect("a segment with events");
    let file = OpenOptions::new().write(true).open(&newest).expect("the segment can be written to");
    file.write_all_at(&[0xff; 8192], 24 << 10).expect("the segment can be written to");
}

#[test]
fn no_gateway_and_no_journal_is_one_clear_error() {
    let home = home("");
    let output = home.verb(&["status"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().count() == 1 && text.contains("start `hookhold run`"), "{text}");
}

#[test]
fn wait_ends_when_the_gateway_answers_or_the_time_is_over() {
    let home = home("");
    let over = home.verb(&["status", "--wait", "100ms"]);
    assert_eq!(over.status.code(), Some(1), "{}", text(&over));
    let process = home.launch();
    let answered = home.verb(&["status", "--wait", "1m"]);
    assert_eq!(answered.status.code(), Some(0), "{}", text(&answered));
    assert!(text(&answered).contains("running for"), "{}", text(&answered));
    drop(process);
}

#[test]
fn watch_looks_again_until_it_ends() {
    let home = home("");
    let _process = home.start();
    let watch = home.shell("hookhold status --watch --interval 100ms --format json | head -n 2").output().expect("a shell");
    let lines = String::from_utf8(watch.stdout).expect("JSON is text");
    let seconds: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    assert_eq!(seconds.len(), 2, "{lines}");
    assert!(seconds.iter().all(|report| report["process"]["version"] == env!("CARGO_PKG_VERSION")));
    assert!(watch.stderr.is_empty(), "{}", String::from_utf8_lossy(&watch.stderr));
}
