//! A load of deliveries that are never sent again. A sender that meets a failed or a lost connection counts it, and continues with the
//! next delivery. As every HTTP client, a sender does not use a connection that the server has announced to close.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use hookhold::clock::{Clock, SystemClock};
use hookhold::source::Source;
use hookhold::verify::sign::{Sample, SampleOptions, sign};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::h2::tls_connection;
use crate::https::{HOST, Pair};
use crate::load::{body, request};
use crate::process::wait_until;

/// Use of connections by the senders.
#[derive(Clone)]
pub enum Transport {
    /// A connection for each delivery.
    New,
    /// One connection for each sender, for as long as the server keeps it open.
    Persistent,
    /// One HTTP/2 connection for [`STREAMS`] senders.
    Http2(Arc<Pair>),
}

/// Parameters of a load.
#[derive(Clone)]
pub struct SteadyOrder {
    pub address: SocketAddr,
    pub source: Arc<Source>,
    /// Deliveries per second of all senders together.
    pub rate: u32,
    pub senders: usize,
    pub transport: Transport,
    /// Part of each id.
    pub name: String,
}

/// Responses and failures that the senders have met.
#[derive(Default)]
pub struct SteadyResult {
    pub statuses: BTreeMap<u16, u64>,
    pub accepted: BTreeSet<String>,
    /// Errors of connection attempts.
    pub failed: Vec<String>,
    /// Errors of deliveries that were sent, at least in part, and have got no response.
    pub lost: Vec<String>,
}

/// A running load.
pub struct SteadyLoad {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    order: SteadyOrder,
    turns: AtomicU64,
    answered: AtomicU64,
    stopping: AtomicBool,
    result: Mutex<SteadyResult>,
}

type SendRequest = http2::SendRequest<Full<Bytes>>;

impl SteadyLoad {
    /// Starts the senders.
    pub fn start(order: SteadyOrder) -> SteadyLoad {
        let [turns, answered] = [(); 2].map(|()| AtomicU64::new(0));
        let shared = Arc::new(Shared { order, turns, answered, stopping: AtomicBool::new(false), result: Mutex::default() });
        let senders = shared.clone();
        SteadyLoad { shared, thread: thread::spawn(move || senders.run()) }
    }

    /// Waits until the senders have got `count` further responses.
    pub fn wait_for(&self, count: u64) {
        let goal = self.shared.answered.load(SeqCst) + count;
        wait_until("the senders get responses", || self.shared.answered.load(SeqCst) >= goal);
    }

    /// Ends the load after the responses to all deliveries that have been sent.
    pub fn stop(self) -> SteadyResult {
        self.shared.stopping.store(true, SeqCst);
        self.thread.join().expect("no sender panics");
        Arc::into_inner(self.shared).expect("all senders have ended").result.into_inner().expect("no sender panics")
    }
}

impl SteadyResult {
    /// Panics if a sender has met anything but a 2xx.
    pub fn assert_no_sender_noticed(&self, what: &str) {
        assert!(!self.accepted.is_empty(), "{what}: no delivery was answered");
        let SteadyResult { statuses, failed, lost, .. } = self;
        assert!(
            failed.is_empty() && lost.is_empty() && statuses.keys().all(|status| (200..300).contains(status)),
            "{what}: statuses {statuses:?}, failed {failed:?}, lost {lost:?}"
        );
    }
}

impl Shared {
    fn run(self: Arc<Shared>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
        runtime.block_on(async {
            let (began, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
            for number in 0..self.order.senders {
                let shared = self.clone();
                match self.order.transport.clone() {
                    Transport::New | Transport::Persistent => drop(tasks.spawn(async move { shared.http1_sender(began).await })),
                    Transport::Http2(pair) if number % STREAMS == 0 => {
                        let connection = Arc::new(tokio::sync::Mutex::new(None));
                        for _ in 0..STREAMS {
                            let (shared, pair, connection) = (shared.clone(), pair.clone(), connection.clone());
                            tasks.spawn(async move { shared.http2_sender(began, &pair, &connection).await });
                        }
                    }
                    Transport::Http2(_) => {}
                }
            }
            tasks.join_all().await;
        });
    }

    /// Waits until the next delivery is due, and returns its id; `None` at the end of the load.
    async fn next(&self, began: Instant) -> Option<String> {
        let turn = self.turns.fetch_add(1, SeqCst);
        sleep_until(began + Duration::from_secs(turn) / self.order.rate).await;
        (!self.stopping.load(SeqCst)).then(|| format!("evt_{}_{turn}", self.order.name))
    }

    fn record(&self, id: String, response: io::Result<u16>) {
        let mut result = self.result.lock().expect("no sender panics");
        match response {
            Ok(status) => {
                *result.statuses.entry(status).or_default() += 1;
                if (200..300).contains(&status) {
                    result.accepted.insert(id);
                }
                self.answered.fetch_add(1, SeqCst);
            }
            Err(error) => result.lost.push(format!("{id}: {error}")),
        }
    }

    fn fail(&self, error: &io::Error) {
        self.result.lock().expect("no sender panics").failed.push(error.to_string());
    }

    async fn http1_sender(&self, began: Instant) {
        let mut connection: Option<BufStream<TcpStream>> = None;
        while let Some(id) = self.next(began).await {
            // A client uses no connection that it knows to be closed.
            let open = connection
                .take()
                .filter(|open| open.get_ref().try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
            let mut open = match open {
                Some(open) => open,
                None => match TcpStream::connect(self.order.address).await {
                    Ok(stream) => BufStream::new(stream),
                    Err(error) => {
                        self.fail(&error);
                        continue;
                    }
                },
            };
            let response = exchange(&mut open, &request(&self.order.source, id.clone())).await;
            let is_last = matches!(&response, Ok((_, Announced::Close)) | Err(_));
            self.record(id, response.map(|(status, _)| status));
            connection = (!is_last && matches!(self.order.transport, Transport::Persistent)).then_some(open);
        }
    }

    async fn http2_sender(&self, began: Instant, pair: &Pair, connection: &tokio::sync::Mutex<Option<SendRequest>>) {
        while let Some(id) = self.next(began).await {
            let mut request = http2_request(&self.order.source, &id);
            loop {
                let mut sender = {
                    let mut shared = connection.lock().await;
                    match shared.take().filter(|sender: &SendRequest| !sender.is_closed()) {
                        Some(sender) => *shared = Some(sender),
                        None => *shared = Some(self.connect(pair).await),
                    }
                    shared.clone().expect("set above")
                };
                match sender.try_send_request(request).await {
                    Ok(response) => {
                        let status = response.status().as_u16();
                        let body = response.into_body().collect().await;
                        self.record(id, body.map(|_| status).map_err(io::Error::other));
                        break;
                    }
                    Err(mut error) => match error.take_message() {
                        // The server has announced the end of the connection, and nothing was sent.
                        Some(unsent) => {
                            request = unsent;
                            let mut shared = connection.lock().await;
                            shared.take_if(|current| current.is_closed() || !current.is_ready());
                        }
                        None => {
                            self.record(id, Err(io::Error::other(error.into_error())));
                            break;
                        }
                    },
                }
            }
        }
    }

    /// Opens an HTTP/2 connection. A failed connection is a failure of the test.
    async fn connect(&self, pair: &Pair) -> SendRequest {
        let stream = tls_connection(self.order.address, pair, "h2").await;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("an HTTP/2 connection");
        tokio::spawn(connection);
        sender
    }
}

fn http2_request(source: &Source, id: &str) -> Request<Full<Bytes>> {
    let options = SampleOptions { id: id.to_owned(), event_type: None, key: None, now: SystemClock.now(), tamper: None };
    let Sample { method, target, headers, body } = sign(source, Some(body(id)), &options).expect("the source has a secret");
    let mut request = Request::builder().method(method).uri(format!("https://{HOST}{target}"));
    for (name, value) in &headers {
        request = request.header(name, value);
    }
    request.body(Full::new(body)).expect("a request")
}

/// Announcement of a response about its connection.
enum Announced {
    Nothing,
    Close,
}

async fn exchange(connection: &mut BufStream<TcpStream>, request: &[u8]) -> io::Result<(u16, Announced)> {
    connection.write_all(request).await?;
    connection.flush().await?;
    let mut line = String::new();
    connection.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::UnexpectedEof)?;
    let (mut length, mut announced) = (0, Announced::Nothing);
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            Some(("connection", "close")) => announced = Announced::Close,
            Some(_) => {}
            None if line == "\r\n" => break,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    connection.read_exact(&mut vec![0; length]).await?;
    Ok((status, announced))
}

/// Number of senders that share an HTTP/2 connection.
const STREAMS: usize = 5;
