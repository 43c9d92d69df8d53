//! Tests that SIGHUP reloads the configuration and the secrets completely or not at all. During a reload, hookhold must neither
//! reject nor lose a genuine delivery. An invalid file must change nothing. During a secret rotation, hookhold must accept both
//! secrets.

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
#[path = "common/sdk.rs"]
mod sdk;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::time::{Instant, SystemTime};

use hookhold::source::Source;
use load::{Ledger, Load, request};
use process::{Answer, Home, Line, post, wait_until};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use sdk::{Sample, Sdk};
use serde_json::{Value, json};

#[test]
fn ten_reloads_under_load_reject_and_lose_no_delivery() {
    let kafka = kafka::shared();
    let topics = ["reloaded-0", "reloaded-1", "reloaded-2"];
    topics.iter().for_each(|topic| kafka.create_topic(topic, 3, &[]));
    let secrets: Vec<(String, String)> = (0..=RELOADS).map(|n| (format!("secret-{n}"), format!("whsec_number_{n}"))).collect();
    let secrets: Vec<(&str, &str)> = secrets.iter().map(|(name, text)| (&**name, &**text)).collect();
    // After each reload, the previous secret and the new secret are valid. Every reload changes the topic, the limits and one
    // line of the recipe.
    let config = |n: usize| {
        let accepted = if n == 0 { vec![0] } else { vec![n, n - 1] };
        let references: Vec<String> = accepted.iter().map(|n| format!("\"file:secret-{n}\"")).collect();
        format!(
            "server.drain_delay = \"0s\"\njournal.segment_size = \"8 MiB\"\nserver.max_body = \"{} KiB\"\n\
             [kafka]\nbootstrap.servers = {:?}\n\
             [sources.stripe]\nprovider = \"stripe\"\nsecrets = [{}]\ntopic = {:?}\ntimestamp.past = \"{}m\"\n\
             reply.ok.body = \"reload {n}\"\nheaders = [\"content-type\"]\n",
            1000 + n,
            kafka.bootstrap(),
            references.join(", "),
            topics[n % topics.len()],
            10 + n,
        )
    };
    let home = Home::new(&secrets, &config(0));
    let process = home.start();
    let order = load::Order { rate: Some(RATE as u32), ..fixture::order(&home, "stripe") };
    let (load, began) = (Load::start(order, Ledger::new("reloaded")), Instant::now());
    load.wait_until_sent(RATE);

    for n in 1..=RELOADS {
        home.configure(&config(n));
        assert!(process.reload(), "{}", home.log());
        load.sign_with(fixture::source(&home, "stripe"));
        load.wait_until_sent(load.sent() + RATE / 2);
        let answer = deliver(&home, &fixture::source(&home, "stripe"), &format!("evt_after_{n}"));
        assert_eq!((answer.status, answer.body), (200, format!("reload {n}").into_bytes()));
    }

    let (ledger, took) = (load.stop(), began.elapsed());
    ledger.assert_no_sender_noticed();
    topics.iter().for_each(|topic| fixture::wait_until_forwarded(&process, topic));
    let outcomes: BTreeSet<String> =
        process.deliveries().into_iter().filter(|(_, count)| *count > 0).map(|((_, word), _)| word).collect();
    assert_eq!(outcomes, ["duplicate", "stored"].map(str::to_owned).into());
    for n in 0..=RELOADS {
        let verified = process.metric(&format!("hookhold_verified_total{{secret=\"secret-{n}\",source=\"stripe\"}}"));
        assert!(verified.is_some_and(|count| count > 0.0), "secret-{n} was in use and keeps its counter: {verified:?}");
    }
    fixture::stop(process);

    let mut accepted: BTreeSet<String> = ledger.accepted().collect();
    accepted.extend((1..=RELOADS).map(|n| format!("evt_after_{n}")));
    let mut frames: Vec<_> = topics.iter().flat_map(|topic| fixture::frames(&home, topic)).collect();
    frames.sort_by_key(|frame| frame.seq);
    let records: Vec<_> = topics.iter().flat_map(|topic| fixture::found(&kafka.records(topic))).collect();
    let faults = audit::violations(&accepted, &frames, Some(&records));
    assert!(faults.is_empty(), "{} promises are broken: {:#?}", faults.len(), &faults[..faults.len().min(20)]);
    assert_eq!(records.len(), frames.len(), "no event was forwarded twice");
    let (ids, answers) = (accepted.len(), &ledger.statuses);
    println!("{ids} ids accepted over {RELOADS} reloads in {:.1} s; responses {answers:?}", took.as_secs_f64());
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported() {
    let good = source("stripe", "secrets = [\"file:old\"]\n");
    let home = Home::new(&[("old", "whsec_hush_old"), ("new", "whsec_hush_new")], &good);
    let process = home.start();
    let signer = fixture::source(&home, "stripe");
    let moved = good.replace("file:old", "file:new");
    let broken = [
        ("not TOML", format!("{moved}[sources"), "not TOML"),
        (
            "a secret that does not exist",
            format!("{moved}{}", source("b", "secrets = [\"env:HOOKHOLD_TEST_NOT_SET\"]\n")),
            "sources.b.secrets[0]",
        ),
        ("a recipe with an invalid value", format!("{moved}timestamp.past = \"soon\"\n"), "sources.stripe.timestamp.past"),
        ("a change that needs a restart", format!("server.max_connections = 7\n{moved}"), "server.max_connections"),
        (
            "a new [kafka] section, which needs a restart",
            format!("kafka.\"bootstrap.servers\" = \"localhost:1\"\n{moved}"),
            "kafka.bootstrap.servers",
        ),
    ];
    for (n, (what, text, named)) in broken.iter().enumerate() {
        home.configure(text);
        let logged = home.log().len();
        assert!(!process.reload(), "{what}");
        let log = home.log()[logged..].to_owned();
        assert!(log.contains(named), "{what}: {log}");
        assert_eq!(process.metric("hookhold_config_last_reload_successful"), Some(0.0), "{what}");
        assert_eq!(deliver(&home, &signer, &format!("evt_{n}")).status, 200, "{what}");
        let (code, shown) = diff(&home, &["--url", &format!("http://{}", home.admin)]);
        assert_eq!(code, Some(if named.contains("server.") || named.contains("kafka.") { 1 } else { 2 }), "{what}: {shown}");
        assert!(shown.contains(named), "{what}: {shown}");
        assert!(![&log, &shown].iter().any(|text| text.contains("hush")), "a secret was shown: {log}{shown}");
    }
    let log = home.log();
    assert!(log.contains("needs a restart") && log.contains("toml"), "{log}");
    let last = process.metric("hookhold_config_last_reload_success_timestamp_seconds");

    home.configure(&moved);
    assert!(process.reload());
    assert_eq!(process.metric("hookhold_config_last_reload_successful"), Some(1.0));
    assert!(process.metric("hookhold_config_last_reload_success_timestamp_seconds") > last);
    assert_eq!(deliver(&home, &signer, "evt_late").status, 401);
    assert_eq!(deliver(&home, &fixture::source(&home, "stripe"), "evt_new").status, 200);
    fixture::stop(process);
}

#[test]
fn adding_and_removing_sources_breaks_no_open_delivery() {
    let both = source("going", "secrets = [\"file:one\"]\n") + &source("staying", "secrets = [\"file:one\"]\n");
    let home = Home::new(&[("one", "whsec_one")], &both);
    let process = home.start();
    let going = fixture::source(&home, "going");
    assert_eq!(deliver(&home, &going, "evt_1").status, 200);
    let whole = request(&going, "evt_2".into());
    let head = whole.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 2;
    let (head, body) = (&whole[..head], &whole[head + 2..]);
    let mut under_way = Line::open(home.hooks);
    under_way.send(&[head, b"expect: 100-continue\r\n\r\n"].concat());
    assert_eq!(under_way.answer().status, 100, "the source of the open delivery is known");

    home.configure(
        &(source("staying", "secrets = [\"file:one\"]\ntopic = \"elsewhere\"\n")
            + &source("coming", "secrets = [\"file:one\"]\n")),
    );
    let (code, shown) = diff(&home, &[]);
    assert_eq!(code, Some(0), "{shown}");
    for part in [
        "sources.going.provider",
        "removed: ",
        "sources.coming.secrets",
        "added: [\"file:one\"]",
        "sources.staying.topic",
        "\"elsewhere\"",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(deliver(&home, &going, "evt_3").status, 200, "a preview changes nothing");
    assert!(process.reload());

    under_way.send(body);
    assert_eq!(under_way.answer().status, 200, "the open delivery is still verified by its source");
    assert_eq!(deliver(&home, &going, "evt_4").status, 404);
    assert_eq!(deliver(&home, &fixture::source(&home, "staying"), "evt_5").status, 200);
    assert_eq!(deliver(&home, &fixture::source(&home, "coming"), "evt_6").status, 200);
    let stored = |source: &str| process.deliveries()[&(source.to_owned(), "stored".to_owned())];
    assert_eq!((stored("going"), stored("staying"), stored("coming")), (3, 1, 1));
    assert_eq!(
        process.deliveries()[&("coming".to_owned(), "deadline".to_owned())],
        0,
        "every outcome has a counter from the start"
    );
    let (code, shown) = diff(&home, &[]);
    assert!(code == Some(0) && shown.ends_with(&format!("to the process at http://{}: none\n", home.admin)), "{shown}");
    fixture::stop(process);
    assert_eq!(fixture::frames(&home, "elsewhere").len(), 1);
}

#[test]
fn a_changed_secret_file_is_named_but_never_shown() {
    let home = Home::new(&[("one", "whsec_hush_1")], &source("stripe", "secrets = [{ name = \"main\", from = \"file:one\" }]\n"));
    let process = home.start();
    let old = fixture::source(&home, "stripe");
    home.put("one", b"whsec_hush_2");
    let (code, shown) = diff(&home, &[]);
    assert!(code == Some(0) && shown.contains("the secret main has changed"), "{shown}");
    assert!(process.reload());
    assert!(home.log().contains("the secret main has changed"));
    assert!(!shown.contains("hush") && !home.log().contains("hush"));
    assert_eq!(deliver(&home, &old, "evt_1").status, 401);
    assert_eq!(deliver(&home, &fixture::source(&home, "stripe"), "evt_2").status, 200);
    fixture::stop(process);
}

#[test]
fn changed_kafka_settings_replace_the_client_and_lose_nothing() {
    let kafka = kafka::shared();
    kafka.create_topic("resettled", 3, &[]);
    let config = |linger: u32| {
        let kafka = format!("kafka.\"bootstrap.servers\" = {:?}\nkafka.\"linger.ms\" = {linger}\n", kafka.bootstrap());
        kafka + &source("stripe", "secrets = [\"file:secret\"]\ntopic = \"resettled\"\n")
    };
    let home = Home::new(&[("secret", "whsec_dGhpcyBpcyBhIHRlc3Qgc2VjcmV0")], &config(5));
    let process = home.start();
    let load = Load::start(fixture::order(&home, "stripe"), Ledger::new("resettled"));
    let rebuilds = || process.metric("hookhold_producer_rebuilds_total{reason=\"settings\"}");
    for (linger, count) in [(20, 1.0), (50, 2.0), (5, 3.0)] {
        load.wait_until_sent(load.sent() + 500);
        home.configure(&config(linger));
        assert!(process.reload(), "{}", home.log());
        wait_until("a new client has the new settings", || rebuilds() == Some(count));
    }
    load.wait_until_sent(load.sent() + 500);
    let ledger = load.stop();
    ledger.assert_no_sender_noticed();
    fixture::wait_until_forwarded(&process, "resettled");
    fixture::stop(process);
    let duplicates = fixture::audit(&home, &ledger, kafka, "resettled");
    println!("duplicates in Kafka: {duplicates}");
}

#[test]
fn the_events_of_a_misspelt_topic_reach_the_topic_to_which_they_are_rerouted() {
    let kafka = kafka::shared();
    kafka.create_topic("spelt", 1, &[]);
    let config = |topic: &str, reroute: &str| {
        let kafka = format!("kafka.\"bootstrap.servers\" = {:?}\n{reroute}", kafka.bootstrap());
        kafka + &source("stripe", &format!("secrets = [\"file:secret\"]\ntopic = {topic:?}\n"))
    };
    let home = Home::new(&[("secret", "whsec_reroute")], &config("spletl", ""));
    let process = home.start();
    let stripe = fixture::source(&home, "stripe");
    let send = |from: u64| (from..from + 20).for_each(|n| assert_eq!(deliver(&home, &stripe, &format!("evt_{n}")).status, 200));
    send(0);
    let blocked = || process.metric("hookhold_forward_blocked{reason=\"topic_missing\",topic=\"spletl\"}") == Some(1.0);
    wait_until("the misspelt topic is blocked", blocked);
    home.configure(&config("spelt", "kafka.reroute.spletl = \"spelt\"\n"));
    assert!(process.reload(), "{}", home.log());
    send(20);
    fixture::wait_until_forwarded(&process, "spletl");
    fixture::wait_until_forwarded(&process, "spelt");
    fixture::stop(process);
    let mut ids: Vec<String> = kafka.records("spelt").iter().map(|record| record.header("ce_id").to_owned()).collect();
    ids.sort();
    ids.dedup();
    let mut expected: Vec<String> = (0..40).map(|n| format!("evt_{n}")).collect();
    expected.sort();
    assert_eq!(ids, expected);
}

#[test]
fn both_secrets_of_a_rotation_verify_and_are_counted() {
    let kafka = kafka::shared();
    kafka.create_topic("rotated", 1, &[]);
    let secret = |name: &str, file: &str, end: &str| format!("{{ name = \"{name}\", from = \"file:{file}\"{end} }}");
    let end = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(72)).expect("within range");
    let config = |secrets: &[String]| {
        let kafka = format!("kafka.\"bootstrap.servers\" = {:?}\n", kafka.bootstrap());
        kafka + &source("stripe", &format!("secrets = [{}]\ntopic = \"rotated\"\n", secrets.join(", ")))
    };
    let (old, new) = (secret("2025", "old", &format!(", not_after = {end}")), secret("2026", "new", ""));
    let home = Home::new(&[("old", "whsec_old"), ("new", "whsec_new")], &config(&[old, new.clone()]));
    let process = home.start();
    let mut stripe = Sdk::start();
    let mut send = |secret: &str, id: &str| {
        let timestamp = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let body = load::body(id);
        let signed = stripe.sign(Sample { scheme: "stripe", secret, id, timestamp, body: &body });
        Line::open(home.hooks).ask(&post("/hooks/stripe", &signed.headers, &body)).status
    };
    for (n, secret) in ["whsec_old", "whsec_new", "whsec_old"].into_iter().enumerate() {
        assert_eq!(send(secret, &format!("evt_{n}")), 200);
    }
    let metric = |name: &str, secret: &str| process.metric(&format!("{name}{{secret=\"{secret}\",source=\"stripe\"}}"));
    assert_eq!((metric(VERIFIED, "2025"), metric(VERIFIED, "2026")), (Some(2.0), Some(1.0)));
    assert_eq!(metric(EXPIRY, "2025"), Some(end.as_millisecond() as f64 / 1000.0));
    assert_eq!(metric(EXPIRY, "2026"), None);
    let records = kafka.wait_for_records("rotated", 3);
    let proofs: Vec<&str> = records.iter().map(|record| record.header("hookhold-auth")).collect();
    assert_eq!(proofs, ["mac-sha256:2025", "mac-sha256:2026", "mac-sha256:2025"]);
    let log = home.log();
    assert_eq!(log.matches("an old secret is still in use").count(), 1, "once a day: {log}");
    assert_eq!(log.matches("the secret expires soon; switch the sender to the new secret").count(), 1, "{log}");

    // The `not_after` of the old secret is now in the past, so hookhold must reject a delivery that is signed with this secret.
    let over = secret("2025", "old", ", not_after = 2020-01-01");
    home.configure(&config(&[over, new.clone()]));
    assert!(process.reload());
    assert_eq!((send("whsec_old", "evt_3"), send("whsec_new", "evt_4")), (401, 200));
    assert_eq!(process.deliveries()[&("stripe".to_owned(), "signature_mismatch".to_owned())], 1);
    wait_until("the rejection is in the log", || {
        home.log().contains("found the secret 2025, which expired at 2020-01-02T00:00:00.000Z")
    });
    assert!(home.log().contains("the secret has expired and no longer verifies deliveries; remove it"));
    assert_eq!(metric(EXPIRY, "2025"), Some(1_577_923_200.0));
    let check = home.verb(&["check"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("2025 until 2020-01-02T00:00:00.000Z"));
    let check: Value = serde_json::from_slice(&home.verb(&["check", "--format", "json"]).stdout).expect("JSON");
    assert_eq!(check["sources"][0]["secrets"], json!(["2025", "2026"]));
    assert_eq!(check["sources"][0]["not_after"], json!({ "2025": "2020-01-02T00:00:00.000Z" }));

    home.configure(&(config(&[new]) + "headers = [\"stripe-signature\"]\n"));
    assert!(process.reload());
    assert_eq!(send("whsec_new", "evt_5"), 200);
    let records = kafka.wait_for_records("rotated", 5);
    assert!(!records[3].headers.iter().any(|(name, _)| name == "http-stripe-signature"));
    assert!(records[4].header("http-stripe-signature").starts_with("t="), "forwarded since the reload");
    assert_eq!((metric(EXPIRY, "2025"), metric(VERIFIED, "2025")), (None, Some(2.0)), "the counter of a removed secret remains");
    fixture::stop(process);
}

#[test]
fn a_sighup_during_the_start_is_handled_after_it() {
    let home = Home::new(&[], &source("stripe", "secrets = [\"file:pipe\"]\n"));
    let pipe = home.journal().with_file_name("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe can be made");
    let process = home.launch();
    // This call of `open` blocks until hookhold opens the pipe to read the secret. The read then waits until the test writes to
    // the pipe.
    let mut first = fs::File::options().write(true).open(&pipe).expect("hookhold reads the pipe");
    process.signal(Signal::HUP);
    first.write_all(b"whsec_first").expect("hookhold reads the pipe");
    drop(first);
    wait_until("hookhold is ready", || process.ready() == Some(200));
    fs::write(&pipe, "whsec_second").expect("hookhold reads the pipe again");
    wait_until("the configuration is reloaded", || home.log().contains("configuration reloaded"));
    assert!(home.log().contains("the secret pipe has changed"), "{}", home.log());
    fixture::stop(process);
}

#[test]
fn check_diff_requires_a_process_with_the_same_file() {
    let home = Home::new(&[("one", "whsec_one")], &source("stripe", "secrets = [\"file:one\"]\n"));
    let output = home.verb(&["check", "--diff"]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with(&format!("hookhold: http://{}: ", home.admin)) && said.lines().count() == 1, "{said}");

    let process = home.start();
    let url = format!("http://{}", home.admin);
    let file = home.journal().with_file_name("hookhold.toml").display().to_string();
    let asked = |file: &str| home.verb(&["check", "--diff", "--url", &url, "--config", file]);
    assert_eq!(asked(&file).status.code(), Some(0));
    let other = asked("one");
    let said = String::from_utf8(other.stderr).expect("text");
    assert!(other.status.code() == Some(2) && said.contains(&format!("--config: expected {file}, ")), "{said}");
    fixture::stop(process);
}

/// Returns the TOML section of a source that uses Stripe's recipe. `rest` contains the other options of the source.
fn source(name: &str, rest: &str) -> String {
    format!("[sources.{name}]\nprovider = \"stripe\"\n{rest}")
}

/// Sends one delivery with the event id `id`, signed with the secret of `source`, and returns the response.
fn deliver(home: &Home, source: &Source, id: &str) -> Answer {
    Line::open(home.hooks).ask(&request(source, id.to_owned()))
}

/// Runs `hookhold check --diff` with text output and with JSON output. Returns the exit code and the text output. Asserts
/// that the text output contains the configuration key of every change and mistake in the JSON output.
fn diff(home: &Home, further: &[&str]) -> (Option<i32>, String) {
    let check = |format| home.verb(&[&["check", "--diff", "--format", format], further].concat());
    let (output, json) = (check("text"), check("json"));
    let page: Value = serde_json::from_slice(&json.stdout).expect("one JSON object");
    assert_eq!(json.status, output.status);
    let shown = String::from_utf8(output.stdout).expect("text");
    for key in page["changes"].as_array().expect("a list").iter().chain(page["mistakes"].as_array().expect("a list")) {
        assert!(shown.contains(key["key"].as_str().expect("a text")), "{key} in {shown}");
    }
    (output.status.code(), shown)
}

const RELOADS: usize = 10;
/// Rate of the load during the reloads, in deliveries per second.
const RATE: u64 = 2000;
const VERIFIED: &str = "hookhold_verified_total";
const EXPIRY: &str = "hookhold_secret_expiry_timestamp_seconds";
