//! Owns the forwarder: starts, replaces and stops it, and reports its state meanwhile.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{LAST_ACKNOWLEDGEMENTS, POISON};
use crate::clock::Clock;
use crate::forward::{self, Forwarder};
use crate::journal::Journal;
use crate::metrics::Metrics;

/// The forwarder, and the parts that a new forwarder needs.
///
/// The caller holds the lock of the configuration, so `start`, `apply` and `stop` never overlap. The lock of `forwarder` is
/// held only to read or exchange the forwarder, never during its stop: a stop waits for Kafka, while `/metrics` and
/// `/readyz` must not wait.
pub(super) struct Forwarding {
    /// `None` without `[kafka]`, while the Kafka client is replaced, and after a stop.
    forwarder: Mutex<Option<Forwarder>>,
    journal: Journal,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl Forwarding {
    pub(super) fn new(journal: Journal, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Forwarding {
        Forwarding { forwarder: Mutex::new(None), journal, metrics, clock }
    }

    /// Starts a forwarder. Must not be called while one runs.
    pub(super) fn start(&self, settings: forward::Settings) {
        let forwarder = forward::start(self.journal.clone(), settings, self.metrics.clone(), self.clock.clone());
        *self.lock() = Some(forwarder);
    }

    /// Applies other settings. A change that needs another Kafka client stops the forwarder, which waits for
    /// acknowledgements, and starts another. Does nothing without a forwarder.
    pub(super) fn apply(&self, settings: forward::Settings) {
        let Some(Err(settings)) = self.lock().as_ref().map(|forwarder| forwarder.reconfigure(settings)) else { return };
        self.stop(LAST_ACKNOWLEDGEMENTS);
        self.start(settings);
    }

    /// Stops the forwarder, if there is one, waiting up to `wait` for acknowledgements.
    pub(super) fn stop(&self, wait: Duration) {
        // A separate statement, so that the lock is released before the forwarder stops.
        let forwarder = self.lock().take();
        if let Some(forwarder) = forwarder {
            tracing::info!("waiting for acknowledgements from Kafka");
            forwarder.stop(wait);
        }
    }

    /// Returns the state of every topic; `None` while there is no forwarder.
    pub(super) fn status(&self) -> Option<forward::Status> {
        self.lock().as_ref().map(Forwarder::status)
    }

    /// Updates the metrics that are computed at scrape time.
    pub(super) fn measure(&self) {
        self.lock().iter().for_each(Forwarder::measure);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Forwarder>> {
        self.forwarder.lock().expect(POISON)
    }
}
