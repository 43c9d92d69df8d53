//! Defines how long a connection may stay open without a request.
//!
//! A proxy sends requests on idle connections of its pool. If such a request crosses the close of its connection, the proxy
//! cannot know whether hookhold has received the request, so it does not send a POST request again, and the delivery fails.
//! A proxy must therefore close its connections before hookhold does. The connections of an unknown sender close earlier, because
//! any client can open them.

use std::time::Duration;

use crate::limits::ServerLimits;

/// Time for which a connection that takes charged memory stays open without a request, if its sender is unknown. Otherwise, idle
/// connections could use up the in-flight budget.
pub(super) const GROWN_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Memory of a connection, as [`super::connection_charge`] charges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionGrowth {
    /// The connection has never taken charged memory.
    Usual,
    /// The connection takes charged memory, or has done so.
    Grown,
}

/// Idle timeouts of the connections of a listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleTimeouts {
    unknown: Duration,
    trusted: Duration,
    /// Time within which an unknown sender must start the first request of a connection.
    first: Duration,
}

impl IdleTimeouts {
    pub(super) fn new(limits: &ServerLimits) -> IdleTimeouts {
        let ServerLimits { idle_timeout, trusted_idle_timeout, request_deadline, .. } = *limits;
        IdleTimeouts { unknown: idle_timeout, trusted: trusted_idle_timeout, first: idle_timeout.min(request_deadline) }
    }

    /// Returns the time within which a new connection must start its first request. The pool of a proxy may contain connections
    /// that have not carried a request, so a trusted peer has as much time as between two requests.
    pub(super) fn before_first_request(&self, is_trusted: bool) -> Duration {
        if is_trusted { self.trusted } else { self.first }
    }

    /// Returns the time for which a connection stays open between two requests.
    pub(super) fn between_requests(&self, is_trusted: bool) -> Duration {
        if is_trusted { self.trusted } else { self.unknown }
    }
}
