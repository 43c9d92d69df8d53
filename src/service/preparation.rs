//! Prepares a service before it has the journal. Everything that can fail because of the configuration fails here.

use std::sync::Arc;

use super::server_parts::ServerParts;
use super::{Service, StartError};
use crate::admin::AdminAccess;
use crate::clock::{Clock, UnixMillis};
use crate::config::Config;
use crate::journal::disk::Disk;
use crate::metrics::Metrics;
use crate::server::Shutdown;

/// A service without a journal. [`Preparation::open`] opens the journal.
pub struct Preparation {
    pub(super) config: Config,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shutdown: Shutdown,
    pub(super) metrics: Arc<Metrics>,
    pub(super) server_parts: ServerParts,
    pub(super) admin_access: AdminAccess,
    pub(super) started: UnixMillis,
}

impl Preparation {
    /// Prepares every component that needs neither the journal nor a listener. Reads the TLS certificate.
    pub fn new(
        config: Config,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        shutdown: Shutdown,
    ) -> Result<Preparation, StartError> {
        let metrics = Arc::new(Metrics::new());
        let server_parts = ServerParts::new(&config, disk.clone(), clock.clone(), metrics.clone())?;
        let admin_access = AdminAccess::new(config.admin.hosts.clone(), config.admin.token.clone());
        let started = clock.now();
        Ok(Preparation { config, disk, clock, shutdown, metrics, server_parts, admin_access, started })
    }

    /// Opens the journal, and prepares the components that need it. Blocks on disk I/O. If the caller runs inside a tokio runtime, a
    /// task of that runtime completes deliveries; otherwise the journal's own thread completes them.
    pub fn open(&self) -> Result<Service, StartError> {
        Service::of(self)
    }
}
