//! Attacking clients. Each client has an address of its own, so that no limit on addresses stops the attack, and plays one script:
//! a list of steps that send bytes.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink, split};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::select;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::https::HOST;

/// An attack on one listener.
pub struct Attack {
    pub name: &'static str,
    pub transport: Transport,
    /// Number of connections that are open at the same time.
    pub connections: usize,
    /// Options of the server in addition to the usual ones.
    pub server: &'static str,
    pub script: Vec<Step>,
}

/// Transport of an attack, and whether the client reads the responses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP to a listener without TLS.
    Tcp,
    /// Plain TCP to a listener with TLS.
    TcpToTls,
    /// TLS with this protocol.
    Tls(&'static str),
}

/// One step of a client.
#[derive(Clone)]
pub enum Step {
    /// Sends these bytes.
    Send(Bytes),
    /// Sends these bytes again and again.
    Repeat(usize, Bytes),
    /// Sends these bytes below TLS.
    SendRaw(Bytes),
    /// Sends these bytes every 200 ms until the end of the attack.
    Drip(Bytes),
    /// From now on, reads and discards all responses.
    Read,
    /// From now on, the kernel accepts few bytes of the responses.
    NarrowWindow,
}

/// Clients of a running attack. Dropping the value closes their connections.
pub struct Clients {
    _runtime: Runtime,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    /// Number of connections that have been established, with TLS if the attack uses it.
    open: AtomicUsize,
    /// Number of connections whose script has ended.
    done: AtomicUsize,
    /// Number of bytes that the clients have sent.
    sent: AtomicUsize,
}

impl Clients {
    /// Starts the clients of `attack`.
    pub fn start(attack: &Attack, target: SocketAddr, tls: &Arc<ClientConfig>) -> Clients {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, progress) = (runtime.expect("a runtime can be built"), Arc::<Progress>::default());
        for number in 0..attack.connections {
            let client = Client { number, target, transport: attack.transport, progress: progress.clone() };
            let (script, tls) = (attack.script.clone(), tls.clone());
            runtime.spawn(async move {
                client.play(script, tls).await;
            });
        }
        Clients { _runtime: runtime, progress }
    }

    /// Returns the number of connections that have been established.
    pub fn open(&self) -> usize {
        self.progress.open.load(SeqCst)
    }

    /// Returns the number of connections whose script has ended, and the number of bytes that all connections have sent. Both stop
    /// growing when the server accepts nothing more.
    pub fn work(&self) -> (usize, usize) {
        (self.progress.done.load(SeqCst), self.progress.sent.load(SeqCst))
    }
}

struct Client {
    number: usize,
    target: SocketAddr,
    transport: Transport,
    progress: Arc<Progress>,
}

impl Client {
    async fn play(self, script: Vec<Step>, tls: Arc<ClientConfig>) {
        let narrow = script.iter().any(|step| matches!(step, Step::NarrowWindow));
        let tcp = self.connect(narrow).await;
        let result = match self.transport {
            Transport::Tcp | Transport::TcpToTls => {
                self.progress.open.fetch_add(1, SeqCst);
                self.run(tcp, script).await
            }
            Transport::Tls(protocol) => {
                let mut config = ClientConfig::clone(&tls);
                config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
                let name = ServerName::try_from(HOST).expect("a host name");
                let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
                self.progress.open.fetch_add(1, SeqCst);
                match stream {
                    Ok(mut stream) => {
                        let raw = script.iter().find_map(|step| match step {
                            Step::SendRaw(bytes) => Some(bytes.clone()),
                            _ => None,
                        });
                        if let Some(raw) = raw {
                            let _ = stream.get_mut().0.write_all(&raw).await;
                            self.progress.sent.fetch_add(raw.len(), SeqCst);
                        }
                        self.run(stream, script).await
                    }
                    Err(error) => Err(error),
                }
            }
        };
        // The server may close the connection at any step.
        drop(result);
    }

    async fn connect(&self, narrow: bool) -> TcpStream {
        let [_, _, high, low] = u32::try_from(self.number).expect("few connections").to_be_bytes();
        let from = Ipv4Addr::new(127, 1 + (high >> 4), high | 0x80, low);
        loop {
            let socket = TcpSocket::new_v4().expect("a free file descriptor");
            if narrow {
                socket.set_recv_buffer_size(1024).expect("a socket has this option");
            }
            socket.bind((from, 0).into()).expect("an address of this machine");
            if let Ok(Ok(stream)) = timeout(Duration::from_secs(20), socket.connect(self.target)).await {
                return stream;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Plays the script, and then keeps the connection open until the server closes it.
    async fn run(&self, stream: impl AsyncRead + AsyncWrite, script: Vec<Step>) -> io::Result<()> {
        let (mut from, mut to) = split(stream);
        let reads = script.iter().any(|step| matches!(step, Step::Read));
        let write = async {
            for step in &script {
                self.step(step, &mut to).await?;
            }
            self.progress.done.fetch_add(1, SeqCst);
            pending::<io::Result<()>>().await
        };
        let read = async {
            match reads {
                true => copy(&mut from, &mut sink()).await.map(drop),
                false => pending().await,
            }
        };
        select! {
            ended = write => ended,
            ended = read => ended,
        }
    }

    async fn step(&self, step: &Step, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        match step {
            Step::Send(bytes) => self.send(bytes, to).await?,
            Step::Repeat(count, bytes) => {
                for _ in 0..*count {
                    self.send(bytes, to).await?;
                }
            }
            Step::Drip(bytes) => {
                let mut ticks = interval(Duration::from_millis(200));
                self.progress.done.fetch_add(1, SeqCst);
                loop {
                    ticks.tick().await;
                    to.write_all(bytes).await?;
                    to.flush().await?;
                }
            }
            Step::SendRaw(_) | Step::Read | Step::NarrowWindow => {}
        }
        Ok(())
    }

    async fn send(&self, bytes: &Bytes, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(bytes).await?;
        to.flush().await?;
        self.progress.sent.fetch_add(bytes.len(), SeqCst);
        Ok(())
    }
}
