//! Tests the verbs that change a stopped journal with the real binary. `journal release`: events wait for Kafka, and an operator
//! removes `[kafka]` or renames their topic. `journal new-identity`: an operator has cloned a volume.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::process::Output;

use process::{Home, Line, Process, wait_until};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn without_kafka_waiting_events_are_announced_and_can_be_released() {
    let home = home(KAFKA);
    let process = home.start();
    send(&home, 1);
    stop(process);
    home.configure(&configuration(""));
    let process = home.start();
    let waiting = format!("{TOPIC}: 1 event waits for Kafka");
    let command = format!("`hookhold journal release {TOPIC}`");
    assert!(home.log().contains(&waiting) && home.log().contains(&command), "{}", home.log());
    let health = kafka_health(&home);
    assert_eq!(health["state"], "degraded");
    assert!(health["details"][0].as_str().is_some_and(|text| text.starts_with(&waiting) && text.contains(&command)), "{health}");

    // More than max_backlog, and more than max_size.
    send(&home, MANY);
    assert!(has_first_segment(&home), "the waiting event pins its segment");
    let shown = json(&home.verb(&["journal", "release", TOPIC, "--dry-run", "--format", "json"]));
    assert_eq!((&shown["events"], &shown["first_seq"], &shown["last_seq"]), (&1.into(), &0.into(), &0.into()));
    assert_eq!((&shown["released"], &shown["first_received_at"]), (&false.into(), &shown["last_received_at"]));
    assert!(shown["bytes"].as_u64() > Some(100) && shown["first_received_at"].as_str().is_some(), "{shown}");
    stop(process);

    let unconfirmed = home.verb(&["journal", "release", TOPIC]);
    assert_eq!(unconfirmed.status.code(), Some(2));
    assert!(text(&unconfirmed.stderr).contains("--yes"), "{}", text(&unconfirmed.stderr));
    assert_eq!(
        json(&home.verb(&["journal", "release", TOPIC, "--dry-run", "--format", "json"]))["events"],
        1,
        "nothing was released"
    );
    let released = home.verb(&["journal", "release", TOPIC, "--yes"]);
    assert_eq!(released.status.code(), Some(0), "{}", text(&released.stderr));
    assert!(
        text(&released.stdout).contains("events    1, ") && text(&released.stdout).contains("released"),
        "{}",
        text(&released.stdout)
    );
    assert!(text(&released.stderr).contains("gave up the waiting events"), "{}", text(&released.stderr));
    let again = json(&home.verb(&["journal", "release", TOPIC, "--yes", "--format", "json"]));
    assert_eq!((&again["events"], &again["released"]), (&0.into(), &false.into()));

    let process = home.start();
    assert_eq!(home.log().matches(&waiting).count(), 1, "the next start has nothing to announce");
    assert_eq!(kafka_health(&home)["state"], "off");
    send(&home, MANY);
    assert!(!has_first_segment(&home), "the first segment is deleted when the journal needs its space");
    stop(process);
}

/// The topic is blocked, because no broker answers. A process that forwards must not move the cursor back later.
#[test]
fn waiting_events_can_be_released_while_hookhold_runs() {
    for kafka in [KAFKA, ""] {
        let home = home(KAFKA);
        let process = home.start();
        send(&home, 3);
        let renamed = format!("{KAFKA}topic = \"renamed\"\n");
        home.configure(&configuration(if kafka.is_empty() { "" } else { &renamed }));
        let process = match kafka {
            "" => {
                stop(process);
                home.start()
            }
            _ => {
                assert!(process.reload(), "{}", home.log());
                process
            }
        };
        let released = home.verb(&["journal", "release", TOPIC, "--yes"]);
        assert_eq!(released.status.code(), Some(0), "{}", text(&released.stderr));
        assert!(text(&released.stdout).contains("events    3, "), "{}", text(&released.stdout));
        assert!(home.log().contains("gave up the waiting events"), "{}", home.log());
        let waiting = |stat: &Value| stat["lanes"].as_array().expect("a list")[0]["waiting"].as_u64();
        let stat = || json(&home.verb(&["journal", "stat", "--format", "json"]));
        wait_until("the cursor is saved", || waiting(&stat()) == Some(0));
        if kafka.is_empty() {
            assert_eq!(kafka_health(&home)["state"], "off");
        } else {
            let lag = format!("hookhold_forward_lag_events{{topic=\"{TOPIC}\"}}");
            assert_eq!(process.metric(&lag), Some(0.0));
        }
        stop(process);
        let process = home.start();
        assert_eq!(waiting(&stat()), Some(0), "the next start does not bring the events back");
        stop(process);
    }
}

#[test]
fn only_a_topic_without_a_source_can_be_released() {
    let home = home(KAFKA);
    let process = home.start();
    send(&home, 3);
    stop(process);
    let used = home.verb(&["journal", "release", TOPIC, "--yes"]);
    assert_eq!(used.status.code(), Some(2));
    assert!(text(&used.stderr).contains("the topic of sources.stripe"), "{}", text(&used.stderr));
    home.configure(&configuration(&format!("{KAFKA}topic = \"renamed\"\n")));
    let unknown = home.verb(&["journal", "release", "webhooks.strip", "--yes"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains(&format!("did you mean {TOPIC}?")), "{}", text(&unknown.stderr));
    let released = json(&home.verb(&["journal", "release", TOPIC, "--yes", "--format", "json"]));
    assert_eq!((&released["events"], &released["last_seq"], &released["released"]), (&3.into(), &2.into(), &true.into()));
    let stat: Value = json(&home.verb(&["journal", "stat", "--format", "json"]));
    assert_eq!((&stat["events"], &stat["lanes"][0]["waiting"], &stat["lanes"][0]["pinned"]), (&3.into(), &0.into(), &0.into()));
}

#[test]
fn a_new_identity_changes_only_the_id_of_the_journal() {
    let home = home("");
    let empty = home.verb(&["journal", "new-identity"]);
    assert_eq!(empty.status.code(), Some(1), "{}", text(&empty.stderr));
    let process = home.start();
    send(&home, 3);
    let in_use = home.verb(&["journal", "new-identity"]);
    assert_eq!((in_use.status.code(), text(&in_use.stderr).contains("stop that process")), (Some(1), true));
    stop(process);
    let id = || json(&home.verb(&["journal", "stat", "--format", "json"]))["id"].as_str().expect("an id").to_owned();
    let previous = id();
    let renewed = json(&home.verb(&["journal", "new-identity", "--format", "json"]));
    assert_eq!((renewed["previous"].as_str(), renewed["id"].as_str()), (Some(&*previous), Some(&*id())));
    assert_ne!(id(), previous);
    std::fs::remove_file(home.journal().join("meta")).expect("the journal has the file");
    let process = home.start();
    send(&home, 1);
    stop(process);
    assert_eq!(Some(&*id()), renewed["id"].as_str(), "the newest segment header has the id as well");
    let events = home.verb(&["tail", "--from", "0", "--format", "json"]);
    assert_eq!(text(&events.stdout).lines().count(), 4);
    assert_eq!(home.verb(&["journal", "verify"]).status.code(), Some(0));
}

fn home(kafka: &str) -> Home {
    Home::new(&[("stripe", SECRET)], &configuration(kafka))
}

fn configuration(kafka: &str) -> String {
    let limits = "journal.segment_size = \"64KiB\"\njournal.max_size = \"1MiB\"\nserver.drain_delay = \"0s\"\nserver.max_body = \"64KiB\"\n";
    format!("{limits}{kafka}[sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"file:stripe\"]\n")
}

/// Sends genuine deliveries, all of which must get a 2xx.
fn send(home: &Home, count: usize) {
    let sent = home.verb(&["send", "stripe", "--count", &count.to_string(), "--url", &format!("http://{}", home.hooks)]);
    assert_eq!(sent.status.code(), Some(0), "{}{}", text(&sent.stdout), text(&sent.stderr));
}

fn stop(process: Process<'_>) {
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

/// Returns the health of forwarding in the body of `/readyz`, whose status must be 200.
fn kafka_health(home: &Home) -> Value {
    let answer = Line::open(home.admin).ask(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(answer.status, 200);
    let page: Value = serde_json::from_slice(&answer.body).expect("the page is JSON");
    page["kafka"].clone()
}

fn has_first_segment(home: &Home) -> bool {
    let files = std::fs::read_dir(home.journal()).expect("the journal exists").map(|entry| entry.expect("an entry").file_name());
    files.filter_map(|name| name.into_string().ok()).any(|name| name.starts_with("0000000001-0-") && name.ends_with(".seg"))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is text")
}

/// A broker that does not answer. No process listens on port 1 of the loopback address.
const KAFKA: &str = "[kafka]\nbootstrap.servers = \"127.0.0.1:1\"\n";
const TOPIC: &str = "webhooks.stripe";
const SECRET: &str = "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0";
/// Number of events that together exceed `max_size`.
const MANY: usize = 2_000;
