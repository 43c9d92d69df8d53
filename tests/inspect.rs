//! Tests `hookhold inspect` on a journal without a gateway, and with the real gateway and a real broker: the event that it shows, its
//! record in Kafka or the reason why there is none, and the repeated verification.

#[path = "common/audit.rs"]
mod audit;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/journal_home.rs"]
mod journal_home;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/load.rs"]
mod load;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fixture::stop;
use hookhold::clock::UnixMillis;
use hookhold::event::{Event, LogId, Position};
use hookhold::journal::{Journal, ParkingNote, StoredEvent};
use journal_home::{AT, Harness, flip_a_bit_inside, text};
use kafka::{Kafka, Record};
use load::request;
use process::{Home, Line, Process, wait_until};
use serde_json::Value;

/// Runs `inspect` with these arguments, and returns its output.
fn inspect(harness: &Harness, args: &[&str]) -> Output {
    harness.command(&[&["inspect"], args].concat()).output().unwrap()
}

/// Returns what `inspect` prints. Panics if it fails.
fn shown(harness: &Harness, args: &[&str]) -> String {
    let output = inspect(harness, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Returns the only object that `inspect --format json` prints.
fn object(harness: &Harness, args: &[&str]) -> Value {
    let mut lines = harness.lines(&[&["inspect"], args].concat());
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// Returns the value of a line of the report.
fn value<'s>(shown: &'s str, name: &str) -> &'s str {
    let line = shown.lines().find(|line| line.starts_with(&format!("{name} ")) || *line == name);
    line.unwrap_or_else(|| panic!("no {name} in {shown}"))[name.len()..].trim()
}

/// Asserts that `inspect` finds no event, and returns its error message.
fn missing(harness: &Harness, args: &[&str]) -> String {
    let output = inspect(harness, args);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &[][..]), "{args:?}: {said}");
    said
}

fn stored_event(seq: u64, event: Event) -> StoredEvent {
    StoredEvent { position: Position { log: LogId(0xfeed), seq }, event }
}

/// Replaces the position of an event in a journal by text.
fn position_of(harness: &Harness, seq: u64) -> String {
    object(harness, &[&seq.to_string()])["event"].as_str().unwrap().to_owned()
}

#[test]
fn a_sequence_a_position_and_an_id_show_the_same_event() {
    let harness = Harness { forwards: false, ..Harness::new() };
    let journal = harness.open();
    for number in 0..5 {
        harness.append(&journal, "stripe", &format!("evt_{number}"), AT);
    }
    for closed in [false, true] {
        if closed {
            journal.close();
        }
        let report = shown(&harness, &["3"]);
        for (name, expected) in [
            ("source", "stripe"),
            ("type", "invoice.paid"),
            ("id", "evt_3"),
            ("received", "2026-11-21T07:08:13.042Z"),
            ("topic", "webhooks.stripe"),
            ("auth", "mac-sha256:secret"),
            ("integrity", "full"),
            ("kafka", "there is no [kafka] section, so the journal is the destination"),
            ("verifies now", "yes, with secret"),
            ("request", "POST /hooks/stripe from 127.0.0.1:4000"),
        ] {
            assert_eq!(value(&report, name), expected, "{report}");
        }
        assert!(
            report.contains("\n  stripe-signature: t=1795244893,v1=") && report.contains("\n  \"id\": \"evt_3\",\n"),
            "{report}"
        );
        let position = value(&report, "event").to_owned();
        assert_eq!(shown(&harness, &[&position]), report);
        assert_eq!(shown(&harness, &["evt_3"]), report);
        assert_eq!(shown(&harness, &["evt_3", "--source", "stripe"]), report);
        let found = object(&harness, &["evt_3"]);
        assert_eq!((&found["seq"], &found["event"], &found["method"]), (&3.into(), &position.into(), &"POST".into()));
        assert_eq!((&found["verifies"]["now"], &found["verifies"]["secret"]), (&true.into(), &"secret".into()));
        assert_eq!(found["kafka"]["state"], "no_kafka");
        let body = STANDARD.decode(found["body_base64"].as_str().unwrap()).unwrap();
        assert_eq!(inspect(&harness, &["3", "--body"]).stdout, body);
        assert!(found["headers"].as_array().unwrap().iter().any(|header| header[0] == "stripe-signature"), "{found}");
    }
}

#[test]
fn several_events_with_one_id_are_listed() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.append(&journal, "stripe", "0e9f", AT);
    harness.append(&journal, "github", "0e9f", AT);
    harness.append_event(&journal, &harness.event("stripe", "0e9f", AT).with_account("acct_2".into()));
    harness.append(&journal, "stripe", "another", AT);
    journal.close();
    let output = inspect(&harness, &["0e9f"]);
    let (listed, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), listed.lines().count()), (Some(0), 3), "{listed}");
    assert!(listed.contains("  stripe/acct_2  ") && listed.contains("  github  "), "{listed}");
    assert!(said.contains("3 events have this id") && said.contains("sequence number"), "{said}");
    let lines = harness.lines(&["inspect", "0e9f"]);
    assert_eq!(lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(value(&shown(&harness, &["0e9f", "--source", "github"]), "source"), "github");
    assert_eq!(value(&shown(&harness, &["2"]), "source"), "stripe/acct_2");
    assert!(missing(&harness, &["0e9f", "--body"]).contains("expected one event, found 3"));
}

#[test]
fn an_unknown_event_is_explained() {
    let harness = Harness::new();
    assert!(missing(&harness, &["evt_1"]).contains("create the journal with `hookhold run`"));
    let journal = harness.open();
    assert!(missing(&harness, &["evt_1"]).contains("found none among 0 events; "));
    harness.append(&journal, "stripe", "evt_1", AT);
    harness.append(&journal, "stripe", "evt_2", AT + 1000);
    journal.close();
    let said = missing(&harness, &["evt_3"]);
    let searched = "none among 2 events, received from 2026-11-21T07:08:13.042Z to 2026-11-21T07:08:14.042Z";
    for part in ["evt_3: expected a stored event", searched, "hookhold rejections --id", "types", "retain", "duplicates"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
    missing(&harness, &["7"]);
    missing(&harness, &["0000000000000000-1"]);
    missing(&harness, &["evt_1", "--source", "github"]);
    assert!(missing(&harness, &["evt_1", "--source", "strip"]).contains("did you mean stripe?"));
    let usage = inspect(&harness, &["1", "--timeout", "1ms"]);
    assert_eq!(usage.status.code(), Some(2), "{}", text(&usage.stderr));
}

#[test]
fn a_number_is_an_id_if_no_event_has_this_sequence() {
    let harness = Harness::new();
    let journal = harness.open();
    for id in ["900", "0", "900-1"] {
        harness.append(&journal, "stripe", id, AT);
    }
    journal.close();
    assert_eq!(object(&harness, &["900"])["seq"], 0);
    assert_eq!(object(&harness, &["900-1"])["seq"], 2);
    assert_eq!(object(&harness, &["0"])["id"], "900", "a number is first of all a sequence");
    assert_eq!(object(&harness, &["0", "--id"])["seq"], 1);
    assert!(missing(&harness, &["2", "--id"]).contains("with this id, found none"));
}

#[test]
fn ids_with_unusual_characters_are_found_and_escaped() {
    let harness = Harness::new();
    let journal = harness.open();
    let ids = ["a b'\"$x\\", "\u{1b}[31mred", "\u{202e}dlrow", "会議/é?&#%20", &"long".repeat(100)];
    for id in ids {
        harness.append(&journal, "stripe", id, AT);
    }
    journal.close();
    for (seq, id) in ids.into_iter().enumerate() {
        assert_eq!(object(&harness, &[id])["seq"], seq, "{id:?}");
        let report = shown(&harness, &[id]);
        assert!(!report.contains(['\u{1b}', '\u{202e}']), "{report:?}");
    }
    assert!(!missing(&harness, &["\u{1b}[31m"]).contains('\u{1b}'));
}

#[test]
fn an_event_is_verified_with_the_secrets_of_today() {
    let mut harness = Harness::new();
    let journal = harness.open();
    harness.append(&journal, "stripe", "evt_0", AT);
    let secret = |name: &str, text: &str| fs::write(harness.dir.path().join(name), text).unwrap();
    // The event is days old, but its timestamp was right when it arrived.
    assert_eq!(value(&shown(&harness, &["0"]), "verifies now"), "yes, with secret");
    secret("secret", "whsec_YW5vdGhlciBzZWNyZXQ=");
    let rotated = shown(&harness, &["0"]);
    assert!(value(&rotated, "verifies now").starts_with("no: signature_mismatch: "), "{rotated}");
    let found = object(&harness, &["0"]);
    assert_eq!((&found["verifies"]["now"], &found["verifies"]["outcome"]), (&false.into(), &"signature_mismatch".into()));
    fs::remove_file(harness.dir.path().join("secret")).unwrap();
    let without = shown(&harness, &["0"]);
    assert_eq!(value(&without, "verifies now"), "cannot be verified again: this shell cannot read the secret secret");
    assert_eq!((value(&without, "id"), object(&harness, &["0"])["verifies"]["now"].clone()), ("evt_0", Value::Null));
    secret("secret", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0");

    secret("token", "a long and secret token");
    let token = harness.dir.path().join("token");
    harness.configure(&format!(
        "[sources.token]\nauth = \"token\"\ntoken = {{ from = \"header:X-Api-Key\" }}\nevent = {{ id = \"json:/id\" }}\nsecrets = [\"file:{}\"]\n",
        token.display()
    ));
    harness.append_event(&journal, &harness.event_with_body("token", "", br#"{"id":"evt_1"}"#));
    let unverifiable = shown(&harness, &["evt_1"]);
    assert_eq!(value(&unverifiable, "verifies now"), "cannot be verified again: the token is not stored");
    assert!(!unverifiable.contains("a long and secret token"), "{unverifiable}");
    harness.configure(&format!(
        "[sources.batch]\nauth = \"mac\"\nalgorithm = \"sha256\"\nsignature = {{ from = \"header:X-Signature\" }}\n\
         content = [\"body\"]\nsecrets = [\"file:{}\"]\nevent = {{ batch = \"\", id = \"json:/id\" }}\nsplit = true\n",
        token.display()
    ));
    harness.append_event(&journal, &harness.event_with_body("batch", "", br#"[{"id":"item_1"},{"id":"item_2"}]"#));
    let item = shown(&harness, &["item_1"]);
    assert!(value(&item, "verifies now").starts_with("cannot be verified again: the event is one item of a batch, "), "{item}");
    let file = harness.dir.path().join("hookhold.toml");
    let others = fs::read_to_string(&file).unwrap().replace("sources.stripe", "sources.renamed");
    fs::write(&file, others).unwrap();
    assert_eq!(
        value(&shown(&harness, &["0"]), "verifies now"),
        "cannot be verified again: the configuration has no source stripe"
    );
    journal.close();
}

#[test]
fn a_binary_body_is_dumped_and_printed_exactly() {
    let harness = Harness::new();
    let journal = harness.open();
    let binary = b"\x1b[31mred\x00\xff\xfe\x9b1m";
    harness.append_event(&journal, &harness.event_with_body("github", "0e9f", binary));
    harness.append_event(&journal, &harness.event_with_body("github", "0ea0", b"plain text\nof two lines"));
    journal.close();
    let report = shown(&harness, &["0"]);
    let dumped = "\n00000000  1b 5b 33 31 6d 72 65 64 00 ff fe 9b 31 6d        .[31mred....1m\n";
    assert!(report.contains(dumped), "{report}");
    assert_eq!(value(&report, "body"), "14 B, binary");
    assert_eq!(inspect(&harness, &["0", "--body"]).stdout, binary);
    assert!(shown(&harness, &["1"]).ends_with(", text\n\nplain text\nof two lines\n"));
}

#[test]
fn a_huge_body_is_cut_on_the_terminal_only() {
    let harness = Harness::new();
    let journal = harness.open();
    let body = format!("{{\"list\":[{}12345678901234567890.10]}}", "1.0,".repeat(1 << 18));
    harness.append_event(&journal, &harness.event_with_body("github", "0e9f", body.as_bytes()));
    journal.close();
    let report = shown(&harness, &["0e9f"]);
    assert!(report.len() < 32 << 10, "{} bytes", report.len());
    let last = report.lines().last().unwrap();
    let cut: usize = last.strip_prefix("… ").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(cut > body.len() - (16 << 10) && last.ends_with(" more bytes; --body prints the exact bytes"), "{last}");
    assert_eq!(inspect(&harness, &["0e9f", "--body"]).stdout, body.as_bytes());
}

#[test]
fn damage_hides_only_the_damaged_event() {
    let harness = Harness::new();
    let journal = harness.open();
    for number in 0..9 {
        harness.append(&journal, "stripe", &format!("evt_{number}_"), AT);
    }
    journal.close();
    flip_a_bit_inside("evt_4_", &harness.segments());
    missing(&harness, &["evt_4_"]);
    missing(&harness, &["4"]);
    for seq in [0, 3, 5, 8] {
        assert_eq!(object(&harness, &[&format!("evt_{seq}_")])["seq"], seq);
        assert_eq!(object(&harness, &[&seq.to_string()])["id"], format!("evt_{seq}_"));
    }
}

#[test]
fn a_parked_event_is_shown_even_after_its_deletion_from_the_journal() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.append(&journal, "stripe", "evt_0", AT);
    let note = ParkingNote {
        reason: "too_large".into(),
        detail: "Broker: Message size too large".into(),
        parked_at: UnixMillis(AT + 5),
    };
    journal.park(&stored_event(700, harness.event("stripe", "evt_700", AT)), &note).unwrap();
    journal.close();
    for name in ["700", "000000000000feed-700", "evt_700"] {
        let report = shown(&harness, &[name]);
        let fate = value(&report, "kafka");
        for part in [
            "parked at 2026-11-21T07:08:13.047Z",
            "too_large: Broker: Message size",
            "`hookhold parked show 000000000000feed-700`",
        ] {
            assert!(fate.contains(part), "{report}");
        }
        assert_eq!((value(&report, "id"), value(&report, "verifies now")), ("evt_700", "yes, with secret"));
    }
    let found = object(&harness, &["evt_700"]);
    assert_eq!((&found["kafka"]["state"], &found["kafka"]["reason"]), (&"parked".into(), &"too_large".into()));
    assert_eq!(object(&harness, &["evt_0"])["kafka"]["state"], "no_kafka");
}

#[test]
fn a_parked_body_is_printed_exactly() {
    let harness = Harness::new();
    let journal = harness.open();
    let binary = b"\x1b[31mred\x00\xff\x9b1m";
    let note = ParkingNote { reason: "invalid".into(), detail: String::new(), parked_at: UnixMillis(AT) };
    journal.park(&stored_event(700, harness.event_with_body("github", "0e9f", binary)), &note).unwrap();
    journal.close();
    assert_eq!(harness.command(&["parked", "show", "700", "--body"]).output().unwrap().stdout, binary);
    assert_eq!(inspect(&harness, &["700", "--body"]).stdout, binary);
}

/// Stores events of two topics, of which Kafka has acknowledged the first ones, and configures brokers that do not exist.
fn with_absent_kafka() -> (Harness, Journal, std::net::UdpSocket) {
    let mut harness = Harness::new();
    let (address, reserved) = ports::reserve();
    harness.configure(&format!("[kafka]\nbootstrap.servers = \"{address}\"\n"));
    let journal = harness.open();
    for number in 0..10 {
        harness.append(&journal, if number % 2 == 0 { "stripe" } else { "github" }, &format!("evt_{number}"), AT);
    }
    journal.save_cursor("webhooks.stripe", 4, 1);
    (harness, journal, reserved)
}

#[test]
fn the_cursor_says_what_is_known_while_kafka_is_away() {
    let (harness, journal, _reserved) = with_absent_kafka();
    journal.close();
    let kafka = |seq: &str| object(&harness, &[seq, "--timeout", "1s"])["kafka"].clone();
    let (acknowledged, next, later, other) = (kafka("2"), kafka("4"), kafka("8"), kafka("5"));
    assert_eq!((&acknowledged["state"], &acknowledged["cursor"]), (&"acknowledged".into(), &4.into()), "{acknowledged}");
    assert!(acknowledged["error"].as_str().unwrap().contains("expected an answer from Kafka within 1s"), "{acknowledged}");
    assert_eq!((&next["state"], &next["waiting_before"]), (&"waiting".into(), &0.into()), "{next}");
    assert_eq!((&later["state"], &later["waiting_before"]), (&"waiting".into(), &2.into()), "{later}");
    assert_eq!((&other["state"], &other["waiting_before"]), (&"waiting".into(), &2.into()), "the topic has no cursor: {other}");
    let report = shown(&harness, &["8", "--timeout", "1s"]);
    let fate = value(&report, "kafka");
    assert!(fate.starts_with("waiting for the topic webhooks.stripe, 2 events of the topic wait before it; "), "{report}");
    assert!(
        shown(&harness, &["2", "--timeout", "1s"]).contains("acknowledged: the cursor of the topic webhooks.stripe is past it; ")
    );
    let file = harness.dir.path().join("hookhold.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("provider = \"github\"", "topic = \"elsewhere\"\nprovider = \"github\"")).unwrap();
    let report = shown(&harness, &["5", "--timeout", "1s"]);
    assert!(value(&report, "kafka").contains("; no source forwards to this topic any more; "), "{report}");
    // The secrets of the sources are not needed, but Kafka's are.
    fs::remove_file(harness.dir.path().join("secret")).unwrap();
    let report = shown(&harness, &["2", "--timeout", "1s"]);
    assert!(value(&report, "kafka").contains("expected an answer from Kafka within 1s"), "{report}");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("[kafka]\n", "[kafka]\nsasl.password = \"file:absent\"\n")).unwrap();
    let report = shown(&harness, &["2"]);
    assert!(value(&report, "kafka").contains("Kafka was not asked, because the configuration cannot be read: "), "{report}");
}

#[test]
fn a_topic_that_waits_without_kafka_is_named() {
    let (harness, journal, _reserved) = with_absent_kafka();
    journal.close();
    let file = harness.dir.path().join("hookhold.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.split("[kafka]").next().unwrap()).unwrap();
    let report = shown(&harness, &["8"]);
    assert!(value(&report, "kafka").contains("`hookhold journal release webhooks.stripe`"), "{report}");
    assert!(value(&shown(&harness, &["2"]), "kafka").contains("the journal is the destination"));
}

/// The journal's directory belongs to the user of hookhold. As root, the test runs the command as another user.
#[test]
fn another_user_gets_the_remedy() {
    let harness = Harness::new();
    harness.open().close();
    let dir = harness.dir.path();
    let is_root = rustix::process::geteuid().is_root();
    let mut command = if is_root {
        let program = dir.join("hookhold");
        fs::copy(env!("CARGO_BIN_EXE_hookhold"), &program).unwrap();
        fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = Command::new(program);
        command.uid(65_534).gid(65_534);
        command
    } else {
        fs::set_permissions(&harness.config.journal.dir, PermissionsExt::from_mode(0o000)).unwrap();
        Command::new(env!("CARGO_BIN_EXE_hookhold"))
    };
    let output = command.args(["inspect", "0"]).current_dir(dir).output().unwrap();
    fs::set_permissions(&harness.config.journal.dir, PermissionsExt::from_mode(0o700)).unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("run this command as the user of hookhold"), "{said}");
}

/// Sends a delivery with this id, and expects that hookhold stores it.
fn send(home: &Home, source: &str, id: &str) {
    let source = fixture::source(home, source);
    assert_eq!(Line::open(home.hooks).ask(&request(&source, id.to_owned())).status, 200, "{id}");
}

/// Returns the object about the fate of an event.
fn fate(home: &Home, event: &str) -> Value {
    let output = home.verb(&["inspect", event, "--format", "json", "--timeout", "60s"]);
    assert_eq!(output.status.code(), Some(0), "{event}: {}", text(&output.stderr));
    let mut found: Value = serde_json::from_str(&text(&output.stdout)).expect("one line of JSON");
    found["kafka"].take()
}

fn expect_at(fate: &Value, topic: &str, record: &Record) {
    let expected = (&Value::from("found"), &Value::from(topic), &Value::from(record.partition), &Value::from(record.offset));
    assert_eq!((&fate["state"], &fate["topic"], &fate["partition"], &fate["offset"]), expected, "{fate}");
}

fn wait_until_acknowledged(home: &Home, process: &Process<'_>, topic: &str) {
    fixture::wait_until_forwarded(process, topic);
    // The gateway saves a moved cursor within a second.
    let is_saved = || fixture::saved_topic(home, topic).is_some_and(|saved| saved.waiting == 0 && saved.cursor.is_some());
    wait_until("the cursor is saved", is_saved);
}

#[test]
fn the_partition_and_the_offset_are_those_of_a_consumer() {
    let kafka = kafka::shared();
    kafka.create_topic("found", 4, &[]);
    kafka.create_topic("other-name", 2, &[]);
    let sources = [("stripe", "found"), ("second", "found")];
    let home = fixture::home(&sources, Some(&kafka.bootstrap()));
    let process = home.start();
    for number in 0..40 {
        send(&home, if number % 3 == 0 { "second" } else { "stripe" }, &format!("evt_{number}"));
    }
    wait_until_acknowledged(&home, &process, "found");
    let records = kafka.records("found");
    assert_eq!(records.len(), 40);
    assert!((0..4).all(|partition| records.iter().any(|record| record.partition == partition)), "each partition has records");
    for record in records.iter().step_by(5) {
        expect_at(&fate(&home, &record.seq().to_string()), "found", record);
        expect_at(&fate(&home, record.header("ce_id")), "found", record);
    }
    let shown = text(&home.verb(&["inspect", &records[7].seq().to_string()]).stdout);
    let expected = format!("found/{}@{}", records[7].partition, records[7].offset);
    assert_eq!(value(&shown, "kafka"), expected, "{shown}");
    // A key may have another partition since the event was forwarded.
    kafka.paste(&format!("kafka-topics.sh --bootstrap-server {} --alter --topic found --partitions 7", kafka.bootstrap()));
    for record in records.iter().step_by(9) {
        expect_at(&fate(&home, &record.seq().to_string()), "found", record);
    }
    stop(process);
    expect_at(&fate(&home, &records[0].seq().to_string()), "found", &records[0]);

    // The events that wait go to another topic.
    let config = fixture::config(&sources, Some(&kafka.bootstrap()));
    home.configure(&config.replace("[sources.stripe]", "[kafka.reroute]\nfound = \"other-name\"\n[sources.stripe]"));
    let process = home.start();
    send(&home, "stripe", "evt_rerouted");
    let records = kafka.wait_for_records("other-name", 1);
    wait_until_acknowledged(&home, &process, "found");
    expect_at(&fate(&home, "evt_rerouted"), "other-name", &records[0]);
    stop(process);
}

#[test]
fn an_event_waits_while_kafka_is_away_and_is_found_afterwards() {
    let mut kafka = Kafka::start();
    kafka.create_topic("late", 3, &[]);
    let home = fixture::home(&[("stripe", "late")], Some(&kafka.bootstrap()));
    let process = home.start();
    send(&home, "stripe", "evt_0");
    wait_until_acknowledged(&home, &process, "late");
    kafka.kill();
    (1..5).for_each(|number| send(&home, "stripe", &format!("evt_{number}")));
    let ask = |event: &str| {
        let output = home.verb(&["inspect", event, "--format", "json", "--timeout", "2s"]);
        let found: Value = serde_json::from_str(&text(&output.stdout)).expect("one line of JSON");
        found["kafka"].clone()
    };
    let (first, last) = (ask("evt_0"), ask("evt_4"));
    assert_eq!((&first["state"], &first["topic"]), (&"acknowledged".into(), &"late".into()), "{first}");
    assert_eq!((&last["state"], &last["waiting_before"]), (&"waiting".into(), &3.into()), "{last}");
    assert!(last["error"].as_str().is_some_and(|error| error.contains("start the brokers")), "{last}");
    kafka.restart();
    wait_until_acknowledged(&home, &process, "late");
    let records = kafka.records("late");
    for record in &records {
        expect_at(&fate(&home, record.header("ce_id")), "late", record);
    }
    assert_eq!(records.len(), 5);
    stop(process);
}

#[test]
fn a_parked_a_redriven_and_a_dead_letter_event_are_distinct() {
    let kafka = kafka::shared();
    kafka.create_topic("narrow", 2, &[("max.message.bytes", "500")]);
    kafka.create_topic("letters", 2, &[]);
    let sources = [("stripe", "narrow")];
    let home = fixture::home(&sources, Some(&kafka.bootstrap()));
    let process = home.start();
    send(&home, "stripe", "evt_0");
    wait_until("the event is parked", || process.metric("hookhold_parked_events") == Some(1.0));
    let parked = fate(&home, "evt_0");
    assert_eq!(
        (&parked["state"], &parked["reason"], &parked["topic"]),
        (&"parked".into(), &"too_large".into(), &"narrow".into())
    );
    kafka.configure_topic("narrow", &[("max.message.bytes", "1048588")]);
    send(&home, "stripe", "evt_1");
    wait_until_acknowledged(&home, &process, "narrow");
    assert_eq!(home.verb(&["parked", "redrive"]).status.code(), Some(0));
    let records = kafka.records("narrow");
    let record_of = |id: &str| records.iter().find(|record| record.header("ce_id") == id).expect("a record");
    let (redriven, other) = (fate(&home, "evt_0"), fate(&home, "evt_1"));
    expect_at(&redriven, "narrow", record_of("evt_0"));
    expect_at(&other, "narrow", record_of("evt_1"));
    assert_eq!((&redriven["redriven"], &other["redriven"]), (&true.into(), &false.into()));

    kafka.configure_topic("narrow", &[("max.message.bytes", "500")]);
    let config = fixture::config(&sources, Some(&kafka.bootstrap()));
    home.configure(&config.replace("[kafka]\n", "[kafka]\ndead_letter.topic = \"letters\"\n"));
    assert!(process.reload());
    send(&home, "stripe", "evt_2");
    let letters = kafka.wait_for_records("letters", 1);
    wait_until("no event is parked", || process.metric("hookhold_parked_events") == Some(0.0));
    wait_until_acknowledged(&home, &process, "narrow");
    let letter = fate(&home, "evt_2");
    let place = (&Value::from(letters[0].partition), &Value::from(letters[0].offset));
    assert_eq!((&letter["state"], &letter["topic"]), (&"dead_letter".into(), &"letters".into()), "{letter}");
    assert_eq!((&letter["partition"], &letter["offset"]), place, "{letter}");
    stop(process);
}

#[test]
fn a_record_that_cannot_be_read_or_is_gone_is_explained() {
    let kafka = kafka::shared();
    for topic in ["hidden", "emptied", "deleted"] {
        kafka.create_topic(topic, 1, &[]);
    }
    let sources = [("hidden", "hidden"), ("emptied", "emptied"), ("deleted", "deleted")];
    let home = fixture::home(&sources, Some(&kafka.bootstrap()));
    let process = home.start();
    for (source, topic) in sources {
        send(&home, source, topic);
        wait_until_acknowledged(&home, &process, topic);
    }
    stop(process);
    kafka.delete_topic("deleted");
    kafka.delete_topic("emptied");
    kafka.create_topic("emptied", 1, &[]);
    let servers = kafka.bootstrap();
    kafka.paste(&format!(
        "kafka-acls.sh --bootstrap-server {servers} --add --allow-principal User:ANONYMOUS --operation Write --topic hidden"
    ));
    wait_until("the broker applies the ACL", || fate(&home, "hidden")["state"] == "acknowledged");
    let hidden = fate(&home, "hidden");
    assert!(hidden["error"].as_str().is_some_and(|error| error.contains("Read and Describe")), "{hidden}");
    let emptied = fate(&home, "emptied");
    assert_eq!((&emptied["state"], &emptied["searched"]), (&"absent".into(), &0.into()), "{emptied}");
    let deleted = fate(&home, "deleted");
    assert_eq!(deleted["state"], "acknowledged", "{deleted}");
    assert!(deleted["error"].as_str().is_some_and(|error| error.contains("found no topic of this name")), "{deleted}");
    kafka.allow_writing("hidden");
}

#[test]
fn positions_of_another_opening_name_no_event() {
    let harness = Harness::new();
    let journal = harness.open();
    harness.append(&journal, "stripe", "evt_0", AT);
    journal.close();
    let position = position_of(&harness, 0);
    let other = format!("{:016x}-0", u64::from_str_radix(&position[..16], 16).unwrap() ^ 1);
    assert_eq!(object(&harness, &[&position])["id"], "evt_0");
    missing(&harness, &[&other]);
}
