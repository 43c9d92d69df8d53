//! Defines the state that all connections of a listener share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::Semaphore;

use super::connection_generation::ConnectionGeneration;
use super::late_gateway::LateGateway;
use super::outcome_log::OutcomeLog;
use super::proxies::Proxies;
use super::sender_limits::SenderLimits;
use super::tls::Tls;
use super::unfinished_bodies::UnfinishedBodies;
use crate::clock::Clock;
use crate::in_flight::InFlightBudget;
use crate::limits::ServerLimits;

pub(super) struct ServerState {
    pub(super) gateway: LateGateway,
    pub(super) limits: ServerLimits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) outcomes: OutcomeLog,
    /// In-flight budget that all connections of the listener share.
    pub(super) in_flight: InFlightBudget,
    /// The part of this budget that is available to senders that are not known good.
    pub(super) in_flight_unknown: InFlightBudget,
    pub(super) unfinished_bodies: UnfinishedBodies,
    /// Number of open TLS connections whose clients have sent data after the handshake.
    pub(super) used_tls_connections: AtomicUsize,
    pub(super) sender_limits: Arc<SenderLimits>,
    /// Permits for delayed answers.
    pub(super) delayed_answers: Semaphore,
    pub(super) tls: Option<Tls>,
    pub(super) proxies: Proxies,
    pub(super) generation: ConnectionGeneration,
}

impl ServerState {
    /// Returns the in-flight budget for a sender: the whole budget, or the part for unknown senders.
    pub(super) fn server_budget(&self, is_known_good: bool) -> &InFlightBudget {
        if is_known_good { &self.in_flight } else { &self.in_flight_unknown }
    }
}
