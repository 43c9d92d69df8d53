//! Faults of Kafka: a partition without a leader, a cluster that is down, a missing topic, and a record that is too large.

use crate::fixture::stop;
use crate::gateways::{Sender, load};
use crate::kafka::Kafka;
use crate::process::Home;
use crate::prometheus::Prometheus;

/// Ends the second broker, which leads one of the two partitions, and later the first broker.
pub fn partition_and_cluster(home: &Home, first: &mut Kafka, second: &mut Kafka, prometheus: &Prometheus) {
    let process = home.start();
    let sending = load(home, "half", 20);
    sending.wait_until_accepted(20);
    second.kill();
    let (topic, instance) = ([("instance", "partitions"), ("topic", "half")], [("instance", "partitions")]);
    prometheus.wait_until_fires("HookholdPartitionLeaderless", &topic);
    prometheus.wait_until_fires("HookholdForwardingLag", &topic);
    second.restart();
    prometheus.wait_until_clears("HookholdPartitionLeaderless", &topic);
    prometheus.wait_until_clears("HookholdForwardingLag", &topic);
    second.kill();
    first.kill();
    prometheus.wait_until_fires("HookholdKafkaUnreachable", &instance);
    first.restart();
    prometheus.wait_until_clears("HookholdKafkaUnreachable", &instance);
    sending.stop().assert_no_sender_noticed();
    stop(process);
}

/// The topic does not exist, so its backlog fills up.
pub fn blocked_topic(home: &Home, kafka: &Kafka, prometheus: &Prometheus) {
    let process = home.start();
    let sending = load(home, "blocked", 20);
    let topic = [("instance", "blocked"), ("topic", "missing")];
    let severity = |severity| [("instance", "blocked"), ("topic", "missing"), ("severity", severity)];
    let unavailable = [("instance", "blocked"), ("source", "blocked"), ("outcome", "journal_full")];
    prometheus.wait_until_fires("HookholdTopicBlocked", &topic);
    prometheus.wait_until_fires("HookholdBacklogFilling", &severity("critical"));
    prometheus.wait_until_fires("HookholdBacklogFilling", &severity("warning"));
    prometheus.wait_until_fires("HookholdAnswers503", &unavailable);
    kafka.create_topic("missing", 1, &[]);
    prometheus.wait_until_clears("HookholdTopicBlocked", &topic);
    prometheus.wait_until_clears("HookholdBacklogFilling", &severity("critical"));
    prometheus.wait_until_clears("HookholdBacklogFilling", &severity("warning"));
    prometheus.wait_until_clears("HookholdAnswers503", &unavailable);
    drop(sending.stop());
    stop(process);
}

/// Kafka rejects the events, and the dead-letter topic does not exist.
pub fn parked_events(home: &Home, kafka: &Kafka, prometheus: &Prometheus) {
    let process = home.start();
    Sender::new(home, "parked").send(3);
    let (instance, letters) = ([("instance", "parked")], [("instance", "parked"), ("topic", "letters")]);
    prometheus.wait_until_fires("HookholdParkedEvents", &instance);
    prometheus.wait_until_fires("HookholdDeadLettersBlocked", &letters);
    kafka.create_topic("letters", 1, &[]);
    prometheus.wait_until_clears("HookholdDeadLettersBlocked", &letters);
    prometheus.wait_until_clears("HookholdParkedEvents", &instance);
    // An increase needs two scrapes of the counter, which appears with the first copy.
    prometheus.wait_until_found("increase(hookhold_dead_letters_total[10m])");
    stop(process);
}
