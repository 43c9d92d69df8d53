//! Tests `hookhold replay` with the real binary, a journal on disk, and a real broker or a program that receives requests. The replayed
//! events must be exactly those that the options select, unchanged and in order, even if a signal ends the replay.

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
#[path = "replay/receiver.rs"]
mod receiver;
#[path = "replay/stored.rs"]
mod stored;
#[path = "replay/terminal.rs"]
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Output, Stdio};

use fixture::stop;
use hookhold::clock::UnixMillis;
use kafka::{Kafka, Record};
use load::{Ledger, Load};
use process::{Home, wait_until};
use receiver::Receiver;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stored::{Stored, StoredWriter};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is text")
}

/// Runs `hookhold replay` with these arguments and `--format json`, and returns the exit code, the printed object and the messages.
fn replay(home: &Home, args: &[&str]) -> (Option<i32>, Value, String) {
    result(home.verb(&[&["replay", "--format", "json"], args].concat()))
}

fn result(output: Output) -> (Option<i32>, Value, String) {
    let messages = text(&output.stderr);
    let object = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {messages}"));
    (output.status.code(), object, messages)
}

/// Returns each record as it must be after its replay, without the two headers of the replay. Checks these headers.
fn without_replay_headers(records: Vec<Record>, replay: &str) -> Vec<Record> {
    let stripped = records.into_iter().map(|mut record| {
        let at: jiff::Timestamp = record.header("hookhold-replayed-at").parse().expect("a time in RFC 3339");
        assert!(at <= jiff::Timestamp::now() && record.header("hookhold-replay") == replay, "{record:?}");
        record.headers.retain(|(name, _)| !name.starts_with("hookhold-replay"));
        record
    });
    stripped.collect()
}

/// Returns the sequences of records, in the order of their partitions and offsets.
fn seqs(records: &[Record]) -> Vec<u64> {
    records.iter().map(Record::seq).collect()
}

/// Asserts that the records of each key are in the order of their sequences, apart from second copies.
fn assert_key_order(records: &[Record]) {
    let mut last: BTreeMap<&[u8], u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in records.iter().filter(|record| seen.insert(record.seq())) {
        let before = last.insert(record.key.as_deref().expect("a key is never null"), record.seq());
        assert!(before.is_none_or(|before| before < record.seq()), "{before:?} before {}", record.seq());
    }
    assert!(!last.is_empty(), "no records");
}

/// Starts a replay in the background.
fn spawn(home: &Home, args: &str) -> Child {
    let mut shell = home.shell(&format!("exec hookhold replay --format json {args}"));
    shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash can be run")
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a child can be signalled until it is waited for");
}

fn finished(child: Child) -> (Option<i32>, Value, String) {
    result(child.wait_with_output().expect("a child can be waited for"))
}

/// Runs the command that a replay has printed, as an operator does who pastes it.
fn paste(home: &Home, report: &Value) -> (Option<i32>, Value, String) {
    let command = report["resume"].as_str().unwrap_or_else(|| panic!("expected a command: {report}"));
    result(home.shell(command).output().expect("bash can be run"))
}

#[test]
fn each_selection_sends_exactly_its_events_unchanged() {
    let kafka = kafka::shared();
    let sources = [("stripe", "chosen"), ("other", "chosen-other")];
    kafka.create_topics(&sources.map(|(_, topic)| topic.to_owned()), 3, 1);
    let home = fixture::home(&sources, Some(&kafka.bootstrap()));
    let kinds = ["invoice.paid", "invoice.created", "charge.failed"];
    let events: Vec<Stored> = (0..300).map(|n| Stored::new(sources[n % 2].0, n).of_type(kinds[n % 3])).collect();
    StoredWriter::open(&home).append(&events).close();
    let process = home.start();
    sources.iter().for_each(|(_, topic)| fixture::wait_until_forwarded(&process, topic));
    let mut first: BTreeMap<u64, Record> = BTreeMap::new();
    for (_, topic) in sources {
        first.extend(kafka.records(topic).into_iter().map(|record| (record.seq(), record)));
    }
    assert_eq!(first.len(), events.len());

    let (since, until) = (UnixMillis(events[40].at).rfc3339(), UnixMillis(events[89].at).rfc3339());
    let day = &since[..10];
    type IsSelected = fn(usize, &Stored) -> bool;
    let cases: [(&[&str], IsSelected); 9] = [
        (&["--since", &since, "--until", &until], |n, _| (40..=89).contains(&n)),
        (&["--since", day, "--until", day, "--source", "other"], |_, event| event.source == "other"),
        (&["--seq", "100..149"], |n, _| (100..=149).contains(&n)),
        (&["--seq", "290.."], |n, _| n >= 290),
        (&["--id", "evt_7", "--id", "evt_8", "--id", "evt_unknown"], |n, _| n == 7 || n == 8),
        (&["--type", "invoice.*"], |_, event| event.kind.starts_with("invoice.")),
        (&["--type", "charge.failed", "--topic", "chosen"], |n, event| n % 2 == 0 && event.kind == "charge.failed"),
        (&["--key", &events[3].customer], |n, _| n % 7 == 3),
        (&["--all"], |_, _| true),
    ];
    for (index, (args, is_selected)) in cases.into_iter().enumerate() {
        let topic = format!("chosen-{index}");
        kafka.create_topic(&topic, 3, &[]);
        let (code, report, messages) = replay(&home, &[args, &["--yes", "--to", &topic]].concat());
        let expected: Vec<u64> = (0..events.len()).filter(|n| is_selected(*n, &events[*n])).map(|n| n as u64).collect();
        let id = report["replay"].as_str().expect("an id").to_owned();
        assert_eq!((code, &report["sent"]), (Some(0), &expected.len().into()), "{args:?} {messages}");
        assert!(messages.starts_with(&format!("replay {id}: {} event", expected.len())), "{messages}");
        let records = without_replay_headers(kafka.records(&topic), &id);
        assert_key_order(&records);
        let by_seq: BTreeMap<u64, &Record> = records.iter().map(|record| (record.seq(), record)).collect();
        assert_eq!((records.len(), by_seq.keys().copied().collect::<Vec<_>>()), (expected.len(), expected), "{args:?}");
        for (seq, record) in by_seq {
            let original = &first[&seq];
            let same = Record { partition: record.partition, offset: record.offset, ..original.clone() };
            assert_eq!(*record, same, "a replayed record differs from the forwarded one");
        }
    }
    let forwarded: usize = sources.iter().map(|(_, topic)| kafka.records(topic).len()).sum();
    assert_eq!(forwarded, events.len(), "a replay to another topic leaves the topics of the events alone");
    stop(process);
}

#[test]
fn events_go_to_their_own_or_rerouted_topics_by_default() {
    let kafka = kafka::shared();
    kafka.create_topics(&["own", "moved", "moved-to"].map(str::to_owned), 1, 1);
    let sources = [("stripe", "own"), ("other", "moved")];
    let home = fixture::home(&sources, Some(&kafka.bootstrap()));
    let config = fixture::config(&sources, Some(&kafka.bootstrap()));
    home.configure(&config.replace("[sources.stripe]", "[kafka.reroute]\n\"moved\" = \"moved-to\"\n[sources.stripe]"));
    let events: Vec<Stored> = (0..10).map(|n| Stored::new(sources[n % 2].0, n)).collect();
    StoredWriter::open(&home).append(&events).close();
    let (code, report, messages) = replay(&home, &["--all", "--yes"]);
    assert_eq!((code, &report["sent"]), (Some(0), &10.into()), "{messages}");
    assert_eq!(seqs(&kafka.records("own")), [0, 2, 4, 6, 8]);
    assert_eq!(seqs(&kafka.records("moved-to")), [1, 3, 5, 7, 9]);
    assert!(kafka.records("moved").is_empty());
    assert_eq!(fixture::saved_topic(&home, "own").and_then(|topic| topic.cursor), None, "a replay moves no cursor");
}

/// The gateway forwards a load into the topic from which the replay takes its events, so a replay without a fixed end would not end.
#[test]
fn a_replay_next_to_the_gateway_disturbs_no_delivery() {
    let kafka = kafka::shared();
    kafka.create_topics(&["live", "again"].map(str::to_owned), 3, 1);
    let home = fixture::home(&[("stripe", "live")], Some(&kafka.bootstrap()));
    let process = home.start();
    let load = Load::start(fixture::order(&home, "stripe"), Ledger::new("live"));
    load.wait_until_accepted(1_000);
    let (mut sent, mut ends) = (0, Vec::new());
    for _ in 0..3 {
        let (code, report, messages) = replay(&home, &["--topic", "live", "--since", "today", "--yes", "--to", "again"]);
        assert_eq!(code, Some(0), "{messages}");
        sent += report["sent"].as_u64().expect("a number");
        ends.push(report["next_seq"].as_u64().expect("a number"));
    }
    assert!(ends.is_sorted() && ends[0] > 900, "{ends:?}");
    load.wait_until_accepted(load.accepted() + 500);
    let ledger = load.stop();
    ledger.assert_no_sender_noticed();
    fixture::wait_until_forwarded(&process, "live");
    stop(process);
    assert_eq!(fixture::audit(&home, &ledger, kafka, "live"), 0, "the gateway has forwarded an event twice");
    let again = kafka.records("again");
    assert_eq!(again.len() as u64, sent);
    assert!(again.iter().all(|record| record.seq() < ends[2]));
}

#[test]
fn an_interrupted_replay_of_100_000_events_resumes_without_loss() {
    interrupted("long", 100_000);
}

/// Interrupts a replay of `count` events with SIGINT, then with SIGKILL, and lets the third run end.
fn interrupted(topic: &str, count: usize) {
    let kafka = kafka::shared();
    kafka.create_topic(topic, 6, &[]);
    let home = fixture::home(&[("stripe", "unused")], Some(&kafka.bootstrap()));
    StoredWriter::open(&home).append_all((0..count).map(|n| Stored::new("stripe", n))).close();
    let position = || -> u64 {
        let file = std::fs::read(home.journal().with_file_name("state.json"));
        let state = file.ok().map(|bytes| serde_json::from_slice::<Value>(&bytes).expect("each write replaces the whole file"));
        state.map_or(0, |state| state["next"].as_u64().expect("a number"))
    };
    // The limit of the rate leaves time for each signal.
    let rate = count / 10;
    let args = format!("--all --to {topic} --progress state.json --rate {rate}/s");
    let first = spawn(&home, &format!("--yes {args}"));
    wait_until("a fifth is sent", || position() >= count as u64 / 5);
    signal(&first, Signal::INT);
    let (code, report, messages) = finished(first);
    assert_eq!(code, Some(130), "{messages}");
    let sent = report["sent"].as_u64().expect("a number");
    assert_eq!((kafka.records(topic).len() as u64, position(), &report["next_seq"]), (sent, sent, &sent.into()));
    assert!(messages.contains("resume with: hookhold replay ") && sent < count as u64, "{messages}");

    let second = spawn(&home, &args);
    wait_until("a half is sent", || position() >= count as u64 / 2);
    signal(&second, Signal::KILL);
    let output = second.wait_with_output().expect("a child can be waited for");
    assert_eq!((output.status.code(), text(&output.stdout)), (None, String::new()));
    let resumed_at = position();
    assert!(resumed_at < count as u64);

    let (code, last, messages) = paste(&home, &report);
    assert_eq!((code, &last["complete"], &last["replay"]), (Some(0), &true.into(), &report["replay"]), "{messages}");
    assert_eq!(last["sent"].as_u64(), Some(count as u64 - resumed_at), "the third run begins where the file says");
    let records = kafka.records(topic);
    let distinct: BTreeSet<u64> = records.iter().map(Record::seq).collect();
    assert!(distinct.into_iter().eq(0..count as u64), "an event is missing");
    let twice = records.len() - count;
    println!("{twice} events arrived twice");
    assert!(twice <= 2_000, "{twice} events arrived twice");
    assert_key_order(&records);
    let (code, done, messages) = paste(&home, &report);
    assert_eq!((code, &done["sent"]), (Some(0), &0.into()));
    assert!(messages.contains("complete already; delete state.json"), "{messages}");
    assert_eq!(kafka.records(topic).len(), records.len());
}

#[test]
fn a_progress_file_of_another_replay_is_not_overwritten() {
    let kafka = kafka::shared();
    kafka.create_topic("first-replay", 1, &[]);
    let home = fixture::home(&[("stripe", "unused")], Some(&kafka.bootstrap()));
    StoredWriter::open(&home).append_all((0..10).map(|n| Stored::new("stripe", n))).close();
    let begun = ["--seq", "0..4", "--since", "100d", "--to", "first-replay", "--yes", "--progress", "state.json"];
    assert_eq!(replay(&home, &begun).0, Some(0));
    let file = home.journal().with_file_name("state.json");
    let before = std::fs::read(&file).expect("the file exists");
    let others: [&[&str]; 3] = [
        &["--seq", "0..5", "--since", "100d", "--to", "first-replay"],
        &["--seq", "0..4", "--since", "101d", "--to", "first-replay"],
        &["--seq", "0..4", "--since", "100d"],
    ];
    for other in others {
        let output = home.verb(&[&["replay"], other, &["--yes", "--progress", "state.json"]].concat());
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains("--since 100d --seq 0..4 --to first-replay"), "{error}");
    }
    let text_file = home.verb(&["replay", "--all", "--yes", "--progress", "hookhold.toml"]);
    assert!(text_file.status.code() == Some(2) && text(&text_file.stderr).contains("name another file"));
    assert_eq!(std::fs::read(&file).expect("the file exists"), before);
    assert_eq!(kafka.records("first-replay").len(), 5);
}

#[test]
fn a_dry_run_counts_and_a_replay_needs_a_confirmation() {
    let kafka = kafka::shared();
    kafka.create_topic("untouched", 1, &[]);
    let home = fixture::home(&[("stripe", "untouched"), ("other", "untouched")], Some(&kafka.bootstrap()));
    let events: Vec<Stored> = (0..10).map(|n| Stored::new(["stripe", "other"][n % 2], n)).collect();
    StoredWriter::open(&home).append(&events).close();
    let (code, count, _) = replay(&home, &["--all", "--dry-run", "--progress", "state.json"]);
    let bytes: usize = events.iter().map(|event| event.body().len()).sum();
    assert_eq!((code, &count["matched"], &count["bytes"]), (Some(0), &10.into(), &bytes.into()));
    assert_eq!(count["first_received_at"], UnixMillis(events[0].at).rfc3339());
    assert_eq!(count["last_received_at"], UnixMillis(events[9].at).rfc3339());
    let rows = count["rows"].as_array().expect("a list");
    assert_eq!(rows.iter().map(|row| &row["events"]).collect::<Vec<_>>(), [5, 5]);
    assert_eq!((&rows[0]["source"], &rows[1]["type"]), (&"other".into(), &"invoice.paid".into()));
    let shown = text(&home.verb(&["replay", "--all", "--dry-run"]).stdout);
    assert!(shown.contains("SOURCE") && shown.contains("10 events") && shown.contains("their own topics"), "{shown}");
    for (args, part) in [
        (&["replay", "--all"][..], "--yes: expected a confirmation, found no terminal"),
        (&["replay"], "expected a selection of events"),
        (&["replay", "--to", "untouched", "--yes"], "--all"),
        (&["replay", "--seq", "9..5"], "expected sequence numbers"),
        (&["replay", "--all", "--to", "localhost:3000"], "--to: expected a topic or a URL"),
        (&["replay", "--all", "--skip-failed", "--yes"], "--skip-failed: expected a URL in --to"),
    ] {
        let output = home.verb(args);
        assert!(output.status.code() == Some(2) && text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
    assert!(kafka.records("untouched").is_empty() && !home.journal().with_file_name("state.json").exists());
    let (code, report, messages) = replay(&home, &["--source", "strip", "--yes"]);
    assert_eq!((code, &report["sent"]), (Some(0), &0.into()));
    assert!(messages.contains("did you mean stripe?"), "{messages}");
}

#[test]
fn a_missing_topic_and_an_unknown_id_are_errors_before_anything_is_sent() {
    let kafka = kafka::shared();
    let home = fixture::home(&[("stripe", "unused")], Some(&kafka.bootstrap()));
    StoredWriter::open(&home).append_all((0..3).map(|n| Stored::new("stripe", n))).close();
    for args in [&["replay", "--all", "--to", "missing", "--dry-run"][..], &["replay", "--all", "--to", "missing", "--yes"]] {
        let output = home.verb(args);
        let errors = text(&output.stderr);
        assert!(
            output.status.code() == Some(1) && errors.contains("--to: missing: expected the topic, found no topic of this name"),
            "{errors}"
        );
        assert!(errors.contains("--create") && errors.contains("--topic missing"), "the error has the command: {errors}");
    }
    for how in ["--yes", "--dry-run"] {
        let unknown = home.verb(&["replay", "--id", "evt_none", "--to", "missing", how]);
        assert!(unknown.status.code() == Some(1) && text(&unknown.stderr).contains("expected a stored event with this id"));
    }
}

#[test]
fn on_a_terminal_replay_shows_the_numbers_and_asks() {
    let kafka = kafka::shared();
    kafka.create_topic("asked", 1, &[]);
    let home = fixture::home(&[("stripe", "asked")], Some(&kafka.bootstrap()));
    StoredWriter::open(&home).append_all((0..10).map(|n| Stored::new("stripe", n))).close();
    let dir = home.journal().with_file_name("");
    for (answer, code, count) in [("n\n", 1, 0), ("\n", 1, 0), ("y\n", 0, 10)] {
        let (found, shown) = terminal::run(&dir, &["replay", "--all"], answer);
        assert!(found == code && shown.contains("invoice.paid") && shown.contains("Send these events? [y/N]"), "{shown}");
        assert_eq!(kafka.records("asked").len(), count, "{shown}");
    }
}

/// librdkafka sends the records in flight again. The brokers drop most second copies, but a broker that was killed may have forgotten what
/// it needs for that.
#[test]
fn a_replay_survives_a_restart_of_the_broker() {
    let mut kafka = Kafka::start();
    kafka.create_topic("restarted", 3, &[]);
    let home = fixture::home(&[("stripe", "unused")], Some(&kafka.bootstrap()));
    StoredWriter::open(&home).append_all((0..2_000).map(|n| Stored::new("stripe", n))).close();
    let child = spawn(&home, "--all --to restarted --yes --rate 500/s");
    kafka.wait_for_records("restarted", 100);
    kafka.kill();
    kafka.restart();
    let (code, report, messages) = finished(child);
    assert_eq!((code, &report["sent"]), (Some(0), &2_000.into()), "{messages}");
    let records = kafka.records("restarted");
    assert_key_order(&records);
    let distinct = records.iter().map(Record::seq).collect::<BTreeSet<_>>().len();
    assert!(distinct == 2_000 && records.len() <= 3_000, "{distinct} of {}: {messages}", records.len());
}

#[test]
fn the_printed_command_resumes_after_the_broker_was_away() {
    let mut kafka = Kafka::start();
    kafka.create_topic("later", 3, &[]);
    let home = fixture::home(&[("stripe", "unused")], Some(&kafka.bootstrap()));
    StoredWriter::open(&home).append_all((0..50).map(|n| Stored::new("stripe", n))).close();
    kafka.terminate();
    let (code, report, messages) = replay(&home, &["--seq", "10..", "--to", "later", "--yes", "--timeout", "3s"]);
    assert_eq!((code, &report["sent"], &report["next_seq"]), (Some(1), &0.into(), &10.into()));
    let error = messages.lines().last().expect("a line");
    assert!(error.contains("later: expected an acknowledgement within 3 s") && error.contains("start the brokers"), "{error}");
    assert!(error.contains("resume with: hookhold replay "), "{error}");
    kafka.restart();
    let (code, resumed, messages) = paste(&home, &report);
    assert_eq!((code, &resumed["sent"], &resumed["replay"]), (Some(0), &40.into(), &report["replay"]), "{messages}");
    let records = without_replay_headers(kafka.records("later"), report["replay"].as_str().expect("an id"));
    assert_eq!(records.iter().map(Record::seq).collect::<BTreeSet<_>>(), (10..50).collect());
}

/// The brokers reject each batch that contains a record that is too large, or a whole batch that is.
#[test]
fn only_records_that_kafka_rejects_alone_are_missing() {
    let kafka = kafka::shared();
    kafka.create_topic("narrow-replay", 2, &[("max.message.bytes", "2000")]);
    let home = fixture::home(&[("stripe", "unused")], Some(&kafka.bootstrap()));
    let large: Vec<usize> = vec![0, 7, 8, 100, 150, 299];
    let size = |n: usize| if large.contains(&n) { 4_000 } else { 100 };
    StoredWriter::open(&home).append_all((0..300).map(|n| Stored::new("stripe", n).with_note(size(n)))).close();
    let (code, report, messages) = replay(&home, &["--all", "--to", "narrow-replay", "--yes"]);
    assert_eq!((code, &report["sent"], &report["rejected"]), (Some(1), &294.into(), &6.into()), "{messages}");
    assert_eq!(report["complete"], true);
    let named: Vec<&str> = messages.lines().filter(|line| line.contains(": Kafka rejects the event: ")).collect();
    for (line, n) in named.iter().zip(&large) {
        assert!(line.contains(&format!("-{n}: ")), "{line}");
    }
    assert_eq!(named.len(), large.len());
    let mut found = seqs(&kafka.records("narrow-replay"));
    found.sort();
    assert!(found.into_iter().eq((0..300).filter(|n| !large.contains(&(*n as usize)))), "an event is missing or arrived twice");
}

#[test]
fn events_that_retention_has_deleted_are_reported_as_gaps() {
    let receiver = Receiver::start();
    let home = fixture::home(&[("stripe", "unused")], None);
    let writer = StoredWriter::open_small(&home);
    let event = |n| Stored::new("stripe", n).with_note(8_000);
    let mut written = 0;
    while fixture::journal(&home).stat().expect("the journal can be read").oldest == 0 {
        writer.append_all((written..written + 50).map(event));
        written += 50;
    }
    // A closed journal deletes no further segment.
    writer.close();
    let (code, count, messages) = replay(&home, &["--seq", "0..", "--to", &receiver.url(), "--dry-run"]);
    assert_eq!(code, Some(0));
    let oldest = count["first_seq"].as_u64().expect("a number");
    assert_eq!((&count["gaps"][0]["first_seq"], &count["gaps"][0]["last_seq"]), (&0.into(), &(oldest - 1).into()));
    assert!(messages.contains(&format!("the sequences 0 to {} cannot be sent", oldest - 1)), "{messages}");
    let (_, _, messages) = replay(&home, &["--since", "2020-01-01", "--to", &receiver.url(), "--dry-run"]);
    assert!(messages.contains("the oldest stored event was received at"), "{messages}");

    // The receiver answers the first request only after the writer has deleted all events that the replay is to send.
    let end = written as u64;
    let child = spawn(&home, &format!("--seq {oldest}.. --to {}", receiver.url()));
    let first = receiver.next();
    assert_eq!(first.field("hookhold-seq"), oldest.to_string());
    let writer = StoredWriter::open_small(&home);
    while fixture::journal(&home).stat().expect("the journal can be read").oldest < end {
        writer.append_all((written..written + 50).map(event));
        written += 50;
    }
    first.answer(200);
    receiver.answer_all();
    let (code, report, messages) = finished(child);
    writer.close();
    let sent = report["sent"].as_u64().expect("a number");
    let gaps = report["gaps"].as_array().expect("a list");
    let missing: u64 = gaps.iter().map(|gap| 1 + gap["last_seq"].as_u64().unwrap() - gap["first_seq"].as_u64().unwrap()).sum();
    assert!(missing > 0 && sent > 0 && sent + missing == end - oldest, "{sent} {report} {messages}");
    assert_eq!((code, &report["complete"]), (Some(1), &true.into()), "{messages}");
}

#[test]
fn a_url_receives_the_original_requests_in_order() {
    let receiver = Receiver::start();
    let home = fixture::home(&[("stripe", "unused")], None);
    let events: Vec<Stored> = (0..5).map(|n| Stored::new("stripe", n)).collect();
    StoredWriter::open(&home).append(&events).close();
    let child = spawn(&home, &format!("--seq 1.. --to {}", receiver.url()));
    let mut replays = BTreeSet::new();
    for (seq, event) in events.iter().enumerate().skip(1) {
        // A status that may pass causes another attempt.
        for status in if seq == 2 { &[503, 429, 204][..] } else { &[200] } {
            let request = receiver.next();
            assert_eq!((request.field("hookhold-seq"), &*request.line), (&*seq.to_string(), "POST /hook HTTP/1.1"));
            assert_eq!((text(&request.body), request.field("content-type")), (event.body(), "application/json"));
            assert!(request.field("stripe-signature").starts_with("t="));
            assert_eq!(request.field("hookhold-log").len(), 16);
            let _: jiff::Timestamp = request.field("hookhold-replayed-at").parse().expect("a time");
            replays.insert(request.field("hookhold-replay").to_owned());
            request.answer(*status);
        }
    }
    let (code, report, messages) = finished(child);
    assert_eq!((code, &report["sent"]), (Some(0), &4.into()), "{messages}");
    assert_eq!(replays.into_iter().collect::<Vec<_>>(), [report["replay"].as_str().expect("an id")]);
}

#[test]
fn inspect_shows_the_replays_that_have_sent_an_event() {
    let receiver = Receiver::start();
    let home = fixture::home(&[("stripe", "unused")], None);
    StoredWriter::open(&home).append_all((0..4).map(|n| Stored::new("stripe", n))).close();
    let send = |selection: &str| {
        let child = spawn(&home, &format!("{selection} --to {}", receiver.url()));
        let (code, report, messages) = finished(child);
        assert_eq!(code, Some(0), "{messages}");
        report["replay"].as_str().expect("an id").to_owned()
    };
    let replays = |seq: &str| -> Vec<Value> {
        let output = home.verb(&["inspect", seq, "--format", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("one object");
        report["replays"].as_array().expect("a list").clone()
    };
    assert!(replays("1").is_empty());
    receiver.answer_all();
    let (one, two) = (send("--seq 1..2"), send("--seq 2"));
    let ids = |seq: &str| -> Vec<Value> { replays(seq).iter().map(|replay| replay["replay"].clone()).collect() };
    assert_eq!([ids("0"), ids("3")], [Vec::<Value>::new(), Vec::new()], "these events were not sent");
    assert_eq!((ids("1"), ids("2")), (vec![one.clone().into()], vec![one.into(), two.clone().into()]));
    let shown = text(&home.verb(&["inspect", "2"]).stdout);
    assert!(
        shown.contains("\nreplayed ")
            && shown.contains(&format!("to {}, until ", receiver.url()))
            && shown.contains(&format!(" (replay {two})\nrequest ")),
        "{shown}"
    );
}

#[test]
fn an_event_that_the_url_rejects_stops_the_replay_or_is_skipped() {
    let receiver = Receiver::start();
    let home = fixture::home(&[("stripe", "unused")], None);
    StoredWriter::open(&home).append_all((0..6).map(|n| Stored::new("stripe", n))).close();
    let child = spawn(&home, &format!("--all --to {} --progress state.json", receiver.url()));
    [200, 200, 404].into_iter().for_each(|status| receiver.next().answer(status));
    let (code, report, messages) = finished(child);
    assert_eq!((code, &report["sent"], &report["next_seq"]), (Some(1), &2.into(), &2.into()), "{messages}");
    let error = messages.lines().last().expect("a line");
    assert!(error.contains("expected a 2xx status from ") && error.contains("found 404") && error.contains("--skip-failed"));

    let child = spawn(&home, &format!("--all --to {} --progress state.json --skip-failed", receiver.url()));
    let request = receiver.next();
    assert_eq!(request.field("hookhold-seq"), "2");
    request.answer(404);
    receiver.next().answer(200);
    let request = receiver.next();
    signal(&child, Signal::TERM);
    request.answer(200);
    let (code, stopped, messages) = finished(child);
    assert_eq!((code, &stopped["sent"], &stopped["skipped"]), (Some(143), &2.into(), &1.into()), "{messages}");

    receiver.answer_all();
    let (code, last, messages) = paste(&home, &stopped);
    assert_eq!((code, &last["sent"], &last["replay"]), (Some(0), &1.into(), &report["replay"]), "{messages}");
}

#[test]
fn without_kafka_the_error_names_the_option_to() {
    let home = fixture::home(&[("stripe", "unused")], None);
    StoredWriter::open(&home).append_all((0..1).map(|n| Stored::new("stripe", n))).close();
    for args in [&["replay", "--all", "--yes"][..], &["replay", "--all", "--yes", "--to", "a-topic"]] {
        let output = home.verb(args);
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains("--to URL") && error.lines().count() == 1, "{error}");
    }
}
