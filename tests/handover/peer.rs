//! One side of a hand-over, played by the test, so that the test decides when this side does a step or ends.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::fs::{FlockOperation, flock};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::process::{Home, TIMEOUT};

/// The connection between the two sides.
pub struct Peer(BufReader<UnixStream>);

impl Peer {
    /// Plays the new process: connects to the running one.
    pub fn connect(home: &Home) -> Peer {
        Peer::over(UnixStream::connect(home.journal().join("handover")).expect("the running process listens"))
    }

    /// Plays the new process until it has the offer of the running one.
    pub fn with_offer(home: &Home) -> Peer {
        let mut peer = Peer::connect(home);
        peer.say("hello 1 4711 0.0.0-test");
        assert!(peer.hear().starts_with("offer "));
        peer
    }

    fn over(stream: UnixStream) -> Peer {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket has this option");
        Peer(BufReader::new(stream))
    }

    pub fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).expect("the other side reads");
    }

    /// Returns the next line; an empty text if the other side has closed the connection.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the other side answers or ends");
        line.trim_end().to_owned()
    }
}

/// The running process, played by the test: it holds the lock of the journal and both listening sockets.
pub struct FakePredecessor {
    lock: File,
    sockets: [TcpListener; 2],
    listener: UnixListener,
}

impl FakePredecessor {
    /// Takes the place of a process of `home` that has ended. The journal must exist.
    pub fn new(home: &Home) -> FakePredecessor {
        let lock = File::open(home.journal()).expect("the journal exists");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("no process has the journal open");
        let path = home.journal().join("handover");
        let _ = std::fs::remove_file(&path);
        let sockets = [home.hooks, home.admin].map(|address| TcpListener::bind(address).expect("the port is reserved"));
        FakePredecessor { lock, sockets, listener: UnixListener::bind(path).expect("a short path") }
    }

    /// Accepts the new process, and offers the sockets to it. Returns when the new process is ready.
    pub fn offer(&self) -> Peer {
        let mut peer = Peer::over(self.listener.accept().expect("the new process connects").0);
        assert!(peer.hear().starts_with("hello 1 "));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sockets = [self.sockets[0].as_fd(), self.sockets[1].as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&sockets)));
        let line = IoSlice::new(b"offer 4711 0.0.0-test\n");
        sendmsg(peer.0.get_ref(), &[line], &mut control, SendFlags::empty()).expect("the new process reads");
        assert_eq!(peer.hear(), "ready shared");
        peer
    }

    /// Releases the lock of the journal, and says so.
    pub fn release(self, peer: &mut Peer) {
        drop(self.lock);
        peer.say("released");
    }
}
