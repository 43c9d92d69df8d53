//! Asks clients for a certificate in the TLS handshake.
//!
//! The handshake succeeds with any certificate and without one, because it does not yet know the source of the requests. The client
//! must only prove that it has the private key. Each source then checks the certificate itself
//! ([`crate::client_certificate`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use tokio_rustls::rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Request for a client certificate, which the listener can switch on and off for later handshakes.
#[derive(Debug)]
pub(super) struct ClientCertificateRequest {
    is_on: AtomicBool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertificateRequest {
    pub(super) fn new() -> ClientCertificateRequest {
        ClientCertificateRequest { is_on: AtomicBool::new(false), provider: Arc::new(aws_lc_rs::default_provider()) }
    }

    /// Switches the request on or off. Returns true if this is a change.
    pub(super) fn set(&self, is_on: bool) -> bool {
        self.is_on.swap(is_on, Relaxed) != is_on
    }
}

/// Sessions that clients may resume. A resumed session has the certificate of its first handshake, so a change of the request for
/// certificates must end all sessions.
#[derive(Debug)]
pub(super) struct ResumableSessions(ArcSwap<ServerSessionMemoryCache>);

impl ResumableSessions {
    pub(super) fn new() -> ResumableSessions {
        ResumableSessions(ArcSwap::new(ServerSessionMemoryCache::new(MAX_SESSIONS)))
    }

    /// Ends all sessions: their clients make complete handshakes.
    pub(super) fn end_all(&self) {
        self.0.store(ServerSessionMemoryCache::new(MAX_SESSIONS));
    }
}

impl StoresServerSessions for ResumableSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.load().put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.load().get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.load().take(key)
    }

    fn can_cache(&self) -> bool {
        self.0.load().can_cache()
    }
}

/// Maximum number of sessions that clients may resume. This is the default of rustls.
const MAX_SESSIONS: usize = 256;

impl ClientCertVerifier for ClientCertificateRequest {
    fn offer_client_auth(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Returns no names of CAs. A client with several certificates then chooses one without a hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
