//! Prepares a connection for HTTP: reads the PROXY header of a trusted proxy, then performs the TLS handshake.
//!
//! The PROXY header and the TLS handshake of a connection must both be complete within `handshake_timeout`. hookhold
//! immediately serves a connection that needs neither step. If a connection ends during these steps, hookhold counts the
//! outcome of the connection under `source="-"`. Exception: hookhold ignores a connection that closes before its first byte,
//! because load balancers open such connections regularly to probe the port. An unused TLS handshake (no request follows it)
//! counts against the address of the client, like a rejected delivery. The handshake of a limited address waits for a turn.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::close::{LINGER_TIMEOUT, close};
use super::connection_charge::OverBudget;
use super::connection_slot::{EvictableStream, is_eviction};
use super::peer::Peer;
use super::proxy_header::read_proxy_header;
use super::request_slot::over_budget;
use super::response::raw_response;
use super::shutdown::Phase;
use super::state::ServerState;
use super::tls::{ALPN_HTTP_2, Tls};
use super::tls_io::{CiphertextIo, TlsIo};
use super::{http1, http2};
use crate::answer::Answer;
use crate::client_certificate::ClientCertificate;
use crate::log::escaped;
use crate::outcome::Outcome;
use crate::work_turns::{WorkKind, WorkTurn};

/// Prepares one connection for HTTP, and serves the connection until it is closed.
pub(super) async fn serve(stream: TcpStream, peer: Peer, state: Arc<ServerState>, phases: watch::Receiver<Phase>) {
    if state.tls.is_none() && !state.proxies.must_send_header(peer.remote.ip()) {
        // Box this future, so that the tasks of other connections reserve no memory for it.
        Box::pin(http1::serve(peer.evictable(stream), peer, state, phases)).await;
        return;
    }
    let start = Instant::now();
    // Box the setup, so that the tasks of a listener without TLS reserve no memory for a handshake.
    Box::pin(ConnectionSetup { peer, start, state, phases }.run(stream)).await;
}

struct ConnectionSetup {
    peer: Peer,
    start: Instant,
    state: Arc<ServerState>,
    phases: watch::Receiver<Phase>,
}

impl ConnectionSetup {
    async fn run(mut self, mut stream: TcpStream) {
        if self.state.proxies.must_send_header(self.peer.remote.ip()) {
            let mut has_started = false;
            let header = self.in_time(read_proxy_header(&mut stream, &mut has_started)).await;
            match header.and_then(|header| header.map_err(|error| answer_to(&error))) {
                Ok(Some(client)) => match Peer::connect(client, &self.state) {
                    Some(peer) => self.peer = peer,
                    None => return,
                },
                Ok(None) => {}
                Err(answer) => return self.reject(stream, has_started.then_some(answer), PROXY_EXPECTED).await,
            }
        }
        match self.state.tls.clone() {
            None => {
                self.phases.mark_changed();
                http1::serve(self.peer.evictable(stream), self.peer, self.state, self.phases).await;
            }
            Some(tls) => {
                let stream = self.peer.evictable(stream);
                self.serve_tls(stream, &tls).await;
            }
        }
    }

    async fn serve_tls(mut self, stream: EvictableStream<TcpStream>, tls: &Tls) {
        match self.in_time(first_byte(stream.stream())).await {
            Ok(Ok(Some(TLS_HANDSHAKE))) => self.peer.sender.note_sent(),
            Ok(Ok(Some(_))) => {
                let answer = Answer::plain(Outcome::BadRequest)
                    .with_hint("connection: expected a TLS handshake, found plain text; use a URL that begins with https://");
                return self.reject(stream, Some(answer), HTTPS_EXPECTED).await;
            }
            _ => return,
        }
        let turn = match self.handshake_turn().await {
            Ok(turn) => turn,
            Err(answer) => return self.record(&answer),
        };
        let stream = CiphertextIo::new(stream, &self.peer, &self.state);
        // Box the handshake, so that its memory is released before the first request.
        let handshake = Box::pin(async { tls.accept(stream).await.map(TlsIo::new) });
        let accepted = match turn {
            None => self.in_time(handshake).await,
            Some(mut turn) => self.in_time(turn.run_async(handshake)).await,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stream))) => return self.reject(stream.into_stream(), Some(answer_to(&error)), "").await,
            Err(answer) => return self.record(&answer),
        };
        self.phases.mark_changed();
        let certificate = stream.session().peer_certificates().map(|chain| Arc::new(ClientCertificate::new(chain)));
        self.peer.certificate = certificate;
        let peer = self.peer.clone();
        let had_request = if stream.session().alpn_protocol() == Some(ALPN_HTTP_2) {
            http2::serve(stream, self.peer, self.state, self.phases).await
        } else {
            http1::serve(stream, self.peer, self.state, self.phases).await
        };
        if !had_request {
            peer.count_unused_handshake();
        }
    }

    /// Waits for a turn if hookhold may perform the handshake only in a turn. Returns `None` if the handshake needs no turn. The
    /// error contains the outcome to record.
    async fn handshake_turn(&mut self) -> Result<Option<WorkTurn>, Answer> {
        if !self.peer.limits_handshake() {
            return Ok(None);
        }
        let sender = self.peer.sender.clone();
        match self.in_time(sender.turn(WorkKind::Handshake)).await {
            Ok(Ok(turn)) => Ok(turn),
            Err(answer) if answer.outcome != Outcome::TooSlow => Err(answer),
            Ok(Err(_)) | Err(_) => Err(Answer::plain(Outcome::RateLimited).with_hint(NO_TURN)),
        }
    }

    /// Runs `work` and returns its result. Returns an error if `handshake_timeout` or the drain deadline passes first, or if
    /// hookhold evicts the connection; the error contains the outcome to record.
    async fn in_time<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Answer> {
        let deadline = self.start + self.state.limits.handshake_timeout;
        let sender = self.peer.sender.clone();
        select! {
            biased;
            done = work => Ok(done),
            () = sender.evicted() => Err(Answer::plain(Outcome::RateLimited).with_hint(sender.eviction_hint())),
            _ = self.phases.wait_for(|phase| *phase >= Phase::Cut) => {
                Err(Answer::plain(Outcome::Draining).with_hint(NOT_READY_AT_DRAIN_DEADLINE))
            }
            () = sleep_until(deadline) => {
                Err(Answer::plain(Outcome::TooSlow).with_hint(NOT_READY_IN_TIME))
            }
        }
    }

    /// Passes the outcome of `answer` to the outcome log and closes the socket. If no byte has arrived, `answer` is
    /// `None`, and the function only closes the socket. If the outcome is `bad_request` and `text` is not empty, sends
    /// a 400 response with the body `text` before closing the socket.
    async fn reject<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, answer: Option<Answer>, text: &'static str) {
        let Some(mut answer) = answer else { return };
        self.record(&answer);
        let is_answered = answer.outcome == Outcome::BadRequest && !text.is_empty();
        answer.body = Bytes::from_static(text.as_bytes());
        let response = is_answered.then(|| raw_response(&answer, self.state.clock.now()));
        close(stream, response, true, LINGER_TIMEOUT).await;
    }

    fn record(&self, answer: &Answer) {
        let now = Instant::now();
        self.state.outcomes.no_source.start(self.peer.remote, self.start).record(answer, now);
        self.peer.sender.record(answer.outcome, 0, now);
        if answer.outcome == Outcome::Disconnected {
            self.peer.count_unused_handshake();
        }
    }
}

/// Returns the first byte that the client has sent, without consuming this byte. Returns `None` if the client has
/// closed the connection.
async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    Ok((stream.peek(&mut byte).await? > 0).then_some(byte[0]))
}

fn answer_to(error: &io::Error) -> Answer {
    if let Some(OverBudget(outcome)) = OverBudget::cause_of(error) {
        return over_budget(outcome);
    }
    match error.kind() {
        _ if is_eviction(error) => Answer::plain(Outcome::RateLimited).with_hint(escaped(&error.to_string())),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Answer::plain(Outcome::Disconnected).with_hint("handshake: expected to complete, found a disconnect")
        }
        _ => Answer::plain(Outcome::BadRequest).with_hint(escaped(&error.to_string())),
    }
}

/// Content type of a TLS handshake record. This is the first byte of every TLS connection (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

const HTTPS_EXPECTED: &str = "connection: expected HTTPS, found plain text; use a URL that begins with https://\n";
const PROXY_EXPECTED: &str =
    "connection: expected a valid PROXY header of version 2, found none; enable PROXY protocol v2 in the proxy\n";
const NOT_READY_AT_DRAIN_DEADLINE: &str =
    "handshake: expected the end before the drain deadline, found none; raise drain_deadline to at least handshake_timeout";
const NO_TURN: &str = "handshake of a limited address: expected a turn within handshake_timeout, found none; remove the cause of the \
                       rejected deliveries from this address";
const NOT_READY_IN_TIME: &str =
    "handshake: expected the end within handshake_timeout, found none; raise handshake_timeout for a genuine sender";
