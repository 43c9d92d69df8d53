//! Starts and stops the forwarder, which sends events to Kafka, and reports the forwarder's state.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::POISON;
use crate::clock::Clock;
use crate::forward::{self, AckWatcher, Forwarder};
use crate::journal::{Journal, UnforwardedEvents};
use crate::metrics::Metrics;
use crate::units::bytes_about;

/// The running forwarder, if any, and the components that a new forwarder needs. Calls of `start`, `apply` and `stop` never
/// overlap, because each caller holds the configuration lock. These functions hold the lock of `forwarder` only to read or
/// replace the forwarder, never while a forwarder stops. Stopping a forwarder waits for Kafka, but `/metrics` and `/readyz`
/// take the lock of `forwarder` and must not wait for Kafka.
pub(super) struct Forwarding {
    /// Running forwarder; `None` if `[kafka]` is not configured, and after forwarding has stopped.
    forwarder: Mutex<Option<Forwarder>>,
    panicked: Arc<Notify>,
    /// Events that wait for a topic although there is no `[kafka]`.
    unforwarded: Mutex<Vec<UnforwardedEvents>>,
    journal: Journal,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl Forwarding {
    pub(super) fn new(journal: Journal, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Forwarding {
        let unforwarded = Mutex::new(journal.unforwarded());
        Forwarding { forwarder: Mutex::new(None), panicked: Arc::default(), unforwarded, journal, metrics, clock }
    }

    /// Starts a forwarder. Must not be called while another forwarder runs. Fails if the process cannot start a thread.
    pub(super) fn start(&self, settings: forward::Settings, watcher: Option<Arc<dyn AckWatcher>>) -> io::Result<()> {
        let panicked = self.panicked.clone();
        let on_panic = Box::new(move || panicked.notify_one());
        let (journal, metrics, clock) = (self.journal.clone(), self.metrics.clone(), self.clock.clone());
        let forwarder = forward::start(journal, settings, metrics, clock, on_panic, watcher)?;
        *self.lock() = Some(forwarder);
        Ok(())
    }

    /// Waits until the forwarder panics. Never returns if it does not.
    pub(super) async fn panicked(&self) {
        self.panicked.notified().await;
    }

    /// Applies new settings to the forwarder. Does nothing if no forwarder runs.
    pub(super) fn apply(&self, settings: forward::Settings) {
        if let Some(forwarder) = &*self.lock() {
            forwarder.reconfigure(settings);
        }
    }

    /// Gives up the events of a topic below sequence `below`.
    pub(super) fn release(&self, topic: &Arc<str>, below: u64) {
        match &*self.lock() {
            Some(forwarder) => forwarder.release(topic.clone(), below),
            None => self.journal.save_cursor(topic, below, 0),
        }
    }

    /// Stops the running forwarder, and waits up to `wait` for acknowledgements from Kafka. Does nothing if no
    /// forwarder runs.
    pub(super) fn stop(&self, wait: Duration) {
        // This is a separate statement, so that it releases the lock before the forwarder stops.
        let forwarder = self.lock().take();
        if let Some(forwarder) = forwarder {
            tracing::info!("waiting for acknowledgements from Kafka");
            forwarder.stop(wait);
        }
    }

    /// Returns the state of the forwarder and of every topic; `None` if no forwarder runs.
    pub(super) fn status(&self) -> Option<forward::Status> {
        self.lock().as_ref().map(Forwarder::status)
    }

    /// Returns the events that waited when the process started, although there is no `[kafka]`.
    pub(super) fn unforwarded(&self) -> MutexGuard<'_, Vec<UnforwardedEvents>> {
        self.unforwarded.lock().expect(POISON)
    }

    /// Updates the forwarding metrics that hookhold computes at scrape time.
    pub(super) fn measure(&self) {
        self.lock().iter().for_each(Forwarder::measure);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Forwarder>> {
        self.forwarder.lock().expect(POISON)
    }
}

/// Returns the message about events that wait for a topic although there is no `[kafka]`.
pub(super) fn unforwarded(waiting: &UnforwardedEvents) -> String {
    let UnforwardedEvents { topic, events, bytes } = waiting;
    let (count, bytes) =
        (if *events == 1 { "1 event waits".to_owned() } else { format!("{events} events wait") }, bytes_about(*bytes));
    format!(
        "{topic}: {count} for Kafka ({bytes}), but there is no [kafka] section; add [kafka] again, or give the events up \
         with `hookhold journal release {topic}`"
    )
}
