//! An HTTP/2 client that decides about every piece of a body, hyper's own, over rustls.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::https::{Delivery, HOST, Pair};

/// A connection.
pub struct Client {
    requests: SendRequest<Channel<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

/// A request whose head has been sent.
pub struct UnderWay {
    /// Where its body goes.
    pub body: Sender<Bytes>,
    answer: JoinHandle<hyper::Result<Response<Incoming>>>,
}

impl Client {
    /// Shakes hands, and trusts this certificate alone.
    pub async fn connect(address: SocketAddr, pair: &Pair) -> Client {
        let mut roots = RootCertStore::empty();
        let pem = fs::read(pair.cert()).expect("it has been written");
        roots.add(CertificateDer::from_pem_slice(&pem).expect("a certificate")).expect("one that can be trusted");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("ring has ciphers for them");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        let name = ServerName::try_from(HOST).expect("a host name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
        let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (requests, connection) = made.expect("an HTTP/2 connection");
        Client { requests, connection: tokio::spawn(connection) }
    }

    /// Sends the head of a delivery.
    pub async fn begin(&mut self, delivery: &Delivery) -> UnderWay {
        self.ask("/hooks/github", &delivery.headers(), delivery.body.len()).await
    }

    /// Sends the head of any request with a body.
    pub async fn ask(&mut self, path: &str, headers: &[(String, String)], length: usize) -> UnderWay {
        let mut request = Request::post(format!("https://{HOST}{path}")).header("content-length", length);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (body, channel) = Channel::new(1);
        self.requests.ready().await.expect("the connection is open");
        let answer = self.requests.send_request(request.body(channel).expect("a request"));
        UnderWay { body, answer: tokio::spawn(answer) }
    }

    /// Sends a delivery whole; the status of its answer.
    pub async fn deliver(&mut self, delivery: &Delivery) -> StatusCode {
        let mut under_way = self.begin(delivery).await;
        under_way.send(&delivery.body).await;
        under_way.status().await
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(self) {
        let _ = self.connection.await.expect("no panic");
        drop(self.requests);
    }
}

impl UnderWay {
    /// Sends a piece of the body.
    pub async fn send(&mut self, piece: &str) {
        self.body.send_data(Bytes::copy_from_slice(piece.as_bytes())).await.expect("hyper takes it");
    }

    /// The status of the answer.
    pub async fn status(self) -> StatusCode {
        self.answer.await.expect("no panic").expect("an answer").status()
    }
}

/// Between a client and the server: what the server says can be held back, as if it were still on its way.
pub struct Wire {
    /// Where the client connects.
    pub address: SocketAddr,
    held: watch::Sender<bool>,
    spoke: Arc<Notify>,
}

impl Wire {
    /// To the server, for one connection.
    pub async fn to(server: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound above");
        let wire = Wire { address, held: watch::Sender::new(false), spoke: Arc::default() };
        let (mut held, spoke) = (wire.held.subscribe(), wire.spoke.clone());
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("a client");
            let server = TcpStream::connect(server).await.expect("somebody listens");
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
            let mut bytes = vec![0; 64 << 10];
            while let Ok(count) = from_server.read(&mut bytes).await {
                if *held.borrow() {
                    spoke.notify_one();
                }
                let _ = held.wait_for(|held| !held).await;
                if count == 0 || to_client.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        });
        wire
    }

    /// Holds back what the server says from now on.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Waits until something is held back, or the server has closed.
    pub async fn spoken(&self) {
        self.spoke.notified().await;
    }

    /// Lets it through.
    pub fn release(&self) {
        self.held.send_replace(false);
    }
}
