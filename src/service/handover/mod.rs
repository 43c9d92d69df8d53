//! Hands the listening sockets and the journal over from one process to the next, so that an upgrade loses neither a connection
//! nor a delivery.
//!
//! The running process (the predecessor) listens on the Unix socket `handover` in the journal's directory. The new process (the
//! successor) reads its configuration completely, and then connects. Only processes of the same user may connect. Each message is
//! one line ([`message`]); the listening sockets follow the offer as file descriptors.
//!
//! ```text
//! successor                                predecessor
//!     │ hello ──────────────────────────────► │ serves
//!     │ ◄──────────── offer, both sockets     │ serves
//!     │ prepares TLS and pages                │
//!     │ ready ──────────────────────────────► │ closes each connection after its next response,
//!     │                                       │ for at most `drain_delay`
//!     │ ◄────────────────────────── switch    │ stops accepting
//!     │ accepts and holds deliveries          │ answers open requests, stops forwarding
//!     │                                       │ closes the journal
//!     │ ◄──────────────────────── released    │ exits
//!     │ opens the journal, answers            │
//! ```
//!
//! If the successor ends before the predecessor closes the journal, the predecessor accepts again. If the predecessor ends at any
//! time, the successor opens the journal as soon as its lock is free. The messages contain nothing that the journal needs, so
//! versions with another journal format reject the hand-over only if the successor cannot read the format.

mod channel;
mod held;
mod message;
mod predecessor;
mod successor;

pub use held::HeldListeners;
pub(super) use predecessor::{AdminGate, Predecessor};
pub use successor::{HandoverError, HandoverOffer};

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use message::HandoverMessage;

/// The process that takes over, and waits for the journal.
pub(super) struct WaitingSuccessor {
    /// Process id.
    pub(super) pid: u32,
    stream: UnixStream,
}

impl WaitingSuccessor {
    /// Tells the process that the journal is closed. Blocks for a short time at most. Fails if the process has ended.
    pub(super) fn release(mut self) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_write_timeout(Some(RELEASE_TIMEOUT))?;
        self.stream.write_all(HandoverMessage::Released.to_line().as_bytes())
    }
}

/// Name of the Unix socket in the journal's directory.
const SOCKET: &str = "handover";
/// Version of the messages.
const PROTOCOL: u32 = 1;
/// Time limit for an answer that needs no work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for the preparation of the successor, and for the wait of the successor until the predecessor stops accepting: the longest
/// `drain_delay`, and some time for the predecessor.
const PREPARATION_TIMEOUT: Duration = Duration::from_secs(60);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
