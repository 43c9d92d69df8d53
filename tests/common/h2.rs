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
use tokio::net::TcpStream;
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
        let mut request = Request::post(format!("https://{HOST}/hooks/github"));
        for (name, value) in delivery.headers() {
            request = request.header(name, value);
        }
        let request = request.header("content-length", delivery.body.len());
        let (body, channel) = Channel::new(1);
        self.requests.ready().await.expect("the connection is open");
        let answer = self.requests.send_request(request.body(channel).expect("a request"));
        UnderWay { body, answer: tokio::spawn(answer) }
    }

    /// Waits until the server has closed the connection, or let it go.
    pub async fn closed(self) {
        drop(self.requests);
        let _ = self.connection.await.expect("no panic");
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
