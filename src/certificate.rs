//! Reads a certificate chain and its private key from two PEM files, and checks that they belong together.
//!
//! The configuration reads the files to report mistakes, and the server reads them at the start and after each change. No
//! error contains any part of a key.

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

/// The paths of a certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Path of a PEM file: the server's certificate, followed by its intermediates.
    pub cert: PathBuf,
    /// Path of a PEM file: the private key of the server's certificate as PKCS#8, PKCS#1 or SEC1, unencrypted.
    pub key: PathBuf,
}

/// A certificate that can be served.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain with its key.
    pub certified: Arc<CertifiedKey>,
    /// Time at which the first certificate of the chain expires.
    pub expires: UnixMillis,
}

/// The reason why a pair of files cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate file cannot be read or used.
    #[error("{}: {what}", file.display())]
    Certificate {
        /// The path of the file.
        file: PathBuf,
        /// The problem with the file, without its path.
        what: String,
    },
    /// The key file cannot be read or used, or belongs to another certificate.
    #[error("{}: {what}", file.display())]
    Key {
        /// The path of the file.
        file: PathBuf,
        /// The problem with the file, without its path.
        what: String,
    },
}

impl CertificateFiles {
    /// Reads and checks both files. Blocks on the disk.
    pub fn read(&self) -> Result<Certificate, CertificateError> {
        let bad_cert = |what: String| CertificateError::Certificate { file: self.cert.clone(), what };
        let bad_key = |what: String| CertificateError::Key { file: self.key.clone(), what };
        let chain = read_chain(&self.cert).map_err(bad_cert)?;
        let expires = expiry(&chain[0]).map_err(bad_cert)?;
        let key = read_key(&self.key).map_err(bad_key)?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let cert = self.cert.display();
                bad_key(format!("expected the private key of {cert}, found the key of another; use a matching pair"))
            }
            Error::InvalidCertificate(error) => bad_cert(format!("rustls rejects this certificate: {error}")),
            error => bad_key(format!("rustls rejects this key: {error}")),
        })?;
        Ok(Certificate { certified: Arc::new(certified), expires })
    }
}

/// Reads a chain of at least one certificate. An error is a message without the path.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(&contents(path)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    chain.ok_or_else(|| "expected a certificate chain in PEM, found none".to_owned())
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let key = PrivateKeyDer::from_pem_slice(&contents(path)?);
    key.map_err(|_| "expected an unencrypted private key in PEM, found none".to_owned())
}

fn expiry(certificate: &CertificateDer) -> Result<UnixMillis, String> {
    let parsed = x509_cert::Certificate::from_der(certificate);
    let parsed = parsed.map_err(|error| format!("expected an X.509 certificate, found other data: {error}"))?;
    Ok(UnixMillis(parsed.tbs_certificate().validity().not_after.to_unix_duration().as_millis() as u64))
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    };
    read().map_err(|error| format!("cannot be read: {error}"))
}

/// Limit on the size of a file in bytes. A long chain has about 10,000 bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
