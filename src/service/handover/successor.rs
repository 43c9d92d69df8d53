//! The new process of a hand-over: it asks the running one for the listening sockets, and waits for the journal.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::super::{OpenSockets, fits};
use super::channel::HandoverChannel;
use super::message::{DeliverySocket, HandoverMessage};
use super::{ANSWER_TIMEOUT, PREPARATION_TIMEOUT, PROTOCOL, SOCKET};
use crate::build_info;
use crate::config::Config;
use crate::journal::check_format;
use crate::journal::disk::Disk;

/// Offer of the running process. Dropping it cancels the hand-over: the running process continues.
pub struct HandoverOffer {
    channel: HandoverChannel,
    sockets: OpenSockets,
    delivery_socket: DeliverySocket,
    /// Process id of the running process.
    pub pid: u32,
    /// Version of the running process.
    pub version: String,
}

/// Reason why a process cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The running process rejects the hand-over.
    #[error("hand-over: expected the agreement of the running process, found a rejection: {0}")]
    Rejected(String),
    /// This version cannot read the journal.
    #[error("hand-over: expected a journal that this version can read, found another format; upgrade by a restart")]
    Format(#[source] io::Error),
    /// The connection to the running process failed.
    #[error("hand-over: expected the messages of the running process, found an error ({0}); see its log")]
    Connection(String),
}

impl From<io::Error> for HandoverError {
    fn from(error: io::Error) -> HandoverError {
        // As text, because a broken connection to the running process is no closed output of this command.
        HandoverError::Connection(error.to_string())
    }
}

impl HandoverOffer {
    /// Asks the process that has the journal in `disk` open. Returns `None` if no process offers a hand-over. Must be called inside a
    /// tokio runtime.
    pub async fn request(disk: &dyn Disk, config: &Config) -> Result<Option<HandoverOffer>, HandoverError> {
        let Some(stream) = disk.connect_socket(SOCKET)? else { return Ok(None) };
        check_format(disk).map_err(HandoverError::Format)?;
        let mut channel = HandoverChannel::new(stream)?;
        let version = build_info::VERSION.to_owned();
        // If the running process has already closed the connection, it may have said why.
        let _ = channel.send(&HandoverMessage::Hello { protocol: PROTOCOL, pid: std::process::id(), version }, &[]).await;
        match channel.receive(ANSWER_TIMEOUT).await? {
            (HandoverMessage::Offer { pid, version }, descriptors) => {
                let (sockets, delivery_socket) = chosen(config, descriptors)?;
                Ok(Some(HandoverOffer { channel, sockets, delivery_socket, pid, version }))
            }
            (HandoverMessage::Rejected(reason), _) => Err(HandoverError::Rejected(reason)),
            _ => Err(io::Error::from(ErrorKind::InvalidData).into()),
        }
    }

    /// Takes the sockets of the running process that fit the configuration.
    pub fn take_sockets(&mut self) -> OpenSockets {
        std::mem::take(&mut self.sockets)
    }

    /// Tells the running process that this one is able to accept, and waits until the running one has stopped accepting or has ended.
    pub async fn switch(&mut self, drain_delay: Duration) -> Result<(), HandoverError> {
        self.channel.send(&HandoverMessage::Ready(self.delivery_socket), &[]).await?;
        match self.channel.receive(PREPARATION_TIMEOUT + drain_delay).await {
            Ok((HandoverMessage::Switch, _)) => Ok(()),
            Ok((HandoverMessage::Rejected(reason), _)) => Err(HandoverError::Rejected(reason)),
            Ok(_) => Err(io::Error::from(ErrorKind::InvalidData).into()),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(error.into()),
            Err(_) => {
                tracing::warn!(process = self.pid, "the running process has ended during the hand-over; this process takes over");
                Ok(())
            }
        }
    }

    /// Waits until the running process has closed the journal, or has ended. Logs a warning for each `patience` that this takes.
    pub async fn released(&mut self, patience: Duration) {
        loop {
            match self.channel.receive(patience).await {
                Ok((HandoverMessage::Released, _)) => return,
                Err(error) if error.kind() == ErrorKind::TimedOut => tracing::warn!(
                    process = self.pid,
                    "the running process has not closed the journal yet, so deliveries get a 503 at their deadline; see its log, or end it"
                ),
                _ => {
                    tracing::warn!(process = self.pid, "the running process has ended before it has closed the journal");
                    return;
                }
            }
        }
    }
}

/// Returns the received sockets whose addresses fit the configuration. This process opens the others itself.
fn chosen(config: &Config, descriptors: Vec<OwnedFd>) -> Result<(OpenSockets, DeliverySocket), HandoverError> {
    let [deliveries, admin] = <[OwnedFd; 2]>::try_from(descriptors)
        .map_err(|found| io::Error::new(ErrorKind::InvalidData, format!("expected 2 sockets, found {}", found.len())))?;
    let chosen = |key, socket: OwnedFd, address| -> Option<TcpListener> {
        let socket = TcpListener::from(socket);
        let passed = socket.local_addr().ok()?;
        let is_same = fits(passed, address);
        if !is_same {
            tracing::info!(key, from = %passed, to = %address, "the address changes, so this process opens another listener");
        }
        is_same.then_some(socket)
    };
    let deliveries = chosen("server.listen", deliveries, config.server.listen);
    let delivery_socket = if deliveries.is_some() { DeliverySocket::Shared } else { DeliverySocket::Own };
    Ok((OpenSockets { deliveries, admin: chosen("admin.listen", admin, config.admin.listen) }, delivery_socket))
}
