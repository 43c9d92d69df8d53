//! Causes every fault in running gateways at the same time, and waits until the alerts fire and clear. Each gateway has its own fault,
//! and one gateway has none.

use std::collections::BTreeSet;
use std::thread;

use crate::dashboard;
use crate::fixture::stop;
use crate::gateways::{self, Sender, home, load};
use crate::https::Pair;
use crate::journal_faults::{self, volume};
use crate::kafka::Kafka;
use crate::kafka_faults;
use crate::preload::preload;
use crate::process::{Home, wait_until};
use crate::prometheus::Prometheus;
use crate::rules::{PROOFS, Proof};
use crate::source_faults;

/// The gateways, by the name of their fault.
pub struct Gateways {
    pub healthy: Home,
    pub partitions: Home,
    pub blocked: Home,
    pub parked: Home,
    pub clock: Home,
    pub damaged: Home,
    pub slow: Home,
    pub volume: Home,
    pub process: Home,
    pub tls: Home,
    pub sources: Home,
}

/// The brokers: a cluster of two that end, and one that runs all the time.
pub struct Brokers {
    pub first: Kafka,
    pub second: Kafka,
    pub steady: Kafka,
}

#[test]
fn every_alert_fires_and_clears_and_every_panel_has_data() {
    let brokers = start_brokers();
    let pair = Pair::new(1);
    let gateways = Gateways::new(&brokers, &pair);
    let prometheus = Prometheus::start(&gateways.targets());
    let Gateways { healthy, partitions, blocked, parked, clock, damaged, slow, volume: small, process, tls, sources } = &gateways;
    let (prometheus, Brokers { mut first, second, steady }) = (&prometheus, brokers);
    thread::scope(|scope| {
        let well = healthy.start();
        let steady_load = load(healthy, "healthy", 20);
        let faults = [
            scope.spawn(|| {
                let mut second = second;
                kafka_faults::partition_and_cluster(partitions, &mut first, &mut second, prometheus);
            }),
            scope.spawn(|| kafka_faults::blocked_topic(blocked, &steady, prometheus)),
            scope.spawn(|| kafka_faults::parked_events(parked, &steady, prometheus)),
            scope.spawn(|| journal_faults::clock_and_forwarder(clock, prometheus)),
            scope.spawn(|| journal_faults::damage(damaged, prometheus)),
            scope.spawn(|| journal_faults::slow_disk(slow, prometheus)),
            scope.spawn(|| volume(small, prometheus)),
            scope.spawn(|| journal_faults::process(process, prometheus)),
            scope.spawn(|| source_faults::certificate_and_reload(tls, &pair, prometheus)),
            scope.spawn(|| source_faults::sources(sources, prometheus)),
        ];
        Sender::new(healthy, "healthy").forge(1);
        let results = faults.map(thread::ScopedJoinHandle::join);
        let failed = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(failed, 0, "faults whose alerts did not fire and clear; see above");
        let [bytes, limit] =
            ["hookhold_journal_bytes", "hookhold_journal_limit_bytes"].map(|name| well.metric(name).expect("a gauge"));
        assert!(bytes / limit > 0.9, "the healthy journal is full of events that it retains: {bytes} of {limit}");
        steady_load.stop().assert_no_sender_noticed();
        stop(well);
    });
    let mut false_alarms = prometheus.query_range("ALERTS{instance=\"healthy\", alertstate=\"firing\"}").expect("an answer");
    false_alarms.extend(prometheus.query_range("ALERTS{source=\"healthy\", alertstate=\"firing\"}").expect("an answer"));
    false_alarms.retain(|series| {
        let name = series["metric"]["alertname"].as_str().unwrap_or_default();
        !DEPEND_ON_THE_MACHINE.contains(&name)
    });
    assert_eq!(false_alarms, Vec::<serde_json::Value>::new(), "a healthy gateway fires nothing");
    let proved: BTreeSet<&str> = prometheus.proved().into_iter().collect();
    let real: BTreeSet<&str> = PROOFS.iter().filter(|(_, proof)| *proof == Proof::Real).map(|(name, _)| *name).collect();
    assert_eq!(proved, real, "alerts that have fired and cleared, and those that must");
    dashboard::assert_each_query_returns_data(prometheus);
}

fn start_brokers() -> Brokers {
    let steady = thread::spawn(Kafka::start);
    let first = Kafka::start();
    let second = first.join();
    first.create_topic_across(&[&[1], &[2]], "half", &[]);
    let steady = steady.join().expect("the broker starts");
    steady.create_topic("healthy", 1, &[]);
    steady.create_topic("clock", 1, &[]);
    steady.create_topic("narrow", 1, &[("max.message.bytes", "200")]);
    Brokers { first, second, steady }
}

impl Gateways {
    fn new(brokers: &Brokers, pair: &Pair) -> Gateways {
        let Brokers { first, steady, .. } = brokers;
        let mut clock = home(&[("clock", "clock")], Some(steady), "");
        preload(&mut clock);
        let small = |text: String| text.replace("journal.segment_size = \"8 MiB\"", "journal.segment_size = \"64 KiB\"");
        let healthy = small(gateways::config(&[("healthy", "healthy")], Some(steady)));
        let healthy = Home::new(
            &[("secret", gateways::SECRET)],
            &format!("server.max_body = \"256 KiB\"\njournal.max_size = \"1 MiB\"\n{healthy}"),
        );
        let dead_letter = "[kafka.dead_letter]\ntopic = \"letters\"\n[sources.";
        let parked = gateways::config(&[("parked", "narrow")], Some(steady)).replacen("[sources.", dead_letter, 1);
        Gateways {
            healthy,
            partitions: home(&[("half", "half")], Some(first), ""),
            blocked: home(
                &[("blocked", "missing")],
                Some(steady),
                "server.max_body = \"256 KiB\"\njournal.max_backlog = \"1 MiB\"\n",
            ),
            parked: Home::new(&[("secret", gateways::SECRET)], &parked),
            clock,
            damaged: home(&[("damaged", "damaged")], Some(&Kafka::absent()), ""),
            slow: home(&[("slow", "slow")], None, ""),
            volume: home(&[("volume", "volume")], None, "journal.max_size = \"200 TiB\"\n"),
            process: home(&[("process", "process")], None, ""),
            tls: home(&[("tls", "tls")], None, &pair.config()),
            sources: source_faults::home(),
        }
    }

    fn targets(&self) -> Vec<(&'static str, std::net::SocketAddr)> {
        let targets = [
            ("healthy", &self.healthy),
            ("partitions", &self.partitions),
            ("blocked", &self.blocked),
            ("parked", &self.parked),
            ("clock", &self.clock),
            ("damaged", &self.damaged),
            ("slow", &self.slow),
            ("volume", &self.volume),
            ("process", &self.process),
            ("tls", &self.tls),
            ("sources", &self.sources),
        ];
        targets.map(|(name, home)| (name, home.admin)).into()
    }
}

/// Waits until Prometheus has scraped the process of this instance, after a start at which `before` was its start time.
pub fn wait_until_scraped(prometheus: &Prometheus, instance: &str) {
    let query = format!("up{{instance=\"{instance}\"}} == 1");
    wait_until(&format!("{instance} is scraped"), || prometheus.query(&query).is_some_and(|found| !found.is_empty()));
}

/// Alerts that may fire for the healthy gateway: Prometheus scrapes it before its start and after its end, and the times of the rules
/// are so short here that a busy machine looks like a slow disk or a slow Kafka.
const DEPEND_ON_THE_MACHINE: &[&str] =
    &["HookholdDown", "HookholdJournalSyncSlow", "HookholdForwardingLag", "HookholdForwarderStalled"];
