//! A TCP relay between a proxy and hookhold. It records the bytes that the proxy sends, and which side closes first.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// A relay that records each connection.
pub struct RecordingRelay {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<RelayedConnection>>>,
}

/// A connection of the proxy to hookhold.
#[derive(Clone, Debug, Default)]
pub struct RelayedConnection {
    /// Bytes that the proxy has sent.
    pub sent: Vec<u8>,
    /// Side that closed the connection first; `None` while the connection is open.
    pub closed_by: Option<ClosedBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    Proxy,
    Hookhold,
}

impl RecordingRelay {
    /// Starts a relay that forwards every connection to the address `hookhold`.
    pub fn to(hookhold: SocketAddr) -> RecordingRelay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let relay = RecordingRelay { address: listener.local_addr().expect("bound above"), connections: Arc::default() };
        let connections = relay.connections.clone();
        thread::spawn(move || {
            for proxy in listener.incoming() {
                let proxy = proxy.expect("the listener is open");
                let server = TcpStream::connect(hookhold).expect("hookhold listens");
                let index = lock(&connections).len();
                lock(&connections).push(RelayedConnection::default());
                let copies = [&proxy, &server].map(|stream| stream.try_clone().expect("a socket can be cloned"));
                let [proxy_copy, server_copy] = copies;
                let records = [connections.clone(), connections.clone()];
                let [requests, responses] = records;
                thread::spawn(move || {
                    forward(proxy, server, |bytes| lock(&requests)[index].record(bytes, ClosedBy::Proxy, true));
                });
                thread::spawn(move || {
                    forward(server_copy, proxy_copy, |bytes| lock(&responses)[index].record(bytes, ClosedBy::Hookhold, false));
                });
            }
        });
        relay
    }

    /// Returns a copy of the records of all connections.
    pub fn connections(&self) -> Vec<RelayedConnection> {
        lock(&self.connections).clone()
    }
}

impl RelayedConnection {
    /// Records bytes of one side. No bytes mean that this side has closed the connection.
    fn record(&mut self, bytes: &[u8], from: ClosedBy, is_request: bool) {
        match bytes {
            [] => _ = self.closed_by.get_or_insert(from),
            bytes if is_request => self.sent.extend_from_slice(bytes),
            _ => {}
        }
    }
}

fn lock(connections: &Mutex<Vec<RelayedConnection>>) -> MutexGuard<'_, Vec<RelayedConnection>> {
    connections.lock().expect("no thread panics while it holds this lock")
}

/// Copies bytes until `from` closes its side, then closes the other side. Passes the bytes to `record` first.
fn forward(mut from: TcpStream, mut to: TcpStream, record: impl Fn(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        record(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    record(&[]);
    let _ = to.shutdown(Shutdown::Write);
}
