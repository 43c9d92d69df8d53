//! Simulates attacks on a public endpoint. An attacking client occupies a connection by sending one byte per second, occupies
//! memory with a large incomplete body, or sends forged deliveries as fast as the server responds. When the server closes a
//! connection, the client opens a new one.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

/// Attacking clients on a separate thread. Dropping the value stops the clients.
pub struct Attack {
    runtime: Runtime,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    opened: AtomicU64,
    statuses: Mutex<BTreeMap<u16, u64>>,
}

impl Attack {
    /// Creates an attack on the address `target`. The attack has no clients yet.
    pub fn new(target: SocketAddr) -> Attack {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let shared = Shared { target, opened: AtomicU64::new(0), statuses: Mutex::new(BTreeMap::new()) };
        Attack { runtime: runtime.expect("a runtime can be built"), shared: Arc::new(shared) }
    }

    /// Opens `connections` connections from the address `from`. Each connection sends `request` at one byte per second.
    pub fn trickle(&self, from: Ipv4Addr, connections: usize, request: &[u8]) {
        self.spawn(from, connections, request, 0);
    }

    /// Opens `connections` connections from the address `from`. Each connection sends the first `held` bytes of `request`
    /// at once and all further bytes at one byte per second.
    pub fn hoard(&self, from: Ipv4Addr, connections: usize, request: &[u8], held: usize) {
        self.spawn(from, connections, request, held);
    }

    /// Opens `connections` connections from the address `from`. Each connection sends `request`, and sends it again after
    /// each response.
    pub fn forge(&self, from: Ipv4Addr, connections: usize, request: &[u8]) {
        let request = Bytes::copy_from_slice(request);
        for _ in 0..connections {
            let (shared, request) = (self.shared.clone(), request.clone());
            self.runtime.spawn(async move {
                loop {
                    let mut stream = shared.connect(from).await;
                    while let Ok(status) = exchange(&mut stream, &request).await {
                        *shared.statuses.lock().expect("no client panics").entry(status).or_default() += 1;
                    }
                }
            });
        }
    }

    /// Returns the number of connections that the attack has opened, including reconnects.
    pub fn opened(&self) -> u64 {
        self.shared.opened.load(SeqCst)
    }

    /// Returns the number of responses to forged deliveries, by response status.
    pub fn forger_statuses(&self) -> BTreeMap<u16, u64> {
        self.shared.statuses.lock().expect("no client panics").clone()
    }

    fn spawn(&self, from: Ipv4Addr, connections: usize, request: &[u8], held: usize) {
        let request = Bytes::copy_from_slice(request);
        for _ in 0..connections {
            let (shared, request) = (self.shared.clone(), request.clone());
            self.runtime.spawn(async move {
                loop {
                    let mut stream = shared.connect(from).await;
                    let _ = trickle(&mut stream, &request, held).await;
                    sleep(RECONNECT_DELAY).await;
                }
            });
        }
    }
}

impl Shared {
    async fn connect(&self, from: Ipv4Addr) -> TcpStream {
        loop {
            let socket = TcpSocket::new_v4().expect("a free file descriptor");
            socket.bind((from, 0).into()).expect("an address of this machine");
            if let Ok(stream) = socket.connect(self.target).await {
                self.opened.fetch_add(1, SeqCst);
                return stream;
            }
            sleep(RECONNECT_DELAY).await;
        }
    }
}

/// Sends the first `held` bytes of `request` at once and all further bytes at one byte per second. Stops early if the server
/// closes the connection or responds, because a response to an incomplete request is always a rejection.
async fn trickle(stream: &mut TcpStream, request: &[u8], held: usize) -> io::Result<()> {
    let (at_once, rest) = request.split_at(held);
    stream.write_all(at_once).await?;
    for byte in rest {
        stream.write_all(&[*byte]).await?;
        if timeout(Duration::from_secs(1), stream.read(&mut [0; 256])).await.is_ok() {
            break;
        }
    }
    Ok(())
}

/// Sends the request of a forged delivery and returns the status of the response. Reads only the response head, because a
/// rejection has no body.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<u16> {
    stream.write_all(request).await?;
    let (mut answer, mut length) = ([0; 512], 0);
    while !answer[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut answer[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
    }
    let status = std::str::from_utf8(&answer[9..12]).ok().and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Delay before a client of [`Attack::trickle`] or [`Attack::hoard`] reconnects, and before any client repeats a failed
/// connection attempt. The delay keeps the processor load of the clients low.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// Raises the soft open-file limit to the hard limit, because the default soft limit is usually too low for 1,000 connections.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the soft limit may be raised to the hard limit");
    assert!(maximum.is_none_or(|most| most > 2_000), "the hard limit of open files is too low: {maximum:?}");
}
