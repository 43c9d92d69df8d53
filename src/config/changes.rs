//! Compares two configurations: lists the options that differ and marks the changes that need a restart. The list contains the
//! names of changed secrets, never their values.

use serde::{Deserialize, Serialize};

use super::{Config, KafkaConfig, ServerConfig};
use crate::limits::{DedupeLimits, ServerLimits};
use crate::source::{Providers, RecipeFile, Source};

/// A difference in one option between two configurations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConfigChange {
    /// Dotted path of the option.
    pub key: String,
    /// Description of the change, without secrets.
    pub change: String,
    /// True if the change takes effect only after a restart.
    pub needs_restart: bool,
}

impl Config {
    /// Returns the changes from this configuration to `next`, sorted by key.
    pub fn changes(&self, next: &Config) -> Vec<ConfigChange> {
        let keys = self.stated.keys().chain(next.stated.keys());
        let mut changes: Vec<ConfigChange> = keys.filter_map(|key| self.option(next, key)).collect();
        for (old, new) in self.sources.iter().filter_map(|old| Some((old, named(next, &old.name)?))) {
            changes.extend(changed_secrets(old, new));
        }
        changes.extend(self.changed_references(next));
        changes.extend(changed_recipes(&self.providers, &next.providers));
        if self.admin.token != next.admin.token && self.stated.get("admin.token") == next.stated.get("admin.token") {
            changes.push(new_secret("admin.token".to_owned(), "the secret"));
        }
        if let (Some(old), Some(new)) = (&self.kafka, &next.kafka) {
            let replaced = changed_properties(old, new).map(|name| new_secret(format!("kafka.{name}"), "the secret"));
            changes.extend(replaced.filter(|change| self.stated.get(&change.key) == next.stated.get(&change.key)));
        }
        changes.sort();
        changes.dedup();
        changes
    }

    /// Lists the options whose reference is unchanged, but stands for another value.
    fn changed_references(&self, next: &Config) -> Vec<ConfigChange> {
        let is_changed = |(key, value): &(&String, &u64)| {
            self.stated.get(*key) == next.stated.get(*key) && next.references.get(*key).is_some_and(|next| next != *value)
        };
        let change = |key: &String| ConfigChange {
            key: key.clone(),
            change: "the value behind the reference has changed".to_owned(),
            needs_restart: self.needs_restart(next, key),
        };
        self.references.iter().filter(is_changed).map(|(key, _)| change(key)).collect()
    }

    fn option(&self, next: &Config, key: &str) -> Option<ConfigChange> {
        let change = match (self.stated.get(key), next.stated.get(key)) {
            (old, new) if old == new => return None,
            (Some(old), Some(new)) => format!("{old} → {new}"),
            (None, Some(new)) => format!("added: {new}"),
            (Some(old), None) => format!("removed: {old}"),
            (None, None) => return None,
        };
        Some(ConfigChange { key: key.to_owned(), change, needs_restart: self.needs_restart(next, key) })
    }

    /// Returns true if the change of the option `key` needs a restart. Compares parsed values, so a different spelling of the
    /// same value needs no restart.
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
            "providers" | "sources" => false,
            _ => true,
        }
    }
}

/// Returns a copy of `next` in which every option that a reload applies has its value from `running`. If the copy still differs
/// from `running`, the difference needs a restart.
fn as_reloaded(running: &ServerConfig, next: &ServerConfig) -> ServerConfig {
    let limits = ServerLimits { max_body: running.limits.max_body, ..next.limits };
    ServerConfig { public_url: running.public_url.clone(), limits, tls: running.tls.clone(), ..next.clone() }
}

fn named<'a>(config: &'a Config, name: &str) -> Option<&'a Source> {
    config.sources.iter().map(|source| &**source).find(|source| *source.name == *name)
}

/// Lists the secrets that have the same name but different values in `old` and `new`.
fn changed_secrets(old: &Source, new: &Source) -> Vec<ConfigChange> {
    let same_name = |key: &&crate::source::Key| old.keys.iter().any(|old| old.name == key.name && !old.is_same_secret(key));
    let option = format!("sources.{}.secrets", new.name);
    new.keys.iter().filter(same_name).map(|key| new_secret(option.clone(), &format!("the secret {}", key.name))).collect()
}

/// Lists the recipe files that differ between `old` and `new`.
fn changed_recipes(old: &Providers, new: &Providers) -> Vec<ConfigChange> {
    let change = |file: &RecipeFile, what: &str| {
        let change = format!("the recipe {} {what}", file.path);
        ConfigChange { key: format!("providers.{}", file.name), change, needs_restart: false }
    };
    let added_or_changed = new.files().iter().filter_map(|file| match old.file(&file.name) {
        Some(before) if before.has_same_text(file) => None,
        Some(_) => Some(change(file, "has changed")),
        None => Some(change(file, "has been added")),
    });
    let removed = old.files().iter().filter(|file| new.file(&file.name).is_none());
    added_or_changed.chain(removed.map(|file| change(file, "has been removed"))).collect()
}

/// Lists the librdkafka properties that have different values in `old` and `new`. The list includes each property whose
/// reference is unchanged but whose secret has changed.
fn changed_properties<'a>(old: &'a KafkaConfig, new: &'a KafkaConfig) -> impl Iterator<Item = &'a str> {
    let differs = |(name, value): &&(String, String)| old.librdkafka.iter().any(|(old, was)| old == name && was != value);
    new.librdkafka.iter().filter(differs).map(|(name, _)| name.as_str())
}

fn new_secret(key: String, what: &str) -> ConfigChange {
    ConfigChange { key, change: format!("{what} has changed"), needs_restart: false }
}

/// Options that a reload applies, in addition to `[providers]`, `[sources]`, the properties in `[kafka]` and a new certificate.
const RELOADED: &[&str] = &[
    "server.public_url",
    "server.max_body",
    "admin.hosts",
    "admin.keep_rejected",
    "admin.keep_rejected_for",
    "admin.keep_rejected_bodies",
    "admin.token",
    "dedupe.window",
];
