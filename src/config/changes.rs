//! What another configuration would change, and which of it only a restart can. Says that a secret has changed, never what
//! it is or was.

use serde::{Deserialize, Serialize};

use super::{Config, KafkaConfig, ServerConfig};
use crate::limits::{DedupeLimits, ServerLimits};
use crate::source::Source;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// The dotted path of the option.
    pub key: String,
    /// How it changes, in words.
    pub change: String,
    /// True when only a restart can bring it about.
    pub needs_restart: bool,
}

impl Config {
    /// What `next` would change, in the order of the keys.
    pub fn changes(&self, next: &Config) -> Vec<Change> {
        let keys = self.stated.keys().chain(next.stated.keys());
        let mut changes: Vec<Change> = keys.filter_map(|key| self.option(next, key)).collect();
        for (old, new) in self.sources.iter().filter_map(|old| Some((old, named(next, &old.name)?))) {
            changes.extend(secrets(old, new));
        }
        if let (Some(old), Some(new)) = (&self.kafka, &next.kafka) {
            let replaced = properties(old, new).map(|name| behind(format!("kafka.{name}"), "it"));
            changes.extend(replaced.filter(|change| self.stated.get(&change.key) == next.stated.get(&change.key)));
        }
        changes.sort();
        changes.dedup();
        changes
    }

    fn option(&self, next: &Config, key: &str) -> Option<Change> {
        let change = match (self.stated.get(key), next.stated.get(key)) {
            (old, new) if old == new => return None,
            (Some(old), Some(new)) => format!("{old} → {new}"),
            (None, Some(new)) => format!("added: {new}"),
            (Some(old), None) => format!("removed: {old}"),
            (None, None) => return None,
        };
        Some(Change { key: key.to_owned(), change, needs_restart: self.needs_restart(next, key) })
    }

    /// False also for another spelling of the same value.
    fn needs_restart(&self, next: &Config, key: &str) -> bool {
        let (section, _) = key.split_once('.').unwrap_or((key, ""));
        match section {
            _ if RELOADED.contains(&key) => false,
            "server" if key.starts_with("server.tls_") => self.server.tls.is_some() != next.server.tls.is_some(),
            "server" => self.server != as_reloaded(&self.server, &next.server),
            "admin" => self.admin.listen != next.admin.listen,
            "journal" => self.journal != next.journal,
            "dedupe" => self.dedupe != DedupeLimits { window: self.dedupe.window, ..next.dedupe },
            "kafka" => self.kafka.is_some() != next.kafka.is_some(),
            "sources" => false,
            _ => true,
        }
    }
}

/// `next` without what a reload takes over.
fn as_reloaded(running: &ServerConfig, next: &ServerConfig) -> ServerConfig {
    let limits = ServerLimits { max_body: running.limits.max_body, ..next.limits };
    ServerConfig { public_url: running.public_url.clone(), limits, tls: running.tls.clone(), ..next.clone() }
}

fn named<'a>(config: &'a Config, name: &str) -> Option<&'a Source> {
    config.sources.iter().map(|source| &**source).find(|source| *source.name == *name)
}

/// Secrets of one name that are another one now.
fn secrets(old: &Source, new: &Source) -> Vec<Change> {
    let same_name = |key: &&crate::source::Key| old.secrets.iter().any(|old| old.name == key.name && !old.is_same_secret(key));
    let place = format!("sources.{}.secrets", new.name);
    new.secrets.iter().filter(same_name).map(|key| behind(place.clone(), &key.name)).collect()
}

/// Properties whose reference stays and whose value does not.
fn properties<'a>(old: &'a KafkaConfig, new: &'a KafkaConfig) -> impl Iterator<Item = &'a str> {
    let differs = |(name, value): &&(String, String)| old.librdkafka.iter().any(|(old, was)| old == name && was != value);
    new.librdkafka.iter().filter(differs).map(|(name, _)| name.as_str())
}

fn behind(key: String, what: &str) -> Change {
    Change { key, change: format!("the secret behind {what} is another one"), needs_restart: false }
}

/// What a reload takes over besides `[sources]`, what stands in `[kafka]`, and another certificate.
const RELOADED: &[&str] = &["server.public_url", "server.max_body", "admin.keep_rejected", "dedupe.window"];
