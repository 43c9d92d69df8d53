//! Attackers that scan, forge deliveries, send bodies slowly and open connections as fast as they can. All attackers run on one
//! thread, so they use at most one processor core.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::Protocol;
use crate::https::HOST;
use crate::process::post;

/// Running attackers. Dropping the value stops them.
pub struct Flood {
    runtime: Runtime,
    shared: Arc<Shared>,
    start: Instant,
}

/// Number of attackers of each kind at one address.
#[derive(Clone, Copy)]
pub struct Attackers {
    pub scanners: usize,
    pub forgers: usize,
    /// Attackers that send forged bodies of 20 MiB.
    pub large_forgers: usize,
    pub dripping: usize,
    /// Attackers that hold an incomplete body of 1 MiB in memory.
    pub hoarders: usize,
    /// Attackers that open connections and send nothing.
    pub openers: usize,
    /// Attackers that perform TLS handshakes and send nothing.
    pub handshakers: usize,
}

/// Header fields of forged deliveries.
pub type Fields = Vec<(String, String)>;

struct Shared {
    target: SocketAddr,
    protocol: Protocol,
    tls: Arc<ClientConfig>,
    forged: Fields,
    small: Bytes,
    large: Bytes,
    /// Number of connections that each opener holds open.
    held: usize,
    opened: AtomicU64,
    handshakes: AtomicU64,
    answers: AtomicU64,
}

/// Kind of an attacker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Scan,
    ForgeSmall,
    ForgeLarge,
    Drip,
    Hoard,
    Open,
    Handshake,
}

impl Flood {
    /// Starts attackers at each of the addresses. `forged` contains the header fields of forged deliveries.
    pub fn start(
        target: SocketAddr,
        protocol: Protocol,
        tls: ClientConfig,
        forged: Fields,
        from: impl IntoIterator<Item = (Ipv4Addr, Attackers)>,
    ) -> Flood {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, from) = (runtime.expect("a runtime can be built"), from.into_iter().collect::<Vec<_>>());
        let openers: usize = from.iter().map(|(_, attackers)| attackers.openers).sum();
        let [opened, handshakes, answers] = [(); 3].map(|()| AtomicU64::new(0));
        let [small, large] = [2_000, 20 << 20].map(|size| Bytes::from(vec![b'x'; size]));
        let (tls, held) = (Arc::new(tls), MAX_HELD / openers);
        let shared = Arc::new(Shared { target, protocol, tls, forged, small, large, held, opened, handshakes, answers });
        for (from, attackers) in from {
            for (count, kind) in [
                (attackers.scanners, Kind::Scan),
                (attackers.forgers, Kind::ForgeSmall),
                (attackers.large_forgers, Kind::ForgeLarge),
                (attackers.dripping, Kind::Drip),
                (attackers.hoarders, Kind::Hoard),
                (attackers.openers, Kind::Open),
                (attackers.handshakers, Kind::Handshake),
            ] {
                for _ in 0..count {
                    let shared = shared.clone();
                    runtime.spawn(async move { shared.attack(from, kind).await });
                }
            }
        }
        Flood { runtime, shared, start: Instant::now() }
    }

    /// Returns the number of answers that the attackers have received.
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(SeqCst)
    }

    /// Returns the rate of the attack as text.
    pub fn rate(&self) -> String {
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = |count: &AtomicU64| (count.load(SeqCst) as f64 / seconds).round();
        let Shared { opened, handshakes, answers, .. } = &*self.shared;
        let [opened, handshakes, answers] = [opened, handshakes, answers].map(rate);
        // The runtime has one worker thread, which runs this task.
        let busy = self.runtime.block_on(self.runtime.spawn(async { clock_gettime(ClockId::ThreadCPUTime) }));
        let busy = busy.expect("the task does not panic");
        let percent = ((busy.tv_sec as f64 + busy.tv_nsec as f64 / 1e9) / seconds * 100.0).round();
        format!("{opened} connections, {handshakes} TLS handshakes and {answers} answers per second, {percent} % of a core")
    }
}

impl Shared {
    async fn attack(&self, from: Ipv4Addr, kind: Kind) {
        if kind == Kind::Open {
            return self.open_connections(from).await;
        }
        loop {
            // The server ends each attack. Limits the time, because the answer may never come.
            let _ = timeout(Duration::from_secs(30), self.attack_once(from, kind)).await;
            yield_now().await;
        }
    }

    /// Opens connections without a pause. Sends nothing, and closes the oldest ones.
    async fn open_connections(&self, from: Ipv4Addr) {
        let mut held = VecDeque::new();
        loop {
            held.extend(self.connect(from).await);
            if held.len() > self.held {
                held.pop_front();
            }
            yield_now().await;
        }
    }

    async fn attack_once(&self, from: Ipv4Addr, kind: Kind) -> io::Result<()> {
        let stream = self.connect(from).await?;
        match (kind, self.protocol) {
            (Kind::Handshake, _) => self.secure(stream, b"http/1.1").await.map(drop),
            (_, Protocol::Plain) => self.send_requests(stream, kind).await,
            (Kind::Drip | Kind::Hoard, _) | (_, Protocol::Tls) => {
                let stream = self.secure(stream, b"http/1.1").await?;
                self.send_requests(stream, kind).await
            }
            (_, Protocol::H2) => {
                let stream = self.secure(stream, b"h2").await?;
                self.send_streams(stream, kind).await
            }
        }
    }

    async fn connect(&self, from: Ipv4Addr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_zero_linger()?;
        if from != Ipv4Addr::LOCALHOST {
            socket.bind((from, 0).into())?;
        }
        let stream = socket.connect(self.target).await?;
        stream.set_nodelay(true)?;
        self.opened.fetch_add(1, SeqCst);
        Ok(stream)
    }

    async fn secure(&self, stream: TcpStream, protocol: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = (*self.tls).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(HOST).expect("a host name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        self.handshakes.fetch_add(1, SeqCst);
        Ok(stream)
    }

    /// Sends requests over HTTP/1.1, each after the answer to the previous one.
    async fn send_requests(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, kind: Kind) -> io::Result<()> {
        let request = match kind {
            Kind::Scan => b"GET /wp-login.php HTTP/1.1\r\nhost: hooks.example.com\r\n\r\n".to_vec(),
            Kind::ForgeLarge => post("/hooks/github", &self.forged, &self.large),
            Kind::Hoard => post("/hooks/github", &self.forged, &self.large[..2 << 20]),
            _ => post("/hooks/github", &self.forged, &self.small),
        };
        match kind {
            Kind::Drip => return drip(stream, &request, 10).await,
            Kind::Hoard => return drip(stream, &request, 1 << 20).await,
            _ => {}
        }
        loop {
            stream.write_all(&request).await?;
            read_answer(&mut stream).await?;
            self.answers.fetch_add(1, SeqCst);
        }
    }

    /// Sends many concurrent requests over HTTP/2.
    async fn send_streams(&self, stream: TlsStream<TcpStream>, kind: Kind) -> io::Result<()> {
        let opened = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (requests, connection) = opened.map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        let ask = || async {
            let mut requests = requests.clone();
            loop {
                let (method, path, body) = match kind {
                    Kind::Scan => ("GET", "wp-login.php", Bytes::new()),
                    Kind::ForgeLarge => ("POST", "hooks/github", self.large.clone()),
                    _ => ("POST", "hooks/github", self.small.clone()),
                };
                let mut request = Request::builder().method(method).uri(format!("https://{HOST}/{path}"));
                for (name, value) in &self.forged {
                    request = request.header(name, value);
                }
                let request = request.body(Full::new(body)).expect("a request");
                if requests.ready().await.is_err() || requests.send_request(request).await.is_err() {
                    return;
                }
                self.answers.fetch_add(1, SeqCst);
            }
        };
        match kind {
            Kind::ForgeLarge => ask().await,
            _ => drop(tokio::join!(ask(), ask(), ask(), ask())),
        }
        connection.abort();
        Ok(())
    }
}

/// Sends `at_once` bytes of a request, and then one byte per second, until the server answers or closes the connection.
async fn drip(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8], at_once: usize) -> io::Result<()> {
    let (start, rest) = request.split_at(at_once);
    stream.write_all(start).await?;
    for byte in rest {
        stream.write_all(&[*byte]).await?;
        if timeout(Duration::from_secs(1), stream.read(&mut [0; 256])).await.is_ok() {
            break;
        }
    }
    Ok(())
}

/// Reads an answer with `content-length`, and returns its status.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    let (mut answer, mut end) = (Vec::new(), None);
    while end.is_none_or(|end| answer.len() < end) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if end.is_none()
            && let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(&answer[..head]);
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            end = Some(head + 4 + length.map_or(0, |length| length.parse::<usize>().expect("a number")));
        }
    }
    let status = str::from_utf8(&answer[9..12]).ok().and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Number of idle connections that all openers together hold open.
const MAX_HELD: usize = 3_000;
