//! The running process of a hand-over: it offers its listening sockets and the journal to a process that asks for them.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;
use std::sync::Weak;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::select;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::super::Service;
use super::channel::HandoverChannel;
use super::message::{DeliverySocket, HandoverMessage};
use super::{ANSWER_TIMEOUT, PREPARATION_TIMEOUT, PROTOCOL, SOCKET, WaitingSuccessor};
use crate::build_info;
use crate::server::HandoverStep;

/// Receiver of whether the admin listener accepts connections.
pub(in super::super) type AdminGate = watch::Receiver<bool>;

/// The running process, which offers its sockets until it ends.
pub(in super::super) struct Predecessor {
    service: Service,
    /// Listener for deliveries. The server owns it, so that it closes when the server drops it.
    deliveries: Weak<TcpListener>,
    /// Copy of the socket of the admin listener.
    admin: OwnedFd,
    admin_is_open: watch::Sender<bool>,
}

/// State of the forwarder of a process that hands over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ForwardingState {
    Running,
    /// The forwarder has stopped, or is about to stop.
    Stopped,
}

/// Reason why this process continues.
#[derive(Debug, thiserror::Error)]
enum HandoverFailure {
    #[error("expected messages of version {PROTOCOL}, found version {0}; upgrade by a restart")]
    Protocol(u32),
    #[error("expected a process that serves, found one that is stopping; start normally when it has ended")]
    Stopping,
    #[error("expected no reload of the configuration, found one under way; try again when it has ended")]
    Reloading,
    #[error("expected the new process to take over, found that it has ended or does not answer; see its log")]
    Ended(#[from] io::Error),
}

impl Predecessor {
    /// Copies the socket of the admin listener. Returns `None`, after a log line, if this is not possible.
    pub(in super::super) fn new(
        service: Service,
        deliveries: Weak<TcpListener>,
        admin: &TcpListener,
    ) -> Option<(Predecessor, AdminGate)> {
        let (admin_is_open, gate) = watch::channel(true);
        match admin.as_fd().try_clone_to_owned() {
            Ok(admin) => Some((Predecessor { service, deliveries, admin, admin_is_open }, gate)),
            Err(error) => {
                tracing::warn!(%error, "{NO_OFFER}");
                None
            }
        }
    }

    /// Waits for processes that ask for a hand-over. Never returns: a complete hand-over ends the server.
    pub(in super::super) async fn offer(&self) {
        let bound = self.service.0.disk.bind_socket(SOCKET);
        let listener = bound.and_then(|socket| socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket)));
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                if error.kind() != ErrorKind::Unsupported {
                    tracing::warn!(%error, "{NO_OFFER}");
                }
                return std::future::pending().await;
            }
        };
        loop {
            let Some(channel) = accept(&listener).await else { continue };
            let mut current = std::pin::pin!(self.hand_over(channel));
            loop {
                select! {
                    biased;
                    () = &mut current => break,
                    other = accept(&listener) => if let Some(channel) = other {
                        reject(&channel, ANOTHER).await;
                    }
                }
            }
        }
    }

    /// Hands over to the process at the other end of `channel`. Continues to serve if this fails.
    async fn hand_over(&self, mut channel: HandoverChannel) {
        let Service(components) = &self.service;
        let pid = match self.agree(&mut channel).await {
            Ok(pid) => pid,
            Err(failure) => {
                reject(&channel, &failure.to_string()).await;
                return self.report(&failure);
            }
        };
        let mut forwarding = ForwardingState::Running;
        let failure = match self.switch(&mut channel, &mut forwarding).await {
            Ok(()) => match channel.into_std() {
                Ok(stream) => {
                    *components.successor.lock().expect(super::super::POISON) = Some(WaitingSuccessor { pid, stream });
                    // Ends the server, and so this future.
                    components.shutdown.handover().complete();
                    return std::future::pending().await;
                }
                Err(error) => error,
            },
            Err(failure) => failure,
        };
        self.admin_is_open.send_replace(true);
        components.shutdown.handover().cancel();
        if forwarding == ForwardingState::Stopped {
            self.forward_again().await;
        }
        self.report(&failure.into());
    }

    /// Waits until forwarding has stopped, and starts it again.
    async fn forward_again(&self) {
        let service = self.service.clone();
        let restart = move || {
            service.stop_forwarding(Duration::ZERO);
            service.start_forwarding()
        };
        if let Ok(Err(error)) = spawn_blocking(restart).await {
            tracing::error!(%error, "cannot forward after a cancelled hand-over; restart hookhold");
        }
    }

    /// Exchanges the first messages. Changes nothing yet. Returns the process id of the successor when it is ready.
    async fn agree(&self, channel: &mut HandoverChannel) -> Result<u32, HandoverFailure> {
        let pid = match channel.receive(ANSWER_TIMEOUT).await?.0 {
            HandoverMessage::Hello { protocol, .. } if protocol != PROTOCOL => return Err(HandoverFailure::Protocol(protocol)),
            HandoverMessage::Hello { pid, version, .. } => {
                tracing::info!(process = pid, version, "another process asks to take over");
                pid
            }
            _ => return Err(io::Error::from(ErrorKind::InvalidData).into()),
        };
        let offer = HandoverMessage::Offer { pid: std::process::id(), version: build_info::VERSION.to_owned() };
        let deliveries = self.deliveries.upgrade().ok_or(HandoverFailure::Stopping)?;
        channel.send(&offer, &[deliveries.as_fd(), self.admin.as_fd()]).await?;
        drop(deliveries);
        let HandoverMessage::Ready(socket) = channel.receive(PREPARATION_TIMEOUT).await?.0 else {
            return Err(io::Error::from(ErrorKind::InvalidData).into());
        };
        if self.service.0.config.try_lock().is_err() {
            return Err(HandoverFailure::Reloading);
        }
        if !self.service.0.shutdown.begin_handover(socket == DeliverySocket::Shared) {
            return Err(HandoverFailure::Stopping);
        }
        tracing::info!(process = pid, "handing over; each connection closes after its next response");
        Ok(pid)
    }

    /// Stops accepting, answers the open requests and stops forwarding. Fails if the successor ends in the meantime. Updates
    /// `forwarding` before it stops forwarding.
    async fn switch(&self, channel: &mut HandoverChannel, forwarding: &mut ForwardingState) -> io::Result<()> {
        let steps = self.service.0.shutdown.handover();
        let ended = || io::Error::from(ErrorKind::UnexpectedEof);
        select! {
            biased;
            () = channel.ended() => return Err(ended()),
            () = steps.reached(HandoverStep::Switched) => {}
        }
        self.admin_is_open.send_replace(false);
        channel.send(&HandoverMessage::Switch, &[]).await?;
        tracing::info!("the new process accepts deliveries; this process answers the open ones");
        let service = self.service.clone();
        *forwarding = ForwardingState::Stopped;
        let stopped = spawn_blocking(move || service.stop_forwarding(LAST_ACKNOWLEDGEMENTS));
        let drained = async {
            steps.reached(HandoverStep::Drained).await;
            let _ = stopped.await;
        };
        select! {
            biased;
            () = channel.ended() => Err(ended()),
            () = drained => Ok(()),
        }
    }

    fn report(&self, failure: &HandoverFailure) {
        self.service.metrics().handovers.total.with_label_values(&["cancelled"]).inc();
        let cause = match failure {
            HandoverFailure::Ended(error) => error.to_string(),
            _ => String::new(),
        };
        tracing::error!(cause, "hand-over cancelled: {failure}; this process continues");
    }
}

/// Accepts a connection of a process of the same user. Returns `None` for any other one.
async fn accept(listener: &UnixListener) -> Option<HandoverChannel> {
    let accepted = match listener.accept().await {
        Ok((stream, _)) => stream.into_std().and_then(|stream: net::UnixStream| HandoverChannel::new(stream)),
        Err(error) => {
            sleep(ACCEPT_PAUSE).await;
            Err(error)
        }
    };
    accepted.inspect_err(|error| tracing::warn!(%error, "rejected a request for a hand-over")).ok()
}

async fn reject(channel: &HandoverChannel, reason: &str) {
    let _ = channel.send(&HandoverMessage::Rejected(reason.to_owned()), &[]).await;
}

/// Time limit for the last acknowledgements of Kafka. The successor sends unacknowledged events again.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_millis(500);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const NO_OFFER: &str = "cannot offer a hand-over to another process, so upgrade by a restart; check the journal's directory";
const ANOTHER: &str = "expected no other hand-over, found one under way; wait until it has ended";
