//! The gateway of a listener, which may come later than the first connections.
//!
//! After a hand-over, a process accepts connections before it has opened the journal. Until then there is no gateway, so each request
//! waits for it, up to the deadline of its source. Only the configuration of the sources is known.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::gateway::Gateway;
use crate::source::Source;

/// Gateway that receives the deliveries of a listener. A clone is cheap and refers to the same gateway.
#[derive(Clone)]
pub struct LateGateway(Arc<GatewayPlace>);

struct GatewayPlace {
    gateway: OnceLock<Arc<Gateway>>,
    has_come: watch::Sender<bool>,
    /// Sources of the expected gateway.
    sources: Vec<Arc<Source>>,
}

impl LateGateway {
    /// Creates a place for a gateway that will have these sources.
    pub fn expected(sources: Vec<Arc<Source>>) -> LateGateway {
        LateGateway(Arc::new(GatewayPlace { gateway: OnceLock::new(), has_come: watch::Sender::new(false), sources }))
    }

    /// Sets the gateway, to which all waiting requests continue. Only the first call has an effect.
    pub fn set(&self, gateway: Arc<Gateway>) {
        let _ = self.0.gateway.set(gateway);
        self.0.has_come.send_replace(true);
    }

    /// Returns the gateway; `None` if it has not come yet.
    pub(super) fn get(&self) -> Option<&Arc<Gateway>> {
        self.0.gateway.get()
    }

    /// Waits for the gateway.
    pub(super) async fn wait(&self) -> &Arc<Gateway> {
        let come = self.0.has_come.subscribe().wait_for(|has_come| *has_come).await.map(|_| ());
        come.expect("`self` keeps the sender alive");
        self.get().expect("the gateway is set before it is announced")
    }

    /// Returns the time from the first byte of a request to this path until its answer is due, but at most `max`.
    pub(super) fn expected_deadline(&self, path: &str, max: Duration) -> Duration {
        let source = self.0.sources.iter().find(|source| source.path == path);
        source.map_or(max, |source| source.deadline.min(max))
    }

    /// Returns true if a source lists this address in `allow_from`.
    pub(super) fn lists_sender(&self, address: IpAddr) -> bool {
        match self.get() {
            Some(gateway) => gateway.lists_sender(address),
            None => {
                let address = address.to_canonical();
                let mut networks = self.0.sources.iter().flat_map(|source| &source.clients.allow_from);
                networks.any(|network| network.contains(&address))
            }
        }
    }
}

impl From<Arc<Gateway>> for LateGateway {
    fn from(gateway: Arc<Gateway>) -> LateGateway {
        let late = LateGateway::expected(Vec::new());
        late.set(gateway);
        late
    }
}
