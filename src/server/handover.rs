//! The server's part in a hand-over: it waits until few idle connections are left, stops accepting, and drains the open connections.
//!
//! The listening socket stays open, so that the server can accept again if the hand-over is cancelled. The other process accepts
//! from the same socket, so the connections in the kernel's queue are not lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio::{join, select};

use super::drain;
use super::handover_steps::HandoverStep;
use super::known_senders::KnownSenders;
use super::shutdown::{Phase, Shutdown};
use super::state::ServerState;

/// Waits until a hand-over is under way, and all connections from before its start are closed. Idle connections delay the hand-over
/// by no more than `drain_delay`.
pub(super) async fn wait_for_switch(state: &ServerState, shutdown: &Shutdown, known_senders: &KnownSenders) {
    let steps = shutdown.handover();
    loop {
        steps.wait_for(|step| step == HandoverStep::Leaving).await;
        // The other process reads the file with the known senders when it starts to accept.
        let leave = async { join!(timeout(state.limits.drain_delay, state.generation.end()), known_senders.save_at_end()) };
        select! {
            _ = leave => return,
            _ = steps.wait_for(|step| step != HandoverStep::Leaving) => shutdown.resume(),
        }
    }
}

/// Drains the open connections for the other process, which accepts new ones. Returns at the end of the hand-over:
/// [`HandoverStep::Completed`], or [`HandoverStep::None`] if it was cancelled.
pub(super) async fn drain_for_successor(
    state: &Arc<ServerState>,
    connections: &mut JoinSet<()>,
    shutdown: &Shutdown,
) -> HandoverStep {
    let steps = shutdown.handover();
    let ended = || steps.wait_for(|step| matches!(step, HandoverStep::None | HandoverStep::Completed));
    let drained = async {
        if steps.step(HandoverStep::Leaving, HandoverStep::Switched) {
            shutdown.advance(Phase::Draining);
            drain(state, connections, shutdown, HANDOVER_DRAIN).await;
            steps.step(HandoverStep::Switched, HandoverStep::Drained);
        }
        ended().await
    };
    let end = select! {
        biased;
        _ = steps.wait_for(|step| step == HandoverStep::None) => HandoverStep::None,
        end = drained => end,
    };
    if end == HandoverStep::None {
        shutdown.resume();
        state.gateway.get().into_iter().for_each(|gateway| gateway.cancel_drain());
    }
    end
}

/// Time limit for the requests that are open when the other process starts to accept. Their senders wait for this process, and the
/// other process holds new deliveries until then. Some of these must be answered within 2.4 s.
const HANDOVER_DRAIN: Duration = Duration::from_secs(1);
