//! Shares the shutdown phase of the process with its tasks, and the steps of a hand-over to another process.
//!
//! The phases of the process are `Serving → Leaving → Draining → Cut → Now`. The first shutdown signal starts `Leaving`. The
//! server starts `Draining` after `drain_delay`, and `Cut` after a further `drain_deadline`. A second signal starts `Now`
//! immediately. A hand-over passes through the same phases. Only a cancelled hand-over returns to `Serving`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::watch;

use super::handover_steps::HandoverSteps;

/// Phase of the shutdown of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The process has received no shutdown signal, and no hand-over is under way.
    Serving,
    /// The server still accepts every connection and serves every request. Each connection closes after its next response, so that
    /// few idle connections are left when the drain closes them. After a shutdown signal, `/readyz` returns 503, so that load
    /// balancers stop using this process.
    Leaving,
    /// The server accepts no connection, and each open connection closes after its next response or when it is idle.
    Draining,
    /// The drain deadline has passed. The server ends each incomplete request with the outcome `draining`.
    Cut,
    /// A second signal has arrived, and the process exits immediately.
    Now,
}

/// Handle to the shutdown phase of the process. A clone is cheap and refers to the same phase.
#[derive(Clone)]
pub struct Shutdown(Arc<ShutdownState>);

struct ShutdownState {
    phase: watch::Sender<Phase>,
    /// True after the first shutdown signal.
    signalled: watch::Sender<bool>,
    handover: HandoverSteps,
}

impl Shutdown {
    /// Creates a handle whose phase is [`Phase::Serving`].
    pub fn new() -> Shutdown {
        let (phase, signalled) = (watch::Sender::new(Phase::Serving), watch::Sender::new(false));
        Shutdown(Arc::new(ShutdownState { phase, signalled, handover: HandoverSteps::default() }))
    }

    /// Starts the shutdown. A second call moves the shutdown to [`Phase::Now`]. The caller must call this function once
    /// for each shutdown signal that the process receives.
    pub fn signal(&self) {
        let is_second = self.0.signalled.send_replace(true);
        self.advance(if is_second { Phase::Now } else { Phase::Leaving });
    }

    /// Returns true if the process has received a shutdown signal.
    pub fn begun(&self) -> bool {
        *self.0.signalled.borrow()
    }

    /// Waits until the process has received a shutdown signal.
    pub(super) async fn signalled(&self) {
        let signalled = self.0.signalled.subscribe().wait_for(|signalled| *signalled).await.map(|_| ());
        signalled.expect(ALIVE);
    }

    /// Waits until the shutdown has reached `phase` or a later phase.
    pub async fn reached(&self, phase: Phase) {
        let reached = self.0.phase.subscribe().wait_for(|now| *now >= phase).await.map(|_| ());
        reached.expect(ALIVE);
    }

    /// Returns the steps of the hand-over to another process.
    pub fn handover(&self) -> &HandoverSteps {
        &self.0.handover
    }

    /// Starts a hand-over. `shares_socket` is true if the other process accepts from the same socket. Returns false, and does
    /// nothing, if another hand-over is under way or a shutdown has begun.
    pub fn begin_handover(&self, shares_socket: bool) -> bool {
        let begins = !self.begun() && self.0.handover.begin(shares_socket);
        if begins {
            self.advance(Phase::Leaving);
        }
        begins
    }

    /// Returns to [`Phase::Serving`] after a hand-over was cancelled. If a shutdown has begun in the meantime, returns to
    /// [`Phase::Leaving`]. The server calls this function, because it is the only one that starts [`Phase::Draining`].
    pub(super) fn resume(&self) {
        self.0.phase.send_if_modified(|now| {
            let returns = *now < Phase::Now;
            if returns {
                *now = if self.begun() { Phase::Leaving } else { Phase::Serving };
            }
            returns
        });
    }

    /// Moves the shutdown to `phase`. Does nothing if the shutdown has already reached `phase` or a later phase.
    pub(super) fn advance(&self, phase: Phase) {
        self.0.phase.send_if_modified(|now| {
            let forward = *now < phase;
            *now = phase.max(*now);
            forward
        });
    }

    /// Returns a receiver of shutdown phases for one connection. The receiver reports the current phase as its first
    /// change.
    pub(super) fn watch(&self) -> watch::Receiver<Phase> {
        let mut phases = self.0.phase.subscribe();
        phases.mark_changed();
        phases
    }
}
/// Waits for the next change, and returns the new phase. A connection polls this future several times for each request, so a repeated
/// poll takes no lock until the channel has woken it.
pub(super) async fn next_phase(phases: &mut watch::Receiver<Phase>) -> Phase {
    {
        let (mut changed, mut waiting) = (pin!(phases.changed()), None::<Arc<PhaseWake>>);
        poll_fn(|cx| {
            let is_waiting = |wake: &Arc<PhaseWake>| wake.task.will_wake(cx.waker()) && !wake.is_due.load(Ordering::Acquire);
            if waiting.as_ref().is_some_and(is_waiting) {
                return Poll::Pending;
            }
            // The channel may wake the task although the phase is the same, and then no longer knows the task. It must therefore be
            // polled again after each wake.
            let wake = waiting.insert(Arc::new(PhaseWake { task: cx.waker().clone(), is_due: AtomicBool::new(false) }));
            changed.as_mut().poll(&mut Context::from_waker(&wake.clone().into())).map(drop)
        })
        .await;
    }
    *phases.borrow_and_update()
}

/// Waker of a task that waits for the next phase.
struct PhaseWake {
    task: Waker,
    /// True if the channel has woken the task.
    is_due: AtomicBool,
}

impl Wake for PhaseWake {
    fn wake(self: Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}

const ALIVE: &str = "this handle itself keeps the sender alive";

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::coop::consume_budget;
    use tokio::task::yield_now;

    #[tokio::test]
    async fn a_wake_without_a_change_loses_no_later_change() {
        let shutdown = Shutdown::new();
        let mut phases = shutdown.watch();
        assert_eq!(next_phase(&mut phases).await, Phase::Serving);
        let mut next = pin!(next_phase(&mut phases));
        let task = Arc::new(PhaseWake { task: Waker::noop().clone(), is_due: AtomicBool::new(false) });
        let waker = Waker::from(task.clone());
        let mut poll = || next.as_mut().poll(&mut Context::from_waker(&waker));
        // With its budget used up, the task is woken soon, and the channel does not know it.
        poll_fn(|cx| {
            while pin!(consume_budget()).poll(cx).is_ready() {}
            assert!(poll().is_pending());
            Poll::Ready(())
        })
        .await;
        yield_now().await;
        assert!(task.is_due.swap(false, Ordering::AcqRel));
        assert!(poll().is_pending());
        assert!(!task.is_due.load(Ordering::Acquire), "the task waits");
        shutdown.signal();
        assert!(task.is_due.load(Ordering::Acquire), "the change wakes the task");
        assert_eq!(poll(), Poll::Ready(Phase::Leaving));
    }
}
