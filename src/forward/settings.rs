//! The producer's librdkafka settings: what the promises need and nobody may change, what we prefer and the operator may
//! change, and what the operator says.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

/// What the promises rest on. The configuration refuses these under every name that they have, and says why.
const FIXED: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // Retries belong inside the client, where they keep the order; the journal has all the time in the world.
    ("message.timeout.ms", "0"),
    // Java, Streams, Flink and Connect put a key into the same partition.
    ("partitioner", "murmur2_random"),
    // A slip in a route must not create a topic.
    ("allow.auto.create.topics", "false"),
];

/// What we prefer: name, an alias under which the operator may have set it, value.
const PREFERRED: &[(&str, &str, &str)] = &[
    ("client.id", "client.id", "hookhold"),
    // Senders are answered from the journal, so a little patience costs nobody anything and makes better batches.
    ("linger.ms", "queue.buffering.max.ms", "10"),
    ("compression.type", "compression.codec", "lz4"),
    // The window of each lane is the limit; this queue only has to be above their sum.
    ("queue.buffering.max.kbytes", "queue.buffering.max.kbytes", "1048576"),
    ("queue.buffering.max.messages", "queue.buffering.max.messages", "1000000"),
    ("socket.timeout.ms", "socket.timeout.ms", "20000"),
    ("socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.ms", "10000"),
    ("socket.keepalive.enable", "socket.keepalive.enable", "true"),
    ("reconnect.backoff.max.ms", "reconnect.backoff.max.ms", "5000"),
    ("topic.metadata.refresh.interval.ms", "topic.metadata.refresh.interval.ms", "60000"),
    // How long records for an unknown topic are held before the lane hears of it.
    ("topic.metadata.propagation.max.ms", "topic.metadata.propagation.max.ms", "5000"),
    ("log.connection.close", "log.connection.close", "false"),
];

/// Says what is wrong with one of the operator's settings: a name that librdkafka does not know, or a value that it refuses.
/// Opens no connection.
pub fn check_setting(name: &str, value: &str) -> Option<String> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => None,
        Err(error) => Some(setup_failure(error)),
    }
}

/// Says why no client can be set up with settings that are right one by one: a file that is not there, credentials that lack
/// their other half. Sets one up without servers, so that it opens no connection.
pub fn check_settings(settings: &[(String, String)]) -> Option<String> {
    let mut config = producer_config(settings, 0);
    for name in SERVERS {
        config.remove(name);
    }
    config.create::<BaseProducer>().err().map(setup_failure)
}

/// Why there is no client, in librdkafka's words, which name the property and never repeat a secret.
pub(super) fn setup_failure(error: KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, what, ..) | KafkaError::ClientCreation(what) => what,
        other => other.to_string(),
    }
}

/// The whole configuration of a producer that carries bodies of up to `max_body` bytes.
pub(super) fn producer_config(settings: &[(String, String)], max_body: usize) -> ClientConfig {
    let given = |name: &str| settings.iter().any(|(key, _)| key == name);
    let mut config = ClientConfig::new();
    config.set("message.max.bytes", (largest_body(max_body) + MAX_ENVELOPE).to_string());
    for (name, alias, value) in PREFERRED {
        if !given(name) && !given(alias) {
            config.set(*name, *value);
        }
    }
    config.extend(settings.iter().cloned());
    for (name, value) in FIXED {
        config.set(*name, *value);
    }
    config
}

/// The largest body that a client for bodies of up to `max_body` bytes takes.
pub(super) fn largest_body(max_body: usize) -> usize {
    max_body.max(MAX_BODY)
}

/// Where the brokers are, by both its names.
const SERVERS: [&str; 2] = ["bootstrap.servers", "metadata.broker.list"];
/// The largest body of any recipe (GitHub). The client's limit concerns one record before compression; what the topic
/// takes is for the broker to say.
const MAX_BODY: usize = 25 << 20;
/// Room for key, headers and framing beside a body.
const MAX_ENVELOPE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(check_setting("linger.ms", "5"), None);
        assert!(check_setting("sasl.mechanismus", "PLAIN").is_some_and(|what| what.contains("sasl.mechanismus")));
        let zip = check_setting("compression.type", "zip").expect("a mistake");
        assert!(zip.contains("compression") && zip.contains("zip"), "{zip}");
        assert!(check_setting("message.max.bytes", "7").is_some(), "out of range");
        assert!(check_setting("client.id", "a\0b").is_some(), "not for a C library");
    }

    #[test]
    fn what_is_wrong_together_is_named() {
        let servers = ("bootstrap.servers", "localhost:1");
        assert_eq!(check_settings(&pairs(&[servers])), None);
        let scram = ("sasl.mechanism", "SCRAM-SHA-512");
        let who = [("sasl.username", "hookhold"), ("sasl.password", "sesame")];
        let whole = pairs(&[servers, ("security.protocol", "sasl_plaintext"), scram, who[0], who[1]]);
        assert_eq!(check_settings(&whole), None);
        let nobody = check_settings(&whole[..3]).expect("a mistake");
        assert!(nobody.contains("sasl.username"), "{nobody}");
        let nowhere = [servers, ("security.protocol", "ssl"), ("ssl.ca.location", "/nonexistent/ca.pem")];
        let nowhere = check_settings(&pairs(&nowhere)).expect("a mistake");
        assert!(nowhere.contains("ssl.ca.location"), "{nowhere}");
    }

    #[test]
    fn what_we_set_is_known_to_librdkafka_and_yields_to_the_operator_except_for_what_is_fixed() {
        let config = producer_config(&[], 0);
        config.create_native_config().expect("all our own settings are valid");
        assert_eq!(config.get("enable.idempotence"), Some("true"));
        let theirs = producer_config(&pairs(&[("queue.buffering.max.ms", "7"), ("acks", "0"), ("message.max.bytes", "9000")]), 0);
        assert_eq!((theirs.get("linger.ms"), theirs.get("queue.buffering.max.ms")), (None, Some("7")), "an alias counts");
        assert_eq!((theirs.get("acks"), theirs.get("message.max.bytes")), (Some("all"), Some("9000")));
    }

    #[test]
    fn the_largest_body_of_any_source_fits() {
        let limit: usize =
            producer_config(&[], 64 << 20).get("message.max.bytes").and_then(|m| m.parse().ok()).expect("a number");
        assert!(limit > 64 << 20);
    }
}
