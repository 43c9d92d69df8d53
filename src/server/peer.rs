//! The other end of a connection, and where one of its requests came from.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

use super::deadline::Progress;
use super::sender_limits::SenderGuard;
use super::state::ServerState;

/// The other end of a connection, or for whom it speaks.
#[derive(Clone)]
pub(super) struct Peer {
    pub remote: SocketAddr,
    pub visit: Arc<SenderGuard>,
    /// Its forwarding headers are believed.
    trusted: bool,
}

impl Peer {
    /// `None` when the address has as many connections as it may have. A trusted proxy may have any number: it brings those
    /// of everybody.
    pub(super) fn connect(remote: SocketAddr, desk: &ServerState) -> Option<Peer> {
        let (trusted, address) = (desk.proxies.trust(remote.ip()), remote.ip());
        let visit = if trusted { desk.strangers.visit(address) } else { desk.strangers.connect(address)? };
        Some(Peer { remote, visit: Arc::new(visit), trusted })
    }

    /// True when its connection is not worth a TLS handshake at this moment.
    pub(super) fn is_turned_away(&self) -> bool {
        !self.trusted && self.visit.is_turned_away(Instant::now())
    }

    /// Its TLS handshake was for nothing. A proxy's are not its own fault.
    pub(super) fn came_for_nothing(&self) {
        if !self.trusted {
            self.visit.came_for_nothing();
        }
    }
}

/// Where a request came from and how far it has come.
#[derive(Clone)]
pub(super) struct Caller {
    /// The address that counts: it is logged, kept and limited.
    pub remote: SocketAddr,
    pub visit: Arc<SenderGuard>,
    pub progress: Arc<Progress>,
    pub trusted: bool,
}

impl Caller {
    pub(super) fn new(peer: Peer, desk: &ServerState) -> Caller {
        let Peer { remote, visit, trusted } = peer;
        Caller { remote, visit, progress: Progress::new(desk.clock.clone(), &desk.limits), trusted }
    }

    /// Becomes the one for whom a trusted proxy has sent this request.
    pub(super) fn look_behind(&mut self, desk: &ServerState, headers: &HeaderMap) {
        let client = desk.proxies.client(self.remote, headers);
        if client != self.remote {
            self.remote = client;
            self.visit = Arc::new(desk.strangers.visit(client.ip()));
        }
    }
}
