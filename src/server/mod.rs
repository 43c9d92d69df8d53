//! Runs the listener for deliveries: connections, TLS, limits, deadlines and the drain. Turns HTTP requests into
//! [`Delivery`](crate::event::Delivery) values, and [`Answer`](crate::answer::Answer) values into HTTP responses.
//!
//! The server uses hyper without a web framework. A client that negotiates HTTP/2 in its TLS handshake uses HTTP/2; every other
//! client uses HTTP/1.1. The server has only one route and therefore no router. This module does not depend on signature
//! algorithms or Kafka. The server passes each complete request to the [`Gateway`](crate::gateway::Gateway) and sends the gateway's
//! answer to the sender.
//!
//! ```text
//! PROXY header? · TLS?
//! connection ── hyper ──► request: path · method · signature header · length ──► body ──► Gateway::receive
//!      │                     └───────────── rejected before the body ────────┘       │            │
//!      └ head too long · slow · malformed ────► outcome log ◄── too large · too slow ┘            │
//!                                                 ▲  one Outcome: counter, duration, log line     │
//!                                                 └───────────────────────────────────────────────┘
//! ```

mod accept;
mod body;
mod client_request;
mod close;
mod connection_charge;
mod connection_generation;
mod connection_server;
mod connection_setup;
mod connection_slot;
mod deadline;
mod early_goaway;
mod h1_scanner;
mod h2_heads;
mod h2_io;
mod handover;
mod handover_steps;
mod head;
mod http1;
mod http2;
mod idle;
mod io;
mod known_senders;
mod late_gateway;
mod log_sampler;
mod open_connections;
mod outcome_log;
mod pace;
mod peer;
mod proxies;
mod proxy_header;
mod remembered_senders;
mod request;
mod request_cost;
mod request_slot;
mod request_state;
mod response;
mod sender_guard;
mod sender_limits;
mod sender_record;
mod shutdown;
mod state;
mod stream_tasks;
mod tls;
mod tls_io;
mod unfinished_bodies;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::select;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

pub use accept::listen;
pub use connection_server::ConnectionServer;
pub use h1_scanner::{FramingError, RequestScanner};
pub use handover_steps::{HandoverStep, HandoverSteps};
pub use head::{MAX_TARGET_BYTES, PresentedCertificate, RequestHead, judge_head};
pub use known_senders::KnownSendersFile;
pub use late_gateway::LateGateway;
pub use proxies::Proxies;
pub use proxy_header::read_proxy_header;
pub use shutdown::{Phase, Shutdown};
pub use tls::Tls;

use crate::answer::AnswerWatcher;
use crate::clock::Clock;
use crate::in_flight::InFlightBudget;
use crate::limits::ServerLimits;
use crate::metrics::Metrics;
use accept::{AcceptEnd, accept};
use connection_generation::ConnectionGeneration;
use handover::drain_for_successor;
use known_senders::KnownSenders;
use open_connections::RESERVED_PART;
use outcome_log::OutcomeLog;
use request::max_delayed_answers;
use sender_limits::SenderLimits;
use state::ServerState;
use unfinished_bodies::UnfinishedBodies;

/// Server for deliveries. [`Server::serve`] runs the server.
pub struct Server {
    /// Gateway that receives complete requests. Requests wait for it if it comes later.
    pub gateway: LateGateway,
    /// Limits of the listener.
    pub limits: ServerLimits,
    /// Certificate for HTTPS; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// Trusted proxies: the only peers that may name the address of a request's sender.
    pub proxies: Proxies,
    /// File that stores the known-good addresses between two runs.
    pub known_senders: Arc<dyn KnownSendersFile>,
    /// Clock for the arrival times of deliveries.
    pub clock: Arc<dyn Clock>,
    /// Metrics that count every outcome.
    pub metrics: Arc<Metrics>,
    /// Receiver of every answer; `None` if the answers are only counted and logged.
    pub watcher: Option<Arc<dyn AnswerWatcher>>,
}

impl Server {
    /// Serves deliveries until `shutdown` is complete. After the shutdown has begun, continues to serve deliveries for
    /// `drain_delay`. Then stops accepting new connections, and responds to every remaining request within `drain_deadline`.
    /// Returns when every connection is closed, or immediately at [`Phase::Now`].
    ///
    /// The caller may hold a [`Weak`](std::sync::Weak) to the listener. The listener closes when the server drops it.
    pub async fn serve(self, listener: Arc<TcpListener>, shutdown: Shutdown) {
        let file = self.known_senders.clone();
        let state = self.into_state();
        let known_senders = KnownSenders { limits: state.sender_limits.clone(), file, clock: state.clock.clone() };
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, tls = state.tls.is_some(), "listening for deliveries");
        }
        let mut connections = JoinSet::new();
        known_senders.restore().await;
        select! {
            biased;
            () = shutdown.reached(Phase::Now) => {}
            () = accept_and_drain(listener, &state, &mut connections, &shutdown, &known_senders) => known_senders.save_at_end().await,
            () = state.sender_limits.turns.run() => {}
            () = known_senders.save_changes() => {}
            () = warn_of_shadow_sources(&state) => {}
            () = watch_certificate(state.tls.as_ref()) => {}
        }
        connections.shutdown().await;
    }

    fn into_state(self) -> Arc<ServerState> {
        let Server { gateway, limits, tls, proxies, known_senders: _, clock, metrics, watcher } = self;
        let in_flight = InFlightBudget::new(limits.max_in_flight).with_max_requests(limits.max_requests);
        let sender_limits = SenderLimits::new(&limits, &metrics);
        Arc::new(ServerState {
            gateway,
            limits,
            clock,
            outcomes: OutcomeLog::new(metrics, watcher),
            in_flight_unknown: in_flight.part_without(RESERVED_PART),
            in_flight,
            unfinished_bodies: UnfinishedBodies::default(),
            used_tls_connections: AtomicUsize::new(0),
            sender_limits,
            delayed_answers: Semaphore::new(max_delayed_answers(&limits)),
            tls,
            proxies,
            generation: ConnectionGeneration::default(),
        })
    }
}

/// Logs a warning that names the sources with `danger_shadow`, first at startup and then once a minute. Never returns.
async fn warn_of_shadow_sources(state: &ServerState) {
    let gateway = state.gateway.wait().await;
    let mut ticks = interval(SHADOW_WARNING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sources = gateway.shadow_sources().join(", ");
        if !sources.is_empty() {
            tracing::warn!(
                %sources,
                "danger_shadow is on, so hookhold answers rejected deliveries with success; remove danger_shadow after the trial"
            );
        }
    }
}

async fn watch_certificate(tls: Option<&Tls>) {
    match tls {
        Some(tls) => tls.watch_files().await,
        None => std::future::pending().await,
    }
}

async fn accept_and_drain(
    listener: Arc<TcpListener>,
    state: &Arc<ServerState>,
    connections: &mut JoinSet<()>,
    shutdown: &Shutdown,
    known_senders: &KnownSenders,
) {
    loop {
        match accept(&listener, state, connections, shutdown, known_senders).await {
            AcceptEnd::Stopped => break,
            AcceptEnd::Switched => match drain_for_successor(state, connections, shutdown).await {
                HandoverStep::Completed => return,
                _ if shutdown.begun() => break,
                _ => tracing::info!("accepting deliveries again"),
            },
        }
    }
    drop(listener);
    shutdown.advance(Phase::Draining);
    drain(state, connections, shutdown, state.limits.drain_deadline).await;
}

/// Waits until all connections are closed. After `deadline`, answers each request that is still open.
async fn drain(state: &Arc<ServerState>, connections: &mut JoinSet<()>, shutdown: &Shutdown, deadline: Duration) {
    tracing::info!(connections = connections.len(), "draining the open connections");
    if timeout(deadline, all_closed(connections)).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "the drain deadline has passed; hookhold closes the remaining connections"
        );
        state.gateway.get().into_iter().for_each(|gateway| gateway.begin_drain());
        shutdown.advance(Phase::Cut);
        let _ = timeout(LAST_RESPONSE_TIMEOUT, all_closed(connections)).await;
    }
}

async fn all_closed(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.join_next().await {
        report_panic(ended);
    }
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "the task of a connection panicked; report this bug");
    }
}

const SHADOW_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Time limit for sending the last responses after the drain deadline.
const LAST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
