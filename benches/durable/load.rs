//! Signs the deliveries of the benchmark in advance and sends the deliveries over many connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use hookhold::certificate::CertificateFiles;
use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::config::Config;
use hookhold::verify::sign::{SampleOptions, sign};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::gateway::{Result, free_addresses, request_bytes};
use crate::h2_tls::{H2Connection, TlsSetup};
use crate::server::{JournalState, write_configuration};

/// HTTP client that sends the deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// A plain socket that sends prepared bytes. To use little processor time, the client checks only the first and last
    /// bytes of each response.
    Socket,
    /// The HTTP/1.1 client of hyper. This client uses as much processor time as a real sender.
    Hyper,
    /// The HTTP/2 client of hyper, over TLS. Several deliveries are under way on each connection at a time.
    H2Tls,
}

/// The tokio runtime on which the senders run, and the prepared deliveries.
pub struct Load {
    pub threads: usize,
    client: Client,
    /// Number of concurrent streams on each HTTP/2 connection.
    streams: usize,
    /// Certificate of the servers; `None` if the senders do not use TLS.
    tls: Option<TlsSetup>,
    runtime: Runtime,
    prepared: Option<Prepared>,
}

struct Prepared {
    requests: Arc<[PreparedRequest]>,
    signed: Instant,
}

impl Load {
    /// Starts the runtime. `streams` is the number of concurrent streams on each connection of [`Client::H2Tls`].
    pub fn new(client: Client, threads: usize, streams: usize) -> Result<Load> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        let tls = (client == Client::H2Tls).then(TlsSetup::new).transpose()?;
        Ok(Load { threads, client, streams, tls, runtime, prepared: None })
    }

    /// Returns the name of the client for the output.
    pub fn label(&self) -> String {
        match self.client {
            Client::Socket => "socket".to_owned(),
            Client::Hyper => "hyper".to_owned(),
            Client::H2Tls => format!("h2-tls ({} streams per connection)", self.streams),
        }
    }

    /// Returns the certificate that the servers must use, or `None` if the senders do not use TLS.
    pub fn certificate(&self) -> Option<&CertificateFiles> {
        self.tls.as_ref().map(|tls| &tls.files)
    }

    /// Returns the number of deliveries to prepare per second of a round. The number is higher than the rate of hookhold on two
    /// cores.
    pub fn max_per_second(&self) -> f64 {
        match self.client {
            Client::Socket | Client::Hyper => MAX_PER_SECOND,
            Client::H2Tls => MAX_PER_SECOND_H2_TLS,
        }
    }

    /// Returns at least `count` signed deliveries with distinct ids. A later call returns the same deliveries if there are
    /// enough of them and they are younger than [`FRESH`]. The servers do not treat the reused deliveries as duplicates,
    /// because each round starts with empty journals.
    pub fn requests(&mut self, count: usize) -> Result<Arc<[PreparedRequest]>> {
        let is_usable = |prepared: &&Prepared| prepared.requests.len() >= count && prepared.signed.elapsed() < FRESH;
        if let Some(prepared) = self.prepared.as_ref().filter(is_usable) {
            return Ok(prepared.requests.clone());
        }
        self.prepared = None; // frees the old deliveries (about 1 GB) before the new ones are allocated
        let requests: Arc<[PreparedRequest]> = prepare(self.client, count)?.into();
        self.prepared = Some(Prepared { requests: requests.clone(), signed: Instant::now() });
        Ok(requests)
    }

    /// Opens `connections` connections to `address` and starts one sender on each. Each sender sends deliveries from `queue`
    /// until [`Senders::stop`] is called. Over TLS, the senders start when all connections are open, because the handshakes take
    /// longer than the first deliveries.
    pub fn start(&self, address: SocketAddr, connections: usize, queue: &Arc<Queue>) -> Result<Senders<'_>> {
        queue.is_stopped.store(false, Ordering::Relaxed);
        let tasks = match (&self.tls, self.client) {
            (Some(tls), _) => {
                let open = self.open(tls, address, connections)?;
                open.into_iter().map(|connection| self.runtime.spawn(connection.send(self.streams, queue.clone()))).collect()
            }
            (None, Client::Socket) => (0..connections).map(|_| self.runtime.spawn(send_bytes(address, queue.clone()))).collect(),
            (None, _) => (0..connections).map(|_| self.runtime.spawn(send_with_hyper(address, queue.clone()))).collect(),
        };
        Ok(Senders { tasks, queue: queue.clone(), runtime: &self.runtime })
    }

    fn open(&self, tls: &TlsSetup, address: SocketAddr, connections: usize) -> Result<Vec<H2Connection>> {
        let opening: Vec<_> = (0..connections).map(|_| self.runtime.spawn(tls.connect(address))).collect();
        opening.into_iter().map(|connection| self.runtime.block_on(connection)?).collect()
    }
}

/// The sender tasks that are running, one per connection.
pub struct Senders<'a> {
    tasks: Vec<JoinHandle<Result<()>>>,
    queue: Arc<Queue>,
    runtime: &'a Runtime,
}

impl Senders<'_> {
    /// Stops every sender after its current request. Returns an error if a sender has failed.
    pub fn stop(self) -> Result<()> {
        self.queue.is_stopped.store(true, Ordering::Relaxed);
        for task in self.tasks {
            self.runtime.block_on(task)??;
        }
        Ok(())
    }

    /// Returns true if a sender has failed.
    pub fn has_failed(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }
}

/// The queue of deliveries for one server in one round. All senders that send to the server share the queue.
pub struct Queue {
    requests: Arc<[PreparedRequest]>,
    /// True if the queue starts over after its last delivery. Only the queue for bare hyper starts over, because bare hyper
    /// does not deduplicate.
    is_endless: bool,
    next: AtomicUsize,
    answers: AtomicU64,
    is_stopped: AtomicBool,
}

impl Queue {
    pub fn new(requests: Arc<[PreparedRequest]>, is_endless: bool) -> Queue {
        let (next, answers) = (AtomicUsize::new(0), AtomicU64::new(0));
        Queue { requests, is_endless, next, answers, is_stopped: AtomicBool::new(false) }
    }

    /// Returns the number of 200 responses that the senders have received.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Counts a 200 response.
    pub fn count_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the next delivery, or `None` if the senders must stop.
    pub fn next(&self) -> Result<Option<&PreparedRequest>> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.requests.len() && !self.is_endless {
            return Err(
                "all prepared requests were sent; raise the number of prepared deliveries per second in benches/durable/load.rs"
                    .into(),
            );
        }
        Ok(Some(&self.requests[index % self.requests.len()]))
    }
}

/// A signed delivery in the form that the selected [`Client`] sends.
pub enum PreparedRequest {
    Bytes(Bytes),
    Parts { target: http::Uri, headers: http::HeaderMap, body: Bytes },
}

fn prepare(client: Client, count: usize) -> Result<Vec<PreparedRequest>> {
    let dir = tempfile::tempdir()?;
    let file = write_configuration(dir.path(), free_addresses()?, JournalState::New, None)?;
    let config = Config::load(&file, |_, _| None).map_err(|diagnostics| diagnostics.to_string())?;
    let (source, run) = (&config.sources[0], fastrand::u64(..));
    let now = UnixMillis(SystemClock.now().0 + AHEAD.as_millis() as u64);
    let prepared = (0..count).map(|index| {
        let id = format!("evt_{run:016x}{index:08}");
        let body = body(&id);
        let sample = sign(source, Some(body), &SampleOptions { id, event_type: None, key: None, now, tamper: None })
            .expect("the source has a secret");
        match client {
            Client::Socket => PreparedRequest::Bytes(request_bytes(&sample).into()),
            Client::Hyper => {
                let target = sample.target.parse().expect("a path is a URI");
                PreparedRequest::Parts { target, headers: sample.headers, body: sample.body }
            }
            Client::H2Tls => {
                let target = format!("https://localhost{}", sample.target).parse().expect("a URL is a URI");
                PreparedRequest::Parts { target, headers: sample.headers, body: sample.body }
            }
        }
    });
    Ok(prepared.collect())
}

/// Returns a JSON body that begins with the event id and ends with the event type, as Stripe's bodies do.
fn body(id: &str) -> Bytes {
    let start = format!("{{\"id\": \"{id}\", \"object\": \"event\", \"data\": {{\"object\": {{\"id\": \"in_1\", \"lines\": \"");
    let end = "\"}}, \"livemode\": false, \"type\": \"invoice.paid\"}";
    let filler = "x".repeat(BODY_BYTES - start.len() - end.len());
    format!("{start}{filler}{end}").into()
}

async fn send_bytes(address: SocketAddr, queue: Arc<Queue>) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = [0; 1024];
    while let Some(PreparedRequest::Bytes(request)) = queue.next()? {
        stream.write_all(request).await?;
        let length = stream.read(&mut answer).await?;
        // Both servers answer with an empty body, so the response ends with its head.
        if !answer[..length].starts_with(b"HTTP/1.1 200") || !answer[..length].ends_with(b"\r\n\r\n") {
            return Err(format!("expected a complete 200, found {:?}", String::from_utf8_lossy(&answer[..length])).into());
        }
        queue.count_answer();
    }
    Ok(())
}

async fn send_with_hyper(address: SocketAddr, queue: Arc<Queue>) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    while let Some(PreparedRequest::Parts { target, headers, body }) = queue.next()? {
        let mut request = Request::post(target.clone()).body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        check_response(sender.send_request(request).await?).await?;
        queue.count_answer();
    }
    drop(sender);
    Ok(driver.await??)
}

/// Returns an error unless the response is an empty 200.
pub async fn check_response(response: Response<Incoming>) -> Result<()> {
    let status = response.status();
    if status != 200 || !response.into_body().collect().await?.to_bytes().is_empty() {
        return Err(format!("expected an empty 200, found another response (status {status})").into());
    }
    Ok(())
}

/// Size of every delivery body in bytes.
pub const BODY_BYTES: usize = 2048;
/// Time that the benchmark adds to the current time to get the signature timestamps: four minutes. The recipe accepts
/// timestamps up to five minutes in the past or in the future, so a delivery is valid for nine minutes after signing.
const AHEAD: Duration = Duration::from_secs(240);
/// Maximum age of the prepared deliveries at the start of a round. If they are older, the benchmark signs new deliveries. At
/// the maximum age, a delivery is still valid for six minutes. Every round is shorter than six minutes.
const FRESH: Duration = Duration::from_secs(180);
/// Number of deliveries to prepare per second of a round, for HTTP/1.1. The number is higher than the rate of hookhold on two
/// cores.
const MAX_PER_SECOND: f64 = 110_000.0;
/// The same for HTTP/2 with TLS, which costs the senders and the server more processor time per delivery.
const MAX_PER_SECOND_H2_TLS: f64 = 60_000.0;
