//! Accept and answer: the listener, the limits, the deadlines and the drain; HTTP on one side, [`Delivery`] and [`Answer`]
//! on the other.
//!
//! hyper speaks HTTP/1.1 directly on each connection, and HTTP/2 to clients that ask for it in their TLS handshake; there is
//! no router, since there is one route. This room knows neither signatures nor Kafka; it hands a complete request to the
//! [`Gateway`] and sends what comes back.
//!
//! ```text
//! PROXY header? · TLS?
//! connection ── hyper ──► request: path · method · signature header · length ──► body ──► Gateway::receive
//!      │                     └────────────── refused before the body ─────┘       │            │
//!      └ head too long, too slow, unreadable ─► tally ◄── too large · too slow ───┘            │
//!                                                 ▲  one Outcome: counter, duration, log line  │
//!                                                 └────────────────────────────────────────────┘
//! ```
//!
//! [`Delivery`]: crate::event::Delivery
//! [`Answer`]: crate::answer::Answer

mod body;
mod close;
mod connection_setup;
mod deadline;
mod head;
mod http1;
mod http2;
mod io;
mod outcome_log;
mod peer;
mod proxies;
mod request;
mod response;
mod sender_limits;
mod shutdown;
mod state;
mod stream_tasks;
mod tls;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

pub use head::{RequestHead, TARGET_LIMIT, judge_head};
pub use proxies::Proxies;
pub use shutdown::{Phase, Shutdown};
pub use tls::Tls;

use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::limits::ServerLimits;
use crate::metrics::Metrics;
use body::Budget;
use outcome_log::{Sampler, Tallies};
use peer::Peer;
use sender_limits::SenderLimits;
use state::ServerState;

/// Opens a listener.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Everything that serving deliveries needs.
pub struct Server {
    /// Where complete requests go.
    pub gateway: Arc<Gateway>,
    /// What the listener takes upon itself.
    pub limits: ServerLimits,
    /// HTTPS instead of HTTP.
    pub tls: Option<Tls>,
    /// Who is believed about the address of a sender.
    pub proxies: Proxies,
    /// Tells when a delivery arrived.
    pub clock: Arc<dyn Clock>,
    /// Where every ending is counted.
    pub metrics: Arc<Metrics>,
}

impl Server {
    /// Serves deliveries until `stop` has run its course: `drain_delay` of normal service, then no new connections, then an
    /// answer for everybody by `drain_deadline`. Returns when every connection is closed; at [`Phase::Now`], at once.
    pub async fn serve(self, listener: TcpListener, stop: Shutdown) {
        let Server { gateway, limits, tls, proxies, clock, metrics } = self;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, tls = tls.is_some(), "listening for deliveries");
        }
        let budget = Budget::new(limits.max_in_flight);
        let strangers = SenderLimits::new(&limits, &metrics);
        let tallies = Tallies::new(metrics);
        let desk = Arc::new(ServerState { gateway, limits, clock, tallies, budget, strangers, tls: tls.clone(), proxies });
        let mut connections = JoinSet::new();
        select! {
            biased;
            () = stop.reached(Phase::Now) => {}
            () = until_drained(listener, &desk, &mut connections, &stop) => {}
            () = remind_of_shadows(&desk.gateway) => {}
            () = keep(tls.as_ref()) => {}
        }
        connections.shutdown().await;
    }
}

/// Says at the start and then once a minute which sources answer ok to everybody.
async fn remind_of_shadows(gateway: &Gateway) {
    let mut minutes = interval(REMINDER);
    minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        minutes.tick().await;
        let sources = gateway.in_shadow().join(", ");
        if !sources.is_empty() {
            tracing::warn!(%sources, "danger_shadow is on: every delivery is answered ok, also what is refused or lost");
        }
    }
}

async fn keep(tls: Option<&Tls>) {
    match tls {
        Some(tls) => tls.keep().await,
        None => std::future::pending().await,
    }
}

async fn until_drained(listener: TcpListener, desk: &Arc<ServerState>, connections: &mut JoinSet<()>, stop: &Shutdown) {
    let leave = async {
        stop.reached(Phase::Leaving).await;
        sleep(desk.limits.drain_delay).await;
    };
    accept(listener, desk, connections, stop, leave).await;
    stop.advance(Phase::Draining);
    tracing::info!(connections = connections.len(), "draining");
    if timeout(desk.limits.drain_deadline, all_closed(connections)).await.is_err() {
        tracing::warn!(connections = connections.len(), "drain deadline over: cutting what is left");
        desk.gateway.begin_drain();
        stop.advance(Phase::Cut);
        let _ = timeout(LAST_WORDS, all_closed(connections)).await;
    }
}

/// Takes connections until `leave`; then only those that the kernel has already accepted. Closes the listener.
async fn accept(
    listener: TcpListener,
    desk: &Arc<ServerState>,
    connections: &mut JoinSet<()>,
    stop: &Shutdown,
    leave: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(desk.limits.max_connections));
    let (full, failed) = (Sampler::new(), Sampler::new());
    let mut leave = std::pin::pin!(leave);
    let mut last = None;
    loop {
        select! {
            biased;
            Some(ended) = connections.join_next() => note_panic(ended),
            accepted = until_left(next(&listener, &places, &full, desk), leave.as_mut(), &mut last) => match accepted {
                Some((Ok((stream, remote)), place)) => {
                    let Some(peer) = Peer::connect(proxies::plain(remote), desk) else { continue };
                    let _ = stream.set_nodelay(true);
                    let served = connection_setup::enter(stream, peer, desk.clone(), stop.watch());
                    connections.spawn(async move { served.await; drop(place) });
                }
                Some((Err(error), _)) if last.is_none() => {
                    if let Some(suppressed) = failed.admit(Instant::now()) {
                        tracing::error!(%error, suppressed, "cannot accept a connection; trying again");
                    }
                    // Not `sleep` alone: while accepting goes on failing, the stop must still be heard.
                    select! {
                        () = sleep(ACCEPT_PAUSE) => {}
                        () = &mut leave => return,
                    }
                }
                _ => return,
            },
        }
    }
}

/// What comes next until `leave`; `None` after that, once nothing is there any more. Whoever goes on coming does not put off the
/// drain: after `leave`, `last` counts down from what can have been there.
async fn until_left<T>(
    next: impl Future<Output = T>,
    mut leave: Pin<&mut impl Future<Output = ()>>,
    last: &mut Option<u32>,
) -> Option<T> {
    let mut next = std::pin::pin!(next);
    while *last != Some(0) {
        select! {
            biased;
            () = &mut leave, if last.is_none() => *last = Some(BACKLOG + 1), // Linux holds one more
            next = &mut next => {
                *last = last.map(|last| last - 1);
                return Some(next);
            }
            () = consume_budget(), if last.is_some() => return None,
        }
    }
    None
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    full: &Sampler,
    desk: &ServerState,
) -> (std::io::Result<(TcpStream, SocketAddr)>, Option<OwnedSemaphorePermit>) {
    if places.available_permits() == 0
        && let Some(suppressed) = full.admit(Instant::now())
    {
        tracing::warn!(max_connections = desk.limits.max_connections, suppressed, "every connection is in use; new ones wait");
    }
    let place = places.clone().acquire_owned().await.ok();
    (listener.accept().await, place)
}

async fn all_closed(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.join_next().await {
        note_panic(ended);
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; this is a bug in hookhold");
    }
}

/// Between two warnings that a source is in shadow.
const REMINDER: Duration = Duration::from_secs(60);

/// Connections that the kernel may hold for us; it lowers this to its own `somaxconn`.
const BACKLOG: u32 = 4096;

/// Pause after a failed accept: nearly always a lack of file descriptors, which passes as connections close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// After the cut: time for the last answers to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn who_goes_on_connecting_does_not_put_off_the_drain() {
        let (mut leave, mut last, mut taken) = (std::pin::pin!(ready(())), None, 0);
        while until_left(ready(()), leave.as_mut(), &mut last).await.is_some() {
            taken += 1;
        }
        assert_eq!(taken, BACKLOG + 1, "whatever can have been there is taken, and nothing else");
    }

    #[tokio::test]
    async fn a_drain_begins_when_nobody_waits_any_more() {
        let (mut leave, mut last) = (std::pin::pin!(ready(())), None);
        assert_eq!(until_left(pending::<()>(), leave.as_mut(), &mut last).await, None);
    }
}
