//! Derives the settings of each module from the configuration. Also reads and checks the configuration file, because
//! only this module depends on both `config` and `forward`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::diagnostic::Diagnostics;
use crate::forward::{self, RecordOptions};
use crate::journal::Options;

/// Reads a configuration file and returns the checked configuration. The error lists the mistakes in the file. Checks
/// the properties of `[kafka]` one by one and then together, because properties that are valid alone can be invalid
/// together.
pub fn load_config(path: &Path) -> Result<Config, Diagnostics> {
    let config = Config::load(path, forward::check_setting)?;
    let Some(kafka) = &config.kafka else { return Ok(config) };
    let Some(obstacle) = forward::check_settings(&kafka.librdkafka) else { return Ok(config) };
    let what = format!(
        "expected properties that work together, found a combination that librdkafka rejects ({obstacle}); correct [kafka]"
    );
    Err(Diagnostics::one(path, kafka.line, "kafka", what))
}

pub(super) fn journal_options(config: &Config) -> Options {
    Options {
        limits: config.journal.limits,
        dedupe_window: longest_dedupe_window(config),
        max_key_bytes: config.dedupe.max_disk,
        forwards: config.kafka.is_some(),
        ..Options::default()
    }
}

/// Returns the settings of the forwarder; `None` if `[kafka]` is not configured.
pub fn forward_settings(config: &Config) -> Option<forward::Settings> {
    let kafka = config.kafka.as_ref()?;
    let sources = &config.sources;
    Some(forward::Settings {
        librdkafka: kafka.librdkafka.clone(),
        files: kafka.fingerprint,
        reroute: kafka.reroute.iter().map(|(from, to)| (Arc::from(&**from), Arc::from(&**to))).collect(),
        dead_letter: kafka.dead_letter.as_deref().map(Arc::from),
        sources: sources
            .iter()
            .map(|source| {
                let headers = source.header_allow_list.clone();
                (source.name.clone(), RecordOptions { headers, signed_base_url: source.signed_base_url() })
            })
            .collect(),
        max_body: sources.iter().map(|source| source.max_body).max().unwrap_or_default(),
        topics: sources.iter().flat_map(|source| source.topics.all()).cloned().collect(),
    })
}

/// Returns the topics to which hookhold forwards events, sorted by name: the destinations of each source, the dead-letter topic, and
/// each destination in `[kafka.reroute]`, because events may still wait for the topics that it replaces.
pub fn forward_topics(config: &Config, settings: &forward::Settings) -> Vec<forward::ForwardTopic> {
    let others = settings.reroute.values().chain(&settings.dead_letter);
    let mut topics: BTreeMap<Arc<str>, usize> = others.map(|to| (to.clone(), 0)).collect();
    for source in &config.sources {
        for topic in source.topics.all() {
            let max_body = topics.entry(settings.destination(topic)).or_default();
            *max_body = source.max_body.max(*max_body);
        }
    }
    let max_head = config.server.limits.max_header_size;
    topics.into_iter().map(|(name, max_body)| forward::ForwardTopic { name, max_body, max_head }).collect()
}

/// Returns true if a source requires a client certificate.
pub(super) fn needs_client_certificates(config: &Config) -> bool {
    config.sources.iter().any(|source| source.clients.certificate.is_some())
}

/// Logs the name of each recipe file that replaces a built-in recipe. Such a file may be older than the built-in recipe.
pub(super) fn log_replaced_recipes(config: &Config) {
    for file in config.providers.files().iter().filter(|file| file.is_replacement()) {
        let (recipe, file) = (&*file.name, &*file.path);
        tracing::info!(recipe, file, "a recipe file replaces a built-in recipe; remove the file to use the built-in recipe");
    }
}

/// Logs a warning about each secret with which the sender probably does not sign.
pub(super) fn log_doubtful_secrets(config: &Config) {
    for source in &config.sources {
        for (secret, reason) in source.doubtful_secrets() {
            tracing::warn!(source = &*source.name, secret, "the secret {reason}");
        }
    }
}

/// Returns the longest of all configured dedupe windows. The journal must remember dedupe keys for this time.
pub(super) fn longest_dedupe_window(config: &Config) -> Duration {
    let windows = config.sources.iter().flat_map(|source| [source.dedupe.window, source.dedupe.body.unwrap_or_default()]);
    windows.max().unwrap_or_default().max(config.dedupe.window)
}
