//! Log lines with which `hookhold run` tells what it runs: version, configuration, sources with their URLs, and the journal. The
//! listeners and the Kafka client log their own lines.

use hookhold::build_info;
use hookhold::config::Config;
use hookhold::service::Service;
use hookhold::units::bytes_about;

use super::super::check::{servers, url};
use super::super::volume;

/// Logs the version, the configuration file, each source, the admin address and the Kafka servers.
pub(super) fn log_config(config: &Config) {
    let file = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
    tracing::info!(version = build_info::VERSION, config = %file.display(), "hookhold starts");
    for source in &config.sources {
        let topics: Vec<&str> = source.topics.all().into_iter().map(|topic| &**topic).collect();
        let (name, recipe, topics) = (&*source.name, source.provider.as_deref().unwrap_or("inline"), topics.join(", "));
        tracing::info!(source = name, url = url(config, source), recipe, topics, "source");
    }
    tracing::info!(url = format!("http://{}/", config.admin.listen), "admin listener");
    if let Some(servers) = servers(config) {
        tracing::info!(servers, "Kafka: connecting");
    }
}

/// Logs the directory, the file system and the size of the open journal.
pub(super) fn log_journal(config: &Config, service: &Service) {
    let journal = service.journal();
    journal.update_metrics();
    let metrics = &service.metrics().journal;
    let [size, limit] = [metrics.bytes.get(), metrics.limit_bytes.get()].map(|bytes| bytes_about(bytes.unsigned_abs()));
    let file_system = volume::file_system(&config.journal).map(|found| found.name).unwrap_or_else(|error| error.to_string());
    let (dir, events) = (std::path::absolute(&config.journal.dir).unwrap_or_default(), metrics.events.get());
    tracing::info!(dir = %dir.display(), file_system, events, size, limit, next_seq = journal.durable_watermark(), "journal open");
}
