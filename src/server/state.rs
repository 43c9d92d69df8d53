//! Defines the state that all connections of a listener share.

use std::sync::Arc;

use super::outcome_log::OutcomeLog;
use super::proxies::Proxies;
use super::sender_limits::SenderLimits;
use super::tls::Tls;
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::in_flight::InFlightBudget;
use crate::limits::ServerLimits;

pub(super) struct ServerState {
    pub(super) gateway: Arc<Gateway>,
    pub(super) limits: ServerLimits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) outcomes: OutcomeLog,
    /// In-flight budget that all connections of the listener share.
    pub(super) in_flight: InFlightBudget,
    pub(super) sender_limits: Arc<SenderLimits>,
    pub(super) tls: Option<Tls>,
    pub(super) proxies: Proxies,
}
