//! Charges the memory of a connection beyond that of an idle one to the in-flight budgets.
//!
//! A connection takes little memory until its peer makes a buffer or a table grow: with a large frame, an incomplete request head,
//! many concurrent streams, or responses that the peer does not read. This memory exists even if no request is complete, so that no
//! request could be charged with it. The connections of trusted peers are exempt: their memory is limited by the connections that
//! they open, and an attacker must not be able to close them.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Instant;

use super::peer::Peer;
use super::state::ServerState;
use crate::in_flight::{RequestMemory, ResizableCharge};
use crate::outcome::Outcome;

/// Error of a connection whose memory exceeds an in-flight budget. The value is the outcome of the request that is arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection: expected to fit into max_in_flight and max_in_flight_per_address, found no room; raise the exceeded limit")]
pub(super) struct OverBudget(pub(super) Outcome);

impl OverBudget {
    /// Returns this error if it has ended a connection.
    pub(super) fn cause_of(error: &(dyn Error + 'static)) -> Option<OverBudget> {
        let of_io = |error: &io::Error| error.get_ref()?.downcast_ref().copied();
        let own = error.downcast_ref::<io::Error>().and_then(of_io);
        own.or_else(|| OverBudget::cause_of(error.source()?))
    }
}

impl From<OverBudget> for io::Error {
    fn from(error: OverBudget) -> io::Error {
        io::Error::new(io::ErrorKind::QuotaExceeded, error)
    }
}

/// Guard that counts a TLS connection whose client has sent data after the handshake.
pub(super) struct UsedConnection {
    state: Arc<ServerState>,
    /// Memory of the connection's buffers and tables in bytes; 0 for the first connections.
    bytes: usize,
}

impl UsedConnection {
    pub(super) fn new(state: &Arc<ServerState>) -> UsedConnection {
        let others = state.used_tls_connections.fetch_add(1, Relaxed);
        UsedConnection { state: state.clone(), bytes: if others < FREE_CONNECTIONS { 0 } else { USED_BYTES } }
    }

    /// Returns the number of bytes to charge.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for UsedConnection {
    fn drop(&mut self) {
        self.state.used_tls_connections.fetch_sub(1, Relaxed);
    }
}

/// Charge for one connection. Dropping the charge releases it, so the owner must first drop the buffers.
pub(super) struct ConnectionCharge {
    peer: Peer,
    state: Arc<ServerState>,
    memory: ResizableCharge,
    /// Latest size in bytes. 0 of them are charged if the peer is trusted.
    size: usize,
}

impl ConnectionCharge {
    pub(super) fn new(peer: &Peer, state: &Arc<ServerState>) -> ConnectionCharge {
        let now = Instant::now();
        let memory = ResizableCharge::new(state.server_budget(peer.sender.is_known_good(now)), peer.sender.in_flight(now));
        ConnectionCharge { peer: peer.clone(), state: state.clone(), memory, size: 0 }
    }

    /// Charges `size` bytes in total. If they exceed a budget, the oldest unfinished bodies make room. After an error, the connection
    /// must close.
    pub(super) fn resize(&mut self, size: usize) -> Result<(), OverBudget> {
        if size == self.size {
            return Ok(());
        }
        self.size = size;
        let is_exempt = size > self.memory.bytes() && self.is_trusted();
        let size = if is_exempt { 0 } else { size };
        self.memory.resize(size).or_else(|_| self.make_room(size)).map_err(OverBudget)
    }

    fn make_room(&mut self, size: usize) -> Result<(), Outcome> {
        let before = self.memory.bytes();
        self.memory.resize_beyond(size);
        let (address, memory) = (self.peer.sender.address(), RequestMemory { head: 0, body: size });
        let made = self.state.unfinished_bodies.make_room_for(address, memory, self.memory.budgets(), None);
        if made.is_err() {
            let _ = self.memory.resize(before); // charges less than now
        }
        made.map(drop)
    }

    /// Returns the latest size in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns true if the connection takes charged memory.
    pub(super) fn is_charged(&self) -> bool {
        self.memory.bytes() > 0
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.peer.is_trusted(Instant::now())
    }
}

/// Reads at most `limit` bytes from the stream into `buf`. `limit` must not be 0.
pub(super) fn poll_read_at_most<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    limit: usize,
) -> Poll<io::Result<()>> {
    if buf.remaining() <= limit {
        return Pin::new(stream).poll_read(cx, buf);
    }
    Pin::new(&mut stream.take(limit as u64)).poll_read(cx, buf)
}

/// Number of used TLS connections whose buffers are not charged.
const FREE_CONNECTIONS: usize = 1_000;

/// Memory of the buffers and tables of a used TLS connection that are not there before its first request.
const USED_BYTES: usize = 8 * 1024;
