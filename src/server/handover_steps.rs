//! Steps of a hand-over of the listening sockets and the journal to another process, from the view of the process that ends.
//!
//! The service and the server take turns. The service starts the hand-over. The server stops accepting when few idle connections
//! are left, and drains the open ones. The service then completes the hand-over, so that the server ends. Until then, the service
//! can cancel it.
//!
//! ```text
//! None ──service──► Leaving ──server──► Switched ──server──► Drained ──service──► Completed
//!   ▲                  │                   │                    │
//!   └───── service ────┴───────────────────┴────────────────────┘
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Step of a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandoverStep {
    /// No hand-over is under way.
    None,
    /// The server serves as before, but each connection closes after its next response.
    Leaving,
    /// The server has stopped accepting, and the other process may accept. The server drains the open connections.
    Switched,
    /// All connections are closed.
    Drained,
    /// The server ends.
    Completed,
}

/// Current step of the hand-over.
pub struct HandoverSteps {
    step: watch::Sender<HandoverStep>,
    /// True if the other process accepts from the same socket, so that the connections in the kernel's queue are left to it.
    shares_socket: AtomicBool,
}

impl HandoverSteps {
    /// Returns true if a hand-over is under way and not complete.
    pub fn is_under_way(&self) -> bool {
        !matches!(*self.step.borrow(), HandoverStep::None | HandoverStep::Completed)
    }

    /// Waits until the hand-over has reached `step` or a later step.
    pub async fn reached(&self, step: HandoverStep) {
        self.wait_for(|now| now >= step).await;
    }

    /// Completes the hand-over, so that the server ends. Returns false, and does nothing, unless all connections are closed.
    pub fn complete(&self) -> bool {
        self.step(HandoverStep::Drained, HandoverStep::Completed)
    }

    /// Cancels the hand-over. The server then accepts connections as before, unless a shutdown has begun in the meantime. Does
    /// nothing if the hand-over is complete.
    pub fn cancel(&self) {
        self.step.send_if_modified(|now| {
            let cancels = *now != HandoverStep::Completed;
            *now = if cancels { HandoverStep::None } else { *now };
            cancels
        });
    }

    pub(super) fn begin(&self, shares_socket: bool) -> bool {
        self.shares_socket.store(shares_socket, Ordering::Release);
        self.step(HandoverStep::None, HandoverStep::Leaving)
    }

    pub(super) fn shares_socket(&self) -> bool {
        self.shares_socket.load(Ordering::Acquire)
    }

    /// Moves the hand-over from the step `from` to the step `to`. Returns false, and does nothing, if the current step is not `from`.
    pub(super) fn step(&self, from: HandoverStep, to: HandoverStep) -> bool {
        self.step.send_if_modified(|now| {
            let is_due = *now == from;
            *now = if is_due { to } else { *now };
            is_due
        })
    }

    /// Waits until the current step meets `condition`, and returns the step.
    pub(super) async fn wait_for(&self, condition: impl Fn(HandoverStep) -> bool) -> HandoverStep {
        let mut steps = self.step.subscribe();
        *steps.wait_for(|now| condition(*now)).await.expect("`self` keeps the sender alive")
    }
}

impl Default for HandoverSteps {
    fn default() -> HandoverSteps {
        HandoverSteps { step: watch::Sender::new(HandoverStep::None), shares_socket: AtomicBool::new(true) }
    }
}
