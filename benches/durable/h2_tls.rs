//! Sends deliveries over HTTP/2 with TLS. The client consists of hyper and rustls. Makes the certificate of the servers.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use hookhold::certificate::CertificateFiles;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::gateway::Result;
use crate::load::{PreparedRequest, Queue, check_response};

/// The certificate of the servers, and a client that trusts only this certificate.
pub struct TlsSetup {
    /// The certificate and its private key, for the configuration of the servers.
    pub files: CertificateFiles,
    connector: TlsConnector,
    _dir: TempDir,
}

impl TlsSetup {
    /// Makes a self-signed certificate for `localhost` with the `openssl` command. Its key is an ECDSA key on P-256, as in most
    /// certificates of public servers.
    pub fn new() -> Result<TlsSetup> {
        let dir = tempfile::tempdir()?;
        let files = CertificateFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.arg("-out").arg(&files.cert).arg("-keyout").arg(&files.key);
        let output =
            openssl.output().map_err(|error| format!("openssl: expected the command, found: {error}; install openssl"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("openssl: expected a certificate, found: {text}; install a current openssl").into());
        }
        let connector = connector(&files)?;
        Ok(TlsSetup { files, connector, _dir: dir })
    }

    /// Opens a TLS connection to `address`, and starts HTTP/2 on the connection.
    pub fn connect(&self, address: SocketAddr) -> impl Future<Output = Result<H2Connection>> + Send + use<> {
        let connector = self.connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
            let (sender, connection) = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
            Ok(H2Connection { sender, driver: tokio::spawn(connection) })
        }
    }
}

/// An open HTTP/2 connection.
pub struct H2Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl H2Connection {
    /// Sends deliveries from `queue` over `streams` concurrent streams until the queue stops.
    pub async fn send(self, streams: usize, queue: Arc<Queue>) -> Result<()> {
        let H2Connection { sender, driver } = self;
        let mut senders = JoinSet::new();
        for _ in 0..streams {
            senders.spawn(send_one_at_a_time(sender.clone(), queue.clone()));
        }
        drop(sender);
        while let Some(ended) = senders.join_next().await {
            ended??;
        }
        Ok(driver.await??)
    }
}

/// Sends deliveries, and waits for each response before the next delivery. Each delivery uses a new stream, because HTTP/2 has one
/// stream per request.
async fn send_one_at_a_time(mut sender: SendRequest<Full<Bytes>>, queue: Arc<Queue>) -> Result<()> {
    while let Some(PreparedRequest::Parts { target, headers, body }) = queue.next()? {
        let mut request = Request::post(target.clone()).body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        sender.ready().await?;
        check_response(sender.send_request(request).await?).await?;
        queue.count_answer();
    }
    Ok(())
}

/// Returns a client without session resumption. Every connection therefore makes a complete handshake with each server.
fn connector(files: &CertificateFiles) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.cert)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let mut config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}
