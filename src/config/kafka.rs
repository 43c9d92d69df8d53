//! `[kafka]`: librdkafka's own names, passed through. What hookhold promises depends on some of them, so those are fixed
//! and refused, by every name they have. Passwords come by reference only.

use std::fmt;

use crate::secret;
use crate::toml_value::{Item, TomlTable};

/// Says what is wrong with one librdkafka property, if anything. Is never shown a secret.
pub type KafkaCheck = fn(name: &str, value: &str) -> Option<String>;

/// How to reach Kafka.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaConfig {
    /// librdkafka's properties with references followed, in the order of the file.
    pub librdkafka: Vec<(String, String)>,
    /// The line of `[kafka]`, for what is wrong with all of it together.
    pub line: usize,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.librdkafka.iter().map(|(name, _)| name)).finish()
    }
}

/// The topic template and the properties.
pub(super) fn read(mut t: TomlTable, check: KafkaCheck) -> (String, KafkaConfig) {
    let topic = topic(&mut t).unwrap_or_else(|| TOPIC.to_owned());
    let place = t.place.clone();
    let given = t.flatten();
    let servers = given.iter().any(|(name, _)| name == "bootstrap.servers" || name == "metadata.broker.list");
    if !servers {
        place.below("bootstrap.servers").wrong("missing", "\"HOST:PORT\", several with commas between");
    }
    let librdkafka = given.into_iter().filter_map(|(name, item)| property(name, item, check)).collect();
    (topic, KafkaConfig { librdkafka, line: place.line })
}

fn topic(t: &mut TomlTable) -> Option<String> {
    let template = t.take_str("topic")?;
    let fixed = template.replace("{source}", "");
    let legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if fixed.chars().all(legal) && template.len() <= MAX_TOPIC && !["", ".", ".."].contains(&template.as_str()) {
        return Some(template);
    }
    t.wrong("topic", "not a topic name", format_args!("1 to {MAX_TOPIC} letters, digits, . _ - and {{source}}"));
    None
}

fn property(name: String, item: Item, check: KafkaCheck) -> Option<(String, String)> {
    if let Some((_, ours)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
        return item.refuse("fixed by hookhold", ours);
    }
    if SECRET.contains(&name.as_str()) {
        let place = item.place.clone();
        let Ok(value) = String::from_utf8(secret::read(item)?.bytes) else {
            place.wrong("the secret is not text", "UTF-8");
            return None;
        };
        return Some((name, value));
    }
    let place = item.place.clone();
    let value = item.scalar()?;
    match check(&name, &value) {
        None => Some((name, value)),
        Some(problem) => {
            place.wrong(problem, "librdkafka's producer properties");
            None
        }
    }
}

/// What events without a topic of their own go to.
pub(super) const TOPIC: &str = "webhooks.{source}";
/// Kafka's own limit.
const MAX_TOPIC: usize = 249;

const ACKS: &str = "leave it out; it is \"all\", since a cursor moves only when every in-sync replica has the record";
const TIMEOUT: &str = "leave it out; the journal keeps an event until Kafka has it, however long that takes";
const RETRIES: &str = "leave it out; the producer retries for as long as it takes";
const IN_FLIGHT: &str = "leave it out; it is 5, the most that keeps the order of a key through retries";

/// Properties that a promise rests on, with all their names, and what they are.
const FIXED: &[(&str, &str)] = &[
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("enable.idempotence", "leave it out; it is true, since a retry must not write a record twice or out of order"),
    ("message.timeout.ms", TIMEOUT),
    ("delivery.timeout.ms", TIMEOUT),
    ("retries", RETRIES),
    ("message.send.max.retries", RETRIES),
    ("max.in.flight", IN_FLIGHT),
    ("max.in.flight.requests.per.connection", IN_FLIGHT),
    ("partitioner", "leave it out; it is murmur2_random, so that a key meets the same partition as with Java's clients"),
    ("allow.auto.create.topics", "leave it out; it is false, so that a mistyped topic is an alarm and not a new topic"),
    ("transactional.id", "leave it out; delivery is at-least-once with (hookhold-log, hookhold-seq) to recognise repeats"),
    (
        "enable.gapless.guarantee",
        "leave it out; it is false, since the lane keeps the order and a failed batch needs no new producer",
    ),
    ("test.mock.num.brokers", "leave it out; it is 0, since a mock cluster acknowledges what nobody keeps"),
    ("delivery.report.only.error", "leave it out; it is false, since only an acknowledgement moves a cursor"),
];

/// Properties that hold secrets.
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
