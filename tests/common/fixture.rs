//! A fixture for tests that run the real binary under load. The fixture creates a `Home` whose sources all use Stripe's recipe.
//! The fixture checks the journal, the Kafka topics and the admin pages from outside the gateway process.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hookhold::config::Config;
use hookhold::journal::disk::LocalDisk;
use hookhold::journal::{ReadOnlyJournal, TopicStat};
use hookhold::source::Source;
use rustix::process::Signal;

use crate::audit::{self, FoundEvent};
use crate::kafka::{Kafka, Record};
use crate::load::{Ledger, Order};
use crate::process::{Home, Line, Process, wait_until};

/// Creates a `Home` whose configuration has these sources: the name of each source, and the name of its Kafka topic. The gateway
/// forwards events to Kafka only if `brokers` is given.
pub fn home<T: AsRef<str>>(sources: &[(T, T)], brokers: Option<&str>) -> Home {
    Home::new(&[("secret", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0")], &config(sources, brokers))
}

/// Returns a configuration with these sources and a small segment size, so that the journal has many segments.
pub fn config<T: AsRef<str>>(sources: &[(T, T)], brokers: Option<&str>) -> String {
    let mut text = "server.drain_delay = \"0s\"\njournal.segment_size = \"8 MiB\"\n".to_owned();
    text += &brokers.map(|brokers| format!("[kafka]\nbootstrap.servers = {brokers:?}\n")).unwrap_or_default();
    for (name, topic) in sources.iter().map(|(name, topic)| (name.as_ref(), topic.as_ref())) {
        text += &format!("[sources.{name}]\nprovider = \"stripe\"\nsecrets = [\"file:secret\"]\ntopic = {topic:?}\n");
    }
    text
}

/// Returns the parameters of a load on one source. The load uses the seed of this test run.
pub fn order(home: &Home, source: &str) -> Order {
    Order {
        address: home.hooks,
        sources: vec![self::source(home, source)],
        connections: 64,
        duplicate_percent: 5,
        rate: Some(500),
        seed: seed(),
    }
}

/// Compiles the source `name` from the configuration of `home`, as the gateway does.
pub fn source(home: &Home, name: &str) -> Arc<Source> {
    sources(home).into_iter().find(|source| *source.name == *name).expect("the source is configured")
}

/// Compiles all sources from the configuration of `home`, as the gateway does.
pub fn sources(home: &Home) -> Vec<Arc<Source>> {
    let file = home.journal().with_file_name("hookhold.toml");
    let text = std::fs::read_to_string(&file).expect("a home has a configuration");
    let text = text.replace("file:", &format!("file:{}/", file.parent().expect("an absolute path").display()));
    let config = Config::parse("hookhold.toml", &text, |_, _| None).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    config.sources
}

/// Returns the seed of this test run: `HOOKHOLD_TEST_SEED`, or a random number if the variable is not set. Prints the seed,
/// so that the output of a failed test contains it.
pub fn seed() -> u64 {
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("HOOKHOLD_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
        let seed = given.unwrap_or_else(|| fastrand::u64(..));
        println!("HOOKHOLD_TEST_SEED={seed}");
        seed
    })
}

/// Opens the journal of `home` read-only. The gateway, a separate process, can write to the journal at the same time.
pub fn journal(home: &Home) -> ReadOnlyJournal {
    let disk = LocalDisk::existing(&home.journal()).expect("the journal exists");
    ReadOnlyJournal::open(Arc::new(disk)).expect("the journal can be read")
}

/// Returns every event of the topic `topic` in the journal.
pub fn frames(home: &Home, topic: &str) -> Vec<FoundEvent> {
    let mut journal = journal(home);
    let stored = std::iter::from_fn(|| journal.next().expect("the journal can be read"));
    let found = stored.filter(|stored| **stored.event.topic() == *topic).map(|stored| FoundEvent {
        log: stored.position.log.to_string(),
        seq: stored.position.seq,
        id: stored.event.id().expect("every delivery here has an id").to_owned(),
        body: stored.event.body().clone(),
    });
    found.collect()
}

/// Returns the saved cursor and the backlog of a topic, or `None` if the journal does not contain the topic.
pub fn saved_topic(home: &Home, topic: &str) -> Option<TopicStat> {
    journal(home).stat().expect("the journal can be read").topics.into_iter().find(|saved| *saved.topic == *topic)
}

/// Converts Kafka records into the form that the audit compares.
pub fn found(records: &[Record]) -> Vec<FoundEvent> {
    let found = records.iter().map(|record| FoundEvent {
        log: record.header("hookhold-log").to_owned(),
        seq: record.seq(),
        id: record.header("ce_id").to_owned(),
        body: record.value.clone().expect("a value is never null").into(),
    });
    found.collect()
}

/// Compares the ledger of sent deliveries with the journal and the Kafka topic. Panics if a guarantee is broken. The
/// gateway must be idle. Returns the number of duplicate records in the Kafka topic.
pub fn audit(home: &Home, ledger: &Ledger, kafka: &Kafka, topic: &str) -> usize {
    audit_records(home, ledger, topic, &kafka.records(topic))
}

/// Like [`audit`], but with the topic's records in Kafka.
pub fn audit_records(home: &Home, ledger: &Ledger, topic: &str, records: &[Record]) -> usize {
    let (frames, records) = (frames(home, topic), found(records));
    let accepted: BTreeSet<String> = ledger.accepted().collect();
    assert!(!accepted.is_empty() && !frames.is_empty() && !records.is_empty(), "nothing to compare");
    let faults = audit::violations(&accepted, &frames, Some(&records));
    let first: Vec<_> = faults.iter().take(20).collect();
    assert!(faults.is_empty(), "{} promises are broken: {first:#?}", faults.len());
    records.len() - frames.len()
}

/// Fetches the page `path` from the admin listener, and returns the status and the body of the response.
pub fn page(home: &Home, path: &str) -> (u16, String) {
    let mut line = Line::open(home.admin);
    let answer = line.ask(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes());
    (answer.status, String::from_utf8(answer.body).expect("the admin pages are text"))
}

/// Fetches `/readyz` and returns the `kafka` object of the response. Asserts that the gateway is ready, because a Kafka outage
/// must not affect readiness.
pub fn kafka_health(home: &Home) -> serde_json::Value {
    let (status, page) = page(home, "/readyz");
    assert_eq!(status, 200, "{page}");
    let mut page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!(page["ready"], true);
    page["kafka"].take()
}

/// Waits until Kafka has acknowledged at least one event of a topic.
pub fn wait_until_some_are_forwarded(process: &Process, topic: &str) {
    let acked = format!("hookhold_forward_acked_total{{topic=\"{topic}\"}}");
    wait_until("an event is forwarded", || process.metric(&acked).is_some_and(|acked| acked > 0.0));
}

/// Waits until Kafka has acknowledged every event of a topic. Panics after [`TIMEOUT`] without progress. This limit is longer
/// than any pause between two attempts to send to a blocked topic.
pub fn wait_until_forwarded(process: &Process, topic: &str) {
    let lag = || process.metric(&format!("hookhold_forward_lag_events{{topic=\"{topic}\"}}"));
    let mut left = (lag(), Instant::now());
    while left.0 != Some(0.0) {
        assert!(left.1.elapsed() < TIMEOUT, "{topic}: {:?} events wait and none is forwarded", left.0);
        thread::park_timeout(Duration::from_millis(50));
        let now = lag();
        if now != left.0 {
            left = (now, Instant::now());
        }
    }
}

/// Sends SIGTERM and asserts that the process exits with code 0.
pub fn stop(process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

/// Maximum time without a new acknowledgement from Kafka. The limit exists only to end a stuck test; no assertion depends on
/// the limit.
const TIMEOUT: Duration = Duration::from_secs(120);
