//! Generates load on a running gateway. Many concurrent senders sign deliveries as `hookhold send` does, and send the
//! deliveries. A configured percentage of the deliveries are duplicates, and the other deliveries have new ids. A sender that
//! loses its connection opens a new connection. A [`Ledger`] records the responses to each delivery, so a test can compare the
//! responses with the journal. A load also records the latency of each response.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use hookhold::clock::{Clock, SystemClock, UnixMillis};
use hookhold::source::Source;
use hookhold::verify::sign::{Sample, SampleOptions, sign};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

/// Parameters of a load: target, sources, number of senders, rate and percentage of duplicates.
#[derive(Clone)]
pub struct Order {
    pub address: SocketAddr,
    /// Sources that take turns: the delivery with the ledger index `n` goes to the source with the index `n` modulo their number.
    pub sources: Vec<Arc<Source>>,
    pub connections: usize,
    /// Percentage of deliveries that are duplicates. The load may send a duplicate while the original delivery is still in
    /// progress.
    pub duplicate_percent: u8,
    /// Deliveries per second. With `None`, each connection sends its next delivery as soon as a response arrives.
    pub rate: Option<u32>,
    pub seed: u64,
}

/// Counts of the deliveries and responses of one or more loads.
pub struct Ledger {
    name: String,
    deliveries: Vec<DeliveryCount>,
    /// Number of responses, by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Number of requests that received no response because the connection ended.
    pub cut: u64,
}

/// Counts for one delivery id: deliveries sent, and 2xx responses to these deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCount {
    pub sent: u32,
    pub accepted: u32,
}

impl Ledger {
    /// Creates an empty ledger. Every id in the ledger contains `name`.
    pub fn new(name: &str) -> Ledger {
        Ledger { name: name.to_owned(), deliveries: Vec::new(), statuses: BTreeMap::new(), cut: 0 }
    }

    /// Returns all delivery ids in the ledger and the counts of each id.
    pub fn all(&self) -> impl Iterator<Item = (String, DeliveryCount)> {
        self.deliveries.iter().enumerate().map(|(number, count)| (self.id(number), *count))
    }

    /// Returns every delivery id in the ledger that has had at least one 2xx response.
    pub fn accepted(&self) -> impl Iterator<Item = String> {
        self.all().filter(|(_, count)| count.accepted > 0).map(|(id, _)| id)
    }

    /// Returns the number of delivery ids whose counts fulfil `condition`.
    pub fn count(&self, condition: impl Fn(DeliveryCount) -> bool) -> usize {
        self.deliveries.iter().filter(|count| condition(**count)).count()
    }

    /// Returns the ledger index of every delivery id whose counts fulfil `condition`.
    pub fn numbers(&self, condition: impl Fn(DeliveryCount) -> bool) -> Vec<usize> {
        let numbered = self.deliveries.iter().enumerate();
        numbered.filter(|(_, count)| condition(**count)).map(|(number, _)| number).collect()
    }

    /// Returns true if a request received no response, or if a response had a status other than 200.
    pub fn has_failures(&self) -> bool {
        self.cut > 0 || self.statuses.keys().any(|status| *status != 200)
    }

    /// Panics if no delivery has had a 200 response, or if [`Ledger::has_failures`] returns true.
    pub fn assert_no_sender_noticed(&self) {
        assert!(self.statuses.contains_key(&200), "no delivery was answered 200");
        assert!(!self.has_failures(), "statuses {:?}, connections lost {}", self.statuses, self.cut);
    }

    fn id(&self, number: usize) -> String {
        format!("evt_{}_{number}", self.name)
    }

    fn draw(&mut self, duplicate_percent: u8, random: &mut fastrand::Rng) -> usize {
        let known = self.deliveries.len();
        if known > 0 && random.u8(0..100) < duplicate_percent {
            // Half of the duplicates repeat a recent delivery, which may still be in progress.
            return if random.bool() { random.usize(0..known) } else { random.usize(known.saturating_sub(RECENT)..known) };
        }
        self.deliveries.push(DeliveryCount::default());
        known
    }
}

/// Returns the body of a delivery with the id `id`. The body is 0.2 to 3 KiB long and depends only on the id.
pub fn body(id: &str) -> Bytes {
    let mut random = fastrand::Rng::with_seed(u64::from(crc32c::crc32c(id.as_bytes())));
    let (customer, size) = (random.u8(..), random.usize(100..3000));
    let note: String = std::iter::repeat_with(|| random.alphanumeric()).take(size).collect();
    let object = format!(r#"{{"id":"cus_{customer}","note":"{note}"}}"#);
    format!(r#"{{"id":"{id}","type":"invoice.paid","created":1700000000,"data":{{"object":{object}}}}}"#).into()
}

/// A running load. [`Load::stop`] ends the load.
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    order: Order,
    /// Ledger indices of the deliveries to send; `None` if the load sends new deliveries and duplicates.
    numbers: Option<Vec<usize>>,
    /// Sources that sign the next deliveries. Each delivery in progress holds a reference to the source that signed it.
    sources: Mutex<Vec<Arc<Source>>>,
    ledger: Mutex<Ledger>,
    latencies: Mutex<Histogram<u64>>,
    random: Mutex<fastrand::Rng>,
    turns: AtomicU64,
    sent: AtomicU64,
    accepted: AtomicU64,
    in_flight: AtomicU64,
    stopping: AtomicBool,
}

impl Load {
    /// Starts a load of new deliveries and duplicates. The load runs until [`Load::stop`] is called.
    pub fn start(order: Order, ledger: Ledger) -> Load {
        Load::run(order, ledger, None)
    }

    /// Sends one request for each delivery whose ledger index is in `numbers`, waits for the responses and returns the ledger.
    pub fn send_again(order: Order, ledger: Ledger, numbers: Vec<usize>) -> Ledger {
        let load = Load::run(order, ledger, Some(numbers));
        load.wait_for(|load| load.thread.is_finished());
        load.stop()
    }

    /// Sends `count` new deliveries, waits for the responses and returns the ledger.
    pub fn send_new(order: Order, mut ledger: Ledger, count: usize) -> Ledger {
        let first = ledger.deliveries.len();
        ledger.deliveries.resize(first + count, DeliveryCount::default());
        Load::send_again(order, ledger, (first..first + count).collect())
    }

    /// Replaces the only source, which signs the deliveries, then waits for the responses to all deliveries that the previous source
    /// signed.
    pub fn sign_with(&self, source: Arc<Source>) {
        let previous = std::mem::replace(&mut self.shared.sources.lock().expect("no sender panics")[0], source);
        let first = &self.shared.order.sources[0];
        self.wait_for(|_| Arc::strong_count(&previous) == 1 + usize::from(Arc::ptr_eq(&previous, first)));
    }

    /// Returns the latencies of the 2xx responses since the last call, in microseconds. A latency begins at the time at which the
    /// delivery is due, so that the rate of the load does not hide slow responses.
    pub fn take_latencies(&self) -> Histogram<u64> {
        std::mem::replace(&mut *self.shared.latencies.lock().expect("no sender panics"), new_histogram())
    }

    /// Returns the number of requests that the senders have started to send so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(SeqCst)
    }

    /// Returns the number of 2xx responses that the senders have received so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(SeqCst)
    }

    /// Returns the number of requests that have not yet had a response.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(SeqCst)
    }

    /// Waits until the senders have started to send `count` requests. The wait can be long: at 500 requests per second, 15,000
    /// requests take half a minute.
    pub fn wait_until_sent(&self, count: u64) {
        self.wait_for(|load| load.sent() >= count);
    }

    /// Waits until the senders have received `count` 2xx responses.
    pub fn wait_until_accepted(&self, count: u64) {
        self.wait_for(|load| load.accepted() >= count);
    }

    /// Stops the senders, waits for the responses to all requests in progress and returns the ledger.
    pub fn stop(self) -> Ledger {
        self.shared.stopping.store(true, SeqCst);
        self.wait_for(|load| load.thread.is_finished());
        self.thread.join().expect("no sender panics");
        let shared = Arc::into_inner(self.shared).expect("all senders have ended");
        shared.ledger.into_inner().expect("no sender panics")
    }

    fn run(order: Order, ledger: Ledger, numbers: Option<Vec<usize>>) -> Load {
        let random = Mutex::new(fastrand::Rng::with_seed(order.seed));
        let [turns, sent, accepted, in_flight] = [(); 4].map(|()| AtomicU64::new(0));
        let (ledger, stopping) = (Mutex::new(ledger), AtomicBool::new(false));
        let (sources, latencies) = (Mutex::new(order.sources.clone()), Mutex::new(new_histogram()));
        let shared = Shared { order, numbers, sources, ledger, latencies, random, turns, sent, accepted, in_flight, stopping };
        let shared = Arc::new(shared);
        let senders = shared.clone();
        Load { shared, thread: thread::spawn(move || senders.run()) }
    }

    /// Waits until `condition` returns true. Panics after [`STALLED`] without a new request or a 2xx response.
    fn wait_for(&self, condition: impl Fn(&Load) -> bool) {
        let mut seen = (self.sent(), self.accepted(), Instant::now());
        while !condition(self) {
            thread::park_timeout(Duration::from_millis(1));
            if (self.sent(), self.accepted()) != (seen.0, seen.1) {
                seen = (self.sent(), self.accepted(), Instant::now());
            }
            let (sent, accepted, since) = seen;
            assert!(since.elapsed() < STALLED, "no progress: {sent} sent, {accepted} accepted, {} waiting", self.in_flight());
        }
    }
}

impl Shared {
    fn run(self: Arc<Shared>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
        runtime.block_on(async {
            let began = Instant::now();
            let mut senders = tokio::task::JoinSet::new();
            for _ in 0..self.order.connections {
                let shared = self.clone();
                senders.spawn(async move { shared.sender(began).await });
            }
            senders.join_all().await;
        });
    }

    async fn sender(&self, began: Instant) {
        let mut connection = None;
        loop {
            let open = match connection.take() {
                Some(open) => open,
                None => match self.connect().await {
                    Some(open) => open,
                    None => return,
                },
            };
            let Some((number, due)) = self.next(began).await else { return };
            connection = self.deliver(open, number, due).await;
        }
    }

    /// Connects to the gateway. Returns `None` if the load is stopped before a connection succeeds.
    async fn connect(&self) -> Option<BufStream<TcpStream>> {
        while !self.stopping.load(SeqCst) {
            if let Ok(stream) = TcpStream::connect(self.order.address).await {
                stream.set_nodelay(true).expect("a TCP socket");
                return Some(BufStream::new(stream));
            }
            sleep(RETRY).await;
        }
        None
    }

    /// Waits until the next delivery is due. Returns its ledger index and this time; `None` if there is no further delivery.
    async fn next(&self, began: Instant) -> Option<(usize, Instant)> {
        let turn = self.turns.fetch_add(1, SeqCst);
        let due = self.order.rate.map_or_else(Instant::now, |rate| began + Duration::from_secs(turn) / rate);
        if self.order.rate.is_some() {
            sleep_until(due).await;
        }
        let number = match &self.numbers {
            _ if self.stopping.load(SeqCst) => None,
            Some(numbers) => numbers.get(turn as usize).copied(),
            None => Some(self.ledger().draw(self.order.duplicate_percent, &mut self.random.lock().expect("no sender panics"))),
        };
        Some((number?, due))
    }

    /// Sends the delivery with the ledger index `number`, which was due at the time `due`. Returns the connection, or `None` if the
    /// connection failed.
    async fn deliver(&self, mut connection: BufStream<TcpStream>, number: usize, due: Instant) -> Option<BufStream<TcpStream>> {
        let id = self.ledger().id(number);
        let source = {
            let sources = self.sources.lock().expect("no sender panics");
            sources[number % sources.len()].clone()
        };
        let request = request(&source, id);
        self.in_flight.fetch_add(1, SeqCst);
        self.ledger().deliveries[number].sent += 1;
        self.sent.fetch_add(1, SeqCst);
        let response = exchange(&mut connection, &request).await;
        self.in_flight.fetch_sub(1, SeqCst);
        let mut ledger = self.ledger();
        let Ok(status) = response else {
            ledger.cut += 1;
            return None;
        };
        *ledger.statuses.entry(status).or_default() += 1;
        if (200..300).contains(&status) {
            ledger.deliveries[number].accepted += 1;
            self.accepted.fetch_add(1, SeqCst);
            let mut latencies = self.latencies.lock().expect("no sender panics");
            latencies.record(due.elapsed().as_micros() as u64).expect("the histogram grows");
        }
        Some(connection)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no sender panics")
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are possible")
}

/// Returns the bytes of an HTTP/1.1 request that contains a delivery with the id `id`. The signature has the current timestamp.
pub fn request(source: &Source, id: String) -> Vec<u8> {
    request_at(source, id, SystemClock.now())
}

/// Returns the bytes of an HTTP/1.1 request that contains a delivery with the id `id` and the timestamp `now`.
pub fn request_at(source: &Source, id: String, now: UnixMillis) -> Vec<u8> {
    let body = body(&id);
    let options = SampleOptions { id, event_type: None, key: None, now, tamper: None };
    let Sample { method, target, headers, body } = sign(source, Some(body), &options).expect("the source has a secret");
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: hooks.example.com\r\n").into_bytes();
    for (name, value) in &headers {
        request.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    request.extend(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend(body);
    request
}

/// Sends one HTTP request, reads the complete response and returns the response's status.
async fn exchange(connection: &mut BufStream<TcpStream>, request: &[u8]) -> io::Result<u16> {
    connection.write_all(request).await?;
    connection.flush().await?;
    let mut line = String::new();
    connection.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut length = 0;
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            Some(_) => {}
            None if line == "\r\n" => break,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    connection.read_exact(&mut vec![0; length]).await?;
    Ok(status)
}

/// Number of recent ids that the load prefers: half of the duplicates repeat one of these ids.
const RECENT: usize = 100;
/// Delay before a sender repeats a failed connection attempt.
const RETRY: Duration = Duration::from_millis(2);
/// Maximum time without progress. The limit exists only to end a stuck test; no assertion depends on the limit.
const STALLED: Duration = Duration::from_secs(30);
