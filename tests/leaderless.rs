//! Tests of topics of which a partition has no leader. The topic's other partitions must continue, and the events that wait must
//! arrive once and in order when the partition has a leader again.

#[path = "common/disk.rs"]
mod disk;
#[path = "common/harness.rs"]
mod harness;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/shop.rs"]
#[allow(dead_code, reason = "one of several users")]
mod shop;
#[path = "verify/support.rs"]
#[allow(dead_code, reason = "one of several users")]
mod support;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use harness::Harness;
use hookhold::admin::AdminQueries;
use hookhold::forward::{self, Settings, partition};
use hookhold::service::forward_settings;
use kafka::{Kafka, Record, wait_until};
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use shop::Shop;

/// Starts two brokers, and creates a topic with a partition on each of them. Partition 1 loses its leader if the second broker ends.
fn two_brokers(topic: &str, config: &[(&str, &str)]) -> (Kafka, Kafka) {
    let first = Kafka::start();
    let second = first.join();
    first.create_topic_across(&[&[1], &[2]], topic, config);
    (first, second)
}

/// Returns the partition of a key in a topic with two partitions.
fn half_of(key: &str) -> u32 {
    partition(key.as_bytes(), NonZeroU32::new(2).expect("not zero"))
}

/// Returns how many of the events that one call of [`Harness::store_many`] stores belong to partition 0.
fn of_first(count: usize) -> u64 {
    (0..count).filter(|number| half_of(&format!("evt_{number}")) == 0).count() as u64
}

/// Waits until hookhold has found that partition 1 has no leader, and only the events of this partition wait: `waiting` events.
fn wait_until_left_behind(harness: &Harness, topic: &str, waiting: u64) {
    wait_until("a probe has found the partition", || leaderless(harness, topic) == Some(1.0));
    let lag = || harness.topic(topic).map(|topic| topic.lag_events);
    wait_until(&format!("only {waiting} events of {topic} wait"), || lag() == Some(waiting));
    assert_eq!(harness.blocked(topic), None);
}

fn leaderless(harness: &Harness, topic: &str) -> Option<f64> {
    harness.metric(&format!("hookhold_forward_leaderless_partitions{{topic=\"{topic}\"}}"))
}

/// Asserts that each partition has its records in the order of their sequences, apart from duplicates, and that no event of `stored` is
/// missing. Returns the number of duplicates in each of the two partitions.
fn assert_complete_and_in_order(records: &[Record], stored: &[u64]) -> [usize; 2] {
    let mut all = BTreeSet::<u64>::new();
    let duplicates = [0, 1].map(|partition| {
        let of_partition = records.iter().filter(|record| record.partition == partition);
        let (mut seen, mut found) = (BTreeSet::new(), 0);
        for seq in of_partition.map(Record::seq) {
            found += 1;
            let is_new = seen.insert(seq);
            assert!(!is_new || seen.last() == Some(&seq), "event {seq} is late in partition {partition}");
        }
        assert!(!seen.is_empty());
        all.extend(&seen);
        found - seen.len()
    });
    assert_eq!(all.into_iter().collect::<Vec<_>>(), stored, "each event has arrived");
    duplicates
}

#[test]
fn a_partition_without_a_leader_does_not_hold_the_others() {
    let (kafka, mut second) = two_brokers("half", &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut stored = harness.store_many("half", 100, 10);
    harness.wait_until_acked("half", 100);
    second.kill();
    for _ in 0..20 {
        stored.extend(harness.store_many("half", 1500, 10));
    }
    let with_leader = 20 * of_first(1500);
    assert!(with_leader > 11_000, "more than may be in flight");
    wait_until_left_behind(&harness, "half", 30_000 - with_leader);
    harness.wait_until_acked("half", 100 + with_leader);
    let topic = harness.topic("half").expect("the topic has a queue");
    let first = (0..1500).find(|number| half_of(&format!("evt_{number}")) == 1).expect("an event of partition 1");
    assert_eq!((topic.cursor, topic.lag_events), (stored[100 + first], 30_000 - with_leader), "the cursor stays");
    let details = harness.service.readiness().kafka.details;
    let [line] = &details[..] else { panic!("expected one line, found {details:?}") };
    assert!(line.starts_with("half: no_leader for ") && line.contains("partition 1: expected a leader, found none"), "{line}");

    second.restart();
    harness.wait_until_acked("half", 30_100);
    wait_until("the partition has a leader", || leaderless(&harness, "half") == Some(0.0));
    wait_until("nothing waits", || {
        harness.topic("half").is_some_and(|topic| topic.lag_events == 0 && topic.cursor > stored[30_099])
    });
    assert_eq!(harness.service.readiness().kafka.details, Vec::<String>::new());
    assert_eq!(assert_complete_and_in_order(&kafka.records("half"), &stored), [0, 0], "each event has arrived once");
}

#[test]
fn a_crash_while_a_partition_has_no_leader_loses_nothing() {
    let (kafka, mut second) = two_brokers("crashed", &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    let mut stored = harness.store_many("crashed", 100, 10);
    harness.wait_until_acked("crashed", 100);
    second.kill();
    stored.extend(harness.store_many("crashed", 2000, 10));
    let acked = of_first(2000);
    wait_until_left_behind(&harness, "crashed", 2000 - acked);
    stored.extend(harness.store_many("crashed", 2000, 10));
    harness.wait_until_acked("crashed", 100 + 2 * acked);

    let harness = harness.killed().start();
    stored.extend(harness.store_many("crashed", 500, 10));
    wait_until_left_behind(&harness, "crashed", 4500 - 2 * acked - of_first(500));
    second.restart();
    wait_until("nothing waits", || harness.topic("crashed").is_some_and(|topic| topic.lag_events == 0));
    let duplicates = assert_complete_and_in_order(&kafka.records("crashed"), &stored);
    println!("{duplicates:?} duplicates after a crash with {} events ahead of the cursor", 2 * acked);
    assert!(duplicates[0] as u64 <= 100 + 2 * acked && duplicates[1] <= 100, "{duplicates:?}");
}

/// A recall waits for the reports of all records in flight. Those of a partition without a leader must not hold it up.
#[test]
fn a_rejected_record_is_parked_while_a_partition_has_no_leader() {
    let (kafka, mut second) = two_brokers("narrow-half", &[("max.message.bytes", "20000")]);
    let settings = [("bootstrap.servers", &*kafka.bootstrap()), ("compression.type", "none"), ("batch.size", "10000")];
    let harness = Harness::with_kafka(&settings).start();
    let mut stored = harness.store_many("narrow-half", 10, 10);
    harness.wait_until_acked("narrow-half", 10);
    second.kill();
    stored.extend(harness.store_many("narrow-half", 100, 10));
    wait_until_left_behind(&harness, "narrow-half", 100 - of_first(100));
    let large = (0..).map(|number| format!("large_{number}")).find(|id| half_of(id) == 0).expect("an id");
    harness.store("narrow-half", &large, vec![b'x'; 30_000]);
    stored.extend(harness.store_many("narrow-half", 100, 10));
    let parked = r#"hookhold_parked_total{reason="too_large",topic="narrow-half"}"#;
    wait_until("the event is parked", || harness.metric(parked) == Some(1.0));
    wait_until_left_behind(&harness, "narrow-half", 2 * (100 - of_first(100)));

    second.restart();
    harness.wait_until_acked("narrow-half", 210);
    wait_until("nothing waits", || harness.topic("narrow-half").is_some_and(|topic| topic.lag_events == 0));
    assert_eq!(assert_complete_and_in_order(&kafka.records("narrow-half"), &stored), [0, 0]);
    assert_eq!(harness.metric(parked), Some(1.0), "the event is parked once");
}

/// A producer that fails permanently also drops the records that it held for a partition without a leader.
#[test]
fn another_producer_sends_the_records_that_the_former_one_held() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("again", 2, 1).expect("a topic");
    // The mock cluster crashes if it gets a record for a partition that has lost its leader.
    cluster.partition_leader("again", 1, None).expect("the topic has two partitions");
    let harness = Harness::new(cluster.bootstrap_servers()).start();
    let mut stored = harness.store_many("again", 200, 10);
    wait_until_left_behind(&harness, "again", 200 - of_first(200));
    stored.extend(harness.store_many("again", 200, 10));
    wait_until_left_behind(&harness, "again", 2 * (200 - of_first(200)));
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    stored.extend(harness.store_many("again", 100, 10));
    let rebuilt = r#"hookhold_producer_rebuilds_total{reason="sequence"}"#;
    wait_until("the producer is replaced", || harness.metric(rebuilt) == Some(1.0));
    cluster.partition_leader("again", 1, Some(1)).expect("the cluster has one broker");
    wait_until("nothing waits", || harness.topic("again").is_some_and(|topic| topic.lag_events == 0));
    let duplicates = assert_complete_and_in_order(&kafka::records_at(&cluster.bootstrap_servers(), "again"), &stored);
    assert!(duplicates.into_iter().sum::<usize>() <= 100, "only the records in flight: {duplicates:?}");
}

/// The partitions of the other topic have leaders, so the queue must forget what it knows about those of the former topic.
#[test]
fn rerouted_events_do_not_wait_for_a_leader_of_the_former_topic() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    for topic in ["former", "other"] {
        cluster.create_topic(topic, 2, 1).expect("a topic");
    }
    cluster.partition_leader("former", 1, None).expect("the topic has two partitions");
    let harness = Harness::new(cluster.bootstrap_servers());
    let stored = harness.store_many("former", 200, 10);
    let settings = forward_settings(harness.config()).expect("[kafka] is configured");
    let (journal, metrics, clock) = (harness.journal.clone(), harness.metrics.clone(), Arc::new(harness.clock.clone()));
    let panicked = || panic!("the forwarder panicked");
    let forwarder =
        forward::start(journal, settings.clone(), metrics, clock, Box::new(panicked), None).expect("a thread can be started");
    wait_until("a probe has found the partition", || leaderless(&harness, "former") == Some(1.0));
    harness.wait_until_acked("former", of_first(200));
    forwarder.reconfigure(Settings { reroute: HashMap::from([("former".into(), "other".into())]), ..settings });
    harness.wait_until_acked("former", 200);
    assert_eq!(leaderless(&harness, "former"), Some(0.0));
    forwarder.stop(Duration::ZERO);
    cluster.partition_leader("former", 1, Some(1)).expect("the cluster has one broker");
    let seqs = |topic| kafka::records_at(&cluster.bootstrap_servers(), topic).iter().map(Record::seq).collect::<BTreeSet<_>>();
    let (former, other) = (seqs("former"), seqs("other"));
    assert!(former.len() as u64 == of_first(200) && former.is_disjoint(&other), "no event is in both topics");
    assert_eq!(former.union(&other).copied().collect::<Vec<_>>(), stored);
}

#[test]
fn a_record_lands_in_the_computed_partition() {
    let kafka = kafka::shared();
    kafka.create_topic("computed", 7, &[]);
    let harness = Harness::new(kafka.bootstrap()).start();
    harness.store_many("computed", 500, 10);
    let shop = Shop::new("computed");
    for key in ["", "customer-7"] {
        harness.append(shop.event(Some("evt_of_a_customer"), Some("order.paid"), "", &[("x-shop-customer", key)]));
    }
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", kafka.bootstrap()).set("partitioner", "murmur2_random");
    let producer: BaseProducer = settings.create().expect("the settings are valid");
    let mut random = fastrand::Rng::with_seed(7);
    let mut keys: Vec<Vec<u8>> = ["", "\0", "\u{e9}", "\u{65e5}\u{672c}\u{8a9e}", "\u{1f980}"].map(|key| key.into()).to_vec();
    keys.extend((0..500).map(|_| (0..random.usize(..40)).map(|_| random.u8(..)).collect()));
    for key in &keys {
        producer.send(BaseRecord::to("computed").key(&key[..]).payload("")).expect("the queue has room");
    }
    producer.flush(Duration::from_secs(60)).expect("the broker answers");
    let records = kafka.wait_for_records("computed", 502 + keys.len());
    let seven = NonZeroU32::new(7).expect("not zero");
    for record in &records {
        let key = record.key.as_deref().unwrap_or_default();
        assert_eq!(record.partition as u32, partition(key, seven), "{key:?}");
    }
    let used: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
    assert_eq!((records.len(), used.len()), (502 + keys.len(), 7));
}
