//! A gateway with two sources: one whose topic gets a fault, and one whose topic must not be affected.

use crate::fixture::{self, kafka_health};
use crate::kafka::Kafka;
use crate::load::{Ledger, Load, Order};
use crate::process::{Home, Process, wait_until};

/// Name of a source, and name of its Kafka topic.
pub type SourceTopic = (&'static str, &'static str);

/// A running gateway with two sources: `faulty`, whose topic gets a fault, and `healthy`.
pub struct Case<'a> {
    pub home: &'a Home,
    pub process: &'a Process<'a>,
    pub faulty: &'static str,
    pub healthy: &'static str,
}

impl Case<'_> {
    /// Sends deliveries to a source until hookhold has accepted `count`, and returns their ledger. Their ids contain `name`.
    pub fn deliver(&self, source: &str, name: &str, count: u64) -> Ledger {
        self.deliver_more(source, Ledger::new(name), count)
    }

    /// Like [`Case::deliver`], with the ledger of earlier deliveries.
    pub fn deliver_more(&self, source: &str, ledger: Ledger, count: u64) -> Ledger {
        let load = Load::start(Order { connections: 8, ..fixture::order(self.home, source) }, ledger);
        load.wait_until_accepted(count);
        let ledger = load.stop();
        ledger.assert_no_sender_noticed();
        ledger
    }

    /// Waits until the metric and `/readyz` name the reason for the block of the faulty topic.
    pub fn wait_until_blocked(&self, reason: &str) {
        let (topic, metric) = (self.faulty, blocked(self.faulty, reason));
        wait_until(&format!("{topic} is blocked: {reason}"), || self.process.metric(&metric) == Some(1.0));
        let health = kafka_health(self.home);
        let is_named =
            |detail: &serde_json::Value| detail.as_str().is_some_and(|text| text.starts_with(&format!("{topic}: {reason} ")));
        assert!(
            health["state"] == "degraded" && health["details"].as_array().is_some_and(|all| all.iter().any(is_named)),
            "{health}"
        );
    }

    /// Delivers to the healthy source, and waits until its topic has caught up. Asserts that the faulty topic is still blocked.
    pub fn assert_the_other_topic_flows(&self, reason: &str) -> Ledger {
        let ledger = self.deliver("healthy", self.healthy, COUNT);
        self.wait_until_caught_up(self.healthy);
        let (faulty, healthy) = (self.lag(self.faulty), self.lag(self.healthy));
        println!("{}: {reason}, lag {faulty}; {}: lag {healthy}", self.faulty, self.healthy);
        assert!(faulty > 0.0 && healthy == 0.0 && self.acknowledged(self.healthy) > 0.0);
        assert_eq!(self.process.metric(&blocked(self.faulty, reason)), Some(1.0));
        ledger
    }

    /// Waits until the faulty topic is not blocked any more and has caught up.
    pub fn wait_until_freed(&self, reason: &str) {
        self.wait_until_caught_up(self.faulty);
        wait_until("no topic is blocked", || kafka_health(self.home)["state"] == "ok");
        assert!(self.process.metric(&blocked(self.faulty, reason)).is_none_or(|blocked| blocked == 0.0));
        println!("{} is free: lag {}", self.faulty, self.lag(self.faulty));
    }

    /// Waits until Kafka has acknowledged each event of a topic.
    pub fn wait_until_caught_up(&self, topic: &str) {
        fixture::wait_until_forwarded(self.process, topic);
    }

    /// Returns the number of events of a topic that Kafka has not acknowledged.
    pub fn lag(&self, topic: &str) -> f64 {
        self.process.metric(&format!("hookhold_forward_lag_events{{topic={topic:?}}}")).expect("the topic has had events")
    }

    /// Returns the number of events of a topic that Kafka has acknowledged.
    pub fn acknowledged(&self, topic: &str) -> f64 {
        self.process.metric(&format!("hookhold_forward_acked_total{{topic={topic:?}}}")).unwrap_or_default()
    }
}

/// Asserts that Kafka has each accepted delivery of the ledger, and prints the number of copies.
pub fn audited(home: &Home, ledger: &Ledger, kafka: &Kafka, topic: &str) {
    let copies = fixture::audit(home, ledger, kafka, topic);
    println!("{topic}: {} deliveries accepted, none is missing in Kafka, {copies} copies", ledger.accepted().count());
}

/// Returns the sources of a [`Case`] with these topics.
pub fn sources(faulty: &'static str, healthy: &'static str) -> [SourceTopic; 2] {
    [("faulty", faulty), ("healthy", healthy)]
}

/// Returns the metric that is 1 while a topic is blocked for this reason.
pub fn blocked(topic: &str, reason: &str) -> String {
    format!("hookhold_forward_blocked{{reason={reason:?},topic={topic:?}}}")
}

/// Returns a configuration with these sources and these brokers. hookhold notices a missing topic sooner than by default.
pub fn config(sources: &[SourceTopic], bootstrap: &str) -> String {
    fixture::config(sources, Some(bootstrap)).replace("[kafka]\n", "[kafka]\n\"topic.metadata.propagation.max.ms\" = 1000\n")
}

/// Name and text of the file with the secret of both sources.
pub const SECRET: (&str, &str) = ("secret", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0");
/// Number of deliveries in each step.
pub const COUNT: u64 = 100;
