//! The shutdown of the process, as one shared value that only moves forward.
//!
//! `Serving → Leaving → Draining → Cut → Now`. A signal takes the first step, the server takes the others as its delays end,
//! and a second signal jumps to the last.

use std::sync::Arc;

use tokio::sync::watch;

/// Progress of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No shutdown has been requested.
    Serving,
    /// `/readyz` is 503, but every request and every new connection is still served, so that load balancers can move away.
    Leaving,
    /// The listener is closed; open connections are served with `Connection: close`.
    Draining,
    /// The drain deadline has passed: incomplete requests are answered `draining`.
    Cut,
    /// A second signal arrived: the process exits at once.
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

    /// True from the first signal on.
    pub fn begun(&self) -> bool {
        *self.0.borrow() > Phase::Serving
    }

    /// Waits until the shutdown has reached `phase`.
    pub async fn reached(&self, phase: Phase) {
        let reached = self.0.subscribe().wait_for(|now| *now >= phase).await.map(|_| ());
        reached.expect("this handle itself keeps the sender alive");
    }

    /// Moves forward to `phase`; a step back is ignored.
    pub(super) fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = *now < phase;
            *now = phase.max(*now);
            forward
        });
    }

    /// Returns a receiver for one connection, which reports the current phase as its first change.
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
