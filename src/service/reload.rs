//! Reloads the configuration while the gateway runs. Reads and checks the whole file first. Then applies either the whole file
//! or nothing: a file that has errors, or contains a change that needs a restart, has no effect. The process therefore never
//! runs a mixture of two configurations.
//!
//! A delivery uses the source that was configured when the delivery arrived, even if a reload replaces that source
//! before the response. The journal and the listeners stay open. hookhold replaces the Kafka client only if the
//! settings of the client change.

use std::path::Path;

use serde_json::json;

use super::{Service, settings};
use crate::certificate::{Certificate, CertificateError, CertificateFiles};
use crate::config::{Config, ConfigChange};
use crate::diagnostic::Diagnostics;

/// New configuration that can replace the current configuration, with the new certificate and the list of changes.
struct Reload {
    config: Config,
    certificate: Option<Certificate>,
    changes: Vec<ConfigChange>,
}

/// Reason why a reload changed nothing.
enum ReloadError {
    /// The configuration file has errors.
    Invalid(Diagnostics),
    /// At least one of these configuration changes needs a restart.
    NeedsRestart(Vec<ConfigChange>),
}

impl Service {
    /// Reads the configuration file again and applies the new content. If hookhold cannot apply the new content, logs the
    /// reason and changes nothing. Blocks on file I/O, and may wait for Kafka.
    pub fn reload(&self) {
        let mut running = self.config();
        let file = running.path.display().to_string();
        if self.0.shutdown.handover().is_under_way() {
            tracing::error!(file, "configuration not reloaded, because a hand-over is under way; the new process reads the file");
            return;
        }
        match prepare(&running) {
            Ok(Reload { config, certificate, changes }) => {
                self.apply(&config, certificate);
                *running = config;
                self.set_reloaded();
                changes.iter().for_each(|ConfigChange { key, change, .. }| tracing::info!(key, change, "configuration changed"));
                settings::log_replaced_recipes(&running);
                settings::log_doubtful_secrets(&running);
                tracing::info!(file, changes = changes.len(), "configuration reloaded");
            }
            Err(error) => {
                self.metrics().config.last_reload_successful.set(0);
                error.log();
                tracing::error!(file, "configuration not reloaded; the previous configuration stays in use");
            }
        }
    }

    /// Returns the changes or the errors that [`Service::reload`] would find, as one JSON object. Changes nothing.
    pub(super) fn preview_reload(&self) -> String {
        let running = self.config();
        let (changes, diagnostics) = match prepare(&running) {
            Ok(Reload { changes, .. }) | Err(ReloadError::NeedsRestart(changes)) => (changes, Vec::new()),
            Err(ReloadError::Invalid(diagnostics)) => (Vec::new(), diagnostics.sorted()),
        };
        let file = std::path::absolute(&running.path).unwrap_or_else(|_| running.path.clone());
        json!({ "file": file, "changes": changes, "mistakes": diagnostics }).to_string() + "\n"
    }

    /// Sets the reload metrics after a successful load of the configuration file.
    pub(super) fn set_reloaded(&self) {
        let metrics = &self.metrics().config;
        metrics.last_reload_successful.set(1);
        metrics.last_reload_success.set(self.0.clock.now().0 as f64 / 1000.0);
    }

    /// Applies the configuration `next`. Cannot fail. Applies the Kafka settings first, then the dedupe window, the sources,
    /// the access to the admin pages and the certificate. The forwarder and the journal are therefore ready before a delivery uses
    /// a new source.
    fn apply(&self, next: &Config, certificate: Option<Certificate>) {
        if let Some(settings) = settings::forward_settings(next) {
            self.0.forwarding.apply(settings);
        }
        self.journal().extend_dedupe_window(settings::longest_dedupe_window(next));
        self.gateway().replace_sources(next.sources.iter().cloned(), self.metrics());
        self.0.admin_access.replace(next.admin.hosts.clone(), next.admin.token.clone());
        self.gateway().rejections().set_limits(next.admin.limits);
        self.gateway().warn_of_expiry(self.0.clock.now());
        self.tls().into_iter().for_each(|tls| tls.request_client_certificates(settings::needs_client_certificates(next)));
        if let (Some(tls), Some(files), Some(certificate)) = (self.tls(), &next.server.tls, certificate) {
            tls.replace(files.clone(), certificate);
        }
    }
}

/// Performs all fallible steps of a reload, and returns the new configuration without applying it.
fn prepare(running: &Config) -> Result<Reload, ReloadError> {
    let config = settings::load_config(&running.path).map_err(ReloadError::Invalid)?;
    let changes = running.changes(&config);
    if changes.iter().any(|change| change.needs_restart) {
        return Err(ReloadError::NeedsRestart(changes));
    }
    let certificate = config.server.tls.as_ref().map(CertificateFiles::read).transpose();
    let certificate = certificate.map_err(|error| unusable_certificate(&running.path, &error))?;
    Ok(Reload { config, certificate, changes })
}

/// Returns the error for a certificate that has become unusable since hookhold checked the configuration.
fn unusable_certificate(file: &Path, error: &CertificateError) -> ReloadError {
    ReloadError::Invalid(Diagnostics::one(file, 1, "server.tls_cert", error.to_string()))
}

impl ReloadError {
    fn log(&self) {
        match self {
            ReloadError::Invalid(diagnostics) => diagnostics.sorted().iter().for_each(|diagnostic| {
                let (file, line, key) = (&*diagnostic.file, diagnostic.line, &*diagnostic.key);
                tracing::error!(file, line, key, mistake = &*diagnostic.what, "error in the configuration");
            }),
            ReloadError::NeedsRestart(changes) => changes.iter().filter(|change| change.needs_restart).for_each(|change| {
                tracing::error!(
                    key = &*change.key,
                    change = &*change.change,
                    "this change needs a restart; restart hookhold or revert the change"
                );
            }),
        }
    }
}
