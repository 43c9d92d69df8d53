//! Tests `hookhold rejections`, and `hookhold doctor` on the rejected deliveries that hookhold has stored. A provider's SDK
//! signs the deliveries, and the real binary rejects them. The verbs then read the files in the journal's directory.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/sdk.rs"]
mod sdk;

use process::{Home, Line, Process, post, wait_until};
use sdk::{Sample, Sdk};
use serde_json::Value;

const STRIPE: &str = "whsec_c3RyaXBl";
const OTHER: &str = "whsec_b3RoZXI=";
const SECRETS: &[(&str, &str)] = &[("stripe-key", STRIPE), ("test-key", OTHER)];
const QUICK: &str = "server.drain_delay = \"0s\"\n";
const OFF: &str = "admin.keep_rejected = \"0 B\"\n";
const SOURCES: &str = r#"
[sources.stripe]
provider = "stripe"
secrets = ["file:stripe-key"]
[sources.test]
provider = "stripe"
secrets = ["file:test-key"]
[sources.fenced]
provider = "stripe"
secrets = ["file:stripe-key"]
allow_from = ["192.0.2.1"]
"#;

/// Returns the header fields of a Stripe delivery of `body`, signed with `secret` at the current time.
fn signed(sdk: &mut Sdk, secret: &str, body: &[u8]) -> Vec<(String, String)> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    sdk.sign(Sample { scheme: "stripe", secret, id: "", timestamp: now, body }).headers
}

fn deliver(home: &Home, path: &str, headers: &[(String, String)], body: &[u8]) -> u16 {
    Line::open(home.hooks).ask(&post(path, headers, body)).status
}

/// Runs `hookhold doctor SOURCE` with the additional arguments `more`. Returns the exit code and one JSON object for each
/// rejected delivery.
fn doctor(home: &Home, source: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = home.verb(&[&["doctor", source, "--format", "json"], more].concat());
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    (output.status.code(), lines.collect())
}

fn stop(process: Process<'_>) {
    process.signal(rustix::process::Signal::TERM);
    assert!(process.wait().success());
}

#[test]
fn doctor_explains_the_latest_rejections_of_a_running_gateway() {
    let home = Home::new(SECRETS, &format!("{QUICK}{SOURCES}"));
    let (mut sdk, process) = (Sdk::start(), home.start());
    let body = "{\"id\":\"evt_1\",\"note\":\"\u{e9}\"}".as_bytes();
    let mut misdirected = signed(&mut sdk, OTHER, body);
    misdirected.push(("Authorization".into(), "Bearer do-not-show".into()));
    assert_eq!(deliver(&home, "/hooks/stripe", &misdirected, body), 401);
    assert_eq!(deliver(&home, "/hooks/stripe", &[], body), 401);
    assert_eq!(deliver(&home, "/hooks/fenced", &signed(&mut sdk, STRIPE, body), body), 401);
    assert_eq!(deliver(&home, "/hooks/stripe", &signed(&mut sdk, STRIPE, body), body), 200);

    let (code, rejected) = doctor(&home, "stripe", &[]);
    assert_eq!((code, rejected.len()), (Some(1), 2), "{rejected:?}");
    let facts = |line: &Value| {
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        (text("refused_as"), text("outcome"), line["causes"][0]["cause"].clone(), line["causes"][0]["certainty"].clone())
    };
    let missing = Some("signature_missing".to_owned());
    assert_eq!(facts(&rejected[0]), (missing.clone(), missing, "signature_absent".into(), "certain".into()));
    let mismatch = Some("signature_mismatch".to_owned());
    assert_eq!(facts(&rejected[1]), (mismatch.clone(), mismatch, "other_sources_secret".into(), "certain".into()));
    assert!(rejected.iter().all(|line| line["remote"].as_str().is_some_and(|remote| remote.starts_with("127.0.0.1:"))));
    assert_eq!(doctor(&home, "stripe", &["--last", "1"]).1, rejected[..1]);
    let (code, fenced) = doctor(&home, "fenced", &[]);
    assert_eq!(
        (code, &fenced[0]["outcome"], &fenced[0]["causes"][0]["cause"]),
        (Some(1), &"address_not_allowed".into(), &"address".into())
    );
    assert_eq!(doctor(&home, "test", &[]), (Some(0), Vec::new()));

    assert!(home.log().contains("explain=\"hookhold doctor stripe\""), "{}", home.log());
    let text = home.verb(&["doctor", "stripe"]);
    let output = String::from_utf8([text.stdout, text.stderr].concat()).expect("doctor prints text");
    assert!(output.contains("from 127.0.0.1:") && output.contains("certain: "), "{output}");
    let mut line = Line::open(home.admin);
    let page = line.ask(b"GET /api/rejections HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!((page.status, page.body.split(|byte| *byte == b'\n').count()), (200, 4));
    for secret in [STRIPE, OTHER, "do-not-show"] {
        assert!(!output.contains(secret) && !String::from_utf8_lossy(&page.body).contains(secret), "{secret} was shown");
    }

    home.put("stripe-key", OTHER.as_bytes());
    let (code, corrected) = doctor(&home, "stripe", &[]);
    assert_eq!((code, &corrected[1]["verifies"], &corrected[1]["secret"]), (Some(1), &true.into(), &"stripe-key".into()));
    stop(process);
}

/// Runs `hookhold rejections` with these arguments, and returns one JSON object for each line.
fn rejections(home: &Home, args: &[&str]) -> Vec<Value> {
    let output = home.verb(&[&["rejections", "--format", "json"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn a_wrong_secret_is_explained_after_a_restart_and_after_a_kill() {
    let home = Home::new(SECRETS, &format!("{QUICK}{SOURCES}"));
    let (mut sdk, process) = (Sdk::start(), home.start());
    let body = b"{\"id\":\"evt_1\"}";
    let is_explained = || {
        let (code, rejected) = doctor(&home, "stripe", &[]);
        assert_eq!((code, rejected.len()), (Some(1), 1), "{rejected:?}");
        assert_eq!(rejected[0]["causes"][0]["cause"], "other_sources_secret");
        rejected[0]["alike"].clone()
    };
    (0..2).for_each(|_| assert_eq!(deliver(&home, "/hooks/stripe", &signed(&mut sdk, OTHER, body), body), 401));
    assert_eq!(is_explained(), 2, "the cause is explained once");
    stop(process);
    assert_eq!(is_explained(), 2, "the process has ended");
    let process = home.start();
    assert_eq!(is_explained(), 2, "the process has restarted");
    assert_eq!(deliver(&home, "/hooks/stripe", &signed(&mut sdk, OTHER, body), body), 401);
    home.settle_rejections();
    process.signal(rustix::process::Signal::KILL);
    process.wait();
    assert_eq!(is_explained(), 3, "the process was killed");
    let _process = home.start();
    let page = Line::open(home.admin).ask(b"GET /api/rejections?source=stripe HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(page.body.split(|byte| *byte == b'\n').count(), 4, "the page shows the rejections of earlier processes");
}

#[test]
fn rejections_are_grouped_by_cause_and_filtered() {
    let home = Home::new(SECRETS, &format!("{QUICK}{SOURCES}"));
    let (mut sdk, process) = (Sdk::start(), home.start());
    let body = b"{\"id\":\"evt_1\"}";
    (0..3).for_each(|_| assert_eq!(deliver(&home, "/hooks/stripe", &signed(&mut sdk, OTHER, body), body), 401));
    assert_eq!(deliver(&home, "/hooks/stripe", &[], body), 401);
    assert_eq!(deliver(&home, "/hooks/test", &[("x-delivery".into(), "d-one".into())], body), 401);
    let check = || {
        let groups = rejections(&home, &[]);
        let facts = |group: &Value| (group["source"].clone(), group["outcome"].clone(), group["count"].clone());
        let missing = "signature_missing";
        assert_eq!(
            groups.iter().map(facts).collect::<Vec<_>>(),
            [
                ("test".into(), missing.into(), 1.into()),
                ("stripe".into(), missing.into(), 1.into()),
                ("stripe".into(), "signature_mismatch".into(), 3.into()),
            ]
        );
        assert!(groups[2]["first"].as_str() < groups[2]["last"].as_str() && groups[2]["explain"] == "hookhold doctor stripe");
        for (args, count) in [
            (&["--source", "test"][..], 1),
            (&["--outcome", "signature_mismatch"], 1),
            (&["--since", "1h"], 3),
            (&["--since", "2020-02-29"], 3),
            (&["--until", "2020-02-29"], 0),
            (&["--until", "1h"], 0),
            (&["--each"], 5),
            (&["--each", "--source", "stripe", "--outcome", "signature_mismatch"], 3),
        ] {
            assert_eq!(rejections(&home, args).len(), count, "{args:?}");
        }
        groups[2]["newest"]["id"].as_str().expect("a group has a newest rejection").to_owned()
    };
    let id = check();
    stop(process);
    assert_eq!(check(), id, "the files are the same after the process has ended");
    let one = rejections(&home, &["--id", &id]);
    assert_eq!((one.len(), &one[0]["outcome"]), (1, &"signature_mismatch".into()));
    let text = |args: &[&str]| String::from_utf8(home.verb(args).stdout).expect("verbs print text");
    let shown = text(&["rejections", "--id", &id]);
    assert!(shown.contains("POST /hooks/stripe HTTP/1.1\n") && shown.contains("  \"id\": \"evt_1\"\n"), "{shown}");
    assert!(text(&["rejections"]).contains("stripe  signature_mismatch  3 recorded\n"));
    assert!(text(&["rejections", "--each"]).contains(&id));
    assert_eq!(text(&["rejections", "--source", "none"]), "no stored rejections\n");
    let of_event = rejections(&home, &["--id", "d-one"]);
    assert_eq!((of_event.len(), &of_event[0]["source"]), (1, &"test".into()), "the request with this text");
    let shown = text(&["rejections", "--id", "evt_1"]);
    assert!(shown.starts_with("ID ") && shown.lines().count() == 6, "several requests are a list: {shown}");
    for (args, code) in [(["--id", "no-such-id"], 1), (["--since", "tomorrow"], 2), (["--outcome", "stored"], 2)] {
        assert_eq!(home.verb(&["rejections", args[0], args[1]]).status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn rejections_are_stored_only_while_configured() {
    let home = Home::new(SECRETS, &format!("{QUICK}{OFF}{SOURCES}"));
    let process = home.start();
    let reject = || assert_eq!(deliver(&home, "/hooks/stripe", &[], b"{}"), 401);
    let has_files = || {
        let mut files = std::fs::read_dir(home.journal()).expect("the journal exists");
        files.any(|file| file.expect("a file").file_name().to_string_lossy().ends_with(".rejected"))
    };
    reject();
    for verb in [&["doctor", "stripe"][..], &["rejections"]] {
        let off = home.verb(verb);
        let message = String::from_utf8(off.stderr).expect("errors are text");
        assert!(off.status.code() == Some(1) && message.contains("admin.keep_rejected: expected more than"), "{message}");
    }
    home.configure(&format!("{QUICK}{SOURCES}"));
    assert!(process.reload());
    assert_eq!(doctor(&home, "stripe", &[]), (Some(0), Vec::new()), "earlier rejections were not stored");
    reject();
    assert_eq!(doctor(&home, "stripe", &[]).1.len(), 1);
    assert!(has_files());
    home.configure(&format!("{QUICK}{OFF}{SOURCES}"));
    assert!(process.reload());
    wait_until("turning keep_rejected off deletes the stored rejections", || !has_files());
    home.configure(&format!("{QUICK}admin.keep_rejected_bodies = \"0 B\"\n{SOURCES}"));
    assert!(process.reload());
    reject();
    let body = b"{\"id\":\"evt_1\"}";
    assert_eq!(deliver(&home, "/hooks/stripe", &signed(&mut Sdk::start(), OTHER, body), body), 401);
    let causes = doctor(&home, "stripe", &[]).1;
    assert_eq!(causes[0]["causes"][0]["cause"], "body_incomplete", "{causes:?}");
    stop(process);
}
