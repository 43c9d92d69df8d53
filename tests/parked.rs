//! Tests `hookhold parked` with the real binary and a real broker: the gateway runs, Kafka rejects its records, and an operator
//! reads, sends or drops the parked events.

#[path = "common/audit.rs"]
mod audit;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/load.rs"]
mod load;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::process::Output;

use fixture::stop;
use kafka::Kafka;
use load::request;
use process::{Line, wait_until};
use serde_json::Value;

#[test]
fn parked_events_are_listed_shown_sent_again_and_dropped() {
    let kafka = kafka::shared();
    kafka.create_topic("narrow", 1, &[("max.message.bytes", "500")]);
    let home = fixture::home(&[("stripe", "narrow")], Some(&kafka.bootstrap()));
    let process = home.start();
    assert_eq!(text(&home.verb(&["parked", "list"]).stdout), "no parked events\n");
    let stripe = fixture::source(&home, "stripe");
    for id in ["evt_0", "evt_1", "evt_2"] {
        assert_eq!(Line::open(home.hooks).ask(&request(&stripe, id.to_owned())).status, 200);
    }
    wait_until("all events are parked", || process.metric("hookhold_parked_events") == Some(3.0));
    assert_eq!(process.metric("hookhold_forward_lag_events{topic=\"narrow\"}"), Some(0.0));
    let list = || -> Vec<Value> {
        let listed = home.verb(&["parked", "list", "--format", "json"]);
        assert_eq!(listed.status.code(), Some(0), "{}", text(&listed.stderr));
        text(&listed.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let parked = list();
    assert_eq!(parked.iter().map(|event| &event["id"]).collect::<Vec<_>>(), ["evt_0", "evt_1", "evt_2"]);
    assert_eq!((&parked[0]["reason"], &parked[0]["topic"]), (&"too_large".into(), &"narrow".into()));
    let name = |index: usize| parked[index]["event"].as_str().expect("a text").to_owned();
    let shown = home.verb(&["parked", "show", &name(1)]);
    assert!(
        text(&shown.stdout).contains("too_large") && text(&shown.stdout).contains("stripe-signature"),
        "{}",
        text(&shown.stdout)
    );
    assert_eq!(home.verb(&["parked", "show", "1", "--body"]).stdout, load::body("evt_1"));
    let unknown = home.verb(&["parked", "show", "7"]);
    assert!(unknown.status.code() == Some(2) && text(&unknown.stderr).contains(&name(0)), "{}", text(&unknown.stderr));

    let rejected = home.verb(&["parked", "redrive"]);
    assert_eq!((rejected.status.code(), list().len()), (Some(1), 3), "{}", text(&rejected.stdout));
    kafka.configure_topic("narrow", &[("max.message.bytes", "1048588")]);
    let sent = home.verb(&["parked", "redrive", &name(2)]);
    assert_eq!((sent.status.code(), list().len()), (Some(0), 2), "{}", text(&sent.stderr));
    let unconfirmed = home.verb(&["parked", "drop", &name(0)]);
    assert!(unconfirmed.status.code() == Some(2) && text(&unconfirmed.stderr).contains("--yes"), "{}", text(&unconfirmed.stderr));
    assert_eq!(home.verb(&["parked", "drop", &name(0), "--yes"]).status.code(), Some(0));
    assert_eq!(home.verb(&["parked", "redrive"]).status.code(), Some(0));
    let records = kafka.records("narrow");
    assert_eq!(records.iter().map(|record| record.header("ce_id")).collect::<Vec<_>>(), ["evt_2", "evt_1"]);
    assert_eq!(records[0].value.as_deref(), Some(&load::body("evt_2")[..]));
    assert_eq!(records[0].header("hookhold-parked-reason"), "too_large");
    wait_until("the gateway notices", || process.metric("hookhold_parked_events") == Some(0.0));
    assert_eq!(process.metric("hookhold_parked_bytes"), Some(0.0));
    stop(process);
}

/// A parked event waits for an operator, so a command that cannot reach Kafka must leave it alone.
#[test]
fn an_event_stays_parked_if_kafka_does_not_accept_it() {
    let kafka = kafka::shared();
    kafka.create_topic("narrow-too", 1, &[("max.message.bytes", "500")]);
    let home = fixture::home(&[("stripe", "narrow-too")], Some(&kafka.bootstrap()));
    let process = home.start();
    let stripe = fixture::source(&home, "stripe");
    assert_eq!(Line::open(home.hooks).ask(&request(&stripe, "evt_0".to_owned())).status, 200);
    wait_until("the event is parked", || process.metric("hookhold_parked_events") == Some(1.0));
    let failed: Output = home.verb(&["parked", "redrive", "--to", "no-such-topic"]);
    let said = text(&failed.stderr);
    assert!(failed.status.code() == Some(1) && said.contains("create the topic"), "{said}");
    assert_eq!(text(&home.verb(&["parked", "list", "--format", "json"]).stdout).lines().count(), 1);
    stop(process);
}

/// The operator names a dead-letter topic while events are parked. It accepts only the body of the first one.
#[test]
fn a_reload_that_names_a_dead_letter_topic_sends_the_parked_events() {
    let kafka = kafka::shared();
    kafka.create_topic("narrow-again", 1, &[("max.message.bytes", "500")]);
    kafka.create_topic("letters", 1, &[("max.message.bytes", "2500")]);
    let sources = [("stripe", "narrow-again")];
    let home = fixture::home(&sources, Some(&kafka.bootstrap()));
    let process = home.start();
    let stripe = fixture::source(&home, "stripe");
    let id_of = |fits: fn(usize) -> bool| (0..).map(|number| format!("evt_{number}")).find(|id| fits(load::body(id).len()));
    let [small, large] = [id_of(|size| (500..1000).contains(&size)), id_of(|size| size > 2500)].map(|id| id.expect("an id"));
    for id in [&small, &large] {
        assert_eq!(Line::open(home.hooks).ask(&request(&stripe, id.clone())).status, 200);
    }
    wait_until("both events are parked", || process.metric("hookhold_parked_events") == Some(2.0));
    let config = fixture::config(&sources, Some(&kafka.bootstrap()));
    home.configure(&config.replace("[kafka]\n", "[kafka]\ndead_letter.topic = \"letters\"\n"));
    assert!(process.reload());
    let records = kafka.wait_for_records("letters", 2);
    assert_eq!([records[0].header("ce_id"), records[1].header("ce_id")], [&small, &large]);
    assert_eq!((records[0].value.as_deref(), records[1].value.as_deref()), (Some(&load::body(&small)[..]), Some(&[][..])));
    wait_until("one event stays parked", || process.metric("hookhold_parked_events") == Some(1.0));
    let list = || text(&home.verb(&["parked", "list", "--format", "json"]).stdout);
    wait_until("the event has a notice", || list().contains("\"notice\":true"));
    let listed: Value = serde_json::from_str(&list()).expect("one line of JSON");
    let event = listed["event"].as_str().expect("a text");
    let shown = text(&home.verb(&["parked", "show", event]).stdout);
    assert!(listed["id"] == *large && shown.contains("notice    sent to the dead-letter topic"), "{shown}");
    kafka.configure_topic("narrow-again", &[("max.message.bytes", "1048588")]);
    assert_eq!(home.verb(&["parked", "redrive", event]).status.code(), Some(0));
    assert_eq!(kafka.records("narrow-again")[0].value.as_deref(), Some(&load::body(&large)[..]));
    assert_eq!(list(), "");
    stop(process);
}

/// librdkafka sends a record again and again while its topic has too few replicas. The copy must not wait for the former topic.
#[test]
fn a_copy_that_kafka_does_not_acknowledge_goes_to_the_next_dead_letter_topic() {
    let kafka = Kafka::start();
    let mut second = kafka.join();
    kafka.create_topic_on(&[1], "narrow", &[("max.message.bytes", "500")]);
    kafka.create_topic_on(&[1, 2], "thin-letters", &[("min.insync.replicas", "2")]);
    kafka.create_topic_on(&[1], "other-letters", &[]);
    let sources = [("stripe", "narrow")];
    let config = |dead_letter: &str| {
        let option = format!("[kafka]\ndead_letter.topic = {dead_letter:?}\n");
        fixture::config(&sources, Some(&kafka.bootstrap())).replace("[kafka]\n", &option)
    };
    let home = fixture::home(&sources, Some(&kafka.bootstrap()));
    home.configure(&config("thin-letters"));
    let process = home.start();
    second.kill();
    let stripe = fixture::source(&home, "stripe");
    assert_eq!(Line::open(home.hooks).ask(&request(&stripe, "evt_0".to_owned())).status, 200);
    let stalled = r#"hookhold_dead_letter_blocked{reason="stalled",topic="thin-letters"}"#;
    wait_until("the missing acknowledgement is a problem", || process.metric(stalled) == Some(1.0));
    let details = fixture::kafka_health(&home)["details"].to_string();
    assert!(details.contains("dead-letter topic thin-letters: stalled for "), "{details}");
    assert_eq!(process.metric("hookhold_forward_lag_events{topic=\"narrow\"}"), Some(0.0));
    home.configure(&config("other-letters"));
    assert!(process.reload());
    assert_eq!(kafka.wait_for_records("other-letters", 1)[0].value.as_deref(), Some(&load::body("evt_0")[..]));
    wait_until("the parked event is deleted", || process.metric("hookhold_parked_events") == Some(0.0));
    assert_eq!(process.metric(stalled), Some(0.0));
    stop(process);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is text")
}
