//! Opens the listeners of the gateway, or takes sockets that are already open: from the service manager, or from the process that
//! hands over.

use std::io;
use std::net::{self, SocketAddr};

use tokio::net::TcpListener;

use crate::config::Config;
use crate::server;

/// Open listeners that [`Service::start`](super::Service::start) serves.
pub struct Listeners {
    /// Listener for deliveries.
    pub deliveries: TcpListener,
    /// Listener for metrics, health probes and the API for operators.
    pub admin: TcpListener,
}

/// Listening sockets that another process has opened.
#[derive(Default)]
pub struct OpenSockets {
    /// Socket for deliveries; `None` if the process must open it.
    pub deliveries: Option<net::TcpListener>,
    /// Socket of the admin listener; `None` if the process must open it.
    pub admin: Option<net::TcpListener>,
}

/// Reason why [`Listeners::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be used.
    #[error(
        "{key}: expected an available address, found {address} unavailable; change {key}, or stop the process that listens there"
    )]
    Unavailable {
        /// Key of the address in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Error of the system call.
        source: io::Error,
    },
    /// The passed socket listens on another address than the configuration says.
    #[error(
        "{key}: expected {passed}, the address of the passed socket, found {address}; correct {key}, or ListenStream in the socket unit"
    )]
    OtherAddress {
        /// Key of the address in the configuration.
        key: &'static str,
        /// Address in the configuration.
        address: SocketAddr,
        /// Address of the socket.
        passed: SocketAddr,
    },
}

impl Listeners {
    /// Takes the sockets that are already open, and opens the others at the configured addresses. Fails if an open socket does not
    /// fit the configured address. Must be called inside a tokio runtime.
    pub fn open(config: &Config, sockets: OpenSockets) -> Result<Listeners, ListenError> {
        let deliveries = open("server.listen", config.server.listen, sockets.deliveries)?;
        Ok(Listeners { deliveries, admin: open("admin.listen", config.admin.listen, sockets.admin)? })
    }
}

fn open(key: &'static str, address: SocketAddr, socket: Option<net::TcpListener>) -> Result<TcpListener, ListenError> {
    let unavailable = |source| ListenError::Unavailable { key, address, source };
    let Some(socket) = socket else { return server::listen(address).map_err(unavailable) };
    let passed = socket.local_addr().map_err(unavailable)?;
    if !fits(passed, address) {
        return Err(ListenError::OtherAddress { key, address, passed });
    }
    socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)).map_err(unavailable)
}

/// Returns true if a socket that listens on `passed` serves the configured `address`: both are the same, or both are every address of
/// the machine with the same port. The port 0 fits every port.
pub fn fits(passed: SocketAddr, address: SocketAddr) -> bool {
    let same_port = address.port() == 0 || passed.port() == address.port();
    // systemd opens `ListenStream=8080` on [::], which also accepts IPv4.
    let both_any = passed.ip().is_unspecified() && address.ip().is_unspecified();
    same_port && (both_any || passed.ip().to_canonical() == address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_passed_socket_fits_only_its_own_address() {
        let fits = |passed: &str, configured: &str| {
            super::fits(passed.parse().expect("an address"), configured.parse().expect("an address"))
        };
        assert!(fits("127.0.0.1:80", "127.0.0.1:80") && fits("[::]:80", "0.0.0.0:80") && fits("0.0.0.0:80", "[::]:0"));
        assert!(!fits("127.0.0.1:81", "127.0.0.1:80") && !fits("[::]:80", "127.0.0.1:80") && !fits("127.0.0.1:80", "0.0.0.0:80"));
    }
}
