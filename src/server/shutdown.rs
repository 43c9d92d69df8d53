//! The way out: one handle that everybody may look at, and that only ever moves forward.
//!
//! `Serving → Leaving → Draining → Cut → Now`. A signal takes the first step, the server takes the others as its delays end,
//! a second signal jumps to the last.

use std::sync::Arc;

use tokio::sync::watch;

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No stop has been asked for.
    Serving,
    /// Not ready any more, but everything is still served, new connections too: balancers are moving away.
    Leaving,
    /// The listener is closed; open connections are served with `Connection: close`.
    Draining,
    /// The drain deadline is over: what is still incomplete is answered `draining`.
    Cut,
    /// A second signal: nothing is waited for.
    Now,
}

/// A cheap handle to the process's stop.
#[derive(Clone)]
pub struct Shutdown(Arc<watch::Sender<Phase>>);

impl Shutdown {
    /// A stop that nobody has asked for yet.
    pub fn new() -> Shutdown {
        Shutdown(Arc::new(watch::Sender::new(Phase::Serving)))
    }

    /// Begins the stop; the second call ends it at once. Call it once per signal.
    pub fn signal(&self) {
        self.advance(if self.begun() { Phase::Now } else { Phase::Leaving });
    }

    /// True from the first signal on.
    pub fn begun(&self) -> bool {
        *self.0.borrow() > Phase::Serving
    }

    /// Waits until the stop has come as far as `phase`.
    pub async fn reached(&self, phase: Phase) {
        let reached = self.0.subscribe().wait_for(|now| *now >= phase).await.map(|_| ());
        reached.expect("this handle itself keeps the sender alive");
    }

    /// Takes the next step; a step back is ignored.
    pub(super) fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = *now < phase;
            *now = phase.max(*now);
            forward
        });
    }

    /// A connection's own view; it reports the present phase as its first change.
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
