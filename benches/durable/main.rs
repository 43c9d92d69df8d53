//! The durable path against bare hyper, in one run: how much of what this machine can receive at all does hookhold receive,
//! verify, keep on disk and answer?
//!
//!     cargo bench --bench durable [-- --dir DIR --seconds S --rounds N --connections 64,256 --senders socket|hyper --sender-threads 1]
//!
//! Both servers are processes of their own with tokio's multi-threaded runtime. Bare hyper reads the whole body and answers
//! 200 with nothing in it. hookhold is the release binary: it checks a Stripe signature, admits the event once, journals it
//! with fdatasync and answers 200. Both get the same 2 KiB deliveries with distinct ids, signed beforehand, from the same
//! senders over keep-alive connections, in turns of half a second; a round's ratio is hookhold's rate over bare hyper's of the same
//! round. Turns are short because a shared machine is faster at one moment than at the next.
//! DIR holds the journal and should lie on a disk; its file system is printed.
//!
//! The senders share the cores with the server, so their own cost is in both rates and the ratio depends on it: `socket`
//! writes prepared bytes and looks only at the first and last bytes of an answer, which is as cheap as a sender can be;
//! `hyper` is that library's HTTP/1.1 client, which is what a real sender costs. They run on one thread: with more of them the
//! kernel's placement of sender and server threads on two cores moves the ratio more than the servers do.
//!
//! The journal is small enough to have gone round before the measurement begins, so its segments are written over older ones, as
//! they are once `retain` or `max_size` has been reached. `--max-size "20 GiB"` measures the first hours of a new journal.

#[path = "../common/gateway.rs"]
mod gateway;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway::{Result, Server, free, wire};
use hookhold::clock::{Clock, SystemClock};
use hookhold::config::Config;
use hookhold::verify::sign::{SampleOptions, sign};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--bare") {
        return bare();
    }
    let given = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned();
    let seconds: u64 = given("--seconds").map_or(Ok(2), |text| text.parse())?;
    let rounds: usize = given("--rounds").map_or(Ok(5), |text| text.parse())?;
    let dir = given("--dir").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let threads: usize = given("--sender-threads").map_or(Ok(1), |text| text.parse())?;
    let connections = given("--connections").unwrap_or_else(|| "64,256".to_owned());
    let senders = match given("--senders").as_deref() {
        None | Some("socket") => Senders::Socket,
        Some("hyper") => Senders::Hyper,
        Some(other) => return Err(format!("--senders {other}: socket or hyper").into()),
    };
    for count in connections.split(',') {
        let load = Load { senders, threads, connections: count.parse()?, time: Duration::from_secs(seconds) };
        compare(load, rounds, &dir)?;
    }
    Ok(())
}

/// Who sends, over how many connections, for how long.
#[derive(Clone, Copy, Debug)]
struct Load {
    senders: Senders,
    threads: usize,
    connections: usize,
    time: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Senders {
    Socket,
    Hyper,
}

fn compare(load: Load, rounds: usize, dir: &std::path::Path) -> Result<()> {
    let (file_system, _) = hookhold::journal::file_system(dir)?;
    let Load { senders, threads, connections, .. } = load;
    print!("{connections} connections ({senders:?} senders on {threads} thread(s)), {BODY} B Stripe bodies, ");
    println!("journal on {file_system}, {} cores", cores());
    let requests: Arc<[Prepared]> = requests(load)?.into();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let mut bare = Run::new(Served::bare()?, &requests);
        let mut durable = Run::new(Served::hookhold(dir)?, &requests);
        durable.turn(&runtime, load, WARM_UP)?;
        durable.total = Total::default();
        while durable.total.lasted < load.time {
            for run in [&mut bare, &mut durable] {
                run.turn(&runtime, load, TURN)?;
            }
        }
        let ((ceiling, cheapest), (rate, cost)) = (bare.total.figures(), durable.total.figures());
        let commits = durable.server.commits()?;
        drop((bare, durable));
        ratios.push(rate / ceiling);
        print!("  round {round}: bare hyper {ceiling:>7.0}/s {cheapest:>5.1} us CPU each; ");
        println!("durable {rate:>7.0}/s {cost:>5.1} us, {commits}; ratio {:.3}", rate / ceiling);
    }
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
    let median = (ratios[(ratios.len() - 1) / 2] + ratios[ratios.len() / 2]) / 2.0;
    println!("  median ratio {median:.3} (from {low:.3} to {high:.3})\n");
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One of the two that are compared.
struct Served {
    server: Server,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    _dir: Option<tempfile::TempDir>,
}

impl Served {
    fn bare() -> Result<Served> {
        let mut child = Command::new(std::env::current_exe()?).arg("--bare").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        Ok(Served { server: Server(child), address: line.trim().parse()?, admin: None, _dir: None })
    }

    fn hookhold(dir: &std::path::Path) -> Result<Served> {
        let dir = tempfile::tempdir_in(dir)?;
        let (address, admin) = (free()?, free()?);
        std::fs::write(dir.path().join("hookhold.toml"), configuration(address, admin, dir.path()))?;
        let mut command = gateway::hookhold();
        command.args(["run", "--config"]).arg(dir.path().join("hookhold.toml"));
        let server = Server::start(command.env("BENCH_SECRET", SECRET).stderr(Stdio::null()), address)?;
        Ok(Served { server, address, admin: Some(admin), _dir: Some(dir) })
    }

    /// How large the commits were and how long their syncs took, from `/metrics`.
    fn commits(&self) -> Result<String> {
        let mut stream = std::net::TcpStream::connect(self.admin.ok_or("no metrics")?)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(f64::NAN)
        };
        let events = value("hookhold_journal_batch_events_sum") / value("hookhold_journal_batch_events_count");
        let sync = value("hookhold_journal_sync_seconds_sum") / value("hookhold_journal_sync_seconds_count");
        Ok(format!("{events:.0} events a sync of {:.0} us", sync * 1e6))
    }

    /// User and system time so far, from fields 14 and 15 of proc(5)'s `stat`, in ticks of 10 ms.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.0.id()))?;
        let fields = stat.rsplit(") ").next().ok_or("no fields")?;
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum::<u64>();
        Ok(ticks as f64 / 100.0)
    }
}

/// The journal's `max_size`: three segments that are written over again and again, and one spare, unless `--max-size` is given.
fn max_size() -> String {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--max-size").skip(1);
    arguments.next().unwrap_or_else(|| "256 MiB".to_owned())
}

fn configuration(address: SocketAddr, admin: SocketAddr, dir: &std::path::Path) -> String {
    format!(
        "[server]\nlisten = \"{address}\"\n[admin]\nlisten = \"{admin}\"\n[journal]\ndir = \"{}\"\nmax_size = \"{}\"\n\
         [sources.stripe]\nprovider = \"stripe\"\nsecrets = [\"env:BENCH_SECRET\"]\n",
        dir.join("journal").display(),
        max_size()
    )
}

/// One signed delivery, as one kind of sender needs it.
enum Prepared {
    Bytes(Bytes),
    Parts { target: http::Uri, headers: http::HeaderMap, body: Bytes },
}

/// Requests with distinct ids for the longest round, signed now. Each round has a journal of its own, so it may send them again.
fn requests(load: Load) -> Result<Vec<Prepared>> {
    let count = (WARM_UP + load.time + load.time / 2).as_secs() as usize * MOST_PER_SECOND;
    let text = configuration(free()?, free()?, std::path::Path::new("unused"));
    let path = std::env::temp_dir().join("bench.toml");
    let secret = std::env::temp_dir().join(format!("bench-secret-{}", std::process::id()));
    std::fs::write(&secret, SECRET)?;
    let text = text.replace("env:BENCH_SECRET", &format!("file:{}", secret.display()));
    let config = Config::parse(&path.display().to_string(), &text, |_, _| None).map_err(|mistakes| mistakes.to_string());
    std::fs::remove_file(&secret)?;
    let source = &config?.sources[0];
    let (now, run) = (SystemClock.now(), fastrand::u64(..));
    let options = |id: String| SampleOptions { id, event_type: None, key: None, now, tamper: None };
    Ok((0..count)
        .map(|index| {
            let id = format!("evt_{run:016x}{index:08}");
            let sample = sign(source, Some(body(&id)), &options(id));
            match load.senders {
                Senders::Socket => Prepared::Bytes(wire(&sample).into()),
                Senders::Hyper => {
                    let target = sample.target.parse().expect("a path is a URI");
                    Prepared::Parts { target, headers: sample.headers, body: sample.body }
                }
            }
        })
        .collect())
}

/// Like Stripe's: the id first, the type last.
fn body(id: &str) -> Bytes {
    let head = format!("{{\"id\": \"{id}\", \"object\": \"event\", \"data\": {{\"object\": {{\"id\": \"in_1\", \"lines\": \"");
    let tail = "\"}}, \"livemode\": false, \"type\": \"invoice.paid\"}";
    let fill = "x".repeat(BODY - head.len() - tail.len());
    format!("{head}{fill}{tail}").into()
}

/// One server, all that was sent to it in a round, and what came of it.
struct Run {
    server: Served,
    shared: Arc<Shared>,
    total: Total,
}

/// The turns so far.
#[derive(Default)]
struct Total {
    answers: u64,
    lasted: Duration,
    cpu_seconds: f64,
}

impl Total {
    /// Answers per second, and microseconds of processor time that the server took for each.
    fn figures(&self) -> (f64, f64) {
        let count = self.answers as f64;
        (count / self.lasted.as_secs_f64(), self.cpu_seconds * 1e6 / count)
    }
}

impl Run {
    fn new(server: Served, requests: &Arc<[Prepared]>) -> Run {
        let shared = Arc::new(Shared::new(requests.clone(), server.admin.is_some()));
        Run { server, shared, total: Total::default() }
    }

    /// Keeps all connections busy for so long, and counts from when they are.
    fn turn(&mut self, runtime: &tokio::runtime::Runtime, load: Load, time: Duration) -> Result<()> {
        let (address, shared) = (self.server.address, &self.shared);
        shared.over.store(false, Ordering::Relaxed);
        let tasks: Vec<_> = (0..load.connections)
            .map(|_| match load.senders {
                Senders::Socket => runtime.spawn(talk(address, shared.clone())),
                Senders::Hyper => runtime.spawn(converse(address, shared.clone())),
            })
            .collect();
        let answers = || shared.answers.load(Ordering::Relaxed);
        std::thread::sleep(SETTLE);
        let (before, began, cpu) = (answers(), Instant::now(), self.server.cpu_seconds()?);
        std::thread::sleep(time);
        self.total.answers += answers() - before;
        self.total.lasted += began.elapsed();
        self.total.cpu_seconds += self.server.cpu_seconds()? - cpu;
        shared.over.store(true, Ordering::Relaxed);
        for task in tasks {
            runtime.block_on(task)??;
        }
        Ok(())
    }
}

/// What all senders to one server share.
struct Shared {
    requests: Arc<[Prepared]>,
    /// A repeat would cost the server less, so there must be none.
    once: bool,
    next: AtomicUsize,
    answers: AtomicU64,
    over: AtomicBool,
}

impl Shared {
    fn new(requests: Arc<[Prepared]>, once: bool) -> Shared {
        Shared { requests, once, next: AtomicUsize::new(0), answers: AtomicU64::new(0), over: AtomicBool::new(false) }
    }

    fn next(&self) -> Result<Option<&Prepared>> {
        if self.over.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if self.once && index >= self.requests.len() {
            return Err("more than the prepared requests were sent; raise MOST_PER_SECOND".into());
        }
        Ok(Some(&self.requests[index % self.requests.len()]))
    }
}

async fn talk(address: SocketAddr, shared: Arc<Shared>) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = [0; 1024];
    while let Some(Prepared::Bytes(request)) = shared.next()? {
        stream.write_all(request).await?;
        let got = stream.read(&mut answer).await?;
        // Both servers answer with an empty body, so the answer ends with its head.
        if !answer[..got].starts_with(b"HTTP/1.1 200") || !answer[..got].ends_with(b"\r\n\r\n") {
            return Err(format!("not a whole 200: {:?}", String::from_utf8_lossy(&answer[..got])).into());
        }
        shared.answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn converse(address: SocketAddr, shared: Arc<Shared>) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    while let Some(Prepared::Parts { target, headers, body }) = shared.next()? {
        let mut request = Request::post(target.clone()).body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        let answer = sender.send_request(request).await?;
        if answer.status() != 200 || !answer.into_body().collect().await?.to_bytes().is_empty() {
            return Err("not an empty 200".into());
        }
        shared.answers.fetch_add(1, Ordering::Relaxed);
    }
    drop(sender);
    Ok(driver.await??)
}

/// The reference: reads the body, answers 200.
fn bare() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(|request: Request<Incoming>| async move {
                request.into_body().collect().await?;
                Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

const BODY: usize = 2048;
const SECRET: &str = "whsec_benchmark";
/// Until the journal has gone round.
const WARM_UP: Duration = Duration::from_secs(3);
const TURN: Duration = Duration::from_millis(500);
/// Until every connection is busy.
const SETTLE: Duration = Duration::from_millis(100);
/// More than can be received durably on two cores.
const MOST_PER_SECOND: usize = 110_000;
