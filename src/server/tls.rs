//! Performs TLS handshakes for the delivery listener, and replaces the certificate while connections are open.
//!
//! A new certificate applies to later handshakes and does not affect open connections. If the new certificate or key file is
//! unusable, hookhold continues to use the current certificate. hookhold checks the files every [`FILE_CHECK_INTERVAL`]. It
//! reads changed files only after two consecutive checks have found the files in the same state, because a renewal writes two
//! files one after the other. If hookhold cannot read the files, it retries at every check.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::server::TlsStream;

use super::client_request::{ClientCertificateRequest, ResumableSessions};
use crate::certificate::{Certificate, CertificateError, CertificateFiles};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Handle to the TLS state of the listener, which supports TLS 1.2 and 1.3. A clone is cheap and refers to the same
/// state.
#[derive(Clone)]
pub struct Tls(Arc<TlsState>);

struct TlsState {
    acceptor: TlsAcceptor,
    current: Arc<CurrentCertificate>,
    client_request: Arc<ClientCertificateRequest>,
    sessions: Arc<ResumableSessions>,
    watched: Mutex<WatchedFiles>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Time of the last warning that the certificate is about to expire; `None` before the first warning.
    expiry_warned: Mutex<Option<Instant>>,
}

/// Certificate and key files, and their state when hookhold last read them.
#[derive(Clone)]
struct WatchedFiles {
    files: CertificateFiles,
    /// State of the files just before hookhold read the current certificate from them; `None` if hookhold must read the
    /// files again.
    read: Option<FileStamps>,
}

/// Certificate that hookhold uses for the next TLS handshake.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Certificate>);

impl CurrentCertificate {
    fn load(&self) -> Certificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.load().certified)
    }
}

impl Tls {
    /// Creates the TLS state of a listener from the certificate and key in `files`. Blocks the thread while it reads
    /// the files.
    pub fn open(files: CertificateFiles, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<Tls, CertificateError> {
        let read = Some(file_stamps(&files));
        let certificate = files.read()?;
        let current = Arc::new(CurrentCertificate(RwLock::new(certificate.clone())));
        let client_request = Arc::new(ClientCertificateRequest::new());
        let sessions = Arc::new(ResumableSessions::new());
        let mut config = rustls_config(current.clone(), client_request.clone());
        config.session_storage = sessions.clone();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (watched, expiry_warned) = (Mutex::new(WatchedFiles { files, read }), Mutex::new(None));
        let tls = Tls(Arc::new(TlsState { acceptor, current, client_request, sessions, watched, clock, metrics, expiry_warned }));
        tls.report(&tls.watched().files);
        Ok(tls)
    }

    /// Uses `certificate` for all later handshakes, and watches `files`, from which the caller read the certificate.
    /// The next checks read the files again, because the files may have changed since the caller read them.
    pub fn replace(&self, files: CertificateFiles, certificate: Certificate) {
        self.install(&mut self.watched(), WatchedFiles { files, read: None }, certificate);
    }

    /// Sets whether all later handshakes ask the client for a certificate.
    pub fn request_client_certificates(&self, is_on: bool) {
        if self.0.client_request.set(is_on) {
            self.0.sessions.end_all();
        }
    }

    /// Reads the certificate files again whenever they have changed, and logs warnings before the certificate expires.
    /// Never returns.
    pub(super) async fn watch_files(&self) {
        let mut checks = interval(FILE_CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut detector = ChangeDetector::default();
        loop {
            checks.tick().await;
            self.warn_of_expiry();
            let WatchedFiles { files, read } = self.watched().clone();
            let now = file_stamps(&files);
            if detector.must_read(now, read)
                && let Err(error) = self.read_again(files, now).await
                && detector.must_report(now)
            {
                tracing::error!(%error, "cannot use the new TLS certificate; the previous certificate stays in use");
            }
        }
    }

    async fn read_again(&self, files: CertificateFiles, now: FileStamps) -> Result<(), CertificateError> {
        let read = tokio::task::spawn_blocking(move || files.read().map(|certificate| (files, certificate))).await;
        let Ok(read) = read else { return Ok(()) }; // the runtime is shutting down
        let (files, certificate) = read?;
        let mut watched = self.watched();
        // A reload may have replaced the watched files during the read.
        if watched.files == files {
            self.install(&mut watched, WatchedFiles { files, read: Some(now) }, certificate);
        }
        Ok(())
    }

    /// Performs the TLS handshake with a client and returns the TLS stream. If the handshake fails, the client receives
    /// an alert, and the error contains the socket.
    pub(super) async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, (io::Error, S)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.0.acceptor.accept(stream).into_fallible().await
    }

    /// Replaces the watched files and the certificate together. The caller must hold the lock of the watched files.
    fn install(&self, watched: &mut WatchedFiles, next: WatchedFiles, certificate: Certificate) {
        let mut current = self.0.current.0.write().unwrap_or_else(PoisonError::into_inner);
        let has_changed = watched.files != next.files || current.certified.cert != certificate.certified.cert;
        (*watched, *current) = (next, certificate);
        drop(current);
        if has_changed {
            self.report(&watched.files);
        }
    }

    fn report(&self, files: &CertificateFiles) {
        let expires = self.0.current.load().expires;
        self.0.metrics.server.certificate_expiry.with_label_values::<&str>(&[]).set((expires.0 / 1000) as i64);
        tracing::info!(file = %files.cert.display(), expires = expires.rfc3339(), "serving a TLS certificate");
    }

    fn warn_of_expiry(&self) {
        let (expires, now) = (self.0.current.load().expires, self.0.clock.now());
        let left = Duration::from_millis(expires.since(now));
        let mut warned = self.0.expiry_warned.lock().unwrap_or_else(PoisonError::into_inner);
        if left > EXPIRY_WARNING || warned.is_some_and(|at| at.elapsed() < DAY) {
            return;
        }
        *warned = Some(Instant::now());
        let days = left.as_secs() / DAY.as_secs();
        tracing::warn!(file = %self.watched().files.cert.display(), expires = expires.rfc3339(), days, "the TLS certificate expires soon; renew it");
    }

    fn watched(&self) -> MutexGuard<'_, WatchedFiles> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Detector of changed files. Compares the state of the files with their state at earlier checks.
#[derive(Default)]
struct ChangeDetector {
    last: Option<FileStamps>,
    reported: Option<FileStamps>,
}

impl ChangeDetector {
    /// Returns true if the files have not changed since the last check but have changed since hookhold read them.
    fn must_read(&mut self, now: FileStamps, read: Option<FileStamps>) -> bool {
        self.last.replace(now) == Some(now) && read != Some(now)
    }

    /// Returns true if hookhold must log that it cannot use the files. While the files stay unchanged, hookhold logs
    /// only the first failure.
    fn must_report(&mut self, now: FileStamps) -> bool {
        self.reported.replace(now) != Some(now)
    }
}

/// Builds the rustls configuration. The listener offers TLS 1.2 and 1.3 with rustls' default ciphers, and HTTP/2 to
/// clients that support it.
fn rustls_config(certificate: Arc<CurrentCertificate>, client_request: Arc<ClientCertificateRequest>) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).expect("AWS-LC has ciphers for both versions");
    let mut config = builder.with_client_cert_verifier(client_request).with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN_HTTP_2.to_vec(), ALPN_HTTP_1_1.to_vec()];
    config
}

/// State of a file: device, inode, size, mtime and ctime; `None` for a missing file. The state changes if a program
/// writes or replaces the file, or changes the owner or the links of the file. The state includes ctime because a
/// program can set mtime back, but cannot set ctime.
type FileStamp = Option<(u64, u64, u64, [i64; 4])>;
/// State of the certificate file and of the key file.
type FileStamps = [FileStamp; 2];

fn file_stamps(files: &CertificateFiles) -> FileStamps {
    let times = |m: &Metadata| [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
    let stamp = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), m.size(), times(&m)));
    [stamp(&files.cert), stamp(&files.key)]
}

/// ALPN protocol name of HTTP/2 over TLS.
pub(super) const ALPN_HTTP_2: &[u8] = b"h2";
const ALPN_HTTP_1_1: &[u8] = b"http/1.1";

const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time from the first warning to the expiry of the certificate. Common ACME clients renew a certificate 30 days before
/// its expiry.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(time: i64) -> FileStamps {
        [Some((1, 2, 3, [time; 4])), None]
    }

    #[test]
    fn unchanged_files_are_retried_and_their_failure_reported_once() {
        let (mut detector, read) = (ChangeDetector::default(), Some(stamps(1)));
        assert_eq!([stamps(1), stamps(1), stamps(2)].map(|now| detector.must_read(now, read)), [false; 3]);
        for first in [true, false, false] {
            assert!(detector.must_read(stamps(2), read));
            assert_eq!(detector.must_report(stamps(2)), first);
        }
        assert!(!detector.must_read(stamps(2), Some(stamps(2))), "the changed files have been read");
        assert_eq!([stamps(3), stamps(3)].map(|now| detector.must_read(now, Some(stamps(2)))), [false, true]);
        assert!(detector.must_report(stamps(3)));
        assert!(detector.must_read(stamps(3), None), "a reload forces another read");
    }
}
