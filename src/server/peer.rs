//! Identifies the peer of a connection and the sender of each request. If the peer is a trusted proxy, the peer and the
//! sender have different addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

use super::connection_slot::EvictableStream;
use super::deadline::Progress;
use super::sender_limits::SenderGuard;
use super::state::ServerState;
use crate::client_certificate::ClientCertificate;
use crate::work_turns::WorkKind;

/// Remote end of a connection, or the client named in the connection's PROXY header.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) remote: SocketAddr,
    pub(super) sender: Arc<SenderGuard>,
    /// Certificate that the peer has presented in its TLS handshake.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// True if the peer is a trusted proxy, whose `X-Forwarded-For` names the sender of each request.
    is_trusted_proxy: bool,
}

impl Peer {
    /// Gives a place to a connection from `remote`, and returns the peer. Returns `None` if the address is at its connection limit
    /// and none of its connections can make room. A trusted proxy has no connection limit, because its connections carry the
    /// requests of all its clients.
    pub(super) fn connect(remote: SocketAddr, state: &ServerState) -> Option<Peer> {
        let (is_trusted_proxy, address) = (state.proxies.trust(remote.ip()), remote.ip());
        let sender = match is_trusted_proxy {
            true => state.sender_limits.connect_proxy(address),
            false => state.sender_limits.connect(address, state.gateway.lists_sender(address))?,
        };
        Some(Peer { remote, sender: Arc::new(sender), certificate: None, is_trusted_proxy })
    }

    /// Returns the connection of this peer as a stream whose reads fail once hookhold has evicted the connection.
    pub(super) fn evictable<S>(&self, stream: S) -> EvictableStream<S> {
        EvictableStream::new(stream, self.sender.slot().cloned())
    }

    /// Returns true if idle connections of this peer stay open for `trusted_idle_timeout`: the peer is a trusted proxy, or
    /// hookhold has recently stored a delivery from its address.
    pub(super) fn is_trusted(&self, now: Instant) -> bool {
        self.is_trusted_proxy || self.sender.has_delivered(now)
    }

    /// Returns true if hookhold may perform a TLS handshake with this peer only in a turn. Counts the handshake in the pace of its
    /// address. A trusted proxy is exempt, because it connects on behalf of its clients.
    pub(super) fn limits_handshake(&self) -> bool {
        let now = Instant::now();
        if !self.is_trusted_proxy {
            self.sender.count_handshake(now);
        }
        !self.is_trusted_proxy && self.sender.needs_turn(WorkKind::Handshake, now)
    }

    /// Charges this peer's address with an unused TLS handshake (no request followed it). A trusted proxy is exempt,
    /// because it connects on behalf of its clients.
    pub(super) fn count_unused_handshake(&self) {
        if !self.is_trusted_proxy {
            self.sender.count_unused_handshake();
        }
    }
}

/// Sender of one request, and the progress of that request.
#[derive(Clone)]
pub(super) struct RequestContext {
    /// Address of the sender, for logs, stored events and limits.
    pub(super) remote: SocketAddr,
    pub(super) sender: Arc<SenderGuard>,
    pub(super) progress: Arc<Progress>,
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    pub(super) is_trusted_proxy: bool,
}

impl RequestContext {
    /// Creates the context of a connection. The peer counts as the sender of its requests until
    /// [`RequestContext::apply_forwarded_for`] finds another one.
    pub(super) fn new(peer: Peer, state: &ServerState) -> RequestContext {
        let progress = Progress::new(state.clock.clone(), &state.limits, peer.is_trusted(Instant::now()));
        let Peer { remote, sender, certificate, is_trusted_proxy } = peer;
        RequestContext { remote, sender, progress, certificate, is_trusted_proxy }
    }

    /// Returns true if the connection of this request stays open for `trusted_idle_timeout` after the request.
    pub(super) fn is_trusted(&self, now: Instant) -> bool {
        self.is_trusted_proxy || self.sender.has_delivered(now)
    }

    /// Replaces the address of a trusted proxy with the address of the client whose request the proxy forwards. Must precede the
    /// limits on the request.
    pub(super) fn apply_forwarded_for(&mut self, state: &ServerState, headers: &HeaderMap) {
        if !self.is_trusted_proxy {
            return;
        }
        let client = state.proxies.client(self.remote, headers);
        if client != self.remote {
            self.remote = client;
            let is_listed = state.gateway.lists_sender(client.ip());
            self.sender = Arc::new(state.sender_limits.track(client.ip(), is_listed));
        }
    }
}
