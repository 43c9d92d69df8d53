//! Finds the cause of an error of the Kafka client in librdkafka's error text.
//!
//! librdkafka reports most failures of a connection with the same few error codes. Only its text says, for example, that a port
//! expects TLS. The texts are those of librdkafka 2.12 and OpenSSL 3; `tests/kafka_client.rs` provokes them with a real broker.

use std::path::{Path, PathBuf};

use rdkafka::types::RDKafkaErrorCode as Code;

use super::kafka_error::{BlockReason, ErrorClass, classify};
use crate::certificate;
use crate::clock::{Clock, SystemClock};

/// Error that concerns the whole Kafka client, with its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientError {
    /// Cause of the error: [`BlockReason::Tls`], [`BlockReason::Authentication`] or [`BlockReason::BrokerAway`].
    pub(super) reason: BlockReason,
    /// librdkafka's text, which names the broker.
    pub(super) detail: String,
    /// Action that the operator can take.
    pub(super) remedy: &'static str,
    pub(super) certainty: CauseCertainty,
}

/// CauseCertainty of the cause of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CauseCertainty {
    /// A broker does not answer, or has closed a connection. The error may follow from another one.
    Unknown,
    /// librdkafka supposes the cause because a broker has closed a connection soon, or it cannot connect to a broker.
    Supposed,
    /// The error names its cause.
    Certain,
}

impl ClientError {
    /// Finds the cause of the error that librdkafka has reported with this code and this text.
    pub(super) fn new(code: Code, text: &str) -> ClientError {
        let find = |causes: &'static [KnownCause]| causes.iter().find(|(pattern, ..)| text.contains(pattern));
        let supposed = || find(SUPPOSED_CAUSES).or_else(|| closed_connection(text));
        let (certainty, (reason, remedy)) = match (find(CAUSES), supposed(), by_code(code)) {
            (Some((_, reason, remedy)), ..) => (CauseCertainty::Certain, (*reason, *remedy)),
            (None, Some((_, reason, remedy)), _) => (CauseCertainty::Supposed, (*reason, *remedy)),
            (None, None, (BlockReason::BrokerAway, remedy)) if text.contains(NO_CONNECTION) => {
                (CauseCertainty::Supposed, (BlockReason::BrokerAway, remedy))
            }
            (None, None, (BlockReason::BrokerAway, remedy)) => (CauseCertainty::Unknown, (BlockReason::BrokerAway, remedy)),
            (None, None, other) => (CauseCertainty::Certain, other),
        };
        ClientError { reason, detail: text.to_owned(), remedy, certainty }
    }

    /// Adds to the detail that hookhold's own certificate has expired, if the brokers reject the certificate and it has. The brokers
    /// do not say so.
    pub(super) fn with_expiry(mut self, certificate: Option<&Path>) -> ClientError {
        if self.remedy == CLIENT_CERTIFICATE
            && let Some(path) = certificate
            && let Ok(expires) = certificate::expiry_of_file(path)
            && expires < SystemClock.now()
        {
            self.detail = format!("{} has expired on {}; {}", path.display(), expires.rfc3339(), self.detail);
        }
        self
    }
}

/// Returns the path of the file with hookhold's own certificate; `None` if hookhold has none.
pub(super) fn own_certificate(librdkafka: &[(String, String)]) -> Option<PathBuf> {
    librdkafka.iter().find(|(name, _)| name == "ssl.certificate.location").map(|(_, path)| path.into())
}

fn by_code(code: Code) -> (BlockReason, &'static str) {
    let reason = match (code, classify(code)) {
        (Code::SSL, _) => BlockReason::Tls,
        (_, ErrorClass::Environment(BlockReason::Authentication)) => BlockReason::Authentication,
        _ => BlockReason::BrokerAway,
    };
    (reason, reason.remedy())
}

/// Part of librdkafka's text, the cause that it shows, and the remedy.
type KnownCause = (&'static str, BlockReason, &'static str);

/// Returns the probable cause if a broker closes a connection without a word: before its first answer, because the port expects TLS;
/// or soon after the connection is set up, because the port expects a login.
fn closed_connection(text: &str) -> Option<&'static KnownCause> {
    if !["Disconnected", "Broken pipe", "reset by peer"].iter().any(|pattern| text.contains(pattern)) {
        return None;
    }
    let (uses_tls, uses_login) = (text.contains("ssl://"), text.contains("sasl_"));
    let (_, state) = text.split_once("(after ")?;
    let (milliseconds, state) = state.split_once("ms in state ")?;
    let is_soon = milliseconds.parse::<u64>().is_ok_and(|milliseconds| milliseconds < SOON_MS);
    match state.trim_start() {
        state if state.starts_with("APIVERSION_QUERY") && !uses_tls => Some(&TLS_PORT),
        state if state.starts_with("UP") && is_soon && !uses_login => Some(&LOGIN_PORT),
        _ => None,
    }
}

/// Causes that librdkafka supposes. A broker that stops also closes its connections, and of several brokers, only one may have a
/// wrong name.
const SUPPOSED_CAUSES: &[KnownCause] = &[
    (
        "Failed to resolve",
        BlockReason::BrokerAway,
        "correct the host name in bootstrap.servers in [kafka], or repair the name service",
    ),
    TLS_PORT,
    (
        "connecting to a PLAINTEXT broker listener?",
        BlockReason::Tls,
        "the port probably does not expect TLS: use the brokers' TLS port in bootstrap.servers, or set security.protocol to \
         plaintext or sasl_plaintext in [kafka]",
    ),
    LOGIN_PORT,
];

const TLS_PORT: KnownCause = (
    "connecting to a SSL listener?",
    BlockReason::Tls,
    "the port probably expects TLS: set security.protocol to ssl or sasl_ssl in [kafka], or use the brokers' plaintext port",
);
const LOGIN_PORT: KnownCause = (
    "broker might require SASL authentication",
    BlockReason::Authentication,
    "the port probably expects a login: set security.protocol to sasl_ssl or sasl_plaintext, and sasl.mechanism, \
     sasl.username and sasl.password in [kafka]",
);

/// Causes that librdkafka knows. The first pattern that occurs in a text applies.
const CAUSES: &[KnownCause] = &[
    ("wrong version number", BlockReason::Tls, PLAINTEXT_PORT),
    ("packet length too long", BlockReason::Tls, PLAINTEXT_PORT),
    ("alert certificate expired", BlockReason::Tls, CLIENT_CERTIFICATE),
    (
        "certificate has expired",
        BlockReason::Tls,
        "the brokers' certificate has expired: renew it on the brokers, and check this machine's clock",
    ),
    (
        "certificate is not yet valid",
        BlockReason::Tls,
        "the brokers' certificate is not valid yet: check this machine's clock with `timedatectl`",
    ),
    (
        "certificate verify failed",
        BlockReason::Tls,
        "hookhold does not trust the brokers' certificate: set ssl.ca.location in [kafka] to the certificate of its CA; or the \
         certificate is for another name, so use that name in bootstrap.servers and in the brokers' advertised.listeners; or it has \
         expired",
    ),
    ("alert certificate required", BlockReason::Tls, CLIENT_CERTIFICATE),
    ("alert handshake failure", BlockReason::Tls, CLIENT_CERTIFICATE),
    ("alert bad certificate", BlockReason::Tls, CLIENT_CERTIFICATE),
    ("alert certificate unknown", BlockReason::Tls, CLIENT_CERTIFICATE),
    ("alert unknown ca", BlockReason::Tls, CLIENT_CERTIFICATE),
    ("client SSL authentication might be required", BlockReason::Tls, CLIENT_CERTIFICATE),
    (
        "Request not valid in current SASL state",
        BlockReason::Authentication,
        "the port does not expect a login: set security.protocol to plaintext or ssl in [kafka], or use the port with the login",
    ),
    (
        "broker's supported mechanisms",
        BlockReason::Authentication,
        "set sasl.mechanism in [kafka] to a mechanism that the brokers support; the error lists them",
    ),
    (
        "Failed to acquire SASL OAUTHBEARER token",
        BlockReason::Authentication,
        "correct sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id or sasl.oauthbearer.client.secret in [kafka], or \
         repair the token endpoint",
    ),
    (
        "SASL authentication error",
        BlockReason::Authentication,
        "correct the credentials: sasl.username and the file or variable of sasl.password in [kafka]; or grant them on the brokers",
    ),
];

const PLAINTEXT_PORT: &str = "the port does not expect TLS: use the brokers' TLS port in bootstrap.servers, or set \
                              security.protocol to plaintext or sasl_plaintext in [kafka]";
const CLIENT_CERTIFICATE: &str = "the brokers reject hookhold's certificate: renew the files of ssl.certificate.location and \
                                  ssl.key.location in [kafka], from a CA that the brokers know; hookhold reads them again by itself";
/// Facility of librdkafka's log lines about failed and closed connections.
pub(super) const FAILED_CONNECTION: &str = "FAIL";
/// Time after the setup of a connection, in milliseconds, within which a broker closes it if the client must log in. librdkafka uses
/// the same time.
const SOON_MS: u64 = 2_000;
/// Part of librdkafka's text if it cannot connect to a broker.
const NO_CONNECTION: &str = "Connect to ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_names_its_cause() {
        let found = |code, text: &str| {
            let error = ClientError::new(code, text);
            (error.reason, error.certainty)
        };
        let transport = |text: &str| found(Code::BrokerTransportFailure, text);
        let no_port =
            "127.0.0.1:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection timed out (after 0ms in state CONNECT)";
        assert_eq!(transport(no_port), (BlockReason::BrokerAway, CauseCertainty::Supposed));
        assert_eq!(transport("Send failed: Broken pipe"), (BlockReason::BrokerAway, CauseCertainty::Unknown));
        let tls = "Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to \
                   a SSL listener?) or broker version is < 0.10";
        assert_eq!(transport(tls), (BlockReason::Tls, CauseCertainty::Supposed));
        let closed =
            |scheme: &str, state: &str| transport(&format!("{scheme}kafka:9092/bootstrap: Disconnected (after {state})"));
        assert_eq!(closed("", "0ms in state APIVERSION_QUERY"), (BlockReason::Tls, CauseCertainty::Supposed));
        assert_eq!(closed("sasl_ssl://", "0ms in state APIVERSION_QUERY"), (BlockReason::BrokerAway, CauseCertainty::Unknown));
        assert_eq!(closed("ssl://", "3ms in state UP"), (BlockReason::Authentication, CauseCertainty::Supposed));
        for (scheme, state) in [("sasl_plaintext://", "3ms in state UP"), ("", "600000ms in state UP")] {
            assert_eq!(closed(scheme, state), (BlockReason::BrokerAway, CauseCertainty::Unknown), "{state}");
        }
        let alert = "Receive failed: error:0A000416:SSL routines::sslv3 alert certificate unknown: SSL alert number 46";
        assert_eq!(transport(alert), (BlockReason::Tls, CauseCertainty::Certain));
        assert_eq!(found(Code::SSL, "an unknown text"), (BlockReason::Tls, CauseCertainty::Certain));
        assert_eq!(found(Code::Authentication, "an unknown text"), (BlockReason::Authentication, CauseCertainty::Certain));
        assert_eq!(found(Code::Resolve, "Failed to resolve 'kafka:9092'"), (BlockReason::BrokerAway, CauseCertainty::Supposed));
    }
}
