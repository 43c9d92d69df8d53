//! TLS for the deliveries listener: the handshake, and a certificate that can be replaced while connections are open.
//!
//! A new certificate counts for handshakes that begin after it; connections that are open do not notice. Files that cannot
//! be served change nothing. They are looked at every [`LOOK`], and read once they have stayed the same from one look to the
//! next: whoever renews them writes two files, one after the other.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::server::TlsStream;

use crate::certificate::{Certificate, Files, Unusable};
use crate::event::Clock;
use crate::metrics::Metrics;

/// The listener's TLS 1.2 and 1.3; a cheap handle.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    acceptor: TlsAcceptor,
    served: Arc<Served>,
    files: Mutex<Files>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// When a certificate near its end was last spoken of.
    warned: Mutex<Option<Instant>>,
}

/// What the next handshake shows.
#[derive(Debug)]
struct Served(RwLock<Certificate>);

impl Served {
    fn now(&self) -> Certificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now().certified)
    }
}

impl Tls {
    /// Reads certificate and key. Blocks on the disk.
    pub fn open(files: Files, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<Tls, Unusable> {
        let certificate = files.read()?;
        let served = Arc::new(Served(RwLock::new(certificate.clone())));
        let acceptor = TlsAcceptor::from(Arc::new(config(served.clone())));
        let (files, warned) = (Mutex::new(files), Mutex::new(None));
        let tls = Tls(Arc::new(Inner { acceptor, served, files, clock, metrics, warned }));
        tls.serve(certificate);
        Ok(tls)
    }

    /// Shows another certificate in handshakes from now on, and looks at `files` from now on, where it comes from.
    pub fn replace(&self, files: Files, certificate: Certificate) {
        *self.files() = files;
        self.serve(certificate);
    }

    /// Reads the files again whenever they have changed, and warns of an end that is near. Never returns.
    pub(super) async fn keep(&self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut read = prints(&self.files());
        let mut last = read;
        loop {
            looks.tick().await;
            self.warn();
            let files = self.files().clone();
            let now = prints(&files);
            let settled = now == last;
            last = now;
            if settled && last != read {
                read = last;
                self.read_again(files).await;
            }
        }
    }

    async fn read_again(&self, files: Files) {
        let read = tokio::task::spawn_blocking(move || files.read().map(|certificate| (files, certificate))).await;
        match read {
            Ok(Ok((files, certificate))) => self.replace(files, certificate),
            Ok(Err(error)) => tracing::error!(%error, "the new TLS certificate cannot be served; the former one stays"),
            Err(_) => {} // the runtime is ending
        }
    }

    /// A client's handshake. With the error comes the socket, on which the client has been told by an alert.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, (io::Error, TcpStream)> {
        self.0.acceptor.accept(stream).into_fallible().await
    }

    fn serve(&self, certificate: Certificate) {
        let expires = certificate.expires;
        *self.0.served.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
        self.0.metrics.certificate_expiry.with_label_values::<&str>(&[]).set((expires.0 / 1000) as i64);
        tracing::info!(file = %self.files().cert.display(), expires = expires.rfc3339(), "serving a TLS certificate");
    }

    fn warn(&self) {
        let (expires, now) = (self.0.served.now().expires, self.0.clock.now());
        let left = Duration::from_millis(expires.since(now));
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if left > NEAR_THE_END || warned.is_some_and(|at| at.elapsed() < DAY) {
            return;
        }
        *warned = Some(Instant::now());
        let days = left.as_secs() / DAY.as_secs();
        tracing::warn!(file = %self.files().cert.display(), expires = expires.rfc3339(), days, "the TLS certificate expires soon");
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// TLS 1.2 and 1.3 with the library's own choice of ciphers; HTTP/2 where the client can.
fn config(certificates: Arc<Served>) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).expect("ring has ciphers for both");
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1_1.to_vec()];
    config
}

/// What changes when a file is written, replaced, or reached through another link. `None`: it is not there.
type Print = Option<(u64, u64, u64, i64, i64)>;

fn prints(files: &Files) -> [Print; 2] {
    let print = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
    [print(&files.cert), print(&files.key)]
}

/// The ALPN name of HTTP/2 over TLS.
pub(super) const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// From here on a certificate should have been renewed: the usual clients renew 30 days before the end.
const NEAR_THE_END: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
