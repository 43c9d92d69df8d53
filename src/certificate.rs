//! A certificate and its key: read from two PEM files, checked against each other, ready to be served.
//!
//! The configuration reads them to find mistakes, the server reads them to serve and whenever they change. Nothing of a key
//! is ever printed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};
use x509_cert::der::Decode;

use crate::clock::UnixMillis;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The server's certificate first, then what links it to a root, each in PEM.
    pub cert: PathBuf,
    /// The private key of the first one in PEM: PKCS#8, PKCS#1 or SEC1, without a password.
    pub key: PathBuf,
}

/// What is served to clients.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain with a key that fits.
    pub certified: Arc<CertifiedKey>,
    /// When the first certificate of the chain expires.
    pub expires: UnixMillis,
}

/// Why two files cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate file.
    #[error("{}: {what}", file.display())]
    Certificate {
        /// Its path.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The key file.
    #[error("{}: {what}", file.display())]
    Key {
        /// Its path.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl CertificateFiles {
    /// Reads both. Blocks on the disk.
    pub fn read(&self) -> Result<Certificate, CertificateError> {
        let bad_cert = |what: String| CertificateError::Certificate { file: self.cert.clone(), what };
        let bad_key = |what: String| CertificateError::Key { file: self.key.clone(), what };
        let text = contents(&self.cert).map_err(|error| bad_cert(unreadable(&error)))?;
        let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| bad_cert("no certificate in PEM".to_owned()))?;
        let first = x509_cert::Certificate::from_der(&chain[0]).map_err(|error| bad_cert(format!("not X.509: {error}")))?;
        let text = contents(&self.key).map_err(|error| bad_key(unreadable(&error)))?;
        let key =
            PrivateKeyDer::from_pem_slice(&text).map_err(|_| bad_key("no private key in PEM without a password".to_owned()))?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => bad_key("not the key of the certificate".to_owned()),
            Error::InvalidCertificate(error) => bad_cert(format!("not a certificate that can be served: {error}")),
            error => bad_key(format!("not a key that can be used: {error}")),
        })?;
        let expires = first.tbs_certificate().validity().not_after.to_unix_duration();
        Ok(Certificate { certified: Arc::new(certified), expires: UnixMillis(expires.as_millis() as u64) })
    }
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

/// Bytes of one file; a long chain has some ten thousand.
const MAX_FILE: u64 = 1 << 20;
