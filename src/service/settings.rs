//! Settings of each room, from the configuration. Reading and checking a configuration file as a whole happens here as well,
//! because only this room knows both `config` and `forward`.

use std::path::Path;
use std::time::Duration;

use crate::config::Config;
use crate::diagnostic::Diagnostics;
use crate::forward;
use crate::journal::Options;

/// Reads and checks a configuration file. Checks `[kafka]` as a whole as well as one property at a time: properties that are
/// valid one by one can contradict each other.
pub fn load_config(path: &Path) -> Result<Config, Diagnostics> {
    let config = Config::load(path, forward::check_setting)?;
    let Some(kafka) = &config.kafka else { return Ok(config) };
    let Some(obstacle) = forward::check_settings(&kafka.librdkafka) else { return Ok(config) };
    let what = format!("librdkafka rejects these properties together: {obstacle}");
    Err(Diagnostics::one(path, kafka.line, "kafka", what))
}

pub(super) fn journal_options(config: &Config) -> Options {
    Options {
        limits: config.journal.limits,
        dedupe_window: longest_dedupe_window(config),
        max_key_bytes: config.dedupe.max_disk,
        forwards: config.kafka.is_some(),
    }
}

/// Settings of the forwarder; `None` without `[kafka]`.
pub(super) fn forward_settings(config: &Config) -> Option<forward::Settings> {
    let kafka = config.kafka.as_ref()?;
    let sources = &config.sources;
    Some(forward::Settings {
        librdkafka: kafka.librdkafka.clone(),
        headers: sources.iter().map(|source| (source.name.clone(), source.header_allow_list.clone())).collect(),
        max_body: sources.iter().map(|source| source.max_body).max().unwrap_or_default(),
    })
}

/// Time for which the journal must remember keys.
pub(super) fn longest_dedupe_window(config: &Config) -> Duration {
    let windows = config.sources.iter().flat_map(|source| [source.dedupe.window, source.dedupe.body.unwrap_or_default()]);
    windows.max().unwrap_or_default().max(config.dedupe.window)
}
