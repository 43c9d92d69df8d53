//! Reading the configuration again while everything runs (SIGHUP). The whole file is read and checked first; only when nothing
//! in it is wrong and nothing needs a restart does anything change. So the process always runs one file, whole.
//!
//! What has come in by a former source ends as it began. The journal and the listeners stay open; the Kafka client is
//! replaced only where its own settings change.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::certificate::{Certificate, Files, Unusable};
use crate::clock::Clock;
use crate::config::{Change, Config};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::forward;
use crate::gateway::Gateway;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::server::Tls;
use serde_json::json;

use super::{LAST_ACKNOWLEDGEMENTS, POISON, Passing, load_with_kafka};

/// What a reload reads, compares with and replaces.
pub struct Reload {
    file: PathBuf,
    /// The configuration that runs. Held while it is being replaced.
    running: Mutex<Config>,
    gateway: Arc<Gateway>,
    journal: Journal,
    passing: Passing,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    tls: Option<Tls>,
}

/// Why the configuration that runs stays.
enum ReloadError {
    /// The file is wrong.
    Wrong(Diagnostics),
    /// Some of its changes need a restart; all of its changes.
    NeedsRestart(Vec<Change>),
}

impl Reload {
    pub(super) fn new(
        running: Config,
        gateway: Arc<Gateway>,
        journal: Journal,
        passing: Passing,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        tls: Option<Tls>,
    ) -> Reload {
        let (file, running) = (running.path.clone(), Mutex::new(running));
        let reload = Reload { file, running, gateway, journal, passing, metrics, clock, tls };
        reload.succeeded();
        reload
    }

    /// Reads the file again and puts it into force, or says in the log why not. Reads files and may wait for Kafka.
    pub fn run(&self) {
        let mut running = self.hold();
        match self.prepare(&running) {
            Ok((next, certificate, changes)) => {
                self.put_in_force(&next, certificate);
                *running = next;
                self.succeeded();
                changes.iter().for_each(|Change { key, change, .. }| tracing::info!(key, change, "configuration changed"));
                tracing::info!(file = %self.file.display(), changes = changes.len(), "configuration reloaded");
            }
            Err(refused) => {
                self.metrics.config.last_reload_successful.set(0);
                refused.log();
                tracing::error!(file = %self.file.display(), "configuration not reloaded: everything stays as it was");
            }
        }
    }

    /// What [`Reload::run`] would do, as one JSON object. Changes nothing.
    pub(super) fn outlook(&self) -> String {
        let (changes, mistakes) = match self.prepare(&self.hold()) {
            Ok((_, _, changes)) | Err(ReloadError::NeedsRestart(changes)) => (changes, Vec::new()),
            Err(ReloadError::Wrong(mistakes)) => (Vec::new(), mistakes.sorted()),
        };
        let mistakes: Vec<_> = mistakes.iter().map(|mistake| json!(mistake)).collect();
        let file = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        json!({ "file": file, "changes": changes, "mistakes": mistakes }).to_string() + "\n"
    }

    /// No reload begins while this is held; one that has begun is over.
    pub(super) fn hold(&self) -> MutexGuard<'_, Config> {
        self.running.lock().expect(POISON)
    }

    /// Everything that can go wrong.
    fn prepare(&self, running: &Config) -> Result<(Config, Option<Certificate>, Vec<Change>), ReloadError> {
        let next = load_with_kafka(&self.file).map_err(ReloadError::Wrong)?;
        let changes = running.changes(&next);
        if changes.iter().any(|change| change.needs_restart) {
            return Err(ReloadError::NeedsRestart(changes));
        }
        let certificate = next.server.tls.as_ref().map(Files::read).transpose().map_err(|error| self.unusable(&error))?;
        Ok((next, certificate, changes))
    }

    /// The certificate has become unusable since the configuration was checked.
    fn unusable(&self, error: &Unusable) -> ReloadError {
        let (file, what) = (self.file.display().to_string(), error.to_string());
        let mistakes = Diagnostics::default();
        mistakes.add(Diagnostic { file, line: 1, key: "server.tls_cert".to_owned(), what });
        ReloadError::Wrong(mistakes)
    }

    /// Nothing in here can go wrong. From behind to the front: whoever is let in finds everything ready.
    fn put_in_force(&self, next: &Config, certificate: Option<Certificate>) {
        self.pass_on(next);
        self.journal.extend_dedupe_window(longest_window(next));
        self.gateway.replace_sources(next.sources.iter().cloned(), &self.metrics);
        self.gateway.rejections().set_limit(next.admin.limits.keep_rejected);
        self.gateway.warn_of_expiry(self.clock.now());
        if let (Some(tls), Some(files), Some(certificate)) = (&self.tls, &next.server.tls, certificate) {
            tls.replace(files.clone(), certificate);
        }
    }

    fn pass_on(&self, next: &Config) {
        let mut passing = self.passing.lock().expect(POISON);
        let Some((forwarder, settings)) = passing.as_ref().zip(forward_settings(next)) else { return };
        let Err(settings) = forwarder.reconfigure(settings) else { return };
        let former = passing.take();
        // Others ask how it fares meanwhile.
        drop(passing);
        if let Some(former) = former {
            former.stop(LAST_ACKNOWLEDGEMENTS);
        }
        let started = forward::start(self.journal.clone(), settings, self.metrics.clone(), self.clock.clone());
        *self.passing.lock().expect(POISON) = Some(started);
    }

    fn succeeded(&self) {
        self.metrics.config.last_reload_successful.set(1);
        self.metrics.config.last_reload_success.set(self.clock.now().0 as f64 / 1000.0);
    }
}

impl ReloadError {
    fn log(&self) {
        match self {
            ReloadError::Wrong(mistakes) => mistakes.sorted().iter().for_each(|mistake| {
                let (file, line, key) = (&*mistake.file, mistake.line, &*mistake.key);
                tracing::error!(file, line, key, mistake = &*mistake.what, "mistake in the configuration");
            }),
            ReloadError::NeedsRestart(changes) => changes.iter().filter(|change| change.needs_restart).for_each(|change| {
                tracing::error!(key = &*change.key, change = &*change.change, "this change needs a restart");
            }),
        }
    }
}

/// What the forwarder needs to know; `None` without `[kafka]`.
pub(super) fn forward_settings(config: &Config) -> Option<forward::Settings> {
    let kafka = config.kafka.as_ref()?;
    let sources = &config.sources;
    Some(forward::Settings {
        librdkafka: kafka.librdkafka.clone(),
        headers: sources.iter().map(|source| (source.name.clone(), source.header_allow_list.clone())).collect(),
        max_body: sources.iter().map(|source| source.max_body).max().unwrap_or_default(),
    })
}

/// How long the journal must remember keys.
pub(super) fn longest_window(config: &Config) -> Duration {
    let windows = config.sources.iter().flat_map(|source| [source.dedupe.window, source.dedupe.body.unwrap_or_default()]);
    windows.max().unwrap_or_default().max(config.dedupe.window)
}
