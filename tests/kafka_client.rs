//! Tests the state of the Kafka client with the real binary and a broker that requires TLS, SASL or tokens. hookhold must name
//! the cause of a failed connection before there is an event to forward, and must load renewed certificates and passwords.

#[path = "common/audit.rs"]
mod audit;
#[path = "common/authority.rs"]
mod authority;
#[path = "common/crypto.rs"]
mod crypto;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/load.rs"]
mod load;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/process.rs"]
mod process;
#[path = "common/secured_kafka.rs"]
mod secured_kafka;
#[path = "common/token_endpoint.rs"]
mod token_endpoint;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use authority::Authority;
use fixture::{kafka_health, stop};
use kafka::Kafka;
use load::request;
use process::{Home, Line, Process, wait_until};
use secured_kafka::{Listener, PASSWORD, Properties, SecuredKafka, plaintext, shared};
use token_endpoint::TokenEndpoint;

/// The cause that hookhold must name: its word, a part of librdkafka's error text, and a part of the remedy.
struct Cause {
    word: &'static str,
    error: &'static str,
    remedy: &'static str,
}

#[test]
fn a_client_certificate_opens_the_way_to_kafka() {
    let certificate = shared().authority.issue("forwarding", "/CN=hookhold", "DNS:hookhold");
    forwards("mutual-tls", &shared().mutual_tls(&certificate));
}

#[test]
fn scram_over_tls_opens_the_way_to_kafka() {
    forwards("scram", &shared().sasl(Listener::SaslTls, "SCRAM-SHA-512"));
}

#[test]
fn plain_over_tls_opens_the_way_to_kafka() {
    forwards("plain", &shared().sasl(Listener::SaslTls, "PLAIN"));
}

#[test]
fn a_token_is_renewed_before_it_ends() {
    let (secured, topic, authority) = (shared(), "oidc", Authority::new());
    let endpoint = TokenEndpoint::start_with_tls(TOKEN_LIFETIME, &authority.issue_server("tokens", "IP:127.0.0.1"));
    let client = secured.oidc(&endpoint.url()).with("https.ca.location", authority.file("ca.pem").display());
    let home = home(secured, topic, &client);
    let process = home.start();
    wait_until_connected(&home, &process);
    deliver(&home, &["evt_0"]);
    assert_arrived(secured, topic, &["evt_0"]);
    // The broker closes a connection whose token has ended. librdkafka asks for a new token after 80 % of the lifetime, so the
    // first token has ended when the endpoint issues the third one.
    let issued = endpoint.issued();
    wait_until("two more tokens are issued", || endpoint.issued() >= issued + 2);
    deliver(&home, &["evt_1"]);
    assert_arrived(secured, topic, &["evt_0", "evt_1"]);
    assert_eq!(endpoint.rejected(), 0);
    stop(process);
}

#[test]
fn a_client_without_an_answer_is_connecting() {
    // The kernel accepts connections for this listener, and no process answers them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("the listener is open").to_string();
    let home = home(shared(), "connecting", &plaintext(&address).with("socket.connection.setup.timeout.ms", "600000"));
    let process = home.start();
    let health = kafka_health(&home);
    assert_eq!(health["state"], "degraded", "{health}");
    assert!(details(&home).iter().any(|detail| detail.starts_with("connecting")), "{health}");
    assert_eq!(process.metric("hookhold_kafka_connected"), Some(0.0));
    stop(process);
}

#[test]
fn a_broker_that_goes_and_returns_is_named() {
    let mut kafka = Kafka::start();
    let home = home(shared(), "returning", &plaintext(&kafka.bootstrap()));
    let process = home.start();
    wait_until_connected(&home, &process);
    kafka.kill();
    let cause = Cause { word: "broker_away", error: "Connection refused", remedy: "start the brokers" };
    wait_until_named(&home, &process, &cause);
    kafka.restart();
    wait_until_connected(&home, &process);
    assert_eq!(process.metric(&failed(cause.word)), Some(0.0));
    stop(process);
}

#[test]
fn a_port_without_a_broker_is_named() {
    let (address, _reserved) = ports::reserve();
    let cause = Cause { word: "broker_away", error: "Connection refused", remedy: "bootstrap.servers" };
    is_named("no-broker", &plaintext(&address.to_string()), &cause);
}

#[test]
fn an_expired_client_certificate_is_named() {
    let expired = shared().authority.issue_expired("expired", "/CN=hookhold", "DNS:hookhold");
    let cause = Cause { word: "tls", error: EXPIRED, remedy: "ssl.certificate.location" };
    is_named("client-certificate-expired", &shared().mutual_tls(&expired), &cause);
}

#[test]
fn a_broker_certificate_of_an_unknown_ca_is_named() {
    let other = Authority::new();
    let client = shared().client(Listener::OtherHost, "ssl").with("ssl.ca.location", other.file("ca.pem").display());
    let cause = Cause { word: "tls", error: "certificate verify failed", remedy: "ssl.ca.location" };
    is_named("unknown-ca", &client, &cause);
}

#[test]
fn a_broker_certificate_for_another_host_is_named() {
    let cause = Cause { word: "tls", error: "certificate verify failed", remedy: "bootstrap.servers" };
    is_named("other-host", &shared().client(Listener::OtherHost, "ssl"), &cause);
}

#[test]
fn tls_against_a_plaintext_port_is_named() {
    let client = shared().client(Listener::OtherHost, "ssl").with("bootstrap.servers", shared().kafka.bootstrap());
    let cause = Cause { word: "tls", error: "SSL handshake failed", remedy: "security.protocol" };
    is_named("tls-to-plaintext", &client, &cause);
}

#[test]
fn plaintext_against_a_tls_port_is_named() {
    let cause = Cause { word: "tls", error: "in state APIVERSION_QUERY", remedy: "security.protocol" };
    is_named("plaintext-to-tls", &plaintext(&shared().bootstrap(Listener::OtherHost)), &cause);
}

#[test]
fn plaintext_against_a_sasl_port_is_named() {
    let cause = Cause { word: "authentication", error: "in state UP", remedy: "security.protocol" };
    is_named("plaintext-to-sasl", &plaintext(&shared().bootstrap(Listener::Sasl)), &cause);
}

#[test]
fn a_wrong_password_is_named() {
    let client = shared().sasl(Listener::SaslTls, "SCRAM-SHA-512").with("sasl.password", "file:wrong-password");
    let cause = Cause { word: "authentication", error: "invalid credentials", remedy: "sasl.password" };
    is_named("wrong-password", &client, &cause);
}

#[test]
fn a_mechanism_that_the_broker_lacks_is_named() {
    let cause = Cause { word: "authentication", error: "supported mechanisms: ", remedy: "sasl.mechanism" };
    is_named("unsupported-mechanism", &shared().sasl(Listener::SaslTls, "SCRAM-SHA-256"), &cause);
}

#[test]
fn a_token_endpoint_that_rejects_is_named() {
    let endpoint = TokenEndpoint::start(TOKEN_LIFETIME);
    let client = shared().oidc(&endpoint.url()).with("sasl.oauthbearer.client.secret", "file:wrong-password");
    let cause = Cause { word: "authentication", error: "invalid_client", remedy: "sasl.oauthbearer." };
    is_named("token-rejected", &client, &cause);
    assert!(endpoint.rejected() > 0 && endpoint.issued() == 0);
}

#[test]
fn a_renewed_client_certificate_needs_no_restart() {
    let (secured, topic) = (shared(), "renewed-certificate");
    let issue = |expired| match expired {
        true => secured.authority.issue_expired(topic, "/CN=hookhold", "DNS:hookhold"),
        false => secured.authority.issue(topic, "/CN=hookhold", "DNS:hookhold"),
    };
    let home = home(secured, topic, &secured.mutual_tls(&issue(true)));
    let cause = Cause { word: "tls", error: EXPIRED, remedy: "ssl.certificate.location" };
    resumes_after(&home, topic, &cause, || {
        issue(false);
    });
}

#[test]
fn a_renewed_ca_needs_no_restart() {
    let (secured, topic) = (shared(), "renewed-ca");
    let (other, certificate) = (Authority::new(), secured.authority.issue(topic, "/CN=hookhold", "DNS:hookhold"));
    let (known, genuine) = (other.file("ca.pem"), secured.authority.file("ca.pem"));
    let home = home(secured, topic, &secured.mutual_tls(&certificate).with("ssl.ca.location", known.display()));
    let cause = Cause { word: "tls", error: "certificate verify failed", remedy: "ssl.ca.location" };
    resumes_after(&home, topic, &cause, || {
        fs::copy(genuine, known).expect("target/ can be written to");
    });
}

#[test]
fn a_changed_password_needs_no_restart() {
    let (secured, topic) = (shared(), "changed-password");
    let home = home(secured, topic, &secured.sasl(Listener::SaslTls, "SCRAM-SHA-512"));
    home.put("password", b"old-password");
    let cause = Cause { word: "authentication", error: "invalid credentials", remedy: "sasl.password" };
    resumes_after(&home, topic, &cause, || home.put("password", PASSWORD.as_bytes()));
}

/// A tool that writes the same certificate again must not cost a new connection.
#[test]
fn only_other_content_makes_a_new_client() {
    let (secured, topic) = (shared(), "same-content");
    let certificate = secured.authority.issue(topic, "/CN=hookhold", "DNS:hookhold");
    let home = home(secured, topic, &secured.mutual_tls(&certificate));
    let process = home.start();
    let clients = || process.metric("hookhold_producer_rebuilds_total{reason=\"settings\"}");
    deliver(&home, &["evt_0"]);
    assert_arrived(secured, topic, &["evt_0"]);
    for file in &certificate {
        fs::write(file, fs::read(file).expect("openssl wrote it")).expect("target/ can be written to");
    }
    never_off(&home, || assert!(process.reload()));
    assert_eq!(clients(), Some(0.0));
    secured.authority.issue(topic, "/CN=hookhold", "DNS:hookhold");
    never_off(&home, || {
        assert!(process.reload());
        wait_until("there is a new client", || clients() >= Some(1.0));
        deliver(&home, &["evt_1"]);
        assert_arrived(secured, topic, &["evt_0", "evt_1"]);
    });
    wait_until_connected(&home, &process);
    stop(process);
}

#[test]
fn check_names_the_alternative_to_a_mechanism_that_is_absent() {
    let servers = plaintext("kafka.example.com:9092").with("security.protocol", "sasl_ssl");
    let home = fixture::home(&[("stripe", "checked")], None);
    for (properties, key, alternative) in [
        (servers.clone(), "sasl.mechanism", "SCRAM-SHA-512"),
        (servers.clone().with("sasl.mechanism", "GSSAPI"), "sasl.mechanism", "SCRAM-SHA-512"),
        (servers.clone().with("sasl.mechanism", "AWS_MSK_IAM"), "sasl.mechanism", "SCRAM-SHA-512"),
        (servers.clone().with("sasl.mechanism", "OAUTHBEARER"), "sasl.oauthbearer.method", "oidc"),
    ] {
        configure(&home, "checked", &properties);
        let output = home.verb(&["check"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{properties:?}: {text}");
        assert!(text.contains(&format!("kafka.{key}")) && text.contains(alternative), "{properties:?}: {text}");
    }
}

/// Creates a topic, and a `Home` whose only source forwards to the topic with these properties. The files `password` and
/// `client-secret` have the genuine password.
fn home(secured: &SecuredKafka, topic: &'static str, properties: &Properties) -> Home {
    secured.kafka.create_topic(topic, 1, &[]);
    let mut home = fixture::home(&[("stripe", topic)], None);
    // The token endpoint is on the loopback interface.
    home.set("NO_PROXY", "127.0.0.1");
    for (file, password) in [("password", PASSWORD), ("client-secret", PASSWORD), ("wrong-password", "hearsay")] {
        home.put(file, password.as_bytes());
    }
    configure(&home, topic, properties);
    home
}

fn configure(home: &Home, topic: &'static str, properties: &Properties) {
    home.configure(&(fixture::config(&[("stripe", topic)], None) + &properties.section()));
}

/// Asserts that hookhold connects with these properties before there is an event, and then forwards every event.
fn forwards(topic: &'static str, properties: &Properties) {
    let secured = shared();
    let home = home(secured, topic, properties);
    let process = home.start();
    wait_until_connected(&home, &process);
    deliver(&home, &["evt_0", "evt_1"]);
    assert_arrived(secured, topic, &["evt_0", "evt_1"]);
    for word in ["tls", "authentication", "broker_away", "refused"] {
        assert_eq!(process.metric(&failed(word)), Some(0.0), "{word}");
    }
    stop(process);
}

/// Asserts that hookhold with these properties names `cause` before there is an event, and loses no event until the operator
/// has corrected the properties.
fn is_named(topic: &'static str, properties: &Properties, cause: &Cause) {
    let secured = shared();
    let home = home(secured, topic, properties);
    let process = home.start();
    wait_until_named(&home, &process, cause);
    deliver(&home, &["evt_0", "evt_1"]);
    wait_until("the topic is blocked", || process.metric(&blocked(topic, cause.word)) == Some(1.0));
    configure(&home, topic, &plaintext(&secured.kafka.bootstrap()));
    never_off(&home, || {
        assert!(process.reload());
        assert_arrived(secured, topic, &["evt_0", "evt_1"]);
    });
    wait_until_connected(&home, &process);
    assert_eq!((process.metric(&failed(cause.word)), process.metric(&blocked(topic, cause.word))), (Some(0.0), Some(0.0)));
    stop(process);
}

/// Asserts that hookhold names `cause`, and forwards every event after `renew` has changed a file, without a signal.
fn resumes_after(home: &Home, topic: &'static str, cause: &Cause, renew: impl FnOnce()) {
    let process = home.start();
    wait_until_named(home, &process, cause);
    deliver(home, &["evt_0"]);
    wait_until("the topic is blocked", || process.metric(&blocked(topic, cause.word)) == Some(1.0));
    never_off(home, || {
        renew();
        deliver(home, &["evt_1"]);
        assert_arrived(shared(), topic, &["evt_0", "evt_1"]);
    });
    wait_until_connected(home, &process);
    assert!(!home.log().contains("configuration reloaded"));
    stop(process);
}

/// Waits until hookhold names `cause` in `/readyz`, with librdkafka's error and the remedy, and checks the metrics and the log.
fn wait_until_named(home: &Home, process: &Process<'_>, cause: &Cause) {
    let Cause { word, error, remedy } = *cause;
    let names = |text: &str| text.contains(word) && text.contains(error) && text.contains(remedy);
    wait_until(&format!("{word} is named"), || details(home).iter().any(|detail| names(detail)));
    assert_eq!(kafka_health(home)["state"], "degraded");
    assert_eq!(process.metric("hookhold_kafka_connected"), Some(0.0));
    assert_eq!(process.metric(&failed(word)), Some(1.0));
    let log = home.log();
    assert!(log.lines().any(|line| line.contains("reason") && names(line)), "{log}");
}

/// Waits until hookhold reports a connection to Kafka.
fn wait_until_connected(home: &Home, process: &Process<'_>) {
    wait_until("the client is connected", || process.metric("hookhold_kafka_connected") == Some(1.0));
    wait_until("Kafka's state is ok", || kafka_health(home)["state"] == "ok");
}

/// Runs `work`, and asserts that `/readyz` never reports Kafka as not configured meanwhile.
fn never_off(home: &Home, work: impl FnOnce()) {
    let is_done = AtomicBool::new(false);
    let states = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut states = BTreeSet::new();
            while !is_done.load(Ordering::SeqCst) || states.is_empty() {
                states.insert(kafka_health(home)["state"].as_str().expect("a word").to_owned());
                thread::park_timeout(Duration::from_millis(5));
            }
            states
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_done.store(true, Ordering::SeqCst);
        ended.map(|()| reader.join().expect("the admin listener answers"))
    });
    let states = states.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(states.iter().all(|state| ["ok", "degraded"].contains(&&**state)), "{states:?}");
}

/// Returns the lines of `/readyz` that explain why Kafka's state is not `ok`.
fn details(home: &Home) -> Vec<String> {
    let health = kafka_health(home);
    let details = health["details"].as_array().into_iter().flatten();
    details.map(|detail| detail.as_str().expect("a text").to_owned()).collect()
}

fn failed(word: &str) -> String {
    format!("hookhold_kafka_connection_failed{{reason=\"{word}\"}}")
}

fn blocked(topic: &str, word: &str) -> String {
    format!("hookhold_forward_blocked{{reason=\"{word}\",topic=\"{topic}\"}}")
}

/// Sends one delivery for each id, and asserts that hookhold accepts them.
fn deliver(home: &Home, ids: &[&str]) {
    let source = fixture::source(home, "stripe");
    for id in ids {
        assert_eq!(Line::open(home.hooks).ask(&request(&source, (*id).to_owned())).status, 200);
    }
}

/// Waits until the topic has a record of each of these events, and asserts that it has no other event.
fn assert_arrived(secured: &SecuredKafka, topic: &str, ids: &[&str]) {
    let expected: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    kafka::wait_until(&format!("{topic} has {ids:?}"), || {
        let records = secured.kafka.records(topic);
        let arrived: BTreeSet<String> = records.iter().map(|record| record.header("ce_id").to_owned()).collect();
        assert!(arrived.is_subset(&expected), "{arrived:?}");
        arrived == expected
    });
}

/// Alert of a broker that runs on Java. It is the same for a client certificate of an unknown CA.
const EXPIRED: &str = "alert certificate unknown";
/// Lifetime of a token. It is so short that a test can wait for its end.
const TOKEN_LIFETIME: Duration = Duration::from_secs(5);
