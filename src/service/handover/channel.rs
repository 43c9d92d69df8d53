//! Connection between the two processes of a hand-over, which carries messages and file descriptors.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::geteuid;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::message::HandoverMessage;

/// Connection between the two processes of a hand-over. Both belong to the same user.
pub(super) struct HandoverChannel {
    stream: UnixStream,
    /// Received bytes that do not make a line yet.
    unparsed: Vec<u8>,
    /// Received descriptors that belong to the next line.
    descriptors: Vec<OwnedFd>,
}

impl HandoverChannel {
    /// Uses a connected socket. Fails with [`ErrorKind::PermissionDenied`] if the peer belongs to another user. Must be called
    /// inside a tokio runtime.
    pub(super) fn new(stream: net::UnixStream) -> io::Result<HandoverChannel> {
        let (peer, own) = (socket_peercred(&stream)?.uid, geteuid());
        if peer != own {
            let (own, peer) = (own.as_raw(), peer.as_raw());
            let text = format!("expected a process of the user {own}, found one of {peer}; start both as the same user");
            return Err(io::Error::new(ErrorKind::PermissionDenied, text));
        }
        stream.set_nonblocking(true)?;
        Ok(HandoverChannel { stream: UnixStream::from_std(stream)?, unparsed: Vec::new(), descriptors: Vec::new() })
    }

    /// Sends a message with these descriptors. A message always fits into the buffer of the socket.
    pub(super) async fn send(&self, message: &HandoverMessage, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let line = message.to_line();
        let write = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::other("expected at most 2 descriptors, found more"));
            }
            Ok(sendmsg(&self.stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::NOSIGNAL)?)
        };
        match self.stream.async_io(Interest::WRITABLE, write).await? {
            sent if sent == line.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// Receives a message and the descriptors that came with it. Fails with [`ErrorKind::UnexpectedEof`] if the peer has ended, and with
    /// [`ErrorKind::TimedOut`] if the message does not arrive within `limit`.
    pub(super) async fn receive(&mut self, limit: Duration) -> io::Result<(HandoverMessage, Vec<OwnedFd>)> {
        let receive = async {
            loop {
                if let Some(end) = self.unparsed.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.unparsed.drain(..=end).collect();
                    let message = std::str::from_utf8(&line[..end]).ok().and_then(HandoverMessage::parse);
                    let message = message.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "found an unknown message"))?;
                    return Ok((message, std::mem::take(&mut self.descriptors)));
                }
                match self.read().await? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    _ if self.unparsed.len() > MAX_LINE_BYTES => return Err(ErrorKind::InvalidData.into()),
                    _ => {}
                }
            }
        };
        timeout(limit, receive).await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }

    /// Waits until the peer has ended. The peer must not send a message in the meantime.
    pub(super) async fn ended(&mut self) {
        let _ = self.read().await;
    }

    /// Returns the socket.
    pub(super) fn into_std(self) -> io::Result<net::UnixStream> {
        self.stream.into_std()
    }

    async fn read(&mut self) -> io::Result<usize> {
        let (stream, unparsed, descriptors) = (&self.stream, &mut self.unparsed, &mut self.descriptors);
        let read = || {
            let mut bytes = [0; MAX_LINE_BYTES];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(sent) = message {
                    descriptors.extend(sent);
                }
            }
            unparsed.extend_from_slice(&bytes[..received.bytes]);
            Ok(received.bytes)
        };
        stream.async_io(Interest::READABLE, read).await
    }
}

/// Maximum length of a line in bytes.
const MAX_LINE_BYTES: usize = 1024;
