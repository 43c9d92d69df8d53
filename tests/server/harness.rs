//! Extends the common harness for the server tests. The harness runs a server on its own port, and the only source is `stripe`.
//! [`Line`] is a client that sends raw bytes.

#[path = "../common/harness.rs"]
mod common;

use std::cell::RefCell;
use std::sync::Once;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use hookhold::certificate::CertificateFiles;
use hookhold::clock::{Clock, SystemClock};
use hookhold::limits::{JournalLimits, ServerLimits};
use hookhold::outcome::Outcome;
use hookhold::source::{Source, SourceDefaults};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::disk::{Gate, SimDisk, Step};
pub use common::Harness;
use common::TestClock;

/// JSON body of a Stripe event.
pub const BODY: &str = r#"{"id":"evt_1","object":"event","type":"charge.succeeded"}"#;
/// `max_body` option of the source `stripe`, in bytes.
pub const MAX_BODY: usize = 4096;
const SECRET: &str = "whsec_only_for_tests";

impl Harness {
    /// Returns a harness whose server uses `limits`. All other settings have the defaults of this file.
    pub fn open(limits: ServerLimits) -> Harness {
        Harness::with_source(limits, DEADLINE, "", None)
    }

    /// Returns a harness whose server uses `limits` and whose source is in shadow mode.
    pub fn shadowed(limits: ServerLimits) -> Harness {
        Harness::with_source(limits, DEADLINE, SHADOW, None)
    }

    /// Returns a harness whose source has `deadline` as its response deadline.
    pub fn with_deadline(deadline: Duration) -> Harness {
        Harness::with_source(ServerLimits::default(), deadline, "", None)
    }

    /// Returns a harness whose server uses `limits` and serves HTTPS with the certificate in `files`.
    pub fn secure(limits: ServerLimits, files: CertificateFiles) -> Harness {
        Harness::with_source(limits, DEADLINE, "", Some(files))
    }

    /// Returns a harness whose disk holds every sync of a journal segment, and the gate that releases the syncs.
    pub fn held(limits: ServerLimits) -> (Harness, Gate) {
        let harness = Harness::open(limits);
        let gate = harness.disk.hold(Step::Sync, ".seg");
        (harness, gate)
    }

    /// Returns a harness with these sources instead of `stripe`. Each source has a name, a secret and further options as TOML.
    pub fn with_sources(sources: &[(&str, &str, &str)], tls: Option<CertificateFiles>) -> Harness {
        let compiled = sources.iter().map(|(name, secret, entry)| common::source(name, secret, entry, &defaults(DEADLINE)));
        Harness::with_compiled(compiled.collect(), ServerLimits::default(), tls)
    }

    fn with_source(limits: ServerLimits, deadline: Duration, entry: &str, tls: Option<CertificateFiles>) -> Harness {
        let entry = format!("provider = \"stripe\"\nmax_body = \"4 KiB\"\n{entry}");
        Harness::with_compiled(vec![common::source("stripe", SECRET, &entry, &defaults(deadline))], limits, tls)
    }

    fn with_compiled(sources: Vec<Source>, limits: ServerLimits, tls: Option<CertificateFiles>) -> Harness {
        LOGGING.call_once(start_logging);
        let mut config = common::config(sources);
        config.journal.limits = JournalLimits { max_size: 64 << 20, segment_size: 1 << 20, ..JournalLimits::default() };
        config.dedupe.hot_keys = 1000;
        // No test with this harness covers min_rate. With this `min_rate_after`, min_rate cannot end a request before
        // `request_deadline`, so a test can pause in the middle of a request.
        config.server.limits = ServerLimits { min_rate_after: limits.request_deadline, ..limits };
        config.server.tls = tls;
        let mut harness = Harness::build(config, SimDisk::default(), TestClock::System);
        harness.serve();
        harness
    }

    pub async fn line(&self) -> Line {
        let stream = TcpStream::connect(self.address()).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket has this option");
        Line { stream, unread: Vec::new() }
    }

    pub fn count(&self, source: &str, outcome: &str) -> u64 {
        self.metrics.deliveries.total.with_label_values(&[source, outcome]).get()
    }

    pub fn accepted(&self) -> u64 {
        self.count("stripe", "stored") + self.count("stripe", "duplicate")
    }

    /// Returns the number of durable events in the journal.
    pub fn stored(&self) -> u64 {
        self.journal.durable_watermark()
    }

    pub fn rejections(&self) -> u64 {
        let rejected = Outcome::ALL.iter().filter(|outcome| !outcome.is_accepted());
        rejected.map(|outcome| self.count("-", outcome.word()) + self.count("stripe", outcome.word())).sum()
    }

    pub fn timed(&self, source: &str) -> u64 {
        self.metrics.deliveries.duration_seconds.with_label_values(&[source]).get_sample_count()
    }

    pub async fn until(&self, reached: impl Fn(&Harness) -> bool) {
        while !reached(self) {
            yield_now().await;
        }
    }
}

/// A client that sends raw bytes and reads complete responses.
pub struct Line {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Line {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The server may reject the request and close the connection before the test has sent the last byte. The test can still
        // read the response.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("a client may close its side");
    }

    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes).await;
        self.answer().await
    }

    /// Sends `bytes`, reads until the server closes the connection, and returns the received bytes as text.
    pub async fn end(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes).await;
        self.rest().await
    }

    /// Reads one response and returns its head and body as text.
    pub async fn answer(&mut self) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.unread).into_owned();
            if let Some(head) = text.find("\r\n\r\n") {
                let length = text[..head].split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                let end = head + 4 + length.map_or(0, |length| length.parse::<usize>().expect("a number"));
                if text.len() >= end {
                    self.unread.drain(..end);
                    return text[..end].to_owned();
                }
            }
            assert!(self.stream.read_buf(&mut self.unread).await.expect("readable") > 0, "closed after {text:?}");
        }
    }

    /// Reads until the server closes the connection, and returns the received bytes as text.
    pub async fn rest(&mut self) -> String {
        self.stream.read_to_end(&mut self.unread).await.expect("the server closes without a reset");
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }
}

pub fn post(body: &str) -> String {
    post_as_of(now(), body)
}

/// Builds a Stripe delivery of `body`. The signature has the timestamp `time` (Unix seconds).
pub fn post_as_of(time: u64, body: &str) -> String {
    let (signature, length) = (signature(time, body), body.len());
    format!("POST /hooks/stripe HTTP/1.1\r\nhost: h\r\nstripe-signature: {signature}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Builds a Stripe delivery that sends `body` in two chunks, followed by a trailer field.
pub fn chunked(body: &str) -> String {
    let chunk = |part: &str| if part.is_empty() { String::new() } else { format!("{:x}\r\n{part}\r\n", part.len()) };
    let (first, second) = body.split_at(body.len() / 2);
    let (signature, chunks) = (signature(now(), body), chunk(first) + &chunk(second));
    format!(
        "POST /hooks/stripe HTTP/1.1\r\nhost: h\r\nstripe-signature: {signature}\r\ntransfer-encoding: chunked\r\n\r\n\
         {chunks}0\r\nx: y\r\n\r\n"
    )
}

pub fn expecting(request: &str) -> String {
    request.replacen("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n", 1)
}

pub fn split_at_body(request: &str) -> (String, String) {
    let (head, body) = request.split_once("\r\n\r\n").expect("a request has a head");
    (format!("{head}\r\n\r\n"), body.to_owned())
}

pub fn without_date(answer: &str) -> String {
    answer.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

/// Returns the current time in Unix seconds.
pub fn now() -> u64 {
    SystemClock.now().0 / 1000
}

/// Returns the `Stripe-Signature` header value for `body`. Computes the HMAC without the code under test.
pub fn signature(time: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC accepts keys of any length");
    mac.update(format!("{time}.{body}").as_bytes());
    format!("t={time},v1={}", base16ct::lower::encode_string(&mac.finalize().into_bytes()))
}

fn defaults(request_deadline: Duration) -> SourceDefaults {
    SourceDefaults {
        providers: Default::default(),
        public_url: None,
        topic: "webhooks.{source}".into(),
        max_body: 5 << 20,
        request_deadline,
        window: Duration::from_secs(60),
    }
}

/// Response deadline of the source in a test that sets no other deadline.
const DEADLINE: Duration = Duration::from_secs(8);
const SHADOW: &str = r#"
danger_shadow = true
reply.ok = { status = 202, content_type = "text/plain", body = "thanks" }
challenge = [{ when = { "json:/type" = "check" }, authenticated = true, reply = { status = 200, body = ["echo(json:/challenge)"] } }]
"#;

/// Returns the log lines of the calling test. A test and its server run on one thread, and each thread has its own log.
pub fn logged() -> String {
    LOG.with_borrow(|log| String::from_utf8_lossy(log).into_owned())
}

/// Installs one global log subscriber for all tests. Scoped subscribers of parallel tests would change each other's entries in
/// tracing's callsite interest cache.
fn start_logging() {
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| ThreadLog).init();
}

struct ThreadLog;

impl std::io::Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

static LOGGING: Once = Once::new();
thread_local!(static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
