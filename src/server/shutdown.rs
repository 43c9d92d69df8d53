//! Shares the shutdown phase of the process with its tasks. The process never returns to an earlier phase.
//!
//! The phases of the process are `Serving → Leaving → Draining → Cut → Now`. The first shutdown signal starts `Leaving`. The
//! server starts `Draining` after `drain_delay`, and `Cut` after a further `drain_deadline`. A second signal starts `Now`
//! immediately.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::sync::watch;

/// Phase of the shutdown of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The process has received no shutdown signal.
    Serving,
    /// `/readyz` returns 503, so that load balancers stop using this process. The server still accepts every connection
    /// and serves every request.
    Leaving,
    /// The listener is closed, and each open connection closes after its next response.
    Draining,
    /// The drain deadline has passed. The server ends each incomplete request with the outcome `draining`.
    Cut,
    /// A second signal has arrived, and the process exits immediately.
    Now,
}

/// Handle to the shutdown phase of the process. A clone is cheap and refers to the same phase.
#[derive(Clone)]
pub struct Shutdown(Arc<watch::Sender<Phase>>);

impl Shutdown {
    /// Creates a handle whose phase is [`Phase::Serving`].
    pub fn new() -> Shutdown {
        Shutdown(Arc::new(watch::Sender::new(Phase::Serving)))
    }

    /// Starts the shutdown. A second call moves the shutdown to [`Phase::Now`]. The caller must call this function once
    /// for each shutdown signal that the process receives.
    pub fn signal(&self) {
        self.advance(if self.begun() { Phase::Now } else { Phase::Leaving });
    }

    /// Returns true if the process has received a shutdown signal.
    pub fn begun(&self) -> bool {
        *self.0.borrow() > Phase::Serving
    }

    /// Waits until the shutdown has reached `phase` or a later phase.
    pub async fn reached(&self, phase: Phase) {
        let reached = self.0.subscribe().wait_for(|now| *now >= phase).await.map(|_| ());
        reached.expect("this handle itself keeps the sender alive");
    }

    /// Moves the shutdown to `phase`. Does nothing if the shutdown has already reached `phase` or a later phase.
    pub(super) fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = *now < phase;
            *now = phase.max(*now);
            forward
        });
    }

    /// Returns a receiver of shutdown phases for one connection. The receiver reports the current phase as its first
    /// change.
    pub(super) fn watch(&self) -> watch::Receiver<Phase> {
        let mut phases = self.0.subscribe();
        phases.mark_changed();
        phases
    }
}

/// Waits for the next change, and returns the new phase. A connection polls this future several times for each request, so a repeated
/// poll takes no lock while the phase stays the same.
pub(super) async fn next_phase(phases: &mut watch::Receiver<Phase>) -> Phase {
    let (probe, mut waiting) = (phases.clone(), None::<Waker>);
    {
        let mut changed = pin!(phases.changed());
        poll_fn(|cx| {
            let is_waiting = waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if is_waiting && probe.has_changed().is_ok_and(|changed| !changed) {
                return Poll::Pending;
            }
            waiting = Some(cx.waker().clone());
            changed.as_mut().poll(cx).map(drop)
        })
        .await;
    }
    *phases.borrow_and_update()
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}
