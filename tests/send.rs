//! Tests `hookhold send` against the running gateway: the samples of every provider, the count of stored events, and the
//! explanations if the gateway does not answer as expected.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;

use std::process::{Output, Stdio};

use hookhold::source::{PROVIDERS, provider};
use process::{Home, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Returns a home with a source for each built-in recipe.
fn home() -> Home {
    Home::new(&[("secret", SECRET), ("other", "whsec_another")], &config("secret"))
}

fn config(secret: &str) -> String {
    let source = |(name, _): &(&str, &str)| format!("[sources.{name}]\nprovider = {name:?}\nsecrets = [\"file:{secret}\"]\n");
    let sources: String = PROVIDERS.iter().map(source).collect();
    format!("server.drain_delay = \"0s\"\nserver.public_url = \"https://hooks.example.com\"\n{sources}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("verbs print text")
}

fn last_line(output: &Output) -> String {
    text(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

fn objects(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn send_names_the_stored_events_and_the_duplicates() {
    let home = home();
    let process = home.start();
    let sent = home.verb(&["send", "stripe", "--count", "3"]);
    assert_eq!((sent.status.code(), text(&sent.stderr).as_str()), (Some(0), ""));
    assert_eq!(last_line(&sent), "stored: 3 events, #0 to #2, topic webhooks.stripe");
    let destination = format!("3 deliveries of type invoice.paid to http://{}/hooks/stripe (source stripe) in ", home.hooks);
    assert!(text(&sent.stdout).contains(&destination), "{}", text(&sent.stdout));

    let one = home.verb(&["send", "github"]);
    let stored = last_line(&one);
    assert!(stored.starts_with("stored: 1 event, #3 (") && stored.ends_with("), topic webhooks.github"), "{stored}");
    let body = home.journal().with_file_name("body.json");
    std::fs::write(&body, "{\"id\":\"evt_body\",\"type\":\"invoice.paid\"}").expect("target/ can be written to");
    let path = body.to_str().expect("paths of tests are UTF-8");
    let same = home.verb(&["send", "stripe", "--count", "5", "--body", path]);
    assert_eq!(last_line(&same), "stored: 1 event, #4 (evt_body), topic webhooks.stripe; 4 duplicates were not stored again");
    let again = home.verb(&["send", "stripe", "--body", path]);
    assert_eq!(last_line(&again), "stored: no new event; the gateway has it already as #4, so this was a duplicate");
    assert!(text(&again.stdout).contains("  duplicate, as expected"), "{}", text(&again.stdout));
    let tampered = home.verb(&["send", "stripe", "--tamper", "body"]);
    assert_eq!((tampered.status.code(), last_line(&tampered)), (Some(0), "stored: no events".to_owned()));
    assert!(text(&tampered.stdout).contains("rejected: `hookhold doctor stripe` explains why"), "{}", text(&tampered.stdout));

    let repeated = home.verb(&["send", "slack", "--count", "50", "--repeat-percent", "40", "--format", "json"]);
    let objects = objects(&repeated);
    let (rows, total) = objects.split_at(objects.len() - 1);
    let count = |kind: &str| rows.iter().find(|row| row["sent"] == kind).and_then(|row| row["count"].as_u64()).unwrap_or(0);
    let (genuine, repeats) = (count("genuine"), count("repeat"));
    assert_eq!(genuine + repeats, 50);
    let stored = &total[0]["stored"];
    assert_eq!((stored["events"].as_u64(), stored["duplicates"].as_u64()), (Some(genuine), Some(repeats)), "{stored}");
    assert_eq!((stored["first"].as_u64(), stored["last"].as_u64()), (Some(5), Some(4 + genuine)), "{stored}");
    assert_eq!((&stored["topics"][0], &total[0]["source"]), (&"webhooks.slack".into(), &"slack".into()));
    assert_eq!(process.deliveries()[&("slack".to_owned(), "stored".to_owned())], genuine);
}

#[test]
fn each_sample_is_stored_with_its_own_key() {
    let home = home();
    let _process = home.start();
    let mut expected = Vec::new();
    for (name, _) in PROVIDERS {
        let listed = text(&home.verb(&["send", name, "--list-types"]).stdout);
        let recipe = provider(name).expect("a built-in recipe");
        assert_eq!(listed.lines().collect::<Vec<_>>(), recipe.sample_types(), "{name}");
        assert_eq!(listed.lines().next(), Some(&*recipe.setup.sample_type), "{name}: the default is the first type");
        for event_type in listed.lines() {
            let sent = home.verb(&["send", name, "--type", event_type]);
            assert_eq!(sent.status.code(), Some(0), "{name} {event_type}: {}", text(&sent.stdout));
            assert!(last_line(&sent).starts_with("stored: 1 event, #"), "{name} {event_type}: {}", text(&sent.stdout));
            expected.push((name.to_string(), event_type.to_owned(), !recipe.event.key.0.is_empty()));
        }
    }
    let events = objects(&home.verb(&["tail", "--from", "0", "--format", "json"]));
    let found: Vec<_> = events
        .iter()
        .map(|event| {
            let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            (field("source"), field("type"), field("key") != field("id"))
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn an_interrupted_send_counts_only_its_own_events() {
    let home = home();
    let process = home.start();
    let mut command = home.shell("exec hookhold send stripe --count 2 --rate 0.001");
    let child = command.stdout(Stdio::piped()).spawn().expect("bash starts");
    let stored = || process.deliveries().get(&("stripe".to_owned(), "stored".to_owned())).copied().unwrap_or_default();
    wait_until("the first delivery is stored", || stored() == 1);
    assert_eq!(home.verb(&["send", "stripe", "--count", "4"]).status.code(), Some(0));
    // The next delivery is due in 1,000 seconds.
    kill_process(Pid::from_child(&child), Signal::INT).expect("a child can be signalled until it is waited for");
    let output = child.wait_with_output().expect("a child can be waited for");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("1 delivery of type invoice.paid"), "{}", text(&output.stdout));
    assert!(last_line(&output).starts_with("stored: 1 event, #0 (evt_"), "{}", last_line(&output));
}

#[test]
fn without_a_gateway_send_stops_at_the_first_delivery() {
    let home = home();
    let sent = home.verb(&["send", "stripe", "--count", "1000"]);
    let expected = format!("hookhold: no gateway at http://{}/hooks/stripe: is `hookhold run` up?\n", home.hooks);
    assert_eq!((sent.status.code(), text(&sent.stdout), text(&sent.stderr)), (Some(1), String::new(), expected));
    let as_json = home.verb(&["send", "stripe", "--count", "1000", "--format", "json"]);
    let rows = objects(&as_json);
    assert_eq!((as_json.status.code(), rows.len()), (Some(1), 2));
    assert_eq!((&rows[0]["status"], &rows[1]["total"]), (&"none: no connection".into(), &1.into()));
    assert!(rows[1]["stored"].is_null());
}

#[test]
fn send_explains_each_unexpected_answer_of_the_gateway() {
    let home = home();
    let _process = home.start();
    let https = home.verb(&["send", "stripe", "--url", &format!("https://{}", home.hooks)]);
    assert_eq!(https.status.code(), Some(1));
    assert!(
        text(&https.stderr).contains("expected a listener with TLS, found plain HTTP; use http://"),
        "{}",
        text(&https.stderr)
    );
    let path = home.verb(&["send", "stripe", "--url", &format!("http://{}/hooks/strip", home.hooks)]);
    assert_eq!(path.status.code(), Some(1));
    assert!(text(&path.stderr).contains("found 404; the gateway has no source at this path"), "{}", text(&path.stderr));

    // The gateway still has the first secret.
    home.configure(&config("other"));
    let other = home.verb(&["send", "github"]);
    assert_eq!((other.status.code(), last_line(&other)), (Some(1), "stored: no events".to_owned()));
    let hint = text(&other.stderr);
    assert!(hint.contains("found 401; the running gateway has another secret than this shell"), "{hint}");
    assert!(hint.contains("`hookhold rejections --source github`") && hint.lines().count() == 1, "{hint}");

    home.configure(&config("secret").replace("[\"file:secret\"]", "[\"env:HOOKHOLD_TEST_NOT_SET\"]"));
    let unset = home.verb(&["send", "github"]);
    assert_eq!(unset.status.code(), Some(2));
    let line = text(&unset.stderr);
    assert!(line.contains("HOOKHOLD_TEST_NOT_SET, found the variable unset; export it in this shell"), "{line}");
}

#[test]
fn a_type_that_the_source_does_not_store_is_named() {
    let home = home();
    home.configure(&config("secret").replace("provider = \"github\"\n", "provider = \"github\"\ntypes = [\"push\"]\n"));
    let _process = home.start();
    let filtered = home.verb(&["send", "github"]);
    assert_eq!(filtered.status.code(), Some(0));
    assert_eq!(last_line(&filtered), "stored: no events; `types` of the source does not include this type");
    let stored = last_line(&home.verb(&["send", "github", "--type", "push"]));
    assert!(stored.starts_with("stored: 1 event, #0 (") && stored.ends_with("topic webhooks.github"), "{stored}");
}
