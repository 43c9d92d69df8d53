//! The senders of a connection and of its requests; behind a trusted proxy they differ.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

use super::deadline::Progress;
use super::sender_limits::SenderGuard;
use super::state::ServerState;

/// The other end of a connection, or the client that a PROXY header names.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) remote: SocketAddr,
    pub(super) sender: Arc<SenderGuard>,
    /// True if its `X-Forwarded-For` names the sender of a request.
    is_trusted_proxy: bool,
}

impl Peer {
    /// Counts a connection of this address. Returns `None` at its connection limit, which does not apply to a trusted proxy:
    /// it carries the connections of all senders.
    pub(super) fn connect(remote: SocketAddr, state: &ServerState) -> Option<Peer> {
        let (is_trusted_proxy, address) = (state.proxies.trust(remote.ip()), remote.ip());
        let sender = if is_trusted_proxy { state.sender_limits.track(address) } else { state.sender_limits.connect(address)? };
        Some(Peer { remote, sender: Arc::new(sender), is_trusted_proxy })
    }

    /// Returns true, and counts the rejection, if this peer is limited and must not start a TLS handshake.
    pub(super) fn rejects_handshake(&self) -> bool {
        !self.is_trusted_proxy && self.sender.rejects_handshake(Instant::now())
    }

    /// Counts a TLS handshake that no request followed, unless a proxy made it: the proxy did so for one of its clients.
    pub(super) fn count_unused_handshake(&self) {
        if !self.is_trusted_proxy {
            self.sender.count_unused_handshake();
        }
    }
}

/// The sender of one request, and the progress of that request.
#[derive(Clone)]
pub(super) struct RequestContext {
    /// The address that is logged, stored and limited.
    pub(super) remote: SocketAddr,
    pub(super) sender: Arc<SenderGuard>,
    pub(super) progress: Arc<Progress>,
    pub(super) is_trusted_proxy: bool,
}

impl RequestContext {
    pub(super) fn new(peer: Peer, state: &ServerState) -> RequestContext {
        let Peer { remote, sender, is_trusted_proxy } = peer;
        RequestContext { remote, sender, progress: Progress::new(state.clock.clone(), &state.limits), is_trusted_proxy }
    }

    /// Replaces the address of a trusted proxy by the client that it forwards the request for.
    pub(super) fn apply_forwarded_for(&mut self, state: &ServerState, headers: &HeaderMap) {
        let client = state.proxies.client(self.remote, headers);
        if client != self.remote {
            self.remote = client;
            self.sender = Arc::new(state.sender_limits.track(client.ip()));
        }
    }
}
