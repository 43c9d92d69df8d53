//! Tests of forwarding to a real Apache Kafka broker. Kafka must receive every event, each record must be exactly as
//! documented, and a failure of one topic must not affect another topic.

#[path = "common/disk.rs"]
mod disk;
#[path = "common/harness.rs"]
mod harness;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/shop.rs"]
mod shop;
#[path = "verify/support.rs"]
#[allow(dead_code, reason = "one of several users")]
mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use disk::{SimDisk, Step};
use harness::{Harness, TestClock};
use hookhold::forward::{RedriveError, Redriver};
use hookhold::journal::ParkedEvents;
use hookhold::limits::JournalLimits;
use hookhold::service::{ServeError, forward_settings};
use kafka::{Kafka, Record, wait_until};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use shop::{AT, Shop};
use tokio::time::timeout;

fn bytes_of(random: &mut fastrand::Rng, size: usize) -> Vec<u8> {
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}

fn seqs(records: &[Record]) -> Vec<u64> {
    let mut seqs: Vec<u64> = records.iter().map(Record::seq).collect();
    seqs.sort();
    seqs
}

/// Returns the sequence of each record, in the order of `records`. Omits a sequence that has already occurred in an earlier
/// record.
fn order(records: &[Record]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    records.iter().map(Record::seq).filter(|seq| seen.insert(*seq)).collect()
}

#[test]
fn a_record_is_exactly_as_documented() {
    let kafka = kafka::shared();
    kafka.create_topic("described", 1, &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let shop = Shop::new("described");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", trace), ("x-shop-customer", "customer-7"), ("authorization", "secret"), ("cookie", "secret")];
    harness.append(shop.event(Some("evt_1"), Some("order.paid"), &b"{\"a\":\"\\u00e9\xff\"}\r\n"[..], &headers));
    harness.append(shop.event(None, None, Bytes::new(), &[]));

    let records = kafka.wait_for_records("described", 2);
    let [full, bare] = &records[..] else { panic!("expected two records, found {records:?}") };
    let names: Vec<&str> = full.headers.iter().map(|(name, _)| &**name).collect();
    let log = full.header("hookhold-log");
    assert_eq!(full.value.as_deref(), Some(&b"{\"a\":\"\\u00e9\xff\"}\r\n"[..]));
    assert_eq!(full.key.as_deref(), Some(&b"customer-7"[..]));
    assert_eq!(full.timestamp_ms, AT.0 as i64);
    let values: Vec<&str> = names.iter().map(|name| full.header(name)).collect();
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "evt_1"),
        ("ce_source", "/hooks/shop"),
        ("ce_type", "com.shop.order.paid"),
        ("ce_time", "2023-11-14T22:13:19.042Z"),
        ("content-type", "application/json"),
        ("traceparent", trace),
        ("hookhold-source", "shop"),
        ("hookhold-received-at", "2023-11-14T22:13:20.000Z"),
        ("hookhold-log", log),
        ("hookhold-seq", "0"),
        ("hookhold-instance", &harness.journal.id()),
        ("hookhold-auth", "mac-sha256:secret"),
        ("hookhold-integrity", "body"),
        ("http-x-shop-id", "evt_1"),
    ];
    assert_eq!(names.into_iter().zip(values).collect::<Vec<_>>(), expected);

    assert_eq!(bare.value.as_deref(), Some(&[][..]), "an empty body is an empty value, not null");
    assert_eq!(bare.header("ce_id"), format!("{log}-1"), "the id of an event without one is its log and sequence");
    assert_eq!(bare.key.as_deref(), Some(format!("{log}-1").as_bytes()));
    assert_eq!(bare.header("ce_type"), "shop.unknown");
    assert_eq!(
        bare.header("ce_time"),
        "2023-11-14T22:13:20.000Z",
        "without the provider's time, the record has the time of receipt"
    );
    harness.wait_until_acked("described", 2);
    let size = |record: &Record| {
        let headers: usize = record.headers.iter().map(|(name, _)| name.len() + record.header(name).len()).sum();
        record.value.as_ref().map_or(0, Vec::len) + record.key.as_ref().map_or(0, Vec::len) + headers
    };
    let sent = (size(full) + size(bare)) as f64;
    assert_eq!(harness.metric(r#"hookhold_forwarded_bytes_total{topic="described"}"#), Some(sent));
    assert!(harness.metric(r#"hookhold_kafka_last_ack_timestamp_seconds{topic="described"}"#).is_some_and(|at| at > 0.0));
}

#[test]
fn the_account_of_an_event_is_the_end_of_its_source() {
    let kafka = kafka::shared();
    kafka.create_topic("of-accounts", 1, &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let shop = Shop::new("of-accounts");
    let event = || shop.event(Some("1017"), Some("order.paid"), Bytes::new(), &[]);
    harness.append(event());
    for account in ["acct_1017", "a~b(c)@d:e;f=g,h", "a?b#c%d \u{e9}"] {
        harness.append(event().with_account(account.into()));
    }
    let records = kafka.wait_for_records("of-accounts", 4);
    let sources: Vec<&str> = records.iter().map(|record| record.header("ce_source")).collect();
    // The last account is not plain ASCII, because the name of a file with a secret may have any characters.
    let expected = ["/hooks/shop", "/hooks/shop/acct_1017", "/hooks/shop/a~b(c)@d:e;f=g,h", "/hooks/shop/a%3Fb%23c%25d%20%C3%A9"];
    assert_eq!(sources, expected);
    assert!(records.iter().all(|record| record.header("hookhold-source") == "shop"));
}

#[test]
fn the_largest_body_of_any_provider_arrives_whole() {
    let kafka = kafka::shared();
    kafka.create_topic("large", 1, &[("max.message.bytes", "30000000")]);
    let harness = Harness::new(kafka.bootstrap()).start();
    harness.store_many("large", 1, 25 << 20);
    let records = kafka.wait_for_records("large", 1);
    let mut random = fastrand::Rng::with_seed(shop::SEED);
    let value = records[0].value.as_deref().expect("a body");
    assert_eq!(value.len(), 25 << 20);
    assert!(value.iter().all(|byte| *byte == random.u8(..)), "the record has the body byte for byte");
}

#[test]
fn a_missing_topic_blocks_only_itself_and_catches_up() {
    let kafka = kafka::shared();
    kafka.create_topic("present", 1, &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let missing = harness.store_many("created-later", 50, 10);
    let present = harness.store_many("present", 50, 10);
    harness.wait_until_blocked("created-later", "topic_missing");
    assert_eq!(harness.metric(r#"hookhold_forward_blocked{reason="topic_missing",topic="created-later"}"#), Some(1.0));
    assert_eq!(harness.metric(r#"hookhold_forward_lag_events{topic="created-later"}"#), Some(50.0));
    let since = || harness.metric(r#"hookhold_forward_blocked_since_seconds{reason="topic_missing",topic="created-later"}"#);
    assert!(since().is_some_and(|since| since > 0.0));
    assert!(harness.metric(r#"hookhold_forward_lag_seconds{topic="created-later"}"#).is_some_and(|seconds| seconds >= 0.0));
    harness.wait_until_acked("present", 50);
    assert_eq!(seqs(&kafka.records("present")), present);

    kafka.create_topic("created-later", 1, &[]);
    harness.wait_until_acked("created-later", 50);
    assert_eq!(harness.blocked("created-later"), None);
    assert_eq!(harness.metric(r#"hookhold_forward_blocked{reason="topic_missing",topic="created-later"}"#), Some(0.0));
    assert_eq!(since(), None, "the topic is not blocked any more");
    assert_eq!(harness.metric(r#"hookhold_forward_lag_events{topic="created-later"}"#), Some(0.0));
    assert_eq!(seqs(&kafka.records("created-later")), missing, "each event once, in order");
}

#[test]
fn no_event_is_missing_after_a_killed_broker() {
    let mut kafka = Kafka::start();
    kafka.create_topic("killed", 3, &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut stored = harness.store_many("killed", 500, 100);
    harness.wait_until_acked("killed", 1);
    kafka.kill();
    stored.extend(harness.store_many("killed", 500, 100));
    harness.wait_until_blocked("killed", "broker_away");
    kafka.restart();
    harness.wait_until_acked("killed", 1000);
    assert_eq!(harness.blocked("killed"), None);
    let mut found = seqs(&kafka.records("killed"));
    found.dedup();
    assert_eq!(found, stored);
}

#[test]
fn kafka_may_start_after_the_forwarder() {
    let mut kafka = Kafka::absent();
    let harness = Harness::new(kafka.bootstrap()).start();
    let stored = harness.store_many("late", 100, 10);
    harness.wait_until_blocked("late", "broker_away");
    kafka.restart();
    kafka.create_topic("late", 1, &[]);
    harness.wait_until_acked("late", 100);
    assert_eq!(seqs(&kafka.records("late")), stored);
}

/// Sets `ssl.ca.location` to a missing directory, so the setup of the Kafka client fails. The test then creates the directory.
/// The setup must now succeed, because librdkafka accepts even an empty directory.
#[test]
fn a_client_setup_failure_blocks_every_topic_until_fixed() {
    let dir = tempfile::tempdir().expect("a directory");
    let certificates = dir.path().join("certificates");
    let location = certificates.to_str().expect("text");
    let tls = [("security.protocol", "ssl"), ("ssl.ca.location", location)];
    let harness = Harness::with_kafka(&[("bootstrap.servers", "localhost:1"), tls[0], tls[1]]);
    harness.store("early", "evt_1", "stored before the first attempt");
    harness.resume();
    harness.wait_until_blocked("early", "refused");
    harness.store("new", "evt_2", "stored afterwards");
    for topic in ["early", "new"] {
        harness.wait_until_blocked(topic, "refused");
        let blocked = harness.topic(topic).and_then(|topic| topic.blocked).expect("the topic stays blocked");
        assert!(blocked.detail.contains("ssl.ca.location"), "{}", blocked.detail);
        let series = format!("hookhold_forward_blocked{{reason=\"refused\",topic=\"{topic}\"}}");
        assert_eq!(harness.metric(&series), Some(1.0));
        assert_eq!(harness.topic(topic).map(|topic| topic.lag_events), Some(1));
        let age = harness.metric(&format!("hookhold_forward_lag_seconds{{topic=\"{topic}\"}}"));
        assert!(age.is_some_and(|age| age > 86_400.0), "the event arrived years ago: {age:?}");
    }
    std::fs::create_dir(&certificates).expect("a directory");
    for topic in ["early", "new"] {
        wait_until("the client is set up and finds no broker", || harness.blocked(topic) == Some("broker_away"));
        let series = format!("hookhold_forward_blocked{{reason=\"refused\",topic=\"{topic}\"}}");
        assert_eq!(harness.metric(&series), Some(0.0));
    }
}

#[test]
fn a_forbidden_topic_blocks_only_itself_until_allowed() {
    let kafka = kafka::shared();
    for topic in ["forbidden", "next-to-forbidden"] {
        kafka.create_topic(topic, 1, &[]);
    }
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut stored = vec![harness.store("forbidden", "evt_0", "still allowed")];
    harness.wait_until_acked("forbidden", 1);
    kafka.forbid_writing("forbidden");
    stored.extend(harness.store_many("forbidden", 20, 10));
    let other = harness.store_many("next-to-forbidden", 50, 10);
    harness.wait_until_blocked("forbidden", "not_authorized");
    harness.wait_until_acked("next-to-forbidden", 50);
    assert_eq!(seqs(&kafka.records("next-to-forbidden")), other);
    let blocked = r#"hookhold_forward_blocked{reason="not_authorized",topic="forbidden"}"#;
    assert_eq!(harness.metric(blocked), Some(1.0));
    assert_eq!(
        harness.topic("forbidden").map(|topic| (topic.cursor, topic.lag_events)),
        Some((stored[1], 20)),
        "the cursor stays"
    );

    kafka.allow_writing("forbidden");
    harness.wait_until_acked("forbidden", 21);
    assert_eq!(harness.blocked("forbidden"), None);
    assert_eq!(harness.metric(blocked), Some(0.0));
    assert_eq!(order(&kafka.records("forbidden")), stored);
}

#[test]
fn a_topic_below_min_isr_blocks_only_itself() {
    let kafka = Kafka::start();
    let mut second = kafka.join();
    kafka.create_topic_on(&[1, 2], "thin", &[("min.insync.replicas", "2")]);
    kafka.create_topic_on(&[1], "next-to-thin", &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut stored = harness.store_many("thin", 20, 10);
    harness.wait_until_acked("thin", 20);
    second.kill();
    stored.extend(harness.store_many("thin", 20, 10));
    let other = harness.store_many("next-to-thin", 50, 10);
    harness.wait_until_blocked("thin", "below_min_isr");
    harness.wait_until_acked("next-to-thin", 50);
    assert_eq!(seqs(&kafka.records("next-to-thin")), other);
    let blocked = r#"hookhold_forward_blocked{reason="below_min_isr",topic="thin"}"#;
    assert_eq!(harness.metric(blocked), Some(1.0));
    assert_eq!(harness.topic("thin").map(|topic| (topic.cursor, topic.lag_events)), Some((stored[20], 20)), "the cursor stays");

    second.restart();
    harness.wait_until_acked("thin", 40);
    assert_eq!(harness.blocked("thin"), None);
    assert_eq!(harness.metric(blocked), Some(0.0));
    assert_eq!(order(&kafka.records("thin")), stored);
}

/// A forwarder that is dead but looks alive would let the backlog grow until senders get 503.
#[tokio::test]
async fn a_panic_of_the_forwarder_ends_the_gateway() {
    let config = shop::config(&[("bootstrap.servers", "localhost:1")], JournalLimits::default());
    let mut harness = Harness::build(config, SimDisk::default(), TestClock::PanicsIn("forward"));
    harness.serve();
    let ended = timeout(Duration::from_secs(60), harness.served()).await.expect("the gateway ends");
    let ended = ended.expect_err("the forwarder panics in its first turn");
    assert!(matches!(ended, ServeError::Forwarder), "{ended}");
}

#[test]
fn the_heartbeat_of_an_idle_forwarder_goes_on() {
    let harness = Harness::new("localhost:1".into()).start();
    let beat = || harness.metric("hookhold_forward_heartbeat_timestamp_seconds").unwrap_or_default();
    wait_until("the forwarder has started", || beat() > 0.0);
    let first = beat();
    wait_until("the forwarder has looked for work again", || beat() > first);
}

/// Stops a forwarder whose topic is blocked. A reload that changes `[kafka]` replaces the forwarder but not the metrics, so the
/// old forwarder must reset the series of `hookhold_forward_blocked`.
#[test]
fn a_replaced_forwarder_leaves_no_block_in_the_metrics() {
    let harness = Harness::new("localhost:1".into()).start();
    harness.store("replaced", "evt_1", "waits");
    harness.wait_until_blocked("replaced", "broker_away");
    let blocked = harness.metrics.forward.blocked.with_label_values(&["replaced", "broker_away"]);
    assert_eq!(blocked.get(), 1);
    harness.stop();
    assert_eq!(blocked.get(), 0);
}

#[test]
fn a_record_too_large_for_its_topic_is_parked_and_its_topic_continues() {
    let kafka = kafka::shared();
    kafka.create_topic("small", 1, &[("max.message.bytes", "2000")]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut random = fastrand::Rng::with_seed(3);
    let body = bytes_of(&mut random, 5000);
    let mut stored = harness.store_many("small", 20, 100);
    let large = harness.store("small", "evt_2", body.clone());
    stored.extend(harness.store_many("small", 20, 100));
    harness.wait_until_acked("small", 40);
    assert_eq!(order(&kafka.records("small")), stored, "in order, without the record that is too large");
    assert_eq!(harness.topic("small").map(|topic| (topic.lag_events, topic.blocked.is_none())), Some((0, true)));
    assert_eq!(harness.metric(r#"hookhold_parked_total{reason="too_large",topic="small"}"#), Some(1.0));
    assert_eq!(harness.metric("hookhold_parked_bytes"), Some(8192.0));

    let harness = harness.after_power_cut();
    let parked = ParkedEvents::new(harness.disk.second_process());
    let [file] = &parked.list().expect("the disk can be read")[..] else { panic!("expected one parked event") };
    let found = parked.read(file.position).expect("the file can be read").expect("the event is parked");
    assert_eq!((found.stored.position.seq, found.stored.event.body()), (large, &Bytes::from(body)));
    assert_eq!((&*found.note.reason, found.stored.event.id()), ("too_large", Some("evt_2")));
    assert_eq!(harness.metric("hookhold_parked_events"), Some(1.0), "a restart counts the parked events");
}

#[test]
fn a_topic_blocks_only_itself_if_its_record_cannot_be_parked() {
    let kafka = kafka::shared();
    kafka.create_topic("crowded", 1, &[("max.message.bytes", "2000")]);
    kafka.create_topic("next-to-crowded", 1, &[]);
    let limits = JournalLimits { max_parked: 12_000, ..JournalLimits::default() };
    let harness = Harness::with_limits(&[("bootstrap.servers", &kafka.bootstrap())], limits).start();
    let mut random = fastrand::Rng::with_seed(3);
    let parked = harness.store("crowded", "evt_1", bytes_of(&mut random, 5000));
    let waiting = harness.store("crowded", "evt_2", bytes_of(&mut random, 5000));
    let last = harness.store("crowded", "evt_3", "fits");
    harness.store_many("next-to-crowded", 50, 10);
    harness.wait_until_blocked("crowded", "record");
    harness.wait_until_acked("next-to-crowded", 50);
    let blocked = harness.topic("crowded").expect("the topic has a queue");
    let detail = blocked.blocked.expect("the topic is blocked").detail;
    assert!(detail.contains("max_parked"), "{detail}");
    assert_eq!(blocked.cursor, waiting, "the cursor stays at the record");

    let events = ParkedEvents::new(harness.disk.second_process());
    let files = events.list().expect("the disk can be read");
    assert_eq!(files.iter().map(|file| file.position.seq).collect::<Vec<_>>(), [parked]);
    assert!(events.remove(files[0].position).expect("the file can be removed"));
    harness.wait_until_acked("crowded", 1);
    assert_eq!(seqs(&kafka.records("crowded")), [last]);
    assert_eq!(events.list().expect("the disk can be read")[0].position.seq, waiting, "there is room for one event");
}

#[test]
fn parked_events_that_are_sent_again_say_so() {
    let kafka = kafka::shared();
    kafka.create_topic("mended", 1, &[("max.message.bytes", "2000")]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let body = bytes_of(&mut fastrand::Rng::with_seed(5), 5000);
    let large = harness.store("mended", "evt_1", body.clone());
    let last = harness.store("mended", "evt_2", "fits");
    harness.wait_until_acked("mended", 1);
    let events = ParkedEvents::new(harness.disk.second_process());
    let position = events.list().expect("the disk can be read")[0].position;
    let parked = events.read(position).expect("the disk can be read").expect("the event is parked");
    let settings = forward_settings(harness.config()).expect("[kafka] is configured");
    let mut redriver = Redriver::start(settings).expect("the settings are valid");
    let error = redriver.send(&parked, "mended").expect_err("the topic still has its limit");
    assert!(matches!(error, RedriveError::Rejected(_)), "{error}");
    let error = redriver.send(&parked, "no-such-topic").expect_err("there is no such topic");
    assert!(matches!(error, RedriveError::Blocked { .. }), "{error}");

    kafka.configure_topic("mended", &[("max.message.bytes", "1048588")]);
    redriver.send(&parked, "mended").expect("Kafka accepts the record");
    let records = kafka.records("mended");
    assert_eq!(order(&records), [last, large]);
    let again = &records[1];
    assert_eq!((again.value.as_ref(), again.header("ce_id")), (Some(&body), "evt_1"));
    assert_eq!(again.header("hookhold-instance"), harness.journal.id());
    assert_eq!(again.header("hookhold-parked-reason"), "too_large");
    assert_eq!(again.header("hookhold-parked-at"), parked.note.parked_at.rfc3339());
}

/// Twenty topics fall behind during the same outage. If each of them had a reader of its own, they would read the journal twenty times.
#[test]
fn topics_that_fall_behind_together_read_the_journal_once() {
    let mut kafka = Kafka::start();
    let topics: Vec<String> = (0..20).map(|number| format!("among-{number}")).collect();
    topics.iter().for_each(|topic| kafka.create_topic(topic, 1, &[]));
    let harness = Harness::new(kafka.bootstrap()).start();
    for topic in &topics {
        harness.store(topic, "evt_before", "first");
    }
    topics.iter().for_each(|topic| harness.wait_until_acked(topic, 1));
    kafka.kill();
    for _ in 0..ROUNDS {
        topics.iter().for_each(|topic| drop(harness.store_many(topic, 10, 10_000)));
    }
    topics.iter().for_each(|topic| harness.wait_until_blocked(topic, "broker_away"));
    let (before, backlog) = (harness.disk.bytes_read(), 20 * 10 * ROUNDS as u64 * 10_000);
    kafka.restart();
    topics.iter().for_each(|topic| harness.wait_until_acked(topic, 1 + 10 * ROUNDS as u64));
    let read = harness.disk.bytes_read() - before;
    println!("read {read} bytes for a backlog of {backlog} bytes");
    assert!(read < 2 * backlog, "read {read} bytes for a backlog of {backlog} bytes");
}

/// Kafka rejects each batch of the topic, although it accepts each record.
#[test]
fn a_topic_that_rejects_large_batches_gets_smaller_ones() {
    let kafka = kafka::shared();
    kafka.create_topic("no-large-batches", 1, &[("max.message.bytes", "30000")]);
    let settings = [("bootstrap.servers", &*kafka.bootstrap()), ("linger.ms", "200"), ("compression.type", "none")];
    let harness = Harness::with_kafka(&settings);
    let stored = harness.store_many("no-large-batches", 500, 1000);
    harness.resume();
    harness.wait_until_acked("no-large-batches", 500);
    let records = kafka.records("no-large-batches");
    assert_eq!(order(&records), stored);
    assert_eq!(harness.metric(r#"hookhold_parked_total{reason="too_large",topic="no-large-batches"}"#), None);
    assert!(kafka.batches("no-large-batches") < 100, "hookhold does not send each record alone");
}

#[test]
fn a_restart_continues_at_the_saved_cursor() {
    let kafka = kafka::shared();
    kafka.create_topic("continued", 2, &[]);
    let mut harness = Harness::new(kafka.bootstrap()).start();
    let mut stored = Vec::new();
    for _ in 0..3 {
        stored.extend(harness.store_many("continued", 200, 100));
        harness.stop();
        stored.extend(harness.store_many("continued", 200, 100));
        harness = harness.restarted();
        harness.resume();
    }
    kafka.wait_for_records("continued", 1200);
    harness.stop();
    assert_eq!(seqs(&kafka.records("continued")), stored, "a clean stop causes no duplicate and skips no event");
}

#[test]
fn a_topic_that_falls_behind_catches_up_in_order() {
    let kafka = kafka::shared();
    kafka.create_topic("behind", 1, &[]);
    kafka.create_topic("ahead", 1, &[]);
    let harness = Harness::new(kafka.bootstrap());
    let mut behind = Vec::new();
    let mut ahead = Vec::new();
    for _ in 0..20 {
        behind.extend(harness.store_many("behind", 1500, 10));
        ahead.extend(harness.store_many("ahead", 5, 10));
    }
    harness.resume();
    harness.wait_until_acked("behind", 30_000);
    harness.wait_until_acked("ahead", 100);
    let found: Vec<u64> = kafka.records("behind").iter().map(Record::seq).collect();
    assert_eq!(found, behind, "each event once, in order");
    assert_eq!(seqs(&kafka.records("ahead")), ahead);
    for topic in ["behind", "ahead"] {
        wait_until("the lag is 0", || harness.topic(topic).is_some_and(|topic| topic.lag_events == 0));
    }
}

/// Corrupts the last event of each of two topics. The forwarder cannot send a corrupted event, so Kafka never acknowledges the
/// event. The forwarder must nevertheless move the cursor past the event and subtract the event from the lag.
#[test]
fn corrupted_last_events_do_not_hold_back_the_cursor() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let harness = Harness::new(cluster.bootstrap_servers());
    let corrupted = harness.store("corrupted", "evt_1", "a marker that gets corrupted");
    harness.store_many("filler", 3, 600 << 10);
    let last = harness.store("whole", "evt_2", "fits");
    harness.store("whole", "evt_3", "the newest event, corrupted as well");
    for topic in ["corrupted", "filler", "whole"] {
        cluster.create_topic(topic, 1, 1).expect("a topic");
    }
    harness.corrupt("a marker that gets corrupted");
    harness.corrupt("the newest event, corrupted as well");
    let cursors = || harness.journal.topic_cursors().into_iter();
    let cursor = || cursors().find(|topic| &*topic.name == "corrupted").map(|topic| topic.cursor);
    assert_eq!(cursor(), Some(corrupted), "the event waits");
    harness.resume();
    harness.wait_until_acked("whole", 1);
    wait_until("the cursor passes the lost event", || cursor() > Some(last));
    assert_eq!(harness.topic("corrupted").map(|topic| topic.lag_events), Some(0));
    wait_until("the lag is 0", || harness.topic("whole").is_some_and(|topic| topic.lag_events == 0));
}

/// Makes the forwarder's reads of the journal fail. The reported lag must then equal the journal's own count of the events that
/// Kafka has not acknowledged.
#[test]
fn lag_counts_every_waiting_event_from_the_start() {
    let harness = Harness::new("localhost:1".into());
    harness.store_many("waiting", 30, 10);
    harness.disk.fail(Step::Read, ".seg", ErrorKind::Other, u64::MAX);
    harness.resume();
    wait_until("the topic has a queue", || harness.topic("waiting").is_some());
    assert_eq!(harness.metric(r#"hookhold_forward_lag_events{topic="waiting"}"#), Some(30.0));
}

#[test]
fn an_unreadable_journal_blocks_its_topics_until_readable() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let harness = Harness::new(cluster.bootstrap_servers()).start();
    for topic in ["unreadable", "behind-it"] {
        cluster.create_topic(topic, 1, 1).expect("a topic");
        harness.store(topic, "evt_1", "can be read");
        harness.wait_until_acked(topic, 1);
    }
    let blocked = |topic| harness.metric(&format!("hookhold_forward_blocked{{reason=\"journal\",topic=\"{topic}\"}}"));
    harness.disk.fail(Step::Read, ".seg", ErrorKind::Other, u64::MAX);
    harness.store("unreadable", "evt_2", "cannot be read yet");
    for topic in ["unreadable", "behind-it"] {
        harness.wait_until_blocked(topic, "journal");
        assert_eq!(blocked(topic), Some(1.0));
    }
    harness.disk.clear_faults();
    harness.wait_until_acked("unreadable", 2);
    for topic in ["unreadable", "behind-it"] {
        wait_until("the topic is no longer blocked", || harness.blocked(topic).is_none());
        assert_eq!(blocked(topic), Some(0.0));
    }
}

/// Makes the broker report an out-of-order sequence number, which is a fatal error for the producer. The test uses librdkafka's
/// mock cluster, because a test cannot make a real broker send this error.
#[test]
fn a_fatal_error_replaces_the_producer_and_loses_nothing() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("fatal", 1, 1).expect("a topic");
    let harness = Harness::new(cluster.bootstrap_servers()).start();
    harness.store_many("fatal", 100, 10);
    harness.wait_until_acked("fatal", 100);
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    harness.store_many("fatal", 100, 10);
    harness.wait_until_acked("fatal", 200);
    assert_eq!(harness.metric(r#"hookhold_producer_rebuilds_total{reason="sequence"}"#), Some(1.0));
    let mut found = seqs(&kafka::records_at(&cluster.bootstrap_servers(), "fatal"));
    found.dedup();
    assert_eq!(found, (0..200).collect::<Vec<u64>>());
}

/// Number of times that a test stores ten events for each of its topics.
const ROUNDS: usize = 40;
