//! Mutual TLS as a condition of a source: the certificate that a client presents must come from the configured CA, and must have
//! the configured subject.
//!
//! The TLS handshake only proves that the client has the private key of its certificate. At that time, the source of the next
//! request is unknown, and different sources may trust different CAs. The check of the certificate therefore takes place for each
//! request. Its result is stored with the connection for [`RECHECK_AFTER`], because a check costs about as much as a signature.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore};
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};

use crate::certificate::read_chain;
use crate::clock::UnixMillis;

/// Condition on the certificate of a client.
#[derive(Clone, PartialEq)]
pub struct ClientCondition {
    /// CA that must have issued the certificate.
    ca: ClientCa,
    /// Subject that the certificate must have; `None` if the source accepts every certificate of the CA.
    subject: Option<SubjectPattern>,
}

/// Certificates of a CA that issues client certificates.
#[derive(Clone)]
pub struct ClientCa {
    file: PathBuf,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Pattern for a subject, such as `CN=client.example.com` or `DNS=*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPattern {
    kind: SubjectKind,
    /// Text of the subject. A `*` at the beginning or at the end matches any text.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubjectKind {
    /// Attribute of the distinguished name.
    Attribute(ObjectIdentifier),
    /// DNS name in the alternative names.
    Dns,
    /// URI in the alternative names.
    Uri,
}

/// Certificate chain that a client has presented in its TLS handshake.
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    latest: Mutex<Option<LatestCheck>>,
}

/// Result of the latest check of a certificate.
struct LatestCheck {
    condition: ClientCondition,
    at: UnixMillis,
    result: Result<(), String>,
}

impl ClientCondition {
    /// Creates a condition.
    pub fn new(ca: ClientCa, subject: Option<SubjectPattern>) -> ClientCondition {
        ClientCondition { ca, subject }
    }

    /// Checks the certificate of a client at `now`. The error is the reason why the source does not accept the certificate, with
    /// a remedy.
    pub fn check(&self, certificate: &ClientCertificate, now: UnixMillis) -> Result<(), String> {
        let mut latest = certificate.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |check: &&LatestCheck| {
            let is_recent = now.since(check.at) < RECHECK_AFTER.as_millis() as u64 && check.at <= now;
            is_recent && check.condition == *self
        };
        if let Some(check) = latest.as_ref().filter(is_known) {
            return check.result.clone();
        }
        let result = self.check_chain(&certificate.chain, now);
        *latest = Some(LatestCheck { condition: self.clone(), at: now, result: result.clone() });
        result
    }

    fn check_chain(&self, chain: &[CertificateDer<'static>], now: UnixMillis) -> Result<(), String> {
        let Some((certificate, intermediates)) = chain.split_first() else { return Err(NO_CERTIFICATE.to_owned()) };
        let time = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        self.ca.verifier.verify_client_cert(certificate, intermediates, time).map_err(|error| {
            let ca = self.ca.file.display();
            match error {
                // The CA has another key if only its name matches.
                Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                    format!("client certificate: expected one issued by {ca}, found one of another CA; compare client_ca with the sender's CA")
                }
                Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                    "client certificate: expected a valid one, found an expired one; the sender must renew it".to_owned()
                }
                error => format!("client certificate: expected a valid one issued by {ca}, found an invalid one ({error}); ask the sender"),
            }
        })?;
        match &self.subject {
            Some(pattern) => pattern.check(certificate),
            None => Ok(()),
        }
    }
}

impl PartialEq for ClientCa {
    fn eq(&self, other: &ClientCa) -> bool {
        Arc::ptr_eq(&self.verifier, &other.verifier)
    }
}

impl fmt::Debug for ClientCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCondition({}, {:?})", self.ca.file.display(), self.subject)
    }
}

impl ClientCa {
    /// Reads the certificates of a CA from a PEM file. The error message does not contain the path of the file.
    pub fn read(file: &Path) -> Result<ClientCa, String> {
        let mut roots = RootCertStore::empty();
        for certificate in read_chain(file)? {
            let unusable = |error| format!("expected CA certificates, found one that rustls rejects ({error}); replace the file");
            roots.add(certificate).map_err(unusable)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier =
            verifier.map_err(|error| format!("expected CA certificates, found an unusable one ({error}); replace the file"))?;
        Ok(ClientCa { file: file.to_owned(), verifier })
    }
}

impl SubjectPattern {
    /// Parses `KIND=TEXT`, where KIND is `CN`, `O`, `OU`, `DNS` or `URI`. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<SubjectPattern> {
        let (kind, text) = text.split_once('=')?;
        let kind = match kind {
            "CN" => SubjectKind::Attribute(COMMON_NAME),
            "O" => SubjectKind::Attribute(ORGANIZATION),
            "OU" => SubjectKind::Attribute(ORGANIZATIONAL_UNIT),
            "DNS" => SubjectKind::Dns,
            "URI" => SubjectKind::Uri,
            _ => return None,
        };
        let inner = text.strip_prefix('*').unwrap_or(text);
        let inner = inner.strip_suffix('*').unwrap_or(inner);
        (!inner.is_empty() && !inner.contains('*')).then(|| SubjectPattern { kind, text: text.to_owned() })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), String> {
        let subjects = self.subjects(certificate).unwrap_or_default();
        if subjects.iter().any(|subject| self.matches(subject)) {
            return Ok(());
        }
        let found = match &subjects[..] {
            [] => "a certificate without it".to_owned(),
            subjects => crate::log::escaped(&subjects.join(", ")),
        };
        Err(format!(
            "client certificate: expected the subject in client_subject, found {found}; compare it with the sender's documentation"
        ))
    }

    /// Returns all subjects of this kind in a certificate.
    fn subjects(&self, certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
        let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
        let content = parsed.tbs_certificate();
        if let SubjectKind::Attribute(oid) = self.kind {
            let values = content.subject().iter().filter(|attribute| attribute.oid == oid);
            let texts = values.filter_map(|attribute| attribute.value.decode_as::<DirectoryString>().ok());
            return Some(texts.map(|text| text.value().into_owned()).collect());
        }
        let (_, SubjectAltName(names)) = content.get_extension::<SubjectAltName>().ok()??;
        let text = |name: GeneralName| match name {
            GeneralName::DnsName(name) if self.kind == SubjectKind::Dns => Some(name.to_string()),
            GeneralName::UniformResourceIdentifier(uri) if self.kind == SubjectKind::Uri => Some(uri.to_string()),
            _ => None,
        };
        Some(names.into_iter().filter_map(text).collect())
    }

    /// Returns true if the pattern matches a subject. DNS names match without regard to case.
    fn matches(&self, subject: &str) -> bool {
        let fold = |text: &str| if self.kind == SubjectKind::Dns { text.to_ascii_lowercase() } else { text.to_owned() };
        let (pattern, subject) = (fold(&self.text), fold(subject));
        match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(rest), Some(_)) => subject.contains(rest.strip_suffix('*').unwrap_or(rest)),
            (Some(end), None) => subject.ends_with(end),
            (None, Some(start)) => subject.starts_with(start),
            (None, None) => subject == pattern,
        }
    }
}

impl ClientCertificate {
    /// Creates the certificate of a client from the chain that the client has presented, its own certificate first.
    pub fn new(chain: &[CertificateDer<'_>]) -> ClientCertificate {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        ClientCertificate { chain, latest: Mutex::new(None) }
    }
}

/// Hint for a request without a client certificate.
pub const NO_CERTIFICATE: &str = "client certificate: expected one (client_ca of this source), found none; ask the sender to use \
                                  mutual TLS";

/// Time for which the result of a check remains valid. A certificate may expire while its connection is open.
const RECHECK_AFTER: Duration = Duration::from_secs(60);

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_pattern_has_a_star_only_at_its_ends() {
        for (pattern, subject, matches) in [
            ("CN=client.example.com", "client.example.com", true),
            ("CN=client.example.com", "Client.example.com", false),
            ("DNS=client.example.com", "Client.Example.com", true),
            ("DNS=*.example.com", "client.example.com", true),
            ("DNS=*.example.com", "example.com", false),
            ("DNS=*.example.com", "client.example.com.evil", false),
            ("URI=spiffe://example.com/*", "spiffe://example.com/a", true),
            ("O=*Example*", "The Example Company", true),
        ] {
            let parsed = SubjectPattern::parse(pattern).expect("a pattern");
            assert_eq!(parsed.matches(subject), matches, "{pattern} {subject}");
        }
        for invalid in ["client.example.com", "CN=", "CN=*", "CN=**", "CN=a*b", "SN=1", "cn=a", "*=a"] {
            assert_eq!(SubjectPattern::parse(invalid), None, "{invalid}");
        }
    }
}
