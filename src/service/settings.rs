//! Derives the settings of each module from the configuration. Also reads and checks the configuration file, because
//! only this module depends on both `config` and `forward`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::diagnostic::Diagnostics;
use crate::forward;
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
        reroute: kafka.reroute.iter().map(|(from, to)| (Arc::from(&**from), Arc::from(&**to))).collect(),
        headers: sources.iter().map(|source| (source.name.clone(), source.header_allow_list.clone())).collect(),
        max_body: sources.iter().map(|source| source.max_body).max().unwrap_or_default(),
    })
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

/// Returns the longest of all configured dedupe windows. The journal must remember dedupe keys for this time.
pub(super) fn longest_dedupe_window(config: &Config) -> Duration {
    let windows = config.sources.iter().flat_map(|source| [source.dedupe.window, source.dedupe.body.unwrap_or_default()]);
    windows.max().unwrap_or_default().max(config.dedupe.window)
}
