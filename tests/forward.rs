//! The promises of passing on, against a real Apache Kafka: nothing is missing, what arrives is exactly as described, and
//! trouble with one topic stays with that topic.

#[path = "common/disk.rs"]
mod disk;
#[path = "common/harness.rs"]
mod harness;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/shop.rs"]
mod shop;
#[path = "verify/support.rs"]
#[allow(dead_code, reason = "one of several users")]
mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;

use bytes::Bytes;
use disk::Step;
use harness::Harness;
use kafka::{Kafka, Record, wait_until};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use shop::{AT, Shop};

fn bytes_of(random: &mut fastrand::Rng, size: usize) -> Vec<u8> {
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}

fn seqs(records: &[Record]) -> Vec<u64> {
    let mut seqs: Vec<u64> = records.iter().map(Record::seq).collect();
    seqs.sort();
    seqs
}

/// The order of one partition's records, without repeats of what came before.
fn order(records: &[Record]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    records.iter().map(Record::seq).filter(|seq| seen.insert(*seq)).collect()
}

#[test]
fn a_record_is_exactly_as_described() {
    let kafka = kafka::shared();
    kafka.create_topic("described", 1, &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let shop = Shop::new("described");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", trace), ("x-shop-customer", "customer-7"), ("authorization", "secret"), ("cookie", "secret")];
    harness.append(shop.event(Some("evt_1"), Some("order.paid"), &b"{\"a\":\"\\u00e9\xff\"}\r\n"[..], &headers));
    harness.append(shop.event(None, None, Bytes::new(), &[]));

    let records = kafka.wait_for_records("described", 2);
    let [full, bare] = &records[..] else { panic!("two records, not {records:?}") };
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
        ("hookhold-auth", "mac-sha256:secret"),
        ("hookhold-integrity", "body"),
        ("http-x-shop-id", "evt_1"),
    ];
    assert_eq!(names.into_iter().zip(values).collect::<Vec<_>>(), expected);

    assert_eq!(bare.value.as_deref(), Some(&[][..]), "an empty body is an empty value, not null");
    assert_eq!(bare.header("ce_id"), format!("{log}-1"), "no id: log and sequence");
    assert_eq!(bare.key.as_deref(), Some(format!("{log}-1").as_bytes()));
    assert_eq!(bare.header("ce_type"), "shop.unknown");
    assert_eq!(bare.header("ce_time"), "2023-11-14T22:13:20.000Z", "no time of the provider: ours");
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
    assert!(value.iter().all(|byte| *byte == random.u8(..)), "byte for byte");
}

#[test]
fn a_missing_topic_blocks_only_its_own_lane_until_it_is_created() {
    let kafka = kafka::shared();
    kafka.create_topic("present", 1, &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let missing = harness.store_many("created-later", 50, 10);
    let present = harness.store_many("present", 50, 10);
    wait_until("the lane says why", || harness.blocked("created-later") == Some("topic_missing"));
    assert_eq!(harness.metric(r#"hookhold_forward_blocked{reason="topic_missing",topic="created-later"}"#), Some(1.0));
    assert_eq!(harness.metric(r#"hookhold_forward_lag_events{topic="created-later"}"#), Some(50.0));
    assert!(harness.metric(r#"hookhold_forward_lag_seconds{topic="created-later"}"#).is_some_and(|seconds| seconds >= 0.0));
    harness.wait_until_acked("present", 50);
    assert_eq!(seqs(&kafka.records("present")), present);

    kafka.create_topic("created-later", 1, &[]);
    harness.wait_until_acked("created-later", 50);
    assert_eq!(harness.blocked("created-later"), None);
    assert_eq!(harness.metric(r#"hookhold_forward_blocked{reason="topic_missing",topic="created-later"}"#), Some(0.0));
    assert_eq!(harness.metric(r#"hookhold_forward_lag_events{topic="created-later"}"#), Some(0.0));
    assert_eq!(seqs(&kafka.records("created-later")), missing, "each once, in order");
}

#[test]
fn nothing_is_missing_after_the_broker_was_killed() {
    let mut kafka = Kafka::start();
    kafka.create_topic("killed", 3, &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut kept = harness.store_many("killed", 500, 100);
    harness.wait_until_acked("killed", 1);
    kafka.kill();
    kept.extend(harness.store_many("killed", 500, 100));
    wait_until("the lane says why", || harness.blocked("killed") == Some("broker_away"));
    kafka.restart();
    harness.wait_until_acked("killed", 1000);
    assert_eq!(harness.blocked("killed"), None);
    let mut found = seqs(&kafka.records("killed"));
    found.dedup();
    assert_eq!(found, kept);
}

#[test]
fn kafka_may_come_later() {
    let mut kafka = Kafka::absent();
    let harness = Harness::new(kafka.bootstrap()).start();
    let kept = harness.store_many("late", 100, 10);
    wait_until("the lane says why", || harness.blocked("late") == Some("broker_away"));
    kafka.restart();
    kafka.create_topic("late", 1, &[]);
    harness.wait_until_acked("late", 100);
    assert_eq!(seqs(&kafka.records("late")), kept);
}

/// The certificates lie in a directory because an empty one will do.
#[test]
fn a_client_that_cannot_be_set_up_blocks_every_lane_until_it_can() {
    let place = tempfile::tempdir().expect("a directory");
    let certificates = place.path().join("certificates");
    let directory = certificates.to_str().expect("text");
    let tls = [("security.protocol", "ssl"), ("ssl.ca.location", directory)];
    let harness = Harness::with_kafka(&[("bootstrap.servers", "localhost:1"), tls[0], tls[1]]);
    harness.store("early", "evt_1", "kept before the first attempt");
    harness.resume();
    wait_until("the lane says why", || harness.blocked("early") == Some("refused"));
    harness.store("new", "evt_2", "kept afterwards");
    for topic in ["early", "new"] {
        wait_until("the lane says why", || harness.blocked(topic) == Some("refused"));
        let blocked = harness.topic(topic).and_then(|lane| lane.blocked).expect("still");
        assert!(blocked.detail.contains("ssl.ca.location"), "{}", blocked.detail);
        let series = format!("hookhold_forward_blocked{{reason=\"refused\",topic=\"{topic}\"}}");
        assert_eq!(harness.metric(&series), Some(1.0));
        assert_eq!(harness.topic(topic).map(|lane| lane.lag_events), Some(1));
        let age = harness.metric(&format!("hookhold_forward_lag_seconds{{topic=\"{topic}\"}}"));
        assert!(age.is_some_and(|age| age > 86_400.0), "it arrived years ago: {age:?}");
    }
    std::fs::create_dir(&certificates).expect("a directory");
    for topic in ["early", "new"] {
        wait_until("the client is there and finds no broker", || harness.blocked(topic) == Some("broker_away"));
        let series = format!("hookhold_forward_blocked{{reason=\"refused\",topic=\"{topic}\"}}");
        assert_eq!(harness.metric(&series), Some(0.0));
    }
}

#[test]
fn a_topic_that_may_not_be_written_to_blocks_only_its_own_lane_until_it_may() {
    let kafka = kafka::shared();
    for topic in ["forbidden", "beside-forbidden"] {
        kafka.create_topic(topic, 1, &[]);
    }
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut kept = vec![harness.store("forbidden", "evt_0", "still allowed")];
    harness.wait_until_acked("forbidden", 1);
    kafka.forbid_writing("forbidden");
    kept.extend(harness.store_many("forbidden", 20, 10));
    let beside = harness.store_many("beside-forbidden", 50, 10);
    wait_until("the lane says why", || harness.blocked("forbidden") == Some("not_authorized"));
    harness.wait_until_acked("beside-forbidden", 50);
    assert_eq!(seqs(&kafka.records("beside-forbidden")), beside);
    let blocked = r#"hookhold_forward_blocked{reason="not_authorized",topic="forbidden"}"#;
    assert_eq!(harness.metric(blocked), Some(1.0));
    assert_eq!(harness.topic("forbidden").map(|lane| (lane.cursor, lane.lag_events)), Some((kept[1], 20)), "nothing passes");

    kafka.allow_writing("forbidden");
    harness.wait_until_acked("forbidden", 21);
    assert_eq!(harness.blocked("forbidden"), None);
    assert_eq!(harness.metric(blocked), Some(0.0));
    assert_eq!(order(&kafka.records("forbidden")), kept);
}

#[test]
fn a_topic_below_its_min_isr_blocks_only_its_own_lane_until_the_replica_is_back() {
    let kafka = Kafka::start();
    let mut second = kafka.join();
    kafka.create_topic_on(&[1, 2], "thin", &[("min.insync.replicas", "2")]);
    kafka.create_topic_on(&[1], "beside-thin", &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut kept = harness.store_many("thin", 20, 10);
    harness.wait_until_acked("thin", 20);
    second.kill();
    kept.extend(harness.store_many("thin", 20, 10));
    let beside = harness.store_many("beside-thin", 50, 10);
    wait_until("the lane says why", || harness.blocked("thin") == Some("below_min_isr"));
    harness.wait_until_acked("beside-thin", 50);
    assert_eq!(seqs(&kafka.records("beside-thin")), beside);
    let blocked = r#"hookhold_forward_blocked{reason="below_min_isr",topic="thin"}"#;
    assert_eq!(harness.metric(blocked), Some(1.0));
    assert_eq!(harness.topic("thin").map(|lane| (lane.cursor, lane.lag_events)), Some((kept[20], 20)), "nothing passes");

    second.restart();
    harness.wait_until_acked("thin", 40);
    assert_eq!(harness.blocked("thin"), None);
    assert_eq!(harness.metric(blocked), Some(0.0));
    assert_eq!(order(&kafka.records("thin")), kept);
}

/// A reload that changes `[kafka]` replaces the forwarder, and the metrics stay.
#[test]
fn a_forwarder_that_is_replaced_leaves_no_block_behind() {
    let harness = Harness::new("localhost:1".into()).start();
    harness.store("replaced", "evt_1", "waits");
    wait_until("the lane says why", || harness.blocked("replaced") == Some("broker_away"));
    let blocked = harness.metrics.forward.blocked.with_label_values(&["replaced", "broker_away"]);
    assert_eq!(blocked.get(), 1);
    harness.stop();
    assert_eq!(blocked.get(), 0);
}

#[test]
fn a_record_that_is_too_large_blocks_its_own_lane_only() {
    let kafka = kafka::shared();
    kafka.create_topic("small", 1, &[("max.message.bytes", "2000")]);
    kafka.create_topic("beside-small", 1, &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut random = fastrand::Rng::with_seed(3);
    let before = harness.store("small", "evt_1", "fits");
    let large = harness.store("small", "evt_2", bytes_of(&mut random, 5000));
    let after = harness.store("small", "evt_3", "fits");
    harness.store_many("beside-small", 50, 10);
    wait_until("the lane says why", || harness.blocked("small") == Some("record"));
    harness.wait_until_acked("beside-small", 50);
    assert_eq!(harness.topic("small").map(|lane| lane.cursor), Some(large), "nothing passes the record");

    kafka.configure_topic("small", &[("max.message.bytes", "1048588")]);
    harness.wait_until_acked("small", 3);
    let mut found = seqs(&kafka.records("small"));
    found.dedup();
    assert_eq!(found, [before, large, after]);
}

#[test]
fn a_topic_that_takes_records_but_not_whole_batches_gets_them_all() {
    let kafka = kafka::shared();
    kafka.create_topic("no-batches", 1, &[("max.message.bytes", "3000")]);
    let harness = Harness::with_kafka(&[("bootstrap.servers", &kafka.bootstrap()), ("linger.ms", "200")]);
    let kept = harness.store_many("no-batches", 40, 1000);
    harness.resume();
    harness.wait_until_acked("no-batches", 40);
    let mut found = seqs(&kafka.records("no-batches"));
    found.dedup();
    assert_eq!(found, kept);
    assert_eq!(harness.metric(r#"hookhold_forward_blocked{reason="record",topic="no-batches"}"#), None, "no record was at fault");
}

#[test]
fn a_stop_and_a_start_continue_at_the_cursor() {
    let kafka = kafka::shared();
    kafka.create_topic("continued", 2, &[]);
    let mut harness = Harness::new(kafka.bootstrap()).start();
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.extend(harness.store_many("continued", 200, 100));
        harness.stop();
        kept.extend(harness.store_many("continued", 200, 100));
        harness = harness.restarted();
        harness.resume();
    }
    kafka.wait_for_records("continued", 1200);
    harness.stop();
    assert_eq!(seqs(&kafka.records("continued")), kept, "a clean stop repeats nothing and skips nothing");
}

#[test]
fn a_lane_that_falls_behind_catches_up_in_order() {
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
    assert_eq!(found, behind, "each once, in order");
    assert_eq!(seqs(&kafka.records("ahead")), ahead);
    for topic in ["behind", "ahead"] {
        wait_until("nothing waits", || harness.topic(topic).is_some_and(|lane| lane.lag_events == 0));
    }
}

/// Its events were counted, and no acknowledgement will ever move its cursor.
#[test]
fn a_lane_whose_last_events_rotted_holds_nothing_back() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let harness = Harness::new(cluster.bootstrap_servers());
    let rotten = harness.store("rotten", "evt_1", "a marker that the disk spoils");
    harness.store_many("filler", 3, 600 << 10);
    let last = harness.store("whole", "evt_2", "fits");
    harness.store("whole", "evt_3", "the newest of all, spoilt as well");
    for topic in ["rotten", "filler", "whole"] {
        cluster.create_topic(topic, 1, 1).expect("a topic");
    }
    harness.corrupt("a marker that the disk spoils");
    harness.corrupt("the newest of all, spoilt as well");
    let cursor = || harness.journal.topic_cursors().into_iter().find(|lane| &*lane.name == "rotten").map(|lane| lane.cursor);
    assert_eq!(cursor(), Some(rotten), "it waits");
    harness.resume();
    harness.wait_until_acked("whole", 1);
    let cursor = || harness.journal.topic_cursors().into_iter().find(|lane| &*lane.name == "rotten").map(|lane| lane.cursor);
    wait_until("the cursor passes what is lost", || cursor() > Some(last));
    assert_eq!(harness.topic("rotten").map(|lane| lane.lag_events), Some(0));
    wait_until("nothing waits", || harness.topic("whole").is_some_and(|lane| lane.lag_events == 0));
}

/// Nobody can read them up, so that they are counted at once or never.
#[test]
fn lag_counts_all_that_waits_from_the_first_moment_on() {
    let harness = Harness::new("localhost:1".into());
    harness.store_many("waiting", 30, 10);
    harness.disk.fail(Step::Read, ".seg", ErrorKind::Other, u64::MAX);
    harness.resume();
    wait_until("the lane is there", || harness.topic("waiting").is_some());
    assert_eq!(harness.metric(r#"hookhold_forward_lag_events{topic="waiting"}"#), Some(30.0));
}

#[test]
fn a_spot_that_cannot_be_read_blocks_whoever_is_fed_from_there_until_it_can() {
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
        wait_until("the lane says why", || harness.blocked(topic) == Some("journal"));
        assert_eq!(blocked(topic), Some(1.0));
    }
    harness.disk.clear_faults();
    harness.wait_until_acked("unreadable", 2);
    for topic in ["unreadable", "behind-it"] {
        wait_until("the lane flows", || harness.blocked(topic).is_none());
        assert_eq!(blocked(topic), Some(0.0));
    }
}

/// The mock cluster inside librdkafka, because a real broker cannot be made to send this error.
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
