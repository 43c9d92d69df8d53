//! The parts of the server for deliveries that do not need the journal, so that a process that takes over can accept before it has
//! the journal.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use super::senders_file::SendersFile;
use crate::answer::{Answer, AnswerWatcher};
use crate::certificate::CertificateError;
use crate::clock::Clock;
use crate::config::Config;
use crate::journal::disk::Disk;
use crate::metrics::Metrics;
use crate::server::{LateGateway, Proxies, Server, Tls};

/// Parts of the server for deliveries. A clone is cheap and refers to the same parts.
#[derive(Clone)]
pub(super) struct ServerParts {
    pub(super) tls: Option<Tls>,
    pub(super) gateway: LateGateway,
    pub(super) senders: Arc<SendersFile>,
    pub(super) answers: Arc<LateWatcher>,
}

/// Receiver of every answer, which may come later than the first answers.
#[derive(Default)]
pub(super) struct LateWatcher(pub(super) OnceLock<Arc<dyn AnswerWatcher>>);

impl AnswerWatcher for LateWatcher {
    fn answered(&self, source: &str, remote: SocketAddr, answer: &Answer) {
        if let Some(watcher) = self.0.get() {
            watcher.answered(source, remote, answer);
        }
    }
}

impl ServerParts {
    pub(super) fn new(
        config: &Config,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<ServerParts, CertificateError> {
        let tls = config.server.tls.clone().map(|files| Tls::open(files, clock, metrics)).transpose()?;
        tls.iter().for_each(|tls| tls.request_client_certificates(super::settings::needs_client_certificates(config)));
        let gateway = LateGateway::expected(config.sources.clone());
        Ok(ServerParts { tls, gateway, senders: Arc::new(SendersFile::new(disk)), answers: Arc::default() })
    }

    /// Returns a server with these parts.
    pub(super) fn server(&self, config: &Config, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Server {
        Server {
            gateway: self.gateway.clone(),
            limits: config.server.limits,
            tls: self.tls.clone(),
            proxies: Proxies::new(config.server.trusted_proxies.clone(), config.server.proxy_protocol),
            known_senders: self.senders.clone(),
            clock,
            metrics,
            watcher: Some(self.answers.clone()),
        }
    }
}
