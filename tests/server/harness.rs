//! A server in front of a gateway with the one source `stripe`, and clients that speak to it in raw bytes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use hookhold::certificate::CertificateFiles;
use hookhold::clock::{Clock, SystemClock};
use hookhold::gateway::Gateway;
use hookhold::journal::disk::{Disk, LocalDisk};
use hookhold::journal::{Journal, Options};
use hookhold::limits::JournalLimits;
use hookhold::limits::ServerLimits;
use hookhold::metrics::Metrics;
use hookhold::outcome::Outcome;
use hookhold::server::{self, Proxies, Server, Shutdown, Tls};
use hookhold::source::{Source, SourceDefaults};
use hookhold::toml_value::{Diagnostics, TomlTable};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, yield_now};

use crate::held::{Gate, HeldDisk};

/// A Stripe event.
pub const BODY: &str = r#"{"id":"evt_1","object":"event","type":"charge.succeeded"}"#;
/// `max_body` of the source.
pub const MAX_BODY: usize = 4096;
const SECRET: &str = "whsec_nobody_knows_it";

/// A server on a port of its own, in front of a gateway with the one source `stripe`.
pub struct Harness {
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    pub stop: Shutdown,
    /// Where it speaks TLS.
    pub tls: Option<Tls>,
    served: JoinHandle<()>,
    journal: Journal,
    _directory: TempDir,
}

impl Harness {
    pub async fn open(limits: ServerLimits) -> Harness {
        Harness::with(limits, Duration::from_secs(8), |disk| disk).await
    }

    /// With a source that is in shadow.
    pub async fn shadowed(limits: ServerLimits) -> Harness {
        Harness::build(limits, Duration::from_secs(8), SHADOW, None, |disk| disk).await
    }

    /// With a deadline of the source's own, on a disk laid over the real one.
    pub async fn with(limits: ServerLimits, deadline: Duration, over: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>) -> Harness {
        Harness::build(limits, deadline, "", None, over).await
    }

    async fn build(
        limits: ServerLimits,
        deadline: Duration,
        entry: &str,
        tls: Option<CertificateFiles>,
        over: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>,
    ) -> Harness {
        LOGGING.call_once(start_logging);
        let directory = TempDir::new().expect("a temporary directory can be made");
        let (metrics, stop, clock) = (Arc::new(Metrics::new()), Shutdown::new(), Arc::new(SystemClock));
        let disk = over(Arc::new(LocalDisk::create(directory.path()).expect("a temporary directory is writable")));
        let sizes = JournalLimits { max_size: 64 << 20, segment_size: 1 << 20, ..JournalLimits::default() };
        let options = Options { limits: sizes, ..Options::default() };
        let journal = Journal::open(disk, options, clock.clone(), metrics.clone()).expect("an empty directory is a journal");
        let gateway = Gateway::new(vec![source(directory.path(), deadline, entry)], journal.clone(), 1000, &metrics);
        let listener = server::listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("bound above");
        let tls = tls.map(|files| Tls::open(files, clock.clone(), metrics.clone()).expect("a certificate and its key"));
        // Nothing here is about min_rate: halves of requests may wait for as long as the test takes.
        let limits = ServerLimits { min_rate_after: limits.request_deadline, ..limits };
        let server = Server {
            gateway: Arc::new(gateway),
            limits,
            tls: tls.clone(),
            proxies: Proxies::default(),
            clock,
            metrics: metrics.clone(),
        };
        let served = tokio::spawn(server.serve(listener, stop.clone()));
        Harness { address, metrics, stop, tls, served, journal, _directory: directory }
    }

    /// Behind TLS, with a disk whose syncs can be held.
    pub async fn secure(limits: ServerLimits, files: CertificateFiles) -> (Harness, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let over = |disk| -> Arc<dyn Disk> { Arc::new(HeldDisk { disk, gate: gate.clone() }) };
        let harness = Harness::build(limits, Duration::from_secs(8), "", Some(files), over).await;
        (harness, gate)
    }

    /// With a disk whose syncs are held from now on.
    pub async fn held(limits: ServerLimits) -> (Harness, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let over = |disk| -> Arc<dyn Disk> { Arc::new(HeldDisk { disk, gate: gate.clone() }) };
        let harness = Harness::with(limits, Duration::from_secs(8), over).await;
        gate.hold();
        (harness, gate)
    }

    pub async fn line(&self) -> Line {
        let stream = TcpStream::connect(self.address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket has this option");
        Line { stream, unread: Vec::new() }
    }

    pub fn count(&self, source: &str, outcome: &str) -> u64 {
        self.metrics.deliveries.total.with_label_values(&[source, outcome]).get()
    }

    pub fn accepted(&self) -> u64 {
        self.count("stripe", "stored") + self.count("stripe", "duplicate")
    }

    /// How many events the journal holds.
    pub fn kept(&self) -> u64 {
        self.journal.durable_watermark()
    }

    pub fn rejections(&self) -> u64 {
        let refused = Outcome::ALL.iter().filter(|outcome| !outcome.is_accepted());
        refused.map(|outcome| self.count("-", outcome.word()) + self.count("stripe", outcome.word())).sum()
    }

    pub fn timed(&self, source: &str) -> u64 {
        self.metrics.deliveries.duration_seconds.with_label_values(&[source]).get_sample_count()
    }

    pub async fn until(&self, reached: impl Fn(&Harness) -> bool) {
        while !reached(self) {
            yield_now().await;
        }
    }

    pub async fn ended(self) {
        self.served.await.expect("the server does not panic");
        self.journal.close();
    }
}

/// A client that writes raw bytes and reads whole answers.
pub struct Line {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Line {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that has refused already may close at any moment; what it said is read all the same.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("a client may close its side");
    }

    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes).await;
        self.answer().await
    }

    /// Sends, and reads until the server closes.
    pub async fn end(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes).await;
        self.rest().await
    }

    /// One answer: head and body.
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

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> String {
        self.stream.read_to_end(&mut self.unread).await.expect("the server closes without a reset");
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }
}

pub fn post(body: &str) -> String {
    post_as_of(now(), body)
}

/// Signed at another time, in seconds since 1970.
pub fn post_as_of(time: u64, body: &str) -> String {
    let (signature, length) = (signature(time, body), body.len());
    format!("POST /hooks/stripe HTTP/1.1\r\nhost: h\r\nstripe-signature: {signature}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Two chunks and a trailer.
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

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemClock.now().0 / 1000
}

/// Stripe's scheme, by hand.
pub fn signature(time: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key length will do");
    mac.update(format!("{time}.{body}").as_bytes());
    format!("t={time},v1={}", base16ct::lower::encode_string(&mac.finalize().into_bytes()))
}

/// `/hooks/stripe`, with a small `max_body`, and `more` in its entry.
fn source(directory: &Path, deadline: Duration, more: &str) -> Source {
    std::fs::write(directory.join("stripe"), SECRET).expect("a temporary directory is writable");
    let secret = directory.join("stripe");
    let text = format!("provider = \"stripe\"\nsecrets = [\"file:{}\"]\nmax_body = \"4 KiB\"\n{more}", secret.display());
    let defaults = SourceDefaults {
        public_url: None,
        topic: "webhooks.{source}".into(),
        max_body: 5 << 20,
        request_deadline: deadline,
        window: Duration::from_secs(60),
    };
    let mistakes = Diagnostics::default();
    let source =
        TomlTable::parse("test", &text, &mistakes).and_then(|entry| Source::compile("stripe", entry, &defaults, &mistakes));
    source.unwrap_or_else(|| panic!("{mistakes}"))
}

const SHADOW: &str = r#"
danger_shadow = true
reply.ok = { status = 202, content_type = "text/plain", body = "thanks" }
challenge = [{ when = { "json:/type" = "check" }, authenticated = true, reply = { status = 200, body = ["echo(json:/challenge)"] } }]
"#;

/// What this test has logged. Each test runs on a thread of its own, and so does its server.
pub fn logged() -> String {
    LOG.with_borrow(|log| String::from_utf8_lossy(log).into_owned())
}

/// One subscriber for all tests: scoped ones race for tracing's cache of who listens.
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
