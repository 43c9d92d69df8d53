//! States of the current request on one connection, from its first byte to its response.

use tokio::time::Instant;

/// Stage of the current request on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No byte of the next request has arrived.
    Idle,
    /// A part of the request head has arrived.
    Head,
    /// The head is complete, and the body is incomplete.
    Body,
    /// The request is complete and waits for its response.
    Complete,
}

/// State of the current request on a connection, with the data that exists only in this state. Each state corresponds to one
/// [`Stage`].
///
/// ```text
/// Idle ──first byte──► Head ──head complete──► Body ──last byte──► Complete
///   ▲                                            │ response ready     │ response ready
///   └────────────────────────────────────────────┴────────────────────┘
/// ```
#[derive(Clone, Copy)]
pub(super) enum RequestState {
    Idle { until: Instant },
    Head(Arriving),
    Body(Arriving),
    Complete { until: Instant, wait: AnswerWait },
}

/// Wait for the answer to a complete request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerWait {
    /// The gateway answers at the latest at the end of the current wait.
    UntilDeadline,
    /// The deadline has passed, and the gateway answers when it is polled.
    Late,
}

/// Request of which a part has arrived.
#[derive(Clone, Copy)]
pub(super) struct Arriving {
    /// Latest time at which the request must be complete. `min_rate` may end the wait earlier.
    pub(super) until: Instant,
    /// Number of bytes that the server has received for the request.
    pub(super) received: u64,
}

impl RequestState {
    pub(super) fn stage(self) -> Stage {
        match self {
            RequestState::Idle { .. } => Stage::Idle,
            RequestState::Head(_) => Stage::Head,
            RequestState::Body(_) => Stage::Body,
            RequestState::Complete { .. } => Stage::Complete,
        }
    }

    /// Returns the latest time at which the current wait ends.
    pub(super) fn until_mut(&mut self) -> &mut Instant {
        match self {
            RequestState::Idle { until } | RequestState::Complete { until, .. } => until,
            RequestState::Head(arriving) | RequestState::Body(arriving) => &mut arriving.until,
        }
    }
}
