//! What comes before HTTP: a trusted proxy says for whom it speaks, and a client that speaks TLS shakes hands.
//!
//! Both together have `handshake_timeout`; a connection of a listener without either goes straight to HTTP. What ends here
//! is counted under `source="-"`, unless not one byte came: balancers look in like that all day. A handshake that no request
//! follows speaks against its address like a refused delivery.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::close::{LINGER, close};
use super::peer::Peer;
use super::response::bare;
use super::shutdown::Phase;
use super::state::ServerState;
use super::tls::{HTTP_2, Tls};
use super::{http1, http2, proxies};
use crate::answer::Answer;
use crate::log::escaped;
use crate::outcome::Outcome;

/// Serves one connection, from its first byte to its end.
pub(super) async fn enter(stream: TcpStream, peer: Peer, desk: Arc<ServerState>, phases: watch::Receiver<Phase>) {
    if desk.tls.is_none() && !desk.proxies.announce(peer.remote.ip()) {
        http1::serve(stream, peer, desk, phases).await;
        return;
    }
    let began = Instant::now();
    // Boxed, so that the tasks of a listener without TLS do not have the size of its handshakes.
    Box::pin(Greeting { peer, began, desk, phases }.pass(stream)).await;
}

struct Greeting {
    peer: Peer,
    began: Instant,
    desk: Arc<ServerState>,
    phases: watch::Receiver<Phase>,
}

impl Greeting {
    async fn pass(mut self, mut stream: TcpStream) {
        if self.desk.proxies.announce(self.peer.remote.ip()) {
            let mut came = false;
            let header = self.in_time(proxies::read_header(&mut stream, &mut came)).await;
            match header.and_then(|header| header.map_err(|error| broken(&error))) {
                Ok(Some(client)) => match Peer::connect(client, &self.desk) {
                    Some(peer) => self.peer = peer,
                    None => return,
                },
                Ok(None) => {}
                Err(answer) => return self.refuse(stream, came.then_some(answer), PROXY_EXPECTED).await,
            }
        }
        match self.desk.tls.clone() {
            None => {
                self.phases.mark_changed();
                http1::serve(stream, self.peer, self.desk, self.phases).await;
            }
            Some(tls) => self.shake_hands(stream, &tls).await,
        }
    }

    async fn shake_hands(mut self, stream: TcpStream, tls: &Tls) {
        match self.in_time(first_byte(&stream)).await {
            Ok(Ok(Some(TLS_HANDSHAKE))) => {}
            Ok(Ok(Some(_))) => {
                let answer = Answer::plain(Outcome::BadRequest).with_hint("plain text on the port for TLS");
                return self.refuse(stream, Some(answer), HTTPS_EXPECTED).await;
            }
            _ => return,
        }
        if self.peer.is_turned_away() {
            return;
        }
        let stream = match self.in_time(tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stream))) => return self.refuse(stream, Some(broken(&error)), "").await,
            Err(answer) => return self.note(&answer),
        };
        self.phases.mark_changed();
        let peer = self.peer.clone();
        let asked = if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
            http2::serve(stream, self.peer, self.desk, self.phases).await
        } else {
            http1::serve(stream, self.peer, self.desk, self.phases).await
        };
        if !asked {
            peer.came_for_nothing();
        }
    }

    /// Waits for `work` until the time is over or the drain is.
    async fn in_time<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Answer> {
        let due = self.began + self.desk.limits.handshake_timeout;
        select! {
            biased;
            done = work => Ok(done),
            _ = self.phases.wait_for(|phase| *phase >= Phase::Cut) => {
                Err(Answer::plain(Outcome::Draining).with_hint("the handshake was not complete at the drain deadline"))
            }
            () = sleep_until(due) => {
                Err(Answer::plain(Outcome::TooSlow).with_hint("the handshake was not complete within handshake_timeout"))
            }
        }
    }

    /// Counts the ending, if there was a beginning, and closes; what is not readable is told in plain words, if any.
    async fn refuse(self, stream: TcpStream, answer: Option<Answer>, words: &'static str) {
        let Some(mut answer) = answer else { return };
        self.note(&answer);
        let speaks = answer.outcome == Outcome::BadRequest && !words.is_empty();
        answer.body = Bytes::from_static(words.as_bytes());
        let words = speaks.then(|| bare(&answer, self.desk.clock.now()));
        close(stream, words, true, LINGER).await;
    }

    fn note(&self, answer: &Answer) {
        let now = Instant::now();
        self.desk.tallies.stray.open(self.peer.remote, self.began).close(answer, now);
        self.peer.visit.note(answer.outcome, 0, now);
        if answer.outcome == Outcome::Disconnected {
            self.peer.came_for_nothing();
        }
    }
}

/// What the client begins with, left where it is; `None` when it has gone.
async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    Ok((stream.peek(&mut byte).await? > 0).then_some(byte[0]))
}

fn broken(error: &io::Error) -> Answer {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Answer::plain(Outcome::Disconnected).with_hint("the sender left within the handshake")
        }
        _ => Answer::plain(Outcome::BadRequest).with_hint(escaped(&error.to_string())),
    }
}

/// The type of a TLS record that begins a connection (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

const HTTPS_EXPECTED: &str = "This port speaks HTTPS: the URL must begin with https://\n";
const PROXY_EXPECTED: &str = "This port expects PROXY protocol v2 from your address.\n";
