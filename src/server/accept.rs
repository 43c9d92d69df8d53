//! Accepts connections while [`OpenConnections`](super::open_connections::OpenConnections) has room for another one. During a drain,
//! accepts only the connections that the kernel has already queued.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::select;
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep};

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

/// Accepts connections until `leave` completes. Then accepts the connections that the kernel has already queued, and
/// closes the listener.
pub(super) async fn accept(
    listener: TcpListener,
    state: &Arc<ServerState>,
    connections: &mut JoinSet<()>,
    shutdown: &Shutdown,
    leave: impl Future<Output = ()>,
) {
    let (full_log, error_log, mut waiting) = (LogSampler::new(), LogSampler::new(), None);
    let mut leave = std::pin::pin!(leave);
    let mut remaining = None;
    loop {
        select! {
            biased;
            Some(ended) = connections.join_next() => report_panic(ended),
            accepted = next_until(next(&listener, &mut waiting, &full_log, state), leave.as_mut(), &mut remaining) => match accepted {
                Some(Ok((stream, remote))) => {
                    let Some(peer) = Peer::connect(proxies::canonical(remote), state) else { continue };
                    if has_sent(&stream) {
                        peer.sender.note_sent();
                    }
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection_setup::serve(stream, peer, state.clone(), shutdown.watch()));
                }
                Some(Err(error)) if remaining.is_none() => {
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
                        () = &mut leave => return,
                    }
                }
                _ => return,
            },
        }
    }
}

/// Returns the result of `next`. After `leave` has completed, `remaining` counts down from the length of the longest
/// possible queue. The function then returns `None` as soon as `remaining` is zero or `next` has to wait. Clients that
/// continue to connect therefore cannot delay the drain.
async fn next_until<T>(
    next: impl Future<Output = T>,
    mut leave: Pin<&mut impl Future<Output = ()>>,
    remaining: &mut Option<u32>,
) -> Option<T> {
    let mut next = std::pin::pin!(next);
    while *remaining != Some(0) {
        select! {
            biased;
            // Linux queues one connection more than the backlog.
            () = &mut leave, if remaining.is_none() => *remaining = Some(BACKLOG_CONNECTIONS + 1),
            next = &mut next => {
                *remaining = remaining.map(|remaining| remaining - 1);
                return Some(next);
            }
            () = consume_budget(), if remaining.is_some() => return None,
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn clients_that_keep_connecting_do_not_delay_the_drain() {
        let (mut leave, mut remaining, mut taken) = (std::pin::pin!(ready(())), None, 0);
        while next_until(ready(()), leave.as_mut(), &mut remaining).await.is_some() {
            taken += 1;
        }
        assert_eq!(taken, BACKLOG_CONNECTIONS + 1, "a drain accepts at most the longest possible queue");
    }

    #[tokio::test]
    async fn a_drain_starts_when_no_connection_is_queued() {
        let (mut leave, mut remaining) = (std::pin::pin!(ready(())), None);
        assert_eq!(next_until(pending::<()>(), leave.as_mut(), &mut remaining).await, None);
    }
}
