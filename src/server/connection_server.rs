//! Serves single connections that the caller provides, without a listener. The fuzz targets use it with in-memory streams.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::peer::Peer;
use super::shutdown::Shutdown;
use super::state::ServerState;
use super::{Server, http1, http2};

/// Server of connections whose TLS handshake, if any, is complete. All its connections share their limits.
pub struct ConnectionServer {
    state: Arc<ServerState>,
    shutdown: Shutdown,
}

impl ConnectionServer {
    /// Creates a server that `shutdown` drains.
    pub fn new(server: Server, shutdown: Shutdown) -> ConnectionServer {
        ConnectionServer { state: server.into_state(), shutdown }
    }

    /// Serves one HTTP/1.1 connection from the client `remote` until it is closed. Returns immediately if the address has
    /// reached its connection limit.
    pub async fn serve_http_1<S>(&self, stream: S, remote: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        if let Some(peer) = Peer::connect(remote, &self.state) {
            http1::serve(stream, peer, self.state.clone(), self.shutdown.watch()).await;
        }
    }

    /// Serves one HTTP/2 connection from the client `remote` until it is closed. Returns immediately if the address has
    /// reached its connection limit.
    pub async fn serve_http_2<S>(&self, stream: S, remote: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Some(peer) = Peer::connect(remote, &self.state) {
            http2::serve(stream, peer, self.state.clone(), self.shutdown.watch()).await;
        }
    }
}
