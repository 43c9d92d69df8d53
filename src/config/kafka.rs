//! Reads `[kafka]`, which contains librdkafka's properties under their own names. Rejects each property on which a guarantee
//! depends, and every alias of the property. Accepts secrets only by reference.

mod files;
mod login;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::{SecretAccess, nearest};
use crate::reference;
use crate::secret;
use crate::source::{Source, SourceTopics};
use crate::toml_value::{Item, Location, TomlTable};

/// A function that checks one librdkafka property. It returns librdkafka's error message, or `None` if librdkafka accepts the
/// value. The function never receives a secret.
pub type KafkaCheck = fn(name: &str, value: &str) -> Option<String>;

/// `[kafka]`: the settings of the Kafka client.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Properties of librdkafka in the order of the file, with references resolved.
    pub librdkafka: Vec<(String, String)>,
    /// Maps topics of the journal to the topics to which hookhold forwards their events instead.
    pub reroute: BTreeMap<String, String>,
    /// Topic for copies of the events that Kafka has rejected because of the event itself; `None` if there is none.
    pub dead_letter: Option<String>,
    /// Line number of the section `[kafka]` in the file, for diagnostics about the whole section.
    pub line: usize,
    /// Properties whose value is in a file, each with the path of the file.
    pub references: BTreeMap<String, PathBuf>,
    /// Hash of the contents of all files on which the Kafka client depends.
    pub fingerprint: u64,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.librdkafka.iter().map(|(name, _)| name)).finish()
    }
}

/// The section `[kafka]`.
pub(super) struct KafkaSection {
    /// Topic template of the sources.
    pub(super) topic: String,
    pub(super) config: KafkaConfig,
    /// Position of the name of the dead-letter topic; `None` if there is none.
    dead_letter_at: Option<Location>,
}

/// Reads the section `[kafka]`: hookhold's own options and the librdkafka properties.
pub(super) fn read(mut t: TomlTable, check: KafkaCheck) -> KafkaSection {
    let topic = t.take("topic").and_then(|item| item.parse(TOPIC_NAME, topic)).unwrap_or_else(|| TOPIC.to_owned());
    let reroute = t.take_table("reroute").map(reroute).unwrap_or_default();
    let (dead_letter, dead_letter_at) = t.take_table("dead_letter").and_then(dead_letter).unzip();
    let location = t.location.clone();
    let mut reader = PropertyReader { check, has_servers: false, references: BTreeMap::new() };
    let items = t.flatten();
    let places: BTreeMap<String, Location> = items.iter().map(|(name, item)| (name.clone(), item.location.clone())).collect();
    let librdkafka: Vec<_> = items.into_iter().filter_map(|(name, item)| reader.read(name, item)).collect();
    if !reader.has_servers {
        location.below(SERVERS[0]).expected(SERVER_LIST, "nothing");
    }
    if librdkafka.len() == places.len() {
        login::check(&librdkafka, |name| places.get(name).cloned().unwrap_or_else(|| location.below(name)));
    }
    let references = reader.references;
    let mut config = KafkaConfig { librdkafka, reroute, dead_letter, line: location.line, references, fingerprint: 0 };
    config.fingerprint = config.fingerprint_of_files();
    KafkaSection { topic, config, dead_letter_at }
}

/// Reads `[kafka.dead_letter]`: the topic and its position.
fn dead_letter(mut t: TomlTable) -> Option<(String, Location)> {
    let (item, location) = (t.take("topic"), t.location_of("topic"));
    if item.is_none() {
        t.missing("topic", LITERAL_TOPIC);
    }
    t.finish();
    Some((item?.parse(LITERAL_TOPIC, literal_topic)?, location))
}

impl KafkaSection {
    /// Checks that hookhold forwards no events to the dead-letter topic. Otherwise a copy could get into a batch of such events, or be
    /// rejected for the same reason as its event.
    pub(super) fn check_dead_letter(&self, sources: &[Arc<Source>]) {
        let (Some(topic), Some(location)) = (&self.config.dead_letter, &self.dead_letter_at) else { return };
        let is_topic_of = |source: &&Arc<Source>| source.topics.all().into_iter().any(|own| **own == **topic);
        let route = self.config.reroute.iter().find(|(_, to)| *to == topic);
        match (sources.iter().find(is_topic_of), route) {
            (Some(source), _) => {
                let found = format_args!("{topic}, a topic of sources.{}; choose another topic", source.name);
                location.expected(OWN_TOPIC, found);
            }
            (None, Some((from, _))) => {
                location.expected(
                    OWN_TOPIC,
                    format_args!("{topic}, the destination of {from} in [kafka.reroute]; choose another topic"),
                );
            }
            (None, None) => {}
        }
    }
}

/// Reads `[kafka.reroute]`. A topic that is itself rerouted would need a second look-up, so it is no destination.
fn reroute(mut t: TomlTable) -> BTreeMap<String, String> {
    let names = t.keys();
    let mut routes = BTreeMap::new();
    for name in &names {
        if literal_topic(name).is_none() {
            t.expected(name, "the name of a topic on the left", "another name");
        }
        let Some(to) = t.take(name).and_then(|item| item.parse(LITERAL_TOPIC, literal_topic)) else { continue };
        if names.contains(&to) {
            t.expected(name, "a topic that is not itself rerouted", format_args!("{to}; name its destination"));
        }
        routes.insert(name.clone(), to);
    }
    t.finish();
    routes
}

fn literal_topic(name: &str) -> Option<String> {
    topic(name).filter(|name| !name.contains('{'))
}

/// Reads the topics to which the sources forward, each with the name of its source; `None` without `[kafka]`.
pub(super) fn topics(root: &mut TomlTable) -> Option<BTreeMap<String, String>> {
    let default = root.take_table("kafka")?.take("topic").and_then(|item| item.parse(TOPIC_NAME, topic));
    let default = default.unwrap_or_else(|| TOPIC.to_owned());
    let mut sources = root.take_section("sources");
    let topics = sources.keys().into_iter().filter_map(|name| {
        let topics = SourceTopics::take(&mut sources.take_table(&name)?, &default, &name)?;
        Some(topics.all().into_iter().map(|topic| (topic.to_string(), name.clone())).collect::<Vec<_>>())
    });
    Some(topics.flatten().collect())
}

fn topic(template: &str) -> Option<String> {
    let fixed = template.replace("{source}", "");
    let is_legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let is_topic = fixed.chars().all(is_legal) && template.len() <= MAX_TOPIC && !["", ".", ".."].contains(&template);
    is_topic.then(|| template.to_owned())
}

/// Reads the text to which `item` refers.
fn referenced(item: Item) -> Option<String> {
    let location = item.location.clone();
    // Without this secret, the Kafka client does not work, even if those of the sources may be missing.
    let text = match location.secrets() {
        SecretAccess::Available => {
            reference::follow(item.as_written()?, &location, "secret").map_err(|what| location.report(what)).ok()?
        }
        _ => secret::read(item)?.bytes,
    };
    let text = String::from_utf8(text);
    text.inspect_err(|_| location.expected("a value in UTF-8", "invalid UTF-8; store the value as text")).ok()
}

/// Returns the first entry of a list of brokers that is not `HOST:PORT`; `None` if there is none. As librdkafka does, accepts an
/// entry without a port, or with a protocol such as `SSL://`.
fn malformed_server(list: &str) -> Option<&str> {
    list.split(',').map(str::trim).find(|entry| {
        let address = entry.split_once("://").map_or(*entry, |(_, address)| address);
        let (host, port) = match address.rsplit_once(':') {
            // An IPv6 address without a port ends in a bracket.
            Some((host, port)) if !address.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        let is_host = !host.is_empty() && host.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-[]:".contains(letter));
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        !is_host || !is_port || host.contains(':') != is_bracketed
    })
}

struct PropertyReader {
    check: KafkaCheck,
    /// True if a property lists the brokers, even if the name of this property is misspelt.
    has_servers: bool,
    references: BTreeMap<String, PathBuf>,
}

impl PropertyReader {
    fn read(&mut self, name: String, item: Item) -> Option<(String, String)> {
        self.has_servers |= SERVERS.contains(&name.as_str());
        if let Some((_, why)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
            return item.reject(format_args!("cannot be set: {why}; remove this line"));
        }
        let (location, is_reference) = (item.location.clone(), secret::is_reference(&item));
        let path = item.as_written().and_then(|text| reference::referenced_file(text, &location));
        self.references.extend(path.map(|path| (name.clone(), path)));
        let is_secret = SECRET.contains(&name.as_str());
        let value = if is_secret || is_reference { referenced(item)? } else { item.scalar()? };
        if is_reference && location.secrets() == SecretAccess::None {
            return Some((name, value));
        }
        let value = if is_reference { value } else { files::resolved(&name, value, &location) };
        if is_secret {
            return Some((name, value));
        }
        if SERVERS.contains(&name.as_str())
            && let Some(server) = malformed_server(&value)
        {
            match is_reference {
                true => location.expected(SERVER_LIST, "another value behind the reference"),
                false => location.expected(SERVER_LIST, format_args!("{server:?}")),
            }
            return None;
        }
        match (self.check)(&name, &value) {
            None => return Some((name, value)),
            Some(problem) if problem.starts_with(NO_SUCH_PROPERTY) => self.unknown(&name, &location),
            // librdkafka's message contains the value.
            Some(_) if is_reference => location.expected("a value that librdkafka accepts", "another value behind the reference"),
            Some(problem) => location.expected("a value that librdkafka accepts", format_args!("an invalid value: {problem}")),
        }
        None
    }

    fn unknown(&mut self, name: &str, location: &Location) {
        let known = || SERVERS.iter().chain(SECRET).chain(COMMON).copied();
        let near = nearest(name, known());
        self.has_servers |= near.is_some_and(|near| SERVERS.contains(&near));
        let remedy = near.map_or(CONFIGURATION.to_owned(), |near| format!("did you mean {near}?"));
        location.expected("topic or a librdkafka property", format_args!("an unknown name; {remedy}"));
    }
}

/// Topic template for a source that sets no topic.
pub(super) const TOPIC: &str = "webhooks.{source}";
/// Kafka's limit on the length of a topic name, in characters.
const MAX_TOPIC: usize = 249;

/// Beginning of librdkafka's error message about an unknown property.
const NO_SUCH_PROPERTY: &str = "No such configuration property";
const CONFIGURATION: &str = "see the producer's properties in librdkafka's CONFIGURATION.md";
const TOPIC_NAME: &str = "a topic name of 1 to 249 letters, digits, \".\", \"_\", \"-\" and \"{source}\"";
const LITERAL_TOPIC: &str = "a topic name of 1 to 249 letters, digits, \".\", \"_\" and \"-\"";
const OWN_TOPIC: &str = "a topic to which hookhold forwards no events";
const SERVER_LIST: &str = "\"HOST:PORT\", or several separated by commas";
/// Both names of the librdkafka property that lists the brokers.
const SERVERS: [&str; 2] = ["bootstrap.servers", "metadata.broker.list"];

const ACKS: &str = "hookhold requires acks=all because a cursor may move only after every in-sync replica has the record";
const TIMEOUT: &str = "hookhold requires 0 (no timeout) because the journal holds an event until Kafka acknowledges it";
const RETRIES: &str = "hookhold requires unlimited retries because the journal holds an event until Kafka acknowledges it";
const IN_FLIGHT: &str = "hookhold requires 5, the largest value that preserves the order of records across retries";

/// Names of the librdkafka properties that an operator cannot set because a guarantee depends on them, each with the reason.
/// Contains every alias of these properties.
const FIXED: &[(&str, &str)] = &[
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("enable.idempotence", "hookhold requires true because a retry must not write a record twice or out of order"),
    ("message.timeout.ms", TIMEOUT),
    ("delivery.timeout.ms", TIMEOUT),
    ("retries", RETRIES),
    ("message.send.max.retries", RETRIES),
    ("max.in.flight", IN_FLIGHT),
    ("max.in.flight.requests.per.connection", IN_FLIGHT),
    ("partitioner", "hookhold requires murmur2_random so that a key maps to the same partition as in Java clients"),
    ("allow.auto.create.topics", "hookhold requires false because Kafka would otherwise create a topic for a misspelt name"),
    (
        "transactional.id",
        "hookhold writes without transactions because consumers identify duplicates by hookhold-log and hookhold-seq",
    ),
    (
        "enable.gapless.guarantee",
        "hookhold requires false because a failed batch would otherwise stop the producer; the topic queues already preserve the order",
    ),
    ("test.mock.num.brokers", "hookhold requires 0 because a mock cluster acknowledges records that it does not store"),
    ("statistics.interval.ms", "hookhold does not export librdkafka's statistics; see its own metrics hookhold_kafka_* instead"),
    ("delivery.report.only.error", "hookhold requires false because only an acknowledgement moves a cursor"),
];

/// Names of the librdkafka properties that contain secrets. hookhold accepts the values of these properties only by reference.
const SECRET: &[&str] = &[
    "sasl.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// Names that a message may suggest for a misspelt name: librdkafka's common producer properties that are not in `FIXED`, and
/// hookhold's own options `topic` and `dead_letter.topic`. A message may also suggest the names in `SERVERS` and `SECRET`.
const COMMON: &[&str] = &[
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "dead_letter.topic",
    "debug",
    "linger.ms",
    "log.connection.close",
    "message.max.bytes",
    "metadata.max.age.ms",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.username",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.keystore.location",
    "sticky.partitioning.linger.ms",
    "topic",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.interval.ms",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_brokers_names_hosts_and_ports() {
        for list in
            ["kafka-1:9092", "a:1, b:2,c", "SSL://[2001:db8::1]:9093", "[::1]", "192.0.2.1:65535", "my_broker.internal:9092"]
        {
            assert_eq!(malformed_server(list), None, "{list}");
        }
        let lists =
            ["", ",", "a:1,", "a:0", "a:65536", "a:b", ":9092", "kafka 1:9092", "http://a:1/", "2001:db8::1:9093", "a:1;b:2"];
        for list in lists {
            assert!(malformed_server(list).is_some(), "{list}");
        }
    }
}
