//! Tests `hookhold doctor` on rejected deliveries that a running process has stored in memory. A provider's SDK signs the
//! deliveries, and the real binary rejects them. `hookhold doctor` then reads the rejected deliveries from the admin listener
//! and explains each rejection.

#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/sdk.rs"]
mod sdk;

use process::{Home, Line, Process, post};
use sdk::{Sample, Sdk};
use serde_json::Value;

const STRIPE: &str = "whsec_c3RyaXBl";
const OTHER: &str = "whsec_b3RoZXI=";
const SECRETS: &[(&str, &str)] = &[("stripe-key", STRIPE), ("test-key", OTHER)];
const KEEP_REJECTED: &str = "admin.keep_rejected = \"1 MiB\"\n";
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
    let home = Home::new(SECRETS, &format!("server.drain_delay = \"0s\"\n{KEEP_REJECTED}{SOURCES}"));
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

#[test]
fn rejections_are_stored_only_while_configured() {
    let home = Home::new(SECRETS, &format!("server.drain_delay = \"0s\"\n{SOURCES}"));
    let process = home.start();
    let reject = || assert_eq!(deliver(&home, "/hooks/stripe", &[], b"{}"), 401);
    reject();
    let off = home.verb(&["doctor", "stripe"]);
    let message = String::from_utf8(off.stderr).expect("errors are text");
    assert!(off.status.code() == Some(1) && message.contains("keep_rejected") && message.contains("--request FILE"), "{message}");
    home.configure(&format!("server.drain_delay = \"0s\"\n{KEEP_REJECTED}{SOURCES}"));
    assert!(process.reload());
    assert_eq!(doctor(&home, "stripe", &[]), (Some(0), Vec::new()), "earlier rejections were not stored");
    reject();
    assert_eq!(doctor(&home, "stripe", &[]).1.len(), 1);
    home.configure(SOURCES);
    assert!(!process.reload(), "drain_delay needs a restart");
    assert_eq!(doctor(&home, "stripe", &[]).1.len(), 1);
    home.configure(&format!("server.drain_delay = \"0s\"\n{SOURCES}"));
    assert!(process.reload());
    home.configure(&format!("server.drain_delay = \"0s\"\n{KEEP_REJECTED}{SOURCES}"));
    assert!(process.reload());
    assert_eq!(doctor(&home, "stripe", &[]), (Some(0), Vec::new()), "turning keep_rejected off drops the stored rejections");
    stop(process);
    let gone = home.verb(&["doctor", "stripe"]);
    assert_eq!(gone.status.code(), Some(1), "no gateway answers");
}
