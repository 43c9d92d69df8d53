//! Builds the producer's librdkafka settings in three layers: fixed values that hookhold's guarantees depend on,
//! hookhold's defaults, and the operator's settings. The operator's settings override only the defaults.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use super::tokens::{self, TokenSource};

/// Names and values of the librdkafka properties that hookhold's guarantees depend on. hookhold rejects a configuration that
/// sets one of these properties, under any of the property's names. The error states the reason.
const FIXED: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // 0 means no timeout: librdkafka retries indefinitely and preserves the order of the records. The events stay in
    // the journal.
    ("message.timeout.ms", "0"),
    // `murmur2_random` maps a key to the same partition as the Java client, Kafka Streams, Flink and Kafka Connect.
    ("partitioner", "murmur2_random"),
    // A misspelt topic name in the configuration must not create a topic.
    ("allow.auto.create.topics", "false"),
];

/// Default values of librdkafka properties. Each entry has the property's name, the alias that the operator may use
/// instead, and the default value.
const PREFERRED: &[(&str, &str, &str)] = &[
    // hookhold responds to senders before it forwards events. A short wait therefore delays no response, and makes
    // batches larger.
    ("linger.ms", "queue.buffering.max.ms", "10"),
    ("compression.type", "compression.codec", "lz4"),
    // The in-flight limits of the topics already restrict librdkafka's queue. The queue's own limit must be larger than the sum
    // of these limits.
    ("queue.buffering.max.kbytes", "queue.buffering.max.kbytes", "1048576"),
    ("queue.buffering.max.messages", "queue.buffering.max.messages", "1000000"),
    ("socket.timeout.ms", "socket.timeout.ms", "20000"),
    ("socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.ms", "10000"),
    ("socket.keepalive.enable", "socket.keepalive.enable", "true"),
    ("reconnect.backoff.max.ms", "reconnect.backoff.max.ms", "5000"),
    ("topic.metadata.refresh.interval.ms", "topic.metadata.refresh.interval.ms", "60000"),
    // A record for an unknown topic fails after this time. hookhold then blocks the topic with the reason `topic_missing`.
    ("topic.metadata.propagation.max.ms", "topic.metadata.propagation.max.ms", "5000"),
    // Only the log line about a closed connection says, for example, that the port expects TLS.
    ("log.connection.close", "log.connection.close", "true"),
];

/// Names and values of the librdkafka properties of a consumer.
const CONSUMER: &[(&str, &str)] = &[
    ("group.id", "hookhold-inspect"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("allow.auto.create.topics", "false"),
    ("enable.partition.eof", "true"),
    // hookhold uses no transaction, so a transaction of another producer must not hide its records.
    ("isolation.level", "read_uncommitted"),
    // The topic's retention may delete the record at an offset before the consumer reads it.
    ("auto.offset.reset", "earliest"),
    ("fetch.wait.max.ms", "100"),
];

/// Checks one of the operator's librdkafka properties. Returns an error text if librdkafka does not support the name or
/// rejects the value, else `None`. Opens no connection.
pub fn check_setting(name: &str, value: &str) -> Option<String> {
    if tokens::is_own_property(name) {
        return tokens::check_property(name, value);
    }
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => None,
        Err(error) => Some(setup_failure(error)),
    }
}

/// Checks all librdkafka properties together, because properties that are valid alone can be invalid together: for example, a
/// user name without a password. Also detects missing files, such as a certificate. Returns an error text; `None` if the
/// properties are valid together. The check creates a client without brokers, so it opens no connection.
pub fn check_settings(settings: &[(String, String)]) -> Option<String> {
    if let Err(error) = TokenSource::from_properties(settings) {
        return Some(error);
    }
    let mut config = producer_config(settings, 0, CLIENT_ID);
    for name in SERVERS {
        config.remove(name);
    }
    config.create::<BaseProducer>().err().map(setup_failure)
}

/// Returns the reason why librdkafka cannot create a client. The text names the property and never contains a secret.
pub(super) fn setup_failure(error: KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, ..) | KafkaError::ClientCreation(reason) => reason,
        other => other.to_string(),
    }
}

/// Builds the complete librdkafka configuration of a producer for event bodies of up to `max_body` bytes. `client_id` is the name
/// by which the brokers know the client, unless the operator has set another one.
pub(super) fn producer_config(settings: &[(String, String)], max_body: usize, client_id: &str) -> ClientConfig {
    let given = |name: &str| settings.iter().any(|(key, _)| key == name);
    let mut config = ClientConfig::new();
    config.set("message.max.bytes", (largest_body(max_body) + MAX_ENVELOPE).to_string());
    config.set("client.id", client_id);
    // Without this, rdkafka derives the level from the process's log level, and the lines about closed connections are missing.
    let is_debugged = tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG);
    config.set_log_level(if is_debugged { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    for (name, alias, value) in PREFERRED {
        if !given(name) && !given(alias) {
            config.set(*name, *value);
        }
    }
    if cfg!(feature = "vendored-openssl") && !given("ssl.ca.pem") && !openssl_variables() {
        config.set("ssl.ca.location", "probe");
    }
    config.extend(settings.iter().filter(|(name, _)| !tokens::is_own_property(name)).cloned());
    for (name, value) in FIXED {
        config.set(*name, *value);
    }
    config
}

/// Returns true if the environment names the CA certificates for OpenSSL. Otherwise, an OpenSSL inside the binary would look for
/// them in the directory for which it was built, which usually does not exist. `probe` finds those of the operating system.
fn openssl_variables() -> bool {
    ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().any(|name| std::env::var_os(name).is_some())
}

/// Builds the librdkafka configuration of a consumer that reads assigned partitions from given offsets. The consumer joins no group
/// and stores no offset; librdkafka needs a group id nevertheless. Brokers, TLS and login are as for forwarding.
pub(super) fn consumer_config(settings: &[(String, String)], client_id: &str) -> ClientConfig {
    let mut config = producer_config(settings, 0, client_id);
    for name in FIXED.iter().map(|(name, _)| *name).chain(["message.max.bytes"]) {
        config.remove(name);
    }
    for (name, value) in CONSUMER {
        config.set(*name, *value);
    }
    config
}

/// Returns the size in bytes of the largest body that a client accepts. `max_body` is the size for which the client was
/// created.
pub(super) fn largest_body(max_body: usize) -> usize {
    max_body.max(MAX_BODY)
}

/// First part of the name by which the brokers know hookhold's clients.
pub(super) const CLIENT_ID: &str = "hookhold";
/// Both names of the property that lists the brokers.
pub(super) const SERVERS: [&str; 2] = ["bootstrap.servers", "metadata.broker.list"];
/// Size of the largest body that any recipe allows (25 MiB, GitHub), in bytes. The default limit of the Kafka client
/// (`message.max.bytes`) is at least this size plus [`MAX_ENVELOPE`]. The client applies its limit to the record before
/// compression. The broker enforces the topic's own limit.
const MAX_BODY: usize = 25 << 20;
/// Number of bytes that a record may use for its key, headers and framing, in addition to the body.
const MAX_ENVELOPE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_invalid_setting_is_reported_by_its_name() {
        assert_eq!(check_setting("linger.ms", "5"), None);
        assert!(check_setting("sasl.mechanismus", "PLAIN").is_some_and(|error| error.contains("sasl.mechanismus")));
        let zip = check_setting("compression.type", "zip").expect("an error");
        assert!(zip.contains("compression") && zip.contains("zip"), "{zip}");
        assert!(check_setting("message.max.bytes", "7").is_some(), "out of range");
        assert!(check_setting("client.id", "a\0b").is_some(), "a C string cannot contain NUL");
    }

    #[test]
    fn settings_that_do_not_work_together_are_reported() {
        let servers = ("bootstrap.servers", "localhost:1");
        assert_eq!(check_settings(&pairs(&[servers])), None);
        let scram = ("sasl.mechanism", "SCRAM-SHA-512");
        let credentials = [("sasl.username", "hookhold"), ("sasl.password", "sesame")];
        let whole = pairs(&[servers, ("security.protocol", "sasl_plaintext"), scram, credentials[0], credentials[1]]);
        assert_eq!(check_settings(&whole), None);
        let anonymous = check_settings(&whole[..3]).expect("an error");
        assert!(anonymous.contains("sasl.username"), "{anonymous}");
        let no_file = [servers, ("security.protocol", "ssl"), ("ssl.ca.location", "/nonexistent/ca.pem")];
        let no_file = check_settings(&pairs(&no_file)).expect("an error");
        assert!(no_file.contains("ssl.ca.location"), "{no_file}");
    }

    #[test]
    fn the_operator_overrides_defaults_but_not_fixed_settings() {
        let config = producer_config(&[], 0, CLIENT_ID);
        config.create_native_config().expect("our own settings are valid");
        assert_eq!(config.get("enable.idempotence"), Some("true"));
        let theirs = producer_config(
            &pairs(&[("queue.buffering.max.ms", "7"), ("acks", "0"), ("message.max.bytes", "9000")]),
            0,
            CLIENT_ID,
        );
        assert_eq!(
            (theirs.get("linger.ms"), theirs.get("queue.buffering.max.ms")),
            (None, Some("7")),
            "an alias replaces the default"
        );
        assert_eq!((theirs.get("acks"), theirs.get("message.max.bytes")), (Some("all"), Some("9000")));
    }

    #[test]
    fn the_largest_body_of_any_source_fits() {
        let limit: usize =
            producer_config(&[], 64 << 20, CLIENT_ID).get("message.max.bytes").and_then(|m| m.parse().ok()).expect("a number");
        assert!(limit > 64 << 20);
    }
}
