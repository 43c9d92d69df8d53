//! TLS for the deliveries listener: the handshake, and a certificate that can be replaced while connections are open.
//!
//! A new certificate counts for handshakes that begin after it; connections that are open do not notice. Files that cannot
//! be served change nothing. They are looked at every [`LOOK`], and read once they have stayed the same from one look to the
//! next: whoever renews them writes two files, one after the other. What cannot be read is tried again at every look.

use std::fs::{self, Metadata};
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
use crate::clock::Clock;
use crate::metrics::Metrics;

/// The listener's TLS 1.2 and 1.3; a cheap handle.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    acceptor: TlsAcceptor,
    served: Arc<Served>,
    watched: Mutex<Watched>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// When a certificate near its end was last spoken of.
    warned: Mutex<Option<Instant>>,
}

/// The files that are looked at.
#[derive(Clone)]
struct Watched {
    files: Files,
    /// What they were like just before they were read for what is served. `None`: they are to be read again.
    read: Option<Prints>,
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
        let read = Some(prints(&files));
        let certificate = files.read()?;
        let served = Arc::new(Served(RwLock::new(certificate.clone())));
        let acceptor = TlsAcceptor::from(Arc::new(config(served.clone())));
        let (watched, warned) = (Mutex::new(Watched { files, read }), Mutex::new(None));
        let tls = Tls(Arc::new(Inner { acceptor, served, watched, clock, metrics, warned }));
        tls.tell(&tls.watched().files);
        Ok(tls)
    }

    /// Shows another certificate in handshakes from now on, and looks at `files` from now on, where it comes from. They may
    /// have changed since it was read, so they are soon read again.
    pub fn replace(&self, files: Files, certificate: Certificate) {
        self.serve(&mut self.watched(), Watched { files, read: None }, certificate);
    }

    /// Reads the files again whenever they have changed, and warns of an end that is near. Never returns.
    pub(super) async fn keep(&self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = Look::default();
        loop {
            looks.tick().await;
            self.warn();
            let Watched { files, read } = self.watched().clone();
            let now = prints(&files);
            if look.is_due(now, read)
                && let Err(error) = self.read_again(files, now).await
                && look.is_news(now)
            {
                tracing::error!(%error, "the new TLS certificate cannot be served; the former one stays");
            }
        }
    }

    async fn read_again(&self, files: Files, now: Prints) -> Result<(), Unusable> {
        let read = tokio::task::spawn_blocking(move || files.read().map(|certificate| (files, certificate))).await;
        let Ok(read) = read else { return Ok(()) }; // the runtime is ending
        let (files, certificate) = read?;
        let mut watched = self.watched();
        // A reload may have turned to other files meanwhile.
        if watched.files == files {
            self.serve(&mut watched, Watched { files, read: Some(now) }, certificate);
        }
        Ok(())
    }

    /// A client's handshake. With the error comes the socket, on which the client has been told by an alert.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, (io::Error, TcpStream)> {
        self.0.acceptor.accept(stream).into_fallible().await
    }

    /// Files and certificate change together, under the lock of the files.
    fn serve(&self, watched: &mut Watched, next: Watched, certificate: Certificate) {
        let mut served = self.0.served.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = watched.files != next.files || served.certified.cert != certificate.certified.cert;
        (*watched, *served) = (next, certificate);
        drop(served);
        if is_news {
            self.tell(&watched.files);
        }
    }

    fn tell(&self, files: &Files) {
        let expires = self.0.served.now().expires;
        self.0.metrics.server.certificate_expiry.with_label_values::<&str>(&[]).set((expires.0 / 1000) as i64);
        tracing::info!(file = %files.cert.display(), expires = expires.rfc3339(), "serving a TLS certificate");
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
        tracing::warn!(file = %self.watched().files.cert.display(), expires = expires.rfc3339(), days, "the TLS certificate expires soon");
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was seen, and said, at former looks.
#[derive(Default)]
struct Look {
    last: Option<Prints>,
    told: Option<Prints>,
}

impl Look {
    /// True when files like these are to be read: they are as they were at the last look, and not what has been read.
    fn is_due(&mut self, now: Prints, read: Option<Prints>) -> bool {
        self.last.replace(now) == Some(now) && read != Some(now)
    }

    /// True for the first failure to read files like these.
    fn is_news(&mut self, now: Prints) -> bool {
        self.told.replace(now) != Some(now)
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

/// What changes when a file is written, replaced, given to others, or reached through another link. Times of writing can be set
/// back, those of a change cannot. `None`: it is not there.
type Print = Option<(u64, u64, u64, [i64; 4])>;
type Prints = [Print; 2];

fn prints(files: &Files) -> Prints {
    let times = |m: &Metadata| [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
    let print = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), m.size(), times(&m)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn like(time: i64) -> Prints {
        [Some((1, 2, 3, [time; 4])), None]
    }

    #[test]
    fn what_has_settled_is_read_until_that_succeeds_and_a_failure_is_told_once() {
        let (mut look, former) = (Look::default(), Some(like(1)));
        assert_eq!([like(1), like(1), like(2)].map(|now| look.is_due(now, former)), [false; 3]);
        for first in [true, false, false] {
            assert!(look.is_due(like(2), former));
            assert_eq!(look.is_news(like(2)), first);
        }
        assert!(!look.is_due(like(2), Some(like(2))), "it has been read");
        assert_eq!([like(3), like(3)].map(|now| look.is_due(now, Some(like(2)))), [false, true]);
        assert!(look.is_news(like(3)));
        assert!(look.is_due(like(3), None), "it is to be read again");
    }
}
