//! The way out: one handle that everybody may look at, and that only ever moves forward.
//!
//! `Serving → Leaving → Draining → Cut → Now`. A signal takes the first step, the server takes the others as its delays end,
//! a second signal jumps to the last.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::task::coop::unconstrained;

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
pub struct Stop(Arc<watch::Sender<Phase>>);

impl Stop {
    /// A stop that nobody has asked for yet.
    pub fn new() -> Stop {
        Stop(Arc::new(watch::Sender::new(Phase::Serving)))
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

/// Waits for the next phase, in one task. Registers once and then only looks: polling tokio's future takes a lock that many
/// connections share, and a connection's task is woken several times in a request.
pub(super) async fn next(phases: &mut watch::Receiver<Phase>) -> Phase {
    let look = phases.clone();
    let mut registered = false;
    {
        // A task that has used up its turn would not be registered.
        let mut changed = pin!(unconstrained(phases.changed()));
        poll_fn(|cx| {
            if registered && matches!(look.has_changed(), Ok(false)) {
                return Poll::Pending;
            }
            registered = true;
            changed.as_mut().poll(cx).map(drop)
        })
        .await;
    }
    *phases.borrow_and_update()
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::coop::{consume_budget, has_budget_remaining};
    use tokio::task::yield_now;

    #[tokio::test]
    async fn each_phase_is_heard_also_by_a_task_that_has_used_up_its_turn() {
        let stop = Stop::new();
        let mut phases = stop.watch();
        let waits = tokio::spawn(async move {
            let mut heard = Vec::new();
            while heard.last() != Some(&Phase::Now) {
                while has_budget_remaining() {
                    consume_budget().await;
                }
                heard.push(next(&mut phases).await);
            }
            heard
        });
        for _ in 0..2 {
            for _ in 0..10 {
                yield_now().await;
            }
            stop.signal();
        }
        assert_eq!(waits.await.expect("no panic"), [Phase::Serving, Phase::Leaving, Phase::Now]);
    }
}
