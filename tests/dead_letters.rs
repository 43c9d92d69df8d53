//! Tests of the dead-letter topic with a real Apache Kafka broker. The topic must get a copy of each parked event, the parked event
//! may disappear only when Kafka has it, and a problem of the dead-letter topic must not affect another topic.

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

use disk::{SimDisk, Step};
use harness::{Harness, TestClock};
use hookhold::admin::AdminQueries;
use hookhold::config::Config;
use hookhold::journal::{ParkedEvents, ParkedFile, ParkingNote};
use hookhold::limits::JournalLimits;
use kafka::{Kafka, Record, wait_until};
use shop::{AT, Shop};

#[test]
fn a_parked_event_reaches_the_dead_letter_topic_byte_for_byte() {
    let kafka = kafka::shared();
    kafka.create_topic("narrow", 1, NARROW);
    kafka.create_topic("wide", 1, &[]);
    kafka.create_topic("letters", 1, &[]);
    let harness = started(kafka, "letters");
    let body = random_body(5000);
    let event =
        |topic| Shop::new(topic).event(Some("evt_1"), Some("order.paid"), body.clone(), &[("x-shop-customer", "customer-7")]);
    let seq = harness.append(event("narrow"));
    harness.append(event("wide"));

    let (records, wide) = (kafka.wait_for_records("letters", 1), kafka.wait_for_records("wide", 1));
    let copy = &records[0];
    assert_eq!(
        (copy.value.as_ref(), copy.key.as_deref(), copy.timestamp_ms),
        (Some(&body), Some(&b"customer-7"[..]), AT.0 as i64)
    );
    assert_eq!(copy.seq(), seq);
    let names = |record: &Record| record.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let own = ["hookhold-dlq-topic", "hookhold-dlq-reason", "hookhold-dlq-error", "hookhold-dlq-at"].map(str::to_owned);
    assert_eq!(names(copy), [names(&wide[0]), own.to_vec()].concat(), "the headers of any record, then those of the copy");
    assert_eq!((copy.header("hookhold-dlq-topic"), copy.header("hookhold-dlq-reason")), ("narrow", "too_large"));
    assert!(copy.header("hookhold-dlq-error").contains("MessageSizeTooLarge"), "{}", copy.header("hookhold-dlq-error"));
    let at = copy.header("hookhold-dlq-at");
    assert!(at.len() == 24 && at.ends_with('Z') && at > "2026", "{at}");

    wait_until("the parked event is deleted", || parked(&harness).is_empty());
    assert_eq!(harness.metric(r#"hookhold_dead_letters_total{body="present",topic="narrow"}"#), Some(1.0));
    wait_until("the metrics show it", || harness.metric("hookhold_parked_events") == Some(0.0));
    assert_eq!(problems(&harness), Vec::<String>::new());
}

#[test]
fn an_event_too_large_for_the_dead_letter_topic_stays_parked() {
    let kafka = kafka::shared();
    kafka.create_topic("narrow-source", 1, NARROW);
    kafka.create_topic("narrow-letters", 1, &[("max.message.bytes", "4000")]);
    let harness = started(kafka, "narrow-letters");
    let large = harness.store("narrow-source", "evt_1", random_body(5000));
    let records = kafka.wait_for_records("narrow-letters", 1);
    assert_eq!((records[0].seq(), records[0].value.as_deref()), (large, Some(&[][..])), "an empty value, and not null");
    let header = |name| records[0].header(name);
    assert_eq!((header("hookhold-dlq-body"), header("hookhold-dlq-size")), ("absent", "5000"));
    assert_eq!((header("hookhold-dlq-topic"), header("ce_id")), ("narrow-source", "evt_1"));
    wait_until("the notice is noted", || parked(&harness).iter().all(|file| file.has_notice));
    assert_eq!(harness.metric(r#"hookhold_dead_letters_total{body="absent",topic="narrow-source"}"#), Some(1.0));
    assert_eq!(problems(&harness), Vec::<String>::new());

    let small = harness.store("narrow-source", "evt_2", random_body(2500));
    let records = kafka.wait_for_records("narrow-letters", 2);
    assert_eq!(records[1].value.as_ref(), Some(&random_body(2500)), "the next event has its body again");
    let harness = harness.after_power_cut().start();
    let last = harness.store("narrow-source", "evt_3", random_body(2600));
    wait_until("the last event is sent", || kafka.records("narrow-letters").iter().any(|record| record.seq() == last));
    let sent = seqs(&kafka.records("narrow-letters"));
    assert_eq!(sent.iter().filter(|seq| **seq == large).count(), 1, "a notice is sent only once: {sent:?}");
    assert!(sent.contains(&small));
    wait_until("only the first event is parked", || parked(&harness).len() == 1);
    let events = ParkedEvents::new(harness.disk.second_process());
    let found = events.list().expect("the disk can be read");
    assert_eq!(found.iter().map(|file| (file.position.seq, file.has_notice)).collect::<Vec<_>>(), [(large, true)]);
    let event = events.read(found[0].position).expect("the disk can be read").expect("the event stays parked");
    assert!(event.has_notice && *event.stored.event.body() == random_body(5000)[..], "the parked event has its body");
    assert!(events.remove(found[0].position).expect("the disk works") && parked(&harness).is_empty());
}

#[test]
fn a_missing_dead_letter_topic_delays_only_the_copies() {
    let kafka = kafka::shared();
    kafka.create_topic("next-to-missing", 1, NARROW);
    let harness = started(kafka, "missing-letters");
    let large = harness.store("next-to-missing", "evt_1", random_body(5000));
    let stored = harness.store_many("next-to-missing", 20, 100);
    let series = r#"hookhold_dead_letter_blocked{reason="topic_missing",topic="missing-letters"}"#;
    wait_until("the problem is published", || harness.metric(series) == Some(1.0));
    let problem = problems(&harness).concat();
    assert!(
        problem.contains("dead-letter topic missing-letters: topic_missing for ") && problem.contains("create the topic"),
        "{problem}"
    );
    harness.wait_until_acked("next-to-missing", 20);
    assert_eq!(seqs(&kafka.records("next-to-missing")), stored);
    assert_eq!(harness.topic("next-to-missing").map(|topic| (topic.lag_events, topic.blocked.is_none())), Some((0, true)));
    assert_eq!(parked(&harness).len(), 1);

    kafka.create_topic("missing-letters", 1, &[]);
    let records = kafka.wait_for_records("missing-letters", 1);
    assert_eq!((records[0].seq(), records[0].value.as_ref()), (large, Some(&random_body(5000))));
    wait_until("the parked event is deleted", || parked(&harness).is_empty());
    wait_until("the problem ends", || problems(&harness).is_empty());
    assert_eq!(harness.metric(series), Some(0.0));
}

#[test]
fn a_forbidden_dead_letter_topic_delays_only_the_copies() {
    let kafka = kafka::shared();
    kafka.create_topic("next-to-forbidden", 1, NARROW);
    kafka.create_topic("forbidden-letters", 1, &[]);
    kafka.forbid_writing("forbidden-letters");
    let harness = started(kafka, "forbidden-letters");
    harness.store("next-to-forbidden", "evt_1", random_body(5000));
    let stored = harness.store_many("next-to-forbidden", 20, 100);
    wait_until("the problem is published", || problems(&harness).concat().contains("forbidden-letters: not_authorized for "));
    harness.wait_until_acked("next-to-forbidden", 20);
    assert_eq!((seqs(&kafka.records("next-to-forbidden")), parked(&harness).len()), (stored, 1));
    kafka.allow_writing("forbidden-letters");
    assert_eq!(kafka.wait_for_records("forbidden-letters", 1)[0].value.as_ref(), Some(&random_body(5000)));
    wait_until("the problem ends", || problems(&harness).is_empty() && parked(&harness).is_empty());
}

#[test]
fn a_kill_before_the_deletion_causes_a_second_copy_and_no_loss() {
    let kafka = kafka::shared();
    kafka.create_topic("killed", 1, NARROW);
    kafka.create_topic("killed-letters", 1, &[]);
    let harness = started(kafka, "killed-letters");
    let deletion = harness.disk.hold(Step::Remove, ".parked");
    let large = harness.store("killed", "evt_1", random_body(5000));
    deletion.wait_for(1);
    assert_eq!(seqs(&kafka.records("killed-letters")), [large], "the deletion follows the acknowledgement");
    let harness = harness.killed();
    assert_eq!(parked(&harness).len(), 1);
    harness.resume();
    let records = kafka.wait_for_records("killed-letters", 2);
    assert!(records.iter().all(|record| record.value.as_ref() == Some(&random_body(5000))), "both copies have the body");
    // A third copy follows if the kill also preceded the save of the cursor: Kafka then rejects the event again.
    assert!(seqs(&records).iter().all(|seq| *seq == large), "all copies are those of the event");
    wait_until("the parked event is deleted", || parked(&harness).is_empty());
}

#[test]
fn events_that_were_parked_before_are_sent_oldest_first() {
    let kafka = kafka::shared();
    kafka.create_topic("earlier", 1, NARROW);
    kafka.create_topic("later-letters", 1, &[]);
    let before = Harness::build(config(kafka, None), SimDisk::default(), TestClock::System).start();
    let stored: Vec<u64> =
        (0..3).map(|number| before.store("earlier", &format!("evt_{number}"), random_body(3000 + number))).collect();
    wait_until("the events are parked", || parked(&before).len() == 3);
    before.service.stop().expect("the journal works");
    let disk = before.disk.clone();
    drop(before);

    let harness = Harness::build(config(kafka, Some("later-letters")), disk, TestClock::System).start();
    let records = kafka.wait_for_records("later-letters", 3);
    assert_eq!(seqs(&records), stored);
    assert_eq!(records[2].value.as_ref(), Some(&random_body(3002)));
    wait_until("the parked events are deleted", || parked(&harness).is_empty());
}

/// After a crash, Kafka rejects the event again, and hookhold parks it again.
#[test]
fn an_event_that_is_parked_again_keeps_its_notice() {
    let harness = Harness::new("localhost:1".into());
    let seq = harness.store("unsent", "evt_1", random_body(3000));
    let stored = harness.journal.reader(seq).next().expect("the disk can be read").expect("the event is stored");
    let note = ParkingNote { reason: "too_large".into(), detail: "an error".into(), parked_at: AT };
    harness.journal.park(&stored, &note).expect("there is room");
    assert!(harness.journal.note_notice(stored.position).expect("the disk works"));
    harness.journal.park(&stored, &note).expect("there is room");
    assert_eq!(parked(&harness).iter().map(|file| file.has_notice).collect::<Vec<_>>(), [true]);
    assert!(harness.journal.remove_parked(stored.position).expect("the disk works"));
    assert!(parked(&harness).is_empty() && !harness.journal.note_notice(stored.position).expect("the disk works"));
}

/// An operator can send or drop an event while its copy waits.
#[test]
fn an_event_that_is_no_longer_parked_gets_no_copy() {
    let kafka = kafka::shared();
    kafka.create_topic("dropped", 1, NARROW);
    let harness = started(kafka, "dropped-letters");
    let stored: Vec<u64> = (0..3).map(|number| harness.store("dropped", &format!("evt_{number}"), random_body(3000))).collect();
    wait_until("the dead-letter topic is missing", || parked(&harness).len() == 3 && !problems(&harness).is_empty());
    let events = ParkedEvents::new(harness.disk.second_process());
    for dropped in &parked(&harness)[..2] {
        assert!(events.remove(dropped.position).expect("the disk works"));
    }
    kafka.create_topic("dropped-letters", 1, &[]);
    wait_until("the last event is sent", || parked(&harness).is_empty());
    assert_eq!(seqs(&kafka.records("dropped-letters")), stored[2..]);
    wait_until("the problem ends", || problems(&harness).is_empty());
}

/// The dead-letter topic rejects the times of the records of the shop, so it rejects them even without their bodies.
#[test]
fn an_event_that_the_dead_letter_topic_rejects_does_not_hold_back_others() {
    let kafka = kafka::shared();
    kafka.create_topic("old", 1, NARROW);
    kafka.create_topic("new-letters", 1, &[("message.timestamp.before.max.ms", "3600000")]);
    let harness = started(kafka, "new-letters");
    let rejected = harness.store("old", "evt_1", random_body(3000));
    wait_until("the problem is published", || problems(&harness).concat().contains("new-letters: record for "));
    assert!(parked(&harness).iter().all(|file| !file.has_notice), "there is no notice");
    kafka.configure_topic("new-letters", &[]);
    let next = harness.store("old", "evt_2", random_body(3000));
    assert_eq!(seqs(&kafka.wait_for_records("new-letters", 1)), [next]);
    wait_until("only the rejected event is parked", || parked(&harness).len() == 1);
    assert!(problems(&harness).concat().contains("new-letters: record for "), "the rejected event still needs a copy");
    let harness = harness.restarted().start();
    assert_eq!(seqs(&kafka.wait_for_records("new-letters", 2)), [next, rejected], "the next start tries again");
    wait_until("the problem ends", || problems(&harness).is_empty() && parked(&harness).is_empty());
}

/// Returns a running forwarder with this dead-letter topic.
fn started(kafka: &Kafka, dead_letter: &str) -> Harness {
    Harness::build(config(kafka, Some(dead_letter)), SimDisk::default(), TestClock::System).start()
}

fn config(kafka: &Kafka, dead_letter: Option<&str>) -> Config {
    let mut config = shop::config(&[("bootstrap.servers", &kafka.bootstrap())], JournalLimits::default());
    config.kafka.as_mut().expect("the shop forwards").dead_letter = dead_letter.map(str::to_owned);
    config
}

fn parked(harness: &Harness) -> Vec<ParkedFile> {
    ParkedEvents::new(harness.disk.second_process()).list().expect("the disk can be read")
}

/// Returns the problems of forwarding that `/readyz` shows.
fn problems(harness: &Harness) -> Vec<String> {
    harness.service.readiness().kafka.details.into_iter().filter(|problem| !problem.starts_with("connecting")).collect()
}

/// Returns the same random bytes for the same size. No compression makes them smaller.
fn random_body(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(size as u64);
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}

/// Returns the sequences of the records, in their order in the topic.
fn seqs(records: &[Record]) -> Vec<u64> {
    records.iter().map(Record::seq).collect()
}

/// Configuration of a topic that rejects the events of these tests.
const NARROW: &[(&str, &str)] = &[("max.message.bytes", "2000")];
