//! What every connection of a listener shares.

use std::sync::Arc;

use super::body::Budget;
use super::outcome_log::Tallies;
use super::proxies::Proxies;
use super::sender_limits::SenderLimits;
use super::tls::Tls;
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::limits::ServerLimits;

/// What every request needs.
pub(super) struct ServerState {
    pub gateway: Arc<Gateway>,
    pub limits: ServerLimits,
    pub clock: Arc<dyn Clock>,
    pub tallies: Tallies,
    pub budget: Budget,
    pub strangers: Arc<SenderLimits>,
    pub tls: Option<Tls>,
    pub proxies: Proxies,
}
