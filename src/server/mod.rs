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
use std::num::NonZeroU32;
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
use crate::metrics::Metrics;
use crate::units::Rate;
use body::Budget;
use outcome_log::{Sampler, Tallies};
use peer::Peer;
use sender_limits::SenderLimits;
use state::ServerState;

/// What one listener takes upon itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a request to its answer; a source's own deadline may be shorter.
    pub request_deadline: Duration,
    /// Connections open at one time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Connections of one address open at one time; more are closed at once.
    pub max_connections_per_address: usize,
    /// Bytes of request bodies held at one time.
    pub max_in_flight: usize,
    /// Bytes of request bodies of one address held at one time, unless one body makes up most of them.
    pub max_in_flight_per_address: usize,
    /// Refused deliveries of one address; beyond it the next ones are not looked at. Genuine deliveries never count.
    pub max_rejected_per_address: Rate,
    /// Addresses without a connection that are remembered, the least recent forgotten first.
    pub max_addresses: usize,
    /// Bytes per second that a request must bring until it is complete.
    pub min_rate: u64,
    /// From the first byte of a request until `min_rate` counts.
    pub min_rate_after: Duration,
    /// Normal service after the first signal, so that balancers move away.
    pub drain_delay: Duration,
    /// After that, how long open connections are served before they are cut.
    pub drain_deadline: Duration,
    /// Bytes of a request head: request line and header fields.
    pub max_header_size: usize,
    /// Header fields of a request.
    pub max_headers: usize,
    /// How long a connection may stay open without a request. The default is longer than that of common balancers (60 s),
    /// so that they are the ones who close: a balancer that sends into a connection just closed loses the request.
    pub idle_timeout: Duration,
    /// From the first moment of a connection to the end of its PROXY header and TLS handshake, where there are any.
    pub handshake_timeout: Duration,
    /// HTTP/2 requests under way on one connection.
    pub max_streams: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_deadline: Duration::from_secs(8),
            max_connections: 10_000,
            max_connections_per_address: 2_500,
            max_in_flight: 256 << 20,
            max_in_flight_per_address: 64 << 20,
            max_rejected_per_address: Rate::per_minute(NonZeroU32::new(600).expect("not 0")),
            max_addresses: 65_536,
            min_rate: 1 << 10,
            min_rate_after: Duration::from_secs(2),
            drain_delay: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(20),
            max_header_size: 32 << 10,
            max_headers: 100,
            idle_timeout: Duration::from_secs(75),
            handshake_timeout: Duration::from_secs(10),
            max_streams: 100,
        }
    }
}

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
    pub limits: Limits,
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
