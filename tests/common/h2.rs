//! An HTTP/2 client, built with hyper and rustls. A test chooses the pieces in which the client sends a request body.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::https::{Delivery, HOST, Pair};

/// An HTTP/2 client with a single connection.
pub struct Client {
    requests: SendRequest<Channel<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

/// A request whose head the client has sent, and whose body the test sends in pieces.
pub struct PendingRequest {
    /// Channel that sends the pieces of the request body.
    pub body: Sender<Bytes>,
    response: JoinHandle<hyper::Result<Response<Incoming>>>,
}

/// Returns the TLS configuration of a client that trusts only the certificate of `pair` and offers no protocol.
pub fn client_config(pair: &Pair) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let pem = fs::read(pair.cert()).expect("the test wrote it");
    roots.add(CertificateDer::from_pem_slice(&pem).expect("a certificate")).expect("a valid root");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("ring has ciphers for them");
    config.with_root_certificates(roots).with_no_client_auth()
}

/// Opens a TLS connection to `address` that offers one protocol, such as `h2`. The client trusts only the certificate of `pair`.
pub async fn tls_connection(address: SocketAddr, pair: &Pair, protocol: &str) -> TlsStream<TcpStream> {
    let mut config = client_config(pair);
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let name = ServerName::try_from(HOST).expect("a host name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake")
}

impl Client {
    /// Connects to `address` over TLS. The client trusts only the certificate of `pair`.
    pub async fn connect(address: SocketAddr, pair: &Pair) -> Client {
        let stream = tls_connection(address, pair, "h2").await;
        let connection = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (requests, connection) = connection.expect("an HTTP/2 connection");
        Client { requests, connection: tokio::spawn(connection) }
    }

    /// Sends the request head of `delivery` and returns the pending request.
    pub async fn start(&mut self, delivery: &Delivery) -> PendingRequest {
        self.post("/hooks/github", &delivery.headers(), delivery.body.len()).await
    }

    /// Sends a request and returns the complete response.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: impl AsRef<[u8]>,
    ) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(format!("https://{HOST}{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (mut sender, channel) = Channel::new(1);
        self.requests.ready().await.expect("the connection is open");
        let response = self.requests.send_request(request.body(channel).expect("a request"));
        let response = tokio::spawn(response);
        let body = body.as_ref();
        if !body.is_empty() {
            sender.send_data(Bytes::copy_from_slice(body)).await.expect("the stream is open");
        }
        drop(sender);
        let (head, body) = response.await.expect("no panic").expect("a response").into_parts();
        Response::from_parts(head, body.collect().await.expect("a complete body").to_bytes())
    }

    /// Sends the head of a POST request whose `content-length` is `length`, and returns the pending request.
    pub async fn post(&mut self, path: &str, headers: &[(String, String)], length: usize) -> PendingRequest {
        let mut request = Request::post(format!("https://{HOST}{path}")).header("content-length", length);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (body, channel) = Channel::new(1);
        self.requests.ready().await.expect("the connection is open");
        let response = self.requests.send_request(request.body(channel).expect("a request"));
        PendingRequest { body, response: tokio::spawn(response) }
    }

    /// Sends a complete delivery and returns the status of the response.
    pub async fn deliver(&mut self, delivery: &Delivery) -> StatusCode {
        let mut request = self.start(delivery).await;
        request.send(&delivery.body).await;
        request.status().await
    }

    /// Waits until the server has closed the HTTP/2 connection.
    pub async fn closed(self) {
        let _ = self.connection.await.expect("no panic");
        drop(self.requests);
    }
}

impl PendingRequest {
    /// Sends `piece` as the next part of the request body.
    pub async fn send(&mut self, piece: &str) {
        self.body.send_data(Bytes::copy_from_slice(piece.as_bytes())).await.expect("the stream is open");
    }

    /// Waits for the response and returns its status.
    pub async fn status(self) -> StatusCode {
        self.response.await.expect("no panic").expect("a response").status()
    }
}

/// A TCP relay between a client and the server. Like a slow network, the relay can hold back the server's bytes.
pub struct PausableRelay {
    /// Address on which the relay accepts the client's connection.
    pub address: SocketAddr,
    held: watch::Sender<bool>,
    holds_bytes: Arc<Notify>,
}

impl PausableRelay {
    /// Starts a relay that forwards one connection to the address `server`.
    pub async fn to(server: SocketAddr) -> PausableRelay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound above");
        let relay = PausableRelay { address, held: watch::Sender::new(false), holds_bytes: Arc::default() };
        let (mut held, holds_bytes) = (relay.held.subscribe(), relay.holds_bytes.clone());
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("a client");
            let server = TcpStream::connect(server).await.expect("the server listens");
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
            let mut bytes = vec![0; 64 << 10];
            while let Ok(count) = from_server.read(&mut bytes).await {
                if *held.borrow() {
                    holds_bytes.notify_one();
                }
                let _ = held.wait_for(|held| !held).await;
                if count == 0 || to_client.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        });
        relay
    }

    /// Makes the relay hold back all further bytes from the server.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Waits until the relay holds back bytes or until the server has closed the connection.
    pub async fn has_held_back(&self) {
        self.holds_bytes.notified().await;
    }

    /// Forwards the bytes that the relay has held back, and all later bytes.
    pub fn release(&self) {
        self.held.send_replace(false);
    }
}
