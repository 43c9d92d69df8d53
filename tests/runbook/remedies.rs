//! Causes each fault of a topic with a real Kafka broker, and then carries out the remedy that the page names. The remedy must free
//! the topic, and Kafka must have every accepted delivery. Meanwhile, the events of a second topic must reach Kafka. The tests
//! print the lag of both topics.

use std::collections::BTreeSet;

use crate::audit;
use crate::case::{COUNT, Case, SECRET, audited, blocked, config, sources};
use crate::fixture::{self, kafka_health, stop};
use crate::kafka::{self, Kafka};
use crate::load::Ledger;
use crate::page::{self, CREATE, DESCRIBE, GRANT, LOWER_MIN_ISR, RAISE_LIMIT, fill};
use crate::process::{Home, wait_until};

#[test]
fn a_poison_record_reaches_its_topic_after_the_limit_is_raised() {
    let (kafka, faulty, healthy) = (kafka::shared(), "poisoned", "next-to-poisoned");
    kafka.create_topic(faulty, 1, &[("max.message.bytes", "3000")]);
    kafka.create_topic(healthy, 1, &[]);
    let home = home(kafka, faulty, healthy);
    let process = home.start();
    let case = Case { home: &home, process: &process, faulty, healthy };
    let poison = case.deliver("faulty", faulty, COUNT);
    case.wait_until_caught_up(faulty);
    let parked = process.metric(&format!("hookhold_parked_total{{reason=\"too_large\",topic={faulty:?}}}"));
    assert!(parked > Some(0.0) && process.metric("hookhold_parked_events") == parked, "{parked:?}");
    assert!(case.acknowledged(faulty) > 0.0, "the topic continues with its other events");
    assert!(home.log().contains("run `hookhold parked show "), "{}", home.log());
    let other = case.deliver("healthy", healthy, COUNT);
    case.wait_until_caught_up(healthy);
    println!("{parked:?} events of {faulty} are parked; lag: {}, {}", case.lag(faulty), case.lag(healthy));

    paste(kafka, RAISE_LIMIT, &[("TOPIC", faulty), ("BYTES", "1048588")]);
    run(&home, "hookhold parked redrive");
    wait_until("no event is parked", || process.metric("hookhold_parked_events") == Some(0.0));
    stop(process);
    [(poison, faulty), (other, healthy)].iter().for_each(|(ledger, topic)| audited(&home, ledger, kafka, topic));
}

#[test]
fn a_missing_topic_gets_its_events_after_it_is_created() {
    let (kafka, faulty, healthy) = (kafka::shared(), "missing", "next-to-missing");
    kafka.create_topic(healthy, 1, &[]);
    let home = home(kafka, faulty, healthy);
    let process = home.start();
    let case = Case { home: &home, process: &process, faulty, healthy };
    let waiting = case.deliver("faulty", faulty, COUNT);
    case.wait_until_blocked("topic_missing");
    let other = case.assert_the_other_topic_flows("topic_missing");

    paste(kafka, CREATE, &[("TOPIC", faulty)]);
    case.wait_until_freed("topic_missing");
    stop(process);
    [(waiting, faulty), (other, healthy)].iter().for_each(|(ledger, topic)| audited(&home, ledger, kafka, topic));
}

/// The topics are those of the example in the page.
#[test]
fn a_mistyped_topic_gets_its_events_by_a_reroute() {
    let (kafka, faulty, healthy, intended) = (kafka::shared(), "webhooks.strip", "next-to-mistyped", "webhooks.stripe");
    [intended, healthy].iter().for_each(|topic| kafka.create_topic(topic, 3, &[]));
    let home = home(kafka, faulty, healthy);
    let process = home.start();
    let case = Case { home: &home, process: &process, faulty, healthy };
    let waiting = case.deliver("faulty", "mistyped", COUNT);
    case.wait_until_blocked("topic_missing");
    let other = case.assert_the_other_topic_flows("topic_missing");

    let corrected = config(&sources(intended, healthy), &kafka.bootstrap());
    home.configure(&(corrected.clone() + &page::block("toml", "[kafka.reroute]")));
    assert!(process.reload(), "{}", home.log());
    let later = case.deliver("faulty", "corrected", COUNT);
    case.wait_until_freed("topic_missing");
    wait_until("nothing waits for the mistyped topic", || {
        let stat = run(&home, "hookhold journal stat --format json");
        let stat: serde_json::Value = serde_json::from_str(&stat).expect("JSON");
        let topics = stat["lanes"].as_array().expect("a list");
        topics.iter().find(|topic| topic["topic"] == faulty).is_some_and(|topic| topic["waiting"] == 0)
    });
    home.configure(&corrected);
    assert!(process.reload(), "{}", home.log());
    case.wait_until_caught_up(intended);
    stop(process);
    audited(&home, &other, kafka, healthy);
    let accepted: BTreeSet<String> = waiting.accepted().chain(later.accepted()).collect();
    let mut frames = [fixture::frames(&home, faulty), fixture::frames(&home, intended)].concat();
    frames.sort_by_key(|frame| frame.seq);
    assert_eq!(audit::violations(&accepted, &frames, Some(&fixture::found(&kafka.records(intended)))), [""; 0]);
}

/// The fault concerns every topic: without `[kafka]`, hookhold forwards nothing.
#[test]
fn events_reach_kafka_after_a_removed_section_is_added_again() {
    let (kafka, faulty, healthy) = (kafka::shared(), "removed", "next-to-removed");
    kafka.create_topic(healthy, 1, &[]);
    let home = home(kafka, faulty, healthy);
    let process = home.start();
    let before = Case { home: &home, process: &process, faulty, healthy }.deliver("faulty", faulty, COUNT);
    wait_until("the topic is blocked", || process.metric(&blocked(faulty, "topic_missing")) == Some(1.0));
    stop(process);
    home.configure(&fixture::config(&sources(faulty, healthy), None));
    let process = home.start();
    let other = Case { home: &home, process: &process, faulty, healthy }.deliver("healthy", healthy, COUNT);
    let health = kafka_health(&home);
    let detail = health["details"][0].as_str().unwrap_or_default();
    assert!(health["state"] == "degraded" && detail.contains(faulty) && detail.contains("Kafka"), "{health}");
    println!("without [kafka], no topic flows: {detail}");
    stop(process);
    assert_eq!(kafka.records(healthy), []);

    home.configure(&config(&sources(faulty, healthy), &kafka.bootstrap()));
    kafka.create_topic(faulty, 1, &[]);
    let process = home.start();
    let case = Case { home: &home, process: &process, faulty, healthy };
    case.wait_until_caught_up(healthy);
    case.wait_until_freed("topic_missing");
    stop(process);
    [(before, faulty), (other, healthy)].iter().for_each(|(ledger, topic)| audited(&home, ledger, kafka, topic));
}

#[test]
fn a_forbidden_topic_gets_its_events_after_the_permission_is_granted() {
    let (kafka, faulty, healthy) = (kafka::shared(), "revoked", "next-to-revoked");
    [faulty, healthy].iter().for_each(|topic| kafka.create_topic(topic, 1, &[]));
    let home = home(kafka, faulty, healthy);
    let process = home.start();
    let case = Case { home: &home, process: &process, faulty, healthy };
    let allowed = case.deliver("faulty", faulty, COUNT);
    case.wait_until_caught_up(faulty);
    kafka.forbid_writing(faulty);
    let waiting = case.deliver_more("faulty", allowed, COUNT);
    case.wait_until_blocked("not_authorized");
    let other = case.assert_the_other_topic_flows("not_authorized");

    paste(kafka, GRANT, &[("TOPIC", faulty), ("NAME", "ANONYMOUS")]);
    case.wait_until_freed("not_authorized");
    stop(process);
    [(waiting, faulty), (other, healthy)].iter().for_each(|(ledger, topic)| audited(&home, ledger, kafka, topic));
}

#[test]
fn a_topic_below_min_isr_gets_its_events_after_the_minimum_is_lowered() {
    let (kafka, faulty, healthy) = (&Kafka::start(), "thin", "next-to-thin");
    let mut second = kafka.join();
    kafka.create_topic_on(&[1, 2], faulty, &[("min.insync.replicas", "2")]);
    kafka.create_topic_on(&[1], healthy, &[]);
    let home = home(kafka, faulty, healthy);
    let process = home.start();
    let case = Case { home: &home, process: &process, faulty, healthy };
    let allowed = case.deliver("faulty", faulty, COUNT);
    case.wait_until_caught_up(faulty);
    second.kill();
    let waiting = case.deliver_more("faulty", allowed, COUNT);
    case.wait_until_blocked("below_min_isr");
    let other = case.assert_the_other_topic_flows("below_min_isr");

    paste(kafka, DESCRIBE, &[("TOPIC", faulty)]);
    paste(kafka, LOWER_MIN_ISR, &[("TOPIC", faulty)]);
    case.wait_until_freed("below_min_isr");
    stop(process);
    [(waiting, faulty), (other, healthy)].iter().for_each(|(ledger, topic)| audited(&home, ledger, kafka, topic));
}

#[test]
fn a_deleted_topic_gets_its_events_after_it_is_created_with_fewer_partitions() {
    let (kafka, faulty, healthy) = (kafka::shared(), "deleted", "next-to-deleted");
    [faulty, healthy].iter().for_each(|topic| kafka.create_topic(topic, 8, &[]));
    let home = home(kafka, faulty, healthy);
    let process = home.start();
    let case = Case { home: &home, process: &process, faulty, healthy };
    case.deliver("faulty", "before", COUNT);
    case.wait_until_caught_up(faulty);
    let first = fixture::frames(&home, faulty).len();
    kafka.delete_topic(faulty);
    let waiting = case.deliver("faulty", "after", COUNT);
    case.wait_until_blocked("topic_missing");
    let other = case.assert_the_other_topic_flows("topic_missing");

    paste(kafka, CREATE, &[("TOPIC", faulty)]);
    case.wait_until_freed("topic_missing");
    stop(process);
    assert_arrived_after(&home, first, &waiting, kafka, faulty);
    audited(&home, &other, kafka, healthy);
}

/// hookhold learns of the new topic only from the failure of its records: the client still knows all partitions of the old topic.
#[test]
fn a_topic_replaced_by_one_with_fewer_partitions_needs_no_remedy() {
    let (kafka, faulty, healthy) = (kafka::shared(), "replaced", "next-to-replaced");
    [faulty, healthy].iter().for_each(|topic| kafka.create_topic(topic, 8, &[]));
    let home = home(kafka, faulty, healthy);
    let process = home.start();
    let case = Case { home: &home, process: &process, faulty, healthy };
    case.deliver("faulty", "before", COUNT);
    case.wait_until_caught_up(faulty);
    let first = fixture::frames(&home, faulty).len();
    kafka.delete_topic(faulty);
    kafka.create_topic(faulty, 3, &[]);
    let replaced = case.deliver("faulty", "after", COUNT);
    let other = case.deliver("healthy", healthy, COUNT);
    case.wait_until_caught_up(healthy);
    println!("lag of {faulty}: {}; lag of {healthy}: {}", case.lag(faulty), case.lag(healthy));
    case.wait_until_freed("topic_missing");
    stop(process);
    home.log().lines().filter(|line| line.contains("blocked")).for_each(|line| println!("{line}"));
    assert_arrived_after(&home, first, &replaced, kafka, faulty);
    audited(&home, &other, kafka, healthy);
}

/// Asserts that Kafka has each accepted delivery of the ledger. Ignores the first `first` events of the topic, whose records were
/// deleted with the old topic.
fn assert_arrived_after(home: &Home, first: usize, ledger: &Ledger, kafka: &Kafka, topic: &str) {
    let frames = fixture::frames(home, topic).split_off(first);
    let accepted: BTreeSet<String> = ledger.accepted().collect();
    let records = kafka.records(topic);
    assert!(accepted.len() as u64 > COUNT / 2 && records.iter().any(|record| record.partition == 2), "{} records", records.len());
    assert_eq!(audit::violations(&accepted, &frames, Some(&fixture::found(&records))), [""; 0]);
    println!("{topic}: {} events, {} records", frames.len(), records.len());
}

/// Creates a `Home` whose sources have these topics.
fn home(kafka: &Kafka, faulty: &'static str, healthy: &'static str) -> Home {
    Home::new(&[SECRET], &config(&sources(faulty, healthy), &kafka.bootstrap()))
}

/// Pastes a command of the page for Kafka's scripts.
fn paste(kafka: &Kafka, command: &str, values: &[(&str, &str)]) {
    kafka.paste(&fill(command, &[&[("BROKER", &*kafka.bootstrap())], values].concat()));
}

/// Runs a command of the page, asserts that it succeeds, and returns its output.
fn run(home: &Home, command: &str) -> String {
    let output = home.shell(command).output().expect("bash can be run");
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).expect("the output is text")
}
