//! The owner of the forwarder: starts, replaces and stops it, and answers questions about it meanwhile.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{LAST_ACKNOWLEDGEMENTS, POISON};
use crate::clock::Clock;
use crate::forward::{self, Forwarder};
use crate::journal::Journal;
use crate::metrics::Metrics;

/// The forwarder, and what a new one is made of.
///
/// The caller makes sure, by holding the lock of the configuration, that no two of `start`, `apply` and `stop` overlap. The
/// lock in here is held only to look at the forwarder or to exchange it, never while one stops: a stop waits for Kafka, and
/// `/metrics` and `/readyz` must not.
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

    /// Starts a forwarder. There must be none.
    pub(super) fn start(&self, settings: forward::Settings) {
        let forwarder = forward::start(self.journal.clone(), settings, self.metrics.clone(), self.clock.clone());
        *self.lock() = Some(forwarder);
    }

    /// Puts other settings into force. A change that needs another Kafka client stops the forwarder, which waits for
    /// acknowledgements, and starts another. Does nothing where there is no forwarder.
    pub(super) fn apply(&self, settings: forward::Settings) {
        let Some(Err(settings)) = self.lock().as_ref().map(|forwarder| forwarder.reconfigure(settings)) else { return };
        self.stop(LAST_ACKNOWLEDGEMENTS);
        self.start(settings);
    }

    /// Stops the forwarder, if there is one, waiting up to `wait` for acknowledgements.
    pub(super) fn stop(&self, wait: Duration) {
        // A binding of its own: the lock must be free before the forwarder stops.
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
