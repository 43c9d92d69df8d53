//! The promises of passing on, against a real Apache Kafka: nothing is missing, what arrives is exactly as described, and
//! trouble with one topic stays with that topic.

#[path = "common/disk.rs"]
mod disk;
#[path = "common/house.rs"]
mod house;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "verify/support.rs"]
#[allow(dead_code, reason = "one of several users")]
mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;

use bytes::Bytes;
use disk::{SimDisk, Step};
use house::{AT, House, Shop};
use kafka::{Kafka, Record, wait_until};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

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
    let house = House::new(kafka.bootstrap()).start();
    let shop = Shop::new("described");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", trace), ("x-shop-customer", "customer-7"), ("authorization", "secret"), ("cookie", "secret")];
    house.append(shop.event(Some("evt_1"), Some("order.paid"), &b"{\"a\":\"\\u00e9\xff\"}\r\n"[..], &headers));
    house.append(shop.event(None, None, Bytes::new(), &[]));

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
    let house = House::new(kafka.bootstrap()).start();
    house.keep_many("large", 1, 25 << 20);
    let records = kafka.wait_for_records("large", 1);
    let mut random = fastrand::Rng::with_seed(house::SEED);
    let value = records[0].value.as_deref().expect("a body");
    assert_eq!(value.len(), 25 << 20);
    assert!(value.iter().all(|byte| *byte == random.u8(..)), "byte for byte");
}

#[test]
fn a_missing_topic_blocks_only_its_own_lane_until_it_is_created() {
    let kafka = kafka::shared();
    kafka.create_topic("present", 1, &[]);
    let house = House::new(kafka.bootstrap()).start();
    let missing = house.keep_many("created-later", 50, 10);
    let present = house.keep_many("present", 50, 10);
    wait_until("the lane says why", || house.blocked("created-later") == Some("topic_missing"));
    assert_eq!(house.metric(r#"hookhold_forward_blocked{reason="topic_missing",topic="created-later"}"#), Some(1.0));
    assert_eq!(house.metric(r#"hookhold_forward_lag_events{topic="created-later"}"#), Some(50.0));
    assert!(house.metric(r#"hookhold_forward_lag_seconds{topic="created-later"}"#).is_some_and(|seconds| seconds >= 0.0));
    house.wait_until_acked("present", 50);
    assert_eq!(seqs(&kafka.records("present")), present);

    kafka.create_topic("created-later", 1, &[]);
    house.wait_until_acked("created-later", 50);
    assert_eq!(house.blocked("created-later"), None);
    assert_eq!(house.metric(r#"hookhold_forward_blocked{reason="topic_missing",topic="created-later"}"#), Some(0.0));
    assert_eq!(house.metric(r#"hookhold_forward_lag_events{topic="created-later"}"#), Some(0.0));
    assert_eq!(seqs(&kafka.records("created-later")), missing, "each once, in order");
}

#[test]
fn nothing_is_missing_after_the_broker_was_killed() {
    let mut kafka = Kafka::start();
    kafka.create_topic("killed", 3, &[]);
    let house = House::new(kafka.bootstrap()).start();
    let mut kept = house.keep_many("killed", 500, 100);
    house.wait_until_acked("killed", 1);
    kafka.kill();
    kept.extend(house.keep_many("killed", 500, 100));
    wait_until("the lane says why", || house.blocked("killed") == Some("broker_away"));
    kafka.restart();
    house.wait_until_acked("killed", 1000);
    assert_eq!(house.blocked("killed"), None);
    let mut found = seqs(&kafka.records("killed"));
    found.dedup();
    assert_eq!(found, kept);
}

#[test]
fn kafka_may_come_later() {
    let mut kafka = Kafka::absent();
    let house = House::new(kafka.bootstrap()).start();
    let kept = house.keep_many("late", 100, 10);
    wait_until("the lane says why", || house.blocked("late") == Some("broker_away"));
    kafka.restart();
    kafka.create_topic("late", 1, &[]);
    house.wait_until_acked("late", 100);
    assert_eq!(seqs(&kafka.records("late")), kept);
}

/// The certificates lie in a directory because an empty one will do.
#[test]
fn a_client_that_cannot_be_set_up_blocks_every_lane_until_it_can() {
    let place = tempfile::tempdir().expect("a directory");
    let certificates = place.path().join("certificates");
    let house = House::new("localhost:1".into()).set("security.protocol", "ssl");
    let mut house = house.set("ssl.ca.location", certificates.to_str().expect("text"));
    house.keep("early", "evt_1", "kept before the first attempt");
    house.resume();
    wait_until("the lane says why", || house.blocked("early") == Some("refused"));
    house.keep("new", "evt_2", "kept afterwards");
    for topic in ["early", "new"] {
        wait_until("the lane says why", || house.blocked(topic) == Some("refused"));
        let blocked = house.lane(topic).and_then(|lane| lane.blocked).expect("still");
        assert!(blocked.detail.contains("ssl.ca.location"), "{}", blocked.detail);
        let series = format!("hookhold_forward_blocked{{reason=\"refused\",topic=\"{topic}\"}}");
        assert_eq!(house.metric(&series), Some(1.0));
        assert_eq!(house.lane(topic).map(|lane| lane.lag_events), Some(1));
        let age = house.metric(&format!("hookhold_forward_lag_seconds{{topic=\"{topic}\"}}"));
        assert!(age.is_some_and(|age| age > 86_400.0), "it arrived years ago: {age:?}");
    }
    std::fs::create_dir(&certificates).expect("a directory");
    for topic in ["early", "new"] {
        wait_until("the client is there and finds no broker", || house.blocked(topic) == Some("broker_away"));
        let series = format!("hookhold_forward_blocked{{reason=\"refused\",topic=\"{topic}\"}}");
        assert_eq!(house.metric(&series), Some(0.0));
    }
}

#[test]
fn a_topic_that_may_not_be_written_to_blocks_only_its_own_lane_until_it_may() {
    let kafka = kafka::shared();
    for topic in ["forbidden", "beside-forbidden"] {
        kafka.create_topic(topic, 1, &[]);
    }
    let house = House::new(kafka.bootstrap()).start();
    let mut kept = vec![house.keep("forbidden", "evt_0", "still allowed")];
    house.wait_until_acked("forbidden", 1);
    kafka.forbid_writing("forbidden");
    kept.extend(house.keep_many("forbidden", 20, 10));
    let beside = house.keep_many("beside-forbidden", 50, 10);
    wait_until("the lane says why", || house.blocked("forbidden") == Some("not_authorized"));
    house.wait_until_acked("beside-forbidden", 50);
    assert_eq!(seqs(&kafka.records("beside-forbidden")), beside);
    let blocked = r#"hookhold_forward_blocked{reason="not_authorized",topic="forbidden"}"#;
    assert_eq!(house.metric(blocked), Some(1.0));
    assert_eq!(house.lane("forbidden").map(|lane| (lane.cursor, lane.lag_events)), Some((kept[1], 20)), "nothing passes");

    kafka.allow_writing("forbidden");
    house.wait_until_acked("forbidden", 21);
    assert_eq!(house.blocked("forbidden"), None);
    assert_eq!(house.metric(blocked), Some(0.0));
    assert_eq!(order(&kafka.records("forbidden")), kept);
}

#[test]
fn a_topic_below_its_min_isr_blocks_only_its_own_lane_until_the_replica_is_back() {
    let kafka = Kafka::start();
    let mut second = kafka.join();
    kafka.create_topic_on(&[1, 2], "thin", &[("min.insync.replicas", "2")]);
    kafka.create_topic_on(&[1], "beside-thin", &[]);
    let house = House::new(kafka.bootstrap()).start();
    let mut kept = house.keep_many("thin", 20, 10);
    house.wait_until_acked("thin", 20);
    second.kill();
    kept.extend(house.keep_many("thin", 20, 10));
    let beside = house.keep_many("beside-thin", 50, 10);
    wait_until("the lane says why", || house.blocked("thin") == Some("below_min_isr"));
    house.wait_until_acked("beside-thin", 50);
    assert_eq!(seqs(&kafka.records("beside-thin")), beside);
    let blocked = r#"hookhold_forward_blocked{reason="below_min_isr",topic="thin"}"#;
    assert_eq!(house.metric(blocked), Some(1.0));
    assert_eq!(house.lane("thin").map(|lane| (lane.cursor, lane.lag_events)), Some((kept[20], 20)), "nothing passes");

    second.restart();
    house.wait_until_acked("thin", 40);
    assert_eq!(house.blocked("thin"), None);
    assert_eq!(house.metric(blocked), Some(0.0));
    assert_eq!(order(&kafka.records("thin")), kept);
}

/// A reload that changes `[kafka]` replaces the forwarder, and the metrics stay.
#[test]
fn a_forwarder_that_is_replaced_leaves_no_block_behind() {
    let mut house = House::new("localhost:1".into()).start();
    house.keep("replaced", "evt_1", "waits");
    wait_until("the lane says why", || house.blocked("replaced") == Some("broker_away"));
    let blocked = house.metrics.forward_blocked.with_label_values(&["replaced", "broker_away"]);
    assert_eq!(blocked.get(), 1);
    house.stop();
    assert_eq!(blocked.get(), 0);
}

#[test]
fn a_record_that_is_too_large_blocks_its_own_lane_only() {
    let kafka = kafka::shared();
    kafka.create_topic("small", 1, &[("max.message.bytes", "2000")]);
    kafka.create_topic("beside-small", 1, &[]);
    let house = House::new(kafka.bootstrap()).start();
    let mut random = fastrand::Rng::with_seed(3);
    let before = house.keep("small", "evt_1", "fits");
    let large = house.keep("small", "evt_2", bytes_of(&mut random, 5000));
    let after = house.keep("small", "evt_3", "fits");
    house.keep_many("beside-small", 50, 10);
    wait_until("the lane says why", || house.blocked("small") == Some("record"));
    house.wait_until_acked("beside-small", 50);
    assert_eq!(house.lane("small").map(|lane| lane.cursor), Some(large), "nothing passes the record");

    kafka.configure_topic("small", &[("max.message.bytes", "1048588")]);
    house.wait_until_acked("small", 3);
    let mut found = seqs(&kafka.records("small"));
    found.dedup();
    assert_eq!(found, [before, large, after]);
}

#[test]
fn a_topic_that_takes_records_but_not_whole_batches_gets_them_all() {
    let kafka = kafka::shared();
    kafka.create_topic("no-batches", 1, &[("max.message.bytes", "3000")]);
    let mut house = House::new(kafka.bootstrap()).set("linger.ms", "200");
    let kept = house.keep_many("no-batches", 40, 1000);
    house.resume();
    house.wait_until_acked("no-batches", 40);
    let mut found = seqs(&kafka.records("no-batches"));
    found.dedup();
    assert_eq!(found, kept);
    assert_eq!(house.metric(r#"hookhold_forward_blocked{reason="record",topic="no-batches"}"#), None, "no record was at fault");
}

#[test]
fn a_stop_and_a_start_continue_at_the_cursor() {
    let kafka = kafka::shared();
    kafka.create_topic("continued", 2, &[]);
    let mut house = House::new(kafka.bootstrap()).start();
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.extend(house.keep_many("continued", 200, 100));
        house.stop();
        kept.extend(house.keep_many("continued", 200, 100));
        house.reopen();
        house.resume();
    }
    kafka.wait_for_records("continued", 1200);
    house.stop();
    assert_eq!(seqs(&kafka.records("continued")), kept, "a clean stop repeats nothing and skips nothing");
}

#[test]
fn a_lane_that_falls_behind_catches_up_in_order() {
    let kafka = kafka::shared();
    kafka.create_topic("behind", 1, &[]);
    kafka.create_topic("ahead", 1, &[]);
    let mut house = House::new(kafka.bootstrap());
    let mut behind = Vec::new();
    let mut ahead = Vec::new();
    for _ in 0..20 {
        behind.extend(house.keep_many("behind", 1500, 10));
        ahead.extend(house.keep_many("ahead", 5, 10));
    }
    house.resume();
    house.wait_until_acked("behind", 30_000);
    house.wait_until_acked("ahead", 100);
    let found: Vec<u64> = kafka.records("behind").iter().map(Record::seq).collect();
    assert_eq!(found, behind, "each once, in order");
    assert_eq!(seqs(&kafka.records("ahead")), ahead);
    for topic in ["behind", "ahead"] {
        wait_until("nothing waits", || house.lane(topic).is_some_and(|lane| lane.lag_events == 0));
    }
}

/// Its events were counted, and no acknowledgement will ever move its cursor.
#[test]
fn a_lane_whose_last_events_rotted_holds_nothing_back() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let mut house = House::new(cluster.bootstrap_servers());
    let rotten = house.keep("rotten", "evt_1", "a marker that the disk spoils");
    house.keep_many("filler", 3, 600 << 10);
    let last = house.keep("whole", "evt_2", "fits");
    house.keep("whole", "evt_3", "the newest of all, spoilt as well");
    for topic in ["rotten", "filler", "whole"] {
        cluster.create_topic(topic, 1, 1).expect("a topic");
    }
    house.rot("a marker that the disk spoils");
    house.rot("the newest of all, spoilt as well");
    let cursor = || house.journal.lanes().into_iter().find(|lane| &*lane.name == "rotten").map(|lane| lane.cursor);
    assert_eq!(cursor(), Some(rotten), "it waits");
    house.resume();
    house.wait_until_acked("whole", 1);
    let cursor = || house.journal.lanes().into_iter().find(|lane| &*lane.name == "rotten").map(|lane| lane.cursor);
    wait_until("the cursor passes what is lost", || cursor() > Some(last));
    assert_eq!(house.lane("rotten").map(|lane| lane.lag_events), Some(0));
    wait_until("nothing waits", || house.lane("whole").is_some_and(|lane| lane.lag_events == 0));
}

/// Nobody can read them up, so that they are counted at once or never.
#[test]
fn lag_counts_all_that_waits_from_the_first_moment_on() {
    let disk = SimDisk::default();
    let mut house = House::on(disk.start(), "localhost:1".into());
    house.keep_many("waiting", 30, 10);
    disk.fail(Step::Read, ".seg", ErrorKind::Other, u64::MAX);
    house.resume();
    wait_until("the lane is there", || house.lane("waiting").is_some());
    assert_eq!(house.metric(r#"hookhold_forward_lag_events{topic="waiting"}"#), Some(30.0));
}

#[test]
fn a_spot_that_cannot_be_read_blocks_whoever_is_fed_from_there_until_it_can() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let disk = SimDisk::default();
    let house = House::on(disk.start(), cluster.bootstrap_servers()).start();
    for topic in ["unreadable", "behind-it"] {
        cluster.create_topic(topic, 1, 1).expect("a topic");
        house.keep(topic, "evt_1", "can be read");
        house.wait_until_acked(topic, 1);
    }
    let blocked = |topic| house.metric(&format!("hookhold_forward_blocked{{reason=\"journal\",topic=\"{topic}\"}}"));
    disk.fail(Step::Read, ".seg", ErrorKind::Other, u64::MAX);
    house.keep("unreadable", "evt_2", "cannot be read yet");
    for topic in ["unreadable", "behind-it"] {
        wait_until("the lane says why", || house.blocked(topic) == Some("journal"));
        assert_eq!(blocked(topic), Some(1.0));
    }
    disk.mend();
    house.wait_until_acked("unreadable", 2);
    for topic in ["unreadable", "behind-it"] {
        wait_until("the lane flows", || house.blocked(topic).is_none());
        assert_eq!(blocked(topic), Some(0.0));
    }
}

/// The mock cluster inside librdkafka, because a real broker cannot be made to send this error.
#[test]
fn a_fatal_error_replaces_the_producer_and_loses_nothing() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("fatal", 1, 1).expect("a topic");
    let house = House::new(cluster.bootstrap_servers()).start();
    house.keep_many("fatal", 100, 10);
    house.wait_until_acked("fatal", 100);
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    house.keep_many("fatal", 100, 10);
    house.wait_until_acked("fatal", 200);
    assert_eq!(house.metric(r#"hookhold_producer_rebuilds_total{reason="sequence"}"#), Some(1.0));
    let mut found = seqs(&kafka::records_at(&cluster.bootstrap_servers(), "fatal"));
    found.dedup();
    assert_eq!(found, (0..200).collect::<Vec<u64>>());
}
