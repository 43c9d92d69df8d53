//! Reads a certificate chain and its private key from two PEM files, and checks that the key matches the first certificate.
//!
//! The room `config` reads the PEM files to report mistakes in the configuration. The room `server` reads the files at startup
//! and after each change of the files. No error message contains any part of a private key.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};
use x509_cert::der::Decode;

use crate::clock::UnixMillis;

/// Paths of a certificate chain and of its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Path of a PEM file that contains the server's certificate and then the intermediate certificates.
    pub cert: PathBuf,
    /// Path of a PEM file with the private key of the server's certificate. The key must be unencrypted and in PKCS#8, PKCS#1
    /// or SEC1 format.
    pub key: PathBuf,
}

/// A certificate chain with its private key, ready for the TLS server.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate chain and the private key.
    pub certified: Arc<CertifiedKey>,
    /// Expiry time of the first certificate of the chain.
    pub expires: UnixMillis,
}

/// Reason why hookhold cannot use a certificate file or its key file.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A certificate file that hookhold cannot read or use.
    #[error("{}: {what}", file.display())]
    Certificate {
        /// Path of the file that caused the error.
        file: PathBuf,
        /// Description of the problem; does not contain the path.
        what: String,
    },
    /// A key file that hookhold cannot read or use, or whose key does not match the certificate.
    #[error("{}: {what}", file.display())]
    Key {
        /// Path of the file that caused the error.
        file: PathBuf,
        /// Description of the problem; does not contain the path.
        what: String,
    },
}

impl CertificateFiles {
    /// Reads both files with blocking I/O and checks that the private key matches the certificate.
    pub fn read(&self) -> Result<Certificate, CertificateError> {
        let bad_cert = |what: String| CertificateError::Certificate { file: self.cert.clone(), what };
        let bad_key = |what: String| CertificateError::Key { file: self.key.clone(), what };
        let chain = read_chain(&self.cert).map_err(bad_cert)?;
        let expires = expiry(&chain[0]).map_err(bad_cert)?;
        let key = read_key(&self.key).map_err(bad_key)?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let cert = self.cert.display();
                bad_key(format!(
                    "expected the private key of {cert}, found the key of another certificate; replace the key or the certificate"
                ))
            }
            Error::InvalidCertificate(error) => {
                bad_cert(format!("expected a valid certificate, found one that rustls rejects ({error}); replace the file"))
            }
            error => bad_key(format!("expected a valid private key, found one that rustls rejects ({error}); replace the file")),
        })?;
        Ok(Certificate { certified: Arc::new(certified), expires })
    }
}

/// Reads a chain of at least one certificate from a PEM file. The error message does not contain the path of the file.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(&contents(path)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let message = "expected a certificate chain in PEM, found no valid certificate; use the CA's full-chain file";
    chain.ok_or_else(|| message.to_owned())
}

/// Returns the expiry time of the first certificate in a PEM file. The error message does not contain the path of the file.
pub(crate) fn expiry_of_file(path: &Path) -> Result<UnixMillis, String> {
    expiry(&read_chain(path)?[0])
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let key = PrivateKeyDer::from_pem_slice(&contents(path)?);
    let message = "expected an unencrypted private key in PEM, found no valid key; convert the file with `openssl pkey`";
    key.map_err(|_| message.to_owned())
}

fn expiry(certificate: &CertificateDer) -> Result<UnixMillis, String> {
    let parsed = x509_cert::Certificate::from_der(certificate);
    let parsed =
        parsed.map_err(|error| format!("expected an X.509 certificate, found invalid data ({error}); replace the file"))?;
    Ok(UnixMillis(parsed.tbs_certificate().validity().not_after.to_unix_duration().as_millis() as u64))
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    };
    read().map_err(|error| format!("cannot read the file: {error}; check the path and its permissions"))
}

/// Maximum size of a certificate file or key file in bytes. A long certificate chain has about 10,000 bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
