//! Shares the shutdown phase of the process. The phase only moves forward.
//!
//! The phases are `Serving → Leaving → Draining → Cut → Now`. The first signal starts `Leaving`. The server starts
//! `Draining` and `Cut` when its delays have passed. A second signal starts `Now` immediately.

use std::sync::Arc;

use tokio::sync::watch;

/// Phase of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No shutdown has been requested.
    Serving,
    /// `/readyz` returns 503, so that load balancers stop using this process. The server still accepts every connection
    /// and serves every request.
    Leaving,
    /// The listener is closed, and each open connection closes after its next response.
    Draining,
    /// The drain deadline has passed, and the server answers incomplete requests with `draining`.
    Cut,
    /// A second signal has arrived, and the process exits immediately.
    Now,
}

/// A cheap handle to the shutdown of the process.
#[derive(Clone)]
pub struct Shutdown(Arc<watch::Sender<Phase>>);

impl Shutdown {
    /// Creates a handle at [`Phase::Serving`].
    pub fn new() -> Shutdown {
        Shutdown(Arc::new(watch::Sender::new(Phase::Serving)))
    }

    /// Starts the shutdown. A second call moves to [`Phase::Now`]. Must be called once per signal.
    pub fn signal(&self) {
        self.advance(if self.begun() { Phase::Now } else { Phase::Leaving });
    }

    /// True after the first signal.
    pub fn begun(&self) -> bool {
        *self.0.borrow() > Phase::Serving
    }

    /// Waits until the shutdown has reached `phase`.
    pub async fn reached(&self, phase: Phase) {
        let reached = self.0.subscribe().wait_for(|now| *now >= phase).await.map(|_| ());
        reached.expect("this handle itself keeps the sender alive");
    }

    /// Moves forward to `phase`. Ignores an earlier phase.
    pub(super) fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = *now < phase;
            *now = phase.max(*now);
            forward
        });
    }

    /// Returns a receiver for one connection. The receiver reports the current phase as its first change.
    pub(super) fn watch(&self) -> watch::Receiver<Phase> {
        let mut phases = self.0.subscribe();
        phases.mark_changed();
        phases
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}
