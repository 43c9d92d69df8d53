//! Accepts connections while [`OpenConnections`](super::open_connections::OpenConnections) has room for another one. During a drain,
//! accepts only the connections that the kernel has already queued.

use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags, accept_with, recv};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::handover::wait_for_switch;
use super::known_senders::KnownSenders;
use super::log_sampler::LogSampler;
use super::peer::Peer;
use super::shutdown::Shutdown;
use super::state::ServerState;
use super::{connection_setup, proxies, report_panic};

/// Opens a TCP listener on `address`.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG_CONNECTIONS)
}

/// Reason why the server no longer accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptEnd {
    /// A shutdown has begun, and `drain_delay` has passed. The server has accepted the connections that the kernel had queued.
    Stopped,
    /// In a hand-over, the other process accepts from now on. If it uses the same socket, the connections that the kernel has queued
    /// are left to it.
    Switched,
}

/// Accepts connections until a shutdown or a hand-over ends this.
pub(super) async fn accept(
    listener: &TcpListener,
    state: &Arc<ServerState>,
    connections: &mut JoinSet<()>,
    shutdown: &Shutdown,
    known_senders: &KnownSenders,
) -> AcceptEnd {
    let leave = async {
        select! {
            () = stop(state, shutdown) => AcceptEnd::Stopped,
            () = wait_for_switch(state, shutdown, known_senders) => AcceptEnd::Switched,
        }
    };
    let (full_log, error_log, mut waiting) = (LogSampler::new(), LogSampler::new(), None);
    let mut leave = std::pin::pin!(leave);
    let end = loop {
        select! {
            biased;
            Some(ended) = connections.join_next() => report_panic(ended),
            end = &mut leave => break end,
            accepted = next(listener, &mut waiting, &full_log, state) => match accepted {
                Ok((stream, remote)) => serve(stream, remote, state, connections, shutdown),
                Err(error) => {
                    if let Some(suppressed) = error_log.admit(Instant::now()) {
                        tracing::error!(
                            %error,
                            suppressed,
                            "cannot accept a connection and will retry; if this repeats, raise the open-file limit (`ulimit -n`)"
                        );
                    }
                    // Sleeping without polling `leave` would delay a shutdown while `accept` keeps failing.
                    select! {
                        () = sleep(ACCEPT_RETRY_DELAY) => {}
                        end = &mut leave => break end,
                    }
                }
            },
        }
    };
    let queued = match end {
        AcceptEnd::Switched if shutdown.handover().shares_socket() => 0,
        AcceptEnd::Stopped | AcceptEnd::Switched => MAX_QUEUED_CONNECTIONS,
    };
    for (stream, remote) in waiting.into_iter().chain(queued_connections(listener).take(queued)) {
        serve(stream, remote, state, connections, shutdown);
    }
    end
}

/// Starts the task of a new connection.
fn serve(stream: TcpStream, remote: SocketAddr, state: &Arc<ServerState>, connections: &mut JoinSet<()>, shutdown: &Shutdown) {
    let Some(peer) = Peer::connect(proxies::canonical(remote), state) else { return };
    if has_sent(&stream) {
        peer.sender.note_sent();
    }
    let _ = stream.set_nodelay(true);
    let (member, state, phases) = (state.generation.join(), state.clone(), shutdown.watch());
    connections.spawn(async move {
        connection_setup::serve(stream, peer, state, phases).await;
        drop(member);
    });
}

/// Returns the connections that the kernel has queued, until the queue is empty or an error occurs. Asks the kernel directly: tokio
/// would not ask before its reactor has reported an event, and would so miss the newest connections.
fn queued_connections(listener: &TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    std::iter::from_fn(move || {
        let accepted = accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).ok()?;
        let stream = TcpStream::from_std(net::TcpStream::from(accepted)).ok()?;
        let remote = stream.peer_addr();
        // A client that has already closed the connection has no address, and needs no answer.
        Some(remote.ok().map(|remote| (stream, remote)))
    })
    .flatten()
}

/// Waits until a shutdown has begun, and then for `drain_delay`.
async fn stop(state: &ServerState, shutdown: &Shutdown) {
    shutdown.signalled().await;
    sleep(state.limits.drain_delay).await;
}

/// Accepts a connection, and returns it as soon as there is room for it. `waiting` holds the connection in the meantime, so that the
/// caller may drop the future and call the function again.
async fn next(
    listener: &TcpListener,
    waiting: &mut Option<(TcpStream, SocketAddr)>,
    full_log: &LogSampler,
    state: &ServerState,
) -> io::Result<(TcpStream, SocketAddr)> {
    let connections = &state.sender_limits.connections;
    if waiting.is_none() {
        let accepted = listener.accept().await;
        if accepted.as_ref().is_err_and(is_out_of_files) {
            connections.evict_one();
        }
        *waiting = Some(accepted?);
    }
    if !connections.has_room()
        && let Some(suppressed) = full_log.admit(Instant::now())
    {
        tracing::warn!(
            max_connections = state.limits.max_connections,
            suppressed,
            "open connections: expected fewer than max_connections, found the maximum, so new ones wait; raise max_connections"
        );
    }
    connections.room().await;
    Ok(waiting.take().expect("a connection waits"))
}

/// Returns true if the client of a new connection has already sent something. Consumes nothing.
fn has_sent(stream: &TcpStream) -> bool {
    recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(received, _)| received > 0)
}

/// Returns true if the process or the machine has no free file descriptor.
fn is_out_of_files(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE))
}

/// Limit on the number of connections in the kernel's accept queue. Linux uses `net.core.somaxconn` instead if that
/// value is lower.
const BACKLOG_CONNECTIONS: u32 = 4096;

/// Delay between a failed accept and the next attempt. The usual cause of the failure is that the process has no free file
/// descriptor. The next attempt can succeed once the evicted connection has closed.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Maximum number of connections that a drain accepts, so that clients that continue to connect do not delay it. Linux queues one
/// connection more than the backlog.
const MAX_QUEUED_CONNECTIONS: usize = BACKLOG_CONNECTIONS as usize + 1;

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    #[tokio::test]
    async fn a_drain_accepts_connections_that_the_reactor_has_not_reported() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = listener.local_addr().expect("an open listener");
        let polled = || std::future::poll_fn(|context| Poll::Ready(listener.poll_accept(context).is_pending()));
        assert!(polled().await);
        let clients = [(); 3].map(|()| net::TcpStream::connect(address).expect("the listener is open"));
        assert!(polled().await, "no event yet");
        let accepted: Vec<SocketAddr> = queued_connections(&listener).map(|(_, remote)| remote).collect();
        assert_eq!(accepted, clients.map(|client| client.local_addr().expect("a connected socket")));
        assert_eq!(queued_connections(&listener).count(), 0, "the drain does not wait for further connections");
    }
}
