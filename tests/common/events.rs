//! Creates verified events for tests of the journal. The verifier constructs each event, because a test cannot construct an
//! event directly.

#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::event::Event;
use hookhold::event_key::EventKey;
use hookhold::fingerprint::Fingerprint;
use hookhold::source::{Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use hookhold::verify::sign::{SampleOptions, sign};
use hookhold::verify::{Verdict, Verifier};
use http::{HeaderName, HeaderValue};

/// Kafka topics of the events that a test creates.
pub const TOPICS: [&str; 4] = ["orders", "invoices", "parcels", "returns"];

/// The values that a test chooses for an event.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Index of the event's topic in [`TOPICS`].
    pub topic: usize,
    pub body: Vec<u8>,
    pub id: String,
    /// Dedupe key; `None` for a keyless event.
    pub key: Option<[u8; 16]>,
    /// Arrival time, Unix milliseconds.
    pub received_at: u64,
    /// Additional header fields of the request.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

impl Sample {
    /// Creates a delivery from these values, signs and verifies the delivery, and returns the event.
    pub fn event(&self) -> Event {
        let source = &sources()[self.topic];
        let now = UnixMillis(self.received_at);
        let options = SampleOptions { id: self.id.clone(), event_type: None, key: None, now, tamper: None };
        let mut signed = sign(source, Some(Bytes::from(self.body.clone())), &options).expect("the source has a secret");
        for (name, value) in &self.headers {
            let value = HeaderValue::from_bytes(value).expect("a header value");
            signed.headers.append(HeaderName::from_static(name), value);
        }
        let delivery = signed.into_delivery(([192, 0, 2, 1], 443).into(), now);
        let verdict = Verifier::new(source.clone()).verify(&delivery).expect("the source's secret signed it");
        let Verdict::Event(verified) = verdict else { panic!("the delivery is not a challenge") };
        verified.event.with_key(self.key.map(EventKey), Fingerprint::default())
    }
}

/// A clock whose wall-clock time only the test advances. Its uptime advances with the test and, unless the clock is stopped, with
/// the machine's uptime.
pub struct ManualClock {
    now: AtomicU64,
    advanced: AtomicU64,
    is_stopped: bool,
}

impl ManualClock {
    /// Creates a clock that is set to this time in Unix milliseconds.
    pub fn at(now: u64) -> ManualClock {
        ManualClock { now: AtomicU64::new(now), advanced: AtomicU64::new(0), is_stopped: false }
    }

    /// Creates a clock whose uptime does not advance with the machine's uptime, for journals without threads.
    pub fn stopped_at(now: u64) -> ManualClock {
        ManualClock { is_stopped: true, ..ManualClock::at(now) }
    }

    /// Advances the clock by this number of milliseconds.
    pub fn advance(&self, millis: u64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
        self.advanced.fetch_add(millis, Ordering::SeqCst);
    }

    /// Moves only the wall clock, by this number of milliseconds.
    pub fn jump(&self, millis: i64) {
        self.now.fetch_add(millis as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.now.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        let machine = if self.is_stopped { Duration::from_secs(3600) } else { SystemClock.uptime() };
        machine + Duration::from_millis(self.advanced.load(Ordering::SeqCst))
    }
}

fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| TOPICS.iter().map(|topic| source(topic)).collect())
}

fn source(topic: &str) -> Source {
    let mut secret = tempfile::NamedTempFile::new().expect("a temporary file");
    secret.write_all(b"a secret").expect("a temporary file is writable");
    let text = ENTRY.replace("SECRET", &secret.path().display().to_string());
    let diagnostics = Diagnostics::default();
    let table = TomlTable::parse("hookhold.toml", &text, &diagnostics).expect("the entry is TOML");
    let defaults = SourceDefaults {
        providers: Default::default(),
        public_url: None,
        topic: "{source}".into(),
        max_body: 64 << 20,
        request_deadline: std::time::Duration::from_secs(8),
        window: std::time::Duration::from_secs(7 * 86_400),
    };
    Source::compile(topic, table, &defaults, &diagnostics).unwrap_or_else(|| panic!("{diagnostics}"))
}

const ENTRY: &str = r#"
secrets = [{ name = "first", from = "file:SECRET" }]
signature = { from = "header:X-Signature", encoding = "hex" }
auth = "mac"
algorithm = "sha256"
content = ["body"]

[event]
id = ["header:X-Id"]
type = ["header:X-Type"]
"#;
