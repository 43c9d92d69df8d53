//! Tests a clean restart. After the restart, hookhold must forward no event a second time and must recognise every duplicate.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::kafka::{self, Record};
use crate::process::{Line, Process, wait_until};
use crate::scheme::{ACME, Provider, Signed, now};

#[test]
fn a_clean_restart_repeats_and_forgets_nothing() {
    let kafka = kafka::shared();
    kafka.create_topic("restarted", 1, &[]);
    let home = ACME.home(kafka, "restarted", "");
    let mut provider = Provider::new(&ACME);
    let mut sent: Vec<Signed> = Vec::new();
    let mut first_answer = None;
    for run in 0..3 {
        let process = home.start();
        let mut line = Line::open(home.hooks);
        for known in &sent {
            assert_eq!(Some(line.ask(&known.request(&ACME))), first_answer, "a duplicate gets the bytes of the first answer");
        }
        for number in 0..10 {
            let id = format!("evt_{run}_{number}");
            let delivery = provider.sign(&id, now(), ACME.body(&id, b""));
            let answer = line.ask(&delivery.request(&ACME));
            assert_eq!(&answer, first_answer.get_or_insert(answer.clone()));
            sent.push(delivery);
        }
        assert_eq!(count(&process, "duplicate"), run as f64 * 10.0);
        wait_until("all are forwarded", || process.metric("hookhold_forward_acked_total{topic=\"restarted\"}") == Some(10.0));
        process.signal(Signal::TERM);
        assert_eq!(process.wait().code(), Some(0));
    }
    let records = kafka.records("restarted");
    let values: Vec<_> = records.iter().map(|record| record.value.as_ref()).collect();
    assert_eq!(values, sent.iter().map(|delivery| Some(&delivery.body)).collect::<Vec<_>>());
    assert_eq!(records.iter().map(Record::seq).collect::<Vec<_>>(), (0..30).collect::<Vec<_>>(), "one sequence over all starts");
    let instances: BTreeSet<&str> = records.iter().map(|record| record.header("hookhold-instance")).collect();
    assert_eq!(instances.len(), 1, "a restart does not change the instance");
    let logs: BTreeSet<&str> = records.iter().map(|record| record.header("hookhold-log")).collect();
    assert_eq!(logs.len(), 3, "every opening for writing has a log id of its own");
}

fn count(process: &Process<'_>, outcome: &str) -> f64 {
    process.metric(&format!("hookhold_deliveries_total{{outcome={outcome:?},source=\"acme\"}}")).expect("declared at start")
}
