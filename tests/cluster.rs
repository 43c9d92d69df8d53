//! Tests of hookhold with a Kafka cluster of three nodes, while the brokers and hookhold itself are killed in turn. Senders deliver
//! to ten topics all the time, and some deliveries are duplicates. Afterwards the cluster must have every event, each key's events
//! must be in order, and the number of copies must be within the bound in `docs/kafka-consumers.md`.

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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use audit::Copies;
use kafka::{Kafka, Record};
use load::{Ledger, Load, Order};
use process::{Home, Process};

/// Kills of one test run.
struct Plan {
    /// Number of deliveries per second to each topic.
    rate: u32,
    /// Number of seconds between two kills of a broker.
    interval: u32,
    /// Number of kills of a broker. The nodes take turns, and each returns after half of the interval.
    broker_kills: usize,
    /// Numbers of the kills of a broker during which hookhold is also killed, just before the broker returns.
    gateway_kills: &'static [usize],
}

/// One kill of hookhold: for each topic, the range of sequences from the saved cursor to the log end.
type GatewayKill = BTreeMap<String, Range<u64>>;

#[test]
fn events_survive_kills_of_a_broker_and_hookhold() {
    run(&Plan { rate: 50, interval: 4, broker_kills: 1, gateway_kills: &[0] });
}

#[test]
#[ignore = "takes 6 minutes; tests/run --long runs this test"]
fn events_survive_five_minutes_of_kills_in_order() {
    run(&Plan { rate: 200, interval: 20, broker_kills: 15, gateway_kills: &[4, 10] });
}

fn run(plan: &Plan) {
    let mut nodes = Kafka::cluster();
    let topics: Vec<String> = (0..TOPICS).map(|number| format!("topic-{number}")).collect();
    nodes[0].create_topics(&topics, 3, 3);
    let bootstrap = kafka::bootstrap(&nodes);
    let sources: Vec<(&str, &str)> = topics.iter().map(|topic| (&**topic, &**topic)).collect();
    let home = fixture::home(&sources, Some(&bootstrap));
    let mut process = home.start();
    let order =
        |topic: &str| Order { connections: 8, duplicate_percent: 10, rate: Some(plan.rate), ..fixture::order(&home, topic) };
    let loads: Vec<Load> = topics.iter().map(|topic| Load::start(order(topic), Ledger::new(topic))).collect();
    topics.iter().for_each(|topic| fixture::wait_until_some_are_forwarded(&process, topic));

    let (mut gateway_kills, mut replaced): (Vec<GatewayKill>, f64) = (Vec::new(), 0.0);
    for kill in 0..plan.broker_kills {
        let (node, begun) = (&mut nodes[kill % 3], loads[0].sent());
        let interval = u64::from(plan.interval * plan.rate);
        node.kill();
        loads[0].wait_until_sent(begun + interval / 2);
        if plan.gateway_kills.contains(&kill) {
            replaced += producers_replaced(&process);
            drop(process);
            gateway_kills.push(state_after_kill(&home));
            process = home.start();
        }
        node.restart();
        loads[0].wait_until_sent(begun + interval);
    }

    let ledgers: Vec<Ledger> = loads.into_iter().map(Load::stop).collect();
    let ledgers: Vec<Ledger> = topics.iter().zip(ledgers).map(|(topic, ledger)| send_again(order(topic), ledger)).collect();
    topics.iter().for_each(|topic| fixture::wait_until_forwarded(&process, topic));
    replaced += producers_replaced(&process);
    fixture::stop(process);

    let mut totals = Totals::default();
    for (topic, ledger) in topics.iter().zip(&ledgers) {
        totals.add(&home, ledger, topic, &kafka::records_at(&bootstrap, topic), &gateway_kills, replaced as usize);
    }
    println!("{totals:#?}");
    println!(
        "killed a broker {} times and hookhold {} times; {replaced} producers were replaced",
        plan.broker_kills,
        gateway_kills.len()
    );
}

/// Sends each delivery without an answer again, as a sender does. Asserts that every answer in the ledger is a 200.
fn send_again(order: Order, ledger: Ledger) -> Ledger {
    let unanswered = ledger.numbers(|count| count.accepted == 0);
    let ledger = Load::send_again(Order { rate: None, ..order }, ledger, unanswered);
    assert_eq!(ledger.statuses.keys().collect::<Vec<_>>(), [&200], "{:?}", ledger.statuses);
    assert_eq!(ledger.count(|count| count.accepted == 0), 0, "each delivery has an answer");
    ledger
}

/// Returns the number of Kafka producers that this process has replaced, for example after a fatal error.
fn producers_replaced(process: &Process) -> f64 {
    let text = process.metrics();
    let series = text.lines().filter_map(|line| line.strip_prefix("hookhold_producer_rebuilds_total{")?.rsplit(' ').next());
    series.map(|count| count.parse::<f64>().expect("a metric is a number")).sum()
}

/// Reads the saved cursor of each topic and the log end from the journal of a killed process.
fn state_after_kill(home: &Home) -> GatewayKill {
    let end = fixture::journal(home).log_end().expect("the journal can be read");
    let saved = fixture::journal(home).stat().expect("the journal can be read").topics;
    saved.into_iter().map(|saved| (saved.topic.to_string(), saved.cursor.unwrap_or(0)..end)).collect()
}

/// Result of the audit of all topics.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "the test prints the fields")]
struct Totals {
    /// Requests, with those that had no response.
    sent: usize,
    /// Answers with 2xx.
    accepted: usize,
    /// Answers with 2xx to a delivery that already had one.
    answered_as_duplicates: usize,
    /// Requests without a response, because hookhold was killed.
    cut: u64,
    /// Records in Kafka.
    records: usize,
    /// Accepted events without a record.
    missing: usize,
    /// Records that follow a later event of their key.
    late: usize,
    /// Records of an event that has an earlier record.
    extra_copies: usize,
    /// Largest number of extra copies in one topic that one kill of hookhold explains.
    most_copies_by_one_kill: usize,
}

impl Totals {
    /// Audits one topic and adds its numbers. Panics if a guarantee is broken. `replaced` is the number of producers that hookhold
    /// has replaced.
    fn add(&mut self, home: &Home, ledger: &Ledger, topic: &str, records: &[Record], kills: &[GatewayKill], replaced: usize) {
        let extra = fixture::audit_records(home, ledger, topic, records);
        let forwarded: HashSet<&str> = records.iter().map(|record| record.header("ce_id")).collect();
        let missing: Vec<String> = ledger.accepted().filter(|id| !forwarded.contains(&**id)).collect();
        assert_eq!(missing, [""; 0], "each event with a 2xx is in Kafka");
        let late = late_records(records);
        assert_eq!(late, [""; 0], "the events of each key are in order");

        let kills: Vec<Range<u64>> = kills.iter().map(|kill| kill.get(topic).cloned().expect("the topic has a cursor")).collect();
        let copies = audit::copies(records.iter().map(Record::seq), &kills);
        assert_eq!(copies.by_kill.iter().sum::<usize>() + copies.unexplained.len(), extra);
        if let Some(excess) = excess(&copies, replaced) {
            panic!("{topic}: {excess}");
        }

        self.sent += ledger.all().map(|(_, count)| count.sent as usize).sum::<usize>();
        let accepted = ledger.all().map(|(_, count)| count.accepted as usize).sum::<usize>();
        self.accepted += accepted;
        self.answered_as_duplicates += accepted - ledger.accepted().count();
        self.cut += ledger.cut;
        self.records += records.len();
        self.missing += missing.len();
        self.late += late.len();
        self.extra_copies += extra;
        self.most_copies_by_one_kill = self.most_copies_by_one_kill.max(copies.by_kill.iter().copied().max().unwrap_or(0));
    }
}

/// Returns a description of each record that follows a later event of the same key, and of each record whose key has another record
/// in another partition. Ignores all records of an event except the first one.
fn late_records(records: &[Record]) -> Vec<String> {
    let (mut seen, mut newest) = (HashSet::new(), HashMap::new());
    let mut late = Vec::new();
    for record in records.iter().filter(|record| seen.insert((record.header("hookhold-log"), record.seq()))) {
        let this = (record.partition, record.seq());
        let (partition, seq) = newest.insert(&record.key, this).unwrap_or(this);
        if partition != this.0 || seq > this.1 {
            late.push(format!("event {} in partition {} follows event {seq} in partition {partition}", this.1, this.0));
        }
    }
    late
}

/// Returns a description of a violation of the bound on the copies in one topic; `None` if the copies are within the bound.
fn excess(copies: &Copies, replaced: usize) -> Option<String> {
    let most = copies.by_kill.iter().copied().max().unwrap_or(0);
    if most > IN_FLIGHT + SINCE_SAVE {
        return Some(format!("expected at most {} copies by one kill, found {most}", IN_FLIGHT + SINCE_SAVE));
    }
    let (found, bound) = (copies.unexplained.len(), replaced * IN_FLIGHT);
    let unexplained: BTreeSet<u64> = copies.unexplained.iter().copied().collect();
    (found > bound).then(|| format!("expected at most {bound} copies that no kill explains, found {found}: {unexplained:?}"))
}

#[test]
fn the_audit_finds_late_records_and_excess_copies() {
    let record = |partition, key: &str, seq: u64| {
        let header = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
        let headers = vec![header("hookhold-log", "00000000000000aa".into()), header("hookhold-seq", seq.to_string())];
        Record { partition, offset: 0, key: Some(key.into()), value: None, timestamp_ms: 0, headers }
    };
    let late = |records: &[(i32, &str, u64)]| {
        let records: Vec<Record> = records.iter().map(|(partition, key, seq)| record(*partition, key, *seq)).collect();
        late_records(&records)
    };
    let (a, b) = ("a", "b");
    assert_eq!(late(&[(0, a, 1), (0, b, 0), (0, a, 2), (0, a, 1), (0, a, 2), (0, a, 3)]), [""; 0], "a copy is not late");
    assert_eq!(late(&[(0, a, 1), (0, a, 3), (0, b, 4), (0, a, 2)]), ["event 2 in partition 0 follows event 3 in partition 0"]);
    assert_eq!(late(&[(0, a, 1), (1, a, 3)]), ["event 3 in partition 1 follows event 1 in partition 0"]);

    let copies = |by_kill: usize, unexplained: usize| Copies { by_kill: vec![by_kill], unexplained: vec![7; unexplained] };
    let most = IN_FLIGHT + SINCE_SAVE;
    assert_eq!((excess(&copies(most, 0), 0), excess(&copies(0, IN_FLIGHT), 1)), (None, None));
    assert!(excess(&copies(most + 1, 0), 0).is_some() && excess(&copies(0, 1), 0).is_some());
}

const TOPICS: usize = 10;
/// Largest number of records that one topic has in flight.
const IN_FLIGHT: usize = 10_000;
/// Largest number of records of one topic that Kafka has acknowledged since hookhold last saved the cursor: the last 100, or those of
/// the last 50 ms. The cluster of this test acknowledges fewer than 20,000 records of one topic per second.
const SINCE_SAVE: usize = 1_000;
