//! Tests `hookhold check --kafka` with the real binary and a real broker. The check must find each problem, leave no record in a
//! topic, and print commands that an operator can paste. A simulated cluster stands for brokers that do what Kafka never does.

#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::time::Duration;

use kafka::{Kafka, wait_until};
use process::Home;
use rdkafka::mocking::MockCluster;
use serde_json::Value;

/// Result of `hookhold check --kafka --format json`.
struct Checked {
    code: Option<i32>,
    kafka: Value,
}

impl Checked {
    /// Returns the topic of the result.
    fn topic(&self, name: &str) -> &Value {
        let topics = self.kafka["topics"].as_array().expect("an array");
        topics.iter().find(|topic| topic["topic"] == name).unwrap_or_else(|| panic!("no topic {name}: {}", self.kafka))
    }

    /// Returns the findings of this level, each with its topic and its description.
    fn findings<'a>(&'a self, level: &str) -> Vec<(&'a str, &'a str)> {
        let all = self.kafka["findings"].as_array().expect("an array").iter();
        let text = |value: &'a Value| value.as_str().unwrap_or_default();
        all.filter(|finding| finding["level"] == level).map(|finding| (text(&finding["topic"]), text(&finding["what"]))).collect()
    }

    /// Returns the remedy of the finding about `topic` whose description contains `what`.
    fn remedy(&self, topic: &str, what: &str) -> String {
        let all = self.kafka["findings"].as_array().expect("an array");
        let is_meant =
            |finding: &&Value| finding["topic"] == topic && finding["what"].as_str().is_some_and(|text| text.contains(what));
        let finding = all.iter().find(is_meant).unwrap_or_else(|| panic!("no finding {what}: {}", self.kafka));
        finding["remedy"].as_str().expect("a text").to_owned()
    }
}

fn check(home: &Home) -> Checked {
    let output = home.verb(&["check", "--kafka", "--format", "json"]);
    let shown = text(&output.stdout);
    let summary: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}{}", text(&output.stderr)));
    assert!(summary["sources"].is_array() && shown.lines().count() == 1, "{shown}");
    Checked { code: output.status.code(), kafka: summary["kafka"].clone() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is text")
}

/// Creates a `Home` whose sources have these topics and accept bodies of up to 64 KiB.
fn home(topics: &[&'static str], kafka: &str) -> Home {
    let sources: String = topics.iter().map(|topic| source(topic)).collect();
    Home::new(&[("secret", SECRET)], &format!("server.max_body = \"64 KiB\"\n[kafka]\n{kafka}\n{sources}"))
}

fn source(topic: &str) -> String {
    format!("[sources.{topic}]\nprovider = \"stripe\"\nsecrets = [\"file:secret\"]\ntopic = \"{topic}\"\n")
}

fn servers(bootstrap: &str) -> String {
    format!("bootstrap.servers = \"{bootstrap}\"")
}

#[test]
fn a_sound_topic_passes_and_stays_empty() {
    let kafka = kafka::shared();
    kafka.create_topic("sound", 3, &[]);
    let home = home(&["sound"], &servers(&kafka.bootstrap()));
    let checked = check(&home);
    let topic = checked.topic("sound");
    assert_eq!((checked.code, &checked.kafka["reached"]), (Some(0), &true.into()), "{}", checked.kafka);
    assert_eq!(checked.kafka["servers"], kafka.bootstrap());
    assert_eq!((&topic["partitions"], &topic["replicas"], &topic["in_sync"]), (&3.into(), &1.into(), &1.into()));
    assert_eq!((&topic["min_insync_replicas"], &topic["max_message_bytes"]), (&1.into(), &1_048_588.into()));
    assert_eq!(topic["write"], "allowed");
    let [(about, what)] = checked.findings("warning")[..] else { panic!("expected one warning: {}", checked.kafka) };
    assert!(about == "sound" && what.contains("expected at least 2 replicas"), "{what}");
    assert_eq!(checked.kafka["findings"].as_array().map(Vec::len), Some(1));

    let shown = home.verb(&["check", "--kafka"]);
    let shown = (shown.status.code(), text(&shown.stdout));
    assert_eq!(shown.0, Some(0));
    for part in [": no errors", "\nTOPIC ", "\nsound ", "  allowed\n", "\nwarning: sound: ", "\nkafka: no errors, 1 warning\n"] {
        assert!(shown.1.contains(part), "{part:?} in {}", shown.1);
    }
    assert_eq!(kafka.records("sound"), [], "the check leaves no record");
}

#[test]
fn a_missing_topic_comes_with_the_command_that_creates_it() {
    let kafka = kafka::shared();
    let home = home(&["missing"], &servers(&kafka.bootstrap()));
    let checked = check(&home);
    assert_eq!(checked.code, Some(1), "{}", checked.kafka);
    let [(topic, what)] = checked.findings("error")[..] else { panic!("expected one error: {}", checked.kafka) };
    assert!(topic == "missing" && what.contains("found no topic of this name"), "{what}");
    assert_eq!((&checked.topic("missing")["partitions"], &checked.topic("missing")["write"]), (&0.into(), &"untested".into()));

    let command = checked.remedy("missing", "expected the topic");
    let expected = format!("kafka-topics.sh --bootstrap-server {} --create --topic missing", kafka.bootstrap());
    assert!(command.starts_with(&expected) && command.contains("--replication-factor 1"), "{command}");
    let shown = home.verb(&["check", "--kafka"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(text(&shown.stdout).contains(&format!("\nerror: missing: {what}\n  {command}\n")), "{}", text(&shown.stdout));
    kafka.paste(&command);
    wait_until("the topic passes", || check(&home).code == Some(0));
}

#[test]
fn a_forbidden_topic_comes_with_the_command_that_permits_writing() {
    let kafka = kafka::shared();
    kafka.create_topic("forbidden", 1, &[]);
    kafka.forbid_writing("forbidden");
    let home = home(&["forbidden"], &servers(&kafka.bootstrap()));
    let checked = check(&home);
    assert_eq!((checked.code, &checked.topic("forbidden")["write"]), (Some(1), &"denied".into()), "{}", checked.kafka);
    let [(topic, what)] = checked.findings("error")[..] else { panic!("expected one error: {}", checked.kafka) };
    assert!(topic == "forbidden" && what.contains("permission to write"), "{what}");
    let [(_, unread)] = checked.findings("note")[..] else { panic!("expected one note: {}", checked.kafka) };
    assert!(unread.contains("permission to read the topic's configuration"), "{unread}");
    assert_eq!(checked.topic("forbidden")["max_message_bytes"], Value::Null);

    kafka.paste(&checked.remedy("forbidden", "permission to write"));
    wait_until("hookhold may write", || check(&home).code == Some(0));
    let permitted = check(&home);
    assert_eq!((&permitted.topic("forbidden")["write"], permitted.findings("note").len()), (&"allowed".into(), 1));
    kafka.paste(&permitted.remedy("forbidden", "read the topic's configuration"));
    wait_until("hookhold may read the configuration", || check(&home).findings("note").is_empty());
    assert_eq!(kafka.records("forbidden"), [], "the check leaves no record");
}

#[test]
fn a_topic_that_is_too_narrow_for_a_source_is_named_with_both_sizes() {
    let kafka = kafka::shared();
    kafka.create_topic("narrow", 1, &[("max.message.bytes", "70000")]);
    let home = home(&["narrow"], &servers(&kafka.bootstrap()));
    let checked = check(&home);
    assert_eq!(checked.code, Some(0), "a warning is no failure: {}", checked.kafka);
    // The body, the request head and hookhold's own headers.
    let needed = (64 + 32 + 8) << 10;
    let warnings = checked.findings("warning");
    let (_, what) = warnings.iter().find(|(_, what)| what.starts_with("max.message.bytes")).expect("a warning");
    assert!(what.contains(&format!("expected at least {needed} (max_body 64 KiB")) && what.contains("found 70000"), "{what}");
    kafka.paste(&checked.remedy("narrow", "max.message.bytes"));
    wait_until("the topic is wide enough", || check(&home).topic("narrow")["max_message_bytes"] == needed);
    assert!(check(&home).findings("warning").iter().all(|(_, what)| !what.starts_with("max.message.bytes")));
}

#[test]
fn a_rerouted_topic_is_checked_at_its_destination() {
    let kafka = kafka::shared();
    kafka.create_topic("proper", 1, &[]);
    kafka.create_topic("former", 1, &[("max.message.bytes", "500")]);
    let routes = "\n[kafka.reroute]\nmisspelt = \"proper\"\nunused = \"former\"\n";
    let home = home(&["misspelt"], &(servers(&kafka.bootstrap()) + routes));
    let checked = check(&home);
    assert_eq!(checked.code, Some(0), "{}", checked.kafka);
    let names: Vec<&Value> = checked.kafka["topics"].as_array().expect("an array").iter().map(|topic| &topic["topic"]).collect();
    assert_eq!(names, ["former", "proper"]);
    assert!(checked.findings("warning").iter().all(|(_, what)| !what.starts_with("max.message.bytes")), "{}", checked.kafka);
}

#[test]
fn a_lost_broker_is_reported_for_each_topic_that_it_blocks() {
    let first = Kafka::start();
    let mut second = first.join();
    first.create_topic_on(&[1, 2], "replicated", &[("min.insync.replicas", "2")]);
    first.create_topic_on(&[1, 2], "lenient", &[("min.insync.replicas", "1")]);
    first.create_topic_on(&[2], "single", &[]);
    first.create_topic_on(&[1], "alone", &[]);
    let home = home(&["replicated", "lenient", "single", "alone"], &servers(&first.bootstrap()));
    let before = check(&home);
    assert_eq!(before.code, Some(0), "{}", before.kafka);
    assert!(before.kafka["findings"].as_array().expect("an array").iter().all(|finding| finding["topic"] != "replicated"));
    for name in ["replicated", "lenient", "single", "alone"] {
        assert_eq!(before.topic(name)["write"], "allowed", "{}", before.kafka);
        assert_eq!(first.records(name), [], "the check leaves no record");
    }
    let remedy = before.remedy("alone", "expected at least 2 replicas");
    if Kafka::can_describe_log_directories() {
        first.paste(&remedy);
        wait_until("each partition has two replicas", || check(&home).topic("alone")["in_sync"] == 2);
    } else {
        println!("not run, because Kafka's tool does not work in a chroot: {remedy}");
    }
    first.paste(&before.remedy("lenient", "min.insync.replicas"));
    wait_until("an acknowledgement needs two replicas", || check(&home).topic("lenient")["min_insync_replicas"] == 2);

    second.kill();
    let mut after = check(&home);
    wait_until("the cluster notices the loss", || {
        after = check(&home);
        after.topic("replicated")["in_sync"] == 1 && after.findings("error").iter().any(|(_, what)| what.contains("a leader"))
    });
    assert_eq!(after.code, Some(1));
    let errors = after.findings("error");
    let about =
        |name: &str| errors.iter().find(|(topic, _)| *topic == name).unwrap_or_else(|| panic!("{name}: {}", after.kafka)).1;
    assert_eq!(about("replicated"), "partition 0: expected at least 2 in-sync replicas (min.insync.replicas), found 1 of 2");
    assert_eq!(about("single"), "partition 0: expected a leader, found none");
    assert_eq!((&after.topic("single")["write"], &after.topic("replicated")["write"]), (&"untested".into(), &"allowed".into()));
    let remedy = after.remedy("replicated", "in-sync replicas");
    let (start, command) = remedy.split_once("; or accept fewer copies: ").expect("two ways");
    assert_eq!(start, "start the brokers of the missing replicas: 2");
    assert!(after.remedy("single", "a leader").ends_with(": 2"));
    first.paste(command);
    wait_until("one replica is enough", || check(&home).findings("error").iter().all(|(topic, _)| *topic != "replicated"));
    let degraded = check(&home);
    assert!(degraded.findings("warning").contains(&("replicated", "partition 0: expected 2 in-sync replicas, found 1")));
    second.restart();
    wait_until("all replicas are in sync again", || check(&home).code == Some(0));
}

#[test]
fn a_cluster_that_does_not_answer_is_reported_with_the_cause() {
    let (address, _reserved) = ports::reserve();
    let home = home(&["unreached"], &servers(&address.to_string()));
    let checked = home.verb(&["check", "--kafka", "--kafka-timeout", "1s"]);
    let shown = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(1), "{shown}");
    let expected = format!("\nerror: kafka: expected an answer from {address} within 1s, found none; the last error is: ");
    assert!(shown.contains(&expected) && shown.contains("Connection refused"), "{shown}");
    assert!(shown.contains("\n  start the brokers") && shown.ends_with("\nkafka: 1 error, no warnings\n"), "{shown}");
    let json = home.verb(&["check", "--kafka", "--kafka-timeout", "1s", "--format", "json"]);
    let json: Value = serde_json::from_str(&text(&json.stdout)).expect("JSON");
    assert_eq!((&json["kafka"]["reached"], &json["kafka"]["topics"]), (&false.into(), &Value::Array(Vec::new())));
}

/// The second server of the list is not a broker, so its connection fails. The check must not depend on the order.
#[test]
fn one_server_of_the_list_is_enough() {
    let kafka = kafka::shared();
    kafka.create_topic("one-of-two", 1, &[]);
    let (address, _reserved) = ports::reserve();
    for list in [format!("{address},{}", kafka.bootstrap()), format!("{},{address}", kafka.bootstrap())] {
        let checked = check(&home(&["one-of-two"], &servers(&list)));
        assert_eq!(checked.code, Some(0), "{}", checked.kafka);
    }
}

#[test]
fn a_failed_login_never_shows_the_password() {
    let kafka = kafka::shared();
    let login = "\nsecurity.protocol = \"sasl_plaintext\"\nsasl.mechanism = \"PLAIN\"\nsasl.username = \"hookhold\"\n\
                 sasl.password = \"file:secret\"\n";
    let home = home(&["logged-in"], &(servers(&kafka.bootstrap()) + login));
    for format in ["text", "json"] {
        let checked = home.verb(&["check", "--kafka", "--kafka-timeout", "2s", "--format", format]);
        let shown = text(&checked.stdout) + &text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(1), "{shown}");
        assert!(shown.contains("expected an answer from") && !shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn the_option_needs_a_kafka_section() {
    let home = Home::new(&[("secret", SECRET)], &source("stored"));
    for format in ["text", "json"] {
        let checked = home.verb(&["check", "--kafka", "--format", format]);
        let error = text(&checked.stderr);
        assert_eq!((checked.status.code(), text(&checked.stdout).as_str()), (Some(2), ""), "{error}");
        assert!(error.starts_with("hookhold: --kafka: expected a [kafka] section in ") && error.lines().count() == 1, "{error}");
    }
    for args in [&["--kafka", "--diff"][..], &["--kafka-timeout", "5s"], &["--kafka", "--kafka-timeout", "5"]] {
        assert_eq!(home.verb(&[&["check"], args].concat()).status.code(), Some(2), "{args:?}");
    }
}

/// A firewall, or a wrong `advertised.listeners`, hides a broker that the cluster lists as a leader.
#[test]
fn a_leader_that_does_not_answer_is_reported_with_its_address() {
    let cluster = MockCluster::new(2).expect("a mock cluster");
    cluster.create_topic("hidden", 1, 1).expect("a new topic");
    cluster.partition_leader("hidden", 0, Some(2)).expect("a broker");
    let brokers = cluster.bootstrap_servers();
    let (first, second) = brokers.split_once(',').expect("two brokers");
    // The simulated broker answers long after the check has ended.
    cluster.broker_round_trip_time(2, Duration::from_secs(3600)).expect("a broker");
    let home = home(&["hidden"], &servers(first));
    let checked = home.verb(&["check", "--kafka", "--kafka-timeout", "2s", "--format", "json"]);
    let json: Value = serde_json::from_str(&text(&checked.stdout)).expect("JSON");
    let found = json["kafka"]["findings"].as_array().expect("an array");
    let error = found.iter().find(|finding| finding["level"] == "error").unwrap_or_else(|| panic!("no error: {json}"));
    assert_eq!((checked.status.code(), &error["topic"]), (Some(1), &Value::Null));
    let what = error["what"].as_str().expect("a text");
    assert!(what.starts_with(&format!("expected an answer from broker 2 at {second} within 2s, found none")), "{what}");
    assert!(error["remedy"].as_str().is_some_and(|remedy| remedy.contains("advertised.listeners of broker 2")), "{error}");
    assert_eq!(json["kafka"]["topics"][0]["write"], "untested");
}

/// The simulated cluster ignores `acks`, unlike Kafka, and cannot describe configurations.
#[test]
fn a_cluster_that_stores_the_tested_record_is_reported() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("stored", 1, 1).expect("a new topic");
    let checked = check(&home(&["stored"], &servers(&cluster.bootstrap_servers())));
    assert_eq!((checked.code, &checked.topic("stored")["write"]), (Some(0), &"allowed".into()), "{}", checked.kafka);
    assert!(checked.findings("warning").iter().any(|(_, what)| what.contains("hookhold-check")), "{}", checked.kafka);
    assert!(checked.findings("note").iter().any(|(_, what)| what.contains("configuration")), "{}", checked.kafka);
}

const SECRET: &str = "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0";
