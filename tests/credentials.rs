//! Tests that no credential of a delivery leaves hookhold. Each source has a recipe that carries the credential in another part of
//! the request. A test sends accepted and rejected deliveries to the real binary, and then searches the journal, the Kafka
//! records, the stored rejections, the log and the output of every verb for the text of the credential.

#[path = "common/crypto.rs"]
mod crypto;
#[path = "common/https.rs"]
mod https;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/sdk.rs"]
mod sdk;

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use process::{Home, Line, Process, post, wait_until};
use serde_json::json;

/// Texts of the credentials, one for each part of a request. No other text of the tests contains one of them.
const HEADER: &str = "header-s3cret-1";
const QUERY: &str = "query-s3cret-2";
const BEARER: &str = "bearer-s3cret-7 with a space";
const BASIC: &str = "user:basic-s3cret-3";
const COOKIE: &str = "cookie-s3cret-4";
const JWT_KEY: &str = "jwt-s3cret-5 with at least 32 bytes";
const FIELD: &str = "field-s3cret-6";

const SOURCES: &str = r#"
[sources.header]
auth = "token"
token = { from = "header:X-Api-Key" }
secrets = ["file:header"]
headers = ["X-Request-Id", "X-Original-Url", "X-Forwarded-Key"]
event = { id = "json:/id" }
[sources.query]
auth = "token"
token = { from = "query:token" }
secrets = ["file:query"]
headers = ["X-Request-Id", "X-Original-Url"]
event = { id = "json:/id" }
[sources.bearer]
auth = "token"
token = { from = "header:Authorization", prefix = "Bearer " }
secrets = ["file:bearer"]
headers = ["X-Request-Id", "X-Forwarded-Key"]
event = { id = "json:/id" }
[sources.basic]
auth = "basic"
secrets = ["file:basic"]
headers = ["X-Request-Id", "X-Forwarded-Key"]
event = { id = "json:/id" }
[sources.jwt]
auth = "jwt"
algorithm = ["HS256"]
token = { from = "header:X-Token" }
secrets = ["file:jwt"]
headers = ["X-Request-Id", "X-Forwarded-Key"]
event = { id = "json:/id" }
[sources.field]
auth = "token"
token = { from = "json:/passcode" }
secrets = ["file:field"]
headers = ["X-Request-Id"]
event = { id = "json:/id" }
"#;
const NAMES: [&str; 6] = ["header", "query", "bearer", "basic", "jwt", "field"];

/// A request to a source, and the texts that no output may contain.
struct Request {
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    hidden: Vec<String>,
}

fn request(source: &str, target: &str, credentials: &[(&str, &str)], hidden: &[&str]) -> Request {
    let mut headers: Vec<(String, String)> =
        credentials.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    headers.push(("x-request-id".into(), format!("visible-{source}")));
    headers.push(("cookie".into(), format!("session={COOKIE}")));
    headers.push(("content-type".into(), "application/json".into()));
    let mut hidden: Vec<String> = hidden.iter().map(|text| (*text).to_owned()).collect();
    hidden.push(COOKIE.to_owned());
    Request { target: format!("/hooks/{source}{target}"), headers, body: format!("{{\"id\":\"{source}\"}}"), hidden }
}

fn genuine(jwt: &str) -> Vec<Request> {
    let basic = STANDARD.encode(BASIC);
    let signature = jwt.rsplit('.').next().expect("a token has three parts");
    let copies = |value: &str| format!("/hooks/query?token={value}");
    vec![
        request(
            "header",
            "",
            &[("x-api-key", HEADER), ("X-Forwarded-Key", HEADER), ("x-original-url", &copies(HEADER))],
            &[HEADER],
        ),
        request("query", &format!("?a=1&token={QUERY}&b=2"), &[("x-original-url", &copies(QUERY))], &[QUERY]),
        request(
            "bearer",
            "",
            &[("authorization", &format!("Bearer {BEARER}")), ("x-forwarded-key", BEARER)],
            &["bearer-s3cret-7"],
        ),
        request("basic", "", &[("authorization", &format!("Basic {basic}")), ("x-forwarded-key", &basic)], &[BASIC, &basic]),
        request("jwt", "", &[("x-token", jwt), ("x-forwarded-key", jwt)], &[JWT_KEY, signature]),
    ]
}

/// Returns deliveries with other credentials, and a delivery with credentials in places that the recipe does not read.
fn rejected() -> Vec<Request> {
    let basic = STANDARD.encode("user:other-s3cret");
    vec![
        request("header", "", &[("X-API-KEY", "other-s3cret-7"), ("x-api-key", "other-s3cret-8")], &["other-s3cret"]),
        request("query", "?to%6ben=other-s3cret-1&token=other-s3cret-2", &[], &["other-s3cret"]),
        request("bearer", "", &[("authorization", "Bearer other-s3cret-3")], &["other-s3cret"]),
        request("basic", "", &[("authorization", &format!("Basic {basic}"))], &[&basic]),
        request("jwt", "", &[("x-token", "eyJhbGciOiJIUzI1NiJ9.e30.b3RoZXItczNjcmV0")], &["b3RoZXItczNjcmV0"]),
    ]
}

/// Returns a home with the options `more`, whose sources forward to the topics `TEST.NAME`.
fn home(kafka: &kafka::Kafka, test: &str, more: &str) -> Home {
    NAMES.iter().for_each(|name| kafka.create_topic(&format!("{test}.{name}"), 1, &[]));
    let secrets =
        [("header", HEADER), ("query", QUERY), ("bearer", BEARER), ("basic", BASIC), ("jwt", JWT_KEY), ("field", FIELD)];
    let kafka = format!("[kafka]\nbootstrap.servers = {:?}\ntopic = \"{test}.{{source}}\"\n", kafka.bootstrap());
    let options = "server.drain_delay = \"0s\"\nadmin.keep_rejected = \"1 MiB\"\n";
    let mut home = Home::new(&secrets, &format!("{options}{more}{kafka}{SOURCES}"));
    home.set("HOOKHOLD_LOG", "trace");
    home
}

fn send(home: &Home, request: &Request) -> u16 {
    Line::open(home.hooks).ask(&post(&request.target, &request.headers, request.body.as_bytes())).status
}

/// Returns the text of `/api/rejections`, with the decoded requests.
fn rejections(home: &Home) -> String {
    let page = Line::open(home.admin).ask(b"GET /api/rejections HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let page = String::from_utf8(page.body).expect("JSON is text");
    let requests: Vec<String> = page
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let request = STANDARD.decode(line["request_base64"].as_str().expect("a string")).expect("Base64");
            String::from_utf8(request).expect("the requests of these tests are text")
        })
        .collect();
    page + &requests.join("\n")
}

/// Returns every byte of every file in the directory as text. The socket of a hand-over contains nothing.
fn bytes_in(dir: &Path) -> String {
    let paths = fs::read_dir(dir).expect("the directory exists").map(|entry| entry.expect("an entry").path());
    let files = paths.filter(|path| path.is_file());
    files.map(|path| String::from_utf8_lossy(&fs::read(path).expect("a file is readable")).into_owned()).collect()
}

/// Returns everything that hookhold stores, shows or forwards, each with a name. Ends the process.
fn outputs(home: &Home, kafka: &kafka::Kafka, test: &str, process: Process<'_>) -> Vec<(String, String)> {
    let mut outputs = vec![("/api/rejections".to_owned(), rejections(home)), ("/metrics".to_owned(), process.metrics())];
    let verbs: [&[&str]; 9] = [
        &["tail", "--last", "100"],
        &["tail", "--last", "100", "--format", "json"],
        &["inspect", "0"],
        &["inspect", "0", "--format", "json"],
        &["doctor", "header"],
        &["doctor", "query", "--format", "json"],
        &["doctor", "basic"],
        &["doctor", "jwt"],
        &["check"],
    ];
    for verb in verbs {
        let output = home.verb(verb);
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("verbs print text")).concat();
        assert!(!text.is_empty(), "{verb:?} prints something");
        outputs.push((format!("{verb:?}"), text));
    }
    for name in NAMES {
        let records = kafka.records(&format!("{test}.{name}"));
        let headers = records.iter().flat_map(|record| &record.headers);
        let text =
            headers.map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_deref().unwrap_or_default())));
        outputs.push((format!("the headers of {name}"), text.collect()));
    }
    process.signal(rustix::process::Signal::TERM);
    assert!(process.wait().success());
    outputs.push(("the journal".to_owned(), bytes_in(&home.journal())));
    outputs.push(("the log".to_owned(), home.log()));
    outputs
}

#[test]
fn no_credential_of_a_delivery_leaves_hookhold() {
    let kafka = kafka::shared();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let jwt = crypto::jwt_with_secret(json!({ "alg": "HS256" }), json!({ "iat": now }), JWT_KEY.as_bytes());
    let home = home(kafka, "all", "");
    let process = home.start();
    let (genuine, rejected) = (genuine(&jwt), rejected());
    assert!(genuine.iter().chain(&rejected).all(|request| request.hidden.len() > 1));
    for request in &genuine {
        assert_eq!(send(&home, request), 200, "{}", request.target);
    }
    for request in &rejected {
        assert_eq!(send(&home, request), 401, "{}", request.target);
    }
    let forwarded = |name: &&str| kafka.records(&format!("all.{name}")).len() == 1;
    wait_until("Kafka has all events", || NAMES[..5].iter().all(&forwarded));

    let outputs = outputs(&home, kafka, "all", process);
    for (name, text) in &outputs {
        for hidden in genuine.iter().chain(&rejected).flat_map(|request| &request.hidden) {
            assert!(!text.contains(hidden.as_str()), "{name} contains {hidden}: {text}");
        }
    }
    // The outputs do contain the rest of the requests.
    let output = |name: &str| &outputs.iter().find(|(known, _)| known == name).expect("an output has this name").1;
    assert!(output("the journal").contains("/hooks/query?a=1&token=REDACTED&b=2"));
    assert!(output("the journal").contains("visible-header") && output("the headers of jwt").contains("visible-jwt"));
    let rejected = output("/api/rejections");
    assert!(rejected.contains("POST /hooks/query?to%6ben=REDACTED&token=REDACTED HTTP/1.1\r\n"), "{rejected}");
    assert_eq!(rejected.matches("x-request-id: visible-").count(), 5, "{rejected}");
}

#[test]
fn a_token_in_a_body_stays_only_in_the_body() {
    let kafka = kafka::shared();
    let home = home(kafka, "body", "");
    let process = home.start();
    let body = format!("{{\"id\":\"field\",\"passcode\":\"{FIELD}\"}}");
    let request = Request { body: body.clone(), ..request("field", "?token=visible-query", &[], &[]) };
    assert_eq!(send(&home, &request), 200);
    wait_until("Kafka has the event", || kafka.records("body.field").len() == 1);
    let record = kafka.records("body.field").pop().expect("a record");
    assert_eq!(record.value.as_deref(), Some(body.as_bytes()), "the value is the body, byte for byte");
    for (name, text) in outputs(&home, kafka, "body", process) {
        let is_body = name == "the journal" || name.contains("json") || name.contains("inspect");
        assert!(is_body || !text.contains(FIELD), "{name} contains the token: {text}");
    }
}

/// Checks a token over HTTP/2, and a request target in absolute form, which contains a host and can contain a password.
#[test]
fn absolute_and_http2_targets_are_redacted_as_well() {
    let (kafka, pair) = (kafka::shared(), https::Pair::new(30));
    let home = home(kafka, "forms", &pair.config());
    let process = home.start();
    let url = format!("https://{}/hooks/query?token={QUERY}", home.hooks);
    let absolute = format!("https://user:absolute-s3cret@hooks.example.com/hooks/query?token={QUERY}");
    let send = |id: &str, args: &[&str]| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--insecure", "--write-out", "%{http_version} %{http_code}"]);
        let output = curl.args(["--data", &format!("{{\"id\":\"{id}\"}}"), &url]).args(args).output();
        String::from_utf8(output.expect("curl starts: tests/run installs it").stdout).expect("a status is text")
    };
    assert_eq!(send("absolute", &["--http1.1", "--request-target", &absolute]), "1.1 200");
    assert_eq!(send("http2", &["--http2"]), "2 200");
    let outputs = outputs(&home, kafka, "forms", process);
    for (name, text) in &outputs {
        for hidden in [QUERY, "absolute-s3cret"] {
            assert!(!text.contains(hidden), "{name} contains {hidden}: {text}");
        }
    }
    let journal = &outputs.iter().find(|(name, _)| name == "the journal").expect("an output has this name").1;
    assert!(journal.contains("https://REDACTED@hooks.example.com/hooks/query?token=REDACTED"), "the absolute form");
    assert_eq!(journal.matches("token=REDACTED").count(), 2);
}
