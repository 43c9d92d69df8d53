//! The bare hyper server of the comparison. Reads each request body and answers with 200. Uses HTTP/1.1, or HTTP/2 over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hookhold::certificate::CertificateFiles;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::sign::SingleCertAndKey;

use crate::gateway::Result;

/// Options of the benchmark that name the certificate and the private key of this server.
pub const CERTIFICATE_OPTIONS: [&str; 2] = ["--tls-cert", "--tls-key"];

/// Runs the server on a free port and prints its address. With a certificate, every connection uses HTTP/2 over TLS.
pub fn serve(certificate: Option<&CertificateFiles>) -> Result<()> {
    let acceptor = certificate.map(acceptor).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _): (TcpStream, SocketAddr) = listener.accept().await?;
            stream.set_nodelay(true)?;
            match acceptor.clone() {
                None => drop(tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(respond)))),
                Some(acceptor) => drop(tokio::spawn(serve_http_2(stream, acceptor))),
            }
        }
    })
}

async fn serve_http_2(stream: TcpStream, acceptor: TlsAcceptor) -> Result<()> {
    let stream = acceptor.accept(stream).await?;
    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service_fn(respond)).await?;
    Ok(())
}

async fn respond(request: Request<Incoming>) -> hyper::Result<Response<Empty<Bytes>>> {
    request.into_body().collect().await?;
    Ok(Response::new(Empty::new()))
}

fn acceptor(files: &CertificateFiles) -> Result<TlsAcceptor> {
    let certified = files.read()?.certified;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
