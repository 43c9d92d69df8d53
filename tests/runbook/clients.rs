//! Causes faults that concern every topic, because the Kafka client cannot connect, and then carries out the remedy that the page
//! names. Both topics must get their events without a reload and without a restart.

use crate::case::{COUNT, Case, SECRET, audited, sources};
use crate::fixture::{self, kafka_health, stop};
use crate::process::{Home, wait_until};
use crate::secured_kafka::{self, Listener, PASSWORD, Properties};

#[test]
fn a_renewed_certificate_frees_every_topic() {
    let (secured, topic) = (secured_kafka::shared(), "expired");
    let expired = secured.authority.issue_expired(topic, "/CN=hookhold", "DNS:hookhold");
    // The renewal overwrites both files.
    frees_every_topic(&secured.mutual_tls(&expired), topic, "next-to-expired", "tls", |_| {
        secured.authority.issue(topic, "/CN=hookhold", "DNS:hookhold");
    });
}

#[test]
fn a_corrected_password_frees_every_topic() {
    let client = secured_kafka::shared().sasl(Listener::SaslTls, "SCRAM-SHA-512");
    frees_every_topic(&client, "mispassworded", "next-to-mispassworded", "authentication", |home| {
        home.put("password", PASSWORD.as_bytes());
    });
}

/// Starts a gateway whose client cannot connect, waits until it names the reason `word`, and delivers to both sources. Carries out
/// `remedy`, and asserts that both topics get their events without a reload and without a restart.
fn frees_every_topic(client: &Properties, faulty: &'static str, healthy: &'static str, word: &str, remedy: impl FnOnce(&Home)) {
    let kafka = &secured_kafka::shared().kafka;
    [faulty, healthy].iter().for_each(|topic| kafka.create_topic(topic, 1, &[]));
    let config = fixture::config(&sources(faulty, healthy), None) + &client.section();
    let home = Home::new(&[SECRET, ("password", "wrong")], &config);
    let process = home.start();
    let case = Case { home: &home, process: &process, faulty, healthy };
    let failed = format!("hookhold_kafka_connection_failed{{reason={word:?}}}");
    wait_until(&format!("the cause is named: {word}"), || process.metric(&failed) == Some(1.0));
    assert_eq!(process.metric("hookhold_kafka_connected"), Some(0.0));
    let health = kafka_health(&home);
    let detail = health["details"][0].as_str().unwrap_or_default();
    assert!(health["state"] == "degraded" && detail.starts_with(&format!("{word} for ")), "{health}");
    let ledgers = [("faulty", faulty), ("healthy", healthy)].map(|(source, topic)| (case.deliver(source, topic, COUNT), topic));
    println!("{word}: no topic flows: lag {}, {}", case.lag(faulty), case.lag(healthy));
    assert!(case.lag(faulty) > 0.0 && case.lag(healthy) > 0.0);

    remedy(&home);
    case.wait_until_caught_up(healthy);
    case.wait_until_freed(word);
    assert_eq!((process.metric("hookhold_kafka_connected"), process.metric(&failed).unwrap_or_default()), (Some(1.0), 0.0));
    stop(process);
    assert!(!home.log().contains("configuration reloaded"));
    ledgers.iter().for_each(|(ledger, topic)| audited(&home, ledger, kafka, topic));
}
