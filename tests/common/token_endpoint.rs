//! An OAuth token endpoint on a loopback port. Answers a client-credentials request with a JSON Web Token that the secured
//! broker accepts, and rejects a client whose secret is wrong.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookhold::clock::{Clock, SystemClock};
use serde_json::json;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::crypto::jwt;
use crate::secured_kafka::{AUDIENCE, KEY_ID, PASSWORD, USER, token_key};

/// A running token endpoint. The endpoint ends with the test process.
pub struct TokenEndpoint {
    scheme: &'static str,
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    issued: AtomicUsize,
    rejected: AtomicUsize,
}

impl TokenEndpoint {
    /// Starts an endpoint whose tokens are valid for `lifetime`.
    pub fn start(lifetime: Duration) -> TokenEndpoint {
        TokenEndpoint::serve(lifetime, None)
    }

    /// Like [`TokenEndpoint::start`], with TLS. The files contain the certificate and its private key.
    pub fn start_with_tls(lifetime: Duration, [certificate, key]: &[PathBuf; 2]) -> TokenEndpoint {
        let chain = CertificateDer::pem_file_iter(certificate).expect("a certificate");
        let chain = chain.map(|certificate| certificate.expect("a certificate")).collect();
        let key = PrivateKeyDer::from_pem_file(key).expect("a private key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("the key fits");
        TokenEndpoint::serve(lifetime, Some(Arc::new(config)))
    }

    fn serve(lifetime: Duration, tls: Option<Arc<ServerConfig>>) -> TokenEndpoint {
        let (scheme, listener) = (if tls.is_some() { "https" } else { "http" }, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("the listener is open");
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.expect("the listener is open");
                match &tls {
                    None => answer(&mut BufReader::new(connection), lifetime, &counted),
                    Some(config) => {
                        let session = ServerConnection::new(config.clone()).expect("the configuration is valid");
                        answer(&mut BufReader::new(StreamOwned::new(session, connection)), lifetime, &counted);
                    }
                }
            }
        });
        TokenEndpoint { scheme, address, counts }
    }

    /// Returns the URL of the endpoint.
    pub fn url(&self) -> String {
        format!("{}://{}/token", self.scheme, self.address)
    }

    /// Returns the number of tokens that the endpoint has issued.
    pub fn issued(&self) -> usize {
        self.counts.issued.load(Ordering::SeqCst)
    }

    /// Returns the number of requests that the endpoint has rejected.
    pub fn rejected(&self) -> usize {
        self.counts.rejected.load(Ordering::SeqCst)
    }
}

fn answer(connection: &mut BufReader<impl Read + Write>, lifetime: Duration, counts: &Counts) {
    // A client that has ended early gets no answer.
    let Ok((head, form)) = request(connection) else { return };
    let credentials = format!("authorization: Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let is_genuine = head.starts_with("POST /token ") && head.lines().any(|line| line.eq_ignore_ascii_case(&credentials));
    let (count, status, reply) = match is_genuine && form.contains("grant_type=client_credentials") {
        true => (&counts.issued, "200 OK", json!({ "access_token": token(lifetime), "token_type": "Bearer" })),
        false => (&counts.rejected, "401 Unauthorized", json!({ "error": "invalid_client" })),
    };
    count.fetch_add(1, Ordering::SeqCst);
    let (reply, kind) = (reply.to_string(), "content-type: application/json\r\nconnection: close");
    let _ = write!(connection.get_mut(), "HTTP/1.1 {status}\r\n{kind}\r\ncontent-length: {}\r\n\r\n{reply}", reply.len());
    let _ = connection.get_mut().flush();
}

/// Reads one request, and returns its head and its body.
fn request(connection: &mut impl BufRead) -> io::Result<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && connection.read_line(&mut head)? > 0 {}
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut form = vec![0; length.unwrap_or_default()];
    connection.read_exact(&mut form)?;
    Ok((head, String::from_utf8(form).expect("a form is text")))
}

fn token(lifetime: Duration) -> String {
    let now = SystemClock.now().0 / 1000;
    let claims = json!({ "sub": USER, "aud": AUDIENCE, "iat": now, "exp": now + lifetime.as_secs() });
    jwt(json!({ "alg": "RS256", "kid": KEY_ID }), claims, &token_key())
}
