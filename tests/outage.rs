//! Tests of outages: Kafka is down, starts late or is not configured yet, or a topic is missing. During an outage, hookhold
//! must answer every delivery with 2xx. After the outage, Kafka must have every event. The load sends 500 deliveries per
//! second, so the tests can measure time in deliveries.

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

use kafka::Kafka;
use load::{Ledger, Load};
use process::{Home, wait_until};

#[test]
fn no_sender_notices_kafka_down_for_thirty_seconds() {
    let mut kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3, &[]);
    let home = fixture::home(&[("stripe", TOPIC)], Some(&kafka.bootstrap()));
    let process = home.start();
    let load = Load::start(fixture::order(&home, "stripe"), Ledger::new("killed"));
    load.wait_until_sent(5 * RATE);
    fixture::wait_until_some_are_forwarded(&process, TOPIC);
    assert_eq!(fixture::kafka_health(&home)["state"], "ok");

    kafka.kill();
    let states = states_while(&home, &load, 30 * RATE);
    assert!(states.iter().any(|state| state == "degraded"), "{states:?}");
    kafka.restart();

    load.wait_until_sent(load.sent() + 5 * RATE);
    finish(&home, process, load, &kafka);
}

#[test]
fn no_sender_notices_kafka_starting_a_minute_late() {
    let mut kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3, &[]);
    kafka.terminate();
    let home = fixture::home(&[("stripe", TOPIC)], Some(&kafka.bootstrap()));
    let process = home.start();
    let load = Load::start(fixture::order(&home, "stripe"), Ledger::new("late"));
    let states = states_while(&home, &load, 60 * RATE);
    assert!(states.iter().any(|state| state == "degraded"), "{states:?}");
    kafka.restart();

    finish(&home, process, load, &kafka);
}

#[test]
fn kafka_added_later_gets_every_event_stored_before() {
    let kafka = kafka::shared();
    let topic = "added";
    kafka.create_topic(topic, 3, &[]);
    let home = fixture::home(&[("stripe", topic)], None);
    let process = home.start();
    let load = Load::start(fixture::order(&home, "stripe"), Ledger::new("added"));
    let states = states_while(&home, &load, 4 * RATE);
    assert!(states.iter().all(|state| state == "off"), "{states:?}");
    let ledger = load.stop();
    fixture::stop(process);
    assert_eq!(kafka.records(topic), []);

    home.configure(&fixture::config(&[("stripe", topic)], Some(&kafka.bootstrap())));
    let process = home.start();
    let load = Load::start(fixture::order(&home, "stripe"), ledger);
    load.wait_until_sent(2 * RATE);
    let ledger = load.stop();
    ledger.assert_no_sender_noticed();
    fixture::wait_until_forwarded(&process, topic);
    fixture::stop(process);
    fixture::audit(&home, &ledger, kafka, topic);
}

#[test]
fn a_missing_topic_blocks_only_itself_until_created() {
    let kafka = kafka::shared();
    let (present, missing) = ("there", "not-yet");
    kafka.create_topic(present, 3, &[]);
    let home = fixture::home(&[("first", present), ("second", missing)], Some(&kafka.bootstrap()));
    let process = home.start();
    let load = |source, name| Load::start(fixture::order(&home, source), Ledger::new(name));
    let (first, second) = (load("first", "first"), load("second", "second"));
    let blocked = format!("hookhold_forward_blocked{{reason=\"topic_missing\",topic=\"{missing}\"}}");
    wait_until("the topic is blocked", || process.metric(&blocked) == Some(1.0));
    first.wait_until_sent(first.sent() + 3 * RATE);
    let (first, second) = (first.stop(), second.stop());

    fixture::wait_until_forwarded(&process, present);
    assert_eq!(process.metric(&blocked), Some(1.0));
    assert_eq!(process.metric(&format!("hookhold_forward_acked_total{{topic=\"{missing}\"}}")).unwrap_or_default(), 0.0);
    let health = fixture::kafka_health(&home);
    let details: Vec<&str> = health["details"].as_array().expect("a list").iter().filter_map(|detail| detail.as_str()).collect();
    assert_eq!((&health["state"], details.len()), (&"degraded".into(), 1), "{health}");
    assert!(details[0].starts_with("not-yet: topic_missing for ") && details[0].ends_with("creates topics"), "{health}");
    let log = home.log();
    let line = log.lines().find(|line| line.contains("topic_missing")).expect("the log has the reason");
    assert!(line.contains(missing) && line.contains("create the topic"), "{line}");

    kafka.create_topic(missing, 3, &[]);
    fixture::wait_until_forwarded(&process, missing);
    assert_eq!(process.metric(&blocked), Some(0.0));
    assert_eq!(fixture::kafka_health(&home)["state"], "ok");
    fixture::stop(process);
    for (ledger, topic) in [(first, present), (second, missing)] {
        ledger.assert_no_sender_noticed();
        fixture::audit(&home, &ledger, kafka, topic);
    }
}

/// Reads Kafka's state from `/readyz` once per second until the load has sent `deliveries` more deliveries. Returns all
/// states. Asserts that each response has status 200, and that the response has details if and only if the state is
/// `degraded`.
fn states_while(home: &Home, load: &Load, deliveries: u64) -> Vec<String> {
    let begun = load.sent();
    let reads = (0..deliveries).step_by(RATE as usize).map(|count| {
        load.wait_until_sent(begun + count + RATE);
        let health = fixture::kafka_health(home);
        let state = health["state"].as_str().expect("a word").to_owned();
        let is_explained = health["details"].as_array().is_some_and(|details| !details.is_empty());
        assert_eq!(is_explained, state == "degraded", "{health}");
        state
    });
    let states: Vec<String> = reads.collect();
    let changes: Vec<&[String]> = states.chunk_by(|one, next| one == next).collect();
    let changes: Vec<String> = changes.iter().map(|same| format!("{} for {} s", same[0], same.len())).collect();
    println!("{}: {}", home.hooks, changes.join(", "));
    states
}

/// Stops the load, waits until Kafka has acknowledged every event, and checks that the journal and Kafka have every
/// accepted delivery.
fn finish(home: &Home, process: process::Process, load: Load, kafka: &Kafka) {
    let ledger = load.stop();
    ledger.assert_no_sender_noticed();
    fixture::wait_until_forwarded(&process, TOPIC);
    assert_eq!(fixture::kafka_health(home)["state"], "ok");
    fixture::stop(process);
    let duplicates = fixture::audit(home, &ledger, kafka, TOPIC);
    let (ids, retried) = (ledger.count(|count| count.accepted > 0), ledger.count(|count| count.sent > 1));
    println!("{ids} ids acknowledged, {retried} of them sent more than once; duplicates in Kafka: {duplicates}");
}

const TOPIC: &str = "webhooks.stripe";
/// Rate of the load, in deliveries per second.
const RATE: u64 = 500;
