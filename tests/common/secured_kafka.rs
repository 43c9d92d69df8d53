//! A Kafka broker whose listeners require TLS, SASL or both. Its listener `PLAINTEXT` serves the administration by the tests.
//! Each function for a listener returns the librdkafka properties with which a client succeeds there. A test replaces the
//! property that it is about.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::authority::Authority;
use crate::crypto::{KeyPair, shared_key_pair};
use crate::kafka::{Additions, Kafka};
use crate::ports::reserve;

/// Names and values of librdkafka's properties.
#[derive(Clone, Debug)]
pub struct Properties(pub Vec<(&'static str, String)>);

/// A listener of the broker in addition to `PLAINTEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// TLS with required client certificates.
    MutualTls,
    /// TLS with the certificate of another host.
    OtherHost,
    /// SASL without TLS.
    Sasl,
    /// SASL over TLS.
    SaslTls,
    /// OAUTHBEARER over TLS.
    Oidc,
}

/// The broker, and the CA of its certificates and of its clients.
pub struct SecuredKafka {
    pub kafka: Kafka,
    pub authority: Authority,
    ports: [u16; LISTENERS.len()],
    _reserved: [UdpSocket; LISTENERS.len()],
}

/// Returns the secured broker that the tests of one file share.
pub fn shared() -> &'static SecuredKafka {
    static SHARED: OnceLock<SecuredKafka> = OnceLock::new();
    SHARED.get_or_init(SecuredKafka::start)
}

/// Returns the key pair whose signatures the listener for OIDC trusts.
pub fn token_key() -> KeyPair {
    shared_key_pair("rsa-2048")
}

impl SecuredKafka {
    fn start() -> SecuredKafka {
        let authority = Authority::new();
        let [own, other] = [("broker", "IP:127.0.0.1,DNS:localhost"), ("other", "DNS:kafka.example.com")]
            .map(|(name, alternative)| key_store(&authority, name, alternative));
        let jwks = authority.file("jwks.json");
        fs::write(&jwks, key_set()).expect("target/ can be written to");
        let listeners = LISTENERS.map(|(listener, protocol)| (listener, protocol, reserve()));
        let ports = listeners.each_ref().map(|(_, _, (address, _))| address.port());
        let addresses = listeners.iter().map(|(listener, protocol, (address, _))| (listener.name(), *protocol, address.port()));
        let trusted = authority.file("ca.pem");
        let kafka = Kafka::start_with(Additions {
            listeners: addresses.collect(),
            properties: properties(&own, &other, &trusted, &jwks),
            scram_users: vec![format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]")],
            system_properties: vec![format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{}", jwks.display())],
        });
        let _reserved = listeners.map(|(_, _, (_, reserved))| reserved);
        SecuredKafka { kafka, authority, ports, _reserved }
    }

    /// Returns the properties of a client that connects to a listener with this value of `security.protocol`. A protocol with
    /// TLS trusts the CA of the broker.
    pub fn client(&self, listener: Listener, protocol: &str) -> Properties {
        let mut properties = plaintext(&self.bootstrap(listener)).with("security.protocol", protocol);
        if protocol.ends_with("ssl") {
            properties = properties.with("ssl.ca.location", self.authority.file("ca.pem").display());
        }
        properties
    }

    /// Returns the properties of a client that presents the certificate in these files.
    pub fn mutual_tls(&self, [certificate, key]: &[PathBuf; 2]) -> Properties {
        let client = self.client(Listener::MutualTls, "ssl");
        client.with("ssl.certificate.location", certificate.display()).with("ssl.key.location", key.display())
    }

    /// Returns the properties of a client that logs in to a listener with this SASL mechanism. The file `password` has the
    /// password.
    pub fn sasl(&self, listener: Listener, mechanism: &str) -> Properties {
        let protocol = if listener == Listener::Sasl { "sasl_plaintext" } else { "sasl_ssl" };
        let client = self.client(listener, protocol).with("sasl.mechanism", mechanism);
        client.with("sasl.username", USER).with("sasl.password", "file:password")
    }

    /// Returns the properties of a client that gets its tokens from `endpoint`. The file `client-secret` has its secret.
    pub fn oidc(&self, endpoint: &str) -> Properties {
        let client = self.client(Listener::Oidc, "sasl_ssl").with("sasl.mechanism", "OAUTHBEARER");
        let client = client.with("sasl.oauthbearer.method", "oidc").with("sasl.oauthbearer.client.id", USER);
        let client = client.with("sasl.oauthbearer.client.secret", "file:client-secret");
        client.with("sasl.oauthbearer.token.endpoint.url", endpoint)
    }

    /// Returns the value of `bootstrap.servers` for a listener.
    pub fn bootstrap(&self, listener: Listener) -> String {
        format!("127.0.0.1:{}", self.ports[listener as usize])
    }
}

/// Returns the properties of a client without TLS and SASL.
pub fn plaintext(bootstrap: &str) -> Properties {
    Properties(vec![("bootstrap.servers", bootstrap.to_owned())])
}

impl Properties {
    /// Sets a property, and replaces an earlier value.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Properties {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value.to_string()));
        self
    }

    /// Returns the section `[kafka]` with these properties.
    pub fn section(&self) -> String {
        let lines = self.0.iter().map(|(name, value)| format!("{name} = {value:?}\n"));
        format!("[kafka]\n{}", lines.collect::<String>())
    }
}

impl Listener {
    fn name(self) -> &'static str {
        match self {
            Listener::MutualTls => "MUTUAL_TLS",
            Listener::OtherHost => "OTHER_HOST",
            Listener::Sasl => "SASL",
            Listener::SaslTls => "SASL_TLS",
            Listener::Oidc => "OIDC",
        }
    }
}

/// Issues a certificate for a broker. Returns the path of a file with the key and the certificate, which Kafka calls a key store.
fn key_store(authority: &Authority, name: &str, alternative: &str) -> PathBuf {
    let [certificate, key] = authority.issue_server(name, alternative).map(|file| fs::read(file).expect("openssl wrote it"));
    let store = authority.file(&format!("{name}-store.pem"));
    fs::write(&store, [key, certificate].concat()).expect("target/ can be written to");
    store
}

/// Returns the JSON Web Key Set with the public half of [`token_key`].
fn key_set() -> String {
    let mut key: serde_json::Value = serde_json::from_str(&token_key().jwk).expect("a JSON Web Key");
    for (name, value) in [("kid", KEY_ID), ("alg", "RS256"), ("use", "sig")] {
        key[name] = value.into();
    }
    serde_json::json!({ "keys": [key] }).to_string()
}

/// Returns the settings of the listeners. No test kills this broker, so the controller waits long for its heartbeats: a busy
/// machine must not cost the topics their leader.
fn properties(own: &Path, other: &Path, trusted: &Path, jwks: &Path) -> String {
    let (own, other, trusted, jwks) = (own.display(), other.display(), trusted.display(), jwks.display());
    let mut lines = format!(
        "broker.session.timeout.ms=60000
ssl.keystore.type=PEM
ssl.keystore.location={own}
ssl.truststore.type=PEM
ssl.truststore.location={trusted}
listener.name.mutual_tls.ssl.client.auth=required
listener.name.other_host.ssl.keystore.type=PEM
listener.name.other_host.ssl.keystore.location={other}
listener.name.oidc.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oidc.oauthbearer.sasl.jaas.config={SECURITY}.oauthbearer.OAuthBearerLoginModule required;
listener.name.oidc.oauthbearer.sasl.server.callback.handler.class={SECURITY}.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.oidc.oauthbearer.sasl.oauthbearer.jwks.endpoint.url=file://{jwks}
listener.name.oidc.oauthbearer.sasl.oauthbearer.expected.audience={AUDIENCE}
listener.name.oidc.oauthbearer.connections.max.reauth.ms=3600000
"
    );
    for listener in ["sasl", "sasl_tls"] {
        lines += &format!(
            "listener.name.{listener}.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.{listener}.scram-sha-512.sasl.jaas.config={SECURITY}.scram.ScramLoginModule required;
listener.name.{listener}.plain.sasl.jaas.config={SECURITY}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
"
        );
    }
    lines
}

/// User name for SCRAM and PLAIN, and client id for OIDC.
pub const USER: &str = "hookhold";
/// Password of [`USER`] for SCRAM and PLAIN, and secret for OIDC.
pub const PASSWORD: &str = "open-sesame";
/// Audience of the tokens that the broker accepts.
pub const AUDIENCE: &str = "kafka";
/// Name of [`token_key`] in the header of a token.
pub const KEY_ID: &str = "test";
/// Each listener with its security protocol, in the order of [`Listener`].
const LISTENERS: [(Listener, &str); 5] = [
    (Listener::MutualTls, "SSL"),
    (Listener::OtherHost, "SSL"),
    (Listener::Sasl, "SASL_PLAINTEXT"),
    (Listener::SaslTls, "SASL_SSL"),
    (Listener::Oidc, "SASL_SSL"),
];
const SECURITY: &str = "org.apache.kafka.common.security";
