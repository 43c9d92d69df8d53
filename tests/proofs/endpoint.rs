//! The gateway under test, and the deliveries that a test sends to it.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::kafka;
use crate::process::{Home, Line, Process, wait_until};

/// An HTTP request.
#[derive(Clone)]
pub struct Request {
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A request, its description, and its expected result.
pub struct Sent {
    what: String,
    request: Request,
    expected: Expected,
}

/// The result that a test expects for a request.
#[derive(Clone)]
pub enum Expected {
    /// The delivery becomes these Kafka records.
    Stored(Vec<Event>),
    /// The delivery has another outcome, such as `duplicate` or `signature_mismatch`.
    Outcome(&'static str),
}

/// A Kafka record that a test expects.
#[derive(Clone)]
pub struct Event {
    value: Vec<u8>,
    /// The header `hookhold-auth`.
    auth: String,
    /// The header `hookhold-integrity`.
    integrity: &'static str,
    /// The header `ce_id`. `None` means that hookhold uses the event's position as the id.
    id: Option<String>,
    /// The header `ce_type` and the key. `None` if the test expects no particular values.
    type_and_key: Option<(String, String)>,
}

impl Event {
    /// Returns the event of an item of a batch that the source splits.
    pub fn of_item(value: &str, auth: &str, (id, event_type, key): (&str, &str, &str)) -> Event {
        let type_and_key = Some((event_type.to_owned(), key.to_owned()));
        Event { value: value.into(), auth: auth.into(), integrity: "item", id: Some(id.into()), type_and_key }
    }

    /// Returns the event with this value of `hookhold-integrity`.
    pub fn with_integrity(self, integrity: &'static str) -> Event {
        Event { integrity, ..self }
    }

    /// Returns the event without an id and a key, so that hookhold uses the event's position as both.
    pub fn without_id(self) -> Event {
        Event { id: None, type_and_key: None, ..self }
    }
}

/// Starts a gateway with these sources and files, sends all requests, and compares the outcomes and the records. `sources`
/// contains the sections `[sources.NAME]`. All sources forward to the topic `topic`.
pub fn run(topic: &str, sources: &str, files: &[(&str, &str)], sent: &[Sent]) {
    let broker = kafka::shared();
    broker.create_topic(topic, 1, &[]);
    let sources: String = format!("\n{sources}").split("\n[sources.").skip(1).map(|one| source(topic, one)).collect();
    let servers = broker.bootstrap();
    let config = format!("server.drain_delay = \"0s\"\n[kafka]\nbootstrap.servers = \"{servers}\"\n{sources}");
    let home = Home::new(files, &config);
    let process = home.start();
    let mut stored = Vec::new();
    for Sent { what, request, expected } in sent {
        let (word, status) = match expected {
            Expected::Stored(..) => ("stored", 200),
            Expected::Outcome("duplicate") => ("duplicate", 200),
            Expected::Outcome("key_unavailable") => ("key_unavailable", 503),
            Expected::Outcome(word) => (*word, 401),
        };
        let (outcome, found) = send(&home, &process, request);
        assert_eq!((&*outcome, found), (word, status), "{what}");
        if let Expected::Stored(events) = expected {
            stored.extend(events.iter().map(|event| (what, event)));
        }
    }
    let is_stored = |one: &&Sent| matches!(one.expected, Expected::Stored(_));
    let genuine = sent.iter().filter(is_stored).count();
    assert!(genuine > 0 && genuine < sent.len(), "a test needs genuine and other deliveries");
    let records = broker.wait_for_records(topic, stored.len());
    for (record, (what, event)) in records.iter().zip(&stored) {
        let Event { value, auth, integrity, id, type_and_key } = event;
        assert_eq!(record.value.as_ref(), Some(value), "{what}: value");
        assert_eq!((record.header("hookhold-auth"), record.header("hookhold-integrity")), (&**auth, *integrity), "{what}");
        let position = format!("{}-{}", record.header("hookhold-log"), record.header("hookhold-seq"));
        assert_eq!(record.header("ce_id"), id.as_ref().unwrap_or(&position), "{what}: id");
        let key = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        match type_and_key {
            Some((event_type, expected)) => assert_eq!((record.header("ce_type"), &*key), (&**event_type, &**expected), "{what}"),
            None if id.is_none() => assert_eq!(key, position, "{what}: key"),
            None => {}
        }
    }
    assert_eq!(records.len(), stored.len(), "another delivery made a record");
}

fn source(topic: &str, section: &str) -> String {
    let (name, entry) = section.split_once("]\n").expect("a section");
    format!("[sources.{name}]\ntopic = \"{topic}\"\npublic_url = \"https://hooks.example.com\"\n{entry}\n")
}

/// Sends one request on a new connection. Returns the outcome that the gateway has counted and the status of the response.
fn send(home: &Home, process: &Process<'_>, request: &Request) -> (String, u16) {
    let before = process.deliveries();
    let answer = Line::open(home.hooks).ask(&request.bytes());
    let mut moved = Vec::new();
    wait_until("a counter has moved", || {
        let counts = process.deliveries().into_iter();
        let moves = counts.filter(|(series, count)| before.get(series).copied().unwrap_or(0) != *count);
        moved = moves.map(|((_, outcome), _)| outcome).collect();
        !moved.is_empty()
    });
    assert_eq!(moved.len(), 1, "{moved:?}");
    (moved.remove(0), answer.status)
}

impl Request {
    /// Creates a POST request to the source `source`.
    pub fn new(source: &str, body: impl Into<Vec<u8>>) -> Request {
        Request { method: "POST", target: format!("/hooks/{source}"), headers: Vec::new(), body: body.into() }
    }

    /// Replaces all values of a header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        self.also_with(name, value)
    }

    /// Adds a value of a header.
    pub fn also_with(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Request {
        let before = self.headers.len();
        self.headers.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        assert!(self.headers.len() < before, "there is no {name} to remove");
        self
    }

    pub fn to(mut self, target: impl Into<String>) -> Request {
        self.target = target.into();
        self
    }

    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name));
        &found.unwrap_or_else(|| panic!("no header {name}")).1
    }

    pub fn stored(self, what: &str, auth: &str, integrity: &'static str, id: Option<&str>) -> Sent {
        let (value, auth, id) = (self.body.clone(), auth.to_owned(), id.map(str::to_owned));
        self.stored_as(what, vec![Event { value, auth, integrity, id, type_and_key: None }])
    }

    /// Expects that the delivery becomes these events.
    pub fn stored_as(self, what: &str, events: Vec<Event>) -> Sent {
        Sent { what: what.to_owned(), request: self, expected: Expected::Stored(events) }
    }

    pub fn outcome(self, what: &str, outcome: &'static str) -> Sent {
        Sent { what: what.to_owned(), request: self, expected: Expected::Outcome(outcome) }
    }

    fn bytes(&self) -> Vec<u8> {
        let fields: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let Request { method, target, body, .. } = self;
        let head = format!("{method} {target} HTTP/1.1\r\nhost: h\r\n{fields}content-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }
}

/// Returns the forms of a genuine delivery that every signature in a header must reject. `has_fixed_size` is true if all
/// signatures of the algorithm have the same length.
pub fn tampered(genuine: &Request, header: &str, has_fixed_size: bool) -> Vec<Sent> {
    let signature = genuine.header(header).to_owned();
    let with = |value: &str| genuine.clone().with(header, value);
    let mut body = genuine.body.clone();
    *body.last_mut().expect("not empty") ^= 1;
    let truncated = &signature[..signature.len() - 4];
    let flipped = format!("{}{}", if signature.starts_with('0') { "1" } else { "0" }, &signature[1..]);
    vec![
        genuine.clone().with_body(body).outcome("another body", "signature_mismatch"),
        genuine.clone().with_body(b"".as_slice()).outcome("an empty body", "signature_mismatch"),
        genuine.clone().without(header).outcome("no signature", "signature_missing"),
        with("").outcome("an empty signature", "signature_malformed"),
        with("\"\"").outcome("a quoted signature", "signature_malformed"),
        with("!").outcome("a signature that is no text of the encoding", "signature_malformed"),
        with(truncated)
            .outcome("a truncated signature", if has_fixed_size { "signature_malformed" } else { "signature_mismatch" }),
        with(&flipped).outcome("another signature of the same length", "signature_mismatch"),
        with(&"0".repeat(4096)).outcome("a very long signature", "signature_malformed"),
        with(&format!("{signature} {signature}")).outcome("the signature twice in one value", "signature_malformed"),
        with("!").also_with(header, "?").outcome("two unreadable signatures", "signature_malformed"),
    ]
}

/// Returns a JSON body with an id and a type.
pub fn json(id: &str) -> Vec<u8> {
    format!("{{\"id\":\"{id}\",\"type\":\"order.paid\",\"note\":\"caf\u{e9} \\u00e9\"}}\r\n").into_bytes()
}

/// The locators of the id and the type of [`json`].
pub const EVENT: &str = "event = { id = \"json:/id\", type = \"json:/type\" }\n";

/// Returns the current Unix time in seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

pub fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
